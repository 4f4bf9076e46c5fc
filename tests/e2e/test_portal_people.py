"""Organizations, admin users and one's own account in a real browser, with a real authenticator's protocol."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect

import ground as g
from tenantry.config import load
from tenantry.identity.principal import AdminRole
from tenantry.identity.signin import Client, SignIn
from tenantry.web.site import site

PASSWORD = "correct horse battery"
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@dataclass
class Served:
    """Where the portal is."""

    url: str


def _on_a_loop_of_its_own(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)  # Playwright keeps a loop in this one
    thread.start()
    return thread


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A portal with three tenants, served by uvicorn."""
    ground = g.Ground(tmp_path_factory.mktemp("people") / "platform")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://localhost:{port}"
    ground.config.write_text(ground.config.read_text().replace("[platform]\n", f'[platform]\nurl = "{url}"\n'))
    found = Served(f"{url}/admin")
    config = load(ground.config)
    server = uvicorn.Server(uvicorn.Config(app := site(config), host="127.0.0.1", port=port, log_level="warning"))

    async def run() -> None:
        async with ground.open() as platform:
            for slug in ("acme", "umbrella", "initech"):
                await platform.operations.finish((await platform.tenants.create(slug)).id)
            link = (await platform.admins.invite("root@example.org", "Root", AdminRole.SUPERADMIN)).link
            await SignIn(platform.registry).take(link, PASSWORD, Client("127.0.0.1"))
        await server.serve()
        await app.state.house.close()

    thread = _on_a_loop_of_its_own(lambda: asyncio.run(run()))
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield found
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def window(browser: Browser) -> Iterator[BrowserContext]:
    """A browser of somebody's own."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(20_000)
    yield context
    context.close()


def sign_in(page: Page, served: Served, mail: str = "root@example.org") -> None:
    """By the page that people see."""
    page.goto(f"{served.url}/sign-in")
    page.get_by_label("Mail address").fill(mail)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def test_somebody_signs_in_by_a_passkey(served: Served, window: BrowserContext) -> None:
    """Made in the account, used on the sign-in page, removed; then it opens nothing."""
    page = window.new_page()
    session = window.new_cdp_session(page)
    session.send("WebAuthn.enable")
    authenticator = session.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})["authenticatorId"]
    sign_in(page, served)
    page.goto(f"{served.url}/me")
    page.get_by_label("Name of a new one").fill("my laptop")
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.get_by_role("status")).to_contain_text("my laptop")
    page.get_by_label("Name of a new one").fill("again")
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.locator("[data-fault]")).to_contain_text("already")
    page.get_by_role("button", name="Sign out", exact=True).click()
    for _ in range(2):
        page.goto(f"{served.url}/me")
        with page.expect_request(f"{served.url}/passkey") as sent:
            page.get_by_role("button", name="Sign in with a passkey").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Your account")
        page.get_by_role("button", name="Sign out", exact=True).click()
    replayed = page.request.post(
        f"{served.url}/passkey",
        data=sent.value.post_data,
        headers={"content-type": "application/x-www-form-urlencoded"},
        max_redirects=0,
    )
    assert replayed.status == 401
    sign_in(page, served)
    page.goto(f"{served.url}/me")
    page.get_by_role("button", name="Remove the passkey my laptop").click()
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.get_by_role("alert").filter(has_text="opens nothing")).to_be_visible()
    session.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": authenticator})

"""A tenant's users in a real browser, at a host of its own and below a path, with a real mail server and a worker."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from typing import TYPE_CHECKING

import pyotp
import pytest
from playwright.sync_api import Page, expect

import entrances as e
import ground as g
import looking
import people_world as w
from tenantry.codes import STEP
from tenantry.credentials import Role

if TYPE_CHECKING:
    from conftest import Visit, Windows

pytestmark = pytest.mark.browser

AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@dataclass
class Site:
    """Where the tenants are, and what comes by mail."""

    ground: g.Ground
    port: int
    inbox: w.Inbox

    def base(self, slug: str, by_path: bool = False) -> str:
        """The address of a tenant, without a slash at the end."""
        return f"http://localhost:{self.port}/t/{slug}" if by_path else f"http://{slug}.localhost:{self.port}"

    def page(self, slug: str, name: str, by_path: bool = False) -> str:
        """The address of a page of a tenant's entrance."""
        return f"{self.base(slug, by_path)}/.tenantry/{name}"

    def mail(self, to: str, count: int) -> str:
        """The link in the newest mail to somebody, once there are so many mails to her."""

        def theirs() -> list[EmailMessage]:
            return [one for one in self.inbox.mails if one["To"] == to]

        with self.inbox.came:
            assert self.inbox.came.wait_for(lambda: len(theirs()) >= count, g.PATIENCE)
        found = re.search(r"http://\S+/\.tenantry/link/\S+", w.text_of(theirs()[-1]))
        assert found is not None
        return found[0]

    def run(self, *arguments: str) -> None:
        """Run a command of the platform."""
        command = self.ground.command(*arguments)
        told, _ = command.communicate(timeout=g.PATIENCE)
        assert command.returncode == 0, told


def _apart(ground: g.Ground) -> None:
    """Two tenants with an admin each, made on an event loop that is not the browser's."""

    async def make() -> None:
        await e.prepare(ground, "acme", "umbrella")
        async with e.entry(ground) as here:
            for slug in ("acme", "umbrella"):
                await here.user("root@example.org", Role.ADMIN, slug)

    thread = threading.Thread(target=lambda: asyncio.run(make()))
    thread.start()
    thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The application, served; a worker sends its mails."""
    with pytest.MonkeyPatch.context() as patch, w.inbox(tmp_path_factory.mktemp("mail")) as inbox:
        patch.setattr("tenantry.runtime.runtime._installed", None)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ground = g.Ground(tmp_path_factory.mktemp("users") / "platform", e.TOML)
        w.mailing(ground, inbox, url=f"http://localhost:{port}")
        _apart(ground)
        with ground.worker(), e.served(ground.config, port):
            yield Site(ground, port, inbox)


def sign_in(page: Page, address: str, login: str, password: str = e.PASSWORD) -> None:
    """By the sign-in page."""
    page.goto(address)
    page.get_by_label("Mail address or login").fill(login)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def press(page: Page, name: str) -> None:
    """A button of this name."""
    page.get_by_role("button", name=name, exact=True).click()


def forgive(visit: Visit, *statuses: int) -> None:
    """Refusals that a test asked for are no faults of the page."""
    visit.faults = [one for one in visit.faults if not any(f"status of {status}" in one for status in statuses)]


@pytest.mark.parametrize("by_path", [False, True], ids=["host", "path"])
def test_from_an_invitation_to_a_new_password(site: Site, window: Windows, by_path: bool) -> None:
    """Invited by mail, signed in, second factor, passkey, sessions ended, password forgotten: all by the pages."""
    eva, slug = f"eva{by_path:d}@example.org", "umbrella" if by_path else "acme"

    def at(link: str) -> str:
        return site.page(slug, "link/", by_path) + link.rpartition("/")[2]

    with window() as boss, window(viewport={"width": 390, "height": 844}, color_scheme="dark") as hers:
        sign_in(boss.page, site.page(slug, "sign-in?next=/nowhere/%2e%2e/", by_path), "root@example.org")
        expect(boss.page.get_by_text("Here is root@example.org.")).to_be_visible()
        boss.page.goto(site.page(slug, "users", by_path))
        boss.page.get_by_text("Invite somebody").click()
        boss.page.get_by_label("Mail address", exact=True).fill(eva)
        boss.page.get_by_label("Name what people call this user").fill("Eva & Söhne")
        press(boss.page, "Invite")
        expect(boss.page.get_by_role("status")).to_have_text(f"{eva} is invited.")
        link = site.mail(eva, 1)
        assert link.startswith(f"http://{slug}.localhost:{site.port}/.tenantry/link/")

        page = hers.page
        page.goto(at(link))
        page.get_by_label("Password").fill(e.PASSWORD)
        press(page, "Go on")
        expect(page.get_by_text(f"Here is {eva}.")).to_be_visible()
        page.goto(site.page(slug, "me", by_path))
        page.get_by_role("link", name="Turn it on").click()
        secret = page.locator(".key").inner_text().replace(" ", "")
        page.get_by_label("Code").fill(pyotp.TOTP(secret).at(int(time.time()) - STEP))
        press(page, "Turn it on")
        recovery = page.locator("ul.codes code").all_inner_texts()
        assert len(recovery) == 10
        page.get_by_role("link", name="I have them").click()

        session = hers.context.new_cdp_session(page)
        session.send("WebAuthn.enable")
        session.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
        page.get_by_label("Name of a new one").fill("my laptop")
        press(page, "Add a passkey")
        expect(page.get_by_role("status")).to_contain_text("The passkey my laptop is kept.")
        press(page, "Sign out")
        expect(page.get_by_role("status")).to_have_text("You are signed out.")
        press(page, "Sign in with a passkey")
        expect(page.get_by_text(f"Here is {eva}.")).to_be_visible()

        with window() as other:
            sign_in(other.page, site.page(slug, "sign-in", by_path), eva)
            other.page.get_by_label("Code of the second factor").fill(recovery[0])
            press(other.page, "Go on")
            expect(other.page.get_by_text(f"Here is {eva}.")).to_be_visible()
            page.goto(site.page(slug, "me", by_path))
            expect(page.get_by_text("9 recovery codes are left.")).to_be_visible()
            page.get_by_role("button", name=re.compile("^End the session")).click()
            other.page.reload()
            expect(other.page.get_by_text("Here is nobody.")).to_be_visible()

            other.page.goto(site.page(slug, "forgot", by_path))
            other.page.get_by_label("Mail address").fill(eva)
            press(other.page, "Send the link")
            expect(other.page.get_by_role("status")).to_contain_text("a mail with a link is on its way")
            other.page.goto(at(site.mail(eva, 2)))
            other.page.get_by_label("Password").fill("another good sentence")
            press(other.page, "Go on")
            expect(other.page.get_by_role("status")).to_contain_text("Sign in by it and your second factor.")
            page.reload()
            expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()


def test_a_suspended_tenant_is_over(site: Site, window: Windows) -> None:
    """In the middle of what somebody does: her next step shows the page of a closed tenant; resumed, she goes on."""
    with window() as visit:
        page = visit.page
        sign_in(page, site.page("acme", "sign-in"), "root@example.org")
        page.goto(site.page("acme", "me"))
        site.run("tenant", "suspend", "acme", "--reason", "unpaid")
        press(page, "Save")
        expect(page.get_by_text("is closed at the moment")).to_be_visible()
        page.goto(site.page("acme", "sign-in"))
        expect(page.get_by_text("is closed at the moment")).to_be_visible()
        site.run("tenant", "resume", "acme")
        page.goto(site.page("acme", "me"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Your account")
        forgive(visit, 403)


def test_by_keyboard_alone(site: Site, window: Windows) -> None:
    """Signing in needs no mouse: the first field has the focus, Tab leads on, Enter sends."""
    with window() as visit:
        page = visit.page
        page.goto(site.page("acme", "sign-in"))
        page.keyboard.type("root@example.org")
        page.keyboard.press("Tab")
        page.keyboard.type(e.PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_text("Here is root@example.org.")).to_be_visible()


def test_without_script(site: Site, window: Windows) -> None:
    """Everything but passkeys works without it."""
    with window(java_script_enabled=False) as visit:
        page = visit.page
        sign_in(page, site.page("acme", "sign-in"), "root@example.org")
        page.goto(site.page("acme", "users?search=root"))
        expect(page.locator("ul.people > li")).to_have_count(1)
        page.goto(site.page("acme", "me"))
        expect(page.get_by_text("This browser offers none here.")).to_be_visible()
        page.get_by_role("textbox", name="Name", exact=True).fill("Root <b>& Co</b>")
        press(page, "Save")
        expect(page.get_by_role("status")).to_have_text("Your name is changed.")


def test_how_the_pages_look(site: Site, window: Windows) -> None:
    """No page is wider than its window, none has a serious fault of axe-core, and each control is reached by Tab."""
    with window() as visit:
        page = visit.page
        sign_in(page, site.page("acme", "sign-in"), "root@example.org")
        page.goto(site.page("acme", "users"))
        page.get_by_text("Invite somebody").click()
        page.get_by_label("Mail address", exact=True).fill("new@example.org")
        page.get_by_label("Name what people call this user").fill("Somebody With A Long Name " * 7)
        press(page, "Invite")
        link = site.mail("new@example.org", 1).rpartition("/")[2]
        press(page, "Sign out")
        faults: dict[str, list[str]] = {}

        def see(name: str) -> None:
            faults[name] = looking.look(page) + looking.stops(page)

        for name in ("sign-in", "forgot", f"link/{link}", "link/nothing"):
            page.goto(site.page("acme", name))
            see(name)
        sign_in(page, site.page("acme", "sign-in"), "root@example.org", "wrong")
        see("refused")
        sign_in(page, site.page("acme", "sign-in"), "root@example.org")
        for name in ("me", "me/second-factor", "users", "users?search=nobody%20at%20all"):
            page.goto(site.page("acme", name))
            for fold in page.locator("summary").all():
                fold.click()
            see(name)
        assert {name: found for name, found in faults.items() if found} == {}
        forgive(visit, 401, 410)

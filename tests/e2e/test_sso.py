"""An organization's user in a real browser: by the real provider into two tenants, and out again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from providers import Provider
from sso_world import Served
from tenantry.identity.principal import AdminRole

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """It, with its provider."""
    root = tmp_path_factory.mktemp("sso")
    made = Served(root)
    provider = Provider(root, made.world.own(f"/sso/{made.organization}"))
    try:
        provider.start()
        made.issuer = provider.issuer
        yield made
    finally:
        provider.stop()
        made.close()


def test_an_organization_is_set_up_tried_and_used(served: Served, browser: Browser) -> None:
    """A superadmin sets the provider up, proves the domain, and tries it; then one of its people signs in at a tenant,
    is in at the other without a question, and out of both by signing out once. No page breaks its policy."""
    link = served.run(served.world.platform.admins.invite("root@example.org", role=AdminRole.SUPERADMIN)).link
    desk = browser.new_context(viewport={"width": 1280, "height": 900})
    page = desk.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(served.world.own(f"/admin/link/{link}"))
    page.fill("[name=password]", PASSWORD)
    page.click("button.main")
    page.goto(served.world.own(f"/admin/organizations/{served.organization}"))
    page.click("text=Set it up")
    page.fill("[name=issuer]", served.issuer)
    page.fill("[name=client_id]", "tenantry")
    page.fill("[name=secret]", "a client's secret: 100 % of it")
    page.click("text=Save")
    page.wait_for_selector("text=The single sign-on is saved")
    page.fill("[name=domain]:visible", "acme.example")
    page.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_selector("text=Now put the TXT record")
    record, value = (page.locator(".domain dd code").nth(n).inner_text() for n in (0, 1))
    page.click("text=Look now")
    page.wait_for_selector("text=is not there")
    served.known.texts[record] = [value]
    page.click("text=Look now")
    page.wait_for_selector("text=It is proven")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})
    page.click("text=Ask the provider")
    page.wait_for_selector("text=says what it is, and has 1 key.")
    page.click("text=Try a sign-in")
    page.click("text=Go to the provider")
    _as(page, "eva@acme.example")
    page.wait_for_selector("text=The sign-in works")
    assert "eva@acme.example is verified" in page.inner_text("main")
    assert page.inner_text("td:has-text('eva@acme.example') >> nth=0") == "eva@acme.example"
    assert [one for one in faults if "Content Security Policy" in one] == []
    desk.close()
    _in_and_out(served, browser)


def _in_and_out(served: Served, browser: Browser) -> None:
    person = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = person.new_page()
    page.goto(served.world.at("acme", "/.tenantry/sign-in?next=/desk"))
    page.click("text=Sign in with Acme & Söhne")
    _as(page, "eva@acme.example")
    page.wait_for_url(served.world.at("acme", "/desk"))
    assert page.inner_text("p") == "eva@acme.example user"
    page.goto(served.world.at("acme-two", "/.tenantry/sign-in"))
    page.click("text=Sign in with Acme & Söhne")
    page.wait_for_url(served.world.at("acme-two"))
    assert page.inner_text("p") == "eva@acme.example user"
    page.goto(served.world.at("acme-two", "/.tenantry/sso/sign-out"))
    page.click("text=Sign out here")
    page.click("text=Sign out of Acme & Söhne")
    page.click("[name=logout]")
    page.wait_for_selector("text=You are signed out")
    for slug in ("acme", "acme-two"):
        page.goto(served.world.at(slug))
        assert page.inner_text("p").startswith("nobody")
    person.close()


def _as(page: Any, login: str) -> None:
    """Sign in at the provider."""
    page.fill("[name=login]", login)
    page.fill("[name=password]", "any")
    page.click("[type=submit]")

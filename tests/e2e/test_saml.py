"""An organization's user in a real browser: by a real SAML provider at another site into two tenants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from saml_providers import PERSISTENT, Provider
from sso_world import Served
from tenantry.identity.principal import AdminRole

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Provider]]:
    """The platform at localhost, and the provider at 127.0.0.1: for a browser these are two sites."""
    root = tmp_path_factory.mktemp("saml")
    made = Served(root)
    people = {"eva": {"mail": ["eva@acme.example"], "displayName": ["Eva"], "groups": ["staff"]}}
    provider = Provider(root, people, {"NameIDFormat": PERSISTENT}, host="127.0.0.1")
    try:
        made.run(made.world.platform.sso.add_domain(made.organization, "acme.example"))
        claimed = made.run(made.world.platform.sso.show(made.organization)).domains[0]
        made.known.texts[claimed.record] = [claimed.value]
        made.run(made.world.platform.sso.prove_domain(made.organization, "acme.example"))
        provider.start(httpx.get(_metadata(made)).text)
        yield made, provider
    finally:
        provider.stop()
        made.close()


def test_an_organization_is_set_up_tried_and_used(served: tuple[Served, Provider], browser: Browser) -> None:
    """A superadmin gives the address of the provider's metadata and tries it; then one of its people signs in at a
    tenant, though the answer comes from another site without cookies, and is in at the other without a question."""
    made, provider = served
    link = made.run(made.world.platform.admins.invite("root@example.org", role=AdminRole.SUPERADMIN)).link
    desk = browser.new_context(viewport={"width": 1280, "height": 900})
    page = desk.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(made.world.own(f"/admin/link/{link}"))
    page.fill("[name=password]", "correct horse battery")
    page.click("button.main")
    page.goto(made.world.own(f"/admin/organizations/{made.organization}/sso"))
    page.fill("[name=metadata_url]", provider.metadata)
    page.click("text=Save")
    page.wait_for_selector("text=The single sign-on is saved")
    assert page.locator("dl.told code", has_text="/metadata").inner_text() == _metadata(made)
    (provider.folder / "platform.xml").write_text(httpx.get(_metadata(made)).text)  # now with our key
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("text=Ask the provider")
    page.wait_for_selector("text=says what it is, and has 1 key.")
    page.click("text=Try a sign-in")
    page.click("text=Go to the provider")
    _as(page, "eva")
    page.wait_for_selector("text=The sign-in works")
    assert "eva@acme.example is the address that the provider names" in page.inner_text("main")
    assert [one for one in faults if "Content Security Policy" in one] == []
    desk.close()
    _in(made, browser)


def _metadata(made: Served) -> str:
    """Where the platform says what it is."""
    return made.world.own(f"/sso/{made.organization}/metadata")


def _in(made: Served, browser: Browser) -> None:
    person = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = person.new_page()
    page.goto(made.world.at("acme", "/.tenantry/sign-in?next=/desk"))
    page.click("text=Sign in with Acme & Söhne")
    _as(page, "eva")
    page.wait_for_url(made.world.at("acme", "/desk"))
    assert page.inner_text("p") == "eva@acme.example user"
    page.goto(made.world.at("acme-two", "/.tenantry/sign-in"))
    page.click("text=Sign in with Acme & Söhne")
    page.wait_for_url(made.world.at("acme-two"))
    assert page.inner_text("p") == "eva@acme.example user"
    person.close()


def _as(page: Any, login: str) -> None:
    """Sign in at the provider."""
    page.fill("[name=username]", login)
    page.fill("[name=password]", "any")
    page.click("#submit_button")

"""Support access in a browser: from the tenant's page in the portal into Storyfront, and out again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Storyfront, Visit, Windows

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"


def sign_in(storyfront: Storyfront, visit: Visit, mail: str = "help@example.org") -> None:
    """As a superadmin, invited by the command line."""
    link = re.search(r"/admin/link/\S+", storyfront.tenantry("admin", "invite", mail, "--superadmin"))
    assert link is not None
    visit.page.goto(f"http://localhost:{storyfront.port}{link[0]}")
    visit.page.fill("[name=password]", PASSWORD)
    visit.page.click("button.main")
    visit.page.wait_for_url("**/admin/")


def test_support_looks_in_and_is_seen(storyfront: Storyfront, window: Windows) -> None:
    """View as, with a reason: a marked session of an admin's view that changes nothing, seen and ended."""
    with window() as desk, window(viewport={"width": 390, "height": 844}, color_scheme="dark") as owner:
        sign_in(storyfront, desk)
        page = desk.page
        page.goto(f"http://localhost:{storyfront.port}/admin/tenants/acme")
        page.click("text=View as…")
        page.fill("#support [name=reason]", "Ticket 7: the menu is gone")
        page.fill("[name=minutes]", "20")
        page.get_by_role("button", name="View as acme").click()
        with page.expect_popup() as opened:
            page.click("text=Look into Acme")
        inside = opened.value
        inside.click("button")
        inside.wait_for_url(storyfront.host("acme"))
        banner = inside.get_by_role("region", name="Support access")
        assert "You look only. Reason: Ticket 7: the menu is gone" in banner.inner_text()
        assert banner.evaluate("one => getComputedStyle(one).position") == "fixed"
        inside.goto(storyfront.host("acme", "/desk/settings"))
        assert inside.input_value("[name=title]")
        inside.keyboard.press("End")
        save = inside.get_by_role("button", name="Save")
        save.click()
        inside.wait_for_selector("text=This is not changed")
        owner.sign_in(storyfront.host("acme"), *storyfront.admins["acme"])
        assert "help@example.org of the platform's support looks in" in owner.page.inner_text(".tenantry-support")
        assert owner.page.evaluate("document.documentElement.scrollWidth") <= 390
        owner.page.goto(storyfront.host("acme", "/desk/settings"))
        assert "Ticket 7: the menu is gone" in owner.page.inner_text("section[aria-labelledby=support]")
        inside.goto(storyfront.host("acme"))
        banner.get_by_role("button", name="End it").press("Enter")
        inside.wait_for_selector("text=Support access to Acme & Söhne is over")
        inside.goto(storyfront.host("acme", "/desk"))
        assert "/sign-in" in inside.url
        owner.page.reload()
        owner.page.wait_for_selector("text=Over")
        assert owner.page.locator(".tenantry-support").count() == 0
        page.reload()
        assert "over" in page.inner_text("#support tbody")
        desk.faults = [one for one in desk.faults if "403" not in one]

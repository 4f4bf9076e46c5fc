"""Every page of the portal, as its routes name them, in a real browser: it fits, it is accessible, keys are enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, expect

from looking import graves, look, settled, stops
from servers import Postgres
from showroom import ANA, ROOT, Showroom, showroom

if TYPE_CHECKING:
    from conftest import Windows

pytestmark = pytest.mark.browser

PAGE_BYTES = 150_000

INSIDE = "document.activeElement === document.body || !!document.activeElement.closest('#palette')"
"""Whether no more than the palette can be used; the body is where a browser has its own controls."""


@pytest.fixture(scope="module")
def room(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Showroom]:
    """A platform with something of everything, and no worker: nothing changes while it is looked at."""
    with showroom(tmp_path_factory.mktemp("looks"), postgres.administrator(), worker=False) as found:
        yield found


@pytest.mark.parametrize("mail", [ROOT, ANA, None])
def test_every_page_is_fit_for_everybody(room: Showroom, window: Windows, mail: str | None) -> None:
    """No fault of axe-core, no width beyond the window, each control reached by Tab, and seen when it has the focus."""
    with window() as visit:
        page = visit.page
        if mail:
            room.sign_in(page, mail)
        faults: dict[str, list[str]] = {}
        for path in room.pages(mail):
            answer = page.goto(room.url(path))
            assert answer is not None
            assert (answer.status, len(answer.body()) < PAGE_BYTES) == (200, True), path
            settled(page)
            faults[path] = stops(page) + look(page)
        assert {path: found for path, found in faults.items() if found} == {}


def test_whoever_may_not_sees_no_link_that_leads_nowhere(room: Showroom, window: Windows) -> None:
    """Each link of an admin's pages that stays in the portal is one that she may follow."""
    with window() as visit:
        room.sign_in(visit.page, ANA)
        found: set[str] = set()
        for path in room.pages(ANA):
            visit.page.goto(room.url(path))
            settled(visit.page)
            links = visit.page.eval_on_selector_all("a[href]", "all => all.map(one => one.href.replace(/#.*/, ''))")
            found |= {one for one in links if one.startswith(room.url("/"))}
        answers = {one: visit.page.request.head(one).status for one in found}
        answers = {one: visit.page.request.get(one).status for one, status in answers.items() if status == 405}
        assert {one: status for one, status in answers.items() if status != 200} == {}


def test_a_dialog_and_a_menu_give_the_focus_back(room: Showroom, window: Windows) -> None:
    """Both are opened by a key, hold or take the focus, are left by Escape, and then the focus is where it was."""
    with window(viewport={"width": 390, "height": 800}) as visit:
        page, keys = visit.page, visit.page.keyboard
        room.sign_in(page, ROOT)
        page.goto(room.url("/organizations"))
        keys.press("Tab")
        expect(page.locator(":focus")).to_have_text("Skip to the content")
        keys.press("Enter")
        keys.press("Tab")
        expect(page.locator(":focus")).to_have_text("Create an organization")
        keys.press("Control+k")
        for _ in range(40):
            keys.press("Tab")
            inside = page.evaluate(
                "document.activeElement === document.body || !!document.activeElement.closest('#palette')"
            )
            assert inside
        keys.press("Escape")
        expect(page.locator(":focus")).to_have_text("Create an organization")
        menu = page.get_by_role("button", name="Menu")
        menu.focus()
        keys.press("Enter")
        expect(page.get_by_role("navigation", name="Parts of the portal")).to_be_visible()
        keys.press("Tab")
        expect(page.locator(":focus")).to_have_text("Tenants")
        assert graves(page) == []
        keys.press("Escape")
        expect(page.get_by_role("navigation", name="Parts of the portal")).not_to_be_visible()
        expect(menu).to_be_focused()

"""Signing up in a browser: from the form through the mail and the wizard to a first page of one's own."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import ground as g
import people_world as w
import signup_world as s

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Windows

pytestmark = pytest.mark.browser

APP = """
import tenantry
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

async def index(request):
    name = tenantry.tenant_values()["site_name"]
    return HTMLResponse(f"<!doctype html><link rel=icon href=data:,><title>{name}</title><h1>{name}</h1>")

app = Starlette(routes=[Route("/", index)])
"""

SETTINGS = """
[signup]
open = true
plan = "free"
work = 8
trial = "14d"
terms = "https://example.com/terms"
[[signup.wizard]]
title = "Your site"
text = "What visitors see first. You can change all of it later."
fields = [{value = "site_name", label = "What is it called?", required = true}]
[[signup.wizard]]
title = "Some numbers"
fields = [{value = "share", kind = "number", label = "How many share it?", help = "one at least"}]
[serve]
app = "welcomed:app"
[runtime]
secure_cookies = false
"""


def picture(page: Page, name: str) -> None:
    """Keep a picture, where somebody wants some."""
    folder = os.environ.get("SIGNUP_PICTURES")
    if folder:
        wide = (page.viewport_size or {"width": 0})["width"]
        page.screenshot(path=str(Path(folder) / f"{name}-{wide}.png"))


def free() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("look", [(1280, "light"), (390, "dark")], ids=["wide", "narrow"])
def test_from_the_form_to_a_first_page(tmp_path: Path, window: Windows, look: tuple[int, str]) -> None:
    """The name is checked as she types, the work is done by her browser, and at the end she is signed in."""
    ground, port = g.Ground(tmp_path / "platform"), free()
    (ground.root / "welcomed.py").write_text(APP)
    here = f"http://localhost:{port}"
    with w.inbox(tmp_path) as inbox:
        w.mailing(ground, inbox, url=here)
        ground.config.write_text(ground.config.read_text() + SETTINGS)
        serving = ground.command("serve", "--port", str(port))
        try:
            _wait(here)
            with window(viewport={"width": look[0], "height": 844}, color_scheme=look[1]) as visit:
                _sign_up(visit.page, here, port, inbox)
        finally:
            g.end(serving)


def _sign_up(page: Page, here: str, port: int, inbox: w.Inbox) -> None:
    page.goto(f"{here}/signup")
    page.fill("[name=organization]", "Blue Door & Söhne")
    page.locator("#slug").press_sequentially("admin")
    page.click("#slug-told [data-take]")  # another one that is free
    page.wait_for_selector("#slug-told .good")
    page.fill("#slug", "blue-door")
    page.wait_for_selector("text=‘blue-door.localhost’ is free.")
    page.fill("[name=name]", "Ana Ruiz")
    page.fill("[name=mail]", "ana@example.com")
    page.check("[name=terms]")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, "form")
    page.get_by_role("button", name="Sign up").click()
    page.wait_for_selector("text=Look into your mailbox")
    picture(page, "mailbox")
    inbox._wait(1)
    link = w.text_of(inbox.mails[0]).partition("/signup/link/")[2].split()[0]
    page.goto(f"{here}/signup/link/{link}")
    picture(page, "confirm")
    page.fill("[name=password]", s.PASSWORD)
    page.get_by_role("button", name="Make it").click()
    page.wait_for_url(f"http://blue-door.localhost:{port}/.tenantry/welcome")
    assert "Step 1 of 2" in page.inner_text("main")
    picture(page, "wizard")
    page.fill("[name=site_name]", "The Blue Door")
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector("text=Step 2 of 2")
    page.fill("[name=share]", "3")
    page.get_by_role("button", name="Done").click()
    page.wait_for_url(f"http://blue-door.localhost:{port}/")
    assert page.inner_text("h1") == "The Blue Door"
    picture(page, "first-page")


def _wait(here: str) -> None:
    import time

    for _ in range(600):
        try:
            if httpx.get(f"{here}/signup", timeout=60).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the platform never came")

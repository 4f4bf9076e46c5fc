"""Signing up in a browser: from the form through mail and wizard to a first page, and to the end of the trial.

`SIGNUP_PICTURES=docs/images/signup` keeps pictures of all that is seen.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

import ground as g
import people_world as w
import signup_world as s
from looking import AXED, HEIGHT, WAYS, settled, stops, unfit
from tenantry.operations import trials
from tenantry.registry import signups

if TYPE_CHECKING:
    from email.message import EmailMessage

    from playwright.sync_api import Page

    from conftest import Visit, Windows

pytestmark = pytest.mark.browser

APP = """
import tenantry
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

PAGE = '''<!doctype html><html lang=en><meta name=viewport content="width=device-width,initial-scale=1">
<meta name=color-scheme content="light dark"><link rel=icon href=data:,><title>{0}</title>
<style>body {{ font: 1.1rem/1.6 system-ui; max-width: 40rem; margin: 12vh auto; padding: 0 1.5rem }}</style>
<main><h1>{0}</h1><p>Signed in: {1}. Tried out until {2:%Y-%m-%d}.</p></main></html>'''

async def index(request):
    name, user = tenantry.tenant_values()["site_name"], tenantry.require("admin")
    return HTMLResponse(PAGE.format(name, user.login, tenantry.current_tenant().trial))

app = Starlette(routes=[Route("/", index)])
"""

SETTINGS = """
[mail.look]
color = "#7a1f5c"
[users]
color = "color"
[signup]
open = true
plan = "free"
trial = "14d"
delete_after = "30d"
terms = "https://example.com/terms"
[[signup.wizard]]
title = "Your site"
text = "What visitors see first. You can change all of it later."
fields = [
  {value = "site_name", label = "What is it called?", required = true},
  {value = "color", kind = "color", label = "Its color", help = "of lines and buttons"},
]
[[signup.wizard]]
title = "Who comes"
fields = [
  {value = "share", kind = "number", label = "How many share it?", help = "one at least"},
  {value = "kind", kind = "choice", label = "What is it?", options = ["a shop", "a blog"]},
  {value = "news", kind = "yes/no", label = "Send me news now and then"},
]
[serve]
app = "welcomed:app"
[runtime]
secure_cookies = false
"""
VALUES = 'site_name = "{{name}}"\ncolor = "#2f6f4f"\nkind = "a blog"\nnews = false\n'

COLORS = 128
"""Of a picture."""


def shown(page: Page, name: str) -> None:
    """Look at a page at both widths, light and dark: it fits, and is for everybody. Keep pictures where asked to."""
    settled(page)
    folder, faults = os.environ.get("SIGNUP_PICTURES"), []
    for at, (width, scheme) in enumerate(WAYS):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.emulate_media(color_scheme=scheme)
        faults += [f"{name} {width} {scheme}: {fault}" for fault in unfit(page, axed=at < AXED)]
        if folder:
            ending = f"-{width}" if scheme == "light" else f"-{scheme}-{width}"
            with Image.open(io.BytesIO(page.screenshot())) as taken:
                small = taken.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
                small.save(Path(folder) / f"{name}{ending}.png", optimize=True)
    page.set_viewport_size({"width": WAYS[0][0], "height": HEIGHT})
    page.emulate_media(color_scheme=WAYS[0][1])
    assert faults == []


class Newcomer:
    """Somebody who signs up at a platform that runs, by a real browser."""

    def __init__(self, ground: g.Ground, inbox: w.Inbox, visit: Visit, port: int) -> None:
        self.ground = ground
        self.inbox = inbox
        self.visit = visit
        self.page = visit.page
        self.here = f"http://localhost:{port}"
        self.inside = f"http://blue-door.localhost:{port}"

    def sends_the_form(self) -> None:
        """The name is checked as she types, and her browser does the work."""
        page = self.page
        page.goto(f"{self.here}/signup")
        assert stops(page) == []
        page.fill("[name=organization]", "Blue Door & Söhne")
        page.locator("#slug").press_sequentially("admin")
        page.wait_for_selector("#slug-told .bad")
        shown(page, "form-refused")
        page.click("#slug-told [data-take]")  # another one that is free
        page.wait_for_selector("#slug-told .good")
        page.fill("#slug", "blue-door")
        page.wait_for_selector("text=‘blue-door.localhost’ is free.")
        page.fill("[name=name]", "Ana Ruiz")
        page.fill("[name=mail]", "ana@example.com")
        page.check("[name=terms]")
        shown(page, "form")
        page.evaluate("document.querySelector('[data-working]').hidden = false")  # it is seen for a moment only
        shown(page, "form-working")
        page.get_by_role("button", name="Sign up").click()
        page.wait_for_selector("text=Look into your mailbox")

    def confirms(self) -> None:
        """A wrong code is told; then she follows the link of the mail."""
        page, (mail,) = self.page, self.letters(1)
        shown(page, "mailbox")
        page.fill("[name=code]", f"{(int(s.code_of(mail)) + 1) % 10**6:06}")
        page.get_by_role("button", name="Make Blue Door & Söhne").click()
        page.wait_for_selector("text=4 tries are left")
        shown(page, "mailbox-refused")
        self.visit.faults.clear()  # the browser notes that it was answered with 422
        page.goto(f"{self.here}/signup/link/{w.text_of(mail).partition('/signup/link/')[2].split()[0]}")
        shown(page, "confirm")
        page.get_by_role("button", name="Make it").click()

    def watches(self) -> None:
        """No worker lives just now: the steps wait, and go on before her eyes when there is one."""
        self.page.wait_for_selector("text=Blue Door & Söhne is being made")
        shown(self.page, "steps")

    def answers(self) -> None:
        """She is led into it, signed in, chooses a password, and is asked what the platform wants to know."""
        page = self.page
        page.wait_for_url(f"{self.inside}/.tenantry/welcome")
        assert stops(page) == []
        shown(page, "password")
        page.fill("[name=password]", s.PASSWORD)
        page.get_by_role("button", name="Go on").click()
        page.wait_for_url(f"{self.inside}/.tenantry/welcome/1")
        shown(page, "wizard-1")
        page.fill("[name=site_name]", "The Blue Door")
        page.fill("[name=color]", "#1a5fb4")
        page.get_by_role("button", name="Go on").click()
        page.wait_for_selector("text=Step 2 of 2")
        assert "#1a5fb4" in page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--mark')")
        shown(page, "wizard-2")
        page.fill("[name=share]", "3")
        page.check("text=a shop")
        page.get_by_role("button", name="Done").click()
        page.wait_for_url(f"{self.inside}/")
        assert page.inner_text("h1") == "The Blue Door"
        assert "Signed in: ana@example.com" in page.inner_text("main")
        shown(page, "first-page")
        page.goto(f"{self.inside}/.tenantry/me")
        assert "Blue Door & Söhne is tried out" in page.inner_text("main")
        shown(page, "account")

    def is_reminded(self) -> None:
        """Three days before its end a letter tells so; then the tenant is closed, and its data offered."""
        self.turn(timedelta(days=-3))
        assert "ends in 3 days" in self.letters(2)[1]["Subject"]
        self.turn(timedelta())
        page = self.page
        for _ in range(100):  # the process that serves it hears of it a moment later
            page.goto(f"{self.inside}/.tenantry/me")
            if "is closed at the moment" in page.inner_text("main"):
                break
        assert "is closed at the moment" in page.inner_text("main")
        shown(page, "suspended")
        self.visit.faults.clear()  # the browser notes that it was refused
        over = self.letters(3)[2]
        page.goto(f"{self.here}/signup/export/{w.text_of(over).partition('/signup/export/')[2].split()[0]}")
        shown(page, "export")
        with page.expect_download() as taken:
            page.get_by_role("button", name="Take the data").click()
        with zipfile.ZipFile(taken.value.path()) as archive:
            assert "production/db/page.csv" in archive.namelist()

    def reads(self) -> None:
        """All that came by mail, in the platform's color."""
        for mail, name in zip(self.letters(3), ("confirm", "reminder", "over"), strict=True):
            self.page.goto("about:blank")
            self.page.set_content(w.text_of(mail, "html"))
            assert "#7a1f5c" in self.page.content()
            shown(self.page, f"letter-{name}")

    def letters(self, count: int) -> list[EmailMessage]:
        """So many letters, once they came."""
        self.inbox._wait(count)
        return self.inbox.mails

    def turn(self, moved: timedelta) -> None:
        """Let the clock of trials turn at a moment so far from the end of hers, and what it asks for be done."""

        async def turned() -> None:
            async with self.ground.open() as platform:
                tenant = (await platform.tenants.show("blue-door")).row.id
                async with platform.registry.read() as tx:
                    trial = await signups.trial(tx, tenant)
                assert trial is not None
                await trials.turn(platform.tools, trial.until + moved)
                for operation in await platform.operations.list():
                    await g.ended(platform, operation)

        with ThreadPoolExecutor(1) as aside:  # this thread has the loop of the browser
            aside.submit(asyncio.run, turned()).result()


def test_from_the_form_to_a_first_page_and_to_the_end_of_the_trial(tmp_path: Path, window: Windows) -> None:
    """The whole way of somebody who signs up, at 1280 and 390 pixels, light and dark."""
    ground, port = g.Ground(tmp_path / "platform", g.TOML.replace('site_name = "{{name}}"\n', VALUES)), free()
    (ground.root / "welcomed.py").write_text(APP)
    here = f"http://localhost:{port}"
    with w.inbox(tmp_path) as inbox, window(viewport={"width": 1280, "height": HEIGHT}) as visit:
        w.mailing(ground, inbox, url=here)
        ground.config.write_text(ground.config.read_text() + SETTINGS)
        serving = ground.command("serve", "--no-worker", "--port", str(port))
        try:
            _wait(here)
            newcomer = Newcomer(ground, inbox, visit, port)
            newcomer.sends_the_form()
            with ground.worker():
                newcomer.letters(1)
            newcomer.confirms()
            newcomer.watches()
            with ground.worker():
                newcomer.answers()
                newcomer.is_reminded()
                newcomer.reads()
        finally:
            g.end(serving)
            serving.communicate()


def free() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _wait(here: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{here}/signup", timeout=60).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the platform never came")

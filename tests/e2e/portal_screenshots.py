"""Makes the pictures of docs/images/portal: `PYTHONPATH=tests python tests/e2e/portal_screenshots.py [NAME…]`.

It makes its platform itself, and needs the programs of PostgreSQL.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from looking import HEIGHT, WAYS, settled
from servers import postgres
from showroom import ANA, ROOT, Showroom, showroom

IMAGES = Path(__file__).parents[2] / "docs" / "images" / "portal"
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync".split()
)
COLOURS = 192
LONGEST = 2200
"""Pixels of a picture's height at most: what follows is more of the same."""


def addresses(room: Showroom) -> dict[str, str]:
    """The pages that are shown, by the names of their pictures."""
    at = room.operations
    return {
        "tenants": "/",
        "tenant": "/tenants/acme",
        "create": "/tenants/new",
        "import": "/tenants/-/import",
        "edit": "/tenants/acme/edit",
        "delete": "/tenants/acme/delete",
        "organizations": "/organizations",
        "organization": f"/organizations/{room.parts['organization']}",
        "admins": "/admins",
        "admin": f"/admins/{room.parts['admin']}",
        "statistics": "/statistics",
        "operations": "/operations",
        "operation": f"/operations/{at['migrate']}",
        "migrations": "/migrations",
        "rehearsal": f"/migrations/rehearsals/{at['rehearse']}",
        "servers": "/servers",
        "server": "/servers/north?check=1",
        "verification": f"/verify/{at['verify']}",
        "audit": "/audit",
        "settings": "/settings?written=true",
        "account": "/me",
        "second-factor": "/me/second-factor",
    }


def save(page: Page, name: str) -> None:
    """Keep what is seen, with as few colours as do."""
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as picture:
        small = picture.convert("RGB").crop((0, 0, picture.width, min(picture.height, LONGEST)))
        small.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            IMAGES / f"{name}.png", optimize=True
        )


def bulk(page: Page) -> None:
    """Tick three tenants."""
    for slug in ("bistro", "elbe", "gallery"):
        page.get_by_label(f"Tick {slug}").check()
    page.evaluate("scrollTo(0, 0)")


def take(browser: Browser, room: Showroom, only: list[str]) -> None:
    """All pictures, or those of these names."""
    for width, scheme in WAYS:
        ending = f"-{width}" if scheme == "light" else f"-{scheme}-{width}"
        with browser.new_context(
            viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce"
        ) as context:
            page = context.new_page()

            def shown(name: str, path: str, page: Page = page, ending: str = ending) -> None:
                if only and name not in only:
                    return
                page.goto(room.url(path))
                settled(page)
                save(page, name + ending)

            shown("sign-in", "/sign-in")
            room.sign_in(page, ROOT)
            for name, path in addresses(room).items():
                shown(name, path)
            if not only or "bulk" in only:
                page.goto(room.url("/"))
                bulk(page)
                save(page, f"bulk{ending}")
            if not only or "palette" in only:
                page.goto(room.url("/"))
                page.keyboard.press("Control+k")
                page.keyboard.type("ac")
                page.locator("#palette .goals[data-for='ac']").wait_for()
                save(page, f"palette{ending}")
            context.clear_cookies()
            room.sign_in(page, ANA)
            shown("tenants-of-an-admin", "/")


def main(*only: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as root,
        postgres() as server,
        showroom(Path(root), server.administrator(), odd=False) as room,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        take(browser, room, list(only))
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

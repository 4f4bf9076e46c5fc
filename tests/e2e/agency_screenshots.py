"""Makes the pictures of Agency in docs/images: `python tests/e2e/agency_screenshots.py ADMIN_PASSWORD [PORT] [FOLDER]`.

It needs `make serve PLATFORM=agency` and the password of northlight's first admin. Given a folder, it takes every page.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parents[2] / "docs" / "images"
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync".split()
)


def signed_in(browser: Browser, agency: str, password: str, width: int, height: int) -> Page:
    """A window at an agency's campaigns."""
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme="light").new_page()
    page.goto(f"{agency}/")
    page.fill("[name=login]", "admin@northlight.localhost")
    page.fill("[name=password]", password)
    page.click("main button >> nth=0")
    page.wait_for_selector(".timeline")
    return page


def every_page(page: Page, agency: str, folder: Path) -> None:
    """All pages as they are now, to look at."""
    width = page.evaluate("innerWidth")
    board = page.get_attribute("a.campaign >> nth=1", "href")
    page.goto(agency.partition("/t/")[0] + str(board))
    brief, task = page.get_attribute(".rows a[href*=briefs]", "href"), page.get_attribute(".task a", "href")
    paths = {"board": board, "brief": brief, "task": task, "front": "/"}
    paths |= {name: f"/t/northlight/{name}" for name in ("assets", "library", "library/subject-lines", "nowhere")}
    for name, path in paths.items():
        page.goto(agency.partition("/t/")[0] + str(path))
        for details in page.locator("summary").all():
            details.click()
        page.screenshot(path=folder / f"{name.replace('/', '-')}-{width}.png", full_page=True)


def main(password: str, port: str = "8000", folder: str = "") -> None:
    agency = f"http://localhost:{port}/t/northlight"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        wide, narrow = (signed_in(browser, agency, password, *size) for size in ((1280, 820), (390, 844)))
        if folder:
            for page in (wide, narrow):
                page.screenshot(path=Path(folder) / f"home-{page.evaluate('innerWidth')}.png", full_page=True)
                every_page(page, agency, Path(folder))
        else:
            wide.screenshot(path=IMAGES / "agency-1280.png")
            narrow.click("a.campaign >> text=Harbour lights")
            narrow.screenshot(path=IMAGES / "agency-390.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

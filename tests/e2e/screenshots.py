"""Makes the pictures of docs/images from a running Storyfront: `python tests/e2e/screenshots.py ADMIN_PASSWORD`.

It needs the four sites of docs/tutorial/first-platform.md at port 8000, and the password of acme's first admin.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parents[2] / "docs" / "images"
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync".split()
)
ACME = "http://acme.localhost:8000"
LOUD = "http://harbour.localhost:8000"


def take(browser: Browser, name: str, address: str, width: int, height: int, scheme: Any = "light") -> None:
    """One picture of one address."""
    with browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(address)
        save(page, name)


def save(page: Page, name: str) -> None:
    """Write what the page shows."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=IMAGES / f"{name}.png")


def main(password: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        take(browser, "storyfront-home-1280", ACME, 1280, 860)
        take(browser, "storyfront-home-390", ACME, 390, 844)
        take(browser, "storyfront-dark-1280", LOUD, 1280, 860, "dark")
        take(browser, "storyfront-sites-1280", "http://localhost:8000/", 1280, 1390)
        with browser.new_context(viewport={"width": 1280, "height": 860}) as context:
            page = context.new_page()
            page.goto(f"{ACME}/desk")
            page.fill("[name=login]", "admin@acme.localhost")
            page.fill("[name=password]", password)
            page.click("main button >> nth=0")
            page.wait_for_url("**/desk")
            save(page, "storyfront-desk-1280")
            page.click("text=The oven is a hundred years old")
            save(page, "storyfront-editor-1280")


if __name__ == "__main__":
    main(sys.argv[1])

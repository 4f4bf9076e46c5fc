"""Makes the pictures of Planner in docs/images: `python tests/e2e/planner_screenshots.py ADMIN_PASSWORD [PORT]`.

It needs `make serve PLATFORM=planner`, and the password of limmat's first admin.
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


def sign_in(browser: Browser, lab: str, password: str, width: int, height: int, scheme: Any = "light") -> Page:
    """A window at a laboratory's plan."""
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
    page.goto(f"{lab}/")
    page.fill("[name=login]", "admin@limmat.localhost")
    page.fill("[name=password]", password)
    page.click("main button >> nth=0")
    page.wait_for_selector(".plan-weeks")
    return page


def refuse(page: Page, lab: str) -> None:
    """Book somebody who has more to do than that."""
    page.goto(f"{lab}/bookings/new")
    page.select_option("#field-project_id", label="Teaching")
    page.select_option("#field-staff_id", label="Giulia Bernasconi")
    year = page.evaluate("new Date().getFullYear()")
    page.fill("#field-starts", f"{year}-06-15")
    page.fill("#field-ends", f"{year}-06-26")
    page.fill("#field-percent", "50")
    page.click("button >> text=Save")
    page.wait_for_selector(".fault")


def main(password: str, port: str = "8000") -> None:
    lab = f"http://localhost:{port}/t/limmat"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        sign_in(browser, lab, password, 1280, 890).screenshot(path=IMAGES / "planner-1280.png")
        sign_in(browser, lab, password, 1280, 890, "dark").screenshot(path=IMAGES / "planner-dark-1280.png")
        narrow = sign_in(browser, lab, password, 390, 844)
        narrow.click("text=Today")
        narrow.evaluate("scrollTo(0, 0)")
        narrow.screenshot(path=IMAGES / "planner-390.png")
        form = sign_in(browser, lab, password, 1280, 760)
        refuse(form, lab)
        form.screenshot(path=IMAGES / "planner-refused-1280.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

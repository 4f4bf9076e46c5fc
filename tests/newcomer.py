"""A newcomer's way from `make serve` to a tenant of her own; `python tests/newcomer.py` makes the pictures of it.

The pictures are those of docs/tutorial/portal.md. It needs nothing but Chromium: it begins a Storyfront by itself.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Page, expect, sync_playwright

from terminals import Terminal, free_port, terminal

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
IMAGES: Final = Path(__file__).parents[1] / "docs" / "images"
PATIENCE: Final = 120_000
"""Milliseconds until a page that never comes is given up."""

Shoot = Callable[[Page, str], None]


@contextmanager
def started(root: Path, name: str = "storyfront", port: int | None = None) -> Iterator[Terminal]:
    """An example's `serve` in a terminal, as `make serve` runs it, with nothing made yet."""
    place = root / name
    shutil.copytree(EXAMPLES / name, place, ignore=shutil.ignore_patterns("var", ".env", "__pycache__"))
    port = port or free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "TENANTRY_SERVE__PORT": str(port),
    }
    with terminal([str(place / "serve")], place, environment, port) as shown:
        yield shown


def walk(page: Page, link: str, shoot: Shoot = lambda *_: None) -> Page:
    """Open the link, become the first superadmin, create a tenant and open it; the tenant's own page."""
    page.goto(link)
    shoot(page, "link")
    page.fill("[name=mail]", "ana@example.org")
    page.fill("[name=name]", "Ana")
    page.fill("[name=password]", "a bakery opens at five")
    page.click("button.main")
    expect(page.locator("h1")).to_have_text("Tenants", timeout=PATIENCE)
    shoot(page, "tenants")
    page.click("text=Create a tenant")
    page.fill("#slug", "bakery")
    page.fill("[name=name]", "The Corner Bakery")
    page.keyboard.press("Tab")
    expect(page.locator("#plan")).to_contain_text("bakery.localhost", timeout=PATIENCE)
    page.wait_for_load_state("networkidle")
    shoot(page, "create")
    page.click("text=Create it")
    expect(page.locator("h1")).to_have_text("The Corner Bakery is ready", timeout=PATIENCE)
    page.wait_for_load_state("networkidle")
    shoot(page, "ready")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Open http").click()
    tenant = opened.value
    expect(tenant.locator("body")).to_contain_text("The Corner Bakery", timeout=PATIENCE)
    shoot(tenant, "tenant")
    page.get_by_role("link", name="Its page").click()
    expect(page.locator("h1")).to_contain_text("The Corner Bakery", timeout=PATIENCE)
    shoot(page, "page")
    return tenant


def pictures(browser: Browser, root: Path) -> None:
    """Every station at 1280 pixels, and the last one on a telephone in the dark."""
    sizes: dict[str, Any] = {"viewport": {"width": 1280, "height": 720}, "reduced_motion": "reduce"}
    with started(root, port=8000) as shown:
        with browser.new_context(**sizes) as context:
            walk(context.new_page(), shown.link(), lambda at, name: _save(at, f"newcomer-{name}-1280"))
            cookies: Any = context.cookies()
        sizes = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
        with browser.new_context(**sizes) as context:
            context.add_cookies(cookies)
            page = context.new_page()
            page.goto(f"http://localhost:{shown.port}/admin/tenants/bakery")
            _save(page, "newcomer-page-390")


def _save(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")
    page.screenshot(path=IMAGES / f"{name}.png")


def main() -> None:
    """Make the pictures; what they show of this machine is a directory that any has."""
    root = Path("/tmp/tutorial")
    root.mkdir()
    try:
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-gpu"]
            pictures(playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments), root)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()

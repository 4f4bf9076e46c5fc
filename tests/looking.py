"""What every page of the portal is held to, whoever looks at it."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

WAYS: list[tuple[int, Any]] = [(1280, "light"), (390, "dark"), (390, "light"), (1280, "dark")]
"""Widths, and light or dark."""

AXED = 2
"""At so many of them axe-core looks as well: at each width, and in light and dark."""

HEIGHT = 900

GRAVE = ("serious", "critical")

SETTLED = "() => !document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')"

REACHED = """() => {
  window.reached = new Map();
  document.addEventListener('focusin', (event) => {
    const style = getComputedStyle(event.target);
    window.reached.set(event.target, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2);
  });
}"""

CONTROLS = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"

MISSED = """(controls) => {
  const named = (one) => one.outerHTML.slice(0, 150);
  const grouped = (one) => one.type === 'radio' && [...window.reached.keys()].some((other) => other.name === one.name);
  const there = [...document.querySelectorAll(controls)].filter((one) =>
    one.checkVisibility({visibilityProperty: true}) && !one.disabled && !one.inert && !grouped(one));
  return [
    ...there.filter((one) => !window.reached.has(one)).map((one) => `not reached by Tab: ${named(one)}`),
    ...[...window.reached].filter(([, seen]) => !seen).map(([one]) => `its focus is not seen: ${named(one)}`),
  ];
}"""


def settled(page: Page) -> None:
    """Wait until what a page loads by itself is there."""
    page.wait_for_function(SETTLED)


def look(page: Page) -> list[str]:
    """What is wrong with a page as it is now, in all ways in which people see it."""
    faults: list[str] = []
    for at, (width, scheme) in enumerate(WAYS):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.emulate_media(color_scheme=scheme)
        faults += [f"{width} {scheme}: {fault}" for fault in unfit(page, axed=at < AXED)]
    width, scheme = WAYS[0]
    page.set_viewport_size({"width": width, "height": HEIGHT})
    page.emulate_media(color_scheme=scheme)
    return faults


def unfit(page: Page, *, axed: bool = True) -> list[str]:
    """What is wrong with a page as it is seen now: wider than its window, or not for everybody."""
    wide, width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    faults = [f"it is {wide} wide"] if wide > width else []
    return faults + (graves(page) if axed else [])


def graves(page: Page) -> list[str]:
    """What axe-core finds serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:150]} {node.get('failureSummary', '')[:200]}"
        for one in found
        if one["impact"] in GRAVE
        for node in one["nodes"][:3]
    ]


def stops(page: Page) -> list[str]:
    """What cannot be reached by Tab alone, or does not show that it has the focus."""
    page.evaluate("document.activeElement.blur()")
    page.evaluate(REACHED)
    most = 3 * page.locator(CONTROLS).count() + 20  # a field for a date stops more than once
    page.mouse.click(1, 1)
    before = -1
    for at in range(most):
        page.keyboard.press("Tab")
        if at % 20 == 19:
            now = page.evaluate("window.reached.size")
            if now == before:
                break
            before = now
    missed: list[str] = page.evaluate(MISSED, CONTROLS)
    return missed

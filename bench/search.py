"""Searching among 10,000 tenants as one types, in a real browser: how soon letters and answers are seen."""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Sequence
from typing import Any, Final

from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from bench.crowd import gather
from bench.followers import Server, serving, signed_in
from bench.registry import places
from bench.report import Report
from bench.site import Site

TENANTS: Final = 10_000
WORD: Final = "tenant-987"
FOUND: Final = 11
"""Tenants whose slugs hold that word."""

ROUNDS: Final = 8
FAST: Final = 60
"""Milliseconds between two letters of somebody who types quickly."""
SLOW: Final = 700
"""Between two letters of somebody who reads each answer."""

WATCH: Final = """
window.letters = []; window.answers = []; let last = 0;
const painted = (then) => requestAnimationFrame(() => setTimeout(then, 0));
addEventListener("keydown", () => { last = performance.now(); }, true);
addEventListener("input", () => { const from = last; painted(() => letters.push(performance.now() - from)); }, true);
addEventListener("htmx:afterSettle", () => {
  const from = last; painted(() => answers.push(performance.now() - from));
});
"""
"""Notes when a letter, and when an answer, was on the screen after the key that was pressed last."""


def typed(page: Page, address: str, pause: int) -> tuple[Sequence[float], Sequence[float], int, int]:
    """Type a word: milliseconds to see each letter and each answer; requests sent, and how many were taken back."""
    page.goto(address)
    sent: list[str] = []
    aborted: list[str] = []
    page.on("request", lambda one: sent.append(one.url) if "search=" in one.url else None)
    page.on("requestfailed", lambda one: aborted.append(one.url))
    page.locator("#main input[name=search]").press_sequentially(WORD, delay=pause)
    expect(page.locator("#rows tbody tr")).to_have_count(FOUND)
    page.wait_for_timeout(200)
    letters, answers = page.evaluate("letters"), page.evaluate("answers")
    return letters, answers, len(sent), len(aborted)


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def watch(server: Server, cookie: str, report: Report, where: str) -> None:
    """Everything in one browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, pause in (("quickly", FAST), ("slowly", SLOW)):
            letters: list[float] = []
            answers: list[float] = []
            requests, taken_back = 0, 0
            for _ in range(ROUNDS if pause == FAST else 2):
                context = _signed_in(browser.new_context(), server, cookie)
                page = context.new_page()
                found = typed(page, f"http://localhost:{server.port}/admin/", pause)
                letters += found[0]
                answers += found[1] if pause == SLOW else found[1][-1:]
                requests, taken_back = max(requests, found[2]), max(taken_back, found[3])
                context.close()
            many = f"{len(WORD)} letters, {requests} requests, {taken_back} taken back"
            report.add(f"{where}: typed {name}: a letter is seen, median", statistics.median(letters), "ms", many)
            report.add(f"{where}: typed {name}: the same, p95", _p95(letters), "ms")
            what = "the last answer" if pause == FAST else "each answer"
            report.add(
                f"{where}: typed {name}: {what} is seen after its letter, median", statistics.median(answers), "ms"
            )
            report.add(f"{where}: typed {name}: the same, p95", _p95(answers), "ms")
        browser.close()


def _signed_in(context: BrowserContext, server: Server, cookie: str) -> BrowserContext:
    kept: Any = {"name": "tenantry_admin", "value": cookie, "url": f"http://localhost:{server.port}"}
    context.add_cookies([kept])
    context.add_init_script(WATCH)
    return context


async def measure(report: Report, place: Site, where: str) -> None:
    """Everything on one control database."""
    await gather(place, TENANTS, entries=1000, operations=100)
    async with place.platform() as platform:
        cookie = await signed_in(platform)
    async with serving(place) as server:
        await asyncio.to_thread(watch, server, cookie, report, where)


def main() -> int:
    """Run all and report."""
    report = Report("search")
    with places() as found:
        for where, place in found.items():
            asyncio.run(measure(report, place, where))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

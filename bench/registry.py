"""What a registry of 10,000 tenants costs: a page of the list, a search, loading all for a resolver, checking some."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import servers
from bench.report import Report
from bench.site import Site, site
from bench.start import enter
from tenantry.application import settings
from tenantry.platform import Platform
from tenantry.runtime.resolver import Resolver

TENANTS = 10_000
SAMPLE = 50
ROUNDS = 9


async def took(call: Callable[[], Awaitable[Any]], rounds: int = ROUNDS) -> float:
    """Milliseconds of a call: the median."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        await call()
        found.append(1e3 * (time.perf_counter() - start))
    return statistics.median(found)


async def sample(platform: Platform, place: Site) -> list[str]:
    """Make some tenants wholly, so that there is something to check."""
    path = place.root / "sample.csv"
    slugs = [f"sample-{number:02}" for number in range(SAMPLE)]
    path.write_text("slug\n" + "\n".join(slugs) + "\n")
    operation = await platform.tenants.import_csv(path)
    await platform.operations.finish(operation.id)
    return slugs


async def measure(report: Report, place: Site, where: str) -> None:
    """Everything on one control database."""
    await enter(place, TENANTS)
    async with place.platform() as platform:
        resolver = Resolver(settings(platform.config))

        async def load() -> None:
            resolver.build(await platform.registry.feed.load())

        async def all_pages() -> None:
            after: str | None = None
            while page := await platform.tenants.list(limit=100, after=after):
                after = page[-1].slug

        report.add(f"{where}: first page of the list", await took(platform.tenants.list), "ms")
        report.add(f"{where}: a search", await took(lambda: platform.tenants.list(search="tenant 77")), "ms")
        report.add(f"{where}: all pages of the list", await took(all_pages, 3), "ms")
        report.add(f"{where}: all tenants into a resolver", await took(load, 5), "ms")
        slugs = await sample(platform, place)
        start = time.perf_counter()
        found = [finding for slug in slugs for finding in await platform.tenants.check(slug)]
        report.add(f"{where}: check of a tenant", 1e3 * (time.perf_counter() - start) / len(slugs), "ms")
        assert all(finding.ok for finding in found)


@contextlib.contextmanager
def places() -> Iterator[dict[str, Site]]:
    """A platform on SQLite, and one whose control database is on PostgreSQL where that is installed."""
    with contextlib.ExitStack() as stack:
        made = {"SQLite": stack.enter_context(site())}
        with contextlib.suppress(servers.NoServer):
            server = stack.enter_context(servers.postgres())
            place = made[f"PostgreSQL {server.version}"] = stack.enter_context(site())
            with (place.root / ".env").open("a") as file:
                file.write(f"TENANTRY_PLATFORM__CONTROL={stack.enter_context(server.database())}\n")
        yield made


def main() -> int:
    """Run all and report."""
    report = Report("registry")
    with places() as found:
        for where, place in found.items():
            asyncio.run(measure(report, place, where))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

"""What making tenants costs: a thousand out of a list, and one at a time."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import statistics
import time
from contextlib import closing
from pathlib import Path

from bench.report import Report
from bench.site import Site, site
from tenantry.platform import Platform
from tenantry.registry.journal import State

COUNT = 1000
ROUNDS = 3
SINGLE = 10


async def living(platform: Platform) -> None:
    """Wait until a worker lives."""
    while not (await platform.status())["workers"]:
        await asyncio.sleep(0.05)


def floor(place: Site, template: Path, count: int) -> float:
    """The least it could cost: copy the template and enter one row for each tenant, a commit each. Seconds."""
    home = place.root / "floor"
    home.mkdir()
    with closing(sqlite3.connect(home / "control.sqlite", isolation_level=None)) as control:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
            control.execute(f"PRAGMA {pragma}")
        control.execute("CREATE TABLE tenant (id TEXT NOT NULL PRIMARY KEY, slug TEXT NOT NULL UNIQUE, name TEXT)")
        start = time.perf_counter()
        for number in range(count):
            folder = home / f"tenant-{number}/production"
            folder.mkdir(parents=True)
            shutil.copyfile(template, folder / "db.sqlite")
            row = (f"{number:032x}", f"tenant-{number}", f"Tenant {number}")
            control.execute("INSERT INTO tenant VALUES (?, ?, ?)", row)
        seconds = time.perf_counter() - start
    shutil.rmtree(home)
    return seconds


async def imported(place: Site, count: int, first: int = 0) -> float:
    """Import tenants up to this many through a living worker, from the list to the end of the operation: seconds."""
    async with place.platform() as platform:
        with place.process("worker"):
            await living(platform)
            start = time.perf_counter()
            operation = await platform.tenants.import_csv(place.list_of(count, first))
            details = await platform.operations.finish(operation.id)
            seconds = time.perf_counter() - start
    assert details.operation.state is State.DONE, details.operation.error
    assert details.operation.done == count - first
    return seconds


def many(report: Report) -> None:
    """Import against the floor, in turns."""
    pairs = []
    for turn in range(ROUNDS):
        with site() as place:
            ours = asyncio.run(imported(place, COUNT)) if turn % 2 else 0.0
            template = template_of(place)
            least = floor(place, template, COUNT)
            ours = ours or asyncio.run(imported(place, COUNT))
            pairs.append((1000 * least / COUNT, 1000 * ours / COUNT))
    ratio = statistics.median(ours / least for least, ours in pairs)
    report.add(f"copy and enter {COUNT:,} tenants", statistics.median(pair[0] for pair in pairs), "ms each")
    report.add(
        f"import {COUNT:,} tenants",
        statistics.median(p[1] for p in pairs),
        "ms each",
        "copying",
        ratio,
        "≤ 5",
        ratio <= 5,
    )


def template_of(place: Site) -> Path:
    """The golden template, made now where no tenant was made yet."""

    async def prepare() -> None:
        async with place.platform() as platform:
            for resource in platform.tools.resources["site"]:
                await resource.prepare()

    asyncio.run(prepare())
    (found,) = (place.data / "templates").glob("*.sqlite")
    return found


async def one_each(place: Site) -> list[float]:
    """Create one tenant after another through a living worker: milliseconds from the call to the end of each."""
    found = []
    async with place.platform() as platform:
        await living(platform)
        for number in range(SINGLE + 1):
            start = time.perf_counter()
            operation = await platform.tenants.create(f"one-{number}")
            details = await platform.operations.finish(operation.id)
            found.append(1000 * (time.perf_counter() - start))
            assert details.operation.state is State.DONE, details.operation.error
    return found[1:]  # the first also makes the golden template


def single(report: Report) -> None:
    """One tenant at a time, with and without a worker."""
    with site() as place:
        alone = statistics.median(place.command("tenant", "create", f"alone-{n}") for n in range(3))
        report.add("`tenant create`, no worker lives", alone, "s", bound="< 2.5")
        with place.process("worker"):
            times = asyncio.run(one_each(place))
            middle = statistics.median(times)
            report.add("create through a living worker", middle, "ms", bound="< 150", holds=middle < 150)
            command = statistics.median(place.command("tenant", "create", f"command-{n}") for n in range(3))
            report.add("`tenant create`, a worker lives", command, "s")


def main() -> int:
    """Run all and report."""
    report = Report("create")
    many(report)
    single(report)
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

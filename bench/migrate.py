"""What migrating a fleet costs: a thousand SQLite databases, against a bare loop that executes the same file."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import statistics
import time
from pathlib import Path

from bench.create import imported, living
from bench.report import Report
from bench.site import Site, site
from tenantry.registry.journal import State

COUNT = 1000
ROUNDS = 3
MIGRATION = """
CREATE TABLE extra_{number} (id INTEGER NOT NULL PRIMARY KEY, thing INTEGER NOT NULL, note TEXT NOT NULL) STRICT;
CREATE INDEX extra_{number}_by_thing ON extra_{number} (thing);
ALTER TABLE thing_0 ADD COLUMN extra_{number} TEXT NOT NULL DEFAULT '';
UPDATE thing_0 SET extra_{number} = name;
"""


def bare(files: list[Path], script: str) -> float:
    """Connect, execute the file, close: seconds for all."""
    start = time.perf_counter()
    for file in files:
        connection = sqlite3.connect(file)
        connection.executescript(script)
        connection.close()
    return time.perf_counter() - start


async def migrated(place: Site) -> float:
    """Migrate everything through a living worker, from the call to the end of the operation: seconds."""
    async with place.platform() as platform:
        await living(platform)
        start = time.perf_counter()
        operation = await platform.migrations.run()
        details = await platform.operations.finish(operation.id)
        seconds = time.perf_counter() - start
        assert details.operation.state is State.DONE, details.operation.error
        assert details.operation.done == COUNT
        (fleet,) = await platform.migrations.status()
        assert fleet.versions == {fleet.newest: COUNT}, fleet.versions
    return seconds


def main() -> int:
    """Migrate the same fleet and copies of it in turns, and report."""
    report = Report("migrate")
    pairs = []
    with site() as place:
        asyncio.run(imported(place, COUNT))
        source = place.data / "tenants"
        for turn in range(ROUNDS):
            script = MIGRATION.format(number=turn)
            copies = place.root / "copies"
            copies.mkdir()
            files = [
                Path(shutil.copyfile(file, copies / f"{number}.sqlite"))
                for number, file in enumerate(source.glob("*/*/db.sqlite"))
            ]
            assert len(files) == COUNT
            (place.root / f"schema/{turn + 2:04}_extra.sql").write_text(script)
            least = bare(files, script) if turn % 2 == 0 else 0.0
            with place.process("worker"):
                ours = asyncio.run(migrated(place))
            pairs.append((least or bare(files, script), ours))
            shutil.rmtree(copies)
    ratio = statistics.median(least / ours for least, ours in pairs)
    report.add("bare loop of sqlite3", COUNT / statistics.median(pair[0] for pair in pairs), "tenants/s")
    report.add(
        "migrate run, every record kept",
        COUNT / statistics.median(pair[1] for pair in pairs),
        "tenants/s",
        "bare loop",
        ratio,
        "≥ 0.5",
        ratio >= 0.5,
    )
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

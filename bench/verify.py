"""How many tenants a second `tenantry verify` attacks: SQLite files, each against two others."""

from __future__ import annotations

import asyncio
import sys
import time

from bench.create import imported, living
from bench.report import Report
from bench.site import Site, site
from tenantry.registry.journal import State

COUNTS = (20, 200)


async def verified(place: Site, count: int) -> tuple[float, int]:
    """Verify so many tenants through a living worker: seconds to the end of the operation, and attacks kept out."""
    async with place.platform() as platform:
        with place.process("worker"):
            await living(platform)
            start = time.perf_counter()
            operation = await platform.verification.run(str(count))
            details = await platform.operations.finish(operation.id)
            seconds = time.perf_counter() - start
        assert details.operation.state is State.DONE, details.operation.error
        report = await platform.verification.report(operation.id)
    counts = report["counts"]
    assert (counts["environments"], counts["breaches"], counts["untried"]) == (count, 0, 0), counts
    return seconds, counts["kept"]


def main(counts: list[int]) -> int:
    """Verify samples of one fleet, and report."""
    report = Report("verify")
    with site() as place:
        asyncio.run(imported(place, max(counts)))
        for count in counts:
            seconds, attacks = asyncio.run(verified(place, count))
            report.add(f"{count} of {max(counts)} tenants, {attacks // count} attacks on each", count / seconds, "/s")
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main([int(count) for count in sys.argv[1:]] or list(COUNTS)))

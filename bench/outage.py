"""What the loss of one of three servers costs the tenants of the other two, and how soon its own are back."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import outages
import threefold
from bench.report import Report
from tenantry.runtime import Runtime

TENANTS = 300
SECONDS = 8
OTHERS = ("pg1", "pg3")


def p99(answers: dict[str, threefold.Answers]) -> float:
    """Milliseconds, of the slower one of the two servers that stay."""
    return max(answers[name].p99() for name in OTHERS)


async def lose(report: Report, runtime: Runtime, how: str, gone: AbstractContextManager[None]) -> None:
    """One way to be lost, and to be back."""
    before = p99(await threefold.load(runtime, SECONDS))
    with gone:
        during = await threefold.load(runtime, SECONDS)
    back = await threefold.back(threefold.by_server(runtime)["pg2"][0])
    errors = sum(sum(during[name].errors.values()) for name in OTHERS)
    report.add(f"{how}: errors of the other two servers' tenants", errors, "errors", bound="0", holds=not errors)
    slower = p99(during) / before
    report.add(f"{how}: p99 of the other two servers' tenants", p99(during), "ms", "before", slower)
    refused = sorted(during["pg2"].refused)
    report.add(f"{how}: its own are refused after (median)", 1e3 * refused[len(refused) // 2], "ms")
    report.add(f"{how}: its own are served again after", back, "s", bound="≤ 2", holds=back <= 2)


async def measure(report: Report, root: Path) -> None:
    """Killed, then frozen."""
    with threefold.three() as found:
        async with threefold.platform(root, found, TENANTS), threefold.running(root) as runtime:
            await threefold.load(runtime, 2)  # every pool is warm
            await lose(report, runtime, "killed", outages.down(found["pg2"]))
            await lose(report, runtime, "accepts and never answers", threefold.frozen(found["pg2"]))


def main() -> int:
    """Run all and report."""
    report = Report("outage")
    with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as root:
        asyncio.run(measure(report, Path(root) / "platform"))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

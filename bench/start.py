"""How soon processes are there: the command line's help, and a server that knows 100,000 tenants."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
import urllib.error
import urllib.request

from bench.report import Report
from bench.site import Site, site
from tenantry.model import Status
from tenantry.registry import tenants
from tenantry.registry.database import chunks

TENANTS = 100_000
BATCH = 10_000
ROUNDS = 5


async def enter(place: Site, count: int) -> None:
    """Fill the registry with tenants that need no files."""
    async with place.platform() as platform:
        vault = platform.registry.vault
        versions = {resource.name: resource.newest for resource in platform.tools.resources["site"]}
        for numbers in chunks(range(count), BATCH):
            drafted = [e for n in numbers for e in platform.tools.draft(f"tenant-{n}", f"Tenant {n}", "site", None, {})]
            keys = {environment.tenant.id: vault.new_data_key(environment.tenant.id) for environment in drafted}
            async with platform.registry.write() as tx:
                await tenants.insert_many(tx, drafted, keys)
                await tenants.set_versions(tx, [(e.id, name, to) for e in drafted for name, to in versions.items()])
                await tenants.set_status(tx, list(keys), Status.ACTIVE)


def answered(place: Site, slug: str) -> float:
    """Seconds from the start of `tenantry serve` to its first answer for a tenant."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"host": f"{slug}.localhost"})
    start = time.perf_counter()
    with place.process("serve", "--no-worker", "--port", str(port)) as process:
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    assert answer.read() == b"here"
                    return time.perf_counter() - start
            except urllib.error.HTTPError as error:
                raise AssertionError(f"it answers {error.code}: {error.read()[-300:]!r}") from error
            except urllib.error.URLError:  # it does not listen yet
                assert process.poll() is None, "serve ended"
                time.sleep(0.005)


def main() -> int:
    """Run all and report."""
    report = Report("start")
    with site() as place:
        help_ = statistics.median([place.command("--help") for _ in range(ROUNDS * 2)])
        report.add("`tenantry --help`", help_, "s", bound="< 0.3")
        asyncio.run(enter(place, 1))
        few = statistics.median([answered(place, "tenant-0") for _ in range(ROUNDS)])
        report.add("`tenantry serve`, 1 tenant, to its first answer", few, "s")
    with site() as place:
        asyncio.run(enter(place, TENANTS))
        many = statistics.median([answered(place, f"tenant-{TENANTS - 1}") for _ in range(ROUNDS)])
        # Told and not asserted: this one depends on the machine more than on anything here.
        report.add(f"`tenantry serve`, {TENANTS:,} tenants, to its first answer", many, "s", bound="< 3")
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

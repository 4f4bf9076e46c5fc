"""How many tenants a second `tenantry verify` attacks, each from two others, for each kind of database.

python -m bench.verify [tenants]
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.report import Report
from tenantry.registry.journal import State

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import mariadb
import servers
from ground import Ground
from prefix_world import PrefixGround
from shelves import MariaShelves, RowsShelves, Shelves

COUNT = 60


@contextlib.contextmanager
def files(root: Path) -> Iterator[Ground]:
    """SQLite files and directories."""
    yield Ground(root)


Made = Callable[[Path], contextlib.AbstractContextManager[Ground]]


def on_postgres(kind: Callable[[Path, servers.Postgres], Ground]) -> Made:
    """A platform on a PostgreSQL server of its own."""

    @contextlib.contextmanager
    def made(root: Path) -> Iterator[Ground]:
        with servers.postgres() as server:
            yield kind(root, server)

    return made


@contextlib.contextmanager
def on_mariadb(root: Path) -> Iterator[Ground]:
    """A database for each on a MariaDB server of its own."""
    with mariadb.running() as server:
        yield MariaShelves(root, server)


@contextlib.contextmanager
def prefixes(root: Path) -> Iterator[Ground]:
    """A prefix for each in one PostgreSQL database."""
    with servers.postgres() as server, server.database() as url:
        yield PrefixGround(root, "postgres", url)


KINDS: dict[str, Made] = {
    "sqlite": files,
    "postgres": on_postgres(Shelves),
    "mysql": on_mariadb,
    "rows": on_postgres(RowsShelves),
    "prefix": prefixes,
}


async def verified(ground: Ground, count: int) -> tuple[float, int]:
    """Verify so many tenants: seconds from the call to the end of the operation, and attacks kept out of each."""
    path = ground.root / "tenants.csv"
    path.write_text("slug,name\n" + "".join(f"tenant-{n:04},Tenant {n}\n" for n in range(count)))
    async with ground.open() as platform:
        made = await platform.tenants.import_csv(path)
        assert (await platform.operations.finish(made.id)).operation.state is State.DONE
        start = time.perf_counter()
        operation = await platform.verification.run()
        details = await platform.operations.finish(operation.id)
        seconds = time.perf_counter() - start
        assert details.operation.state is State.DONE, details.operation.error
        counts = (await platform.verification.report(operation.id))["counts"]
    assert (counts["environments"], counts["breaches"]) == (count, 0), counts
    return seconds, counts["kept"] // count


def main(count: int) -> int:
    """Verify a fleet of each kind, and report."""
    report = Report("verify")
    for kind, made in KINDS.items():
        with (
            tempfile.TemporaryDirectory(prefix="tenantry-bench-") as directory,
            made(Path(directory) / "site") as ground,
        ):
            seconds, attacks = asyncio.run(verified(ground, count))
        report.add(f"{kind}: {count} tenants, {attacks} attacks on each", count / seconds, "/s")
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if sys.argv[1:] else COUNT))

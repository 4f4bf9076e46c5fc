"""What migrating a fleet costs: SQLite files and PostgreSQL databases, against bare loops of their drivers, and a peer.

`python -m bench.migrate` takes a quarter of an hour; MIGRATE_COUNTS=10,20 MIGRATE_PEERS=5 MIGRATE_FILES=50 makes it
small.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench import postgres
from bench.create import imported, living
from bench.peer import CHANGE, MIGRATE, Peer
from bench.report import Report
from bench.server import DURABLE, servers
from bench.site import Site, site
from tenantry.registry.journal import State
from tenantry.resources import postgres_admin

FILES = int(os.environ.get("MIGRATE_FILES", "1000"))
COUNTS = tuple(int(text) for text in os.environ.get("MIGRATE_COUNTS", "100,300,1000").split(","))
PEERS = int(os.environ.get("MIGRATE_PEERS", "300"))
ROUNDS = 3
IDLE = 10
"""Hundredths of a second that an idle worker uses in a second, at most."""
PARALLEL = 4
"""Connections of the bare loop and of a run, on the one server."""

MIGRATION = """
CREATE TABLE extra_{number} (id INTEGER NOT NULL PRIMARY KEY, thing INTEGER NOT NULL, note TEXT NOT NULL) STRICT;
CREATE INDEX extra_{number}_by_thing ON extra_{number} (thing);
ALTER TABLE thing_0 ADD COLUMN extra_{number} TEXT NOT NULL DEFAULT '';
UPDATE thing_0 SET extra_{number} = name;
"""
CHANGED = """
class Extra(models.Model):
    thing = models.IntegerField(db_index=True)
    note = models.TextField()
"""
SERVER = """
[servers.pg1]
kind = "postgres"
url = {env = "PG_ADMIN_URL"}
[blueprints.site]
admin = ""
[blueprints.site.resources]
db = {kind = "postgres", name = "bench_{slug}", schema = "schema/"}
"""


def bare(files: list[Path], script: str) -> float:
    """Connect, execute the file, close: seconds for all."""
    start = time.perf_counter()
    for file in files:
        connection = sqlite3.connect(file)
        connection.executescript(script)
        connection.close()
    return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Took:
    """What a run took, in seconds."""

    whole: float  # from the call to the end of the operation, with the template of new tenants and the canary
    wave: float  # migrating all tenants but the canary
    waved: int  # how many these are


async def migrated(place: Site, count: int, worker: int) -> Took:
    """Migrate everything through a living worker, the process of this id, once it has begun."""
    async with place.platform() as platform:
        await living(platform)
        await idle(worker)
        start = time.perf_counter()
        operation = await platform.migrations.run(parallel=PARALLEL)
        details = await platform.operations.finish(operation.id)
        seconds = time.perf_counter() - start
        assert details.operation.state is State.DONE, details.operation.error
        assert details.operation.done == count
        (fleet,) = await platform.migrations.status()
        assert fleet.versions == {fleet.newest: count}, fleet.versions
    wave = details.steps[-1]
    return Took(seconds, wave.seconds or 0.0, sum(details.tally[wave.position].values()))


async def nothing_to_do(place: Site) -> float:
    """Ask for a run that finds every tenant at its schema: seconds inside a process that has begun."""
    async with place.platform() as platform:
        start = time.perf_counter()
        operation = await platform.migrations.run(parallel=PARALLEL)
        assert operation.state is State.DONE
        assert operation.total == 0
        return time.perf_counter() - start


def files(report: Report) -> None:
    """Migrate the same fleet of files and copies of it in turns."""
    pairs = []
    with site() as place:
        asyncio.run(imported(place, FILES))
        source = place.data / "tenants"
        for turn in range(ROUNDS):
            script = MIGRATION.format(number=turn)
            copies = place.root / "copies"
            copies.mkdir()
            databases = [
                Path(shutil.copyfile(file, copies / f"{number}.sqlite"))
                for number, file in enumerate(source.glob("*/*/db.sqlite"))
            ]
            assert len(databases) == FILES
            (place.root / f"schema/{turn + 2:04}_extra.sql").write_text(script)
            least = bare(databases, script) if turn % 2 == 0 else 0.0
            with place.process("worker") as worker:
                ours = asyncio.run(migrated(place, FILES, worker.pid)).whole
            pairs.append((least or bare(databases, script), ours))
            shutil.rmtree(copies)
    against(report, "SQLite", "bare loop of sqlite3", FILES, pairs, 0.5)


def against(report: Report, what: str, least: str, count: int, pairs: list[tuple[float, float]], bound: float) -> None:
    """Report what a bare loop and a run took, in seconds."""
    ratio = statistics.median(bare / ours for bare, ours in pairs)
    name = f"migrate run, {count:,} on {what}"
    report.add(f"{least}, {count:,}", count / statistics.median(pair[0] for pair in pairs), "tenants/s")
    rate = count / statistics.median(pair[1] for pair in pairs)
    report.add(name, rate, "tenants/s", least, ratio, f"≥ {bound}", ratio >= bound)


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def on_server(place: Site, server: servers.Postgres) -> None:
    """Let the tenants of a platform be databases on a server, without anything else."""
    head, _, rest = place.config.read_text().partition("[blueprints.site.resources]")
    place.config.write_text(head + SERVER + rest[rest.index("[blueprints.site.hostnames]") :])
    with (place.root / ".env").open("a") as file:
        file.write(f"PG_ADMIN_URL='{server.administrator()}'\n")
    tables = "".join(postgres.TABLE.format(number=number) for number in range(postgres.TABLES))
    (place.root / "schema/0001_start.sql").write_text(tables)


def script_of(number: int, table: str) -> str:
    """The migration, as PostgreSQL has it, for a table of this name."""
    text = MIGRATION.replace(" STRICT", "").replace("INTEGER", "integer").format(number=number)
    return re.sub("extra_", f"{table}_", text)


async def addresses(place: Site, server: servers.Postgres) -> list[str]:
    """How each tenant's own login reaches its database."""
    async with place.platform() as platform:
        tools = platform.tools
        async with platform.registry.read() as tx:
            ids = [row.id for row in await platform.tenants.list(limit=10_000)]
            found = await tools.all_environments(tx, ids)
        return [server.url(one.places[0].location, one.logins["db"].user, one.logins["db"].password) for one in found]


def bare_on_server(urls: list[str], script: str) -> float:
    """Connect, execute the file in one transaction, close, over as many connections at a time: seconds for all."""

    def share(first: int) -> None:
        for url in urls[first::PARALLEL]:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"BEGIN; {script}; COMMIT".encode())

    start = time.perf_counter()
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(share, range(PARALLEL)))
    return time.perf_counter() - start


def rest(server: servers.Postgres) -> None:
    """Have everything on disk that was written, so that nobody pays for what another one did."""
    server.run("CHECKPOINT")
    os.sync()


def ticks(pid: int) -> int:
    """Processor time that a process has used, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def idle(pid: int) -> None:
    """Wait until a process does nothing: a worker that begins looks after templates and what was left behind."""
    before = -IDLE
    while (used := ticks(pid)) - before >= IDLE:
        before = used
        await asyncio.sleep(1)


def peak(pid: int) -> float:
    """The most memory a process has had, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) / 1024


def databases(report: Report, server: servers.Postgres) -> tuple[float, float, float]:
    """Grow a fleet, and at each size migrate it in turns with the bare loop; seconds of the size the peer has.

    With them those of a run that has nothing to do: inside a process, and as a command.

    Both run on the same databases: each migrates tables of its own name.
    """
    found: dict[int, float] = {}
    with site() as place:
        on_server(place, server)
        turn = 0
        for before, count in zip((0, *COUNTS), COUNTS, strict=False):
            asyncio.run(imported(place, count, before))
            urls = asyncio.run(addresses(place, server))
            pairs, steady = [], []
            for _ in range(ROUNDS):
                turn += 1
                (place.root / f"schema/{turn + 1:04}_extra.sql").write_text(script_of(turn, "extra"))
                rest(server)
                least = bare_on_server(urls, script_of(turn, "bare")) if turn % 2 else 0.0
                with place.process("worker") as worker:
                    rest(server)
                    ours = asyncio.run(migrated(place, count, worker.pid))
                    memory = peak(worker.pid)
                rest(server)
                least = least or bare_on_server(urls, script_of(turn, "bare"))
                pairs.append((least, ours.whole))
                steady.append(least / count / (ours.wave / ours.waved))
            against(report, "PostgreSQL", "bare loop of psycopg", count, pairs, 0.7)
            report.add(f"… the wave alone, {count:,}", statistics.median(steady), "of the bare loop")
            report.add(f"the worker's memory at most, {count:,}", memory, "MiB")
            found[count] = statistics.median(pair[1] for pair in pairs)
        nearest = min(COUNTS, key=lambda count: abs(count - PEERS))
        with place.process("worker"):
            command = statistics.median(place.command("migrate", "run") for _ in range(ROUNDS))
            inside = statistics.median(asyncio.run(nothing_to_do(place)) for _ in range(ROUNDS))
    postgres_admin.forget()
    return found[nearest] / nearest * PEERS, inside, command


def peer(report: Report, server: servers.Postgres, ours: float, inside: float, command: float) -> None:
    """The same with django-tenants' own command, whichever of its executors is the quicker."""
    with tempfile.TemporaryDirectory() as folder:
        project = Peer(server, Path(folder), postgres.TABLES)
        project.create(PEERS)
        took, idle = [], []
        for number, executor in enumerate(("standard", "multiprocessing")):
            text = project.models.read_text().replace(
                "note = ", f"extra{number} = models.TextField(default='')\n    note = ", 1
            )
            project.models.write_text(text + CHANGED.replace("Extra", f"Extra{number}"))
            project.run(CHANGE)
            for times in (took, idle):
                start = time.perf_counter()
                project.run(MIGRATE, executor)
                times.append(time.perf_counter() - start)
    report.add(f"django-tenants' migrate_schemas, {PEERS:,}", PEERS / min(took), "tenants/s")
    times = min(took) / ours
    report.add("migrate run against it", times, "times as quick", "django-tenants", bound="≥ 20", holds=times >= 20)
    report.add("django-tenants' migrate_schemas with nothing to do", min(idle), "s")
    report.add("a run with nothing to do, in a process that has begun", inside, "s")
    times = min(idle) / inside
    report.add("… against it", times, "times as quick", "django-tenants", bound="≥ 100", holds=times >= 100)
    report.add("`tenantry migrate run` with nothing to do", command, "s")
    report.add("… against it, the command", min(idle) / command, "times as quick", "django-tenants")


def main() -> int:
    """Migrate the same fleets in turns, and report."""
    report = Report("migrate")
    files(report)
    with servers.postgres(**DURABLE) as server:
        peer(report, server, *databases(report, server))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())

"""What a session on a tenant's own database on a server costs, and whether tenants keep out of one another's way.

A query through `tenant_session()` against the same session on one static engine; 2,000 tenants in random order on a
budget of 50 connections; and what the others notice while one tenant floods.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from bench.report import Report
from tenantry.context import tenant_context
from tenantry.model import Environment, Login, Server
from tenantry.runtime import Runtime, tenant_session

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fleets import Fleet, opened
from servers import Postgres, postgres

TENANTS = 2000
BUDGET = 50
ROUNDS = 9
QUERIES = 300  # of a round
VISITS = 3000  # in random order
VISITORS = 64  # at the same time
OTHERS = 20  # beside the tenant that floods
FLOOD = 200  # requests of it at the same time
SECONDS = 30.0  # of looking, with the flood and without
TURNS = 10  # in so many turns
EVERY = 0.05  # seconds between two requests of one of the others

NOTE = text("SELECT text FROM note")
WHERE = text("SELECT current_database()")


def login_of(tenant: Environment) -> Login:
    """A tenant's own login."""
    return opened(tenant, tenant.places[0], Server("pg1", "postgres", ""))


async def ours() -> None:
    """A session on the current tenant's database, with one query."""
    async with tenant_session() as session:
        (await session.execute(NOTE)).scalar_one()


async def mean(work: Callable[[], Awaitable[None]]) -> float:
    """Seconds for each of a round."""
    start = time.perf_counter()
    for _ in range(QUERIES):
        await work()
    return (time.perf_counter() - start) / QUERIES


async def one_query(report: Report, server: Postgres, tenant: Environment) -> None:
    """The same query through a session of ours and one on a static engine, in turns."""
    login = login_of(tenant)
    address = make_url(server.url(login.user, login.user, login.password)).set(drivername="postgresql+psycopg")
    engine = create_async_engine(address, pool_size=5)

    async def static() -> None:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            (await session.execute(NOTE)).scalar_one()

    with tenant_context(tenant):
        await mean(ours)
        await mean(static)
        pairs = []
        for turn in range(ROUNDS):
            first = await mean(static) if turn % 2 else 0.0
            our = await mean(ours)
            pairs.append((first or await mean(static), our))
    await engine.dispose()
    ratio = statistics.median(floor / our for floor, our in pairs)
    floor, our = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    report.add("session and query on a static engine", 1e6 * floor, "µs")
    report.add("tenant_session() and the same query", 1e6 * our, "µs", "static engine", ratio, "≥ 0.9", ratio >= 0.9)


async def bare(runtime: Runtime, tenants: list[Environment], server: Postgres) -> float:
    """Connect, ask and close, a few at the same time, while the pools hold nothing: seconds for each."""
    runtime.databases.pools.shut()
    order = random.Random(2).choices(tenants, k=VISITS // 10)
    count = len(order)

    async def visit() -> None:
        while order:
            login = login_of(order.pop())
            address = server.url(login.user, login.user, login.password)
            async with await psycopg.AsyncConnection.connect(address) as connection:
                await connection.execute("SELECT current_database()")

    start = time.perf_counter()
    await asyncio.gather(*(visit() for _ in range(8)))
    return (time.perf_counter() - start) / count


async def at_random(report: Report, runtime: Runtime, tenants: list[Environment], server: Postgres) -> None:
    """Each visit another tenant's database, many at the same time."""
    order = random.Random(1).choices(tenants, k=VISITS)
    errors = most = 0

    async def visit() -> None:
        nonlocal errors, most
        while order:
            tenant = order.pop()
            try:
                with tenant_context(tenant):
                    async with tenant_session() as session:
                        found = (await session.execute(WHERE)).scalar_one()
                errors += found != tenant.places[0].location
            except Exception as error:
                errors += 1
                print(error, file=sys.stderr)
            most = max(most, runtime.databases.pools.hosts["pg1"].budget.open)

    floor = await bare(runtime, tenants, server)
    start = time.perf_counter()
    await asyncio.gather(*(visit() for _ in range(VISITORS)))
    seconds = time.perf_counter() - start
    floor = (floor + await bare(runtime, tenants, server)) / 2
    name = f"{len(tenants):,} tenants in random order, {VISITORS} at a time, budget {BUDGET}"
    ratio = VISITS / seconds * floor
    report.add("bare connections to them: open, ask, close", 1 / floor, "a second")
    report.add(name, VISITS / seconds, "sessions/s", "bare connections", ratio, "no error", not errors)
    report.add("the same: most connections open", most, "", bound=f"≤ {BUDGET}", holds=most <= BUDGET)


class Watch:
    """What the others notice: how long each of them waits for its page, now and then."""

    def __init__(self, tenants: list[Environment]) -> None:
        self._times: dict[str, list[float]] = {tenant.id: [] for tenant in tenants}

    async def look(self, tenants: list[Environment]) -> None:
        """For a while."""
        end = time.perf_counter() + SECONDS / TURNS
        await asyncio.gather(*(self._look(tenant, end, EVERY * n / len(tenants)) for n, tenant in enumerate(tenants)))

    async def _look(self, tenant: Environment, end: float, pause: float) -> None:
        await asyncio.sleep(pause)
        with tenant_context(tenant):
            while (start := time.perf_counter()) < end:
                await ours()
                self._times[tenant.id].append(time.perf_counter() - start)
                await asyncio.sleep(EVERY)

    @property
    def slowest(self) -> float:
        """The slowest tenant's 99th percentile, in seconds."""
        return max(statistics.quantiles(times, n=100)[98] for times in self._times.values())


async def flooded(report: Report, tenants: list[Environment]) -> None:
    """What the others notice while one sends far more than it can be given.

    With and without take turns, since a server that has just made 2,000 databases has work of its own for a while.
    """
    flooding, *others = tenants[: OTHERS + 1]
    await Watch(others).look(others)
    before, during = Watch(others), Watch(others)
    going, served = True, 0

    async def flood() -> None:
        nonlocal served
        with tenant_context(flooding):
            while going:
                await ours()
                served += 1

    for _ in range(TURNS):
        await before.look(others)
        going = True
        floods = [asyncio.create_task(flood()) for _ in range(FLOOD)]
        await during.look(others)
        going = False
        await asyncio.gather(*floods)
    report.add(f"slowest p99 of {OTHERS} tenants", 1000 * before.slowest, "ms")
    name = f"the same while another one sends {FLOOD} at a time ({served / SECONDS:,.0f}/s)"
    ratio = during.slowest / before.slowest
    report.add(name, 1000 * during.slowest, "ms", "without", ratio, "≤ 3", ratio <= 3)


async def measure(report: Report, server: Postgres, count: int) -> None:
    """All of it on one server."""
    fleet = Fleet(Path(tempfile.mkdtemp(prefix="tenantry-bench-")))
    fleet.server("pg1", server, connections=BUDGET)
    start = time.perf_counter()
    tenants = fleet.tenants_on("pg1", server, [f"t{number}" for number in range(count)])
    print(f"  made {count} databases in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    runtime = fleet.runtime(busy_seconds=60.0)
    await runtime.start()
    runtime.install()
    await one_query(report, server, tenants[0])
    await flooded(report, tenants)
    await at_random(report, runtime, tenants, server)
    await runtime.stop()


def main() -> int:
    """Measure and report; a number as argument makes so many tenants."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else TENANTS
    report = Report("pools")
    with postgres() as server:
        asyncio.run(measure(report, server, count))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

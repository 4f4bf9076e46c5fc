"""Tables that tenants share behind pgbouncer in transaction mode: a server's connection never carries a tenant over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import servers
from fleets import Fleet, PoolLimits
from tenantry.context import tenant_context
from tenantry.errors import ServerUnavailable
from tenantry.model import Environment
from tenantry.runtime import Runtime, tenant_session

ADD = text("INSERT INTO note (text) VALUES (:text)")
NOTES = text("SELECT text FROM note")
COUNT = text("SELECT count(*), min(text), max(text) FROM note WHERE text = :text OR text <> :text")
Start = Callable[..., Awaitable[Runtime]]

TENANTS = 100
REQUESTS = 5_000

pytestmark = pytest.mark.postgres


@pytest.fixture
def pooler(postgres: servers.Postgres) -> Iterator[str]:
    """The address of pgbouncer in transaction mode, with fewer connections than the application has."""
    try:
        with servers.pgbouncer(postgres, connections=8) as address:
            yield address
    except servers.NoServer as error:
        pytest.skip(str(error))


async def request(rng: random.Random, environment: Environment) -> None:
    """What an application does for one request of a tenant: it reads, and sometimes writes, in up to three steps."""
    slug = environment.tenant.slug
    with tenant_context(environment):
        async with tenant_session() as session:
            for _ in range(rng.randint(1, 3)):
                count, first, last = (await session.execute(COUNT, {"text": slug})).one()
                assert count
                assert first == last == slug
                if rng.random() < 0.2:
                    await session.execute(ADD, {"text": slug})
                await rng.choice((session.commit, session.rollback))()


@asynccontextmanager
async def killing(server: servers.Postgres, database: str, rng: random.Random) -> AsyncIterator[list[int]]:
    """Connections to a database are ended at random meanwhile."""
    killed: list[int] = []

    async def kill() -> None:
        async with await psycopg.AsyncConnection.connect(server.url(), autocommit=True) as admin:
            while True:
                await asyncio.sleep(rng.uniform(0.1, 0.4))
                query = "SELECT pid FROM pg_stat_activity WHERE datname = %s ORDER BY random() LIMIT 1"
                row = await (await admin.execute(query, (database,))).fetchone()
                if row:
                    await admin.execute("SELECT pg_terminate_backend(%s)", row)
                    killed.append(row[0])

    task = asyncio.create_task(kill())
    try:
        yield killed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_no_foreign_row(fleet: Fleet, started: Start, postgres: servers.Postgres, pooler: str) -> None:
    """A hundred tenants at once, connections ended at random: each request that succeeds saw its own rows alone."""
    fleet.server("pg1", postgres, connections=40)
    tenants = fleet.rows("pg1", postgres, [f"t{number}" for number in range(TENANTS)], pooler)
    await started(busy_seconds=120, pool=PoolLimits(size=40, overflow=0))
    for environment in tenants:
        with tenant_context(environment):
            async with tenant_session() as session:
                await session.execute(ADD, {"text": environment.tenant.slug})
                await session.commit()
    failed = done = 0

    async def some(seed: int) -> None:
        nonlocal failed, done
        rng = random.Random(seed)
        for _ in range(REQUESTS // TENANTS):
            try:
                await request(rng, rng.choice(tenants))
                done += 1
            except (ServerUnavailable, DBAPIError):  # its connection was ended
                failed += 1

    async with killing(postgres, tenants[0].places[0].database, random.Random(7)) as killed:
        await asyncio.gather(*(some(seed) for seed in range(TENANTS)))
    assert killed
    assert done > REQUESTS // 2
    await whole(postgres, tenants)


async def whole(server: servers.Postgres, tenants: list[Environment]) -> None:
    """Each row belongs to the tenant that wrote it."""
    keys = {environment.key: environment.tenant.slug for environment in tenants}
    async with await psycopg.AsyncConnection.connect(server.url(tenants[0].places[0].database)) as superuser:
        rows = await (await superuser.execute("SELECT DISTINCT tenant_id::text, text FROM note")).fetchall()
    assert dict(rows) == keys
    assert len(rows) == len(keys)

"""Many tenants at once behind a pooler, whose connections are ended at random: what each of them then sees."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import servers
from tenantry.context import tenant_context
from tenantry.errors import ServerUnavailable
from tenantry.model import Environment
from tenantry.runtime import tenant_session

ADD = text("INSERT INTO note (text) VALUES (:text)")
COUNT = text("SELECT count(*), min(text), max(text) FROM note WHERE text = :text OR text <> :text")
CROWD = 100
"""Requests under way at a time."""


@dataclass
class Outcome:
    """What became of the requests."""

    done: int = 0
    failed: int = 0  # their connection was ended
    killed: list[int] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)  # what anybody saw, or wrote, of another tenant


async def trouble(server: servers.Postgres, tenants: Sequence[Environment], requests: int, seed: int) -> Outcome:
    """Let tenants, mixed at random, make requests on tables of notes that `Fleet.rows` made."""
    found, database = Outcome(), tenants[0].places[0].database
    for environment in tenants:
        with tenant_context(environment):
            async with tenant_session() as session:
                await session.execute(ADD, {"text": environment.tenant.slug})
                await session.commit()

    async def some(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        for _ in range(requests // CROWD):
            try:
                await _request(rng, rng.choice(tenants), found)
                found.done += 1
            except (ServerUnavailable, DBAPIError):
                found.failed += 1

    async with _killing(server, database, random.Random(seed), found.killed):
        await asyncio.gather(*(some(number) for number in range(CROWD)))
    found.foreign += await _strays(server, tenants, database)
    return found


async def _request(rng: random.Random, environment: Environment, found: Outcome) -> None:
    """What an application does for one request: it reads, and sometimes writes, in up to three transactions."""
    slug = environment.tenant.slug
    with tenant_context(environment):
        async with tenant_session() as session:
            for _ in range(rng.randint(1, 3)):
                count, first, last = (await session.execute(COUNT, {"text": slug})).one()
                if not count or {first, last} != {slug}:
                    found.foreign.append(f"{slug} saw {count} rows from {first} to {last}")
                if rng.random() < 0.1:
                    await session.execute(ADD, {"text": slug})
                await rng.choice((session.commit, session.rollback))()


@asynccontextmanager
async def _killing(
    server: servers.Postgres, database: str, rng: random.Random, killed: list[int]
) -> AsyncIterator[None]:
    """Connections to a database are ended at random meanwhile."""

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
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _strays(server: servers.Postgres, tenants: Sequence[Environment], database: str) -> list[str]:
    """Rows that belong to another tenant than the one that wrote them."""
    keys = {environment.key: environment.tenant.slug for environment in tenants}
    async with await psycopg.AsyncConnection.connect(server.url(database)) as superuser:
        rows = await (await superuser.execute("SELECT DISTINCT tenant_id::text, text FROM note")).fetchall()
    return [f"a row of {slug} belongs to {keys.get(key, key)}" for key, slug in rows if keys.get(key) != slug]

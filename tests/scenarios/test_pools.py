"""Sessions on tenants' databases that lie on PostgreSQL servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import servers
from fleets import LIMITS, Fleet, PoolLimits
from tenantry.context import tenant_context, without_tenant
from tenantry.errors import ForeignTenant, NoTenant
from tenantry.model import Environment
from tenantry.runtime import Runtime, tenant_session

NOTE = text("SELECT text FROM note")
Start = Callable[..., Awaitable[Runtime]]

pytestmark = pytest.mark.postgres


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A platform without tenants and servers."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.clear()


@pytest.fixture
async def started(fleet: Fleet) -> AsyncIterator[Start]:
    """Makes and starts runtimes in the test's event loop, and stops them."""
    made: list[Runtime] = []

    async def start(pool: PoolLimits = LIMITS, **changes: Any) -> Runtime:
        runtime = fleet.runtime(pool, **changes)
        made.append(runtime)
        await runtime.start()
        return runtime.install()

    yield start
    for runtime in made:
        await runtime.stop()


async def read() -> str:
    async with tenant_session() as session:
        return str((await session.execute(NOTE)).scalar_one())


def read_sync() -> str:
    with tenant_session() as session:
        return str(session.execute(NOTE).scalar_one())


async def read_of(environment: Environment) -> str:
    with tenant_context(environment):
        return await read()


async def test_each_tenant_has_its_own(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """A session reads and writes the current tenant's database; what is not committed is gone."""
    fleet.server("pg1", postgres)
    acme, other = fleet.tenants_on("pg1", postgres, ["acme", "other"])
    runtime = await started()
    with tenant_context(acme):
        async with tenant_session() as session:
            await session.execute(text("UPDATE note SET text = 'new'"))
            await session.commit()
            await session.execute(text("DELETE FROM note"))
        assert await read() == "new"
        assert await asyncio.to_thread(read_sync) == "new"
        with runtime.connection() as connection:
            assert connection.execute(NOTE).scalar_one() == "new"
    with tenant_context(other):
        assert await read() == "other"
        assert await asyncio.to_thread(read_sync) == "other"


async def test_a_session_stays_with_its_tenant(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Under another tenant's context, or none, a session refuses to work."""
    fleet.server("pg1", postgres)
    acme, other = fleet.tenants_on("pg1", postgres, ["acme", "other"])
    await started()
    with tenant_context(acme):
        async with tenant_session() as session:
            with tenant_context(other), pytest.raises(ForeignTenant, match=r"'acme'.*'other'"):
                await session.execute(NOTE)
            with without_tenant(), pytest.raises(NoTenant):
                await session.execute(NOTE)
            assert (await session.execute(NOTE)).scalar_one() == "acme"

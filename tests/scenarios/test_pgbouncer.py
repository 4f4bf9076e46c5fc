"""Tables that tenants share behind pgbouncer in transaction mode: a server's connection never carries a tenant over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
from sqlalchemy import text

import servers
from fleets import Fleet, PoolLimits
from poolers import CROWD, trouble
from tenantry.context import tenant_context
from tenantry.runtime import Runtime, tenant_session

Start = Callable[..., Awaitable[Runtime]]

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


async def test_no_foreign_row(fleet: Fleet, started: Start, postgres: servers.Postgres, pooler: str) -> None:
    """A hundred tenants at once, connections ended at random: nobody sees or writes another one's row."""
    fleet.server("pg1", postgres, connections=40)
    tenants = fleet.rows("pg1", postgres, [f"t{number}" for number in range(CROWD)], pooler)
    await started(busy_seconds=120, pool=PoolLimits(size=40, overflow=0))
    found = await trouble(postgres, tenants, REQUESTS, seed=7)
    assert found.foreign == []
    assert found.killed
    assert found.done > REQUESTS // 2
    assert found.done + found.failed == REQUESTS


async def test_connections_of_the_server_are_shared(
    fleet: Fleet, started: Start, postgres: servers.Postgres, pooler: str
) -> None:
    """A connection of the server that one tenant's transaction left serves another one's, as that tenant."""
    fleet.server("pg1", postgres)
    acme, other = fleet.rows("pg1", postgres, ["acme", "other"], pooler)
    await started()
    where = text("SELECT pg_backend_pid(), current_setting('tenantry.tenant', true)")
    with tenant_context(acme):
        async with tenant_session() as session:
            pid, key = (await session.execute(where)).one()
            assert key == acme.key
            await session.commit()
            with tenant_context(other):
                async with tenant_session() as theirs:
                    assert tuple((await theirs.execute(where)).one()) == (pid, other.key)

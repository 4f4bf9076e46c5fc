"""Sessions on tables that tenants share: each transaction is one tenant's, on connections that all of them use."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

import servers
from fleets import Fleet, PoolLimits, looks_only
from ground import until
from kills import populate
from shelves import RowsShelves
from staying import stays
from tenantry import connect
from tenantry.context import tenant_context, without_tenant
from tenantry.credentials import Role
from tenantry.errors import (
    AutocommitRefused,
    ForeignTenant,
    NoTenant,
    ServerUnavailable,
    SharedTablesWeak,
    SignInRefused,
)
from tenantry.model import Environment
from tenantry.registry.journal import State
from tenantry.runtime import Runtime, tenant_session
from tenantry.runtime.rows import AGAIN
from tenantry.runtime.runtime import connected

ADD = text("INSERT INTO note (text) VALUES (:text)")
NOTES = text("SELECT text FROM note ORDER BY id")
TENANT = text("SELECT current_setting('tenantry.tenant', true)")
PID = text("SELECT pg_backend_pid()")
Start = Callable[..., Awaitable[Runtime]]

pytestmark = pytest.mark.postgres


async def add(what: str) -> None:
    async with tenant_session() as session:
        await session.execute(ADD, {"text": what})
        await session.commit()


async def notes() -> list[str]:
    async with tenant_session() as session:
        return list((await session.execute(NOTES)).scalars())


def notes_sync() -> list[str]:
    with tenant_session() as session:
        return list(session.execute(NOTES).scalars())


async def reached() -> bool:
    """Whether the server of the current tenant answers."""
    try:
        await notes()
    except ServerUnavailable:
        return False
    return True


def owner_of(server: servers.Postgres, environment: Environment, *statements: str) -> None:
    """Run statements as the owner of the tables."""
    database = environment.places[0].database
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{database}_owner")))
        for statement in statements:
            connection.execute(statement.encode())


async def test_each_tenant_sees_its_own_rows(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Sessions, in an event loop and in threads, and connections see one tenant's rows, over commits and rollbacks."""
    fleet.server("pg1", postgres)
    acme, other = fleet.rows("pg1", postgres, ["acme", "other"])
    runtime = await started()
    for environment in (acme, other):
        with tenant_context(environment):
            await add(environment.tenant.slug)
    with tenant_context(acme):
        assert await notes() == await asyncio.to_thread(notes_sync) == ["acme"]
        async with tenant_session() as session:
            for end in (session.commit, session.rollback, session.commit):
                assert list((await session.execute(NOTES)).scalars()) == ["acme"]
                async with session.begin_nested() as nested:
                    await session.execute(ADD, {"text": "nested"})
                    await nested.rollback()
                assert list((await session.execute(NOTES)).scalars()) == ["acme"]
                await end()

        def in_thread() -> list[str]:
            with runtime.connection() as connection:
                found = list(connection.execute(NOTES).scalars())
                connection.rollback()
                return found + list(connection.execute(NOTES).scalars())

        assert await asyncio.to_thread(in_thread) == ["acme", "acme"]


async def test_support_that_looks_only_writes_nothing(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Its transactions are read only, for the server itself; the next one on the connection is not."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.rows("pg1", postgres, ["acme"])
    await started()
    await looks_only(acme)


async def test_a_session_stays_with_its_tenant(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Under another tenant's context, or none, a session refuses to work, though both share its connection."""
    fleet.server("pg1", postgres)
    acme, other = fleet.rows("pg1", postgres, ["acme", "other"])
    await started()
    with tenant_context(acme):
        async with tenant_session() as session:
            with tenant_context(other), pytest.raises(ForeignTenant, match=r"'acme'.*'other'"):
                await session.execute(NOTES)
            with without_tenant(), pytest.raises(NoTenant):
                await session.execute(NOTES)
            with tenant_context(other):
                async with tenant_session() as inner:
                    assert (await inner.execute(TENANT)).scalar_one() == other.key
            assert (await session.execute(TENANT)).scalar_one() == acme.key


async def test_tenants_share_connections(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """One after the other, tenants use one connection, which names no tenant once a session is over."""
    fleet.server("pg1", postgres)
    tenants = fleet.rows("pg1", postgres, [f"t{number}" for number in range(6)])
    runtime = await started()
    pids = set()
    for environment in tenants:
        with tenant_context(environment):
            async with tenant_session() as session:
                pids.add((await session.execute(PID)).scalar_one())
                await session.execute(text("SET search_path TO nowhere"))
                await session.commit()
                assert (await session.execute(text("SHOW search_path"))).scalar_one() != "nowhere"
    assert len(pids) == 1
    host = runtime.databases.pools.hosts["pg1"]
    (link,) = host.budget.idle
    assert link.whose is not None
    assert link.whose.begin == b""


async def test_many_tenants_at_once(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Forty tenants in random order on six connections, from a loop and from threads: each its own rows."""
    fleet.server("pg1", postgres, connections=6)
    tenants = fleet.rows("pg1", postgres, [f"t{number}" for number in range(40)])
    runtime = await started(busy_seconds=120, pool=PoolLimits(size=6, overflow=0))
    for environment in tenants:
        with tenant_context(environment):
            await add(environment.tenant.slug)

    async def some(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(25):
            environment = rng.choice(tenants)
            with tenant_context(environment):
                found = await notes() if rng.random() < 0.6 else await asyncio.to_thread(notes_sync)
            assert found == [environment.tenant.slug]

    await asyncio.gather(*(some(seed) for seed in range(24)))
    host = runtime.databases.pools.hosts["pg1"]
    assert host.budget.open <= 6
    assert not host.budget.waiting
    assert sum(tenancy.open for tenancy in host.tenancies.values()) == host.budget.open == len(host.budget.idle)


async def test_autocommit_is_refused(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """A session without transactions would work for nobody: it is refused, and the connection is as it was."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.rows("pg1", postgres, ["acme"])
    await started()
    with tenant_context(acme):
        async with tenant_session() as session:
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            with pytest.raises(AutocommitRefused):
                await session.execute(NOTES)
        assert await notes() == []


async def test_a_connection_that_breaks(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """A session goes on after its connection was ended, as the same tenant; the next one has a new connection."""
    fleet.server("pg1", postgres)
    acme, other = fleet.rows("pg1", postgres, ["acme", "other"])
    await started()
    with tenant_context(other):
        await add("foreign")
    with tenant_context(acme):
        await add("mine")
        async with tenant_session() as session:
            pid = (await session.execute(PID)).scalar_one()
            postgres.run(sql.SQL("SELECT pg_terminate_backend({})").format(pid))
            with pytest.raises(ServerUnavailable):
                await session.execute(NOTES)
            await session.rollback()
            assert list((await session.execute(NOTES)).scalars()) == ["mine"]
        assert await notes() == ["mine"]


@pytest.mark.parametrize(
    ("weaken", "what"),
    [
        ("ALTER TABLE note NO FORCE ROW LEVEL SECURITY", "note"),
        ("ALTER TABLE note DISABLE ROW LEVEL SECURITY", "note"),
        ("CREATE TABLE stray (id int); GRANT SELECT ON stray TO PUBLIC", "stray"),
        ("CREATE VIEW leak AS SELECT * FROM note; GRANT SELECT ON leak TO PUBLIC", "leak"),
    ],
)
async def test_weak_tables_are_refused(
    fleet: Fleet, started: Start, postgres: servers.Postgres, weaken: str, what: str
) -> None:
    """A process does not start on tables that something weakened, says what, and opens no session there."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.rows("pg1", postgres, ["acme"])
    owner_of(postgres, acme, weaken)
    with pytest.raises(SharedTablesWeak, match=what):
        await started()
    with tenant_context(acme):
        for _ in range(2):
            with pytest.raises(SharedTablesWeak, match=what):
                await notes()
            with pytest.raises(SharedTablesWeak, match=what):
                await asyncio.to_thread(notes_sync)


async def test_a_role_above_the_policies_is_refused(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """A role that no policy binds is refused before it reads a row; once it is mended, the process starts."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.rows("pg1", postgres, ["acme"])
    role = sql.Identifier(f"{acme.places[0].database}_app")
    postgres.run(sql.SQL("ALTER ROLE {} BYPASSRLS").format(role))
    with pytest.raises(SharedTablesWeak, match="BYPASSRLS"):
        await started()
    with tenant_context(acme):
        with pytest.raises(SharedTablesWeak, match="BYPASSRLS"):
            await notes()
        postgres.run(sql.SQL("ALTER ROLE {} NOBYPASSRLS").format(role))
        await asyncio.sleep(1.1)
        assert await notes() == []
        await connected().start()


def test_a_thread_starts_once_weak_tables_are_mended(fleet: Fleet, postgres: servers.Postgres) -> None:
    """A process without an event loop does not start on weak tables, each time it is asked; mended, it works."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.rows("pg1", postgres, ["acme"])
    owner_of(postgres, acme, "ALTER TABLE note NO FORCE ROW LEVEL SECURITY")
    runtime = fleet.runtime(PoolLimits()).install()
    for _ in range(2):
        with pytest.raises(SharedTablesWeak, match="note"):
            runtime.start_thread()
    owner_of(postgres, acme, "ALTER TABLE note FORCE ROW LEVEL SECURITY")
    time.sleep(AGAIN)
    runtime.start_thread()
    with tenant_context(acme):
        assert notes_sync() == []
    runtime.stop_thread()


async def test_a_server_that_is_down_at_the_start(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """A process starts while its server is down, and its first session there looks at the tables."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.rows("pg1", postgres, ["acme"])
    owner_of(postgres, acme, "ALTER TABLE note DISABLE ROW LEVEL SECURITY")
    right = fleet.known["pg1"].address
    fleet.change_server("pg1", address=f"postgresql://127.0.0.1:{servers.free_port()}/postgres")
    await started()
    fleet.change_server("pg1", address=right)
    with tenant_context(acme), pytest.raises(SharedTablesWeak, match="note"):
        await until(reached)


async def test_accounts_of_each_tenant(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """The same login is another user at each tenant, with a password of its own."""
    fleet.server("pg1", postgres)
    acme, other = fleet.rows("pg1", postgres, ["acme", "other"])
    runtime = await started()
    for environment in (acme, other):
        with tenant_context(environment):
            await runtime.accounts.create("ann@example.com", f"password-of-{environment.tenant.slug}", role=Role.ADMIN)
    with tenant_context(acme):
        assert (await runtime.accounts.authenticate("ann@example.com", "password-of-acme")).role is Role.ADMIN
        assert len(await runtime.accounts.list()) == 1
        with pytest.raises(SignInRefused):
            await runtime.accounts.authenticate("ann@example.com", "password-of-other")
    await stays(runtime, acme, other)


# --- a platform ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shelves(tmp_path: Path, postgres: servers.Postgres) -> Iterator[RowsShelves]:
    """A platform whose tenants share tables."""
    made = RowsShelves(tmp_path / "platform", postgres)
    yield made
    made.clear()


async def test_a_platform_of_shared_tables(
    shelves: RowsShelves, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two hundred tenants are imported, used by an application, checked, suspended and destroyed in one database."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    for line in (shelves.root / ".env").read_text().splitlines():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value.strip("'"))
    slugs = [f"t{number:03}" for number in range(200)]
    async with shelves.open() as platform:
        await populate(shelves, platform, slugs)
        assert [len(keys) for name, keys in shelves.tenants().items() if name == "page"] == [200]
        runtime = connect(shelves.config)
        await runtime.start()
        try:
            for slug in ("t007", "t008"):
                (environment,) = (await platform.tenants.show(slug)).environments
                with tenant_context(environment):
                    async with tenant_session() as session:
                        assert (await session.execute(text("SELECT title FROM page"))).scalar_one() == "Welcome"
                        assert (await session.execute(text("SELECT count(*) FROM tenantry_user"))).scalar_one() == 1
        finally:
            await runtime.stop()
        assert [finding.what for finding in await platform.tenants.check("t007") if not finding.ok] == []
        (shelves.root / "schema" / "0002_more.sql").write_text("ALTER TABLE page ADD COLUMN more int;")
        for operation in (
            await platform.tenants.suspend("t008"),
            await platform.tenants.destroy("t009"),
        ):
            if operation is not None:
                assert (await platform.operations.finish(operation.id)).operation.state is State.DONE
    async with shelves.open() as platform:
        done = await platform.operations.finish((await platform.migrations.run()).id)
        assert done.operation.state is State.DONE
        assert [len(keys) for name, keys in shelves.tenants().items() if name == "page"] == [199]
        assert [finding.what for finding in await platform.tenants.check("t007") if not finding.ok] == []

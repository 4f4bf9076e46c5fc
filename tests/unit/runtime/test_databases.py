"""Sessions on tenants' own databases."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from tenantry.context import tenant_context, without_tenant
from tenantry.errors import (
    DatabasesBusy,
    ForeignTenant,
    NoTenant,
    ResourceError,
    RuntimeMissing,
    SchemaBehind,
    TenantNotServed,
)
from tenantry.model import Place, Status
from tenantry.runtime import tenant_session

NOTE = text("SELECT text FROM note")


async def read() -> str:
    async with tenant_session() as session:
        return str((await session.execute(NOTE)).scalar_one())


def read_sync() -> str:
    with tenant_session() as session:
        return str(session.execute(NOTE).scalar_one())


async def test_each_tenant_has_its_own(world: Any, started: Any) -> None:
    """A session reads and writes the current tenant's database; what is not committed is gone."""
    acme, other = world.tenant("acme"), world.tenant("other")
    await started()
    with tenant_context(acme):
        async with tenant_session() as session:
            await session.execute(text("UPDATE note SET text = 'new'"))
            await session.commit()
            await session.execute(text("DELETE FROM note"))
        assert (await read(), read_sync()) == ("new", "new")
    with tenant_context(other):
        assert await read() == "other"


async def test_settings_of_a_connection(world: Any, started: Any) -> None:
    """Connections use the write-ahead log, keep foreign keys, wait for a writer, and can attach no other database."""
    acme, other = world.tenant("acme"), world.tenant("other")
    runtime = await started()
    wanted = {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}
    path = world.root / other.home / "db.sqlite"
    with tenant_context(acme):
        async with tenant_session() as session:
            for name, value in wanted.items():
                assert (await session.execute(text(f"PRAGMA {name}"))).scalar_one() == value
            with pytest.raises(DatabaseError, match="too many attached"):
                await session.execute(text(f"ATTACH '{path}' AS other"))
        with runtime.connection() as connection, pytest.raises(DatabaseError, match="too many attached"):
            connection.execute(text(f"ATTACH '{path}' AS other"))


async def test_no_tenant(world: Any, started: Any) -> None:
    """Without a tenant there is no session, and without a runtime neither."""
    with pytest.raises(RuntimeMissing):
        await read()
    await started()
    with pytest.raises(NoTenant):
        await read()
    with pytest.raises(NoTenant):
        read_sync()


async def test_a_session_stays_with_its_tenant(world: Any, started: Any) -> None:
    """Under another tenant's context, or none, a session and a connection refuse to work."""
    acme, other = world.tenant("acme"), world.tenant("other")
    runtime = await started()
    with tenant_context(acme):
        async with tenant_session() as session:
            await session.execute(NOTE)
            with tenant_context(other), pytest.raises(ForeignTenant, match=r"'acme'.*'other'"):
                await session.execute(NOTE)
            with without_tenant(), pytest.raises(NoTenant):
                await session.execute(NOTE)
            assert (await session.execute(NOTE)).scalar_one() == "acme"
        with runtime.connection() as connection, tenant_context(other), pytest.raises(ForeignTenant):
            connection.execute(NOTE)


async def test_not_served(world: Any, started: Any, until: Any) -> None:
    """A tenant that was suspended or destroyed since the request began gets no session."""
    acme = world.tenant("acme")
    runtime = await started()
    world.change(acme, status=Status.SUSPENDED)
    await until(lambda: not runtime.resolver.table.live)
    with tenant_context(acme):
        with pytest.raises(TenantNotServed):
            await read()
        world.feed.remove(acme.tenant.id)
        await until(lambda: not runtime.resolver.table.tenants)
        with pytest.raises(TenantNotServed):
            read_sync()


ORDER = ("0001_one", "0002_two", "0003_three")


@pytest.mark.parametrize(
    ("has", "needs", "right"),
    [
        ("0002_two", "0002_two", True),
        ("0003_three", "0002_two", True),
        ("0001_one", "0002_two", False),
        ("0099_newer", "0002_two", True),
        ("0000_unknown", "0002_two", False),
        ("8f3c2a", "0002_two", True),
        (None, "0001_one", False),
        ("0002_two", "0099_unknown", False),
        (None, None, True),
    ],
)
async def test_schema(world: Any, started: Any, has: str | None, needs: str | None, right: bool) -> None:
    """A schema that is older than the code needs is refused with both versions; one from newer files is served."""
    acme = world.tenant("acme", places=(Place("db", "sqlite", "db.sqlite", has),))
    await started(needs={("site", "db"): needs}, versions={("site", "db"): ORDER})
    with tenant_context(acme):
        if right:
            assert (await read(), read_sync()) == ("acme", "acme")
            return
        for attempt in (read, lambda: asyncio.to_thread(read_sync)):
            with pytest.raises(SchemaBehind, match=f"{has or 'none'}, and this application needs {needs}"):
                await attempt()


async def test_a_missing_file_stays_missing(world: Any, started: Any) -> None:
    """A database whose file is gone is not made anew, empty."""
    acme = world.tenant("acme")
    path = world.root / acme.home / "db.sqlite"
    await started()
    path.unlink()
    with tenant_context(acme), pytest.raises(ResourceError, match="file is missing"):
        await read()
    assert not path.exists()


async def test_which_database(world: Any, started: Any) -> None:
    """With two databases the resource has to be named."""
    places = (Place("db", "sqlite", "db.sqlite"), Place("log", "sqlite", "log.sqlite"))
    acme = world.tenant("acme", places=places)
    await started()
    with tenant_context(acme):
        with pytest.raises(ResourceError, match="db, log"):
            await read()
        with pytest.raises(ResourceError, match="db, log"):
            tenant_session("media").__enter__()
        async with tenant_session("db") as session:
            assert (await session.execute(NOTE)).scalar_one() == "acme"


async def test_bound(world: Any, started: Any) -> None:
    """Never more databases are open than allowed; the least recently used idle one is closed."""
    tenants = [world.tenant(f"t{number}") for number in range(5)]
    runtime = await started(open_databases=2)
    for number in (0, 1, 0, 2, 3, 4, 0):
        with tenant_context(tenants[number]):
            assert await read() == f"t{number}"
        assert runtime.databases.files._count <= 2
    assert [key[0] for key in runtime.databases.files._open] == [tenants[4].id, tenants[0].id]
    with tenant_context(tenants[1]):
        assert read_sync() == "t1"
    assert runtime.databases.files._count == 2


async def test_waiting_for_a_database(world: Any, started: Any) -> None:
    """When all are in use, the next one waits and gets its turn when one is left, in a loop and in a thread."""
    acme, other, third = (world.tenant(slug) for slug in ("acme", "other", "third"))
    runtime = await started(open_databases=1, busy_seconds=20)

    async def use(environment: Any, work: Any) -> Any:
        with tenant_context(environment):
            return await work()

    with tenant_context(acme):
        async with tenant_session() as session:
            await session.execute(NOTE)
            waiting = [
                asyncio.create_task(use(other, read)),
                asyncio.create_task(use(third, lambda: asyncio.to_thread(read_sync))),
            ]
            while len(runtime.databases.files._waiting) < 2:
                await asyncio.sleep(0.001)
            cancelled = asyncio.create_task(use(third, read))
            await asyncio.sleep(0)
            cancelled.cancel()
            assert not any(task.done() for task in waiting)
    assert await asyncio.gather(*waiting) == ["other", "third"]
    assert runtime.databases.files._count == 1


async def test_waiting_in_vain(world: Any, started: Any) -> None:
    """Who waits too long is told the limit, and the databases go on working."""
    acme, other = world.tenant("acme"), world.tenant("other")
    runtime = await started(open_databases=1, busy_seconds=0.01)
    with tenant_context(acme):
        async with tenant_session():
            with tenant_context(other):
                with pytest.raises(DatabasesBusy, match="All 1 "):
                    await read()
                with pytest.raises(DatabasesBusy, match="All 1 "):
                    read_sync()
    with tenant_context(other):
        assert await read() == "other"
    assert not runtime.databases.files._waiting


async def test_a_change_closes(world: Any, started: Any, until: Any) -> None:
    """A changed tenant's idle database is closed at once, one in use when its session ends."""
    acme = world.tenant("acme")
    runtime = await started()
    with tenant_context(acme):
        await read()
        assert runtime.databases.files._count == 1
        new = world.change(acme, plan="pro")
        await until(lambda: runtime.databases.files._count == 0)
        async with tenant_session() as session:
            world.change(new, plan="free")
            await until(lambda: not runtime.databases.files._open)
            assert (await session.execute(NOTE)).scalar_one() == "acme"
        assert runtime.databases.files._count == 0


async def test_tasks_at_the_same_time(world: Any, started: Any) -> None:
    """Many tasks of many tenants, with far fewer databases than tenants, each read their own."""
    tenants = [world.tenant(f"t{number}") for number in range(12)]
    runtime = await started(open_databases=3, busy_seconds=60)

    async def one(number: int) -> bool:
        environment = tenants[number % 12]
        with tenant_context(environment):
            return await read() == environment.tenant.slug

    async with asyncio.timeout(180):
        assert all(await asyncio.gather(*(one(number) for number in range(96))))
    assert runtime.databases.files._count <= 3


def test_threads_at_the_same_time(world: Any) -> None:
    """Threads of many tenants each read their own."""
    tenants = [world.tenant(f"t{number}") for number in range(6)]
    runtime = world.runtime(open_databases=2, busy_seconds=60)
    runtime.start_thread()
    runtime.install()
    seen: list[tuple[str, str]] = []

    def one(number: int) -> None:
        for step in range(6):
            environment = tenants[(number + step) % 6]
            with tenant_context(environment):
                seen.append((environment.tenant.slug, read_sync()))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 36
    assert all(wanted == found for wanted, found in seen)

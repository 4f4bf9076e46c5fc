"""Sessions on tenants' databases that lie on a MariaDB server, with TLS."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, inspect, text

import servers
from fleets import Fleet, looks_only
from mariadb import MariaDB
from staying import stays
from tenantry import users
from tenantry.context import tenant_context
from tenantry.errors import ForeignTenant, ResourceError, ServerUnavailable
from tenantry.model import Environment, Login
from tenantry.runtime import Runtime, pools, tenant_session
from tenantry.runtime.links import Host

WHERE = text("SELECT database()")
Start = Callable[..., Awaitable[Runtime]]


async def right(environment: Environment) -> bool:
    """Whether a session of this tenant leads to its own database."""
    with tenant_context(environment):
        async with tenant_session() as session:
            return bool((await session.execute(WHERE)).scalar_one() == environment.places[0].location)


def right_sync(environment: Environment) -> bool:
    with tenant_context(environment), tenant_session() as session:
        return bool(session.execute(WHERE).scalar_one() == environment.places[0].location)


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds; a test that waits in vain is ended by the limit."""
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.005)


def host_of(runtime: Runtime) -> Host:
    return runtime.databases.pools.hosts["db"]


async def test_support_that_looks_only_writes_nothing(fleet: Fleet, started: Start, mariadb_server: MariaDB) -> None:
    """Its transactions are read only, for the server itself; the next one on the connection is not."""
    (acme,) = fleet.maria("db", mariadb_server, ["acme"])
    await started()
    with tenant_context(acme):
        async with tenant_session() as session:
            await session.execute(text("CREATE TABLE note (text varchar(99))"))
    await looks_only(acme)


async def test_each_tenant_has_its_own(fleet: Fleet, started: Start, mariadb_server: MariaDB) -> None:
    """Many tenants on few connections, from a loop and from threads, encrypted, each in its own database alone."""
    tenants = fleet.maria("db", mariadb_server, [f"t{number}" for number in range(12)], connections=4)
    runtime = await started(busy_seconds=120)

    async def some(seed: int) -> bool:
        good = True
        for environment in random.Random(seed).sample(tenants, 8):
            good &= await (right(environment) if seed % 3 else asyncio.to_thread(right_sync, environment))
        return good

    assert all(await asyncio.gather(*(some(seed) for seed in range(12))))
    assert host_of(runtime).budget.open <= 4
    assert host_of(runtime).budget.busy == 0
    with tenant_context(tenants[0]):
        async with tenant_session() as session:
            assert (await session.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))).one()[1]
            with tenant_context(tenants[1]), pytest.raises(ForeignTenant):
                await session.execute(WHERE)


async def test_each_tenants_tables(fleet: Fleet, started: Start, mariadb_server: MariaDB) -> None:
    """What SQLAlchemy finds out about a database is that tenant's own, in a loop and in threads."""
    tenants = fleet.maria("db", mariadb_server, ["acme", "other"])
    runtime = await started()

    def tables(environment: Environment) -> list[str]:
        with tenant_context(environment), runtime.connection() as connection:
            return inspect(connection).get_table_names()

    for environment in tenants:
        table = Table(f"of_{environment.tenant.slug}", MetaData(), Column("id", Integer, primary_key=True))
        with tenant_context(environment):
            async with tenant_session() as session:
                for _ in range(2):  # the second time it is found
                    await (await session.connection()).run_sync(table.metadata.create_all)
                await session.commit()
        assert await asyncio.to_thread(tables, environment) == sorted([table.name, *users.TABLES])


async def test_users_stay_at_their_tenant(fleet: Fleet, started: Start, mariadb_server: MariaDB) -> None:
    """Sessions, tokens and a provider's users lie in the tenant's own database."""
    acme, other = fleet.maria("db", mariadb_server, ["acme", "other"])
    await stays(await started(), acme, other)


async def test_what_is_not_committed_is_gone(fleet: Fleet, started: Start, mariadb_server: MariaDB) -> None:
    """What one session leaves behind, the next one on the same connection does not see."""
    (acme,) = fleet.maria("db", mariadb_server, ["acme"])
    runtime = await started()
    with tenant_context(acme):
        user = await runtime.accounts.create("Ada@Example.com", "correct horse")
        async with tenant_session() as session:
            pid = (await session.execute(text("SELECT connection_id()"))).scalar_one()
            await session.execute(text("DELETE FROM tenantry_user"))
        async with tenant_session() as session:
            assert (await session.execute(text("SELECT connection_id()"))).scalar_one() == pid
            assert (await session.execute(text("SELECT login FROM tenantry_user"))).scalar_one() == "ada@example.com"
        assert (await runtime.accounts.authenticate("ada@example.com", "correct horse")) == user


async def test_a_connection_that_was_ended(fleet: Fleet, started: Start, mariadb_server: MariaDB) -> None:
    """An idle connection that the server ended is not used; a session that loses its own is told so."""
    (acme,) = fleet.maria("db", mariadb_server, ["acme"])
    runtime = await started()
    pid = text("SELECT connection_id()")

    async def ended(number: int) -> None:
        await asyncio.to_thread(mariadb_server.run, f"KILL {number}")
        await until(
            lambda: not mariadb_server.run(f"SELECT id FROM information_schema.processlist WHERE id = {number}")
        )

    with tenant_context(acme):
        async with tenant_session() as session:
            number = (await session.execute(pid)).scalar_one()
        await ended(number)
        await until(lambda: all(link.stale() for link in host_of(runtime).budget.idle))
        async with tenant_session() as session:
            other = (await session.execute(pid)).scalar_one()
            assert other != number
            await ended(other)
            with pytest.raises(ServerUnavailable, match="broke off"):
                await session.execute(pid)
    assert await right(acme)
    assert host_of(runtime).budget.open == 1
    await until(lambda: not host_of(runtime).probing)
    assert host_of(runtime).breaker.trips == 0


async def test_a_refused_login(
    fleet: Fleet, started: Start, mariadb_server: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that stays refused is told without the password; one that changes meanwhile is waited for."""
    (acme,) = fleet.maria("db", mariadb_server, ["acme"])
    runtime = await started()
    place = acme.places[0]
    wrong = fleet.rotate(acme, Login(place.location, "wr0ng"))
    await until(lambda: runtime.resolver.table.current(acme) == wrong)
    waiting = [asyncio.create_task(right(acme)), asyncio.create_task(asyncio.to_thread(right_sync, acme))]
    await asyncio.sleep(0.1)
    fleet.rotate(acme, Login(place.location, "of-acme@:/?#%&='ä"))
    assert await asyncio.gather(*waiting) == [True, True]
    monkeypatch.setattr(pools, "ROTATION_SECONDS", 0.1)
    wrong = fleet.rotate(acme, Login(place.location, "wr0ng"))
    await until(lambda: runtime.resolver.table.current(acme) == wrong and not host_of(runtime).budget.open)
    for attempt in (right, partial(asyncio.to_thread, right_sync)):
        with pytest.raises(ResourceError, match="does not let it in") as told:
            await attempt(acme)
        assert "wr0ng" not in str(told.value)


async def test_a_dropped_session(
    fleet: Fleet, started: Start, mariadb_server: MariaDB, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that is dropped without being closed is named and its connection closed."""
    acme, other = fleet.maria("db", mariadb_server, ["acme", "other"], connections=1)
    runtime = await started(busy_seconds=60)

    async def drop() -> None:
        with tenant_context(acme):
            session = await tenant_session().__aenter__()
            await session.execute(WHERE)

    await drop()
    gc.collect()
    assert await right(other)
    assert host_of(runtime).lost == 1
    assert any("was never closed" in record.getMessage() for record in caplog.records)


async def test_a_server_that_never_answers(fleet: Fleet, started: Start, mariadb_server: MariaDB) -> None:
    """Statements in flight end, in a loop and in a thread; new sessions are refused; afterwards all is well."""
    acme, other = fleet.maria("db", mariadb_server, ["acme", "other"])
    runtime = await started()
    assert await right(acme)
    ready, stopped = threading.Event(), threading.Event()

    def in_thread() -> None:
        with tenant_context(other), tenant_session() as session:
            session.execute(WHERE)
            ready.set()
            stopped.wait()
            session.execute(WHERE)

    waiting = asyncio.create_task(asyncio.to_thread(in_thread))
    await until(ready.is_set)
    servers.freeze(mariadb_server.process.pid)
    stopped.set()
    try:
        with pytest.raises(ServerUnavailable):
            await right(acme)
        with pytest.raises(ServerUnavailable):
            await waiting
        await until(lambda: host_of(runtime).breaker.is_open)
        with pytest.raises(ServerUnavailable, match="'db' cannot be reached"):
            await right(acme)
    finally:
        os.kill(mariadb_server.process.pid, signal.SIGCONT)
    await until(lambda: not host_of(runtime).breaker.is_open)
    assert await right(acme)

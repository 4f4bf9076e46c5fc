"""Sessions on tenants' databases that lie on PostgreSQL servers."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import random
import threading
import warnings
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import servers
from fleets import Fleet, PoolLimits, looks_only
from staying import stays
from tenantry.context import tenant_context, without_tenant
from tenantry.credentials import Role
from tenantry.errors import (
    AccountError,
    ForeignTenant,
    NoTenant,
    ResourceError,
    ServerBusy,
    ServerUnavailable,
    ServerUnknown,
)
from tenantry.model import Environment, Login, ServerState, Status
from tenantry.runtime import Runtime, pools, tenant_session
from tenantry.runtime.links import Host

WHERE = text("SELECT current_database()")
NOTE = text("SELECT text FROM note")
Start = Callable[..., Awaitable[Runtime]]
Until = Callable[[Callable[[], object]], Awaitable[None]]

pytestmark = pytest.mark.postgres


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds; a test that waits in vain is ended by the limit."""
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.005)


async def read() -> str:
    async with tenant_session() as session:
        return str((await session.execute(WHERE)).scalar_one())


def read_sync() -> str:
    with tenant_session() as session:
        return str(session.execute(WHERE).scalar_one())


async def right(environment: Environment) -> bool:
    """Whether a session of this tenant leads to its own database."""
    with tenant_context(environment):
        return await read() == environment.places[0].location


def right_sync(environment: Environment) -> bool:
    with tenant_context(environment):
        return read_sync() == environment.places[0].location


def host_of(runtime: Runtime, name: str = "pg1") -> Host:
    return runtime.databases.pools.hosts[name]


def connections(server: servers.Postgres, tenants: Sequence[Environment]) -> int:
    """How many connections to these tenants' databases the server itself counts; other tests may use it as well."""
    with psycopg.connect(server.url()) as admin:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = ANY (%s) AND usename <> 'postgres'"
        row = admin.execute(query, [[one.places[0].location for one in tenants]]).fetchone()
        assert row
        return int(row[0])


# --- whose database -----------------------------------------------------------------------------------------------


async def test_support_that_looks_only_writes_nothing(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Its transactions are read only, for the server itself; the next one on the connection is not."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.tenants_on("pg1", postgres, ["acme"])
    await started()
    await looks_only(acme)


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
        async with tenant_session() as session:
            assert (await session.execute(NOTE)).scalar_one() == "new"

        def in_thread() -> str:
            with tenant_session() as session, runtime.connection() as connection:
                assert session.execute(NOTE).scalar_one() == "new"
                return str(connection.execute(NOTE).scalar_one())

        assert await asyncio.to_thread(in_thread) == "new"
    with tenant_context(other):
        async with tenant_session() as session:
            assert (await session.execute(NOTE)).scalar_one() == "old"
    assert await right(acme)
    assert await right(other)
    assert await asyncio.to_thread(right_sync, other)


async def test_a_session_stays_with_its_tenant(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Under another tenant's context, or none, a session refuses to work."""
    fleet.server("pg1", postgres)
    acme, other = fleet.tenants_on("pg1", postgres, ["acme", "other"])
    await started()
    with tenant_context(acme):
        async with tenant_session() as session:
            with tenant_context(other), pytest.raises(ForeignTenant, match=r"'acme'.*'other'"):
                await session.execute(WHERE)
            with without_tenant(), pytest.raises(NoTenant):
                await session.execute(WHERE)
            assert (await session.execute(WHERE)).scalar_one() == acme.places[0].location


async def test_many_tenants_on_a_small_budget(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Forty tenants in random order on eight connections, from a loop and from threads: each its own database."""
    fleet.server("pg1", postgres, connections=8)
    tenants = fleet.tenants_on("pg1", postgres, [f"t{number}" for number in range(40)])
    runtime = await started(busy_seconds=120)
    most = 0

    async def some(seed: int) -> bool:
        nonlocal most
        chance, good = random.Random(seed), True
        for environment in chance.sample(tenants, 10):
            if seed % 4:
                good &= await right(environment)
            else:
                good &= await asyncio.to_thread(right_sync, environment)
            most = max(most, host_of(runtime).budget.open)
        return good

    counting = asyncio.to_thread(lambda: max([connections(postgres, tenants) for _ in range(20)]))
    *good, counted = await asyncio.gather(*(some(seed) for seed in range(16)), counting)
    assert all(good)
    assert most == 8
    assert counted <= 8 + 2  # a connection that was closed is counted by the server until it notices
    assert host_of(runtime).budget.busy == 0
    assert sum(host_of(runtime).sessions.values()) == 160


async def test_what_a_session_sets_ends_with_it(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """An isolation level and a transaction in error do not reach the next session on the same connection."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.tenants_on("pg1", postgres, ["acme"])
    runtime = await started()
    level = text("SHOW transaction_isolation")
    pid = text("SELECT pg_backend_pid()")
    with tenant_context(acme):
        async with tenant_session() as session:
            await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
            assert (await session.execute(level)).scalar_one() == "serializable"
            first = (await session.execute(pid)).scalar_one()
            with pytest.raises(DBAPIError):
                await session.execute(text("SELECT nonsense"))
        async with tenant_session() as session:
            assert (await session.execute(level)).scalar_one() == "read committed"
            assert (await session.execute(pid)).scalar_one() == first
    assert host_of(runtime).budget.open == 1


# --- the budget ---------------------------------------------------------------------------------------------------


async def test_waiting_in_vain(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Who waits too long is told the server, whose limit it was and what to raise; the pool goes on working."""
    fleet.server("pg1", postgres, connections=2)
    acme, other = fleet.tenants_on("pg1", postgres, ["acme", "other"])
    runtime = await started(PoolLimits(size=1, overflow=0), busy_seconds=0.05)
    with tenant_context(acme):
        async with tenant_session():
            with pytest.raises(ServerBusy, match=r"'pg1'.*'acme' uses all 1 .*`pool` of the resource 'db'"):
                await read()
            with tenant_context(other):
                async with tenant_session():
                    fleet.change_server("pg1", connections=1)
                    await until(lambda: runtime.resolver.table.servers["pg1"].connections == 1)
                    with pytest.raises(ServerBusy):
                        await asyncio.to_thread(read_sync)
    fleet.change_server("pg1", connections=1)
    assert await right(acme)
    with tenant_context(acme):
        async with tenant_session():
            with tenant_context(other), pytest.raises(ServerBusy, match=r"1 is the budget.*raise `connections`"):
                await read()
    assert host_of(runtime).refused == 3
    assert await right(other)
    assert host_of(runtime).budget.open == 1


async def test_a_cancelled_waiter(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Who is cancelled while waiting, or in the middle of a statement, takes no connection along."""
    fleet.server("pg1", postgres, connections=1)
    acme, other = fleet.tenants_on("pg1", postgres, ["acme", "other"])
    runtime = await started(busy_seconds=60)

    async def sleep() -> None:
        with tenant_context(acme):
            async with tenant_session() as session:
                await session.execute(text("SELECT pg_sleep(60)"))

    sleeping = asyncio.create_task(sleep())
    await until(lambda: "pg1" in runtime.databases.pools.hosts and host_of(runtime).busy)
    waiting = [asyncio.create_task(right(other)) for _ in range(2)]
    await until(lambda: host_of(runtime).budget.waiters == 2)
    waiting[0].cancel()
    await until(lambda: host_of(runtime).budget.waiters == 1)
    sleeping.cancel()
    assert await waiting[1]
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert (host_of(runtime).budget.open, host_of(runtime).budget.busy) == (1, 0)


async def test_a_flood(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """While one tenant floods with slow statements, the others get through, each before the flood is over."""
    fleet.server("pg1", postgres, connections=10)
    flood, *others = fleet.tenants_on("pg1", postgres, ["flood", "acme", "beta", "gamma"])
    runtime = await started(PoolLimits(size=5, overflow=95), busy_seconds=120)
    done: list[str] = []

    async def slow() -> None:
        with tenant_context(flood):
            async with tenant_session() as session:
                await session.execute(text("SELECT pg_sleep(0.2)"))
        done.append("flood")

    async def quick(environment: Environment) -> None:
        assert await right(environment)
        done.append(environment.tenant.slug)

    flooding = [asyncio.create_task(slow()) for _ in range(60)]
    await until(lambda: "pg1" in runtime.databases.pools.hosts and host_of(runtime).budget.waiters)
    assert host_of(runtime).budget.busy == 8
    for _ in range(3):
        await asyncio.gather(*(quick(environment) for environment in others))
    assert len(done) - done.count("flood") == 9
    assert done.count("flood") < 60
    await asyncio.gather(*flooding)


async def test_idle_ones_are_closed(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Idle connections above `size` are closed at once, the others after `idle`; then the keeper's thread ends."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.tenants_on("pg1", postgres, ["acme"])
    runtime = await started(PoolLimits(size=2, overflow=4, idle=0.3))

    async def hold(all_there: asyncio.Barrier) -> None:
        with tenant_context(acme):
            async with tenant_session() as session:
                await session.execute(WHERE)
                await all_there.wait()

    barrier = asyncio.Barrier(6)
    await asyncio.gather(*(hold(barrier) for _ in range(6)))
    assert host_of(runtime).budget.open <= 2
    await until(lambda: host_of(runtime).budget.open == 0)
    await until(lambda: connections(postgres, [acme]) == 0)
    await until(lambda: runtime.databases.pools._keeper is None)
    assert await right(acme)


# --- leaks --------------------------------------------------------------------------------------------------------


async def test_a_leak_is_named(
    fleet: Fleet, started: Start, postgres: servers.Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that is open for too long is named in the log once, with where it was opened; and counted."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.tenants_on("pg1", postgres, ["acme"])
    runtime = await started(leak_after=0.05)
    with tenant_context(acme):
        frame = inspect.currentframe()
        line = frame.f_lineno + 1 if frame else 0
        async with tenant_session() as session:
            await until(lambda: host_of(runtime).leaks)
            await asyncio.sleep(0.6)  # two more rounds of the keeper
            assert (await session.execute(WHERE)).scalar_one()
    named = [record.getMessage() for record in caplog.records if "open for more than" in record.getMessage()]
    assert len(named) == 1
    assert "'db' of the tenant 'acme'" in named[0]
    assert f"{__file__}:{line}" in named[0]
    assert 'tenantry_server_leaked_total{server="pg1"} 1.0' in runtime.metrics()


async def test_a_dropped_session(
    fleet: Fleet, started: Start, postgres: servers.Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """A session that is dropped without being closed is named and its connection closed, in a loop and in threads."""
    fleet.server("pg1", postgres, connections=1)
    acme, other = fleet.tenants_on("pg1", postgres, ["acme", "other"])
    runtime = await started(busy_seconds=60)

    async def drop() -> None:
        with tenant_context(acme):
            session = await tenant_session().__aenter__()
            await session.execute(WHERE)

    def drop_sync() -> None:
        with tenant_context(acme):
            session = tenant_session().__enter__()
            session.execute(WHERE)

    for dropped in (drop, lambda: asyncio.to_thread(drop_sync)):
        await dropped()
        gc.collect()
        assert await right(other)
    assert host_of(runtime).lost == 2
    named = [record.getMessage() for record in caplog.records if "was never closed" in record.getMessage()]
    assert len(named) == 2
    assert all("'acme'" in message and Path(__file__).name in message for message in named)
    assert host_of(runtime).budget.open == 1


# --- changes ------------------------------------------------------------------------------------------------------


async def test_a_rotated_login(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """While logins change, with the old one ended at once, no session fails; only the new one is used in the end."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.tenants_on("pg1", postgres, ["acme"])
    runtime = await started(PoolLimits(size=2, overflow=4))
    user = acme.places[0].location
    going, served = True, 0

    async def use(thread: bool) -> None:
        nonlocal served
        while going:
            assert await (asyncio.to_thread(right_sync, acme) if thread else right(acme))
            served += 1
            await asyncio.sleep(0)

    users = [asyncio.create_task(use(number == 0)) for number in range(4)]
    login = fleet.user_on(postgres, acme)
    await until(lambda: served > 20)
    new = fleet.rotate(acme, login)
    await until(lambda: runtime.resolver.table.current(acme) == new)
    seen = served
    await until(lambda: served > seen + 20)
    await until(lambda: all(link.place == new.places[0] for link in host_of(runtime).budget.idle))
    # and now without any time between: the password changes, and the feed tells of it later
    for number in range(3):
        login = Login(login.user, f"{number}-changed")
        change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(login.user), login.password)
        await asyncio.to_thread(postgres.run, change)
        runtime.databases.pools._close_all(
            [host_of(runtime).budget.take_out(link) for link in list(host_of(runtime).budget.idle)]
        )
        await asyncio.sleep(0.2)
        fleet.rotate(acme, login)
        await until(partial(lambda seen: served > seen + 20, served))
    going = False
    await asyncio.gather(*users)
    assert user != login.user


async def test_a_refused_login(
    fleet: Fleet, started: Start, postgres: servers.Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that stays refused is told with tenant and server, without the password; other tenants are served."""
    monkeypatch.setattr(pools, "ROTATION_SECONDS", 0.1)
    fleet.server("pg1", postgres)
    acme, other = fleet.tenants_on("pg1", postgres, ["acme", "other"])
    runtime = await started()
    wrong = fleet.rotate(acme, Login(acme.places[0].location, "wr0ng"))
    await until(lambda: runtime.resolver.table.current(acme) == wrong)
    for attempt in (right, partial(asyncio.to_thread, right_sync)):
        with pytest.raises(
            ResourceError, match=r"of 'acme': the server 'pg1' does not let it in.*tenant rotate acme"
        ) as told:
            await attempt(wrong)
        assert "wr0ng" not in str(told.value)
    assert await right(other)
    assert not host_of(runtime).breaker.is_open
    assert host_of(runtime).budget.open == 1


async def test_changes_of_a_tenant(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """A change of plan keeps the connections; a suspension closes the idle ones at once, one in use at its end."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.tenants_on("pg1", postgres, ["acme"])
    runtime = await started()
    assert await right(acme)
    new = fleet.change(acme, plan="pro")
    await until(lambda: runtime.resolver.table.current(acme) == new)
    assert len(host_of(runtime).budget.idle) == 1
    with tenant_context(acme):
        async with tenant_session() as session, tenant_session():
            fleet.change(acme, status=Status.SUSPENDED)
            await until(lambda: not runtime.resolver.table.live)
            assert (await session.execute(WHERE)).scalar_one()
    assert host_of(runtime).budget.open == 0


async def test_states_of_a_server(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """A draining server serves; a closed one refuses with a reason, without connections; an unknown one is named."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.tenants_on("pg1", postgres, ["acme"])
    lonely = fleet.place("lonely", "pg9", "lonely", Login("lonely", "x"))
    runtime = await started()
    fleet.change_server("pg1", state=ServerState.DRAINING)
    await until(lambda: runtime.resolver.table.servers["pg1"].state is ServerState.DRAINING)
    assert await right(acme)
    fleet.change_server("pg1", state=ServerState.CLOSED)
    await until(lambda: host_of(runtime).budget.open == 0)
    with pytest.raises(ServerUnavailable, match="closed for maintenance"):
        await right(acme)
    fleet.change_server("pg1", state=ServerState.OPEN)
    await until(lambda: runtime.resolver.table.servers["pg1"].state is ServerState.OPEN)
    assert await right(acme)
    with pytest.raises(ServerUnknown, match="pg9"):
        await right(lonely)


# --- users --------------------------------------------------------------------------------------------------------


async def test_accounts(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Users are kept in the tenant's database; two admins who remove each other at the same time leave one of them."""
    fleet.server("pg1", postgres)
    acme, other = fleet.tenants_on("pg1", postgres, ["acme", "other"])
    runtime = await started()
    await stays(runtime, acme, other)
    with tenant_context(acme):
        ada = await runtime.accounts.create("Ada@Example.com", "correct horse", role=Role.ADMIN)
        with pytest.raises(AccountError, match="taken"):
            await runtime.accounts.create("ada@example.com", "correct horse")
        assert await runtime.accounts.authenticate("ADA@example.com", "correct horse") == ada
        bob = await runtime.accounts.create("bob@example.com", "correct horse", role=Role.ADMIN)
        for _ in range(5):
            done = await asyncio.gather(
                runtime.accounts.disable(ada.id), runtime.accounts.set_role(bob.id, Role.USER), return_exceptions=True
            )
            assert [type(one) for one in done].count(AccountError) == 1
            await runtime.accounts.enable(ada.id)
            await runtime.accounts.set_role(bob.id, Role.ADMIN)
        with pytest.raises(AccountError, match="no such user"):
            await runtime.accounts.enable("nobody")


# --- processes and threads ----------------------------------------------------------------------------------------


async def test_threads_share_the_budget(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Threads and an event loop wait for one another's connections, and each gets its turn."""
    fleet.server("pg1", postgres, connections=2)
    tenants = fleet.tenants_on("pg1", postgres, ["acme", "beta", "gamma"])
    runtime = await started(busy_seconds=120)
    wrong: list[str] = []

    def work(number: int) -> None:
        for step in range(12):
            if not right_sync(tenants[(number + step) % 3]):
                wrong.append(tenants[(number + step) % 3].tenant.slug)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for step in range(30):
        assert await right(tenants[step % 3])
    await asyncio.to_thread(lambda: [thread.join(100) for thread in threads])
    assert not wrong
    assert host_of(runtime).budget.open <= 2
    assert host_of(runtime).budget.busy == 0


async def test_a_fork(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """A child opens connections of its own and ends without touching the parent's."""
    fleet.server("pg1", postgres)
    (acme,) = fleet.tenants_on("pg1", postgres, ["acme"])
    await started()
    pid = text("SELECT pg_backend_pid()")

    def pid_sync() -> int:
        with tenant_session() as session:
            return int(session.execute(pid).scalar_one())

    with tenant_context(acme):
        async with tenant_session() as session:
            mine = (await session.execute(pid)).scalar_one()
            ours = pid_sync()
            read_end, write_end = os.pipe()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads: the child uses none
                child = os.fork()
            if child == 0:  # the table of tenants is still there
                os.write(write_end, str(pid_sync()).encode())
                os._exit(0)
            assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
            assert int(os.read(read_end, 100)) not in (mine, ours)
            os.close(read_end)
            os.close(write_end)
            assert (await session.execute(pid)).scalar_one() == mine
        assert pid_sync() == ours


async def test_metrics(fleet: Fleet, started: Start, postgres: servers.Postgres) -> None:
    """Metrics tell the state of each server, and the twenty busiest tenants alone."""
    fleet.server("pg1", postgres, connections=7)
    tenants = fleet.tenants_on("pg1", postgres, [f"m{number}" for number in range(23)])
    runtime = await started()
    for number, environment in enumerate(tenants):
        for _ in range(2 if number < 20 else 1):
            assert await right(environment)
    lines = runtime.metrics().splitlines()
    for wanted in ("budget 7", "open 7", "busy 0", "idle 7", "waiting 0", "unavailable 0", "sessions_total 43"):
        name, value = wanted.split()
        assert f'tenantry_server_{name}{{server="pg1"}} {value}.0' in lines
    busiest = [line for line in lines if line.startswith("tenantry_tenant_sessions_total")]
    assert len(busiest) == 20
    assert all(line.endswith(" 2.0") for line in busiest)
    assert any(line.startswith('tenantry_server_connect_seconds_bucket{le="+Inf"') for line in lines)

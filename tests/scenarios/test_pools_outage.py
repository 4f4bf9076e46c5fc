"""One of three PostgreSQL servers goes away: its tenants are refused at once, everybody else is served as before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

import servers
from fleets import LIMITS, Fleet
from tenantry.context import tenant_context
from tenantry.errors import ServerUnavailable
from tenantry.model import Environment
from tenantry.runtime import Runtime, TenantMiddleware, tenant_session
from tenantry.runtime.breaker import Breaker

WHERE = text("SELECT current_database()")
NAMES = ("pg1", "pg2", "pg3")
USERS = 3  # of each server, one request after the other

pytestmark = pytest.mark.postgres


class Trio:
    """Three servers with tenants, and requests to all of them all the time."""

    def __init__(self, fleet: Fleet, running: list[servers.Postgres], tenants: int) -> None:
        self.fleet = fleet
        self.running = running
        self.tenants: dict[str, list[Environment]] = {}
        for name, server in zip(NAMES, running, strict=True):
            fleet.server(name, server, connections=20)
            slugs = [f"{name}-{number}" for number in range(tenants)]
            self.tenants[name] = fleet.tenants_on(name, server, slugs)
        self.served = dict.fromkeys(NAMES, 0)
        self.errors: dict[str, list[BaseException]] = {name: [] for name in NAMES}
        self.refused: dict[str, set[int]] = {name: set() for name in NAMES}  # which of its users were
        self._users: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self._users = [asyncio.create_task(self._use(name, start)) for name in NAMES for start in range(3)]

    async def end(self) -> None:
        for user in self._users:
            user.cancel()
        await asyncio.gather(*self._users, return_exceptions=True)

    async def _use(self, name: str, start: int) -> None:
        number = start
        while True:
            number += 1
            environment = self.tenants[name][number % len(self.tenants[name])]
            try:
                assert await database(environment) == environment.places[0].location
                self.served[name] += 1
            except ServerUnavailable as error:
                self.errors[name].append(error)
                self.refused[name].add(start)
            await asyncio.sleep(0.01)


async def database(environment: Environment) -> str:
    with tenant_context(environment):
        async with tenant_session() as session:
            return str((await session.execute(WHERE)).scalar_one())


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds; a test that waits in vain is ended by the limit."""
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.005)


def family(pid: int) -> list[int]:
    """A process and all it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def kill(server: servers.Postgres) -> None:
    """End a server with all its processes, without a word."""
    for pid in family(server.process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait()


def revive(server: servers.Postgres) -> subprocess.Popen[bytes]:
    """Start a server again that was killed, with the same data at the same port; returns when it answers."""
    home = Path(server.process.args[server.process.args.index("-D") + 1]).parent  # type: ignore[union-attr,index,arg-type]
    deadline = time.monotonic() + servers.START_SECONDS
    while True:
        process = subprocess.Popen(server.process.args, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(server.url()).close()
                return process
            time.sleep(0.02)
        assert time.monotonic() < deadline  # a process of its former life may hold its memory for a moment


@pytest.fixture
def three() -> Iterator[list[servers.Postgres]]:
    """Three servers of this test alone."""
    try:
        with servers.postgres() as one, servers.postgres() as two, servers.postgres() as three:
            yield [one, two, three]
    except servers.NoServer as error:
        pytest.skip(str(error))


@pytest.fixture
async def trio(
    three: list[servers.Postgres], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Trio, Runtime]]:
    """Three servers with two tenants each, in use."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    trio = Trio(Fleet(tmp_path), three, 2)
    runtime = trio.fleet.runtime(LIMITS)
    await runtime.start()
    runtime.install()
    trio.begin()
    await until(lambda: all(trio.served[name] > 20 for name in NAMES))
    yield trio, runtime
    await trio.end()
    await runtime.stop()


def breaker(runtime: Runtime) -> Breaker:
    return runtime.databases.pools.hosts["pg1"].breaker


async def test_a_server_is_killed(trio: tuple[Trio, Runtime]) -> None:
    """Only its own tenants are refused, with 503 and when to come back; when it is there again they are served."""
    fleet, runtime = trio
    server = fleet.running[0]
    kill(server)
    await until(lambda: breaker(runtime).is_open)
    assert await answer(runtime, fleet.tenants["pg1"][0]) == (503, b"1")
    await until(lambda: len(fleet.refused["pg1"]) == USERS)  # so none has an answer still to read
    seen = dict(fleet.served)
    await until(lambda: all(fleet.served[name] > seen[name] + 50 for name in ("pg2", "pg3")))
    assert fleet.served["pg1"] == seen["pg1"]
    process = await asyncio.to_thread(revive, server)
    try:
        await until(lambda: fleet.served["pg1"] > seen["pg1"] + 20)
        assert await answer(runtime, fleet.tenants["pg1"][0]) == (200, None)
        assert fleet.errors["pg1"]
        assert not fleet.errors["pg2"]
        assert not fleet.errors["pg3"]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


async def test_a_server_accepts_and_never_answers(trio: tuple[Trio, Runtime]) -> None:
    """Requests in flight end, in loops and in threads, new ones are refused at once, other servers' go on."""
    fleet, runtime = trio
    ready, stopped = threading.Event(), threading.Event()

    def in_thread() -> None:
        with tenant_context(fleet.tenants["pg1"][1]), tenant_session() as session:
            session.execute(WHERE)
            ready.set()
            stopped.wait()
            session.execute(WHERE)

    waiting = asyncio.create_task(asyncio.to_thread(in_thread))
    await until(ready.is_set)
    pids = family(fleet.running[0].process.pid)
    servers.freeze(*pids)
    stopped.set()
    try:
        seen = dict(fleet.served)
        with pytest.raises(ServerUnavailable):
            await waiting
        await until(lambda: breaker(runtime).is_open and len(fleet.errors["pg1"]) > 20)
        assert fleet.served["pg1"] <= seen["pg1"] + 3  # those under way when it stopped
        await until(lambda: all(fleet.served[name] > seen[name] + 50 for name in ("pg2", "pg3")))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    seen = dict(fleet.served)
    await until(lambda: fleet.served["pg1"] > seen["pg1"] + 20)
    assert not breaker(runtime).is_open
    assert not fleet.errors["pg2"]
    assert not fleet.errors["pg3"]


async def test_a_slow_statement_is_left_alone(trio: tuple[Trio, Runtime]) -> None:
    """A statement that takes longer than a server may be silent ends well where the server lives."""
    fleet, runtime = trio
    await fleet.end()
    with tenant_context(fleet.tenants["pg1"][0]):
        async with tenant_session() as session:
            await session.execute(text("SELECT pg_sleep(5)"))
            assert (await session.execute(WHERE)).scalar_one()
    host = runtime.databases.pools.hosts["pg1"]
    assert host.breaker.trips == 0
    assert host.probes > 0


async def answer(runtime: Runtime, environment: Environment) -> tuple[int, bytes | None]:
    """Status and Retry-After of a request that reads the tenant's database."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async with tenant_session() as session:
            await session.execute(WHERE)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    host = environment.hostnames[0].encode()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", host)]}
    await TenantMiddleware(application, runtime)(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]).get(b"retry-after")

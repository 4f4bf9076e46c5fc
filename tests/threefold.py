"""A platform whose tenants lie on three PostgreSQL servers, and a steady load on all of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text

import servers
from tenantry import connect, tenant_context, tenant_session
from tenantry.errors import TenantryError
from tenantry.model import Environment
from tenantry.platform import Platform
from tenantry.runtime import Runtime

NAMES = ("pg1", "pg2", "pg3")
TOML = """
[platform]
name = "Threefold"
domain = "localhost"
{servers}
[blueprints.lab.resources]
db = {{kind = "postgres", name = "lab_{{slug}}", schema = "schema/"}}
"""
SERVER = """
[servers.{name}]
kind = "postgres"
url = {{env = "{variable}"}}
connections = {connections}
"""
SCHEMA = "CREATE TABLE note (text text NOT NULL); INSERT INTO note VALUES ('here');"
ASKED = text("SELECT text FROM note")
AT_ONCE = 6
"""Requests under way at a time, for each server."""


@dataclass
class Answers:
    """What a server's tenants were answered during a while."""

    seconds: list[float] = field(default_factory=list)  # of the good answers
    errors: Counter[str] = field(default_factory=Counter)  # by code
    refused: list[float] = field(default_factory=list)  # seconds of the others

    def p99(self) -> float:
        """Milliseconds within which 99 of 100 good answers came."""
        return 1e3 * sorted(self.seconds)[int(0.99 * (len(self.seconds) - 1))]


@contextlib.contextmanager
def three() -> Iterator[dict[str, servers.Postgres]]:
    """Three servers by name."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(servers.postgres()) for name in NAMES}


@contextlib.asynccontextmanager
async def platform(root: Path, found: dict[str, servers.Postgres], tenants: int) -> AsyncIterator[Platform]:
    """A platform with so many tenants, spread over the servers."""
    (root / "schema").mkdir(parents=True)
    (root / "schema" / "0001_notes.sql").write_text(SCHEMA)
    parts = (SERVER.format(name=name, variable=f"{name.upper()}_URL", connections=20) for name in found)
    (root / "tenantry.toml").write_text(TOML.format(servers="".join(parts)))
    addresses = "".join(f"{name.upper()}_URL='{server.administrator()}'\n" for name, server in found.items())
    (root / ".env").write_text(f"TENANTRY_SECRET_KEY={secrets.token_hex(32)}\n{addresses}")
    (root / ".env").chmod(0o600)
    rows = root / "tenants.csv"
    rows.write_text("slug\n" + "".join(f"lab-{number:03}\n" for number in range(tenants)))
    async with Platform.open(root / "tenantry.toml", actor="test") as opened:
        operation = await opened.tenants.import_csv(rows)
        ended = await opened.operations.finish(operation.id)
        assert ended.operation.state == "done", ended.operation.error
        yield opened


@contextlib.asynccontextmanager
async def running(root: Path) -> AsyncIterator[Runtime]:
    """An application's runtime in this process."""
    runtime = connect(root / "tenantry.toml")
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()


def by_server(runtime: Runtime) -> dict[str, list[Environment]]:
    """The tenants of each server."""
    found: dict[str, list[Environment]] = {}
    for environment in runtime.resolver.table.environments():
        found.setdefault(str(environment.places[0].server), []).append(environment)
    return found


async def ask(environment: Environment, answers: Answers) -> None:
    """One request of a tenant."""
    began = time.perf_counter()
    try:
        with tenant_context(environment):
            async with tenant_session() as session:
                assert (await session.execute(ASKED)).scalar_one() == "here"
        answers.seconds.append(time.perf_counter() - began)
    except TenantryError as error:
        answers.errors[error.code] += 1
        answers.refused.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)  # as one who was refused does not come back at once


async def load(runtime: Runtime, seconds: float) -> dict[str, Answers]:
    """A steady load on the tenants of all servers for a while: what each server's were answered."""
    until = time.monotonic() + seconds
    answers = {name: Answers() for name in by_server(runtime)}

    async def visit(name: str, environments: list[Environment], first: int) -> None:
        turn = first
        while time.monotonic() < until:
            await ask(environments[turn % len(environments)], answers[name])
            turn += AT_ONCE
            await asyncio.sleep(0.005)

    await asyncio.gather(
        *(
            visit(name, environments, first)
            for name, environments in by_server(runtime).items()
            for first in range(AT_ONCE)
        )
    )
    return answers


async def back(environment: Environment, limit: float = 60.0) -> float:
    """Seconds until a tenant is answered again."""
    began = time.monotonic()
    while True:
        answers = Answers()
        await ask(environment, answers)
        if answers.seconds:
            return time.monotonic() - began
        assert time.monotonic() - began < limit, answers.errors


@contextlib.contextmanager
def frozen(server: servers.Postgres) -> Iterator[None]:
    """A server that accepts connections and never answers: all its processes are stopped."""
    stopped = [server.process.pid, *_children(server.process.pid)]
    servers.freeze(*stopped)
    try:
        yield
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]

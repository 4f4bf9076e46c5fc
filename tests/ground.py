"""A platform to stand on in tests: written to a directory, opened in this process, with real worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from programs import Program
from tenantry.platform import Platform
from tenantry.platform.operations import OperationDetails
from tenantry.registry import journal, tables
from tenantry.registry.journal import Operation

TENANTRY = Path(sys.executable).with_name("tenantry")

TOML = """
[platform]
name = "Ground"
domain = "localhost"
data = "var"

[blueprints.site]
title = "A site"

[blueprints.site.resources]
db = {{kind = "sqlite", schema = "schema/"}}
media = {{kind = "directory"}}
config = {{kind = "rendered", template = "templates/env.json.j2", target = "{root}/rendered/{{slug}}/env.json"}}

[blueprints.site.hostnames]
production = "{{slug}}.{{domain}}"

[blueprints.site.values]
site_name = "{{name}}"
share = 1
smtp_password = {{default = "", secret = true}}

[plans.free]
[plans.pro]
"""

TEMPLATE = (
    '{"slug": {{ slug | json }}, "host": {{ hostname | json }}, "name": {{ values.site_name | json }}, '
    '"share": {{ 100 // values.share }}, "smtp": {{ values.smtp_password | json }}}\n'
)
FIRST = "CREATE TABLE page (id INTEGER PRIMARY KEY, title TEXT NOT NULL);\n-- down\nDROP TABLE page;\n"
SECOND = "ALTER TABLE page ADD COLUMN body TEXT NOT NULL DEFAULT '';\n-- down\nALTER TABLE page DROP COLUMN body;\n"

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""A moment that is over."""

PATIENCE = 180.0
"""Seconds until a test gives up on something that never comes; nothing is measured by it."""


class Ground:
    """One platform's directory."""

    def __init__(self, root: Path, toml: str = TOML) -> None:
        self.root = root
        self.config = root / "tenantry.toml"
        self.data = root / "var"
        self.key = secrets.token_hex(32)
        for folder in ("schema", "templates", "rendered"):
            (root / folder).mkdir(parents=True)
        self.config.write_text(toml.format(root=root))
        (root / ".env").write_text(f"TENANTRY_SECRET_KEY={self.key}\n")
        (root / "templates" / "env.json.j2").write_text(TEMPLATE)
        self.migration("0001_pages.sql", FIRST)

    def migration(self, name: str, text: str) -> Path:
        """Write a migration file."""
        path = self.root / "schema" / name
        path.write_text(text)
        return path

    def open(self) -> contextlib.AbstractAsyncContextManager[Platform]:
        """The platform, opened in this process."""
        return Platform.open(self.config, actor="test")

    def rendered(self, slug: str) -> Path:
        """Where the blueprint's rendered file of a tenant lies."""
        return self.root / "rendered" / slug / "env.json"

    def database(self, slug: str) -> Path:
        """The database file of a tenant that was made with this slug."""
        return next(self.data.glob(f"tenants/{slug}-????????/production/db.sqlite"))

    def sql(self, slug: str, statement: str) -> list[Any]:
        """Run one statement on a tenant's database, past Tenantry."""
        return _sql(self.database(slug), statement)

    def control(self, statement: str) -> list[Any]:
        """Run one statement on the control database, past Tenantry."""
        return _sql(self.data / "control.sqlite", statement)

    # --- processes ---

    def command(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command of this platform."""
        return Program(
            [str(TENANTRY), *arguments, "--config", str(self.config)],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def environment(self) -> dict[str, str]:
        """The variables a process of this platform gets: none of the surrounding ones that could set it."""
        return {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}

    @contextlib.contextmanager
    def worker(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A `tenantry worker`, ended at the end."""
        log = (self.root / f"worker-{secrets.token_hex(3)}.log").open("w")
        process = Program(
            [str(TENANTRY), "worker", *arguments, "--config", str(self.config)],
            env=self.environment(),
            stdout=log,
            stderr=log,
            text=True,
        )
        try:
            yield process
        finally:
            end(process)
            log.close()


def _sql(path: Path, statement: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as connection, connection:
        return connection.execute(statement).fetchall()


def end(process: subprocess.Popen[str]) -> None:
    """End a process, a stopped one too."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


async def until(
    what: Callable[[], Awaitable[Any]], why: str = "what a test waits for", patience: float = PATIENCE
) -> Any:
    """Ask again and again until the answer is true."""
    deadline = time.monotonic() + patience
    while True:
        answer = await what()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{why} never came"
        await asyncio.sleep(0.01)


async def pids(platform: Platform) -> list[int]:
    """The processes of the living workers."""
    async with platform.registry.read() as tx:
        return [w.pid for w in await journal.workers(tx, platform.config.worker.dead_after)]


async def lives(platform: Platform, process: subprocess.Popen[str]) -> None:
    """Wait until a worker process shows signs of life."""

    async def there() -> bool:
        assert process.poll() is None, f"the worker ended with {process.returncode}"
        return process.pid in await pids(platform)

    await until(there, "a worker's sign of life")


async def ended(platform: Platform, operation: Operation) -> OperationDetails:
    """Wait, without working, until an operation is over."""

    async def over() -> OperationDetails | None:
        details = await platform.operations.show(operation.id)
        return None if details.operation.state.live else details

    found: OperationDetails = await until(over, f"the end of {operation.verb} {operation.tenant_slug}")
    return found


@contextlib.asynccontextmanager
async def working(platform: Platform, concurrency: int | None = None) -> AsyncIterator[None]:
    """A worker in this process."""
    stop = asyncio.Event()
    work = asyncio.create_task(platform.work(stop, concurrency))
    try:
        yield
    finally:
        stop.set()
        await work


async def rows(platform: Platform, table: str) -> list[Mapping[str, Any]]:
    """All rows of one of the registry's tables."""
    async with platform.registry.read() as tx:
        return [row._mapping for row in await tx.all(getattr(tables, table).select())]


async def faults(ground: Ground, platform: Platform) -> list[str]:
    """What is not as it must be when nothing is under way: files nobody knows, rows without their tenant, drift."""
    found = [f"temporary file {path}" for path in ground.root.rglob(".tenantry-*")]
    found += await faults_of(platform)
    details = [await platform.tenants.show(row.slug) for row in await platform.tenants.list(limit=10_000)]
    return found + _files(ground, platform, details)


async def faults_of(platform: Platform) -> list[str]:
    """What is not as it must be in the registry and in the tenants when nothing is under way."""
    found = [f"lock of {row['tenant_id']}" for row in await rows(platform, "tenant_lock")]
    found += [
        f"{row['verb']} {row['tenant_slug']} is {row['state']}"
        for row in await rows(platform, "operation")
        if row["state"] in ("queued", "running", "cancelling")
    ]
    found += await _rows_without_tenant(platform)
    details = [await platform.tenants.show(row.slug) for row in await platform.tenants.list(limit=10_000)]
    found += [f"{d.row.slug} is {d.row.status}" for d in details if d.row.status not in ("active", "suspended")]
    for one in details:
        found += [f"{one.row.slug}: {f.what}" for f in await platform.tenants.check(one.row.slug) if not f.ok]
    await platform.audit.verify()
    return found


async def _rows_without_tenant(platform: Platform) -> list[str]:
    tenants = {row["id"] for row in await rows(platform, "tenant")}
    environments = {row["id"] for row in await rows(platform, "environment") if row["tenant_id"] in tenants}
    found = []
    for table in ("environment", "secret", "data_key", "former_slug"):
        found += [f"{table} of {r['tenant_id']}" for r in await rows(platform, table) if r["tenant_id"] not in tenants]
    for table in ("hostname", "resource"):
        known = await rows(platform, table)
        found += [f"{table} of {r['environment_id']}" for r in known if r["environment_id"] not in environments]
    return found


def _files(ground: Ground, platform: Platform, details: list[Any]) -> list[str]:
    homes = {str(Path(environment.home).parent) for one in details for environment in one.environments}
    found = [f"orphan {path}" for path in ground.data.glob("tenants/*") if f"tenants/{path.name}" not in homes]
    found += [f"no {home}" for home in homes if not (ground.data / home).is_dir()]
    slugs = {one.row.slug for one in details}
    found += [f"orphan {path}" for path in (ground.root / "rendered").iterdir() if path.name not in slugs]
    current = {
        resource._template_name
        for resources in platform.tools.resources.values()
        for resource in resources
        if resource.kind == "sqlite"
    }
    found += [f"stray template {path.name}" for path in ground.data.glob("templates/*") if path.name not in current]
    known = {"control.sqlite", "control-engine.sqlite", "tenants", "templates"}
    return found + [
        f"orphan {path}"
        for path in ground.data.iterdir()
        if path.name.removesuffix("-wal").removesuffix("-shm").removesuffix("-journal") not in known
    ]

"""Workers that stop, end, die or wait, beside others that live."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import ground as g
from ground import Ground
from kills import halting
from tenantry.platform import Platform


@pytest.fixture
async def platform(ground: Ground) -> Any:
    """The platform, opened."""
    async with ground.open() as opened:
        yield opened


async def import_many(ground: Ground, platform: Platform, number: int) -> None:
    """Make tenants t000, t001, …"""
    path = ground.root / "names.csv"
    path.write_text("\n".join(["slug", *(f"t{n:03}" for n in range(number))]))
    details = await platform.operations.finish((await platform.tenants.import_csv(path)).id)
    assert details.operation.state == "done"


async def running(platform: Platform, operation_id: str, done: int = 0) -> None:
    """Wait until an operation is under way and this much of it is done."""

    async def there() -> bool:
        operation = (await platform.operations.show(operation_id)).operation
        assert operation.state.live, f"it was over before it could be interrupted: {operation.state}"
        return operation.state == "running" and operation.done >= done

    await g.until(there, "a running operation")


def slow(ground: Ground, seconds: float) -> None:
    """A second migration that takes its time on each tenant."""
    ground.migration(
        "0002_slow.py",
        f"import time\n\n\ndef upgrade(connection):\n    time.sleep({seconds})\n"
        "    connection.exec_driver_sql('ALTER TABLE page ADD COLUMN body TEXT')\n",
    )


async def migrated(platform: Platform, operation_id: str, number: int) -> None:
    """The end of a migration in which each tenant was migrated, and said so, exactly once."""
    details = await platform.operations.finish(operation_id)
    assert (details.operation.state, details.operation.done) == ("done", number), details.operation.error
    told = Counter(e.subject for e in await platform.audit.list(limit=1000) if e.action == "tenant.migrate")
    assert set(told.values()) == {1}
    assert len(told) == number


async def freeze(ground: Ground, worker: subprocess.Popen[str]) -> None:
    """Stop a worker where it holds no lock: frozen while it writes, it holds up every other writer on SQLite.

    Nor one of a tenant's file, whose migration would then be given up after some tries.
    """
    files = sorted((ground.root / "var").glob("control*.sqlite"))
    assert len(files) == 2
    files += (ground.root / "var" / "tenants").rglob("*.sqlite")

    async def frozen() -> bool:
        worker.send_signal(signal.SIGSTOP)
        if all([await asyncio.to_thread(writable, file) for file in files]):
            return True
        worker.send_signal(signal.SIGCONT)
        return False

    await g.until(frozen)


def writable(file: Path) -> bool:
    """Whether a writer gets its turn within a moment."""
    with contextlib.closing(sqlite3.connect(file, timeout=0.2, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


async def test_stopped_worker_changes_nothing_after_another_took_over(ground: Ground, platform: Platform) -> None:
    """A worker frozen in a migration is fenced out: another ends it, and the first lives on as a worker."""
    await import_many(ground, platform, 60)
    slow(ground, 0.05)
    with ground.worker() as first:
        await g.lives(platform, first)
        operation = await platform.migrations.run(parallel=1)
        await running(platform, operation.id, done=1)
        await freeze(ground, first)
        with ground.worker() as second:
            await g.lives(platform, second)
            await migrated(platform, operation.id, 60)
            before = (await platform.operations.items(operation.id), len(await platform.audit.list(limit=1000)))
            first.send_signal(signal.SIGCONT)
            await g.lives(platform, first)
            await asyncio.sleep(1)
            assert (await platform.operations.items(operation.id), len(await platform.audit.list(limit=1000))) == before
        create = await platform.tenants.create("later")
        assert (await g.ended(platform, create)).operation.state == "done"
        assert first.poll() is None
    assert await g.faults(ground, platform) == []


async def test_two_workers_share_the_work(ground: Ground, platform: Platform) -> None:
    """Of 40 operations both workers do some, and none is done twice."""
    with ground.worker() as first, ground.worker() as second:
        await g.lives(platform, first)
        await g.lives(platform, second)
        operations = [await platform.tenants.create(f"t{n:02}") for n in range(40)]
        for operation in operations:
            details = await g.ended(platform, operation)
            assert details.operation.state == "done"
            assert details.operation.done == details.operation.total
        owners = Counter(row["worker_id"] for row in await g.rows(platform, "operation"))
    assert len(owners) == 2, owners
    made = Counter(e.subject for e in await platform.audit.list(limit=1000) if e.action == "tenant.create")
    assert made == Counter({f"t{n:02}": 1 for n in range(40)})
    assert await g.faults(ground, platform) == []


async def test_asked_to_end_a_worker_leaves_its_operation_to_another(ground: Ground, platform: Platform) -> None:
    """SIGTERM ends a worker with the batch it is at, long before its operation; another goes on behind that batch."""
    await import_many(ground, platform, 120)
    slow(ground, 0.05)
    with ground.worker() as first:
        await g.lives(platform, first)
        operation = await platform.migrations.run(parallel=1)
        await running(platform, operation.id, done=1)
        first.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait, g.PATIENCE) == 0
    left = (await platform.operations.show(operation.id)).operation
    assert left.state == "running"
    assert 0 < left.done < 120
    assert await g.pids(platform) == []
    with ground.worker():
        assert (await g.ended(platform, operation)).operation.state == "done"
    await migrated(platform, operation.id, 120)
    assert await g.faults(ground, platform) == []


async def test_killed_command(ground: Ground, platform: Platform) -> None:
    """A `tenant create` killed in the middle, with no worker about, is ended by the next command that follows it."""
    template = ground.root / "templates" / "env.json.j2"
    template.write_text("{% for i in range(90000) %}{% for j in range(90) %}{% endfor %}{% endfor %}")
    command = ground.command("tenant", "create", "acme")

    async def submitted() -> Any:
        return next(iter(await platform.operations.list()), None)

    operation = await g.until(submitted, "the command's operation")
    await running(platform, operation.id, done=2)
    command.kill()
    command.communicate()
    template.write_text(g.TEMPLATE)
    watch = ground.command("operation", "watch", operation.id)
    text = (await asyncio.to_thread(watch.communicate, None, g.PATIENCE))[0]
    assert watch.returncode == 0, text
    assert (await platform.operations.show(operation.id)).operation.state == "done"
    assert await g.faults(ground, platform) == []


async def test_command_outlives_its_worker(ground: Ground, platform: Platform) -> None:
    """A command that waits for a worker ends the operation itself when that worker, the only one, is killed."""
    await import_many(ground, platform, 60)
    slow(ground, 0.05)
    with ground.worker() as worker:
        await g.lives(platform, worker)
        command = ground.command("migrate", "run")

        async def submitted() -> Any:
            return next(iter(await platform.operations.list(verb="migrate")), None)

        operation = await g.until(submitted, "the command's operation")
        await running(platform, operation.id, done=1)
        worker.kill()
        text = (await asyncio.to_thread(command.communicate, None, g.PATIENCE))[0]
        assert command.returncode == 0, text
    await migrated(platform, operation.id, 60)
    assert await g.faults(ground, platform) == []


async def test_locked_control_database(ground: Ground, platform: Platform) -> None:
    """While a foreign program holds the control database, operations wait; then they go on, with the same worker."""
    with ground.worker() as worker:
        await g.lives(platform, worker)
        operations = [await platform.tenants.create(f"t{n}") for n in range(5)]
        await running(platform, operations[0].id)
        foreign = sqlite3.connect(ground.data / "control.sqlite", isolation_level=None, timeout=g.PATIENCE)
        with contextlib.closing(foreign):
            foreign.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(platform.config.worker.dead_after * 2)
            foreign.execute("ROLLBACK")
        for operation in operations:
            details = await g.ended(platform, operation)
            assert details.operation.state == "done", details.operation.error
        assert worker.poll() is None
    assert await g.faults(ground, platform) == []


async def test_workers_begin_at_once(ground: Ground, platform: Platform) -> None:
    """Of several that are the first ones here, and build the engine's tables at the same time, all live."""
    with contextlib.ExitStack() as together:
        for process in [together.enter_context(ground.worker()) for _ in range(4)]:
            await g.lives(platform, process)


async def test_dead_workers_are_buried(ground: Ground, platform: Platform) -> None:
    """The row of a killed worker is gone after the burial time, without any worker having to start."""
    ground.config.write_text(ground.config.read_text() + '\n[worker]\nheartbeat = "100ms"\ndead_after = "500ms"\n')
    with ground.worker() as first, ground.worker() as second:
        await g.lives(platform, first)
        await g.lives(platform, second)
        first.kill()

        async def buried() -> bool:
            return [row["pid"] for row in await g.rows(platform, "worker")] == [second.pid]

        await g.until(buried, "the burial")


async def test_killed_while_the_golden_template_is_made(ground: Ground, platform: Platform) -> None:
    """A worker killed over a half-made golden template leaves no piece of it."""
    ground.migration("0001_pages.sql", g.FIRST)
    operation = await platform.tenants.create("acme")
    plan = {"operation": operation.id, "where": "half a template"}
    killer = halting(ground, plan)
    try:
        assert json.loads(await asyncio.to_thread(killer.stdout.readline))["operation"] == operation.id
        assert list(ground.data.glob("templates/.tenantry-*"))
        with ground.worker() as fresh:
            await g.lives(platform, fresh)
            os.killpg(killer.pid, signal.SIGKILL)
            killer.wait()
            assert (await g.ended(platform, operation)).operation.state == "done"
            deadline = time.monotonic() + g.PATIENCE
            while list(ground.data.glob("templates/.tenantry-*")):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(killer.pid, signal.SIGKILL)
        killer.wait()
        killer.stdout.close()
    assert await g.faults(ground, platform) == []

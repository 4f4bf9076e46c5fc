"""The durable engine: DBOS keeps which steps of an operation are done, and goes on behind them after a crash.

DBOS is a global of the process, so a process runs one `Engine` at a time. Each process is an executor of its own, all
share one application version, and the workflow of an operation carries the operation's id and attempt. Only ids and
outcomes reach the engine's tables, as JSON; secrets never do.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, LiteralString, Protocol

from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos._error import DBOSNonExistentWorkflowError
from dbos._serialization import DBOSPortableJSONSerializer
from psycopg import AsyncConnection as ServerConnection
from sqlalchemy.engine import URL

from tenantry.errors import RegistryUnavailable
from tenantry.registry.database import ENGINE_SCHEMA, Database, engine_file, keep_a_log

APPLICATION: Final = "tenantry"
VERSION: Final = "1"
"""Fixed: DBOS leaves the work of another version pending for ever."""

BUSY_SECONDS: Final = 30
"""How long the engine waits for another writer, on SQLite."""

LISTENER_POLL: Final = 0.05
"""Seconds the engine sleeps between two looks at messages, which nobody sends here; `stop` waits that long for it."""

NOTES: Final = 1000
"""Notes of the engine that are looked through at a time."""

CONNECTIONS: Final = 5
"""Connections the engine keeps to a PostgreSQL server, at most; steps that find none wait for one."""

LAUNCH_LOCK: Final = 0x7E4A4E55
"""PostgreSQL advisory lock of the worker that launches its engine, which may have to build its tables."""

LAUNCH_POLL: Final = 0.05
LAUNCH_SECONDS: Final = 120
"""How long a worker waits for others that launch theirs."""

Outcome = dict[str, Any]
"""What a step tells the engine: JSON, {} when it went well."""


class Durable(Protocol):
    """Runs a call once, whatever happens: after a crash its recorded outcome is given instead."""

    async def __call__(self, name: str, call: Callable[[], Awaitable[Outcome]]) -> Outcome: ...


Drive = Callable[[str, Durable], Awaitable[None]]
"""Runs a whole operation, every effect through `Durable`."""

_drive: Drive | None = None
_home: asyncio.AbstractEventLoop | None = None


async def _durable(name: str, call: Callable[[], Awaitable[Outcome]]) -> Outcome:
    outcome: Outcome = await DBOS.run_step_async({"name": name}, _unrecorded, call)
    return outcome


async def _unrecorded(call: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Let no exception become a step's outcome: DBOS would raise it again, at every worker, for ever."""
    try:
        return await call()
    except Exception as error:
        raise asyncio.CancelledError from error


@DBOS.workflow(name="operation")
async def _operation(operation_id: str, attempt: int) -> None:
    """Drive on the worker's own event loop: DBOS runs recovered workflows on a loop of its own."""
    assert _drive is not None
    assert _home is not None
    if asyncio.get_running_loop() is _home:
        await _drive(operation_id, _durable)
    else:  # the task there begins in a copy of this context, by which DBOS knows its workflow
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_driven(_drive, operation_id), _home))


async def _driven(drive: Drive, operation_id: str) -> None:
    await drive(operation_id, _durable)


def _workflow_id(operation_id: str, attempt: int) -> str:
    return f"{operation_id}:{attempt}"


class Engine:
    """DBOS, launched for one worker process."""

    def __init__(self, database: Database, executor_id: str, drive: Drive) -> None:
        self._database = database
        self._url = _engine_url(database.url)
        self._file = engine_file(str(database.url.database))  # on SQLite
        self._executor_id = executor_id
        self._drive = drive

    async def start(self) -> None:
        """Launch, which takes some 50 ms, in a thread. Raises `RegistryUnavailable` where it is never its turn.

        On PostgreSQL the first launch builds indexes that wait for every open transaction, of this process too: so
        its event loop must go on meanwhile.
        """
        global _drive, _home
        _drive, _home = self._drive, asyncio.get_running_loop()
        config: DBOSConfig = {
            "name": APPLICATION,
            "application_version": VERSION,
            "executor_id": self._executor_id,
            "system_database_url": self._url,
            "dbos_system_schema": ENGINE_SCHEMA,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "ERROR",
            "enable_otlp": False,
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": LISTENER_POLL,
        }
        if self._database.is_sqlite:
            config["db_engine_kwargs"] = {"connect_args": {"timeout": BUSY_SECONDS}}
        else:
            arguments = {**self._database.arguments, "application_name": "tenantry engine"}
            config["db_engine_kwargs"] = {"connect_args": arguments}
            config["sys_db_pool_size"] = CONNECTIONS
        async with self._turn():
            if self._database.is_sqlite:
                await asyncio.to_thread(_keep_a_log, self._file)
            DBOS(config=config)
            logging.getLogger("dbos").setLevel(logging.CRITICAL)
            await asyncio.to_thread(DBOS.launch)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Launch one engine at a time. Raises `RegistryUnavailable` when it takes too long.

        The lock is tried for, never waited for, and on a server outside of any transaction: an open one holds up the
        building of indexes, and whoever builds them holds the lock. On SQLite the directory is locked, not the file:
        closing a descriptor of that would end SQLite's own locks.
        """
        if self._database.is_sqlite:
            folder = os.open(Path(self._file).parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                await _patiently(lambda: _locked(folder))
                yield
            finally:
                os.close(folder)
            return
        async with self._database.aside("tenantry launch") as connection:
            await _patiently(lambda: _asked(connection, "SELECT pg_try_advisory_lock(%s)"))
            yield
            await _asked(connection, "SELECT pg_advisory_unlock(%s)")  # as it ends, too, except behind a pooler

    async def stop(self) -> None:
        """End; what is under way stays pending for another worker."""
        global _drive, _home
        # DBOS made its own thread pool the loop's default and shuts it down: others on this loop go on without a gap.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="tenantry"))
        await asyncio.to_thread(DBOS.destroy)
        _drive = _home = None

    async def run(self, operation_id: str, attempt: int) -> None:
        """Begin an operation in this process."""
        with SetWorkflowID(_workflow_id(operation_id, attempt)):
            await DBOS.start_workflow_async(_operation, operation_id, attempt)

    async def resume(self, operation_id: str, attempt: int) -> None:
        """Go on with an operation that another process left; one of the live processes takes it up."""
        try:
            await DBOS.resume_workflow_async(_workflow_id(operation_id, attempt))
        except DBOSNonExistentWorkflowError:
            await self.run(operation_id, attempt)

    async def notes(self) -> dict[str, str]:
        """The oldest notes that are kept: workflow id → operation id."""
        found = await DBOS.list_workflows_async(load_input=False, load_output=False, limit=NOTES)
        return {workflow.workflow_id: workflow.workflow_id.partition(":")[0] for workflow in found}

    async def forget(self, workflow_ids: list[str]) -> None:
        """Clear notes of operations that are over; the registry keeps the record."""
        await DBOS.delete_workflows_async(workflow_ids)


async def _patiently(try_it: Callable[[], Awaitable[bool]]) -> None:
    until = time.monotonic() + LAUNCH_SECONDS
    while not await try_it():
        if time.monotonic() > until:
            raise RegistryUnavailable(reason="another worker does not end launching its engine")
        await asyncio.sleep(LAUNCH_POLL)


async def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _asked(connection: ServerConnection[Any], query: LiteralString) -> bool:
    cursor = await connection.execute(query, [LAUNCH_LOCK])
    return await cursor.fetchone() == (True,)


def _keep_a_log(file: str) -> None:
    """Put the engine's file into WAL mode, which it keeps: its many readers then hold up no writer."""
    with contextlib.closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
        keep_a_log(connection)


def _engine_url(parsed: URL) -> str:
    """The engine shares a PostgreSQL control database in a schema of its own; on SQLite it has a file beside it."""
    if parsed.get_backend_name() != "sqlite":
        return parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    return f"sqlite:///{engine_file(str(parsed.database))}"

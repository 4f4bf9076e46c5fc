"""The control database: its engine, and transactions that write the audit log and the change feed as they end."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    UpdateBase,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.engine import URL, CursorResult, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from tenantry.context import current_actor
from tenantry.errors import RegistryUnavailable
from tenantry.registry import tables
from tenantry.registry.audit import GENESIS, Entry, canonical, chain
from tenantry.registry.vault import Vault

if TYPE_CHECKING:  # a control database on SQLite needs no driver of a server, which takes its time to import
    from psycopg import AsyncConnection as ServerConnection

    from tenantry.registry.listener import Listener

T = TypeVar("T")

TENANTS: Final = "tenantry_tenants"
"""The channel on which a server tells of changed tenants and servers."""

WORK: Final = "tenantry_work"
"""The channel on which it tells of operations."""

BUSY_SECONDS: Final = 30
"""How long a writer waits for another one."""

STUCK_SECONDS: Final = 300
"""After how long PostgreSQL ends a writer that is silent, so that a frozen process does not hold up the platform."""

WRITER_LOCK: Final = 0x7E4A4E54
"""PostgreSQL advisory lock that every writer holds until it commits: one at a time, as on SQLite."""


KEPT: Final = 3
CONNECTIONS: Final = 10
"""Connections that one process keeps to a server, and those it has at most when it is busy."""

LIMITS: Final[Mapping[str, Any]] = {
    "connect_timeout": 10,  # seconds; the next four tell of a host that is gone within about half a minute
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}
"""Parameters of libpq, unless the URL has others."""

IN_LIMIT: Final = 500
"""Values in one IN (…): far below the limits on variables of SQLite and PostgreSQL."""

NAME: Final = 200
"""Characters of an actor's or a subject's name that are kept."""


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


ENGINE_SCHEMA: Final = "tenantry_engine"
"""Where the operations' engine has its tables on a server."""

WORK_TABLES: Final = frozenset({tables.operation, tables.operation_step, tables.operation_item})
"""Whoever waits for work, or follows an operation, is told of what is written here."""


def head_content(audit_seq: int, audit_hash: str) -> str:
    """What the head's seal covers."""
    return f"{audit_seq}:{audit_hash}"


def file_of(url: str) -> Path | None:
    """The file an SQLite control database lies in; None for a server's."""
    parsed = make_url(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def engine_file(control: str) -> str:
    """The file beside an SQLite control database in which the operations' engine has its tables."""
    return f"{control.removesuffix('.sqlite')}-engine.sqlite"


class Transaction:
    """One transaction on the control database. Entries noted in it are written, numbered and chained, as it commits."""

    def __init__(self, connection: AsyncConnection, vault: Vault, actor: str) -> None:
        self._connection = connection
        self.vault = vault
        self.actor = actor
        self._entries: list[tuple[str, str, Mapping[str, Any]]] = []
        self._changed: dict[str, None] = {}
        self._worked = False  # whether something was written that workers and followers of operations wait for

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run one statement, or one with many sets of parameters."""
        self._worked |= isinstance(statement, UpdateBase) and statement.table in WORK_TABLES
        result: CursorResult[Any] = await self._connection.execute(statement, parameters)
        return result

    async def sync(self, work: Callable[[Connection], T]) -> T:
        """Run what wants a synchronous connection, inside this transaction."""
        return await self._connection.run_sync(work)

    async def begin_head(self) -> None:
        """Begin the audit log of a new registry."""
        seal = self.vault.sign_head(head_content(0, GENESIS))
        row = {"id": 1, "audit_seq": 0, "audit_hash": GENESIS, "change_seq": 0, "seal": seal}
        await self.insert(tables.head, [row])

    def day(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """The day in UTC of a column of moments."""
        if self._connection.dialect.name == "postgresql":
            return func.date(func.timezone("UTC", column))
        return func.date(column)

    async def all(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Sequence[Any]:
        """All rows."""
        return (await self._connection.execute(statement, parameters)).all()

    async def first(self, statement: Executable) -> Any:
        """The first row, or None."""
        return (await self._connection.execute(statement)).first()

    async def scalar(self, statement: Executable) -> Any:
        """The first column of the first row, or None."""
        return (await self._connection.execute(statement)).scalar()

    async def batches(self, statement: Executable, size: int) -> AsyncIterator[Sequence[Any]]:
        """All rows, so many at a time: never more of them in memory."""
        result = await self._connection.stream(statement, execution_options={"yield_per": size})
        async for rows in result.partitions():
            yield rows

    async def insert(self, table: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows; none is fine."""
        if rows:
            await self.execute(insert(table), rows)

    def audit(self, action: str, subject: str, **detail: Any) -> None:
        """Note an entry for the audit log."""
        self._entries.append((action, subject, detail))

    def changed(self, *tenant_ids: str) -> None:
        """Tell all processes that these tenants are no longer what they know."""
        self._changed.update(dict.fromkeys(tenant_ids))

    async def finish(self) -> None:
        """Write what was noted, and let a server tell those who wait. Called as the last thing before the commit."""
        if self._entries or self._changed:
            await self._write_noted()
        news = {TENANTS: bool(self._changed), WORK: self._worked}
        if any(news.values()) and self._connection.dialect.name == "postgresql":
            # NOTIFY makes committing writers of a whole server take turns; here they do so in any case.
            told = [func.pg_notify(channel, "") for channel, any_news in news.items() if any_news]
            await self._connection.execute(select(*told))

    async def _write_noted(self) -> None:
        head = (await self._connection.execute(select(tables.head))).one()
        moment = now()
        entries = self._chained(head.audit_seq, head.audit_hash, moment)
        changes = [
            {"seq": head.change_seq + offset, "tenant_id": tenant_id}
            for offset, tenant_id in enumerate(self._changed, start=1)
        ]
        await self.insert(tables.audit, entries)
        for some in chunks(list(self._changed), IN_LIMIT):
            await self._connection.execute(delete(tables.change).where(tables.change.c.tenant_id.in_(some)))
        await self.insert(tables.change, changes)
        seq, digest = (entries[-1]["seq"], entries[-1]["hash"]) if entries else (head.audit_seq, head.audit_hash)
        await self._connection.execute(
            update(tables.head).values(
                audit_seq=seq,
                audit_hash=digest,
                change_seq=head.change_seq + len(changes),
                seal=self.vault.sign_head(head_content(seq, digest)),
            )
        )

    def _chained(self, seq: int, previous: str, moment: datetime) -> list[dict[str, Any]]:
        at = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        rows = []
        for action, subject, detail in self._entries:
            seq += 1
            entry = Entry(seq, at, plain(self.actor, NAME), action, plain(subject, NAME), plain(canonical(detail)))
            previous = chain(previous, entry)
            rows.append(asdict(replace(entry, hash=previous)))
        return rows


class Database:
    """Opens transactions on the control database, whichever it is."""

    def __init__(self, url: str, vault: Vault, *, actor: str = "system", create: bool = True) -> None:
        self.url = make_url(url)
        self.vault = vault
        self.actor = actor
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url, create) if self.is_sqlite else _server_engine(self.url, self.arguments)
        self.listener = None if self.is_sqlite else self._new_listener()

    @property
    def where(self) -> str:
        """The address, without the password."""
        return self.url.render_as_string(hide_password=True)

    @contextlib.asynccontextmanager
    async def write(self, actor: str | None = None) -> AsyncIterator[Transaction]:
        """A transaction that may change things: the only writer from its first moment, so what it read stays true.

        Raises `RegistryUnavailable` when another writer does not end.
        """
        async with self._connection() as connection:
            await connection.execution_options(tenantry_write=True)
            async with connection.begin():
                if not self.is_sqlite:
                    limits = {"busy": f"{BUSY_SECONDS}s", "stuck": f"{STUCK_SECONDS}s", "lock": WRITER_LOCK}
                    await connection.execute(_BECOME_WRITER, limits)
                transaction = Transaction(connection, self.vault, actor or current_actor() or self.actor)
                yield transaction
                await transaction.finish()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A transaction that sees one moment of the database and changes nothing."""
        async with self._connection() as connection:
            if not self.is_sqlite:
                await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with connection.begin():
                yield Transaction(connection, self.vault, self.actor)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        try:
            connection = await self._opened()
        except (OperationalError, PoolTimeout, OSError) as error:
            raise RegistryUnavailable(reason=_reason(error)) from error
        try:
            yield connection
        except DBAPIError as error:
            if error.connection_invalidated or _is_unavailable(error):
                raise RegistryUnavailable(reason=_reason(error)) from error
            raise
        finally:
            # A cancelled task must still give its connection back before it goes: the pool may be closed next.
            closing = asyncio.ensure_future(connection.close())
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError:
                await closing
                raise

    async def _opened(self) -> AsyncConnection:
        """A connection; on SQLite none is left half made, and so open for ever, where the task is cancelled."""
        if not self.is_sqlite:
            return await self.engine.connect()
        opening = asyncio.create_task(self.engine.connect().start())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await (await opening).close()
            raise

    async def scrub(self) -> None:
        """Let removed rows go from the disk too: SQLite keeps them in its file until its log is worked into it.

        Waits for readers up to `BUSY_SECONDS`. On a server, its vacuum does this.
        """
        if self.is_sqlite:
            await asyncio.to_thread(_checkpoint, str(self.url.database))

    def _new_listener(self) -> Listener:
        from tenantry.registry.listener import Listener

        return Listener(lambda: self.aside("tenantry feed"))

    @property
    def arguments(self) -> dict[str, Any]:
        """What every connection to the server is made with, beside its URL."""
        # A statement that one connection prepared is not there on the next one behind a pooler of transactions.
        given = {name: value for name, value in LIMITS.items() if name not in self.url.query}
        return {"prepare_threshold": None, **given}

    @contextlib.asynccontextmanager
    async def aside(self, name: str) -> AsyncIterator[ServerConnection[Any]]:
        """A connection to the server beside the pool, each statement a transaction. Raises `RegistryUnavailable`."""
        from psycopg import AsyncConnection as ServerConnection
        from psycopg import Error

        given = self.engine.dialect.create_connect_args(self.engine.url)[1]
        arguments = {**given, **self.arguments, "application_name": name}
        try:
            async with await ServerConnection.connect(autocommit=True, **arguments) as connection:
                yield connection
        except (Error, OSError) as error:
            raise RegistryUnavailable(reason=_reason(error)) from error

    async def close(self) -> None:
        """Close every connection."""
        if self.listener is not None:
            await self.listener.close()
        await self.engine.dispose()


_BECOME_WRITER: Final = text(
    "SELECT set_config('lock_timeout', :busy, true), set_config('idle_in_transaction_session_timeout', :stuck, true), "
    "pg_advisory_xact_lock(:lock)"
)


def _is_unavailable(error: DBAPIError) -> bool:
    """Whether the database, and not the statement, is at fault: locked, full, read-only, shutting down."""
    # SQLite calls faults of a statement operational, too; their code is the general one.
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlite_errorname", "") != "SQLITE_ERROR"


def plain(text: str, limit: int | None = None) -> str:
    """Text as every database keeps it: without NUL and lone surrogates, cut to `limit` characters."""
    return text[:limit].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _sqlite_engine(url: URL, create: bool) -> AsyncEngine:
    path = Path(url.database or "")
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    mode = "rwc" if create else "rw"  # whoever only reads must not leave an empty database behind
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=f"file:{quote(str(path))}", query={"mode": mode, "uri": "true"}),
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
        pool_size=5,
        max_overflow=15,
        hide_parameters=True,  # errors are logged, and no secret is
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _server_engine(url: URL, arguments: Mapping[str, Any]) -> AsyncEngine:
    """At most `CONNECTIONS`; those made for a rush are closed after it."""
    return create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=KEPT,
        max_overflow=CONNECTIONS - KEPT,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"application_name": "tenantry", **arguments},
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    keep_a_log(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-16000", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def keep_a_log(cursor: Any) -> None:
    """Put the file into WAL mode. Of two that do it to a new file SQLite refuses one, instead of letting it wait."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _checkpoint(path: str) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once where something will be written: a lock taken later could not wait for its turn."""
    write = connection.get_execution_options().get("tenantry_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The items in runs of at most this size."""
    for start in range(0, len(items), size):
        yield items[start : start + size]

"""Sessions on tenants' SQLite files, out of a bounded number of open ones."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Collection, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tenantry.errors import DatabasesBusy, ResourceError
from tenantry.model import Environment, Place, check_path
from tenantry.runtime.guard import guard
from tenantry.runtime.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

CONNECTIONS: Final = 5
"""Connections to one tenant's database that one process holds at most."""

Key = tuple[str, str, asyncio.AbstractEventLoop | None]  # environment id, resource, event loop


@dataclass(slots=True, eq=False)
class _Open:
    """One open database. `stale` ones are closed when their last user leaves."""

    key: Key
    tenant: str
    engine: Any  # AsyncEngine where there is a loop, else Engine
    loop: asyncio.AbstractEventLoop | None
    users: int = 0
    stale: bool = False

    async def close(self) -> None:
        if self.loop is None or self.loop is asyncio.get_running_loop():
            found = self.engine.dispose()
            if found is not None:
                await found
        else:
            self.close_from_thread()

    def close_from_thread(self) -> None:
        if self.loop is None:
            self.engine.dispose()
        elif self.loop.is_running():
            asyncio.run_coroutine_threadsafe(self.engine.dispose(), self.loop)


@dataclass(slots=True)
class _Claim:
    """What a try to open a database came to: the database, or something to wait for; and one to be closed first."""

    database: _Open | None = None
    wait: Future[None] | None = None
    evicted: _Open | None = None


class Files:
    """Opens databases on first use and closes the least recently used idle one when there are too many.

    Where all are in use, callers wait in their order, and after `busy_seconds` get `DatabasesBusy`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._count = 0  # open ones and stale ones not closed yet
        self._waiting: deque[Future[None]] = deque()
        self._lock = Lock()

    # --- opening --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(self, environment: Environment, place: Place) -> AsyncIterator[AsyncSession]:
        """A SQLAlchemy AsyncSession; leaving the block rolls back what is not committed. Raises `DatabasesBusy`."""
        from sqlalchemy.ext.asyncio import AsyncSession

        database = await self._claim_async(environment, place)
        try:
            async with AsyncSession(database.engine, expire_on_commit=False) as session:
                yield session
        finally:
            if self._leave(database):
                await database.close()
                self._closed()

    @contextmanager
    def session_sync(self, environment: Environment, place: Place) -> Iterator[Session]:
        """A SQLAlchemy Session, for code without an event loop."""
        from sqlalchemy.orm import Session

        with self._engine_sync(environment, place) as engine, Session(engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def connection_sync(self, environment: Environment, place: Place) -> Iterator[Connection]:
        """A SQLAlchemy Connection, for code without an event loop."""
        with self._engine_sync(environment, place) as engine, engine.connect() as connection:
            yield connection

    @contextmanager
    def _engine_sync(self, environment: Environment, place: Place) -> Iterator[Engine]:
        database = self._claim_sync(environment, place)
        try:
            yield database.engine
        finally:
            if self._leave(database):
                database.close_from_thread()
                self._closed()

    async def _claim_async(self, environment: Environment, place: Place) -> _Open:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.busy_seconds
        while True:
            claim = self._claim(environment, place, loop)
            if claim.evicted:
                await claim.evicted.close()
                self._closed()
            if claim.database:
                return claim.database
            if claim.wait:
                try:
                    await asyncio.wait_for(asyncio.wrap_future(claim.wait), until - loop.time())
                except BaseException as error:
                    self._give_up(claim.wait)
                    if isinstance(error, TimeoutError):
                        raise DatabasesBusy(limit=self._settings.open_databases) from error
                    raise

    def _claim_sync(self, environment: Environment, place: Place) -> _Open:
        until = time.monotonic() + self._settings.busy_seconds
        while True:
            claim = self._claim(environment, place, None)
            if claim.evicted:
                claim.evicted.close_from_thread()
                self._closed()
            if claim.database:
                return claim.database
            if claim.wait:
                try:
                    claim.wait.result(max(0.0, until - time.monotonic()))
                except FutureTimeout as error:
                    self._give_up(claim.wait)
                    raise DatabasesBusy(limit=self._settings.open_databases) from error

    def _claim(self, environment: Environment, place: Place, loop: asyncio.AbstractEventLoop | None) -> _Claim:
        key = (environment.id, place.name, loop)
        with self._lock:
            database = self._open.get(key)
            if database:
                database.users += 1
                self._open.move_to_end(key)
                return _Claim(database)
            if self._count < self._settings.open_databases:
                database = _Open(key, environment.tenant.id, self._engine(environment, place, loop), loop, users=1)
                self._open[key] = database
                self._count += 1
                return _Claim(database)
            idle = next((other for other in self._open.values() if not other.users), None)
            if idle:
                del self._open[idle.key]
                return _Claim(evicted=idle)
            future: Future[None] = Future()
            self._waiting.append(future)
            return _Claim(wait=future)

    def _engine(self, environment: Environment, place: Place, loop: object) -> Any:
        path = self._settings.data / environment.home / check_path(place.location)
        if not path.is_file():
            reason = "its file is missing"
            raise ResourceError(kind=place.kind, resource=place.name, tenant=environment.tenant.slug, reason=reason)
        return _async_engine(path, environment) if loop else _sync_engine(path, environment)

    # --- leaving and closing --------------------------------------------------------------------------------------

    def _leave(self, database: _Open) -> bool:
        """Count one user less; True where the caller now has to close the database."""
        with self._lock:
            database.users -= 1
            if database.users:
                return False
            if not database.stale:
                self._wake()
            return database.stale

    def _closed(self) -> None:
        """One database less is open."""
        with self._lock:
            self._count -= 1
            self._wake()

    def _wake(self) -> None:
        """Give the first one who still waits its turn."""
        while self._waiting:
            future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                future.set_result(None)
                return

    def _give_up(self, future: Future[None]) -> None:
        """Stop waiting; a turn that came too late goes to the next one."""
        with self._lock:
            if not future.cancel() and not future.cancelled():
                self._wake()

    async def forget(self, tenants: Collection[str] | None = None) -> None:
        """Close the databases of these tenants (of all where None), those in use when their sessions end."""
        with self._lock:
            found = [each for each in self._open.values() if tenants is None or each.tenant in tenants]
            for database in found:
                database.stale = True
                del self._open[database.key]
            idle = [database for database in found if not database.users]
        for database in idle:
            await database.close()
            self._closed()

    def abandon(self) -> None:
        """Forget everything without closing it: after a fork the connections are the parent's."""
        self._open, self._waiting, self._lock, self._count = OrderedDict(), deque(), Lock(), 0


# --- engines ------------------------------------------------------------------------------------------------------

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 5000",
)


class _Confined(sqlite3.Connection):
    """A connection that can reach no other database: nothing can be attached to it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        for pragma in _PRAGMAS:
            self.execute(pragma)


_POOL: Final[dict[str, Any]] = {
    "pool_size": CONNECTIONS,
    "max_overflow": 0,
    "pool_timeout": 10,
    "connect_args": {"factory": _Confined},
}


def _async_engine(path: Path, environment: Environment) -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(_url("sqlite+aiosqlite", path), **_POOL)
    guard(engine.sync_engine, lambda: environment)
    return engine


def _sync_engine(path: Path, environment: Environment) -> Engine:
    from sqlalchemy import create_engine

    engine = create_engine(_url("sqlite", path), **_POOL)
    guard(engine, lambda: environment)
    return engine


def _url(driver: str, path: Path) -> Any:
    """mode=rw never makes a file: a tenant that is gone does not come back empty."""
    from sqlalchemy import URL

    return URL.create(driver, database=f"file:{quote(str(path))}", query={"mode": "rw", "uri": "true"})

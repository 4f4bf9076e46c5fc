"""The change feed: what all processes know of the tenants, and every change of it, in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from tenantry.errors import RegistryBehind, RegistryUnavailable
from tenantry.model import Changes, Loaded
from tenantry.registry import migrations, servers, tables, tenants
from tenantry.registry.database import TENANTS, WORK, Database

if TYPE_CHECKING:
    from tenantry.registry.listener import Listener

SQLITE_POLL: Final = 0.01
"""Seconds between two looks at `PRAGMA data_version`, which costs about ten microseconds."""

MANY: Final = 5000
"""From so many changed tenants on, reading all environments is quicker than asking for some."""


_SEQ: Final = f"SELECT {tables.head.c.change_seq.name} FROM {tables.head.name}"  # noqa: S608 -- constants


class Feed:
    """Implements the runtime's `Source` on the control database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def signal(database: Database, *channels: str) -> Signal:
        """What to wait on for a sign that something may have changed, by channel: operations if none.

        On SQLite whatever is written is a sign of every channel but that of tenants.
        """
        if database.listener is None:
            return _SqliteSignal(str(database.url.database), TENANTS in channels)
        return _ServerSignal(database.listener, channels or (WORK,))

    async def load(self) -> Loaded:
        """Everything. Raises `RegistryUnavailable`, or `RegistryBehind` where the tables are not this version's."""
        try:
            async with self._database.read() as tx:
                seq = int(await tx.scalar(select(tables.head.c.change_seq)))
                return Loaded(seq, await tenants.environments(tx), (await servers.known(tx)).values())
        except DBAPIError as error:
            async with self._database.read() as tx:
                revision = await tx.sync(migrations.current)
            if revision == migrations.HEAD:
                raise
            raise RegistryBehind(revision=revision or "none", newest=migrations.HEAD) from error

    async def since(self, seq: int) -> Changes | None:
        """What changed after `seq`, or None. Each tenant's newest change is kept for ever, so nobody is too far behind.

        Raises `RegistryUnavailable` when the database was put back to before `seq`: then everything is to be loaded.
        """
        async with self._database.read() as tx:
            newest = int(await tx.scalar(select(tables.head.c.change_seq)))
            if newest == seq:
                return None
            if newest < seq:
                raise RegistryUnavailable(reason=f"it was put back to change {newest}, and {seq} was seen already")
            rows = await tx.all(select(tables.change.c.tenant_id).where(tables.change.c.seq > seq))
            changed_ids = {row.tenant_id for row in rows}
            marks = {one for one in changed_ids if one.startswith(servers.SHARED)}
            ids = frozenset(changed_ids - marks | await servers.marked(tx, marks))
            found = await tenants.environments(tx, ids if len(ids) < MANY else None)
            changed = [environment for environment in found if environment.tenant.id in ids]
            moved = any(one.startswith(servers.CHANGED) for one in ids)
            return Changes(newest, ids, changed, (await servers.known(tx)).values() if moved else None)

    async def follow(self, since: int) -> AsyncGenerator[Changes]:
        """Every change after `since`, within some 50 ms of its commit. Raises `RegistryUnavailable` when cut off."""
        async with self.signal(self._database, TENANTS) as signal:
            while True:
                changes = await self.since(since)
                if changes is not None:
                    since = changes.seq
                    yield changes
                await signal.wait()


class Signal(ABC):
    """Waits for a sign that the database may have changed. One that came since the last wait is not lost."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *_: object) -> None: ...

    @abstractmethod
    async def wait(self) -> None: ...


class _ServerSignal(Signal):
    """A server notifies; after a while of silence one looks all the same."""

    def __init__(self, hearing: Listener, channels: Sequence[str]) -> None:
        self._listener = hearing
        self._ear = hearing.ear(*channels)
        self._event = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._event = await self._ear.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._ear.__aexit__(*raised)

    async def wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._listener.pause):
                await self._event.wait()
        self._event.clear()


class _SqliteSignal(Signal):
    """SQLite tells by `PRAGMA data_version` whether another connection has committed; then, what of tenants changed."""

    def __init__(self, path: str, of_tenants: bool) -> None:
        self._path = path
        self._of_tenants = of_tenants
        self._seq: tuple[int] | None = None
        self._connection: sqlite3.Connection | None = None
        self._version = -1
        self._file = 0

    async def __aenter__(self) -> Self:
        try:
            self._connection = sqlite3.connect(f"file:{quote(self._path)}?mode=ro", uri=True, check_same_thread=False)
            self._file = os.stat(self._path).st_ino  # noqa: PTH116
        except (sqlite3.Error, OSError) as error:
            raise RegistryUnavailable(reason=str(error)) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    async def wait(self) -> None:
        assert self._connection is not None
        while True:
            await asyncio.sleep(SQLITE_POLL)
            try:
                # A file that was removed or replaced would go on being read, without anyone's changes.
                if os.stat(self._path).st_ino != self._file:  # noqa: PTH116 - a hundred times a second
                    raise RegistryUnavailable(reason=f"'{self._path}' was replaced")
                (version,) = self._connection.execute("PRAGMA data_version").fetchone()
                if version == self._version:
                    continue
                self._version = version
                seq = self._connection.execute(_SEQ).fetchone() if self._of_tenants else None
            except (sqlite3.Error, OSError) as error:
                raise RegistryUnavailable(reason=str(error)) from error
            if seq is None or seq != self._seq:
                self._seq = seq
                return

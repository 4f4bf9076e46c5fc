"""Hears of commits on a PostgreSQL control database: one connection of the process waits for notifications.

A writer's transaction sends them with its commit (`NOTIFY`), so whoever hears one sees what was written. They are only
a sign to look: what changed is read by its sequence number, so a lost one costs time and never a change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import psycopg
from psycopg import sql

from tenantry.errors import RegistryUnavailable

log: Final = logging.getLogger("tenantry.registry")

LOOK: Final = 5.0
"""Seconds after which one who waits looks all the same."""

POLL: Final = 0.2
"""Seconds between two looks while nothing can be heard: not connected, or behind a pooler of transactions."""

AGAIN: Final = (0.1, 5.0)
"""Seconds before the first new try to connect, and at most."""

SILENCE: Final = 30.0
"""Seconds without a word after which the connection is asked whether it lives."""

Connect = Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]


class Listener:
    """The connection that listens, made when somebody first waits, and made anew whenever it is lost."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._ears: list[tuple[frozenset[str], asyncio.Event]] = []
        self._channels: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self.pause = POLL  # seconds after which one who waits looks without being told

    @contextlib.asynccontextmanager
    async def ear(self, *channels: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set at each notification on these channels, and whenever some may have been missed."""
        ear = (frozenset(channels), asyncio.Event())
        self._ears.append(ear)
        if self._task is None or not self._channels.issuperset(channels):
            await self.close()
            self._channels.update(channels)
            self._task = asyncio.create_task(self._listen_ever())
        try:
            yield ear[1]
        finally:
            self._ears.remove(ear)

    async def close(self) -> None:
        """Hear no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _listen_ever(self) -> None:
        wait = AGAIN[0]
        while True:
            try:
                async with self._connect() as connection:
                    await self._begin(connection)
                    wait = AGAIN[0]
                    await self._listen(connection)
            except RegistryUnavailable as error:
                level = logging.WARNING if wait == AGAIN[0] else logging.DEBUG
                log.log(level, "The control database notifies nobody here, so it is looked at: %s", error)
            finally:
                self.pause = POLL
                self._tell()
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - so that processes do not march in step
            wait = min(2 * wait, AGAIN[1])

    async def _begin(self, connection: psycopg.AsyncConnection[Any]) -> None:
        for channel in sorted(self._channels):
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        cursor = await connection.execute("SELECT pg_backend_pid()")
        (backend,) = await cursor.fetchone() or (None,)
        # A pooler gives numbers of its own; one that pools transactions loses notifications.
        if backend == connection.info.backend_pid:
            self.pause = LOOK
        else:
            log.warning("The control database is behind a pooler: changes are looked for every %s s.", POLL)
        self._tell()

    async def _listen(self, connection: psycopg.AsyncConnection[Any]) -> None:
        while True:
            async for heard in connection.notifies(timeout=SILENCE):
                self._tell(heard.channel)
            await connection.execute("SELECT 1")

    def _tell(self, channel: str | None = None) -> None:
        for channels, event in self._ears:
            if channel is None or channel in channels:
                event.set()

"""Follows operations for everybody who looks at them: each one once, however many look."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from tenantry.platform import Platform
from tenantry.platform.operations import OperationDetails

ALIVE: Final = 15.0
"""Seconds after which a listener is told that nothing happened, so that proxies keep its connection open."""


class Hub:
    """Follows each operation once, however many look at it."""

    def __init__(self, platform: Platform, *, leaving: bool = False) -> None:
        self._platform = platform
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listeners: dict[str, set[asyncio.Queue[OperationDetails | None]]] = {}
        self._last: dict[str, OperationDetails] = {}
        self._leaving = asyncio.Event()
        if leaving:
            self._leaving.set()

    async def listen(self, operation_id: str) -> AsyncIterator[OperationDetails | None]:
        """The operation now and at every change, the last time when it is over; None where nothing happens for long.

        It ends, too, when this process is about to (`leave`).
        """
        if self._leaving.is_set():
            return
        queue: asyncio.Queue[OperationDetails | None] = asyncio.Queue(1)
        listeners = self._listeners.setdefault(operation_id, set())
        listeners.add(queue)
        if operation_id in self._last:
            queue.put_nowait(self._last[operation_id])
        if operation_id not in self._tasks:
            self._tasks[operation_id] = asyncio.create_task(self._follow(operation_id))
        try:
            while True:
                details = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ALIVE):
                        details = await queue.get()
                if self._leaving.is_set():
                    return
                yield details
                if details is not None and not details.operation.state.live:
                    return
                if details is None and operation_id not in self._tasks:
                    return
        finally:
            listeners.discard(queue)
            if not listeners:
                self._leave(operation_id)

    async def _follow(self, operation_id: str) -> None:
        try:
            async for details in self._platform.operations.follow(operation_id):
                self._last[operation_id] = details
                for queue in self._listeners.get(operation_id, ()):
                    if queue.full():  # a slow reader gets the newest only
                        queue.get_nowait()
                    queue.put_nowait(details)
        finally:
            self._tasks.pop(operation_id, None)

    def _leave(self, operation_id: str) -> None:
        self._listeners.pop(operation_id, None)
        self._last.pop(operation_id, None)
        task = self._tasks.pop(operation_id, None)
        if task is not None:
            task.cancel()

    def leave(self) -> None:
        """Let nobody listen any longer: who follows an operation would hold up the end of this process."""
        self._leaving.set()
        for queue in [queue for listeners in self._listeners.values() for queue in listeners if queue.empty()]:
            queue.put_nowait(None)

    async def close(self) -> None:
        """Follow nothing any more."""
        for task in list(self._tasks.values()):
            task.cancel()

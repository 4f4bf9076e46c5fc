"""Follows operations for everybody who looks at them: each one once, however many look."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final

from tenantry.errors import TenantryError
from tenantry.platform import Platform
from tenantry.platform.operations import OperationDetails

ALIVE: Final = 15.0
"""Seconds after which a listener is told that nothing happened, so that proxies keep its connection open."""


AGAIN: Final = 5.0
"""Seconds after which, at the next event, it is asked again whether a listener may still look."""


class Hub:
    """Follows each operation once, however many look at it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listeners: dict[str, set[asyncio.Queue[OperationDetails | None]]] = {}
        self._last: dict[str, OperationDetails] = {}

    async def listen(self, operation_id: str) -> AsyncGenerator[OperationDetails | None]:
        """The operation now and at every change, the last time when it is over; None where nothing happens for long."""
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
                yield details
                if details is not None and not details.operation.state.live:
                    return
                if details is None and operation_id not in self._tasks:
                    return
        finally:
            listeners.discard(queue)
            if not listeners:
                self._leave(operation_id)

    async def watch(
        self, operation_id: str, allowed: Callable[[], Awaitable[object]]
    ) -> AsyncIterator[OperationDetails | None]:
        """The same, for as long as `allowed` raises nothing: who is kept out meanwhile sees no more."""
        asked = time.monotonic()
        async with contextlib.aclosing(self.listen(operation_id)) as events:
            async for details in events:
                if time.monotonic() - asked >= AGAIN:
                    try:
                        await allowed()
                    except TenantryError:
                        return
                    asked = time.monotonic()
                yield details

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

    async def close(self) -> None:
        """Follow nothing any more."""
        for task in list(self._tasks.values()):
            task.cancel()

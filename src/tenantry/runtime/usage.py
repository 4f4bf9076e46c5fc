"""Requests and response bytes by tenant, counted in memory; how many there were in all is written down now and then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from threading import Lock
from typing import Final, NamedTuple

from tenantry.errors import TenantryError

FOLD: Final = 4096
"""Requests noted one by one before they are added up."""

EVERY: Final = 30.0
"""Seconds between two times that they are written down; a process that is killed loses no more than these."""

LAST: Final = 3.0
"""Seconds that a process which ends takes for it."""

Book = Callable[[Mapping[str, int]], Awaitable[None]]
"""Adds to how often things happened today. Raises `TenantryError` where the control database is gone."""

log: Final = logging.getLogger(__name__)


class Served(NamedTuple):
    """What a tenant was served since the last `take`."""

    requests: int
    bytes: int  # of response bodies and WebSocket messages


class RequestUsage:
    """Counters by tenant id. A request counts when it ends."""

    def __init__(self) -> None:
        self._noted: deque[tuple[str, int]] = deque()
        self._counts: dict[str, list[int]] = {}
        self._number = 0
        self._lock = Lock()

    def add(self, tenant: str, sent: int) -> None:
        """Count one request of a tenant id, and the bytes sent. A deque takes notes of many threads without a lock."""
        noted = self._noted
        noted.append((tenant, sent))
        if len(noted) > FOLD:
            with self._lock:
                self._fold()

    def _fold(self) -> None:
        """Add up what is noted."""
        number = len(self._noted)
        self._number += number
        for _ in range(number):
            tenant, sent = self._noted.popleft()
            count = self._counts.setdefault(tenant, [0, 0])
            count[0] += 1
            count[1] += sent

    def take(self) -> dict[str, Served]:
        """Everything counted since the last time, by tenant id; the counters begin anew."""
        with self._lock:
            self._fold()
            counts, self._counts = self._counts, {}
        return {tenant: Served(requests, sent) for tenant, (requests, sent) in counts.items()}

    def number(self) -> int:
        """Requests of all tenants since the last time that this was asked."""
        with self._lock:
            self._fold()
            number, self._number = self._number, 0
        return number


class Count:
    """How often something happened, in any thread."""

    def __init__(self) -> None:
        self._number = 0
        self._lock = Lock()

    def add(self) -> None:
        """Once more."""
        with self._lock:
            self._number += 1

    def number(self) -> int:
        """How often since the last time that this was asked."""
        with self._lock:
            number, self._number = self._number, 0
        return number


class Written:
    """What was counted, added to the platform's own book."""

    def __init__(self, book: Book, **counted: Callable[[], int]) -> None:
        self._book = book
        self._counted = counted
        self._owed: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def begin(self) -> None:
        """Write down now and then, in this event loop."""
        if self._task is None:
            self._turn = asyncio.Lock()
            self._task = asyncio.create_task(self._ever(), name="tenantry-counting")

    async def _ever(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self.write()

    async def write(self) -> None:
        """Write down what was counted since the last time; where that fails, the next time does."""
        async with self._turn:
            self._owed += Counter({name: number() for name, number in self._counted.items()})
            if not self._owed:
                return
            try:
                await self._book(self._owed)
            except TenantryError as error:
                log.info("Requests were not written down: %s", error)
            else:
                self._owed.clear()

    async def close(self, *, in_reach: bool) -> None:
        """End, and write down what is left where the control database is in reach: in a moment, or not at all."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            async with asyncio.timeout(LAST):
                async with self._turn:  # what is being written is written once
                    task.cancel()
                if in_reach:
                    await self.write()
        except TimeoutError:
            log.warning("The last requests were not written down: the control database does not answer.")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

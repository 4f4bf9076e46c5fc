"""Follows operations for everybody who looks at them: one poller in a process, whoever and however many look.

A follower only waits. One task waits for the sign that something was written, reads each operation that is followed,
and hands what is new of it to all its followers, who share also what was made of it: the bytes that are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakSet

from tenantry.errors import OperationNotFound, TenantryError
from tenantry.identity.throttle import network
from tenantry.platform import Platform
from tenantry.platform.operations import FAILED_SHOWN, OperationDetails
from tenantry.refusals import TooManyFollowers, TooManyStreams
from tenantry.registry import Feed

ALIVE: Final = 15.0
"""Seconds after which a follower is told that nothing happened, so that proxies keep its connection open."""

PAUSE: Final = 0.2
"""Seconds between two looks at the registry at most, where signs come all the time: nobody reads quicker."""

EACH: Final = 0.01
"""Seconds of that for each follower: somebody alone hears at once what lets her page go on."""

STALE: Final = 5.0
"""Seconds after which it is looked at without a sign: that a worker lives no more is written nowhere."""

FOLLOWERS: Final = 1000
"""Followers of one process; each keeps a connection open."""

TRUSTED: Final = ALIVE
"""Seconds after which a follower's right is asked for again: her session may be over, her tenant another's."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class News:
    """An operation as it is now, and what was made of that for all its followers."""

    details: OperationDetails
    workers: int
    _made: dict[Callable[[News], bytes], bytes] = field(default_factory=dict, compare=False, repr=False)

    def told(self, make: Callable[[News], bytes]) -> bytes:
        """This in other words, made once."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]

    @property
    def last(self) -> bool:
        """Whether there is nothing more to come."""
        return not self.details.operation.state.live


@dataclass(slots=True)
class _Room:
    """An operation that is followed."""

    last: News | None = None
    queues: set[asyncio.Queue[News | None]] = field(default_factory=set)

    def tell(self, news: News | None) -> None:
        """Let all followers know; None: there will be nothing more. A slow one gets the newest only."""
        self.last = news
        for queue in self.queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(news)


class Seat:
    """Room for a follower; it is free again as soon as nobody holds it, also where a stream never began."""

    def __init__(self, person: str, address: str) -> None:
        self.person, self.address = person, address


class Hub:
    """Who follows which operation."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._rooms: dict[str, _Room] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._seats: WeakSet[Seat] = WeakSet()

    @property
    def followers(self) -> int:
        """How many follow anything."""
        return len(self._seats)

    def seat(self, person: str = "", address: str = "") -> Seat:
        """Room for one more follower. Raises `TooManyFollowers`, or `TooManyStreams` of this person or address."""
        if len(self._seats) >= FOLLOWERS:
            raise TooManyFollowers(number=FOLLOWERS)
        seat, limits = Seat(person, network(address)), self._platform.config.api
        for limit, whose in ((limits.person_streams, "person"), (limits.address_streams, "address")):
            mine = getattr(seat, whose)
            if limit and mine and sum(getattr(one, whose) == mine for one in self._seats) >= limit:
                raise TooManyStreams(limit=limit, whose=whose)
        self._seats.add(seat)
        return seat

    async def listen(
        self, operation_id: str, seat: Seat, allowed: Callable[[], Awaitable[object]]
    ) -> AsyncIterator[News | None]:
        """The operation now and at every change, the last time when it is over; None where nothing happens for long.

        It ends early where `allowed`, called now and then, raises that this may not be seen any more.
        """
        if self._closed:
            return
        queue: asyncio.Queue[News | None] = asyncio.Queue(1)
        room = self._rooms.setdefault(operation_id, _Room())
        room.queues.add(queue)
        asked = time.monotonic()
        try:
            news: News | None = room.last or await self._look(operation_id, room)
            self._begin()
            while True:
                yield news
                if news is not None and news.last:
                    return
                try:
                    async with asyncio.timeout(ALIVE):
                        news = await queue.get()
                    if news is None:
                        return
                except TimeoutError:
                    news = None
                if time.monotonic() - asked > TRUSTED:
                    asked = time.monotonic()
                    await allowed()
        except TenantryError as error:
            log.debug("a follower of %s is let go: %s", operation_id, error)
        finally:
            self._seats.discard(seat)
            room.queues.discard(queue)
            if not room.queues:
                self._rooms.pop(operation_id, None)
            if not self._rooms:
                self._end()

    async def _look(self, operation_id: str, room: _Room) -> News:
        """Read an operation as it is now, and let its followers know what is new."""
        operations = self._platform.operations
        news = News(await operations.show(operation_id, FAILED_SHOWN), await operations.workers())
        if news != room.last:
            room.tell(news)
        return news

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._watch())

    def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _watch(self) -> None:
        """Look whenever something was written, until nobody follows."""
        while True:
            try:
                async with Feed.signal(self._platform.registry.database) as signal:
                    while True:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(STALE):
                                await signal.wait()
                        await self._look_all()
                        await asyncio.sleep(min(PAUSE, EACH * self.followers))
            except TenantryError as error:  # the control database is lost for now: followers stay
                log.warning("Operations cannot be followed for now: %s", error)
                await asyncio.sleep(1)

    async def _look_all(self) -> None:
        for operation_id, room in list(self._rooms.items()):
            try:
                await self._look(operation_id, room)
            except OperationNotFound:
                room.tell(None)

    def close(self) -> None:
        """Follow nothing any more, and let all followers go."""
        self._closed = True
        for room in self._rooms.values():
            room.tell(None)
        self._end()

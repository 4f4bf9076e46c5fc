"""The connections one process may have to one server, and who gets the next one. Plain data: no input or output.

Whoever uses a `Budget` holds one lock around every call, from event loops and threads alike.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

from tenantry.errors import TenantryError

Loop: TypeAlias = asyncio.AbstractEventLoop | None
"""The event loop that uses a connection; None: threads do."""

AHEAD: Final = 4
"""A tenant gets another connection while it uses fewer than this many times the free ones.

So whoever floods, alone, leaves a fifth of the budget to the others, who find it free when they come ("dynamic
thresholds", Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998).
"""


@dataclass(slots=True, eq=False)
class Slot:
    """A connection's place in the budget."""

    share: Share
    loop: Loop
    since: float = 0.0  # when it was last given back


@dataclass(slots=True, eq=False)
class Group:
    """Connections that serve any of several tenants, whoever used them before: those of a database they share."""

    size: int  # connections kept open when nobody uses them, over all of these tenants
    idle: OrderedDict[Slot, None] = field(default_factory=OrderedDict)  # the last one was used last

    def find(self, loop: Loop) -> Slot | None:
        """The one that was used last in this event loop."""
        return next((slot for slot in reversed(self.idle) if slot.loop is loop), None)


@dataclass(slots=True, eq=False)
class Share:
    """What one tenant's resource has of a server's budget."""

    key: tuple[str, str]  # environment id, resource
    size: int  # connections kept open when nobody uses them
    most: int  # connections at all
    open: int = 0  # being opened, in use, and idle
    idle: list[Slot] = field(default_factory=list)  # the last one was used last
    group: Group | None = None  # those whose idle connections it may use, and who may use its own

    @property
    def busy(self) -> int:
        """Connections being opened or in use."""
        return self.open - len(self.idle)

    @property
    def surplus(self) -> Slot | None:
        """The connection used longest ago, where more are idle than are kept."""
        if self.group is not None:
            return next(iter(self.group.idle)) if len(self.group.idle) > self.group.size else None
        return self.idle[0] if len(self.idle) > self.size else None


OPENING: Final = 8
"""Connections to one server that are being opened at a time: each costs it a process and 10 to 20 ms of a core."""

S = TypeVar("S", bound=Slot)


@dataclass(slots=True)
class Grant(Generic[S]):
    """The right to use an idle connection, or to open one; first the evicted one has to be closed."""

    slot: S | None = None
    evicted: S | None = None


class Waiter(Generic[S]):
    """Somebody who waits for `event`, in an event loop or in a thread; then there is a grant or an error."""

    __slots__ = ("error", "event", "grant", "loop", "share")

    def __init__(self, share: Share, loop: Loop) -> None:
        self.share = share
        self.loop = loop
        self.event: Any = threading.Event() if loop is None else asyncio.Event()
        self.grant: Grant[S] | None = None
        self.error: TenantryError | None = None

    def wake(self) -> bool:
        """Tell that there is one. False where nobody can hear it."""
        if self.loop is None:
            self.event.set()
            return True
        try:
            self.loop.call_soon_threadsafe(self.event.set)
        except RuntimeError:  # the loop is over
            return False
        return True


class Budget(Generic[S]):
    """At most `limit` connections over all tenants. Those who wait take turns by tenant; within one, in their order."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0
        self.opening = 0
        self.idle: OrderedDict[S, None] = OrderedDict()  # least recently used first
        self.waiting: OrderedDict[Share, deque[Waiter[S]]] = OrderedDict()

    @property
    def busy(self) -> int:
        """Connections being opened or in use."""
        return self.open - len(self.idle)

    @property
    def waiters(self) -> int:
        """How many wait."""
        return sum(map(len, self.waiting.values()))

    def ask(self, share: Share, loop: Loop) -> Grant[S] | None:
        """A connection now, or None where one has to `wait`."""
        return None if share in self.waiting else self._grant(share, loop)

    def wait(self, waiter: Waiter[S]) -> None:
        """Stand in line."""
        self.waiting.setdefault(waiter.share, deque()).append(waiter)

    def give_up(self, waiter: Waiter[S]) -> None:
        """Wait no longer; what was granted too late goes to the next one."""
        queue = self.waiting.get(waiter.share)
        if queue and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self.waiting[waiter.share]
        if waiter.grant is not None:
            self._undo(waiter.share, waiter.grant)
            waiter.grant = None
            self.serve()

    def fail(self, error: TenantryError) -> None:
        """Send everybody home with an error."""
        for queue in self.waiting.values():
            for waiter in queue:
                waiter.error = error
                waiter.wake()
        self.waiting.clear()

    def give_back(self, slot: S, now: float) -> S | None:
        """A connection is idle again; the one that is now too many, if any, has to be closed."""
        share, slot.since = slot.share, now
        self._lay(slot)
        self.serve()
        surplus = share.surplus
        if surplus is None and self.open > self.limit and share.idle:
            surplus = share.idle[0]
        return self.take_out(surplus) if surplus else None  # type: ignore[arg-type]

    def idle_of(self, share: Share) -> list[S]:
        """A tenant's idle connections."""
        return [slot for slot in self.idle if slot.share is share]

    def take_out(self, slot: S) -> S:
        """Let nobody have this idle connection any more. It counts until it is `gone`."""
        slot.share.idle.remove(slot)
        if slot.share.group is not None:
            del slot.share.group.idle[slot]
        del self.idle[slot]
        return slot

    def _lay(self, slot: S) -> None:
        """Have an idle connection at hand."""
        slot.share.idle.append(slot)
        if slot.share.group is not None:
            slot.share.group.idle[slot] = None
        self.idle[slot] = None

    def _hand_over(self, slot: S, share: Share) -> S:
        """Let one tenant have the idle connection of another one."""
        self.take_out(slot).share.open -= 1
        slot.share = share
        share.open += 1
        return slot

    def opened(self) -> None:
        """A try to open a connection has ended, well or not; the next one may be made."""
        self.opening -= 1
        self.serve()

    def gone(self, share: Share) -> None:
        """A connection was closed, or could not be opened."""
        share.open -= 1
        self.open -= 1
        self.serve()

    def serve(self) -> None:
        """Give those who wait what there is, one tenant after the other."""
        blocked = 0
        while blocked < len(self.waiting) and (self.open < self.limit or self.idle):
            share, queue = next(iter(self.waiting.items()))
            self.waiting.move_to_end(share)
            grant = self._grant(share, queue[0].loop)
            if grant is None:
                blocked += 1
                continue
            blocked = 0
            waiter = queue.popleft()
            if not queue:
                del self.waiting[share]
            waiter.grant = grant
            if not waiter.wake():
                self._undo(share, grant)

    def _undo(self, share: Share, grant: Grant[S]) -> None:
        """Take back what nobody came for."""
        kept = grant.slot or grant.evicted
        if grant.slot is None:
            self.opening -= 1
            share.open -= 1
            if kept is not None:
                kept.share.open += 1
            else:
                self.open -= 1
        if kept is not None:
            self._lay(kept)

    def _grant(self, share: Share, loop: Loop) -> Grant[S] | None:
        if share.busy >= AHEAD * (self.limit - self.busy):
            return None
        own = next((slot for slot in reversed(share.idle) if slot.loop is loop), None)
        if own is not None:
            return Grant(slot=self.take_out(own))  # type: ignore[arg-type]
        common = share.group.find(loop) if share.group is not None and share.open < share.most else None
        if common is not None:
            return Grant(slot=self._hand_over(common, share))  # type: ignore[arg-type]
        if self.opening >= OPENING:
            return None
        if share.open >= share.most:  # all it may have; perhaps with an idle one of another event loop
            evicted = share.idle[0] if share.idle else None
        elif self.open < self.limit:
            self.opening += 1
            self.open += 1
            share.open += 1
            return Grant()
        else:
            evicted = next(iter(self.idle), None) if self.open == self.limit else None
        if evicted is None:
            return None
        self.opening += 1
        evicted.share.open -= 1
        share.open += 1
        return Grant(evicted=self.take_out(evicted))  # type: ignore[arg-type]

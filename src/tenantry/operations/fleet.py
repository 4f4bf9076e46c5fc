"""Work on many tenants: in batches, each recorded in one transaction, each tenant held only while it is worked on.

Items lie in lanes, such as the servers their databases are on. Lanes go on beside one another, so that a slow one holds
up nobody; in one lane a batch at a time is worked on, and the next one may be claimed while the last is recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tenantry.errors import ServerUnavailable, TenantryError
from tenantry.operations.verb import Work
from tenantry.registry import Transaction, journal
from tenantry.registry.journal import StepState

BATCH: Final = 50
"""Tenants worked on together and recorded together; a crash makes do again two batches of a lane at most."""

BUSY_TRIES: Final = 100
BUSY_PAUSE: Final = 0.1
"""How often, and how many seconds apart, a tenant is asked for that another operation holds."""

NAP: Final = 0.5
"""Seconds a run that is to be slow sleeps at a time, so that it hears when it is to pause or end."""

UNREACHED: Final = "not reached"
"""The detail of an item that failed because its server did not answer: that says nothing of the work itself."""


class ItemsFailed(TenantryError):
    """{failed} of {total} failed."""

    code = "operation.items_failed"
    remedy = "Each is named with its error; correct the cause, then resume the operation for those alone."


class StoppedEarly(TenantryError):
    """Stopped after {failed} failures ({rule})."""

    code = "operation.stopped"
    remedy = "Nothing more was touched. Correct the cause, then resume the operation."


class Busy(TenantryError):
    """'{subject}' is busy with another operation."""

    code = "operation.busy"
    remedy = "`tenantry operation list --tenant {subject}` names it; afterwards resume this one."


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one item."""

    item: journal.Item
    error: TenantryError | None = None
    detail: str = ""
    seconds: float | None = None

    @property
    def unreached(self) -> bool:
        """Whether its server did not answer."""
        return isinstance(self.error, ServerUnavailable)


@dataclass(slots=True)
class Count:
    """How many items have ended, and how."""

    done: int = 0
    failed: int = 0
    unreached: int = 0  # of those that failed

    def add(self, results: Sequence[Result]) -> None:
        failed = sum(result.error is not None for result in results)
        self.done += len(results) - failed
        self.failed += failed
        self.unreached += sum(result.unreached for result in results)


Batch = Callable[[Sequence[journal.Item]], Awaitable[list[Result]]]
Record = Callable[[Transaction, Sequence[Result]], Awaitable[None]]
Ahead = Callable[[Sequence[journal.Item]], Awaitable[None]]
"""Looks up what a batch needs while the one before it is worked on; its tenants are held already."""
Stop = Callable[[Count, Count], str | None]
"""The rule by which a run ends early, by what has ended of the whole run and of the step at hand; None: go on."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a step's items are worked through."""

    size: int = BATCH  # items in a batch
    first: int = BATCH  # items in the first batch of a lane, which finds out whether its server answers
    depth: int = 1  # 2: the next batch is claimed and worked on while the last one is recorded
    rate: float | None = None  # items a second over all lanes, at most
    stop: Stop = lambda _run, _step: None


async def work_through(
    work: Work,
    step: journal.Step,
    batch: Batch,
    record: Record,
    *,
    tenant_of: Callable[[journal.Item], str],
    ahead: Ahead | None = None,
    manner: Manner | None = None,
) -> Count:
    """Work through a step's pending items; returns how they ended, those of earlier workers among them.

    `record` runs in the transaction that marks a batch's items. Raises `StoppedEarly` by the rule of the manner, also
    before anything is begun; and what `Work.heed` raises, between two batches.
    """
    course = _Course(work, step, batch, record, tenant_of, ahead, manner or Manner())
    return await course.run()


class _Course:
    """A step's way through its items."""

    def __init__(
        self,
        work: Work,
        step: journal.Step,
        batch: Batch,
        record: Record,
        tenant_of: Callable[[journal.Item], str],
        ahead: Ahead | None,
        manner: Manner,
    ) -> None:
        self.work = work
        self.step = step
        self.batch = batch
        self.record = record
        self.tenant_of = tenant_of
        self.ahead = ahead
        self.manner = manner
        self.pace = _Pace(manner.rate)
        self.halt: Exception | None = None  # why no batch is begun any more
        self._run = Count()
        self._step = Count()

    async def run(self) -> Count:
        async with self.work.tools.registry.read() as tx:
            await self._look_back(tx)
            lanes = await journal.lanes(tx, self.work.operation.id, self.step.position)
        self._judge()
        ways = [_Lane(self, name) for name in lanes]
        await asyncio.gather(*(self._go(lane) for lane in ways for _ in range(self.manner.depth)))
        if self.halt is not None:
            raise self.halt
        return self._step

    async def _look_back(self, tx: Transaction) -> None:
        """Count what earlier steps, or a worker before this one, have done."""
        operation_id, here = self.work.operation.id, self.step.position
        for position, states in (await journal.tally(tx, operation_id)).items():
            for count in (self._run, self._step) if position == here else (self._run,):
                count.done += states.get(StepState.DONE, 0)
                count.failed += states.get(StepState.FAILED, 0)
        for position in await journal.steps_of(tx, operation_id, StepState.FAILED, UNREACHED):
            self._run.unreached += 1
            self._step.unreached += position == here

    async def _go(self, lane: _Lane) -> None:
        """Follow a lane; what is wrong in one halts all of them, each at the end of its batch."""
        try:
            await lane.go()
        except Exception as error:
            self.halt = self.halt or error

    def count(self, results: Sequence[Result]) -> None:
        """Take note of what ended; the rule may then stop everything."""
        self._run.add(results)
        self._step.add(results)
        if self.halt is None:
            try:
                self._judge()
            except StoppedEarly as error:
                self.halt = error

    def _judge(self) -> None:
        rule = self.manner.stop(self._run, self._step)
        if rule:
            raise StoppedEarly(failed=self._run.failed, rule=rule)


@dataclass(frozen=True, slots=True)
class _Claim:
    """A batch."""

    items: Sequence[journal.Item]
    late: bool = False  # whether others held its tenants for too long, and hold them still


class _Lane:
    """The items of a step that take turns."""

    def __init__(self, course: _Course, name: str) -> None:
        self.course = course
        self.name = name
        self._at = -1  # the position of the last item that was looked at
        self._busy: list[journal.Item] = []  # tenants that others held
        self._tries = 0
        self._begun = False
        self._down: ServerUnavailable | None = None
        self._claiming = asyncio.Lock()
        self._turn = asyncio.Lock()

    async def go(self) -> None:
        """Claim a batch, work on it when it is its turn, and record it, until none is left."""
        while claim := await self._claim():
            results: list[Result] = []
            try:
                if self.course.ahead is not None and not claim.late:
                    await self.course.ahead(claim.items)
                async with self._turn:
                    if self.course.halt is None:
                        results = await self._work(claim)
            except Exception:
                await self._finish(claim.items, [])
                raise
            await self._finish(claim.items, results)

    async def _claim(self) -> _Claim | None:
        """The next items, whose tenants are held from now on; None where there are no more, or they are to wait."""
        async with self._claiming:
            while self.course.halt is None and not await self.course.pace.came():
                await self.course.work.check()
            while self.course.halt is None:
                claim = await self._next()
                if claim is None or claim.items:
                    self._begun = True
                    self.course.pace.given += len(claim.items) if claim else 0
                    return claim
                await asyncio.sleep(BUSY_PAUSE)
            return None

    async def _next(self) -> _Claim | None:
        """Items whose tenants are free; no item where those that are left are held by others, None where none is left.

        What others hold for too long is claimed all the same, in order to be named.
        """
        course, work = self.course, self.course.work
        async with work.write() as tx:
            await work.heed(tx)
            found = await self._read(tx)
            self._tries = 0 if found else self._tries + 1
            if not found:
                found, self._busy = self._busy, []
            if not found or self._tries > BUSY_TRIES:
                return _Claim(found, late=True) if found else None
            held = set(await journal.hold(tx, work.operation.id, [course.tenant_of(item) for item in found]))
        mine = [item for item in found if course.tenant_of(item) in held]
        self._busy += [item for item in found if course.tenant_of(item) not in held]
        return _Claim(mine)

    async def _read(self, tx: Transaction) -> list[journal.Item]:
        """The items behind those that were looked at, as many as make a batch."""
        course = self.course
        found = await journal.items(
            tx,
            course.work.operation.id,
            step=course.step.position,
            lane=self.name,
            state=StepState.PENDING,
            limit=course.manner.size if self._begun else course.manner.first,
            after=self._at,
        )
        self._at = found[-1].position if found else self._at
        return found

    async def _work(self, claim: _Claim) -> list[Result]:
        """Work on a batch. Where a whole one found that its server is down, the others of the lane need not try."""
        if claim.late:
            results = [Result(item, Busy(subject=item.subject)) for item in claim.items]
        elif self._down is not None:
            results = [Result(item, self._down) for item in claim.items]
        else:
            results = await self.course.batch(claim.items)
            downs = [result.error for result in results if isinstance(result.error, ServerUnavailable)]
            self._down = downs[0] if self.name and len(downs) == len(results) > 0 else None
        self.course.count(results)
        return results

    async def _finish(self, items: Sequence[journal.Item], results: Sequence[Result]) -> None:
        """Record what became of a batch, and let go of its tenants."""
        course, work = self.course, self.course.work
        rows: list[dict[str, Any]] = [
            {
                "position": result.item.position,
                "state": (StepState.FAILED if result.error else StepState.DONE).value,
                "detail": UNREACHED if result.unreached else result.detail,
                "error": result.error.as_dict() if result.error else None,
                "seconds": result.seconds,
            }
            for result in results
        ]
        failed = sum(result.error is not None for result in results)
        async with work.write() as tx:
            if results:
                await course.record(tx, results)
                await journal.set_items(tx, work.operation.id, rows)
                await journal.progress(tx, work.operation.id, done=len(rows) - failed, failed=failed)
            await journal.release(tx, work.operation.id, [course.tenant_of(item) for item in items])


class _Pace:
    """Lets so many items a second through, over all lanes."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._start = time.monotonic()
        self.given = 0

    async def came(self) -> bool:
        """Whether another batch may begin, after a nap where it is not time yet."""
        ahead = self._start + self.given / self._rate - time.monotonic() if self._rate else 0.0
        if ahead > 0:
            await asyncio.sleep(min(ahead, NAP))
        return ahead <= NAP


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

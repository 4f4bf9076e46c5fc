"""Work on many tenants: in batches, each recorded in one transaction, each tenant held only while it is worked on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tenantry.errors import TenantryError
from tenantry.operations.verb import Work
from tenantry.registry import Transaction, journal

BATCH: Final = 50
"""Tenants worked on together and recorded together; what a crash makes do again at most."""

BUSY_TRIES: Final = 100
BUSY_PAUSE: Final = 0.1
"""How often, and how many seconds apart, a tenant is asked for that another operation holds."""


class ItemsFailed(TenantryError):
    """{failed} of {total} failed."""

    code = "operation.items_failed"
    remedy = "Each is named with its error; correct the cause, then resume the operation for those alone."


class StoppedEarly(TenantryError):
    """Stopped after {failed} failures ({rule})."""

    code = "operation.stopped"
    remedy = "Nothing more was touched. Correct the cause, then resume the operation."


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one item."""

    item: journal.Item
    error: TenantryError | None = None
    detail: str = ""
    seconds: float | None = None


Batch = Callable[[Sequence[journal.Item]], Awaitable[list[Result]]]
Record = Callable[[Transaction, Sequence[Result]], Awaitable[None]]


async def work_through(
    work: Work,
    step: journal.Step,
    batch: Batch,
    record: Record,
    *,
    tenant_of: Callable[[journal.Item], str],
    stop: Callable[[int, int], str | None] = lambda _failed, _total: None,
    size: int = BATCH,
) -> tuple[int, int]:
    """Work through a step's pending items; returns how many went well and how many failed.

    `record` runs in the transaction that marks a batch's items. `stop` gets the failures and all ended items of the
    step and names the rule by which it ends early, which raises `StoppedEarly`.
    """
    counted = await _counted(work, step)
    tries = 0
    while True:
        await work.check_cancelled()
        items = await _next(work, step, size)
        if not items:
            return counted
        held = set(await _hold(work, [tenant_of(item) for item in items]))
        mine = [item for item in items if tenant_of(item) in held]
        if mine:
            results = await batch(mine)
            tries = 0
        elif tries < BUSY_TRIES:
            tries += 1
            await asyncio.sleep(BUSY_PAUSE)
            continue
        else:
            results = [
                Result(item, TenantryError(f"'{item.subject}' is busy with another operation.")) for item in items
            ]
        await _finish(work, results, record, [tenant_of(item) for item in mine])
        failed = sum(result.error is not None for result in results)
        counted = counted[0] + len(results) - failed, counted[1] + failed
        rule = stop(counted[1], sum(counted))
        if rule:
            raise StoppedEarly(failed=counted[1], rule=rule)


async def _counted(work: Work, step: journal.Step) -> tuple[int, int]:
    async with work.tools.registry.read() as tx:
        ended = await journal.items(
            tx,
            work.operation.id,
            step=step.position,
            states=(journal.StepState.DONE, journal.StepState.FAILED),
        )
    failed = sum(item.state is journal.StepState.FAILED for item in ended)
    return len(ended) - failed, failed


async def _next(work: Work, step: journal.Step, size: int) -> list[journal.Item]:
    async with work.tools.registry.read() as tx:
        pending = (journal.StepState.PENDING,)
        return await journal.items(tx, work.operation.id, step=step.position, states=pending, limit=size)


async def _hold(work: Work, ids: list[str]) -> list[str]:
    async with work.write() as tx:
        return await journal.hold(tx, work.operation.id, ids)


async def _finish(work: Work, results: Sequence[Result], record: Record, held: list[str]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "position": result.item.position,
            "state": (journal.StepState.FAILED if result.error else journal.StepState.DONE).value,
            "detail": result.detail,
            "error": result.error.as_dict() if result.error else None,
            "seconds": result.seconds,
        }
        for result in results
    ]
    failed = sum(result.error is not None for result in results)
    async with work.write() as tx:
        await record(tx, results)
        await journal.set_items(tx, work.operation.id, rows)
        await journal.progress(tx, work.operation.id, done=len(rows) - failed, failed=failed)
        await journal.release(tx, work.operation.id, held)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

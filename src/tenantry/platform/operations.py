"""Operations: list, show, follow, finish, resume, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from tenantry.errors import OperationRefused
from tenantry.identity import Reach, sees_only, verb
from tenantry.operations.runner import VERBS
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import Feed, Transaction, journal
from tenantry.registry.journal import State, StepState

FAILED_SHOWN = 100
"""Items that failed, the first of them, that are told with their operation."""

MOST_SHOWN = 1000
"""The most of them that are."""

ITEMS_SHOWN = 100

LOOK = 1.0
"""Seconds after which one who waits for the workers looks whether any still lives."""


@dataclass(frozen=True, slots=True)
class OperationDetails:
    """An operation with its steps, and those of its items that failed."""

    operation: journal.Operation
    steps: list[journal.Step]
    items: list[journal.Item]
    tally: Mapping[int, Mapping[StepState, int]]  # of all its items: by step, how many are in which state


class Operations:
    """What is being done, and what was."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._registry = tools.registry

    @verb("operation.list", "operations:read", Reach.LIST)
    async def list(
        self,
        state: str | None = None,
        tenant: str | None = None,
        verb: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Sequence[journal.Operation]:
        """The newest operations, newest first; `before` is the id of the last of the page before."""
        only = sees_only()
        async with self._registry.read() as tx:
            return await journal.latest(
                tx, state=state, tenant=tenant, verb=verb, limit=limit, before=before, admin=only
            )

    @verb("operation.show", "operations:read", Reach.OPERATION)
    async def show(self, operation_id: str, failures: int = FAILED_SHOWN) -> OperationDetails:
        """One operation; the first or last characters of its id are enough. Raises `OperationNotFound`.

        Of its items that failed the first so many are told, at most 1,000; `items` tells of all.
        """
        async with self._registry.read() as tx:
            operation = await journal.get(tx, operation_id)
            failed = (
                await journal.items(tx, operation.id, state=StepState.FAILED, limit=min(max(failures, 0), MOST_SHOWN))
                if operation.failed
                else []
            )
            tally = await journal.tally(tx, operation.id) if VERBS[operation.verb].pausable else {}
            return OperationDetails(operation, await journal.steps(tx, operation.id), failed, tally)

    @verb("operation.workers", "operations:read", Reach.LIST)
    async def workers(self) -> int:
        """How many workers live; where none does, an operation waits."""
        async with self._registry.read() as tx:
            return len(await journal.workers(tx, self._tools.config.worker.dead_after))

    @verb("operation.items", "operations:read", Reach.OPERATION)
    async def items(
        self, operation_id: str, state: StepState | None = None, limit: int = ITEMS_SHOWN, after: int = -1
    ) -> Sequence[journal.Item]:
        """The items of a fleet operation; `after` is the position of the last of the page before."""
        async with self._registry.read() as tx:
            found = await journal.get(tx, operation_id)
            return await journal.items(tx, found.id, state=state, limit=limit, after=after)

    def pausable(self, verb: str) -> bool:
        """Whether operations of this verb work on many tenants, and so can rest between two batches."""
        return VERBS[verb].pausable

    @property
    def verbs(self) -> Sequence[str]:
        """What operations do."""
        return sorted(VERBS)

    @verb("operation.follow", "operations:read", Reach.OPERATION)
    async def follow(self, operation_id: str, failures: int = MOST_SHOWN) -> AsyncIterator[OperationDetails]:
        """The operation now, then at every change of it, the last time when it is over or paused."""
        before = None
        async with Feed.signal(self._registry.database) as signal:
            while True:
                details = await self.show(operation_id, failures)
                if details != before:
                    yield details
                    before = details
                if not details.operation.state.live:
                    return
                await signal.wait()

    async def finish(self, operation_id: str) -> OperationDetails:
        """Wait until the operation is over or paused. Runs it in this process when no worker lives."""
        await self.show(operation_id)  # asks for the right before anything is waited for
        looked = -LOOK
        async with Feed.signal(self._registry.database) as signal:
            while True:
                async with self._registry.read() as tx:
                    operation = await journal.get(tx, operation_id)
                if not operation.state.live:
                    return await self.show(operation.id)
                if time.monotonic() - looked >= LOOK:  # a worker that is killed changes nothing
                    if not await self.workers():
                        await self._run_here(operation.id)
                        continue
                    looked = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await signal.wait()

    async def _run_here(self, operation_id: str) -> None:
        from tenantry.operations.worker import Worker  # the engine takes a second to import

        if Worker.one_is_here():  # it begins or ends just now
            await asyncio.sleep(LOOK / 10)
            return
        await Worker(self._tools, concurrency=1).run_one(operation_id)

    @verb("operation.resume", "operations:write", Reach.OPERATION)
    async def resume(self, operation_id: str) -> journal.Operation:
        """Queue a failed operation once more, or let a paused one go on; what it finished is not repeated.

        Raises `OperationRefused`.
        """
        async with self._registry.write() as tx:
            operation = await journal.get(tx, operation_id)
            if operation.state is State.FAILED:
                await self._again(tx, operation)
            elif operation.state is State.PAUSED:
                await journal.rouse(tx, operation)
            elif operation.state is State.PAUSING:
                await journal.set_state(tx, operation.id, State.RUNNING)
            else:
                raise OperationRefused(state=operation.state.value, action="resumed", operation=operation.id)
            _enter(tx, "operation.resume", operation)
            return await journal.get(tx, operation.id)

    async def _again(self, tx: Transaction, operation: journal.Operation) -> None:
        if operation.tenant_id is not None:
            await journal.refuse_busy(tx, operation.tenant_id, str(operation.tenant_slug))
        await VERBS[operation.verb].again(tx, self._tools, operation)
        await journal.again(tx, operation)
        if operation.tenant_id is not None:
            await journal.hold(tx, operation.id, [operation.tenant_id])

    @verb("operation.pause", "operations:write", Reach.OPERATION)
    async def pause(self, operation_id: str) -> journal.Operation:
        """Let an operation on many tenants rest after the batches under way. Raises `OperationRefused`."""
        async with self._registry.write() as tx:
            operation = await journal.get(tx, operation_id)
            if not VERBS[operation.verb].pausable:
                many = f"paused: {operation.verb} does not work on many tenants"
                raise OperationRefused(state=operation.state.value, action=many, operation=operation.id)
            if operation.state not in (State.QUEUED, State.RUNNING):
                raise OperationRefused(state=operation.state.value, action="paused", operation=operation.id)
            at_once = operation.state is State.QUEUED  # no worker has it
            await journal.set_state(tx, operation.id, State.PAUSED if at_once else State.PAUSING)
            _enter(tx, "operation.pause", operation)
            return await journal.get(tx, operation.id)

    @verb("operation.cancel", "operations:write", Reach.OPERATION)
    async def cancel(self, operation_id: str) -> journal.Operation:
        """Ask that an operation stop; what it made is undone, where its verb can be. Raises `OperationRefused`."""
        async with self._registry.write() as tx:
            operation = await journal.get(tx, operation_id)
            if operation.state not in (State.QUEUED, State.RUNNING, State.PAUSING, State.PAUSED):
                raise OperationRefused(state=operation.state.value, action="cancelled", operation=operation.id)
            if operation.verb == "destroy" and operation.state is not State.QUEUED:
                raise OperationRefused(state="running", action="cancelled: the tenant is going", operation=operation.id)
            if operation.state is State.PAUSED:
                await journal.rouse(tx, operation, State.CANCELLING)
            else:
                await journal.set_state(tx, operation.id, State.CANCELLING)
            _enter(tx, "operation.cancel", operation)
            return await journal.get(tx, operation.id)


def _enter(tx: Transaction, action: str, operation: journal.Operation) -> None:
    """Enter what was asked of an operation into the audit log: under its tenant, where it is on one."""
    if operation.tenant_id is None:
        tx.audit(action, operation.id, verb=operation.verb)
    else:
        facts = {"id": operation.tenant_id, "operation": operation.id, "verb": operation.verb}
        tx.audit(action, str(operation.tenant_slug), **facts)

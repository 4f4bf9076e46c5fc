"""Drives operations: each step once through the durable engine, progress into the registry, undone when given up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tenantry import tracing
from tenantry.errors import Cancelled, Fenced, Handover, Paused, RegistryUnavailable, TenantryError
from tenantry.operations import adopt, bulk, change, create, destroy, drop, migrate, rehearse, rollback, rotate, verify
from tenantry.operations.fleet import ItemsFailed, Stopwatch
from tenantry.operations.toolbox import Toolbox
from tenantry.operations.verb import Verb, Work
from tenantry.registry import Transaction, journal
from tenantry.registry.database import now
from tenantry.registry.journal import State, StepState

if TYPE_CHECKING:  # the engine takes half a second to import; only a worker needs it
    from tenantry.operations.engine import Durable, Outcome

log: Final = logging.getLogger("tenantry.operations")

NOT_HERE: Final = (Fenced, Handover, RegistryUnavailable)
"""What says nothing of a step but that this worker cannot go on with it now."""

VERBS: Final[Mapping[str, Verb]] = {
    verb.name: verb
    for verb in (
        create.Create(),
        change.Edit(),
        change.Rename(),
        change.Suspend(),
        change.Resume(),
        change.Activate(),
        destroy.Destroy(),
        drop.Drop(),
        migrate.Migrate(),
        rehearse.Rehearse(),
        rollback.Rollback(),
        bulk.Import(),
        rotate.Rotate(),
        adopt.Adopt(),
        verify.Verify(),
    )
}


MAKING: Final = frozenset({create.Create.name, adopt.Adopt.name, bulk.Import.name})
"""Verbs that make tenants."""


class Unexpected(TenantryError):
    """{kind}: {text}"""

    code = "operation.unexpected"
    remedy = "This is a fault of Tenantry or of a driver; its log has the traceback."


class Runner:
    """Runs operations for one worker."""

    def __init__(self, tools: Toolbox, worker_id: str) -> None:
        self.tools = tools
        self.worker_id = worker_id
        self.running: set[str] = set()
        self.ending = False
        self._taken: dict[str, tuple[journal.Operation, list[journal.Step]]] = {}
        self.made = asyncio.Event()  # set when tenants were made, which may have taken warm spares
        self._idle = asyncio.Event()
        self._idle.set()

    async def take(self, tx: Transaction, operation_id: str) -> journal.Operation:
        """Take an operation in the transaction that claims it, and keep it at hand for `drive`."""
        self._taken[operation_id] = await self._take(tx, operation_id)
        return self._taken[operation_id][0]

    def begin(self, operation_id: str) -> None:
        """Count an operation as under way here."""
        self.running.add(operation_id)
        self._idle.clear()

    def over(self, operation_id: str) -> None:
        """Count an operation as no longer under way here."""
        self.running.discard(operation_id)
        self._taken.pop(operation_id, None)
        if not self.running:
            self._idle.set()

    async def rest(self, seconds: float) -> None:
        """Wait until nothing is under way here, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def idle(self) -> None:
        """Leave each operation at the end of its step or batch, and wait until nothing is under way here."""
        self.ending = True
        await self._idle.wait()

    async def drive(self, operation_id: str, durable: Durable) -> None:
        """Run an operation to its end. Called again after a crash, it goes on behind the recorded steps."""
        self.begin(operation_id)
        try:
            await self._drive(operation_id, durable)
        except Exception as error:
            # Whoever takes the operation next must find it as it is: so nothing of this is recorded.
            _tell(operation_id, error)
            raise asyncio.CancelledError from error
        except asyncio.CancelledError as cancelled:
            _tell(operation_id, cancelled.__cause__)
            raise
        finally:
            self.over(operation_id)

    async def _drive(self, operation_id: str, durable: Durable) -> None:
        taken = self._taken.pop(operation_id, None)
        if taken is None:
            async with self.tools.registry.write() as tx:
                taken = await self._take(tx, operation_id)
        operation, steps = taken
        if not operation.state.live:
            return
        named = {"tenantry.tenant": operation.tenant_slug, "tenantry.operation": operation.id}
        with tracing.span(f"operation {operation.verb}", named) as note:
            note("tenantry.state", (await self._carry(operation, steps, durable)).get("code", "done"))

    async def _carry(self, operation: journal.Operation, steps: Sequence[journal.Step], durable: Durable) -> Outcome:
        work = Work(self.tools, operation, lambda: self.ending)
        outcome = await durable("steps", partial(self._perform_all, work, steps))
        undone = bool(outcome) and VERBS[operation.verb].reversible and not _rests(outcome)
        if undone:
            await durable("undo", partial(self._undo_all, work))
        await durable("end", partial(self.end, work, outcome, undone))
        return outcome

    async def _take(self, tx: Transaction, operation_id: str) -> tuple[journal.Operation, list[journal.Step]]:
        """The operation in this worker's hands, its first open step recorded as running."""
        operation = await journal.take(tx, operation_id, self.worker_id)
        steps = await journal.steps(tx, operation_id)
        following = next((step.position for step in steps if step.state is not StepState.DONE), None)
        if operation.state is State.RUNNING and following is not None:
            await journal.begin_step(tx, operation_id, following)
        return operation, steps

    async def _perform_all(self, work: Work, steps: Sequence[journal.Step]) -> Outcome:
        """All steps that are not done, until one does not go well: then its error. What is done, the registry knows."""
        asked = _asked(work.operation.state, work.operation.id)
        if asked is not None:
            return asked.as_dict()
        for step in steps:
            self._stay()
            if step.state is not StepState.DONE and (outcome := await self.perform(work, step)):
                return outcome
        return {}

    async def _undo_all(self, work: Work) -> Outcome:
        """Undo, last first, every step that was begun."""
        async with self.tools.registry.read() as tx:
            steps = await journal.steps(tx, work.operation.id)
        for step in reversed(steps):
            self._stay()
            if step.state not in (StepState.PENDING, StepState.UNDONE):
                await self.undo(work, step)
        return {}

    def _stay(self) -> None:
        """Raise `Handover` where this worker is asked to end: then whoever takes the operation next goes on here."""
        if self.ending:
            raise Handover

    async def perform(self, work: Work, step: journal.Step) -> Outcome:
        """One step; {} when it went well, otherwise its error. Raises only what means: not this worker, not now."""
        watch, operation = Stopwatch(), work.operation
        named = {"tenantry.tenant": operation.tenant_slug, "tenantry.operation": operation.id}
        try:
            with tracing.span(f"{operation.verb}: {step.name}", named):
                detail = await VERBS[operation.verb].perform(work, step)
        except NOT_HERE:
            raise
        except Exception as error:
            return await self._failed(work, step, error, watch.seconds)
        return await self._done(work, step, detail, watch.seconds)

    async def _done(self, work: Work, step: journal.Step, detail: str, seconds: float) -> Outcome:
        """Record that a step is done and the next one runs; where someone asked for it, the end before that one."""
        operation = work.operation
        async with self.tools.registry.write() as tx:
            state = await journal.guard(tx, operation)
            await journal.set_step(tx, operation.id, step.position, StepState.DONE, detail, seconds)
            await work.catch_up(tx)
            if operation.verb not in FLEET:
                await journal.progress(tx, operation.id, done=1)
            asked = _asked(state, operation.id)
            if asked is not None and await journal.step_after(tx, operation.id, step.position):
                return asked.as_dict()
            await journal.begin_step(tx, operation.id, step.position + 1)
        return {}

    async def _failed(self, work: Work, step: journal.Step, error: Exception, seconds: float) -> Outcome:
        if not isinstance(error, TenantryError):
            log.exception("step %s of operation %s", step.name, work.operation.id)
            error = Unexpected(kind=type(error).__name__, text=str(error))
        async with self.tools.registry.write() as tx:
            await journal.guard(tx, work.operation)
            state = StepState.PENDING if isinstance(error, Paused) else StepState.FAILED
            if isinstance(error, Cancelled):  # what it did so far is to be undone, where the verb undoes anything
                state = StepState.RUNNING if VERBS[work.operation.verb].reversible else StepState.PENDING
            told = "" if isinstance(error, Paused) else str(error)
            await journal.set_step(tx, work.operation.id, step.position, state, told, seconds)
        return error.as_dict()

    async def undo(self, work: Work, step: journal.Step) -> Outcome:
        """Undo a step; what cannot be undone is said at the step and holds up nothing else."""
        state, detail = StepState.UNDONE, ""
        try:
            await VERBS[work.operation.verb].undo(work, step)
        except NOT_HERE:
            raise
        except Exception as error:
            log.exception("undoing step %s of operation %s", step.name, work.operation.id)
            state, detail = StepState.FAILED, f"could not be undone: {error}"
        async with self.tools.registry.write() as tx:
            await journal.guard(tx, work.operation)
            await journal.set_step(tx, work.operation.id, step.position, state, detail)
        return {}

    async def end(self, work: Work, outcome: Outcome, undone: bool) -> Outcome:
        """Record how the operation ended, in one transaction with what the verb has to say to that."""
        verb, operation = VERBS[work.operation.verb], work.operation
        digest = None if _rests(outcome) else await verb.digest(work)  # before others are kept from writing
        async with self.tools.registry.write(operation.actor) as tx:
            now_is = await journal.guard(tx, operation)
            if _rests(outcome):
                await journal.rest(tx, operation, now_is)
                return {}
            pause = verb.retry(work, outcome) if outcome else None
            if pause is not None and now_is is State.CANCELLING:
                outcome = Cancelled().as_dict()
            elif pause is not None:
                await journal.again(tx, operation, due=now() + timedelta(seconds=pause), error=outcome)
                return {}
            if undone:
                await verb.give_up(tx, work)
            if digest is not None:
                await journal.put_digest(tx, operation.id, digest)
            result = None if outcome else await verb.complete(tx, work)
            state, error = await self._verdict(work, outcome, result)
            await journal.set_state(tx, operation.id, state, error=error, result=result)
        if operation.verb in MAKING:
            self.made.set()
        return {}

    async def _verdict(
        self, work: Work, outcome: Outcome, result: Mapping[str, Any] | None
    ) -> tuple[State, Mapping[str, str] | None]:
        if outcome:
            return (State.CANCELLED if outcome["code"] == Cancelled.code else State.FAILED), outcome
        failed = int((result or {}).get("failed", 0))
        if failed:
            return State.FAILED, ItemsFailed(failed=failed, total=work.operation.total).as_dict()
        return State.DONE, None


def _asked(state: State, operation_id: str) -> TenantryError | None:
    """What someone asked of an operation that runs, by its state."""
    if state is State.CANCELLING:
        return Cancelled()
    return Paused(operation=operation_id) if state is State.PAUSING else None


def _rests(outcome: Outcome) -> bool:
    return bool(outcome) and outcome["code"] == Paused.code


def _tell(operation_id: str, cause: BaseException | None) -> None:
    if isinstance(cause, RegistryUnavailable):
        log.warning("operation %s was interrupted: %s", operation_id, cause)
    elif cause is not None and not isinstance(cause, NOT_HERE):
        log.error("operation %s was interrupted", operation_id, exc_info=cause)


FLEET: Final = frozenset(
    {migrate.Migrate.name, bulk.Import.name, rehearse.Rehearse.name, rotate.Rotate.name, verify.Verify.name}
)
"""Verbs that count tenants, not steps."""

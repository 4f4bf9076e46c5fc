"""Operations as rows: submitted with their steps, taken by workers, followed by everyone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, case, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from tenantry.errors import Fenced, OperationInProgress, OperationNotFound
from tenantry.registry import tables
from tenantry.registry.database import IN_LIMIT, Transaction, chunks, now, plain

ITEM_CHUNK: Final = 200


class State(StrEnum):
    """Where an operation is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def live(self) -> bool:
        """Whether a worker has the operation, or is to take it: it is neither over nor paused."""
        return self in (State.QUEUED, State.RUNNING, State.PAUSING, State.CANCELLING)


class StepState(StrEnum):
    """Where a step or an item is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"

    @property
    def ended(self) -> bool:
        """Whether it was worked on, well or not."""
        return self in (StepState.DONE, StepState.FAILED)


@dataclass(frozen=True, slots=True)
class Operation:
    """A durable run of steps on a tenant or on many."""

    id: str
    verb: str
    tenant_id: str | None
    tenant_slug: str | None
    arguments: Mapping[str, Any]
    state: State
    attempt: int
    done: int
    total: int
    failed: int
    error: Mapping[str, str] | None
    result: Mapping[str, Any] | None
    actor: str
    worker_id: str | None
    fence: int
    created: datetime
    started: datetime | None
    ended: datetime | None
    due: datetime | None  # no worker takes it before


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an operation."""

    position: int
    name: str
    kind: str
    state: StepState
    detail: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Item:
    """One tenant of a fleet operation, or one row of an import."""

    position: int
    step: int
    lane: str
    subject: str
    arguments: Mapping[str, Any]
    state: StepState
    detail: str
    error: Mapping[str, str] | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to be worked on by the step of this position."""

    step: int
    subject: str
    arguments: Mapping[str, Any]
    error: Mapping[str, str] | None = None  # one that is refused from the start is named with its reason
    lane: str = ""  # those of one lane are worked on a few at a time, lanes beside one another


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that takes operations."""

    id: str
    host: str
    pid: int
    started: datetime
    heartbeat: datetime
    concurrency: int


_OPERATION: Final = [tables.operation.c[name] for name in Operation.__slots__]
_STEP: Final = [tables.operation_step.c[name] for name in Step.__slots__]
_ITEM: Final = [tables.operation_item.c[name] for name in Item.__slots__]
_WORKER: Final = [tables.worker.c[name] for name in Worker.__slots__]
_LIVE: Final = [state.value for state in State if state.live]
_OPEN: Final = [*_LIVE, State.PAUSED.value]


def _operation(row: Any) -> Operation:
    values = row._mapping
    return Operation(**{**{name: values[name] for name in Operation.__slots__}, "state": State(values["state"])})


# --- submitting ---------------------------------------------------------------------------------------------------


async def submit(
    tx: Transaction,
    operation_id: str,
    verb: str,
    steps: Sequence[tuple[str, str]],
    *,
    tenant: tuple[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    items: Sequence[NewItem] = (),
    holds: bool = True,
) -> None:
    """Enter an operation with its steps (name, kind), and hold its tenant (id, slug) unless told otherwise.

    Raises `OperationInProgress`, naming the operation that holds the tenant, when there is one.
    """
    if tenant is not None and holds:
        await refuse_busy(tx, *tenant)
    row = {
        "id": operation_id,
        "verb": verb,
        "tenant_id": tenant[0] if tenant else None,
        "tenant_slug": tenant[1] if tenant else None,
        "arguments": dict(arguments or {}),
        "state": State.QUEUED.value,
        "total": len(items) or len(steps),
        "failed": sum(item.error is not None for item in items),
        "actor": tx.actor,
        "created": now(),
    }
    await tx.execute(insert(tables.operation).values(row))
    await tx.insert(
        tables.operation_step,
        [
            {"operation_id": operation_id, "position": i, "name": name, "kind": kind, "state": StepState.PENDING.value}
            for i, (name, kind) in enumerate(steps)
        ],
    )
    for some in chunks(list(enumerate(items)), ITEM_CHUNK):
        await tx.insert(tables.operation_item, [_item_row(operation_id, position, item) for position, item in some])
    if tenant is not None and holds:
        await hold(tx, operation_id, [tenant[0]])


def _item_row(operation_id: str, position: int, item: NewItem) -> dict[str, Any]:
    return {
        "operation_id": operation_id,
        "position": position,
        "step": item.step,
        "lane": item.lane,
        "subject": item.subject[:200],
        "arguments": dict(item.arguments),
        "state": (StepState.FAILED if item.error else StepState.PENDING).value,
        "error": item.error,
    }


async def refuse_busy(tx: Transaction, tenant_id: str, slug: str) -> None:
    """Raise `OperationInProgress` when an operation holds the tenant."""
    query = select(*_OPERATION).join(tables.tenant_lock).where(tables.tenant_lock.c.tenant_id == tenant_id)
    row = await tx.first(query)
    if row is not None:
        raise OperationInProgress(slug=slug, operation=row.id, verb=row.verb, state=row.state)


async def hold(tx: Transaction, operation_id: str, tenant_ids: Sequence[str]) -> list[str]:
    """Hold those of the tenants that no other operation holds, and name them."""
    held: dict[str, str] = {}
    for some in chunks(tenant_ids, IN_LIMIT):
        query = select(tables.tenant_lock).where(tables.tenant_lock.c.tenant_id.in_(some))
        held.update({row.tenant_id: row.operation_id for row in await tx.all(query)})
    fresh = [tenant_id for tenant_id in dict.fromkeys(tenant_ids) if tenant_id not in held]
    try:
        await tx.insert(tables.tenant_lock, [{"tenant_id": t, "operation_id": operation_id} for t in fresh])
    except IntegrityError as error:
        raise OperationInProgress(slug="a tenant", operation="of another process", verb="?", state="new") from error
    return [t for t in tenant_ids if held.get(t, operation_id) == operation_id]


async def release(tx: Transaction, operation_id: str, tenant_ids: Sequence[str] | None = None) -> None:
    """Let go of tenants, or of all that the operation holds."""
    lock = tables.tenant_lock
    if tenant_ids is None:
        await tx.execute(delete(lock).where(lock.c.operation_id == operation_id))
        return
    for some in chunks(tenant_ids, IN_LIMIT):
        await tx.execute(delete(lock).where(lock.c.operation_id == operation_id, lock.c.tenant_id.in_(some)))


# --- reading ------------------------------------------------------------------------------------------------------


async def get(tx: Transaction, operation_id: str) -> Operation:
    """The operation of this id, or the only one whose id begins or ends so. Raises `OperationNotFound`."""
    operation_id = plain(operation_id)
    row = await tx.first(select(*_OPERATION).where(tables.operation.c.id == operation_id))
    if row is None and len(operation_id) >= 6:
        column = tables.operation.c.id
        alike = [match(operation_id, autoescape=True) for match in (column.startswith, column.endswith)]
        rows = await tx.all(select(*_OPERATION).where(or_(*alike)).limit(2))
        row = rows[0] if len(rows) == 1 else None
    if row is None:
        raise OperationNotFound(operation=operation_id)
    return _operation(row)


async def latest(
    tx: Transaction,
    *,
    state: str | None = None,
    tenant: str | None = None,
    tenant_id: str | None = None,
    verb: str | None = None,
    limit: int = 50,
    before: str | None = None,
    admin: str | None = None,
) -> list[Operation]:
    """The newest operations, newest first; those before one, and on the tenants of one admin.

    `tenant` is the slug that a tenant had then; another one may have it now, so `tenant_id` is surer.
    """
    query = select(*_OPERATION).order_by(tables.operation.c.id.desc()).limit(limit)
    for column, value in (
        (tables.operation.c.state, state),
        (tables.operation.c.tenant_slug, tenant),
        (tables.operation.c.tenant_id, tenant_id),
        (tables.operation.c.verb, verb),
    ):
        if value:
            query = query.where(column == plain(value))
    if before:
        query = query.where(tables.operation.c.id < plain(before))
    if admin:
        query = query.where(tables.operation.c.tenant_id.in_(tables.tenants_of(admin)))
    return [_operation(row) for row in await tx.all(query)]


async def steps(tx: Transaction, operation_id: str) -> list[Step]:
    """An operation's steps in order."""
    table = tables.operation_step
    rows = await tx.all(select(*_STEP).where(table.c.operation_id == operation_id).order_by(table.c.position))
    return [Step(**{**row._mapping, "state": StepState(row.state)}) for row in rows]


async def items(
    tx: Transaction,
    operation_id: str,
    *,
    step: int | None = None,
    lane: str | None = None,
    state: StepState | None = None,
    limit: int | None = None,
    after: int = -1,
) -> list[Item]:
    """An operation's items in order."""
    table = tables.operation_item
    own = table.c.operation_id == operation_id
    query = select(*_ITEM).where(own, table.c.position > after)
    if state is not None and step is None:  # an index tells of which rows alone, however long the others are
        place = table.c.position + 0
        some = select(table.c.position).where(own, place > after, table.c.state == state).order_by(place).limit(limit)
        query = select(*_ITEM).where(own, table.c.position.in_(some))
    for column, value in ((table.c.step, step), (table.c.lane, lane), (table.c.state, state)):
        if value is not None:
            query = query.where(column == value)
    return [_item(row) for row in await tx.all(query.order_by(table.c.position).limit(limit))]


def _item(row: Any) -> Item:
    return Item(**{**row._mapping, "state": StepState(row.state)})


async def all_items(tx: Transaction, operation_id: str) -> AsyncIterator[Item]:
    """All items in order: never many of them in memory."""
    after = -1
    while some := await items(tx, operation_id, limit=ITEM_CHUNK, after=after):
        for item in some:
            yield item
        after = some[-1].position


async def digest(tx: Transaction, operation_id: str) -> str | None:
    """What all items of an operation say together, as its verb wrote it down when it was over; None before."""
    table = tables.operation_digest
    found: str | None = await tx.scalar(select(table.c.content).where(table.c.operation_id == operation_id))
    return found


async def put_digest(tx: Transaction, operation_id: str, content: str | None) -> None:
    """Write down what all items of an operation say together; None: nothing, since they are worked on again."""
    table = tables.operation_digest
    await tx.execute(delete(table).where(table.c.operation_id == operation_id))
    if content is not None:
        await tx.insert(table, [{"operation_id": operation_id, "content": plain(content)}])


async def open_ones(tx: Transaction, verb: str) -> list[Operation]:
    """The operations of this verb that are not over, the paused among them, oldest first."""
    query = select(*_OPERATION).where(tables.operation.c.state.in_(_OPEN), tables.operation.c.verb == verb)
    return [_operation(row) for row in await tx.all(query.order_by(tables.operation.c.id))]


async def tally(tx: Transaction, operation_id: str) -> dict[int, dict[StepState, int]]:
    """How many of an operation's items are in which state, by the step that works on them."""
    table = tables.operation_item
    query = select(table.c.step, table.c.state, func.count()).where(table.c.operation_id == operation_id)
    found: dict[int, dict[StepState, int]] = {}
    for step, state, number in await tx.all(query.group_by(table.c.step, table.c.state)):
        found.setdefault(step, {})[StepState(state)] = number
    return found


async def steps_of(tx: Transaction, operation_id: str, state: StepState, detail: str) -> list[int]:
    """The steps of an operation's items that are in this state for this reason."""
    table = tables.operation_item
    query = select(table.c.step).where(table.c.operation_id == operation_id, table.c.state == state.value)
    return [row[0] for row in await tx.all(query.where(table.c.detail == detail))]


async def lanes(tx: Transaction, operation_id: str, step: int) -> list[str]:
    """The lanes in which a step has items that wait."""
    table = tables.operation_item
    query = select(table.c.lane).where(table.c.operation_id == operation_id, table.c.step == step)
    rows = await tx.all(query.where(table.c.state == StepState.PENDING.value).distinct().order_by(table.c.lane))
    return [row[0] for row in rows]


async def live_or_fresh(tx: Transaction, ids: Sequence[str], seconds: float) -> set[str]:
    """Which of these operations are not over, or were not so long ago."""
    table = tables.operation
    fresh = or_(table.c.state.in_(_OPEN), table.c.ended > now() - timedelta(seconds=seconds))
    found: set[str] = set()
    for some in chunks(ids, 500):
        found.update(row.id for row in await tx.all(select(table.c.id).where(table.c.id.in_(some), fresh)))
    return found


# --- working ------------------------------------------------------------------------------------------------------


async def anything_queued(tx: Transaction) -> bool:
    """Whether a worker would find something to take."""
    query = select(tables.operation.c.id).where(tables.operation.c.state == State.QUEUED.value, _due()).limit(1)
    return await tx.first(query) is not None


def _due() -> ColumnElement[bool]:
    return or_(tables.operation.c.due.is_(None), tables.operation.c.due <= now())


async def claim(tx: Transaction, worker_id: str, operation_id: str | None = None) -> Operation | None:
    """Take the oldest queued operation, or this one; None when there is none."""
    table = tables.operation
    query = select(table.c.id).where(table.c.state == State.QUEUED.value, _due()).order_by(table.c.id).limit(1)
    if operation_id is not None:
        query = query.where(table.c.id == operation_id)
    found = await tx.scalar(query)
    if found is None:
        return None
    values = {"state": State.RUNNING.value, "worker_id": worker_id, "started": func.coalesce(table.c.started, now())}
    await tx.execute(update(table).where(table.c.id == found).values(values))
    return await get(tx, found)


async def take(tx: Transaction, operation_id: str, worker_id: str) -> Operation:
    """Become the one worker of an operation: its fence is counted up, so whoever had it before can write no more."""
    table = tables.operation
    await tx.execute(
        update(table)
        .where(table.c.id == operation_id, table.c.state.in_(_LIVE))
        .values(
            worker_id=worker_id,
            fence=table.c.fence + 1,
            state=case((table.c.state == State.QUEUED.value, State.RUNNING.value), else_=table.c.state),
        )
    )
    return await get(tx, operation_id)


async def adopt(tx: Transaction, operation: Operation, worker_id: str) -> bool:
    """Take responsibility for an operation whose worker died; False when another one was quicker."""
    table = tables.operation
    same = and_(table.c.id == operation.id, table.c.fence == operation.fence, table.c.state.in_(_LIVE))
    owner = table.c.worker_id.is_(None) if operation.worker_id is None else table.c.worker_id == operation.worker_id
    return (await tx.execute(update(table).where(same, owner).values(worker_id=worker_id))).rowcount > 0


async def guard(tx: Transaction, operation: Operation) -> State:
    """The operation's state now. Raises `Fenced` when another worker has taken it."""
    table = tables.operation
    query = select(table.c.state).where(table.c.id == operation.id, table.c.fence == operation.fence)
    state = await tx.scalar(query)
    if state is None:
        raise Fenced(operation=operation.id)
    return State(state)


async def set_step(
    tx: Transaction, operation_id: str, position: int, state: StepState, detail: str = "", seconds: float | None = None
) -> None:
    """Record where a step is."""
    table = tables.operation_step
    where = and_(table.c.operation_id == operation_id, table.c.position == position)
    await tx.execute(update(table).where(where).values(state=state.value, detail=plain(detail), seconds=seconds))


async def begin_step(tx: Transaction, operation_id: str, position: int) -> bool:
    """Record that a step runs; False when it is done already."""
    table = tables.operation_step
    where = and_(table.c.operation_id == operation_id, table.c.position == position)
    statement = update(table).where(where, table.c.state != StepState.DONE.value)
    return (await tx.execute(statement.values(state=StepState.RUNNING.value, detail="", seconds=None))).rowcount > 0


async def step_after(tx: Transaction, operation_id: str, position: int) -> bool:
    """Whether an operation has a step behind this one."""
    table = tables.operation_step
    where = and_(table.c.operation_id == operation_id, table.c.position > position)
    return await tx.first(select(table.c.position).where(where).limit(1)) is not None


async def set_items(tx: Transaction, operation_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record where items are: position, state, detail, error, seconds."""
    table = tables.operation_item
    statement = (
        update(table)
        .where(table.c.operation_id == operation_id, table.c.position == bindparam("at"))
        .values({name: bindparam("new_" + name) for name in ("state", "detail", "error", "seconds")})
    )
    if rows:
        parameters = [
            {"at": row["position"], **{"new_" + name: row.get(name) for name in ("state", "error", "seconds")}}
            | {"new_detail": plain(row.get("detail", ""))}
            for row in rows
        ]
        await tx.execute(statement, parameters)


async def progress(tx: Transaction, operation_id: str, *, done: int = 0, failed: int = 0) -> None:
    """Count up what is done."""
    table = tables.operation
    values = {"done": table.c.done + done, "failed": table.c.failed + failed}
    await tx.execute(update(table).where(table.c.id == operation_id).values(values))


async def set_state(tx: Transaction, operation_id: str, state: State, **columns: Any) -> None:
    """Record where an operation is; one that is over, or paused, lets go of its tenants."""
    table = tables.operation
    if not state.live:
        columns = columns if state is State.PAUSED else {"ended": now(), **columns}
        await release(tx, operation_id)
    await tx.execute(update(table).where(table.c.id == operation_id).values(state=state.value, **columns))


async def rest(tx: Transaction, operation: Operation, state: State) -> None:
    """Record that its worker has let go of an operation, which is in this state, in order to pause.

    Whoever asked for something else meanwhile gets that: it goes on as a new run of the engine's, behind what is done.
    """
    if state is State.PAUSING:
        await set_state(tx, operation.id, State.PAUSED, worker_id=None)
    else:
        await rouse(tx, operation, State.QUEUED if state is State.RUNNING else state)


async def rouse(tx: Transaction, operation: Operation, state: State = State.QUEUED) -> None:
    """Let a paused operation go on, behind what is done."""
    await set_state(tx, operation.id, state, attempt=operation.attempt + 1, worker_id=None)


async def move_items(tx: Transaction, operation_id: str, positions: Sequence[int], step: int) -> None:
    """Let another step work on items that wait."""
    table = tables.operation_item
    for some in chunks(positions, IN_LIMIT):
        where = and_(table.c.operation_id == operation_id, table.c.position.in_(some))
        await tx.execute(update(table).where(where).values(step=step))


async def again(
    tx: Transaction,
    operation: Operation,
    *,
    due: datetime | None = None,
    error: Mapping[str, str] | None = None,
) -> None:
    """Queue an operation for another attempt, with its steps and failed items as they were at first.

    `due` is the moment before which no worker takes it, `error` why the last attempt failed.
    """
    step, item = tables.operation_step, tables.operation_item
    await tx.execute(
        update(step)
        .where(step.c.operation_id == operation.id)
        .values(state=StepState.PENDING.value, detail="", seconds=None)
    )
    retried = and_(item.c.operation_id == operation.id, item.c.state == StepState.FAILED.value, item.c.step >= 0)
    number = (await tx.execute(update(item).where(retried).values(state=StepState.PENDING.value, error=None))).rowcount
    fleet = await tx.scalar(select(func.count()).select_from(item).where(item.c.operation_id == operation.id))
    await put_digest(tx, operation.id, None)
    await set_state(
        tx,
        operation.id,
        State.QUEUED,
        attempt=operation.attempt + 1,
        done=operation.done if fleet else 0,
        failed=operation.failed - number if fleet else 0,
        error=error,
        ended=None,
        worker_id=None,
        due=due,
    )


async def note(tx: Transaction, operation: Operation, **arguments: Any) -> None:
    """Keep something more among an operation's arguments, for its next attempt."""
    values = {"arguments": {**operation.arguments, **arguments}}
    await tx.execute(update(tables.operation).where(tables.operation.c.id == operation.id).values(values))


# --- workers ------------------------------------------------------------------------------------------------------


async def enlist(tx: Transaction, worker: Worker) -> None:
    """Enter a worker."""
    await tx.insert(tables.worker, [{name: getattr(worker, name) for name in Worker.__slots__}])


async def beat(tx: Transaction, worker_id: str) -> bool:
    """A sign of life; False when the worker was counted out meanwhile."""
    statement = update(tables.worker).where(tables.worker.c.id == worker_id).values(heartbeat=now())
    return (await tx.execute(statement)).rowcount > 0


async def dismiss(tx: Transaction, worker_id: str) -> None:
    """Remove a worker that ends."""
    await tx.execute(delete(tables.worker).where(tables.worker.c.id == worker_id))


async def workers(tx: Transaction, dead_after: float) -> list[Worker]:
    """The workers that live."""
    alive = tables.worker.c.heartbeat > now() - timedelta(seconds=dead_after)
    return [Worker(*row) for row in await tx.all(select(*_WORKER).where(alive).order_by(tables.worker.c.id))]


async def bury(tx: Transaction, dead_after: float) -> None:
    """Remove workers that have shown no life for ten times as long as it takes to count one out."""
    long_ago = now() - timedelta(seconds=dead_after * 10)
    await tx.execute(delete(tables.worker).where(tables.worker.c.heartbeat < long_ago))


async def orphans(tx: Transaction, dead_after: float, own: str) -> list[Operation]:
    """Running operations whose worker shows no life, and those of the worker that asks."""
    alive = select(tables.worker.c.id).where(tables.worker.c.heartbeat > now() - timedelta(seconds=dead_after))
    table = tables.operation
    running = table.c.state.in_([State.RUNNING.value, State.PAUSING.value, State.CANCELLING.value])
    lost = or_(table.c.worker_id.is_(None), table.c.worker_id == own, table.c.worker_id.not_in(alive))
    return [_operation(row) for row in await tx.all(select(*_OPERATION).where(running, lost))]

"""The journal of operations on SQLite and on PostgreSQL: one worker has an operation, and one operation a tenant."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from tenantry.errors import Fenced, OperationInProgress, OperationNotFound
from tenantry.model import new_id
from tenantry.registry import Registry, journal, tables
from tenantry.registry.database import now
from tenantry.registry.journal import NewItem, Operation, State, StepState

STEPS = [("db", "sqlite"), ("live", "")]
PROBLEM = {"code": "x", "message": 'Größer als erlaubt — "quoted"', "remedy": ""}
DEAD_AFTER = 60.0


async def submit(registry: Registry, verb: str = "create", slug: str | None = None, **how: Any) -> Operation:
    """Submit an operation on a tenant that nothing holds, or on none."""
    identity = new_id()
    tenant = (how.pop("tenant_id", None) or new_id(), slug) if slug else None
    async with registry.write() as tx:
        await journal.submit(tx, identity, verb, how.pop("steps", STEPS), tenant=tenant, **how)
        return await journal.get(tx, identity)


async def get(registry: Registry, operation: Operation) -> Operation:
    """The operation as it is now."""
    async with registry.read() as tx:
        return await journal.get(tx, operation.id)


async def claim(registry: Registry, worker: str, operation_id: str | None = None) -> Operation | None:
    """Claim in a transaction of its own."""
    async with registry.write() as tx:
        return await journal.claim(tx, worker, operation_id)


async def take(registry: Registry, operation: Operation, worker: str) -> Operation:
    """Take in a transaction of its own."""
    async with registry.write() as tx:
        return await journal.take(tx, operation.id, worker)


async def finish(registry: Registry, operation: Operation, state: State, **columns: Any) -> Operation:
    """End an operation."""
    async with registry.write() as tx:
        await journal.set_state(tx, operation.id, state, **columns)
        return await journal.get(tx, operation.id)


async def locks(registry: Registry) -> dict[str, str]:
    """Which operation holds which tenant."""
    async with registry.read() as tx:
        return {row.tenant_id: row.operation_id for row in await tx.all(select(tables.tenant_lock))}


# --- submitting and reading ---------------------------------------------------------------------------------------


async def test_a_submitted_operation_waits_with_its_steps(registry: Registry) -> None:
    """It comes back as it was given, with unicode, in UTC, and holds its tenant."""
    start = now()
    operation = await submit(registry, slug="acme", arguments={"name": "Ærø 東京", "deep": [1, None, {"a": True}]})
    assert operation == await get(registry, operation)
    assert (operation.state, operation.state.live) == (State.QUEUED, True)
    assert (operation.verb, operation.tenant_slug, operation.actor) == ("create", "acme", "tester")
    assert (operation.attempt, operation.done, operation.total, operation.failed, operation.fence) == (1, 0, 2, 0, 0)
    assert operation.arguments == {"name": "Ærø 東京", "deep": [1, None, {"a": True}]}
    assert (operation.error, operation.result, operation.worker_id) == (None, None, None)
    assert (operation.started, operation.ended) == (None, None)
    assert operation.created.tzinfo is UTC
    assert start <= operation.created <= now()
    async with registry.read() as tx:
        steps = await journal.steps(tx, operation.id)
        assert await journal.anything_queued(tx)
    assert [(s.position, s.name, s.kind, s.state) for s in steps] == [
        (0, "db", "sqlite", StepState.PENDING),
        (1, "live", "", StepState.PENDING),
    ]
    assert await locks(registry) == {operation.tenant_id: operation.id}


async def test_an_operation_is_found_by_a_part_of_its_id(registry: Registry) -> None:
    """Six characters of the beginning or end do where they are enough; jokers and odd characters find nothing."""
    first = await submit(registry)
    second = await submit(registry)
    async with registry.read() as tx:
        assert (await journal.get(tx, second.id[-12:])).id == second.id
        assert (await journal.get(tx, first.id[:35])).id == first.id
        for wrong in (new_id(), first.id[:6], first.id[-5:], "", "%%%%%%", "______", "0\0" + first.id, first.id + "'"):
            with pytest.raises(OperationNotFound):
                await journal.get(tx, wrong)


async def test_the_latest_come_first(registry: Registry) -> None:
    """Narrowed by state, tenant and verb."""
    made = []
    for verb, slug in (("create", "acme"), ("edit", "other"), ("migrate", None), ("edit", "acme")):
        made.append(await submit(registry, verb, slug))
        await asyncio.sleep(0.002)
    await finish(registry, made[0], State.DONE)

    async def latest(**how: Any) -> list[str]:
        async with registry.read() as tx:
            return [operation.id for operation in await journal.latest(tx, **how)]

    ids = [operation.id for operation in made]
    assert await latest() == ids[::-1]
    assert await latest(limit=2) == ids[:1:-1]
    assert await latest(tenant="acme") == [ids[3], ids[0]]
    assert await latest(verb="edit", tenant="acme") == [ids[3]]
    assert await latest(state="done") == [ids[0]]


# --- one operation per tenant -------------------------------------------------------------------------------------


async def test_a_tenant_has_one_operation_at_a_time(registry: Registry) -> None:
    """The second is refused with the name of the first, until that is over."""
    first = await submit(registry, slug="acme")
    with pytest.raises(OperationInProgress, match=f"operation {first.id} \\(create\\) is queued"):
        await submit(registry, "edit", "acme", tenant_id=first.tenant_id)
    async with registry.read() as tx:
        assert len(await journal.latest(tx)) == 1
    await finish(registry, first, State.DONE)
    assert await locks(registry) == {}
    second = await submit(registry, "edit", "acme", tenant_id=first.tenant_id)
    assert await locks(registry) == {first.tenant_id: second.id}


async def test_of_many_that_want_a_tenant_one_gets_it(registry: Registry) -> None:
    """The others are told which has it."""
    tenant = new_id()
    outcomes = await asyncio.gather(
        *(submit(registry, "edit", "acme", tenant_id=tenant) for _ in range(8)), return_exceptions=True
    )
    (won,) = [outcome for outcome in outcomes if isinstance(outcome, Operation)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, OperationInProgress)]
    assert len(refused) == 7
    assert {error.details["operation"] for error in refused} == {won.id}


async def test_an_operation_on_many_tenants_holds_those_that_are_free(registry: Registry) -> None:
    """It is told which it has; what it has already it keeps; it lets go of some, or of all."""
    busy = await submit(registry, slug="acme")
    fleet = await submit(registry, "migrate")
    free = [new_id() for _ in range(1200)]
    assert busy.tenant_id
    async with registry.write() as tx:
        assert await journal.hold(tx, fleet.id, [*free[:700], busy.tenant_id]) == free[:700]
        assert await journal.hold(tx, fleet.id, free) == free
        await journal.release(tx, fleet.id, [*free[:600], busy.tenant_id])
    held = await locks(registry)
    assert set(held) == {busy.tenant_id, *free[600:]}
    assert held[busy.tenant_id] == busy.id
    async with registry.write() as tx:
        await journal.release(tx, fleet.id)
    assert await locks(registry) == {busy.tenant_id: busy.id}


# --- one worker per operation -------------------------------------------------------------------------------------


async def test_the_oldest_is_claimed_first(registry: Registry) -> None:
    """A claimed one runs and is not claimed again; one may be asked for by its id."""
    made = []
    for _ in range(3):
        made.append(await submit(registry))
        await asyncio.sleep(0.002)
    first = await claim(registry, "w1")
    assert first is not None
    assert (first.id, first.state, first.worker_id) == (made[0].id, State.RUNNING, "w1")
    assert first.started is not None
    third = await claim(registry, "w1", made[2].id)
    assert third is not None
    assert third.id == made[2].id
    assert await claim(registry, "w2", made[2].id) is None
    second = await claim(registry, "w2")
    assert second is not None
    assert second.id == made[1].id
    assert await claim(registry, "w2") is None
    async with registry.read() as tx:
        assert not await journal.anything_queued(tx)


async def test_two_workers_never_claim_the_same(registry: Registry) -> None:
    """Thirty operations among eight workers: each is had once."""
    made = {(await submit(registry)).id for _ in range(30)}

    async def work(worker: str) -> list[str]:
        got = []
        while (operation := await claim(registry, worker)) is not None:
            got.append(operation.id)
            await asyncio.sleep(0)
        return got

    first = await asyncio.gather(*(claim(registry, f"w{number}") for number in range(8)))
    rest = await asyncio.gather(*(work(f"w{number}") for number in range(8)))
    got = [operation.id for operation in first if operation] + [identity for some in rest for identity in some]
    assert sorted(got) == sorted(made)


async def test_whoever_takes_an_operation_shuts_out_the_one_before(registry: Registry) -> None:
    """The fence is counted up; the former worker, however late it wakes, can write no more."""
    operation = await submit(registry)
    first = await take(registry, operation, "w1")
    assert (first.fence, first.worker_id, first.state) == (1, "w1", State.RUNNING)
    async with registry.write() as tx:
        assert await journal.guard(tx, first) is State.RUNNING
    second = await take(registry, operation, "w2")
    assert second.fence == 2
    with pytest.raises(Fenced, match=operation.id):
        async with registry.write() as tx:
            await journal.guard(tx, first)
    async with registry.write() as tx:
        assert await journal.guard(tx, second) is State.RUNNING


async def test_taking_leaves_what_is_over_and_what_is_being_cancelled(registry: Registry) -> None:
    """A finished operation is not begun again, and a wish to cancel is not lost."""
    done = await finish(registry, await submit(registry), State.DONE)
    assert await take(registry, done, "w1") == done
    cancelling = await finish(registry, await submit(registry), State.CANCELLING)
    taken = await take(registry, cancelling, "w1")
    assert (taken.state, taken.fence) == (State.CANCELLING, 1)


async def enlist(registry: Registry, *, silent: float = 0.0) -> journal.Worker:
    """Enter a worker that was last heard of so many seconds ago."""
    moment = now() - timedelta(seconds=silent)
    worker = journal.Worker(new_id(), "host", os.getpid(), moment, moment, 4)
    async with registry.write() as tx:
        await journal.enlist(tx, worker)
    return worker


async def orphans(registry: Registry, own: str) -> list[str]:
    """Ids of the operations that a worker finds without a living worker, or its own."""
    async with registry.read() as tx:
        return sorted(operation.id for operation in await journal.orphans(tx, DEAD_AFTER, own))


async def test_operations_of_dead_workers_are_found_and_adopted_once(registry: Registry) -> None:
    """Of all that find an orphan one becomes its worker; the living ones keep theirs."""
    alive, dead, me = await enlist(registry), await enlist(registry, silent=DEAD_AFTER + 5), await enlist(registry)
    kept = await take(registry, await submit(registry), alive.id)
    lost = await take(registry, await submit(registry), dead.id)
    gone = await take(registry, await submit(registry), new_id())
    own = await take(registry, await submit(registry), me.id)
    cancelling = await finish(registry, await submit(registry), State.CANCELLING)
    queued = await submit(registry)
    over = await finish(registry, await take(registry, await submit(registry), dead.id), State.FAILED)
    found = await orphans(registry, me.id)
    assert found == sorted([lost.id, gone.id, own.id, cancelling.id])
    assert not {kept.id, queued.id, over.id} & set(found)

    async def adopt(operation: Operation, worker: str) -> bool:
        async with registry.write() as tx:
            return await journal.adopt(tx, operation, worker)

    for operation in (lost, cancelling):
        outcomes = await asyncio.gather(*(adopt(operation, worker.id) for worker in (me, alive)))
        assert sorted(outcomes) == [False, True]
    assert not await adopt(over, me.id)
    retaken = await take(registry, gone, alive.id)
    assert not await adopt(gone, me.id)
    assert (await get(registry, gone)).worker_id == retaken.worker_id == alive.id


async def test_workers_live_as_long_as_they_show_it(registry: Registry) -> None:
    """A silent one is counted out and later removed; a sign of life tells it whether it was."""
    alive, silent = await enlist(registry), await enlist(registry, silent=DEAD_AFTER + 5)
    buried = await enlist(registry, silent=DEAD_AFTER * 10 + 5)
    async with registry.write() as tx:
        assert await journal.workers(tx, DEAD_AFTER) == [alive]
        await journal.bury(tx, DEAD_AFTER)
        assert await journal.beat(tx, buried.id) is False
        assert await journal.beat(tx, silent.id) is True
        assert {worker.id for worker in await journal.workers(tx, DEAD_AFTER)} == {alive.id, silent.id}
        await journal.dismiss(tx, alive.id)
        assert [worker.id for worker in await journal.workers(tx, DEAD_AFTER)] == [silent.id]


# --- progress and ends --------------------------------------------------------------------------------------------


async def test_steps_tell_where_they_are(registry: Registry) -> None:
    """State, detail and seconds are kept; odd characters are no fault."""
    operation = await submit(registry)
    async with registry.write() as tx:
        await journal.set_step(tx, operation.id, 0, StepState.DONE, "schéma \0 0002\udcff", 0.25)
        await journal.progress(tx, operation.id, done=1)
        await journal.progress(tx, operation.id, done=2, failed=1)
        first, second = await journal.steps(tx, operation.id)
    assert (first.state, first.detail, first.seconds) == (StepState.DONE, "schéma � 0002?", 0.25)
    assert (second.state, second.detail, second.seconds) == (StepState.PENDING, "", None)
    after = await get(registry, operation)
    assert (after.done, after.failed) == (3, 1)


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.CANCELLED])
async def test_an_operation_that_is_over_lets_go(registry: Registry, state: State) -> None:
    """It has an end, keeps its error and result, holds no tenant, and its guard tells its state."""
    operation = await take(registry, await submit(registry, slug="acme"), "w1")
    over = await finish(registry, operation, state, error=PROBLEM, result={"number": 3, "names": ["Ærø"]})
    assert (over.state, over.state.live, over.error) == (state, False, PROBLEM)
    assert over.result == {"number": 3, "names": ["Ærø"]}
    assert over.ended is not None
    assert over.created <= over.ended <= now()
    assert await locks(registry) == {}
    assert await orphans(registry, "w1") == []


async def test_a_wish_to_cancel_reaches_the_worker(registry: Registry) -> None:
    """It keeps its tenant and its fence until the worker has undone what it made."""
    operation = await take(registry, await submit(registry, slug="acme"), "w1")
    cancelling = await finish(registry, operation, State.CANCELLING)
    assert (cancelling.state.live, cancelling.ended) == (True, None)
    async with registry.write() as tx:
        assert await journal.guard(tx, operation) is State.CANCELLING
    assert await locks(registry) == {operation.tenant_id: operation.id}
    assert await claim(registry, "w2") is None
    await finish(registry, operation, State.CANCELLED)
    assert await locks(registry) == {}


def some_items(number: int, failed: Sequence[int] = ()) -> list[NewItem]:
    """Items, of which some are refused from the start."""
    return [
        NewItem(-1 if n in failed else n % 2, f"t{n}", {"n": n, "name": "Ærø"}, PROBLEM if n in failed else None)
        for n in range(number)
    ]


async def test_items_are_worked_on_in_order(registry: Registry) -> None:
    """They are read by step, state and page, and recorded many at once with errors or without."""
    operation = await submit(registry, "import", items=some_items(450, failed=[7]))
    assert (operation.total, operation.failed) == (450, 1)
    async with registry.write() as tx:
        every = await journal.items(tx, operation.id)
        assert [item.position for item in every] == list(range(450))
        assert every[3].arguments == {"n": 3, "name": "Ærø"}
        assert (every[7].state, every[7].error, every[6].error) == (StepState.FAILED, PROBLEM, None)
        assert len(await journal.items(tx, operation.id, step=0)) == 225
        assert [i.position for i in await journal.items(tx, operation.id, step=1, limit=2, after=4)] == [5, 9]
        rows = [
            {"position": 0, "state": StepState.DONE.value, "detail": "fine\0", "seconds": 0.5},
            {"position": 2, "state": StepState.FAILED.value, "error": PROBLEM},
            {"position": 4, "state": StepState.DONE.value},
        ]
        await journal.set_items(tx, operation.id, rows)
        await journal.set_items(tx, operation.id, [])
        done = await journal.items(tx, operation.id, state=StepState.DONE)
        failed = await journal.items(tx, operation.id, state=StepState.FAILED)
    assert [(i.position, i.detail, i.error, i.seconds) for i in done] == [(0, "fine�", None, 0.5), (4, "", None, None)]
    assert [(i.position, i.error) for i in failed] == [(2, PROBLEM), (7, PROBLEM)]


async def test_a_failed_operation_is_queued_again(registry: Registry) -> None:
    """Another attempt begins, with its steps as they were at first and none of the old end."""
    await submit(registry, slug="acme")
    operation = await claim(registry, "w1")
    assert operation is not None
    async with registry.write() as tx:
        await journal.set_step(tx, operation.id, 0, StepState.FAILED, "no", 1.0)
        await journal.progress(tx, operation.id, done=1)
    failed = await finish(registry, operation, State.FAILED, error=PROBLEM)
    async with registry.write() as tx:
        await journal.again(tx, failed)
        steps = await journal.steps(tx, operation.id)
    again = await get(registry, operation)
    assert (again.state, again.attempt, again.done, again.worker_id) == (State.QUEUED, 2, 0, None)
    assert (again.error, again.ended) == (None, None)
    assert [(s.state, s.detail, s.seconds) for s in steps] == [(StepState.PENDING, "", None)] * 2
    claimed = await claim(registry, "w2")
    assert claimed is not None
    assert (claimed.id, claimed.started) == (operation.id, failed.started)


async def test_of_a_failed_fleet_operation_only_the_failed_items_are_tried_again(registry: Registry) -> None:
    """What is done stays done and counted; what was refused from the start stays refused."""
    operation = await submit(registry, "import", items=some_items(5, failed=[4]))
    async with registry.write() as tx:
        states = [StepState.DONE, StepState.DONE, StepState.FAILED, StepState.FAILED]
        rows = [{"position": n, "state": state.value, "error": None} for n, state in enumerate(states)]
        await journal.set_items(tx, operation.id, rows)
        await journal.progress(tx, operation.id, done=2, failed=2)
    failed = await finish(registry, operation, State.FAILED)
    assert (failed.done, failed.failed) == (2, 3)
    async with registry.write() as tx:
        await journal.again(tx, failed)
        items = await journal.items(tx, operation.id)
    again = await get(registry, operation)
    assert (again.done, again.failed, again.total) == (2, 1, 5)
    pending, done = StepState.PENDING, StepState.DONE
    assert [item.state for item in items] == [done, done, pending, pending, StepState.FAILED]


async def test_long_names_are_cut(registry: Registry) -> None:
    """A subject of any length is no fault of the database."""
    operation = await submit(registry, "import", items=[NewItem(0, "x" * 300, {})])
    async with registry.read() as tx:
        (item,) = await journal.items(tx, operation.id)
    assert item.subject == "x" * 200


async def test_a_clock_set_back_does_no_harm(registry: Registry) -> None:
    """Moments are kept to the microsecond as they were given, in any time zone."""
    operation = await submit(registry)
    moment = now().replace(year=2031, microsecond=123456)
    async with registry.write() as tx:
        await tx.execute(update(tables.operation).values(started=moment.astimezone()))
    assert await get(registry, operation) == replace(operation, started=moment)

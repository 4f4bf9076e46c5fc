"""The change feed on SQLite and on PostgreSQL: every process hears of every change, in order, and of nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from registries import KEY, draft, enter, python
from tenantry.application import RegistrySource
from tenantry.errors import RegistryUnavailable
from tenantry.model import Server, ServerState, Status, new_id
from tenantry.registry import Registry, Vault, feed, servers, tables, tenants
from tenantry.registry.feed import Changes


async def changed(registry: Registry, *ids: str) -> None:
    """Commit changes of tenants."""
    async with registry.write() as tx:
        tx.changed(*ids)


async def since(registry: Registry, seq: int) -> Changes:
    """The changes after a number; there must be some."""
    found = await registry.feed.since(seq)
    assert found is not None
    return found


async def test_loading_gives_everything_and_the_number_of_the_last_change(registry: Registry) -> None:
    """A process that loads and then follows misses nothing and hears nothing twice."""
    assert (await registry.feed.load()).seq == 0
    first, second = draft("acme"), draft("other")
    await enter(registry, first, second)
    loaded = await registry.feed.load()
    assert loaded.seq == 2
    assert {environment.id for environment in loaded.environments} == {first.id, second.id}
    assert await registry.feed.since(2) is None


async def test_what_changed_is_given_with_its_new_state(registry: Registry) -> None:
    """Only changed tenants are named; of one that is gone there is no environment; each is named once."""
    first, second, third = draft("a"), draft("b"), draft("c")
    await enter(registry, first, second, third)
    async with registry.write() as tx:
        await tenants.set_status(tx, [first.tenant.id], Status.SUSPENDED, "unpaid")
    async with registry.write() as tx:
        await tenants.remove(tx, [second.tenant.id])
    changes = await since(registry, 3)
    assert changes.seq == 5
    assert changes.tenants == {first.tenant.id, second.tenant.id}
    (found,) = changes.environments
    assert (found.id, found.tenant.status) == (first.id, Status.SUSPENDED)
    await changed(registry, first.tenant.id, first.tenant.id)
    assert ((await since(registry, 5)).seq, (await since(registry, 5)).tenants) == (6, {first.tenant.id})


async def test_a_transaction_that_changes_no_tenant_makes_no_change(registry: Registry) -> None:
    """An audit entry alone disturbs nobody."""
    async with registry.write() as tx:
        tx.audit("test.nothing", "platform")
    assert await registry.feed.since(0) is None


async def test_a_server_with_a_long_name_is_heard_of(registry: Registry) -> None:
    """Servers may be called as long as names may be; every process hears of them, and of no tenant."""
    name = "s" * 200
    server = Server(name=name, kind="postgres", address="postgresql://127.0.0.1", admin="")
    async with registry.write() as tx:
        await servers.put(tx, server)
    async with registry.write() as tx:
        await servers.set_state(tx, name, ServerState.DRAINING)
    changes = await since(registry, 1)
    assert changes.environments == []
    assert changes.servers is not None
    assert [(one.name, one.state) for one in changes.servers] == [(name, ServerState.DRAINING)]


@pytest.mark.parametrize("many", [feed.MANY, 5])
async def test_a_follower_far_behind_gets_everything(
    registry: Registry, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it was away, it hears of every tenant that changed or is gone meanwhile, and of no other."""
    monkeypatch.setattr(feed, "MANY", many)
    old, gone, *rest = [draft(f"t{number:02}") for number in range(12)]
    await enter(registry, old, gone, *rest)
    for _ in range(20):
        await changed(registry, *(environment.tenant.id for environment in rest))
    async with registry.write() as tx:
        await tenants.remove(tx, [gone.tenant.id])
    changes = await since(registry, 12)
    assert changes.tenants == {gone.tenant.id, *(environment.tenant.id for environment in rest)}
    assert {environment.id for environment in changes.environments} == {environment.id for environment in rest}
    async with registry.read() as tx:
        assert len(await tx.all(select(tables.change))) == 12


async def test_a_database_put_back_to_an_earlier_state_makes_followers_load_anew(registry: Registry) -> None:
    """They know of changes that never were, so what they know is worth nothing."""
    await enter(registry, draft("acme"))
    with pytest.raises(RegistryUnavailable, match="put back to change 1, and 7 was seen"):
        await registry.feed.since(7)


WRITERS, CHANGES = 20, 20


async def test_no_change_is_lost_or_out_of_order_between_many_writers(registry: Registry) -> None:
    """A follower that looks all the time sees each number once, in order, with the tenant it belongs to."""
    done = asyncio.Event()
    seen: list[tuple[int, frozenset[str]]] = []

    async def follow() -> None:
        seq = 0
        while seq < WRITERS * CHANGES:
            changes = await registry.feed.since(seq)
            if changes is not None:
                assert len(changes.tenants) == changes.seq - seq
                seen.append((changes.seq, changes.tenants))
                seq = changes.seq
            await asyncio.sleep(0)
        done.set()

    async def write(writer: int) -> list[str]:
        ids = [new_id() for _ in range(CHANGES)]
        for number, tenant in enumerate(ids):
            async with registry.write() as tx:
                tx.changed(tenant)
                tx.audit("test.change", f"{writer}-{number}")
        return ids

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        group.create_task(follow())
        writers = [group.create_task(write(number)) for number in range(WRITERS)]
    written = {tenant for writer in writers for tenant in writer.result()}
    assert done.is_set()
    assert len(seen) > 1
    assert [seq for seq, _ in seen] == sorted({seq for seq, _ in seen})
    assert frozenset().union(*(tenants for _, tenants in seen)) == written
    assert sum(len(tenants) for _, tenants in seen) == len(written) == WRITERS * CHANGES
    async with registry.read() as tx:
        numbers = await tx.all(select(tables.change.c.tenant_id, tables.change.c.seq).order_by(tables.change.c.seq))
    assert [number for _, number in numbers] == list(range(1, WRITERS * CHANGES + 1))
    order = [tenant for tenant, _ in numbers]
    start = 0
    for seq, ids in seen:
        assert set(order[start:seq]) == ids
        start = seq
    assert (await registry.verify()).entries == WRITERS * CHANGES


async def test_following_waits_for_changes(registry: Registry) -> None:
    """A follower gets what was before it at once and what comes later as it comes."""
    await enter(registry, draft("acme"))
    changes: AsyncGenerator[Changes] = registry.feed.follow(0)
    assert (await anext(changes)).seq == 1
    waiting = asyncio.ensure_future(anext(changes))
    later = draft("other")
    await enter(registry, later)
    async with asyncio.timeout(180):
        found = await waiting
    assert (found.seq, found.tenants) == (2, {later.tenant.id})
    await changes.aclose()


FOLLOWER = """
import asyncio, sys
from tenantry.registry import Registry, Vault
async def main():
    async with Registry.open(sys.argv[1], Vault(sys.argv[2])) as registry:
        loaded = await registry.feed.load()
        print("loaded", loaded.seq, flush=True)
        async for changes in registry.feed.follow(loaded.seq):
            print(changes.seq, *(e.tenant.slug for e in changes.environments), flush=True)
            if changes.seq == 3:
                break
asyncio.run(main())
"""


async def test_a_follower_in_another_process_sees_a_change(registry: Registry, url: str) -> None:
    """What one process commits, the others hear without being told by it."""
    await enter(registry, draft("acme"))
    follower = await python(FOLLOWER, url, KEY)
    assert follower.stdout
    async with asyncio.timeout(180):
        assert await follower.stdout.readline() == b"loaded 1\n"
        await enter(registry, draft("second"))
        assert await follower.stdout.readline() == b"2 second\n"
        await enter(registry, draft("third"))
        output, errors = await follower.communicate()
    assert (output, follower.returncode) == (b"3 third\n", 0), errors.decode()


async def test_numbers_go_beyond_four_octets(registry: Registry) -> None:
    """Both counters hold what a busy platform reaches in many years."""
    high = 5_000_000_000
    async with registry.write() as tx:
        await tx.execute(update(tables.head).values(change_seq=high))
    tenant = new_id()
    await changed(registry, tenant)
    changes = await since(registry, high)
    assert (changes.seq, changes.tenants) == (high + 1, {tenant})


async def test_a_registry_in_the_making_is_waited_for(tmp_path: Path) -> None:
    """A server that starts while the first command sets the control database up begins when that is done."""
    path = tmp_path / "control.sqlite"
    path.touch()
    vault = Vault(KEY)
    loading = asyncio.create_task(RegistrySource(f"sqlite:///{path}", vault).load())
    await asyncio.sleep(0.3)
    assert not loading.done()
    async with Registry.open(f"sqlite:///{path}", vault):
        assert (await loading).seq == 0

"""Counts over the platform are the same on every control database."""

from __future__ import annotations

from datetime import timedelta

from registries import draft, enter
from tenantry.model import Usage, new_id
from tenantry.registry import Registry, journal, statistics
from tenantry.registry.database import now
from tenantry.registry.journal import State


async def test_what_there_is_is_counted(registry: Registry) -> None:
    """Tenants by day and kind, operations by day and end, storage by tenant and server."""
    acme, other = draft("acme"), draft("other")
    await enter(registry, acme, other)
    today, week = f"{now():%Y-%m-%d}", now() - timedelta(days=7)
    async with registry.write() as tx:
        for state in (State.DONE, State.DONE, State.FAILED, State.PAUSED):
            operation = new_id()
            await journal.submit(tx, operation, "verify", [("attack", "")])
            await journal.set_state(tx, operation, state)
        assert set(await statistics.unmeasured(tx, now(), 10)) == {acme.tenant.id, other.tenant.id}
        parts = [(acme.id, place.name, Usage(bytes=10, rows=2, files=1)) for place in acme.places]
        await statistics.put_usage(tx, [*parts, *((other.id, place.name, None) for place in other.places)])
        assert await statistics.unmeasured(tx, week, 10) == []
    async with registry.read() as tx:
        assert [sum(one.values()) for one in (await statistics.tenants_by(tx)).values()] == [2, 2, 2]
        assert await statistics.made_by_day(tx, week) == {today: 2}
        assert await statistics.operations_by_day(tx, week) == {today: {"done": 2, "failed": 1, "open": 1}}
        found, by_server = await statistics.storage(tx)
        number = len(acme.places)
        assert (found.bytes, found.rows, found.files, found.measured) == (10 * number, 2 * number, number, number)
        assert [(one.name, one.bytes) for one in await statistics.largest(tx, 5)] == [("acme", 10 * number)]
        assert sum(one.bytes for one in by_server) == 10 * number
        assert (await statistics.people(tx))["admins"] == 0

"""Migrations of the whole fleet, and of one tenant back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tenantry.errors import OperationNotFound, TenantNotFound
from tenantry.identity import Reach, verb
from tenantry.model import new_id
from tenantry.operations import due, migrate, rollback
from tenantry.operations.due import Due, Fleet, Pinned, Wanted
from tenantry.operations.report import NAMED, TOLD, Report, make_room, report, write
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import Transaction, journal, schemas, tenants
from tenantry.registry.journal import State
from tenantry.resources import Phase

ALL_AT_ONCE: Final = ("100%",)


class Migrations:
    """Bringing tenants' schemas to what the blueprints declare."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._registry = tools.registry

    @verb("migrate.plan", "platform:read", Reach.PLATFORM)
    async def plan(
        self,
        blueprint: str | None = None,
        to: str | None = None,
        tenants: Sequence[str] = (),
        phase: Phase | None = None,
        everyone: bool = False,
    ) -> list[Due]:
        """What is not at its schema, in the order in which it would be migrated; or all, as `run` says."""
        wanted = Wanted(blueprint, to, phase, tuple(tenants), everyone)
        wanted.check()
        async with self._registry.read() as tx:
            return await due.due(tx, self._tools, wanted)

    @verb("migrate.status", "platform:read", Reach.PLATFORM)
    async def status(self) -> list[Fleet]:
        """How many tenants of each blueprint stand at which schema, and which are pinned to theirs."""
        found = []
        async with self._registry.read() as tx:
            for resource in due.with_schema(self._tools):
                blueprint, name = resource.setting.blueprint, resource.name
                versions = await schemas.versions(tx, blueprint, name)
                rows = await schemas.pinned(tx, blueprint, name)
                pinned = tuple(Pinned(row.slug, row.environment, row.version) for row in rows)
                found.append(Fleet(blueprint, name, resource.newest, versions, pinned))
        return found

    @verb("migrate.run", "platform:write", Reach.PLATFORM)
    async def run(
        self,
        canary: int = 1,
        waves: Sequence[str] = ALL_AT_ONCE,
        *,
        parallel: int | None = None,
        rate: str | None = None,
        stop_after: str | None = None,
        to: str | None = None,
        phase: Phase | None = None,
        blueprint: str | None = None,
        slugs: Sequence[str] = (),
        everyone: bool = False,
    ) -> journal.Operation:
        """Queue a migration of everything that is not at its schema: a canary first, then waves. Done if nothing is.

        With `everyone`, of what is at its schema, too: that brings Tenantry's own tables for users up to date.

        `waves` are rising percentages of what follows the canary. `parallel` tenants at a time are migrated on each
        server, `rate` tenants ("20/s") at most in all. `stop_after` is a number of failures ("3") or a share of the
        tenants tried ("1%"). Raises `ConfigError`, `TenantNotFound`, `MigrationUnderWay`, `SharedTables`, or
        `MigrationInvalid` for a migration that was edited after it had been applied.
        """
        wanted = Wanted(blueprint, to, phase, tuple(slugs), everyone)
        wanted.check()
        migrate.parse_stop(stop_after)
        migrate.parse_rate(rate)
        percents = migrate.parse_percents(waves)
        canary = migrate.check_canary(canary)
        at_once = migrate.check_parallel(self._tools.config.migrate.parallel if parallel is None else parallel)
        async with self._registry.read() as tx:
            await due.refuse_edited(tx, self._tools, await due.due(tx, self._tools, wanted))
        arguments = {"parallel": at_once, "rate": rate, "stop_after": stop_after, "to": to, "phase": phase}
        async with self._registry.write() as tx:
            await migrate.refuse_second(tx)
            for slug in slugs:
                await tenants.find(tx, slug)
            cut = migrate.waves(await due.due(tx, self._tools, wanted), canary, percents)
            if not slugs:
                await due.release(tx, self._tools, wanted)
            return await self._submit(tx, cut, arguments)

    async def _submit(
        self, tx: Transaction, cut: Sequence[tuple[str, Sequence[Due]]], arguments: dict[str, Any]
    ) -> journal.Operation:
        steps, items = migrate.plan(cut) if cut else ([], [])
        operation_id = new_id()
        parts = sorted({(one.blueprint, one.resource) for _, some in cut for one in some})
        await journal.submit(
            tx, operation_id, "migrate", steps, arguments={**arguments, "resources": parts}, items=items
        )
        if not items:  # so that a deployment which changes no schema waits for no worker
            await journal.set_state(tx, operation_id, State.DONE, result={"migrated": 0, "failed": 0})
        tx.audit("platform.migrate", "platform", operation=operation_id, tenants=len(items), to=arguments["to"])
        return await journal.get(tx, operation_id)

    @verb("migrate.under_way", "platform:read", Reach.PLATFORM)
    async def under_way(self) -> journal.Operation:
        """The run that is not over; it may be paused. Raises `OperationNotFound`."""
        async with self._registry.read() as tx:
            for operation in await journal.open_ones(tx, migrate.Migrate.name):
                return operation
        raise OperationNotFound("No migration of the fleet is under way.", remedy="`tenantry migrate run` begins one.")

    # --- one tenant ---

    @verb("migrate.rollback", "platform:write", Reach.PLATFORM)
    async def rollback(
        self, slug: str, to: str | None = None, *, environment: str | None = None, pin: bool = False
    ) -> journal.Operation:
        """Queue taking back the newest migration of a tenant's databases, or all after the version `to`.

        With `pin` the tenant stays there until `unpin`; otherwise the next run brings it up again. Raises
        `ConfigError`, `TenantNotFound`, `OperationInProgress` or `SharedTables`.
        """
        async with self._registry.write() as tx:
            tenant = await tenants.find(tx, slug)
            environments = await self._tools.environments(tx, tenant.id)
            steps, targets = rollback.plan(self._tools, environments, to, environment)
            operation_id = new_id()
            arguments = {"targets": targets, "pin": pin}
            await journal.submit(
                tx, operation_id, "rollback", steps, tenant=(tenant.id, tenant.slug), arguments=arguments
            )
            return await journal.get(tx, operation_id)

    @verb("migrate.unpin", "platform:write", Reach.PLATFORM)
    async def unpin(self, slug: str) -> list[Pinned]:
        """Let fleet migrations bring a tenant up again; what was pinned of it. Raises `TenantNotFound`."""
        async with self._registry.write() as tx:
            tenant = await tenants.find(tx, slug)
            rows = await schemas.unpin(tx, tenant.id)
            if rows:
                tx.audit("tenant.unpin", slug, id=tenant.id)
            return [Pinned(slug, environment, version) for environment, _, version in rows]

    # --- afterwards ---

    @verb("migrate.report", "platform:read", Reach.PLATFORM)
    async def report(self, operation_id: str, failures: int = TOLD) -> Report:
        """What a run did: its waves, failures with their causes, times and versions. Raises `OperationNotFound`.

        Of the failures the first so many are told, at most 10,000.
        """
        async with self._registry.read() as tx:
            return await report(tx, await journal.get(tx, operation_id), min(max(failures, 0), NAMED))

    def make_room(self, where: Path) -> None:
        """Make the directory of a report that is to be written. Raises `ConfigError` where it cannot be."""
        make_room(where)

    async def write_report(self, operation_id: str, where: Path) -> Sequence[Path]:
        """Write `report` as JSON and Markdown into a directory, or under a file's name; the two files."""
        found = await self.report(operation_id, NAMED)
        return await asyncio.to_thread(write, found, where)


__all__ = ["Migrations", "TenantNotFound"]

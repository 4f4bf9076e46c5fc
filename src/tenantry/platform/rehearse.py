"""Rehearsals of migrations, and what they found."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from pydantic import ByteSize, TypeAdapter, ValidationError

from tenantry.errors import ConfigError
from tenantry.identity import Reach, verb
from tenantry.model import new_id
from tenantry.operations import due, migrate, rehearsal, rehearse
from tenantry.operations.due import Wanted
from tenantry.operations.rehearsal import METHOD, Report, duration, locked, markdown, write
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import journal, tenants
from tenantry.resources import Phase
from tenantry.resources.scratch import need

__all__ = ["METHOD", "Rehearsals", "Report", "duration", "locked", "markdown", "parse_size", "write"]

DISK: Final = "5GB"
"""The room that all copies have together, unless another is given."""


class Rehearsals:
    """Trying migrations on scratch copies before they touch a tenant."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._registry = tools.registry

    @verb("migrate.rehearse", "platform:write", Reach.PLATFORM)
    async def run(
        self,
        sample: str | None = None,
        *,
        disk: str = DISK,
        parallel: int | None = None,
        seed: int | None = None,
        to: str | None = None,
        phase: Phase | None = None,
        blueprint: str | None = None,
        slugs: Sequence[str] = (),
    ) -> journal.Operation:
        """Queue a rehearsal of what `migrations.run` would do, on copies of all tenants or of a sample ("20", "10%").

        All copies together come to no more than `disk` ("5GB"); `parallel` are worked on at a time on each server. The
        same seed chooses the same sample. Raises `ConfigError`, `TenantNotFound` or `MigrationInvalid`.
        """
        count, room, wanted = (
            rehearse.parse_sample(sample),
            parse_size(disk),
            Wanted(blueprint, to, phase, tuple(slugs)),
        )
        wanted.check()
        at_once = migrate.check_parallel(self._tools.config.migrate.parallel if parallel is None else parallel)
        seed = secrets.randbelow(1_000_000) if seed is None else seed
        async with self._registry.read() as tx:
            for slug in slugs:
                await tenants.find(tx, slug)
            await self._tools.learn_servers(tx)
            found = await due.due(tx, self._tools, wanted)
            await due.refuse_edited(tx, self._tools, found)
        known = await rehearse.candidates(self._tools, found)
        chosen = rehearse.choose(known, count(len(known)), seed)
        arguments = {"parallel": at_once, "disk": room, "seed": seed, "sample": sample, "due": len(known)}
        fleet = {server: asdict(share) for server, share in rehearse.shares(known).items()}
        operation_id = new_id()
        async with self._registry.write() as tx:
            steps, items = [(rehearse.STEP, "")], [one.item for one in chosen]
            await journal.submit(
                tx, operation_id, rehearse.Rehearse.name, steps, arguments={**arguments, "fleet": fleet}, items=items
            )
            tx.audit("platform.rehearse", "platform", operation=operation_id, tenants=len(items), to=to)
            return await journal.get(tx, operation_id)

    @verb("migrate.rehearsal", "platform:read", Reach.PLATFORM)
    async def report(self, operation_id: str) -> Report:
        """What a rehearsal found. Raises `OperationNotFound`, or `ConfigError` for another operation.

        While it is not over, what the first few hundred found that ended.
        """
        async with self._registry.read() as tx:
            operation = await journal.get(tx, operation_id)
            if operation.verb != rehearse.Rehearse.name:
                raise ConfigError(f"'{operation.id}' is no rehearsal; it is {operation.verb}.")
            return await rehearsal.report(tx, operation)


def parse_size(text: str) -> int:
    """Bytes from "5GB", "500MiB" or "1e9". Raises `ConfigError`."""
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text.strip()))
    except ValidationError as error:
        raise ConfigError(f"'{text}' is no size.", remedy='Write it like "5GB" or "500MiB".') from error
    if size < need(0):
        raise ConfigError(f"{text} is less than the smallest copy takes.", remedy=f"Give {need(0)} bytes or more.")
    return size

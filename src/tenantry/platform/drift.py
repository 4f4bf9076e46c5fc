"""Drift of tenants' schemas from what the blueprints make."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from tenantry.identity import Reach, verb
from tenantry.model import Status
from tenantry.operations import drift, migrate, rehearse
from tenantry.operations.drift import Drift, script
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import tenants

__all__ = ["Drift", "Drifts", "Looked", "script"]

PAGE = 200
"""Tenants that are read and looked at together."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was looked at, and what differs."""

    tenants: int
    resources: int
    drift: tuple[Drift, ...]
    left_out: tuple[str, ...] = ()  # resources of kinds that cannot be compared


class Drifts:
    """Comparing tenants' schemas with golden ones."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._registry = tools.registry

    @verb("migrate.drift", "platform:read", Reach.PLATFORM)
    async def find(
        self,
        slugs: Sequence[str] = (),
        *,
        sample: str | None = None,
        seed: int | None = None,
        blueprint: str | None = None,
        with_sql: bool = False,
        parallel: int | None = None,
    ) -> Looked:
        """Compare tenants, or a sample ("20", "10%"), with the golden schema of their version; changes nothing.

        Those that differ alike stand together. `with_sql` tells the statements that would undo it. Raises
        `TenantNotFound` or `ConfigError`.
        """
        count = rehearse.parse_sample(sample)
        at_once = migrate.check_parallel(self._tools.config.migrate.parallel if parallel is None else parallel)
        ids = await self._ids(slugs, blueprint)
        chance = random.Random(secrets.randbelow(1_000_000) if seed is None else seed)  # noqa: S311 - no secret
        chosen = ids if sample is None else chance.sample(ids, count(len(ids)))
        comparison = drift.Comparison(self._tools, with_sql=with_sql, parallel=at_once)
        for start in range(0, len(chosen), PAGE):
            async with self._registry.read() as tx:
                environments = await self._tools.all_environments(tx, chosen[start : start + PAGE])
            await comparison.look(environments)
        left_out = tuple(sorted(comparison.left_out))
        return Looked(len(chosen), comparison.looked, tuple(comparison.groups()), left_out)

    async def _ids(self, slugs: Sequence[str], blueprint: str | None) -> list[str]:
        """The tenants to look at; those being made or destroyed only where they are named."""
        found: list[str] = []
        async with self._registry.read() as tx:
            if slugs:
                return list(dict.fromkeys([(await tenants.find(tx, slug)).id for slug in slugs]))
            after = None
            while page := await tenants.page(tx, blueprint=blueprint, after=after, limit=PAGE):
                passing = (Status.CREATING, Status.DESTROYING)
                found += [row.id for row in page if row.status not in passing]
                after = page[-1].slug
        return found

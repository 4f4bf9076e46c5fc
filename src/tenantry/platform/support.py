"""Support access: who of the platform looks into which tenant, why, and until when."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tenantry.config import Config
from tenantry.identity import Reach, current_principal, sees_only, verb
from tenantry.identity.principal import digest
from tenantry.model import PRODUCTION, Status, new_id
from tenantry.refusals import InvalidRequest, SupportNotFound, SupportRefused
from tenantry.registry import Registry, Transaction, support, tenants
from tenantry.registry.database import NAME, now, plain
from tenantry.registry.support import SupportRow
from tenantry.registry.tenants import TenantRow
from tenantry.runtime.banner import HERE

LINK: Final = timedelta(minutes=5)
"""How long a link can be followed."""

MINUTES: Final = 30
REASON: Final = 500
"""The longest reason in characters."""

LISTED: Final = 100


@dataclass(frozen=True, slots=True)
class NewSupport:
    """An access with the link that begins it, once; shown once."""

    row: SupportRow
    link: str  # the whole address
    path: str  # the same, within the tenant


class Supports:
    """Every verb on support access."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._config = config

    @verb("support.open", "tenants:support", Reach.TENANT)
    async def open(self, slug: str, reason: str, minutes: int = MINUTES, writes: bool = False) -> NewSupport:
        """Look into a tenant for so many minutes; without `writes` nothing can be changed by it.

        The link holds for five minutes, and once. The tenant's people see who looks in, why, and until when. Raises
        `SupportRefused` where the platform, the tenant's status or its people do not allow it.
        """
        told, length = self._checked(slug, reason, minutes)
        link, moment = secrets.token_urlsafe(32), now()
        async with self._registry.write() as tx:
            row = await tenants.find(tx, slug)
            until = await self._until(tx, row, moment + length)
            principal = current_principal()
            entered = {
                "id": new_id(),
                "admin_id": principal.admin_id if principal else None,
                "tenant_id": row.id,
                "who": plain(principal.mail if principal else tx.actor, NAME),
                "reason": told,
                "writes": writes,
                "link": digest(link),
                "link_until": moment + LINK,
                "created": moment,
                "expires": until,
            }
            await support.add(tx, entered)
            shown = {"id": row.id, "access": entered["id"], "reason": told, "writes": writes, "until": until}
            tx.audit("support.open", row.slug, **shown)
            made = await support.find(tx, row.slug, str(entered["id"]))
            assert made is not None
            path = f"{HERE}/{link}"
            return NewSupport(made, await self._root(tx, row) + path, path)

    @verb("support.list", "tenants:read", Reach.LIST)
    async def list(
        self, slug: str | None = None, limit: int = LISTED, after: str | None = None
    ) -> Sequence[SupportRow]:
        """Accesses, newest first, also those that are over; `after` is the id of the last one of the page before."""
        async with self._registry.read() as tx:
            return await support.listed(tx, slug, sees_only(), limit, after)

    @verb("support.end", "tenants:support", Reach.TENANT)
    async def end(self, slug: str, access: str) -> SupportRow:
        """End an access now, in every process. Raises `SupportNotFound`; one that is over is no fault."""
        async with self._registry.write() as tx:
            tenant = await tenants.find(tx, slug)
            await support.end_one(tx, tenant.id, access, tx.actor)
            row = await support.find(tx, slug, access)
            if row is None:
                raise SupportNotFound(slug=slug, access=access)
            return row

    def _checked(self, slug: str, reason: str, minutes: int) -> tuple[str, timedelta]:
        settings, told = self._config.support, plain(reason.strip())
        if not settings.allowed:
            raise SupportRefused(slug=slug, reason="this platform allows none", remedy="Set support.allowed.")
        if not told or len(told) > REASON:
            raise InvalidRequest(where="reason", reason=f"give one, of at most {REASON} characters")
        longest = int(settings.longest // 60)
        if not 1 <= minutes <= longest:
            raise InvalidRequest(where="minutes", reason=f"give 1 to {longest}")
        return told, timedelta(minutes=minutes)

    async def _until(self, tx: Transaction, row: TenantRow, until: datetime) -> datetime:
        """No longer than the tenant's people allow, where they are asked. Raises `SupportRefused`."""
        if not Status(row.status).served:
            raise SupportRefused(slug=row.slug, reason=f"it is {row.status}", remedy="Resume it first.")
        if not self._config.support.consent:
            return until
        allowed = await support.consent(tx, row.id)
        if allowed is None or allowed <= now():
            raise SupportRefused(slug=row.slug, reason="its people have not let support in")
        return min(until, allowed)

    async def _root(self, tx: Transaction, row: TenantRow) -> str:
        """The address of a tenant, without a slash at the end: its own name where it has one, else its path."""
        found = await tenants.environments(tx, [row.id])
        host = next((one.hostnames[0] for one in found if one.name == PRODUCTION and one.hostnames), None)
        return self._config.address(row.slug, host)

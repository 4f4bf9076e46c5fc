"""What happened to the accounts of a tenant's users, for operators: read in the tenant's own database."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from tenantry.context import reading, tenant_context
from tenantry.errors import AccountError
from tenantry.identity import Reach, verb
from tenantry.model import Environment, Status
from tenantry.operations import placement
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import Registry, tenants
from tenantry.runtime.trail import Event

if TYPE_CHECKING:
    from tenantry.runtime.userbase import UserBase

LISTED: Final = 50


class Happened:
    """The verb, for `Tenants`."""

    _tools: Toolbox
    _registry: Registry

    @verb("tenant.events", "tenants:support", Reach.TENANT)
    async def events(self, slug: str, user: str | None = None, limit: int = LISTED, after: str = "") -> Sequence[Event]:
        """What happened to the accounts of a tenant's users, newest first; the audit log tells who asked.

        `user` is a login; `after` the `mark` of the last event of the page before. At most 200 at once. Raises
        `TenantNotFound`, `AccountError` for a tenant without users and for a login that nobody has there, and
        `InvalidRequest` for what is no mark.
        """
        async with self._registry.write() as tx:
            row = await tenants.find(tx, slug)
            environment = (await self._tools.all_environments(tx, [row.id]))[0]
            tx.audit("tenant.events", slug, id=row.id, **({"user": user} if user else {}))
        return await self._listed(environment, user, limit, after)

    async def _listed(self, environment: Environment, user: str | None, limit: int, after: str) -> Sequence[Event]:
        from tenantry.application import settings  # a runtime takes a while to import
        from tenantry.runtime.databases import Databases
        from tenantry.runtime.trail import Trail
        from tenantry.runtime.userbase import UserBase

        known, tools = settings(self._tools.config), self._tools
        logins = partial(placement.unseal, tools.registry.vault)
        databases = Databases(known, _as_served, tools.servers.find, logins)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(databases.close)
            stack.enter_context(tenant_context(environment))
            stack.enter_context(reading())
            base = UserBase(known, databases)
            whose = None if user is None else await _id(base, user)
            return await Trail(base, known.events_seconds).listed(whose, limit, after)


async def _id(base: UserBase, login: str) -> str:
    async with base.open() as work:
        row = await work.first("SELECT id FROM {prefix}tenantry_user WHERE login = :login", login=login.strip().lower())
    if row is None:
        raise AccountError(f"Nobody has the login '{login[:60]}' there.", remedy="Leave it out to list all.")
    return str(row.id)


def _as_served(environment: Environment) -> Environment:
    """What happened at a tenant that is suspended is asked for, too."""
    return dataclasses.replace(environment, tenant=dataclasses.replace(environment.tenant, status=Status.ACTIVE))

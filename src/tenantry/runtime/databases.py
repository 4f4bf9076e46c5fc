"""The current tenant's databases: which one is meant, whether it is served, and a session on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Final

from tenantry.context import current_environment
from tenantry.errors import ResourceError, SharedTablesWeak, TenantNotServed, TenantryError
from tenantry.model import Environment, Place, Server
from tenantry.runtime.files import Files
from tenantry.runtime.pools import Pools
from tenantry.runtime.schema import behind
from tenantry.runtime.settings import Logins, Settings
from tenantry.runtime.wire import until_closed

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

log: Final = logging.getLogger("tenantry.runtime")

KINDS: Final = frozenset({"sqlite", "postgres", "mysql", "rows", "prefix"})
"""The kinds of resources a session can be opened on."""

Origin = tuple[str, int]  # file and line


class Databases:
    """Opens sessions on files and on servers. Each method raises `NoTenant`, `TenantNotServed` or `SchemaBehind`."""

    def __init__(
        self,
        settings: Settings,
        current: Callable[[Environment], Environment | None],
        servers: Callable[[str], Server | None],
        logins: Logins,
    ) -> None:
        self._settings = settings
        self._current = current
        self.files = Files(settings)
        self.pools = Pools(settings, current, servers, logins)

    def session(
        self, resource: str | None = None, origin: Origin = ("", 0)
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """A SQLAlchemy AsyncSession; commit it yourself, leaving the block rolls back what is not committed."""
        environment, place = self.place(resource)
        if place.server is None:
            return self.files.session(environment, place)
        return self.pools.session(environment, place, origin)

    def session_sync(self, resource: str | None = None, origin: Origin = ("", 0)) -> AbstractContextManager[Session]:
        """A SQLAlchemy Session, for code without an event loop."""
        environment, place = self.place(resource)
        if place.server is None:
            return self.files.session_sync(environment, place)
        return self.pools.session(environment, place, origin)

    def connection_sync(self, resource: str | None, origin: Origin = ("", 0)) -> AbstractContextManager[Connection]:
        """A SQLAlchemy Connection, for code without an event loop."""
        environment, place = self.place(resource)
        if place.server is None:
            return self.files.connection_sync(environment, place)
        return self.pools.connection(environment, place, origin)

    def prefix(self, resource: str | None) -> str:
        """How the names of the current tenant's tables begin."""
        return self.place(resource)[1].prefix

    def place(self, resource: str | None = None) -> tuple[Environment, Place]:
        """The current environment as it is now, and the place of its database."""
        environment = current_environment()
        now = self._current(environment)
        if now is None or not now.tenant.status.served:
            status = now.tenant.status.value if now else "gone"
            raise TenantNotServed(slug=environment.tenant.slug, status=status, tenant=now.tenant if now else None)
        place = _choose(now, resource)
        if error := behind(self._settings, now, place):
            raise error
        return now, place

    async def prove(self, environments: Iterable[Environment]) -> None:
        """Look at each database whose tables these tenants share, once. Raises `SharedTablesWeak`.

        One whose server does not answer is looked at by its first session.
        """
        shared = {
            (place.name, place.server, place.database): (environment, place)
            for environment in environments
            if environment.tenant.status.served
            for place in environment.places
            if (environment.tenant.blueprint, place.name) in self._settings.shared
        }
        looks = (asyncio.to_thread(self.pools.prove, *one) for one in shared.values())
        for error in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(error, TenantryError) and not isinstance(error, SharedTablesWeak):
                log.warning("Shared tables were not looked at: %s", error)
            elif error is not None:
                raise error

    async def forget(self, tenants: Collection[str] | None = None) -> None:
        """Let go of what these tenants (any tenant where None) have no longer: those in use when their sessions end."""
        self.pools.refresh(tenants)
        await self.files.forget(tenants)

    async def leave_loop(self) -> None:
        """Close the connections to servers that this event loop has and nobody uses, before it ends."""
        self.pools.leave_loop(asyncio.get_running_loop())
        await until_closed()

    async def close(self) -> None:
        """Close everything: what is in use, when its session ends."""
        self.pools.shut()
        await self.files.forget()
        await until_closed()

    def abandon(self) -> None:
        """Forget everything without closing it: after a fork the connections are the parent's."""
        self.files.abandon()
        self.pools.abandon()


def _choose(environment: Environment, resource: str | None) -> Place:
    """The place named, or the only database there is."""
    found = [place for place in environment.places if place.kind in KINDS and resource in (None, place.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(place.name for place in environment.places if place.kind in KINDS) or "none"
    reason = f"it is no database of this tenant; name one of: {names}"
    raise ResourceError(kind="database", resource=resource or "", tenant=environment.tenant.slug, reason=reason)

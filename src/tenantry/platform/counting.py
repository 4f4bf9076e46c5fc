"""Counts in tenants' databases: users, their sessions, what blueprints name; by the application's login, read only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tenantry.context import reading, tenant_context
from tenantry.errors import TenantryError
from tenantry.model import Environment
from tenantry.operations import placement
from tenantry.operations.toolbox import Toolbox

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tenantry.runtime.databases import Databases
    from tenantry.runtime.settings import Settings

USERS: Final = "users"
SESSIONS: Final = "active_sessions"
OURS: Final = {
    USERS: "SELECT count(*) FROM {prefix}tenantry_user",
    SESSIONS: "SELECT count(*) FROM {prefix}tenantry_session s JOIN {prefix}tenantry_user u "
    "ON u.id = s.user_id AND u.epoch = s.epoch AND u.active = 1 WHERE s.expires > {now}",
}
"""What is counted wherever tenants have users: these, and how many of their sessions still open something."""

SECONDS: Final = 5.0
"""How long one number of one tenant is counted."""

_LIMITS: Final = {
    "postgresql": "SET LOCAL statement_timeout = {milliseconds}",
    "mysql": "SET SESSION max_execution_time = {milliseconds}",
    "mariadb": "SET SESSION max_statement_time = {seconds}",
}

log: Final = logging.getLogger("tenantry.worker")


class Counter:
    """Counts in one tenant at a time, and keeps nothing of it open."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._opened: tuple[Databases, Settings] | None = None

    async def __call__(self, environment: Environment) -> Mapping[str, int]:
        """How much of each thing there is; what cannot be counted is left out, and the log tells why."""
        databases, settings = self._open()
        resource = settings.users.get(environment.tenant.blueprint)
        declared = self._tools.blueprint(environment.tenant.blueprint).counts
        found = {}
        for name, statement in (_ours() | declared if resource else declared).items():
            try:
                found[name] = await self._number(databases, environment, resource, statement)
            except Exception as error:  # whatever a statement of somebody else's does, the others are counted
                reason = error.message if isinstance(error, TenantryError) else str(error) or "it took too long"
                log.warning("%s of %s were not counted: %s", name, environment.tenant.slug, reason.splitlines()[0])
        await databases.forget({environment.tenant.id})
        return found

    async def _number(
        self, databases: Databases, environment: Environment, resource: str | None, statement: str
    ) -> int:
        from sqlalchemy import text

        with tenant_context(environment), reading():
            _, place = databases.place(resource)
            query = text(statement.replace("{prefix}", place.prefix).replace(":", "\\:"))
            async with databases.session(resource) as session, _limited(await session.connection()):
                return int((await session.execute(query)).scalar_one())

    def _open(self) -> tuple[Databases, Settings]:
        """A runtime's sessions; they take a while to import, and only workers count."""
        if self._opened is None:
            from tenantry.application import settings
            from tenantry.runtime.databases import Databases

            known, tools = settings(self._tools.config), self._tools
            logins = partial(placement.unseal, tools.registry.vault)
            self._opened = Databases(known, lambda environment: environment, tools.servers.find, logins), known
        return self._opened

    async def close(self) -> None:
        """Close what is open."""
        if self._opened is not None:
            await self._opened[0].close()


def _ours() -> dict[str, str]:
    moment = str(int(time.time()))
    return {name: statement.replace("{now}", moment) for name, statement in OURS.items()}


@asynccontextmanager
async def _limited(connection: AsyncConnection) -> AsyncIterator[None]:
    """Let the database itself give up after a while: what only its caller leaves goes on there."""
    dialect = connection.dialect
    name = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    if name != "sqlite":
        limit = _LIMITS[name].format(milliseconds=round(SECONDS * 1000), seconds=SECONDS)
        await connection.exec_driver_sql(limit)
        yield
        return
    opened: Any = (await connection.get_raw_connection()).driver_connection
    end = asyncio.get_running_loop().call_later(SECONDS, lambda: asyncio.ensure_future(opened.interrupt()))
    try:
        yield
    finally:
        end.cancel()

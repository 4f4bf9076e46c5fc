"""What all engines for Django share: a connection follows the current tenant, and refuses to work for another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from tenantry.context import current_environment
from tenantry.errors import ForeignTenant, ResourceError
from tenantry.model import Environment, Place
from tenantry.runtime.links import Link
from tenantry.runtime.runtime import connected

RESOURCE: Final = "RESOURCE"

ENGINES: Final[Mapping[str, str]] = MappingProxyType(
    {"sqlite": "sqlite3", "postgres": "postgresql", "rows": "postgresql", "mysql": "mysql"}
)
"""The engine for each kind of resource, by its name in this package."""


class TenantDatabase:
    """Stands before Django's own `DatabaseWrapper`. The option RESOURCE names the tenant's database, if it has several.

    Every use without a tenant raises `NoTenant`; under another tenant a connection is opened anew, and within a
    transaction `ForeignTenant` is raised.
    """

    kinds: ClassVar[frozenset[str]]
    """The kinds of resources that the engine works with."""

    connection: Any
    settings_dict: dict[str, Any]
    in_atomic_block: bool
    execute_wrappers: list[Any]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._environment: Environment | None = None
        self.execute_wrappers.append(self._only_mine)

    def ensure_connection(self) -> None:
        """Have a connection to the current tenant's database."""
        now = current_environment()
        if self.connection is not None and self._environment is not None and self._environment.id != now.id:
            if self.in_atomic_block:
                raise ForeignTenant(owner=self._environment.tenant.slug, current=now.tenant.slug)
            self.close()  # type: ignore[attr-defined]
        super().ensure_connection()  # type: ignore[misc]

    def get_connection_params(self) -> dict[str, Any]:
        """Django's own settings of a connection; where it leads is found as it is opened."""
        given = self.settings_dict
        options = {key: value for key, value in given["OPTIONS"].items() if key != RESOURCE}
        self.settings_dict = {**given, "NAME": "tenant", "OPTIONS": options}
        try:
            return dict(super().get_connection_params())  # type: ignore[misc]
        finally:
            self.settings_dict = given

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Open the current tenant's database; raises what opening a session does."""
        environment, place = connected().place(self.settings_dict["OPTIONS"].get(RESOURCE))
        if place.kind not in self.kinds:
            raise _unfit(environment, place)
        self._environment = environment
        return self._open(conn_params, environment, place)

    def _open(self, conn_params: dict[str, Any], environment: Environment, place: Place) -> Any:
        raise NotImplementedError

    def _only_mine(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Refuse a cursor that outlived its tenant's turn."""
        now, owner = current_environment(), self._environment
        if owner is not None and owner.id != now.id:
            raise ForeignTenant(owner=owner.tenant.slug, current=now.tenant.slug)
        return execute(sql, params, many, context)


class PooledDatabase(TenantDatabase):
    """An engine whose connections come out of the budget of the tenant's server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._link: Link | None = None

    def _open(self, conn_params: dict[str, Any], environment: Environment, place: Place) -> Any:
        self._link = connected().databases.pools.take_sync(environment, place, (__file__, 0))
        connection = self._link.driver
        self._prepare(connection, conn_params)
        return connection

    def _prepare(self, connection: Any, conn_params: dict[str, Any]) -> None:
        """Make the driver's connection what Django expects."""
        raise NotImplementedError

    def _close(self) -> None:
        """Give up the connection: what Django set on it is nobody else's."""
        link, self._link = self._link, None
        if link is not None:
            link.leave()
            connected().databases.pools.give_back(link, False)


def _unfit(environment: Environment, place: Place) -> ResourceError:
    engine = ENGINES.get(place.kind)
    reason, remedy = "the engine in DATABASES is for another kind", f'Write "tenantry.integrations.django.{engine}".'
    if engine is None:
        reason = "Django's tables have names of their own, which no prefix can be put before"
        remedy = "Give tenants a database each, or rows in shared tables; or use `tenantry.tenant_session()` there."
    return ResourceError(
        kind=place.kind, resource=place.name, tenant=environment.tenant.slug, reason=reason, remedy=remedy
    )

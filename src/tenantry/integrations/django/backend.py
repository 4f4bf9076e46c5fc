"""What all engines for Django share: a connection follows the current tenant, and refuses to work for another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tenantry.context import current_environment
from tenantry.errors import ForeignTenant
from tenantry.model import Environment, Place
from tenantry.runtime.runtime import connected

RESOURCE: Final = "RESOURCE"


class TenantDatabase:
    """Stands before Django's own `DatabaseWrapper`. The option RESOURCE names the tenant's database, if it has several.

    Every use without a tenant raises `NoTenant`; under another tenant a connection is opened anew, and within a
    transaction `ForeignTenant` is raised.
    """

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

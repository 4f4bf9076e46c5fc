"""Tenants with a database on a server: `ENGINE = "tenantry.integrations.django.postgresql"`."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base
from psycopg.adapt import AdaptersMap

from tenantry.integrations.django.backend import TenantDatabase
from tenantry.model import Environment, Place
from tenantry.runtime.links import Link
from tenantry.runtime.runtime import connected


class DatabaseWrapper(TenantDatabase, base.DatabaseWrapper):
    """Django's engine for PostgreSQL, on connections out of the budget of the tenant's server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._link: Link | None = None

    def _open(self, conn_params: dict[str, Any], environment: Environment, place: Place) -> Any:
        self._link = connected().databases.pools.take_sync(environment, place, (__file__, 0))
        connection = self._link.driver
        connection.cursor_factory = conn_params["cursor_factory"]
        connection.prepare_threshold = conn_params.get("prepare_threshold")
        connection._adapters = AdaptersMap(conn_params["context"].adapters)
        return connection

    def _close(self) -> None:
        """Give up the connection: what Django set on it is nobody else's."""
        link, self._link = self._link, None
        if link is not None:
            link.leave()
            connected().databases.pools.give_back(link, False)

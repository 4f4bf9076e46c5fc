"""Tenants with a database on MariaDB or MySQL: `ENGINE = "tenantry.integrations.django.mysql"`."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.backends.mysql import base

from tenantry.integrations.django.backend import PooledDatabase


class DatabaseWrapper(PooledDatabase, base.DatabaseWrapper):
    """Django's engine for MariaDB and MySQL, on connections out of the budget of the tenant's server."""

    kinds: ClassVar[frozenset[str]] = frozenset({"mysql"})

    def _prepare(self, connection: Any, conn_params: dict[str, Any]) -> None:
        """Have values come as Django expects them."""
        conversions = conn_params["conv"]
        connection.encoders = {kind: to for kind, to in conversions.items() if not isinstance(kind, int)}
        connection.decoders = {kind: to for kind, to in conversions.items() if isinstance(kind, int)}

    def is_usable(self) -> bool:
        """Whether the server answers on this connection; it never makes another one."""
        try:
            self.connection.ping(reconnect=False)
        except self.Database.Error:
            return False
        return True

"""Tenants with a file of their own each: `ENGINE = "tenantry.integrations.django.sqlite3"`."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

from django.db.backends.sqlite3 import base

from tenantry.integrations.django.backend import TenantDatabase
from tenantry.model import Environment, Place, check_path
from tenantry.runtime.files import _Confined
from tenantry.runtime.runtime import connected


class DatabaseWrapper(TenantDatabase, base.DatabaseWrapper):
    """Django's engine for SQLite, on the current tenant's file."""

    kinds: ClassVar[frozenset[str]] = frozenset({"sqlite"})

    def _open(self, conn_params: dict[str, Any], environment: Environment, place: Place) -> Any:
        path = connected().settings.data / environment.home / check_path(place.location)
        named = {
            **conn_params,
            "database": f"file:{quote(str(path))}?mode=rw",
            "uri": True,
            "factory": _Confined,
        }
        return base.DatabaseWrapper.get_new_connection(self, named)

    def is_in_memory_db(self) -> bool:
        """A tenant's file is none."""
        return False

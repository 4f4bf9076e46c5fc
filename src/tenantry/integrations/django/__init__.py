"""Django: the current tenant's database behind the ORM, and a middleware that answers refusals.

DATABASES = {"default": {"ENGINE": "tenantry.integrations.django.sqlite3"}}  # or .postgresql
DATABASE_ROUTERS = ["tenantry.integrations.django.TenantRouter"]
MIDDLEWARE = ["tenantry.integrations.django.TenantMiddleware", ...]
CACHES = {"default": {"BACKEND": …, "KEY_FUNCTION": "tenantry.integrations.django.tenant_key"}}
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.utils.functional import SimpleLazyObject

from tenantry.context import current_environment, current_tenant
from tenantry.credentials import Role
from tenantry.errors import TenantryError
from tenantry.runtime import current_user, pages, require
from tenantry.runtime.cache import cache_key
from tenantry.runtime.runtime import connected

__all__ = ["TenantMiddleware", "TenantRouter", "migrated", "requires", "tenant_key"]

SHARED: Final = "TENANTRY_SHARED_APPS"
"""The setting that names the applications whose tables are the platform's, in `DATABASES["platform"]`."""

PLATFORM: Final = "platform"
TENANT: Final = "default"
OWN: Final = "django.db.backends"


class TenantMiddleware:
    """Gives each request `tenant` and `tenant_user`, answers refusals with a page, and leaves no connection behind.

    It stands first in MIDDLEWARE, behind `tenantry.WsgiTenantMiddleware`, which sets the current tenant.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.tenant = current_tenant()
        request.environment = current_environment()
        request.tenant_user = SimpleLazyObject(current_user)
        try:
            return self._get_response(request)
        finally:
            connections[TENANT].close_if_unusable_or_obsolete()

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer a refusal; other errors are Django's."""
        if not isinstance(error, TenantryError):
            return None
        answer = pages.refusal(error, request.headers.get("accept", ""), connected().settings.data)
        return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


def requires(role: Role | str = Role.USER) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator of views that want a user of at least this role; see `tenantry.require`."""
    wanted = Role(role)

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *arguments: Any, **named: Any) -> Any:
            require(wanted)
            return view(request, *arguments, **named)

        return guarded

    return decorate


class TenantRouter:
    """Sends models to the tenant's database, and those of `TENANTRY_SHARED_APPS` to the database `platform`."""

    def db_for_read(self, model: Any, **_: Any) -> str:
        """Where a model is read."""
        return PLATFORM if model._meta.app_label in _shared() else TENANT

    def db_for_write(self, model: Any, **_: Any) -> str:
        """Where a model is written."""
        return self.db_for_read(model)

    def allow_relation(self, one: Any, other: Any, **_: Any) -> bool:
        """Whether two objects may refer to each other: those of one database alone."""
        return self.db_for_read(type(one)) == self.db_for_read(type(other))

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool:
        """Whether an application's tables belong into a database."""
        return db == (PLATFORM if app_label in _shared() else TENANT)


def tenant_key(key: str, prefix: str, version: int) -> str:
    """The name of a value in one of Django's caches, with the current tenant in it. Raises `NoTenant`."""
    return cache_key(f"{prefix}:{version}:{key}")


def _shared() -> Collection[str]:
    found: Collection[str] = getattr(settings, SHARED, ())
    return found


def migrated(databases: Mapping[str, Any]) -> dict[str, Any]:
    """The setting DATABASES, for `DATABASES = migrated({…})` in the settings of a project that migrates itself.

    In a program that Tenantry started to migrate one tenant's database (a command migration) `default` leads to that
    database, by Django's own engine; elsewhere it is as given.
    """
    kind = os.environ.get("TENANTRY_DATABASE_KIND")
    if kind is None:
        return dict(databases)
    if kind == "sqlite":
        return {**databases, TENANT: {"ENGINE": f"{OWN}.sqlite3", "NAME": os.environ["TENANTRY_DATABASE_FILE"]}}
    parts = {
        name: os.environ.get(f"TENANTRY_DATABASE_{name}", "") for name in ("HOST", "PORT", "NAME", "USER", "PASSWORD")
    }
    query: dict[str, Any] = dict(parse_qsl(urlsplit(os.environ["TENANTRY_DATABASE_URL"]).query))
    if kind == "postgres":
        return {**databases, TENANT: {"ENGINE": f"{OWN}.postgresql", **parts, "OPTIONS": query}}
    from tenantry.integrations.django import mysql  # noqa: F401 - it brings the driver

    checked = query.pop("ssl_check_hostname", "true").lower() not in ("0", "false", "no", "off")
    if "ssl_ca" in query:
        query |= {"ssl_verify_cert": True, "ssl_verify_identity": checked}
    password = parts["PASSWORD"].encode()  # PyMySQL takes text for Latin-1
    return {**databases, TENANT: {"ENGINE": f"{OWN}.mysql", **parts, "PASSWORD": password, "OPTIONS": query}}

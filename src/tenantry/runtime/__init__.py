"""What an application uses: the tenant of each request, its database, files, cache, values and users."""

from tenantry.runtime.asgi import TenantMiddleware
from tenantry.runtime.runtime import (
    Runtime,
    table_prefix,
    tenant_cache,
    tenant_session,
    tenant_storage,
    tenant_values,
)
from tenantry.runtime.settings import Settings, Source
from tenantry.runtime.visit import current_user, require
from tenantry.runtime.wsgi import WsgiTenantMiddleware

__all__ = [
    "Runtime",
    "Settings",
    "Source",
    "TenantMiddleware",
    "WsgiTenantMiddleware",
    "current_user",
    "require",
    "table_prefix",
    "tenant_cache",
    "tenant_session",
    "tenant_storage",
    "tenant_values",
]

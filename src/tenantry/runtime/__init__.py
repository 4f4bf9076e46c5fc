"""What an application uses: the tenant of each request, its database, files, cache, values and users."""

from tenantry.runtime.asgi import TenantMiddleware
from tenantry.runtime.runtime import Runtime, tenant_cache, tenant_session, tenant_storage, tenant_values
from tenantry.runtime.settings import Changes, Loaded, Settings
from tenantry.runtime.wsgi import WsgiTenantMiddleware

__all__ = [
    "Changes",
    "Loaded",
    "Runtime",
    "Settings",
    "TenantMiddleware",
    "WsgiTenantMiddleware",
    "tenant_cache",
    "tenant_session",
    "tenant_storage",
    "tenant_values",
]

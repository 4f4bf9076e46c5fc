"""The control plane and runtime of multi-tenant platforms: everything that an application imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenantry.application import connect
    from tenantry.context import current_environment, current_tenant, support_access, tenant_context
    from tenantry.runtime import (
        Runtime,
        TenantMiddleware,
        WsgiTenantMiddleware,
        current_user,
        require,
        table_prefix,
        tenant_cache,
        tenant_session,
        tenant_storage,
        tenant_values,
    )
    from tenantry.runtime.accounts import User
    from tenantry.runtime.cache import cache_key
    from tenantry.runtime.runtime import connected

__all__ = [
    "Runtime",
    "TenantMiddleware",
    "User",
    "WsgiTenantMiddleware",
    "cache_key",
    "connect",
    "connected",
    "current_environment",
    "current_tenant",
    "current_user",
    "require",
    "support_access",
    "table_prefix",
    "tenant_cache",
    "tenant_context",
    "tenant_session",
    "tenant_storage",
    "tenant_values",
]

_HOMES = {
    "User": "tenantry.runtime.accounts",
    "cache_key": "tenantry.runtime.cache",
    "connect": "tenantry.application",
    "connected": "tenantry.runtime.runtime",
    "current_environment": "tenantry.context",
    "current_tenant": "tenantry.context",
    "support_access": "tenantry.context",
    "tenant_context": "tenantry.context",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import tenantry` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'tenantry' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES.get(name, "tenantry.runtime")), name)
    globals()[name] = value
    return value

"""The control plane and runtime of multi-tenant platforms: what an application imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenantry.application import connect
    from tenantry.context import current_environment, current_tenant, tenant_context
    from tenantry.runtime import (
        TenantMiddleware,
        WsgiTenantMiddleware,
        current_user,
        require,
        tenant_cache,
        tenant_session,
        tenant_storage,
        tenant_values,
    )

__all__ = [
    "TenantMiddleware",
    "WsgiTenantMiddleware",
    "connect",
    "current_environment",
    "current_tenant",
    "current_user",
    "require",
    "tenant_cache",
    "tenant_context",
    "tenant_session",
    "tenant_storage",
    "tenant_values",
]

_HOMES = {
    "connect": "tenantry.application",
    "current_environment": "tenantry.context",
    "current_tenant": "tenantry.context",
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

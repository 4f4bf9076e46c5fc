"""Names that lead to tenants."""

from __future__ import annotations

from collections.abc import Sequence

from tenantry.errors import ConfigError, InvalidHost, TenantNotFound, UnknownHost
from tenantry.identity import Reach, sees_only, verb
from tenantry.model import normalise_host
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import people, tenants
from tenantry.registry.tenants import HostnameRow


class Hostnames:
    """Names that lead to tenants."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._registry = tools.registry

    @verb("hostname.list", "tenants:read", Reach.LIST)
    async def list(self, slug: str | None = None, limit: int = 100, after: str | None = None) -> Sequence[HostnameRow]:
        """Hostnames by name, or those of one tenant; `after` is the last one of the page before.

        Raises `TenantNotFound`.
        """
        only = sees_only()
        async with self._registry.read() as tx:
            if slug is None:
                return await tenants.hostnames_page(tx, limit, after, only)
            if only is not None and not await people.manages(tx, only, slug):
                raise TenantNotFound(slug=slug)
            await tenants.find(tx, slug)
            return await tenants.hostnames(tx, slug)

    @verb("hostname.add", "tenants:write", Reach.TENANT)
    async def add(self, slug: str, host: str, environment: str = "production") -> str:
        """Let one more name lead to a tenant; returns it normalised. Raises `InvalidHost` or `HostTaken`."""
        name = normalise_host(host)
        domain = self._tools.config.platform.domain
        if name == domain or name.endswith("." + domain):
            raise InvalidHost(host=name, reason=f"names below {domain} are given by the blueprint")
        async with self._registry.write() as tx:
            row = await tenants.find(tx, slug)
            found = await tenants.environments(tx, [row.id])
            chosen = next((e for e in found if e.name == environment), None)
            if chosen is None:
                known = ", ".join(e.name for e in found)
                raise ConfigError(f"'{slug}' has no environment '{environment}'.", remedy=f"It has: {known}.")
            await tenants.add_hostnames(
                tx, [(chosen.id, name, await tenants.custom_hostnames(tx, chosen.id))], custom=True
            )
            tx.changed(row.id)
            tx.audit("hostname.add", slug, id=row.id, host=name, environment=environment)
        return name

    @verb("hostname.remove", "tenants:write", Reach.HOSTNAME)
    async def remove(self, host: str) -> str:
        """Let a name lead nowhere. Raises `UnknownHost`, or `InvalidHost` for a name the blueprint gives."""
        name = normalise_host(host)
        async with self._registry.write() as tx:
            row = await tenants.hostname(tx, name)
            if row is None:
                raise UnknownHost(host=name)
            if not row.custom and row.former_until is None:
                raise InvalidHost(host=name, reason="the blueprint gives it", remedy="Rename the tenant instead.")
            tenant = await tenants.find(tx, row.slug)
            await tenants.remove_hostname(tx, name)
            tx.changed(tenant.id)
            tx.audit("hostname.remove", row.slug, id=tenant.id, host=name)
        return name

"""Every tenant and hostname of the platform in memory: what a request is looked up in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from tenantry.model import Changes, Environment, Loaded, Server

Environments = tuple[Environment, ...]

_DEFAULT: Final = "production"


class Table:
    """Dictionaries by hostname, id and slug.

    Hostnames are keyed by their bytes, as a request carries them, so that the usual request needs one look-up and no
    decoding. Requests in other threads read while a change is applied: new entries are set before stale ones are
    removed, so a tenant that stays is never missing for a moment.
    """

    __slots__ = ("_refused", "closed", "live", "moved", "seq", "servers", "slugs", "tenants", "was")

    def __init__(
        self,
        loaded: Loaded = Loaded(0, ()),  # noqa: B008 -- frozen
        refused: Callable[[Environment], object] = lambda _: None,
    ) -> None:
        self._refused = refused  # tells what keeps an environment from being served, beside its tenant's status
        self.seq = loaded.seq
        self.servers: dict[str, Server] = {server.name: server for server in loaded.servers}
        self.live: dict[bytes, Environment] = {}  # hostnames that are served
        self.closed: dict[bytes, Environment] = {}  # hostnames of environments that are not, now
        self.moved: dict[bytes, Environment] = {}  # former hostnames
        self.tenants: dict[str, Environments] = {}  # by id
        self.slugs: dict[str, Environments] = {}
        self.was: dict[str, Environments] = {}  # by former slug
        for environments in _by_tenant(loaded.environments):
            self._add(environments)

    def apply(self, changes: Changes) -> None:
        """Drop the changed tenants and take in their new environments."""
        if changes.servers is not None:
            self.servers = {server.name: server for server in changes.servers}
        old = [self.tenants[tenant] for tenant in changes.tenants if tenant in self.tenants]
        new = _by_tenant(changes.environments)
        for environments in new:
            self._add(environments)
        for tenant in changes.tenants.difference(environments[0].tenant.id for environments in new):
            self.tenants.pop(tenant, None)
        kept = {id(environment) for environments in new for environment in environments}
        for environments in old:
            self._drop(environments, kept)
        self.seq = changes.seq

    def _add(self, environments: Environments) -> None:
        tenant = environments[0].tenant
        self.tenants[tenant.id] = self.slugs[tenant.slug] = environments
        for slug in tenant.former:
            self.was[slug] = environments
        for environment in environments:
            served = tenant.status.served and not self._refused(environment)
            names = self.live if served else self.closed
            for hostname in environment.hostnames:
                names[hostname.encode("ascii")] = environment
            for hostname in environment.former:
                self.moved[hostname.encode("ascii")] = environment

    def _drop(self, environments: Environments, kept: set[int]) -> None:
        """Remove what still leads to these very objects; a name that another tenant has taken since stays with it."""
        tenant = environments[0].tenant
        for slug in (tenant.slug, *tenant.former):
            for slugs in (self.slugs, self.was):
                if slugs.get(slug) is environments:
                    del slugs[slug]
        for environment in environments:
            for hostname in (*environment.hostnames, *environment.former):
                self._forget(hostname.encode("ascii"), environment, kept)

    def _forget(self, hostname: bytes, environment: Environment, kept: set[int]) -> None:
        for names in (self.live, self.closed, self.moved):
            if names.get(hostname) is environment and id(environment) not in kept:
                del names[hostname]

    def by_tenant(self, name: object) -> Environment | None:
        """The environment requests reach of a tenant named by id or slug, or None.

        Also None where the name is one tenant's id and another one's slug, which somebody chose to be taken for it.
        """
        if not isinstance(name, str):
            return None
        by_id, by_slug = self.tenants.get(name), self.slugs.get(name)
        if by_id and by_slug:
            return None
        found = by_id or by_slug
        return default(found) if found else None

    def current(self, environment: Environment) -> Environment | None:
        """What an environment that was looked up earlier is now, or None where it is gone."""
        for found in self.tenants.get(environment.tenant.id, ()):
            if found.id == environment.id:
                return found
        return None

    def environments(self) -> Iterator[Environment]:
        """All environments, as they are at this moment."""
        for environments in list(self.tenants.values()):
            yield from environments

    def counts(self) -> dict[str, Any]:
        """How many tenants and hostnames there are."""
        return {"tenants": len(self.tenants), "hostnames": len(self.live) + len(self.closed)}


def default(environments: Environments) -> Environment:
    """The environment that requests reach when only the tenant is named."""
    return next((found for found in environments if found.name == _DEFAULT), environments[0])


def _by_tenant(environments: Iterable[Environment]) -> list[Environments]:
    groups: dict[str, list[Environment]] = {}
    for environment in environments:
        groups.setdefault(environment.tenant.id, []).append(environment)
    return [tuple(group) for group in groups.values()]

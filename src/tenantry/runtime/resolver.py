"""Which tenant a request is for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final
from urllib.parse import quote

from tenantry.errors import InvalidHost, InvalidToken, TenantNotFound, TenantNotServed, TenantryError, UnknownHost
from tenantry.model import Environment, Loaded, normalise_host
from tenantry.runtime.schema import any_behind
from tenantry.runtime.settings import Rule, Settings
from tenantry.runtime.table import Table, default
from tenantry.runtime.tokens import Name, Signer, Verifier, bearer, name_of

SPELLINGS: Final = 100_000
"""How many other spellings of known hosts (with a port, with capitals) are remembered."""

SAFE: Final = "/:@!$&'()*+,;=~%"
"""Characters of a path (RFC 3986 section 3.3) that a redirect keeps as they came."""


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a request that rules look at."""

    hosts: tuple[bytes, ...]  # the values of all Host headers
    path: str = "/"  # decoded, without the part an outer application took
    authorizations: tuple[bytes, ...] = ()  # the values of all Authorization headers


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where a request leads: to an environment, or to the platform itself where `environment` is None."""

    environment: Environment | None
    rule: Rule | None = None
    prefix: str = ""  # the part of the path that named the tenant
    redirect_host: str | None = None  # the canonical hostname, where a former one was asked for
    redirect_path: str | None = None  # the decoded path below the new slug, where a former one was asked for


class Resolver:
    """Asks the rules in their order; the first that names a tenant decides. There is no default tenant.

    A verified token names a tenant where the address names none, and must agree with the address where it does.

    Every refusal is an error: `InvalidHost`, `UnknownHost`, `TenantNotFound`, `TenantNotServed`, `InvalidToken`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.table = self.build(Loaded(0, ()))
        self.refused: dict[str, TenantryError] = {}
        self.signer: Signer | None = None  # verifies tokens that tenants gave out; without it they open nothing
        self._domain = normalise_host(settings.domain).encode("ascii")
        self._spellings: dict[bytes, bytes] = {}
        before, _, after = settings.path.partition("{slug}")
        self._path = re.compile(re.escape(before) + "([^/]+)" + re.escape(after.rstrip("/")) + "(?=/|\\Z)", re.DOTALL)

    def build(self, loaded: Loaded) -> Table:
        """A table of all environments, in which those that these settings refuse are not served."""
        return Table(loaded, partial(any_behind, self._settings))

    def quick(self, host: bytes | None) -> Environment | None:
        """The environment of a host in its known spelling, where nothing else has to be looked at; None otherwise."""
        if host is None or not self.by_host_alone:
            return None
        live = self.table.live
        environment = live.get(host) or live.get(self._spellings.get(host, b""))
        if self.refused and environment is not None and environment.tenant.id in self.refused:
            return None
        return environment

    @cached_property
    def by_host_alone(self) -> bool:
        """Whether a known host decides by itself."""
        settings = self._settings
        return settings.single is None and settings.by[:1] == ("host",) and "jwt" not in settings.by

    def resolve(self, request: Request) -> Resolution:
        """Where this request leads."""
        if self._settings.single is not None:
            return self._serve(Resolution(self._single(self._settings.single)))
        host = self._host(request.hosts)
        token = self._token(request) if "jwt" in self._settings.by else None
        address = self._by_address(host, request.path)
        if token is None:
            if address is None:
                raise UnknownHost(host=host.decode("ascii"))
            return self._serve(address)
        if address is None or address.environment is None:
            return self._serve(Resolution(token, "jwt"))
        if token.tenant.id != address.environment.tenant.id:  # neither wins silently, in whatever order they stand
            raise InvalidToken(reason="it is another tenant's", remedy="Use it at its own tenant's address.")
        return self._serve(address)

    def _single(self, slug: str) -> Environment:
        found = self.table.slugs.get(slug)
        if not found:
            raise TenantNotFound(slug=slug)
        return default(found)

    def _by_address(self, host: bytes, path: str) -> Resolution | None:
        """What host and path name, by the first rule that knows it; None for a host that is none of the platform's."""
        known = host == self._domain or "host" not in self._settings.by or self._by_host(host) is not None
        for rule in self._settings.by if known else ():
            found = self._by_host(host) if rule == "host" else self._by_path(path) if rule == "path" else None
            if found:
                return found
        return Resolution(None) if known else None

    # --- host -----------------------------------------------------------------------------------------------------

    def _host(self, hosts: tuple[bytes, ...]) -> bytes:
        """The host in its one spelling. A request has exactly one Host header (RFC 9112 section 3.2)."""
        if len(hosts) != 1:
            shown = ", ".join(host.decode("ascii", "replace") for host in hosts)
            raise InvalidHost(host=shown[:200], reason="a request names exactly one host")
        raw = hosts[0]
        spelled = self._spellings.get(raw)
        if spelled is not None:
            return spelled
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidHost(host=raw.decode("ascii", "replace")[:200], reason="it is no UTF-8") from error
        host = normalise_host(text).encode("ascii")
        if host in self.table.live:  # only such: strangers cannot fill this up
            if len(self._spellings) >= SPELLINGS:
                self._spellings.clear()
            self._spellings[raw] = host
        return host

    def _by_host(self, host: bytes) -> Resolution | None:
        table = self.table
        if found := table.live.get(host) or table.closed.get(host):
            return Resolution(found, "host")
        moved = table.moved.get(host)
        if moved and moved.hostnames:
            return Resolution(moved, "host", redirect_host=moved.hostnames[0])
        return None

    # --- path -----------------------------------------------------------------------------------------------------

    def _by_path(self, path: str) -> Resolution | None:
        match = self._path.match(path)
        if not match:
            return None
        slug = match[1]
        rest = path[match.end() :]
        if found := self.table.slugs.get(slug):
            return Resolution(default(found), "path", match[0], redirect_path=None if rest else match[0] + "/")
        if was := self.table.was.get(slug):
            prefix = path[: match.start(1)] + was[0].tenant.slug + path[match.end(1) : match.end()]
            return Resolution(default(was), "path", prefix, redirect_path=prefix + (rest or "/"))
        raise TenantNotFound(slug=slug[:64])

    # --- token ----------------------------------------------------------------------------------------------------

    @cached_property
    def _verifier(self) -> Verifier:
        if self._settings.jwt is None:
            raise InvalidToken(reason="no keys are configured to verify it")
        return Verifier(self._settings.jwt)

    def _token(self, request: Request) -> Environment | None:
        """The environment a bearer token names, or None where the request has none."""
        if len(request.authorizations) > 1:
            raise InvalidToken(reason="a request carries one Authorization header at most")
        token = bearer(request.authorizations[0]) if request.authorizations else None
        if token is None:
            return None
        name, jwt = name_of(token), self._settings.jwt
        if (jwt is not None and jwt.own) or (name is not None and name.tenant in self.table.tenants):
            return self._own(token, name)
        found = self.table.by_tenant(self._verifier.claim(token))
        if found is None:
            raise InvalidToken(reason="it names no tenant of this platform")
        return found

    def _own(self, token: bytes, name: Name | None) -> Environment:
        """The environment that gave this token out."""
        for environment in self.table.tenants.get(name.tenant, ()) if name else ():
            if name and self.signer and environment.name == name.environment:
                self.signer.verify(environment, token)
                return environment
        raise InvalidToken(reason="no tenant of this platform gave it out")

    # --- gates ----------------------------------------------------------------------------------------------------

    def _serve(self, resolution: Resolution) -> Resolution:
        """The resolution itself, unless its tenant is not served or is refused by a gate."""
        environment = resolution.environment
        if environment is None:
            return resolution
        tenant = environment.tenant
        if not tenant.status.served:
            status = tenant.status.value
            raise TenantNotServed(slug=tenant.slug, status=status, tenant=tenant, environment=environment)
        if tenant.id in self.refused:
            raise self.refused[tenant.id]
        if error := any_behind(self._settings, environment):
            raise error
        return resolution


def location(resolution: Resolution, *, scheme: str, host: bytes, outer: str, raw_path: bytes, query: bytes) -> str:
    """The address a redirect leads to: scheme, port, path and query stay as they came (RFC 9110 section 15.4.9)."""
    if resolution.redirect_path is not None:  # relative: the host stays
        path = quote(outer + resolution.redirect_path, safe=SAFE.replace("%", ""), errors="replace")
        target = "/" + path.lstrip("/")
    else:
        port = re.search(rb":[0-9]{1,5}\Z", host)
        suffix = port[0].decode() if port else ""
        target = f"{scheme}://{resolution.redirect_host}{suffix}{quote(raw_path, safe=SAFE) or '/'}"
    return target + ("?" + quote(query, safe=SAFE + "?") if query else "")

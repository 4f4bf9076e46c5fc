"""Mail domains: an organization proves that one is its own by a TXT record in its DNS (RFC 1035 section 3.3.14)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from tenantry.errors import InvalidHost
from tenantry.model import normalise_host
from tenantry.sso_refusals import DomainUnproven, SsoInvalid

SECONDS: Final = 5.0
"""How long name servers are asked."""

PREFIX: Final = "_tenantry-challenge"
BEGINNING: Final = "tenantry="


def record(domain: str) -> str:
    """The name of the TXT record."""
    return f"{PREFIX}.{domain}"


def value(token: str) -> str:
    """What it has to hold."""
    return BEGINNING + token


def check_domain(domain: str) -> str:
    """The one spelling of a mail domain. Raises `SsoInvalid`."""
    given = domain.strip().removeprefix("@")
    try:
        found = normalise_host(given)
    except InvalidHost as error:
        raise SsoInvalid(reason=f"'{given[:100]}' is no mail domain") from error
    if "." not in found or ":" in given or _is_number(found) or len(record(found)) > 253:
        raise SsoInvalid(reason=f"'{given[:100]}' is no mail domain")
    return found


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def refuse_unproven(domain: str, token: str, servers: Sequence[str]) -> None:
    """Look the record up, by these name servers or the system's own. Raises `DomainUnproven`."""
    wanted, name = value(token), record(domain)
    found, reason = await _texts(name, servers)
    if wanted not in found:
        told = reason or (f"{name} holds something else: '{found[0][:80]}'" if found else f"{name} is not there")
        raise DomainUnproven(domain=domain, reason=told, record=name, value=wanted)


async def _texts(name: str, servers: Sequence[str]) -> tuple[list[str], str]:
    """What the TXT records of a name hold, or why that cannot be told."""
    from dns.asyncresolver import Resolver  # few processes ask
    from dns.exception import DNSException
    from dns.resolver import NXDOMAIN, NoAnswer

    resolver = Resolver(configure=not servers)
    if servers:
        hosts = [one.rpartition(":") if one.count(":") == 1 else (one, "", "53") for one in servers]
        resolver.nameservers = [host for host, _, _ in hosts]
        resolver.nameserver_ports = {host: int(port) for host, _, port in hosts}
    try:
        answer = await resolver.resolve(f"{name}.", "TXT", lifetime=SECONDS, search=False)
    except (NXDOMAIN, NoAnswer):
        return [], ""
    except (DNSException, OSError) as error:
        return [], f"the name servers do not answer ({type(error).__name__})"
    return [b"".join(row.strings).decode("utf-8", "replace").strip() for row in answer], ""

"""What DNS says of a domain that mail comes from: SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 7489)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tenantry.registry.letters import MailKey

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

SECONDS: Final = 5.0
"""For each question."""


@dataclass(frozen=True, slots=True)
class Published:
    """One thing that receivers look for."""

    what: str  # SPF, DKIM, DMARC, MX
    name: str  # where it stands
    good: bool
    told: str  # what stands there, or what is to


async def check(
    domain: str, keys: Sequence[MailKey], comes_back_to: str | None, resolver: Resolver | None = None
) -> list[Published]:
    """What stands in DNS, and what is missing."""
    from dns.asyncresolver import Resolver as Own  # most processes ask nothing

    if "." not in domain:
        return [Published("DNS", domain, False, "this name is no domain that others know: set mail.sender")]
    asked = resolver or Own()
    found = [await _spf(asked, comes_back_to or domain)]
    found += [await _dkim(asked, domain, key) for key in keys]
    if not keys:
        found.append(Published("DKIM", f"…._domainkey.{domain}", False, "there is no key: `tenantry mail dkim`"))
    found.append(await _dmarc(asked, domain))
    if comes_back_to is not None:
        found.append(await _mx(asked, comes_back_to))
    return found


async def _texts(resolver: Resolver, name: str) -> list[str] | str:
    """The TXT records of a name, or why they are not known."""
    import dns.exception
    import dns.resolver

    try:
        answer = await resolver.resolve(name, "TXT", lifetime=SECONDS)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except dns.exception.DNSException as error:
        return f"it could not be looked up: {type(error).__name__}"
    return [b"".join(one.strings).decode(errors="replace") for one in answer]


async def _spf(resolver: Resolver, domain: str) -> Published:
    """Receivers look at the domain that mail comes back to."""
    found = await _texts(resolver, domain)
    if isinstance(found, str):
        return Published("SPF", domain, False, found)
    records = [one for one in found if one.lower().split(" ")[0] == "v=spf1"]
    if len(records) == 1:
        lax = records[0].lower().endswith("+all")
        return Published("SPF", domain, not lax, "it lets everybody send (+all)" if lax else records[0])
    told = "there are several, and then none counts" if records else 'set TXT "v=spf1 a:<your mail server> -all"'
    return Published("SPF", domain, False, told)


async def _dkim(resolver: Resolver, domain: str, key: MailKey) -> Published:
    name = f"{key.selector}._domainkey.{domain}"
    found = await _texts(resolver, name)
    if isinstance(found, str):
        return Published("DKIM", name, False, found)
    if any(_tags(one).get("p") == _tags(key.record)["p"] for one in found):
        return Published("DKIM", name, True, f"{key.algorithm}: it is the key that signs")
    told = "another key stands there; " if found else ""
    return Published("DKIM", name, False, f'{told}set TXT "{key.record}"')


async def _dmarc(resolver: Resolver, domain: str) -> Published:
    """Of the domain itself, or of one above it (section 6.6.3), of at least two labels."""
    labels = domain.split(".")
    for above in range(max(1, len(labels) - 1)):
        name = f"_dmarc.{'.'.join(labels[above:])}"
        found = await _texts(resolver, name)
        if isinstance(found, str):
            return Published("DMARC", name, False, found)
        records = [one for one in found if one.replace(" ", "").lower().startswith("v=dmarc1")]
        if len(records) == 1 and _tags(records[0]).get("p") in ("none", "quarantine", "reject"):
            return Published("DMARC", name, True, records[0])
    return Published("DMARC", f"_dmarc.{domain}", False, 'set TXT "v=DMARC1; p=quarantine"')


async def _mx(resolver: Resolver, domain: str) -> Published:
    import dns.exception

    try:
        answer = await resolver.resolve(domain, "MX", lifetime=SECONDS)
    except dns.exception.DNSException:
        return Published(
            "MX", domain, False, "mail that comes back finds nobody: set MX to the server that hands it on"
        )
    return Published("MX", domain, True, ", ".join(sorted(str(one.exchange).rstrip(".") for one in answer)))


def _tags(record: str) -> dict[str, str]:
    """The tags of a record (RFC 6376, section 3.2), without white space in their values."""
    pairs = (part.partition("=") for part in record.split(";"))
    return {name.strip().lower(): "".join(value.split()) for name, _, value in pairs}

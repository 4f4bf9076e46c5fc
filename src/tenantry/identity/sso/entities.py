"""What a SAML provider and the platform say of themselves (Metadata for SAML 2.0)."""

from __future__ import annotations

import base64
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

from tenantry.identity.sso import xml
from tenantry.identity.sso.keys import KeyPair
from tenantry.sso_refusals import MetadataWrong, ProviderWrong

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

ACCEPT: Final = "application/samlmetadata+xml, application/xml;q=0.9, text/xml;q=0.8, */*;q=0.1"

LONGEST: Final = 300_000
"""The longest metadata that are kept here, in characters."""

REDIRECT: Final = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
POST: Final = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"

KEY_BITS: Final = 2048
"""The shortest RSA key."""

FORMATS: Final = (
    "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
    "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress",
)
"""How a provider may name somebody: not by a name that is new each time."""

_FRACTION: Final = re.compile(r"(\.[0-9]{6})[0-9]+")


@dataclass(frozen=True, slots=True)
class Entity:
    """A provider."""

    issuer: str  # its entity id
    sign_on: str  # where it is asked, by an address (HTTP-Redirect)
    certificates: tuple[Certificate, ...]

    @classmethod
    def of(cls, content: bytes, issuer: str = "", where: str = "") -> Entity:
        """Read metadata: of this provider, or of the only one in there. Raises `ProviderWrong` or `MetadataWrong`."""
        try:
            root = xml.read(content)
        except ValueError as error:
            raise _wrong(where, str(error)) from error
        inside = list(root) if root.tag == xml.name("m:EntitiesDescriptor") else [root]
        providers = [one for one in inside if one.tag == xml.name("m:EntityDescriptor") and _role(one) is not None]
        found = [one for one in providers if not issuer or one.get("entityID") == issuer]
        if len(found) != 1:
            named = ", ".join(str(one.get("entityID")) for one in providers)[:300] or "none"
            raise _wrong(where, f"its SAML 2.0 providers are: {named}; and not {issuer or 'one'}")
        role = _role(found[0])
        for until in filter(None, (one.get("validUntil") for one in (root, found[0], role))):
            if _is_over(until):
                raise _wrong(where, f"it ran out at {until[:40]}")
        return cls._read(found[0], role, where)

    @classmethod
    def _read(cls, found: xml.Element, role: xml.Element, where: str) -> Entity:
        issuer = str(found.get("entityID", "")).strip()
        if not issuer:
            raise _wrong(where, "it has no entityID")
        services = xml.all_of(role, "m:SingleSignOnService")
        address = next((one.get("Location", "") for one in services if one.get("Binding") == REDIRECT), "")
        parts = urlsplit(address)
        if parts.scheme not in ("https", "http") or not parts.hostname or not address.isprintable():
            raise _wrong(where, "it has no SingleSignOnService for HTTP-Redirect")
        keys = [one for one in xml.all_of(role, "m:KeyDescriptor") if one.get("use", "signing") == "signing"]
        texts = [
            xml.text(text) for key in keys for text in xml.all_of(key, "ds:KeyInfo/ds:X509Data/ds:X509Certificate")
        ]
        if not texts:
            raise _wrong(where, "it has no certificate for signatures")
        return cls(issuer, address, tuple(_certificate(one, where) for one in texts))

    def ask(self, request: str, state: str, keys: KeyPair) -> str:
        """The address at which somebody signs in (SAML Bindings, section 3.4.4)."""
        packer = zlib.compressobj(wbits=-15)
        packed = base64.b64encode(packer.compress(request.encode()) + packer.flush()).decode()
        query = keys.query(SAMLRequest=packed, RelayState=state)
        return f"{self.sign_on}{'&' if '?' in self.sign_on else '?'}{query}"


def own(entity: str, acs: str, certificate: str = "") -> str:
    """What the platform says of itself to an organization's provider."""
    key = ""
    if certificate:
        inner = f"<ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data>"
        key = f'<md:KeyDescriptor use="signing"><ds:KeyInfo>{inner}</ds:KeyInfo></md:KeyDescriptor>'
    formats = "".join(f"<md:NameIDFormat>{one}</md:NameIDFormat>" for one in FORMATS)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<md:EntityDescriptor xmlns:md="{xml.NAMES["m"]}"'
        f' xmlns:ds="{xml.NAMES["ds"]}" entityID={quoteattr(entity)}>'
        f'<md:SPSSODescriptor protocolSupportEnumeration="{xml.NAMES["p"]}"'
        f' AuthnRequestsSigned="{str(bool(key)).lower()}" WantAssertionsSigned="true">{key}{formats}'
        f'<md:AssertionConsumerService Binding="{POST}" Location={quoteattr(acs)} index="0" isDefault="true"/>'
        "</md:SPSSODescriptor></md:EntityDescriptor>\n"
    )


def request(identifier: str, entity: str, acs: str, destination: str) -> str:
    """What a provider is asked (SAML Core, section 3.4.1)."""
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f'<p:AuthnRequest xmlns:p="{xml.NAMES["p"]}" xmlns:a="{xml.NAMES["a"]}" ID="{identifier}" Version="2.0"'
        f' IssueInstant="{when}" Destination={quoteattr(destination)} ProtocolBinding="{POST}"'
        f" AssertionConsumerServiceURL={quoteattr(acs)}><a:Issuer>{entity}</a:Issuer>"
        '<p:NameIDPolicy AllowCreate="true"/></p:AuthnRequest>'
    )


def moment(given: str) -> datetime:
    """A moment as XML has it; without a zone it is UTC (SAML Core, section 1.3.3). Raises `ValueError`."""
    found = datetime.fromisoformat(_FRACTION.sub(r"\1", given.strip()))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _is_over(until: str) -> bool:
    try:
        return moment(until) <= datetime.now(UTC)
    except ValueError:
        return True


def _role(entity: xml.Element) -> xml.Element:
    """What an entity says of itself as a provider that speaks SAML 2.0; None where it is none."""
    spoken = xml.NAMES["p"]
    roles = xml.all_of(entity, "m:IDPSSODescriptor")
    return next((one for one in roles if spoken in one.get("protocolSupportEnumeration", "").split()), None)


def _certificate(text: str, where: str) -> Certificate:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_der_x509_certificate

    try:
        found = load_der_x509_certificate(base64.b64decode("".join(text.split()), validate=True))
        key = found.public_key()
    except ValueError as error:
        raise _wrong(where, "one of its certificates cannot be read") from error
    if isinstance(key, RSAPublicKey) and key.key_size < KEY_BITS:
        raise _wrong(where, f"one of its keys has {key.key_size} bits, and not {KEY_BITS} at least")
    return found


def _wrong(where: str, reason: str) -> ProviderWrong:
    """What is wrong where it was fetched, or in what somebody gave."""
    if not where:
        return MetadataWrong(reason=reason)
    return ProviderWrong(url=where, reason=reason, remedy=MetadataWrong.remedy)

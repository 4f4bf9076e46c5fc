"""Answers of SAML providers: each thing that makes one wrong is an error of its own (SAML Profiles, section 4.1.4).

What counts is read from what is signed, and from nothing else of the answer.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tenantry.identity.sso import xml
from tenantry.identity.sso.entities import Entity, moment
from tenantry.sso_refusals import (
    AnswerEncrypted,
    AnswerWrong,
    AudienceWrong,
    ClaimMissing,
    IssuerWrong,
    ProviderRefused,
    RecipientWrong,
    SignatureWrong,
    TokenExpired,
    TokenTooEarly,
    Unsolicited,
)

LONGEST: Final = 400_000
"""The longest answer looked at, in characters as it is posted."""

LEEWAY: Final = timedelta(seconds=30)
"""How much clocks may differ."""

SUCCESS: Final = "urn:oasis:names:tc:SAML:2.0:status:Success"
BEARER: Final = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
MAIL: Final = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
TRANSIENT: Final = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"

MAILS: Final = (
    "mail",
    "email",
    "emailAddress",
    "urn:oid:0.9.2342.19200300.100.1.3",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
)
"""Attributes that hold the mail address, where it is not the NameID."""

PEOPLE: Final = (
    "displayName",
    "name",
    "urn:oid:2.16.840.1.113730.3.1.241",
    "http://schemas.microsoft.com/identity/claims/displayname",
    "cn",
    "urn:oid:2.5.4.3",
)
"""Attributes that hold what people call her."""

_KNOWN: Final = ("AudienceRestriction", "OneTimeUse", "ProxyRestriction")


@dataclass(frozen=True, slots=True)
class Asserted:
    """What a provider says of somebody."""

    id: str
    request: str  # the id of what was asked
    until: datetime
    claims: Mapping[str, Any]


def read(posted: str, provider: Entity, audience: str, recipient: str) -> Asserted:
    """What an answer says. Raises what is wrong with it."""
    root = _response(posted)
    _refuse_failed(root)
    root, assertion = _signed(root, provider)
    _refuse_foreign(root, assertion, provider, recipient)
    data = _confirmed(assertion, recipient)
    until = _refuse_time(assertion, data)
    _refuse_audience(assertion, audience)
    asked = data.get("InResponseTo", "")
    if root.get("InResponseTo", asked) != asked:
        raise AnswerWrong(reason="it answers one request, and its assertion another")
    return Asserted(assertion.get("ID"), asked, until, _claims(assertion))


def _response(posted: str) -> xml.Element:
    """The answer, of which nothing is trusted yet."""
    if len(posted) > LONGEST:
        raise AnswerWrong(reason=f"it is longer than {LONGEST:,} characters")
    try:
        root = xml.read(base64.b64decode("".join(posted.split()), validate=True))
    except ValueError as error:
        raise AnswerWrong(reason=str(error)[:200]) from error
    if root.tag != xml.name("p:Response") or root.get("Version") != "2.0":
        raise AnswerWrong(reason="it is no Response of SAML 2.0")
    seen: set[str] = set()
    for one in root.iter():
        identifier = one.get("ID")
        if identifier in seen:
            raise AnswerWrong(reason=f"two of its elements have the ID '{identifier[:60]}'")
        seen |= {identifier} if identifier else set()
    return root


def _refuse_failed(root: xml.Element) -> None:
    """Raise `ProviderRefused` where the provider says that it signs nobody in."""
    status = xml.one(root, "p:Status")
    codes = [str(one.get("Value")) for one in status.iter(xml.name("p:StatusCode"))]
    if codes[:1] != [SUCCESS]:
        told = [one.rpartition(":")[2] for one in codes] + [
            xml.text(one) for one in xml.all_of(status, "p:StatusMessage")
        ]
        raise ProviderRefused(reason=": ".join(filter(None, told))[:300] or "it does not say why")


def _signed(root: xml.Element, provider: Entity) -> tuple[xml.Element, xml.Element]:
    """The answer and its one assertion; the latter out of what the provider signed, which may be the whole answer."""
    for encrypted in ("a:EncryptedAssertion", "a:EncryptedID", "a:EncryptedAttribute"):
        if next(root.iter(xml.name(encrypted)), None) is not None:
            raise AnswerEncrypted
    count = sum(1 for _ in root.iter(xml.name("a:Assertion")))
    if count != 1:
        raise AnswerWrong(reason=f"it holds {count} assertions, not one")
    if xml.all_of(root, "ds:Signature"):
        root = xml.signed(root, provider.certificates)
        return root, xml.one(root, "a:Assertion")
    assertion = xml.one(root, "a:Assertion")
    if not xml.all_of(assertion, "ds:Signature"):
        raise SignatureWrong(reason="neither the answer nor its assertion is signed")
    return root, xml.signed(assertion, provider.certificates)


def _refuse_foreign(root: xml.Element, assertion: xml.Element, provider: Entity, recipient: str) -> None:
    """Who made it, and where it was sent."""
    issuers = [xml.one(assertion, "a:Issuer"), *xml.all_of(root, "a:Issuer")]
    other = next((xml.text(one) for one in issuers if xml.text(one) != provider.issuer), None)
    if other is not None:
        raise IssuerWrong(given=other[:200])
    if assertion.get("Version") != "2.0" or not assertion.get("ID"):
        raise AnswerWrong(reason="it has no assertion of SAML 2.0")
    sent = root.get("Destination")
    if sent is not None and sent != recipient:
        raise RecipientWrong(given=sent[:200], wanted=recipient)


def _confirmed(assertion: xml.Element, recipient: str) -> xml.Element:
    """What makes the assertion good for whoever brings it: for this address, and for a request of ours."""
    found = [one for one in xml.all_of(assertion, "a:Subject/a:SubjectConfirmation") if one.get("Method") == BEARER]
    data = [one for each in found for one in xml.all_of(each, "a:SubjectConfirmationData")]
    if not data:
        raise AnswerWrong(reason="its assertion is for nobody who brings it (bearer)")
    mine = next((one for one in data if one.get("Recipient") == recipient), None)
    if mine is None:
        raise RecipientWrong(given=str(data[0].get("Recipient"))[:200], wanted=recipient)
    if not mine.get("InResponseTo"):
        raise Unsolicited
    return mine


def _refuse_time(assertion: xml.Element, data: xml.Element) -> datetime:
    """When it holds; until when it may come."""
    present = datetime.now(UTC)
    conditions = xml.one(assertion, "a:Conditions")
    sessions = xml.all_of(assertion, "a:AuthnStatement")
    if not sessions:
        raise AnswerWrong(reason="it does not say that somebody signed in")
    until = _moment(data, "NotOnOrAfter")
    if until is None:
        raise AnswerWrong(reason="it does not say how long it may be brought")
    ends = [until, _moment(conditions, "NotOnOrAfter"), *(_moment(one, "SessionNotOnOrAfter") for one in sessions)]
    if any(end is not None and end <= present - LEEWAY for end in ends):
        raise TokenExpired
    begins = [_moment(assertion, "IssueInstant"), _moment(conditions, "NotBefore"), _moment(data, "NotBefore")]
    if any(begin is not None and begin > present + LEEWAY for begin in begins):
        raise TokenTooEarly
    return until


def _refuse_audience(assertion: xml.Element, audience: str) -> None:
    """For whom it is. A condition that is not known is not met (SAML Core, section 2.5.1)."""
    conditions = xml.one(assertion, "a:Conditions")
    odd = next((one.tag for one in conditions if one.tag not in {xml.name(f"a:{known}") for known in _KNOWN}), None)
    if odd is not None:
        raise AnswerWrong(reason=f"it has a condition that is not known: {str(odd)[:100]}")
    restrictions = [
        [xml.text(one) for one in xml.all_of(each, "a:Audience")]
        for each in xml.all_of(conditions, "a:AudienceRestriction")
    ]
    other = next((named for named in restrictions if audience not in named), None)
    if other is not None or not restrictions:
        raise AudienceWrong(
            given=", ".join(other or ["nobody in particular"])[:200],
            remedy=f"Enter the platform at the provider with the entity ID {audience}.",
        )


def _claims(assertion: xml.Element) -> Mapping[str, Any]:
    """Who it is: the attributes, and in the words of OpenID Connect what they mean here."""
    attributes = _attributes(assertion)
    name = xml.one(assertion, "a:Subject/a:NameID")
    subject, form = xml.text(name), name.get("Format", "")
    if not 0 < len(subject) <= 255 or form == TRANSIENT:
        reason = "Let the provider name people by something that stays: persistent, or the mail address."
        raise ClaimMissing(claim="NameID", remedy=reason)
    mail = subject if form == MAIL else next((_first(attributes[one]) for one in MAILS if attributes.get(one)), None)
    if mail is None:
        remedy = "Let the provider send the mail address: as the NameID (emailAddress), or as the attribute mail."
        raise ClaimMissing(claim="mail", remedy=remedy)
    called = next((_first(attributes[one]) for one in PEOPLE if attributes.get(one)), "")
    sessions = [one.get("SessionIndex", "") for one in xml.all_of(assertion, "a:AuthnStatement")]
    known = {"sub": subject, "email": mail, "name": called, "sid": next(filter(None, sessions), "")}
    return {**attributes, **{key: value for key, value in known.items() if value}}


def _attributes(assertion: xml.Element) -> dict[str, Any]:
    """By name; of one value as a text, of several as a list."""
    found: dict[str, list[str]] = {}
    for one in xml.all_of(assertion, "a:AttributeStatement/a:Attribute"):
        values = [xml.text(value) for value in xml.all_of(one, "a:AttributeValue")]
        found.setdefault(str(one.get("Name")), []).extend(filter(None, values))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _first(value: Any) -> str:
    return str(value[0] if isinstance(value, list) else value)


def _moment(element: xml.Element, name: str) -> datetime | None:
    given = element.get(name)
    try:
        return moment(given) if given is not None else None
    except ValueError as error:
        raise AnswerWrong(reason=f"'{given[:40]}' is no moment") from error

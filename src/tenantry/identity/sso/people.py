"""Whom a provider's claims tell of: an address that is the organization's, and a role."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from tenantry.credentials import Role
from tenantry.errors import AccountError
from tenantry.mail import check_mail
from tenantry.model import NAME_LENGTH
from tenantry.registry.sso import SsoRow
from tenantry.sso_refusals import ClaimMissing, IssuerWrong, MailForeign, MailUnverified, RoleMissing

ENTRA: Final = "entra"
OIDC: Final = "oidc"
SAML: Final = "saml"

HOST: Final = "https://login.microsoftonline.com/"
"""Where Microsoft Entra ID is; a directory's issuer is this, its id, and /v2.0."""

STRONGEST: Final = (Role.ADMIN, Role.SUPERUSER, Role.USER)


def wanted_claims(row: SsoRow) -> set[str]:
    """The claims that are asked for at the userinfo endpoint where the ID token has them not."""
    return {"email", *([row.claim] if row.claim else [])}


def mail_of(row: SsoRow, claims: Mapping[str, Any], domains: Collection[str]) -> str:
    """The address, which the provider vouches for and which is in a domain that the organization has proven.

    Entra ID says nothing of email_verified: there the user principal name counts, whose domain a directory has to
    have verified itself, and the token has to be of this very directory. SAML has no word for it: there the provider
    vouches for each address it names.
    """
    if row.preset == ENTRA:
        if f"{HOST}{claims.get('tid')}/v2.0" != row.issuer:
            raise IssuerWrong(given=f"the directory {str(claims.get('tid'))[:100]}")
        given = claims.get("preferred_username") or claims.get("upn")
    else:
        given = claims.get("email")
    if not isinstance(given, str) or not given:
        raise ClaimMissing(claim="preferred_username" if row.preset == ENTRA else "email")
    try:
        mail = check_mail(given)
    except AccountError as error:
        raise ClaimMissing(claim="email", remedy=error.message) from error
    if row.preset == OIDC and claims.get("email_verified") is not True:
        raise MailUnverified(mail=mail)
    if mail.rpartition("@")[2].encode("idna").decode() not in domains:
        raise MailForeign(mail=mail)
    return mail


def role_of(row: SsoRow, claims: Mapping[str, Any], mail: str, groups: Collection[str] = ()) -> Role:
    """The strongest role that groups or app roles give, else the usual one; `groups` are those of the directory.

    Raises `RoleMissing`.
    """
    given = claims.get(row.claim) if row.claim else None
    named = {given} if isinstance(given, str) else {one for one in given or () if isinstance(one, str)}
    theirs = {row.roles[one] for one in (*named, *groups) if one in row.roles}
    found = next((role for role in STRONGEST if role.value in theirs), None)
    if found is None and not row.default_role:
        raise RoleMissing(mail=mail)
    return found or Role(row.default_role)


def name_of(claims: Mapping[str, Any], mail: str) -> str:
    """What people call her."""
    given = claims.get("name")
    name = "".join(letter for letter in given if letter.isprintable()).strip() if isinstance(given, str) else ""
    return name[:NAME_LENGTH] or mail

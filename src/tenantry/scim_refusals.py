"""Errors of what providers tell by SCIM, each with its keyword of RFC 7644 section 3.12 where there is one."""

from __future__ import annotations

from tenantry.errors import TenantryError
from tenantry.sso_refusals import SsoRefused


class ScimRefused(TenantryError):
    """What the provider told by SCIM is refused."""

    code = "scim.refused"
    remedy = "See docs/howto/scim.md."
    status = 400
    keyword: str = ""  # scimType


class ScimMissing(TenantryError):
    """The directory of the organization '{organization}' is not kept here."""

    code = "scim.missing"
    remedy = "Make a token on the organization's page, or by `tenantry scim token`."
    status = 404
    exit_code = 4


class ScimTokenNotFound(TenantryError):
    """The organization '{organization}' has no SCIM token '{token}'."""

    code = "scim.token_not_found"
    remedy = "`tenantry scim show` names those it has."
    status = 404
    exit_code = 4


class ScimWaiting(TenantryError):
    """{number} changes of the directory of '{organization}' are not carried out yet."""

    code = "scim.waiting"
    remedy = "Wait until workers have reached each tenant: who left keeps nothing there."
    status = 409


class ScimTokensFull(TenantryError):
    """The organization '{organization}' has {number} SCIM tokens."""

    code = "scim.tokens_full"
    remedy = "Revoke one first."
    status = 409


class ScimNameWrong(TenantryError):
    """'{name}' is no name for a token."""

    code = "scim.token_name"
    remedy = "Give it 1 to 100 printable characters."
    status = 422
    exit_code = 2


# --- what a provider is told --------------------------------------------------------------------------------------


class ScimTokenWrong(ScimRefused):
    """This is no token of this organization."""

    code = "scim.token"
    remedy = "Make one on the organization's page, and enter it at the provider as the secret token."
    status = 401


class ScimNotFound(ScimRefused):
    """There is no {kind} '{id}'."""

    code = "scim.not_found"
    remedy = "It is gone, or it never was this organization's."
    status = 404


class ScimTaken(ScimRefused):
    """The user name '{name}' is somebody's already."""

    code = "scim.taken"
    remedy = "Look for it by the filter userName eq, and change who is there."
    status = 409
    keyword = "uniqueness"


class ScimForeign(ScimRefused):
    """The user name '{name}' is no mail address in a domain that the organization has proven."""

    code = "scim.foreign"
    remedy = "Prove the domain on the organization's page, or let the provider send the mail address as userName."
    keyword = "invalidValue"


class ScimSyntax(ScimRefused):
    """The body cannot be read: {reason}."""

    code = "scim.syntax"
    remedy = "Send what RFC 7644 says, as JSON."
    keyword = "invalidSyntax"


class ScimValue(ScimRefused):
    """A value is not right: {reason}."""

    code = "scim.value"
    remedy = "Correct it at the provider."
    keyword = "invalidValue"


class ScimFilter(ScimRefused):
    """This filter cannot be answered: {reason}."""

    code = "scim.filter"
    remedy = "See docs/howto/scim.md for what can be asked for."
    keyword = "invalidFilter"


class ScimTooMany(ScimRefused):
    """There are more than {number} {what}."""

    code = "scim.too_many"
    remedy = "Ask for fewer at once."
    keyword = "tooMany"


class ScimChanged(ScimRefused):
    """It was changed since: it is at version {version} now."""

    code = "scim.changed"
    remedy = "Read it again, and change what is there now."
    status = 412


class ScimUnsupported(ScimRefused):
    """{what} is not supported here."""

    code = "scim.unsupported"
    remedy = "/ServiceProviderConfig tells what is."
    status = 501


class ScimNotFiltered(ScimRefused):
    """What describes the service is not filtered."""

    code = "scim.not_filtered"
    remedy = "Leave the filter away (RFC 7644 section 4)."
    status = 403


# --- who signs in -------------------------------------------------------------------------------------------------


class PersonLeft(SsoRefused):
    """The directory of the organization says that '{mail}' has left."""

    code = "sso.left"
    remedy = "Let the organization's administrator activate the account, and its provider tell of it."


class PersonUnknown(SsoRefused):
    """The directory of the organization knows no '{mail}'."""

    code = "sso.unknown"
    remedy = "Let the organization's administrator assign the person to this platform at the provider."

"""Errors of signing in by an organization's provider, each in the words of whoever has to mend it."""

from __future__ import annotations

from tenantry.errors import TenantryError


class SsoRefused(TenantryError):
    """The sign-in by the organization's provider is refused."""

    code = "sso.refused"
    remedy = "Begin to sign in once more."
    status = 403
    exit_code = 3


# --- how it is set up ---------------------------------------------------------------------------------------------


class SsoMissing(SsoRefused):
    """The organization '{organization}' has no single sign-on."""

    code = "sso.missing"
    remedy = "Set it up on the organization's page, or by `tenantry sso set`."
    status = 404
    exit_code = 4


class SsoUntried(SsoRefused):
    """Nobody of '{organization}' has come in by this provider yet, so it might keep everybody out."""

    code = "sso.untried"
    remedy = "Save it without SSO only, try a sign-in that works, then turn SSO only on."
    status = 409
    exit_code = 2


class SsoInvalid(SsoRefused):
    """The single sign-on cannot be set up so: {reason}."""

    code = "sso.invalid"
    remedy = "Correct it and try again."
    status = 422
    exit_code = 2


class DomainNotFound(SsoRefused):
    """The organization '{organization}' does not claim the mail domain '{domain}'."""

    code = "sso.domain_not_found"
    remedy = "`tenantry sso show` names those it claims."
    status = 404
    exit_code = 4


class DomainUnproven(SsoRefused):
    """It is not proven that '{domain}' is the organization's: {reason}."""

    code = "sso.domain_unproven"
    remedy = "Put the TXT record {record} with the value {value} into its DNS, wait until it is out, and try again."
    status = 409


class DomainTaken(SsoRefused):
    """Another organization has proven that '{domain}' is its own."""

    code = "sso.domain_taken"
    remedy = "One mail domain belongs to one organization: take it away from the other one first."
    status = 409


# --- the provider -------------------------------------------------------------------------------------------------


class ProviderUnreachable(SsoRefused):
    """The provider does not answer at {url}: {reason}."""

    code = "sso.unreachable"
    remedy = "Check the issuer; the platform has to reach it by https at a public address, without redirects."
    status = 502


class ProviderWrong(SsoRefused):
    """What the provider says of itself at {url} is not right: {reason}."""

    code = "sso.provider"
    remedy = "Check the issuer: it is the address before /.well-known/openid-configuration, written exactly so."
    status = 502


class MetadataWrong(ProviderWrong):
    """What is given as a provider's metadata is not right: {reason}."""

    code = "sso.metadata"
    remedy = "Give the metadata of your SAML 2.0 provider, as it publishes them."
    status = 422


class ProviderRefused(SsoRefused):
    """The provider refused: {reason}."""

    code = "sso.provider_refused"
    remedy = "Sign in once more; where that does not help, the provider's own log tells why."


class CodeRefused(SsoRefused):
    """The provider gave no token for its code: {reason}."""

    code = "sso.code"
    remedy = "Check the client id, the client secret and the redirect URI; a code is good once, and for a minute."
    status = 502


# --- what came back -----------------------------------------------------------------------------------------------


class StateWrong(SsoRefused):
    """This answer of a provider belongs to no sign-in that this browser began, or it came before."""

    code = "sso.state"
    remedy = "Begin to sign in once more, and finish it in the same window."


class IssuerMixedUp(SsoRefused):
    """The answer is from '{issuer}', and not from the provider that was asked (RFC 9207)."""

    code = "sso.mixed_up"
    remedy = "Begin to sign in once more; if it comes again, somebody tries to mix up providers."


class AlgorithmRefused(SsoRefused):
    """The provider's token is signed by '{algorithm}', which is not taken."""

    code = "sso.algorithm"
    remedy = "Let the provider sign by RS256, PS256, ES256 or Ed25519."


class SignatureWrong(SsoRefused):
    """The provider's token does not carry the provider's signature: {reason}."""

    code = "sso.signature"
    remedy = "Begin to sign in once more; right after a change of its keys wait half a minute."


class IssuerWrong(SsoRefused):
    """The token is from '{given}', and not from this organization's provider."""

    code = "sso.issuer"
    remedy = "Check the issuer in the organization's single sign-on."


class AudienceWrong(SsoRefused):
    """The token is for '{given}', and not for this platform."""

    code = "sso.audience"
    remedy = "Check the client id in the organization's single sign-on."


class PartyWrong(SsoRefused):
    """The token was issued to '{given}' (azp), and not to this platform."""

    code = "sso.party"
    remedy = "Check the client id in the organization's single sign-on."


class NonceWrong(SsoRefused):
    """The token was made for another sign-in than this one."""

    code = "sso.nonce"
    remedy = "Begin to sign in once more, and finish it in the same window."


class TokenExpired(SsoRefused):
    """The provider's token has run out."""

    code = "sso.expired"
    remedy = "Begin to sign in once more; check the clocks of provider and platform."


class TokenTooEarly(SsoRefused):
    """The provider's token is not valid yet."""

    code = "sso.too_early"
    remedy = "Check the clocks of provider and platform: they may differ by 30 seconds."


class ClaimMissing(SsoRefused):
    """The provider's token has no usable claim '{claim}'."""

    code = "sso.claim"
    remedy = "Let the provider put it into the ID token, or answer it at its userinfo endpoint."


class MailUnverified(SsoRefused):
    """The provider does not say that the mail address '{mail}' is verified."""

    code = "sso.mail_unverified"
    remedy = "Let the provider verify it and say so (claim email_verified)."


class MailForeign(SsoRefused):
    """The mail address '{mail}' is in no domain that the organization has proven to be its own."""

    code = "sso.mail_foreign"
    remedy = "Prove the domain on the organization's page, or sign in with an address of the organization."


class RoleMissing(SsoRefused):
    """The provider gives '{mail}' none of the roles that may come in here."""

    code = "sso.role"
    remedy = "Put the person into a group that has a role here, or set a default role."


class AnswerWrong(SsoRefused):
    """The provider's answer cannot be taken: {reason}."""

    code = "sso.answer"
    remedy = "Begin to sign in once more; if it comes again, look at what the provider sends."


class AnswerEncrypted(SsoRefused):
    """The provider encrypts its answers, which are sent by https anyway."""

    code = "sso.encrypted"
    remedy = "Turn the encryption of assertions off at the provider."


class AnswerReplayed(SsoRefused):
    """This answer of the provider came before."""

    code = "sso.replayed"
    remedy = "Begin to sign in once more."


class RecipientWrong(SsoRefused):
    """The provider sends its answer to '{given}', and not to {wanted}."""

    code = "sso.recipient"
    remedy = "Enter {wanted} at the provider as the assertion consumer service (ACS)."


class Unsolicited(SsoRefused):
    """Nobody asked for this answer: signing in begins at the tenant, not at the provider."""

    code = "sso.unsolicited"
    remedy = "Go to the tenant's own address and sign in there."


class LogoutWrong(SsoRefused):
    """This is no notice of a sign-out that counts: {reason}."""

    code = "sso.logout"
    remedy = "See OpenID Connect Back-Channel Logout 1.0, section 2.6."
    status = 400


# --- at the tenant ------------------------------------------------------------------------------------------------


class TenantOfAnother(SsoRefused):
    """This tenant does not sign in by this organization."""

    code = "sso.tenant"
    remedy = "Begin at the tenant's own address."


class HandoverWrong(SsoRefused):
    """This sign-in was begun in another browser, at another tenant, or it was finished before."""

    code = "sso.handover"
    remedy = "Begin to sign in once more, and finish it in the same window."


class PasswordsOff(SsoRefused):
    """People of '{organization}' sign in by their organization alone."""

    code = "sso.only"
    remedy = "Sign in with the organization."

"""Errors of those who run a platform: who they are, what they may do, and what they asked for over HTTP."""

from __future__ import annotations

from tenantry.errors import TenantryError


class SignInNeeded(TenantryError):
    """Nobody is signed in here, and no valid token came with the request."""

    code = "access.unknown"
    remedy = "Sign in, or send `Authorization: Bearer` with a token of `tenantry token create`."
    status = 401
    exit_code = 3


class UserNeeded(TenantryError):
    """Nobody is signed in here."""

    code = "user.unknown"
    remedy = "Sign in."
    status = 401
    exit_code = 3


class RoleNeeded(TenantryError):
    """This is for the role '{wanted}' or more, and '{login}' has the role '{role}'."""

    code = "user.forbidden"
    remedy = "Ask an admin of this tenant."
    status = 403
    exit_code = 3


class GrantRefused(TenantryError):
    """This refresh token opens nothing: it is over, or none of this tenant's."""

    code = "grant.refused"
    remedy = "Sign in again."
    status = 400
    exit_code = 3


class TokenReused(GrantRefused):
    """This refresh token was used before, so all that were given out after it are over."""

    code = "grant.reused"
    remedy = "Sign in again; each refresh token is good once."


class GrantUnknown(TenantryError):
    """The grant_type '{kind}' is none that is given tokens for here."""

    code = "grant.unknown"
    remedy = "Send grant_type=session, password or refresh_token."
    status = 400
    exit_code = 2


class Forbidden(TenantryError):
    """{who} may not {verb}: it wants {wanted}."""

    code = "access.forbidden"
    remedy = "Ask a superadmin for it."
    status = 403
    exit_code = 3


class AdminNotFound(TenantryError):
    """There is no admin user '{admin}'."""

    code = "admin.not_found"
    remedy = "`tenantry admin list` names them all."
    status = 404
    exit_code = 4


class AdminRefused(TenantryError):
    """The admin user '{admin}' cannot be changed so: {reason}."""

    code = "admin.refused"
    remedy = "Make another one a superadmin first."
    status = 409
    exit_code = 3


class TokenNotFound(TenantryError):
    """There is no token '{token}'."""

    code = "token.not_found"
    remedy = "`tenantry token list` names them all."
    status = 404
    exit_code = 4


class OrganizationNotFound(TenantryError):
    """There is no organization '{organization}'."""

    code = "organization.not_found"
    remedy = "`tenantry org list` names them all."
    status = 404
    exit_code = 4


class NotOverTheApi(TenantryError):
    """{verb} works on the platform's own machine alone."""

    code = "request.local_only"
    remedy = "Run the command there, without --server."
    status = 501
    exit_code = 2


class AddressTaken(TenantryError):
    """Nothing can be served at {host}, port {port}: {reason}."""

    code = "serve.address"
    remedy = "End what is served there, or name another port: --port, or serve.port in tenantry.toml."


class RemoteUnreachable(TenantryError):
    """The platform at {server} cannot be reached: {reason}."""

    code = "remote.unreachable"
    remedy = "Check --server, and that the platform is served."
    status = 502


class RightMissing(TenantryError):
    """'{path}' says no right that whoever asks for it must have, so it is not served."""

    code = "access.undeclared"
    remedy = "Let it say the verb by `@asks(...)`; what is open to everybody says `@anybody()`."
    status = 500


class PageNotFound(TenantryError):
    """There is no page here."""

    code = "page.not_found"
    remedy = "Go on from the list of tenants."
    status = 404
    exit_code = 4


class InvalidRequest(TenantryError):
    """{where}: {reason}."""

    code = "request.invalid"
    remedy = "Correct it and send it again."
    status = 422
    exit_code = 2


class CsrfFailed(TenantryError):
    """This form came from elsewhere, or is too old."""

    code = "access.csrf"
    remedy = "Load the page anew and send it again."
    status = 403
    exit_code = 3


class LinkInvalid(TenantryError):
    """This link was used before, or has run out."""

    code = "link.invalid"
    remedy = "Ask a superadmin for another one; `tenantry admin reset` prints it, too."
    status = 410
    exit_code = 3


class MailFailed(TenantryError):
    """The mail to {to} could not be sent: {reason}."""

    code = "mail.failed"
    remedy = "Look at [mail] in tenantry.toml: host, port, tls, user, password, sender."
    status = 503


class NoMail(TenantryError):
    """No server is set for mail."""

    code = "mail.off"
    remedy = "Set mail.host in tenantry.toml."
    status = 409
    exit_code = 3


class LetterNotFound(TenantryError):
    """There is no letter '{letter}' that failed or is held."""

    code = "mail.not_found"
    remedy = "`tenantry mail list` names them. One that was sent is not sent again."
    status = 404
    exit_code = 4


class HoldNotFound(TenantryError):
    """Mail to {address} is not held back."""

    code = "mail.not_held"
    remedy = "`tenantry mail held` names the addresses that nothing is sent to."
    status = 404
    exit_code = 4


class SecondFactorNeeded(TenantryError):
    """The password is right; now the code of the second factor is wanted."""

    code = "access.second_factor"
    remedy = "Give the code that the authenticator app shows, or a recovery code."
    status = 401
    exit_code = 3


class KeyReused(TenantryError):
    """The Idempotency-Key '{key}' came before, with another request."""

    code = "request.key_reused"
    remedy = "Use a new key for each request, and the same one only to repeat it."
    status = 422
    exit_code = 2


class KeyInUse(TenantryError):
    """The first request by the Idempotency-Key '{key}' is being answered still."""

    code = "request.key_in_use"
    remedy = "Wait a moment, then repeat it."
    status = 409
    exit_code = 3


class TooManyTries(TenantryError):
    """There were too many failures; the next try is looked at in {seconds} s."""

    code = "access.throttled"
    remedy = "Wait, or set a new password by mail."
    status = 429
    exit_code = 3


class TooManyRequests(TenantryError):
    """These are more than {limit} requests in a minute; the next one is answered in {seconds} s."""

    code = "request.too_many"
    remedy = "Wait as long as Retry-After says; [api] in tenantry.toml sets how many there may be."
    status = 429
    exit_code = 3


class TooManyStreams(TenantryError):
    """This {whose} follows {limit} operations at a time already."""

    code = "operation.streams"
    remedy = (
        "Close some that are followed, or look at /api/operations/<id> now and then; [api] sets how many there may be."
    )
    status = 429
    exit_code = 3


class RouteUnknown(TenantryError):
    """The API has nothing at this address."""

    code = "route.unknown"
    remedy = "See /api/openapi.json for all addresses."
    status = 404
    exit_code = 4


class MethodRefused(TenantryError):
    """This address does not take this method."""

    code = "route.method"
    remedy = "The header Allow names those it takes."
    status = 405
    exit_code = 2


class BodyTooLarge(TenantryError):
    """The body is longer than {limit} bytes."""

    code = "request.too_large"
    remedy = "Send it in parts."
    status = 413
    exit_code = 2


class MediaUnknown(TenantryError):
    """The body's media type is {given}, where JSON is wanted."""

    code = "request.media"
    remedy = "Send JSON with `Content-Type: application/json`."
    status = 415
    exit_code = 2


class BodyUnreadable(TenantryError):
    """The body cannot be read."""

    code = "request.unreadable"
    remedy = "Send it as the description says; text is UTF-8."
    status = 400
    exit_code = 2


class TooManyFollowers(TenantryError):
    """{number} followers of operations are connected to this process, as many as it takes."""

    code = "follow.full"
    remedy = "Ask for the operation itself now and then, or run more processes of `tenantry serve`."
    status = 503
    exit_code = 3


class ProofNeeded(TenantryError):
    """You signed in a while ago: prove once more who you are before this is changed."""

    code = "access.proof"
    remedy = "Type your password, or use a passkey."
    status = 403
    exit_code = 3


class SupportRefused(TenantryError):
    """Support cannot look into '{slug}': {reason}."""

    code = "support.refused"
    remedy = "Ask the tenant's people."
    status = 409
    exit_code = 3


class SupportNotFound(TenantryError):
    """There is no support access '{access}' into '{slug}'."""

    code = "support.not_found"
    remedy = "`tenantry support list` names them all."
    status = 404
    exit_code = 4


class SupportLinkInvalid(TenantryError):
    """This link was used before, has run out, or leads to another tenant."""

    code = "support.link"
    remedy = "Open support access once more, in the portal or by `tenantry support open`."
    status = 410
    exit_code = 3


class SupportReadOnly(TenantryError):
    """This support access looks only: it changes nothing of the tenant's."""

    code = "support.read_only"
    remedy = "Open one that may write, where that is needed."
    status = 403
    exit_code = 3


class SignUpClosed(TenantryError):
    """Nobody can sign up here at the moment."""

    code = "signup.closed"
    remedy = "Ask whoever runs it; signup.open in tenantry.toml opens it."
    status = 403
    exit_code = 3


class InvitationNeeded(TenantryError):
    """Signing up takes an invitation, and this one is none: {reason}."""

    code = "signup.invitation"
    remedy = "Ask whoever runs the platform for one; `tenantry signup invite` makes it."
    status = 403
    exit_code = 3


class SignUpRefused(TenantryError):
    """You cannot sign up so: {reason}."""

    code = "signup.refused"
    remedy = "Correct it and try again."
    status = 422
    exit_code = 3


class LooksAlike(TenantryError):
    """'{slug}' looks like '{other}', which is {why}."""

    code = "slug.lookalike"
    remedy = "Choose one that nobody takes for another."
    status = 409
    exit_code = 3


class SignUpGone(TenantryError):
    """This sign-up was confirmed elsewhere, or its time is over."""

    code = "signup.gone"
    remedy = "Look for the page on which you confirmed it, or begin anew."
    status = 410
    exit_code = 3


class CodeWrong(TenantryError):
    """This code is not the one in the mail."""

    code = "signup.code"
    remedy = "{left}"
    status = 422
    exit_code = 3


class WorkNeeded(TenantryError):
    """Your browser has not done its part yet."""

    code = "signup.work"
    remedy = "Wait {seconds} seconds, then send the form again."
    status = 429
    exit_code = 3


class HandoverInvalid(TenantryError):
    """This way in was used before, has run out, or leads to another tenant."""

    code = "signup.handover"
    remedy = "Sign in by your mail address and your password."
    status = 410
    exit_code = 3


class InvitationNotFound(TenantryError):
    """There is no invitation '{invitation}'."""

    code = "signup.no_invitation"
    remedy = "`tenantry signup invitations` names them all."
    status = 404
    exit_code = 4


class WebhookRefused(TenantryError):
    """This webhook is refused: {reason}."""

    code = "webhook.refused"
    remedy = "Look at [payment] in tenantry.toml, and at the sender's clock."
    status = 401
    exit_code = 3


class WebhookRepeated(TenantryError):
    """This very message came before."""

    code = "webhook.repeated"
    remedy = "A sender that tries again signs the time of its new try."
    status = 409
    exit_code = 3

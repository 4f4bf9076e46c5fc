"""Sign-up: a stranger picks a name, proves a mail address, and has a tenant of her own.

What strangers ask for is no verb: nobody is signed in yet, and each method looks itself at what it is shown. Between
the form and the confirmation nothing is made: one row holds the name, and is gone after a while.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from slugify import slugify

from tenantry.config import Config
from tenantry.errors import AccountError, InvalidSlug, ReservedSlug, SlugTaken, TenantNotFound, TenantryError
from tenantry.identity import Reach, handover, throttle, verb, work
from tenantry.identity.principal import digest
from tenantry.lookalikes import plain_letters, spellings
from tenantry.mail import Letter, Post, check_mail, sample
from tenantry.model import RESERVED, Tenant, check_name, check_slug, new_id
from tenantry.operations import create
from tenantry.platform.tenants import Tenants
from tenantry.refusals import (
    CodeWrong,
    InvitationNeeded,
    InvitationNotFound,
    LooksAlike,
    SignUpClosed,
    SignUpGone,
    SignUpRefused,
    TooManyTries,
)
from tenantry.registry import Registry, Transaction, signups, tenants
from tenantry.registry.database import NAME, now, plain
from tenantry.registry.signups import InvitationRow, SignUpRow

TRIES: Final = 5
"""How many wrong codes there may be; afterwards the link alone confirms."""

KEPT: Final = timedelta(hours=24)
"""How long the page of a sign-up that was confirmed is there."""

INVITED: Final = timedelta(days=14)
"""How long an invitation holds."""

WAITING: Final = 60
"""Sign-ups in an hour, on the whole platform, that waited in place of a proof of work."""

LISTED: Final = 200
SUGGESTED: Final = ("{}-{}", range(2, 30))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A slug that somebody would like to have."""

    slug: str
    problem: TenantryError | None = None  # why it cannot be had
    suggestion: str = ""  # another one, that is free


@dataclass(frozen=True, slots=True)
class Application:
    """What the form says."""

    slug: str
    name: str  # of the person
    mail: str
    organization: str
    terms: bool = False
    invitation: str = ""
    challenge: str = ""
    answer: str = ""  # to the challenge


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-up as its page shows it."""

    row: SignUpRow
    tenant: Tenant | None = None  # once it is there
    address: str = ""  # of the tenant, without a slash at the end


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """An invitation; its address is shown once."""

    row: InvitationRow
    link: str
    mailed: bool
    fault: str = ""


class SignUps:
    """Signing up, and what admins do about it."""

    def __init__(self, registry: Registry, config: Config, tenants: Tenants) -> None:
        self._registry = registry
        self._config = config
        self._tenants = tenants
        self._post = Post(config)
        self.clock: Callable[[], datetime] = now

    # --- the form -------------------------------------------------------------------------------------------------

    def challenge(self) -> str:
        """What a browser has to work on before it sends the form; "" where nothing is asked for."""
        bits = self._config.signup.work
        return work.challenge(self._registry.vault, bits, self.clock()) if bits else ""

    def refuse_closed(self) -> None:
        """Raise `SignUpClosed` where nobody can sign up."""
        settings = self._config.signup
        if not settings.open or (settings.verify_mail and not self._post.is_set_up):
            raise SignUpClosed

    async def invited(self, invitation: str) -> InvitationRow | None:
        """The invitation that somebody came with; None where none is needed. Raises `InvitationNeeded`."""
        if not self._config.signup.invite_only:
            return None
        async with self._registry.read() as tx:
            return await self._invitation(tx, invitation)

    @staticmethod
    async def _invitation(tx: Transaction, invitation: str) -> InvitationRow:
        found = await signups.invitation(tx, digest(invitation)) if invitation else None
        if found is None:
            raise InvitationNeeded(reason="it was used, or has run out" if invitation else "there is none")
        return found

    async def check(self, slug: str) -> Wanted:
        """Whether a slug can be had; where not, why, and which one could."""
        async with self._registry.read() as tx:
            try:
                await self._refuse(tx, slug)
            except TenantryError as error:
                return Wanted(slug, error, await self._suggest(tx, slug))
        return Wanted(slug)

    async def _refuse(self, tx: Transaction, slug: str) -> None:
        """Raise `InvalidSlug`, `ReservedSlug`, `SlugTaken` or `LooksAlike`."""
        reserved = {*RESERVED, *self._config.platform.reserved}
        try:
            check_slug(slug, reserved)
        except InvalidSlug as error:
            latin = plain_letters(slug)
            if latin == slug or not latin.isascii():
                raise
            raise InvalidSlug(
                f"'{slug[:64]}' has letters of another script that look like '{latin[:64]}'.",
                remedy="Use the letters a to z.",
            ) from error
        except ReservedSlug:
            raise SlugTaken(f"'{slug}' is kept for the platform itself.") from None
        alike = spellings(slug)
        held = await tenants.taken(tx, alike)
        if slug in held:
            raise SlugTaken(slug=slug)  # by whom is nothing for strangers
        for other in alike[1:]:
            if other in held or other in reserved:
                why = "taken" if other in held else "kept for the platform itself"
                raise LooksAlike(slug=slug, other=other, why=why)

    async def _suggest(self, tx: Transaction, slug: str) -> str:
        """A slug like this one that is free; "" where none was found."""
        base = slugify(plain_letters(slug[:200]), max_length=50) or "site"
        pattern, numbers = SUGGESTED
        for candidate in (base, *(pattern.format(base, number) for number in numbers)):
            try:
                await self._refuse(tx, candidate)
            except TenantryError:
                continue
            return candidate
        return ""

    async def begin(self, form: Application, whence: str) -> str:
        """Hold the name, and send the mail that confirms it; where none need be, make the tenant at once.

        Returns the ticket by which this browser goes on. Raises what `check` tells, `SignUpClosed`, `WorkNeeded`,
        `InvitationNeeded`, `TooManyTries`, `SignUpRefused`, `AccountError`, `LimitReached` and `MailFailed`.
        """
        self.refuse_closed()
        settings, ticket, link = self._config.signup, secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        code = f"{secrets.randbelow(10**6):06}"
        row = self._checked(form, whence) | {"ticket": digest(ticket)}
        async with self._registry.write(f"signup:{row['mail']}") as tx:
            await self._limit(tx, form, str(row["mail"]), whence)
            await self._refuse(tx, form.slug)
            await create.refuse_full(tx, self._tenants.tools, 1)
            if settings.invite_only:
                await self._invite(tx, form)
            row |= {"link": digest(link), "code": self._keyed(str(row["id"]), code)}
            await signups.add(tx, row)
            tx.audit("signup.begin", form.slug, mail=row["mail"], address=whence, terms=row["terms"])
            if settings.verify_mail:
                await self._queue(tx, str(row["mail"]), confirmation(self._config, row, link, code))
            else:
                found = await signups.by_ticket(tx, digest(ticket))
                assert found is not None
                await self._make(tx, found, digest(ticket))
        return ticket

    async def _queue(self, tx: Transaction, to: str, letter: Letter) -> None:
        """Have a letter sent. Raises `SignUpRefused` where mails to this address came back."""
        posted = await self._post.queue(tx, to, letter)
        if posted.held:
            raise SignUpRefused(reason=f"nothing is sent to '{to}' ({posted.held})", remedy="Use another address.")

    def _checked(self, form: Application, whence: str) -> dict[str, Any]:
        """The row of a sign-up, its words checked."""
        settings, moment = self._config.signup, now()
        mail = check_mail(form.mail)
        domain = mail.rpartition("@")[2]
        if not settings.disposable and _is_disposable(domain):
            raise SignUpRefused(reason=f"'{domain}' gives addresses away for a while", remedy="Use one that lasts.")
        if settings.terms and not form.terms:
            raise SignUpRefused(reason="the terms are not accepted", remedy="Read them, and tick the box.")
        held = {"slug": form.slug, "held": form.slug, "name": _person(form.name), "mail": mail}
        return {
            **held,
            "id": new_id(),
            "organization": check_name(form.organization or form.slug),
            "address": whence[:45],
            "terms": settings.terms_version if settings.terms else None,
            "created": moment,
            "expires": moment + timedelta(seconds=settings.hold),
        }

    async def _limit(self, tx: Transaction, form: Application, mail: str, whence: str) -> None:
        """Raise `WorkNeeded` or `TooManyTries`."""
        settings, day = self._config.signup, timedelta(days=1)
        limits = [("address", throttle.network(whence), settings.per_address, day)]
        limits.append(("domain", mail.rpartition("@")[2], settings.per_domain, day))
        if settings.work and not await work.check(tx, self._registry.vault, form.challenge, form.answer, self.clock()):
            limits.append(("waited", "", WAITING, timedelta(hours=1)))
        for kind, value, most, within in limits:
            wait = await signups.count(tx, digest(f"signup\0{kind}\0{value}"), most, within) if most else 0
            if wait:
                told = {"address": "this address", "domain": "this mail domain", "waited": "browsers without scripts"}
                raise TooManyTries(
                    f"There were many sign-ups from {told[kind]} today.", remedy="Try again later.", seconds=round(wait)
                )

    async def _invite(self, tx: Transaction, form: Application) -> None:
        """Use an invitation up. Raises `InvitationNeeded`."""
        found = await self._invitation(tx, form.invitation)
        if found.mail is not None and found.mail != check_mail(form.mail):
            raise InvitationNeeded(reason="it is for another mail address", remedy="Use the address it was sent to.")
        await signups.use_invitation(tx, found.id)

    def _keyed(self, sign_up_id: str, code: str) -> str:
        return self._registry.vault.sign_head(f"signup\0{sign_up_id}\0{code}")[:64]

    # --- confirming -----------------------------------------------------------------------------------------------

    async def show(self, ticket: str) -> Begun:
        """A sign-up as it stands. Raises `SignUpGone`."""
        async with self._registry.read() as tx:
            row = await signups.by_ticket(tx, digest(ticket))
            if row is None:
                raise SignUpGone
            found = await tenants.environments(tx, [row.tenant_id]) if row.tenant_id else []
        if not found:
            return Begun(row)
        host = next((one.hostnames[0] for one in found if one.hostnames), None)
        tenant = found[0].tenant
        return Begun(row, tenant, self._config.address(tenant.slug, host))

    async def followed(self, link: str) -> SignUpRow:
        """The sign-up that a link confirms. Raises `SignUpGone`."""
        async with self._registry.read() as tx:
            row = await signups.by_link(tx, digest(link))
        if row is None:
            raise SignUpGone
        return row

    async def confirm(self, link: str) -> str:
        """Make the tenant by the link of the mail; returns a new ticket, and the one before opens nothing.

        Whoever began it might be somebody else than the owner of the address. Raises `SignUpGone`.
        """
        ticket = secrets.token_urlsafe(32)
        async with self._registry.write() as tx:
            row = await signups.by_link(tx, digest(link))
            if row is None:
                raise SignUpGone
            await self._make(tx, row, digest(ticket))
        return ticket

    async def confirm_by_code(self, ticket: str, code: str) -> None:
        """Make the tenant by the code of the mail. Raises `SignUpGone` and `CodeWrong`."""
        given = re.sub(r"\s", "", code)
        async with self._registry.write() as tx:
            row = await signups.by_ticket(tx, digest(ticket))
            if row is None:
                raise SignUpGone
            if row.is_confirmed:
                return
            right = row.tries < TRIES and await signups.code_of(tx, row.id) == self._keyed(row.id, given)
            if right:
                await self._make(tx, row, digest(ticket))
            else:
                await signups.change(tx, row.id, tries=min(row.tries + 1, TRIES))
        if not right:
            left = TRIES - 1 - row.tries
            raise CodeWrong(left=f"{left} tries are left." if left > 0 else "Follow the link in the mail instead.")

    async def _make(self, tx: Transaction, row: SignUpRow, ticket: str) -> None:
        """Reserve the tenant and queue what makes it, in place of the name that was held."""
        settings = self._config.signup
        tx.actor = plain(f"signup:{row.mail}", NAME)
        await signups.change(tx, row.id, held=None)
        environments = self._tenants.drafted(row.slug, row.organization, settings.blueprint, settings.plan)
        owner = create.Owner(row.mail, row.name, settings.trial)
        operation = await create.enter(tx, self._tenants.tools, environments, {}, owner=owner)
        kept = {"tenant_id": environments[0].tenant.id, "operation_id": operation, "ticket": ticket}
        await signups.change(tx, row.id, link=None, code=None, expires=now() + KEPT, **kept)
        told = {"mail": row.mail, "address": row.address, "terms": row.terms, "accepted": row.created}
        tx.audit("signup.confirm", row.slug, id=environments[0].tenant.id, **told)

    def way_in(self, found: Begun) -> str:
        """What opens the tenant, once, for whoever confirmed the sign-up that `show` gave. Raises `TenantNotFound`."""
        if found.tenant is None or not found.tenant.status.served:
            raise TenantNotFound(slug=found.row.slug)
        given = handover.Handover(found.tenant.id, found.row.mail)
        return handover.issue(self._registry.vault, given, now())

    # --- admins ---------------------------------------------------------------------------------------------------

    @verb("signup.list", "tenants:read", Reach.PLATFORM)
    async def list(self, limit: int = LISTED) -> Sequence[SignUpRow]:
        """Sign-ups that wait to be confirmed, newest first."""
        async with self._registry.read() as tx:
            return await signups.under_way(tx, limit)

    @verb("signup.invitations", "people:read", Reach.PLATFORM)
    async def invitations(self, limit: int = LISTED) -> Sequence[InvitationRow]:
        """Invitations that were not used, newest first."""
        async with self._registry.read() as tx:
            return await signups.invitations(tx, limit)

    @verb("signup.invite", "people:write", Reach.PLATFORM)
    async def invite(self, mail: str | None = None) -> NewInvitation:
        """Invite somebody to sign up, by mail where an address is given and mail is set up."""
        invitation, moment = secrets.token_urlsafe(24), now()
        checked = check_mail(mail) if mail else None
        async with self._registry.write() as tx:
            entered = {"id": new_id(), "digest": digest(invitation), "mail": checked, "by": plain(tx.actor, NAME)}
            await signups.add_invitation(tx, entered | {"created": moment, "expires": moment + INVITED})
            tx.audit("signup.invite", checked or "-", invitation=entered["id"])
            row = await signups.invitation_by_id(tx, str(entered["id"]))
            assert row is not None
            link = f"{self._config.url}/signup?invitation={invitation}"
            if checked is None or not self._post.is_set_up:
                return NewInvitation(row, link, False)
            posted = await self._post.queue(tx, checked, invited(self._config, link, row.expires))
        fault = f"Nothing is sent to {checked}: {posted.held}" if posted.held else ""
        return NewInvitation(row, link, not posted.held, fault)

    @verb("signup.uninvite", "people:write", Reach.PLATFORM)
    async def uninvite(self, invitation: str) -> None:
        """Take an invitation back, by its id. Raises `InvitationNotFound`."""
        async with self._registry.write() as tx:
            row = await signups.invitation_by_id(tx, invitation)
            if row is None:
                raise InvitationNotFound(invitation=invitation)
            await signups.drop_invitation(tx, row.id)
            tx.audit("signup.uninvite", row.mail or "-", invitation=row.id)


def confirmation(config: Config, row: Mapping[str, Any], link: str, code: str) -> Letter:
    """The letter that brings link and code."""
    minutes = round(config.signup.hold / 60)
    told = (
        f"Hello {row['name']},",
        f"{row['organization']} is about to be made on {config.platform.name}. Confirm it within {minutes} minutes, "
        "by the link, or by the code where you signed up.",
        "If that was not you, do nothing: nothing is made then.",
    )
    where = f"{config.url}/signup/link/{link}"
    subject = f"Confirm {row['organization']}"  # the list of letters shows subjects, and no codes
    return Letter(subject, told, where, "Confirm", "signup.confirm", code, row["expires"])


def invited(config: Config, link: str, until: datetime) -> Letter:
    """The letter that brings an invitation."""
    platform = config.platform.name
    told = f"You are invited to try {platform}. The link holds for {INVITED.days} days, and once."
    return Letter(f"You are invited to {platform}", ("Hello,", told), link, "Sign up", "signup.invite", until=until)


@sample("signup.confirm")
def _confirmation(config: Config) -> Letter:
    row = {"name": "Ana Ruiz", "organization": "Acme & Söhne", "expires": now() + timedelta(hours=1)}
    return confirmation(config, row, "made-up", "123456")


@sample("signup.invite")
def _invitation(config: Config) -> Letter:
    return invited(config, f"{config.url}/signup?invitation=made-up", now() + INVITED)


def _person(name: str) -> str:
    try:
        return check_name(name)
    except InvalidSlug as error:
        raise AccountError(error.message.replace("The name", "Your name"), remedy="Tell who you are.") from error


def _is_disposable(domain: str) -> bool:
    """Whether a mail domain, or one it belongs to, gives addresses away for a while."""
    from disposable_email_domains import blocklist  # ten thousand names, which few processes need

    parts = domain.split(".")
    return any(".".join(parts[at:]) in blocklist for at in range(len(parts) - 1))

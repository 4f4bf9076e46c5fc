"""One's own account: name, password, sessions, the second factor, passkeys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from tenantry import codes
from tenantry.config import Config
from tenantry.credentials import check_chosen
from tenantry.errors import AccountError, SealBroken, SignInRefused
from tenantry.identity import Principal, Reach, current_principal, factors, throttle, verb
from tenantry.identity.principal import refuse_unproved
from tenantry.identity.signin import hashed
from tenantry.model import check_name
from tenantry.refusals import Forbidden, SignInNeeded
from tenantry.registry import Registry, Transaction, people
from tenantry.registry.database import now
from tenantry.registry.people import AdminRow, PasskeyRow, SessionRow, TokenRow

if TYPE_CHECKING:
    from tenantry.identity.passkeys import Passkeys

MOST: Final = 20
"""Passkeys of one person."""


@dataclass(frozen=True, slots=True)
class AccountDetails:
    """What is one's own."""

    row: AdminRow
    session: str | None  # the id of the one that asks
    sessions: Sequence[SessionRow]
    tokens: Sequence[TokenRow]
    passkeys: Sequence[PasskeyRow]
    recovery_codes: int  # how many are left
    proved: bool  # whether it is a moment ago that one proved in this browser who one is


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A second factor that is being set up: nothing is kept before a first code of it was given."""

    secret: str  # base32, for typing
    uri: str  # otpauth://, for a picture
    sealed: str  # the secret for `confirm`, in hex


class Account:
    """Every verb on one's own account."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._registry = registry
        self._name = config.platform.name
        self._config = config

    @cached_property
    def _passkeys(self) -> Passkeys:
        from tenantry.identity.passkeys import Passkeys  # its library takes a while to import

        return Passkeys(self._registry, self._config)

    @verb("account.show", "people:read", Reach.OWN)
    async def show(self) -> AccountDetails:
        """One's own account."""
        principal = _me()
        async with self._registry.read() as tx:
            row = await people.find(tx, principal.admin_id)
            return AccountDetails(
                row,
                principal.session,
                await people.sessions(tx, row.id),
                await people.tokens(tx, row.id),
                await people.passkeys(tx, row.id),
                await people.recovery_codes(tx, row.id),
                principal.is_proved,
            )

    @verb("account.edit", "people:write", Reach.OWN)
    async def edit(self, name: str) -> AdminRow:
        """Change one's name."""
        principal, name = _me(), check_name(name)
        async with self._registry.write() as tx:
            await people.change(tx, principal.admin_id, name=name)
            tx.audit("account.edit", principal.mail, name=name)
            return await people.find(tx, principal.admin_id)

    @verb("account.password", "people:write", Reach.OWN)
    async def password(self, old: str, new: str) -> int:
        """Choose another password; all other sessions end, so many were there. Raises `AccountError`, `TooManyTries`.

        The old one is asked for: whoever finds a browser open cannot take the account over.
        """
        principal = _me()
        counted = _counted(principal)
        async with self._registry.write() as tx:
            await throttle.begin(tx, counted)
            row = await people.find(tx, principal.admin_id)
        if not await asyncio.to_thread(check_chosen, row.password or "", old):
            raise AccountError("The old password is wrong.", remedy="Try again, or sign out and ask for a new one.")
        stored = await hashed(new)
        async with self._registry.write() as tx:
            await throttle.passed(tx, counted)
            await people.change(tx, row.id, password=stored)
            await people.drop_links(tx, row.id)
            tx.audit("admin.password", row.mail, by="old")
            return await people.end_sessions(tx, row.id, but=principal.session)

    @verb("account.end_session", "people:write", Reach.OWN)
    async def end_session(self, session: str) -> None:
        """End one of one's own sessions; one that is over is no fault."""
        principal = _me()
        async with self._registry.write() as tx:
            if await people.end_sessions(tx, principal.admin_id, only=session):
                tx.audit("account.end_session", principal.mail, session=session)

    @verb("account.end_other_sessions", "people:write", Reach.OWN)
    async def end_other_sessions(self) -> int:
        """End all of one's own sessions but the one that asks; how many there were."""
        principal = _me()
        async with self._registry.write() as tx:
            ended = await people.end_sessions(tx, principal.admin_id, but=principal.session)
            tx.audit("account.end_other_sessions", principal.mail, sessions=ended)
            return ended

    # --- proving who one is -----------------------------------------------------------------------------------------

    @verb("account.prove", "people:write", Reach.OWN)
    async def prove(self, password: str) -> None:
        """Prove by one's password who one is, so that for ten minutes new ways to sign in may be made.

        Raises `AccountError` or `TooManyTries`.
        """
        principal = _in_browser("account.prove")
        counted = _counted(principal)
        async with self._registry.write() as tx:
            await throttle.begin(tx, counted)
            row = await people.find(tx, principal.admin_id)
        if not await asyncio.to_thread(check_chosen, row.password or "", password):
            raise AccountError("The password is wrong.", remedy="Try again, or sign out and ask for a new one.")
        await self._prove(principal, "password", counted)

    @verb("account.prove_by_passkey", "people:write", Reach.OWN)
    async def prove_by_passkey(self, answer: str) -> None:
        """The same by one's passkey. Raises `SignInRefused` or `TooManyTries`."""
        principal = _in_browser("account.prove_by_passkey")
        counted = _counted(principal)
        async with self._registry.write() as tx:
            await throttle.begin(tx, counted)
        owner = await self._passkeys.owner(answer)
        if owner.id != principal.admin_id:
            raise SignInRefused("This passkey is somebody else's.", remedy="Use one of yours.")
        await self._prove(principal, "passkey", counted)

    async def _prove(self, principal: Principal, by: str, counted: list[tuple[str, str]]) -> None:
        assert principal.session is not None
        async with self._registry.write() as tx:
            await throttle.passed(tx, counted)
            await people.prove(tx, principal.session)
            tx.audit("account.prove", principal.mail, by=by)

    # --- second factor ----------------------------------------------------------------------------------------------

    @verb("account.enrol", "people:write", Reach.OWN)
    async def enrol(self) -> Enrolment:
        """What an authenticator app is given. Raises `AccountError` where there is a second factor already."""
        principal = _in_browser("account.enrol")
        refuse_unproved()
        async with self._registry.read() as tx:
            _without_factor(await people.find(tx, principal.admin_id))
        secret, uri = codes.enrolment(principal.mail, self._name)
        sealed = self._registry.vault.seal_platform(_enrolling(principal), secret)
        return Enrolment(secret, uri, sealed.hex())

    @verb("account.confirm", "people:write", Reach.OWN)
    async def confirm(self, sealed: str, code: str) -> Sequence[str]:
        """Turn the second factor on by a first code; its recovery codes, shown once. All other sessions end."""
        principal = _in_browser("account.confirm")
        refuse_unproved()
        try:
            secret = self._registry.vault.open_platform(_enrolling(principal), bytes.fromhex(sealed))
        except (ValueError, SealBroken) as error:  # made up, or another session's
            raise AccountError("This is no enrolment.", remedy="Begin anew.") from error
        step = codes.step_of(secret, code, 0)
        if step is None:
            remedy = "Type the one that the app shows now; its clock must be right."
            raise AccountError("The code is wrong.", remedy=remedy)
        given = codes.new_codes()
        async with self._registry.write() as tx:
            row = await people.find(tx, principal.admin_id)
            _without_factor(row)
            totp = self._registry.vault.seal_platform(f"totp:{row.id}", secret)
            await people.change(tx, row.id, totp=totp, totp_used=step)
            await people.put_recovery_codes(tx, row.id, [codes.digest(one) for one in given])
            await people.end_sessions(tx, row.id, but=principal.session)
            tx.audit("account.second_factor", row.mail, on=True)
        return given

    @verb("account.new_codes", "people:write", Reach.OWN)
    async def new_codes(self, code: str) -> Sequence[str]:
        """New recovery codes in place of all earlier ones, for a code of the second factor."""
        principal = await self._proved("account.new_codes", code)
        given = codes.new_codes()
        async with self._registry.write() as tx:
            await people.put_recovery_codes(tx, principal.admin_id, [codes.digest(one) for one in given])
            tx.audit("account.new_codes", principal.mail)
        return given

    @verb("account.drop_factor", "people:write", Reach.OWN)
    async def drop_factor(self, code: str) -> None:
        """Turn the second factor off, for a code of it."""
        principal = await self._proved("account.drop_factor", code)
        async with self._registry.write() as tx:
            await people.drop_factor(tx, principal.admin_id)
            tx.audit("account.second_factor", principal.mail, on=False)

    async def _proved(self, what: str, code: str) -> Principal:
        principal = _in_browser(what)
        async with self._registry.read() as tx:
            row = await people.find(tx, principal.admin_id)
        if not row.second_factor:
            raise AccountError("There is no second factor here.", remedy="Turn it on first.")
        await factors.check(self._registry, row, code, _counted(principal), "-")
        return principal

    # --- passkeys ---------------------------------------------------------------------------------------------------

    @verb("account.passkey_options", "people:write", Reach.OWN)
    async def passkey_options(self) -> str:
        """What a browser is asked to make, as JSON (W3C WebAuthn, PublicKeyCredentialCreationOptionsJSON)."""
        principal = _in_browser("account.passkey_options")
        refuse_unproved()
        async with self._registry.read() as tx:
            row = await people.find(tx, principal.admin_id)
            return self._passkeys.to_register(row, await people.passkeys(tx, row.id))

    @verb("account.add_passkey", "people:write", Reach.OWN)
    async def add_passkey(self, name: str, answer: str) -> PasskeyRow:
        """Keep a passkey that a browser made. Raises `AccountError`."""
        principal, name = _in_browser("account.add_passkey"), check_name(name)
        refuse_unproved()
        async with self._registry.write() as tx:
            row = await people.find(tx, principal.admin_id)
            made = await self._passkeys.registered(tx, row, answer)
            if await people.passkey(tx, made.id) is not None:
                raise AccountError("This passkey is there already.", remedy="Make another one.")
            if len(await people.passkeys(tx, row.id)) >= MOST:
                raise AccountError(f"There are {MOST} passkeys already.", remedy="Remove one first.")
            entered = {"id": made.id, "public_key": made.public_key, "sign_count": made.sign_count}
            await people.add_passkey(tx, {**entered, "admin_id": row.id, "name": name, "created": now()})
            tx.audit("account.add_passkey", row.mail, passkey=name)
            return await _passkey(tx, row.id, made.id)

    @verb("account.remove_passkey", "people:write", Reach.OWN)
    async def remove_passkey(self, passkey: str) -> None:
        """Forget a passkey. Raises `AccountError`."""
        principal = _in_browser("account.remove_passkey")
        async with self._registry.write() as tx:
            found = await _passkey(tx, principal.admin_id, passkey)
            await people.drop_passkey(tx, principal.admin_id, found.id)
            tx.audit("account.remove_passkey", principal.mail, passkey=found.name)


def _me() -> Principal:
    """Who is asking. Raises `SignInNeeded` where a process acts for itself."""
    principal = current_principal()
    if principal is None:
        raise SignInNeeded("Nobody's own account is meant here.", remedy="Use `tenantry admin`.")
    return principal


def _in_browser(what: str) -> Principal:
    """Who is asking, herself: no token changes what its owner is known by. Raises `Forbidden`."""
    principal = _me()
    if principal.session is None:
        who = f"The token '{principal.token}'"
        raise Forbidden(who=who, verb=what, wanted="its owner in a browser", remedy="Sign in to the portal.")
    return principal


def _counted(principal: Principal) -> list[tuple[str, str]]:
    return [("own", throttle.keys(f"own\0{principal.admin_id}", "", None)[0][1])]


def _enrolling(principal: Principal) -> str:
    return f"enrol:{principal.admin_id}:{principal.session}"


def _without_factor(row: AdminRow) -> None:
    if row.second_factor:
        raise AccountError("There is a second factor already.", remedy="Turn it off first.")


async def _passkey(tx: Transaction, admin_id: str, passkey: str) -> PasskeyRow:
    for row in await people.passkeys(tx, admin_id):
        if row.id == passkey:
            return row
    raise AccountError("There is no such passkey of yours.", remedy="Load the page anew.")

"""Signing in: from a mail address and a password, a link or a token to who is asking."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tenantry.credentials import PASSWORD_LENGTH, check_chosen, hash_chosen, outdated
from tenantry.errors import AccountError, SignInRefused
from tenantry.identity import factors, throttle
from tenantry.identity.links import follow, follow_owned
from tenantry.identity.principal import AdminRole, Principal, digest
from tenantry.model import new_id
from tenantry.refusals import SignInNeeded
from tenantry.registry import Registry, people
from tenantry.registry.database import NAME, now, plain

if TYPE_CHECKING:
    from tenantry.identity.passkeys import Passkeys

BEGINNING: Final = "tenantry_"
"""How API tokens begin, so that scanners for leaked secrets know one."""

IDLE: Final = timedelta(hours=12)
"""After how long without a request a session is over."""

LONGEST: Final = timedelta(days=7)
"""After how long it is over in any case."""

SEEN: Final = timedelta(minutes=1)
"""How exact the moments are at which sessions and tokens were last used: a write for each request is not worth it."""


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from."""

    address: str
    agent: str = ""
    device: str | None = None  # the content of the device cookie, if it came with one
    session: str | None = None  # likewise; whoever signs in leaves that one


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a browser gets: both are secrets, kept here only as hashes or not at all."""

    session: str
    device: str


class SignIn:
    """Everything that proves who somebody is."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    # --- browsers -------------------------------------------------------------------------------------------------

    async def password(self, mail: str, password: str, client: Client, code: str | None = None) -> SignedIn:
        """Sign in. Raises `SignInRefused`, `TooManyTries`, or `SecondFactorNeeded` once the password was right."""
        login = plain(mail.strip().lower(), NAME)
        device = self._device(login, client.device)
        counted = throttle.keys(login, client.address, device)
        async with self._registry.read() as tx:
            await throttle.refuse(tx, counted)  # without taking the turn of those who write
        async with self._registry.write() as tx:
            await throttle.begin(tx, counted)
            row = await people.by_mail(tx, login)
        right = await asyncio.to_thread(check_chosen, (row.password or "") if row else "", password)
        if row is None or not right or not row.active:
            async with self._registry.write() as tx:
                tx.audit("admin.refused", login or "-", address=client.address)
            raise SignInRefused
        stored = await asyncio.to_thread(hash_chosen, password) if outdated(str(row.password)) else row.password
        async with self._registry.write() as tx:
            await throttle.passed(tx, counted)
            if stored != row.password:
                await people.change(tx, row.id, password=stored)
        if row.second_factor:
            await factors.check(self._registry, row, code, factors.counted(row, device), client.address)
        return await self.begin(row, client)

    async def passkey(self, passkeys: Passkeys, answer: str, client: Client) -> SignedIn:
        """Sign in by a passkey: something one has, that asks for something one knows or is, is two factors itself.

        Raises `SignInRefused` or `TooManyTries`.
        """
        counted = throttle.keys("", client.address, None)[1:]
        async with self._registry.write() as tx:
            await throttle.begin(tx, counted)
        row = await passkeys.owner(answer)
        async with self._registry.write() as tx:
            await throttle.passed(tx, counted)
        return await self.begin(row, client)

    async def begin(self, row: people.AdminRow, client: Client) -> SignedIn:
        """A new session of somebody who proved who she is."""
        session, moment = secrets.token_urlsafe(32), now()
        async with self._registry.write(f"admin:{row.mail}") as tx:
            entered = {
                "id": new_id(),
                "digest": digest(session),
                "admin_id": row.id,
                "address": client.address[:45],
                "agent": plain(client.agent, NAME),
                "created": moment,
                "proved": moment,
                "seen": moment,
                "expires": moment + IDLE,
            }
            if client.session is not None:
                await people.end_session(tx, digest(client.session))
            await people.add_session(tx, entered)
            await people.change(tx, row.id, seen=moment)
            tx.audit("admin.sign_in", row.mail, session=entered["id"], address=client.address)
        return SignedIn(session, self._new_device(row.mail))

    async def by_session(self, session: str) -> Principal:
        """Who is signed in by this cookie. Raises `SignInNeeded`."""
        async with self._registry.read() as tx:
            row = await people.session(tx, digest(session))
            admin = await people.find(tx, row.admin_id) if row else None
        if row is None or admin is None or not admin.active:
            raise SignInNeeded
        moment = now()
        if moment - row.seen > SEEN:
            async with self._registry.write() as tx:
                await people.see(tx, row, min(moment + IDLE, row.created + LONGEST))
        return Principal(admin.id, admin.mail, AdminRole(admin.role), session=row.id, proved=row.proved)

    async def renew(self, principal: Principal) -> str:
        """Let the session go on by another cookie; the one before opens nothing any more."""
        session = secrets.token_urlsafe(32)
        async with self._registry.write(principal.actor) as tx:
            await people.renew_session(tx, str(principal.session), digest(session))
        return session

    async def sign_out(self, principal: Principal) -> None:
        """End the session."""
        async with self._registry.write(principal.actor) as tx:
            await people.end_sessions(tx, principal.admin_id, only=principal.session)
            tx.audit("admin.sign_out", principal.mail, session=principal.session)

    # --- tokens ---------------------------------------------------------------------------------------------------

    async def by_token(self, token: str) -> Principal:
        """Who acts by this token. Raises `SignInNeeded`."""
        async with self._registry.read() as tx:
            row = await people.token(tx, digest(token)) if token.startswith(BEGINNING) else None
            admin = await people.find(tx, row.admin_id) if row else None
        if row is None or admin is None or not admin.active or row.expires <= now():
            raise SignInNeeded
        if row.used is None or now() - row.used > SEEN:
            async with self._registry.write() as tx:
                await people.use_token(tx, row.id)
        role, scopes = AdminRole(admin.role), frozenset(row.scopes)
        return Principal(admin.id, admin.mail, role, token=row.name, scopes=scopes, until=row.expires)

    # --- links ----------------------------------------------------------------------------------------------------

    async def link(self, link: str) -> tuple[people.AdminRow | None, str]:
        """Whose link this is, and what for; None where it makes the first superadmin. Raises `LinkInvalid`."""
        async with self._registry.read() as tx:
            return await follow(tx, link)

    async def nobody(self) -> bool:
        """Whether there is no superadmin who can sign in."""
        async with self._registry.read() as tx:
            return not await people.superadmins(tx)

    async def take(self, link: str, password: str, client: Client) -> SignedIn | None:
        """Choose a password by a link: it is used up, all other sessions end, and its owner is signed in.

        Not so an owner with a second factor, who signs in by it, since a mailbox is none: None. Raises `LinkInvalid`,
        or `AccountError` for a password that keeps no rule.
        """
        async with self._registry.read() as tx:
            row, _ = await follow_owned(tx, link)
        stored = await hashed(password)
        async with self._registry.write(f"admin:{row.mail}") as tx:
            row, purpose = await follow_owned(tx, link)  # of two at once, one finds it used
            await people.drop_links(tx, row.id)
            await people.end_sessions(tx, row.id)
            await people.change(tx, row.id, password=stored)
            tx.audit("admin.password", row.mail, by=purpose)
        return None if row.second_factor else await self.begin(row, client)

    # --- devices --------------------------------------------------------------------------------------------------

    def _new_device(self, mail: str) -> str:
        name = secrets.token_urlsafe(12)
        return f"{name}.{self._sign(mail, name)}"

    def _device(self, login: str, cookie: str | None) -> str | None:
        """The name of a device that this login signed in on before."""
        name, _, signature = (cookie or "").partition(".")
        return name if name and hmac.compare_digest(signature, self._sign(login, name)) else None

    def _sign(self, login: str, name: str) -> str:
        return self._registry.vault.sign_head(f"device\0{login}\0{name}")


async def hashed(password: str) -> str:
    """The stored form of a password. Raises `AccountError` for one that keeps no rule."""
    stored = await asyncio.to_thread(hash_chosen, password)
    if not stored:
        shortest, longest = PASSWORD_LENGTH
        raise AccountError(f"A password has {shortest} to {longest} characters.", remedy="Choose another one.")
    return stored

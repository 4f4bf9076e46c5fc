"""How the users of the current tenant prove who they are, beside a password: links, second factors, passkeys.

All of it lies in the tenant's own database, so that signing in needs no other. Moments are seconds since 1970.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from tenantry import authenticators, codes
from tenantry.authenticators import Passkeys
from tenantry.context import current_environment
from tenantry.credentials import derive_key
from tenantry.errors import AccountError, SealBroken, SignInRefused
from tenantry.model import Environment
from tenantry.refusals import LinkInvalid, TooManyTries
from tenantry.runtime.accounts import Accounts, User
from tenantry.runtime.sessions import digest
from tenantry.runtime.trail import What, note, note_refused
from tenantry.runtime.userbase import UserBase, Work
from tenantry.seals import seal, unseal
from tenantry.tries import FORGOTTEN, wait

INVITE: Final = "invite"
RESET: Final = "reset"
FORGOT: Final = "forgot"

HOLD: Final = {INVITE: timedelta(days=7), RESET: timedelta(hours=1), FORGOT: timedelta(hours=1)}
"""How long links hold, by what they are for."""

MOST: Final = 20
"""Passkeys of one person."""

Counted = Sequence[tuple[str, str]]
"""What a try is counted for: kinds and keys, see `tenantry.tries`."""


@dataclass(frozen=True, slots=True)
class Passkey:
    """A passkey of a user."""

    id: str
    name: str
    created: int
    used: int | None


class Proofs:
    """Links, second factors, passkeys and tries of the current tenant's users."""

    def __init__(self, base: UserBase, accounts: Accounts, keys: Callable[[Environment], bytes]) -> None:
        self._base = base
        self._accounts = accounts
        self._keys = keys

    # --- links ----------------------------------------------------------------------------------------------------

    async def new_link(self, user: str, purpose: str) -> str:
        """A link by which a user chooses a password, once. Earlier ones for the same lead nowhere any more, except to

        a forgotten password: a stranger who asks in somebody's name does not take her own link away.
        """
        link, moment = secrets.token_urlsafe(32), int(time.time())
        over = "expires <= :now" if purpose == FORGOT else "(expires <= :now OR purpose = :purpose)"
        values = {"user": user, "now": moment}
        async with self._base.open() as work:
            statement = f"DELETE FROM {{prefix}}tenantry_link WHERE user_id = :user AND {over}"  # noqa: S608 -- constants
            await work.run(statement, **values, **({} if purpose == FORGOT else {"purpose": purpose}))
            await work.run(
                "INSERT INTO {prefix}tenantry_link (digest, user_id, purpose, created, expires) "
                "VALUES (:digest, :user, :purpose, :now, :expires)",
                **values,
                digest=digest(link),
                purpose=purpose,
                expires=moment + int(HOLD[purpose].total_seconds()),
            )
            await note(work, What.LINK, user, purpose)
            await work.commit()
        return link

    async def owner(self, link: str) -> tuple[User, str]:
        """Whose link this is, and what for. Raises `LinkInvalid`."""
        async with self._base.open() as work:
            row = await work.first(
                "SELECT user_id, purpose FROM {prefix}tenantry_link WHERE digest = :digest AND expires > :now",
                digest=digest(link),
                now=int(time.time()),
            )
        try:
            user = await self._accounts.get(row.user_id) if row else None
        except AccountError:  # removed since
            user = None
        if row is None or user is None or not user.active or user.issuer is not None:
            raise LinkInvalid(remedy="Ask an admin for another one, or ask for a new password.")
        return user, row.purpose

    async def take(self, link: str, password: str) -> User:
        """Choose a password by a link: it is used up with all others of its owner, and every session ends.

        Raises `LinkInvalid`, or `AccountError` for a password that keeps no rule.
        """
        user, purpose = await self.owner(link)
        hashed = await self._accounts.hashed(password)
        async with self._base.open() as work:
            # Of two at once, one finds it used.
            used = await work.run("DELETE FROM {prefix}tenantry_link WHERE digest = :digest", digest=digest(link))
            if not used:
                raise LinkInvalid(remedy="Ask an admin for another one, or ask for a new password.")
            await work.run("DELETE FROM {prefix}tenantry_link WHERE user_id = :user", user=user.id)
            await work.run(
                "UPDATE {prefix}tenantry_user SET password = :password, epoch = epoch + 1 WHERE id = :user",
                password=hashed,
                user=user.id,
            )
            await note(work, What.PASSWORD, user.id, f"by a link: {purpose}")
            await work.commit()
        return await self._accounts.get(user.id)

    async def drop_links(self, user: str) -> None:
        """Let no link of a user lead anywhere any more."""
        async with self._base.open() as work:
            await work.run("DELETE FROM {prefix}tenantry_link WHERE user_id = :user", user=user)
            await work.commit()

    # --- the second factor ----------------------------------------------------------------------------------------

    def enrol(self, user: User, session: str) -> tuple[str, str, str]:
        """A new secret (base32), its address for an app (otpauth://), and the same sealed for `confirm`."""
        environment = current_environment()
        secret, uri = codes.enrolment(user.login, environment.tenant.name)
        return secret, uri, seal(self._key(), _enrolling(user, session), secret.encode()).hex()

    def enrolled(self, user: User, session: str, sealed: str) -> str:
        """The secret that `enrol` sealed for this session. Raises `AccountError`."""
        try:
            return unseal((self._key(),), _enrolling(user, session), bytes.fromhex(sealed)).decode()
        except (ValueError, SealBroken) as error:  # made up, or another session's
            raise AccountError("This is no enrolment.", remedy="Begin anew.") from error

    async def confirm(self, user: User, secret: str, code: str) -> list[str]:
        """Turn the second factor on by a first code of its secret; gives its recovery codes. All sessions end."""
        step = codes.step_of(secret, code, 0)
        if step is None:
            remedy = "Type the one that the app shows now; its clock must be right."
            raise AccountError("The code is wrong.", remedy=remedy)
        given = codes.new_codes()
        async with self._base.open() as work:
            turned = await work.run(
                "UPDATE {prefix}tenantry_user SET totp = :totp, totp_used = :step, epoch = epoch + 1 "
                "WHERE id = :user AND totp IS NULL",
                totp=seal(self._key(), _sealed(user), secret.encode()).hex(),
                step=step,
                user=user.id,
            )
            if not turned:
                raise AccountError("There is a second factor already.", remedy="Turn it off first.")
            await _put_codes(work, user.id, given)
            await note(work, What.FACTOR_ON, user.id)
            await work.commit()
        return given

    async def is_code(self, user: str, code: str) -> bool:
        """Use a code up, by time or for recovery; whether it is one of this user's."""
        async with self._base.open() as work:
            row = await work.first("SELECT totp, totp_used FROM {prefix}tenantry_user WHERE id = :user", user=user)
            if row is None or row.totp is None:
                return False
            context = f"{current_environment().tenant.id}/totp:{user}"
            secret = unseal((self._key(),), context, bytes.fromhex(row.totp)).decode()
            step = codes.step_of(secret, code, row.totp_used)
            if step is None:
                used = await work.run(
                    "DELETE FROM {prefix}tenantry_recovery WHERE user_id = :user AND digest = :digest",
                    user=user,
                    digest=codes.digest(code),
                )
                if used:
                    await note(work, What.RECOVERED, user)
            else:  # of two at once, one finds it used
                used = await work.run(
                    "UPDATE {prefix}tenantry_user SET totp_used = :step WHERE id = :user AND totp_used < :step",
                    step=step,
                    user=user,
                )
            await work.commit()
        if not used:
            await note_refused(self._base, user, "code")
        return bool(used)

    async def new_codes(self, user: str) -> list[str]:
        """New recovery codes in place of all earlier ones."""
        given = codes.new_codes()
        async with self._base.open() as work:
            await _put_codes(work, user, given)
            await note(work, What.CODES, user)
            await work.commit()
        return given

    async def codes_left(self, user: str) -> int:
        """How many recovery codes a user has."""
        async with self._base.open() as work:
            counted = await work.first(
                "SELECT COUNT(*) AS number FROM {prefix}tenantry_recovery WHERE user_id = :user", user=user
            )
        return int(counted.number) if counted else 0

    async def drop_factor(self, user: str) -> None:
        """Turn the second factor off; its recovery codes open nothing, and all sessions end."""
        async with self._base.open() as work:
            there = "id = :user AND totp IS NOT NULL"
            statement = f"UPDATE {{prefix}}tenantry_user SET totp = NULL, epoch = epoch + 1 WHERE {there}"  # noqa: S608 -- constants
            if await work.run(statement, user=user):
                await note(work, What.FACTOR_OFF, user)
            await work.run("DELETE FROM {prefix}tenantry_recovery WHERE user_id = :user", user=user)
            await work.commit()

    # --- passkeys -------------------------------------------------------------------------------------------------

    def site(self, domain: str, origins: Sequence[str]) -> Passkeys:
        """The tenant as passkeys know it, at one of its addresses."""
        key = derive_key(self._keys(current_environment()), "passkey")
        return Passkeys(current_environment().tenant.name, domain, origins, lambda text: derive_key(key, text).hex())

    async def passkeys(self, user: str) -> list[Passkey]:
        """The passkeys of a user, the oldest first."""
        async with self._base.open() as work:
            rows = await work.all(
                "SELECT id, name, created, used FROM {prefix}tenantry_passkey WHERE user_id = :user "
                "ORDER BY created, id",
                user=user,
            )
        return [Passkey(row.id, row.name, row.created, row.used) for row in rows]

    async def to_register(self, site: Passkeys, user: User) -> str:
        """What a browser is asked to make, as JSON."""
        async with self._base.open() as work:
            rows = await work.all("SELECT credential FROM {prefix}tenantry_passkey WHERE user_id = :user", user=user.id)
        return site.to_register(user.id, user.login, user.name, [row.credential for row in rows])

    async def add_passkey(self, site: Passkeys, user: User, name: str, answer: str) -> None:
        """Keep a passkey that a browser made. Raises `AccountError`."""
        from sqlalchemy.exc import IntegrityError

        made, moment = site.registered(user.id, answer), int(time.time())
        if len(await self.passkeys(user.id)) >= MOST:
            raise AccountError(f"There are {MOST} passkeys already.", remedy="Remove one first.")
        async with self._base.open() as work:
            if not await _spend(work, made.spent):
                raise authenticators.late()
            try:
                await work.run(
                    "INSERT INTO {prefix}tenantry_passkey "
                    "(id, user_id, credential, name, public_key, sign_count, created) "
                    "VALUES (:id, :user, :credential, :name, :key, :count, :now)",
                    id=digest(made.id),
                    user=user.id,
                    credential=made.id,
                    name=name,
                    key=base64.b64encode(made.public_key).decode(),
                    count=made.sign_count,
                    now=moment,
                )
            except IntegrityError as error:
                raise AccountError("This passkey is there already.", remedy="Make another one.") from error
            await note(work, What.PASSKEY_ADDED, user.id, name)
            await work.commit()

    async def remove_passkey(self, user: str, passkey: str) -> bool:
        """Forget a passkey of a user; whether there was one."""
        async with self._base.open() as work:
            mine = "FROM {prefix}tenantry_passkey WHERE user_id = :user AND id = :id"
            row = await work.first(f"SELECT name {mine}", user=user, id=passkey)
            gone = await work.run(f"DELETE {mine}", user=user, id=passkey)
            if row is not None and gone:
                await note(work, What.PASSKEY_REMOVED, user, row.name)
            await work.commit()
        return bool(gone)

    async def by_passkey(self, site: Passkeys, answer: str) -> User:
        """Who signed. Raises `SignInRefused`."""
        try:
            return await self._signed(site, answer)
        except SignInRefused:
            await note_refused(self._base, "", "passkey")
            raise

    async def _signed(self, site: Passkeys, answer: str) -> User:
        read = site.read(answer)
        async with self._base.open() as work:
            row = await work.first(
                "SELECT id, user_id, public_key, sign_count FROM {prefix}tenantry_passkey WHERE id = :id",
                id=digest(read.id),
            )
            if row is None:
                raise authenticators.refusal()
            count = site.signed(read, row.user_id, base64.b64decode(row.public_key), row.sign_count)
            if not await _spend(work, read.spent):  # of two at once, one finds the challenge spent
                raise authenticators.refusal()
            await work.run(
                "UPDATE {prefix}tenantry_passkey SET sign_count = :count, used = :now WHERE id = :id",
                count=count,
                now=int(time.time()),
                id=row.id,
            )
            await work.commit()
        user = await self._accounts.get(row.user_id)
        if not user.active or user.issuer is not None:  # a provider's user comes by it alone
            raise authenticators.refusal()
        return user

    # --- tries ----------------------------------------------------------------------------------------------------

    async def begin(self, counted: Counted) -> None:
        """Count a try as a failure before it is looked at: of a thousand that come at once, each counts.

        Raises `TooManyTries`. `passed` takes it back.
        """
        moment = int(time.time())
        async with self._base.open() as work:
            waits = 0
            for kind, key in sorted(counted, key=lambda one: one[1]):  # in one order, so that none waits for another
                waits = max(waits, await _count(work, kind, key, moment))
            if waits:
                await work.undo()
                raise TooManyTries(seconds=waits)
            await work.commit()
            old = moment - int(FORGOTTEN.total_seconds())
            query = "SELECT id FROM {prefix}tenantry_try WHERE ends < :old LIMIT 10"
            for row in await work.all(query, old=old):  # each by itself: a scan would lock what others count
                await work.run("DELETE FROM {prefix}tenantry_try WHERE id = :id AND ends < :old", id=row.id, old=old)
                await work.commit()

    async def passed(self, counted: Counted) -> None:
        """Take a try back that was none of a guesser's. A device that its owner used begins anew.

        Others do not: whoever guesses would go on for free after each time that the owner signs in.
        """
        async with self._base.open() as work:
            for kind, key in sorted(counted, key=lambda one: one[1]):
                change = "0" if kind == "device" else "number - 1"
                await work.run(
                    f"UPDATE {{prefix}}tenantry_try SET number = {change}, ends = :now WHERE id = :key AND number > 0",  # noqa: S608 -- constants
                    now=int(time.time()),
                    key=key,
                )
            await work.commit()

    def _key(self) -> bytes:
        return derive_key(self._keys(current_environment()), "second-factor")


def _enrolling(user: User, session: str) -> str:
    return f"{current_environment().tenant.id}/enrol:{user.id}:{session}"


def _sealed(user: User) -> str:
    return f"{current_environment().tenant.id}/totp:{user.id}"


async def _put_codes(work: Work, user: str, given: Sequence[str]) -> None:
    await work.run("DELETE FROM {prefix}tenantry_recovery WHERE user_id = :user", user=user)
    for code in given:
        statement = "INSERT INTO {prefix}tenantry_recovery (user_id, digest) VALUES (:user, :digest)"
        await work.run(statement, user=user, digest=codes.digest(code))


async def _count(work: Work, kind: str, key: str, moment: int) -> int:
    """Count one more; the seconds still to wait before the try before it is over. Its row stays locked."""
    await work.there("tenantry_try", id=key, number=0, ends=moment)
    forgotten = moment - int(FORGOTTEN.total_seconds())
    await work.run(
        "UPDATE {prefix}tenantry_try SET number = CASE WHEN ends < :forgotten THEN 1 ELSE number + 1 END "
        "WHERE id = :key",
        forgotten=forgotten,
        key=key,
    )
    row = await work.first("SELECT number, ends FROM {prefix}tenantry_try WHERE id = :key", key=key)
    assert row is not None
    if row.ends > moment:
        return int(row.ends - moment)
    ends = moment + int(wait(kind, row.number).total_seconds())
    await work.run("UPDATE {prefix}tenantry_try SET ends = :ends WHERE id = :key", ends=ends, key=key)
    return 0


async def _spend(work: Work, challenge: str) -> bool:
    """Note a challenge as answered; False where it was before."""
    ends = int(time.time() + authenticators.HOLDS.total_seconds())
    return bool(await work.put("tenantry_try", id=challenge, number=1, ends=ends))

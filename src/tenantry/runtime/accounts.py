"""The users of the current tenant, in its own database, and their sessions."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tenantry.context import current_environment, is_reading
from tenantry.credentials import (
    GENERATED,
    PASSWORD_LENGTH,
    Role,
    check_chosen,
    check_generated,
    derive_key,
    hash_chosen,
    outdated,
    usable,
)
from tenantry.errors import AccountError, ForeignSession, InvalidToken, SignInRefused
from tenantry.model import Environment, new_id
from tenantry.runtime.sessions import NOBODY, Client, Session, Sessions, SignedIn, digest
from tenantry.runtime.settings import Settings
from tenantry.runtime.trail import Event, Source, Trail, What, note, note_refused, printable
from tenantry.runtime.userbase import UserBase
from tenantry.sso_refusals import PasswordsOff

if TYPE_CHECKING:
    from sqlalchemy import Row

LOGIN_LENGTH: Final = 254
"""The longest login in characters: a mail address (RFC 5321 section 4.5.3.1.3)."""

SEEN: Final = 300
"""How exact the moments are at which sessions were last used, in seconds: a write for each request is not worth it."""

LISTED: Final = 100
"""Sessions of a user that are listed, the latest first."""

BY_PROVIDER: Final = "sso"
"""In events: by the provider of the tenant's organization."""

_COLUMNS: Final = "id, login, name, role, password, active, epoch, created, totp, issuer, subject"

_USERS: Final = f"SELECT {_COLUMNS} FROM {{prefix}}tenantry_user"  # noqa: S608 -- constants

_SIGNED_IN: Final = f"""
SELECT {", ".join(f"u.{name}" for name in _COLUMNS.split(", "))}, s.seen, s.outside
FROM {{prefix}}tenantry_session s JOIN {{prefix}}tenantry_user u ON u.id = s.user_id
WHERE s.id = :session AND s.user_id = :user AND s.epoch = u.epoch AND s.expires > :now AND u.active = 1
"""  # noqa: S608 -- constants

_BEGIN: Final = """
INSERT INTO {prefix}tenantry_session
  (id, user_id, epoch, via, created, proved, seen, expires, address, agent, outside)
SELECT :id, id, epoch, :via, :now, :now, :now, :expires, :address, :agent, :outside
FROM {prefix}tenantry_user WHERE id = :user AND epoch = :epoch AND active = 1
"""

OVER: Final = "user_id = :user AND (epoch <> :epoch OR expires <= :now)"
"""What is over of a user's sessions, and of her tokens."""

_LISTED: Final = """
SELECT s.id, s.via, s.created, s.proved, s.seen, s.expires, s.address, s.agent
FROM {prefix}tenantry_session s JOIN {prefix}tenantry_user u ON u.id = s.user_id
WHERE s.user_id = :user AND s.epoch = u.epoch AND s.expires > :now AND u.active = 1
ORDER BY s.seen DESC, s.id LIMIT :limit
"""

_ENTER: Final = """
INSERT INTO {prefix}tenantry_user (id, login, name, role, password, created, issuer, subject)
VALUES (:id, :login, :name, :role, :password, :created, :issuer, :subject)
"""

_ADMINS: Final = "SELECT id FROM {prefix}tenantry_user WHERE role = 'admin' AND active = 1 ORDER BY id"

_ALWAYS: Final = "1 = 1"

_SPARE: Final = f"""role <> 'admin' OR active = 0 OR EXISTS (
    SELECT 1 FROM ({_ADMINS} LIMIT 2) AS other WHERE other.id <> {{prefix}}tenantry_user.id
)"""  # noqa: S608 -- constants; MySQL reads the table it changes only by way of a derived one that a LIMIT keeps apart
"""Whether the tenant still has an active admin without this one: of any two admins, one is another."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of a tenant."""

    id: str
    login: str
    name: str
    role: Role
    active: bool
    epoch: int  # sessions of an earlier epoch are over
    created: datetime
    second_factor: bool = False
    issuer: str | None = None  # of a provider's user, with `subject`: who asserts this person, and as whom
    subject: str | None = None
    invited: bool = False  # has no password yet, and no provider


class Accounts:
    """Users of the current tenant. There is always at least one active admin, once there was one."""

    def __init__(
        self, settings: Settings, base: UserBase, sessions: Sessions, keys: Callable[[Environment], bytes]
    ) -> None:
        self._settings = settings
        self._base = base
        self._sessions = sessions
        self._keys = keys
        self.trail = Trail(base, settings.events_seconds)

    async def list(self) -> list[User]:
        """All users, by login."""
        return [user_of(row) for row in await self._rows("ORDER BY login")]

    async def first(self) -> User | None:
        """The user whose login comes first; None where the tenant has none."""
        rows = await self._rows("ORDER BY login LIMIT 1")
        return user_of(rows[0]) if rows else None

    async def get(self, user: str) -> User:
        """The user of an id. Raises `AccountError`."""
        return _one(await self._rows("WHERE id = :id", id=user))

    async def create(self, login: str, password: str, *, name: str = "", role: Role = Role.USER) -> User:
        """Add a user. Raises `AccountError` for a login that is taken and for values that keep no rule."""
        made = User(new_id(), _login(login), _name(name), Role(role), True, 0, datetime.now(UTC))
        if not await self._enter(made, await _hash(password), made.role.value):
            raise AccountError(f"The login '{made.login}' is taken.", remedy="Choose another one.")
        return made

    async def invite(self, login: str, name: str = "", role: Role = Role.USER) -> User:
        """Add a user who has no password yet: a link lets her choose one. Raises `AccountError` for a taken login."""
        made = User(new_id(), _login(login), _name(name), Role(role), True, 0, datetime.now(UTC), invited=True)
        if not await self._enter(made, "", f"invited, {made.role.value}"):
            raise AccountError(f"The login '{made.login}' is taken.", remedy="Choose another one.")
        return made

    async def search(self, text: str = "", after: str = "", limit: int = 50) -> Sequence[User]:
        """Users whose login or name has this text in it, by login; `after` is the last login of the page before."""
        like = _sought(text)
        for sign in "!%_":
            like = like.replace(sign, f"!{sign}")
        found = "(LOWER(login) LIKE :like ESCAPE '!' OR LOWER(name) LIKE :like ESCAPE '!')"
        rest = f"WHERE login > :after AND {found} ORDER BY login LIMIT :limit"
        rows = await self._rows(rest, like=f"%{like}%", after=_sought(after), limit=limit)
        return [user_of(row) for row in rows]

    async def by_login(self, login: str) -> User | None:
        """The user of a login; None where there is none."""
        rows = await self._rows("WHERE login = :login", login=_sought(login))
        return user_of(rows[0]) if rows else None

    async def hashed(self, password: str) -> str:
        """The stored form of a password. Raises `AccountError` for one that keeps no rule."""
        return await _hash(password)

    async def authenticate(self, login: str, password: str) -> User:
        """The active user of a login and password. Raises `SignInRefused`, after the same time in every case."""
        refuse_passwords()
        key = derive_key(self._keys(current_environment()), "password")
        rows = await self._rows("WHERE login = :login", login=_sought(login))
        stored = rows[0].password if rows else ""
        password = usable(password)
        right = await asyncio.to_thread(_verify, stored, password, key)
        if not rows or not right or not rows[0].active:
            await note_refused(self._base, rows[0].id if rows else "", "password")
            raise SignInRefused
        if not stored.startswith(GENERATED) and outdated(stored):
            new = await asyncio.to_thread(hash_chosen, password)
            await self._changed(rows[0].id, "password = :new", "password = :old", {"new": new, "old": stored})
        return user_of(rows[0])

    async def set_password(self, user: str, password: str) -> None:
        """Give a user another password; all sessions of the user end."""
        change = "password = :password, epoch = epoch + 1"
        await self._update(user, change, What.PASSWORD, password=await _hash(password))

    async def set_role(self, user: str, role: Role) -> None:
        """Give a user another role. Raises `AccountError` for the last active admin."""
        harmless, named = Role(role) is Role.ADMIN, Role(role).value
        await self._unless_last(user, "role = :role", harmless, What.ROLE, named, role=named)

    async def disable(self, user: str) -> None:
        """Keep a user out and end all sessions. Raises `AccountError` for the last active admin."""
        await self._unless_last(user, "active = 0, epoch = epoch + 1", False, What.DISABLED)

    async def enable(self, user: str) -> None:
        """Let a user in again."""
        await self._update(user, "active = 1", What.ENABLED)

    async def call(self, user: str, name: str) -> None:
        """Give a user another name, which people read."""
        await self._update(user, "name = :name", None, name=_name(name))

    async def rename(self, user: str, login: str) -> None:
        """Give a user another login. Raises `AccountError` for one that is taken."""
        from sqlalchemy.exc import IntegrityError

        login = _login(login)
        try:
            await self._update(user, "login = :login", What.LOGIN, login, login=login)
        except IntegrityError as error:
            raise AccountError(f"The login '{login}' is taken.", remedy="Choose another one.") from error

    # --- sessions -------------------------------------------------------------------------------------------------

    async def begin(
        self, user: User, client: Client = NOBODY, via: str = "password", outside: str | None = None
    ) -> str:
        """Sign a user in: a new session of the current tenant, listed and revocable; returns the cookie's value.

        `Sessions.set_cookie` makes the header. The session that came with the client ends. `via` tells how the person
        proved who she is, `outside` what a provider calls the session. Raises `SignInRefused` where the user has been
        disabled, or signed out everywhere, since it was read.
        """
        if outside is None:
            refuse_passwords()
        moment, secret = int(time.time()), secrets.token_urlsafe(32)
        before, agent = self._before(client), printable(client.agent)[:300]
        async with self._base.open() as work:
            added = await work.run(
                _BEGIN,
                id=digest(secret),
                user=user.id,
                epoch=user.epoch,
                via=via[:20],
                now=moment,
                expires=moment + self._settings.session_seconds,
                address=client.address[:64],
                agent=agent,
                outside=outside,
            )
            if not added:
                raise SignInRefused
            await note(work, What.SIGN_IN, user.id, via[:20], Source(user.id, "", client.address, agent))
            if before:
                await work.run("DELETE FROM {prefix}tenantry_session WHERE id = :before", before=before)
            await work.sweep("tenantry_session", OVER, user=user.id, epoch=user.epoch, now=moment)
            await work.commit()
        await self.trail.sweep(user.id)
        return self._sessions.issue(user.id, secret)

    async def signed_in(self, session: SignedIn) -> User:
        """The user of a session cookie.

        Raises `InvalidToken` where the session was ended or has run out, or where the user is gone or disabled.
        """
        moment = int(time.time())
        async with self._base.open() as work:
            row = await work.first(_SIGNED_IN, session=session.id, user=session.user, now=moment)
            if row is not None and moment - row.seen >= SEEN and not is_reading():
                statement = "UPDATE {prefix}tenantry_session SET seen = :now WHERE id = :session AND seen = :seen"
                await work.run(statement, now=moment, session=session.id, seen=row.seen)
                await work.commit()
        if row is None or not stands(row.outside):
            raise InvalidToken(reason="the session is over", remedy="Sign in again.")
        return user_of(row)

    async def sessions(self, user: str) -> Sequence[Session]:
        """The sessions of a user that are not over, the last used first."""
        async with self._base.open() as work:
            rows = await work.all(_LISTED, user=user, now=int(time.time()), limit=LISTED)
        return [_session(row) for row in rows]

    async def end_session(self, user: str, session: str) -> bool:
        """End one session of a user, by its id; whether there was one."""
        return await self._end_session(user, session, What.SESSION_ENDED)

    async def sign_out(self, session: SignedIn) -> bool:
        """End the session of whoever leaves; whether there was one."""
        return await self._end_session(session.user, session.id, What.SIGN_OUT)

    async def _end_session(self, user: str, session: str, what: What) -> bool:
        async with self._base.open() as work:
            statement = "DELETE FROM {prefix}tenantry_session WHERE user_id = :user AND id = :session"
            ended = await work.run(statement, user=user, session=session)
            if ended:
                await note(work, what, user)
            await work.commit()
        return bool(ended)

    async def end_outside(self, outside: str) -> int:
        """End the sessions that a provider calls so; how many there were."""
        async with self._base.open() as work:
            query = "SELECT id, user_id FROM {prefix}tenantry_session WHERE outside = :outside ORDER BY id"
            ended = [
                row
                for row in await work.all(query, outside=outside)
                if await work.run("DELETE FROM {prefix}tenantry_session WHERE id = :id", id=row.id)
            ]
            for row in ended:
                await note(work, What.SIGN_OUT, row.user_id, BY_PROVIDER, Source())
            await work.commit()
        return len(ended)

    async def end_sessions(self, user: str) -> None:
        """End every session of a user at once."""
        await self._update(user, "epoch = epoch + 1", What.SESSIONS_ENDED)

    async def prove(self, session: SignedIn) -> None:
        """Note that the person of a session has just proved once more who she is."""
        async with self._base.open() as work:
            statement = "UPDATE {prefix}tenantry_session SET proved = :now WHERE id = :session AND user_id = :user"
            await work.run(statement, now=int(time.time()), session=session.id, user=session.user)
            await work.commit()

    def _before(self, client: Client) -> str:
        """The id of the session that a client came with; "" for none that is ours."""
        with contextlib.suppress(InvalidToken, ForeignSession):
            return self._sessions.read(client.session).id if client.session else ""
        return ""

    # --- a provider's users ---------------------------------------------------------------------------------------

    async def provision(self, issuer: str, subject: str, login: str, name: str = "", role: Role | None = None) -> User:
        """The user whom a provider asserts as `subject`: made, or brought up to date.

        `role` None leaves it as it is (a new one is a `user`); the last active admin stays one in any case. A local
        user of the same login is never taken over. Raises `AccountError`, or `SignInRefused` for a disabled one.
        """
        login, name = _login(login), _name(name)
        if not issuer or not subject or len(issuer) > 300 or len(subject) > 255 or "\0" in issuer + subject:
            raise AccountError("The provider names nobody.", remedy="It must assert `iss` and `sub`.")
        found = await self._provided(issuer, subject)
        if found is None:
            made = User(
                new_id(), login, name, Role(role or Role.USER), True, 0, datetime.now(UTC), False, issuer, subject
            )
            if await self._enter(made, "", f"{BY_PROVIDER}, {made.role.value}"):
                return made
            found = await self._provided(issuer, subject)  # of two at once, one finds it made
            if found is None:
                raise _taken(login)
        if not found.active:
            await note_refused(self._base, found.id, BY_PROVIDER)
            raise SignInRefused("This account is disabled.", remedy="Ask an admin of this tenant.")
        return await self._brought(found, login, name or found.name, role)

    async def _provided(self, issuer: str, subject: str) -> User | None:
        rows = await self._rows("WHERE issuer = :issuer AND subject = :subject", issuer=issuer, subject=subject)
        return user_of(rows[0]) if rows else None

    async def _brought(self, found: User, login: str, name: str, role: Role | None) -> User:
        """A provider's user as it says that it is now."""
        from sqlalchemy.exc import IntegrityError

        if (login, name) != (found.login, found.name):
            try:
                what = What.LOGIN if login != found.login else None
                await self._update(found.id, "login = :login, name = :name", what, login, login=login, name=name)
            except IntegrityError as error:
                raise _taken(login) from error
        if role is not None and Role(role) is not found.role:
            with contextlib.suppress(AccountError):  # the last admin stays one
                await self.set_role(found.id, Role(role))
        return await self.get(found.id)

    # --- what happened ----------------------------------------------------------------------------------------------

    async def events(self, user: str | None = None, limit: int = 50, after: str = "") -> Sequence[Event]:
        """What happened to the account of a user, or to all of this tenant's, newest first: at most 200 at once.

        `after` is the `mark` of the last one of the page before. Raises `InvalidRequest` for one that is no mark.
        """
        return await self.trail.listed(user, limit, after)

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _rows(self, rest: str, **values: Any) -> Sequence[Row[Any]]:
        async with self._base.open() as work:
            return await work.all(f"{_USERS} {rest}", **values)

    async def _enter(self, user: User, password: str, how: str) -> bool:
        """Add a user; whether its login, and whom a provider calls so, were free."""
        from sqlalchemy.exc import IntegrityError

        values = {"id": user.id, "login": user.login, "name": user.name, "role": user.role.value}
        provided = {"issuer": user.issuer, "subject": user.subject}
        async with self._base.open() as work:
            try:
                await work.run(_ENTER, **values, **provided, password=password, created=user.created.isoformat())
                await note(work, What.MADE, user.id, how)
                await work.commit()
            except IntegrityError:
                return False
        return True

    async def _update(self, user: str, change: str, what: What | None, detail: str = "", /, **values: Any) -> None:
        if not await self._changed(user, change, _ALWAYS, values, what, detail):
            raise AccountError("There is no such user.", remedy="List the users and take one of their ids.")

    async def _unless_last(
        self, user: str, change: str, harmless: bool, what: What, detail: str = "", /, **values: Any
    ) -> None:
        """The admins stay locked from the judgement to the change, so that two cannot remove each other at one time."""
        condition = _ALWAYS if harmless else f"({_SPARE})"
        if not await self._changed(user, change, condition, values, what, detail, lock=not harmless):
            login = (await self.get(user)).login
            reason = f"'{login}' is the last active admin."
            raise AccountError(reason, remedy="Make another user an admin first.")

    async def _changed(
        self,
        user: str,
        change: str,
        condition: str,
        values: dict[str, Any],
        what: What | None = None,
        detail: str = "",
        lock: bool = False,
    ) -> bool:
        statement = f"UPDATE {{prefix}}tenantry_user SET {change} WHERE id = :user AND {condition}"  # noqa: S608 -- constants
        async with self._base.open() as work:
            if lock:
                await work.lock(_ADMINS)
            changed = await work.run(statement, **values, user=user)
            if changed and what is not None:
                await note(work, what, user, detail)
            await work.commit()
        return bool(changed)


def refuse_passwords() -> None:
    """Raise `PasswordsOff` where people sign in by their organization alone."""
    known = current_environment().tenant.sign_on
    if known is not None and known.only:
        raise PasswordsOff(organization=known.name)


def stands(outside: str | None) -> bool:
    """Whether a session that was begun so counts still: the organization or its provider may be another one by now."""
    known = current_environment().tenant.sign_on
    if outside is None:
        return known is None or not known.only
    return known is not None and outside.rpartition("/")[0] == f"{known.organization}/{known.way}"


def user_of(row: Row[Any]) -> User:
    """The user of a row of the users' table."""
    created = datetime.fromisoformat(row.created)
    known = row.id, row.login, row.name, Role(row.role), bool(row.active), row.epoch, created
    invited = not row.password and row.issuer is None
    return User(*known, row.totp is not None, row.issuer, row.subject, invited)


def _session(row: Row[Any]) -> Session:
    created, proved, seen, expires = (
        datetime.fromtimestamp(moment, UTC) for moment in (row.created, row.proved, row.seen, row.expires)
    )
    return Session(row.id, row.via, created, proved, seen, expires, row.address, row.agent)


def _one(rows: Sequence[Row[Any]]) -> User:
    if not rows:
        raise AccountError("There is no such user.", remedy="List the users and take one of their ids.")
    return user_of(rows[0])


def _fold(login: str) -> str:
    """One spelling of a login, so that no two users look alike but for capitals or composed letters."""
    return unicodedata.normalize("NFKC", login.encode("utf-8", "replace").decode()).strip().lower()


def _login(login: str) -> str:
    login = _fold(login)
    if not login or len(login) > LOGIN_LENGTH or not login.isprintable():
        reason = f"'{login[:60]}' is no login."
        raise AccountError(reason, remedy=f"Use 1 to {LOGIN_LENGTH} printable characters, such as a mail address.")
    return login


def _sought(login: str) -> str:
    """The login to look for; "" for one that nobody can have, as PostgreSQL takes no NUL even to compare with."""
    login = _fold(login)[:LOGIN_LENGTH]
    return login if login.isprintable() else ""


def _name(name: str) -> str:
    return printable(name).strip()[:200]


def _taken(login: str) -> AccountError:
    """A provider asserts somebody whose login another user has, who was not made by it."""
    return AccountError(
        f"'{login}' is another user's login here, who signs in otherwise.",
        remedy="Ask an admin of this tenant to give that user another login first.",
    )


async def _hash(password: str) -> str:
    shortest, longest = PASSWORD_LENGTH
    hashed = await asyncio.to_thread(hash_chosen, password)
    if not hashed:
        reason = f"A password has {shortest} to {longest} characters."
        raise AccountError(reason, remedy="Choose another one.")
    return hashed


def _verify(stored: str, password: str, key: bytes) -> bool:
    """Whether the password is right. Each call costs one Argon2id, so that its time tells nothing about the user."""
    generated = stored.startswith(GENERATED)
    right = check_chosen("" if generated else stored, password)
    return check_generated(stored, password, key) if generated else right

"""The users of the current tenant, in its own database."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tenantry.context import current_environment
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
from tenantry.errors import AccountError, InvalidToken, SignInRefused
from tenantry.model import Environment, new_id
from tenantry.runtime.databases import Databases
from tenantry.runtime.sessions import SignedIn
from tenantry.runtime.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Row, TextClause
    from sqlalchemy.ext.asyncio import AsyncSession

LOGIN_LENGTH: Final = 254
"""The longest login in characters: a mail address (RFC 5321 section 4.5.3.1.3)."""

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


class Accounts:
    """Users of the current tenant. There is always at least one active admin, once there was one."""

    def __init__(self, settings: Settings, databases: Databases, keys: Callable[[Environment], bytes]) -> None:
        self._settings = settings
        self._databases = databases
        self._keys = keys

    async def list(self) -> list[User]:
        """All users, by login."""
        async with self._session() as session:
            return [_user(row) for row in await self._rows(session, "ORDER BY login")]

    async def first(self) -> User | None:
        """The user whose login comes first; None where the tenant has none."""
        async with self._session() as session:
            rows = await self._rows(session, "ORDER BY login LIMIT 1")
        return _user(rows[0]) if rows else None

    async def get(self, user: str) -> User:
        """The user of an id. Raises `AccountError`."""
        async with self._session() as session:
            return _one(await self._rows(session, "WHERE id = :id", id=user))

    async def create(self, login: str, password: str, *, name: str = "", role: Role = Role.USER) -> User:
        """Add a user. Raises `AccountError` for a login that is taken and for values that keep no rule."""
        from sqlalchemy.exc import IntegrityError

        login = _login(login)
        hashed = await _hash(password)
        created = datetime.now(UTC)
        user = User(new_id(), login, name.strip(), Role(role), True, 0, created)
        values = {"id": user.id, "login": login, "name": user.name, "role": user.role.value, "password": hashed}
        statement = (
            "INSERT INTO {prefix}tenantry_user (id, login, name, role, password, created) "
            "VALUES (:id, :login, :name, :role, :password, :created)"
        )
        async with self._session() as session:
            try:
                await session.execute(self._text(statement), values | {"created": created.isoformat()})
                await session.commit()
            except IntegrityError as error:
                raise AccountError(f"The login '{login}' is taken.", remedy="Choose another one.") from error
        return user

    async def authenticate(self, login: str, password: str) -> User:
        """The active user of a login and password. Raises `SignInRefused`, after the same time in every case."""
        key = derive_key(self._keys(current_environment()), "password")
        async with self._session() as session:
            rows = await self._rows(session, "WHERE login = :login", login=_sought(login))
        stored = rows[0].password if rows else ""
        password = usable(password)
        right = await asyncio.to_thread(_verify, stored, password, key)
        if not rows or not right or not rows[0].active:
            raise SignInRefused
        if not stored.startswith(GENERATED) and outdated(stored):
            new = await asyncio.to_thread(hash_chosen, password)
            await self._changed(rows[0].id, "password = :new", "password = :old", {"new": new, "old": stored})
        return _user(rows[0])

    async def signed_in(self, session: SignedIn) -> User:
        """The user of a session cookie. Raises `InvalidToken` where the user is gone, disabled or signed out."""
        async with self._session() as database:
            rows = await self._rows(database, "WHERE id = :id", id=session.user)
        if not rows or not rows[0].active or rows[0].epoch != session.epoch:
            raise InvalidToken(reason="the session is over", remedy="Sign in again.")
        return _user(rows[0])

    async def set_password(self, user: str, password: str) -> None:
        """Give a user another password; all sessions of the user end."""
        await self._update(user, "password = :password, epoch = epoch + 1", password=await _hash(password))

    async def set_role(self, user: str, role: Role) -> None:
        """Give a user another role. Raises `AccountError` for the last active admin."""
        harmless = Role(role) is Role.ADMIN
        await self._unless_last(user, "role = :role", harmless, role=Role(role).value)

    async def disable(self, user: str) -> None:
        """Keep a user out and end all sessions. Raises `AccountError` for the last active admin."""
        await self._unless_last(user, "active = 0, epoch = epoch + 1", False)

    async def enable(self, user: str) -> None:
        """Let a user in again."""
        await self._update(user, "active = 1")

    async def end_sessions(self, user: str) -> None:
        """End every session of a user at once."""
        await self._update(user, "epoch = epoch + 1")

    # --- inside ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[AsyncSession]:
        environment = current_environment()
        resource = self._settings.users.get(environment.tenant.blueprint)
        if resource is None:
            reason = f"Tenants of the blueprint '{environment.tenant.blueprint}' have no users' table."
            raise AccountError(reason, remedy="Give the blueprint an `admin` in tenantry.toml.")
        async with self._databases.session(resource) as session:
            yield session

    def _text(self, statement: str) -> TextClause:
        """A statement on the users' table of the current tenant, whose name may have a prefix."""
        from sqlalchemy import text

        environment = current_environment()
        place = environment.place(self._settings.users.get(environment.tenant.blueprint) or "")
        return text(statement.replace("{prefix}", place.prefix if place else ""))

    async def _rows(self, session: AsyncSession, rest: str, **values: Any) -> Sequence[Row[Any]]:
        columns = "id, login, name, role, password, active, epoch, created"
        statement = self._text(f"SELECT {columns} FROM {{prefix}}tenantry_user {rest}")  # noqa: S608 -- constants
        return (await session.execute(statement, values)).all()

    async def _update(self, user: str, change: str, **values: Any) -> None:
        if not await self._changed(user, change, _ALWAYS, values):
            raise AccountError("There is no such user.", remedy="List the users and take one of their ids.")

    async def _unless_last(self, user: str, change: str, harmless: bool, **values: Any) -> None:
        """The admins stay locked from the judgement to the change, so that two cannot remove each other at one time."""
        if not await self._changed(user, change, _ALWAYS if harmless else f"({_SPARE})", values, lock=not harmless):
            login = (await self.get(user)).login
            reason = f"'{login}' is the last active admin."
            raise AccountError(reason, remedy="Make another user an admin first.")

    async def _changed(
        self, user: str, change: str, condition: str, values: dict[str, Any], lock: bool = False
    ) -> bool:
        statement = self._text(f"UPDATE {{prefix}}tenantry_user SET {change} WHERE id = :user AND {condition}")  # noqa: S608 -- constants
        async with self._session() as session:
            if lock and session.get_bind().dialect.name != "sqlite":  # which lets one at a time write in any case
                await session.execute(self._text(f"{_ADMINS} FOR UPDATE"))
            changed: Any = await session.execute(statement, values | {"user": user})
            await session.commit()
        return bool(changed.rowcount)


def _user(row: Row[Any]) -> User:
    created = datetime.fromisoformat(row.created)
    return User(row.id, row.login, row.name, Role(row.role), bool(row.active), row.epoch, created)


def _one(rows: Sequence[Row[Any]]) -> User:
    if not rows:
        raise AccountError("There is no such user.", remedy="List the users and take one of their ids.")
    return _user(rows[0])


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

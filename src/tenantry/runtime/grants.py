"""Tokens for a tenant's API: given out and refreshed at `/.tenantry/token` (RFC 6749), keys at `/.tenantry/jwks.json`.

An access token holds for minutes. A refresh token is good once: it is signed with the tenant's key, and the family it
belongs to knows the hash of its newest one. Whoever shows an older one, or somebody before her, stole it; so its whole
family is over (RFC 9700 section 4.14.2).
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tenantry import tries
from tenantry.context import current_environment, refuse_read_only, support_access
from tenantry.credentials import derive_key
from tenantry.errors import ForeignSession, InvalidToken, SignInRefused, TenantryError
from tenantry.model import Environment, new_id
from tenantry.refusals import CsrfFailed, GrantRefused, GrantUnknown, TokenReused
from tenantry.runtime.accounts import OVER, Accounts, User, stands, user_of
from tenantry.runtime.asked import Asked
from tenantry.runtime.pages import Answer
from tenantry.runtime.proofs import Proofs
from tenantry.runtime.sessions import COOKIE_LENGTH, Sessions, digest, serializer
from tenantry.runtime.settings import Settings, SupportDesk
from tenantry.runtime.tokens import KEYS_SECONDS, Signer
from tenantry.runtime.trail import What, note
from tenantry.runtime.userbase import UserBase, Work

if TYPE_CHECKING:
    from itsdangerous import URLSafeTimedSerializer
    from sqlalchemy import Row

_STANDS: Final = """
r.user_id = u.id AND r.epoch = u.epoch AND u.active = 1 AND r.expires > :now AND (r.session_id IS NULL
  OR EXISTS (SELECT 1 FROM {prefix}tenantry_session s WHERE s.id = r.session_id AND s.expires > :now))
"""
"""Whether a family of tokens still stands: its user, and the session it was begun by."""

_USER: Final = f"""
SELECT u.id, u.login, u.name, u.role, u.password, u.active, u.epoch, u.created, u.totp, u.issuer, u.subject,
  r.digest, r.expires,
  (SELECT s.outside FROM {{prefix}}tenantry_session s WHERE s.id = r.session_id) AS outside
FROM {{prefix}}tenantry_refresh r JOIN {{prefix}}tenantry_user u ON {_STANDS} WHERE r.id = :family
"""  # noqa: S608 -- constants

_ADD: Final = """
INSERT INTO {prefix}tenantry_refresh (id, user_id, epoch, digest, session_id, created, used, expires, agent)
VALUES (:family, :user, :epoch, :digest, :session, :now, :now, :expires, :agent)
"""

_TURN: Final = "UPDATE {prefix}tenantry_refresh SET digest = :new, used = :now WHERE id = :family AND digest = :old"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client gets."""

    access: str
    refresh: str
    seconds: int  # for which the access token holds

    def as_dict(self) -> dict[str, Any]:
        """The same as RFC 6749 section 5.1 names it."""
        kind = {"access_token": self.access, "token_type": "Bearer", "expires_in": self.seconds}
        return kind | {"refresh_token": self.refresh}


class Grants:
    """Gives out, refreshes, ends and reads the tokens of the current tenant."""

    def __init__(
        self,
        settings: Settings,
        base: UserBase,
        accounts: Accounts,
        sessions: Sessions,
        proofs: Proofs,
        keys: Callable[[Environment], bytes],
        desk: SupportDesk | None,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.signer = Signer(settings, keys, clock)
        self._settings = settings
        self._base = base
        self._accounts = accounts
        self._sessions = sessions
        self._keys = keys
        self._desk = desk
        self._proofs = proofs
        self._clock = clock

    # --- what applications call -----------------------------------------------------------------------------------

    async def give(self, user: User, session: str | None = None, agent: str = "") -> Tokens:
        """Begin a family of tokens for a user; with a session's id, it ends with that session."""
        moment, family, secret = int(self._clock()), new_id(), secrets.token_urlsafe(32)
        expires = moment + self._settings.session_seconds
        async with self._base.open() as work:
            values = {"family": family, "user": user.id, "epoch": user.epoch, "digest": digest(secret)}
            whence = {"session": session, "agent": "".join(one for one in agent if one.isprintable())[:300]}
            await work.run(_ADD, **values, **whence, now=moment, expires=expires)
            await work.sweep("tenantry_refresh", OVER, user=user.id, epoch=user.epoch, now=moment)
            await note(work, What.TOKENS, user.id)
            await work.commit()
        await self._accounts.trail.sweep(user.id)
        return self._tokens(user, family, secret, expires)

    async def refresh(self, token: str) -> Tokens:
        """New tokens for a refresh token, which is good once.

        Raises `GrantRefused`, and `TokenReused` for one that was used before: then its family is over.
        """
        family, secret = self._read(token)
        moment, new = int(self._clock()), secrets.token_urlsafe(32)
        async with self._base.open() as work:
            turned = await work.run(_TURN, family=family, old=digest(secret), new=digest(new), now=moment)
            row = await _found(work, family, moment)
            if turned and row is not None:
                await work.commit()
                return self._tokens(user_of(row), family, new, row.expires)
            ended = await work.run("DELETE FROM {prefix}tenantry_refresh WHERE id = :family", family=family)
            if not turned and ended and row is not None:
                await note(work, What.TOKEN_REUSED, row.id)
            await work.commit()
        if turned or not ended:  # its user or its session is over, or it itself
            raise GrantRefused
        if row is not None:
            await self._tell(row.login, family)
        raise TokenReused

    async def end(self, token: str) -> None:
        """End the family of a refresh token (RFC 7009). One that is over is no fault."""
        family, _ = self._read(token)
        async with self._base.open() as work:
            query = "SELECT user_id FROM {prefix}tenantry_refresh WHERE id = :family"
            row = await work.first(query, family=family)
            if row is not None:
                await work.run("DELETE FROM {prefix}tenantry_refresh WHERE id = :family", family=family)
                await note(work, What.TOKENS_ENDED, row.user_id)
            await work.commit()

    async def user(self, token: bytes) -> User:
        """The user of an access token, as she is now. Raises `InvalidToken`, also where its family is over."""
        claims = self.signer.verify(current_environment(), token)
        async with self._base.open() as work:
            row = await _found(work, str(claims["sid"]), int(self._clock()))
        if row is None or row.id != claims["sub"]:
            raise InvalidToken(reason="its user has signed out", remedy="Sign in again.")
        return user_of(row)

    # --- pages ----------------------------------------------------------------------------------------------------

    async def key_set(self, environment: Environment, asked: Asked) -> Answer:
        """The public keys of a tenant."""
        found = self.signer.key_set(environment)
        kept = [("cache-control", f"public, max-age={KEYS_SECONDS}"), ("access-control-allow-origin", "*")]
        return _json(200, found, kept, kind="application/jwk-set+json")

    async def answer(self, environment: Environment, asked: Asked) -> Answer:
        """The endpoint for tokens."""
        try:
            if asked.method != "POST":
                return _json(405, {"error": "invalid_request"}, [("allow", "POST")])
            refuse_read_only()
            if support_access() is not None:
                raise GrantRefused
            if asked.path.endswith("/revoke"):
                await self.end(asked.form.get("token", ""))
                return _json(200, {})
            return _json(200, (await self._granted(asked)).as_dict())
        except (GrantRefused, SignInRefused, InvalidToken, ForeignSession) as error:
            return _json(400, {"error": "invalid_grant", "error_description": error.message, "code": error.code})
        except TenantryError as error:
            wait = [("retry-after", str(error.details["seconds"]))] if error.status == 429 else []
            kind = "unsupported_grant_type" if isinstance(error, GrantUnknown) else "invalid_request"
            told = {"error": kind, "error_description": error.message, "code": error.code}
            return _json(error.status, told, wait)

    async def _granted(self, asked: Asked) -> Tokens:
        form, agent = asked.form, asked.headers.get("user-agent", "")
        kind = form.get("grant_type", "")
        if kind == "refresh_token":
            return await self.refresh(form.get("refresh_token", ""))
        if kind == "session":
            return await self._by_session(asked, agent)
        if kind == "password":
            return await self.give(await self._by_password(asked), agent=agent)
        raise GrantUnknown(kind=kind[:40])

    async def _by_session(self, asked: Asked, agent: str) -> Tokens:
        """For whoever is signed in in this browser, by a script of the tenant's own pages."""
        if asked.is_foreign:
            raise CsrfFailed
        session = self._sessions.find(asked.cookies, asked.root)
        if session is None:
            raise GrantRefused("Nobody is signed in here.", remedy="Sign in first.")
        return await self.give(await self._accounts.signed_in(session), session.id, agent)

    async def _by_password(self, asked: Asked) -> User:
        """For a program that has its user's password, and the code of her second factor where she has one."""
        form, proofs = asked.form, self._proofs
        login = form.get("username", "").strip().lower()
        counted = tries.keys(login, asked.address, None)
        await proofs.begin(counted)
        user = await self._accounts.authenticate(login, form.get("password", ""))
        await proofs.passed(counted)
        if user.second_factor:
            second = [("second", tries.keys(f"second\0{user.id}", "", None)[0][1])]
            await proofs.begin(second)
            if not await proofs.is_code(user.id, form.get("code", "")[:100]):
                raise SignInRefused("The code of the second factor is wrong or missing.", remedy="Send it as `code`.")
            await proofs.passed(second)
        return user

    # --- inside ---------------------------------------------------------------------------------------------------

    def _tokens(self, user: User, family: str, secret: str, expires: int) -> Tokens:
        environment = current_environment()
        seconds = min(self._settings.token_seconds, expires - int(self._clock()))
        access = self.signer.sign(environment, {"sub": user.id, "sid": family, "role": user.role.value}, seconds)
        value = self._serializer(environment).dumps([environment.tenant.id, environment.name, family, secret])
        return Tokens(access, value if isinstance(value, str) else value.decode(), seconds)

    def _read(self, token: str) -> tuple[str, str]:
        """The family and the secret of a refresh token that this tenant gave out. Raises `GrantRefused`."""
        from itsdangerous import BadData

        environment = current_environment()
        try:
            tenant, name, family, secret = self._serializer(environment).loads(token[:COOKIE_LENGTH])
        except (BadData, ValueError, TypeError) as error:
            raise GrantRefused from error
        if (tenant, name) != (environment.tenant.id, environment.name):
            raise GrantRefused
        return str(family), str(secret)

    def _serializer(self, environment: Environment) -> URLSafeTimedSerializer:
        return serializer(derive_key(self._keys(environment), "refresh"), "tenantry.refresh")

    async def _tell(self, login: str, family: str) -> None:
        """Let the audit log know. What was ended is over, whether or not it can be written there."""
        environment = current_environment()
        log.warning("A refresh token of '%s' at '%s' was used twice.", login, environment.tenant.slug)
        if self._desk is not None:
            try:
                await self._desk.note(environment, "user.token_reused", f"tenant:{login}", family=family)
            except Exception:
                log.exception("It could not be written to the audit log.")


def _json(
    status: int, body: Mapping[str, Any], headers: Sequence[tuple[str, str]] = (), kind: str = "application/json"
) -> Answer:
    text = json.dumps(body).encode()
    named = dict(headers)
    own = {"content-type": kind, "content-length": str(len(text)), "x-content-type-options": "nosniff"}
    return Answer(status, list(({"cache-control": "no-store"} | own | named).items()), text)


async def _found(work: Work, family: str, moment: int) -> Row[Any] | None:
    """The user of a family that stands, also by the organization that its session was begun by."""
    row = await work.first(_USER, family=family, now=moment)
    return row if row is not None and stands(row.outside) else None

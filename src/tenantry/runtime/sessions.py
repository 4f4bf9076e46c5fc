"""Signed session cookies that are good at one tenant only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from tenantry.context import current_environment, support_access
from tenantry.credentials import derive_key
from tenantry.errors import ForeignSession, InvalidToken
from tenantry.model import Environment
from tenantry.runtime.settings import Settings
from tenantry.runtime.usage import Count

if TYPE_CHECKING:
    from itsdangerous import URLSafeTimedSerializer

COOKIE: Final = "tenantry_session"

COOKIE_LENGTH: Final = 4096
"""The longest cookie value looked at, in characters (RFC 6265 section 6.1 lets browsers stop there)."""


class SignedIn(NamedTuple):
    """What a session cookie says. Whether the session is still on, `Accounts.signed_in` tells."""

    user: str  # id
    id: str  # of the session: the hash of what the cookie holds


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from that signs somebody in."""

    address: str = ""
    agent: str = ""
    session: str | None = None  # the session cookie's value that came along: whoever signs in leaves that session


NOBODY: Final = Client()


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is on, as its user may see it."""

    id: str
    via: str  # how the person proved who she is: "password", "passkey", "sso"
    created: datetime
    proved: datetime  # when she last did
    seen: datetime  # when it was last used, to within some minutes
    expires: datetime
    address: str
    agent: str


class Sessions:
    """Makes and reads the cookies of the current tenant, each signed with a key of its own."""

    def __init__(self, settings: Settings, keys: Callable[[Environment], bytes]) -> None:
        self._settings = settings
        self._keys = keys
        self.begun = Count()

    def name(self, path: str = "") -> str:
        """The cookie's name: with "__Host-" (RFC 6265bis section 4.1.3) where the tenant has a host of its own."""
        return f"__Host-{COOKIE}" if self._settings.secure_cookies and path in ("", "/") else COOKIE

    def issue(self, user: str, secret: str) -> str:
        """The value of a cookie for a session of the current tenant; `Accounts.begin` makes sessions."""
        environment = current_environment()
        self.begun.add()
        value = self._serializer(environment).dumps([environment.tenant.id, environment.name, user, secret])
        return value if isinstance(value, str) else value.decode()

    def read(self, value: str) -> SignedIn:
        """What a cookie says.

        Raises `ForeignSession` for another tenant's cookie, `InvalidToken` for an old or altered one.
        """
        from itsdangerous import BadData, SignatureExpired

        environment = current_environment()
        serializer = self._serializer(environment)
        if len(value) > COOKIE_LENGTH:
            raise _refused("it is too long")
        _, claimed = serializer.loads_unsafe(value)
        if isinstance(claimed, list) and claimed[:2] != [environment.tenant.id, environment.name]:
            raise ForeignSession
        try:
            _, _, user, secret = serializer.loads(value, self._settings.session_seconds)
            return SignedIn(str(user), digest(str(secret)))
        except SignatureExpired as error:
            raise _refused("the session is over") from error
        except (BadData, ValueError, TypeError) as error:
            raise _refused("its signature is not ours") from error

    def find(self, cookies: Mapping[str, str], path: str = "") -> SignedIn | None:
        """What the session cookie among a request's cookies says, or None where there is none.

        None also where support looks in: whoever that is acts as nobody of the tenant's.
        """
        if support_access() is not None:
            return None
        value = cookies.get(self.name(path))
        return self.read(value) if value else None

    def set_cookie(self, value: str, path: str = "") -> str:
        """A Set-Cookie header; `path` is the prefix of a tenant that is reached by path (root_path, SCRIPT_NAME)."""
        return self._header(value, path, self._settings.session_seconds)

    def end_cookie(self, path: str = "") -> str:
        """A Set-Cookie header that removes the cookie."""
        return self._header("", path, 0)

    def _header(self, value: str, path: str, seconds: int) -> str:
        secure = "; Secure" if self._settings.secure_cookies else ""
        where = path.rstrip("/") or "/"
        return f"{self.name(path)}={value}; Path={where}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"

    def _serializer(self, environment: Environment) -> URLSafeTimedSerializer:
        return serializer(derive_key(self._keys(environment), "session"), "tenantry.session")


def serializer(key: bytes, salt: str) -> URLSafeTimedSerializer:
    """Signs and reads values with a key."""
    from itsdangerous import URLSafeTimedSerializer

    return URLSafeTimedSerializer(key, salt=salt, signer_kwargs={"digest_method": hashlib.sha256})


def digest(secret: str) -> str:
    """How what opens something is kept."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _refused(reason: str) -> InvalidToken:
    return InvalidToken(reason=reason, remedy="Sign in again.")

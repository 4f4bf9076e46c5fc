"""What lies on servers: which servers there are, and what the kinds that lie on one have in common."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel

from tenantry.config import Frozen
from tenantry.errors import ServerUnknown
from tenantry.model import Environment, Login, Server, expand, facts_of, fields_of

PASSWORD_BYTES: Final = 24
"""Random octets of a generated password: 192 bits, which no slow hash needs to protect."""

SHUNNED: Final = 30.0
"""Seconds for which no tenant is placed on a server that did not answer, where there is another one."""

OTHER: Final = "_b"
"""How an environment's other user ends: two take turns, so that the old password holds while a new one spreads."""

NAME_FACTS: Final = frozenset({"slug", "client_id", "id", "environment"})
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")


class Servers:
    """The servers a process knows. Whoever has the registry keeps them current."""

    def __init__(self, servers: Iterable[Server] = ()) -> None:
        self._silent: dict[str, float] = {}
        self.replace(servers)

    def replace(self, servers: Iterable[Server]) -> None:
        """Know these from now on, and no others."""
        self._known = {server.name: server for server in servers}

    def get(self, name: str) -> Server:
        """The server of this name. Raises `ServerUnknown`."""
        found = self._known.get(name)
        if found is None:
            raise ServerUnknown(server=name, known=", ".join(self._known) or "none")
        return found

    def find(self, name: str) -> Server | None:
        """The server of this name, or None where it is not known."""
        return self._known.get(name)

    def of(self, kind: str) -> list[Server]:
        """The servers of a kind, by name."""
        return sorted((one for one in self._known.values() if one.kind == kind), key=lambda one: one.name)

    def silent(self, name: str) -> None:
        """Note that a server did not answer."""
        self._silent[name] = time.monotonic()

    def shunned(self, name: str) -> bool:
        """Whether a server was silent a moment ago."""
        return time.monotonic() - self._silent.get(name, -SHUNNED) < SHUNNED


def _pattern(value: str) -> str:
    if not fields_of(value) & {"slug", "client_id", "id"}:
        raise ValueError('it must tell tenants apart, by {slug}, {client_id} or {id}, such as "shop_{slug}"')
    odd = fields_of(value) - NAME_FACTS
    if odd:
        raise ValueError(f"a name may hold {{slug}}, {{client_id}}, {{id}} and {{environment}}, not {{{min(odd)}}}")
    literal = set(expand(value, dict.fromkeys(NAME_FACTS, "")))
    if literal - _LETTERS:
        raise ValueError("a name is made of the letters a-z, digits, _ and -")
    return value


class Options(Frozen):
    """What every kind on a server takes."""

    name: Annotated[str, AfterValidator(_pattern)] = "{slug}"


class OnServer:
    """The part of a kind that lies on a server: how a database and its users are called. Mixed into a `Resource`.

    A name that is too long, reserved or taken is cut and ends with the last eight digits of the environment's id; the
    registry records which it came to, and the server keeps whose it is, so the way back is never guessed.
    """

    server_kind: ClassVar[str | None]
    name_limit: ClassVar[int]  # octets of a database's name
    user_limit: ClassVar[int]  # octets of a user's name
    reserved: ClassVar[frozenset[str]]  # names the server has already
    Options: ClassVar[type[BaseModel]] = Options

    name: str
    options: Any
    setting: Any

    def locate(self, env: Environment) -> str:
        """The name of its database: the recorded one, or the first choice for an environment not placed yet."""
        place = env.place(self.name)
        return place.location if place is not None and place.server else self.names(env)[0]

    def names(self, env: Environment) -> tuple[str, str]:
        """The first choice of a name for its database, and one that nobody else has."""
        wanted = expand(self.options.name, facts_of(env.tenant, env.name, self.setting.domain))
        apart = _apart(wanted, env, self.name_limit)
        plain = len(wanted) <= self.name_limit and wanted not in self.reserved and not wanted.startswith("pg_")
        return (wanted if plain else apart), apart

    def server(self, env: Environment) -> Server:
        """The server that an environment's database lies on. Raises `ServerUnknown`."""
        place = env.place(self.name)
        return self.setting.servers.get(place.server if place and place.server else "")  # type: ignore[no-any-return]

    def user(self, env: Environment) -> str:
        """The first of its two users; the other one is called so with `OTHER` behind it.

        They are called like the database, unless that name is too long or another one was chosen with the first login.
        """
        user, limit = self.locate(env), self.user_limit - len(OTHER)
        apart, login = _apart(user, env, limit), env.logins.get(self.name)
        chosen = login is not None and login.user in (apart, apart + OTHER)
        return apart if chosen or len(user) > limit else user

    def new_login(self, env: Environment, *, apart: bool = False) -> Login:
        """Fresh credentials: for a new environment, or to take the place of those it has.

        With `apart` the user is one that nobody else has: the owner of what is adopted may be called like the database.
        """
        user = _apart(self.locate(env), env, self.user_limit - len(OTHER)) if apart else self.user(env)
        current = env.logins.get(self.name)
        if current is not None and current.user == user:
            user += OTHER
        return Login(user, secrets.token_urlsafe(PASSWORD_BYTES))


def _apart(wanted: str, env: Environment, limit: int) -> str:
    ending = f"_{env.id[-8:]}"
    return wanted[: limit - len(ending)] + ending

"""What the runtime of an application is told: plain values, and where tenants come from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

from tenantry.model import Changes, Environment, Loaded, Login, Person, Place, Server, SignOn, SupportAccess

Rule = Literal["host", "path", "jwt"]

Logins: TypeAlias = Callable[[Environment, Place, Server], Login]
"""Opens the sealed login by which an environment's place on a server is reached."""

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "Ed25519")
"""Signatures (RFC 7518, RFC 9864) a token may carry: asymmetric ones, so that a public key can never sign."""


@dataclass(frozen=True, slots=True)
class Jwt:
    """Which tokens name a tenant."""

    keys: Mapping[str, Any]  # a JSON Web Key Set (RFC 7517 section 5) with public keys
    claim: str = "tenant_id"  # holds the tenant's id or slug
    issuer: str | None = None
    audience: str | None = None
    algorithms: tuple[str, ...] = ALGORITHMS
    leeway: int = 30  # seconds that clocks may differ
    own: bool = False  # in place of `keys`: the tokens that tenants give out at /.tenantry/token


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections to a server one resource of one environment has in this process."""

    size: int = 5  # kept open when nobody uses them
    overflow: int = 10  # beside these, while they are needed
    idle: float = 300.0  # seconds after which one that nobody uses is closed


@dataclass(frozen=True, slots=True)
class SharedTables:
    """What the runtime must know of tables that all tenants of a blueprint share."""

    faults: Callable[[Any, str], Sequence[str]]  # (psycopg connection, role) → what does not keep tenants apart there
    pooler: str | None = None  # URL, without a login, of a pooler of transactions in front of the server


@dataclass(frozen=True, slots=True)
class Brand:
    """Which of a tenant's values tell how its pages look."""

    color: str | None = None  # the one that holds its color
    logo: str | None = None  # likewise its logo
    root: Path = Path()  # beneath which a file lies that a logo names


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an application's process needs to know about the platform."""

    domain: str  # tenants live at <slug>.<domain>; the domain itself is the platform's own
    data: Path  # absolute; an environment's home lies below
    by: tuple[Rule, ...] = ("host", "path")  # the rules that name a tenant, in this order
    path: str = "/t/{slug}/"
    health: str = "/.tenantry/health"
    single: str | None = None  # the slug of a single-tenant installation; no rule is asked then
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by blueprint: each value with its default
    needs: Mapping[tuple[str, str], str | None] = field(
        default_factory=dict
    )  # schema the code wants of (blueprint, resource)
    versions: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)  # in their order, of the same
    users: Mapping[str, str | None] = field(
        default_factory=dict
    )  # by blueprint: the resource that holds the users' table
    open_databases: int = 200  # tenant databases that one process keeps open
    busy_seconds: float = 10.0  # how long a request waits where all of them, or all connections, are in use
    pools: Mapping[tuple[str, str], PoolLimits] = field(default_factory=dict)  # of (blueprint, resource) on a server
    shared: Mapping[tuple[str, str], SharedTables] = field(default_factory=dict)  # of (blueprint, resource)
    leak_after: float = 60.0  # seconds after which the log names a session on a server that is still open
    session_seconds: int = 14 * 86400
    events_seconds: int = 180 * 86400  # how long it is kept what happened to users' accounts
    token_seconds: int = 300  # how long an access token of a tenant's holds
    token_audience: str = ""  # whom they are meant for; "": the domain
    pages: bool = False  # whether the pages of tenants' users are answered; else applications bring their own
    brand: Brand = Brand()
    secure_cookies: bool = True
    trusted_proxies: tuple[str, ...] = ()  # whose X-Forwarded-Proto is believed in redirects
    jwt: Jwt | None = None
    snapshot: Path | None = None  # the last known tenants, for when the control database is gone


class Source(Protocol):
    """Where tenants come from: the registry's change feed. Every method raises when the control database is gone."""

    async def load(self) -> Loaded:
        """Everything there is."""
        ...

    def follow(self, since: int) -> AsyncIterator[Changes]:
        """Changes after a number, each soon after it was made; never ends by itself."""
        ...


class SupportDesk(Protocol):
    """What is written down at the platform of what happens at a tenant, support access above all.

    Every method raises when the control database is gone.
    """

    async def note(self, environment: Environment, action: str, by: str, **details: Any) -> None:
        """Enter in the audit log what somebody did at this tenant."""
        ...

    async def take(self, environment: Environment, link: str) -> SupportAccess:
        """Use a link up. Raises `SupportLinkInvalid` for one that opens nothing at this tenant."""
        ...

    async def end(self, environment: Environment, access: str, by: str) -> None:
        """End an access into this tenant."""
        ...

    async def history(self, environment: Environment, limit: int) -> list[SupportAccess]:
        """The accesses into this tenant that were used, newest first."""
        ...

    async def consent(self, environment: Environment) -> datetime | None:
        """Until when this tenant's people let support in."""
        ...

    async def let_in(self, environment: Environment, until: datetime | None, by: str) -> None:
        """Let support in until then, or no more."""
        ...


class SignOnDesk(Protocol):
    """Where people are sent who sign in by their organization, and who comes back."""

    def start(self, environment: Environment, sign_on: SignOn, host: str, root: str, browser: str, back: str) -> str:
        """The address at the platform; `browser` is the hash of what the browser holds, `back` a path to return to."""
        ...

    async def take(self, environment: Environment, code: str, browser: str) -> tuple[Person, str]:
        """Use a code up: who it is, and where she wanted to go. Raises `HandoverWrong`."""
        ...

    async def began(self, environment: Environment, person: Person, outside: str, seconds: int) -> None:
        """Note a session for so many seconds, so that the provider can end it by this name."""
        ...

    def leave(self, sign_on: SignOn) -> str:
        """The address at which somebody signs out of the organization."""
        ...


class Postman(Protocol):
    """Brings letters to tenants' users."""

    @property
    def is_set_up(self) -> bool:
        """Whether mail can be sent at all."""
        ...

    def address(self, environment: Environment) -> str:
        """Where a tenant is reached, as the platform knows it and no request says, without a slash at the end."""
        ...

    async def send(self, environment: Environment, to: str, letter: Note) -> None:
        """Have a letter sent in the tenant's name. Raises `MailFailed` or `RegistryUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Note:
    """What a letter says: paragraphs, and an address to go to."""

    subject: str
    paragraphs: Sequence[str]
    link: str
    action: str  # what following the link does, in two or three words
    kind: str  # which letter it is, as "user.invite"
    until: datetime  # when its link opens nothing any more
    by: str  # who has it sent, for the audit log

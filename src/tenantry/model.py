"""Tenants, environments and their names: the words of the platform and the rules they keep. No input or output."""

from __future__ import annotations

import os
import re
import time
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal

import idna

from tenantry.errors import InvalidHost, InvalidSlug, MoveRefused, PathEscape, ReservedSlug, TenantryError

SLUG_LENGTH: Final = 63
"""A slug is a DNS label: RFC 1035 section 2.3.4 allows 63 octets."""

HOST_LENGTH: Final = 253
"""The longest host name in text (RFC 1035 section 2.3.4, less the root label)."""

NAME_LENGTH: Final = 200
"""The longest name of a tenant, in characters."""

RESERVED: Final = frozenset(
    "about account admin api app assets auth autoconfig autodiscover billing blog cdn console dashboard dev docs "
    "email ftp git help host imap internal localhost login logout mail mx new ns ns1 ns2 pop portal postmaster public "
    "register root sandbox security settings signin signup smtp staging static status support system t tenantry test "
    "webmail webmaster wpad www".split()
)
"""Slugs nobody can take: they clash with services, with paths of the platform, or with names mail and TLS rely on."""

PRODUCTION: Final = "production"
"""The environment that every platform has, unless its blueprints say otherwise."""

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Status(StrEnum):
    """Where a tenant is in its life."""

    CREATING = "creating"
    TRIALING = "trialing"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DESTROYING = "destroying"

    @property
    def served(self) -> bool:
        """Whether requests reach the tenant."""
        return self in (Status.ACTIVE, Status.TRIALING)


MOVES: Final[Mapping[Status, frozenset[Status]]] = MappingProxyType(
    {
        Status.CREATING: frozenset({Status.TRIALING, Status.ACTIVE, Status.DESTROYING}),
        Status.TRIALING: frozenset({Status.ACTIVE, Status.SUSPENDED, Status.DESTROYING}),
        Status.ACTIVE: frozenset({Status.SUSPENDED, Status.DESTROYING}),
        Status.SUSPENDED: frozenset({Status.TRIALING, Status.ACTIVE, Status.DESTROYING}),
        Status.DESTROYING: frozenset(),
    }
)
"""What each status may become. A tenant that is destroyed has no status: it is gone."""


def check_move(slug: str, status: Status, target: Status) -> None:
    """Raise `MoveRefused` unless a tenant of this status may become the target."""
    if target not in MOVES[status]:
        raise MoveRefused(slug=slug, status=status.value, target=target.value)


@dataclass(frozen=True, slots=True)
class SupportAccess:
    """Somebody of the platform looks into a tenant, for a while and for a reason."""

    id: str
    who: str  # as the tenant's people read it
    reason: str
    since: datetime
    until: datetime
    writes: bool  # False: nothing of the tenant's can be changed by it
    used: datetime | None = None  # when its link was followed
    ended: datetime | None = None  # before its time, or when somebody noticed that its time was over


@dataclass(frozen=True, slots=True)
class SignOn:
    """How the people of an organization sign in, at all of its tenants."""

    organization: str  # id
    name: str
    only: bool  # whether passwords open nothing


@dataclass(frozen=True, slots=True)
class KeyTurn:
    """From when on a tenant's tokens are signed with keys of another turn."""

    number: int
    since: int  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody for whom an organization's provider vouches."""

    organization: str  # id
    issuer: str
    subject: str  # the provider's own name for her, which never changes
    mail: str
    name: str
    role: str
    sid: str = ""  # the session at the provider, where it names one


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer of the platform, as every process knows it."""

    id: str  # UUIDv7; the key everywhere, never shown in an address
    slug: str  # the name in addresses; may change
    name: str  # what people read
    blueprint: str
    plan: str | None
    status: Status
    client_id: str = ""  # ten letters and digits, unique, for hostnames that must not tell the slug
    settings: Mapping[str, Any] = field(
        default_factory=lambda: NOTHING
    )  # overrides of the blueprint's values, as the operator set them
    former: tuple[str, ...] = ()  # slugs that lead here since a rename
    support: tuple[SupportAccess, ...] = field(default=(), repr=False)  # not ended; whether their time is over is asked
    sign_on: SignOn | None = None  # where its organization has a provider
    trial: datetime | None = None  # when that ends, while it is tried out
    key_turns: tuple[KeyTurn, ...] = ()  # of its token keys, oldest first; empty: they were never rotated out of turn


@dataclass(frozen=True, slots=True)
class Place:
    """Where one resource of an environment lies. Equal places are shared between tenants, to save memory."""

    name: str  # as the blueprint calls it
    kind: str
    location: str  # file or directory, relative to the environment's home; on a server the database[/prefix of tables]
    version: str | None = None  # newest applied migration, where the kind has a schema
    server: str | None = None  # name of the server it lies on; None: below the data directory
    sealed: bytes = field(default=b"", repr=False)  # the login on that server, sealed with the tenant's data key

    @property
    def database(self) -> str:
        """The database on the server that it lies in."""
        return self.location.partition("/")[0]

    @property
    def prefix(self) -> str:
        """How the names of its tables begin, where it shares the database with others; else empty."""
        return self.location.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Login:
    """The user and password by which one environment reaches its part of a server."""

    user: str
    password: str = field(repr=False)


class ServerState(StrEnum):
    """Whether new tenants are placed on a server, and whether those there are served."""

    OPEN = "open"
    DRAINING = "draining"  # no new tenants; those there are served
    CLOSED = "closed"  # no new tenants, and nobody is served from it: for maintenance


@dataclass(frozen=True, slots=True)
class Server:
    """A server that parts of tenants lie on."""

    name: str
    kind: str  # "postgres", "mysql": what its administration speaks
    address: str  # URL without user and password; its query holds TLS settings
    admin: str = field(default="", repr=False)  # URL with the administrator's login; "" where it is not known
    capacity: int | None = None  # how many resources it takes; None: no limit
    connections: int = 80  # budget of one process over all tenants
    labels: frozenset[str] = frozenset()
    state: ServerState = ServerState.OPEN
    shared: Mapping[str, bytes] = field(default_factory=lambda: NOTHING, repr=False)
    """By database that tenants share: the login applications use there, sealed with the platform key."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One running instance of a tenant: what requests, sessions and resource drivers work on."""

    id: str  # UUIDv7
    name: str  # "production", "dev"
    tenant: Tenant
    home: str  # directory of its own, relative to the platform's data directory
    places: tuple[Place, ...] = ()
    hostnames: tuple[str, ...] = ()  # normalised; the first is the canonical one
    former: tuple[str, ...] = ()  # hostnames that answer with a redirect to the canonical one
    sealed_key: bytes = field(default=b"", repr=False)  # the tenant's data key, sealed by the platform key
    secrets: Mapping[str, Any] = field(default_factory=lambda: NOTHING, repr=False)  # opened for drivers alone
    logins: Mapping[str, Login] = field(default_factory=lambda: NOTHING, repr=False)  # by resource; likewise

    def place(self, name: str) -> Place | None:
        """The place of a resource, or None where the environment has no such resource."""
        return next((place for place in self.places if place.name == name), None)

    @property
    def key(self) -> str:
        """What its rows carry in tables that tenants share: the tenant's id; beside production, the environment's."""
        return self.tenant.id if self.name == PRODUCTION else self.id


@dataclass(frozen=True, slots=True)
class Loaded:
    """All environments of the platform, as they were at change `seq`."""

    seq: int
    environments: Collection[Environment]
    servers: Collection[Server] = ()  # without their administrators' logins


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed up to `seq`: forget everything of these tenants (ids), then take in these environments."""

    seq: int
    tenants: frozenset[str]
    environments: Collection[Environment]
    servers: Collection[Server] | None = None  # all of them, where any changed


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a check found about a resource. A finding that is not `ok` says what to do."""

    resource: str
    ok: bool
    what: str
    remedy: str = ""


ExportForm = Literal["csv", "json"]
"""How exported rows are written."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One table that was written to a file of its own."""

    table: str
    file: str  # its name, or from the directory that was asked for
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a resource takes up."""

    bytes: int = 0
    rows: int = 0
    files: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.bytes + other.bytes, self.rows + other.rows, self.files + other.files)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attack on the isolation that was tried and kept out; its subclasses are those of which that is not so."""

    resource: str
    attack: str  # a name that stays the same from run to run
    evidence: str = ""  # what came of it


@dataclass(frozen=True, slots=True)
class Breach(Attempt):
    """An attack on the isolation that got through."""

    promised: bool = True  # False: this kind never said that it keeps such an attack out


@dataclass(frozen=True, slots=True)
class Untried(Attempt):
    """An attack that could not be tried, and why: it says nothing about the isolation."""


def breaches(attempts: Iterable[Attempt]) -> list[Breach]:
    """The attacks that got through although the kind promises to keep them out."""
    return [one for one in attempts if isinstance(one, Breach) and one.promised]


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration of one resource did."""

    before: str | None
    after: str | None
    applied: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that a migration held."""

    table: str
    mode: str  # as the server calls it
    blocks: str  # what waits for it: "reads and writes", "writes", "changes of the schema", or nothing
    seconds: float  # at most


@dataclass(frozen=True, slots=True)
class Tried:
    """One migration as it went on a scratch copy."""

    version: str
    seconds: float
    locks: tuple[Held, ...] = ()
    rewritten: tuple[str, ...] = ()  # tables that the server wrote anew


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a rehearsal on a scratch copy of one resource found."""

    before: str | None
    target: str | None
    bytes: int = 0  # of the copy
    copying: float = 0.0  # seconds that the copy took
    tried: tuple[Tried, ...] = ()
    failure: TenantryError | None = None  # why the next migration would fail
    tenants: int = 1  # whose rows the copy had
    whole: int = 0  # bytes of what it is a copy of, where it is a part of that

    @property
    def seconds(self) -> float:
        """What all its migrations took together."""
        return sum(one.seconds for one in self.tried)


# --- ids ----------------------------------------------------------------------------------------------------------


def new_id() -> str:
    """A UUIDv7 (RFC 9562 section 5.7): the time first, to a quarter of a microsecond (section 6.2, method 3).

    So ids sort by age, also those that one process makes within a millisecond.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    random = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    value = milliseconds << 80 | 0x7 << 76 | (rest * 4096 // 1_000_000) << 64 | 0b10 << 62 | random
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_CLIENT_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # no characters that look alike


def new_client_id() -> str:
    """Ten random letters and digits, about 49 bits, that can be read out on the telephone."""
    return "".join(_CLIENT_ALPHABET[byte % len(_CLIENT_ALPHABET)] for byte in os.urandom(10))


# --- slugs --------------------------------------------------------------------------------------------------------

_SLUG: Final = re.compile(r"[a-z0-9](?:-?[a-z0-9])*", re.ASCII)


def check_slug(slug: str, reserved: Collection[str] = ()) -> str:
    """The slug itself where it keeps the rules; raises `InvalidSlug` or `ReservedSlug`.

    A slug is one DNS label (RFC 1123 section 2.1): letters a-z, digits and single hyphens. Two hyphens in a row are
    refused, which also keeps out punycode ("xn--").
    """
    reason = _slug_fault(slug)
    if reason:
        raise InvalidSlug(slug=slug[: SLUG_LENGTH + 1], reason=reason)
    if slug in RESERVED or slug in reserved:
        raise ReservedSlug(slug=slug)
    return slug


def _slug_fault(slug: str) -> str | None:
    if not slug:
        return "it is empty"
    if len(slug) > SLUG_LENGTH:
        return f"it is longer than {SLUG_LENGTH} characters"
    if _SLUG.fullmatch(slug):
        return None
    if slug != slug.lower():
        return "it has capital letters"
    if slug[0] == "-" or slug[-1] == "-":
        return "it begins or ends with a hyphen"
    if "--" in slug:
        return "it has two hyphens in a row"
    odd = next(c for c in slug if not (c.isascii() and (c.isalnum() or c == "-")))
    return f"it has the character {odd!r}"


def check_name(name: str) -> str:
    """The name with its outer white space gone; raises `InvalidSlug` for control characters, none or too many."""
    name = unicodedata.normalize("NFC", name).strip()
    if not name:
        raise InvalidSlug("The name is empty.", remedy="Give the tenant a name.")
    if len(name) > NAME_LENGTH:
        raise InvalidSlug(f"The name is longer than {NAME_LENGTH} characters.", remedy="Shorten it.")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise InvalidSlug(f"The name {name!r} has control characters.", remedy="Remove them.")
    return name


# --- hosts --------------------------------------------------------------------------------------------------------

_HOST: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII)
_PORT: Final = re.compile(r":[0-9]{1,5}\Z", re.ASCII)


def normalise_host(host: str) -> str:
    """The one spelling of a host name: lower case, without port and trailing dot, international names in ASCII.

    Raises `InvalidHost` for what is no DNS name (RFC 1123, RFC 5891): so two spellings never lead to two tenants.
    """
    if len(host) > 4 * HOST_LENGTH:
        raise InvalidHost(host=host[:60] + "…", reason="it is too long")
    name = _PORT.sub("", host)
    if name.endswith("."):
        name = name[:-1]
    if not name.isascii():
        name = _to_ascii(name)
    name = name.lower()
    if len(name) > HOST_LENGTH or not _HOST.fullmatch(name):
        raise InvalidHost(host=host[:HOST_LENGTH], reason="it is empty, too long, or has characters no host name has")
    return name


def _to_ascii(name: str) -> str:
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidHost(host=name[:HOST_LENGTH], reason=f"it is no international name ({error})") from error


# --- patterns and values ------------------------------------------------------------------------------------------

LOGIN: Final = "login:"
"""Fields of sealed logins begin so."""


def login_field(environment: Environment, resource: str) -> str:
    """The field under which the login of a resource is sealed: no other environment's opens in its place."""
    return f"{LOGIN}{environment.id}/{resource}"


def shared_login_field(server: str, database: str) -> str:
    """The field under which the login of a shared database is sealed."""
    return f"{LOGIN}{server}/{database}"


_FIELD: Final = re.compile(r"\{([a-z_]+)\}")


def fields_of(pattern: str) -> set[str]:
    """The names between braces in a pattern such as "{slug}.{domain}"."""
    return set(_FIELD.findall(pattern))


def expand(pattern: str, facts: Mapping[str, Any]) -> str:
    """Fill a pattern's `{names}` with facts. Only plain names are filled, so a pattern cannot reach into objects.

    Raises `KeyError` for a name that is no fact.
    """
    return _FIELD.sub(lambda match: str(facts[match[1]]), pattern)


def facts_of(tenant: Tenant, environment: str, domain: str) -> dict[str, Any]:
    """What patterns and templates may name: `FACTS` with their values for one environment."""
    return {
        "id": tenant.id,
        "slug": tenant.slug,
        "name": tenant.name,
        "plan": tenant.plan or "",
        "client_id": tenant.client_id,
        "environment": environment,
        "domain": domain,
    }


FACTS: Final = frozenset({"id", "slug", "name", "plan", "client_id", "environment", "domain"})


def resolve_values(
    declared: Mapping[str, Any], settings: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """A blueprint's values for one tenant: its own settings where it has them, the filled defaults elsewhere."""
    return {
        key: settings.get(key, expand(default, facts) if isinstance(default, str) else default)
        for key, default in declared.items()
    }


# --- paths --------------------------------------------------------------------------------------------------------


def check_path(path: str) -> str:
    """A relative path without '..', empty, absolute or hidden-device parts; raises `PathEscape`.

    This judges the text alone. Whoever opens the file also refuses symbolic links that lead outside.
    """
    if not path or "\0" in path or "\\" in path or path.startswith("/") or len(path) > 1024:
        raise PathEscape(path=path[:200])
    if any(part in ("", ".", "..") or not _nameable(part) for part in path.split("/")):
        raise PathEscape(path=path[:200])
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise PathEscape(path=path[:200])
    return path


def _nameable(part: str) -> bool:
    try:
        return len(part.encode("utf-8", "surrogateescape")) <= 255
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return False


def unique(items: Iterable[str]) -> tuple[str, ...]:
    """The items without repeats, in their first order."""
    return tuple(dict.fromkeys(items))

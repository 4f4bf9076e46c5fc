"""The settings of a platform, their types and defaults. `example.toml` tells what each of them means."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from tenantry import embedded
from tenantry.errors import InvalidHost
from tenantry.model import normalise_host

EMBEDDED: Final = "embedded"
"""What stands for the URL of a control database on the embedded PostgreSQL."""


class Frozen(BaseModel):
    """Settings are read once and never change; an unknown one is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class Short(Frozen):
    """A table that may be written as the value of its main key alone: "x" for {pattern = "x"}."""

    main: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def lengthen(cls, value: Any) -> Any:
        table = isinstance(value, dict | BaseModel) and (
            isinstance(value, BaseModel) or not {"env", "file"} & set(value)
        )
        return value if table else {cls.main: value}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        long = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [long["properties"][cls.main], long]}


# --- kinds of values ----------------------------------------------------------------------------------------------

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", re.ASCII)


def seconds(value: Any) -> Any:
    """A duration such as "5m", "30d" or "250ms", in seconds; a bare number is seconds."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if not match:
        raise ValueError('a duration is a number and a unit: "250ms", "30s", "5m", "12h" or "30d"')
    return float(match[1]) * _UNITS[match[2] or "s"]


Seconds = Annotated[
    float,
    Field(gt=0, allow_inf_nan=False),
    BeforeValidator(seconds, json_schema_input_type=str | float),
]


def sourced(value: Any, info: ValidationInfo) -> Any:
    """The text that {env = "NAME"} or {file = "path"} leads to; the reader of the file says where to look."""
    if isinstance(value, dict):
        if info.context is None or set(value) not in ({"env"}, {"file"}):
            raise ValueError('write {env = "NAME"} or {file = "path"}')
        return info.context.text(value)
    return value


_SOURCE_SCHEMA: Final = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"env": {"type": "string"}, "file": {"type": "string"}},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        },
    ]
}

Secret = Annotated[SecretStr, BeforeValidator(sourced), WithJsonSchema(_SOURCE_SCHEMA)]
Sourced = Annotated[str, BeforeValidator(sourced), WithJsonSchema(_SOURCE_SCHEMA)]


def _domain(value: str) -> str:
    try:
        normal = normalise_host(value)
    except InvalidHost as error:
        raise ValueError(f"it is no host name: {error.details['reason']}") from error
    if ":" in value:
        raise ValueError("a domain has no port")
    return normal


Domain = Annotated[str, AfterValidator(_domain)]


def _resolver(value: str) -> str:
    host, _, port = value.rpartition(":") if value.count(":") == 1 else (value, "", "53")
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError("a name server is an address such as 9.9.9.9 or 127.0.0.1:5353") from error
    if not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("its port is 1 to 65535")
    return value


Resolver = Annotated[str, AfterValidator(_resolver)]


def _schedule(value: str) -> str:
    from cronsim import CronSim, CronSimError

    try:
        CronSim(value, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(f"it is no cron expression such as '0 4 * * 0' ({error})") from error
    return value


Schedule = Annotated[str, AfterValidator(_schedule)]


def _sender(value: str) -> str:
    from email_validator import EmailNotValidError, validate_email

    try:
        validate_email(parseaddr(value)[1], check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError(f"it holds no mail address ({error})") from error
    return value


Sender = Annotated[str, AfterValidator(_sender)]


# --- sections -----------------------------------------------------------------------------------------------------


class Platform(Frozen):
    name: str = Field(default="Tenantry", min_length=1, max_length=200)
    domain: Domain = "localhost"
    data: str = Field(default="var", min_length=1)  # relative to tenantry.toml
    control: Secret | None = None  # SQLAlchemy URL, or "embedded"; read it as `Config.control_url`
    max_tenants: int | None = Field(default=None, ge=1)
    url: str | None = Field(default=None, pattern=r"^https?://[^/\s?#@]+$")  # where its own pages are reached
    reserved: tuple[str, ...] = ()
    mode: Literal["multi-tenant", "single-tenant"] = "multi-tenant"
    tenant: str | None = None  # the slug of a single-tenant installation


class Jwt(Frozen):
    claim: str = Field(default="tenant_id", min_length=1)
    jwks: Sourced = "self"  # a file or https URL with the public keys; "self": tenants' own tokens
    issuer: str | None = None
    audience: str | None = None


class Routing(Frozen):
    by: tuple[Literal["host", "path", "jwt"], ...] = Field(default=("host", "path"), min_length=1)
    path: str = "/t/{slug}/"
    jwt: Jwt = Jwt()
    keep_renamed: Seconds = 30 * 86400.0  # how long an old slug redirects and cannot be taken
    health: str = "/.tenantry/health"


class ServerSpec(Frozen):
    kind: Literal["postgres", "mysql"]
    url: Secret | None = None  # the administrator's; a query such as ?sslmode=verify-full sets TLS
    embedded: bool = False  # the PostgreSQL that Tenantry brings itself, in place of a URL
    capacity: int | None = Field(default=None, ge=0)
    connections: int = Field(default=80, ge=1)  # budget of one process over all tenants
    labels: tuple[str, ...] = ()


class Placement(Frozen):
    policy: Literal["most-room", "round-robin"] = "most-room"


class ResourceSpec(BaseModel):
    """One part of a blueprint. What a kind takes beyond these is checked by its driver and stands in `options`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    kind: str
    backup: bool = True
    server: str | None = None  # the one server it is placed on; otherwise the placement policy chooses
    label: str | None = None  # pattern; only servers with this label are chosen from

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class HostnamePattern(Short):
    main = "pattern"
    pattern: str


class Value(Short):
    """A value of a tenant: "{name}" and such are filled; a secret one is sealed and never shown."""

    main = "default"
    default: Annotated[
        str | int | float | bool,
        BeforeValidator(sourced),
        WithJsonSchema({"anyOf": [*_SOURCE_SCHEMA["anyOf"], {"type": ["number", "boolean"]}]}),
    ] = Field(repr=False)
    secret: bool = False


CountName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Blueprint(Frozen):
    title: str = ""
    extends: str | None = None
    environments: tuple[str, ...] = Field(default=("production",), min_length=1)
    resources: dict[str, ResourceSpec] = {}
    hostnames: dict[str, HostnamePattern] = {}
    values: dict[str, Value] = {}
    counts: dict[CountName, str] = {}  # what statistics count in each tenant's database: a SELECT of one number
    admin: str | None = "admin@{slug}.{domain}"  # the first admin's login; "" or None: no user table is used

    def on(self, base: Blueprint) -> Blueprint:
        """This blueprint with all it takes over from another; what both name, this one says."""
        kept = {key: getattr(base, key) for key in {"environments", "admin"} - self.model_fields_set}
        merged = {
            key: {**getattr(base, key), **getattr(self, key)} for key in ("resources", "hostnames", "values", "counts")
        }
        return self.model_copy(update=kept | merged)


class Plan(Frozen):
    title: str = ""
    quotas: dict[str, str | int] = {}
    features: dict[str, Any] = {}


class Serve(Frozen):
    app: str | None = None  # "package.module:application", the ASGI application behind the tenants
    platform_app: str | None = None  # likewise, for the bare domain
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    patience: Seconds = 10.0  # how long a client may let the server wait
    worker: bool = True  # whether a worker runs beside it


class Api(Frozen):
    token_rate: int = Field(default=1200, ge=0)  # requests a minute of one token, in one process; 0: no limit
    address_rate: int = Field(default=120, ge=0)  # of one address without a valid token
    person_streams: int = Field(default=50, ge=0)  # operations that one person follows at a time; 0: no limit
    address_streams: int = Field(default=200, ge=0)  # that are followed from one address


class Worker(Frozen):
    concurrency: int = Field(default=4, ge=1, le=64)
    heartbeat: Seconds = 0.5
    dead_after: Seconds = 2.0
    overlap: Seconds = 5.0  # how long an old database login holds beside the new one


class Migrate(Frozen):
    parallel: int = Field(default=4, ge=1, le=8)  # tenants at a time on each server
    lock_timeout: Seconds = 3.0  # how long a migration waits for a lock
    statement_timeout: Seconds = 300.0  # how long one of its statements runs
    retries: int = Field(default=5, ge=0, le=100)  # after a lock that was not had in time, a deadlock or the like


class Verify(Frozen):
    schedule: Schedule | None = None  # cron, in UTC: when a worker verifies the isolation
    sample: str = Field(default="10%", pattern=r"^\s*(\d+(\.\d+)?\s*%|[1-9]\d*)\s*$")  # of the tenants, each time
    app: str | None = None  # "package.module:application" with the middleware in it, attacked in place of a plain one


class Look(Frozen):
    name: str | None = Field(default=None, min_length=1, max_length=200)  # None: the platform's
    color: str = Field(default="#1a5fb4", pattern=r"^#[0-9a-fA-F]{6}$")
    logo: str | None = None  # a PNG, JPEG or GIF file, relative to tenantry.toml
    reply_to: Sender | None = None


class Mail(Frozen):
    host: str | None = Field(default=None, min_length=1)  # the SMTP server; without one no mail is sent
    port: int | None = Field(default=None, ge=1, le=65535)
    tls: Literal["starttls", "tls", "off"] = "starttls"
    ca: str | None = None  # relative to tenantry.toml
    user: str | None = None
    password: Secret | None = None
    sender: Sender | None = None
    bounces: str | None = Field(default=None, pattern=r"^\S+:\d{1,5}$")  # where a worker takes in what comes back
    bounce_domain: Domain | None = None  # the domain of the addresses that it comes back to
    look: Look = Look()


class Option(Frozen):
    """A field of the wizard: it fills a value that the blueprint declares."""

    value: str = Field(min_length=1)
    kind: Literal["text", "choice", "number", "yes/no", "color"] = "text"
    label: str = ""
    help: str = ""
    options: tuple[str, ...] = ()  # of a choice
    required: bool = False

    @property
    def shown(self) -> str:
        """What stands before it."""
        return self.label or self.value.replace("_", " ").capitalize()


class Step(Frozen):
    """A step of the wizard."""

    title: str = Field(min_length=1, max_length=100)
    text: str = ""
    fields: tuple[Option, ...] = Field(min_length=1)


class SignUp(Frozen):
    open: bool = False
    invite_only: bool = False  # an admin's invitation is needed
    also_at: str | None = Field(default=None, pattern=r"^/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-]$")
    blueprint: str | None = None  # None: the first
    plan: str | None = None
    verify_mail: bool = True
    hold: Seconds = 3600.0  # how long a name is held for somebody who has not confirmed yet
    terms: str | None = Field(default=None, pattern=r"^(https?:/)?/\S+$")  # where they are read
    terms_version: str = Field(default="1", min_length=1, max_length=40)
    trial: Seconds | None = None  # None: active at once
    remind: tuple[Seconds, ...] = (3 * 86400.0, 86400.0)  # before a trial ends
    delete_after: Seconds | None = None  # since a trial ended; None: never
    disposable: bool = False  # whether addresses of throw-away mail services are taken
    per_address: int = Field(default=10, ge=0)  # sign-ups a day from one address; 0: no limit
    per_domain: int = Field(default=100, ge=0)  # likewise, of one mail domain
    work: int = Field(default=14, ge=0, le=24)  # bits of the proof of work; 0: none is asked for
    wizard: tuple[Step, ...] | None = None


class Payment(Frozen):
    secret: Secret | None = None  # of Standard Webhooks
    stripe_secret: Secret | None = None


class Support(Frozen):
    allowed: bool = True  # whether the platform's people may look into tenants at all
    consent: bool = False  # whether the tenant's own people have to let them in first
    longest: Seconds = 8 * 3600.0


class SingleSignOn(Frozen):
    resolvers: tuple[Resolver, ...] = ()  # name servers that are asked for TXT records; none: the system's own


class Users(Frozen):
    pages: bool = True  # whether the middleware answers the pages of tenants' users, below /.tenantry/
    color: str | None = Field(default=None, min_length=1)  # the value of a tenant's that holds its color
    logo: str | None = Field(default=None, min_length=1)  # likewise its logo
    events: Annotated[Seconds, Field(ge=86400)] = 180 * 86400.0  # how long it is kept what happened to their accounts


class Runtime(Frozen):
    open_databases: int = Field(default=200, ge=1)  # tenant databases kept open by one process
    session: Seconds = 14 * 86400.0  # how long a sign-in holds
    token: Annotated[Seconds, Field(ge=30, le=86400)] = 300.0  # how long an access token for a tenant's API holds
    secure_cookies: bool = True
    leak_after: Seconds = 60.0  # when the log names a session on a server that is still open


class Config(Frozen):
    """A platform as its `tenantry.toml` describes it. `load` makes one; it never changes."""

    platform: Platform = Platform()
    routing: Routing = Routing()
    servers: dict[str, ServerSpec] = {}
    placement: Placement = Placement()
    blueprints: dict[str, Blueprint] = Field(min_length=1)
    plans: dict[str, Plan] = {}
    serve: Serve = Serve()
    api: Api = Api()
    worker: Worker = Worker()
    migrate: Migrate = Migrate()
    runtime: Runtime = Runtime()
    verify: Verify = Verify()
    mail: Mail = Mail()
    signup: SignUp = SignUp()
    payment: Payment = Payment()
    users: Users = Users()
    support: Support = Support()
    sso: SingleSignOn = SingleSignOn()
    root: Path = Field(default=Path(), exclude=True)  # the directory of tenantry.toml

    _origins: dict[tuple[str | int, ...], str] = PrivateAttr(default_factory=dict)

    def remember(self, origins: Mapping[tuple[str | int, ...], str]) -> None:
        """Keep where each setting was written."""
        self._origins.update(origins)

    def origin(self, key: Sequence[str]) -> str:
        """Where a setting, or what it stands in, was written; "default" where it was not."""
        ends = (self._origins.get(tuple(key[:end])) for end in range(len(key), 0, -1))
        return next((found for found in ends if found), "default")

    @property
    def data(self) -> Path:
        """The absolute directory below which everything of the platform lies."""
        return (self.root / self.platform.data).resolve()

    @property
    def url(self) -> str:
        """Where the platform's own pages are reached, without a slash at the end."""
        if self.platform.url is not None:
            return self.platform.url
        here = self.platform.domain in ("localhost", "127.0.0.1")
        return f"http://{self.platform.domain}:{self.serve.port}" if here else f"https://{self.platform.domain}"

    @property
    def portal(self) -> str:
        """The address of the admin portal, without a slash at the end."""
        return f"{self.url}/admin"

    def address(self, slug: str, host: str | None) -> str:
        """Where a tenant is reached, without a slash at the end: its own name where it has one, else its path."""
        scheme, _, platform = self.url.partition("://")
        port = platform.rpartition(":")[2] if ":" in platform else ""
        if host is not None and "host" in self.routing.by:
            return f"{scheme}://{host}{f':{port}' if port else ''}"
        return self.url + self.routing.path.format(slug=slug).rstrip("/")

    @property
    def control_url(self) -> str:
        """The SQLAlchemy URL of the control database. It may hold a password: never print it."""
        if self.platform.control is None:
            return f"sqlite:///{self.data / 'control.sqlite'}"
        control = self.platform.control.get_secret_value()
        return embedded.control_url(self.data) if control == EMBEDDED else control

    @property
    def wants_embedded(self) -> bool:
        """Whether anything of the platform lies on the embedded PostgreSQL."""
        control = self.platform.control
        return (control is not None and control.get_secret_value() == EMBEDDED) or any(
            server.embedded for server in self.servers.values()
        )

    def whole(self, name: str, above: frozenset[str] = frozenset()) -> Blueprint:
        """A blueprint with all it takes over from others. Raises `KeyError` for an unknown one or a circle."""
        if name in above:
            raise KeyError(name)
        own = self.blueprints[name]
        return own.on(self.whole(own.extends, above | {name})) if own.extends else own

    def extended(self) -> Config:
        """This configuration with every blueprint whole. Raises `KeyError` as `whole` does."""
        return self.model_copy(update={"blueprints": {name: self.whole(name) for name in self.blueprints}})

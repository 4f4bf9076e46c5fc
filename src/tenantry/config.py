"""`tenantry.toml` as a frozen `Config`, and every fault in it with its line, its value and what to do."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tenantry.errors import ConfigMissing

FILE: Final = "tenantry.toml"


class Frozen(BaseModel):
    """Settings are read once and never change; an unknown one is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "ms": 0.001}


def seconds(value: Any) -> Any:
    """A duration such as "5m", "30d" or "250ms", in seconds."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", value.strip())):
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, str):
        raise ValueError('a duration is a number and a unit: "250ms", "30s", "5m", "12h" or "30d"')
    return value


Seconds = Annotated[float, BeforeValidator(seconds)]


class Platform(Frozen):
    name: str = "Tenantry"
    domain: str = "localhost"  # tenants live at <slug>.<domain>
    data: str = "var"  # relative to tenantry.toml
    control: str | None = None  # SQLAlchemy-style URL of the control database; None: SQLite below data
    max_tenants: int | None = Field(default=None, ge=1)
    reserved: tuple[str, ...] = ()
    mode: Literal["multi-tenant", "single-tenant"] = "multi-tenant"
    tenant: str | None = None  # the slug of a single-tenant installation


class Jwt(Frozen):
    claim: str = "tenant_id"
    jwks: str = "self"  # a file or https URL with the public keys; "self": the platform's own key
    issuer: str | None = None
    audience: str | None = None


class Routing(Frozen):
    by: tuple[Literal["host", "path", "jwt"], ...] = ("host", "path")
    path: str = "/t/{slug}/"
    jwt: Jwt = Jwt()
    keep_renamed: Seconds = 30 * 86400.0  # how long an old slug redirects and cannot be taken
    health: str = "/.tenantry/health"


class ResourceSpec(BaseModel):
    """One part of a blueprint. What a kind takes beyond these is checked by its driver and stands in `options`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    kind: str
    backup: bool = True

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class HostnamePattern(Frozen):
    pattern: str


class Value(Frozen):
    """A value of a tenant: "{name}" and such are filled; a secret one is sealed and never shown."""

    default: str | int | float | bool
    secret: bool = False


class Blueprint(Frozen):
    title: str = ""
    extends: str | None = None
    environments: tuple[str, ...] = ("production",)
    resources: dict[str, ResourceSpec] = {}
    hostnames: dict[str, HostnamePattern] = {}
    values: dict[str, Value] = {}
    admin: str | None = "admin@{slug}.{domain}"  # the first admin's login; None: no user table is used


class Plan(Frozen):
    title: str = ""
    quotas: dict[str, str | int] = {}
    features: dict[str, Any] = {}


class Serve(Frozen):
    app: str | None = None  # "package.module:application", the ASGI application behind the tenants
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")


class Worker(Frozen):
    concurrency: int = Field(default=4, ge=1, le=64)
    heartbeat: Seconds = 0.5
    dead_after: Seconds = 2.0


class Runtime(Frozen):
    open_databases: int = Field(default=200, ge=1)  # tenant databases kept open by one process
    session: Seconds = 14 * 86400.0  # how long a sign-in holds
    secure_cookies: bool = True


class Config(Frozen):
    platform: Platform = Platform()
    routing: Routing = Routing()
    blueprints: dict[str, Blueprint]
    plans: dict[str, Plan] = {}
    serve: Serve = Serve()
    worker: Worker = Worker()
    runtime: Runtime = Runtime()
    root: Path = Field(default=Path(), exclude=True)  # the directory of tenantry.toml

    @property
    def data(self) -> Path:
        """The absolute directory below which everything of the platform lies."""
        return (self.root / self.platform.data).resolve()


def load(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read tenantry.toml. Raises `ConfigMissing`, or `ConfigError` with all faults."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigMissing(path=path) from error
    return Config.model_validate({**document, "root": path.parent.resolve()})


def secret_key(environ: Mapping[str, str] | None = None) -> str:
    """The platform key, 64 hex digits, from TENANTRY_SECRET_KEY."""
    return (environ or os.environ).get("TENANTRY_SECRET_KEY", "")

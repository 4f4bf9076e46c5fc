"""What the platform tells of tenants, and what it is told of those to be adopted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tenantry.model import Environment, Finding, Tenant
from tenantry.registry import journal
from tenantry.registry.letters import Hold
from tenantry.registry.tenants import HostnameRow, TenantRow


@dataclass(frozen=True, slots=True)
class Credentials:
    """The first admin's login and password, shown once."""

    login: str
    password: str


@dataclass(frozen=True, slots=True)
class DatabaseLogin:
    """How a tenant reaches its part of a server."""

    environment: str
    resource: str
    server: str
    database: str
    user: str
    password: str
    prefix: str = ""  # of its tables, where it shares the database


@dataclass(frozen=True, slots=True)
class TurnedKeys:
    """From when on other keys sign a tenant's tokens, and until when the ones before are believed."""

    since: datetime
    until: datetime | None  # None: no more


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a tenant takes up, over all its environments and resources, and what of it could not be measured."""

    bytes: int
    rows: int
    files: int
    unmeasured: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What an operation is going to do."""

    name: str
    kind: str
    detail: str
    caveat: str = ""  # what the isolation of this part does not promise


@dataclass(frozen=True, slots=True)
class Source:
    """What is there already and is to be adopted: a database on a server, or a file."""

    resource: str  # the part of the blueprint it becomes
    version: str | None  # the migration it stands at; "none" before the first
    server: str | None = None
    database: str | None = None
    file: Path | None = None
    move: bool = False  # whether the file is removed when the tenant is live
    environment: str | None = None  # the one it becomes; None: the first


@dataclass(frozen=True, slots=True)
class TenantDetails:
    """A tenant with its parts."""

    row: TenantRow
    tenant: Tenant
    environments: list[Environment]
    hostnames: list[HostnameRow]
    operations: list[journal.Operation]
    credentials_wait: bool  # whether the first admin's password was not shown yet
    users: Mapping[str, str]  # "environment/resource" → the user by which it reaches its server
    organization: str | None = None  # its name
    held: Hold | None = None  # why no mail is sent to its admins
    trial: datetime | None = None  # until when it is tried out, or was

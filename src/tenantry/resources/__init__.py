"""The parts an environment owns: databases, directories, rendered files. One contract, one dispatcher, a file per kind.

resource = build("db", config.blueprints["site"].resources["db"], setting)
await resource.create(environment)
assert all(finding.ok for finding in await resource.check(environment))
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from tenantry.config import Frozen, ResourceSpec
from tenantry.errors import ConfigError, MigrationInvalid, ResourceError, TenantryError, UnknownKind
from tenantry.model import (
    Attempt,
    Environment,
    Exported,
    ExportForm,
    Finding,
    Login,
    Migrated,
    Place,
    Rehearsed,
    Server,
    Usage,
)
from tenantry.resources import schema
from tenantry.resources.limits import DEFAULT, Limits
from tenantry.resources.servers import Servers

if TYPE_CHECKING:
    from tenantry.resources.scratch import Scratch

__all__ = ["PARALLEL", "Limits", "Phase", "Resource", "Servers", "Setting", "build", "kinds", "options"]

GROUP: Final = "tenantry.resources"
PARALLEL: Final = 8
"""The most environments one bulk call works on at a time."""

log: Final = logging.getLogger("tenantry.resources")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)

T = TypeVar("T")
Phase: TypeAlias = Literal["pre", "post"]
"""Which part of an update without downtime: what the old code bears, and what only the new code does."""

Answer: TypeAlias = Awaitable[T] | T
"""What an underscored method gives: drivers write it as a plain function (run in a thread) or as a coroutine."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a driver knows of the platform and the blueprint, beside its own options."""

    blueprint: str  # name of the blueprint
    root: Path  # directory of tenantry.toml; schema, seed, templates and overrides are relative to it
    data: Path  # absolute data directory; an environment's home is relative to it
    domain: str = "localhost"  # platform.domain
    values: Mapping[str, Any] = field(default_factory=dict)  # declared values: name -> default, secret ones too
    secret_values: frozenset[str] = frozenset()  # names of the secret ones
    users: bool = False  # whether this resource carries the users' tables (tenantry.users)
    servers: Servers = field(default_factory=Servers)  # those this process knows, kept current by whoever knows them
    server_kinds: Mapping[str, str] = field(default_factory=dict)  # of the servers that tenantry.toml declares
    limits: Limits = DEFAULT  # of migrations
    platform: str = ""  # what tells this platform from others that share a server; empty: its data directory

    @property
    def templates(self) -> Path:
        """Where golden templates lie."""
        return self.data / "templates"


class Resource(ABC):
    """One part of a blueprint: the contract of all kinds, and the one place that calls their drivers.

    A driver implements the underscored methods only, each as a plain function or as a coroutine. Whatever it raises of
    `faults` becomes a `ResourceError` that names kind, resource, tenant and reason. All verbs are idempotent.
    """

    kind: ClassVar[str]
    Options: ClassVar[type[BaseModel]] = Frozen
    has_schema: ClassVar[bool] = False
    has_users: ClassVar[bool] = False
    server_kind: ClassVar[str | None] = None  # the kind of server it lies on; None: below the data directory
    shared: ClassVar[bool] = False  # all tenants lie in one database there, which is entered by one login
    caveat: ClassVar[str] = ""  # what its isolation does not promise, said wherever a tenant is about to get one
    takes_file: ClassVar[bool] = False  # whether it can be adopted from a file
    follows_tenant: ClassVar[bool] = False  # made of the tenant's names and values, so made anew when those change
    faults: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    def __init__(self, name: str, options: Any, setting: Setting) -> None:
        self.name = name
        self.options = options
        self.setting = setting
        self.location = self._location()
        self.released: str | None = None  # the version the fleet was brought to; None where no `post` waits for it

    # --- life ---

    async def exists(self, env: Environment) -> bool:
        """Whether anything of this resource is there."""
        return await self._call(env, "exists", self._exists)

    async def create(self, env: Environment) -> None:
        """Make it, or bring the one that is there up to `golden`; it appears whole or not at all."""
        await self._call(env, "create", self._create)

    async def check(self, env: Environment) -> list[Finding]:
        """What is found about it: whether it is there, sound and as declared; at least one finding."""
        try:
            if await self.exists(env):
                return await self._call(env, "check", self._check)
        except TenantryError as error:  # a check that breaks is a finding, so that the others are still made
            return [Finding(self.name, False, error.message, error.hint)]
        remedy = "Put it back from a backup."
        return [Finding(self.name, False, f"{self.kind} {self.locate(env)} is missing", remedy)]

    async def measure(self, env: Environment) -> Usage:
        """What it takes up now, in bytes, rows and files."""
        return await self._call(env, "measure", self._measure)

    async def dump(self, env: Environment, into: Path) -> None:
        """Write a consistent copy to `into / name`, while it is in use; the directory `into` is made where missing."""
        await self._call(env, "dump", self._dump, into)

    async def load(self, env: Environment, source: Path) -> None:
        """Replace it by the copy that `dump` wrote to `source / name`; a failed load leaves what was there."""
        await self._call(env, "load", self._load, source)

    async def export(self, env: Environment, into: Path, form: ExportForm) -> list[Exported]:
        """Write its rows as of one moment to files for other programs, in the new directory `into / name`."""
        return await self._call(env, "export", self._export, into, form)

    @property
    def can_export(self) -> bool:
        """Whether this kind writes files for other programs."""
        return type(self)._export is not Resource._export

    async def attack(self, env: Environment, other: Environment) -> list[Attempt]:
        """Try to cross from one environment into another; everything that was tried, and what came of it.

        What gets through is a `Breach`, what could not be tried an `Untried`; nothing is left changed.
        """
        return list(await self._call(env, "attack", self._attack, other))

    async def plant(self, env: Environment, canary: str) -> None:
        """Put a canary, a text found nowhere else, among the environment's data, in place of one that is there."""
        await self._call(env, "plant", self._plant, canary)

    @property
    def plants(self) -> bool:
        """Whether canaries can be planted in this kind, which then is searched for its own one as well."""
        return type(self)._plant is not Resource._plant

    async def seek(self, env: Environment, trace: str) -> list[str]:
        """The canaries that begin with `trace` and are seen from this environment, its own too."""
        return list(await self._call(env, "seek", self._seek, trace))

    async def uproot(self, env: Environment) -> None:
        """Remove the canary; nothing where there is none."""
        await self._call(env, "uproot", self._uproot)

    async def drop(self, env: Environment) -> None:
        """Remove it with everything beside it; afterwards `exists` is False."""
        await self._call(env, "drop", self._drop)

    def place(self, env: Environment, version: str | None = None) -> Place:
        """Where it lies, as the registry records it."""
        return Place(self.name, self.kind, self.locate(env), version)

    def locate(self, env: Environment) -> str:
        """Its location relative to the environment's home; absolute where a blueprint puts it elsewhere."""
        return self.location

    # --- on servers ---

    def names(self, env: Environment) -> tuple[str, str]:
        """The first choice of a name on a server, and one that nobody else has."""
        raise TypeError(f"{self.kind} lies on no server")

    def new_login(self, env: Environment, *, apart: bool = False) -> Login:
        """Fresh credentials: for an environment that is not made yet, or to take the place of those it has.

        With `apart` the user is called as nobody else is, whatever the database is called.
        """
        raise TypeError(f"{self.kind} lies on no server")

    async def admit(self, env: Environment, login: Login) -> None:
        """Let an environment in by these credentials too, beside those it has. Idempotent."""
        await self._call(env, "admit", self._admit, login)

    async def expel(self, env: Environment, user: str) -> None:
        """Let nobody in as this user any more, and end its connections. Idempotent."""
        await self._call(env, "expel", self._expel, user)

    async def survey(self, env: Environment, version: str | None, source: Path | None = None) -> list[Finding]:
        """How what `adopt` is to take over differs from what the blueprint makes at this version. Changes nothing.

        Raises `MigrationInvalid` where its own records say another version, `ResourceError` where it is not there.
        """
        return await self._call(env, "survey", self._survey, version, *self._from(env, source))

    async def adopt(self, env: Environment, version: str | None, source: Path | None = None) -> None:
        """Make the database that is there already, under the place's name, the environment's own, at this version.

        Its data stay; it gets the environment's login, and nobody else's. `release` takes it back. Idempotent. Kinds
        that lie in files take a copy of the file `source`, which stays as it is.
        """
        await self._call(env, "adopt", self._adopt, version, *self._from(env, source))

    def _from(self, env: Environment, source: Path | None) -> tuple[Path, ...]:
        if source is not None and not self.takes_file:
            raise self._error(env, f"a {self.kind} is not adopted from a file")
        return () if source is None else (source,)

    async def release(self, env: Environment) -> None:
        """Undo `adopt`: the database stays, without the environment's login, as it was before."""
        await self._call(env, "release", self._release)

    @property
    def shared_database(self) -> str:
        """The database that all tenants lie in, on whatever server; empty where each has one, or servers differ."""
        return ""

    async def weaknesses(self, server: Server, login: Login) -> list[Finding]:
        """What does not keep tenants apart in the database that they share on a server, as its login finds it.

        Empty where all is well, for kinds that no policies guard, and where nobody is let in to look.
        """
        return await asyncio.to_thread(self._weaknesses, server, login)

    @classmethod
    async def probe(cls, server: Server) -> list[Finding]:
        """What an administrator must know of a server: reachable, version, privileges, TLS, room; never raises.

        At least one finding, each with the server's name as `resource`, and what grants a missing privilege as remedy.
        """
        if inspect.iscoroutinefunction(cls._probe):
            return await cls._probe(server)  # type: ignore[no-any-return]
        return await asyncio.to_thread(cls._probe, server)  # type: ignore[arg-type]

    async def refill(self) -> int:
        """Make warm spares where the blueprint wants more than there are; how many were made."""
        return await self._common("refill", self._refill)

    # --- schema and users ---

    async def version(self, env: Environment) -> str | None:
        """The newest migration applied to it, asked of the thing itself."""
        return await self._call(env, "version", self._version) if self.has_schema else None

    async def migrate(self, env: Environment, to: str | None = None) -> Migrated:
        """Bring it to a version, up or down; None is the newest. A migration that fails is rolled back wholly.

        Raises `MigrationError` that names the migration, `MigrationInvalid` for unknown versions and changed files.
        """
        target = await asyncio.to_thread(self._target, to)
        return await self._call(env, "migrate", self._migrate, target)

    def versions(self) -> tuple[str, ...]:
        """All versions the blueprint declares, oldest first."""
        return ()

    @property
    def newest(self) -> str | None:
        """The newest version that the blueprint declares; None without a schema."""
        versions = self.versions()
        return versions[-1] if versions else None

    @property
    def golden(self) -> str | None:
        """The version `create` makes: the newest, but no `post` migration that the fleet has not been brought to."""
        versions = self.versions()
        return self.target("pre", self.released) if self.released in versions else self.newest

    def further(self, version: str | None) -> str | None:
        """`golden`, or this version where it is further: what is there is never taken back."""
        golden, versions = self.golden, self.versions()
        return version if version in versions and versions.index(version) > versions.index(str(golden)) else golden

    def posts(self) -> frozenset[str]:
        """Those of its versions that only new code bears: the ones of the phase `post`."""
        return frozenset()

    @property
    def needs(self) -> str | None:
        """The version that this code needs at least: the newest of the phase `pre`; None where all are `post`."""
        posts = self.posts()
        return next((version for version in reversed(self.versions()) if version not in posts), None)

    def target(self, phase: Phase | None = None, version: str | None = None) -> str | None:
        """The version to which a run brings an environment that is at `version`; that one where nothing is to be done.

        `pre` goes up to the last migration before the first pending `post`; `post` and None go to the newest. Raises
        `MigrationInvalid` for a version that is not declared.
        """
        if phase != "pre":
            return self.newest
        posts = self.posts()
        first = takewhile(lambda one: one not in posts, self.pending(version))
        return [version, *first][-1]

    def pending(self, version: str | None) -> tuple[str, ...]:
        """The versions after this one. Raises `MigrationInvalid` for one that is not declared."""
        versions = self.versions()
        if version is None:
            return versions
        return versions[versions.index(self._known(version, versions)) + 1 :]

    async def enrol(self, env: Environment, login: str, password_hash: str, role: str, name: str = "") -> None:
        """Add a user, or give the one of this login a new password hash and role and end all sessions of theirs."""
        if not (self.has_users and self.setting.users):
            raise self._error(env, "it carries no users' table")
        await self._call(env, "enrol", self._enrol, login, password_hash, role, name)

    # --- rehearsals and drift ---

    @property
    def can_rehearse(self) -> bool:
        """Whether this kind can make scratch copies."""
        return type(self)._copied is not Resource._copied

    @property
    def can_compare(self) -> bool:
        """Whether this kind can tell what it is made of."""
        return type(self)._shape is not Resource._shape

    async def weigh_many(self, envs: Sequence[Environment], parallel: int = 2) -> list[int | TenantryError]:
        """How many bytes each takes up, asked in the quickest way; one that cannot be asked has its error there."""
        return await self._many([(env,) for env in envs], "weigh", self._weigh, parallel)

    async def rehearse(
        self, env: Environment, to: str | None, room: int, others: Sequence[Environment] = ()
    ) -> Rehearsed:
        """Migrate a scratch copy, which is gone afterwards; the environment's own is only read, as by a backup.

        `others` share its tables: of shared tables as many tenants' rows are copied, in this order, as there is room
        for. `room` is how many bytes the copy may come to; `scratch.need` tells a good number. A migration that fails
        is told in the answer. Raises `NoRoom`, and `ResourceError` where no copy can be made.
        """
        target = await asyncio.to_thread(self._target, to)
        return await self._call(env, "rehearse", self._rehearse, target, room, others)

    async def shapes(
        self, envs: Sequence[Environment], parallel: int = 2
    ) -> list[tuple[str | None, Mapping[str, str]] | TenantryError]:
        """For each its version and what it is made of: every thing by its name, told apart by its definition."""
        return await self._many([(env,) for env in envs], "look at", self._shape, parallel)

    async def declared(self, env: Environment, version: str | None) -> Mapping[str, str]:
        """What a new one at this version would be made of, on the server where the environment's lies."""
        return await self._call(env, "look up", self._declared_shape, version)

    async def mend(self, env: Environment, version: str | None) -> tuple[str, ...]:
        """Statements that make it what a new one at this version would be; none of them is run."""
        return await self._call(env, "compare", self._mend, version)

    # --- for all environments at once ---

    async def prepare(self) -> str | None:
        """Make what every `create` builds on, such as a golden template, and return its version, `golden`.

        Several processes may do so at once. Raises `MigrationInvalid`, `MigrationError` or `ConfigError`.
        """
        return await self._common("prepare", self._prepare)

    async def tidy(self) -> list[str]:
        """Remove what killed processes and older blueprints left behind; returns the paths, relative to the data."""
        return await self._common("tidy", self._tidy)

    async def create_many(self, envs: Sequence[Environment], parallel: int = 2) -> list[TenantryError | None]:
        """`create` for a batch, in order; an environment that fails has its error in its place."""
        return await self._many([(env,) for env in envs], "create", self._create, parallel)

    async def migrate_many(
        self, envs: Sequence[Environment], to: str | None = None, parallel: int = 2
    ) -> list[Migrated | TenantryError]:
        """`migrate` for a batch, in order; an environment that fails has its error in its place."""
        with schema.held():
            target = await asyncio.to_thread(self._target, to)
            return await self._many([(env, target) for env in envs], "migrate", self._migrate, parallel)

    async def enrol_many(
        self, users: Sequence[tuple[Environment, str, str, str, str]], parallel: int = 2
    ) -> list[TenantryError | None]:
        """`enrol` for a batch of (environment, login, password hash, role, name), in order; a failure stands there."""
        if not (self.has_users and self.setting.users):
            raise self._error(None, "it carries no users' table")
        return await self._many(users, "enrol", self._enrol, parallel)

    # --- dispatch ---

    async def _call(self, env: Environment, verb: str, method: Callable[..., Answer[T]], *args: Any) -> T:
        with self._told(env, verb):
            if inspect.iscoroutinefunction(method):
                return await method(env, *args)  # type: ignore[no-any-return]
            return await asyncio.to_thread(method, env, *args)  # type: ignore[arg-type]

    async def _common(self, verb: str, method: Callable[[], Answer[T]]) -> T:
        with self._told(None, verb):
            if inspect.iscoroutinefunction(method):
                return await method()  # type: ignore[no-any-return]
            return await asyncio.to_thread(method)  # type: ignore[arg-type]

    async def _many(
        self, calls: Sequence[tuple[Any, ...]], verb: str, method: Callable[..., Answer[T]], parallel: int
    ) -> list[T | TenantryError]:
        """So many hands, each with one hop to a thread, take what is next until nothing is left."""
        done: list[Any] = [None] * len(calls)
        left = deque(enumerate(calls))  # taking from it is atomic
        hands = max(1, min(parallel, PARALLEL, len(calls)))
        await asyncio.gather(*(self._work_off(left, done, verb, method) for _ in range(hands)))
        return done

    async def _work_off(
        self, left: deque[tuple[int, tuple[Any, ...]]], done: list[Any], verb: str, method: Callable[..., Any]
    ) -> None:
        if inspect.iscoroutinefunction(method):
            for number, call in _taken(left):
                done[number] = await self._settled(call, verb, method)
            return

        def settle() -> None:
            for number, call in _taken(left):
                done[number] = self._settle(call, verb, method)

        await asyncio.to_thread(settle)

    async def _settled(self, call: tuple[Any, ...], verb: str, method: Callable[..., Any]) -> Any:
        try:
            with self._told(call[0], verb):
                return await method(*call)
        except TenantryError as error:
            return error

    def _settle(self, call: tuple[Any, ...], verb: str, method: Callable[..., Any]) -> Any:
        try:
            with self._told(call[0], verb):
                return method(*call)
        except TenantryError as error:
            return error

    @contextmanager
    def _told(self, env: Environment | None, verb: str) -> Iterator[None]:
        """Log one call and turn a driver's stray error into one that names what it happened to."""
        start = time.perf_counter()
        try:
            yield
        except self.faults as error:
            raise self._error(env, f"{verb} failed, {_reason(error)}") from error
        finally:
            if log.isEnabledFor(logging.DEBUG):
                slug = env.tenant.slug if env else "-"
                log.debug("%s %s %s %s %.1f ms", verb, self.kind, self.name, slug, 1e3 * (time.perf_counter() - start))

    def _error(self, env: Environment | None, reason: str) -> ResourceError:
        """A `ResourceError` about this resource of this environment, or of the whole blueprint."""
        tenant = env.tenant.slug if env else self.setting.blueprint
        return ResourceError(kind=self.kind, resource=self.name, tenant=tenant, reason=reason)

    def _target(self, to: str | None) -> str | None:
        versions = self.versions()
        return (versions[-1] if versions else None) if to is None else self._known(to, versions)

    def _known(self, version: str, versions: tuple[str, ...]) -> str:
        if version in versions:
            return version
        newest = f"the newest is {versions[-1]}" if versions else "there are none"
        raise MigrationInvalid(
            path=f"{self.setting.blueprint}.{self.name}",
            reason=f"there is no migration '{version}'; {newest}",
            remedy="Name a declared version, or bring back the file it was made by.",
        )

    def _declared(self, option: str, value: str, *, directory: bool = False) -> Path:
        """What an option names, relative to tenantry.toml. Raises `ConfigError` where it is missing."""
        path = self.setting.root / value
        if path.is_dir() if directory else path.is_file():
            return path
        where = f"blueprints.{self.setting.blueprint}.resources.{self.name}.{option}"
        what = "directory" if directory else "file"
        raise ConfigError(where=where, reason=f"there is no {what} {value!r} beside tenantry.toml")

    # --- what drivers implement ---

    def _location(self) -> str:
        return self.name

    @classmethod
    def suited(cls, spec: ResourceSpec, options: Any, setting: Setting) -> type[Resource]:
        """The driver itself; or, where a kind lies on servers of several kinds, its form for the one that is meant.

        Raises `ConfigError` where that cannot be told.
        """
        return cls

    @abstractmethod
    def _exists(self, env: Environment) -> Answer[bool]:
        """Whether it is there."""

    @abstractmethod
    def _create(self, env: Environment) -> Answer[None]:
        """Make it, whole or not at all; nothing where it is there."""

    @abstractmethod
    def _check(self, env: Environment) -> Answer[list[Finding]]:
        """What is as declared, and what is not."""

    @abstractmethod
    def _measure(self, env: Environment) -> Answer[Usage]:
        """What it takes up."""

    @abstractmethod
    def _dump(self, env: Environment, into: Path) -> Answer[None]:
        """Copy it, as of one moment."""

    @abstractmethod
    def _load(self, env: Environment, source: Path) -> Answer[None]:
        """Put a copy in its place, whole or not at all."""

    @abstractmethod
    def _attack(self, env: Environment, other: Environment) -> Answer[Sequence[Attempt]]:
        """Try to reach the other environment's from this one; all that was tried."""

    @abstractmethod
    def _drop(self, env: Environment) -> Answer[None]:
        """Remove it; nothing where it is gone."""

    def _plant(self, env: Environment, canary: str) -> Answer[None]:
        return None  # kinds that hold no data of their own plant nothing: they are searched only

    def _seek(self, env: Environment, trace: str) -> Answer[Sequence[str]]:
        return ()

    def _uproot(self, env: Environment) -> Answer[None]:
        return None

    def _version(self, env: Environment) -> Answer[str | None]:
        return None

    def _migrate(self, env: Environment, to: str | None) -> Answer[Migrated]:
        return Migrated(None, None)

    def _weigh(self, env: Environment) -> Answer[int]:
        raise self._error(env, f"a {self.kind} cannot be rehearsed")

    def _copied(self, env: Environment, room: int) -> AbstractContextManager[Scratch]:
        """A copy for the time of a block. Kinds that have one have plain functions `_version` and `_migrate`."""
        raise self._error(env, f"a {self.kind} cannot be rehearsed")

    def _rehearse(self, env: Environment, to: str | None, room: int, others: Sequence[Environment]) -> Rehearsed:
        from tenantry.resources import scratch

        version: Any = self._version
        migrate: Any = self._migrate
        with self._copied(env, room) as copy:
            before = version(copy.env)
            return scratch.through(copy, before, to, scratch.path(self.versions(), before, to), migrate)

    def _shape(self, env: Environment) -> Answer[tuple[str | None, Mapping[str, str]]]:
        raise self._error(env, f"a {self.kind} has no schema to compare")

    def _declared_shape(self, env: Environment, version: str | None) -> Answer[Mapping[str, str]]:
        raise self._error(env, f"a {self.kind} has no schema to compare")

    def _mend(self, env: Environment, version: str | None) -> Answer[tuple[str, ...]]:
        raise self._error(env, f"a {self.kind} has no schema to compare")

    def _enrol(self, env: Environment, login: str, password_hash: str, role: str, name: str) -> Answer[None]:
        raise TypeError(f"{self.kind} carries no users' table")

    def _admit(self, env: Environment, login: Login) -> Answer[None]:
        raise TypeError(f"{self.kind} lies on no server")

    def _expel(self, env: Environment, user: str) -> Answer[None]:
        raise TypeError(f"{self.kind} lies on no server")

    def _survey(self, env: Environment, version: str | None) -> Answer[list[Finding]]:
        raise self._error(env, f"a {self.kind} cannot be adopted")

    def _adopt(self, env: Environment, version: str | None) -> Answer[None]:
        raise self._error(env, f"a {self.kind} cannot be adopted")

    def _release(self, env: Environment) -> Answer[None]:
        raise self._error(env, f"a {self.kind} cannot be adopted")

    def _export(self, env: Environment, into: Path, form: ExportForm) -> Answer[list[Exported]]:
        raise self._error(env, f"a {self.kind} is not exported to files for other programs")

    def _weaknesses(self, server: Server, login: Login) -> list[Finding]:
        return []

    @classmethod
    def _probe(cls, server: Server) -> Answer[list[Finding]]:
        return [Finding(server.name, False, f"{cls.kind} lies on no server")]

    def _refill(self) -> Answer[int]:
        return 0

    def _prepare(self) -> Answer[str | None]:
        return None

    def _tidy(self) -> Answer[list[str]]:
        return []


def _taken(left: deque[T]) -> Iterator[T]:
    """What is taken from a queue that others take from, too."""
    with suppress(IndexError):
        while True:
            yield left.popleft()


def _reason(error: Exception) -> str:
    """The text of an error; of a system error without the path, which the resource names better."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()).removesuffix(".")


# --- kinds --------------------------------------------------------------------------------------------------------


@cache
def _known_kinds() -> Mapping[str, EntryPoint]:
    return MappingProxyType({point.name: point for point in entry_points(group=GROUP)})


class _Loaded(Mapping[str, T]):
    """By the name of a kind something of its driver, which is loaded when it is asked for: few platforms use many."""

    def __init__(self, take: Callable[[type[Resource]], T]) -> None:
        self._take = take

    def __getitem__(self, name: str) -> T:
        return self._take(_known_kinds()[name].load())

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(_known_kinds()))

    def __len__(self) -> int:
        return len(_known_kinds())


def kinds() -> Mapping[str, type[Resource]]:
    """All resource kinds by name, Tenantry's own and those of installed packages."""
    return _Loaded(lambda driver: driver)


def options() -> Mapping[str, type[BaseModel]]:
    """The options that each kind takes."""
    return _Loaded(lambda driver: driver.Options)


def build(name: str, spec: ResourceSpec, setting: Setting) -> Resource:
    """The resource a blueprint describes. Raises `UnknownKind`, or `ConfigError` that names option and value."""
    point = _known_kinds().get(spec.kind)
    if point is None:
        raise UnknownKind(kind=spec.kind, known=", ".join(sorted(_known_kinds())))
    where = f"blueprints.{setting.blueprint}.resources.{name}"
    for part in (setting.blueprint, name):
        if not _NAME.fullmatch(part):
            raise ConfigError(
                where=where, reason=f"the name {part!r} has other characters than letters, digits, _ or -"
            )
    driver: type[Resource] = point.load()
    try:
        options = driver.Options.model_validate(spec.options)
    except ValidationError as error:
        raise _fault(where, driver, error) from error
    return driver.suited(spec, options, setting)(name, options, setting)


def _fault(where: str, driver: type[Resource], error: ValidationError) -> ConfigError:
    fault = error.errors(include_url=False)[0]
    option = ".".join(str(part) for part in fault["loc"])
    known = ", ".join(sorted(info.alias or key for key, info in driver.Options.model_fields.items())) or "no options"
    if fault["type"] == "extra_forbidden":
        reason = f"{driver.kind} has no such option; it takes {known}"
    else:
        reason = f"{fault['msg'].removeprefix('Value error, ')}; the value is {fault['input']!r}"
    return ConfigError(where=f"{where}.{option}" if option else where, reason=reason)

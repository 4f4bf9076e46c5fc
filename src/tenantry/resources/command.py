"""Schemas that an application's own program migrates: `schema = {command = "php upgrade.php"}`.

What such a program does, and whether it can be taken up again in the middle, is its own matter. Tenantry runs it once
at a time for an environment, tells it where the database is, ends it in time, and records the version it came to.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from pydantic import Field
from sqlalchemy.engine import make_url

from tenantry import paths
from tenantry.config import Frozen, Seconds
from tenantry.errors import ConfigError, MigrationError, MigrationInvalid, ProcessFailed
from tenantry.model import Environment, Login, Migrated, Rehearsed
from tenantry.process import Given, watch
from tenantry.resources import Resource, history, scratch
from tenantry.resources.schema import Migration, Schema, checksum, fingerprint

FILES: Final = 10_000
"""The most files that the fingerprint of a program is made of."""

VERSION_SECONDS: Final = 60.0
"""Until a program that is asked for its version is given up."""

PASSED: Final = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "HOME")
"""What a program gets of this process's environment: nothing that could hold a secret of the platform's."""

Held: TypeAlias = tuple[int, ...]
"""The open directory whose lock a program holds as well."""

_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
_PART: Final = re.compile(r"[^A-Z0-9]")


class Options(Frozen):
    """How an application's own program is run."""

    command: str = Field(min_length=1)  # brings a database to the newest version; words as a shell has them, no shell
    version: str | None = None  # prints that version on one line; without it the files tell versions apart
    down: str | None = None  # brings a database back to TENANTRY_TO
    files: tuple[str, ...] = ()  # files and directories that a version is made of, beside those the command names
    timeout: Seconds = 600.0
    rehearse: bool = False  # it goes by TENANTRY_DATABASE_… alone, so that it may be run on scratch copies


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is, as a program is told."""

    kind: str
    file: Path | None = None
    address: str = ""  # of the server
    database: str = ""
    login: Login = field(default_factory=lambda: Login("", ""))

    def variables(self) -> dict[str, str]:
        if self.file is not None:
            return {"KIND": self.kind, "URL": f"sqlite:///{self.file}", "FILE": str(self.file)}
        url = make_url(self.address)
        whole = url.set(username=self.login.user, password=self.login.password, database=self.database)
        return {
            "KIND": self.kind,
            "URL": whole.render_as_string(hide_password=False),
            "HOST": url.host or "",
            "PORT": str(url.port or ""),
            "NAME": self.database,
            "USER": self.login.user,
            "PASSWORD": self.login.password,
        }


class Program:
    """The program of one resource."""

    def __init__(self, options: Options, root: Path, data: Path, where: str) -> None:
        self._options = options
        self._root = root
        self._data = data
        self._where = where
        for name in ("command", "version", "down"):
            self._words(name)

    @property
    def goes_back(self) -> bool:
        """Whether it can bring a database back."""
        return self._options.down is not None

    @property
    def goes_by_its_environment(self) -> bool:
        """Whether it may be run on a copy: one that reads a file of its own would find the tenant's database."""
        return self._options.rehearse

    # --- its version ---

    def newest(self) -> str:
        """The version it brings a database to. Raises `MigrationInvalid` where it does not tell."""
        mark = self.fingerprint()
        return self._asked(mark) if self._options.version else mark

    def _asked(self, mark: str) -> str:
        told = _told(tuple(self._words("version")), self._root, mark)
        if not _VERSION.fullmatch(told):
            remedy = "It prints one line of letters, digits, '.', '_', '+' and '-', 64 at most."
            raise MigrationInvalid(path=self._where, reason=f"its version is {told[:80]!r}", remedy=remedy)
        return told

    def fingerprint(self) -> str:
        """What the version depends on, in 16 hex digits: the commands, and the files that they and `files` name."""
        chosen = self._options
        said = (chosen.command, str(chosen.version), str(chosen.down))
        stamps = tuple(_stamp(path) for path in sorted(self._files()))
        return fingerprint((*said, _content(self._root, stamps)))

    def _files(self) -> set[Path]:
        words = [word for name in ("command", "version", "down") for word in self._words(name)]
        found = {path for word in words if (path := self._root / word).is_file() and not Path(word).is_absolute()}
        for name in self._options.files:
            path = self._root / name
            if not path.exists():
                raise ConfigError(where=f"{self._where}.files", reason=f"there is no {name!r} beside tenantry.toml")
            found |= {one for one in path.rglob("*") if one.is_file()} if path.is_dir() else {path}
            if len(found) > FILES:
                raise ConfigError(where=f"{self._where}.files", reason=f"they are more than {FILES} files")
        return found

    def _words(self, name: str) -> list[str]:
        text = getattr(self._options, name)
        try:
            words = shlex.split(text or "")
        except ValueError as error:
            raise ConfigError(where=f"{self._where}.{name}", reason=f"a quote does not end in {text!r}") from error
        if text is not None and not words:
            raise ConfigError(where=f"{self._where}.{name}", reason="it names no program")
        return words

    # --- running it ---

    def migration(self, version: str) -> Migration:
        """What is recorded of a version."""
        return Migration(version, Path(version), checksum(version))

    def run(
        self, env: Environment | None, place: Place, way: tuple[str | None, str], resource: str, held: Held
    ) -> None:
        """Bring a database from one version to another. Without an environment it is the golden template's.

        Raises `MigrationError` with the program's last lines where it ends with anything but 0 or takes too long.
        """
        before, to = way
        argv = self._words("command" if to == self.newest() else "down")
        facts = {**self._facts(env, resource), "FROM": before or "", "TO": to}
        database = {f"DATABASE_{name}": value for name, value in place.variables().items()}
        variables = {f"TENANTRY_{name}": value for name, value in (facts | database).items()}
        passed = {name: os.environ[name] for name in PASSED if name in os.environ}
        given = Given(
            env=passed | variables, inherit=False, cwd=self._root, timeout=self._options.timeout, pass_fds=held
        )
        try:
            watch(argv, given)
        except ProcessFailed as error:
            raise self._failed(error, argv, to, place.login.password) from error

    def _failed(self, error: ProcessFailed, argv: list[str], to: str, secret: str) -> MigrationError:
        said = str(error.details["output"])
        last = " / ".join(line.strip() for line in said.splitlines()[-10:] if line.strip())
        shown = last.replace(secret, "…") if secret else last
        return MigrationError(
            migration=to,
            reason=f"'{Path(argv[0]).name}' ended with {error.details['status']}{': ' if shown else ''}{shown}",
            remedy="Correct the cause, then run `tenantry migrate run` again: the program is started anew.",
        )

    def _facts(self, env: Environment | None, resource: str) -> dict[str, str]:
        if env is None:
            return {"TEMPLATE": "1", "RESOURCE": resource}
        home = self._data / env.home
        below = {f"PATH_{_variable(one.name)}": str(home / one.location) for one in env.places if one.server is None}
        return {
            "TENANT_ID": env.tenant.id,
            "SLUG": env.tenant.slug,
            "NAME": env.tenant.name,
            "ENVIRONMENT": env.name,
            "ENVIRONMENT_ID": env.id,
            "HOSTNAME": env.hostnames[0] if env.hostnames else "",
            "HOME": str(home),
            "RESOURCE": resource,
            **({"REHEARSAL": "1"} if _is_copy(env) else {}),
            **below,
        }

    @contextmanager
    def alone(self, env: Environment | None) -> Iterator[Held]:
        """A lock that the program and all it starts hold as well: while one of them lives, none is started anew.

        So a program whose worker was killed is waited for, on this host, and never runs twice at a time.
        """
        if env is None or _is_copy(env):  # whoever makes a template or a copy holds a lock on it already
            yield ()
            return
        with paths.directory_beneath(self._data, env.home, make=True) as above:
            held = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=above)
            try:
                self._take(held)
                yield (held,)
            finally:
                os.close(held)

    def _take(self, held: int) -> None:
        until = time.monotonic() + self._options.timeout
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise MigrationError(
                        migration=self._options.command,
                        reason="the same program still runs for this database",
                        remedy="Wait until it has ended, or end it; then run `tenantry migrate run` again.",
                    ) from error
                time.sleep(0.05)


def _is_copy(env: Environment) -> bool:
    return env.home.startswith(f"{scratch.FOLDER}/")


def _variable(name: str) -> str:
    return _PART.sub("_", name.upper())


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _content(root: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:
    """The names and contents of files; read again when one of them changed."""
    found = ((Path(name).relative_to(root).as_posix(), Path(name).read_bytes().hex()) for name, _, _ in stamps)
    return fingerprint(f"{name}\0{checksum(text)}" for name, text in found)


@lru_cache(maxsize=64)
def _told(argv: tuple[str, ...], root: Path, mark: str) -> str:
    """What a program says its version is; asked again when its files changed."""
    passed: Mapping[str, Any] = {name: os.environ[name] for name in PASSED if name in os.environ}
    try:
        return watch(argv, Given(env=passed, inherit=False, cwd=root, timeout=VERSION_SECONDS)).decode().strip()
    except (ProcessFailed, UnicodeDecodeError) as error:
        raise MigrationInvalid(
            path=argv[0], reason=f"it does not tell its version ({error})", remedy="Run it by hand to see why."
        ) from error


# --- as a part of a kind -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Records:
    """How a database's record of its version is read and written."""

    version: Callable[[], str | None]
    add: Callable[[Migration], object]
    remove: Callable[[Migration], object]


class Programmed(Resource):
    """A kind whose schema may be a program's, where it sets `takes_program`."""

    takes_program: ClassVar[bool] = False

    def _declare(self) -> Path | None:
        """The directory that `schema` names; None where it is a program or nothing. Raises `ConfigError`."""
        chosen, where = self.options.directory, f"blueprints.{self.setting.blueprint}.resources.{self.name}"
        self._program: Program | None = None
        if isinstance(chosen, Options):
            if not self.takes_program:
                raise ConfigError(where=f"{where}.schema", reason=f"a {self.kind} is not migrated by a program")
            if self.options.seed:
                raise ConfigError(where=f"{where}.seed", reason="a program that migrates makes what is to be in it")
            self._program = Program(chosen, self.setting.root, self.setting.data, f"{where}.schema")
        return self._declared("schema", chosen, directory=True) if isinstance(chosen, str) else None

    def pending(self, version: str | None) -> tuple[str, ...]:
        """The versions after this one. A program has one: its own."""
        if self._program is None:
            return super().pending(version)
        newest = self._program.newest()
        return () if version == newest else (newest,)

    @property
    def can_rehearse(self) -> bool:
        """Whether this kind can make scratch copies, and its program, if it has one, keeps to them."""
        return super().can_rehearse and (self._program is None or self._program.goes_by_its_environment)

    def _rehearse(self, env: Environment, to: str | None, room: int, others: Sequence[Environment]) -> Rehearsed:
        """A program is told nothing but the copy: no directory of the environment's, and no other resource of it."""
        if self._program is None:
            return super()._rehearse(env, to, room, others)
        if not self.can_rehearse:
            raise self._error(env, "its program does not say `rehearse = true`, so that it is run on no copy")
        version: Any = self._version
        weigh: Any = self._weigh
        with self._copied(env, room) as copied:
            own = tuple(one for one in copied.env.places if one.name == self.name)
            copy = replace(copied, env=replace(copied.env, places=own))
            before = version(copy.env)
            steps = [(str(to), to)] if before != to else []
            done = scratch.through(copy, before, to, steps, self._migrate)  # type: ignore[arg-type]
            if weigh(copy.env) > room:
                raise scratch.NoRoom(tenant=env.tenant.slug, room=room)
            return done

    async def declared(self, env: Environment, version: str | None) -> Mapping[str, str]:
        """What a new one would be made of. Raises `MigrationInvalid` where only a program knows that."""
        history.refuse_program(self.schema(), self.name)
        return await super().declared(env, version)

    @abstractmethod
    def schema(self) -> Schema:
        """The migrations as the files are now, or the program. Raises `MigrationInvalid`."""

    def _known(self, version: str, versions: tuple[str, ...]) -> str:
        if self._program is not None and self._program.goes_back:
            return version
        return super()._known(version, versions)

    def _from(self, env: Environment, source: Path | None) -> tuple[Path, ...]:
        if self._program is not None:
            raise self._error(env, "what a program migrates cannot be adopted: nothing tells which version it is at")
        return super()._from(env, source)

    def _command(self, env: Environment | None, place: Place, records: Records, to: str | None) -> Migrated:
        """Bring a database to a version by the program, and record it."""
        assert self._program is not None
        start = time.perf_counter()
        with self._program.alone(env) as held:
            before = records.version()
            if to is None or before == to:
                return Migrated(before, before, (), time.perf_counter() - start)
            self._program.run(env, place, (before, to), self.name, held)
            if before is not None:
                records.remove(self._program.migration(before))
            records.add(self._program.migration(to))
        return Migrated(before, to, (to,), time.perf_counter() - start)

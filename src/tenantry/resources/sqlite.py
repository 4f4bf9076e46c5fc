"""The kind `sqlite`: a database file for each environment, made by copying a golden template."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, ClassVar, Final
from urllib.parse import quote

from pydantic import BaseModel

from tenantry import paths
from tenantry.errors import PathEscape
from tenantry.model import Attempt, Environment, Exported, ExportForm, Finding, Usage, check_path
from tenantry.resources import Setting, database, migrator, scratch, sqlite_export, sqlite_scratch
from tenantry.resources.files import Filed, Inside
from tenantry.resources.migrator import Connection
from tenantry.resources.scratch import Scratch

BESIDE: Final = ("-wal", "-shm", "-journal")
"""What SQLite may leave beside a database. It goes first: a new database would take an old log for its own."""

DUMP: Final = ".dump"
TEMPLATES: Final = "templates"
TRIES: Final = 5


class Options(database.Options):
    """What `sqlite` takes: `schema`, `seed`, `file`."""

    file: Inside | None = None


def connect(path: Path, mode: str = "mode=rw") -> Connection:
    """A connection that can reach no other database: nothing can be attached to it."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?{mode}", uri=True, isolation_level=None, timeout=database.WAIT, factory=Connection
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    return connection


@contextmanager
def opened(path: Path, mode: str = "mode=rw") -> Iterator[Connection]:
    """What `connect` gives, closed at the end."""
    connection = connect(path, mode)
    try:
        yield connection
    finally:
        connection.shut()


READ_ONLY: Final = "mode=ro&immutable=1"  # for files nobody writes: makes no log beside them


class Sqlite(Filed, database.Database):
    """An SQLite file in WAL mode."""

    kind = "sqlite"
    takes_file = True
    takes_program = True
    Options: ClassVar[type[BaseModel]] = Options

    def __init__(self, name: str, options: Any, setting: Setting) -> None:
        super().__init__(name, options, setting)
        self._rooms: dict[str, int] = {}  # by the home of a scratch copy: the bytes that it may come to

    def _location(self) -> str:
        return self.options.file or f"{self.name}.sqlite"

    @contextmanager
    def _open(self, env: Environment) -> Iterator[Connection]:
        status = self.status(env)
        if status is None:
            raise self._error(env, f"there is no {self.locate(env)}")
        if not stat.S_ISREG(status.st_mode):
            raise PathEscape(path=self.locate(env))
        with opened(self.path(env)) as connection:
            if env.home in self._rooms:
                sqlite_scratch.bound(connection, self._rooms[env.home])
            yield connection

    def _uproot(self, env: Environment) -> None:
        Filed._uproot(self, env)
        database.Database._uproot(self, env)

    # --- the golden template ---

    @property
    def _template_name(self) -> str:
        return f"{self.setting.blueprint}.{self.name}.{self.fingerprint()}.sqlite"

    def _template(self) -> Path:
        """The golden template, made now where it is missing or the blueprint changed."""
        path = self.setting.templates / self._template_name
        if not path.exists():
            with self._template_folder() as folder:  # whoever waited here finds it made
                if not path.exists():
                    self._make_template(path, folder)
                    self._clear_templates(folder)
        return path

    def _open_golden(self) -> IO[bytes]:
        """The golden template to copy; made again where another process, which knows a newer schema, removed it."""
        for _ in range(TRIES):
            with suppress(FileNotFoundError):
                return self._template().open("rb")
        raise self._error(None, f"the template {self._template_name} does not stay")

    @contextmanager
    def _template_folder(self) -> Iterator[int]:
        """The directory of all templates, for one process at a time."""
        with paths.directory_beneath(self.setting.data, TEMPLATES, make=True) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield folder

    def _make_template(self, path: Path, folder: int) -> None:
        temporary = path.with_name(f"{paths.TEMPORARY}{secrets.token_hex(8)}")
        try:
            with opened(temporary, "mode=rwc") as connection:
                connection.execute("PRAGMA journal_mode = WAL")  # recorded in the header: every copy is in WAL mode
                connection.execute("PRAGMA synchronous = OFF")  # made whole or not at all; synced below
                self._fill(connection)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            temporary.chmod(0o400)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.rename(path)
            os.fsync(folder)
        finally:
            for ending in ("", *BESIDE):
                temporary.with_name(temporary.name + ending).unlink(missing_ok=True)

    @contextmanager
    def _open_template(self) -> Iterator[Connection]:
        with opened(self._template(), READ_ONLY) as connection:
            yield connection

    def _prepare(self) -> str | None:
        self._template()
        return self.golden

    def _tidy(self) -> list[str]:
        return [*self._tidy_templates(), *scratch.clear(self.setting.data), *super()._tidy()]

    def _tidy_templates(self) -> list[str]:
        """Templates of older blueprints, and halves of one: while we hold the folder, nobody makes any."""
        with self._template_folder() as folder:
            return self._clear_templates(folder)

    def _clear_templates(self, folder: int) -> list[str]:
        mine = re.compile(rf"{re.escape(self.setting.blueprint)}\.{re.escape(self.name)}\.[0-9a-f]{{16}}\.sqlite")
        current, removed = self._template_name, []
        for name in os.listdir(folder):
            if name.startswith(paths.TEMPORARY) or (mine.fullmatch(name) and name != current):
                os.unlink(name, dir_fd=folder)
                removed.append(f"{TEMPLATES}/{name}")
        return sorted(removed)

    # --- life ---

    def _create(self, env: Environment) -> None:
        with self._open_golden() as template, self._folder(env) as (folder, name):
            made = not _is_there(folder, name)
            if made:
                self._put(folder, name, template)
        if not made:
            self._renew(env)

    @contextmanager
    def _folder(self, env: Environment) -> Iterator[tuple[int, str]]:
        """The directory of the file, for one writer of whole files at a time, and the file's name."""
        root, path = self.spot(env)
        above, _, name = check_path(path).rpartition("/")
        with paths.directory_beneath(root, above, make=True) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield folder, name

    def _put(self, folder: int, name: str, source: IO[bytes]) -> None:
        """Let a copy of a file take the database's name, without any log of the one before."""
        with paths.new_file(folder, name) as file:
            _copy(source, file)
            _remove_beside(folder, name)

    def _drop(self, env: Environment) -> None:
        with suppress(FileNotFoundError):
            root, path = self.spot(env)
            above, _, name = path.rpartition("/")
            with paths.directory_beneath(root, above) as folder:
                _remove_beside(folder, name)
        super()._drop(env)

    def _dump(self, env: Environment, into: Path) -> None:
        into.mkdir(parents=True, exist_ok=True)
        with self._open(env) as source, paths.directory_beneath(into) as folder:
            temporary = into / f"{paths.TEMPORARY}{secrets.token_hex(8)}"
            try:
                with opened(temporary, "mode=rwc") as target:
                    database.copy(source, target)
                temporary.chmod(0o600)
                temporary.rename(into / self.name)
                os.fsync(folder)
            finally:
                for ending in ("", *BESIDE):
                    temporary.with_name(temporary.name + ending).unlink(missing_ok=True)

    def _load(self, env: Environment, source: Path) -> None:
        """Through SQLite where it can, so that connections that are open now see the loaded data at once."""
        copy = source / self.name
        with opened(copy, READ_ONLY) as connection:
            faults = self._damage(connection)
            if faults:
                raise self._error(env, f"the copy {copy.name} is not loaded, since {faults[0].what}")
            if not self._overwrite(env, connection):
                with self._folder(env) as (folder, name), copy.open("rb") as file:
                    self._put(folder, name, file)

    def _overwrite(self, env: Environment, source: Connection) -> bool:
        """Copy into the database that is there; False where there is none or it is beyond reading."""
        if not self._exists(env):
            return False
        try:
            with self._open(env) as target:
                database.copy(source, target)
        except sqlite3.OperationalError:  # locked, full, read-only: not a reason to replace it
            raise
        except sqlite3.DatabaseError:
            return False
        return True

    # --- rehearsals ---

    def _weigh(self, env: Environment) -> int:
        root, path = self.spot(env)
        sizes = (paths.status_beneath(root, path + ending) for ending in ("", "-wal"))
        return sum(status.st_size for status in sizes if status is not None)

    @contextmanager
    def _copied(self, env: Environment, room: int) -> Iterator[Scratch]:
        with scratch.folder(self.setting.data) as home:
            copy = replace(env, home=home)
            start, size = time.perf_counter(), self._weigh(env)
            dumped, path = self.setting.data / home / DUMP, self.path(copy)
            self._dump(env, dumped)
            path.parent.mkdir(parents=True, exist_ok=True)
            (dumped / self.name).rename(path)
            self._rooms[home] = room
            try:
                with self._open(copy) as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                yield Scratch(copy, size, time.perf_counter() - start, room, sqlite_scratch.watch)
            finally:
                del self._rooms[home]

    # --- a file that is there already ---

    def _survey(self, env: Environment, version: str | None, source: Path | None = None) -> list[Finding]:
        with self._given(env, source) as connection:
            return self._compare(env, connection, version)

    @contextmanager
    def _given(self, env: Environment, source: Path | None) -> Iterator[Connection]:
        """The file that is to be adopted, to read."""
        if source is None or not source.is_file():
            raise self._error(env, f"there is no file '{source}'" if source else "name the file that it is to be")
        with opened(source, "mode=ro") as connection:
            yield connection

    def _adopt(self, env: Environment, version: str | None, source: Path | None = None) -> None:
        with self._given(env, source) as given, self._template_folder():  # a tidy clears what is half done there
            migrator.confirm(given, self.schema(), version, self.name)
            temporary = self.setting.templates / f"{paths.TEMPORARY}{secrets.token_hex(8)}"
            try:
                with opened(temporary, "mode=rwc") as copy:
                    database.copy(given, copy)
                    copy.execute("PRAGMA journal_mode = WAL")
                    self._add_users(copy)
                    migrator.stamp(copy, self.schema(), version, self.name)
                    copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                with self._folder(env) as (folder, name), temporary.open("rb") as file:
                    self._put(folder, name, file)
            finally:
                for ending in ("", *BESIDE):
                    temporary.with_name(temporary.name + ending).unlink(missing_ok=True)

    def _release(self, env: Environment) -> None:
        self._drop(env)

    # --- looking at it ---

    def _export(self, env: Environment, into: Path, form: ExportForm) -> list[Exported]:
        with self._open(env) as connection:
            return sqlite_export.export(connection, form, into / self.name)

    def _measure(self, env: Environment) -> Usage:
        root, path = self.spot(env)
        with self._open(env) as connection:
            sizes = [status.st_size for ending in ("", "-wal") if (status := paths.status_beneath(root, path + ending))]
            return Usage(bytes=sum(sizes), rows=database.count(connection), files=1)

    def _check(self, env: Environment) -> list[Finding]:
        found = super()._check(env)
        wide = self._permissions(env, 0o600)
        return [*(finding for finding in found if not (wide and finding.ok)), *([wide] if wide else [])]

    def _attack(self, env: Environment, other: Environment) -> list[Attempt]:
        theirs, uri = str(self.path(other)), f"{self.path(other).as_uri()}?mode=ro"
        with self._open(env) as connection:
            return [
                *super()._attack(env, other),
                self._judged("ATTACH", _done(connection, "ATTACH DATABASE ? AS other", theirs)),
                self._judged("ATTACH by URI", _done(connection, "ATTACH DATABASE ? AS uri", uri)),
                self._judged("load_extension", _done(connection, "SELECT load_extension(?)", theirs, "authorized")),
            ]


def _done(connection: Connection, statement: str, value: str, refusal: str = "") -> str | None:
    """What shows that a statement is not refused; where a `refusal` is given, any other error shows it too."""
    try:
        connection.execute(statement, (value,))
    except sqlite3.Error as error:
        return None if refusal in str(error) else f"{statement} was let through: {error}"
    return f"{statement} with {value} was done"


def _is_there(folder: int, name: str) -> bool:
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        return True
    return False


def _remove_beside(folder: int, name: str) -> None:
    for ending in BESIDE:
        with suppress(FileNotFoundError):
            os.unlink(name + ending, dir_fd=folder)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy a file inside the kernel, sharing its blocks where the file system can."""
    size = os.fstat(source.fileno()).st_size
    try:
        while size > 0 and (done := os.copy_file_range(source.fileno(), target.fileno(), size)):
            size -= done
    except OSError:  # not on this file system
        pass
    if size > 0:
        source.seek(0)
        target.seek(0)
        shutil.copyfileobj(source, target)

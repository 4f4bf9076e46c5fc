"""The kind `memory`: the twin of `sqlite` for unit tests. All it holds hangs on the one instance, and goes with it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenantry.model import Attempt, Breach, Environment, Usage
from tenantry.resources import Setting, database
from tenantry.resources.migrator import Connection


@contextmanager
def _opened(content: bytes) -> Iterator[Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=Connection)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        if content:
            connection.deserialize(content)
        yield connection
    finally:
        connection.shut()


class Memory(database.Database):
    """An SQLite database as bytes, by the id of its environment."""

    kind = "memory"

    def __init__(self, name: str, options: Any, setting: Setting) -> None:
        super().__init__(name, options, setting)
        self.stores: dict[str, bytes] = {}  # id of an environment -> its database
        self._templates: dict[str, bytes] = {}  # fingerprint -> golden template
        self._lock = threading.RLock()

    def _template(self) -> bytes:
        with self._lock:
            key = self.fingerprint()
            if key not in self._templates:
                with _opened(b"") as connection:
                    self._fill(connection)
                    self._templates[key] = connection.serialize()
            return self._templates[key]

    @contextmanager
    def _open_template(self) -> Iterator[Connection]:
        with _opened(self._template()) as connection:
            yield connection

    @contextmanager
    def _open(self, env: Environment) -> Iterator[Connection]:
        with self._lock:
            if env.id not in self.stores:
                raise self._error(env, "there is none")
            with _opened(self.stores[env.id]) as connection:
                try:
                    yield connection
                finally:  # after a failure too: migrations before the failing one are done
                    self.stores[env.id] = connection.serialize()

    def _exists(self, env: Environment) -> bool:
        return env.id in self.stores

    def _create(self, env: Environment) -> None:
        with self._lock:
            template = self._template()
            if self.stores.setdefault(env.id, template) is not template:
                self._renew(env)

    def _prepare(self) -> str | None:
        self._template()
        return self.golden

    def _tidy(self) -> list[str]:
        with self._lock:
            outdated = sorted(self._templates.keys() - {self.fingerprint()})
            return [key for key in outdated if self._templates.pop(key)]

    def _measure(self, env: Environment) -> Usage:
        with self._open(env) as connection:
            return Usage(bytes=len(self.stores[env.id]), rows=database.count(connection))

    def _dump(self, env: Environment, into: Path) -> None:
        with self._lock:
            if env.id not in self.stores:
                raise self._error(env, "there is none")
            into.mkdir(parents=True, exist_ok=True)
            (into / self.name).write_bytes(self.stores[env.id])

    def _load(self, env: Environment, source: Path) -> None:
        content = (source / self.name).read_bytes()
        with _opened(content) as connection:
            faults = self._damage(connection)
        if faults:
            raise self._error(env, f"the copy is not loaded, since {faults[0].what}")
        with self._lock:
            self.stores[env.id] = content

    def _attack(self, env: Environment, other: Environment) -> list[Attempt]:
        if env.id == other.id:
            return [Breach(self.name, "same database", f"both environments have the id {env.id}")]
        return [Attempt(self.name, "same database")]

    def _drop(self, env: Environment) -> None:
        with self._lock:
            self.stores.pop(env.id, None)

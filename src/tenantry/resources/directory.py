"""The kind `directory`: a directory for each environment, for media, caches, logs; nothing in it leads out."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import ClassVar, Final

from pydantic import BaseModel

from tenantry import paths
from tenantry.config import Frozen
from tenantry.model import Environment, Finding, Usage
from tenantry.resources.files import Filed, Inside

PERMISSIONS: Final = 0o700
SHOWN: Final = 5
"""The most links one check names."""


class Options(Frozen):
    """What `directory` takes: `path`."""

    path: Inside | None = None


class Directory(Filed):
    """A directory of mode 0700 below the environment's home."""

    kind = "directory"
    Options: ClassVar[type[BaseModel]] = Options

    def _location(self) -> str:
        return self.options.path or self.name

    def _create(self, env: Environment) -> None:
        paths.make_beneath(*self.spot(env), permissions=PERMISSIONS)

    def _check(self, env: Environment) -> list[Finding]:
        status, path = self.status(env), self.path(env)
        if status is None or not stat.S_ISDIR(status.st_mode):
            return [Finding(self.name, False, f"{self.location} is no directory", f"Move {path} away, then repair.")]
        wide = self._permissions(env, PERMISSIONS)
        faults = [*([wide] if wide else []), *self._links(env)]
        return faults or [Finding(self.name, True, f"directory {self.location}")]

    def _links(self, env: Environment) -> list[Finding]:
        """Links that lead out of the directory; Tenantry follows none, but other programs may."""
        top = os.path.realpath(self.path(env))
        found = []
        for folder, inner, names in os.walk(top):
            for name in (*inner, *names):
                path = os.path.join(folder, name)  # noqa: PTH118 the names are many
                if os.path.islink(path) and not os.path.realpath(path).startswith(f"{top}{os.sep}"):  # noqa: PTH114
                    what = f"the link {os.path.relpath(path, top)} leads to {os.readlink(path)}"  # noqa: PTH115
                    found.append(Finding(self.name, False, what, f"Run `rm {path}`."))
                    if len(found) == SHOWN:
                        return found
        return found

    def _measure(self, env: Environment) -> Usage:
        return paths.measure_beneath(*self.spot(env))

    def _dump(self, env: Environment, into: Path) -> None:
        paths.copy_beneath(*self.spot(env), into, self.name)

    def _load(self, env: Environment, source: Path) -> None:
        root, path = self.spot(env)
        paths.copy_beneath(source, self.name, root, path)

    def _tidy(self) -> list[str]:
        """Inside too, where an application that was killed left a file half written."""
        return [*super()._tidy(), *self._clear(self.location, deep=True)]

"""The kind `directory`: a directory for each environment, for media, caches, logs; nothing in it leads out."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

from pydantic import BaseModel

from tenantry import paths
from tenantry.config import Frozen
from tenantry.model import Attempt, Breach, Environment, Finding, Untried, Usage
from tenantry.resources.canary import FILE
from tenantry.resources.files import Filed, Inside

PERMISSIONS: Final = 0o700
SHOWN: Final = 5
"""The most links one check names."""


SEARCHED: Final = 50_000
"""The most entries one search looks at; a directory of more is not searched, and that is said."""

HARD_LINK: Final = "hard link"


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
            return [
                Finding(
                    self.name,
                    False,
                    f"{self.location} is no directory",
                    f"Move {path} away, and put the directory back.",
                )
            ]
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

    # --- isolation ---

    def _allowed(self, env: Environment) -> int:
        return PERMISSIONS

    def _attack(self, env: Environment, other: Environment) -> list[Attempt]:
        return [*super()._attack(env, other), self._linked(env, other)]

    def _linked(self, env: Environment, other: Environment) -> Attempt:
        """Files that are the other's too, by a hard link."""
        mine, whole = _inodes(self.path(env))
        theirs, all_of_theirs = _inodes(self.path(other)) if mine else ({}, True)
        shared = sorted(mine.keys() & theirs.keys())
        if shared:
            return Breach(self.name, HARD_LINK, f"{mine[shared[0]]} is {theirs[shared[0]]}, and {len(shared)} in all")
        if whole and all_of_theirs:
            return Attempt(self.name, HARD_LINK)
        return Untried(self.name, HARD_LINK, f"there are more than {SEARCHED} files")

    def _plant(self, env: Environment, canary: str) -> None:
        paths.write_beneath(self.path(env), FILE, canary.encode())

    def _seek(self, env: Environment, trace: str) -> list[str]:
        """Every canary in the directory and wherever links in it lead, as a program that follows them would see it."""
        found, seen, entries = set(), set(), 0
        for folder, inner, names in os.walk(self.path(env), followlinks=True):
            entries += 1 + len(names)
            if entries > SEARCHED:
                raise self._error(env, f"there are more than {SEARCHED} files to look through")
            real = os.path.realpath(folder)
            if real in seen:
                inner.clear()
                continue
            seen.add(real)
            with suppress(OSError):
                found |= {Path(folder, FILE).read_text("utf-8", "replace")} if FILE in names else set()
        return sorted(text for text in found if text.startswith(trace))

    def _uproot(self, env: Environment) -> None:
        super()._uproot(env)
        paths.remove_beneath(self.path(env), FILE)
        paths.clear_temporary(*self.spot(env))  # a canary that was being written

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


def _inodes(top: Path) -> tuple[dict[tuple[int, int], str], bool]:
    """The files below that have several names, by their device and inode; and whether all were looked at."""
    found: dict[tuple[int, int], str] = {}
    entries = 0
    for folder, _, names in os.walk(top):
        entries += 1 + len(names)
        if entries > SEARCHED:
            return found, False
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118 the names are many
            with suppress(OSError):
                status = os.lstat(path)
                if status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
                    found[status.st_dev, status.st_ino] = path
    return found, True

"""What kinds that lie in files share: where they lie, attacks over paths, removal, and what killed processes left."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator

from tenantry import paths
from tenantry.errors import PathEscape
from tenantry.model import Attempt, Breach, Environment, Finding, check_path
from tenantry.resources import Resource

HOMES: Final = "tenants/*/*"
"""Where the homes of environments lie: tenants/<tenant>/<environment>."""

LINK: Final = f"{paths.TEMPORARY}attack-"
"""How the links begin that an attack plants."""

_FIELD: Final = re.compile(r"\{[a-z_]+\}")


def _inside(path: str) -> str:
    try:
        return check_path(path)
    except PathEscape as error:
        raise ValueError(error.message) from error


Inside = Annotated[str, AfterValidator(_inside)]
"""An option that is a path inside the environment's home."""


def _cleared(root: Path, folder: str, deep: bool) -> list[str]:
    with suppress(PathEscape):  # a link in place of a directory
        return paths.clear_temporary(root, folder, deep=deep)
    return []


class Filed(Resource):
    """A resource that is one file or directory, reached from a trusted root without following any link."""

    def spot(self, env: Environment) -> tuple[Path, str]:
        """The trusted root and the path below it."""
        return self.setting.data, f"{env.home}/{self.locate(env)}"

    def path(self, env: Environment) -> Path:
        """The absolute path; to show, and to open only after `status`."""
        root, path = self.spot(env)
        return root / path

    def status(self, env: Environment) -> os.stat_result | None:
        """The status of the file or directory itself, None where there is none."""
        return paths.status_beneath(*self.spot(env))

    def _exists(self, env: Environment) -> bool:
        return self.status(env) is not None

    def _drop(self, env: Environment) -> None:
        root, path = self.spot(env)
        paths.remove_beneath(root, path)
        self._prune(root, path, env)

    def _prune(self, root: Path, path: str, env: Environment) -> None:
        """Remove the directories that only held this resource, up to the environment's home."""
        kept = env.home.count("/") + 1 if root == self.setting.data else 0
        parts = path.split("/")[:-1]
        with suppress(OSError):  # not empty, or gone
            while len(parts) > kept:
                with paths.directory_beneath(root, "/".join(parts[:-1])) as descriptor:
                    os.rmdir(parts.pop(), dir_fd=descriptor)

    def _tidy(self) -> list[str]:
        """Look through the directory this resource lies in, of every environment on this disk."""
        return self._clear(_FIELD.sub("*", self.location).rpartition("/")[0])

    def _clear(self, inner: str, *, deep: bool = False) -> list[str]:
        """Clear one directory of every environment; an absolute pattern leads elsewhere on the disk."""
        root = Path("/") if inner.startswith("/") else self.setting.data
        pattern = inner.removeprefix("/") if inner.startswith("/") else f"{HOMES}/{inner}".rstrip("/")
        folders = [path.relative_to(root).as_posix() for path in root.glob(pattern)]
        return [f"{folder}/{name}" for folder in folders for name in _cleared(root, folder, deep)]

    # --- what checks and attacks have in common ---

    def _permissions(self, env: Environment, allowed: int) -> Finding | None:
        """A finding where others than the owner may do more than allowed."""
        status = self.status(env)
        if status is None or not stat.S_IMODE(status.st_mode) & ~allowed:
            return None
        mode = stat.S_IMODE(status.st_mode)
        remedy = f"Run `chmod {allowed:o} {self.path(env)}`."
        return Finding(self.name, False, f"{self.locate(env)} has mode {mode:04o}, wider than {allowed:04o}", remedy)

    def _allowed(self, env: Environment) -> int:
        """The widest permissions it may have."""
        return 0o600

    def _attack(self, env: Environment, other: Environment) -> list[Attempt]:
        """Reach the other's file by name, by a planted link, by the permissions, or because it is the same one."""
        with self._planted(env, other) as (root, link):
            followed = self._reached(root, link)
        wide = self._permissions(env, self._allowed(env))
        overlap = other.home.startswith(f"{env.home}/") or env.home.startswith(f"{other.home}/")
        shared = f"{env.home} and {other.home} overlap" if overlap or env.home == other.home else None
        return [
            self._judged("same file", self._same(env, other)),
            self._judged("path", self._climb(env, other)),
            self._judged("symbolic link", f"{link} reached {self.path(other)}" if followed else None),
            self._judged("permissions", f"{wide.what}: other users of this machine get at it" if wide else None),
            self._judged("shared home", shared),
        ]

    def _judged(self, attack: str, evidence: str | None) -> Attempt:
        """A breach where there is evidence of one."""
        return Breach(self.name, attack, evidence) if evidence else Attempt(self.name, attack)

    def _same(self, env: Environment, other: Environment) -> str | None:
        """One and the same file under both names, as a hard link or a shared location."""
        mine, theirs = self.status(env), self.status(other)
        if mine and theirs and os.path.samestat(mine, theirs):
            return f"{self.path(env)} is {self.path(other)}"
        return None

    def _climb(self, env: Environment, other: Environment) -> str | None:
        """Paths that climb from one home to the other's file, also in other spellings of its name."""
        home, target = self.setting.data / env.home, self.path(other)
        relative = os.path.relpath(target, home)
        tries = [relative, str(target), f"./{relative}", f"x/../{relative}", relative.replace("/", "\\")]
        for attempt in [*tries, relative.upper(), relative.replace("..", "%2e%2e"), f"{relative}\0.txt"]:
            if self._reached(home, attempt):
                return f"{attempt!r} reached {target}"
        return None

    @staticmethod
    def _reached(root: Path, path: str) -> bool:
        with suppress(PathEscape, OSError, ValueError):
            return paths.status_beneath(root, path) is not None
        return False

    @contextmanager
    def _planted(self, env: Environment, other: Environment) -> Iterator[tuple[Path, str]]:
        """A link to where the other's file lies, beside this one's for the length of the block: its root and path."""
        root, path = self.spot(env)
        above, _, _ = path.rpartition("/")
        name = f"{LINK}{secrets.token_hex(4)}"  # after a kill it is uprooted
        with paths.directory_beneath(root, above) as folder:
            os.symlink(self.path(other).parent, name, dir_fd=folder)
            try:
                yield root, f"{above}/{name}/{self.path(other).name}".removeprefix("/")
            finally:
                os.unlink(name, dir_fd=folder)

    def _uproot(self, env: Environment) -> None:
        """Remove what a run that was killed left beside the file or directory: links, and files in the making."""
        root, path = self.spot(env)
        above, _, _ = path.rpartition("/")
        paths.clear_temporary(root, above)
        with suppress(FileNotFoundError, NotADirectoryError), paths.directory_beneath(root, above) as folder:
            for name in os.listdir(folder):  # noqa: PTH208 a descriptor
                if name.startswith(LINK):
                    os.unlink(name, dir_fd=folder)

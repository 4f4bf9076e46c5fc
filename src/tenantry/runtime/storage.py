"""Files of the current tenant."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import IO, Final

from tenantry import paths
from tenantry.context import current_environment, refuse_read_only
from tenantry.errors import ForeignTenant, ResourceError
from tenantry.model import Environment, check_path

KINDS: Final = frozenset({"directory"})
"""The kinds of resources that hold an application's files."""


class Storage:
    """One directory of one tenant. No path and no symbolic link leads out of it (`PathEscape`).

    It works only while its own tenant is the current one.
    """

    def __init__(self, root: Path, environment: Environment) -> None:
        self._root = root
        self._environment = environment

    def _here(self) -> Path:
        now = current_environment()
        if now.id != self._environment.id:
            raise ForeignTenant(owner=self._environment.tenant.slug, current=now.tenant.slug)
        return self._root

    def open(self, path: str, mode: paths.Mode = "rb") -> IO[bytes]:
        """Open a file; modes that write make the directories above it."""
        if mode != "rb":
            refuse_read_only()
        return paths.open_beneath(self._here(), path, mode)

    def read(self, path: str) -> bytes:
        """The content of a file. Raises `FileNotFoundError`."""
        return paths.read_beneath(self._here(), path)

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file: readers see the old content or the new, never a part."""
        refuse_read_only()
        paths.write_beneath(self._here(), path, data)

    def delete(self, path: str) -> bool:
        """Remove a file or a directory with all in it; False where there was none."""
        refuse_read_only()
        return paths.remove_beneath(self._here(), path)

    def list(self, path: str = "") -> list[paths.Entry]:
        """What a directory holds, by name. Raises `FileNotFoundError`."""
        return paths.list_beneath(self._here(), path)

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory; a symbolic link is none."""
        status = paths.status_beneath(self._here(), path)
        return status is not None and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))

    def size(self, path: str) -> int:
        """The size of a file in bytes. Raises `FileNotFoundError`."""
        with self.open(path) as file:
            return file.seek(0, 2)


def open_storage(data: Path, environment: Environment, resource: str) -> Storage:
    """The storage of an environment's resource. Raises `ResourceError` where it has no such directory."""
    place = environment.place(resource)
    if place is None or place.kind not in KINDS:
        names = ", ".join(place.name for place in environment.places if place.kind in KINDS) or "none"
        reason = f"it is no directory of this tenant; name one of: {names}"
        raise ResourceError(kind="directory", resource=resource, tenant=environment.tenant.slug, reason=reason)
    return Storage(data / environment.home / check_path(place.location), environment)

"""Scratch copies: where files of them lie, and how migrations are tried on one, each by itself."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tenantry import paths
from tenantry.errors import TenantryError
from tenantry.model import Environment, Held, Migrated, Rehearsed, Tried
from tenantry.resources import history

FOLDER: Final = "scratch"
TIMES: Final = 3
"""How many times its size a copy may come to: itself, the file it is made of, and tables that are written anew."""

MARGIN: Final = 16 << 20
"""Bytes that any copy may take beyond that: logs, and what a small database begins with."""


class NoRoom(TenantryError):
    """The scratch copy of '{tenant}' would outgrow the {room} bytes set aside for it."""

    code = "rehearsal.no_room"
    remedy = "Give the rehearsal more room with --disk, or rehearse fewer tenants at a time."


def need(size: int) -> int:
    """The bytes to set aside for the copy of something of this size."""
    return TIMES * size + MARGIN


@dataclass(slots=True)
class Seen:
    """What was seen while one migration ran."""

    locks: tuple[Held, ...] = ()
    rewritten: tuple[str, ...] = ()
    outgrown: bool = False  # it took more room than there is
    failure: TenantryError | None = None  # how it ended, where it did not end well


@dataclass(frozen=True, slots=True)
class Scratch:
    """A copy, as the environment that migrations take it for."""

    env: Environment
    bytes: int
    copying: float  # seconds
    room: int
    watch: Callable[[], AbstractContextManager[Seen]] = field(repr=False)  # looks on while one migration runs


def path(order: tuple[str, ...], before: str | None, target: str | None) -> list[tuple[str, str | None]]:
    """The migrations between two versions, up or down: each with the version it leads to."""
    here, there = history.position(order, before), history.position(order, target)
    if there >= here:
        return [(version, version) for version in order[here:there]]
    return [(order[number], order[number - 1] if number else None) for number in range(here - 1, there - 1, -1)]


def through(
    scratch: Scratch,
    before: str | None,
    target: str | None,
    steps: Sequence[tuple[str, str | None]],
    migrate: Callable[[Environment, str | None], Migrated],
) -> Rehearsed:
    """Try migrations on a copy, one by one, until one fails. Raises `NoRoom` where the copy outgrew its room."""
    tried: list[Tried] = []
    failure: TenantryError | None = None
    for version, to in steps:
        with scratch.watch() as seen:
            try:
                done = migrate(scratch.env, to)
            except TenantryError as error:
                seen.failure = error
        if seen.outgrown:
            raise NoRoom(tenant=scratch.env.tenant.slug, room=scratch.room) from seen.failure
        failure = seen.failure
        if failure is not None:
            break
        tried.append(Tried(version, done.seconds, seen.locks, seen.rewritten))
    return Rehearsed(before, target, scratch.bytes, scratch.copying, tuple(tried), failure)


# --- files --------------------------------------------------------------------------------------------------------


@contextmanager
def folder(data: Path) -> Iterator[str]:
    """A folder for the time of a block, by its path below the data directory. `clear` takes those of killed processes.

    Whoever uses one holds a lock on it, and the lock on all of them only while it is made.
    """
    name = secrets.token_hex(8)
    with _made(data, name) as descriptor:
        try:
            yield f"{FOLDER}/{name}"
        finally:
            shutil.rmtree(data / FOLDER / name, ignore_errors=True)
            os.close(descriptor)
            with suppress(OSError):  # others are there, or it went with theirs
                (data / FOLDER).rmdir()


@contextmanager
def _made(data: Path, name: str) -> Iterator[int]:
    while True:
        with suppress(FileNotFoundError), paths.directory_beneath(data, FOLDER, make=True) as parent:
            fcntl.flock(parent, fcntl.LOCK_EX)
            os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            break
    yield descriptor


def clear(data: Path) -> list[str]:
    """Remove the folders that nobody uses; their paths below the data directory."""
    removed = []
    with suppress(FileNotFoundError), paths.directory_beneath(data, FOLDER) as parent:
        fcntl.flock(parent, fcntl.LOCK_EX)
        names = sorted(entry.name for entry in os.scandir(parent))
        removed = [f"{FOLDER}/{name}" for name in names if _clear(parent, name)]
        with suppress(OSError):
            (data / FOLDER).rmdir()
    return removed


def _clear(parent: int, name: str) -> bool:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(name, dir_fd=parent)
    except OSError:  # in use
        return False
    finally:
        os.close(descriptor)
    return True

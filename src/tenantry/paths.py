"""Files below a directory that no path, symbolic link or special file can lead out of, and files that appear whole.

A path is walked one part at a time, each opened relative to the descriptor of the one before and never through a
symbolic link (openat(2) with O_NOFOLLOW). So no link planted inside, before or during a call, leads anywhere else.
The root itself is trusted: it comes from the configuration. Missing files raise `FileNotFoundError`, as `open` does;
every attempt to leave raises `PathEscape`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from tenantry.errors import PathEscape
from tenantry.model import Usage, check_path

TEMPORARY: Final = ".tenantry-"
"""How the name of a file in the making begins; `clear_temporary` removes those whose maker died."""

Mode = Literal["rb", "wb", "ab", "xb", "r+b"]

_FLAGS: Final[dict[Mode, int]] = {
    "rb": os.O_RDONLY,
    "wb": os.O_WRONLY | os.O_CREAT,
    "ab": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "xb": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "r+b": os.O_RDWR,
}
_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | _SAFE


class Entry(NamedTuple):
    """One name in a directory."""

    name: str
    kind: Literal["file", "directory", "link", "other"]
    bytes: int
    modified: float  # seconds since 1970


# --- walking ------------------------------------------------------------------------------------------------------


@contextmanager
def directory_beneath(root: Path, path: str = "", *, make: bool = False, permissions: int = 0o700) -> Iterator[int]:
    """The descriptor of a directory below the root, open inside the block; `make` makes what is missing.

    Raises `PathEscape` where a part is a symbolic link, `NotADirectoryError` where it is a file.
    """
    parts = check_path(path).split("/") if path else []
    if make:
        root.mkdir(mode=permissions, parents=True, exist_ok=True)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = _step(descriptor, part, path, permissions if make else None)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _step(parent: int, part: str, path: str, permissions: int | None) -> int:
    """Open one directory of the walk, made first where it is missing and permissions are given."""
    try:
        return os.open(part, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if permissions is None:
            raise
    except OSError as error:
        _refuse_link(error, parent, part, path)
        raise
    with suppress(FileExistsError):  # another process was quicker
        os.mkdir(part, permissions, dir_fd=parent)
    return _step(parent, part, path, None)


def _refuse_link(error: OSError, parent: int, part: str, path: str) -> None:
    """Raise `PathEscape` where an open failed because the part is a symbolic link."""
    if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        return
    status = _status(parent, part)
    if status and stat.S_ISLNK(status.st_mode):
        raise PathEscape(path=path) from error


def _status(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextmanager
def _parent(root: Path, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The descriptor of the directory a path lies in, and the last part of the path."""
    above, _, name = check_path(path).rpartition("/")
    if name.startswith(TEMPORARY):  # such a file is hidden from lists and may be cleared away
        raise PathEscape(f"The path '{path}' has a name that Tenantry keeps for itself.", remedy="Use another name.")
    with directory_beneath(root, above, make=make) as descriptor:
        yield descriptor, name


# --- reading ------------------------------------------------------------------------------------------------------


def open_beneath(root: Path, path: str, mode: Mode = "rb", *, permissions: int = 0o600) -> IO[bytes]:
    """Open a regular file below the root; modes that write a new file make its directories.

    Raises `PathEscape` for links, devices, sockets and pipes, `FileNotFoundError` where there is none.
    """
    with _parent(root, path, make=bool(_FLAGS[mode] & os.O_CREAT)) as (parent, name):
        try:  # O_NONBLOCK: a pipe planted in place of the file cannot hold the caller
            descriptor = os.open(name, _FLAGS[mode] | _SAFE | os.O_NONBLOCK, permissions, dir_fd=parent)
        except OSError as error:
            _refuse_link(error, parent, name, path)
            if error.errno == errno.ENXIO:
                raise PathEscape(path=path) from error
            raise
    return _file(descriptor, path, mode)


def _file(descriptor: int, path: str, mode: Mode) -> IO[bytes]:
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise PathEscape(path=path)
        if mode == "wb":  # only now: nothing is cut short before it is known to be a plain file
            os.ftruncate(descriptor, 0)
        return os.fdopen(descriptor, "wb" if mode == "xb" else mode)
    except BaseException:
        os.close(descriptor)
        raise


def read_beneath(root: Path, path: str) -> bytes:
    """The content of a file below the root."""
    with open_beneath(root, path) as file:
        return file.read()


def status_beneath(root: Path, path: str) -> os.stat_result | None:
    """The status of what lies at a path, of a link itself; None where nothing does."""
    try:
        with _parent(root, path) as (parent, name):
            return _status(parent, name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def list_beneath(root: Path, path: str = "") -> list[Entry]:
    """What a directory below the root holds, by name; files in the making are left out."""
    with directory_beneath(root, path) as descriptor:
        names = [name for name in os.listdir(descriptor) if not name.startswith(TEMPORARY)]  # noqa: PTH208
        found = [(name, _status(descriptor, name)) for name in sorted(names)]
    return [_entry(name, status) for name, status in found if status]


def _entry(name: str, status: os.stat_result) -> Entry:
    return Entry(name, _kind(status.st_mode), status.st_size, status.st_mtime)


def _kind(mode: int) -> Literal["file", "directory", "link", "other"]:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


def measure_beneath(root: Path, path: str = "") -> Usage:
    """Bytes and number of the regular files in a directory and below; links are neither followed nor counted."""
    total = files = 0
    with directory_beneath(root, path) as descriptor:
        for _, _, names, inner in os.fwalk(".", dir_fd=descriptor):
            for status in filter(None, (_status(inner, name) for name in names)):
                if stat.S_ISREG(status.st_mode):
                    total, files = total + status.st_size, files + 1
    return Usage(bytes=total, files=files)


# --- writing ------------------------------------------------------------------------------------------------------


@contextmanager
def replace_beneath(root: Path, path: str, *, permissions: int = 0o600) -> Iterator[IO[bytes]]:
    """A new file that takes its name, and the place of an older one, when the block ends well; never half of it.

    Its directories are made where missing. File and directory are on disk (fsync) before this returns.
    """
    with _parent(root, path, make=True) as (parent, name), new_file(parent, name, permissions) as file:
        yield file


@contextmanager
def new_file(parent: int, name: str, permissions: int = 0o600) -> Iterator[IO[bytes]]:
    """What `replace_beneath` does, in a directory that is open already."""
    with _temporary(parent, permissions) as (file, temporary):
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    os.fsync(parent)


@contextmanager
def _temporary(parent: int, permissions: int) -> Iterator[tuple[IO[bytes], str]]:
    """A file in the making, locked for as long as its maker lives; removed unless the block renamed it."""
    while True:
        name = f"{TEMPORARY}{secrets.token_hex(8)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "w+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink == 0:  # taken for a dead one's before it was locked
                continue
            os.fchmod(file.fileno(), permissions)
            try:
                yield file, name
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=parent)
            return


def write_beneath(root: Path, path: str, data: bytes, *, permissions: int = 0o600) -> None:
    """Write a whole file below the root: readers see the old content or the new, never a part."""
    with replace_beneath(root, path, permissions=permissions) as file:
        file.write(data)


def make_beneath(root: Path, path: str, *, permissions: int = 0o700) -> None:
    """Make a directory below the root, with those above it, and give it these permissions; it may be there already."""
    with directory_beneath(root, path, make=True, permissions=permissions) as descriptor:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != permissions:
            os.fchmod(descriptor, permissions)


def copy_beneath(source: Path, path: str, root: Path, target: str) -> None:
    """Copy a directory below one root to a new one below another: regular files and directories, with their times.

    Links and special files are left out. The new directory appears when all of it is there; one that lies at the
    target already is replaced by two renames.
    """
    above, _, name = check_path(target).rpartition("/")
    with directory_beneath(source, path) as old, directory_beneath(root, above, make=True) as parent:
        temporary = f"{TEMPORARY}{secrets.token_hex(8)}"
        os.mkdir(temporary, 0o700, dir_fd=parent)
        new = os.open(temporary, _DIRECTORY, dir_fd=parent)
        try:
            fcntl.flock(new, fcntl.LOCK_EX)
            _copy_tree(old, new)
            _exchange(parent, temporary, name)
        finally:
            os.close(new)
            shutil.rmtree(temporary, ignore_errors=True, dir_fd=parent)


def _copy_tree(source: int, target: int) -> None:
    for name in os.listdir(source):
        status = _status(source, name)
        kind = _kind(status.st_mode) if status else "other"
        if kind == "directory":
            os.mkdir(name, 0o700, dir_fd=target)
            with _opened(name, _DIRECTORY, source) as inner, _opened(name, _DIRECTORY, target) as made:
                _copy_tree(inner, made)
        elif kind == "file" and not name.startswith(TEMPORARY):
            _copy_file(source, target, name)
    os.fsync(target)


def _copy_file(source: int, target: int, name: str) -> None:
    with suppress(FileNotFoundError), _opened(name, os.O_RDONLY | os.O_NONBLOCK | _SAFE, source) as old:
        status = os.fstat(old)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE
        with _opened(name, flags, target, stat.S_IMODE(status.st_mode)) as new:
            with os.fdopen(old, "rb", closefd=False) as reader, os.fdopen(new, "wb", closefd=False) as writer:
                shutil.copyfileobj(reader, writer)
            os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(new)


@contextmanager
def _opened(name: str, flags: int, parent: int, permissions: int = 0o600) -> Iterator[int]:
    descriptor = os.open(name, flags, permissions, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _exchange(parent: int, new: str, name: str) -> None:
    """Give a directory its name; what had it before takes a temporary one and is removed."""
    old = f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        os.rename(name, old, src_dir_fd=parent, dst_dir_fd=parent)
    except FileNotFoundError:
        old = ""
    os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
    os.fsync(parent)
    if old:
        shutil.rmtree(old, dir_fd=parent)


def remove_beneath(root: Path, path: str) -> bool:
    """Remove a file, a link (never what it leads to) or a whole directory; False where nothing was there."""
    try:
        with _parent(root, path) as (parent, name):
            status = _status(parent, name)
            if status is None:
                return False
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(name, dir_fd=parent)  # walks by descriptors itself
            else:
                os.unlink(name, dir_fd=parent)
            os.fsync(parent)
    except FileNotFoundError:  # a directory above is missing, or another process removed it meanwhile
        return False
    return True


def clear_temporary(root: Path, path: str = "", *, deep: bool = False) -> list[str]:
    """Remove files in the making whose maker died, from one directory or from all below too.

    Returns their paths relative to that directory.
    """
    removed = []
    with suppress(FileNotFoundError, NotADirectoryError), directory_beneath(root, path) as descriptor:
        for folder, folders, names, inner in os.fwalk(".", dir_fd=descriptor):
            making = [name for name in (*folders, *names) if name.startswith(TEMPORARY)]
            removed += [f"{folder}/{name}".removeprefix("./") for name in making if _clear(inner, name)]
            folders[:] = [name for name in folders if deep and not name.startswith(TEMPORARY)]
    return sorted(removed)


def _clear(parent: int, name: str) -> bool:
    """Remove one such file or directory unless its maker still holds the lock on it."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _SAFE, dir_fd=parent)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True

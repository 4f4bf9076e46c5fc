"""Attacks of one tenant's login on another tenant's PostgreSQL database."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import psycopg
from psycopg import sql

from tenantry.model import Attempt, Breach, Untried
from tenantry.resources.postgres_dialect import Connection

Statement = sql.SQL | sql.Composed
Step = tuple[str, Statement]

EXTENSIONS: Final = ("dblink", "postgres_fdw", "file_fdw", "adminpack")
"""Extensions that lead out of a database; none of them may be made by a tenant."""

REFUSED: Final = frozenset({"42501", "28000", "28P01", "0LP01", "58P01", "0A000", "22012"})
"""What a refusal looks like: no privilege, no login, no grant, no such extension, and our own division by zero."""

TRACE: Final = "tenantry_attack"

SERVER: Final = (
    ("read a file of the server", sql.SQL("SELECT pg_read_file('PG_VERSION')")),
    ("list the server's files", sql.SQL("SELECT count(*) FROM pg_ls_dir('.')")),
    ("read a file by COPY", sql.SQL("CREATE TEMP TABLE t (x text); COPY t FROM '/etc/hostname'; SELECT x FROM t")),
    ("write a file by COPY", sql.SQL("COPY (SELECT 1) TO '/dev/null'")),
    ("run a program", sql.SQL("CREATE TEMP TABLE t (x text); COPY t FROM PROGRAM 'id'; SELECT x FROM t")),
    ("import a large object from a file", sql.SQL("SELECT lo_import('/etc/hostname')")),
    ("export a large object to a file", sql.SQL("SELECT lo_export(lo_from_bytea(0, 'x'), '/dev/null')")),
    ("read the passwords", sql.SQL("SELECT count(rolpassword) FROM pg_authid")),
    ("make a role", sql.SQL("CREATE ROLE tenantry_attack")),
)
"""What leads around every database of the server."""

MORE: Final = (
    (
        "more than a login",
        "SELECT string_agg(what, ', ') FROM pg_roles, LATERAL (VALUES ('SUPERUSER', rolsuper), "
        "('CREATEROLE', rolcreaterole), ('CREATEDB', rolcreatedb), ('REPLICATION', rolreplication), "
        "('BYPASSRLS', rolbypassrls)) AS may (what, holds) WHERE rolname = current_user AND holds",
    ),
    (
        "member of other roles",
        "SELECT string_agg(rolname, ', ') FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER') "
        "AND rolname NOT IN (current_user, 'pg_database_owner') "
        "AND oid <> (SELECT datdba FROM pg_database WHERE datname = current_database())",
    ),
    (
        "run a function as its owner",
        "SELECT string_agg(proname || ' as ' || pg_get_userbyid(proowner), ', ') FROM pg_proc WHERE prosecdef "
        "AND pg_get_userbyid(proowner) <> current_user AND has_function_privilege(oid, 'EXECUTE') "
        "AND proowner <> (SELECT datdba FROM pg_database WHERE datname = current_database())",
    ),
    (
        "read others' queries",
        "SELECT count(*) || ' statements, of ' || min(usename) FROM pg_stat_activity "
        "WHERE usename <> session_user AND query NOT IN ('', '<insufficient privilege>')",
    ),
)
"""Questions whose every answer is a breach."""

_COMMON: Final = """
SELECT datname FROM pg_database WHERE datallowconn AND (datistemplate OR datname = 'postgres')
  AND has_database_privilege(oid, 'CONNECT') AND datname <> ALL (ARRAY[%s, %s]) ORDER BY oid LIMIT 4"""
"""Databases that are nobody's and that this role may enter, as PostgreSQL lets everybody by default."""

_SHADOW: Final = sql.SQL(
    "CREATE FUNCTION public.pg_database_size(text) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'"
)
"""What stands before the server's own function for whoever does not name its schema and passes text."""

BY_DESIGN: Final = (
    (
        "see the names of other databases",
        "SELECT count(*) || ' databases, such as ' || min(datname) FROM pg_database "
        "WHERE datname <> current_database() AND NOT datistemplate",
    ),
    (
        "see the names of other roles",
        "SELECT count(*) || ' logins, such as ' || min(rolname) FROM pg_roles WHERE rolname <> current_user "
        "AND rolcanlogin",
    ),
)
"""What PostgreSQL shows every role, and nothing can be done about."""


class Attacker:
    """One login against another's database; what succeeds is rolled back."""

    def __init__(self, name: str, connect: Callable[[str], Connection], own: str, other: str, user: str) -> None:
        self._name = name
        self._connect = connect
        self._own = own
        self._other = other
        self._user = user

    def run(self, victim: Callable[[], Connection]) -> list[Attempt]:
        """Everything that is tried. `victim` opens a connection of the other's own, which is attacked too."""
        found = [self._enter()]
        connection = self._connect(self._own)
        try:
            me = connection.execute("SELECT current_user").fetchone()
            if me is not None and me[0] != self._user:
                found += [self._step(connection, *step) for step in self._as_them()]
            found += [self._step(connection, *step) for step in (*SERVER, *self._led_out())]
            found += [asked(self._name, connection, what, query) for what, query in MORE]
            found += [asked(self._name, connection, what, query, promised=False) for what, query in BY_DESIGN]
            found += [self._change_the_server(connection), *self._disturb(connection, victim)]
            found += self._shadow(connection)
        finally:
            connection.close()
        return found

    def _enter(self) -> Attempt:
        what = "connect to the other database"
        try:
            connection = self._connect(self._other)
        except psycopg.OperationalError as error:
            return self._not_let_in(what, error)
        try:
            (count,) = connection.execute("SELECT count(*) FROM pg_class WHERE relkind = 'r'").fetchone() or (0,)
            return Breach(self._name, what, f"{count} tables seen in {self._other}")
        finally:
            connection.close()

    def _not_let_in(self, what: str, error: psycopg.OperationalError) -> Attempt:
        refused = "permission denied" in str(error) or "pg_hba" in str(error)  # such errors carry no code
        return (Attempt if refused else Untried)(self._name, what, line(error))

    def _as_them(self) -> Iterator[Step]:
        """Become the other, or get what it has."""
        database, role = sql.Identifier(self._other), sql.Identifier(self._user)
        yield "become its role", sql.SQL("SET ROLE {}; SELECT current_user").format(role)
        yield "begin its session", sql.SQL("SET SESSION AUTHORIZATION {}; SELECT session_user").format(role)
        yield "give oneself its role", sql.SQL("GRANT {} TO CURRENT_USER").format(role)
        yield "take its role's password", sql.SQL("ALTER ROLE {} PASSWORD NULL").format(role)
        yield (
            "be let in",
            sql.SQL(
                "GRANT CONNECT ON DATABASE {} TO CURRENT_USER; "
                "SELECT 1 / has_database_privilege({}, 'CONNECT')::int"  # a grant that gives nothing is only a warning
            ).format(database, self._other),
        )
        yield "rename it", sql.SQL("ALTER DATABASE {} RENAME TO {}").format(database, sql.Identifier(TRACE))
        yield "change its settings", sql.SQL("ALTER DATABASE {} SET work_mem TO '64kB'").format(database)
        path = sql.SQL("ALTER ROLE {} SET search_path TO {}").format(role, sql.Identifier(TRACE))
        yield "lead its search path elsewhere", path
        yield "measure it", sql.SQL("SELECT pg_database_size({})").format(self._other)

    def _led_out(self) -> Iterator[Step]:
        """Ways from inside one's own database to another."""
        for extension in EXTENSIONS:
            yield f"reach out by {extension}", sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(extension))
        yield (
            "use a foreign server",
            sql.SQL(
                "SELECT 1 / count(*) FROM pg_foreign_server "
                "WHERE {} = ANY (srvoptions) AND has_server_privilege(oid, 'USAGE')"
            ).format(f"dbname={self._other}"),
        )

    def _shadow(self, connection: Connection) -> Iterator[Attempt]:
        """Make functions in databases that all may enter: for administrators, or for what is made of them, to run."""
        try:
            common = connection.execute(_COMMON, [self._own, self._other]).fetchall()
        except psycopg.Error as error:
            yield Untried(self._name, "shadow functions", line(error))
            return
        for (database,) in common:
            what = f"shadow functions in {database}"
            try:
                inner = self._connect(database)
            except psycopg.OperationalError as error:
                yield self._not_let_in(what, error)
                continue
            with inner:
                yield self._step(inner, what, _SHADOW)

    def _step(self, connection: Connection, what: str, statement: Statement) -> Attempt:
        try:
            with connection.transaction(force_rollback=True):
                cursor = connection.execute(statement)
                while cursor.nextset():
                    pass
                row = cursor.fetchone() if cursor.description else None
        except psycopg.Error as error:
            return stopped(self._name, what, error)
        return Breach(self._name, what, f"it gave {row[0]!r}" if row else "it was done")

    def _change_the_server(self, connection: Connection) -> Attempt:
        """A setting that nobody sets is put back to what it is; this cannot be rolled back."""
        what = "change the server's settings"
        try:
            connection.execute("ALTER SYSTEM SET application_name TO DEFAULT")
        except psycopg.Error as error:
            return stopped(self._name, what, error)
        return Breach(self._name, what, "ALTER SYSTEM was done")

    def _terminate(self, connection: Connection, what: str, process: int) -> Attempt:
        try:
            row = connection.execute("SELECT pg_terminate_backend(%s)", [process]).fetchone()
        except psycopg.Error as error:
            return stopped(self._name, what, error)
        if row == (True,):
            return Breach(self._name, what, "it was done")
        return Untried(self._name, what, "the other's connection was gone already")

    def _disturb(self, connection: Connection, victim: Callable[[], Connection]) -> Iterator[Attempt]:
        """End a connection of the other's, hold its locks, talk into its channels."""
        end, lock, notify = "end its connections", "hold up its locks", "send it notifications"
        try:
            theirs = victim()
        except Exception as error:
            yield from (Untried(self._name, what, line(error)) for what in (end, lock, notify))
            return
        try:
            process = theirs.info.backend_pid
            number, channel = secrets.randbits(62), f"{TRACE}_{secrets.token_hex(8)}"  # others attack meanwhile
            theirs.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            connection.execute("SELECT pg_advisory_lock(%s)", [number])
            held = theirs.execute("SELECT pg_try_advisory_lock(%s)", [number]).fetchone() != (True,)
            connection.execute("SELECT pg_advisory_unlock(%s)", [number])
            connection.execute(sql.SQL("NOTIFY {}").format(sql.Identifier(channel)))
            heard = any(note.channel == channel for note in theirs.notifies(timeout=0))
            same = "a lock of the same number is the same lock"
            yield Breach(self._name, lock, same) if held else Attempt(self._name, lock)
            yield Breach(self._name, notify, "one was heard there") if heard else Attempt(self._name, notify)
            yield self._terminate(connection, end, process)
        except psycopg.Error as error:  # it is gone: its tenant is being destroyed, or the server went down
            yield from (Untried(self._name, what, line(error)) for what in (end, lock, notify))
        finally:
            with suppress(psycopg.Error):
                theirs.close()


def line(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split())[:200]


def stopped(name: str, what: str, error: psycopg.Error) -> Attempt:
    """An attempt that the server did not let through: refused, or not tried at all."""
    return (Attempt if error.sqlstate in REFUSED else Untried)(name, what, line(error))


def asked(name: str, connection: Connection, what: str, query: str, *, promised: bool = True) -> Attempt:
    """What came of a question whose every answer is a breach."""
    try:
        row = connection.execute(query.encode()).fetchone()
    except psycopg.Error as error:
        return Untried(name, what, line(error))
    if row is None or not row[0] or str(row[0]).startswith("0 "):
        return Attempt(name, what, "there is nothing")
    return Breach(name, what, str(row[0])[:300], promised)

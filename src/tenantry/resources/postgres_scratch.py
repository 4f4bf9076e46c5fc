"""Scratch databases on a PostgreSQL server, and which locks a migration holds while it runs in one."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql

from tenantry.model import Held, Login, Server
from tenantry.resources import postgres_admin as admin
from tenantry.resources import postgres_template as template
from tenantry.resources.history import BOOKKEEPING
from tenantry.resources.postgres_admin import Admin
from tenantry.resources.postgres_dialect import Connection
from tenantry.resources.postgres_run import RECORD
from tenantry.resources.scratch import Seen
from tenantry.resources.servers import PASSWORD_BYTES

SAMPLE: Final = 0.01
"""Seconds between two looks at the locks that are held."""

WEIGHED: Final = 25
"""How many looks at the locks come on one at the size of the database."""

MODES: Final = (
    ("AccessShareLock", ""),
    ("RowShareLock", ""),
    ("RowExclusiveLock", ""),
    ("ShareUpdateExclusiveLock", "changes of the schema"),
    ("ShareLock", "writes"),
    ("ShareRowExclusiveLock", "writes"),
    ("ExclusiveLock", "writes"),
    ("AccessExclusiveLock", "reads and writes"),
)
"""The modes of locks on tables from weak to strong, each with what of an application's waits for it.

After postgresql.org/docs/current/explicit-locking.html, table 13.2.
"""
_STRENGTH: Final = {mode: number for number, (mode, _) in enumerate(MODES)}
_WORDS: Final = {
    mode: "".join(f" {c}" if c.isupper() else c for c in mode.removesuffix("Lock")).strip().upper() for mode, _ in MODES
}

_NOTES: Final = sql.SQL("""
CREATE FUNCTION {note}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM pg_catalog.pg_notify({channel}, pg_catalog.concat_ws(' ', relation, mode,
    extract(epoch FROM now()), extract(epoch FROM clock_timestamp())))
  FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND relation IS NOT NULL AND granted;
  RETURN NULL;
END $$;
LISTEN {listened}""")
_NOTE: Final = sql.SQL("""
CREATE CONSTRAINT TRIGGER tenantry_rehearsal AFTER INSERT OR UPDATE OR DELETE ON {table}
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {note}()""")
"""As a migration's transaction commits, what it holds is told: nothing is missed, however short it was."""

_TABLES: Final = """
SELECT c.oid::bigint, CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname,
  pg_relation_filenode(c.oid)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_'
  AND n.nspname NOT IN ('information_schema', 'tenantry_rehearsal')"""
LOOK: Final = """
SELECT extract(epoch FROM clock_timestamp())::float8, ARRAY(
  SELECT l.relation::text || ' ' || l.mode FROM pg_locks l JOIN pg_stat_activity a USING (pid)
  WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND l.granted AND l.locktype = 'relation')"""
_END: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""


# --- databases ----------------------------------------------------------------------------------------------------


@contextmanager
def database(connection: Admin, server: Server, prefix: str, options: Any) -> Iterator[Login]:
    """An empty database, called like its own new login, which goes with the block; nobody else can connect to it."""
    login = Login(f"{prefix}{secrets.token_hex(7)}", secrets.token_urlsafe(PASSWORD_BYTES))
    role = sql.Identifier(login.user)
    may = sql.SQL("LOGIN PASSWORD {} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION")
    with admin.locked(connection, login.user):
        try:
            made = may.format(admin.verifier(connection, login.user, login.password))
            mark = admin.write_mark("scratch")
            steps: list[sql.Composable] = [
                sql.SQL("CREATE ROLE {} {}").format(role, made),
                sql.SQL("COMMENT ON ROLE {} IS {}").format(role, mark),
                admin.join(connection, login.user),
            ]
            admin.run(connection, steps)
            template.create_empty(connection, login.user, options)
            with admin.connected_to(server, login.user) as inner:
                inner.execute("SET ROLE pg_database_owner")
                template.extend(inner, server, options.extensions)
            owned = [
                sql.SQL("REVOKE ALL ON DATABASE {} FROM pg_database_owner").format(role),
                sql.SQL("ALTER DATABASE {} OWNER TO {}").format(role, role),
                sql.SQL("COMMENT ON DATABASE {} IS {}").format(role, mark),
            ]
            admin.run(connection, owned)
            yield login
        finally:
            with suppress(psycopg.OperationalError):  # the server is gone: `tidy` comes back to it
                remove(connection, login.user)


def remove(connection: Admin, name: str) -> None:
    """Remove a scratch database and its login, as far as they are there."""
    template.remove(connection, name)
    if name in admin.roles(connection, name):
        admin.run(connection, [sql.SQL("DROP ROLE {}").format(sql.Identifier(name))])


def tidy(connection: Admin, prefix: str) -> list[str]:
    """Remove the scratch databases that nobody works on, and logins without one; their names."""
    roles = connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (prefix,)).fetchall()
    names = {str(name) for (name,) in roles} | {found.name for found in admin.databases(connection, prefix)}
    removed = []
    for name in sorted(names):
        with admin.tried(connection, name) as free:
            if free:
                remove(connection, name)
                removed.append(name)
    return removed


def size(connection: Connection) -> int:
    """The bytes of a connection's database."""
    (found,) = connection.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
    return int(found)


# --- looking on ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Span:
    """When a lock was held, in the server's seconds: it was taken after `since`, and let go of before `until`."""

    since: float
    until: float


@dataclass(slots=True)
class _Looks:
    """What was seen from outside while one migration ran."""

    last: float
    spans: dict[tuple[int, str], _Span] = field(default_factory=dict)
    outgrown: bool = False

    def add(self, moment: float, held: Sequence[str]) -> None:
        """Take in one look at the locks."""
        for text in held:
            relation, mode = text.split(" ")
            span = self.spans.setdefault((int(relation), mode), _Span(self.last, moment))
            span.until = moment
        self.last = moment


class Watch:
    """Looks on, as the scratch database's owner, while migrations run in it."""

    def __init__(self, connection: Connection, room: int) -> None:
        self._connection = connection
        self._room = room
        self._told: list[str] = []  # by the database, as transactions committed
        connection.add_notify_handler(lambda note: self._told.append(note.payload))

    def begin(self, record: sql.Composable | None) -> None:
        """Make the database tell the locks that a migration holds as its record is committed to this table."""
        connection = self._connection
        connection.execute("CREATE SCHEMA tenantry_rehearsal")
        if record is not None:
            connection.execute(RECORD.format(record=record))
        query = "SELECT relname FROM pg_class WHERE relname = ANY (%s) AND relnamespace = 'public'::regnamespace"
        found = connection.execute(query, (list(BOOKKEEPING),)).fetchall()
        self._tell(
            "tenantry_rehearsal",
            sql.Identifier("tenantry_rehearsal", "note"),
            [sql.Identifier("public", name) for (name,) in found],
        )

    def _tell(self, channel: str, note: sql.Identifier, tables: Sequence[sql.Identifier]) -> None:
        """Make a function that tells the locks, and have it called as rows of these tables are committed."""
        names = {"note": note, "channel": sql.Literal(channel), "listened": sql.Identifier(channel)}
        self._connection.execute(_NOTES.format(**names))
        for table in tables:
            self._connection.execute(_NOTE.format(table=table, note=note))

    @contextmanager
    def over(self) -> Iterator[Seen]:
        """Look on for the time of a block; what was seen is there at its end."""
        seen, before = Seen(), self._tables()
        looks = _Looks(self._look()[0])
        over = threading.Event()
        looking = threading.Thread(target=self._look_on, args=(looks, over), daemon=True)
        looking.start()
        try:
            yield seen
        finally:
            over.set()
            looking.join()
        seen.outgrown = looks.outgrown
        after = self._tables()
        seen.locks = self._locks(looks, {oid: name for oid, (name, _) in before.items()})
        pairs = [(name, file, after[oid][1]) for oid, (name, file) in before.items() if oid in after]
        seen.rewritten = tuple(sorted(name for name, old, new in pairs if old != new))

    def _tables(self) -> dict[int, tuple[str, int | None]]:
        """Each table by its id, with its name and the file it lies in, which is another one when it is rewritten."""
        rows = self._connection.execute(_TABLES).fetchall()
        return {oid: (name, file) for oid, name, file in rows if name not in BOOKKEEPING}

    def _look(self) -> tuple[float, list[str]]:
        row = self._connection.execute(LOOK).fetchone()
        assert row is not None
        return row[0], row[1]

    def _look_on(self, looks: _Looks, over: threading.Event) -> None:
        count = 0
        with suppress(psycopg.OperationalError):  # the server is gone, as the migration notices as well
            while not over.wait(SAMPLE):
                looks.add(*self._look())
                count += 1
                if count % WEIGHED == 0:
                    self._weigh(looks)
            self._weigh(looks)

    def _weigh(self, looks: _Looks) -> None:
        if self._size() > self._room:
            looks.outgrown = True
            self._end()

    def _size(self) -> int:
        return size(self._connection)

    def _end(self) -> None:
        """End the sessions that migrate."""
        self._connection.execute(_END)

    def _locks(self, looks: _Looks, tables: dict[int, str]) -> tuple[Held, ...]:
        """The strongest lock on each table that was there before, and how long it was held at most."""
        for text in self._told:
            oid, mode, *moments = text.split(" ")
            began, ended = map(float, moments)
            known = looks.spans.get((int(oid), mode))
            since = max(began, known.since if known else min(looks.last, ended))
            looks.spans[int(oid), mode] = _Span(since, ended)
        self._told.clear()
        strongest: dict[int, str] = {}
        for relation, mode in looks.spans:
            if relation in tables and _STRENGTH.get(mode, 0) > _STRENGTH.get(strongest.get(relation, ""), 0):
                strongest[relation] = mode
        made = (
            Held(tables[relation], _WORDS[mode], MODES[_STRENGTH[mode]][1], _seconds(looks.spans[relation, mode]))
            for relation, mode in strongest.items()
        )
        return tuple(sorted(made, key=lambda held: held.table))


def _seconds(span: _Span) -> float:
    return max(0.0, span.until - span.since)

"""A MariaDB or MySQL database as statements that make it anew: for the golden script, for dumps, and to find drift."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Final

from pymysql.converters import escape_string
from pymysql.cursors import SSCursor

from tenantry.resources.history import BOOKKEEPING
from tenantry.resources.mysql_server import Connection, quote, told

CHUNK: Final = 1 << 19
"""Characters of one INSERT or one round trip, about: far below the smallest max_allowed_packet (16 MiB)."""

COUNTED: Final = 64 << 20
"""Bytes up to which a table's rows are counted; those of a larger one are the server's estimate."""

SESSION: Final = (
    "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00', foreign_key_checks = 0, unique_checks = 0"
)
"""How statements are rendered and run: dates in UTC, zeros as they are, tables in any order."""

HEAD: Final = "-- Tenantry, format 1. The client `mariadb` reads it, too.\nDELIMITER ;;\n"
TAIL: Final = "-- whole\n"
CODE: Final = "-- code\n"
"""Behind this line come views, triggers and routines; before it tables and rows."""

_DEFINER: Final = re.compile(r" DEFINER=(?:`(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)?)")
_COUNTER: Final = re.compile(r" AUTO_INCREMENT=\d+")
_NAMED: Final = re.compile(r"(?P<kind>[A-Z ]*?)(?P<name>`(?:[^`]|``)+`) ?(?P<rest>.*)", re.DOTALL)
_PARTS: Final = {
    "": "column",
    "CONSTRAINT": "constraint",
    "KEY": "index",
    "UNIQUE KEY": "index",
    "FULLTEXT KEY": "index",
    "SPATIAL KEY": "index",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One table, view, trigger, routine or event, and the statements that make it, empty."""

    kind: str  # "table", "view", "trigger", "function", "procedure", "event"
    name: str
    create: str
    mode: str = ""  # the sql_mode that code was written under


def items(connection: Connection, database: str, beginning: str = "") -> list[Item]:
    """Everything in the database a connection works in, in an order in which it can be made again.

    With a beginning only what is named so: asking for a thousand tables takes a server seconds.
    """
    found = [(name, kind) for name, kind in connection.ask("SHOW FULL TABLES") if name.startswith(beginning)]
    tables = sorted(name for name, kind in found if "VIEW" not in kind)
    views = _by_need([_view(connection, name) for name, kind in found if "VIEW" in kind])
    made = [Item("table", name, str(connection.ask(f"SHOW CREATE TABLE {quote(name)}")[0][1])) for name in tables]
    code = (*_routines(connection, beginning), *views, *_triggers(connection, beginning))
    return [_clean(item, database) for item in (*made, *code)]


def _clean(item: Item, database: str) -> Item:
    """An item without its maker's and its database's names: whoever makes it again is its definer."""
    head, body, rest = item.create.partition("(") if item.kind == "table" else (item.create, "", "")
    head = _DEFINER.sub("", head, count=1)
    text = head + body + rest
    return Item(item.kind, item.name, text.replace(f"{quote(database)}.", ""), item.mode)


def _view(connection: Connection, name: str) -> Item:
    return Item("view", name, str(connection.ask(f"SHOW CREATE VIEW {quote(name)}")[0][1]))


def _by_need(views: Sequence[Item]) -> list[Item]:
    """Views behind those they are made of."""
    left, done = {view.name: view for view in views}, []
    while left:
        free = [one for one in left.values() if not any(_uses(one, other) for other in left if other != one.name)]
        done += [left.pop(view.name) for view in free or list(left.values())]
    return done


def _uses(view: Item, name: str) -> bool:
    return quote(name) in view.create


def _routines(connection: Connection, beginning: str) -> Iterator[Item]:
    query = "SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = DATABASE()"
    for kind, name in sorted(row for row in connection.ask(query) if row[1].startswith(beginning)):
        _, mode, create, *_ = connection.ask(f"SHOW CREATE {kind} {quote(name)}")[0]
        yield Item(str(kind).lower(), name, str(create), mode)


def _triggers(connection: Connection, beginning: str) -> Iterator[Item]:
    query = (
        "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE() "
        "ORDER BY event_object_table, action_timing, event_manipulation, action_order"
    )
    for name in _names(connection, query, beginning):
        _, mode, create, *_ = connection.ask(f"SHOW CREATE TRIGGER {quote(name)}")[0]
        yield Item("trigger", name, str(create), mode)
    query = "SELECT event_name FROM information_schema.events WHERE event_schema = DATABASE() ORDER BY event_name"
    for name in _names(connection, query, beginning):
        _, mode, _zone, create, *_ = connection.ask(f"SHOW CREATE EVENT {quote(name)}")[0]
        yield Item("event", name, str(create), mode)


def _names(connection: Connection, query: str, beginning: str) -> list[str]:
    return [str(name) for (name,) in connection.ask(query) if name.startswith(beginning)]


# --- statements ---------------------------------------------------------------------------------------------------


def tables_of(connection: Connection, found: Iterable[Item]) -> Iterator[str]:
    """The statements that make tables with their rows."""
    tables = [item for item in found if item.kind == "table"]
    yield from (item.create for item in tables)
    for item in tables:
        yield from _rows(connection, item.name)


def code_of(found: Iterable[Item]) -> Iterator[str]:
    """The statements that make views, triggers, routines and events."""
    for item in found:
        if item.kind == "table":
            continue
        if item.mode:
            yield f"SET SESSION sql_mode = '{item.mode}'"
        yield item.create


def _rows(connection: Connection, table: str) -> Iterator[str]:
    """INSERT statements of all rows; text as text, bytes in hex. Columns that the server computes are left out."""
    query = (
        "SELECT column_name, extra FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s"
    )
    known = connection.ask(f"{query} ORDER BY ordinal_position", table)
    names = ", ".join(quote(name) for name, extra in known if " GENERATED" not in str(extra).upper())
    start = f"INSERT INTO {quote(table)} ({names}) VALUES\n"
    some: list[str] = []
    size = 0
    with told(connection.server), connection.cursor(SSCursor) as cursor:
        cursor.execute(f"SELECT {names} FROM {quote(table)}")  # noqa: S608 - quoted names
        for row in cursor:
            some.append(f"({', '.join(map(literal, row))})")
            size += len(some[-1])
            if size > CHUNK:
                yield start + ",\n".join(some)
                some, size = [], 0
    if some:
        yield start + ",\n".join(some)


def literal(value: str | bytes | None) -> str:
    """A value in a statement; bytes in hex."""
    if value is None:
        return "NULL"
    return f"X'{value.hex()}'" if isinstance(value, bytes) else f"'{escape_string(value)}'"


def run(connection: Connection, statements: Iterable[str]) -> None:
    """Run statements on a connection that takes several at once, in as few round trips as their length lets."""
    some, size = [SESSION], 0
    for statement in statements:
        some.append(statement)
        size += len(statement)
        if size > CHUNK:
            connection.run("\n;\n".join(some))
            some, size = [], 0
    if some:
        connection.run("\n;\n".join(some))


def empty(connection: Connection, database: str) -> None:
    """Remove views, triggers, routines and events from a database, as its administrator."""
    columns = {"view": "table", "trigger": "trigger", "routine": "routine", "event": "event"}
    for kind, prefix in columns.items():
        what = "routine_type" if kind == "routine" else f"'{kind}'"
        query = f"SELECT {what}, {prefix}_name FROM information_schema.{kind}s WHERE {prefix}_schema = %s"  # noqa: S608
        for word, name in connection.ask(query, database):
            connection.ask(f"DROP {word} IF EXISTS {quote(database)}.{quote(name)}")


def exchange(admin: Connection, new: str, name: str, old: str) -> None:
    """Let the tables of database `new` take the place of those of `name`, in one step for all who look.

    Those go to the empty database `old`: names of constraints are unique in each. Code goes from all of them.
    """
    for database in (name, new):
        empty(admin, database)
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type <> 'VIEW'"
    moves = [
        f"{quote(source)}.{quote(table)} TO {quote(target)}.{quote(table)}"
        for source, target in ((name, old), (new, name))
        for (table,) in admin.ask(query, source)
    ]
    if moves:
        admin.ask(f"RENAME TABLE {', '.join(moves)}")
        _redirect(admin, new, name)


def _redirect(admin: Connection, new: str, name: str) -> None:
    """Let defaults that take numbers from a sequence take them from the one that moved along."""
    query = (
        "SELECT table_name, column_name, column_default FROM information_schema.columns "
        "WHERE table_schema = %s AND column_default LIKE %s"
    )
    for table, column, default in admin.ask(query, name, f"%{new}%"):
        own = str(default).replace(f"{quote(new)}.", f"{quote(name)}.")
        admin.ask(f"ALTER TABLE {quote(name)}.{quote(table)} ALTER COLUMN {quote(column)} SET DEFAULT ({own})")


# --- files --------------------------------------------------------------------------------------------------------


def write(file: IO[str], connection: Connection, database: str) -> None:
    """Write everything that a connection's database holds, as of one moment."""
    connection.ask(SESSION)
    connection.ask("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.ask("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    found = items(connection, database)
    file.write(HEAD)
    for statement in (SESSION, *tables_of(connection, found)):
        file.write(f"{statement}\n;;\n")
    file.write(CODE)
    for statement in code_of(found):
        file.write(f"{statement}\n;;\n")
    file.write(TAIL)


def is_whole(file: IO[bytes]) -> bool:
    """Whether a file was written to its end."""
    start = file.read(len(HEAD))
    size = file.seek(0, 2)
    file.seek(max(0, size - len(TAIL)))
    return start.decode("utf-8", "replace") == HEAD and file.read().decode("utf-8", "replace") == TAIL


def read(file: IO[str], code: bool) -> Iterator[str]:
    """The statements of a file that make tables and rows, or those that make code."""
    inside, lines = False, list[str]()
    for line in file:
        if line in (CODE, TAIL) and not lines:
            inside = True
        elif line == ";;\n":
            if inside == code:
                yield "".join(lines).removesuffix("\n")
            lines.clear()
        elif line not in HEAD.splitlines(keepends=True) or lines:
            lines.append(line)


# --- drift --------------------------------------------------------------------------------------------------------


def shape(found: Iterable[Item]) -> dict[str, str]:
    """Every table, column, index, constraint, view and routine with its definition; migration records are left out."""
    parts: dict[str, str] = {}
    for item in found:
        if item.kind != "table":
            parts[f"{item.kind} {item.name}"] = item.create
        elif item.name not in BOOKKEEPING:
            parts.update(_table(item))
    return parts


def _table(item: Item) -> Iterator[tuple[str, str]]:
    """The lines of CREATE TABLE, each by what it defines; how far a counter has come is not part of the schema."""
    lines = item.create.split("\n")
    yield f"table {item.name}", _COUNTER.sub("", lines[-1])
    for line in lines[1:-1]:
        text = line.strip().removesuffix(",")
        match = _NAMED.match(text)
        kind = match["kind"].strip() if match else ""
        if match is None or text.startswith("PRIMARY KEY"):
            yield f"primary key of {item.name}", text
        else:
            name = match["name"][1:-1].replace("``", "`")
            yield f"{_PARTS.get(kind, kind.lower())} {name} of {item.name}", text


def size(connection: Connection, beginning: str = "") -> tuple[int, int]:
    """Bytes and rows of the tables in a connection's database whose names begin so; no rows of migration records.

    Rows of large tables are estimated.
    """
    query = (
        "SELECT table_name, data_length + index_length, table_rows FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
    )
    found = [(str(name), int(taken), int(rows)) for name, taken, rows in connection.ask(query)]
    found = [one for one in found if one[0].startswith(beginning)]
    owned = [one for one in found if one[0].removeprefix(beginning) not in BOOKKEEPING]
    counted = [f"(SELECT count(*) FROM {quote(name)})" for name, taken, _ in owned if taken <= COUNTED]  # noqa: S608
    ((rows,),) = connection.ask(f"SELECT {' + '.join(counted) or '0'}")
    estimated = sum(guess for _, taken, guess in owned if taken > COUNTED)
    return sum(taken for _, taken, _ in found), int(rows) + estimated

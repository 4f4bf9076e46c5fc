"""The statements that make one SQLite database what another one is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tenantry.resources.history import BOOKKEEPING

OLD: Final = "tenantry_old_"
"""How a table is called while a new one takes its place."""


def statements(golden: sqlite3.Connection, found: sqlite3.Connection) -> tuple[str, ...]:
    """What to run in `found`, in this order, so that it is made of what `golden` is made of.

    A table that differs is made anew and filled with what both have, in the way of sqlite.org/lang_altertable.html,
    section 7; the old one gives way by its name, so that the new one is spelled as it is to be. What cannot be done so
    ends the list as comments that begin with "-- by hand". Statements that lose data have a comment that says so.
    """
    return _framed(list(_changes(golden, found)))


def of_tables(golden: sqlite3.Connection, found: sqlite3.Connection) -> tuple[str, ...]:
    """The same for the tables of `golden` alone: all else in `found` stays, what lies on these tables too."""
    then, now = _made(golden), _made(found)
    old = [name for kind, name in then if (kind, name) in now and now[kind, name][1] != then[kind, name][1]]
    changes = [one[1] for key, one in then.items() if key not in now]
    for name in old:
        changes += _anew(golden, found, name, then["table", name][1])
    changes += [one[1] for (kind, _), one in now.items() if kind != "table" and one[0] in old]
    return _framed(changes)


def _framed(changes: Sequence[str]) -> tuple[str, ...]:
    if not changes:
        return ()
    begin = ("PRAGMA foreign_keys = OFF", "PRAGMA legacy_alter_table = ON", "BEGIN IMMEDIATE")
    return (*begin, *changes, "COMMIT", "PRAGMA legacy_alter_table = OFF", "PRAGMA foreign_keys = ON")


def _changes(golden: sqlite3.Connection, found: sqlite3.Connection) -> Iterator[str]:
    then, now = _made(golden), _made(found)
    anew = {key for key in then.keys() & now.keys() if key[0] == "table" and then[key][1] != now[key][1]}
    tables = {name for _, name in anew}
    odd = {key for key in anew if "VIRTUAL" in (then[key][1] + now[key][1]).upper().split("(")[0].split()}
    gone = {key for key, one in now.items() if key[0] != "table" and (then.get(key) != one or one[0] in tables)}
    extra = [key for key in now if key[0] == "table" and key not in then]
    yield from (f"DROP {kind.upper()} {quote(name)}" for kind, name in sorted(gone, reverse=True))
    yield from (f"-- loses the rows of {name}\nDROP TABLE {quote(name)}" for _, name in extra)
    yield from (then[key][1] for key in then if key[0] == "table" and key not in now)
    for key in sorted(anew - odd):
        yield from _anew(golden, found, key[1], then[key][1])
    yield from (then[key][1] for key in then if key[0] != "table" and (key not in now or key in gone))
    yield from (f"-- by hand: table {name} differs: it is virtual" for _, name in sorted(odd))


def _made(connection: sqlite3.Connection) -> dict[tuple[str, str], tuple[str, str]]:
    """Each thing by its kind and name, with the table it is on and its SQL, tables first, as they were made."""
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
        "AND name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow') ORDER BY type <> 'table', rowid"
    )
    return {(kind, name): (table, sql) for kind, name, table, sql in rows if kind != "table" or name not in BOOKKEEPING}


def _anew(golden: sqlite3.Connection, found: sqlite3.Connection, name: str, create: str) -> Iterator[str]:
    wanted, there = _columns(golden, name), _columns(found, name)
    both = ", ".join(quote(column) for column in wanted if column in there)
    lost = [column for column in there if column not in wanted]
    old, table = quote(OLD + name), quote(name)
    told = f"-- loses what is in {', '.join(lost)}\n" if lost else ""
    yield f"{told}ALTER TABLE {table} RENAME TO {old}"
    yield create
    if both:
        yield f"INSERT INTO {table} ({both}) SELECT {both} FROM {old}"  # noqa: S608 - quoted names
    if "AUTOINCREMENT" in create.upper() and "AUTOINCREMENT" in _made(found)["table", name][1].upper():
        yield f"DELETE FROM sqlite_sequence WHERE name = {_text(name)}"  # noqa: S608 - quoted
        counter = f"SELECT {_text(name)}, seq FROM sqlite_sequence WHERE name = {_text(OLD + name)}"  # noqa: S608
        yield f"INSERT INTO sqlite_sequence (name, seq) {counter}"
    yield f"DROP TABLE {old}"


def _columns(connection: sqlite3.Connection, table: str) -> Mapping[str, int]:
    """The columns of a table that are not computed."""
    rows = connection.execute("SELECT name, cid FROM pragma_table_xinfo(?) WHERE hidden = 0 ORDER BY cid", (table,))
    return dict(rows.fetchall())


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def quote(name: str) -> str:
    """A name as an SQL identifier (sqlite.org/lang_keywords.html)."""
    return '"' + name.replace('"', '""') + '"'

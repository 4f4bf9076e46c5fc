"""The statements that make one MariaDB or MySQL database what another one is, by what makes each of them anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tenantry.resources import mysql_script
from tenantry.resources.history import BOOKKEEPING
from tenantry.resources.mysql_script import Item
from tenantry.resources.mysql_server import quote

_IDENT: Final = re.compile(r"`(?:[^`]|``)+`")
_CHARSET: Final = re.compile(r"DEFAULT CHARSET=(\w+)(?: COLLATE=(\w+))?")
_SPECIAL: Final = re.compile(r"\bPARTITION BY\b|\bSEQUENCE=1\b")
_WORDS: Final = {"view": "VIEW", "trigger": "TRIGGER", "function": "FUNCTION", "procedure": "PROCEDURE"}


def statements(golden: Sequence[Item], found: Sequence[Item]) -> tuple[str, ...]:
    """What to run in the database `found` is of, in this order, so that it becomes what `golden` is.

    What cannot be said in a statement ends the list as comments that begin with "-- by hand". Statements that lose
    data have a comment before them that says so.
    """
    then, now = _named(golden), _named(found)
    tables = _tables({k: i for k, i in then.items() if i.kind == "table"}, now)
    extra = [item for key, item in now.items() if item.kind == "table" and key not in then]
    code = [key for key, item in now.items() if item.kind != "table" and item != then.get(key)]
    made = [item for key, item in then.items() if item.kind != "table" and item != now.get(key)]
    return (
        *(f"DROP {_word(now[key])} {quote(now[key].name)}" for key in reversed(code)),
        *(statement for item in extra for statement in _foreign_dropped(item, ())),
        *(statement for table in tables for statement in table.first),
        *(f"-- loses the rows of {item.name}\nDROP TABLE {quote(item.name)}" for item in extra),
        *(statement for table in tables for statement in table.main),
        *(statement for table in tables for statement in table.last),
        *mysql_script.code_of(made),
        *(f"-- by hand: table {table.name} differs: it is partitioned or a sequence" for table in tables if table.odd),
    )


def _named(items: Iterable[Item]) -> dict[str, Item]:
    return {f"{item.kind} {item.name}": item for item in items if item.kind != "table" or item.name not in BOOKKEEPING}


def _word(item: Item) -> str:
    return _WORDS.get(item.kind, item.kind.upper())


@dataclass(frozen=True, slots=True)
class _Table:
    """What changes one table: foreign keys go first and come last, everything between is one statement."""

    name: str
    first: Sequence[str] = ()
    main: Sequence[str] = ()
    last: Sequence[str] = ()
    odd: bool = False


def _tables(golden: Mapping[str, Item], found: Mapping[str, Item]) -> list[_Table]:
    changes = []
    for key, item in golden.items():
        now = found.get(key)
        if now is None:
            changes.append(_new(item))
        elif mysql_script.shape([item]) != mysql_script.shape([now]):
            odd = _SPECIAL.search(item.create) or _SPECIAL.search(now.create)
            changes.append(_Table(item.name, odd=True) if odd else _changed(item, now))
    return changes


def _new(item: Item) -> _Table:
    """A table without its foreign keys, which may lead to tables that come after it."""
    lines = item.create.split("\n")
    kept = [line.rstrip(",") for line in lines[1:-1] if not _is_foreign(line)]
    create = "\n".join([lines[0], ",\n".join(kept), lines[-1]]) if not _SPECIAL.search(item.create) else item.create
    keys = [f"ADD {line.strip().rstrip(',')}" for line in lines[1:-1] if _is_foreign(line)]
    return _Table(item.name, main=[create], last=[_alter(item.name, keys)] if keys else ())


def _changed(item: Item, now: Item) -> _Table:
    then, there = mysql_script.shape([item]), mysql_script.shape([now])
    options = f"table {item.name}"
    converted = _charset(then[options]) != _charset(there[options])
    wanted = {key: text for key, text in then.items() if key != options}
    main = [*_dropped(wanted, there, options), *_added(wanted, there)]
    if then[options] != there[options]:
        main.append(_options(then[options], there[options]))
    lost = [_ident(text) for key, text in there.items() if key.startswith("column ") and key not in then]
    told = f"-- loses what is in {', '.join(lost)}\n" if lost else ""
    statements = [told + _alter(item.name, main)] if main else []
    if converted:
        charset, collation = _charset(then[options])
        statements.append(_alter(item.name, [f"CONVERT TO CHARACTER SET {charset} COLLATE {collation}"]))
        statements.append(_alter(item.name, [f"MODIFY COLUMN {t}" for k, t in wanted.items() if _is_column(k)]))
    keys = [f"ADD {text}" for key, text in wanted.items() if _is_foreign(text) and there.get(key) != text]
    equal = [text for key, text in there.items() if then.get(key) == text]
    return _Table(item.name, list(_foreign_dropped(now, equal)), statements, [_alter(item.name, keys)] if keys else ())


def _dropped(wanted: Mapping[str, str], there: Mapping[str, str], options: str) -> Iterator[str]:
    for key, text in there.items():
        if key == options or _is_foreign(text) or wanted.get(key) == text:
            continue
        if key.startswith("primary key "):
            yield "DROP PRIMARY KEY"
        elif not _is_column(key):
            yield f"DROP {'CONSTRAINT' if key.startswith('constraint ') else 'INDEX'} {_ident(text)}"
        elif key not in wanted:
            yield f"DROP COLUMN {_ident(text)}"


def _added(wanted: Mapping[str, str], there: Mapping[str, str]) -> Iterator[str]:
    before = "FIRST"
    for key, text in wanted.items():
        if not _is_foreign(text) and there.get(key) != text:
            if not _is_column(key):
                yield f"ADD {text}"
            elif key in there:
                yield f"MODIFY COLUMN {text}"
            else:
                yield f"ADD COLUMN {text} {before}"
        if _is_column(key):
            before = f"AFTER {_ident(text)}"


def _foreign_dropped(item: Item, kept: Sequence[str]) -> Iterator[str]:
    texts = [text for text in mysql_script.shape([item]).values() if _is_foreign(text) and text not in kept]
    if texts:
        yield _alter(item.name, [f"DROP FOREIGN KEY {_ident(text)}" for text in texts])


def _options(then: str, now: str) -> str:
    """The options of a table as ALTER TABLE takes them."""
    comment = " COMMENT=''" if "COMMENT=" in now and "COMMENT=" not in then else ""
    return then.removeprefix(")").strip() + comment


def _charset(options: str) -> tuple[str, str]:
    match = _CHARSET.search(options)
    return (match[1], match[2] or f"{match[1]}_general_ci") if match else ("", "")


def _alter(table: str, actions: Iterable[str]) -> str:
    return f"ALTER TABLE {quote(table)}\n  " + ",\n  ".join(actions)


def _is_column(key: str) -> bool:
    return key.startswith("column ")


def _is_foreign(text: str) -> bool:
    return " FOREIGN KEY " in text and text.lstrip().startswith("CONSTRAINT ")


def _ident(text: str) -> str:
    """The name that a line of CREATE TABLE is about, quoted as it stands there."""
    match = _IDENT.search(text)
    assert match is not None
    return match[0]

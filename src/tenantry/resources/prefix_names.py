"""Names with a prefix: which one a tenant gets, where it stands in files, and what names something without it."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from tenantry.errors import MigrationInvalid
from tenantry.model import expand, fields_of
from tenantry.resources import statements
from tenantry.resources.schema import Migration
from tenantry.resources.servers import NAME_FACTS

if TYPE_CHECKING:
    import sqlalchemy

PLACEHOLDER: Final = "{prefix}"
"""What stands in files, and in an application's statements, for the tenant's prefix."""

ENDING: Final = "__"
"""How every prefix ends, and what stands nowhere else in it: so no prefix is the beginning of another one."""

PREFIX_LIMIT: Final = 28
"""The longest prefix in characters: PostgreSQL cuts the names it makes up itself, and cuts no table's to less."""

NAME_LIMIT: Final = 63 - PREFIX_LIMIT
"""The longest name behind the prefix: PostgreSQL takes 63 octets in all, MySQL 64 characters."""

_MARK: Final = "tenantry0mark" + ENDING  # stands for the placeholder where SQL is read: no name begins so by itself
_OTHER: Final = re.compile(r"[^a-z0-9]+")
_LITERAL: Final = re.compile(r"[a-z0-9]*(?:_[a-z0-9]+)*", re.ASCII)


def check_pattern(value: str) -> str:
    """A pattern of prefixes that keeps the rules, as pydantic asks for it: raises `ValueError`."""
    named = fields_of(value)
    if not named & {"slug", "client_id", "id"}:
        raise ValueError('it must tell tenants apart, by {slug}, {client_id} or {id}, such as "{slug}__"')
    if odd := named - NAME_FACTS:
        raise ValueError(f"a prefix may hold {{slug}}, {{client_id}}, {{id}} and {{environment}}, not {{{min(odd)}}}")
    stem = value.removesuffix(ENDING)
    if stem == value:
        raise ValueError(f'it must end with {ENDING}, which keeps "acme{ENDING}" apart from "acme_eu{ENDING}"')
    plain = expand(stem, dict.fromkeys(NAME_FACTS, "a"))
    if not _LITERAL.fullmatch(plain) or not plain[0].isalpha():
        raise ValueError(f"a prefix is made of a-z, 0-9 and single _, begins with a letter and ends with {ENDING}")
    return value


def prefixes(pattern: str, facts: Mapping[str, Any], unique: str) -> tuple[str, str]:
    """The first choice of a prefix, and one that nobody else has, which ends with the letters `unique`.

    Hyphens become `_`. No slug has two in a row, so that two slugs never come to one prefix by it.
    """
    filled = {name: _OTHER.sub("_", str(value).lower()).strip("_") for name, value in facts.items()}
    stem = expand(pattern.removesuffix(ENDING), filled)
    if not stem[0].isalpha():  # PostgreSQL takes no name that begins with a digit, unless it is quoted everywhere
        stem = f"t{stem}"
    room = PREFIX_LIMIT - len(ENDING)
    apart = f"{stem[: room - len(unique) - 1].rstrip('_')}_{unique}{ENDING}"
    return (f"{stem}{ENDING}" if len(stem) <= room else apart), apart


def render(text: str, prefix: str) -> str:
    """A text with the prefix in its places."""
    return text.replace(PLACEHOLDER, prefix)


def rendered(migration: Migration, prefix: str) -> Migration:
    """A migration with the prefix in its places."""
    down = None if migration.down is None else tuple(render(one, prefix) for one in migration.down)
    return dataclasses.replace(migration, up=tuple(render(one, prefix) for one in migration.up), down=down)


def watch(connection: sqlalchemy.Connection, dialect: str, prefix: str, name: str) -> None:
    """Let what a Python file does hold to the rules of files, and put the prefix in its places there, too."""
    from sqlalchemy import event

    @event.listens_for(connection, "before_cursor_execute", retval=True)
    def hold(_: Any, __: Any, statement: str, values: Any, *___: Any) -> tuple[str, Any]:
        check(dialect, statement, name)
        return render(statement, prefix), values


def split(dialect: str, cut: Callable[[str, str], tuple[str, ...]], sql: str, name: str) -> tuple[str, ...]:
    """The statements of a script, with the placeholder in them, cut by a dialect's own rules.

    Raises `MigrationInvalid` as `cut` does, and for a statement that names something without the placeholder.
    """
    found = cut(sql.replace(PLACEHOLDER, _MARK), name)
    for statement in found:
        _check(dialect, statement, name)
    return tuple(statement.replace(_MARK, PLACEHOLDER) for statement in found)


def check(dialect: str, statement: str, name: str) -> None:
    """Raise `MigrationInvalid` for a statement that names something without the placeholder."""
    _check(dialect, statement.replace(PLACEHOLDER, _MARK), name)


def _check(dialect: str, statement: str, name: str) -> None:
    words = _COMMENT.sub(" ", statement).split(maxsplit=1)
    if dialect == "mysql" and words and words[0].upper() in _TEXTS:  # elsewhere the catalog tells what was done
        raise MigrationInvalid(
            path=name,
            reason=f"it runs a text as a statement ({words[0].upper()}), in which nothing can be looked at",
            remedy="Write the statement itself.",
        )
    for word in _named(dialect, statement):
        if not word.startswith(_MARK):
            raise MigrationInvalid(
                path=name,
                reason=f"it names '{word}' without the prefix",
                remedy=f"Write {PLACEHOLDER}{word}: whatever has no prefix is nobody's, or somebody else's.",
            )
        if len(word) > len(_MARK) + NAME_LIMIT:
            own = word.removeprefix(_MARK)
            raise MigrationInvalid(
                path=name,
                reason=f"the name '{own}' is longer than {NAME_LIMIT} letters",
                remedy=f"Shorten it: a prefix takes up to {PREFIX_LIMIT}, and a server knows 63 in all.",
            )


# --- what a statement names ---------------------------------------------------------------------------------------

_COMMON: Final = frozenset(
    "CAST COLLATION DATABASE EXTENSION LANGUAGE PUBLICATION ROLE SCHEMA SERVER SUBSCRIPTION TABLESPACE USER".split()
)
"""Kinds of things that all tenants have in common."""

_TEXTS: Final = frozenset({"EXECUTE", "PREPARE"})
_VERBS: Final = frozenset("CREATE ALTER DROP RENAME LOCK REPLACE TRUNCATE COMMENT REINDEX CLUSTER INSERT".split())
_NOISE: Final = _VERBS | frozenset(
    "OR IF NOT EXISTS ONLY CONCURRENTLY UNIQUE INTO TEMP TEMPORARY UNLOGGED MATERIALIZED IGNORE LOW_PRIORITY DELAYED "
    "TABLE TABLES VIEW FUNCTION PROCEDURE EVENT TYPE DOMAIN SEQUENCE INDEX AGGREGATE STATISTICS CONSTRAINT ON "
    "RECURSIVE FULLTEXT SPATIAL ONLINE OFFLINE COLUMN TRIGGER POLICY RULE ROUTINE".split()
)
_OF_A_TABLE: Final = {
    "postgres": frozenset({"TRIGGER", "POLICY", "RULE"}),
    "mysql": frozenset({"INDEX"}),
}
"""What has its name within its table, by dialect."""

_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_WORD: Final = re.compile(r'["`]([^"`]+)["`]|[\w$]+|\.')
_OWN: Final = frozenset({"pg_catalog", "information_schema"})
_QUIET: Final = "Falling back to parsing as a 'Command'"

logging.getLogger("sqlglot").addFilter(lambda record: _QUIET not in record.getMessage())  # `_head` reads those


def _named(dialect: str, statement: str) -> Iterator[str]:
    """Whatever a statement names that lies in the database itself: tables, indexes, constraints, functions."""
    trees = statements.trees(dialect, statement)
    from sqlglot import exp

    for tree in trees:
        if tree is None:
            yield from _head(dialect, statement)
        else:
            yield from _tables(dialect, tree)
            yield from (one.name for one in tree.find_all(exp.Constraint) if one.name)
            if dialect != "mysql":
                yield from (one.name for one in tree.find_all(exp.Index) if one.name)


def _tables(dialect: str, tree: Any) -> Iterator[str]:
    from sqlglot import exp

    if isinstance(tree, exp.Create | exp.Drop | exp.Alter) and str(tree.args.get("kind")).upper() in _COMMON:
        yield str(tree.args["kind"])
    within = isinstance(tree, exp.Drop) and tree.args.get("kind") in _OF_A_TABLE[dialect]
    made = {one.alias for one in tree.find_all(exp.CTE)}
    aliases = {one.alias for one in tree.find_all(exp.Table) if one.alias}
    for table in tree.find_all(exp.Table):
        meant = not (within and table.parent is tree) and table.name not in made
        meant = meant and bool(table.alias or table.name not in aliases)
        system = table.db.lower() in _OWN or (dialect == "postgres" and table.name.startswith("pg_"))
        if meant and not system and isinstance(table.this, exp.Identifier):
            yield table.name


def _head(dialect: str, statement: str) -> Iterator[str]:
    """What a statement that only its server understands names at its beginning."""
    words = [one[1] or one[0] for one in _WORD.finditer(_COMMENT.sub(" ", statement))]
    if not words or words[0].upper() not in _VERBS:
        return
    for number, word in enumerate(words):
        if word.upper() in _COMMON:
            yield word
            return
        if word.upper() not in _NOISE:
            yield from _from(dialect, words[:number], words[number:])
            return


def _from(dialect: str, before: list[str], words: list[str]) -> Iterator[str]:
    upper = [word.upper() for word in words]
    if not {word.upper() for word in before} & _OF_A_TABLE[dialect]:
        yield words[2] if upper[1:2] == ["."] else words[0]
    marks = {"ON"} if {"TRIGGER", "POLICY", "RULE"} & {word.upper() for word in before} else set[str]()
    marks |= {"TO"} if before[:1] and before[0].upper() == "RENAME" else set()
    yield from (after for word, after in pairwise(words) if word.upper() in marks)

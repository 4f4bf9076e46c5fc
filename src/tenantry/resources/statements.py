"""The statements of an SQL script, told apart by the quotes, comments and bodies of a server's dialect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from threading import Lock
from typing import Any, Final, TypeAlias

from tenantry.errors import MigrationInvalid

Token: TypeAlias = Any
"""A token of sqlglot's: `text`, `start` and `end` in the script, the name of its type."""

TRANSACTION: Final = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "ABORT", "START"})
"""First words of statements that begin or end a transaction."""


_loading: Final = Lock()  # sqlglot's modules load one another, at which two threads wait for each other for ever


@cache
def _dialect(name: str) -> tuple[Any, type[Exception]]:
    """What reads a dialect, and what it raises for a script it cannot read."""
    with _loading:
        from sqlglot.dialects.dialect import Dialect  # takes a quarter of a second: only where a script is read
        from sqlglot.errors import TokenError

        return Dialect.get_or_raise(name), TokenError


def split(dialect: str, sql: str, name: str) -> tuple[str, ...]:
    """The statements of a script in a dialect of sqlglot's, blank ones left out.

    Raises `MigrationInvalid` for a quote or comment that does not end, for statements that begin or end a transaction,
    and for those that need a client of their own.
    """
    reader, unreadable = _dialect(dialect)
    try:
        tokens = reader.tokenize(sql)
    except unreadable as error:
        reason = str(error).partition("\n")[0]
        raise MigrationInvalid(path=name, reason=f"it cannot be read: {reason}") from error
    return tuple(sql[part[0].start : part[-1].end + 1] for part in _parts(tokens) if _allowed(part, name))


def trees(dialect: str, sql: str) -> list[Any]:
    """What a statement says, as sqlglot's trees; None in the place of one that only its server understands."""
    reader, _ = _dialect(dialect)
    with _loading:
        from sqlglot import exp
        from sqlglot.errors import SqlglotError

    try:
        found = reader.parse(sql)
    except SqlglotError:
        return [None]
    return [None if isinstance(tree, exp.Command) else tree for tree in found]


def needless(name: str, why: str) -> MigrationInvalid:
    """The refusal of `transaction=off` where a database has no use for it."""
    remedy = "Take it out of the file's first lines; it is for PostgreSQL's CREATE INDEX CONCURRENTLY and the like."
    return MigrationInvalid(path=name, reason=f"it says transaction=off, and {why}", remedy=remedy)


def ends_transaction(dialect: str, sql: str) -> bool:
    """Whether any statement of a script begins or ends a transaction, or cannot be read."""
    try:
        split(dialect, sql, "")
    except MigrationInvalid:
        return True
    return False


def _parts(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The tokens of each statement, the semicolon behind it left out; those between BEGIN ATOMIC and END are inside."""
    part: list[Token] = []
    depth = 0
    for number, token in enumerate(tokens):
        word = token.text.upper()
        if token.token_type.name == "SEMICOLON" and not depth:
            if part:
                yield part
            part = []
            continue
        following = tokens[number + 1].text.upper() if number + 1 < len(tokens) else ""
        if token.token_type.name not in ("STRING", "IDENTIFIER"):
            depth += (word == "BEGIN" and following == "ATOMIC") or (depth > 0 and word == "CASE")
            depth -= depth > 0 and word == "END"
        part.append(token)
    if part:
        yield part


def _allowed(part: Sequence[Token], name: str) -> bool:
    words = [token.text.upper() for token in part]
    if words[0] in TRANSACTION or (words[0] == "PREPARE" and any(word.startswith("TRANSACTION") for word in words)):
        raise MigrationInvalid(
            path=name,
            reason=f"it has the statement {words[0]}",
            remedy="Remove it: each migration runs in a transaction of its own, inside one database.",
        )
    if words[0] == "COPY" and {"STDIN", "STDOUT"} & set(words):
        raise MigrationInvalid(
            path=name,
            reason="it has a COPY that reads from or writes to a client",
            remedy="Write the rows as INSERT statements (pg_dump does so with --inserts).",
        )
    return True

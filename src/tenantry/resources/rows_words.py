"""Where in a statement its keys stand: no more of PostgreSQL's grammar than that, and nothing of what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from sqlglot import Token
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError

from tenantry.resources.rows_inspect import TENANT

Span = tuple[int, int]
"""From one word to another, that one left out."""

Edit = tuple[int, int, str]
"""From one character to another, that one left out, and what stands there instead."""

KEYS: Final = frozenset({"UNIQUE", "PRIMARY KEY", "FOREIGN KEY", "EXCLUDE"})
"""What a key of a table begins with."""

_OWN: Final = frozenset({TENANT.upper(), f'"{TENANT}"'})
_ANY: Final = re.compile(
    r"\A\W*.*?\b(create|alter)\b.*\b(references|unique|primary|exclude|index|validate)\b", re.I | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word or sign, in capitals unless it is quoted, and the characters where it stands."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Index:
    """Where a CREATE INDEX has its parts."""

    named: bool
    on: int  # the word ON
    table: Span
    method: str  # in capitals; empty: none is named
    keys: Span  # with what follows them


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a foreign key names a table, and whether it names the tenant."""

    table: Span
    tenant: bool


@dataclass(frozen=True)
class Words:
    """A statement, word by word."""

    text: str
    words: Sequence[Word]

    # --- words ---

    def word(self, place: int) -> str:
        """A word; empty behind the last."""
        return self.words[place].text if 0 <= place < len(self.words) else ""

    def part(self, span: Span) -> str:
        """The text of several words."""
        return self.text[self.words[span[0]].start : self.words[span[1] - 1].end] if span[0] < span[1] else ""

    def names_tenant(self, span: Span) -> bool:
        """Whether the column `tenant_id` is among these words."""
        return any(word.text in _OWN for word in self.words[slice(*span)])

    def edit(self, span: Span, text: str) -> Edit:
        """Another text in the place of several words."""
        return self.words[span[0]].start, self.words[span[1] - 1].end, text

    def before(self, place: int, text: str) -> Edit:
        """A text before a word."""
        return self.words[place].start, self.words[place].start, text

    def edited(self, edits: Sequence[Edit], span: Span | None = None) -> str:
        """The statement, or a part of it, after these edits."""
        start, end = (self.words[span[0]].start, self.words[span[1] - 1].end) if span else (0, len(self.text))
        pieces = []
        for first, last, text in sorted(edits):
            pieces += [self.text[start:first], text]
            start = last
        return "".join([*pieces, self.text[start:end]])

    def _past(self, place: int, *phrase: str) -> int:
        """The place behind a phrase where it stands there, else the same place."""
        return place + len(phrase) if all(self.word(place + n) == one for n, one in enumerate(phrase)) else place

    def _name(self, place: int) -> Span:
        """A name there, with its schema."""
        end = place + 1
        while self.word(end) == ".":
            end += 2
        return place, end

    def _closed(self, place: int) -> int:
        """The place behind what an opening parenthesis there holds."""
        depth = 0
        for number in range(place, len(self.words)):
            depth += (self.word(number) == "(") - (self.word(number) == ")")
            if not depth:
                return number + 1
        return len(self.words)

    # --- statements ---

    @cached_property
    def index(self) -> Index | None:
        """The index that it makes."""
        place = self._past(1, "UNIQUE")
        if self.word(0) != "CREATE" or self.word(place) != "INDEX":
            return None
        place = self._past(self._past(place + 1, "CONCURRENTLY"), "IF", "NOT", "EXISTS")
        named = self.word(place) != "ON"
        on = self._name(place)[1] if named else place
        table = self._name(self._past(on + 1, "ONLY"))
        method = self.word(table[1] + 1) if self.word(table[1]) == "USING" else ""
        keys = table[1] + (2 if method else 0) + 1
        return Index(named, on, table, method, (keys, len(self.words))) if self.word(on) == "ON" else None

    @cached_property
    def altered(self) -> Span | None:
        """The table that it alters."""
        if (self.word(0), self.word(1)) != ("ALTER", "TABLE"):
            return None
        return self._name(self._past(self._past(2, "IF", "EXISTS"), "ONLY"))

    @property
    def makes_table(self) -> bool:
        """Whether it makes one."""
        return self.word(0) == "CREATE" and "TABLE" in [word.text for word in self.words[1:4]]

    @property
    def validates(self) -> bool:
        """Whether an ALTER TABLE has keys checked that were not."""
        return any(self.word(start) == "VALIDATE" for start, _ in self.parts)

    @cached_property
    def parts(self) -> Sequence[Span]:
        """What an ALTER TABLE does, one after the other; of any other statement, all of it."""
        if self.altered is None:
            return [(0, len(self.words))]
        return list(self._parted(self._past(self.altered[1], "*")))

    def _parted(self, start: int) -> Iterator[Span]:
        place = start
        while place < len(self.words):
            if self.word(place) == ",":
                yield start, place
                start = place + 1
            place = self._closed(place) if self.word(place) == "(" else place + 1
        yield start, place

    def key(self, part: Span) -> tuple[str, bool]:
        """The sort of key that a part of an ALTER TABLE adds, and whether it names it; empty where it adds none."""
        place = self._past(part[0], "ADD")
        named = self.word(place) == "CONSTRAINT"
        kind = self.word(place + 2 * named)
        column = kind == "EXCLUDE" and self.word(place + 2 * named + 1) not in ("USING", "(")
        return ("", False) if place == part[0] or kind not in KEYS or column else (kind, named)

    def uses_index(self, part: Span) -> bool:
        """Whether a key takes an index that is there."""
        return any((self.word(place), self.word(place + 1)) == ("USING", "INDEX") for place in range(*part))

    def references(self, part: Span) -> Iterator[Reference]:
        """The foreign keys in a part."""
        for place in range(*part):
            if self.word(place) == "REFERENCES":
                table = self._name(place + 1)
                theirs = (table[1], self._closed(table[1]) if self.word(table[1]) == "(" else table[1])
                yield Reference(table, self.names_tenant(theirs) or self.names_tenant(self._own(place)))

    def _own(self, place: int) -> Span:
        """The columns of the FOREIGN KEY before a REFERENCES; none where it belongs to a column."""
        start = place
        while self.word(place - 1) == ")" and start > 0 and self.word(start) != "(":
            start -= 1
        return (start, place) if self.word(start - 1) == "FOREIGN KEY" else (place, place)


def tokens(statement: str) -> list[Token]:
    """The words of a statement as sqlglot tells them apart. Raises `SqlglotError`."""
    return Postgres().tokenizer_class(dialect=Postgres()).tokenize(statement)


def read(statement: str) -> Words | None:
    """The words of a statement that may make keys; None for any other, and for one that cannot be read."""
    if not _ANY.search(statement):
        return None
    try:
        found = tokens(statement)
    except SqlglotError:
        return None
    return Words(statement, [_word(statement, token.start, token.end + 1) for token in found])


def _word(statement: str, start: int, end: int) -> Word:
    text = statement[start:end]
    return Word(text if text[0] in "\"'" else " ".join(text.upper().split()), start, end)

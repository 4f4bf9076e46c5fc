"""Which line of a TOML document each key stands in.

`tomllib` tells values without places. This reads only documents that it has accepted, so nothing is checked here.
The grammar is that of toml.io/en/v1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Final

Path = tuple[str | int, ...]

_TOKEN: Final = re.compile(
    r'''(?P<space>[ \t\r]+|\#[^\n]*)
      |(?P<text>"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}|\'\'\'(?:[^']|'{1,2}(?!'))*'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')
      |(?P<mark>[\[\]{},=.\n])
      |(?P<bare>[^\s\[\]{},=.\#"']+)''',
    re.VERBOSE | re.DOTALL,
)


def locate(text: str) -> dict[Path, int]:
    """The line, from 1, of every key, table and array item of a valid document."""
    return _Reader(text).document()


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}  # how many tables an array of tables has so far

    @property
    def word(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self, *expected: str) -> bool:
        """Whether the next token is one of these, which is then passed."""
        found = self.word != "" and self.word in expected
        self.at += found
        return found

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while self.word:
            if self.take("\n"):
                continue
            if self.word == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.lines

    def header(self) -> Path:
        """[table] or [[array of tables]]: the path that the following keys stand below."""
        self.take("[")
        repeated = self.take("[")
        path: Path = ()
        for part, line in self.key():
            path = self.inside((*path, part))
            self.note(path, line)
        while self.take("]"):
            pass
        if not repeated:
            self.lines[path] = line  # better than where a table below it was named first
            return path
        array = path[:-1] if path in self.counts or isinstance(path[-1], int) else path
        self.counts[array] = self.counts.get(array, -1) + 1
        path = (*array, self.counts[array])
        self.note(path, line)
        return path

    def inside(self, path: Path) -> Path:
        """The path itself, or the latest table of it where it is an array of tables."""
        return (*path, self.counts[path]) if path in self.counts else path

    def pair(self, table: Path) -> None:
        path = table
        for part, line in self.key():
            path = (*path, part)
            self.note(path, line)
        self.take("=")
        self.value(path)

    def value(self, path: Path) -> None:
        if self.take("["):
            index = 0
            while not self.take("]"):
                if not self.take("\n", ","):
                    self.note((*path, index), self.line)
                    self.value((*path, index))
                    index += 1
        elif self.take("{"):
            while not self.take("}"):
                if not self.take("\n", ","):
                    self.pair(path)
        else:
            while self.word and self.word not in ("\n", ",", "]", "}"):  # a float is three tokens: 1 . 5
                self.at += 1

    @property
    def line(self) -> int:
        return self.tokens[self.at][1]

    def note(self, path: Path, line: int) -> None:
        self.lines.setdefault(path, line)

    def key(self) -> Iterator[tuple[str, int]]:
        """The parts of a dotted key, each with its line."""
        while True:
            text, line = self.tokens[self.at]
            self.at += 1
            yield _plain(text), line
            if not self.take("."):
                return


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            yield match[0], line
        line += match[0].count("\n")


def _plain(key: str) -> str:
    return next(iter(tomllib.loads(f"{key} = 0"))) if key[0] in "\"'" else key

"""Names that people take for one another, by Unicode's list of confusable characters (UTS #39)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Final

MANY: Final = 512
"""So many spellings are looked at; of names with more, those that differ in one or two places."""

_SEQUENCES: Final = ("rn",)
"""What several letters together look like one."""


def spellings(slug: str) -> list[str]:
    """All slugs that look like this one: "paypa1" for "paypal". The slug itself is the first."""
    parts = list(_parts(slug))
    number = 1
    for _, others in parts:
        number *= 1 + len(others)
    if number <= MANY:
        return list(dict.fromkeys("".join(one) for one in itertools.product(*([part, *more] for part, more in parts))))
    places = [at for at, (_, others) in enumerate(parts) if others]
    found = {slug: None}
    for some in [*itertools.combinations(places, 1), *itertools.combinations(places, 2)]:
        for letters in itertools.product(*(parts[at][1] for at in some)):
            changed = dict(zip(some, letters, strict=True))
            found["".join(changed.get(at, part) for at, (part, _) in enumerate(parts))] = None
    return list(found)


def plain_letters(text: str) -> str:
    """The text with Latin letters in place of those of other scripts that look like them."""
    return "".join(_latin(letter) for letter in text)


def _parts(slug: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The slug letter by letter, each with what looks like it."""
    at = 0
    while at < len(slug):
        part = next((one for one in _SEQUENCES if slug.startswith(one, at)), slug[at])
        yield part, _alike().get(part, ())
        at += len(part)


@cache
def _alike() -> dict[str, tuple[str, ...]]:
    """What in slugs looks like what: letters and digits among themselves, and letters like two together."""
    found: dict[str, set[str]] = {}
    for digit in "0123456789":
        for letter in _ascii(digit):
            found.setdefault(digit, set()).add(letter)
            found.setdefault(letter, set()).add(digit)
    for letter in "abcdefghijklmnopqrstuvwxyz":
        for several in (one for one in _ascii(letter) if one in _SEQUENCES):
            found.setdefault(letter, set()).add(several)
            found.setdefault(several, set()).add(letter)
    return {part: tuple(sorted(others)) for part, others in found.items()}


def _ascii(letter: str) -> list[str]:
    """What of small ASCII letters looks like it; a capital one stands for its small one."""
    return [one for each in _known().get(letter, ()) if (one := each.lower()).isascii() and one.isalpha()]


def _latin(letter: str) -> str:
    return letter if letter.isascii() else next(iter(_ascii(letter)), letter)


@cache
def _known() -> dict[str, list[str]]:
    from confusable_homoglyphs import confusables  # a tenth of a second, which few processes need

    data: dict[str, list[dict[str, str]]] = confusables.confusables_data
    return {letter: [one["c"] for one in others] for letter, others in data.items()}

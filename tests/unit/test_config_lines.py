"""Where each key of a TOML document stands."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.config.lines import locate

NASTY = '''a = 3.5 # x = 3
"b.c" . d = """
x = 1
[t]
"""
'q "' = [
  1, # one ]
  {x = 1, y = [2,
     3]},
]
[t.u]
v = 0
[t]
d = 2020-01-01T00:00:00.5Z
e."f".g = {h.i = 1}
[[arr]]
n = 1
[arr.sub]
z = 1
[[arr]]
[arr.sub]
z = 2
[[arr.deep]]
k = 1
[[arr.deep]]
s = \'\'\'it's "here" ]
[no] = 1 \'\'\'
u = """a \\""" "" q"""""
last = "x"
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("a",), 1),
        (("b.c", "d"), 2),
        (('q "', 0), 7),
        (('q "', 1, "x"), 8),
        (('q "', 1, "y", 1), 9),
        (("t", "u", "v"), 12),
        (("t",), 13),
        (("t", "d"), 14),
        (("t", "e", "f", "g", "h", "i"), 15),
        (("arr", 0, "sub", "z"), 19),
        (("arr", 1, "sub", "z"), 22),
        (("arr", 1, "deep", 0, "k"), 24),
        (("arr", 1, "deep", 1, "s"), 26),
        (("arr", 1, "deep", 1, "u"), 28),
        (("arr", 1, "deep", 1, "last"), 29),
    ],
)
def test_nasty_documents(key: tuple[str | int, ...], line: int) -> None:
    """Strings over lines, brackets in strings, dotted and quoted keys, and arrays of tables do not mislead it."""
    tomllib.loads(NASTY)
    assert locate(NASTY)[key] == line


KEYS = st.sampled_from(["a", "b-c", '"x.y"', "'q # \"'", '"]"', "1"])
NOISE = st.sampled_from(["", " # [x] = 'no'", "  \t", ' # """'])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A document in which every number is the line it stands in."""
    lines: list[str] = []

    def here() -> int:
        return len(lines) + 1

    for table in range(draw(st.integers(1, 4))):
        lines.append(draw(st.sampled_from([f"[t{table}]", f"[t{table}.{draw(KEYS)}]", "[[many]]", "# nothing"])))
        for key in draw(st.lists(KEYS, unique=True, max_size=3)):
            form = draw(st.sampled_from(["plain", "text", "array", "inline"]))
            name = f"k{table}.{key}"
            if form == "plain":
                lines.append(f"{name} = {here()}{draw(NOISE)}")
            elif form == "text":
                lines.append(f'{name}.text = """a [b]')
                lines.append('c = 1 \\""" d""""')
            elif form == "inline":
                lines.append(f"{name} = {{x = {here()}, y.z = [{here()}, {here()}]}}")
            else:
                lines.append(f"{name} = [{here()},{draw(NOISE)}")
                lines.append(f"  {{v = {here()}}},")
                lines.append(f"  {here()}]{draw(NOISE)}")
    return "\n".join(lines)


def numbers(value: object, key: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], int]]:
    """Every number of a document with its key."""
    if isinstance(value, int):
        return [(key, value)]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for part, inner in pairs for found in numbers(inner, (*key, part))]


@given(documents())
def test_every_number_is_found_at_its_line(text: str) -> None:
    """In documents made so that each number is its line, the line of each key is that number."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # two tables of one name
    lines = locate(text)
    for key, line in numbers(values):
        assert lines[key] == line

"""The documented example: the help of each setting, the JSON Schema, and a first `tenantry.toml`."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from tenantry.config.faults import model_at
from tenantry.config.lines import Path as Key
from tenantry.config.models import Config

_OFF: Final = re.compile(r"^#(?=[\[a-z])", re.MULTILINE)
_HEADER: Final = re.compile(r"#?\[([\w.]+)\]")
_SETTING: Final = re.compile(r"#?([a-z_]+) = (.+)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting or table of the example."""

    key: Key
    help: str
    value: Any = None  # as the example shows it; None for a table


@cache
def example() -> str:
    """The text of the example: a platform that works as it stands."""
    return (files("tenantry") / "example.toml").read_text("utf-8")


def everything() -> str:
    """The example with all that is switched off in it switched on."""
    return _OFF.sub("", example())


@cache
def entries() -> dict[Key, Entry]:
    """Every setting and table of the example with the comment above it."""
    found: dict[Key, Entry] = {}
    table: Key = ()
    comment: list[str] = []
    for line in example().splitlines():
        if header := _HEADER.fullmatch(line):
            table = tuple(header[1].split("."))
            found[table] = Entry(table, " ".join(comment))
        elif setting := _SETTING.fullmatch(line):
            key = (*table, setting[1])
            found[key] = Entry(key, " ".join(comment), tomllib.loads(f"value = {setting[2]}")["value"])
        elif line.startswith("# "):
            comment.append(line[2:])
            continue
        comment = []
    return found


def explain(dotted: str) -> Entry | None:
    """The help of a setting by its dotted key; names of blueprints, plans and such may be any."""
    exact = tuple(dotted.split("."))
    if exact in entries():
        return entries()[exact]
    wanted = general(exact)
    return next((entry for key, entry in entries().items() if general(key) == wanted), None)


def general(key: Key) -> Key:
    """A key with "*" for the names that the operator chooses: blueprints.*.title."""
    return tuple(part if _is_field(key[:at], part) else "*" for at, part in enumerate(key))


def _is_field(above: Key, part: str | int) -> bool:
    model = model_at(Config, above)
    return model is not None and part in model.model_fields


def starter(name: str) -> str:
    """The example as the first tenantry.toml of a platform of this name."""
    return example().replace('name = "Tenantry"', f"name = {json.dumps(name, ensure_ascii=False)}", 1)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of tenantry.toml, for editors, with the help of the example."""
    schema = Config.model_json_schema()
    del schema["properties"]["root"]
    documented: dict[tuple[str, str], str] = {}
    for key, entry in entries().items():
        model = model_at(Config, key[:-1])
        if model is not None:
            documented.setdefault((model.__name__, str(key[-1])), entry.help)
    for name, table in {**schema["$defs"], "Config": schema}.items():
        for field, about in (table.get("properties") or {}).items():
            if help_text := documented.get((name, field)):
                about["description"] = help_text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

"""Where settings come from: tenantry.toml, below `.env` beside it, below the environment; and the platform's keys."""

from __future__ import annotations

import io
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values

from tenantry.config.lines import Path as Key
from tenantry.config.lines import locate
from tenantry.errors import ConfigError, ConfigMissing, SecretKeyError

FILE: Final = "tenantry.toml"
PREFIX: Final = "TENANTRY_"
KEY: Final = "TENANTRY_SECRET_KEY"

OTHER_VARIABLES: Final = frozenset(
    {KEY, f"{KEY}_FILE", f"{KEY}_PREVIOUS", f"{KEY}_PREVIOUS_FILE", "TENANTRY_CONFIG", "TENANTRY_ACTOR"}
    | {"TENANTRY_SERVER", "TENANTRY_TOKEN", "TENANTRY_SSO_SECRET"}
)
"""Variables that are no settings of tenantry.toml."""

LARGEST: Final = 1 << 20
"""The largest file read here, in bytes."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a setting was read: a line of a file, or a variable."""

    name: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name


@dataclass(frozen=True)
class Document:
    """All settings as they were written, before they are checked, and where each came from."""

    path: Path
    values: dict[str, Any]
    variables: Mapping[str, str] = field(repr=False)  # .env and environment, for {env = "NAME"}
    lines: Mapping[Key, int]
    overrides: Mapping[Key, str]  # setting -> the variable that gave it

    def source(self, key: Key) -> Source:
        """Where a setting, or what it stands in, was written."""
        if key not in self.lines:  # a table that variables alone have made
            for set_by, name in self.overrides.items():
                if set_by[: len(key)] == key:
                    return Source(name)
        for end in range(len(key), 0, -1):
            if key[:end] in self.overrides:
                return Source(self.overrides[key[:end]])
            if key[:end] in self.lines:
                return Source(self.path.name, self.lines[key[:end]])
        return Source(self.path.name)

    def origins(self) -> dict[Key, str]:
        """Where each value was written: a line of the file, or a variable; and what it is read from there."""
        return dict(self._origins(self.values, ()))

    def _origins(self, value: Any, key: Key) -> Iterator[tuple[Key, str]]:
        reference = isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("env", "file")
        if isinstance(value, dict) and value and not reference:
            for name, inner in value.items():
                yield from self._origins(inner, (*key, name))
        elif reference:
            kind, name = next(iter(value.items()))
            yield key, f"{self.source(key)}, from {'the variable' if kind == 'env' else 'the file'} {name}"
        else:
            yield key, str(self.source(key))

    def text(self, reference: Mapping[str, Any]) -> str:
        """The text that {env = "NAME"} or {file = "path"} leads to. Raises `ValueError` where it leads nowhere."""
        kind, name = next(iter(reference.items()))
        if not isinstance(name, str) or not name:
            raise ValueError(f"{kind} takes a name in quotes")
        if kind == "env":
            if not self.variables.get(name):
                raise ValueError(f"the environment variable {name} is not set, nor is it in .env")
            return self.variables[name]
        return read_text(self.path.parent / name).strip()


def read_document(path: Path, environ: Mapping[str, str] | None = None) -> Document:
    """Read tenantry.toml with what overrides it. Raises `ConfigMissing`, or `ConfigError` where it is no TOML."""
    text = _read_toml(path)
    try:
        values = tomllib.loads(text)
        lines = locate(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
        line, column = (int(where[1]), int(where[2])) if where and where[1] else (text.count("\n") + 1, 1)
        reason = str(error).partition(" (at")[0]
        raise ConfigError(
            f"{path.name}:{line}:{column}: {reason}.",
            remedy="It is no valid TOML there; correct that line.",
            source=Source(path.name, line),
            reason=f"{reason} (column {column})",
        ) from error
    except RecursionError as error:
        raise ConfigError(
            where=path.name, reason="arrays or tables are nested too deep", source=Source(path.name)
        ) from error
    variables = variables_of(path.parent, environ)
    overrides: dict[Key, str] = {}
    for name, key, value in _settings(variables):
        overrides[_put(values, key, value)] = name
    return Document(path, values, variables, lines, overrides)


def _read_toml(path: Path) -> str:
    if not path.exists():
        raise ConfigMissing(path=path)
    try:
        return read_text(path)
    except ValueError as error:
        raise ConfigError(where=path.name, reason=str(error), source=Source(path.name)) from error


def read_text(path: Path) -> str:
    """The text of a small file. Raises `ValueError` that says why it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"the file {path.name} is larger than {LARGEST} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"the file {path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the file {path.name} is not in UTF-8, at byte {error.start}") from error


def variables_of(root: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of `.env` in this directory, below those of the environment."""
    environ = os.environ if environ is None else environ
    file = root / ".env"
    if not file.is_file():
        return dict(environ)
    try:
        read = dotenv_values(stream=io.StringIO(read_text(file)), interpolate=False)
    except ValueError as error:
        raise ConfigError(where=".env", reason=str(error), source=Source(".env")) from error
    return {name: value or "" for name, value in read.items()} | dict(environ)


# --- settings from variables --------------------------------------------------------------------------------------

_SHORT: Final = {"values": "default", "hostnames": "pattern"}


def _settings(variables: Mapping[str, str]) -> Iterator[tuple[str, list[str], Any]]:
    """Each TENANTRY_A__B=value as its name, the key (a, b) and the value; outer tables come before what is in them."""
    for name in sorted(variables):
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES:
            yield name, name[len(PREFIX) :].lower().split("__"), _structured(variables[name])


def _structured(text: str) -> Any:
    """An array or table in TOML or JSON; anything else stays text, and the setting's type reads it."""
    if text[:1] not in ("[", "{"):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _put(values: dict[str, Any], names: list[str], value: Any) -> Key:
    """Set one value deep in the document; returns its key as the document spells it."""
    table, key = values, []
    for position, name in enumerate(names):
        name = _spelled(table, name)
        key.append(name)
        if position == len(names) - 1:
            break
        inner = table.get(name)
        if not isinstance(inner, dict):
            short = _SHORT.get(key[-2]) if len(key) > 1 else None
            inner = {short: inner} if short and inner is not None else {}
            table[name] = inner
        table = inner
    old, short = table.get(key[-1]), _SHORT.get(key[-2]) if len(key) > 1 else None
    if short and isinstance(old, dict) and (not isinstance(value, dict) or {"env", "file"} & set(value)):
        old[short] = value  # the value alone changes; that it is secret stays
        key.append(short)
    else:
        table[key[-1]] = _merged(old, value)
    return tuple(key)


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}


def _spelled(table: Mapping[str, Any], name: str) -> str:
    """The key of this table that a variable's part means: case and hyphens cannot be told in a variable."""
    return next((key for key in table if key.lower().replace("-", "_") == name), name)


# --- the platform's keys ------------------------------------------------------------------------------------------


def secret_keys(root: Path, environ: Mapping[str, str] | None = None) -> tuple[str, str | None]:
    """The platform key and, while it is being rotated, the one before: 64 hex digits each.

    They come from TENANTRY_SECRET_KEY and TENANTRY_SECRET_KEY_PREVIOUS, or from the files named by these with _FILE
    behind; from the environment, or from `.env` in this directory. Raises `SecretKeyError`, which never shows a key.
    """
    variables = variables_of(root, environ)
    current = _key(root, variables, KEY)
    if current is None:
        raise SecretKeyError(reason="is not set")
    return current, _key(root, variables, f"{KEY}_PREVIOUS")


def _key(root: Path, variables: Mapping[str, str], name: str) -> str | None:
    text, file = variables.get(name, ""), variables.get(f"{name}_FILE", "")
    if text and file:
        raise SecretKeyError(f"{name} and {name}_FILE are both set.", remedy="Keep one of them (look into .env, too).")
    if file:
        try:
            text = read_text(root / file)
        except ValueError as error:
            raise SecretKeyError(f"{name}_FILE: {error}.") from error
    text = text.strip().lower()
    if not text:
        return None
    reason = _weakness(text)
    if reason:
        raise SecretKeyError(f"{name} {reason}.")
    return text


def _weakness(key: str) -> str | None:
    if not re.fullmatch(r"[0-9a-f]+", key, re.ASCII):
        return "has characters that are no hex digits"
    if len(key) != 64:
        return f"has {len(key)} hex digits where 64 are needed"
    if len(set(key)) == 1:
        return "is one digit repeated, which anybody can guess"
    return None

"""What is wrong with a tenantry.toml: every fault at once, each with its place, its value and what to do."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tenantry.config.checks import Trouble, cross_checks, meant
from tenantry.config.lines import Path as Key
from tenantry.config.models import Config, ResourceSpec
from tenantry.config.sources import Document, Source, read_document
from tenantry.errors import ConfigError

Kinds = Mapping[str, type[BaseModel]]

_HIDDEN: Final = re.compile(r"secret|password|passwd|passphrase|token|credential|(^|_)key|^control$", re.IGNORECASE)
_IS_SECRET: Final = re.compile(r"(password|passwd|passphrase|(secret|api|access|private)_key)$", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_SHOWN: Final = 60
_AGAIN: Final = (" or it must be a valid ", " or ")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, or with `warning` only unwise."""

    source: str  # the file, or the variable that gave the setting
    line: int | None
    key: str  # dotted
    value: str | None  # as written; None where there is none or it may be a secret
    reason: str
    remedy: str
    warning: bool = False

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        shown = self.key + (f" = {self.value}" if self.value is not None else "")
        return f"{self.where}: {shown + ': ' if shown else ''}{self.reason}. {self.remedy}".rstrip()


def load(path: Path, environ: Mapping[str, str] | None = None, kinds: Kinds | None = None) -> Config:
    """The platform that a tenantry.toml describes, with what `.env` and the environment override.

    `kinds` gives the settings that each kind of resource takes; without it they are not checked. Raises
    `ConfigMissing`, or `ConfigError` with all faults in its text and in `details["faults"]`.
    """
    document = read_document(path, environ)
    config, found = _examine(document, kinds)
    if config is None or found:
        raise ConfigError(_report(path, found), faults=found)
    config.remember(document.origins())
    return config


def faults(path: Path, environ: Mapping[str, str] | None = None, kinds: Kinds | None = None) -> list[Fault]:
    """Everything that is wrong or unwise, in the order of the file. Raises `ConfigMissing` alone."""
    try:
        document = read_document(path, environ)
    except ConfigError as error:
        source: Source = error.details["source"]
        return [Fault(source.name, source.line, "", None, error.details["reason"], error.hint)]
    return [*_examine(document, kinds)[1], *_warnings(path)]


def _report(path: Path, found: list[Fault]) -> str:
    if len(found) == 1:
        return str(found[0])
    return "\n".join([f"{path.name} has {len(found)} faults:", *(f"  {fault}" for fault in found)]) + "\n"


def _warnings(path: Path) -> Iterator[Fault]:
    file = path.parent / ".env"
    if file.is_file() and stat.S_IMODE(file.stat().st_mode) & 0o077:
        mode = f"{stat.S_IMODE(file.stat().st_mode):04o}"
        yield Fault(".env", None, "", mode, "others may read or write it", "Run `chmod 600 .env`.", warning=True)


# --- examining ----------------------------------------------------------------------------------------------------


def _examine(document: Document, kinds: Kinds | None) -> tuple[Config | None, list[Fault]]:
    """The configuration, and what is wrong; what pydantic refuses is cut out, so that the rest is examined, too."""
    # A variable of the environment may hold one: what must not is the file.
    troubles = [found for found in _secrets(document.values) if document.source(found.key).line is not None]
    values = document.values
    if "root" in values:
        troubles.append(Trouble(("root",), "there is no such setting", "Remove it."))
        values = {key: value for key, value in values.items() if key != "root"}
    try:
        config: Config | None = _validate(values, document)
    except ValidationError as error:
        found = _troubles(error, values)
        troubles += found
        config = _sound_part(values, document, found)
    if config:
        troubles += cross_checks(config, declared=values.get("blueprints"))
        troubles += _options(config, kinds, document) if kinds is not None else []
        config = _extended(config)
    told: dict[Key, Fault] = {}
    for trouble in troubles:
        told.setdefault(trouble.key, _fault(document, trouble))
    return config, sorted(told.values(), key=lambda fault: (fault.source != document.path.name, fault.line or 0))


def _extended(config: Config) -> Config | None:
    try:
        return config.extended()
    except KeyError:  # already among the faults: an unknown blueprint, or a circle
        return None


def _validate(values: Mapping[str, Any], document: Document) -> Config:
    return Config.model_validate({**values, "root": document.path.parent.resolve()}, context=document)


def _sound_part(values: Any, document: Document, found: list[Trouble]) -> Config | None:
    for _ in range(4):  # what is cut out may leave a table without a key it needs, which then goes, too
        for trouble in found:
            values = _without(values, trouble.key)
        try:
            return _validate(values, document)
        except ValidationError as error:
            found = [Trouble(trouble.key[:-1], "", "") for trouble in _troubles(error, values)]
    return None


def _without(values: Any, key: Key) -> Any:
    """A copy without one key; where it is not there, without the table that lacks it."""
    if isinstance(values, list):
        return [item for index, item in enumerate(values) if index != key[0]]  # an item goes as a whole
    if not key or not isinstance(values, dict) or key[0] not in values:
        return values
    head, rest = key[0], key[1:]
    inner = values[head]
    present = isinstance(inner, dict | list) and rest and (isinstance(inner, list) or rest[0] in inner)
    if not present:
        return {name: value for name, value in values.items() if name != head}
    return {**values, head: _without(inner, rest)}


def _options(config: Config, kinds: Kinds, document: Document) -> Iterator[Trouble]:
    for name, blueprint in config.blueprints.items():
        for resource, spec in blueprint.resources.items():
            key: Key = ("blueprints", name, "resources", resource)
            model = kinds.get(spec.kind)
            if model is None:
                remedy = meant(spec.kind, kinds, "Known kinds")
                yield Trouble((*key, "kind"), "there is no such kind of resource", remedy)
                continue
            try:
                model.model_validate(spec.options, context=document)
            except ValidationError as error:
                written = document.values["blueprints"][name]["resources"][resource]
                for trouble in _troubles(error, written, model, (ResourceSpec,)):
                    yield Trouble(key + trouble.key, trouble.reason, trouble.remedy)


# --- secrets that do not belong into the file ---------------------------------------------------------------------


def _secrets(values: Any, key: Key = ()) -> Iterator[Trouble]:
    """Secrets written out: a password in an address, or a text under a name that says it is one."""
    if isinstance(values, dict):
        if values.get("secret") is True and isinstance(values.get("default"), str) and values["default"]:
            yield _written_out((*key, "default"))
        for name, value in values.items():
            yield from _secrets(value, (*key, name))
    elif isinstance(values, list):
        for index, value in enumerate(values):
            yield from _secrets(value, (*key, index))
    elif isinstance(values, str) and _is_written_out(values, key):
        yield _written_out(key)


def _written_out(key: Key) -> Trouble:
    return Trouble(key, "it holds a secret", 'Write {env = "NAME"} or {file = "path"}, and put the secret there.')


def _is_written_out(text: str, key: Key) -> bool:
    if key and key[-1] in ("env", "file"):
        return False
    named = next((part for part in reversed(key) if isinstance(part, str) and part != "default"), "")
    return bool(text) and bool(_URL_PASSWORD.search(text) or _IS_SECRET.search(named))


# --- faults from pydantic -----------------------------------------------------------------------------------------


def _troubles(
    error: ValidationError, values: Any, model: type[BaseModel] = Config, beside: tuple[type[BaseModel], ...] = ()
) -> list[Trouble]:
    """Pydantic's errors, one for each key: the branches of a union are told as one."""
    told: dict[Key, list[Trouble]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        missing = detail["type"] == "missing"
        key = _written(values, detail["loc"], missing)
        told.setdefault(key, []).append(Trouble(key, *_explained(detail, key, model, beside)))
    inside = {key[:end] for key in told for end in range(len(key))}
    return [
        Trouble(key, " or ".join(dict.fromkeys(each.reason for each in group)).replace(*_AGAIN), group[0].remedy)
        for key, group in told.items()
        if key not in inside  # it follows from the fault of its part
    ]


def _written(values: Any, loc: Key, missing: bool) -> Key:
    """The part of pydantic's location that is a key of the document; the rest names its own branches."""
    at = values
    for position, part in enumerate(loc):
        inside = (isinstance(at, dict) and part in at) or (
            isinstance(at, list) and isinstance(part, int) and part < len(at)
        )
        if not inside:
            return loc[: position + 1] if missing else loc[:position]
        at = at[part]
    return loc


def _explained(detail: Any, key: Key, model: type[BaseModel], beside: tuple[type[BaseModel], ...]) -> tuple[str, str]:
    match detail["type"]:
        case "extra_forbidden":
            fields = {name for each in (model_at(model, key[:-1]), *beside) if each for name in each.model_fields}
            return "there is no such setting", meant(str(key[-1]), fields - {"root"}, "Known here")
        case "missing":
            return "it is missing", "Add it."
        case "literal_error":
            expected = detail["ctx"]["expected"]
            return f"it must be {expected}", "Use one of these."
        case "value_error":
            return str(detail["ctx"]["error"]), "Correct it."
        case "model_type" | "dict_type" | "model_attributes_type":
            return "it must be a table", "Write {key = value, …} or a [section]."
        case "tuple_type" | "list_type":
            return "it must be an array", 'Write ["one", "two"].'
    return str(detail["msg"]).replace("Input should be", "it must be").replace(
        "Input should", "it should"
    ), "Correct it."


def model_at(model: type[BaseModel], key: Key) -> type[BaseModel] | None:
    """The model of the table that a key leads to, or None where it leads to no table of settings."""
    at: Any = model
    for part in key:
        if isinstance(at, type) and issubclass(at, BaseModel):
            field = at.model_fields.get(str(part))
            at = _table(field.annotation) if field else None
        else:
            at = _table(get_args(at)[1]) if get_origin(at) is dict else None
    return at if isinstance(at, type) and issubclass(at, BaseModel) else None


def _table(annotation: Any) -> Any:
    """The model or dictionary within Optional, Annotated and unions."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return next((found for arg in get_args(annotation) if (found := _table(arg)) is not None), None)
    if get_origin(annotation) is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return annotation
    return None


# --- telling ------------------------------------------------------------------------------------------------------


def _fault(document: Document, trouble: Trouble) -> Fault:
    source = document.source(trouble.key)
    dotted = ".".join(f"[{part}]" if isinstance(part, int) else part for part in trouble.key).replace(".[", "[")
    return Fault(source.name, source.line, dotted, _shown(document.values, trouble.key), trouble.reason, trouble.remedy)


def _shown(values: Any, key: Key) -> str | None:
    """A value as it was written, shortened; None for what is missing, is a table, or may be secret."""
    if any(isinstance(part, str) and _HIDDEN.search(part) for part in key):
        return None
    at = values
    for part in key:
        try:
            at = at[part]
        except (KeyError, IndexError, TypeError):
            return None
        if isinstance(at, dict) and at.get("secret"):
            return None
    if isinstance(at, dict) or _URL_PASSWORD.search(str(at)):
        return None
    text = f'"{at}"' if isinstance(at, str) else str(at).lower() if isinstance(at, bool) else str(at)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"

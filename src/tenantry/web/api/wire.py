"""What the API takes and gives: pydantic models of the dataclasses that `Platform` gives, without their secrets."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model

_LISTS: Final = (list, tuple, set, frozenset, Sequence, typing.Sequence)
_SETTINGS: Final = ConfigDict(from_attributes=True, extra="ignore")


@cache
def model(kind: type) -> type[BaseModel]:
    """The model of a dataclass, its properties too. Fields that do not show in its repr are secret, and left out."""
    hints = typing.get_type_hints(kind)
    fields: dict[str, Any] = {
        field.name: (wire(hints[field.name]), ...) for field in dataclasses.fields(kind) if field.repr
    }
    for name, made in inspect.getmembers(kind, lambda one: isinstance(one, property)):
        fields[name] = (wire(typing.get_type_hints(made.fget)["return"]), ...)
    described = (inspect.getdoc(kind) or "").partition("\n")[0]
    return create_model(kind.__name__, __config__=_SETTINGS, __doc__=described, **fields)


def wire(hint: Any) -> Any:
    """A type as it goes over the wire."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return model(hint)
    if origin is None:
        return str if hint is Path else hint
    if origin in (types.UnionType, typing.Union):
        return typing.Union[tuple(map(wire, arguments))]  # noqa: UP007 the members are known only now
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[arguments[0], wire(arguments[1])]  # type: ignore[valid-type, misc]
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return tuple[tuple(map(wire, arguments))]  # type: ignore[misc]
    if isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset):
        return list[wire(arguments[0])]  # type: ignore[misc]
    return hint


def answer(method: Callable[..., Any]) -> Any:
    """The type of what a verb gives, over the wire."""
    return wire(typing.get_type_hints(method)["return"])


@cache
def adapter(method: Callable[..., Any]) -> TypeAdapter[Any]:
    """Turns what a verb gives into what goes over the wire, and back."""
    return TypeAdapter(answer(method))


def dumped(method: Callable[..., Any], result: Any) -> str:
    """What a verb gave, as JSON."""
    known = adapter(method)
    return known.dump_json(known.validate_python(result, from_attributes=True)).decode()


def request(name: str, fields: Mapping[str, tuple[Any, Any]]) -> type[BaseModel]:
    """The body of a request: these fields and no others."""
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)  # type: ignore[call-overload, no-any-return]

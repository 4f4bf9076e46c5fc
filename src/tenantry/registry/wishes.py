"""Conditions that somebody else words, made into SQL: attributes come from a list, values are bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, false, not_, or_, true

from tenantry.registry.database import plain


@dataclass(frozen=True, slots=True)
class Field:
    """What may be asked of an attribute."""

    column: ColumnElement[Any]
    kind: type  # of its values: str, bool, datetime
    fold: Callable[[str], str] | None = None  # how a text is searched whose capitals mean nothing

    @property
    def operators(self) -> frozenset[str]:
        """How it may be compared."""
        if self.kind is bool:
            return frozenset({"eq", "ne"})
        if self.kind is str:
            return frozenset({"eq", "ne"} | ({"co", "sw", "ew"} if self.fold else set()))
        return frozenset({"eq", "ne", "gt", "ge", "lt", "le"})


@dataclass(frozen=True, slots=True)
class Compare:
    """An attribute compared with a value; "pr" asks whether it has any."""

    attribute: str
    operator: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Among:
    """A value is one of many that are kept elsewhere: a group has somebody as member."""

    attribute: str
    value: str


@dataclass(frozen=True, slots=True)
class Joined:
    """All of these, or any of them."""

    every: bool
    parts: tuple[Wish, ...]


@dataclass(frozen=True, slots=True)
class Unless:
    """Not this."""

    part: Wish


Wish = Compare | Among | Joined | Unless

_ORDERED: Final[Mapping[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "gt": lambda column, value: column > value,
    "ge": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "le": lambda column, value: column <= value,
    "co": lambda column, value: column.contains(value, autoescape=True),
    "sw": lambda column, value: column.startswith(value, autoescape=True),
    "ew": lambda column, value: column.endswith(value, autoescape=True),
}


def condition(
    wish: Wish, fields: Mapping[str, Field], among: Mapping[str, Callable[[str], ColumnElement[bool]]]
) -> ColumnElement[bool]:
    """As a database understands it; each part is true or false, and never unknown."""
    if isinstance(wish, Compare):
        return _compared(fields[wish.attribute], wish.operator, wish.value)
    if isinstance(wish, Among):
        return among[wish.attribute](wish.value)
    if isinstance(wish, Unless):
        return not_(condition(wish.part, fields, among))
    parts = [condition(part, fields, among) for part in wish.parts]
    return and_(true(), *parts) if wish.every else or_(false(), *parts)


def _compared(field: Field, operator: str, value: Any) -> ColumnElement[bool]:
    column, there = field.column, field.column.is_not(None)
    if operator == "pr":
        return and_(there, column != "") if field.kind is str else there
    if value is None:
        return _compared(field, "pr", None) if operator == "ne" else not_(_compared(field, "pr", None))
    if isinstance(value, str):
        value = plain(field.fold(value) if field.fold else value)
    if operator in ("eq", "ne"):
        same = and_(there, column == value)
        return same if operator == "eq" else not_(same)
    return and_(there, _ORDERED[operator](column, value))

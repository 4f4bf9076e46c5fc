"""The values of a blueprint as fields of a form, each of its type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tenantry.config.models import Blueprint

PREFIX: Final = "value."
"""Names of fields that hold values begin so."""

FORGET: Final = "forget."
"""Names of boxes that are ticked to forget a secret value begin so."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value."""

    name: str
    kind: str  # text, number, choice, secret
    typed: str  # what stands in it
    default: str  # what holds where nothing stands in it

    @property
    def key(self) -> str:
        """Its name in the form."""
        return PREFIX + self.name


def fields_of(blueprint: Blueprint, typed: Mapping[str, str]) -> list[Field]:
    """The fields, with what was typed."""
    return [
        Field(
            name,
            "secret" if value.secret else _kind(value.default),
            typed.get(PREFIX + name, ""),
            "" if value.secret else _told(value.default),
        )
        for name, value in blueprint.values.items()
    ]


def typed_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """A tenant's settings as they stand in the fields."""
    return {PREFIX + key: _told(value) for key, value in settings.items()}


def settings_of(blueprint: Blueprint, typed: Mapping[str, str]) -> dict[str, str]:
    """The values that were filled in."""
    return {name: typed[PREFIX + name] for name in blueprint.values if typed.get(PREFIX + name, "").strip()}


def emptied(blueprint: Blueprint, typed: Mapping[str, str], settings: Mapping[str, Any]) -> list[str]:
    """The values that go back to their defaults: those whose field was emptied, and secrets that are to be forgotten.

    An empty field of a secret means nothing: what it holds is never shown.
    """
    blank = [name for name in settings if name in blueprint.values and not typed.get(PREFIX + name, "").strip()]
    return blank + [name for name, value in blueprint.values.items() if value.secret and typed.get(FORGET + name)]


def _kind(default: object) -> str:
    if isinstance(default, bool):
        return "choice"
    return "number" if isinstance(default, int | float) else "text"


def _told(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)

"""Settings as they are shown: those in force, without secrets."""

from __future__ import annotations

import json
from typing import Any, Final

from tenantry.config.models import Config

HIDDEN: Final = "(hidden)"


def shown(config: Config) -> dict[str, Any]:
    """All settings as they are in force; secrets are covered."""
    settings: dict[str, Any] = _hide(config.model_dump(mode="json"))
    return settings


def flat(value: Any, key: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Each setting's key, and its value as JSON."""
    if isinstance(value, dict) and value:
        return [pair for name, inner in value.items() for pair in flat(inner, (*key, name))]
    return [(key, json.dumps(value, ensure_ascii=False))]


def _hide(settings: Any) -> Any:
    """The settings with secret values covered; pydantic covers its own."""
    if not isinstance(settings, dict):
        return settings
    if settings.get("secret") is True and settings.get("default"):
        return {**settings, "default": HIDDEN}
    return {key: _hide(value) for key, value in settings.items()}

"""Comparing what two databases are made of, each thing by its name."""

from __future__ import annotations

from collections.abc import Mapping


def differences(declared: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is missing, not declared, or different, by name."""
    return [
        *(f"{name} is missing" for name in sorted(declared.keys() - found.keys())),
        *(f"{name} is not declared" for name in sorted(found.keys() - declared.keys())),
        *(f"{name} differs" for name in sorted(declared.keys() & found.keys()) if declared[name] != found[name]),
    ]

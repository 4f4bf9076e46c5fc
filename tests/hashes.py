"""Passwords of tests are hashed by Argon2id as everywhere, with the least it takes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from tenantry import credentials

if TYPE_CHECKING:
    from argon2 import PasswordHasher


@cache
def _quick() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


def quick() -> None:
    """Let this process hash so; `tests/unit/test_passwords.py` holds what others do."""
    credentials._hasher = _quick

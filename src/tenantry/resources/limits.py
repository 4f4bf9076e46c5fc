"""How long a migration may wait and run, and what is tried again: the waits that pass by themselves, nothing else."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from tenantry.config import Frozen, Seconds
from tenantry.errors import MigrationError
from tenantry.resources.schema import Header

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0
"""Seconds between two tries: each pause is twice the one before, and up to half of it is left to chance."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one migration of an environment waits and runs, in seconds, and how often it is tried again."""

    lock: float = 3.0
    statement: float = 300.0
    retries: int = 5

    def of(self, header: Header) -> Limits:
        """These limits, but those that a file sets for itself."""
        return self._with(header.lock_timeout, header.statement_timeout, header.retries)

    def on(self, own: Options) -> Limits:
        """These limits, but those that a resource has of its own."""
        return self._with(own.lock_timeout, own.statement_timeout, own.retries)

    def _with(self, lock: float | None, statement: float | None, retries: int | None) -> Limits:
        given = {"lock": lock, "statement": statement, "retries": retries}
        return replace(self, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


class Options(Frozen):
    """The limits that a resource has of its own; what it does not name holds as `[migrate]` says."""

    lock_timeout: Seconds | None = None
    statement_timeout: Seconds | None = None
    retries: int | None = None


DEFAULT: Final = Limits()


class Waiting:
    """What is known about who holds up a migration."""

    told = ""


Watch = Callable[[], AbstractContextManager[Waiting]]


def unwatched() -> AbstractContextManager[Waiting]:
    """Where the server does not tell who holds what."""
    return nullcontext(Waiting())


def patiently(
    limits: Limits, action: Callable[[], T], passes: Callable[[BaseException], bool], watch: Watch = unwatched
) -> T:
    """Do what may fail at a lock, again after a growing pause while the limits allow it.

    The first try is not watched where there is another, since watching costs a connection. Raises the
    `MigrationError` of the last try, which names how often it was tried and who was in the way.
    """
    told = ""
    for retry in range(limits.retries + 1):
        watched = watch if retry or not limits.retries else unwatched
        with watched() as waiting:
            try:
                return action()
            except MigrationError as error:
                if not any(passes(cause) for cause in _causes(error)):
                    raise
                if retry == limits.retries:
                    raise _given_up(error, retry + 1, waiting.told or told) from error
                told = waiting.told or told
        time.sleep(pause(retry))
    raise AssertionError


def pause(retry: int) -> float:
    """Seconds to wait before the next try: growing, and never the same for two that wait for each other."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**retry) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _causes(error: BaseException) -> list[BaseException]:
    """What an error came of, as far back as it is known; SQLAlchemy keeps the database's own under `orig`."""
    found: list[BaseException] = []
    one: Any = error
    while isinstance(one, BaseException) and one not in found:
        found.append(one)
        one = getattr(one, "orig", None) or one.__cause__
    return found


def _given_up(error: MigrationError, tries: int, told: str) -> MigrationError:
    who = f"; in the way: {told}" if told else ""
    again = f"; tried {tries} times" if tries > 1 else ""
    return MigrationError(
        migration=error.details["migration"],
        reason=f"{error.details['reason']}{again}{who}",
        remedy="End what holds the lock, or allow more with lock_timeout and retries; then run it again.",
    )

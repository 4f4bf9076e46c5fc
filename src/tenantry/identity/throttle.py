"""Slows down who guesses the passwords of admin users: the failures are kept in the control database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from tenantry.refusals import TooManyTries
from tenantry.registry import Transaction, people
from tenantry.registry.database import now
from tenantry.tries import FORGOTTEN, FREE, LONGEST, keys, network
from tenantry.tries import wait as _wait

__all__ = ["FORGOTTEN", "FREE", "LONGEST", "begin", "keys", "network", "passed", "refuse"]


async def refuse(tx: Transaction, counted: Sequence[tuple[str, str]]) -> None:
    """Raise `TooManyTries` while somebody has to wait."""
    moment = now()
    found = await people.failures(tx, [key for _, key in counted])
    wait = max((until - moment for _, until in found.values()), default=timedelta())
    if wait > timedelta():
        raise TooManyTries(seconds=max(1, round(wait.total_seconds())))


async def begin(tx: Transaction, counted: Sequence[tuple[str, str]]) -> None:
    """Count a try as a failure before it is looked at: of a thousand that come at once, each counts.

    Raises `TooManyTries`. `passed` takes it back.
    """
    await refuse(tx, counted)
    moment = now()
    found = await people.failures(tx, [key for _, key in counted])
    for kind, key in counted:
        before, until = found.get(key, (0, moment))
        count = 1 if moment - until > FORGOTTEN else before + 1
        await people.put_failures(tx, key, count, moment + _wait(kind, count))
    await people.forget_failures(tx, moment - FORGOTTEN)


async def passed(tx: Transaction, counted: Sequence[tuple[str, str]]) -> None:
    """Take a try back that was none of a guesser's. A device that its owner used begins anew.

    Others do not: whoever guesses would go on for free after each time that the owner signs in.
    """
    found = await people.failures(tx, [key for _, key in counted])
    for kind, key in counted:
        count = 0 if kind == "device" else found.get(key, (1, now()))[0] - 1
        if count:
            await people.put_failures(tx, key, count, now())
        else:
            await people.drop_failures(tx, [key])

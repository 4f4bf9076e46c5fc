"""Who made a request a moment ago, by the same cookie or token: not asked for again at once."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from tenantry.context import current_environment
from tenantry.model import Environment
from tenantry.runtime.accounts import User
from tenantry.runtime.userbase import UserBase

SECONDS: Final = 0.5
"""How long somebody is known: what ends a session in another process counts here after as long at most."""

KEPT: Final = 10_000
"""How many are known at a time."""


class _Known(NamedTuple):
    user: User
    environment: Environment
    turn: int
    until: float

    def stands(self, environment: Environment, turn: int) -> bool:
        """Whether nothing changed since, and it is not long ago."""
        return self.environment is environment and self.turn == turn and time.monotonic() < self.until


class Recent:
    """Whose a cookie or token is, for half a second.

    A change that this process made to the tenant's users counts at once, and so does one to the tenant itself. Nobody
    is kept for whom looking raised an error.
    """

    def __init__(self, base: UserBase, seconds: float = SECONDS) -> None:
        self._base = base
        self._kept: OrderedDict[bytes, _Known] = OrderedDict()
        self.seconds = seconds

    async def user(self, shown: bytes, look: Callable[[], Awaitable[User]]) -> User:
        """The user of what a request of the current tenant shows. Raises what `look` raises."""
        environment, turn = current_environment(), self._base.turn()
        key = hashlib.sha256(shown).digest()
        known = self._kept.get(key)
        if known is not None and known.stands(environment, turn):
            return known.user
        user = await look()
        self._kept[key] = _Known(user, environment, turn, time.monotonic() + self.seconds)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            with contextlib.suppress(KeyError):  # another thread was quicker
                self._kept.popitem(last=False)
        return user

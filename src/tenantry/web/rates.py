"""How many requests of whom: counted in the memory of one process, by the generic cell rate algorithm (ITU-T I.371).

Of each caller one moment is kept: when what was asked so far is used up, at the rate that is allowed. So counting costs
the same however many callers there are, and nothing has to be cleared up at the end of a minute.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from tenantry.config import Config
from tenantry.refusals import TooManyRequests

WINDOW: Final = 60.0
"""Seconds in which so many requests are allowed; all of them may come at once."""

CALLERS: Final = 100_000
"""Callers that are known at a time; beyond them the one that came longest ago begins anew."""


class Meter:
    """Counts requests of callers of one sort."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._step = WINDOW / limit if limit else 0.0
        self._used_up: OrderedDict[str, float] = OrderedDict()

    def count(self, caller: str) -> dict[str, str]:
        """Count a request; the headers that tell what is left. Raises `TooManyRequests`, which counts as none."""
        if not self._limit:
            return {}
        moment = time.monotonic()
        used_up = max(self._used_up.pop(caller, moment), moment) + self._step
        over = used_up - moment - WINDOW
        if over > 1e-9:
            self._used_up[caller] = used_up - self._step
            seconds = math.ceil(over)
            raise TooManyRequests(seconds=seconds, limit=self._limit, headers=self._headers(0, seconds))
        self._used_up[caller] = used_up
        if len(self._used_up) > CALLERS:
            self._used_up.popitem(last=False)
        return self._headers(int(-over / self._step + 1e-6), math.ceil(used_up - moment))

    def _headers(self, left: int, seconds: int) -> dict[str, str]:
        """RateLimit and its policy (draft-ietf-httpapi-ratelimit-headers-10)."""
        policy = f'"{self._name}";q={self._limit};w={WINDOW:.0f}'
        return {"RateLimit-Policy": policy, "RateLimit": f'"{self._name}";r={left};t={seconds}'}


@dataclass(frozen=True, slots=True)
class Rates:
    """The meters of one process."""

    tokens: Meter
    addresses: Meter

    @classmethod
    def of(cls, config: Config) -> Rates:
        """As a platform sets them."""
        return cls(Meter("token", config.api.token_rate), Meter("address", config.api.address_rate))

"""How long a migration of the fleet takes, by what a sample of it took: a line through the measured, and its error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SIGMAS: Final = 2.0
"""How many standard errors a forecast names: the truth lies within two of them in about 19 of 20 cases."""


@dataclass(frozen=True, slots=True)
class Share:
    """What of the fleet lies on one server."""

    tenants: int
    bytes: int
    largest: int  # bytes of its largest tenant


@dataclass(frozen=True, slots=True)
class Measured:
    """How long one tenant took."""

    server: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Expected:
    """How long one server is expected to take."""

    server: str
    tenants: int
    measured: int
    seconds: float
    error: float  # seconds that it may be more or less


@dataclass(frozen=True, slots=True)
class _Line:
    """Seconds of a tenant: so many for each, and so many for each byte."""

    base: float
    slope: float
    spread: float  # standard deviation of the measured around it
    measured: int

    def of(self, share: Share, parallel: int) -> tuple[float, float]:
        """Seconds for a share of the fleet, and how far they may be off."""
        lanes = max(1, min(parallel, share.tenants))
        total = (self.base * share.tenants + self.slope * share.bytes) / lanes
        rest = max(0, share.tenants - self.measured)
        error = SIGMAS * self.spread * math.sqrt(rest + rest * rest / self.measured) / lanes
        return max(total, self.base + self.slope * share.largest), error


def forecast(measured: Sequence[Measured], fleet: Mapping[str, Share], parallel: int) -> list[Expected]:
    """What each server is expected to take with so many tenants at a time; servers work side by side.

    A straight line is laid through seconds and bytes by least squares, without negative parts: through those of the
    server itself where it has three or more, otherwise through all. Empty where nothing was measured.
    """
    found = []
    for server, share in sorted(fleet.items()):
        own = [one for one in measured if one.server == server]
        line = _fit(own if len(own) >= 3 else measured)
        if line is not None:
            seconds, error = line.of(share, parallel)
            found.append(Expected(server, share.tenants, len(own), seconds, error))
    return found


def _fit(measured: Sequence[Measured]) -> _Line | None:
    number = len(measured)
    if not number:
        return None
    sizes, times = [one.bytes for one in measured], [one.seconds for one in measured]
    size, time = sum(sizes) / number, sum(times) / number
    around = sum((x - size) ** 2 for x in sizes)
    slope = sum((x - size) * (y - time) for x, y in zip(sizes, times, strict=True)) / around if around else 0.0
    slope = max(0.0, slope)
    base = time - slope * size
    if base < 0:
        base, slope = 0.0, time / size
    off = [y - base - slope * x for x, y in zip(sizes, times, strict=True)]
    spread = math.sqrt(sum(one * one for one in off) / max(1, number - 2))
    return _Line(base, slope, spread, number)

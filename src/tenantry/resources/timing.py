"""Whether of two things one takes longer than the other, as told by a clock on a machine that others use as well.

Both are done in turns, in an order that is drawn by lot within each pair. So where it makes no difference which of
the two is done, either sign of a pair's difference is equally likely, whatever else the machine does: the signed-rank
test (Wilcoxon, Biometrics Bulletin 1(6), 1945), which permutes the signs, holds however uneven the noise is.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

PAIRS: Final = (24, 200, 200)
"""Pairs that are timed first, and again and again where they seem to differ."""

LEVELS: Final = (0.05, 1e-4, 1e-4)
"""How unlikely each of these must be by chance: all three together, less than once in a billion comparisons."""

LEAST: Final = 20e-6
"""The smallest difference that is told, in seconds: less than that is lost in a network."""

BLUR: Final = 1e-3
"""Seconds that a difference may have without being seen; on a machine more uneven than that nothing is told."""

Draw = Callable[[int], Sequence[float]]
"""Times so many pairs: how many seconds the first of each took longer than the second, negative where it was less."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What came of it."""

    apart: bool  # whether one of the two takes longer
    seconds: float  # how much longer the first takes, in the median
    blur: float  # differences up to about so many seconds do not show


def compare(draw: Draw) -> Timed:
    """Time pairs, few where these look alike, and many before it is said that they do not."""
    found: list[float] = []
    for count, level in zip(PAIRS, LEVELS, strict=True):
        found = list(draw(count))
        if chance(found) > level:
            break
    else:
        middle = statistics.median(found)
        return Timed(abs(middle) >= LEAST, middle, _blur(found))
    if _blur(found) > BLUR and len(found) < max(PAIRS):
        found += draw(max(PAIRS))
    return Timed(False, statistics.median(found), _blur(found))


def chance(differences: Sequence[float]) -> float:
    """The probability that differences lie as much to one side where neither side is likelier; from 20 pairs on."""
    ranked = sorted((one for one in differences if one), key=abs)
    n = len(ranked)
    if not n:
        return 1.0
    total = sum(math.copysign(rank, one) for rank, one in enumerate(ranked, 1))
    return math.erfc(abs(total) / math.sqrt(n * (n + 1) * (2 * n + 1) / 3))  # either way; the variance is half of this


def _blur(differences: Sequence[float]) -> float:
    """Two standard errors of the median, from the median deviation, since a few pairs are always far off."""
    middle = statistics.median(differences)
    spread = statistics.median(abs(one - middle) for one in differences)
    return 2 * 1.2533 * 1.4826 * spread / math.sqrt(len(differences))


def pairs(first: Callable[[], float], second: Callable[[], float]) -> Draw:
    """Times two things in turns; each does it once and gives its seconds."""
    lot = random.SystemRandom()

    def pair() -> float:
        if lot.random() < 0.5:
            return first() - second()
        return -(second() - first())

    return lambda count: [pair() for _ in range(count)]

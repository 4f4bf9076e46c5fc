"""Whether of two things one takes longer: told where it does, never where it does not, however busy the machine is."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator

import pytest

from tenantry.resources import timing


def clocks(lot: random.Random) -> Iterator[Callable[[], float]]:
    """How long the same thing takes on machines that are busy in different ways, in seconds."""
    drift = iter(range(10**9))
    yield lambda: lot.gauss(300e-6, 20e-6)
    yield lambda: 200e-6 + lot.expovariate(1 / 200e-6)
    yield lambda: 200e-6 * lot.paretovariate(1.2)  # now and then another process has the processor
    yield lambda: 300e-6 + (0.02 if lot.random() < 0.1 else 0)
    yield lambda: 200e-6 + next(drift) * 1e-7  # slower all the time
    yield lambda: round(lot.gauss(300e-6, 20e-6), 5)  # a coarse clock


def draw(first: Callable[[], float], second: Callable[[], float], lot: random.Random) -> timing.Draw:
    """Pairs in an order by lot, as `timing.pairs` times them."""
    return lambda count: [first() - second() if lot.random() < 0.5 else -(second() - first()) for _ in range(count)]


@pytest.mark.parametrize("number", range(6))
def test_what_takes_equally_long_is_never_told_apart(number: int) -> None:
    """Of thousands of comparisons on an uneven machine none gives a false alarm."""
    lot = random.Random(number)
    clock = list(clocks(lot))[number]
    assert not any(timing.compare(draw(clock, clock, lot)).apart for _ in range(3000))


@pytest.mark.parametrize("number", range(6))
def test_what_takes_longer_is_told_apart(number: int) -> None:
    """A millisecond more shows in most comparisons, on every machine, with its sign and about its size."""
    lot = random.Random(number)
    clock = list(clocks(lot))[number]
    found = [timing.compare(draw(lambda: clock() + 1e-3, clock, lot)) for _ in range(100)]
    assert sum(one.apart for one in found) >= 80
    assert statistics.median(one.seconds for one in found) == pytest.approx(1e-3, rel=0.5)


def test_a_difference_too_small_to_matter_is_not_told() -> None:
    """However sure it is, what no network would carry is no finding."""
    assert not timing.compare(lambda count: [timing.LEAST / 2] * count).apart


def test_an_uneven_machine_says_that_it_sees_nothing() -> None:
    """Where noise would hide a difference that matters, the blur tells."""
    lot = random.Random(1)
    assert timing.compare(lambda count: [lot.gauss(0, 0.1) for _ in range(count)]).blur > timing.BLUR
    assert timing.compare(lambda count: [lot.gauss(0, 1e-4) for _ in range(count)]).blur < timing.BLUR


def test_the_test_of_signed_ranks_is_as_sure_as_it_says() -> None:
    """Under chance alone, a probability of five per cent comes in five of a hundred cases."""
    lot = random.Random(1)
    found = [timing.chance([lot.gauss(0, 1) for _ in range(24)]) for _ in range(4000)]
    assert sum(one <= 0.05 for one in found) / len(found) == pytest.approx(0.05, abs=0.012)
    assert timing.chance([0.0] * 24) == 1.0
    assert timing.chance([1.0] * 24) < 1e-4


def test_pairs_are_timed_in_an_order_by_lot() -> None:
    """Each is done once in a pair, either one first, and the sign is the first one's."""
    order: list[str] = []

    def done(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    found = timing.pairs(lambda: done("first", 3.0), lambda: done("second", 1.0))(200)
    assert set(found) == {2.0}
    firsts = order[::2]
    assert order.count("first") == order.count("second") == 200
    assert 50 < firsts.count("first") < 150

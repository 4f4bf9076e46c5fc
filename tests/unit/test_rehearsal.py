"""Choosing what is rehearsed, the room that copies have, and the forecast."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.errors import ConfigError
from tenantry.operations.due import Due
from tenantry.operations.forecast import Measured, Share, forecast
from tenantry.operations.rehearse import Candidate, Disk, choose, parse_sample, shares
from tenantry.platform.rehearse import parse_size
from tenantry.resources.scratch import path


def candidate(number: int, server: str | None = "a", version: str = "0001_a", size: int | None = 10) -> Candidate:
    due = Due(f"t{number}", f"{number}", f"e{number}", "production", version, "site", "db", "0002_b", server)
    return Candidate(due, size)


FLEET = [candidate(n, "ab"[n % 2], f"000{1 + n % 5 // 4}_x", n * 100) for n in range(200)]


@given(number=st.integers(1, 300), seed=st.integers(0, 1000))
def test_a_sample_has_so_many_and_each_once(number: int, seed: int) -> None:
    """A sample is as large as it is to be, without repeats, and the same for the same seed."""
    chosen = choose(FLEET, number, seed)
    assert len(chosen) == len({one.due.slug for one in chosen}) == min(number, len(FLEET))
    assert choose(FLEET, number, seed) == chosen


@given(seed=st.integers(0, 1000))
def test_a_sample_is_spread(seed: int) -> None:
    """Every server and version is in it, the largest of each, and small tenants beside large ones."""
    chosen = choose(FLEET, 20, seed)
    assert {(one.server, one.due.version) for one in chosen} == {(o.server, o.due.version) for o in FLEET}
    sizes = sorted(one.bytes or 0 for one in chosen)
    assert sizes[-1] == 19900
    assert sizes[0] < 5000
    assert 5000 < sizes[10] < 16000


def test_a_sample_smaller_than_the_groups() -> None:
    """A sample of one is one, whichever group it comes from; sizes that are not known do no harm."""
    assert len(choose([candidate(1), candidate(2, "b", size=None), candidate(3, None)], 1, 7)) == 1


@pytest.mark.parametrize(("text", "count"), [(None, 250), ("20", 20), ("10%", 25), ("0.1%", 1), ("999", 250)])
def test_sizes_of_samples(text: str | None, count: int) -> None:
    """A sample is a number or a share, never more than there are and never none."""
    assert parse_sample(text)(250) == count


@pytest.mark.parametrize("text", ["", "0", "-1", "0%", "101%", "2.5", "many", "10 %%", "1e3", "٣"])
def test_no_samples(text: str) -> None:
    """What is no sample is refused with an example of one."""
    with pytest.raises(ConfigError, match="no sample"):
        parse_sample(text)


@pytest.mark.parametrize(("text", "size"), [("5GB", 5_000_000_000), ("500MiB", 500 << 20), (" 20000000 ", 20_000_000)])
def test_limits_on_disk(text: str, size: int) -> None:
    """Room is said in bytes or with a unit."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-5GB", "1kB", "0", "nan"])
def test_no_limits_on_disk(text: str) -> None:
    """What is no size, or holds not even the smallest copy, is refused."""
    with pytest.raises(ConfigError):
        parse_size(text)


@given(sizes=st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_the_room_is_never_exceeded(sizes: list[int]) -> None:
    """However many want room, no more than there is is taken at a time, and everybody gets theirs."""

    async def use() -> int:
        disk, had = Disk(100), 0

        async def one(size: int) -> None:
            nonlocal had
            async with disk.taken(size):
                await asyncio.sleep(0)
                had += 1

        await asyncio.gather(*map(one, sizes))
        assert had == len(sizes)
        return disk.most

    assert asyncio.run(use()) <= 100


# --- forecast -----------------------------------------------------------------------------------------------------


def test_a_forecast_scales_by_size() -> None:
    """With a second each and a second a hundred bytes, ten tenants of a thousand bytes take 110 seconds, or half."""
    measured = [Measured("a", size, 1 + size / 100) for size in (100, 200, 300, 400)]
    (one,) = forecast(measured, {"a": Share(10, 10_000, 1000)}, 1)
    assert one.seconds == pytest.approx(110)
    assert one.error == pytest.approx(0, abs=1e-6)
    (two,) = forecast(measured, {"a": Share(10, 10_000, 1000)}, 2)
    assert two.seconds == pytest.approx(55)


def test_the_largest_tenant_is_the_least_it_takes() -> None:
    """However many are migrated at a time, the largest one alone takes its time."""
    measured = [Measured("a", size, size / 100) for size in (100, 200, 300)]
    (one,) = forecast(measured, {"a": Share(100, 10_000, 9000)}, 50)
    assert one.seconds == pytest.approx(90)


def test_a_server_without_enough_measured_borrows() -> None:
    """A server with fewer than three copies is forecast by all; one that was measured by its own."""
    measured = [*(Measured("slow", 10, 4.0) for _ in range(3)), Measured("quick", 10, 1.0)]
    found = {one.server: one for one in forecast(measured, {"slow": Share(6, 60, 10), "quick": Share(2, 20, 10)}, 1)}
    assert found["slow"].seconds == pytest.approx(24)
    assert found["quick"].seconds == pytest.approx(2 * 13 / 4)
    assert (found["slow"].measured, found["quick"].measured) == (3, 1)


def test_the_error_shrinks_with_what_is_measured() -> None:
    """Where all were measured nothing is guessed; the fewer, the larger the error."""
    few = [Measured("a", 10, seconds) for seconds in (1.0, 2.0, 3.0)]
    errors = [forecast(few * times, {"a": Share(60, 600, 10)}, 1)[0].error for times in (1, 4, 20)]
    assert errors[0] > errors[1] > errors[2] == 0


def test_nothing_measured_is_no_forecast() -> None:
    """Without a copy that went well there is no forecast, rather than one of nothing."""
    assert forecast([], {"a": Share(5, 50, 10)}, 2) == []


@given(
    points=st.lists(st.tuples(st.integers(0, 10**12), st.floats(0, 10**5)), min_size=1, max_size=20),
    parallel=st.integers(1, 50),
)
def test_forecasts_are_sane(points: list[tuple[int, float]], parallel: int) -> None:
    """A forecast is a finite time that is not negative, whatever was measured."""
    measured = [Measured("a", size, seconds) for size, seconds in points]
    (one,) = forecast(measured, {"a": Share(10, 10**12, 10**11)}, parallel)
    assert 0 <= one.seconds < float("inf")
    assert 0 <= one.error < float("inf")


def test_shares() -> None:
    """What lies on each server is counted, what lies in files as this host's."""
    found = shares([candidate(1, "a", size=5), candidate(2, "a", size=7), candidate(3, None, size=None)])
    assert found == {"a": Share(2, 12, 7), "this host": Share(1, 0, 0)}


def test_paths_between_versions() -> None:
    """The way up names each migration with where it leads; the way down leads to the one before, at last to none."""
    order = ("0001", "0002", "0003")
    assert path(order, None, "0002") == [("0001", "0001"), ("0002", "0002")]
    assert path(order, "0003", "0001") == [("0003", "0002"), ("0002", "0001")]
    assert path(order, "0001", None) == [("0001", None)]
    assert path(order, "0002", "0002") == []

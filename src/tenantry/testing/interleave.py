"""Runs each test as two tenants, one after the other in one process, and finds what crossed from one to the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import pytest
from _pytest.runner import CallInfo, runtestprotocol

from tenantry.model import Environment
from tenantry.testing.caches import Caches
from tenantry.testing.ground import Ground
from tenantry.testing.leaks import Leak, Search, Snapshot, TenantLeak, changed, foreigners, strayed
from tenantry.testing.responses import Responses

ALONE: Final = "tenantry_alone"

TURNS: Final = ("the first tenant", "the second tenant")

Pair = tuple[Environment, Environment]

NOTED: Final = 10
"""Leaks that one message names."""


class Turn:
    """One run of a test as one of its two tenants."""

    def __init__(self, number: int, pair: Pair, past: Sequence[Environment] = ()) -> None:
        self.number = number
        self.pair = pair
        self.past = past  # those of the turn before, whom nothing may reach any more
        self.visited: set[str] = set()  # environments the test itself works for

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"{TURNS[self.number]}, '{self.slug}'"

    @property
    def slug(self) -> str:
        """The slug of the current tenant."""
        return self.pair[0].tenant.slug

    @property
    def watched(self) -> Sequence[Environment]:
        """Every tenant that is looked at."""
        return (*self.pair, *self.past)


class Interleaver:
    """The state of `pytest --tenantry-interleave`."""

    def __init__(self, ground: Ground, patch: pytest.MonkeyPatch) -> None:
        self.ground = ground
        self.turn: Turn | None = None
        self.tests = self.leaks = 0
        self._responses = Responses()
        self._responses.watch(patch)
        self._caches = Caches(patch)

    # --- two turns ----------------------------------------------------------------------------------------------

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Run a test twice. It counts once; where the first turn fails, there is no second one."""
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        made = CallInfo.from_call(lambda: (self.ground.pair(), self.ground.pair()), "setup")
        if made.excinfo:  # there are no tenants to run it as
            reports = [item.ihook.pytest_runtest_makereport(item=item, call=made), *self._tear_down(item, nextitem)]
        else:
            reports = self._both(item, nextitem, *made.result)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _both(
        self, item: pytest.Item, nextitem: pytest.Item | None, first: Pair, second: Pair
    ) -> list[pytest.TestReport]:
        self.tests += 1
        self._caches.begin()
        try:
            reports = self._take_turn(item, item.parent, Turn(0, first))
            if all(report.passed for report in reports):
                return self._take_turn(item, nextitem, Turn(1, second, first))
            return reports + self._tear_down(item, nextitem)
        finally:
            self.turn = None
            self.ground.remove((*first, *second))

    def _take_turn(self, item: pytest.Item, nextitem: object, turn: Turn) -> list[pytest.TestReport]:
        """The parent as the next one lets all but the test's own fixtures stand, so that caches outlive the turn."""
        self.turn = turn
        self._responses.clear()
        return runtestprotocol(item, log=False, nextitem=nextitem)  # type: ignore[arg-type]

    @staticmethod
    def _tear_down(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
        """End the fixtures that only a second turn would have needed; a report where that fails."""
        call = CallInfo.from_call(lambda: item.session._setupstate.teardown_exact(nextitem), "teardown")
        return [item.ihook.pytest_runtest_makereport(item=item, call=call)] if call.excinfo else []

    # --- what crossed -------------------------------------------------------------------------------------------

    def around(self, item: pytest.Item) -> Iterator[None]:
        """Compare both tenants before and after a test's own code; raises `TenantLeak`."""
        turn = self.turn
        assert turn is not None
        before = self._look(turn)
        try:
            yield
        except BaseException:
            self._explain(item, turn, before)
            raise
        found = self._found(turn, before)
        if found:
            self.leaks += 1
            raise TenantLeak(test=f"{item.nodeid} as {turn.name}", found=_listed(found))

    def _explain(self, item: pytest.Item, turn: Turn, before: Sequence[Snapshot]) -> None:
        """Say beside a failure what it has to do with tenants."""
        told = [f"It failed as {turn.name}."]
        if turn.number == 1:
            told = [f"It passed as {TURNS[0]} and fails as {turn.name}: something remembers the first one."]
        found = self._found(turn, before)
        if found:
            self.leaks += 1
            told.append(_listed(found))
        item.add_report_section("call", "tenants", "\n".join(told))

    def _look(self, turn: Turn) -> Sequence[Snapshot]:
        search = Search(self.ground.runtime, self.ground.slugs)
        return [search.look(environment) for environment in turn.watched]

    def _found(self, turn: Turn, before: Sequence[Snapshot]) -> list[Leak]:
        found: list[Leak] = []
        slugs, seen = self.ground.slugs, self._responses.bodies
        for environment, then, now in zip(turn.watched, before, self._look(turn), strict=True):
            found += strayed(then, now, slugs)
            if environment.id not in turn.visited | seen.keys() | {turn.pair[0].id}:
                found += changed(then, now, turn.slug)
            text = bytes(seen.get(environment.id, b"")).decode("utf-8", "replace")
            for foreign in foreigners(text, now.slug, slugs):
                found.append(Leak(f"{now.slug} / responses", f"a response names {foreign}"))
        return [*found, *self._caches.leaks()]


def _listed(found: list[Leak]) -> str:
    more = [f"and {len(found) - NOTED} more"] if len(found) > NOTED else []
    return "\n".join(["", *(f"  {leak}" for leak in found[:NOTED]), *more])

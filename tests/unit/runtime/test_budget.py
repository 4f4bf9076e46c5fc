"""The budget of connections to one server: who gets one, who waits, whose is closed."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from tenantry.runtime.budget import AHEAD, Budget, Grant, Share, Slot, Waiter


class Tenant:
    """What the tests do for one tenant: take and leave connections, as the pools do."""

    def __init__(self, budget: Budget[Slot], name: str, size: int = 5, most: int = 15) -> None:
        self.budget = budget
        self.share = Share((name, "db"), size, most)
        self.used: list[Slot] = []

    def take(self) -> Grant[Slot] | Waiter[Slot]:
        grant = self.budget.ask(self.share, None)
        if grant is None:
            waiter: Waiter[Slot] = Waiter(self.share, None)
            self.budget.wait(waiter)
            return waiter
        self.use(grant)
        return grant

    def use(self, grant: Grant[Slot] | None) -> None:
        assert grant is not None
        self.used.append(grant.slot or Slot(self.share, None))

    def leave(self, now: float = 0.0) -> Slot | None:
        surplus = self.budget.give_back(self.used.pop(), now)
        if surplus is not None:
            self.budget.gone(surplus.share)
        return surplus


def test_own_idle_one_first() -> None:
    """A tenant gets its own idle connection again, the one that was used last."""
    budget: Budget[Slot] = Budget(4)
    acme = Tenant(budget, "acme")
    acme.take()
    acme.take()
    first, second = acme.used
    acme.leave(1.0)
    acme.leave(2.0)
    grant = acme.take()
    assert isinstance(grant, Grant)
    assert grant.slot is first
    assert second in budget.idle
    assert (budget.open, budget.busy) == (2, 1)


def test_the_one_used_longest_ago_makes_room() -> None:
    """Where all are open, the idle connection of another tenant that was used longest ago is closed for a new one."""
    budget: Budget[Slot] = Budget(2)
    acme, beta, gamma = (Tenant(budget, name) for name in ("acme", "beta", "gamma"))
    acme.take()
    beta.take()
    slot = beta.used[0]
    beta.leave(1.0)
    acme.leave(2.0)
    grant = gamma.take()
    assert isinstance(grant, Grant)
    assert grant.evicted is slot
    assert (budget.open, acme.share.open, beta.share.open, gamma.share.open) == (2, 1, 0, 1)


def test_turns_by_tenant() -> None:
    """Tenants that wait take turns, whoever has more waiting; within one, they come in their order."""
    budget: Budget[Slot] = Budget(1)
    acme, beta, gamma = (Tenant(budget, name) for name in ("acme", "beta", "gamma"))
    acme.take()
    line = [(tenant, tenant.take()) for tenant in (acme, acme, acme, beta, gamma, beta)]
    served: list[int] = []
    user = acme
    for _ in line:
        user.leave()
        number = next(n for n, (_, one) in enumerate(line) if isinstance(one, Waiter) and one.grant and n not in served)
        served.append(number)
        user, waiter = line[number]
        assert isinstance(waiter, Waiter)
        user.use(waiter.grant)
    assert served == [0, 3, 4, 1, 5, 2]


def test_nobody_takes_all() -> None:
    """A tenant alone leaves a fifth free, which the next one gets at once."""
    budget: Budget[Slot] = Budget(50)
    flood, other = Tenant(budget, "flood", most=100), Tenant(budget, "other")
    taken = [flood.take() for _ in range(100)]
    assert sum(isinstance(one, Grant) for one in taken) == 50 * AHEAD // (AHEAD + 1)
    assert isinstance(other.take(), Grant)


def test_limit_of_a_tenant() -> None:
    """A tenant has `most` connections, and keeps `size` of them when nobody uses them."""
    budget: Budget[Slot] = Budget(50)
    acme = Tenant(budget, "acme", size=2, most=4)
    taken = [acme.take() for _ in range(6)]
    waiting = [one for one in taken if isinstance(one, Waiter)]
    assert len(waiting) == 2
    for waiter in waiting:
        acme.leave()
        acme.use(waiter.grant)
    while acme.used:
        acme.leave()
    assert (acme.share.open, len(acme.share.idle), budget.open) == (2, 2, 2)


def test_another_event_loop() -> None:
    """A tenant that has all it may have in one event loop gets one in another by closing one there."""
    budget: Budget[Slot] = Budget(10)
    acme = Tenant(budget, "acme", size=1, most=1)
    acme.take()
    slot = acme.used[0]
    acme.leave()
    loop = asyncio.new_event_loop()
    grant = budget.ask(acme.share, loop)
    loop.close()
    assert grant is not None
    assert (grant.slot, grant.evicted) == (None, slot)
    assert (budget.open, acme.share.open) == (1, 1)


def test_a_waiter_of_a_closed_loop_is_passed_over() -> None:
    """What is granted to an event loop that is over goes to the next one."""
    budget: Budget[Slot] = Budget(1)
    acme, beta, gamma = (Tenant(budget, name) for name in ("acme", "beta", "gamma"))
    acme.take()
    loop = asyncio.new_event_loop()
    dead: Waiter[Slot] = Waiter(beta.share, loop)
    budget.wait(dead)
    waiter = gamma.take()
    loop.close()
    acme.leave()
    assert isinstance(waiter, Waiter)
    assert waiter.grant is not None
    gamma.use(waiter.grant)
    assert (budget.open, budget.busy, beta.share.open) == (1, 1, 0)


class Crowd:
    """Four tenants that do anything in any order."""

    def __init__(self, limit: int, size: int, most: int, seed: int) -> None:
        self.budget: Budget[Slot] = Budget(limit)
        self.tenants = [Tenant(self.budget, f"t{number}", size, max(size, most)) for number in range(4)]
        self.line: list[tuple[Tenant, Waiter[Slot]]] = []
        self.chance = random.Random(seed)

    def step(self, now: float) -> None:
        tenant, action = self.chance.choice(self.tenants), self.chance.random()
        if action < 0.55:
            taken = tenant.take()
            if isinstance(taken, Waiter):
                self.line.append((tenant, taken))
        elif action < 0.65 and self.line:
            _, waiter = self.line.pop(self.chance.randrange(len(self.line)))
            self.budget.give_up(waiter)
        elif action < 0.7 and tenant.used:
            tenant.used.pop()
            self.budget.gone(tenant.share)
        elif tenant.used:
            tenant.leave(now)
        for entry in [entry for entry in self.line if entry[1].grant and self.chance.random() < 0.8]:
            self.line.remove(entry)
            entry[0].use(entry[1].grant)

    def sound(self) -> bool:
        granted = sum(waiter.grant is not None for _, waiter in self.line)
        idle = [id(slot) for one in self.tenants for slot in one.share.idle]
        return (
            self.budget.open <= self.budget.limit
            and self.budget.busy == sum(len(one.used) for one in self.tenants) + granted
            and all(one.share.open <= one.share.most for one in self.tenants)
            and sum(one.share.open for one in self.tenants) == self.budget.open
            and sorted(map(id, self.budget.idle)) == sorted(idle)
        )

    def go_home(self) -> None:
        for tenant in self.tenants:
            while tenant.used:
                tenant.leave()
        while self.line:
            ready = next(entry for entry in self.line if entry[1].grant)  # StopIteration: somebody waits for ever
            self.line.remove(ready)
            ready[0].use(ready[1].grant)
            ready[0].leave()


@given(st.integers(1, 8), st.integers(0, 3), st.integers(1, 5), st.integers(0, 2**32))
def test_always_sound(limit: int, size: int, most: int, seed: int) -> None:
    """Whatever happens in whatever order, the bounds hold, nothing is lost, and nobody waits for a free connection."""
    crowd = Crowd(limit, size, most, seed)
    for step in range(120):
        crowd.step(float(step))
        assert crowd.sound()
    crowd.go_home()
    assert crowd.budget.busy == 0

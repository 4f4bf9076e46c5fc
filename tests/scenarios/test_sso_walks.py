"""Random walks over two organizations: sign in, switch, sign out, forge. No walk ever opens a foreign tenant.

40 walks in the suite; `SSO_WALKS=1000 pytest tests/scenarios/test_sso_walks.py` walks as many as are asked for.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from providers import Forger, forger, names
from sso_world import Here, World, query_of, world

WALKS = int(os.environ.get("SSO_WALKS", "40"))
STEPS = 12

OF = {
    "acme": "acme.example",
    "acme-two": "acme.example",
    "umbrella": "umbrella.example",
    "umbrella-two": "umbrella.example",
}
"""Whose people each tenant is open to."""

SLUGS = st.sampled_from(sorted(OF))
DOMAINS = st.sampled_from(sorted(set(OF.values())))
WHO = st.sampled_from(["eva", "ida"])


class Ground:
    """The platform in a thread with its own event loop; both providers say whatever a walk wants."""

    def __init__(self, root: Path, ops: dict[str, Forger], known: Any) -> None:
        self.ops = ops
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.making = world(root, known)
        self.world: World = self.run(self.making.__aenter__())
        self.ids: dict[str, str] = self.run(self._fill())

    async def _fill(self) -> dict[str, str]:
        await self.world.create(*OF)
        ids = {}
        for domain, op in self.ops.items():
            slugs = [slug for slug, of in OF.items() if of == domain]
            ids[domain] = await self.world.organization(domain, *slugs, domain=domain)
            await self.world.sign_on(ids[domain], op.issuer)
        return ids

    def run(self, work: Any) -> Any:
        """Do something there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def close(self) -> None:
        """End it."""
        self.run(self.making.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """It."""
    with forger() as acme, forger() as umbrella, names() as known:
        ops = {"acme.example": acme, "umbrella.example": umbrella}
        made = Ground(tmp_path_factory.mktemp("walks"), ops, known)
        try:
            yield made
        finally:
            made.close()


class Walk(RuleBasedStateMachine):
    """One browser, and what it may see."""

    ground: Ground

    @initialize()
    def begin(self) -> None:
        self.browser = httpx.AsyncClient(transport=Here(), timeout=60)
        self.allowed: dict[str, str] = {}  # by tenant, who is signed in there by rights
        self.answers: list[str] = []  # of providers
        self.handed: list[tuple[str, str, str]] = []  # addresses at tenants that end a sign-in
        self.cookies: list[str] = []  # of sessions

    def teardown(self) -> None:
        if hasattr(self, "browser"):
            self.ground.run(self.browser.aclose())

    @rule(slug=SLUGS, who=WHO, domain=DOMAINS, finish=st.booleans())
    def sign_in(self, slug: str, who: str, domain: str, finish: bool) -> None:
        """By the tenant's own provider, which names somebody of this domain."""
        op, asked = self.ground.ops[OF[slug]], query_of(self.ground.run(self.ground.world.begin(self.browser, slug)))
        mail = f"{who}@{domain}"
        op.give(op.sign(op.claims(asked["nonce"], sub=who, email=mail, sid=f"{who}-1")))
        back = self.ground.world.own(f"/sso/{self.ground.ids[OF[slug]]}/callback")
        self.answers.append(f"{back}?code=c&state={asked['state']}&iss={op.issuer}")
        answer = self.ground.run(self.browser.get(self.answers[-1]))
        assert (answer.status_code == 303) is (domain == OF[slug]), answer.text
        if answer.status_code == 303:
            self.handed.append((answer.headers["location"], slug, mail))
            if finish:
                self._finish(self.handed[-1])

    def _finish(self, handed: tuple[str, str, str]) -> None:
        """Once, in this browser, a handover opens the tenant that it is for."""
        address, slug, mail = handed
        if self.ground.run(self.browser.get(address)).headers.get("location") == "/":
            self.allowed[slug] = mail
        self.cookies += [one.value or "" for one in self.browser.cookies.jar if one.name == "tenantry_session"]

    @rule(slug=SLUGS)
    def sign_out(self, slug: str) -> None:
        """At one tenant."""
        self.ground.run(self.browser.post(self.ground.world.at(slug, "/.tenantry/sso/sign-out")))
        self.allowed.pop(slug, None)

    @rule(which=st.integers(0, 20))
    def replay(self, which: int) -> None:
        """An answer, and a handover, that came before."""
        if self.answers:
            answer = self.ground.run(self.browser.get(self.answers[which % len(self.answers)]))
            assert answer.status_code == 403
        if self.handed:
            self._finish(self.handed[which % len(self.handed)])

    @rule(which=st.integers(0, 20), slug=SLUGS)
    def carry(self, which: int, slug: str) -> None:
        """A handover, and an answer, to another tenant or organization."""
        if self.handed:
            address, own, _ = self.handed[which % len(self.handed)]
            if slug != own:
                elsewhere = httpx.URL(address).copy_with(host=f"{slug}.localhost")
                assert self.ground.run(self.browser.get(elsewhere)).status_code == 403
        if self.answers:
            given = httpx.URL(self.answers[which % len(self.answers)])
            self.ground.run(self.browser.get(given.copy_with(path=f"/sso/{self.ground.ids[OF[slug]]}/callback")))

    @rule(which=st.integers(0, 20), slug=SLUGS)
    def forge(self, which: int, slug: str) -> None:
        """A session of one tenant, shown at another one by a thief."""
        if self.cookies:
            thief = httpx.AsyncClient(transport=Here(), timeout=60)
            thief.headers["cookie"] = f"tenantry_session={self.cookies[which % len(self.cookies)]}"
            told = self.ground.run(self.ground.world.who(thief, slug))
            self.ground.run(thief.aclose())
            assert told.startswith("nobody") or told.partition(" ")[0].endswith(f"@{OF[slug]}"), told

    @rule(slug=SLUGS, who=WHO)
    def mix_up(self, slug: str, who: str) -> None:
        """The other organization's provider answers, with a token of its own."""
        other = next(op for domain, op in self.ground.ops.items() if domain != OF[slug])
        asked = query_of(self.ground.run(self.ground.world.begin(self.browser, slug)))
        self.ground.ops[OF[slug]].give(other.sign(other.claims(asked["nonce"], email=f"{who}@{OF[slug]}")))
        back = self.ground.world.own(f"/sso/{self.ground.ids[OF[slug]]}/callback?code=c&state={asked['state']}")
        for issuer in (other.issuer, self.ground.ops[OF[slug]].issuer):
            assert self.ground.run(self.browser.get(f"{back}&iss={issuer}")).status_code == 403

    @invariant()
    def nobody_is_where_she_may_not_be(self) -> None:
        """Each tenant shows those alone who signed in there by their own organization."""
        if not hasattr(self, "browser"):
            return
        for slug, domain in OF.items():
            told = self.ground.run(self.ground.world.who(self.browser, slug))
            if not told.startswith("nobody"):
                assert told == f"{self.allowed.get(slug)} user"
                assert told.partition(" ")[0].endswith(f"@{domain}")


def test_no_walk_opens_a_foreign_tenant(ground: Ground) -> None:
    """Whatever is signed in, switched, replayed, carried elsewhere and forged, and in whatever order."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    limits = settings(max_examples=WALKS, stateful_step_count=STEPS, deadline=None, suppress_health_check=checks)
    walk = type("Walking", (Walk,), {"ground": ground})
    run_state_machine_as_test(walk, settings=limits)

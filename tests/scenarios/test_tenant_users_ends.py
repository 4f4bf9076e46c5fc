"""What ends the sessions and tokens of tenants' users from outside: a suspension, a stolen token, other keys."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

import entrances as e
import ground as g
import kinds_world as k
import servers
from kinds_world import KINDS, LOGIN, Here
from shelves import RowsShelves
from tenantry.context import tenant_context
from tenantry.model import KeyTurn
from tenantry.runtime.follower import read_snapshot, write_snapshot
from tenantry.runtime.tokens import KEYS_SECONDS, LEEWAY, standing, turned


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, postgres: servers.Postgres) -> Iterator[RowsShelves]:
    """A platform with a tenant on each kind of database, who has a user."""
    found = k.platform(tmp_path_factory.mktemp("ends") / "platform", postgres)
    yield found
    found.clear()


@pytest.fixture
async def here(platform: RowsShelves, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    """An application that serves them."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    async with k.served(platform) as found:
        yield found


# --- who left -------------------------------------------------------------------------------------------------------


@pytest.mark.postgres
async def test_who_left_is_out_on_each_kind_of_database(here: Here) -> None:
    """By her organization's directory, through a worker: sessions and tokens end; back again, she signs in anew."""
    tell = await k.told_of(here.platform, list(KINDS), LOGIN)
    opened = {kind: (await here.signed_in(kind), await here.given(kind)) for kind in KINDS}
    shown = [
        (kind, one)
        for kind, (cookie, given) in opened.items()
        for one in (cookie, {"authorization": f"Bearer {given['access_token']}"})
    ]
    assert [await here.asked(kind, **one) for kind, one in shown] == [(200, LOGIN)] * 6

    async def out() -> bool:
        return {(await here.asked(kind, **one))[0] for kind, one in shown} == {401}

    async def may_come() -> bool:
        return all(["access_token" in await here.given(kind) for kind in KINDS])

    with here.ground.worker():
        await tell(False)
        await g.until(out, "who left")
        for kind, (_, given) in opened.items():
            refused = await here.tokens(kind, grant_type="refresh_token", refresh_token=given["refresh_token"])
            assert refused["error"] == "invalid_grant"
            with tenant_context(here.runtime.environment(kind)):
                (event,) = await here.runtime.accounts.events(limit=1)
                assert (event.what, event.login, event.by) == ("disabled", LOGIN, "directory")
        await tell(True)
        await g.until(may_come, "who is back")
    assert await out()


# --- a suspension ---------------------------------------------------------------------------------------------------


@pytest.mark.postgres
@pytest.mark.parametrize("kind", KINDS)
async def test_a_suspension_ends_what_is_open(here: Here, kind: str) -> None:
    """Made by another process: an open session and a token open nothing here any more, and neither is refreshed."""
    cookie, given = await here.signed_in(kind), await here.given(kind)
    bearer = {"authorization": f"Bearer {given['access_token']}"}
    assert [await here.asked(kind, **one) for one in (cookie, bearer)] == [(200, LOGIN)] * 2
    suspending = asyncio.create_task(here.command("tenant", "suspend", kind, "--reason", "unpaid"))
    shut = (403, "tenant.not_served")

    async def over() -> bool:
        return [await here.asked(kind, **one) for one in (cookie, bearer)] == [shut] * 2

    await g.until(over, "the suspension")
    await suspending
    refused = [
        await here.tokens(kind, grant_type="refresh_token", refresh_token=given["refresh_token"]),
        await here.tokens(kind, grant_type="password", username=LOGIN, password=e.PASSWORD),
    ]
    assert {one["code"] for one in refused} == {"tenant.not_served"}
    await here.command("tenant", "resume", kind)

    async def back() -> bool:
        return await here.asked(kind, **cookie) == (200, LOGIN)

    await g.until(back, "the tenant")
    assert "access_token" in await here.tokens(kind, grant_type="refresh_token", refresh_token=given["refresh_token"])


# --- a stolen token -------------------------------------------------------------------------------------------------


async def test_a_token_used_twice_is_in_the_audit_log(here: Here) -> None:
    """With whose it was, chained to the entries before; what was made up, or is over already, leaves none."""
    given = await here.given()
    form = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
    anew = await here.tokens("sqlite", **form)
    for wrong in ("made up", given["refresh_token"][:-3] + "abc"):
        assert (await here.tokens("sqlite", **form | {"refresh_token": wrong}))["error"] == "invalid_grant"
    both = await asyncio.gather(*(here.tokens("sqlite", **form) for _ in range(4)))
    assert {one["error"] for one in both} == {"invalid_grant"}
    assert (await here.asked("sqlite", authorization=f"Bearer {anew['access_token']}"))[0] == 401
    found = [one for one in await g.rows(here.platform, "audit") if one["action"] == "user.token_reused"]
    (entry,) = found
    tenant = here.runtime.environment("sqlite").tenant
    assert (entry["subject"], entry["actor"]) == ("sqlite", f"tenant:{LOGIN}")
    told = json.loads(entry["detail"]) if isinstance(entry["detail"], str) else entry["detail"]
    assert (told["id"], told["environment"]) == (tenant.id, "production")
    assert given["refresh_token"] not in str(told)
    await here.platform.audit.verify()


# --- other keys -----------------------------------------------------------------------------------------------------


def header_of(access: str) -> Any:
    """What a token's header says."""
    head = access.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))


async def test_keys_rotate_out_of_turn(here: Here) -> None:
    """By a command: new ones are published first, sign in an hour, and the old ones stay as long as their tokens."""
    moment = time.time()
    here.runtime.clock = lambda: moment
    old, before = await here.given(), {key["kid"] for key in (await here.keys())["keys"]}
    shown = await here.command("tenant", "rotate-keys", "sqlite")
    assert "signs its tokens with other keys from" in shown

    async def known() -> bool:
        return {key["kid"] for key in (await here.keys())["keys"]} > before

    await g.until(known, "the new keys")
    announced = KeySet.import_key_set(await here.keys())
    again = await here.platform.tenants.rotate_keys("sqlite")  # it is announced already
    assert f"{again.since:%H:%M:%S}" in shown
    assert [turn.number for turn in here.runtime.environment("sqlite").tenant.key_turns] == [0, 1]
    assert header_of((await here.given())["access_token"])["kid"] in before
    moment = again.since.timestamp() + 1
    new = await here.given()
    assert header_of(new["access_token"])["kid"] not in before
    assert jwt.decode(new["access_token"], announced, algorithms=["ES256"]).claims["sub"]
    late = await here.tokens("sqlite", grant_type="refresh_token", refresh_token=old["refresh_token"])
    assert (await here.asked("sqlite", authorization=f"Bearer {late['access_token']}")) == (200, LOGIN)
    assert {key["kid"] for key in (await here.keys())["keys"]} > before
    moment += 300 + LEEWAY + 1
    assert not {key["kid"] for key in (await here.keys())["keys"]} & before


@pytest.mark.postgres
async def test_keys_are_withdrawn_at_once(here: Here) -> None:
    """With --now: no token of the ones before opens anything, also not by way of a process that starts without the

    control database; refresh tokens and sessions hold.
    """
    given, cookie = await here.given("postgres"), await here.signed_in("postgres")
    bearer = {"authorization": f"Bearer {given['access_token']}"}
    assert await here.asked("postgres", **bearer) == (200, LOGIN)
    shown = await here.command("tenant", "rotate-keys", "postgres", "--now")
    assert "no token of the ones before is believed" in shown

    async def over() -> bool:
        return await here.asked("postgres", **bearer) == (401, "token.invalid")

    await g.until(over, "the end of the old keys")
    assert await here.asked("postgres", **cookie) == (200, LOGIN)
    kids = {key["kid"] for key in (await here.keys("postgres"))["keys"]}
    assert header_of(given["access_token"])["kid"] not in kids
    anew = await here.tokens("postgres", grant_type="refresh_token", refresh_token=given["refresh_token"])
    assert header_of(anew["access_token"])["kid"] in kids
    assert await here.asked("postgres", authorization=f"Bearer {anew['access_token']}") == (200, LOGIN)
    path = here.ground.root / "copy.json"
    write_snapshot(path, here.runtime.resolver.table)
    found = read_snapshot(path)
    assert found is not None
    kept = {one.tenant.slug: one.tenant.key_turns for one in found[0].environments}
    assert kept["postgres"] == here.runtime.environment("postgres").tenant.key_turns
    assert kept["rows"] == ()
    actions = [one["action"] for one in await g.rows(here.platform, "audit")]
    assert "tenant.rotate_keys" in actions


def test_turns() -> None:
    """One that is over is forgotten; one at once is the only one, also where another was announced."""
    first = turned((), 1_000, 300, at_once=False)
    assert first == [KeyTurn(0, 0), KeyTurn(1, 1_000 + KEYS_SECONDS + LEEWAY)]
    assert turned(first, 2_000, 300, at_once=False) == first
    begun = first[1].since
    for passed, numbers in ((0, [0, 1]), (300 + LEEWAY - 1, [0, 1]), (300 + LEEWAY, [1])):
        assert [turn.number for turn in standing(first, begun + passed, 300)] == numbers
    assert [turn.number for turn in turned(first, begun + 1, 300, at_once=False)] == [0, 1, 2]
    assert turned(first, 2_000, 300, at_once=True) == [KeyTurn(2, 2_000)]
    assert standing((), 0, 300) == [KeyTurn(0, 0)]

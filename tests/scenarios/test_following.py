"""Many who follow one operation: what they cost together, what becomes of them, and what they may see."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from bench import followers
from bench.site import Site
from sqlalchemy import event

import ground as g
from people_world import portal
from servers import free_port
from tenantry.model import new_id
from tenantry.platform import Platform
from tenantry.refusals import SignInNeeded, TooManyFollowers, TooManyStreams
from tenantry.registry import journal
from tenantry.registry.journal import State
from tenantry.web import hub
from tenantry.web.hub import Hub, News

MANY = 40


@pytest.fixture
async def platform(ground: g.Ground) -> AsyncIterator[Platform]:
    """A platform without tenants."""
    async with ground.open() as platform:
        yield platform


async def begun(platform: Platform) -> str:
    """An operation that runs."""
    operation_id = new_id()
    async with platform.registry.write() as tx:
        await journal.submit(tx, operation_id, "migrate", [("template", ""), ("wave 1", "")])
        await journal.set_state(tx, operation_id, State.RUNNING)
    return operation_id


async def record(platform: Platform, operation_id: str, done: int) -> None:
    """One more change of it."""
    async with platform.registry.write() as tx:
        await journal.progress(tx, operation_id, done=done)


async def finish(platform: Platform, operation_id: str) -> None:
    """Let it be over."""
    async with platform.registry.write() as tx:
        await journal.set_state(tx, operation_id, State.DONE)


async def everything() -> None:
    """Whoever asks may see it."""


class Follower:
    """Somebody who follows an operation in a task of her own."""

    def __init__(self, hub: Hub, operation_id: str) -> None:
        self.heard: asyncio.Queue[News | None] = asyncio.Queue()
        self.done = 0
        self.task = asyncio.create_task(self._follow(hub, operation_id))

    async def _follow(self, hub: Hub, operation_id: str) -> None:
        async for news in hub.listen(operation_id, hub.seat(), everything):
            self.heard.put_nowait(news)

    async def until(self, done: int) -> News:
        """The news that so many are done."""
        async with asyncio.timeout(g.PATIENCE):
            while True:
                news = await self.heard.get()
                if news is not None and news.details.operation.done == done:
                    return news

    async def over(self) -> State:
        """The state at its end."""
        await asyncio.wait_for(self.task, g.PATIENCE)
        news = None
        while not self.heard.empty():
            news = self.heard.get_nowait()
        assert news is not None
        return news.details.operation.state


@contextlib.contextmanager
def counted(platform: Platform) -> Iterator[list[str]]:
    """Every statement that the control database is asked."""
    asked: list[str] = []
    engine = platform.registry.database.engine.sync_engine

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            asked.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield asked
    event.remove(engine, "before_cursor_execute", note)


async def test_many_who_follow_ask_the_registry_no_more_than_one(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change is read once for all who follow an operation, and they share what was made of it."""
    monkeypatch.setattr(hub, "STALE", g.PATIENCE)  # so that nothing but the change lets it look
    asked = {}
    for number in (1, MANY):
        desk, operation_id = Hub(platform), await begun(platform)
        followers = [Follower(desk, operation_id) for _ in range(number)]
        await asyncio.gather(*(one.until(0) for one in followers))
        await asyncio.sleep(2 * hub.PAUSE)  # whatever was written before them is looked at
        with counted(platform) as statements:
            await record(platform, operation_id, 1)
            news = await asyncio.gather(*(one.until(1) for one in followers))
        asked[number] = len(statements)
        assert len({id(one) for one in news}) == 1
        await finish(platform, operation_id)
        await asyncio.gather(*(one.over() for one in followers))
        desk.close()
    assert asked[MANY] == asked[1]


async def test_who_comes_later_hears_at_once_what_is_known(platform: Platform) -> None:
    """A second follower asks the registry nothing to hear how an operation stands."""
    desk, operation_id = Hub(platform), await begun(platform)
    first = Follower(desk, operation_id)
    await first.until(0)
    with counted(platform) as statements:
        second = desk.listen(operation_id, desk.seat(), everything)
        news = await anext(second)
    assert news is not None
    assert (news.details.operation.id, statements) == (operation_id, [])
    await second.aclose()  # type: ignore[attr-defined]
    desk.close()
    await first.task


async def test_all_hear_the_end_and_then_nothing_is_kept(platform: Platform) -> None:
    """When an operation is over all of its followers are told, and no task and no room is left."""
    desk, operation_id = Hub(platform), await begun(platform)
    followers = [Follower(desk, operation_id) for _ in range(MANY)]
    await asyncio.gather(*(one.until(0) for one in followers))
    assert desk.followers == MANY
    await finish(platform, operation_id)
    assert await asyncio.gather(*(one.over() for one in followers)) == [State.DONE] * MANY
    assert (desk.followers, desk._rooms, desk._task) == (0, {}, None)


async def test_who_goes_away_is_forgotten(platform: Platform) -> None:
    """Closing every browser ends the looking; one that stays is told on."""
    desk, operation_id = Hub(platform), await begun(platform)
    followers = [Follower(desk, operation_id) for _ in range(3)]
    await asyncio.gather(*(one.until(0) for one in followers))
    for one in followers[:2]:
        one.task.cancel()
    await asyncio.gather(*(one.task for one in followers[:2]), return_exceptions=True)
    assert desk.followers == 1
    await record(platform, operation_id, 1)
    await followers[2].until(1)
    followers[2].task.cancel()
    await asyncio.gather(followers[2].task, return_exceptions=True)
    assert (desk.followers, desk._rooms, desk._task) == (0, {}, None)


async def test_a_process_takes_so_many_followers_and_tells_the_others(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than a process takes is refused, with what to do; there is room when somebody leaves."""
    monkeypatch.setattr(hub, "FOLLOWERS", 2)
    desk, operation_id = Hub(platform), await begun(platform)
    desk.seat()
    followers = [Follower(desk, operation_id) for _ in range(2)]
    await asyncio.gather(*(one.until(0) for one in followers))
    with pytest.raises(TooManyFollowers, match="2 followers") as refused:
        desk.seat()
    assert refused.value.status == 503
    followers[0].task.cancel()
    await asyncio.gather(followers[0].task, return_exceptions=True)
    desk.seat()
    desk.close()
    await followers[1].task


async def test_one_person_and_one_address_have_so_many_streams(ground: g.Ground) -> None:
    """One more than is set is refused, over the API and at the page; others go on, and there is room when one ends."""
    with ground.config.open("a") as toml:
        toml.write("\n[api]\nperson_streams = 2\naddress_streams = 3\n")
    async with portal(ground) as here:
        desk, operation_id = here.here.hub, await begun(here.platform)
        root = (await here.platform.admins.list())[0].id
        token = (await here.platform.tokens.create("x", ["operations:read"], admin=root)).token
        robot = await here.browser("192.0.2.1", Authorization=f"Bearer {token}")
        held = [desk.seat(root, "192.0.2.2"), desk.seat(root, "2001:db8::1")]
        answer = await robot.get(f"/api/operations/{operation_id}/events")
        assert (answer.status_code, answer.json()["code"]) == (429, "operation.streams")
        assert "person follows 2" in answer.json()["title"]
        page = await (await here.signed_in()).get(f"/admin/operations/{operation_id}/steps")
        assert page.status_code == 429
        held += [desk.seat("another", "2001:db8::2"), desk.seat("a third", "2001:db8::3")]
        with pytest.raises(TooManyStreams, match="address follows 3"):
            desk.seat("a fourth", "2001:db8::4")
        desk.seat("a fourth", "2001:db9::4")
        del held[:2]
        await finish(here.platform, operation_id)
        answer = await robot.get(f"/api/operations/{operation_id}/events")
        assert answer.status_code == 200
        assert desk.followers == len(held)


async def test_who_may_no_longer_see_it_is_let_go(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower's right is asked for again: a stream ends with the session that opened it."""
    monkeypatch.setattr(hub, "TRUSTED", 0.0)
    desk, operation_id = Hub(platform), await begun(platform)

    async def signed_out() -> None:
        raise SignInNeeded

    heard = desk.listen(operation_id, desk.seat(), signed_out)
    news = await anext(heard)
    assert news is not None
    await record(platform, operation_id, 1)
    assert [one async for one in heard] == []
    assert desk.followers == 0


async def test_a_server_ends_though_browsers_follow(tmp_path: Path) -> None:
    """`tenantry serve` that is told to end does not wait for the end of an operation that somebody looks at."""
    place = Site(tmp_path)
    async with place.platform() as platform:
        cookie = await followers.signed_in(platform)
        operation_id = await begun(platform)
        process = subprocess.Popen(
            [g.TENANTRY, "serve", "--no-worker", "--port", str(port := free_port())], cwd=place.root
        )
        try:
            server = followers.Server(process.pid, port)
            await asyncio.to_thread(followers.page, port)
            browsers = await followers.follow(server, 3, followers.PORTAL.format(operation=operation_id, who=cookie))
            assert [one.status for one in browsers] == [200] * 3
            process.terminate()
            await asyncio.to_thread(process.wait, g.PATIENCE)
        finally:
            process.kill()
            process.wait()


async def test_a_server_that_ends_lets_its_followers_go(platform: Platform) -> None:
    """Closing the hub ends every stream, also of those who come afterwards."""
    desk, operation_id = Hub(platform), await begun(platform)
    follower = Follower(desk, operation_id)
    await follower.until(0)
    desk.close()
    await asyncio.wait_for(follower.task, g.PATIENCE)
    assert [one async for one in desk.listen(operation_id, desk.seat(), everything)] == []

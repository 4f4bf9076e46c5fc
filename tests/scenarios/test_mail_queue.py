"""Mail is queued durably: sent once there is a server, tried again, given up, held back; nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import ground as g
import people_world as w
from tenantry.mail import Letter, Post, delivery
from tenantry.platform import Platform
from tenantry.refusals import HoldNotFound, LetterNotFound
from tenantry.registry.database import now
from tenantry.registry.letters import LetterRow

LINK = "https://portal.example/admin/link/Zyzzyva-4711"


@pytest.fixture
def inbox(ground: g.Ground, tmp_path: Path) -> Iterator[w.Inbox]:
    """A mail server that the platform sends through."""
    with w.inbox(tmp_path) as found:
        w.mailing(ground, found)
        yield found


async def queue(platform: Platform, to: str = "ana@example.org", **more: Any) -> str:
    """Queue a letter; its id."""
    letter = Letter("Welcome", ("Hello.",), LINK, "Begin", **more)
    async with platform.registry.write() as tx:
        return (await Post(platform.config).queue(tx, to, letter)).id


async def row_of(platform: Platform, letter: str) -> LetterRow:
    """A letter as it stands in the queue."""
    return next(row for row in await platform.mails.list(limit=1000) if row.id == letter)


def pass_time(ground: g.Ground, **by: float) -> None:
    """Let everything in the queue have come so much earlier."""
    for column in ("due", "created", "until"):
        ground.control(
            f"UPDATE letter SET {column} = strftime('%Y-%m-%d %H:%M:%f', {column}, "
            f"'-{timedelta(**by).total_seconds()} seconds') || '000' WHERE {column} IS NOT NULL"
        )


# --- with what causes it ------------------------------------------------------------------------------------------


async def test_a_letter_goes_with_the_change_that_causes_it(ground: g.Ground, inbox: w.Inbox) -> None:
    """What is rolled back sends nothing; what is committed is sent, once."""
    async with ground.open() as platform:

        async def fail() -> None:
            async with platform.registry.write() as tx:
                await Post(platform.config).queue(tx, "ana@example.org", Letter("No", ("…",)))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        letter = await queue(platform)
        assert await platform.mails.deliver() == 1
        assert await platform.mails.deliver() == 0
        assert [mail["Subject"] for mail in inbox.mails] == ["Welcome"]
        assert inbox.mails[0]["Message-ID"] == f"<{letter}@example.org>"
        assert (await row_of(platform, letter)).state == "sent"


async def test_what_is_told_once_is_queued_once(ground: g.Ground, inbox: w.Inbox) -> None:
    """Two at once with the same key leave one letter."""
    async with ground.open() as platform:

        async def tell() -> bool:
            async with platform.registry.write() as tx:
                return (await Post(platform.config).queue(tx, "ana@example.org", Letter("x", ("y",)), once="z")).new

        assert sorted(await asyncio.gather(*(tell() for _ in range(8)))) == [False] * 7 + [True]
        assert len(await platform.mails.list()) == 1


async def test_a_link_stands_nowhere_in_clear(ground: g.Ground, inbox: w.Inbox, caplog: Any) -> None:
    """Not in the control database, queued, failed or sent, nor in the log; once sent, not even sealed."""
    caplog.set_level("DEBUG", "tenantry")
    inbox.answers[:] = ["550 5.7.1 no", "250 kept"]
    async with ground.open() as platform:
        letters = [await queue(platform), await queue(platform, "eve@example.org")]
        await platform.mails.deliver()
        assert sorted([(await row_of(platform, letter)).state for letter in letters]) == ["failed", "sent"]
        ((sealed,),) = ground.control("SELECT count(*) FROM letter WHERE sealed IS NOT NULL")
        assert sealed == 1
    files = [path for path in ground.data.rglob("control*") if path.is_file()]
    assert files
    assert not [path for path in files if b"Zyzzyva-4711" in path.read_bytes()]
    told = [record.getMessage() for record in caplog.records if record.name.startswith("tenantry")]
    assert told
    assert "Zyzzyva-4711" not in str(told)


async def test_a_letter_outlives_another_platform_key(ground: g.Ground, inbox: w.Inbox) -> None:
    """Keys are changed while it waits: it is sealed anew, and sent."""
    async with ground.open() as platform:
        await queue(platform)
    env = ground.root / ".env"
    text = env.read_text().replace(ground.key, "ab" * 32)
    env.write_text(f"{text}TENANTRY_SECRET_KEY_PREVIOUS={ground.key}\n")
    async with ground.open() as platform:
        await platform.secrets.rotate()
    env.write_text(text)
    async with ground.open() as platform:
        assert await platform.mails.deliver() == 1
    assert LINK in w.text_of(inbox.mails[0])


# --- trying again -------------------------------------------------------------------------------------------------


async def test_a_server_that_says_later_is_asked_later(ground: g.Ground, inbox: w.Inbox) -> None:
    """451, and again 451: the pause grows; then 250. The letter is the same one, by the same Message-ID."""
    inbox.answers[:] = ["451 4.7.1 greylisted", "451 4.7.1 greylisted", "250 kept"]
    async with ground.open() as platform:
        letter = await queue(platform)
        waits = []
        for _ in range(2):
            assert await platform.mails.deliver() == 0
            assert await platform.mails.deliver() == 0  # not before its time
            row = await row_of(platform, letter)
            assert row.due is not None
            waits.append(round((row.due - now()).total_seconds() / 60))
            assert "451 4.7.1 greylisted" in row.reason
            pass_time(ground, minutes=waits[-1] + 1)
        assert waits == [1, 2]
        assert await platform.mails.deliver() == 1
        row = await row_of(platform, letter)
        assert (row.state, row.attempts, row.reason) == ("sent", 3, "")
    assert len({mail["Message-ID"] for mail in inbox.seen}) == 1
    assert len({str(mail["Date"]) for mail in inbox.seen}) == 3  # as often as the test put its beginning back


async def test_it_is_given_up_after_two_days(ground: g.Ground, inbox: w.Inbox) -> None:
    """A server that never takes it is not asked for ever; a superadmin can have it tried again."""
    inbox.answers[:] = ["451 4.3.0 full"] * 3 + ["250 kept"]
    async with ground.open() as platform:
        letter = await queue(platform)
        for hours in (1, 47.5):
            await platform.mails.deliver()
            assert (await row_of(platform, letter)).state == "queued"
            pass_time(ground, hours=hours)
        await platform.mails.deliver()
        row = await row_of(platform, letter)
        assert (row.state, row.due) == ("failed", None)
        assert "451 4.3.0 full" in row.reason
        assert (await platform.mails.retry(letter)).state == "queued"
        assert await platform.mails.deliver() == 1
        with pytest.raises(LetterNotFound):
            await platform.mails.retry(letter)


async def test_a_refusal_for_good_is_final(ground: g.Ground, inbox: w.Inbox) -> None:
    """5xx: it failed at once. Only where the address is to blame nothing more is sent there."""
    async with ground.open() as platform:
        inbox.answers[:] = ["554 5.7.1 spam"]
        letter = await queue(platform)
        await platform.mails.deliver()
        assert (await row_of(platform, letter)).state == "failed"
        assert await platform.mails.held() == []
        inbox.refused.add("ana@example.org")
        letter = await queue(platform)
        await platform.mails.deliver()
        assert "550 5.1.1" in (await row_of(platform, letter)).reason
        assert [hold.address for hold in await platform.mails.held()] == ["ana@example.org"]


async def test_a_letter_whose_link_ran_out_is_not_sent(ground: g.Ground, inbox: w.Inbox) -> None:
    """Its reader could do nothing with it."""
    async with ground.open() as platform:
        letter = await queue(platform, until=now() + timedelta(hours=1))
        pass_time(ground, hours=2)
        assert await platform.mails.deliver() == 0
        row = await row_of(platform, letter)
        assert (row.state, inbox.mails) == ("failed", [])
        assert row.reason.startswith("its link ran out")


async def test_a_server_that_hangs_holds_up_no_other_work(
    ground: g.Ground, inbox: w.Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left after a while, the letter waits, and the rest of the queue with it until the server answers."""
    inbox.hangs.set()
    async with ground.open() as platform:
        letters = [await queue(platform, f"{name}@example.org") for name in ("ana", "bob")]
        with monkeypatch.context() as patch:
            patch.setattr(delivery, "TRY", 0.2)
            assert await platform.mails.deliver() == 0
        rows = [await row_of(platform, letter) for letter in letters]
        assert [row.attempts for row in rows] == [1, 0]
        assert "no answer within" in rows[0].reason
        inbox.hangs.clear()
        pass_time(ground, minutes=2)
        assert await platform.mails.deliver() == 2


async def test_a_letter_whose_worker_stopped_is_sent_by_another(ground: g.Ground, inbox: w.Inbox) -> None:
    """Claimed by one alone; by another once the claim is over, and then the first one's word counts no more."""
    async with ground.open() as platform:
        letter = await queue(platform)
        first = delivery.Delivery(platform.registry, platform.config)
        claimed = await first._claim()
        assert claimed is not None
        assert await platform.mails.deliver() == 0
        pass_time(ground, minutes=3)
        assert await platform.mails.deliver() == 1
        await first._not_taken(claimed, delivery.Refused("it seemed lost"))
        assert (await row_of(platform, letter)).state == "sent"


# --- held back ----------------------------------------------------------------------------------------------------


async def test_held_back_letters_go_once_the_address_is_released(ground: g.Ground, inbox: w.Inbox) -> None:
    """What is queued before and after stays; the person is named with why; a release sends all of it."""
    async with ground.open() as platform:
        before = await queue(platform)
        inbox.refused.add("ana@example.org")
        failed = await queue(platform)
        await platform.mails.deliver()
        invited = await platform.admins.invite("ana@example.org")
        assert not invited.mailed
        assert "550 5.1.1" in invited.fault
        states = {row.id: row.state for row in await platform.mails.list()}
        assert sorted(states.values()) == ["failed", "held", "held"]
        assert {states[before], states[failed]} == {"failed", "held"}
        held = (await platform.admins.show("ana@example.org")).held
        assert held is not None
        assert "550 5.1.1" in held.reason
        inbox.refused.clear()
        assert (await platform.mails.release(" ANA@example.org ")).letters == 2
        assert await platform.mails.deliver() == 2
        with pytest.raises(HoldNotFound):
            await platform.mails.release("ana@example.org")


# --- many, and killed ---------------------------------------------------------------------------------------------


async def test_five_hundred_letters_by_three_at_once(ground: g.Ground, inbox: w.Inbox) -> None:
    """Each comes, and comes once."""
    async with ground.open() as platform:
        async with platform.registry.write() as tx:
            for at in range(500):
                await Post(platform.config).queue(tx, f"p{at}@example.org", Letter("Hello", (f"You are {at}.",)))
        assert sum(await asyncio.gather(*(platform.mails.deliver() for _ in range(3)))) == 500
        assert (await platform.mails.status()).counts == {"queued": 0, "sent": 500, "failed": 0, "held": 0}
    assert sorted(mail["To"] for mail in inbox.mails) == sorted(f"p{at}@example.org" for at in range(500))


async def test_a_worker_killed_between_acceptance_and_record_loses_nothing(ground: g.Ground, inbox: w.Inbox) -> None:
    """The server took the letter, the worker died before it wrote that: it comes again, by the same Message-ID."""
    async with ground.open() as platform:
        letter = await queue(platform)
        inbox.pauses.set()  # it takes mail, and its answer does not come yet
        with ground.worker() as worker:
            await inbox.wait(1)
            worker.kill()
            worker.wait()
        inbox.pauses.clear()
        assert (await row_of(platform, letter)).state == "queued"
        assert await platform.mails.deliver() == 0  # it may still be under way
        pass_time(ground, minutes=3)
        assert await platform.mails.deliver() == 1
        assert (await row_of(platform, letter)).state == "sent"
    assert len(inbox.mails) == 2
    assert len({mail["Message-ID"] for mail in inbox.mails}) == 1


async def test_a_worker_that_is_told_to_stop_records_what_was_taken(ground: g.Ground, inbox: w.Inbox) -> None:
    """SIGTERM in the middle of a letter: it is seen to its end, and does not come twice."""
    async with ground.open() as platform:
        letter = await queue(platform)
        inbox.pauses.set()
        with ground.worker() as worker:
            await inbox.wait(1)
            worker.terminate()
            inbox.pauses.clear()
            await asyncio.to_thread(worker.wait)
        assert (await row_of(platform, letter)).state == "sent"
    assert len(inbox.mails) == 1

"""The audit log in the control database: written with the change it tells of, and every tampering is found."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, update

from registries import KEY
from tenantry.errors import AuditBroken
from tenantry.registry import Entry, Registry, Vault, proof, tables
from tenantry.registry.audit import chain

TABLE = tables.audit


async def log(registry: Registry, number: int) -> None:
    """Write entries, each in a transaction of its own."""
    for position in range(number):
        async with registry.write() as tx:
            tx.audit("tenant.edit", f"t{position}", number=position, name="Ærø — 東京")


async def tamper(registry: Registry, *statements: Any) -> None:
    """Change the log behind the registry's back."""
    async with registry.write() as tx:
        for statement in statements:
            await tx.execute(statement)


async def broken(registry: Registry) -> AuditBroken:
    """The fault that a verification finds."""
    with pytest.raises(AuditBroken) as caught:
        await registry.verify()
    return caught.value


async def test_entries_tell_who_did_what(registry: Registry) -> None:
    """Newest first, by pages, and by subject; the detail is canonical JSON in unicode."""
    await log(registry, 3)
    async with registry.write("someone") as tx:
        tx.audit("tenant.suspend", "t1", reason="unpaid", id="1")
    newest, *rest = await registry.entries()
    assert (newest.seq, newest.actor, newest.action, newest.subject) == (4, "someone", "tenant.suspend", "t1")
    assert newest.detail == '{"id":"1","reason":"unpaid"}'
    assert rest[0].detail == '{"name":"Ærø — 東京","number":2}'
    assert rest[0].actor == "tester"
    assert [entry.seq for entry in await registry.entries(limit=2, before=4)] == [3, 2]
    assert [entry.seq for entry in await registry.entries(subject="t1")] == [4, 2]
    assert newest.at.endswith("Z")
    assert len(newest.at) == 27


async def test_no_text_is_too_odd_for_the_log(registry: Registry) -> None:
    """Names that no database or hash takes are entered with what stands for them, and the chain holds."""
    async with registry.write("x" * 300) as tx:
        tx.audit("tenant.import", "file\0" + "ä" * 250, path="a\udc80b\0", deep={"b": 1, "a": None})
    (entry,) = await registry.entries()
    assert (len(entry.actor), len(entry.subject)) == (200, 200)
    assert entry.detail == '{"deep":{"a":null,"b":1},"path":"a?b\\u0000"}'
    assert (await registry.verify()).entries == 1


async def test_a_log_written_by_many_at_once_is_whole(registry: Registry) -> None:
    """Every entry has its place in the chain, whoever wrote at the same time, also several in one transaction."""

    async def write(writer: int) -> None:
        for number in range(5):
            async with registry.write(f"w{writer}") as tx:
                tx.audit("test.first", str(number))
                tx.audit("test.second", str(number))

    await asyncio.gather(*(write(writer) for writer in range(10)))
    report = await registry.verify()
    assert report.entries == 100
    assert report.head == (await registry.entries(limit=1))[0].hash


async def test_an_entry_may_be_written_while_the_log_is_verified(registry: Registry) -> None:
    """That is no fault."""
    await log(registry, 5)

    async def verify() -> None:
        for _ in range(10):
            await registry.verify()

    await asyncio.gather(verify(), log(registry, 20), verify())
    assert (await registry.verify()).entries == 25


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "2020-01-01T00:00:00.000000Z"),
        ("actor", "nobody"),
        ("action", "tenant.show"),
        ("subject", "t9"),
        ("detail", "{}"),
        ("hash", "f" * 64),
    ],
)
@pytest.mark.parametrize("seq", [1, 3, 5])
async def test_an_altered_entry_is_found(registry: Registry, column: str, value: str, seq: int) -> None:
    """Whatever was altered in it, and wherever it stands."""
    await log(registry, 5)
    await tamper(registry, update(TABLE).where(TABLE.c.seq == seq).values({column: value}))
    fault = await broken(registry)
    assert fault.details["seq"] == seq
    assert "was altered" in fault.message


@pytest.mark.parametrize("seq", [1, 3])
async def test_a_deleted_entry_is_found(registry: Registry, seq: int) -> None:
    """The gap is named."""
    await log(registry, 5)
    await tamper(registry, delete(TABLE).where(TABLE.c.seq == seq))
    fault = await broken(registry)
    assert fault.details["seq"] == seq
    assert f"entry {seq} is missing" in fault.message


@pytest.mark.parametrize("left", [4, 0])
async def test_a_log_cut_short_is_found(registry: Registry, left: int) -> None:
    """The head tells how many there were."""
    await log(registry, 5)
    await tamper(registry, delete(TABLE).where(TABLE.c.seq > left))
    fault = await broken(registry)
    assert fault.details["seq"] == left + 1
    assert "removed" in fault.message


async def test_a_cut_log_with_a_forged_head_is_found(registry: Registry) -> None:
    """Whoever cuts off entries and sets the head back cannot seal it without the platform key."""
    await log(registry, 5)
    third = (await registry.entries(before=4, limit=1))[0]
    forged = {"audit_seq": 3, "audit_hash": third.hash}
    await tamper(registry, delete(TABLE).where(TABLE.c.seq > 3), update(tables.head).values(forged))
    assert "not sealed" in (await broken(registry)).message


async def test_entries_added_behind_the_head_are_found(registry: Registry) -> None:
    """An entry that is rightly chained but was not written by the platform does not pass for one of its own."""
    await log(registry, 2)
    last = (await registry.entries(limit=1))[0]
    added = dataclasses.replace(last, seq=3, action="tenant.destroy", hash="")
    added = dataclasses.replace(added, hash=chain(last.hash, added))
    await tamper(registry, insert(TABLE).values(dataclasses.asdict(added)))
    assert "added" in (await broken(registry)).message


async def test_a_tail_hashed_anew_is_found(registry: Registry) -> None:
    """Whoever alters an entry and chains all behind it again fails at the head, and at its seal."""
    await log(registry, 5)
    entries = sorted(await registry.entries(), key=lambda entry: entry.seq)
    previous = entries[1].hash
    statements: list[Any] = []
    for entry in entries[2:]:
        entry = dataclasses.replace(entry, actor="nobody")
        previous = chain(previous, entry)
        statements.append(update(TABLE).where(TABLE.c.seq == entry.seq).values(actor="nobody", hash=previous))
    await tamper(registry, *statements)
    assert (await broken(registry)).details["seq"] == 5
    await tamper(registry, update(tables.head).values(audit_hash=previous))
    assert "not sealed" in (await broken(registry)).message
    await tamper(registry, update(tables.head).values(seal=Vault("ab" * 32).sign_head(f"5:{previous}")))
    assert "not sealed" in (await broken(registry)).message


async def test_a_head_that_is_gone_is_found(registry: Registry) -> None:
    """Without its head the log proves nothing."""
    await log(registry, 1)
    await tamper(registry, delete(tables.head))
    await broken(registry)


async def test_verification_goes_through_pages(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of any length is walked page by page, also where the last page is full."""
    monkeypatch.setattr(proof, "PAGE", 3)
    for number in (2, 1, 1, 2):
        await log(registry, number)
        await registry.verify()
    assert (await registry.verify()).entries == 6
    await tamper(registry, update(TABLE).where(TABLE.c.seq == 4).values(actor="nobody"))
    assert (await broken(registry)).details["seq"] == 4


async def test_entry_fields_are_the_columns(registry: Registry) -> None:
    """What is hashed is all there is in a row."""
    assert [field.name for field in dataclasses.fields(Entry)] == [column.name for column in TABLE.columns]
    async with registry.read() as tx:
        assert await tx.scalar(select(func.count()).select_from(TABLE)) == 0
    assert KEY not in repr(registry.vault)

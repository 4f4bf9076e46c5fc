"""The chain of the audit log: whatever is changed in it, the first wrong entry is found."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields, replace

from hypothesis import assume, given
from hypothesis import strategies as st

from tenantry.registry.audit import GENESIS, Entry, canonical, chain, first_fault

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
DETAIL = st.dictionaries(
    TEXT, st.none() | st.booleans() | st.integers() | TEXT | st.lists(TEXT, max_size=2), max_size=3
)


def chained(*entries: Entry) -> list[Entry]:
    """Entries with their numbers and hashes."""
    previous, made = GENESIS, []
    for seq, entry in enumerate(entries, start=1):
        entry = replace(entry, seq=seq)
        previous = chain(previous, entry)
        made.append(replace(entry, hash=previous))
    return made


ENTRY = st.builds(Entry, st.just(0), TEXT, TEXT, TEXT, TEXT, DETAIL.map(canonical), st.just(""))
LOGS = st.lists(ENTRY, min_size=1, max_size=6).map(lambda entries: chained(*entries))


@given(LOGS)
def test_an_untouched_log_is_whole(log: list[Entry]) -> None:
    """Also when it is walked in two parts, the second from where the first ended."""
    assert first_fault(log) == (len(log), log[-1].hash, None)
    middle = len(log) // 2
    seq, digest, fault = first_fault(log[:middle])
    assert fault is None
    assert first_fault(log[middle:], digest, seq) == first_fault(log)


@given(LOGS, st.data())
def test_any_change_of_any_entry_is_found(log: list[Entry], data: st.DataObject) -> None:
    """Every field counts, and the number of the entry that is wrong is right."""
    position = data.draw(st.integers(0, len(log) - 1))
    name = data.draw(st.sampled_from([field.name for field in fields(Entry)]))
    old = getattr(log[position], name)
    new = data.draw(st.integers(0, 9) if name == "seq" else TEXT)
    assume(new != old)
    changed = [*log]
    changed[position] = replace(log[position], **{name: new})
    seq, digest, fault = first_fault(changed)
    assert (seq, digest) == (position, log[position - 1].hash if position else GENESIS)
    assert fault
    assert str(position + 1) in fault


@given(LOGS, st.data())
def test_an_entry_that_is_missing_doubled_or_moved_is_found(log: list[Entry], data: st.DataObject) -> None:
    """Except at the very end, for which there is the head."""
    position = data.draw(st.integers(0, len(log) - 1))
    without = log[:position] + log[position + 1 :]
    seq, _, fault = first_fault(without)
    assert seq == position
    assert (fault is None) is (position == len(log) - 1)
    assert first_fault([*log[: position + 1], *log[position:]])[2] == f"entry {position + 2} is missing"
    if len(log) > 1:
        assert first_fault(log[::-1])[2] == "entry 1 is missing"


@given(LOGS, st.data())
def test_text_does_not_run_from_one_field_into_the_next(log: list[Entry], data: st.DataObject) -> None:
    """Moving characters across the border of two fields gives another hash."""
    entry = data.draw(st.sampled_from(log))
    names = ["at", "actor", "action", "subject", "detail"]
    left, right = data.draw(st.sampled_from(list(itertools.pairwise(names))))
    whole = getattr(entry, left) + getattr(entry, right)
    cut = data.draw(st.integers(0, len(whole)))
    assume(cut != len(getattr(entry, left)))
    moved = replace(entry, **{left: whole[:cut], right: whole[cut:]})
    assert chain(GENESIS, moved) != chain(GENESIS, entry)


@given(DETAIL, st.randoms())
def test_the_same_detail_is_written_alike(detail: dict[str, object], random: object) -> None:
    """Whatever order its keys came in; and it is read back as it was."""
    keys = list(detail)
    random.shuffle(keys)  # type: ignore[attr-defined]
    assert canonical({key: detail[key] for key in keys}) == canonical(detail)
    assert json.loads(canonical(detail)) == detail


def test_a_known_chain_stays_what_it_is() -> None:
    """Logs written by earlier versions must go on being verified: the hash of this entry never changes."""
    entry = Entry(1, "2026-01-02T03:04:05.678901Z", "cli:root", "tenant.create", "acme", canonical({"name": "Ærø"}))
    assert entry.detail == '{"name":"Ærø"}'
    assert chain(GENESIS, entry) == "3972e64f9005db925ca385ed131070739aa25d92e49aa89858e404458e5391f2"

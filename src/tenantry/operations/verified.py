"""What verifications found, counted over all their items."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from tenantry.registry import Transaction, journal

KINDS: Final = ("breaches", "untried", "not_promised")
"""What did not go as it is promised."""

NAMED: Final = 100
"""Attacks of each kind that are told; of more only the number is."""


@dataclass(frozen=True, slots=True)
class Told:
    """An attack on a resource, what came of it, and with how many tenants it was so."""

    resource: str
    attack: str
    tenant: str  # the first
    tenants: int
    evidence: str


@dataclass(frozen=True, slots=True)
class Found:
    """What all attacks came to."""

    environments: int
    counts: Mapping[str, int]  # of attacks: kept, breaches, not_promised, untried
    attacks: Mapping[str, Sequence[str]]  # the names of those that were tried, by resource
    told: Mapping[str, Sequence[Told]]  # by kind


def tally_of(item: journal.Item) -> dict[str, Any]:
    """What an item's tally kept; one that was not worked on has none."""
    empty: dict[str, Any] = {"against": [], "kept": {}, "breaches": [], "not_promised": [], "untried": []}
    if not item.detail.startswith("{"):
        return empty
    found: dict[str, Any] = json.loads(item.detail)
    return found


async def digest(tx: Transaction, operation_id: str) -> str:
    """All of it, to be kept."""
    return json.dumps(asdict(await counted(tx, operation_id)), ensure_ascii=False)


def kept(content: str | None) -> Found:
    """What was kept; of nothing, nothing."""
    return _found.validate_json(content) if content else _Seen().found()


async def counted(tx: Transaction, operation_id: str) -> Found:
    """What all items tell that were worked on."""
    seen = _Seen()
    async for item in journal.all_items(tx, operation_id):
        if item.state.ended:
            seen.add(item.subject, tally_of(item))
    return seen.found()


def summed(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many attacks of all were kept out, got through, were not promised, and could not be tried."""
    counts = dict.fromkeys(("kept", *KINDS), 0)
    for record in records:
        counts["kept"] += sum(sum(some.values()) for some in record["kept"].values())
        for kind in KINDS:
            counts[kind] += len(record[kind])
    return counts


class _Seen:
    """What the items tell, one after the other."""

    def __init__(self) -> None:
        self._environments = 0
        self._counts: Counter[str] = Counter()
        self._attacks: dict[str, set[str]] = defaultdict(set)
        self._told: dict[str, dict[tuple[str, str], Told]] = {kind: {} for kind in KINDS}

    def add(self, tenant: str, record: Mapping[str, Any]) -> None:
        self._environments += 1
        self._counts.update(summed([record]))
        for resource, counts in record["kept"].items():
            self._attacks[resource].update(counts)
        for kind in KINDS:
            for entry in record[kind]:
                if kind != "untried":
                    self._attacks[entry["resource"]].add(entry["attack"])
                self._tell(kind, tenant, entry)

    def _tell(self, kind: str, tenant: str, entry: Mapping[str, str]) -> None:
        told, key = self._told[kind], (entry["resource"], entry["attack"])
        before = told.get(key)
        if before is not None:
            told[key] = Told(*key, before.tenant, before.tenants + 1, before.evidence)
        elif len(told) < NAMED:
            told[key] = Told(*key, tenant, 1, entry["evidence"])

    def found(self) -> Found:
        attacks = {resource: sorted(names) for resource, names in sorted(self._attacks.items())}
        counts = {**summed(()), **self._counts}
        return Found(self._environments, counts, attacks, {k: list(v.values()) for k, v in self._told.items()})


_found: Final = TypeAdapter(Found)

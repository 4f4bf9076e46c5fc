"""The audit log: every change of the platform, each entry hashed together with the one before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

GENESIS: Final = "0" * 64
"""The hash before the first entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit log."""

    seq: int
    at: str  # RFC 3339, UTC, microseconds
    actor: str
    action: str  # noun.verb: "tenant.suspend"
    subject: str  # the tenant's slug, or what else was changed
    detail: str  # canonical JSON
    hash: str = ""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What `tenantry audit verify` found when the log is whole."""

    entries: int
    head: str  # hash of the newest entry


def canonical(detail: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no spaces, so that the same detail always hashes alike (after RFC 8785)."""
    return json.dumps(detail, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def chain(previous: str, entry: Entry) -> str:
    """SHA-256 over the hash before and the entry's fields, each behind its length so that none runs into the next."""
    digest = hashlib.sha256(previous.encode())
    for part in (str(entry.seq), entry.at, entry.actor, entry.action, entry.subject, entry.detail):
        raw = part.encode()
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.hexdigest()


def first_fault(entries: Iterable[Entry], start: str = GENESIS, seq: int = 0) -> tuple[int, str, str | None]:
    """Walk entries in order: the last good sequence number, its hash, and what is wrong with the next (or None)."""
    previous = start
    for entry in entries:
        if entry.seq != seq + 1:
            return seq, previous, f"entry {seq + 1} is missing"
        if chain(previous, entry) != entry.hash:
            return seq, previous, f"entry {entry.seq} ({entry.action} {entry.subject}) was altered"
        seq, previous = entry.seq, entry.hash
    return seq, previous, None

"""Requests and response bytes by tenant, counted in memory."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Final, NamedTuple

FOLD: Final = 4096
"""Requests noted one by one before they are added up."""


class Served(NamedTuple):
    """What a tenant was served since the last `take`."""

    requests: int
    bytes: int  # of response bodies and WebSocket messages


class RequestUsage:
    """Counters by tenant id. A request counts when it ends."""

    def __init__(self) -> None:
        self._noted: deque[tuple[str, int]] = deque()
        self._counts: dict[str, list[int]] = {}
        self._lock = Lock()

    def add(self, tenant: str, sent: int) -> None:
        """Count one request of a tenant id, and the bytes sent. A deque takes notes of many threads without a lock."""
        noted = self._noted
        noted.append((tenant, sent))
        if len(noted) > FOLD:
            with self._lock:
                self._fold()

    def _fold(self) -> None:
        """Add up what is noted."""
        for _ in range(len(self._noted)):
            tenant, sent = self._noted.popleft()
            count = self._counts.setdefault(tenant, [0, 0])
            count[0] += 1
            count[1] += sent

    def take(self) -> dict[str, Served]:
        """Everything counted since the last time, by tenant id; the counters begin anew."""
        with self._lock:
            self._fold()
            counts, self._counts = self._counts, {}
        return {tenant: Served(requests, sent) for tenant, (requests, sent) in counts.items()}

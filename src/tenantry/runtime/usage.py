"""Requests and response bytes by tenant, counted in memory."""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple


class Served(NamedTuple):
    """What a tenant was served since the last `take`."""

    requests: int
    bytes: int  # of response bodies and WebSocket messages


class RequestUsage:
    """Counters by tenant id. A request counts when it ends."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._lock = Lock()  # a WSGI server counts in many threads

    def add(self, tenant: str, sent: int) -> None:
        """Count one request of a tenant id, and the bytes sent."""
        with self._lock:
            count = self._counts.get(tenant)
            if count is None:
                self._counts[tenant] = [1, sent]
            else:
                count[0] += 1
                count[1] += sent

    def take(self) -> dict[str, Served]:
        """Everything counted since the last time, by tenant id; the counters begin anew."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return {tenant: Served(requests, sent) for tenant, (requests, sent) in counts.items()}

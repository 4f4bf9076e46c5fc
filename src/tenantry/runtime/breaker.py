"""Answers at once for a server that does not."""

from __future__ import annotations

from typing import Final

from tenantry.errors import ServerUnavailable

WAIT: Final = (0.2, 1.0)
"""Seconds from a failed try of a server to the next one: after the first failure, and at most."""


class Breaker:
    """Open while its server does not answer: then every session is refused at once. Closed by a probe that succeeds."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._wait = WAIT[0]
        self._until: float | None = None
        self._reason = ""
        self.trips = 0

    @property
    def is_open(self) -> bool:
        """Whether sessions are refused."""
        return self._until is not None

    def trip(self, reason: str, now: float) -> ServerUnavailable:
        """The server failed: refuse from now on, and wait twice as long each time before it is tried again."""
        if self._until is None:
            self.trips += 1
        self._reason = reason
        self._until = now + self._wait
        self._wait = min(2 * self._wait, WAIT[1])
        return self.error(now)

    def mend(self) -> bool:
        """The server answers: let everybody in. True where it was open."""
        was, self._until, self._wait = self.is_open, None, WAIT[0]
        return was

    def due(self, now: float) -> bool:
        """Whether it is time to try the server again."""
        return self._until is not None and now >= self._until

    def check(self, now: float) -> None:
        """Raise `ServerUnavailable` while it is open."""
        if self._until is not None:
            raise self.error(now)

    def error(self, now: float) -> ServerUnavailable:
        """What sessions are refused with."""
        left = max(0.0, (self._until or now) - now)
        return ServerUnavailable(server=self._server, reason=self._reason, retry_after=left)

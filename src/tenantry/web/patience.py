"""HTTP connections that end when their client keeps the server waiting, or sends a head without an end.

uvicorn's own protocol waits for a request's head, for its body and for somebody who does not read for ever.
"""

from __future__ import annotations

import asyncio
import socket
from enum import Enum, auto
from typing import Any, Final, cast

from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD: Final = 65_536
"""Octets of a request's line and headers that are taken."""

RATE: Final = 500
"""Octets of a body that must come in a second, over `patience` seconds."""

_LATE: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_LARGE: Final = PlainTextResponse("The head of the request is too large.", 431, {"connection": "close"})


class Awaited(Enum):
    """What a connection waits for from its client."""

    NOTHING = auto()  # the turn is ours; or uvicorn itself waits for the next request
    HEAD = auto()
    BODY = auto()


class Patient(HttpToolsProtocol):
    """A connection. Its patience is uvicorn's `timeout_keep_alive`: one span for everything that is waited for."""

    _awaited = Awaited.NOTHING
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _in_head = False
    _begun = False  # by what was read just now
    _octets = 0  # of the head; or of the body since the timer began
    _upgraded = False

    # --- reading --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = cast("socket.socket | None", transport.get_extra_info("socket"))
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT") and connection.family != socket.AF_UNIX:
            # Who is gone without a word acknowledges nothing; the kernel itself tries for a quarter of an hour.
            octets = max(1, round(self.timeout_keep_alive * 1000))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, octets)
        self._look()

    def data_received(self, data: bytes) -> None:
        self._octets += len(data)
        self._begun = False
        super().data_received(data)
        if self._begun:
            self._octets = len(data.rpartition(b"\r\n\r\n")[2])
        if self._in_head and self._octets > HEAD:
            self._in_head = False
            self._end(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self._look()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._begun = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        real = self.app
        if size > HEAD:
            self.app = _LARGE
        super().on_headers_complete()
        self.app = real

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def handle_websocket_upgrade(self) -> None:
        self._upgraded = True
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        self._upgraded = True
        self._look()
        self._flowing()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Begin to wait, or wait no more."""
        awaited = self._awaiting()
        if awaited is self._awaited:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._awaited = awaited
        if awaited is not Awaited.NOTHING:
            self._wait()

    def _awaiting(self) -> Awaited:
        if self._upgraded or self.transport.is_closing():
            return Awaited.NOTHING
        if self._in_head:
            return Awaited.HEAD
        if self.cycle is None or self.cycle.response_complete:
            return Awaited.HEAD if self.timeout_keep_alive_task is None else Awaited.NOTHING
        return Awaited.BODY if self.cycle.more_body else Awaited.NOTHING

    def _wait(self) -> None:
        if self._awaited is Awaited.BODY:
            self._octets = 0
        self._timer = self.loop.call_later(self.timeout_keep_alive, self._late)

    def _late(self) -> None:
        enough = self.flow.read_paused or self._octets >= RATE * self.timeout_keep_alive
        if self._awaited is Awaited.BODY and enough:  # or it is we who do not read
            self._wait()
        else:
            self._end(_LATE)

    def _end(self, words: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(words)
            self.transport.close()
        else:
            self.transport.abort()

    # --- writing --------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall(self._size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._flowing()

    def _stall(self, size: int) -> None:
        self._stalled = self.loop.call_later(self.timeout_keep_alive, self._looked, size)

    def _looked(self, before: int) -> None:
        """End a connection whose client took nothing in for so long."""
        size = self._size()
        if size < before:
            self._stall(size)
        else:
            self.transport.abort()

    def _flowing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _size(self) -> int:
        transport: Any = self.transport
        return int(transport.get_write_buffer_size())

"""How long a server waits for clients that send little or nothing, and how much it reads before a request is one."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS: Final = 10.0
"""How long the line and the headers of a request may take, from the connection or from their first byte."""

BODY_SECONDS: Final = 30.0
"""How long a body may bring nothing."""

HEAD_BYTES: Final = 65_536
"""The longest line and headers."""

_TOO_LONG: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Patient(HttpToolsProtocol):
    """uvicorn's protocol, which waits for ever by itself, with an end to its patience."""

    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """It went."""
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something of a request."""
        if self._in_head:
            self._head += len(data.partition(b"\r\n\r\n")[0])
            if self._head > HEAD_BYTES:
                self.transport.write(_TOO_LONG)
                self.transport.close()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._wait(HEAD_SECONDS)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its headers are there."""
        self._in_head = False
        self._wait(None if self.parser.should_upgrade() else BODY_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of its body."""
        self._wait(BODY_SECONDS)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there: now it is the application that is waited for."""
        self._in_head, self._head = True, 0  # of the next one
        self._wait(None)
        super().on_message_complete()

    def _wait(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._leave)

    def _leave(self) -> None:
        if self.flow.read_paused:  # it is we who do not read on
            self._wait(BODY_SECONDS)
        else:
            self.transport.close()

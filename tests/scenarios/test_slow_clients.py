"""Clients that send little or nothing, or without end, are left; whoever waits for a slow application is not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect

from tenantry.web.patience import Patient

SHORT = 0.15
"""Seconds, in place of those of the server."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Takes a whole body and its time; echoes what comes by WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await receive()
        return
    if scope["type"] != "http":
        return
    await asyncio.sleep(SHORT * 3)
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server of little patience."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        options = {"http": Patient, "log_level": "critical", "lifespan": "off", "ws": "websockets-sansio"}
        options |= {"timeout_keep_alive": SHORT}
        server = uvicorn.Server(uvicorn.Config(application, **options))  # type: ignore[arg-type]
        serving = asyncio.create_task(server.serve([listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await serving


async def said(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that a server answers to these parts, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (b"GET / HTTP/1.1\r\n",),
        (b"GET / HTTP/1.1\r\nhost: a\r\n", *(b"x: y\r\n" for _ in range(20))),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n", b"abc"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"3\r\nabc\r\n"),
    ],
    ids=["nothing", "a line", "headers by drops", "half a body", "half the chunks"],
)
async def test_who_does_not_go_on_is_left(port: int, parts: tuple[bytes, ...]) -> None:
    """The connection is closed, and no request was made of it."""
    assert b"200" not in await said(port, *parts, pause=SHORT / 5)


async def test_headers_without_end_are_refused(port: int) -> None:
    """431, once they are longer than any real ones."""
    endless = (b"x-%d: %s\r\n" % (number, b"y" * 4000) for number in range(17))
    assert (await said(port, b"GET / HTTP/1.1\r\nhost: a\r\n", *endless)).startswith(b"HTTP/1.1 431")


async def test_a_slow_application_is_waited_for(port: int) -> None:
    """Patience is for clients: the second request on a connection has as much as the first."""
    request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"
    last = request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    answers = await said(port, request, last)
    assert answers.count(b"HTTP/1.1 200") == 2


async def test_a_large_body_comes_through_while_the_application_does_not_read_yet(port: int) -> None:
    """Who is not read from cannot send: that is no slowness of the client."""
    size = 2_000_000
    head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size
    assert (await said(port, head, b"x" * size)).startswith(b"HTTP/1.1 200")


async def test_a_websocket_stays_open(port: int) -> None:
    """It may be silent for as long as it likes."""
    async with connect(f"ws://127.0.0.1:{port}/") as client:
        await asyncio.sleep(SHORT * 3)
        await client.send("still there")
        assert await client.recv() == "still there"

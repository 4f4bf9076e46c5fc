"""Attacks on the wire: bodies and heads without an end, clients that are slow, paths and hosts that are not ours.

Each goes over a socket of its own to one real `tenantry serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ground as g
from tenantry.identity.principal import SCOPES, AdminRole

APPLICATION = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/large":
        for _ in range(2000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    await send({"type": "http.response.body", "body": b"here"})
"""

PATIENCE = 1.0
"""Seconds that this server waits for a client; a test waits far longer."""

MORE = 60_000
"""KiB that the process may need at its worst beyond what it needs at rest: far less than what is thrown at it."""

FORM = "Content-Type: application/x-www-form-urlencoded\r\n"


@dataclass
class Served:
    """A platform that is served."""

    ground: g.Ground
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def peak(self) -> int:
        """The most memory that the process had at any time, in KiB (proc(5), VmHWM)."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1])

    def files(self) -> int:
        """How many files and connections the process has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def talk(self) -> Socket:
        """A connection of one's own."""
        return Socket(socket.create_connection(("127.0.0.1", self.port), timeout=g.PATIENCE))

    def ask(self, words: str, body: bytes = b"", host: str = "localhost") -> tuple[int, bytes]:
        """Send the first lines of a head, and its body; the status and all of the answer."""
        first, _, more = words.partition("\r\n")
        head = f"{first} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n".encode("latin-1")
        with contextlib.closing(self.talk()) as connection:
            connection.send(head + body)
            answer = connection.rest()
        return status_of(answer), answer


@dataclass
class Socket:
    """A connection."""

    raw: socket.socket

    def send(self, octets: bytes) -> bool:
        """Send; whether anybody took it."""
        try:
            self.raw.sendall(octets)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def rest(self) -> bytes:
        """What comes until the other side ends; it fails where that never comes."""
        came = bytearray()
        with contextlib.suppress(ConnectionError):
            while some := self.raw.recv(65_536):
                came += some
        return bytes(came)

    def close(self) -> None:
        """Hang up."""
        self.raw.close()


def status_of(answer: bytes) -> int:
    """The status of an answer; 0 where there was none."""
    found = re.match(rb"HTTP/1.1 (\d{3})", answer)
    return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A platform with one tenant, its API and portal awake."""
    ground = g.Ground(tmp_path_factory.mktemp("wire") / "platform")
    (ground.root / "hello.py").write_text(APPLICATION)
    environment = ground.environment() | {"TENANTRY_SERVE__PATIENCE": str(PATIENCE), "TENANTRY_SERVE__WORKER": "false"}
    environment |= {"TENANTRY_API__PERSON_STREAMS": "0", "TENANTRY_API__ADDRESS_STREAMS": "0"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = ground.command("tenant", "create", "acme")
    told, _ = made.communicate(timeout=g.PATIENCE)
    assert made.returncode == 0, told
    log = ground.root / "serve.log"
    with log.open("wb") as out:
        arguments = ["serve", "--app", "hello:app", "--port", str(port), "--config", str(ground.config)]
        process = subprocess.Popen([str(g.TENANTRY), *arguments], env=environment, stdout=out, stderr=out)
    found = Served(ground, process, port, log)
    try:
        until = time.monotonic() + g.PATIENCE
        while True:
            with contextlib.suppress(ConnectionError):
                if found.ask("GET /admin/sign-in\r\n")[0] == 200:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
        yield found
        assert "Exception in ASGI application" not in log.read_text()
    finally:
        process.terminate()
        process.wait(g.PATIENCE)


# --- without an end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("/admin/sign-in", 413), ("/admin/forgot", 413), ("/admin/link/x", 413), ("/api/tenants", 401), ("/api/x", 404)],
)
def test_a_body_that_says_it_is_large_is_not_read(served: Served, path: str, wanted: int) -> None:
    """Refused by its Content-Length, or by who sends it, before a stranger's first octet is looked at."""
    status, answer = served.ask(f"POST {path}\r\n{FORM}Content-Length: 100000000000\r\n")
    assert status == wanted
    assert (b"longer than 1048576 bytes" in answer) == (wanted == 413)


def _parts(kind: str) -> tuple[str, bytes, bytes]:
    """How an endless body of this kind begins: its type, its beginning and what goes on and on."""
    part = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    return {
        "json": ("application/json", b"", b"[" * 65_536),
        "text": ("application/json", b'{"slug": "', b"a" * 65_536),
        "form": ("application/x-www-form-urlencoded", b"mail=", b"a" * 65_536),
        "fields": ("application/x-www-form-urlencoded", b"", b"a=1&" * 16_384),
        "file": ("multipart/form-data; boundary=x", part % b'file"; filename="a.csv', b"slug\n" * 13_000),
        "parts": ("multipart/form-data; boundary=x", b"", (part % b"a" + b"1\r\n") * 1000),
    }[kind]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/api/tenants", kind) for kind in ("json", "text", "form", "file")]
    + [("/admin/sign-in", kind) for kind in ("form", "fields", "file", "parts")]
    + [("/admin/tenants/-/import", "file"), ("/api/tenants/-/import", "text")],
)
def test_a_body_without_an_end_is_refused(served: Served, path: str, kind: str) -> None:
    """In chunks, of whatever it is made: refused, and 64 MB of it leave no trace in the process's memory."""
    before = served.peak()
    media, first, more = _parts(kind)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with contextlib.closing(served.talk()) as connection:
        connection.send(head.encode() + b"%x\r\n%b\r\n" % (len(first), first) if first else head.encode())
        for _ in range(1000):
            if not connection.send(b"%x\r\n%b\r\n" % (len(more), more)):
                break
        answer = connection.rest()
    assert status_of(answer) in (413, 400, 401, 422, 303, 0), answer[:300]  # 0: the line was cut while we spoke
    assert served.peak() < before + MORE


@pytest.mark.parametrize("depth", [100, 5_000, 450_000])
def test_nested_json_is_refused(served: Served, depth: int) -> None:
    """However deep, also closed well: 4xx, since somebody is asked who she is, or since it cannot be read."""
    body = b'{"slug": "x", "settings": ' + b"[" * depth + b"]" * depth + b"}"
    length = f"Content-Length: {len(body)}\r\n"
    status, answer = served.ask(f"POST /api/tenants\r\nContent-Type: application/json\r\n{length}", body)
    assert status in (400, 401, 422), answer[:300]


def test_wrong_values_without_number_are_named_in_part(served: Served) -> None:
    """An answer is no larger than what was asked, whatever stands in it."""
    body = ("{" + ",".join(f'"{"x" * 50}{at}": 1' for at in range(15_000)) + "}").encode()
    length = f"Content-Length: {len(body)}\r\n"
    _, answer = served.ask(f"POST /api/tenants\r\nContent-Type: application/json\r\n{length}", body)
    assert len(answer) < 20_000


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: acme.localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: acme.localhost\r\nCookie: " + b"tenantry_admin=x; " * 6000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: acme.localhost\r\n" + b"X: x\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: acme.localhost\r\n\r\n",
    ],
    ids=["one", "cookies", "many", "path"],
)
def test_a_large_head_is_refused(served: Served, head: bytes) -> None:
    """For tenants' applications, too."""
    with contextlib.closing(served.talk()) as connection:
        connection.send(head)
        assert status_of(connection.rest()) in (431, 400)


def test_a_head_without_an_end_is_cut(served: Served) -> None:
    """Neither one endless header nor headers without an end fill the memory."""
    before = served.peak()
    for more in (b"x" * 65_536, b"X: x\r\n" * 10_000):
        with contextlib.closing(served.talk()) as connection:
            connection.send(b"GET / HTTP/1.1\r\nHost: acme.localhost\r\nX: ")
            sent = sum(connection.send(more) for _ in range(1000))
            assert sent < 1000
    assert served.peak() < before + MORE


# --- slow ---------------------------------------------------------------------------------------------------------


def test_slow_clients_keep_nobody_waiting(served: Served) -> None:
    """Half a head, half a body, nothing at all, drop by drop: others are served meanwhile, and each of them is cut."""
    begun = {
        "nothing": b"",
        "head": b"GET / HTTP/1.1\r\nHost: acme.localhost\r\nX: ",
        "drops": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        "form": f"POST /admin/sign-in HTTP/1.1\r\nHost: localhost\r\n{FORM}Content-Length: 900\r\n\r\nmail=".encode(),
        "upload": b"POST / HTTP/1.1\r\nHost: acme.localhost\r\nContent-Length: 900000\r\n\r\nx",
        "again": b"GET / HTTP/1.1\r\nHost: acme.localhost\r\n\r\nGET / HTTP/1.1\r\nHost: ac",
        "blank": b"GET / HTTP/1.1\r\nHost: acme.localhost\r\n\r\n",
    }
    slow = [(name, served.talk()) for name in begun for _ in range(40)]
    with contextlib.ExitStack() as stack:
        for name, connection in slow:
            stack.enter_context(contextlib.closing(connection))
            connection.send(begun[name])
        assert served.ask("GET /\r\n", host="acme.localhost")[0] == 200
        assert served.ask("GET /admin/sign-in\r\n")[0] == 200
        alive = {name: connection for name, connection in slow if name in ("drops", "form", "upload", "blank")}
        until = time.monotonic() + g.PATIENCE
        while alive and time.monotonic() < until:  # one of each goes on, drop by drop
            alive = {
                name: connection
                for name, connection in alive.items()
                if connection.send({"drops": b"X: x\r\n", "blank": b"\r\n"}.get(name, b"x")) and not _ended(connection)
            }
            time.sleep(PATIENCE / 10)
        assert not alive
        for name, connection in slow:
            answer = connection.rest()  # it ends; else this times out, and fails
            wanted = (200,) if name in ("again", "blank", "upload") else (0, 408, 422)
            assert status_of(answer) in wanted, (name, answer)


def _ended(connection: Socket) -> bool:
    """Whether the other side hung up; what it said stays to be read."""
    connection.raw.setblocking(False)
    try:
        return connection.raw.recv(1_000_000, socket.MSG_PEEK)[-1:] in (b"", b"\n") and _closed(connection)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        connection.raw.settimeout(g.PATIENCE)


def _closed(connection: Socket) -> bool:
    state = connection.raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state != 1  # TCP_ESTABLISHED


def test_a_steady_client_is_waited_for(served: Served) -> None:
    """A body that comes at a fair pace is read to its end, though it takes longer than the server's patience."""
    body = b"mail=ana%40example.org&password=" + b"x" * 1900
    with contextlib.closing(served.talk()) as connection:
        connection.send(f"POST /admin/sign-in HTTP/1.1\r\nHost: localhost\r\n{FORM}".encode())
        connection.send(f"Connection: close\r\nContent-Length: {len(body) + 8000}\r\n\r\n".encode() + body)
        for _ in range(8):
            time.sleep(PATIENCE / 5)
            assert connection.send(b"&next=" + b"x" * 994)
        assert status_of(connection.rest()) in (401, 422)


def test_a_client_that_does_not_read_is_cut(served: Served) -> None:
    """A hundred megabytes to somebody who takes nothing in: the connection ends, and the memory stays small."""
    before, open_before = served.peak(), served.files()
    readers = [served.talk() for _ in range(20)]
    for reader in readers:
        reader.send(b"GET /large HTTP/1.1\r\nHost: acme.localhost\r\n\r\n")
    until = time.monotonic() + g.PATIENCE
    while served.files() > open_before + 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    for reader in readers:
        reader.close()
    assert served.peak() < before + MORE


async def test_followers_who_are_gone_are_forgotten(served: Served) -> None:
    """Of two hundred who follow an operation and read nothing: others are served, and none leaves a connection open."""
    async with served.ground.open() as platform:
        await platform.admins.invite("root@example.org", role=AdminRole.SUPERADMIN)
        token = (await platform.tokens.create("follow", SCOPES, admin="root@example.org")).token
        operation = await platform.tenants.suspend("acme")  # no worker lives: it stays queued
    head = f"GET /api/operations/{operation.id}/events HTTP/1.1\r\nHost: localhost\r\n"
    followers = [served.talk() for _ in range(200)]
    for follower in followers:
        follower.send(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
    heard = b""
    while b"event: operation" not in heard:  # the head comes first, by itself
        heard += (more := await asyncio.to_thread(followers[0].raw.recv, 4096))
        assert more, heard
    most = served.files()
    assert (await asyncio.to_thread(served.ask, "GET /\r\n", host="acme.localhost"))[0] == 200
    for follower in followers:
        follower.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # without a good-bye
        follower.close()

    async def gone() -> bool:
        return served.files() <= most - 195

    await g.until(gone, "the end of the followers' connections")
    async with served.ground.open() as platform:
        await platform.operations.cancel(operation.id)


# --- paths and hosts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/admin/static/../../../../../../../../etc/passwd",
        "/admin/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/admin/static/..%2f..%2fsite.py",
        "/admin/static/..%5c..%5csite.py",
        "/admin/static//etc/passwd",
        "/admin/static/%00",
        "/admin/static/portal.css%00.js",
        "/admin/static/" + "a" * 5000,
        "/admin/static/",
        "/admin/../api/tenants",
        "/admin/%2e%2e/.env",
    ],
)
def test_no_path_leads_out(served: Served, path: str) -> None:
    """No file but those of the portal is given out, and no path makes a fault."""
    status, answer = served.ask(f"GET {path}\r\n")
    assert status in (303, 307, 401, 404, 400), answer[:200]
    assert b"root:" not in answer
    assert b"def site" not in answer


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("evil.example", (404,)),
        ("localhost.evil.example", (404,)),
        ("localhost@evil.example", (400,)),
        ("evil.example:80", (404,)),
        ("", (400,)),
        ("localhost\r\nHost: evil.example", (400,)),
        ("localhost, evil.example", (400,)),
        ("127.0.0.1", (404,)),
    ],
)
@pytest.mark.parametrize("path", ["/admin/sign-in", "/api/openapi.json", "/"])
def test_an_unknown_host_is_refused(served: Served, host: str, wanted: tuple[int, ...], path: str) -> None:
    """The portal and the API answer at the platform's own name alone."""
    status, answer = served.ask(f"GET {path}\r\n", host=host)
    assert status in wanted, answer[:200]
    assert b"evil.example/" not in answer


@pytest.mark.parametrize("port", ["99999", "0", "8"])
async def test_no_port_makes_a_fault(served: Served, port: str) -> None:
    """Pages that name addresses bear any port that a Host header can hold."""
    async with served.ground.open() as platform:
        link = (await platform.admins.invite(f"p{port}@example.org")).link
        await platform.admins.assign(f"p{port}@example.org", ["acme"])
    body = b"password=correct+horse"
    sent = f"POST /admin/link/{link}\r\n{FORM}Content-Length: {len(body)}\r\n"
    _, answer = await asyncio.to_thread(served.ask, sent, body)
    session = re.search(rb"tenantry_admin=([\w-]+)", answer)
    assert session
    head = f"GET /admin/tenants/acme\r\nCookie: tenantry_admin={session[1].decode()}\r\n"
    status, answer = await asyncio.to_thread(served.ask, head, host=f"localhost:{port}")
    assert status == 200, answer[:300]

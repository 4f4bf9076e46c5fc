"""`tenantry serve` as people start it: what the terminal shows, the worker beside it, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import ground as g
from tenantry.registry import journal

APP = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})
"""
LINK = re.compile(r"http://localhost:\d+/admin/link/[\w-]{43}")


@dataclass
class Terminal:
    """A terminal with `tenantry serve` in it."""

    process: subprocess.Popen[bytes]
    port: int
    end: int
    shown: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        """Keep what is shown until nobody writes any more."""
        with contextlib.suppress(OSError):  # how a terminal tells that it is closed
            while piece := os.read(self.end, 4096):
                self.shown += piece

    @property
    def text(self) -> str:
        """What it shows."""
        return self.shown.decode().replace("\r\n", "\n")

    def shows(self, wanted: str) -> str:
        """Wait until it shows this; all it shows."""
        until(lambda: wanted in self.text or self.process.poll() is not None)
        assert wanted in self.text, self.text
        return self.text

    def get(self, path: str) -> httpx.Response:
        """Ask the platform's own pages."""
        address = f"http://127.0.0.1:{self.port}{path}"
        return httpx.get(address, headers={"host": "localhost"}, timeout=g.PATIENCE, trust_env=False)

    def tell(self, number: signal.Signals) -> int:
        """Send a signal to the terminal's group, as Ctrl-C does; the exit status."""
        os.killpg(self.process.pid, number)
        return self.process.wait(g.PATIENCE)


def until(condition: object) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + g.PATIENCE
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(pids: set[int]) -> bool:
    """Whether none of these processes lives."""
    return not [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in _state(pid)]


def _state(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def family(pid: int) -> set[int]:
    """The processes below this one."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                child = int(stat.parent.name)
                found |= {child} | family(child)
    return found


@contextlib.contextmanager
def terminal(ground: g.Ground, *options: str) -> Iterator[Terminal]:
    """A terminal of its own; whatever is left at the end is killed."""
    (ground.root / "app.py").write_text(APP)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours, theirs = pty.openpty()
    command = [str(g.TENANTRY), "serve", "--app", "app:app", "--port", str(port), *options]
    process = subprocess.Popen(
        [*command, "--config", str(ground.config)], env=ground.environment(),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    found = Terminal(process, port, ours)
    reader = threading.Thread(target=found.read)
    reader.start()
    try:
        yield found
    finally:
        for pid in (family(process.pid) | {process.pid}) if process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(g.PATIENCE)
        reader.join(g.PATIENCE)
        os.close(ours)


def workers(ground: g.Ground) -> set[int]:
    """The processes of workers that are entered."""
    with contextlib.suppress(Exception):  # no table yet
        return {row[0] for row in ground.control("SELECT pid FROM worker")}
    return set()


async def test_a_newcomer_finds_the_portal_and_a_worker_at_it(ground: g.Ground) -> None:
    """The terminal shows a link that opens; what is asked for is done without another command; Ctrl-C ends all."""
    with terminal(ground) as shown:
        link = LINK.search(shown.shows("Stop it with Ctrl-C."))
        assert link is not None
        assert shown.get(urlsplit(link[0]).path).status_code == 200
        async with ground.open() as platform:
            operation = await platform.tenants.create("acme")
            assert (await g.ended(platform, operation)).operation.state is journal.State.DONE
            pids = set(await g.pids(platform))
        assert len(pids) == 1
        assert pids == family(shown.process.pid)
        assert shown.tell(signal.SIGINT) == 0
        assert gone(pids)
        assert "Traceback" not in shown.text
    assert workers(ground) == set()
    assert link[0].encode() not in b"".join(path.read_bytes() for path in ground.root.rglob("*") if path.is_file())


async def test_nothing_outlives_a_killed_server(ground: g.Ground) -> None:
    """`kill -9` takes the web processes and the worker along; what was under way is done by the next start."""
    with terminal(ground, "--workers", "2") as shown:
        shown.shows("Stop it with Ctrl-C.")
        until(lambda: len(workers(ground)) == 1 and shown.get("/.tenantry/health").status_code == 200)
        pids = family(shown.process.pid)
        assert len(pids) >= 3
        async with ground.open() as platform:
            operation = await platform.tenants.create("acme")
            os.kill(shown.process.pid, signal.SIGKILL)
            until(lambda: gone(pids))
            with terminal(ground) as again:
                assert (await g.ended(platform, operation)).operation.state is journal.State.DONE
                assert again.tell(signal.SIGTERM) == 0
            assert await g.faults_of(platform) == []


async def test_a_worker_that_dies_is_begun_again(ground: g.Ground) -> None:
    """The server goes on meanwhile, and the log says so."""
    with terminal(ground) as shown:
        until(lambda: len(workers(ground)) == 1)
        (pid,) = workers(ground)
        os.kill(pid, signal.SIGKILL)
        shown.shows("the worker ended (-9)")
        async with ground.open() as platform:
            assert (await g.ended(platform, await platform.tenants.create("acme"))).operation.worker_id
        assert shown.get("/.tenantry/health").status_code == 200


@pytest.mark.parametrize("way", ["option", "setting"])
def test_a_server_may_be_alone(ground: g.Ground, way: str) -> None:
    """With --no-worker, or `serve.worker = false`, it only answers."""
    if way == "setting":
        ground.config.write_text(ground.config.read_text() + "\n[serve]\nworker = false\n")
    with terminal(ground, *(["--no-worker"] if way == "option" else [])) as shown:
        shown.shows("Stop it with Ctrl-C.")
        assert shown.get("/.tenantry/health").status_code == 200
        assert family(shown.process.pid) == set()


def test_a_log_never_holds_the_link(ground: g.Ground) -> None:
    """Where the output is no terminal, no link is made at all."""
    (ground.root / "app.py").write_text(APP)
    with ground.command("serve", "--app", "app:app", "--port", "0") as process:
        until(lambda: len(workers(ground)) == 1)
        process.terminate()
        assert process.communicate(timeout=g.PATIENCE)[0] == ""
    assert process.returncode == 0
    assert ground.control("SELECT * FROM admin_link") == []


def test_a_second_start_at_the_same_port_changes_nothing(ground: g.Ground) -> None:
    """It is refused in words before it makes a link, so that the first one's opens still."""
    with terminal(ground, "--no-worker") as shown:
        link = LINK.search(shown.shows("Stop it with Ctrl-C."))
        assert link is not None
        with ground.command("serve", "--app", "app:app", "--port", str(shown.port)) as process:
            told = process.communicate(timeout=g.PATIENCE)[0]
        assert process.returncode == 1
        assert f"error[serve.address]: Nothing can be served at 127.0.0.1, port {shown.port}" in told
        assert shown.get(urlsplit(link[0]).path).status_code == 200


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_processes_run_on_the_platforms_own_machine(ground: g.Ground, command: str) -> None:
    """`--server` before them is refused."""
    argv = [str(g.TENANTRY), "--server", "http://127.0.0.1:9", "--token", "tenantry_x", command]
    done = subprocess.run(argv, cwd=ground.root, env=ground.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, "request.local_only" in done.stderr) == (2, True)

"""A terminal of its own with a server in it, as people start one; and what of it is left."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ground import PATIENCE

LINK = re.compile(r"http://localhost:\d+/admin/link/[\w-]{43}")


@dataclass
class Terminal:
    """A terminal with a server in it."""

    process: subprocess.Popen[bytes]
    port: int
    end: int
    shown: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

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
        until(lambda: wanted in self.text or not self.reader.is_alive())
        assert wanted in self.text, self.text
        return self.text

    def link(self) -> str:
        """The link that makes the first superadmin, once all is shown."""
        found = LINK.search(self.shows("Stop it with Ctrl-C."))
        assert found is not None, self.text
        return found[0]

    def get(self, path: str) -> httpx.Response:
        """Ask the platform's own pages."""
        address = f"http://127.0.0.1:{self.port}{path}"
        return httpx.get(address, headers={"host": "localhost"}, timeout=PATIENCE, trust_env=False)

    def tell(self, number: signal.Signals) -> int:
        """Send a signal to the terminal's group, as Ctrl-C does; the exit status."""
        os.killpg(self.process.pid, number)
        return self.process.wait(PATIENCE)


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
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


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def terminal(command: Sequence[str], cwd: Path, env: Mapping[str, str], port: int) -> Iterator[Terminal]:
    """A command in a terminal of its own; whatever is left of it at the end is killed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    found = Terminal(process, port, ours)
    try:
        yield found
    finally:
        for pid in (family(process.pid) | {process.pid}) if process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(PATIENCE)
        found.reader.join(PATIENCE)
        os.close(ours)

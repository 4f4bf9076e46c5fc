"""Programs of Python that start at once: each is forked from a process that has loaded Tenantry already.

    with Program([TENANTRY, "worker"], cwd=root) as worker: ...
    done = run([TENANTRY, "tenant", "list"], cwd=root, capture_output=True, text=True)

Either is what `subprocess` has under its own name, for the script of a path: a process of its own with its own
arguments, directory, environment and pipes, which signals and SIGKILL hit as any other. Only the interpreter's start
and the imports, most of what a short command costs, were done before.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import importlib.metadata
import inspect
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hashes

LOADED = ("uvicorn", "aiosqlite", "alembic.command", "rich.console", "psycopg", "pymysql", "asyncmy")
MESSAGE = 1 << 20

# --- in the tests -------------------------------------------------------------------------------------------------

_NAMES = tuple(inspect.signature(subprocess.Popen._execute_child).parameters)[1:]  # type: ignore[attr-defined]


class Program(subprocess.Popen[Any]):
    """A process that runs a script; `Popen` without what is set before an exec (`preexec_fn`, users, groups)."""

    def _execute_child(self, *given: Any) -> None:
        asked = dict(zip(_NAMES, given, strict=True))
        ends = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        told, tell = os.pipe()
        try:
            order = {
                "arguments": [os.fspath(one) for one in asked["args"]],
                "cwd": os.fspath(asked["cwd"] or Path.cwd()),
                "env": dict(os.environ if asked["env"] is None else asked["env"]),
                "session": asked["start_new_session"],
            }
            fds = [number if end == -1 else end for number, end in enumerate(ends)]
            socket.send_fds(_forker(), [json.dumps(order).encode()], [*fds, tell])
            self.pid = int(_forker().recv(64))
        finally:
            os.close(tell)
            self._close_pipe_fds(*(asked[n] for n in _NAMES if n.endswith(("read", "write"))))  # type: ignore[attr-defined]
        self._told, self._reading, self._child_created = told, threading.Lock(), True

    def poll(self) -> int | None:
        """The exit status, if there is one by now."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._reading:
                if self.returncode is None:
                    self.returncode = int(os.read(self._told, 64) or -signal.SIGKILL)
                    os.close(self._told)
        return self.returncode

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        return self.poll()


def run(
    arguments: Sequence[Any], input: str | None = None, capture_output: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a script to its end, as `subprocess.run` does."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    timeout = options.pop("timeout", None)
    with Program(arguments, **options) as program:
        try:
            output, errors = program.communicate(input, timeout)
        except BaseException:
            program.kill()
            raise
    return subprocess.CompletedProcess(arguments, program.returncode, output, errors)


@functools.cache
def _forker() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- in the process that forks ------------------------------------------------------------------------------------


def load() -> None:
    """Load what commands and workers need."""
    from tenantry.cli import COMMANDS

    for module in (
        *LOADED,
        "tenantry.web",
        *(f"tenantry.cli.{target.partition(':')[0]}" for _, target, *_ in COMMANDS),
    ):
        importlib.import_module(module)
    for kind in importlib.metadata.entry_points(group="tenantry.resources"):
        kind.load()
    hashes.quick()
    gc.collect()
    gc.freeze()


def serve(orders: socket.socket) -> Callable[[], None] | None:
    """Fork a process for each order and tell how each ends; in such a process: what it has to do."""
    woken, wake = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([orders, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ends(told)
        if orders in ready:
            message, fds, _, _ = socket.recv_fds(orders, MESSAGE, 4)
            if not message:
                return None
            pid = os.fork()
            if pid == 0:
                orders.detach()
                return _become(json.loads(message), fds[:3])
            told[pid] = fds.pop()
            for fd in fds:
                os.close(fd)
            orders.send(str(pid).encode())


def _tell_ends(told: dict[int, int]) -> None:
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(told[pid], str(os.waitstatus_to_exitcode(status)).encode())
        os.close(told.pop(pid))


def _become(order: dict[str, Any], fds: list[int]) -> Callable[[], None]:
    """Make this process as one that was just started."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.closerange(3, 4096)
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    os.chdir(order["cwd"])
    if order["session"]:
        os.setsid()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _writer(1, "strict"), _writer(2, "backslashreplace")
    sys.argv = order["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    return functools.partial(runpy.run_path, sys.argv[0], run_name="__main__")  # type: ignore[return-value]


def _writer(number: int, errors: str) -> io.TextIOWrapper:
    return open(number, "w", errors=errors, closefd=False, buffering=1 if number == 2 or os.isatty(number) else -1)


if __name__ == "__main__":
    load()
    program = serve(socket.socket(fileno=int(sys.argv[1])))
    if program:
        program()

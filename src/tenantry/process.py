"""Other programs: the one place that starts any. An argv list, never a shell; secrets go into `env` or `input`."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any, Final

from tenantry.errors import ProcessFailed

TAIL: Final = 2000
"""How much of a program's last words an error repeats, in characters."""

KEPT: Final = 64 << 10
"""Octets of a watched program's output that are kept."""

LEFT_SECONDS: Final = 1.0
"""How long the rest of a watched program's output is waited for."""

Argv = Sequence[str | Path]
Process = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Given:
    """What a program gets beside its arguments."""

    env: Mapping[str, str] | None = None  # added to this process's environment
    inherit: bool = True  # whether it gets this process's environment at all
    input: bytes | None = None  # what it reads; without it and `stdin`: nothing
    stdin: IO[bytes] | None = None  # an open file that it reads instead
    stdout: IO[bytes] | None = None  # an open file that it writes to; otherwise `run` returns what it wrote
    cwd: Path | None = None
    timeout: float | None = None  # seconds
    user: tuple[int, int] | None = None  # user and group id to run as, where this process is root
    pass_fds: tuple[int, ...] = ()

    def options(self) -> dict[str, Any]:
        """The same for `subprocess.Popen`."""
        switched = {"user": self.user[0], "group": self.user[1], "extra_groups": []} if self.user else {}
        env = {**(os.environ if self.inherit else {}), **(self.env or {})}
        return {"env": env, "cwd": self.cwd, "pass_fds": self.pass_fds, **switched}


async def run(argv: Argv, given: Given = Given()) -> bytes:
    """Run a program to its end without holding up the event loop; what it wrote to standard output.

    Raises `ProcessFailed` where it cannot be started, takes too long or ends with anything but 0. It is killed where
    the caller is cancelled.
    """
    process = _open(argv, given)
    try:
        return await asyncio.to_thread(_finish, process, argv, given)
    except asyncio.CancelledError:
        process.kill()
        raise


def run_now(argv: Argv, given: Given = Given()) -> bytes:
    """The same for code without an event loop."""
    return _finish(_open(argv, given), argv, given)


def watch(argv: Argv, given: Given = Given()) -> bytes:
    """Run a program with all that it starts as one group, and keep the last `KEPT` octets of what it says.

    Raises `ProcessFailed` as `run` does, with its last words of either stream. Whatever is left of the group when the
    program ends, or its time is over, is killed.
    """
    process = _popen(
        argv, given, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert process.stdout is not None
    kept = bytearray()
    reader = threading.Thread(target=_keep, args=(process.stdout, kept), daemon=True)
    reader.start()
    status: int | str
    try:
        status = process.wait(given.timeout)
    except subprocess.TimeoutExpired:
        status = f"no answer in {given.timeout:g} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(LEFT_SECONDS)  # what left the group may hold the stream open for ever
    if status:
        raise ProcessFailed(program=_name(argv), status=status, output=kept.decode(errors="replace").strip()[-TAIL:])
    return bytes(kept)


def _keep(stream: IO[bytes], kept: bytearray) -> None:
    with stream:
        while found := os.read(stream.fileno(), 65536):
            kept += found
            del kept[:-KEPT]


def start(argv: Argv, log: IO[bytes], given: Given = Given()) -> Process:
    """Start a program that stays, in a session of its own, its words in a log. Raises `ProcessFailed`."""
    return _popen(argv, given, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def start_beside(argv: Argv, given: Given = Given()) -> Process:
    """Start a program that stays and says what it says where this one does. Raises `ProcessFailed`.

    Ctrl-C does not reach it. What it reads is at its end when this process is gone, however that ended.
    """
    return _popen(argv, given, stdin=subprocess.PIPE, process_group=0)


def _open(argv: Argv, given: Given) -> Process:
    stdin = subprocess.PIPE if given.input is not None else given.stdin or subprocess.DEVNULL
    return _popen(argv, given, stdin=stdin, stdout=given.stdout or subprocess.PIPE, stderr=subprocess.PIPE)


def _popen(argv: Argv, given: Given, **streams: Any) -> Process:
    try:
        return subprocess.Popen([str(part) for part in argv], **given.options(), **streams)
    except OSError as error:
        raise ProcessFailed(program=_name(argv), status="no start", output=error.strerror or str(error)) from error


def _finish(process: Process, argv: Argv, given: Given) -> bytes:
    with process:
        try:
            output, faults = process.communicate(given.input, given.timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.communicate()
            raise ProcessFailed(program=_name(argv), status=f"no answer in {given.timeout:g} s", output="") from error
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        told = (faults or output or b"").decode(errors="replace").strip()[-TAIL:]
        raise ProcessFailed(program=_name(argv), status=process.returncode, output=told)
    return output or b""


def _name(argv: Argv) -> str:
    return Path(argv[0]).name


def told_to_stop(attached: bool = False) -> asyncio.Event:
    """Set by SIGINT and SIGTERM; where this process was begun by `start_beside`, also when that one is gone."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def read() -> None:
        if not os.read(0, KEPT):
            loop.remove_reader(0)
            stop.set()

    if attached:
        loop.add_reader(0, read)
    return stop


def end_with_parent() -> None:
    """Get SIGTERM when the process that began this one by `multiprocessing` is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)

"""The worker beside `tenantry serve`: a process of its own, begun again where it ends, and never left behind."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Final, Self

from tenantry import process
from tenantry.process import Argv, Process

PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds until a worker that ended is begun again: longer each time, the first again after one that lived long."""

LIVED: Final = 60.0
"""Seconds after which a worker lived long."""

log = logging.getLogger("tenantry.serve")


class Beside:
    """Has a worker beside this process while the block runs; a killed process leaves none either."""

    def __init__(self, config: Path) -> None:
        self._argv: Argv = [sys.executable, "-m", "tenantry", "worker", "--attached", "--config", config]
        self._ending = threading.Event()
        self._turn = threading.Lock()
        self._worker: Process | None = None
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def __enter__(self) -> Self:
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let it bring its steps to their end; Ctrl-C once more leaves them to the next worker."""
        with self._turn:
            self._ending.set()
            if self._worker is not None:
                self._worker.terminate()
        try:
            self._keeper.join()
        except KeyboardInterrupt:
            if self._worker is not None:
                self._worker.kill()
            self._keeper.join()

    def _keep(self) -> None:
        pauses = iter(PAUSES)
        while (worker := self._begin()) is not None:
            began = time.monotonic()
            status = worker.wait()
            if self._ending.is_set():
                return
            if time.monotonic() - began > LIVED:
                pauses = iter(PAUSES)
            pause = next(pauses, PAUSES[-1])
            log.warning("the worker ended (%s); it is begun again in %.0f s", status, pause)
            self._ending.wait(pause)

    def _begin(self) -> Process | None:
        with self._turn:
            if not self._ending.is_set():
                self._worker = process.start_beside(self._argv)
                return self._worker
        return None


def beside(config: Path, wanted: bool) -> contextlib.AbstractContextManager[object]:
    """A worker beside this process, where one is wanted."""
    return Beside(config) if wanted else contextlib.nullcontext()

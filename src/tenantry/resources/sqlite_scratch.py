"""Looking on while a migration runs in a scratch copy of an SQLite file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tenantry.model import Held
from tenantry.resources.migrator import Connection
from tenantry.resources.scratch import Seen

LOCK: Final = "RESERVED"
"""A migration's transaction takes the whole file: one writer at a time (sqlite.org/lockingv3.html)."""

FULL: Final = "database or disk is full"
"""What SQLite says where a file came to its limit (sqlite.org/rescode.html#full)."""


def bound(connection: Connection, room: int) -> None:
    """Let a copy grow to half of its room: its log may grow as far before it is written back."""
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.execute(f"PRAGMA max_page_count = {max(1, room // 2 // int(size))}")


@contextmanager
def watch() -> Iterator[Seen]:
    """Look on for the time of a block; what was seen is there at its end."""
    seen, start = Seen(), time.perf_counter()
    yield seen
    seen.locks = (Held("the whole file", LOCK, "writes", time.perf_counter() - start),)
    seen.outgrown = seen.failure is not None and FULL in seen.failure.message

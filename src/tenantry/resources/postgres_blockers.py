"""Who holds the lock that a migration on PostgreSQL waits for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from tenantry.resources.limits import Waiting

CONNECT_SECONDS: Final = 5
LOOK_SECONDS: Final = 0.02
"""Between two looks at the server while a migration runs."""

SHOWN: Final = 3
"""The most sessions that an error names."""

_WHO: Final = """
SELECT pid, coalesce(nullif(application_name, ''), usename, 'unknown'), coalesce(state, 'at work'),
  extract(epoch FROM clock_timestamp() - xact_start)
FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(%s)) ORDER BY xact_start"""


@contextmanager
def watched(connection: psycopg.Connection[Any]) -> Iterator[Waiting]:
    """Look, by a second connection with the same login, who is in the way while the block runs.

    It tells process number, application, state and age of each session; not its statement, which may hold data.
    """
    waiting, over = Waiting(), threading.Event()
    info = connection.info
    where = make_conninfo(info.dsn, password=info.password, application_name="tenantry migrate, looking")
    try:
        other = psycopg.connect(where, autocommit=True, connect_timeout=CONNECT_SECONDS)
    except psycopg.Error:  # no connection is left: then nobody is named
        yield waiting
        return
    looking = threading.Thread(target=_look, args=(other, info.backend_pid, waiting, over), daemon=True)
    looking.start()
    try:
        yield waiting
    finally:
        over.set()
        looking.join()
        other.close()


def _look(other: psycopg.Connection[Any], pid: int, waiting: Waiting, over: threading.Event) -> None:
    with suppress(psycopg.Error):
        while not over.wait(LOOK_SECONDS):
            found = other.execute(_WHO, (pid,)).fetchall()
            if found:
                waiting.told = ", ".join(_named(*row) for row in found[:SHOWN])


def _named(pid: int, application: str, state: str, seconds: float | None) -> str:
    since = f" for {seconds:.0f} s" if seconds is not None else ""
    return f"process {pid} of {application!r} ({state}{since})"

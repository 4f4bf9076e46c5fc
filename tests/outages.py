"""A PostgreSQL server that goes away for a while, as in a restart."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator

import psycopg

import servers


@contextlib.contextmanager
def down(server: servers.Postgres) -> Iterator[None]:
    """End a server, breaking off its connections; start it again afterwards, on the same port."""
    servers._end(server.process)
    try:
        yield
    finally:
        user = {} if shutil.which("setpriv") else servers._as(servers._unprivileged())
        process = subprocess.Popen(  # type: ignore[call-overload]
            server.process.args, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user
        )
        object.__setattr__(server, "process", process)  # so that the one who started it ends it
        _wait(server)


def _wait(server: servers.Postgres) -> None:
    until = time.monotonic() + servers.START_SECONDS
    while True:
        try:
            psycopg.connect(server.url()).close()
            return
        except psycopg.OperationalError:
            assert server.process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)

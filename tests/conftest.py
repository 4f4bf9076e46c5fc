"""What tests of every kind share."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import hashes
import mariadb
import servers

settings.register_profile("tenantry", deadline=None)  # a busy machine is no fault
settings.load_profile("tenantry")

hashes.quick()  # each costs a fifth of a second otherwise, and there are thousands

MEMORY = Path("/dev/shm")
ROOM = 5 << 30
"""Bytes that have to be free there; the tests use about a fifth."""


def _takes_tests() -> bool:
    """Whether there is memory for the tests' files, programs among them, which containers often forbid there."""
    if not os.access(MEMORY, os.W_OK | os.X_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(MEMORY).free > ROOM


if "TMPDIR" not in os.environ and _takes_tests():
    # All files in memory: a database is made there in a quarter of the time. Crashes are of processes, not of machines
    os.environ["TMPDIR"], tempfile.tempdir = str(MEMORY), None


def pytest_collection_finish() -> None:
    """Let what was loaded by now be left out when garbage is looked for: a fifth of the tests' time went there."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """A PostgreSQL server, one for each process that runs tests."""
    try:
        with servers.postgres() as server:
            yield server
    except servers.NoServer as error:
        pytest.skip(str(error))


@pytest.fixture
def own_postgres() -> Iterator[servers.Postgres]:
    """A PostgreSQL server that one test may change and restart."""
    try:
        with servers.postgres() as server:
            yield server
    except servers.NoServer as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres_18() -> Iterator[servers.Postgres]:
    """A PostgreSQL 18 server, from a package; one for each process that runs tests."""
    try:
        with servers.postgres(servers.embedded_programs()) as server:
            yield server
    except servers.NoServer as error:
        pytest.skip(str(error))


@pytest.fixture
def postgres_url(postgres: servers.Postgres) -> Iterator[str]:
    """The address of an empty PostgreSQL database, with the password of a role that owns it and nothing else."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[mariadb.MariaDB]:
    """A MariaDB server with TLS, one for each process that runs tests."""
    try:
        with mariadb.running() as server:
            yield server
    except servers.NoServer as error:
        pytest.skip(str(error))

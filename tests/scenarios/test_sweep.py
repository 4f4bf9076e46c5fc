"""The tests' own servers: those of tests that were killed leave nothing for ever."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import servers

pytestmark = pytest.mark.postgres

STARTER = """
import sys
sys.path.insert(0, sys.argv[1])
import servers
with servers.postgres() as server:
    print("ready", flush=True)
    sys.stdin.readline()
"""


def folders(pid: int) -> list[Path]:
    """The folders of servers that this process started."""
    return list(Path(tempfile.gettempdir()).glob(f"tenantry-postgres-{pid}-*"))


@pytest.mark.usefixtures("postgres")
def test_what_killed_tests_left_is_swept() -> None:
    """A folder goes once its owner and its server are gone, and not before."""
    here = Path(servers.__file__).parent
    command = [sys.executable, "-c", STARTER, str(here)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"ready\n"
        servers._sweep()
        (home,) = folders(owner.pid)
        assert (home / "data" / "postmaster.pid").exists()
        owner.kill()
        owner.wait()
    until = time.monotonic() + 60
    while folders(owner.pid):
        assert time.monotonic() < until
        servers._sweep()
        time.sleep(0.05)

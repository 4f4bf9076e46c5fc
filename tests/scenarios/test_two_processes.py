"""Two real servers beside the command line: changes reach both, and both outlive the control database."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import programs

TENANTRY = str(Path(sys.executable).with_name("tenantry"))
EXAMPLE = Path(__file__).parents[2] / "examples" / "countries"
LIMIT = 180.0
"""Seconds after which a wait is given up; nothing is measured by it."""


class Ground:
    """A platform on disk with one tenant, acme."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **os.environ,
            "TENANTRY_SECRET_KEY": secrets.token_hex(32),
            "TENANTRY_RUNTIME__SECURE_COOKIES": "false",
        }

    def tenantry(self, *arguments: str) -> str:
        done = programs.run(
            [TENANTRY, *arguments], cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serve(self) -> Iterator[Callable[..., httpx.Response]]:
        """A server process; gives a function that asks it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [TENANTRY, "serve", "--no-worker", "--port", str(port)]
        process = subprocess.Popen(command, cwd=self.root, env=self.environment)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:

            def ask(path: str = "/", host: str = "acme.localhost") -> httpx.Response:
                return client.get(path, headers={"host": host})

            try:
                until(lambda: _answers(ask) and process.poll() is None)
                yield ask
            finally:
                process.terminate()
                process.wait(20)


def _answers(ask: Callable[..., httpx.Response]) -> bool:
    try:
        return ask("/.tenantry/health").status_code == 200
    except httpx.TransportError:
        return False


def until(condition: Callable[[], bool]) -> float:
    """Seconds until something was so."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < LIMIT
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    root = tmp_path / "countries"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("var", ".env", "__pycache__"))
    made = Ground(root)
    made.tenantry("tenant", "create", "acme", "--name", "Acme")
    return made


def health(ask: Callable[..., httpx.Response]) -> dict[str, Any]:
    return dict(json.loads(ask("/.tenantry/health").text))


def test_a_change_reaches_every_process(ground: Ground) -> None:
    """Suspended, resumed, renamed and destroyed by commands, a tenant is so in both servers, without a restart."""
    with ExitStack() as stack:
        servers = [stack.enter_context(ground.serve()) for _ in range(2)]

        def all_answer(status: int, host: str = "acme.localhost") -> bool:
            return all(ask(host=host).status_code == status for ask in servers)

        until(lambda: all_answer(200))
        ground.tenantry("tenant", "suspend", "acme", "--reason", "unpaid")
        until(lambda: all_answer(403))
        ground.tenantry("tenant", "resume", "acme")
        until(lambda: all_answer(200))
        ground.tenantry("tenant", "rename", "acme", "apex")
        until(lambda: all_answer(308) and all_answer(200, "apex.localhost"))
        assert servers[0]("/x?y=1").headers["location"].startswith("http://apex.localhost/x?y=1")
        ground.tenantry("hostname", "add", "apex", "www.apex.example")
        until(lambda: all_answer(200, "www.apex.example"))
        ground.tenantry("tenant", "destroy", "apex", "--yes")
        until(lambda: all_answer(404, "apex.localhost") and all_answer(404, "www.apex.example"))


def test_resolving_outlives_the_control_database(ground: Ground) -> None:
    """With the control database gone requests go on, also in a server started then, and the health answer says so."""
    control, away = ground.root / "var" / "control.sqlite", ground.root / "var" / "away"
    with ground.serve() as first:
        until(lambda: first().status_code == 200 and health(first)["status"] == "ok")
        until((ground.root / "var" / "snapshot.json").exists)
        away.mkdir()
        for part in control.parent.glob("control.sqlite*"):
            part.rename(away / part.name)
        until(lambda: health(first)["status"] == "snapshot")
        assert first().status_code == 200
        with ground.serve() as second:
            assert health(second)["status"] == "snapshot"
            assert second().status_code == 200
            assert second(host="nobody.localhost").status_code == 404
            assert not control.exists(), "a server must not begin a new control database"
            for part in away.iterdir():
                part.rename(control.parent / part.name)
            until(lambda: health(first)["status"] == "ok" and health(second)["status"] == "ok")
            ground.tenantry("tenant", "suspend", "acme")
            until(lambda: first().status_code == 403 and second().status_code == 403)

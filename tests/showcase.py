"""An example of `examples/`, made and served by the real `tenantry` command."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx

if TYPE_CHECKING:
    from conftest import Visit

SIGN_IN = ".tenantry/sign-in"
TENANTRY = str(Path(sys.executable).with_name("tenantry"))


@dataclass
class Example:
    """Where it runs, and the first admin's sign-in of each tenant."""

    place: Path
    port: int
    environment: dict[str, str]
    admins: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, root: Path) -> Self:
        """The example of this name, with a platform of its own below `root`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {"TENANTRY_PLATFORM__DATA": str(root / "var"), "TENANTRY_SECRET_KEY": secrets.token_hex(32)}
        return cls(Path(__file__).parents[1] / "examples" / name, port, os.environ | settings)

    @classmethod
    @contextmanager
    def shown(cls, name: str, root: Path, tenants: Mapping[str, str], filling: str) -> Iterator[Self]:
        """The example with these tenants, names by slug, the first of them filled from a file, and served."""
        found = cls.of(name, root)
        for slug, called in tenants.items():
            found.create(slug, called)
        found.run(sys.executable, "-m", f"{name}.fill", filling)
        with found.serving(root / "serve.log"):
            yield found

    def run(self, *command: str) -> str:
        """What a command prints."""
        done = subprocess.run(
            command, cwd=self.place, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def create(self, slug: str, name: str) -> None:
        """Make a tenant and keep its first admin's sign-in."""
        made = json.loads(self.run(TENANTRY, "tenant", "create", slug, "--name", name, "--json"))
        self.admins[slug] = (made["credentials"]["login"], made["credentials"]["password"])

    @contextmanager
    def serving(self, log: Path) -> Iterator[None]:
        """`tenantry serve`, once it lets people in, until the block ends. Nothing may go wrong unseen meanwhile."""
        command = [TENANTRY, "serve", "--no-worker", "--port", str(self.port)]
        with log.open("wb") as out:
            server = subprocess.Popen(command, cwd=self.place, env=self.environment, stdout=out, stderr=out)
        try:
            for _ in range(600):
                assert server.poll() is None, log.read_text()
                with suppress(httpx.TransportError), self.http(next(iter(self.admins))) as client:
                    if client.get(SIGN_IN).status_code == 200:
                        break
                time.sleep(0.1)
            yield
            assert "Traceback" not in log.read_text()
        finally:
            server.terminate()
            server.wait(30)

    def url(self, slug: str, path: str = "/") -> str:
        """An address of a tenant, by path."""
        return f"http://localhost:{self.port}/t/{slug}{path}"

    def http(self, slug: str, path: str = "/") -> httpx.Client:
        """A client that is not signed in, whatever the system's resolver makes of localhost."""
        address = f"http://127.0.0.1:{self.port}/t/{slug}{path}"
        return httpx.Client(base_url=address, headers={"host": "localhost"}, timeout=60, trust_env=False)

    @contextmanager
    def client(self, slug: str) -> Iterator[httpx.Client]:
        """A client that is signed in at a tenant, by the form."""
        with self.http(slug) as client:
            login, password = self.admins[slug]
            hidden = re.findall('name="(csrf)" value="([0-9a-f]+)"', client.get(SIGN_IN).text)
            answer = client.post(SIGN_IN, data=dict(hidden) | {"login": login, "password": password})
            assert answer.status_code == 303, answer.text
            yield client

    def look(self, visit: Visit, address: str) -> None:
        """Look at a page with all its parts opened; nothing of it is wider than the window."""
        visit.page.goto(address)
        visit.page.locator("h1").wait_for()
        for details in visit.page.locator("summary").all():
            details.click()
        wide, window = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window, address

    def sign_in(self, visit: Visit, slug: str) -> None:
        """Sign in by the page that people see."""
        login, password = self.admins[slug]
        visit.page.goto(self.url(slug, f"/{SIGN_IN}"))
        visit.page.fill("[name=login]", login)
        visit.page.fill("[name=password]", password)
        visit.page.click("main button >> nth=0")
        visit.page.wait_for_url(self.url(slug))

"""A really running Storyfront with two tenants, and a real browser."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

import programs

EXAMPLE = Path(__file__).parents[2] / "examples" / "storyfront"
TENANTRY = str(Path(sys.executable).with_name("tenantry"))
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync".split()
)

sys.path.insert(0, str(EXAMPLE))


@dataclass
class Storyfront:
    """Where it runs, and the first admin's sign-in of each tenant."""

    port: int
    environment: dict[str, str]
    admins: dict[str, tuple[str, str]] = field(default_factory=dict)

    def tenantry(self, *arguments: str) -> str:
        """What a `tenantry` command prints."""
        command = [TENANTRY, *arguments]
        done = programs.run(command, cwd=EXAMPLE, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, slug: str, name: str, blueprint: str = "site", *options: str) -> None:
        """Make a tenant and keep its first admin's sign-in."""
        made = json.loads(
            self.tenantry("tenant", "create", slug, "--name", name, "--blueprint", blueprint, *options, "--json")
        )
        self.admins[slug] = (made["credentials"]["login"], made["credentials"]["password"])

    def host(self, slug: str, path: str = "/") -> str:
        """An address of a tenant by its own host name."""
        return f"http://{slug}.localhost:{self.port}{path}"

    def path(self, slug: str, path: str = "/") -> str:
        """An address of a tenant by path."""
        return f"http://localhost:{self.port}/t/{slug}{path}"

    def get(self, address: str, accept: str = "*/*", **cookies: str) -> httpx.Response:
        """An answer without a browser, whatever the system's resolver makes of *.localhost."""
        parts = urlsplit(address)
        cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
        headers = {"host": parts.netloc, "accept": accept, "cookie": cookie}
        return httpx.get(
            f"http://127.0.0.1:{self.port}{address.partition(parts.netloc)[2]}", headers=headers, timeout=20
        )

    def wait_for(self, address: str, alive: Callable[[], bool] = lambda: True) -> None:
        """Return when an address answers with 200."""
        for _ in range(200):
            assert alive(), "The server has ended."
            with suppress(httpx.TransportError):
                if self.get(address).status_code == 200:
                    return
            time.sleep(0.1)
        pytest.fail(f"{address} is not served.")


@contextmanager
def _served(storyfront: Storyfront, log: Path) -> Iterator[None]:
    command = [TENANTRY, "serve", "--no-worker", "--port", str(storyfront.port)]
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=EXAMPLE, env=storyfront.environment, stdout=out, stderr=out)
    try:
        storyfront.wait_for(storyfront.host("acme"), lambda: server.poll() is None)
        yield
        assert "Traceback" not in log.read_text()
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="session")
def storyfront(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storyfront]:
    """Storyfront with the tenants acme and bistro, made and served by the `tenantry` command."""
    root = tmp_path_factory.mktemp("storyfront")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"TENANTRY_PLATFORM__DATA": str(root / "var"), "TENANTRY_SECRET_KEY": secrets.token_hex(32)}
    found = Storyfront(port, os.environ | settings)
    found.create("acme", "Acme & Söhne")
    found.create("bistro", "Bistro Nord")
    with _served(found, root / "serve.log"):
        yield found


@pytest.fixture(scope="module")  # Playwright keeps an event loop running: tests with a loop of their own need it gone
def browser() -> Iterator[Browser]:
    """Chromium itself."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: apt install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A window of the browser that notes every fault and every request that leaves this machine."""

    context: BrowserContext
    page: Page
    faults: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self._request(request.url))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.text} ({self.page.url})")

    def _request(self, address: str) -> None:
        host = urlsplit(address).hostname or ""
        if host != "localhost" and not host.endswith(".localhost"):
            self.outside.append(address)

    def sign_in(self, address: str, login: str, password: str) -> None:
        """Sign in at a site's desk, by the page that visitors are led to."""
        self.page.goto(address + "desk")
        self.page.fill("[name=login]", login)
        self.page.fill("[name=password]", password)
        self.page.click("main button >> nth=0")
        self.page.wait_for_url("**/desk")

    def session(self) -> str:
        """The value of the session cookie."""
        return next(cookie["value"] for cookie in self.context.cookies() if cookie["name"] == "tenantry_session")


Windows = Callable[..., AbstractContextManager[Visit]]


@pytest.fixture
def window(browser: Browser) -> Windows:
    """Opens windows with Playwright's options. At the end of each nothing was faulty, nothing came from elsewhere."""

    @contextmanager
    def open_window(**options: Any) -> Iterator[Visit]:
        with browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options
        ) as made:
            found = Visit(made, made.new_page())
            yield found
            assert found.faults == []
            assert found.outside == []

    return open_window


@pytest.fixture
def visit(window: Windows) -> Iterator[Visit]:
    """A fresh window of 1280 by 900."""
    with window() as found:
        yield found

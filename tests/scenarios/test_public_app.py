"""A public application that knows nothing of tenants serves two, by the steps of the how-to and nothing else."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "howto" / "make-an-application-multi-tenant.md"
STEP = re.compile(
    r"^(?:`(?P<file>[\w.]+)`\n\n)?```(?P<kind>sh|toml|python)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')
PATIENCE = 300.0
"""Seconds until a step that hangs is given up; nothing is measured by it."""


class Site:
    """The directory in which somebody follows the page."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.told: list[str] = []
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("TENANTRY_", "PYTHON", "PYTEST_"))}
        self.environ |= {"PATH": f"{root / '.venv' / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(root / ".venv")}
        self.environ["PIP_NO_COMPILE"] = "1"  # most of what is installed is never loaded

    def sh(self, script: str) -> str:
        """Run commands as they stand on the page."""
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=self.root,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    def install(self, script: str) -> None:
        """Install as the page says, but Tenantry from here; skips where no index can be reached."""
        subprocess.run([sys.executable, "-m", "venv", self.root / ".venv"], check=True)
        try:
            self.sh(script.replace("pip install", "pip install --quiet").replace(" tenantry", f" {ROOT}"))
        except AssertionError as error:
            if re.search("No matching distribution|Could not find a version|Connection|Temporary failure", str(error)):
                pytest.skip(f"no package index can be reached: {str(error)[-300:]}")
            raise


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def browser(port: int, slug: str) -> httpx.Client:
    """A browser at one tenant's address, with cookies of its own."""
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"host": f"{slug}.budgets.example"}, timeout=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, int, list[str]]]:
    """The page followed up to the server; the site, its port, and the steps that are left."""
    site, port = Site(tmp_path_factory.mktemp("site")), free_port()
    steps = [match.groupdict() for match in STEP.finditer(PAGE.read_text("utf-8"))]
    install, *steps = steps
    site.install(str(install["text"]))
    while steps:
        step = steps.pop(0)
        text = str(step["text"])
        if step["file"]:
            (site.root / str(step["file"])).write_text(text)
        elif "gunicorn --bind" not in text:
            site.told.append(site.sh(text))
        else:
            break
    script = text.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("gunicorn", "exec gunicorn")
    with (site.root / "log").open("w") as log:
        server = subprocess.Popen(["sh", "-euc", script], cwd=site.root, env=site.environ, stdout=log, stderr=log)
    try:
        _await(server, port, site.root / "log")
        yield site, port, [str(step["text"]).replace(":8000", f":{port}") for step in steps]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _await(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/.tenantry/health", timeout=5).raise_for_status() and None
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def make_project(client: httpx.Client, name: str, password: str) -> httpx.Response:
    """Make the project `trip`, as its visitors do; it signs them in."""
    token = TOKEN.search(client.get("/create").text)
    assert token
    fields = {"name": name, "id": "trip", "password": password, "contact_email": "eva@example.com"}
    return client.post("/create", data={**fields, "csrf_token": token[1], "default_currency": "XXX"})


def test_the_how_to(served: tuple[Site, int, list[str]]) -> None:
    """Two tenants are apart in rows, sign-ins, links and administrators, also under attack; one is suspended."""
    site, port, left = served
    assert "acme is ready" in site.told[1]
    with browser(port, "acme") as acme, browser(port, "bolt") as bolt, browser(port, "nobody") as nobody:
        assert site.sh(left.pop(0)).strip().startswith("<!DOCTYPE html>")
        assert nobody.get("/").status_code == 404

        for client, name, password in ((acme, "Acme in Rome", "correct horse"), (bolt, "Bolt in Oslo", "other horse")):
            made = make_project(client, name, password)
            assert (made.status_code, made.headers["location"]) == (302, "/trip/"), made.text
            assert name in client.get("/trip/").text
        assert "Oslo" not in acme.get("/trip/").text
        assert "Rome" not in bolt.get("/trip/").text

        with browser(port, "bolt") as thief:  # acme's cookie, at bolt
            cookie = "; ".join(f"{each.name}={each.value}" for each in acme.cookies.jar)
            answer = thief.get("/trip/", headers={"cookie": cookie})
            assert "Oslo" not in answer.text
            assert answer.headers["location"].startswith("/authenticate")
            assert sign_in(thief, "correct horse").status_code == 200, "acme's password must not open bolt's project"
            assert sign_in(thief, "other horse").status_code == 302

        link = site.sh(f"export IHATEMONEY_SETTINGS_FILE_PATH=$PWD/settings.cfg; python -c '{RESET}'").split()[-1]
        assert "Invalid token" in bolt.get("/reset-password", params={"token": link}).text
        assert "Invalid token" not in acme.get("/reset-password", params={"token": link}).text

        assert admin(acme, "correct horse").status_code == 302
        assert admin(bolt, "correct horse").status_code != 302

        verified = site.sh(left.pop(0))
        assert "2 of 2 environments" in verified
        assert ", 0 got through, 0 not tried." in verified
        assert "genuine       yes" in verified
        assert "Acme in Rome" in acme.get("/trip/").text, "nothing of the attacks is left"

        site.sh(left.pop(0))
        assert bolt.get("/trip/").status_code == 403
        assert "Acme in Rome" in acme.get("/trip/").text
        assert left == []
    assert (site.root / "scratch.sqlite").exists() or list(site.root.rglob("scratch.sqlite"))
    scratch = next(site.root.rglob("scratch.sqlite"))
    assert site.sh(f"python -c 'import sqlite3; {COUNT}' {scratch}").strip() == "0", "a tenant's rows went astray"


COUNT = 'import sys; print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM project").fetchone()[0])'
RESET = """
from budgets import app
from ihatemoney.models import Project
from tenantry import tenant_context
runtime = app.extensions["tenantry"].runtime
runtime.start_thread()
with app.app_context(), tenant_context(runtime.environment("acme")):
    print(Project.query.get("trip").generate_token("reset"))
runtime.stop_thread()
"""


def sign_in(client: httpx.Client, password: str) -> httpx.Response:
    """Sign in to the project `trip`; 302 where that succeeds."""
    token = TOKEN.search(client.get("/authenticate?project_id=trip").text)
    assert token
    return client.post("/authenticate", data={"id": "trip", "password": password, "csrf_token": token[1]})


def admin(client: httpx.Client, password: str) -> httpx.Response:
    """Sign in as the administrator; 302 where that succeeds."""
    token = TOKEN.search(client.get("/admin?goto=%2Fdashboard").text)
    assert token
    return client.post("/admin?goto=%2Fdashboard", data={"admin_password": password, "csrf_token": token[1]})

"""Running the platform in a real browser: live steps, a migration of the fleet, the audit log, the palette."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn
from playwright.sync_api import Page, expect

import ground as g
from tenantry.config import load
from tenantry.web.site import site

if TYPE_CHECKING:
    from conftest import Windows

PASSWORD = "correct horse battery"
MAIL = "root@example.org"


@dataclass
class Portal:
    """A platform whose portal is served, with a worker."""

    ground: g.Ground
    address: str

    def tenantry(self, *arguments: str) -> str:
        """What a command prints."""
        command = self.ground.command(*arguments)
        text, _ = command.communicate(timeout=g.PATIENCE)
        assert command.returncode == 0, text
        return text

    def sign_in(self, page: Page) -> None:
        """Sign in by the form."""
        page.goto(f"{self.address}/")
        page.fill("[name=mail]", MAIL)
        page.fill("[name=password]", PASSWORD)
        page.click("main button")
        page.wait_for_url(f"{self.address}/")


@contextmanager
def served(ground: g.Ground, port: int) -> Iterator[None]:
    """The portal, served by a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(site(load(ground.config)), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """Four tenants that are one migration behind, a superadmin, a worker."""
    ground = g.Ground(tmp_path_factory.mktemp("portal") / "platform")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Portal(ground, f"http://localhost:{port}/admin")
    for slug in ("acme", "bistro", "initech", "umbrella"):
        made.tenantry("tenant", "create", slug)
    ground.migration("0002_body.sql", g.SECOND)
    ground.sql("bistro", "ALTER TABLE page ADD COLUMN body TEXT")
    link = json.loads(made.tenantry("admin", "invite", MAIL, "--superadmin", "--json"))["link"].rsplit("/", 1)[1]
    with ExitStack() as stack:
        stack.enter_context(served(ground, port))
        stack.enter_context(ground.worker())
        answer = httpx.post(f"{made.address}/link/{link}", data={"password": PASSWORD})
        assert answer.status_code == 303, answer.text
        yield made


def test_a_fleet_is_migrated_its_failure_mended_and_tried_again(portal: Portal, window: Windows) -> None:
    """The picture of versions, the start, live steps to the failure with its cause, and the rest after it is mended."""
    with window() as visit:
        page = visit.page
        portal.sign_in(page)
        page.get_by_role("link", name="Migrations").click()
        expect(page.locator("figure.chart")).to_contain_text("4 not at 0002_body")
        page.get_by_label("Waves").fill("50%, 20%")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("do not rise")
        visit.faults.clear()  # Chromium tells of every answer that is an error
        expect(page.get_by_label("Waves")).to_have_value("50%, 20%")
        page.get_by_label("Waves").fill("50%, 100%")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("status").first).to_contain_text("The migration is queued.")
        expect(page.locator(".badge").first).to_have_text("failed")
        expect(page.locator(".failures")).to_contain_text("duplicate column name")
        portal.ground.sql("bistro", "ALTER TABLE page DROP COLUMN body")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".badge").first).to_have_text("done")
        page.get_by_role("link", name="Migrations").click()
        expect(page.locator("figure.chart")).to_contain_text("all at 0002_body")


def test_steps_come_live_while_a_tenant_is_suspended(portal: Portal, window: Windows) -> None:
    """A page that waits for an operation shows its end by itself."""
    with window() as visit:
        portal.sign_in(visit.page)
        operation = json.loads(portal.tenantry("tenant", "suspend", "acme", "--no-wait", "--json"))["id"]
        visit.page.goto(f"{portal.address}/operations/{operation}")
        expect(visit.page.locator(".badge").first).to_have_text("done")
        visit.page.goto(f"{portal.address}/operations?tenant=acme&verb=suspend")
        expect(visit.page.locator("tbody tr")).to_have_count(1)


def test_the_audit_log_is_proved_and_exported(portal: Portal, window: Windows) -> None:
    """One button walks the chain; the file holds every entry."""
    with window() as visit:
        page = visit.page
        portal.sign_in(page)
        page.get_by_role("link", name="Audit").click()
        page.get_by_role("button", name="Verify the chain").click()
        expect(page.get_by_role("status")).to_contain_text("are as they were written")
        with page.expect_download() as download:
            page.get_by_role("link", name="JSON lines").click()
        lines = Path(download.value.path()).read_text().splitlines()
        assert [json.loads(line)["seq"] for line in lines] == list(range(len(lines), 0, -1))
        page.get_by_label("What was done").fill("admin.invite")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("tbody tr")).to_have_count(1)


def test_the_palette_leads_anywhere_by_keyboard(portal: Portal, window: Windows) -> None:
    """Ctrl-K opens it; arrows and Enter go; Escape gives the focus back."""
    with window() as visit:
        page = visit.page
        portal.sign_in(page)
        page.keyboard.press("Control+k")
        expect(page.locator("#palette .goals a").first).to_be_visible()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url("**/admin/organizations")
        page.keyboard.press("Control+k")
        page.keyboard.type("audit")
        page.keyboard.press("Enter")
        page.wait_for_url("**/admin/audit")
        page.keyboard.press("Control+k")
        page.keyboard.press("Escape")
        expect(page.locator("#palette")).not_to_be_visible()

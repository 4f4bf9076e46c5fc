"""The tab of tenants in a real browser, with a real worker: a tenant's whole life by clicking and typing."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import uvicorn
from playwright.sync_api import Page, expect

import ground as g
from portals import PASSWORD
from tenantry.config import load
from tenantry.web.site import site

if TYPE_CHECKING:
    from conftest import Visit

pytestmark = pytest.mark.browser


@dataclass
class Portal:
    """Where it is served, and whose."""

    ground: g.Ground
    port: int

    def run(self, *command: str) -> str:
        """What a command prints."""
        done = self.ground.command(*command)
        out, _ = done.communicate(timeout=g.PATIENCE)
        assert done.returncode == 0, out
        return out

    def url(self, path: str = "/") -> str:
        """A page's address."""
        return f"http://localhost:{self.port}/admin{path}"

    def enter(self, page: Page, mail: str, *options: str) -> None:
        """Invite somebody, who chooses a password and is in."""
        made = json.loads(self.run("admin", "invite", mail, *options, "--json"))
        page.goto(self.url(f"/link/{made['link'].rpartition('/')[2]}"))
        page.fill("[name=password]", PASSWORD)
        page.click("button.main")
        page.wait_for_url(self.url())


@contextmanager
def served(ground: g.Ground) -> Iterator[Portal]:
    """A platform's own pages at a port."""
    server = uvicorn.Server(uvicorn.Config(site(load(ground.config)), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield Portal(ground, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(g.PATIENCE)


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """A platform with the tenants acme and umbrella."""
    ground = g.Ground(tmp_path_factory.mktemp("portal") / "platform")
    (ground.root / "list.csv").write_text("slug,name\nacme,Acme & Söhne\numbrella,Umbrella\n")
    with served(ground) as found:
        found.run("tenant", "import", str(ground.root / "list.csv"))
        yield found


def test_a_tenant_is_made_opened_changed_and_removed(portal: Portal, visit: Visit) -> None:
    """The slug is checked as one types, the plan is shown before, the steps are seen as they go, the password once."""
    page = visit.page
    portal.enter(page, "root@example.org", "--superadmin")
    page.click("text=Create a tenant")
    for typed, told in (("Bistro", "capital letters"), ("acme", "is taken"), ("bistro", "is free")):
        page.fill("#slug", typed)
        expect(page.locator("#slug-told")).to_contain_text(told)
    page.fill("[name=name]", "Bistro Nord")
    page.fill('[name="value.share"]', "4")
    page.keyboard.press("Tab")
    expect(page.locator("#plan")).to_contain_text("bistro.localhost")
    page.wait_for_load_state("networkidle")  # or the browser complains that a plan is read by nobody
    page.click("text=Create it")
    expect(page.locator("main")).to_contain_text("No worker lives")
    with portal.ground.worker():
        expect(page.locator("h1")).to_have_text("Bistro Nord is ready", timeout=g.PATIENCE * 1000)
        expect(page.locator("ol.steps .mark.good")).to_have_count(5)
        expect(page.get_by_role("link", name="Open http")).to_have_attribute(
            "href", f"http://bistro.localhost:{portal.port}/"
        )
        page.click("text=Show the first password")
        password = page.locator("dd.once code").nth(1).inner_text()
        assert len(password) == 22
        visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy password").click()
        assert page.evaluate("navigator.clipboard.readText()") == password
        expect(page.locator("#connection .badge")).to_have_text("connected")
        page.goto(portal.url("/tenants/bistro"))
        assert password not in page.content()
        _changed(portal, page)
        _removed(portal, page)
    refused = [fault for fault in visit.faults if "409" in fault and "/delete" in fault]
    assert len(refused) == 1  # what a browser itself says of a form that was refused
    visit.faults.remove(refused[0])


def _changed(portal: Portal, page: Page) -> None:
    page.click("main >> text=Edit")
    page.fill("[name=name]", "Bistro Süd")
    page.click("text=Save")
    expect(page.locator("h1")).to_contain_text("Bistro Süd", timeout=g.PATIENCE * 1000)
    page.click("summary")
    page.fill("[name=reason]", "unpaid")
    page.click("text=Suspend bistro")
    expect(page.locator(".head .badge")).to_have_text("suspended", timeout=g.PATIENCE * 1000)
    expect(page.locator("dl.facts").first).to_contain_text("unpaid")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".head .badge")).to_have_text("active", timeout=g.PATIENCE * 1000)
    page.fill("[name=host]", "www.example.org")
    page.click("text=Add")
    expect(page.locator("[role=status]").first).to_contain_text("www.example.org leads to bistro")
    page.click("text=Remove www.example.org")
    expect(page.locator("[role=status]").first).to_contain_text("leads nowhere")


def _removed(portal: Portal, page: Page) -> None:
    page.click("main >> text=Delete")
    page.fill("#confirmed", "bistr")
    page.click("button.danger")
    expect(page.get_by_role("alert")).to_contain_text("was not confirmed")
    page.fill("#confirmed", "bistro")
    page.click("button.danger")
    page.wait_for_url("**/operations/**")
    expect(page.locator("main .badge").first).to_have_text("done", timeout=g.PATIENCE * 1000)
    page.goto(portal.url())
    expect(page.locator("tbody tr")).to_have_count(2)


def test_many_are_found_ticked_and_done_by_keyboard(portal: Portal, visit: Visit) -> None:
    """Searching as one types leaves those that fit; ticked ones are suspended and resumed, each with its answer."""
    page = visit.page
    portal.enter(page, "eva@example.org", "--superadmin")
    page.fill("main [name=search]", "umb")
    expect(page.locator("tbody tr")).to_have_count(1)
    assert page.url.endswith("search=umb&status=&plan=&sort=slug")
    page.fill("main [name=search]", "")
    expect(page.locator("tbody tr")).to_have_count(2)
    for action, status in (("suspend", "suspended"), ("resume", "active")):
        page.focus("[data-ticks]")
        page.keyboard.press("Space")
        expect(page.locator("tbody :checked")).to_have_count(2)
        page.select_option("[name=action]", action)
        page.focus("text=Do it")
        page.keyboard.press("Enter")
        expect(page.locator("[role=status]")).to_contain_text("2 of 2 taken")
        with portal.ground.worker():
            page.goto(portal.url(f"/?status={status}"))
            for _ in range(200):
                if page.locator("tbody tr").count() == 2:
                    break
                page.wait_for_timeout(50)
                page.reload()
            expect(page.locator("tbody tr")).to_have_count(2)
        page.goto(portal.url())
    with page.expect_download() as download:
        page.click("text=Export all as CSV")
    assert re.findall(r"^[a-z]+", download.value.path().read_text(), re.M) == ["slug", "acme", "umbrella"]

"""Agency in a real browser: tenants that share their tables, on the PostgreSQL that Tenantry brings."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect

from showcase import Example

if TYPE_CHECKING:
    from conftest import Visit, Windows

pytestmark = [pytest.mark.browser, pytest.mark.postgres]


@pytest.fixture(scope="module")
def agency(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """Agency with northlight, which has campaigns, and ember, which is new."""
    tenants = {"northlight": "Northlight Studio", "ember": "Ember & Oak"}
    root = tmp_path_factory.mktemp("agency")
    with Example.shown("agency", root, tenants, "agencies/northlight.toml") as found:
        yield found


def ids(client: httpx.Client, path: str, kind: str) -> list[str]:
    """The ids of a kind's things that a page links to."""
    return re.findall(rf'href="/t/\w+/{kind}/(\d+)"', client.get(path).text)


def harbour(client: httpx.Client) -> str:
    """The id of northlight's campaign Harbour lights."""
    return re.findall(r'campaigns/(\d+)"(?:(?!</a>)(?s:.))*<strong>Harbour lights<', client.get("/").text)[0]


def test_campaigns_are_seen_as_a_picture_and_tasks_as_a_board(agency: Example, visit: Visit) -> None:
    """A bar for each campaign, a dot for each task, what is late; a button puts a task into its next state."""
    agency.sign_in(visit, "northlight")
    page = visit.page
    expect(page.locator(".timeline .name")).to_have_text(["Quiet cars", "Harbour lights", "Oat & Salt", "Night school"])
    expect(page.locator(".timeline .dot")).to_have_count(19)
    expect(page.locator(".timeline .dot.late title")).to_have_text([re.compile("^Poster in three sizes, .* late$")])
    page.click("a.campaign >> text=Harbour lights")
    review, done = page.locator(".column.review .task"), page.locator(".column.done .task")
    expect(review.locator(".late")).to_contain_text("late")
    expect(done).to_have_count(3)
    review.get_by_label("On to: Done").click()
    expect(done).to_have_count(4)
    expect(done.filter(has_text="Poster in three sizes")).to_be_visible()
    done.filter(has_text="Poster in three sizes").get_by_label("Back to: In review").click()
    expect(review.locator("strong")).to_have_text("Poster in three sizes")
    page.locator(".column.planned .guide").click()
    expect(page.locator("h1")).to_have_text("Measuring a launch")


def test_an_agency_works_from_the_first_campaign_to_a_file(agency: Example, visit: Visit) -> None:
    """A new agency has its first steps; it begins a campaign, plans a task, writes a brief and uploads a file."""
    agency.sign_in(visit, "ember")
    page = visit.page
    expect(page.locator("a.campaign").filter(has_text="First steps").locator("text")).to_have_text("0/3")
    page.click("summary")
    page.fill("[name=name]", "Rain <b>& more</b>")
    page.fill("[name=ends]", page.input_value("[name=starts]"))
    page.click("text=Begin it")
    expect(page.locator("h1")).to_have_text("Rain <b>& more</b>")
    page.click("summary")
    page.fill("[name=title] >> nth=0", "Wait for rain")
    page.select_option("[name=guide]", label="Subject lines")
    page.click("text=Add it")
    expect(page.locator(".column.planned .task")).to_contain_text("Wait for rain")
    expect(page.locator(".task .guide")).to_have_text("Subject lines")
    page.fill("[placeholder='A new brief']", "Only water")
    page.click("text=Write it")
    page.fill("textarea", "First.\n\nSecond.")
    page.click("text=Save")
    expect(page.locator(".sheet > p:not(.back)")).to_have_text(["First.", "Second."])
    page.click("nav >> text=Files")
    for content in (b"one", b"the second"):
        file = {"name": "../../etc/plän <i>.html", "mimeType": "image/png", "buffer": content}
        page.set_input_files("[name=file]", [file])  # type: ignore[list-item]
        page.click("button >> text=Upload")
        expect(page.locator(".gallery b")).to_have_text(["plän <i>.html"])
        expect(page.locator(".gallery small")).to_contain_text(f"{len(content)} bytes")
    with agency.client("ember") as client:
        (asset,) = ids(client, "assets", "assets")
        answer = client.get(f"assets/{asset}")
    assert answer.content == b"the second"
    assert answer.headers["content-type"] == "application/octet-stream"  # by its bytes, whatever it says of itself
    assert answer.headers["content-disposition"].startswith("attachment;")


def test_campaigns_and_tasks_are_changed_and_deleted(agency: Example, visit: Visit) -> None:
    """A campaign and a task get other values; a deleted campaign takes tasks and briefs along and leaves its files."""
    agency.sign_in(visit, "ember")
    page = visit.page
    with agency.client("ember") as client:
        days = {"starts": "2026-01-01", "ends": "2026-02-01", "colour": "#112233"}
        made = client.post("campaigns", data={"name": "Fog", **days}).headers["location"]
        task = {"title": "Buy fog", "due": "2026-01-08", "guide": "subject-lines"}
        assert client.post(f"http://127.0.0.1:{agency.port}{made}/tasks", data=task).status_code == 303
        number = made.rpartition("/")[2]
        brief = client.post(f"campaigns/{number}/briefs", data={"title": "Grey"}).headers["location"].rpartition("/")[2]
        file = {"file": ("fog.txt", b"grey")}
        assert client.post("assets", data={"campaign": number}, files=file).status_code == 303
        page.goto(agency.url("ember", f"/campaigns/{number}"))
        page.click("summary >> text=Change this campaign")
        page.fill("details[open] [name=name]", "Mist")
        page.click("details[open] >> text=Save")
        expect(page.locator("h1")).to_have_text("Mist")
        page.click(".task >> text=Buy fog")
        expect(page.locator("[name=guide]")).to_have_value("subject-lines")
        page.fill("[name=title]", "Buy mist")
        page.fill("[name=who]", "Ada Ray")
        page.select_option("[name=guide]", label="–")
        page.click("text=Save")
        expect(page.locator(".column.planned .task strong")).to_have_text("Buy mist")
        expect(page.locator(".task .guide")).to_have_count(0)
        (task_id,) = ids(client, f"campaigns/{number}", "tasks")
        for path in (f"campaigns/{number}", f"tasks/{task_id}/change"):
            refused = client.post(path, data={"name": "x" * 81, "title": "x" * 121, "due": "2026-01-01", **days})
            assert (refused.status_code, "characters." in refused.text) == (422, True), path
        page.click(".task >> text=Buy mist")
        page.click("summary")
        page.click("text=Delete it")
        expect(page.locator(".task")).to_have_count(0)
        page.click("summary >> text=Delete this campaign")
        page.click("text=Delete it")
        expect(page.locator("h1")).to_contain_text("Campaigns")
        expect(page.locator(".cards")).not_to_contain_text("Mist")
        for path in (f"campaigns/{number}", f"tasks/{task_id}", f"briefs/{brief}"):
            assert client.get(path).status_code == 404
            assert client.post(f"{path}/delete").status_code in (404, 405)
        listed = client.get("assets").text
        assert "no campaign · 4 bytes" in listed[listed.index("fog.txt") :]


def test_two_agencies_in_the_same_tables_are_apart(agency: Example) -> None:
    """Ids of another agency lead nowhere, to read or to write; a session is good at one agency alone."""
    with agency.client("northlight") as mine, agency.client("ember") as other:
        campaign = harbour(mine)
        (brief, *_), (file, *_) = ids(mine, f"campaigns/{campaign}", "briefs"), ids(mine, "assets", "assets")
        before = mine.get(f"campaigns/{campaign}").text
        task = re.findall(r'id="task-(\d+)"', before)[0]
        for path in (f"campaigns/{campaign}", f"briefs/{brief}", f"assets/{file}", f"tasks/{task}"):
            assert (mine.get(path).status_code, other.get(path).status_code) == (200, 404), path
        day = {"title": "Planted", "due": "2026-11-21"}
        assert other.post(f"campaigns/{campaign}/tasks", data=day).status_code == 404
        assert other.post(f"campaigns/{campaign}/briefs", data=day).status_code == 404
        assert other.post(f"briefs/{brief}", data=day).status_code == 404
        assert other.post(f"tasks/{task}", data={"state": "done"}).status_code == 404
        assert other.post(f"tasks/{task}/change", data=day).status_code == 404
        renamed = {"name": "Planted", "colour": "#000000", "starts": "2026-01-01", "ends": "2026-02-01"}
        assert other.post(f"campaigns/{campaign}", data=renamed).status_code == 404
        for path in (f"tasks/{task}/delete", f"campaigns/{campaign}/delete"):
            assert other.post(path).status_code in (404, 413)
        assert mine.get(f"campaigns/{campaign}").text == before
        cookie = "; ".join(f"{each.name}={each.value}" for each in mine.cookies.jar)
    with agency.http("ember") as nobody:
        assert nobody.get("assets", headers={"cookie": cookie}).status_code == 401
        answer = nobody.get("assets", headers={"accept": "text/html"})
        assert answer.status_code == 303
        assert answer.headers["location"] == "/t/ember/.tenantry/sign-in?next=/t/ember/assets"


def test_the_library_is_the_same_for_all_and_read_only(agency: Example) -> None:
    """Both agencies read the platform's guides; the database lets neither change them."""
    with agency.client("northlight") as mine, agency.client("ember") as other:
        pages = [
            re.sub("northlight|ember", "", re.sub(r"(?s).*<main", "", c.get("library").text)) for c in (mine, other)
        ]
        assert pages[0] == pages[1]
        assert pages[0].count("guide-card") == 5
        assert mine.get("library/no-such-guide").status_code == 404
    refused = agency.run(sys.executable, "-c", WRITE)
    assert refused.split("\n")[:3] == ["InsufficientPrivilege"] * 3


WRITE = """
import asyncio, tenantry
from sqlalchemy import text

async def main():
    runtime = tenantry.connect("tenantry.toml")
    await runtime.start()
    with tenantry.tenant_context(runtime.environment("ember")):
        for statement in ("UPDATE platform_guides SET title = ''", "DELETE FROM platform_guides",
                          "INSERT INTO platform_guides VALUES (9, 'x', 'x', 'x', 1, 'x')"):
            async with tenantry.tenant_session() as session:
                try:
                    await session.execute(text(statement))
                    print("allowed")
                except Exception as error:
                    print(type(error.orig).__name__)
    await runtime.stop()

asyncio.run(main())
"""
"""Tries to write into the library as the application could."""


def test_what_is_not_right_is_refused_in_words(agency: Example) -> None:
    """Wrong days, names that are taken, files that are too large, strange ids and other sites' pages."""
    with agency.client("ember") as client:
        good = {"name": "Twice", "client": "", "colour": "#112233", "starts": "2026-01-01", "ends": "2026-02-01"}
        assert client.post("campaigns", data=good).status_code == 303
        for change, told in (
            ({}, "of this name already"),
            ({"name": "x" * 81}, "1 to 80 characters"),
            ({"name": "\0"}, "1 to 80 characters"),
            ({"name": "Other", "colour": "red"}, "written like #5b3fd6"),
            ({"name": "Other", "ends": "2025-12-31"}, "ends after it begins"),
            ({"name": "Other", "ends": "soon"}, "written like 2026-11-21"),
            ({"name": "Other", "ends": "9999-12-31"}, "between 2000 and 2199"),
        ):
            answer = client.post("campaigns", data=good | change)
            assert (answer.status_code, told in answer.text) == (422, True), (change, answer.text)
        campaign = ids(client, "/", "campaigns")[0]
        assert client.post(f"campaigns/{campaign}/tasks", data={"title": "", "due": "2026-01-01"}).status_code == 422
        for path in ("campaigns/0", "campaigns/9223372036854775808", "campaigns/1%27", "briefs/-1", "nowhere"):
            assert client.get(path).status_code == 404, path
        for path in ("tasks/9223372036854775808", f"assets/{'9' * 5000}", "library/a%00b%ff"):
            assert client.get(path).status_code == 404, path[:40]
        brief = (
            client.post(f"campaigns/{campaign}/briefs", data={"title": "a\0b"}).headers["location"].rpartition("/")[2]
        )
        assert "<h1>ab</h1>" in client.get(f"briefs/{brief}").text
        assert client.post(f"briefs/{brief}", data={"title": "ab", "body": "\0" + "ä" * 9000}).status_code == 303
        assert client.post(f"briefs/{brief}", data={"title": "ab", "body": "ä" * 90_000}).status_code == 413
        assert client.post("assets", files={"file": ("a.png", b"")}).status_code == 422
        assert client.post("assets", files={"file": ("a.png", bytes(5_000_001))}).status_code == 422
        assert client.post("assets", files={"file": ("a.png", bytes(6_000_000))}).status_code == 413
        assert client.post("assets", data={"file": "no file"}).status_code == 422
        forged = client.post("campaigns", data=good | {"name": "Forged"}, headers={"origin": "https://else.example"})
        assert forged.status_code == 403
        assert "Forged" not in client.get("/").text
    with agency.http("northlight") as nobody:
        assert nobody.post("assets", files={"file": ("a.png", b"x")}).status_code == 401


def test_people_are_kept_by_tenantrys_own_pages(agency: Example, visit: Visit) -> None:
    """An admin comes from the header to one's own account and to the people, invites one, and signs out."""
    agency.sign_in(visit, "northlight")
    page = visit.page
    page.click("header >> text=People")
    page.click("text=Invite somebody")
    page.fill("[name=login]", "eva@example.org")
    page.click("button.main >> text=Invite")
    expect(page.locator("main")).to_contain_text("/.tenantry/link/")
    page.goto(agency.url("northlight", "/"))
    page.click("header .me a >> nth=1")
    page.click("text=Sign out >> nth=0")
    expect(page.locator("main")).to_contain_text("You are signed out.")
    page.goto(agency.url("northlight", "/assets"))
    page.wait_for_url(re.compile(r"/t/northlight/\.tenantry/sign-in\?next="))


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_is_wider_than_its_window(agency: Example, window: Windows, width: int) -> None:
    """On a wide screen and on a telephone only the drawing of the campaigns moves sideways."""
    with window(viewport={"width": width, "height": 844}) as visit:
        agency.sign_in(visit, "northlight")
        with agency.client("northlight") as client:
            campaign = harbour(client)
            brief = ids(client, f"campaigns/{campaign}", "briefs")[0]
            task = ids(client, f"campaigns/{campaign}", "tasks")[0]
        inside = (f"campaigns/{campaign}", f"tasks/{task}", f"briefs/{brief}", "assets", "library/subject-lines")
        for path in ("", *inside, "library"):
            agency.look(visit, agency.url("northlight", f"/{path}"))
        agency.look(visit, f"http://localhost:{agency.port}/")
        expect(visit.page.locator(".tiles a")).to_have_count(2)

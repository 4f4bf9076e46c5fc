"""Planner in a real browser, served by the real `tenantry serve` on the PostgreSQL that Tenantry brings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import expect

from showcase import Example

if TYPE_CHECKING:
    from conftest import Visit, Windows

pytestmark = [pytest.mark.browser, pytest.mark.postgres]

YEAR = date.today().isocalendar().year


class Planner(Example):
    """Planner and its API."""

    def nobody(self, slug: str) -> httpx.Client:
        """A client of the API that is not signed in."""
        return self.http(slug, "/api/")

    @contextmanager
    def client(self, slug: str, path: str = "/api/") -> Iterator[httpx.Client]:
        """A client of the API with a token of its first admin's."""
        login, password = self.admins[slug]
        form = {"grant_type": "password", "username": login, "password": password}
        with self.http(slug, "/.tenantry/") as entrance, self.http(slug, path) as client:
            answer = entrance.post("token", data=form)
            client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
            yield client


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planner]:
    """Planner with the laboratories limmat, whose year is filled, and odra, which is empty."""
    tenants = {"limmat": "Limmat Imaging", "odra": "Odra Sequencing"}
    with Planner.shown("planner", tmp_path_factory.mktemp("planner"), tenants, "labs/limmat.toml") as found:
        yield found


def values_of(client: httpx.Client, kind: str) -> dict[str, int]:
    """The ids of a kind's things by their names."""
    return {row["name"]: row["id"] for row in client.get(kind).json()}


def test_a_year_is_seen_as_a_picture(planner: Planner, visit: Visit) -> None:
    """People and equipment stand in rows by site; bookings, vacations, too full weeks and today are in them."""
    planner.sign_in(visit, "limmat")
    names, weeks = visit.page.locator(".plan-names"), visit.page.locator(".plan-weeks")
    for name in ("Hönggerberg", "Chloé Favre", "Deniz Yıldız", "Elena Șerban", "Titan Krios", "Irchel"):
        expect(names.get_by_text(name, exact=True)).to_have_count(1)
    with planner.client("limmat") as client:
        bookings = client.get("bookings").json()
    assert len(bookings) > 30
    expect(weeks.locator("a.bar")).to_have_count(len(bookings))
    expect(weeks.locator(".away").first).to_be_attached()
    expect(weeks.locator(".full").first).to_be_attached()
    expect(weeks.locator("#today title")).to_have_text(re.compile("^Today, "))
    expect(visit.page.locator(".warn li").first).to_contain_text("booked")
    expect(visit.page.locator(".as-table tbody tr")).to_have_count(len(bookings))
    visit.page.click("text=Irchel >> nth=0")
    expect(names.get_by_text("Titan Krios", exact=True)).to_have_count(0)
    expect(names.get_by_text("Håkon Lie", exact=True)).to_have_count(1)


def test_a_booking_is_made_changed_and_removed_by_a_form(planner: Planner, visit: Visit) -> None:
    """An empty laboratory is filled by forms; what was written is seen in the plan, with its history."""
    planner.sign_in(visit, "odra")
    page = visit.page
    expect(page.locator(".empty")).to_be_visible()
    page.goto(planner.url("odra", "/staff/new"))
    page.fill("#field-name", "Łukasz <b>Wójcik</b>")
    page.select_option("#field-site_id", label="Main building")
    page.click("button >> text=Save")
    page.goto(planner.url("odra", "/projects/new"))
    page.fill("#field-name", "River & sea")
    page.fill("#field-starts", f"{YEAR}-02-01")
    page.fill("#field-ends", f"{YEAR}-11-30")
    page.click("button >> text=Save")
    page.goto(planner.url("odra", "/bookings/new"))
    page.select_option("#field-project_id", label="River & sea")
    page.select_option("#field-staff_id", label="Łukasz <b>Wójcik</b>")
    page.fill("#field-starts", f"{YEAR}-03-02")
    page.fill("#field-ends", f"{YEAR}-04-30")
    page.fill("#field-percent", "60")
    page.click("button >> text=Save")
    bar = page.locator("a.bar")
    expect(bar).to_have_attribute("aria-label", "River & sea: Łukasz <b>Wójcik</b>, 2 Mar to 30 Apr, 60 %")
    bar.focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Edit booking")
    expect(page.locator(".history li")).to_contain_text("entered by admin@odra.localhost")
    page.fill("#field-percent", "40")
    page.click("button >> text=Save")
    expect(bar).to_have_attribute("aria-label", re.compile("40 %$"))
    bar.click()
    page.click("button >> text=Remove")
    expect(page.locator("h1 >> text=2")).to_be_visible()
    expect(bar).to_have_count(0)


def test_more_than_a_day_holds_is_refused_in_words(planner: Planner, window: Windows) -> None:
    """A person over 100 per cent, equipment twice at once, a phase of another project: the database refuses each."""
    with planner.client("limmat") as client:
        staff, projects = values_of(client, "staff"), values_of(client, "projects")
        equipment, phases = values_of(client, "equipment"), values_of(client, "phases")
        days = {"starts": f"{YEAR}-06-15", "ends": f"{YEAR}-06-19"}
        base: dict[str, Any] = {"project_id": projects["Teaching"], **days}
        refused = [
            ({"staff_id": staff["Giulia Bernasconi"], "percent": 50}, "with this booking it is 110 percent"),
            ({"equipment_id": equipment["Titan Krios"]}, "booked for another project"),
            ({"staff_id": staff["Ada Brunner"], "equipment_id": equipment["Plunge freezer"], "percent": 5}, "not both"),
            ({}, "not both"),
            (
                {"staff_id": staff["Ada Brunner"], "percent": 5, "phase_id": phases["Pilot"]},
                "belongs to another project",
            ),
            ({"staff_id": 9999, "percent": 5}, "not there any more"),
        ]
        for values, told in refused:
            answer = client.post("bookings", json=base | values)
            assert (answer.status_code, told in answer.json()["error"]) == (409, True), answer.text
        for wrong in ({"percent": 101}, {"starts": "soon"}, {"colour": "red"}, {"staff_id": "1; DROP TABLE staff"}):
            answer = client.post("bookings", json=base | wrong)
            assert (answer.status_code, list(answer.json()["fields"])) == (422, list(wrong)), answer.text
        before = client.get("bookings").json()
    with window() as visit:
        planner.sign_in(visit, "limmat")
        visit.page.goto(planner.url("limmat", f"/bookings/new?staff_id={staff['Giulia Bernasconi']}"))
        visit.page.select_option("#field-project_id", label="Teaching")
        visit.page.fill("#field-starts", days["starts"])
        visit.page.fill("#field-ends", days["ends"])
        with visit.page.expect_response(lambda answer: answer.request.method == "POST") as answered:
            visit.page.click("button >> text=Save")
        assert answered.value.status == 422
        fault = "Giulia Bernasconi is booked 60 percent on .* with this booking it is 160 percent."
        expect(visit.page.locator(".fault")).to_have_text(re.compile(fault))
        expect(visit.page.locator("#field-starts")).to_have_value(days["starts"])
        visit.faults.clear()  # Chromium tells every answer of 422
    with planner.client("limmat") as client:
        assert client.get("bookings").json() == before


def test_what_no_column_holds_is_answered(planner: Planner) -> None:
    """Ids and years beyond what there can be lead nowhere; text that cannot be stored is stored without that part."""
    with planner.client("limmat") as client, planner.client("limmat", "/") as pages:
        assert pages.get("staff").status_code == pages.get("", params={"year": YEAR}).status_code == 200
        for number in ("2147483648", "9" * 19, "9" * 5000, "٣", "-1"):
            assert client.get(f"staff/{number}").status_code == 404, number[:20]
            assert pages.get(f"staff/{number}").status_code == 404, number[:20]
            assert client.patch(f"staff/{number}", json={"name": "x"}).status_code == 404
        for year in ("²", "٢٠٢٦", "20260", "9" * 5000, "2199"):
            assert pages.get("", params={"year": year}).status_code == 404, year[:20]
        site = next(iter(values_of(client, "sites").values()))
        assert client.post("staff", json={"name": "x", "site_id": 999_999_999}).status_code == 409
        for number in (2**31, "9" * 5000):
            assert client.post("staff", json={"name": "x", "site_id": number}).status_code == 422
        made = client.post("staff", content=rf'{{"name": "a\u0000\ud800b", "site_id": {site}}}', headers=JSON)
        assert (made.status_code, made.json()["name"]) == (201, "a?b"), made.text
        assert client.delete(f"staff/{made.json()['id']}").status_code == 204
        assert client.post("staff", json={"name": "x" * 121, "site_id": site}).status_code == 422


JSON = {"content-type": "application/json"}


def test_two_bookings_at_once_cannot_both_fit(planner: Planner) -> None:
    """The database judges one after the other: of eight bookings of 60 per cent at the same time one is made."""
    from concurrent.futures import ThreadPoolExecutor

    with planner.client("limmat") as client:
        site = values_of(client, "sites")["Irchel"]
        person = client.post("staff", json={"name": "Jonas Aebi", "site_id": site}).json()["id"]
        values = {"project_id": 1, "staff_id": person, "starts": "2031-01-06", "ends": "2031-01-10", "percent": 60}

        def book(_: int) -> int:
            return client.post("bookings", json=values).status_code

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(book, range(8))) == [201] + [409] * 7
        assert client.delete(f"staff/{person}").status_code == 204


def test_a_session_and_a_token_are_good_at_one_laboratory_alone(planner: Planner, visit: Visit) -> None:
    """Whoever signed in at one is nobody at the next, and a page of another site cannot write here."""
    planner.sign_in(visit, "limmat")
    cookie = "; ".join(f"{each['name']}={each['value']}" for each in visit.context.cookies())
    with planner.client("limmat") as client, planner.nobody("limmat") as browser, planner.nobody("odra") as other:
        assert browser.get("bookings", headers={"cookie": cookie}).status_code == 200
        for proof in ({"cookie": cookie}, {"authorization": client.headers["authorization"]}, {}):
            refused = other.get("bookings", headers=proof)
            assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json"), proof
        values = {"name": "Forged"}
        forged = browser.post("skills", json=values, headers={"origin": "https://elsewhere.example", "cookie": cookie})
        assert forged.status_code == 403
        plain = {"content-type": "text/plain", "cookie": cookie}
        assert browser.post("skills", content=b'{"name": "x"}', headers=plain).status_code == 415
        assert "Forged" not in values_of(client, "skills")
    visit.page.goto(planner.url("odra"))
    visit.page.wait_for_url(planner.url("odra", "/.tenantry/sign-in?next=/t/odra/"))


def test_people_are_kept_by_tenantrys_own_pages(planner: Planner, visit: Visit) -> None:
    """Signed in, one is led on; an admin comes from the header to the users, invites a reader, and signs out."""
    page = visit.page
    page.goto(planner.url("odra", "/staff"))
    login, password = planner.admins["odra"]
    page.fill("[name=login]", login)
    page.fill("[name=password]", password)
    page.click("main button >> nth=0")
    page.wait_for_url(planner.url("odra", "/staff"))
    page.click("header >> text=Users")
    page.click("text=Invite somebody")
    page.fill("[name=login]", "reader@odra.example")
    page.click("button.main >> text=Invite")
    expect(page.locator("main")).to_contain_text("/.tenantry/link/")
    link = re.search(r"http://odra\.localhost:\d+(/\.tenantry/link/[\w-]+)", page.inner_text("main"))
    assert link is not None
    page.goto(planner.url("odra"))
    page.click(f"header >> text={login}")
    page.click("text=Sign out >> nth=0")
    expect(page.locator("main")).to_contain_text("You are signed out.")
    page.goto(planner.url("odra", link[1]))
    for field in page.locator("[type=password]").all():
        field.fill("a reader reads well")
    page.click("main button >> nth=0")
    page.wait_for_url(planner.url("odra"))
    expect(page.locator("header")).not_to_contain_text("Users")
    with page.expect_response(lambda answer: answer.url.endswith("/staff/new")) as answered:
        page.goto(planner.url("odra", "/staff/new"))
    assert answered.value.status == 403
    visit.faults.clear()  # Chromium tells every answer of 403


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_is_wider_than_its_window(planner: Planner, window: Windows, width: int, scheme: str) -> None:
    """On a wide screen and on a telephone only the weeks move sideways, in light and in dark."""
    with window(viewport={"width": width, "height": 844}, color_scheme=scheme) as visit:
        planner.sign_in(visit, "limmat")
        for path in ("/", "/bookings", "/bookings/1", "/staff", "/settings", "/projects/new"):
            planner.look(visit, planner.url("limmat", path))

"""All that the portal does, done in a real browser by a superadmin and by an admin, on a desk and on a telephone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyotp
import pytest
from playwright.sync_api import Browser, Page, expect

import ground as g
from looking import unfit
from people_world import Inbox, inbox, text_of
from servers import Postgres
from showroom import ANA, PASSWORD, ROOT, Showroom, showroom

if TYPE_CHECKING:
    from conftest import Visit, Windows

pytestmark = pytest.mark.browser

WAYS: list[Any] = [pytest.param(1280, "light", id="desk"), pytest.param(390, "dark", id="telephone")]

SOON = g.PATIENCE * 1000

AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inbox]:
    """A real mail server."""
    with inbox(tmp_path_factory.mktemp("mail")) as found:
        yield found


@pytest.fixture(scope="module")
def room(
    postgres: Postgres, mails: Inbox, tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> Iterator[Showroom]:
    """A platform with something of everything, a worker and mail."""
    with showroom(tmp_path_factory.mktemp("run"), postgres.administrator(), mails, odd=False) as found:
        yield found


@dataclass
class Person:
    """Somebody before a window."""

    room: Showroom
    visit: Visit

    @property
    def page(self) -> Page:
        """What is seen."""
        return self.visit.page

    def go(self, part: str) -> None:
        """To a part of the portal, by its tab: in the menu, where there is no room for a column."""
        menu = self.page.get_by_role("button", name="Menu")
        if menu.is_visible():
            menu.click()
        self.page.get_by_role("navigation", name="Parts of the portal").get_by_role(
            "link", name=part, exact=True
        ).click()

    def press(self, name: str) -> None:
        """A button, by what stands on it."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def fill(self, label: str, text: str) -> None:
        """A field, by what its label begins with."""
        self.page.locator("main").get_by_label(re.compile(rf"^\s*{label}\b")).first.fill(text)

    def told(self, text: str) -> None:
        """A note says this; the page that says it is fit for everybody."""
        expect(self.page.locator(".note").filter(has_text=text).first).to_be_visible(timeout=SOON)
        assert unfit(self.page) == []

    def over(self, state: str = "done") -> None:
        """An operation's page shows its end by itself."""
        expect(self.page.locator("main .badge").first).to_have_text(state, timeout=SOON)
        assert unfit(self.page) == []

    @contextmanager
    def refused(self, status: int) -> Iterator[None]:
        """What is done within is refused, of which a browser itself complains, too."""
        before = len(self.visit.faults)
        yield
        assert [str(status) in fault for fault in self.visit.faults[before:]] == [True]
        del self.visit.faults[before:]


@pytest.fixture
def person(room: Showroom, window: Windows, width: int, scheme: str) -> Iterator[Person]:
    """A window of this width, light or dark."""
    with window(viewport={"width": width, "height": 900}, color_scheme=scheme) as visit:
        yield Person(room, visit)


@pytest.mark.parametrize(("width", "scheme"), WAYS)
def test_a_tenants_whole_life(person: Person, room: Showroom, width: int) -> None:
    """Made with live steps, its password shown once, changed, suspended, resumed, renamed, deleted by its name."""
    page, slug = person.page, f"life{width}"
    room.sign_in(page, ROOT)
    page.get_by_role("link", name="Create a tenant").click()
    person.fill("Slug", "acme")
    expect(page.locator("#slug-told")).to_contain_text("is taken")
    person.fill("Slug", "")
    page.keyboard.type(slug)
    expect(page.locator("#slug-told")).to_contain_text("is free")
    expect(page.locator("#plan")).to_contain_text(f"{slug}.localhost")
    page.wait_for_load_state("networkidle")
    person.press("Create it")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{slug} is ready", timeout=SOON)
    person.press("Show the first password")
    person.told("It is shown only now")
    person.visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    person.press("Copy password")
    expect(page.get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("dd.once code").nth(1).inner_text()
    expect(page.locator("#connection .badge")).to_have_text("connected", timeout=SOON)

    page.get_by_role("link", name="Edit", exact=True).click()
    person.fill("Name", "Life & Sons")
    page.get_by_label("Plan").select_option("pro")
    person.fill("Share", "4")
    person.press("Save")
    expect(page.get_by_role("heading", level=1)).to_have_text("Life & Sons", timeout=SOON)
    page.locator("summary", has_text="Suspend…").click()
    person.fill("Reason", "a trial")
    person.press(f"Suspend {slug}")
    expect(page.locator(".head .badge")).to_have_text("suspended", timeout=SOON)
    person.press("Resume")
    expect(page.locator(".head .badge")).to_have_text("active", timeout=SOON)
    person.fill("One more name", f"www.{slug}.example")
    person.press("Add")
    person.told("Let its DNS point")
    page.get_by_role("link", name="Edit", exact=True).click()
    page.get_by_label("New slug").fill(f"{slug}b")
    person.press("Rename")
    page.get_by_role("link", name="Its page").click(timeout=SOON)

    page.get_by_role("link", name="Delete", exact=True).click()
    person.fill("Type", "something")
    with person.refused(409):
        person.press(f"Delete {slug}b")
        person.told("was not confirmed")
    person.fill("Type", f"{slug}b")
    person.press(f"Delete {slug}b")
    person.over()


@pytest.mark.parametrize(("width", "scheme"), WAYS)
def test_many_tenants(person: Person, room: Showroom, width: int) -> None:
    """A list comes in, is found, filtered and sorted, goes to an organization, and goes out."""
    page, names = person.page, [f"many{width}{letter}" for letter in "abc"]
    room.sign_in(page, ROOT)
    page.get_by_role("link", name="Import a list").click()
    page.get_by_label("Or its text").fill("slug,name\n" + "".join(f"{name},Of many\n" for name in names) + "No!,Bad\n")
    page.get_by_label("Blueprint").select_option("site")
    person.press("Import")
    person.over("failed")
    expect(page.get_by_text("is no slug")).to_be_visible()
    person.go("Tenants")
    search = page.locator("main").get_by_role("searchbox")
    search.press_sequentially(f"many{width}")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_label("Plan").select_option("pro")
    expect(page.get_by_text("No tenant is like that")).to_be_visible()
    page.get_by_label("Plan").select_option("")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.goto(room.url(f"/?search=many{width}&sort=-slug"))
    assert page.locator("tbody td.lead").all_inner_texts() == names[::-1]
    for name in names[:2]:
        page.get_by_label(f"Tick {name}").check()
    expect(page.get_by_text("2 ticked")).to_be_visible()
    page.locator("[name=action]").select_option("assign")
    page.locator("[name=organization]").select_option(label="Bakeries of the Coast")
    person.press("Do it")
    person.told("2 of 2 taken")
    page.goto(room.url(f"/?search=many{width}"))
    with page.expect_download() as download:
        page.get_by_role("link", name="Export these as CSV").click()
    assert re.findall(r"^many\w+", Path(download.value.path()).read_text(), re.M) == names


@pytest.mark.parametrize(("width", "scheme"), WAYS)
def test_people_and_organizations(person: Person, room: Showroom, mails: Inbox, width: int) -> None:
    """An organization gets tenants and goes without them; somebody is invited by mail, assigned, kept out, removed."""
    page, mail = person.page, f"mia{width}@example.org"
    room.sign_in(page, ROOT)
    person.go("Organizations")
    page.locator("summary").click()
    person.fill("Name", f"Group {width}")
    person.fill("Administrator's mail address", "ceo@example.org")
    person.press("Create")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Group {width}")
    page.locator("main").get_by_role("searchbox").press_sequentially("blumen")
    page.get_by_role("checkbox", name="blumen").check()
    person.press("Assign")
    person.told("which has 1")
    person.fill("Type", f"Group {width}")
    person.press("Delete the organization")
    person.told("stay")

    person.go("Admin users")
    page.locator("summary").click()
    person.fill("Mail address", mail)
    person.press("Invite")
    expect(page.get_by_text("shown this once")).to_be_visible()
    assert unfit(page) == []
    page.get_by_role("link", name="Go on").click()
    page.locator("main").get_by_role("searchbox").press_sequentially("dolphin")
    page.get_by_role("checkbox", name="dolphin").check()
    person.press("Assign")
    person.told("1 in all")
    person.press("Disable")
    person.told("is kept out")
    person.press("Enable")
    person.told("is let in")
    person.fill("Type", mail)
    person.press("Remove")
    person.told("is removed")
    assert any(mail in str(one["to"]) for one in mails.mails)


@pytest.mark.parametrize(("width", "scheme"), WAYS)
def test_running_the_platform(person: Person, room: Showroom) -> None:
    """Migrations planned, rehearsed, run and tried again; servers drained; the log proved; isolation verified."""
    page = person.page
    room.sign_in(page, ROOT)
    person.go("Migrations")
    person.press("Show the plan")
    expect(page.get_by_text("Nothing was changed")).to_be_visible()
    assert unfit(page) == []
    person.go("Migrations")
    page.locator("summary", has_text="More").click()
    person.fill("Tenants", "bistro dolphin")
    person.press("Rehearse on copies")
    person.over("failed")
    person.go("Migrations")
    page.locator("summary", has_text="More").click()
    person.fill("Tenants", "bistro blumen falafel")
    person.fill("Canaries", "0")
    person.fill("Waves", "50%, 100%")
    person.press("Start")
    person.over("failed")
    person.press("Try again")
    person.over("failed")

    person.go("Servers")
    page.get_by_role("link", name="north").click()
    page.get_by_role("link", name="Check", exact=True).click()
    expect(page.get_by_text("What the check found")).to_be_visible(timeout=SOON)
    person.press("Drain")
    person.told("No more tenants are placed")
    person.press("Open")
    person.told("New tenants are placed")
    person.go("Verify")
    person.fill("Tenants", "acme elbe")
    person.press("Verify now")
    person.over()
    page.get_by_role("link", name="What it found").click()
    expect(page.get_by_text("No attack got through")).to_be_visible()
    person.go("Audit")
    person.press("Verify the chain")
    person.told("are as they were written")
    page.get_by_label("What was done").fill("server.drain")
    person.press("Show")
    expect(page.locator("tbody tr").first).to_contain_text("north")
    person.go("Statistics")
    page.get_by_role("link", name="90 days").click()
    page.locator("summary").first.click()
    expect(page.get_by_role("region", name="Tenants by day").locator("tbody tr")).to_have_count(90)
    person.go("Settings")
    page.get_by_label("Part of a setting's name").fill("mail.")
    expect(page.locator("main code").first).to_contain_text("mail.")
    person.go("Operations")
    page.get_by_label("What is done").select_option("verify")
    expect(page.locator("tbody tr").first).to_contain_text("done")
    assert unfit(page) == []


@pytest.mark.parametrize(("width", "scheme"), WAYS)
def test_a_migration_rests_goes_on_and_ends(person: Person, room: Showroom, width: int) -> None:
    """A run of one tenant an hour is paused, goes on, and is cancelled; the page follows, and the second one stays."""
    page, slugs = person.page, "cartographer dolphin" if width > 400 else "gallery initech"
    room.sign_in(page, ROOT)
    person.go("Migrations")
    page.locator("summary", has_text="More").click()
    person.fill("Tenants", slugs)
    person.fill("Canaries", "0")
    person.fill("Rate", "1/h")
    person.press("Start")
    state, done = page.locator("main .badge").first, page.get_by_text("1 of 2 done")
    expect(done).to_be_visible(timeout=SOON)
    person.press("Pause")
    person.told("It rests after the batches under way")
    expect(state).to_have_text("paused", timeout=SOON)
    person.press("Go on")
    person.told("what is done is not repeated")
    expect(state).to_have_text("running", timeout=SOON)
    person.press("Cancel")
    person.over("cancelled")
    person.go("Operations")
    page.get_by_label("What is done").select_option("migrate")
    expect(page.locator("tbody tr").first).to_contain_text("cancelled")


@pytest.mark.parametrize(("width", "scheme"), WAYS)
def test_an_admin_and_her_tenants(person: Person, room: Showroom) -> None:
    """She sees and manages what is assigned to her, her own account, and nothing else."""
    page = person.page
    room.sign_in(page, ANA)
    expect(page.locator("tbody td.lead")).to_have_text(["acme", "bistro", "initech"])
    expect(page.get_by_role("link", name="Create a tenant")).to_have_count(0)
    page.get_by_role("link", name="acme").click()
    page.locator("summary", has_text="Suspend…").click()
    person.fill("Reason", "a pause")
    person.press("Suspend acme")
    expect(page.locator(".head .badge")).to_have_text("suspended", timeout=SOON)
    person.press("Resume")
    expect(page.locator(".head .badge")).to_have_text("active", timeout=SOON)
    for path, status in (("/tenants/elbe", 404), ("/servers", 403)):
        with person.refused(status):
            page.goto(room.url(path))
        person.told("elbe" if status == 404 else "superadmin")
    person.go("Operations")
    expect(page.locator("tbody tr").first).to_contain_text("acme")
    assert {"elbe", "dolphin"} & set(" ".join(page.locator("tbody").all_inner_texts()).split()) == set()
    person.go("Audit")
    expect(page.locator("tbody tr").first).to_contain_text("acme")
    with page.expect_download():
        page.get_by_role("link", name="CSV").click()


@pytest.mark.parametrize(("width", "scheme"), WAYS)
def test_ones_own_account(person: Person, room: Showroom, mails: Inbox, width: int) -> None:
    """A second factor and its recovery codes, a token, sessions, and a new password by mail."""
    page, mail = person.page, f"own{width}@example.org"
    _invited(person, mails, mail)
    page.goto(room.url("/me"))
    page.get_by_role("link", name="Turn it on").click()
    key = page.locator("code.key").inner_text().replace(" ", "")
    page.get_by_label("Code").fill(pyotp.TOTP(key).now())
    person.press("Turn it on")
    codes = page.locator("ul.codes code").all_inner_texts()
    assert unfit(page) == []
    page.get_by_role("link", name="I have them").click()
    page.locator("summary", has_text="Create a token").click()
    page.locator("details").get_by_label("Name").fill("robot")
    page.get_by_role("checkbox", name="tenants:read").check()
    person.press("Create")
    expect(page.get_by_text("shown this once")).to_be_visible()
    assert unfit(page) == []
    page.get_by_role("link", name="I have it").click()
    person.press("Revoke the token robot")
    person.told("opens nothing any more")
    page.goto(room.url("/me"))
    _sign_out(person)
    page.get_by_role("link", name="Password forgotten?").click()
    page.get_by_label("Mail address").fill(mail)
    before = len(mails.mails)
    person.press("Send the link")
    person.told("a mail with a link is on its way")
    with mails.came:
        assert mails.came.wait_for(lambda: any(mail in str(one["to"]) for one in mails.mails[before:]), g.PATIENCE)
    _choose(person, mails, mail)
    page.get_by_label("Mail address").fill(mail)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    with person.refused(401):
        person.press("Sign in")
        expect(page.get_by_label("Code of the second factor")).to_be_visible()
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Code of the second factor").fill(codes[0])
    person.press("Sign in")
    expect(page.get_by_role("heading", level=1)).to_have_text("Tenants")


@pytest.mark.parametrize(("width", "scheme"), WAYS)
def test_a_passkey_and_a_password_that_a_superadmin_resets(
    person: Person, room: Showroom, mails: Inbox, width: int
) -> None:
    """Somebody adds a passkey, proves by it who she is in an old session, signs in by it; a superadmin resets her."""
    page, mail = person.page, f"key{width}@example.org"
    _invited(person, mails, mail)
    with authenticator(page):
        page.goto(room.url("/me"))
        person.fill("Name of a new one", "my telephone")
        person.press("Add a passkey")
        person.told("my telephone")
        room.ground.control("UPDATE admin_session SET proved = datetime('now', '-1 hour')")
        page.goto(room.url("/me"))
        expect(page.get_by_role("heading", name="Is it you?")).to_be_visible()
        expect(page.get_by_role("button", name="Add a passkey")).to_have_count(0)
        assert unfit(page) == []
        person.press("Use a passkey")
        person.told("For ten minutes")
        expect(page.get_by_role("button", name="Add a passkey")).to_be_visible()
        _sign_out(person)
        person.press("Sign in with a passkey")
        expect(page.get_by_role("heading", level=1)).to_have_text("Tenants")
    _sign_out(person)

    room.sign_in(page, ROOT)
    person.go("Admin users")
    page.get_by_role("link", name=mail).click()
    person.press("Link to a new password")
    expect(page.get_by_text("shown this once")).to_be_visible()
    link = page.locator("code", has_text="/admin/link/").inner_text()
    assert unfit(page) == []
    page.get_by_role("link", name="Go on").click()
    _sign_out(person)
    page.goto(link)
    page.get_by_label("Password").fill("another horse battery")
    person.press("Go on")
    page.goto(room.url("/sign-in"))
    page.get_by_label("Mail address").fill(mail)
    page.get_by_label("Password", exact=True).fill("another horse battery")
    person.press("Sign in")
    expect(page.get_by_role("heading", level=1)).to_have_text("Tenants")


@contextmanager
def authenticator(page: Page) -> Iterator[None]:
    """A device that keeps passkeys, and knows its owner's finger."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    made = session.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    yield
    session.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": made["authenticatorId"]})


def _invited(person: Person, mails: Inbox, mail: str) -> None:
    """Somebody is invited by mail, and chooses a password."""
    before = len(mails.mails)
    with person.room.ground.command("admin", "invite", mail, "--json") as command:
        assert command.wait(g.PATIENCE) == 0
    with mails.came:
        assert mails.came.wait_for(lambda: any(mail in str(one["to"]) for one in mails.mails[before:]), g.PATIENCE)
    _choose(person, mails, mail)


def _choose(person: Person, mails: Inbox, mail: str) -> None:
    """Follow the newest mail's link, and choose a password."""
    newest = [one for one in mails.mails if mail in str(one["to"])][-1]
    found = re.search(r"http://\S+/admin/link/\S+", text_of(newest))
    assert found
    person.page.goto(found[0])
    assert unfit(person.page) == []
    person.page.get_by_label("Password").fill(PASSWORD)
    person.press("Go on")


def _sign_out(person: Person) -> None:
    menu = person.page.get_by_role("button", name="Menu")
    if menu.is_visible():
        menu.click()
    person.press("Sign out")


NAMED = """() => {
  const at = document.activeElement;
  return at.getAttribute('aria-label') || at.labels?.[0]?.innerText || at.innerText || '';
}"""


def _to(page: Page, name: str, key: str = "Tab") -> None:
    """Press Tab until what has the focus is called so."""
    for _ in range(120):
        page.keyboard.press(key)
        if page.evaluate(NAMED).startswith(name):
            return
    pytest.fail(f"{key} never leads to '{name}'.")


def test_keys_alone_are_enough(room: Showroom, visit: Visit) -> None:
    """Somebody signs in, makes, changes, suspends and deletes a tenant, and ticks two others, without a mouse."""
    page, keys = visit.page, visit.page.keyboard
    page.goto(room.url("/sign-in"))
    keys.type(ROOT)
    keys.press("Tab")
    keys.type(PASSWORD)
    keys.press("Enter")
    page.wait_for_url(room.url())
    _palette(page, "create a tenant", "**/tenants/new")
    keys.type("keys")
    expect(page.locator("#plan")).to_contain_text("keys.localhost")
    page.wait_for_load_state("networkidle")
    _to(page, "Create it")
    keys.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("keys is ready", timeout=SOON)
    _to(page, "Its page")
    keys.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("keys")
    _to(page, "Edit")
    keys.press("Enter")
    page.wait_for_url("**/edit")
    _to(page, "Name")
    keys.press("Control+a")
    keys.type("By keys")
    keys.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("By keys", timeout=SOON)
    expect(page.locator("main progress")).to_have_count(0, timeout=SOON)
    _to(page, "Suspend…")
    keys.press("Enter")
    _to(page, "Reason")
    keys.type("no mouse")
    keys.press("Enter")
    expect(page.locator(".head .badge")).to_have_text("suspended", timeout=SOON)
    _to(page, "Delete")
    keys.press("Enter")
    page.wait_for_url("**/delete")
    _to(page, "Type keys")
    keys.type("keys")
    keys.press("Enter")
    expect(page.locator("main .badge").first).to_have_text("done", timeout=SOON)
    _palette(page, "tenants", room.url())
    for name in ("Tick blumen", "Tick elbe"):
        _to(page, name)
        keys.press("Space")
    expect(page.get_by_text("2 ticked")).to_be_visible()
    _to(page, "Do it", "Shift+Tab")
    keys.press("Enter")
    expect(page.locator(".note")).to_contain_text("2 of 2 taken")


def _palette(page: Page, text: str, where: str) -> None:
    page.keyboard.press("Control+k")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_url(where)

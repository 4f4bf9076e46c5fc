"""The entrance of a tenant: signing in and out, links by a real mail server, and every refusal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from email.message import EmailMessage

import httpx
import pytest

import entrances as e
import ground as g
import people_world as w
from tenantry import tries
from tenantry.context import tenant_context
from tenantry.credentials import Role
from tenantry.runtime import proofs
from tenantry.runtime.asked import BODY
from tenantry.runtime.entrance import visit


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> Iterator[w.Inbox]:
    """A real mail server."""
    with w.inbox(tmp_path_factory.mktemp("mail")) as inbox:
        yield inbox


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, mails: w.Inbox) -> g.Ground:
    """A platform with two tenants, which sends mail."""
    ground = g.Ground(tmp_path_factory.mktemp("entrance") / "platform", e.TOML)
    w.mailing(ground, mails, url="https://portal.example")
    asyncio.run(e.prepare(ground, "acme", "umbrella"))
    return ground


@pytest.fixture
async def here(platform: g.Ground, mails: w.Inbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[e.Entry]:
    """Their entrances; who has guessed too often waits long."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    monkeypatch.setattr(proofs, "wait", lambda kind, count: w.waits(kind, count))
    mails.mails.clear()
    async with e.entry(platform) as found:
        for slug in ("acme", "umbrella"):
            platform.sql(slug, "DELETE FROM tenantry_try")
            platform.sql(slug, "DELETE FROM tenantry_user WHERE login <> 'admin@' || 'acme.localhost'")
        yield found


async def came(here: e.Entry, mails: w.Inbox) -> EmailMessage:
    """The one mail that was sent for what was asked."""
    await here.runtime.entrance.close()
    assert await here.platform.mails.deliver() == 1
    (mail,) = await mails.wait(1)
    return mail


# --- signing in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_path", [False, True])
async def test_somebody_signs_in_and_out(here: e.Entry, by_path: bool) -> None:
    """At a host of its own and below a path; the page names the tenant, and the session before is over."""
    await here.user("ana@example.org")
    browser = await here.browser(by_path=by_path)
    page = await browser.get("sign-in")
    assert "Acme &amp; Söhne" in page.text
    assert "/entrance/color/2f6f4f.css" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    answer = await browser.sign_in("Ana@Example.org ", next=f"{browser.root}/pages?a=1")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{browser.root}/pages?a=1")
    assert await browser.who() == "ana@example.org"
    first = browser.client.cookies["tenantry_session"]
    assert (await browser.get("sign-in")).status_code == 303
    await browser.sign_in("ana@example.org")
    assert browser.client.cookies["tenantry_session"] != first
    answer = await browser.send("sign-out")
    assert answer.headers["location"] == f"{browser.root}/.tenantry/sign-in"
    assert await browser.who() == "nobody"
    assert "You are signed out." in e.told(await browser.get("sign-in"))
    assert e.told(await browser.get("sign-in")) == ""
    assert (
        (await browser.get("me"))
        .headers["location"]
        .endswith("/.tenantry/sign-in?next=" + browser.root + "/.tenantry/me")
    )


async def test_the_same_answer_for_whoever_cannot_sign_in(here: e.Entry) -> None:
    """A wrong password, a login nobody has, somebody disabled, somebody invited, and values nobody can have."""
    await here.user("ana@example.org")
    with tenant_context(here.runtime.environment("acme")):
        await here.runtime.accounts.invite("new@example.org")
        await here.user("out@example.org")
        out = await here.runtime.accounts.by_login("out@example.org")
        assert out is not None
        await here.runtime.accounts.disable(out.id)
    browser = await here.browser()
    told = set()
    tried = [("ana@example.org", "wrong"), ("nobody@example.org", e.PASSWORD), ("out@example.org", e.PASSWORD)]
    for login, password in [*tried, ("new@example.org", ""), ("\0", "\0"), ("x" * 3000, "y" * 3000), ("", "")]:
        answer = await browser.sign_in(login, password)
        assert answer.status_code == 401
        told.add(e.told(answer))
    assert len(told) == 1


async def test_a_session_opens_no_other_tenant(here: e.Entry) -> None:
    """Its cookie is nobody's elsewhere, and a form of one tenant does nothing at another."""
    await here.user("ana@example.org")
    browser = await here.signed_in("ana@example.org")
    other = await here.browser("umbrella")
    other.client.cookies.set("tenantry_session", browser.client.cookies["tenantry_session"])
    assert (await other.get("me")).status_code == 303
    assert await other.who() == "nobody"
    form = {"csrf": await browser.csrf(), "login": "ana@example.org", "password": e.PASSWORD}
    await other.get("sign-in")
    assert (await other.client.post("/.tenantry/sign-in", data=form)).status_code == 403


@pytest.mark.parametrize(
    "where",
    [
        "//evil.example/x", "/\\evil.example", "https://evil.example", "\\\\evil", "javascript:alert(1)", "/../../x",
        "/%2e%2e/x", "/x/%2E%2E/", "/a//b", "/ä", "/x\r\nSet-Cookie: a=b", "/" + "x" * 3000, "",
        "/.tenantry/sign-out", "/.tenantry/link/abc",
    ],
)  # fmt: skip
async def test_nobody_is_led_elsewhere(where: str) -> None:
    """`next` leads to pages of this tenant alone."""
    assert visit.target(where, "") == "/"
    assert visit.target(f"/t/acme{where}" if where.startswith("/x") else where, "/t/acme") == "/t/acme/"
    assert visit.target("/pages?x=1#y", "") == "/pages?x=1#y"
    assert visit.target("/t/umbrella/", "/t/acme") == "/t/acme/"


async def test_a_form_from_elsewhere_does_nothing(here: e.Entry) -> None:
    """Without its token, with another browser's, from another site, and with one of before the sign-in."""
    await here.user("ana@example.org")
    browser, stranger = await here.browser(), await here.browser()
    form = {"login": "ana@example.org", "password": e.PASSWORD}
    before = await browser.csrf()
    for csrf in ("", "0" * 64, await stranger.csrf(), "ä"):
        answer = await browser.client.post("/.tenantry/sign-in", data={"csrf": csrf, **form})
        assert answer.status_code == 403, csrf
    good = {"csrf": before, **form}
    for headers in (
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example"},
    ):
        assert (await browser.client.post("/.tenantry/sign-in", data=good, headers=headers)).status_code == 403
    assert (await browser.client.post("/.tenantry/sign-in", data=good)).status_code == 303
    assert (await browser.client.post("/.tenantry/me/name", data={"csrf": before, "name": "x"})).status_code == 403


async def test_bodies_that_are_no_form(here: e.Entry) -> None:
    """Too long, of another kind, no text, too many fields, another method, and pages that are not there."""
    browser = await here.browser()
    token = await browser.csrf()
    post = browser.client.post
    assert (await post("/.tenantry/sign-in", content=b"x" * (BODY + 1))).status_code == 413
    assert (await post("/.tenantry/sign-in", json={"csrf": token})).status_code == 415
    for body in (b"csrf=%ff", b"&".join(b"a=b" for _ in range(200))):
        kind = {"content-type": "application/x-www-form-urlencoded"}
        assert (await post("/.tenantry/sign-in", content=body, headers=kind)).status_code == 400
    assert (await browser.client.put("/.tenantry/sign-in")).status_code == 405
    assert (await browser.get("me/nothing")).status_code == 404
    for name in ("entrance/__init__.py", "entrance/look.py", "entrance/color/zzz.css", "entrance/"):
        assert (await browser.get(name)).status_code == 404, name


# --- guessing -------------------------------------------------------------------------------------------------------


async def test_strangers_who_guess_wait_and_lock_nobody_out(here: e.Entry) -> None:
    """Of many at once each counts; the owner signs in from her own browser meanwhile."""
    await here.user("ana@example.org")
    own = await here.signed_in("ana@example.org")
    await own.send("sign-out")
    stranger = await here.browser(address="203.0.113.9")
    form = {"csrf": await stranger.csrf(), "login": "ana@example.org", "password": "guess"}
    answers = await asyncio.gather(*(stranger.client.post("/.tenantry/sign-in", data=form) for _ in range(16)))
    codes = sorted(one.status_code for one in answers)
    assert codes.count(401) <= tries.FREE["unknown"]
    assert codes[-1] == 429
    right = await stranger.sign_in("ana@example.org")
    assert right.status_code == 429
    assert "too many failures" in e.told(right)
    assert (await own.sign_in("ana@example.org")).status_code == 303


async def test_a_try_that_was_right_is_taken_back(here: e.Entry) -> None:
    """Somebody who signs in over and over never waits; failures of long ago count no more."""
    await here.user("ana@example.org")
    for _ in range(tries.FREE["unknown"] + 2):
        browser = await here.browser()
        assert (await browser.sign_in("ana@example.org")).status_code == 303
    here.ground.sql("acme", "UPDATE tenantry_try SET number = 99, ends = 5")
    assert (await (await here.browser()).sign_in("ana@example.org", "wrong")).status_code == 401
    assert all(number == 1 for (number,) in here.ground.sql("acme", "SELECT number FROM tenantry_try"))
    assert proofs.HOLD[proofs.INVITE] == timedelta(days=7)


# --- links ----------------------------------------------------------------------------------------------------------


async def test_an_invitation_by_mail(here: e.Entry, mails: w.Inbox) -> None:
    """Its link names the tenant's own host, whatever a request says; it is good once, also for two at one time."""
    await here.user("root@example.org", Role.ADMIN)
    admin = await here.signed_in("root@example.org")
    answer = await admin.send("users", {"login": "Bob@Example.org", "name": "Bob", "role": "superuser"})
    assert answer.status_code == 303
    assert "bob@example.org is invited." in e.told(await admin.get("users"))
    mail = await came(here, mails)
    assert mail["To"] == "bob@example.org"
    assert mail["Subject"] == "You are invited to Acme & Söhne"
    assert "https://acme.localhost/.tenantry/link/" in w.text_of(mail)
    link = e.link_of(mail)
    assert link.partition("/")[2] not in str(here.ground.sql("acme", "SELECT * FROM tenantry_link"))
    bob, other = await here.browser(), await here.browser()
    assert (await bob.client.head(f"/.tenantry/{link}")).status_code == 200
    short = await bob.send(link, {"password": "short"})
    assert short.status_code == 422
    assert "Welcome, Bob" in short.text
    elsewhere = await here.browser("umbrella")
    assert (await elsewhere.get(link)).status_code == 410
    answers = await asyncio.gather(*(one.send(link, {"password": e.PASSWORD}) for one in (bob, other)))
    assert sorted(one.status_code for one in answers) == [303, 410]
    entered = bob if answers[0].status_code == 303 else other
    assert await entered.who() == "bob@example.org"
    assert (await other.get(link)).status_code == 410
    assert (await entered.get("users")).status_code == 403


async def test_a_forgotten_password(here: e.Entry, mails: w.Inbox) -> None:
    """The same answer for everybody; a mail to whoever has an account, with a link no request can poison."""
    await here.user("ana@example.org")
    signed = await here.signed_in("ana@example.org")
    browser = await here.browser(by_path=True)
    said = set()
    for login in ("nobody@example.org", "ana@example.org"):
        answer = await browser.send(
            "forgot", {"login": login}, headers={"x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
        )
        assert answer.status_code == 200
        said.add(e.told(answer).replace(login, "…"))
    assert len(said) == 1
    mail = await came(here, mails)
    assert mail["To"] == "ana@example.org"
    assert "https://acme.localhost/.tenantry/link/" in w.text_of(mail)
    assert "evil" not in mail.as_string()
    again = await here.browser()
    answer = await again.send(e.link_of(mail), {"password": "another good one"})
    assert answer.headers["location"] == "/"
    assert await again.who() == "ana@example.org"
    assert await signed.who() == "nobody"
    assert (await (await here.browser()).sign_in("ana@example.org")).status_code == 401
    await here.runtime.entrance.close()
    assert await here.platform.mails.deliver() == 0


async def test_asking_for_links_is_counted(here: e.Entry) -> None:
    """So that nobody fills a mailbox; alike for known and unknown addresses."""
    browser = await here.browser(address="198.51.100.7")
    codes = [(await browser.send("forgot", {"login": "nobody@example.org"})).status_code for _ in range(7)]
    assert codes == [200] * tries.FREE["forgot"] + [429] * (7 - tries.FREE["forgot"])


async def test_a_host_that_is_no_tenants_gets_no_page(here: e.Entry) -> None:
    """A forged Host leads nowhere."""
    transport = httpx.ASGITransport(here.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://evil.example") as client:
        assert (await client.get("/.tenantry/sign-in")).status_code == 404


# --- the tenant's admins ----------------------------------------------------------------------------------------------


async def test_admins_keep_the_users(here: e.Entry, mails: w.Inbox) -> None:
    """Search, roles, disabled and enabled, signed out, sent a link; what cannot be is told."""
    await here.user("root@example.org", Role.ADMIN)
    bob = await here.user("bob@example.org")
    theirs, admin = await here.signed_in("bob@example.org"), await here.signed_in("root@example.org")
    assert "bob@example.org" not in (await admin.get("users", params={"search": "100%_"})).text
    assert "bob@example.org" in (await admin.get("users", params={"search": "BOB"})).text
    assert (await admin.send(f"users/{bob.id}/role", {"role": "superuser"})).status_code == 303
    assert "bob@example.org is superuser now." in e.told(await admin.get("users"))
    assert (await admin.send(f"users/{bob.id}/role", {"role": "god"})).status_code == 422
    assert (await admin.send(f"users/{bob.id}/sessions")).status_code == 303
    assert await theirs.who() == "nobody"
    theirs = await here.signed_in("bob@example.org")
    assert (await admin.send(f"users/{bob.id}/disable")).status_code == 303
    assert await theirs.who() == "nobody"
    assert "is disabled" in e.told(await admin.send(f"users/{bob.id}/reset"))
    assert (await admin.send(f"users/{bob.id}/enable")).status_code == 303
    assert (await admin.send(f"users/{bob.id}/reset")).status_code == 303
    mail = await came(here, mails)
    assert "An admin of Acme & Söhne sends you a link" in w.text_of(mail)
    for form, said in (
        ({"login": "no address"}, "is no mail address"),
        ({"login": "bob@example.org"}, "is taken"),
        ({"login": "x@example.org", "role": "root"}, "is no role"),
    ):
        answer = await admin.send("users", form)
        assert said in e.told(answer), answer.text
        assert form["login"] in answer.text
    assert "There is no such user." in e.told(await admin.send("users/nobody/enable"))


async def test_the_last_admin_stays(here: e.Entry) -> None:
    """No admin locks the last one out, not even two who do it to each other at one time."""
    here.ground.sql("acme", "DELETE FROM tenantry_user")
    one, two = [await here.user(f"{name}@example.org", Role.ADMIN) for name in ("one", "two")]
    first, second = await here.signed_in("one@example.org"), await here.signed_in("two@example.org")
    await asyncio.gather(first.send(f"users/{two.id}/disable"), second.send(f"users/{one.id}/role", {"role": "user"}))
    left = here.ground.sql("acme", "SELECT COUNT(*) FROM tenantry_user WHERE role = 'admin' AND active = 1")
    assert left == [(1,)]


@pytest.mark.parametrize("role", [Role.USER, Role.SUPERUSER])
async def test_who_is_no_admin_keeps_no_users(here: e.Entry, role: Role) -> None:
    """Every address below `users` is refused, and changes nothing; strangers are asked to sign in."""
    await here.user("root@example.org", Role.ADMIN)
    bob = await here.user("bob@example.org", role)
    browser, stranger = await here.signed_in("bob@example.org"), await here.browser()
    before = here.ground.sql("acme", "SELECT id, role, active, epoch FROM tenantry_user ORDER BY id")
    posts = [one for one in visit.ROUTES if one.parts[0] == "users" and one.method == "POST"]
    assert len(posts) == 7
    for route in posts:
        page = "/".join(route.parts).replace("*", bob.id)
        assert (await browser.send(page, {"role": "admin", "login": "x@example.org"})).status_code == 403, page
        assert "/sign-in" in (await stranger.send(page)).headers["location"], page
    assert (await browser.get("users")).status_code == 403
    assert here.ground.sql("acme", "SELECT id, role, active, epoch FROM tenantry_user ORDER BY id") == before


async def test_a_page_of_many_users(here: e.Entry) -> None:
    """Fifty on a page, and a way on from it."""
    await here.user("root@example.org", Role.ADMIN)
    with tenant_context(here.runtime.environment("acme")):
        for number in range(60):
            await here.runtime.accounts.invite(f"user{number:02}@example.org", "<b>Näme</b>")
    admin = await here.signed_in("root@example.org")
    first = await admin.get("users", params={"search": "user"})
    assert "<b>Näme" not in first.text
    onward = re.search(r'href="\?(.*?)"', first.text)
    assert onward is not None
    second = await admin.get("users?" + onward[1].replace("&amp;", "&"))
    found = [set(re.findall(r"user\d\d", page.text)) for page in (first, second)]
    assert (len(found[0]), len(found[1]), len(found[0] | found[1])) == (50, 10, 60)

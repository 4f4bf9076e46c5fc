"""One's own account at a tenant's entrance: password, second factor, passkeys and sessions, and every refusal."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator

import httpx
import pyotp
import pytest

import entrances as e
import ground as g
import people_world as w
from authenticator import Authenticator
from tenantry import tries
from tenantry.codes import CODES, STEP
from tenantry.context import tenant_context
from tenantry.credentials import Role
from tenantry.runtime import proofs
from tenantry.runtime.entrance import visit


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> g.Ground:
    """A platform with two tenants, without mail."""
    ground = g.Ground(tmp_path_factory.mktemp("entrance") / "platform", e.TOML)
    asyncio.run(e.prepare(ground, "acme", "umbrella"))
    return ground


@pytest.fixture
async def here(platform: g.Ground, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[e.Entry]:
    """Their entrances."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    monkeypatch.setattr(proofs, "wait", lambda kind, count: w.waits(kind, count))
    async with e.entry(platform) as found:
        for slug in ("acme", "umbrella"):
            for table in ("try", "user", "session", "passkey", "recovery", "link"):
                platform.sql(slug, f"DELETE FROM tenantry_{table}")
            await found.user("ana@example.org", Role.ADMIN, slug)
        yield found


async def enrolled(browser: e.Browser) -> tuple[str, list[str]]:
    """Turn the second factor on; its secret and its recovery codes."""
    page = (await browser.get("me/second-factor")).text
    key = re.search(r'class="key">(.*?)</code>', page)
    sealed = re.search(r'name="sealed" value="([0-9a-f]+)"', page)
    assert key is not None
    assert sealed is not None
    secret = key[1].replace(" ", "")
    wrong = await browser.send("me/second-factor", {"sealed": sealed[1], "code": "000000"})
    assert wrong.status_code == 422
    assert key[1] in wrong.text
    code = pyotp.TOTP(secret).at(int(time.time()) - STEP)
    answer = await browser.send("me/second-factor", {"sealed": sealed[1], "code": code})
    codes = re.findall(r"<li><code>(.*?)</code></li>", answer.text)
    assert len(codes) == CODES, answer.text
    return secret, codes


def half(page: httpx.Response) -> str:
    """What says that the password was right."""
    found = re.search(r'name="half" value="(.*?)"', page.text)
    assert found is not None, page.text
    return found[1]


# --- the second factor ----------------------------------------------------------------------------------------------


async def test_a_second_factor_is_asked_for(here: e.Entry) -> None:
    """After the password; each code counts once, by time or for recovery, and turning it on ends other sessions."""
    other, browser = await here.signed_in("ana@example.org"), await here.signed_in("ana@example.org")
    secret, recovery = await enrolled(browser)
    assert (await browser.who(), await other.who()) == ("ana@example.org", "nobody")
    assert secret not in str(here.ground.sql("acme", "SELECT totp FROM tenantry_user"))
    now = pyotp.TOTP(secret).now()
    for code, good in ((now, True), (now, False), (recovery[0], True), (recovery[0].upper(), False), ("x", False)):
        fresh = await here.browser()
        asked = await fresh.sign_in("ana@example.org", next="/x")
        assert (asked.status_code, await fresh.who()) == (200, "nobody")
        answer = await fresh.send("sign-in/code", {"half": half(asked), "code": code, "next": "/x"})
        assert answer.status_code == (303 if good else 401), code
        assert await fresh.who() == ("ana@example.org" if good else "nobody")


async def test_half_a_sign_in_is_good_in_its_browser_alone(here: e.Entry) -> None:
    """Taken elsewhere, made up, of another tenant or of before a new password, it opens nothing with any code."""
    browser = await here.signed_in("ana@example.org")
    _, recovery = await enrolled(browser)
    first, second, abroad = await here.browser(), await here.browser(), await here.browser("umbrella")
    found = half(await first.sign_in("ana@example.org"))
    for where, value in ((second, found), (first, "made.up.value"), (first, ""), (abroad, found)):
        answer = await where.send("sign-in/code", {"half": value, "code": recovery[0]})
        assert answer.status_code == 401, value
    with tenant_context(here.runtime.environment("acme")):
        ana = await here.runtime.accounts.by_login("ana@example.org")
        assert ana is not None
        await here.runtime.accounts.end_sessions(ana.id)
    assert (await first.send("sign-in/code", {"half": found, "code": recovery[0]})).status_code == 401
    assert len(here.ground.sql("acme", "SELECT * FROM tenantry_recovery")) == CODES


async def test_codes_are_not_guessed(here: e.Entry) -> None:
    """Wrong ones are counted, at once too, and the right one then waits."""
    browser = await here.signed_in("ana@example.org")
    _, recovery = await enrolled(browser)
    stranger = await here.browser(address="203.0.113.4")
    form = {"csrf": await stranger.csrf(), "half": half(await stranger.sign_in("ana@example.org")), "code": "111111"}
    post = stranger.client.post
    codes = [
        one.status_code for one in await asyncio.gather(*(post("/.tenantry/sign-in/code", data=form) for _ in range(9)))
    ]
    assert codes.count(401) <= tries.FREE["second"]
    assert (await post("/.tenantry/sign-in/code", data=form | {"code": recovery[0]})).status_code == 429


async def test_a_second_factor_is_turned_off_by_a_code(here: e.Entry) -> None:
    """New recovery codes void the ones before; without a code nothing is turned off; an admin can take it away."""
    browser = await here.signed_in("ana@example.org")
    _, recovery = await enrolled(browser)
    assert (await browser.send("me/second-factor/off", {"code": "000000"})).status_code == 422
    again = await browser.send("me/second-factor/codes", {"code": recovery[1]})
    fresh = re.findall(r"<li><code>(.*?)</code></li>", again.text)
    assert not set(fresh) & set(recovery)
    assert (await browser.send("me/second-factor/off", {"code": recovery[2]})).status_code == 422
    assert (await browser.get("me/second-factor")).status_code == 422
    assert (await browser.send("me/second-factor/off", {"code": fresh[0]})).status_code == 303
    assert (await (await here.browser()).sign_in("ana@example.org")).status_code == 303
    await enrolled(browser)
    boss = await here.user("boss@example.org", Role.ADMIN)
    admin = await here.signed_in(boss.login)
    (ana,) = here.ground.sql("acme", "SELECT id FROM tenantry_user WHERE login = 'ana@example.org'")
    assert (await admin.send(f"users/{ana[0]}/second-factor")).status_code == 303
    assert await browser.who() == "nobody"
    assert (await (await here.browser()).sign_in("ana@example.org")).status_code == 303


async def test_a_link_does_not_stand_for_a_second_factor(here: e.Entry) -> None:
    """Whoever reads the mailbox alone comes to the sign-in page, not in; without mail an admin sees the link once."""
    browser = await here.signed_in("ana@example.org")
    await enrolled(browser)
    boss = await here.user("boss@example.org", Role.ADMIN)
    admin = await here.signed_in(boss.login)
    (ana,) = here.ground.sql("acme", "SELECT id FROM tenantry_user WHERE login = 'ana@example.org'")
    shown = await admin.send(f"users/{ana[0]}/reset")
    link = re.search(r"<code>http://acme\.localhost:8000/\.tenantry/(link/[\w-]+)</code>", shown.text)
    assert link is not None
    stranger = await here.browser()
    answer = await stranger.send(link[1], {"password": "taken over by mail"})
    assert answer.headers["location"].endswith("/sign-in")
    assert await stranger.who() == "nobody"
    assert "Ask an admin of Acme" in (await stranger.get("forgot")).text


# --- password and sessions ------------------------------------------------------------------------------------------


async def test_a_new_password_ends_other_sessions(here: e.Entry) -> None:
    """The old one is asked for, a few times; this browser goes on by a new session."""
    other, browser = await here.signed_in("ana@example.org"), await here.signed_in("ana@example.org")
    before = browser.client.cookies["tenantry_session"]
    wrong = await browser.send("me/password", {"old": "wrong", "new": "a new password"})
    assert (wrong.status_code, await other.who()) == (422, "ana@example.org")
    assert (await browser.send("me/password", {"old": e.PASSWORD, "new": "short"})).status_code == 422
    assert (await browser.send("me/password", {"old": e.PASSWORD, "new": "a new password"})).status_code == 303
    assert browser.client.cookies["tenantry_session"] != before
    assert (await browser.who(), await other.who()) == ("ana@example.org", "nobody")
    for _ in range(tries.FREE["own"] + 1):
        last = await browser.send("me/password", {"old": "wrong", "new": "a new password"})
    assert last.status_code == 429


async def test_sessions_are_listed_and_ended(here: e.Entry) -> None:
    """One by one and all others; nobody ends another's."""
    await here.user("bob@example.org")
    one, two, three = [await here.signed_in("ana@example.org") for _ in range(3)]
    bob = await here.signed_in("bob@example.org")
    page = (await one.get("me")).text
    ids = re.findall(r"/me/sessions/([0-9a-f]+)/end", page)
    assert (len(ids), page.count("this one")) == (2, 1)
    assert (await bob.send(f"me/sessions/{ids[0]}/end")).status_code == 303
    assert [await browser.who() for browser in (two, three)] == ["ana@example.org"] * 2
    await one.send(f"me/sessions/{ids[0]}/end")
    assert sorted([await two.who(), await three.who()]) == ["ana@example.org", "nobody"]
    await one.send("me/sessions")
    assert [await browser.who() for browser in (one, two, three)] == ["ana@example.org", "nobody", "nobody"]


async def test_who_signed_in_long_ago_proves_it_once_more(here: e.Entry) -> None:
    """Before a passkey or a second factor is added; a wrong password proves nothing."""
    browser = await here.signed_in("ana@example.org")
    here.ground.sql("acme", "UPDATE tenantry_session SET proved = proved - 601")
    assert (await browser.get("me/second-factor")).status_code == 403
    assert (await browser.get("me/passkeys/options")).status_code == 403
    for page, form in (
        ("me/second-factor", {"sealed": "00", "code": "1"}),
        ("me/passkeys", {"name": "x", "answer": "{}"}),
    ):
        answer = await browser.send(page, form)
        assert (answer.status_code, "Is it you?" in answer.text) == (403, True)
    assert (await browser.send("me/prove", {"password": "wrong"})).status_code == 422
    assert (await browser.get("me/second-factor")).status_code == 403
    assert (await browser.send("me/prove", {"password": e.PASSWORD})).status_code == 303
    assert (await browser.get("me/second-factor")).status_code == 200


async def test_a_providers_user_makes_no_way_past_it(here: e.Entry) -> None:
    """Neither a password, a second factor nor a passkey; signing out everywhere begins no session of ours."""
    browser, accounts = await here.browser(), here.runtime.accounts
    with tenant_context(here.runtime.environment("acme")):
        pia = await accounts.provision("https://login.example", "pia-1", "pia@example.org")
        browser.client.cookies.set("tenantry_session", await accounts.begin(pia, via="sso"))
        link = await here.runtime.proofs.new_link(pia.id, proofs.RESET)
    page = (await browser.get("me")).text
    assert "You sign in by your organization" in page
    assert "Add a passkey" not in page
    assert (await browser.get("me/second-factor")).status_code == 422
    assert (await browser.get("me/passkeys/options")).status_code == 422
    for name, form in (
        ("me/password", {"old": "", "new": "a long password"}),
        ("me/second-factor", {"sealed": "00", "code": "1"}),
        ("me/passkeys", {"name": "x", "answer": "{}"}),
        (f"link/{link}", {"password": "a long password"}),
    ):
        assert (await browser.send(name, form)).status_code in (410, 422), name
    assert here.ground.sql("acme", "SELECT password FROM tenantry_user WHERE login = 'pia@example.org'") == [("",)]
    assert (await browser.send("me/sessions")).headers["location"].endswith("/sign-in")
    assert await browser.who() == "nobody"


# --- passkeys -------------------------------------------------------------------------------------------------------


async def test_a_passkey_signs_in(here: e.Entry) -> None:
    """Made and used at this tenant; an answer counts once, and opens nothing elsewhere or once it is removed."""
    browser = await here.signed_in("ana@example.org")
    device = Authenticator("https://acme.localhost", "acme.localhost")
    options = (await browser.get("me/passkeys/options")).text
    answer = device.register(options)
    assert (await browser.send("me/passkeys", {"name": "phone", "answer": answer})).status_code == 303
    assert "came too late, or twice" in e.told(await browser.send("me/passkeys", {"name": "again", "answer": answer}))
    second = device.register((await browser.get("me/passkeys/options")).text)
    assert "is there already" in e.told(await browser.send("me/passkeys", {"name": "again", "answer": second}))
    fresh = await here.browser()
    signed = device.sign((await fresh.get("passkey/options")).text)
    entered = await fresh.send("passkey", {"answer": signed, "next": "/x"})
    assert (entered.status_code, entered.headers["location"], await fresh.who()) == (303, "/x", "ana@example.org")
    assert (await (await here.browser()).send("passkey", {"answer": signed})).status_code == 401
    abroad = await here.browser("umbrella")
    foreign = Authenticator("https://umbrella.localhost", "umbrella.localhost", device.id, device.key, 5)
    there = foreign.sign((await abroad.get("passkey/options")).text)
    assert (await abroad.send("passkey", {"answer": there})).status_code == 401
    for origin in ("https://evil.example", "http://acme.example", "https://umbrella.localhost"):
        phished = Authenticator(origin, "acme.localhost", device.id, device.key, 9)
        wrong = phished.sign((await fresh.get("passkey/options")).text)
        assert (await (await here.browser()).send("passkey", {"answer": wrong})).status_code == 401, origin
    (passkey,) = here.ground.sql("acme", "SELECT id FROM tenantry_passkey")
    await browser.send(f"me/passkeys/{passkey[0]}/remove")
    late = device.sign((await fresh.get("passkey/options")).text)
    assert (await (await here.browser()).send("passkey", {"answer": late})).status_code == 401


async def test_passkeys_of_another_tenants_question(here: e.Entry) -> None:
    """A question of one tenant is none of another's, and what is no answer is refused."""
    browser = await here.signed_in("ana@example.org")
    device = Authenticator("https://acme.localhost", "acme.localhost")
    abroad = await here.signed_in("ana@example.org", "umbrella")
    wrong = device.register((await abroad.get("me/passkeys/options")).text)
    assert (await browser.send("me/passkeys", {"name": "x", "answer": wrong})).status_code == 422
    for answer in ("", "{}", "[]", "null", "{" * 500, "x" * 20_000, '{"id":"AA","rawId":"AA","response":{}}'):
        assert (await browser.send("me/passkeys", {"name": "x", "answer": answer})).status_code == 422
        assert (await (await here.browser()).send("passkey", {"answer": answer})).status_code == 401
    assert here.ground.sql("acme", "SELECT * FROM tenantry_passkey") == []


# --- who may what ---------------------------------------------------------------------------------------------------


async def test_each_page_says_whom_it_is_for(here: e.Entry) -> None:
    """What is not open to everybody sends a stranger to the sign-in page, and changes nothing."""
    browser = await here.browser()
    opened = {"/".join(one.parts) for one in visit.ROUTES if one.role is None}
    assert opened == {
        "sign-in", "sign-in/code", "sign-out", "passkey", "passkey/options", "forgot", "link/*",
    }  # fmt: skip
    closed = [one for one in visit.ROUTES if one.role is not None]
    for route in closed:
        page = "/".join(route.parts).replace("*", "x")
        answer = await (browser.get(page) if route.method == "GET" else browser.send(page))
        assert answer.status_code == 303, page
        assert "/.tenantry/sign-in?next=" in answer.headers["location"], page


async def test_a_suspended_tenant_is_over_at_once(here: e.Entry) -> None:
    """Whoever is signed in gets the page of a closed tenant, also at the entrance; resumed, the session goes on."""
    browser = await here.signed_in("ana@example.org", "umbrella")
    operations, tenants = here.platform.operations, here.platform.tenants
    await operations.finish((await tenants.suspend("umbrella", "unpaid")).id)

    async def status(page: str) -> int:
        return (await browser.get(page)).status_code

    async def closed() -> bool:
        return await status("me") == 403

    await g.until(closed)
    assert "is closed at the moment" in (await browser.get("me")).text
    assert [await status(page) for page in ("/", "sign-in", "users", "forgot")] == [403] * 4
    await operations.finish((await tenants.resume("umbrella")).id)

    async def served() -> bool:
        return await status("me") == 200

    await g.until(served)


async def test_support_is_none_of_the_tenants_users(here: e.Entry) -> None:
    """Who looks in for support changes nothing at the entrance, and is nobody there."""
    opened = await here.platform.support.open("acme", "Ticket 7")
    path = opened.path.removeprefix("/.tenantry/")
    browser = await here.signed_in("ana@example.org")

    async def known() -> bool:
        return bool(here.runtime.environment("acme").tenant.support)

    await g.until(known)
    assert (await browser.client.post(f"/.tenantry/{path}")).status_code == 303
    assert (await browser.get("me")).status_code == 303
    assert (await browser.client.post("/.tenantry/sign-in", data={"login": "x"})).status_code == 403
    assert "tenantry-support" in (await browser.get("sign-in")).text


async def test_by_wsgi(here: e.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pages answer to applications of WSGI, at a host and below a path."""
    from tenantry.application import connect

    runtime = connect(here.ground.config)
    app = e.wsgi_application(runtime)

    def look() -> None:
        for base in ("http://acme.localhost", "http://localhost/t/acme"):
            with httpx.Client(transport=httpx.WSGITransport(app), base_url=base) as client:
                page = client.get("/.tenantry/sign-in").text
                csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
                assert csrf is not None
                form = {"csrf": csrf[1], "login": "ana@example.org", "password": e.PASSWORD}
                assert client.post("/.tenantry/sign-in", data=form | {"csrf": "0"}).status_code == 403
                assert client.post("/.tenantry/sign-in", data=form).status_code == 303
                assert "ana@example.org" in client.get("/.tenantry/users").text
                assert client.post("/.tenantry/sign-in", content=b"x" * 70_000).status_code == 413
                assert client.get("/.tenantry/support/banner.css").status_code == 200

    try:
        await asyncio.to_thread(look)
    finally:
        await asyncio.to_thread(runtime.stop_thread)


async def test_an_application_with_pages_of_its_own(here: e.Entry, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`pages = false` leaves the addresses to it; a color that is none, and a logo elsewhere, are left out."""
    from tenantry.runtime.entrance import look
    from tenantry.runtime.settings import Brand

    ground = here.ground
    named = Brand("color", "logo", ground.root)
    (ground.root / "logo.png").write_bytes(w.PNG)
    (ground.root.parent / "outside.png").write_bytes(w.PNG)
    bad = ("//evil/x.png", "/../x", 'x"', "../outside.png", "tenantry.toml", "data:image/png;base64,ÄÄ", "data:,")
    for values in ({"color": "red"}, {"color": "#12"}, *({"logo": one} for one in bad)):
        assert look.of(named, values, "") == look.Look()
    assert look.of(named, {"color": "#ABCDEF", "logo": "/l.svg"}, "/t/acme") == look.Look("abcdef", "/t/acme/l.svg")
    picture = f"data:image/png;base64,{base64.b64encode(w.PNG).decode()}"
    assert {look.of(named, {"logo": one}, "").logo for one in ("logo.png", picture)} == {picture}
    assert "--on-mark: #000000" in look.style("ffee88")
    assert "--on-mark: #ffffff" in look.style("112233")
    other = ground.config.with_name("own.toml")
    other.write_text(ground.config.read_text().replace("[users]", "[users]\npages = false"))
    from tenantry.application import connect

    runtime = connect(other)
    assert set(runtime.pages) & {"sign-in", "me", "users"} == set()
    assert runtime.sign_in is None

"""Attacks on the pages of tenants' users and on their tokens; forms and addresses come from the pages themselves."""

from __future__ import annotations

import asyncio
import base64
import hmac
import html
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import httpx
import pytest
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import entrances as e
import ground as g
import people_world as w
import tenantry
from tenantry.context import tenant_context
from tenantry.credentials import Role
from tenantry.runtime import TenantMiddleware, accounts, proofs
from tenantry.runtime.asked import BODY
from tenantry.runtime.entrance import account, door, people, visit
from tenantry.runtime.sessions import serializer
from tenantry.users import TABLES

assert account
assert door
assert people  # they enter their addresses

EVIL: Final = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}&"
"""Looks like nothing else, and is printable, as names and logins are."""

ELSEWHERE: Final = (
    "//evil.example/", "/\\evil.example", "https://evil.example/", "\\\\evil.example", "javascript:alert(1)",
    "/%2e%2e//evil.example", "/x/..//evil.example", "/%5cevil.example", "/\t/evil.example", "/\r\nX-Bad: 1",
    "///evil.example", "http:evil.example", "evil.example", "/.tenantry/sign-out", "/.tenantry/link/x",
    "/" + "a" * 5000,
)  # fmt: skip

VOLATILE: Final = {"tenantry_session": ("seen",), "tenantry_try": ("number", "ends", "id")}
"""What changes where somebody only looks, or guesses."""


async def who(request: Request) -> Response:
    """Who makes this request, and at which tenant."""
    user = tenantry.require()
    return JSONResponse({"who": user.login, "role": user.role, "tenant": tenantry.current_tenant().slug})


async def front(request: Request) -> Response:
    """A page that says who is here."""
    user = tenantry.current_user()
    return HTMLResponse(f"<p>Here is {html.escape(user.login) if user else 'nobody'}.</p>")


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> Iterator[w.Inbox]:
    """A real mail server."""
    with w.inbox(tmp_path_factory.mktemp("mail")) as inbox:
        yield inbox


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, mails: w.Inbox) -> g.Ground:
    """A platform with two tenants, which sends mail."""
    found = g.Ground(tmp_path_factory.mktemp("attacked") / "platform", e.TOML)
    w.mailing(found, mails)
    asyncio.run(e.prepare(found, "acme", "umbrella"))
    return found


@pytest.fixture
async def here(ground: g.Ground, mails: w.Inbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[e.Entry]:
    """Both with an admin ana and a user bob; who has guessed too often waits long."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    monkeypatch.setattr(proofs, "wait", lambda kind, count: w.waits(kind, count))
    async with e.entry(ground) as found:
        await found.platform.mails.deliver()  # what the test before left
        mails.mails.clear()
        app = Starlette(
            routes=[Route("/", front, methods=["GET", "POST"]), Route("/who", who, methods=["GET", "POST"])]
        )
        app.add_middleware(TenantMiddleware, runtime=found.runtime)
        found.app = app
        for slug in ("acme", "umbrella"):
            for table in TABLES:
                ground.sql(slug, f"DELETE FROM {table}")
            await found.user("ana@example.org", Role.ADMIN, slug)
            await found.user("bob@example.org", Role.USER, slug)
        yield found


def state(ground: g.Ground, slug: str = "acme") -> dict[str, list[str]]:
    """All that the tables of a tenant's users hold, but for who was seen when."""
    found = {}
    for table in TABLES:
        names = [row[1] for row in ground.sql(slug, f"PRAGMA table_info({table})")]
        kept = [name for name in names if name not in VOLATILE.get(table, ())]
        rows = ground.sql(slug, f"SELECT {', '.join(kept)} FROM {table}") if kept else []
        found[table] = sorted(str(dict(zip(kept, row, strict=True))) for row in rows)
    found.pop("tenantry_try")
    return found


def id_of(ground: g.Ground, login: str, slug: str = "acme") -> str:
    """The id of a user."""
    return str(ground.sql(slug, f"SELECT id FROM tenantry_user WHERE login = '{login}'")[0][0])


def posts(varying: str) -> list[str]:
    """The address of every form, with this where something varies."""
    return ["/".join(one.parts).replace("*", varying) for one in visit.ROUTES if one.method == "POST"]


async def tokens(browser: e.Browser, **form: str) -> httpx.Response:
    """Ask the endpoint for tokens."""
    return await browser.client.post(f"{browser.root}/.tenantry/token", data=form)


async def given(browser: e.Browser, login: str = "bob@example.org", **more: str) -> Any:
    """Tokens for a password."""
    answer = await tokens(browser, grant_type="password", username=login, password=e.PASSWORD, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def asked(browser: e.Browser, token: str, **options: Any) -> httpx.Response:
    """A request with a bearer token."""
    headers = {"authorization": f"Bearer {token}", "accept": "application/json", **options.pop("headers", {})}
    return await browser.client.request(options.pop("method", "GET"), "/who", headers=headers, **options)


# --- forms from elsewhere -------------------------------------------------------------------------------------------


async def test_no_form_of_another_site_does_anything(here: e.Entry) -> None:
    """Every form: without its token, with another browser's, with that of another tenant, or sent by another site."""
    admin, stranger = await here.signed_in("ana@example.org"), await here.signed_in("ana@example.org")
    abroad = await here.signed_in("ana@example.org", "umbrella")
    good = await admin.csrf("me")
    values = {"login": "eve@example.org", "role": "admin", "name": "Eve", "password": "another password", "code": "1"}
    before = state(here.ground)
    forged: list[tuple[str, dict[str, str]]] = [
        ("", {}),
        (await stranger.csrf("me"), {}),
        (await abroad.csrf("me"), {}),
        (good, {"sec-fetch-site": "cross-site"}),
        (good, {"sec-fetch-site": "same-site"}),
        (good, {"origin": "null"}),
        (good, {"origin": "http://umbrella.localhost"}),
        (good, {"origin": "http://acme.localhost.evil.example"}),
    ]
    for page in posts(id_of(here.ground, "bob@example.org")):
        for csrf, headers in forged:
            answer = await admin.client.post(
                f"/.tenantry/{page}", data={"csrf": csrf, **values}, headers={**headers, "cookie": cookies(admin)}
            )
            assert answer.status_code == 403, (page, csrf[:5], headers)
    assert state(here.ground) == before
    assert await admin.who() == "ana@example.org"


def cookies(browser: e.Browser) -> str:
    """All cookies of a browser, whatever it was told since."""
    return "; ".join(f"{one.name}={one.value}" for one in browser.client.cookies.jar)


async def test_looking_changes_nothing(here: e.Entry) -> None:
    """No address changes anything by GET, HEAD or another method, whatever stands in its query."""
    admin = await here.signed_in("ana@example.org")
    bob = id_of(here.ground, "bob@example.org")
    query = {"login": "eve@example.org", "role": "admin", "csrf": await admin.csrf("me"), "password": "another one"}
    before = state(here.ground)
    for page in {*posts(bob), *("/".join(one.parts).replace("*", bob) for one in visit.ROUTES)}:
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"):
            await admin.client.request(method, f"/.tenantry/{page}", params=query)
    assert state(here.ground) == before
    for page in ("token", "token/revoke"):
        assert (await admin.client.get(f"/.tenantry/{page}", params={"grant_type": "session"})).status_code == 405


async def test_no_other_site_gets_tokens_by_a_session(here: e.Entry) -> None:
    """The cookie that comes along with another site's request trades for nothing, nor does a body that is no form."""
    browser = await here.signed_in("bob@example.org")
    assert (await tokens(browser, grant_type="session")).status_code == 200
    post = browser.client.post
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
    ):
        answer = await post("/.tenantry/token", data={"grant_type": "session"}, headers=headers)
        assert answer.status_code == 403, headers
        assert "access_token" not in answer.text
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x"):
        answer = await post("/.tenantry/token", content=b"grant_type=session", headers={"content-type": kind})
        assert answer.status_code == 415, kind


# --- sessions -------------------------------------------------------------------------------------------------------


async def test_a_planted_session_becomes_nobody_elses(here: e.Entry) -> None:
    """Who signs in in a browser with a stranger's cookies gets new ones; the stranger's open nothing of hers."""
    stranger, victim = await here.signed_in("bob@example.org"), await here.browser()
    for cookie in stranger.client.cookies.jar:
        victim.client.cookies.set(cookie.name, str(cookie.value), domain=cookie.domain, path=cookie.path)
    known = await stranger.csrf("me")
    assert (await victim.sign_in("ana@example.org")).status_code == 303
    assert (await victim.who(), await stranger.who()) == ("ana@example.org", "nobody")
    assert victim.client.cookies["tenantry_session"] != stranger.client.cookies["tenantry_session"]
    answer = await victim.client.post("/.tenantry/me/name", data={"csrf": known, "name": "Eve"})
    assert answer.status_code == 403


async def test_made_up_cookies_open_nothing(here: e.Entry) -> None:
    """Neither altered, nor of another tenant, nor longer than cookies are, nor with another user's id in it."""
    browser, abroad = await here.signed_in("bob@example.org"), await here.signed_in("bob@example.org", "umbrella")
    value = browser.client.cookies["tenantry_session"]
    _, inner = serializer(b"guessed", "tenantry.session").loads_unsafe(value)
    inner[2] = id_of(here.ground, "ana@example.org")
    guessed = str(serializer(b"guessed", "tenantry.session").dumps(inner))
    seal = ".".join(value.rsplit(".", 2)[1:])
    forged = [
        guessed,
        f"{guessed.rsplit('.', 2)[0]}.{seal}",
        value[:-1] + ("x" if value[-1] != "x" else "y"),
        value + "x" * 9000,
        abroad.client.cookies["tenantry_session"],
        "null",
    ]
    for cookie in forged:
        stranger = await here.browser()
        answer = await stranger.client.get(
            "/who", headers={"cookie": f"tenantry_session={cookie}", "accept": "application/json"}
        )
        assert answer.status_code == 401, cookie[:40]


# --- scripts in texts -----------------------------------------------------------------------------------------------


async def test_no_text_of_a_user_is_run(here: e.Entry, mails: w.Inbox) -> None:
    """Names and logins full of markup: on every page of the tenant's, in mail, and in the portal's audit log."""
    login = EVIL.replace(" ", "").lower()
    with tenant_context(here.runtime.environment("acme")):
        eve = await here.runtime.accounts.create(login, e.PASSWORD, name=EVIL, role=Role.ADMIN)
    admin, own = await here.signed_in("ana@example.org"), await here.signed_in(login)
    agent = {"user-agent": EVIL}
    assert (await (await here.browser()).sign_in(login, "wrong", next=EVIL)).status_code == 401
    shown = [
        await admin.get("users"),
        await admin.get("users", params={"search": EVIL, "after": EVIL}),
        await admin.send("users", {"login": EVIL, "name": EVIL, "role": EVIL}),
        await admin.send(f"users/{eve.id}/reset"),
        await own.get("me", headers=agent),
        await own.get("users"),
        await own.send("me/name", {"name": EVIL * 3}),
        await own.get("me"),
        await own.get("sign-in", params={"next": EVIL}),
        await (await here.browser()).sign_in(login, EVIL, next=EVIL),
        await (await here.browser()).send("forgot", {"login": EVIL}),
        await (await here.browser()).get(f"link/{EVIL}"),
        await (await here.browser()).send("sign-in/code", {"half": EVIL, "code": EVIL, "next": EVIL}),
        await own.client.get(f"/.tenantry/{EVIL}", headers={"accept": "text/html"}),
    ]
    for page in shown:
        assert "<img src=x" not in page.text, page.url
        assert "<script>alert" not in page.text, page.url
        assert "49" not in re.findall(r"onerror=alert\(1\).{0,60}", page.text), page.url
    assert sum("&lt;script&gt;alert(2)" in page.text for page in shown) >= 6
    await here.runtime.entrance.close()
    await _in_the_portal(here, login)


async def _in_the_portal(here: e.Entry, login: str) -> None:
    """A stolen token tells the audit log of a login; the portal shows it."""
    browser = await here.browser()
    found = await given(browser, login)
    refresh = {"grant_type": "refresh_token", "refresh_token": found["refresh_token"]}
    assert [(await tokens(browser, **refresh)).status_code for _ in range(2)] == [200, 400]
    async with w.portal(here.ground) as portal:
        root = await portal.signed_in()
        page = (await root.get("/admin/audit")).text
        assert "user.token_reused" in page or "token" in page
        assert html.escape("<script>alert(2)</script>") in page
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "<script>alert" not in (await root.get("/admin/tenants/acme")).text


# --- where one is led -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_path", [False, True])
async def test_nobody_is_led_out_of_the_tenant(here: e.Entry, by_path: bool) -> None:
    """Whatever stands in `next` of a form or an address, signed in or not; and whatever path was asked for first."""
    browser = await here.browser(by_path=by_path)
    first = f"{browser.root}/"
    for where in ELSEWHERE:
        answer = await browser.sign_in("bob@example.org", next=where)
        assert (answer.status_code, answer.headers["location"]) == (303, first), where
        again = await browser.get("sign-in", params={"next": where})
        assert (again.status_code, again.headers["location"]) == (303, first), where
    if by_path:
        other = await browser.sign_in("bob@example.org", next="/t/umbrella/")
        assert other.headers["location"] == first
    stranger = await here.browser(by_path=by_path)
    for path in ("//evil.example/", "/\\evil.example", "/who?next=//evil.example"):
        answer = await stranger.client.get(f"{httpx.URL(str(stranger.client.base_url) + stranger.root + path)}")
        led = answer.headers.get("location", first)
        assert led.startswith(first), (path, led)


# --- what is another's ----------------------------------------------------------------------------------------------


async def test_what_is_anothers_stays_as_it_is(here: e.Entry) -> None:
    """Every form with something that varies: a user with another's ids, and an admin with those of another tenant."""
    ana, bob = await here.signed_in("ana@example.org"), await here.signed_in("bob@example.org")
    abroad = await here.signed_in("ana@example.org", "umbrella")
    with tenant_context(here.runtime.environment("acme")):
        user = await here.runtime.accounts.by_login("ana@example.org")
        assert user is not None
        sessions = [one.id for one in await here.runtime.accounts.sessions(user.id)]
        link = await here.runtime.proofs.new_link(user.id, proofs.RESET)
    targets = [id_of(here.ground, "ana@example.org"), *sessions]
    form = {"role": "user", "password": "stolen password", "name": "x"}
    before, csrf = state(here.ground), {"bob": await bob.csrf("me"), "abroad": await abroad.csrf("me")}
    there = state(here.ground, "umbrella")
    varying = [one for one in visit.ROUTES if one.method == "POST" and "*" in one.parts and one.parts[0] != "link"]
    for route in varying:
        for target in targets:
            page = "/.tenantry/" + "/".join(route.parts).replace("*", target)
            await bob.client.post(page, data={"csrf": csrf["bob"], **form})
            await abroad.client.post(page, data={"csrf": csrf["abroad"], **form})
    assert (
        await abroad.client.post(f"/.tenantry/link/{link}", data={"csrf": csrf["abroad"], **form})
    ).status_code == 410
    assert len(varying) >= 8
    assert (state(here.ground), state(here.ground, "umbrella")) == (before, there)
    assert await ana.who() == "ana@example.org"


MORE: Final = {
    "id": "0" * 36, "user_id": "0" * 36, "login": "eve@example.org", "role": "admin", "active": "0", "epoch": "99",
    "password_hash": "x", "issuer": "https://evil.example", "subject": "eve", "totp": "x", "created": "2000-01-01",
    "second_factor": "0", "invited": "1", "tenant_id": "umbrella", "tenant": "umbrella", "expires": "9999999999",
    "session": "x", "outside": "x", "via": "sso", "sub": "0", "scope": "admin",
}  # fmt: skip


async def test_no_form_takes_more_than_it_shows(here: e.Entry, mails: w.Inbox) -> None:
    """Columns behind a form, sent with it, change only what it is for; nor does a body to the tokens' address."""
    bob = await here.signed_in("bob@example.org")
    before = here.ground.sql("acme", "SELECT * FROM tenantry_user ORDER BY id")
    assert (await bob.send("me/name", {**MORE, "name": "Robert"})).status_code == 303
    after = here.ground.sql("acme", "SELECT * FROM tenantry_user ORDER BY id")
    differ = [(a, b) for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True) if a != b]
    assert differ == [("", "Robert")]
    with tenant_context(here.runtime.environment("acme")):
        eve = await here.runtime.accounts.invite("eve@example.org")
        link = await here.runtime.proofs.new_link(eve.id, proofs.INVITE)
    stranger = await here.browser()
    assert (
        await stranger.send(f"link/{link}", {**MORE, "login": "ana@example.org", "password": e.PASSWORD})
    ).is_redirect
    role = "SELECT role, active, issuer, login FROM tenantry_user WHERE id = '{}'"
    assert here.ground.sql("acme", role.format(eve.id)) == [("user", 1, None, "eve@example.org")]
    found = await given(stranger, **{name: value for name, value in MORE.items() if name != "login"})
    claims = json.loads(base64.urlsafe_b64decode(found["access_token"].split(".")[1] + "=="))
    acme = here.runtime.environment("acme").tenant
    assert (claims["role"], claims["tenant_id"]) == ("user", acme.id)
    assert claims["sub"] == id_of(here.ground, "bob@example.org")
    assert (await asked(stranger, found["access_token"])).json() == {
        "who": "bob@example.org", "role": "user", "tenant": "acme",
    }  # fmt: skip


# --- who is known ---------------------------------------------------------------------------------------------------


async def test_known_and_unknown_logins_are_the_same_work(here: e.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """One Argon2id each, by the form and at the tokens' address: wrong, unknown, disabled, invited, a provider's.

    The hash is counted, not the clock.
    """
    with tenant_context(here.runtime.environment("acme")):
        await here.runtime.accounts.invite("new@example.org")
        await here.runtime.accounts.provision("https://login.example", "pia", "pia@example.org")
    out = await here.user("out@example.org")
    with tenant_context(here.runtime.environment("acme")):
        await here.runtime.accounts.disable(out.id)
    counted, check = Counter[str](), accounts.check_chosen

    def counting(stored: str, password: str) -> bool:
        counted["hash"] += 1
        return check(stored, password)

    monkeypatch.setattr(accounts, "check_chosen", counting)
    told: dict[str, set[str]] = {"form": set(), "tokens": set()}
    names = ("bob", "nobody", "out", "new", "pia")
    for number, name in enumerate(names):
        login = f"{name}@example.org"
        browser = await here.browser(address=f"10.0.0.{number}")
        counted.clear()
        answer = await browser.sign_in(login, "not this one")
        assert (answer.status_code, counted["hash"]) == (401, 1), login
        told["form"].add(re.sub(r'value="[^"]*"', "", answer.text).replace(login, "…"))
        counted.clear()
        answer = await tokens(browser, grant_type="password", username=login, password="not this one")
        assert (answer.status_code, counted["hash"]) == (400, 1), login
        told["tokens"].add(answer.text)
    assert {kind: len(found) for kind, found in told.items()} == {"form": 1, "tokens": 1}


# --- bodies and heads -----------------------------------------------------------------------------------------------


async def test_bodies_that_are_too_large_or_odd(here: e.Entry) -> None:
    """Every address: one byte too many, in one piece or in many, fields without end, no text; nothing comes of it."""
    browser = await here.signed_in("ana@example.org")
    before = state(here.ground)
    kind = {"content-type": "application/x-www-form-urlencoded"}
    fields = b"&".join(b"a%d=b" % number for number in range(200))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(BODY // 1000 + 1):
            yield b"x" * 1000

    for page in [*posts(id_of(here.ground, "bob@example.org")), "token", "token/revoke"]:
        post = browser.client.post
        address = f"/.tenantry/{page}"
        assert (await post(address, content=b"x" * (BODY + 1), headers=kind)).status_code == 413, page
        assert (await post(address, content=pieces(), headers=kind)).status_code == 413, page
        for body in (fields, b"csrf=%ff", b"\xff\xfe", b"grant_type=%c3%28"):
            assert (await post(address, content=body, headers=kind)).status_code in (400, 403), (page, body[:20])
    assert state(here.ground) == before
    for token in ("x" * 9000, "a.b.c", ".", "é" * 40):
        value = f"Bearer {token}".encode("latin-1")
        answer = await browser.client.get("/who", headers=[(b"authorization", value), (b"accept", b"application/json")])
        assert answer.status_code in (200, 401), token[:9]  # the session stands, where it is no token of ours


async def test_a_forged_host_is_in_no_mail(here: e.Entry, mails: w.Inbox) -> None:
    """Invitations, an admin's links and forgotten passwords name what the platform knows; others' hosts nothing."""
    poison = {"x-forwarded-host": "evil.example", "forwarded": "host=evil.example", "x-host": "evil.example"}
    admin, stranger = await here.signed_in("ana@example.org"), await here.browser()
    bob = id_of(here.ground, "bob@example.org")
    await admin.send("users", {"login": "eve@example.org"}, headers=poison)
    await admin.send(f"users/{bob}/reset", headers=poison)
    await stranger.send("forgot", {"login": "bob@example.org"}, headers=poison)
    forged = await stranger.client.post(
        "/.tenantry/forgot", data={"login": "bob@example.org"}, headers={"host": "evil.example"}
    )
    assert forged.status_code == 404
    await here.runtime.entrance.close()
    assert await here.platform.mails.deliver() == 3
    for mail in await mails.wait(3):
        assert "evil.example" not in mail.as_string()
        assert "https://acme.localhost/.tenantry/link/" in w.text_of(mail)


# --- tokens ---------------------------------------------------------------------------------------------------------


async def test_nothing_but_the_token_names_the_tenant(here: e.Entry) -> None:
    """A tenant's id in the query, a header, a cookie or a body is not looked at; no token opens another tenant."""
    browser, abroad = await here.browser(), await here.browser("umbrella")
    token = (await given(browser))["access_token"]
    other = here.runtime.environment("umbrella").tenant
    for name in (other.id, other.slug):
        named = {"tenant_id": name, "tenant": name}
        headers = {"x-tenant-id": name, "x-tenant": name, "cookie": f"tenant_id={name}"}
        for options in (
            {"params": named},
            {"headers": headers},
            {"method": "POST", "json": named},
            {"method": "POST", "data": named},
        ):
            found = await asked(browser, token, **options)
            assert found.json() == {"who": "bob@example.org", "role": "user", "tenant": "acme"}, options
            assert (await asked(abroad, token, **options)).status_code == 401
    forwarded = {"x-forwarded-host": "acme.localhost", "x-original-host": "acme.localhost"}
    assert (await asked(abroad, token, headers=forwarded)).status_code == 401


async def test_a_refresh_token_is_good_at_its_tenant_alone(here: e.Entry) -> None:
    """Shown elsewhere it gives nothing and ends nothing: whoever has it may use it at home."""
    browser, abroad = await here.browser(), await here.browser("umbrella")
    refresh = (await given(browser))["refresh_token"]
    for page in ("token", "token/revoke"):
        form = {"grant_type": "refresh_token", "refresh_token": refresh, "token": refresh, "tenant_id": "acme"}
        answer = await abroad.client.post(f"/.tenantry/{page}", data=form)
        assert "access_token" not in answer.text
    assert (await tokens(browser, grant_type="refresh_token", refresh_token=refresh)).status_code == 200


def encoded(part: Any) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


async def test_no_token_is_forged(here: e.Entry) -> None:
    """Another algorithm, the public key as a secret, a key that comes along, and a `kid` that points elsewhere."""
    browser, abroad = await here.browser(), await here.browser("umbrella")
    token = (await given(browser))["access_token"]
    head, body, seal = token.split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    raised = encoded(claims | {"role": "admin"})
    public = (await browser.client.get("/.tenantry/jwks.json")).json()["keys"][0]
    theirs = (await abroad.client.get("/.tenantry/jwks.json")).json()["keys"][0]["kid"]
    mine = ECKey.generate_key("P-256")

    def by_secret(secret: bytes, algorithm: str, told: dict[str, Any]) -> str:
        text = f"{encoded(told | {'alg': algorithm})}.{raised}"
        digest = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}[algorithm]
        mac = hmac.digest(secret, text.encode(), digest)
        return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    def by_mine(**more: Any) -> str:
        from joserfc import jws

        registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
        told = base64.urlsafe_b64decode(raised + "==")
        return str(jws.serialize_compact(header | more, told, mine, registry=registry))

    pem, x = ECKey.import_key(public).as_pem(private=False), base64.urlsafe_b64decode(public["x"] + "==")
    kids = (
        theirs, "../../../../etc/passwd", "/dev/null", "x' OR '1'='1", "http://evil.example/key", "", "0" * 5000,
        7, None, header["kid"] + "-1", header["kid"] + "-99999999", header["kid"].replace("production", "dev"),
        header["kid"] + "\n", header["kid"].rpartition(".")[0] + ".-5",
        header["kid"].rpartition(".")[0] + ".١٢٣", ["a"], {"a": 1},
    )  # fmt: skip
    forged = [
        *(f"{encoded(header | {'alg': name})}.{raised}." for name in ("none", "None", "NONE", "nOnE")),
        *(f"{encoded(header | {'alg': name})}.{raised}.{seal}" for name in ("none", "HS256", "RS256", "", 5, None)),
        *(by_secret(secret, "HS256", header) for secret in (pem, x, json.dumps(public).encode(), b"")),
        *(by_secret(secret, "HS512", header) for secret in (pem, x, json.dumps(public).encode(), b"")),
        by_mine(),
        by_mine(jwk=mine.as_dict(private=False)),
        by_mine(jku="https://evil.example/keys", x5u="https://evil.example/cert"),
        by_mine(b64=False, crit=["b64"]),
        *(f"{encoded(header | {'kid': kid})}.{body}.{seal}" for kid in kids),
        *(by_mine(kid=kid) for kid in kids if isinstance(kid, str)),
        *(by_secret(b"", "HS256", header | {"kid": kid}) for kid in ("/dev/null", "../../../../dev/null")),
        f"{head}.{raised}.{seal}",
    ]  # fmt: skip
    for one in forged:
        answer = await asked(browser, one)
        assert answer.status_code == 401, one[:200]
    assert (await asked(browser, token)).status_code == 200

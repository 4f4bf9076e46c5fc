"""Attacks on the portal's forms: from other sites, by other people, with fields and addresses that are not theirs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from sqlalchemy import event

import attacks as a
import ground as g
import people_world as w
from tenantry.config import load
from tenantry.web import Own, hub
from tenantry.web.armour import HEADERS
from tenantry.web.portal.frame import target

ROOT, ANA, BOB = "root@example.org", "ana@example.org", "bob@example.org"


@contextlib.asynccontextmanager
async def world(ground: g.Ground) -> AsyncIterator[w.Portal]:
    """Two tenants, of which one is Ana's and one Bob's, an organization, a superadmin."""
    async with w.portal(ground) as here:
        platform = here.platform
        for slug, mail in (("acme", ANA), ("umbrella", BOB)):
            await platform.operations.finish((await platform.tenants.create(slug)).id)
            await here.add(mail)
            await platform.admins.assign(mail, [slug])
        await platform.organizations.create("Nord", ROOT)
        yield here


async def operation_of(here: w.Portal, slug: str) -> str:
    """The id of an operation on a tenant."""
    return (await here.platform.operations.list(tenant=slug))[0].id


# --- from other sites ---------------------------------------------------------------------------------------------


async def test_no_form_is_taken_from_elsewhere(ground: g.Ground) -> None:
    """Each form of the portal, with no token, another session's, or from another site: refused, nothing is changed."""
    async with world(ground) as here:
        root, other = await here.signed_in(), await here.signed_in()
        own, foreign = await w.csrf(root), await w.csrf(other)
        operation = await operation_of(here, "acme")
        before = a.state(ground)
        tries: list[tuple[dict[str, str], dict[str, str]]] = [
            ({}, {}),
            ({"csrf": ""}, {}),
            ({"csrf": foreign}, {}),
            ({"csrf": own[:-1] + ("0" if own[-1] != "0" else "1")}, {}),
            ({"csrf": own}, {"Sec-Fetch-Site": "cross-site"}),
            ({"csrf": own}, {"Sec-Fetch-Site": "same-site"}),  # a tenant's own page is one
            ({"csrf": own}, {"Origin": "https://evil.example"}),
            ({"csrf": own}, {"Origin": "null"}),
            ({}, {"X-CSRF": foreign}),
        ]
        for path in a.routes("POST"):
            for fields, headers in tries:
                if path in a.OPEN and not {"Sec-Fetch-Site", "Origin"} & headers.keys():
                    continue
                where = f"/admin{a.filled(path, operation_id=operation)}"
                answer = await root.post(where, data=a.WORDS | fields, headers=headers)
                assert answer.status_code == 403, (path, fields, headers, answer.status_code)
        assert list(a.changed(before, a.state(ground))) == []
        assert (await root.post("/admin/me/name", data={"name": "Rita", "csrf": own})).status_code == 303  # the way


async def test_looking_changes_nothing(ground: g.Ground) -> None:
    """No page, asked for by GET, changes a row, whatever stands in its query."""
    async with world(ground) as here:
        root = await here.signed_in()
        operation = await operation_of(here, "acme")
        before = a.state(ground)
        seen = set()
        for path in a.routes("GET"):
            where = f"/admin{a.filled(path, operation_id=operation)}"
            seen.add((await root.get(where, params=a.WORDS)).status_code)
            seen.add((await root.get(where)).status_code)
        for path in a.routes("POST"):
            await root.get(f"/admin{a.filled(path, operation_id=operation)}", params=a.WORDS)
        assert list(a.changed(before, a.state(ground))) == []
        assert seen <= {200, 303, 404, 409, 410, 422}


# --- sessions -----------------------------------------------------------------------------------------------------


async def test_cookies_are_bound(ground: g.Ground) -> None:
    """Read by no script, sent by no other site; over https only there, and set by no other host."""
    async with w.portal(ground) as here:
        for scheme, prefix in (("http", ""), ("https", "__Host-")):
            browser = await here.browser()
            browser.base_url = httpx.URL(f"{scheme}://localhost")
            answer = await w.sign_in(browser, ROOT)
            given = answer.headers.get_list("set-cookie")
            assert {one.partition("=")[0] for one in given} == {f"{prefix}tenantry_admin", f"{prefix}tenantry_device"}
            for one in given:
                parts = {part.strip().lower() for part in one.split(";")[1:]}
                assert {"httponly", "samesite=lax", "path=/"} <= parts
                assert ("secure" in parts) == (scheme == "https")
                assert "domain" not in one.lower()
            assert ("strict-transport-security" in answer.headers) == (scheme == "https")


async def test_a_cookie_is_another_after_each_step(ground: g.Ground) -> None:
    """After a sign-in, a new password, a second factor turned on or off, a link: the one before opens nothing."""
    async with w.portal(ground) as here:
        browser = await here.signed_in()
        cookies = [browser.cookies["tenantry_admin"]]

        async def step(path: str, form: dict[str, str], opened: int = 303) -> httpx.Response:
            answer = await w.send(browser, path, form)
            assert answer.status_code == opened, answer.text
            old = await here.browser(Cookie=f"tenantry_admin={cookies[-1]}")
            assert (await old.get("/admin/me")).status_code == 303
            assert (await browser.get("/admin/me")).status_code == 200
            cookies.append(browser.cookies["tenantry_admin"])
            return answer

        await step("/me/password", {"old": w.PASSWORD, "new": "another horse"})
        page = (await browser.get("/admin/me/second-factor")).text
        sealed = re.search(r'name="sealed" value="([0-9a-f]+)"', page)
        key = re.search(r'class="key">([^<]+)<', page)
        assert sealed
        assert key
        code = pyotp.TOTP(key[1].replace(" ", "")).now()
        answer = await step("/me/second-factor", {"sealed": sealed[1], "code": code}, 200)
        recovery = re.findall(r"<li><code>([\w-]+)</code>", answer.text)
        await step("/me/second-factor/off", {"code": recovery[0]})
        assert "second factor is off" in w.told(await browser.get("/admin/me")) or len(set(cookies)) == 4
        made = await here.platform.admins.reset(ROOT)
        taken = await browser.post(f"/admin/link/{made.link}", data={"password": "third horse"})
        assert taken.status_code == 303
        cookies.append(browser.cookies["tenantry_admin"])
        assert len(set(cookies)) == 5
        for one in cookies[:-1]:
            old = await here.browser(Cookie=f"tenantry_admin={one}")
            assert (await old.get("/admin/me")).status_code == 303


async def test_whoever_is_kept_out_sees_no_more(ground: g.Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disabled admin's session ends at once, and what she follows at the next event after she is asked for again."""
    monkeypatch.setattr(hub, "TRUSTED", -1.0)
    async with world(ground) as here:
        ana = await here.signed_in(ANA)
        operation = await here.platform.tenants.suspend("acme")  # nobody works on it
        seen: list[Any] = []
        first = asyncio.Event()

        async def allowed() -> object:
            return await here.here.sign_in.by_session(ana.cookies["tenantry_admin"])

        async def follow() -> None:
            async for news in here.here.hub.listen(operation.id, here.here.hub.seat(), allowed):
                seen.append(news)
                first.set()

        task = asyncio.create_task(follow())
        await asyncio.wait_for(first.wait(), g.PATIENCE)
        await here.platform.admins.disable(ANA)
        assert (await ana.get("/admin/")).status_code == 303
        assert (await ana.get(f"/admin/operations/{operation.id}/steps")).status_code == 303
        await here.platform.operations.cancel(operation.id)
        await asyncio.wait_for(task, g.PATIENCE)
        assert {news.details.operation.state.value for news in seen if news is not None} == {"queued"}


# --- fields that are not theirs -----------------------------------------------------------------------------------


async def test_no_form_takes_more_than_it_shows(ground: g.Ground) -> None:
    """Fields of the tables behind a form, sent with it, change nothing but what the form is for."""
    more = {
        "id": "0" * 32, "admin_id": "1", "role": "superadmin", "active": "false", "invited": "1", "status": "x",
        "organization": "Nord", "organization_id": "Nord", "password": "eve's password", "password_hash": "x",
        "totp": "x", "superadmin": "true", "tenants": "umbrella", "slugs": "umbrella", "admin": BOB, "client_id": "x",
        "created": "2000-01-01", "expires": "2100-01-01", "digest": "x", "server": "x", "actor": "admin:root",
    }  # fmt: skip
    async with world(ground) as here:
        ana = await here.signed_in(ANA)
        before = await g.rows(here.platform, "admin_user")
        assert (await w.send(ana, "/me/name", {**more, "name": "Anna"})).status_code == 303
        after = await g.rows(here.platform, "admin_user")
        assert _differ(before, after, ("seen",)) == {("ana@example.org", "name")}
        made = await w.send(ana, "/me/tokens", {**more, "name": "mine", "scopes": "tenants:read", "days": "7"})
        assert made.status_code == 200
        (token,) = await g.rows(here.platform, "api_token")
        assert (token["name"], token["scopes"], token["expires"].year) == ("mine", ["tenants:read"], 2026)
        assert token["admin_id"] == next(row["id"] for row in after if row["mail"] == ANA)
        tenants = await g.rows(here.platform, "tenant")
        sent = {**more, "name": "Acme Nord", "plan": "pro", "slug": "stolen", "blueprint": "x"}
        assert (await w.send(ana, "/tenants/acme/edit", sent)).status_code == 303
        await here.platform.operations.finish(await operation_of(here, "acme"))
        found = _differ(tenants, await g.rows(here.platform, "tenant"), ("updated",), "slug")
        assert found == {("acme", "name"), ("acme", "folded"), ("acme", "plan")}
        assert await here.platform.tenants.list(search="stolen") == []


def _differ(before: Any, after: Any, but: tuple[str, ...], key: str = "mail") -> set[tuple[str, str]]:
    old = {row["id"]: row for row in before}
    return {(row[key], name) for row in after for name in row if name not in but and old[row["id"]][name] != row[name]}


async def test_nobody_raises_herself(ground: g.Ground) -> None:
    """An admin neither becomes a superadmin, nor gets another's tenant, nor makes people, by any form or any call."""
    async with world(ground) as here:
        ana = await here.signed_in(ANA)
        before = a.state(ground)
        for path, form in (
            (f"/admins/{ANA}", {"name": "Ana", "role": "superadmin"}),
            (f"/admins/{ANA}/assign", {"slugs": "umbrella"}),
            (f"/admins/{BOB}/disable", {}),
            (f"/admins/{ROOT}/reset", {}),
            ("/admins", {"mail": "eve@example.org", "role": "superadmin"}),
            ("/organizations", {"name": "Eve", "mail": "eve@example.org"}),
            ("/organizations/Nord/assign", {"slugs": "acme"}),
            ("/tenants/-/many", {"action": "assign", "organization": "Nord", "slug": "acme"}),
            ("/tenants/new", {"slug": "eve", "do": "create"}),
            ("/tenants/-/import", {"text": "slug\neve\n"}),
            ("/migrations", {"what": "run"}),
            ("/migrations/rollback", {"tenant": "acme"}),
            ("/verify", {"tenants": "acme"}),
            ("/servers", {"name": "x", "kind": "postgres", "url": "postgresql://x"}),
        ):
            answer = await w.send(ana, path, form)
            assert answer.status_code in (200, 403), (path, answer.status_code)
            assert answer.status_code == 403 or "✗" in answer.text, path
        assert list(a.changed(before, a.state(ground))) == []


# --- what is somebody else's --------------------------------------------------------------------------------------


async def test_what_is_anothers_is_left_alone(ground: g.Ground) -> None:
    """Sessions, tokens, passkeys, enrolments, notes and tenants of Bob's, named by Ana in her own forms."""
    async with world(ground) as here:
        ana, bob = await here.signed_in(ANA), await here.signed_in(BOB)
        await w.send(bob, "/me/tokens", {"name": "bobs", "scopes": "tenants:read", "days": "7"})
        (token,) = await g.rows(here.platform, "api_token")
        sessions = await g.rows(here.platform, "admin_session")
        page = (await bob.get("/admin/me/second-factor")).text
        sealed = re.search(r'name="sealed" value="([0-9a-f]+)"', page)
        key = re.search(r'class="key">([^<]+)<', page)
        assert sealed
        assert key
        code = pyotp.TOTP(key[1].replace(" ", "")).now()
        before = a.state(ground)
        for session in sessions:
            if session["admin_id"] == token["admin_id"]:
                assert (await w.send(ana, f"/me/sessions/{session['id']}/end")).status_code == 303
        assert (await w.send(ana, f"/me/tokens/{token['id']}/revoke")).status_code == 404
        assert (await w.send(ana, "/me/tokens/bobs/revoke")).status_code == 404
        assert (await w.send(ana, "/me/second-factor", {"sealed": sealed[1], "code": code})).status_code == 422
        assert (await w.send(ana, "/me/passkeys/any/remove")).status_code == 422
        many = await w.send(ana, "/tenants/-/many", {"slug": "umbrella", "action": "suspend"})
        assert "There is no tenant &#39;umbrella&#39;" in many.text
        await w.send(ana, "/tenants/acme/hostnames/remove", {"host": "umbrella.localhost"})
        operation = await operation_of(here, "umbrella")
        for path in (f"/operations/{operation}", f"/operations/{operation}/steps", "/tenants/umbrella/connection"):
            assert (await ana.get(f"/admin{path}")).status_code == 404, path
        assert list(a.changed(before, a.state(ground))) == []
        assert (await bob.get("/admin/me")).status_code == 200
        await w.send(bob, "/me/name", {"name": "Robert"})
        ana.cookies.set("tenantry_told", bob.cookies["tenantry_told"], domain="localhost")
        assert w.told(await ana.get("/admin/me")) == ""
        assert "Robert" in w.told(await bob.get("/admin/me"))


async def test_what_is_shown_once_is_shown_to_one(ground: g.Ground) -> None:
    """Of ten who ask at once for a first password, one gets it; of ten who take a link at once, one."""
    async with world(ground) as here:
        root = await here.signed_in()
        csrf = await w.csrf(root)
        asked = [root.post("/admin/tenants/acme/credentials", data={"csrf": csrf}) for _ in range(10)]
        shown = [one for one in await asyncio.gather(*asked) if 'class="once"' in one.text]
        assert len(shown) == 1
        assert shown[0].headers["cache-control"] == "no-store"
        link = (await here.platform.admins.invite("eve@example.org")).link
        browsers = [await here.browser() for _ in range(10)]
        taken = [
            one.post(f"/admin/link/{link}", data={"password": f"the horse of {at}"}) for at, one in enumerate(browsers)
        ]
        codes = sorted(one.status_code for one in await asyncio.gather(*taken))
        assert codes == [303] + [410] * 9


# --- where one is led ---------------------------------------------------------------------------------------------


OUTSIDE = [
    "https://evil.example/", "//evil.example/", "/\\evil.example", "\\\\evil.example", "/admin/\\..\\evil",
    "/admin/../t/acme/", "/admin/%2e%2e/t/acme/", "/admin/%2E%2e//evil.example", "/admin/./../x", "javascript:x",
    "/admin/..//evil.example", "/admin", "admin/", "/admin/\t/x", "/admin/\r\nSet-Cookie: a=b", "", "/api/tenants",
    "/admin/%252e%252e/../x", "http:/admin/", "/admin/..",
]  # fmt: skip


async def test_nobody_is_led_out(ground: g.Ground) -> None:
    """Whatever stands in `next`, one stays in the portal."""
    async with w.portal(ground) as here:
        for path in OUTSIDE:
            assert target(path) == "/admin/"
            form = {"mail": ROOT, "password": w.PASSWORD, "next": path}
            answer = await (await here.browser()).post("/admin/sign-in", data=form)
            assert (answer.status_code, answer.headers["location"]) == (303, "/admin/"), path


@pytest.mark.parametrize("path", ["/admin/", "/admin/tenants/acme", "/admin/?search=a..b&sort=-name", "/admin/audit"])
def test_pages_of_the_portal_are_gone_to(path: str) -> None:
    """What is asked for before one is signed in is shown afterwards."""
    assert target(path) == path


async def test_every_answer_wears_its_armour(
    ground: g.Ground, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pages, refusals, files and faults of our own: in no frame, in no cache; no fault tells a secret."""
    async with world(ground) as here:
        root = await here.signed_in()
        link = (await here.platform.admins.invite("eve@example.org")).link
        paths = ["/admin/", "/admin/none", "/admin/tenants/none", "/api/none", "/api/tenants", "/admin/static/none"]
        answers = [await root.get(path) for path in [*paths, "/api/openapi.json", "/admin/sign-in", "/admin/me"]]
        answers.append(await root.get("/admin/tenants/-/export.csv"))
        answers.append(await root.post("/admin/sign-in", content=b"x" * 1_100_000))
        static = await root.get("/admin/static/portal.css")

        async def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("hush-hush")

        monkeypatch.setattr(type(here.here.sign_in), "link", broken)
        with caplog.at_level(logging.ERROR):
            fault = await (await here.browser()).get(f"/admin/link/{link}")
        assert fault.status_code == 500
        assert "hush-hush" not in fault.text
        assert link not in caplog.text
        for answer in (*answers, fault, static):
            for name, value in HEADERS.items():
                assert answer.headers.get(name) == value, (answer.url, name)
        assert {answer.headers["cache-control"] for answer in (*answers, fault)} == {"no-store"}
        assert "unsafe" not in HEADERS["content-security-policy"]
        assert static.headers["cache-control"].startswith("public")


# --- names in mail, and who is known ------------------------------------------------------------------------------


async def test_mail_names_the_platforms_own_address(ground: g.Ground, tmp_path: Path) -> None:
    """Whatever host a request names, links in mail and on pages lead where tenantry.toml says."""
    with w.inbox(tmp_path) as inbox:
        w.mailing(ground, inbox)
        async with w.portal(ground) as here:
            inbox.mails.clear()
            poison = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
            stranger = await here.browser()
            assert (await stranger.post("/admin/forgot", data={"mail": ROOT}, headers=poison)).status_code == 200
            root = await here.signed_in()
            form = {"csrf": await w.csrf(root), "mail": "eve@example.org", "name": "<b>Eve</b>", "role": "admin"}
            page = await root.post("/admin/admins", data=form, headers=poison)
            await here.here.forgotten.close()
            await here.platform.mails.deliver()
            for mail in await inbox.wait(2):
                plain, rich = w.text_of(mail), w.text_of(mail, "html")
                assert "https://portal.example/admin/link/" in plain
                assert "evil.example" not in plain + rich
                assert "<b>Eve" not in rich
            assert "https://portal.example/admin/link/" in page.text
            assert "evil.example" not in page.text


async def test_known_and_unknown_addresses_are_the_same_work(ground: g.Ground, tmp_path: Path) -> None:
    """The same statements reach the control database, in the same order, before an answer that is the same.

    The work is compared, not the clock: a busy machine tells nothing, and equal work takes equal time.
    """
    with w.inbox(tmp_path) as inbox:
        w.mailing(ground, inbox)
        async with w.portal(ground) as here:
            await here.add("off@example.org")
            await here.platform.admins.disable("off@example.org")
            await here.platform.admins.invite("new@example.org")
            work: list[str] = []

            def note(_: Any, __: Any, statement: str, *___: Any) -> None:
                work.append(statement)

            engine = here.platform.registry.database.engine.sync_engine
            event.listen(engine, "before_cursor_execute", note)
            for path, form in (("/sign-in", {"password": "not this one"}), ("/forgot", {})):
                seen = set()
                for at, mail in enumerate((ROOT, "nobody@example.org", "off@example.org", "new@example.org")):
                    browser = await here.browser(f"10.0.0.{at}")
                    work.clear()
                    answer = await browser.post(f"/admin{path}", data={**form, "mail": mail})
                    headers = tuple(sorted((n, v) for n, v in answer.headers.items() if n != "content-length"))
                    seen.add((answer.status_code, answer.text.replace(mail, "…"), headers, tuple(work)))
                assert len(seen) == 1, path


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("localhost", 200), ("LOCALHOST:8000", 200), ("portal.example", 200), ("evil.example", 404), ("local host", 404)],
)
async def test_no_other_host_leads_to_the_portal(ground: g.Ground, host: str, wanted: int) -> None:
    """Where tenants go by path alone, and any host leads to the platform: it answers at its own."""
    toml = ground.config.read_text().replace("[platform]\n", '[platform]\nurl = "https://portal.example"\n')
    ground.config.write_text(toml)
    own = Own(load(ground.config), front=None)  # type: ignore[arg-type]  # nobody asks for the front page
    transport = httpx.ASGITransport(own, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/admin/sign-in", headers={"Host": host})
    await own.close()
    assert answer.status_code == wanted

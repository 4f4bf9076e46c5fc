"""What the API takes of whom: how many requests, how large ones, and of which kind."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest

import ground as g
from tenantry.config import load
from tenantry.identity.principal import SCOPES, AdminRole
from tenantry.refusals import TooManyRequests
from tenantry.web import rates
from tenantry.web.bounds import BODY_BYTES
from tenantry.web.rates import Meter
from tenantry.web.site import site

OWNER, STRANGER = "203.0.113.7", "203.0.113.8"


@contextlib.asynccontextmanager
async def world(ground: g.Ground, api: str = "") -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient, str]]:
    """Callers at two addresses, and the token of the first."""
    with ground.config.open("a") as config:
        config.write(api)
    app = site(load(ground.config))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(app.state.house.close)
        platform = (await app.state.house.opened()).platform
        await platform.admins.invite("root@example.org", role=AdminRole.SUPERADMIN)
        made = await platform.tokens.create("deploy", SCOPES, admin="root@example.org")
        clients = []
        for address in (OWNER, STRANGER):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))
            client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
            clients.append(await stack.enter_async_context(client))
        yield clients[0], clients[1], made.token


def bearer(token: str) -> Mapping[str, str]:
    """The header that a token comes in."""
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_has_so_many_requests_a_minute(ground: g.Ground) -> None:
    """Each answer says how many are left; the one too many gets 429, and when to come again."""
    async with world(ground, "\n[api]\ntoken_rate = 3\n") as (client, _, token):
        answers = [await client.get("/api/account", headers=bearer(token)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"token";q=3;w=60'}
        refused = answers[-1]
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "request.too_many"
        assert 1 <= int(refused.headers["retry-after"]) <= 20


async def test_strangers_do_not_lock_an_owner_out(ground: g.Ground) -> None:
    """Guesses from an address use up that address' requests without a token, and none of a token's own."""
    async with world(ground, "\n[api]\naddress_rate = 2\n") as (client, stranger, token):
        guesses = [await client.get("/api/tenants", headers=bearer("tenantry_guessed")) for _ in range(3)]
        assert [answer.status_code for answer in guesses] == [401, 401, 429]
        assert (await client.get("/api/tenants")).status_code == 429
        assert (await client.get("/api/tenants", headers=bearer(token))).status_code == 200
        assert (await stranger.get("/api/tenants")).status_code == 401


def test_requests_come_back_as_time_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time at the allowed rate; after a whole minute all of them; another caller has its own."""
    clock = [1000.0]
    monkeypatch.setattr(rates.time, "monotonic", lambda: clock[0])
    meter = Meter("token", 60)
    for _ in range(60):
        meter.count("a")
    with pytest.raises(TooManyRequests) as refused:
        meter.count("a")
    assert refused.value.details["seconds"] == 1
    assert "r=59" in meter.count("b")["RateLimit"]
    clock[0] += 1.0
    meter.count("a")
    with pytest.raises(TooManyRequests):
        meter.count("a")
    clock[0] += 60.0
    assert "r=59" in meter.count("a")["RateLimit"]


def test_callers_take_up_so_much_memory_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the most that are known, who came longest ago is forgotten, and nobody is refused for it."""
    monkeypatch.setattr(rates, "CALLERS", 3)
    meter = Meter("address", 1)
    for caller in "abcd":
        meter.count(caller)
    meter.count("a")
    with pytest.raises(TooManyRequests):
        meter.count("d")


async def test_a_body_that_is_too_large_is_refused(ground: g.Ground) -> None:
    """By what it says of itself, before it comes, and by what comes; in the API and on pages."""
    async with world(ground) as (client, _, token):

        async def parts() -> AsyncIterator[bytes]:
            for _ in range(BODY_BYTES // 2**20 + 1):
                yield b" " * 2**20

        named = {**bearer(token), "Content-Type": "application/json"}
        for content in (b" " * (BODY_BYTES + 1), parts()):
            answer = await client.post("/api/tenants", content=content, headers=named)
            assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")
            assert answer.headers["content-type"] == "application/problem+json"
        form = {"mail": "root@example.org", "password": "x" * BODY_BYTES}
        page = await client.post("/admin/sign-in", data=form)
        assert page.status_code == 413
        assert "longer than" in page.text


async def test_nothing_of_a_strangers_body_is_read(ground: g.Ground) -> None:
    """Whoever has no token gets 401, whatever else is wrong with the request."""
    async with world(ground) as (client, _, _token):
        for content in (b"{", b" " * (BODY_BYTES + 1)):
            named = {"Content-Type": "application/json"}
            assert (await client.post("/api/tenants", content=content, headers=named)).status_code == 401


@pytest.mark.parametrize(
    ("content", "media", "status", "code"),
    [
        (b"slug=acme", "application/x-www-form-urlencoded", 415, "request.media"),
        (b'{"slug": "acme"}', "text/plain", 415, "request.media"),
        (b'{"slug": "acme"}', "", 415, "request.media"),
        (b"{", "application/json", 422, "request.invalid"),
        (b"\xff\xfe\x00", "application/json", 400, "request.unreadable"),
        (b"[]", "application/json", 422, "request.invalid"),
        (b"", "application/json", 422, "request.invalid"),
    ],
)
async def test_what_is_no_json_is_refused(ground: g.Ground, content: bytes, media: str, status: int, code: str) -> None:
    """As a problem with its own code."""
    async with world(ground) as (client, _, token):
        named = {**bearer(token), **({"Content-Type": media} if media else {})}
        answer = await client.post("/api/tenants", content=content, headers=named)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_every_refusal_is_a_problem_with_the_headers_of_the_site(ground: g.Ground) -> None:
    """Also of addresses and methods that are not there; 405 names all methods that are."""
    async with world(ground) as (client, _, token):
        for method, path, status, allow in (
            ("GET", "/api/nothing", 404, None),
            ("GET", "/api/", 404, None),
            ("PUT", "/api/tenants", 405, "GET, POST"),
            ("OPTIONS", "/api/tenants/acme", 405, "DELETE, GET, PATCH"),
            ("GET", "/api/operations/-/none", 404, None),
            ("TRACE", "/admin/tenants", 405, "POST"),
        ):
            answer = await client.request(method, path, headers=bearer(token))
            assert (answer.status_code, answer.headers.get("allow")) == (status, allow), path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["remedy"]
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
        page = await client.get("/admin/tenants")
        assert (page.status_code, page.headers["allow"]) == (405, "POST")
        assert "There is no page here" in page.text


async def test_operations_teams_create_tenants_at_the_admin_door(ground: g.Ground) -> None:
    """POST /admin/tenants is the same verb: a token, a plan, values, 202 with an operation; once for each key."""
    async with world(ground) as (client, _, token):
        body = {"slug": "acme", "name": "Acme & Söhne", "plan": "pro", "settings": {"site_name": "Acme"}}
        named = {**bearer(token), "Idempotency-Key": "order-4711"}
        first = await client.post("/admin/tenants", json=body, headers=named)
        assert first.status_code == 202, first.text
        assert (first.json()["verb"], first.json()["tenant_slug"]) == ("create", "acme")
        again = await client.post("/admin/tenants", json=body, headers=named)
        assert (again.json()["id"], again.headers["idempotent-replayed"]) == (first.json()["id"], "true")
        async with ground.open() as platform:
            await platform.operations.finish(first.json()["id"])
            tenant = (await platform.tenants.show("acme")).tenant
            assert (tenant.plan, tenant.settings["site_name"]) == ("pro", "Acme")
        for headers, sent, status, code in (
            ({}, body, 401, "access.unknown"),
            (bearer(token), body, 409, "slug.taken"),
            (bearer(token), {"slug": "www"}, 409, "slug.reserved"),
            (bearer(token), {"slug": "fresh", "plan": "gold"}, 422, "config.invalid"),
            (bearer(token), {"slug": "fresh", "status": "active"}, 422, "request.invalid"),
        ):
            answer = await client.post("/admin/tenants", json=sent, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code), sent
            assert answer.headers["content-type"] == "application/problem+json"
        assert "<html" in (await client.get("/admin/tenants", follow_redirects=True)).text
        known = (await client.get("/api/openapi.json")).json()
        assert known["paths"]["/admin/tenants"]["post"]["operationId"] == "tenant_provision"
        assert json.dumps(known["paths"]["/admin/tenants"]["post"]).count("$ref") > 1


async def test_a_cookie_opens_nothing_at_the_admin_door(ground: g.Ground) -> None:
    """Only a token does: no other site's form makes a tenant."""
    async with world(ground) as (client, _, _token):
        answer = await client.post("/admin/tenants", json={"slug": "acme"}, headers={"Cookie": "tenantry_admin=x"})
        assert answer.status_code == 401


async def test_a_fault_of_ours_is_a_problem_too(ground: g.Ground) -> None:
    """500 with the headers of every answer, and nothing of what went wrong."""

    async def broken() -> None:
        raise RuntimeError("the inside of the platform")

    app = site(load(ground.config))
    app.add_api_route("/api/broken", broken)
    app.add_api_route("/admin/broken", broken)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="https://localhost") as client:
            answers = [await client.get(f"/{part}/broken") for part in ("api", "admin")]
    finally:
        await app.state.house.close()
    assert [answer.headers["content-type"].partition(";")[0] for answer in answers] == [
        "application/problem+json",
        "text/html",
    ]
    for answer in answers:
        assert answer.status_code == 500
        assert "inside" not in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"

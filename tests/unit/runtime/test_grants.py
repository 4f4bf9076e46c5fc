"""Tokens for a tenant's API: given out, refreshed, ended, and refused in every other case."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from typing import Any

import httpx
import pyotp
import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import tenantry
from people_world import waits
from tenantry.context import reading, tenant_context
from tenantry.credentials import Role
from tenantry.errors import InvalidToken
from tenantry.model import Status
from tenantry.refusals import GrantRefused, TokenReused
from tenantry.runtime import TenantMiddleware, proofs
from tenantry.runtime.settings import Jwt
from tenantry.runtime.tokens import PERIOD, Name
from tenantry.tries import FREE

ACME, OTHER = "http://acme.example.com", "http://other.example.com"
JSON = {"accept": "application/json"}


async def me(_: Any) -> JSONResponse:
    user = tenantry.require()
    return JSONResponse({"login": user.login, "role": user.role, "tenant": tenantry.current_tenant().slug})


class Here:
    """Two tenants with a user eva each, an application, and a clock that stands."""

    def __init__(self, made: Any, acme: Any, other: Any) -> None:
        self.made, self.acme, self.other = made, acme, other
        self.moment = made.clock()
        made.clock = lambda: self.moment
        self.app = Starlette(routes=[Route("/me", me)])
        self.app.add_middleware(TenantMiddleware, runtime=made)

    def client(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=ACME, headers=JSON | headers)

    async def tokens(self, environment: Any = None) -> Any:
        with tenant_context(environment or self.acme):
            (eva,) = await self.made.accounts.list()
            return await self.made.grants.give(eva)

    async def refresh(self, token: str) -> Any:
        with tenant_context(self.acme):
            return await self.made.grants.refresh(token)

    async def login(self, access: str) -> str:
        with tenant_context(self.acme):
            return str((await self.made.grants.user(access.encode())).login)

    async def refused(self, access: str | bytes) -> str:
        """Why an access token is refused here; "" where it is not."""
        with tenant_context(self.acme):
            try:
                await self.made.grants.user(access if isinstance(access, bytes) else access.encode())
            except InvalidToken as error:
                return str(error.message)
        return ""


@pytest.fixture
async def here(world: Any, started: Any) -> Here:
    acme, other = world.tenant("acme"), world.tenant("other")
    made = await started()
    for environment in (acme, other):
        with tenant_context(environment):
            await made.accounts.create("eva", "correct horse", role=Role.ADMIN)
    return Here(made, acme, other)


def claims_of(access: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(access.split(".")[1] + "==")))


def header_of(access: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(access.split(".")[0] + "==")))


def signed(here: Here, header: dict[str, Any], claims: dict[str, Any], environment: Any = None) -> str:
    """A token that the tenant's own key of this period signs."""
    signer = here.made.grants.signer
    whose = environment or here.acme
    key = signer._key(whose, Name(whose.tenant.id, whose.name, int(here.moment) // PERIOD))
    registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
    return jwt.encode(header, claims, key, registry=registry)


async def test_a_session_is_traded_for_tokens(here: Here) -> None:
    """Whoever is signed in gets an access token, which opens the API of this tenant alone, and a refresh token."""
    with tenant_context(here.acme):
        (eva,) = await here.made.accounts.list()
        cookie = f"tenantry_session={await here.made.accounts.begin(eva)}"
    async with here.client() as request:
        given = await request.post("/.tenantry/token", data={"grant_type": "session"}, headers={"cookie": cookie})
        assert (given.status_code, given.headers["cache-control"]) == (200, "no-store")
        found = given.json()
        assert (found["token_type"], found["expires_in"]) == ("Bearer", 300)
        bearer = {"authorization": f"Bearer {found['access_token']}"}
        assert (await request.get("/me", headers=bearer)).json() == {"login": "eva", "role": "admin", "tenant": "acme"}
        foreign = await request.get(OTHER + "/me", headers=bearer)
        assert (foreign.status_code, foreign.json()["code"]) == (401, "token.invalid")
        assert 'error="invalid_token"' in foreign.headers["www-authenticate"]
        anew = await request.post(
            "/.tenantry/token", data={"grant_type": "refresh_token", "refresh_token": found["refresh_token"]}
        )
        assert anew.json()["refresh_token"] != found["refresh_token"]
        claims = claims_of(anew.json()["access_token"])
        assert (claims["tenant_id"], claims["sub"]) == (here.acme.tenant.id, eva.id)
        with tenant_context(here.acme):  # what a session began ends with it
            await here.made.accounts.end_session(*here.made.sessions.read(cookie.partition("=")[2]))
        assert (await request.get("/me", headers=bearer)).status_code == 401
        gone = await request.post(
            "/.tenantry/token", data={"grant_type": "refresh_token", "refresh_token": anew.json()["refresh_token"]}
        )
        assert (gone.status_code, gone.json()["error"]) == (400, "invalid_grant")


async def test_what_the_endpoint_refuses(here: Here) -> None:
    """Nobody, other sites' scripts, unknown grants, other methods and broken bodies get no tokens, always in JSON."""
    with tenant_context(here.acme):
        (eva,) = await here.made.accounts.list()
        cookie = f"tenantry_session={await here.made.accounts.begin(eva)}"
    tries: list[tuple[dict[str, str], dict[str, str], int, str]] = [
        ({"grant_type": "session"}, {}, 400, "invalid_grant"),
        ({"grant_type": "session"}, {"cookie": cookie, "sec-fetch-site": "same-site"}, 403, "invalid_request"),
        ({"grant_type": "session"}, {"cookie": cookie, "origin": OTHER}, 403, "invalid_request"),
        ({"grant_type": "session"}, {"cookie": "tenantry_session=a.b.c"}, 400, "invalid_grant"),
        ({"grant_type": "client_credentials"}, {}, 400, "unsupported_grant_type"),
        ({}, {}, 400, "unsupported_grant_type"),
        ({"grant_type": "password"}, {}, 400, "invalid_grant"),
        ({"grant_type": "password", "username": "eva", "password": "wrong horse"}, {}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token"}, {}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "a.b.c\0é"}, {}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "x" * 10_000}, {}, 400, "invalid_grant"),
        ({"grant_type": "session", "x": "x" * 70_000}, {"cookie": cookie}, 413, ""),
    ]
    async with here.client() as request:
        for form, headers, status, error in tries:
            found = await request.post("/.tenantry/token", data=form, headers=headers)
            assert (found.status_code, found.json().get("error", "")) == (status, error), form
        typed = await request.post("/.tenantry/token", json={"grant_type": "session"})
        assert (typed.status_code, typed.json()["error"]) == (415, "invalid_request")
        assert (await request.get("/.tenantry/token")).status_code == 405
        with reading(), tenant_context(here.acme):
            asked = await request.post("/.tenantry/token", data={"grant_type": "session"}, headers={"cookie": cookie})
        assert (asked.status_code, asked.json()["code"]) == (403, "support.read_only")


async def test_a_password_is_traded_for_tokens(here: Here) -> None:
    """A program that has its user's password gets tokens; with a second factor it sends its code, each once."""
    async with here.client() as request:

        async def ask(**more: str) -> httpx.Response:
            form = {"grant_type": "password", "username": " Eva ", "password": "correct horse"} | more
            return await request.post("/.tenantry/token", data=form)

        assert await here.login((await ask()).json()["access_token"]) == "eva"
        with tenant_context(here.acme):
            (eva,) = await here.made.accounts.list()
            secret = pyotp.random_base32()
            await here.made.proofs.confirm(eva, secret, pyotp.TOTP(secret).now())
            (code, *_) = await here.made.proofs.new_codes(eva.id)
        for wrong in ("", "000000"):
            found = await ask(code=wrong)
            assert (found.status_code, "second factor" in found.json()["error_description"]) == (400, True)
        assert (await ask(code=code)).status_code == 200
        assert (await ask(code=code)).status_code == 400


async def test_nobody_guesses_passwords_here(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some failures the next try waits, as at the sign-in page, whatever it tries."""
    monkeypatch.setattr(proofs, "wait", lambda kind, count: waits(kind, count))
    async with here.client() as request:
        for number in range(40):
            guess = "correct horse" if number == 39 else f"horse {number}"
            form = {"grant_type": "password", "username": "eva", "password": guess}
            found = await request.post("/.tenantry/token", data=form)
            if found.status_code == 429:
                break
        assert (found.status_code, found.json()["error"], number) == (429, "invalid_request", FREE["unknown"])
        assert int(found.headers["retry-after"]) > 0


async def test_a_refresh_token_is_good_once(here: Here) -> None:
    """One that comes a second time ends its whole family: also what was given out for it meanwhile."""
    first = await here.tokens()
    bystander = await here.tokens()
    second = await here.refresh(first.refresh)
    third = await here.refresh(second.refresh)
    assert await here.login(third.access) == await here.login(first.access) == "eva"
    with pytest.raises(TokenReused):
        await here.refresh(first.refresh)
    for stale in (third.refresh, second.refresh, first.refresh):
        with pytest.raises(GrantRefused):
            await here.refresh(stale)
    assert "signed out" in await here.refused(third.access)
    assert await here.login((await here.refresh(bystander.refresh)).access) == "eva"


async def test_two_refreshes_at_once(here: Here) -> None:
    """Of several at the same moment one at most gets tokens, and the family is over."""
    given = await here.tokens()
    found = await asyncio.gather(*(here.refresh(given.refresh) for _ in range(6)), return_exceptions=True)
    got = [one for one in found if not isinstance(one, BaseException)]
    assert len(got) == 1
    assert all(isinstance(one, GrantRefused) for one in found if one not in got)
    assert any(isinstance(one, TokenReused) for one in found)
    with pytest.raises(GrantRefused):
        await here.refresh(got[0].refresh)


async def test_made_up_refresh_tokens_end_nothing(here: Here) -> None:
    """Whoever knows the name of a family, but no key of the tenant, cannot end it; another tenant's key is none."""
    given = await here.tokens()
    family = claims_of(given.access)["sid"]
    with tenant_context(here.other):
        forged = here.made.grants._serializer(here.other).dumps([here.acme.tenant.id, "production", family, "x"])
    for wrong in (str(forged), given.refresh[:-1], given.refresh + "x", family, ""):
        with pytest.raises(GrantRefused):
            await here.refresh(wrong)
    with tenant_context(here.acme):
        misplaced = here.made.grants._serializer(here.acme).dumps([here.acme.tenant.id, "dev", family, "x"])
    with pytest.raises(GrantRefused):
        await here.refresh(str(misplaced))
    assert await here.login((await here.refresh(given.refresh)).access) == "eva"


@pytest.mark.parametrize("end", ["disable", "set_password", "end_sessions", "revoke", "expire"])
async def test_what_ends_them(here: Here, end: str) -> None:
    """A disabled user, a new password, signing out everywhere and revocation end access and refresh at once."""
    given = await here.tokens()
    users = here.made.accounts
    with tenant_context(here.acme):
        (eva,) = await users.list()
        await users.create("ada", "correct horse", role=Role.ADMIN)
        if end == "set_password":
            await users.set_password(eva.id, "another horse")
        elif end == "expire":
            here.moment += 14 * 86400
        elif end != "revoke":
            await getattr(users, end)(eva.id)
    if end == "revoke":
        async with here.client() as request:
            for _ in range(2):
                told = await request.post("/.tenantry/token/revoke", data={"token": given.refresh})
                assert (told.status_code, told.json()) == (200, {})
    assert await here.refused(given.access)
    with pytest.raises(GrantRefused):
        await here.refresh(given.refresh)


async def test_roles_are_those_of_today(here: Here) -> None:
    """What a user may is what the tenant's database says now, whatever a token says."""
    given = await here.tokens()
    with tenant_context(here.acme):
        (eva,) = await here.made.accounts.list()
        await here.made.accounts.create("ada", "correct horse", role=Role.ADMIN)
        await here.made.accounts.set_role(eva.id, Role.USER)
        assert (await here.made.grants.user(given.access.encode())).role is Role.USER
    assert claims_of((await here.refresh(given.refresh)).access)["role"] == "user"


async def test_times(here: Here) -> None:
    """A token that is over, or not valid yet, is refused; half a minute is allowed to clocks."""
    given = await here.tokens()
    header, claims = header_of(given.access), claims_of(given.access)
    for change, refused in (
        ({"exp": int(here.moment) - 31}, "expired"),
        ({"exp": int(here.moment) - 29}, ""),
        ({"nbf": int(here.moment) + 60}, "not yet valid"),
        ({"iat": int(here.moment) + 60}, "future"),
        ({"exp": "soon"}, "NumericDate"),
    ):
        token = signed(here, header, claims | change)
        if refused:
            assert refused in await here.refused(token)
        else:
            assert await here.login(token) == "eva"
    here.moment += 331
    assert "expired" in await here.refused(given.access)


async def test_claims(here: Here) -> None:
    """Each claim must be there and right, though the tenant's own key signed the token."""
    given = await here.tokens()
    header, claims = header_of(given.access), claims_of(given.access)
    with tenant_context(here.other):
        others = claims_of((await here.tokens(here.other)).access)
    for wrong in (
        claims | {"iss": others["iss"]},
        claims | {"aud": "elsewhere"},
        claims | {"aud": []},
        claims | {"tenant_id": here.other.tenant.id},
        claims | {"tenant_id": [here.acme.tenant.id]},
        claims | {"sid": others["sid"]},
        claims | {"sub": others["sub"]},
        *(
            {name: value for name, value in claims.items() if name != left}
            for left in claims
            if left not in ("jti", "role")
        ),
    ):
        assert await here.refused(signed(here, header, wrong)), wrong
    assert await here.login(signed(here, header, claims)) == "eva"


async def test_forged_signatures(here: Here) -> None:
    """No algorithm but ours, no key but the tenant's: also where the token brings a key, or says it needs none."""
    given = await here.tokens()
    header, claims = header_of(given.access), claims_of(given.access)
    head, body, seal = given.access.split(".")
    public = here.made.grants.signer.key_set(here.acme)["keys"][0]
    own = ECKey.generate_key("P-256")

    def encoded(part: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()

    def by(key: Any, **changes: Any) -> str:
        registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
        return str(jwt.encode(header | changes, claims, key, registry=registry))

    def confused(secret: bytes) -> str:
        told = f"{encoded(header | {'alg': 'HS256'})}.{body}"
        mac = hmac.digest(secret, told.encode(), "sha256")
        return f"{told}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    forged = [
        f"{encoded(header | {'alg': 'none'})}.{body}.",
        f"{encoded(header | {'alg': 'None'})}.{body}.{seal}",
        f"{encoded(header | {'alg': 'HS256'})}.{body}.{seal}",
        confused(ECKey.import_key(public).as_pem(private=False)),
        confused(json.dumps(public).encode()),
        by(own),
        by(own, jwk=own.as_dict(private=False)),
        by(own, jku="https://evil.example/keys"),
        f"{head}.{encoded(claims | {'role': 'admin', 'x': 1})}.{seal}",
        f"{head}.{body}.{seal[:-2]}",
        f"{head}.{body}.",
        f"{head}.{body}",
        signed(here, header | {"typ": "JWT"}, claims),
        signed(here, {name: value for name, value in header.items() if name != "kid"}, claims),
        signed(here, header | {"kid": header["kid"].replace("production", "dev")}, claims),
        signed(here, header | {"kid": header["kid"] + "0"}, claims),
        signed(here, header, claims, here.other),
        signed(here, header | {"kid": header["kid"].replace(here.acme.tenant.id, here.other.tenant.id)}, claims),
        "x" * 9000,
        "",
    ]
    for token in forged:
        assert await here.refused(token), token
    async with here.client() as request:
        for token in (forged[0], forged[3], forged[5], forged[15]):
            found = await request.get("/me", headers={"authorization": f"Bearer {token}"})
            assert found.status_code == 401
    assert await here.login(given.access) == "eva"


async def test_keys_rotate(here: Here) -> None:
    """Every 30 days another key signs, announced before; the old one stays until its last token is over."""
    here.moment = (here.moment // PERIOD + 1) * PERIOD - 100  # shortly before a change
    given = await here.tokens()
    async with here.client() as request:

        async def published() -> tuple[KeySet, set[str]]:
            found = await request.get("/.tenantry/jwks.json")
            assert found.headers["cache-control"] == "public, max-age=3600"
            assert not any("d" in key for key in found.json()["keys"])
            return KeySet.import_key_set(found.json()), {key["kid"] for key in found.json()["keys"]}

        keys, before = await published()
        here.moment += 150
        later = await here.tokens()
        assert header_of(later.access)["kid"] != header_of(given.access)["kid"]
        assert jwt.decode(later.access, keys, algorithms=["ES256"]).claims["sub"]  # by what was kept from before
        assert await here.login(given.access) == await here.login(later.access) == "eva"
        _, between = await published()
        assert before < between
        here.moment += 300
        _, after = await published()
        assert header_of(given.access)["kid"] not in after
        assert len(after) == 2
    for months in (1, 2):
        here.moment += PERIOD
        assert ("serves no more" in await here.refused(later.access)) is (months == 2)


async def test_tenants_have_keys_of_their_own(here: Here) -> None:
    """No two tenants or environments share a key."""
    signer = here.made.grants.signer
    sets = [signer.key_set(environment)["keys"] for environment in (here.acme, here.other)]
    points = [key["x"] for keys in sets for key in keys]
    assert len(set(points)) == len(points) == 4


async def test_a_token_names_its_tenant(world: Any, here: Here, started: Any) -> None:
    """Where routing goes by tokens of tenants' own, the verified token alone names the tenant."""
    made = await started(by=("host", "path", "jwt"), jwt=Jwt({}, own=True))
    app = Starlette(routes=[Route("/me", me)])
    app.add_middleware(TenantMiddleware, runtime=made)
    given = await here.tokens()
    claims = claims_of(given.access)
    bearer = {"authorization": f"Bearer {given.access}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), headers=JSON) as request:
        for host in ("http://example.com", "http://api.elsewhere.example", ACME):
            told = await request.get(f"{host}/me?tenant_id=other", headers=bearer | {"x-tenant-id": "other"})
            assert told.json() == {"login": "eva", "role": "admin", "tenant": "acme"}
        assert (await request.get(OTHER + "/me", headers=bearer)).json()["code"] == "token.invalid"
        for wrong in (
            signed(here, header_of(given.access), claims | {"tenant_id": here.other.tenant.id}),
            signed(here, header_of(given.access) | {"kid": "no.such.1"}, claims),
            "abc",
        ):
            found = await request.get("http://example.com/me", headers={"authorization": f"Bearer {wrong}"})
            assert (found.status_code, found.json()["code"]) == (401, "token.invalid")


async def test_a_suspended_tenants_tokens(world: Any, here: Here, until: Any) -> None:
    """The tokens of a tenant that is suspended open nothing as soon as the change is known, and are not refreshed."""
    given = await here.tokens()
    async with here.client(authorization=f"Bearer {given.access}") as request:
        assert (await request.get("/me")).status_code == 200
        world.change(here.acme, status=Status.SUSPENDED)
        await until(lambda: not here.made.resolver.table.current(here.acme).tenant.status.served)
        assert (await request.get("/me")).json()["code"] == "tenant.not_served"
        anew = await request.post(
            "/.tenantry/token", data={"grant_type": "refresh_token", "refresh_token": given.refresh}
        )
        assert (anew.status_code, anew.json()["code"]) == (403, "tenant.not_served")


async def test_an_applications_own_tokens(here: Here) -> None:
    """A bearer token that is none of ours is the application's own matter: nobody of the tenant's is signed in."""
    async with here.client(authorization="Bearer abc") as request:
        found = await request.get("/me")
        assert (found.status_code, found.json()["code"]) == (401, "user.unknown")

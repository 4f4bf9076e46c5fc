"""What is refused of a provider: tokens made for the purpose, mixed-up answers, addresses inside the platform."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

import ground as g
from providers import Forger, Names, confused, curve_key, forger, names, new_key, unsigned
from sso_world import World, query_of, world
from tenantry.errors import InvalidToken
from tenantry.identity.sso import fetch, provider
from tenantry.identity.sso.fetch import Fetch
from tenantry.refusals import GrantRefused
from tenantry.sso_refusals import DomainTaken, DomainUnproven, PasswordsOff, ProviderUnreachable, SsoInvalid, SsoUntried

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOGOUT = "http://schemas.openid.net/event/backchannel-logout"


@dataclass
class Forged:
    """An organization whose provider says anything."""

    world: World
    op: Forger
    id: str

    async def back(self, token: str | None = None, **changes: Any) -> httpx.Response:
        """What the platform answers when the provider gives this token, or a right one with changes."""
        browser = await self.world.browser()
        asked = query_of(await self.world.begin(browser, "acme"))
        self.op.give(token or self.op.sign(self.op.claims(asked["nonce"], **changes)))
        return await self.answered(browser, asked["state"])

    async def answered(self, browser: httpx.AsyncClient, state: str, **query: str) -> httpx.Response:
        """The provider's answer, as the browser brings it."""
        where = self.world.own(f"/sso/{self.id}/callback")
        return await browser.get(where, params={"code": "c", "state": state, "iss": self.op.issuer, **query})

    async def told_of_end(self, token: str) -> httpx.Response:
        """What a provider hears that tells of a sign-out."""
        browser = await self.world.browser()
        return await browser.post(self.world.own(f"/sso/{self.id}/back-channel"), data={"logout_token": token})

    def end(self, **changes: Any) -> dict[str, Any]:
        """The claims of a right notice of a sign-out, with changes."""
        right = self.op.claims("", jti=str(time.time_ns()), events={LOGOUT: {}}, nonce=None, sid="s-1")
        return {name: value for name, value in (right | changes).items() if value is not None}


@pytest.fixture(scope="module")
def known() -> Iterator[Names]:
    """A name server."""
    with names() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forged(tmp_path_factory: pytest.TempPathFactory, known: Names) -> AsyncIterator[Forged]:
    """The platform with it."""
    with forger() as op:
        async with world(tmp_path_factory.mktemp("sso"), known) as made:
            await made.create("acme")
            organization = await made.organization("Acme", "acme", domain="acme.example")
            await made.sign_on(organization, op.issuer)
            yield Forged(made, op, organization)


async def test_a_right_token_is_taken(forged: Forged) -> None:
    """So that what is refused below is refused for what is wrong with it; RS256, PS256 and ES256 are taken."""
    assert (await forged.back()).status_code == 303
    browser = await forged.world.browser()
    asked = query_of(await forged.world.begin(browser, "acme"))
    forged.op.give(forged.op.sign(forged.op.claims(asked["nonce"]), alg="PS256"))
    assert (await forged.answered(browser, asked["state"])).status_code == 303
    curve = curve_key()
    forged.op.keys.append(curve.as_dict(private=False))
    forged.world.platform.sso.sign_ons.providers._kept.clear()  # as after a day
    asked = query_of(await forged.world.begin(browser, "acme"))
    forged.op.give(forged.op.sign(forged.op.claims(asked["nonce"]), curve, alg="ES256"))
    assert (await forged.answered(browser, asked["state"])).status_code == 303


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("sso.issuer", {"iss": "https://other.example"}),
        ("sso.issuer", {"iss": None}),
        ("sso.audience", {"aud": "another"}),
        ("sso.audience", {"aud": []}),
        ("sso.party", {"azp": "another"}),
        ("sso.party", {"aud": ["tenantry", "another"]}),
        ("sso.nonce", {"nonce": "of-another-sign-in"}),
        ("sso.nonce", {"nonce": None}),
        ("sso.expired", {"exp": int(time.time()) - 3600}),
        ("sso.claim", {"exp": None}),
        ("sso.claim", {"exp": "soon"}),
        ("sso.too_early", {"nbf": int(time.time()) + 3600}),
        ("sso.too_early", {"iat": int(time.time()) + 3600}),
        ("sso.claim", {"sub": ""}),
        ("sso.claim", {"sub": 7}),
        ("sso.claim", {"email": None}),
        ("sso.claim", {"email": ["eva@acme.example"]}),
        ("sso.mail_unverified", {"email_verified": None}),
        ("sso.mail_unverified", {"email_verified": "true"}),
        ("sso.mail_foreign", {"email": "eva@umbrella.example"}),
        ("sso.mail_foreign", {"email": "eva@sub.acme.example"}),
        ("sso.mail_foreign", {"email": "eva@acme.example.evil.example"}),
    ],
)
async def test_a_wrong_claim_is_refused(forged: Forged, code: str, changes: dict[str, Any]) -> None:
    """Each by its own name, and nobody is made."""
    before = len(await forged.world.users("acme"))
    answer = await forged.back(**{"email": "eva@acme.example", **changes})
    assert answer.status_code == 403, answer.text
    assert f"({code})" in answer.text
    assert len(await forged.world.users("acme")) == before


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("sso.algorithm", lambda op, claims: confused(op.key, claims)),
        ("sso.algorithm", lambda op, claims: unsigned(claims)),
        ("sso.algorithm", lambda op, claims: unsigned(claims).replace("bm9uZS", "Tm9OZS")),
        ("sso.signature", lambda op, claims: op.sign(claims, new_key())),
        ("sso.signature", lambda op, claims: op.sign(claims, new_key(), kid=op.key.kid)),
        ("sso.signature", lambda op, claims: op.sign(claims)[:-8] + "AAAAAAAA"),
        ("sso.signature", lambda op, claims: "no token"),
        ("sso.signature", lambda op, claims: op.sign({**claims, "groups": ["x" * 40_000]})),
    ],
    ids=["hmac", "none", "none-odd", "stranger", "stranger-same-kid", "cut", "nothing", "huge"],
)
async def test_a_wrong_signature_is_refused(
    forged: Forged, code: str, make: Callable[[Forger, dict[str, Any]], str]
) -> None:
    """Algorithm confusion, no signature, another key, and what is no token at all."""
    browser = await forged.world.browser()
    asked = query_of(await forged.world.begin(browser, "acme"))
    forged.op.give(make(forged.op, forged.op.claims(asked["nonce"])))
    answer = await forged.answered(browser, asked["state"])
    assert answer.status_code == 403, answer.text
    assert f"({code})" in answer.text


async def test_a_nonce_counts_in_its_own_sign_in(forged: Forged) -> None:
    """A token that was right before is refused in the next sign-in: its nonce is another one's."""
    browser = await forged.world.browser()
    asked = query_of(await forged.world.begin(browser, "acme"))
    token = forged.op.sign(forged.op.claims(asked["nonce"]))
    forged.op.give(token)
    assert (await forged.answered(browser, asked["state"])).status_code == 303
    assert "(sso.nonce)" in (await forged.back(token)).text


@pytest.mark.parametrize("query", [{"iss": "https://evil.example"}, {"iss": ""}])
async def test_mixed_up_issuers_are_refused(forged: Forged, query: dict[str, str]) -> None:
    """An answer that names another provider, or none where this one names itself (RFC 9207); its code goes nowhere."""
    browser = await forged.world.browser()
    asked = query_of(await forged.world.begin(browser, "acme"))
    forged.op.asked.clear()
    answer = await forged.answered(browser, asked["state"], **query)
    assert "(sso.mixed_up)" in answer.text
    assert "/token" not in forged.op.asked


async def test_what_the_provider_refuses_is_told(forged: Forged) -> None:
    """Its error is shown as text, whatever stands in it."""
    browser = await forged.world.browser()
    asked = query_of(await forged.world.begin(browser, "acme"))
    said = {"error": "access_denied", "error_description": "<script>alert(1)</script>"}
    answer = await forged.answered(browser, asked["state"], **said)
    assert "(sso.provider_refused)" in answer.text
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    "changes",
    [{"events": {}}, {"events": None}, {"nonce": "n"}, {"jti": None}, {"sub": None, "sid": None}],
    ids=["another-event", "no-event", "id-token", "no-jti", "nobody"],
)
async def test_a_wrong_notice_of_a_sign_out_ends_nothing(forged: Forged, changes: dict[str, Any]) -> None:
    """It is refused as OpenID Connect Back-Channel Logout 1.0, section 2.6, wants it."""
    answer = await forged.told_of_end(forged.op.sign(forged.end(**changes)))
    assert (answer.status_code, answer.json()["error_description"]) == (400, "sso.logout")


async def test_a_notice_of_a_sign_out_counts_once_and_signed(forged: Forged) -> None:
    """It ends the session; replayed, or signed by a stranger, it is refused."""
    browser = await forged.world.browser()
    asked = query_of(await forged.world.begin(browser, "acme"))
    forged.op.give(forged.op.sign(forged.op.claims(asked["nonce"])))
    await browser.get((await forged.answered(browser, asked["state"])).headers["location"])
    assert await forged.world.who(browser, "acme") == "eva@acme.example user"
    assert (await forged.told_of_end(forged.op.sign(forged.end(), new_key(), kid=forged.op.key.kid))).status_code == 400
    assert await forged.world.who(browser, "acme") == "eva@acme.example user"
    notice = forged.op.sign(forged.end())
    assert (await forged.told_of_end(notice)).status_code == 200
    assert await forged.world.who(browser, "acme") == "nobody: token.invalid"
    assert (await forged.told_of_end(notice)).json()["error_description"] == "sso.logout"


async def test_the_front_channel_wants_the_providers_own_session(forged: Forged) -> None:
    """Without the session's name, or by another issuer, nothing ends: anybody may lead a browser there."""
    browser = await forged.world.browser()
    asked = query_of(await forged.world.begin(browser, "acme"))
    forged.op.give(forged.op.sign(forged.op.claims(asked["nonce"], sid="front-1")))
    await browser.get((await forged.answered(browser, asked["state"])).headers["location"])
    where = forged.world.own(f"/sso/{forged.id}/front-channel")
    for query in ({}, {"iss": forged.op.issuer}, {"iss": "https://evil.example", "sid": "front-1"}):
        assert (await browser.get(where, params=query)).status_code == 400
    assert await forged.world.who(browser, "acme") == "eva@acme.example user"
    assert (await browser.get(where, params={"iss": forged.op.issuer, "sid": "front-1"})).status_code == 200
    assert await forged.world.who(browser, "acme") == "nobody: token.invalid"


async def test_sso_only_turns_passwords_off(forged: Forged) -> None:
    """At once, for sessions that were begun by them too; turned off again, passwords open as before."""
    from tenantry.context import tenant_context

    runtime, sso = forged.world.runtime, forged.world.platform.sso

    def here() -> Any:
        return tenant_context(runtime.resolver.table.slugs["acme"][0])

    async def is_only(wanted: bool) -> None:
        async def known() -> bool:
            sign_on = runtime.resolver.table.slugs["acme"][0].tenant.sign_on
            return sign_on is not None and sign_on.only is wanted

        await g.until(known)

    assert (await forged.back()).status_code == 303
    with here():
        user = await runtime.accounts.create("ida@elsewhere.example", "correct horse battery")
        session = runtime.sessions.read(await runtime.accounts.begin(user))
        tokens = await runtime.grants.give(user)
    await sso.set("Acme", "tenantry", None, forged.op.issuer, only=True)
    await is_only(True)
    with here():
        with pytest.raises(PasswordsOff):
            await runtime.accounts.authenticate("ida@elsewhere.example", "correct horse battery")
        with pytest.raises(PasswordsOff):
            await runtime.accounts.begin(user, via="passkey")
        with pytest.raises(InvalidToken):
            await runtime.accounts.signed_in(session)
        with pytest.raises(InvalidToken):
            await runtime.grants.user(tokens.access.encode())
        with pytest.raises(GrantRefused):
            await runtime.grants.refresh(tokens.refresh)
    browser = await forged.world.browser()
    forgotten = await browser.get(forged.world.at("acme", "/.tenantry/forgot"))
    assert "You sign in here with Acme" in forgotten.text
    assert 'name="login"' not in forgotten.text
    assert (await forged.back()).status_code == 303
    await sso.set("Acme", "tenantry", None, forged.op.issuer)
    await is_only(False)
    with here():
        assert (await runtime.accounts.authenticate("ida@elsewhere.example", "correct horse battery")).id == user.id


async def test_sso_only_needs_a_sign_in_that_worked(forged: Forged) -> None:
    """As it is set up now: a wrong secret keeps nobody out. What cannot do that may be changed meanwhile."""
    sso, issuer = forged.world.platform.sso, forged.op.issuer
    await sso.set("Acme", "tenantry", "first", issuer)
    with pytest.raises(SsoUntried):
        await sso.set("Acme", "tenantry", None, issuer, only=True)
    row = (await sso.show("Acme")).row
    assert row is not None
    assert (row.only, row.worked) == (False, None)
    browser = await forged.world.browser()
    asked = query_of((await browser.get(await sso.trial("Acme"))).headers["location"])
    forged.op.give(forged.op.sign(forged.op.claims(asked["nonce"], email="eva@evil.example")))
    await forged.answered(browser, asked["state"])
    with pytest.raises(SsoUntried):  # that one did not work
        await sso.set("Acme", "tenantry", None, issuer, only=True)
    asked = query_of((await browser.get(await sso.trial("Acme"))).headers["location"])
    forged.op.give(forged.op.sign(forged.op.claims(asked["nonce"])))
    assert "The sign-in works" in (await forged.answered(browser, asked["state"])).text
    for same in (None, "first"):
        await sso.set("Acme", "tenantry", same, issuer, only=True, claim="groups", roles={"it": "admin"})
    wrong: list[dict[str, Any]] = [{"secret": "second"}, {"client_id": "other"}, {"default_role": "none"}]
    for changes in wrong:
        with pytest.raises(SsoUntried):
            await sso.set("Acme", **{"client_id": "tenantry", "issuer": issuer, "only": True} | changes)
    with pytest.raises(SsoInvalid, match=r"acme\.example"):
        await sso.remove_domain("Acme", "acme.example")
    await sso.set("Acme", "tenantry", "second", issuer)  # the way back asks nobody
    with pytest.raises(SsoUntried):
        await sso.set("Acme", "tenantry", None, issuer, only=True)


async def test_sessions_of_a_provider_end_with_it_for_good(forged: Forged) -> None:
    """Turned off and on again, none comes back, and no handover of before begins one; its tokens are over with it."""
    from tenantry.context import tenant_context

    world, runtime = forged.world, forged.world.runtime
    browser, late = await world.browser(), await world.browser()
    handed = {}
    for one in (browser, late):
        asked = query_of(await world.begin(one, "acme"))
        forged.op.give(forged.op.sign(forged.op.claims(asked["nonce"])))
        handed[one] = (await forged.answered(one, asked["state"])).headers["location"]
    await browser.get(handed[browser])
    assert await world.who(browser, "acme") == "eva@acme.example user"
    with tenant_context(runtime.resolver.table.slugs["acme"][0]):
        session = runtime.sessions.read(browser.cookies["tenantry_session"])
        tokens = await runtime.grants.give(await runtime.accounts.signed_in(session), session.id)
    way = await _way(forged)
    await world.platform.sso.remove("Acme")
    await world.knows("acme", False)
    assert (await world.who(browser, "acme")).startswith("nobody")
    await world.sign_on("Acme", forged.op.issuer)
    await g.until(lambda: _changed(forged, way))
    assert (await world.who(browser, "acme")).startswith("nobody")
    assert (await late.get(handed[late])).status_code != 303
    with tenant_context(runtime.resolver.table.slugs["acme"][0]), pytest.raises(GrantRefused):
        await runtime.grants.refresh(tokens.refresh)
    assert (await forged.back()).status_code == 303


async def _way(forged: Forged) -> str:
    found = forged.world.runtime.resolver.table.slugs["acme"][0].tenant.sign_on
    return found.way if found else ""


async def _changed(forged: Forged, way: str) -> bool:
    return await _way(forged) not in ("", way)


# --- domains ------------------------------------------------------------------------------------------------------


async def test_a_domain_is_proven_by_dns_and_by_one_organization(forged: Forged) -> None:
    """Not without the record, not by another token, and not where another organization was first."""
    sso = forged.world.platform.sso
    await forged.world.platform.organizations.create("Rival", "it@rival.example")
    claimed = (await sso.add_domain("Rival", "@New.Example.")).domains[0]
    assert claimed.domain == "new.example"
    with pytest.raises(DomainUnproven, match="is not there"):
        await sso.prove_domain("Rival", "new.example")
    forged.world.names.texts[claimed.record] = ["tenantry=another"]
    with pytest.raises(DomainUnproven, match="something else"):
        await sso.prove_domain("Rival", "new.example")
    other = (await sso.add_domain("Rival", "acme.example")).domains[0]
    forged.world.names.texts[other.record].append(other.value)
    with pytest.raises(DomainTaken):
        await sso.prove_domain("Rival", "acme.example")
    for wrong in ("", "localhost", "10.0.0.1", "a b.example", "acme.example:80", "x" * 300 + ".example"):
        with pytest.raises(SsoInvalid):
            await sso.add_domain("Rival", wrong)
    await forged.world.platform.organizations.remove("Rival")


# --- asking providers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[2002:7f00:1::]/",
        "https://0.0.0.0/",
        "http://example.com/",
        "file:///etc/passwd",
        "https://user:secret@example.com/",
    ],
)
async def test_nothing_inside_is_asked(url: str) -> None:
    """Addresses of the platform's own network are refused before anything is sent, and so is what is no https."""
    with pytest.raises(ProviderUnreachable):
        await Fetch().get(url)


async def test_answers_have_an_end(forged: Forged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redirects are not followed, and no more is read than there may be."""
    ask = Fetch(inside=True)
    forged.op.answers["/away"] = (302, b"http://169.254.169.254/")
    with pytest.raises(ProviderUnreachable, match="redirects"):
        await ask.get(f"{forged.op.issuer}/away")
    forged.op.answers["/much"] = (200, b"x" * (fetch.MOST + 1))
    with pytest.raises(ProviderUnreachable, match="more than"):
        await ask.get(f"{forged.op.issuer}/much")


async def test_unknown_keys_are_looked_for_but_not_time_and_again(forged: Forged) -> None:
    """Tokens with made-up keys do not make the platform ask a provider each time."""
    await forged.back(forged.op.sign(forged.op.claims("n"), new_key()))
    forged.op.asked.clear()
    for _ in range(5):
        answer = await forged.back(forged.op.sign(forged.op.claims("n"), new_key()))
        assert "(sso.signature)" in answer.text
    assert forged.op.asked.count("/jwks") == 0
    assert provider.AGAIN > 0


async def test_a_provider_that_is_another_than_it_says_is_refused(forged: Forged) -> None:
    """Its metadata names another issuer: told in words, by the check and to whoever signs in."""
    forged.op.told = {"issuer": "https://evil.example"}
    forged.world.platform.sso.sign_ons.providers._kept.clear()
    try:
        found = await forged.world.platform.sso.check("Acme")
        assert not found[0].ok
        assert "https://evil.example" in found[0].what
        browser = await forged.world.browser()
        start = await browser.get(forged.world.at("acme", "/.tenantry/sso/start"))
        assert "(sso.provider)" in (await browser.get(start.headers["location"])).text
    finally:
        forged.op.told = {}
        forged.world.platform.sso.sign_ons.providers._kept.clear()


async def test_a_trial_tells_each_claim_and_each_fault_in_words(forged: Forged) -> None:
    """It makes no user and opens no tenant; a fault is told after what is right."""
    browser = await forged.world.browser()
    before = len(await forged.world.users("acme"))
    for mail, told in (("eva@acme.example", "The sign-in works"), ("eva@evil.example", "does not work yet")):
        address = await forged.world.platform.sso.trial("Acme")
        asked = query_of((await browser.get(address)).headers["location"])
        forged.op.give(forged.op.sign(forged.op.claims(asked["nonce"], email=mail, name="<b>Eva</b>")))
        page = (await forged.answered(browser, asked["state"])).text
        assert told in page
        assert "client id, secret and redirect URI are right" in page
        assert mail in page
        assert "<b>Eva" not in page
    assert "sso.mail_foreign" in page
    assert len(await forged.world.users("acme")) == before

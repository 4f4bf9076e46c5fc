"""An organization's people sign in by a real provider, at all of its tenants and at no other one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from providers import Names, Provider, consent, names
from sso_world import World, query_of, world

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Two:
    """Two organizations with two providers."""

    world: World
    acme: Provider
    umbrella: Provider
    ids: dict[str, str]

    async def come_in(self, browser: httpx.AsyncClient, slug: str, login: str) -> httpx.Response:
        """Sign in at a tenant; its last answer, which leads on."""
        return await browser.get(await self.handed_over(browser, slug, login))

    async def handed_over(self, browser: httpx.AsyncClient, slug: str, login: str) -> str:
        """Sign in; the address at the tenant at which that ends."""
        back = await consent(browser, await self.world.begin(browser, slug, "/desk?page=2"), login)
        answer = await browser.get(back)
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])


@pytest.fixture(scope="module")
def known() -> Iterator[Names]:
    """A name server."""
    with names() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory, known: Names) -> AsyncIterator[Two]:
    """The platform with both."""
    root = tmp_path_factory.mktemp("sso")
    async with world(root, known) as made:
        await made.create("acme", "acme-two", "umbrella", "free")
        ids = {
            "acme": await made.organization("Acme", "acme", "acme-two", domain="acme.example"),
            "umbrella": await made.organization("Umbrella", "umbrella", domain="umbrella.example"),
        }
        providers = []
        for name, organization in ids.items():
            provider = Provider(root, made.own(f"/sso/{organization}"))
            if name == "acme":
                provider.people = {
                    "boss@acme.example": {"groups": ["staff", "it-department"]},
                    "new@acme.example": {"email_verified": False},
                    "guest@acme.example": {"email": "ceo@umbrella.example"},
                    "admin@acme.localhost": {"email": "admin@acme.example"},
                }
            provider.start()
            made.stack.callback(provider.stop)
            providers.append(provider)
            roles = {"it-department": "admin", "editors": "superuser"}
            await made.sign_on(organization, provider.issuer, claim="groups", roles=roles)
        yield Two(made, *providers, ids)


async def test_one_sign_in_opens_all_tenants_of_the_organization(two: Two) -> None:
    """Somebody new comes in by the provider with the usual role, back to where she wanted to go; then at the second
    tenant without any question; at another organization's and at nobody's she stays a stranger."""
    browser = await two.world.browser()
    last = await two.come_in(browser, "acme", "eva@acme.example")
    assert (last.status_code, last.headers["location"]) == (303, "/desk?page=2")
    assert await two.world.who(browser, "acme") == "eva@acme.example user"
    assert await two.world.who(browser, "acme-two") == "nobody"
    await two.come_in(browser, "acme-two", "unasked")
    assert await two.world.who(browser, "acme-two") == "eva@acme.example user"
    assert await two.world.who(browser, "umbrella") == "nobody"
    made = [user for user in await two.world.users("acme") if user.login == "eva@acme.example"]
    assert [(user.name, user.issuer, user.subject) for user in made] == [("eva", two.acme.issuer, "eva@acme.example")]


async def test_a_group_gives_a_role(two: Two) -> None:
    """Of several groups the strongest role counts."""
    browser = await two.world.browser()
    await two.come_in(browser, "acme", "boss@acme.example")
    assert await two.world.who(browser, "acme") == "boss@acme.example admin"


async def test_pkce_nonce_and_state_go_along(two: Two) -> None:
    """Each of them is there, and new at each sign-in; the provider knows one address, whatever the tenant is."""
    browser = await two.world.browser()
    first, second = [query_of(await two.world.begin(browser, slug)) for slug in ("acme", "acme-two")]
    assert first["code_challenge_method"] == "S256"
    assert all(len(first[name]) >= 43 and first[name] != second[name] for name in ("code_challenge", "nonce", "state"))
    assert first["redirect_uri"] == second["redirect_uri"] == two.world.own(f"/sso/{two.ids['acme']}/callback")


async def test_an_answer_counts_once(two: Two) -> None:
    """A replayed state is refused, and so is the provider's code with it."""
    browser = await two.world.browser()
    back = await consent(browser, await two.world.begin(browser, "acme"), "eva@acme.example")
    cookies = httpx.Cookies(browser.cookies)
    assert (await browser.get(back)).status_code == 303
    browser.cookies = cookies  # as somebody has them who copied the browser's
    again = await browser.get(back)
    assert again.status_code == 403
    assert "sso.state" in again.text


async def test_the_providers_code_counts_once(two: Two) -> None:
    """A code that was redeemed is refused by the provider in another sign-in, and that is told."""
    browser = await two.world.browser()
    back = await consent(browser, await two.world.begin(browser, "acme"), "eva@acme.example")
    assert (await browser.get(back)).status_code == 303
    other = await consent(browser, await two.world.begin(browser, "acme"), "eva@acme.example")
    swapped = httpx.URL(other).copy_merge_params({"code": query_of(back)["code"]})
    answer = await browser.get(swapped)
    assert answer.status_code == 502
    assert "sso.code" in answer.text


async def test_an_answer_belongs_to_the_browser_that_began(two: Two) -> None:
    """Another browser that is led to somebody's answer is refused: nobody is signed in as a stranger."""
    mine, theirs = await two.world.browser(), await two.world.browser()
    back = await consent(theirs, await two.world.begin(theirs, "acme"), "eva@acme.example")
    answer = await mine.get(back)
    assert answer.status_code == 403
    assert "sso.state" in answer.text


async def test_a_handover_opens_one_browser_at_one_tenant_once(two: Two) -> None:
    """The code that hands over is refused in another browser, at another tenant, and the second time."""
    for elsewhere in ("browser", "tenant", "twice"):
        browser, other = await two.world.browser(), await two.world.browser()
        finish = await two.handed_over(browser, "acme", "eva@acme.example")
        if elsewhere == "browser":
            await two.world.begin(other, "acme")
            refused = await other.get(finish)
        elif elsewhere == "tenant":
            await two.world.begin(browser, "umbrella")
            refused = await browser.get(finish.replace("//acme.", "//umbrella."))
        else:
            cookies = httpx.Cookies(browser.cookies)
            assert (await browser.get(finish)).headers["location"] == "/desk?page=2"
            browser.cookies = cookies
            refused = await browser.get(finish)
        assert refused.status_code == 403, elsewhere
        assert "another browser" in refused.text
        after = await browser.get(finish)
        assert after.status_code == 403  # whoever tries it elsewhere uses it up
        assert await two.world.who(other, "acme") == await two.world.who(browser, "umbrella") == "nobody"


async def test_a_session_of_one_tenant_opens_no_other(two: Two) -> None:
    """The cookie of one tenant of an organization is refused at its other one, and at another organization's."""
    browser, thief = await two.world.browser(), await two.world.browser()
    await two.come_in(browser, "acme", "eva@acme.example")
    value = next(one.value for one in browser.cookies.jar if one.name == "tenantry_session")
    thief.headers["cookie"] = f"tenantry_session={value}"
    assert await two.world.who(thief, "acme") == "eva@acme.example user"
    assert await two.world.who(thief, "acme-two") == "nobody: session.foreign"
    assert await two.world.who(thief, "umbrella") == "nobody: session.foreign"


@pytest.mark.parametrize(
    ("login", "code"),
    [("new@acme.example", "sso.mail_unverified"), ("guest@acme.example", "sso.mail_foreign")],
)
async def test_a_provider_asserts_its_own_people_alone(two: Two, login: str, code: str) -> None:
    """An unverified address is refused, and one of a domain that is another organization's."""
    browser = await two.world.browser()
    back = await consent(browser, await two.world.begin(browser, "acme"), login)
    answer = await browser.get(back)
    assert answer.status_code == 403
    assert code in answer.text
    assert await two.world.who(browser, "acme") == "nobody"


async def test_another_organizations_tenant_is_not_opened(two: Two) -> None:
    """The ticket of one organization's tenant opens no other organization's provider; a tenant of none has none."""
    browser = await two.world.browser()
    start = (await browser.get(two.world.at("acme", "/.tenantry/sso/start"))).headers["location"]
    answer = await browser.get(start.replace(two.ids["acme"], two.ids["umbrella"]))
    assert answer.status_code == 403
    assert "sso.handover" in answer.text
    assert (await browser.get(two.world.at("free", "/.tenantry/sso/start"))).status_code == 404


async def test_a_tenant_that_leaves_meanwhile_is_not_opened(two: Two) -> None:
    """A sign-in under way ends at the platform; sessions that were begun by the organization end at once."""
    browser, waiting = await two.world.browser(), await two.world.browser()
    await two.come_in(browser, "acme-two", "eva@acme.example")
    back = await consent(waiting, await two.world.begin(waiting, "acme-two"), "ida@acme.example")
    await two.world.platform.organizations.unassign("Acme", ["acme-two"])
    try:
        answer = await waiting.get(back)
        assert answer.status_code == 403
        assert "sso.tenant" in answer.text
        await two.world.knows("acme-two", False)
        assert await two.world.who(browser, "acme-two") == "nobody: token.invalid"
    finally:
        await two.world.platform.organizations.assign("Acme", ["acme-two"])
        await two.world.knows("acme-two", True)


async def test_a_local_user_is_never_taken_over(two: Two) -> None:
    """A local user with the same login stays her own; what to do is told."""
    from tenantry.context import tenant_context

    with tenant_context(two.world.runtime.resolver.table.slugs["acme"][0]):
        local = await two.world.runtime.accounts.create("local@acme.example", "correct horse battery")
    browser = await two.world.browser()
    answer = await two.come_in(browser, "acme", "local@acme.example")
    assert answer.status_code == 422
    assert "another user&#x27;s login" in answer.text
    found = [user for user in await two.world.users("acme") if user.login == "local@acme.example"]
    assert [(user.id, user.issuer) for user in found] == [(local.id, None)]


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_no_address_leads_elsewhere(two: Two, back: str) -> None:
    """Where somebody goes after signing in is a path of the tenant, whatever the address says."""
    browser = await two.world.browser()
    asked = await consent(browser, await two.world.begin(browser, "acme", back), "eva@acme.example")
    finish = (await browser.get(asked)).headers["location"]
    assert finish.startswith(two.world.at("acme", "/.tenantry/sso/finish?"))
    assert (await browser.get(finish)).headers["location"] == "/"


async def test_a_forged_host_leads_no_code_elsewhere(two: Two) -> None:
    """The way back is made of the tenant's names and the configuration: not of the port of a request."""
    browser = await two.world.browser()
    first = await browser.get(two.world.at("acme", "/.tenantry/sso/start"), headers={"host": "acme.localhost:6666"})
    where = (await browser.get(first.headers["location"])).headers["location"]
    finish = (await browser.get(await consent(browser, where, "eva@acme.example"))).headers["location"]
    assert finish.startswith(two.world.at("acme", "/.tenantry/sso/finish?"))


async def test_signing_out_at_the_provider_ends_it_at_every_tenant(two: Two) -> None:
    """By the back channel, of that session at the provider alone: another browser of hers stays signed in."""
    import re

    browser, other = await two.world.browser(), await two.world.browser()
    for slug in ("acme", "acme-two"):
        await two.come_in(browser, slug, "eva@acme.example")
    await two.come_in(other, "acme", "eva@acme.example")
    page = await browser.post(two.world.at("acme", "/.tenantry/sso/sign-out"))
    assert "Sign out of Acme" in page.text
    assert await two.world.who(browser, "acme") == "nobody"
    assert await two.world.who(browser, "acme-two") == "eva@acme.example user"
    left = await browser.get(two.world.own(f"/sso/{two.ids['acme']}/sign-out"))
    asked = await browser.get(left.headers["location"])
    found = re.search(r'name="xsrf" value="([^"]+)"', asked.text)
    assert found is not None
    confirm = f"{two.acme.issuer}/session/end/confirm"
    done = await browser.post(confirm, data={"xsrf": found[1], "logout": "yes"})
    assert done.headers["location"].startswith(two.world.own(f"/sso/{two.ids['acme']}/signed-out"))
    assert "You are signed out" in (await browser.get(done.headers["location"])).text
    assert await two.world.who(browser, "acme-two") == "nobody: token.invalid"
    assert await two.world.who(other, "acme") == "eva@acme.example user"


async def test_the_providers_keys_may_change(two: Two) -> None:
    """A key that is not known is looked for at once, so that a change of keys locks nobody out."""
    two.umbrella.stop()
    two.umbrella.start()
    browser = await two.world.browser()
    await two.come_in(browser, "umbrella", "ida@umbrella.example")
    two.umbrella.stop()
    two.umbrella.start()
    await two.come_in(browser, "umbrella", "ida@umbrella.example")
    assert await two.world.who(browser, "umbrella") == "ida@umbrella.example user"

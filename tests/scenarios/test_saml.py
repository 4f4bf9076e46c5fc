"""An organization's people sign in by a real SAML provider, SimpleSAMLphp, at all of its tenants and at no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from providers import Names, names
from saml_providers import PERSISTENT, Answer, Provider, asked, consent
from sso_world import World, world
from tenantry.sso_refusals import SsoMissing

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"


@dataclass
class Two:
    """Two organizations with two providers."""

    world: World
    acme: Provider
    umbrella: Provider
    ids: dict[str, str]

    async def post(self, browser: httpx.AsyncClient, answer: Answer) -> httpx.Response:
        """Post what a provider's page posts, as a browser does from another site: without its cookies."""
        bare = await self.world.browser()
        answered = await bare.post(answer.action, data=answer.fields)
        assert answered.status_code == 303, answered.text
        return await browser.get(answered.headers["location"])

    async def come_in(self, browser: httpx.AsyncClient, slug: str, login: str) -> httpx.Response:
        """Sign in at a tenant; its last answer, which leads on."""
        answer = await consent(browser, await self.world.begin(browser, slug, "/desk?page=2"), login)
        back = await self.post(browser, answer)
        assert back.status_code == 303, back.text
        return await browser.get(back.headers["location"])


@pytest.fixture(scope="module")
def known() -> Iterator[Names]:
    """A name server."""
    with names() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory, known: Names) -> AsyncIterator[Two]:
    """The platform with both: one names people by a name of its own, signs both; the other by their address."""
    root = tmp_path_factory.mktemp("saml")
    async with world(root, known) as made:
        await made.create("acme", "acme-two", "umbrella")
        ids = {
            "acme": await made.organization("Acme", "acme", "acme-two", domain="acme.example"),
            "umbrella": await made.organization("Umbrella", "umbrella", domain="umbrella.example"),
        }
        people = {
            "eva": {"mail": ["eva@acme.example"], "displayName": ["Eva Ö."], "groups": ["staff"]},
            "boss": {"mail": ["boss@acme.example"], "groups": ["staff", "it-department"]},
            "guest": {"mail": ["ceo@umbrella.example"]},
        }
        named = {3: {"class": "saml:AttributeNameID", "attribute": "mail", "Format": MAIL}}
        acme = Provider(root, people, {"saml20.sign.response": True, "NameIDFormat": PERSISTENT})
        more = {"saml20.sign.response": False, "saml20.sign.assertion": True, "NameIDFormat": MAIL, "authproc": named}
        umbrella = Provider(root, {"ida": {"mail": ["ida@umbrella.example"]}}, more)
        for provider, organization in ((acme, ids["acme"]), (umbrella, ids["umbrella"])):
            made.stack.callback(provider.stop)
            # the metadata name a key once there is one: so twice
            await provider_set_up(made, provider, organization)
        yield Two(made, acme, umbrella, ids)


async def provider_set_up(made: World, provider: Provider, organization: str) -> None:
    """Start it, let the platform know it by its address, and it the platform."""
    browser = await made.browser()
    provider.start((await browser.get(made.own(f"/sso/{organization}/metadata"))).text)
    roles = {"it-department": "admin"}
    await made.platform.sso.set(organization, metadata_url=provider.metadata, claim="groups", roles=roles)
    (provider.folder / "platform.xml").write_text((await browser.get(made.own(f"/sso/{organization}/metadata"))).text)
    for slug in (await made.platform.organizations.show(organization)).tenants:
        await made.knows(slug, True)


async def test_one_sign_in_opens_all_tenants_of_the_organization(two: Two) -> None:
    """Somebody new comes in by the provider with the usual role, back to where she wanted to go; then at the second
    tenant without any question; at another organization's she stays a stranger."""
    browser = await two.world.browser()
    last = await two.come_in(browser, "acme", "eva")
    assert (last.status_code, last.headers["location"]) == (303, "/desk?page=2")
    assert await two.world.who(browser, "acme") == "eva@acme.example user"
    assert await two.world.who(browser, "acme-two") == "nobody"
    await two.come_in(browser, "acme-two", "unasked")
    assert await two.world.who(browser, "acme-two") == "eva@acme.example user"
    assert await two.world.who(browser, "umbrella") == "nobody"
    made = [user for user in await two.world.users("acme") if user.login == "eva@acme.example"]
    assert [(user.name, user.issuer, user.subject) for user in made] == [("Eva Ö.", two.acme.issuer, "eva")]


async def test_the_address_may_be_the_name(two: Two) -> None:
    """A provider that names people by their address, and signs the assertion alone."""
    browser = await two.world.browser()
    await two.come_in(browser, "umbrella", "ida")
    assert await two.world.who(browser, "umbrella") == "ida@umbrella.example user"


async def test_a_group_gives_a_role(two: Two) -> None:
    """Of several groups the strongest role counts."""
    browser = await two.world.browser()
    await two.come_in(browser, "acme", "boss")
    assert await two.world.who(browser, "acme") == "boss@acme.example admin"


async def test_a_provider_asserts_its_own_people_alone(two: Two) -> None:
    """An address in another organization's domain opens nothing."""
    browser = await two.world.browser()
    answer = await consent(browser, await two.world.begin(browser, "acme"), "guest")
    back = await two.post(browser, answer)
    assert back.status_code == 403
    assert "(sso.mail_foreign)" in back.text


async def test_a_request_that_is_not_ours_is_not_answered(two: Two) -> None:
    """The provider checks our signature: with another RelayState it answers nobody."""
    browser = await two.world.browser()
    where = await two.world.begin(browser, "acme")
    told = asked(where)
    assert told["destination"] in where
    forged = str(httpx.URL(where).copy_set_param("RelayState", "another"))
    page = await browser.get(forged, follow_redirects=True)
    assert "Unable to validate signature on query string" in page.text
    assert "SAMLResponse" not in page.text


async def test_an_answer_of_one_provider_opens_nothing_at_the_other_organization(two: Two) -> None:
    """Not by its own cookie, not by the other's, not at the other's address."""
    browser = await two.world.browser()
    theirs = asked(await two.world.begin(browser, "umbrella"))
    answer = await consent(browser, await two.world.begin(browser, "acme"), "eva")
    bare = await two.world.browser()
    for state in (theirs["state"], answer.fields["RelayState"]):
        fields = {**answer.fields, "RelayState": state}
        back = await bare.post(theirs["acs"], data=fields)
        page = await browser.get(back.headers["location"])
        assert page.status_code == 403
        assert "(sso.signature)" in page.text or "(sso.state)" in page.text


async def test_the_providers_keys_may_change(two: Two) -> None:
    """A key that is not known is looked for at once in the metadata, so that a change locks nobody out; but strangers
    cannot make the platform ask time and again."""
    known = two.world.platform.sso.sign_ons.providers
    known._looked.clear()  # as half a minute later
    browser = await two.world.browser()
    await two.come_in(browser, "umbrella", "ida")
    two.umbrella.renew()
    await two.come_in(browser, "umbrella", "ida")
    assert await two.world.who(browser, "umbrella") == "ida@umbrella.example user"
    two.umbrella.renew()
    answer = await consent(browser, await two.world.begin(browser, "umbrella"), "ida")
    assert "(sso.signature)" in (await two.post(browser, answer)).text
    known._looked.clear()
    await two.come_in(browser, "umbrella", "ida")


async def test_the_provider_is_asked_what_it_is(two: Two) -> None:
    """Its answer, and its silence, in words."""
    sso = two.world.platform.sso
    found = await sso.check(two.ids["acme"])
    assert [one.ok for one in found] == [True, True]
    assert found[0].what == f"{two.acme.issuer} says what it is, and has 1 key."
    shown = await sso.show(two.ids["acme"])
    assert shown.row is not None
    assert (shown.row.preset, shown.row.metadata_url, shown.row.client_id) == ("saml", two.acme.metadata, "")


async def test_a_try_shows_each_attribute_and_each_fault(two: Two) -> None:
    """It opens no tenant and makes nobody."""
    before = len(await two.world.users("acme"))
    for login, told in (("eva", "The sign-in works"), ("guest", "The sign-in does not work yet")):
        browser = await two.world.browser()
        start = await browser.get(await two.world.platform.sso.trial(two.ids["acme"]))
        page = await two.post(browser, await consent(browser, start.headers["location"], login))
        assert told in page.text
        assert "The assertion carries its signature" in page.text
        assert "displayName" in page.text or login == "guest"
    assert "sso.mail_foreign" in page.text
    browser = await two.world.browser()
    start = await browser.get(await two.world.platform.sso.trial(two.ids["acme"]))
    answer = await consent(browser, start.headers["location"], "eva")
    answer.fields["SAMLResponse"] = answer.fields["SAMLResponse"][:400]
    page = await two.post(browser, answer)
    assert "The sign-in does not work yet" in page.text
    assert "The provider&#39;s answer cannot be taken" in page.text
    assert len(await two.world.users("acme")) == before


async def test_the_platform_says_of_itself_what_it_is_to_everybody(two: Two) -> None:
    """For an organization that is there, and by its id alone."""
    browser = await two.world.browser()
    told = await browser.get(two.world.own(f"/sso/{two.ids['acme']}/metadata"))
    assert told.headers["content-type"] == "application/samlmetadata+xml"
    assert 'AuthnRequestsSigned="true"' in told.text
    assert f'entityID="{two.world.own("/sso/" + two.ids["acme"] + "/metadata")}"' in told.text
    assert (await browser.get(two.world.own("/sso/Acme/metadata"))).status_code == 404
    with pytest.raises(SsoMissing):
        await two.world.platform.sso.sign_ons.posted("nobody", "", "")


async def test_what_the_provider_knows_of_us_stays(two: Two) -> None:
    """Saved once more, the provider goes on knowing us; what the provider knows of us stays the same."""
    browser = await two.world.browser()
    before = (await browser.get(two.world.own(f"/sso/{two.ids['acme']}/metadata"))).text
    roles = {"it-department": "admin"}
    await two.world.platform.sso.set(two.ids["acme"], metadata_url=two.acme.metadata, claim="groups", roles=roles)
    assert (await browser.get(two.world.own(f"/sso/{two.ids['acme']}/metadata"))).text == before
    await two.come_in(browser, "acme", "eva")

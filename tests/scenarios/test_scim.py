"""An organization's provider tells who joins and who leaves, and that holds at all of its tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
import pytest_asyncio

from providers import Names, names
from scim_world import GROUP, USER, Told, told
from tenantry.context import tenant_context
from tenantry.credentials import Role
from tenantry.errors import SignInRefused, TenantryError
from tenantry.refusals import GrantRefused
from tenantry.registry import leaving, tables
from tenantry.registry.database import now

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def known() -> Iterator[Names]:
    """A name server."""
    with names() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory, known: Names) -> AsyncIterator[tuple[Told, Told]]:
    """Two organizations."""
    async with told(tmp_path_factory.mktemp("scim"), known) as made:
        yield made


@pytest.fixture
def acme(both: tuple[Told, Told]) -> Told:
    """The one that has two tenants."""
    return both[0]


@pytest.fixture
def umbrella(both: tuple[Told, Told]) -> Told:
    """The other one."""
    return both[1]


def somebody() -> str:
    """An address at Acme that nobody has."""
    return f"p{uuid4().hex[:10]}@acme.example"


# --- leaving ------------------------------------------------------------------------------------------------------


async def test_who_leaves_is_out_at_every_tenant_at_once(acme: Told) -> None:
    """Made inactive, she has no session and no refresh token at any tenant, and cannot sign in again; others stay."""
    mail, other = somebody(), somebody()
    person = await acme.join(mail)
    browser = await acme.sign_in("acme", mail)
    await acme.sign_in("acme-two", mail, browser)
    stays = await acme.sign_in("acme", other)
    for slug in ("acme", "acme-two"):
        assert await acme.world.who(browser, slug) == f"{mail} user"
    with tenant_context(acme.world.runtime.resolver.table.slugs["acme-two"][0]):
        tokens = await acme.world.runtime.grants.give(await acme.world.runtime.accounts.by_login(mail))  # type: ignore[arg-type]
    await acme.set_active(person["id"], False)
    assert await acme.waiting() == 2
    assert await acme.carried_out() == 2
    assert await acme.waiting() == 0
    for slug in ("acme", "acme-two"):
        assert await acme.world.who(browser, slug) == "nobody: token.invalid"
        assert not (await acme.user(slug, mail)).active
    with tenant_context(acme.world.runtime.resolver.table.slugs["acme-two"][0]), pytest.raises(GrantRefused):
        await acme.world.runtime.grants.refresh(tokens.refresh)
    refused = await acme.last("acme", mail, await acme.world.browser())
    assert refused.status_code == 403
    assert "sso.left" in refused.text
    assert await acme.world.who(stays, "acme") == f"{other} user"


async def test_who_comes_back_signs_in_anew(acme: Told) -> None:
    """Active again, she is let in at her tenants; the session from before stays over."""
    mail = somebody()
    person = await acme.join(mail)
    browser = await acme.sign_in("acme", mail)
    await acme.set_active(person["id"], False)
    await acme.carried_out()
    await acme.set_active(person["id"], True)
    await acme.carried_out()
    assert await acme.world.who(browser, "acme") == "nobody: token.invalid"
    again = await acme.sign_in("acme", mail)
    assert await acme.world.who(again, "acme") == f"{mail} user"


async def test_who_a_tenants_admin_disabled_stays_out(acme: Told) -> None:
    """The directory lets in again whom it shut out, and nobody else."""
    mail = somebody()
    person = await acme.join(mail)
    await acme.sign_in("acme", mail)
    with tenant_context(acme.world.runtime.resolver.table.slugs["acme"][0]):
        await acme.world.runtime.accounts.disable((await acme.user("acme", mail)).id)
    for active in (False, True):
        await acme.set_active(person["id"], active)
        await acme.carried_out()
    assert not (await acme.user("acme", mail)).active


async def test_who_is_deleted_is_out_and_may_join_again(acme: Told) -> None:
    """Deleted, she is not found and shut out; made anew under another id, she is let in again."""
    mail = somebody()
    person = await acme.join(mail)
    browser = await acme.sign_in("acme", mail)
    assert (await acme.client.delete(f"/Users/{person['id']}")).status_code == 204
    await acme.carried_out()
    assert (await acme.client.get(f"/Users/{person['id']}")).status_code == 404
    assert await acme.found("Users", f'userName eq "{mail}"') == []
    assert await acme.world.who(browser, "acme") == "nobody: token.invalid"
    assert "sso.left" in (await acme.last("acme", mail, await acme.world.browser())).text
    again = await acme.join(mail)
    assert again["id"] != person["id"]
    await acme.carried_out()
    assert await acme.world.who(await acme.sign_in("acme", mail), "acme") == f"{mail} user"


async def test_a_local_password_opens_nothing_for_who_left(acme: Told) -> None:
    """A user of the tenant's own with her address is shut out too, even the last admin; another one's is not."""
    mail, other = somebody(), somebody()
    runtime = acme.world.runtime
    with tenant_context(runtime.resolver.table.slugs["acme-two"][0]):
        for login in (mail, other):
            await runtime.accounts.create(login, "correct horse battery", role=Role.ADMIN)
    await acme.join(mail, active=False)
    await acme.carried_out()
    with tenant_context(runtime.resolver.table.slugs["acme-two"][0]):
        with pytest.raises(SignInRefused):
            await runtime.accounts.authenticate(mail, "correct horse battery")
        assert (await runtime.accounts.authenticate(other, "correct horse battery")).login == other


async def test_who_signed_in_before_the_directory_knew_her_is_shut_out(acme: Told) -> None:
    """Her user was made by the provider, and no subject is known yet: her address tells who she is."""
    mail = somebody()
    browser = await acme.sign_in("acme", mail)
    person = await acme.join(mail)
    await acme.set_active(person["id"], False)
    await acme.carried_out()
    assert await acme.world.who(browser, "acme") == "nobody: token.invalid"


async def test_a_session_that_begins_while_somebody_leaves_does_not(acme: Told) -> None:
    """Between the provider and the tenant she leaves: the handover that is under way opens nothing."""
    from providers import consent

    mail, browser = somebody(), await acme.world.browser()
    person = await acme.join(mail)
    back = await consent(browser, await acme.world.begin(browser, "acme"), mail)
    handover = (await browser.get(back)).headers["location"]
    await acme.set_active(person["id"], False)
    await acme.carried_out()
    refused = await browser.get(handover)
    assert refused.status_code == 403
    assert "has left" in refused.text
    assert await acme.world.who(browser, "acme") == "nobody"


async def test_a_tenant_that_is_suspended_loses_its_leavers_too(acme: Told) -> None:
    """Resumed, it has no session of who left meanwhile."""
    mail = somebody()
    person = await acme.join(mail)
    browser = await acme.sign_in("acme-two", mail)
    platform = acme.world.platform
    await platform.operations.finish((await platform.tenants.suspend("acme-two", "unpaid")).id)
    await acme.set_active(person["id"], False)
    await acme.carried_out()
    assert await acme.waiting() == 0
    await platform.operations.finish((await platform.tenants.resume("acme-two")).id)
    await acme.world.knows("acme-two", True)
    assert not (await acme.user("acme-two", mail)).active
    assert await acme.world.who(browser, "acme-two") == "nobody: token.invalid"


async def test_only_who_is_known_signs_in_where_that_is_required(acme: Told) -> None:
    """Somebody whom the directory does not know is turned away, and let in once she is there."""
    mail, scim = somebody(), acme.world.platform.scim
    await scim.require(acme.organization, True)
    try:
        refused = await acme.last("acme", mail, await acme.world.browser())
        assert refused.status_code == 403
        assert "sso.unknown" in refused.text
        await acme.join(mail)
        assert await acme.world.who(await acme.sign_in("acme", mail), "acme") == f"{mail} user"
    finally:
        await scim.require(acme.organization, False)


# --- roles --------------------------------------------------------------------------------------------------------


async def test_a_group_gives_its_role_and_takes_it(acme: Told) -> None:
    """In a group that has a role she gets it at her next sign-in; out of it she is signed out first."""
    mail = somebody()
    person = await acme.join(mail)
    group = await acme.group("it-department", person["id"])
    browser = await acme.sign_in("acme", mail)
    assert await acme.world.who(browser, "acme") == f"{mail} admin"
    gone = await acme.patch(f"/Groups/{group['id']}", {"op": "Remove", "path": f'members[value eq "{person["id"]}"]'})
    assert gone.status_code == 204
    await acme.carried_out()
    assert await acme.world.who(browser, "acme") == "nobody: token.invalid"
    assert await acme.world.who(await acme.sign_in("acme", mail), "acme") == f"{mail} user"
    await acme.client.delete(f"/Groups/{group['id']}")


async def test_a_group_is_known_by_its_id_at_the_provider_too(acme: Told) -> None:
    """Entra ID names groups in tokens by their object ids, which SCIM sends as externalId."""
    mail = somebody()
    person = await acme.join(mail)
    group = await acme.group("Anything at all", person["id"], externalId="0e1f")
    assert await acme.world.who(await acme.sign_in("acme", mail), "acme") == f"{mail} superuser"
    await acme.client.delete(f"/Groups/{group['id']}")


async def test_no_attribute_makes_an_admin(acme: Told) -> None:
    """Roles, groups, ids and organizations in the body of a user change nothing of that kind."""
    mail = somebody()
    group = await acme.group("it-department")
    forged = {"roles": [{"value": "admin"}], "groups": [{"value": group["id"]}], "id": "forged", "role": "admin"}
    forged |= {"organization_id": "forged", "entitlements": [{"value": "admin"}], "meta": {"version": 'W/"99"'}}
    person = await acme.join(mail, **forged)
    assert person["id"] != "forged"
    assert "groups" not in person
    assert person["meta"]["version"] == 'W/"1"'
    put = await acme.client.put(f"/Users/{person['id']}", json={"schemas": [USER], "userName": mail, **forged})
    assert put.json()["id"] == person["id"]
    await acme.patch(f"/Users/{person['id']}", {"op": "add", "path": "roles", "value": [{"value": "admin"}]})
    assert await acme.world.who(await acme.sign_in("acme", mail), "acme") == f"{mail} user"
    await acme.client.delete(f"/Groups/{group['id']}")


# --- whose --------------------------------------------------------------------------------------------------------


async def test_another_organizations_people_are_not_there(acme: Told, umbrella: Told) -> None:
    """By id, by filter, as members, by any method: another organization's are as those who do not exist."""
    hers = await umbrella.join(f"{uuid4().hex[:8]}@umbrella.example", externalId="shared")
    group = await umbrella.group("staff", hers["id"])
    user, named = {"schemas": [USER], "userName": somebody()}, {"schemas": [GROUP], "displayName": "x"}
    for where, body in ((f"/Users/{hers['id']}", user), (f"/Groups/{group['id']}", named)):
        answers = [
            await acme.client.get(where),
            await acme.client.put(where, json=body),
            await acme.patch(where, {"op": "replace", "path": "displayName", "value": "x"}),
            await acme.client.delete(where),
        ]
        assert [one.status_code for one in answers] == [404] * 4, [one.text for one in answers]
    assert await acme.found("Users", 'externalId eq "shared"') == []
    taken = await acme.client.post("/Groups", json={"displayName": "x", "members": [{"value": hers["id"]}]})
    assert (taken.status_code, taken.json()["scimType"]) == (400, "invalidValue")
    assert (await umbrella.client.get(f"/Users/{hers['id']}")).status_code == 200


async def test_a_token_opens_its_own_organization_alone(acme: Told, umbrella: Told) -> None:
    """Another organization's address, no token, a forged one, an admin user's one, a revoked one: 401 each time."""
    other = str(umbrella.client.base_url)
    mine = dict(acme.client.headers)
    invited = await acme.world.platform.scim.token(acme.organization, "second")
    await acme.world.platform.scim.revoke(acme.organization, invited.row.id)
    for address, token in (
        (other, mine["authorization"]),
        (str(acme.client.base_url), ""),
        (str(acme.client.base_url), "Bearer tenantry_scim_forged"),
        (str(acme.client.base_url), f"Bearer {invited.token}"),
        (str(acme.client.base_url), f"Basic {invited.token}"),
        (acme.world.own("/scim/-/v2/"), mine["authorization"]),
    ):
        answer = await acme.client.get(
            f"{address}Users".replace("v2Users", "v2/Users"), headers={"Authorization": token}
        )
        assert answer.status_code == 401, (address, answer.text)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
    api = await acme.client.get(acme.world.own("/api/tenants"))
    assert api.status_code == 401


async def test_only_proven_domains_join(acme: Told) -> None:
    """An address elsewhere, a look-alike of the domain, or a name that is no address is refused as invalidValue."""
    for name in (
        "eva@umbrella.example",
        "eva@sub.acme.example",
        "eva@acme.example.evil.example",
        "eva",
        "@acme.example",
    ):
        answer = await acme.client.post("/Users", json={"userName": name})
        assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidValue"), answer.text
    person = await acme.join(somebody())
    moved = await acme.patch(f"/Users/{person['id']}", {"op": "replace", "path": "userName", "value": "a@else.example"})
    assert moved.status_code == 400


async def test_directories_end_with_their_organization(acme: Told) -> None:
    """The organization is deleted with all that its directory holds."""
    platform = acme.world.platform
    row = await platform.organizations.create("Passing", "it@passing.example")
    made = await platform.scim.token(row.id, "provider")
    await platform.organizations.remove(row.id)
    answer = await acme.client.get(f"{made.address}/Users", headers={"Authorization": f"Bearer {made.token}"})
    assert answer.status_code == 401
    with pytest.raises(TenantryError):
        await platform.scim.show(row.id)


# --- workers ------------------------------------------------------------------------------------------------------


async def test_what_changes_while_a_worker_is_at_it_is_carried_out_last(acme: Told) -> None:
    """She comes back while a worker shuts her out: no other one goes near her meanwhile, and in the end she is in."""
    mail, registry = somebody(), acme.world.platform.registry
    person = await acme.join(mail)
    await acme.sign_in("acme", mail)
    await acme.nothing_left()
    await acme.set_active(person["id"], False)
    async with registry.write() as tx:
        marks = await leaving.take(tx, 100)
    assert {mark.person_id for mark in marks} == {person["id"]}
    await acme.set_active(person["id"], True)
    assert await acme.carried_out() == 0
    desk = acme.world.platform.leavers
    async with registry.read() as tx:
        places = {one.id: one for one in await desk._tools.all_environments(tx, [str(one.tenant_id) for one in marks])}
    for mark in marks:
        await desk._carry_out(mark, places[mark.environment_id])
    assert await acme.waiting() == len(marks) == 2
    assert await acme.carried_out() == 2
    assert await acme.waiting() == 0
    assert (await acme.user("acme", mail)).active


async def test_a_tenant_that_cannot_be_reached_keeps_its_mark(acme: Told) -> None:
    """Its database is away: the other tenant is done, this one waits, and is done once it is back."""
    mail = somebody()
    person = await acme.join(mail)
    browser = await acme.sign_in("acme", mail)
    await acme.nothing_left()
    (file,) = acme.world.platform.config.data.glob("tenants/acme-????????/production/db.sqlite")
    away = file.rename(file.with_suffix(".away"))
    await acme.set_active(person["id"], False)
    assert await acme.carried_out() == 2
    assert await acme.waiting() == 1
    away.rename(file)
    async with acme.world.platform.registry.write() as tx:  # the pause until the next try is over
        await tx.execute(tables.scim_mark.update().values(due=now()))
    assert await acme.carried_out() == 1
    assert await acme.waiting() == 0
    assert await acme.world.who(browser, "acme") == "nobody: token.invalid"


async def test_a_tenant_that_comes_to_the_organization_loses_those_who_left(acme: Told) -> None:
    """A local user with the address of somebody who left earlier is shut out as its tenant is assigned."""
    mail, platform = somebody(), acme.world.platform
    await acme.join(mail, active=False)
    await acme.carried_out()
    await acme.world.create("newcomer")
    with tenant_context(acme.world.runtime.resolver.table.slugs["newcomer"][0]):
        await acme.world.runtime.accounts.create(mail, "correct horse battery")
    await platform.organizations.assign(acme.organization, ["newcomer"])
    await acme.nothing_left()
    assert not (await acme.user("newcomer", mail)).active
    await platform.organizations.unassign(acme.organization, ["newcomer"])


async def test_an_address_that_somebody_else_has_by_now_is_hers(acme: Told) -> None:
    """She was renamed and another one got her address: who of both leaves takes the other one's user along nowhere."""
    old, fresh = somebody(), somebody()
    first = await acme.join(old)
    browser = await acme.sign_in("acme", old)
    renamed = await acme.patch(f"/Users/{first['id']}", {"op": "replace", "path": "userName", "value": fresh})
    assert renamed.status_code == 200
    second = await acme.join(old)
    await acme.set_active(second["id"], False)
    await acme.nothing_left()
    assert await acme.world.who(browser, "acme") == f"{old} user"
    await acme.set_active(first["id"], False)
    await acme.nothing_left()
    assert await acme.world.who(browser, "acme") == "nobody: token.invalid"

"""An organization's directory in the portal, on the command line, and on a control database on PostgreSQL."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ground import TOML, Ground
from portals import Desk, Person, desk
from tenantry.identity.scim.directory import Directory
from tenantry.platform import Platform
from tenantry.registry import sso
from tenantry.registry.directory import ScimToken

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """The portal of a platform."""
    async with desk(Ground(tmp_path_factory.mktemp("scim") / "platform")) as made:
        yield made


async def acme(platform: Platform, name: str) -> str:
    """An organization that has proven acme.example; its id."""
    row = await platform.organizations.create(name, "it@acme.example")
    async with platform.registry.write() as tx:
        await sso.claim(tx, row.id, "acme.example", "token")
        await sso.prove(tx, row.id, "acme.example")
    return row.id


async def provider(platform: Platform, organization: str) -> tuple[Directory, ScimToken]:
    """What answers the organization's provider, and its token."""
    made = await platform.scim.token(organization, "provider")
    directory = Directory(platform.registry, platform.config)
    return directory, await directory.admit(organization, made.token)


async def join(directory: Directory, token: ScimToken, name: str, **more: Any) -> str:
    """Somebody joins; her id."""
    found: str = (await directory.join(token, json.dumps({"userName": name, **more}).encode()))["id"]
    return found


async def root(here: Desk) -> Person:
    """A superadmin."""
    return await here.person(f"root{secrets.token_hex(3)}")


async def test_a_token_is_made_shown_once_and_revoked(here: Desk) -> None:
    """The page shows the token and the address once; revoked, it opens nothing; a name that is none is told."""
    person, organization = await root(here), await acme(here.platform, "Once")
    page = f"/organizations/{organization}/scim"
    assert "The provider has told of nobody yet" not in (await person.get(page)).text
    made = await person.send(f"{page}/tokens", {"name": "Entra ID"})
    (token,) = set(re.findall(r"tenantry_scim_[\w-]{43}", made.text))
    assert f"/scim/{organization}/v2" in made.text
    listed = (await person.get(page)).text
    assert "Entra ID" in listed
    assert token not in listed
    directory = Directory(here.platform.registry, here.platform.config)
    held = await directory.admit(organization, token)
    wrong = await person.send(f"{page}/tokens", {"name": " "})
    assert wrong.status_code == 422
    assert "is no name for a token" in wrong.text
    assert "opens nothing any more" in (await person.send(f"{page}/tokens/{held.id}/revoke")).text
    again = await person.send(f"{page}/tokens/{held.id}/revoke")
    assert again.status_code == 404


async def test_people_are_listed_and_found(here: Desk) -> None:
    """Whoever joined stands there with her groups; who left is marked; what a name holds is text."""
    person, organization = await root(here), await acme(here.platform, "Listed")
    directory, token = await provider(here.platform, organization)
    eva = await join(directory, token, "eva@acme.example", displayName="<b>Eva</b>")
    await join(directory, token, "max@acme.example", active=False)
    body = {"displayName": "it-department", "members": [{"value": eva}]}
    await directory.found_group(token, json.dumps(body).encode())
    page = (await person.get(f"/organizations/{organization}/scim")).text
    assert "2 people, 1 of them active; 1 group." in page
    assert "&lt;b&gt;Eva&lt;/b&gt;" in page
    assert "in it-department" in page
    found = (await person.get(f"/organizations/{organization}/scim", search="MAX")).text
    assert "max@acme.example" in found
    assert "eva@acme.example" not in found
    assert "Nobody is like that" in (await person.get(f"/organizations/{organization}/scim", search="%")).text


async def test_only_these_needs_single_sign_on(here: Desk) -> None:
    """Where nobody signs in by the organization nobody can be required; where somebody does, it is said."""
    person, organization = await root(here), await acme(here.platform, "Required")
    await provider(here.platform, organization)
    page = f"/organizations/{organization}/scim"
    refused = await person.send(f"{page}/require", {"required": "1"})
    assert refused.status_code == 404
    await here.platform.sso.set(organization, "client", "secret", "https://login.acme.example")
    assert "Only people of the directory" in (await person.send(f"{page}/require", {"required": "1"})).text
    assert "Others sign in, too, again" in (await person.send(f"{page}/require", {"required": ""})).text


async def test_a_directory_is_forgotten_once_everything_is_carried_out(here: Desk) -> None:
    """Its name has to be typed; while somebody is not shut out everywhere yet it is refused."""
    person, organization = await root(here), await acme(here.platform, "Forgotten")
    await here.create("forgotten")
    await here.platform.organizations.assign(organization, ["forgotten"])
    directory, token = await provider(here.platform, organization)
    await join(directory, token, "eva@acme.example", active=False)
    page = f"/organizations/{organization}/scim"
    assert "Type the name exactly" in (await person.send(f"{page}/remove", {"confirm": "forgotten"})).text
    assert "not carried out yet" in (await person.send(f"{page}/remove", {"confirm": "Forgotten"})).text
    assert await here.platform.leavers() == 1
    assert "kept no more" in (await person.send(f"{page}/remove", {"confirm": "Forgotten"})).text
    assert not (await here.platform.scim.show(organization)).kept


async def test_commands_say_the_same(here: Desk) -> None:
    """`tenantry scim` makes a token, shows the directory, lists people, and revokes."""
    organization = await acme(here.platform, "Commanded")
    ground = Ground.__new__(Ground)
    ground.config = here.platform.config.root / "tenantry.toml"

    def run(*arguments: str) -> Any:
        with ground.command("scim", *arguments, "--json") as process:
            return json.loads(process.communicate()[0])

    made = run("token", "Commanded", "--name", "Okta")
    directory = Directory(here.platform.registry, here.platform.config)
    token = await directory.admit(organization, made["token"])
    await join(directory, token, "eva@acme.example", displayName="Eva")
    shown = run("show", "Commanded")
    assert (shown["people"], shown["active"], shown["kept"], shown["required"]) == (1, 1, True, False)
    assert [one["user_name"] for one in run("people", "Commanded")] == ["eva@acme.example"]
    assert run("revoke", "Commanded", token.id)["tokens"] == []
    assert run("remove", "Commanded")["kept"] is False


@pytest.mark.postgres
async def test_the_control_database_may_be_on_postgresql(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters, marks, leaving and coming back are the same there."""
    monkeypatch.setenv("CONTROL_DATABASE_URL", postgres_url)
    toml = TOML.replace('data = "var"', 'data = "var"\ncontrol = {{env = "CONTROL_DATABASE_URL"}}')
    ground = Ground(tmp_path / "platform", toml.replace('title = "A site"', 'title = "A site"\nadmin = "a@b.example"'))
    async with ground.open() as platform:
        await platform.operations.finish((await platform.tenants.create("acme")).id)
        organization = await acme(platform, "Acme")
        await platform.organizations.assign(organization, ["acme"])
        directory, token = await provider(platform, organization)
        eva = await join(directory, token, "Eva@acme.example", externalId="X", displayName="ÄÖ")
        for wanted in ('userName eq "eva@acme.example"', 'displayName co "äö" and not (active eq false)'):
            assert (await directory.people(token, {"filter": wanted}))["totalResults"] == 1
        assert (await directory.people(token, {"filter": 'externalId eq "x"'}))["totalResults"] == 0
        group = await directory.found_group(
            token, json.dumps({"displayName": "Staff", "members": [{"value": eva}]}).encode()
        )
        wanted = f'members[value eq "{eva}"] and displayName eq "STAFF"'
        assert (await directory.groups(token, {"filter": wanted}))["Resources"][0]["id"] == group["id"]
        values = "('u', 'eva@acme.example', 'user', 'x', 'x')"
        ground.sql("acme", f"INSERT INTO tenantry_user (id, login, role, password, created) VALUES {values}")
        for active, expected in ((False, [(0, 1)]), (True, [(1, 1)])):
            body = {"Operations": [{"op": "replace", "path": "active", "value": active}]}
            await directory.patch(token, eva, json.dumps(body).encode(), None)
            assert await platform.leavers() == 1
            assert await platform.leavers() == 0
            assert ground.sql("acme", "SELECT active, epoch FROM tenantry_user WHERE id = 'u'") == expected
        await directory.leave(token, eva, None)
        await platform.leavers()
        assert (await directory.group(token, group["id"], {})).get("members") is None
        await platform.organizations.remove(organization)

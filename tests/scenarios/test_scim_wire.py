"""What goes over the wire of SCIM: as the standard says, as Entra ID and Okta say it, and as attackers do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from scim2_client import BaseSyncSCIMClient
from scim2_models import ScimPolicy, ScimProvider
from scim2_tester import Status, check_server, filling

from providers import Names, names
from scim_world import GROUP, PATCH, USER, Told, told
from tenantry.registry import tables
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


def somebody() -> str:
    """An address at Acme that nobody has."""
    return f"p{uuid4().hex[:10]}@acme.example"


class Client(BaseSyncSCIMClient):
    """The library's own client, over the library for HTTP that is here."""

    def __init__(self, client: httpx.Client, **more: Any) -> None:
        super().__init__(**more)
        self.client = client

    def _stays_under_base_url(self, endpoint: str) -> bool:
        return str(self.client.build_request("GET", endpoint).url).startswith(str(self.client.base_url))

    def _parse_json(self, response: Any) -> Any:
        return response.json()

    def request(self, method: str, url: str, **more: Any) -> Any:
        """Send."""
        return self.client.request(method, url, **more)


async def test_the_service_keeps_to_the_standard(acme: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker creates, reads, changes and deletes whatever the service says it has, and finds nothing wrong."""
    made = filling.generate_random_value

    def ours(context: Any, path: Any, *more: Any, **named: Any) -> Any:
        """User names are addresses of the organization here."""
        return somebody() if str(path).endswith("userName") else made(context, path, *more, **named)

    monkeypatch.setattr(filling, "generate_random_value", ours)
    for name in ("patch_add", "patch_replace", "resource_put"):
        module = __import__(f"scim2_tester.checkers.{name}", fromlist=["x"])
        if hasattr(module, "generate_random_value"):
            monkeypatch.setattr(module, "generate_random_value", ours)
    address, headers = str(acme.client.base_url), {"Authorization": acme.client.headers["authorization"]}

    def checked() -> list[Any]:
        with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
            return check_server(Client(client, provider=ScimProvider(policy=ScimPolicy())))

    results = await asyncio.to_thread(checked)
    wrong = [
        f"{one.title}: {one.status} {one.reason}" for one in results if one.status in (Status.ERROR, Status.CRITICAL)
    ]
    assert not wrong, "\n".join(wrong)
    assert sum(one.status is Status.SUCCESS for one in results) >= 40


# --- dialects -----------------------------------------------------------------------------------------------------


async def test_entra_id_is_understood(acme: Told) -> None:
    """What Entra ID sends: operations in capitals, booleans as texts, extensions, filters in paths."""
    mail = somebody()
    enterprise = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
    body = {
        "schemas": [USER, enterprise],
        "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef",
        "userName": mail.upper(),
        "active": True,
        "addresses": [{"primary": False, "type": "work", "country": "Germany"}],
        "displayName": "Eva Example",
        "emails": [{"primary": True, "type": "work", "value": mail}],
        "meta": {"resourceType": "User"},
        "name": {"formatted": "Eva Example", "familyName": "Example", "givenName": "Eva"},
        "roles": [],
        "title": "Manager",
        enterprise: {"department": "Sales"},
    }
    made = await acme.client.post("/Users", json=body)
    assert made.status_code == 201, made.text
    where = f"/Users/{made.json()['id']}"
    assert (
        made.headers["location"] == made.json()["meta"]["location"] == f"{str(acme.client.base_url).rstrip('/')}{where}"
    )
    assert made.headers["content-type"] == "application/scim+json"
    assert [one["id"] for one in await acme.found("Users", f'userName eq "{mail}"')] == [made.json()["id"]]
    changed = await acme.patch(
        where,
        {"op": "Replace", "path": "active", "value": "False"},
        {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "new@acme.example"},
        {"op": "Add", "path": "name.givenName", "value": "Evi"},
        {"op": "Add", "path": f"{enterprise}:department", "value": "Support"},
        {"op": "Replace", "path": "title", "value": "Director"},
    )
    assert changed.status_code == 200, changed.text
    found = changed.json()
    assert (found["active"], found["name"]["givenName"]) == (False, "Evi")
    assert found["emails"] == [{"value": "new@acme.example", "type": "work", "primary": True}]
    assert enterprise not in found
    without = await acme.client.get(
        "/Groups", params={"excludedAttributes": "members", "filter": 'displayName eq "no"'}
    )
    assert without.json() == {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": 0,
        "startIndex": 1,
        "itemsPerPage": 0,
        "Resources": [],
    }


async def test_okta_is_understood(acme: Told) -> None:
    """What Okta sends: values without a path, groups whose members come and go in one request."""
    people = [(await acme.join(somebody()))["id"] for _ in range(3)]
    group = await acme.group("Push", people[0])
    where = f"/Groups/{group['id']}"
    renamed = await acme.patch(where, {"op": "replace", "value": {"id": group["id"], "displayName": "Pushed"}})
    assert renamed.json()["displayName"] == "Pushed"
    done = await acme.patch(
        where,
        {"op": "remove", "path": f'members[value eq "{people[0]}"]'},
        {"op": "add", "path": "members", "value": [{"value": people[1], "display": "x"}, {"value": people[2]}]},
    )
    assert done.status_code == 204
    found = (await acme.client.get(where)).json()
    assert {one["value"] for one in found["members"]} == set(people[1:])
    assert (await acme.client.get(f"/Users/{people[1]}")).json()["groups"][0]["display"] == "Pushed"
    held = await acme.found("Groups", f'id eq "{group["id"]}" and members eq "{people[1]}"')
    assert [one["id"] for one in held] == [group["id"]]
    await acme.patch(where, {"op": "Remove", "path": "members", "value": [{"value": people[1]}]})
    assert {one["value"] for one in (await acme.client.get(where)).json()["members"]} == {people[2]}
    await acme.patch(where, {"op": "replace", "value": {"members": [{"value": people[0]}]}})
    assert {one["value"] for one in (await acme.client.get(where)).json()["members"]} == {people[0]}
    gone = await acme.patch(f"/Users/{people[0]}", {"op": "replace", "value": {"active": False}})
    assert gone.json()["active"] is False
    assert (await acme.patch(where, {"op": "remove", "path": "members"})).status_code == 204
    assert "members" not in (await acme.client.get(where)).json()


# --- filters and pages --------------------------------------------------------------------------------------------


async def test_filters_find_what_they_say(acme: Told) -> None:
    """Each operator, joined, negated, without regard to capitals where the standard says so."""
    mark = uuid4().hex[:8]
    names_ = [f"{letter}{mark}@acme.example" for letter in "abc"]
    for name, more in zip(
        names_, ({"externalId": f"X-{mark}"}, {"active": False}, {"displayName": "50%_ÄÖ"}), strict=True
    ):
        await acme.join(name, **more)
    for wanted, expected in (
        (f'userName eq "{names_[0].upper()}"', "a"),
        (f'userName sw "b{mark}"', "b"),
        (f'userName co "{mark}" and active eq true', "ac"),
        (f'userName co "{mark}" and active eq "False"', "b"),
        (f'externalId eq "X-{mark}"', "a"),
        (f'externalId eq "x-{mark}"', ""),
        (f'userName co "{mark}" and not (externalId pr)', "bc"),
        (f'userName co "{mark}" and externalId ne "X-{mark}"', "bc"),
        (f'userName co "{mark}" and (userName sw "a" or userName sw "c")', "ac"),
        (f'userName co "{mark}" and displayName eq "50%_äö"', "c"),
        (f'userName co "{mark}" and displayName co "%_Ä"', "c"),
        (f'userName co "{mark}" and displayName co "0_"', ""),
        (f'userName co "{mark}" and displayName co "%%"', ""),
        (f'userName ew "{mark}@acme.example" and meta.created gt "2020-01-01T00:00:00Z"', "abc"),
        (f'userName co "{mark}" and meta.lastModified lt "2020-01-01T00:00:00Z"', ""),
        (f'urn:ietf:params:scim:schemas:core:2.0:User:userName eq "{names_[2]}"', "c"),
    ):
        found = "".join(sorted(one["userName"][0] for one in await acme.found("Users", wanted)))
        assert found == expected, wanted


@pytest.mark.parametrize(
    "wanted",
    [
        """userName eq "x' OR '1'='1" """,
        """userName eq "x\\" OR \\"1\\"=\\"1" """,
        """userName co "'; DROP TABLE scim_person; --" """,
        'id eq "\\u0000"',
    ],
)
async def test_what_is_put_into_a_filter_is_a_value(acme: Told, wanted: str) -> None:
    """Quotes, comments and NUL find nobody, and do nothing else."""
    await acme.join(somebody())
    assert await acme.found("Users", wanted.strip()) == []
    assert (await acme.client.get("/Users", params={"count": 1})).json()["totalResults"] >= 1


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "userName",
        'userName eq "x" and',
        'password eq "x"',
        'userName gt "x"',
        'active co "t"',
        'organization_id eq "x"',
        'folded eq "x"',
        'emails.value eq "x"',
        'meta.created eq "yesterday"',
        "(" * 3000 + "active eq true" + ")" * 3000,
        " or ".join(["active eq true"] * 200),
        "not (" * 100 + "active eq true" + ")" * 100,
        'userName eq "' + "x" * 10_000 + '"',
    ],
    ids=lambda wanted: wanted[:30],
)
async def test_a_filter_that_cannot_be_answered_is_refused(acme: Told, wanted: str) -> None:
    """Unknown, unfinished, too deep, too long: invalidFilter, in the standard's own form."""
    answer = await acme.client.get("/Users", params={"filter": wanted})
    assert answer.status_code == 400, answer.text[:300]
    told = answer.json()
    assert told["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
    assert (told["status"], told["scimType"]) == ("400", "invalidFilter")


async def test_pages_hold_everybody_once(acme: Told) -> None:
    """By startIndex and count each person is on one page; odd numbers mean what the standard says."""
    mark = uuid4().hex[:8]
    for number in range(7):
        await acme.join(f"{mark}{number}@acme.example")
    wanted, seen = f'userName sw "{mark}"', []
    for start in (1, 4, 7, 10):
        page = (await acme.client.get("/Users", params={"filter": wanted, "startIndex": start, "count": 3})).json()
        assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (7, start, len(page["Resources"]))
        seen += [one["userName"] for one in page["Resources"]]
    assert sorted(seen) == sorted({f"{mark}{number}@acme.example" for number in range(7)})
    for odd, expected in (({"count": -5}, 0), ({"count": 0}, 0), ({"startIndex": -3, "count": 2}, 2)):
        page = (await acme.client.get("/Users", params={"filter": wanted, **odd})).json()
        assert (page["totalResults"], page["itemsPerPage"]) == (7, expected)
    huge = await acme.client.get("/Users", params={"filter": wanted, "startIndex": 10**18})
    assert huge.json()["Resources"] == []
    assert (await acme.client.get("/Users", params={"count": "many"})).status_code == 400


async def test_ten_thousand_people_are_answered(acme: Told) -> None:
    """Of a directory of 10,000 a page holds 200, one is found by name, and a group may have all of them as members."""
    columns = [column.name for column in tables.scim_person.columns]
    moment, rows = now(), []
    for number in range(10_000):
        name = f"many{number}@acme.example"
        row = dict.fromkeys(columns) | {"id": str(uuid4()), "organization_id": acme.organization, "user_name": name}
        row |= {"folded": name, "held": name, "mail": "", "display": "", "shown": "", "details": {}, "active": True}
        rows.append(row | {"created": moment, "changed": moment, "version": 1})
    async with acme.world.platform.registry.write() as tx:
        await tx.insert(tables.scim_person, rows)
    page = (await acme.client.get("/Users", params={"count": 10_000})).json()
    assert page["totalResults"] >= 10_000
    assert page["itemsPerPage"] == len(page["Resources"]) == 200
    assert len(await acme.found("Users", 'userName eq "many9999@acme.example"')) == 1
    group = await acme.group("everybody")
    where = f"/Groups/{group['id']}"
    for some in range(0, 10_000, 1000):
        members = [{"value": row["id"]} for row in rows[some : some + 1000]]
        assert (await acme.patch(where, {"op": "add", "path": "members", "value": members})).status_code == 204
    assert len((await acme.client.get(where)).json()["members"]) == 10_000
    slim = (await acme.client.get(where, params={"excludedAttributes": "members"})).json()
    assert "members" not in slim
    assert (await acme.patch(where, {"op": "remove", "path": "members"})).status_code == 204
    assert (await acme.client.delete(where)).status_code == 204
    async with acme.world.platform.registry.write() as tx:
        gone = tables.scim_person.c.user_name.like("many%@acme.example")
        await tx.execute(tables.scim_person.delete().where(gone))


# --- what is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "keyword"),
    [
        (b"", "invalidSyntax"),
        (b"{", "invalidSyntax"),
        (b"[]", "invalidSyntax"),
        (b"null", "invalidSyntax"),
        (b'"x"', "invalidSyntax"),
        (b"\xff\xfe", "invalidSyntax"),
        (b"[" * 100_000, "invalidSyntax"),
        (b"{}", "invalidValue"),
        (b'{"userName": null}', "invalidValue"),
        (b'{"userName": 5}', "invalidValue"),
        (b'{"userName": ["a@acme.example"]}', "invalidValue"),
        (b'{"userName": "a@acme.example", "active": "perhaps"}', "invalidValue"),
        (b'{"userName": "a@acme.example", "emails": "x"}', "invalidValue"),
        (b'{"userName": "a@acme.example", "name": "x"}', "invalidValue"),
        (b'{"userName": "a\\u0000@acme.example"}', "invalidValue"),
        (b'{"userName": "a\\ud800@acme.example"}', "invalidValue"),
        (json.dumps({"userName": "x" * 300 + "@acme.example"}).encode(), "invalidValue"),
        (json.dumps({"userName": "a@acme.example", "displayName": "x" * 5000}).encode(), "invalidValue"),
        (json.dumps({"userName": "a@acme.example", "externalId": "x" * 5000}).encode(), "invalidValue"),
        (json.dumps({"userName": "a@acme.example", "emails": [{"value": "x"}] * 50}).encode(), "invalidValue"),
    ],
    ids=range(20),
)
async def test_a_wrong_body_is_told(acme: Told, body: bytes, keyword: str) -> None:
    """Whatever comes as a body is answered with 400 in the standard's form, and nobody joins."""
    before = (await acme.client.get("/Users", params={"count": 0})).json()["totalResults"]
    answer = await acme.client.post("/Users", content=body)
    assert answer.status_code == 400, answer.text[:300]
    assert answer.json()["scimType"] == keyword, answer.text[:300]
    assert (await acme.client.get("/Users", params={"count": 0})).json()["totalResults"] == before


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [{"op": "move", "path": "active", "value": True}],
        [{"op": "replace", "path": "id", "value": "x"}],
        [{"op": "replace", "path": "groups", "value": [{"value": "x"}]}],
        [{"op": "remove", "path": "userName"}],
        [{"op": "remove"}],
        [{"op": "replace", "path": "active[", "value": True}],
        [{"op": "replace", "path": "active", "value": {"x": 1}}],
        [{"op": "replace", "path": 'emails[type eq "x" or]', "value": "x"}],
        [{"op": "replace", "path": "userName", "value": "x@umbrella.example"}],
        "x",
        None,
        [None],
    ],
    ids=range(13),
)
async def test_a_wrong_change_changes_nothing(acme: Told, operations: Any) -> None:
    """Refused with 400, and the one before it in the same request is not done either."""
    person = await acme.join(somebody())
    if isinstance(operations, list) and operations:
        operations = [{"op": "replace", "path": "displayName", "value": "Changed"}, *operations]
    answer = await acme.client.patch(f"/Users/{person['id']}", json={"schemas": [PATCH], "Operations": operations})
    assert answer.status_code == 400, answer.text
    assert "scimType" in answer.json()
    assert (await acme.client.get(f"/Users/{person['id']}")).json() == person


async def test_what_is_too_large_or_not_here_is_told_in_the_same_form(acme: Told) -> None:
    """A body of 2 MiB, another media type, another method, an unknown address, Bulk: each in the standard's form."""
    large = await acme.client.post("/Users", content=b'{"userName": "' + b"x" * 2**21 + b'"}')
    plain = await acme.client.post("/Users", content=b"userName=x", headers={"content-type": "text/plain"})
    answers = {
        413: large,
        415: plain,
        405: await acme.client.put("/Users", json={}),
        404: await acme.client.get("/Nothing"),
        501: await acme.client.post("/Bulk", json={"Operations": []}),
        403: await acme.client.get("/Schemas", params={"filter": 'id eq "x"'}),
    }
    for status, answer in answers.items():
        assert answer.status_code == status, answer.text[:300]
        assert answer.headers["content-type"] == "application/scim+json"
        assert answer.json()["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
        assert answer.json()["status"] == str(status)
    assert "POST" in answers[405].headers["allow"]


async def test_a_name_is_had_by_one(acme: Told) -> None:
    """Of ten who join at once under one name, in several spellings, one does; the others are told uniqueness."""
    name = somebody()
    spelled = [name, name.upper()] * 5
    answers = await asyncio.gather(
        *(acme.client.post("/Users", json={"schemas": [USER], "userName": one}) for one in spelled)
    )
    assert sorted(one.status_code for one in answers) == [201] + [409] * 9
    assert {one.json()["scimType"] for one in answers if one.status_code == 409} == {"uniqueness"}
    other = await acme.join(somebody())
    moved = await acme.patch(f"/Users/{other['id']}", {"op": "replace", "path": "userName", "value": name})
    assert (moved.status_code, moved.json()["scimType"]) == (409, "uniqueness")


async def test_a_change_of_what_was_read_before_is_refused(acme: Told) -> None:
    """With If-Match the later of two who change the same is told 412; who has it as it is gets 304."""
    person = await acme.join(somebody())
    where, tag = f"/Users/{person['id']}", person["meta"]["version"]
    rename = {"op": "replace", "path": "displayName", "value": "One"}
    assert (await acme.client.get(where, headers={"If-None-Match": tag})).status_code == 304
    assert (await acme.patch(where, rename, **{"If-Match": tag})).status_code == 200
    late = await acme.patch(where, rename | {"value": "Two"}, **{"If-Match": tag})
    assert late.status_code == 412
    assert (await acme.client.delete(where, headers={"If-Match": tag})).status_code == 412
    fresh = await acme.client.get(where)
    assert fresh.headers["etag"] == fresh.json()["meta"]["version"] != tag
    again = await acme.patch(where, rename)  # the same once more changes nothing
    assert again.json()["meta"]["version"] == fresh.json()["meta"]["version"]


async def test_members_are_people_of_the_directory(acme: Told) -> None:
    """Groups in groups, ids of nobody, and what is no member are refused, and the group stays as it was."""
    person = await acme.join(somebody())
    group = await acme.group("Staff", person["id"])
    where = f"/Groups/{group['id']}"
    for value in ([{"value": group["id"], "type": "Group"}], [{"value": "nobody"}], [{"display": "x"}], ["x"], "x"):
        answer = await acme.patch(where, {"op": "add", "path": "members", "value": value})
        assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidValue"), answer.text
    odd = await acme.patch(where, {"op": "remove", "path": 'members[display eq "x"]'})
    assert odd.status_code == 400
    assert [one["value"] for one in (await acme.client.get(where)).json()["members"]] == [person["id"]]
    empty = await acme.client.post("/Groups", json={"schemas": [GROUP], "displayName": " "})
    assert empty.status_code == 400


async def test_a_token_guessed_is_slow(acme: Told) -> None:
    """Strangers without a token are counted by their address, and told to wait."""
    address = str(acme.client.base_url)
    async with httpx.AsyncClient(transport=acme.client._transport, timeout=60) as stranger:
        began = time.monotonic()
        for _ in range(1000):
            answer = await stranger.get(f"{address}Users", headers={"Authorization": "Bearer tenantry_scim_guess"})
            if answer.status_code == 429:
                break
    assert answer.status_code == 429, time.monotonic() - began
    assert answer.json()["status"] == "429"
    assert int(answer.headers["retry-after"]) >= 1
    assert (await acme.client.get("/Users", params={"count": 0})).status_code == 200

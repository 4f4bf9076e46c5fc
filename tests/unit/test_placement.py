"""Which server a new tenant goes to, under which name, and by which login."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registries import KEY
from tenantry.config import Blueprint, Config, ResourceSpec
from tenantry.config.models import Placement, ServerSpec
from tenantry.errors import NameTaken, NoServer, ServerUnfit, ServerUnknown
from tenantry.model import Environment, ServerState, new_id
from tenantry.operations import create, drop, placement
from tenantry.operations.placement import Choice
from tenantry.operations.toolbox import Toolbox
from tenantry.registry import Registry, Vault, journal, servers, tenants
from tenantry.resources import Resource, Setting, database
from tenantry.resources.memory import Memory
from tenantry.resources.servers import OnServer, Options


class ShelfOptions(Options, database.Options):
    """What a shelf takes."""


class Shelf(OnServer, Memory):  # type: ignore[misc]
    """The twin in memory, as one that lies on servers."""

    kind = "shelf"
    server_kind = "postgres"
    name_limit = 63
    user_limit = 63
    reserved = frozenset({"postgres"})
    Options = ShelfOptions


class Tools(Toolbox):
    """A toolbox whose blueprints are made of shelves."""

    def _build(self, name: str, blueprint: Blueprint) -> tuple[Resource, ...]:
        setting = Setting(blueprint=name, root=Path(), data=self.config.data, servers=self.servers)
        return tuple(
            Shelf(resource, ShelfOptions.model_validate(spec.options), setting)
            if spec.kind == "shelf"
            else Memory(resource, database.Options.model_validate(spec.options), setting)
            for resource, spec in blueprint.resources.items()
        )


def server(name: str, capacity: int | None = None, *labels: str, kind: str = "postgres") -> tuple[str, ServerSpec]:
    """A declared server."""
    scheme = "postgresql" if kind == "postgres" else "mysql"
    url = f"{scheme}://admin:secret@{name}.example.test/main"
    return name, ServerSpec.model_validate({"kind": kind, "url": url, "capacity": capacity, "labels": labels})


Open = Callable[..., contextlib.AbstractAsyncContextManager[Tools]]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens a platform with these servers; `resources` are those of its one blueprint."""

    @contextlib.asynccontextmanager
    async def make(
        *known: tuple[str, ServerSpec],
        policy: str = "most-room",
        resources: Mapping[str, Mapping[str, Any]] | None = None,
        environments: Sequence[str] = ("production",),
    ) -> AsyncIterator[Tools]:
        specs = {name: ResourceSpec(**fields) for name, fields in (resources or {"db": {"kind": "shelf"}}).items()}
        config = Config(
            servers=dict(known),
            placement=Placement.model_validate({"policy": policy}),
            blueprints={"site": Blueprint(resources=specs, environments=tuple(environments), admin=None)},
            root=tmp_path,
        )
        async with Registry.open(f"sqlite:///{tmp_path}/control.sqlite", Vault(KEY)) as registry:
            await placement.declare(registry, config)
            yield Tools(config, registry)

    return make


async def made(tools: Tools, slug: str, choice: Choice = placement.ANY, plan: str | None = None) -> list[Environment]:
    """A tenant as it is reserved."""
    draft = tools.draft(slug, slug, "site", plan, {})
    async with tools.registry.write() as tx:
        await create.reserve(tx, tools, draft, choice=choice)
        return await tools.all_environments(tx, [draft[0].tenant.id])


async def where(tools: Tools, slug: str, choice: Choice = placement.ANY, plan: str | None = None) -> list[str | None]:
    """The servers that a new tenant's parts came to."""
    return [place.server for environment in await made(tools, slug, choice, plan) for place in environment.places]


async def stand(tools: Tools, name: str, state: ServerState) -> None:
    async with tools.registry.write() as tx:
        await servers.set_state(tx, name, state)


# --- which server -------------------------------------------------------------------------------------------------


async def test_most_room(opened: Open) -> None:
    """A tenant goes to the server that takes the most tenants more."""
    async with opened(server("a", 2), server("b", 4), server("c", 3)) as tools:
        found = [(await where(tools, f"t{number}"))[0] for number in range(9)]
    assert found == ["b", "c", "b", "a", "c", "b", "a", "c", "b"]


async def test_no_limit_is_the_most_room(opened: Open) -> None:
    """A server without a capacity goes before those that have one; several of them get the same."""
    async with opened(server("a", 1000), server("b"), server("c")) as tools:
        found = [(await where(tools, f"t{number}"))[0] for number in range(4)]
    assert sorted(str(name) for name in found) == ["b", "b", "c", "c"]


async def test_round_robin(opened: Open) -> None:
    """Servers get tenants in turn, whatever room they have; a full one is passed over."""
    async with opened(server("a", 1), server("b"), server("c", 100), policy="round-robin") as tools:
        found = [(await where(tools, f"t{number}"))[0] for number in range(6)]
    assert found == ["a", "b", "c", "b", "c", "b"]


async def test_a_turn_is_remembered(opened: Open) -> None:
    """A process that starts goes on behind the server that had the last turn."""
    known = server("a"), server("b"), server("c")
    async with opened(*known, policy="round-robin") as tools:
        assert await where(tools, "one") == ["a"]
    async with opened(*known, policy="round-robin") as tools:
        assert await where(tools, "two") == ["b"]


async def test_a_server_that_the_blueprint_names(opened: Open) -> None:
    """A resource with `server` goes there, though others have more room, and nowhere else when that one is full."""
    fixed = {"db": {"kind": "shelf", "server": "a"}}
    async with opened(server("a", 1), server("b"), resources=fixed) as tools:
        assert await where(tools, "one") == ["a"]
        with pytest.raises(NoServer, match="'a' is full"):
            await where(tools, "two")


async def test_label_by_plan(opened: Open) -> None:
    """A label pattern such as "{plan}" chooses among the servers that carry what it comes to."""
    labelled = {"db": {"kind": "shelf", "label": "{plan}"}}
    async with opened(server("a", 5, "free"), server("b", 5, "pro", "eu"), server("c"), resources=labelled) as tools:
        assert await where(tools, "one", plan="pro") == ["b"]
        assert await where(tools, "two", plan="free") == ["a"]
        with pytest.raises(NoServer, match="none has the label 'gold'"):
            await where(tools, "three", plan="gold")


async def test_capacity(opened: Open) -> None:
    """Where every server is full the tenant is refused, and nothing of it is entered."""
    async with opened(server("a", 1), server("b", 0)) as tools:
        assert await where(tools, "one") == ["a"]
        with pytest.raises(NoServer, match="all that are open are full"):
            await where(tools, "two")
        async with tools.registry.read() as tx:
            assert await tenants.count(tx) == 1


@pytest.mark.parametrize("state", [ServerState.DRAINING, ServerState.CLOSED])
async def test_none_open(opened: Open, state: ServerState) -> None:
    """A server that is draining or closed gets no tenant; with no other one the reason is told."""
    async with opened(server("a"), server("b")) as tools:
        await stand(tools, "a", state)
        assert [await where(tools, slug) for slug in ("one", "two")] == [["b"], ["b"]]
        await stand(tools, "b", state)
        with pytest.raises(NoServer, match="none is open"):
            await where(tools, "three")
        await stand(tools, "a", ServerState.OPEN)
        assert await where(tools, "three") == ["a"]


async def test_other_kinds(opened: Open) -> None:
    """A server of another kind is not chosen."""
    async with opened(server("m", kind="mysql")) as tools:
        with pytest.raises(NoServer, match="no server of kind postgres is known"):
            await where(tools, "one")


async def test_silent_servers(opened: Open) -> None:
    """A server that did not answer a moment ago is passed over, unless all of them are silent."""
    async with opened(server("a"), server("b", 3)) as tools:
        tools.servers.silent("a")
        assert await where(tools, "one") == ["b"]
        tools.servers.silent("b")
        assert await where(tools, "two") == ["a"]


async def test_avoided_servers(opened: Open) -> None:
    """A second attempt goes to another server than the first, where there is one."""
    async with opened(server("a"), server("b", 3)) as tools:
        assert await where(tools, "one", Choice(avoid=frozenset({"a"}))) == ["b"]
        assert await where(tools, "two", Choice(avoid=frozenset({"a", "b"}))) == ["a"]


async def test_two_at_once(opened: Open) -> None:
    """Of tenants that are made at the same time only as many get in as there is room for."""
    async with opened(server("a", 1), server("b", 2)) as tools:
        found = await asyncio.gather(*(where(tools, f"t{number}") for number in range(8)), return_exceptions=True)
        assert sorted(name for each in found if isinstance(each, list) for name in each if name) == ["a", "b", "b"]
        assert sum(isinstance(each, NoServer) for each in found) == 5


async def test_several_environments(opened: Open) -> None:
    """Each environment is placed on its own, and counted; a tenant of which one finds no room is not placed at all."""
    async with opened(server("a", 2), server("b", 1), environments=("dev", "production")) as tools:
        assert sorted(str(name) for name in await where(tools, "one")) == ["a", "b"]
        with pytest.raises(NoServer):
            await where(tools, "two")
        async with tools.registry.read() as tx:
            assert await servers.load(tx) == {"a": 1, "b": 1}


async def test_several_resources(opened: Open) -> None:
    """Parts that lie on no server stay where they are."""
    async with opened(server("a"), resources={"db": {"kind": "shelf"}, "cache": {"kind": "memory"}}) as tools:
        (environment,) = await made(tools, "one")
    assert {place.name: place.server for place in environment.places} == {"cache": None, "db": "a"}


async def test_a_batch_with_one_that_finds_no_room(opened: Open) -> None:
    """Of a batch those that find no place are named with the reason, and the others are placed."""
    async with opened(server("a", 3), environments=("dev", "production")) as tools:
        drafts = [tools.draft(f"t{number}", "T", "site", None, {}) for number in range(3)]
        keys = {draft[0].tenant.id: tools.registry.vault.new_data_key(draft[0].tenant.id) for draft in drafts}
        async with tools.registry.write() as tx:
            together = [environment for draft in drafts for environment in draft]
            placed, errors = await placement.place_each(tx, tools, together, keys)
    assert [environment.tenant.slug for environment in placed] == ["t0", "t0"]
    assert {e: type(error) for e, error in errors.items()} == {draft[0].tenant.id: NoServer for draft in drafts[1:]}


# --- a server that somebody names ---------------------------------------------------------------------------------


async def test_a_named_server(opened: Open) -> None:
    """Whoever names a server overrules policy, label and the blueprint's own server."""
    fixed = {"db": {"kind": "shelf", "server": "a", "label": "eu"}}
    async with opened(server("a", None, "eu"), server("b"), resources=fixed) as tools:
        assert await where(tools, "one", Choice(server="b")) == ["b"]
        tools.servers.silent("b")
        assert await where(tools, "two", Choice(server="b")) == ["b"]


async def test_a_named_server_is_checked(opened: Open) -> None:
    """A named server must be known, of the right kind, open, and have room."""
    async with opened(server("a", 0), server("b"), server("m", kind="mysql")) as tools:
        await stand(tools, "b", ServerState.DRAINING)
        for name, error, reason in (
            ("x", ServerUnknown, "no server 'x'"),
            ("m", NoServer, "can lie on the server 'm'"),
            ("b", NoServer, "'b' is not open"),
            ("a", NoServer, "'a' is full"),
        ):
            with pytest.raises(error, match=reason):
                await where(tools, "one", Choice(server=name))


async def test_a_named_server_where_nothing_lies_on_servers(opened: Open) -> None:
    """To name a server for a blueprint without such a part is an error, not ignored."""
    async with opened(server("a"), resources={"db": {"kind": "memory"}}) as tools:
        assert await where(tools, "one") == [None]
        with pytest.raises(NoServer):
            await where(tools, "two", Choice(server="a"))


async def test_a_look_changes_nothing(opened: Open) -> None:
    """Placement can be tried in a transaction that only reads: the turn stays whose it was."""
    async with opened(server("a"), server("b"), policy="round-robin") as tools:
        for _ in range(2):
            draft = tools.draft("one", "One", "site", None, {})
            keys = {draft[0].tenant.id: tools.registry.vault.new_data_key(draft[0].tenant.id)}
            async with tools.registry.read() as tx:
                (placed,), _ = await placement.place_each(tx, tools, draft, keys, keep=False)
            assert placed.places[0].server == "a"
        assert await where(tools, "one") == ["a"]


# --- names and logins ---------------------------------------------------------------------------------------------


async def test_names(opened: Open) -> None:
    """A name is the pattern filled; one that is reserved ends with digits of the environment's id."""
    async with opened(server("a")) as tools:
        (plain,), (reserved,) = await made(tools, "acme"), await made(tools, "postgres")
    assert plain.places[0].location == "acme"
    assert reserved.places[0].location == f"postgres_{reserved.id[-8:]}"


async def test_a_name_that_is_taken(opened: Open) -> None:
    """A tenant whose name another one's database has, on whichever server, gets a name that nobody else has."""
    async with opened(server("a"), server("b"), environments=("dev", "production")) as tools:
        first, second = await made(tools, "acme")
    names = [first.places[0].location, second.places[0].location]
    assert names == ["acme", f"acme_{second.id[-8:]}"]


async def test_a_name_that_is_still_to_be_dropped(opened: Open) -> None:
    """The name of a database that waits to be dropped is nobody's, until it is gone or given up."""
    async with opened(server("a")) as tools:
        (gone,) = await made(tools, "acme")
        left = drop.remnant(tools.resource("site", "db"), gone)
        operation = new_id()
        async with tools.registry.write() as tx:
            await tenants.remove(tx, [gone.tenant.id])
            await journal.submit(
                tx, operation, "drop", [("db", "shelf")], tenant=(gone.tenant.id, "acme"), arguments=left, holds=False
            )
        (again,) = await made(tools, "acme")
        assert again.places[0].location == f"acme_{again.id[-8:]}"
        async with tools.registry.write() as tx:
            await journal.set_state(tx, operation, journal.State.DONE)
            await tenants.remove(tx, [again.tenant.id])
        (third,) = await made(tools, "acme")
        assert third.places[0].location == "acme"


async def test_what_is_left_is_found_again(opened: Open) -> None:
    """What a drop remembers is enough to find database and user when the registry knows the tenant no more."""
    async with opened(server("a")) as tools:
        (gone,) = await made(tools, "acme")
        resource = tools.resource("site", "db")
        revived = drop.revive(drop.remnant(resource, gone))
        assert resource.locate(revived) == "acme"
        assert (revived.id, revived.tenant.id, revived.places[0].server) == (gone.id, gone.tenant.id, "a")
        assert revived.logins["db"].user == gone.logins["db"].user
        assert revived.logins["db"].password == ""


async def test_logins(opened: Open) -> None:
    """Each environment gets a login of its own, which opens with its tenant's key and under its own field alone."""
    async with opened(server("a"), environments=("dev", "production")) as tools:
        first, second = await made(tools, "acme")
    assert first.logins["db"] != second.logins["db"]
    assert len(first.logins["db"].password) >= 32
    moved = replace(second, places=(replace(second.places[0], sealed=first.places[0].sealed),))
    with pytest.raises(Exception, match="cannot be opened"):
        placement.unseal(tools.registry.vault, moved, moved.places[0], server("a"))


async def test_a_place_that_is_given(opened: Open) -> None:
    """A database that is adopted keeps its server and name; one that a tenant has cannot be given to another."""
    given = Choice(given={("production", "db"): ("b", "old_shop")})
    async with opened(server("a"), server("b", 0)) as tools:
        (adopted,) = await made(tools, "acme", given)
        assert (adopted.places[0].server, adopted.places[0].location) == ("b", "old_shop")
        user = f"old_shop_{adopted.id[-8:]}"  # the former owner may be called like the database
        resource = tools.resource("site", "db")
        assert (adopted.logins["db"].user, resource.new_login(adopted).user) == (user, f"{user}_b")
        rotated = replace(adopted, logins={"db": resource.new_login(adopted)})
        assert resource.new_login(rotated).user == user
        with pytest.raises(NameTaken):
            await made(tools, "other", given)


# --- declared servers ---------------------------------------------------------------------------------------------


async def test_declared_servers_keep_their_state(opened: Open) -> None:
    """A server that is drained by command stays so when tenantry.toml is read again, with what is new there."""
    async with opened(server("a", 5)) as tools:
        await stand(tools, "a", ServerState.DRAINING)
    async with opened(server("a", 9, "eu")) as tools, tools.registry.read() as tx:
        found = (await servers.known(tx))["a"]
    assert (found.state, found.capacity, found.labels) == (ServerState.DRAINING, 9, frozenset({"eu"}))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://admin:s3cret@db.example.test/main?sslmode=verify-full",
        "postgresql://db.example.test:5432/main?user=admin&sslmode=verify-full&password=s3cret",
    ],
)
def test_addresses_hold_no_login(url: str) -> None:
    """What is kept of a server's URL in the open names neither user nor password, but TLS settings."""
    found = placement.described("a", "postgres", url, None, 10)
    assert found.address == "postgresql://db.example.test:5432/main?sslmode=verify-full"
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize("url", ["nonsense", "mysql://admin@db.example.test/x", "postgresql:///x", "http://a/b", ""])
def test_addresses_that_are_none(url: str) -> None:
    """An address that cannot lead to a server of this kind is refused, without being repeated."""
    with pytest.raises(ServerUnfit) as caught:
        placement.described("a", "postgres", url, None, 10)
    assert not url or url not in str(caught.value)

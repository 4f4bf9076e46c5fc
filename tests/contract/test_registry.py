"""One suite for the control database on SQLite and on PostgreSQL: opening, transactions, tenants, names, secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect, make_url, select, text, update
from sqlalchemy.exc import IntegrityError

from registries import KEY, draft, enter, python
from tenantry.errors import HostTaken, RegistryUnavailable, SecretKeyError, ServerUnknown, SlugTaken, TenantNotFound
from tenantry.model import Environment, ServerState, Status, new_id
from tenantry.registry import Registry, Transaction, Vault, database, journal, migrations, servers, tables, tenants
from tenantry.registry.database import now

OTHER_KEY = "f0" * 32
SOON = timedelta(hours=1)


async def content(registry: Registry) -> dict[str, list[Any]]:
    """Every row of every table."""
    async with registry.read() as tx:
        return {t.name: [tuple(row) for row in await tx.all(select(t))] for t in tables.metadata.sorted_tables}


# --- opening ------------------------------------------------------------------------------------------------------


async def test_an_empty_database_is_brought_to_the_newest_schema(registry: Registry) -> None:
    """Opening makes every table and begins the audit log."""
    async with registry.read() as tx:
        assert await tx.sync(migrations.current) == migrations.HEAD
        names = set(await tx.sync(lambda connection: inspect(connection).get_table_names()))
    assert names == {*tables.metadata.tables, "alembic_version"}
    assert (await registry.verify()).entries == 0


async def test_a_second_opening_changes_nothing(registry: Registry, url: str) -> None:
    """Whoever opens the database later finds it as it was left."""
    await enter(registry, draft("acme"))
    before = await content(registry)
    async with Registry.open(url, Vault(KEY)) as second:
        assert await content(second) == before
        assert [row[0] for row in before["tenant"]] == [row.id for row in await listed(second)]


async def test_migrations_make_what_the_tables_say(registry: Registry) -> None:
    """The schema that the migrations make differs in nothing from `tables.metadata`."""

    def compare(connection: Connection) -> list[Any]:
        # On SQLite, Alembic takes an empty text as default for a difference to itself.
        options = {"compare_type": True, "compare_server_default": connection.dialect.name != "sqlite"}
        return compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)

    async with registry.read() as tx:
        assert await tx.sync(compare) == []


async def test_a_difference_between_migrations_and_tables_is_seen(registry: Registry) -> None:
    """The comparison is no empty promise: a column too many is found."""

    def compare(connection: Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection), tables.metadata)

    async with registry.write() as tx:
        await tx.execute(text("ALTER TABLE worker ADD COLUMN mood VARCHAR(3)"))
        assert [difference[0] for difference in await tx.sync(compare)] == ["remove_column"]


def test_head_names_the_newest_migration() -> None:
    """The constant that spares a start the loading of Alembic is right."""
    script = ScriptDirectory(Path(migrations.__file__).parent)
    assert script.get_heads() == [migrations.HEAD]


async def test_a_newer_database_is_refused(registry: Registry, url: str) -> None:
    """A program that does not know the schema leaves it alone and says what to install."""
    async with registry.write() as tx:
        await tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RegistryUnavailable, match=r"9999.* Install") as caught:
        async with Registry.open(url, Vault(KEY)):
            pass
    assert caught.value.code == "registry.unavailable"
    async with registry.read() as tx:
        assert await tx.sync(migrations.current) == "9999"


OPENER = """
import asyncio, sys
from tenantry.registry import Registry, Vault
async def main():
    async with Registry.open(sys.argv[1], Vault(sys.argv[2])) as registry:
        async with registry.write() as tx:
            tx.audit("test.open", "platform")
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


async def test_processes_that_open_an_empty_database_at_once_all_succeed(url: str) -> None:
    """One of them makes the schema, the other waits for it; nothing is made twice."""
    openers = await asyncio.gather(*(python(OPENER, url, KEY) for _ in range(2)))
    for opener in openers:
        assert opener.stdout
        assert await opener.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(opener.communicate(b"go\n") for opener in openers))
    assert [opener.returncode for opener in openers] == [0, 0], [error.decode() for _, error in outputs]
    async with Registry.open(url, Vault(KEY)) as registry:
        assert (await registry.verify()).entries == 2


async def test_a_wrong_key_is_refused(registry: Registry, url: str) -> None:
    """A platform key that did not begin this registry opens nothing; as the previous key it does."""
    with pytest.raises(SecretKeyError, match="not the key this platform was set up with"):
        async with Registry.open(url, Vault(OTHER_KEY)):
            pass
    async with Registry.open(url, Vault(OTHER_KEY, KEY)) as second:
        assert (await second.verify()).entries == 0


async def test_a_database_that_cannot_be_reached_is_named_without_its_password(url: str, tmp_path: Path) -> None:
    """The error tells the reason, and no password."""
    if url.startswith("sqlite"):
        (tmp_path / "control.sqlite").write_bytes(b"this is no database, and longer than a header of one: " * 40)
        wrong = url
    else:
        wrong = make_url(url).set(password="hunter2-wrong").render_as_string(hide_password=False)
    with pytest.raises(RegistryUnavailable) as caught:
        async with Registry.open(wrong, Vault(KEY)):
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_database_that_is_taken_away_is_unavailable(
    registry: Registry, url: str, cut_off: Callable[[], None]
) -> None:
    """Whoever reads or follows after that is told so by `RegistryUnavailable`."""
    changes = registry.feed.follow(0)
    await enter(registry, draft("acme"))
    assert (await anext(changes)).seq == 1
    cut_off()
    with pytest.raises(RegistryUnavailable):
        await anext(changes)
    await changes.aclose()
    with pytest.raises(RegistryUnavailable):
        async with database.Database(url, Vault(KEY), create=False).read() as tx:
            await tx.scalar(select(tables.head.c.change_seq))


# --- transactions -------------------------------------------------------------------------------------------------


async def test_a_transaction_that_fails_leaves_nothing(registry: Registry) -> None:
    """Neither the change nor its audit entry nor its place in the feed is kept."""
    before = await content(registry)

    async def fail() -> None:
        async with registry.write() as tx:
            await tenants.put_meta(tx, "colour", b"red")
            tx.audit("test.change", "acme")
            tx.changed(new_id())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await content(registry) == before


async def test_a_transaction_that_is_cancelled_leaves_nothing(registry: Registry) -> None:
    """A task that is ended in the middle gives everything back, and the next writer goes on."""
    before = await content(registry)
    inside = asyncio.Event()

    async def work() -> None:
        async with registry.write() as tx:
            await tenants.put_meta(tx, "colour", b"red")
            tx.audit("test.change", "acme")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await content(registry) == before
    async with registry.write() as tx:
        await tenants.put_meta(tx, "colour", b"blue")


async def test_writers_take_turns(registry: Registry) -> None:
    """What a writer has read stays true until it commits: no count is lost between twenty writers."""
    async with registry.write() as tx:
        await tenants.put_meta(tx, "count", b"0")

    async def count() -> None:
        for _ in range(5):
            async with registry.write() as tx:
                number = int(await tenants.get_meta(tx, "count") or b"")
                await asyncio.sleep(0)
                await tenants.put_meta(tx, "count", str(number + 1).encode())

    await asyncio.gather(*(count() for _ in range(20)))
    async with registry.read() as tx:
        assert await tenants.get_meta(tx, "count") == b"100"


async def test_a_writer_that_does_not_end_holds_others_up_for_a_while_only(
    registry: Registry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that waits is told that the database is unavailable."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 1)
    second = database.Database(url, registry.vault)
    async with registry.write():
        with pytest.raises(RegistryUnavailable):
            async with second.write():
                pytest.fail("two writers at once")
    async with second.write() as tx:
        await tenants.put_meta(tx, "colour", b"red")
    await second.close()


async def test_a_reader_sees_one_moment(registry: Registry) -> None:
    """What others commit meanwhile is not seen, and readers hold up no writer."""
    async with registry.read() as tx:
        assert await tenants.count(tx) == 0
        await enter(registry, draft("acme"))
        assert await tenants.count(tx) == 0
        assert await tenants.environments(tx) == []
    assert [row.slug for row in await listed(registry)] == ["acme"]


async def test_a_faulty_statement_is_not_taken_for_a_faulty_database(registry: Registry) -> None:
    """Only what is the server's fault becomes `RegistryUnavailable`."""
    with pytest.raises(IntegrityError):
        async with registry.write() as tx:
            await tx.execute(insert(tables.meta), [{"key": "a", "value": b""}, {"key": "a", "value": b""}])


# --- tenants ------------------------------------------------------------------------------------------------------


async def listed(registry: Registry, **how: Any) -> list[tenants.TenantRow]:
    """A page of tenants."""
    async with registry.read() as tx:
        return await tenants.page(tx, **how)


async def loaded(registry: Registry, *ids: str) -> list[Environment]:
    """Environments as the registry gives them."""
    async with registry.read() as tx:
        return await tenants.environments(tx, ids or None)


async def test_what_is_entered_is_found_again(registry: Registry) -> None:
    """A tenant comes back with its settings, places, hostnames and moments, with unicode and in UTC."""
    settings = {"title": "Ærø — 東京 🏝", "depth": [1, {"deep": None}], "price": 1.5, "quote": "\"'\\ \u0001"}
    hostnames = ("acme.example.test", "www.acme.test")
    environment = draft("acme", name="Ærø & Söhne 東京", settings=settings, plan="basic", hostnames=hostnames)
    start = now()
    await enter(registry, environment, draft("other"))
    (found,) = await loaded(registry, environment.tenant.id)
    assert found.sealed_key
    assert registry.vault.open_data_key(found.tenant.id, found.sealed_key)
    assert replace(found, sealed_key=b"") == environment
    async with registry.read() as tx:
        row = await tenants.find(tx, "acme")
    assert (row.id, row.name, row.client_id) == (found.tenant.id, "Ærø & Söhne 東京", environment.tenant.client_id)
    assert row.created.tzinfo is UTC
    assert start <= row.created <= row.updated <= now()


async def test_equal_places_are_one_object(registry: Registry) -> None:
    """Ten thousand tenants with the same places do not take ten thousand times the memory."""
    await enter(registry, draft("acme"), draft("other"))
    first, second = await loaded(registry)
    assert first.places is second.places


@pytest.mark.parametrize("slug", ["nobody", "Acme", "a\0cme", "acm", "äcme"])
async def test_an_unknown_slug_is_not_found(registry: Registry, slug: str) -> None:
    """Only the very slug finds a tenant; odd characters are no server fault."""
    await enter(registry, draft("acme"))
    with pytest.raises(TenantNotFound):
        async with registry.read() as tx:
            await tenants.find(tx, slug)


@pytest.mark.parametrize("odd", ["a\0cme", "\ud800", "\0"])
async def test_odd_characters_in_filters_find_nothing(registry: Registry, odd: str) -> None:
    """What no database can hold is in no row; asking for it is no fault of the server."""
    await enter(registry, draft("acme"))
    async with registry.read() as tx:
        assert await tenants.page(tx, status=odd) == []
        assert await tenants.page(tx, blueprint=odd) == []
        assert await tenants.page(tx, after="z" + odd) == []
        assert await tenants.hostnames(tx, odd) == []
        for name in ("state", "tenant", "verb"):
            assert await journal.latest(tx, **{name: odd}) == []  # type: ignore[arg-type]
        assert await servers.tenants_on(tx, odd) == []
    assert await registry.entries(subject=odd) == []
    with pytest.raises(ServerUnknown):
        async with registry.write() as tx:
            await servers.set_state(tx, odd, ServerState.OPEN)


async def test_pages_come_in_the_order_of_slugs(registry: Registry) -> None:
    """Each page begins behind the last slug of the one before, and the order is the same on every database."""
    slugs = ["a", "a-b", "a-c", "a0", "aa", "ab", "b", "b-1", "ba", "z"]
    await enter(registry, *(draft(slug) for slug in reversed(slugs)))
    seen: list[str] = []
    while page := await listed(registry, limit=3, after=seen[-1] if seen else None):
        assert len(page) <= 3
        seen += [row.slug for row in page]
    assert seen == slugs == sorted(slugs)


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("100%", ["percent"]),
        ("%", ["percent"]),
        ("_", ["under"]),
        ("a_b", ["under"]),
        ("\\", ["slash"]),
        ("/", ["slash"]),
        ("ÉCOLE", ["ecole"]),
        ("école", ["ecole"]),
        ("ecole", ["ecole"]),
        ("MÜNCHEN", ["muenchen"]),
        ("strasse", ["muenchen"]),
        ("straße", ["muenchen"]),
        ("東京", ["tokyo"]),
        ("cent", ["percent"]),
        ("kyo", ["tokyo"]),
        ("\0", ["ecole", "muenchen", "percent", "slash", "tokyo", "under"]),
        ("nothing like it", []),
        ("' OR 1=1 --", []),
    ],
)
async def test_search_takes_every_character_for_itself(registry: Registry, search: str, found: list[str]) -> None:
    """A search finds parts of slugs and names, whatever their case and accents; % and _ are no jokers."""
    names = {
        "percent": "100% Wool",
        "under": "a_b",
        "slash": "back\\slash / and so on",
        "ecole": "École",
        "muenchen": "Münchener Straße München",
        "tokyo": "東京",
    }
    await enter(registry, *(draft(slug, name=name) for slug, name in names.items()))
    assert [row.slug for row in await listed(registry, search=search)] == found


async def test_search_follows_a_new_name(registry: Registry) -> None:
    """After an edit the new name is found and the old one is not."""
    environment = draft("acme", name="Alt")
    await enter(registry, environment)
    async with registry.write() as tx:
        await tenants.alter(tx, [environment.tenant.id], name="Für Élise")
    assert [row.name for row in await listed(registry, search="elise")] == ["Für Élise"]
    assert await listed(registry, search="alt") == []


async def test_pages_are_narrowed_by_status_and_blueprint(registry: Registry) -> None:
    """Both conditions hold together, and the counts agree."""
    suspended = Status.SUSPENDED
    await enter(registry, draft("a"), draft("b", status=suspended), draft("c", status=suspended, blueprint="shop"))
    assert [row.slug for row in await listed(registry, status="suspended")] == ["b", "c"]
    assert [row.slug for row in await listed(registry, status="suspended", blueprint="site")] == ["b"]
    async with registry.read() as tx:
        assert await tenants.count(tx) == 3
        assert await tenants.counts(tx) == {"active": 1, "suspended": 2}


async def test_a_slug_is_taken_once(registry: Registry) -> None:
    """A second tenant of the same slug is refused, and nothing of it is entered."""
    await enter(registry, draft("acme"))
    before = await content(registry)
    with pytest.raises(SlugTaken, match="acme"):
        await enter(registry, draft("other"), draft("acme", hostnames=("else.test",)))
    assert await content(registry) == before
    async with registry.read() as tx:
        assert await tenants.taken(tx, ["acme", "free"]) == {"acme": "taken"}


async def test_many_slugs_are_looked_up_at_once(registry: Registry) -> None:
    """No database has a limit that thousands of slugs go beyond."""
    await enter(registry, *(draft(f"t{number}") for number in range(3)))
    async with registry.read() as tx:
        assert set(await tenants.taken(tx, [f"t{n}" for n in range(40_000)])) == {"t0", "t1", "t2"}


async def test_writers_that_want_the_same_slug_get_it_once(registry: Registry) -> None:
    """Of eight at once one wins, and the others are told that it is taken."""
    outcomes = await asyncio.gather(
        *(enter(registry, draft("acme", hostnames=(f"h{n}.test",))) for n in range(8)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert all(isinstance(outcome, SlugTaken) for outcome in outcomes if outcome is not None)


async def rename(registry: Registry, environment: Environment, to: str, keep: timedelta = SOON) -> Environment:
    """Rename a tenant and give what it is now."""
    async with registry.write() as tx:
        hosts = {environment.id: f"{to}.example.test"}
        await tenants.rename(tx, environment.tenant, to, now() + keep, hosts)
    (found,) = await loaded(registry, environment.tenant.id)
    return found


async def test_a_renamed_tenant_holds_its_former_slug(registry: Registry) -> None:
    """Its old slug and hostname lead on for a while and nobody else gets the slug; renamed back, all is as before."""
    environment = draft("acme")
    await enter(registry, environment)
    (first,) = await loaded(registry)
    renamed = await rename(registry, first, "apex")
    assert (renamed.tenant.slug, renamed.tenant.former) == ("apex", ("acme",))
    assert (renamed.hostnames, renamed.former) == (("apex.example.test",), ("acme.example.test",))
    assert renamed.home == first.home
    async with registry.read() as tx:
        assert (await tenants.taken(tx, ["acme"]))["acme"].startswith("held for 'apex', which was renamed, until ")
    back = await rename(registry, renamed, "acme")
    assert (back.tenant.former, back.former) == (("apex",), ("apex.example.test",))
    assert back.hostnames == ("acme.example.test",)


async def test_a_former_slug_is_free_when_its_time_is_over(registry: Registry) -> None:
    """Then it leads nowhere, can be had again, and its rows are cleared away, of which all processes hear."""
    environment = draft("acme")
    await enter(registry, environment)
    await rename(registry, environment, "apex")
    before = (await registry.feed.load()).seq
    async with registry.write() as tx:
        assert await tenants.forget_former(tx) == 0
        await tx.execute(update(tables.former_slug).values(until=now() - SOON))
        await tx.execute(
            update(tables.hostname).where(tables.hostname.c.position > 0).values(former_until=now() - SOON)
        )
    (over,) = await loaded(registry)
    assert (over.tenant.former, over.former, over.hostnames) == ((), (), ("apex.example.test",))
    async with registry.read() as tx:
        assert await tenants.taken(tx, ["acme"]) == {}
    async with registry.write() as tx:
        assert await tenants.forget_former(tx) == 2
    changes = await registry.feed.since(before)
    assert changes is not None
    assert changes.tenants == {environment.tenant.id}
    await enter(registry, draft("acme"))


async def test_a_removed_tenant_leaves_no_row(registry: Registry) -> None:
    """`remains` names what is there before, and nothing after; other tenants stay whole."""
    environment, other = draft("acme"), draft("other")
    await enter(registry, environment, other)
    await rename(registry, environment, "apex")
    tenant = environment.tenant.id
    async with registry.write() as tx:
        await tenants.put_secrets(tx, [(tenant, "f", b"x"), (other.tenant.id, "f", b"y")])
        assert await tenants.remains(tx, tenant) == [
            "hostname: 2",
            "resource: 2",
            "environment: 1",
            "secret: 1",
            "data_key: 1",
            "former_slug: 1",
            "tenant: 1",
        ]
        await tenants.remove(tx, [tenant])
        assert await tenants.remains(tx, tenant) == []
    rows = await content(registry)
    for name in ("tenant", "environment", "data_key", "secret", "hostname"):
        assert len(rows[name]) == 1, name
    assert tenant not in str({name: found for name, found in rows.items() if name != "change"})


async def test_versions_and_locations_are_recorded(registry: Registry) -> None:
    """A version of any length is kept, and so is where a resource lies."""
    first = draft("a")
    await enter(registry, first)
    long = "0003_" + "x" * 240
    async with registry.write() as tx:
        await tenants.set_versions(tx, [(first.id, "db", long)])
        await tenants.set_location(tx, first.id, "media", "pictures")
    (found,) = await loaded(registry, first.tenant.id)
    assert [(place.location, place.version) for place in found.places] == [("db.sqlite", long), ("pictures", None)]


# --- hostnames ----------------------------------------------------------------------------------------------------


async def add_host(registry: Registry, environment: Environment, *names: str) -> None:
    """Add names of the tenant's own."""
    async with registry.write() as tx:
        position = await tenants.custom_hostnames(tx, environment.id)
        await tenants.add_hostnames(tx, [(environment.id, name, position) for name in names], custom=True)


async def test_hostnames_are_added_and_removed(registry: Registry) -> None:
    """The first is the canonical one; those of the tenant's own follow."""
    environment = draft("acme")
    await enter(registry, environment, draft("other"))
    await add_host(registry, environment, "www.acme.test")
    await add_host(registry, environment, "acme.test")
    async with registry.write() as tx:
        rows = await tenants.hostnames(tx, "acme")
        assert [(row.name, row.custom, row.canonical) for row in rows] == [
            ("acme.example.test", False, True),
            ("www.acme.test", True, False),
            ("acme.test", True, False),
        ]
        assert all(isinstance(row.canonical, (bool, int)) and row.former_until is None for row in rows)
        assert len(await tenants.hostnames_page(tx, 10)) == 4
        pages = [await tenants.hostnames_page(tx, 2, after) for after in (None, "acme.test", "zebra.example.test")]
        names = [[row.name for row in page] for page in pages]
        assert names[0] == sorted(names[0])
        assert names[0][-1] < names[1][0]
        assert (len(names[0] + names[1]), names[2]) == (4, [])
        await tenants.remove_hostname(tx, "www.acme.test")
    (found,) = await loaded(registry, environment.tenant.id)
    assert found.hostnames == ("acme.example.test", "acme.test")


async def test_a_hostname_leads_to_one_tenant(registry: Registry) -> None:
    """A name that another one has is refused, as is one given twice, and nothing is entered."""
    first, second = draft("acme"), draft("other")
    await enter(registry, first, second)
    before = await content(registry)
    with pytest.raises(HostTaken, match=r"'acme\.example\.test'"):
        await add_host(registry, second, "new.test", "acme.example.test")
    with pytest.raises(HostTaken, match=r"'twice\.test'"):
        await add_host(registry, second, "twice.test", "twice.test")
    with pytest.raises(HostTaken):
        await enter(registry, draft("third", hostnames=("acme.example.test",)))
    assert await content(registry) == before


async def test_writers_that_want_the_same_hostname_get_it_once(registry: Registry) -> None:
    """Of eight tenants at once one wins, and the others are told."""
    environments = [draft(f"t{number}") for number in range(8)]
    await enter(registry, *environments)
    outcomes = await asyncio.gather(*(add_host(registry, e, "www.test") for e in environments), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert all(isinstance(outcome, HostTaken) for outcome in outcomes if outcome is not None)


# --- secrets ------------------------------------------------------------------------------------------------------


async def test_secrets_are_kept_replaced_and_forgotten(registry: Registry) -> None:
    """Every octet comes back; a value is there once per tenant and field."""
    first, second = draft("acme"), draft("other")
    await enter(registry, first, second)
    value, tenant = bytes(range(256)), first.tenant.id
    async with registry.write() as tx:
        await tenants.put_secrets(tx, [(tenant, "a", b"old"), (tenant, "b", value), (second.tenant.id, "a", b"else")])
        await tenants.put_secrets(tx, [(tenant, "a", b"new")])
    async with registry.write() as tx:
        assert await tenants.secrets(tx, tenant) == {"a": b"new", "b": value}
        assert await tenants.secrets(tx, second.tenant.id) == {"a": b"else"}
        assert await tenants.drop_secret(tx, tenant, "a") is True
        assert await tenants.drop_secret(tx, tenant, "a") is False
    async with registry.read() as tx:
        assert await tenants.secrets(tx, tenant) == {"b": value}


async def test_rotation_seals_every_data_key_anew(registry: Registry, url: str) -> None:
    """Afterwards the new key alone opens everything, the old one nothing, and all processes hear of it."""
    environments = [draft(f"t{number}") for number in range(3)]
    await enter(registry, *environments)
    before = {e.tenant.id: registry.vault.open_data_key(e.tenant.id, e.sealed_key) for e in await loaded(registry)}
    seq = (await registry.feed.load()).seq
    async with Registry.open(url, Vault(OTHER_KEY, KEY)) as rotating:
        assert await rotating.rotate() == 3
    async with Registry.open(url, Vault(OTHER_KEY)) as new:
        after = {e.tenant.id: new.vault.open_data_key(e.tenant.id, e.sealed_key) for e in await loaded(new)}
        assert after == before
        assert (await new.verify()).entries == 1
        changes = await new.feed.since(seq)
        assert changes is not None
        assert changes.tenants == set(before)
    with pytest.raises(SecretKeyError):
        async with Registry.open(url, Vault(KEY)):
            pass


async def test_ids_sort_by_age(registry: Registry) -> None:
    """Lists in the order of ids are lists in the order of time, in Python and in the database."""
    made: list[Environment] = []
    for number in range(4):
        made.append(draft(f"t{number}"))
        await asyncio.sleep(0.002)
    await enter(registry, *reversed(made))
    assert [e.id for e in await loaded(registry)] == [e.id for e in made] == sorted(e.id for e in made)


def test_transactions_are_what_the_package_gives() -> None:
    """The type that verbs are written against is the one the registry opens."""
    assert Transaction is database.Transaction

"""Copying a registry: from SQLite to PostgreSQL and back, all of it or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, event, insert, select, text, update

import servers
from registries import KEY, draft, enter, python
from tenantry.errors import (
    AuditBroken,
    CopyFailed,
    RegistryBehind,
    RegistryInUse,
    RegistryNotEmpty,
    RegistryUnavailable,
    SecretKeyError,
)
from tenantry.model import Server, new_id
from tenantry.registry import Feed, Registry, Vault, copying, journal, migrations, state, tables, tenants
from tenantry.registry import servers as registered
from tenantry.registry.database import Database, Transaction, now

pytestmark = pytest.mark.postgres

DEAD_AFTER = 2.0


@pytest.fixture
def other_url(postgres: servers.Postgres, url: str, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database of the other kind."""
    if not url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'moved' / 'control.sqlite'}"
        return
    with postgres.database() as found:
        yield found


@pytest.fixture
async def full(registry: Registry) -> Registry:
    """A registry with rows in every table that is copied, and text and numbers of every sort."""
    acme, other = draft("acme", name="Ærø & 'Söhne' 𝄞", settings={"a": [1, 2.5, None, True], "ü": "x"}), draft("b-2")
    await enter(registry, acme, other)
    vault, tenant = registry.vault, acme.tenant
    async with registry.write() as tx:
        (found,) = await tenants.environments(tx, [tenant.id])
        sealed = vault.seal(tenant.id, found.sealed_key, "value:key", "secret")
        await tenants.put_secrets(tx, [(tenant.id, "value:key", sealed)])
        await tenants.rename(tx, tenant, "apex", tenants.hold_until(60), {acme.id: "apex.example.test"})
        server = Server("main", "postgres", "postgresql://db:5432/postgres", labels=frozenset({"eu"}))
        await registered.put(tx, server, vault.seal_platform("server:main", "postgresql://admin:x@db/postgres"))
        await registered.put_shared(tx, "main", "agency", vault.seal_platform("login:main/agency", '["app", "x"]'))
        item = journal.NewItem(0, "acme", {"n": 1})
        operation_id = new_id()
        await journal.submit(tx, operation_id, "import", [("tenants", "")], items=[item])
        await journal.set_step(tx, operation_id, 0, journal.StepState.DONE, "all", 0.1 + 0.2)
        await journal.set_state(tx, operation_id, journal.State.DONE, result={"done": 1})
        for number in range(30):
            tx.audit("test.copy", "apex", number=number, text="é\n")
    async with registry.write() as tx:
        for table in tables.metadata.sorted_tables:
            if table.name not in copying.LEFT_OUT and await tx.first(select(table)) is None:
                await tx.insert(table, [{column.name: await some(tx, column) for column in table.columns}])
    return registry


async def some(tx: Transaction, column: Column[Any]) -> Any:
    """A value that a column can hold; of one that refers to another table, what stands there."""
    for key in column.foreign_keys:
        return await tx.scalar(select(key.column).limit(1))
    if isinstance(column.type, tables.Moment):
        return now()
    found = {
        str: f"é {column}"[: getattr(column.type, "length", None) or 9],
        bytes: b"\0\xff",
        bool: True,
        int: 2**31 - 1,
        float: 0.1 + 0.2,
    }
    return found.get(column.type.python_type, {"ü": [1, None]})


async def content(database: Database) -> dict[str, list[Any]]:
    """Every row of every table."""
    async with database.read() as tx:
        return {t.name: sorted(map(repr, await tx.all(select(t)))) for t in tables.metadata.sorted_tables}


@pytest.fixture
async def target(other_url: str) -> AsyncIterator[Database]:
    """The database that is copied into."""
    database = Database(other_url, Vault(KEY), actor="tester")
    yield database
    await database.close()


async def copied(registry: Registry, target: Database) -> copying.Copied:
    """Copy, without telling anybody."""
    return await copying.copy(registry.database, target, DEAD_AFTER, lambda *_: None)


async def emptiness(target: Database) -> str | None:
    """The revision of the target; None where nothing is there."""
    async with target.read() as tx:
        return await tx.sync(migrations.current)


async def test_every_row_arrives_as_it_was(full: Registry, target: Database, other_url: str) -> None:
    """The copy is the same registry: rows, secrets, the audit chain with one entry more; the feed goes on."""
    before = await content(full.database)
    assert {name for name, rows in before.items() if not rows} == {"worker", "tenant_lock"}
    told: list[tuple[str, int, int]] = []
    found = await copying.copy(full.database, target, DEAD_AFTER, lambda *one: told.append(one))
    assert await content(full.database) == before
    assert found.rows == {name: len(rows) for name, rows in before.items() if name not in copying.LEFT_OUT}
    assert {name for name, done, total in told if done == total} == set(found.rows)
    after = await content(target)
    assert {name for name in before if before[name] != after[name]} == {"audit", "head"}
    assert after["audit"][1:] != before["audit"][1:]
    assert set(before["audit"]) < set(after["audit"])
    async with Registry.open(other_url, Vault(KEY)) as moved:
        assert (await moved.verify()).entries == found.entries + 1
        (newest,) = await moved.entries(limit=1)
        assert (newest.action, newest.subject) == ("registry.copy", "platform")
        loaded, original = await moved.feed.load(), await full.feed.load()
        assert loaded.seq == original.seq
        assert list(loaded.environments) == list(original.environments)
        async with moved.read() as tx:
            assert (await registered.known(tx, moved.vault))["main"].admin == "postgresql://admin:x@db/postgres"
        await enter(moved, draft("next"))
        assert (await moved.feed.load()).seq == original.seq + 1


async def test_there_and_back_again(full: Registry, target: Database, tmp_path: Path) -> None:
    """Nothing is rounded, cut or turned on either way."""
    before = await content(full.database)
    await copied(full, target)
    home = Database(f"sqlite:///{tmp_path / 'home.sqlite'}", Vault(KEY))
    try:
        await copying.copy(target, home, DEAD_AFTER, lambda *_: None)
        after = await content(home)
    finally:
        await home.close()
    assert {name for name in before if before[name] != after[name]} == {"audit", "head"}


async def test_a_registry_at_work_is_not_copied(full: Registry, target: Database) -> None:
    """While a worker lives or an operation is not over, the copy is refused with their names, and nothing is made."""
    worker = journal.Worker(new_id(), "host-a", 4711, now(), now(), 4)
    async with full.write() as tx:
        await journal.enlist(tx, worker)
    with pytest.raises(RegistryInUse, match="host-a/4711"):
        await copied(full, target)
    async with full.write() as tx:
        await journal.dismiss(tx, worker.id)
        await journal.submit(tx, new_id(), "create", [("db", "sqlite")])
    with pytest.raises(RegistryInUse, match=r"\(create\) is queued"):
        await copied(full, target)
    assert await emptiness(target) is None


async def test_a_used_registry_is_not_overwritten(full: Registry, target: Database, other_url: str) -> None:
    """What was begun and never used makes room; one with as much as an audit entry does not."""
    async with Registry.open(other_url, Vault(KEY)) as begun:
        assert (await begun.verify()).entries == 0
    await copied(full, target)
    before = await content(target)
    with pytest.raises(RegistryNotEmpty, match=r"a registry with [0-9]+ rows in"):
        await copied(full, target)
    assert await content(target) == before


async def test_a_database_of_something_else_is_left_alone(full: Registry, target: Database) -> None:
    """A table that has one of our names and is not ours is named."""
    async with target.write() as tx:
        await tx.execute(text("CREATE TABLE tenant (whatever INTEGER)"))
    with pytest.raises(RegistryNotEmpty, match="a table 'tenant' of something else"):
        await copied(full, target)
    async with target.read() as tx:
        assert (await tx.execute(text("SELECT * FROM tenant"))).keys() == ["whatever"]


async def test_a_row_that_changes_on_its_way_ends_the_copy(full: Registry, target: Database) -> None:
    """What arrived is compared with what was sent; a difference leaves nothing behind."""
    spoiled = []

    def spoil(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> Any:
        if statement.startswith("INSERT INTO tenant "):
            rows = parameters if many else [parameters]
            spoiled.append(len(rows))
            rows = [_renamed(row) for row in rows]
            parameters = rows if many else rows[0]
        return statement, parameters

    event.listen(target.engine.sync_engine, "before_cursor_execute", spoil, retval=True)
    with pytest.raises(CopyFailed, match="'tenant': what arrived is not what was sent"):
        await copied(full, target)
    assert spoiled
    event.remove(target.engine.sync_engine, "before_cursor_execute", spoil)
    assert await emptiness(target) is None


def _renamed(row: Any) -> Any:
    if isinstance(row, dict):
        return row | {"name": "somebody else"}
    return tuple("somebody else" if value == "B-2" else value for value in row)


async def test_a_tampered_audit_log_is_not_copied(full: Registry, target: Database) -> None:
    """The chain is walked in the copy before anything is kept."""
    async with full.write() as tx:
        await tx.execute(update(tables.audit).where(tables.audit.c.seq == 7).values(actor="nobody"))
    with pytest.raises(AuditBroken, match="entry 7"):
        await copied(full, target)
    assert await emptiness(target) is None


async def test_the_platform_key_has_to_be_the_registrys(full: Registry, target: Database, url: str) -> None:
    """A copy that nobody could open is not made."""
    source = Database(url, Vault("f0" * 32))
    try:
        with pytest.raises(SecretKeyError):
            await copying.copy(source, target, DEAD_AFTER, lambda *_: None)
    finally:
        await source.close()
    assert await emptiness(target) is None


async def test_writers_wait_while_a_copy_is_made(full: Registry, target: Database) -> None:
    """Nothing is entered behind the copy's back: a writer comes after it."""
    writing: list[asyncio.Task[None]] = []

    async def write() -> None:
        async with full.write() as tx:
            tx.audit("test.late", "platform")

    def tell(*_: object) -> None:
        if not writing:
            writing.append(asyncio.create_task(write()))

    found = await copying.copy(full.database, target, DEAD_AFTER, tell)
    await writing[0]
    assert (await full.verify()).entries == found.entries + 1


COPIER = """
import asyncio, os, signal, sys
from tenantry.registry import Vault, copying
from tenantry.registry.database import Database
def tell(table, done, total):
    if table == "operation":
        os.kill(os.getpid(), signal.SIGKILL)
async def main():
    vault = Vault(sys.argv[3])
    await copying.copy(Database(sys.argv[1], vault), Database(sys.argv[2], vault), 2.0, tell)
asyncio.run(main())
"""


async def test_a_copy_that_is_killed_leaves_nothing(full: Registry, target: Database, url: str, other_url: str) -> None:
    """The other database is empty, the old one as it was, and the next copy succeeds."""
    before = await content(full.database)
    process = await python(COPIER, url, other_url, KEY)
    _, errors = await process.communicate()
    assert process.returncode == -9, errors.decode()
    assert await emptiness(target) is None
    assert await content(full.database) == before
    assert (await copied(full, target)).entries == 30


# --- revisions ----------------------------------------------------------------------------------------------------


async def older(registry: Registry) -> None:
    """Let a registry say that it is at the first revision."""
    async with registry.write() as tx:
        await tx.execute(text("UPDATE alembic_version SET version_num = '0001'"))


def make_first(connection: Connection) -> None:
    """Make the tables as the first revision had them."""
    script = ScriptDirectory(Path(migrations.__file__).parent)
    steps = {"fn": lambda at, _context: script._upgrade_revs("0001", at)}
    context = MigrationContext.configure(connection, opts=steps)
    with Operations.context(context):
        context.run_migrations()


@pytest.fixture
async def first(url: str) -> AsyncIterator[Database]:
    """A registry of the first revision."""
    database = Database(url, Vault(KEY), actor="tester")
    async with database.write() as tx:
        await tx.sync(make_first)
        await tenants.put_meta(tx, "check", database.vault.new_check())
        await tx.begin_head()
    yield database
    await database.close()


async def test_only_a_command_changes_the_schema_of_a_shared_registry(first: Database, url: str) -> None:
    """On a server an older schema is refused with the remedy; on SQLite, opening brings it up to date."""
    if first.is_sqlite:
        async with Registry.open(url, Vault(KEY)) as again:
            assert [entry.action for entry in await again.entries()] == ["registry.migrate"]
        return
    with pytest.raises(RegistryBehind, match=r"revision 0001.*tenantry registry migrate"):
        async with Registry.open(url, Vault(KEY)):
            pass
    assert await emptiness(first) == "0001"


async def test_a_server_says_that_the_schema_is_not_its_own(first: Database) -> None:
    """Who only reads changes nothing, and names the revision instead of a missing column."""
    with pytest.raises(RegistryBehind, match="revision 0001"):
        await Feed(first).load()
    assert await emptiness(first) == "0001"


MIGRATOR = """
import asyncio, sys
from tenantry.registry import Vault, begin
from tenantry.registry.database import Database
database = Database(sys.argv[1], Vault(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(begin(database))
"""


async def test_processes_that_migrate_at_once_do_it_once(first: Database, url: str) -> None:
    """One applies what is missing, the others wait and find nothing to do; the tables are then as they should be."""
    migrators = await asyncio.gather(*(python(MIGRATOR, url, KEY) for _ in range(3)))
    for migrator in migrators:
        assert migrator.stdout
        assert await migrator.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(migrator.communicate(b"go\n") for migrator in migrators))
    assert [migrator.returncode for migrator in migrators] == [0, 0, 0], [error.decode() for _, error in outputs]
    async with Registry.open(url, Vault(KEY)) as registry:
        assert [entry.action for entry in await registry.entries()] == ["registry.migrate"]
        assert (await registry.verify()).entries == 1
        await enter(registry, draft("acme"))

    def differences(connection: Connection) -> list[Any]:
        options = {"compare_server_default": connection.dialect.name != "sqlite"}
        return compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)

    async with first.read() as tx:
        assert await tx.sync(differences) == []


async def test_an_older_registry_is_not_copied(full: Registry, target: Database) -> None:
    """It is brought to the newest schema first."""
    await older(full)
    with pytest.raises(RegistryBehind):
        await copied(full, target)
    assert await emptiness(target) is None


async def test_a_look_changes_nothing(full: Registry, target: Database) -> None:
    """Of an empty, an older and a newer database it is told what there is."""
    found = await state.look(full.database)
    assert (found.revision, found.pending) == (migrations.HEAD, ())
    assert found.rows["tenant"] == 2
    assert found.rows["audit"] == 30
    assert found.change == 4
    assert found.bytes > 1000
    assert found.server.startswith("SQLite 3." if full.database.is_sqlite else "PostgreSQL 1")
    if not full.database.is_sqlite:
        assert found.connections["tenantry"] >= 1
    empty = await state.look(target)
    assert (empty.revision, empty.rows, empty.engine) == (None, {}, None)
    assert [revision.id for revision in empty.pending][-1] == migrations.HEAD
    await older(full)
    behind = await state.look(full.database)
    assert behind.revision == "0001"
    assert [revision.id for revision in behind.pending] == [revision.id for revision in empty.pending][1:]
    async with full.write() as tx:
        await tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RegistryUnavailable, match="9999"):
        await state.look(full.database)


async def test_rows_that_do_not_fit_are_named_with_their_table(full: Registry, target: Database) -> None:
    """SQLite keeps text longer than its column, a server does not: the copy says where."""
    if not full.database.is_sqlite:
        pytest.skip("the server that is copied from keeps no such row")
    async with full.write() as tx:
        row = {"id": new_id(), "host": "h" * 300, "pid": 1, "started": now(), "heartbeat": now(), "concurrency": 1}
        await tx.execute(insert(tables.worker).values(row | {"heartbeat": tenants.hold_until(-60)}))
        await tx.execute(update(tables.tenant).where(tables.tenant.c.slug == "b-2").values(blueprint="b" * 300))
    with pytest.raises(CopyFailed, match=r"'tenant': value too long"):
        await copied(full, target)
    assert await emptiness(target) is None

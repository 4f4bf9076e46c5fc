"""Keys in later migrations of shared tables, written as an application writes them: they hold within one tenant."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tenantry.errors import MigrationError
from tenantry.model import Environment
from tenantry.resources import Resource
from worlds import RowsWorld

pytestmark = pytest.mark.postgres

FIRST = """
CREATE TABLE author (id int PRIMARY KEY, name text NOT NULL UNIQUE, country text);
CREATE TABLE print (isbn text, edition int, PRIMARY KEY (isbn, edition));
CREATE TABLE country (code text PRIMARY KEY);
INSERT INTO country VALUES ('at');
"""
FILL = (
    "INSERT INTO author (id, name) VALUES (1, 'Ann'), (2, 'Bo')",
    "INSERT INTO print (isbn, edition) VALUES ('x', 1)",
)


def keys(world: RowsWorld, *tables: str) -> dict[str, str]:
    """The keys of these tables, as the server writes them."""
    with psycopg.connect(world.server.url(str(world.options["database"]))) as connection:
        rows = connection.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = ANY (%s::regclass[]) AND contype IN ('f', 'p', 'u', 'x') ORDER BY 1",
            (list(tables),),
        )
        return {str(name): str(text) for name, text in rows}


class Library:
    """Two tenants whose rows have the same keys, and migrations that come later."""

    def __init__(self, world: RowsWorld) -> None:
        self.world = world
        world.migration("0003_first.sql", FIRST)
        world.options["shared"] = ["country"]
        self.resource: Resource = world.resource()
        self.acme, self.other = world.environment(), world.environment("other")
        self.last = 3

    async def fill(self) -> Library:
        for env in (self.acme, self.other):
            await self.resource.create(env)
            for statement in FILL:
                self.query(env, statement)
        return self

    async def migrate(self, text: str, suffix: str = "sql") -> None:
        self.last += 1
        self.world.migration(f"{self.last:04}_later.{suffix}", text)
        self.resource = self.world.resource()
        await self.resource.migrate(self.acme)
        for env in (self.acme, self.other):
            assert [finding.what for finding in await self.resource.check(env) if not finding.ok] == []

    def query(self, env: Environment, statement: str) -> list[tuple[object, ...]]:
        return self.world.query(self.resource, env, statement)

    def refuses(self, env: Environment, statement: str, error: type[psycopg.Error]) -> None:
        with pytest.raises(error):
            self.query(env, statement)

    def keys(self, *tables: str) -> dict[str, str]:
        return keys(self.world, *tables)

    def left(self) -> list[tuple[object, ...]]:
        """What stand-ins left behind."""
        with psycopg.connect(self.world.server.url(str(self.world.options["database"]))) as connection:
            return connection.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ 'stand'").fetchall()


@pytest.fixture
async def library(rows_world: RowsWorld) -> Library:
    """Shared tables that two tenants have the same rows in."""
    return await Library(rows_world).fill()


async def test_a_new_table_refers_to_one_that_is_safe(library: Library) -> None:
    """`REFERENCES author (id)` leads to the own tenant's row alone, with its name and its actions."""
    await library.migrate(
        "CREATE TABLE book (id int PRIMARY KEY, author int NOT NULL REFERENCES author (id) ON DELETE CASCADE,\n"
        "  editor int REFERENCES author ON UPDATE CASCADE ON DELETE SET NULL, country text REFERENCES country,\n"
        "  isbn text, edition int, CONSTRAINT printed FOREIGN KEY (isbn, edition) REFERENCES print DEFERRABLE);"
    )
    assert library.keys("book") == {
        "book_pkey": "PRIMARY KEY (tenant_id, id)",
        "book_author_fkey": "FOREIGN KEY (tenant_id, author) REFERENCES author(tenant_id, id) ON DELETE CASCADE",
        "book_editor_fkey": "FOREIGN KEY (tenant_id, editor) REFERENCES author(tenant_id, id) "
        "ON UPDATE CASCADE ON DELETE SET NULL (editor)",
        "book_country_fkey": "FOREIGN KEY (country) REFERENCES country(code)",
        "printed": "FOREIGN KEY (tenant_id, isbn, edition) REFERENCES print(tenant_id, isbn, edition) DEFERRABLE",
    }
    for env in (library.acme, library.other):
        library.query(env, "INSERT INTO book (id, author, editor, isbn, edition) VALUES (1, 1, 2, 'x', 1)")
    library.query(library.acme, "DELETE FROM author WHERE id = 2")
    assert library.query(library.acme, "SELECT editor FROM book") == [(None,)]
    library.query(library.acme, "DELETE FROM author")
    assert library.query(library.acme, "SELECT id FROM book") == []
    assert library.query(library.other, "SELECT editor FROM book") == [(2,)]
    library.refuses(library.acme, "INSERT INTO book (id, author) VALUES (2, 1)", psycopg.errors.ForeignKeyViolation)
    assert library.left() == []


async def test_a_table_that_is_safe_gets_new_keys(library: Library) -> None:
    """Keys added to tables with rows hold within each tenant, whatever the other tenants' rows are."""
    await library.migrate(
        "CREATE TABLE book (id int PRIMARY KEY, author int, isbn text);\n"
        "ALTER TABLE book ADD COLUMN edition int, ADD FOREIGN KEY (isbn, edition) REFERENCES print (isbn, edition);"
    )
    for env in (library.acme, library.other):
        library.query(env, "INSERT INTO book (id, author, isbn, edition) VALUES (1, 1, 'x', 1), (2, 2, NULL, 7)")
    await library.migrate(
        "ALTER TABLE book ADD FOREIGN KEY (author) REFERENCES author (id) ON DELETE RESTRICT NOT VALID,\n"
        "  ADD COLUMN slug text, ADD UNIQUE NULLS NOT DISTINCT (id, slug), ADD COLUMN part int REFERENCES book (id);\n"
        'ALTER TABLE author ADD UNIQUE (country, name), ADD mentor int, ADD CONSTRAINT "a mentor"\n'
        "  FOREIGN KEY (mentor) REFERENCES author (id), ADD CHECK (mentor <> id);\n"
        "ALTER TABLE book ADD CONSTRAINT again FOREIGN KEY (author) REFERENCES author (id)\n"
        "  DEFERRABLE INITIALLY DEFERRED;\n"
        "ALTER TABLE book VALIDATE CONSTRAINT book_author_fkey;"
    )
    assert library.keys("book", "author") == {
        "a mentor": "FOREIGN KEY (tenant_id, mentor) REFERENCES author(tenant_id, id)",
        "again": "FOREIGN KEY (tenant_id, author) REFERENCES author(tenant_id, id) DEFERRABLE INITIALLY DEFERRED",
        "author_country_name_key": "UNIQUE (tenant_id, country, name)",
        "author_name_key": "UNIQUE (tenant_id, name)",
        "author_pkey": "PRIMARY KEY (tenant_id, id)",
        "book_author_fkey": "FOREIGN KEY (tenant_id, author) REFERENCES author(tenant_id, id) ON DELETE RESTRICT",
        "book_id_slug_key": "UNIQUE NULLS NOT DISTINCT (tenant_id, id, slug)",
        "book_isbn_edition_fkey": "FOREIGN KEY (tenant_id, isbn, edition) REFERENCES print(tenant_id, isbn, edition)",
        "book_part_fkey": "FOREIGN KEY (tenant_id, part) REFERENCES book(tenant_id, id)",
        "book_pkey": "PRIMARY KEY (tenant_id, id)",
    }
    library.query(library.acme, "UPDATE author SET mentor = 2 WHERE id = 1")
    library.refuses(library.acme, "UPDATE author SET mentor = 3", psycopg.errors.ForeignKeyViolation)
    library.refuses(library.acme, "DELETE FROM author WHERE id = 2", psycopg.errors.IntegrityError)
    assert library.left() == []


async def test_rows_that_break_a_new_key_are_told(library: Library) -> None:
    """A key that one tenant's rows break is refused with the server's words, and nothing of the migration remains."""
    await library.migrate("CREATE TABLE book (id int PRIMARY KEY, author int);")
    library.query(library.acme, "INSERT INTO author (id, name) VALUES (9, 'Cy')")
    library.query(library.other, "INSERT INTO book VALUES (1, 9)")
    before = library.keys("book", "author")
    for text, told in (
        ("ALTER TABLE book ADD FOREIGN KEY (author) REFERENCES author;", r"author\)=\(.*, 9\) is not present in table"),
        ("ALTER TABLE book ADD COLUMN x int; ALTER TABLE book ADD FOREIGN KEY (nobody) REFERENCES author;", "nobody"),
        ("ALTER TABLE book ADD FOREIGN KEY (author) REFERENCES author (name);", "cannot be implemented"),
        ("ALTER TABLE book ADD FOREIGN KEY (author) REFERENCES author (country);", "no unique constraint matching"),
        ("ALTER TABLE book ADD PRIMARY KEY (author);", "multiple primary keys"),
        ("ALTER TABLE book ADD CONSTRAINT book_pkey UNIQUE (author);", "book_pkey.* already exists"),
    ):
        with pytest.raises(MigrationError, match=told):
            await library.migrate(text)
        (library.world.root / "schema" / f"{library.last:04}_later.sql").unlink()
        library.last -= 1
        assert library.keys("book", "author") == before
    assert library.left() == []


@pytest.mark.parametrize(
    "text",
    [
        "ALTER TABLE book ADD FOREIGN KEY (tenant_id, author) REFERENCES author (tenant_id, id);",
        "ALTER TABLE book ADD FOREIGN KEY (author) REFERENCES author (id) NOT VALID;"
        "ALTER TABLE book VALIDATE CONSTRAINT book_author_fkey;",
        "ALTER TABLE book ADD FOREIGN KEY (country) REFERENCES country (code);",
        "CREATE UNIQUE INDEX ON author (id, name) WHERE false; ALTER TABLE book ADD COLUMN x int DEFAULT 3,"
        "  ADD FOREIGN KEY (x) REFERENCES author (id);",
        "-- tenantry: transaction=off\nALTER TABLE book ADD FOREIGN KEY (author) REFERENCES author (id);",
    ],
    ids=["tenant named", "validated", "shared", "new column", "no transaction"],
)
async def test_no_key_holds_for_new_rows_alone(library: Library, text: str) -> None:
    """Forced policies hide rows from the owner, yet a new key is checked against every tenant's."""
    await library.migrate("CREATE TABLE book (id int PRIMARY KEY, author int, country text);")
    library.query(library.other, "INSERT INTO book VALUES (1, 9, 'nowhere')")
    with pytest.raises(MigrationError, match="is not present in table"):
        await library.migrate(text)
    assert not [name for name in library.keys("book") if "pkey" not in name]


INDEXES = """
CREATE UNIQUE INDEX one_country ON author (country) WHERE country <> 'at';
CREATE UNIQUE INDEX ON author USING btree (lower(country) DESC, id);
CREATE INDEX ON author (country);
CREATE INDEX by_hash ON author USING hash (country);
CREATE INDEX by_tenant ON author (country, tenant_id);
"""


async def test_indexes_begin_with_the_tenant(library: Library) -> None:
    """A unique index holds within each tenant though their values collide; names are those the server gives."""
    for env in (library.acme, library.other):
        library.query(env, "UPDATE author SET country = 'de' || id")
    await library.migrate(INDEXES)
    await library.migrate(
        "-- tenantry: transaction=off\nCREATE UNIQUE INDEX CONCURRENTLY beside ON author (country);\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS more ON author USING btree (name text_pattern_ops) INCLUDE (country);"
    )
    with psycopg.connect(library.world.server.url(str(library.world.options["database"]))) as connection:
        found = connection.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'author'").fetchall()
    shown = {str(name): str(text).partition(" USING ")[2] for name, text in found if "pkey" not in str(name)}
    assert shown == {
        "author_name_key": "btree (tenant_id, name)",
        "one_country": "btree (tenant_id, country) WHERE (country <> 'at'::text)",
        "author_lower_id_idx": "btree (tenant_id, lower(country) DESC, id)",
        "author_country_idx": "btree (tenant_id, country)",
        "by_hash": "hash (country)",
        "by_tenant": "btree (country, tenant_id)",
        "beside": "btree (tenant_id, country)",
        "more": "btree (tenant_id, name text_pattern_ops) INCLUDE (country)",
    }
    library.refuses(library.acme, "UPDATE author SET country = 'de'", psycopg.errors.UniqueViolation)


PYTHON = """
from sqlalchemy import text

def upgrade(connection):
    connection.execute(text("CREATE TABLE book (id int PRIMARY KEY, author int REFERENCES author (id), n int)"))
    connection.execute(text("INSERT INTO book (id, author, tenant_id) SELECT id, id, tenant_id FROM author"))
    connection.execute(text("ALTER TABLE author ADD UNIQUE (country), ADD CHECK (name NOT LIKE 'x%')"))
"""


async def test_python_makes_keys_too(library: Library) -> None:
    """What a Python file runs is read as SQL files are; rows it adds name their tenant."""
    await library.migrate(PYTHON, "py")
    assert library.keys("book") == {
        "book_author_fkey": "FOREIGN KEY (tenant_id, author) REFERENCES author(tenant_id, id)",
        "book_pkey": "PRIMARY KEY (tenant_id, id)",
    }
    assert library.keys("author")["author_country_key"] == "UNIQUE (tenant_id, country)"
    for env in (library.acme, library.other):
        assert library.query(env, "SELECT count(*) FROM book") == [(2,)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ALTER TABLE country ADD COLUMN best int REFERENCES author (id);", "country .*declare author as shared"),
        ("CREATE TABLE book (a int REFERENCES author (id) ON UPDATE SET NULL);", "would change the tenant too"),
        ("CREATE TABLE book (a int); INSERT INTO book VALUES (1);"
         "ALTER TABLE book ADD FOREIGN KEY (a) REFERENCES author (id);", "has no column tenant_id.*It holds rows"),
        ("DO $$ BEGIN CREATE TABLE book (a int REFERENCES author (id)); END $$;",
         r"no unique constraint.*REFERENCES page \(tenant_id, id\)"),
        ("ALTER TABLE author ADD COLUMN a int DEFAULT 1 REFERENCES author (id);", "is not present in table"),
        ("CREATE VIEW v AS SELECT 1; CREATE TABLE book (a int REFERENCES v);", 'relation "v" is not a table'),
        ("ALTER TABLE author ADD EXCLUDE USING hash (country WITH =);", "takes no tenant beside"),
    ],
)  # fmt: skip
async def test_keys_that_cannot_be_are_refused(library: Library, text: str, told: str) -> None:
    """A key that tenants cannot share, or that cannot be read, is refused with what to write; nothing is left of it."""
    before = library.keys("author", "country", "print")
    with pytest.raises(MigrationError, match=f"(?s){told}") as caught:
        await library.migrate(text)
    assert caught.value.hint
    assert library.keys("author", "country", "print") == before
    assert library.left() == []


async def test_two_processes_that_add_the_same_key(library: Library) -> None:
    """Two that migrate at once make a key once, and a new tenant's golden template has it, too."""
    await library.migrate("CREATE TABLE book (id int PRIMARY KEY, author int);")
    library.world.migration("0005_a.sql", "ALTER TABLE book ADD FOREIGN KEY (author) REFERENCES author (id);")
    library.world.migration(
        "0006_b.sql", "CREATE TABLE leaf (book int REFERENCES book); ALTER TABLE leaf ADD UNIQUE (book);"
    )
    one, two = library.world.resource(), library.world.resource()
    await asyncio.gather(one.migrate(library.acme), two.migrate(library.other))
    library.resource = one
    await one.create(library.world.environment("third"))
    assert library.keys("book", "leaf") == {
        "book_author_fkey": "FOREIGN KEY (tenant_id, author) REFERENCES author(tenant_id, id)",
        "book_pkey": "PRIMARY KEY (tenant_id, id)",
        "leaf_book_fkey": "FOREIGN KEY (tenant_id, book) REFERENCES book(tenant_id, id)",
        "leaf_book_key": "UNIQUE (tenant_id, book)",
    }
    rehearsed = library.world.migration("0007_c.sql", "ALTER TABLE leaf ADD FOREIGN KEY (book) REFERENCES author (id);")
    told = await library.world.resource().rehearse(library.acme, rehearsed.stem, 1 << 40)
    assert told.failure is None
    assert [step.version for step in told.tried] == ["0007_c"]


REVISION = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = {revision!r}, {before!r}

def upgrade():
{body}

def downgrade():
    pass
"""
REVISIONS = (
    "    op.create_table('author', sa.Column('id', sa.Integer, primary_key=True), sa.Column('name', sa.Text))",
    "    op.create_table('book', sa.Column('id', sa.Integer, primary_key=True), sa.Column('author', sa.Integer,"
    " sa.ForeignKey('author.id', ondelete='CASCADE')), sa.UniqueConstraint('author', name='one'))\n"
    "    op.create_unique_constraint('named', 'author', ['name'])\n"
    "    op.create_index('found', 'author', ['name'], unique=True)\n"
    "    op.add_column('author', sa.Column('mentor', sa.Integer))\n"
    "    op.create_foreign_key('mentored', 'author', 'author', ['mentor'], ['id'])",
)


async def test_alembic_makes_keys_too(rows_world: RowsWorld) -> None:
    """Revisions of Alembic's, as it generates them, make keys that hold within each tenant."""
    for path in (rows_world.root / "schema").iterdir():
        path.unlink()
    del rows_world.options["seed"]
    (rows_world.root / "schema" / "versions").mkdir()
    acme, other = rows_world.environment(), rows_world.environment("other")
    for number, body in enumerate(REVISIONS):
        text = REVISION.format(revision=f"r{number}", before=f"r{number - 1}" if number else None, body=body)
        (rows_world.root / "schema" / "versions" / f"r{number}.py").write_text(text)
        resource = rows_world.resource()
        for env in (acme, other):
            await (resource.migrate(env) if number else resource.create(env))
            if not number:
                rows_world.query(resource, env, "INSERT INTO author (id, name) VALUES (1, 'Ann')")
            assert [finding.what for finding in await resource.check(env) if not finding.ok] == []
    assert keys(rows_world, "author", "book") == {
        "author_pkey": "PRIMARY KEY (tenant_id, id)",
        "book_author_fkey": "FOREIGN KEY (tenant_id, author) REFERENCES author(tenant_id, id) ON DELETE CASCADE",
        "book_pkey": "PRIMARY KEY (tenant_id, id)",
        "mentored": "FOREIGN KEY (tenant_id, mentor) REFERENCES author(tenant_id, id)",
        "named": "UNIQUE (tenant_id, name)",
        "one": "UNIQUE (tenant_id, author)",
    }

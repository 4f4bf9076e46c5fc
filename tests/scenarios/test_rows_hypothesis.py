"""Random PostgreSQL schemas: each is refused with a reason, or made safe and attacked as one tenant against another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, event, given, reject, settings
from hypothesis import strategies as st
from psycopg import sql

from sharing import ONE, TWO, Shelf, furnished
from tenantry.errors import RowsUnsafe
from tenantry.resources.rows_plan import Plan, apply, inspect, plan, weaknesses

pytestmark = pytest.mark.postgres

EXAMPLES = os.environ.get("TENANTRY_EXAMPLES")
"""How many schemas to try, other ones each time; the same few where it is not set."""

SECRET = "kept-secret"
"""What the other tenant's rows hold, and nothing else does."""

NAMES = ["note", "Note", 'o"dd', "a b", "pré", "x" * 63, "user", "%s", "{0}", "a;b", "-- c", "$1", "tenant", "'"]
ACTIONS = ["NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT"]
KEYS = ["primary", "primary", "unique", "nulls", "index", "composite", "deferrable", "none"]
SLUGS = ["none", "unique", "unique", "partial", "lower", "plain", "included"]
EXTRAS = {
    "view": "CREATE VIEW {name} AS SELECT * FROM {table}",
    "barrier": "CREATE VIEW {name} WITH (security_barrier) AS SELECT slug AS s FROM {table} WHERE id > 0",
    "counting view": "CREATE VIEW {name} AS SELECT count(*) AS n, max(slug) AS s FROM {table}",
    "grouping view": "CREATE VIEW {name} AS SELECT id, slug FROM {table} GROUP BY id, slug",
    "leaning view": "CREATE VIEW {name} AS SELECT id, slug FROM {table} GROUP BY id",
    "nested view": "CREATE VIEW {name} AS SELECT * FROM {table}; CREATE VIEW {other} AS SELECT slug FROM {name}",
    "materialized view": "CREATE MATERIALIZED VIEW {name} AS SELECT * FROM {table}",
    "rule": "CREATE RULE {name} AS ON DELETE TO {table} DO ALSO UPDATE {target} SET note = 'ruled'",
    "function": "CREATE FUNCTION {name}() RETURNS text LANGUAGE sql AS $$SELECT string_agg(slug, '') FROM {table}$$",
    "definer": "CREATE FUNCTION {name}() RETURNS text LANGUAGE sql SECURITY DEFINER AS "
    "$$SELECT string_agg(slug, '') FROM {table}$$",
    "superuser's definer": "RESET ROLE; CREATE FUNCTION {name}() RETURNS text LANGUAGE sql SECURITY DEFINER AS "
    "$$SELECT string_agg(slug, '') FROM {table}$$; SET LOCAL ROLE {owner}",
    "hidden definer": "RESET ROLE; CREATE FUNCTION {name}() RETURNS text LANGUAGE sql SECURITY DEFINER AS "
    "$$SELECT max(slug) FROM {table}$$; REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC; SET LOCAL ROLE {owner}",
    "becoming": "CREATE FUNCTION {name}() RETURNS text LANGUAGE sql SET tenantry.tenant = '" + TWO + "' AS "
    "$$SELECT string_agg(slug, '') FROM {table}$$",
    "leakproof": "RESET ROLE; CREATE FUNCTION {name}(text) RETURNS bool LANGUAGE plpgsql LEAKPROOF COST 0.0001 AS "
    "$$BEGIN IF $1 = '" + SECRET + "' THEN RAISE 'leaked %', $1; END IF; RETURN true; END$$; SET LOCAL ROLE {owner}",
    "trigger": "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
    "$$BEGIN UPDATE {target} SET note = 'touched'; RETURN NULL; END$$; "
    "CREATE TRIGGER {name} AFTER UPDATE OF slug ON {table} EXECUTE FUNCTION {name}()",
    "definer's trigger": "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
    "$$BEGIN UPDATE {target} SET note = 'touched'; RETURN NULL; END$$; "
    "CREATE TRIGGER {name} AFTER UPDATE OF slug ON {table} EXECUTE FUNCTION {name}()",
    "superuser's trigger": "RESET ROLE; CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
    "$$BEGIN UPDATE {target} SET note = 'touched'; RETURN NULL; END$$; REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC; "
    "CREATE TRIGGER {name} AFTER UPDATE OF slug ON {table} EXECUTE FUNCTION {name}(); SET LOCAL ROLE {owner}",
    "moving trigger": "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
    "IF NEW.note = 'move' THEN NEW.tenant_id := '" + TWO + "'; END IF; RETURN NEW; END$$; "
    "CREATE TRIGGER {name} BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()",
    "everything to everybody": "GRANT ALL ON {table} TO PUBLIC",
    "a column to the role": "GRANT UPDATE (note), REFERENCES (note) ON {table} TO {role} WITH GRANT OPTION",
    "privileges to come": "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}",
    "child": "CREATE TABLE {name} (more int UNIQUE) INHERITS ({table})",
    "own policy": "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; CREATE POLICY {name} ON {table} USING (true)",
    "open guard": "CREATE POLICY tenantry_tenant ON {table} AS RESTRICTIVE USING (true)",
    "identity": "ALTER TABLE {table} ADD COLUMN number int GENERATED ALWAYS AS IDENTITY UNIQUE",
    "serial": "ALTER TABLE {table} ADD COLUMN number serial",
    "generated": "ALTER TABLE {table} ADD COLUMN twice int GENERATED ALWAYS AS (id * 2) STORED UNIQUE",
    "without overlaps": "ALTER TABLE {table} ADD EXCLUDE USING gist (int4range(id, id + 1) WITH &&)",
}


@dataclass(frozen=True)
class Reference:
    """A foreign key to a table, by its number."""

    target: int
    on_delete: str
    on_update: str
    full: bool
    deferred: bool


@dataclass(frozen=True)
class Table:
    """A table to be made."""

    name: str
    key: str
    slug: str
    references: tuple[Reference, ...]
    partitioned: bool
    tenant: str | None  # type of a column `tenant_id` that it has before
    filled: bool
    shared: bool

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.name)


@dataclass(frozen=True)
class Extra:
    """Something beside tables."""

    kind: str
    table: int
    target: int


@dataclass(frozen=True)
class Schema:
    """A schema to be made."""

    tables: tuple[Table, ...]
    extras: tuple[Extra, ...]


def rarely(value: Any, otherwise: Any) -> st.SearchStrategy[Any]:
    """One value in ten."""
    return st.integers(0, 9).map(lambda drawn: value if drawn == 9 else otherwise)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """One to four tables with what refers to them."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    numbers = st.integers(0, len(names) - 1)
    references = st.builds(
        Reference,
        target=numbers,
        on_delete=st.sampled_from(ACTIONS),
        on_update=st.sampled_from([*ACTIONS[:3], *ACTIONS]),
        full=st.booleans(),
        deferred=st.booleans(),
    )
    tables = tuple(
        Table(
            name=name,
            key=draw(st.sampled_from(KEYS)),
            slug=draw(st.sampled_from(SLUGS)),
            references=tuple(draw(st.lists(references, max_size=2))),
            partitioned=draw(rarely(True, False)),
            tenant=draw(rarely("text", None) | rarely("uuid", None) | rarely("bigint", None)),
            filled=draw(rarely(True, False)),
            shared=draw(rarely(True, False)),
        )
        for name in names
    )
    extras = st.builds(Extra, kind=st.sampled_from(sorted(EXTRAS)), table=numbers, target=numbers)
    return Schema(tables, tuple(draw(st.lists(extras, max_size=3))))


# --- making -------------------------------------------------------------------------------------------------------


def table_statements(table: Table) -> Iterator[sql.Composed]:
    """What makes a table; its foreign keys come when all tables are there."""
    columns = [sql.SQL("id int, num int, slug text, note text")]
    columns += [sql.SQL(f"ref{number} int, part{number} int") for number in range(len(table.references))]
    if table.tenant:
        columns.append(sql.SQL(f"tenant_id {table.tenant}"))
    key = {"primary": "PRIMARY KEY (id)", "unique": "UNIQUE (id)", "nulls": "UNIQUE NULLS NOT DISTINCT (id)"}
    key |= {"composite": "PRIMARY KEY (id, num)", "deferrable": "UNIQUE (id) DEFERRABLE INITIALLY DEFERRED"}
    if table.key in key:
        columns.append(sql.SQL(key[table.key]))
    tail = sql.SQL(" PARTITION BY RANGE (id)" if table.partitioned else "")
    yield sql.SQL("CREATE TABLE {} ({}){}").format(table.identifier, sql.SQL(", ").join(columns), tail)
    if table.partitioned:
        partition = sql.Identifier(f"part of {table.name}"[:60])
        yield sql.SQL("CREATE TABLE {} PARTITION OF {} DEFAULT").format(partition, table.identifier)
    indexes = {"partial": "UNIQUE INDEX ON {} (slug) WHERE num > 0", "lower": "UNIQUE INDEX ON {} (lower(slug) DESC)"}
    indexes |= {"plain": "INDEX ON {} (slug)", "included": "UNIQUE INDEX ON {} (slug) INCLUDE (note)"}
    indexes |= {"unique": "UNIQUE INDEX ON {} (slug)"}
    if table.key == "index":
        yield sql.SQL("CREATE UNIQUE INDEX ON {} (id)").format(table.identifier)
    if table.slug in indexes and not (table.partitioned and table.slug != "plain"):
        yield sql.SQL("CREATE " + indexes[table.slug]).format(table.identifier)


def key_statements(schema: Schema, table: Table) -> Iterator[sql.Composed]:
    """A table's foreign keys, as far as there can be such ones."""
    for number, reference in enumerate(table.references):
        target = schema.tables[reference.target]
        if target.key in ("none", "deferrable"):
            continue
        columns = (f"ref{number}, part{number}", "id, num") if target.key == "composite" else (f"ref{number}", "id")
        text = f"ALTER TABLE {{}} ADD FOREIGN KEY ({columns[0]}) REFERENCES {{}} ({columns[1]}) "
        text += f"ON DELETE {reference.on_delete} ON UPDATE {reference.on_update}"
        text = text.replace(" ON DELETE", " MATCH FULL ON DELETE") if reference.full else text
        text += " DEFERRABLE INITIALLY DEFERRED" if reference.deferred else ""
        yield sql.SQL(text).format(table.identifier, target.identifier)


def extra_statement(schema: Schema, extra: Extra, number: int, shelf: Shelf) -> sql.Composed:
    """What makes something beside tables."""
    return sql.SQL(EXTRAS[extra.kind]).format(
        name=sql.Identifier(f"extra {number}"),
        other=sql.Identifier(f"other {number}"),
        table=schema.tables[extra.table].identifier,
        target=schema.tables[extra.target].identifier,
        owner=sql.Identifier(shelf.owner),
        role=sql.Identifier(shelf.role),
    )


def make(schema: Schema, shelf: Shelf) -> None:
    """Make it as the owner."""
    shelf.be(shelf.owner)
    statements = [
        *(statement for table in schema.tables for statement in table_statements(table)),
        *(statement for table in schema.tables for statement in key_statements(schema, table)),
        *(extra_statement(schema, extra, number, shelf) for number, extra in enumerate(schema.extras)),
        *(
            sql.SQL("INSERT INTO {} (id, num, slug) VALUES (1, 1, 's1'), (2, 2, 's2')").format(table.identifier)
            for table in schema.tables
            if table.filled or table.shared
        ),
    ]
    for statement in statements:
        shelf.connection.execute(statement)
    shelf.connection.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")


# --- attacking ----------------------------------------------------------------------------------------------------


class Attack:
    """One tenant against the other, who has the same rows and one more."""

    def __init__(self, shelf: Shelf, schema: Schema) -> None:
        self.shelf, self.schema = shelf, schema
        self.tables = [table for table in schema.tables if not table.shared]
        query = "SELECT oid, relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN "
        found = shelf.connection.execute((query + "('r', 'p', 'v', 'm', 'f')").encode()).fetchall()
        shared = {table.name for table in schema.tables if table.shared}
        shared |= {f"part of {name}"[:60] for name in shared}
        self.relations = [(sql.Identifier(name), kind) for _, name, kind in found if name not in shared]
        self.kept: list[object] = []

    def settle(self) -> None:
        """Give both tenants the same rows, and the other one its secret."""
        for tenant in (ONE, TWO):
            for table in self.tables:
                rows = [(1, 1, "s1"), (2, 2, "s2"), *([(3, 3, SECRET)] if tenant == TWO else [])]
                for row in rows:
                    statement = sql.SQL("INSERT INTO {} (id, num, slug) VALUES ({}, {}, {})")
                    self.do(tenant, statement.format(table.identifier, *row))
            for table in self.tables:
                for number in range(len(table.references)):
                    statement = sql.SQL(f"UPDATE {{}} SET ref{number} = 1, part{number} = 1 WHERE id < 3")
                    self.do(tenant, statement.format(table.identifier))
        self.kept = self.belongings()

    def do(self, tenant: str | None, statement: sql.Composed) -> list[tuple[Any, ...]]:
        """Do something as a tenant, with all checks at once."""
        shelf = self.shelf
        with shelf.connection.transaction():
            shelf.be(shelf.role)
            shelf.connection.execute("SELECT set_config('tenantry.tenant', %s, true)", (tenant or "",))
            cursor = shelf.connection.execute(statement)
            rows = cursor.fetchall() if cursor.description else [(cursor.rowcount,)]
            shelf.connection.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
        shelf.be(None)
        return rows

    def belongings(self) -> list[object]:
        """All rows of the other tenant, as the superuser sees them."""
        self.shelf.be(None)
        query = sql.SQL("SELECT tableoid::regclass::text, t::text FROM ONLY {} t WHERE tenant_id = {} ORDER BY t::text")
        tables = [name for name, kind in self.relations if kind == "r"]
        return [self.shelf.connection.execute(query.format(name, TWO)).fetchall() for name in tables]

    def attempt(self, text: str, *names: sql.Composable, tenant: str | None = ONE) -> str:
        """What came of an attempt: a code of the server's, or how many rows. The other tenant keeps what it has."""
        connection = self.shelf.connection
        try:
            with connection.transaction(force_rollback=True):
                rows = self.do(tenant, sql.SQL(text).format(*names))
                assert self.belongings() == self.kept, text
                assert SECRET not in str(rows), (text, names)
                assert TWO not in str(rows), (text, names)
                return str(rows[0][0]) if rows else "0"
        except psycopg.Error as refused:
            if f"leaked {SECRET}" in str(refused):
                raise AssertionError(f"{text} let a function at the other tenant's rows") from refused
            return str(refused.sqlstate)

    def all(self) -> None:
        """Everything."""
        for name, kind in self.relations:
            self.read(name, kind)
            self.write(name, kind)
        for table in self.tables:
            self.collide(table)
            self.refer(table)
        functions = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        for (function,) in self.shelf.connection.execute((functions + " AND pronargs = 0").encode()).fetchall():
            self.attempt(f"SELECT {function.replace('{', '{{').replace('}', '}}')}")

    def read(self, name: sql.Composable, kind: str) -> None:
        """Its own rows are there; without a tenant none are."""
        self.attempt("SELECT x::text FROM {} x", name)
        self.attempt("SELECT x::text FROM {} x WHERE tenant_id = {}", name, sql.Literal(TWO))
        self.attempt("SELECT x::text FROM {} x, LATERAL (SELECT set_config('row_security', 'off', true)) s", name)
        if kind in ("r", "p"):
            assert self.attempt("SELECT count(*) FROM {}", name, tenant=None) == "0"
            assert self.attempt("SELECT count(*) FROM {} WHERE tenant_id <> {}", name, sql.Literal(ONE)) == "0"
            assert self.attempt("INSERT INTO {} (id, num) VALUES (70, 70)", name, tenant=None) in ("42501", "23502")

    def write(self, name: sql.Composable, kind: str) -> None:
        """No row is made for the other tenant, none goes over to it, and what it has stays."""
        two = sql.Literal(TWO)
        for statement in (
            "DELETE FROM {}",
            "UPDATE {} SET id = id + 50",
            "UPDATE {} SET id = id + 50, num = num + 50",
            "UPDATE {} SET slug = 'new' || id",
            "UPDATE {} SET note = 'mine'",
            "UPDATE {} SET note = 'move'",
            "TRUNCATE {} CASCADE",
        ):
            self.attempt(statement, name)
        if kind in ("r", "p"):
            forged = self.attempt("INSERT INTO {} (id, num, tenant_id) VALUES (80, 80, {})", name, two)
            assert forged in ("42501", "428C9"), forged
            moved = self.attempt("UPDATE {} SET tenant_id = {}", name, two)
            assert moved == "0" or moved in ("42501", "23503", "P0001"), moved

    def collide(self, table: Table) -> None:
        """A value of the other tenant's is as free as one that nobody has."""
        for value in (SECRET, SECRET.upper()):
            outcome = [
                self.attempt("INSERT INTO {} (id, num, slug) VALUES (90, 90, {})", table.identifier, sql.Literal(slug))
                for slug in (value, "nobody-has-it")
            ]
            assert outcome[0] == outcome[1], (table, outcome)
        taken, free = (
            self.attempt("INSERT INTO {} (id, num) VALUES ({}, {})", table.identifier, *[sql.Literal(number)] * 2)
            for number in (3, 77)
        )
        assert taken == free, (table, taken, free)

    def refer(self, table: Table) -> None:
        """A key of the other tenant's is as unknown as one that nobody has."""
        for number, reference in enumerate(table.references):
            if self.schema.tables[reference.target].shared:
                continue
            text = f"UPDATE {{}} SET ref{number} = {{}}, part{number} = {{}} WHERE id = 2"
            theirs, nobodys = (self.attempt(text, table.identifier, *[sql.Literal(value)] * 2) for value in (3, 77))
            assert theirs == nobodys, (table, reference, theirs, nobodys)


# --- proving ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["postgres", "postgres_18"])
def shelf(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    """An empty database, for all examples: each is rolled back."""
    with furnished(request.getfixturevalue(request.param)) as shelf:
        yield shelf


def refusal(shelf: Shelf, made: Plan) -> str | None:
    """Why a plan was not applied."""
    try:
        apply(shelf.connection, made)
    except RowsUnsafe as error:
        return error.message
    return None


def prove(shelf: Shelf, schema: Schema) -> bool:
    """Whether it was made safe, and withstood; it was refused otherwise, and says why."""
    try:
        make(schema, shelf)
    except psycopg.Error:  # there can be no such schema
        reject()
    shared = frozenset(table.name for table in schema.tables if table.shared)
    shelf.be(shelf.owner)
    made = plan(inspect(shelf.connection), shared, shelf.role)
    assert all(one.what and one.remedy for one in made.refusals)
    refused = refusal(shelf, made)
    if refused:
        assert made.refusals or "must be owner" in refused  # of what a superuser made
        return False
    assert not made.refusals
    again = plan(inspect(shelf.connection), shared, shelf.role)
    assert not again, again.text()
    assert weaknesses(shelf.connection, shelf.role, shared) == []
    attack = Attack(shelf, schema)
    attack.settle()
    attack.all()
    return True


@settings(
    max_examples=int(EXAMPLES or 100),
    derandomize=EXAMPLES is None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(schema=schemas())
def test_a_schema_is_made_safe_or_refused(shelf: Shelf, schema: Schema) -> None:
    """Never silently weak: no row of another tenant is read, written, taken, referred to or told of."""
    with shelf.connection.transaction(force_rollback=True):
        event("made safe" if prove(shelf, schema) else "refused")


@pytest.mark.parametrize(
    "opening",
    [
        "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        "ALTER POLICY tenantry_tenant ON {table} USING (true); ALTER POLICY tenantry_rows ON {table} USING (true)",
        "DROP POLICY tenantry_tenant ON {table}; CREATE POLICY mine ON {table} USING (true)",
        "DROP POLICY tenantry_tenant ON {table}; CREATE POLICY mine ON {table} FOR INSERT WITH CHECK (true)",
        "DROP POLICY tenantry_tenant ON {table}; CREATE POLICY mine ON {table} FOR UPDATE USING (true)",
        "GRANT TRUNCATE ON {table} TO PUBLIC",
        "CREATE UNIQUE INDEX ON {table} (slug) WHERE id > 2",
        "CREATE UNIQUE INDEX ON {table} (id) WHERE id > 2",
        "CREATE VIEW all_rows AS SELECT * FROM {table}",
        "CREATE MATERIALIZED VIEW all_rows AS SELECT * FROM {table}; GRANT SELECT ON all_rows TO PUBLIC",
        EXTRAS["superuser's definer"].replace("{name}", "peek").replace("{owner}", "NONE"),
        EXTRAS["superuser's trigger"].replace("{name}", "fire").replace("{owner}", "NONE"),
        EXTRAS["becoming"].replace("{name}", "become"),
        "ALTER TABLE {table} OWNER TO CURRENT_USER; " + EXTRAS["rule"].replace("{name}", "also"),
    ],
)
def test_the_attack_finds_what_is_open(shelf: Shelf, opening: str) -> None:
    """A proof that cannot fail is none: each of these lets it through."""
    table = Table(
        "note", "primary", "unique", (Reference(0, "CASCADE", "CASCADE", False, False),), False, None, False, False
    )
    schema = Schema((table,), ())
    with shelf.connection.transaction(force_rollback=True):
        make(schema, shelf)
        apply(shelf.connection, plan(inspect(shelf.connection), (), shelf.role))
        Attack(shelf, schema).settle()
        shelf.be(None)
        names = {"table": table.identifier, "target": table.identifier}
        shelf.connection.execute(sql.SQL(opening).format(**names))
        shelf.connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC"))
        attack = Attack(shelf, schema)
        attack.kept = attack.belongings()
        with pytest.raises(AssertionError):
            attack.all()

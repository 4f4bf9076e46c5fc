"""An ordinary PostgreSQL schema becomes one that tenants can share, or is refused; on version 15 and on 18."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from holes_rows import HOLES, SCHEMA, SHARED, Hole
from sharing import ONE, TWO, Shelf, furnished
from tenantry.errors import RowsUnsafe
from tenantry.resources.rows_plan import apply, inspect, plan, weaknesses

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module", params=["postgres", "postgres_18"])
def empty(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    """An empty database, which no test of this file changes for good."""
    with furnished(request.getfixturevalue(request.param)) as shelf:
        yield shelf


@pytest.fixture
def shelf(empty: Shelf) -> Iterator[Shelf]:
    """An empty database in a transaction that is rolled back."""
    with empty.connection.transaction(force_rollback=True):
        yield empty


@pytest.fixture(scope="module")
def safe(empty: Shelf) -> Iterator[Shelf]:
    """A database that was made safe."""
    with furnished(empty.server) as shelf:
        shelf.run(SCHEMA)
        shelf.secure(*SHARED)
        shelf.connection.commit()
        yield shelf


# --- made safe ----------------------------------------------------------------------------------------------------

LONG = "x" * 63

FINE = {
    "no key": "CREATE TABLE t (a int)",
    "no column": "CREATE TABLE t ()",
    "odd names": 'CREATE TABLE "a ""b; %s {{x}} \\" ("%I" int PRIMARY KEY, "c d" int REFERENCES "a ""b; %s {{x}} \\")',
    "long names": f"CREATE TABLE {LONG} (id int CONSTRAINT {LONG[1:]}y PRIMARY KEY, "
    f"{LONG} int UNIQUE REFERENCES {LONG})",
    "schemas": "CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY); CREATE TABLE t (id int REFERENCES s.t)",
    "composite": "CREATE TABLE a (x int, y int, PRIMARY KEY (x, y)); "
    "CREATE TABLE b (x int, y int, z int, FOREIGN KEY (y, x) REFERENCES a (y, x))",
    "full match": "CREATE TABLE a (x int, y int, UNIQUE (x, y)); "
    "CREATE TABLE b (x int, y int, FOREIGN KEY (x, y) REFERENCES a (x, y) MATCH FULL ON DELETE SET NULL)",
    "circle": "CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a); "
    "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE INITIALLY DEFERRED",
    "actions": "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b ("
    "a int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE, b int REFERENCES a ON DELETE SET NULL, "
    "c int DEFAULT 1 REFERENCES a ON DELETE SET DEFAULT, d int REFERENCES a ON DELETE RESTRICT ON UPDATE RESTRICT)",
    "not valid": "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int); "
    "ALTER TABLE b ADD FOREIGN KEY (a) REFERENCES a NOT VALID",
    "unique": "CREATE TABLE t (a int UNIQUE DEFERRABLE, b int, c text, UNIQUE NULLS NOT DISTINCT (a, b) INCLUDE (c)); "
    "CREATE UNIQUE INDEX ON t (lower(c), (a + b) DESC NULLS LAST) INCLUDE (b) WHERE a > 0 AND c <> ' USING btree ('",
    "unique index as a target": "CREATE TABLE a (x int); CREATE UNIQUE INDEX ON a (x); "
    "CREATE TABLE b (x int REFERENCES a (x))",
    "indexes": "CREATE TABLE t (a int, b int[], c text); CREATE INDEX ON t (a); CREATE INDEX ON t USING gin (b); "
    "CREATE INDEX ON t USING brin (a); CREATE INDEX ON t USING hash (c); CREATE INDEX ON t (c text_pattern_ops)",
    "replica identity": "CREATE TABLE t (a int NOT NULL, b int); CREATE UNIQUE INDEX i ON t (a); "
    "ALTER TABLE t REPLICA IDENTITY USING INDEX i; CREATE INDEX j ON t (b); ALTER TABLE t CLUSTER ON j",
    "partitions": "CREATE TABLE t (a int, b int, PRIMARY KEY (a, b)) PARTITION BY RANGE (a); "
    "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9) PARTITION BY LIST (b); "
    "CREATE TABLE t2 PARTITION OF t1 DEFAULT; CREATE UNIQUE INDEX ON t2 (b); CREATE INDEX ON t (b); "
    "CREATE TABLE u (a int, b int, FOREIGN KEY (a, b) REFERENCES t) PARTITION BY HASH (a); "
    "CREATE TABLE u1 PARTITION OF u FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    "inheritance": "CREATE TABLE a (x int PRIMARY KEY); CREATE TABLE b (y int UNIQUE) INHERITS (a); "
    "CREATE TABLE c () INHERITS (b)",
    "kinds": "CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN slug AS text CHECK (VALUE <> ''); "
    "CREATE UNLOGGED TABLE t (a mood, b slug UNIQUE, c int GENERATED ALWAYS AS (d * 2) STORED, d int, "
    "e int GENERATED ALWAYS AS IDENTITY, f serial)",
    "views": "CREATE TABLE t (a int PRIMARY KEY, b int); CREATE VIEW v AS SELECT * FROM t WITH CHECK OPTION; "
    "CREATE VIEW w WITH (security_barrier) AS SELECT v.a FROM v GROUP BY v.a",
    "trigger on a view": "CREATE TABLE t (a int); CREATE VIEW v AS SELECT a FROM t; "
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (NEW.a); RETURN NEW; END'; "
    "CREATE TRIGGER f INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION f()",
    "functions": "CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS "
    "'SELECT count(*) FROM t'; CREATE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC DELETE FROM t; END; "
    "CREATE FUNCTION who() RETURNS text LANGUAGE sql AS $$SELECT current_setting('tenantry.tenant')$$; "
    "CREATE AGGREGATE total (int) (sfunc = int4pl, stype = int)",
    "a tenant of its own": "CREATE TABLE t (tenant_id uuid, a int, PRIMARY KEY (a, tenant_id)); "
    "CREATE TABLE s (tenant_id uuid PRIMARY KEY DEFAULT gen_random_uuid()); CREATE VIEW v AS SELECT tenant_id FROM t; "
    "CREATE TABLE u (tenant_id uuid, a int, FOREIGN KEY (a, tenant_id) REFERENCES t (a, tenant_id))",
    "a tenant in text": "CREATE TABLE t (tenant_id text DEFAULT 'x', a int UNIQUE); CREATE INDEX ON t (tenant_id); "
    f"CREATE TABLE u (tenant_id varchar(40)); INSERT INTO u VALUES ('{ONE.upper()}')",
    "a tenant in text of a partition": "CREATE TABLE t (tenant_id text DEFAULT 'x', a int) PARTITION BY RANGE (a); "
    "CREATE TABLE t1 PARTITION OF t (tenant_id DEFAULT 'y') DEFAULT; CREATE TABLE a (tenant_id text); "
    "CREATE TABLE b () INHERITS (a)",
    "policies of its own": "CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; "
    "CREATE POLICY tenantry_tenant ON t USING (true); CREATE POLICY mine ON t USING (a > 1)",
    "bookkeeping": "CREATE TABLE tenantry_schema (version text PRIMARY KEY); INSERT INTO tenantry_schema VALUES ('1')",
    "dropped columns": "CREATE TABLE t (tenant_id int, a int, b int PRIMARY KEY); ALTER TABLE t DROP COLUMN tenant_id, "
    "DROP COLUMN a",
}


@pytest.mark.parametrize("schema", FINE.values(), ids=FINE.keys())
def test_an_ordinary_schema_is_made_safe(shelf: Shelf, schema: str) -> None:
    """Nothing is weak afterwards, and the plan of what is safe is empty."""
    shelf.run(schema)
    assert shelf.weak() != []
    shelf.secure()
    assert shelf.weak() == []


def test_a_plan_is_a_script(shelf: Shelf) -> None:
    """Its text does the same, with each statement after its reason; a name cannot break out of a comment."""
    shelf.run('CREATE TABLE "a\nDROP TABLE b; --" (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)')
    text = shelf.plan().text()
    assert "\n-- b_pkey of b holds within a tenant\nALTER TABLE" in text
    shelf.run(text)
    assert not shelf.plan()
    assert shelf.plan().text() == f"-- Nothing to do: tenants can share the tables of {shelf.database}."


def test_an_exclusion_needs_an_extension(shelf: Shelf) -> None:
    """Where the server has it, the plan installs it, and rows exclude their own tenant's alone; else it is refused."""
    shelf.run("CREATE TABLE t (room int4range, EXCLUDE USING gist (room WITH &&) WHERE (NOT isempty(room)))")
    if shelf.server.version == 18:
        assert "btree_gist" in shelf.plan().refusals[0].remedy
        return
    shelf.secure()
    for tenant in (ONE, TWO):
        shelf.ask(tenant, "INSERT INTO t VALUES ('[1,5)')")
    assert "t_room_excl" in shelf.refused(ONE, "INSERT INTO t VALUES ('[2,3)')")


def test_what_was_made_later_is_made_safe_in_the_same_transaction(shelf: Shelf) -> None:
    """A plan holds what is new alone, also while checks of the transaction wait."""
    shelf.run("CREATE TABLE a (id int PRIMARY KEY, b int REFERENCES a DEFERRABLE INITIALLY DEFERRED)")
    shelf.secure()
    shelf.run(f"SET LOCAL tenantry.tenant = '{ONE}'; INSERT INTO a VALUES (1, 1); SET LOCAL tenantry.tenant TO DEFAULT")
    shelf.run("ALTER TABLE a ADD COLUMN c int UNIQUE; CREATE TABLE d (a int)")
    assert {step.phase.name for step in shelf.plan().steps} == {"COLUMNS", "KEYS_OFF", "KEYS", "POLICIES", "ACCESS"}
    shelf.secure()
    assert shelf.ask(ONE, "SELECT id, b, c FROM a") == [(1, 1, None)]


def test_rows_that_are_there_are_given_to_the_tenant_that_is_named(shelf: Shelf) -> None:
    """New rows belong to whoever adds them."""
    shelf.run("CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t); INSERT INTO t VALUES (1, NULL), (2, 1)")
    shelf.run("CREATE TABLE u (tenant_id uuid, id int); INSERT INTO u VALUES (NULL, 1)")
    shelf.secure(adopt=ONE)
    assert shelf.ask(ONE, "SELECT id, up FROM t ORDER BY id") == [(1, None), (2, 1)]
    assert shelf.ask(ONE, "SELECT id FROM u") == [(1,)]
    shelf.ask(TWO, "INSERT INTO t VALUES (1, 1)")
    assert shelf.ask(TWO, "SELECT id FROM t") == [(1,)]


def test_what_all_share_is_only_read(shelf: Shelf) -> None:
    """Every tenant reads a shared table, with its partitions, and none writes it."""
    shelf.run("CREATE TABLE land (code text PRIMARY KEY) PARTITION BY LIST (code)")
    shelf.run("CREATE TABLE land_a PARTITION OF land FOR VALUES IN ('a'); INSERT INTO land VALUES ('a')")
    shelf.run("CREATE SCHEMA s; CREATE TABLE s.x (id int); GRANT ALL ON land, s.x TO PUBLIC")
    shelf.run("CREATE TABLE town (land text REFERENCES land)")
    shelf.secure("land", "s.x")
    assert shelf.ask(TWO, "SELECT * FROM land_a") == [("a",)]
    for statement in ("INSERT INTO land_a VALUES ('a')", "DELETE FROM land", "UPDATE s.x SET id = 1", "TRUNCATE s.x"):
        assert "permission denied" in shelf.refused(ONE, statement)
    shelf.ask(ONE, "INSERT INTO town VALUES ('a')")


def test_what_is_safe_needs_no_superuser(safe: Shelf) -> None:
    """The owner plans and applies; for a superuser the plan adds that the role loses large objects."""
    safe.be(safe.owner)
    assert not safe.plan(*SHARED)
    safe.be(None)
    assert {str(step.statement.as_string()).split("(")[0] for step in safe.plan(*SHARED).steps} == {
        f"REVOKE EXECUTE ON FUNCTION {name}"
        for name in "lo_creat lo_create lo_from_bytea lo_open lo_get lo_put lo_unlink".split()
    }
    safe.connection.rollback()


def test_no_protection_can_be_left_out(shelf: Shelf) -> None:
    """With any step of a plan missing it is refused, unless that only takes speed, privileges or a key away."""
    shelf.run(
        "CREATE TABLE a (id int PRIMARY KEY, b int REFERENCES a); CREATE UNIQUE INDEX ON a (b); "
        "CREATE TABLE c (tenant_id uuid); CREATE VIEW v AS SELECT * FROM a; CREATE SEQUENCE s; "
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT ALL ON a, s TO PUBLIC; "
        "GRANT CREATE ON SCHEMA public TO PUBLIC; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC"
    )
    shelf.be(None)
    shelf.connection.execute("ALTER FUNCTION f() LEAKPROOF")
    shelf.be(shelf.owner)
    made = shelf.plan()
    for left_out in made.steps:
        rest = replace(made, steps=tuple(one for one in made.steps if one != left_out))
        harmless = r"CREATE (UNIQUE )?INDEX|GRANT|CREATE POLICY .tenantry_rows|ALTER TABLE \S+ ADD CONSTRAINT"
        needed = not re.match(harmless, left_out.statement.as_string())
        expected = pytest.raises(RowsUnsafe) if needed else suppress(RowsUnsafe)
        with shelf.connection.transaction(force_rollback=True), expected:
            apply(shelf.connection, rest)
    assert len(made.steps) > 25


# --- refused ------------------------------------------------------------------------------------------------------

REFUSED = {
    "rows": ("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", "name the tenant they belong to"),
    "rows of a child": ("CREATE TABLE t (); CREATE TABLE u (a int) INHERITS (t); INSERT INTO u VALUES (1)", "name the"),
    "no tenant": ("CREATE TABLE t (tenant_id uuid); INSERT INTO t VALUES (NULL)", "such rows of t belong to"),
    "a number": ("CREATE TABLE t (tenant_id bigint)", "plain column of type uuid"),
    "a domain": ("CREATE DOMAIN d AS uuid; CREATE TABLE t (tenant_id d)", "plain column of type uuid"),
    "no UUID": ("CREATE TABLE t (tenant_id text); INSERT INTO t VALUES ('acme')", "plain column of type uuid"),
    "text in a view": ("CREATE TABLE t (tenant_id text); CREATE VIEW v AS SELECT * FROM t", "plain column"),
    "generated": ("CREATE TABLE t (a uuid, tenant_id uuid GENERATED ALWAYS AS (a) STORED)", "plain column"),
    "tenants": (
        "CREATE TABLE t (id uuid PRIMARY KEY); CREATE TABLE u (tenant_id uuid REFERENCES t)",
        "declare t as shared",
    ),
    "from shared": (
        "CREATE TABLE t (a int UNIQUE); CREATE TABLE shared (a int REFERENCES t (a))",
        "declare t as shared",
    ),
    "set null": ("CREATE TABLE t (a int UNIQUE, b int REFERENCES t (a) ON UPDATE SET NULL)", "use CASCADE"),
    "set default": ("CREATE TABLE t (a int UNIQUE, b int REFERENCES t (a) ON UPDATE SET DEFAULT)", "use CASCADE"),
    "grouped": (
        "CREATE TABLE t (a int PRIMARY KEY, b int); CREATE VIEW v AS SELECT a, b FROM t GROUP BY a",
        "public.v groups by this key alone",
    ),
    "materialized": ("CREATE TABLE t (a int); CREATE MATERIALIZED VIEW m AS SELECT * FROM t", "declare m as shared"),
    "rule": ("CREATE TABLE t (a int); CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING", "Drop the rule"),
    "child of shared": ("CREATE TABLE shared (a int); CREATE TABLE t () INHERITS (shared)", "Declare both"),
    "parent of shared": ("CREATE TABLE t (a int); CREATE TABLE shared () INHERITS (t)", "Declare both"),
    "exclusion by spgist": ("CREATE TABLE t (a int4range, EXCLUDE USING spgist (a WITH &&))", "use gist"),
    "sets the tenant": (
        "CREATE FUNCTION f(text) RETURNS text LANGUAGE sql AS $$SELECT set_config('tenantry.tenant', $1, true)$$",
        "REVOKE EXECUTE",
    ),
}


@pytest.mark.parametrize(("schema", "remedy"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_made_safe_is_refused(shelf: Shelf, schema: str, remedy: str) -> None:
    """The plan names it and what to do, and nothing is done."""
    shelf.run(schema)
    made = shelf.plan("shared")
    assert any(remedy in one.remedy for one in made.refusals), made.text()
    assert made.text().startswith("-- REFUSED: ")
    before = shelf.weak("shared")
    with pytest.raises(RowsUnsafe, match="Tenants cannot share the tables of the database"):
        apply(shelf.connection, made)
    assert shelf.weak("shared") == before


def test_a_step_that_the_server_refuses_undoes_the_others(shelf: Shelf) -> None:
    """The error tells which one, and the schema is as it was."""
    columns = ", ".join(f"c{number} int" for number in range(32))  # the most that a key may have
    names = columns.replace(" int", "")
    shelf.run(f"CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE t ({columns}, UNIQUE ({names}))")
    with pytest.raises(RowsUnsafe, match=r"more than 32 columns.*when .*within a tenant"):
        shelf.secure()
    assert "table.key" in shelf.weak()
    assert shelf.connection.execute("SELECT * FROM a").fetchall() == []


def test_a_plan_that_leaves_something_weak_is_undone(shelf: Shelf) -> None:
    """What somebody else made in between is seen, though no step is about it."""
    shelf.run("CREATE TABLE a (id int)")
    made = shelf.plan()
    shelf.run("CREATE TABLE b (id int)")
    with pytest.raises(RowsUnsafe, match="the table b has no column tenant_id"):
        apply(shelf.connection, made)


def test_a_role_that_is_not_there_is_refused(shelf: Shelf) -> None:
    """Nobody can be kept to anything by it."""
    made = plan(inspect(shelf.connection), (), "nobody here")
    assert "role.missing" in [one.name for one in made.refusals]


# --- as the application -------------------------------------------------------------------------------------------


@pytest.fixture
def note(shelf: Shelf) -> Shelf:
    """Tenants' notes on projects: each has one of the same numbers."""
    shelf.run(
        "CREATE TABLE project (id int PRIMARY KEY, name text UNIQUE); "
        "CREATE TABLE note (id serial PRIMARY KEY, project int DEFAULT 1 REFERENCES project ON DELETE SET NULL, "
        "text text); CREATE VIEW v AS SELECT id, text FROM note; "
        "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM note'"
    )
    shelf.secure()
    for tenant in (ONE, TWO):
        shelf.ask(tenant, "INSERT INTO project VALUES (1, 'first')")
        shelf.ask(tenant, "INSERT INTO note (text) VALUES (%s)", tenant)
    shelf.ask(TWO, "INSERT INTO project VALUES (2, 'second')")
    return shelf


def test_a_tenant_sees_its_own_rows(note: Shelf) -> None:
    """In tables, through views, in functions of the owner, by COPY; without a tenant there is nothing."""
    for source in ("note", "v"):
        assert note.ask(ONE, f"SELECT text FROM {source}") == [(ONE,)]
        assert note.ask(None, f"SELECT text FROM {source}") == []
    assert note.ask(ONE, "SELECT total()") == [(1,)]
    note.be(note.role)
    note.connection.execute("SELECT set_config('tenantry.tenant', %s, true)", (TWO,))
    with note.connection.cursor().copy("COPY note (text) TO STDOUT") as copy:
        assert b"".join(bytes(block) for block in copy).decode() == f"{TWO}\n"


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT INTO note (tenant_id, text) VALUES ('{TWO}', 'forged')",
        f"INSERT INTO note (tenant_id, text) SELECT '{TWO}', 'forged'",
        f"UPDATE note SET tenant_id = '{TWO}'",
        f"INSERT INTO project VALUES (1, 'x') ON CONFLICT (tenant_id, id) DO UPDATE SET tenant_id = '{TWO}'",
        f"MERGE INTO note n USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT (tenant_id) VALUES ('{TWO}')",
        "INSERT INTO note (tenant_id) VALUES (NULL)",
        "INSERT INTO note (project) VALUES (2)",
        "UPDATE note SET project = 2",
        "TRUNCATE note",
        "CREATE TEMPORARY TABLE note (id int)",
        "CREATE TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "SELECT setval('note_id_seq', 100)",
        "ALTER TABLE note DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenantry_tenant ON note",
        "COPY note (text) FROM '/etc/hostname'",
        "SET LOCAL row_security = off; SELECT * FROM note",
        "SELECT set_config('tenantry.tenant', 'no uuid', true); SELECT * FROM note",
    ],
)
def test_a_tenant_cannot_leave_its_rows(note: Shelf, statement: str) -> None:
    """Another's rows cannot be made, reached by a key, or opened up."""
    note.refused(ONE, statement)
    assert note.ask(TWO, "SELECT text FROM note") == [(TWO,)]


def test_nothing_is_added_without_a_tenant(note: Shelf) -> None:
    """There is no default tenant."""
    assert "policy" in note.refused(None, "INSERT INTO note (text) VALUES ('x')")
    assert "policy" in note.refused(None, f"INSERT INTO note (tenant_id, text) VALUES ('{ONE}', 'x')")


def test_a_collision_tells_nothing_of_others(note: Shelf) -> None:
    """A value that another tenant has is free, and deleting and updating reach one's own alone."""
    note.ask(ONE, "INSERT INTO project VALUES (2, 'second')")
    assert "project_pkey" in note.refused(ONE, "INSERT INTO project VALUES (2, 'third')")
    note.ask(ONE, "UPDATE project SET name = name || '!'; DELETE FROM project WHERE id = 1")
    assert note.ask(ONE, "SELECT project, text FROM note") == [(None, ONE)]  # the tenant stayed when its project went
    assert note.ask(TWO, "SELECT id, name FROM project ORDER BY 1") == [(1, "first"), (2, "second")]


def test_full_match_is_kept(shelf: Shelf) -> None:
    """All columns of such a key are set, or none."""
    shelf.run(FINE["full match"])
    shelf.secure()
    shelf.ask(ONE, "INSERT INTO a VALUES (1, 2); INSERT INTO b VALUES (1, 2), (NULL, NULL)")
    assert "b_check" in shelf.refused(ONE, "INSERT INTO b VALUES (1, NULL)")
    shelf.ask(ONE, "DELETE FROM a")
    assert shelf.ask(ONE, "SELECT x, y FROM b") == [(None, None), (None, None)]


def test_a_deferred_key_waits_as_before(shelf: Shelf) -> None:
    """Rows of a circle are added in any order."""
    shelf.run(FINE["circle"])
    shelf.secure()
    shelf.run("SET CONSTRAINTS ALL DEFERRED")
    shelf.ask(ONE, "INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1); SET CONSTRAINTS ALL IMMEDIATE")


def test_a_key_that_was_the_replica_identity_still_is(shelf: Shelf) -> None:
    """And what a table was clustered by."""
    shelf.run(FINE["replica identity"])
    shelf.secure()
    query = (
        "SELECT indexrelid::regclass::text, indisreplident, indisclustered FROM pg_index WHERE indrelid = 't'::regclass"
    )
    found = shelf.connection.execute(query.encode()).fetchall()
    assert sorted(found) == [("i", True, False), ("j", False, True)]


def test_partitions_are_each_guarded(shelf: Shelf) -> None:
    """A partition that is asked by its own name shows the tenant's rows alone, and has the index of its table."""
    shelf.run(FINE["partitions"])
    shelf.secure()
    for tenant in (ONE, TWO):
        shelf.ask(tenant, "INSERT INTO t VALUES (1, 1)")
    assert shelf.ask(ONE, "SELECT a, b FROM t2") == [(1, 1)]
    assert "policy" in shelf.refused(ONE, f"INSERT INTO t2 (tenant_id, a, b) VALUES ('{TWO}', 2, 2)")
    query = "SELECT count(*) FROM pg_inherits WHERE inhparent = 't_b_idx'::regclass"
    assert shelf.connection.execute(query.encode()).fetchall() == [(1,)]


def test_two_who_apply_at_once_leave_it_safe(empty: Shelf) -> None:
    """The second one waits, and finds that the schema is another than it planned for."""
    with furnished(empty.server) as shelf:
        shelf.run("CREATE TABLE t (id int PRIMARY KEY)")
        shelf.connection.commit()
        made = shelf.plan()
        shelf.be(None)
        apply(shelf.connection, made)
        with psycopg.connect(shelf.server.url(shelf.database)) as second:
            second.execute("SET lock_timeout = '1ms'")
            with pytest.raises(RowsUnsafe, match="lock timeout"):
                apply(second, made)
            shelf.connection.commit()
            with pytest.raises(RowsUnsafe, match="already exists"):
                apply(second, made)
        assert shelf.weak() == []


def test_a_login_is_kept_to_its_tenant(safe: Shelf) -> None:
    """As the application's login itself: nothing is weak, and the tenant ends with its transaction."""
    login = {"user": safe.role, "password": safe.password}
    with psycopg.connect(safe.server.url(safe.database), autocommit=True, **login) as connection:
        assert weaknesses(connection, safe.role, SHARED) == []
        with connection.transaction():
            connection.execute("SELECT set_config('tenantry.tenant', %s, true)", (ONE,))
            connection.execute("INSERT INTO project (id) VALUES (1)")
        assert connection.execute("SELECT count(*) FROM project").fetchone() == (0,)
        assert weaknesses(connection, safe.role, SHARED) == []


def test_a_server_that_starts_every_connection_with_a_tenant_is_named(empty: Shelf) -> None:
    """A connection's options are such a start too."""
    url = empty.server.url(empty.database)
    with psycopg.connect(url, options=f"-c tenantry.tenant={ONE}") as connection:
        assert "setting.preset" in [one.name for one in weaknesses(connection, empty.role, ())]


def test_the_command_prints_plan_and_weaknesses(empty: Shelf) -> None:
    """`schema plan` prints a script that makes it safe, `schema check` what is weak; neither changes anything."""
    address = f"postgresql://{empty.owner}@127.0.0.1:{empty.server.port}/{empty.database}"

    def run(verb: str, *options: str, url: str = address) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("tenantry")), "schema", verb, url, "--role", empty.role, *options]
        environ = os.environ | {"PGPASSWORD": empty.password}
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    empty.run("CREATE TABLE land (code text); CREATE TABLE town (id int PRIMARY KEY)")
    empty.connection.commit()
    try:
        weak = run("check", "--shared", "land", "--json")
        assert (weak.returncode, "table.row_security" in weak.stdout) == (3, True), weak.stderr
        script = run("plan", "--shared", "land")
        assert script.returncode == 0, script.stderr
        assert '"town"' in script.stdout
        assert 'POLICY "tenantry_tenant" ON "public"."land"' not in script.stdout
        empty.run(script.stdout)
        empty.connection.commit()
        assert run("check", "--shared", "land").stdout == "Nothing: tenants can share it.\n"
        empty.run("CREATE MATERIALIZED VIEW copy AS SELECT 1")
        empty.connection.commit()
        refused = run("plan", "--shared", "land", "--json")
        assert refused.returncode == 3
        assert json.loads(refused.stdout)["refused"][0]["name"] == "view.materialized"
        nowhere = run("plan", url="postgresql://nobody:secret@127.0.0.1:1/nowhere")
        assert nowhere.stderr.startswith("error[server.unavailable]: The server '127.0.0.1:1/nowhere'")
        assert "secret" not in nowhere.stderr
    finally:
        empty.connection.rollback()
        empty.run("DROP TABLE land, town; DROP MATERIALIZED VIEW IF EXISTS copy")
        empty.run(f"GRANT TEMPORARY ON DATABASE {empty.database} TO PUBLIC")
        empty.connection.commit()


# --- holes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hole", HOLES, ids=lambda hole: hole.name)
def test_each_hole_is_named(safe: Shelf, hole: Hole) -> None:
    """What weakens the isolation is found by its name, whoever asks; the next plan mends or refuses it."""
    with safe.connection.transaction(force_rollback=True):
        assert safe.weak(*SHARED) == []
        safe.connection.execute(hole.opening(role=safe.role, owner=safe.owner, database=safe.database))
        for asking in (None, safe.owner, safe.role):
            safe.be(asking)
            assert hole.found in safe.weak(*SHARED)
        safe.be(None)
        made = safe.plan(*SHARED)
        if made.refusals:
            with pytest.raises(RowsUnsafe):
                apply(safe.connection, made)
        else:
            apply(safe.connection, made)
            assert not safe.plan(*SHARED)

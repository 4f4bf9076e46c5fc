"""Holes in the isolation of shared tables: how each is opened, and by what name it must be found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

SHARED = frozenset({"country"})
"""What all tenants read in the schema below."""

SCHEMA = """
CREATE TABLE country (code text PRIMARY KEY, name text NOT NULL);
CREATE TABLE project (id int PRIMARY KEY, slug text UNIQUE, country text REFERENCES country);
CREATE TABLE note (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project int REFERENCES project ON DELETE CASCADE,
  text text);
CREATE INDEX note_text ON note (text);
CREATE TABLE log (day int, text text) PARTITION BY RANGE (day);
CREATE TABLE log_one PARTITION OF log FOR VALUES FROM (0) TO (10);
CREATE SEQUENCE number;
CREATE VIEW text AS SELECT note.id, note.text FROM note;
CREATE FUNCTION length_of(note) RETURNS int LANGUAGE sql STABLE AS 'SELECT length($1.text)';
"""
"""An ordinary schema, to be made safe before a hole is opened in it."""


@dataclass(frozen=True)
class Hole:
    """Something that lets one tenant at another's rows, or may."""

    name: str
    sql: str  # a superuser opens it; {role} enters for applications, {owner} owns the tables, {database} holds them
    found: str  # the name of the weakness
    close: str = ""  # what undoes it where it lies outside the database: a superuser's SQL

    def opening(self, **names: str) -> sql.Composed:
        """What opens it, for these names."""
        return _composed(self.sql, names)

    def closing(self, **names: str) -> sql.Composed:
        """What closes it, where dropping the database does not."""
        return _composed(self.close, names)


def _composed(text: str, names: dict[str, str]) -> sql.Composed:
    return sql.SQL(text).format(**{name: sql.Identifier(value) for name, value in names.items()})


TENANT = "'018f2d1c-0000-7000-8000-000000000001'"
"""Somebody's; it stands for `<tenant>` below."""

ATTRIBUTES = ("SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION")
"""What makes a role more than a plain one."""

GRANTS = {
    "role.member": ("{owner}", "pg_read_all_data", "pg_execute_server_program"),
    "parameter.granted": ("SET ON PARAMETER session_replication_role",),
}
"""What outlasts a database, by the weakness it is."""

OPENED = {
    "role.owner": {
        "owner of a table": "ALTER TABLE note OWNER TO {role}",
        "owner of a view": "ALTER VIEW text OWNER TO {role}",
        "owner of the database": "ALTER DATABASE {database} OWNER TO {role}",
        "large object of its own": "SET ROLE {role}; SELECT lo_from_bytea(0, 'x'); RESET ROLE",
    },
    "large_object": {
        "large object to read": (
            "DO $$ BEGIN EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO PUBLIC', lo_from_bytea(0, 'x')); END $$"
        ),
    },
    "table.row_security": {
        "security off": "ALTER TABLE note DISABLE ROW LEVEL SECURITY",
        "partition without security": "ALTER TABLE log_one DISABLE ROW LEVEL SECURITY",
        "new partition": "CREATE TABLE log_two PARTITION OF log FOR VALUES FROM (10) TO (20)",
    },
    "table.forced": {
        "security not forced": "ALTER TABLE note NO FORCE ROW LEVEL SECURITY",
    },
    "table.policy": {
        "no policy": "DROP POLICY tenantry_tenant ON note",
        "policy for reading alone": (
            "DROP POLICY tenantry_tenant ON note; CREATE POLICY tenantry_tenant ON note AS RESTRICTIVE FOR "
            "SELECT USING (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)"
        ),
        "policy that lets all in": (
            "ALTER POLICY tenantry_tenant ON note USING (true); ALTER POLICY tenantry_rows ON note USING (true)"
        ),
        "policy that lets all out": "ALTER POLICY tenantry_tenant ON note WITH CHECK (true)",
        "policy for others": "ALTER POLICY tenantry_tenant ON note TO {owner}",
        "policy open without a tenant": (
            "ALTER POLICY tenantry_tenant ON note USING (current_setting('tenantry.tenant', true) IS NULL OR "
            "tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)"
        ),
    },
    "table.column": {
        "new table": "CREATE TABLE draft (id int PRIMARY KEY)",
        "new table elsewhere": "CREATE SCHEMA annex; CREATE TABLE annex.draft (id int)",
        "row without a tenant": "ALTER TABLE log ALTER COLUMN tenant_id DROP NOT NULL",
        "default tenant": "ALTER TABLE note ALTER COLUMN tenant_id SET DEFAULT <tenant>",
    },
    "table.key": {
        "key over all tenants": "ALTER TABLE note DROP CONSTRAINT note_pkey, ADD PRIMARY KEY (id)",
    },
    "table.unique": {
        "unique over all tenants": "ALTER TABLE project ADD UNIQUE (country)",
        "unique index over all tenants": "CREATE UNIQUE INDEX ON note (lower(text)) WHERE id > 3",
    },
    "table.exclusion": {
        "exclusion over all tenants": "ALTER TABLE note ADD EXCLUDE USING btree (text WITH =)",
    },
    "table.foreign_key": {
        "foreign key to any tenant": (
            "CREATE UNIQUE INDEX ON project (id); ALTER TABLE note ADD FOREIGN KEY (project) REFERENCES project (id)"
        ),
        "foreign key from what all share": (
            "CREATE UNIQUE INDEX ON project (id); ALTER TABLE country ADD COLUMN of int REFERENCES project (id)"
        ),
    },
    "table.inheritance": {
        "child of a shared table": "CREATE TABLE land (x int) INHERITS (country)",
    },
    "table.privilege": {
        "emptying": "GRANT TRUNCATE ON note TO {role}",
        "asking for keys": "GRANT REFERENCES ON note TO PUBLIC",
        "triggers": "GRANT TRIGGER ON note TO {role}",
        "passing on": "GRANT SELECT ON note TO {role} WITH GRANT OPTION",
        "writing what all share": "GRANT INSERT ON country TO PUBLIC",
        "writing a column that all share": "GRANT UPDATE (name) ON country TO {role}",
    },
    "sequence.privilege": {
        "setting a sequence": "GRANT UPDATE ON SEQUENCE number TO {role}",
    },
    "schema.create": {
        "making tables": "GRANT CREATE ON SCHEMA public TO PUBLIC",
    },
    "database.create": {
        "making schemas": "GRANT CREATE ON DATABASE {database} TO {role}",
    },
    "database.temporary": {
        "temporary tables": "GRANT TEMPORARY ON DATABASE {database} TO PUBLIC",
    },
    "default.privilege": {
        "privileges on what comes": (
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {role}"
        ),
    },
    "function.granted": {
        "reading files": "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {role}",
    },
    "server.granted": {
        "another server": (
            "CREATE FOREIGN DATA WRAPPER away; CREATE SERVER away FOREIGN DATA WRAPPER away; GRANT USAGE ON "
            "FOREIGN SERVER away TO {role}"
        ),
    },
    "view.invoker": {
        "view with its owner's eyes": "ALTER VIEW text RESET (security_invoker)",
        "new view": "CREATE VIEW all_notes AS SELECT * FROM note",
    },
    "table.setting": {
        "view of another tenant": (
            "CREATE VIEW theirs WITH (security_invoker) AS SELECT note.* FROM note, LATERAL (SELECT "
            "set_config('tenantry.tenant', <tenant>, true) OFFSET 0) s"
        ),
        "default that changes the tenant": (
            "ALTER TABLE project ADD COLUMN who text DEFAULT set_config('tenantry.tenant', '', false)"
        ),
    },
    "view.materialized": {
        "copy of all rows": "CREATE MATERIALIZED VIEW every_note AS SELECT * FROM note",
    },
    "table.foreign": {
        "foreign table": (
            "CREATE FOREIGN DATA WRAPPER away; CREATE SERVER away FOREIGN DATA WRAPPER away; CREATE FOREIGN "
            "TABLE far (x int) SERVER away"
        ),
    },
    "table.rule": {
        "rule": "CREATE RULE again AS ON INSERT TO note DO ALSO DELETE FROM project",
    },
    "function.definer": {
        "function with a superuser's rights": (
            "CREATE FUNCTION peek() RETURNS SETOF note LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM note'"
        ),
        "trigger with a superuser's rights": (
            "CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN DELETE FROM "
            "project; RETURN NEW; END'; REVOKE EXECUTE ON FUNCTION fire FROM PUBLIC; CREATE TRIGGER fire "
            "AFTER INSERT ON note FOR EACH ROW EXECUTE FUNCTION fire()"
        ),
    },
    "function.setting": {
        "function of another tenant": (
            "CREATE FUNCTION peek() RETURNS SETOF note LANGUAGE sql SET tenantry.tenant = <tenant> AS "
            "'SELECT * FROM note'"
        ),
        "function that changes the tenant": (
            "CREATE FUNCTION become(text) RETURNS text LANGUAGE sql AS $$SELECT "
            "set_config('tenantry.tenant', $1, true)$$"
        ),
        "procedure that changes the tenant": (
            "CREATE PROCEDURE become() LANGUAGE plpgsql AS $$BEGIN SET LOCAL tenantry.tenant TO <tenant>; END$$"
        ),
        "procedure that changes it in quotes": (
            'CREATE PROCEDURE become() LANGUAGE plpgsql AS $$BEGIN SET "tenantry"."tenant" = <tenant>; END$$'
        ),
    },
    "function.leakproof": {
        "leaking function": (
            "CREATE FUNCTION leak(text) RETURNS bool LANGUAGE plpgsql LEAKPROOF COST 0.0001 AS $$BEGIN RAISE "
            "NOTICE '%', $1; RETURN true; END$$"
        ),
    },
    "function.language": {
        "function in C": "CREATE FUNCTION free(cstring) RETURNS oid LANGUAGE internal STRICT AS 'regclassin'",
    },
    "setting.preset": {
        "role that starts with a tenant": "ALTER ROLE {role} IN DATABASE {database} SET tenantry.tenant = <tenant>",
        "database that starts with a tenant": "ALTER DATABASE {database} SET tenantry.tenant = <tenant>",
    },
}
"""Statements by their name, by the weakness that each of them is."""


def _holes() -> Iterator[Hole]:
    for one in ATTRIBUTES:
        made, undone = f"ALTER ROLE {{role}} {one}", f"ALTER ROLE {{role}} NO{one}"
        yield Hole(f"role with {one}", made, f"role.{one.lower()}", undone)
    for found, granted in GRANTS.items():
        for one in granted:
            yield Hole(f"granted {one}", f"GRANT {one} TO {{role}}", found, f"REVOKE {one} FROM {{role}}")
    for found, opened in OPENED.items():
        for name, statement in opened.items():
            yield Hole(name, statement.replace("<tenant>", TENANT), found)


HOLES = tuple(_holes())

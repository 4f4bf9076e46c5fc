"""Holes in the isolation of shared tables: how each is opened, and by what name it must be found."""

from __future__ import annotations

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


HOLES = (
    # roles
    Hole("superuser", "ALTER ROLE {role} SUPERUSER", "role.superuser", "ALTER ROLE {role} NOSUPERUSER"),
    Hole("bypassing role", "ALTER ROLE {role} BYPASSRLS", "role.bypassrls", "ALTER ROLE {role} NOBYPASSRLS"),
    Hole("role that makes roles", "ALTER ROLE {role} CREATEROLE", "role.createrole", "ALTER ROLE {role} NOCREATEROLE"),
    Hole("role that copies databases", "ALTER ROLE {role} CREATEDB", "role.createdb", "ALTER ROLE {role} NOCREATEDB"),
    Hole("replicating role", "ALTER ROLE {role} REPLICATION", "role.replication", "ALTER ROLE {role} NOREPLICATION"),
    Hole("member of the owner", "GRANT {owner} TO {role}", "role.member", "REVOKE {owner} FROM {role}"),
    Hole("member of readers", "GRANT pg_read_all_data TO {role}", "role.member", "REVOKE pg_read_all_data FROM {role}"),
    Hole(
        "member of program runners",
        "GRANT pg_execute_server_program TO {role}",
        "role.member",
        "REVOKE pg_execute_server_program FROM {role}",
    ),
    Hole("owner of a table", "ALTER TABLE note OWNER TO {role}", "role.owner"),
    Hole("owner of a view", "ALTER VIEW text OWNER TO {role}", "role.owner"),
    Hole("owner of the database", "ALTER DATABASE {database} OWNER TO {role}", "role.owner"),
    Hole("large object of its own", "SET ROLE {role}; SELECT lo_from_bytea(0, 'x'); RESET ROLE", "role.owner"),
    Hole(
        "large object to read",
        "DO $$ BEGIN EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO PUBLIC', lo_from_bytea(0, 'x')); END $$",
        "large_object",
    ),
    # policies
    Hole("security off", "ALTER TABLE note DISABLE ROW LEVEL SECURITY", "table.row_security"),
    Hole("security not forced", "ALTER TABLE note NO FORCE ROW LEVEL SECURITY", "table.forced"),
    Hole("no policy", "DROP POLICY tenantry_tenant ON note", "table.policy"),
    Hole(
        "policy for reading alone",
        "DROP POLICY tenantry_tenant ON note; CREATE POLICY tenantry_tenant ON note AS RESTRICTIVE FOR SELECT "
        "USING (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)",
        "table.policy",
    ),
    Hole(
        "policy that lets all in",
        "ALTER POLICY tenantry_tenant ON note USING (true); ALTER POLICY tenantry_rows ON note USING (true)",
        "table.policy",
    ),
    Hole("policy that lets all out", "ALTER POLICY tenantry_tenant ON note WITH CHECK (true)", "table.policy"),
    Hole("policy for others", "ALTER POLICY tenantry_tenant ON note TO {owner}", "table.policy"),
    Hole(
        "policy open without a tenant",
        "ALTER POLICY tenantry_tenant ON note USING (current_setting('tenantry.tenant', true) IS NULL "
        "OR tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)",
        "table.policy",
    ),
    Hole("partition without security", "ALTER TABLE log_one DISABLE ROW LEVEL SECURITY", "table.row_security"),
    Hole("new partition", "CREATE TABLE log_two PARTITION OF log FOR VALUES FROM (10) TO (20)", "table.row_security"),
    Hole("new table", "CREATE TABLE draft (id int PRIMARY KEY)", "table.column"),
    Hole("new table elsewhere", "CREATE SCHEMA annex; CREATE TABLE annex.draft (id int)", "table.column"),
    # columns
    Hole("row without a tenant", "ALTER TABLE log ALTER COLUMN tenant_id DROP NOT NULL", "table.column"),
    Hole(
        "default tenant",
        "ALTER TABLE note ALTER COLUMN tenant_id SET DEFAULT '018f2d1c-0000-7000-8000-000000000001'",
        "table.column",
    ),
    # keys
    Hole("key over all tenants", "ALTER TABLE note DROP CONSTRAINT note_pkey, ADD PRIMARY KEY (id)", "table.key"),
    Hole("unique over all tenants", "ALTER TABLE project ADD UNIQUE (country)", "table.unique"),
    Hole("unique index over all tenants", "CREATE UNIQUE INDEX ON note (lower(text)) WHERE id > 3", "table.unique"),
    Hole("exclusion over all tenants", "ALTER TABLE note ADD EXCLUDE USING btree (text WITH =)", "table.exclusion"),
    Hole(
        "foreign key to any tenant",
        "CREATE UNIQUE INDEX ON project (id); ALTER TABLE note ADD FOREIGN KEY (project) REFERENCES project (id)",
        "table.foreign_key",
    ),
    Hole(
        "foreign key from what all share",
        "CREATE UNIQUE INDEX ON project (id); ALTER TABLE country ADD COLUMN of int REFERENCES project (id)",
        "table.foreign_key",
    ),
    Hole("child of a shared table", "CREATE TABLE land (x int) INHERITS (country)", "table.inheritance"),
    # privileges
    Hole("emptying", "GRANT TRUNCATE ON note TO {role}", "table.privilege"),
    Hole("asking for keys", "GRANT REFERENCES ON note TO PUBLIC", "table.privilege"),
    Hole("triggers", "GRANT TRIGGER ON note TO {role}", "table.privilege"),
    Hole("passing on", "GRANT SELECT ON note TO {role} WITH GRANT OPTION", "table.privilege"),
    Hole("writing what all share", "GRANT INSERT ON country TO PUBLIC", "table.privilege"),
    Hole("writing a column that all share", "GRANT UPDATE (name) ON country TO {role}", "table.privilege"),
    Hole("setting a sequence", "GRANT UPDATE ON SEQUENCE number TO {role}", "sequence.privilege"),
    Hole("making tables", "GRANT CREATE ON SCHEMA public TO PUBLIC", "schema.create"),
    Hole("making schemas", "GRANT CREATE ON DATABASE {database} TO {role}", "database.create"),
    Hole("temporary tables", "GRANT TEMPORARY ON DATABASE {database} TO PUBLIC", "database.temporary"),
    Hole(
        "privileges on what comes",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {role}",
        "default.privilege",
    ),
    Hole(
        "checks switched off",
        "GRANT SET ON PARAMETER session_replication_role TO {role}",
        "parameter.granted",
        "REVOKE SET ON PARAMETER session_replication_role FROM {role}",
    ),
    Hole("reading files", "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {role}", "function.granted"),
    Hole(
        "another server",
        "CREATE FOREIGN DATA WRAPPER away; CREATE SERVER away FOREIGN DATA WRAPPER away; "
        "GRANT USAGE ON FOREIGN SERVER away TO {role}",
        "server.granted",
    ),
    # ways round
    Hole("view with its owner's eyes", "ALTER VIEW text RESET (security_invoker)", "view.invoker"),
    Hole("new view", "CREATE VIEW all_notes AS SELECT * FROM note", "view.invoker"),
    Hole(
        "view of another tenant",
        "CREATE VIEW theirs WITH (security_invoker) AS SELECT note.* FROM note, LATERAL "
        "(SELECT set_config('tenantry.tenant', '018f2d1c-0000-7000-8000-000000000001', true) OFFSET 0) s",
        "table.setting",
    ),
    Hole(
        "default that changes the tenant",
        "ALTER TABLE project ADD COLUMN who text DEFAULT set_config('tenantry.tenant', '', false)",
        "table.setting",
    ),
    Hole("copy of all rows", "CREATE MATERIALIZED VIEW every_note AS SELECT * FROM note", "view.materialized"),
    Hole(
        "foreign table",
        "CREATE FOREIGN DATA WRAPPER away; CREATE SERVER away FOREIGN DATA WRAPPER away; "
        "CREATE FOREIGN TABLE far (x int) SERVER away",
        "table.foreign",
    ),
    Hole("rule", "CREATE RULE again AS ON INSERT TO note DO ALSO DELETE FROM project", "table.rule"),
    Hole(
        "function with a superuser's rights",
        "CREATE FUNCTION peek() RETURNS SETOF note LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM note'",
        "function.definer",
    ),
    Hole(
        "trigger with a superuser's rights",
        "CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "'BEGIN DELETE FROM project; RETURN NEW; END'; REVOKE EXECUTE ON FUNCTION fire FROM PUBLIC; "
        "CREATE TRIGGER fire AFTER INSERT ON note FOR EACH ROW EXECUTE FUNCTION fire()",
        "function.definer",
    ),
    Hole(
        "function of another tenant",
        "CREATE FUNCTION peek() RETURNS SETOF note LANGUAGE sql "
        "SET tenantry.tenant = '018f2d1c-0000-7000-8000-000000000001' AS 'SELECT * FROM note'",
        "function.setting",
    ),
    Hole(
        "function that changes the tenant",
        "CREATE FUNCTION become(text) RETURNS text LANGUAGE sql AS $$SELECT set_config('tenantry.tenant', $1, true)$$",
        "function.setting",
    ),
    Hole(
        "procedure that changes the tenant",
        "CREATE PROCEDURE become() LANGUAGE plpgsql AS "
        "$$BEGIN SET LOCAL tenantry.tenant TO '018f2d1c-0000-7000-8000-000000000001'; END$$",
        "function.setting",
    ),
    Hole(
        "procedure that changes it in quotes",
        "CREATE PROCEDURE become() LANGUAGE plpgsql AS "
        '$$BEGIN SET "tenantry"."tenant" = \'018f2d1c-0000-7000-8000-000000000001\'; END$$',
        "function.setting",
    ),
    Hole(
        "leaking function",
        "CREATE FUNCTION leak(text) RETURNS bool LANGUAGE plpgsql LEAKPROOF COST 0.0001 AS "
        "$$BEGIN RAISE NOTICE '%', $1; RETURN true; END$$",
        "function.leakproof",
    ),
    Hole(
        "function in C",
        "CREATE FUNCTION free(cstring) RETURNS oid LANGUAGE internal STRICT AS 'regclassin'",
        "function.language",
    ),
    # settings
    Hole(
        "role that starts with a tenant",
        "ALTER ROLE {role} IN DATABASE {database} SET tenantry.tenant = '018f2d1c-0000-7000-8000-000000000001'",
        "setting.preset",
    ),
    Hole(
        "database that starts with a tenant",
        "ALTER DATABASE {database} SET tenantry.tenant = '018f2d1c-0000-7000-8000-000000000001'",
        "setting.preset",
    ),
)

"""What lies in a PostgreSQL database, as far as tenants sharing its tables goes: facts, no judgement."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

TENANT: Final = "tenant_id"
"""The column by which rows of a shared table belong to a tenant."""

SETTING: Final = "tenantry.tenant"
"""The setting of a transaction that names the tenant it works for, as the text of a UUID."""

PUBLIC: Final = ""
"""Everybody, where a privilege names whom it is granted to."""

Anything = psycopg.Connection[Any]
Name = tuple[str, str]
"""Schema and name."""

Fact = TypeVar("Fact")


# --- facts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grant:
    """A privilege on something, and whom it is granted to."""

    grantee: str
    privilege: str
    grantable: bool
    column: str  # where it is granted on that column alone


@dataclass(frozen=True, slots=True)
class Column:
    """The column `tenant_id` of a table, where it has one."""

    type: str
    not_null: bool
    default: str | None
    made: bool  # generated, or an identity
    nulls: bool  # whether any row has none
    uuids: bool  # whether each value is the text of a UUID
    used: bool  # by a view, a policy, a foreign key or a generated column


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of a table. Its expressions stand as the server writes them, with every name qualified."""

    name: str
    permissive: bool
    command: str  # "*" for all
    everybody: bool  # holds for all roles
    using: str | None
    check: str | None


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, partition, view, materialized view, foreign table or sequence."""

    oid: int
    schema: str
    name: str
    kind: str  # r table, p partitioned table, v view, m materialized view, f foreign table, S sequence
    owner: str
    extension: bool  # belongs to an extension
    partition: bool
    parents: tuple[int, ...]  # that it inherits from, or is a partition of
    row_security: bool
    forced: bool
    invoker: bool  # a view that reads as whoever asks
    rows: bool  # holds rows, or may; only told where there is no column `tenant_id`
    rules: tuple[str, ...]
    sets: bool  # its definition, a default, a check, a trigger or a policy changes the tenant
    tenant: Column | None
    policies: tuple[Policy, ...]
    grants: tuple[Grant, ...]  # its columns' among them

    @property
    def at(self) -> Name:
        return self.schema, self.name

    @property
    def shown(self) -> str:
        """Its name for people."""
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(*self.at)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A key, a foreign key or an exclusion of a table."""

    oid: int
    table: int
    name: str
    kind: str  # p primary key, u unique, f foreign key, x exclusion
    columns: tuple[str, ...]
    definition: str
    method: str | None  # of its index: btree, gist
    inherited: bool  # from the table that its table is a partition of
    dependents: tuple[str, ...]  # views and functions that rely on it
    validated: bool
    deferrable: bool
    deferred: bool
    enforced: bool
    period: bool  # its last column is a range of time
    target: int
    target_columns: tuple[str, ...]
    on_update: str  # a no action, r restrict, c cascade, n set null, d set default
    on_delete: str
    match: str  # s simple, f full
    set_columns: tuple[str, ...]  # that ON DELETE SET names


@dataclass(frozen=True, slots=True)
class Index:
    """An index, also one that belongs to a constraint."""

    oid: int
    table: int
    schema: str
    name: str
    method: str
    unique: bool
    keys: tuple[str | None, ...]  # None for an expression
    head: str  # how its definition begins, up to the first key
    tail: str  # and how it goes on; empty where that is unclear
    inherited: bool
    constraint: bool
    identity: bool  # the table's replica identity
    clustered: bool


@dataclass(frozen=True, slots=True)
class Function:
    """A function or procedure that is neither PostgreSQL's own nor an extension's."""

    signature: str
    owner: str
    definer: bool
    leakproof: bool
    trusted: bool  # its language is
    sets: bool  # it changes the tenant, or whether row-level security holds
    triggers: tuple[str, ...]  # that call it without asking for the privilege
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Role:
    """A role of the server, with what makes it more than a plain one."""

    name: str
    superuser: bool
    bypass: bool
    createrole: bool
    createdb: bool
    replication: bool
    member_of: tuple[str, ...]  # directly; inherited or not
    owns: str | None  # one thing it owns in this database


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema, and who may do what in it."""

    name: str
    system: bool
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Granted:
    """Something with privileges: a builtin function, a foreign server, a parameter, a large object."""

    kind: str  # function, object function, server, parameter, large object
    name: str
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Default:
    """Privileges that new tables, sequences or schemas of a role get by themselves."""

    owner: str
    schema: str  # "" for all
    kind: str  # r tables, S sequences, n schemas
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Preset:
    """A tenant that a connection starts with."""

    role: str  # "" for all
    database: str  # "" for all


@dataclass(frozen=True)
class Found:
    """Everything that `inspect` saw in a database."""

    database: str
    version: int  # 150004
    superuser: bool  # whether the inspecting role is one
    preset: bool  # whether connections start with a tenant, by the server's configuration
    gist: bool | None  # btree_gist: installed; False: can be; None: not there
    database_grants: tuple[Grant, ...]
    relations: Mapping[int, Relation]
    constraints: tuple[Constraint, ...]
    indexes: tuple[Index, ...]
    functions: tuple[Function, ...]
    roles: Mapping[str, Role]
    schemas: tuple[Schema, ...]
    granted: tuple[Granted, ...]
    defaults: tuple[Default, ...]
    presets: tuple[Preset, ...]

    @cached_property
    def children(self) -> Mapping[int, tuple[int, ...]]:
        """What inherits from each table, directly."""
        made: dict[int, tuple[int, ...]] = {}
        for relation in self.relations.values():
            for parent in relation.parents:
                made[parent] = (*made.get(parent, ()), relation.oid)
        return made

    def identities(self, role: str) -> frozenset[str]:
        """A role, all that it is a member of, through others too, and everybody."""
        seen, todo = {PUBLIC}, [role]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += self.roles[name].member_of if name in self.roles else ()
        return frozenset(seen)


# --- queries ------------------------------------------------------------------------------------------------------

_OUTSIDE: Final = "n.nspname !~ '^pg_(toast|temp)' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"

_GRANTS: Final = """
(SELECT jsonb_agg(jsonb_build_array(CASE g.grantee WHEN 0 THEN '' ELSE g.grantee::regrole::text END,
    g.privilege_type, g.is_grantable, '')) FROM aclexplode(<acl>) g)"""
"""Names come quoted where they are odd."""

_RELATIONS: Final = """
SELECT c.oid::int8, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
  c.relowner::regrole::text AS owner, c.relispartition AS partition,
  EXISTS (SELECT FROM pg_depend e
    WHERE e.objid = c.oid AND e.classid = 'pg_class'::regclass AND e.deptype = 'e') AS extension,
  ARRAY(SELECT inhparent::int8 FROM pg_inherits WHERE inhrelid = c.oid ORDER BY inhseqno) AS parents,
  c.relrowsecurity AS row_security, c.relforcerowsecurity AS forced,
  coalesce((SELECT o.option_value::boolean FROM pg_options_to_table(c.reloptions) o
    WHERE o.option_name = 'security_invoker'), false) AS invoker,
  pg_relation_size(CASE WHEN c.relkind = 'r' THEN c.oid END) > 0 AS rows,
  ARRAY(SELECT r.rulename::text FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1' ORDER BY 1) AS rules,
  concat_ws(' ', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
    (SELECT string_agg(pg_get_expr(d.adbin, d.adrelid), ' ') FROM pg_attrdef d WHERE d.adrelid = c.oid),
    (SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_constraint k
      WHERE k.conrelid = c.oid AND k.contype = 'c'),
    (SELECT string_agg(pg_get_triggerdef(t.oid), ' ') FROM pg_trigger t
      WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
    (SELECT string_agg(concat_ws(' ', pg_get_expr(p.polqual, c.oid), pg_get_expr(p.polwithcheck, c.oid)), ' ')
      FROM pg_policy p WHERE p.polrelid = c.oid)) ~* %(sets)s AS sets,
  (SELECT jsonb_build_object('type', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
      'default', pg_get_expr(d.adbin, d.adrelid), 'made', a.attidentity <> '' OR a.attgenerated <> '',
      'used', EXISTS (SELECT FROM pg_depend u WHERE u.refobjid = c.oid AND u.refclassid = 'pg_class'::regclass
        AND u.refobjsubid = a.attnum AND (u.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass)
          OR u.classid = 'pg_attrdef'::regclass AND u.objid IS DISTINCT FROM d.oid
          OR EXISTS (SELECT FROM pg_constraint k WHERE u.classid = 'pg_constraint'::regclass AND k.oid = u.objid
            AND k.contype IN ('f', 'c')))))
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attname = '<column>' AND a.attnum > 0 AND NOT a.attisdropped
      AND c.relkind IN ('r', 'p', 'f')) AS tenant,
  (SELECT jsonb_agg(jsonb_build_array(p.polname, p.polpermissive, p.polcmd, p.polroles = '{0}',
      pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) ORDER BY p.polname)
    FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
  coalesce(<coalesce(c.relacl, acldefault('r', c.relowner))>, '[]') || coalesce(
    (SELECT jsonb_agg(jsonb_build_array(CASE g.grantee WHEN 0 THEN '' ELSE g.grantee::regrole::text END,
        g.privilege_type, g.is_grantable, a.attname))
      FROM pg_attribute a CROSS JOIN aclexplode(a.attacl) g WHERE a.attrelid = c.oid), '[]') AS grants
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND <outside> ORDER BY 2, 3"""

_CONSTRAINTS: Final = """
SELECT k.oid::int8, k.conrelid::int8 AS table, k.conname AS name, k.contype::text AS kind,
  ARRAY(SELECT coalesce(a.attname::text, '') FROM unnest(k.conkey) WITH ORDINALITY u (n, i)
    LEFT JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.i) AS columns,
  pg_get_constraintdef(k.oid) AS definition,
  (SELECT m.amname FROM pg_class x JOIN pg_am m ON m.oid = x.relam
    WHERE x.oid = k.conindid AND k.contype <> 'f') AS method,
  k.conparentid <> 0 AS inherited,
  ARRAY(SELECT DISTINCT coalesce(r.ev_class::regclass::text, pg_describe_object(d.classid, d.objid, 0))
    FROM pg_depend d LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    WHERE d.refclassid = 'pg_constraint'::regclass AND d.refobjid = k.oid AND d.deptype = 'n'
      AND d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass) ORDER BY 1) AS dependents,
  k.convalidated AS validated, k.condeferrable AS deferrable, k.condeferred AS deferred,
  coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true) AS enforced,
  coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false) AS period,
  k.confrelid::int8 AS target,
  ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (n, i)
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.i) AS target_columns,
  k.confupdtype::text AS on_update, k.confdeltype::text AS on_delete, k.confmatchtype::text AS match,
  ARRAY(SELECT a.attname::text FROM unnest(k.confdelsetcols) WITH ORDINALITY u (n, i)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.i) AS set_columns
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype IN ('p', 'u', 'f', 'x') AND c.relpersistence <> 't' AND <outside> ORDER BY n.nspname, c.relname, 3"""

_INDEXES: Final = """
SELECT c.oid::int8, i.indrelid::int8 AS table, n.nspname AS schema, c.relname AS name, m.amname AS method,
  i.indisunique AS unique,
  ARRAY(SELECT a.attname::text FROM generate_series(0, i.indnkeyatts - 1) s (p)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[s.p] AND i.indkey[s.p] <> 0
    ORDER BY s.p) AS keys,
  format('CREATE %sINDEX %I ON %I.%I USING %I (', CASE WHEN i.indisunique THEN 'UNIQUE ' END, c.relname, n.nspname,
    t.relname, m.amname) AS head,
  CASE t.relkind WHEN 'p' THEN replace(pg_get_indexdef(c.oid), format(' ON ONLY %I.%I USING ', n.nspname, t.relname),
    format(' ON %I.%I USING ', n.nspname, t.relname)) ELSE pg_get_indexdef(c.oid) END AS tail,
  EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid) AS inherited,
  EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x')) AS constraint,
  i.indisreplident AS identity, i.indisclustered AS clustered
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_am m ON m.oid = c.relam
WHERE t.relkind IN ('r', 'p') AND t.relpersistence <> 't' AND <outside> ORDER BY n.nspname, t.relname, c.relname"""

_SETS: Final = (
    r"""(set_config\s*\(|\mset\s+(local\s+|session\s+)?|\mreset\s+)[^;]*tenantry"?\."?tenant|row\s+level\s+security"""
)
"""A statement or a call that changes the tenant, or whether policies hold."""

_FUNCTIONS: Final = r"""
SELECT p.oid::regprocedure::text AS signature, p.proowner::regrole::text AS owner, p.prosecdef AS definer,
  p.proleakproof AS leakproof, l.lanpltrusted OR p.prokind = 'a' AS trusted,
  EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s ~* '^(tenantry\.tenant|row_security|session_replication_role)=')
    OR coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) ~* %(sets)s AS sets,
  ARRAY(SELECT t.tgname || ' on ' || t.tgrelid::regclass FROM pg_trigger t
      WHERE t.tgfoid = p.oid AND NOT t.tgisinternal
    UNION ALL SELECT e.evtname::text FROM pg_event_trigger e WHERE e.evtfoid = p.oid ORDER BY 1) AS triggers,
  <coalesce(p.proacl, acldefault('f', p.proowner))> AS grants
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE <outside> AND NOT EXISTS (SELECT FROM pg_depend e
  WHERE e.objid = p.oid AND e.classid = 'pg_proc'::regclass AND e.deptype = 'e') ORDER BY 1"""

_ROLES: Final = """
SELECT r.rolname AS name, r.rolsuper AS superuser, r.rolbypassrls AS bypass, r.rolcreaterole AS createrole,
  r.rolcreatedb AS createdb, r.rolreplication AS replication,
  ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
    WHERE m.member = r.oid ORDER BY 1) AS member_of,
  (SELECT min(pg_describe_object(d.classid, d.objid, d.objsubid)) FROM pg_shdepend d
    WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o'
      AND (d.dbid = b.oid OR d.classid = 'pg_database'::regclass AND d.objid = b.oid)) AS owns
FROM pg_roles r JOIN pg_database b ON b.datname = current_database()"""

_SCHEMAS: Final = """
SELECT n.nspname AS name, n.nspname ~ '^pg_' OR n.nspname = 'information_schema' AS system,
  <coalesce(n.nspacl, acldefault('n', n.nspowner))> AS grants
FROM pg_namespace n WHERE n.nspname !~ '^pg_(toast|temp)' ORDER BY 1"""

_DANGEROUS: Final = (
    "pg_read_file pg_read_binary_file pg_ls_dir pg_stat_file pg_file_write lo_import lo_export dblink_connect_u".split()
)
_OBJECTS: Final = "lo_creat lo_create lo_from_bytea lo_open lo_get lo_put lo_unlink".split()

_GRANTED: Final = """
SELECT CASE WHEN p.proname = ANY (%(objects)s) THEN 'object function' ELSE 'function' END AS kind,
  p.oid::regprocedure::text AS name, <coalesce(p.proacl, acldefault('f', p.proowner))> AS grants
FROM pg_proc p WHERE p.proname = ANY (%(dangerous)s) OR p.proname = ANY (%(objects)s)
  AND p.pronamespace = 'pg_catalog'::regnamespace
UNION ALL SELECT 'server', s.srvname, <s.srvacl> FROM pg_foreign_server s
UNION ALL SELECT 'parameter', a.parname, <a.paracl> FROM pg_parameter_acl a
UNION ALL SELECT 'large object', m.oid::text, <m.lomacl> FROM pg_largeobject_metadata m
  WHERE m.lomacl IS NOT NULL ORDER BY 1, 2"""

_DEFAULTS: Final = """
SELECT d.defaclrole::regrole::text AS owner, coalesce(n.nspname, '') AS schema, d.defaclobjtype::text AS kind,
  <d.defaclacl> AS grants
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
WHERE d.defaclobjtype IN ('r', 'S', 'n') ORDER BY 1, 2, 3"""

_PRESETS: Final = """
SELECT coalesce(r.rolname, '') AS role, coalesce(b.datname, '') AS database
FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database b ON b.oid = s.setdatabase
WHERE (s.setdatabase = 0 OR b.datname = current_database())
  AND EXISTS (SELECT FROM unnest(s.setconfig) c WHERE c LIKE '<setting>=_%') ORDER BY 1, 2"""

_DATABASE: Final = """
SELECT current_database() AS database, current_setting('server_version_num')::int AS version,
  (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
  coalesce(current_setting('<setting>', true), '') <> '' AS preset,
  (SELECT installed_version IS NOT NULL FROM pg_available_extensions WHERE name = 'btree_gist') AS gist,
  <coalesce(datacl, acldefault('d', datdba))> AS database_grants
FROM pg_database WHERE datname = current_database()"""

_UUID: Final = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


# --- inspecting ---------------------------------------------------------------------------------------------------


def inspect(connection: Anything) -> Found:
    """What is there, in every schema of the database but PostgreSQL's own.

    Any role may look; it changes nothing. Inside a transaction it sees what that has done so far.
    """
    with connection.transaction(force_rollback=True):  # so that the settings below end with it
        connection.execute(sql.SQL("SET LOCAL search_path TO pg_catalog; SET LOCAL {} TO DEFAULT").format(_SETTING))
        (whole,) = _rows(connection, _DATABASE)
        whole["database_grants"] = _grants(whole["database_grants"])
        relations = [_relation(connection, row) for row in _rows(connection, _RELATIONS, {"sets": _SETS})]
        names = {"dangerous": _DANGEROUS, "objects": _OBJECTS}
        return Found(
            **whole,
            relations={relation.oid: relation for relation in relations},
            constraints=_facts(Constraint, _rows(connection, _CONSTRAINTS)),
            indexes=_facts(Index, [_index(row) for row in _rows(connection, _INDEXES)]),
            functions=_facts(Function, _rows(connection, _FUNCTIONS, {"sets": _SETS})),
            roles={role.name: role for role in _facts(Role, _rows(connection, _ROLES))},
            schemas=_facts(Schema, _rows(connection, _SCHEMAS)),
            granted=_facts(Granted, _rows(connection, _GRANTED, names)),
            defaults=_facts(Default, _rows(connection, _DEFAULTS)),
            presets=_facts(Preset, _rows(connection, _PRESETS)),
        )


_SETTING: Final = sql.Identifier(*SETTING.split("."))


def _rows(connection: Anything, query: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql.SQL(_filled(query)), values).fetchall()


def _filled(query: str) -> str:
    """A query with its abbreviations written out: `<outside>`, `<column>`, `<setting>`, and `<acl>` for any other."""
    known = {"outside": _OUTSIDE, "column": TENANT, "setting": SETTING}
    return re.sub(r"<([a-z][^<>]+)>", lambda found: known.get(found[1]) or _GRANTS.replace("<acl>", found[1]), query)


def _facts(kind: type[Fact], rows: list[dict[str, Any]]) -> tuple[Fact, ...]:
    return tuple(kind(**{name: _frozen(name, value) for name, value in row.items()}) for row in rows)


def _frozen(name: str, value: Any) -> Any:
    if name == "grants":
        return _grants(value)
    if name == "owner":
        return _unquoted(value)
    return tuple(value) if isinstance(value, list) else value


def _grants(found: list[list[Any]] | None) -> tuple[Grant, ...]:
    return tuple(Grant(_unquoted(grantee), *rest) for grantee, *rest in found or ())


def _unquoted(role: str) -> str:
    """The name of a role without the quotes that the server puts around odd ones."""
    return role[1:-1].replace('""', '"') if role.startswith('"') else role


def _index(row: dict[str, Any]) -> dict[str, Any]:
    """A definition whose beginning is another than expected has no tail: nobody takes it apart."""
    known = row["tail"].startswith(row["head"])
    return row | {"tail": row["tail"].removeprefix(row["head"]) if known else ""}


def _relation(connection: Anything, row: dict[str, Any]) -> Relation:
    identifier = sql.Identifier(row["schema"], row["name"])
    plain = row["kind"] == "r" and not row["row_security"]  # where a policy hides rows, size alone tells
    if row["tenant"]:
        row["tenant"] = _column(connection, identifier, row["tenant"], plain, row["rows"])
    elif plain and row["rows"]:
        row["rows"] = _any(connection, sql.SQL("SELECT EXISTS (SELECT FROM ONLY {})").format(identifier))
    policies = tuple(Policy(*values) for values in row.pop("policies") or ())
    return _facts(Relation, [row | {"policies": policies, "rows": bool(row["rows"])}])[0]


def _column(
    connection: Anything, table: sql.Identifier, found: dict[str, Any], plain: bool, filled: bool | None
) -> Column:
    """The column, with a look at its values where it is not yet as it is to be."""
    text = found["type"] == "text" or found["type"].startswith("character varying")
    nulls, uuids = bool(filled) and not found["not_null"], found["type"] == "uuid" or (text and not filled)
    names = {"table": table, "column": sql.Identifier(TENANT)}
    if plain and nulls:
        nulls = _any(
            connection, sql.SQL("SELECT EXISTS (SELECT FROM ONLY {table} WHERE {column} IS NULL)").format(**names)
        )
    if plain and filled and text:
        query = sql.SQL("SELECT NOT EXISTS (SELECT FROM ONLY {table} WHERE {column} !~ {uuid})")
        uuids = _any(connection, query.format(uuid=_UUID, **names), refused=False)
    return Column(**found, nulls=nulls, uuids=uuids)


def _any(connection: Anything, query: sql.Composed, refused: bool = True) -> bool:
    """What a query says; where it may not be asked, the worse."""
    try:
        with connection.transaction():
            row = connection.cursor(row_factory=psycopg.rows.tuple_row).execute(query).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return refused
    return bool(row and row[0])

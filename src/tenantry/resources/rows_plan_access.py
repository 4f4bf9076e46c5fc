"""Rules on who reaches tables that tenants share, and by which ways round: roles, privileges, views, functions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from psycopg import sql

from tenantry.resources.rows_inspect import SETTING, Default, Function, Grant, Granted, Preset, Relation, Role
from tenantry.resources.rows_plan_case import Case, Phase, Statement, Step, Text, Weakness, called, to_whom

WRITES: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
READS: Final = ("SELECT",)
USES: Final = ("USAGE",)

POWERFUL: Final = frozenset(
    "pg_read_all_data pg_write_all_data pg_maintain pg_read_server_files pg_write_server_files "
    "pg_execute_server_program pg_create_subscription pg_monitor pg_read_all_stats".split()
)
"""Roles of PostgreSQL's own that lead past a table's privileges, or show what others ask."""

ATTRIBUTES: Final = {
    "superuser": "is a superuser, whom no policy binds",
    "bypass": "has BYPASSRLS: no policy binds it",
    "createrole": "has CREATEROLE and can give itself other roles",
    "createdb": "has CREATEDB and can copy databases",
    "replication": "has REPLICATION and can read every change",
}

_OBJECT: Final = {"server": "FOREIGN SERVER", "parameter": "PARAMETER", "function": "FUNCTION"}


def access(case: Case) -> Iterator[Weakness]:
    """Everything that lets the application's role past the policies of its tables, or around them."""
    yield from _role(case)
    yield from _presets(case)
    yield from _database(case)
    for relation in case.found.relations.values():
        yield from _shape(case, relation)
        yield from _privileges(case, relation)
    for function in case.found.functions:
        yield from _function(case, function)
    for granted in case.found.granted:
        yield from _granted(case, granted)
    for default in case.found.defaults:
        yield from _default(case, default)


# --- the role -----------------------------------------------------------------------------------------------------


def _role(case: Case) -> Iterator[Weakness]:
    role = case.found.roles.get(case.role)
    if role is None:
        yield Weakness("role.missing", f"there is no role {case.role}", "Make it: LOGIN and nothing else.")
        return
    for attribute in ATTRIBUTES:
        if getattr(role, attribute):
            name = "role.bypassrls" if attribute == "bypass" else f"role.{attribute}"
            remedy = f"Let applications enter by a role without it, or ALTER ROLE {role.name}."
            yield Weakness(name, f"the role {role.name} {ATTRIBUTES[attribute]}", remedy)
    if role.owns:
        what = f"the role {role.name} owns the {role.owns}, and may do with it what it likes"
        yield Weakness("role.owner", what, "Give it to the role that migrates.")
    for other in sorted(case.identities - {case.role}):
        if other in case.found.roles:
            yield from _membership(case.role, case.found.roles[other])


def _membership(role: str, other: Role) -> Iterator[Weakness]:
    reasons = [text for attribute, text in ATTRIBUTES.items() if getattr(other, attribute)]
    if other.name in POWERFUL:
        reasons.append("is one of the server's powerful roles")
    if other.owns:
        reasons.append(f"owns the {other.owns}")
    for reason in reasons:
        what = f"the role {role} is a member of {other.name}, which {reason}"
        yield Weakness("role.member", what, f"REVOKE {other.name} FROM {role}.")


def _presets(case: Case) -> Iterator[Weakness]:
    for preset in case.found.presets:
        if preset.role in ("", case.role):
            yield _preset(case, preset)
    if case.found.preset and not case.found.presets:
        what = f"the server's configuration sets {SETTING}: who forgets the tenant gets that one's rows"
        yield Weakness("setting.preset", what, f"Remove {SETTING} from the server's configuration and reload it.")


def _preset(case: Case, preset: Preset) -> Weakness:
    names = {
        "role": sql.Identifier(preset.role) if preset.role else sql.SQL("ALL"),
        "database": sql.Identifier(preset.database),
        "setting": sql.Identifier(*SETTING.split(".")),
    }
    if not preset.role and preset.database:
        statement = sql.SQL("ALTER DATABASE {database} RESET {setting}")
    elif preset.database:
        statement = sql.SQL("ALTER ROLE {role} IN DATABASE {database} RESET {setting}")
    else:
        statement = sql.SQL("ALTER ROLE {role} RESET {setting}")
    whose = f"the role {preset.role}" if preset.role else "the database"
    what = f"{whose} starts with a tenant in {SETTING}: who forgets to name one gets that one's rows"
    return _mended("setting.preset", what, statement.format(**names))


def _mended(name: str, what: str, *statements: Statement, grave: bool = True, phase: Phase = Phase.ACCESS) -> Weakness:
    steps = tuple(Step(phase, statement, what) for statement in statements)
    return Weakness(name, what, "Plan and apply.", steps, grave)


# --- privileges ---------------------------------------------------------------------------------------------------


def _database(case: Case) -> Iterator[Weakness]:
    database = sql.Identifier(case.found.database)
    for grant in case.held(case.found.database_grants):
        if grant.privilege in ("TEMPORARY", "CREATE"):
            kind = sql.SQL("DATABASE")
            what = {
                "TEMPORARY": "may make temporary tables, which stand before real ones and outlast a transaction",
                "CREATE": "may make schemas",
            }[grant.privilege]
            statement = _revoke(grant, kind, database)
            yield _mended(f"database.{grant.privilege.lower()}", f"{called(grant.grantee)} {what}", statement)
    used = {relation.schema for relation in case.found.relations.values() if not case.apart(relation)}
    for schema in case.found.schemas:
        held = list(case.held(schema.grants))
        for grant in held:
            if grant.privilege == "CREATE":
                what = f"{called(grant.grantee)} may make tables and functions in the schema {schema.name}"
                statement = _revoke(grant, sql.SQL("SCHEMA"), sql.Identifier(schema.name))
                yield _mended("schema.create", what, statement)
        if schema.name in used and not any(grant.privilege == "USAGE" for grant in held):
            what = f"the role {case.role} may not use the schema {schema.name}"
            statement = _grant(case, USES, sql.SQL("SCHEMA"), sql.Identifier(schema.name))
            yield _mended("schema.usage", what, statement, grave=False)


def _revoke(grant: Grant, kind: Text, thing: Text, *, option: bool = False) -> Statement:
    return sql.SQL("REVOKE {}{} ON {} {} FROM {} CASCADE").format(
        sql.SQL("GRANT OPTION FOR " if option else ""), sql.SQL(grant.privilege), kind, thing, to_whom(grant.grantee)
    )


def _grant(case: Case, privileges: Collection[str], kind: Text, thing: Text) -> Statement:
    listed = sql.SQL(", ").join(map(sql.SQL, privileges))
    return sql.SQL("GRANT {} ON {} {} TO {}").format(listed, kind, thing, sql.Identifier(case.role))


def _privileges(case: Case, relation: Relation) -> Iterator[Weakness]:
    """More than the role needs on a table is a weakness, less is a lack."""
    needed, allowed = _needs(case, relation)
    kind = sql.SQL("SEQUENCE" if relation.kind == "S" else "TABLE")
    held = [grant for grant in case.held(relation.grants) if grant.grantee != relation.owner]
    for grant in held:
        if grant.privilege not in allowed or grant.grantable:
            option = grant.privilege in allowed
            may = "may pass on" if option else "has"
            name = "sequence.privilege" if relation.kind == "S" else "table.privilege"
            what = f"{called(grant.grantee)} {may} {grant.privilege} on {relation.shown}"
            yield _mended(name, what, _revoke(grant, kind, relation.identifier, option=option))
    whole = {grant.privilege for grant in held if not grant.column}
    missing = [privilege for privilege in needed if privilege not in whole]
    if missing:
        what = f"the role {case.role} lacks {', '.join(missing)} on {relation.shown}"
        statement = _grant(case, missing, kind, relation.identifier)
        yield _mended("table.access", what, statement, grave=False)


def _needs(case: Case, relation: Relation) -> tuple[Collection[str], Collection[str]]:
    """What the role is to have on it, and what it may have."""
    if case.apart(relation):
        return (), (*USES, *READS) if relation.kind == "S" else READS
    if relation.kind == "S":
        return USES, USES
    if relation.oid in case.tenants or (relation.kind == "v" and not case.is_shared(relation)):
        return WRITES, WRITES
    return (READS, READS) if case.is_shared(relation) else ((), ())


# --- views and the like -------------------------------------------------------------------------------------------


def _shape(case: Case, relation: Relation) -> Iterator[Weakness]:
    """What no policy can be put on, and what reads with another's eyes."""
    if relation.extension:
        return
    if relation.sets:
        what = f"an expression of {relation.shown} changes {SETTING}: what is read after it is another tenant's"
        yield Weakness("table.setting", what, "Look at its definition, defaults, checks, triggers and policies.")
    if relation.kind == "v" and not relation.invoker:
        what = f"the view {relation.shown} reads with the rights of {relation.owner}, not of who asks"
        statement = sql.SQL("ALTER VIEW {} SET (security_invoker = true)").format(relation.identifier)
        yield _mended("view.invoker", what, statement, phase=Phase.VIEWS)
    if relation.kind in ("m", "f") and not case.is_shared(relation):
        kind = "materialized view" if relation.kind == "m" else "foreign table"
        what = f"the {kind} {relation.shown} can have no policy: whoever reads it reads the rows of all tenants"
        remedy = f"Drop it or make it a view; where all tenants may read all of it, declare {relation.shown} as shared."
        yield Weakness("view.materialized" if relation.kind == "m" else "table.foreign", what, remedy)
    if relation.rules and (relation.oid in case.tenants or relation.kind == "v"):
        what = f"the rule {relation.rules[0]} on {relation.shown} works with the rights of its owner"
        yield Weakness("table.rule", what, "Drop the rule; a trigger can do the same as whoever writes.")


# --- functions ----------------------------------------------------------------------------------------------------


def _function(case: Case, function: Function) -> Iterator[Weakness]:
    name = sql.SQL(function.signature)
    if function.leakproof:
        what = f"the function {function.signature} is said to be leakproof, so it sees rows before the policies do"
        statement = sql.SQL("ALTER FUNCTION {} NOT LEAKPROOF").format(name)
        yield _mended("function.leakproof", what, statement, phase=Phase.VIEWS)
    if not (function.triggers or any(grant.privilege == "EXECUTE" for grant in case.held(function.grants))):
        return
    remedy = f"Change it, or REVOKE EXECUTE ON FUNCTION {function.signature} FROM PUBLIC, {case.role}."
    if function.triggers:
        remedy = f"Change it, or drop what calls it: {', '.join(function.triggers)}."
    owner = case.found.roles.get(function.owner)
    if function.definer and (owner is None or owner.superuser or owner.bypass):
        what = f"the function {function.signature} runs as {function.owner}, whom no policy binds"
        yield Weakness("function.definer", what, f"Make it SECURITY INVOKER. {remedy}")
    if function.sets:
        what = f"the function {function.signature} changes {SETTING}, or what row-level security holds for"
        yield Weakness("function.setting", what, remedy)
    if not function.trusted:
        what = f"the function {function.signature} is written in a language that can do anything on the server"
        yield Weakness("function.language", what, remedy)


def _granted(case: Case, granted: Granted) -> Iterator[Weakness]:
    for grant in case.held(granted.grants):
        what = f"{called(grant.grantee)} has {grant.privilege} on the {granted.kind} {granted.name}"
        name = sql.SQL(granted.name) if granted.kind.endswith("function") else sql.Identifier(*granted.name.split("."))
        kind = sql.SQL(_OBJECT.get(granted.kind, "FUNCTION"))
        if granted.kind == "large object":
            yield Weakness("large_object", f"{what}, which belongs to no tenant", "Keep its content in a table.")
        elif granted.kind == "object function":
            if case.found.superuser:  # nobody else can take it from everybody
                reason = f"{what}: large objects have no policies, and the next tenant could read them"
                yield _mended("large_object", reason, _revoke(grant, kind, name), grave=False)
        elif granted.kind != "parameter" or granted.name == "session_replication_role":
            remedy = (
                f"REVOKE {grant.privilege} ON {_OBJECT[granted.kind]} {granted.name} FROM {grant.grantee or 'PUBLIC'}."
            )
            steps = (Step(Phase.ACCESS, _revoke(grant, kind, name), what),) if case.found.superuser else ()
            yield Weakness(f"{granted.kind}.granted", what, remedy, steps)


def _default(case: Case, default: Default) -> Iterator[Weakness]:
    things = {"r": "TABLES", "S": "SEQUENCES", "n": "SCHEMAS"}[default.kind]
    allowed = {"r": (), "S": USES, "n": USES}[default.kind]
    for grant in case.held(default.grants):
        if grant.grantee != default.owner and grant.privilege not in allowed:
            what = (
                f"{called(grant.grantee)} gets {grant.privilege} on new {things.lower()} of {default.owner} by itself"
            )
            where = sql.SQL(" IN SCHEMA {}").format(sql.Identifier(default.schema)) if default.schema else sql.SQL("")
            statement = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {}{} REVOKE {} ON {} FROM {}").format(
                sql.Identifier(default.owner), where, sql.SQL(grant.privilege), sql.SQL(things), to_whom(grant.grantee)
            )
            yield _mended("default.privilege", what, statement)

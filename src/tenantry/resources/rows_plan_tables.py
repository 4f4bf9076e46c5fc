"""Rules on tables that tenants share: whose a row is, keys within a tenant, policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from psycopg import sql

from tenantry.resources.rows_inspect import SETTING, TENANT, Column, Constraint, Index, Relation
from tenantry.resources.rows_plan_case import (
    COLUMN,
    CURRENT,
    DEFAULT,
    MATCHES,
    Case,
    Phase,
    Statement,
    Step,
    Text,
    Weakness,
    columns,
)

BASE: Final = "tenantry_rows"
"""The policy that opens a table's rows to their own tenant."""

GUARD: Final = "tenantry_tenant"
"""The restrictive policy, which no other policy can widen."""

ACTIONS: Final = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
SETS: Final = ("n", "d")

FORCE: Final = sql.SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY")
LIFT: Final = sql.SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY")
"""So long as its transaction lasts: nobody else can read the table meanwhile."""

_ADD: Final = sql.SQL("ALTER TABLE {table} ADD COLUMN {column} uuid NOT NULL DEFAULT {default}")
_DEFAULT: Final = sql.SQL("ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {default}")
_TYPE: Final = sql.SQL("ALTER TABLE {table} ALTER COLUMN {column} TYPE uuid USING {column}::uuid")
_FILL: Final = sql.SQL("UPDATE {table} SET {column} = {tenant} WHERE {column} IS NULL")


def tables(case: Case) -> Iterator[Weakness]:
    """Everything about the tables of a database that lets one tenant at another's rows."""
    for table in case.tenants.values():
        yield from _kinship(case, table)
        yield from own_column(case, table)
        yield from _policies(table)
    for constraint in case.found.constraints:
        if constraint.kind == "f":
            yield from own_reference(case, constraint)
        elif constraint.table in case.tenants:
            yield from own_key(case, case.tenants[constraint.table], constraint)
    for table in case.tenants.values():
        yield from _indexes(case, table)


# --- whose a row is -----------------------------------------------------------------------------------------------


def _kinship(case: Case, table: Relation) -> Iterator[Weakness]:
    """A query of a parent shows its children's rows too, by the parent's policies alone."""
    for parent in (case.found.relations[oid] for oid in table.parents if oid in case.found.relations):
        if parent.oid not in case.tenants:
            what = f"the table {table.shown} inherits from {parent.shown}, which shows its rows to all tenants"
            yield Weakness("table.inheritance", what, f"Declare both as shared, or neither of them: {parent.shown}.")
    for child in (case.found.relations[oid] for oid in case.found.children.get(table.oid, ())):
        if child.oid not in case.tenants and child.kind != "f":
            what = f"the shared table {child.shown} inherits from {table.shown}, whose rows belong to tenants"
            yield Weakness("table.inheritance", what, f"Declare both as shared, or neither of them: {child.shown}.")


def own_column(case: Case, table: Relation) -> Iterator[Weakness]:
    """The column that tells whose a row is."""
    column = table.tenant
    if column is None:
        if not any(parent in case.tenants for parent in table.parents):  # else it comes from there
            yield _missing(case, table)
    elif column.made or not (column.type == "uuid" or (column.uuids and not column.used)):
        yield Weakness("table.column", *_unfit(table, column))
    else:
        yield from _taken_over(case, table, column)


def _missing(case: Case, table: Relation) -> Weakness:
    what = f"the table {table.shown} has no column {TENANT}"
    if case.adopt is None and any(one.rows for one in case.descendants(table)):
        remedy = f"It holds rows: name the tenant they belong to, empty it, or declare {table.shown} as shared."
        return Weakness("table.column", what, remedy)
    reason = f"each row of {table.shown} belongs to a tenant; without one set, nothing can be added"
    names = {"table": table.identifier, "column": COLUMN}
    steps = [Step(Phase.COLUMNS, _ADD.format(default=_default(case), **names), reason)]
    if case.adopt:
        reason = f"the rows that {table.shown} holds are the tenant's that was named; new ones are the current one's"
        steps.append(Step(Phase.COLUMNS, _DEFAULT.format(default=CURRENT, **names), reason))
    return Weakness("table.column", what, "Plan and apply.", tuple(steps))


def _default(case: Case) -> Text:
    return sql.SQL("{}::uuid").format(case.adopt) if case.adopt else CURRENT


def _unfit(table: Relation, column: Column) -> tuple[str, str]:
    if column.made:
        reason = "the server generates it"
    elif column.uuids:
        reason = f"it is {column.type}, and views, policies, checks or foreign keys use it so"
    elif column.type == "text" or column.type.startswith("character"):
        reason = f"it is {column.type}, and not each value is a UUID"
    else:
        reason = f"it is {column.type}"
    return (
        f"the column {TENANT} of {table.shown} cannot name the tenant: {reason}",
        f"Make it a plain column of type uuid, or give it another name: {table.shown}.",
    )


def _taken_over(case: Case, table: Relation, column: Column) -> Iterator[Weakness]:
    names = {"table": table.identifier, "column": COLUMN}
    shown = f"the column {TENANT} of {table.shown}"
    if column.type != "uuid" and not any(parent in case.tenants for parent in table.parents):  # it follows them
        reason = f"{shown} holds UUIDs as text"
        drop = Step(
            Phase.COLUMNS, sql.SQL("ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT").format(**names), reason
        )
        steps = (drop,) if column.default is not None else ()
        yield Weakness(
            "table.column", reason, "Plan and apply.", (*steps, Step(Phase.COLUMNS, _TYPE.format(**names), reason))
        )
    if not column.not_null:
        yield _nullable(case, table, column, shown)
    if column.default != DEFAULT:
        reason = f"{shown} is not the current tenant by itself"
        step = Step(Phase.COLUMNS, _DEFAULT.format(default=CURRENT, **names), reason)
        yield Weakness("table.column", reason, "Plan and apply.", (step,))


def _nullable(case: Case, table: Relation, column: Column, shown: str) -> Weakness:
    names = {"table": table.identifier, "column": COLUMN}
    what = f"{shown} may be empty"
    if column.nulls and case.adopt is None:
        return Weakness("table.column", what, f"Fill it, or name the tenant that such rows of {table.shown} belong to.")
    fill = Step(Phase.COLUMNS, _FILL.format(tenant=case.adopt, **names), "rows without a tenant are the named one's")
    keep = sql.SQL("ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL").format(**names)
    steps = (*((fill,) if column.nulls else ()), Step(Phase.COLUMNS, keep, what))
    return Weakness("table.column", what, "Plan and apply.", steps)


# --- policies -----------------------------------------------------------------------------------------------------


def _policies(table: Relation) -> Iterator[Weakness]:
    if not table.row_security:
        statement = sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(table.identifier)
        what = f"row-level security is off for {table.shown}"
        yield _mended("table.row_security", what, statement)
    if not table.forced:
        statement = FORCE.format(table.identifier)
        what = f"row-level security does not hold for the owner of {table.shown}, nor in its owner's functions"
        yield _mended("table.forced", what, statement)
    for name, permissive in ((BASE, True), (GUARD, False)):
        yield from _policy(table, name, permissive)


def _mended(name: str, what: str, *statements: Statement, phase: Phase = Phase.POLICIES) -> Weakness:
    return Weakness(name, what, "Plan and apply.", tuple(Step(phase, statement, what) for statement in statements))


def _policy(table: Relation, name: str, permissive: bool) -> Iterator[Weakness]:
    if any(
        (policy.permissive, policy.command, policy.everybody, policy.using) == (permissive, "*", True, MATCHES)
        and policy.check in (None, MATCHES)
        for policy in table.policies
    ):
        return
    statements: list[Statement] = []
    names = {"name": sql.Identifier(name), "table": table.identifier}
    if any(policy.name == name for policy in table.policies):
        statements.append(sql.SQL("DROP POLICY {name} ON {table}").format(**names))
    matches = sql.SQL("({} = {})").format(COLUMN, CURRENT)
    form = "CREATE POLICY {name} ON {table} AS {kind} FOR ALL TO PUBLIC USING {matches} WITH CHECK {matches}"
    kind = sql.SQL("PERMISSIVE" if permissive else "RESTRICTIVE")
    statements.append(sql.SQL(form).format(kind=kind, matches=matches, **names))
    if permissive:
        what = f"no policy opens the rows of {table.shown} to their own tenant"
        reason = Weakness("table.policy", what, "Plan and apply.", grave=False)
    else:
        what = f"no restrictive policy keeps every command on {table.shown} to the tenant of {SETTING}"
        reason = Weakness("table.policy", what, "Plan and apply.")
    steps = tuple(Step(Phase.POLICIES, statement, what) for statement in statements)
    yield Weakness(reason.name, what, reason.remedy, steps, reason.grave)


# --- keys ---------------------------------------------------------------------------------------------------------


def own_key(case: Case, table: Relation, key: Constraint) -> Iterator[Weakness]:
    """A key over all tenants tells one of them what another holds, and lets foreign keys lead there."""
    if key.inherited or _names_tenant(key):
        return
    name = {"p": "table.key", "u": "table.unique", "x": "table.exclusion"}[key.kind]
    what = f"{key.name} of {table.shown} holds over all tenants: a collision tells what another one has"
    refused = _unbuildable(case, key)
    if refused:
        yield Weakness(name, what, refused)
        return
    names = {"table": table.identifier, "name": sql.Identifier(key.name)}
    head, _, tail = key.definition.partition("(")
    tenant = sql.SQL("{} WITH =").format(COLUMN) if key.kind == "x" else COLUMN
    again = sql.SQL("ALTER TABLE {table} ADD CONSTRAINT {name} {head}({tenant}, {tail}").format(
        head=sql.SQL(head), tenant=tenant, tail=sql.SQL(tail), **names
    )
    reason = f"{key.name} of {table.shown} holds within a tenant"
    yield Weakness(
        name,
        what,
        "Plan and apply.",
        (
            *_extension(case, key),
            Step(Phase.KEYS_OFF, sql.SQL("ALTER TABLE {table} DROP CONSTRAINT {name}").format(**names), what),
            Step(Phase.KEYS, again, reason),
            *_marks(case, table, key.name),
        ),
    )


def _names_tenant(key: Constraint) -> bool:
    """Whether rows of two tenants can never collide in it."""
    if key.kind == "x":
        return TENANT in key.columns and f"{TENANT} WITH =" in key.definition.replace("(", ", ").split(", ")
    return TENANT in key.columns


def _unbuildable(case: Case, key: Constraint) -> str | None:
    """Why a key cannot be made anew with the tenant in it: what to do instead."""
    if key.dependents:
        users = ", ".join(key.dependents)
        return f"{users} groups by this key alone: name each column in its GROUP BY, or drop it first."
    if key.method not in ("btree", "gist"):
        return f"An index of the kind {key.method} takes no tenant beside: use gist."
    if key.method == "gist" and case.found.gist is None:
        return "It needs the extension btree_gist, which this server does not have: install its contributed modules."
    return None


def _extension(case: Case, key: Constraint) -> tuple[Step, ...]:
    if key.method != "gist" or case.found.gist:
        return ()
    open_ones = [schema.name for schema in case.found.schemas if not schema.system]
    schema = "public" if "public" in open_ones else open_ones[0]
    statement = sql.SQL("CREATE EXTENSION IF NOT EXISTS btree_gist SCHEMA {}").format(sql.Identifier(schema))
    return (Step(Phase.COLUMNS, statement, "without it an index of the kind gist takes no UUID"),)


def _marks(case: Case, table: Relation, name: str) -> Iterator[Step]:
    """What an index was to its table besides, and is again."""
    for index in case.found.indexes:
        if (index.table, index.name) != (table.oid, name):
            continue
        names = {"table": table.identifier, "name": sql.Identifier(name)}
        if index.identity:
            statement = sql.SQL("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {name}").format(**names)
            yield Step(Phase.KEYS, statement, f"rows of {table.shown} are replicated by it, as before")
        if index.clustered:
            statement = sql.SQL("ALTER TABLE {table} CLUSTER ON {name}").format(**names)
            yield Step(Phase.KEYS, statement, f"rows of {table.shown} are clustered by it, as before")


def _indexes(case: Case, table: Relation) -> Iterator[Weakness]:
    """Unique indexes tell as constraints do; plain ones serve no tenant unless they begin with it."""
    leads = any(parent in case.tenants for parent in table.parents) and table.partition
    for index in (one for one in case.found.indexes if one.table == table.oid):
        leads = leads or index.keys[0] == TENANT or (index.method == "btree" and TENANT not in index.keys)
        if not (index.constraint or index.inherited or TENANT in index.keys) and (
            index.unique or index.method == "btree"
        ):
            yield _index(case, table, index)
    if not leads:
        what = f"no index of {table.shown} begins with {TENANT}"
        statement = sql.SQL("CREATE INDEX ON {} ({})").format(table.identifier, COLUMN)
        yield Weakness("table.index", what, "Plan and apply.", (Step(Phase.KEYS, statement, what),), grave=False)


def _index(case: Case, table: Relation, index: Index) -> Weakness:
    if index.unique:
        name, what = "table.unique", f"{index.name} of {table.shown} is unique over all tenants, which tells of others"
    else:
        name, what = "table.index", f"{index.name} of {table.shown} finds rows of all tenants before those of one"
    if not index.tail or index.method != "btree":
        return Weakness(name, what, f"Make {index.name} anew, with {TENANT} as its first column.")
    drop = sql.SQL("DROP INDEX {}").format(sql.Identifier(index.schema, index.name))
    again = sql.SQL("{}{}, {}").format(sql.SQL(index.head), COLUMN, sql.SQL(index.tail))
    steps = (
        Step(Phase.KEYS_OFF, drop, what),
        Step(Phase.KEYS, again, f"{index.name} of {table.shown} begins with the tenant"),
        *_marks(case, table, index.name),
    )
    return Weakness(name, what, "Plan and apply.", steps, grave=index.unique)


# --- foreign keys -------------------------------------------------------------------------------------------------


def own_reference(case: Case, key: Constraint) -> Iterator[Weakness]:
    """The server checks foreign keys past every policy: only the tenant within them keeps them at home."""
    source, target = case.found.relations.get(key.table), case.found.relations.get(key.target)
    if key.inherited or source is None or key.target not in case.tenants:
        return
    assert target is not None, "what belongs to tenants was found"
    what = f"{key.name} of {source.shown} may lead to another tenant's row of {target.shown}"
    if source.oid not in case.tenants:
        remedy = f"Rows that all share cannot refer to one tenant's: declare {target.shown} as shared, or drop the key."
        yield Weakness("table.foreign_key", what, remedy)
    elif (TENANT, TENANT) not in zip(key.columns, key.target_columns, strict=True):
        yield _rebuilt(key, source, target, what)


def _rebuilt(key: Constraint, source: Relation, target: Relation, what: str) -> Weakness:
    name = "table.foreign_key"
    if TENANT in (*key.columns, *key.target_columns):
        remedy = f"It uses {TENANT} for something else: declare {target.shown} as shared, or rename the column."
        return Weakness(name, what, remedy)
    if key.on_update in SETS:
        remedy = f"ON UPDATE {ACTIONS[key.on_update]} would change the tenant too: use CASCADE or NO ACTION."
        return Weakness(name, what, remedy)
    names = {"table": source.identifier, "name": sql.Identifier(key.name)}
    drop = sql.SQL("ALTER TABLE {table} DROP CONSTRAINT {name}").format(**names)
    add = sql.SQL("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}").format(
        definition=_definition(key, target), **names
    )
    reason = f"{key.name} of {source.shown} stays within a tenant"
    steps = [Step(Phase.REFERENCES_OFF, drop, what), *_unhidden(source, target), Step(Phase.REFERENCES, add, reason)]
    if key.match == "f" and len(key.columns) > 1:
        whole = sql.SQL("ALTER TABLE {} ADD CHECK (num_nulls({}) IN (0, {}))").format(
            source.identifier, columns(key.columns), len(key.columns)
        )
        reason = f"{key.name} was MATCH FULL, which the tenant within it rules out: all of its columns are set, or none"
        steps.append(Step(Phase.REFERENCES, whole, reason))
    return Weakness(name, what, "Plan and apply.", tuple(steps))


def _unhidden(source: Relation, target: Relation) -> Iterator[Step]:
    """The server checks a new foreign key against the rows that the owner sees: with policies forced, none."""
    for table in (source, target) if source.forced else ():
        reason = f"the rows of {table.shown} that are there are checked, too"
        yield Step(Phase.KEYS, LIFT.format(table.identifier), reason)
        yield Step(Phase.POLICIES, FORCE.format(table.identifier), reason)


def _definition(key: Constraint, target: Relation) -> Text:
    parts: list[Text] = [
        sql.SQL("FOREIGN KEY ({}, {})").format(COLUMN, _referring(key, key.columns)),
        sql.SQL("REFERENCES {} ({}, {})").format(target.identifier, COLUMN, _referring(key, key.target_columns)),
        sql.SQL(f"ON UPDATE {ACTIONS[key.on_update]} ON DELETE {ACTIONS[key.on_delete]}"),
    ]
    if key.on_delete in SETS:
        parts.append(sql.SQL("({})").format(columns(key.set_columns or key.columns)))
    parts += [
        sql.SQL(words)
        for words, said in (
            ("DEFERRABLE", key.deferrable),
            ("INITIALLY DEFERRED", key.deferred),
            ("NOT ENFORCED", not key.enforced),
            ("NOT VALID", key.enforced and not key.validated),
        )
        if said
    ]
    return sql.SQL(" ").join(parts)


def _referring(key: Constraint, names: tuple[str, ...]) -> Text:
    if not key.period:
        return columns(names)
    return sql.SQL(", ").join(
        [*map(sql.Identifier, names[:-1]), sql.SQL("PERIOD {}").format(sql.Identifier(names[-1]))]
    )

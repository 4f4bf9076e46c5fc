"""Makes an ordinary PostgreSQL schema one that tenants can share, by row-level security: a plan first, then its steps.

    found = inspect(connection)
    made = plan(found, shared={"countries"}, role="app")
    print(made.text())
    apply(connection, made)

`docs/explanation/shared-tables.md` tells what the steps are for. A plan is made anew after each migration: of a schema
that is safe it is empty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final
from uuid import UUID

import psycopg

from tenantry.errors import RowsUnsafe
from tenantry.resources.rows_inspect import SETTING, TENANT, Anything, Found, inspect
from tenantry.resources.rows_plan_access import access
from tenantry.resources.rows_plan_case import TITLES, Case, Step, Weakness
from tenantry.resources.rows_plan_tables import tables

__all__ = ["SETTING", "TENANT", "Anything", "Found", "Plan", "Weakness", "apply", "inspect", "plan", "weaknesses"]

SHOWN: Final = 5
"""How many weaknesses an error names."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done before tenants can share the tables of a database, and what stands against it."""

    database: str
    role: str
    shared: frozenset[str]
    steps: tuple[Step, ...]
    refusals: tuple[Weakness, ...]  # what no step can mend; `apply` refuses while there are any

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.steps or self.refusals)

    def text(self) -> str:
        """The plan as a script, each statement after its reason; what stands against it comes first, as comments."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if not self:
            yield f"-- Nothing to do: tenants can share the tables of {self.database}."
        for refusal in self.refusals:
            yield _comment(f"REFUSED: {refusal.what}. {refusal.remedy}")
        for phase, steps in groupby(self.steps, lambda step: step.phase):
            yield f"\n-- {TITLES[phase]}"
            for reason, same in groupby(steps, lambda step: step.reason):
                yield _comment(reason)
                yield from (f"{step.statement.as_string(None)};" for step in same)


def _comment(text: str) -> str:
    """A comment stays one, whatever a name in it holds."""
    return "-- " + " ".join(text.split())


def plan(found: Found, shared: Collection[str], role: str, adopt: UUID | str | None = None) -> Plan:
    """What makes a database safe for tenants to share, who all enter by one role.

    `shared` names the tables that all tenants read and none writes, with their schema where that is not `public`;
    partitions go with their table. Every other table belongs to tenants. `adopt` is the tenant that rows in tables
    without the column belong to; where it is not given, such tables are refused.
    """
    case = Case(found, frozenset(shared), role, str(UUID(str(adopt))) if adopt else None)
    everything = list(_judged(case))
    steps = {step.statement.as_string(None): step for one in everything for step in one.steps}
    return Plan(
        found.database,
        role,
        case.shared,
        tuple(sorted(steps.values(), key=lambda step: step.phase)),
        tuple(one for one in everything if not one.steps and one.grave),
    )


def _judged(case: Case) -> Iterator[Weakness]:
    yield from tables(case)
    yield from access(case)


def weaknesses(connection: Anything, role: str, shared: Collection[str]) -> list[Weakness]:
    """Everything that weakens the isolation of tenants in this database now; none: they can share it.

    Any role may ask, the application's own too. `shared` as in `plan`. It says nothing of what only costs time, or of
    privileges that the application lacks: those stand in a plan alone.
    """
    return [one for one in _judged(Case(inspect(connection), frozenset(shared), role)) if one.grave]


def apply(connection: Anything, plan: Plan) -> None:
    """Do all steps of a plan in one transaction, or within the one that is open, and see that nothing is weak then.

    Needs the tables' owner. Raises `RowsUnsafe`, with nothing done, where the plan was refused, where the server
    refuses a step, and where a weakness remains.
    """
    _refuse(plan, plan.refusals)
    with connection.transaction():
        (before,) = connection.execute("SELECT current_setting('search_path')").fetchone() or ("",)
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a table with checks to come cannot be altered
        connection.execute("SET LOCAL search_path TO pg_catalog")  # in definitions every other name is qualified
        for step in plan.steps:
            _do(connection, plan, step)
        connection.execute("SELECT set_config('search_path', %s, true)", (before,))
        _refuse(plan, weaknesses(connection, plan.role, plan.shared))


def _do(connection: Anything, plan: Plan, step: Step) -> None:
    try:
        connection.execute(step.statement)
    except psycopg.Error as error:
        reason = f"{str(error).strip().splitlines()[0]} (when {step.reason})"
        raise RowsUnsafe(database=plan.database, reason=reason) from error


def _refuse(plan: Plan, found: Collection[Weakness]) -> None:
    if found:
        named = [f"{one.what}. {one.remedy}" for one in list(found)[:SHOWN]]
        more = [f"And {len(found) - SHOWN} more."] if len(found) > SHOWN else []
        raise RowsUnsafe(database=plan.database, reason=" ".join([*named, *more]))

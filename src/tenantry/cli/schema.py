"""`tenantry schema`: what an ordinary PostgreSQL schema needs before tenants can share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from cyclopts import App, Parameter

from tenantry.cli.options import COMMON, Common

if TYPE_CHECKING:
    from tenantry.resources.rows_plan import Anything, Weakness

app = App(name="schema", help="What a PostgreSQL schema needs before tenants can share its tables.")

Url = Annotated[str, Parameter(help="Address of the database; the password stands in PGPASSWORD or a password file.")]
Role = Annotated[str, Parameter(help="By which applications enter.")]
Shared = Annotated[tuple[str, ...], Parameter(negative=(), help="A table that all tenants read; again for more.")]

Adopt = Annotated[UUID | None, Parameter(help="Id of the tenant that the rows which are there belong to.")]


@app.command
def plan(url: Url, *, role: Role, shared: Shared = (), adopt: Adopt = None, common: Common = COMMON) -> int:
    """Print what makes it safe, as a script with reasons; nothing is changed."""
    from tenantry.resources import rows_plan

    with _connected(url) as connection:
        made = rows_plan.plan(rows_plan.inspect(connection), shared, role, adopt)
    if common.json:
        steps = [{"statement": step.statement.as_string(None), "reason": step.reason} for step in made.steps]
        common.out.data({"steps": steps, "refused": [_shown(one) for one in made.refusals]})
    else:
        common.out.line(made.text())
    return 3 if made.refusals else 0


@app.command
def check(url: Url, *, role: Role, shared: Shared = (), common: Common = COMMON) -> int:
    """Name everything that weakens the isolation of tenants in it now, each with its remedy."""
    from tenantry.resources import rows_plan

    with _connected(url) as connection:
        found = rows_plan.weaknesses(connection, role, shared)
    common.out.table(["name", "what", "remedy"], [_shown(one) for one in found], "Nothing: tenants can share it.")
    return 3 if found else 0


def _shown(weakness: Weakness) -> dict[str, str]:
    return {"name": weakness.name, "what": weakness.what, "remedy": weakness.remedy}


@contextmanager
def _connected(url: str) -> Iterator[Anything]:
    import psycopg

    from tenantry.errors import ServerUnavailable

    try:
        connection = psycopg.connect(url, connect_timeout=5)
    except psycopg.Error as error:
        reason = " ".join(str(error).split()) or "it does not answer"
        remedy = "Check the address, such as postgresql://owner@host/database, and the password in PGPASSWORD."
        raise ServerUnavailable(server=url.rpartition("@")[2], reason=reason, remedy=remedy) from error
    with connection:
        yield connection

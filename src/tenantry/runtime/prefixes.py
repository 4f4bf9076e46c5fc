"""Tables with a prefix: whose an application's statements are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlalchemy import Engine

PLACEHOLDER: Final = "{prefix}"
"""What stands for the prefix of the current tenant in statements and in the names of models' tables."""


def put_in(engine: Engine, prefix: str) -> None:
    """Write a tenant's prefix wherever a statement on its engine has the placeholder; without one it stays as it is."""
    from sqlalchemy import event

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def write(_: Any, __: Any, statement: str, values: Any, *___: Any) -> tuple[str, Any]:
        return statement.replace(PLACEHOLDER, prefix), values

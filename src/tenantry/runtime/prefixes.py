"""Tables with a prefix: whose an application's statements are about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlalchemy import Engine

PLACEHOLDER: Final = "{prefix}"
"""What stands for the prefix of the current tenant in statements and in the names of models' tables."""


_PLACES: Final = re.compile(r"%\([^)]*\)s|\{prefix\}")
"""The placeholder, but not in the name of a parameter, which SQLAlchemy may make of a table's name."""


def put_in(engine: Engine, prefix: str) -> None:
    """Write a tenant's prefix wherever a statement on its engine has the placeholder; without one it stays as it is."""
    from sqlalchemy import event

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def write(_: Any, __: Any, statement: str, values: Any, *___: Any) -> tuple[str, Any]:
        if PLACEHOLDER not in statement:
            return statement, values
        return _PLACES.sub(lambda found: prefix if found[0] == PLACEHOLDER else found[0], statement), values

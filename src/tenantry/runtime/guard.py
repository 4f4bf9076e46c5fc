"""Keeps the connections of one tenant from being used while another one is the current tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tenantry.context import _current
from tenantry.errors import ForeignTenant, NoTenant
from tenantry.model import Environment

if TYPE_CHECKING:
    from sqlalchemy import Engine


def guard(engine: Engine, whose: Callable[[], Environment]) -> None:
    """Refuse every statement outside the context of the environment that an engine works for."""
    from sqlalchemy import event

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def same_tenant(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
        now = _current.get()
        environment = whose()
        if now is None:
            raise NoTenant
        if now.id != environment.id:
            raise ForeignTenant(owner=environment.tenant.slug, current=now.tenant.slug)
        return statement, parameters

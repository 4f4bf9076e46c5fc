"""The current tenant, and who acts. What needs a tenant raises `NoTenant` where none is set: there is no default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tenantry.errors import NoTenant
from tenantry.model import Environment, SupportAccess, Tenant
from tenantry.refusals import SupportReadOnly

_current: ContextVar[Environment | None] = ContextVar("tenantry_current", default=None)
_reading: ContextVar[bool] = ContextVar("tenantry_reading", default=False)
_support: ContextVar[tuple[str, SupportAccess] | None] = ContextVar("tenantry_support", default=None)
_actor: ContextVar[str | None] = ContextVar("tenantry_actor", default=None)


def current_environment() -> Environment:
    """The environment this request, job or block works for. Raises `NoTenant` where none is set."""
    environment = _current.get()
    if environment is None:
        raise NoTenant
    return environment


def current_tenant() -> Tenant:
    """The tenant this request, job or block works for. Raises `NoTenant` where none is set."""
    return current_environment().tenant


@contextmanager
def tenant_context(environment: Environment) -> Iterator[Environment]:
    """Work for one environment inside this block; blocks nest, and each restores what was before it."""
    token = _current.set(environment)
    try:
        yield environment
    finally:
        _current.reset(token)


def support_access() -> SupportAccess | None:
    """Who of the platform looks into the current tenant by this request; None where it is one of the tenant's own."""
    found, environment = _support.get(), _current.get()
    return found[1] if found and environment and found[0] == environment.tenant.id else None


@contextmanager
def support_context(environment: Environment, access: SupportAccess | None) -> Iterator[None]:
    """Work inside this block for somebody of the platform who looks into a tenant; None: for one of its own."""
    token = _support.set((environment.tenant.id, access) if access else None)
    try:
        yield
    finally:
        _support.reset(token)


@contextmanager
def reading() -> Iterator[None]:
    """Change nothing of the tenant's inside this block: its databases and files refuse it."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


def is_reading() -> bool:
    """Whether nothing of the tenant's may be changed here: by `reading`, or by support that looks only."""
    if _reading.get():
        return True
    access = support_access()
    return access is not None and not access.writes


def refuse_read_only() -> None:
    """Raise `SupportReadOnly` where nothing of the tenant's may be changed."""
    if is_reading():
        raise SupportReadOnly


@contextmanager
def without_tenant() -> Iterator[None]:
    """Work for no tenant inside this block, where everything that needs one raises `NoTenant`."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def current_actor() -> str | None:
    """Whom the audit log names for what is done here; None where nobody else than the process's own user acts."""
    return _actor.get()


@contextmanager
def acting(actor: str) -> Iterator[None]:
    """Let the audit log name somebody for what is done inside this block."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)

"""Which right each verb takes. A verb says it where it is defined, and asks before it does anything."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from tenantry import tracing
from tenantry.errors import OperationNotFound, TenantNotFound, UnknownHost
from tenantry.identity.principal import SCOPES, Principal, current_principal
from tenantry.model import normalise_host
from tenantry.refusals import Forbidden
from tenantry.registry import Registry, Transaction, journal, people, tenants

P = ParamSpec("P")
T = TypeVar("T")


class Reach(StrEnum):
    """What a right is a right to."""

    TENANT = "tenant"  # the one that the argument `slug` names
    OPERATION = "operation"  # the one that the argument `operation_id` names
    HOSTNAME = "hostname"  # the one that the argument `host` names
    LIST = "list"  # as many as the person may see: the verb itself leaves out the others
    OWN = "own"  # the person's own things: the verb itself looks whose they are
    PLATFORM = "platform"  # what all tenants share

    @property
    def argument(self) -> str | None:
        """The argument that names what is reached, where it is one thing of somebody's."""
        return _ARGUMENTS.get(self)


_ARGUMENTS: Final = {Reach.TENANT: "slug", Reach.OPERATION: "operation_id", Reach.HOSTNAME: "host"}


@dataclass(frozen=True, slots=True)
class Right:
    """What a verb takes."""

    verb: str  # "tenant.suspend", as operations, audit entries, addresses and commands say it
    scope: str  # that a token needs
    reach: Reach
    call: Callable[..., Any]  # the method, guarded
    check: Callable[..., Awaitable[None]]  # the guard alone, for the same arguments


RIGHTS: Final[dict[str, Right]] = {}
"""Every verb that an API or a page can call."""


class Guarded(Protocol):
    """Whose methods are verbs."""

    _registry: Registry


def verb(name: str, scope: str, reach: Reach) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a method a verb: whoever asks for it must have the right to it.

    Where nobody asks (see `current_principal`) the process acts for itself, and everything is allowed.
    """
    assert scope in SCOPES, scope

    def guard(method: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(method)
        at_slug = list(signature.parameters)[1:2] == ["slug"]

        async def check(*given: Any, **named: Any) -> None:
            principal = current_principal()
            if principal is not None:
                bound = signature.bind(*given, **named).arguments
                await allow(principal, right, bound["self"]._registry, bound)

        if inspect.isasyncgenfunction(method):

            @functools.wraps(method)
            async def called(*given: Any, **named: Any) -> AsyncIterator[Any]:
                await check(*given, **named)
                async for one in method(*given, **named):
                    yield one

        else:

            @functools.wraps(method)
            async def called(*given: Any, **named: Any) -> Any:
                with tracing.span(name) as note:
                    tenant = named.get("slug", given[1] if at_slug and len(given) > 1 else None)
                    note("tenantry.tenant", tenant)
                    await check(*given, **named)
                    result = await cast("Awaitable[Any]", method(*given, **named))
                    if isinstance(result, journal.Operation):
                        note("tenantry.operation", result.id)
                    return result

        right = RIGHTS[name] = Right(name, scope, reach, called, check)
        return called  # type: ignore[return-value]

    return guard


async def allow(principal: Principal, right: Right, registry: Registry, named: Mapping[str, Any]) -> None:
    """Raise `Forbidden`; or, for what is another admin's, the error of what does not exist.

    `named` holds the arguments of the verb, of which one names what is reached.
    """
    if principal.scopes is not None and right.scope not in principal.scopes:
        raise Forbidden(
            who=f"The token '{principal.token}'",
            verb=right.verb,
            wanted=f"the scope {right.scope}",
            remedy="Make a token that has it.",
        )
    if principal.is_superadmin:
        return
    if right.reach is Reach.PLATFORM:
        raise Forbidden(who=principal.mail, verb=right.verb, wanted="a superadmin")
    if right.reach.argument is not None:
        async with registry.read() as tx:
            await _OWN[right.reach](tx, principal, str(named[right.reach.argument]))


async def _own_tenant(tx: Transaction, principal: Principal, slug: str) -> None:
    if not await people.manages(tx, principal.admin_id, slug):
        raise TenantNotFound(slug=slug)


async def _own_operation(tx: Transaction, principal: Principal, operation_id: str) -> None:
    operation = await journal.get(tx, operation_id)
    if await people.manages_id(tx, principal.admin_id, operation.tenant_id):
        return
    # Whoever removes a tenant follows that to its end, and later; what was unassigned meanwhile is no longer hers.
    gone = operation.tenant_id is not None and not await tenants.exists(tx, operation.tenant_id)
    if not gone or operation.actor != principal.actor:
        raise OperationNotFound(operation=operation_id)


async def _own_hostname(tx: Transaction, principal: Principal, host: str) -> None:
    name = normalise_host(host)
    if not await people.manages_host(tx, principal.admin_id, name):
        raise UnknownHost(host=name)


_OWN: Final = {Reach.TENANT: _own_tenant, Reach.OPERATION: _own_operation, Reach.HOSTNAME: _own_hostname}

"""Which right each verb takes. A verb says it where it is defined, and asks before it does anything."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from tenantry.errors import OperationNotFound, TenantNotFound
from tenantry.identity.principal import SCOPES, Principal, current_principal
from tenantry.refusals import Forbidden
from tenantry.registry import Registry, journal, people

P = ParamSpec("P")
T = TypeVar("T")


class Reach(StrEnum):
    """What a right is a right to."""

    TENANT = "tenant"  # the one that the argument `slug` names
    OPERATION = "operation"  # the one that the argument `operation_id` names
    LIST = "list"  # as many as the person may see: the verb itself leaves out the others
    OWN = "own"  # the person's own things: the verb itself looks whose they are
    PLATFORM = "platform"  # what all tenants share


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

        async def check(*given: Any, **named: Any) -> None:
            principal = current_principal()
            if principal is not None:
                bound = signature.bind(*given, **named).arguments
                await _allow(principal, right, bound["self"]._registry, bound)

        if inspect.isasyncgenfunction(method):

            @functools.wraps(method)
            async def called(*given: Any, **named: Any) -> AsyncIterator[Any]:
                await check(*given, **named)
                async for one in method(*given, **named):
                    yield one

        else:

            @functools.wraps(method)
            async def called(*given: Any, **named: Any) -> Any:
                await check(*given, **named)
                return await cast("Awaitable[Any]", method(*given, **named))

        right = RIGHTS[name] = Right(name, scope, reach, called, check)
        return called  # type: ignore[return-value]

    return guard


async def _allow(principal: Principal, right: Right, registry: Registry, bound: dict[str, Any]) -> None:
    """Raise `Forbidden`; or, for what is another admin's, the error of what does not exist."""
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
    if right.reach is Reach.TENANT:
        await _own_tenant(principal, registry, bound["slug"])
    elif right.reach is Reach.OPERATION:
        await _own_operation(principal, registry, bound["operation_id"])


async def _own_tenant(principal: Principal, registry: Registry, slug: str) -> None:
    async with registry.read() as tx:
        if not await people.manages(tx, principal.admin_id, slug):
            raise TenantNotFound(slug=slug)


async def _own_operation(principal: Principal, registry: Registry, operation_id: str) -> None:
    async with registry.read() as tx:
        operation = await journal.get(tx, operation_id)
        own = operation.actor == principal.actor  # which also outlives the tenant it removes
        if not own and not await people.manages_id(tx, principal.admin_id, operation.tenant_id):
            raise OperationNotFound(operation=operation_id)

"""An endpoint for each route: made of the verb's own signature, so that what the API takes is what the verb takes."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import Body, Depends, FastAPI, Path, Query, Request
from pydantic import Field

from tenantry.errors import TenantNotFound
from tenantry.identity import Principal, acting_as
from tenantry.platform import Platform
from tenantry.registry import tenants
from tenantry.web.api import wire
from tenantry.web.api.access import bearer
from tenantry.web.api.guard import Guarded
from tenantry.web.api.once import once
from tenantry.web.api.problems import problems_of
from tenantry.web.api.routes import Route
from tenantry.web.api.shapes import shape
from tenantry.web.doors import Says, says
from tenantry.web.house import opened

LONGEST: Final = 10_000
"""Characters of one text, and entries of one list, that are taken."""

LONGEST_QUERIED: Final = 300
"""Characters of one text in an address: a server takes no longer ones."""

LONGEST_LISTED: Final = 300
"""Characters of one entry of a list."""

LONGEST_LIST: Final = 4_000_000
"""Characters of a list of tenants, as a CSV file has it."""

PAGE: Final = 1_000
"""The most entries of one page."""

PLATFORM: Final = "platform"


def add(app: FastAPI, route: Route, below: str = "/api", name: str | None = None) -> None:
    """Let the application answer at this route's address."""
    right = route.right
    endpoint = says(Says((route.verb,), route.status))(_endpoint(route))
    noun, _, action = right.verb.partition(".")
    app.router.add_api_route(
        f"{below}{route.path}",
        endpoint,
        methods=[route.method],
        status_code=route.status,
        response_model=None if route.status == 204 else wire.answer(right.call),
        operation_id=name or right.verb.replace(".", "_"),
        summary=f"{noun.title()}: {action.replace('_', ' ')}",
        description=_described(route),
        tags=[noun],
        responses=problems_of(body="body" in inspect.signature(endpoint).parameters),
        route_class_override=Guarded,
    )


def _described(route: Route) -> str:
    right = route.right
    text = inspect.getdoc(right.call) or ""
    return f"{text}\n\nTakes the scope `{right.scope}`; reaches: {right.reach.value}."


def _endpoint(route: Route) -> Callable[..., Awaitable[Any]]:
    """A function whose signature is the verb's, with its arguments in the path, the query or the body."""
    call, verb = route.right.call, route.verb
    hints = typing.get_type_hints(call)
    given = [p for p in inspect.signature(call).parameters.values() if p.name != "self"]
    inner = {p.name for p in given if "{" + p.name + "}" in route.path}
    outer = [p for p in given if p.name not in inner]
    by_query = route.method in ("GET", "DELETE")

    async def endpoint(request: Request, principal: Principal, body: Any = None, **arguments: Any) -> Any:
        values = arguments if body is None else {**arguments, **{n: getattr(body, n) for n in body.model_fields_set}}
        with acting_as(principal):
            doer = _doer((await opened(request)).platform, call)

            async def work() -> Any:
                return await call(doer, **values)

            async def check() -> None:
                try:
                    await route.right.check(doer, **values)
                except TenantNotFound:  # what it did may be just that
                    async with doer._registry.read() as tx:
                        if (await tenants.taken(tx, [values["slug"]])).get(values["slug"]) == tenants.TAKEN:
                            raise

            return await once(request, route, principal, work, check)

    parameters = [_parameter("request", Request), _parameter("principal", Annotated[Principal, Depends(bearer)])]
    parameters += [_parameter(name, _in_path(verb, name)) for name in sorted(inner)]
    if by_query:
        parameters += [_parameter(p.name, _queried(verb, p.name, hints[p.name]), p.default) for p in outer]
    elif outer:
        fields = {p.name: (_bounded(verb, p.name, hints[p.name]), _default(p.default)) for p in outer}
        body = wire.request("".join(map(str.title, verb.replace("_", ".").split("."))), fields)
        needed = any(p.default is p.empty for p in outer)
        parameters.append(_parameter("body", Annotated[body, Body()], inspect.Parameter.empty if needed else body()))
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__name__ = verb.replace(".", "_")
    return endpoint


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _default(value: Any) -> Any:
    """A verb's default as a model's: ... where there is none, a list in place of a tuple."""
    if value is inspect.Parameter.empty:
        return ...
    return list(value) if isinstance(value, tuple) else value


def _in_path(verb: str, name: str) -> Any:
    return Annotated[str, Path(min_length=1, max_length=LONGEST_QUERIED, json_schema_extra=shape(verb, name))]


def _queried(verb: str, name: str, hint: Any) -> Any:
    if name == "limit":
        return Annotated[int, Query(ge=1, le=PAGE)]
    return Annotated[_bounded(verb, name, hint, LONGEST_QUERIED), Query()]


def _bounded(verb: str, name: str, hint: Any, longest: int = LONGEST) -> Any:
    """A type with the longest text and list that is taken; numbers within what every database can hold."""
    arguments = typing.get_args(hint)
    if hint is str:
        most = LONGEST_LIST if name == "text" else longest
        return Annotated[str, Field(max_length=most, json_schema_extra=shape(verb, name))]
    if hint is int:
        return Annotated[int, Field(ge=-(2**31), lt=2**31)]
    if type(None) in arguments:
        (inner,) = [one for one in arguments if one is not type(None)]
        return _bounded(verb, name, inner, longest) | None
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        values = dict[str, str | bool | int | float]
        return Annotated[values, Field(max_length=LONGEST, json_schema_extra=shape(verb, name))]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        inner = _bounded(verb, name, arguments[0], LONGEST_LISTED)
        return Annotated[list[inner], Field(max_length=LONGEST)]  # type: ignore[valid-type]
    return hint


def _doer(platform: Platform, call: Callable[..., Any]) -> Any:
    """The part of the platform whose verb this is."""
    owner = call.__qualname__.partition(".")[0]
    if owner == type(platform).__name__:
        return platform
    return next(part for part in vars(platform).values() if owner in {kind.__name__ for kind in type(part).__mro__})

"""A platform elsewhere, driven over its API: the same verbs, with the same arguments, answers and errors."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from pydantic import BaseModel, TypeAdapter

from tenantry import errors
from tenantry.errors import TenantryError
from tenantry.identity import RIGHTS
from tenantry.model import new_id
from tenantry.platform import Platform
from tenantry.platform.operations import OperationDetails
from tenantry.refusals import NotOverTheApi, RemoteUnreachable
from tenantry.web.api import wire
from tenantry.web.api.routes import ROUTES, Route

SECONDS: Final = 60.0
"""How long an answer may take; streams of events may take as long as the operation."""


class RemoteConfig:
    """What is known here of the configuration there."""

    def __init__(self, server: str) -> None:
        self.url = server
        self.portal = f"{server}/admin"


class RemotePlatform:
    """Stands for a `Platform`: `await platform.tenants.suspend("acme")` is a request."""

    def __init__(self, client: httpx.AsyncClient, server: str) -> None:
        self.config = RemoteConfig(server)
        self._client = client

    @classmethod
    @asynccontextmanager
    async def open(cls, server: str, token: str) -> AsyncIterator[RemotePlatform]:
        """The platform at an address such as https://example.com, by a token of it."""
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        server = server.rstrip("/")
        async with httpx.AsyncClient(base_url=f"{server}/api", headers=headers, timeout=SECONDS) as client:
            yield cls(client, server)

    async def status(self) -> Any:
        """The platform at a glance."""
        return await self._call(Platform.status, (), {})

    async def settings(self) -> Any:
        """The settings in force there."""
        return await self._call(Platform.settings, (), {})

    def __getattr__(self, name: str) -> Part:
        kind = PARTS.get(name)
        if kind is None:
            raise AttributeError(name)
        return Part(self, kind)

    async def _call(self, method: Callable[..., Any], given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        route = _route(method)
        values = inspect.signature(method).bind(None, *given, **named).arguments
        values.pop("self")
        path = route.path
        for name in [name for name in values if "{" + name + "}" in path]:
            path = path.replace("{" + name + "}", _quoted(str(values.pop(name))))
        values = {name: value for name, value in values.items() if value is not None}
        by_query = route.method in ("GET", "DELETE")
        body = None if by_query or not values else TypeAdapter(dict[str, Any]).dump_python(values, mode="json")
        query = {name: str(value).lower() if isinstance(value, bool) else value for name, value in values.items()}
        # The key lets a request whose answer was lost be sent again without being carried out twice.
        headers = {} if route.method == "GET" else {"Idempotency-Key": new_id()}
        try:
            answer = await self._client.request(
                route.method, path, params=query if by_query else None, json=body, headers=headers
            )
        except httpx.HTTPError as error:
            raise RemoteUnreachable(server=self.config.url, reason=str(error) or type(error).__name__) from error
        _raise_for(answer.status_code, answer.content, self.config.url)
        return None if route.status == 204 else wire.adapter(route.right.call).validate_json(answer.content)

    async def follow(self, operation_id: str) -> AsyncIterator[Any]:
        """The operation now, then at every change, the last time when it is over."""
        path = f"/operations/{_quoted(operation_id)}/events"
        try:
            async with self._client.stream("GET", path, timeout=httpx.Timeout(SECONDS, read=None)) as answer:
                if answer.status_code != 200:
                    _raise_for(answer.status_code, await answer.aread(), self.config.url)
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        yield _details.validate_json(line[6:])
        except httpx.HTTPError as error:
            raise RemoteUnreachable(server=self.config.url, reason=str(error) or type(error).__name__) from error


class Part:
    """The verbs on one noun of a platform elsewhere."""

    def __init__(self, platform: RemotePlatform, kind: type) -> None:
        self._platform = platform
        self._kind = kind

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self._kind.__name__ == "Operations" and name == "follow":
            return self._platform.follow
        if self._kind.__name__ == "Operations" and name == "finish":
            return self._finish
        method = getattr(self._kind, name)

        async def call(*given: Any, **named: Any) -> Any:
            return await self._platform._call(method, given, named)

        return call

    async def _finish(self, operation_id: str) -> Any:
        """Wait until an operation is over or paused; a worker there carries it out."""
        seen = [details async for details in self._platform.follow(operation_id)]
        return seen[-1]


PARTS: Final[Mapping[str, type]] = inspect.get_annotations(Platform, eval_str=True)
"""The parts of a platform by their names, as `Platform` itself has them."""

_details: Final[TypeAdapter[BaseModel]] = TypeAdapter(wire.model(OperationDetails))


def _route(method: Callable[..., Any]) -> Route:
    for route in ROUTES:
        if RIGHTS[route.verb].call is method:
            return route
    raise NotOverTheApi(verb=method.__qualname__)


def _quoted(text: str) -> str:
    return httpx.URL("/").copy_with(path=f"/{text}").raw_path.decode()[1:].replace("/", "%2F")


def _classes(root: type[TenantryError]) -> Iterator[type[TenantryError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from _classes(kind)


def _raise_for(status: int, content: bytes, server: str) -> None:
    """Raise the error that the platform there raised."""
    if status < 400:
        return
    try:
        problem = json.loads(content)
        code, title, remedy = problem["code"], problem["title"], problem["remedy"]
    except (ValueError, KeyError, TypeError):
        raise RemoteUnreachable(server=server, reason=f"it answers {status}, and not as an API of Tenantry") from None
    known = {kind.code: kind for kind in _classes(errors.TenantryError)}
    raise known.get(code, TenantryError)(title, remedy=remedy)

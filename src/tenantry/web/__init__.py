"""What `tenantry serve` runs: the application behind its tenants, and the platform's own pages at the bare domain."""

from __future__ import annotations

import asyncio
import math
import os
import resource
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import Response

from tenantry.application import connect
from tenantry.config import Config
from tenantry.errors import ConfigError, InvalidHost, RegistryUnavailable, UnknownHost
from tenantry.model import normalise_host
from tenantry.operations.blueprints import read_config
from tenantry.platform import Platform
from tenantry.resources import kinds
from tenantry.runtime import TenantMiddleware, pages
from tenantry.web.patience import Patient

if TYPE_CHECKING:
    from fastapi import FastAPI

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

OWN: Final = ("/api/", "/admin/")
"""How the paths begin that are the platform's own, at its bare domain."""

CONNECTIONS: Final = 65_536
"""Files and connections that a process has open at most."""

GRACE: Final = 3
"""How many times its patience with a client a server that is to end waits for answers under way."""

__all__ = ["build", "serve"]


def serve(
    config: Path | str, *, app: str | None = None, host: str | None = None, port: int | None = None, workers: int = 1
) -> None:
    """Serve until told to stop.

    Raises `ConfigError` when no application is named or it cannot be imported, and `SharedTablesWeak`.
    """
    path = Path(config).resolve()
    os.environ["TENANTRY_CONFIG"] = str(path)
    if app is not None:
        os.environ["TENANTRY_SERVE__APP"] = app
    known = read_config(path)
    settings = known.serve
    app_here = build()  # a fault in the application shows here, in words, before any process is started
    if any(
        kinds()[part.kind].shared for blueprint in known.blueprints.values() for part in blueprint.resources.values()
    ):
        asyncio.run(_refuse_weak(known))
    _open_many()
    uvicorn.run(
        app_here if workers == 1 else "tenantry.web:build",
        factory=workers > 1,
        host=host or settings.host,
        port=settings.port if port is None else port,
        workers=workers,
        proxy_headers=True,
        forwarded_allow_ips=",".join(settings.trusted_proxies),
        http=Patient,
        timeout_keep_alive=settings.patience,  # type: ignore[arg-type]  # a loop takes parts of a second, too
        timeout_graceful_shutdown=math.ceil(GRACE * settings.patience),
        server_header=False,
        access_log=False,
        log_level="warning",
    )


def _open_many() -> None:
    """As many connections as the system allows: a shell allows a thousand where nobody asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, CONNECTIONS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _refuse_weak(config: Config) -> None:
    try:
        async with Platform.open(config) as platform:
            await platform.refuse_weak()
    except RegistryUnavailable:  # requests are served from the snapshot: the first session looks
        return


def build() -> Asgi:
    """The ASGI application of the platform that TENANTRY_CONFIG names."""
    path = Path(os.environ["TENANTRY_CONFIG"])
    config = read_config(path)
    if config.serve.app is None:
        raise ConfigError(
            f"{path}: serve.app names no application.", remedy='Set it to "package.module:name", or pass --app.'
        )
    root = str(config.root)
    if root not in sys.path:
        sys.path.insert(0, root)
    own = Own(config, _imported(config.serve.platform_app) if config.serve.platform_app else _front(config))
    tenants = TenantMiddleware(_imported(config.serve.app), runtime=connect(config), platform_app=own)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await tenants(scope, receive, send)
            return

        async def close_first(message: MutableMapping[str, Any]) -> None:
            if message["type"].startswith("lifespan.shutdown"):  # after it nothing is sure to run
                await own.close()
            await send(message)

        await tenants(scope, receive, close_first)

    return application


def _imported(reference: str) -> Asgi:
    module, _, name = reference.partition(":")
    try:
        application: Asgi = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"serve: '{reference}' cannot be imported ({error}).",
            remedy='Write "package.module:name", importable from the directory of tenantry.toml.',
        ) from error
    return application


def _front(config: Config) -> Asgi:
    """The platform's front page, where the platform brings none."""
    from tenantry.web.front import front

    return front(config)


class Own:
    """The API and the portal, made when somebody first asks for them: who only serves tenants starts without."""

    def __init__(self, config: Config, front: Asgi) -> None:
        self._config = config
        self._front = front
        self._hosts = {_name(config.platform.domain), _name(urlsplit(config.url).netloc)}
        self._making: asyncio.Task[FastAPI] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at the platform's bare domain."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if not f"{path}/".startswith(OWN):
            await self._front(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        if _name(host) not in self._hosts:  # where tenants are told apart by path, any host leads here
            error = UnknownHost(host=host[:200])
            answer = pages.refusal(error, Headers(scope=scope).get("accept", ""))
            await Response(answer.body, answer.status, dict(answer.headers))(scope, receive, send)
            return
        if self._making is None:
            self._making = asyncio.create_task(asyncio.to_thread(_site, self._config))
        site = await asyncio.shield(self._making)
        await site(scope, receive, send)

    async def close(self) -> None:
        """Let go of the platform, if it was opened."""
        if self._making is not None:
            await (await self._making).state.house.close()


def _name(host: str) -> str:
    """A host's one spelling; none for what is no host."""
    try:
        return normalise_host(host)
    except InvalidHost:
        return ""


def _site(config: Config) -> FastAPI:
    from tenantry.web.site import site

    return site(config)

"""What `tenantry serve` runs: the application behind its tenants, and the platform's own pages at the bare domain."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import Any

import uvicorn

from tenantry.application import connect
from tenantry.config import Config
from tenantry.errors import ConfigError, RegistryUnavailable
from tenantry.operations.blueprints import read_config
from tenantry.platform import Platform
from tenantry.resources import kinds
from tenantry.runtime import TenantMiddleware

Asgi = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]

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
    uvicorn.run(
        app_here if workers == 1 else "tenantry.web:build",
        factory=workers > 1,
        host=host or settings.host,
        port=settings.port if port is None else port,
        workers=workers,
        proxy_headers=True,
        forwarded_allow_ips=",".join(settings.trusted_proxies),
        server_header=False,
        access_log=False,
        log_level="warning",
    )


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
    runtime = connect(config)
    front = _imported(config.serve.platform_app) if config.serve.platform_app else _front(config)
    return TenantMiddleware(_imported(config.serve.app), runtime=runtime, platform_app=front)


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
    """The platform's own page, where the platform brings none."""
    from tenantry.web.front import front

    return front(config)

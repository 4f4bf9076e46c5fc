"""What `tenantry serve` runs: the application behind its tenants, and the platform's own pages at the bare domain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import Response
from uvicorn.supervisors import Multiprocess

from tenantry.application import connect
from tenantry.config import Config
from tenantry.config.models import Serve
from tenantry.errors import ConfigError, InvalidHost, RegistryMissing, RegistryUnavailable, UnknownHost
from tenantry.model import normalise_host
from tenantry.operations.blueprints import read_config
from tenantry.platform import Platform
from tenantry.process import end_with_parent
from tenantry.refusals import AddressTaken
from tenantry.resources import kinds
from tenantry.runtime import Runtime, TenantMiddleware, pages
from tenantry.web.beside import beside
from tenantry.web.patience import Patient
from tenantry.web.ready import PATH as READY
from tenantry.web.ready import ready

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tenantry.web.house import House

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

OWN: Final = ("/api/", "/admin/", "/signup/", "/sso/", "/scim/", "/hooks/")
"""How the paths begin that are the platform's own, at its bare domain."""

COUNTED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which the Prometheus client finds the directory of several processes."""

GRACE: Final = 10
"""Seconds in which requests under way are answered when it is told to stop."""

CONNECTIONS: Final = 65_536
"""Files and connections that a process has open at most."""

BACKLOG: Final = 2048
"""How many connections wait to be taken."""

__all__ = ["build", "serve"]


def serve(
    config: Path | str,
    *,
    app: str | None = None,
    host: str | None = None,
    port: int | None = None,
    workers: int = 1,
    worker: bool | None = None,
) -> None:
    """Serve until told to stop, with a worker beside unless it is not wanted.

    Raises `ConfigError` when no application is named or it cannot be imported, `AddressTaken` and `SharedTablesWeak`.
    """
    path = Path(config).resolve()
    _put(TENANTRY_CONFIG=path, TENANTRY_SERVE__APP=app, TENANTRY_SERVE__HOST=host, TENANTRY_SERVE__PORT=port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end it alike, what is beside it too
    with contextlib.suppress(KeyboardInterrupt), _listening(read_config(path).serve) as listener:
        if read_config(path).serve.port == 0:
            _put(TENANTRY_SERVE__PORT=listener.getsockname()[1])  # which links name
        known = read_config(path)
        built = build()  # a fault in the application shows here, in words, before any process is started
        _greet(known, asyncio.run(_begun(known)))
        with beside(path, known.serve.worker if worker is None else worker), _counting_together(workers):
            _run(known, built if workers == 1 else "tenantry.web:build", workers, listener)


def _put(**variables: object) -> None:
    """Set variables, which the processes that are started read as well."""
    os.environ.update({name: str(value) for name, value in variables.items() if value is not None})


def _listening(settings: Serve) -> socket.socket:
    """The port, taken: who comes now waits until the application is ready. Raises `AddressTaken`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise AddressTaken(host=settings.host, port=settings.port, reason=error.strerror or error) from error


@contextlib.contextmanager
def _counting_together(workers: int) -> Iterator[None]:
    """A directory in which several processes count their requests for Prometheus as one."""
    if workers == 1 or COUNTED in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="tenantry-metrics-") as folder:
        os.environ[COUNTED] = folder
        try:
            yield
        finally:
            del os.environ[COUNTED]


def _run(config: Config, app: Asgi | str, workers: int, listener: socket.socket) -> None:
    _open_many()
    settings = uvicorn.Config(
        app,
        factory=workers > 1,
        workers=workers,
        proxy_headers=True,
        forwarded_allow_ips=",".join(config.serve.trusted_proxies),
        http=Patient,
        timeout_keep_alive=config.serve.patience,  # type: ignore[arg-type]  # a loop takes parts of a second, too
        server_header=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=GRACE,
    )
    try:
        if workers > 1:
            Multiprocess(settings, sockets=[listener]).run()
        else:
            uvicorn.Server(settings).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _open_many() -> None:
    """As many connections as the system allows: a shell allows a thousand where nobody asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, CONNECTIONS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _begun(config: Config) -> str | None:
    """Begin the control database, if there is none; a link that makes the first superadmin, where somebody looks.

    Raises `SharedTablesWeak`. Out of reach, the control database is left alone: tenants are served all the same.
    """
    parts = (part for blueprint in config.blueprints.values() for part in blueprint.resources.values())
    try:
        async with Platform.open(config) as platform:
            if any(kinds()[part.kind].shared for part in parts):
                await platform.refuse_weak()
            return await platform.first_link() if sys.stdout.isatty() else None  # a log file is no place for it
    except (RegistryUnavailable, RegistryMissing):
        return None


def _greet(config: Config, link: str | None) -> None:
    """Tell somebody at a terminal where everything is."""
    if not sys.stdout.isatty():
        return
    print(f"\n{config.platform.name} is served at {config.url}/\nIts admin portal is at {config.portal}/")
    if link is not None:
        print(f"\nNobody runs it yet. This link makes the first superadmin, once, within a day:\n\n  {link}\n")
    print("Stop it with Ctrl-C.", flush=True)


def build() -> Asgi:
    """The ASGI application of the platform that TENANTRY_CONFIG names."""
    end_with_parent()
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
    own = Own(config, front, runtime)
    tenants = TenantMiddleware(_imported(config.serve.app), runtime=runtime, platform_app=own)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            if scope["path"] == READY and scope["type"] == "http":
                await (await ready(own.house, runtime))(scope, receive, send)
            else:
                await tenants(scope, receive, send)
            return

        async def close_first(message: MutableMapping[str, Any]) -> None:
            if message["type"].startswith("lifespan.shutdown"):  # after it nothing is sure to run
                await own.close()
            await send(message)

        _when_told_to_end(own.hush)
        await tenants(scope, receive, close_first)

    return application


def _when_told_to_end(call: Callable[[], None]) -> None:
    """Let this be called as soon as the process is told to end: a server waits for streams, which end by themselves."""
    if threading.current_thread() is not threading.main_thread():
        return  # where a server runs beside something else, nobody tells it by a signal
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, partial(_hear, loop, call, before))


def _hear(
    loop: asyncio.AbstractEventLoop, call: Callable[[], None], before: Callable[..., Any], number: int, frame: Any
) -> None:
    loop.call_soon_threadsafe(call)
    before(number, frame)


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

    def __init__(self, config: Config, front: Asgi, runtime: Runtime | None = None) -> None:
        self._config = config
        self._runtime = runtime
        self._front = front
        self._hosts = {_name(config.platform.domain), _name(urlsplit(config.url).netloc)}
        self._making: asyncio.Task[FastAPI] | None = None
        self._hushed = False
        self._sign_up = config.signup.also_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at the platform's bare domain."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path == self._sign_up:
            path = "/signup"
            scope = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
        if not f"{path}/".startswith(OWN):
            await self._front(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if _name(headers.get("host", "")) not in self._hosts:  # where tenants go by path alone, any host leads here
            answer = pages.refusal(UnknownHost(host=headers.get("host", "")[:200]), headers.get("accept", ""))
            await Response(answer.body, answer.status, dict(answer.headers))(scope, receive, send)
            return
        site = await self._site()
        await site(scope, receive, send)

    async def house(self) -> House:
        """The platform, as pages and API use it."""
        house: House = (await self._site()).state.house
        return house

    async def _site(self) -> FastAPI:
        if self._making is None:
            self._making = asyncio.create_task(asyncio.to_thread(_site, self._config, self._runtime))
        site = await asyncio.shield(self._making)
        if self._hushed:
            site.state.house.hush()
        return site

    def hush(self) -> None:
        """Let those go who follow an operation, and those who come to as this process ends."""
        self._hushed = True
        if self._making is not None and self._making.done() and not self._making.cancelled():
            self._making.result().state.house.hush()

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


def _site(config: Config, runtime: Runtime | None) -> FastAPI:
    from tenantry.web.site import site

    return site(config, runtime)

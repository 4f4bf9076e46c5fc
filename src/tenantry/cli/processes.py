"""`tenantry worker` and `tenantry serve`: the processes of a platform."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

from cyclopts import Parameter

from tenantry.cli.options import COMMON, Common


async def worker(
    *,
    concurrency: Annotated[int | None, Parameter(help="Operations at a time; else worker.concurrency.")] = None,
    common: Common = COMMON,
) -> None:
    """Run operations until told to stop (SIGINT or SIGTERM); what is under way is brought to the end of its step."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with common.platform() as platform:
        await platform.work(stop, concurrency)


def serve(
    *,
    app: Annotated[str | None, Parameter(help="The ASGI application, as package.module:name; else serve.app.")] = None,
    host: Annotated[str | None, Parameter(help="The address to listen on; else serve.host.")] = None,
    port: Annotated[int | None, Parameter(help="The port to listen on; else serve.port.")] = None,
    workers: Annotated[int, Parameter(help="Processes that answer requests.")] = 1,
    common: Common = COMMON,
) -> None:
    """Serve the application behind the tenants."""
    from tenantry.web import serve as run

    run(common.config, app=app, host=host, port=port, workers=workers)

"""`tenantry worker` and `tenantry serve`: the processes of a platform."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from tenantry.cli.options import COMMON, FLAG, SERVER, Common


async def worker(
    *,
    concurrency: Annotated[int | None, Parameter(help="Operations at a time; else worker.concurrency.")] = None,
    attached: Annotated[
        bool, FLAG, Parameter(help="Stop, too, when standard input ends: whoever began it is gone.")
    ] = False,
    common: Common = COMMON,
) -> None:
    """Run operations until told to stop (SIGINT or SIGTERM); what is under way is brought to the end of its step."""
    from tenantry.process import told_to_stop

    _here("tenantry worker")
    stop = told_to_stop(attached)
    async with common.platform() as platform:
        await platform.work(stop, concurrency)


def serve(
    *,
    app: Annotated[str | None, Parameter(help="The ASGI application, as package.module:name; else serve.app.")] = None,
    host: Annotated[str | None, Parameter(help="The address to listen on; else serve.host.")] = None,
    port: Annotated[int | None, Parameter(help="The port to listen on; else serve.port.")] = None,
    workers: Annotated[int, Parameter(help="Processes that answer requests.")] = 1,
    no_worker: Annotated[
        bool, FLAG, Parameter(help="Answer requests alone; else a worker runs operations beside, as serve.worker says.")
    ] = False,
    common: Common = COMMON,
) -> None:
    """Serve the application behind the tenants, the portal and the API, with a worker beside.

    On a terminal it shows where, and a link that makes the first superadmin where there is none.
    """
    from tenantry.web import serve as run

    _here("tenantry serve")
    run(common.config, app=app, host=host, port=port, workers=workers, worker=False if no_worker else None)


def _here(command: str) -> None:
    """Raise `NotOverTheApi` where a platform elsewhere is meant."""
    from tenantry.refusals import NotOverTheApi

    if os.environ.get(SERVER):
        raise NotOverTheApi(verb=f"`{command}`")

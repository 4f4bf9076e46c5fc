"""Whether this process may be given requests: for whoever starts new processes before ending old ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from tenantry.errors import RegistryUnavailable, TenantryError
from tenantry.runtime import Runtime

if TYPE_CHECKING:
    from tenantry.web.house import House

PATH: Final = "/.tenantry/ready"
"""At every host, as probes ask by address."""

PATIENCE: Final = 5.0
"""Seconds that the control database may take."""


async def ready(house: Callable[[], Awaitable[House]], runtime: Runtime) -> Response:
    """200 while the control database answers, at the schema and the key of this process, and its tenants are known.

    Else 503 with the error's code, and nothing of the platform's inside.
    """
    code = "ok"
    try:
        if not runtime.started:
            await runtime.start()
        async with asyncio.timeout(PATIENCE):
            await (await (await house()).opened()).platform.ready()
        if runtime.health()["status"] != "ok":
            raise RegistryUnavailable(reason="changes are not followed")
    except TimeoutError:
        code = RegistryUnavailable.code
    except TenantryError as error:
        code = error.code
    told: dict[str, Any] = {"status": "ready" if code == "ok" else "not ready", "code": code}
    headers = {"Cache-Control": "no-store"} | ({} if code == "ok" else {"Retry-After": "1"})
    return Response(json.dumps(told), 200 if code == "ok" else 503, headers, "application/json")

"""The platform as the pages and the API use it: opened at the first request, and again where that failed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

from tenantry.application import runtime_of, settings
from tenantry.config import Config
from tenantry.identity.links import Forgotten
from tenantry.identity.passkeys import Passkeys
from tenantry.identity.signin import SignIn
from tenantry.model import Tenant
from tenantry.platform import Platform
from tenantry.runtime import Runtime
from tenantry.web.hub import Hub
from tenantry.web.tally import Tally

HEARD_SECONDS: Final = 2.0
HEARD_STEP: Final = 0.002
"""For how many seconds, and how often, it is looked whether a tenant that was just made is served by now."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What requests need."""

    platform: Platform
    sign_in: SignIn
    passkeys: Passkeys
    forgotten: Forgotten
    hub: Hub


class House:
    """Opens the platform once; nobody waits for it: tenants are served also while the control database is lost."""

    def __init__(self, config: Config, runtime: Runtime | None = None) -> None:
        self.config = config
        self._runtime = runtime  # of the tenants that are served beside
        self.tally = Tally()
        self._stack = contextlib.AsyncExitStack()
        self._turn = asyncio.Lock()
        self._opened: Opened | None = None
        self._hushed = False

    async def opened(self) -> Opened:
        """The platform. Raises `RegistryUnavailable` and what else `Platform.open` raises."""
        if self._opened is None:
            async with self._turn:
                if self._opened is None:
                    platform = await self._stack.enter_async_context(Platform.open(self.config, actor="web"))
                    registry, config = platform.registry, self.config
                    proofs = SignIn(registry), Passkeys(registry, config), Forgotten(registry, config)
                    self.tally.begin(registry)
                    self._opened = Opened(platform, *proofs, Hub(platform))
                    if self._hushed:
                        self._opened.hub.close()
        return self._opened

    async def runtime(self) -> Runtime:
        """What reaches the tenants' own users: where no tenant is served beside, a runtime of these pages alone."""
        if self._runtime is None:
            here = await self.opened()
            self._runtime = runtime_of(self.config, here.platform.registry.vault, settings(self.config))
            self._stack.push_async_callback(self._runtime.stop)
        await self._runtime.start()
        return self._runtime

    async def serves(self, tenant_id: str, seconds: float = HEARD_SECONDS) -> Tenant | None:
        """Wait until this process has heard that a tenant is there, for so long at most: the tenant as it is then."""
        until, resolver = time.monotonic() + seconds, (await self.runtime()).resolver
        while time.monotonic() < until:
            found = resolver.table.tenants.get(tenant_id)
            if found and found[0].tenant.status.served:
                return found[0].tenant
            await asyncio.sleep(HEARD_STEP)
        return None

    def hush(self) -> None:
        """Let those go who follow an operation: their streams end when it does, and nobody waits so long."""
        self._hushed = True
        if self._opened is not None:
            self._opened.hub.close()

    async def close(self) -> None:
        """Close it."""
        self.hush()
        if self._opened is not None:
            await self._opened.forgotten.close()
            await self.tally.close(self._opened.platform.registry)
        self._opened = None
        await self._stack.aclose()


async def opened(request: HTTPConnection) -> Opened:
    """The platform of the application that answers this request."""
    house: House = request.app.state.house
    return await house.opened()

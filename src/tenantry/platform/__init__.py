"""Platform: the one door. A command, an API call and a portal button call the same method, so they cannot differ.

async with Platform.open("tenantry.toml") as platform:
    operation = await platform.tenants.create("acme", name="Acme & Söhne")
    await platform.operations.finish(operation.id)
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenantry import embedded, tracing
from tenantry.config import FILE, Config, secret_keys
from tenantry.config.example import explain
from tenantry.config.shown import flat, shown
from tenantry.errors import RegistryMissing
from tenantry.identity import Reach, first, sees_only, verb
from tenantry.identity.links import address
from tenantry.operations import placement
from tenantry.operations.blueprints import read_config
from tenantry.operations.toolbox import Toolbox
from tenantry.platform.account import Account
from tenantry.platform.counting import Counter
from tenantry.platform.details import Credentials, PlannedStep, Source, TenantDetails
from tenantry.platform.drift import Drifts
from tenantry.platform.fleet import Migrations
from tenantry.platform.hostnames import Hostnames
from tenantry.platform.leavers import LeaverDesk
from tenantry.platform.mails import Mails
from tenantry.platform.operations import Operations
from tenantry.platform.payments import Payments
from tenantry.platform.people import Admins, Organizations, Tokens
from tenantry.platform.rehearse import Rehearsals
from tenantry.platform.safety import refuse_weak
from tenantry.platform.scim import Scim
from tenantry.platform.servers import Servers
from tenantry.platform.signup import SignUps
from tenantry.platform.sso import Sso
from tenantry.platform.statistics import Statistics
from tenantry.platform.support import Supports
from tenantry.platform.tenants import Tenants
from tenantry.platform.verify import Verification
from tenantry.registry import AuditReport, Entry, Registry, Vault, journal, statistics, tenants
from tenantry.registry.database import file_of
from tenantry.registry.statistics import Storage

if TYPE_CHECKING:
    from tenantry.operations.verify import Outdoors

__all__ = ["Credentials", "PlannedStep", "Platform", "Source", "TenantDetails"]


class Platform:
    """One platform, opened."""

    operations: Operations
    tenants: Tenants
    hostnames: Hostnames
    servers: Servers
    migrations: Migrations
    verification: Verification
    rehearsals: Rehearsals
    drifts: Drifts
    audit: Audit
    secrets: Secrets
    statistics: Statistics
    admins: Admins
    account: Account
    tokens: Tokens
    organizations: Organizations
    sso: Sso
    scim: Scim
    support: Supports
    signups: SignUps
    payments: Payments
    mails: Mails

    def __init__(self, config: Config, registry: Registry) -> None:
        self.config = config
        self.registry = self._registry = registry
        self.tools = Toolbox(config, registry)
        self.tools.outdoors = lambda: _outdoors(config, registry.vault)
        self.tools.count = self.counter = Counter(self.tools)
        self.tools.leave = self.leavers = LeaverDesk(self.tools)
        self.operations = Operations(self.tools)
        self.tenants = Tenants(self.tools)
        self.hostnames = Hostnames(self.tools)
        self.servers = Servers(self.tools)
        self.migrations = Migrations(self.tools)
        self.verification = Verification(self.tools)
        self.rehearsals = Rehearsals(self.tools)
        self.drifts = Drifts(self.tools)
        self.audit = Audit(registry)
        self.secrets = Secrets(registry)
        self.statistics = Statistics(self.tools)
        self.admins = Admins(registry, config)
        self.account = Account(registry, config)
        self.tokens = Tokens(registry)
        self.organizations = Organizations(registry)
        self.sso = Sso(registry, config)
        self.scim = Scim(registry, config)
        self.support = Supports(registry, config)
        self.signups = SignUps(registry, config, self.tenants)
        self.payments = Payments(registry, config, self.tenants)
        self.mails = Mails(registry, config)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, config: Config | Path | str = FILE, *, actor: str | None = None) -> AsyncIterator[Platform]:
        """Read the configuration, check the platform key, and open the control database at its newest schema.

        Raises `ConfigError`, `SecretKeyError`, `EmbeddedFailed`, `RegistryMissing` or `RegistryUnavailable`.
        """
        if not isinstance(config, Config):
            config = read_config(Path(config))
        tracing.start()
        vault = Vault(*secret_keys(config.root))
        homes = tenants_at(config)
        config.data.mkdir(parents=True, exist_ok=True, mode=0o750)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(embedded.held(config.data, config.wants_embedded))
            opened = Registry.open(config.control_url, vault, actor=actor or default_actor(), homes=homes)
            registry = await stack.enter_async_context(opened)
            if config.servers:
                await placement.declare(registry, config)
            platform = cls(config, registry)
            stack.push_async_callback(platform.counter.close)
            stack.push_async_callback(platform.leavers.close)
            yield platform

    async def work(self, stop: asyncio.Event, concurrency: int | None = None) -> None:
        """Be a worker until `stop` is set. Raises `SharedTablesWeak`."""
        from tenantry.operations.worker import Worker

        await self.refuse_weak()
        await Worker(self.tools, concurrency).run(stop)

    async def first_link(self) -> str | None:
        """An address at which somebody becomes the first superadmin, once; None where there is one.

        No verb: it is shown to whoever starts the platform, and to nobody who asks from elsewhere.
        """
        async with self.registry.write() as tx:
            link = await first.offer(tx)
        return None if link is None else address(self.config, link)

    async def refuse_weak(self) -> None:
        """Raise `SharedTablesWeak` where tables that tenants share do not keep them apart."""
        await refuse_weak(self.tools)

    @verb("platform.status", "platform:read", Reach.PLATFORM)
    async def status(self) -> dict[str, Any]:
        """The platform at a glance: tenants, limits, workers, operations, audit log, control database."""
        config = self.config
        async with self.registry.read() as tx:
            workers = await journal.workers(tx, config.worker.dead_after)
            queued = await journal.latest(tx, state="queued", limit=1000)
            running = await journal.latest(tx, state="running", limit=1000)
            counts = await tenants.counts(tx)
        newest = await self.registry.entries(limit=1)
        return {
            "platform": config.platform.name,
            "domain": config.platform.domain,
            "control": self.registry.database.where,
            "tenants": sum(counts.values()),
            "max_tenants": config.platform.max_tenants,
            "by_status": counts,
            "workers": [{"id": w.id, "host": w.host, "pid": w.pid, "heartbeat": w.heartbeat} for w in workers],
            "queued": len(queued),
            "running": len(running),
            "audit_entries": newest[0].seq if newest else 0,
            "verified": _verified(await self.verification.last()),
        }

    async def ready(self) -> None:
        """Ask the control database for a sign of life. Raises `RegistryUnavailable`, or `SecretKeyError`."""
        async with self.registry.read() as tx:
            check = await tenants.get_meta(tx, "check")
        self.registry.vault.check(check or b"")

    @verb("platform.metrics", "platform:read", Reach.PLATFORM)
    async def metrics(self) -> Measured:
        """The platform in numbers, for a monitoring system: what is under way, who works, what there is."""
        config = self.config
        async with self.registry.read() as tx:
            return Measured(
                tenants=await tenants.counts(tx),
                operations=await statistics.operations_by_state(tx),
                waiting=await statistics.longest_wait(tx),
                workers=len(await journal.workers(tx, config.worker.dead_after)),
                storage=(await statistics.storage(tx))[0],
                people=await statistics.people(tx),
                head=await statistics.head(tx),
                verified=await self.verification.last_ended(),
            )

    @verb("platform.settings", "platform:read", Reach.PLATFORM)
    async def settings(self) -> list[Setting]:
        """The configuration as this process has it in force, without secrets, and where each value comes from."""
        return [
            Setting(
                ".".join(key), value, self.config.origin(key), entry.help if (entry := explain(".".join(key))) else ""
            )
            for key, value in flat(shown(self.config))
        ]


@dataclass(frozen=True, slots=True)
class Measured:
    """The platform in numbers."""

    tenants: Mapping[str, int]  # by status
    operations: Mapping[str, int]  # by state
    waiting: float  # seconds since the oldest operation that waits for a worker was asked for
    workers: int  # that live
    storage: Storage
    people: Mapping[str, int]
    head: tuple[int, int]  # numbers of the newest entry of the audit log and of the newest change
    verified: journal.Operation | None  # the newest verification that went to its end


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in force."""

    key: str
    value: str  # as JSON
    source: str  # a line of a file, a variable, or "default"
    help: str


def _outdoors(config: Config, vault: Vault) -> Outdoors:
    from tenantry.platform.attacks import outdoors  # a runtime takes a while to import, and only verifying needs it

    return outdoors(config, vault)


def _verified(last: journal.Operation | None) -> dict[str, Any] | None:
    """The newest verification that is over, in short."""
    if last is None:
        return None
    counts = {key: value for key, value in (last.result or {}).items() if key not in ("failed", "tenantry")}
    return {"operation": last.id, "ended": last.ended, "state": last.state.value, **counts}


class Audit:
    """The audit log."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @verb("audit.list", "platform:read", Reach.LIST)
    async def list(
        self,
        limit: int = 50,
        tenant: str | None = None,
        before: int | None = None,
        actor: str | None = None,
        action: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> list[Entry]:
        """The newest entries, newest first.

        `tenant` is a slug, or what else was changed; `action` is one ("tenant.suspend") or all of a noun ("tenant").
        `since` and `until` are moments in UTC, or days: 2026-11-21.
        """
        filters = {"actor": actor, "action": action, "since": since, "until": until}
        return await self._registry.entries(limit=limit, subject=tenant, before=before, admin=sees_only(), **filters)

    @verb("audit.verify", "platform:read", Reach.PLATFORM)
    async def verify(self) -> AuditReport:
        """Walk the whole chain. Raises `AuditBroken`, naming the first entry that is not as it was written."""
        return await self._registry.verify()


class Secrets:
    """The platform key and what it seals."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @verb("secret.rotate", "platform:write", Reach.PLATFORM)
    async def rotate(self) -> int:
        """Seal every tenant's data key with the current platform key; how many there were."""
        return await self._registry.rotate()


def tenants_at(config: Config) -> Path | None:
    """The directory of tenants that are there already; None where there are none.

    A control database that was lost must not be replaced by an empty one, which knows none of them: raises
    `RegistryMissing`, where that shows without opening it.
    """
    file, homes = file_of(config.control_url), config.data / "tenants"
    if not homes.is_dir() or next(homes.iterdir(), None) is None:
        return None
    if file is not None and not file.exists():
        raise RegistryMissing(path=file, tenants=homes)
    return homes


def default_actor() -> str:
    """Who the audit log names: TENANTRY_ACTOR, otherwise the user of the operating system."""
    actor = os.environ.get("TENANTRY_ACTOR")
    if actor:
        return actor[:200]
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user without a name, as in a container
        return f"cli:{os.getuid()}"

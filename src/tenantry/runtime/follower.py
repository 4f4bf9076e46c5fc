"""Keeps the table of tenants up to date, and on disk for the time when the control database is gone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import logging
import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tenantry.errors import RegistryUnavailable
from tenantry.model import Environment, KeyTurn, Loaded, Place, Server, ServerState, SignOn, Status, Tenant
from tenantry.runtime.resolver import Resolver
from tenantry.runtime.settings import Source
from tenantry.runtime.table import Table

log: Final = logging.getLogger("tenantry.runtime")

WAIT: Final = (0.1, 5.0)
"""Seconds before the first new try to reach the control database, and at most."""

SETTLE: Final = 1.0
"""Seconds from a change to its snapshot, so that a burst of changes is written once."""

FORMAT: Final = 4


class Follower:
    """Loads every tenant, then follows the changes for as long as it runs."""

    def __init__(
        self,
        source: Source,
        resolver: Resolver,
        snapshot: Path | None,
        changed: Callable[[frozenset[str] | None], Awaitable[None]],
    ) -> None:
        self._source = source
        self._resolver = resolver
        self._snapshot = snapshot
        self._changed = changed  # told the ids of changed tenants, or None where any may have changed
        self._dirty = asyncio.Event()
        self.ready = asyncio.Event()
        self.applying = asyncio.Lock()  # held while a change is taken in, so that nobody cancels it half done
        self.failed: Exception | None = None
        self.status = "starting"
        self._known = time.time()  # when the table was last known to be current

    def health(self) -> dict[str, Any]:
        """Status, number of the last change, seconds for which the table may be stale, and how much it holds.

        The status is "ok", or "snapshot" where the control database is gone, or "starting" before anything is known.
        """
        age = 0.0 if self.status == "ok" else round(max(0.0, time.time() - self._known), 3)
        table = self._resolver.table
        return {"status": self.status, "seq": table.seq, "age": age, **table.counts()}

    async def run(self) -> None:
        """Follow until cancelled. Gives up only where nothing at all could be loaded at first."""
        writer = asyncio.create_task(self._write()) if self._snapshot else None
        try:
            await self._run()
        finally:
            if writer:
                writer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writer
            if self._snapshot and self._dirty.is_set():
                await asyncio.to_thread(write_snapshot, self._snapshot, self._resolver.table)

    async def _run(self) -> None:
        wait = WAIT[0]
        while True:
            try:
                await self._load()
                wait = WAIT[0]
                async for changes in self._source.follow(self._resolver.table.seq):
                    async with self.applying:
                        self._resolver.table.apply(changes)
                        await self._changed(changes.tenants)
                    self._dirty.set()
                raise RegistryUnavailable(reason="the change feed ended")
            except Exception as error:
                if not await self._outlive(error):
                    return
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 -- so that processes do not march in step
            wait = min(2 * wait, WAIT[1])

    async def _load(self) -> None:
        with _uncollected():
            loaded = await self._source.load()
            table = await asyncio.to_thread(self._resolver.build, loaded)  # a million take seconds
        async with self.applying:
            self._resolver.table = table
            await self._changed(None)
        self._stand("ok")
        self._dirty.set()

    async def _outlive(self, error: Exception) -> bool:
        """Go on from memory or from the snapshot; False where there is neither."""
        if self.status == "ok":
            log.warning("The control database is gone; resolving goes on from memory: %s", error)
            self._known = time.time()
            self._stand("snapshot")
        if self.status == "starting":
            found = await asyncio.to_thread(read_snapshot, self._snapshot) if self._snapshot else None
            if found is None:
                self.failed = error
                self.ready.set()
                return False
            log.warning("The control database is gone; resolving goes on from the snapshot: %s", error)
            loaded, self._known = found
            self._resolver.table = await asyncio.to_thread(self._resolver.build, loaded)
            self._stand("snapshot")
        return True

    def _stand(self, status: str) -> None:
        self.status = status
        self.ready.set()

    async def _write(self) -> None:
        """Write the snapshot after changes, off the event loop."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SETTLE)  # before, so that a process that starts answers its first requests first
            self._dirty.clear()
            try:
                if self._snapshot:
                    await asyncio.to_thread(write_snapshot, self._snapshot, self._resolver.table)
            except OSError as error:
                log.warning("The snapshot cannot be written: %s", error)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: over so many new objects, none of them garbage, it takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# --- the snapshot -------------------------------------------------------------------------------------------------


def write_snapshot(path: Path, table: Table) -> None:
    """Write all environments as lines of JSON; the file takes its name when it is whole (mode 0600)."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    servers = [_pack_server(server) for server in table.servers.values()]
    head = {"format": FORMAT, "seq": table.seq, "written": time.time(), "servers": servers}
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps(head) + "\n")
            count = 0
            for count, environment in enumerate(table.environments(), 1):  # noqa: B007
                file.write(json.dumps(_pack(environment), ensure_ascii=False) + "\n")
            file.write(json.dumps({"end": count}) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_snapshot(path: Path) -> tuple[Loaded, float] | None:
    """The environments of a snapshot and when it was written (seconds since 1970); None where it cannot be used."""
    try:
        with path.open(encoding="utf-8") as file:
            head = json.loads(file.readline())
            if head["format"] != FORMAT:
                return None
            environments = list(_unpack_all(file))
        servers = [_unpack_server(record) for record in head["servers"]]
        return Loaded(int(head["seq"]), environments, servers), float(head["written"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("The snapshot %s cannot be read: %s", path, error)
        return None


def _unpack_all(lines: Iterator[str]) -> Iterator[Environment]:
    places: dict[Place, Place] = {}
    for count, line in enumerate(lines):
        record = json.loads(line)
        if "end" in record:
            if record["end"] != count:
                raise ValueError("environments are missing")
            return
        yield _unpack(record, places)
    raise ValueError("it is cut short")


def _pack(environment: Environment) -> dict[str, Any]:
    """An environment without its opened secrets, which drivers alone need."""
    tenant = environment.tenant
    return {
        "id": environment.id,
        "name": environment.name,
        "home": environment.home,
        "places": [_pack_place(place) for place in environment.places],
        "hostnames": environment.hostnames,
        "former": environment.former,
        "key": base64.b64encode(environment.sealed_key).decode(),
        "tenant": {
            "id": tenant.id,
            "slug": tenant.slug,
            "name": tenant.name,
            "blueprint": tenant.blueprint,
            "plan": tenant.plan,
            "status": tenant.status.value,
            "client_id": tenant.client_id,
            "settings": dict(tenant.settings),
            "former": tenant.former,
            "sign_on": asdict(tenant.sign_on) if tenant.sign_on else None,
            "trial": tenant.trial.isoformat() if tenant.trial else None,
            "key_turns": [[turn.number, turn.since] for turn in tenant.key_turns],
        },
    }


def _pack_place(place: Place) -> list[str | None]:
    fields = [place.name, place.kind, place.location, place.version]
    return [*fields, place.server, base64.b64encode(place.sealed).decode()] if place.server else fields


def _unpack_place(fields: list[Any]) -> Place:
    name, kind, location, version, *placed = fields
    server, sealed = placed or (None, "")
    return Place(name, kind, location, version, server, base64.b64decode(sealed))


def _pack_server(server: Server) -> dict[str, Any]:
    """A server without its administrator's login."""
    return {
        "name": server.name,
        "kind": server.kind,
        "address": server.address,
        "connections": server.connections,
        "state": server.state.value,
        "shared": {database: base64.b64encode(sealed).decode() for database, sealed in server.shared.items()},
    }


def _unpack_server(record: dict[str, Any]) -> Server:
    shared = {database: base64.b64decode(sealed) for database, sealed in record["shared"].items()}
    return Server(**record | {"state": ServerState(record["state"]), "shared": shared})


def _unpack(record: dict[str, Any], places: dict[Place, Place]) -> Environment:
    """Equal places become one object, as the registry gives them."""
    found = (_unpack_place(fields) for fields in record["places"])
    tenant = dict(record["tenant"])
    sign_on = SignOn(**tenant["sign_on"]) if tenant["sign_on"] else None
    trial = datetime.fromisoformat(tenant["trial"]) if tenant["trial"] else None
    typed = {
        "status": Status(tenant["status"]),
        "former": tuple(tenant["former"]),
        "sign_on": sign_on,
        "trial": trial,
        "key_turns": tuple(KeyTurn(*turn) for turn in tenant["key_turns"]),
    }
    return Environment(
        id=record["id"],
        name=record["name"],
        tenant=Tenant(**tenant | typed),
        home=record["home"],
        places=tuple(places.setdefault(place, place) for place in found),
        hostnames=tuple(record["hostnames"]),
        former=tuple(record["former"]),
        sealed_key=base64.b64decode(record["key"]),
    )

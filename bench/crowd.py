"""A registry that has seen years: tenants, people, operations and reports as registry functions enter them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, update

from bench.site import Site
from bench.start import enter
from tenantry.errors import ServerUnavailable, TenantryError
from tenantry.identity.principal import AdminRole
from tenantry.model import Attempt, Breach, Server, Status, new_id
from tenantry.operations import migrate, rehearsal, rehearse, verified, verify
from tenantry.operations.due import Due
from tenantry.platform import Platform
from tenantry.registry import Transaction, journal, people, servers, tables, tenants
from tenantry.registry.database import chunks, now
from tenantry.registry.journal import NewItem, State, StepState

BATCH = 2_000
ORGANIZATIONS = 400
ADMINS = 300
SERVERS = 60
FAILED = 300
SESSIONS = 200
TOKENS = 60

ATTACKS = [f"{how} of {what}" for how in ("read", "write", "delete", "guess", "probe") for what in range(30)]
"""As many as a tenant on SQLite files is attacked with, with names as long."""

ADMIN_TENANTS = {"ana": 1, "bea": 100, "cyd": 5_000}
"""How many tenants are assigned to whom."""


@dataclass
class Crowd:
    """What pages are asked for."""

    tenants: int
    migration: str = ""  # the id of one that ended, with failures
    under_way: str = ""
    rehearsal: str = ""
    live_rehearsal: str = ""
    verification: str = ""
    organization: str = ""
    admin: str = ""  # with the most tenants
    session: str = ""


async def gather(place: Site, count: int = 10_000, entries: int = 100_000, operations: int = 5_000) -> Crowd:
    """Fill the registry of a new platform."""
    await enter(place, count)
    crowd = Crowd(count)
    async with place.platform() as platform:
        rows = [row async for row in _all(platform)]
        await _age(platform, rows)
        await _servers(platform, rows)
        await _people(platform, crowd, rows)
        await _operations(platform, rows, operations)
        await _entries(platform, rows, entries)
        await _migrations(platform, crowd, rows)
        await _rehearsals(platform, crowd, rows)
        await _verification(platform, crowd, rows)
    return crowd


async def _all(platform: Platform) -> Any:
    after: str | None = None
    while page := await platform.tenants.list(limit=BATCH, after=after):
        for row in page:
            yield row
        after = page[-1].slug


async def _age(platform: Platform, rows: Sequence[tenants.TenantRow]) -> None:
    """Tenants of a year, of all statuses and of sizes far apart; some stand at an older schema, some are pinned."""
    lot, moment = random.Random(1), now()
    tenant, part, environment = tables.tenant, tables.resource, tables.environment
    made = [{"one": row.id, "created": moment - timedelta(minutes=lot.randrange(525_600))} for row in rows]
    async with platform.registry.write() as tx:
        await tx.execute(
            update(tenant).where(tenant.c.id == bindparam("one")).values(created=bindparam("created")), made
        )
        await tenants.set_status(tx, [row.id for row in rows[::25]], Status.SUSPENDED, "An invoice is open.")
        found = await tx.all(environment.select())
        used = [
            {"one": row.id, "bytes": int(lot.paretovariate(1) * 200_000), "rows": 900, "files": 40, "at": moment}
            for row in found
        ]
        measured = {"used_bytes": bindparam("bytes"), "used_rows": bindparam("rows")}
        measured |= {"used_files": bindparam("files"), "measured": bindparam("at")}
        await tx.execute(update(part).where(part.c.environment_id == bindparam("one")).values(measured), used)
        older = [{"one": row.id, "pin": number % 100 == 0} for number, row in enumerate(found) if number % 5 == 0]
        behind = update(part).where(part.c.environment_id == bindparam("one"), part.c.name == "db")
        await tx.execute(behind.values(version="0000_before", pinned=bindparam("pin")), older)


async def _servers(platform: Platform, rows: Sequence[tenants.TenantRow]) -> None:
    """Servers with a part of each fourth tenant."""
    names = [f"db-{number:02}" for number in range(SERVERS)]
    async with platform.registry.write() as tx:
        for name in names:
            address = f"postgresql://{name}.example.org:5432/postgres"
            server = Server(name=name, kind="postgres", address=address, admin="", capacity=200, connections=80)
            await servers.put(tx, server, platform.registry.vault.seal_platform(servers.CHANGED + name, address))
        found = await tx.all(tables.environment.select())
        part = tables.resource
        placed = [{"one": row.id, "on": names[number % SERVERS]} for number, row in enumerate(found[1::4])]
        statement = update(part).where(part.c.environment_id == bindparam("one"), part.c.name == "media")
        await tx.execute(statement.values(server=bindparam("on")), placed)


async def _people(platform: Platform, crowd: Crowd, rows: Sequence[tenants.TenantRow]) -> None:
    moment = now()
    async with platform.registry.write() as tx:
        for number in range(ORGANIZATIONS):
            row = {"id": new_id(), "name": f"Organization {number:03}", "mail": f"office-{number}@example.org"}
            await people.add_organization(tx, row | {"created": moment})
            crowd.organization = row["id"]
            share = rows[number::ORGANIZATIONS] if number < ORGANIZATIONS - 1 else rows[: len(rows) // 2]
            await people.link_tenants(tx, row["id"], [one.id for one in share])
        for number in range(ADMINS):
            mail = f"admin-{number:03}@example.org"
            person = {"id": new_id(), "mail": mail, "name": f"Admin {number}", "role": "admin", "active": True}
            await people.add(tx, person | {"created": moment})
    lot = random.Random(2)
    for name, share in ADMIN_TENANTS.items():
        await platform.admins.invite(f"{name}@example.org")
        theirs = [row.slug for row in lot.sample(list(rows), min(share, len(rows)))]
        await platform.admins.assign(f"{name}@example.org", theirs)
    await platform.admins.invite("root@example.org", role=AdminRole.SUPERADMIN)
    async with platform.registry.write() as tx:
        crowd.admin = (await people.find(tx, "cyd@example.org")).id
        for mail in ("cyd@example.org", "root@example.org"):
            await _things(tx, (await people.find(tx, mail)).id)


async def _things(tx: Transaction, admin_id: str) -> None:
    """Sessions and tokens of somebody who never signs out."""
    moment, later = now(), now() + timedelta(hours=12)
    for _ in range(SESSIONS):
        row = {
            "id": new_id(),
            "digest": new_id(),
            "admin_id": admin_id,
            "address": "192.0.2.7",
            "agent": "Firefox/99.0",
        }
        await people.add_session(tx, row | {"created": moment, "proved": moment, "seen": moment, "expires": later})
    for number in range(TOKENS):
        token = {"id": new_id(), "admin_id": admin_id, "name": f"token {number}", "digest": new_id()}
        await people.add_token(tx, token | {"scopes": ["tenants:read"], "created": moment, "expires": later})


# --- operations ---------------------------------------------------------------------------------------------------


def id_of(moment: datetime, number: int) -> str:
    """The id that an operation got so long ago."""
    first = f"{int(moment.timestamp() * 1000):012x}"
    return f"{first[:8]}-{first[8:]}-7{number % 0xFFF:03x}-8000-{number:012x}"


async def _operations(platform: Platform, rows: Sequence[tenants.TenantRow], count: int) -> None:
    """Creations, changes and failures of a year."""
    lot, start = random.Random(3), now() - timedelta(days=365)
    verbs = ("create", "suspend", "resume", "edit", "rename", "measure")
    table = tables.operation
    for numbers in chunks(range(count), BATCH):
        async with platform.registry.write() as tx:
            ages = []
            for number in numbers:
                moment = start + timedelta(minutes=number * 525_600 // count)
                row, operation_id = lot.choice(rows), id_of(moment, number)
                whose = (row.id, row.slug)
                await journal.submit(tx, operation_id, verbs[number % 6], STEPS, tenant=whose, holds=False)
                state = State.FAILED if number % 20 == 0 else State.DONE
                fault = (
                    {"code": "x", "message": "It failed.", "remedy": "Try again."} if state is State.FAILED else None
                )
                await journal.set_state(tx, operation_id, state, error=fault, started=moment)
                ages.append({"one": operation_id, "created": moment})
            when = update(table).where(table.c.id == bindparam("one")).values(created=bindparam("created"))
            await tx.execute(when, ages)


STEPS = [("reserve", ""), ("db", "sqlite"), ("media", "directory"), ("config", "rendered"), ("live", "")]


async def _entries(platform: Platform, rows: Sequence[tenants.TenantRow], count: int) -> None:
    """An audit log; of one tenant, and by one person, there are few entries, and those are the oldest."""
    actions = ("tenant.edit", "tenant.suspend", "tenant.resume", "hostname.add", "tenant.credentials")
    lot = random.Random(4)
    async with platform.registry.write("cli:rare") as tx:
        for row in rows[:3]:
            tx.audit("tenant.export", row.slug, id=row.id, tables=40, rows=900)
    for number, some in enumerate(chunks(range(count), BATCH)):
        async with platform.registry.write(f"admin:person-{number % 20}@example.org") as tx:
            for one in some:
                row = lot.choice(rows)
                tx.audit(actions[one % 5], row.slug, id=row.id, name=row.name)


async def _migrations(platform: Platform, crowd: Crowd, rows: Sequence[tenants.TenantRow]) -> None:
    """One over all tenants of which some failed, and one that rests half way."""
    async with platform.registry.read() as tx:
        environments = {e.tenant.slug: e.id for e in await tenants.environments(tx)}
    due = [
        Due(row.slug, row.id, environments[row.slug], "production", "0000_before", "site", "db", "0001_start")
        for row in rows
    ]
    steps, items = migrate.plan(migrate.waves(due, 1, [10, 50, 100]))
    down = ServerUnavailable(server="db-07", reason="connection to server at 192.0.2.7, port 5432 failed: timeout")
    for field, part in (("migration", len(items)), ("under_way", len(items) // 2)):
        operation_id = new_id()
        bad = set(range(0, part, max(part // FAILED, 1)))
        async with platform.registry.write() as tx:
            arguments = {"parallel": 4, "resources": [["site", "db"]]}
            await journal.submit(tx, operation_id, "migrate", steps, arguments=arguments, items=items)
            await _worked(tx, operation_id, part, bad, down)
            state = State.FAILED if part == len(items) else State.PAUSED
            await journal.set_state(tx, operation_id, state, started=now())
        setattr(crowd, field, operation_id)


async def _worked(
    tx: Transaction, operation_id: str, count: int, bad: set[int], error: TenantryError, details: Sequence[str] = ()
) -> None:
    """Let this many items of an operation be done, but for those that failed."""
    for some in chunks(range(count), BATCH):
        rows = [
            {
                "position": at,
                "state": (StepState.FAILED if at in bad else StepState.DONE).value,
                "error": error.as_dict() if at in bad else None,
                "detail": details[at % len(details)] if details else "",
                "seconds": 0.1 + at % 97 / 100,
            }
            for at in some
        ]
        await journal.set_items(tx, operation_id, rows)
    await journal.progress(tx, operation_id, done=count - len(bad), failed=len(bad))


async def _rehearsals(platform: Platform, crowd: Crowd, rows: Sequence[tenants.TenantRow]) -> None:
    """One of all tenants that ended, and one half way."""
    facts = {"resource": "db", "blueprint": "site", "shared": None, "to": "0001_start"}
    items = [
        NewItem(0, row.slug, {**facts, "tenant": row.id}, lane=f"db-{number % SERVERS:02}")
        for number, row in enumerate(rows)
    ]
    fleet = {
        f"db-{number:02}": {"tenants": len(rows) // SERVERS, "bytes": 10**9, "largest": 10**7}
        for number in range(SERVERS)
    }
    details = list(_tried())
    error = TenantryError("duplicate key value violates unique constraint", remedy="Mend the rows.")
    for field, part in (("rehearsal", len(items)), ("live_rehearsal", len(items) // 2)):
        operation_id = new_id()
        arguments = {"parallel": 4, "disk": 5 * 10**9, "seed": 7, "sample": None, "due": len(items), "fleet": fleet}
        async with platform.registry.write() as tx:
            await journal.submit(tx, operation_id, "rehearse", [(rehearse.STEP, "")], arguments=arguments, items=items)
            await _worked(tx, operation_id, part, set(range(0, part, part // 20 or 1)), error, details)
            state = State.DONE if part == len(items) else State.RUNNING
            if state is State.DONE:
                digest = await rehearsal.digest(tx, await journal.get(tx, operation_id))
                await journal.put_digest(tx, operation_id, digest)
            await journal.set_state(tx, operation_id, state, started=now())
        setattr(crowd, field, operation_id)


def _tried() -> Iterator[str]:
    """What the rehearsal of a tenant tells of three migrations."""
    for number in range(97):
        lock = {"table": "page", "mode": "ACCESS EXCLUSIVE", "blocks": "reads and writes", "seconds": 0.01 * number}
        tried = [
            {"version": f"000{at}_step", "seconds": 0.02 * number + at, "locks": [lock], "rewritten": ["page"]}
            for at in range(1, 4)
        ]
        told = {"before": None, "target": "0001_start", "bytes": 10**6 + number, "copying": 0.1, "tried": tried}
        yield json.dumps(told, separators=(",", ":"))


async def _verification(platform: Platform, crowd: Crowd, rows: Sequence[tenants.TenantRow]) -> None:
    """One of all tenants."""
    async with platform.registry.write() as tx:
        operation = await verify.submit(tx)
    tally = verify.Tally(["a", "b"])
    tally.add([Attempt("db", attack) for attack in ATTACKS[:100]], "a")
    tally.add([Attempt("media", attack) for attack in ATTACKS[100:]], "a")
    tally.add([Breach("config", "read the file as its own user", "it was read", promised=False)], "a")
    error = verify.IsolationBroken(tenant="t/production", slug="t", count=1, attack="x", resource="db")
    crowd.verification = operation.id
    async with platform.registry.write() as tx:
        await _worked(tx, operation.id, operation.total, set(), error, [tally.text()])
        await journal.put_digest(tx, operation.id, await verified.digest(tx, operation.id))
        await journal.set_state(tx, operation.id, State.DONE, started=now(), result={"verified": operation.total})

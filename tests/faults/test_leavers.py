"""Workers are killed (SIGKILL) while 20 tenants lose their people: none is forgotten, and none shut out twice."""

from __future__ import annotations

import asyncio
import json

import ground as g
from ground import Ground
from kills import populate
from tenantry.identity.scim.directory import Directory
from tenantry.model import new_id
from tenantry.platform import Platform
from tenantry.registry import leaving, sso
from tenantry.registry.directory import ScimToken

TENANTS, PEOPLE, KILLS = 20, 10, 3

SLUGS = [f"t{number}" for number in range(TENANTS)]
MAILS = [f"p{number}@acme.example" for number in range(PEOPLE)]

USER = "INSERT INTO tenantry_user (id, login, role, password, created) VALUES ('{id}', '{login}', 'user', 'x', 'now')"


async def organization(ground: Ground, platform: Platform) -> tuple[Directory, ScimToken]:
    """Acme with all tenants, each of which has a user for each of its people, and somebody else."""
    await populate(ground, platform, SLUGS)
    row = await platform.organizations.create("Acme", "it@acme.example")
    await platform.organizations.assign(row.id, SLUGS)
    async with platform.registry.write() as tx:
        await sso.claim(tx, row.id, "acme.example", "token")
        await sso.prove(tx, row.id, "acme.example")
    for slug in SLUGS:
        for login in (*MAILS, "else@other.example"):
            ground.sql(slug, USER.format(id=new_id(), login=login))
    made = await platform.scim.token(row.id, "provider")
    directory = Directory(platform.registry, platform.config)
    return directory, await directory.admit(row.id, made.token)


def users(ground: Ground) -> list[tuple[str, int, int]]:
    """Login, whether active, and epoch of all users of all tenants."""
    query = "SELECT login, active, epoch FROM tenantry_user WHERE login LIKE '%.example'"
    return sorted({(*row,) for slug in SLUGS for row in ground.sql(slug, query)})


async def carried_out(ground: Ground, platform: Platform, organization_id: str) -> list[int]:
    """Kill a worker in the middle some times, and let another one end it; how many marks each kill left."""
    left = []

    async def waiting() -> int:
        async with platform.registry.read() as tx:
            return await leaving.waiting(tx, organization_id)

    for _ in range(KILLS):
        before = await waiting()
        with ground.worker() as worker:

            async def begun(before: int = before) -> bool:
                return await waiting() < before

            await g.until(begun)
            worker.kill()
            worker.wait()
        left.append(await waiting())
        ground.control("UPDATE scim_mark SET taken = '2000-01-01 00:00:00.000000' WHERE taken IS NOT NULL")
    with ground.worker():

        async def over() -> bool:
            return not await waiting()

        await g.until(over)
    return left


async def test_a_killed_worker_forgets_nobody(ground: Ground) -> None:
    """Ten people leave 20 tenants while workers are killed; then they come back in the same way."""
    async with ground.open() as platform:
        directory, token = await organization(ground, platform)
        ids = []
        for mail in MAILS:
            ids.append((await directory.join(token, json.dumps({"userName": mail}).encode()))["id"])
        for active, marks in ((False, TENANTS * PEOPLE), (True, TENANTS * PEOPLE)):
            body = json.dumps({"Operations": [{"op": "replace", "path": "active", "value": active}]}).encode()
            await asyncio.gather(*(directory.patch(token, one, body, None) for one in ids))
            left = await carried_out(ground, platform, token.organization_id)
            assert left == sorted(left, reverse=True)
            assert 0 < left[0] < marks
            expected = [(mail, int(active), 1) for mail in MAILS] + [("else@other.example", 1, 0)]
            assert users(ground) == sorted(expected)
            shut = ground.control("SELECT count(*) FROM scim_shut")
            assert shut == [(0 if active else TENANTS * PEOPLE,)]

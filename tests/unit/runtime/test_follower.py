"""Following changes, and going on without the control database."""

from __future__ import annotations

import dataclasses
import json
import stat
from typing import Any

import pytest

from tenantry.errors import RegistryUnavailable
from tenantry.model import Loaded, Status
from tenantry.runtime.follower import read_snapshot, write_snapshot
from tenantry.runtime.table import Table


async def test_changes_arrive(world: Any, started: Any, until: Any) -> None:
    """A tenant that is made, suspended, resumed and destroyed elsewhere is so here."""
    runtime = await started()
    table = runtime.resolver.table
    acme = world.tenant("acme")
    await until(lambda: table.live.get(b"acme.example.com") is acme)
    shut = world.change(acme, status=Status.SUSPENDED)
    await until(lambda: table.closed.get(b"acme.example.com") is shut and not table.live)
    world.feed.put(acme)
    await until(lambda: table.live.get(b"acme.example.com") is acme and not table.closed)
    world.feed.remove(acme.tenant.id)
    await until(lambda: not table.tenants)
    assert runtime.health() == {"status": "ok", "seq": 4, "age": 0.0, "tenants": 0, "hostnames": 0}


async def test_control_database_gone(world: Any, started: Any, until: Any) -> None:
    """Resolving goes on from memory and says so; when the control database is back, what was missed is there."""
    acme = world.tenant("acme")
    runtime = await started()
    world.feed.gone = True
    await until(lambda: runtime.health()["status"] == "snapshot")
    assert runtime.resolver.quick(b"acme.example.com") is acme
    assert runtime.health()["age"] >= 0
    world.tenant("later")
    world.feed.remove(acme.tenant.id)
    world.feed.gone = False
    await until(lambda: runtime.health()["status"] == "ok")
    assert list(runtime.resolver.table.live) == [b"later.example.com"]


async def test_start_from_the_snapshot(world: Any, started: Any, until: Any) -> None:
    """A process that starts without the control database knows every tenant of the last snapshot."""
    path = world.root / "state" / "tenants.jsonl"
    acme = world.tenant(
        "acme", name="Ä\u2028", settings={"home": "x", "n": 1}, sealed_key=b"\0\xff", former_hosts=("o.org",)
    )
    world.tenant("shut", status=Status.SUSPENDED)
    first = await started(snapshot=path)
    await until(path.exists)
    await first.stop()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    world.feed.gone = True
    second = await started(snapshot=path)
    assert second.health()["status"] == "snapshot"
    assert second.resolver.quick(b"acme.example.com") == acme
    assert second.health()["hostnames"] == 2
    assert [found.name for found in path.parent.iterdir()] == [path.name]


async def test_start_from_nothing(world: Any) -> None:
    """Without control database and without a snapshot that can be read there is no start."""
    world.feed.gone = True
    path = world.root / "tenants.jsonl"
    for content in (None, "", "nonsense\n", '{"format": 99}\n', "[]\n"):
        if content is not None:
            path.write_text(content)
        with pytest.raises(RegistryUnavailable):
            await world.runtime(snapshot=path).start()


def test_a_snapshot_cut_short_is_not_used(world: Any) -> None:
    """Half a snapshot is none, wherever it ends."""
    path = world.root / "tenants.jsonl"
    table = Table(Loaded(7, [world.tenant(f"t{number}") for number in range(3)]))
    write_snapshot(path, table)
    whole = path.read_text()
    found = read_snapshot(path)
    assert found is not None
    assert (found[0].seq, list(found[0].environments)) == (7, list(table.environments()))
    for lines in range(len(whole.splitlines())):
        path.write_text("".join(whole.splitlines(keepends=True)[:lines]))
        assert read_snapshot(path) is None


def test_a_snapshot_holds_no_opened_secret(world: Any) -> None:
    """Secrets that were opened for drivers are not written."""
    path = world.root / "tenants.jsonl"
    acme = world.tenant("acme", secrets={"password": "hunter2"})
    write_snapshot(path, Table(Loaded(1, [acme])))
    assert "hunter2" not in path.read_text()
    assert json.loads(path.read_text().splitlines()[1])["tenant"]["slug"] == "acme"


async def test_places_are_shared(world: Any) -> None:
    """Equal places of a snapshot become one object, so that a million tenants need one."""
    path = world.root / "tenants.jsonl"
    write_snapshot(path, Table(Loaded(1, [world.tenant("a"), world.tenant("b")])))
    found = read_snapshot(path)
    assert found is not None
    first, second = found[0].environments
    assert all(one is other for one, other in zip(first.places, second.places, strict=True))


async def test_an_application_lists_the_tenants_that_are_served(world: Any, started: Any, until: Any) -> None:
    """One environment of each, by the name of the tenant; none that is suspended, none of a copy."""
    umbrella, zeta = world.tenant("umbrella", name="ärzte"), world.tenant("zeta", name="Acme")
    copy = dataclasses.replace(umbrella, id="copy", name="dev", hostnames=())
    world.feed.put(copy, umbrella)
    made = await started()
    assert [(one.tenant.slug, one.name) for one in made.environments()] == [
        ("zeta", "production"),
        ("umbrella", "production"),
    ]
    world.change(zeta, status=Status.SUSPENDED)
    await until(lambda: [one.tenant.slug for one in made.environments()] == ["umbrella"])

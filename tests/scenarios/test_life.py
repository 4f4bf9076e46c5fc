"""One tenant's life through the platform: made, changed, renamed, suspended, destroyed, made again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

import ground as g
from ground import Ground
from tenantry.errors import (
    ConfigError,
    HostTaken,
    LimitReached,
    MoveRefused,
    OperationInProgress,
    OperationRefused,
    SlugTaken,
    TenantNotFound,
)
from tenantry.platform import Platform
from tenantry.platform.operations import OperationDetails
from tenantry.refusals import InvalidRequest


@pytest.fixture
async def platform(ground: Ground) -> AsyncIterator[Platform]:
    """The platform, with a worker in this process."""
    async with ground.open() as platform, g.working(platform):
        yield platform


async def done(platform: Platform, operation: Any, state: str = "done") -> OperationDetails:
    """The end of an operation, which has to be this one."""
    details = await platform.operations.finish((await operation).id)
    assert details.operation.state == state, details.operation.error
    return details


def told(ground: Ground, slug: str) -> dict[str, Any]:
    """What the rendered file says."""
    found: dict[str, Any] = json.loads(ground.rendered(slug).read_text())
    return found


def in_clear(ground: Ground, secret: str) -> list[str]:
    """The files of the control database and of the engine that hold a text."""
    return [path.name for path in ground.data.glob("control*") if secret.encode() in path.read_bytes()]


async def test_credentials_are_shown_once(ground: Ground, platform: Platform) -> None:
    """The first password is shown once, was nowhere in clear, and is forgotten."""
    await done(platform, platform.tenants.create("acme"))
    shown = await platform.tenants.credentials("acme")
    assert shown is not None
    assert shown.login == "admin@acme.localhost"
    assert in_clear(ground, shown.password) == []
    assert await platform.tenants.credentials("acme") is None


async def test_edit(ground: Ground, platform: Platform) -> None:
    """An edit is in the registry and in the rendered file; what is unset is at its default again."""
    await done(platform, platform.tenants.create("acme"))
    await done(platform, platform.tenants.edit("acme", name="Straße & Söhne", plan="pro", settings={"share": "4"}))
    details = await platform.tenants.show("acme")
    assert (details.row.name, details.row.plan) == ("Straße & Söhne", "pro")
    assert (told(ground, "acme")["name"], told(ground, "acme")["share"]) == ("Straße & Söhne", 25)
    await done(platform, platform.tenants.edit("acme", unset=["share"]))
    assert told(ground, "acme")["share"] == 100
    assert await g.faults(ground, platform) == []


async def test_secret_value(ground: Ground, platform: Platform) -> None:
    """A secret value reaches the rendered file, of mode 0600, and is nowhere in clear in the control database."""
    await done(platform, platform.tenants.create("acme", settings={"smtp_password": "first-geheim"}))
    assert told(ground, "acme")["smtp"] == "first-geheim"
    await done(platform, platform.tenants.edit("acme", settings={"smtp_password": "second-geheim"}))
    assert told(ground, "acme")["smtp"] == "second-geheim"
    assert ground.rendered("acme").stat().st_mode & 0o777 == 0o600
    assert in_clear(ground, "geheim") == []
    await done(platform, platform.tenants.edit("acme", unset=["smtp_password"]))
    assert told(ground, "acme")["smtp"] == ""


async def test_failed_edit_is_undone(ground: Ground, platform: Platform) -> None:
    """An edit that the template cannot take names the cause and leaves registry, secrets and file as they were."""
    await done(platform, platform.tenants.create("acme", settings={"smtp_password": "first"}))
    edit = platform.tenants.edit("acme", settings={"share": 0, "smtp_password": "second"})
    failed = await done(platform, edit, "failed")
    assert "zero" in str(failed.operation.error)
    assert told(ground, "acme")["smtp"] == "first"
    assert (await platform.tenants.show("acme")).tenant.settings == {}
    await done(platform, platform.tenants.edit("acme", settings={"share": 2}))
    assert (told(ground, "acme")["share"], told(ground, "acme")["smtp"]) == (50, "first")
    assert await g.faults(ground, platform) == []


async def test_unknown_settings_are_refused(platform: Platform) -> None:
    """Settings, plans and values that the blueprint does not have are refused before anything is reserved."""
    for wrong in ({"settings": {"colour": "red"}}, {"plan": "gold"}, {"settings": {"share": "many"}}):
        with pytest.raises(ConfigError):
            await platform.tenants.create("acme", **wrong)  # type: ignore[arg-type]
    assert await platform.tenants.list() == []


async def test_rename(ground: Ground, platform: Platform) -> None:
    """A rename moves the rendered file and the hostname; the old names are held, lead here, and can be taken back."""
    await done(platform, platform.tenants.create("acme"))
    await done(platform, platform.tenants.rename("acme", "apex"))
    (environment,) = (await platform.tenants.show("apex")).environments
    assert (environment.hostnames, environment.former) == (("apex.localhost",), ("acme.localhost",))
    assert environment.tenant.former == ("acme",)
    assert told(ground, "apex")["host"] == "apex.localhost"
    assert not ground.rendered("acme").parent.exists()
    await done(platform, platform.tenants.create("other"))
    with pytest.raises(SlugTaken, match="held for 'apex'"):
        await platform.tenants.create("acme")
    with pytest.raises(SlugTaken, match="held for 'apex'"):
        await platform.tenants.rename("other", "acme")
    await done(platform, platform.tenants.rename("apex", "acme"))
    (environment,) = (await platform.tenants.show("acme")).environments
    assert (environment.hostnames, environment.former) == (("acme.localhost",), ("apex.localhost",))
    assert environment.tenant.former == ("apex",)
    assert await g.faults(ground, platform) == []


async def test_two_renames_to_one_slug(platform: Platform) -> None:
    """Both are queued, since the slug is free; one gets it, the other keeps its own and is told why."""
    for slug in ("acme", "other"):
        await done(platform, platform.tenants.create(slug))
    first = await platform.tenants.rename("acme", "apex")
    second = await platform.tenants.rename("other", "apex")
    await platform.operations.finish(first.id)
    error = (await platform.operations.finish(second.id)).operation.error
    assert error is not None
    assert error["code"] == "slug.taken"
    assert [row.slug for row in await platform.tenants.list()] == ["apex", "other"]
    await done(platform, platform.tenants.rename("other", "third"))


async def test_rename_then_destroy_frees_both_slugs(ground: Ground, platform: Platform) -> None:
    """Destroying a renamed tenant frees its former slug too."""
    await done(platform, platform.tenants.create("acme"))
    await done(platform, platform.tenants.rename("acme", "apex"))
    await done(platform, platform.tenants.destroy("apex"))
    await done(platform, platform.tenants.create("acme"))
    await done(platform, platform.tenants.create("apex"))
    assert await g.faults(ground, platform) == []


async def test_rename_that_fails_is_undone(ground: Ground, platform: Platform) -> None:
    """A rename whose file cannot be rendered gives the tenant its names back."""
    await done(platform, platform.tenants.create("acme"))
    template = ground.root / "templates" / "env.json.j2"
    whole = template.read_text()
    template.write_text("{% if slug == 'apex' %}{{ 1 // 0 }}{% endif %}" + whole)
    await done(platform, platform.tenants.rename("acme", "apex"), "failed")
    (environment,) = (await platform.tenants.show("acme")).environments
    assert (environment.hostnames, environment.former, environment.tenant.former) == (("acme.localhost",), (), ())
    template.write_text(whole)
    assert await g.faults(ground, platform) == []
    await done(platform, platform.tenants.create("apex"))


async def test_suspend_and_resume(platform: Platform) -> None:
    """A suspended tenant says why, can be edited, cannot be suspended again, and is active after resuming."""
    await done(platform, platform.tenants.create("acme"))
    with pytest.raises(InvalidRequest, match="501 characters"):
        await platform.tenants.suspend("acme", "x" * 501)
    await done(platform, platform.tenants.suspend("acme", "unpaid"))
    row = (await platform.tenants.show("acme")).row
    assert (row.status, row.reason) == ("suspended", "unpaid")
    with pytest.raises(MoveRefused):
        await platform.tenants.suspend("acme")
    await done(platform, platform.tenants.edit("acme", name="Acme"))
    await done(platform, platform.tenants.resume("acme"))
    row = (await platform.tenants.show("acme")).row
    assert (row.status, row.reason) == ("active", "")
    with pytest.raises(MoveRefused):
        await platform.tenants.resume("acme")


async def test_destroy_and_create_again(ground: Ground, platform: Platform) -> None:
    """Destroying leaves nothing; the same slug can be used again at once, and is another tenant."""
    await done(platform, platform.tenants.create("acme"))
    first = (await platform.tenants.show("acme")).row.id
    ground.sql("acme", "INSERT INTO page (title) VALUES ('old')")
    await done(platform, platform.tenants.destroy("acme"))
    assert await platform.tenants.leftovers("acme") == []
    assert await g.faults(ground, platform) == []
    with pytest.raises(TenantNotFound):
        await platform.tenants.destroy("acme")
    await done(platform, platform.tenants.create("acme"))
    assert (await platform.tenants.show("acme")).row.id != first
    assert ground.sql("acme", "SELECT count(*) FROM page") == [(0,)]


async def test_second_operation_is_refused(ground: Ground) -> None:
    """While one operation holds a tenant, another is refused and names the first."""
    async with ground.open() as platform:
        first = await platform.tenants.create("acme")
        for other in (platform.tenants.edit("acme", name="x"), platform.tenants.rename("acme", "apex")):
            with pytest.raises(OperationInProgress, match=first.id):
                await other
        with pytest.raises(OperationInProgress, match=first.id):
            await platform.tenants.destroy("acme")
        async with g.working(platform):
            await g.ended(platform, first)
            await done(platform, platform.tenants.destroy("acme"))


async def test_cancel_of_a_queued_create(ground: Ground) -> None:
    """A create that is cancelled before it begins is undone, and its slug is free."""
    async with ground.open() as platform:
        operation = await platform.tenants.create("acme")
        await platform.operations.cancel(operation.id)
        details = await platform.operations.finish(operation.id)
        assert details.operation.state == "cancelled"
        assert await platform.tenants.list() == []
        assert await g.faults(ground, platform) == []
        with pytest.raises(OperationRefused):
            await platform.operations.cancel(operation.id)
        await done(platform, platform.tenants.create("acme"))


async def test_cancel_of_a_running_create(ground: Ground, platform: Platform) -> None:
    """A create that is cancelled while it runs is undone behind the step it is at, and its slug is free."""
    template = ground.root / "templates" / "env.json.j2"
    template.write_text("{% for i in range(90000) %}{% for j in range(90) %}{% endfor %}{% endfor %}")
    operation = await platform.tenants.create("acme")

    async def at_the_file() -> bool:
        return (await platform.operations.show(operation.id)).operation.done == 2

    await g.until(at_the_file, "the third step")
    await platform.operations.cancel(operation.id)
    details = await platform.operations.finish(operation.id)
    assert details.operation.state == "cancelled"
    assert {step.state.value for step in details.steps} <= {"undone", "pending"}
    template.write_text(g.TEMPLATE)
    assert await platform.tenants.list() == []
    assert list(ground.data.glob("tenants/*")) == []
    assert await g.faults(ground, platform) == []
    await done(platform, platform.tenants.create("acme"))


async def test_cancel_of_a_queued_destroy_spares_the_tenant(ground: Ground) -> None:
    """A destroy that is cancelled before it begins leaves the tenant whole and served."""
    async with ground.open() as platform:
        await done(platform, platform.tenants.create("acme"))
        operation = await platform.tenants.destroy("acme")
        await platform.operations.cancel(operation.id)
        assert (await platform.operations.finish(operation.id)).operation.state == "cancelled"
        assert (await platform.tenants.show("acme")).row.status == "active"
        assert await g.faults(ground, platform) == []


async def test_a_destroy_that_began_cannot_be_cancelled(ground: Ground) -> None:
    """Once a worker has a destroy, the tenant is going: cancelling is refused, whatever is done of it."""
    async with ground.open() as platform:
        await done(platform, platform.tenants.create("acme"))
        operation = await platform.tenants.destroy("acme")
        ground.control("UPDATE operation SET state = 'running' WHERE verb = 'destroy'")
        with pytest.raises(OperationRefused, match="cancelled"):
            await platform.operations.cancel(operation.id)
        assert (await platform.operations.finish(operation.id)).operation.state == "done"


async def test_failing_create_names_the_cause_and_can_be_resumed(ground: Ground, platform: Platform) -> None:
    """A create that fails is undone and names template and line; after mending, resuming it makes the tenant."""
    template = ground.root / "templates" / "env.json.j2"
    whole = template.read_text()
    template.write_text("{\n{{ values.colour }}")
    failed = await done(platform, platform.tenants.create("acme", name="Acme"), "failed")
    assert "env.json.j2" in failed.operation.error["message"]  # type: ignore[index]
    assert "colour" in failed.operation.error["message"]  # type: ignore[index]
    assert await platform.tenants.list() == []
    template.write_text(whole)
    assert await g.faults(ground, platform) == []
    await platform.operations.resume(failed.operation.id)
    assert (await platform.operations.finish(failed.operation.id)).operation.state == "done"
    assert told(ground, "acme")["name"] == "Acme"
    assert await g.faults(ground, platform) == []


async def test_resuming_a_create_keeps_the_rules(ground: Ground, platform: Platform) -> None:
    """A failed create whose slug is held for a renamed tenant by now cannot be resumed."""
    failed = await done(platform, platform.tenants.create("acme", settings={"share": 0}), "failed")
    await done(platform, platform.tenants.create("acme"))
    await done(platform, platform.tenants.rename("acme", "apex"))
    with pytest.raises((SlugTaken, HostTaken)):
        await platform.operations.resume(failed.operation.id)


async def test_two_processes_want_one_slug(ground: Ground) -> None:
    """Of two processes that create the same slug at the same time, one gets it and the other is told why not."""
    async with ground.open() as platform:
        with ground.worker() as worker:
            await g.lives(platform, worker)
            both = [ground.command("tenant", "create", "acme") for _ in range(2)]
            texts = [process.communicate(timeout=g.PATIENCE)[0] for process in both]
        assert sorted(process.returncode for process in both) == [0, 3], texts
        assert sum("taken" in text for text in texts) == 1
        assert len(await platform.tenants.list()) == 1
        assert await g.faults(ground, platform) == []


async def test_max_tenants(ground: Ground) -> None:
    """No more tenants than platform.max_tenants, by whatever way they come."""
    ground.config.write_text(ground.config.read_text().replace('data = "var"', 'data = "var"\nmax_tenants = 2'))
    names = ground.root / "names.csv"
    names.write_text("slug\none\ntwo\n")
    async with ground.open() as platform:
        queued = await platform.tenants.import_csv(names)
        failing = await platform.tenants.create("broken", settings={"share": 0})
        first = await platform.tenants.create("acme")
        with pytest.raises(LimitReached, match="max_tenants"):
            await platform.tenants.create("third")
        async with g.working(platform):
            assert (await g.ended(platform, failing)).operation.state == "failed"
            assert (await g.ended(platform, first)).operation.state == "done"
            await g.ended(platform, queued)
            assert len(await platform.tenants.list()) <= 2
            while len(await platform.tenants.list()) < 2:
                await done(platform, platform.tenants.create("filler"))
            with pytest.raises(LimitReached, match="max_tenants"):
                await platform.operations.resume(failing.id)
            with pytest.raises(LimitReached, match="max_tenants"):
                await platform.tenants.import_csv(names)
        assert await g.faults(ground, platform) == []

"""`tenantry verify`: what it tells of tenants that are kept apart, its reports, and its runs that are cut short."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import ground as g
from servers import Postgres
from shelves import Shelves
from tenantry.errors import ConfigError, TenantNotFound
from tenantry.operations import verify
from tenantry.platform import Platform
from tenantry.platform.verify import ReportBroken, ReportForeign, ReportOld, ReportTampered, canonical, written
from tenantry.registry import Vault
from tenantry.registry.journal import State
from verifying import KINDS, populated, verified


def canaries(ground: g.Ground) -> list[str]:
    """Where canaries are, on disk."""
    found = [str(path) for path in ground.data.rglob(".canary-of-tenantry")]
    for path in ground.data.glob("tenants/*/*/db.sqlite"):
        with closing(sqlite3.connect(path)) as connection:
            if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'tenantry_canary'").fetchone():
                found.append(str(path))
    return found


# --- no breach ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_tenants_that_are_kept_apart(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """On every kind, nothing gets through, everything could be tried, and nothing is left behind or has drifted.

    What a kind never promised is told, each by its name, and nothing else is.
    """
    ground = KINDS[kind].made(tmp_path / "platform", request)
    async with ground.open() as platform:
        await populated(platform, "acme", "umbrella", "initech")
        report = await verified(platform)
        for tenant in report["tenants"]:
            assert (tenant["outcome"], tenant["breaches"], tenant["untried"]) == ("kept apart", [], [])
            assert len(tenant["against"]) == 2
            assert tenant["tenant"] not in tenant["against"]
        told = {one["attack"] for tenant in report["tenants"] for one in tenant["not_promised"]}
        assert told == KINDS[kind].not_promised
        assert report["counts"]["kept"] > 300
        assert {"requests", "sessions", "cache", "keys", "db", "config"} <= report["attacks"].keys()
        assert all("canary" in report["attacks"][name] for name in ("db", "config", "sessions"))
        assert await g.faults_of(platform) == []
        assert (await platform.status())["verified"]["verified"] == 3


# --- who is attacked ----------------------------------------------------------------------------------------------


async def test_a_sample_or_those_named_are_attacked(ground: g.Ground) -> None:
    """A number, a share rounded up, or named tenants; what is no sample and no tenant is refused."""
    async with ground.open() as platform:
        await populated(platform, "acme", "umbrella", "initech")
        assert len((await verified(platform, sample="2"))["tenants"]) == 2
        assert len((await verified(platform, sample="1%"))["tenants"]) == 1
        named = await verified(platform, slugs=["umbrella"])
        assert [tenant["tenant"] for tenant in named["tenants"]] == ["umbrella"]
        assert named["environments"] == 3
        for wrong in ("0", "0%", "101%", "many", "-1", ""):
            with pytest.raises(ConfigError):
                await platform.verification.run(wrong)
        with pytest.raises(TenantNotFound):
            await platform.verification.run(slugs=["nobody"])


def test_attackers_are_chosen_near_and_by_lot() -> None:
    """Each has at most two, one of them on its own server; never itself, never of another blueprint; alone, none."""
    peers = [
        verify.Peer(f"t{n}", f"t{n}", f"e{n}", "production", "site" if n % 5 else "shop", frozenset({f"pg{n % 3}"}))
        for n in range(1, 300)
    ]
    by_tenant = {peer.tenant: peer for peer in peers}
    lots = verify.Lots(peers, random.Random(1))
    for peer in peers:
        others = [by_tenant[tenant] for tenant, _ in lots.of(peer)]
        assert len(others) == verify.OTHERS
        assert peer not in others
        assert {other.blueprint for other in others} == {peer.blueprint}
        assert any(other.servers == peer.servers for other in others)
    alone = verify.Peer("a", "a", "a", "production", "own", frozenset())
    assert verify.Lots([alone], random.Random(1)).of(alone) == []


def test_the_command_refuses_what_makes_no_sense(ground: g.Ground) -> None:
    """Tenants beside a sample, a report that cannot be written or is not waited for, an unknown tenant."""
    for code, *arguments in (
        (2, "acme", "--sample", "2"),
        (2, "--report", str(ground.root / "nowhere" / "verify.json")),
        (2, "--report", str(ground.root)),
        (2, "--report", str(ground.root / "verify.json"), "--no-wait"),
        (4, "nobody"),
    ):
        assert run(ground, "verify", *arguments)[0] == code, arguments


async def test_a_tenant_alone_counts_as_not_verified(ground: g.Ground) -> None:
    """Without anybody to attack, nothing is known: the run fails and says why."""
    async with ground.open() as platform:
        await populated(platform, "acme")
        report = await verified(platform)
        assert report["state"] == "failed"
        assert report["tenants"][0]["outcome"] == "not verified"
        operation = await platform.verification.last()
        assert operation is not None
        (item,) = (await platform.operations.show(operation.id)).items
        assert "its blueprint has no other tenant" in (item.error or {})["message"]


async def test_what_cannot_be_tried_is_no_success(ground: g.Ground) -> None:
    """A database that is gone is told as not tried; its tenant's other parts are attacked all the same."""
    async with ground.open() as platform:
        await populated(platform, "acme", "umbrella")
        ground.database("acme").unlink()
        report = await verified(platform, slugs=["acme"])
    (tenant,) = report["tenants"]
    assert {one["resource"] for one in tenant["untried"]} >= {"db"}
    assert "db" not in tenant["kept"]
    assert tenant["kept"]["media"]
    assert (tenant["outcome"], report["state"]) == ("not verified", "failed")


async def test_a_server_that_is_down_fails_the_run(tmp_path: Path, own_postgres: Postgres) -> None:
    """With its server gone a tenant's database is not tried; nothing about it is said to be kept out."""
    shelves = Shelves(tmp_path / "platform", own_postgres)
    async with shelves.open() as platform:
        await populated(platform, "acme", "umbrella")
        own_postgres.process.send_signal(signal.SIGKILL)
        own_postgres.process.wait()
        report = await verified(platform)
    assert report["state"] == "failed"
    for tenant in report["tenants"]:
        assert tenant["outcome"] == "not verified"
        assert "db" not in tenant["kept"]
        assert any(one["resource"] == "db" for one in tenant["untried"])


# --- reports ------------------------------------------------------------------------------------------------------


@pytest.fixture
def report(ground: g.Ground) -> Path:
    """A signed report, and the command that wrote it."""
    for command in (("tenant", "create", "acme"), ("tenant", "create", "umbrella")):
        assert run(ground, *command)[0] == 0
    path = ground.root / "verify.json"
    code, output = run(ground, "verify", "--report", str(path))
    assert code == 0, output
    assert "0 got through, 0 not tried." in output
    return path


def run(ground: g.Ground, *arguments: str) -> tuple[int, str]:
    """Run a command to its end."""
    process = ground.command(*arguments)
    output, _ = process.communicate(timeout=g.PATIENCE)
    return process.returncode, output


async def test_a_report_proves_itself_and_nothing_else(ground: g.Ground, report: Path, tmp_path: Path) -> None:
    """A genuine report is proven; tampered, cut short, another platform's and old ones are each told apart."""
    code, output = run(ground, "verify", "--check-report", str(report))
    assert code == 0, output
    key = run(ground, "verify", "--public-key")[1].strip()
    content = json.loads(report.read_text())
    assert content["public_key"] == key
    assert Vault.verify_report(key, canonical(content), content["signature"])
    async with ground.open() as platform:
        for fault, changed in _tampered(report.read_text(), platform):
            path = tmp_path / "changed.json"
            path.write_text(changed)
            with pytest.raises(fault):
                platform.verification.check(path)
        with pytest.raises(ReportOld):
            platform.verification.check(report, timedelta(seconds=-1))
    assert run(ground, "verify", "--check-report", str(tmp_path / "nowhere.json"))[0] == 1
    other = g.Ground(tmp_path / "other")
    code, output = run(other, "verify", "--check-report", str(report))
    assert (code, "report.foreign" in output) == (1, True), output


def _tampered(text: str, platform: Platform) -> Iterator[tuple[type[Exception], str]]:
    content = json.loads(text)
    yield ReportTampered, text.replace('"breaches": 0', '"breaches": 1')
    yield ReportTampered, json.dumps(content | {"environments": 1000})
    yield ReportTampered, json.dumps(content | {"signature": "00" * 64})
    yield ReportTampered, json.dumps(content | {"signature": "not hex"})
    yield ReportTampered, text.replace(content["signature"], content["signature"].upper())
    yield ReportTampered, text.replace('"breaches": 0', '"breaches": 7, "breaches": 0')  # the last one counts
    yield ReportTampered, json.dumps(content)  # spelled otherwise
    yield ReportTampered, text + "\n"
    yield ReportForeign, json.dumps(content | {"public_key": "00" * 32})
    yield ReportBroken, text[: len(text) // 2]
    yield ReportBroken, json.dumps({key: value for key, value in content.items() if key != "signature"})
    yield ReportBroken, json.dumps(content | {"public_key": 5})
    yield ReportBroken, ""
    yield ReportBroken, "[]"
    yield ReportBroken, "[" * 100_000
    old = content | {"ended": (datetime.now(UTC) - timedelta(days=31)).isoformat(timespec="seconds")}
    yield ReportTampered, json.dumps(old)
    signed = old | {"signature": platform.registry.vault.sign_report(canonical(old))}
    yield ReportOld, written(signed).decode()


async def test_a_report_with_any_byte_changed_is_refused(ground: g.Ground, report: Path, tmp_path: Path) -> None:
    """Bytes changed, taken out or put in, anywhere: in the middle of each word, in spaces and in the signature."""
    raw, lot = report.read_bytes(), random.Random(4)
    places = [*range(300), *range(len(raw) - 300, len(raw)), *lot.sample(range(len(raw)), 600)]
    changed = tmp_path / "changed.json"
    async with ground.open() as platform:
        assert platform.verification.check(report).state == "done"
        for place in places:
            other = lot.choice([byte for byte in b'\t\n\r {}[],:"0123456789aAzZ\\\x00\xff' if byte != raw[place]])
            for middle in (
                bytes([other]),
                b"",
                bytes([raw[place], other]),
                bytes([raw[place] ^ 1 << lot.randrange(8)]),
            ):
                changed.write_bytes(raw[:place] + middle + raw[place + 1 :])
                with pytest.raises((ReportBroken, ReportForeign, ReportTampered)):
                    platform.verification.check(changed)


# --- what was found before ----------------------------------------------------------------------------------------


async def test_past_verifications_are_listed_and_shown_again(ground: g.Ground, report: Path) -> None:
    """The list has each with its end; one shown again is the same report, signed, with the same exit code."""
    media = next(ground.data.glob("tenants/acme-????????/production/media"))
    media.chmod(0o755)
    assert run(ground, "verify")[0] == 1
    code, output = run(ground, "verify", "--list", "--json")
    broken, good = json.loads(output)
    assert code == 0
    assert [(one["state"], one["breaches"], one["environments"]) for one in (broken, good)] == [
        ("failed", 1, "2 of 2"),
        ("done", 0, "2 of 2"),
    ]
    again = ground.root / "again.json"
    assert run(ground, "verify", "--show", good["id"], "--report", str(again))[0] == 0
    assert again.read_bytes() == report.read_bytes()
    code, output = run(ground, "verify", "--show", broken["id"])
    assert (code, "media has mode 0755, wider than 0700" in output) == (1, True)
    assert run(ground, "verify", "--show", "nothing")[0] == 4
    assert run(ground, "verify", "--list", "--show", good["id"])[0] == 2


async def test_metrics_of_the_newest_verification(ground: g.Ground) -> None:
    """Prometheus reads when it ended, how long it took, and what came of it; before the first, there are no values."""
    async with ground.open() as platform:
        assert values(await platform.verification.metrics()) == {}
        await populated(platform, "acme", "umbrella", "initech")
        await verified(platform, sample="2")
        await platform.verification.run()  # under way: it is not the newest that ended
        found = values(await platform.verification.metrics())
        last = (await platform.verification.list())[1]
    assert last.ended
    assert last.ended.timestamp() == pytest.approx(found.pop("ended_timestamp_seconds"))
    assert found.pop("kept") > 100
    assert 0 < found.pop("duration_seconds") < g.PATIENCE
    assert found == {
        "success": 1,
        "environments": 3,
        "environments_chosen": 2,
        "environments_kept_apart": 2,
        "breaches": 0,
        "not_tried": 0,
    }
    assert values(run(ground, "verify", "--metrics")[1]).keys() > found.keys()


def values(text: str) -> dict[str, float]:
    """The metrics in Prometheus' text format, by name without its beginning."""
    return {
        sample.name.removeprefix("tenantry_verify_"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_run_with_a_breach_exits_with_one_and_its_report_too(ground: g.Ground, report: Path) -> None:
    """A breach is told in full, with exit status 1, also by whoever checks the report; `resume` tries it again."""
    media = next(ground.data.glob("tenants/acme-????????/production/media"))
    media.chmod(0o755)
    code, output = run(ground, "verify", "--report", str(report))
    assert code == 1
    assert "Got through:" in output
    assert "media has mode 0755, wider than 0700" in output
    code, output = run(ground, "verify", "--check-report", str(report))
    assert (code, bool(re.search("breaches +1\n", output))) == (1, True), output
    media.chmod(0o700)
    async with ground.open() as platform:
        last = await platform.verification.last()
        assert last is not None
        await platform.operations.resume(last.id)
        assert (await platform.operations.finish(last.id)).operation.state is State.DONE
        assert "tenant.breach" in [entry.action for entry in await platform.audit.list()]


# --- cut short, twice at once, on a schedule ----------------------------------------------------------------------


async def killed_half_way(ground: g.Ground, platform: Platform) -> str:
    """Kill a command that verifies while canaries are planted; the operation's id."""
    process = ground.command("verify")

    async def planted() -> bool:
        assert process.poll() is None, process.stdout and process.stdout.read()
        return bool(canaries(ground))

    await g.until(planted, "a canary")
    process.kill()
    process.communicate()
    (operation,) = await platform.operations.list(verb="verify")
    return operation.id


async def test_a_killed_run_is_finished_and_leaves_no_canary(ground: g.Ground) -> None:
    """A worker goes on where the killed one was; no canary stays."""
    async with ground.open() as platform:
        await populated(platform, "acme", "umbrella", "initech", "hooli")
        operation = await killed_half_way(ground, platform)
        assert canaries(ground)
        details = await platform.operations.finish(operation)
        assert details.operation.state is State.DONE
        assert details.operation.done == 4
        assert canaries(ground) == []
        assert await g.faults(ground, platform) == []


@pytest.mark.parametrize("left", ["media/.tenantry-0123456789abcdef", ".tenantry-0123456789abcdef", "link"])
async def test_what_a_killed_run_was_writing_is_removed_by_the_next(ground: g.Ground, left: str) -> None:
    """Files half written, and the link of an attack, wherever the kill came."""
    async with ground.open() as platform:
        await populated(platform, "acme", "umbrella")
        (environment,) = (await platform.tenants.show("acme")).environments
        home = ground.data / environment.home
        if left == "link":
            (home / ".tenantry-attack-01234567").symlink_to("/")
        else:
            (home / left).write_text("half a can")
        assert await g.faults(ground, platform)
        operation = await platform.verification.run()
        assert (await platform.operations.finish(operation.id)).operation.state is State.DONE
        assert await g.faults(ground, platform) == []


async def test_a_killed_run_that_is_cancelled_leaves_no_canary(ground: g.Ground) -> None:
    """Cancelling a run that was killed removes what it planted."""
    async with ground.open() as platform:
        await populated(platform, "acme", "umbrella", "initech", "hooli")
        operation = await killed_half_way(ground, platform)
        await platform.operations.cancel(operation)
        assert (await platform.operations.finish(operation)).operation.state is State.CANCELLED
        assert canaries(ground) == []


async def test_two_runs_at_once_do_not_meet(ground: g.Ground) -> None:
    """Two verifications of the same tenants take turns; neither takes the other's canary for a stray one."""
    async with ground.open() as platform:
        await populated(platform, "acme", "umbrella")
        first, second = await platform.verification.run(), await platform.verification.run()
        async with g.working(platform):
            ends = await asyncio.gather(*(g.ended(platform, one) for one in (first, second)))
    assert [one.operation.state for one in ends] == [State.DONE, State.DONE]
    assert canaries(ground) == []


async def test_a_schedule_begins_one_run_for_each_moment(ground: g.Ground) -> None:
    """Due once: entered once, by whichever worker asks first; not before the first moment after a worker began."""
    async with ground.open() as platform:
        await populated(platform, "acme", "umbrella")
        hour = datetime.now(UTC) - timedelta(hours=25)
        entered = []
        for since in (datetime.now(UTC) + timedelta(minutes=1), hour, hour):
            async with platform.registry.write(verify.SCHEDULE) as tx:
                entered.append(await verify.submit_due(tx, "0 0 * * *", "50%", since))
        assert [one is not None for one in entered] == [False, True, False]
        assert (await platform.operations.finish(entered[1].id)).operation.total == 1


async def test_a_worker_verifies_on_its_schedule(ground: g.Ground) -> None:
    """A worker enters what the schedule asks for, in the name of the schedule, and runs it."""
    with ground.config.open("a") as file:
        file.write('\n[verify]\nschedule = "* * * * * *"\nsample = "1"\n')
    async with ground.open() as platform:
        await populated(platform, "acme", "umbrella")
        with ground.worker():

            async def over() -> Any:
                last = await platform.verification.last()
                return last is not None and last

            found = await g.until(over, "a verification on schedule", patience=3 * g.PATIENCE)
    assert (found.actor, found.state, found.total) == ("schedule", State.DONE, 1)

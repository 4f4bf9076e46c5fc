"""Tenants on three servers: one that is lost takes its own tenants alone, and they are back when it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import outages
import servers
import threefold
from tenantry.platform import Platform
from tenantry.runtime import Runtime

pytestmark = pytest.mark.postgres

TENANTS = 300


@contextmanager
def killed(server: servers.Postgres) -> Iterator[None]:
    """A server that is not there."""
    with outages.down(server):
        yield


async def test_a_lost_server_takes_its_own_tenants_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, then frozen: nobody on the other two sees an error, its own are refused in words, and served again."""
    monkeypatch.setattr("tenantry.runtime.runtime._installed", None)
    with threefold.three() as found:
        async with threefold.platform(tmp_path, found, TENANTS) as platform, threefold.running(tmp_path) as runtime:
            spread = threefold.by_server(runtime)
            assert {name: len(some) for name, some in spread.items()} == dict.fromkeys(threefold.NAMES, TENANTS // 3)
            before = await threefold.load(runtime, 2)
            assert not any(answers.errors for answers in before.values())
            for gone in (killed, threefold.frozen):
                with gone(found["pg2"]):
                    await _lost(runtime, platform)
                await threefold.back(spread["pg2"][0])
                after = await threefold.load(runtime, 2)
                assert not any(answers.errors for answers in after.values())


async def _lost(runtime: Runtime, platform: Platform) -> None:
    """What is so while pg2 does not answer."""
    during = await threefold.load(runtime, 6)
    for name in ("pg1", "pg3"):
        assert not during[name].errors
        assert during[name].seconds
    assert set(during["pg2"].errors) == {"server.unavailable"}
    assert len(during["pg2"].refused) > 20  # each soon: one that hangs could not be refused often
    lost = {row.name for row in await platform.servers.list() if row.answers is None}
    assert lost == {"pg2"}

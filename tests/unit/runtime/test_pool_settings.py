"""What the runtime is told of pools by tenantry.toml."""

from __future__ import annotations

from pathlib import Path

from tenantry.application import settings
from tenantry.operations.blueprints import read_config
from tenantry.runtime.settings import PoolLimits

TOML = """
[platform]
name = "Lab"
domain = "example.com"
[runtime]
leak_after = "2m"
[servers.pg1]
kind = "postgres"
url = "postgresql://admin@127.0.0.1/postgres"
[blueprints.lab.resources]
db = {kind = "postgres", pool = {size = 2, overflow = 3, idle = "1m"}}
log = {kind = "postgres", name = "log_{slug}"}
files = {kind = "directory"}
"""


def test_pools(tmp_path: Path) -> None:
    """Each resource on a server has its limits, those left out the usual ones; others have none."""
    (tmp_path / "tenantry.toml").write_text(TOML)
    known = settings(read_config(tmp_path / "tenantry.toml"))
    assert known.pools == {("lab", "db"): PoolLimits(2, 3, 60.0), ("lab", "log"): PoolLimits(5, 10, 300.0)}
    assert known.leak_after == 120.0

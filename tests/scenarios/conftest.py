"""A platform for each scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from ground import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """A platform without tenants."""
    return Ground(tmp_path / "platform")

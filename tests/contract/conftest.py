"""The registry under test: the same suite runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from registries import KEY
from tenantry.registry import Registry, Vault


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty control database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'control.sqlite'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    """A new registry."""
    async with Registry.open(url, Vault(KEY), actor="tester") as registry:
        yield registry


@pytest.fixture
def cut_off(url: str, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Takes the control database away from those who use it."""

    def cut() -> None:
        if url.startswith("sqlite"):
            for file in Path(url.removeprefix("sqlite:///")).parent.glob("control.sqlite*"):
                file.unlink()
        else:
            request.getfixturevalue("postgres").close(url)

    return cut

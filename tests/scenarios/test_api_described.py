"""The API does what its description says, whatever it is sent: schemathesis makes the requests up."""

from __future__ import annotations

import os

import fuzzing
import ground as g

CASES = int(os.environ.get("API_CASES", "0"))
"""How many requests at least; 0: a few of each address, as the suite does it."""


async def test_nothing_breaks_the_description(ground: g.Ground) -> None:
    """No fault of ours, no undeclared status, media type or header, no answer that its schema does not allow."""
    few = ("--phases", "fuzzing", "--max-examples", "2")
    many = ("--phases", "coverage,fuzzing", "--max-examples", str(max(3, CASES // 80)))
    async with ground.open() as platform:
        found = await fuzzing.fuzz(ground, platform, *(many if CASES else few))
        assert found.status == 0, found.told
        assert found.cases >= max(CASES, 200), found.told
        await platform.audit.verify()
        assert "root@example.org" in {row.mail for row in await platform.admins.list()}

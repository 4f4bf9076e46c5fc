"""The matrix of faults, printed at the end of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ground import Ground
from kills import Case, Killed, Moment, Submit, note, run, whole
from tenantry.platform import Platform

MATRIX = "fault"
"""Reports carry lines of the matrix under this name, so that they reach the end of a run over several processes."""


@pytest.fixture
def ground(tmp_path: Any) -> Ground:
    """A platform without tenants."""
    return Ground(tmp_path / "platform")


@pytest.fixture
def killed(tmp_path: Path, record_property: Any) -> Killed:
    """One row of the matrix after the other: killed there, ended by another worker, all of its steps done once."""

    async def kill(
        verb: str, ground: Ground, platform: Platform, moments: list[Moment], submit: Submit, outcome: str = "done"
    ) -> list[Case]:
        cases = await run(ground, platform, moments, submit)
        note(record_property, verb, cases, tmp_path)
        assert {case.outcome for case in cases} == {outcome}
        if outcome == "done":
            await whole(platform, cases)
        return cases

    return kill


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print verb × step × moment → outcome, and after how many seconds a living worker took the operation up."""
    lines = [
        json.loads(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == MATRIX and getattr(report, "when", "") == "call"
    ]
    if not lines:
        return
    terminalreporter.section("killed → what became of it (seconds until another worker had it)")
    for line in table(lines):
        terminalreporter.write_line(line)


def table(lines: list[dict[str, Any]]) -> list[str]:
    """The matrix as text."""
    shown = [
        f"{line['verb']:<16} {line['step']:<10} {line['moment']:<22} {line['outcome']:<10} "
        f"{'over' if line['seconds'] is None else format(line['seconds'], '.1f')}"
        for line in lines
    ]
    taken = [line["seconds"] for line in lines if line["seconds"] is not None]
    worst = f"{len(lines)} kills; taken up after {max(taken):.1f} s at most" if taken else f"{len(lines)} kills"
    return [*shown, worst]

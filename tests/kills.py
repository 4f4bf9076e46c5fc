"""Killing workers (SIGKILL) at chosen moments of operations, and what became of these: the ground of all matrices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ground as g
from ground import Ground
from programs import Program
from tenantry.platform import Platform
from tenantry.registry.journal import Operation

KILLER = Path(__file__).parent / "faults" / "killer.py"
AT_ONCE = 8
"""Workers that are killed together."""

AROUND = ("before", "effect", "recorded")
CLAIMED = ("", "claimed", {"where": "claimed"})
END = [("end", where, {"where": where, "call": "end"}) for where in ("before", "recorded")]

Moment = tuple[str, str, dict[str, Any]]
"""Step and moment as they are shown, and the killer's plan."""


@dataclass
class Case:
    """One worker to be killed: where, while it works on what, and how that has to end."""

    step: str
    moment: str
    plan: dict[str, Any]
    operation: Operation
    outcome: str = "done"
    seconds: float | None = None


def steps(*names: str, call: str = "perform") -> list[Moment]:
    """Before, inside and after each of these steps."""
    shown = "undo " if call == "undo" else ""
    return [(f"{shown}{name}", w, {"where": w, "step": name, "call": call}) for name in names for w in AROUND]


async def populate(ground: Ground, platform: Platform, names: Iterable[str] | Mapping[str, str | None]) -> None:
    """Make tenants; of the blueprints that these are mapped to."""
    blueprints: Mapping[str, str | None] = names if isinstance(names, Mapping) else dict.fromkeys(names)
    path = ground.root / "names.csv"
    path.write_text("\n".join(["slug,blueprint", *(f"{name},{chosen or ''}" for name, chosen in blueprints.items())]))
    done = await platform.operations.finish((await platform.tenants.import_csv(path)).id)
    assert done.operation.state == "done"


# --- killing ------------------------------------------------------------------------------------------------------


def halting(ground: Ground, *plans: dict[str, Any]) -> Program:
    """Start workers that come to a halt where these plans say, in a session of their own."""
    killer = Program(
        [KILLER, ground.config],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ground.environment(),
        text=True,
        start_new_session=True,
    )
    with killer.stdin as told:
        told.writelines(json.dumps(plan) + "\n" for plan in plans)
    return killer


@contextlib.asynccontextmanager
async def halted(ground: Ground, cases: list[Case]) -> AsyncIterator[list[int]]:
    """Workers that have come to their moments: their process ids."""
    plans = [{**case.plan, "operation": case.operation.id} for case in cases]
    killer = halting(ground, *plans)
    missing = {case.operation.id: f"{case.step} {case.moment}" for case in cases}
    found = []
    try:
        while missing:
            async with asyncio.timeout(g.PATIENCE):
                line = await asyncio.to_thread(killer.stdout.readline)
                assert line, f"never came to: {', '.join(missing.values())}"
                told = json.loads(line)
                del missing[told["operation"]]
                found.append(told["pid"])
        yield found
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(killer.pid, signal.SIGKILL)
        killer.wait()
        killer.stdout.close()


async def taken_up(platform: Platform, cases: list[Case], killed: float) -> None:
    """Wait until another worker has each operation, and note after how many seconds."""
    before = {case.operation.id: (await platform.operations.show(case.operation.id)).operation for case in cases}
    waiting = [case for case in cases if before[case.operation.id].state.live]

    async def all_taken() -> bool:
        for case in list(waiting):
            current = (await platform.operations.show(case.operation.id)).operation
            if current.fence > before[case.operation.id].fence:
                case.seconds = time.monotonic() - killed
                waiting.remove(case)
        return not waiting

    await g.until(all_taken, "another worker")


async def ordeal(ground: Ground, platform: Platform, cases: list[Case]) -> None:
    """Kill a worker at each moment while one fresh worker lives, and wait for the end of every operation."""
    async with halted(ground, cases) as found:
        with ground.worker() as fresh:
            await g.lives(platform, fresh)
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            await taken_up(platform, cases, time.monotonic())
            for case in cases:
                case.outcome = (await g.ended(platform, case.operation)).operation.state.value
            await settled(ground)


async def settled(ground: Ground) -> None:
    """Wait until the fresh worker has cleared away what the dead ones left."""

    async def clear() -> bool:
        return not list(ground.root.rglob(".tenantry-*"))

    await g.until(clear, "the end of files in the making")


Submit = Callable[[Ground, Platform, list[str]], Awaitable[list[Operation]]]


async def run(ground: Ground, platform: Platform, moments: list[Moment], submit: Submit) -> list[Case]:
    cases: list[Case] = []
    for start in range(0, len(moments), AT_ONCE):
        some = moments[start : start + AT_ONCE]
        operations = await submit(ground, platform, [f"t{start + number:02}" for number in range(len(some))])
        fresh = [Case(*moment, operation) for moment, operation in zip(some, operations, strict=True)]
        await ordeal(ground, platform, fresh)
        cases += fresh
    return cases


def note(record: Callable[[str, object], None], verb: str, cases: list[Case], tmp_path: Path) -> None:
    """Put the cases into the matrix."""
    lines = [
        {"verb": verb, "step": c.step, "moment": c.moment, "outcome": c.outcome, "seconds": c.seconds} for c in cases
    ]
    for line in lines:
        record("fault", json.dumps(line))
    (tmp_path / f"matrix-{verb}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


async def whole(platform: Platform, cases: list[Case]) -> None:
    """Each operation that is done has done all of its steps, none of them twice."""
    for case in cases:
        details = await platform.operations.show(case.operation.id)
        assert details.operation.done == details.operation.total, f"{case.step} {case.moment}"
        assert {step.state.value for step in details.steps} == {"done"}, f"{case.step} {case.moment}"


class Killed(Protocol):
    """Kills workers at all these moments of a verb, and lets each operation come to this outcome: the fixture."""

    async def __call__(
        self, verb: str, ground: Ground, platform: Platform, moments: list[Moment], submit: Submit, outcome: str = ...
    ) -> list[Case]: ...


# --- what is killed -----------------------------------------------------------------------------------------------

RESOURCE = "tenantry.resources.Resource"
ROTATION = "tenantry.operations.rotate._Run"


def inside(step: str, owner: str, name: str, when: str = "after") -> Moment:
    """Before or after a function that a step calls; `owner` is its module or class."""
    return (step, f"{when} {name}", {"where": "inside", "owner": owner, "name": name, "when": when})


async def create(_: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    return [await platform.tenants.create(name) for name in names]


async def create_undone(_: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    return [await platform.tenants.create(name, settings={"share": 0}) for name in names]


async def rotate(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    await populate(ground, platform, names)
    return [await platform.tenants.rotate([name]) for name in names]


async def destroy(ground: Ground, platform: Platform, names: list[str]) -> list[Operation]:
    await populate(ground, platform, names)
    return [await platform.tenants.destroy(name) for name in names]

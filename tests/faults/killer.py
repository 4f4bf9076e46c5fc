"""Workers that halt at a chosen moment of a chosen operation, so that they can be killed there.

python killer.py tenantry.toml < plan

The plan is JSON lines of {"operation", "where", "step", "call"}, or of {"operation", "where", "owner", "name", "when"}
for any function: a worker process each. It takes that operation alone, and when it halts, still with its signs of life,
it writes {"operation", "pid"} and waits to be killed.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import time
from typing import Any

from tenantry import paths
from tenantry.operations import engine
from tenantry.operations.runner import VERBS, Runner
from tenantry.operations.worker import Worker
from tenantry.platform import Platform
from tenantry.registry import journal
from tenantry.resources.sqlite import Sqlite

_told: set[str] = set()


def halted(operation: str) -> None:
    """Tell that the moment has come; a batch may come to it several times at once."""
    if operation in _told:
        return
    _told.add(operation)
    line = json.dumps({"operation": operation, "pid": os.getpid()}) + "\n"
    os.write(1, line.encode())


async def halt(operation: str) -> None:
    """Stay here, alive, until killed."""
    halted(operation)
    await asyncio.Event().wait()


def arm(plan: dict[str, Any]) -> None:
    """Halt where the plan says: `where` is claimed, before, effect, recorded, or somewhere inside the step."""
    operation, where, step = plan["operation"], plan["where"], plan.get("step")
    if where == "claimed":

        async def begin(*_: Any) -> None:
            await halt(operation)

        engine.Engine.run = begin
    elif where in ("before", "effect", "recorded"):
        call = plan.get("call", "perform")
        _around(operation, where, step, call)
    elif where == "inside":
        _within(operation, plan["owner"], plan["name"], plan["when"])
    else:
        _inside(operation, where, step)


def _within(operation: str, owner: str, name: str, when: str) -> None:
    """Halt before or after any function of a module or class; one that runs in a thread keeps that busy."""
    module, _, cls = owner.rpartition(".")
    holder = importlib.import_module(owner) if cls.islower() else getattr(importlib.import_module(module), cls)
    original = getattr(holder, name)

    async def awaited(*args: Any, **options: Any) -> Any:
        if when == "before":
            await halt(operation)
        result = await original(*args, **options)
        await halt(operation)
        return result

    def called(*args: Any, **options: Any) -> Any:
        if when == "after":
            original(*args, **options)
        halted(operation)
        time.sleep(3600)

    setattr(holder, name, awaited if inspect.iscoroutinefunction(original) else called)


def _around(operation: str, where: str, step: str | None, call: str) -> None:
    """Halt before or after a step is performed or undone, or the operation is ended."""
    original = getattr(Runner, call)

    async def wrapped(self: Runner, work: Any, *rest: Any) -> Any:
        mine = step is None or rest[0].name == step
        if mine and where == "before":
            await halt(operation)
        outcome = await original(self, work, *rest)
        if mine and where == "recorded":
            await halt(operation)
        return outcome

    setattr(Runner, call, wrapped)
    if where != "effect":
        return
    for verb in VERBS.values():
        _after_effect(verb, call, operation, step)


def _after_effect(verb: Any, call: str, operation: str, step: str | None) -> None:
    effect = getattr(verb, call)

    async def wrapped(work: Any, one: Any) -> Any:
        done = await effect(work, one)
        if one.name == step:
            await halt(operation)
        return done

    object.__setattr__(verb, call, wrapped)


def _inside(operation: str, where: str, step: str | None) -> None:
    """Halt inside a step's effect: before a file in the making gets its name, or around one of the verb's own calls."""
    if where == "half a template":
        fill = Sqlite._fill

        def halting_fill(self: Sqlite, connection: Any) -> None:
            fill(self, connection)
            halted(operation)
            time.sleep(3600)

        Sqlite._fill = halting_fill  # type: ignore[method-assign]
        return
    if where == "half a file":
        rename = os.rename

        def halting(source: Any, target: Any, *args: Any, **options: Any) -> None:
            if str(source).startswith(paths.TEMPORARY) and str(target) == step:
                halted(operation)
                time.sleep(3600)
            rename(source, target, *args, **options)

        os.rename = halting
        return
    owner, name = {
        "after create_many": ("tenantry.resources.Resource", "create_many"),
        "after migrate_many": ("tenantry.resources.Resource", "migrate_many"),
        "after create": ("tenantry.resources.Resource", "create"),
        "after enrol": ("tenantry.operations.toolbox.Toolbox", "enrol_admins"),
    }[where]
    module, _, cls = owner.rpartition(".")
    holder = getattr(sys.modules[module], cls)
    original = getattr(holder, name)

    async def wrapped(*args: Any, **options: Any) -> Any:
        result = await original(*args, **options)
        if step is None or getattr(args[0], "name", None) == step:
            await halt(operation)
        return result

    setattr(holder, name, wrapped)


def confine(operation: str) -> None:
    """Let this worker take this operation alone."""
    claim = journal.claim

    async def only(tx: Any, worker_id: str, _: str | None = None) -> Any:
        return await claim(tx, worker_id, operation)

    async def none(*_: Any) -> list[Any]:
        return []

    journal.claim = only
    journal.orphans = none


async def work(config: str) -> None:
    async with Platform.open(config) as platform:
        await Worker(platform.tools, 1).run(asyncio.Event())


async def warm(config: str) -> None:
    """Load what a platform needs, once for all workers."""
    async with Platform.open(config) as platform:
        await platform.operations.list()


def main() -> None:
    asyncio.run(warm(sys.argv[1]))
    children = []
    for line in sys.stdin:
        plan = json.loads(line)
        pid = os.fork()
        if pid == 0:
            confine(plan["operation"])
            arm(plan)
            asyncio.run(work(sys.argv[1]))
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()

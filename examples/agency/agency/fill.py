"""Fills agencies with what files describe: `python -m agency.fill agencies/northlight.toml`.

It is an example of work for a tenant outside a request. Days count from today; pictures are drawn here.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import tomllib
import zlib
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

import tenantry
from agency import store
from agency.site import keep
from agency.web import today

WIDTH, HEIGHT = 320, 200


def drawing(colours: Sequence[str]) -> bytes:
    """A picture of a disc over a slope in two colours, as PNG (www.w3.org/TR/png-3)."""
    (r, g, b), (r2, g2, b2) = (bytes.fromhex(colour[1:]) for colour in colours)
    lines = bytearray()
    for y in range(HEIGHT):
        lines.append(0)  # the filter of this line: none
        for x in range(WIDTH):
            inside = (x - 225) ** 2 + (y - 75) ** 2 < 2500
            share = 255 if inside else 200 if x / 3 + 90 > 260 - y else y * 150 // HEIGHT
            lines += bytes(
                (
                    (r * (255 - share) + r2 * share) // 255,
                    (g * (255 - share) + g2 * share) // 255,
                    (b * (255 - share) + b2 * share) // 255,
                )
            )
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def day(offset: int) -> date:
    """A day, counted from today."""
    return today() + timedelta(days=offset)


async def fill(runtime: tenantry.Runtime, slug: str, agency: Mapping[str, Any]) -> None:
    """Replace what a tenant has by what a file says."""
    with tenantry.tenant_context(runtime.environment(slug)):
        async with tenantry.tenant_session() as session:
            for table in ("asset", "campaign"):  # the rest goes with the campaigns: TRUNCATE would empty all agencies
                await session.execute(text(f"DELETE FROM {table}"))
            for entry in (storage := tenantry.tenant_storage("assets")).list():
                storage.delete(entry.name)
            names = {one["name"]: await _campaign(session, one) for one in agency["campaign"]}
            for one in agency.get("asset", ()):
                content = drawing(one["picture"]) if "picture" in one else one["text"].encode()
                await keep(session, one["name"], content, "the example", names[one["campaign"]])
            await session.commit()


async def _campaign(session: Any, one: Mapping[str, Any]) -> int:
    first, last = one["days"]
    made = await store.add_campaign(session, one["name"], one["client"], one["colour"], (day(first), day(last)))
    for brief in one["briefs"]:
        await store.add_brief(session, made, brief)
    for task in one["tasks"]:
        added = await store.add_task(session, made, task["title"], task["who"], day(task["due"]), task.get("guide", ""))
        await store.move_task(session, added, task["state"])
    return made


async def main(*files: str) -> None:
    runtime = tenantry.connect("tenantry.toml")
    await runtime.start()
    try:
        for file in map(Path, files):
            await fill(runtime, file.stem, tomllib.loads(file.read_text("utf-8")))
            print(f"{file.stem} has campaigns now")
    finally:
        await runtime.stop()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m agency.fill agencies/SLUG.toml …")
    asyncio.run(main(*sys.argv[1:]))

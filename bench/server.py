"""The servers that benchmarks start for themselves: those of the tests, as people run them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import servers

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
"""A server as people run it; the tests' own is quicker."""

__all__ = ["DURABLE", "servers"]

"""`python -m bench` runs every benchmark, `python -m bench create` one; exit status 1 where a bound does not hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = (
    "resolve",
    "create",
    "migrate",
    "start",
    "registry",
    "outage",
    "mysql",
    "postgres",
    "pools",
    "verify",
    "rows",
    "portal",
    "signup",
    "followers",
    "users",
)


def main(names: list[str]) -> int:
    """Run these benchmarks, each in a process of its own so that none warms or crowds another."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"There is no benchmark '{unknown[0]}'. Known: {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    failed = [name for name in names or NAMES if subprocess.run([sys.executable, "-m", f"bench.{name}"]).returncode]
    if failed:
        print(f"\nNot as it should be: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

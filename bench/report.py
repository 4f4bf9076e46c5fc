"""What every benchmark reports: a table, a file of figures, and whether the bounds hold."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """The machine the figures were taken on, in one line."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


class Report:
    """Figures of one benchmark. `finish` prints them, writes `results/<name>.json` and gives the exit status."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        against: str | None = None,
        ratio: float | None = None,
        bound: str | None = None,
        holds: bool | None = None,
    ) -> None:
        """Add a figure: what it is compared `against`, their `ratio`, and whether the `bound` holds."""
        row = {"name": name, "value": round(value, 4), "unit": unit, "against": against, "ratio": ratio}
        self.rows.append(row | {"bound": bound, "holds": holds, "machine": machine()})
        print(f"  {name}: {_number(value)} {unit}", file=sys.stderr, flush=True)

    def finish(self) -> int:
        """Print the table and write the file. 1 where a bound does not hold, else 0."""
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(self.rows, indent=1, ensure_ascii=False)
        (RESULTS / f"{self.name}.json").write_text(text + "\n", "utf-8")
        self._print()
        return 1 if any(row["holds"] is False for row in self.rows) else 0

    def _print(self) -> None:
        lines = [("", "value", "", "ratio", "against", "bound", "")]
        lines += [
            (
                row["name"],
                _number(row["value"]),
                row["unit"],
                "" if row["ratio"] is None else f"{row['ratio']:.2f}",
                row["against"] or "",
                row["bound"] or "",
                {None: "", True: "holds", False: "FAILS"}[row["holds"]],
            )
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(7)]
        print(f"\n{self.name} · {machine()}")
        for line in lines:
            cells = [
                cell.rjust(width) if n in (1, 3) else cell.ljust(width)
                for n, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            print("  ".join(cells).rstrip())


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"

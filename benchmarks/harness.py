"""How every benchmark measures and reports: medians, a named peer in the same run, one table.

A benchmark is a module with ``rows(size) -> list[Row]``; ``python -m benchmarks NAME`` runs it and
puts its table into docs/benchmarks.md between its own marks. Machines are shared and noisy: read
the ratio, not the seconds.
"""

from __future__ import annotations

import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, ours, the peer's, and the bar it must reach."""

    what: str
    ours: float
    unit: str
    peer: str = ""  # who, in the same run
    theirs: float | None = None
    bar: str = ""  # what is demanded, in words
    holds: bool | None = None

    @property
    def ratio(self) -> float | None:
        return self.theirs / self.ours if self.theirs is not None and self.ours else None


def median_seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median wall time of ``work`` over ``repeats`` calls, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        gc.collect()
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time and result of one call: for what takes long."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def peak_bytes(command: list[str]) -> int:
    """The largest resident memory of a command and its children, in a process of its own."""
    code = (
        "import resource, subprocess, sys; r = subprocess.run(sys.argv[1:]).returncode;"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(r)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    return int(done.stdout.strip().splitlines()[-1]) * 1024


def own_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def shown(value: float | None) -> str:
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(rows: list[Row]) -> str:
    lines = [
        "| what | ours | unit | peer | peer's | peer / ours | demanded | holds |",
        "|---|---:|---|---|---:|---:|---|---|",
    ]
    for row in rows:
        holds = {True: "yes", False: "**no**", None: ""}[row.holds]
        cells = [row.what, shown(row.ours), row.unit, row.peer, shown(row.theirs), shown(row.ratio), row.bar, holds]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def publish(name: str, rows: list[Row], command: str, note: str = "") -> None:
    """Print the table, and put it into docs/benchmarks.md under its heading."""
    text = table(rows)
    print(text)
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n## {name}\n\n`{command}`\n\n{note + chr(10) + chr(10) if note else ''}{text}\n{end}"
    old = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else "# Benchmarks\n"
    if begin in old:
        head, rest = old.split(begin, 1)
        new = head + section + rest.split(end, 1)[1]
    else:
        new = old.rstrip() + "\n\n" + section + "\n"
    DOCUMENT.write_text(new, encoding="utf-8")

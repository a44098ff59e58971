"""How often each method calls an effect where nothing was done: placebo experiments on real sales.

``rates.json`` is written by ``python -m benchmarks measurement --full``, in the same run as the table of docs/benchmarks.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PLACE = Path(__file__).with_name("rates.json")


@dataclass(frozen=True)
class Rate:
    """One method, read in one way, played on one panel."""

    method: str
    inference: str  # block, the default, or the authors' own: iid, textbook
    panel: str
    runs: int
    false_alarms: float  # share called an effect at a nominal .10
    coverage: float  # share whose 90 % interval holds the truth
    power: float  # share called an effect where ``lift`` was added
    lift: float


@cache
def played() -> tuple[Rate, ...]:
    """All that were played, the default inference first."""
    return tuple(Rate(**row) for row in json.loads(PLACE.read_text(encoding="utf-8")))


def of(method: str, inference: str) -> Rate | None:
    """The rate of a method on the first panel that it was played on."""
    return next((rate for rate in played() if (rate.method, rate.inference) == (method, inference)), None)

"""What one run of the planner may use up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmn.lib.errors import BadInput

# steps; seconds of the whole run; tokens read and written; USD; seconds of one tool
MOST = {"steps": 12.0, "seconds": 900.0, "tokens": 100_000.0, "cost": 10.0, "tool_seconds": 300.0}


def read(given: Mapping[str, Any] | None) -> dict[str, float]:
    """All limits of a run: the usual ones, or lower where they were asked for.

    Raises:
        BadInput: a limit that does not exist, or is not an amount above 0.
    """
    found = dict(MOST)
    for name, value in (given or {}).items():
        if name not in MOST:
            raise BadInput(f"limits: {name!r} is none of {', '.join(MOST)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise BadInput(f"limits: {name} is an amount above 0")
        found[name] = min(float(value), MOST[name])
    return found

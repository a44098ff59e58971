"""Warning lamps of a training: what it must not go on with, each with a name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

LN2 = math.log(2)
WINDOW = 5


def lit(log: Sequence[Mapping[str, Any]], method: str, total: int) -> str:
    """The lamp that is on after these log lines, or nothing.

    Args:
        log: one line per step so far: ``step, loss`` and for DPO ``margin``.
        total: steps planned.

    Returns:
        ``nan_loss``, ``zero_loss`` (for five steps: nothing is left to learn, or labels are masked
        away), ``stuck_at_ln2`` (DPO that after half its steps cannot tell chosen from rejected),
        ``margin_collapse`` (DPO whose rejected texts lead over five steps), ``diverging`` (loss
        above three times its first).
    """
    if not log:
        return ""
    losses = [float(line["loss"]) for line in log]
    if not math.isfinite(losses[-1]):
        return "nan_loss"
    last = losses[-WINDOW:]
    if len(last) == WINDOW and max(map(abs, last)) < 1e-7:
        return "zero_loss"
    if len(losses) > WINDOW and min(last) > 3 * max(losses[0], 0.1):
        return "diverging"
    if method == "dpo" and len(log) >= 2 * WINDOW:
        recent = [line for line in log[-WINDOW:] if line.get("margin") is not None]
        if len(recent) == WINDOW and all(float(line["margin"]) < -0.05 for line in recent):
            return "margin_collapse"
        if len(log) >= max(total / 2, 2 * WINDOW) and all(abs(x - LN2) < 2e-3 for x in losses[-2 * WINDOW :]):
            return "stuck_at_ln2"
    return ""

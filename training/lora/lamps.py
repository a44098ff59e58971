"""Warning lamps of a training: what it must not go on with, each with a name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

LN2 = math.log(2)
WINDOW = 5
DRIFT = 2.0  # times longer, or shorter, than both the texts and the model before


def lit(log: Sequence[Mapping[str, Any]], method: str, total: int) -> str:
    """The lamp that is on after these log lines, or nothing.

    Args:
        log: one line per step so far: ``step, loss``, for DPO ``margin``, and where it was measured
            ``length``: the length that the model expects over the texts' own.
        total: steps planned.

    Returns:
        ``nan_loss``, ``zero_loss`` (for five steps: nothing is left to learn, or labels are masked
        away), ``stuck_at_ln2`` (DPO that after half its steps cannot tell chosen from rejected),
        ``margin_collapse`` (DPO whose rejected texts lead over five steps), ``length_drift`` (the
        model has come to expect twice or half the length), ``diverging`` (loss above three times
        its first).
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
    length = log[-1].get("length")
    if method != "sft" and length is not None and not 1 / DRIFT <= float(length) <= DRIFT:
        return "length_drift"
    if method == "dpo" and len(log) >= 2 * WINDOW:
        recent = [line for line in log[-WINDOW:] if line.get("margin") is not None]
        if len(recent) == WINDOW and all(float(line["margin"]) < -0.05 for line in recent):
            return "margin_collapse"
        if len(log) >= max(total / 2, 2 * WINDOW) and all(abs(x - LN2) < 2e-3 for x in losses[-2 * WINDOW :]):
            return "stuck_at_ln2"
    return ""


def expected_length(hazard: Sequence[float], most: float = 4.0) -> float:
    """Tokens that a model means to write along a text: the mean of a life under the chances to end.

    Args:
        hazard: chance of ending before each of the text's tokens, and last after all of them.
        most: at most so many times the text's own length.
    """
    alive, total = 1.0, 0.0
    for chance in hazard[:-1]:
        alive *= 1 - min(max(chance, 0.0), 1.0)
        total += alive
    own = max(len(hazard) - 1, 1)
    last = max(hazard[-1], 1 / (most * own))
    return min(total + alive * (1 - last) / last, most * own)


def drift(now: float, before: float, own: float) -> float:
    """How far an expected length has left the span between what it was and the text's own; 1 inside."""
    low, high = min(before, own), max(before, own)
    return now / high if now > high else now / low if now < low else 1.0

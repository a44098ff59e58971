"""A result in plain words, its uncertainty with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VERDICTS = {
    "effect": "There is an effect",
    "no_effect": "There is no effect that would matter",
    "not_enough_evidence": "Not enough evidence",
}


def summary(result: Mapping[str, Any]) -> list[str]:
    """What was found, how sure it is, what it rests on and what it brought; one sentence each."""
    estimate, diagnostics = result["estimate"], result.get("diagnostics") or {}
    level = f"{result.get('interval_level', 0.9):.0%}"
    att, lift = estimate["att"], estimate.get("lift_percent")
    percent = "" if lift is None else f" ({lift:+.1f} %)"
    low, high = result["interval"]
    told = [
        f"{VERDICTS[result['verdict']]}: {att:+,.3g} for each treated unit and period{percent}, {estimate['cumulative']:+,.0f} in all."
    ]
    if low is None and high is None:
        told.append(f"The {level} interval has no bounds: these data cannot say how large the effect is.")
    else:
        ends = ["without limit" if end is None else f"{end:+,.3g}" for end in (low, high)]
        told.append(f"The true effect lies between {ends[0]} and {ends[1]}, in {level} of such tests.")
    p = result["p_value"]
    if diagnostics.get("inference") == "placebo":
        count = diagnostics["placebo_sets"]
        reached = round(p * (count + 1)) - 1
        told.append(
            f"Of {count} sets of units to which nothing was done, {reached} show a gap as large against their own past (p {p:.3f})."
        )
    else:
        told.append(f"Where nothing happens, a gap as large is seen in {p:.1%} of cases (p {p:.3f}).")
    iroas = result.get("iroas")
    if iroas:
        low, high = iroas["interval"]
        span = "with no bounds" if low is None or high is None else f"between {low:,.2f} and {high:,.2f}"
        told.append(f"Each unit of money added brought {iroas['estimate']:,.2f}, {span}.")
    if result["verdict"] == "not_enough_evidence" and diagnostics.get("would_need"):
        told.append(f"To be sure it would need {diagnostics['would_need']}.")
    return told

"""What an analysed test says about an arm's response curve: a lift test for the next fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scipy.stats import norm

from rmn.lib.errors import BadInput

WEEK = 7


def lift_test(result: Mapping[str, Any], asked: Mapping[str, Any], *, step_days: float) -> dict[str, Any]:
    """Change of spend and sales per week over the whole market, from a test in a part of it.

    The treated are a share f of the market. If each part answers its own spend alike, a change c of spend
    there that brought l is a change c / f of the whole arm's spend that brings l / f.

    Args:
        result: of ``analyze``, of a test on a panel.
        asked: ``spend_change`` per week in the treated units where it is not the result's added cost
            (negative where the arm was off); ``share`` of the market where it is not the treated's share of
            the outcome before the test.
        step_days: days from one period to the next.

    Returns:
        ``spend_change, lift, se, share, weeks``; or ``reason`` why there is none.
    """
    diagnostics, estimate = result.get("diagnostics") or {}, result["estimate"]
    periods, share = diagnostics.get("periods"), asked.get("share", diagnostics.get("treated_share"))
    if not periods or not share:
        return {"reason": "the test was not read on a panel of units and periods"}
    share = _number(asked, "share", share)
    if not 0 < share <= 1:
        raise BadInput(f"calibrates.share is {share:g}: above 0 and at most 1 was expected")
    weeks = periods * step_days / WEEK
    low, high = result["interval"]
    if low is None or high is None:
        return {"reason": "the interval has no bounds"}
    if "spend_change" in asked:
        change = _number(asked, "spend_change", 0.0)
    elif result.get("iroas"):
        change = float(result["iroas"]["cost"]) / weeks
    else:
        return {"reason": "what the test added to spend is not known: give cost, or calibrates.spend_change"}
    if change == 0:
        return {"reason": "the test changed no spend"}
    wide = 2 * float(norm.ppf(0.5 + result.get("interval_level", 0.9) / 2))
    error = (high - low) / wide * estimate["cumulative"] / estimate["att"] if estimate["att"] else math.nan
    if not math.isfinite(error) or error <= 0:
        return {"reason": "the test found exactly nothing, without an error"}
    return {
        "spend_change": change / share,
        "lift": estimate["cumulative"] / weeks / share,
        "se": error / weeks / share,
        "share": share,
        "weeks": weeks,
    }


def _number(asked: Mapping[str, Any], name: str, default: Any) -> float:
    value = asked.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"calibrates.{name} is {value!r}: a number was expected")
    return float(value)

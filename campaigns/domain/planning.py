"""From fitted curves to a budget problem, and from a plan to what people compare it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from campaigns.domain import optimizer
from campaigns.domain.problem import Problem, read
from rmn.lib.arrays import Array


def problem_of(
    curves: Sequence[Mapping[str, Any]],
    *,
    total_budget: float,
    days: float,
    currency: str = "USD",
    groups: Sequence[Mapping[str, Any]] = (),
    limits: Mapping[str, Mapping[str, Any]] | None = None,
    spend_all: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """PROBLEM of stored curves for a plan of so many days.

    Args:
        curves: per curve ``id, kind, scale, half, exponent, points, std, period_days, seen`` (most
            spend seen in one period), ``last`` (mean spend of one period) and attributes of the arm.
        days: length of the plan; curves of ``period_days`` grow in proportion, spend spread evenly.
        limits: by arm, what overrides (min, max, fixed, available, max_change ...).
    """
    arms = []
    for curve in curves:
        times = days / curve["period_days"]
        seen = curve.get("seen")
        arm: dict[str, Any] = {
            "id": curve["id"],
            "min": 0.0,
            "max": 1.5 * seen * times if seen else None,
            "last": curve["last"] * times if curve.get("last") is not None else None,
            "curve": scaled(curve, times),
            "std": {"scale": curve["std"]["scale"] * _level(curve["kind"], times)} if curve.get("std") else None,
        }
        for name in ("brand", "retailer", "campaign", "tactic", "evidence", "seen"):
            if curve.get(name) is not None:
                arm[name] = curve[name] * times if name == "seen" else curve[name]
        arm |= dict((limits or {}).get(curve["id"], {}))
        arms.append({key: value for key, value in arm.items() if value is not None})
    return {
        "total_budget": total_budget,
        "currency": currency,
        "spend_all": spend_all,
        "arms": arms,
        "groups": [dict(group) for group in groups],
        **more,
    }


def scaled(curve: Mapping[str, Any], times: float) -> dict[str, Any]:
    """The same curve for ``times`` periods of even spend: f_T(s) = T f(s / T)."""
    kind = curve["kind"]
    found: dict[str, Any] = {"kind": kind}
    if kind == "piecewise":
        return found | {"points": [[x * times, y * times] for x, y in curve["points"]]}
    if kind == "power":
        exponent = curve["exponent"]
        return found | {"scale": curve["scale"] * times ** (1 - exponent), "exponent": exponent}
    found |= {"scale": curve["scale"] * times, "half": curve["half"] * times}
    return found | ({"exponent": curve["exponent"]} if kind == "hill" else {})


def _level(kind: str, times: float) -> float:
    return times if kind != "power" else 1.0


def even_split(problem: Problem, money: float) -> tuple[Array, float]:
    """The same money, as even as the arms' own limits allow, and what it brings.

    Every arm gets the level at which the total is reached; an arm that its minimum or maximum stops
    short of the level stays there. Group limits are not kept: this is the plan nobody thought about.

    Returns:
        spend per arm (C,), and the objective.
    """
    low_C, high_C = problem.low_C, np.maximum(problem.high_C, problem.low_C)
    goal = min(max(money, float(low_C.sum())), float(high_C.sum()))
    below, above = 0.0, float(max(high_C.max(initial=0.0), low_C.max(initial=0.0)))
    for _ in range(200):
        level = 0.5 * (below + above)
        if float(np.clip(level, low_C, high_C).sum()) < goal:
            below = level
        else:
            above = level
    spend_C = np.clip(above, low_C, high_C)
    weight_C = np.ones(problem.size) if problem.weight_C is None else problem.weight_C
    return spend_C, float((weight_C * problem.curves.value(spend_C)).sum())


def solve(given: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with ``even_split`` (value, gain in per cent) and a frontier of seven budgets beside it.

    Raises:
        BadInput: the problem is malformed.
    """
    plan = optimizer.solve(given)
    if plan["status"] == "infeasible":
        return {**plan, "even_split": None, "frontier": []}
    problem = read(given)
    _, value = even_split(problem, plan["total_spend"])
    gain = 100 * (plan["objective"] / value - 1) if value > 0 else None
    budget = problem.total_budget
    least = float(problem.low_C.sum())
    budgets = sorted({max(least, budget * share) for share in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)})
    return {
        **plan,
        "even_split": {"objective": value, "gain_percent": gain},
        "frontier": [row for row in optimizer.what_if(problem, budgets) if row["status"] != "infeasible"],
    }

"""Which test next: what knowing one arm's curve better would add to the plan, for what the test costs.

For each arm the optimizer's own uncertainty is played through: its curve is one of its draws, a test
at the plan's spend reads its sales with an error as large as what is unknown now, the draws are
weighed by that reading, and the budget is split anew. The gain over the plan as it stands, on average
over draws and errors, is what the test is worth; a test that would not change the plan is worth nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from campaigns.domain import curves, optimizer
from campaigns.domain.problem import Problem, read
from rmn.lib.arrays import Array

ARMS = 12  # those whose sales are least known, in money
WORLDS = 24
LARGE = 300  # arms; beyond this each world costs too much for a by-product
LEAST_DRAWS = 10
DRAWN = (curves.LOG, curves.MICHAELIS_MENTEN)  # kinds that scale and half describe
SHARE = 0.25  # of the market goes without the arm during the test


def rank(
    given: Mapping[str, Any],
    spend: Mapping[str, float],
    draws: Mapping[str, Sequence[Sequence[float]]],
    *,
    part: float,
    seed: int = 1,
) -> list[dict[str, Any]]:
    """Arms by what a test of them is worth for each unit that it costs, best first.

    Args:
        given: the budget problem (CONTRACTS section 3) whose plan stands.
        spend: the plan, by arm.
        draws: by arm (scale, half) of possible curves, in the plan's period.
        part: of the plan's period that the test takes.

    Returns:
        ``arm, worth, cost, worth_per_cost, spend, uncertainty``: worth in sales over the plan's period,
        cost in sales that the part of the market without the arm does not bring meanwhile.
    """
    problem = read(given)
    if problem.size > LARGE or problem.total_budget <= 0:
        return []
    plan_C = np.array([float(spend.get(name, 0.0)) for name in problem.ids])
    candidates = []
    for place, arm in enumerate(problem.ids):
        drawn = np.array(draws.get(arm, []), float).reshape(-1, 2)
        kind = int(problem.curves.kind_C[place])
        if kind not in DRAWN or len(drawn) < LEAST_DRAWS or problem.high_C[place] <= 0:
            continue
        last = float(problem.last_C[place]) if problem.last_C is not None else 0.0
        at = plan_C[place] or (last if math.isfinite(last) else 0.0)
        seen = curves.value_of(kind, drawn[:, 0], drawn[:, 1], np.ones(len(drawn)), np.full(len(drawn), at))
        if at > 0 and seen.std() > 1e-9 * abs(seen.mean()):
            candidates.append((float(seen.std()), place, at, drawn, seen))
    candidates.sort(key=lambda one: (-one[0], one[1]))
    margin_C = problem.weight_C if problem.weight_C is not None else np.ones(problem.size)
    told: list[dict[str, Any]] = []
    for _, place, at, drawn, seen in candidates[:ARMS]:
        worth = _worth(problem, place, plan_C, drawn, seen, np.random.default_rng([seed, place]))
        cost = SHARE * part * float(margin_C[place]) * float(seen.mean())
        told.append(
            {
                "arm": problem.ids[place],
                "worth": worth,
                "cost": cost,
                "worth_per_cost": worth / cost if cost > 0 else 0.0,
                "spend": at,
                "uncertainty": float(seen.std() / abs(seen.mean())),
            }
        )
    return sorted(told, key=lambda one: (-one["worth_per_cost"], one["arm"]))


def _with_curve(problem: Problem, place: int, curve: Array) -> Problem:
    scale_C, half_C = problem.curves.scale_C.copy(), problem.curves.half_C.copy()
    scale_C[place], half_C[place] = curve
    return replace(problem, curves=replace(problem.curves, scale_C=scale_C, half_C=half_C))


def _worth(problem: Problem, place: int, plan_C: Array, drawn: Array, seen: Array, rng: np.random.Generator) -> float:
    """Mean gain of planning anew after the test, over worlds and errors of the test."""
    error = float(seen.std())
    believed = np.array([problem.curves.scale_C[place], problem.curves.half_C[place]])
    margin_C = problem.weight_C if problem.weight_C is not None else np.ones(problem.size)
    gains = []
    for world in rng.choice(len(drawn), min(WORLDS, len(drawn)), replace=False):
        reading = seen[world] + rng.normal(0.0, error)
        off = 0.5 * ((seen - reading) / error) ** 2
        weight = np.exp(off.min() - off)
        learnt = believed + (weight / weight.sum()) @ drawn - drawn.mean(axis=0)
        anew = optimizer.allocate(_with_curve(problem, place, np.maximum(learnt, 1e-6 * believed)))
        if anew.objective is None:
            continue
        truth = _with_curve(problem, place, drawn[world]).curves
        gains.append(float(margin_C @ (truth.value(anew.spend_C) - truth.value(plan_C))))
    return max(float(np.mean(gains)), 0.0) if gains else 0.0

"""Placebo experiments in space: what the same analysis finds where nothing was done.

Seeded sets of untreated units, as many as were treated, play the treated over the same periods; the
treated never lend themselves as controls. Every gap is measured in units of its own error before the
test, so that sets that follow their controls badly do not drown the others. The rank of the true gap
among them is the p-value, and the effects that this rank does not reject are the interval: one test,
read twice. It holds whatever the correlation from day to day, since every set lived the same days.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np

from rmn.lib.arrays import Array

SETS = 200  # (1 + 19) / 201 and (1 + 9) / 201 lie just under .1 and .05


def sets(controls: int, size: int, seed: int, most: int = SETS) -> list[tuple[int, ...]]:
    """Different sets of ``size`` of the controls: all of them where they are few, else drawn."""
    if size < 1 or size >= controls:
        return []
    if math.comb(controls, size) <= most:
        return list(combinations(range(controls), size))
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < most:
        found[tuple(sorted(int(i) for i in rng.choice(controls, size, replace=False)))] = None
    return list(found)


def wanted(alpha: float) -> int:
    """Sets for a test at this level: more than usual where it is small, so that something can be rejected."""
    return max(SETS, math.ceil(3 / alpha))


def error_before(gap_T: Array, before: int) -> float:
    """Root mean square of a gap before the test, never quite zero."""
    floor = 1e-9 * max(float(np.abs(gap_T).max(initial=0.0)), 1e-300)
    return max(float(np.sqrt((gap_T[:before] ** 2).mean())), floor)


def gaps(
    gap: Callable[[Array, Array], Array], others_CT: Array, treated: int, before: int, seed: int, most: int = SETS
) -> Array:
    """Set by period: each placebo's gap over its own error before the test.

    Args:
        gap: (a set's mean, its controls) to the gap in every period.
        others_CT: the untreated, by period; what a gap needs besides (predictors) may follow the periods.
        treated: how many units the true test treats.
        most: how many sets play at most.
    """
    size = min(treated, len(others_CT) // 2)
    told = []
    for chosen in sets(len(others_CT), size, seed, most):
        found = gap(others_CT[list(chosen)].mean(axis=0), np.delete(others_CT, chosen, axis=0))
        told.append(found / error_before(found, before))
    return np.array(told) if told else np.empty((0, others_CT.shape[1]))


def needed(count: int, alpha: float) -> int:
    """How many of ``count`` placebos must reach a value for it not to be rejected; 0: nothing can be rejected."""
    need = 0
    while (1 + need) / (count + 1) < alpha:
        need += 1
    return need


def reach(ratios: Array, alpha: float, *, tails: int = 2) -> float:
    """The largest ratio that the placebos do not reject; infinite where there are too few of them."""
    need = needed(len(ratios), alpha)
    if not need:
        return math.inf
    return max(float(np.sort(np.abs(ratios) if tails == 2 else ratios)[-need]), 0.0)


def ranked(
    estimate: float, error: float, ratios: Array, alpha: float, *, tails: int = 2
) -> tuple[tuple[float, float], float]:
    """Interval and p-value of an estimate whose error before the test is ``error``; one tail looks for a gain."""
    size = np.abs(ratios) if tails == 2 else ratios
    seen = abs(estimate) if tails == 2 else estimate
    p = float(1 + (size * error >= seen).sum()) / (len(ratios) + 1)
    half = reach(ratios, alpha, tails=tails) * error
    if tails == 1:
        low = estimate - half
        return (min(low, 0.0) if p >= alpha else low, math.inf), p
    return (estimate - half, estimate + half), p

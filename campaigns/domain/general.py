"""The general convex model (CVXPY with Clarabel): the slow way, for what the fast ones do not cover.

Also the plainer method that tests check the fast ones against. CVXPY takes a second to import and is
loaded only when it is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np

from campaigns.domain.branch import Limits
from campaigns.domain.conflict import drop, nearest_gated, sums_fit
from campaigns.domain.curves import HILL, LINEAR, LOG, MICHAELIS_MENTEN, PIECEWISE, POWER, Curves
from campaigns.domain.interior import Floor, Rows
from campaigns.domain.problem import ROOM, Problem
from rmn.lib.arrays import Array, BoolArray
from rmn.lib.errors import RmnError


class NotSolved(RmnError):
    """The general solver gave no answer."""


def cvxpy() -> Any:
    import cvxpy

    return cvxpy


def concave_sales(curves: Curves, x: Any) -> list[Any]:
    """Expressions of concave curves in a CVXPY variable, one atom per kind and exponent.

    Michaelis-Menten s / (k + s) is 1 - 1 / (1 + s / k); a Hill curve with exponent at most 1 is the
    same in (s / k) ** n. Each expression is a vector over the arms it covers.
    """
    cp = cvxpy()
    parts: list[Any] = []
    order: list[int] = []
    for kind in (LOG, POWER, MICHAELIS_MENTEN, HILL, LINEAR):
        arms = np.flatnonzero(curves.kind_C == kind)
        for exponent in np.unique(curves.exponent_C[arms]) if kind in (POWER, HILL) else ([1.0] if arms.size else []):
            at = arms[curves.exponent_C[arms] == exponent] if kind in (POWER, HILL) else arms
            a, b = curves.scale_C[at], curves.half_C[at]
            if kind == LOG:
                made = cp.multiply(a, cp.log(1 + cp.multiply(1 / b, x[at])))
            elif kind == POWER:
                made = cp.multiply(a, cp.power(x[at], float(exponent)))
            elif kind == LINEAR:
                made = cp.multiply(a, x[at])
            else:
                inner = cp.multiply(1 / b, x[at])
                if kind == HILL:
                    inner = cp.power(inner, float(exponent))
                made = cp.multiply(a, 1 - cp.inv_pos(1 + inner))
            parts.append(made)
            order.extend(int(i) for i in at)
    for arm in np.flatnonzero(curves.kind_C == PIECEWISE):
        points = curves.points[int(arm)]
        slopes = np.diff(points[:, 1]) / np.diff(points[:, 0])
        lines = [points[i, 1] + slopes[i] * (x[int(arm)] - points[i, 0]) for i in range(slopes.size)]
        lines.append(float(points[-1, 1]))
        made = lines[0]
        for line in lines[1:]:
            made = cp.minimum(made, line)
        parts.append(cp.reshape(made, (1,), order="C"))
        order.append(int(arm))
    back = np.argsort(np.array(order))
    return cp.hstack(parts)[back]


def constraints(problem: Problem, limits: Limits, x: Any, sales: Any) -> list[Any]:
    """The problem's limits on a CVXPY variable of spends."""
    cp = cvxpy()
    found = [x >= problem.low_C, x <= problem.high_C]
    found.append(cp.sum(x) == problem.total_budget if problem.spend_all else cp.sum(x) <= problem.total_budget)
    for group in problem.groups:
        if group.min is not None:
            found.append(cp.sum(x[group.arms]) >= group.min)
        if group.max is not None:
            found.append(cp.sum(x[group.arms]) <= group.max)
    for floor in limits.floors:
        found.append(cp.sum(sales[floor.arms]) >= floor.roas * cp.sum(x[floor.arms]))
    return found


def solve(model: Any) -> None:
    """Solve a CVXPY problem with Clarabel, tightly.

    Raises:
        NotSolved: no solution came back.
    """
    cp = cvxpy()
    try:
        model.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    except cp.error.SolverError as error:
        raise NotSolved(f"the general solver failed: {error}") from None
    if model.status not in ("optimal", "optimal_inaccurate"):
        raise NotSolved(f"the general solver ended {model.status}")


def solved(model: Any, *, cones: bool) -> bool | None:
    """Solve with Clarabel where there are cones, else with HiGHS; False where the limits cannot be kept.

    Returns:
        None where Clarabel gave up.

    Raises:
        NotSolved: HiGHS ended without an answer either way.
    """
    cp = cvxpy()
    tries: list[dict[str, Any]] = [{"solver": cp.HIGHS}]
    if cones:
        names = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
        tries = [{"solver": cp.CLARABEL} | dict.fromkeys(names, tolerance) for tolerance in (1e-10, 1e-8)]
    for options in tries:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "may be inaccurate": the bound is computed apart
                model.solve(**options)
        except cp.error.SolverError:
            continue
        if model.status in ("optimal", "optimal_inaccurate"):
            return True
        if model.status in ("infeasible", "infeasible_inaccurate"):
            return False
    if cones:
        return None
    raise NotSolved(f"the general solver ended {model.status}")


def allocate_plainly(problem: Problem, limits: Limits) -> tuple[Array, float]:
    """Spends and objective of a problem with concave curves, by CVXPY alone."""
    cp = cvxpy()
    x = cp.Variable(problem.size)
    sales = concave_sales(problem.curves, x)
    weight = np.ones(problem.size) if problem.weight_C is None else problem.weight_C
    model = cp.Problem(cp.Maximize(weight @ sales), constraints(problem, limits, x, sales))
    solve(model)
    spend_C = np.clip(np.asarray(x.value, float), problem.low_C, problem.high_C)
    return spend_C, float(model.value)


def reachable_floors(problem: Problem, limits: Limits) -> list[float]:
    """For each ROAS floor a level that all can keep together within the spend limits; the asked one where it is no trouble."""
    count, until = len(limits.floors), monotonic() + 0.5 * problem.time_limit_s

    def holds(levels: Sequence[float]) -> bool:
        chosen = tuple(
            Floor(floor.arms, level) for floor, level in zip(limits.floors, levels, strict=True) if level > 0
        )
        whole = Limits(limits.budget, limits.spend_all, limits.rows, chosen)
        return bool(_possible(problem, problem.low_C, problem.high_C, problem.gate_C, whole, until))

    levels = [floor.roas for floor in limits.floors]
    for place in range(count):
        if holds(levels):
            break
        low, high = 0.0, levels[place]
        for _ in range(30):
            middle = 0.5 * (low + high)
            levels[place] = middle
            low, high = (middle, high) if holds(levels) else (low, middle)
            if high - low < 1e-5 * high:
                break
        levels[place] = low
    return levels


def _possible(
    problem: Problem, low_C: Array, high_C: Array, gate_C: Array | None, limits: Limits, until: float
) -> bool | None:
    """Whether any plan keeps these limits; None where time ran out before that was known."""
    from campaigns.domain.branch import Space, search

    if np.any(low_C > high_C) or (limits.rows is not None and not sums_fit(limits.rows, low_C, high_C)):
        return False
    if not limits.floors:
        if gate_C is None or limits.rows is None:
            return True
        changes, gates = nearest_gated(limits.rows, low_C, high_C, gate_C)
        return not changes and not gates
    length = min(2.0, max(until - monotonic(), 0.05))
    started = monotonic()
    # the first plan found will do
    found = search(Space(problem.curves, None, limits), low_C, high_C, gate_C, 2.0, length)
    if found is not None:
        return True
    return False if monotonic() - started < length else None


@dataclass(frozen=True)
class Kept:
    """Which limits are still asked for, while one after another is tried without."""

    low_C: BoolArray
    high_C: BoolArray
    gate_C: BoolArray
    low_K: BoolArray
    high_K: BoolArray
    floor_F: BoolArray
    smallest: bool = True  # else some may not be needed: time did not allow to know
    proved: bool = True  # that they contradict each other; else no plan was found in the time given


def smallest(problem: Problem, limits: Limits, rows: Rows) -> Kept:
    """A set of limits that no plan keeps together, while any smaller part of it some plan does.

    Limits are dropped one after another, by halves where many can go, arms' own first; one of which time did not allow
    to know stays.
    """
    until = monotonic() + 0.5 * problem.time_limit_s
    gate_C = np.zeros(problem.size) if problem.gate_C is None else problem.gate_C
    far = 1e3 * max(float(problem.low_C.sum()), limits.budget, float(gate_C.sum()), 1e-300)
    own_C = np.array([problem.high_why.get(arm) != "budget" for arm in range(problem.size)])
    kept = Kept(
        problem.low_C > 0,
        own_C,
        gate_C > 0,
        np.isfinite(rows.low_K),
        np.isfinite(rows.high_K),
        np.ones(len(limits.floors), bool),
    )

    unsure: list[bool] = []

    def broken() -> bool:
        high_K = np.where(kept.high_K, rows.high_K, np.inf)
        chosen = tuple(floor for floor, keep in zip(limits.floors, kept.floor_F, strict=True) if keep)
        whole = Limits(
            limits.budget if kept.high_K[0] else far,
            bool(limits.spend_all and kept.low_K[0] and kept.high_K[0]),
            replace(rows, low_K=np.where(kept.low_K, rows.low_K, -np.inf), high_K=np.where(high_K < far, high_K, far)),
            chosen,
        )
        low_C = np.where(kept.low_C, problem.low_C, 0.0)
        high_C = np.maximum(
            np.where(kept.high_C, problem.high_C, far if not kept.high_K[0] else ROOM * limits.budget), low_C
        )
        gates = np.where(kept.gate_C, gate_C, 0.0)
        found = _possible(problem, low_C, high_C, gates if gates.any() else None, whole, until)
        unsure.append(found is None)
        return found is False

    if not broken():
        return replace(kept, proved=False)
    for flags, order in (
        (kept.high_C, np.argsort(-problem.high_C, kind="stable")),
        (kept.low_C, np.argsort(problem.low_C, kind="stable")),
        (kept.gate_C, np.argsort(gate_C, kind="stable")),
        *((flags, np.arange(flags.size)[::-1]) for flags in (kept.high_K, kept.low_K, kept.floor_F)),
    ):
        drop(flags, order[flags[order]], broken)
    return replace(kept, smallest=not any(unsure))

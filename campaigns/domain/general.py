"""The general convex model (CVXPY with Clarabel): the slow way, for what the fast ones do not cover.

Also the plainer method that tests check the fast ones against. CVXPY takes a second to import and is
loaded only when it is needed.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from campaigns.domain.branch import Limits
from campaigns.domain.curves import HILL, LINEAR, LOG, MICHAELIS_MENTEN, PIECEWISE, POWER, Curves
from campaigns.domain.problem import Problem
from rmn.lib.arrays import Array
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
    """Solve with Clarabel where there are cones, else with HiGHS first; False where the limits cannot be kept.

    Returns:
        None where all gave up on cones.

    Raises:
        NotSolved: all ended without an answer either way where there are no cones.
    """
    cp = cvxpy()
    names = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
    tries = [{"solver": cp.CLARABEL} | dict.fromkeys(names, tolerance) for tolerance in (1e-10, 1e-8)]
    if not cones:
        tries.insert(0, {"solver": cp.HIGHS})
    for options in tries:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "may be inaccurate": the bound is computed apart
                model.solve(**options)
        except (cp.error.SolverError, ValueError):  # ValueError: CVXPY cannot read what HiGHS ended with
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

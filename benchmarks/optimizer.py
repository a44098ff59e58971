"""The budget optimizer beside the field: exact dual, interior point and branch and bound against CVXPY and the peers' own calls.

The peers' calls are written out here on the same instances, without the evaluation of their models, so that they look
faster than they are in use: SLSQP from an even start as PyMC-Marketing calls it, augmented Lagrangian with SLSQP inside
as Robyn does (stopped after 60 s; needs the package nlopt, left out where it is missing), greedy steps on a money grid as Meridian does.

    python -m benchmarks optimizer [--full]
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.harness import Row, median_seconds, seconds
from campaigns.domain import general, optimizer
from campaigns.domain.curves import HILL, MICHAELIS_MENTEN, Curves
from campaigns.domain.optimizer import limits_of
from campaigns.domain.problem import Group, Problem
from rmn.lib.arrays import Array

ALONE = True  # minutes in full
NOTE = (
    "One thread for each side, arms drawn at random (Michaelis-Menten, or Hill of exponent 1.2 to 3 for S-curves), seed 0."
    " Times are medians, of the peers' long calls a single one; read the ratios where the machine is shared."
    " The augmented Lagrangian is stopped after 60 s: then its value is where it stood. CVXPY's time is its whole call, model building included. A value short of ours is in parts of the value; ours carries"
    " its own proof."
)


def instance(n: int, seed: int = 0, *, shaped: bool = False, groups: bool = False, gap: float = 1e-9) -> Problem:
    """Arms with bounds over one budget; with groups ten retailers (least and most) that cross five tactics (most)."""
    rng = np.random.default_rng(seed)
    half, scale = rng.lognormal(np.log(50), 0.8, n), rng.lognormal(np.log(200), 0.8, n)
    low = np.where(rng.random(n) < 0.2, 0.15 * half, 0.0)
    high = 4.0 * half
    exponent = rng.uniform(1.2, 3.0, n) if shaped else np.ones(n)
    found: list[Group] = []
    if groups:
        for name, count, of in (("r", 10, np.arange(n) % 10), ("t", 5, (np.arange(n) // 7) % 5)):
            for place in range(count):
                arms = np.flatnonzero(of == place)
                least, room = float(low[arms].sum()), float((high - low)[arms].sum())
                floor = least + rng.uniform(0, 0.25) * room if name == "r" else None
                found.append(Group(f"{name}{place}", len(found), arms, floor, least + rng.uniform(0.27, 0.5) * room))
    kind = np.full(n, HILL if shaped else MICHAELIS_MENTEN)
    return Problem(
        ids=range(n),  # type: ignore[arg-type]  # numbers name the arms as well
        curves=Curves(kind, scale, half, exponent),
        total_budget=float(low.sum() + 0.3 * (high - low).sum()),
        low_C=low,
        high_C=high,
        spend_all=True,
        groups=tuple(found),
        gap=gap,
    )


def cvxpy_seconds(problem: Problem) -> tuple[float, float]:
    """Time and value of CVXPY with Clarabel at its own tolerances, model building included."""
    cp = general.cvxpy()

    def call() -> float:
        x = cp.Variable(problem.size)
        sales = general.concave_sales(problem.curves, x)
        limits = general.constraints(problem, limits_of(problem)[0], x, sales)
        model = cp.Problem(cp.Maximize(cp.sum(sales)), limits)
        model.solve(solver=cp.CLARABEL)
        return float(model.value)

    call() if problem.size <= 1000 else None
    return seconds(call)


def resolved_seconds(problem: Problem, budgets: Array) -> float:
    """Time of one re-solve of a parametrised CVXPY model, the mean of some."""
    cp = general.cvxpy()
    x, money = cp.Variable(problem.size), cp.Parameter(nonneg=True)
    sales = general.concave_sales(problem.curves, x)
    limits = [x >= problem.low_C, x <= problem.high_C, cp.sum(x) == money]
    model = cp.Problem(cp.Maximize(cp.sum(sales)), limits)
    times = []
    for budget in budgets:
        money.value = float(budget)
        started = time.perf_counter()
        model.solve(solver=cp.CLARABEL)
        times.append(time.perf_counter() - started)
    return float(np.mean(times[1:]))


# -- the peers' own calls


def slsqp(problem: Problem) -> Array:
    """As PyMC-Marketing's BudgetOptimizer: SLSQP, even start, ftol 1e-9, 1,000 iterations, equality on the total."""
    from scipy.optimize import minimize

    start = np.clip(np.full(problem.size, problem.total_budget / problem.size), problem.low_C, problem.high_C)
    found = minimize(
        lambda x: -float(problem.curves.value(x).sum()),
        start,
        jac=lambda x: -problem.curves.slope(x),
        bounds=list(zip(problem.low_C, problem.high_C, strict=True)),
        constraints={"type": "eq", "fun": lambda x: x.sum() - problem.total_budget, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-9, "maxiter": 1000},
    )
    return np.asarray(found.x, float)


def auglag(problem: Problem) -> Array:
    """As Robyn's allocator: augmented Lagrangian with SLSQP inside, xtol 1e-10, start at the lower bounds."""
    import nlopt  # type: ignore[import-not-found]

    def sales(x: Array, gradient: Array) -> float:
        if gradient.size:
            gradient[:] = -problem.curves.slope(x)
        return -float(problem.curves.value(x).sum())

    def budget(x: Array, gradient: Array) -> float:
        if gradient.size:
            gradient[:] = 1.0
        return float(x.sum() - problem.total_budget)

    outer = nlopt.opt(nlopt.LD_AUGLAG, problem.size)
    inner = nlopt.opt(nlopt.LD_SLSQP, problem.size)
    inner.set_xtol_rel(1e-10)
    outer.set_local_optimizer(inner)
    outer.set_lower_bounds(problem.low_C)
    outer.set_upper_bounds(problem.high_C)
    outer.set_min_objective(sales)
    outer.add_equality_constraint(budget, 1e-8 * problem.total_budget)
    outer.set_xtol_rel(1e-10)
    outer.set_maxeval(100_000)
    outer.set_maxtime(60.0)
    return np.asarray(outer.optimize(problem.low_C.copy()), float)


def money_grid(problem: Problem) -> Array:
    """As Meridian's optimizer: the steepest average slope anywhere on a money grid, until a step passes the budget."""
    step = max(problem.total_budget * 1e-4, 1e-12)
    count = int(np.ceil(float((problem.high_C - problem.low_C).max()) / step)) + 1
    grid_GC = np.minimum(problem.low_C + step * np.arange(count)[:, None], problem.high_C)
    sales_GC = np.stack([problem.curves.value(row) for row in grid_GC])
    at_C = np.zeros(problem.size, int)
    arms = np.arange(problem.size)
    left = problem.total_budget - float(problem.low_C.sum())

    def steepest(arm: int) -> tuple[float, int]:
        spend, sales = grid_GC[:, arm], sales_GC[:, arm]
        here = at_C[arm]
        more = spend[here + 1 :] - spend[here]
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(more > 0, (sales[here + 1 :] - sales[here]) / more, -np.inf)
        best = int(np.argmax(slope)) if slope.size else -1
        return (float(slope[best]), here + 1 + best) if slope.size else (-np.inf, here)

    options = [steepest(int(arm)) for arm in arms]
    while True:
        arm = max(arms, key=lambda a: options[a][0])
        slope, goal = options[arm]
        cost = float(grid_GC[goal, arm] - grid_GC[at_C[arm], arm])
        if slope <= 0 or cost > left:
            return np.asarray(grid_GC[at_C, arms], float)
        left -= cost
        at_C[arm] = goal
        options[arm] = steepest(int(arm))


def value_of(problem: Problem, spend_C: Array) -> float:
    """Of a peer's plan brought onto the budget, so that a plan that breaks it is not praised for that."""
    spend_C = np.clip(spend_C, problem.low_C, problem.high_C)
    over = float(spend_C.sum()) - problem.total_budget
    if over > 0:
        spend_C = spend_C - over * (spend_C - problem.low_C) / float((spend_C - problem.low_C).sum())
    return float(problem.curves.value(spend_C).sum())


# -- the table


def rows(size: str) -> list[Row]:
    full = size == "full"
    with threadpool_limits(1):
        told = [*_concave(full), *_grouped(full), *_shaped(full), *_what_if(full)]
        for shaped, n in ((False, 100 if full else 30), (True, 50 if full else 10)):
            told += _peers(shaped, n)
    return told


def _timed(problem: Problem, repeats: int = 5) -> tuple[float, optimizer.Plan]:
    return median_seconds(lambda: optimizer.allocate(problem), repeats), optimizer.allocate(problem)


def _once(problem: Problem) -> tuple[float, optimizer.Plan]:
    return seconds(partial(optimizer.allocate, problem))


def _gap_row(what: str, gap: float | None, bar: float) -> Row:
    shown = 0.0 if gap is None else max(gap, 0.0)
    return Row(f"{what}: proved gap", shown, "share", bar=f"at most {bar:g}", holds=shown <= bar)


def _concave(full: bool) -> list[Row]:
    told = []
    for n, most_ms, times in ((1_000, 1, 30), (100_000, 20, 300), (1_000_000, 400, None)):
        if n > 1_000 and not full:
            continue
        problem = instance(n)
        took, plan = _timed(problem)
        what = f"concave, budget and bounds, {n:,} arms"
        if times is None:
            told.append(Row(what, 1e3 * took, "ms", bar=f"at most {most_ms} ms idle", holds=1e3 * took <= most_ms))
        else:
            theirs, _ = cvxpy_seconds(problem)
            bar = f"at most {most_ms} ms idle; {times} times CVXPY"
            told.append(Row(what, 1e3 * took, "ms", "CVXPY + Clarabel", 1e3 * theirs, bar, theirs >= times * took))
        told.append(_gap_row(what, plan.gap, 1e-9))
    return told


def _grouped(full: bool) -> list[Row]:
    told = []
    for n, times in ((10_000, 15), (100_000, 30), (1_000_000, None)):
        if n > 10_000 and not full:
            continue
        problem = instance(n, groups=True, gap=1e-6)
        took, plan = _timed(problem, 3) if n < 1_000_000 else _once(problem)
        what = f"15 crossing groups, {n:,} arms"
        if times is None:
            told.append(Row(what, took, "s", bar="converges", holds=plan.status == "optimal"))
        else:
            theirs, _ = cvxpy_seconds(problem)
            told.append(
                Row(what, took, "s", "CVXPY + Clarabel", theirs, f"{times} times CVXPY", theirs >= times * took)
            )
        told.append(_gap_row(what, plan.gap, 1e-6))
    return told


def _shaped(full: bool) -> list[Row]:
    told = []
    for n, most_s in ((200, 0.1), (1_000, 0.15), (10_000, 1.0)):
        if n > 200 and not full:
            continue
        took, plan = _timed(instance(n, shaped=True, gap=1e-6), 3)
        what = f"S-curves, one budget, {n:,} arms"
        told.append(Row(what, took, "s", bar=f"at most {most_s:g} s idle", holds=took <= most_s))
        told.append(_gap_row(what, plan.gap, 1e-6))
    if full:
        took, plan = _timed(instance(1_000, shaped=True, groups=True, gap=1e-4), 3)
        what = "S-curves, 15 crossing groups, 1,000 arms"
        told.append(Row(what, took, "s", bar="at most 1 s idle", holds=took <= 1.0))
        told.append(_gap_row(what, plan.gap, 1e-4))
    return told


def _what_if(full: bool) -> list[Row]:
    n, count = (1_000, 1_000) if full else (200, 200)
    problem = instance(n)
    budgets = np.linspace(0.5, 1.5, count) * problem.total_budget
    took = median_seconds(lambda: optimizer.what_if(problem, list(budgets)), 3)
    theirs = resolved_seconds(problem, budgets[:: count // 10]) * count
    what = f"{count:,} what-if budgets, {n:,} arms"
    peer = "CVXPY with a parameter, 10 re-solves scaled up"
    return [Row(what, took, "s", peer, theirs, "at most 0.5 s idle; 50 times CVXPY", theirs >= 50 * took)]


def _peers(shaped: bool, n: int) -> list[Row]:
    problem = instance(n, shaped=shaped, gap=1e-6)
    took, plan = _timed(problem)
    best = plan.objective or 0.0
    calls: list[tuple[str, Callable[[Problem], Array]]] = [
        ("SLSQP as PyMC-Marketing", slsqp),
        ("money grid as Meridian", money_grid),
    ]
    if importlib.util.find_spec("nlopt"):
        calls.insert(1, ("AUGLAG with SLSQP as Robyn", auglag))
    told = []
    what = f"{'S-curves' if shaped else 'concave'}, {n} arms"
    for name, call in calls:
        theirs, spend_C = seconds(partial(call, problem))
        told.append(Row(f"{what}: time", took, "s", name, theirs))
        short: Any = 1.0 - value_of(problem, spend_C) / best
        told.append(
            Row(
                f"{what}: value short of the best",
                0.0 if (plan.gap or 0.0) < 1e-12 else plan.gap or 0.0,
                "share",
                name,
                short,
            )
        )
    return told

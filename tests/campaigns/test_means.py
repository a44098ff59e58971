"""S-shaped curves drawn one by one, planned by their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from campaigns.domain import optimizer
from campaigns.domain.curves import Curves
from campaigns.domain.means import Means, _nodes
from campaigns.domain.problem import read
from tests.campaigns import budgets


def drawn(n: int, seed: int, *, groups: bool = False, draws: int = 40, **more: Any) -> dict[str, Any]:
    given = budgets.problem(n, seed, "hill", groups=groups, **more)
    rng = np.random.default_rng(seed)
    given["draws"] = {
        arm["id"]: [
            {
                "scale": arm["curve"]["scale"] * float(np.exp(0.2 * rng.normal())),
                "half": arm["curve"]["half"] * float(np.exp(0.2 * rng.normal())),
                "exponent": max(1.01, arm["curve"]["exponent"] + 0.2 * float(rng.normal())),
            }
            for _ in range(draws)
        ]
        for arm in given["arms"]
    }
    return given


@pytest.mark.parametrize(
    ("n", "groups", "margin"), [(1, False, False), (8, False, True), (20, False, False), (12, True, False)]
)
def test_the_mean_of_drawn_s_curves_is_planned_to_a_small_gap(n: int, *, groups: bool, margin: bool) -> None:
    given = drawn(n, 1, groups=groups, margin=margin)
    plan = optimizer.solve(given)
    assert 0 <= plan["gap"] <= 1e-4
    assert plan["total_spend"] == pytest.approx(given["total_budget"], rel=1e-9)
    for group in given["groups"]:
        ((key, value),) = group["where"].items()
        ids = {arm["id"] for arm in given["arms"] if arm[key] == value}
        spent = sum(row["spend"] for row in plan["allocations"] if row["id"] in ids)
        assert spent <= group["max"] + 1e-9 * given["total_budget"]


def test_the_plan_is_the_best_of_two_arms_by_trying() -> None:
    given = drawn(2, 3)
    problem, plan = read(given), optimizer.solve(given)
    assert problem.draws is not None

    def mean(arm: int, spend: np.ndarray) -> np.ndarray:
        a, b, n = problem.draws.given[arm]  # type: ignore[union-attr]
        curves = [Curves(problem.curves.kind_C[[arm]], a[[s]], b[[s]], n[[s]]) for s in range(a.size)]
        return np.mean([[float(c.value(np.array([x]))[0]) for x in spend] for c in curves], axis=0)

    first = np.linspace(max(problem.low_C[0], problem.total_budget - problem.high_C[1]), min(problem.high_C[0], problem.total_budget), 400)  # fmt: skip
    tried = float((mean(0, first) + mean(1, problem.total_budget - first)).max())
    assert tried <= plan["upper_bound"] * (1 + 1e-12)
    assert plan["objective"] >= tried * (1 - 1e-6)


def test_what_straight_lines_miss_is_never_more_than_was_added() -> None:
    problem = read(drawn(4, 2))
    limits, _ = optimizer.limits_of(problem)
    nodes = {arm: _nodes(50.0, problem.high_C[arm])[::8] for arm in range(4)}
    means = Means(problem, limits, nodes)
    for arm, x_G in nodes.items():
        points = means.curves.points[arm]
        for part in range(x_G.size - 1):
            between = np.linspace(x_G[part], x_G[part + 1], 9)
            lines = np.interp(between, points[:, 0], points[:, 1])
            spend = np.zeros((9, 4))
            spend[:, arm] = between
            true = np.array([means.value(row) for row in spend])
            assert np.all(true <= lines + means.lift[arm][part] + 1e-9 * points[-1, 1])


@pytest.mark.parametrize(("n", "groups"), [(3, False), (8, False), (8, True)])
def test_risk_over_drawn_s_curves_is_planned_to_a_small_gap(n: int, *, groups: bool) -> None:
    given = drawn(n, 1, groups=groups) | {"risk_aversion": 0.5, "gap": 1e-4}
    plan = optimizer.solve(given)
    assert 0 <= plan["gap"] <= 1e-4
    assert plan["objective"] == pytest.approx(0.5 * plan["risk"]["mean"] + 0.5 * plan["risk"]["cvar"], rel=1e-9)
    assert plan["total_spend"] == pytest.approx(given["total_budget"], rel=1e-9)


@pytest.mark.parametrize("risk", [0.3, 1.0])
def test_the_averse_plan_is_the_best_of_two_arms_by_trying(risk: float) -> None:
    given = drawn(2, 3) | {"risk_aversion": risk}
    problem, plan = read(given), optimizer.solve(given)
    assert problem.draws is not None
    first = np.linspace(max(problem.low_C[0], problem.total_budget - problem.high_C[1]), min(problem.high_C[0], problem.total_budget), 400)  # fmt: skip
    tried = -np.inf
    for x in first:
        spend = (x, problem.total_budget - x)
        totals = np.zeros(problem.draws.n)
        for arm, (a, b, n) in problem.draws.given.items():
            totals += a * spend[arm] ** n / (b**n + spend[arm] ** n)
        tail = np.sort(totals)[: problem.draws.n // 10].mean()
        tried = max(tried, (1 - risk) * float(totals.mean()) + risk * float(tail))
    assert tried <= plan["upper_bound"] * (1 + 1e-12)
    assert plan["objective"] >= tried * (1 - 1e-6)

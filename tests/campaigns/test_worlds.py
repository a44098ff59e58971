"""Plans over weeks with carry-over and over draws, against plainer methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from campaigns.domain import optimizer, worlds
from campaigns.domain.problem import read
from tests.campaigns import budgets
from tests.campaigns.test_optimizer import kept

CONCAVE = ("michaelis_menten", "log", "power", "piecewise")


def drawn(given: dict[str, Any], n: int = 40, arms: int = 4) -> dict[str, Any]:
    """Joint draws of the first arms' curves, half and scale apart."""
    rng = np.random.default_rng(3)
    chosen = [arm for arm in given["arms"] if arm["curve"]["kind"] != "piecewise"][:arms]
    return {
        arm["id"]: [
            {
                key: value * float(rng.lognormal(0, 0.3))
                for key, value in arm["curve"].items()
                if key in ("scale", "half")
            }
            for _ in range(n)
        ]
        for arm in chosen
    }


@pytest.mark.parametrize("groups", [False, True])
def test_weeks_without_carry_over_are_worth_what_the_period_is(groups: bool) -> None:
    given = budgets.problem(6, 3, *CONCAVE, groups=groups)
    plain, weekly = optimizer.solve(given), optimizer.solve(given | {"periods": {"weeks": 3}})
    assert weekly["status"] == "optimal"
    assert weekly["objective"] == pytest.approx(plain["objective"], rel=1e-6)
    assert weekly["prices"]["budget"] == pytest.approx(plain["prices"]["budget"], rel=0.01)
    kept(given, weekly)
    for row in weekly["allocations"]:
        assert sum(row["weeks"]) == pytest.approx(row["spend"], abs=1e-9 * given["total_budget"])


def test_a_weekly_plan_with_carry_over_equals_a_search_over_all_weeks() -> None:
    curves = [("michaelis_menten", 200.0, 60.0), ("log", 150.0, 90.0)]
    arms = [
        {"id": f"a{k}", "tactic": f"t{k}", "max": 150, "curve": {"kind": kind, "scale": a, "half": b}}
        for k, (kind, a, b) in enumerate(curves)
    ]
    given = {"total_budget": 200, "spend_all": True, "arms": arms, "periods": {"weeks": 3, "adstock": {"t0": 0.5}}}
    plan = optimizer.solve(given)

    def sales(x: Any) -> float:
        total = 0.0
        for spend, (kind, a, b), r in zip(np.reshape(x, (2, 3)), curves, (0.5, 0.0), strict=True):
            felt = 0.0
            for s in spend:
                felt = (1 - r) * s + r * felt
                total += (a * 3 * felt / (b + 3 * felt) if kind != "log" else a * np.log1p(3 * felt / b)) / 3
        return total

    limits = [
        {"type": "eq", "fun": lambda x: x.sum() - 200},
        {"type": "ineq", "fun": lambda x: 150 - x[:3].sum()},
        {"type": "ineq", "fun": lambda x: 150 - x[3:].sum()},
    ]
    found = minimize(lambda x: -sales(x), np.full(6, 200 / 6), bounds=[(0, None)] * 6, constraints=limits, tol=1e-12)
    assert plan["objective"] == pytest.approx(-found.fun, rel=1e-5)
    assert sales(np.array([row["weeks"] for row in plan["allocations"]])) == pytest.approx(plan["objective"], rel=1e-9)
    assert plan["gap"] <= 1e-6


def test_a_week_in_which_nothing_can_be_sold_gets_nothing() -> None:
    given = budgets.problem(3, 3, "michaelis_menten")
    given["arms"][0]["readiness"] = [1, 0, 0.5]
    plan = optimizer.solve(given | {"periods": {"weeks": 3}})
    first, second, third = plan["allocations"][0]["weeks"]
    assert second == 0
    assert first > third > 0


def test_curves_drawn_one_by_one_are_valued_at_the_mean_of_their_draws() -> None:
    given = budgets.problem(6, 3, *CONCAVE, groups=True)
    given["draws"] = drawn(given)
    plan = optimizer.solve(given)
    assert plan["status"] == "optimal"
    kept(given, plan)
    spend = {row["id"]: row["spend"] for row in plan["allocations"]}
    point = optimizer.solve({key: value for key, value in given.items() if key != "draws"})
    for name, rows in given["draws"].items():
        curve = next(arm["curve"] for arm in given["arms"] if arm["id"] == name)
        sales = [
            read({"total_budget": 1, "arms": [{"id": "a", "curve": curve | row}]}).curves.value(
                np.array([spend[name]])
            )[0]
            for row in rows
        ]
        told = next(row for row in plan["allocations"] if row["id"] == name)
        assert told["expected_sales"] == pytest.approx(np.mean(sales), rel=1e-9)
        assert told["interval"][0] < told["expected_sales"] < told["interval"][1]
    assert plan["objective"] != pytest.approx(point["objective"], rel=1e-4)


def test_averting_risk_gives_mean_for_tail_and_its_objective_is_their_mixture() -> None:
    given = budgets.problem(6, 3, "michaelis_menten", "log")
    for place, arm in enumerate(given["arms"]):
        arm["std"] = {"scale": arm["curve"]["scale"] * (0.6 if place % 2 else 0.05)}
    given["draws"] = {"n": 200, "seed": 4}
    bold = optimizer.solve(given | {"risk_aversion": 0.001})["risk"]
    plan = optimizer.solve(given | {"risk_aversion": 0.9})
    assert plan["status"] == "optimal"
    shy = plan["risk"]
    assert shy["mean"] < bold["mean"]
    assert bold["cvar"] < shy["cvar"] < shy["mean"]
    assert plan["objective"] == pytest.approx(0.1 * shy["mean"] + 0.9 * shy["cvar"], rel=1e-9)
    kept(given, plan)


def test_the_mean_of_the_worst_tenth_counts_the_last_draw_in_part() -> None:
    assert worlds.cvar(np.arange(1.0, 16.0), 0.1) == pytest.approx((1 + 0.5 * 2) / 1.5)


@pytest.mark.parametrize("seed", range(4))
def test_a_risk_averse_plan_equals_a_linear_program_over_pieces(seed: int) -> None:
    """Piecewise curves and scaled draws: the whole problem is linear, so another solver can answer it."""
    from scipy.optimize import linprog

    given = budgets.problem(5, seed, "piecewise", groups=True, spend_all=False)
    for arm in given["arms"]:
        arm["std"] = 0.3
    given |= {"draws": {"n": 60, "seed": 1}, "risk_aversion": 0.6}
    problem = read(given)
    plan = optimizer.solve(given)
    ratio_SC = worlds.drawn(problem).ratio_SC
    assert ratio_SC is not None
    slopes, widths, owner = [], [], []
    for arm in range(5):
        points = problem.curves.points[arm]
        slopes += list(np.diff(points[:, 1]) / np.diff(points[:, 0]))
        widths += list(np.diff(points[:, 0]))
        owner += [arm] * (len(points) - 1)
    pieces, owner_E = len(slopes), np.array(owner)
    gain_SE = ratio_SC[:, owner_E] * np.array(slopes)
    cost = -np.concatenate([0.4 * gain_SE.mean(0), [0.6], np.full(60, -0.6 / (0.1 * 60))])
    rows = [np.concatenate([-gain, [1.0], -np.eye(60)[s]]) for s, gain in enumerate(gain_SE)]
    right = [0.0] * 60

    def add(members: Any, limit: float, sign: float) -> None:
        rows.append(np.concatenate([sign * np.isin(owner_E, members), np.zeros(61)]))
        right.append(sign * limit)

    add(range(5), problem.total_budget, 1.0)
    for group in problem.groups:
        if group.max is not None:
            add(group.arms, group.max, 1.0)
        if group.min is not None:
            add(group.arms, group.min, -1.0)
    for arm in range(5):
        add([arm], problem.high_C[arm], 1.0)
        add([arm], problem.low_C[arm], -1.0)
    bounds = [(0, w) for w in widths] + [(None, None)] + [(0, None)] * 60
    best = linprog(cost, np.array(rows), np.array(right), bounds=bounds)
    assert pieces == len(widths)
    assert plan["objective"] == pytest.approx(-best.fun, rel=1e-6)


def test_arms_that_run_at_a_least_amount_keep_it_over_weeks() -> None:
    curve = {"kind": "log", "scale": 10, "half": 10}
    arms = [{"id": k, "min_if_on": 60, "max": 100, "curve": curve | {"scale": a}} for k, a in (("a", 10), ("b", 10.5))]
    plan = optimizer.solve({"total_budget": 100, "arms": arms, "periods": {"weeks": 2}})
    assert [row["spend"] for row in plan["allocations"]] == pytest.approx([0, 100], abs=1e-6)
    assert plan["gap"] <= 1e-6


def test_a_roas_floor_holds_over_weeks() -> None:
    given = budgets.problem(5, 2, "michaelis_menten", spend_all=False) | {"min_roas": 2.5}
    given["periods"] = {"weeks": 2, "adstock": {"t0": 0.3}}
    plan = optimizer.solve(given)
    assert plan["gap"] <= 1e-6
    assert sum(row["expected_sales"] for row in plan["allocations"]) >= 2.5 * plan["total_spend"] * (1 - 1e-9)


def test_s_curves_over_weeks_are_proved() -> None:
    plan = optimizer.solve(
        budgets.problem(3, 3, "hill") | {"periods": {"weeks": 2, "adstock": {"t0": 0.4}}, "gap": 1e-5}
    )
    assert plan["status"] == "optimal"


def test_a_problem_over_weeks_that_cannot_be_kept_says_why() -> None:
    curve = {"kind": "log", "scale": 10, "half": 10}
    plan = optimizer.solve(
        {"total_budget": 10, "periods": {"weeks": 2}, "arms": [{"id": "a", "min": 20, "curve": curve}]}
    )
    assert plan["status"] == "infeasible"
    assert plan["conflict"] == ["total_budget", "arms[0].min"]


def test_the_worst_case_alone_can_be_planned_for() -> None:
    given = budgets.problem(6, 3, "michaelis_menten", "log")
    for place, arm in enumerate(given["arms"]):
        arm["std"] = {"scale": arm["curve"]["scale"] * (0.6 if place % 2 else 0.05)}
    given |= {"draws": {"n": 100, "seed": 4}, "risk_aversion": 1.0}
    tenth = optimizer.solve(given)
    worst = optimizer.solve(given | {"risk_tail": 0})
    assert worst["status"] == "optimal"
    assert worst["objective"] == pytest.approx(worst["risk"]["worst"], rel=1e-9)
    assert worst["risk"]["worst"] > tenth["risk"]["worst"]
    assert worst["risk"]["cvar"] <= tenth["risk"]["cvar"]
    kept(given, worst)


def test_what_weeks_and_draws_ask_for_ends_with_the_time_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each relaxation takes as long as a clock of our own says: none is begun that would end too late."""
    from campaigns.domain import branch

    clock = [0.0]
    monkeypatch.setattr(branch.time, "monotonic", lambda: clock[0])
    relax = worlds.Worlds.relax

    def slow(*args: Any, **named: Any) -> Any:
        clock[0] += 1.0
        return relax(*args, **named)

    monkeypatch.setattr(worlds.Worlds, "relax", slow)
    given = budgets.problem(6, 3, "hill") | {"periods": {"weeks": 2, "adstock": {"t0": 0.4}}, "gap": 1e-13}
    plan = optimizer.solve(given | {"time_limit_s": 8.0})
    assert plan["objective"] > 0
    assert plan["upper_bound"] >= plan["objective"]
    assert clock[0] <= 8.0

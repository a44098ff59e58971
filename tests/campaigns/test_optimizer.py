from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from campaigns.domain import general, optimizer, report
from campaigns.domain.problem import read
from tests.campaigns import budgets

CONCAVE = ("michaelis_menten", "log", "power", "piecewise")


def kept(problem: dict, plan: dict) -> None:
    """Every limit holds to 1e-9 of the budget."""
    spend = {row["id"]: row["spend"] for row in plan["allocations"]}
    slack = 1e-9 * problem["total_budget"]
    assert sum(spend.values()) <= problem["total_budget"] + slack
    if problem["spend_all"]:
        assert sum(spend.values()) == pytest.approx(problem["total_budget"], rel=1e-9)
    for arm in problem["arms"]:
        assert arm["min"] - slack <= spend[arm["id"]] <= arm["max"] + slack
    for group in problem["groups"]:
        (key, value), *_ = group["where"].items()
        total = sum(spend[arm["id"]] for arm in problem["arms"] if arm[key] == value)
        assert (group.get("min") or 0) - slack <= total <= (group.get("max") or np.inf) + slack


@pytest.mark.parametrize("seed", range(50))
def test_fifty_instances_with_groups_equal_the_general_solver(seed: int) -> None:
    n = int(np.random.default_rng(seed + 1000).integers(5, 50))
    kinds = [(kind,) for kind in CONCAVE] + [CONCAVE]
    given = budgets.problem(n, seed, *kinds[seed % 5], groups=True, margin=seed % 3 == 0, spend_all=seed % 2 == 0)
    problem = read(given)
    plan = optimizer.allocate(problem)
    _, value = general.allocate_plainly(problem, optimizer.limits_of(problem)[0])
    assert plan.status == "optimal"
    assert plan.objective == pytest.approx(value, rel=1e-6)
    assert plan.upper_bound >= value * (1 - 1e-6)
    kept(given, optimizer.solve(given))


@pytest.mark.parametrize("kind", CONCAVE)
def test_one_budget_is_split_to_a_gap_of_rounding(kind: str) -> None:
    given = budgets.problem(300, 5, kind) | {"gap": 1e-9}
    plan = optimizer.solve(given)
    assert plan["status"] == "optimal"
    assert 0 <= plan["gap"] <= 1e-12
    kept(given, plan)


@pytest.mark.parametrize("seed", range(6))
def test_an_s_curve_plan_reaches_a_bound_found_on_a_grid(seed: int) -> None:
    given = budgets.problem(10 if seed < 3 else 60, seed, "hill")
    plan = optimizer.solve(given)
    assert plan["gap"] <= 1e-6
    kept(given, plan)
    problem = read(given)
    grid = problem.low_C[:, None] + (problem.high_C - problem.low_C)[:, None] * np.linspace(0, 1, 4001)
    sales = np.stack([problem.curves.value(grid[:, k]) for k in range(4001)], 1)
    bounds = [float((sales - p * grid).max(1).sum() + p * problem.total_budget) for p in np.geomspace(1e-3, 50, 300)]
    assert plan["upper_bound"] <= min(bounds) * (1 + 1e-4)
    assert plan["objective"] <= min(bounds) * (1 + 1e-4)


def test_a_small_s_curve_problem_equals_trying_everything() -> None:
    given = budgets.problem(3, 8, "hill")
    problem = read(given)
    steps = np.linspace(0, 1, 401)
    first, second = (problem.low_C[k] + (problem.high_C[k] - problem.low_C[k]) * steps for k in (0, 1))
    x, y = np.meshgrid(first, second)
    z = problem.total_budget - x - y
    ok = (z >= problem.low_C[2]) & (z <= problem.high_C[2])
    tried = max(
        float(problem.curves.value(np.array([a, b, c])).sum()) for a, b, c in zip(x[ok], y[ok], z[ok], strict=True)
    )
    plan = optimizer.solve(given)
    assert plan["objective"] >= tried * (1 - 1e-9)
    assert plan["objective"] <= tried * (1 + 2e-3)


def test_s_curves_with_crossing_groups_are_proved() -> None:
    given = budgets.problem(120, 3, "hill", "michaelis_menten", groups=True) | {"gap": 1e-4}
    plan = optimizer.solve(given)
    assert plan["status"] == "optimal"
    assert plan["gap"] <= 1e-4
    kept(given, plan)


def test_price_is_the_gain_of_one_more_unit() -> None:
    for groups in (False, True):
        given = budgets.problem(30, 4, *CONCAVE[:3], groups=groups, spend_all=False)
        plan = optimizer.solve(given)
        step = 1e-4 * given["total_budget"]
        more = optimizer.solve(given | {"total_budget": given["total_budget"] + step})
        less = optimizer.solve(given | {"total_budget": given["total_budget"] - step})
        assert (more["objective"] - less["objective"]) / (2 * step) == pytest.approx(plan["prices"]["budget"], rel=0.01)


def test_the_price_of_a_group_is_the_gain_of_raising_its_limit() -> None:
    given = budgets.problem(40, 9, "michaelis_menten", groups=True, spend_all=False)
    plan = optimizer.solve(given)
    name, price = max(((n, p) for n, p in plan["prices"].items() if n != "budget"), key=lambda row: abs(row[1]))
    group = next(g for g in given["groups"] if f"group:{g['id']}" == name)
    side = "max" if price > 0 else "min"
    group[side] += 1e-3
    more = optimizer.solve(given)["objective"]
    assert (more - plan["objective"]) / 1e-3 == pytest.approx(price, rel=0.01)


@pytest.mark.parametrize("kinds", [CONCAVE, ("hill",)])
def test_more_budget_never_lowers_the_value(kinds: tuple[str, ...]) -> None:
    given = budgets.problem(25, 6, *kinds, spend_all=False)
    rows = optimizer.what_if(read(given), np.linspace(0.5, 2, 12) * given["total_budget"])
    values = [row["objective"] for row in rows if row["status"] != "infeasible"]
    assert all(b >= a * (1 - 1e-6) for a, b in itertools.pairwise(values))
    assert all(row["gap"] <= 1e-6 for row in rows)


def test_the_order_of_arms_does_not_matter() -> None:
    given = budgets.problem(30, 2, *CONCAVE, groups=True)
    turned = given | {"arms": given["arms"][::-1]}
    assert optimizer.solve(given)["objective"] == pytest.approx(optimizer.solve(turned)["objective"], rel=1e-9)


def test_a_roas_floor_holds_and_equals_the_general_solver() -> None:
    given = budgets.problem(25, 2, *CONCAVE[:3], groups=True, spend_all=False) | {"min_roas": 2.0}
    problem = read(given)
    plan = optimizer.solve(given)
    _, value = general.allocate_plainly(problem, optimizer.limits_of(problem)[0])
    assert plan["objective"] == pytest.approx(value, rel=1e-6)
    assert plan["gap"] <= 1e-6
    sales = sum(row["expected_sales"] for row in plan["allocations"])
    assert sales >= 2.0 * plan["total_spend"] * (1 - 1e-9)
    assert plan["prices"]["min_roas"] <= 0


def test_a_roas_floor_out_of_reach_is_named_with_what_can_be_reached() -> None:
    given = budgets.problem(10, 2, "michaelis_menten") | {"min_roas": 500.0}
    plan = optimizer.solve(given)
    assert plan["status"] == "infeasible"
    assert "min_roas" in plan["conflict"]
    (change,) = plan["repair"]["changes"]
    assert optimizer.solve(given | {"min_roas": change["to"]})["status"] != "infeasible"


def test_an_arm_with_a_least_amount_runs_at_that_or_not_at_all() -> None:
    arms = [
        {"id": "a", "min_if_on": 60, "max": 100, "curve": {"kind": "log", "scale": 10, "half": 10}},
        {"id": "b", "min_if_on": 60, "max": 100, "curve": {"kind": "log", "scale": 10.5, "half": 10}},
    ]
    plan = optimizer.solve({"total_budget": 100, "arms": arms})
    assert [row["spend"] for row in plan["allocations"]] == pytest.approx([0, 100])
    assert plan["status"] == "optimal"
    plan = optimizer.solve({"total_budget": 125, "arms": arms})
    assert all(row["spend"] >= 60 - 1e-9 for row in plan["allocations"])
    assert plan["status"] == "optimal"


def test_a_plan_says_how_far_above_it_a_better_one_could_lie_and_nothing_where_none_can() -> None:
    problem = read(budgets.problem(12, 1, "log"))
    plan = optimizer.allocate(problem)
    told = report.as_json(problem, plan)
    assert "no plan within the limits brings more." in told["explanation"]
    left = replace(plan, upper_bound=plan.objective * 1.0003, gap=3e-4)
    assert "0.03 % above." in report.as_json(problem, left)["explanation"]


def test_floors_above_the_budget_are_named_and_the_repair_works() -> None:
    given = budgets.problem(12, 1, "log", groups=True)
    given["groups"][0]["min"] = 2 * given["total_budget"]
    given["groups"][0]["max"] = None
    plan = optimizer.solve(given)
    assert plan["status"] == "infeasible"
    assert plan["conflict"] == ["total_budget", "groups[0].min"]
    assert "at least" in plan["explanation"]
    for change in plan["repair"]["changes"]:
        part, _, field = change["limit"].partition("].")
        if part.startswith("groups["):
            given["groups"][int(part[7:])][field] = change["to"]
        elif part.startswith("arms["):
            given["arms"][int(part[5:])][field] = change["to"]
        else:
            given[change["limit"]] = change["to"]
    assert optimizer.solve(given)["status"] == "optimal"


def test_the_conflict_is_as_small_as_can_be() -> None:
    curve = {"kind": "log", "scale": 10, "half": 10}
    arms = [{"id": f"a{k}", "min": m, "curve": curve} for k, m in enumerate([5, 60, 1, 50, 2])]
    plan = optimizer.solve({"total_budget": 100, "arms": arms})
    assert sorted(plan["conflict"]) == ["arms[1].min", "arms[3].min", "total_budget"]
    arms = [{"id": "a", "max": 30, "curve": curve}, {"id": "b", "max": 20, "curve": curve}]
    plan = optimizer.solve({"total_budget": 100, "spend_all": True, "arms": arms})
    assert sorted(plan["conflict"]) == ["arms[0].max", "arms[1].max", "spend_all", "total_budget"]


def test_an_arm_that_contradicts_itself_is_infeasible_not_malformed() -> None:
    arm = {"id": "a", "last": 100, "max_change": 0.1, "min": 150, "curve": {"kind": "log", "scale": 10, "half": 10}}
    plan = optimizer.solve({"total_budget": 500, "arms": [arm]})
    assert plan["status"] == "infeasible"
    assert plan["conflict"] == ["arms[0].min", "arms[0].max_change"]


def test_reasons_say_what_holds_each_arm() -> None:
    curve = {"kind": "michaelis_menten", "scale": 100, "half": 50}
    arms = [
        {"id": "out", "available": False, "min": 10, "curve": curve},
        {"id": "kept", "fixed": 12.5, "curve": curve},
        {"id": "floor", "min": 80, "curve": curve | {"scale": 10}},
        {"id": "cap", "max": 5, "curve": curve},
        {"id": "slow", "last": 10, "max_change": 0.2, "curve": curve},
        {"id": "grouped", "curve": curve},
        {"id": "free", "curve": curve},
    ]
    groups = [{"id": "g", "arms": ["grouped"], "max": 20}]
    plan = optimizer.solve({"total_budget": 200, "arms": arms, "groups": groups})
    reasons = {row["id"]: row["binding"] for row in plan["allocations"]}
    assert reasons == {
        "out": "excluded", "kept": "fixed", "floor": "min", "cap": "max", "slow": "change",
        "grouped": "group:g", "free": "budget",
    }  # fmt: skip
    spend = {row["id"]: row["spend"] for row in plan["allocations"]}
    assert spend["out"] == 0
    assert spend["kept"] == 12.5
    assert spend["slow"] == pytest.approx(12)
    assert plan["bound_price"]["cap"] > 0 > plan["bound_price"]["floor"]


def test_up_to_a_budget_stops_where_nothing_more_is_gained() -> None:
    arms = [{"id": "a", "curve": {"kind": "piecewise", "points": [[10, 50], [20, 60]]}}]
    plan = optimizer.solve({"total_budget": 100, "arms": arms})
    assert plan["total_spend"] == pytest.approx(20)
    assert plan["prices"]["budget"] == 0
    assert optimizer.solve({"total_budget": 100, "spend_all": True, "arms": arms})["total_spend"] == pytest.approx(100)


def test_a_budget_of_nothing_buys_nothing() -> None:
    plan = optimizer.solve(
        budgets.problem(5, 1, "hill")
        | {"total_budget": 0, "arms": [{"id": "a", "curve": {"kind": "hill", "scale": 1, "half": 2, "exponent": 2}}]}
    )
    assert plan["status"] == "optimal"
    assert plan["objective"] == 0


def test_huge_and_tiny_arms_stand_beside_each_other() -> None:
    arms = [
        {"id": "huge", "curve": {"kind": "michaelis_menten", "scale": 1e13, "half": 1e12}},
        {"id": "tiny", "max": 1e-6, "curve": {"kind": "log", "scale": 1e-5, "half": 1e-7}},
        {"id": "odd", "curve": {"kind": "hill", "scale": 5e12, "half": 3e11, "exponent": 2.5}},
    ]
    for groups in ([], [{"id": "g", "arms": ["tiny", "odd"], "max": 2e11}]):
        plan = optimizer.solve({"total_budget": 1e12, "spend_all": True, "arms": arms, "groups": groups})
        assert plan["status"] == "optimal"
        assert plan["total_spend"] == pytest.approx(1e12, rel=1e-12)
        assert plan["allocations"][1]["spend"] <= 1e-6


def test_uncertainty_shows_in_every_number_and_in_the_comparison() -> None:
    curve = {"kind": "log", "scale": 100, "half": 50}
    arms = [{"id": k, "last": 50, "evidence": "attribution", "curve": curve, "std": {"scale": 40}} for k in ("a", "b")]
    plan = optimizer.solve({"total_budget": 101, "arms": arms})
    low, high = plan["interval"]
    assert low < plan["objective"] < high
    assert all(row["interval"][0] < row["expected_sales"] < row["interval"][1] for row in plan["allocations"])
    assert plan["compared_with_last"]["gain"] > 0
    assert plan["evidence"] == [{"evidence": "attribution", "spend": pytest.approx(101), "share": pytest.approx(1)}]


@pytest.mark.parametrize("kinds", [CONCAVE, ("michaelis_menten",)])
def test_many_budgets_at_once_equal_the_plans_of_each(kinds: tuple[str, ...]) -> None:
    given = budgets.problem(20, 6, *kinds, spend_all=False)
    asked = np.linspace(0.1, 3, 9) * given["total_budget"]
    for row, budget in zip(optimizer.what_if(read(given), asked), asked, strict=True):
        plan = optimizer.solve(given | {"total_budget": float(budget)})
        assert row["status"] == plan["status"]
        if plan["status"] != "infeasible":
            assert row["objective"] == pytest.approx(plan["objective"], rel=1e-12)
            assert row["price"] == pytest.approx(plan["prices"]["budget"], rel=1e-6, abs=1e-12)
            assert row["total_spend"] == pytest.approx(plan["total_spend"], rel=1e-12)

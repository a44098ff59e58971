"""Problems of every kind of curve and limit: what must hold of every answer, whatever was asked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.domain import optimizer
from campaigns.domain.problem import read
from tests.campaigns import attack, budgets


@settings(max_examples=60)
@given(st.integers(0, 10_000))
def test_no_answer_breaks_a_limit_and_every_price_is_the_gain_of_one_more_unit(seed: int) -> None:
    asked = attack.problem(seed)
    plan = optimizer.solve(asked)
    if plan["status"] == "infeasible":
        assert plan["conflict"]
        return
    assert attack.broken(asked, plan) == []
    assert attack.wrong_price(asked, plan) == ""


@settings(max_examples=12)
@given(st.integers(0, 10_000))
def test_weeks_and_risk_break_no_limit_and_stay_below_their_bound(seed: int) -> None:
    asked = attack.problem(seed)
    rng = np.random.default_rng(seed)
    asked["arms"] = [arm for arm in asked["arms"] if arm["curve"]["kind"] != "hill"][:4] or asked["arms"][:1]
    asked |= {
        "groups": [],
        "total_budget": 0.3 * sum(arm["max"] or 100.0 for arm in asked["arms"]),
        "time_limit_s": 2.0,
    }
    if rng.random() < 0.5:
        asked["periods"] = {"weeks": 3, "adstock": {asked["arms"][0]["tactic"]: 0.4}}
    if rng.random() < 0.6:
        asked["arms"][0]["std"] = {"scale": 0.2 * asked["arms"][0]["curve"].get("scale", 50.0)}
        asked |= {"risk_aversion": 0.5, "draws": {"n": 30, "seed": 1}}
    plan = optimizer.solve(asked)
    if plan["status"] != "infeasible":
        assert attack.broken(asked, plan) == []


@pytest.mark.parametrize("seed", range(6))
def test_no_local_search_finds_more_than_the_bound(seed: int) -> None:
    from scipy.optimize import minimize

    asked = budgets.problem(6, seed, "hill", "log", "michaelis_menten", groups=seed % 2 == 0)
    problem, plan = read(asked), optimizer.solve(asked)
    limits, _ = optimizer.limits_of(problem)
    rng = np.random.default_rng(seed)
    member = np.ones((1, 6)) if limits.rows is None else limits.rows.in_cell_KM[:, limits.rows.cell_C]
    high = np.array([problem.total_budget]) if limits.rows is None else limits.rows.high_K
    low = np.array([problem.total_budget]) if limits.rows is None else limits.rows.low_K
    finite = [(sign, row, limit) for sign, ends in ((1, high), (-1, low)) for row, limit in zip(member, ends, strict=True) if np.isfinite(limit)]  # fmt: skip
    best = -np.inf
    for _ in range(10):
        start = rng.uniform(problem.low_C, problem.high_C)
        found = minimize(
            lambda x: -float(problem.curves.value(x).sum()),
            start,
            bounds=list(zip(problem.low_C, problem.high_C, strict=True)),
            constraints=[
                {"type": "ineq", "fun": lambda x, s=s, r=r, b=b: s * (b - float(r @ x)) / problem.total_budget}
                for s, r, b in finite
            ],
            method="SLSQP",
        )
        x = found.x
        if all(s * (float(r @ x) - b) <= 1e-6 * problem.total_budget for s, r, b in finite):
            best = max(best, -float(found.fun))
    assert best <= plan["upper_bound"] * (1 + 1e-5)
    assert plan["objective"] >= best * (1 - 1e-5)


@pytest.fixture(scope="module")
def contradictory() -> list[tuple[dict, dict]]:
    found = []
    for seed in range(90):
        asked = attack.problem(seed) | {"min_roas": None, "time_limit_s": 600.0}
        for group in asked["groups"]:
            group["min_roas"] = None
        plan = optimizer.solve(asked)
        if plan["status"] == "infeasible":
            found.append((asked, plan))
    return found


def test_a_conflict_is_one_and_without_any_of_its_limits_there_is_none(contradictory: list[tuple[dict, dict]]) -> None:
    assert len(contradictory) >= 15
    for asked, plan in contradictory:
        for name in plan["conflict"]:
            after = optimizer.solve(attack.without(asked, name))
            # what is left may clash elsewhere, but no longer here
            assert after["status"] != "infeasible" or set(after["conflict"]) - set(plan["conflict"]), (name, plan)


def test_a_repair_makes_a_plan_possible(contradictory: list[tuple[dict, dict]]) -> None:
    for asked, plan in contradictory:
        after = optimizer.solve(attack.repaired(asked, plan["repair"]["changes"]))
        assert after["status"] != "infeasible", json.dumps(plan["repair"])


def test_a_repair_is_the_nearest(contradictory: list[tuple[dict, dict]]) -> None:
    """A tenth less of each change is not enough."""
    for asked, plan in contradictory:
        less = [
            change | {"to": change["from"] + 0.9 * (change["to"] - change["from"])}
            for change in plan["repair"]["changes"]
            if change["limit"] != "spend_all"
        ]
        if len(less) == len(plan["repair"]["changes"]):
            assert optimizer.solve(attack.repaired(asked, less))["status"] == "infeasible", json.dumps(plan["repair"])


def test_least_amounts_that_cannot_make_up_the_budget_are_named_with_the_least_change() -> None:
    curve = {"kind": "log", "scale": 10, "half": 10}
    arms = [{"id": name, "min_if_on": 60, "max": 70, "curve": curve} for name in ("a", "b")]
    asked = {"total_budget": 100, "spend_all": True, "arms": arms, "groups": []}
    plan = optimizer.solve(asked)
    assert plan["status"] == "infeasible"
    assert {"spend_all", "total_budget"} <= set(plan["conflict"])
    assert any(name.endswith("min_if_on") for name in plan["conflict"])
    assert optimizer.solve(attack.repaired(asked, plan["repair"]["changes"]))["status"] == "optimal"
    assert plan["repair"]["money"] == pytest.approx(20)


@pytest.mark.parametrize("kind", attack.KINDS)
@pytest.mark.parametrize("spend_all", [True, False])
def test_one_arm_gets_the_budget_at_the_price_of_its_next_unit(kind: str, *, spend_all: bool) -> None:
    rng = np.random.default_rng(5)
    curve = budgets.curve(rng, kind)
    asked = {"total_budget": 20.0, "spend_all": spend_all, "arms": [{"id": "a", "curve": curve}], "groups": []}
    plan = optimizer.solve(asked)
    assert plan["total_spend"] == pytest.approx(20.0, rel=1e-9)
    assert plan["prices"]["budget"] == pytest.approx(plan["allocations"][0]["marginal_roas"], rel=0.01)

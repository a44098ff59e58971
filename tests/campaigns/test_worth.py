"""The next test: worth something where it would change the plan, nothing where it would not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from campaigns import services, tasks
from campaigns.domain import optimizer
from campaigns.domain.experiments import worth
from tests.conftest import People
from tests.factories import BudgetPlanFactory, ResponseCurveFactory


def given(count: int = 4, most: float = 400.0, budget: float = 300.0) -> dict[str, Any]:
    arms = [
        {"id": f"a{i}", "max": most, "curve": {"kind": "michaelis_menten", "scale": 900.0 - 40 * i, "half": 100.0}}
        for i in range(count)
    ]
    return {"total_budget": budget, "arms": arms, "spend_all": True}


def draws(spread: float, scale: float = 900.0, seed: int = 0) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return [[scale * float(np.exp(v)), 100.0] for v in rng.normal(-(spread**2) / 2, spread, 200)]


def ranked(problem: dict[str, Any], drawn: dict[str, Any]) -> list[dict[str, Any]]:
    plan = optimizer.solve(problem)
    return worth.rank(problem, {row["id"]: row["spend"] for row in plan["allocations"]}, drawn, part=0.3)


def test_the_less_is_known_of_an_arm_the_more_a_test_is_worth() -> None:
    found = {one["arm"]: one for one in ranked(given(), {"a0": draws(0.5), "a1": draws(0.1, 860.0)})}
    assert found["a0"]["worth"] > 3 * found["a1"]["worth"] > 0
    assert found["a0"]["cost"] == pytest.approx(0.25 * 0.3 * 900 * (s := found["a0"]["spend"]) / (100 + s), rel=0.1)


def test_a_test_that_cannot_change_the_plan_is_worth_nothing() -> None:
    alone = given(count=1)  # all the money goes to it, whatever it brings
    assert ranked(alone, {"a0": draws(0.5)})[0]["worth"] == pytest.approx(0.0, abs=1e-6)
    held = given(budget=1600.0)  # every arm is full
    assert ranked(held, {"a0": draws(0.5)})[0]["worth"] == pytest.approx(0.0, abs=1e-6)


def test_arms_whose_curve_is_certain_are_left_out_and_the_order_is_by_worth_per_cost() -> None:
    found = ranked(given(), {"a0": draws(0.0), "a1": draws(0.3, 860.0), "a2": draws(0.6, 820.0)})
    assert [one["arm"] for one in found] == ["a2", "a1"]
    assert found[0]["worth_per_cost"] >= found[1]["worth_per_cost"]


def test_the_same_question_has_the_same_answer() -> None:
    drawn = {"a0": draws(0.4), "a1": draws(0.4, 860.0, 1)}
    assert ranked(given(), drawn) == ranked(given(), drawn)


@pytest.mark.django_db
def test_a_plan_names_its_next_tests_and_members_alone_see_them(people: People) -> None:
    for i in range(3):
        ResponseCurveFactory(
            brand=people.brand, retailer=people.retailer, arm=f"mailing-{i}", kind="michaelis_menten", scale=900.0,
            half=100.0, std={"spend_mean": 40.0}, spend_seen_max=100.0, draws=draws(0.2 + 0.2 * i, seed=i),
        )  # fmt: skip
    problem, _ = services.problem_from_curves(brand=people.brand, total_budget=1500)
    run = services.wish_for_plan(brand=people.brand, name="Autumn", problem=problem)
    tasks.optimize(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert {one["arm"] for one in run.plan["next_tests"]} == {"mailing-0", "mailing-1", "mailing-2"}
    page = people.web(people.owner).get("/experiments/").content.decode()
    assert "Worth testing next" in page
    assert "mailing-2" in page
    assert "mailing" not in people.web(people.stranger).get("/experiments/").content.decode()
    BudgetPlanFactory(brand=people.other, state="proposed")  # a plan made before tests were weighed
    assert people.web(people.stranger).get("/experiments/").status_code == 200

"""From loaded metrics to curves, to a plan, through tasks and the API."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from campaigns import history, services, tasks
from campaigns.domain import planning
from campaigns.domain.problem import read
from campaigns.models import BudgetPlan, Campaign, CurveFit, Experiment, Recommendation, ResponseCurve
from retailers.models import MetricOutcome
from rmn.lib.errors import BadInput
from tests.campaigns.budgets import problem as made_problem
from tests.conftest import People
from tests.factories import ExperimentFactory, PerformanceMetricFactory, ResponseCurveFactory

pytestmark = pytest.mark.django_db
MONDAY = dt.date(2026, 1, 5)


def weeks(people: People, campaign: str = "c1", count: int = 30, brand: Any = None, **more: Any) -> None:
    """Weekly spend and the sales of a known curve, 900 s / (40 + s)."""
    rng = np.random.default_rng(3)
    for week in range(count):
        spend = round(float(rng.uniform(5, 120)), 2)
        start = MONDAY + dt.timedelta(weeks=week)
        row = PerformanceMetricFactory(
            brand=brand or people.brand,
            retailer=people.retailer,
            campaign_id=campaign,
            campaign_name=f"Name of {campaign}",
            ad_product="sponsored_products",
            period_start=start,
            period_end=start + dt.timedelta(days=6),
            spend=Decimal(str(spend)),
            **more,
        )
        sales = Decimal(str(round(100 + 900 * spend / (40 + spend), 2)))
        for window, value in ((30, sales * 2), (14, sales)):
            MetricOutcome.objects.create(
                brand=row.brand, performance=row, metric="sales", window_days=window, interaction="click", model="",
                scope="all", value=value,
            )  # fmt: skip


def fitted(people: People) -> CurveFit:
    run = services.wish_for_fit(brand=people.brand, draws=60)
    tasks.fit_curves(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    return run


def test_history_takes_one_attribution_and_one_grain(people: People) -> None:
    weeks(people)
    weeks(people, campaign="c1", grain="keyword", keyword="water")  # the same money, seen by keyword
    past = history.read(people.brand)
    assert [len(arm.spend_D) for arm in past.arms] == [30]
    assert past.attributions == {"instacart sponsored_products": "14 days, click, all"}
    assert past.arms[0].sales_D.max() < 1000  # of one window, not of both together


def test_metrics_become_campaigns_once(people: People) -> None:
    weeks(people, count=3)
    assert tasks.link(people.brand) == {"made": 1, "changed": 0}
    assert tasks.link(people.brand) == {"made": 0, "changed": 0}
    campaign = Campaign.objects.get()
    assert (campaign.network_campaign_id, campaign.start_date) == ("c1", MONDAY)


def test_a_fit_replaces_the_current_curves_and_says_what_it_rests_on(people: People) -> None:
    weeks(people, spend_assumed=True)
    tasks.link(people.brand)
    assert fitted(people).status == "succeeded"
    second = fitted(people)
    current = ResponseCurve.objects.current().get()
    assert current.fit == second
    assert current.campaign is not None
    assert current.spend_assumed
    at_60 = current.scale * 60 / (current.half + 60)
    assert at_60 == pytest.approx(900 * 60 / 100, rel=0.35)


def test_a_brand_without_metrics_is_told_what_to_do(people: People) -> None:
    run = fitted(people)
    assert run.status == "failed"
    assert "load a feed first" in run.error


def test_a_plan_is_proposed_with_its_bound_and_offered_for_judgement(people: People) -> None:
    weeks(people)
    weeks(people, campaign="c2")
    fitted(people)
    problem, assumed = services.problem_from_curves(brand=people.brand, total_budget=1500)
    run = services.wish_for_plan(brand=people.brand, name="Q2", problem=problem, spend_assumed=assumed)
    tasks.optimize(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert run.state == BudgetPlan.State.PROPOSED
    assert run.plan["objective"] <= run.plan["upper_bound"] + 1e-6
    assert run.even_split <= run.plan["objective"] + 1e-6
    offered = Recommendation.objects.get(plan=run)
    assert (offered.task, offered.status) == ("budgeting", "offered")


@pytest.mark.parametrize("seed", range(6))
def test_the_even_split_spends_the_same_and_never_beats_the_plan(seed: int) -> None:
    given = made_problem(12, seed, "log", "michaelis_menten", spend_all=False)
    plan = planning.solve(given)
    checked = read(given)
    spend, value = planning.even_split(checked, plan["total_spend"])
    assert spend.sum() == pytest.approx(max(plan["total_spend"], checked.low_C.sum()), rel=1e-6)
    assert (spend >= checked.low_C - 1e-9).all()
    assert (spend <= checked.high_C + 1e-6).all()
    assert value <= plan["upper_bound"] * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["log", "power", "michaelis_menten", "hill", "piecewise"])
def test_a_curve_scaled_to_four_weeks_brings_four_times_the_week(kind: str) -> None:
    week = {"id": "a", "kind": kind, "scale": 90.0, "half": 50.0, "exponent": 0.5 if kind == "power" else 1.8}
    week |= {"points": [[0, 0], [10, 30], [40, 60]], "period_days": 7, "last": 20.0, "seen": 60.0}
    values = []
    for days, spend in ((7, 20.0), (28, 80.0)):
        given = planning.problem_of([week], total_budget=100, days=days)
        values.append(read(given).curves.value(np.array([spend]))[0])
    assert values[1] == pytest.approx(4 * values[0])


def test_curves_in_two_currencies_are_never_added(people: People) -> None:
    ResponseCurveFactory(brand=people.brand, currency="USD")
    ResponseCurveFactory(brand=people.brand, currency="EUR")
    with pytest.raises(BadInput, match="EUR, USD"):
        services.problem_from_curves(brand=people.brand, total_budget=10)


def test_the_api_takes_a_budget_and_answers_202(people: People) -> None:
    ResponseCurveFactory(brand=people.brand, retailer=people.retailer, std={"spend_mean": 40.0}, spend_seen_max=100.0)
    client = people.api(people.owner)
    wish = {"brand": "acme", "name": "May", "total_budget": "500.00"}
    answer = client.post("/api/v1/budget-plans/", wish, format="json")
    assert answer.status_code == 202, answer.content
    run = BudgetPlan.objects.get()
    tasks.optimize(str(run.pk), tenant=run.tenant)
    shown = client.get(f"/api/v1/budget-plans/{run.pk}/").json()
    assert shown["state"] == "proposed"
    curve = client.get(f"/api/v1/budget-plans/{run.pk}/what-if/?budget=100&budget=400").json()
    assert [row["budget"] for row in curve] == [100, 400]
    assert curve[0]["objective"] < curve[1]["objective"]


def test_the_api_refuses_another_brand_and_a_broken_problem(people: People) -> None:
    stranger = people.api(people.stranger)
    wish = {"brand": "acme", "total_budget": "5", "problem": {"arms": []}}
    assert stranger.post("/api/v1/budget-plans/", wish, format="json").status_code == 400
    answer = people.api(people.owner).post("/api/v1/budget-plans/", wish, format="json")
    assert answer.status_code == 422
    assert "total_budget" in answer.content.decode() or "arms" in answer.content.decode()


def test_an_analysed_test_calibrates_its_arm_in_the_next_fit_which_says_so(people: People) -> None:
    weeks(people)
    alone = fitted(people)
    assert alone.result["tests"] == []
    curve = ResponseCurve.objects.current().get()
    told = {"arm": curve.arm, "spend_change": 20.0, "lift": 60.0, "se": 4.0}
    test = ExperimentFactory(brand=people.brand, state=Experiment.State.ANALYSED, result={"calibration": told})
    ExperimentFactory(brand=people.brand, state=Experiment.State.RUNNING, result={"calibration": told})
    used = fitted(people).result["tests"]
    assert [one["experiment"] for one in used] == [str(test.pk)]
    assert used[0]["lift"] == 60.0
    assert 0 < used[0]["weight"] < 1
    assert ResponseCurve.objects.current().get().evidence == "calibrated"

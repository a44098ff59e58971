"""Budgets and experiments on screen: they open for members, export, are decided by those who may, and by nobody else."""

from __future__ import annotations

import pytest

from campaigns.models import BudgetPlan
from tests.agents.test_planning import proposed
from tests.conftest import People
from tests.factories import BudgetPlanFactory, ExperimentFactory, ForecastFactory

pytestmark = pytest.mark.django_db


def test_lists_open_and_export(people: People) -> None:
    BudgetPlanFactory(brand=people.brand)
    ExperimentFactory(brand=people.brand)
    ForecastFactory(brand=people.brand)
    client = people.web(people.owner)
    for address in ("/budgets/", "/experiments/", "/forecasts/"):
        assert client.get(address).status_code == 200
        assert client.get(f"{address}?export=csv")["Content-Type"].startswith("text/csv")


def test_a_plan_shows_its_bound_its_pictures_and_the_decision(people: People) -> None:
    plan = proposed(people)
    page = people.web(people.colleague).get(f"/budgets/{plan.pk}")
    text = page.content.decode()
    assert "At most possible" in text
    assert "decision-title" in text
    picture = people.web(people.colleague).get(f"/budgets/{plan.pk}?picture=allocation.svg")
    assert picture["Content-Type"] == "image/svg+xml"


def test_an_analyst_approves_and_a_marketer_does_not(people: People) -> None:
    plan = proposed(people)
    people.web(people.owner).post(f"/budgets/{plan.pk}/approve", {"note": "go"})
    plan.refresh_from_db()
    assert plan.state == BudgetPlan.State.PROPOSED
    people.web(people.colleague).post(f"/budgets/{plan.pk}/approve", {"note": "go"})
    plan.refresh_from_db()
    assert (plan.state, plan.decision_note) == (BudgetPlan.State.APPROVED, "go")


def test_a_stranger_finds_neither_plan_nor_experiment(people: People) -> None:
    plan, test = proposed(people), ExperimentFactory(brand=people.brand)
    stranger = people.web(people.stranger)
    assert stranger.get(f"/budgets/{plan.pk}").status_code == 404
    assert stranger.get(f"/experiments/{test.pk}").status_code == 404
    assert stranger.post(f"/budgets/{plan.pk}/approve").status_code == 404
    assert "Holdout" not in stranger.get("/experiments/").content.decode()

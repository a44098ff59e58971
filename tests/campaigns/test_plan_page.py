"""A plan for people: sliders that answer, changes that export, pacing, comparison, and the nightly proposal."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta
from typing import Any

import openpyxl
import pytest

from campaigns import services, tasks
from campaigns.domain import changes, pacing
from campaigns.models import BudgetPlan
from tests.agents.test_planning import proposed
from tests.campaigns.test_doors import weeks
from tests.conftest import People
from tests.factories import BudgetPlanFactory

CURVE = {"kind": "log", "scale": 100.0, "half": 50.0}
ARMS = [
    {"id": "walmart/amazon/17", "campaign": "17", "last": 100.0, "max_change": 0.2, "curve": CURVE},
    {"id": "walmart/criteo/18", "campaign": "18", "last": 50.0, "curve": CURVE},
    {"id": "new", "curve": CURVE},
]
ALLOCATIONS = [
    {"id": "walmart/amazon/17", "spend": 140.0},
    {"id": "walmart/criteo/18", "spend": 50.0, "weeks": [40.0, 10.0]},
    {"id": "new", "spend": 20.0},
]


def test_a_change_set_says_old_new_and_whether_the_limit_holds() -> None:
    first, second, third = changes.change_set({"arms": ARMS}, ALLOCATIONS, days=10)
    assert (first.old, first.new, first.difference, first.within) == (100, 140, 40, False)
    assert first.share == pytest.approx(0.4)
    assert (second.arm, second.old, second.difference) == ("new", None, None)
    assert (third.changes, third.within) == (False, None)
    assert changes.change_set({"arms": ARMS}, ALLOCATIONS, days=10, budgets={"walmart/amazon/17": 130.0})[-1].arm
    standing = changes.change_set({"arms": ARMS}, ALLOCATIONS, days=10, budgets={"walmart/amazon/17": 130.0})
    mine = next(one for one in standing if one.campaign == "17")
    assert (mine.old, mine.old_is, mine.within) == (130, "budget", True)


def test_a_network_whose_columns_are_known_gets_its_own_file() -> None:
    found = changes.change_set({"arms": ARMS}, ALLOCATIONS, days=10)
    upload = changes.upload_for("amazon")
    assert upload is not None
    (row,) = upload.rows([one for one in found if one.network == "amazon"])
    assert dict(zip(upload.heads, row, strict=True)) == {
        "Product": "Sponsored Products",
        "Entity": "Campaign",
        "Operation": "Update",
        "Campaign ID": "17",
        "Daily Budget": 14.0,
    }
    assert changes.upload_for("criteo") is None


def test_pacing_says_who_is_over_who_is_under_and_who_runs_out() -> None:
    start = date(2026, 7, 1)
    spent = {"walmart/amazon/17": 100.0, "walmart/criteo/18": 30.0, "new": 10.0}
    found = {
        one.arm: one
        for one in pacing.pace(
            ALLOCATIONS, spent, start=start, end=start + timedelta(days=9), seen_to=start + timedelta(days=4)
        )
    }
    fast = found["walmart/amazon/17"]
    assert (fast.planned_to_date, fast.off, fast.projected) == (70, 30, 200)
    assert (fast.state, fast.caps_out) == ("runs out", date(2026, 7, 8))
    weekly = found["walmart/criteo/18"]
    assert (weekly.planned_to_date, weekly.state) == (40, "runs out")
    assert found["new"].state == "on pace"
    before = pacing.pace(ALLOCATIONS, {}, start=start, end=start, seen_to=start - timedelta(days=3))
    assert all(one.planned_to_date == 0 and one.projected == one.planned for one in before)


@pytest.mark.django_db
class TestPage:
    def test_a_moved_slider_is_answered_with_the_part_alone(self, people: People) -> None:
        plan = proposed(people)
        client = people.web(people.colleague)
        asked = {"budget": plan.problem["total_budget"] * 1.1, "least_return": 0}
        part = client.get(f"/budgets/{plan.pk}", asked, headers={"hx-request": "true"}).content.decode()
        assert part.lstrip().startswith('<div id="answer"')
        assert "Against this plan" in part
        whole = client.get(f"/budgets/{plan.pk}", asked).content.decode()
        assert "<html" in whole
        assert "Against this plan" in whole
        refused = client.get(f"/budgets/{plan.pk}", {"budget": "nan"}, headers={"hx-request": "true"}).content.decode()
        assert "finite number" in refused
        beyond = client.get(f"/budgets/{plan.pk}", asked | {"least_return": 1e6}, headers={"hx-request": "true"})
        assert "reaches" in beyond.content.decode()

    def test_the_change_set_exports(self, people: People) -> None:
        plan = proposed(people)
        client = people.web(people.colleague)
        text = b"".join(client.get(f"/budgets/{plan.pk}?change_file=csv").streaming_content).decode()
        table = list(csv.DictReader(io.StringIO(text)))
        assert len(table) == len(plan.allocations)
        assert sum(float(row["new"]) for row in table) == pytest.approx(plan.plan["total_spend"], abs=0.05)
        book = client.get(f"/budgets/{plan.pk}?change_file=xlsx")
        sheet = openpyxl.load_workbook(io.BytesIO(book.content)).active
        assert sheet is not None
        assert sheet.max_row == len(table) + 1
        assert client.get(f"/budgets/{plan.pk}?change_file=nowhere").status_code == 404

    def test_the_page_shows_what_the_money_rests_on_and_its_pictures(self, people: People) -> None:
        plan = proposed(people)
        page = people.web(people.colleague).get(f"/budgets/{plan.pk}").content.decode()
        assert "What the money rests on" in page
        assert 'data-spec="spec-curves"' in page
        for picture in ("curves", "frontier", "allocation"):
            drawn = people.web(people.colleague).get(f"/budgets/{plan.pk}?picture={picture}.svg")
            assert drawn["Content-Type"] == "image/svg+xml"

    def test_two_plans_stand_beside_each_other(self, people: People) -> None:
        one, other = proposed(people), proposed(people)
        client = people.web(people.colleague)
        assert "Sales, difference" in client.get(f"/budgets/{one.pk}/compare", {"with": other.pk}).content.decode()
        assert client.get(f"/budgets/{one.pk}/compare", {"with": "x"}).status_code == 404
        stranger = people.web(people.stranger)
        assert stranger.get(f"/budgets/{one.pk}/compare", {"with": other.pk}).status_code == 404

    def test_a_plan_no_better_than_what_is_spent_says_so(self, people: People) -> None:
        arms = [{"id": k, "last": x, "curve": CURVE, "std": {"scale": 40}} for k, x in (("a", 60.0), ("b", 40.0))]
        plan = BudgetPlanFactory(
            brand=people.brand, problem={"total_budget": 100, "arms": arms}, status="running", lease_token=1
        )
        tasks.propose(plan)
        BudgetPlan.objects.filter(pk=plan.pk).update(status="succeeded")
        page = people.web(people.colleague).get(f"/budgets/{plan.pk}").content.decode()
        assert "Not distinguishable" in page
        assert "cannot be told apart" in plan.plan["explanation"]


def running(people: People, today: date) -> Any:
    weeks(people, count=20)
    fit = services.wish_for_fit(brand=people.brand)
    tasks.fit_curves(str(fit.pk), tenant=fit.tenant)
    problem, _ = services.problem_from_curves(brand=people.brand, total_budget=1500)
    plan: Any = BudgetPlanFactory(
        brand=people.brand, retailer=people.retailer, problem=problem, total_budget=1500, status="running", lease_token=1,
        period_start=today - timedelta(days=7), period_end=today + timedelta(days=20),
    )  # fmt: skip
    tasks.propose(plan)
    BudgetPlan.objects.filter(pk=plan.pk).update(status="succeeded", state="approved")
    plan.refresh_from_db()
    return plan


@pytest.mark.django_db
def test_what_is_left_of_a_running_plan_is_proposed_anew_once_a_day(people: People) -> None:
    today = date(2026, 3, 10)
    plan = running(people, today)
    made = tasks.again(plan, today)
    assert made is not None
    assert made.period_start == today
    assert 0 < float(made.total_budget) <= 1500
    assert tasks.again(plan, today) is None
    assert list(BudgetPlan.objects.running_on(today)) == [plan]
    assert tasks.again(plan, plan.period_end) is None


@pytest.mark.django_db
def test_integrations_read_changes_pacing_and_comparisons(people: People) -> None:
    plan, other = proposed(people), proposed(people)
    api = people.api(people.owner)
    found = api.get(f"/api/v1/budget-plans/{plan.pk}/changes/").json()
    assert {row["arm"] for row in found["changes"]} == {row["id"] for row in plan.allocations}
    assert api.get(f"/api/v1/budget-plans/{plan.pk}/pacing/").json() == {"seen_to": None, "arms": []}
    compared = api.get(f"/api/v1/budget-plans/{plan.pk}/compare/?with={other.pk}").json()
    assert compared["objective"] == [plan.plan["objective"], other.plan["objective"]]
    assert people.api(people.stranger).get(f"/api/v1/budget-plans/{plan.pk}/changes/").status_code == 404


def test_a_bulk_file_holds_only_the_kind_of_campaign_that_its_columns_change() -> None:
    arms = [ARMS[0] | {"tactic": "sponsored_products"}, ARMS[0] | {"id": "walmart/amazon/19", "campaign": "19", "tactic": "sponsored_brands"}]  # fmt: skip
    found = changes.change_set({"arms": arms}, [{"id": arm["id"], "spend": 10.0} for arm in arms], days=10)
    upload = changes.upload_for("amazon")
    assert upload is not None
    assert [row[3] for row in upload.rows(found)] == ["17"]

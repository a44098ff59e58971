"""Stock, buy box and price as a feed: what cannot be bought is left out, what can be bought in part is braked."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from campaigns import history, services, tasks
from campaigns.domain import optimizer
from campaigns.domain.readiness import Reading, Ready, arm, product
from campaigns.models import BudgetPlan, Campaign
from retailers import services as loading
from retailers.connectors.files import open_feed
from retailers.domain import harmonizer
from retailers.domain import mapping as mappings
from retailers.tasks import load_feed
from tests.campaigns.test_doors import MONDAY, fitted, weeks
from tests.conftest import People
from tests.factories import BudgetPlanFactory, PerformanceMetricFactory, SKUFactory

DAY = date(2026, 9, 1)


def days(*shares: float | None, **more: Any) -> list[Reading]:
    """Readings of the days up to DAY, the last one on it."""
    return [Reading(DAY - timedelta(days=len(shares) - 1 - k), in_stock=x, **more) for k, x in enumerate(shares)]


class TestProduct:
    def test_what_is_out_of_stock_has_no_share_and_says_since_when(self) -> None:
        assert product(days(1, 1, 0, 0, 0), DAY) == Ready(0.0, "out of stock since 2026-08-30", DAY)

    def test_back_in_stock_is_what_the_week_was(self) -> None:
        found = product(days(0, 1, 1, 1), DAY)
        assert found is not None
        assert (found.share, found.why) == (0.75, "in stock 75%")

    def test_stock_times_buy_box(self) -> None:
        found = product(days(0.5, 0.5, buy_box=0.6), DAY)
        assert found is not None
        assert found.share == pytest.approx(0.3)
        assert found.why == "in stock 50%, buy box 60%"

    def test_a_price_above_the_usual_one_brakes_and_one_below_does_not(self) -> None:
        told = [Reading(DAY - timedelta(days=k), price=10.0) for k in range(1, 9)]
        dear, cheap = product([*told, Reading(DAY, price=12.5)], DAY), product([*told, Reading(DAY, price=8.0)], DAY)
        assert dear is not None
        assert cheap is not None
        assert (dear.share, dear.why) == (pytest.approx(0.8), "price 25% above usual")
        assert cheap.share == 1.0

    def test_old_readings_are_not_acted_on_and_later_ones_not_known(self) -> None:
        found = product(days(0, 0), DAY + timedelta(days=15))
        assert found is not None
        assert found.stale
        assert found.share == 1.0
        assert product(days(0, 0), DAY - timedelta(days=5)) is None


class TestArm:
    def test_products_weigh_by_what_was_spent_on_them(self) -> None:
        found = arm({"a": 30.0, "b": 10.0}, {"a": Ready(0.5, "buy box 50%", DAY), "b": Ready(0.0, "out", DAY)})
        assert found is not None
        assert found.share == pytest.approx(0.375)
        assert found.why == "2 of 2 products: b: out; a: buy box 50%"

    def test_what_was_not_read_is_taken_to_be_there(self) -> None:
        found = arm({"a": 0.0, "b": 0.0}, {"a": Ready(0.0, "out", DAY)})
        assert found is not None
        assert found.share == 0.5
        assert arm({"a": 1.0}, {}) is None


def shelf(people: People, *lines: str, brand: Any = None) -> None:
    """Load a readiness feed as an upload would."""
    text = "date,sku,gtin,in_stock,buy_box,price,currency\n" + "\n".join(lines) + "\n"
    load = loading.wish_for_load(
        brand=brand or people.brand,
        retailer=people.retailer,
        file_name="shelf.csv",
        chunks=[text.encode()],
        mapping="shelf/readiness",
    )
    load_feed(str(load.pk), tenant=load.tenant)
    load.refresh_from_db()
    assert load.status == "succeeded", load.error


def curves(people: People) -> None:
    """Two fitted campaigns, each with a product set on it."""
    for campaign in ("c1", "c2"):
        weeks(people, campaign=campaign, count=20)
    tasks.link(people.brand)
    fitted(people)
    for campaign, sku in (("c1", "W-1"), ("c2", "W-2")):
        row = Campaign.objects.get(brand=people.brand, network_campaign_id=campaign)
        row.skus.add(SKUFactory(brand=people.brand, sku=sku))


@pytest.mark.django_db
class TestFeed:
    def test_a_plan_leaves_out_what_is_out_of_stock_and_brakes_what_lost_the_buy_box(self, people: People) -> None:
        curves(people)
        shelf(
            people, "2026-08-30,W-1,,1,1,,USD", "2026-08-31,W-1,,0,1,,USD", "2026-09-01,W-1,,0,1,,USD",
            "2026-08-31,W-2,,1,0.6,4.00,USD", "2026-09-01,W-2,,1,0.6,4.00,USD",
        )  # fmt: skip
        problem, _ = services.problem_from_curves(brand=people.brand, total_budget=1000, today=DAY)
        told = {one["campaign"]: one for one in problem["arms"]}
        assert told["c1"]["readiness"] == 0
        assert told["c2"]["readiness"] == pytest.approx(0.6)
        plan = optimizer.solve(problem)
        first, second = sorted(plan["allocations"], key=lambda row: row["id"])
        assert (first["spend"], first["binding"]) == (0, "excluded")
        assert first["readiness"] == {"share": 0, "why": "out of stock since 2026-08-31", "read": "2026-09-01"}
        assert second["readiness"]["why"] == "buy box 60%"
        assert "out of stock since 2026-08-31" in plan["explanation"]
        before, _ = services.problem_from_curves(brand=people.brand, total_budget=1000, today=date(2026, 8, 29))
        assert all("readiness" not in one for one in before["arms"])

    def test_what_people_set_on_a_campaign_stands_above_the_feed(self, people: People) -> None:
        curves(people)
        shelf(people, "2026-09-01,W-1,,0,1,,USD")
        Campaign.objects.filter(network_campaign_id="c1").update(constraints={"readiness": 1.0})
        problem, _ = services.problem_from_curves(brand=people.brand, total_budget=1000, today=DAY)
        assert {one["campaign"]: one.get("readiness") for one in problem["arms"]} == {"c1": 1.0, "c2": None}

    def test_reports_by_product_say_what_a_campaign_advertises(self, people: People) -> None:
        curves(people)
        Campaign.objects.get(network_campaign_id="c1").skus.clear()
        SKUFactory(brand=people.brand, sku="W-9", gtin14="00012345678905")
        for product_id, gtin, spend in (("B0X", "00012345678905", "30"), ("B0Y", "", "10")):
            PerformanceMetricFactory(
                brand=people.brand, retailer=people.retailer, grain="product", campaign_id="c1", product_id=product_id,
                gtin14=gtin, spend=Decimal(spend), period_start=DAY, period_end=DAY,
            )  # fmt: skip
        shelf(people, "2026-09-01,W-9,,0,1,,USD")
        found = history.ready(people.brand, DAY)
        assert found["retailer-abc", "c1"].share == pytest.approx(0.25)
        assert "W-9: out of stock since 2026-09-01" in found["retailer-abc", "c1"].why

    def test_stock_and_price_of_the_past_stand_beside_the_spend_where_enough_weeks_are_known(
        self, people: People
    ) -> None:
        curves(people)
        mondays = [MONDAY + timedelta(weeks=week) for week in range(20)]
        shelf(
            people,
            *(f"{day},W-1,,{1 if n % 4 else 0.5},1,{4 if n < 10 else 6}.00,USD" for n, day in enumerate(mondays)),
            *(f"{day},W-2,,0.5,1,,USD" for day in mondays[:10]),  # of half its weeks nothing is known
        )
        first, second = history.read(people.brand).arms
        assert first.controls["stock"] == pytest.approx([1.0 if n % 4 else 0.5 for n in range(20)])
        assert first.controls["price"] == pytest.approx([0.8] * 10 + [1.2] * 10)
        assert second.controls == {}
        assert history.read(people.other).arms == []

    def test_another_brands_shelf_is_not_read(self, people: People) -> None:
        curves(people)
        SKUFactory(brand=people.other, sku="W-1")
        shelf(people, "2026-09-01,W-1,,0,0,,USD", brand=people.other)
        assert history.ready(people.brand, DAY) == {}
        problem, _ = services.problem_from_curves(brand=people.brand, total_budget=1000, today=DAY)
        assert all("readiness" not in one for one in problem["arms"])

    def test_margins_known_of_every_product_make_the_plan_one_of_contribution(self, people: People) -> None:
        curves(people)
        row = Campaign.objects.get(network_campaign_id="c1").skus.get()
        row.margin = 0.4
        row.save()
        problem, _ = services.problem_from_curves(brand=people.brand, total_budget=1000, today=DAY)
        assert all("margin" not in one for one in problem["arms"])  # the other's is not known
        Campaign.objects.get(network_campaign_id="c2").skus.update(margin=0.2)
        problem, _ = services.problem_from_curves(brand=people.brand, total_budget=1000, today=DAY)
        assert {one["campaign"]: one["margin"] for one in problem["arms"]} == {"c1": 0.4, "c2": 0.2}

    def test_the_page_says_what_is_left_out_why_and_how_old_that_is(self, people: People) -> None:
        curves(people)
        today = timezone.localdate()
        shelf(
            people,
            f"{today - timedelta(days=2)},W-1,,0,1,,USD",
            f"{today - timedelta(days=2)},W-2,,1,0.6,,USD",
        )
        problem, _ = services.problem_from_curves(brand=people.brand, total_budget=1000)
        plan: Any = BudgetPlanFactory(
            brand=people.brand, problem=problem, total_budget=1000, status="running", lease_token=1
        )
        tasks.propose(plan)
        BudgetPlan.objects.filter(pk=plan.pk).update(status="succeeded")
        page = people.web(people.colleague).get(f"/budgets/{plan.pk}").content.decode()
        assert "What can be sold" in page
        assert f"excluded: out of stock since {today - timedelta(days=2)}" in page
        assert "braked: buy box 60%" in page
        assert people.web(people.stranger).get(f"/budgets/{plan.pk}").status_code == 404


def test_a_share_above_one_is_kept_apart(tmp_path: Path) -> None:
    file = tmp_path / "shelf.csv"
    file.write_text("date,sku,in_stock,currency\n2026-09-01,W-1,85,USD\n2026-09-01,W-2,0.85,USD\n")
    mapping = mappings.shipped("shelf/readiness")
    with open_feed(file, mapping.dialect, mapping.wanted) as feed:
        report = harmonizer.run(feed, mapping, tmp_path / "out")
    assert report["reasons"] == {"bad_share": 1}
    assert [one["value"] for one in report["outcomes"]] == ["0.85"]

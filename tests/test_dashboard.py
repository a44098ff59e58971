"""The console's first page: what waits for somebody, counted for those who may see it, in few queries."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.core import mail
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents.models import AdapterAlias
from retailers.models import FeedLoad, MetricOutcome
from rmn import dashboard, digests
from tests.conftest import People
from tests.factories import (
    AdapterFactory,
    AgentRunFactory,
    BudgetPlanFactory,
    CurveFitFactory,
    ExperimentFactory,
    FeedLoadFactory,
    ForecastFactory,
    PerformanceMetricFactory,
    QuarantinedRowFactory,
    RecommendationFactory,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def busy(people: People) -> None:
    CurveFitFactory(brand=people.brand, status="failed", error="no rows")
    BudgetPlanFactory(brand=people.brand, state="proposed", status="succeeded")
    QuarantinedRowFactory(brand=people.other)
    ForecastFactory(brand=people.brand, due=dt.date(2020, 1, 1))
    RecommendationFactory(brand=people.brand, verdict={"verdict": "needs_proof"})
    PerformanceMetricFactory(brand=people.brand, spend=12)


def test_what_waits_stands_on_the_first_page_and_leads_to_its_list(people: People, busy: None) -> None:
    client = people.web(people.ops)
    page = client.get("/admin/").content.decode()
    for words in ("curves", "budget plan to approve", "row in quarantine", "forecast due", "text that needs proof"):
        assert words in page
    assert "Spend by week and brand" in page


def test_each_count_opens_a_list_of_just_that_many(people: People, busy: None) -> None:
    old = timezone.now() - dt.timedelta(days=9)
    for brand in (people.brand, people.other):  # neighbours that must not be in the lists
        RecommendationFactory(brand=brand, verdict={"verdict": "pass"})
        ForecastFactory(brand=brand, due=dt.date(2090, 1, 1))
        BudgetPlanFactory(brand=brand, state="proposed", status="failed")
        AgentRunFactory(brand=brand, stop="needs_input", pending={"tool": "x"})
        AgentRunFactory(brand=brand, stop="needs_input", pending=None)
        AdapterFactory(brand=brand)
        AdapterAlias.objects.create(brand=brand, scope=str(brand), name="champion", adapter=AdapterFactory(brand=brand))
        for days in (0, 9, 12):
            load = FeedLoadFactory(
                brand=brand, status="succeeded", mapping_version=f"a/b@{days}", retailer=people.retailer
            )
            FeedLoad.objects.filter(pk=load.pk).update(created_at=timezone.now() - dt.timedelta(days=days))
        again = FeedLoadFactory(brand=brand, status="succeeded", mapping_version="a/b@9", retailer=people.retailer)
        FeedLoad.objects.filter(pk=again.pk).update(created_at=old + dt.timedelta(days=1))
    client = people.web(people.ops)
    found = dashboard.waiting(people.ops)
    assert len(found) >= 8
    for one in found:
        page = client.get(one.url)
        assert page.status_code == 200, one
        assert page.context_data["cl"].result_count == one.count, one


def test_counts_are_those_of_the_persons_brands(people: People, busy: None) -> None:
    mine = {one.words: one.count for one in dashboard.waiting(people.owner)}
    theirs = {one.words: one.count for one in dashboard.waiting(people.stranger)}
    assert mine["budget plan to approve"] == 1
    assert "row in quarantine" not in mine
    assert theirs == {"row in quarantine": 1}
    assert dashboard.spend(dashboard.figures(people.stranger)) is None
    assert {row["brand"] for row in dashboard.figures(people.owner)} == {"Acme"}


def test_more_rows_ask_no_more_queries(people: People, busy: None) -> None:
    def asked() -> int:
        cache.clear()
        with CaptureQueriesContext(
            connection,
        ) as seen:
            dashboard.console(type("Request", (), {"user": people.ops})(), {})
        return len(seen)

    asked()  # adds up what nobody has added up yet
    before = asked()
    for _ in range(5):
        BudgetPlanFactory(brand=people.brand, state="proposed", status="succeeded")
        PerformanceMetricFactory(brand=people.other, spend=3)
    assert asked() == before
    assert before < 40


def test_nothing_to_do_is_said(people: People) -> None:
    assert "Nothing waits for a person." in people.web(people.ops).get("/admin/").content.decode()


def test_return_names_its_attribution_and_adds_no_two(people: People) -> None:
    metric = PerformanceMetricFactory(brand=people.brand, spend=10)
    for window, value in ((14, 40), (14, 0), (30, 900)):
        MetricOutcome.objects.create(
            brand=people.brand,
            performance=metric,
            metric="sales",
            window_days=window,
            interaction="click",
            model="last_touch",
            scope="all" if value else "halo",
            value=value,
        )
    PerformanceMetricFactory(brand=people.brand, spend=10)
    second = PerformanceMetricFactory(brand=people.brand, spend=20)
    MetricOutcome.objects.create(
        brand=people.brand,
        performance=second,
        metric="sales",
        window_days=14,
        interaction="click",
        model="last_touch",
        scope="all",
        value=40,
    )
    picture = dashboard.roas(dashboard.figures(people.ops))
    assert picture is not None
    [row] = picture.rows
    assert (row["roas"], row["attribution"]) == (2.0, "14 days after a click, last touch, all products")
    assert "14 days after a click, last touch, all products" in picture.title


def test_figures_are_added_up_again_when_a_feed_came_in(people: People) -> None:
    PerformanceMetricFactory(brand=people.brand, spend=10)
    assert dashboard.refresh() == 2
    PerformanceMetricFactory(brand=people.brand, spend=5)
    assert dashboard.refresh() == 0
    FeedLoadFactory(brand=people.brand, status="succeeded", finished_at=timezone.now() + dt.timedelta(seconds=1))
    assert dashboard.refresh() == 1
    assert [row["spend"] for row in dashboard.figures(people.owner)] == [15.0]


def test_a_measured_return_stands_on_the_first_page(people: People) -> None:
    ExperimentFactory(
        brand=people.brand,
        name="Do mailings sell?",
        status="succeeded",
        result={"iroas": {"estimate": 1.234, "interval": [0.5, 2]}},
    )
    ExperimentFactory(brand=people.brand, status="succeeded", result={"iroas": None})
    page = people.web(people.ops).get("/admin/").content.decode()
    assert "1.23" in page
    assert "Do mailings sell?" in page


class TestDigest:
    MORNING = dt.datetime(2026, 3, 2, 7, 0, tzinfo=dt.UTC)

    def test_staff_get_one_a_day_with_what_waits_for_them(self, people: People, busy: None) -> None:
        assert digests.send_all(self.MORNING.replace(hour=3)) == 0
        assert [digests.send_all(self.MORNING) for _ in range(2)] == [1, 0]
        [message] = mail.outbox
        assert message.to == ["ops@example.com"]
        assert "1 forecast due" in message.body
        assert "/admin/agents/forecast/?waits=due" in message.body
        assert "<b>1</b> forecast due" in message.alternatives[0].content
        assert digests.send_all(self.MORNING + dt.timedelta(days=1)) == 1

    def test_nothing_waits_and_nothing_is_sent(self, people: People) -> None:
        assert digests.send_all(self.MORNING) == 0

    def test_a_mail_server_that_is_away_is_asked_again(self, people: People, busy: None, monkeypatch: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(
                "django.core.mail.EmailMultiAlternatives.send", lambda *_: (_ for _ in ()).throw(OSError("away"))
            )
            assert digests.send_all(self.MORNING) == 0
        assert digests.send_all(self.MORNING) == 1

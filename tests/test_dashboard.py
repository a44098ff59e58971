"""The console's first page: what waits for somebody, counted for those who may see it, in few queries."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext

from rmn import dashboard
from tests.conftest import People
from tests.factories import (
    BudgetPlanFactory,
    CurveFitFactory,
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
    for words in ("curves", "budget plans to approve", "rows in quarantine", "forecasts due", "texts that need proof"):
        assert words in page
    assert "Spend by week and brand" in page
    for one in dashboard.waiting(people.ops):
        assert client.get(one.url).status_code == 200, one


def test_counts_are_those_of_the_persons_brands(people: People, busy: None) -> None:
    mine = {one.words: one.count for one in dashboard.waiting(people.owner)}
    theirs = {one.words: one.count for one in dashboard.waiting(people.stranger)}
    assert mine["budget plans to approve"] == 1
    assert "rows in quarantine" not in mine
    assert theirs == {"rows in quarantine": 1}
    assert dashboard.spend(people.stranger) is None


def test_more_rows_ask_no_more_queries(people: People, busy: None) -> None:
    def asked() -> int:
        cache.clear()
        with CaptureQueriesContext(
            connection,
        ) as seen:
            dashboard.console(type("Request", (), {"user": people.ops})(), {})
        return len(seen)

    before = asked()
    for _ in range(5):
        BudgetPlanFactory(brand=people.brand, state="proposed", status="succeeded")
        PerformanceMetricFactory(brand=people.other, spend=3)
    assert asked() == before
    assert before < 40


def test_nothing_to_do_is_said(people: People) -> None:
    assert "Nothing waits for a person." in people.web(people.ops).get("/admin/").content.decode()


def test_a_feed_without_news_is_stale(people: People, monkeypatch: Any) -> None:
    from tests.factories import FeedLoadFactory

    FeedLoadFactory(brand=people.brand, status="succeeded", mapping_version="a/b@1+12345678")
    assert dashboard._stale(people.ops) == 0
    monkeypatch.setattr(dashboard, "STALE_AFTER", dt.timedelta(seconds=-5))
    assert dashboard._stale(people.ops) == 1

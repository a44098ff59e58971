from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.models import Sum
from hypothesis import given
from hypothesis import strategies as st

from retailers import services, tasks
from retailers.domain import reconcile
from retailers.domain.reconcile import Report, Slice
from retailers.models import PerformanceMetric
from tests.conftest import People
from tests.factories import PerformanceMetricFactory
from tests.retailers.test_harmonizer import DATA, needs_data

WHERE = ("retailer-abc", "amazon", "a1", "sponsored_products", "USD")


def part(grain: str, spend: str | None, clicks: int | None = None, where: tuple[str, ...] = WHERE) -> Slice:
    return Slice(where, grain, 10, Decimal(spend) if spend is not None else None, clicks)


def test_one_grain_is_counted_and_it_is_the_coarsest_that_carries_spend():
    parts = [part("keyword", "10"), part("campaign", "10"), part("store", None), part("search_term", "4")]
    assert reconcile.choose(parts) == {WHERE: "campaign"}


def test_each_account_and_currency_has_its_own_grain():
    other = (*WHERE[:-1], "EUR")
    assert reconcile.choose([part("campaign", "10"), part("product", "7", where=other)]) == {
        WHERE: "campaign",
        other: "product",
    }


def test_a_factor_of_ten_between_grains_is_named_as_a_unit_error():
    found = reconcile.gaps([part("campaign", "12.375"), part("ad_group", "123.70"), part("ad", "1.2375")])
    assert [(gap.grain, "unit" in gap.note) for gap in found] == [("ad_group", True), ("ad", True)]


def test_search_terms_hold_less_by_design_and_that_is_no_gap():
    assert reconcile.gaps([part("campaign", "10"), part("search_term", "6")]) == []
    assert reconcile.gaps([part("campaign", "10"), part("search_term", "16")])[0].note.startswith(
        "reports of different"
    )


def test_agreement_within_half_a_percent_is_agreement():
    assert reconcile.gaps([part("campaign", "100.00", 50), part("product", "100.30", 50)]) == []


DAY = st.integers(0, 27).map(lambda n: date(2026, 2, 2) + timedelta(days=n))  # four weeks from a Monday
GRAINS = st.sampled_from(["account", "campaign", "product", "keyword"])


def nested(day: date, length: int) -> tuple[date, date]:
    """The day, week or four weeks that holds a day: periods that never reach over one another's ends."""
    first = day - timedelta(days=(day - date(2026, 2, 2)).days % length)
    return first, first + timedelta(days=length - 1)


NESTED = st.builds(
    lambda grain, day, length: Report(WHERE, grain, *nested(day, length)),
    GRAINS,
    DAY,
    st.sampled_from([1, 1, 1, 7, 28]),
)
ANY = st.builds(
    lambda grain, day, more, spends: Report(WHERE, grain, day, day + timedelta(days=more), spends),
    st.sampled_from(reconcile.GRAIN_ORDER), DAY, st.integers(0, 9), st.booleans(),
)  # fmt: skip


def days_of(reports: Iterable[Report]) -> list[int]:
    return sorted(day for report in reports for day in report.days)


@given(st.lists(NESTED, max_size=60))
def test_every_day_that_any_report_tells_of_is_counted_and_counted_once(reports: list[Report]):
    assert days_of(reconcile.counted(reports)) == sorted(set(days_of(reports)))


@given(st.lists(ANY, max_size=30))
def test_whatever_the_periods_no_day_counts_twice_and_a_day_left_out_is_said(reports: list[Report]):
    counted = days_of(reconcile.counted(reports))
    assert len(counted) == len(set(counted))
    if set(days_of(reports)) - set(counted):
        assert any(one.missed for one in reconcile.overlaps(reports))


def test_daily_rows_that_tell_of_the_whole_week_are_counted_and_a_week_with_gaps_is_not_pieced_together():
    week = Report(WHERE, "campaign", date(2026, 2, 2), date(2026, 2, 8))
    daily = [Report(WHERE, "campaign", day, day) for day in (date(2026, 2, 2) + timedelta(n) for n in range(7))]
    assert reconcile.counted([week, *daily]) == set(daily)
    assert reconcile.counted([week, *daily[:6]]) == {week}
    (said,) = reconcile.overlaps([week, *daily[:6]])
    assert (said.step, said.against_step, said.days, said.missed) == (1, 7, 6, 0)


def test_search_terms_by_day_do_not_stand_for_a_weekly_report_of_campaigns():
    week = Report(WHERE, "campaign", date(2026, 2, 2), date(2026, 2, 8))
    terms = [Report(WHERE, "search_term", day, day) for day in (date(2026, 2, 2) + timedelta(n) for n in range(7))]
    assert reconcile.counted([week, *terms]) == {week}


def rows_of(people: People, rng: random.Random) -> tuple[list[PerformanceMetric], dict[str, Decimal]]:
    """Random reports of three accounts, in grains, periods and hours, and what was truly spent on their days."""
    rows: list[PerformanceMetric] = []
    true: dict[str, Decimal] = {}
    for account in ("a1", "a2", ""):
        currency = rng.choice(["USD", "EUR"])
        spent = {n: Decimal(rng.randint(1, 9999)) / 100 for n in range(28)}
        told: set[int] = set()
        for grain in rng.sample(["account", "campaign", "product", "keyword", "search_term"], 3):
            for length in rng.sample([1, 7, 28], 2):
                for first in range(0, 28, length):
                    if rng.random() < 0.5:
                        continue
                    told.update(range(first, first + length))
                    whole = sum(spent[n] for n in range(first, first + length))
                    for parts in (1, 24) if length == 1 and rng.random() < 0.1 else (rng.randint(1, 3),):
                        shares = [whole - (parts - 1) * Decimal("0.01")] + [Decimal("0.01")] * (parts - 1)
                        rows += [
                            PerformanceMetricFactory.build(
                                brand=people.brand, retailer=people.retailer, account_id=account, grain=grain,
                                currency=currency, keyword=str(part), spend=share, hour=part if parts == 24 else None,
                                period_start=date(2026, 2, 2) + timedelta(days=first),
                                period_end=date(2026, 2, 2) + timedelta(days=first + length - 1),
                            )
                            for part, share in enumerate(shares)
                        ]  # fmt: skip
        if told:
            true[currency] = true.get(currency, Decimal(0)) + sum(spent[n] for n in told)
    return rows, true


@pytest.mark.parametrize("seed", range(12))
def test_reports_of_several_grains_over_random_days_add_up_to_what_was_truly_spent(people: People, seed: int):
    rows, true = rows_of(people, random.Random(seed))
    PerformanceMetric.objects.bulk_create(rows)
    counted = PerformanceMetric.objects.filter(brand=people.brand).counted_once()
    sums = counted.order_by().values("currency").annotate(spend=Sum("spend"))
    assert {row["currency"]: row["spend"] for row in sums} == true


def test_choosing_groups_the_rows_once_however_often_it_is_asked(people: People, django_assert_num_queries: Any):
    rows, _ = rows_of(people, random.Random(3))
    PerformanceMetric.objects.bulk_create(rows)
    metrics = PerformanceMetric.objects.filter(brand=people.brand)
    with django_assert_num_queries(4):  # sums by report, which reports they are, the retailers' names, and the sum
        counted = metrics.slices(once=True)
        assert metrics.reports()
        spent = metrics.counted_once().aggregate(spend=Sum("spend"))["spend"]
    assert sum(part.spend or 0 for part in counted) == spent


def test_one_brands_campaign_report_does_not_stand_for_anothers_keywords(people: People):
    for brand, grain in ((people.brand, "campaign"), (people.other, "keyword")):
        PerformanceMetricFactory(brand=brand, retailer=people.retailer, grain=grain, spend=Decimal(10))
    metrics = PerformanceMetric.objects.all()
    assert metrics.counted_once().aggregate(spend=Sum("spend"))["spend"] == 20
    assert services.summary(metrics)["disagreements"] == []


def test_days_that_only_the_keyword_report_has_are_in_the_summary_and_a_weekly_report_beside_is_named(people: People):
    one = {"brand": people.brand, "retailer": people.retailer, "spend": Decimal(10)}
    first = date(2026, 2, 2)
    for n, grain in ((0, "campaign"), (0, "keyword"), (1, "keyword")):
        day = first + timedelta(days=n)
        PerformanceMetricFactory(**one, grain=grain, period_start=day, period_end=day)
    told = services.summary(PerformanceMetric.objects.filter(brand=people.brand))
    assert Decimal(told["totals_by_currency"]["USD"]["spend"]) == 20
    assert {part["grain"] for part in told["counted"]} == {"campaign", "keyword"}
    assert told["overlaps"] == []
    PerformanceMetricFactory(
        **one | {"spend": Decimal(70)}, period_start=first, period_end=first + timedelta(days=6), campaign_id="w"
    )
    told = services.summary(PerformanceMetric.objects.filter(brand=people.brand))
    assert Decimal(told["totals_by_currency"]["USD"]["spend"]) == 70
    assert "keyword rows of up to 1 days lie beside campaign rows of up to 7 on 2 days" in " ".join(told["overlaps"])


ACCOUNT_OF = {  # mapping, its sample: one account's money by campaign, ad group, product, keyword and search term
    "amazon/warehouse_campaign": "campaign_level_report.csv",
    "amazon/warehouse_ad_group": "ad_group_level_report.csv",
    "amazon/warehouse_product": "advertised_product_report.csv",
    "amazon/warehouse_keyword": "targeting_keyword_report.csv",
    "amazon/warehouse_search_term": "search_term_ad_keyword_report.csv",
}


@needs_data
def test_real_reports_of_one_account_at_five_grains_report_a_day_s_spend_once(
    people: People, settings: Any, tmp_path: Any
) -> None:
    settings.MEDIA_ROOT = tmp_path
    for mapping, name in ACCOUNT_OF.items():
        source = DATA / "amazon_ads/warehouse_seeds" / name
        run = services.wish_for_load(
            brand=people.brand, retailer=people.retailer, file_name=name, chunks=[source.read_bytes()], mapping=mapping
        )
        tasks.load_feed(str(run.pk), tenant=str(people.brand.pk))
        run.refresh_from_db()
        assert run.status == run.Status.SUCCEEDED, run.error
    metrics = PerformanceMetric.objects.filter(brand=people.brand)
    sums = metrics.order_by().values("grain", "ad_product", "currency", "period_start").annotate(spent=Sum("spend"))
    accounts: dict[tuple[Any, ...], dict[str, Decimal]] = {}
    for row in sums:
        where = row["ad_product"], row["currency"], row["period_start"]
        if row["spent"] is not None:
            accounts.setdefault(where, {})[row["grain"]] = row["spent"]
    assert any(len(grains) > 1 for grains in accounts.values())  # days of which several reports tell
    coarsest = [grains[min(grains, key=reconcile.GRAIN_ORDER.index)] for grains in accounts.values()]
    counted = metrics.counted_once().aggregate(spend=Sum("spend"))["spend"]
    assert counted == sum(coarsest)
    summed = services.summary(metrics)["totals_by_currency"]
    assert sum(Decimal(part["spend"]) for part in summed.values()) == counted
    assert counted < metrics.aggregate(spend=Sum("spend"))["spend"]

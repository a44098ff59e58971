from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError

from retailers import services
from retailers.domain.exchange import NoRate, Rate, Rates
from retailers.models import ExchangeRate, PerformanceMetric
from tests.conftest import People
from tests.factories import PerformanceMetricFactory

FRIDAY = date(2026, 2, 27)
RATES = Rates(
    [Rate("USD", "EUR", FRIDAY, Decimal("0.9"), "ecb"), Rate("USD", "EUR", date(2026, 3, 3), Decimal("0.8"), "ecb")]
)


def test_the_newest_rate_before_the_day_holds_for_a_week_and_the_amount_it_was_is_kept():
    sunday = RATES.convert(Decimal("10.00"), "USD", "EUR", date(2026, 3, 1))
    assert (sunday.amount, sunday.was, sunday.currency) == (Decimal("9"), Decimal("10.00"), "USD")
    assert sunday.rate is not None
    assert (sunday.rate.day, sunday.rate.source) == (FRIDAY, "ecb")
    assert RATES.convert(Decimal(10), "USD", "EUR", date(2026, 3, 3)).amount == 8


def test_a_rate_the_other_way_round_is_turned_and_a_currency_is_itself():
    assert RATES.convert(Decimal(9), "EUR", "USD", FRIDAY).amount == 10
    assert RATES.convert(Decimal("1.2345678"), "EUR", "EUR", FRIDAY).amount == Decimal("1.2345678")


@pytest.mark.parametrize(
    ("currency", "day"), [("USD", date(2026, 2, 26)), ("USD", date(2026, 3, 11)), ("JPY", FRIDAY), ("", FRIDAY)]
)
def test_without_a_rate_nothing_is_converted_and_the_pair_and_day_are_named(currency, day):
    with pytest.raises(NoRate, match=f"{currency or 'unstated'}.* to EUR for {day}"):
        RATES.convert(Decimal(1), currency, "EUR", day)


@pytest.mark.django_db
def test_spend_of_two_currencies_is_told_in_one_when_asked_and_each_cent_once(people: People):
    for grain, currency, spend in (("campaign", "USD", 10), ("keyword", "USD", 10), ("campaign", "EUR", 5)):
        PerformanceMetricFactory(
            brand=people.brand, retailer=people.retailer, grain=grain, currency=currency, spend=Decimal(spend), campaign_id=currency
        )  # fmt: skip
    client = people.api(people.owner)
    refused = client.get("/api/v1/metrics/summary/?convert_to=EUR")
    assert refused.status_code == 422
    assert "USD to EUR for 2026-03-01" in refused.content.decode()
    assert "converted" not in client.get("/api/v1/metrics/summary/").json()
    ExchangeRate.objects.create(base="USD", quote="EUR", date=FRIDAY, rate=Decimal("0.9"), source="ecb")
    found = client.get("/api/v1/metrics/summary/?convert_to=EUR").json()["converted"]
    assert found["spend"] == "14.00"
    assert found["parts"] == [
        {"currency": "EUR", "spend": "5.00", "converted": "5.00", "rates": 0, "sources": [], "first": None, "last": None},
        {"currency": "USD", "spend": "10.00", "converted": "9.00", "rates": 1, "sources": ["ecb"], "first": "2026-02-27", "last": "2026-02-27"},
    ]  # fmt: skip
    page = people.web(people.owner).get("/performance/?in=EUR").content.decode()
    assert "All in EUR" in page
    assert "14.00" in page
    page = people.web(people.owner).get("/performance/?in=USD").content.decode()
    assert "All in USD" in page
    assert services.converted(PerformanceMetric.objects.filter(brand=people.brand), "usd")["spend"] == "15.555556"


@pytest.mark.django_db
def test_a_page_says_why_it_cannot_convert(people: People):
    for currency in ("USD", "EUR"):
        PerformanceMetricFactory(brand=people.brand, retailer=people.retailer, currency=currency, campaign_id=currency)
    page = people.web(people.owner).get("/performance/?in=EUR").content.decode()
    assert "no exchange rate of USD to EUR for 2026-03-01" in page
    assert "All in EUR" not in page


def test_a_rate_names_two_known_currencies():
    with pytest.raises(ValidationError, match="ISO 4217"):
        ExchangeRate(base="USD", quote="EURO").clean()
    with pytest.raises(ValidationError, match="worth itself"):
        ExchangeRate(base="usd", quote="USD").clean()

from __future__ import annotations

from decimal import Decimal

from retailers.domain import reconcile
from retailers.domain.reconcile import Slice

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

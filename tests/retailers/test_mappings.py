"""The published control totals of every sample, through the shipped mappings, to the cent."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import polars as pl
import pytest

from tests.retailers.test_harmonizer import DATA, harmonize, needs_data, rows, write

APRIL = (date(2026, 4, 1), date(2026, 4, 30))
TOTALS = [  # file, mapping, impressions, clicks, spend, an outcome
    (
        "amazon_ads/console_exports/sp_search_term_2024_us.xlsx",
        "amazon/sp_search_term",
        2800677,
        23981,
        "38280.66",
        "139774.08",
    ),
    (
        "amazon_ads/console_exports/sp_search_term_with_asin_2025.csv",
        "amazon/sp_search_term_sku",
        778130,
        12740,
        "7431.68",
        "113920.00",
    ),
    ("amazon_ads/warehouse_seeds/campaign_level_report.csv", "amazon/warehouse_campaign", 1095, 2, "1.67", "21.00"),
    (
        "amazon_ads/warehouse_seeds/advertised_product_report.csv",
        "amazon/warehouse_product",
        115539,
        174,
        "431.86",
        None,
    ),
    (
        "amazon_ads/warehouse_seeds/targeting_keyword_report.csv",
        "amazon/warehouse_keyword",
        336850,
        1007,
        "2036.17",
        None,
    ),
    ("google_ads_offsite/google_ads_campaign_stats.csv", "google/campaign", 1854, 280, "231.33", None),
    ("pinterest_offsite/pinterest_campaign_report.csv", "pinterest/campaign", 82500, 2475, "12.375", None),
    ("instacart_ads/product_export_excerpt.csv", "instacart/product_total", None, None, "4215.22", "51624.70"),
]


@needs_data
@pytest.mark.parametrize(
    ("file", "mapping", "impressions", "clicks", "spend", "sales"), TOTALS, ids=[t[1] for t in TOTALS]
)
def test_published_control_totals_come_out_to_the_cent(tmp_path, file, mapping, impressions, clicks, spend, sales):
    report = harmonize(DATA / file, mapping, tmp_path, period=APRIL)
    assert report["rows_quarantined"] == 0
    assert report["totals"] == {"impressions": impressions, "clicks": clicks, "spend": spend}
    if sales is not None:
        assert sales in [o["value"] for o in report["outcomes"] if o["metric"] == "sales"]
    assert report["drift"]["new"] == []


@needs_data
@pytest.mark.parametrize(
    ("file", "mapping", "count"),
    [
        ("amazon_ads/warehouse_seeds/ad_group_level_report.csv", "amazon/warehouse_ad_group", 10),
        ("amazon_ads/warehouse_seeds/search_term_ad_keyword_report.csv", "amazon/warehouse_search_term", 10),
        ("amazon_ads/console_exports/business_report_2025.csv", "amazon/business_report", 10),
        ("amazon_ads/api_samples/v3_sp_campaigns_summary.json", "amazon/v3_sp_campaigns", 2),
        ("amazon_ads/api_samples/v2_sp_campaigns.json", "amazon/v2_sp_campaigns", 2),
        ("amazon_ads/api_samples/v1_keyword_query.json", "amazon/v1_keyword_query", 8),
        ("walmart_connect/search_ad_item_snapshot.csv", "walmart/ad_item", 1),
        ("google_ads_offsite/google_ads_ad_group_stats.csv", "google/ad_group", 15),
        ("google_ads_offsite/google_ads_keyword_stats.csv", "google/keyword", 15),
        ("pinterest_offsite/pinterest_ad_group_report.csv", "pinterest/ad_group", 5),
        ("pinterest_offsite/pinterest_pin_promotion_report.csv", "pinterest/ad", 5),
    ],
)
def test_every_sample_is_read_whole(tmp_path, file, mapping, count):
    report = harmonize(DATA / file, mapping, tmp_path, period=APRIL)
    assert report["rows_accepted"] + report["rows_quarantined"] == report["rows_read"]
    assert (report["rows_accepted"], report["reasons"]) == (count, {})


@needs_data
def test_restated_attribution_of_one_contact_keeps_its_windows_apart(tmp_path):
    report = harmonize(DATA / "amazon_ads/api_samples/v3_sp_campaigns_summary.json", "amazon/v3_sp_campaigns", tmp_path)
    assert {o["window_days"]: o["value"] for o in report["outcomes"]} == {1: "3.00", 7: "4.00", 14: "5.00", 30: "5.00"}


@needs_data
def test_a_dummy_upc_is_flagged_and_stays_out_of_the_crosswalk(tmp_path):
    harmonize(DATA / "instacart_ads/product_export_excerpt.csv", "instacart/product_total", tmp_path, period=APRIL)
    by_id = {row["product_id"]: row for row in rows(tmp_path)}
    assert by_id["00860666000345"]["gtin14"] == "00860666000345"
    assert by_id["00123456789012"]["gtin14"] is None
    assert by_id["00123456789012"]["warnings"] == "placeholder_identifier"


def test_criteo_compact_and_plain_json_give_the_same_rows(tmp_path):
    names = [
        "date",
        "campaignId",
        "lineItemId",
        "productId",
        "spend",
        "attributedSales",
        "salesChannel",
        "retailerName",
    ]
    body = [
        ["2026-04-01", 7, 8, "p", 1.23, 4.56, "offline", "Shop"],
        ["2026-04-01", 7, 8, "p", 1.23, 2.00, "online", "Shop"],
    ]
    meta = {"currency": "EUR", "timezone": "Europe/Paris", "dataCompleteThrough": "2026-04-03T04:00:00Z"}
    compact = write(tmp_path / "c.json", json.dumps({**meta, "columns": names, "data": body}))
    plain = write(tmp_path / "p.json", json.dumps({**meta, "rows": [dict(zip(names, cells)) for cells in body]}))
    lines = write(tmp_path / "n.ndjson", "\n".join(json.dumps({**meta, **dict(zip(names, cells))}) for cells in body))
    for path in (compact, plain, lines):
        report = harmonize(path, "criteo/performance", tmp_path / path.stem)
        assert report["totals"]["spend"] == "1.23"  # one row of media, two channels of sales
        assert {o["sales_channel"]: o["value"] for o in report["outcomes"]} == {"in_store": "4.56", "online": "2.00"}
        assert report["extracted_at"] == "2026-04-03T04:00:00+00:00"
    keys = [pl.read_parquet(tmp_path / name / "metrics.parquet")["row_key"].to_list() for name in "cpn"]
    assert keys[0] == keys[1] == keys[2]


def test_bigquerys_wrapped_cells_are_read_as_the_table_they_are(tmp_path):
    from retailers.connectors.files import open_feed

    fields = [{"name": "date", "type": "DATE"}, {"name": "campaign_id", "type": "STRING"}, {"name": "cost", "type": "NUMERIC"},
              {"name": "video", "type": "RECORD", "fields": [{"name": "views"}, {"name": "ends"}]}, {"name": "tags", "mode": "REPEATED"}]  # fmt: skip
    rows = [
        [{"v": "2026-04-01"}, {"v": "7"}, {"v": "1.23"}, {"v": {"f": [{"v": "9"}, {"v": None}]}}, {"v": [{"v": "a"}, {"v": "b"}]}],
        [{"v": "2026-04-02"}, {"v": "7"}, {"v": None}, {"v": None}, {"v": []}],
    ]  # fmt: skip
    body = {"kind": "bigquery#queryResponse", "schema": {"fields": fields}, "rows": [{"f": cells} for cells in rows]}
    with open_feed(write(tmp_path / "q.json", json.dumps(body))) as feed:
        table = feed.frame.collect()
    assert table["date"].to_list() == ["2026-04-01", "2026-04-02"]
    assert table["cost"].to_list() == ["1.23", None]
    assert table["video.views"].to_list() == ["9", None]
    assert table["tags"].to_list() == ["a,b", None]


def test_walmart_windows_are_nested_and_never_added(tmp_path):
    feed = write(
        tmp_path / "w.csv",
        '"date","campaignId","adGroupId","itemId","numAdsShown","numAdsClicks","adSpend","attributedSales3days","attributedSales14days","advertisedSkuSales14days"\n'
        '"2026-04-01","1","2","3","100","10","2.5","5","7","6"\n',
    )
    report = harmonize(feed, "walmart/ad_item", tmp_path / "out")
    assert {(o["window_days"], o["scope"]): o["value"] for o in report["outcomes"]} == {
        (3, "all"): "5.00",
        (14, "all"): "7.00",
        (14, "same_sku"): "6.00",
    }


def test_outcomes_of_different_kinds_refuse_to_be_added():
    from retailers.domain import rmis

    def one(**kind) -> rmis.Outcome:
        base = {
            "row_key": "k",
            "metric": "sales",
            "window_days": 7,
            "interaction": "click",
            "model": "last_touch",
            "scope": "all",
        }
        return rmis.Outcome(**{**base, "value": Decimal("1.10"), "currency": "USD", **kind})

    assert rmis.add([one(), one()]) == Decimal("2.20")
    for other in (
        {"window_days": 14},
        {"model": "linear"},
        {"scope": "halo"},
        {"currency": "EUR"},
        {"interaction": "view"},
    ):
        with pytest.raises(rmis.MixedKinds, match=next(iter(other))):
            rmis.add([one(), one(**other)])

from __future__ import annotations

import csv
import json
import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from retailers.connectors import files
from retailers.connectors.files import open_feed
from retailers.domain import harmonizer, rmis
from retailers.domain import mapping as mappings
from retailers.domain.feed import ROW

DATA = Path(os.environ.get("RMN_SHARED_DATA", "/nonexistent")) / "feeds"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="RMN_SHARED_DATA is not set")

MAPPING = """
mapping: test/days
version: 1
grain: campaign
fields:
  date: Date
  time_zone: {constant: UTC}
  currency: {from: Currency, default: EUR}
  campaign_id: Campaign ID
  impressions: Impressions
  clicks: Clicks
  spend: Spend
outcomes:
  - {from: Sales, metric: sales, window_days: 7, interaction: click, model: last_touch, scope: all}
"""


def harmonize(path: Path, mapping: str | mappings.MappingFile, out: Path, **options):
    if isinstance(mapping, str):
        mapping = mappings.parse(mapping) if "\n" in mapping else mappings.load(mapping)
    with open_feed(path, mapping.dialect, mapping.wanted) as feed:
        return harmonizer.run(feed, mapping, out, **options)


def rows(out: Path, name: str = "metrics") -> list[dict]:
    return pl.read_parquet(out / f"{name}.parquet").to_dicts()


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@needs_data
def test_the_console_export_comes_out_to_the_cent(tmp_path):
    report = harmonize(
        DATA / "amazon_ads/console_exports/sp_search_term_2024_us.csv", "amazon/sp_search_term", tmp_path
    )
    assert (report["rows_read"], report["rows_accepted"], report["rows_quarantined"]) == (7764, 7764, 0)
    assert report["totals"] == {"impressions": 2800677, "clicks": 23981, "spend": "38280.66"}
    sales = {o["scope"]: o["value"] for o in report["outcomes"] if o["metric"] == "sales"}
    assert sales["all"] == "139774.08"
    assert Decimal(sales["same_sku"]) + Decimal(sales["halo"]) == Decimal(sales["all"])
    assert report["warnings"] == {"clicks_over_impressions": 5, "orders_over_clicks": 27}


@needs_data
def test_the_workbook_and_its_csv_give_the_same_rows(tmp_path):
    folder = DATA / "amazon_ads/console_exports"
    for kind in ("csv", "xlsx"):
        harmonize(folder / f"sp_search_term_2024_us.{kind}", "amazon/sp_search_term", tmp_path / kind)
    keep = ["row_key", "row_hash", "spend", "impressions", "period_start", "row_number"]
    left, right = (pl.read_parquet(tmp_path / kind / "metrics.parquet").select(keep) for kind in ("csv", "xlsx"))
    assert left.equals(right)


def test_a_rejected_row_is_kept_raw_with_its_reason_and_the_rest_goes_on(tmp_path):
    feed = write(
        tmp_path / "f.csv",
        "Date,Campaign ID,Impressions,Clicks,Spend,Sales\n"
        "2026-01-01,c1,10,1,1.10,5\n"
        "soon,c1,10,1,1.10,5\n"
        "2026-01-02,c1,ten,1,1.10,5\n"
        "2026-01-03,,10,1,1.10,5\n"
        "2026-01-04,c1,10,1,-1.10,5\n"
        "2026-01-05,c1,10,1\n"
        "2026-01-06,c1,10,1,1.10,5,7\n"
        "2026-01-07,c1,10,1,1.10,\n"
        "\n",
    )
    report = harmonize(feed, MAPPING, tmp_path / "out")
    assert (report["rows_read"], report["rows_accepted"], report["rows_quarantined"]) == (8, 2, 6)
    assert report["reasons"] == {"bad_date": 1, "bad_number": 1, "missing_key": 1, "negative": 1, "row_width": 2}
    kept = {row["row_number"]: row for row in rows(tmp_path / "out", "quarantine")}
    assert sorted(kept) == [3, 4, 5, 6, 7, 8]
    assert kept[3]["column"] == "Date"
    assert "'soon'" in kept[3]["message"]
    assert json.loads(kept[4]["raw"])["Impressions"] == "ten"
    assert report["totals"]["spend"] == "2.20"


def test_identical_rows_count_once_and_a_second_value_for_a_key_is_kept_apart(tmp_path):
    feed = write(
        tmp_path / "f.csv",
        "Date,Campaign ID,Impressions,Clicks,Spend,Sales\n"
        "2026-01-01,c1,10,1,1.10,5\n"
        "2026-01-01,c1,10,1,1.10,5\n"
        "2026-01-01,c1,10,1,2.10,5\n"
        "2026-01-02,c1,10,1,4.00,5\n",
    )
    report = harmonize(feed, MAPPING, tmp_path / "out")
    assert report["reasons"] == {"duplicate_key": 1, "duplicate_row": 1}
    assert report["rows_accepted"] + report["rows_quarantined"] == report["rows_read"] == 4
    assert report["totals"]["spend"] == "5.10"
    assert report["outcomes"][0]["value"] == "10.00"


@pytest.mark.parametrize(("policy", "spend", "sales"), [("sum", "7.20", "15.00"), ("last", "6.10", "10.00")])
def test_what_happens_to_a_repeated_key_is_the_mappings_choice(tmp_path, policy, spend, sales):
    feed = write(
        tmp_path / "f.csv",
        "Date,Campaign ID,Impressions,Clicks,Spend,Sales\n"
        "2026-01-01,c1,10,1,1.10,5\n"
        "2026-01-01,c1,20,1,2.10,5\n"
        "2026-01-02,c1,10,1,4.00,5\n",
    )
    report = harmonize(feed, MAPPING + f"on_duplicate: {policy}\n", tmp_path / "out")
    assert report["totals"]["spend"] == spend
    assert report["outcomes"][0]["value"] == sales
    assert report["rows_accepted"] + report["rows_quarantined"] == report["rows_read"] == 3
    assert len(rows(tmp_path / "out")) == 2


def test_two_attribution_models_of_one_row_share_its_spend(tmp_path):
    mapping = (
        MAPPING.replace("model: last_touch", "model: {from: Model, values: {Linear: linear, Last: last_touch}}")
        + "on_duplicate: merge\n"
    )
    feed = write(
        tmp_path / "f.csv",
        "Date,Campaign ID,Impressions,Clicks,Spend,Sales,Model\n2026-01-01,c1,10,1,1.10,5,Linear\n2026-01-01,c1,10,1,1.10,7,Last\n",
    )
    report = harmonize(feed, mapping, tmp_path / "out")
    assert report["totals"]["spend"] == "1.10"
    assert {o["model"]: o["value"] for o in report["outcomes"]} == {"linear": "5.00", "last_touch": "7.00"}


def test_several_currencies_have_no_common_total(tmp_path):
    feed = write(
        tmp_path / "f.csv",
        "Date;Campaign ID;Impressions;Clicks;Spend;Sales;Currency\n"
        '2026-01-01;c1;1.000;1;1.234,56;5;EUR\n2026-01-01;c2;10;1;"€ 1,10";5;EUR\n2026-01-01;c3;10;1;7;5;PLN\n'
        "2026-01-01;c4;10;1;$1;5;EUR\n2026-01-01;c5;10;1;1;5;XYZ\n",
    )
    report = harmonize(feed, MAPPING + "dialect: {decimal: ','}\n", tmp_path / "out")
    assert report["currency"] is None
    assert report["totals"]["spend"] is None
    assert {code: t["spend"] for code, t in report["totals_by_currency"].items()} == {"EUR": "1235.66", "PLN": "7.00"}
    assert report["reasons"] == {"currency_conflict": 1, "unknown_currency": 1}
    assert report["totals"]["impressions"] == 1020


def test_money_passes_through_no_float(tmp_path):
    feed = write(
        tmp_path / "f.json",
        json.dumps([{"Date": "2026-01-01", "Campaign ID": i, "Spend": "X"} for i in range(3)]).replace(
            '"X"', "12345678901234567.123456"
        ),
    )
    harmonize(feed, MAPPING, tmp_path / "out")
    assert {row["spend"] for row in rows(tmp_path / "out")} == {Decimal("12345678901234567.123456")}


def test_the_key_is_the_digest_of_its_canonical_json(tmp_path):
    import hashlib

    feed = write(tmp_path / "f.csv", "Date,Campaign ID,Spend,Sales\n2026-01-01,é1,1,\n")
    harmonize(feed, MAPPING, tmp_path / "out")
    row = rows(tmp_path / "out")[0]
    key = {name: row[name] for name in mappings.parse(MAPPING).key_fields}
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    assert row["row_key"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("odd", ["é1", 'a "b"', "a\\b", "a\tb", "\x7f", "{}", "日本 😀", "\u2028", ""])
def test_the_canonical_json_is_that_of_the_json_encoder_whatever_stands_in_a_cell(odd):
    days = [date(2026, 1, 1), None, date(1, 1, 1)]
    rows = [
        {"campaign_id": text, "hour": hour, "period_end": day}
        for text, hour, day in zip([odd, None, "x"], [7, None, 0], days)
    ]
    for some in (rows, rows[:1], rows[1:2], rows[2:]):
        frame = pl.DataFrame(some, schema={"campaign_id": pl.String, "hour": pl.Int8, "period_end": pl.Date})
        texts = [json.dumps(row, separators=(",", ":"), ensure_ascii=False, default=str) for row in some]
        assert harmonizer.canonical_json(frame.to_struct("rows")).to_list() == texts


def test_text_written_as_an_enum_is_text_to_every_reader(tmp_path):
    import pyarrow.parquet

    feed = write(tmp_path / "f.csv", "Date,Campaign ID,Spend,Sales\n2026-01-01,c1,1,2\n")
    harmonize(feed, MAPPING, tmp_path / "out")
    for name in ("metrics", "outcomes"):
        schema = pyarrow.parquet.read_schema(tmp_path / f"out/{name}.parquet")
        assert {str(schema.field(column).type) for column in ("row_key", "currency")} == {"large_string"}
    assert pyarrow.parquet.read_table(tmp_path / "out/outcomes.parquet").to_pylist()[0]["interaction"] == "click"


def test_the_sums_of_the_pass_are_those_of_what_was_written(tmp_path):
    lines = ["2026-01-01,c1,1,2,USD", "2026-01-01,c2,1,,EUR", "2026-01-02,c1,1,3.5,USD", "2026-01-02,c9,1,,PLN"]
    outcomes = (
        MAPPING
        + "  - {from: Orders, metric: orders, window_days: 7, interaction: click, model: last_touch, scope: all}\n"
    )
    feed = write(
        tmp_path / "f.csv", "Date,Campaign ID,Spend,Sales,Currency,Orders\n" + "".join(f"{line},1\n" for line in lines)
    )
    report = harmonize(feed, outcomes, tmp_path / "out")
    assert [(o["metric"], o["currency"], o["value"]) for o in report["outcomes"]] == [
        ("orders", None, "4.00"),
        ("sales", "USD", "5.50"),
    ]
    assert report["outcomes"] == harmonizer._outcome_totals(tmp_path / "out")


def test_frames_have_the_declared_schemas(tmp_path):
    feed = write(tmp_path / "f.csv", "Date,Campaign ID,Spend,Sales\n2026-01-01,c1,1,2\n")
    harmonize(feed, MAPPING, tmp_path / "out")
    assert dict(pl.read_parquet_schema(tmp_path / "out/metrics.parquet")) == rmis.METRICS_SCHEMA
    assert dict(pl.read_parquet_schema(tmp_path / "out/outcomes.parquet")) == rmis.OUTCOMES_SCHEMA
    assert dict(pl.read_parquet_schema(tmp_path / "out/quarantine.parquet")) == rmis.QUARANTINE_SCHEMA


def test_a_missing_column_stops_the_file_and_names_the_closest(tmp_path):
    feed = write(tmp_path / "f.csv", "Day,Campaign ID,Spend,Sales\n2026-01-01,c1,1,2\n")
    with pytest.raises(rmis.BadInput, match=r"no column 'Date' for fields\.date"):
        harmonize(feed, MAPPING, tmp_path / "out")
    assert not list((tmp_path).glob("out/*.parquet"))


def test_too_many_rejects_stop_the_file_and_nothing_is_written(tmp_path):
    lines = ["2026-01-01,c,1,2"] + [f"{n},c,1,2" for n in range(30)]
    feed = write(tmp_path / "f.csv", "Date,Campaign ID,Spend,Sales\n" + "\n".join(lines) + "\n")
    with pytest.raises(harmonizer.FeedRefused, match="30 of 31 rows rejected"):
        harmonize(feed, MAPPING, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_every_shipped_mapping_is_sound():
    for path in sorted(mappings.SHIPPED.glob("*/*.yaml")):
        mapping = mappings.load(path)
        assert mapping.mapping == f"{path.parent.name}/{path.stem}"
        assert mapping.seen_on, path
        assert [f for f in mappings.lint(mapping) if f.severity == "error"] == [], path


def test_csv_quoting_does_not_change_a_row(tmp_path):
    header = ["Date", "Campaign ID", "Impressions", "Clicks", "Spend", "Sales"]
    body = ["2026-01-01", 'a "b", c\nd', "1", "1", "1.5", "2"]
    for name, quoting in (("a", csv.QUOTE_ALL), ("b", csv.QUOTE_MINIMAL)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, quoting=quoting)
            writer.writerows([header, body])
        harmonize(tmp_path / f"{name}.csv", MAPPING, tmp_path / name)
    assert rows(tmp_path / "a")[0]["campaign_id"] == body[1]
    assert rows(tmp_path / "a")[0]["row_key"] == rows(tmp_path / "b")[0]["row_key"]


def test_a_parquet_file_in_one_block_is_read_in_pieces_and_keeps_its_rows(tmp_path, monkeypatch):
    path = tmp_path / "block.parquet"
    pl.DataFrame({"n": [str(n) for n in range(25)]}).write_parquet(path, row_group_size=25)
    monkeypatch.setattr(files, "PARQUET_PIECE", 10)
    with open_feed(path) as feed:
        found = feed.frame.collect()
    assert found["n"].to_list() == [str(n) for n in range(25)]
    assert found[ROW].to_list() == list(range(1, 26))


def test_a_report_without_attributed_values_has_no_outcome_and_no_total_of_one(tmp_path):
    feed = write(tmp_path / "f.csv", "Date,Campaign ID,Impressions,Clicks,Spend\n2026-01-01,c,10,1,1.00\n")
    report = harmonize(feed, MAPPING[: MAPPING.index("outcomes:")], tmp_path / "out")
    assert report["outcomes"] == []
    assert rows(tmp_path / "out", "outcomes") == []


def test_week_ending_alone_gives_the_week(tmp_path):
    mapping = MAPPING.replace("grain: campaign", "grain: campaign\nperiod: week").replace(
        "date: Date", "period_end: Date"
    )
    feed = write(tmp_path / "f.csv", "Date,Campaign ID,Impressions,Clicks,Spend,Sales\n2026-01-04,c,10,1,1.00,2\n")
    assert harmonize(feed, mapping, tmp_path / "out")["period"] == ["2025-12-29", "2026-01-04"]


@pytest.mark.parametrize(
    ("text", "hour"), [("7", 7), ("07:00", 7), ("7 AM", 7), ("12 am", 0), ("12:00 PM", 12), ("22:00 - 22:59", 22)]
)
def test_hours_are_read_as_people_write_them(tmp_path, text, hour):
    mapping = MAPPING.replace("  date: Date", "  date: Date\n  hour: Hour")
    feed = write(
        tmp_path / "f.csv", f"Date,Hour,Campaign ID,Impressions,Clicks,Spend,Sales\n2026-01-04,{text},c,10,1,1.00,2\n"
    )
    harmonize(feed, mapping, tmp_path / "out")
    assert rows(tmp_path / "out")[0]["hour"] == hour

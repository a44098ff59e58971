from __future__ import annotations

import gzip
import json
import re
from decimal import Decimal

import polars as pl
import pytest

from retailers.connectors.files import open_feed
from retailers.domain import harmonizer, infer
from retailers.domain import mapping as mappings
from tests.retailers.test_harmonizer import rows, write


def draft(path) -> str:
    with open_feed(path) as feed:
        return infer.draft(feed, "unseen", "report")


def through(path, out, **fill) -> dict:
    """Draft a mapping, fill in the marked lines in order, harmonize."""
    text = draft(path)
    for value in fill.get("fill", []):
        text = text.replace(mappings.FILL_IN, value, 1)
    assert mappings.FILL_IN not in text, text
    mapping = mappings.parse(text)
    with open_feed(path, mapping.dialect, mapping.wanted) as feed:
        return harmonizer.run(feed, mapping, out)


def test_a_german_export_with_title_lines_and_decimal_commas(tmp_path):
    feed = write(
        tmp_path / "de.csv",
        "Kampagnenbericht;;;;;;\nZeitraum;01.04.2026 - 30.04.2026;;;;;\n;;;;;;\n"
        "Datum;Kampagne;Impressionen;Klicks;Kosten (EUR);Umsatz;Bestellungen\n"
        "13.04.2026;Frühling;1.204;12;1.234,56;2.000,10;3\n14.04.2026;Frühling;900;8;0,44;10,00;1\n"
        "Gesamtsumme;;2.104;20;1.235,00;2.010,10;4\n",
        "utf-8-sig",
    )
    report = through(feed, tmp_path / "out")
    assert report["totals"] == {"impressions": 2104, "clicks": 20, "spend": "1235.00"}
    assert (report["currency"], report["rows_read"]) == ("EUR", 2)
    assert {o["metric"]: o["value"] for o in report["outcomes"]} == {"sales": "2010.10", "orders": "4.00"}


def test_nested_json_with_scaled_money_and_the_account_above_the_rows(tmp_path):
    body = {
        "account": {"id": 77, "currency": "SGD"},
        "campaigns": [
            {
                "id": n,
                "name": f"C{n}",
                "days": [
                    {
                        "date": f"2026-04-{d:02}",
                        "metrics": {"impressions": 100 * d, "clicks": d, "cost_micros": 1_500_000 * d, "gmv_7d": 4.2},
                    }
                    for d in (1, 2)
                ],
            }
            for n in (1, 2)
        ],
    }
    feed = write(tmp_path / "n.json", json.dumps(body))
    report = through(feed, tmp_path / "out")
    assert (report["rows_read"], report["currency"], report["totals"]["spend"]) == (4, "SGD", "9.00")
    assert {(r["campaign_id"], r["account_id"], str(r["period_start"])) for r in rows(tmp_path / "out")} == {
        (c, "77", d) for c in "12" for d in ("2026-04-01", "2026-04-02")
    }
    assert report["outcomes"][0]["window_days"] == 7


def test_hourly_rows_keep_their_hour_in_the_key(tmp_path):
    lines = "".join(f"2026-04-01 {h:02}:00:00,c1,{h},1,0.5,USD\n" for h in range(24))
    feed = write(tmp_path / "h.csv", "Timestamp,Campaign ID,Impressions,Clicks,Cost,Currency\n" + lines)
    report = through(feed, tmp_path / "out")
    assert (report["rows_accepted"], report["totals"]["spend"]) == (24, "12.00")
    assert sorted(r["hour"] for r in rows(tmp_path / "out")) == list(range(24))


def test_restated_numbers_in_one_file_count_once(tmp_path):
    feed = write(
        tmp_path / "r.csv",
        "date,campaign_id,impressions,clicks,spend,currency,updated_at\n2026-04-01,c1,10,1,1.00,GBP,2026-04-02T00:00:00Z\n"
        "2026-04-01,c1,12,1,1.25,GBP,2026-04-05T00:00:00Z\n2026-04-02,c1,5,1,2.00,GBP,2026-04-05T00:00:00Z\n",
    )
    report = through(feed, tmp_path / "out")
    assert report["totals"]["spend"] == "3.25"
    assert report["extracted_at"] == "2026-04-05T00:00:00+00:00"


def test_what_cannot_be_known_is_marked_and_nothing_else(tmp_path):
    feed = write(
        tmp_path / "a.csv", "Date,Campaign,Impressions,Clicks,Spend\n01/02/2026,c,10,1,$1.00\n03/04/2026,c,10,1,$2.00\n"
    )
    text = draft(feed)
    assert len(re.findall(mappings.FILL_IN, text)) == 2  # the day order, the currency
    report = through(feed, tmp_path / "out", fill=["%d/%m/%Y", "CAD"])
    assert report["period"] == ["2026-02-01", "2026-04-03"]
    assert report["currency"] == "CAD"


def test_an_unfilled_draft_is_refused_with_the_place(tmp_path):
    feed = write(tmp_path / "a.csv", "Date,Campaign,Spend\n2026-02-01,c,1\n")
    with pytest.raises(mappings.BadInput, match=r"fields\.currency\.constant still says FILL-IN"):
        mappings.parse(draft(feed))


def test_column_plus_array_json_in_gzip(tmp_path):
    body = {
        "meta": {"currency": "PLN"},
        "columns": [{"name": n} for n in ("day", "campaignId", "imps", "clicks", "spend")],
        "rows": [["2026-04-01", "c", 10, 1, 2.5]],
    }
    path = tmp_path / "c.json.gz"
    path.write_bytes(gzip.compress(json.dumps(body).encode()))
    report = through(path, tmp_path / "out")
    assert (report["currency"], report["totals"]) == ("PLN", {"impressions": 10, "clicks": 1, "spend": "2.50"})


def test_parquet_of_another_shop(tmp_path):
    frame = pl.DataFrame(
        {
            "report_date": ["20260401"],
            "campaign": [{"id": 5, "name": "x"}],
            "cost": [Decimal("1.23")],
            "currency_code": ["JPY"],
            "views": [3],
        }
    )
    frame.write_parquet(tmp_path / "p.parquet")
    report = through(tmp_path / "p.parquet", tmp_path / "out")
    assert (report["currency"], report["totals"]["spend"], report["totals"]["impressions"]) == ("JPY", "1.23", 3)


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (["2026-04-01"], "iso"),
        (["13/04/2026", "01/04/2026"], "%d/%m/%Y"),
        (["04/13/2026"], "%m/%d/%Y"),
        (["01/02/2026"], "?%d/%m/%Y"),
        (["01.02.2026"], "%d.%m.%Y"),
        (["Apr 1, 2026"], "%b %d, %Y"),
        (["1775001600"], "unix"),
        (["46113"], "excel"),
        (["2026-W14"], "iso_week"),
        (["c1"], None),
    ],
)
def test_date_formats_are_told_apart(values, form):
    assert infer.date_format(values) == form

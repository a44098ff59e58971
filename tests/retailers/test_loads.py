from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.management import call_command

from retailers import services, tasks
from retailers.domain import mapping as mappings
from retailers.models import FeedLoad, MetricOutcome, MetricRevision, PerformanceMetric, QuarantinedRow
from rmn.lib.errors import BadInput
from tests.factories import BrandFactory, RetailerFactory
from tests.retailers.test_harmonizer import MAPPING, write

pytestmark = pytest.mark.django_db(transaction=False)
HEADER = "Date,Campaign ID,Impressions,Clicks,Spend,Sales\n"
FIRST = HEADER + "2026-01-01,c1,10,1,1.10,5\n2026-01-02,c1,20,2,2.20,6\n2026-01-02,c2,30,3,3.30,\n"


@pytest.fixture(autouse=True)
def files(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path / "files"


@pytest.fixture
def brand():
    return BrandFactory(slug="acme")


@pytest.fixture
def retailer():
    return RetailerFactory(slug="retailer-abc")


def load(
    brand, retailer, text: str, as_of: str = "2026-02-01T00:00:00+00:00", mapping: str = MAPPING, name="f.csv"
) -> FeedLoad:
    run = services.wish_for_load(
        brand=brand, retailer=retailer, file_name=name, chunks=[text.encode()], mapping=mapping, as_of=as_of
    )
    tasks.load_feed(str(run.pk), tenant=str(brand.pk))
    run.refresh_from_db()
    return run


def spend(brand) -> Decimal:
    return sum((m.spend for m in PerformanceMetric.objects.filter(brand=brand)), Decimal(0))


def test_the_same_file_twice_changes_nothing(brand, retailer):
    first = load(brand, retailer, FIRST)
    assert first.status == "succeeded", first.error
    assert first.result["load"] == {"inserted": 3, "unchanged": 0, "restated": 0, "older": 0, "removed": 0}
    before = list(PerformanceMetric.objects.order_by("pk").values())
    again = load(brand, retailer, FIRST)
    assert again.result["load"] == {"inserted": 0, "unchanged": 3, "restated": 0, "older": 0, "removed": 0}
    assert list(PerformanceMetric.objects.order_by("pk").values()) == before
    assert (MetricOutcome.objects.count(), MetricRevision.objects.count()) == (2, 0)


def test_a_newer_extract_restates_and_the_old_value_stays_in_history(brand, retailer):
    load(brand, retailer, FIRST)
    newer = load(brand, retailer, FIRST.replace("2.20,6", "2.50,9"), as_of="2026-02-05T00:00:00+00:00")
    assert newer.result["load"] == {"inserted": 0, "unchanged": 2, "restated": 1, "older": 0, "removed": 0}
    row = PerformanceMetric.objects.get(campaign_id="c1", period_start="2026-01-02")
    assert (row.spend, row.load_id) == (Decimal("2.5"), newer.pk)
    assert [o.value for o in row.outcomes.all()] == [Decimal(9)]
    old = MetricRevision.objects.get()
    assert Decimal(old.values["spend"]) == Decimal("2.2")
    assert Decimal(old.values["outcomes"][0]["value"]) == 6
    assert old.extracted_at.date() == dt.date(2026, 2, 1)


def test_an_older_extract_never_overwrites_a_newer_one(brand, retailer):
    load(brand, retailer, FIRST)
    load(brand, retailer, FIRST, as_of="2026-02-09T00:00:00+00:00")  # says the same, later
    late = load(brand, retailer, FIRST.replace("2.20", "9.99"), as_of="2026-02-05T00:00:00+00:00")
    assert late.result["load"]["older"] == 1
    assert spend(brand) == Decimal("6.6")


def test_a_later_file_that_says_the_same_of_all_rows_or_some_holds_against_what_comes_between(brand, retailer):
    load(brand, retailer, FIRST)
    part = "".join(line + "\n" for line in FIRST.splitlines() if "c2" not in line)
    load(brand, retailer, part, as_of="2026-02-09T00:00:00+00:00")  # of two rows in three
    load(brand, retailer, FIRST.replace("2.20", "9.99").replace("3.30", "4.00"), as_of="2026-02-05T00:00:00+00:00")
    assert spend(brand) == Decimal("7.3")  # c2 was said last on the 1st
    load(brand, retailer, FIRST.replace("3.30", "4.00"), as_of="2026-02-20T00:00:00+00:00")  # of all
    late = load(brand, retailer, FIRST, as_of="2026-02-10T00:00:00+00:00")
    assert late.result["load"]["older"] == 1
    taken = {row.taken_at.date() for row in PerformanceMetric.objects.select_related("load")}
    assert taken == {dt.date(2026, 2, 20)}


def test_a_file_that_fails_leaves_nothing_behind(brand, retailer, monkeypatch):
    monkeypatch.setattr("retailers.loads.keep_refused", lambda *_: 1 / 0)
    run = load(brand, retailer, FIRST)
    assert run.status == "failed"
    assert (PerformanceMetric.objects.count(), MetricOutcome.objects.count()) == (0, 0)


def test_two_brands_with_the_same_keys_keep_their_own_rows(brand, retailer):
    other = BrandFactory(slug="globex")
    load(brand, retailer, FIRST)
    assert load(other, retailer, FIRST).result["load"]["inserted"] == 3
    assert spend(brand) == spend(other) == Decimal("6.6")


def test_young_rows_are_not_final_until_the_network_stops_restating(brand, retailer):
    mapping = MAPPING + "restated_days: 14\n"
    load(brand, retailer, FIRST, as_of="2026-01-15T06:00:00+00:00", mapping=mapping)
    assert list(
        PerformanceMetric.objects.order_by("period_start", "campaign_id").values_list("is_final", flat=True)
    ) == [True, False, False]
    load(brand, retailer, FIRST, as_of="2026-03-01T00:00:00+00:00", mapping=mapping)
    assert not PerformanceMetric.objects.filter(is_final=False).exists()


def test_a_corrected_mapping_takes_the_rows_back_out_of_quarantine(brand, retailer, tmp_path, capsys):
    text = HEADER + "2026-01-01,c1,10,1,1.10,5\n" + "02/01/2026,c1,20,2,2.20,6\n"
    run = load(brand, retailer, text)
    assert QuarantinedRow.objects.open().get().rule == "bad_date"
    corrected = MAPPING.replace("date: Date", "date: {from: Date, format: [iso, '%d/%m/%Y']}").replace(
        "version: 1", "version: 2"
    )
    path = write(tmp_path / "m.yaml", corrected)
    call_command("replay_quarantine", brand="acme", file=run.file_sha256, mapping=str(path))
    answer = json.loads(capsys.readouterr().out)
    assert answer["replay"] == {"open_before": 1, "open_after": 0, "answered": 1}
    assert answer["load"] == {"inserted": 1, "unchanged": 1, "restated": 0, "older": 0, "removed": 0}
    assert QuarantinedRow.objects.get().status == "replayed"
    assert spend(brand) == Decimal("3.3")


def test_a_corrected_key_leaves_no_cent_behind_under_the_old_one(brand, retailer):
    load(brand, retailer, FIRST)
    other_key = MAPPING.replace("version: 1", "version: 2") + "key: [campaign_id]\n"
    assert mappings.parse(other_key).key_fields == mappings.parse(MAPPING).key_fields  # same key, same rows
    constant = other_key.replace(
        "  campaign_id: Campaign ID", "  campaign_id: Campaign ID\n  account_id: {constant: a1}"
    ).replace("key: [campaign_id]", "key: [campaign_id, account_id]")
    run = load(brand, retailer, FIRST, mapping=constant)
    assert run.result["load"] == {"inserted": 3, "unchanged": 0, "restated": 0, "older": 0, "removed": 3}
    assert spend(brand) == Decimal("6.6")


def test_a_report_without_dates_asks_for_its_days(brand, retailer):
    mapping = MAPPING.replace("  date: Date\n", "").replace("grain: campaign", "grain: campaign\nperiod: none")
    run = load(brand, retailer, FIRST, mapping=mapping)
    assert (run.status, PerformanceMetric.objects.count()) == ("failed", 0)
    assert "--period" in run.error


def test_every_value_leads_back_to_its_file_row_and_mapping(brand, retailer):
    run = load(brand, retailer, FIRST)
    row = PerformanceMetric.objects.get(campaign_id="c2")
    assert (row.file_sha256, row.row_number, row.load_id) == (run.file_sha256, 4, run.pk)
    assert row.mapping_version == mappings.parse(MAPPING).version_text == run.mapping_version


def test_the_command_loads_and_says_what_changed(brand, retailer, tmp_path, capsys):
    feed, mapping = write(tmp_path / "f.csv", FIRST), write(tmp_path / "m.yaml", MAPPING)
    call_command(
        "harmonize",
        str(feed),
        mapping=str(mapping),
        load=True,
        retailer="retailer-abc",
        brand="acme",
        out=str(tmp_path / "o"),
    )
    report = json.loads(Path(tmp_path / "o/report.json").read_text())
    assert report["load"]["inserted"] == 3
    assert (tmp_path / "o/metrics.parquet").exists()


def test_a_mapping_that_is_no_mapping_is_refused_before_anything_is_kept(brand, retailer):
    with pytest.raises(BadInput, match="shipped"):
        services.wish_for_load(brand=brand, retailer=retailer, file_name="f", chunks=[b"x"], mapping="../etc/passwd")
    assert not FeedLoad.objects.exists()

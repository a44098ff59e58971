from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from retailers import services, tasks
from retailers.models import FeedLoad, FeedMapping, PerformanceMetric, QuarantinedRow
from tests.conftest import People
from tests.factories import PerformanceMetricFactory
from tests.retailers.test_harmonizer import MAPPING
from tests.retailers.test_loads import load

pytestmark = pytest.mark.django_db

HEADER = "Date,Campaign ID,Impressions,Clicks,Spend,Sales\n"
DAYS = [dt.date(2026, 1, 1) + dt.timedelta(days=n) for n in range(14)]
REPORT = HEADER + "".join(f"{day},c{c},100,5,{10 + c + day.day}.50,{50 * c}\n" for day in DAYS for c in (1, 2))
PRODUCTS = MAPPING.replace("test/days", "test/products").replace("grain: campaign", "grain: product")
PRODUCTS = PRODUCTS.replace("  impressions:", "  product_id: {from: SKU, id_type: sku}\n  impressions:")
PRODUCT_REPORT = "Date,Campaign ID,SKU,Impressions,Clicks,Spend,Sales\n" + "".join(
    f"{day},c{c},s{c},100,5,{10 + c + day.day}.50,{50 * c}\n" for day in DAYS for c in (1, 2)
)


@pytest.fixture(autouse=True)
def files(settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"


def fill(people: People) -> FeedLoad:
    run = load(people.brand, people.retailer, REPORT + "x,c3,1,1,1.00,\n", name="campaigns.csv")
    load(people.brand, people.retailer, PRODUCT_REPORT, mapping=PRODUCTS, name="products.csv")
    assert run.status == run.Status.SUCCEEDED, run.error
    return run


def test_the_performance_page_counts_one_grain_and_names_the_attribution(people: People) -> None:
    fill(people)
    found = services.performance(PerformanceMetric.objects.visible_to(people.owner), 28)
    once = sum(Decimal(f"{10 + c + day.day}.50") for day in DAYS for c in (1, 2))
    assert [(row["grain"], row["spend"]) for row in found["slices"]] == [("campaign", once)]
    [sales] = found["returns"]
    assert sales["attribution"] == "7 days after a click, last touch, all products"
    assert sales["roas"] == sales["value"] / once
    page = people.web(people.owner).get("/performance/").content.decode()
    assert "7 days after a click, last touch, all products" in page
    assert "one grain each (campaign)" in page


def test_values_of_two_windows_stand_apart(people: People) -> None:
    both = (
        MAPPING
        + "  - {from: Sales 14, metric: sales, window_days: 14, interaction: click, model: last_touch, scope: all}\n"
    )
    text = HEADER.strip() + ",Sales 14\n2026-01-01,c1,10,1,10.00,20,30\n"
    load(people.brand, people.retailer, text, mapping=both)
    found = services.performance(PerformanceMetric.objects.visible_to(people.owner), 28)["returns"]
    assert {row["attribution"].split(",")[0]: row["roas"] for row in found} == {
        "14 days after a click": Decimal(3),
        "7 days after a click": Decimal(2),
    }


def test_movers_compare_with_as_many_days_before(people: People) -> None:
    fill(people)
    found = services.performance(PerformanceMetric.objects.visible_to(people.owner), 7)
    assert [row["change"] for row in found["movers"]] == [Decimal(49), Decimal(49)]


def test_a_campaign_opens_into_its_products_and_each_row_into_its_lineage(people: People) -> None:
    fill(people)
    client = people.web(people.owner)
    page = client.get("/performance/?campaign=c1").content.decode()
    assert "Products of c1, from the product report" in page
    assert ">s1<" in page
    row = PerformanceMetric.objects.filter(grain="campaign").order_by("pk").first()
    assert row is not None
    lineage = client.get(f"/metrics/{row.uuid}").content.decode()
    assert "campaigns.csv" in lineage
    assert row.mapping_version in lineage
    assert people.web(people.stranger).get(f"/metrics/{row.uuid}").status_code == 404


def test_what_was_restated_shows_what_it_said_before(people: People) -> None:
    load(people.brand, people.retailer, HEADER + "2026-01-01,c1,10,1,1.10,5\n")
    load(people.brand, people.retailer, HEADER + "2026-01-01,c1,10,1,1.25,5\n", as_of="2026-02-02T00:00:00+00:00")
    row = PerformanceMetric.objects.get()
    page = people.web(people.owner).get(f"/metrics/{row.uuid}").content.decode()
    assert "What it said before" in page
    assert "1.10" in page


def test_the_feeds_page_says_how_fresh_and_what_is_missing(people: People) -> None:
    load(people.brand, people.retailer, HEADER + "2026-01-01,c1,1,1,1.00,\nx,c1,1,1,1.00,\n")
    load(people.brand, people.retailer, HEADER + "2026-01-04,c1,1,1,1.00,\n")
    [feed] = services.feed_health(FeedLoad.objects.visible_to(people.owner), dt.date(2026, 1, 6))
    assert (feed["newest"], feed["late"], feed["refused"]) == (dt.date(2026, 1, 4), 2, 1)
    assert feed["missing"] == [dt.date(2026, 1, 2), dt.date(2026, 1, 3)]
    page = people.web(people.owner).get("/feeds/").content.decode()
    assert "test/days" in page
    assert "test/days" not in people.web(people.stranger).get("/feeds/").content.decode()


def test_the_feeds_page_charts_the_money_that_came_in_each_cent_at_one_grain(people: People) -> None:
    fill(people)
    told = services.spend_by_week(PerformanceMetric.objects.visible_to(people.owner))
    once = sum(Decimal(f"{10 + c + day.day}.50") for day in DAYS for c in (1, 2))
    assert sum(row["spend"] for row in told["EUR"]) == once
    assert [row["week"].isoweekday() for row in told["EUR"]] == [1, 1, 1]
    page = people.web(people.owner).get("/feeds/").content.decode()
    assert "EUR of spend are loaded for the week of 2026-01-12" in page


def test_the_newest_day_is_the_last_that_a_row_tells_of_not_the_last_on_which_one_begins(people: People) -> None:
    for start, end in ((dt.date(2026, 1, 1), dt.date(2026, 1, 31)), (dt.date(2026, 1, 20), dt.date(2026, 1, 20))):
        PerformanceMetricFactory(brand=people.brand, period_start=start, period_end=end)
    PerformanceMetricFactory(brand=people.other, period_start=dt.date(2026, 3, 1), period_end=dt.date(2026, 3, 1))
    mine = PerformanceMetric.objects.visible_to(people.owner)
    assert mine.newest_day() == dt.date(2026, 1, 31)
    assert PerformanceMetric.objects.none().newest_day() is None
    assert services.performance(mine, 7)["newest"] == dt.date(2026, 1, 31)


def upload(people: People, text: str, mapping: str, person: Any = None) -> Any:
    return people.web(person or people.owner).post(
        "/feeds/upload",
        {
            "brand": str(people.brand.uuid),
            "retailer": str(people.retailer.uuid),
            "mapping": mapping,
            "file": SimpleUploadedFile("report.csv", text.encode()),
        },
    )


def test_an_upload_is_shown_before_anything_is_written_and_loaded_when_asked(
    people: People, django_capture_on_commit_callbacks: Any
) -> None:
    kept = services.keep_mapping(brand=people.brand, text=MAPPING)
    answer = upload(people, REPORT + "x,c3,1,1,1.00,\n", str(kept.uuid))
    assert answer.status_code == 200
    page = answer.content.decode()
    assert "28 would be taken, 1 kept apart" in page
    assert "Rows before and after" in page
    assert not FeedLoad.objects.exists()
    assert not PerformanceMetric.objects.exists()
    signed, text = answer.context["signed"], answer.context["text"]
    loaded = people.web(people.owner).post("/feeds/upload/check", {"kept": signed, "text": text, "do": "load"})
    run = FeedLoad.objects.get()
    assert loaded["Location"] == run.get_absolute_url()
    tasks.load_feed(str(run.pk), tenant=str(people.brand.pk))
    assert PerformanceMetric.objects.count() == 28
    assert FeedMapping.objects.count() == 1


def test_an_unknown_report_gets_a_draft_whose_open_lines_are_shown(people: People) -> None:
    answer = upload(people, "Day,Campaign,Impressions,Clicks,Cost\n2026-01-01,c,10,1,5.00\n", "draft")
    page = answer.content.decode()
    assert "1 line only you can fill in" in page
    text = answer.context["text"].replace("FILL-IN", "EUR")
    again = people.web(people.owner).post(
        "/feeds/upload/check", {"kept": answer.context["signed"], "text": text, "do": "look"}
    )
    assert again.context["report"]["totals"]["spend"] == "5.00"
    people.web(people.owner).post("/feeds/upload/check", {"kept": answer.context["signed"], "text": text, "do": "load"})
    assert FeedLoad.objects.get().mapping == FeedMapping.objects.get(brand=people.brand)


def test_a_file_that_is_no_report_is_refused_with_its_reason(people: People) -> None:
    answer = upload(people, "a,b\n1,\x00\n", "draft")
    assert answer.status_code == 422
    assert "NUL" in answer.content.decode()


def test_nobody_uploads_for_a_brand_that_is_not_theirs(people: People) -> None:
    assert upload(people, REPORT, "draft", people.stranger).status_code == 422
    answer = upload(people, REPORT, "draft")
    given = {"kept": answer.context["signed"], "text": "", "do": "look"}
    assert people.web(people.stranger).post("/feeds/upload/check", given).status_code == 404
    given["kept"] = "forged"
    assert people.web(people.owner).post("/feeds/upload/check", given).status_code == 404


def test_refused_rows_are_answered_many_at_a_time(people: People, django_capture_on_commit_callbacks: Any) -> None:
    run = load(people.brand, people.retailer, HEADER + "x,c1,1,1,1.00,\ny,c1,1,1,1.00,\n2026-01-01,c1,1,1,1.00,\n")
    assert QuarantinedRow.objects.open().count() == 2
    group = {"group": [f"{run.pk}|bad_date|Date"]}
    people.web(people.stranger).post("/feeds/quarantine/answer", {**group, "do": "dismiss"})
    assert QuarantinedRow.objects.open().count() == 2
    people.web(people.owner).post("/feeds/quarantine/answer", {**group, "do": "replay"})
    assert FeedLoad.objects.count() == 2
    people.web(people.owner).post("/feeds/quarantine/answer", {**group, "do": "dismiss"})
    assert QuarantinedRow.objects.open().count() == 0
    page = people.web(people.owner).get("/feeds/quarantine").content.decode()
    assert "is no date of the form" in page

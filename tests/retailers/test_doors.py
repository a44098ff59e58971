from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from retailers.models import FeedLoad, FeedMapping
from tests.conftest import People
from tests.factories import PerformanceMetricFactory, QuarantinedRowFactory
from tests.retailers.test_harmonizer import MAPPING
from tests.retailers.test_loads import FIRST

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def files(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path / "files"


def upload(people: People, person, mapping: str = "walmart/ad_item", **extra):
    body = {
        "brand": "acme",
        "retailer": "retailer-abc",
        "mapping": mapping,
        "file": SimpleUploadedFile("f.csv", FIRST.encode()),
        **extra,
    }
    return people.api(person).post("/api/v1/feeds/", body, format="multipart")


def test_an_upload_answers_with_the_run_it_started(people: People):
    answer = upload(people, people.owner, as_of="2026-02-01T00:00:00Z")
    assert answer.status_code == 202, answer.content
    run = FeedLoad.objects.get(pk=answer.json()["id"])
    assert (run.brand, run.requested_by, run.file_name) == (people.brand, people.owner, "f.csv")


def test_a_stranger_uploads_nothing_for_a_brand_that_is_not_hers(people: People):
    assert upload(people, people.stranger).status_code == 400
    assert not FeedLoad.objects.exists()


@pytest.mark.parametrize("mapping", ["../../etc/passwd", "nobody/knows", "", "00000000-0000-4000-8000-000000000000"])
def test_an_unknown_mapping_is_refused(people: People, mapping: str):
    assert upload(people, people.owner, mapping=mapping).status_code in (400, 422)


def test_a_mapping_is_kept_as_versions_and_a_stranger_cannot_use_it(people: People):
    client = people.api(people.owner)
    first = client.post("/api/v1/feed-mappings/", {"brand": "acme", "text": MAPPING}, format="json")
    assert first.status_code == 201, first.content
    second = client.post(
        "/api/v1/feed-mappings/", {"brand": "acme", "text": MAPPING + "restated_days: 3\n"}, format="json"
    ).json()
    assert (first.json()["version"], second["version"]) == (1, 2)
    assert FeedMapping.objects.current().get().version == 2
    assert upload(people, people.owner, mapping=second["id"]).status_code == 202
    body = {
        "brand": "globex",
        "retailer": "retailer-abc",
        "mapping": second["id"],
        "file": SimpleUploadedFile("f.csv", b"a\n1\n"),
    }
    assert people.api(people.stranger).post("/api/v1/feeds/", body, format="multipart").status_code == 400


def test_a_mapping_with_an_error_is_refused_with_the_place(people: People):
    bad = MAPPING.replace("currency: {from: Currency, default: EUR}", "currency: {constant: EURO}")
    answer = people.api(people.owner).post("/api/v1/feed-mappings/", {"brand": "acme", "text": bad}, format="json")
    assert answer.status_code == 422
    assert "fields.currency" in answer.json()["detail"]


def test_the_summary_counts_the_same_money_once(people: People):
    for grain in ("campaign", "keyword", "product"):
        PerformanceMetricFactory(brand=people.brand, retailer=people.retailer, grain=grain, spend="10.00")
    PerformanceMetricFactory(
        brand=people.brand, retailer=people.retailer, grain="campaign", spend="7.00", currency="EUR"
    )
    PerformanceMetricFactory(brand=people.other, retailer=people.retailer, spend="99.00")
    found = people.api(people.colleague).get("/api/v1/metrics/summary/").json()
    assert {code: t["spend"] for code, t in found["totals_by_currency"].items()} == {"USD": "10.00", "EUR": "7.00"}


def test_dismissing_a_row_is_for_its_own_people(people: People):
    row = QuarantinedRowFactory(brand=people.brand)
    assert people.api(people.stranger).post(f"/api/v1/quarantine/{row.uuid}/dismiss/").status_code == 404
    assert people.api(people.owner).post(f"/api/v1/quarantine/{row.uuid}/dismiss/").json()["status"] == "dismissed"

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from retailers import catalogue, services, tasks
from retailers.models import AuditEntry, FeedLoad, ProductIdentifier, QuarantinedRow, SKUCatalog
from tests.conftest import People
from tests.factories import SKUFactory
from tests.retailers.test_harmonizer import DATA, MAPPING, needs_data
from tests.retailers.test_loads import load

pytestmark = pytest.mark.django_db
FILE = """SKU,Product Name,UPC,Case GTIN,ASIN,Category,Price,Currency,Shelf
w1,Sparkling water,054800351831,10054800351838,b000000001,Water,"$1,234.50",USD,3
w2,Still water,58978500076,,B000000002,Water,0.99,USD,4
w3,Wrong number,036000291453,,,Water,1,USD,5
w4,Dear water,,,,Water,cheap,USD,5
,Nameless,,,,Water,1,USD,5
w1,Sparkling water again,,,,Water,1,USD,5
"""


@pytest.fixture(autouse=True)
def files(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"


def wish(people: People, text: str = FILE, name: str = "products.csv", **options: Any) -> FeedLoad:
    run = services.wish_for_load(
        brand=people.brand, retailer=people.retailer, file_name=name, chunks=[text.encode()], mapping="catalogue", by=people.owner, **options
    )  # fmt: skip
    tasks.load_feed(str(run.pk), tenant=str(people.brand.pk))
    run.refresh_from_db()
    assert run.status == run.Status.SUCCEEDED, run.error
    return run


def disputed() -> set[tuple[str, str]]:
    return set(ProductIdentifier.objects.filter(in_conflict=True).values_list("value", "product__sku"))


def test_products_come_in_with_their_numbers_and_what_is_wrong_is_kept_apart(people: People) -> None:
    run = wish(people)
    water = SKUCatalog.objects.get()
    assert (water.sku, water.gtin14, water.upc, str(water.price), water.currency) == (
        "w1",
        "00054800351831",
        "054800351831",
        "1234.500000",
        "USD",
    )
    assert run.result["reasons"] == {
        "bad_identifier": 2,
        "bad_number": 1,
        "missing_key": 1,
        "duplicate_key": 1,
    }
    kept = QuarantinedRow.objects.get(row_number=3)
    assert "allow repair" in kept.message
    assert json.loads(kept.raw)["UPC"] == "58978500076"
    assert run.result["drift"]["new"] == ["Shelf"]


def test_a_number_is_repaired_only_when_that_is_allowed_and_the_crosswalk_says_so(people: People) -> None:
    run = wish(people, repair=True)
    assert SKUCatalog.objects.get(sku="w2").gtin14 == "00589785000769"
    [told] = run.result["repaired"]
    assert (told["row_number"], told["written"], told["gtin14"]) == (3, "58978500076", "00589785000769")
    row = ProductIdentifier.objects.get(value="00589785000769")
    assert row.source.endswith("repaired")
    assert row.confidence < ProductIdentifier.objects.get(value="00054800351831").confidence


def test_a_case_is_linked_to_its_item_and_never_merged_with_it(people: People) -> None:
    wish(people)
    row = ProductIdentifier.objects.get(kind="case")
    assert (row.value, row.product.sku) == ("10054800351838", "w1")
    wish(people, "sku,name,gtin\nbox,Sparkling water by the case,10054800351838\n", "cases.csv")
    box = SKUCatalog.objects.get(sku="box")
    assert box.gtin14 == "10054800351838"
    assert SKUCatalog.objects.get(sku="w1").gtin14 == "00054800351831"
    assert not disputed()


def test_the_same_file_twice_changes_nothing_and_an_empty_cell_leaves_what_stands(people: People) -> None:
    wish(people)
    assert wish(people).result["load"] == {"inserted": 0, "restated": 0, "unchanged": 1}
    again = wish(people, "sku,name,category\nw1,Sparkling water,\n")
    assert again.result["load"] == {"inserted": 0, "restated": 0, "unchanged": 1}
    newer = wish(people, "sku,name,category\nw1,Sparkling water,Drinks\n")
    assert newer.result["load"]["restated"] == 1
    assert SKUCatalog.objects.get().category == "Drinks"
    assert SKUCatalog.history.filter(sku="w1").count() == 2


def test_two_products_of_one_number_wait_for_a_person_and_nobody_else_s_do(people: People) -> None:
    SKUFactory(brand=people.other, sku="far", gtin14="00054800351831")
    wish(people)
    run = wish(people, "sku,name,upc\nw9,Water under another code,054800351831\n")
    assert run.result["conflicts"] == 1
    assert disputed() == {("00054800351831", "w1"), ("00054800351831", "w9")}


@pytest.mark.parametrize("decision", ["keep", "pack", "drop"])
def test_a_person_s_word_settles_a_number_and_later_files_do_not_open_it_again(people: People, decision: str) -> None:
    wish(people)
    second = "sku,name,upc\nw9,Water under another code,054800351831\n"
    wish(people, second)
    row = ProductIdentifier.objects.get(value="00054800351831", product__sku="w9")
    console = people.web(people.ops)
    people.ops.is_staff = people.ops.is_superuser = True
    people.ops.save()
    page = console.get("/admin/retailers/productidentifier/?in_conflict__exact=1").content.decode()
    assert "00054800351831" in page
    console.post(
        "/admin/retailers/productidentifier/", {"action": decision, "_selected_action": [row.pk], "confirmed": "yes"}
    )
    assert not disputed()
    assert AuditEntry.objects.filter(action=f"identifier {decision}").exists()
    left = dict(ProductIdentifier.objects.filter(value="00054800351831").values_list("product__sku", "kind"))
    assert left == {"keep": {"w9": "gtin"}, "pack": {"w1": "gtin", "w9": "case"}, "drop": {"w1": "gtin"}}[decision]
    if decision == "keep":
        wish(people)
        assert not disputed()


def test_a_report_that_says_otherwise_than_the_catalogue_is_a_conflict(people: People) -> None:
    wish(
        people,
        "sku,name,upc,asin\nw1,Sparkling water,054800351831,B000000001\nw2,Still water,036000291452,B000000002\n",
    )
    mapping = MAPPING.replace("grain: campaign", "grain: product").replace(
        "  impressions:",
        "  product_id: {from: ASIN, id_type: asin}\n  gtin14: {from: GTIN, id_type: gtin}\n  impressions:",
    )
    head = "Date,Campaign ID,ASIN,GTIN,Impressions,Clicks,Spend,Sales\n"
    agrees = load(
        people.brand, people.retailer, head + "2026-01-01,c,B000000001,054800351831,1,1,1.00,1\n", mapping=mapping
    )
    assert agrees.status == "succeeded", agrees.error
    assert (agrees.result["conflicts"], disputed()) == (0, set())
    other = load(
        people.brand, people.retailer, head + "2026-01-01,c,B000000002,054800351831,1,1,1.00,1\n", mapping=mapping
    )
    assert other.result["conflicts"] == 1
    assert disputed() == {("B000000002", "w1"), ("B000000002", "w2")}


def send(people: People, text: str, **more: Any) -> Any:
    return people.web(people.owner).post(
        "/feeds/upload",
        {"brand": str(people.brand.uuid), "retailer": str(people.retailer.uuid), "mapping": "catalogue", "file": SimpleUploadedFile("p.csv", text.encode()), **more},
    )  # fmt: skip


def test_a_catalogue_is_shown_on_the_upload_page_before_anything_is_written(people: People) -> None:
    wish(people)
    answer = send(people, FILE.replace("w1,Sparkling water,", "w7,Sparkling water,"))
    page = answer.content.decode()
    assert "1 new, 1 changed" in page
    assert "Rows before and after" in page
    assert "Two products claim one number" in page
    assert "Columns nobody reads" in page
    assert SKUCatalog.objects.count() == 1
    client = people.web(people.owner)
    again = client.post("/feeds/upload/check", {"kept": answer.context["signed"], "repair": "1", "do": "look"})
    assert "58978500076 becomes 00589785000769" in again.content.decode()
    loaded = client.post("/feeds/upload/check", {"kept": again.context["signed"], "repair": "1", "do": "load"})
    run = FeedLoad.objects.order_by("-created_at").first()
    assert run is not None
    assert loaded["Location"] == run.get_absolute_url()
    tasks.load_feed(str(run.pk), tenant=str(people.brand.pk))
    assert set(SKUCatalog.objects.values_list("sku", flat=True)) == {"w1", "w7", "w2"}


def test_a_file_that_is_no_catalogue_is_refused_with_what_it_lacks(people: People) -> None:
    answer = send(people, "a,b\n1,2\n")
    assert answer.status_code == 422
    assert "no column for sku and name" in answer.content.decode()
    assert "<h2>Rows" not in answer.content.decode()


def test_a_gtin_typed_by_hand_has_its_check_digit_tried_too(people: People) -> None:
    client = people.api(people.owner)
    wrong = client.post(
        "/api/v1/skus/", {"brand": str(people.brand.uuid), "sku": "x", "name": "X", "gtin14": "00054800351832"}
    )
    assert wrong.status_code == 400
    right = client.post(
        "/api/v1/skus/", {"brand": str(people.brand.uuid), "sku": "x", "name": "X", "gtin14": "054800351831"}
    )
    assert right.json()["gtin14"] == "00054800351831"


@needs_data
def test_a_thousand_real_groceries_come_in_but_for_those_with_a_wrong_digit(people: People) -> None:
    source = (DATA.parent / "gtin/grocery_upc_us.psv").read_text(encoding="utf-8")
    run = wish(people, "sku|gtin14|upc|brand|name\n" + source, "groceries.psv")
    assert run.result["reasons"] == {"bad_identifier": run.rows_quarantined}
    assert 7 <= run.rows_quarantined <= 15
    assert SKUCatalog.objects.count() == run.rows_accepted == 999 - run.rows_quarantined
    assert catalogue.disputed(people.brand, []) == []

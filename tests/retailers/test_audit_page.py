"""The audit chain as a page: one's own brands, whole or broken, and the signed head."""

from __future__ import annotations

import json

import pytest

from retailers import audit
from retailers.models import AuditEntry
from tests.conftest import People

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def lines(people: People) -> None:
    for brand, action in (
        (people.brand, "plan approved"),
        (people.brand, "copy checked"),
        (people.other, "their deed"),
    ):
        audit.record(brand=brand, actor="anna", action=action)


def test_ones_own_chain_is_shown_whole_with_filters_and_no_other_brand_s(people: People) -> None:
    web = people.web(people.owner)
    page = web.get("/audit/").content.decode()
    assert "✓ whole" in page
    assert "plan approved" in page
    assert "their deed" not in page
    rows = b"".join(web.get("/audit/?action=copy+checked&export=csv").streaming_content).decode()
    assert "plan approved" not in rows
    assert "copy checked" in rows
    assert web.get("/audit/?brand=globex").status_code == 404
    assert web.get("/audit/?brand=globex&head=1").status_code == 404
    assert "plan approved" not in people.web(people.stranger).get("/audit/").content.decode()


def test_a_changed_line_is_named(people: People) -> None:
    AuditEntry.objects.filter(chain="acme", sequence=1).update(actor="mallory")
    assert "broken at line 1" in people.web(people.owner).get("/audit/").content.decode()


def test_the_signed_head_holds_this_brand_alone_and_proves_itself(people: People) -> None:
    given = json.loads(people.web(people.owner).get("/audit/?head=1").content)
    (head,) = audit.read_heads(given, "page")
    assert (head["chain"], head["sequence"]) == ("acme", 2)
    assert audit.verify("acme", head)["broken"] is None

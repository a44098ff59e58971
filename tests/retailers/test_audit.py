"""The audit chain: whatever is done to it afterwards shows."""

from __future__ import annotations

import pytest

from retailers import audit
from retailers.models import AuditEntry, AuditHead
from tests.conftest import People

pytestmark = pytest.mark.django_db


def fill(people: People, count: int = 5) -> None:
    for n in range(count):
        audit.record(brand=people.brand, actor="ops", action="plan approved", subject=people.brand, payload={"n": n})


def test_an_untouched_chain_verifies_and_brands_have_their_own(people: People) -> None:
    fill(people)
    audit.record(brand=people.other, actor="ops", action="x")
    assert audit.verify("acme") == {"chain": "acme", "rows": 5, "broken": None, "why": ""}
    assert audit.verify("globex")["rows"] == 1


@pytest.mark.parametrize("change", [{"actor": "nobody"}, {"payload": {"n": 9}}, {"action": "plan rejected"}])
def test_a_changed_line_is_named(people: People, change: dict[str, object]) -> None:
    fill(people)
    AuditEntry.objects.filter(chain="acme", sequence=3).update(**change)
    assert audit.verify("acme")["broken"] == 3


def test_a_line_taken_out_and_a_tail_cut_off_are_named(people: People) -> None:
    fill(people)
    AuditEntry.objects.filter(chain="acme", sequence=5).delete()
    assert audit.verify("acme")["broken"] == 5
    AuditEntry.objects.filter(chain="acme", sequence=2).delete()
    assert audit.verify("acme")["broken"] == 2


def test_a_rewritten_chain_does_not_fit_a_head_kept_elsewhere(people: People) -> None:
    fill(people)
    kept = AuditHead.objects.values("sequence", "hash").get(chain="acme")
    AuditEntry.objects.filter(chain="acme").delete()
    AuditHead.objects.filter(chain="acme").update(sequence=0, hash=audit.FIRST)
    fill(people)
    assert audit.verify("acme")["broken"] is None
    assert audit.verify("acme", kept)["broken"] == 5

"""The console's rules at every door, and the brand's own codes where personal data is looked for."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.core.management import call_command

from agents import planning
from agents.domain import tools
from agents.models import AgentStep
from retailers import services
from retailers.models import PolicyRule
from tests.conftest import People
from tests.factories import AgentRunFactory, PerformanceMetricFactory, PolicyRuleFactory, SKUFactory

pytestmark = pytest.mark.django_db
TEXT = "Crunchy oats for mornings"


def rule(**facts: Any) -> PolicyRule:
    given = {"code": "OUR-CRUNCH", "network": "instacart", "kind": "lexicon", "spec": {"words": [r"crunch\w*"]}}
    return PolicyRuleFactory(**({**given, "message": "No sounds in headlines.", "brand": None} | facts))


def found(brand: Any = None, text: str = TEXT, network: str = "instacart") -> set[str]:
    return {one.rule for one in services.check_text(text=text, network=network, brand=brand).findings}


def test_a_rule_of_the_console_speaks_at_every_door(people: People, tmp_path: Any) -> None:
    before = services.check_text(text=TEXT, network="instacart").rule_set_version
    rule()
    assert "OUR-CRUNCH" in found()
    assert "OUR-CRUNCH" not in found(network="walmart")
    assert services.check_text(text=TEXT, network="instacart").rule_set_version != before
    said = people.api(people.owner).post("/api/v1/texts/check", {"network": "instacart", "text": TEXT}, format="json")
    assert "OUR-CRUNCH" in said.content.decode()
    cases, out = tmp_path / "cases.jsonl", tmp_path / "out.jsonl"
    cases.write_text(json.dumps({"id": "1", "network": "instacart", "text": TEXT}))
    call_command("check_copy", str(cases), out=str(out))
    assert "OUR-CRUNCH" in out.read_text()
    run = AgentRunFactory(brand=people.brand)
    asked = tools.CheckCopy(text=TEXT, network="instacart")
    assert "OUR-CRUNCH" in json.dumps(planning._check_copy(AgentStep(run=run), asked))


def test_the_newest_version_that_has_begun_holds() -> None:
    rule(severity="warn")
    rule(version=2, severity="block", valid_from=dt.date(2026, 1, 1))
    rule(version=3, severity="needs_proof", valid_from=dt.date(2026, 7, 1), valid_to=dt.date(2026, 8, 1))

    def severity(day: dt.date) -> str:
        held = services.rules_in_force(None, day)
        return next((one.severity for one in held.rules if one.id == "OUR-CRUNCH"), "gone")

    days = [(2025, 12, 31), (2026, 6, 30), (2026, 7, 1), (2026, 8, 1), (2026, 8, 2)]
    assert [severity(dt.date(*day)) for day in days] == ["warn", "block", "needs_proof", "needs_proof", "gone"]


def test_a_shipped_rule_is_retired_by_a_version_that_is_not_active() -> None:
    text = "The best sparkling water"
    assert "AMZ-SUPER" in found(text=text, network="amazon")
    rule(code="AMZ-SUPER", network="amazon", is_active=False)
    assert "AMZ-SUPER" not in found(text=text, network="amazon")


def test_a_brands_rule_is_its_own_and_replaces_no_networks_rule(people: People) -> None:
    rule(brand=people.brand)
    rule(code="AMZ-SUPER", network="amazon", brand=people.brand, is_active=False)
    assert "OUR-CRUNCH" in found(people.brand)
    assert "OUR-CRUNCH" not in found(people.other)
    assert "OUR-CRUNCH" not in found()
    assert "AMZ-SUPER" in found(people.brand, "The best sparkling water", "amazon")
    api = people.api(people.stranger)
    body = {"network": "instacart", "text": TEXT, "brand": str(people.brand.uuid)}
    assert api.post("/api/v1/texts/check", body, format="json").status_code == 400


@pytest.mark.parametrize(
    "facts",
    [
        {"spec": {"words": ["("]}},
        {"kind": "guess"},
        {"network": "nowhere"},
        {"code": ""},
        {"spec": {"words": 3}},
    ],
)
def test_a_rule_that_could_not_be_applied_is_refused_when_it_is_written(facts: dict[str, Any]) -> None:
    row = rule(**facts)
    with pytest.raises(ValidationError):
        row.clean()


def test_a_brands_own_codes_are_never_personal_and_anothers_are(people: People) -> None:
    SKUFactory(brand=people.brand, sku="415-555-0134")
    PerformanceMetricFactory(brand=people.brand, campaign_id="212-555-0143")
    cache.clear()
    text = "Call 415-555-0134 or 212-555-0143"
    assert services.redact(people.brand, text).text == text
    assert "415-555-0134" not in services.redact(people.other, text).text
    asked = {"brand": str(people.brand.uuid), "text": text}
    said = people.api(people.owner).post("/api/v1/texts/redact", asked, format="json")
    assert said.json()["entities"] == []


def test_a_console_rule_takes_nothing_from_a_shipped_rule_in_several_parts() -> None:
    before = found(text="Cereal for tired dads", network="kroger")
    rule()
    assert "KRG-PERSONAL" in before
    assert found(text="Cereal for tired dads", network="kroger") == before

"""Copy: written through the brand's route, checked, repaired, and offered only where it passes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agents import creative, serving
from agents.domain import creative as rules
from agents.domain.briefs import Item
from agents.inference.errors import GenerationFailed
from agents.inference.types import Question, Reply
from agents.models import Generation
from campaigns.models import Recommendation
from feedback.models import ReviewTask
from retailers.domain import policy
from rmn.lib.errors import BadInput
from tests.conftest import People
from tests.factories import AdapterFactory, PolicyRuleFactory, SKUFactory

pytestmark = pytest.mark.django_db
GOOD = ("Sparkling Water, 12 oz, no sugar", "No-sugar Sparkling Water in 12 oz", "Sparkling Water: crisp, 12 oz")


class Scripted:
    """A model server that says what it is told to, in the order it is asked."""

    def __init__(self, *texts: str) -> None:
        self.texts = itertools.cycle(texts)
        self.asked: list[Question] = []

    def generate(self, question: Question) -> Reply:
        self.asked.append(question)
        return Reply(next(self.texts), "stop", question.adapter or "base", "", 10, 8, 0.1)


def wrote(people: People, client: Any, **more: Any) -> list[dict[str, Any]]:
    given = {"product": "Sparkling Water", "feature": "no sugar", "variants": 3} | more
    return creative.write(client, brand=people.brand, retailer=people.retailer, **given)


@pytest.fixture
def water(people: People) -> Any:
    return SKUFactory(brand=people.brand, sku="W-12", name="Sparkling Water", package_size="12 oz")


def test_what_passes_is_offered_once_and_put_before_people(people: People, water: Any) -> None:
    found = wrote(people, Scripted(*GOOD, GOOD[0]), variants=4)
    assert sorted(one["text"] for one in found if one["offered"]) == sorted(GOOD)
    assert Recommendation.objects.count() == 3
    assert Generation.objects.count() == 4
    assert ReviewTask.objects.get().kind == "pair"
    assert found[0]["provenance"]["facts"] == {
        "product": "Sparkling Water", "size": "12 oz", "feature": "no sugar", "from_catalogue": True,
    }  # fmt: skip
    assert set(Recommendation.objects.values_list("sku", flat=True)) == {water.pk}


def test_a_draft_that_breaks_a_rule_is_sent_back_twice_and_then_shown_with_why(people: People, water: Any) -> None:
    client = Scripted("The best Sparkling Water ever for $2.99!!!")
    (said,) = wrote(people, client, variants=1)
    assert len(client.asked) == 3
    assert "cannot be used" in client.asked[1].messages[-1]["content"]
    assert not said["offered"]
    assert said["verdict"] == "block"
    assert said["provenance"]["repaired"] == 2
    assert "BRIEF-FACT" in {one["rule"] for one in said["findings"]}
    assert not Recommendation.objects.exists()


def test_a_repair_that_works_is_offered(people: People, water: Any) -> None:
    (said,) = wrote(people, Scripted("Water for 99 cents", GOOD[0]), variants=1)
    assert said["offered"]
    assert said["provenance"]["repaired"] == 1


def test_a_rule_of_the_brands_own_is_obeyed(people: People, water: Any) -> None:
    PolicyRuleFactory(brand=people.brand, code="OURS", spec={"words": ["sparkling"]})
    assert not any(one["offered"] for one in wrote(people, Scripted(*GOOD)))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Sparkling Water with 30 percent more fizz", "BRIEF-FACT"),
        ("Sparkling Water " * 8, "BRIEF-LENGTH"),
        ("Fresh tea for long mornings", "BRIEF-PRODUCT"),
    ],
)
def test_what_the_facts_do_not_hold_is_a_finding(text: str, rule: str) -> None:
    item = Item("Sparkling Water", "ACME", "12 oz", "no sugar", ("instacart",))
    verdict, found = rules.findings(text.strip(), item, policy.check)
    assert verdict == "block"
    assert rule in {one["rule"] for one in found}


def test_wishes_that_cannot_be_met_are_named(people: People) -> None:
    for wish in ({"product": " "}, {"variants": 0}, {"variants": 99}, {"product": "x" * 300}):
        with pytest.raises(BadInput):
            wrote(people, Scripted("x"), **wish)
    people.retailer.network = "nowhere"
    with pytest.raises(BadInput, match="nowhere"):
        wrote(people, Scripted("x"))


def test_the_api_writes_for_ones_own_brand_alone(
    people: People, water: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def scripted(*_: Any) -> Iterator[Scripted]:
        yield Scripted(*GOOD)

    body = {"brand": str(people.brand.uuid), "retailer": str(people.retailer.uuid), "product": "W-12", "variants": 2}
    settings.RMN_INFERENCE_URL = ""
    missing = people.api(people.owner).post("/api/v1/texts/write", body, format="json")
    assert missing.status_code >= 400
    assert "RMN_INFERENCE_URL" in missing.content.decode()
    settings.RMN_INFERENCE_URL = "http://127.0.0.1:9"
    monkeypatch.setattr(creative.serving, "inference", scripted)
    said = people.api(people.owner).post("/api/v1/texts/write", body, format="json")
    assert said.status_code == 200, said.content
    assert {one["text"] for one in said.json()["variants"]} == set(GOOD[:2])
    assert people.api(people.stranger).post("/api/v1/texts/write", body, format="json").status_code == 400
    assert Recommendation.objects.filter(brand=people.other).count() == 0


@pytest.mark.model
def test_the_command_writes_with_the_real_model(people: People, water: Any, settings: Any, tmp_path: Any) -> None:
    from django.core.management import call_command

    if not (settings.RMN_BASE_MODEL / "config.json").exists():
        pytest.skip("no base model")
    out = tmp_path / "copy.json"
    call_command(
        "write_copy",
        brand="acme",
        retailer="retailer-abc",
        product="W-12",
        feature="no sugar",
        variants=2,
        out=str(out),
    )
    found = json.loads(out.read_text())["variants"]
    assert len(found) == 2
    for one in found:
        assert set(one) == {"text", "verdict", "findings", "offered", "provenance"}
        assert one["offered"] == (one["verdict"] == "pass") or one["text"] == found[0]["text"]


def test_in_a_canary_both_versions_write_and_people_compare_them_blind(people: People, water: Any) -> None:
    champion, challenger = (AdapterFactory(brand=people.brand, retailer=None) for _ in range(2))
    serving.move(champion, "champion")
    serving.move(challenger, "challenger", share=1.0)
    wrote(people, Scripted(*GOOD), variants=2)
    assert set(Generation.objects.values_list("alias", "adapter_digest")) == {
        ("champion", champion.digest),
        ("challenger", challenger.digest),
    }
    task = ReviewTask.objects.get()
    assert {task.recommendation.adapter_digest, task.other.adapter_digest} == {champion.digest, challenger.digest}


def test_one_product_always_meets_the_same_version(people: People, water: Any) -> None:
    serving.move(AdapterFactory(brand=people.brand, retailer=None), "challenger", share=0.5)
    for product in ("Sparkling Water", "Still Water", "Lemonade", "Iced Tea", "Cola"):
        seen = []
        for _ in range(2):
            Generation.objects.all().delete()
            wrote(people, Scripted(*GOOD), product=product, variants=1)
            seen.append(Generation.objects.get().adapter_digest)
        assert seen[0] == seen[1]


def test_a_shadow_writes_along_and_nobody_sees_it(people: People, water: Any) -> None:
    shadow = AdapterFactory(brand=people.brand, retailer=None)
    serving.move(shadow, "shadow")
    found = wrote(people, Scripted(GOOD[0]), variants=1)
    assert len(found) == 1
    hidden = Generation.objects.get(alias="shadow")
    assert (hidden.adapter_digest, hidden.verdict, hidden.recommendation) == (shadow.digest, "pass", None)
    assert Recommendation.objects.count() == 1


def test_a_shadow_that_fails_harms_nobody(people: People, water: Any) -> None:
    shadow = AdapterFactory(brand=people.brand, retailer=None)
    serving.move(shadow, "shadow")

    class Broken(Scripted):
        def generate(self, question: Question) -> Reply:
            if question.adapter == shadow.digest:
                raise GenerationFailed("out of memory")
            return super().generate(question)

    assert len(wrote(people, Broken(*GOOD), variants=2)) == 2
    assert not Generation.objects.filter(alias="shadow").exists()

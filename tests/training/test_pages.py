"""The training screens: who may see which, what one click starts, and what the cards say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agents.models import Adapter
from tests import factories
from tests.browser.test_pages import CARD, COMPARED, CURVE, ESTIMATE
from tests.conftest import People
from training.models import Lesson, Withdrawal

pytestmark = pytest.mark.django_db


@pytest.fixture
def cards(people: People) -> dict[str, str]:
    """One of each at the people's brand; name to address."""
    where = {"brand": people.brand, "retailer": people.retailer}
    adapter = factories.AdapterFactory(**where, manifest={"method": "dpo", "base_model": "SmolLM2", "final_loss": 0.4})
    data = factories.DatasetFactory(**where, status="succeeded", digest="d" * 64, manifest=CARD)
    run = factories.TrainingRunFactory(
        **where, dataset=data, adapter=adapter, status="failed", stopped_by="length_drift", metrics=CURVE, estimate=ESTIMATE
    )  # fmt: skip
    judged = factories.EvaluationFactory(
        **where, candidate=adapter, status="succeeded", verdict="better", result=COMPARED
    )
    lesson = factories.LessonFactory(**where, found=["Imitation: 40 rows"])
    return {
        "lesson": f"/training/lessons/{lesson.pk}",
        "data": f"/training/data/{data.pk}",
        "run": f"/training/runs/{run.pk}",
        "evaluation": f"/training/evaluations/{judged.pk}",
        "card": f"/adapters/{adapter.uuid}/card.md",
    }


def test_owner_and_colleague_see_the_cards_and_a_stranger_finds_nothing(people: People, cards: dict[str, str]) -> None:
    for name, path in cards.items():
        for person in (people.owner, people.colleague, people.ops, people.narrowed):
            assert people.web(person).get(path).status_code == 200, (name, person)
        assert people.web(people.stranger).get(path).status_code == 404, name
    for path in ("/training/", "/training/runs/", "/training/data/", "/training/evaluations/"):
        page = people.web(people.stranger).get(path).content.decode()
        assert not any(one.rpartition("/")[2] in page for one in cards.values())


def text_of(people: People, path: str) -> str:
    return people.web(people.owner).get(path).content.decode()


def test_the_cards_say_what_a_reader_must_know(people: People, cards: dict[str, str]) -> None:
    data = text_of(people, cards["data"])
    for words in (
        "Places masked",
        "11: no winner",
        "hardly a taste",
        "30 of origin: human",
        "Rows held out, by person",
    ):
        assert words in data, words
    run = text_of(people, cards["run"])
    for words in ("Stopped by: length_drift", "length was learnt, not taste", "0.14 USD", "The preferred text leads"):
        assert words in run, words
    judged = text_of(people, cards["evaluation"])
    for words in ("between 60 % and 100 %", "71 %", "+30.0", "Passed before, fails now (1)", "Failed before, passes now (2)", "AMZ-SUPER"):  # fmt: skip
        assert words in judged, words
    page = people.web(people.owner).get(f"{cards['evaluation']}?picture=pass-rates.csv")
    assert page["Content-Type"].startswith("text/csv")


def test_a_model_card_is_whole_and_opens_no_markup_of_others(people: People, cards: dict[str, str]) -> None:
    answer = people.web(people.owner).get(cards["card"])
    text = answer.content.decode()
    assert "attachment" in answer["Content-Disposition"]
    for words in ("base_model: SmolLM2", "40 rows (30 human, 23 rule)", "masked in 3 places", "| passes | 90 % | 60 % | +30.0 |", "## Where it fails"):  # fmt: skip
        assert words in text, words
    from training.domain.cards import _line

    assert _line("a | b\n<script>") == "a \\| b \\<script>"


def test_a_running_training_shows_its_loss_and_what_it_has_cost_so_far(people: People) -> None:
    from django.utils import timezone

    run = factories.TrainingRunFactory(
        brand=people.brand, retailer=people.retailer, status="running", metrics=CURVE, estimate={**ESTIMATE, "cost": 1.2, "minutes": 6.0, "currency": "USD"},
        started_at=timezone.now() - timedelta(minutes=10), lease_until=timezone.now() + timedelta(minutes=1),
    )  # fmt: skip
    page = text_of(people, f"/training/runs/{run.pk}")
    assert 'hx-select="#live"' in page
    assert "so far" in page
    assert "2.0" in page.partition("Cost")[2]
    assert "The loss went from" in page
    run.status, run.finished_at = "succeeded", timezone.now()
    run.save()
    assert 'hx-select="#live"' not in text_of(people, f"/training/runs/{run.pk}")


def test_one_click_starts_a_lesson_for_those_who_may(people: People) -> None:
    wish = {"brand": "acme", "task": "creative"}
    people.web(people.owner).post("/training/", wish)
    assert not Lesson.objects.exists()
    answer = people.web(people.colleague).post("/training/", wish)
    run = Lesson.objects.get()
    assert answer["Location"] == f"/training/lessons/{run.pk}"
    assert run.requested_by == people.colleague
    assert people.web(people.colleague).post("/training/", {**wish, "brand": "globex"}).status_code == 422
    assert Lesson.objects.count() == 1


def test_the_night_says_what_it_will_do(people: People) -> None:
    factories.FeedbackFactory(brand=people.brand, retailer=people.retailer, by=people.owner)
    page = people.web(people.owner).get("/training/").content.decode()
    assert "a lesson needs 20" in page
    assert "a lesson needs 20" not in people.web(people.stranger).get("/training/").content.decode()


def test_withdrawals_are_shown_before_they_are_done_and_only_ops_do_them(people: People, cards: dict[str, str]) -> None:
    wish = {"person": "owner", "brand": "acme", "reason": "left"}
    assert people.web(people.colleague).post("/training/withdrawals/", {**wish, "step": "withdraw"}).status_code == 302
    assert not Withdrawal.objects.exists()
    ops = people.web(people.ops)
    shown = ops.post("/training/withdrawals/", {**wish, "step": "look"})
    assert "What rests on these 0 answers" in shown.content.decode()
    assert not Withdrawal.objects.exists()
    assert ops.post("/training/withdrawals/", {**wish, "person": "nobody"}).status_code == 422
    assert ops.post("/training/withdrawals/", {"reason": "left", "step": "withdraw"}).status_code == 422
    answer = ops.post("/training/withdrawals/", {**wish, "step": "withdraw"})
    run = Withdrawal.objects.get()
    assert answer["Location"] == f"/training/withdrawals/{run.pk}"
    assert ops.get(answer["Location"]).status_code == 200
    assert people.web(people.stranger).get(answer["Location"]).status_code == 404


def test_a_lesson_is_one_post_in_the_api(people: People) -> None:
    body: dict[str, Any] = {"brand": str(people.brand.uuid), "task": "creative"}
    assert people.api(people.owner).post("/api/v1/lessons/", body, format="json").status_code == 403
    assert people.api(people.colleague).post("/api/v1/lessons/", body, format="json").status_code == 202
    assert people.api(people.stranger).post("/api/v1/lessons/", body, format="json").status_code in (400, 403, 404)
    assert Lesson.objects.count() == 1
    assert not Adapter.objects.exists()

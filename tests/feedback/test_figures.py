"""Figures over many answers: the same whether they were counted in the background or just now."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents import serving
from feedback import figures, services
from feedback.answers import Filters
from feedback.domain import ranking
from feedback.models import AnswerCount, CountedAnswers, Feedback, ReviewTask
from tests.conftest import People
from tests.factories import AdapterFactory, FeedbackFactory, RecommendationFactory, ReviewTaskFactory

pytestmark = pytest.mark.django_db
COUNTED = ("total", "human", "by_kind", "by_task", "by_origin", "outcomes", "approval", "rating", "tasks", "weeks")


def told(people: People, filters: Filters = Filters()) -> dict[str, Any]:  # noqa: B008  # frozen
    found = figures.figures(people.owner, people.brand, filters)
    return {name: found[name] for name in COUNTED}


def test_what_was_counted_and_what_came_or_went_since_make_the_same_figures(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "SETTLED", timedelta(0))
    one, two = (RecommendationFactory(brand=people.brand, adapter_digest=letter * 64) for letter in "ab")
    FeedbackFactory(brand=people.other)
    for days in (0, 8, 40):
        rows = [
            FeedbackFactory(brand=people.brand, recommendation=one, adapter_digest="a" * 64, by=people.owner),
            FeedbackFactory(brand=people.brand, recommendation=two, kind="rating", value=4, adapter_digest="b" * 64),
            FeedbackFactory(brand=people.brand, recommendation=one, other=two, kind="pair", outcome="a", value=None),
        ]
        Feedback.objects.filter(pk__in=[row.pk for row in rows]).update(
            created_at=timezone.now() - timedelta(days=days)
        )
    first = Feedback.objects.filter(by=people.owner).first()
    services.undo(first, people.owner)
    figures.count_up(people.brand)
    services.undo(Feedback.objects.filter(by=people.owner, undone_at=None).first(), people.owner)
    FeedbackFactory(brand=people.brand, recommendation=two, value=-1, adapter_digest="b" * 64)
    since = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=30)
    wishes = [Filters(), Filters(adapter="a" * 64), Filters(task="creative", since=since), Filters(kind="pair")]
    for withdrawn in (False, True):
        if withdrawn:
            two.status = "withdrawn"
            two.save()
        counted = [told(people, wish) for wish in wishes]
        figures.count_up(people.brand)
        again = [told(people, wish) for wish in wishes]
        kept = list(AnswerCount.objects.values()), list(CountedAnswers.objects.values())
        AnswerCount.objects.all().delete()
        CountedAnswers.objects.all().delete()
        assert counted == again == [told(people, wish) for wish in wishes]
        AnswerCount.objects.bulk_create(AnswerCount(**row) for row in kept[0])
        CountedAnswers.objects.bulk_create(CountedAnswers(**row) for row in kept[1])
    assert counted[0]["total"] == 1  # the others were taken back, or judged what was withdrawn


def test_drafts_withdrawn_or_back_on_offer_since_the_count_are_seen_at_once_and_counted_next(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "SETTLED", timedelta(0))
    one, two = (RecommendationFactory(brand=people.brand, adapter_digest=letter * 64) for letter in "ab")
    for draft in (one, one, two):
        FeedbackFactory(brand=people.brand, recommendation=draft, by=people.owner, adapter_digest=draft.adapter_digest)
    FeedbackFactory(brand=people.brand, recommendation=two, other=one, kind="pair", outcome="a", value=None)
    figures.count_up(people.brand)
    totals = []
    for status in ("withdrawn", "offered"):
        one.status = status
        one.save()
        totals += [told(people)["total"]]
        assert figures.refresh() == 1
        assert figures.refresh() == 0
        totals += [told(people)["total"]]
        if status == "withdrawn":
            services.undo(Feedback.objects.filter(recommendation=one).last(), people.owner)
            totals += [told(people)["total"]]
    assert totals == [1, 1, 1, 3, 3]
    assert told(people, Filters(adapter="b" * 64))["total"] == 1


def test_only_brands_with_many_answers_are_counted_in_the_background(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    FeedbackFactory(brand=people.brand)
    assert figures.refresh() == 0
    monkeypatch.setattr(figures, "MANY", 0)
    assert figures.refresh() == 1
    assert CountedAnswers.objects.get().brand == people.brand


def test_a_withdrawn_adapters_drafts_and_what_was_said_of_them_count_no_more(people: People) -> None:
    adapter = AdapterFactory(brand=people.brand)
    draft = RecommendationFactory(brand=people.brand, adapter_digest=adapter.digest, text="Fresh")
    services.give(by=people.owner, recommendation=draft, kind="correction", text="Fresh water for all")
    question = ReviewTaskFactory(brand=people.brand, recommendation=draft, other=None, kind="thumb")
    assert told(people)["total"] == 1
    serving.revoke({adapter.digest}, "tried")
    assert told(people)["total"] == 0
    exported = people.api(people.owner).get("/api/v1/feedback/export-dpo/")
    assert b"".join(exported.streaming_content) == b""
    assert question not in services.waiting_for(people.owner, brand=people.brand)


def test_the_figures_go_along_as_a_table(people: People) -> None:
    services.answer(ReviewTaskFactory(brand=people.brand), by=people.owner, outcome="a")
    page = people.web(people.owner).get("/dashboard?export=csv")
    lines = b"".join(page.streaming_content).decode().splitlines()
    assert lines[0] == "section,what,estimate,low,high,n"
    assert "totals,answers,1,,," in lines


def test_the_least_known_contest_is_asked_about_first(people: People) -> None:
    def pair(one: str, other: str) -> ReviewTask:
        a, b = (RecommendationFactory(brand=people.brand, adapter_digest=digest * 64) for digest in (one, other))
        question: ReviewTask = ReviewTaskFactory(brand=people.brand, recommendation=a, other=b)
        return question

    for _ in range(3):
        services.answer(pair("a", "b"), by=people.colleague, outcome="a")
    services.answer(pair("a", "c"), by=people.colleague, outcome="a")
    known, turned, fair, new = pair("a", "b"), pair("b", "a"), pair("a", "c"), pair("b", "c")
    waiting = services.waiting_for(people.owner, brand=people.brand, task="creative")
    mine = [question for question in waiting if question in (known, turned, fair, new)]
    assert mine == [new, fair, known, turned]


def test_uncertainty_falls_with_votes_and_with_a_clear_lead() -> None:
    assert ranking.uncertainty(0, 0) == pytest.approx(1.0)
    assert ranking.uncertainty(5, 5) > ranking.uncertainty(10, 0) > ranking.uncertainty(100, 0)
    assert ranking.uncertainty(50, 50) < ranking.uncertainty(5, 5)


def test_after_an_answer_its_giver_hears_how_often_the_team_said_the_same(people: People) -> None:
    for mine, theirs in (("a", "a"), ("a", "b")):
        question = ReviewTaskFactory(brand=people.brand, votes_wanted=2)
        services.answer(question, by=people.colleague, outcome=theirs)
        services.answer(question, by=people.owner, outcome=mine)
    alone = ReviewTaskFactory(brand=people.brand)
    services.answer(alone, by=people.owner, outcome="a")
    assert services.team_says(people.owner, people.brand, "creative") == (1, 2)


def test_the_better_of_a_pair_can_be_corrected_at_once(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand)
    row = services.answer(question, by=people.owner, outcome="b")
    client = people.web(people.owner)
    page = client.post(f"/feedback/answers/{row.uuid}/correct", follow=True).content.decode()
    assert "How should it read?" in page
    assert question.other.text in page
    assert ReviewTask.objects.get(kind="correction").recommendation == question.other
    assert people.web(people.colleague).post(f"/feedback/answers/{row.uuid}/correct").status_code == 404
    tie = services.answer(ReviewTaskFactory(brand=people.brand), by=people.owner, outcome="tie")
    refused = client.post(f"/feedback/answers/{tie.uuid}/correct", follow=True).content.decode()
    assert "Only the better draft" in refused


def test_leaving_one_tab_does_not_free_what_another_holds(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand)
    client = people.web(people.owner)
    services.reserve(question, by=people.owner)
    question.refresh_from_db()
    held = question.reserved_until
    services.reserve(question, by=people.owner)  # the other tab
    client.post(f"/feedback/questions/{question.uuid}/release", {"until": held.isoformat()})
    question.refresh_from_db()
    assert question.reserved_by == people.owner
    later = question.reserved_until.isoformat()
    assert client.post(f"/feedback/questions/{question.uuid}/release", {"until": later}).status_code == 204
    question.refresh_from_db()
    assert question.reserved_by is None
    assert client.post(f"/feedback/questions/{question.uuid}/release", {"until": "soon"}).status_code == 422


def test_the_difference_is_drawn_while_it_is_typed_and_for_members_alone(people: People) -> None:
    draft = RecommendationFactory(brand=people.brand, text="Water, 12 oz, $1.99")
    question = ReviewTaskFactory(brand=people.brand, kind="correction", recommendation=draft, other=None)
    address = f"/feedback/questions/{question.uuid}/difference"
    page = people.web(people.owner).post(address, {"text": "Water, 16 oz, $1.99"}).content.decode()
    assert "<del>12</del><ins>16</ins>" in page
    assert "12 oz went; 16 oz came" in page
    same = people.web(people.owner).post(address, {"text": "Water, 12 oz, $1.99"}).content.decode()
    assert "<ins>" not in same
    assert "Claims changed" not in same
    assert people.web(people.stranger).post(address, {"text": "x"}).status_code == 404

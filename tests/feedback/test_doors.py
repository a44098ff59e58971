"""The way of an answer by the API: given, taken back, counted, exported; and never across a brand's wall."""

from __future__ import annotations

import csv
import json
import re
from typing import Any

import polars as pl
import pytest

from feedback import services, tasks
from feedback.models import Export, Feedback, ReviewTask
from tests.conftest import People
from tests.factories import FeedbackFactory, MembershipFactory, RecommendationFactory, ReviewTaskFactory

pytestmark = pytest.mark.django_db

FEEDBACK = "/api/v1/feedback/"
PAIR = "/api/v1/feedback/preference-pair/"
RAW = {"prompt": "Write a headline", "chosen": "Fresh bread", "rejected": "Best bread ever"}


def draft(people: People, **facts: Any) -> Any:
    return RecommendationFactory(brand=people.brand, retailer=people.retailer, **facts)


def lines(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]


def written(wanted: str, people: People) -> Export:
    run = services.request_export(brand=people.brand, by=people.owner, format=wanted)
    tasks.export(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    return run


def test_the_four_endpoints_of_the_source_document(people: People) -> None:
    api = people.api(people.owner)
    a, b = draft(people), draft(people)
    wish = {"recommendation": str(a.uuid), "kind": "rating", "value": 4, "reasons": ["dull"]}
    assert api.post(FEEDBACK, wish, format="json").status_code == 201
    pair = {"a": str(a.uuid), "b": str(b.uuid), "outcome": "b", "strength": 2}
    assert api.post(PAIR, pair, format="json").status_code == 201
    assert api.post(PAIR, RAW, format="json").status_code == 201
    stats = api.get(f"{FEEDBACK}stats/").json()
    assert stats["total"] == 3
    assert stats["by_kind"] == {"thumb": 0, "rating": 1, "pair": 2, "correction": 0}
    assert stats["rating"]["mean"] == 4
    told = lines(api.get(f"{FEEDBACK}export-dpo/"))
    assert [line["chosen"][0]["content"] for line in told] == [b.text, "Fresh bread"]


@pytest.mark.parametrize(
    ("value", "kept"), [(1, 1), (-1, -1), (True, 1), (False, -1), ("up", 1), ("down", -1), ("1", 1)]
)
def test_a_thumb_may_be_said_in_several_ways(value: Any, kept: int, people: People) -> None:
    wish = {"recommendation": str(draft(people).uuid), "kind": "thumb", "value": value}
    assert people.api(people.owner).post(FEEDBACK, wish, format="json").json()["value"] == kept


@pytest.mark.parametrize(
    "wish",
    [
        {"kind": "thumb", "value": 0},
        {"kind": "thumb"},
        {"kind": "rating", "value": 6},
        {"kind": "rating", "value": 2.5},
        {"kind": "rating", "value": True},
        {"kind": "rating", "value": "many"},
        {"kind": "correction", "text": ""},
        {"kind": "correction", "text": "x" * 1_000_000},
        {"kind": "pair", "value": 1},
        {"kind": "pair", "value": "a"},
        {"kind": "haiku", "value": 1},
        {"kind": "thumb", "value": 1, "reasons": ["x"] * 21},
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(wish: dict[str, Any], people: People) -> None:
    one = draft(people)
    answer = people.api(people.owner).post(FEEDBACK, wish | {"recommendation": str(one.uuid)}, format="json")
    assert answer.status_code in (400, 422)
    assert answer["Content-Type"].startswith("application/problem+json")
    assert not Feedback.objects.exists()


@pytest.mark.parametrize(
    "wish",
    [
        {"prompt": "p", "chosen": "x"},
        {"prompt": "p", "chosen": "x", "rejected": "x "},
        {"prompt": "p", "chosen": "x", "rejected": "\u202e\u0007"},
        {**RAW, "outcome": "a"},
        {},
        {**RAW, "strength": 3},
        {**RAW, "task": "cooking"},
    ],
)
def test_a_preference_that_makes_no_sense_is_refused(wish: dict[str, Any], people: People) -> None:
    answer = people.api(people.owner).post(PAIR, wish, format="json")
    assert answer.status_code in (400, 422), answer.content
    assert not Feedback.objects.exists()


def test_a_draft_is_not_compared_with_itself_nor_across_tasks(people: People) -> None:
    a, b = draft(people), draft(people, task="budgeting")
    for other in (a, b):
        wish = {"a": str(a.uuid), "b": str(other.uuid), "outcome": "a"}
        assert people.api(people.owner).post(PAIR, wish, format="json").status_code == 422


def test_a_correction_that_changes_nothing_is_sent_to_the_thumb(people: People) -> None:
    one = draft(people)
    wish = {"recommendation": str(one.uuid), "kind": "correction", "text": one.text}
    answer = people.api(people.owner).post(FEEDBACK, wish, format="json")
    assert answer.status_code == 422
    assert "thumb up" in answer.json()["detail"]


def test_the_same_key_gives_the_same_answer_and_another_body_is_refused(people: People) -> None:
    api = people.api(people.owner)
    first = api.post(PAIR, RAW, format="json", HTTP_IDEMPOTENCY_KEY="k1")
    again = api.post(PAIR, RAW, format="json", HTTP_IDEMPOTENCY_KEY="k1")
    assert first.json()["id"] == again.json()["id"]
    other = api.post(PAIR, {**RAW, "chosen": "Rye bread"}, format="json", HTTP_IDEMPOTENCY_KEY="k1")
    assert other.status_code == 422
    assert Feedback.objects.count() == 1


def test_many_answers_are_kept_all_or_none(people: People) -> None:
    api, one = people.api(people.owner), draft(people)
    good = {"recommendation": str(one.uuid), "kind": "thumb", "value": 1}
    assert api.post(FEEDBACK, [good, {**good, "value": 7}], format="json").status_code == 400
    assert not Feedback.objects.exists()
    assert len(api.post(FEEDBACK, [good, {**good, "value": -1}], format="json").json()) == 2
    assert api.post(FEEDBACK, [good] * 1001, format="json").status_code == 422


def test_an_answer_knows_which_version_it_judged(people: People) -> None:
    a = draft(people, adapter_digest="a" * 64, prompt_version="v3", sampling={"temperature": 0.6}, prompt_cluster="c")
    b = draft(people, adapter_digest="b" * 64)
    wish = {"a": str(a.uuid), "b": str(b.uuid), "outcome": "tie"}
    people.api(people.owner).post(PAIR, wish, format="json")
    row = Feedback.objects.get()
    assert (row.adapter_digest, row.other_adapter_digest) == ("a" * 64, "b" * 64)
    assert (row.prompt_version, row.sampling, row.prompt_cluster) == ("v3", {"temperature": 0.6}, "c")


def test_who_acts_for_several_brands_names_one(people: People) -> None:
    MembershipFactory(user=people.owner, brand=people.other)
    api = people.api(people.owner)
    answer = api.post(PAIR, RAW, format="json")
    assert answer.status_code == 422
    assert "several" in answer.json()["detail"]
    assert api.post(PAIR, {**RAW, "brand": "globex"}, format="json").json()["brand"] == "globex"


def test_a_stranger_sees_and_changes_nothing_of_the_brand(people: People) -> None:
    one, question = draft(people), ReviewTaskFactory(brand=people.brand)
    row = services.give(by=people.owner, recommendation=one, kind="thumb", value=1)
    api = people.api(people.stranger)
    wish = {"recommendation": str(one.uuid), "kind": "thumb", "value": 1}
    assert api.post(FEEDBACK, wish, format="json").status_code == 400
    assert api.post(f"{FEEDBACK}{row.uuid}/undo/").status_code == 404
    assert api.post(f"/api/v1/review-tasks/{question.uuid}/reserve/").status_code == 404
    assert api.post("/api/v1/exports/", {"brand": "acme"}, format="json").status_code == 400
    assert api.get(f"{FEEDBACK}stats/").json()["total"] == 0
    assert api.get(f"{FEEDBACK}stats/?brand=acme").status_code == 400
    assert lines(api.get(f"{FEEDBACK}export-dpo/")) == []


def test_who_is_narrowed_to_a_retailer_exports_that_retailer_alone(people: People) -> None:
    elsewhere = RecommendationFactory(brand=people.brand)
    for one in (draft(people), elsewhere):
        services.give(by=people.owner, recommendation=one, kind="thumb", value=1)
    answer = people.api(people.narrowed).get(f"{FEEDBACK}export-dpo/?format=trl-unpaired")
    assert len(lines(answer)) == 1


def test_nobody_sees_anothers_answer_before_giving_theirs(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand, votes_wanted=2)
    row = services.answer(question, by=people.owner, outcome="a")

    def seen() -> set[str]:
        return {one["id"] for one in people.api(people.colleague).get(FEEDBACK).json()["results"]}

    assert str(row.uuid) not in seen()
    services.answer(question, by=people.colleague, outcome="b")
    assert str(row.uuid) in seen()


def test_only_the_giver_takes_an_answer_back(people: People) -> None:
    row = services.give(by=people.owner, recommendation=draft(people), kind="thumb", value=1)
    assert people.api(people.colleague).post(f"{FEEDBACK}{row.uuid}/undo/").status_code == 422
    assert people.api(people.owner).post(f"{FEEDBACK}{row.uuid}/undo/").json()["undone_at"]
    assert people.api(people.owner).get(f"{FEEDBACK}stats/").json()["total"] == 0


def test_personal_data_never_reaches_the_table(people: People) -> None:
    raw = {"prompt": "Ask lena@example.org", "chosen": "Call 415-555-0134", "rejected": "no"}
    people.api(people.owner).post(PAIR, raw, format="json")
    row = Feedback.objects.get()
    assert "example.org" not in row.prompt
    assert "555" not in row.chosen


def test_control_and_reversing_characters_are_left_out(people: People) -> None:
    one = draft(people)
    wish = {"recommendation": str(one.uuid), "kind": "correction", "text": "Fresh \u202ewater\x07\r\nfor two"}
    people.api(people.owner).post(FEEDBACK, wish, format="json")
    assert Feedback.objects.get().text == "Fresh water\nfor two"


@pytest.mark.parametrize("wanted", ["trl", "trl-unpaired", "sharegpt", "openai-preference", "csv", "parquet"])
def test_an_export_writes_its_rows_and_seals_them(wanted: str, people: People, settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path
    services.give(by=people.owner, kind="pair", recommendation=draft(people), other=draft(people), outcome="a")
    api = people.api(people.owner)
    answer = api.post("/api/v1/exports/", {"format": wanted}, format="json")
    assert answer.status_code == 202
    key = answer.json()["id"]
    assert api.get(f"/api/v1/exports/{key}/file/").status_code == 404
    run = Export.objects.get()
    tasks.export(str(run.pk), tenant=run.tenant)
    told = api.get(f"/api/v1/exports/{key}/").json()
    assert told["status"] == "succeeded", told
    assert told["rows"] == (2 if wanted == "trl-unpaired" else 1)
    assert len(told["manifest"]["sha256"]) == 64
    assert b"".join(api.get(f"/api/v1/exports/{key}/file/").streaming_content)
    assert people.api(people.stranger).get(f"/api/v1/exports/{key}/file/").status_code == 404
    assert people.web(people.owner).get(f"/feedback/export/{key}/file").status_code == 200
    assert people.web(people.stranger).get(f"/feedback/export/{key}/file").status_code == 404


def test_a_cell_that_a_spreadsheet_would_run_is_escaped(people: People, settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path
    one = draft(people, text="=HYPERLINK(1)")
    services.give(by=people.owner, recommendation=one, kind="thumb", value=1, note="+1")
    run = written("csv", people)
    assert run.path is not None
    with run.path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["text_a"].startswith("'=")
    assert row["note"].startswith("'+")


def test_a_table_keeps_numbers_as_numbers(people: People, settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path
    services.give(by=people.owner, recommendation=draft(people), kind="rating", value=4, reasons=["dull"])
    run = written("parquet", people)
    assert run.path is not None
    (row,) = pl.read_parquet(run.path).to_dicts()
    assert (row["value"], row["reasons"], row["kind"]) == (4, ["dull"], "rating")


def test_gold_repeats_and_what_was_taken_back_or_withdrawn_are_not_exported(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand)
    services.answer(question, by=people.owner, outcome="a")
    for extra in (
        ReviewTaskFactory(brand=people.brand, is_gold=True, expected="a"),
        ReviewTaskFactory(brand=people.brand, repeats=question),
    ):
        services.answer(extra, by=people.owner, outcome="a")
    services.undo(services.answer(ReviewTaskFactory(brand=people.brand), by=people.owner, outcome="a"), people.owner)
    gone = services.answer(ReviewTaskFactory(brand=people.brand), by=people.owner, outcome="a")
    gone.other.status = "withdrawn"
    gone.other.save()
    told = lines(people.api(people.owner).get(f"{FEEDBACK}export-dpo/"))
    assert [line["chosen"][0]["content"] for line in told] == [question.recommendation.text]


def test_least_agreement_keeps_the_answers_of_the_many(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand, votes_wanted=3)
    for person, outcome in ((people.owner, "a"), (people.colleague, "a"), (people.ops, "b")):
        services.answer(question, by=person, outcome=outcome)
    services.answer(ReviewTaskFactory(brand=people.brand), by=people.owner, outcome="a")
    api = people.api(people.owner)
    assert len(lines(api.get(f"{FEEDBACK}export-dpo/"))) == 4
    assert len(lines(api.get(f"{FEEDBACK}export-dpo/?min_agreement=0.6"))) == 2
    assert lines(api.get(f"{FEEDBACK}export-dpo/?min_agreement=0.9")) == []


def test_a_filter_that_is_none_is_refused(people: People) -> None:
    api = people.api(people.owner)
    for query in ("task=cooking", "since=yesterday", "min_agreement=2", "adapter=zzz", "brand=nobody"):
        assert api.get(f"{FEEDBACK}stats/?{query}").status_code == 400, query
    assert api.get(f"{FEEDBACK}export-dpo/?format=xml").status_code == 422


def test_figures_tell_who_is_better_and_how_many_votes_are_missing(people: People) -> None:
    for number in range(30):
        a = draft(people, adapter_digest="a" * 64, text=f"A {number}")
        b = draft(people, adapter_digest="b" * 64, text=f"B {number} longer")
        outcome = "b" if number % 5 == 0 else "a"
        FeedbackFactory(
            brand=people.brand,
            kind="pair",
            value=None,
            recommendation=a,
            other=b,
            outcome=outcome,
            adapter_digest="a" * 64,
            other_adapter_digest="b" * 64,
            by=people.owner,
            shown_first="a",
        )
    found = people.api(people.owner).get(f"{FEEDBACK}stats/").json()
    decision = found["adapters"]["decision"]
    assert (decision["leader"], decision["n"], decision["more_votes"]) == ("a" * 12, 30, 0)
    assert decision["win_rate"] == pytest.approx(24 / 30)
    assert found["adapters"]["ranking"]["order"][0] == "a" * 12
    assert found["first_side"]["share"] == pytest.approx(24 / 30)
    assert found["first_side"]["uneven"]
    assert found["longer_text"]["share"] == pytest.approx(6 / 30)


def test_agreement_compares_people_on_the_same_pair_whichever_stood_as_a(people: People) -> None:
    for number in range(6):
        a, b = draft(people, text=f"A {number}"), draft(people, text=f"B {number}")
        word = "a" if number % 2 else "b"
        services.give(by=people.owner, kind="pair", recommendation=a, other=b, outcome=word)
        turned = {"a": "b", "b": "a"}[word]
        services.give(by=people.colleague, kind="pair", recommendation=b, other=a, outcome=turned)
    found = people.api(people.owner).get(f"{FEEDBACK}stats/").json()["agreement"]["pair"]
    assert found["questions"] == 6
    assert found["percent_agreement"]["estimate"] == 1
    assert found["alpha_nominal"]["estimate"] == pytest.approx(1)
    assert found["cohen_kappa"] == [{"n": 6, "kappa": pytest.approx(1)}]
    web = people.web(people.owner)
    assert "Cohen's kappa of the two who share most (6) is 1" in web.get("/dashboard").content.decode()
    table = b"".join(web.get("/dashboard?export=csv").streaming_content).decode()
    assert re.search(r'agreement on pair,"cohen_kappa of two readers, 1",1(\.0)?,,,6', table)


def test_a_question_can_be_put_reserved_and_let_go(people: People) -> None:
    api = people.api(people.owner)
    wish = {"recommendation": str(draft(people).uuid), "kind": "rating", "votes_wanted": 2, "priority": 3}
    key = api.post("/api/v1/review-tasks/", wish, format="json").json()["id"]
    assert api.post(f"/api/v1/review-tasks/{key}/reserve/").json()["reserved_by"] == "owner"
    taken = people.api(people.colleague).post(f"/api/v1/review-tasks/{key}/reserve/")
    assert taken.status_code == 409
    assert api.post(f"/api/v1/review-tasks/{key}/release/").json()["reserved_by"] is None
    assert ReviewTask.objects.get().priority == 3
    lonely = {"recommendation": str(draft(people).uuid), "kind": "pair"}
    assert api.post("/api/v1/review-tasks/", lonely, format="json").status_code == 422

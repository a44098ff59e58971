"""The review screens as people use them, without script: shown, answered, skipped, taken back, counted."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from feedback import services
from feedback.models import Feedback, ReviewTask
from tests.conftest import People
from tests.factories import BudgetPlanFactory, RecommendationFactory, ReviewTaskFactory, SKUFactory

pytestmark = pytest.mark.django_db

HERE = "/feedback/acme/creative/"
MOST_QUERIES = 20  # the session and the tenant's scope among them, savepoints not


def showing(page: Any) -> str:
    found = re.search(r'name="showing" value="([^"]+)"', page.content.decode())
    assert found is not None, page.content.decode()[:2000]
    return found[1]


def say(client: Any, answer: str, page: Any = None, address: str = HERE, **more: Any) -> Any:
    """Answer the question on the page, and come to the next one."""
    page = page or client.get(address)
    return client.post(address, {"showing": showing(page), "answer": answer, **more}, follow=True)


def one_draft(people: People, kind: str = "rating", **facts: Any) -> ReviewTask:
    draft = RecommendationFactory(brand=people.brand, **facts)
    return ReviewTaskFactory(brand=people.brand, kind=kind, recommendation=draft, other=None)


def test_a_pair_is_judged_with_its_side_recorded_and_taken_back(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand)
    client = people.web(people.owner)
    page = client.get(HERE)
    assert "Which is better?" in page.content.decode()
    after = say(client, "first!", page, reasons=["dull"], note="flat")
    row = Feedback.objects.get()
    assert row.outcome == row.shown_first
    assert (row.strength, row.reasons, row.note, row.by) == (2, ["dull"], "flat", people.owner)
    assert row.seconds is not None
    question.refresh_from_db()
    assert question.status == ReviewTask.Status.DONE
    assert "Kept: A much better" in after.content.decode()
    shown = client.post(f"/feedback/answers/{row.uuid}/undo", follow=True).content.decode()
    row.refresh_from_db()
    question.refresh_from_db()
    assert row.undone_at is not None
    assert question.status == ReviewTask.Status.OPEN
    assert "You had said: <b>A much better</b>" in shown
    assert 'value="dull" checked' in shown


@pytest.mark.parametrize(
    ("said", "outcome", "strength"),
    [
        ("first!", "shown", 2),
        ("first", "shown", 1),
        ("tie", "tie", 1),
        ("second", "hidden", 1),
        ("second!", "hidden", 2),
        ("both_bad", "both_bad", 1),
    ],
)
def test_every_button_means_what_it_says_whichever_side_stood_first(
    said: str, outcome: str, strength: int, people: People
) -> None:
    client = people.web(people.owner)
    firsts = set()
    for _ in range(12):
        ReviewTaskFactory(brand=people.brand)
        say(client, said)
        row = Feedback.objects.first()
        assert row is not None
        firsts.add(row.shown_first)
        wanted = {"shown": row.shown_first, "hidden": {"a": "b", "b": "a"}[row.shown_first]}.get(outcome, outcome)
        assert (row.outcome, row.strength) == (wanted, strength)
    assert firsts == {"a", "b"}


def test_nothing_on_a_pair_hints_at_its_author(people: People) -> None:
    a = RecommendationFactory(
        brand=people.brand, adapter_digest="f00d" * 16, model="champion-7b", title="From champion"
    )
    b = RecommendationFactory(brand=people.brand, source="person", title="By hand")
    ReviewTaskFactory(brand=people.brand, recommendation=a, other=b)
    page = people.web(people.owner).get(HERE).content.decode()
    for word in ("f00d", "champion", "By hand", str(a.uuid), str(b.uuid)):
        assert word not in page


def test_stars_thumbs_and_wording_are_kept(people: People) -> None:
    client = people.web(people.owner)
    for kind, said, kept in (
        ("rating", "4", ("rating", 4)),
        ("thumb", "down", ("thumb", -1)),
        ("correction", "up", ("thumb", 1)),
    ):
        one_draft(people, kind)
        say(client, said)
        row = Feedback.objects.first()
        assert row is not None
        assert (row.kind, row.value) == kept


def test_a_correction_tells_which_claims_changed(people: People) -> None:
    SKUFactory(brand=people.brand, name="Spring water")
    one_draft(people, "correction", text="Spring water, 12 oz, now $1.99")
    page = say(people.web(people.owner), "correct", text="Spring water, 16 oz, now $1.99", reasons=["fact"])
    assert "Claims changed: 12 oz went; 16 oz came." in page.content.decode()
    assert Feedback.objects.get().reasons == ["fact"]


def test_a_better_wording_may_be_given_where_stars_were_asked(people: People) -> None:
    question = one_draft(people, text="Watr for all")
    say(people.web(people.owner), "correct", text="Water for all")
    assert (Feedback.objects.get().kind, Feedback.objects.get().text) == ("correction", "Water for all")
    question.refresh_from_db()
    assert question.status == ReviewTask.Status.DONE


def test_what_cannot_be_kept_is_said_and_what_was_typed_stays(people: People) -> None:
    one_draft(people, "correction", text="Fresh water")
    client = people.web(people.owner)
    same = say(client, "correct", text="Fresh water", note="hm")
    assert same.status_code == 422
    assert "nothing was changed" in same.content.decode()
    assert 'value="hm"' in same.content.decode()
    long = say(client, "correct", text="x" * 1_000_000)
    assert long.status_code == 422
    assert "1000000 characters long" in long.content.decode()
    assert say(client, "nonsense").status_code == 422
    assert not Feedback.objects.exists()


def test_a_second_click_or_another_tab_changes_nothing(people: People) -> None:
    ReviewTaskFactory(brand=people.brand)
    client = people.web(people.owner)
    page = client.get(HERE)
    other_tab = client.get(HERE)
    say(client, "first", page)
    again = say(client, "second!", other_tab)
    assert "your first answer stands" in again.content.decode()
    assert Feedback.objects.count() == 1


def test_an_answer_after_the_reservation_ran_out_is_kept(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand)
    client = people.web(people.owner)
    page = client.get(HERE)
    ReviewTask.objects.update(reserved_until=timezone.now() - timedelta(minutes=1))
    assert services.next_task(by=people.colleague, brand=people.brand, task="creative") == question
    say(client, "tie", page)
    assert Feedback.objects.get().by == people.owner
    question.refresh_from_db()
    assert question.reserved_by == people.colleague


def test_a_forged_or_foreign_showing_is_refused(people: People) -> None:
    client = people.web(people.owner)
    ReviewTaskFactory(brand=people.other)
    theirs = people.web(people.stranger).get("/feedback/globex/creative/")
    assert client.post(HERE, {"showing": showing(theirs), "answer": "first"}).status_code == 404
    forged = client.post(HERE, {"showing": "forged", "answer": "first"}, follow=True)
    assert "too old" in forged.content.decode()
    assert not Feedback.objects.exists()


def test_a_question_withdrawn_meanwhile_is_said(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand)
    client = people.web(people.owner)
    page = client.get(HERE)
    ReviewTask.objects.filter(pk=question.pk).update(status="withdrawn")
    assert "withdrawn meanwhile" in say(client, "first", page).content.decode()
    assert not Feedback.objects.exists()


def test_a_skipped_question_comes_last_and_the_skip_can_be_taken_back(people: People) -> None:
    urgent, other = ReviewTaskFactory(brand=people.brand, priority=5), ReviewTaskFactory(brand=people.brand)
    client = people.web(people.owner)
    page = say(client, "skip")
    assert "Skipped" in page.content.decode()
    urgent.refresh_from_db()
    assert urgent.reserved_by is None
    assert str(other.uuid) in page.content.decode()
    back = client.post(HERE, {"unskip": str(urgent.uuid)}, follow=True)
    assert str(urgent.uuid) in back.content.decode()
    say(client, "skip")
    last = say(client, "tie")
    assert str(urgent.uuid) in last.content.decode()


def test_htmx_gets_the_next_question_with_the_answer(people: People) -> None:
    one, two = ReviewTaskFactory(brand=people.brand, priority=2), ReviewTaskFactory(brand=people.brand)
    client = people.web(people.owner)
    page = client.get(HERE)
    assert str(one.uuid) in page.content.decode()
    answer = client.post(HERE, {"showing": showing(page), "answer": "tie"}, headers={"HX-Request": "true"})
    text = answer.content.decode()
    assert answer.status_code == 200
    assert text.lstrip().startswith('<div id="screen"')
    assert str(two.uuid) in text
    row = Feedback.objects.get()
    again = client.post(f"/feedback/answers/{row.uuid}/undo", headers={"HX-Request": "true"}).content.decode()
    assert str(one.uuid) in again


def test_an_answer_and_the_next_question_ask_few_queries_however_many_wait(people: People) -> None:
    """One key a second for minutes: what an answer asks is bounded, whatever was answered and waits."""

    def asked(waiting: int) -> int:
        for _ in range(waiting):
            services.answer(ReviewTaskFactory(brand=people.brand, votes_wanted=2), by=people.colleague, outcome="a")
        page = client.get(HERE)
        with CaptureQueriesContext(connection) as seen:
            answer = client.post(HERE, {"showing": showing(page), "answer": "tie"}, headers={"HX-Request": "true"})
        assert answer.status_code == 200
        return sum(not one["sql"].startswith(("SAVEPOINT", "RELEASE", "BEGIN")) for one in seen)

    client = people.web(people.owner)
    counts = [asked(3), asked(20)]
    assert max(counts) <= MOST_QUERIES, counts
    assert "You said what most others said in 0 of your last 2" in client.get(HERE).content.decode()


# -- the queue


def test_a_reserved_question_goes_to_nobody_else_until_it_is_free(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand)

    def offered(person: Any) -> Any:
        return services.next_task(by=person, brand=people.brand, task="creative")

    assert offered(people.owner) == question
    assert offered(people.colleague) is None
    assert people.web(people.colleague).post(f"/feedback/questions/{question.uuid}/renew").status_code == 409
    assert people.web(people.owner).post(f"/feedback/questions/{question.uuid}/renew").status_code == 200
    assert people.web(people.owner).post(f"/feedback/questions/{question.uuid}/release").status_code == 204
    assert offered(people.colleague) == question


def test_the_most_needed_question_comes_first_and_disputes_before_the_rest(people: People) -> None:
    plain, disputed, urgent = (
        ReviewTaskFactory(brand=people.brand),
        ReviewTaskFactory(brand=people.brand, status="disputed"),
        ReviewTaskFactory(brand=people.brand, priority=1),
    )
    waiting = services.waiting_for(people.owner, brand=people.brand)
    assert list(waiting) == [urgent, disputed, plain]


def test_the_gate_writes_what_it_still_needs(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand)
    assert services.prioritize({question.pk: (7.5, 60)}) == 1
    question.refresh_from_db()
    assert (question.priority, question.votes_for_decision) == (7.5, 60)


def test_two_who_disagree_ask_for_a_third_and_then_it_ends(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand, votes_wanted=2)
    for person, outcome, status in (
        (people.owner, "a", "open"),
        (people.colleague, "b", "disputed"),
        (people.ops, "tie", "done"),
    ):
        services.answer(question, by=person, outcome=outcome)
        question.refresh_from_db()
        assert question.status == status


def test_two_who_agree_are_enough(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand, votes_wanted=2)
    for person in (people.owner, people.colleague):
        services.answer(question, by=person, outcome="a")
    question.refresh_from_db()
    assert question.status == "done"


def test_stars_two_apart_are_a_dispute_and_one_apart_are_not(people: People) -> None:
    for stars, status in (((2, 3), "done"), ((2, 4), "disputed")):
        question = one_draft(people)
        question.votes_wanted = 2
        question.save()
        for person, value in zip((people.owner, people.colleague), stars, strict=True):
            services.answer(question, by=person, value=value)
        question.refresh_from_db()
        assert question.status == status


def test_a_repeat_comes_to_the_same_reader_with_its_sides_swapped(people: People, monkeypatch: Any) -> None:
    monkeypatch.setattr(services, "REPEAT_SHARE", 1.0)
    ReviewTaskFactory(brand=people.brand)
    client = people.web(people.owner)
    say(client, "first")
    repeat = ReviewTask.objects.get(repeats__isnull=False)
    assert services.next_task(by=people.colleague, brand=people.brand, task="creative") is None
    say(client, "second")
    new, old = Feedback.objects.order_by("-pk")
    assert new.review_task == repeat
    assert {new.shown_first, old.shown_first} == {"a", "b"}
    assert new.outcome == old.outcome
    stats = people.api(people.owner).get("/api/v1/feedback/stats/").json()
    assert stats["you"]["consistency"] == {
        "share": 1.0,
        "interval": stats["you"]["consistency"]["interval"],
        "n": 1,
        "uneven": False,
    }
    assert ReviewTask.objects.count() == 2  # a repeat is not repeated


def test_taking_back_the_answer_takes_its_repeat_away(people: People, monkeypatch: Any) -> None:
    monkeypatch.setattr(services, "REPEAT_SHARE", 1.0)
    question = ReviewTaskFactory(brand=people.brand)
    services.undo(services.answer(question, by=people.owner, outcome="a"), people.owner)
    assert list(ReviewTask.objects.all()) == [question]


def test_drafts_on_offer_become_questions_once(people: People) -> None:
    for number in range(4):
        RecommendationFactory(brand=people.brand, text=f"Water {number}")
    RecommendationFactory(brand=people.brand, text="Gone", status="withdrawn")
    wish = {"by": people.owner, "brand": people.brand, "task": "creative"}
    assert services.fill_queue(**wish, kind="pair") == 2
    assert services.fill_queue(**wish, kind="rating") == 4
    assert services.fill_queue(**wish, kind="rating") == 0
    assert services.fill_queue(**wish, kind="pair") == 2  # other pairs of the same brief
    assert set(ReviewTask.objects.values_list("votes_wanted", flat=True)) == {2}


def test_the_screen_asks_about_drafts_where_nothing_waits(people: People) -> None:
    RecommendationFactory(brand=people.brand, text="Only one")
    client = people.web(people.owner)
    assert "How good is it?" in client.get(HERE).content.decode()
    say(client, "5")
    made = client.post(f"{HERE}ask", {"kind": "thumb"}, follow=True).content.decode()
    assert "Would you use it?" in made
    assert client.post(f"{HERE}ask", {"kind": "haiku"}).status_code == 404


# -- what is shown


def test_a_budget_plan_is_shown_as_its_picture_and_table(people: People) -> None:
    plan = BudgetPlanFactory(
        brand=people.brand, problem={"arms": [{"id": "x/search", "last": 10, "campaign": "Spring", "tactic": "search"}]}
    )
    content = {"allocations": [{"id": "x/search", "spend": 25.0, "expected_sales": 60.0, "marginal_roas": 1.2}]}
    draft = RecommendationFactory(brand=people.brand, task="budgeting", plan=plan, content=content, text="Move it.")
    ReviewTaskFactory(brand=people.brand, task="budgeting", kind="thumb", recommendation=draft, other=None)
    client = people.web(people.owner)
    page = client.get("/feedback/acme/budgeting/").content.decode()
    for word in ("search Spring", "+15", "spec-draft", "The plan moves"):
        assert word in page
    assert client.get("/feedback/acme/budgeting/?picture=draft.svg")["Content-Type"] == "image/svg+xml"


def test_an_experiment_is_shown_as_its_curve(people: People) -> None:
    series = [{"time": f"2026-03-{day:02d}", "observed": 10 + day, "counterfactual": 10} for day in range(1, 9)]
    content = {"result": {"series": series, "verdict": "no_effect", "interval": [-1, 2]}}
    draft = RecommendationFactory(brand=people.brand, task="measurement", content=content)
    ReviewTaskFactory(brand=people.brand, task="measurement", kind="rating", recommendation=draft, other=None)
    page = people.web(people.owner).get("/feedback/acme/measurement/").content.decode()
    assert "what would have been without the ads" in page
    assert "no effect: between -1 and 2" in page


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7|add:7 }}{% debug %}",
    "javascript:alert(1)",
    "</textarea><script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "\u202egnp.exe",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_model_or_a_person_writes_is_never_run(text: str, people: People) -> None:
    draft = RecommendationFactory(brand=people.brand, text=text, prompt=text, title=text)
    other = RecommendationFactory(brand=people.brand, text=text + "!", prompt=text)
    SKUFactory(brand=people.brand, name=text)
    ReviewTaskFactory(brand=people.brand, kind="correction", recommendation=draft, other=None, priority=1)
    ReviewTaskFactory(brand=people.brand, recommendation=draft, other=other)
    client = people.web(people.owner)
    pages = [client.get(HERE), say(client, "correct", text=text + " x", note=text, reasons=[text])]
    pages += [client.get(f"{HERE}{part}") for part in ("answers/", "team/")]
    pages += [client.get("/feedback/statistics/")]
    for page in pages:
        found = page.content.decode()
        for bad in ("<script>alert", "<img src=x", "<svg onload", "</textarea><script"):
            assert bad not in found
    assert "script-src 'self';" in pages[0]["Content-Security-Policy"] + ";"


@pytest.mark.parametrize(
    "address",
    [
        "/feedback/",
        "/feedback/?brand=acme",
        "/feedback/statistics/",
        "/dashboard",
        "/feedback/export/",
        "/feedback/acme/budgeting/",
        f"{HERE}?kind=pair",
        f"{HERE}?queue=disputed",
        f"{HERE}team/",
        f"{HERE}answers/",
        "/dashboard?brand=acme&task=creative&period=30&adapter=abcd&retailer=retailer-abc",
        "/dashboard?period=x&adapter=%00",
    ],
)
def test_every_page_opens_for_a_member_and_for_nobody_else(address: str, people: People) -> None:
    assert people.web(people.owner).get(address).status_code == 200
    if "acme" in address and "kind" not in address:
        assert people.web(people.stranger).get(address).status_code == 404
    from django.test import Client

    assert Client().get(address).status_code == 302


def test_a_stranger_sees_and_changes_nothing_of_the_brand(people: People) -> None:
    question = ReviewTaskFactory(brand=people.brand)
    row = services.answer(question, by=people.owner, outcome="a")
    stranger = people.web(people.stranger)
    assert stranger.get(HERE).status_code == 404
    assert stranger.post(f"{HERE}ask", {"kind": "pair"}).status_code == 404
    for address in (f"/feedback/answers/{row.uuid}/undo", f"/feedback/questions/{question.uuid}/renew"):
        assert stranger.post(address).status_code == 404
    assert stranger.post("/feedback/export/", {"brand": "acme", "format": "trl"}).status_code == 404
    assert people.web(people.colleague).post(f"/feedback/answers/{row.uuid}/undo").status_code == 404


def test_a_readers_habits_are_for_them_and_their_lead(people: People) -> None:
    services.answer(ReviewTaskFactory(brand=people.brand), by=people.owner, outcome="a", shown_first="a")
    assert "<h2>Readers</h2>" not in people.web(people.colleague).get("/dashboard").content.decode()
    lead = people.web(people.ops).get("/dashboard").content.decode()
    assert "<h2>Readers</h2>" in lead
    assert "owner" in lead


def test_an_export_is_wished_on_screen_and_found_again(people: People) -> None:
    client = people.web(people.owner)
    sent = client.post(
        "/feedback/export/", {"brand": "acme", "format": "csv", "task": "creative", "min_agreement": "0.5"}
    )
    assert sent.status_code == 302
    assert sent["Location"].startswith("/runs/")
    assert "csv" in client.get("/feedback/export/").content.decode()
    assert client.post("/feedback/export/", {"brand": "acme", "format": "xml"}).status_code == 422

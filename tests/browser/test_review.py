"""The review screen as a reader uses it: keys alone, focus kept, hostile texts that stay texts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from campaigns.models import Recommendation
from feedback import services
from feedback.models import Feedback, ReviewTask
from tests.browser.conftest import WIDTHS
from tests.conftest import People
from tests.factories import RecommendationFactory, ReviewTaskFactory

# Attributes are carried over when a block is swapped; a property of the element is not.
MARK = "document.querySelector('form[data-question]').isOld = true"
NEXT = "() => { const form = document.querySelector('form[data-question]'); return !form || !form.isOld; }"
HOSTILE = [
    "<script>window.broken = 1</script>", "<img src=x onerror='window.broken=1'>", "<svg/onload=window.broken=1>", "javascript:window.broken=1",
    "\"><iframe srcdoc='<script>parent.broken=1</script>'>", "{{7*7}}{% debug %}", "</textarea><script>window.broken=1</script>", "<a href='javascript:window.broken=1'>x</a>",
    "<math><mtext><script>window.broken=1</script>", "';window.broken=1;//", "\u202egnp.exe\u202c", "<style>*{display:none}</style>", "<body onload=window.broken=1>",
    "<details open ontoggle=window.broken=1>", "<input autofocus onfocus=window.broken=1>", "--><script>window.broken=1</script>", "<object data='data:text/html,<script>parent.broken=1</script>'>",
    "<b hx-get='/logout/' hx-trigger='load'>x</b>", "<div hx-on:htmx:load='window.broken=1'>", "=HYPERLINK(\"http://evil\")",
]  # fmt: skip


def press(page: Any, key: str) -> None:
    """Press a key and wait until the next question stands there."""
    page.evaluate(MARK)
    page.keyboard.press(key)
    page.wait_for_function(NEXT)


def test_pairs_are_judged_by_keys_alone_and_focus_stays_in_the_page(open_as: Any, people: People) -> None:
    for _ in range(4):
        ReviewTaskFactory(brand=people.brand)
    screen = open_as(people.owner)
    page = screen.open("/feedback/acme/creative/")
    for key in ("2", "4", "3"):
        press(page, key)
        # else a reader with a keyboard starts again at the top
        page.wait_for_function("() => document.activeElement && document.activeElement !== document.body")
    assert Feedback.objects.count() == 3
    page.evaluate(MARK)
    page.keyboard.press("u")
    page.wait_for_function(NEXT)
    assert Feedback.objects.filter(undone_at=None).count() == 2
    screen.check()


def test_every_answer_of_the_other_kinds_is_a_key(open_as: Any, people: People) -> None:
    for kind, key in (("rating", "4"), ("thumb", "y"), ("correction", "y")):
        draft = RecommendationFactory(brand=people.brand, text="Crisp water for long days")
        ReviewTaskFactory(brand=people.brand, kind=kind, recommendation=draft, other=None)
        screen = open_as(people.owner)
        page = screen.open(f"/feedback/acme/creative/?kind={kind}")
        press(page, key)
        screen.check()
    assert sorted(Feedback.objects.values_list("value", flat=True)) == [1, 1, 4]


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_texts_stay_texts_wherever_they_are_shown(open_as: Any, people: People, width: int) -> None:
    for text in HOSTILE:
        draft = RecommendationFactory(brand=people.brand, text=text, title=text[:80], prompt=text)
        ReviewTaskFactory(brand=people.brand, kind="rating", recommendation=draft, other=None)
    screen = open_as(people.owner, width)
    page = screen.open("/feedback/acme/creative/?kind=rating")
    for _ in HOSTILE:
        press(page, "3")
    assert Feedback.objects.count() == len(HOSTILE)
    for path in ("/feedback/acme/creative/answers/", "/feedback/acme/creative/team/", "/dashboard", "/"):
        screen.open(path)
    assert page.evaluate("window.broken") is None
    assert not [error for error in screen.errors if "broken" in error or "dialog" in error]


def wording_question(people: People, text: str = "Crisp water, 12 oz, now $1.99") -> Any:
    draft = RecommendationFactory(brand=people.brand, text=text)
    return ReviewTaskFactory(brand=people.brand, kind="correction", recommendation=draft, other=None)


def test_a_wording_shows_what_it_changes_and_which_claims_while_it_is_typed(open_as: Any, people: People) -> None:
    wording_question(people)
    screen = open_as(people.owner, 390)
    page = screen.open("/feedback/acme/creative/?kind=correction")
    page.fill("#text", "Crisp water, 16 oz, now $1.99")
    page.wait_for_selector("#diff ins")
    assert page.text_content("#diff del") == "12"
    assert page.text_content("#diff ins") == "16"
    assert "12 oz went; 16 oz came" in (page.text_content("#claims") or "")
    page.fill("#text", "Crisp water, 12 oz, now $1.99")
    page.wait_for_selector("#diff ins", state="detached")
    assert not (page.text_content("#claims") or "").strip()
    screen.check()


def test_what_was_typed_is_there_after_a_reload_and_gone_once_answered(open_as: Any, people: People) -> None:
    wording_question(people)
    screen = open_as(people.owner)
    page = screen.open("/feedback/acme/creative/?kind=correction")
    page.fill("#text", "Better water")
    page.check("text=tone")
    screen.open("/feedback/acme/creative/?kind=correction")
    assert page.input_value("#text") == "Better water"
    assert page.is_checked("text=tone")
    assert "is back" in (page.text_content("#kept") or "")
    page.evaluate(MARK)
    page.click("text=Keep my wording")
    page.wait_for_function(NEXT)
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('draft:'))") == []
    assert Feedback.objects.get().text == "Better water"


def test_a_login_that_ends_in_mid_answer_loses_nothing(open_as: Any, people: People) -> None:
    wording_question(people)
    screen = open_as(people.owner)
    page = screen.open("/feedback/acme/creative/?kind=correction")
    page.context.clear_cookies(name="sessionid")
    page.fill("#text", "Better water")
    page.click("text=Keep my wording")
    page.wait_for_selector("#toast:not(:empty)")
    assert "Nothing was lost" in (page.text_content("#toast") or "")
    assert page.input_value("#text") == "Better water"
    screen.log_in(people.owner)
    screen.open("/feedback/acme/creative/?kind=correction")  # as after the login, in this tab or another
    assert page.input_value("#text") == "Better water"
    page.evaluate(MARK)
    page.click("text=Keep my wording")
    page.wait_for_function(NEXT)
    assert Feedback.objects.get().text == "Better water"


def test_a_question_is_free_again_when_its_page_is_left(open_as: Any, people: People) -> None:
    question = wording_question(people)
    screen = open_as(people.owner)
    page = screen.open("/feedback/acme/creative/?kind=correction")
    question.refresh_from_db()
    assert question.reserved_by == people.owner
    page.goto("about:blank")
    until = time.monotonic() + 20
    while question.reserved_by and time.monotonic() < until:
        time.sleep(0.1)
        question.refresh_from_db()
    assert question.reserved_by is None


def test_a_question_stays_reserved_while_somebody_is_at_it(open_as: Any, people: People) -> None:
    question = wording_question(people)
    screen = open_as(people.owner)
    screen.page.clock.install()
    page = screen.open("/feedback/acme/creative/?kind=correction")
    question.refresh_from_db()
    before = question.reserved_until
    page.clock.fast_forward(150_000)
    with page.expect_response("**/renew"):
        page.keyboard.press("Tab")
    question.refresh_from_db()
    assert question.reserved_until > before


def test_a_double_click_and_the_back_button_answer_once(open_as: Any, people: People) -> None:
    for _ in range(2):
        ReviewTaskFactory(brand=people.brand)
    screen = open_as(people.owner, 390)
    page = screen.open("/feedback/acme/creative/?kind=pair")
    page.evaluate(MARK)
    page.dblclick("text=A better")
    page.wait_for_function(NEXT)
    page.wait_for_load_state("networkidle")
    assert Feedback.objects.count() == 1
    screen.open("/feedback/")
    page.go_back()
    page.wait_for_load_state("networkidle")
    assert page.is_visible("text=Which is better?")
    assert Feedback.objects.count() == 1


def hostile_200() -> list[str]:
    """Ten ways to run a script in each of twenty wrappings."""
    inner = [
        "<script>{}</script>", "<img src=x onerror={}>", "<svg onload={}>", "<iframe srcdoc='<script>parent.{}</script>'></iframe>", "<a href=javascript:{}>x</a>",
        "<body onload={}>", "<input autofocus onfocus={}>", "<video><source onerror={}></video>", "<details open ontoggle={}>", "<b hx-on:click={} hx-trigger=load hx-get=/logout/>x</b>",
    ]  # fmt: skip
    outer = [
        "{}", '">{}', "'>{}", "</textarea>{}", "</script>{}", "</title>{}", "-->{}", "]]>{}", "</style>{}", "</noscript>{}", "\u202e{}\u202c", "{{{{ {} }}}}", "{{% {} %}}", "&lt;{}", "\u2066{}",
        "<!--{}", "`{}`", "${{{}}}", "<p title='{}'>", "<x {}",
    ]  # fmt: skip
    return [one.format(two.format("window.broken=1")) for one in outer for two in inner]


def test_two_hundred_hostile_strings_run_nowhere(open_as: Any, people: People) -> None:
    texts = hostile_200()
    assert len(set(texts)) == 200
    for brief, one, other in zip(texts[::3], texts[1::3], [*texts[2::3], texts[0]], strict=True):  # three a screen
        a, b = (RecommendationFactory(brand=people.brand, text=text, title=text[:80], prompt=brief) for text in (one, other))  # fmt: skip
        ReviewTaskFactory(brand=people.brand, recommendation=a, other=b)
    rows = list(Recommendation.objects.all())
    for row, text in zip(rows, texts, strict=False):
        services.give(by=people.owner, recommendation=row, kind="thumb", value=1, note=text, reasons=[text[:40]])
    screen = open_as(people.owner)
    page = screen.open("/feedback/acme/creative/?kind=pair")
    for number in range(ReviewTask.objects.count()):
        press(page, "30524"[number % 5])
    for path in ("/feedback/acme/creative/answers/", "/feedback/acme/creative/team/", "/dashboard", "/"):
        screen.open(path)
    page.wait_for_timeout(200)
    assert page.evaluate("window.broken") is None
    assert not [error for error in screen.errors if "broken" in error or "dialog" in error]

"""The review screen as a reader uses it: keys alone, focus kept, hostile texts that stay texts."""

from __future__ import annotations

from typing import Any

import pytest

from feedback.models import Feedback
from tests.browser.conftest import WIDTHS
from tests.conftest import People
from tests.factories import RecommendationFactory, ReviewTaskFactory

# Attributes are carried over when a block is swapped; a property of the element is not.
MARK = "document.querySelector('form[data-review]').isOld = true"
NEXT = "() => { const form = document.querySelector('form[data-review]'); return !form || !form.isOld; }"
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

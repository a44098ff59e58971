"""Every page has a row here: who may open it, and whose row stands behind it. A page without a row fails the build."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import Client
from django.urls import get_resolver, reverse

from rmn.lib.runs import Run
from tests import factories
from tests.conftest import People

pytestmark = pytest.mark.django_db

# Open to everybody: they show nothing of anybody, or ask for a token of their own (tests/test_doors.py).
OPEN = {
    "login", "logout", "password_reset", "password_reset_done", "password_reset_confirm", "password_reset_complete",
    "favicon.ico", "healthz", "readyz", "metrics",
}  # fmt: skip
# Behind a login; what they list is the person's own.
MINE = {
    "home", "second-factor", "performance", "feeds", "feed-upload", "feed-check", "quarantine", "quarantine-answer", "budget-plans", "copy", "copy-rules", "audit", "masked-data",
    "experiments", "feedback", "feedback-statistics", "dashboard", "feedback-export", "inbox", "plans", "reflections", "forecasts", "adapters",
    "playground", "playground-stream", "training", "training-runs", "datasets", "evaluations", "withdrawals", "clean-rooms", "schema", "api-docs",
}  # fmt: skip
STAFF = {"health", "save-view"}  # for who may enter the console
# About one row of a brand: its factory, and the other words of the address.
Made = Callable[..., Any]
OF_A_ROW: dict[str, tuple[Made, dict[str, str]]] = {
    "run": (factories.FeedLoadFactory, {}),
    "cancel-run": (factories.FeedLoadFactory, {}),
    "retry-run": (factories.FeedLoadFactory, {}),
    "metric": (factories.PerformanceMetricFactory, {}),
    "budget-plan": (factories.BudgetPlanFactory, {}),
    "compare-budgets": (factories.BudgetPlanFactory, {}),
    "change-experiment": (factories.ExperimentFactory, {}),
    "approve-experiment": (factories.ExperimentFactory, {}),
    "change-plan": (factories.BudgetPlanFactory, {}),
    "decide-plan": (factories.BudgetPlanFactory, {"outcome": "approved"}),
    "experiment": (factories.ExperimentFactory, {}),
    "move-experiment": (factories.ExperimentFactory, {"move": "register"}),
    "feedback-export-file": (factories.ExportFactory, {}),
    "undo-answer": (factories.FeedbackFactory, {}),
    "correct-better": (factories.FeedbackFactory, {}),
    "renew-question": (factories.ReviewTaskFactory, {}),
    "release-question": (factories.ReviewTaskFactory, {}),
    "wording-difference": (factories.ReviewTaskFactory, {}),
    "decide-waiting": (factories.BudgetPlanFactory, {"kind": "budget", "outcome": "approved"}),
    "undo-decision": (factories.AgentRunFactory, {}),
    "plan": (factories.AgentRunFactory, {}),
    "reflection": (factories.ReflectionFactory, {}),
    "move-reflection": (factories.ReflectionFactory, {"move": "decide"}),
    "forecast": (factories.ForecastFactory, {}),
    "move-forecast": (factories.ForecastFactory, {"move": "withdraw"}),
    "clean-room": (factories.CleanRoomConnectionFactory, {}),
    "clean-room-query": (factories.CleanRoomQueryFactory, {}),
    "adapter": (factories.AdapterFactory, {}),
    "move-adapter": (factories.AdapterFactory, {"move": "deploy"}),
    "model-card": (factories.AdapterFactory, {}),
    "lesson": (factories.LessonFactory, {}),
    "copy-text": (factories.RecommendationFactory, {}),
    "copy-step": (factories.RecommendationFactory, {"step": "reject"}),
    "copy-evidence": (factories.CopyEvidenceFactory, {}),
    "training-run": (factories.TrainingRunFactory, {}),
    "dataset": (factories.DatasetFactory, {}),
    "answer-lineage": (factories.FeedbackFactory, {}),
    "evaluation": (factories.EvaluationFactory, {}),
    "withdrawal": (factories.WithdrawalFactory, {}),
    "forget-view": (factories.SavedViewFactory, {}),
}
OF_A_BRAND = {"review", "ask-about-drafts", "team", "my-answers"}


def pages(patterns: Any = None, before: str = "") -> Iterator[tuple[str, str]]:
    """Name and address of every route but the console's and the API's, which have sweeps of their own."""
    for one in patterns or get_resolver().url_patterns:
        address = before + str(one.pattern)
        if address.startswith((settings.ADMIN_PATH, "api/v1/")):
            continue
        if hasattr(one, "url_patterns"):
            yield from pages(one.url_patterns, address)
        else:
            yield one.name or address, address


def opened(client: Client, path: str, method: str = "") -> Any:
    """What the address answers: to GET, or to POST where it takes no GET."""
    if method:
        return getattr(client, method)(path)
    answer = client.get(path)
    return client.post(path) if answer.status_code == 405 else answer


def text_of(answer: Any, *names: str) -> str:
    """Its body without what differs from one request to the next: tokens, nonces, and the names asked for."""
    text = re.sub(r'(?i)((?:csrf\w*token)"?\W+(?:value=)?"|nonce=")[^"]+"', "", answer.content.decode())
    for name in names:
        text = text.replace(name, "...")
    return text


def test_every_page_has_one_row_and_every_row_a_page() -> None:
    there = {name for name, _ in pages()}
    rows = [*OPEN, *MINE, *STAFF, *OF_A_ROW, *OF_A_BRAND]
    assert sorted(there - set(rows)) == [], "say in tests/test_routes.py who may open them"
    assert sorted(set(rows) - there) == [], "there is no such page any more"
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("name", sorted(MINE | STAFF))
def test_a_page_of_ones_own_wants_a_login(name: str, people: People) -> None:
    answer = opened(Client(), reverse(name))
    assert answer.status_code in (302, 401, 403), answer.status_code
    if answer.status_code == 302:
        assert "login" in answer["Location"]
    assert opened(people.web(people.ops), reverse(name)).status_code < 500


@pytest.mark.parametrize("name", sorted(STAFF))
def test_a_page_of_the_staff_opens_for_no_marketer(name: str, people: People) -> None:
    """And says so: a login would send somebody who is logged in straight back."""
    assert opened(people.web(people.owner), reverse(name)).status_code == 403


@pytest.mark.parametrize("name", sorted(OF_A_ROW))
def test_a_row_elsewhere_is_as_unknown_as_none(name: str, people: People) -> None:
    made, words = OF_A_ROW[name]
    row = made(brand=people.brand)
    key = row.pk if isinstance(row, Run) else row.uuid
    there, nowhere = (reverse(name, kwargs={"pk": one, **words}) for one in (key, uuid4()))
    anonymous = opened(Client(), there)
    assert anonymous.status_code == 302
    assert "login" in anonymous["Location"]
    stranger = people.web(people.stranger)
    for method in ("", "post", "put", "patch", "delete"):
        said = [opened(stranger, path, method) for path in (there, nowhere)]
        assert said[0].status_code == said[1].status_code, method
        assert said[0].status_code in (404, 405), method
        assert text_of(said[0], there) == text_of(said[1], nowhere), method


@pytest.mark.parametrize("name", sorted(OF_A_BRAND))
def test_a_brand_elsewhere_is_as_unknown_as_none(name: str, people: People) -> None:
    there, nowhere = (reverse(name, kwargs={"slug": slug, "task": "creative"}) for slug in ("acme", "nobody"))
    assert opened(Client(), there).status_code == 302
    stranger = people.web(people.stranger)
    said = [opened(stranger, path) for path in (there, nowhere)]
    assert [one.status_code for one in said] == [404, 404]
    assert text_of(said[0], "acme") == text_of(said[1], "nobody")

"""Every page in Chromium, on a desktop and on a telephone: no script error, no breach of the policy, no barrier."""

from __future__ import annotations

from typing import Any

import pytest

from campaigns import copy
from tests.browser.conftest import WIDTHS
from tests.conftest import People
from tests.factories import (
    AdapterFactory,
    AgentRunFactory,
    BudgetPlanFactory,
    CurveFitFactory,
    DatasetFactory,
    EvaluationFactory,
    ExperimentFactory,
    FeedbackFactory,
    ForecastFactory,
    LessonFactory,
    RecommendationFactory,
    ReviewTaskFactory,
    TrainingRunFactory,
)

PLAN = {
    "status": "optimal", "objective": 5200.0, "upper_bound": 5200.0, "gap": 0.0, "explanation": "All money is spent where the next unit brings most.",
    "even_split": {"objective": 4000.0, "gain_percent": 30.0}, "interval": [4100.0, 6100.0],
    "frontier": [{"budget": 500.0, "objective": 3000.0, "upper_bound": 3000.0, "price": 1.4}, {"budget": 1000.0, "objective": 5200.0, "upper_bound": 5200.0, "price": 1.4}, {"budget": 2000.0, "objective": 7000.0, "upper_bound": 7000.0, "price": 1.4}],
}  # fmt: skip
ROWS = [
    {"id": f"arm-{n}", "spend": 100.0 * n, "expected_sales": 520.0 * n, "interval": [400.0 * n, 640.0 * n], "roas": 5.2, "marginal_roas": 1.4, "binding": None}
    for n in range(1, 5)
]  # fmt: skip

CARD = {
    "rows": {"train": 40, "eval": 9, "people": 4}, "people": 6, "redactions": 3, "read": 80, "sources": {"human": 30, "rule": 23}, "dropped": {"duplicate": 4, "no winner": 11},
    "leak_check": {"shared_prompts": 0, "shared_clusters": 0}, "warnings": ["53 rows: enough to learn a form, hardly a taste"], "mean_agreement": 0.8, "label_noise": {"smoothing": 0.18, "judged_twice": 12},
    "length": {"chosen": {"mean": 34.1, "median": 33.0, "max": 48}, "rejected": {"mean": 51.0, "median": 50.0, "max": 90}, "chosen_is_longer": 0.2},
}  # fmt: skip
CURVE = [{"step": n, "loss": 0.69 - 0.02 * n, "margin": 0.05 * n} for n in range(1, 15)]
ESTIMATE = {
    "steps": 14,
    "tokens": 28_000,
    "flops": 2e13,
    "minutes": 4.2,
    "at_most": 6.3,
    "cost": 0.14,
    "currency": "USD",
}
GUARD = {
    "estimate": 0.3,
    "interval": [0.1, 0.5],
    "p_value": 0.004,
    "p_worse": 0.99,
    "p_worse_holm": 1.0,
    "candidate": 0.9,
    "champion": 0.6,
}
COMPARED = {
    "verdict": "better", "reasons": ["passes rose by 0.300, p 0.0040"], "needed_cases": None, "metrics": {"cases": 60, "clusters": 20},
    "tests": [{"name": "passes", **GUARD}, {"name": "names the product", **GUARD}, {"name": "blind votes", **GUARD, "votes": 60, "at_equal_length": 0.71}],
    "pass_rate": {side: {"estimate": rate, "interval": [rate - 0.1, rate + 0.1]} for side, rate in (("candidate", 0.8), ("champion", 0.5), ("prompt_alone", 0.4))},
    "length": {"candidate": 33.2, "champion": 51.7}, "failing": {"candidate": 4, "champion": 11},
    "flipped": [{"product": f"Sparkling water {n}", "candidate": "Acme sparkling water, 12 oz", "champion": "The very best water in the whole world!!", "passed": n != 2, "why": ["AMZ-SUPER"]} for n in range(3)],
}  # fmt: skip


@pytest.fixture
def filled(people: People) -> dict[str, str]:
    """A brand with one of everything; page's name to its address."""
    brand, retailer = people.brand, people.retailer
    arms = [{"id": row["id"], "last": 90.0, "retailer": "retailer-abc", "tactic": "search"} for row in ROWS]
    CurveFitFactory(brand=brand, retailer=retailer, status="succeeded", result={"names": {"arm-1": "Summer search"}})
    plan = BudgetPlanFactory(
        brand=brand, retailer=retailer, name="Spring", state="proposed", status="succeeded", progress=1.0, currency="USD", problem={"arms": arms}, plan=PLAN | {"allocations": ROWS},
    )  # fmt: skip
    experiment = ExperimentFactory(brand=brand, retailer=retailer, name="Do mailings sell?", status="succeeded")
    run = AgentRunFactory(brand=brand, status="running", progress=0.4, step="Reading the answers")
    forecast = ForecastFactory(brand=brand)
    adapter = AdapterFactory(
        brand=brand, retailer=None, parents=["a" * 64], gate={"verdict": "better", "reasons": ["p"]}
    )
    data = DatasetFactory(
        brand=brand, retailer=retailer, status="succeeded", digest="d" * 64, rows_train=40, manifest=CARD
    )
    training = TrainingRunFactory(
        brand=brand, retailer=retailer, dataset=data, adapter=adapter, status="succeeded", stopped_by="early_stop", metrics=CURVE, estimate=ESTIMATE,
    )  # fmt: skip
    evaluation = EvaluationFactory(
        brand=brand, retailer=retailer, candidate=adapter, status="succeeded", verdict="better", result=COMPARED
    )
    lesson = LessonFactory(
        brand=brand,
        retailer=retailer,
        status="succeeded",
        outcome="staged",
        adapter=adapter,
        found=["Imitation: 40 rows"],
    )
    for step in (data, training, evaluation):
        step.lesson = lesson
        step.save()
    for kind in ("pair", "rating", "thumb", "correction"):
        one = RecommendationFactory(brand=brand, text=f"Sparkling water for {kind}")
        ReviewTaskFactory(brand=brand, kind=kind, recommendation=one, **({} if kind == "pair" else {"other": None}))
    drafts = [RecommendationFactory(brand=brand) for _ in range(2)]
    for n in range(6):
        person = people.owner if n % 2 else people.colleague
        FeedbackFactory(brand=brand, by=person, kind="rating", value=3 + n % 3, recommendation=drafts[n % 2])
    text = RecommendationFactory(
        brand=brand, retailer=retailer, text="Clinically tested water cures headaches", title="Water"
    )
    copy.add_evidence(text, people.owner, note="Clinically tested on 80 people", link="https://example.com/report")
    assert forecast
    return {
        "home": "/",
        "choose": "/feedback/",
        "pair": "/feedback/acme/creative/?kind=pair",
        "rating": "/feedback/acme/creative/?kind=rating",
        "thumb": "/feedback/acme/creative/?kind=thumb",
        "correction": "/feedback/acme/creative/?kind=correction",
        "answers": "/feedback/acme/creative/answers/",
        "team": "/feedback/acme/creative/team/",
        "dashboard": "/dashboard",
        "export": "/feedback/export/",
        "budgets": "/budgets/",
        "budget": f"/budgets/{plan.pk}",
        "experiments": "/experiments/",
        "experiment": f"/experiments/{experiment.pk}",
        "forecasts": "/forecasts/",
        "adapters": "/adapters/",
        "adapter": f"/adapters/{adapter.uuid}",
        "playground": "/playground/",
        "training": "/training/",
        "lesson": f"/training/lessons/{lesson.pk}",
        "data sets": "/training/data/",
        "data set": f"/training/data/{data.pk}",
        "training runs": "/training/runs/",
        "training run": f"/training/runs/{training.pk}",
        "evaluations": "/training/evaluations/",
        "evaluation": f"/training/evaluations/{evaluation.pk}",
        "copy": "/copy/?which=block",
        "text": f"/copy/{text.uuid}",
        "rules": "/copy/rules",
        "audit": "/audit/",
        "run": f"/runs/{run.pk}",
        "second factor": "/account/second-factor/",
    }


def test_every_page_of_a_marketer_is_whole_and_open_to_all(
    open_as: Any, people: People, filled: dict[str, str]
) -> None:
    wrong = []
    for width in WIDTHS:
        screen = open_as(people.owner, width)
        for name, path in filled.items():
            screen.open(path)
            try:
                screen.check()
            except AssertionError as error:
                wrong.append(f"{name}: {error}")
            screen.errors.clear()
    assert not wrong, "\n".join(wrong)


def test_pages_of_one_who_is_not_logged_in(open_as: Any) -> None:
    for width in WIDTHS:
        screen = open_as(None, width)
        for path in ("/login/", "/password/", "/password/sent/"):
            screen.open(path)
            screen.check()


def test_the_console_opens_without_an_error(
    open_as: Any, people: People, filled: dict[str, str], settings: Any
) -> None:
    settings.RMN_REQUIRE_OTP = False
    for width in WIDTHS:
        screen = open_as(people.ops, width)
        for path in (
            "/admin/",
            "/admin/campaigns/budgetplan/",
            "/admin/agents/adapter/",
            "/admin/retailers/policyrule/add/",
        ):
            screen.open(path)
            screen.check(barriers=False)
            over = screen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert over <= 1, f"{path} is {over} pixels wider than {width}"

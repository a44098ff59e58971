"""Every page in Chromium, on a desktop and on a telephone: no script error, no breach of the policy, no barrier."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import WIDTHS
from tests.conftest import People
from tests.factories import (
    AdapterFactory,
    AgentRunFactory,
    BudgetPlanFactory,
    CurveFitFactory,
    ExperimentFactory,
    FeedbackFactory,
    ForecastFactory,
    RecommendationFactory,
    ReviewTaskFactory,
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
    for kind in ("pair", "rating", "thumb", "correction"):
        one = RecommendationFactory(brand=brand, text=f"Sparkling water for {kind}")
        ReviewTaskFactory(brand=brand, kind=kind, recommendation=one, **({} if kind == "pair" else {"other": None}))
    drafts = [RecommendationFactory(brand=brand) for _ in range(2)]
    for n in range(6):
        person = people.owner if n % 2 else people.colleague
        FeedbackFactory(brand=brand, by=person, kind="rating", value=3 + n % 3, recommendation=drafts[n % 2])
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

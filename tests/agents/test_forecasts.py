"""Forecasts: made once, never edited, resolved by what was measured, scored by whom; confidence learns from them."""

from __future__ import annotations

import datetime as dt
import json
from io import StringIO
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.utils import timezone

from agents import forecasts, tasks
from agents.models import Edited, Forecast, ReflectionLog
from retailers import audit
from retailers.models import PerformanceMetric
from rmn.lib.errors import BadInput
from tests.campaigns.test_doors import MONDAY, weeks
from tests.conftest import People
from tests.factories import BudgetPlanFactory, ExperimentFactory, ForecastFactory, ReflectionFactory

pytestmark = pytest.mark.django_db
TODAY = dt.date(2026, 3, 2)


def made(people: People, **changes: Any) -> Forecast:
    values: dict[str, Any] = {
        "brand": people.brand, "statement": "Sales reach 100", "metric": "sales", "comparison": ">=", "value": 100.0,
        "probability": 0.7, "due": timezone.now().date() + dt.timedelta(days=9), "by": people.owner,
    }  # fmt: skip
    return forecasts.make(**{**values, **changes})


def analysed(people: People, **result: Any) -> Any:
    told = {"estimate": {"lift_percent": 5.4}, "method": "synthetic_control", "verdict": "effect", **result}
    return ExperimentFactory(brand=people.brand, retailer=people.retailer, state="analysed", result=told)


def expected(people: People, **changes: Any) -> Forecast:
    return ForecastFactory(brand=people.brand, retailer=people.retailer, **changes)


def period(people: People, **changes: Any) -> Forecast:
    """A forecast on the thirty weeks that ``weeks`` writes."""
    end = MONDAY + dt.timedelta(days=30 * 7 - 1)
    subject = {"metrics": {"start": str(MONDAY), "end": str(end), "campaign": ""}}
    return expected(people, **{"metric": "sales", "value": 1.0, "subject": subject, "due": end, **changes})


class TestMade:
    def test_a_claim_is_never_edited(self, people: People) -> None:
        row = made(people)
        row.probability = 0.99
        with pytest.raises(Edited, match="probability"):
            row.save()
        row.refresh_from_db()
        assert row.probability == 0.7

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"probability": 1.2}, "probability"),
            ({"probability": None}, "probability"),
            ({"value": None}, "value"),
            ({"comparison": "about"}, "comparison"),
            ({"comparison": "between", "low": 3.0, "high": 1.0}, "between"),
            ({"due": dt.date(2020, 1, 1)}, "due"),
            ({"statement": " "}, "statement"),
            ({"subject": {"plan": "nonsense"}}, "no such plan"),
            ({"subject": {"sql": "select 1"}}, "subject"),
            ({"subject": {"metrics": {"start": "soon", "end": "2026-01-01"}}}, "start"),
            ({"subject": {"metrics": {"start": "2026-01-02", "end": "2026-01-01"}}}, "ends"),
        ],
    )
    def test_what_does_not_fit_is_named(self, people: People, changes: dict[str, Any], named: str) -> None:
        with pytest.raises(BadInput, match=named):
            made(people, **changes)

    def test_another_brands_experiment_is_as_unknown_as_none(self, people: People) -> None:
        theirs = ExperimentFactory(brand=people.other, retailer=people.retailer)
        with pytest.raises(BadInput, match="no such experiment"):
            made(people, metric="att", subject={"experiment": str(theirs.pk)})

    def test_people_say_theirs_beside_an_agents_once_and_before_its_day(self, people: People) -> None:
        first = made(people, agent="budget optimizer", by=None)
        mine = forecasts.beside(first, 0.4, people.owner)
        assert (mine.agent, mine.made_by, mine.statement) == ("", people.owner, first.statement)
        with pytest.raises(BadInput, match="said yours"):
            forecasts.beside(first, 0.9, people.owner)
        late = expected(people, due=timezone.now().date())
        with pytest.raises(BadInput, match="closed"):
            forecasts.beside(late, 0.4, people.owner)


class TestResolved:
    @pytest.mark.parametrize(
        ("comparison", "observed", "happened"),
        [(">=", 5.0, True), (">=", 4.9, False), ("<=", 5.0, True), ("<=", 5.1, False)],
    )
    def test_the_claim_is_held_against_what_was_seen(
        self, people: People, comparison: str, observed: float, happened: bool
    ) -> None:
        row = forecasts.resolve(expected(people, comparison=comparison), observed=observed)
        assert (row.status, row.happened) == ("resolved", happened)

    def test_an_interval_holds_when_the_value_lies_in_it(self, people: People) -> None:
        row = expected(people, comparison="between", low=1.0, high=2.0, level=0.8)
        assert forecasts.resolve(row, observed=1.5).happened

    def test_an_analysed_experiment_resolves_before_the_due_day(self, people: People) -> None:
        test = analysed(people)
        row = expected(people, subject={"experiment": str(test.pk)}, reflection=ReflectionFactory(brand=people.brand))
        assert tasks.resolve_forecasts()["resolved"] == 1
        row.refresh_from_db()
        assert (row.happened, row.observed) == (True, 5.4)
        assert row.resolution["method"] == "synthetic_control"
        log = ReflectionLog.objects.get()
        assert log.phase == "review"
        assert "came true" in log.outcome
        assert audit.verify("acme")["rows"] == 1

    @pytest.mark.parametrize(
        ("state", "status"), [("designed", "open"), ("running", "open"), ("stopped", "unresolvable")]
    )
    def test_an_experiment_without_a_result_does_not(self, people: People, state: str, status: str) -> None:
        test = ExperimentFactory(brand=people.brand, retailer=people.retailer, state=state)
        row = expected(people, subject={"experiment": str(test.pk)})
        tasks.resolve_forecasts()
        row.refresh_from_db()
        assert row.status == status

    def test_metrics_resolve_on_the_due_day_and_not_before(self, people: People) -> None:
        weeks(people)
        row = period(people)
        assert forecasts.read(row, row.due - dt.timedelta(days=1)).observed is None
        reading = forecasts.read(row, row.due)
        assert reading.observed is not None
        assert reading.observed > 10_000

    def test_sales_are_those_of_one_attribution_and_of_the_own_brand(self, people: People) -> None:
        weeks(people)
        alone = forecasts.read(period(people), dt.date(2027, 1, 1)).observed
        weeks(people, brand=people.other)
        weeks(people, campaign="c2")
        whole = forecasts.read(period(people), dt.date(2027, 1, 1)).observed
        assert alone is not None
        assert whole is not None
        assert whole == pytest.approx(2 * alone)
        row = period(people)
        row.subject["metrics"]["campaign"] = "c2"
        assert forecasts.read(row, dt.date(2027, 1, 1)).observed == pytest.approx(alone)

    def test_reports_that_reach_over_the_end_count_in_proportion(self, people: People) -> None:
        weeks(people, count=1)
        end = str(MONDAY + dt.timedelta(days=2))
        whole = period(people, metric="spend", subject={"metrics": {"start": str(MONDAY), "end": str(MONDAY + dt.timedelta(days=6))}})  # fmt: skip
        part = period(people, metric="spend", subject={"metrics": {"start": str(MONDAY), "end": end}})
        late = dt.date(2027, 1, 1)
        seen, seen_of_part = forecasts.read(whole, late).observed, forecasts.read(part, late).observed
        assert seen is not None
        assert seen_of_part == pytest.approx(seen * 3 / 7)

    def test_late_reports_are_waited_for_and_given_up_after_ninety_days(self, people: People) -> None:
        weeks(people, count=10)
        row = period(people)
        assert forecasts.resolve_ready([row], row.due)["open"] == 1
        assert forecasts.resolve_ready([row], row.due + dt.timedelta(days=91))["unresolvable"] == 1
        row.refresh_from_db()
        assert "reports reach to" in row.resolution["note"]

    def test_a_plan_that_was_not_carried_out_says_nothing(self, people: People) -> None:
        weeks(people)
        plan = BudgetPlanFactory(
            brand=people.brand,
            retailer=people.retailer,
            period_start=MONDAY,
            period_end=MONDAY + dt.timedelta(days=30 * 7 - 1),
            plan={"allocations": [{"id": "retailer-abc/instacart/c1", "spend": 1e6}]},
        )
        reading = forecasts.read(period(people, subject={"plan": str(plan.pk)}), dt.date(2027, 1, 1))
        assert reading.never
        assert "not carried out" in reading.why

    def test_it_is_resolved_once(self, people: People) -> None:
        row = forecasts.resolve(expected(people), happened=True, by=people.owner)
        forecasts.resolve(row, happened=True)
        with pytest.raises(BadInput, match="once"):
            forecasts.resolve(row, happened=False)
        with pytest.raises(BadInput, match="before"):
            forecasts.give_up(row, "changed my mind")

    def test_a_value_and_an_outcome_that_disagree_are_refused(self, people: People) -> None:
        with pytest.raises(BadInput, match="true"):
            forecasts.resolve(expected(people), observed=9.0, happened=False)


class TestScored:
    def many(
        self, people: People, n: int = 60, right: int = 3, agent: str = "budget optimizer", p: float = 0.9
    ) -> None:
        """Of five forecasts at ``p``, ``right`` come true."""
        for place in np.random.default_rng(1).permutation(n):
            expected(people, agent=agent, probability=p, status="resolved", happened=bool(place % 5 < right))

    def test_confidence_learns_what_it_was_worth(self, people: People) -> None:
        self.many(people)
        learned = forecasts.learned(people.brand, "budget optimizer")
        assert learned.n == 60
        assert learned(0.9) == pytest.approx(0.6, abs=0.16)

    def test_under_thirty_the_stated_value_stands(self, people: People) -> None:
        self.many(people, n=29)
        assert forecasts.learned(people.brand, "budget optimizer")(0.9) == 0.9

    def test_nothing_is_learnt_from_another_brand(self, people: People) -> None:
        self.many(people)
        assert forecasts.learned(people.other, "budget optimizer").n == 0

    def test_agents_and_people_stand_on_one_board_each_once(self, people: People) -> None:
        self.many(people)
        for place in range(10):
            expected(people, made_by=people.owner, probability=0.6, status="resolved", happened=place % 5 < 3)
        told = forecasts.score(Forecast.objects.all(), "agent")
        assert [(row["name"], row["n"]) for row in told["groups"]] == [("budget optimizer", 60)]
        told = forecasts.score(Forecast.objects.all(), "person")
        assert [(row["name"], row["n"]) for row in told["groups"]] == [("owner", 10)]
        assert told["all"]["n"] == told["resolved"] == 70

    def test_a_flag_that_predicts_nothing_is_dropped(self, people: People) -> None:
        flagged = ReflectionFactory(brand=people.brand, biases=[{"type": "recency", "note": ""}])
        plain = ReflectionFactory(brand=people.brand)
        for place in range(40):
            expected(people, reflection=flagged, status="resolved", happened=True, probability=0.9)
            expected(people, reflection=plain, status="resolved", happened=place % 2 == 0, probability=0.9)
        assert forecasts.worthless_flags(people.brand) == {"recency"}

    def test_intervals_are_scored_by_coverage(self, people: People) -> None:
        for place in range(10):
            expected(
                people, comparison="between", low=0.0, high=1.0, level=0.8, probability=0.8, status="resolved",
                observed=0.5 if place < 8 else 2.0, happened=place < 8,
            )  # fmt: skip
        told = forecasts.score(Forecast.objects.all())
        assert told["all"]["intervals"]["coverage"] == 0.8

    def test_the_command_scores_by_agent(self, people: People) -> None:
        self.many(people, n=5)
        out = StringIO()
        call_command("score_forecasts", "--by", "agent", "--brand", "acme", stdout=out)
        assert json.loads(out.getvalue())["groups"][0]["n"] == 5

    def test_the_command_names_what_it_does_not_know(self, people: People, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            call_command("score_forecasts", "--by", "weather")
        assert ended.value.code == 2
        assert "one of agent" in capfd.readouterr().err


class TestDoors:
    def test_a_marketer_forecasts_and_an_analyst_resolves(self, people: People) -> None:
        wish = {
            "brand": "acme", "statement": "Sales reach 100", "metric": "sales", "comparison": ">=", "value": 100,
            "probability": 0.7, "due": str(timezone.now().date() + dt.timedelta(days=30)),
        }  # fmt: skip
        made = people.api(people.owner).post("/api/v1/forecasts/", wish, format="json")
        assert made.status_code == 201, made.content
        address = f"/api/v1/forecasts/{made.json()['id']}/"
        body = {"observed": 120, "note": "from the invoice"}
        told = people.api(people.colleague).post(f"{address}resolve/", body, format="json")
        assert (told.status_code, told.json()["happened"]) == (200, True)
        again = people.api(people.colleague).post(f"{address}resolve/", {"happened": False}, format="json")
        assert again.status_code == 422

    def test_strangers_neither_forecast_nor_resolve(self, people: People) -> None:
        row = expected(people)
        api = people.api(people.stranger)
        for what, body in (("resolve", {"happened": True}), ("beside", {"probability": 0.5})):
            assert api.post(f"/api/v1/forecasts/{row.uuid}/{what}/", body, format="json").status_code == 404
        told = api.get("/api/v1/forecasts/scores/?by=agent")
        assert (told.status_code, told.json()["open"]) == (200, 0)

    def test_a_person_says_theirs(self, people: People) -> None:
        row = expected(people, agent="budget optimizer", due=timezone.now().date() + dt.timedelta(days=3))
        body = {"probability": 0.5}
        answer = people.api(people.owner).post(f"/api/v1/forecasts/{row.uuid}/beside/", body, format="json")
        assert (answer.status_code, answer.json()["made_by"]) == (201, "owner")


class TestLookedBack:
    def test_past_weeks_are_claimed_from_what_was_known_before_them_and_resolved_at_once(self, people: People) -> None:
        weeks(people)
        claims = forecasts.look_back(people.brand, agent="budget optimizer", draws=60)
        assert len(claims) == 3
        assert len({claim.due for claim in claims}) == 3
        assert all(0.01 <= claim.probability <= 0.99 for claim in claims if claim.probability is not None)
        # what came after a claim's weeks, or in them, does not change it
        PerformanceMetric.objects.filter(period_start__gt=claims[-1].due - dt.timedelta(days=28)).update(spend=1)
        assert forecasts.look_back(people.brand, agent="other", draws=60)[-1].value == claims[-1].value
        counts = forecasts.resolve_ready(claims, timezone.now().date())
        assert (counts["resolved"], counts["open"]) == (3, 0)
        row = Forecast.objects.get(pk=claims[0].pk)
        assert row.observed is not None
        assert row.happened == (row.observed >= float(row.value or 0))

    def test_the_same_weeks_are_claimed_about_once(self, people: People) -> None:
        weeks(people)
        for _ in range(2):
            claims = forecasts.look_back(people.brand, agent="budget optimizer", draws=60)
            forecasts.resolve_ready(claims, timezone.now().date())
        assert Forecast.objects.count() == 3

    def test_without_reports_there_is_nothing_to_look_back_on(self, people: People) -> None:
        with pytest.raises(BadInput, match="nothing is loaded"):
            forecasts.look_back(people.brand, agent="budget optimizer")

"""Goals become steps, proposals wait for a person, decisions happen once and leave their reasons."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from agents import decisions, forecasts, planning, rooms, services, serving, tasks
from agents.domain import playbooks, tools
from agents.inference import base
from agents.inference.errors import InvalidOutput
from agents.inference.types import Question, Reply
from agents.models import (
    Adapter,
    AdapterAlias,
    AgentRun,
    ApprovalRule,
    CleanRoomQuery,
    Forecast,
    Generation,
    ReflectionLog,
)
from campaigns.domain.experiments import design as campaign_designs
from campaigns.models import BudgetPlan, CurveFit, Experiment, Recommendation
from campaigns.tasks import propose
from retailers import audit
from retailers.models import MetricOutcome
from rmn.lib import outbound, sealing
from rmn.lib.errors import BadInput
from tests.campaigns.budgets import problem as made_problem
from tests.campaigns.test_doors import MONDAY, weeks
from tests.conftest import People
from tests.factories import BudgetPlanFactory, CleanRoomConnectionFactory, PerformanceMetricFactory

pytestmark = pytest.mark.django_db


def run_of(people: People, goal: str, brand: Any = None, retailer: Any = None) -> AgentRun:
    run = services.wish_for_plan(brand=brand or people.brand, retailer=retailer, goal=goal)
    tasks.plan(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    return run


def stores(people: People, units: int = 16, count: int = 40) -> None:
    """Weekly sales of a retailer's stores, as its own feed tells them."""
    rng = np.random.default_rng(5)
    common = 100 + rng.normal(0, 3, count)
    for week in range(count):
        start = MONDAY + dt.timedelta(weeks=week)
        for unit in range(units):
            row = PerformanceMetricFactory(
                brand=people.brand, retailer=people.retailer, grain="store", campaign_id="", placement=f"s{unit:02}",
                period_start=start, period_end=start + dt.timedelta(days=6), spend=None,
            )  # fmt: skip
            value = Decimal(str(round((0.8 + unit / 30) * common[week] + rng.normal(0, 1), 2)))
            MetricOutcome.objects.create(
                brand=row.brand, performance=row, metric="total_sales", window_days=0, interaction="", model="",
                scope="all", value=value,
            )  # fmt: skip


def proposed(people: People) -> BudgetPlan:
    plan = BudgetPlanFactory(
        brand=people.brand, retailer=people.retailer, problem=made_problem(6, 1, "log"), status="running", lease_token=1
    )
    propose(plan)
    BudgetPlan.objects.filter(pk=plan.pk).update(status="succeeded")
    plan.refresh_from_db()
    return plan


@pytest.mark.parametrize(
    ("goal", "name"),
    [
        ("Reallocate next month's budget after a stock-out", "reallocate_after_stock_out"),
        ("Plan the budget of next quarter", "quarterly_plan"),
        ("Prove that the network brings incremental sales", "prove_a_network"),
        ("Launch a new product in spring", "launch_a_product"),
        ("Sing a song", None),
    ],
)
def test_a_goal_finds_its_playbook(goal: str, name: str | None) -> None:
    found = playbooks.choose(goal)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("goal", "money"),
    [("Split $250,000 next quarter", 250_000), ("plan 1.5m USD", 1.5e6), ("a budget plan for 3 weeks", None)],
)
def test_money_in_a_goal_is_read(goal: str, money: float | None) -> None:
    chosen = playbooks.choose(goal)
    assert chosen is not None
    arguments = dict(playbooks.steps(chosen, goal))["allocate_budget"]
    assert arguments.get("total_budget") == money


@given(st.text(max_size=300))
def test_any_goal_gives_steps_whose_arguments_are_valid(goal: str) -> None:
    chosen = playbooks.choose(goal)
    for tool, arguments in playbooks.steps(chosen, goal) if chosen else []:
        if tool != "what_if":  # its budgets come from the plan
            tools.TOOLS[tool].read(arguments)


def test_no_tool_takes_a_brand() -> None:
    for tool in tools.TOOLS.values():
        assert not {"brand", "tenant", "user"} & set(tool.schema["parameters"].get("properties", {}))
        with pytest.raises(BadInput):
            tool.read({"brand": "globex"})


def test_a_plan_waits_with_its_proposal_and_approval_ends_it(people: People) -> None:
    weeks(people)
    run = run_of(people, "Plan the budget of next quarter")
    assert (run.source, run.stop) == ("playbook", "needs_input")
    assert [step.tool for step in run.steps.all()][-2:] == ["allocate_budget", "what_if"]
    decisions.decide_run(run, "approve", people.owner, "go")
    run.refresh_from_db()
    assert (run.stop, run.pending) == ("done", None)
    assert BudgetPlan.objects.get().state == BudgetPlan.State.APPROVED


def test_a_brand_without_data_is_asked_not_guessed_for(people: People) -> None:
    run = run_of(people, "Plan the budget of next quarter")
    assert run.stop == "needs_input"
    assert "load a feed first" in run.pending["question"]


def test_a_run_sees_only_its_own_brands_rows(people: People) -> None:
    weeks(people, brand=people.other)
    run = run_of(people, "Plan the budget of next quarter")
    read = run.steps.get(tool="read_metrics")
    assert read.result == []


def test_a_message_delivered_twice_plans_once(people: People) -> None:
    weeks(people)
    run = run_of(people, "Plan the budget of next quarter")
    count = run.steps.count()
    tasks.plan(str(run.pk), tenant=run.tenant)
    assert run.steps.count() == count
    assert BudgetPlan.objects.count() == 1


def test_approving_twice_writes_one_reflection_and_one_forecast(people: People) -> None:
    plan = proposed(people)
    for _ in range(2):
        decisions.decide_plan(plan, "approve", people.owner, "go")
    plan.refresh_from_db()
    assert (plan.state, plan.decided_by) == (BudgetPlan.State.APPROVED, people.owner)
    log = ReflectionLog.objects.get()
    assert log.risk_assessment["high_risk_factors"]
    forecast = Forecast.objects.get()
    assert forecast.probability == log.confidence["value"]
    assert Recommendation.objects.get(plan=plan).status == "approved"
    assert audit.verify("acme")["rows"] == 2
    with pytest.raises(BadInput, match="only a proposed plan"):
        decisions.decide_plan(plan, "reject", people.owner)


def test_a_newer_approved_plan_supersedes_the_older(people: People) -> None:
    first, second = proposed(people), proposed(people)
    decisions.decide_plan(first, "approve", people.owner)
    decisions.decide_plan(second, "approve", people.owner)
    first.refresh_from_db()
    assert first.state == BudgetPlan.State.SUPERSEDED


def test_only_analysts_and_ops_approve_by_api_and_strangers_find_nothing(people: People) -> None:
    plan = proposed(people)
    wish = {"budget_plan": str(plan.pk), "outcome": "approve"}
    assert people.api(people.owner).post("/api/v1/approvals/", wish, format="json").status_code == 403
    people.stranger.memberships.update(role="analyst")
    assert people.api(people.stranger).post("/api/v1/approvals/", wish, format="json").status_code == 400
    assert people.api(people.colleague).post("/api/v1/approvals/", wish, format="json").status_code == 200


def test_the_command_writes_a_trace(people: People, tmp_path: Path) -> None:
    weeks(people)
    out = tmp_path / "trace.json"
    call_command("plan", "Reallocate next month's budget after a stock-out", "--brand", "acme", "--out", str(out))
    told = json.loads(out.read_text())
    assert told["stop"] == "needs_input"
    assert told["steps"]
    assert {"tool", "arguments", "valid", "errors", "repaired", "result_digest", "seconds", "approval"} <= told[
        "steps"
    ][0].keys()
    assert told == planning.trace(AgentRun.objects.get())


class Scripted:
    """A model that says one thing after another."""

    def __init__(self, *said: Any) -> None:
        self.said = list(said)
        self.heard: list[str] = []

    def info(self) -> dict[str, Any]:
        return {"model_id": "scripted"}

    def generate(self, question: Question) -> Reply:
        self.heard.append(question.messages[-1]["content"])
        text = self.said.pop(0)
        if isinstance(text, Exception):
            raise text
        return Reply(text if isinstance(text, str) else json.dumps(text), "stop", "scripted", "", 10, 10, 0.0)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Any:
    """Lets a scripted model plan."""
    settings.RMN_INFERENCE_URL, settings.RMN_PLANNER = "http://127.0.0.1:1", "model"

    def use(*said: Any) -> Scripted:
        made = Scripted(*said)

        @contextmanager
        def served(*_: Any, **__: Any) -> Iterator[Scripted]:
            yield made

        monkeypatch.setattr(serving, "inference", served)
        return made

    return use


REACH = {
    "name": "reach",
    "sql": "SELECT segment, COUNT(DISTINCT person) AS users FROM impressions WHERE day >= :start GROUP BY segment",
    "parameters": {"start": "date"},
    "cost": 1.0,
}
READ: dict[str, Any] = {"name": "read_metrics", "arguments": {}}
DONE: dict[str, Any] = {"name": "done", "arguments": {}}


class TestByModel:
    def test_its_calls_are_done_and_their_results_told_back(self, people: People, model: Any) -> None:
        used = model(READ, DONE)
        run = run_of(people, "What was spent?")
        assert (run.source, run.stop, [step.tool for step in run.steps.all()]) == ("model", "done", ["read_metrics"])
        assert used.heard[-1].startswith("Result (data")
        assert run.trace["tokens"] == 40

    def test_a_bad_call_is_told_what_is_wrong_and_repaired(self, people: People, model: Any) -> None:
        used = model("{'name': 'read_metrics', 'arguments': {'brand': 'globex'}}", READ, DONE)
        run = run_of(people, "What was spent?")
        assert (run.stop, run.steps.get().repaired) == ("done", 1)
        assert "unexpected_param" in used.heard[1]
        assert run.trace["refused"][0]["errors"][0]["kind"] == "unexpected_param"

    @pytest.mark.parametrize(
        "bad",
        [
            '{"name": "allocate_budget"}',
            '{"name": "allocate_budget", "arguments": null}',
            '{"name": "allocate_bud',
            "[]",
        ],
    )
    def test_three_bad_calls_leave_the_goal_to_a_playbook_and_none_is_made(
        self, people: People, model: Any, bad: str
    ) -> None:
        model(bad, bad, InvalidOutput("the answer is not JSON (cut off at max_tokens)"))
        run = run_of(people, "Sing a song")
        assert (run.source, run.stop) == ("playbook", "needs_input")
        assert "no valid call" in run.trace["model"]
        assert not run.steps.filter(tool="allocate_budget").exists()

    def test_it_asks_where_an_argument_is_missing(self, people: People, model: Any) -> None:
        model({"name": "ask", "arguments": {"question": "Which budget?"}})
        run = run_of(people, "Split it")
        assert (run.stop, run.pending, run.steps.count()) == ("needs_input", {"question": "Which budget?"}, 0)

    def test_it_does_nothing_where_nothing_fits(self, people: People, model: Any) -> None:
        model({"name": "nothing", "arguments": {"why": "no tool sings"}})
        run = run_of(people, "Sing a song")
        assert (run.stop, run.steps.count()) == ("done", 0)

    @pytest.mark.parametrize(
        ("limits", "stop"), [({"steps": 2}, "step_limit"), ({"tokens": 45}, "budget"), ({"cost": 0.00003}, "budget")]
    )
    def test_its_limits_hold(self, people: People, model: Any, limits: Any, stop: str, settings: Any) -> None:
        settings.RMN_TOKEN_PRICE = 1.0
        model(*[{"name": "harmonize_status", "arguments": {"days": day}} for day in range(1, 10)])
        run = services.wish_for_plan(brand=people.brand, goal="Read on and on", limits=limits)
        tasks.plan(str(run.pk), tenant=run.tenant)
        run.refresh_from_db()
        assert (run.stop, run.steps.count()) == (stop, 2 if stop == "step_limit" else run.steps.count())
        assert run.steps.count() <= 3

    def test_a_call_that_goes_round_is_refused_and_the_next_one_taken(self, people: People, model: Any) -> None:
        used = model(READ, READ, DONE)
        run = run_of(people, "What was spent?")
        assert (run.stop, [step.tool for step in run.steps.all()]) == ("done", ["read_metrics"])
        assert "step 0 did just this" in used.heard[2]

    def test_a_model_that_only_goes_round_leaves_the_goal_to_a_playbook(self, people: People, model: Any) -> None:
        model(*[READ] * 4)
        run = run_of(people, "Sing a song")
        assert (run.source, run.stop, run.steps.count()) == ("playbook", "needs_input", 1)
        assert "did just this" in run.trace["model"]

    def test_a_step_cut_off_by_a_kill_is_done_once_and_told_to_the_model(
        self, people: People, model: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def dies(*_: Any) -> None:
            raise Killed

        run = services.wish_for_plan(brand=people.brand, goal="What was spent?")
        model(READ)
        with monkeypatch.context() as patch:
            patch.setitem(planning.DO, "read_metrics", dies)
            with pytest.raises(Killed):
                tasks.plan(str(run.pk), tenant=run.tenant)
        AgentRun.objects.filter(pk=run.pk).update(status="queued", lease_until=None)
        used = model(DONE)
        tasks.plan(str(run.pk), tenant=run.tenant)
        run.refresh_from_db()
        assert (run.stop, run.steps.count(), run.steps.get().errors) == ("done", 1, [])
        assert used.heard[0].startswith("Result (data")

    def test_the_embedded_model_is_not_trusted_with_plans(
        self, people: People, model: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.RMN_PLANNER = "auto"
        used = model(READ)
        monkeypatch.setattr(used, "info", lambda: {"model_id": base.MODEL_ID})
        run = run_of(people, "Sing a song")
        assert (run.source, used.heard) == ("playbook", [])
        assert "too small" in run.trace["model"]

    def test_a_brands_gated_planning_adapter_answers_also_over_the_small_base(
        self, people: People, model: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.RMN_PLANNER = "auto"
        adapter = Adapter.objects.create(
            brand=people.brand, digest="a" * 64, task="planning", state=Adapter.State.PUBLISHED
        )
        AdapterAlias.objects.create(scope=adapter.scope, brand=people.brand, name="champion", adapter=adapter)
        used, asked = model(READ, DONE), []
        monkeypatch.setattr(used, "info", lambda: {"model_id": base.MODEL_ID})
        answer = used.generate

        def generate(question: Question) -> Reply:
            asked.append(question.adapter)
            return replace(answer(question), model=question.adapter or "base")

        monkeypatch.setattr(used, "generate", generate)
        run = run_of(people, "What was spent?")
        assert (run.source, run.stop, set(asked)) == ("model", "done", {adapter.digest})
        assert set(Generation.objects.values_list("task", "adapter_digest")) == {("planning", adapter.digest)}


@pytest.mark.parametrize("limits", [{"stepps": 1}, {"steps": 0}, {"seconds": "9"}, {"cost": True}])
def test_limits_that_cannot_be_meant_are_refused(people: People, limits: Any) -> None:
    with pytest.raises(BadInput, match="limits"):
        services.wish_for_plan(brand=people.brand, goal="x", limits=limits)


QUARTERLY = next(one for one in playbooks.PLAYBOOKS if one.name == "quarterly_plan")


def test_no_playbook_goes_round() -> None:
    for one in playbooks.PLAYBOOKS:
        called = [tool for tool, _ in one.steps]
        assert len(set(called)) == len(called)


@pytest.mark.parametrize("source", ["playbook", "model"])
def test_a_tool_that_breaks_is_named_and_ends_the_run(
    people: People, model: Any, monkeypatch: pytest.MonkeyPatch, source: str, settings: Any
) -> None:
    def breaks(*_: Any) -> None:
        raise ZeroDivisionError("float division by zero")

    model({"name": "harmonize_status", "arguments": {}})
    settings.RMN_PLANNER = source
    with monkeypatch.context() as patch:
        patch.setitem(planning.DO, "harmonize_status", breaks)
        run = run_of(people, "Plan the budget")
    assert (run.status, run.stop, run.source) == ("failed", "error", source)
    assert run.steps.get().errors[0]["kind"] == "ZeroDivisionError"
    assert "division by zero" in people.web(people.colleague).get(f"/plans/{run.pk}").content.decode()
    settings.RMN_PLANNER = "playbook"
    run.retry()
    tasks.plan(str(run.pk), tenant=run.tenant)  # mended: the step is taken again, the trace keeps both
    run.refresh_from_db()
    assert [bool(step.errors) for step in run.steps.filter(tool="harmonize_status")] == [True, False]


class Killed(BaseException):
    """The worker is gone: nothing after it runs."""


@pytest.mark.parametrize("tool", [tool for tool, _ in playbooks.steps(QUARTERLY, "Plan the budget of next quarter")])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_killed_at_any_step_goes_on_and_does_nothing_twice(
    people: People, tool: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weeks(people)
    work = planning.DO[tool]

    def dies(step: Any, asked: Any) -> Any:
        if moment == "after":
            work(step, asked)
        raise Killed

    run = services.wish_for_plan(brand=people.brand, goal="Plan the budget of next quarter")
    with monkeypatch.context() as patch:
        patch.setitem(planning.DO, tool, dies)
        with pytest.raises(Killed):
            tasks.plan(str(run.pk), tenant=run.tenant)
    # its lease runs out, and the sweep hands it to another worker
    AgentRun.objects.filter(pk=run.pk).update(status="queued", lease_until=None)
    tasks.plan(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert run.stop == "needs_input"
    assert [step.number for step in run.steps.all()] == list(range(run.steps.count()))
    assert (BudgetPlan.objects.count(), CurveFit.objects.count(), Recommendation.objects.count()) == (1, 1, 1)


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that writes one headline after another."""
    said = itertools.cycle(["Oat biscuits", "Oat biscuits by Acme", "Acme oat biscuits"])

    class Writer:
        def generate(self, question: Question) -> Reply:
            return Reply(next(said), "stop", "writer", "", 1, 1, 0.0)

    @contextmanager
    def served(*_: Any, **__: Any) -> Iterator[Writer]:
        yield Writer()

    monkeypatch.setattr(serving, "inference", served)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A clean room at the other end of the line; what it was asked, by the question's own key."""
    asked: list[Any] = []

    def fetch(_method: str, _url: str, *, headers: Any, **__: Any) -> outbound.Answer:
        asked.append(headers["Idempotency-Key"])
        return outbound.Answer(200, {}, json.dumps({"rows": [{"segment": "a", "users": 900}]}).encode())

    monkeypatch.setattr(outbound, "check", lambda _: None)
    monkeypatch.setattr(outbound, "fetch", fetch)
    return asked


CALLS: dict[str, dict[str, Any]] = {
    "design_experiment": {"duration": 4, "most_units": 4},
    "write_copy": {"product": "Oat biscuits", "variants": 2},
    "query_clean_room": {"connection": "own room", "template": "reach", "parameters": {"start": "2026-01-01"}},
}


@pytest.mark.parametrize("tool", CALLS)
@pytest.mark.parametrize("moment", ["before", "midway", "after"])
def test_a_tool_killed_at_any_moment_is_named_taken_up_once_and_has_its_effect_once(
    people: People, tool: str, moment: str, writer: None, answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores(people)
    room = CleanRoomConnectionFactory(
        brand=people.brand, retailer=people.retailer, name="own room", endpoint="https://room.example",
        sealed_key=sealing.seal("secret", str(people.brand.uuid)), budget_units=5, templates=[REACH],
    )  # fmt: skip
    run = services.wish_for_plan(brand=people.brand, retailer=people.retailer, goal="By hand")
    monkeypatch.setattr(planning, "_by_model", lambda *_: False)
    monkeypatch.setattr(playbooks, "choose", lambda _: QUARTERLY)
    monkeypatch.setattr(playbooks, "steps", lambda *_: [(tool, CALLS[tool])])
    work, midway = planning.DO[tool], {"design_experiment": (campaign_designs, "design"), "write_copy": (serving, "ask"), "query_clean_room": (rooms, "wish")}  # fmt: skip

    def dies(*_: Any, **__: Any) -> Any:
        raise Killed

    def done_and_dies(step: Any, asked: Any) -> Any:
        work(step, asked)
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "midway":
            patch.setattr(*midway[tool], dies)
        else:
            patch.setitem(planning.DO, tool, dies if moment == "before" else done_and_dies)
        with pytest.raises(Killed):
            tasks.plan(str(run.pk), tenant=run.tenant)
    cut_off = run.steps.get()
    assert (cut_off.tool, cut_off.finished_at) == (tool, None)  # named, and begun
    for model in (AgentRun, Experiment, CleanRoomQuery):  # the leases run out, and the sweep hands the run on
        model.objects.filter(status="running").update(status="queued", lease_until=None)
    tasks.plan(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    step = run.steps.get()  # taken up, not begun anew
    assert (step.pk, step.errors, bool(step.finished_at)) == (cut_off.pk, [], True)
    if tool == "design_experiment":
        assert (Experiment.objects.count(), run.stop) == (1, "needs_input")
        assert ReflectionLog.objects.filter(subject=Experiment.objects.get().pk).count() == 1
    elif tool == "write_copy":
        assert (Recommendation.objects.filter(task="creative").count(), run.stop) == (2, "done")
        assert len(step.result["offered"]) == 2
    else:
        assert (CleanRoomQuery.objects.get().state, step.approval, run.stop) == ("proposed", "waiting", "needs_input")
        assert (answers, room.ledger.count()) == ([], 0)  # nothing is sent or paid before people approve
        assert ReflectionLog.objects.filter(subject=CleanRoomQuery.objects.get().pk).count() == 1


@pytest.fixture
def room(people: People) -> Any:
    return CleanRoomConnectionFactory(
        brand=people.brand, retailer=people.retailer, name="own room", endpoint="https://room.example",
        sealed_key=sealing.seal("secret", str(people.brand.uuid)), budget_units=1, templates=[REACH],
    )  # fmt: skip


def asked(people: People, model: Any, *, by: Any = None, **changed: Any) -> AgentRun:
    """A run whose model proposes a question to the room."""
    model({"name": "query_clean_room", "arguments": {**CALLS["query_clean_room"], **changed}}, DONE)
    run = services.wish_for_plan(brand=people.brand, goal="How many saw it?", by=by)
    tasks.plan(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    return run


@pytest.mark.parametrize("moment", ["before", "midway", "after"])
def test_an_approved_question_killed_at_any_moment_is_paid_and_seen_by_the_room_once(
    people: People, model: Any, room: Any, answers: list[Any], moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asked(people, model)
    for _ in range(2):  # approving twice changes nothing
        run = decisions.decide_run(run, "approve", people.colleague)
    query = CleanRoomQuery.objects.get()
    assert (query.state, query.status, run.stop, answers) == ("intent", "queued", "done", [])
    send = outbound.fetch

    def dies(*_: Any, **__: Any) -> Any:
        raise Killed

    def sent_and_dies(*given: Any, **named: Any) -> Any:
        send(*given, **named)
        raise Killed

    place = {"before": (rooms, "_reserve", dies), "midway": (outbound, "fetch", dies), "after": (outbound, "fetch", sent_and_dies)}  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(*place[moment])
        with pytest.raises(Killed):
            tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
    CleanRoomQuery.objects.filter(status="running").update(status="queued", lease_until=None)
    for _ in range(2):  # the broker delivers twice
        tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
    decisions.decide_question(query, "approve", people.ops)
    query.refresh_from_db()
    assert (query.state, CleanRoomQuery.objects.count(), set(answers)) == ("released", 1, {query.pk.hex})
    assert list(room.ledger.values_list("entry", flat=True).order_by("entry")) == ["reserve", "spend"]
    step = planning.trace(run)["steps"][0]
    assert (step["approval"], step["decided_by"]) == ("approved", people.colleague.username)


def test_a_rejected_question_is_never_sent(people: People, model: Any, room: Any, answers: list[Any]) -> None:
    run = decisions.decide_run(asked(people, model), "reject", people.colleague, "not worth it")
    query = CleanRoomQuery.objects.get()
    tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
    query.retry()
    with pytest.raises(BadInput, match="rejected"):
        decisions.decide_question(query, "approve", people.colleague)
    query.refresh_from_db()
    assert (query.state, run.stop, planning.trace(run)["steps"][0]["approval"]) == ("rejected", "rejected", "rejected")
    assert (answers, room.ledger.count()) == ([], 0)


def test_an_approved_question_expects_rows_and_its_answer_says_whether_they_came(
    people: People, model: Any, room: Any, answers: list[Any]
) -> None:
    decisions.decide_run(asked(people, model), "approve", people.colleague)
    query, claim = CleanRoomQuery.objects.get(), Forecast.objects.get()
    assert (claim.metric, claim.value, claim.status, claim.made_by) == ("rows", 1, "open", people.colleague)
    assert claim.probability == claim.reflection.confidence["value"]  # type: ignore[union-attr]
    assert forecasts.resolve_ready([claim], claim.due)["open"] == 1  # nobody has answered yet
    tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
    query.refresh_from_db()
    forecasts.resolve_ready([claim], timezone.now().date())
    claim.refresh_from_db()
    assert (claim.status, claim.happened) == ("resolved", bool(query.result["rows"]))


def test_no_sweep_and_no_message_sends_a_question_that_waits(people: People, model: Any, room: Any, answers: list[Any]) -> None:  # fmt: skip
    asked(people, model)
    query = CleanRoomQuery.objects.get()
    assert not CleanRoomQuery.objects.lost(timezone.now() + dt.timedelta(days=9)).exists()
    tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
    CleanRoomQuery.objects.update(status="queued")  # even so
    tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
    query.refresh_from_db()
    assert (query.state, answers, room.ledger.count()) == ("proposed", [], 0)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"connection": "other room"}, "none of that name"),
        ({"template": "all"}, "this clean room has reach"),
        ({"parameters": {}}, "were expected"),
        ({"parameters": {"start": "soon"}}, "a date such as"),
    ],
)
def test_a_question_that_cannot_be_asked_is_not_proposed(
    people: People, model: Any, room: Any, answers: list[Any], wrong: Any, named: str
) -> None:
    run = asked(people, model, **wrong)
    assert named in run.steps.get().errors[0]["message"]
    assert (CleanRoomQuery.objects.count(), run.steps.get().approval, answers) == (0, "not_needed", [])


def test_a_question_over_the_budget_is_neither_proposed_nor_approved(
    people: People, model: Any, room: Any, answers: list[Any]
) -> None:
    first, second = asked(people, model), asked(people, model)
    decisions.decide_run(first, "approve", people.colleague)
    query = CleanRoomQuery.objects.get(state="intent")
    tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
    with pytest.raises(rooms.RoomRefused, match="0 of 1 are left"):
        decisions.decide_run(second, "approve", people.colleague)
    second.refresh_from_db()
    assert (second.stop, CleanRoomQuery.objects.filter(state="proposed").count()) == ("needs_input", 1)
    third = asked(people, model)
    assert "0 of 1 are left" in third.steps.get().errors[0]["message"]
    assert (len(answers), CleanRoomQuery.objects.count()) == (1, 2)


def test_a_reviewed_question_changed_since_it_was_proposed_is_not_sent(
    people: People, model: Any, room: Any, answers: list[Any]
) -> None:
    run = asked(people, model)
    room.templates = [{**REACH, "sql": REACH["sql"].replace("impressions", "purchases")}]
    assert room.templates != [REACH]
    room.save()
    with pytest.raises(BadInput, match="changed since"):
        decisions.decide_run(run, "approve", people.colleague)
    assert (CleanRoomQuery.objects.get().state, answers) == ("proposed", [])


def test_a_word_on_a_question_is_taken_back_until_somebody_sends_it(
    people: People, model: Any, room: Any, answers: list[Any]
) -> None:
    run = asked(people, model)
    for outcome in ("approve", "reject"):
        run = decisions.decide_run(run, outcome, people.colleague)
        decisions.undo_last(run, people.colleague)
        query = CleanRoomQuery.objects.get()
        tasks.ask_clean_room(str(query.pk), tenant=query.tenant)  # the message that was on its way
        run.refresh_from_db()
        assert (CleanRoomQuery.objects.get().state, run.stop, answers) == ("proposed", "needs_input", [])
    decisions.decide_run(run, "approve", people.colleague)
    tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
    with pytest.raises(BadInput, match="sent by now"):
        decisions.undo_last(run, people.colleague)
    assert len(answers) == 1


def test_a_rule_can_ask_four_eyes_of_questions(people: People, model: Any, room: Any, answers: list[Any]) -> None:
    ApprovalRule.objects.create(brand=people.brand, pattern="query_*", people=2)
    run = asked(people, model)
    run = decisions.decide_run(run, "approve", people.colleague)
    assert (CleanRoomQuery.objects.get().state, run.stop) == ("proposed", "needs_input")
    run = decisions.decide_run(run, "approve", people.ops)
    assert (CleanRoomQuery.objects.get().state, run.stop) == ("intent", "done")


def test_a_proposed_question_is_decided_at_every_door(people: People, model: Any, room: Any, answers: list[Any]) -> None:  # fmt: skip
    run = asked(people, model, by=people.owner)
    query = CleanRoomQuery.objects.get()
    web = people.web(people.colleague)
    for page in ("/inbox/", f"/plans/{run.pk}", f"/clean-rooms/questions/{query.pk}", "/decisions/"):
        assert "own room" in web.get(page).content.decode()
        assert "own room" not in people.web(people.stranger).get(page).content.decode()
    assert "Approve" not in people.web(people.owner).get("/inbox/").content.decode()
    for who in (people.owner, people.stranger):  # nobody who may not decide
        people.web(who).post(f"/inbox/question/{query.pk}/approve")
        assert CleanRoomQuery.objects.get().state == "proposed"
    waits = web.get("/api/v1/approvals/").json()["waiting"]
    assert [row["clean_room_query"] for row in waits] == [str(query.pk)]
    told = web.post(f"/inbox/question/{query.pk}/reject", headers={"HX-Request": "true"}).content.decode()
    assert "nothing is sent" in told
    run = asked(people, model, by=people.owner)
    sent = web.post("/api/v1/approvals/", {"clean_room_query": str(CleanRoomQuery.objects.get(state="proposed").pk), "outcome": "approve"}, content_type="application/json")  # fmt: skip
    assert (sent.status_code, sent.json()["state"]) == (200, "intent")
    query = CleanRoomQuery.objects.get(state="intent")
    tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
    page = web.get(f"/plans/{run.pk}").content.decode()
    assert "checked and shown" in page
    room.budget_units = 2
    room.save()
    asked(people, model, by=people.owner)
    last = CleanRoomQuery.objects.get(state="proposed")
    people.web(people.ops).post(
        "/admin/agents/cleanroomquery/", {"action": "approve", "_selected_action": [str(last.pk)], "confirmed": "yes"}
    )
    last.refresh_from_db()
    assert (last.state, len(answers)) == ("intent", 1)


def test_a_tool_that_hangs_is_cut_off_and_named(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(planning.DO, "harmonize_status", lambda *_: time.sleep(30))
    run = services.wish_for_plan(brand=people.brand, goal="Plan the budget", limits={"tool_seconds": 0.2})
    tasks.plan(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert run.stop == "needs_input"
    assert run.steps.get().errors[0]["kind"] == "ToolTimedOut"


def test_no_tool_outlasts_its_run(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(planning.DO, "harmonize_status", lambda *_: time.sleep(30))
    run = services.wish_for_plan(brand=people.brand, goal="Plan the budget", limits={"seconds": 0.5})
    tasks.plan(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert (run.stop, run.trace["limit"].partition(":")[0]) == ("budget", "seconds")
    assert run.steps.get().errors[0]["kind"] == "ToolTimedOut"


def test_who_may_not_ask_a_clean_room_does_not_by_a_goal_either(
    people: People, model: Any, room: Any, answers: list[Any]
) -> None:
    for who in (people.owner, people.colleague, None):  # nor does who may, before somebody approves
        run = asked(people, model, by=who)
        assert (run.stop, run.steps.get().approval, answers) == ("needs_input", "waiting", [])


@pytest.mark.parametrize(
    "address", ["/plans/", "/inbox/", "/decisions/", "/forecasts/", "/forecasts/?show=resolved", "/forecasts/?show=due"]
)
def test_pages_of_plans_and_decisions_open_for_members(people: People, address: str) -> None:
    weeks(people)
    run = run_of(people, "Plan the budget of our Zephyr quarter")
    decisions.decide_run(run, "approve", people.colleague)
    for who in (people.owner, people.colleague, people.stranger, people.ops):
        page = people.web(who).get(address)
        assert page.status_code == 200
        if who is people.stranger:
            assert "Zephyr" not in page.content.decode()


def test_a_goal_becomes_a_page_with_steps_and_a_decision(people: People) -> None:
    weeks(people)
    client = people.web(people.owner)
    sent = client.post("/plans/", {"brand": "acme", "goal": "Plan the budget of next quarter"})
    run = AgentRun.objects.get()
    assert sent["Location"] == f"/plans/{run.pk}"
    assert "Waits for a worker" in client.get(sent["Location"]).content.decode()
    tasks.plan(str(run.pk), tenant=run.tenant)
    page = client.get(sent["Location"], headers={"HX-Request": "true"})
    assert page.status_code == 286
    assert "Split the budget" in page.content.decode()
    assert client.get(sent["Location"] + "?export=json").json()["stop"] == "needs_input"
    assert people.web(people.stranger).get(sent["Location"]).status_code == 404
    plan = BudgetPlan.objects.get()
    changed = people.web(people.colleague).post(
        f"/budgets/{plan.pk}/change", {"total_budget": round(float(plan.total_budget) / 2, 2)}
    )
    assert changed.status_code == 302, changed.content.decode()[-2000:]
    log = ReflectionLog.objects.filter(subject=BudgetPlan.objects.get(state="proposed").pk).get()
    journal = people.web(people.owner).get(f"/decisions/{log.uuid}").content.decode()
    assert "What could go wrong" in journal
    assert people.web(people.stranger).get(f"/decisions/{log.uuid}").status_code == 404


def test_people_say_theirs_on_the_forecasts_page_before_they_see_others(people: People) -> None:
    plan = proposed(people)
    decisions.decide_plan(plan, "approve", people.colleague)
    row = Forecast.objects.get()
    client = people.web(people.owner)
    assert "Say yours" in client.get(f"/forecasts/{row.uuid}").content.decode()
    client.post(f"/forecasts/{row.uuid}/say", {"probability": "35"})
    assert Forecast.objects.get(agent="", made_by=people.owner).probability == 0.35
    assert people.web(people.stranger).get(f"/forecasts/{row.uuid}").status_code == 404
    people.web(people.colleague).post(f"/forecasts/{row.uuid}/resolve", {"observed": "1e12", "note": "invoice"})
    row.refresh_from_db()
    assert row.happened

"""Goals become steps, proposals wait for a person, decisions happen once and leave their reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st

from agents import decisions, planning, services, tasks
from agents.domain import playbooks, tools
from agents.models import AgentRun, Forecast, ReflectionLog
from campaigns.models import BudgetPlan, Recommendation
from campaigns.tasks import propose
from retailers import audit
from rmn.lib.errors import BadInput
from tests.campaigns.budgets import problem as made_problem
from tests.campaigns.test_doors import weeks
from tests.conftest import People
from tests.factories import BudgetPlanFactory

pytestmark = pytest.mark.django_db


def run_of(people: People, goal: str, brand: Any = None) -> AgentRun:
    run = services.wish_for_plan(brand=brand or people.brand, goal=goal)
    tasks.plan(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    return run


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

"""Words of people on what waits: by rule, once, with reasons; reflections that stop, go on and reopen."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.utils import timezone

from agents import decisions, forecasts, journal, signs, tasks
from agents.domain import approval, memory
from agents.domain.approval import Rule
from agents.models import AdapterAlias, Approval, ApprovalRule, Deployment, Forecast, Generation, ReflectionLog
from campaigns.models import BudgetPlan, Experiment, Recommendation
from retailers.models import PerformanceMetric
from rmn.lib.errors import BadInput
from tests.agents.test_planning import proposed, run_of, stores
from tests.campaigns.test_doors import MONDAY, weeks
from tests.conftest import People
from tests.factories import AdapterFactory, ExperimentFactory, FeedbackFactory, ForecastFactory, ReflectionFactory

EXAMPLE = {
    "alternate_frames": ["cost vs. benefit"],
    "risk_assessment": {"high_risk_factors": [
        {"factor": "market volatility", "severity": "medium", "probability": 0.6, "impact": "10-15% efficiency decrease", "mitigation": "reserve 15% for reallocation"},
    ]},
    "bias_checkpoint": "availability",
    "biases": [{"type": "availability", "note": "one good quarter is remembered"}],
    "confidence": {"value": 0.75, "rationale": "two quarters", "supporting": ["3.2x in Q3"], "contradicting": ["a new rival"]},
    "decision_threshold": "confidence >= 0.8 OR validation from risk team",
}  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "amount", "people"),
    [
        ("allocate_budget", 99, 1),
        ("allocate_budget", 100, 2),
        ("allocate_budget", 5000, 3),
        ("deploy_adapter", None, 0),
        ("deploy_other", 5000, 0),
        ("write_copy", 5000, 1),
    ],
)
def test_the_rule_that_asks_for_most_holds(tool: str, amount: int | None, people: int) -> None:
    rules = [
        Rule("allocate_*", Decimal(100), 2),
        Rule("allocate_budget", Decimal(1000), 3),
        Rule("deploy_*", Decimal(0), 0),
    ]
    assert approval.needed(rules, tool, None if amount is None else Decimal(amount)) == people


def test_the_installations_limit_holds_beside_any_rule() -> None:
    assert approval.needed([Rule("*", Decimal(0), 0)], "allocate_budget", Decimal(500), Decimal(500)) == 2
    assert approval.needed([], "allocate_budget", Decimal(499), Decimal(500)) == 1


def test_like_cases_are_remembered_by_their_words() -> None:
    texts = [
        "similar budget allocation for Q3 2024, achieved 3.2x ROAS",
        "headline for oat drink",
        "geo test in Ohio",
    ]
    found = memory.recall("budget allocations of Q3", texts)
    assert [one.place for one in found] == [0]
    assert memory.recall("zebra", texts) == []
    assert memory.recall("geo test", [texts[2], texts[2]])[0].place == 1  # of equals the later one
    assert memory.recall(texts[1], texts)[0].likeness == pytest.approx(1.0)


@pytest.mark.django_db
class TestApproved:
    def test_above_the_limit_two_people_must_approve(self, people: People) -> None:
        ApprovalRule.objects.create(brand=people.brand, pattern="allocate_*", above=1, people=2)
        plan = proposed(people)
        for _ in range(2):  # the same person twice is one word
            assert decisions.decide_plan(plan, "approve", people.colleague, "go").state == BudgetPlan.State.PROPOSED
        assert Forecast.objects.count() == 0
        assert decisions.decide_plan(plan, "approve", people.ops, "me too").state == BudgetPlan.State.APPROVED
        assert [word.by for word in Approval.objects.order_by("pk")] == [people.colleague, people.ops]
        assert Forecast.objects.count() == 1

    def test_a_rule_of_another_brand_says_nothing_here(self, people: People) -> None:
        ApprovalRule.objects.create(brand=people.other, pattern="*", above=0, people=2)
        assert decisions.needed(proposed(people)) == 1

    def test_a_changed_plan_is_solved_anew_and_waits_with_its_diff(self, people: People) -> None:
        weeks(people)
        run = run_of(people, "Plan the budget of next quarter")
        plan = BudgetPlan.objects.get()
        arm = plan.allocations[0]["id"]
        half = float(plan.total_budget) / 2
        made = decisions.change_plan(plan, {"total_budget": half}, people.colleague, "half of it")
        plan.refresh_from_db()
        run.refresh_from_db()
        step = run.steps.get(tool="allocate_budget")
        assert (plan.state, made.state) == (BudgetPlan.State.SUPERSEDED, BudgetPlan.State.PROPOSED)
        assert {change["path"] for change in step.changes} >= {"total_budget", arm}
        assert step.result["proposal"] == str(made.pk)
        assert run.stop == "needs_input"
        decisions.decide_run(run, "approve", people.colleague)
        run.refresh_from_db()
        step.refresh_from_db()
        assert (run.stop, step.approval) == ("done", "modified")
        assert Recommendation.objects.get(plan=plan).status == "withdrawn"

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({}, "changes"),
            ({"brand": "globex"}, "brand"),
            ({"total_budget": -1}, "above 0"),
            ({"total_budget": True}, "above 0"),
            ({"limits": {"nobody": {"max": 1}}}, "no arm"),
            ({"unavailable": ["nobody"]}, "no arm"),
        ],
    )
    def test_changes_that_cannot_be_meant_are_named(self, people: People, changes: dict[str, Any], said: str) -> None:
        with pytest.raises(BadInput, match=said):
            decisions.change_plan(proposed(people), changes, people.colleague)

    def test_nothing_passes_by_itself_before_confidence_was_scored_often_enough(self, people: People) -> None:
        ApprovalRule.objects.create(brand=people.brand, pattern="*", above=0, people=0)
        weeks(people)
        assert run_of(people, "Plan the budget of next quarter").stop == "needs_input"

    def test_a_test_is_approved_with_a_forecast_of_its_lift(self, people: People) -> None:
        row = ExperimentFactory(
            brand=people.brand, retailer=people.retailer, kind="geo", state="designed", status="succeeded",
            design={"best": {"units": ["a"], "mde": 0.08}}, spec={"duration": 6},
        )  # fmt: skip
        decisions.decide_experiment(row, "approve", people.colleague)
        row.refresh_from_db()
        assert (row.state, bool(row.registered_hash)) == (Experiment.State.APPROVED, True)
        claim = Forecast.objects.get()
        assert (claim.metric, claim.value, claim.reflection.phase) == ("lift_percent", 8.0, "execution")  # type: ignore[union-attr]

    def test_a_test_is_rejected_and_its_run_ends(self, people: People) -> None:
        stores(people)
        run = run_of(people, "Prove that the mailings bring incremental sales", retailer=people.retailer)
        assert run.stop == "needs_input", run.steps.last().errors
        decisions.decide_run(run, "reject", people.colleague, "too dear")
        run.refresh_from_db()
        assert (run.stop, Experiment.objects.get().state) == ("rejected", Experiment.State.STOPPED)
        assert Forecast.objects.count() == 0

    def test_a_changed_test_is_designed_anew_and_waits_with_its_diff(self, people: People) -> None:
        stores(people)
        run = run_of(people, "Prove that the mailings bring incremental sales", retailer=people.retailer)
        test = Experiment.objects.get()
        wish = {"agent_run": str(run.pk), "outcome": "modify", "changes": {"most_units": 4, "duration": 4}}
        told = people.api(people.colleague).post("/api/v1/approvals/", wish, format="json")
        assert told.status_code == 200, told.content
        assert {"path": "duration", "old": 6, "new": 4} in told.json()["changes"]
        made = Experiment.objects.exclude(pk=test.pk).get()
        step = run.steps.get(tool="design_experiment")
        assert (step.result["proposal"], len(made.design["best"]["units"])) == (str(made.pk), 4)
        decisions.undo_last(test, people.colleague)
        test.refresh_from_db()
        made.refresh_from_db()
        assert (test.state, made.state) == (Experiment.State.DESIGNED, Experiment.State.STOPPED)
        page = people.web(people.colleague).post(
            f"/inbox/experiment/{test.pk}/change", {"duration": 5, "most_units": 6}
        )
        assert page.status_code == 302, page.content.decode()[-2000:]
        decisions.decide_run(run, "approve", people.colleague)
        run.refresh_from_db()
        step.refresh_from_db()
        assert (run.stop, step.approval) == ("done", "modified")
        for bad in ({"duration": 0}, {"brand": "globex"}, {}):
            with pytest.raises(BadInput):
                decisions.change_experiment(test, bad, people.colleague)

    @pytest.mark.parametrize("door", ["page", "api", "console"])
    def test_no_door_lets_a_test_run_that_two_people_must_approve(self, people: People, door: str) -> None:
        ApprovalRule.objects.create(brand=people.brand, pattern="design_*", above=0, people=2)
        row = ExperimentFactory(
            brand=people.brand, retailer=people.retailer, kind="geo", state="designed", status="succeeded",
            design={"best": {"units": ["a"], "mde": 0.08}}, spec={"duration": 6},
        )  # fmt: skip
        for who in (people.ops, people.colleague):
            assert row.state == Experiment.State.DESIGNED
            if door == "page":
                people.web(who).post(f"/experiments/{row.pk}/approve")
            elif door == "api":
                people.api(who).post(f"/api/v1/experiments/{row.pk}/approve/", {}, format="json")
            elif who is people.ops:
                wish = {"action": "approve", "_selected_action": [str(row.pk)], "confirmed": "yes"}
                people.web(who).post("/admin/campaigns/experiment/", wish)
            row.refresh_from_db()
        if door != "console":  # analysts have none
            assert (row.state, Forecast.objects.count()) == (Experiment.State.APPROVED, 1)

    def test_the_console_asks_in_a_dialog_before_a_plan_is_approved(self, people: People) -> None:
        plan, web = proposed(people), people.web(people.ops)
        page = f"/admin/campaigns/budgetplan/{plan.pk}/"
        asked = web.get(f"{page}approve_plan/").content.decode()
        assert "Approve this plan?" in asked
        assert f"/budgets/{plan.pk}" in asked  # what is decided on stands in the question
        plan.refresh_from_db()
        assert plan.state == BudgetPlan.State.PROPOSED
        assert f"{page}approve_plan/" in web.get(f"{page}change/").content.decode()
        done = web.post(f"{page}approve_plan/", {"note": "as last year", "_form_submitted": "on"})
        assert done["HX-Redirect"] == f"{page}change/"
        plan.refresh_from_db()
        assert (plan.state, plan.decision_note) == (BudgetPlan.State.APPROVED, "as last year")
        assert Forecast.objects.count() == 1
        assert f"{page}approve_plan/" not in web.get(f"{page}change/").content.decode()
        assert web.get(f"{page}reject_plan/").status_code == 403  # it waits no more

    def test_plans_chosen_in_the_console_are_decided_on_after_a_question(self, people: People) -> None:
        plan = proposed(people)
        wish = {"action": "reject", "_selected_action": [str(plan.pk)]}
        asked = people.web(people.ops).post("/admin/campaigns/budgetplan/", wish).content.decode()
        assert "what they offered is withdrawn" in asked
        plan.refresh_from_db()
        assert plan.state == BudgetPlan.State.PROPOSED
        people.web(people.ops).post("/admin/campaigns/budgetplan/", {**wish, "confirmed": "yes"})
        plan.refresh_from_db()
        assert plan.state == BudgetPlan.State.REJECTED

    def test_an_adapter_waits_for_as_many_as_the_rules_ask(self, people: People) -> None:
        ApprovalRule.objects.create(brand=people.brand, pattern="deploy_adapter", above=0, people=2)
        row = AdapterFactory(brand=people.brand, retailer=people.retailer)
        assert decisions.decide_adapter(row, "approve", people.ops) is None
        assert Deployment.objects.count() == 0
        run = decisions.decide_adapter(row, "approve", people.colleague)
        assert run is not None
        claim = Forecast.objects.get()
        assert (claim.subject, claim.adapter_digest) == ({"adapter": row.digest}, row.digest)
        assert f"{row.digest[:12]}" in people.web(people.ops).get("/inbox/").content.decode()  # at the gate

    def test_only_deciders_of_the_brand_decide_and_strangers_find_nothing(self, people: People) -> None:
        plan = proposed(people)
        address = f"/inbox/plan/{plan.pk}/approve"
        people.web(people.owner).post(address)
        assert people.web(people.stranger).post(address).status_code == 404
        plan.refresh_from_db()
        assert plan.state == BudgetPlan.State.PROPOSED
        card = people.web(people.colleague).post(address, headers={"HX-Request": "true"})
        assert "is approved" in card.content.decode()

    def test_the_api_changes_and_approves(self, people: People) -> None:
        plan = proposed(people)
        api = people.api(people.colleague)
        half = round(float(plan.problem["total_budget"]) / 2, 2)
        wish = {"budget_plan": str(plan.pk), "outcome": "modify", "changes": {"total_budget": half}}
        answer = api.post("/api/v1/approvals/", wish, format="json")
        assert answer.status_code == 200, answer.content
        told = answer.json()
        assert told["replaces"] == str(plan.pk)
        assert {"path": "total_budget", "old": float(plan.total_budget), "new": half} in told["changes"]
        done = api.post("/api/v1/approvals/", {"budget_plan": told["budget_plan"], "outcome": "approve"}, format="json")
        assert done.json()["state"] == "approved"
        assert len(api.get("/api/v1/approvals/").json()["said"]) == 2


@pytest.mark.django_db
class TestTakenBack:
    def test_an_approval_is_undone_with_all_that_it_changed(self, people: People) -> None:
        before = proposed(people)
        decisions.decide_plan(before, "approve", people.ops)
        weeks(people)
        run = run_of(people, "Plan the budget of next quarter")
        plan = BudgetPlan.objects.exclude(pk=before.pk).get()
        BudgetPlan.objects.filter(pk=before.pk).update(retailer=plan.retailer)
        stood = journal.standing(journal.about(plan))
        decisions.decide_plan(plan, "approve", people.colleague, "go")
        word = Approval.objects.get(subject=plan.pk)
        decisions.undo(word, people.colleague)
        decisions.undo(word, people.colleague)  # twice changes nothing
        plan.refresh_from_db()
        before.refresh_from_db()
        run.refresh_from_db()
        assert (plan.state, plan.decided_by, before.state) == (
            BudgetPlan.State.PROPOSED,
            None,
            BudgetPlan.State.APPROVED,
        )
        log = journal.about(plan)
        assert journal.standing(log) == stood
        assert "taken back" in log.outcome
        claim = Forecast.objects.get(reflection=log)
        assert (claim.status, claim.resolution["note"]) == ("unresolvable", "the decision was taken back")
        assert (run.stop, run.steps.get(tool="allocate_budget").approval) == ("needs_input", "waiting")
        assert Recommendation.objects.get(plan=plan).status == "offered"
        assert not decisions.words_so_far(plan)
        decisions.decide_plan(plan, "approve", people.colleague)  # and decided anew
        assert Forecast.objects.filter(reflection=log, status="open").count() == 1

    def test_a_rejection_and_a_change_are_undone(self, people: People) -> None:
        weeks(people)
        run = run_of(people, "Plan the budget of next quarter")
        plan = BudgetPlan.objects.get()
        made = decisions.change_plan(plan, {"total_budget": float(plan.total_budget) / 2}, people.colleague)
        decisions.undo_last(plan, people.colleague)
        plan.refresh_from_db()
        made.refresh_from_db()
        step = run.steps.get(tool="allocate_budget")
        assert (plan.state, made.state) == (BudgetPlan.State.PROPOSED, BudgetPlan.State.SUPERSEDED)
        assert (step.result["proposal"], step.changes) == (str(plan.pk), [])
        decisions.decide_run(run, "reject", people.colleague)
        decisions.undo_last(run, people.colleague)
        run.refresh_from_db()
        plan.refresh_from_db()
        assert (run.stop, plan.state) == ("needs_input", BudgetPlan.State.PROPOSED)

    def test_a_test_and_an_adapter_are_undone_until_they_begin(self, people: People) -> None:
        row = ExperimentFactory(
            brand=people.brand, retailer=people.retailer, kind="geo", state="designed", status="succeeded",
            design={"best": {"units": ["a"], "mde": 0.08}}, spec={"duration": 6},
        )  # fmt: skip
        decisions.decide_experiment(row, "approve", people.colleague)
        decisions.undo_last(row, people.colleague)
        row.refresh_from_db()
        assert (row.state, bool(row.registered_hash)) == (Experiment.State.DESIGNED, True)
        decisions.decide_experiment(row, "approve", people.colleague)
        Experiment.objects.filter(pk=row.pk).update(state="running")
        with pytest.raises(BadInput, match="is running by now"):
            decisions.undo_last(row, people.colleague)
        adapter = AdapterFactory(brand=people.brand, retailer=people.retailer)
        run = decisions.decide_adapter(adapter, "approve", people.ops)
        assert run is not None
        decisions.undo_last(adapter, people.ops)
        run.refresh_from_db()
        assert run.status == "cancelled"
        run = decisions.decide_adapter(adapter, "approve", people.ops)
        Deployment.objects.filter(pk=run.pk).update(status="succeeded")  # type: ignore[union-attr]
        with pytest.raises(BadInput, match="take the version back"):
            decisions.undo_last(adapter, people.ops)

    def test_only_ones_own_newest_word_and_for_ten_minutes(self, people: People) -> None:
        ApprovalRule.objects.create(brand=people.brand, pattern="*", above=0, people=2)
        plan = proposed(people)
        decisions.decide_plan(plan, "approve", people.colleague)
        mine = Approval.objects.get()
        with pytest.raises(BadInput, match="the person who decided"):
            decisions.undo(mine, people.ops)
        decisions.decide_plan(plan, "approve", people.ops)
        with pytest.raises(BadInput, match="after you"):
            decisions.undo(mine, people.colleague)
        assert (decisions.undoable(people.colleague), len(decisions.undoable(people.ops))) == ([], 1)
        decisions.undo_last(plan, people.ops)
        decisions.undo(mine, people.colleague)  # the first of two: nothing had come of it
        plan.refresh_from_db()
        assert (plan.state, decisions.words_so_far(plan)) == (BudgetPlan.State.PROPOSED, [])
        decisions.decide_plan(plan, "approve", people.colleague)
        Approval.objects.update(created_at=timezone.now() - dt.timedelta(minutes=11))
        with pytest.raises(BadInput, match="10 minutes"):
            decisions.undo_last(plan, people.colleague)

    def test_the_way_back_stands_on_the_screens_and_strangers_have_none(self, people: People) -> None:
        plan = proposed(people)
        web = people.web(people.colleague)
        card = web.post(f"/inbox/plan/{plan.pk}/approve", headers={"HX-Request": "true"}).content.decode()
        address = f"/inbox/undo/{Approval.objects.get().uuid}"
        assert address in card
        assert address in web.get("/inbox/").content.decode()
        assert people.web(people.stranger).post(address).status_code == 404
        people.web(people.ops).post(address)
        plan.refresh_from_db()
        assert plan.state == BudgetPlan.State.APPROVED
        again = web.post(address, headers={"HX-Request": "true"}).content.decode()
        assert "waits again" in again
        assert f"/inbox/plan/{plan.pk}/approve" in again
        assert "taken back" in web.get("/inbox/").content.decode()
        api = people.api(people.colleague)
        api.post("/api/v1/approvals/", {"budget_plan": str(plan.pk), "outcome": "reject"}, format="json")
        told = api.post("/api/v1/approvals/", {"budget_plan": str(plan.pk), "outcome": "undo"}, format="json")
        assert told.json()["state"] == "proposed"

    def test_home_counts_what_waits_for_this_persons_word(self, people: People) -> None:
        ApprovalRule.objects.create(brand=people.brand, pattern="*", above=0, people=2)
        plan = proposed(people)
        counted = "in your inbox"
        assert counted in people.web(people.colleague).get("/").content.decode()
        assert counted not in people.web(people.owner).get("/").content.decode()  # marketers do not decide
        assert counted not in people.web(people.stranger).get("/").content.decode()
        decisions.decide_plan(plan, "approve", people.colleague)
        assert (decisions.for_me(people.colleague), decisions.for_me(people.ops)) == (0, 1)


@pytest.mark.django_db
class TestReflected:
    def test_the_usage_example_through_the_api(self, people: People) -> None:
        api = people.api(people.colleague)
        made = api.post("/api/v1/reflections/", {"brand": "acme", "context": "budgeting"}, format="json")
        assert made.status_code == 201, made.content
        address = f"/api/v1/reflections/{made.json()['id']}/"
        for part in EXAMPLE:
            assert api.post(f"{address}amend/", {part: EXAMPLE[part]}, format="json").status_code == 200
        told = api.get(address).json()
        assert (told["should_proceed"], told["verdict"]["confidence_raw"]) == (False, 0.75)
        refused = api.post(f"{address}decide/", {"decision": "go"}, format="json")
        assert refused.status_code == 422
        assert "confidence >= 0.8" in refused.json()["detail"]
        assert api.post(f"{address}validate/", {"name": "risk team"}, format="json").status_code == 422
        people.colleague.groups.add(Group.objects.create(name="Risk team"))
        assert api.post(f"{address}validate/", {"name": "risk team"}, format="json").json()["should_proceed"]
        assert api.post(f"{address}decide/", {"decision": "go"}, format="json").json()["phase"] == "execution"
        assert api.post(f"{address}amend/", {"bias_checkpoint": "late"}, format="json").status_code == 422

    def test_the_usage_example_in_the_console(self, people: People) -> None:
        import json

        client = people.web(people.ops)
        form = {name: json.dumps(value) if not isinstance(value, str) else value for name, value in EXAMPLE.items()}
        form |= {"brand": people.brand.pk, "context": "budgeting", "memory_reference": "[]"}
        answer = client.post("/admin/agents/reflectionlog/add/", form)
        assert answer.status_code == 302, answer.content.decode()[-3000:]
        log = ReflectionLog.objects.get()
        assert (log.should_proceed, log.verdict["confidence_raw"], log.phase) == (False, 0.75, "reflection")
        act = {"action": "carry_out", "_selected_action": [str(log.pk)]}
        client.post("/admin/agents/reflectionlog/", act)
        log.refresh_from_db()
        assert log.phase == "reflection"
        journal.validate(log, "risk team", people.ops)
        client.post("/admin/agents/reflectionlog/", act)
        log.refresh_from_db()
        assert (log.phase, log.decided_by) == ("execution", people.ops)
        bad = client.post("/admin/agents/reflectionlog/add/", {**form, "confidence": '{"value": 2}'})
        assert "confidence.value" in bad.content.decode()

    def test_a_critical_risk_without_mitigation_stops_an_approval(self, people: People) -> None:
        plan = proposed(people)
        log = journal.about(plan)
        risk = {"factor": "recall of the product", "severity": "critical"}
        journal.amend(log, {"risk_assessment": {"high_risk_factors": [risk]}})
        with pytest.raises(BadInput, match="recall of the product"):
            decisions.decide_plan(plan, "approve", people.colleague)
        plan.refresh_from_db()
        assert (plan.state, Approval.objects.count()) == (BudgetPlan.State.PROPOSED, 0)
        eased = {**risk, "mitigation": "pause all spend at once"}
        journal.amend(log, {"risk_assessment": {"high_risk_factors": [eased]}})
        assert decisions.decide_plan(plan, "approve", people.colleague).state == BudgetPlan.State.APPROVED

    def test_like_cases_of_the_own_brand_are_remembered_with_what_came_of_them(self, people: People) -> None:
        ReflectionFactory(
            brand=people.brand, context="Budget of Q3 2024", decision="approved", outcome="achieved 3.2x ROAS"
        )
        ReflectionFactory(brand=people.other, context="Budget of Q3 2024", decision="approved", outcome="a secret")
        told = {"estimate": {"lift_percent": 5.4}, "verdict": "effect"}
        ExperimentFactory(
            brand=people.brand, retailer=people.retailer, name="Budget test", state="analysed", result=told
        )
        found = journal.remembered(people.brand, "Budget of Q3")
        assert [case["came"] for case in found] == ["achieved 3.2x ROAS", "effect, lift +5.4 %"]

    def test_flags_that_predict_nothing_are_not_raised_any_more(self, people: People) -> None:
        flagged = ReflectionFactory(brand=people.brand, biases=[{"type": "availability", "note": ""}])
        plain = ReflectionFactory(brand=people.brand, decision="approved", context="budget one")
        evidence = journal.Evidence(memories=("one",))
        assert [flag["type"] for flag in journal._flags(people.brand, evidence)] == ["availability"]
        for place in range(40):
            ForecastFactory(
                brand=people.brand, reflection=flagged, status="resolved", happened=True, probability=0.9, retailer=None
            )
            ForecastFactory(
                brand=people.brand, reflection=plain, status="resolved", happened=place % 2 == 0, probability=0.9, retailer=None,
            )  # fmt: skip
        assert journal._flags(people.brand, evidence) == []

    def test_an_early_sign_reopens_the_decision_until_somebody_decides_again(self, people: People) -> None:
        log = journal.about(proposed(people))
        assert [monitor["metric"] for monitor in log.monitors] == ["roas", "sales_trend", "impressions_trend"]
        log = journal.approved(log, people.colleague, "")
        today = dt.date(2026, 5, 1)
        fine = {"roas": 1e9, "sales_trend": 1.0, "impressions_trend": 0.9}
        assert not journal.reopen(log, fine, today)
        assert journal.reopen(log, {**fine, "sales_trend": 0.1}, today)
        assert not journal.reopen(log, {**fine, "sales_trend": 0.1}, today)  # once
        log.refresh_from_db()
        assert (log.phase, bool(log.reopened_at)) == ("reflection", True)
        assert "sales of the last week" in log.outcome
        page = people.web(people.owner).get("/inbox/").content.decode()
        assert "early signs came up" in page
        again = journal.carry_out(log, "the shelf is full again", people.colleague)
        assert (again.phase, again.reopened_at) == ("execution", None)

    def test_signs_are_read_from_the_reports_of_the_plans_own_period(self, people: People) -> None:
        weeks(people)
        plan = proposed(people)
        arm = "retailer-abc/instacart/c1"
        BudgetPlan.objects.filter(pk=plan.pk).update(
            state="approved", period_start=MONDAY, period_end=MONDAY + dt.timedelta(days=69),
            plan={**plan.plan, "allocations": [{**plan.allocations[0], "id": arm}]},
        )  # fmt: skip
        plan.refresh_from_db()
        seen = [signs.read(plan, MONDAY + dt.timedelta(days=end)) for end in (48, 55, 62, 69)]
        assert all(signs["roas"] > 0 for signs in seen)
        assert any(signs.get("sales_trend", 0) > 0 for signs in seen)
        assert signs.read(plan, MONDAY + dt.timedelta(days=6)) == {}
        assert tasks.watch_decisions() == 0

    def test_a_running_tests_signs_are_read_from_stores_and_spend_and_reopen_it(self, people: People) -> None:
        weeks(people, count=40)
        stores(people)
        row = ExperimentFactory(
            brand=people.brand, retailer=people.retailer, kind="geo", state="designed", status="succeeded",
            design={"best": {"units": ["s00", "s01"], "mde": 0.08}}, spec={"duration": 6},
        )  # fmt: skip
        log = journal.about(row)
        assert {monitor["metric"] for monitor in log.monitors} == {"stores_reporting", "spend_trend", "untreated_trend"}
        assert {risk["factor"] for risk in log.risk_assessment["high_risk_factors"]} >= {one["story"] for one in log.monitors}  # fmt: skip
        decisions.decide_experiment(row, "approve", people.colleague)
        start = MONDAY + dt.timedelta(weeks=34)
        Experiment.objects.filter(pk=row.pk).update(state="running", start_date=start)
        row.refresh_from_db()
        today = start + dt.timedelta(weeks=6)
        assert signs.read(row, start) == {}
        assert set(signs.read(row, today)) == {"stores_reporting", "untreated_trend", "spend_trend"}
        assert journal.watch([log], today) == 0
        PerformanceMetric.objects.filter(grain="store", placement__in=["s02", "s03"], period_start__gte=start).delete()
        assert signs.read(row, today)["stores_reporting"] == pytest.approx(14 / 16)
        PerformanceMetric.objects.exclude(grain="store").filter(period_start__gte=start).update(spend=1)
        assert journal.watch([log], today) == 1
        log.refresh_from_db()
        assert (log.phase, bool(log.reopened_at)) == ("reflection", True)
        assert {one["metric"] for one in log.monitors if one.get("fired")} == {"stores_reporting", "spend_trend"}

    def test_an_adapters_signs_are_its_votes_and_the_rules_word_and_reopen_it(self, people: People) -> None:
        def texts(digest: str, good: int, bad: int, reason: str = "stop") -> None:
            for place in range(good + bad):
                Generation.objects.create(
                    brand=people.brand, task="creative", model="m", adapter_digest=digest, prompt_digest="0", text="x",
                    verdict="pass" if place < good else "block", finish_reason=reason,
                )  # fmt: skip

        texts("", 16, 4)
        row = AdapterFactory(
            brand=people.brand, retailer=people.retailer, state="published", gate={"verdict": "better"}
        )
        log = journal.about(row)
        assert {one["metric"]: one["below"] for one in log.monitors} == {
            "win_rate": 0.4, "pass_share": pytest.approx(0.64), "finished_share": 0.8,
        }  # fmt: skip
        log = journal.approved(log, people.colleague, "")
        texts(row.digest, 10, 10)
        today = timezone.now().date()
        assert signs.read(row, today) == {}  # it serves nowhere
        AdapterAlias.objects.create(scope=row.scope, brand=people.brand, name="champion", adapter=row)
        FeedbackFactory.create_batch(
            12, brand=people.brand, kind="pair", outcome="b", adapter_digest=row.digest, other_adapter_digest="b" * 64
        )
        assert signs.read(row, today) == {"win_rate": 0.0, "pass_share": 0.5, "finished_share": 1.0}
        assert tasks.watch_decisions() == 1
        log.refresh_from_db()
        assert {one["metric"] for one in log.monitors if one.get("fired")} == {"win_rate", "pass_share"}
        assert "came up on" in people.web(people.colleague).get(f"/decisions/{log.uuid}").content.decode()


@pytest.mark.django_db
def test_from_goal_to_the_next_threshold_decided_on_what_confidence_was_worth(people: People) -> None:
    """Plan, approve, measure, resolve, recalibrate: and the next decision is taken on the calibrated value."""
    weeks(people)
    run = run_of(people, "Plan the budget of next quarter")
    decisions.decide_run(run, "approve", people.colleague, "go")
    claim = Forecast.objects.get(agent="budget optimizer")
    stated = claim.probability
    assert stated is not None
    today = timezone.now().date()
    # the period passes and its reports come: here a period that lies in the loaded weeks
    BudgetPlan.objects.filter(pk=claim.subject["plan"]).update(
        period_start=MONDAY, period_end=MONDAY + dt.timedelta(days=90),
    )  # fmt: skip
    Forecast.objects.filter(pk=claim.pk).update(due=today)
    plan = BudgetPlan.objects.get(pk=claim.subject["plan"])
    spent = forecasts.history.totals(plan.brand, plan.retailer, MONDAY, MONDAY + dt.timedelta(days=90))
    allocations = [{**row, "spend": spent.spend[row["id"]]} for row in plan.allocations if row["id"] in spent.spend]
    BudgetPlan.objects.filter(pk=plan.pk).update(plan={**plan.plan, "allocations": allocations})
    assert tasks.resolve_forecasts()["resolved"] == 1
    claim.refresh_from_db()
    assert claim.observed == pytest.approx(sum(spent.sales.values()))
    log = claim.reflection
    assert log is not None
    log.refresh_from_db()
    assert log.phase == "review"
    # many like it, of which two in five came true
    for place in range(60):
        ForecastFactory(
            brand=people.brand, retailer=people.retailer, agent="budget optimizer", probability=0.85,
            status="resolved", happened=place % 5 < 2,
        )  # fmt: skip
    learned = forecasts.learned(people.brand, "budget optimizer")
    assert learned.usable
    wish = {"decision_threshold": "confidence >= 0.8", "confidence": {"value": 0.85, "rationale": "stated"}}
    record = {**EXAMPLE, **wish, "phase": "decision"}
    raw = journal.decide(journal.Reflection.read(record), journal.forecasts.calibration.Map(0, 0.0))
    scored = journal.decide(journal.Reflection.read(record), learned)
    assert (raw.should_proceed, scored.should_proceed) == (True, False)
    assert scored.confidence_calibrated is not None
    assert scored.confidence_calibrated < 0.7

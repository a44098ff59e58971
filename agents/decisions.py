"""Approving and rejecting: one place for plans and tool calls, once, with reasons and a forecast."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from agents import forecasts
from agents.domain.reflection import Reflection, decide, premortem
from agents.models import AgentRun, AgentStep, Forecast, ReflectionLog
from campaigns.models import BudgetPlan, Recommendation
from retailers import audit
from rmn.lib.errors import BadInput

AGENT = "budget optimizer"
DONE = {"approve": "approved", "reject": "rejected"}
CONFIDENCE = {"experiment": 0.8, "calibrated": 0.7, "attribution": 0.55, "not stated": 0.5}


@transaction.atomic
def decide_plan(plan: BudgetPlan, outcome: str, by: Any, note: str = "") -> BudgetPlan:
    """Approve or reject a proposed plan, with its reasons and what it expects; the second time changes nothing.

    Raises:
        BadInput: the outcome is neither, or the plan is not one that waits.
    """
    if outcome not in ("approve", "reject"):
        raise BadInput(f"outcome {outcome!r}: approve or reject")
    wanted = BudgetPlan.State.APPROVED if outcome == "approve" else BudgetPlan.State.REJECTED
    row = BudgetPlan.objects.select_for_update().get(pk=plan.pk)
    if row.state == wanted:
        return row
    if row.state != BudgetPlan.State.PROPOSED:
        raise BadInput(f"{row}: is {row.state}; only a proposed plan is decided on")
    row.state, row.decided_by, row.decided_at, row.decision_note = wanted, by, timezone.now(), note[:2000]
    row.save(update_fields=["state", "decided_by", "decided_at", "decision_note"])
    status = Recommendation.Status.APPROVED if outcome == "approve" else Recommendation.Status.WITHDRAWN
    Recommendation.objects.filter(plan=row).update(status=status)
    if outcome == "approve":
        BudgetPlan.objects.filter(brand=row.brand, retailer=row.retailer, state=BudgetPlan.State.APPROVED).exclude(
            pk=row.pk
        ).update(state=BudgetPlan.State.SUPERSEDED)
    log = _reflect(row, outcome, by, note)
    if outcome == "approve":
        _forecast(row, log, by)
    audit.record(
        brand=row.brand,
        actor=getattr(by, "username", "") or "the operator",
        action=f"plan {row.state}",
        subject=row,
        payload={"total_budget": str(row.total_budget), "note": note[:500], "objective": row.plan.get("objective")},
    )
    for step in AgentStep.objects.filter(
        brand=row.brand, result__proposal=str(row.pk), approval=AgentStep.Approval.WAITING
    ):
        _mark(step, outcome, by)
    return row


def _reflect(plan: BudgetPlan, outcome: str, by: Any, note: str) -> ReflectionLog:
    evidence = plan.plan.get("evidence") or []
    confidence = sum(CONFIDENCE.get(part["evidence"], 0.5) * part["share"] for part in evidence) or 0.5
    expected = plan.plan["objective"] / plan.plan["total_spend"] if plan.plan.get("total_spend") else None
    record = {
        "phase": "decision",
        "alternate_frames": ["the even split", "last period's split", "wait for an experiment"],
        "risk_assessment": {"high_risk_factors": _risks(expected), "mitigation": []},
        "confidence": {
            "value": round(confidence, 3),
            "rationale": "weighted by what the plan's curves rest on",
            "supporting": [f"certified: at most {plan.plan['upper_bound']:,.0f} is possible within the limits"],
            "contradicting": list(plan.plan.get("warnings") or [])[:5],
        },
        "validations": [getattr(by, "username", "")] if outcome == "approve" else [],
    }
    read = Reflection.read(record)
    verdict = decide(read, forecasts.learned(plan.brand, AGENT))
    return ReflectionLog.objects.create(
        brand=plan.brand,
        retailer=plan.retailer,
        recommendation=plan.recommendations.first(),
        task="budgeting",
        agent=AGENT,
        context=f"{plan.name}: {plan.total_budget:,.0f} {plan.currency}",
        verdict=verdict.row(),
        should_proceed=verdict.should_proceed,
        decision=f"{DONE[outcome]}{f': {note}' if note else ''}"[:2000],
        decided_by=by,
        decided_at=timezone.now(),
        **read.row(),
    )


def _risks(expected_roas: float | None) -> list[dict[str, Any]]:
    """How it might fail, as risks with the sign that is watched."""
    return [
        {
            "factor": story["story"],
            "severity": "high",
            "mitigation": f"watched by {story['early_sign']}: {story['monitor']}",
        }
        for story in premortem(expected_roas)
    ]


def _forecast(plan: BudgetPlan, log: ReflectionLog, by: Any) -> None:
    low = (plan.plan.get("interval") or [None])[0]
    bar = float(low) if low is not None else 0.9 * float(plan.plan["objective"])
    end = plan.period_end or timezone.now().date() + timedelta(weeks=13)
    assumed = " (spend assumed)" if plan.spend_assumed else ""
    Forecast.objects.create(
        brand=plan.brand,
        retailer=plan.retailer,
        reflection=log,
        recommendation=log.recommendation,
        task="budgeting",
        agent=AGENT,
        made_by=by,
        statement=f"Sales of the plan's period reach {bar:,.0f} {plan.currency}{assumed}",
        metric="sales",
        comparison=">=",
        value=bar,
        probability=log.confidence.get("value"),
        subject={"plan": str(plan.pk)},
        due=end + timedelta(days=42),  # networks restate for weeks
    )


def _mark(step: AgentStep, outcome: str, by: Any) -> None:
    step.approval = AgentStep.Approval.APPROVED if outcome == "approve" else AgentStep.Approval.REJECTED
    step.decided_by, step.decided_at = by, timezone.now()
    step.save(update_fields=["approval", "decided_by", "decided_at"])
    run = step.run
    if outcome == "reject":
        run.stop, run.pending = "rejected", None
    elif not run.steps.filter(approval=AgentStep.Approval.WAITING).exists():
        run.stop, run.pending = "done", None
    else:
        return
    run.save(update_fields=["stop", "pending"])


@transaction.atomic
def decide_run(run: AgentRun, outcome: str, by: Any, note: str = "") -> AgentRun:
    """Approve or reject all that a run waits with."""
    for step in run.steps.select_for_update().filter(approval=AgentStep.Approval.WAITING):
        proposal = (step.result or {}).get("proposal")
        plan = BudgetPlan.objects.filter(brand=run.brand, pk=proposal).first() if proposal and (step.result or {}).get("kind") == "budget plan" else None  # fmt: skip
        if plan is not None and plan.state == BudgetPlan.State.PROPOSED:
            decide_plan(plan, outcome, by, note)
        else:
            _mark(step, outcome, by)
            audit.record(
                brand=run.brand,
                actor=getattr(by, "username", "") or "the operator",
                action=f"{step.tool} {DONE[outcome]}",
                subject=run,
            )
    run.refresh_from_db()
    return run

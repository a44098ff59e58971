"""Approving, changing and rejecting: one place for plans, tests, tools' proposals and adapters.

Each word of a person is one row. When as many have approved as the rules ask for, the thing is done, once,
with its reasons (a reflection) and what it expects (a forecast).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from agents import forecasts, journal, rooms, serving
from agents.domain import approval
from agents.domain.calibration import ENOUGH
from agents.models import (
    Adapter,
    AgentRun,
    AgentStep,
    Approval,
    ApprovalRule,
    CleanRoomQuery,
    Deployment,
    Forecast,
    ReflectionLog,
)
from campaigns import services as campaign_services
from campaigns import tasks as campaign_tasks
from campaigns.models import BudgetPlan, Experiment, Recommendation
from retailers import audit
from retailers.models import Brand, roles
from rmn.lib.errors import BadInput

DONE = {"approve": "approved", "reject": "rejected", "modify": "changed"}
DECIDERS = {"analyst", "ops"}
RESTATED = timedelta(days=42)  # networks restate for weeks
ANSWERED = timedelta(days=7)  # until a clean room has answered or said no
VOTED = timedelta(weeks=6)  # until an adapter's votes are counted
UNDO_FOR = timedelta(minutes=10)
PROPOSED = {
    "allocate_budget": BudgetPlan,
    "design_experiment": Experiment,
    "query_clean_room": CleanRoomQuery,
}  # by planner's tools
TOOL = {model: tool for tool, model in PROPOSED.items()} | {Adapter: "deploy_adapter"}
Subject = BudgetPlan | Experiment | CleanRoomQuery | Adapter


def may_decide(user: Any, brand: Brand | None = None) -> bool:
    """Analysts and ops staff decide."""
    return bool(DECIDERS & roles(user, brand))


def needed(subject: Subject) -> int:
    """How many people must approve it."""
    rules = [
        approval.Rule(rule.pattern, rule.above, rule.people)
        for rule in ApprovalRule.objects.filter(brand=subject.brand)
    ]
    limit = Decimal(settings.RMN_FOUR_EYES_ABOVE)
    return approval.needed(rules, TOOL[type(subject)], getattr(subject, "total_budget", None), limit)


def words_so_far(subject: Subject) -> list[Approval]:
    """Who has approved it already, each once."""
    rows = Approval.objects.standing().filter(
        brand=subject.brand, subject=subject.uuid, outcome=Approval.Outcome.APPROVE
    )
    return list(rows.select_related("by").order_by("created_at"))


def _enough(
    subject: Subject, outcome: str, by: Any, note: str, changes: list[dict[str, Any]] | None = None, **led_to: str
) -> bool:
    """Keep a person's word; True when no more is needed. The caller holds the subject's row."""
    wanted = needed(subject)
    assert subject.brand is not None  # noqa: S101  # what waits is some brand's
    before = {word.by_id for word in words_so_far(subject)}
    key = getattr(by, "pk", None)
    if outcome == "approve" and key in before:
        return len(before) >= wanted
    Approval.objects.create(
        brand=subject.brand,
        tool=TOOL[type(subject)],
        subject=subject.uuid,
        title=str(subject)[:240],
        amount=getattr(subject, "total_budget", None),
        currency=getattr(subject, "currency", ""),
        outcome=outcome,
        by=by,
        note=note[:2000],
        changes=changes or [],
        needed=wanted,
        before=_before(subject) | led_to,
    )
    _tell(subject, by, f"{subject._meta.verbose_name} {DONE[outcome]}", {"note": note[:500], "needed": wanted})
    return outcome != "approve" or len(before | {key}) >= wanted


def _before(subject: Subject) -> dict[str, Any]:
    """What stands before a word takes effect, so that it can be taken back."""
    found: dict[str, Any] = {"reflection": journal.standing(journal.about(subject))}
    if isinstance(subject, BudgetPlan):
        found["offered"] = {str(row.uuid): row.status for row in Recommendation.objects.filter(plan=subject)}
        found["approved"] = [str(plan.pk) for plan in _in_its_place(subject)]
    return found


def _in_its_place(plan: BudgetPlan) -> Any:
    """Approved plans that this one would follow."""
    same = BudgetPlan.objects.filter(brand=plan.brand, retailer=plan.retailer, state=BudgetPlan.State.APPROVED)
    return same.exclude(pk=plan.pk)


def _tell(subject: Any, by: Any, action: str, payload: dict[str, Any]) -> None:
    actor = getattr(by, "username", "") or "the operator"
    audit.record(brand=subject.brand, actor=actor, action=action, subject=subject, payload=payload)


# -- plans


@transaction.atomic
def decide_plan(plan: BudgetPlan, outcome: str, by: Any, note: str = "") -> BudgetPlan:
    """Approve or reject a proposed plan, with its reasons and what it expects; the second time changes nothing.

    Where the rules ask for more people, the plan stays proposed until the last of them has approved.

    Raises:
        BadInput: the outcome is neither, the plan is not one that waits, or its reflection stops it.
    """
    if outcome not in ("approve", "reject"):
        raise BadInput(f"outcome {outcome!r}: approve or reject")
    wanted = BudgetPlan.State.APPROVED if outcome == "approve" else BudgetPlan.State.REJECTED
    row = BudgetPlan.objects.select_for_update().get(pk=plan.pk)
    if row.state == wanted:
        return row
    if row.state != BudgetPlan.State.PROPOSED:
        raise BadInput(f"{row}: is {row.state}; only a proposed plan is decided on")
    if not _enough(row, outcome, by, note):
        return row
    log = journal.about(row)
    log = journal.approved(log, by, note) if outcome == "approve" else journal.refused(log, by, note)
    row.state, row.decided_by, row.decided_at, row.decision_note = wanted, by, timezone.now(), note[:2000]
    row.save(update_fields=["state", "decided_by", "decided_at", "decision_note"])
    status = Recommendation.Status.APPROVED if outcome == "approve" else Recommendation.Status.WITHDRAWN
    Recommendation.objects.filter(plan=row).update(status=status)
    if outcome == "approve":
        _in_its_place(row).update(state=BudgetPlan.State.SUPERSEDED)
        low = (row.plan.get("interval") or [None])[0]
        bar = float(low) if low is not None else 0.9 * float(row.plan["objective"])
        assumed = " (spend assumed)" if row.spend_assumed else ""
        end = row.period_end or timezone.now().date() + timedelta(weeks=13)
        _expect(
            log,
            by,
            statement=f"Sales of the plan's period reach {bar:,.0f} {row.currency}{assumed}",
            metric="sales",
            value=bar,
            subject={"plan": str(row.pk)},
            due=end + RESTATED,
        )
    _mark(row, outcome, by)
    return row


def change_plan(plan: BudgetPlan, changes: Mapping[str, Any], by: Any, note: str = "") -> BudgetPlan:
    """Another plan in this one's place: solved anew with a person's changes, and waiting to be approved in turn.

    Args:
        changes: any of ``total_budget``, ``unavailable`` (arms that get nothing), ``limits`` ({arm: {min, max, fixed}}).

    Raises:
        BadInput: the plan does not wait, the changes cannot be meant, or nothing fits them.
    """
    wanted = _wanted(plan, changes)
    if plan.state != BudgetPlan.State.PROPOSED:
        raise BadInput(f"{plan}: is {plan.state}; only a proposed plan is changed")
    made = campaign_services.wish_for_plan(
        brand=plan.brand,
        retailer=plan.retailer,
        name=plan.name,
        problem=wanted,
        start=plan.period_start,
        end=plan.period_end,
        spend_assumed=plan.spend_assumed,
        by=by,
    )
    campaign_tasks.optimize(str(made.pk), tenant=made.tenant)
    made.refresh_from_db()
    if made.state != BudgetPlan.State.PROPOSED:
        raise BadInput(made.error or str(made.plan.get("explanation") or "nothing fits these changes"))
    with transaction.atomic():
        row = BudgetPlan.objects.select_for_update().get(pk=plan.pk)
        if row.state != BudgetPlan.State.PROPOSED:
            raise BadInput(f"{row}: is {row.state}; somebody decided on it just now")
        found = differences(row, made)
        _enough(row, "modify", by, note, found, made=str(made.pk))
        row.state, row.decided_by, row.decided_at, row.decision_note = (
            BudgetPlan.State.SUPERSEDED,
            by,
            timezone.now(),
            note[:2000],
        )
        row.save(update_fields=["state", "decided_by", "decided_at", "decision_note"])
        Recommendation.objects.filter(plan=row).update(status=Recommendation.Status.WITHDRAWN)
        journal.changed(row, note)
        _propose_instead(row, made, found)
    journal.about(made)
    return made  # fmt: skip


def _propose_instead(
    old: BudgetPlan | Experiment,
    new: BudgetPlan | Experiment,
    changes: list[dict[str, Any]],
    *,
    undone: bool = False,
) -> None:
    """The steps that proposed one thing propose another, by these changes; or the changes are taken back."""
    for step in AgentStep.objects.filter(brand=old.brand, result__proposal=str(old.pk)):
        told = plan_result(new) if isinstance(new, BudgetPlan) else experiment_result(new)
        step.result = {**(step.result or {}), **told}
        step.changes = step.changes[: -len(changes)] if undone else [*step.changes, *changes]
        step.save(update_fields=["result", "changes"])
        _pending(step.run)


def plan_result(plan: BudgetPlan) -> dict[str, Any]:
    """A proposed plan, as a step keeps it."""
    return {
        "proposal": str(plan.pk),
        "kind": "budget plan",
        "objective": plan.plan["objective"],
        "upper_bound": plan.plan["upper_bound"],
        "even_split": plan.even_split,
        "spend_assumed": plan.spend_assumed,
        "explanation": plan.plan["explanation"],
    }


def _wanted(plan: BudgetPlan, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The problem with a person's changes."""
    unknown = set(changes) - {"total_budget", "unavailable", "limits"}
    if unknown or not changes:
        raise BadInput(
            f"changes: {', '.join(sorted(unknown)) or 'none'}; total_budget, unavailable or limits may be given"
        )
    arms = {arm["id"]: dict(arm) for arm in plan.problem.get("arms", [])}
    limits = {
        **{name: {"available": False} for name in changes.get("unavailable") or []},
        **(changes.get("limits") or {}),
    }
    for name, limit in limits.items():
        if name not in arms or not isinstance(limit, Mapping) or set(limit) - {"min", "max", "fixed", "available"}:
            raise BadInput(f"changes: {name!r} is no arm of this plan, or its limits are not min, max, fixed")
        arms[name] |= limit
    total = changes.get("total_budget", plan.problem.get("total_budget"))
    if isinstance(total, bool) or not isinstance(total, int | float) or not 0 < total < 1e15:
        raise BadInput("changes: total_budget is an amount above 0")
    wanted = {**plan.problem, "total_budget": total, "arms": list(arms.values())}
    if wanted == plan.problem:
        raise BadInput("changes: nothing is different; approve it as it is, or name another value")
    return wanted


def changeable(what: Any, number: int | None = None) -> BudgetPlan | Experiment:
    """The plan or test that is meant: itself, or the one that a run (that step of it) waits with.

    Raises:
        BadInput: there is none; only plans and tests can be changed.
    """
    found: Subject | None = None
    if isinstance(what, AgentRun):
        steps = what.steps.filter(approval=AgentStep.Approval.WAITING)
        step = steps.filter(number=number).first() if number is not None else steps.first()
        found = subject_of(step) if step else None
    else:
        found = what
    if not isinstance(found, BudgetPlan | Experiment):
        raise BadInput("only a budget plan or a test that waits can be changed; approve or reject the rest")
    return found


def change(subject: BudgetPlan | Experiment, changes: Mapping[str, Any], by: Any, note: str = "") -> Any:
    """Another proposal in this one's place, by a person's changes."""
    if isinstance(subject, BudgetPlan):
        return change_plan(subject, changes, by, note)
    return change_experiment(subject, changes, by, note)


def differences(old: Any, new: Any) -> list[dict[str, Any]]:
    """What differs between a proposal and the one in its place: [{path, old, new}]."""
    if isinstance(old, Experiment):
        before, after = ({**asked_of(test), "units": sorted(test.design["best"]["units"]), "mde": test.design["best"]["mde"]} for test in (old, new))  # fmt: skip
        return approval.differences(before, after)
    before, after = ({row["id"]: round(float(row["spend"]), 2) for row in plan.allocations} for plan in (old, new))
    total = {"total_budget": float(old.total_budget)}, {"total_budget": float(new.total_budget)}
    return approval.differences({**total[0], **before}, {**total[1], **after})


def _expect(log: ReflectionLog, by: Any, *, due: date, **claim: Any) -> Forecast:
    """What an approved decision expects, to be held against what comes."""
    return Forecast.objects.create(
        brand=log.brand,
        retailer=log.retailer,
        reflection=log,
        recommendation=log.recommendation,
        task=log.task,
        agent=log.agent,
        adapter_digest=claim.pop("adapter_digest", None) or _adapter_of(log.run),
        made_by=by,
        comparison=">=",
        probability=log.confidence.get("value"),
        due=max(due, timezone.now().date() + timedelta(days=1)),
        **claim,
    )


def _adapter_of(run: AgentRun | None) -> str:
    """The adapter with which the model planned that led to a decision; none for a playbook or the base."""
    return str(run.trace.get("adapter") or "") if run is not None and run.source == "model" else ""


# -- tests


@transaction.atomic
def decide_experiment(test: Experiment, outcome: str, by: Any, note: str = "") -> Experiment:
    """Approve a designed test (it is registered with that) or stop it, with reasons and a forecast.

    Raises:
        BadInput: the outcome is neither, the test does not wait, or the person may not.
    """
    if outcome not in ("approve", "reject"):
        raise BadInput(f"outcome {outcome!r}: approve or reject")
    row = Experiment.objects.select_for_update().get(pk=test.pk)
    reached = Experiment.State.APPROVED if outcome == "approve" else Experiment.State.STOPPED
    if row.state == reached:
        _mark(row, outcome, by)
        return row
    if row.state != Experiment.State.DESIGNED:
        raise BadInput(f"{row}: is {row.state}; only a designed test is decided on")
    if not _enough(row, outcome, by, note):
        return row
    log = journal.about(row)
    log = journal.approved(log, by, note) if outcome == "approve" else journal.refused(log, by, note)
    if outcome == "approve":
        row = campaign_services.move_experiment(row, "approve", by, note=note)
        _expect_of_test(row, log, by)
    else:
        row.state = reached
        row.save(update_fields=["state"])
    _mark(row, outcome, by)
    return row


def _expect_of_test(test: Experiment, log: ReflectionLog, by: Any) -> None:
    """That the test finds what it was designed to find, where its design says what that is."""
    mde = (test.design.get("best") or test.design).get("mde")
    if not mde:
        return
    relative = test.spec.get("relative", True)
    value = round(100 * float(mde), 2) if relative else float(mde)
    _expect(
        log,
        by,
        statement=f"The test finds a lift of at least {value:g} %" if relative else f"The test finds an effect of at least {value:g}",
        metric="lift_percent" if relative else "att",
        value=value,
        subject={"experiment": str(test.pk)},
        due=timezone.now().date() + timedelta(weeks=int(test.spec.get("duration") or 13)) + RESTATED,
    )  # fmt: skip


def change_experiment(test: Experiment, changes: Mapping[str, Any], by: Any, note: str = "") -> Experiment:
    """Another design in this one's place: made anew with a person's changes, and waiting to be approved in turn.

    Args:
        changes: ``duration`` (periods) or ``most_units`` (units treated at most).

    Raises:
        BadInput: the test does not wait or is not on stores, the changes cannot be meant, or nothing fits them.
    """
    if test.kind != "geo":
        raise BadInput(f"{test}: only a test on stores is changed here; design another")
    if test.state != Experiment.State.DESIGNED:
        raise BadInput(f"{test}: is {test.state}; only a designed test is changed")
    wanted = approval.changed(asked_of(test), changes)
    for name, value in wanted.items():
        if name not in asked_of(test) or isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 200:
            raise BadInput(f"changes: {name}; duration and most_units may be given, whole numbers from 1 to 200")
    treated = {**(test.spec.get("treated") or {}), "max": wanted["most_units"]}
    treated["min"] = min(int(treated.get("min") or 1), wanted["most_units"])
    made = campaign_services.wish_for_experiment(
        brand=test.brand,
        retailer=test.retailer,
        campaign=test.campaign,
        name=test.name,
        hypothesis=test.hypothesis,
        spec={**test.spec, "duration": wanted["duration"], "treated": treated},
        by=by,
    )
    made.panel = test.panel
    made.save(update_fields=["panel"])
    campaign_tasks.work_on_experiment(str(made.pk), tenant=made.tenant)
    made.refresh_from_db()
    if made.state != Experiment.State.DESIGNED:
        raise BadInput(made.error or "nothing fits these changes")
    with transaction.atomic():
        row = Experiment.objects.select_for_update().get(pk=test.pk)
        if row.state != Experiment.State.DESIGNED:
            raise BadInput(f"{row}: is {row.state}; somebody decided on it just now")
        found = differences(row, made)
        _enough(row, "modify", by, note, found, made=str(made.pk))
        row.state = Experiment.State.STOPPED
        row.save(update_fields=["state"])
        journal.changed(row, note)
        _propose_instead(row, made, found)
    journal.about(made)
    return made


def asked_of(test: Experiment) -> dict[str, Any]:
    """What a person may change of a test on stores."""
    best = test.design.get("best") or {}
    most = (test.spec.get("treated") or {}).get("max") or len(best.get("units") or ()) or 1
    return {"duration": int(test.spec.get("duration") or 0), "most_units": int(most)}


def experiment_result(test: Experiment) -> dict[str, Any]:
    """A designed test, as a step keeps it."""
    best = test.design["best"]
    return {
        "proposal": str(test.pk),
        "kind": "experiment",
        "units": best["units"],
        "mde": best["mde"],
        "warnings": test.design["warnings"],
    }


# -- questions to clean rooms


@transaction.atomic
def decide_question(query: CleanRoomQuery, outcome: str, by: Any, note: str = "") -> CleanRoomQuery:
    """Approve that a proposed question is sent, once, or reject it; the second time changes nothing.

    Raises:
        BadInput: the outcome is neither, or the question does not wait.
        NotConfigured, RoomRefused: the room cannot be asked, or its budget does not suffice any more.
    """
    if outcome not in ("approve", "reject"):
        raise BadInput(f"outcome {outcome!r}: approve or reject")
    row = CleanRoomQuery.objects.select_for_update().get(pk=query.pk)
    if row.state != CleanRoomQuery.State.PROPOSED:
        if (row.state == CleanRoomQuery.State.REJECTED) == (outcome == "reject"):
            return row
        raise BadInput(f"{row}: is {row.state}; only a proposed question is decided on")
    if not _enough(row, outcome, by, note):
        return row
    log = journal.about(row)
    if outcome == "approve":
        log = journal.approved(log, by, note)
        _expect(
            log,
            by,
            statement=f"{row.connection} answers {row.template} with rows that may be shown",
            metric="rows",
            value=1,
            subject={"question": str(row.pk)},
            due=timezone.now().date() + ANSWERED,
        )
        rooms.send(row)
    else:
        journal.refused(log, by, note)
        row.state = CleanRoomQuery.State.REJECTED
        row.save(update_fields=["state"])
    _mark(row, outcome, by)
    return row


def question_result(query: CleanRoomQuery) -> dict[str, Any]:
    """A proposed question, as a step keeps it."""
    left = rooms.left(query.connection)
    values = ", ".join(f"{name} {value}" for name, value in query.parameters.items())
    return {
        "proposal": str(query.pk),
        "kind": "clean room question",
        "room": query.connection.name,
        "template": query.template,
        "parameters": query.parameters,
        "cost": query.cost,
        "left": left,
        "explanation": f"{query}{f' ({values})' if values else ''}: costs {query.cost:g} of {left:g} left; sent once it is approved",
    }


# -- adapters


@transaction.atomic
def decide_adapter(
    adapter: Adapter, outcome: str, by: Any, note: str = "", *, alias: str = "champion", share: float = 1.0
) -> Deployment | None:
    """Approve that a version shall serve: it is proved and deployed; None while more people must approve, or on a no.

    Raises:
        BadInput: the outcome is neither, or the version cannot be deployed.
    """
    if outcome not in ("approve", "reject"):
        raise BadInput(f"outcome {outcome!r}: approve or reject")
    row = Adapter.objects.select_for_update().get(pk=adapter.pk)
    run = serving.wish_for_deployment(adapter=row, alias=alias, share=share, by=by) if outcome == "approve" else None
    led_to = str(run.pk) if run is not None else ""
    if not _enough(row, outcome, by, note, deployment=led_to):
        if run is not None:
            run.delete()
        return None
    log = journal.about(row)
    if run is None:
        journal.refused(log, by, note)
        return None
    if log.phase != "execution":
        log = journal.approved(log, by, note)
    else:  # it served before under another name; the reasons stand
        log = ReflectionLog.objects.get(pk=log.pk)
    if not log.forecasts.filter(status=Forecast.Status.OPEN).exists():
        _expect(
            log,
            by,
            statement=f"{row.digest[:12]} wins at least half of its blind pairs against other versions",
            metric="win_rate",
            value=0.5,
            subject={"adapter": row.digest},
            adapter_digest=row.digest,
            due=timezone.now().date() + VOTED,
        )
    run.enqueue()
    return run


# -- taken back


@transaction.atomic
def undo(word: Approval, by: Any) -> Approval:
    """Take one's own word back, for ten minutes and unless what it led to has happened; twice changes nothing.

    What it had changed stands as before and waits again. Its forecast is not deleted: it stays, with the
    reason why nothing resolves it, and counts in no score.

    Raises:
        BadInput: it is another's, too old, somebody decided after it, or its effect has happened.
    """
    row = Approval.objects.select_for_update().get(pk=word.pk)
    if row.by_id is None or row.by_id != getattr(by, "pk", None):
        raise BadInput("only the person who decided can take it back")
    if row.undone_at is not None:
        return row
    if timezone.now() > row.created_at + UNDO_FOR or not row.before:
        raise BadInput(f"{row.title}: decided {row.created_at:%H:%M} UTC; it could be undone for {UNDO_FOR.seconds // 60} minutes")  # fmt: skip
    if Approval.objects.standing().filter(brand=row.brand, subject=row.subject, pk__gt=row.pk).exists():
        raise BadInput(f"{row.title}: somebody decided on it after you; theirs is taken back first")
    model: Any = next(model for model, tool in TOOL.items() if tool == row.tool)
    key = "uuid" if model is Adapter else "pk"
    found: Subject | None = model.objects.select_for_update().filter(brand=row.brand, **{key: row.subject}).first()
    if found is None:
        raise BadInput(f"{row.title}: it is not there any more")
    if isinstance(found, BudgetPlan):
        _plan_back(found, row)
    elif isinstance(found, Experiment):
        _experiment_back(found, row)
    elif isinstance(found, CleanRoomQuery):
        _question_back(found)
    else:
        _deployment_back(row)
    row.undone_at = timezone.now()
    row.save(update_fields=["undone_at"])
    log = journal.about(found)
    for claim in log.forecasts.filter(status=Forecast.Status.OPEN, created_at__gte=row.created_at):
        forecasts.give_up(claim, "the decision was taken back", by)
    journal.put_back(log, row.before["reflection"], f"{DONE[row.outcome]}, and taken back by {by}")
    for step in AgentStep.objects.select_for_update().filter(brand=row.brand, result__proposal=str(row.subject)):
        step.approval, step.decided_by, step.decided_at = AgentStep.Approval.WAITING, None, None
        step.save(update_fields=["approval", "decided_by", "decided_at"])
        _pending(step.run)
    _tell(found, by, f"{found._meta.verbose_name} decision taken back", {"was": row.outcome})
    return row


def _plan_back(plan: BudgetPlan, word: Approval) -> None:
    """A plan proposed again, and what it had followed or been changed into as it was."""
    state = {"approve": BudgetPlan.State.APPROVED, "reject": BudgetPlan.State.REJECTED, "modify": BudgetPlan.State.SUPERSEDED}[word.outcome]  # fmt: skip
    if plan.state == BudgetPlan.State.PROPOSED:  # the first of several words: nothing came of it yet
        return
    if plan.state != state:
        raise BadInput(f"{plan}: is {plan.state} by now")
    if made := word.before.get("made"):
        other = BudgetPlan.objects.select_for_update().get(brand=plan.brand, pk=made)
        if other.state != BudgetPlan.State.PROPOSED or words_so_far(other):
            raise BadInput(f"{other}: the changed plan was decided on by now")
        other.state = BudgetPlan.State.SUPERSEDED
        other.save(update_fields=["state"])
        Recommendation.objects.filter(plan=other).update(status=Recommendation.Status.WITHDRAWN)
        journal.changed(other, "", "taken back")
        _propose_instead(other, plan, word.changes, undone=True)
    if word.outcome == "approve":
        followed = BudgetPlan.objects.filter(brand=plan.brand, pk__in=word.before["approved"])
        followed.filter(state=BudgetPlan.State.SUPERSEDED).update(state=BudgetPlan.State.APPROVED)
    for key, status in word.before["offered"].items():
        Recommendation.objects.filter(brand=plan.brand, uuid=key).update(status=status)
    plan.state, plan.decided_by, plan.decided_at, plan.decision_note = BudgetPlan.State.PROPOSED, None, None, ""
    plan.save(update_fields=["state", "decided_by", "decided_at", "decision_note"])


def _experiment_back(test: Experiment, word: Approval) -> None:
    """A test designed again, and what it was changed into dropped; that its plan was registered stays."""
    if test.state == Experiment.State.DESIGNED:
        return
    if test.state != (Experiment.State.APPROVED if word.outcome == "approve" else Experiment.State.STOPPED):
        raise BadInput(f"{test}: is {test.state} by now")
    if made := word.before.get("made"):
        other = Experiment.objects.select_for_update().get(brand=test.brand, pk=made)
        if other.state != Experiment.State.DESIGNED or words_so_far(other):
            raise BadInput(f"{other}: the changed test was decided on by now")
        other.state = Experiment.State.STOPPED
        other.save(update_fields=["state"])
        journal.changed(other, "", "taken back")
        _propose_instead(other, test, word.changes, undone=True)
    test.state = Experiment.State.DESIGNED
    test.save(update_fields=["state"])


def _question_back(query: CleanRoomQuery) -> None:
    """A question that waits again: one that was rejected, or that nobody has begun to send."""
    if query.state == CleanRoomQuery.State.REJECTED:
        query.state = CleanRoomQuery.State.PROPOSED
        query.save(update_fields=["state"])
    elif query.state != CleanRoomQuery.State.PROPOSED and not rooms.call_back(query):
        raise BadInput(f"{query}: it was sent by now; its cost is paid")


def _deployment_back(word: Approval) -> None:
    """A deployment that has not begun is called off."""
    key = word.before.get("deployment")
    run = Deployment.objects.filter(brand=word.brand, pk=key).first() if key else None
    if run is None:  # a no, or the first of several words
        return
    run.request_cancel()
    if run.status != Deployment.Status.CANCELLED:
        raise BadInput(f"{word.title}: it is {run.get_status_display().lower()}; take the version back on its own page")


def undoable(user: Any) -> list[Approval]:
    """The person's own words that can still be taken back, the newest of each subject."""
    newer = Approval.objects.standing().filter(brand=OuterRef("brand"), subject=OuterRef("subject"), pk__gt=OuterRef("pk"))  # fmt: skip
    mine = Approval.objects.visible_to(user).standing().filter(by=user, created_at__gt=timezone.now() - UNDO_FOR)
    return list(mine.exclude(Exists(newer)).select_related("brand").order_by("-created_at")[:20])


def undo_last(what: Any, by: Any) -> None:
    """Take back one's newest word on a subject, or on all that a run proposed.

    Raises:
        BadInput: there is none that stands.
    """
    keys = [what.uuid]
    if isinstance(what, AgentRun):
        keys = [subject.uuid for step in what.steps.all() if (subject := subject_of(step)) is not None]
    said = Approval.objects.standing().filter(brand=what.brand, subject__in=keys, by=by).order_by("-pk")
    newest = {word.subject: word for word in reversed(said)}
    if not newest:
        raise BadInput("you have said nothing about it that could be taken back")
    for word in newest.values():
        undo(word, by)


# -- runs of the planner


def _mark(subject: Subject, outcome: str, by: Any) -> None:
    """What was decided stands in the steps that proposed it, and their runs end or wait on."""
    steps = AgentStep.objects.select_for_update().filter(
        brand=subject.brand, result__proposal=str(subject.uuid), approval=AgentStep.Approval.WAITING
    )
    for step in steps:
        word = AgentStep.Approval.MODIFIED if step.changes else AgentStep.Approval.APPROVED
        step.approval = word if outcome == "approve" else AgentStep.Approval.REJECTED
        step.decided_by, step.decided_at = by, timezone.now()
        step.save(update_fields=["approval", "decided_by", "decided_at"])
        _pending(step.run)


def _pending(run: AgentRun) -> None:
    """A run's stop and what it waits for, from its steps."""
    if run.stop not in ("needs_input", "done", "rejected"):
        return
    waiting = run.steps.filter(approval=AgentStep.Approval.WAITING)
    if run.steps.filter(approval=AgentStep.Approval.REJECTED).exists():
        run.stop, run.pending = "rejected", None
    elif waiting.exists():
        run.stop, run.pending = "needs_input", {"approve": [ask(step) for step in waiting]}
    else:
        run.stop, run.pending = "done", None
    run.save(update_fields=["stop", "pending"])


def ask(step: AgentStep) -> dict[str, Any]:
    """What a waiting step asks for."""
    return {"step": step.number, "tool": step.tool, "what": (step.result or {}).get("proposal")}


def subject_of(step: AgentStep) -> Subject | None:
    """The plan, test or question that a step proposed."""
    model: Any = PROPOSED.get(step.tool)  # by its tool: what a tool read may say anything of itself
    key = (step.result or {}).get("proposal") if model else None
    found: Subject | None = model.objects.filter(brand=step.brand, pk=key).first() if key else None
    return found


def decide_run(run: AgentRun, outcome: str, by: Any, note: str = "", number: int | None = None) -> AgentRun:
    """Approve or reject what a run waits with: all of it, or one step."""
    steps = run.steps.filter(approval=AgentStep.Approval.WAITING)
    for step in steps if number is None else steps.filter(number=number):
        decide(subject_of(step), outcome, by, note)
    run.refresh_from_db()
    return run


def decide(subject: Subject | None, outcome: str, by: Any, note: str = "") -> Any:
    """Approve or reject whatever waits."""
    if isinstance(subject, BudgetPlan):
        return decide_plan(subject, outcome, by, note)
    if isinstance(subject, Experiment):
        return decide_experiment(subject, outcome, by, note)
    if isinstance(subject, CleanRoomQuery):
        return decide_question(subject, outcome, by, note)
    if isinstance(subject, Adapter):
        return decide_adapter(subject, outcome, by, note)
    raise BadInput("what was proposed is not there any more")


def pass_by_itself(step: AgentStep) -> bool:
    """Approve without a person, where a rule allows it: only on a confidence that was scored often enough."""
    subject = subject_of(step)
    if subject is None or needed(subject) > 0:
        return False
    log = journal.about(subject)
    verdict = journal.verdict_of(log)
    if not verdict.should_proceed or verdict.n < ENOUGH:
        return False
    decide(
        subject, "approve", None, f"by rule: calibrated confidence {verdict.confidence_calibrated:.2f}, n {verdict.n}"
    )
    return True


# -- what waits


def waiting(user: Any) -> list[Subject]:
    """Plans, tests and questions of the person's brands that wait for a decision, newest first."""
    found: list[Any] = []
    for some in _waiting(user):
        shop = "connection__retailer" if some.model is CleanRoomQuery else "retailer"
        found += some.select_related("brand", shop)[:100]
    return sorted(found, key=lambda row: row.created_at, reverse=True)


def _waiting(user: Any) -> tuple[Any, Any, Any]:
    tests = Experiment.objects.visible_to(user).filter(
        state=Experiment.State.DESIGNED, status=Experiment.Status.SUCCEEDED, pk__in=_proposed(user)
    )
    questions = CleanRoomQuery.objects.visible_to(user).filter(state=CleanRoomQuery.State.PROPOSED)
    return BudgetPlan.objects.visible_to(user).awaiting_approval(), tests, questions


def for_me(user: Any) -> int:
    """How many proposals wait for this person's own word."""
    if not may_decide(user):
        return 0
    rows: list[Any] = [row for some in _waiting(user) for row in some.select_related("brand").only("brand")]
    said = Approval.objects.standing().filter(by=user, outcome=Approval.Outcome.APPROVE)
    done = set(said.filter(subject__in=[row.pk for row in rows]).values_list("subject", flat=True))
    return sum(may_decide(user, row.brand) and row.pk not in done for row in rows)


def _proposed(user: Any) -> list[UUID]:
    """Tests that a planner's run proposed; those that people design themselves wait on their own page."""
    steps = AgentStep.objects.filter(run__in=AgentRun.objects.visible_to(user), approval=AgentStep.Approval.WAITING)
    return [UUID(step.result["proposal"]) for step in steps if step.result and step.result.get("kind") == "experiment"]

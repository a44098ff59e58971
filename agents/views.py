"""Screens where agents' proposals are decided, what decisions expected, and which adapters write."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import timedelta
from statistics import median
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agents import charts, decisions, journal, planning, rooms, services, serving
from agents import forecasts as predictions
from agents.domain import briefs
from agents.domain import rooms as questions
from agents.forms import ExperimentChangeForm, GoalForm, PlanChangeForm, PlaygroundForm, QuestionForm
from agents.models import (
    Adapter,
    AdapterAlias,
    AgentRun,
    Approval,
    CleanRoomConnection,
    CleanRoomQuery,
    Forecast,
    Generation,
    ReflectionLog,
)
from campaigns.models import BudgetPlan, Experiment, Task
from feedback.models import Feedback
from retailers.models import Brand, roles
from retailers.services import check_text
from rmn.lib import pages, stats, words
from rmn.lib.errors import BadInput, RmnError
from rmn.lib.http import StaffRequest
from rmn.lib.runs import find as find_run

HTMX_STOP_POLLING = 286
ONLY_DECIDERS = "Only analysts and ops staff of the brand decide; ask one of them."

# -- what waits, and the word on it


@require_GET
@login_required
def inbox(request: StaffRequest) -> HttpResponse:
    """Everything that waits for a person's word, with what it changes and why."""
    asking = AgentRun.objects.visible_to(request.user).asking().select_related("brand")
    context = {
        "cards": [_card(row, request.user) for row in decisions.waiting(request.user)],
        "questions": asking[:50],
        "adapters": Adapter.objects.visible_to(request.user).at_the_gate().select_related("brand")[:50],
        "reopened": ReflectionLog.objects.visible_to(request.user).reopened().select_related("brand")[:50],
        "said": Approval.objects.visible_to(request.user).select_related("brand", "by")[:10],
        "ways_back": [_way_back(word) for word in decisions.undoable(request.user)],
    }
    return render(request, "agents/inbox.html", context)


def _way_back(word: Approval, target: str = "") -> dict[str, Any]:
    """What was decided, with its undo."""
    told = f"You {decisions.DONE[word.outcome]} {word.title}."
    return {"words": told, "action": reverse("undo-decision", args=[word.uuid]), "target": target}


def _ways_back(user: Any, subject: Any) -> dict[str, Any] | None:
    """The undo of the person's newest word on it, while there is one."""
    word = next((word for word in decisions.undoable(user) if word.subject == subject.uuid), None)
    return _way_back(word, f"#waiting-{subject.pk}") if word else None


KINDS: dict[Any, str] = {BudgetPlan: "plan", Experiment: "experiment", CleanRoomQuery: "question"}


def _card(subject: Any, user: Any) -> dict[str, Any]:
    """What a person needs for a decision, and nothing else."""
    log = journal.about(subject)
    needed, said = decisions.needed(subject), decisions.words_so_far(subject)
    change = ""
    # fmt: off
    if isinstance(subject, BudgetPlan):
        result = subject.plan
        money = subject.currency
        figures: list[tuple[str, Any, str]] = [("Budget", words.short(subject.total_budget), money), ("Expected sales", words.short(result["objective"]), money), ("At most possible", words.short(result["upper_bound"]), money)]
        change = reverse("change-plan", args=[subject.pk])
    elif isinstance(subject, CleanRoomQuery):
        result = decisions.question_result(subject)
        figures = [("Costs", f"{subject.cost:g}", ""), ("Left of the privacy budget", f"{result['left']:g}", ""), ("Least group", subject.connection.k_threshold, "")]
    else:
        result = subject.design.get("best") or subject.design
        figures = [("Stores", len(result.get("units") or []), ""), ("Finds a lift of", words.share(result.get("mde"), 1), "")]
        change = reverse("change-experiment", args=[subject.pk]) if subject.kind == "geo" else ""
    # fmt: on
    return {
        "subject": subject,
        "kind": KINDS[type(subject)],
        "url": _page_of(subject),
        "figures": figures,
        "why": result.get("explanation") or subject.name,
        "log": log,
        "sure": log.confidence.get("value"),
        "calibrated": log.verdict.get("confidence_calibrated"),
        "n": log.verdict.get("n") or 0,
        "needed": needed,
        "said": said,
        "mine": any(word.by_id == user.pk for word in said),
        "may": decisions.may_decide(user, subject.brand),
        "change": change,
    }


@require_POST
@login_required
def decide_waiting(request: StaffRequest, kind: str, pk: UUID, outcome: str) -> HttpResponse:
    """A word on what waits, from the inbox or a plan's page; by HTMX its card answers."""
    model: Any = {name: model for model, name in KINDS.items()}.get(kind)
    if model is None or outcome not in ("approve", "reject"):
        raise Http404
    row = get_object_or_404(model.objects.visible_to(request.user).select_related("brand"), pk=pk)
    problem, told = "", ""
    if not decisions.may_decide(request.user, row.brand):
        problem = ONLY_DECIDERS
    else:
        try:
            row = decisions.decide(row, outcome, request.user, request.POST.get("note", ""))
            told = _outcome(row)
        except RmnError as error:
            problem = str(error)
    if request.htmx:
        waits = row in decisions.waiting(request.user)
        card = _card(row, request.user) if waits else {"subject": row, "url": _page_of(row)}
        undo = None if problem else _ways_back(request.user, row)
        return render(request, "agents/inbox.html#card", {"card": card, "problem": problem, "told": told, "undo": undo})
    (messages.error if problem else messages.success)(
        request, problem or f"{told} The inbox can undo it for ten minutes."
    )
    return redirect(_safe_next(request) or _page_of(row))


@require_POST
@login_required
def undo_decision(request: StaffRequest, pk: UUID) -> HttpResponse:
    """Take one's own word back; by HTMX the card answers that waits again."""
    word = get_object_or_404(Approval.objects.visible_to(request.user).select_related("brand"), uuid=pk)
    problem = ""
    try:
        decisions.undo(word, request.user)
    except BadInput as error:
        problem = str(error)
    row = next((row for row in decisions.waiting(request.user) if row.uuid == word.subject), None)
    if request.htmx and row is not None:
        told = "" if problem else "Taken back; it waits again."
        return render(
            request, "agents/inbox.html#card", {"card": _card(row, request.user), "problem": problem, "told": told}
        )
    (messages.error if problem else messages.success)(request, problem or "Taken back; it waits again.")
    return HttpResponse(headers={"HX-Redirect": reverse("inbox")}) if request.htmx else redirect("inbox")


def _outcome(row: Any) -> str:
    if row.state in (BudgetPlan.State.PROPOSED, Experiment.State.DESIGNED):
        said, needed = len(decisions.words_so_far(row)), decisions.needed(row)
        return f"Your approval is kept; {words.counted(needed - said, 'more person', 'more people')} must approve."
    if isinstance(row, CleanRoomQuery):
        return (
            f"{row}: {'rejected; nothing is sent' if row.state == row.State.REJECTED else 'approved; it is sent once'}."
        )
    return f"{row} is {row.state}."


def _page_of(row: Any) -> str:
    named: dict[Any, str] = {BudgetPlan: "budget-plan", Experiment: "experiment", CleanRoomQuery: "clean-room-query", Adapter: "adapter"}  # fmt: skip
    return reverse(named[type(row)], args=[row.uuid])


def _safe_next(request: StaffRequest) -> str:
    wanted = request.POST.get("next", "")
    return wanted if url_has_allowed_host_and_scheme(wanted, allowed_hosts=None) else ""


@require_POST
@login_required
def decide_plan(request: StaffRequest, pk: UUID, outcome: str) -> HttpResponse:
    """Approve or reject a plan on its own page."""
    return decide_waiting(request, "plan", pk, outcome)


@require_POST
@login_required
def approve_experiment(request: StaffRequest, pk: UUID) -> HttpResponse:
    """Let a test run, from its own page."""
    return decide_waiting(request, "experiment", pk, "approve")


@require_http_methods(["GET", "POST"])
@login_required
def change_experiment(request: StaffRequest, pk: UUID) -> HttpResponse:
    """Change a designed test before it is approved: how long it runs, how many stores are treated at most."""
    test = get_object_or_404(Experiment.objects.visible_to(request.user).select_related("brand", "retailer"), pk=pk)
    form = ExperimentChangeForm(request.POST or None, initial=decisions.asked_of(test))
    if request.method == "POST" and form.is_valid():
        wish = {name: form.cleaned_data[name] for name in ("duration", "most_units")}
        try:
            if not decisions.may_decide(request.user, test.brand):
                raise BadInput(ONLY_DECIDERS)
            made = decisions.change_experiment(test, wish, request.user, form.cleaned_data["note"])
        except BadInput as error:
            form.add_error(None, str(error))
        else:
            told = "Designed anew. This one waits for approval now; the inbox can undo the change for ten minutes."
            messages.success(request, told)
            return redirect("experiment", made.pk)
    return render(
        request, "agents/change_experiment.html", {"test": test, "form": form}, status=422 if form.errors else 200
    )


@require_http_methods(["GET", "POST"])
@login_required
def change_plan(request: StaffRequest, pk: UUID) -> HttpResponse:
    """Change a proposed plan before it is approved: another budget, arms that get nothing or a fixed amount."""
    plan = get_object_or_404(BudgetPlan.objects.visible_to(request.user).select_related("brand", "retailer"), pk=pk)
    form = PlanChangeForm(request.POST or None, plan=plan)
    if request.method == "POST" and form.is_valid():
        if not decisions.may_decide(request.user, plan.brand):
            form.add_error(None, ONLY_DECIDERS)
        else:
            try:
                made = decisions.change_plan(plan, form.changes(), request.user, form.cleaned_data["note"])
            except BadInput as error:
                form.add_error(None, str(error))
            else:
                count = len(decisions.differences(plan, made))
                messages.success(
                    request,
                    f"Solved anew: {words.counted(count, 'amount')} changed. This one waits for approval now; the inbox can undo the change for ten minutes.",
                )
                return redirect("budget-plan", made.pk)
    return render(request, "agents/change_plan.html", {"plan": plan, "form": form}, status=422 if form.errors else 200)


# -- plans of the planner


@require_http_methods(["GET", "POST"])
@login_required
def plans(request: StaffRequest) -> HttpResponseBase:
    """Goals and how far they are; a new one is sent on its way here."""
    form = GoalForm(request.POST or None, user=request.user)
    if request.method == "POST" and form.is_valid():
        run = services.request_plan(**form.cleaned_data, by=request.user)
        return redirect("plan", run.pk)
    table = pages.Table(
        request,
        AgentRun.objects.visible_to(request.user).select_related("brand", "retailer"),
        title="Plans",
        name="plans",
        order="-created_at",
        columns=[
            pages.Column("goal", "Goal", value=lambda row: row.goal[:120], href=lambda row: reverse("plan", args=[row.pk])),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name),
            pages.Column("source", "Planned by", value=lambda row: row.playbook.replace("_", " ") or row.source),
            pages.Column("stop", "State", value=lambda row: STOPS.get(row.stop, row.status)),
            pages.Column("created_at", "Made", sort="created_at"),
        ],
        search=["goal"],
        filters=[pages.Filter("stop", "State", list(STOPS.items()))],
        empty="No goal yet. Say above what is to be reached.",
    )  # fmt: skip
    return table.answer() or render(
        request, "agents/plans.html", {"table": table, "form": form}, status=422 if form.errors else 200
    )


STOPS = {
    "done": "done",
    "needs_input": "waits for somebody",
    "rejected": "rejected",
    "step_limit": "out of steps",
    "budget": "out of time or tokens",
    "error": "failed",
}
TOOL_WORDS = {
    "read_metrics": "Read what was spent and sold",
    "harmonize_status": "Look at the feeds",
    "fit_response": "Fit response curves",
    "allocate_budget": "Split the budget",
    "what_if": "Ask what other budgets would bring",
    "design_experiment": "Design a test",
    "analyze_experiment": "Read a test's result",
    "check_copy": "Check a text",
    "write_copy": "Write headlines",
    "query_clean_room": "Propose a question to a clean room",
    "scan_personal_data": "Look for personal data",
    "recall_lessons": "Remember like cases",
}


@require_GET
@login_required
def plan(request: StaffRequest, pk: UUID) -> HttpResponse:
    """One goal: its steps as they happen, what each found, and what waits for a word."""
    run = get_object_or_404(
        AgentRun.objects.visible_to(request.user).select_related("brand", "retailer", "requested_by"), pk=pk
    )
    if request.GET.get("export") == "json":
        answer = HttpResponse(json.dumps(planning.trace(run), indent=1, default=str), content_type="application/json")
        answer["Content-Disposition"] = f'attachment; filename="trace-{run.pk}.json"'
        return answer
    steps = []
    for step in run.steps.select_related("decided_by").order_by("number"):
        subject = decisions.subject_of(step)
        waits = step.approval == step.Approval.WAITING and subject is not None
        steps.append(
            {
                "step": step,
                "words": TOOL_WORDS.get(step.tool, step.tool),
                "found": _found(step),
                "stands": ROOM_STATES[subject.state] if isinstance(subject, CleanRoomQuery) else "",
                "problem": step.errors[0]["message"] if step.errors else "",
                "subject": subject,
                "url": _page_of(subject) if subject else "",
                "card": _card(subject, request.user) if waits else None,
            }
        )
    context = {"run": run, "steps": steps, "state": STOPS.get(run.stop, run.status), "used": run.trace}
    if not request.htmx:
        return render(request, "agents/plan.html", context)
    status = HTMX_STOP_POLLING if run.is_finished else 200
    return render(request, "agents/plan.html#progress", context, status=status)


def _found(step: Any) -> str:
    """What a step found, in a line."""
    result = step.result
    if step.errors or result is None:
        return ""
    if step.tool == "read_metrics":
        spend: dict[str, float] = {}
        for row in result:
            spend[row["currency"]] = spend.get(row["currency"], 0.0) + (row["spend"] or 0.0)
        money = ", ".join(words.money(value, currency) for currency, value in spend.items())
        return f"{words.counted(len(result), 'slice')}: {money} spent" if result else "nothing is loaded"
    if step.tool == "harmonize_status":
        return f"{words.counted(result['loads'], 'load')}, {result['failed']} failed, {result['open_quarantine']:,} rows in quarantine"
    if step.tool == "fit_response":
        return f"{words.counted(len(result['arms']) if isinstance(result['arms'], list) else result['arms'], 'curve')}"
    if step.tool == "what_if":
        return "; ".join(f"{words.short(row['budget'])} brings {words.short(row['objective'])}" for row in result)
    if step.tool == "recall_lessons":
        known = result["remembered"]
        best = f", most like: {known[0]['what']} ({known[0]['came'] or known[0]['decided']})" if known else ""
        return f"{words.counted(len(known), 'like case')}{best}"
    if step.tool == "design_experiment":
        return f"{words.counted(len(result['units']), 'store')} find a lift of {words.share(result['mde'], 1)}"
    if step.tool == "analyze_experiment":
        return " ".join(result["words"][:2])
    if step.tool == "write_copy":
        return "; ".join(result["offered"]) or "none of what was written passes"
    return str(result.get("explanation") or result.get("verdict") or "")[:400] if isinstance(result, dict) else ""


# -- the decision journal


@require_GET
@login_required
def reflections(request: StaffRequest) -> HttpResponseBase:
    """Every decision and why it was taken, newest first."""
    table = pages.Table(
        request,
        ReflectionLog.objects.visible_to(request.user).select_related("brand", "decided_by"),
        title="Decision journal",
        name="decisions",
        order="-created_at",
        columns=[
            pages.Column("context", "Decision", href=lambda row: reverse("reflection", args=[row.uuid])),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name),
            pages.Column("phase", "Phase", value=lambda row: "reopened" if row.reopened_at else row.phase, sort="phase"),
            pages.Column("sure", "How sure", value=lambda row: row.confidence.get("value"), kind="share"),
            pages.Column("decision", "Decided", value=lambda row: row.decision[:80]),
            pages.Column("outcome", "Came of it", value=lambda row: row.outcome.splitlines()[-1][:100] if row.outcome else ""),
            pages.Column("created_at", "Begun", sort="created_at"),
            pages.Column("agent", "By"),
        ],
        search=["context", "decision", "outcome"],
        filters=[pages.Filter("phase", "Phase", ReflectionLog.Phase.choices), pages.Filter("task", "Task", Task.choices)],
        empty="No decision yet: each plan, test or adapter that is proposed leaves its reasons here.",
    )  # fmt: skip
    return table.answer() or render(request, "campaigns/list.html", {"table": table, "title": "Decision journal"})


@require_GET
@login_required
def reflection(request: StaffRequest, pk: UUID) -> HttpResponse:
    """One decision as its journal tells it."""
    rows = ReflectionLog.objects.visible_to(request.user).select_related("brand", "retailer", "decided_by", "run")
    log = get_object_or_404(rows, uuid=pk)
    subject = journal.subject_of(log)
    context = {
        "log": log,
        "phases": [(name, _ahead(name, log.phase)) for name in ReflectionLog.Phase.values],
        "risks": log.risk_assessment.get("high_risk_factors") or [],
        "remembered": [one if isinstance(one, dict) else {"what": one} for one in log.memory_reference],
        "subject": subject,
        "subject_url": _page_of(subject) if subject else "",
        "decided_at": ""
        if subject is None
        else _page_of(subject)
        if isinstance(subject, Adapter)
        else reverse("inbox"),
        "forecasts": log.forecasts.order_by("due"),
        "lacks": journal.lacks(log) if log.phase in ("reflection", "analysis", "decision") else [],
        "open": log.phase in ("reflection", "analysis", "decision") and (not log.decision or log.reopened_at),
        "may": decisions.may_decide(request.user, log.brand),
        "speaks": sorted(journal.speaks_for(request.user, log.brand)),
    }
    return render(request, "agents/reflection.html", context)


def _ahead(name: str, phase: str) -> str:
    order = list(ReflectionLog.Phase.values)
    place = order.index(name) - order.index(phase)
    return "now" if place == 0 else "passed" if place < 0 else "ahead"


@require_POST
@login_required
def move_reflection(request: StaffRequest, pk: UUID, move: str) -> HttpResponse:
    """Validate in a team's name, or decide to go on."""
    log = get_object_or_404(ReflectionLog.objects.visible_to(request.user).select_related("brand"), uuid=pk)
    if move not in ("validate", "decide"):
        raise Http404
    try:
        if move == "validate":
            journal.validate(log, request.POST.get("name", ""), request.user)
            messages.success(request, "Your validation stands.")
        elif not decisions.may_decide(request.user, log.brand):
            messages.error(request, ONLY_DECIDERS)
        else:
            journal.carry_out(log, request.POST.get("decision", "") or "go on", request.user)
            messages.success(request, "Decided: it goes on.")
    except RmnError as error:
        messages.error(request, str(error))
    return redirect("reflection", log.uuid)


# -- forecasts


@require_GET
@login_required
def forecasts(request: StaffRequest) -> HttpResponseBase:
    """What decisions expect: open, due and resolved; how often it came true, and who says it best."""
    today = timezone.now().date()
    seen = Forecast.objects.visible_to(request.user)
    show = request.GET.get("show", "open")
    rows = {"due": seen.due(today), "resolved": seen.exclude(status=Forecast.Status.OPEN)}.get(show, seen.open())
    table = pages.Table(
        request,
        rows.select_related("brand", "made_by"),
        title="Forecasts",
        name="forecasts",
        order="-due" if show == "resolved" else "due",
        columns=[
            pages.Column("statement", "It is expected that", href=lambda row: reverse("forecast", args=[row.uuid])),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name),
            pages.Column("probability", "How sure", sort="probability", kind="share"),
            pages.Column("due", "Due", sort="due"),
            pages.Column("status", "State", sort="status"),
            pages.Column("happened", "Came true", value=lambda row: {True: "yes", False: "no"}.get(row.happened, "")),
            pages.Column("by", "By", value=lambda row: row.agent or str(row.made_by or "")),
        ],
        search=["statement", "agent"],
        filters=[pages.Filter("task", "Task", Task.choices)],
        empty={"due": "Nothing is due.", "resolved": "Nothing has been resolved yet."}.get(
            show, "No forecast yet: each approved decision leaves one."
        ),
    )
    told = predictions.score(seen, "agent")
    people = predictions.score(seen, "person")["groups"]
    whole = told["all"] or {}
    pictures = []
    if whole.get("table"):
        pictures.append(
            charts.reliability(
                whole["table"],
                whole["n"],
                whole["note"] or f"Calibration error {whole['ece_10_equal_width']:.3f}, bars at 95 %.",
            )
        )
    context = {
        "table": table,
        "pictures": pictures,
        "tabs": [(name, said, count, name == show) for name, said, count in (("open", "Open", seen.open().count()), ("due", "Due", seen.due(today).count()), ("resolved", "Resolved", seen.exclude(status="open").count()))],
        "whole": whole,
        "league": sorted([{**one, "kind": "agent"} for one in told["groups"]] + [{**one, "kind": "person"} for one in people], key=lambda one: (one.get("brier") is None, one.get("brier") or 0.0)),
        "biases": told["biases"],
    }  # fmt: skip
    return table.answer() or pages.show(request, "agents/forecasts.html", context, pictures)


@require_GET
@login_required
def forecast(request: StaffRequest, pk: UUID) -> HttpResponse:
    """One claim: who says how sure, what it rests on, and what came of it."""
    rows = Forecast.objects.visible_to(request.user).select_related("brand", "retailer", "reflection", "made_by")
    row = get_object_or_404(rows, uuid=pk)
    others = (
        rows.filter(brand=row.brand, statement=row.statement, due=row.due).exclude(pk=row.pk).order_by("created_at")
    )
    is_open = row.status == Forecast.Status.OPEN
    mine = [one for one in others if one.made_by_id == request.user.pk and not one.agent]
    today = timezone.now().date()
    context = {
        "forecast": row,
        # what others said is shown once one has said one's own: nobody is led
        "others": others if mine or not is_open else [],
        "hidden": others.count() if is_open and not mine else 0,
        "may_say": is_open
        and row.due > today
        and not mine
        and not (row.made_by_id == request.user.pk and not row.agent),
        "may_resolve": is_open and decisions.may_decide(request.user, row.brand),
    }
    return render(request, "agents/forecast.html", context)


@require_POST
@login_required
def move_forecast(request: StaffRequest, pk: UUID, move: str) -> HttpResponse:
    """Say one's own probability, or what came of it, or that it can never be said."""
    row = get_object_or_404(Forecast.objects.visible_to(request.user).select_related("brand"), uuid=pk)
    if move not in ("say", "resolve", "give-up"):
        raise Http404
    try:
        if move == "say":
            share = _float(request.POST.get("probability"), "probability")
            predictions.beside(row, share / 100, request.user)
            messages.success(request, f"You say {share:g} %. It is kept, and scored when the answer is there.")
        elif not decisions.may_decide(request.user, row.brand):
            messages.error(request, ONLY_DECIDERS)
        elif move == "resolve":
            observed = _float(request.POST.get("observed"), "observed")
            done = predictions.resolve(row, observed=observed, by=request.user, note=request.POST.get("note", ""))
            messages.success(request, "It came true." if done.happened else "It did not come true.")
        else:
            predictions.give_up(row, request.POST.get("note", ""), request.user)
            messages.success(request, "Kept as unresolvable; it counts in no score.")
    except RmnError as error:
        messages.error(request, str(error))
    return redirect("forecast", row.uuid)


def _float(text: Any, name: str) -> float:
    try:
        value = float(str(text).replace(",", "").replace("%", "").strip())
    except ValueError:
        raise BadInput(f"{name}: {str(text)[:40]!r} is no number") from None
    if not math.isfinite(value):
        raise BadInput(f"{name}: a finite number")
    return value


# -- adapters


@require_GET
@login_required
def adapters(request: StaffRequest) -> HttpResponseBase:
    """Every version of the person's brands: what it is, whether it was proved, where it serves."""
    table = pages.Table(
        request,
        Adapter.objects.visible_to(request.user).select_related("brand", "retailer").prefetch_related("aliases"),
        title="Adapters",
        name="adapters",
        order="-created_at",
        columns=[
            pages.Column(
                "digest", "Version", value=lambda row: row.digest[:12], href=lambda row: reverse("adapter", args=[row.uuid])
            ),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name if row.brand else "all brands"),
            pages.Column("retailer", "Retailer", value=lambda row: row.retailer.name if row.retailer else "any"),
            pages.Column("task", "Task", sort="task"),
            pages.Column("state", "State", sort="state"),
            pages.Column("serves", "Serves as", value=lambda row: ", ".join(a.name for a in row.aliases.all())),
            pages.Column("created_at", "Made", sort="created_at"),
            pages.Column("proved", "Proved", value=lambda row: {True: "yes", False: "no"}.get(row.proof.get("passed"), "")),
            pages.Column("rank", "Rank", sort="rank"),
        ],
        search=["digest", "brand__name", "retailer__name"],
        filters=[
            pages.Filter("state", "State", Adapter.State.choices),
            pages.Filter("task", "Task", Task.choices),
        ],
        empty="No adapter yet: answers on the review screen become one. See the training runs in the console.",
    )  # fmt: skip
    context = {"table": table, "title": "Adapters", "more": [(reverse("playground"), "Playground")]}
    return table.answer() or render(request, "campaigns/list.html", context)


@require_GET
@login_required
def adapter(request: StaffRequest, pk: UUID) -> HttpResponse:
    """One version: how it does with people, its proof, its gate, where it comes from and what came of it."""
    seen = Adapter.objects.visible_to(request.user)
    row = get_object_or_404(seen.select_related("brand", "retailer"), uuid=pk)
    parents = {one.digest: one for one in seen.filter(digest__in=row.parents)}
    kin = seen.filter(brand=row.brand).exclude(pk=row.pk).order_by("-created_at")[:500]
    children = [one for one in kin if row.digest in one.parents]
    aliases = list(row.aliases.all())
    picture = charts.lineage(_steps(row, children, aliases))
    context = {
        "adapter": row,
        "aliases": aliases,
        "won": _won(request.user, row.digest),
        **_written(request.user, row),
        "parents": [
            {"words": digest[:12], "url": reverse("adapter", args=[parents[digest].uuid]) if digest in parents else ""}
            for digest in row.parents
        ],
        "made_by": find_run(row.manifest.get("training_run"), request.user),
        "children": [{"words": one.digest[:12], "url": reverse("adapter", args=[one.uuid])} for one in children],
        "picture": picture,
        "verdict": str(row.gate.get("verdict", "")).replace("_", " ").capitalize(),
        "may_deploy": _may_deploy(request.user),
    }
    return pages.show(request, "agents/adapter.html", context, [picture] if picture else [])


def _steps(row: Adapter, children: list[Adapter], aliases: list[AdapterAlias]) -> list[tuple[str, str]]:
    """From the answers of people to what serves, as far as the version's own records tell."""
    told: dict[str, Any] = row.manifest
    data: dict[str, Any] = told["data"] if isinstance(told.get("data"), dict) else {}
    sources = data.get("sources") or {}
    steps = [("Answers", f"{count} {str(name).replace('_', ' ')}") for name, count in list(sources.items())[:3]]
    if digest := str(data.get("set") or data.get("digest") or ""):
        rows = f", {data['rows']} rows" if data.get("rows") else ""
        steps.append(("Data set", f"{digest[:12]}{rows}"))
    steps += [("Made from", digest[:12]) for digest in row.parents[:3]]
    if told.get("method"):
        steps.append(
            ("Training", f"{str(told['method']).upper()}, {words.counted(int(told.get('steps') or 0), 'step')}")
        )
    if row.gate.get("verdict"):
        steps.append(("Gate", str(row.gate["verdict"]).replace("_", " ")))
    steps.append(("This version", row.digest[:12]))
    last = row.deployments.order_by("-created_at").first()
    if last is not None:
        steps.append(("Deployed", f"{last.created_at:%d %b %Y}, {last.get_status_display().lower()}"))
    steps += [("Serves as", f"{alias.name}") for alias in aliases]
    return steps + [("Led to", one.digest[:12]) for one in children[:3]]


def _written(user: Any, row: Adapter) -> dict[str, Any]:
    """What the version wrote: how much of its scope's texts of 30 days, how fast, and how much the rules let pass."""
    seen = Generation.objects.visible_to(user)
    mine = seen.filter(adapter_digest=row.digest)
    latest = list(mine.order_by("-created_at").values_list("latency_s", flat=True)[:200])
    found: dict[str, Any] = {"written": mine.count(), "latency": words.short(median(latest)) if latest else None}
    lately = seen.filter(brand=row.brand, task=row.task, created_at__gte=timezone.now() - timedelta(days=30)).exclude(
        alias="shadow"
    )
    if row.retailer_id is not None:
        lately = lately.filter(retailer=row.retailer)
    whole = lately.count()
    if whole:
        part = lately.filter(adapter_digest=row.digest).count()
        found["traffic"] = {"value": words.share(part / whole), "evidence": f"{part} of {whole} texts in 30 days"}
    judged = mine.exclude(verdict="").count()
    if judged:
        good = mine.filter(verdict="pass").count()
        low, high = stats.wilson(good, judged)
        found["passing"] = {
            "value": words.share(good / judged),
            "low": words.share(low),
            "high": words.share(high),
            "evidence": f"{good} of {words.counted(judged, 'text')}",
        }
    return found


def _may_deploy(user: Any) -> bool:
    return "ops" in roles(user)


def _won(user: Any, digest: str) -> dict[str, Any]:
    """Share of blind pairs that people decided for this version, with its Wilson interval."""
    wins, losses = predictions.votes(Feedback.objects.visible_to(user), digest)
    if not wins + losses:
        return {"value": "no votes", "evidence": "against any other version; ties aside"}
    low, high = stats.wilson(wins, wins + losses)
    return {
        "value": words.share(wins / (wins + losses)),
        "low": words.share(low),
        "high": words.share(high),
        "evidence": f"{words.counted(wins + losses, 'vote')} against other versions; ties aside",
    }


@require_POST
@login_required
def move_adapter(request: StaffRequest, pk: UUID, move: str) -> HttpResponse:
    """Deploy a version, or take it back; ops may."""
    row = get_object_or_404(Adapter.objects.visible_to(request.user).select_related("brand", "retailer"), uuid=pk)
    if move not in ("deploy", "roll-back"):
        raise Http404
    if not _may_deploy(request.user):
        messages.error(request, "Only ops staff say which version serves; ask one of them.")
        return redirect("adapter", row.uuid)
    try:
        if move == "deploy":
            alias = request.POST.get("alias", "")
            share = 0.1 if alias == "challenger" else 1.0
            run = decisions.decide_adapter(row, "approve", request.user, alias=alias, share=share)
            if run is not None:
                return redirect(run.get_absolute_url())
            messages.success(request, "Your approval is kept; the rules ask for another person's too.")
            return redirect("adapter", row.uuid)
        if row.brand is None:
            raise BadInput("Shared knowledge serves no brand by itself; there is nothing to take back.")
        reason = request.POST.get("reason", "")[:400]
        for held in row.aliases.exclude(name="previous"):
            services.roll_back_adapter(
                brand=row.brand, retailer=row.retailer, task=row.task, alias=held.name, reason=reason, by=request.user
            )
        messages.success(request, "Taken back; the version before it serves.")
    except RmnError as error:
        messages.error(request, str(error))
    return redirect("adapter", row.uuid)


# -- playground


@require_GET
@login_required
def playground(request: StaffRequest) -> HttpResponse:
    """One brief, written by the champion and by its challenger (or the base model), side by side."""
    asked = "product" in request.GET
    first = Brand.objects.for_user(request.user).order_by("name").first()
    initial = {"brand": first, **request.GET.dict()}
    form = PlaygroundForm(request.GET if asked else None, user=request.user, initial=initial)
    context: dict[str, Any] = {"form": form}
    if asked and form.is_valid():
        found = serving.aliases(
            brand=form.cleaned_data["brand"], retailer=form.cleaned_data["retailer"], task=Task.CREATIVE
        )
        sides = ["champion", "challenger" if "challenger" in found else "base"]
        context["lonely"] = "challenger" not in found
        context["panes"] = [
            {
                "name": side,
                "title": side.capitalize() if side != "base" else "Base model",
                "words": _written_by(found[side]) if side in found else "without an adapter",
                "url": f"{reverse('playground-stream')}?{urlencode({**_query(request), 'side': side})}",
            }
            for side in sides
        ]
    return render(request, "agents/playground.html", context)


def _query(request: StaffRequest) -> dict[str, str]:
    return {name: request.GET.get(name, "") for name in PlaygroundForm.base_fields}


def _written_by(route: serving.Route) -> str:
    return f"adapter {route.digest[:12]}" if route.digest else "the base model: no adapter serves here yet"


@require_GET
@login_required
def playground_stream(request: StaffRequest) -> HttpResponseBase:
    """The text of one side as server-sent events: piece, piece ..., then end with the verdict, or problem."""
    form = PlaygroundForm(request.GET, user=request.user)
    if not form.is_valid():
        told = "; ".join(f"{k}: {v[0]}" for k, v in form.errors.items())
        return HttpResponse(told, status=422, content_type="text/plain")
    said = form.cleaned_data
    side = request.GET.get("side", "")
    routes = serving.aliases(brand=said["brand"], retailer=said["retailer"], task=Task.CREATIVE)
    route = serving.Route(None, "base") if side == "base" else routes.get(side)
    if route is None:
        raise Http404
    answer = StreamingHttpResponse(_events(said, route), content_type="text/event-stream")
    answer["Cache-Control"] = "no-store"
    answer["X-Accel-Buffering"] = "no"  # a proxy would keep the pieces together
    return answer


def _events(said: dict[str, Any], route: serving.Route) -> Iterator[bytes]:
    if not settings.RMN_INFERENCE_URL:
        yield _event("problem", words="No model server: start everything with make run, or set RMN_INFERENCE_URL.")
        return
    item = briefs.Item(said["product"], said["brand"].name, said["size"], said["feature"], (said["network"],))
    whole = ""
    try:
        with serving.inference() as client:
            for piece in serving.stream(client, route, briefs.messages(item), brand=said["brand"], max_tokens=40):
                whole += piece
                yield _event("piece", text=piece)
        text = briefs.tidy(whole)
        verdict = check_text(
            text=text,
            network=said["network"],
            brand=said["brand"],
            product=item.product,
            facts=item.policy_facts,
        )
    except RmnError as error:
        yield _event("problem", words=str(error))
        return
    why = [finding.message for finding in verdict.findings]
    if len(text) > item.limit:
        why.append(f"{len(text)} characters, {item.limit} fit")
    good = verdict.verdict == "pass" and len(text) <= item.limit
    ending = {"pass": "Passes" if good else "Does not pass", "block": "Does not pass"}.get(
        verdict.verdict, "Needs proof"
    )
    yield _event(
        "end", text=text, good=good, words=f"{ending} at {said['network']}{': ' + '; '.join(why) if why else ''}"
    )


def _event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


# -- clean rooms


@require_GET
@login_required
def clean_rooms(request: StaffRequest) -> HttpResponseBase:
    """The rooms somebody may see, what is left of their privacy budgets, and what was asked."""
    places = CleanRoomConnection.objects.visible_to(request.user).select_related("brand", "retailer")
    table = _questions(request, places)
    meters = [_budget(place) for place in places.order_by("brand__name", "name")]
    return table.answer() or render(request, "agents/clean_rooms.html", {"meters": meters, "table": table})


@require_http_methods(["GET", "POST"])
@login_required
def clean_room(request: StaffRequest, pk: UUID) -> HttpResponseBase:
    """One room: its budget, its reviewed questions with their values, what was asked of it."""
    mine = CleanRoomConnection.objects.visible_to(request.user)
    place = get_object_or_404(mine.select_related("brand", "retailer"), uuid=pk)
    may = bool({"analyst", "ops"} & roles(request.user, place.brand))
    names = [str(row.get("name")) for row in place.templates]
    chosen = request.POST.get("template") or request.GET.get("template") or (names[0] if names else "")
    asked = questions.chosen(place.templates, chosen) if chosen in names else None
    form = QuestionForm(request.POST or None, asked=asked) if asked else None
    if request.method == "POST":
        if not may:
            return HttpResponse("Only analysts and ops staff ask clean rooms.", status=403, content_type="text/plain")
        if asked is None or form is None:
            return HttpResponse("This room has no such question.", status=422, content_type="text/plain")
        if form.is_valid():
            try:
                query = rooms.request(
                    brand=place.brand, connection=place, template=asked.name, parameters=form.values(), by=request.user
                )
                return redirect("clean-room-query", query.pk)
            except RmnError as error:
                form.add_error(None, str(error))
    table = _questions(request, mine.filter(pk=place.pk))
    context = {"meter": _budget(place), "place": place, "names": names, "asked": asked, "form": form, "may": may, "table": table}  # fmt: skip
    wrong = form is not None and form.is_bound and form.errors
    return table.answer() or render(request, "agents/clean_room.html", context, status=422 if wrong else 200)


@require_GET
@login_required
def clean_room_query(request: StaffRequest, pk: UUID) -> HttpResponse:
    """One question: how far it is, what may be shown of the answer, or why nothing is."""
    places = CleanRoomConnection.objects.visible_to(request.user)
    found = CleanRoomQuery.objects.visible_to(request.user).filter(connection__in=places)
    query = get_object_or_404(found.select_related("connection", "brand", "requested_by"), pk=pk)
    rows = (query.result or {}).get("rows") or []
    heads = list(dict.fromkeys(name for row in rows for name in row))
    context = {
        "query": query,
        "heads": heads,
        "rows": [[row.get(name) for name in heads] for row in rows],
        "state": ROOM_STATES[query.state],
        "lines": query.ledger.order_by("at", "pk"),
    }
    return render(request, "agents/clean_room_query.html", context)


ROOM_STATES = {
    "proposed": "waits for approval; nothing is sent or paid",
    "rejected": "rejected; nothing was sent or paid",
    "intent": "wished; nothing is sent or paid",
    "reserved": "its cost is taken from the budget",
    "submitted": "sent to the room",
    "running": "the room works on it",
    "fetched": "the answer is here and being checked",
    "checked": "checked",
    "released": "checked and shown",
    "refused": "refused",
}


def _budget(place: CleanRoomConnection) -> dict[str, Any]:
    taken = rooms.used(place)
    return {"place": place, "used": taken, "left": max(place.budget_units - taken, 0.0), "most": max(place.budget_units, taken)}  # fmt: skip


def _questions(request: StaffRequest, places: Any) -> pages.Table:
    return pages.Table(
        request,
        CleanRoomQuery.objects.visible_to(request.user).filter(connection__in=places).select_related("connection", "brand", "requested_by"),
        title="Questions",
        name="questions",
        order="-created_at",
        columns=[
            pages.Column("template", "Question", href=lambda row: reverse("clean-room-query", args=[row.pk])),
            pages.Column("connection", "Room", value=lambda row: row.connection.name),
            pages.Column("state", "State", value=lambda row: ROOM_STATES[row.state]),
            pages.Column("cost", "Cost", sort="cost"),
            pages.Column("created_at", "Asked", sort="created_at"),
            pages.Column("suppressed", "Groups left out", sort="suppressed"),
            pages.Column("by", "By", value=lambda row: getattr(row.requested_by, "username", "") or "the planner"),
            pages.Column("error", "Why not", value=lambda row: row.error[:160]),
        ],
        search=["template"],
        filters=[pages.Filter("state", "State", list(ROOM_STATES.items()))],
        empty="Nothing was asked yet.",
    )  # fmt: skip

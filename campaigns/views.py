"""Screens of budgets and experiments."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_GET, require_POST

from campaigns import charts, services
from campaigns.domain.experiments import words
from campaigns.models import BudgetPlan, CurveFit, Experiment
from rmn.lib import charts as drawing
from rmn.lib import pages
from rmn.lib.errors import BadInput
from rmn.lib.http import StaffRequest


@require_GET
@login_required
def budgets(request: StaffRequest) -> HttpResponseBase:
    """Every plan of the person's brands, newest first."""
    table = pages.Table(
        request,
        BudgetPlan.objects.visible_to(request.user).select_related("brand", "retailer"),
        title="Budget plans",
        name="budgets",
        order="-created_at",
        columns=[
            pages.Column("name", "Plan", sort="name", href=lambda row: reverse("budget-plan", args=[row.pk])),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name),
            pages.Column("state", "State", value=lambda row: row.state if row.is_finished else row.status),
            pages.Column("total_budget", "Budget", sort="total_budget", kind="money"),
            pages.Column("currency", "Currency"),
            pages.Column("gain", "Over the even split", value=_gain),
            pages.Column("created_at", "Made", sort="created_at"),
        ],
        search=["name"],
        filters=[pages.Filter("state", "State", BudgetPlan.State.choices)],
        empty="No plan yet. Fit curves and allocate a budget: python manage.py plan, or POST /api/v1/budget-plans/.",
    )
    return table.answer() or render(request, "campaigns/list.html", {"table": table, "title": "Budgets"})


def _gain(row: BudgetPlan) -> str:
    gain = (row.plan.get("even_split") or {}).get("gain_percent")
    return "" if gain is None else f"{gain:+.1f} %{' (spend assumed)' if row.spend_assumed else ''}"


@require_GET
@login_required
def budget(request: StaffRequest, pk: UUID) -> HttpResponseBase:
    """One plan: where the money goes, why, how sure, and the decision."""
    plan = get_object_or_404(
        BudgetPlan.objects.visible_to(request.user).select_related("brand", "retailer", "decided_by"), pk=pk
    )
    if not plan.allocations:
        return render(request, "campaigns/budget.html", {"plan": plan, "run": plan})
    fit = CurveFit.objects.filter(brand=plan.brand, status=CurveFit.Status.SUCCEEDED).first()
    names = fit.result.get("names", {}) if fit else {}
    arms = {arm["id"]: arm for arm in plan.problem.get("arms", [])}
    last = {name: float(arm.get("last") or 0.0) for name, arm in arms.items()}
    note = f"From {len(arms)} curves{'; ' + charts.ASSUMED if plan.spend_assumed else ''}"
    pictures = [
        charts.allocation(plan.allocations, names, last, plan.currency, note),
        charts.frontier(plan.plan.get("frontier") or [], plan.currency, note),
    ]
    rows = [
        {
            "arm": names.get(row["id"], row["id"]),
            "last": last.get(row["id"], 0.0),
            "spend": row["spend"],
            "sales": row["expected_sales"],
            "low": (row.get("interval") or [None, None])[0],
            "high": (row.get("interval") or [None, None])[1],
            "marginal": row["marginal_roas"],
            "held": row["binding"] or "",
            "evidence": arms[row["id"]].get("evidence", ""),
        }
        for row in sorted(plan.allocations, key=lambda row: -row["spend"])
    ]
    table = pages.Table(
        request,
        rows,
        title="Arms",
        name="arms",
        columns=[
            pages.Column("arm", "Arm"),
            pages.Column("last", "Now", kind="money", unit=plan.currency),
            pages.Column("spend", "Plan", kind="money", unit=plan.currency),
            pages.Column("sales", "Expected sales", kind="money", unit=plan.currency),
            pages.Column("marginal", "Next unit brings"),
            pages.Column("held", "Held by"),
            pages.Column("evidence", "Evidence"),
            pages.Column("low", "Low", kind="money", unit=plan.currency),
            pages.Column("high", "High", kind="money", unit=plan.currency),
        ],
        per_page=100,
    )
    context = {
        "plan": plan,
        "pictures": pictures,
        "table": table,
        "decision": _decision(plan),
        "split": plan.plan.get("even_split"),
    }
    return table.answer() or pages.show(request, "campaigns/budget.html", context, pictures)


def _decision(plan: BudgetPlan) -> dict[str, Any] | None:
    if plan.state != BudgetPlan.State.PROPOSED:
        return None
    try:
        approve, reject = (reverse("decide-plan", args=[plan.pk, outcome]) for outcome in ("approve", "reject"))
        change = reverse("change-plan", args=[plan.pk])
    except NoReverseMatch:  # the app that decides is not there
        return None
    interval = plan.plan.get("interval")
    sure = (
        "The curves carry no interval."
        if not interval
        else f"Sales between {interval[0]:,.0f} and {interval[1]:,.0f} {plan.currency} in 9 of 10 draws of the curves."
    )
    evidence = ", ".join(f"{part['share']:.0%} {part['evidence']}" for part in plan.plan.get("evidence", []))
    return {
        "title": f"Spend {plan.total_budget:,.0f} {plan.currency} as planned?",
        "what": "Approving supersedes the plan approved before, and records reasons and a forecast.",
        "why": plan.plan.get("explanation", ""),
        "sure": f"{sure} The money rests on: {evidence}.",
        "risk": "; ".join((plan.plan.get("warnings") or [])[:2]) or "The curves are wrong where spend was never seen.",
        "approve": approve,
        "reject": reject,
        "change": change,
    }


@require_GET
@login_required
def experiments(request: StaffRequest) -> HttpResponseBase:
    """Every test of the person's brands."""
    table = pages.Table(
        request,
        Experiment.objects.visible_to(request.user).select_related("brand", "retailer"),
        title="Experiments",
        name="experiments",
        order="-created_at",
        columns=[
            pages.Column("name", "Experiment", sort="name", href=lambda row: reverse("experiment", args=[row.pk])),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name),
            pages.Column("kind", "Kind", sort="kind"),
            pages.Column("state", "State", sort="state"),
            pages.Column("mde", "Finds", value=lambda row: _share((row.design.get("best") or row.design).get("mde"))),
            pages.Column("verdict", "Verdict", value=lambda row: str(row.result.get("verdict", "")).replace("_", " ")),
            pages.Column("created_at", "Made", sort="created_at"),
        ],
        search=["name", "hypothesis"],
        filters=[pages.Filter("state", "State", Experiment.State.choices)],
        empty="No experiment yet. Design one: python manage.py design_experiment, or plan a goal such as “prove a network”.",
    )
    context = {"table": table, "title": "Experiments", "worth": _worth_testing(request)}
    return table.answer() or render(request, "campaigns/experiments.html", context)


def _worth_testing(request: StaffRequest) -> list[dict[str, Any]]:
    """The tests that would move the newest plan of each brand most for their cost."""
    plans: dict[int, BudgetPlan] = {}
    states = (BudgetPlan.State.PROPOSED, BudgetPlan.State.APPROVED)
    rows = BudgetPlan.objects.visible_to(request.user).filter(state__in=states).select_related("brand")
    for plan in rows.order_by("-created_at")[:50]:
        plans.setdefault(plan.brand_id, plan)
    found = []
    for plan in plans.values():
        tests = [one for one in plan.plan.get("next_tests") or [] if one["worth"] > 0]
        if tests:
            fit = CurveFit.objects.filter(brand=plan.brand, status=CurveFit.Status.SUCCEEDED).first()
            names = fit.result.get("names", {}) if fit else {}
            shown = [{**one, "name": names.get(one["arm"], one["arm"])} for one in tests[:5]]
            found.append({"plan": plan, "tests": shown})
    return found


def _share(value: Any) -> str:
    return "" if value is None else f"{value:.1%}"


@require_GET
@login_required
def experiment(request: StaffRequest, pk: UUID) -> HttpResponseBase:
    """One test: its units, power, false alarms, and what it found."""
    row = get_object_or_404(Experiment.objects.visible_to(request.user).select_related("brand", "retailer"), pk=pk)
    asked = request.GET.get("export", "")
    if asked:
        return _experiment_file(row, asked)
    best, result = row.design.get("best") or {}, row.result
    outcome = str(row.analysis_spec.get("outcome") or row.spec.get("outcome") or "outcome")
    pictures = [charts.power(best, float(row.design.get("alpha", 0)))] if best.get("power_at") else []
    found = []
    if result.get("series"):
        found += [charts.counterfactual(result["series"], outcome), charts.cumulative(result["series"], outcome)]
    if (result.get("diagnostics") or {}).get("placebo_effects"):
        found.append(charts.placebos(result["diagnostics"]["placebo_effects"], result["estimate"]["att"]))
    pictures = [one for one in found if one is not None] + pictures
    line = services.registration_line(row) if row.registered_hash else None
    context = {
        "experiment": row,
        "best": best,
        "pictures": pictures,
        "moves": [{"name": move, "words": MOVES[move]} for move in services.moves_of(row, request.user)],
        "line": line,
        "headline": words.VERDICTS.get(result.get("verdict", "")),
        "watched": (result.get("diagnostics") or {}).get("monitoring"),
    }
    return pages.show(request, "campaigns/experiment.html", context, pictures)


SERIES = (
    "time", "test", "observed", "expected", "low", "high", "effect", "cumulative", "cumulative_low", "cumulative_high",
)  # fmt: skip
MOVES = {
    "register": "Register the plan",
    "approve": "Approve",
    "start": "Start",
    "look": "Look while it runs",
    "analyse": "Analyse",
    "stop": "Stop without a result",
}


def _experiment_file(row: Experiment, form: str) -> HttpResponseBase:
    """All of a test as JSON, or its series as CSV."""
    if form == "json":
        told = {
            "name": row.name,
            "state": row.state,
            "brand": row.brand.slug,
            "registration": row.registration(),
            "registered_hash": row.registered_hash,
            "registered_at": row.registered_at,
            "start_date": row.start_date,
            "end_date": row.end_date,
            "design": row.design,
            "result": row.result,
        }
        response: HttpResponseBase = JsonResponse(told)
    elif form == "csv":
        series = row.result.get("series") or []
        heads = [name for name in SERIES if any(name in point for point in series)]
        return pages.csv_response(
            f"experiment-{row.pk}", heads, [[drawing.harmless(point.get(name)) for name in heads] for point in series]
        )
    else:
        raise Http404
    response["Content-Disposition"] = f'attachment; filename="experiment-{row.pk}.json"'
    return response


@require_POST
@login_required
def move_experiment(request: StaffRequest, pk: UUID, move: str) -> HttpResponseBase:
    """Register, approve, start, analyse or stop a test."""
    row = get_object_or_404(Experiment.objects.visible_to(request.user), pk=pk)
    if move not in services.MOVES:
        raise Http404
    try:
        day = date.fromisoformat(request.POST["day"]) if request.POST.get("day") else None
    except ValueError:
        messages.error(request, f"{request.POST['day'][:20]!r} is no date such as 2026-07-01")
        return redirect("experiment", pk)
    try:
        handed = request.FILES.get("table")
        table = services.text_of_table(handed) if handed is not None else ""
        row = services.move_experiment(row, move, request.user, note=request.POST.get("note", ""), day=day, table=table)
    except BadInput as error:
        messages.error(request, str(error))
    else:
        reading = move in ("look", "analyse")
        messages.success(request, "It is being analysed." if reading else f"The test is {row.state}.")
    return redirect("experiment", pk)

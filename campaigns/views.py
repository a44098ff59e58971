"""Screens of budgets and experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Q
from django.http import FileResponse, Http404, JsonResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_GET, require_POST

from campaigns import charts, copy, services
from campaigns.domain import report
from campaigns.domain.changes import HEADS, upload_for
from campaigns.domain.changes import rows as change_rows
from campaigns.domain.experiments import rates, words
from campaigns.domain.problem import number
from campaigns.models import BudgetPlan, CopyEvidence, CurveFit, Experiment, Recommendation
from retailers.domain import policy
from retailers.models import Membership, roles
from retailers.services import rules_in_force
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


def _curves(plan: BudgetPlan, names: Mapping[str, str], note: str) -> list[Any]:
    """The curves with spend on them; none where the plan keeps no whole problem, as one imported from elsewhere."""
    try:
        lines, points = report.along_curves(plan.problem, plan.plan, names)
    except BadInput:
        return []
    return [charts.operating_points(lines, points, plan.currency, note)]


@require_GET
@login_required
def budget(request: StaffRequest, pk: UUID) -> HttpResponseBase:
    """One plan: where the money goes, why, how sure, and the decision."""
    plan = get_object_or_404(
        BudgetPlan.objects.visible_to(request.user).select_related("brand", "retailer", "decided_by"), pk=pk
    )
    if not plan.allocations:
        return render(request, "campaigns/budget.html", {"plan": plan, "run": plan})
    if "change_file" in request.GET:
        return _change_file(plan, request.GET["change_file"])
    context = {"plan": plan, "sliders": _sliders(plan, request.GET)}
    if getattr(request, "htmx", False) and "budget" in request.GET:
        return render(request, "campaigns/budget.html#answer", context)
    names = services.names_of(plan.brand)
    arms = {arm["id"]: arm for arm in plan.problem.get("arms", [])}
    last = {name: float(arm.get("last") or 0.0) for name, arm in arms.items()}
    note = f"From {len(arms)} curves{'; ' + charts.ASSUMED if plan.spend_assumed else ''}"
    pictures = [
        charts.allocation(plan.allocations, names, last, plan.currency, note),
        *_curves(plan, names, note),
        charts.frontier(plan.plan.get("frontier") or [], plan.currency, note),
    ]
    prices = report.dearest_limits(plan.problem, plan.plan, names)
    if prices:
        pictures.append(charts.limits(prices, plan.currency, note))
    rows = [
        {
            "arm": names.get(row["id"], row["id"]),
            "last": last.get(row["id"], 0.0),
            "spend": row["spend"],
            "sales": row["expected_sales"],
            "low": (row.get("interval") or [None, None])[0],
            "high": (row.get("interval") or [None, None])[1],
            "marginal": row["marginal_roas"],
            "held": _held(row),
            "evidence": EVIDENCE.get(arms[row["id"]].get("evidence", ""), "not stated"),
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
    paces, seen_to = services.pacing_of(plan)
    changes = services.changes_of(plan)
    context |= {
        "pictures": pictures,
        "table": table,
        "decision": _decision(plan),
        "split": plan.plan.get("even_split"),
        "evidence": [
            {**part, "words": EVIDENCE.get(part["evidence"], part["evidence"])}
            for part in plan.plan.get("evidence", [])
        ],
        "after": plan.plan.get("compared_with_last"),
        "risk": plan.plan.get("risk"),
        "sold": _sold(plan, names),
        "changes": [one for one in changes if one.changes][:15],
        "change_count": sum(one.changes for one in changes),
        "broken": sum(one.within is False for one in changes),
        "uploads": [
            (network, upload.words)
            for network in sorted({one.network for one in changes})
            if (upload := upload_for(network)) is not None
        ],
        "paces": paces[:15],
        "seen_to": seen_to,
        "others": BudgetPlan.objects.visible_to(request.user)
        .filter(brand=plan.brand, currency=plan.currency)
        .exclude(Q(pk=plan.pk) | Q(plan={}))
        .order_by("-created_at")[:20],
    }
    return table.answer() or pages.show(request, "campaigns/budget.html", context, pictures)


def _held(row: Mapping[str, Any]) -> str:
    """What holds an arm where it is, with the reason where it cannot be sold."""
    sold = row.get("readiness") or {}
    if sold.get("share", 1.0) >= 1.0:
        return row["binding"] or ""
    word = "excluded" if sold["share"] <= 0 else f"{row['binding'] or ''}; braked".removeprefix("; ")
    return f"{word}: {sold['why'] or 'as given'}"


def _sold(plan: BudgetPlan, names: Mapping[str, str]) -> dict[str, Any] | None:
    """The arms whose products were read: which cannot be sold or not always, and how old the reading is."""
    told = [(names.get(row["id"], row["id"]), row["readiness"]) for row in plan.allocations if row.get("readiness")]
    if not told:
        return None
    days = [date.fromisoformat(one["read"]) for _, one in told if one["read"]]
    made = plan.created_at.date()
    held = [
        {"name": name, "word": "excluded" if one["share"] <= 0 else "braked" if one["share"] < 1 else "as usual", **one,
         "age": (made - date.fromisoformat(one["read"])).days if one["read"] else None}
        for name, one in told
        if one["share"] < 1 or one["why"]
    ]  # fmt: skip
    return {
        "held": sorted(held, key=lambda one: one["share"]),
        "read": len(told),
        "oldest": min(days, default=None),
        "newest": max(days, default=None),
    }


EVIDENCE = {"experiment": "experiment", "calibrated": "calibrated model", "attribution": "attribution only"}
LEAST_SHARE, MOST_SHARE = 0.25, 2.0  # of the plan's budget: where its slider begins and ends


def _sliders(plan: BudgetPlan, asked: QueryDict) -> dict[str, Any]:
    """The two sliders with what they are set to, and the answer where one has been moved."""
    total = float(plan.total_budget)
    roas = plan.plan["objective"] / plan.plan["total_spend"] if plan.plan.get("total_spend") else 0.0
    found: dict[str, Any] = {
        "least": round(LEAST_SHARE * total, 2),
        "most": round(MOST_SHARE * total, 2),
        "step": round(max(total / 200, 0.01), 2),
        "budget": round(total, 2),
        "roas": float(plan.problem.get("min_roas") or 0.0),
        "most_roas": round(max(2 * roas, 1.0), 2),
    }
    if "budget" not in asked:
        return found
    try:
        budget = number(float(str(asked["budget"])), "budget", low=0)
        floor = number(float(str(asked.get("least_return") or 0)), "least_return", low=0)
        answer = services.sketch(plan, budget=budget, min_roas=floor)
    except (ValueError, BadInput) as error:
        return found | {"error": str(error) if isinstance(error, BadInput) else "a number was expected"}
    gain = None if answer["objective"] is None else answer["objective"] - plan.plan["objective"]
    return found | {"budget": budget, "roas": floor, "answer": answer, "gain": gain}


def _change_file(plan: BudgetPlan, form: str) -> HttpResponseBase:
    """The change set as CSV or XLSX, or in the columns that one network takes."""
    changes = services.changes_of(plan)
    if form in ("csv", "xlsx"):
        heads: Sequence[str] = HEADS
        rows = change_rows(changes, plan.currency)
    else:
        upload = upload_for(form)
        if upload is None:
            raise Http404
        heads = upload.heads
        rows = upload.rows([one for one in changes if one.network == form and one.campaign and one.changes])
    name = f"changes-{plan.pk}" if form in ("csv", "xlsx") else f"{form}-budgets-{plan.pk}"
    if form == "xlsx":
        return pages.xlsx_response(name, heads, rows)
    return pages.csv_response(name, heads, [[drawing.harmless(cell) for cell in row] for row in rows])


@require_GET
@login_required
def compare_budgets(request: StaffRequest, pk: UUID) -> HttpResponseBase:
    """Two plans of a brand beside each other: what moves, and what that is worth."""
    plans = BudgetPlan.objects.visible_to(request.user).select_related("brand")
    one = get_object_or_404(plans, pk=pk)
    try:
        other = get_object_or_404(
            plans.filter(brand=one.brand, currency=one.currency), pk=UUID(request.GET.get("with", ""))
        )
    except ValueError:
        raise Http404 from None
    table = pages.Table(
        request,
        services.compared(one, other)["arms"],
        title=f"{one.name} and {other.name}",
        name="compared",
        columns=[
            pages.Column("arm", "Arm"),
            pages.Column("first", "First", kind="money", unit=one.currency),
            pages.Column("second", "Second", kind="money", unit=one.currency),
            pages.Column("difference", "Difference", kind="money", unit=one.currency),
            pages.Column("sales", "Sales, difference", kind="money", unit=one.currency),
            pages.Column("held_first", "First held by"),
            pages.Column("held_second", "Second held by"),
        ],
        per_page=100,
    )
    return table.answer() or render(
        request, "campaigns/compare.html", {"one": one, "other": other, "table": table, "plans": (one, other)}
    )


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
        "rates": rates.played(),
        "method": result.get("method") or row.analysis_spec.get("method") or row.design.get("method"),
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
    """Register, start, analyse or stop a test; that it is approved stands where all approvals do."""
    row = get_object_or_404(Experiment.objects.visible_to(request.user), pk=pk)
    if move not in services.MOVES or move == "approve":
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


# -- texts on their way to a network

DESKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "proof": ("Need proof", lambda rows: rows.needing_proof()),
    "block": ("Blocked", lambda rows: rows.barred()),
    "decided": ("Decided by people", lambda rows: rows.decided()),
    "published": ("Published", lambda rows: rows.filter(status=Recommendation.Status.PUBLISHED)),
}


def _texts(request: StaffRequest) -> Any:
    rows = Recommendation.objects.visible_to(request.user).for_task("creative")
    return rows.select_related("brand", "retailer", "sku")


@require_GET
@login_required
def copy_desk(request: StaffRequest) -> HttpResponseBase:
    """Texts that wait for somebody: first those that only missing evidence keeps back."""
    which = request.GET.get("which", "")
    which = which if which in DESKS else "proof"
    rows = _texts(request)
    table = pages.Table(
        request,
        DESKS[which][1](rows),
        title=DESKS[which][0],
        name="texts",
        order="created_at" if which in ("proof", "block") else "-created_at",
        columns=[
            pages.Column("text", "Text", value=lambda row: row.text[:120] or row.title, href=lambda row: reverse("copy-text", args=[row.uuid])),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name),
            pages.Column("retailer", "Retailer", value=lambda row: row.retailer.name if row.retailer else ""),
            pages.Column("rules", "Rules", value=lambda row: ", ".join(sorted({one["rule"] for one in row.verdict.get("findings", [])}))),
            pages.Column("status", "State", sort="status"),
            pages.Column("created_at", "Made", sort="created_at"),
        ],
        search=["text", "title"],
        empty="No text waits here. Texts come from the creative agent or POST /api/v1/recommendations/, and are checked there.",
    )  # fmt: skip
    desks = [(name, words, found(rows).count()) for name, (words, found) in DESKS.items()]
    return table.answer() or render(request, "campaigns/copy.html", {"table": table, "desks": desks, "which": which})


@require_GET
@login_required
def copy_text(request: StaffRequest, pk: UUID) -> HttpResponseBase:
    return _show_text(request, get_object_or_404(_texts(request), uuid=pk))


def _show_text(request: StaffRequest, row: Recommendation, problem: str = "") -> HttpResponseBase:
    """One text: what was found where, what proves it, and what may be decided."""
    sources = {rule.id: rule.source for rule in rules_in_force(row.brand).rules}
    stands = row.verdict.get("text_sha256") == copy.fingerprint(row.text)
    found = row.verdict.get("findings", []) if stands else []
    is_open = row.status not in (Recommendation.Status.PUBLISHED, Recommendation.Status.WITHDRAWN)
    verdict = row.verdict.get("verdict", "") if stands else ""
    is_ops = Membership.Role.OPS in roles(request.user, row.brand)
    decided = next((name for name in ("rejected", "override") if name in row.verdict), "")
    known = row.content.get("copy") or {}
    context = {
        "row": row,
        "problem": problem,
        "typed": request.POST,
        "pieces": policy.pieces(row.text, found),
        "findings": [{**one, "source": sources.get(one["rule"], "")} for one in found],
        "verdict": verdict,
        "verdict_words": verdict.replace("_", " "),
        "field": known.get("field") or "headline",
        "product": row.sku.name if row.sku else known.get("product", ""),
        "evidence": row.evidence.select_related("added_by"),
        "is_open": is_open,
        "may_publish": is_open and stands and (verdict == "pass" or "override" in row.verdict),
        "may_override": is_open and is_ops and verdict in ("block", "needs_proof") and "override" not in row.verdict,
        "decision": row.verdict.get(decided) if decided else None,
        "decided": decided,
        "may_undo": row.status != Recommendation.Status.PUBLISHED and bool(decided) and (is_ops or decided == "rejected"),
        "answers": row.content.get("network_answers") or [],
        "outcomes": copy.OUTCOMES if row.status == Recommendation.Status.PUBLISHED else (),
        "megabytes": copy.MOST_BYTES // 2**20,
    }  # fmt: skip
    return render(request, "campaigns/copy_text.html", context, status=422 if problem else 200)


def _take_back(row: Recommendation, request: StaffRequest) -> Any:
    try:
        key = UUID(request.POST.get("evidence", ""))
    except ValueError:
        raise Http404 from None
    found = row.evidence.filter(uuid=key).select_related("recommendation").first()
    if found is None:
        raise Http404
    return copy.withdraw_evidence(found, request.user)


STEPS: dict[str, tuple[str, Callable[[Recommendation, StaffRequest], Any]]] = {
    "check": ("Checked by the rules of today.", lambda row, r: copy.check(row, r.user, text=r.POST.get("text", row.text))),
    "evidence": ("The evidence is on file, and the text was checked with it.", lambda row, r: copy.add_evidence(row, r.user, note=r.POST.get("note", ""), link=r.POST.get("link", ""), file=r.FILES.get("file"))),
    "take-back": ("The evidence was taken back, and the text checked without it.", _take_back),
    "override": ("The text may be published; your reason stands in the audit chain.", lambda row, r: copy.override(row, r.user, reason=r.POST.get("reason", ""))),
    "reject": ("Rejected: it will not be published.", lambda row, r: copy.reject(row, r.user, reason=r.POST.get("reason", ""))),
    "undo": ("The decision was taken back.", lambda row, r: copy.undo(row, r.user)),
    "publish": ("Published as it was checked.", lambda row, r: copy.publish(row, r.user)),
    "answer": ("The network's answer is kept with the text.", lambda row, r: copy.answer(row, r.user, outcome=r.POST.get("outcome", ""), note=r.POST.get("note", ""))),
}  # fmt: skip


@require_POST
@login_required
def copy_step(request: StaffRequest, pk: UUID, step: str) -> HttpResponseBase:
    """One step with a text; what cannot be done leaves everything as it was, and what was typed in place."""
    row = get_object_or_404(_texts(request), uuid=pk)
    if step not in STEPS:
        raise Http404
    words, take = STEPS[step]
    try:
        take(row, request)
    except BadInput as error:
        return _show_text(request, row, str(error))
    messages.success(request, words)
    return redirect("copy-text", pk)


@require_GET
@login_required
def copy_evidence(request: StaffRequest, pk: UUID) -> HttpResponseBase:
    """The file of a piece of evidence, to be saved and never shown as a page of ours."""
    found = get_object_or_404(CopyEvidence.objects.visible_to(request.user).exclude(file_path=""), uuid=pk)
    path = Path(settings.MEDIA_ROOT) / found.file_path
    if not path.is_file():
        raise Http404
    response = FileResponse(
        path.open("rb"), as_attachment=True, filename=found.file_name, content_type=found.media_type
    )
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response["X-Content-Type-Options"] = "nosniff"
    return response


@require_GET
@login_required
def copy_rules(request: StaffRequest) -> HttpResponseBase:
    """How often the networks agreed with each rule, by their own answers."""
    told = {rule.id: rule.message for rule in rules_in_force(None).rules}
    table = pages.Table(
        request,
        copy.hit_rates(Recommendation.objects.visible_to(request.user).for_task("creative")),
        title="Rules and what the networks said",
        name="rules",
        columns=[
            pages.Column("rule", "Rule", value=lambda row: row["rule"] or "no rule spoke"),
            pages.Column("message", "What it says", value=lambda row: told.get(row["rule"], "")),
            pages.Column("answered", "Answered"),
            pages.Column("refused", "Refused"),
            pages.Column("reopened", "Reopened"),
            pages.Column("rate", "Refused, share", kind="share"),
            pages.Column("interval", "Between", value=lambda row: f"{row['interval'][0]:.0%} and {row['interval'][1]:.0%}", hint="Wilson, 95 %"),
        ],
        per_page=200,
        empty="No network has answered yet. What it says of a published text is kept on the text's page.",
    )  # fmt: skip
    return table.answer() or render(request, "campaigns/copy_rules.html", {"table": table})

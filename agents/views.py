"""Screens where agents' proposals are decided, and what decisions expected."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from agents import decisions
from agents.models import Forecast
from campaigns.models import BudgetPlan
from retailers.models import roles
from rmn.lib import pages
from rmn.lib.errors import BadInput
from rmn.lib.http import StaffRequest


@require_POST
@login_required
def decide_plan(request: StaffRequest, pk: UUID, outcome: str) -> HttpResponse:
    """Approve or reject a plan, with its note; analysts and ops may."""
    plan = get_object_or_404(BudgetPlan.objects.visible_to(request.user), pk=pk)
    if outcome not in ("approve", "reject"):
        raise Http404
    if not {"analyst", "ops"} & set(roles(request.user)) and not request.user.is_superuser:
        messages.error(request, "Only analysts and ops staff decide on budgets; ask one of them.")
        return redirect("budget-plan", pk)
    try:
        decided = decisions.decide_plan(plan, outcome, request.user, request.POST.get("note", ""))
    except BadInput as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"The plan is {decided.state}.")
    return redirect("budget-plan", pk)


@require_GET
@login_required
def forecasts(request: StaffRequest) -> HttpResponseBase:
    """What decisions expect, and what came true."""
    table = pages.Table(
        request,
        Forecast.objects.visible_to(request.user).select_related("brand"),
        title="Forecasts",
        name="forecasts",
        order="due",
        columns=[
            pages.Column("statement", "It is expected that"),
            pages.Column("brand", "Brand", value=lambda row: row.brand.name),
            pages.Column("probability", "How sure", sort="probability", kind="share"),
            pages.Column("due", "Due", sort="due"),
            pages.Column("status", "State", sort="status"),
            pages.Column("happened", "Came true", value=lambda row: {True: "yes", False: "no"}.get(row.happened, "")),
            pages.Column("agent", "By"),
        ],
        search=["statement", "agent"],
        filters=[pages.Filter("status", "State", Forecast.Status.choices)],
        empty="No forecast yet: each approved decision leaves one.",
    )
    return table.answer() or render(request, "campaigns/list.html", {"table": table, "title": "Forecasts"})

"""Campaigns, curves, budgets, experiments and recommendations in the operations console."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.decorators import display

from campaigns import copy, services
from campaigns.models import (
    AudienceSegment,
    BudgetPlan,
    BudgetPlanQuerySet,
    Campaign,
    CopyEvidence,
    CurveFit,
    Recommendation,
    RecommendationQuerySet,
    ResponseCurve,
)
from rmn.lib.admin import EditableAdmin, ReadOnlyAdmin, RunAdmin, asks, question
from rmn.lib.errors import BadInput

STATES = {"proposed": "warning", "approved": "success", "rejected": "danger", "draft": "", "superseded": ""}


@admin.register(AudienceSegment)
class AudienceAdmin(EditableAdmin):
    list_display = ["name", "brand", "retailer", "reach_estimate", "reach_unit", "source"]
    list_filter = ["brand", "retailer"]
    search_fields = ["name", "source"]


@admin.register(Campaign)
class CampaignAdmin(EditableAdmin):
    list_display = ["name", "brand", "retailer", "tactic", "shown_status", "budget", "start_date", "end_date"]
    list_filter = ["status", "tactic", "brand", "retailer"]
    search_fields = ["name", "network_campaign_id", "account_id"]
    autocomplete_fields = ["audience", "skus"]
    date_hierarchy = "start_date"
    actions = ["pause", "resume", "archive"]

    @display(description="status", label={"live": "success", "paused": "warning"}, ordering="status")
    def shown_status(self, row: Campaign) -> str:
        return row.status

    @admin.action(description="Pause", permissions=["change"])
    def pause(self, request: HttpRequest, queryset: Any) -> None:
        self._to(request, queryset.filter(status=Campaign.Status.LIVE), Campaign.Status.PAUSED)

    @admin.action(description="Resume", permissions=["change"])
    def resume(self, request: HttpRequest, queryset: Any) -> None:
        self._to(request, queryset.filter(status=Campaign.Status.PAUSED), Campaign.Status.LIVE)

    @admin.action(description="Archive: budgets leave it out", permissions=["change"])
    @asks("Budgets and reports of what is live leave them out from now on; their figures stay.")
    def archive(self, request: HttpRequest, queryset: Any) -> None:
        self._to(request, queryset, Campaign.Status.ARCHIVED)

    def _to(self, request: HttpRequest, rows: Any, status: str) -> None:
        count = 0
        for row in rows:  # one by one, so that the history has it
            row.status = status
            row.save(update_fields=["status"])
            count += 1
        self.message_user(request, f"{count} now {status}.")


@admin.register(CurveFit)
class CurveFitAdmin(RunAdmin):
    list_filter = [*RunAdmin.list_filter, "retailer"]


@admin.register(ResponseCurve)
class ResponseCurveAdmin(ReadOnlyAdmin):
    list_display = ["arm", "brand", "retailer", "tactic", "kind", "evidence", "spend_assumed", "is_current"]
    list_filter = ["is_current", "evidence", "tactic", "brand", "retailer"]
    search_fields = ["arm", "tactic"]
    list_select_related = ["brand", "retailer"]


class BudgetPlanAdmin(RunAdmin):
    """Plans of what to spend; registered by the agents, whose service decides on them."""

    list_display = ["name", "brand", "shown_status", "shown_state", "total_budget", "currency", "shown_gain", "page"]
    list_filter = [
        question("waits", "waits", approval=("for approval", BudgetPlanQuerySet.awaiting_approval)),
        "state",
        *RunAdmin.list_filter,
    ]
    search_fields = [*RunAdmin.search_fields, "name"]

    @display(description="state", label=STATES, ordering="state")
    def shown_state(self, row: BudgetPlan) -> str:
        return row.state

    @admin.display(description="over the even split")
    def shown_gain(self, row: BudgetPlan) -> str:
        split = row.plan.get("even_split") or {}
        gain = split.get("gain_percent")
        return "" if gain is None else f"{gain:+.1f} %{' (spend assumed)' if row.spend_assumed else ''}"

    @admin.display(description="")
    def page(self, row: BudgetPlan) -> str:
        return format_html('<a href="/budgets/{}">Look and decide</a>', row.pk)


class ExperimentAdmin(RunAdmin):
    """Tests and their steps; registered by the agents, whose approval service lets a test run."""

    list_display = ["name", "brand", "kind", "state", "shown_status", "start_date", "end_date", "created_at"]
    list_filter = ["state", "kind", *RunAdmin.list_filter]
    search_fields = [*RunAdmin.search_fields, "name", "hypothesis"]
    actions = [*RunAdmin.actions, "register", "start", "analyse", "stop"]

    @admin.action(description="Register the plan", permissions=["act"])
    def register(self, request: HttpRequest, queryset: Any) -> None:
        self._move(request, queryset, "register")

    @admin.action(description="Start today", permissions=["act"])
    @asks("From today on the arms are held apart; the plan cannot be changed any more.")
    def start(self, request: HttpRequest, queryset: Any) -> None:
        self._move(request, queryset, "start")

    @admin.action(description="Analyse", permissions=["act"])
    def analyse(self, request: HttpRequest, queryset: Any) -> None:
        self._move(request, queryset, "analyse")

    @admin.action(description="Stop without a result", permissions=["act"])
    @asks("They end today without an answer; a stopped test is not begun again.")
    def stop(self, request: HttpRequest, queryset: Any) -> None:
        self._move(request, queryset, "stop")

    def _move(self, request: HttpRequest, queryset: Any, move: str) -> None:
        for row in queryset:
            try:
                moved = services.move_experiment(row, move, request.user, note="console")
            except BadInput as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{moved}: {moved.status if move == 'analyse' else moved.state}.")


@admin.register(Recommendation)
class RecommendationAdmin(ReadOnlyAdmin):
    list_display = ["title", "brand", "task", "source", "shown_status", "shown_verdict", "adapter", "created_at"]
    list_filter = [
        "task",
        "status",
        question("policy", "policy", needs_proof=("needs proof", RecommendationQuerySet.needing_proof)),
        "source",
        "brand",
        "retailer",
    ]
    search_fields = ["title", "text", "prompt", "adapter_digest"]
    date_hierarchy = "created_at"
    list_select_related = ["brand"]
    actions = ["check_again", "publish"]

    @admin.action(description="Check again, by the rules of today", permissions=["act"])
    def check_again(self, request: HttpRequest, queryset: Any) -> None:
        self._step(request, queryset, copy.check)

    @admin.action(description="Publish as it was checked", permissions=["act"])
    @asks("They go to the network as they stand. What is blocked or needs proof is refused one by one.")
    def publish(self, request: HttpRequest, queryset: Any) -> None:
        self._step(request, queryset, copy.publish)

    def _step(self, request: HttpRequest, queryset: Any, step: Any) -> None:
        for row in queryset:
            try:
                done = step(row, request.user)
            except BadInput as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{done}: {done.status}, {done.verdict['verdict'].replace('_', ' ')}.")

    @display(
        description="status",
        label={"approved": "success", "published": "success", "blocked": "danger"},
        ordering="status",
    )
    def shown_status(self, row: Recommendation) -> str:
        return row.status

    @display(description="policy", label={"pass": "success", "block": "danger", "needs_proof": "warning"})
    def shown_verdict(self, row: Recommendation) -> str:
        return str(row.verdict.get("verdict", ""))

    @admin.display(description="adapter")
    def adapter(self, row: Recommendation) -> str:
        return row.adapter_digest[:12]


@admin.register(CopyEvidence)
class CopyEvidenceAdmin(ReadOnlyAdmin):
    """What proves the claims of texts; added and taken back on the text's own page."""

    list_display = ["__str__", "recommendation", "brand", "note", "added_by", "created_at", "withdrawn_at"]
    list_select_related = ["recommendation", "brand", "added_by"]
    list_filter = ["brand", "retailer"]
    search_fields = ["note", "link", "file_name", "file_sha256"]

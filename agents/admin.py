"""Agents in the console."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm

from agents import decisions, journal, services
from agents.domain.reflection import Reflection
from agents.domain.rooms import template as read_template
from agents.models import (
    Adapter,
    AdapterAlias,
    AdapterQuerySet,
    AgentRun,
    AgentRunQuerySet,
    Approval,
    ApprovalRule,
    CleanRoomConnection,
    CleanRoomQuery,
    Deployment,
    Forecast,
    Generation,
    Prompt,
    ReflectionLog,
)
from campaigns.admin import BudgetPlanAdmin, ExperimentAdmin
from campaigns.models import BudgetPlan, Experiment
from rmn.lib import sealing
from rmn.lib.admin import ConsoleAdmin, EditableAdmin, ReadOnlyAdmin, RunAdmin, asks, question
from rmn.lib.errors import BadInput, RmnError

# -- adapters


@admin.register(Adapter)
class AdapterAdmin(ReadOnlyAdmin):
    """Versions: what they are, whether they were proved, where they serve."""

    list_display = ["scope", "short", "kind", "shown_state", "serves", "proved", "rank", "created_at"]
    list_filter = [
        question("waits", "waits", gate=("at the gate", AdapterQuerySet.at_the_gate)),
        "state",
        "kind",
        "task",
        "brand",
        "retailer",
    ]
    search_fields = ["digest", "scope", "base_model"]
    date_hierarchy = "created_at"
    actions = ["deploy_champion", "deploy_challenger", "roll_back"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("aliases")

    @admin.display(description="digest", ordering="digest")
    def short(self, row: Adapter) -> str:
        return row.digest[:12]

    @display(
        description="state",
        label={"published": "success", "staged": "info", "revoked": "danger", "candidate": ""},
        ordering="state",
    )
    def shown_state(self, row: Adapter) -> str:
        return row.state

    @admin.display(description="serves as")
    def serves(self, row: Adapter) -> str:
        return ", ".join(alias.name for alias in row.aliases.all())

    @admin.display(description="proved", boolean=True)
    def proved(self, row: Adapter) -> bool | None:
        return row.proof.get("passed") if row.proof else None

    @admin.action(description="Deploy as champion", permissions=["act"])
    @asks(
        "Each is proved first; then all drafts of its brand and task are written by it. The version before stays ready."
    )
    def deploy_champion(self, request: HttpRequest, queryset: QuerySet[Adapter]) -> None:
        self._deploy(request, queryset, "champion", 1.0)

    @admin.action(description="Deploy as challenger, for one campaign in ten", permissions=["act"])
    @asks("Each is proved first; then one campaign in ten is written by it, beside the champion.")
    def deploy_challenger(self, request: HttpRequest, queryset: QuerySet[Adapter]) -> None:
        self._deploy(request, queryset, "challenger", 0.1)

    @admin.action(description="Take back: the version before serves", permissions=["act"])
    @asks("From now on the version before writes; this one serves nowhere.")
    def roll_back(self, request: HttpRequest, queryset: QuerySet[Adapter]) -> None:
        for row in queryset.select_related("brand", "retailer"):
            for alias in row.aliases.exclude(name="previous"):
                self._told(request, lambda row=row, alias=alias: self._back(row, alias.name, request))

    def _back(self, row: Adapter, alias: str, request: HttpRequest) -> str:
        assert row.brand is not None  # noqa: S101  # only versions of a brand are deployed
        services.roll_back_adapter(
            brand=row.brand, retailer=row.retailer, task=row.task, alias=alias, reason="console", by=request.user
        )
        return f"{row.scope}: taken back as {alias}."

    def _deploy(self, request: HttpRequest, queryset: QuerySet[Adapter], alias: str, share: float) -> None:
        for row in queryset:

            def wish(row: Adapter = row) -> str:
                run = decisions.decide_adapter(row, "approve", request.user, "console", alias=alias, share=share)
                if run is None:
                    return f"{row}: your approval is kept; the rules ask for another person's too."
                return f"{row}: being proved, see {run.get_absolute_url()}"

            self._told(request, wish)

    def _told(self, request: HttpRequest, work: Any) -> None:
        try:
            self.message_user(request, work())
        except RmnError as error:
            self.message_user(request, str(error), messages.ERROR)


@admin.register(AdapterAlias)
class AdapterAliasAdmin(ReadOnlyAdmin):
    """Which version a scope serves under which name, and why."""

    list_display = ["scope", "name", "adapter", "share", "moved_at", "reason"]
    list_filter = ["name", "brand"]
    search_fields = ["scope", "reason", "adapter__digest"]


@admin.register(Deployment)
class DeploymentAdmin(RunAdmin):
    """Deployments: what was proved, how it ended."""

    list_filter = [*RunAdmin.list_filter, "alias"]
    search_fields = [*RunAdmin.search_fields, "adapter__digest"]


@admin.register(Prompt)
class PromptAdmin(ReadOnlyAdmin):
    """Prompts: a text once used never changes."""

    list_display = ["name", "version", "sha256", "created_at"]
    search_fields = ["name", "text"]


@admin.register(Generation)
class GenerationAdmin(ReadOnlyAdmin):
    """Texts that models wrote, and by which weights."""

    list_display = ["text_start", "brand", "task", "alias", "digest_start", "tokens_out", "latency_s", "created_at"]
    list_filter = ["task", "alias", "brand", "finish_reason"]
    search_fields = ["text", "adapter_digest", "prompt_version"]
    date_hierarchy = "created_at"

    @admin.display(description="text")
    def text_start(self, row: Generation) -> str:
        return row.text[:80]

    @admin.display(description="adapter")
    def digest_start(self, row: Generation) -> str:
        return row.adapter_digest[:12] or "base"


# -- plans, reasons, forecasts


@admin.register(AgentRun)
class AgentRunAdmin(RunAdmin):
    """Goals on their way through the agents."""

    list_display = ["goal", "brand", "source", "playbook", "stop", "shown_status", "created_at"]
    list_filter = [
        question("waits", "waits", approval=("for approval", AgentRunQuerySet.awaiting_approval)),
        "stop",
        "source",
        *RunAdmin.list_filter,
    ]
    search_fields = [*RunAdmin.search_fields, "goal"]
    actions = [*RunAdmin.actions, "approve_waiting", "reject_waiting"]

    @admin.action(description="Approve what waits", permissions=["decide"])
    @asks("Each goes on with the step it proposed, unless the rules ask for another person's word too.")
    def approve_waiting(self, request: HttpRequest, queryset: QuerySet[AgentRun]) -> None:
        self._decide(request, queryset, "approve")

    @admin.action(description="Reject what waits", permissions=["decide"])
    @asks("Each ends here; what it proposed is not done.")
    def reject_waiting(self, request: HttpRequest, queryset: QuerySet[AgentRun]) -> None:
        self._decide(request, queryset, "reject")

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Analysts and ops staff decide, here as everywhere."""
        return decisions.may_decide(request.user)

    def _decide(self, request: HttpRequest, queryset: QuerySet[AgentRun], outcome: str) -> None:
        for run in queryset.select_related("brand"):
            try:
                if not decisions.may_decide(request.user, run.brand):
                    raise BadInput(f"{run}: you decide for other brands, not for {run.brand}")
                run = decisions.decide_run(run, outcome, request.user, "console")
                self.message_user(request, f"{run}: {run.stop.replace('_', ' ')}.")
            except RmnError as error:
                self.message_user(request, str(error), messages.ERROR)


class WordForm(BaseDialogForm):
    """A person's word on a plan: why, and what it is that they decide."""

    form_before_template = "admin/plan_to_decide.html"
    note = forms.CharField(
        required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 3}), help_text="kept with the decision"
    )

    def get_before_template_context(self, request: HttpRequest, object_id: Any = None) -> dict[str, Any]:
        plan = BudgetPlan.objects.visible_to(request.user).select_related("brand", "retailer").filter(pk=object_id)
        return {"plan": plan.first()}


@admin.register(BudgetPlan)
class DecidedBudgetPlanAdmin(BudgetPlanAdmin):
    """Plans and, where they wait, the word on them: one in a dialog with its note, many by one question."""

    actions = [*BudgetPlanAdmin.actions, "approve", "reject"]
    actions_detail = ["approve_plan", "reject_plan"]

    @action(
        description="Approve",
        permissions=["decide"],
        icon="check",
        dialog={
            "title": "Approve this plan?",
            "description": "The plan approved before is superseded; its reasons and what it expects are kept. The inbox can take it back for ten minutes.",
            "form_class": WordForm,
            "form_submit_text": "Approve",
        },
    )
    def approve_plan(self, request: HttpRequest, form: WordForm, object_id: str) -> HttpResponse:
        return self._word(request, form, object_id, "approve")

    @action(
        description="Reject",
        permissions=["decide"],
        icon="close",
        dialog={
            "title": "Reject this plan?",
            "description": "It is not spent by; what it offered is withdrawn. The inbox can take it back for ten minutes.",
            "form_class": WordForm,
            "form_submit_text": "Reject",
        },
    )
    def reject_plan(self, request: HttpRequest, form: WordForm, object_id: str) -> HttpResponse:
        return self._word(request, form, object_id, "reject")

    @admin.action(description="Approve", permissions=["decide"])
    @asks("The plans approved before for the same brand and retailer are superseded; each keeps its reasons.")
    def approve(self, request: HttpRequest, queryset: QuerySet[BudgetPlan]) -> None:
        self._decide(request, queryset, "approve")

    @admin.action(description="Reject", permissions=["decide"])
    @asks("They are not spent by; what they offered is withdrawn.")
    def reject(self, request: HttpRequest, queryset: QuerySet[BudgetPlan]) -> None:
        self._decide(request, queryset, "reject")

    def has_decide_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Analysts and ops staff decide; about one plan, while it waits."""
        if object_id is None:
            return decisions.may_decide(request.user)
        plan = self.get_queryset(request).awaiting_approval().select_related("brand").filter(pk=object_id).first()
        return plan is not None and decisions.may_decide(request.user, plan.brand)

    def _word(self, request: HttpRequest, form: WordForm, object_id: str, outcome: str) -> HttpResponse:
        self._decide(request, self.get_queryset(request).filter(pk=object_id), outcome, form.cleaned_data["note"])
        where = reverse("admin:campaigns_budgetplan_change", args=[object_id])
        return HttpResponse(headers={"HX-Redirect": where})

    def _decide(self, request: HttpRequest, queryset: QuerySet[BudgetPlan], outcome: str, note: str = "") -> None:
        for row in queryset.select_related("brand"):
            try:
                if not decisions.may_decide(request.user, row.brand):
                    raise BadInput(f"{row}: you decide for other brands, not for {row.brand}")
                done = decisions.decide_plan(row, outcome, request.user, note or "console")
                waits = done.state == BudgetPlan.State.PROPOSED
                self.message_user(
                    request, f"{row}: {'kept; another person must approve too' if waits else done.state}."
                )
            except RmnError as error:
                self.message_user(request, str(error), messages.ERROR)


@admin.register(Experiment)
class ApprovedExperimentAdmin(ExperimentAdmin):
    """Tests of what an ad brings: their steps, and the word that lets one run."""

    actions = [*ExperimentAdmin.actions, "approve"]

    @admin.action(description="Approve", permissions=["act"])
    @asks("From then on each may start: its arms are held apart on the days it names.")
    def approve(self, request: HttpRequest, queryset: QuerySet[Experiment]) -> None:
        for row in queryset.select_related("brand"):
            try:
                if not decisions.may_decide(request.user, row.brand):
                    raise BadInput(f"{row}: only analysts and ops staff of the brand approve a test")
                done = decisions.decide_experiment(row, "approve", request.user, "console")
                waits = done.state == Experiment.State.DESIGNED
                self.message_user(
                    request, f"{row}: {'kept; another person must approve too' if waits else done.state}."
                )
            except RmnError as error:
                self.message_user(request, str(error), messages.ERROR)


@admin.register(ApprovalRule)
class ApprovalRuleAdmin(EditableAdmin):
    """How many people must approve, by tool and amount."""

    list_display = ["brand", "pattern", "above", "people", "note"]
    list_filter = ["brand", "people"]
    search_fields = ["pattern", "note"]


@admin.register(Approval)
class ApprovalAdmin(ReadOnlyAdmin):
    """Who said what to which proposal."""

    list_display = [
        "title",
        "brand",
        "tool",
        "outcome",
        "by",
        "amount",
        "currency",
        "needed",
        "undone_at",
        "created_at",
    ]
    list_filter = ["outcome", "tool", "brand"]
    search_fields = ["title", "note"]
    date_hierarchy = "created_at"


class ReflectionForm(forms.ModelForm):
    """A reflection as its record says it; a record that cannot be meant is refused by its place."""

    class Meta:
        model = ReflectionLog
        fields = [
            "brand",
            "retailer",
            "task",
            "context",
            "alternate_frames",
            "memory_reference",
            "risk_assessment",
            "confidence",
            "decision_threshold",
            "bias_checkpoint",
            "biases",
        ]

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        record = {name: found.get(name) for name in self.instance.record if name in found}
        try:
            Reflection.read({"phase": self.instance.phase, **record})
        except BadInput as error:
            raise forms.ValidationError(str(error)) from None
        return found


@admin.register(ReflectionLog)
class ReflectionLogAdmin(ConsoleAdmin):
    """Why decisions were taken: begun here or by an agent, decided once the threshold holds."""

    form = ReflectionForm
    readonly_fields = ["phase", "shown_verdict", "validations", "decision", "decided_by", "decided_at", "outcome"]
    actions = ["carry_out", "validate_as_ops"]
    list_display = ["context", "brand", "agent", "phase", "confidence_value", "decision_threshold", "should_proceed"]
    list_filter = ["phase", "should_proceed", "task", "agent", "brand"]
    search_fields = ["context", "decision", "outcome"]
    date_hierarchy = "created_at"

    @admin.display(description="confidence")
    def confidence_value(self, row: ReflectionLog) -> Any:
        return row.confidence.get("value")

    @admin.display(description="verdict")
    def shown_verdict(self, row: ReflectionLog) -> str:
        if not row.pk:
            return "Said once it is kept."
        may = "may go on" if row.should_proceed else "may not go on"
        return f"{may}: {'; '.join(row.verdict.get('reasons') or [])}"

    def has_change_permission(self, request: HttpRequest, obj: ReflectionLog | None = None) -> bool:
        """What led to a decision is not changed after it."""
        past = obj is not None and obj.phase not in ("reflection", "analysis", "decision")
        return not past and super().has_change_permission(request, obj)

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return decisions.may_decide(request.user)

    def save_model(self, request: HttpRequest, obj: ReflectionLog, form: Any, change: bool) -> None:
        """Kept with the verdict as of now."""
        record = {name: form.cleaned_data[name] for name in obj.record if name in form.cleaned_data}
        if change:
            journal.rewrite(obj, record)
            return
        made = journal.open_one(
            brand=obj.brand, retailer=obj.retailer, task=obj.task, context=obj.context, record=record, by=request.user
        )
        obj.pk, obj.uuid = made.pk, made.uuid
        obj.refresh_from_db()

    @admin.action(description="Decide to go on", permissions=["decide"])
    def carry_out(self, request: HttpRequest, queryset: QuerySet[ReflectionLog]) -> None:
        self._told(request, queryset, lambda row: journal.carry_out(row, "decided in the console", request.user))

    @admin.action(description="Validate as ops", permissions=["decide"])
    def validate_as_ops(self, request: HttpRequest, queryset: QuerySet[ReflectionLog]) -> None:
        self._told(request, queryset, lambda row: journal.validate(row, "ops", request.user))

    def _told(self, request: HttpRequest, queryset: QuerySet[ReflectionLog], work: Any) -> None:
        for row in queryset.select_related("brand"):
            try:
                if not decisions.may_decide(request.user, row.brand):
                    raise BadInput(f"you decide for other brands, not for {row.brand}")
                self.message_user(request, f"{row}: {work(row).phase}.")
            except RmnError as error:
                self.message_user(request, f"{row}: {error}", messages.ERROR)


@admin.register(Forecast)
class ForecastAdmin(ReadOnlyAdmin):
    """What decisions expect, and what came true."""

    list_display = ["statement", "brand", "agent", "probability", "due", "status", "happened", "observed"]
    list_filter = [
        question("waits", "waits", due=("due", lambda rows: rows.due(timezone.now().date()))),
        "status",
        "happened",
        "task",
        "agent",
        "brand",
    ]
    search_fields = ["statement", "metric"]
    date_hierarchy = "due"


# -- clean rooms


class CleanRoomForm(forms.ModelForm):
    """A clean room; its key is taken and never given back, its queries are read before they are kept."""

    key = forms.CharField(
        required=False, widget=forms.PasswordInput, help_text="Leave empty to keep the one that is set."
    )

    class Meta:
        model = CleanRoomConnection
        fields = [
            "brand",
            "retailer",
            "name",
            "kind",
            "endpoint",
            "budget_units",
            "k_threshold",
            "templates",
            "is_active",
        ]

    def clean_templates(self) -> Any:
        found = self.cleaned_data["templates"]
        try:
            for row in found or []:
                read_template(row)
        except (BadInput, AttributeError) as error:
            raise forms.ValidationError(str(error)) from None
        return found


@admin.register(CleanRoomConnection)
class CleanRoomConnectionAdmin(ConsoleAdmin):
    """Clean rooms a brand may ask: set by ops, with their privacy budget."""

    list_display = ["name", "brand", "retailer", "kind", "spent", "k_threshold", "is_active"]
    list_select_related = ["brand", "retailer"]
    list_filter = ["kind", "is_active", "brand"]
    search_fields = ["name"]
    form = CleanRoomForm

    def get_queryset(self, request: HttpRequest) -> Any:
        taken = Sum("ledger__units", filter=Q(ledger__entry="reserve"), default=0.0)
        given_back = Sum("ledger__units", filter=Q(ledger__entry="release"), default=0.0)
        return super().get_queryset(request).annotate(used=taken - given_back)

    @admin.display(description="budget used")
    def spent(self, row: Any) -> str:
        return f"{row.used:g} of {row.budget_units:g}"

    def save_model(self, request: HttpRequest, obj: CleanRoomConnection, form: Any, change: bool) -> None:
        """The key is sealed at once and never shown again."""
        if form.cleaned_data.get("key"):
            obj.sealed_key = sealing.seal(form.cleaned_data["key"], str(obj.brand.uuid))
        super().save_model(request, obj, form, change)


@admin.register(CleanRoomQuery)
class CleanRoomQueryAdmin(RunAdmin):
    """Questions to clean rooms; a plan's wait here for approval, as in the inbox."""

    list_select_related = ["brand", "connection"]
    list_filter = ["state", *RunAdmin.list_filter]
    search_fields = [*RunAdmin.search_fields, "template"]
    actions = [*RunAdmin.actions, "approve", "reject"]

    @admin.action(description="Approve: send it", permissions=["decide"])
    @asks("Each is sent to its clean room and takes its share of the privacy budget.")
    def approve(self, request: HttpRequest, queryset: QuerySet[CleanRoomQuery]) -> None:
        self._decide(request, queryset, "approve")

    @admin.action(description="Reject", permissions=["decide"])
    @asks("They are not asked, and no privacy budget is taken.")
    def reject(self, request: HttpRequest, queryset: QuerySet[CleanRoomQuery]) -> None:
        self._decide(request, queryset, "reject")

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return decisions.may_decide(request.user)

    def _decide(self, request: HttpRequest, queryset: QuerySet[CleanRoomQuery], outcome: str) -> None:
        for row in queryset.select_related("brand", "connection__retailer"):
            try:
                if not decisions.may_decide(request.user, row.brand):
                    raise BadInput(f"{row}: you decide for other brands, not for {row.brand}")
                done = decisions.decide_question(row, outcome, request.user, "console")
                waits = done.state == CleanRoomQuery.State.PROPOSED
                self.message_user(
                    request, f"{row}: {'kept; another person must approve too' if waits else done.state}."
                )
            except RmnError as error:
                self.message_user(request, str(error), messages.ERROR)

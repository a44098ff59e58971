"""Agents in the console."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Q, QuerySet, Sum
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display

from agents import services
from agents.domain.rooms import template as read_template
from agents.models import (
    Adapter,
    AdapterAlias,
    AdapterQuerySet,
    AgentRun,
    AgentRunQuerySet,
    CleanRoomConnection,
    CleanRoomQuery,
    Deployment,
    Forecast,
    Generation,
    Prompt,
    ReflectionLog,
)
from rmn.lib import sealing
from rmn.lib.admin import ConsoleAdmin, ReadOnlyAdmin, RunAdmin, question
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

    @admin.action(description="Deploy as champion", permissions=["deploy"])
    def deploy_champion(self, request: HttpRequest, queryset: QuerySet[Adapter]) -> None:
        self._deploy(request, queryset, "champion", 1.0)

    @admin.action(description="Deploy as challenger, for one campaign in ten", permissions=["deploy"])
    def deploy_challenger(self, request: HttpRequest, queryset: QuerySet[Adapter]) -> None:
        self._deploy(request, queryset, "challenger", 0.1)

    @admin.action(description="Take back: the version before serves", permissions=["deploy"])
    def roll_back(self, request: HttpRequest, queryset: QuerySet[Adapter]) -> None:
        for row in queryset.select_related("brand", "retailer"):
            for alias in row.aliases.exclude(name="previous"):
                self._told(request, lambda row=row, alias=alias: self._back(row, alias.name, request))

    def has_deploy_permission(self, request: HttpRequest) -> bool:
        """Only who may change adapters may say which one serves."""
        return bool(request.user.has_perm("agents.change_adapter"))

    def _back(self, row: Adapter, alias: str, request: HttpRequest) -> str:
        assert row.brand is not None  # noqa: S101  # only versions of a brand are deployed
        services.roll_back_adapter(
            brand=row.brand, retailer=row.retailer, task=row.task, alias=alias, reason="console", by=request.user
        )
        return f"{row.scope}: taken back as {alias}."

    def _deploy(self, request: HttpRequest, queryset: QuerySet[Adapter], alias: str, share: float) -> None:
        for row in queryset:

            def wish(row: Adapter = row) -> str:
                run = services.deploy_adapter(adapter=row, alias=alias, share=share, by=request.user)
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


@admin.register(ReflectionLog)
class ReflectionLogAdmin(ReadOnlyAdmin):
    """Why decisions were taken."""

    list_display = ["context", "brand", "agent", "phase", "confidence_value", "decision_threshold", "should_proceed"]
    list_filter = ["phase", "should_proceed", "task", "agent", "brand"]
    search_fields = ["context", "decision", "outcome"]
    date_hierarchy = "created_at"

    @admin.display(description="confidence")
    def confidence_value(self, row: ReflectionLog) -> Any:
        return row.confidence.get("value")


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
    """Questions to clean rooms."""

    list_filter = ["state", *RunAdmin.list_filter]
    search_fields = [*RunAdmin.search_fields, "template"]

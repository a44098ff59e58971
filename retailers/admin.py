"""Retailers, brands, products and their reports in the operations console."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import RangeDateFilter
from unfold.decorators import display

from retailers import audit, catalogue, services, webhooks
from retailers.domain import policy, reconcile
from retailers.forms import RULE_FIELDS, PolicyRuleForm, WebhookForm
from retailers.models import (
    AuditEntry,
    Brand,
    Delivery,
    ExchangeRate,
    FeedLoad,
    FeedMapping,
    FeedSource,
    Membership,
    PerformanceMetric,
    PolicyRule,
    ProductIdentifier,
    QuarantinedRow,
    Retailer,
    SKUCatalog,
    Webhook,
)
from rmn.lib import tenancy
from rmn.lib.admin import ConsoleAdmin, EditableAdmin, ReadOnlyAdmin, RunAdmin, TableAdmin, asks, choice, question
from rmn.lib.words import money


class Audited:
    """What is changed here in the console stands in the audit chain: who, what, which fields; no values."""

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self._record(request, obj, "added", message)
        return super().log_addition(request, obj, message)  # type: ignore[misc]

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self._record(request, obj, "changed", message)
        return super().log_change(request, obj, message)  # type: ignore[misc]

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for obj in queryset:
            self._record(request, obj, "deleted", [])
        return super().log_deletions(request, queryset)  # type: ignore[misc]

    def _record(self, request: HttpRequest, obj: Any, done: str, message: Any) -> None:
        with tenancy.everyone():
            audit.record(
                brand=getattr(obj, "brand", None),
                actor=request.user.get_username(),
                action=f"{obj._meta.verbose_name} {done}",
                subject=obj,
                payload={"what": str(obj)[:200], "changes": message if isinstance(message, list) else str(message)},
            )


@admin.register(Retailer)
class RetailerAdmin(EditableAdmin):
    list_display = ["name", "slug", "network", "time_zone", "currency", "is_active"]
    list_filter = ["network", "is_active"]
    search_fields = ["name", "slug"]


@admin.register(Brand)
class BrandAdmin(Audited, EditableAdmin):
    list_display = ["name", "slug", "manufacturer", "currency", "shares_training", "is_active"]
    list_filter = ["is_active", "shares_training"]
    search_fields = ["name", "slug", "manufacturer"]


@admin.register(Membership)
class MembershipAdmin(Audited, EditableAdmin):
    list_display = ["user", "role", "brand", "retailer"]
    list_select_related = ["user", "brand", "retailer"]
    list_filter = ["role", "brand"]
    search_fields = ["user__username", "user__email"]
    autocomplete_fields = ["user", "brand", "retailer"]
    may_delete = True


@admin.register(SKUCatalog)
class SKUAdmin(EditableAdmin):
    list_display = ["name", "sku", "brand", "gtin14", "category", "price", "is_active"]
    list_filter = ["brand", "category", "is_active"]
    search_fields = ["name", "sku", "gtin14"]

    def has_import_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        """Products come in by the upload page, which tries their check digits and shows what would change."""
        return False


@admin.register(ProductIdentifier)
class ProductIdentifierAdmin(Audited, ConsoleAdmin):
    """The crosswalk; numbers that two products claim wait here for a person."""

    list_display = ["value", "kind", "product", "retailer", "source", "confidence", "in_conflict"]
    list_filter = ["in_conflict", "kind", "brand"]
    list_select_related = ["product", "retailer"]
    search_fields = ["value", "product__name", "product__sku"]
    autocomplete_fields = ["product", "retailer"]
    readonly_fields = ["in_conflict"]
    ordering = ["value", "product"]
    actions = ["keep", "pack", "drop"]

    def save_model(self, request: HttpRequest, obj: ProductIdentifier, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        catalogue.settle(obj.brand, [obj.value])

    @admin.action(description="It is this product's: the others' claims go", permissions=["change"])
    @asks("The number stays with these products alone; other products' claims on it are taken out.")
    def keep(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._settle(request, queryset, "keep", "kept")

    @admin.action(description="A case or pack of it: linked, not merged", permissions=["change"])
    def pack(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._settle(request, queryset, "pack", "linked as packs")

    @admin.action(description="It is not this product's", permissions=["change"])
    def drop(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._settle(request, queryset, "drop", "dropped")

    def _settle(self, request: HttpRequest, queryset: QuerySet[Any], decision: str, word: str) -> None:
        rows = list(queryset.select_related("brand", "product"))
        asked = [(row.brand_id, row.scope, row.kind, row.value) for row in rows]
        if decision == "keep" and len(set(asked)) < len(asked):
            self.message_user(request, "Two claims on one number cannot both be kept: choose one.", messages.ERROR)
            return
        for row in rows:
            services.settle_identifier(row, decision, by=request.user)
        self.message_user(request, f"{len(rows)} claims {word}.")


@admin.register(ExchangeRate)
class ExchangeRateAdmin(Audited, TableAdmin):
    """What a currency was worth in another on a day: sums over currencies are told by these and by nothing else."""

    list_display = ["base", "quote", "date", "rate", "source"]
    list_filter = ["base", "quote"]
    search_fields = ["base", "quote", "source"]


@admin.register(FeedMapping)
class FeedMappingAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "brand", "retailer", "is_current", "created_by", "created_at"]
    list_select_related = ["brand", "retailer", "created_by"]
    list_filter = ["network", "is_current", "brand"]
    search_fields = ["network", "report"]


@admin.register(FeedLoad)
class FeedLoadAdmin(RunAdmin):
    list_display = [
        "file_name",
        "brand",
        "retailer",
        "shown_status",
        "shown_progress",
        "rows_accepted",
        "rows_quarantined",
        "period_end",
        "created_at",
    ]
    list_filter = [
        question("waits", "waits", stale=("no new file", lambda rows: rows.stale(timezone.now()))),
        "status",
        "brand",
        "retailer",
        "grain",
    ]
    search_fields = ["id", "file_name", "file_sha256", "mapping_version", "error"]
    actions = ["retry_runs", "cancel_runs", "replay"]

    @admin.action(description="Read the kept file again", permissions=["act"])
    def replay(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for load in queryset:
            services.request_replay(load=load, by=request.user)
        self.message_user(request, "Queued: rows that a newer file restated stay as they are.")


@admin.register(FeedSource)
class FeedSourceAdmin(Audited, ConsoleAdmin):
    """Folders and addresses that are looked at every five minutes."""

    list_display = ["address", "brand", "retailer", "mapping", "report", "is_active", "last_looked_at", "last_error"]
    list_filter = ["is_active", "brand", "retailer"]
    list_select_related = ["brand", "retailer", "mapping"]
    search_fields = ["address"]


@admin.register(PerformanceMetric)
class PerformanceMetricAdmin(ReadOnlyAdmin):
    list_display = [
        "period_start",
        "brand",
        "retailer",
        "shown_grain",
        "campaign_name",
        "shown_spend",
        "clicks",
        "impressions",
        "shown_final",
    ]
    list_filter = [
        ("period_start", RangeDateFilter),
        "brand",
        "retailer",
        choice("network", lambda: Retailer.objects.values_list("network", flat=True)),
        choice("grain", lambda: reconcile.GRAIN_ORDER),
        choice("currency", lambda: Retailer.objects.values_list("currency", flat=True)),
        "is_final",
    ]
    search_fields = ["campaign_id", "campaign_name", "product_id", "gtin14"]
    list_select_related = ["brand", "retailer"]

    @display(description="grain", ordering="grain")
    def shown_grain(self, row: PerformanceMetric) -> str:
        return row.grain.replace("_", " ")

    @display(description="spend", ordering="spend")
    def shown_spend(self, row: PerformanceMetric) -> str:
        return money(row.spend, row.currency)

    @display(description="final", boolean=True)
    def shown_final(self, row: PerformanceMetric) -> bool:
        return row.is_final


@admin.register(QuarantinedRow)
class QuarantinedRowAdmin(ReadOnlyAdmin):
    list_display = ["rule", "column", "message", "row_number", "brand", "retailer", "load", "status"]
    list_filter = ["status", "rule", "brand", "retailer"]
    search_fields = ["message", "raw", "file_sha256"]
    list_select_related = ["brand", "retailer", "load"]
    actions = ["replay", "dismiss"]

    @admin.action(description="Read their files again, with the mappings of now", permissions=["act"])
    def replay(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        loads = {row.load for row in queryset.filter(status=QuarantinedRow.Status.OPEN).select_related("load")}
        for load in loads:
            services.request_replay(load=load, mapping=services.newest_mapping(load), by=request.user)
        self.message_user(request, f"Queued: {len(loads)} files.")

    @admin.action(description="Dismiss", permissions=["act"])
    @asks("They are not read again and count nowhere; the log keeps them.")
    def dismiss(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset:
            services.dismiss(row)
        self.message_user(request, "Dismissed: they stay in the log.")


@admin.register(Webhook)
class WebhookAdmin(Audited, ConsoleAdmin):
    """Where brands are told of what happens; a secret is shown once, when it is made."""

    list_display = ["url", "brand", "is_active", "last_status", "last_sent_at", "last_error"]
    list_filter = ["is_active", "brand"]
    search_fields = ["url"]
    fields = ["brand", "url", "events", "is_active"]
    list_select_related = ["brand"]
    actions = ["ping", "renew"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:  # noqa: ARG002
        return ["brand"] if obj else []  # its secret is sealed for the brand

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, form=WebhookForm, **kwargs)

    def save_model(self, request: HttpRequest, obj: Webhook, form: Any, change: bool) -> None:
        secret = services.set_up_webhook(obj)
        super().save_model(request, obj, form, change)
        if secret:
            self._show(request, obj, secret)

    @admin.action(description="Send a test", permissions=["change"])
    def ping(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        for hook in queryset.select_related("brand"):
            run = webhooks.ping(hook)
            self.message_user(request, f"{hook.url}: on its way, see {run.get_absolute_url()}")

    @admin.action(description="Give another secret: the old one ends at once", permissions=["change"])
    @asks("Messages are signed under a new secret from now on; the receiver refuses them until it knows that one.")
    def renew(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        for hook in queryset.select_related("brand"):
            secret = webhooks.new_secret(hook)
            hook.save(update_fields=["sealed_secret"])
            self._show(request, hook, secret)

    def _show(self, request: HttpRequest, hook: Webhook, secret: str) -> None:
        self.message_user(request, f"{hook.url}: the secret is {secret} - keep it now, it is not shown again.")


@admin.register(Delivery)
class DeliveryAdmin(RunAdmin):
    """Messages to webhooks; a failed one is a dead letter, Retry sends it again."""

    list_display = ["event", "webhook", "brand", "shown_status", "attempts", "response_status", "error", "created_at"]
    list_filter = ["event", *RunAdmin.list_filter]
    search_fields = [*RunAdmin.search_fields, "event", "webhook__url"]
    list_select_related = ["webhook", "brand"]


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None


@admin.register(PolicyRule)
class PolicyRuleAdmin(Audited, EditableAdmin):
    """Rules of a brand's own, and new versions of rules, beside those that are shipped.

    A change is a new version; it is tried on labelled texts, and saved when it is sent again unchanged.
    """

    list_display = ["code", "version", "network", "severity", "kind", "brand", "owner", "valid_from", "is_active"]
    list_select_related = ["brand"]
    list_filter = ["network", "severity", "kind", "is_active", "brand"]
    search_fields = ["code", "message", "source"]
    form = PolicyRuleForm
    change_form_before_template = "admin/retailers/policyrule/bench.html"
    list_before_template = "admin/retailers/policyrule/shipped.html"

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:  # noqa: ARG002
        return ["code", "brand"] if obj else []  # under another code it would be another rule

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "brand" in form.base_fields:
            form.base_fields["brand"].required = not Brand.objects.sees_all(request.user)
        return form

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """A rule begun from an earlier version, or from the shipped one with that code."""
        names = RULE_FIELDS
        key = _uuid(request.GET.get("version"))
        kept = PolicyRule.objects.visible_to(request.user).filter(uuid=key).first() if key else None
        if kept is not None:
            return {name: getattr(kept, f"{name}_id" if name == "brand" else name) for name in names}
        row = policy.shipped_rows().get(request.GET.get("shipped", ""))
        if row is None:
            return super().get_changeform_initial_data(request)
        known = {"severity", "message", "fix", "source", "kind", "valid_from", "valid_to"}
        told = {name: row[name] for name in known if name in row}
        spec = {name: value for name, value in row.items() if name not in known | {"id", "on"}}
        return {"code": row["id"], "network": row["on"], "kind": "lexicon", "spec": spec, **told}

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The networks' and the law's rules are changed by those who see all brands."""
        shared = obj is not None and obj.brand_id is None
        return super().has_change_permission(request, obj) and (not shared or Brand.objects.sees_all(request.user))

    def save_model(self, request: HttpRequest, obj: PolicyRule, form: Any, change: bool) -> None:
        if not change or set(form.changed_data) - {"tried"}:
            super().save_model(request, services.as_next_version(obj), form, change)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        codes = sorted(policy.shipped_rows()) if self.has_add_permission(request) else []
        return super().changelist_view(request, {**(extra_context or {}), "shipped": codes})


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ["at", "chain", "sequence", "actor", "action", "subject_type", "subject_id"]
    list_filter = ["action", "brand"]
    search_fields = ["actor", "action", "subject_id"]
    date_hierarchy = "at"

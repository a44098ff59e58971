"""Retailers, brands, products and their reports in the operations console."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from retailers import services
from retailers.models import (
    AuditEntry,
    Brand,
    ExchangeRate,
    FeedLoad,
    FeedMapping,
    Membership,
    PerformanceMetric,
    PolicyRule,
    ProductIdentifier,
    QuarantinedRow,
    Retailer,
    SKUCatalog,
    Webhook,
)
from rmn.lib.admin import ConsoleAdmin, EditableAdmin, ReadOnlyAdmin, RunAdmin


@admin.register(Retailer)
class RetailerAdmin(EditableAdmin):
    list_display = ["name", "slug", "network", "time_zone", "currency", "is_active"]
    list_filter = ["network", "is_active"]
    search_fields = ["name", "slug"]


@admin.register(Brand)
class BrandAdmin(EditableAdmin):
    list_display = ["name", "slug", "manufacturer", "currency", "shares_training", "is_active"]
    list_filter = ["is_active", "shares_training"]
    search_fields = ["name", "slug", "manufacturer"]


@admin.register(Membership)
class MembershipAdmin(EditableAdmin):
    list_display = ["user", "role", "brand", "retailer"]
    list_filter = ["role", "brand"]
    search_fields = ["user__username", "user__email"]
    autocomplete_fields = ["user", "brand", "retailer"]
    may_delete = True


@admin.register(SKUCatalog)
class SKUAdmin(EditableAdmin):
    list_display = ["name", "sku", "brand", "gtin14", "category", "price", "is_active"]
    list_filter = ["brand", "category", "is_active"]
    search_fields = ["name", "sku", "gtin14"]


@admin.register(ProductIdentifier)
class ProductIdentifierAdmin(ConsoleAdmin):
    list_display = ["value", "kind", "product", "retailer", "source", "confidence", "in_conflict"]
    list_filter = ["in_conflict", "kind", "brand"]
    search_fields = ["value", "product__name"]
    autocomplete_fields = ["product", "retailer"]


@admin.register(ExchangeRate)
class ExchangeRateAdmin(ConsoleAdmin):
    list_display = ["base", "quote", "date", "rate", "source"]
    list_filter = ["base", "quote"]
    search_fields = ["base", "quote", "source"]


@admin.register(FeedMapping)
class FeedMappingAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "brand", "retailer", "is_current", "created_by", "created_at"]
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
    list_filter = ["status", "brand", "retailer", "grain"]
    search_fields = ["id", "file_name", "file_sha256", "mapping_version", "error"]
    actions = ["retry_runs", "cancel_runs", "replay"]

    @admin.action(description="Read the kept file again")
    def replay(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for load in queryset:
            services.request_replay(load=load, by=request.user)
        self.message_user(request, "Queued: rows that a newer file restated stay as they are.")


@admin.register(PerformanceMetric)
class PerformanceMetricAdmin(ReadOnlyAdmin):
    list_display = [
        "period_start",
        "brand",
        "retailer",
        "grain",
        "campaign_name",
        "currency",
        "spend",
        "clicks",
        "impressions",
        "shown_final",
    ]
    list_filter = ["brand", "retailer", "network", "grain", "currency", "is_final"]
    search_fields = ["campaign_id", "campaign_name", "product_id", "gtin14"]
    date_hierarchy = "period_start"
    list_select_related = ["brand", "retailer"]

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

    @admin.action(description="Read their files again, with the mappings of now")
    def replay(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        loads = {row.load for row in queryset.filter(status=QuarantinedRow.Status.OPEN).select_related("load")}
        for load in loads:
            services.request_replay(load=load, mapping=services.newest_mapping(load), by=request.user)
        self.message_user(request, f"Queued: {len(loads)} files.")

    @admin.action(description="Dismiss")
    def dismiss(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset:
            services.dismiss(row)
        self.message_user(request, "Dismissed: they stay in the log.")


@admin.register(Webhook)
class WebhookAdmin(ConsoleAdmin):
    list_display = ["url", "brand", "is_active"]
    list_filter = ["brand", "is_active"]
    search_fields = ["url"]
    exclude = ["sealed_secret"]


@admin.register(PolicyRule)
class PolicyRuleAdmin(EditableAdmin):
    """Rules of a brand's own, and new versions of rules, beside those that are shipped."""

    list_display = ["code", "version", "network", "severity", "kind", "brand", "owner", "valid_from", "is_active"]
    list_filter = ["network", "severity", "kind", "is_active", "brand"]
    search_fields = ["code", "message", "source"]


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ["at", "chain", "sequence", "actor", "action", "subject_type", "subject_id"]
    list_filter = ["action", "brand"]
    search_fields = ["actor", "action", "subject_id"]
    date_hierarchy = "at"

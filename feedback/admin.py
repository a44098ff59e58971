"""Feedback, its queue and its exports in the operations console."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display

from feedback.models import Export, Feedback, ReviewTask
from rmn.lib.admin import ReadOnlyAdmin, RunAdmin

STATES = {"open": "info", "disputed": "warning", "done": "success", "withdrawn": ""}


@admin.register(Feedback)
class FeedbackAdmin(ReadOnlyAdmin):
    list_display = [
        "created_at",
        "brand",
        "task",
        "kind",
        "shown_answer",
        "recommendation",
        "by",
        "origin",
        "adapter",
        "shown_undone",
    ]
    list_filter = ["task", "kind", "origin", "outcome", "brand", "retailer", "is_gold"]
    search_fields = ["text", "note", "prompt", "chosen", "rejected", "adapter_digest", "by__username"]
    date_hierarchy = "created_at"
    list_select_related = ["brand", "recommendation", "by"]

    @admin.display(description="answer")
    def shown_answer(self, row: Feedback) -> str:
        if row.kind == Feedback.Kind.PAIR:
            return f"{row.get_outcome_display()}{' (much)' if row.strength > 1 else ''}"
        if row.kind == Feedback.Kind.CORRECTION:
            return row.text[:60]
        return "up" if row.value == 1 and row.kind == Feedback.Kind.THUMB else str(row.value)

    @admin.display(description="adapter")
    def adapter(self, row: Feedback) -> str:
        return row.adapter_digest[:12]

    @display(description="taken back", boolean=True)
    def shown_undone(self, row: Feedback) -> bool:
        return row.undone_at is not None


@admin.register(ReviewTask)
class ReviewTaskAdmin(ReadOnlyAdmin):
    list_display = [
        "recommendation",
        "brand",
        "task",
        "kind",
        "shown_status",
        "priority",
        "votes_wanted",
        "reserved_by",
        "reserved_until",
        "is_gold",
    ]
    list_filter = ["status", "task", "kind", "is_gold", "brand", "retailer"]
    search_fields = ["recommendation__title", "recommendation__text", "reserved_by__username"]
    list_select_related = ["brand", "recommendation", "reserved_by"]
    actions = ["free", "withdraw"]

    @display(description="status", label=STATES, ordering="status")
    def shown_status(self, row: ReviewTask) -> str:
        return row.status

    @admin.action(description="Free from whoever holds them")
    def free(self, request: HttpRequest, queryset: Any) -> None:
        n = queryset.filter(repeats=None).update(reserved_by=None, reserved_until=None)
        self.message_user(request, f"{n} freed.")

    @admin.action(description="Withdraw: nobody is asked any more")
    def withdraw(self, request: HttpRequest, queryset: Any) -> None:
        n = queryset.open().update(status=ReviewTask.Status.WITHDRAWN)
        self.message_user(request, f"{n} withdrawn.")


@admin.register(Export)
class ExportAdmin(RunAdmin):
    list_display = ["__str__", "brand", "task", "format", "shown_status", "rows", "file", "created_at"]
    list_filter = ["format", "task", *RunAdmin.list_filter]

    @admin.display(description="file")
    def file(self, row: Export) -> str:
        if not row.file_path:
            return ""
        return format_html('<a href="{}">Download</a>', reverse("feedback-export-file", args=[row.pk]))

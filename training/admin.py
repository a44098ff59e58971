"""Data sets, trainings and evaluations in the operations console."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action, display

from rmn.lib.admin import RunAdmin
from training import services
from training.forms import CompositionForm, RetailerForm
from training.models import Dataset, Evaluation, Lesson, TrainingRun, Withdrawal

VERDICTS = {"better": "success", "not_worse": "info", "worse": "danger", "not_enough_evidence": "warning"}


@admin.register(Dataset)
class DatasetAdmin(RunAdmin):
    list_display = ["short", "brand", "task", "kind", "rows_train", "rows_eval", "shown_status", "created_at"]
    list_select_related = ["brand"]
    list_filter = ["kind", "task", *RunAdmin.list_filter]
    search_fields = [*RunAdmin.search_fields, "digest"]

    @admin.display(description="digest")
    def short(self, row: Dataset) -> str:
        return row.digest[:12] or str(row.pk)[:8]


@admin.register(TrainingRun)
class TrainingRunAdmin(RunAdmin):
    list_display = ["__str__", "brand", "task", "method", "shown_status", "shown_progress", "loss", "adapter"]
    list_filter = ["method", "task", *RunAdmin.list_filter]
    list_select_related = ["brand", "adapter"]

    actions_list = ["compose"]

    @action(
        description="Compose versions",
        permissions=["act"],
        dialog={
            "title": "Adds retailer, brand and task versions into one of the brand's own; it waits for the gate",
            "form_class": CompositionForm,
        },
    )
    def compose(self, request: HttpRequest, form: CompositionForm) -> HttpResponse:
        run = services.request_composition(**form.cleaned_data, by=request.user)
        return HttpResponse(headers={"HX-Redirect": run.get_absolute_url()})

    @admin.display(description="loss")
    def loss(self, row: TrainingRun) -> str:
        return f"{row.metrics[-1]['loss']:.3f}" if row.metrics else ""


@admin.register(Evaluation)
class EvaluationAdmin(RunAdmin):
    list_display = ["__str__", "brand", "task", "candidate", "champion", "shown_verdict", "shown_status", "created_at"]
    list_filter = ["verdict", "task", *RunAdmin.list_filter]
    list_select_related = ["brand", "candidate", "champion"]

    @display(description="verdict", label=VERDICTS, ordering="verdict")
    def shown_verdict(self, row: Evaluation) -> str:
        return row.verdict


@admin.register(Lesson)
class LessonAdmin(RunAdmin):
    list_display = ["__str__", "brand", "retailer", "task", "outcome", "shown_status", "shown_progress", "created_at"]
    list_filter = ["outcome", "task", *RunAdmin.list_filter]
    list_select_related = ["brand", "retailer"]
    actions_list = ["learn_mappings"]

    @action(
        description="Teach a retailer's adapter",
        permissions=["act"],
        dialog={
            "title": "Learns from known mappings to read reports; suggests only where the gate finds it better",
            "form_class": RetailerForm,
        },
    )
    def learn_mappings(self, request: HttpRequest, form: RetailerForm) -> HttpResponse:
        run = services.request_lesson(brand=None, task="", retailer=form.cleaned_data["retailer"], by=request.user)
        return HttpResponse(headers={"HX-Redirect": run.get_absolute_url()})


@admin.register(Withdrawal)
class WithdrawalAdmin(RunAdmin):
    list_display = ["__str__", "brand", "person", "reason", "shown_status", "created_at"]
    list_select_related = ["brand", "person"]

"""The console's base: unfold with history, import and export, and only rows the person may see.

This is the only place where the console's library is named as a base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from django.contrib import admin
from django.core.paginator import Paginator
from django.db import models
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.html import format_html
from import_export.admin import ExportActionMixin, ImportExportModelAdmin
from simple_history.admin import SimpleHistoryAdmin
from unfold.admin import ModelAdmin
from unfold.contrib.import_export.forms import ExportForm, ImportForm, SelectableFieldsExportForm
from unfold.decorators import display

from rmn.lib.runs import Run

STATUS_COLOURS = {"queued": "info", "running": "warning", "succeeded": "success", "failed": "danger", "cancelled": ""}


MOST_COUNTED = 10_000  # pages beyond are reached by filters; counting a billion rows is no help to anybody


class CappedPaginator(Paginator):
    """Counts up to ``MOST_COUNTED`` rows."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return len(rows) if isinstance(rows, list) else rows.order_by()[: MOST_COUNTED + 1].count()


def question(name: str, parameter: str, **choices: tuple[str, Callable[[Any], Any]]) -> type[admin.SimpleListFilter]:
    """A filter whose choices are questions that the queryset answers: value=(words, rows -> rows)."""

    class Question(admin.SimpleListFilter):
        title = name
        parameter_name = parameter

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
            return [(value, words) for value, (words, _) in choices.items()]

        def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
            _, asked = choices.get(self.value() or "", ("", None))
            return asked(queryset) if asked else queryset

    return Question


def choice(field: str, values: Callable[[], Iterable[str]]) -> type[admin.SimpleListFilter]:
    """A filter on a column with its choices from elsewhere: asking a large table for them reads all of it."""

    class Choice(admin.SimpleListFilter):
        title = field.replace("_", " ")
        parameter_name = field

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
            return [(value, value) for value in sorted(set(values()))]

        def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
            return queryset.filter(**{field: self.value()}) if self.value() else queryset

    return Choice


class VisibleRows:
    """Rows, and choices in forms, narrowed to what the person may see; nothing is deleted by default."""

    may_delete: ClassVar[bool] = False

    def get_queryset(self, request: HttpRequest) -> Any:
        queryset = super().get_queryset(request)  # type: ignore[misc]
        return queryset.visible_to(request.user) if hasattr(queryset, "visible_to") else queryset

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        manager = db_field.remote_field.model._default_manager
        if "queryset" not in kwargs and hasattr(manager, "visible_to"):
            kwargs["queryset"] = manager.visible_to(request.user)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        manager = db_field.remote_field.model._default_manager
        if "queryset" not in kwargs and hasattr(manager, "visible_to"):
            kwargs["queryset"] = manager.visible_to(request.user)
        return super().formfield_for_manytomany(db_field, request, **kwargs)  # type: ignore[misc]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_delete and super().has_delete_permission(request, obj)  # type: ignore[misc]


class ConsoleAdmin(VisibleRows, ModelAdmin):
    """A model in the console: search, filters, forms."""

    list_per_page = 50
    paginator = CappedPaginator
    show_full_result_count = False
    list_filter_submit = True
    list_before_template = "admin/saved_view.html"
    compressed_fields = True
    warn_unsaved_form = True


class EditableAdmin(SimpleHistoryAdmin, ImportExportModelAdmin, ExportActionMixin, ConsoleAdmin):
    """A model that people edit: with its history, import with diff, and export."""

    import_form_class = ImportForm
    export_form_class = SelectableFieldsExportForm


class TableAdmin(ImportExportModelAdmin, ExportActionMixin, ConsoleAdmin):
    """A table that people keep by hand or by file, without a history of its own."""

    import_form_class = ImportForm
    export_form_class = SelectableFieldsExportForm


class ReadOnlyAdmin(ImportExportModelAdmin, ConsoleAdmin):
    """A model that only the system writes: look, search, export."""

    export_form_class = ExportForm

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def has_import_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False


class RunAdmin(ReadOnlyAdmin):
    """Long work in the console: how far, how it ended, again or stop."""

    list_display: Any = ["__str__", "brand", "shown_status", "shown_progress", "created_at", "shown_seconds"]
    list_filter: Any = ["status", "brand"]
    search_fields: Any = ["id", "error", "step"]
    date_hierarchy = "created_at"
    actions: Any = ["retry_runs", "cancel_runs"]

    @display(description="status", label=STATUS_COLOURS, ordering="status")
    def shown_status(self, run: Run) -> str:
        return run.status

    @admin.display(description="progress")
    def shown_progress(self, run: Run) -> str:
        return format_html('<a href="{}">{} {}</a>', run.get_absolute_url(), f"{run.progress:.0%}", run.step)

    @admin.display(description="seconds")
    def shown_seconds(self, run: Run) -> str:
        return f"{run.seconds:.1f}" if run.seconds is not None else ""

    def has_change_runs_permission(self, request: HttpRequest) -> bool:
        """To look is not to act: who may change this kind of run may have it done again, or stopped."""
        return bool(request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}"))

    @admin.action(description="Retry", permissions=["change_runs"])
    def retry_runs(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        for run in queryset:
            run.retry()
        self.message_user(request, "Queued again: what had failed or been cancelled.")

    @admin.action(description="Cancel", permissions=["change_runs"])
    def cancel_runs(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        for run in queryset:
            run.request_cancel()
        self.message_user(request, "Asked to stop.")

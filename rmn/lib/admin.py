"""The console's base: unfold with history, import and export, and only rows the person may see.

This is the only place where the console's library is named as a base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin import helpers
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import models
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.functional import cached_property
from django.utils.html import format_html
from import_export.admin import ExportActionMixin, ImportExportModelAdmin
from simple_history.admin import SimpleHistoryAdmin
from unfold.admin import ModelAdmin
from unfold.contrib.import_export.forms import ExportForm, ImportForm, SelectableFieldsExportForm
from unfold.decorators import display

from rmn.lib.runs import Run

STATUS_COLOURS = {"queued": "info", "running": "warning", "succeeded": "success", "failed": "danger", "cancelled": ""}


LISTED = 20  # rows that a question names
CHANGES = 5  # of a row's history on its page
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


def asks(what: str) -> Callable[[Any], Any]:
    """An action on chosen rows that says first what it will do to which of them, and acts on the second word."""

    def wrap(action: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(action)
        def asked(self: Any, request: HttpRequest, queryset: models.QuerySet[Any]) -> Any:
            if request.POST.get("confirmed") == "yes":
                return action(self, request, queryset)
            context = self.admin_site.each_context(request) | {
                "opts": self.opts, "title": getattr(asked, "short_description", action.__name__), "what": what, "action": action.__name__,
                "rows": list(queryset[: LISTED + 1]), "listed": LISTED, "keys": request.POST.getlist(helpers.ACTION_CHECKBOX_NAME), "across": request.POST.get("select_across", "0"), "count": queryset.count(),
                "checkbox": helpers.ACTION_CHECKBOX_NAME,
            }  # fmt: skip
            return TemplateResponse(request, "admin/ask.html", context)

        return asked

    return wrap


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
    """A model that people edit: with its history on the page, import with diff, and export."""

    import_form_class = ImportForm
    export_form_class = SelectableFieldsExportForm
    change_form_outer_after_template = "admin/changes.html"

    def changeform_view(self, request: HttpRequest, object_id: Any = None, form_url: str = "", extra_context: Any = None) -> Any:  # fmt: skip
        """The newest changes stand below the form, with what was before and the way back."""
        changes = _changes(self.model, object_id) if object_id else []
        return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), "changes": changes})


def _changes(model: Any, key: Any) -> list[dict[str, Any]]:
    """The newest versions of a row: who, when, and each field before and after."""
    try:
        newest = list(model.history.filter(**{model._meta.pk.name: key}).select_related("history_user")[: CHANGES + 1])
    except (ValueError, ValidationError):
        return []
    found = []
    for version, before in zip(newest[:CHANGES], [*newest[1:], None]):
        fields = version.diff_against(before, foreign_keys_are_objs=True).changes if before is not None else []
        found.append({"version": version, "is_now": version is newest[0], "fields": fields})
    return found


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

    def has_act_permission(self, request: HttpRequest) -> bool:
        """To look is not to act: who may change such rows may act on them."""
        return bool(request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}"))


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

    @admin.action(description="Retry", permissions=["act"])
    def retry_runs(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        for run in queryset:
            run.retry()
        self.message_user(request, "Queued again: what had failed or been cancelled.")

    @admin.action(description="Cancel", permissions=["act"])
    @asks("What waits is not begun; what runs ends at its next step, and what it did so far is left out.")
    def cancel_runs(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        for run in queryset:
            run.request_cancel()
        self.message_user(request, "Asked to stop.")

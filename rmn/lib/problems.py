"""What the API's settings name: pages, filters, allowances, and errors as problem details."""

from __future__ import annotations

from typing import Any, ClassVar

from django.apps import apps
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import exceptions
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle

from rmn.lib import masking
from rmn.lib.cache import take
from rmn.lib.errors import RmnError


class Pages(CursorPagination):
    """Lists as ``{next, previous, results}``; a cursor stays right while rows arrive."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500
    ordering = "-pk"

    def get_ordering(self, request: Any, queryset: Any, view: Any) -> tuple[str, ...]:  # noqa: ARG002
        """Newest first; runs have random keys and go by their date."""
        names = {field.name for field in queryset.model._meta.get_fields()}
        return ("-created_at", "-pk") if "lease_token" in names else ("-pk",)

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> Any:
        """A page of rows; a cursor that somebody made up leads nowhere."""
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValueError, OverflowError, ValidationError):
            raise exceptions.NotFound(self.invalid_cursor_message) from None


class Filters(DjangoFilterBackend):
    """Filters by a view's allowlist; a view's filter set is made once, and only what asks for one pays for it."""

    made: ClassVar[dict[type, Any]] = {}

    def get_filterset_class(self, view: Any, queryset: Any = None) -> Any:
        if type(view) not in self.made:
            self.made[type(view)] = super().get_filterset_class(view, queryset)
        return self.made[type(view)]

    def filter_queryset(self, request: Any, queryset: Any, view: Any) -> Any:
        known = self.get_filterset_class(view, queryset)
        if known is None or not any(name in request.query_params for name in known.base_filters):
            return queryset
        return super().filter_queryset(request, queryset, view)


class BrandThrottle(SimpleRateThrottle):
    """One allowance per brand, shared by all who act for it, so that a tenant's flood does not starve the others.

    Who acts for several brands, or for all, has an allowance of their own: no tenant's flood is theirs.
    A cache that is away lets requests through (rmn.lib.cache): an allowance is not a wall.
    """

    scope = "brand"
    num_requests: int
    duration: int
    left_to_wait = 0.0

    def get_cache_key(self, request: Any, view: Any) -> str:  # noqa: ARG002
        if not request.user or not request.user.is_authenticated:
            return self.cache_format % {"scope": "anonymous", "ident": self.get_ident(request)}
        brands = apps.get_model("retailers", "Brand").objects
        keys = [] if brands.sees_all(request.user) else brands.keys_of(request.user)
        ident = f"brand-{keys[0]}" if len(keys) == 1 else f"person-{request.user.pk}"
        return self.cache_format % {"scope": self.scope, "ident": ident}

    def allow_request(self, request: Any, view: Any) -> bool:
        self.left_to_wait = take(self.cache, self.get_cache_key(request, view), self.num_requests, self.duration)
        return not self.left_to_wait

    def wait(self) -> float:
        return self.left_to_wait


class Problem(RmnError):
    """An answer other than the wished one, as RFC 9457 has it."""

    def __init__(self, status_code: int, title: str, detail: str = "") -> None:
        super().__init__(status_code, title, detail)
        self.status_code, self.title, self.detail = status_code, title, detail


PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {"description": "What is wrong with which field, or with which of several rows."},
    },
}


def name_problems(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:  # noqa: ARG001
    """Say in the schema that any operation may answer with problem details."""
    result["components"]["schemas"]["Problem"] = PROBLEM
    said = {
        "description": "Not done; why and what to do stands in detail (RFC 9457).",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path in result["paths"].values():
        for operation in path.values():
            operation["responses"].setdefault("default", said)
    return result


def problem(error: Exception, context: dict[str, Any]) -> Response | None:
    """Errors as RFC 9457 problem details; unknown errors stay the server's 500."""
    from rest_framework.views import exception_handler, set_rollback  # they read this module through the settings

    if isinstance(error, Problem):
        set_rollback()
        return _answer(error.status_code, error.title, error.detail)
    if isinstance(error, ValidationError):
        error = exceptions.ValidationError(getattr(error, "message_dict", None) or error.messages)
    if isinstance(error, RmnError):
        set_rollback()
        return _answer(503 if error.retryable else 422, type(error).__name__, str(error))
    response = exception_handler(error, context)
    if response is None:
        return None
    if isinstance(error, Http404 | exceptions.NotFound):
        return _answer(404, "Not found", "There is nothing here that you may see.")
    if isinstance(error, PermissionDenied | exceptions.PermissionDenied):
        return _answer(403, "Not allowed", str(getattr(error, "detail", "")) or "Your role does not include this.")
    if isinstance(error, exceptions.ValidationError):
        return _answer(400, "Invalid input", "See errors.", errors=response.data)
    detail = response.data.get("detail", "") if isinstance(response.data, dict) else ""
    answer = _answer(response.status_code, str(getattr(error, "default_detail", "Error")).rstrip("."), str(detail))
    for name in ("Retry-After", "WWW-Authenticate"):
        if response.has_header(name):
            answer[name] = response[name]
    return answer


def _answer(code: int, title: str, detail: str, **extra: Any) -> Response:
    body = {
        "type": "about:blank",
        "title": title,
        "status": code,
        "detail": masking.line(detail),
        **masking.logged(extra),
    }
    return Response(body, status=code, content_type="application/problem+json")

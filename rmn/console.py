"""The console's site: staff only, and with a second factor where one is demanded."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.templatetags.static import static
from unfold.sites import UnfoldAdminSite


class Console(UnfoldAdminSite):
    """Ops staff's site; without the second factor there is only the way to it."""

    def has_permission(self, request: HttpRequest) -> bool:
        if not super().has_permission(request):
            return False
        return not settings.RMN_REQUIRE_OTP or bool(request.user.is_verified())  # type: ignore[union-attr]

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        user = request.user
        if user.is_authenticated and user.is_staff and not self.has_permission(request):
            return redirect("second-factor")
        return super().login(request, extra_context)


def styles(request: HttpRequest) -> str:  # noqa: ARG001
    """What the console takes from the screens: pictures, the progress block, figures in columns."""
    return static("console.css")

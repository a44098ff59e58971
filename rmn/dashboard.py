"""What the console's first page shows: what needs a person today, and the state of the business."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def environment(request: HttpRequest) -> list[str]:  # noqa: ARG001
    colour = {"production": "danger", "staging": "warning"}.get(settings.RMN_ENVIRONMENT, "info")
    return [settings.RMN_ENVIRONMENT, colour]


def console(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    return context

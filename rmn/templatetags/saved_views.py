"""The person's own view that a list of the console is, if it is one."""

from __future__ import annotations

from django import template
from django.http import HttpRequest

from rmn.models import SavedView

register = template.Library()


@register.simple_tag
def saved_view(request: HttpRequest) -> SavedView | None:
    query = request.META.get("QUERY_STRING", "")
    return SavedView.objects.filter(user=request.user.pk, path=request.path, query=query).first()

"""Filters for templates over rmn.lib.words; loaded everywhere."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html

from rmn.lib import words

register = template.Library()
register.filter("short", words.short)
register.filter("full", words.full)
register.filter("money", words.money)
register.filter("share", words.share)
register.filter("duration", words.duration)
register.filter("is_number", words.is_number)


@register.filter
def spaced(name: Any) -> str:
    """A name of the code as words: sunk_cost as "sunk cost"."""
    return str(name).replace("_", " ")


@register.filter
def plain_number(value: Any) -> Any:
    """Numbers with separators, everything else as it is."""
    return words.full(value, 5) if words.is_number(value) else value


@register.filter
def ago(then: datetime | None) -> str:
    """A time relative to now, the exact one on hover."""
    if then is None:
        return "never"
    exact = then.isoformat(timespec="seconds")
    return format_html('<time datetime="{}" title="{}">{}</time>', exact, exact, words.ago(then, timezone.now()))


@register.filter
def pretty_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@register.simple_tag
def counted(number: int, one: str, many: str = "") -> str:
    return words.counted(number, one, many)


@register.simple_tag(takes_context=True)
def with_query(context: Any, **changes: Any) -> str:
    """The page's address with some of its query changed; an empty value takes a name away."""
    query = context["request"].GET.copy()
    for name, value in changes.items():
        if value in (None, ""):
            query.pop(name, None)
        else:
            query[name] = value
    return f"?{query.urlencode()}"

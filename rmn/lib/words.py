"""Numbers, money, shares and times as people read them; used by screens, reports and e-mail."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import Any

Number = int | float | Decimal


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def short(value: Any, digits: int = 3) -> str:
    """A big number shortened: 1,234,567 becomes "1.23 M"; below ten thousand it stays as it is."""
    if not is_number(value) or not math.isfinite(value):
        return "–"
    number = float(value)
    for limit, unit in ((1e12, "T"), (1e9, "bn"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            scaled = number / (1e3 if unit == "k" else limit)
            return f"{scaled:.{max(digits - len(str(int(abs(scaled)))), 0)}f} {unit}"
    return full(value, digits)


def full(value: Any, digits: int = 3) -> str:
    """A number with thousands separated; fractions to so many significant digits."""
    if not is_number(value) or not math.isfinite(value):
        return "–"
    number = float(value)
    if number == int(number) and abs(number) < 1e15:
        return f"{int(number):,}"
    if abs(number) >= 100:
        return f"{number:,.1f}" if abs(number) < 1000 else f"{number:,.0f}"
    return f"{number:.{digits}g}"


def money(value: Any, currency: str = "") -> str:
    """An amount with its currency: "12,345.60 USD"; large ones without cents."""
    if value is None or not is_number(value):
        return "–"
    text = f"{value:,.2f}" if abs(value) < 100_000 else f"{value:,.0f}"
    return f"{text} {currency}".strip()


def share(value: Any, digits: int = 0) -> str:
    """0.123 as "12 %"; one decimal where the whole number would hide a difference from 0 or 100."""
    if not is_number(value) or not math.isfinite(value):
        return "–"
    percent = float(value) * 100
    if digits == 0 and (0 < abs(percent) < 1 or 99 < percent < 100):
        digits = 1
    return f"{percent:.{digits}f} %"


def duration(seconds: Any) -> str:
    """Seconds as "8 s", "3 min", "2 h 5 min"."""
    if not is_number(seconds) or not math.isfinite(seconds):
        return "–"
    whole = round(float(seconds))
    if whole < 1:
        return "under 1 s"
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} days"


def ago(then: datetime | None, now: datetime) -> str:
    """How long ago, or in how long: "3 min ago", "in 2 days"."""
    if then is None:
        return "never"
    seconds = (now - then).total_seconds()
    if abs(seconds) < 5:
        return "just now"
    return f"{duration(seconds)} ago" if seconds > 0 else f"in {duration(-seconds)}"


def interval(low: Any, high: Any, *, percent: bool = True) -> str:
    """An interval as people say it: "between 41 % and 63 %"."""
    form = share if percent else full
    return f"between {form(low)} and {form(high)}"


def noun(number: int, one: str, many: str = "") -> str:
    """The noun that goes with a count: "answer" of 1, "answers" of none or many."""
    return one if number == 1 else many or one + "s"


def counted(number: int, one: str, many: str = "") -> str:
    """A count with its noun: "1 answer", "4,812 answers"."""
    return f"{number:,} {noun(number, one, many)}"

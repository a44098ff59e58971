"""Text into values, a column at a time: numbers, money, dates. Exact; nothing passes through a float.

Each function takes and gives a polars Series, so that it runs inside a streaming plan batch by
batch. What reads at once takes the fast path; only the cells left over are cleaned.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import polars as pl

from retailers.domain.rmis import MONEY, SYMBOLS

WIDE = pl.Decimal(38, 12)  # room for scaled units before they are brought to six places
_SPACES = r"[\s\u00a0\u202f\u2009]"
_SYMBOL = "(?:" + "|".join(re.escape(text) for text in sorted(SYMBOLS, key=len, reverse=True)) + r"|[a-z]{3}|\p{Sc})"
UNITS: dict[str, Decimal] = {
    "one": Decimal(1),
    "micro": Decimal("0.000001"),
    "milli": Decimal("0.001"),
    "cent": Decimal("0.01"),
    "cents": Decimal("0.01"),
    "percent": Decimal("0.01"),
    "thousand": Decimal(1000),
    "million": Decimal(1000000),
}


@dataclass(frozen=True)
class NumberStyle:
    """How a feed writes numbers.

    Attributes:
        decimal: the decimal character, '.' or ','.
        group: characters that may separate groups of digits; '' for none.
        unit: what one written unit is worth, e.g. 0.000001 for micros.
    """

    decimal: str = "."
    group: str = ","
    unit: Decimal = Decimal(1)


@dataclass(frozen=True)
class Reading:
    """How a column of cells is read inside a plan.

    Attributes:
        plain: the value of the cells that read at once, as an expression.
        rest: the second look at the cells left over (the others are null), as the struct of ``numbers``.
        kind: that struct's type.
    """

    plain: Callable[[pl.Expr], pl.Expr]
    rest: Callable[[pl.Series], pl.Series]
    kind: pl.Struct


def number_reading(style: NumberStyle, nulls: tuple[str, ...] = ("",)) -> Reading:
    """Reads as ``numbers`` does."""

    def plain(cell: pl.Expr) -> pl.Expr:
        if style.decimal != ".":
            return pl.lit(None, dtype=WIDE)
        value = cell.cast(WIDE, strict=False)
        return (
            value if style.unit == 1 else value.map_batches(partial(_scale, unit=style.unit), WIDE, is_elementwise=True)
        )

    kind = pl.Struct({"value": WIDE, "mark": pl.String, "bad": pl.Boolean})
    return Reading(plain, partial(numbers, style=style, nulls=nulls), kind)


def count_reading(style: NumberStyle, nulls: tuple[str, ...] = ("",)) -> Reading:
    """Reads as ``counts`` does."""

    def plain(cell: pl.Expr) -> pl.Expr:
        return cell.cast(pl.Int64, strict=False) if style.unit == 1 else pl.lit(None, dtype=pl.Int64)

    kind = pl.Struct({"value": pl.Int64, "bad": pl.Boolean})
    return Reading(plain, partial(counts, style=style, nulls=nulls), kind)


def instant_reading(
    formats: tuple[str, ...], zone: str | None, source_zone: str | None, nulls: tuple[str, ...] = ("",)
) -> Reading:
    """Reads as ``instants`` does."""

    def plain(cell: pl.Expr) -> pl.Expr:
        if formats[0] == "iso":
            return cell.str.to_date("%Y-%m-%d", strict=False).cast(_MICRO)
        return pl.lit(None, dtype=_MICRO)

    kind = pl.Struct({"value": _MICRO, "bad": pl.Boolean})
    again = partial(instants, formats=formats, zone=zone, source_zone=source_zone, nulls=nulls)
    return Reading(plain, again, kind)


def numbers(text: pl.Series, style: NumberStyle, nulls: tuple[str, ...] = ("",)) -> pl.Series:
    """Cells as a struct: ``value`` Decimal(38,12), ``mark`` and ``bad``.

    ``value`` is null where the cell is empty or a null token, and where it is no number (then
    ``bad`` is true). ``mark`` is the currency sign or code that stood beside the number, in lower
    case. Groups must be well-formed (1,234.5; 1.234,5; 1,00,000.00), so that '12,34' is no number
    where the comma groups. Brackets and a trailing minus mean negative. Halves round to even.
    """
    size = len(text)
    value = (
        text.cast(WIDE, strict=False)
        if style.decimal == "."
        else pl.Series(text.name, [None], dtype=WIDE).new_from_index(0, size)
    )
    mark = pl.repeat(None, size, dtype=pl.String, eager=True)
    bad = pl.repeat(value=False, n=size, dtype=pl.Boolean, eager=True)
    left = _left(value, text, nulls)
    if left.any():
        where = left.arg_true()
        cells, empty = _trim(text.filter(left), nulls)
        cleaned, marks = _clean(cells, style)
        value, mark = value.scatter(where, cleaned), mark.scatter(where, marks)
        bad = bad.scatter(where, cleaned.is_null() & ~empty)
    return pl.DataFrame({"value": _scale(value, style.unit), "mark": mark, "bad": bad}).to_struct(text.name)


def counts(text: pl.Series, style: NumberStyle, nulls: tuple[str, ...] = ("",)) -> pl.Series:
    """Cells as a struct of ``value`` Int64 and ``bad``: whole numbers, also as '12.0' or '1,234'."""
    size = len(text)
    value = text.cast(pl.Int64, strict=False) if style.unit == 1 else pl.repeat(None, size, dtype=pl.Int64, eager=True)
    bad = pl.repeat(value=False, n=size, dtype=pl.Boolean, eager=True)
    left = _left(value, text, nulls)
    if left.any():
        where = left.arg_true()
        found = numbers(text.filter(left), style, nulls).struct.unnest()
        whole = _whole(found["value"])
        value = value.scatter(where, whole)
        bad = bad.scatter(where, found["bad"] | (whole.is_null() & found["value"].is_not_null()))
    return pl.DataFrame({"value": value, "bad": bad}).to_struct(text.name)


_HOUR = r"(?i)^(\d{1,2})(?:\.0+)?(?:[:h.]\d{2}(?::\d{2})?|h)?\s*(?:([ap])\.?m\.?)?(?:\s*[-\u2013].*)?$"


def hours(text: pl.Series, nulls: tuple[str, ...] = ("",)) -> pl.Series:
    """Cells as a struct of ``value`` Int64 and ``bad``: 7, 07:00, 7 AM, 12:00 pm, 07:00 - 07:59."""
    cells, empty = _trim(text, nulls)
    frame = pl.DataFrame({"t": cells, "empty": empty.fill_null(value=True)})
    number = pl.col("t").str.extract(_HOUR, 1).cast(pl.Int64, strict=False)
    half = pl.col("t").str.extract(_HOUR, 2).str.to_lowercase()
    number = (
        pl.when(half.is_null())
        .then(number)
        .when(number > 12)
        .then(None)
        .otherwise(number % 12 + pl.when(half == "p").then(12).otherwise(0))
    )
    return frame.select(value=number, bad=number.is_null() & ~pl.col("empty")).to_struct(text.name)


def _left(value: pl.Series, text: pl.Series, nulls: tuple[str, ...]) -> pl.Series:
    """Cells that did not read at once; what is plainly empty needs no second look."""
    if not value.null_count():
        return pl.repeat(value=False, n=len(value), dtype=pl.Boolean, eager=True)
    left = value.is_null() & text.is_not_null()
    return left & (text != "") if "" in nulls else left


def _trim(text: pl.Series, nulls: tuple[str, ...]) -> tuple[pl.Series, pl.Series]:
    cells = text.str.strip_chars()
    return cells, cells.is_in(list(nulls))


def _whole(value: pl.Series) -> pl.Series:
    whole = value.cast(pl.Decimal(38, 0))
    return pl.select(
        pl.when(pl.lit(whole) == pl.lit(value)).then(pl.lit(whole)).cast(pl.Int64, strict=False)
    ).to_series()


def _scale(value: pl.Series, unit: Decimal) -> pl.Series:
    if unit == 1:
        return value
    numerator, denominator = unit.as_integer_ratio()
    if numerator != 1:
        value = value * pl.Series([numerator], dtype=pl.Decimal(38, 0))
    if denominator != 1:
        value = value / pl.Series([denominator], dtype=pl.Decimal(38, 0))
    return value.cast(WIDE)


def _clean(text: pl.Series, style: NumberStyle) -> tuple[pl.Series, pl.Series]:
    groups = "".join(dict.fromkeys(style.group))
    frame = pl.DataFrame({"t": text.cast(pl.String)}).with_columns(
        pl.col("t")
        .str.replace_all("\u2212", "-", literal=True)
        .str.replace_all(_SPACES, " ")
        .str.strip_chars()
        .str.to_lowercase()
    )
    frame = frame.with_columns(
        negative=pl.col("t").str.contains(r"^\(.*\)$|^-|-$|^[^0-9]*-\s*[0-9.,]"),
        t=pl.col("t").str.strip_chars("()").str.strip_chars("-+ ").str.strip_suffix("%").str.strip_chars(),
    )
    frame = frame.with_columns(
        mark=pl.coalesce(
            pl.col("t").str.extract(rf"^({_SYMBOL})\s*[-+]?\s*[0-9.,]", 1),
            pl.col("t").str.extract(rf"[0-9.,]\s*({_SYMBOL})$", 1),
        ),
        t=pl.col("t")
        .str.replace(rf"^{_SYMBOL}\s*[-+]?\s*([0-9.,])", "$1")
        .str.replace(rf"([0-9.,])\s*{_SYMBOL}$", "$1"),
    )
    point = re.escape(style.decimal)
    body = pl.col("t")
    plain = body.str.contains(rf"^(?:[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+)(?:e[-+]?[0-9]+)?$")
    grouped = pl.lit(False)
    if groups:
        # one kind of separator throughout: 1,234 567 is a typing error and no number
        kinds = [rf"[0-9]{{1,3}}(?:{re.escape(sign)}[0-9]{{2,3}})*{re.escape(sign)}[0-9]{{3}}" for sign in groups]
        grouped = body.str.contains(rf"^(?:{'|'.join(kinds)})(?:{point}[0-9]*)?$")
    stripped = body.str.replace_all(f"[{re.escape(groups)}]", "") if groups else body
    number: pl.Expr = pl.when(plain).then(body).when(grouped).then(stripped)
    if style.decimal != ".":
        number = number.str.replace(style.decimal, ".", literal=True)
    frame = frame.with_columns(v=number.cast(WIDE, strict=False))
    frame = frame.with_columns(v=pl.when("negative").then(-pl.col("v")).otherwise("v"))
    return frame["v"].cast(WIDE), frame["mark"]


def money(value: pl.Expr) -> pl.Expr:
    """A wide decimal brought to Decimal(38,6), halves to even."""
    return value.cast(MONEY)


# -- dates

EXCEL_EPOCH_DAYS = 25569  # days from 1899-12-30, Excel's day 0 after its leap-year error, to 1970-01-01
DATE_WORDS = ("iso", "unix", "unix_ms", "unix_us", "excel", "iso_week", "month")


def instants(
    text: pl.Series,
    formats: tuple[str, ...],
    zone: str | None = None,
    source_zone: str | None = None,
    nulls: tuple[str, ...] = ("",),
) -> pl.Series:
    """Cells as a struct of ``value``, naive local Datetime in the business time zone, and ``bad``.

    Args:
        text: cells as written.
        formats: strptime patterns or the words in DATE_WORDS, tried in order.
        zone: the business time zone that instants are turned to; None keeps what is written.
        source_zone: the zone in which a time without an offset is written; None means it is already
            in the business zone.
        nulls: cells that mean no value.
    """
    size = len(text)
    found = pl.repeat(None, size, dtype=_MICRO, eager=True)
    bad = pl.repeat(value=False, n=size, dtype=pl.Boolean, eager=True)
    for form in formats:
        left = found.is_null() & text.is_not_null()
        if not left.any():
            break
        read = _READERS.get(form) or _pattern(form)
        if left.all():
            found = read(text, zone, source_zone)
        else:
            found = found.scatter(left.arg_true(), read(text.filter(left), zone, source_zone))
    left = found.is_null() & text.is_not_null()
    if left.any():
        bad = bad.scatter(left.arg_true(), ~_trim(text.filter(left), nulls)[1])
    return pl.DataFrame({"value": found, "bad": bad}).to_struct(text.name)


Reader = Callable[[pl.Series, str | None, str | None], pl.Series]
_MICRO = pl.Datetime("us")


def _to_zone(naive: pl.Series, zone: str | None, source_zone: str | None) -> pl.Series:
    if not zone or not source_zone or zone == source_zone:
        return naive
    aware = naive.dt.replace_time_zone(source_zone, ambiguous="earliest", non_existent="null")
    return aware.dt.convert_time_zone(zone).dt.replace_time_zone(None)


def _iso(text: pl.Series, zone: str | None, source_zone: str | None) -> pl.Series:
    """2026-04-15, 2026-04-15 05:00[:00[.123]], with T, with Z or an offset."""
    day = text.str.to_date("%Y-%m-%d", strict=False)
    if day.null_count() == text.null_count():
        return day.cast(_MICRO)
    plain = (
        text.str.strip_chars()
        .str.replace(r"^(\d{4}-\d{2}-\d{2})[tT ]+", "${1}T")
        .str.replace(r"\s*(UTC|Z|z)$", "+00:00")
    )
    plain = plain.str.replace(r"(T\d{2}:\d{2})([+-]|$)", "${1}:00$2").str.replace(r"([.,]\d{1,9})", "")
    plain = (
        plain.str.replace(r"\s*([+-]\d{2})(\d{2})$", "$1:$2").str.replace(r"\s*([+-]\d{2})$", "$1:00")
        if _any(plain, r"T.*[+-]")
        else plain
    )
    offset = plain.str.contains(r"T.*[+-]\d{2}:\d{2}$")
    naive = plain.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")
    naive = _to_zone(naive, zone, source_zone)
    out = pl.DataFrame({"d": day.cast(_MICRO), "n": naive})
    if offset.any():
        aware = plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%:z", strict=False, time_unit="us", time_zone="UTC")
        local = aware.dt.convert_time_zone(zone or "UTC").dt.replace_time_zone(None)
        return out.select(pl.coalesce("d", "n", pl.lit(local))).to_series()
    return out.select(pl.coalesce("d", "n")).to_series()


def _any(text: pl.Series, pattern: str) -> bool:
    return bool(text.str.contains(pattern).any())


def _unix(per_second: int) -> Reader:
    def read(text: pl.Series, zone: str | None, source_zone: str | None) -> pl.Series:  # noqa: ARG001
        ticks = text.cast(WIDE, strict=False)
        micro = (ticks * pl.Series([1_000_000 // per_second], dtype=pl.Decimal(38, 0))).cast(pl.Int64, strict=False)
        aware = micro.cast(pl.Datetime("us", "UTC"))
        sane = (aware.dt.year() >= 1990) & (aware.dt.year() < 2200)
        local = aware.dt.convert_time_zone(zone or "UTC").dt.replace_time_zone(None)
        return local.set(~sane.fill_null(value=False), None)

    return read


def _excel(text: pl.Series, zone: str | None, source_zone: str | None) -> pl.Series:
    serial = text.cast(WIDE, strict=False)
    micro = ((serial - EXCEL_EPOCH_DAYS) * pl.Series([86_400], dtype=pl.Decimal(38, 0))).round(0)
    naive = (micro.cast(pl.Int64, strict=False) * 1_000_000).cast(_MICRO)
    sane = (serial > 1) & (serial < 110_000)
    return _to_zone(naive.set(~sane.fill_null(value=False), None), zone, source_zone)


def _iso_week(text: pl.Series, zone: str | None, source_zone: str | None) -> pl.Series:  # noqa: ARG001
    """2024-W05, 2024W05, 202405 (year and ISO week): the Monday."""
    week = text.str.strip_chars().str.to_uppercase().str.replace(r"^(\d{4})-?W?(\d{1,2})$", "$1-W$2")
    week = week.str.replace(r"-W(\d)$", "-W0$1")
    return (week + "-1").str.to_date("%G-W%V-%u", strict=False).cast(_MICRO)


def _month(text: pl.Series, zone: str | None, source_zone: str | None) -> pl.Series:  # noqa: ARG001
    """2024-05, 2024/05, 202405, May 2024: the first."""
    plain = text.str.strip_chars().str.replace(r"^(\d{4})[-/.]?(\d{2})$", "$1-$2-01")
    day = plain.str.to_date("%Y-%m-%d", strict=False)
    named = ("1 " + text.str.strip_chars()).str.to_date("%d %B %Y", strict=False)
    short = ("1 " + text.str.strip_chars()).str.to_date("%d %b %Y", strict=False)
    return pl.DataFrame({"a": day, "b": named, "c": short}).select(pl.coalesce("a", "b", "c")).to_series().cast(_MICRO)


def _pattern(form: str) -> Reader:
    has_offset = "%z" in form or "%:z" in form
    has_clock = any(mark in form for mark in ("%H", "%I", "%T", "%R", "%s"))

    def read(text: pl.Series, zone: str | None, source_zone: str | None) -> pl.Series:
        text = text.str.strip_chars()
        if has_offset:
            aware = text.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
            return aware.dt.convert_time_zone(zone or "UTC").dt.replace_time_zone(None)
        if has_clock:
            clock = form if "%M" in form or "%T" in form or "%R" in form else form + ":%M"
            padded = text if clock == form else text + ":00"
            return _to_zone(padded.str.to_datetime(clock, strict=False, time_unit="us"), zone, source_zone)
        return text.str.to_date(form, strict=False).cast(_MICRO)

    return read


_READERS: dict[str, Reader] = {
    "iso": _iso,
    "unix": _unix(1),
    "unix_ms": _unix(1000),
    "unix_us": _unix(1_000_000),
    "excel": _excel,
    "iso_week": _iso_week,
    "month": _month,
}

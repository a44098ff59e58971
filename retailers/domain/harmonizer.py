"""A network's report becomes RMIS: the plan as lazy frames, and the run that writes it whole or not at all.

``plan`` is pure: frames in, frames out. ``run`` streams them to Parquet in one pass over the file,
settles repeated keys, and reports what went in and what came out to the last cent.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars_hash  # noqa: F401  # brings `chash`: SHA-256 inside polars, on all cores

from retailers.domain import identifiers, parsing, rmis
from retailers.domain.feed import OVERFLOW, ROW, Feed
from retailers.domain.mapping import Bound, BoundOutcome, Check, MappingFile, OutcomeItem, PerRow, Source, bind
from rmn.lib.errors import BadInput

RAW = "__raw__"
CODE = "__code__"
REFUSED = "__refused__"
AT_ONCE = "__at_once_"
LEFT = "__left__"
MASK = "__mask__"
ARROW = "ARROW:schema"
CODES = pl.Enum(sorted(rmis.CURRENCIES))
DATES = ("date", "period_start", "period_end")
# What names a row at each grain: without it the row says nothing.
GRAIN_PARTS: dict[str, tuple[str, ...]] = {
    "campaign": ("campaign_id", "campaign_name"),
    "ad_group": ("ad_group_id", "ad_group_name"),
    "ad": ("ad_id",),
    "product": ("product_id", "ad_id"),
    "keyword": ("keyword",),
    "search_term": ("search_term",),
    "placement": ("placement",),
    "purchased_product": ("product_id",),
}


class FeedRefused(BadInput):
    """The file as a whole cannot be taken; nothing of it was loaded."""


@dataclass(frozen=True)
class Context:
    """What is known beside the file.

    Attributes:
        extracted_at: the instant the numbers were taken; newer wins.
        period: the days the file covers, for reports that carry no date.
        retailer: the retailer's slug where the file does not name one.
        as_of_given: whether the caller said when, which then holds for every row.
    """

    extracted_at: datetime
    period: tuple[date, date] | None = None
    retailer: str | None = None
    as_of_given: bool = False


@dataclass(frozen=True)
class Rule:
    """One ground for quarantine: when it holds, and what to say of the row."""

    name: str
    column: str
    when: pl.Expr
    message: pl.Expr


@dataclass(frozen=True)
class Planned:
    """The lazy frames of one feed.

    Attributes:
        accepted: METRICS_SCHEMA less what the file's end decides, plus outcome columns.
        metrics, outcomes, quarantine: as in rmis.
        suspects: how many rows end in an empty cell, and so may have too few.
        sums: one row per currency: sum and count of each outcome column.
    """

    metrics: pl.LazyFrame
    outcomes: pl.LazyFrame
    quarantine: pl.LazyFrame
    suspects: pl.LazyFrame
    sums: pl.LazyFrame
    bound: Bound
    warning_names: tuple[str, ...]


def _cell(header: str, nulls: tuple[str, ...]) -> pl.Expr:
    text = pl.col(header).str.strip_chars()
    return pl.when(text.is_in(list(nulls)).not_()).then(text)


def sha256_hex(text: pl.Expr) -> pl.Expr:
    """Lower-case hex SHA-256 of UTF-8 text."""
    return text.chash.sha2_256()  # type: ignore[attr-defined]


def code_of(name: str) -> pl.Expr:
    """A currency as an enum: every row let through has a listed code or none."""
    return pl.col(name).cast(CODES)


def blake3_hex(text: pl.Expr) -> pl.Expr:
    """Lower-case hex BLAKE3, 64 characters: as hard to forge as SHA-256, at a fifth of its time."""
    return text.chash.blake3()  # type: ignore[attr-defined]


def canonical_json(rows: pl.Series) -> pl.Series:
    """The canonical JSON of each row of a struct of text, days and small numbers; its fields are in order."""
    frame = rows.struct.unnest()
    plain = not _needs_escapes(frame)
    columns = [_days(column) if column.dtype == pl.Date else column for column in frame.get_columns()]
    frame = pl.DataFrame(columns)
    if not plain:
        return frame.to_struct(rows.name).struct.json_encode()
    parts, shapes = [], []
    for column in columns:
        part, shape = pl.col(column.name), '"{}"'
        if column.dtype != pl.String:
            part, shape = part.cast(pl.String).fill_null("null"), "{}"
        elif column.null_count():
            part, shape = pl.format('"{}"', part).fill_null("null"), "{}"
        parts.append(part)
        shapes.append(f'"{column.name}":{shape}')
    whole = pl.format("{}" + ",".join(shapes) + "{}", pl.lit("{"), *parts, pl.lit("}"))
    return frame.select(whole.alias(rows.name)).to_series()


def _needs_escapes(frame: pl.DataFrame) -> bool:
    """Whether any text has a sign that JSON writes otherwise: looked for in all bytes at once, not row by row."""
    parts = frame.select(pl.col(pl.String).str.join("")).row(0) if pl.String in frame.dtypes else ()
    joined = "".join(part or "" for part in parts).encode()
    if not joined:
        return False
    return any(sign in joined for sign in b'"\\\x7f') or bool(np.frombuffer(joined, np.uint8).min() < 0x20)


def _days(days: pl.Series) -> pl.Series:
    """Days as ISO text: each day of a short span is spelt once."""
    number = days.to_physical()
    low, high = number.min(), number.max()
    if not isinstance(low, int) or not isinstance(high, int) or high - low > len(days) // 4:
        return days.cast(pl.String)
    spelt = pl.Series(days.name, range(low, high + 1), dtype=pl.Int32).cast(pl.Date).cast(pl.String)
    return spelt.gather(number - low)


def _quoted(header: str) -> pl.Expr:
    return pl.col(RAW).struct.field(header).fill_null("").str.slice(0, 80)


class _Planner:
    """Collects expressions stage by stage; each stage is one ``with_columns``."""

    def __init__(self, feed: Feed, bound: Bound, context: Context, short: pl.Series) -> None:
        self.feed, self.bound, self.context, self.short = feed, bound, context, short
        self.mapping = bound.mapping
        self.nulls = self.mapping.dialect.nulls
        self.read: list[pl.Expr] = []  # structs and text straight from cells
        self.cells: dict[str, tuple[pl.Expr, parsing.Reading]] = {}  # columns of numbers and dates
        self.derive: list[pl.Expr] = []
        self.rules: list[Rule] = []
        self.warnings: list[tuple[str, pl.Expr]] = []
        self.marked: list[tuple[str, str]] = []  # (cells, header) that may carry a currency mark
        self.zone = self._constant_zone()
        self.same = {"network": self.mapping.network_name, "grain": self.mapping.grain}  # text that all rows share

    # -- sources

    def _constant_zone(self) -> str | None:
        source = self.mapping.fields.get("time_zone")
        if source is None:
            return None
        return source.constant or self._stated(source)

    def _stated(self, source: Source) -> str | None:
        """A value that the file states once: in its title lines, its name or a header."""
        found: str | None = None
        if source.preamble:
            text = "\n".join(self.feed.preamble)
            match = re.search(source.preamble, text, re.IGNORECASE | re.MULTILINE)
            found = match.group(1) if match else None
        elif source.file_name:
            match = re.search(source.file_name, self.feed.name)
            found = match.group(1) if match else None
        elif source.header and source.of:
            header = self.bound.columns.get(source.of) or self._outcome_header(source.of)
            match = re.search(source.header, header or "")
            found = match.group(1) if match else None
        if found is None:
            return None
        found = found.strip()
        if source.values:
            table = {key.casefold(): value for key, value in source.values.items()}
            return table.get(found.casefold(), found)
        return found

    def _outcome_header(self, name: str) -> str | None:
        return next((o.header for o in self.bound.outcomes if o.item.as_ == name), None)

    def text(self, name: str) -> pl.Expr | None:
        """A field as text, or None where neither the mapping nor the file gives one."""
        source = self.mapping.fields.get(name)
        if source is None:
            return None
        header = self.bound.columns.get(name)
        if source.constant is not None:
            return pl.lit(source.constant)
        if source.preamble or source.file_name or source.header:
            stated = self._stated(source) or source.default
            if stated is None:
                origin = source.preamble or source.file_name or source.header
                place = (
                    "the title lines" if source.preamble else "the file's name" if source.file_name else "the header"
                )
                raise BadInput(
                    f"{self.feed.name}: fields.{name}: {origin!r} is not in {place}; correct it, or give a default"
                )
            return pl.lit(stated)
        if source.lookup:
            key = self.text(source.lookup.by)
            if key is None:
                raise BadInput(
                    f"{self.feed.name}: fields.{name}.lookup.by: {source.lookup.by!r} has no value in this file"
                )
            value = key.replace_strict(source.lookup.values, default=None, return_dtype=pl.String)
            if source.default is None:
                message = pl.format(
                    "no entry for '{}' in the lookup of {}; add it to the mapping", key.fill_null(""), pl.lit(name)
                )
                self.rules.append(Rule("unknown_value", name, value.is_null(), message))
                return value
            return value.fill_null(source.default)
        if source.symbol_of:
            signs = {key.lower(): value for key, value in (source.values or {}).items()}
            return self.left(source.symbol_of, "mark").replace_strict(signs, default=None, return_dtype=pl.String)
        if header is None:
            return pl.lit(source.default) if source.default is not None else None
        return self._transform(_cell(header, self.nulls), source, name, header)

    def _transform(self, value: pl.Expr, source: Source, name: str, header: str) -> pl.Expr:
        if source.pattern:
            value = value.str.extract(source.pattern, 1)
        if source.values is not None:
            table = {key.casefold(): to for key, to in source.values.items()}
            lowered = value.str.to_lowercase()
            if source.others == "keep":
                value = (
                    pl.when(lowered.is_in(list(table)))
                    .then(lowered.replace_strict(table, default=None, return_dtype=pl.String))
                    .otherwise(value)
                )
            else:
                known = lowered.is_in(list(table))
                if source.others == "reject":
                    message = pl.format("'{}' is not among the values the mapping lists", _quoted(header))
                    self.rules.append(Rule("unknown_value", header, (value.is_not_null() & ~known), message))
                value = lowered.replace_strict(table, default=None, return_dtype=pl.String)
        if source.case == "lower":
            value = value.str.to_lowercase()
        if source.case == "upper" or source.id_type == "asin" or name == "currency":
            value = value.str.to_uppercase()
        if source.default is not None:
            value = value.fill_null(source.default)
        return value

    def _style(self, item: Source | OutcomeItem | Check) -> parsing.NumberStyle:
        dialect = self.mapping.dialect
        decimal = item.decimal or dialect.decimal
        group = getattr(item, "group", None)  # a check has none of its own
        groups = (
            group
            if group is not None
            else (dialect.groups if decimal == dialect.decimal else (", '’" if decimal == "." else ". '’"))
        )
        return parsing.NumberStyle(decimal, {"space": " ", "none": ""}.get(groups, groups), item.unit)

    def number(self, name: str, header: str, item: Source | OutcomeItem | Check, is_count: bool = False) -> None:
        """Read a column of numbers, with its rule."""
        style = self._style(item)
        read = parsing.count_reading if is_count else parsing.number_reading
        self.cells[name] = pl.col(header), read(style, self.nulls)
        what = "a whole number" if is_count else f"a number written with decimal {style.decimal!r}"
        message = pl.format(f"'{{}}' is not {what}; correct the row, or dialect.decimal and group", _quoted(header))
        self.rules.append(Rule("bad_number", header, self.left(name, "bad"), message))

    def value(self, name: str) -> pl.Expr:
        """What the cells of a column say: read at once, else on the second look."""
        return pl.coalesce(f"{AT_ONCE}{name}", self.left(name, "value"))

    @staticmethod
    def left(name: str, field: str) -> pl.Expr:
        """What the second look found: null where none was needed."""
        return pl.col(LEFT).struct.field(name).struct.field(field)

    def _second_look(self) -> pl.Expr:
        """The cells that did not read at once, of all columns together."""
        left, readings = [], {}
        for name, (cell, reading) in self.cells.items():
            missing = pl.col(f"{AT_ONCE}{name}").is_null()
            # what is plainly empty needs no second look
            left.append(pl.when(missing & (cell != "") if "" in self.nulls else missing).then(cell).alias(name))
            readings[name] = reading
        kind = pl.Struct({name: reading.kind for name, reading in readings.items()})
        again = partial(_read_again, readings=readings, nothing=pl.Series(LEFT, [], dtype=kind))
        return pl.struct(left).map_batches(again, return_dtype=kind, is_elementwise=True).alias(LEFT)

    # -- stages

    def dates(self) -> dict[str, pl.Expr]:
        fields = self.mapping.fields
        out: dict[str, pl.Expr] = {}
        for name in DATES:
            source = fields.get(name)
            if source is None:
                continue
            header = self.bound.columns.get(name)
            if header is None:
                stated = source.constant or self._stated(source) or source.default
                if stated is None:
                    raise BadInput(f"{self.feed.name}: fields.{name} has no value in this file; check its pattern")
                found = parsing.instants(pl.Series([stated]), source.format, self.zone, source.zone).struct.field(
                    "value"
                )[0]
                if found is None:
                    raise BadInput(
                        f"{self.feed.name}: fields.{name}: {stated!r} does not fit {' or '.join(source.format)}"
                    )
                out[name] = pl.lit(found, dtype=pl.Datetime("us"))
                continue
            self._instant(name, header, source)
            value = self.value(name)
            message = pl.format(
                f"'{{}}' is no date of the form {' or '.join(source.format)}; correct the row or the format",
                _quoted(header),
            )
            self.rules.append(Rule("bad_date", header, self.left(name, "bad"), message))
            self.rules.append(Rule("missing_key", header, value.is_null(), pl.lit("the date is empty")))
            out[name] = value
        return out

    def _instant(self, name: str, header: str, source: Source, zone: str | None = None) -> None:
        cell = pl.col(header).str.extract(source.pattern, 1) if source.pattern else pl.col(header)
        self.cells[name] = cell, parsing.instant_reading(source.format, zone or self.zone, source.zone, self.nulls)

    def period(self) -> None:
        found = self.dates()
        start, last = found.get("date", found.get("period_start")), found.get("period_end")
        if start is None and last is None:
            begin, end = self.context.period or (None, None)
            self.derive += [
                pl.lit(begin, dtype=pl.Date).alias("period_start"),
                pl.lit(end, dtype=pl.Date).alias("period_end"),
            ]
            if begin is None:
                self.warnings.append(("undated", pl.lit(value=True)))
            return
        end_day = None
        if last is not None:
            exclusive = self.mapping.fields["period_end"].exclusive
            end_day = (last - pl.duration(microseconds=1) if exclusive else last).dt.date()
        if start is not None:
            day = start.dt.date()
        else:  # only the last day is written, as in "week ending"
            assert end_day is not None  # noqa: S101  # for the type checker
            day = end_day - pl.duration(days=6) if self.mapping.period == "week" else end_day.dt.month_start()
        if end_day is None:
            match self.mapping.period:
                case "week":
                    end_day = day + pl.duration(days=6)
                case "month":
                    end_day = day.dt.month_end()
                case _:
                    end_day = day
        self.derive += [day.alias("period_start"), end_day.cast(pl.Date).alias("period_end")]
        if last is not None:
            message = pl.format("the period ends {} before it starts {}", pl.col("period_end"), pl.col("period_start"))
            header = self.bound.columns.get("period_end", "period_end")
            self.rules.append(Rule("end_before_start", header, pl.col("period_end") < pl.col("period_start"), message))
        limit = self.context.extracted_at.date() + timedelta(days=1)  # a day's slack for zones east of UTC
        self.warnings.append(("future_period", pl.col("period_start") > limit))

    def hour(self) -> None:
        source, header = self.mapping.fields.get("hour"), self.bound.columns.get("hour")
        if source is None or header is None:
            self.derive.append(pl.lit(None, dtype=pl.Int8).alias("hour"))
            return
        same = header in {self.bound.columns.get(name) for name in DATES}
        if same or source.format != ("iso",):
            if same and source.format == ("iso",):
                twin = next(self.mapping.fields[n] for n in DATES if self.bound.columns.get(n) == header)
                source = source.model_copy(update={"format": twin.format, "zone": source.zone or twin.zone})
            self._instant("hour", header, source)
            value, bad = self.value("hour").dt.hour().cast(pl.Int64), self.left("hour", "bad")
        else:
            kind = pl.Struct({"value": pl.Int64, "bad": pl.Boolean})
            call = partial(parsing.hours, nulls=self.nulls)
            self.read.append(pl.col(header).map_batches(call, return_dtype=kind, is_elementwise=True).alias("__hour"))
            value, bad = pl.col("__hour").struct.field("value"), pl.col("__hour").struct.field("bad")
        wrong = bad | (value < 0) | (value > 23)
        self.rules.append(Rule("bad_hour", header, wrong, pl.format("'{}' is no hour from 0 to 23", _quoted(header))))
        self.derive.append(pl.when((value >= 0) & (value <= 23)).then(value).cast(pl.Int8).alias("hour"))

    def texts(self) -> None:
        for name in rmis.TEXT_FIELDS:
            value = self.text(name)
            if name == "retailer" and value is None and self.context.retailer:
                value = pl.lit(self.context.retailer)
            value = value if value is not None else pl.lit(None, dtype=pl.String)
            self.derive.append(value.cast(pl.String).alias(name))
            if value.meta.is_literal() and (text := pl.select(value).item()) is not None:
                self.same[name] = str(text)
            source, header = self.mapping.fields.get(name), self.bound.columns.get(name)
            if header is not None and name in rmis.LENGTHS:
                longest = rmis.LENGTHS[name]
                self.rules.append(
                    Rule(
                        "too_long",
                        header,
                        pl.col(name).str.len_chars() > longest,
                        pl.lit(f"{name} has more than {longest} characters"),
                    )
                )
            if source is not None and source.required and header is not None:
                self.rules.append(
                    Rule("missing_key", header, pl.col(name).is_null(), pl.lit(f"{name} is required and empty"))
                )
        parts = [name for name in GRAIN_PARTS.get(self.mapping.grain, ()) if name in self.bound.columns]
        if parts:
            empty = pl.all_horizontal([pl.col(name).is_null() for name in parts])
            message = pl.lit(f"neither {' nor '.join(parts)}: a row of grain {self.mapping.grain} needs one")
            self.rules.append(Rule("missing_key", self.bound.columns[parts[0]], empty, message))

    def currency(self) -> None:
        source = self.mapping.fields.get("currency")
        column = self.bound.columns.get("currency", "currency")
        value = pl.col("currency")
        if source is not None:
            unknown = ~value.is_in(sorted(rmis.CURRENCIES))
            message = pl.format("'{}' is no ISO 4217 currency code", value.fill_null(""))
            self.rules.append(Rule("unknown_currency", column, unknown.fill_null(value=True), message))
        for name, header in self.marked:
            mark = self.left(name, "mark")
            both = pl.struct(mark.alias("mark"), value.alias("currency"))
            against = both.map_batches(_contradicts, return_dtype=pl.Boolean, is_elementwise=True)
            message = pl.format(
                "'{}' is marked '{}' and the currency is {}; one of them is wrong",
                _quoted(header),
                mark,
                value.fill_null("not stated"),
            )
            self.rules.append(Rule("currency_conflict", header, against, message))

    def numbers(self) -> None:
        for name in (*rmis.COUNT_FIELDS, *rmis.MONEY_FIELDS):
            source, header = self.mapping.fields.get(name), self.bound.columns.get(name)
            is_count = name in rmis.COUNT_FIELDS
            kind: Any = pl.Int64 if is_count else rmis.MONEY
            if source is not None and source.constant is not None:
                self.derive.append(pl.lit(source.constant).cast(kind).alias(name))
                continue
            if source is None or header is None:
                self.derive.append(pl.lit(None, dtype=kind).alias(name))
                continue
            self.number(name, header, source, is_count)
            if not is_count:
                self.marked.append((name, header))
            self.derive.append(self.value(name).cast(kind).alias(name))
            self.rules.append(
                Rule("negative", header, pl.col(name) < 0, pl.format(f"{name} is negative: '{{}}'", _quoted(header)))
            )
            if source.required:
                self.rules.append(
                    Rule("missing_key", header, pl.col(name).is_null(), pl.lit(f"{name} is required and empty"))
                )

    def outcomes(self) -> None:
        for number, outcome in enumerate(self.bound.outcomes):
            name = f"o{number}"
            self.number(name, outcome.header, outcome.item)
            if outcome.metric in rmis.MONEY_METRICS:
                self.marked.append((name, outcome.header))
            self.derive.append(parsing.money(self.value(name)).alias(name))
            if outcome.metric in rmis.SHARE_METRICS:
                message = pl.format(
                    f"{outcome.metric} '{{}}' is no share from 0 to 1; say unit: percent where it is one in a hundred",
                    _quoted(outcome.header),
                )
                self.rules.append(Rule("bad_share", outcome.header, ~pl.col(name).is_between(0, 1), message))
            for attribute, column in outcome.columns.items():
                self.derive.append(self._attribute(outcome, attribute, column).alias(f"{name}_{attribute}"))

    def _attribute(self, outcome: BoundOutcome, attribute: str, column: str) -> pl.Expr:
        per_row = getattr(outcome, attribute)
        assert isinstance(per_row, PerRow)  # noqa: S101  # for the type checker
        cell = _cell(column, self.nulls)
        if attribute == "window_days":
            value = cell.str.extract(r"(\d+)", 1).cast(pl.Int16, strict=False)
            if per_row.values:
                table = {key.casefold(): to for key, to in per_row.values.items()}
                listed = cell.str.to_lowercase().replace_strict(table, default=None, return_dtype=pl.Int16)
                value = pl.when(cell.str.to_lowercase().is_in(list(table))).then(listed).otherwise(value)
            return value.fill_null(pl.lit(per_row.default, dtype=pl.Int16))
        value = cell.str.to_lowercase()
        if per_row.values:
            table = {key.casefold(): to for key, to in per_row.values.items()}
            value = (
                pl.when(value.is_in(list(table)))
                .then(value.replace_strict(table, default=None, return_dtype=pl.String))
                .otherwise(value)
            )
        allowed = {"interaction": rmis.INTERACTIONS, "model": rmis.MODELS, "scope": rmis.SCOPES}.get(attribute)
        if allowed:
            wrong = value.is_not_null() & ~value.is_in(list(allowed))
            message = pl.format(
                f"'{{}}' is no {attribute} ({', '.join(allowed)}); say under values what it is", _quoted(column)
            )
            self.rules.append(Rule("unknown_value", column, wrong, message))
        return value.fill_null(pl.lit(per_row.default, dtype=pl.String))

    def products(self) -> None:
        source, header = self.mapping.fields.get("product_id"), self.bound.columns.get("product_id")
        id_type = source.id_type if source else None
        declared = "gtin" if id_type in ("upc", "ean") else id_type
        self.derive.append(pl.lit(declared if header else None, dtype=pl.String).alias("product_id_type"))
        gtin_source, gtin_header = self.mapping.fields.get("gtin14"), self.bound.columns.get("gtin14")
        if gtin_source is None or gtin_header is None:
            gtin_source, gtin_header = (source, header) if id_type in ("gtin", "upc", "ean", "isbn") else (None, None)
        if gtin_source is None or gtin_header is None:
            self.derive.append(pl.lit(None, dtype=pl.String).alias("gtin14"))
            return
        kind = gtin_source.id_type if gtin_source.id_type in ("gtin", "upc", "ean", "isbn") else "gtin"
        call = partial(_examine_known, declared=kind, repair=gtin_source.repair, nulls=self.nulls)
        self.read.append(
            pl.col(gtin_header).map_batches(call, return_dtype=identifiers.RESULT, is_elementwise=True).alias("__gtin")
        )
        field = pl.col("__gtin").struct.field
        self.derive.append(field("gtin14").alias("gtin14"))
        stray = field("reason").is_not_null() & ~field("valid") & ~field("reason").is_in(["empty"])
        dummy = field("reason") == "a placeholder, not a product"
        message = pl.format("'{}': {}", _quoted(gtin_header), field("reason"))
        self.rules.append(Rule("bad_identifier", gtin_header, (stray & ~dummy).fill_null(value=False), message))
        self.warnings += [
            ("placeholder_identifier", dummy),
            ("repaired_identifier", field("repaired")),
            ("restricted_identifier", field("restricted")),
        ]

    def sanity(self) -> None:
        have = set(self.bound.columns)
        if {"clicks", "impressions"} <= have:
            self.warnings.append(("clicks_over_impressions", pl.col("clicks") > pl.col("impressions")))
        if {"viewable_impressions", "impressions"} <= have:
            self.warnings.append(("viewable_over_impressions", pl.col("viewable_impressions") > pl.col("impressions")))
        orders = [f"o{i}" for i, o in enumerate(self.bound.outcomes) if o.metric == "orders"]
        if orders and "clicks" in have:
            self.warnings.append(
                ("orders_over_clicks", pl.any_horizontal([pl.col(name) > pl.col("clicks") for name in orders]))
            )
        for check, header in self.bound.checks:
            if check.from_ and header is None:
                continue
            left: pl.Expr | None
            if header is not None:
                self.number(f"check_{check.name}", header, check)
                left = self.value(f"check_{check.name}").cast(pl.Float64)
            else:
                left = self._expression(str(check.value))
            right = self._expression(check.equals)
            if left is None or right is None:
                continue
            gap = (left - right).abs()
            scale = pl.max_horizontal(left.abs(), right.abs()) if check.relative else pl.lit(1.0)
            off = (gap > check.tolerance * scale + 1e-9) & right.is_finite()
            if check.severity == "warn":
                self.warnings.append((check.name, off))
            else:
                message = pl.format(f"check {check.name}: {{}} against {{}} from {check.equals}", left, right)
                self.rules.append(Rule(check.name, header or check.name, off.fill_null(value=False), message))

    def _expression(self, text: str) -> pl.Expr | None:
        import ast

        names = {o.item.as_: f"o{i}" for i, o in enumerate(self.bound.outcomes) if o.item.as_}
        have = {**{name: name for name in self.bound.columns}, **names}

        def build(node: ast.AST) -> pl.Expr | None:
            if isinstance(node, ast.Expression):
                return build(node.body)
            if isinstance(node, ast.Constant):
                return pl.lit(float(node.value))  # type: ignore[arg-type]
            if isinstance(node, ast.Name):
                return pl.col(have[node.id]).cast(pl.Float64) if node.id in have else None
            if isinstance(node, ast.UnaryOp):
                inner = build(node.operand)
                return None if inner is None else -inner
            assert isinstance(node, ast.BinOp)  # noqa: S101  # checked when the mapping was read
            left, right = build(node.left), build(node.right)
            if left is None or right is None:
                return None
            match node.op:
                case ast.Add():
                    return left + right
                case ast.Sub():
                    return left - right
                case ast.Mult():
                    return left * right
                case _:
                    return left / right

        return build(ast.parse(text, mode="eval"))

    # -- assembly

    def frames(self) -> Planned:
        if self.feed.ragged:
            wide = pl.col(OVERFLOW).fill_null("") != ""
            self.rules.append(Rule("row_width", "", wide, pl.lit("more cells than the header has columns")))
            if len(self.short):
                thin = pl.col(ROW).is_in(self.short.to_list())
                self.rules.append(Rule("row_width", "", thin, pl.lit("fewer cells than the header has columns")))
        self.period()
        self.stamp()
        self.hour()
        self.numbers()
        self.outcomes()
        self.texts()
        self.currency()
        self.products()
        self.sanity()
        frame = drop_what_is_no_data(self.feed, self.bound)
        at_once = [reading.plain(cell).alias(f"{AT_ONCE}{name}") for name, (cell, reading) in self.cells.items()]
        frame = frame.with_columns(pl.struct(self.feed.headers).alias(RAW), *self.read, *at_once)
        if self.cells:
            frame = frame.with_columns(self._second_look())
        frame = frame.with_columns(self.derive)
        refused = pl.any_horizontal([pl.lit(value=False), *[rule.when for rule in self.rules]]).fill_null(value=False)
        mask = pl.sum_horizontal(
            [
                pl.when(when.fill_null(value=False))
                .then(pl.lit(1 << bit, dtype=pl.Int64))
                .otherwise(pl.lit(0, dtype=pl.Int64))
                for bit, (_, when) in enumerate(self.warnings)
            ]
            or [pl.lit(0, dtype=pl.Int64)]
        )
        key = self.mapping.key_fields
        constants = {name: pl.lit(self.same[name]) for name in ("network", "grain")}
        # each sink would read the file anew: what all need is made once
        frame = frame.with_columns(refused.alias(REFUSED), mask.alias(MASK), **constants).cache()
        canonical = pl.struct(key).map_batches(canonical_json, return_dtype=pl.String, is_elementwise=True)
        names = [f"o{number}" for number in range(len(self.bound.outcomes))]
        extra = [f"o{n}_{attribute}" for n, o in enumerate(self.bound.outcomes) for attribute in o.columns]
        values = [*rmis.COUNT_FIELDS, *rmis.MONEY_FIELDS, "gtin14", "product_id_type", "time_zone"]
        values += [name for name in rmis.TEXT_FIELDS if name not in key and name not in values]
        values = [name for name in values if name in self.bound.columns or name in ("gtin14",)]
        told = [pl.col(name).cast(pl.String).fill_null("\u2205") for name in (*values, *names, *extra)]
        suspect = pl.col(RAW).struct.field(self.feed.headers[-1]).fill_null("") == ""
        suspect = suspect & pl.lit(self.feed.ragged and not len(self.short))
        signature = ",".join([*values, *[self._signature(outcome) for outcome in self.bound.outcomes]])
        accepted = frame.filter(~pl.col(REFUSED)).with_columns(row_key=sha256_hex(canonical)).cache()
        hashed = blake3_hex(pl.format("{}\x1e" + "\x1f".join("{}" for _ in told), pl.lit(signature), *told))
        if self.mapping.on_duplicate in ("sum", "merge"):
            # rows alike in every cell are one row delivered twice; alike only in what is mapped they are two
            accepted = accepted.with_columns(__twin__=pl.col(RAW).struct.json_encode().hash())
        return Planned(
            metrics=self._metrics(accepted.with_columns(row_hash=hashed)),
            outcomes=long_outcomes(accepted, self.bound),
            quarantine=self._quarantine(frame),
            suspects=frame.select(suspect.sum()),
            sums=accepted.group_by("currency").agg(pl.col(names).sum(), pl.col(names).count().name.suffix("_count")),
            bound=self.bound,
            warning_names=tuple(name for name, _ in self.warnings),
        )

    @staticmethod
    def _signature(outcome: BoundOutcome) -> str:
        return "/".join(str(getattr(outcome, name)) if name not in outcome.columns else "*" for name in rmis.ATTRIBUTES)

    def _metrics(self, accepted: pl.LazyFrame) -> pl.LazyFrame:
        names = [name for name, _ in self.warnings]
        label = pl.col(MASK).map_batches(partial(_mask_names, names=names), return_dtype=pl.String, is_elementwise=True)
        same = {**self.same, "file_sha256": self.feed.sha256, "mapping_version": self.mapping.version_text}
        own = {
            "currency": code_of("currency"),
            "row_number": pl.col(ROW),
            "warnings": label if names else pl.lit(None, dtype=pl.String),
            # as an enum a text costs the writer nothing
            **{name: pl.lit(text, dtype=pl.Enum([text])) for name, text in same.items()},
        }
        columns = [
            (own[name] if name in own else pl.col(name).cast(kind)).alias(name)
            for name, kind in rmis.METRICS_SCHEMA.items()
        ]
        twin = [pl.col("__twin__")] if self.mapping.on_duplicate in ("sum", "merge") else []
        return accepted.select(columns + twin)

    def stamp(self) -> None:
        """When each row was taken: its own column where the mapping names one, else the file's instant."""
        source, header = self.mapping.fields.get("extracted_at"), self.bound.columns.get("extracted_at")
        instant: pl.Expr = pl.lit(self.context.extracted_at.astimezone(UTC), dtype=pl.Datetime("us", "UTC"))
        if source is not None and header is not None and not self.context.as_of_given:
            self._instant("stamp", header, source.model_copy(update={"zone": source.zone or "UTC"}), "UTC")
            instant = pl.coalesce(self.value("stamp").dt.replace_time_zone("UTC"), instant)
        self.derive.append(instant.alias("extracted_at"))

    def _quarantine(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """What is refused, with the first rule that refuses it: asked of these few rows alone."""
        message: pl.Expr = pl.lit(None, dtype=pl.String)
        column: pl.Expr = pl.lit(None, dtype=pl.String)
        rule_name: pl.Expr = pl.lit(None, dtype=pl.String)
        for number, rule in reversed(list(enumerate(self.rules))):
            here = pl.col(CODE) == number
            message = pl.when(here).then(rule.message).otherwise(message)
            column = pl.when(here).then(pl.lit(rule.column)).otherwise(column)
            rule_name = pl.when(here).then(pl.lit(rule.name)).otherwise(rule_name)
        grounds: list[pl.Expr] = [
            pl.when(rule.when).then(pl.lit(number, dtype=pl.Int16)) for number, rule in enumerate(self.rules)
        ]
        code = pl.coalesce(grounds or [pl.lit(None, dtype=pl.Int16)]).alias(CODE)
        return (frame.filter(REFUSED).with_columns(code)).select(
            pl.lit(self.feed.sha256).alias("file_sha256"),
            pl.col(ROW).alias("row_number"),
            column.alias("column"),
            rule_name.alias("rule"),
            message.alias("message"),
            pl.col(RAW).struct.json_encode().alias("raw"),
            pl.lit(self.mapping.version_text).alias("mapping_version"),
        )


def _read_again(left: pl.Series, readings: dict[str, parsing.Reading], nothing: pl.Series) -> pl.Series:
    """The cells of each column that did not read at once; mostly there are none."""
    columns = left.struct.unnest()
    size = len(left)
    if all(columns[name].null_count() == size for name in readings):
        return nothing.clear(size)
    found = [
        nothing.struct.field(name).clear(size) if columns[name].null_count() == size else reading.rest(columns[name])
        for name, reading in readings.items()
    ]
    return pl.DataFrame(found).to_struct(left.name)


def _contradicts(pairs: pl.Series) -> pl.Series:
    """Whether a sign beside a money cell does not belong to the currency; mostly there is no sign at all."""
    mark = pairs.struct.field("mark")
    if mark.null_count() == len(mark):
        return mark.is_not_null()
    both = mark + "|" + pairs.struct.field("currency").fill_null("?")
    return mark.is_not_null() & ~both.is_in(sorted(rmis.MARKS)).fill_null(value=False)


def _examine_known(codes: pl.Series, declared: identifiers.Declared, repair: bool, nulls: tuple[str, ...]) -> pl.Series:
    trimmed = codes.str.strip_chars()
    known = pl.select(pl.when(~pl.lit(trimmed).is_in(list(nulls))).then(pl.lit(trimmed))).to_series().alias(codes.name)
    return identifiers.examine(known, declared, repair)


def _mask_names(masks: pl.Series, names: list[str]) -> pl.Series:
    found = masks.unique().to_list()
    if found == [0]:
        return pl.Series(masks.name, [], dtype=pl.String).clear(len(masks))
    table = {mask: ",".join(name for bit, name in enumerate(names) if mask >> bit & 1) or None for mask in found}
    return masks.replace_strict(table, return_dtype=pl.String)


def drop_what_is_no_data(feed: Feed, bound: Bound) -> pl.LazyFrame:
    """The feed's rows without blank lines and the rows the mapping calls no data (totals, notes)."""
    blank = pl.all_horizontal([pl.col(name).fill_null("") == "" for name in feed.headers])
    if feed.ragged:
        blank = blank & (pl.col(OVERFLOW).fill_null("") == "")
    frame = feed.frame.filter(~blank)
    for skip, header in bound.skips:
        frame = frame.filter(~pl.col(header).fill_null("").str.contains(f"(?i){skip.matches}"))
    return frame


def long_outcomes(accepted: pl.LazyFrame, bound: Bound) -> pl.LazyFrame:
    """One row per outcome that has a value, with its attributes."""
    if not bound.outcomes:
        none = [
            pl.lit(None, dtype=kind).alias(name) for name, kind in rmis.OUTCOMES_SCHEMA.items() if name != "row_key"
        ]
        return accepted.filter(pl.lit(value=False)).select("row_key", *none).select(list(rmis.OUTCOMES_SCHEMA))
    names = [f"o{number}" for number in range(len(bound.outcomes))]
    extra = [f"o{n}_{attribute}" for n, o in enumerate(bound.outcomes) for attribute in o.columns]
    slim = accepted.select("row_key", code_of("currency"), pl.col(ROW).alias("row_number"), *names, *extra)
    fixed = _fixed(bound.outcomes)
    schema = {**rmis.OUTCOMES_SCHEMA, "currency": CODES, **{name: parts[0].dtype for name, parts in fixed.items()}}
    return slim.map_batches(partial(_stretch, outcomes=bound.outcomes, fixed=fixed), schema=schema, streamable=True)


def _fixed(outcomes: tuple[BoundOutcome, ...]) -> dict[str, list[pl.Series]]:
    """The attributes that no cell states: the value of each outcome, text as an enum, which costs the writer nothing."""
    found = {}
    for name in rmis.ATTRIBUTES:
        if any(name in outcome.columns for outcome in outcomes):
            continue
        values = [getattr(outcome, name) for outcome in outcomes]
        kind = rmis.OUTCOMES_SCHEMA[name]
        if kind == pl.String:
            kind = pl.Enum(sorted({value for value in values if value is not None}))
        found[name] = [pl.Series(name, [value], dtype=kind) for value in values]
    return found


def _stretch(wide: pl.DataFrame, outcomes: tuple[BoundOutcome, ...], fixed: dict[str, list[pl.Series]]) -> pl.DataFrame:
    parts: dict[str, list[pl.Series]] = {name: [] for name in rmis.OUTCOMES_SCHEMA}
    for number, outcome in enumerate(outcomes):
        value = wide.get_column(f"o{number}")
        rows = wide.filter(value.is_not_null()) if value.null_count() else wide
        size = len(rows)
        for name in rmis.ATTRIBUTES:
            kind = rmis.OUTCOMES_SCHEMA[name]
            if name in fixed:
                column = fixed[name][number].new_from_index(0, size)
            elif name in outcome.columns:
                column = rows.get_column(f"o{number}_{name}").cast(kind)
            else:
                column = pl.Series([getattr(outcome, name)], dtype=kind).new_from_index(0, size)
            parts[name].append(column)
        parts["row_key"].append(rows.get_column("row_key"))
        parts["value"].append(rows.get_column(f"o{number}"))
        code = rows.get_column("currency")
        parts["currency"].append(code if outcome.metric in rmis.MONEY_METRICS else code.clear(size))
        parts["row_number"].append(rows.get_column("row_number"))
    return pl.DataFrame([pl.concat(columns).alias(name) for name, columns in parts.items()])


def plan(feed: Feed, bound: Bound, context: Context, short: pl.Series | None = None) -> Planned:
    """The lazy frames of one feed: what is accepted, its outcomes, and what is kept apart and why.

    Args:
        feed: the file as text columns.
        bound: the mapping tied to the feed's headers.
        context: extract time, period, retailer.
        short: numbers of records with too few cells (``Planned.suspects`` says whether to look for them).

    Raises:
        BadInput: a value the mapping takes from title lines, file name or header is not there.
    """
    return _Planner(feed, bound, context, short if short is not None else pl.Series([], dtype=pl.Int64)).frames()


def extracted_at(feed: Feed, mapping: MappingFile, as_of: datetime | None) -> datetime:
    """When the numbers were taken: what the caller says, else the file's own statement, else its date."""
    if as_of is not None:
        return as_of
    source = mapping.fields.get("extracted_at")
    if source is None:
        return feed.modified_at
    zone = source.zone or "UTC"
    if source.from_:
        return feed.modified_at  # a column: run() takes the newest
    text = source.constant
    if source.preamble:
        match = re.search(source.preamble, "\n".join(feed.preamble), re.IGNORECASE | re.MULTILINE)
        text = match.group(1) if match else None
    elif source.file_name:
        match = re.search(source.file_name, feed.name)
        text = match.group(1) if match else None
    if text is None:
        if source.default is None:
            raise BadInput(
                f"{feed.name}: fields.extracted_at: the file does not state it where the mapping says; give --as-of"
            )
        text = source.default
    found = parsing.instants(pl.Series([text]), source.format, "UTC", zone).struct.field("value")[0]
    if found is None:
        raise BadInput(f"{feed.name}: fields.extracted_at: {text!r} does not fit {' or '.join(source.format)}")
    return found.replace(tzinfo=UTC)


def stamp_from_column(feed: Feed, bound: Bound, default: datetime) -> datetime:
    """The newest extract time a column states, for mappings that take it from one."""
    source, header = bound.mapping.fields["extracted_at"], bound.columns.get("extracted_at")
    if header is None:
        return default
    call = partial(
        parsing.instants,
        formats=source.format,
        zone="UTC",
        source_zone=source.zone or "UTC",
        nulls=bound.mapping.dialect.nulls,
    )
    kind = pl.Struct({"value": pl.Datetime("us"), "bad": pl.Boolean})
    newest = (
        feed.frame.select(
            pl.col(header).map_batches(call, return_dtype=kind, is_elementwise=True).struct.field("value").max()
        )
        .collect(engine="streaming")
        .item()
    )
    return newest.replace(tzinfo=UTC) if newest is not None else default


# -- the run


def run(
    feed: Feed,
    mapping: MappingFile,
    out: Path,
    *,
    as_of: datetime | None = None,
    period: tuple[date, date] | None = None,
    retailer: str | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Harmonize a feed into ``out``: metrics, outcomes, quarantine as Parquet, and the report.

    The files appear together at the end or not at all.

    Raises:
        BadInput: a required column is missing or a stated value cannot be found.
        FeedRefused: so many rows are rejected that the file or the mapping must be wrong.
    """
    if name:  # a stored file is named by its digest; people know it by the name it came with
        feed = replace(feed, name=name)
    bound = bind(mapping, feed.headers, feed.name)
    stamp = extracted_at(feed, mapping, as_of)
    if as_of is None and "extracted_at" in bound.columns:
        stamp = stamp_from_column(feed, bound, stamp)
    context = Context(stamp, period, retailer, as_of is not None)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".rmn-", dir=out) as folder:
        work = Path(folder)
        try:
            planned = plan(feed, bound, context)
            suspects, sums = _write(planned, work)
            if suspects and len(short := feed.short_rows()):
                planned = plan(feed, bound, context, short)
                _, sums = _write(planned, work)
            merged, dropped = _settle_duplicates(work, mapping, feed)
            outcomes = None if dropped else _from_sums(sums, bound)
            report = summarize(work, feed, planned, context, merged, outcomes)
        except pl.exceptions.PolarsError as error:
            line = str(error).strip().splitlines()[0][:200]
            hint = (
                "an unclosed quote or a row that breaks the table; open it in an editor"
                if "CSV" in line or "parse" in line
                else "see docs/mapping.md"
            )
            raise FeedRefused(f"{feed.name}: cannot be read as a table: {line}: {hint}") from None
        _stop_if_wrong(report, mapping, feed, work)
        (work / "report.json").write_text(
            json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
        )
        for name in ("metrics.parquet", "outcomes.parquet", "quarantine.parquet", "report.json"):
            os.replace(work / name, out / name)
    return report


def _write(planned: Planned, work: Path) -> tuple[bool, pl.DataFrame]:
    """One pass over the file feeds all sinks.

    Returns whether a row may have too few cells (its last one is empty), and the sums of the outcomes.
    """
    options: dict[str, Any] = {"lazy": True, "compression": "zstd", "compression_level": 1, "statistics": False}
    sinks = [
        planned.metrics.sink_parquet(work / "metrics.parquet", **options, metadata=_as_text(rmis.METRICS_SCHEMA)),
        planned.outcomes.sink_parquet(work / "outcomes.parquet", **options, metadata=_as_text(rmis.OUTCOMES_SCHEMA)),
        planned.quarantine.sink_parquet(work / "quarantine.parquet", **options),
    ]
    frames = [*[sink for sink in sinks if sink is not None], planned.suspects, planned.sums]
    *_, suspects, sums = pl.collect_all(frames, engine="streaming")
    return bool(suspects.item()), sums


def _as_text(schema: dict[str, Any]) -> dict[str, str]:
    """Metadata under which readers see a column of text where the writer was given an enum: the bytes are the same."""
    empty = io.BytesIO()
    pl.DataFrame(schema=schema).write_parquet(empty)
    empty.seek(0)
    return {ARROW: pl.read_parquet_metadata(empty)[ARROW]}


def _settle_duplicates(work: Path, mapping: MappingFile, feed: Feed) -> tuple[int, bool]:
    """Identical rows: the first stays. One key with other values: by the mapping's on_duplicate.

    Returns how many rows went up in others (sum, merge), and whether any row was dropped or joined.
    """
    metrics = pl.scan_parquet(work / "metrics.parquet")
    # sorted in place: a table of all keys would take ten times the memory
    hashes = metrics.select(pl.col("row_key").hash()).collect(engine="streaming").to_series().to_numpy(writable=True)
    hashes.sort()
    collided = pl.Series(hashes[1:][hashes[1:] == hashes[:-1]]).unique()
    del hashes
    policy = mapping.on_duplicate
    if collided.is_empty():
        if policy in ("sum", "merge"):
            _replace(work / "metrics.parquet", metrics.drop("__twin__"))
        return 0, False
    keys = (
        metrics.select("row_key")
        .filter(pl.col("row_key").hash().is_in(collided.implode()))
        .collect(engine="streaming")
        .to_series()
        .unique()
    )
    identity = "__twin__" if policy in ("sum", "merge") else "row_hash"
    candidates = (
        metrics.select("row_key", identity, "row_number", "extracted_at")
        .filter(pl.col("row_key").is_in(keys.implode()))
        .collect(engine="streaming")
    )
    first = pl.col("row_number") == pl.col("row_number").min().over("row_key", identity)
    twins = candidates.filter(~first)
    drop: list[pl.DataFrame] = [
        twins.select(
            "row_number", rule=pl.lit("duplicate_row"), message=pl.lit("the same row stands earlier in the file")
        )
    ]
    left = candidates.filter(first)
    if policy == "reject":
        other = left.filter(pl.col("row_number") != pl.col("row_number").min().over("row_key"))
        drop.append(
            other.select(
                "row_number",
                rule=pl.lit("duplicate_key"),
                message=pl.lit(
                    "an earlier row has the same key and other values; is a dimension missing from the mapping's key?"
                ),
            )
        )
    elif policy == "last":
        newest = pl.col("row_number").sort_by("extracted_at", "row_number").last().over("row_key")
        other = left.filter(pl.col("row_number") != newest)
        drop.append(
            other.select(
                "row_number",
                rule=pl.lit("superseded"),
                message=pl.lit("a later row restates this key (on_duplicate: last)"),
            )
        )
    elif policy == "merge":
        drop.append(_merge_conflicts(metrics, work))
    dropped = pl.concat(drop)
    _move_to_quarantine(work, dropped, mapping, feed)
    if policy in ("sum", "merge"):
        before = pl.scan_parquet(work / "metrics.parquet").select(pl.len()).collect().item()
        _sum_or_merge(work, policy)
        after = pl.scan_parquet(work / "metrics.parquet").select(pl.len()).collect().item()
        return int(before - after), True
    return 0, True


def _merge_conflicts(metrics: pl.LazyFrame, work: Path) -> pl.DataFrame:
    """Rows of one key that differ in spend, clicks or impressions, or repeat an outcome with another value."""
    base = [*rmis.COUNT_FIELDS, *rmis.MONEY_FIELDS]
    same = pl.all_horizontal(
        [pl.col(n).eq_missing(pl.col(n).first().over("row_key", order_by="row_number")) for n in base]
    )
    message = "an earlier row of the same key has other impressions, clicks or spend; they cannot be merged"
    clash = metrics.filter(~same).select("row_number").collect()
    outcomes = pl.scan_parquet(work / "outcomes.parquet")
    keys = ["row_key", *rmis.ATTRIBUTES]
    again = (
        outcomes.filter(pl.col("value") != pl.col("value").first().over(keys, order_by="row_number"))
        .select("row_number")
        .unique()
        .collect()
    )
    rows = pl.concat([clash, again]).unique()
    return rows.select("row_number", rule=pl.lit("duplicate_key"), message=pl.lit(message))


def _move_to_quarantine(work: Path, dropped: pl.DataFrame, mapping: MappingFile, feed: Feed) -> None:
    if dropped.is_empty():
        return
    dropped = dropped.unique("row_number", keep="first").with_columns(pl.col("row_number").cast(pl.Int64))
    numbers = dropped.lazy().select("row_number")
    raw = (
        feed.frame.with_columns(pl.struct(feed.headers).alias(RAW))
        .select(pl.col(ROW).alias("row_number"), RAW)
        .join(dropped.lazy(), on="row_number", how="inner")
        .select(
            pl.lit(feed.sha256).alias("file_sha256"),
            "row_number",
            pl.lit("").alias("column"),
            "rule",
            "message",
            pl.col(RAW).struct.json_encode().alias("raw"),
            pl.lit(mapping.version_text).alias("mapping_version"),
        )
    )
    old = pl.scan_parquet(work / "quarantine.parquet")
    _replace(work / "quarantine.parquet", pl.concat([old, raw]))
    for name in ("metrics.parquet", "outcomes.parquet"):
        _replace(
            work / name, pl.scan_parquet(work / name).join(numbers, on="row_number", how="anti", maintain_order="left")
        )


def _replace(path: Path, frame: pl.LazyFrame) -> None:
    part = path.with_suffix(".part")
    frame.sink_parquet(part, compression="zstd", compression_level=1)
    os.replace(part, path)


def _sum_or_merge(work: Path, policy: str) -> None:
    """One row per key: sums of what was counted apart, or the one set of counts with all outcomes."""
    path = work / "metrics.parquet"
    metrics = pl.scan_parquet(path).drop("__twin__")
    numbers = [*rmis.COUNT_FIELDS, *rmis.MONEY_FIELDS]
    rest = [name for name in rmis.METRICS_SCHEMA if name not in ("row_key", "row_hash", *numbers)]
    total: Callable[[pl.Expr], pl.Expr] = (
        (lambda e: pl.when(e.count() > 0).then(e.sum())) if policy == "sum" else (lambda e: e.first())
    )
    merged = metrics.group_by("row_key", maintain_order=True).agg(
        pl.col("row_hash").sort().str.join("|").alias("row_hash"),
        *[pl.col(n).first() for n in rest],
        *[total(pl.col(n)).alias(n) for n in numbers],
    )
    several = pl.col("row_hash").str.contains("|", literal=True)
    merged = merged.with_columns(row_hash=pl.when(several).then(blake3_hex(pl.col("row_hash"))).otherwise("row_hash"))
    _replace(path, merged.select([pl.col(name).cast(kind) for name, kind in rmis.METRICS_SCHEMA.items()]))
    outcomes = pl.scan_parquet(work / "outcomes.parquet")
    keys = ["row_key", *rmis.ATTRIBUTES, "currency"]
    value = pl.col("value").sum() if policy == "sum" else pl.col("value").first()
    joined = outcomes.group_by(keys, maintain_order=True).agg(value, pl.col("row_number").min())
    _replace(
        work / "outcomes.parquet",
        joined.select([pl.col(name).cast(kind) for name, kind in rmis.OUTCOMES_SCHEMA.items()]),
    )


# -- the report


def text_of(value: Decimal | int | None) -> str | None:
    """Money as a decimal string, at least two places, no trailing zeros beyond."""
    if value is None:
        return None
    whole, _, part = f"{value:f}".partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def summarize(
    work: Path,
    feed: Feed,
    planned: Planned,
    context: Context,
    merged: int = 0,
    outcomes: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Control totals, reasons and drift of what was written to ``work``; outcome totals where they are known already."""
    mapping, bound = planned.bound.mapping, planned.bound
    metrics = pl.scan_parquet(work / "metrics.parquet")
    final_before = context.extracted_at.date() - timedelta(days=mapping.restated_days)
    by_currency = (
        metrics.group_by("currency")
        .agg(
            pl.len().alias("rows"),
            *[
                pl.when(pl.col(n).count() > 0).then(pl.col(n).sum()).alias(n)
                for n in (*rmis.COUNT_FIELDS, *rmis.MONEY_FIELDS)
            ],
            pl.col("period_start").min(),
            pl.col("period_end").max(),
            (pl.col("period_end") > final_before).sum().alias("young"),
        )
        .sort("currency")
        .collect(engine="streaming")
        .to_dicts()
    )
    accepted = sum(row["rows"] for row in by_currency)
    reasons = _counted(pl.scan_parquet(work / "quarantine.parquet"), "rule")
    quarantined = sum(reasons.values())
    flagged = _counted(metrics.filter(pl.col("warnings").is_not_null()), "warnings")
    warnings: dict[str, int] = {}
    for names, count in flagged.items():
        for name in names.split(","):
            warnings[name] = warnings.get(name, 0) + count
    codes = [row["currency"] for row in by_currency]
    one = len(codes) == 1
    starts = [row["period_start"] for row in by_currency if row["period_start"]]
    ends = [row["period_end"] for row in by_currency if row["period_end"]]

    def total(name: str) -> int | None:
        found = [row[name] for row in by_currency if row[name] is not None]
        return sum(found) if found else None

    return {
        "file": feed.name,
        "file_sha256": feed.sha256,
        "mapping_version": mapping.version_text,
        "extracted_at": context.extracted_at.astimezone(UTC).isoformat(),
        "rows_read": accepted + quarantined + merged,
        "rows_accepted": accepted + merged,
        "rows_quarantined": quarantined,
        "rows_warned": sum(flagged.values()),
        "currency": codes[0] if one else None,
        "grain": mapping.grain,
        "period": [str(min(starts)) if starts else None, str(max(ends)) if ends else None],
        "totals": {
            "impressions": total("impressions"),
            "clicks": total("clicks"),
            "spend": text_of(by_currency[0]["spend"]) if one else None,
        },
        "totals_by_currency": {
            row["currency"] or "": {
                "rows": row["rows"],
                "impressions": row["impressions"],
                "clicks": row["clicks"],
                "spend": text_of(row["spend"]),
            }
            for row in by_currency
        },
        "outcomes": _outcome_totals(work) if outcomes is None else outcomes,
        "reasons": reasons,
        "warnings": warnings,
        "not_final": {"rows": sum(row["young"] for row in by_currency), "restated_days": mapping.restated_days},
        "drift": {
            "new": list(bound.new),
            "missing": list(bound.missing),
            "renamed": [{"from": old, "to": new} for old, new in bound.renamed],
        },
        "read": feed.details,
        "load": {"inserted": 0, "unchanged": 0, "restated": 0},
    }


def _counted(frame: pl.LazyFrame, column: str) -> dict[str, int]:
    counted = frame.group_by(column).len().sort(column).collect(engine="streaming")
    return {str(name): int(count) for name, count in counted.rows()}


def _from_sums(sums: pl.DataFrame, bound: Bound) -> list[dict[str, Any]] | None:
    """The totals of ``_outcome_totals`` from the sums of the pass, where no cell states what an outcome is."""
    if any(outcome.columns or outcome.metric in rmis.LEVEL_METRICS for outcome in bound.outcomes):
        return None
    totals: dict[tuple[Any, ...], Decimal] = {}
    for row in sums.to_dicts():
        for number, outcome in enumerate(bound.outcomes):
            if row[f"o{number}_count"]:
                currency = row["currency"] if outcome.metric in rmis.MONEY_METRICS else None
                kind = (*[getattr(outcome, name) for name in rmis.ATTRIBUTES], currency)
                totals[kind] = totals.get(kind, Decimal(0)) + row[f"o{number}"]
    keys = [*rmis.ATTRIBUTES, "currency"]
    ordered = sorted(totals, key=lambda kind: [(part is None, part) for part in kind])
    return [{**dict(zip(keys, kind, strict=True)), "value": text_of(totals[kind])} for kind in ordered]


def _outcome_totals(work: Path) -> list[dict[str, Any]]:
    keys = [*rmis.ATTRIBUTES, "currency"]
    sums = (
        pl.scan_parquet(work / "outcomes.parquet")
        .group_by(keys)
        .agg(
            pl.when(pl.col("metric").first().is_in(list(rmis.LEVEL_METRICS)))
            .then(pl.col("value").mean().cast(rmis.MONEY))
            .otherwise(pl.col("value").sum())
        )
        .sort(keys, nulls_last=True)
        .collect(engine="streaming")
    )
    return [{**row, "value": text_of(row["value"])} for row in sums.to_dicts()]


def _stop_if_wrong(report: dict[str, Any], mapping: MappingFile, feed: Feed, work: Path) -> None:
    read, rejected = report["rows_read"], report["rows_quarantined"]
    if not read:
        raise FeedRefused(f"{feed.name}: no data rows below the header; ask the network for the report again")
    limit = mapping.limits.reject_share if read >= mapping.limits.min_rows else 1.0
    if rejected < read and rejected <= limit * read:
        return
    worst = max(report["reasons"], key=lambda rule: report["reasons"][rule])
    example = (
        pl.read_parquet(work / "quarantine.parquet")
        .filter(pl.col("rule") == worst)
        .sort("row_number")
        .row(0, named=True)
    )
    raise FeedRefused(
        f"{feed.name}: {rejected} of {read} rows rejected, {report['reasons'][worst]} by {worst}, first in row {example['row_number']}"
        f" column {example['column']!r}: {example['message']}; nothing was written: correct the file or the mapping {mapping.mapping}"
    )


def preview(feed: Feed, out: Path, rows: int = 5) -> list[dict[str, Any]]:
    """Sample rows before and after, by row number, from a finished run in ``out``."""
    after = pl.scan_parquet(out / "metrics.parquet").head(rows).collect()
    numbers = after["row_number"].to_list()
    before = feed.frame.filter(pl.col(ROW).is_in(numbers)).select(ROW, *feed.headers).collect()
    raw = {row[ROW]: {k: v for k, v in row.items() if k != ROW} for row in before.to_dicts()}
    outcomes = pl.scan_parquet(out / "outcomes.parquet").filter(pl.col("row_number").is_in(numbers)).collect()
    shown = []
    for row in after.to_dicts():
        values = [
            {**{k: o[k] for k in rmis.ATTRIBUTES}, "value": text_of(o["value"])}
            for o in outcomes.filter(pl.col("row_number") == row["row_number"]).to_dicts()
        ]
        slim = {
            k: (text_of(v) if isinstance(v, Decimal) else v)
            for k, v in row.items()
            if v is not None and k not in ("row_hash", "file_sha256")
        }
        shown.append(
            {
                "row_number": row["row_number"],
                "before": raw.get(row["row_number"], {}),
                "after": {**slim, "outcomes": values},
            }
        )
    return shown

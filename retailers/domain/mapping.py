"""The mapping language: how one report of one network is read as RMIS.

A mapping is a YAML file (``docs/mapping.md`` teaches it). Here it is checked into frozen models,
linted for what a schema cannot say, and bound to the headers that a file really has.
"""

from __future__ import annotations

import ast
import difflib
import fnmatch
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator, model_validator
from pydantic import Field as Item

from retailers.domain import parsing, rmis
from rmn.lib.errors import BadInput

SHIPPED = Path(__file__).resolve().parent.parent / "mappings"
MAX_MAPPING_BYTES = 1_000_000
NAME = re.compile(r"^[a-z0-9][a-z0-9_]*/[a-z0-9][a-z0-9_]*$")
FILL_IN = "FILL-IN"  # what infer_mapping writes where a person must decide

_ISO_CODES = "|".join(sorted(rmis.CURRENCIES))
_BRACKETED_MONEY = re.compile(
    rf"[(\[]\s*(?:{_ISO_CODES}|[^\w\s()\[\]%#]{{1,3}}|Rs\.?|kr\.?|zł|Rp|RM|R\$|[A-Z]{{1,2}}\$)\s*[)\]]"
)


_UNACCENTED = str.maketrans("łøđħı", "lodhi")  # letters that Unicode does not take apart


def normalise(header: str) -> str:
    """A header's comparable form: no case, accents, spaces, signs, nor a currency in brackets.

    'Campaign ID', 'campaign_id' and 'campaignId' are one; so are 'Spend (EUR)' and 'spend'. Dots stay,
    since they are the path in a nested record.
    """
    plain = unicodedata.normalize("NFKD", _BRACKETED_MONEY.sub("", header))
    # accents of Latin, Greek and Cyrillic go; the marks of other scripts make other letters
    plain = unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", plain)).casefold().translate(_UNACCENTED)
    return re.sub(r"[^\w.]+|_+", "", plain).strip(".")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int | float) else value


def _texts(value: Any) -> Any:
    """YAML reads 00123 and yes as other things than text; keep what a person meant where we can."""
    if isinstance(value, bool):
        raise ValueError("is read by YAML as true or false; put it in quotes")
    return str(value) if isinstance(value, int | float | Decimal) else value


Text = Annotated[str, BeforeValidator(_texts)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_listed)]


def _unit(value: Any) -> Any:
    if value is None:
        return Decimal(1)
    if isinstance(value, str) and value.strip().lower() in parsing.UNITS:
        return parsing.UNITS[value.strip().lower()]
    try:
        unit = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is no unit; use a number such as 0.00001 or {', '.join(parsing.UNITS)}") from None
    if not unit.is_finite() or unit <= 0:
        raise ValueError(f"{value!r}: a unit is a positive number")
    return unit


Unit = Annotated[Decimal, BeforeValidator(_unit)]


def _regex(value: Any) -> Any:
    if value is None:
        return value
    try:
        re.compile(str(value))
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    return str(value)


Regex = Annotated[str, BeforeValidator(_regex)]


def _cell_regex(value: Any) -> Any:
    """A pattern that runs over cells by the million: no look-around, no back-references."""
    if value is not None:
        try:
            pl.select(pl.lit("").str.contains(str(_regex(value))))
        except pl.exceptions.ComputeError:
            raise ValueError(f"{value!r}: look-around and back-references do not work on cells") from None
    return value


CellRegex = Annotated[str, BeforeValidator(_cell_regex)]


class Dialect(Strict):
    """How the file is written. Everything has a default that is found out from the file."""

    format: Literal["auto", "csv", "tsv", "json", "ndjson", "xlsx", "parquet"] = "auto"
    delimiter: str | None = None
    quote: str | None = '"'
    encoding: str = "utf-8"
    header: Literal["auto", "none"] | int | str = "auto"
    names: tuple[Text, ...] = ()
    sheet: Text | None = None
    member: Text | None = None
    decimal: Literal[".", ","] = "."
    group: str | None = None
    nulls: tuple[Text, ...] = (
        "",
        "-",
        "--",
        "—",
        "–",
        "n/a",
        "N/A",
        "NA",
        "na",
        "null",
        "NULL",
        "None",
        "none",
        "NaN",
        "nan",
    )
    records: Text | None = None
    columns: Text | None = None
    rows: Text | None = None

    @field_validator("delimiter")
    @classmethod
    def _one_sign(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}.get(value, value)
        if len(value) != 1 or not value.isascii() or value in '"\r\n':
            raise ValueError("a delimiter is one ASCII character, or tab, comma, semicolon, pipe")
        return value

    @model_validator(mode="after")
    def _not_both(self) -> Dialect:
        if self.group is not None and self.decimal in self.group:
            raise ValueError(f"decimal and group are both {self.decimal!r}")
        if self.header == "none" and not self.names:
            raise ValueError("header none: list the names of the columns, in order, under names")
        if isinstance(self.header, str) and self.header not in ("auto", "none"):
            _regex(self.header)
        if (self.columns is None) != (self.rows is None):
            raise ValueError("columns and rows go together: the path of the names and the path of the arrays")
        return self

    @property
    def groups(self) -> str:
        """Characters that may separate groups of digits."""
        if self.group is not None:
            return {"space": " ", "none": ""}.get(self.group, self.group)
        return ", '’" if self.decimal == "." else ". '’"


class Lookup(Strict):
    by: str
    values: dict[Text, Text]


class Source(Strict):
    """Where a field's value comes from, and how it is read."""

    from_: Names = Item(default=(), alias="from")
    constant: Text | None = None
    preamble: Regex | None = None
    file_name: Regex | None = None
    header: Regex | None = None
    of: Text | None = None
    symbol_of: Text | None = None
    lookup: Lookup | None = None
    default: Text | None = None
    values: dict[Text, Text | None] | None = None
    others: Literal["keep", "reject", "null"] = "keep"
    pattern: CellRegex | None = None
    case: Literal["lower", "upper"] | None = None
    format: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("iso",)
    zone: str | None = None
    unit: Unit = Decimal(1)
    decimal: Literal[".", ","] | None = None
    group: str | None = None
    id_type: rmis.ProductIdType | Literal["upc", "ean"] | None = None
    repair: bool = False
    required: bool = False
    exclusive: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Source:
        origins = [
            name
            for name in ("from_", "constant", "preamble", "file_name", "header", "symbol_of", "lookup")
            if getattr(self, name)
        ]
        if len(origins) != 1:
            given = ", ".join(name.rstrip("_") for name in origins) or "none"
            raise ValueError(
                f"say exactly one of from, constant, preamble, file_name, header, symbol_of, lookup; this says {given}"
            )
        if self.header and not self.of:
            raise ValueError("header needs 'of': the field whose header carries the value")
        for pattern in (self.pattern, self.preamble, self.file_name, self.header):
            if pattern and re.compile(pattern).groups != 1:
                raise ValueError(f"{pattern!r}: put the wanted part, and only it, in one pair of brackets")
        return self


def _source(value: Any) -> Any:
    if isinstance(value, str | list | tuple):
        return {"from": value}
    return value


SourceItem = Annotated[Source, BeforeValidator(_source)]


class PerRow(Strict):
    """An attribute that stands in a column, row by row."""

    from_: Names = Item(alias="from")
    values: dict[Text, Text | int | None] | None = None
    default: Text | int | None = None


class OutcomeItem(Strict):
    """One attributed value: its column, and how it was attributed."""

    from_: Names = Item(default=(), alias="from")
    pattern: Regex | None = None
    metric: str | None = None
    window_days: int | PerRow | None = None
    interaction: Literal["click", "view", "any"] | PerRow | None = None
    model: rmis.Model | PerRow | None = None
    scope: rmis.Scope | PerRow | None = None
    sales_channel: str | PerRow | None = None
    values: dict[str, dict[Text, Text | int | None]] = {}
    as_: str | None = Item(default=None, alias="as")
    unit: Unit = Decimal(1)
    decimal: Literal[".", ","] | None = None
    group: str | None = None
    required: bool = False

    @model_validator(mode="after")
    def _complete(self) -> OutcomeItem:
        if bool(self.from_) == bool(self.pattern):
            raise ValueError("say 'from' (a header) or 'pattern' (a regular expression over headers), one of them")
        groups = set(re.compile(self.pattern).groupindex) if self.pattern else set()
        unknown = groups - {"metric", "window", "interaction", "model", "scope", "channel"}
        if unknown:
            raise ValueError(
                f"unknown named group {sorted(unknown)[0]}; use metric, window, interaction, model, scope, channel"
            )
        if self.metric is None and "metric" not in groups:
            raise ValueError(f"metric is missing: one of {', '.join(rmis.METRICS)}")
        if self.metric is not None and self.metric not in rmis.METRICS:
            raise ValueError(f"metric {self.metric!r} is unknown: one of {', '.join(rmis.METRICS)}")
        return self


class Check(Strict):
    """Two ways to the same number: a ratio column against the sums it is made of."""

    name: Annotated[str, Item(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    from_: Names = Item(default=(), alias="from")
    value: str | None = None
    equals: str
    unit: Unit = Decimal(1)
    decimal: Literal[".", ","] | None = None
    tolerance: float = 0.01
    relative: bool = True
    severity: Literal["warn", "reject"] = "warn"

    @model_validator(mode="after")
    def _one_side(self) -> Check:
        if bool(self.from_) == bool(self.value):
            raise ValueError("say 'from' (the column to check) or 'value' (an expression), one of them")
        for text in (self.value, self.equals):
            if text:
                expression_names(text)
        return self


Policy = Literal["ignore", "warn", "fail"]


class Drift(Strict):
    new: Policy = "warn"
    missing: Policy = "warn"
    columns: dict[Text, Policy] = {}


class Skip(Strict):
    """Rows that are no data: totals, footers, notes."""

    from_: Names = Item(alias="from")
    matches: CellRegex
    reason: str = "not_data"


class Limits(Strict):
    reject_share: Annotated[float, Item(ge=0, le=1)] = 0.5
    min_rows: Annotated[int, Item(ge=0)] = 20


FIELD_NAMES = frozenset(
    (
        *rmis.TEXT_FIELDS,
        *rmis.COUNT_FIELDS,
        *rmis.MONEY_FIELDS,
        "date",
        "period_start",
        "period_end",
        "hour",
        "gtin14",
        "extracted_at",
    )
)


class MappingFile(Strict):
    """One mapping, as its YAML file states it."""

    mapping: str
    version: Annotated[int, Item(ge=1)]
    about: str = ""
    seen_on: tuple[str, ...] = ()
    network: str = ""
    grain: rmis.Grain
    period: Literal["day", "week", "month", "span", "none"] = "day"
    dialect: Dialect = Dialect()
    fields: dict[str, SourceItem]
    outcomes: tuple[OutcomeItem, ...] = ()
    key: tuple[str, ...] = ()
    on_duplicate: Literal["reject", "sum", "last", "merge"] = "reject"
    skip: tuple[Skip, ...] = ()
    ignore: tuple[Text, ...] = ()
    checks: tuple[Check, ...] = ()
    drift: Drift = Drift()
    limits: Limits = Limits()
    restated_days: Annotated[int, Item(ge=0, le=400)] = 0
    spend_assumed: str = ""
    notes: str = ""

    @field_validator("mapping")
    @classmethod
    def _named(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError(f"{value!r}: network/report in lower-case letters, digits and _")
        return value

    @field_validator("fields")
    @classmethod
    def _known_fields(cls, value: dict[str, Source]) -> dict[str, Source]:
        for name in value:
            if name not in FIELD_NAMES:
                close = difflib.get_close_matches(name, sorted(FIELD_NAMES), 1)
                hint = f"; did you mean {close[0]}?" if close else f"; the fields are {', '.join(sorted(FIELD_NAMES))}"
                raise ValueError(f"{name!r} is no RMIS field{hint}")
        return value

    @model_validator(mode="after")
    def _whole(self) -> MappingFile:
        has_date, has_start = "date" in self.fields, "period_start" in self.fields
        only_end = "period_end" in self.fields and not has_start and self.period in ("week", "month")
        if self.period != "none" and has_date + has_start + only_end != 1:
            raise ValueError(
                "fields: say 'date' (one period a row), 'period_start' and 'period_end' (a span), or with period week"
                " or month 'period_end' alone (week ending); one of them"
            )
        if self.period == "span" and "period_end" not in self.fields:
            raise ValueError("period span: fields.period_end is missing")
        for name in self.key:
            if name not in (*rmis.DIMENSIONS, "hour"):
                raise ValueError(f"key: {name!r} is no dimension; use {', '.join(rmis.DIMENSIONS)} or hour")
            if name not in self.fields:
                raise ValueError(f"key: {name!r} is not under fields")
        return self

    @cached_property
    def network_name(self) -> str:
        return self.network or self.mapping.split("/")[0]

    @cached_property
    def version_text(self) -> str:
        """``network/report@3+1a2b3c4d``: name, version, and eight digits of the content's SHA-256."""
        content = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
        return f"{self.mapping}@{self.version}+{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    @cached_property
    def key_fields(self) -> tuple[str, ...]:
        """What tells two rows apart: the always-part, then what ``key`` lists, or every mapped id."""
        chosen = self.key
        if not chosen:
            mapped = [name for name in rmis.DIMENSIONS if name in self.fields]
            # a name is spelt anew at any time; it is part of the key only where no id stands for it
            chosen = tuple(n for n in mapped if not (n.endswith("_name") and n.replace("_name", "_id") in mapped))
            if "hour" in self.fields:
                chosen = (*chosen, "hour")
        return tuple(sorted({*rmis.ALWAYS_KEY, *chosen}))

    @cached_property
    def wanted(self) -> frozenset[str]:
        """The normalised headers this mapping looks for: they find the header row and the delimiter."""
        names = [name for source in self.fields.values() for name in source.from_]
        names += [name for outcome in self.outcomes for name in outcome.from_]
        names += [name for check in self.checks for name in check.from_]
        names += [name for name in self.ignore if "*" not in name]
        return frozenset(map(normalise, names))


# -- reading


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice and keeps dates and yes/no as text."""


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool) or key in found:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)
_Loader.yaml_implicit_resolvers = {
    sign: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str, where: str = "mapping") -> MappingFile:
    """A checked mapping from its YAML.

    Raises:
        BadInput: with the place, what is wrong, and what would be right.
    """
    if len(text) > MAX_MAPPING_BYTES:
        raise BadInput(f"{where}: {len(text):,} characters; a mapping has at most {MAX_MAPPING_BYTES:,}")
    if "&" in text and "*" in text and re.search(r":\s*&\w|-\s*&\w", text):
        raise BadInput(f"{where}: YAML anchors are not allowed here; write the part out")
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506  # derives from SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        raise BadInput(f"{where}{place}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except (RecursionError, ValueError) as error:
        raise BadInput(f"{where}: not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise BadInput(f"{where}: a mapping is a YAML object that begins with 'mapping: network/report'")
    marks = sorted(_unfilled(raw))
    if marks:
        raise BadInput(f"{where}: {marks[0]} still says {FILL_IN}: write the value there (docs/mapping.md)")
    try:
        return MappingFile.model_validate(raw)
    except ValidationError as error:
        problems = error.errors()
        first = problems[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("PerRow",)) or "mapping"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "is not a word of the mapping language; see docs/mapping.md"
        raise BadInput(f"{where}: {place}: {message}{more}") from None


def _unfilled(node: Any, place: str = "") -> Iterable[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _unfilled(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _unfilled(value, f"{place}[{number}]")
    elif isinstance(node, str) and FILL_IN in node:
        yield place


def load(name: str | Path) -> MappingFile:
    """The mapping in a file, or the shipped one of that ``network/report`` name."""
    path = find(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    return parse(text, str(name))


def shipped(name: str) -> MappingFile:
    """A shipped mapping by its ``network/report`` name, and nothing else on this machine."""
    path = SHIPPED / f"{name}.yaml"
    if not NAME.match(name) or not path.is_file():
        raise BadInput(f"mapping {name}: not a shipped mapping; the shipped ones are {', '.join(shipped_names())}")
    return parse(path.read_text(encoding="utf-8"), name)


def shipped_names() -> list[str]:
    return sorted(f"{path.parent.name}/{path.stem}" for path in SHIPPED.glob("*/*.yaml"))


def find(name: str | Path) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    shipped = SHIPPED / f"{name}.yaml"
    if NAME.match(str(name)) and shipped.is_file():
        return shipped
    known = shipped_names()
    close = difflib.get_close_matches(str(name), known, 3, 0.4)
    raise BadInput(
        f"mapping {name}: neither a file nor a shipped mapping; {'close: ' if close else 'shipped: '}{', '.join(close or known)}"
    )


# -- expressions of checks

_ARITHMETIC = ast.Expression | ast.BinOp | ast.UnaryOp | ast.USub | ast.Load | ast.Add | ast.Sub | ast.Mult | ast.Div


def expression_names(text: str) -> frozenset[str]:
    """The names an expression of a check uses.

    Raises:
        ValueError: anything but names, numbers, + - * / and brackets.
    """
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        raise ValueError(f"{text!r} is no expression; use names, numbers, + - * / and brackets") from None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, bool) or not isinstance(node.value, int | float):
                raise ValueError(f"{text!r}: {node.value!r} is no number")
        elif not isinstance(node, _ARITHMETIC):
            raise ValueError(f"{text!r}: only names, numbers, + - * / and brackets are allowed")
    return frozenset(names)


# -- binding to a file's headers


@dataclass(frozen=True)
class BoundOutcome:
    """An outcome tied to one column; an attribute given as ``PerRow`` is read from ``columns``."""

    item: OutcomeItem
    header: str
    metric: str
    window_days: int | PerRow | None
    interaction: str | PerRow | None
    model: str | PerRow | None
    scope: str | PerRow | None
    sales_channel: str | PerRow | None
    columns: MappingOf[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bound:
    """A mapping tied to the headers of one file, and how the file differs from what was expected."""

    mapping: MappingFile
    headers: tuple[str, ...]
    columns: MappingOf[str, str]
    outcomes: tuple[BoundOutcome, ...]
    checks: tuple[tuple[Check, str | None], ...]
    skips: tuple[tuple[Skip, str], ...]
    new: tuple[str, ...]
    missing: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]


class Headers:
    """Finds a header by any of its aliases: as written, else by normalised name, else by path tail."""

    def __init__(self, headers: Iterable[str]) -> None:
        self.all = tuple(headers)
        self.by_name: dict[str, list[str]] = {}
        self.by_tail: dict[str, list[str]] = {}
        for header in self.all:
            name = normalise(header)
            self.by_name.setdefault(name, []).append(header)
            parts = name.split(".")
            for cut in range(1, len(parts)):
                self.by_tail.setdefault(".".join(parts[cut:]), []).append(header)

    def find(self, aliases: Iterable[str], what: str) -> str | None:
        for alias in aliases:
            if alias in self.all:
                return alias
            for index in (self.by_name, self.by_tail):
                found = index.get(normalise(alias), [])
                if len(found) > 1:
                    # the innermost record of a nested file is what a row is
                    deepest = max(header.count(".") for header in found)
                    found = [header for header in found if header.count(".") == deepest]
                if len(found) > 1:
                    raise BadInput(
                        f"{what}: {alias!r} fits {len(found)} columns ({', '.join(map(repr, found[:4]))}); write the one meant exactly"
                    )
                if found:
                    return found[0]
        return None


def bind(mapping: MappingFile, headers: Iterable[str], where: str = "feed") -> Bound:
    """Tie a mapping to a file's headers.

    Raises:
        BadInput: a required column is missing, an alias fits two columns, or the drift policy says fail.
    """
    known = Headers(headers)
    columns: dict[str, str] = {}
    used: set[str] = set()
    missing: list[str] = []
    lacking: list[tuple[str, tuple[str, ...]]] = []

    def take(aliases: tuple[str, ...], what: str, required: bool) -> str | None:
        found = known.find(aliases, f"{where}: {what}")
        if found is None:
            (lacking.append((what, aliases)) if required else missing.append(aliases[0]))
            return None
        used.add(found)
        return found

    needed = {"date", "period_start", "period_end", *mapping.key}
    for name, source in mapping.fields.items():
        if source.from_:
            found = take(source.from_, f"fields.{name}", (source.required or name in needed) and source.default is None)
            if found is not None:
                columns[name] = found
    outcomes: list[BoundOutcome] = []
    for number, item in enumerate(mapping.outcomes):
        what = f"outcomes[{number}]"
        if item.pattern:
            rows = [bound for header in known.all if (bound := _match(item, header, what))]
            used.update(row.header for row in rows)
            if not rows and item.required:
                lacking.append((what, (item.pattern,)))
        else:
            found = take(item.from_, what, item.required)
            rows = [_plain(item, found)] if found is not None else []
        for row in rows:
            extra = {}
            for attribute in ("window_days", "interaction", "model", "scope", "sales_channel"):
                value = getattr(row, attribute)
                if isinstance(value, PerRow):
                    column = take(value.from_, f"{what}.{attribute}", value.default is None)
                    if column is not None:
                        extra[attribute] = column
            outcomes.append(BoundOutcome(**{**row.__dict__, "columns": extra}))
    _no_outcome_twice(outcomes, where)
    checks = tuple(
        (check, take(check.from_, f"checks.{check.name}", False) if check.from_ else None) for check in mapping.checks
    )
    skips = []
    for skip in mapping.skip:
        found = take(skip.from_, "skip", False)
        if found is not None:
            skips.append((skip, found))
    if lacking:
        what, aliases = lacking[0]
        close = _closest(aliases, known.all)
        hint = f"; closest: {', '.join(map(repr, close))}" if close else ""
        more = f" and {len(lacking) - 1} more required columns" if len(lacking) > 1 else ""
        raise BadInput(
            f"{where}: no column {' or '.join(map(repr, aliases[:3]))} for {what} of {mapping.mapping}{more};"
            f" the file has {', '.join(map(repr, known.all[:8]))}{' ...' if len(known.all) > 8 else ''}{hint};"
            " is this the right report, header row and delimiter?"
        )
    ignored = [normalise(pattern) if "*" not in pattern else pattern for pattern in mapping.ignore]
    new = tuple(
        header for header in known.all if header not in used and header.strip() and not _ignored(header, ignored)
    )
    renamed = tuple(_renames(missing, new))
    _enforce(mapping, new, missing, where)
    return Bound(mapping, known.all, columns, tuple(outcomes), checks, tuple(skips), new, tuple(missing), renamed)


def _ignored(header: str, patterns: list[str]) -> bool:
    name = normalise(header)
    tail = name.rsplit(".", 1)[-1]
    return any(
        fnmatch.fnmatch(header.lower(), pattern.lower()) if "*" in pattern else pattern in (name, tail)
        for pattern in patterns
    )


def _enforce(mapping: MappingFile, new: tuple[str, ...], missing: list[str], where: str) -> None:
    policy = {normalise(name): value for name, value in mapping.drift.columns.items()}
    for header, default, what in [(h, mapping.drift.new, "new") for h in new] + [
        (h, mapping.drift.missing, "missing") for h in missing
    ]:
        if policy.get(normalise(header), default) == "fail":
            raise BadInput(
                f"{where}: column {header!r} is {what} and the mapping's drift policy says fail; correct the mapping, raise its version"
            )


def _renames(missing: list[str], new: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    left = list(new)
    for old in missing:
        close = _closest((old,), tuple(left), 1)
        if close:
            left.remove(close[0])
            yield old, close[0]


def _closest(aliases: tuple[str, ...], headers: tuple[str, ...], count: int = 3) -> list[str]:
    names = {normalise(header): header for header in headers}
    found: dict[str, None] = {}
    for alias in aliases:
        for close in difflib.get_close_matches(normalise(alias), list(names)[:500], count, 0.72):
            found.setdefault(names[close])
    return list(found)[:count]


def _plain(item: OutcomeItem, header: str) -> BoundOutcome:
    return BoundOutcome(
        item, header, str(item.metric), item.window_days, item.interaction, item.model, item.scope, item.sales_channel
    )


_CHOICES: dict[str, tuple[str, ...]] = {
    "metric": rmis.METRICS,
    "interaction": rmis.INTERACTIONS,
    "model": rmis.MODELS,
    "scope": rmis.SCOPES,
}


def _match(item: OutcomeItem, header: str, what: str) -> BoundOutcome | None:
    match = re.fullmatch(str(item.pattern), header.strip(), re.IGNORECASE)
    if not match:
        return None
    found = {name: value.strip() for name, value in match.groupdict().items() if value is not None}

    def read(group: str, fixed: Any) -> Any:
        text = found.get(group)
        if text is None:
            missing = item.values.get(group, {}).get("")  # the group took no part in the match
            return fixed if missing is None else missing
        table = {key.casefold(): value for key, value in item.values.get(group, {}).items()}
        if text.casefold() in table:
            return table[text.casefold()]
        if group == "window":
            digits = re.search(r"\d+", text)
            return int(digits.group()) if digits else fixed
        if group in _CHOICES and text.lower() not in _CHOICES[group]:
            raise BadInput(
                f"{what}: header {header!r} gives {group} {text!r}; say under values.{group} what it is: one of {', '.join(_CHOICES[group])}"
            )
        return text.lower()

    return BoundOutcome(
        item,
        header,
        str(read("metric", item.metric)),
        read("window", item.window_days),
        read("interaction", item.interaction),
        read("model", item.model),
        read("scope", item.scope),
        read("channel", item.sales_channel),
    )


def _no_outcome_twice(outcomes: list[BoundOutcome], where: str) -> None:
    seen: dict[tuple[Any, ...], str] = {}
    for outcome in outcomes:
        signature = tuple(repr(getattr(outcome, name)) for name in rmis.ATTRIBUTES)
        if signature in seen:
            raise BadInput(
                f"{where}: columns {seen[signature]!r} and {outcome.header!r} are both mapped to {outcome.metric} with the same"
                " window, interaction, model and scope; one value would be counted twice"
            )
        seen[signature] = outcome.header


# -- linting


@dataclass(frozen=True)
class Finding:
    severity: Literal["error", "warning"]
    place: str
    message: str


_AMBIGUOUS = (("%d/%m/%Y", "%m/%d/%Y"), ("%d-%m-%Y", "%m-%d-%Y"), ("%d.%m.%Y", "%m.%d.%Y"), ("%d/%m/%y", "%m/%d/%y"))


def lint(mapping: MappingFile) -> list[Finding]:
    """What a careful colleague would say about this mapping; errors first."""
    found: list[Finding] = []

    def say(severity: Literal["error", "warning"], place: str, message: str) -> None:
        found.append(Finding(severity, place, message))

    for name, source in mapping.fields.items():
        place = f"fields.{name}"
        for first, second in _AMBIGUOUS:
            if any(f.startswith(first) for f in source.format) and any(f.startswith(second) for f in source.format):
                say(
                    "error",
                    f"{place}.format",
                    f"{first} and {second} read the same text as two days; keep the one this network writes",
                )
        for form in source.format:
            if form not in parsing.DATE_WORDS and "%" not in form:
                say(
                    "error",
                    f"{place}.format",
                    f"{form!r} is neither a strptime pattern nor one of {', '.join(parsing.DATE_WORDS)}",
                )
        if source.lookup and source.lookup.by not in mapping.fields:
            say("error", f"{place}.lookup.by", f"{source.lookup.by!r} is not under fields")
        if source.of and source.of not in mapping.fields:
            say("error", f"{place}.of", f"{source.of!r} is not under fields")
        if source.zone and not _zone(source.zone):
            say("error", f"{place}.zone", f"{source.zone!r} is no IANA time zone such as America/New_York")
        if source.unit != 1 and name in ("date", "period_start", "period_end", "hour", *rmis.TEXT_FIELDS):
            say("error", f"{place}.unit", "a unit belongs to counts and money only")
    currency, zone = mapping.fields.get("currency"), mapping.fields.get("time_zone")
    if currency is None and (
        "spend" in mapping.fields or any(o.metric in rmis.MONEY_METRICS for o in mapping.outcomes)
    ):
        say(
            "warning",
            "fields.currency",
            "money without a currency cannot be added to other feeds; give a column, header, lookup or constant",
        )
    if currency is not None and currency.constant and currency.constant not in rmis.CURRENCIES:
        say("error", "fields.currency", f"{currency.constant!r} is no ISO 4217 code")
    if zone is not None and zone.constant and not _zone(zone.constant):
        say("error", "fields.time_zone", f"{zone.constant!r} is no IANA time zone such as America/New_York")
    if zone is None:
        say("warning", "fields.time_zone", "a day without its time zone; networks report in the advertiser's")
    for number, outcome in enumerate(mapping.outcomes):
        groups = set(re.compile(outcome.pattern).groupindex) if outcome.pattern else set()
        metrics = {outcome.metric, *outcome.values.get("metric", {}).values()}
        if not metrics & (rmis.MONEY_METRICS | {"orders", "units", "conversions"}):
            continue
        for attribute, group in (
            ("window_days", "window"),
            ("interaction", "interaction"),
            ("model", "model"),
            ("scope", "scope"),
        ):
            if getattr(outcome, attribute) is None and group not in groups and not {"total_sales", "price"} & metrics:
                say(
                    "warning",
                    f"outcomes[{number}].{attribute}",
                    "not stated: the value can be compared with nothing else",
                )
    names = {*mapping.fields, *(o.as_ for o in mapping.outcomes if o.as_), *rmis.COUNT_FIELDS, "spend"}
    for check in mapping.checks:
        for text in (check.value, check.equals):
            for name in sorted(expression_names(text) - names) if text else ():
                say("error", f"checks.{check.name}", f"{name!r} is neither a field nor an outcome's 'as' name")
    if not mapping.seen_on:
        say("warning", "seen_on", "say on which real rows this mapping was tried")
    if "spend" not in mapping.fields and not mapping.outcomes:
        say("warning", "fields.spend", "neither spend nor outcomes: the report carries no money")
    return sorted(found, key=lambda finding: finding.severity != "error")


def _zone(name: str) -> bool:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True

"""What screens share: tables with sort, filter and export in the address, and pages with pictures."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone

from rmn.lib import words
from rmn.lib.charts import Picture, harmless

SHOWN_COLUMNS = 7  # before "more"


@dataclass(frozen=True)
class Column:
    """One column: what it is called, where its value comes from, how it is shown and sorted."""

    name: str
    title: str
    value: Callable[[Any], Any] | None = None  # of a row; the attribute of that name where absent
    sort: str = ""  # the database field to order by; empty: not sortable
    unit: str = ""  # currency of money, printed behind it
    kind: str = ""  # money, share, duration: how a number reads
    href: Callable[[Any], str | None] | None = None
    hint: str = ""

    def of(self, row: Any) -> Any:
        if self.value is not None:
            return self.value(row)
        return row.get(self.name) if isinstance(row, Mapping) else getattr(row, self.name)


@dataclass(frozen=True)
class Filter:
    """One choice over a table: the address's name, its words, what may be chosen."""

    name: str
    title: str
    choices: Sequence[tuple[str, str]]
    field: str = ""  # of the database; the name where absent
    chosen: str = ""


@dataclass(frozen=True)
class Cell:
    words: str
    classes: str = ""
    href: str | None = None
    hover: str = ""


@dataclass(frozen=True)
class Head:
    title: str
    classes: str = ""
    href: str = ""
    sorted: str = ""
    hint: str = ""


@dataclass
class Table:
    """Rows as a table that the part ``parts/table.html`` draws and that exports itself as CSV.

    Everything a reader chooses (order, search, filters, page) stands in the address. A view passes
    the queryset already narrowed by ``visible_to``; ``answer`` gives the export where it is asked.
    """

    request: HttpRequest
    source: Any  # a queryset, or a list of rows
    columns: Sequence[Column]
    title: str
    empty: str = "Nothing here yet."
    search: Sequence[str] = ()
    filters: Sequence[Filter] = ()
    per_page: int = 50
    name: str = "table"
    order: str = ""  # the address's default order, such as -created_at
    _kept: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        get = self.request.GET
        self.filters = [
            Filter(f.name, f.title, f.choices, f.field or f.name, _allowed(f, get.get(f.name, "")))
            for f in self.filters
        ]

    @property
    def query(self) -> str:
        return self.request.GET.get("q", "").replace("\x00", "")[:120]

    @property
    def has_controls(self) -> bool:
        return bool(self.search or self.filters)

    @property
    def kept(self) -> list[tuple[str, str]]:
        """What else stands in the address, kept when the filters are sent."""
        own = {"q", "page", "export", *(f.name for f in self.filters)}
        return [(k, str(v)) for k, v in self.request.GET.items() if k not in own]

    @cached_property
    def sorting(self) -> tuple[str, str]:
        """(column's name, field with its sign) by the address, else by ``order``."""
        wanted = self.request.GET.get("sort", "")
        for column in self.columns:
            if column.sort and wanted.lstrip("-") == column.name:
                return wanted, ("-" if wanted.startswith("-") else "") + column.sort
        return self.order, self.order

    @cached_property
    def found(self) -> Any:
        """All rows that the filters leave, in order."""
        rows = self.source
        if not isinstance(rows, QuerySet):
            return list(rows)
        if self.search and self.query:
            hit = Q()
            for path in self.search:
                hit |= Q(**{f"{path}__icontains": self.query})
            rows = rows.filter(hit)
        for chosen in self.filters:
            if chosen.chosen:
                rows = rows.filter(**{chosen.field: chosen.chosen})
        if self.sorting[1]:
            rows = rows.order_by(self.sorting[1], "pk")
        return rows

    @cached_property
    def page(self) -> Page[Any]:
        return Paginator(self.found, self.per_page).get_page(self.request.GET.get("page"))

    @property
    def heads(self) -> list[Head]:
        out = []
        for place, column in enumerate(self.columns):
            name, _ = self.sorting
            state = ""
            if column.sort and name.lstrip("-") in (column.name, column.sort):
                state = "descending" if name.startswith("-") else "ascending"
            link = ""
            if column.sort:
                link = self._address(sort=column.name if state == "descending" else f"-{column.name}", page=None)
                if not state:
                    link = self._address(sort=column.name, page=None)
            number = any(words.is_number(column.of(row)) for row in self.page.object_list[:3])
            out.append(Head(column.title, _classes(place, number), link, state, column.hint))
        return out

    @property
    def rows(self) -> list[list[Cell]]:
        return [
            [_cell(column, row, place) for place, column in enumerate(self.columns)] for row in self.page.object_list
        ]

    @property
    def has_more_columns(self) -> bool:
        return len(self.columns) > SHOWN_COLUMNS

    @property
    def summary(self) -> str:
        return words.counted(self.page.paginator.count, "row")

    @property
    def page_addresses(self) -> dict[str, str]:
        page = self.page
        return {
            "previous": self._address(page=page.previous_page_number()) if page.has_previous() else "",
            "next": self._address(page=page.next_page_number()) if page.has_next() else "",
        }

    @property
    def export_address(self) -> str:
        return self._address(export="csv", page=None)

    def _address(self, **changes: Any) -> str:
        query = self.request.GET.copy()
        for name, value in changes.items():
            if value is None:
                query.pop(name, None)
            else:
                query[name] = str(value)
        return f"?{query.urlencode()}"

    def answer(self) -> StreamingHttpResponse | None:
        """The export, where the address asks for it; it streams, so a long table takes no memory."""
        if self.request.GET.get("export") != "csv":
            return None
        rows = self.found.iterator(chunk_size=2000) if isinstance(self.found, QuerySet) else self.found
        lines = ([harmless(_exported(column.of(row))) for column in self.columns] for row in rows)
        return csv_response(self.name, [column.name for column in self.columns], lines)


def csv_response(name: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> StreamingHttpResponse:
    """Rows as a CSV download; cells must be harmless already."""

    class Echo:
        def write(self, text: str) -> str:
            return text

    def lines() -> Iterator[str]:
        writer = csv.writer(Echo())
        yield writer.writerow(heads)
        for row in rows:
            yield writer.writerow(row)

    response = StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def xlsx_response(name: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> HttpResponse:
    """Rows as an Excel workbook; texts stay texts, whatever they begin with."""
    import io

    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    book = Workbook(write_only=True)
    sheet = book.create_sheet("changes")
    sheet.append(list(heads))

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        made = WriteOnlyCell(sheet, value=value)
        made.data_type = "s"  # no formula
        return made

    for row in rows:
        sheet.append([cell(value) for value in row])
    out = io.BytesIO()
    book.save(out)
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    response = HttpResponse(out.getvalue(), content_type=kind)
    response["Content-Disposition"] = f'attachment; filename="{name}.xlsx"'
    return response


def show(
    request: HttpRequest, template: str, context: dict[str, Any], pictures: Iterable[Picture] = (), status: int = 200
) -> HttpResponse:
    """A page with pictures; ``?picture=name.svg`` or ``.csv`` answers with that one alone.

    So a reader without script sees the drawings, and each one's numbers can be taken along.
    """
    wanted = request.GET.get("picture", "")
    if not wanted:
        return render(request, template, context, status=status)
    name, _, form = wanted.rpartition(".")
    for picture in pictures:
        if picture.name == name and form == "svg":
            return HttpResponse(picture.svg(), content_type="image/svg+xml")
        if picture.name == name and form == "csv":
            response = HttpResponse(picture.csv(), content_type="text/csv; charset=utf-8")
            response["Content-Disposition"] = f'attachment; filename="{name}.csv"'
            return response
    raise Http404


def _allowed(one: Filter, value: str) -> str:
    return value if value in {str(choice) for choice, _ in one.choices} else ""


def _classes(place: int, number: bool) -> str:
    return " ".join(c for c in ("n" if number else "", "more" if place >= SHOWN_COLUMNS else "") if c)


def _cell(column: Column, row: Any, place: int) -> Cell:
    value = column.of(row)
    number = words.is_number(value)
    hover = ""
    if column.kind == "money":
        text, hover = words.money(value, column.unit), str(value if value is not None else "")
    elif column.kind == "share":
        text = words.share(value)
    elif column.kind == "duration":
        text = words.duration(value)
    elif number:
        text, hover = words.short(value), words.full(value, 6)
    elif isinstance(value, datetime):
        text, hover = words.ago(value, timezone.now()), value.isoformat(timespec="seconds")
    elif isinstance(value, date):
        text = value.isoformat()
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = "–" if value in (None, "") else str(value)
    return Cell(
        text, _classes(place, number), column.href(row) if column.href else None, hover if hover != text else ""
    )


def _exported(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return value

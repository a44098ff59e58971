"""Pictures: a Vega-Lite specification with what a reader needs beside it, and one look for all.

Plain rows in, a specification out. On screens vega-embed draws it in the reader's colours; for the
report and e-mail ``Picture.svg`` renders the same specification. An app's own pictures stand in its
``charts.py`` and use the helpers here; an Altair chart is taken as well as a plain dictionary.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
# At least 3 to 1 against white and against the dark paper, and apart for the common kinds of colour blindness.
PALETTE = ("#2f74c0", "#c2570c", "#12876a", "#a4569b", "#8a7200", "#6a7385", "#c93f55", "#2b8ba8")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
INK, INK_SOFT, LINE = "#1b1f24", "#57606a", "#d0d7de"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """A drawing, what it says in words, and the numbers it was drawn from."""

    title: str  # the finding, as a sentence
    alt: str  # what a reader who cannot see it should know
    spec: dict[str, Any]
    rows: tuple[dict[str, Any], ...] = ()
    columns: tuple[str, ...] = ()
    note: str = ""  # one line of evidence: source, freshness, what is assumed
    key: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The picture's name in addresses and in the page's ids."""
        return self.key or re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:40] or "picture"

    @property
    def spec_id(self) -> str:
        return f"spec-{self.name}"

    @property
    def cells(self) -> list[list[Any]]:
        """The numbers as a table, in the order of ``columns``."""
        return [[row.get(column) for column in self.columns] for row in self.rows]

    @property
    def shown_cells(self) -> list[list[Any]]:
        """The head of the table, for the page; the whole of it is in the export."""
        return self.cells[:200]

    def svg(self) -> str:
        """The drawing as SVG text, in the light colours.

        Raises:
            ValueError: the specification is not valid Vega-Lite.
        """
        import vl_convert  # heavy: a whole JavaScript engine, so only where a file is wanted

        return str(vl_convert.vegalite_to_svg({**self.spec, "config": theme() | self.spec.get("config", {})}))

    def csv(self) -> str:
        """The numbers as CSV; cells that a spreadsheet would run as a formula are quoted."""
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(self.columns)
        writer.writerows([harmless(cell) for cell in row] for row in self.cells)
        return out.getvalue()


def harmless(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe.

    Source: OWASP, CSV injection.
    """
    if isinstance(cell, str) and cell.lstrip(" \t\r\n")[:1] in ("=", "+", "-", "@", "|", "%"):
        return "'" + cell
    if isinstance(cell, str) and cell[:1] in ("\t", "\r", "\n"):
        return "'" + cell
    return cell


def theme() -> dict[str, Any]:
    """The common look as a Vega-Lite configuration, in the light colours (screens put theirs over it)."""
    return {
        "background": "white",
        "font": FONT,
        "axis": {
            "labelColor": INK_SOFT,
            "titleColor": INK_SOFT,
            "gridColor": LINE,
            "domainColor": LINE,
            "tickColor": LINE,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelLimit": 240,
        },
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "orient": "top"},
        "view": {"stroke": "transparent"},
        "range": {"category": list(PALETTE)},
        "line": {"strokeWidth": 2},
        "point": {"filled": True, "size": 60},
        "area": {"opacity": 0.18, "line": False},
        "bar": {"cornerRadiusEnd": 2},
        "rule": {"color": INK_SOFT},
        "style": {"quiet": {"color": INK_SOFT}},
    }


def picture(
    spec: Any,
    title: str,
    alt: str,
    rows: Iterable[Row] = (),
    *,
    note: str = "",
    key: str = "",
    columns: Sequence[str] | None = None,
    height: int | None = None,
) -> Picture:
    """Make a picture out of a Vega-Lite dictionary or an Altair chart.

    Args:
        spec: the specification; data may stand in it, else ``rows`` become its data.
        title: the finding as a sentence, printed above the drawing (not inside it).
        alt: what the drawing shows, in words, for readers who cannot see it.
        rows: the numbers behind it, shown and exported as a table.
        note: one line of evidence below it.
        key: the name in addresses; made from the title where absent.
        columns: the table's columns in order; those of the first row where absent.
        height: of the drawing in pixels, unless the specification says.

    Raises:
        ValueError: no title or no alternative text.
    """
    if not title.strip() or not alt.strip():
        raise ValueError("a picture needs a title that states the finding, and an alternative text")
    table = [{str(name): plain(value) for name, value in row.items()} for row in rows]
    drawn: dict[str, Any] = dict(spec if isinstance(spec, Mapping) else spec.to_dict())
    drawn.setdefault("$schema", SCHEMA)
    if "data" not in drawn and "datasets" not in drawn:
        drawn["data"] = {"values": table}
    if not {"hconcat", "vconcat", "concat", "facet", "repeat"} & drawn.keys():
        drawn.setdefault("width", "container")
        drawn.setdefault("height", height or 280)
        drawn.setdefault("autosize", {"type": "fit-x", "contains": "padding"})
    drawn["description"] = alt
    drawn.pop("config", None) if not isinstance(spec, Mapping) else None  # Altair's own look
    names = tuple(columns) if columns is not None else tuple(dict.fromkeys(name for row in table for name in row))
    return Picture(title=title, alt=alt, spec=drawn, rows=tuple(table), columns=names, note=note, key=key)


def plain(value: Any) -> Any:
    """A value as JSON has it: dates as ISO text, decimals as numbers, what is not finite as null."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        value = float(value)
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()  # a NumPy scalar
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value)


def colours(names: Iterable[str]) -> dict[str, Any]:
    """A scale in which the same entity has the same colour in every picture, as far as eight colours go.

    Each name has its place by its digest; where two want one place, the later in the alphabet moves on.
    """
    taken: dict[str, str] = {}
    free = list(PALETTE)
    for name in sorted({str(n) for n in names}):
        place = hashlib.sha256(name.encode()).digest()[0] % len(PALETTE)
        wanted = PALETTE[place]
        if free and wanted not in free:
            wanted = free[place % len(free)]
        if wanted in free:
            free.remove(wanted)
        taken[name] = wanted
    return {"domain": list(taken), "range": list(taken.values())}


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its quantity and unit written out: "Sales, USD per week"."""
    return {"title": title, **more}


def lines(
    x: str,
    y: str,
    *,
    x_title: str,
    y_title: str,
    series: str | None = None,
    low: str | None = None,
    high: str | None = None,
    x_type: str = "quantitative",
    zero: bool = True,
    names: Iterable[str] = (),
    marks: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Lines over x, with a band between ``low`` and ``high``, and further layers in ``marks``.

    The fields are columns of the picture's rows. ``zero`` keeps the y axis at zero; ``names`` fixes
    the colours of the series.
    """
    scale = {"scale": colours(names)} if series and names else {}
    colour = {"color": {"field": series, "type": "nominal", "title": None, **scale}} if series else {}
    encoded_x = {"field": x, "type": x_type, "axis": axis(x_title)}
    encoded_y = {"field": y, "type": "quantitative", "axis": axis(y_title), "scale": {"zero": zero}}
    layers: list[dict[str, Any]] = []
    if low and high:
        band_y = {"field": low, "type": "quantitative", "scale": {"zero": zero}, "axis": axis(y_title)}
        layers.append(
            {
                "mark": {"type": "area", "opacity": 0.18},
                "encoding": {"x": encoded_x, "y": band_y, "y2": {"field": high}, **colour},
            }
        )
    tooltip = [{"field": name} for name in (x, series, y, low, high) if name]
    layers.append(
        {"mark": {"type": "line"}, "encoding": {"x": encoded_x, "y": encoded_y, "tooltip": tooltip, **colour}}
    )
    return {"layer": [*layers, *marks]}


def intervals(
    label: str,
    estimate: str,
    low: str,
    high: str,
    *,
    x_title: str,
    zero_line: float | None = None,
    percent: bool = False,
    domain: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Estimates as points with their intervals as bars, one line per label, a rule at ``zero_line``."""
    form = {"format": ".0%"} if percent else {}
    scale = {"scale": {"domain": list(domain)} if domain else {"zero": False}}
    row = {"field": label, "type": "nominal", "axis": axis(""), "sort": None, "title": None}
    layers: list[dict[str, Any]] = []
    if zero_line is not None:
        layers.append({"mark": {"type": "rule", "strokeDash": [4, 4]}, "encoding": {"x": {"datum": zero_line}}})
    tooltip = [{"field": name, **({} if name == label else form)} for name in (label, estimate, low, high)]
    layers += [
        {
            "mark": {"type": "rule", "strokeWidth": 3, "color": PALETTE[0], "opacity": 0.55},
            "encoding": {
                "x": {"field": low, "type": "quantitative", "axis": axis(x_title, **form), **scale},
                "x2": {"field": high},
                "y": row,
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "color": PALETTE[0], "opacity": 1},
            "encoding": {"x": {"field": estimate, "type": "quantitative"}, "y": row, "tooltip": tooltip},
        },
    ]
    return {"layer": layers, "height": {"step": 32}}


def bars(
    label: str, value: str, *, x_title: str, series: str | None = None, names: Iterable[str] = (), stacked: bool = False
) -> dict[str, Any]:
    """Horizontal bars, one per label, or one per label and series beside each other (or stacked)."""
    encoding: dict[str, Any] = {
        "y": {"field": label, "type": "nominal", "axis": axis(""), "sort": None, "title": None},
        "x": {"field": value, "type": "quantitative", "axis": axis(x_title), "stack": "zero" if stacked else None},
        "tooltip": [{"field": name} for name in (label, series, value) if name],
    }
    if series:
        scale = {"scale": colours(names)} if names else {}
        encoding["color"] = {"field": series, "type": "nominal", "title": None, **scale}
        if not stacked:
            encoding["yOffset"] = {"field": series}
        return {"mark": "bar", "encoding": encoding, "height": {"step": 20}}
    return {"mark": {"type": "bar", "color": PALETTE[0]}, "encoding": encoding, "height": {"step": 28}}


def rule(at: float, words: str, *, vertical: bool = False) -> dict[str, Any]:
    """A labelled line: a target, a ceiling, the start of a test."""
    along, across = ("x", "y") if vertical else ("y", "x")
    place = {"align": "left", "dx": 4, "dy": 4, "baseline": "top"} if vertical else {"align": "left", "dx": 4, "dy": -6}
    return {
        "data": {"values": [{"at": at, "words": words}]},
        "layer": [
            {
                "mark": {"type": "rule", "strokeDash": [4, 4]},
                "encoding": {along: {"field": "at", "type": "quantitative"}},
            },
            {
                "mark": {"type": "text", "style": "quiet", **place},
                "encoding": {
                    along: {"field": "at", "type": "quantitative"},
                    across: {"value": 0},
                    "text": {"field": "words"},
                },
            },
        ],
    }

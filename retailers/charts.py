"""Pictures of reports: plain rows in, a picture out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmn.lib import charts
from rmn.lib.charts import Picture


def spend_by_day(rows: Sequence[Mapping[str, Any]], currency: str, note: str) -> Picture:
    """Spend of each retailer, by the day a row begins.

    Args:
        rows: day, retailer, spend; one grain, one currency.
    """
    retailers = sorted({str(row["retailer"]) for row in rows})
    days = sorted({row["day"] for row in rows})
    return charts.picture(
        title=f"Spend at {' and '.join(retailers) if len(retailers) < 3 else f'{len(retailers)} retailers'},"
        f" {days[0]} to {days[-1]}",
        alt="Lines of spend by day, one for each retailer.",
        spec=charts.lines(
            "day",
            "spend",
            x_title="Day a row begins",
            y_title=f"Spend, {currency or 'currency not stated'}",
            x_type="temporal",
            series="retailer",
            names=retailers,
        ),
        rows=rows,
        columns=("day", "retailer", "spend"),
        note=note,
        key="spend",
    )


def loads_by_day(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Rows taken and rows kept apart, by the day of the load.

    Args:
        rows: day, which (accepted or kept apart), rows.
    """
    apart = sum(row["rows"] for row in rows if row["which"] == "kept apart")
    whole = sum(row["rows"] for row in rows)
    share = apart / whole if whole else 0
    return charts.picture(
        title=f"{share:.1%} of the rows of these days were kept apart"
        if apart
        else "Every row of these days was taken",
        alt="Bars of rows taken and rows kept apart, by day of the load.",
        spec={
            "mark": {"type": "bar"},
            "encoding": {
                "x": {"field": "day", "type": "ordinal", "axis": charts.axis("Day of the load", labelOverlap=True)},
                "y": {"field": "rows", "type": "quantitative", "axis": charts.axis("Rows")},
                "color": {
                    "field": "which",
                    "type": "nominal",
                    "title": None,
                    "scale": charts.colours(["accepted", "kept apart"]),
                },
                "tooltip": [{"field": name} for name in ("day", "which", "rows")],
            },
        },
        rows=rows,
        columns=("day", "which", "rows"),
        key="loads",
    )


def spend_taken(rows: Sequence[Mapping[str, Any]], currency: str, note: str) -> Picture:
    """Spend of the reports that count, by the week it falls into: what feeds brought, over time.

    Args:
        rows: week, retailer, spend; one grain for each account and day, one currency.
    """
    retailers = sorted({str(row["retailer"]) for row in rows})
    newest = max(row["week"] for row in rows)
    whole = sum(row["spend"] for row in rows if row["week"] == newest)
    return charts.picture(
        title=f"{whole:,.2f} {currency or '(currency not stated)'} of spend are loaded for the week of {newest}",
        alt="Bars of spend by week, coloured by retailer; a week without a bar has no report.",
        spec={
            "mark": {"type": "bar"},
            "encoding": {
                "x": {"field": "week", "type": "temporal", "axis": charts.axis("Week a report begins in")},
                "y": {
                    "field": "spend",
                    "type": "quantitative",
                    "axis": charts.axis(f"Spend, {currency or 'currency not stated'}"),
                },
                "color": {"field": "retailer", "type": "nominal", "title": None, "scale": charts.colours(retailers)},
                "tooltip": [{"field": name} for name in ("week", "retailer", "spend")],
            },
        },
        rows=rows,
        columns=("week", "retailer", "spend"),
        note=note,
        key=f"taken-{currency or 'none'}",
    )

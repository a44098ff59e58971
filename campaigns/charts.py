"""Pictures of budgets and curves: plain rows in, a picture out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from rmn.lib import charts
from rmn.lib.charts import Picture

ASSUMED = "Spend assumed by a stated rule, not reported."


def allocation(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], last: Mapping[str, float], currency: str, note: str
) -> Picture:
    """Spend now and in the plan for each arm, largest first."""
    told = []
    for row in sorted(rows, key=lambda r: -r["spend"])[:30]:
        arm = names.get(row["id"], row["id"])
        told.append({"arm": arm, "which": "now", "spend": last.get(row["id"], 0.0)})
        told.append({"arm": arm, "which": "plan", "spend": row["spend"]})
    moved = sum(abs(r["spend"] - last.get(r["id"], 0.0)) for r in rows) / 2
    return charts.picture(
        title=f"The plan moves {moved:,.0f} {currency} between arms",
        alt="Bars of spend now and in the plan for each arm, largest first.",
        spec=charts.bars("arm", "spend", x_title=f"Spend, {currency}", series="which", names=("now", "plan")),
        rows=told,
        columns=("arm", "which", "spend"),
        note=note,
        key="allocation",
    )


def frontier(rows: Sequence[Mapping[str, Any]], currency: str, note: str) -> Picture:
    """What more or less money would bring."""
    return charts.picture(
        title="What more or less budget would bring",
        alt="Line of expected sales against budget; it flattens as arms saturate.",
        spec=charts.lines(
            "budget", "objective", x_title=f"Budget, {currency}", y_title=f"Expected sales, {currency}", zero=False
        ),
        rows=[{k: r[k] for k in ("budget", "objective", "upper_bound", "price")} for r in rows],
        columns=("budget", "objective", "upper_bound", "price"),
        note=note,
        key="frontier",
    )


def operating_points(
    rows: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]], currency: str, note: str
) -> Picture:
    """The curves of the largest arms with where the plan stands on them, and where spend is now.

    Args:
        rows: ``arm, spend, sales, low, high`` along each curve.
        points: ``arm, which (now, plan), spend, sales``.
    """
    band = {"field": "low", "type": "quantitative", "axis": charts.axis(f"Sales, {currency}")}
    x = {"field": "spend", "type": "quantitative", "axis": charts.axis(f"Spend, {currency}", tickCount=4)}
    y = {"field": "sales", "type": "quantitative", "axis": charts.axis(f"Sales, {currency}", tickCount=4)}
    which = {
        "field": "which",
        "type": "nominal",
        "title": None,
        "scale": charts.colours(("now", "plan")),
        "legend": {"orient": "top"},
    }
    spec = {
        "data": {"values": [charts.plain(dict(row)) for row in (*rows, *points)]},
        "facet": {"field": "arm", "type": "nominal", "title": None, "sort": None, "header": {"labelLimit": 220}},
        "columns": 2,
        "spec": {
            "width": 180,  # two fit beside each other on a telephone and stay readable
            "height": 130,
            "layer": [
                {"mark": {"type": "area", "opacity": 0.18}, "encoding": {"x": x, "y": band, "y2": {"field": "high"}}},
                {"transform": [{"filter": "!isValid(datum.which)"}], "mark": "line", "encoding": {"x": x, "y": y}},
                {
                    "transform": [{"filter": "isValid(datum.which)"}],
                    "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                    "encoding": {"x": x, "y": y, "color": which, "shape": {"field": "which", "title": None}},
                },
            ],
        },
        "resolve": {"scale": {"x": "independent", "y": "independent"}},
    }
    return charts.picture(
        spec,
        title="Where the largest arms stand on their curves",
        alt="A curve of sales against spend for each of the largest arms, with a band of nine in ten possible curves"
        " and points for spend now and in the plan.",
        rows=points,
        columns=("arm", "which", "spend", "sales", "low", "high"),
        note=note,
        key="curves",
    )


def limits(prices: Sequence[Mapping[str, Any]], currency: str, note: str) -> Picture:
    """What one more unit of each limit would bring, the dearest first."""
    top = prices[0]
    return charts.picture(
        charts.bars("limit", "price", x_title=f"Sales gained by raising the limit by 1 {currency}"),
        title=f"The dearest limit is {top['limit']}: 1 {currency} more {'brings' if top['price'] > 0 else 'loses'} {abs(top['price']):,.3g}",
        alt="Bars of the price of each limit that binds, the dearest first.",
        rows=prices,
        columns=("limit", "price"),
        note=note,
        key="limits",
    )


def curve(arm: str, draws: Iterable[Sequence[float]], most: float, currency: str, days: int, note: str) -> Picture:
    """A response curve with the band in which nine of ten drawn curves lie.

    Args:
        draws: (scale, half) of each drawn Michaelis-Menten curve.
        most: spend to which it is drawn.
    """
    spend = np.linspace(0, max(most, 1e-9), 40)
    drawn = np.array([[a, b] for a, b in draws], float).reshape(-1, 2)
    sales = drawn[:, :1] * spend / (drawn[:, 1:] + np.maximum(spend, 1e-12))
    low, middle, high = np.quantile(sales, [0.05, 0.5, 0.95], axis=0) if len(drawn) else (spend * 0,) * 3
    rows = [
        {"spend": float(x), "sales": float(m), "low": float(a), "high": float(b)}
        for x, m, a, b in zip(spend, middle, low, high, strict=True)
    ]
    return charts.picture(
        title=f"What spend on {arm} brings",
        alt=f"Curve of sales against spend on {arm}, with a band of nine in ten possible curves.",
        spec=charts.lines(
            "spend",
            "sales",
            low="low",
            high="high",
            x_title=f"Spend, {currency} per {days} days",
            y_title=f"Sales, {currency} per {days} days",
        ),
        rows=rows,
        columns=("spend", "sales", "low", "high"),
        note=note,
        key="curve",
    )


# -- experiments


def power(best: Mapping[str, Any], alpha: float) -> Picture:
    """How often each true lift would be found."""
    points = sorted(({"effect": float(k), "power": v} for k, v in best["power_at"].items()), key=lambda p: p["effect"])
    title = (
        f"A lift of {best['mde']:.1%} is found in four of five"
        if best.get("mde")
        else "No lift of the grid is found in four of five"
    )
    return charts.picture(
        charts.lines("effect", "power", x_title="True lift, share", y_title="Found in past stretches, share"),
        title=title,
        alt="Line of power against the true lift.",
        rows=points,
        note=f"Played on {best.get('windows', 0)} past stretches; false alarms in {best['false_positive_rate']:.0%} at a nominal {alpha:.0%}.",
        key="power",
    )


def _x_type(times: Sequence[Any]) -> str:
    """Dates and numbers have an axis that thins its labels; other periods stand one by one."""
    try:
        _ = [date.fromisoformat(str(time)) for time in times]
        return "temporal"
    except ValueError:
        pass
    try:
        _ = [float(time) for time in times]
        return "quantitative"
    except (TypeError, ValueError):
        return "nominal"


def counterfactual(series: Sequence[Mapping[str, Any]], outcome: str) -> Picture:
    """What happened, and what would have happened without the test, with the band of placebo units."""
    rows = [
        {
            "time": point["time"],
            "which": which,
            outcome: point[which],
            "low": point.get("low") if which == "expected" else None,
            "high": point.get("high") if which == "expected" else None,
        }
        for point in series
        for which in ("observed", "expected")
    ]
    banded = any(row["low"] is not None for row in rows)
    began = next((point["time"] for point in series if point.get("test")), "")
    return charts.picture(
        charts.lines(
            "time",
            outcome,
            x_title="Period",
            y_title=f"{outcome} per treated unit",
            series="which",
            x_type=_x_type([point["time"] for point in series]),
            zero=False,
            names=("observed", "expected"),
            low="low" if banded else None,
            high="high" if banded else None,
        ),
        title="What happened, and what would have",
        alt=f"Two lines: observed, and expected without treatment{', with the band in which untreated units stay' if banded else ''}. The test begins at {began}.",
        rows=rows,
        note=f"The test begins at {began}.{' Band: where sets of untreated units stay, at the level of the interval.' if banded else ''}",
        key="series",
    )


def cumulative(series: Sequence[Mapping[str, Any]], outcome: str) -> Picture | None:
    """The lift added up over the test; none where a method gives no series."""
    rows = [
        {"time": p["time"], "lift": p["cumulative"], "low": p.get("cumulative_low"), "high": p.get("cumulative_high")}
        for p in series
        if p.get("cumulative") is not None
    ]
    if not rows:
        return None
    banded = rows[0]["low"] is not None
    return charts.picture(
        charts.lines(
            "time",
            "lift",
            x_title="Period",
            y_title=f"{outcome} per treated unit, added up",
            x_type=_x_type([row["time"] for row in rows]),
            low="low" if banded else None,
            high="high" if banded else None,
        ),
        title=f"Added up over the test: {rows[-1]['lift']:+,.0f} per treated unit",
        alt="Line of the lift added up over the test, with its band." if banded else "Line of the lift added up.",
        rows=rows,
        key="cumulative",
    )


def placebos(effects: Sequence[float], att: float) -> Picture:
    """What sets of untreated units show, and where the test stands among them."""
    edge = max([abs(v) for v in effects] + [abs(att)]) * 1.05 or 1.0
    counts, edges = np.histogram(np.array(effects), bins=41, range=(-edge, edge))
    rows = [
        {"from": float(a), "to": float(b), "sets": int(n)}
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    beyond = sum(abs(v) >= abs(att) for v in effects)
    spec = {
        "layer": [
            {
                "mark": {"type": "rect", "color": charts.PALETTE[5]},
                "encoding": {
                    "x": {"field": "from", "type": "quantitative", "axis": charts.axis("Effect on sets to which nothing was done")},
                    "y": {"field": "sets", "type": "quantitative", "axis": charts.axis("Sets of units")},
                    "x2": {"field": "to"},
                    "y2": {"datum": 0},
                    "tooltip": [{"field": "from"}, {"field": "to"}, {"field": "sets"}],
                },
            },
            charts.rule(att, "this test", vertical=True),
        ]
    }  # fmt: skip
    return charts.picture(
        spec,
        title=f"{beyond} of {len(effects)} sets of untreated units show as much",
        alt=f"Bars of effects on sets of units to which nothing was done, and a line where this test stands ({att:.3g}).",
        rows=rows,
        note="Each set's gap is scaled by its error before the test, so that sets compare.",
        key="placebos",
    )

"""Pictures of budgets and curves: plain rows in, a picture out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

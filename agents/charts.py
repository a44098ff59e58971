"""Pictures of adapters and forecasts: plain rows in, a picture out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rmn.lib import charts
from rmn.lib.charts import PALETTE, Picture

STAGES = ("Answers", "Data set", "Made from", "Training", "Gate", "This version", "Deployed", "Serves as", "Led to")


def lineage(steps: Sequence[tuple[str, str]]) -> Picture | None:
    """From what people said to what serves: a row for each stage that is known, an arrow's line between neighbours.

    Args:
        steps: (stage of ``STAGES``, what stands there), several of one stage side by side.
    """
    rows = [stage for stage in STAGES if any(stage == step for step, _ in steps)]
    if len(rows) < 2:
        return None
    nodes: list[dict[str, Any]] = []
    for stage in rows:
        here = [told for step, told in steps if step == stage]
        nodes += [{"stage": stage, "place": place, "what": told} for place, told in enumerate(here)]
    lines = [
        {"stage": one["stage"], "place": one["place"], "next": other["stage"], "there": other["place"]}
        for upper, lower in pairwise(rows)
        for one in nodes
        if one["stage"] == upper
        for other in nodes
        if other["stage"] == lower
    ]
    wide = max(node["place"] for node in nodes)
    across = {"type": "quantitative", "axis": None, "scale": {"domain": [-0.1, wide + 0.9]}}
    down = {"type": "nominal", "sort": rows, "title": None, "axis": {"grid": False, "ticks": False, "domain": False}}
    spec = {
        "layer": [
            {
                "data": {"values": lines},
                "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.6},
                "encoding": {
                    "y": {"field": "stage", **down},
                    "y2": {"field": "next"},
                    "x": {"field": "place", **across},
                    "x2": {"field": "there"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                "encoding": {
                    "y": {"field": "stage", **down},
                    "x": {"field": "place", **across},
                    "color": {
                        "condition": {"test": "datum.stage === 'This version'", "value": PALETTE[1]},
                        "value": PALETTE[0],
                    },
                },
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 9},
                "encoding": {
                    "y": {"field": "stage", **down},
                    "x": {"field": "place", **across},
                    "text": {"field": "what"},
                },
            },
        ],
        "height": 34 * len(rows),
    }
    return charts.picture(
        spec,
        f"{len(rows)} steps are on record, from {rows[0].lower()} on",
        "A chain from top to bottom: " + "; ".join(f"{node['stage']}: {node['what']}" for node in nodes) + ".",
        nodes,
        key="lineage",
        columns=("stage", "what"),
    )


def reliability(table: Sequence[Mapping[str, Any]], n: int, note: str) -> Picture:
    """How often forecasts of each probability came true, with Wilson bars, beside what was said.

    Args:
        table: bins of ``calibration.scores``: mean_forecast, observed_rate, n, interval.
        n: resolved forecasts in all.
    """
    rows = [
        {
            "said": round(row["mean_forecast"], 4),
            "came true": round(row["observed_rate"], 4),
            "low": round(row["interval"][0], 4),
            "high": round(row["interval"][1], 4),
            "forecasts": row["n"],
        }
        for row in table
    ]
    gap = sum(row["n"] * (row["mean_forecast"] - row["observed_rate"]) for row in table) / n
    words = (
        "about as often as said"
        if abs(gap) < 0.02
        else f"{abs(gap):.0%} {'less' if gap > 0 else 'more'} often than said"
    )
    x = {"field": "said", "type": "quantitative", "axis": charts.axis("Said", format="%"), "scale": {"domain": [0, 1]}}
    y = {"type": "quantitative", "axis": charts.axis("Came true", format="%"), "scale": {"domain": [0, 1]}}
    tooltip = [{"field": name} for name in ("said", "came true", "low", "high", "forecasts")]
    even = [{"said": 0, "even": 0}, {"said": 1, "even": 1}]
    spec = {
        "layer": [
            {"data": {"values": even}, "mark": {"type": "line", "strokeDash": [4, 4], "opacity": 0.6}, "encoding": {"x": x, "y": {**y, "field": "even"}}},
            {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "opacity": 1}, "encoding": {"x": x, "y": {**y, "field": "came true"}, "size": {"field": "forecasts", "type": "quantitative", "legend": None}, "tooltip": tooltip}},
        ]
    }  # fmt: skip
    return charts.picture(
        spec,
        title=f"{n} resolved forecasts came true {words}",
        alt="Points of how often forecasts came true against the probability said, with bars of their uncertainty and the line of perfect agreement.",
        rows=rows,
        note=note,
        key="reliability",
    )

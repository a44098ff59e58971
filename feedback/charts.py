"""Pictures of what people say: plain rows in, a picture out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rmn.lib import charts, words
from rmn.lib.charts import Picture

Row = Mapping[str, Any]


def _interval(label: str, found: Row) -> dict[str, Any]:
    low, high = found["interval"] or (found["share"], found["share"])
    return {"what": label, "share": found["share"], "low": low, "high": high, "n": found["n"]}


def win_rates(rows: Sequence[Row], leader: Row | None) -> Picture | None:
    """Share of its pairs that each adapter won, ties half."""
    told = [_interval(row["adapter"], row) for row in rows]
    if not told:
        return None
    title = "No adapter is surely better yet"
    if leader and leader["interval"][0] > 0.5:
        title = f"{leader['leader']} wins {words.share(leader['win_rate'])} of its pairs, surely more than half"
    return charts.picture(
        charts.intervals("what", "share", "low", "high", x_title="Pairs won, ties half", zero_line=0.5, percent=True),
        title,
        "Points with intervals: the share of blind pairs each adapter won; a dashed line at one half.",
        told,
        note="Blind pairs judged by people, sides shuffled; Wilson intervals at 95 %.",
        key="win-rates",
    )


def approval(tasks: Sequence[Row]) -> Picture | None:
    """Thumbs up by task."""
    told = [_interval(row["task"], row["approval"]) for row in tasks if row["approval"]["n"]]
    if not told:
        return None
    best = max(told, key=lambda row: row["share"])
    return charts.picture(
        charts.intervals("what", "share", "low", "high", x_title="Thumbs up", percent=True, domain=(0, 1)),
        f"{str(best['what']).capitalize()} drafts are approved most: {words.share(best['share'])}",
        "Points with intervals: the share of thumbs up for each task.",
        told,
        note="Wilson intervals at 95 %.",
        key="approval",
    )


SHOWN = {"pair": "pairs", "thumb": "drafts with a thumb", "rating": "drafts with stars"}
SPOKEN = {
    "percent_agreement": "agreement",
    "alpha_nominal": "alpha",
    "alpha_ordinal": "alpha, ordinal",
    "alpha_interval": "alpha, interval",
    "gwet_ac1": "Gwet AC1",
    "gwet_ac2": "Gwet AC2",
}


def agreement(found: Mapping[str, Row]) -> Picture | None:
    """Coefficients of agreement by kind of answer, and the ceiling that no model can pass."""
    told = []
    for kind, row in found.items():
        for name, spoken in SPOKEN.items():
            value = row.get(name)
            if value and value["estimate"] is not None:
                low, high = value["interval"] or (value["estimate"], value["estimate"])
                told.append({"what": f"{kind}: {spoken}", "estimate": value["estimate"], "low": low, "high": high})
    if not told:
        return None
    least = min(0.0, *(one["low"] for one in told))
    spec = charts.intervals(
        "what", "estimate", "low", "high", x_title="1 is full agreement; alpha and AC: 0 is chance", domain=[least, 1]
    )
    kind, first = next(iter(found.items()))
    title = (
        f"Two people agree on {words.share(first['percent_agreement']['estimate'])} of the {SHOWN[kind]} both judged"
    )
    if first.get("ceiling") is not None:
        spec["layer"].append(charts.rule(first["ceiling"], "", vertical=True))
        title += f"; the ceiling is {words.share(first['ceiling'])}"
    return charts.picture(
        spec,
        title,
        "Points with intervals: coefficients of agreement by kind of answer; a dashed line at the ceiling.",
        told,
        note="Bootstrap over questions, 95 %. The ceiling (dashed) is how often one more person agrees with what the "
        "others said: no adapter can be expected to please people more often than they please each other.",
        key="agreement",
    )


def bias(first_side: Row, longer_text: Row, key: str = "bias") -> Picture | None:
    """Whether the side shown first, or the longer text, wins more than half."""
    told = [
        _interval(label, row)
        for label, row in (("shown first", first_side), ("longer text", longer_text))
        if row["share"] is not None
    ]
    if not told:
        return None
    uneven = [label for label, row in (("side", first_side), ("length", longer_text)) if row["uneven"]]
    title = (
        f"The {' and the '.join(uneven)} of a draft sways the votes"
        if uneven
        else "Neither side nor length surely sways the votes"
    )
    return charts.picture(
        charts.intervals(
            "what", "share", "low", "high", x_title="Decided pairs won", zero_line=0.5, percent=True, domain=(0, 1)
        ),
        title,
        "Two points with intervals beside a dashed line at one half: how often the draft shown first, and the longer one, won.",
        told,
        note="Half is even. Wilson intervals at 95 %; under 20 answers nothing is called a bias.",
        key=key,
    )


def by_week(rows: Sequence[Row]) -> Picture | None:
    """Answers a week, by kind."""
    if not rows:
        return None
    spec = {
        "mark": "bar",
        "encoding": {
            "x": {
                "field": "week",
                "type": "ordinal",
                "axis": charts.axis("Week beginning", labelAngle=0, labelOverlap=True),
            },
            "y": {"field": "answers", "type": "quantitative", "axis": charts.axis("Answers")},
            "color": {
                "field": "kind",
                "type": "nominal",
                "title": None,
                "scale": charts.colours(("thumb", "rating", "pair", "correction")),
            },
            "tooltip": [{"field": name} for name in ("week", "kind", "answers")],
        },
    }
    last = max(row["week"] for row in rows)
    count = sum(row["answers"] for row in rows if row["week"] == last)
    return charts.picture(
        spec,
        f"{words.counted(count, 'answer')} in the newest week",
        "Stacked bars of answers for each week, by kind.",
        rows,
        columns=("week", "kind", "answers"),
        key="by-week",
        height=200,
    )


DAY = re.compile(r"\d{4}-\d\d-\d\d")
TIMES = ("time", "date", "period", "week", "day", "x")
SEEN = ("observed", "treated", "actual", "outcome")
WITHOUT = ("counterfactual", "predicted", "synthetic", "expected", "control")


def effect(series: Sequence[Row], key: str) -> tuple[Picture, str] | None:
    """An experiment's curve: what was seen against what would have been without, where its rows have both."""
    if not series or not isinstance(series[0], Mapping):
        return None
    columns = [next((name for name in names if name in series[0]), "") for names in (TIMES, SEEN, WITHOUT)]
    if not all(columns):
        return None
    time, seen, without = columns
    told = [
        {"when": row[time], "which": which, "value": row[name]}
        for row in series
        for which, name in (("observed", seen), ("without the ads", without))
    ]
    spec = charts.lines(
        "when",
        "value",
        series="which",
        x_title="",
        y_title="Outcome",
        x_type="temporal" if all(DAY.match(str(row["when"])) for row in told) else "ordinal",
        zero=False,
        names=("observed", "without the ads"),
    )
    drawn = charts.picture(
        spec,
        "What was seen, and what would have been without the ads",
        "Two lines over time: the observed outcome, and the one to be expected without the ads.",
        told,
        key=key,
    )
    return drawn, drawn.title


def power(power_at: Mapping[str, float], key: str) -> Picture | None:
    """A design's power curve: how likely an effect of each size is found."""
    told = sorted(
        ({"effect": float(size), "power": float(chance)} for size, chance in power_at.items()),
        key=lambda row: row["effect"],
    )
    if len(told) < 2:
        return None
    spec = charts.lines("effect", "power", x_title="True effect, share of sales", y_title="Chance of finding it")
    return charts.picture(
        spec,
        "How likely the test finds an effect of each size",
        "A rising line: the chance of finding an effect against its size.",
        told,
        key=key,
        height=200,
    )

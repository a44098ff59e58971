from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import altair as alt
import pytest

from rmn.lib import charts

ROWS = [
    {"spend": 0.0, "sales": 0.0, "low": 0.0, "high": 0.0, "arm": "search"},
    {"spend": 10.0, "sales": 30.0, "low": 22.0, "high": 41.0, "arm": "search"},
]
LINES = charts.lines("spend", "sales", x_title="Spend, USD", y_title="Sales, USD", low="low", high="high")


def shown(spec: object = LINES, **more: object) -> charts.Picture:
    return charts.picture(spec, "Sales flatten after 10 USD", "A rising curve with a band.", ROWS, **more)


def test_a_picture_keeps_its_numbers_and_its_words() -> None:
    made = shown()
    assert made.columns == ("spend", "sales", "low", "high", "arm")
    assert made.cells[1] == [10.0, 30.0, 22.0, 41.0, "search"]
    assert made.spec["description"] == made.alt
    assert made.spec["data"]["values"] == list(made.rows)
    json.dumps(made.spec, allow_nan=False)


@pytest.mark.parametrize(
    "spec",
    [
        LINES,
        charts.lines("spend", "sales", x_title="x", y_title="y", series="arm", names=["search", "display"]),
        charts.intervals("arm", "sales", "low", "high", x_title="Win rate", zero_line=0.5, percent=True),
        charts.bars("arm", "sales", x_title="Sales, USD"),
        charts.bars("arm", "sales", x_title="Sales, USD", series="arm", names=["search"], stacked=True),
        {"layer": [*LINES["layer"], charts.rule(5, "plan"), charts.rule(5, "start", vertical=True)]},
    ],
)
def test_every_helper_makes_a_valid_drawing(spec: dict) -> None:
    made = shown(spec)
    alt.Chart.from_dict({k: v for k, v in made.spec.items() if k not in ("autosize", "width", "height")})
    assert made.svg().startswith("<svg")


def test_an_altair_chart_is_taken_as_it_is() -> None:
    chart = alt.Chart(alt.InlineData(values=ROWS)).mark_line().encode(x="spend:Q", y="sales:Q")
    assert "<svg" in shown(chart).svg()


def test_a_picture_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="alternative text"):
        charts.picture(LINES, "Title", " ", ROWS)


def test_values_become_what_json_knows() -> None:
    assert charts.plain(Decimal("1.5")) == 1.5
    assert charts.plain(dt.date(2026, 1, 2)) == "2026-01-02"
    assert charts.plain(float("nan")) is None


def test_the_same_entity_keeps_its_colour() -> None:
    alone = charts.colours(["walmart"])
    among = charts.colours(["walmart", "walmart"])
    assert dict(zip(alone["domain"], alone["range"])) == dict(zip(among["domain"], among["range"]))
    eight = charts.colours(f"entity {n}" for n in range(8))
    assert len(set(eight["range"])) == 8
    twenty = charts.colours(f"entity {n}" for n in range(20))
    assert len(twenty["range"]) == 20


def contrast(one: str, two: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((light(one), light(two)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", charts.PALETTE)
def test_every_colour_of_the_palette_shows_on_light_and_dark(colour: str) -> None:
    assert contrast(colour, "#ffffff") >= 3
    assert contrast(colour, "#0f1318") >= 3


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", " =1", "|x"])
def test_a_formula_leaves_as_text(cell: str) -> None:
    made = charts.picture(LINES, "t", "a", [{"note": cell}])
    assert charts.harmless(cell).startswith("'")
    assert "'" + cell in made.csv().replace('"', "")

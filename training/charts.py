"""Pictures of trainings and comparisons: plain rows in, a picture out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmn.lib import charts, words
from rmn.lib.charts import Picture

Row = Mapping[str, Any]


def loss(curve: Sequence[Row], stopped_by: str = "") -> Picture | None:
    """Loss by step; None before there is anything to draw."""
    told = [{"step": line["step"], "loss": line["loss"]} for line in curve if line.get("loss") is not None]
    if len(told) < 2:
        return None
    first, last = told[0]["loss"], told[-1]["loss"]
    title = f"The loss went from {words.short(first)} to {words.short(last)} in {words.counted(len(told), 'step')}"
    if stopped_by:
        title += f"; stopped by {stopped_by.replace('_', ' ')}"
    return charts.picture(
        charts.lines("step", "loss", x_title="Step", y_title="Loss, nats a token", zero=False),
        title,
        f"Line of the loss against the step, from {words.short(first)} to {words.short(last)}.",
        told,
        note="Of each step's own batch.",
        key="loss",
    )


def margin(curve: Sequence[Row]) -> Picture | None:
    """How far the preferred text leads, by step; only preference trainings have it."""
    told = [{"step": line["step"], "margin": line["margin"]} for line in curve if line.get("margin") is not None]
    if len(told) < 2:
        return None
    return charts.picture(
        charts.lines("step", "margin", x_title="Step", y_title="Lead of the preferred text, nats"),
        f"The preferred text leads by {words.short(told[-1]['margin'])} at the end",
        "Line of the margin between preferred and rejected text against the step.",
        told,
        note="Beta times the difference in log-probability against the reference; above zero the preference is learnt.",
        key="margin",
    )


SIDES = {"candidate": "candidate", "champion": "champion", "prompt_alone": "prompt alone"}


def pass_rates(found: Mapping[str, Row]) -> Picture | None:
    """Share of unseen items that pass, by side, with intervals over products."""
    told = [
        {"side": words_of, "rate": found[side]["estimate"], "low": found[side]["interval"][0], "high": found[side]["interval"][1]}
        for side, words_of in SIDES.items()
        if side in found
    ]  # fmt: skip
    if not told:
        return None
    best = max(told, key=lambda row: row["rate"])
    return charts.picture(
        charts.intervals(
            "side", "rate", "low", "high", x_title="Texts that pass all rules", percent=True, domain=(0, 1)
        ),
        f"The {best['side']} passes most often: {words.share(best['rate'])}",
        "Points with intervals: the share of unseen items whose text passes, for each side.",
        told,
        note="Intervals at 95 %, resampled over products: texts for one product are not independent.",
        key="pass-rates",
    )

"""False alarms, coverage and power of every panel method, by placebo experiments on real sales panels.

Each run treats random units over a random stretch in which nothing was done, analyses them as they are
(size), and once more with a lift of known size added (coverage of the truth, power). The published
inference of the same method stands beside the default one. ``RMN_SHARED_DATA`` names the folder with
``measurement/geolift_pretest.csv`` and ``geox_salesandcost.csv``; without it the stores of Complete
Journey are the only panel.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import Row
from campaigns.domain.experiments import panel as panels
from campaigns.domain.experiments.analysis import analyze
from campaigns.domain.experiments.panel import Panel

RUNS = {"small": 40, "full": 2000}
METHODS: dict[str, tuple[str, ...]] = {  # method: the inference of its authors, beside the default
    "synthetic_control": ("iid",),
    "augmented_synthetic_control": (),
    "synthetic_did": (),
    "did": ("textbook",),
    "gbr": ("textbook",),
    "tbr": ("textbook",),
}
ALPHA = 0.1
NOTE = (
    "Random units treated over random stretches without treatment; nominal .10, intervals of 90 %. Runs share one panel and"
    " overlap, so the standard error of a rate of .10 over 2,000 runs is somewhat more than .007. synthetic_control is analysed with"
    " fixed_effects; its iid inference is GeoLift's default statistic."
)


@dataclass(frozen=True)
class Past:
    """A panel in which nothing was done, and the test that is played in it."""

    name: str
    data: Panel
    treated: int
    length: int
    least: int  # periods before the test
    lift: float


def pasts() -> list[Past]:
    folder = Path(os.environ.get("RMN_SHARED_DATA", "")) / "measurement"
    found = []
    if (folder / "geolift_pretest.csv").is_file():
        cities = panels.panel(panels.table(folder / "geolift_pretest.csv"), "location", "date", "Y")
        found.append(Past("GeoLift's 40 cities, 2 treated for 15 days", cities, 2, 15, 30, 0.05))
    if (folder / "geox_salesandcost.csv").is_file():
        frame = panels.table(folder / "geox_salesandcost.csv").filter(pl.col("date") < "2015-02-16")
        regions = panels.panel(frame, "geo", "date", "sales", fill=0.0)
        found.append(Past("Google's 100 regions, 10 treated for 10 days", regions, 10, 10, 20, 0.05))
    if not found:
        found.append(Past("Complete Journey's stores, 5 treated for 8 weeks", stores(), 5, 8, 20, 0.2))
    return found


def stores() -> Panel:
    """Weekly sales of the stores that sold in every full week."""
    from retailers.domain.demo_feeds import find_data

    rows = pl.scan_parquet(find_data() / "transactions.parquet").filter(pl.col("week").is_between(2, 52))
    weekly = rows.group_by("store_id", "week").agg(pl.col("sales_value").sum()).collect()
    whole = weekly.group_by("store_id").len().filter(pl.col("len") == 51)["store_id"]
    kept = weekly.filter(pl.col("store_id").is_in(whole.to_list())).sort("store_id", "week")
    return panels.panel(kept, "store_id", "week", "sales_value")


def play(past: Past, method: str, inference: str, runs: int, seed: int = 1) -> dict[str, float]:
    """Shares of runs: rejected with nothing there, truth inside the interval, found with the lift there."""
    rng = np.random.default_rng(seed)
    units, periods = past.data.y_UT.shape
    counts = dict.fromkeys(("size", "coverage", "power"), 0)
    for run in range(runs):
        treated = [int(u) for u in rng.choice(units, past.treated, replace=False)]
        start = int(rng.integers(past.least, periods - past.length + 1))
        end = start + past.length
        y_UT = past.data.y_UT[:, :end].copy()
        spec = {
            "kind": "geo",
            "method": method,
            "inference": inference,
            "fixed_effects": True,
            "treated_units": [past.data.units[u] for u in treated],
            "start": start,
            "alpha": ALPHA,
            "seed": run,
        }
        counts["size"] += _found(spec, past.data, y_UT)["p_value"] < ALPHA
        truth = past.lift * float(y_UT[treated, start:].mean())
        y_UT[treated, start:] *= 1 + past.lift
        found = _found(spec, past.data, y_UT)
        low, high = (v if v is not None else sign * np.inf for v, sign in zip(found["interval"], (-1, 1), strict=True))
        counts["power"] += found["p_value"] < ALPHA
        counts["coverage"] += low <= truth <= high
    return {name: count / runs for name, count in counts.items()}


def _found(spec: Mapping[str, Any], data: Panel, y_UT: Any) -> dict[str, Any]:
    units, periods = y_UT.shape
    frame = pl.DataFrame(
        {
            "unit": np.repeat(np.array(data.units), periods),
            "time": np.tile(np.arange(periods), units),
            "outcome": y_UT.ravel(),
        }
    )
    return analyze(spec, frame=frame)


def rows(size: str) -> list[Row]:
    runs = RUNS[size]
    found = []
    for past in pasts():
        for method, published in METHODS.items():
            own = play(past, method, "block", runs)
            theirs = play(past, method, published[0], runs) if published else {}
            peer = f"its {published[0]} inference" if published else ""
            what = f"{method}, {past.name}, {runs:,} runs"
            bounds = 0.07, 0.13
            found += [
                Row(
                    f"{what}: false alarms",
                    own["size"],
                    "share",
                    peer,
                    theirs.get("size"),
                    ".07 to .13",
                    bounds[0] <= own["size"] <= bounds[1],
                ),
                Row(
                    f"{what}: 90 % interval holds the truth",
                    own["coverage"],
                    "share",
                    peer,
                    theirs.get("coverage"),
                    ".87 to .93",
                    1 - bounds[1] <= own["coverage"] <= 1 - bounds[0],
                ),
                Row(f"{what}: finds {past.lift:+.0%}", own["power"], "share", peer, theirs.get("power")),
            ]
    return found

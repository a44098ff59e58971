"""False alarms, coverage and power of every method, by placebo experiments on real sales panels.

Each run treats random units over a random stretch in which nothing was done, analyses them as they are
(size), and once more with a lift of known size added (coverage of the truth, power). The published
inference of the same method stands beside the default one. ``RMN_SHARED_DATA`` names the folder with
``measurement/geolift_pretest.csv`` and ``geox_salesandcost.csv``; without it the stores of Complete
Journey are the only panel.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from benchmarks.harness import Row
from campaigns.domain.experiments import contrasts, placebo, rates, synthetic
from campaigns.domain.experiments import panel as panels
from campaigns.domain.experiments.analysis import analyze
from campaigns.domain.experiments.contrasts import Contrast
from campaigns.domain.experiments.design import design
from campaigns.domain.experiments.geo import Cut, played
from campaigns.domain.experiments.panel import Panel
from rmn.lib.arrays import Array

RUNS = {"small": 20, "full": 2000}
PUBLISHED_RUNS = {"small": 10, "full": 300}  # of whole analyses
STRETCHES = 10  # in which tests are played
METHODS: dict[str, str] = {  # method: the inference of its authors, beside the default
    "synthetic_control": "iid",
    "augmented_synthetic_control": "",
    "synthetic_did": "textbook",
    "did": "textbook",
    "gbr": "textbook",
    "tbr": "textbook",
}
PEOPLE = ("ttest", "ratio", "cuped", "ols", "matching", "doubly_robust")  # one row a unit, half of them treated
ALPHA = 0.1
SIZE, COVERAGE = (0.07, 0.13), (0.87, 0.93)
GEOLIFT = 0.38  # power of GeoLift's default statistic on its own panel
NOTE = (
    "Random units treated in ten stretches without treatment; nominal .10, intervals of 90 %. Runs share one panel and"
    " overlap, so the standard error of a rate of .10 over 2,000 runs is somewhat more than .007. synthetic_control is analysed with"
    " fixed_effects; its iid inference is GeoLift's default statistic. Methods for people read one row a city, 20 of 40 treated, with"
    " two past means as covariates; switchback turns all cities on and off in random blocks of five days; causal_impact reads two"
    " cities' mean with the mean of the others as covariate. Their lift is the same amount for every row, so that coverage of the truth"
    " is what is not rejected without it. gbr weighs regions by 1 / sales and is held against the mean by its own weights."
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


# -- panels: the default inference, at its own speed


def contrast_of(method: str, cut: Cut) -> Contrast:
    if method == "synthetic_control":
        return contrasts.synthetic_control(fixed=True)
    if method == "augmented_synthetic_control":
        penalty = contrasts.penalty_of(cut.y_UT[:, cut.pre], cut.treated, fixed=True)
        return contrasts.augmented(penalty, fixed=True, relative=True)
    simple = {
        "did": contrasts.differences,
        "synthetic_did": contrasts.synthetic_differences,
        "gbr": contrasts.regression_on_regions,
        "tbr": contrasts.regression_on_total,
    }
    return simple[method]()


def play(past: Past, method: str, runs: int, seed: int = 1) -> dict[str, float]:
    """Shares of runs: rejected with nothing there, truth inside the interval, found with the lift there."""
    rng = np.random.default_rng(seed)
    units, periods = past.data.y_UT.shape
    starts = np.linspace(past.least, periods - past.length, STRETCHES).astype(int)
    counts = dict.fromkeys(("size", "coverage", "power"), 0)
    for run in range(runs):
        start = int(starts[run * STRETCHES // runs])
        treated = sorted(int(u) for u in rng.choice(units, past.treated, replace=False))
        plain_UT = past.data.y_UT[:, : start + past.length]
        lifted_UT = plain_UT.copy()
        lifted_UT[treated, start:] *= 1 + past.lift
        control = [u for u in range(units) if u not in set(treated)]
        told = []
        for y_UT in (plain_UT, lifted_UT):
            data = Panel(past.data.units, past.data.times[: y_UT.shape[1]], y_UT)
            cut = Cut(data, treated, control, slice(start, y_UT.shape[1]), pl.DataFrame())
            among, weight_U = played(cut, contrast_of(method, cut), start, placebo.SETS)
            told.append(among.bounds(ALPHA))
            if run < 3 * (len(told) == 2):  # the same as people get it
                found = _found(_spec(past, method, "block", treated, start, start), past.data, y_UT)
                if abs(found["p_value"] - told[-1][1]) > 1e-9:
                    raise AssertionError(f"{method}: {found['p_value']} by analyze, {told[-1][1]} here")
        gained_U = (lifted_UT - plain_UT)[treated][:, start:].mean(axis=1)
        truth = float(weight_U[treated] @ gained_U)
        counts["size"] += told[0][1] < ALPHA
        counts["power"] += told[1][1] < ALPHA
        counts["coverage"] += told[1][0][0] <= truth <= told[1][0][1]
    return {name: count / runs for name, count in counts.items()}


def play_published(past: Past, method: str, inference: str, runs: int, seed: int = 1) -> dict[str, float]:
    """The same by ``analyze`` as a whole, with the inference of the method's authors."""
    rng = np.random.default_rng(seed)
    units, periods = past.data.y_UT.shape
    counts = dict.fromkeys(("size", "coverage", "power"), 0)
    for run in range(runs):
        treated = [int(u) for u in rng.choice(units, past.treated, replace=False)]
        start = int(rng.integers(past.least, periods - past.length + 1))
        y_UT = past.data.y_UT[:, : start + past.length].copy()
        if inference == "iid":
            for name, hit in _shuffled(past, y_UT, treated, start).items():
                counts[name] += hit
            continue
        spec = _spec(past, method, inference, treated, start, run)
        counts["size"] += _found(spec, past.data, y_UT)["p_value"] < ALPHA
        gained_U = past.lift * y_UT[treated, start:].mean(axis=1)
        y_UT[treated, start:] *= 1 + past.lift
        found = _found(spec, past.data, y_UT)
        own = found["diagnostics"].get("treated_weights") or {}
        weights = [own.get(past.data.units[u], 1 / len(treated)) for u in treated]
        low, high = (v if v is not None else sign * np.inf for v, sign in zip(found["interval"], (-1, 1), strict=True))
        counts["power"] += found["p_value"] < ALPHA
        counts["coverage"] += low <= float(np.array(weights) @ gained_U) <= high
    return {name: count / runs for name, count in counts.items()}


def _shuffled(past: Past, y_UT: Array, treated: list[int], start: int) -> dict[str, bool]:
    """GeoLift's default: periods shuffled freely, the sum of absolute values; the p-values that its interval is made of."""
    contrast, test = contrasts.synthetic_control(fixed=True), slice(start, y_UT.shape[1])
    gained = past.lift * float(y_UT[treated, start:].mean())
    lifted_UT, taken_UT = y_UT.copy(), y_UT.copy()
    lifted_UT[treated, start:] *= 1 + past.lift
    taken_UT[treated, start:] = lifted_UT[treated, start:] - gained
    p = [
        synthetic.iid_p(contrast.gaps(one, [treated], np.ones(one.shape[1], bool), test)[0][0], test)
        for one in (y_UT, lifted_UT, taken_UT)
    ]
    return {"size": p[0] < ALPHA, "power": p[1] < ALPHA, "coverage": p[2] >= ALPHA}


def _spec(past: Past, method: str, inference: str, treated: Sequence[int], start: int, seed: int) -> dict[str, Any]:
    return {
        "kind": "geo",
        "method": method,
        "inference": inference,
        "fixed_effects": True,
        "treated_units": [past.data.units[u] for u in treated],
        "start": start,
        "alpha": ALPHA,
        "seed": seed,
    }


def _found(spec: Mapping[str, Any], data: Panel, y_UT: Array) -> dict[str, Any]:
    units, periods = y_UT.shape
    frame = pl.DataFrame(
        {
            "unit": np.repeat(np.array(data.units), periods),
            "time": np.tile(np.arange(periods), units),
            "outcome": y_UT.ravel(),
        }
    )
    return analyze(spec, frame=frame)


# -- methods that compare no placebo units


def play_rows(past: Past, method: str, runs: int, seed: int = 1) -> dict[str, float]:
    """The same for methods whose estimate moves by a lift of one amount for all, and whose error does not."""
    rng = np.random.default_rng(seed)
    y_UT = past.data.y_UT
    units, periods = y_UT.shape
    counts = dict.fromkeys(("size", "power"), 0)
    for _ in range(runs):
        start = int(rng.integers(past.least, periods - past.length + 1))
        end = start + past.length
        if method == "causal_impact":
            treated = rng.choice(units, past.treated, replace=False)
            mine_T, rest_T = y_UT[treated].mean(axis=0), np.delete(y_UT, treated, axis=0).mean(axis=0)
            frame = pl.DataFrame({"time": range(end), "outcome": mine_T[:end], "rest": rest_T[:end]})
            spec: dict[str, Any] = {"kind": "time_series", "covariates": ["rest"], "start": start}
            lift = past.lift * float(mine_T[start:end].mean())
        elif method == "switchback":
            block, blocks = 5, periods // 5
            on_UT = np.array([np.repeat(rng.permutation(np.arange(blocks) % 2), block) for _ in range(units)])
            shown_UT = y_UT[:, : block * blocks]
            frame = pl.DataFrame(
                {
                    "unit": np.repeat(np.arange(units), block * blocks),
                    "time": np.tile(np.arange(block * blocks), units),
                    "outcome": shown_UT.ravel(),
                    "treatment": on_UT.ravel(),
                }
            )
            spec = {"kind": "switchback", "unit": "unit"}
            lift = past.lift * float(shown_UT.mean())
        else:
            on_U = np.zeros(units)
            on_U[rng.choice(units, units // 2, replace=False)] = 1
            ahead_U, before_U = y_UT[:, start:end].mean(axis=1), y_UT[:, :start].mean(axis=1)
            frame = pl.DataFrame(
                {
                    "outcome": ahead_U,
                    "treatment": on_U,
                    "before": before_U,
                    "lately": y_UT[:, start - 7 : start].mean(axis=1),
                    "denominator": before_U,
                }
            )
            kind = "observational" if method in ("matching", "doubly_robust") else "ab"
            spec = {"kind": kind, "covariates": [] if method in ("ttest", "ratio") else ["before", "lately"]}
            lift = past.lift * float(ahead_U.mean())
            if method == "ratio":
                lift /= float(before_U[on_U == 1].mean())
        found = analyze({**spec, "method": method, "alpha": ALPHA}, frame=frame)
        counts["size"] += found["p_value"] < ALPHA
        low, high = found["interval"]
        counts["power"] += not low + lift <= 0 <= high + lift
    size = counts["size"] / runs
    return {"size": size, "coverage": 1 - size, "power": counts["power"] / runs}


# -- the table


Job: TypeAlias = tuple[
    str, int, str, str, int
]  # what is played, on which panel, by which method and inference, how often


def _job(asked: Job) -> tuple[Job, dict[str, float]]:
    what, place, method, inference, runs = asked
    past = pasts()[place]
    if what == "panel":
        return asked, play(past, method, runs)
    if what == "published":
        return asked, play_published(past, method, inference, runs)
    return asked, play_rows(past, method, runs)


def rows(size: str) -> list[Row]:
    runs, fewer, places = RUNS[size], PUBLISHED_RUNS[size], range(len(pasts()))
    jobs = [("panel", 0, method, "", runs) for method in METHODS]
    jobs += [("rows", 0, method, "", runs) for method in ("causal_impact", "switchback", *PEOPLE)]
    jobs += [("panel", place, method, "", runs) for place in places[1:] for method in METHODS]
    jobs += [
        ("published", place, method, how, runs if how == "iid" else fewer)
        for place in places
        for method, how in METHODS.items()
        if how
    ]
    told: dict[Job, dict[str, float]] = {}
    with get_context("spawn").Pool(2) as pool:
        for job, own in pool.imap_unordered(_job, jobs):
            told[job] = own
            print(f"{len(told)} of {len(jobs)}: {job} {own}", file=sys.stderr, flush=True)
    told = {job: told[job] for job in jobs}
    if size == "full":
        keep(told)
    return table_of(told) + screens()


def keep(told: Mapping[Job, Mapping[str, float]]) -> None:
    """What the product shows beside its results."""
    rows = []
    for (what, place, method, how, runs), own in told.items():
        past = pasts()[place]
        panel = past.name if what != "rows" else past.name.split(",")[0]
        row = {"method": method, "inference": how or "block", "panel": panel, "runs": runs, "lift": past.lift}
        shares = {"false_alarms": own["size"], "coverage": own["coverage"], "power": own["power"]}
        rows.append(row | {name: round(share, 4) for name, share in shares.items()})
    rates.PLACE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def table_of(told: Mapping[Job, Mapping[str, float]]) -> list[Row]:
    published = {(job[1], job[2]): (job, own) for job, own in told.items() if job[0] == "published"}
    found = []
    for job, own in told.items():
        what, place, method, _, runs = job
        if what == "published":
            continue
        past, peer = pasts()[place], ""
        theirs: Mapping[str, float] = {}
        if what == "panel" and (place, method) in published:
            (*_, how, fewer), theirs = published[place, method]
            peer = f"{'GeoLift’s default, ' if how == 'iid' else ''}its {how} inference, {fewer:,} runs"
        where = past.name if what == "panel" else past.name.split(",")[0]
        name = f"{method}, {where}, {runs:,} runs"
        asked = (
            max(1.5 * theirs.get("power", 0.0), GEOLIFT * 1.5 * (place == 0)) if method == "synthetic_control" else None
        )
        held = {"false alarms": ("size", SIZE), "90 % interval holds the truth": ("coverage", COVERAGE)}
        for words, (key, (low, high)) in held.items():
            bar = f"{low:.2f} to {high:.2f}".replace("0.", ".")
            found.append(
                Row(f"{name}: {words}", own[key], "share", peer, theirs.get(key), bar, _in(own[key], (low, high)))
            )
        bar, holds = (f"at least {asked:.2f}", own["power"] >= asked) if asked else ("", None)
        found.append(
            Row(f"{name}: finds {past.lift:+.0%}", own["power"], "share", peer, theirs.get("power"), bar, holds)
        )
    return found


def _in(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= round(value, 4) <= bounds[1]


def screens() -> list[Row]:
    """How long the search for markets takes on the first panel."""
    past = pasts()[0]
    units, periods = past.data.y_UT.shape
    frame = pl.DataFrame(
        {
            "unit": np.repeat(np.array(past.data.units), periods),
            "time": np.tile(np.arange(periods), units),
            "outcome": past.data.y_UT.ravel(),
        }
    )
    plain = {"kind": "geo", "duration": past.length}
    pairs = {**plain, "treated": {"min": 2, "max": 2}, "windows": 7, "tried": 780}
    many = {**plain, "treated": {"min": 4, "max": 4}}
    found = []
    for words, spec, limit in (
        ("every pair played in 7 stretches", pairs, 1.0),
        ("sets of four ranked, 60 played", many, 30.0),
    ):
        taken, told = [], {}
        for _ in range(3):
            began = time.process_time()
            told = design(spec, frame=frame)
            taken.append(time.process_time() - began)
        middle = statistics.median(taken)
        name = f"{told['screened']:,} candidate sets of {units} units, {words}, {told['played']} played in all: processor time"
        found.append(Row(name, middle, "s", bar=f"at most {limit:g} s", holds=middle <= limit))
    return found

"""How to design an experiment: how many, how long, which regions, and what it would find.

Sample sizes are the textbook's (statsmodels). Geo designs are tried on the user's own past: each
candidate set of regions plays every past stretch of the planned length as if it were the test, once
as it was (how often would this design cry wolf?) and once with each effect added (how often would
it find it?).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from campaigns.domain.experiments import contrasts, placebo, synthetic
from campaigns.domain.experiments import looks as watching
from campaigns.domain.experiments import panel as panels
from campaigns.domain.experiments.panel import Panel
from rmn.lib.arrays import Array, BoolArray, IntArray
from rmn.lib.errors import BadInput

Progress = Callable[[int, int, str], None]
TRIED = 60  # candidate sets that are played through, best fitting first
SHOWN = 20
SCREENED = 100_000  # candidate sets that are ranked at most
ASSIGNMENTS = ("chosen", "matched_pairs", "stratified")
WINDOWS = 40  # past stretches played at most
CHUNK = 64  # sets ranked at once, so that the work stays in the processor's cache
PLACEBOS = 120  # sets of each size that play beside the candidates
LEAST_PRE = 8  # periods before a stretch, to fit on
ENOUGH = 0.8


def design(
    spec: Mapping[str, Any],
    *,
    folder: Path | None = None,
    frame: pl.DataFrame | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """DESIGN of a specification (CONTRACTS section 4).

    Args:
        spec: what is to be found, and in what.
        folder: that paths in it are relative to.
        frame: the panel, where it is at hand.
        progress: told (done, of, what).

    Raises:
        BadInput: the specification or the data make no sense; with the place.
    """
    kind = spec.get("kind")
    if kind in ("ab", "audience"):
        return sample_size(spec)
    if kind == "geo":
        return geo(spec, folder, frame, progress)
    if kind == "switchback":
        return switchback(spec, folder, frame)
    raise BadInput(f"kind is {kind!r}: ab, audience, geo or switchback")


def number(spec: Mapping[str, Any], name: str, default: float | None, low: float, high: float) -> float:
    """A number of the specification within limits.

    Raises:
        BadInput: missing or outside.
    """
    value = spec.get(name, default)
    if value is None:
        raise BadInput(f"{name} is missing")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{name} is {value!r}: a number was expected")
    if not low <= value <= high:
        raise BadInput(f"{name} is {value:g}: between {low:g} and {high:g}")
    return float(value)


def alpha_of(spec: Mapping[str, Any], default: float = 0.1) -> float:
    """The level of a test; that of an early look may be far below the usual."""
    return number(spec, "alpha", default, 1e-9, 0.5)


def seed_of(spec: Mapping[str, Any]) -> int:
    return int(number(spec, "seed", 1, 0, 2**32 - 1))


# -- people


def sample_size(spec: Mapping[str, Any]) -> dict[str, Any]:
    """People (or clusters of them) per group, or the effect that given numbers would find.

    With ``cluster_size`` and ``icc`` the numbers grow by the design effect 1 + (m - 1) icc; with
    ``pre_correlation`` (CUPED) the variance shrinks by 1 - rho^2. ``looks`` evenly spaced ones stop at
    O'Brien and Fleming's bounds (``look_levels``) and raise the numbers accordingly.
    """
    from statsmodels.stats.power import NormalIndPower, TTestIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    metric = spec.get("metric", "proportion")
    if metric not in ("proportion", "mean", "ratio"):
        raise BadInput(f"metric is {metric!r}: proportion, mean or ratio")
    alpha = alpha_of(spec, 0.05)
    power = number(spec, "power", 0.8, 0.05, 0.9999)
    ratio = number(spec, "ratio", 1.0, 1e-3, 1e3)
    tails = spec.get("tails", 2)
    if tails not in (1, 2):
        raise BadInput(f"tails is {tails!r}: 1 or 2")
    baseline = number(spec, "baseline", None, -1e15, 1e15)
    if metric == "proportion" and not 0 < baseline < 1:
        raise BadInput(f"baseline is {baseline:g}: a proportion lies between 0 and 1")
    std = 1.0
    if metric != "proportion":
        std = number(spec, "std", None, 1e-300, 1e300)
    rho = number(spec, "pre_correlation", 0.0, -0.999, 0.999)
    cluster, icc = number(spec, "cluster_size", 1.0, 1.0, 1e9), number(spec, "icc", 0.0, 0.0, 1.0)
    inflation = (1 - rho**2) * (1 + (cluster - 1) * icc)
    looks = int(number(spec, "looks", 1, 1, 20))
    inflation *= watching.inflation(alpha, power, looks, int(tails))
    engine = NormalIndPower() if metric == "proportion" else TTestIndPower()
    alternative = "two-sided" if tails == 2 else "larger"

    def size_of(effect: float) -> float:
        if metric == "proportion":
            return abs(float(proportion_effectsize(baseline + effect, baseline)))
        return abs(effect) / std

    relative = bool(spec.get("relative", True))
    given = spec.get("n_control") or spec.get("n")
    if given is not None:
        n = number({"n": given}, "n", None, 2, 1e12)
        smallest = float(
            engine.solve_power(
                None, nobs1=n / inflation, alpha=alpha, power=power, ratio=ratio, alternative=alternative
            )
        )
        effect = _effect_of(smallest, baseline, std, metric)
        n_control, n_treatment = n, n * ratio
    else:
        mde = number(spec, "mde", None, -1e15, 1e15)
        effect = mde * baseline if relative else mde
        if effect == 0:
            raise BadInput("mde is 0: no number of people finds an effect of nothing")
        if metric == "proportion" and not 0 < baseline + effect < 1:
            raise BadInput(f"mde: {baseline:g} changed by {effect:g} is no proportion")
        n = float(
            engine.solve_power(
                size_of(effect), nobs1=None, alpha=alpha, power=power, ratio=ratio, alternative=alternative
            )
        )
        n_control, n_treatment = math.ceil(n * inflation), math.ceil(n * inflation * ratio)
    reached = float(
        engine.power(
            size_of(effect), n_control / inflation, alpha, ratio=n_treatment / n_control, alternative=alternative
        )
    )
    curve = [
        {
            "effect": share * effect,
            "power": float(
                engine.power(
                    size_of(share * effect), n_control / inflation, alpha, ratio=ratio, alternative=alternative
                )
            ),
        }
        for share in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
        if metric != "proportion" or 0 < baseline + share * effect < 1
    ]
    return {
        "kind": spec["kind"],
        "metric": metric,
        "n_control": int(n_control),
        "n_treatment": int(n_treatment),
        "n_total": int(n_control) + int(n_treatment),
        "clusters_per_group": math.ceil(n_control / cluster) if cluster > 1 else None,
        "mde": effect / baseline if relative and baseline else effect,
        "mde_absolute": effect,
        "power": reached,
        "alpha": alpha,
        "tails": tails,
        "looks": looks,
        "look_levels": watching.levels(alpha, looks, int(tails)),
        "variance_factor": inflation,
        "power_curve": curve,
        "assumptions": _assumptions(metric, rho, cluster, icc, looks),
    }


def _effect_of(size: float, baseline: float, std: float, metric: str) -> float:
    if metric != "proportion":
        return size * std
    angle = 2 * math.asin(math.sqrt(baseline)) + size
    return math.sin(min(angle, math.pi) / 2) ** 2 - baseline


def _assumptions(metric: str, rho: float, cluster: float, icc: float, looks: int) -> list[str]:
    found = [
        "proportions by the arcsine transform, normal" if metric == "proportion" else "Student's t, equal variances",
        "people are assigned at random and do not influence each other",
    ]
    if metric == "ratio":
        found.append("std is that of the linearised ratio (delta method)")
    if rho:
        found.append(f"CUPED with a pre-period correlation of {rho:g}")
    if cluster > 1:
        found.append(f"assigned in clusters of {cluster:g} with intra-class correlation {icc:g}")
    if looks > 1:
        found.append(f"{looks} equally spaced looks with O'Brien-Fleming bounds")
    return found


# -- regions


def geo(
    spec: Mapping[str, Any], folder: Path | None, frame: pl.DataFrame | None, progress: Progress | None = None
) -> dict[str, Any]:
    """Which regions to treat: candidates by the smallest effect they would find on the user's past."""
    given, where = panels.of_spec(spec, folder, frame)
    data = panels.panel(
        given, spec.get("unit", "unit"), spec.get("time", "time"), spec.get("outcome", "outcome"), where
    )
    duration = int(number(spec, "duration", None, 1, 10_000))
    alpha = alpha_of(spec)
    effects = effects_of(spec)
    units, periods = data.y_UT.shape
    if units < 2:
        raise BadInput(f"{where}: {data.units[0]} is the only unit; treated and control are both needed")
    if periods < LEAST_PRE + 2 * duration:
        raise BadInput(
            f"{where}: {periods} periods; a test of {duration} needs at least {LEAST_PRE + 2 * duration} to try it on"
        )
    cost = spec.get("cost_per_unit_lift")
    if cost is not None:
        cost = number(spec, "cost_per_unit_lift", None, 1e-300, 1e300)
    include = data.rows_of(spec.get("include") or [], "include")
    left_out = set(data.rows_of(spec.get("exclude") or [], "exclude"))
    if set(include) & left_out:
        raise BadInput("include and exclude name the same unit")
    dead = [u for u in range(units) if data.y_UT[u].std() == 0]
    pool = [u for u in range(units) if u not in dead]
    if len(pool) < 2:
        raise BadInput(f"{where}: {spec.get('outcome', 'outcome')} never changes in {len(dead)} of {units} units")
    past = _Past(data, pool, duration, int(number(spec, "windows", WINDOWS, 1, 1000)))
    how = spec.get("assignment", "chosen")
    if how not in ASSIGNMENTS:
        raise BadInput(f"assignment is {how!r}: one of {', '.join(ASSIGNMENTS)}")
    if how != "chosen":
        kept = [u for u in range(len(pool)) if pool[u] not in left_out]
        return _told_geo(spec, past, [_assigned(spec, past, how, kept, effects, alpha, cost)], alpha, 1, dead)
    wanted = spec.get("treated") or {}
    least = int(number(wanted, "min", 1, 1, units - 1))
    most = int(number(wanted, "max", max(least, min(5, units // 3 or 1)), least, units - 1))
    free = [u for u in range(len(pool)) if pool[u] not in left_out]
    forced = [pool.index(u) for u in include if u in pool]
    sets = _candidates(free, forced, least, most, seed_of(spec))
    if not any(len(one) for one in sets):
        raise BadInput(f"no set of {least} to {most} units is left to treat; loosen treated, include or exclude")
    tried = int(number(spec, "tried", TRIED, 1, 2000))
    chosen = past.best(sets, tried)
    found = []
    for size in sorted({len(one) for one in chosen}):
        mine = [one for one in chosen if len(one) == size]
        found += past.play(mine, effects, alpha, cost, seed_of(spec))
        if progress is not None:
            progress(len(found), len(chosen), "sets of units")
    # what the windows tell between two tried effects is noise: among those that find the same one, the best followed first
    found.sort(key=lambda c: (_cries_wolf(c, alpha), c["detects"] is None, c["detects"] or 0, c["fit"]["scaled_l2"]))
    return _told_geo(spec, past, found, alpha, sum(len(one) for one in sets), dead)


def effects_of(spec: Mapping[str, Any]) -> list[float]:
    """The relative effects that are tried.

    Raises:
        BadInput: they are no list of such numbers.
    """
    given = spec.get("effects") or [0.0, 0.02, 0.05, 0.1, 0.15, 0.2]
    if not isinstance(given, list) or not all(
        isinstance(e, int | float) and not isinstance(e, bool) and math.isfinite(e) and -1 < e < 10 for e in given
    ):
        raise BadInput("effects: a list of relative effects such as 0.05 was expected")
    return [float(e) for e in given]


def _told_geo(
    spec: Mapping[str, Any], past: _Past, found: list[dict[str, Any]], alpha: float, screened: int, dead: Sequence[int]
) -> dict[str, Any]:
    best, data = found[0], past.data
    out = [data.units[u] for u in dead]
    analysis = {
        "kind": "geo",
        "method": "did" if "strata" in best else "synthetic_control",
        "fixed_effects": True,
        "treated_units": best["units"],
        "exclude": out + (best["not_assigned"] if "strata" in best else []),
        "alpha": alpha,
        "seed": seed_of(spec),
    }
    if "strata" in best:
        analysis["strata"] = best["strata"]
        del analysis["fixed_effects"]
    return {
        "kind": "geo",
        "candidates": found[:SHOWN],
        "best": best,
        "screened": screened,
        "played": len(found),
        "windows": best["windows"],
        "duration": past.duration,
        "alpha": alpha,
        "method": analysis["method"],
        "inference": best["inference"],
        "analysis": analysis,
        "left_out": out,
        "warnings": _warnings(best, len(data.times), past.duration, alpha, out),
    }


def _candidates(free: Sequence[int], include: Sequence[int], least: int, most: int, seed: int) -> list[IntArray]:
    """Sets of each size, a row a set: all of them where they are few enough, else drawn."""
    others = [u for u in free if u not in include]
    sizes = [s for s in range(max(least, len(include)), most + 1) if s and s - len(include) <= len(others)]
    rng = np.random.default_rng(seed)
    found = []
    for size in sizes:
        extra = size - len(include)
        count = math.comb(len(others), extra)
        if count <= SCREENED // len(sizes):
            rows = np.array(list(combinations(others, extra)), int).reshape(count, extra)
        else:
            keys = rng.random((SCREENED // len(sizes), len(others)))
            rows = np.array(others)[np.argpartition(keys, extra - 1, axis=1)[:, :extra]]
        both = np.hstack([np.tile(np.array(include, int), (len(rows), 1)), rows])
        found.append(np.unique(np.sort(both, axis=1), axis=0))
    return found


class _Past:
    """The user's own past, in which designs are tried: stretches of the test's length, nothing done in any."""

    def __init__(self, data: Panel, pool: Sequence[int], duration: int, windows: int) -> None:
        self.data, self.pool, self.duration = data, list(pool), duration
        self.y_UT = data.y_UT[self.pool]
        self.everyone = self.y_UT.sum(axis=0)
        periods = self.y_UT.shape[1]
        first = max(LEAST_PRE, duration)
        count = min(windows, periods - duration - first + 1)
        self.starts = [int(s) for s in np.unique(np.linspace(first, periods - duration, count).astype(int))]

    def best(self, sets: Sequence[IntArray], count: int) -> list[tuple[int, ...]]:
        """The sets that the others follow most closely, by their members' own misfits over the whole past.

        A mean of members misses by the mean of their gaps, so that one fit per unit ranks every set.
        """
        past_UT = synthetic.centred(self.y_UT, np.ones(self.y_UT.shape[1], bool))
        units = len(past_UT)
        weight_UU = np.zeros((units, units))
        for u in range(units):
            rest = [v for v in range(units) if v != u]
            weight_UU[u, rest] = synthetic.simplex_weights(past_UT[rest], past_UT[u])
        miss_UT, plain_UT = past_UT - weight_UU @ past_UT, past_UT - past_UT.mean(axis=0)
        ranked = []
        for rows in sets:
            score = _norms(miss_UT, rows) / np.maximum(_norms(plain_UT, rows), 1e-300)
            near = np.argsort(score, kind="stable")[:count]
            ranked += [(float(score[i]), tuple(int(u) for u in rows[i])) for i in near]
        return [one for _, one in sorted(ranked)[:count]]

    @threadpool_limits.wrap(limits=1, user_api="blas")  # thousands of small systems: threads would only wait
    def weights(self, sets: Sequence[tuple[int, ...]]) -> list[Array]:
        """For each stretch, and last for the whole past, the weights of the sets; each fit begins from the one before."""
        target_BU = np.zeros((len(sets), len(self.pool)))
        for row, one in enumerate(sets):
            target_BU[row, list(one)] = 1 / len(one)
        found: list[Array] = []
        on_BU: BoolArray | None = None
        for start in [*self.starts, self.y_UT.shape[1]]:
            past_UT = synthetic.centred(self.y_UT[:, :start], np.ones(start, bool))
            weight_BU = np.full_like(target_BU, np.nan)
            if 2 * start > len(self.pool):  # with fewer periods most exchanges do not settle
                weight_BU, on_BU = synthetic.simplex_weights_many(past_UT @ past_UT.T, target_BU, on_BU)
            for row in np.flatnonzero(np.isnan(weight_BU).any(axis=1)).tolist():
                free = np.flatnonzero(target_BU[row] == 0)
                weight_BU[row] = 0.0
                weight_BU[row, free] = synthetic.simplex_weights(past_UT[free], target_BU[row] @ past_UT)
            on_BU = weight_BU > 0
            found.append(target_BU - weight_BU)
        return found

    def play(
        self, sets: Sequence[tuple[int, ...]], effects: Sequence[float], alpha: float, cost: Any, seed: int
    ) -> list[dict[str, Any]]:
        """Sets of one size in every past stretch, among other sets of that size, as the analysis will read them."""
        others = placebo.sets(len(self.pool), sets[0], seed, max(PLACEBOS, len(sets)))
        every = list(dict.fromkeys([*sets, *others]))
        return self.tally(every, len(sets), self.weights(every), effects, alpha, cost)

    def tally(
        self,
        every: Sequence[tuple[int, ...]],
        count: int,
        weights: Sequence[Array],
        effects: Sequence[float],
        alpha: float,
        cost: Any,
    ) -> list[dict[str, Any]]:
        """False alarms and power of the first ``count`` sets among all, over the stretches."""
        grid = sorted({*effects, 0.0})
        in_space = 1 / len(every) < alpha
        hits = np.zeros((count, len(grid)))
        bias = np.zeros((count, len(self.starts)))
        on_BU = np.zeros((len(every), len(self.pool)))
        for row, one in enumerate(every):
            on_BU[row, list(one)] = 1.0
        size_BT = on_BU @ np.abs(self.y_UT) / on_BU.sum(axis=1, keepdims=True)
        for row, (start, weight_BU) in enumerate(zip(self.starts, weights[:-1], strict=True)):
            end, test = start + self.duration, slice(start, start + self.duration)
            gap_BT = weight_BU @ self.y_UT[:, :end]
            gap_BT -= gap_BT[:, :start].mean(axis=1, keepdims=True)
            among = placebo.Placebos(gap_BT, size_BT[:, :start].mean(axis=1), np.ones(len(every)), test)
            sold_U = self.y_UT[:, test].mean(axis=1)
            bias[:, row] = among.effect_S[:count] / np.maximum(size_BT[:count, test].mean(axis=1), 1e-12)
            seen_B = among.effect_S / among.error_S
            lift_PB = (on_BU[:count] * sold_U) @ weight_BU.T / among.error_S
            if in_space:
                hits += _rejected(seen_B, lift_PB, grid, alpha)
            for place in range(0 if in_space else count):
                mine_U = list(every[place])
                rest = [u for u in range(len(self.y_UT)) if u not in mine_U]
                for at, effect in enumerate(grid):
                    mine = self.y_UT[mine_U, :end].mean(axis=0)
                    mine[start:] *= 1 + effect
                    gap_T, _ = synthetic.residuals(mine, self.y_UT[rest, :end], np.ones(end, bool))
                    hits[place, at] += synthetic.block_p(gap_T, test) < alpha
        named = [f"{effect:g}" for effect in grid]
        sold_P = (on_BU[:count] @ self.y_UT[:, -self.duration :]).sum(axis=1)
        total, everyone = (on_BU[:count] @ self.y_UT).sum(axis=1), float(self.data.y_UT.sum())
        fits = self._fits(on_BU[:count], weights[-1][:count] @ self.y_UT)
        power_PE, spread_P, bias_P = hits / len(self.starts), bias.std(axis=1), bias.mean(axis=1)
        found = []
        for place in range(count):
            power = dict(zip(grid, power_PE[place].tolist(), strict=True))
            mde, sold = _smallest(power), float(sold_P[place])
            found.append(
                {
                    "units": [self.data.units[self.pool[u]] for u in every[place]],
                    "mde": mde,
                    "detects": next((e for e in grid if mde is not None and e > 0 and e >= mde), None),
                    "power_at": dict(zip(named, power.values(), strict=True)),
                    "false_positive_rate": power[0.0],
                    "windows": len(self.starts),
                    "inference": "placebo" if in_space else "block",
                    "bias": float(bias_P[place]),
                    "error_std": float(spread_P[place]),
                    "share": float(total[place]) / everyone if everyone else None,
                    "baseline": sold,
                    "investment": cost * mde * sold if cost is not None and mde is not None else None,
                    "investment_at": {f"{e:g}": cost * e * sold for e in grid if e > 0} if cost is not None else None,
                    "fit": {name: float(value_P[place]) for name, value_P in fits.items()},
                }
            )
        return found

    def _fits(self, on_PU: Array, gap_PT: Array) -> dict[str, Array]:
        """How closely the others follow each set over the whole past."""
        many = on_PU.sum(axis=1, keepdims=True)
        mine_PT = on_PU @ self.y_UT / many
        rest_PT = (self.everyone - mine_PT * many) / np.maximum(len(self.pool) - many, 1)

        def length(series_PT: Array) -> Array:
            return np.sqrt(((series_PT - series_PT.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))

        l2, naive, own = length(gap_PT), length(mine_PT - rest_PT), length(mine_PT)
        left_PT = np.abs(gap_PT - gap_PT.mean(axis=1, keepdims=True)) / np.maximum(np.abs(mine_PT), 1e-12)
        return {
            "l2": l2,
            "scaled_l2": np.divide(l2, naive, out=np.zeros_like(l2), where=naive > 0),
            "r2": 1 - np.divide(l2**2, own**2, out=np.ones_like(l2), where=own > 0),
            "mape": left_PT.mean(axis=1),
        }


def _rejected(seen_B: Array, lift_PB: Array, grid: Sequence[float], alpha: float) -> Array:
    """Set by effect: whether its ratio ranks among the first ``alpha`` of all once the effect is there."""
    count, every = lift_PB.shape
    found = np.empty((count, len(grid)))
    for at, effect in enumerate(grid):
        for first in range(0, count, CHUNK):
            some_PB = np.abs(seen_B + effect * lift_PB[first : first + CHUNK])
            row = np.arange(len(some_PB))
            least_P = some_PB[row, first + row] * (1 - 1e-9)
            found[first : first + CHUNK, at] = np.count_nonzero(some_PB >= least_P[:, None], axis=1) / every < alpha
    return found


def _norms(series_UT: Array, rows: IntArray) -> Array:
    """Length of the mean series of each set of units."""
    products = series_UT @ series_UT.T
    total = np.zeros(len(rows))
    for a in range(rows.shape[1]):
        for b in range(rows.shape[1]):
            total += products[rows[:, a], rows[:, b]]
    return np.asarray(np.sqrt(np.maximum(total, 0)) / rows.shape[1])


def _assigned(
    spec: Mapping[str, Any],
    past: _Past,
    how: str,
    kept: Sequence[int],
    effects: Sequence[float],
    alpha: float,
    cost: Any,
) -> dict[str, Any]:
    """Units assigned at random within strata of alike ones: one draw, and what such draws find on the past.

    Read as a difference in differences within strata, among the other draws that could have been.
    """
    size = 2 if how == "matched_pairs" else int(number(spec, "stratum_size", 4, 2, max(len(kept) // 2, 2)))
    strata = _alike(past.y_UT, kept, size)
    if not strata:
        raise BadInput(f"assignment: {len(kept)} units make no stratum of {size}")
    own = sorted(u for one in strata for u in one)
    place = {u: i for i, u in enumerate(own)}
    inner = [[place[u] for u in one] for one in strata]
    rng = np.random.default_rng(seed_of(spec))
    share = number(spec, "share", 0.5, 0.01, 0.99)
    first: list[int] = []
    for one in inner:
        many = min(max(round(share * len(one)), 1), len(one) - 1)
        first += [int(u) for u in rng.choice(one, many, replace=False)]
    others = placebo.sets(len(own), first, seed_of(spec), PLACEBOS, inner)
    every = [tuple(sorted(first)), *others]
    lesser = _Past(past.data, [past.pool[u] for u in own], past.duration, len(past.starts))
    contrast = contrasts.differences(inner)
    weights = [contrast.weights(lesser.y_UT, one, past.duration) for one in every]
    # every draw may be the one: their mean is what such a design finds
    played = lesser.tally(
        every, min(len(every), SHOWN), [np.array(weights)] * (len(lesser.starts) + 1), effects, alpha, cost
    )
    told = dict(played[0])
    told["power_at"] = {key: float(np.mean([one["power_at"][key] for one in played])) for key in told["power_at"]}
    told["false_positive_rate"] = told["power_at"]["0"]
    told["mde"] = _smallest({float(key): value for key, value in told["power_at"].items()})
    told["detects"] = next((e for e in sorted(effects) if told["mde"] is not None and 0 < e >= told["mde"]), None)
    if cost is not None and told["mde"] is not None:
        told["investment"] = cost * told["mde"] * told["baseline"]
    names = [[past.data.units[past.pool[u]] for u in one] for one in strata]
    free = sorted({past.data.units[u] for u in past.pool} - {name for one in names for name in one})
    return told | {"assignment": how, "strata": names, "not_assigned": free}


def _alike(y_UT: Array, kept: Sequence[int], size: int) -> list[list[int]]:
    """Strata of units whose past is most alike, in level and in movement; the last few that fill none are left out."""
    series = np.array([y_UT[u] for u in kept])
    level = np.log(np.maximum(np.abs(series).mean(axis=1), 1e-12))
    shape = synthetic.centred(series, np.ones(series.shape[1], bool)) / np.maximum(
        series.std(axis=1, keepdims=True), 1e-12
    )
    far = np.abs(level[:, None] - level) + 1 - shape @ shape.T / shape.shape[1]
    left, found = sorted(range(len(kept)), key=lambda i: -level[i]), []
    while len(left) >= size:
        first = left[0]
        near = sorted(left[1:], key=lambda i: far[first, i])[: size - 1]
        found.append([kept[first], *(kept[i] for i in near)])
        left = [i for i in left if i != first and i not in near]
    return found


def _smallest(power: Mapping[float, float]) -> float | None:
    """The least effect from which on power is at least .8, between grid points by straight line; None if never."""
    grid = sorted(e for e in power if e >= 0)
    for low, high in pairwise(grid):
        if power[high] >= ENOUGH and all(power[e] >= ENOUGH for e in grid if e >= high):
            if power[low] >= ENOUGH:
                return low
            rise = power[high] - power[low]
            return low + (high - low) * (ENOUGH - power[low]) / rise if rise > 0 else high
    return None


def _cries_wolf(candidate: Mapping[str, Any], alpha: float) -> bool:
    """Whether its false alarms on the past are certainly more than the nominal share."""
    spread = math.sqrt(alpha * (1 - alpha) / candidate["windows"])
    return bool(candidate["false_positive_rate"] > alpha + 2 * spread)


def _warnings(best: Mapping[str, Any], periods: int, duration: int, alpha: float, dead: Sequence[str]) -> list[str]:
    found = []
    n = best["windows"]
    if best["mde"] is None:
        found.append(
            "no effect of the grid is found in four of five past stretches: test longer, treat more, or try larger effects"
        )
    if _cries_wolf(best, alpha):
        found.append(
            f"false alarms in {best['false_positive_rate']:.0%} of {n} past stretches at a nominal {alpha:.0%}: the past is not steady enough"
        )
    if n < 20:
        found.append(f"only {n} past stretches could be played: power and false alarms are rough")
    if periods < 4 * duration:
        found.append(f"{periods} periods of past for a test of {duration}: at least {4 * duration} are better")
    if dead:
        found.append(f"left out, since they never change: {', '.join(dead[:5])}")
    return found


# -- on and off in turn


def switchback(spec: Mapping[str, Any], folder: Path | None, frame: pl.DataFrame | None) -> dict[str, Any]:
    """Units switched on and off in random blocks of ``duration`` periods: what such a test would find.

    The least effect found in four of five follows from the spread of block means within a unit
    (units' own levels and the common movement taken out), two-sided normal.
    """
    from scipy.stats import norm

    given, where = panels.of_spec(spec, folder, frame)
    data = panels.panel(
        given, spec.get("unit", "unit"), spec.get("time", "time"), spec.get("outcome", "outcome"), where
    )
    length = int(number(spec, "duration", None, 1, 10_000))
    alpha, power = alpha_of(spec), number(spec, "power", 0.8, 0.05, 0.9999)
    units, periods = data.y_UT.shape
    blocks = periods // length
    if blocks < 4:
        raise BadInput(f"{where}: {periods} periods hold {blocks} blocks of {length}; at least 4 are needed")
    y_UB = data.y_UT[:, periods - blocks * length :].reshape(units, blocks, length).mean(axis=2)
    within = y_UB - y_UB.mean(axis=1, keepdims=True) - y_UB.mean(axis=0, keepdims=True) + y_UB.mean()
    freedom = max((units - 1) * (blocks - 1), 1) if units > 1 else blocks - 1
    if units == 1:
        within = y_UB - y_UB.mean()
    spread = math.sqrt(float((within**2).sum()) / freedom)
    error = 2 * spread / math.sqrt(units * blocks)
    rng = np.random.default_rng(seed_of(spec))
    alarms = 0
    for _ in range(400):
        on_UB = np.array([rng.permutation(np.arange(blocks) % 2) for _ in range(units)])
        gap = within[on_UB == 1].mean() - within[on_UB == 0].mean()
        alarms += abs(gap) > norm.ppf(1 - alpha / 2) * error
    mean = float(y_UB.mean())
    mde = (float(norm.ppf(1 - alpha / 2)) + float(norm.ppf(power))) * error / abs(mean) if mean else None
    grid = [float(e) for e in spec.get("effects") or [0.0, 0.02, 0.05, 0.1, 0.15, 0.2]]
    power_at = {
        f"{e:g}": float(norm.cdf(abs(e * mean) / error - norm.ppf(1 - alpha / 2)) + norm.cdf(-abs(e * mean) / error - norm.ppf(1 - alpha / 2)))
        for e in grid
    }  # fmt: skip
    plan = {unit: [int(v) for v in rng.permutation(np.arange(blocks) % 2)] for unit in data.units}
    candidate = {
        "units": list(data.units),
        "mde": mde,
        "power_at": power_at,
        "false_positive_rate": alarms / 400,
        "fit": {"block_std": spread, "blocks": blocks},
    }
    return {
        "kind": "switchback",
        "candidates": [candidate],
        "best": candidate,
        "schedule": plan,
        "duration": length,
        "alpha": alpha,
        "warnings": ["leave out the first period of each block where effects last over the switch"],
    }

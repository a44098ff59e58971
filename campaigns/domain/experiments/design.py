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

from campaigns.domain.experiments import panel as panels
from campaigns.domain.experiments import placebo, synthetic
from campaigns.domain.experiments.panel import Panel
from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput

Progress = Callable[[int, int, str], None]
TRIED = 60  # candidate sets that are played through, best fitting first
SHOWN = 20
WINDOWS = 40  # past stretches played at most
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


def seed_of(spec: Mapping[str, Any]) -> int:
    return int(number(spec, "seed", 1, 0, 2**32 - 1))


# -- people


def sample_size(spec: Mapping[str, Any]) -> dict[str, Any]:
    """People (or clusters of them) per group, or the effect that given numbers would find.

    With ``cluster_size`` and ``icc`` the numbers grow by the design effect 1 + (m - 1) icc; with
    ``pre_correlation`` (CUPED) the variance shrinks by 1 - rho^2. ``looks`` spends alpha over interim
    looks after O'Brien and Fleming and raises the numbers accordingly.
    """
    from statsmodels.stats.power import NormalIndPower, TTestIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    metric = spec.get("metric", "proportion")
    if metric not in ("proportion", "mean", "ratio"):
        raise BadInput(f"metric is {metric!r}: proportion, mean or ratio")
    alpha = number(spec, "alpha", 0.05, 1e-6, 0.5)
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
    inflation *= _sequential(looks)
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
        "variance_factor": inflation,
        "power_curve": curve,
        "assumptions": _assumptions(metric, rho, cluster, icc, looks),
    }


def _effect_of(size: float, baseline: float, std: float, metric: str) -> float:
    if metric != "proportion":
        return size * std
    angle = 2 * math.asin(math.sqrt(baseline)) + size
    return math.sin(min(angle, math.pi) / 2) ** 2 - baseline


def _sequential(looks: int) -> float:
    """How much larger a test must be for so many looks at alpha .05 and power .8 (Jennison and Turnbull 2000, table 2.4)."""
    known = {1: 1.0, 2: 1.008, 3: 1.017, 4: 1.024, 5: 1.028, 6: 1.032, 7: 1.035, 8: 1.037, 9: 1.038, 10: 1.040}
    return known.get(looks, 1.05)


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
    alpha = number(spec, "alpha", 0.1, 1e-4, 0.5)
    effects = [float(e) for e in spec.get("effects") or [0.0, 0.02, 0.05, 0.1, 0.15, 0.2]]
    if not all(math.isfinite(e) and -1 < e < 10 for e in effects):
        raise BadInput("effects: relative effects such as 0.05 were expected")
    units, periods = data.y_UT.shape
    if units < 2:
        raise BadInput(f"{where}: {data.units[0]} is the only unit; treated and control are both needed")
    if periods < LEAST_PRE + 2 * duration:
        raise BadInput(
            f"{where}: {periods} periods; a test of {duration} needs at least {LEAST_PRE + 2 * duration} to try it on"
        )
    wanted = spec.get("treated") or {}
    least = int(number(wanted, "min", 1, 1, units - 1))
    most = int(number(wanted, "max", max(least, min(5, units // 3 or 1)), least, units - 1))
    include = data.rows_of(spec.get("include") or [], "include")
    left_out = set(data.rows_of(spec.get("exclude") or [], "exclude"))
    if set(include) & left_out:
        raise BadInput("include and exclude name the same unit")
    dead = [u for u in range(units) if data.y_UT[u].std() == 0]
    pool = [u for u in range(units) if u not in dead]
    if len(pool) < 2:
        raise BadInput(f"{where}: {spec.get('outcome', 'outcome')} never changes in {len(dead)} of {units} units")
    free = [u for u in pool if u not in left_out]
    sets = _candidates(data, free, include, least, most, seed_of(spec))
    if not sets:
        raise BadInput(f"no set of {least} to {most} units is left to treat; loosen treated, include or exclude")
    cost = spec.get("cost_per_unit_lift")
    screened = sorted(sets, key=lambda s: _fit(data, s, pool)["scaled_l2"])
    chosen = screened[:TRIED]
    nulls = _Nulls(data, pool, duration, seed_of(spec))
    found = []
    for done, treated in enumerate(chosen, 1):
        found.append(_played(data, treated, pool, nulls, effects, alpha, cost))
        if progress is not None:
            progress(done, len(chosen), "sets of units")
    found.sort(key=lambda c: (_cries_wolf(c, alpha), c["mde"] is None, c["mde"] or 0, c["fit"]["scaled_l2"]))
    return {
        "kind": "geo",
        "candidates": found[:SHOWN],
        "best": found[0],
        "screened": len(sets),
        "played": len(chosen),
        "windows": found[0]["windows"],
        "duration": duration,
        "alpha": alpha,
        "method": "synthetic_control",
        "inference": found[0]["inference"],
        "analysis": {
            "kind": "geo",
            "method": "synthetic_control",
            "fixed_effects": True,
            "treated_units": found[0]["units"],
            "exclude": [data.units[u] for u in dead],
            "alpha": alpha,
            "seed": seed_of(spec),
        },
        "left_out": [data.units[u] for u in dead],
        "warnings": _warnings(found[0], periods, duration, alpha, [data.units[u] for u in dead]),
    }


def _candidates(
    data: Panel, free: Sequence[int], include: Sequence[int], least: int, most: int, seed: int
) -> list[tuple[int, ...]]:
    """All sets where they are few; else each unit with those that move most and least like it."""
    sizes = range(max(least, len(include)), most + 1)
    others = [u for u in free if u not in include]
    count = sum(math.comb(len(others), size - len(include)) for size in sizes if size - len(include) <= len(others))
    if count <= 2000:
        return [
            tuple(sorted((*include, *more)))
            for size in sizes
            for more in combinations(others, size - len(include))
            if size
        ]
    rng = np.random.default_rng(seed)
    shape = np.atleast_2d(np.corrcoef(np.diff(data.y_UT[list(others)], axis=1)))
    found: set[tuple[int, ...]] = set()
    for size in sizes:
        extra = size - len(include)
        if extra <= 0:
            found.add(tuple(sorted(include)))
            continue
        for place in range(len(others)):
            order = np.argsort(-np.nan_to_num(shape[place]))
            like = [others[i] for i in order if i != place][: extra - 1]
            found.add(tuple(sorted({*include, others[place], *like})))
        for _ in range(10 * len(others)):
            found.add(tuple(sorted((*include, *(int(u) for u in rng.choice(others, extra, replace=False))))))
    return sorted(s for s in found if least <= len(s) <= most)


def _parts(data: Panel, treated: Sequence[int], pool: Sequence[int]) -> tuple[Array, Array]:
    controls = [u for u in pool if u not in set(treated)]
    return data.y_UT[list(treated)].mean(axis=0), data.y_UT[controls]


def _fit(data: Panel, treated: Sequence[int], pool: Sequence[int]) -> dict[str, float]:
    """How closely the others follow the set over the whole past."""
    mine, others = _parts(data, treated, pool)
    every = np.ones(len(mine), bool)
    residual, _ = synthetic.residuals(mine, others, every)
    plain = mine - mine.mean() - (others.mean(axis=0) - others.mean())
    l2, naive = float(np.sqrt((residual**2).sum())), float(np.sqrt((plain**2).sum()))
    spread = float(((mine - mine.mean()) ** 2).sum())
    return {
        "l2": l2,
        "scaled_l2": l2 / naive if naive else 0.0,
        "r2": 1 - float((residual**2).sum()) / spread if spread else 0.0,
        "mape": float(np.mean(np.abs(residual) / np.maximum(np.abs(mine), 1e-12))),
    }


class _Nulls:
    """What sets of the same size find in each past stretch, where nothing was done: played once, shared by all candidates."""

    def __init__(self, data: Panel, pool: Sequence[int], duration: int, seed: int) -> None:
        self.data, self.pool, self.duration, self.seed = data, pool, duration, seed
        periods = data.y_UT.shape[1]
        first = max(LEAST_PRE, duration)
        count = min(WINDOWS, periods - duration - first + 1)
        self.starts = [int(s) for s in np.unique(np.linspace(first, periods - duration, count).astype(int))]
        self.known: dict[int, tuple[Array, Array]] = {}

    def of(self, treated: Sequence[int]) -> Array:
        """Stretch by set: ratios of the sets that share no unit with ``treated``."""
        size = min(len(treated), (len(self.pool) - len(treated)) // 2)
        if size not in self.known:
            self.known[size] = self._play(size)
        members, ratios = self.known[size]
        apart = ~np.isin(members, list(treated)).any(axis=1)
        return ratios[:, apart]

    def _play(self, size: int) -> tuple[Array, Array]:
        chosen = placebo.sets(len(self.pool), size, self.seed, PLACEBOS)
        members = np.array([[self.pool[i] for i in one] for one in chosen]).reshape(len(chosen), max(size, 0))
        ratios = np.empty((len(self.starts), len(chosen)))
        for place, one in enumerate(members):
            mine, others = _parts(self.data, [int(u) for u in one], self.pool)
            for row, start in enumerate(self.starts):
                effect, error = _gap(mine, others, start, self.duration)
                ratios[row, place] = effect / error
        return members, ratios


def _gap(mine: Array, others: Array, start: int, duration: int) -> tuple[float, float]:
    """Mean gap over a stretch, and the gap's error before it."""
    end = start + duration
    gap, _ = synthetic.residuals(mine[:end], others[:, :end], np.arange(end) < start)
    return float(gap[start:end].mean()), placebo.error_before(gap, start)


def _played(
    data: Panel,
    treated: tuple[int, ...],
    pool: Sequence[int],
    nulls: _Nulls,
    effects: Sequence[float],
    alpha: float,
    cost: Any,
) -> dict[str, Any]:
    """The set in every past stretch: false alarms, power at each effect, the smallest found in four of five."""
    mine, others = _parts(data, treated, pool)
    grid = sorted({*effects, 0.0})
    hits = dict.fromkeys(grid, 0)
    errors = []
    ratios, duration = nulls.of(treated), nulls.duration
    in_space = 1 / (ratios.shape[1] + 1) < alpha
    for row, start in enumerate(nulls.starts):
        end = start + duration
        test = slice(start, end)
        gap, error = _gap(mine, others, start, duration)
        level = float(mine[test].mean())
        errors.append(gap / max(abs(level), 1e-12))
        for effect in grid:
            if in_space:
                _, p = placebo.ranked(gap + effect * level, error, ratios[row], alpha)
            else:
                changed = mine[:end].copy()
                changed[test] *= 1 + effect
                residual, _ = synthetic.residuals(changed, others[:, :end], np.ones(end, bool))
                p = synthetic.block_p(residual, test)
            hits[effect] += p < alpha
    starts = nulls.starts
    power = {effect: hits[effect] / len(starts) for effect in grid}
    mde = _smallest(power)
    size = float(mine[-duration:].sum() * len(treated))
    return {
        "units": [data.units[u] for u in treated],
        "mde": mde,
        "power_at": {f"{effect:g}": power[effect] for effect in grid},
        "false_positive_rate": power[0.0],
        "windows": len(starts),
        "inference": "placebo" if in_space else "block",
        "bias": float(np.mean(errors)),
        "error_std": float(np.std(errors)),
        "share": float(data.y_UT[list(treated)].sum() / data.y_UT.sum()) if data.y_UT.sum() else None,
        "baseline": size,
        "investment": float(cost) * mde * size if cost is not None and mde is not None else None,
        "fit": _fit(data, treated, pool),
    }


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
    alpha, power = number(spec, "alpha", 0.1, 1e-4, 0.5), number(spec, "power", 0.8, 0.05, 0.9999)
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

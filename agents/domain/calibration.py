"""Were they right as often as they said? Scores of forecasts, reliability, and the map from stated to observed.

Probabilities in ``p_N``, outcomes (0 or 1) in ``y_N``, one entry for each resolved forecast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rmn.lib import stats
from rmn.lib.arrays import Array, IntArray
from rmn.lib.errors import BadInput

BINS = 10
ENOUGH = 30  # resolved forecasts; under it the stated value is used as it is
SMALLEST = 1e-15  # a stated 0 or 1 that fails costs -log of this, not infinity


def checked(p_N: Any, y_N: Any) -> tuple[Array, Array]:
    """Forecasts and outcomes as arrays.

    Raises:
        BadInput: none at all, different lengths, a probability outside 0 to 1, an outcome not 0 or 1.
    """
    p, y = np.asarray(p_N, dtype=float), np.asarray(y_N, dtype=float)
    if p.ndim != 1 or p.shape != y.shape or p.size == 0:
        raise BadInput("forecasts: needs as many outcomes as probabilities, at least one")
    if not np.all((p >= 0) & (p <= 1)):
        row = int(np.flatnonzero(~((p >= 0) & (p <= 1)))[0])
        raise BadInput(f"forecast {row + 1}: the probability {p[row]!r} is not between 0 and 1")
    if not np.all((y == 0) | (y == 1)):
        row = int(np.flatnonzero((y != 0) & (y != 1))[0])
        raise BadInput(f"forecast {row + 1}: the outcome {y[row]!r} is not 0 or 1")
    return p, y


@dataclass(frozen=True)
class Bin:
    """Forecasts of about the same probability, and how often they came true (Wilson interval)."""

    low: float
    high: float
    n: int
    mean_forecast: float
    observed_rate: float
    interval: tuple[float, float]

    def row(self) -> dict[str, Any]:
        return {
            "bin": [self.low, self.high],
            "n": self.n,
            "mean_forecast": self.mean_forecast,
            "observed_rate": self.observed_rate,
            "interval": list(self.interval),
        }


def reliability(p_N: Array, y_N: Array, bins: int = BINS, level: float = 0.95) -> list[Bin]:
    """The reliability table: equal-width bins, left-closed, the last one closed; empty bins left out."""
    place_N = np.minimum((p_N * bins + 1e-12).astype(int), bins - 1)
    return [_bin(place / bins, (place + 1) / bins, p_N, y_N, place_N == place, level) for place in np.unique(place_N)]


def reliability_equal_mass(p_N: Array, y_N: Array, bins: int = BINS, level: float = 0.95) -> list[Bin]:
    """The same with about as many forecasts in each bin: edges by quantile, equal forecasts together."""
    edges = np.unique(np.quantile(p_N, np.linspace(0, 1, bins + 1)))
    if edges.size == 1:
        return [_bin(float(edges[0]), float(edges[0]), p_N, y_N, np.ones(p_N.size, dtype=bool), level)]
    place_N = np.clip(np.searchsorted(edges, p_N, side="right") - 1, 0, edges.size - 2)
    return [
        _bin(float(edges[place]), float(edges[place + 1]), p_N, y_N, place_N == place, level)
        for place in np.unique(place_N)
    ]


def _bin(low: float, high: float, p_N: Array, y_N: Array, inside_N: Any, level: float) -> Bin:
    n, wins = int(inside_N.sum()), float(y_N[inside_N].sum())
    lower, upper = stats.wilson(wins, n, level)
    return Bin(float(low), float(high), n, float(p_N[inside_N].mean()), wins / n, (float(lower), float(upper)))


def calibration_error(table: list[Bin]) -> float:
    """ECE: mean distance of observed rate from mean forecast, weighted by the bins' sizes."""
    n = sum(each.n for each in table)
    return sum(each.n * abs(each.mean_forecast - each.observed_rate) for each in table) / n


def scores(p_N: Any, y_N: Any) -> dict[str, Any]:
    """All scores of binary forecasts.

    Brier and log loss (lower is better), skill against always saying the base rate, ECE with equal-width
    bins and with equal mass beside it, largest bin error, Murphy's decomposition over the equal-width
    bins (Brier = reliability - resolution + uncertainty, up to spread within bins), sharpness (variance
    of the forecasts), and the table. ``note`` warns where ECE is mostly noise.

    Raises:
        BadInput: see ``checked``.

    Source: Murphy 1973; Guo et al. 2017 (1706.04599); Nixon et al. 2019 on equal mass.
    """
    p, y = checked(p_N, y_N)
    n, base = p.size, float(y.mean())
    brier, of_base = float(np.mean((p - y) ** 2)), base * (1 - base)
    clipped = np.clip(p, SMALLEST, 1 - SMALLEST)
    table, mass = reliability(p, y), reliability_equal_mass(p, y)
    spread = float(np.std((p - y) ** 2, ddof=1) / np.sqrt(n)) if n > 1 else None
    return {
        "n": n,
        "base_rate": base,
        "brier": brier,
        "brier_standard_error": spread,
        "brier_of_base_rate": of_base,
        "brier_skill": 1 - brier / of_base if of_base else None,
        "log_loss": float(-np.mean(y * np.log(clipped) + (1 - y) * np.log(1 - clipped))),
        "ece_10_equal_width": calibration_error(table),
        "ece_10_equal_mass": calibration_error(mass),
        "mce": max(abs(each.mean_forecast - each.observed_rate) for each in table),
        "murphy_reliability": sum(each.n * (each.mean_forecast - each.observed_rate) ** 2 for each in table) / n,
        "murphy_resolution": sum(each.n * (each.observed_rate - base) ** 2 for each in table) / n,
        "murphy_uncertainty": of_base,
        "sharpness": float(np.var(p)),
        "table": [each.row() for each in table],
        "table_equal_mass": [each.row() for each in mass],
        "note": _note(n),
    }


def _note(n: int) -> str:
    if n < ENOUGH:
        return f"{n} resolved forecasts: too few to judge; {ENOUGH} are the least"
    if n < 200:
        return f"{n} resolved forecasts: ECE is biased upwards at this size; read the intervals"
    return ""


def multiclass_brier(p_NK: Any, y_NK: Any) -> float:
    """Mean over forecasts of the squared distance summed over all outcomes (0 to 2)."""
    p, y = np.asarray(p_NK, dtype=float), np.asarray(y_NK, dtype=float)
    if p.shape != y.shape or p.ndim != 2 or not p.size:
        raise BadInput("forecasts: every row needs a probability and an outcome for each result")
    if not np.all((p >= 0) & (p <= 1)) or not np.all(np.isfinite(y)):
        raise BadInput("forecasts: a probability lies outside 0 to 1, or an outcome is missing")
    return float(np.mean(np.sum((p - y) ** 2, axis=1)))


def interval_scores(low_N: Any, high_N: Any, level_N: Any, observed_N: Any) -> dict[str, Any]:
    """Scores of interval forecasts: coverage beside what was promised, and the pinball loss of both ends.

    An interval of level l promises its ends as the quantiles (1 - l)/2 and (1 + l)/2.

    Raises:
        BadInput: lengths differ, an end before its start, or a level not between 0 and 1.
    """
    low, high, level, seen = (np.asarray(each, dtype=float) for each in (low_N, high_N, level_N, observed_N))
    if not low.size or not low.shape == high.shape == level.shape == seen.shape:
        raise BadInput("interval forecasts: low, high, level and observed need the same length, at least one")
    if np.any(high < low) or np.any((level <= 0) | (level >= 1)):
        raise BadInput("interval forecasts: an interval ends before it starts, or its level is not between 0 and 1")
    inside = (seen >= low) & (seen <= high)

    def pinball(quantile: Array, tau: Array) -> float:
        return float(np.mean(np.maximum(tau * (seen - quantile), (tau - 1) * (seen - quantile))))

    lower, upper = stats.wilson(float(inside.sum()), inside.size)
    return {
        "n": int(inside.size),
        "coverage": float(inside.mean()),
        "coverage_interval": [float(lower), float(upper)],
        "promised": float(level.mean()),
        "pinball": pinball(low, (1 - level) / 2) + pinball(high, (1 + level) / 2),
        "mean_width": float(np.mean(high - low)),
    }


# ------------------------------------------------------------------------------------------------
# From stated to observed


@dataclass(frozen=True)
class Map:
    """What a stated probability has meant so far: linear between knots, with its evidence."""

    n: int  # resolved forecasts it rests on
    weight: float  # 0: the stated value stands; 1: isotonic regression alone
    knots: tuple[tuple[float, float], ...] = ((0.0, 0.0), (1.0, 1.0))

    @property
    def usable(self) -> bool:
        return self.n >= ENOUGH

    def __call__(self, stated: float) -> float:
        """The calibrated probability; the stated one while there is too little to go by."""
        if not self.usable or self.weight == 0:
            return stated
        x, y = zip(*self.knots, strict=True)
        return float((1 - self.weight) * stated + self.weight * np.interp(stated, x, y))

    def apply(self, p_N: Array) -> Array:
        return np.array([self(float(p)) for p in p_N])

    def row(self) -> dict[str, Any]:
        return {"n": self.n, "weight": self.weight, "knots": [list(knot) for knot in self.knots]}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Map:
        return cls(int(row["n"]), float(row["weight"]), tuple((float(x), float(y)) for x, y in row["knots"]))


WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
FOLDS = 10


def recalibrate(p_N: Any, y_N: Any) -> Map:
    """Learn the map from stated to observed.

    Isotonic regression on the resolved forecasts, pulled towards the stated value: the weight is the
    smallest whose cross-validated Brier score lies within one standard error of the best one, so that
    the map departs from what was said no further than the evidence carries. Under 30 forecasts it is
    the identity.

    Args:
        p_N: stated probabilities, in the order they were made.
        y_N: what happened.

    Source: Zadrozny and Elkan 2002 (isotonic); one-standard-error rule, Breiman et al. 1984.
    """
    p, y = checked(p_N, y_N)
    if p.size < ENOUGH:
        return Map(p.size, 0.0)
    fold_N = np.arange(p.size) % FOLDS
    held_out_N = np.empty(p.size)
    for fold in range(FOLDS):
        inside = fold_N != fold
        x, fitted = _isotonic(p[inside], y[inside])
        held_out_N[~inside] = np.interp(p[~inside], x, fitted)
    loss_W = {weight: ((1 - weight) * p + weight * held_out_N - y) ** 2 for weight in WEIGHTS}
    best = min(WEIGHTS, key=lambda weight: float(loss_W[weight].mean()))
    chosen = best
    for weight in WEIGHTS:
        extra_N = loss_W[weight] - loss_W[best]
        if extra_N.mean() <= extra_N.std(ddof=1) / np.sqrt(p.size):
            chosen = weight
            break
    x, fitted = _isotonic(p, y)
    return Map(int(p.size), float(chosen), tuple(zip(x.tolist(), fitted.tolist(), strict=True)))


def _isotonic(p_N: Array, y_N: Array) -> tuple[Array, Array]:
    """Pool adjacent violators: knots at the pooled blocks' mean forecasts, with rates held off 0 and 1.

    A block of n forecasts with k true is worth (k + 1/2) / (n + 1): nobody is certain after three.
    Equal forecasts are one block from the start, whatever their order.
    """
    value_U, place_N = np.unique(np.round(p_N, 12), return_inverse=True)
    true_U, n_U = np.bincount(place_N, weights=y_N), np.bincount(place_N)
    blocks: list[list[float]] = []  # [sum of y, sum of p, n]
    for p, y, count in zip(value_U, true_U, n_U):
        blocks.append([float(y), float(p * count), float(count)])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][2] >= blocks[-1][0] * blocks[-2][2]:
            total, stated, n = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + stated, blocks[-1][2] + n]
    rate = np.array([(total + 0.5) / (n + 1) for total, _, n in blocks])
    return np.array([stated / n for _, stated, n in blocks]), np.maximum.accumulate(rate)


# ------------------------------------------------------------------------------------------------
# Are flags worth raising?


def flag_value(p_N: Any, y_N: Any, flagged_N: Any, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Did forecasts that carried a bias flag turn out worse than those without it?

    Returns:
        how many carried it, how much worse (mean Brier of flagged minus others) with a bootstrap
        interval of 90 %, and ``keep``: false only once enough were seen and the interval says that
        the flag predicts nothing worse.
    """
    p, y = checked(p_N, y_N)
    flagged = np.asarray(flagged_N, dtype=bool)
    with_flag, without = (p - y)[flagged] ** 2, (p - y)[~flagged] ** 2
    if with_flag.size < 10 or without.size < 10:
        return {"flagged": int(with_flag.size), "worse_by": None, "interval": None, "keep": True}
    rng = np.random.default_rng(seed)
    picks: IntArray = rng.integers(0, with_flag.size, (draws, with_flag.size))
    others: IntArray = rng.integers(0, without.size, (draws, without.size))
    gaps = with_flag[picks].mean(axis=1) - without[others].mean(axis=1)
    low, high = (float(each) for each in np.quantile(gaps, (0.05, 0.95)))
    worse = float(with_flag.mean() - without.mean())
    return {"flagged": int(with_flag.size), "worse_by": worse, "interval": [low, high], "keep": high > 0 and worse > 0}

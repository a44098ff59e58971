"""How far do people agree, beyond chance? Coefficients for several raters with gaps, with intervals.

Ratings come as ``codes_UR``: units by raters, the position of each value in the sorted list of values,
-1 where somebody did not rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from rmn.lib.arrays import Array, IntArray
from rmn.lib.errors import BadInput

Level = Literal["nominal", "ordinal", "interval", "ratio"]
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval", "ratio")


@dataclass(frozen=True)
class Ratings:
    """What raters said about units."""

    codes_UR: IntArray
    values: list[Any]  # sorted; numbers where all are numbers

    @property
    def numeric(self) -> bool:
        return all(isinstance(value, float) for value in self.values)


def coded(cells_UR: Sequence[Sequence[Any]]) -> Ratings:
    """Ratings from a table of values; None and empty text mean not rated.

    Raises:
        BadInput: no rating at all, or rows of different length.
    """
    rows = [
        [None if cell is None or str(cell).strip() == "" else str(cell).strip() for cell in row] for row in cells_UR
    ]
    if len({len(row) for row in rows}) != 1:
        raise BadInput("ratings: every unit needs a cell for each rater")
    texts = {cell for row in rows for cell in row if cell is not None}
    if not texts:
        raise BadInput("ratings: nobody rated anything")
    try:
        numbers = {text: float(text) for text in texts}
        if not all(np.isfinite(list(numbers.values()))):
            raise ValueError
        values: list[Any] = sorted(set(numbers.values()))
        place = {text: values.index(number) for text, number in numbers.items()}
    except ValueError:
        values = sorted(texts)
        place = {text: values.index(text) for text in texts}
    codes = [[-1 if cell is None else place[cell] for cell in row] for row in rows]
    return Ratings(np.array(codes, dtype=np.int64), values)


def counts(ratings: Ratings) -> Array:
    """How many raters gave each unit each value: units by values."""
    size = len(ratings.values)
    found_UV = np.zeros((ratings.codes_UR.shape[0], size))
    for codes_U in ratings.codes_UR.T:
        rated = codes_U >= 0
        np.add.at(found_UV, (np.flatnonzero(rated), codes_U[rated]), 1)
    return found_UV


def percent_agreement(counts_UV: Array, times_U: Array | None = None) -> float | None:
    """Mean over units with two ratings or more of the share of agreeing pairs of raters.

    Args:
        counts_UV: how many raters gave each unit each value.
        times_U: how often each unit counts; once where left out.
    """
    n_U = counts_UV.sum(axis=1)
    times_U = np.ones(len(n_U)) if times_U is None else times_U
    rated = (n_U >= 2) & (times_U > 0)
    if not rated.any():
        return None
    pairs_U = (counts_UV[rated] * (counts_UV[rated] - 1)).sum(axis=1) / (n_U[rated] * (n_U[rated] - 1))
    return float(times_U[rated] @ pairs_U / times_U[rated].sum())


def distances(values: list[Any], margin_V: Array, level: Level) -> Array:
    """Squared distance of every two values: Krippendorff's metric for the level of measurement.

    Raises:
        BadInput: numbers are needed for interval and ratio; no negative values for ratio.
    """
    size = len(values)
    if level == "nominal":
        return 1.0 - np.eye(size)
    if level == "ordinal":
        cumulative = np.concatenate([[0.0], np.cumsum(margin_V)])
        middle_V = (cumulative[:-1] + cumulative[1:]) / 2
        return (middle_V[:, None] - middle_V[None, :]) ** 2
    if not all(isinstance(value, float) for value in values):
        raise BadInput(f"ratings: the {level} level needs numbers; use nominal or ordinal")
    number_V = np.array(values, dtype=float)
    gap_VV = number_V[:, None] - number_V[None, :]
    if level == "interval":
        return gap_VV**2
    if (number_V < 0).any():
        raise BadInput("ratings: the ratio level takes no negative values")
    sum_VV = number_V[:, None] + number_V[None, :]
    return np.divide(gap_VV, sum_VV, out=np.zeros_like(gap_VV), where=sum_VV > 0) ** 2


def krippendorff(counts_UV: Array, values: list[Any], level: Level, times_U: Array | None = None) -> float | None:
    """Krippendorff's alpha: 1 - observed / expected disagreement; None if nothing was rated twice.

    All raters always of one mind, with a single value, is no evidence of agreement: None as well.

    Args:
        counts_UV: how many raters gave each unit each value.
        values: what the columns stand for, sorted.
        level: of measurement, which sets the distance of two values.
        times_U: how often each unit counts; once where left out.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).
    """
    n_U = counts_UV.sum(axis=1)
    times_U = np.ones(len(n_U)) if times_U is None else times_U
    rated = (n_U >= 2) & (times_U > 0)
    kept = counts_UV[rated]
    if not kept.size:
        return None
    weight_U = times_U[rated] / (n_U[rated] - 1)
    coincidence_VV = (kept * weight_U[:, None]).T @ kept - np.diag((kept * weight_U[:, None]).sum(axis=0))
    margin_V = coincidence_VV.sum(axis=0)
    total = margin_V.sum()
    distance_VV = distances(values, margin_V, level)
    expected = (np.outer(margin_V, margin_V) * distance_VV).sum() / (total - 1)
    if expected <= 0:
        return None
    return float(1 - (coincidence_VV * distance_VV).sum() / expected)


def gwet(counts_UV: Array, weight_VV: Array, times_U: Array | None = None) -> float | None:
    """Gwet's AC1 (identity weights) or AC2, for any number of raters with gaps.

    Args:
        counts_UV: how many raters gave each unit each value.
        weight_VV: how near two values are, 1 on the diagonal.
        times_U: how often each unit counts; once where left out.

    Source: Gwet, Handbook of Inter-Rater Reliability (2014), chapter 5.
    """
    n_U = counts_UV.sum(axis=1)
    times_U = np.ones(len(n_U)) if times_U is None else times_U
    size = counts_UV.shape[1]
    rated, twice = (n_U >= 1) & (times_U > 0), (n_U >= 2) & (times_U > 0)
    if not twice.any() or size < 2:
        return None
    weighted_UV = counts_UV @ weight_VV.T
    agreeing_U = (counts_UV[twice] * (weighted_UV[twice] - 1)).sum(axis=1)
    observed = float(times_U[twice] @ (agreeing_U / (n_U[twice] * (n_U[twice] - 1))) / times_U[twice].sum())
    share_V = times_U[rated] @ (counts_UV[rated] / n_U[rated, None]) / times_U[rated].sum()
    chance = float(weight_VV.sum() / (size * (size - 1)) * (share_V * (1 - share_V)).sum())
    return (observed - chance) / (1 - chance) if chance < 1 else None


def weights(size: int, kind: str) -> Array:
    """Weights of agreement between values: ``identity``, ``linear`` or ``quadratic`` by position."""
    gap_VV = np.abs(np.arange(size)[:, None] - np.arange(size)[None, :]) / max(size - 1, 1)
    return {"identity": np.eye(size), "linear": 1 - gap_VV, "quadratic": 1 - gap_VV**2}[kind]


def cohen(
    one_U: IntArray, other_U: IntArray, size: int, kind: str = "identity", values: list[Any] | None = None
) -> float | None:
    """Cohen's kappa of two raters over the units that both rated; weighted where ``kind`` says so.

    Quadratic weights use the values themselves where they are numbers.
    """
    both = (one_U >= 0) & (other_U >= 0)
    if not both.any():
        return None
    table_VV = np.zeros((size, size))
    np.add.at(table_VV, (one_U[both], other_U[both]), 1)
    table_VV /= table_VV.sum()
    if values is not None and kind != "identity" and all(isinstance(value, float) for value in values):
        number_V = np.array(values)
        gap_VV = np.abs(number_V[:, None] - number_V[None, :]) / max(float(np.ptp(number_V)), 1e-300)
        weight_VV = 1 - gap_VV ** (2 if kind == "quadratic" else 1)
    else:
        weight_VV = weights(size, kind)
    expected_VV = np.outer(table_VV.sum(axis=1), table_VV.sum(axis=0))
    chance = float((weight_VV * expected_VV).sum())
    return (float((weight_VV * table_VV).sum()) - chance) / (1 - chance) if chance < 1 - 1e-12 else None


def bootstrap(
    counts_UV: Array,
    statistic: Callable[..., float | None],
    *,
    draws: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of a coefficient of counts and ``times_U`` by resampling units; None under three.

    Units that were rated alike are drawn together, as a multinomial draw of how often each sort comes.
    """
    n = counts_UV.shape[0]
    if n < 3:
        return None
    sorts_SV, n_S = np.unique(counts_UV, axis=0, return_counts=True)
    times_DS = np.random.default_rng(seed).multinomial(n, n_S / n, size=draws)
    found = [statistic(sorts_SV, times_U=times_S) for times_S in times_DS]
    known = [value for value in found if value is not None]
    if len(known) < draws / 2:
        return None
    low, high = np.quantile(known, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def summary(ratings: Ratings, raters: Sequence[str], *, draws: int = 500, seed: int = 0) -> dict[str, Any]:
    """All coefficients with their intervals, for a dashboard or a file.

    Args:
        ratings: units by raters.
        raters: their names, in the order of the columns.
        draws: of the bootstrap over units.
    """
    counts_UV = counts(ratings)
    size = len(ratings.values)
    levels = [level for level in LEVELS if level in ("nominal", "ordinal") or ratings.numeric]
    if ratings.numeric and min(ratings.values) < 0:
        levels.remove("ratio")
    alpha = {level: krippendorff(counts_UV, values=ratings.values, level=level) for level in levels}
    found: dict[str, Any] = {
        "units": int((counts_UV.sum(axis=1) >= 2).sum()),
        "raters": len(raters),
        "ratings": int(counts_UV.sum()),
        "values": ratings.values,
        "percent_agreement": percent_agreement(counts_UV),
        "alpha": alpha,
        **{f"alpha_{level}": value for level, value in alpha.items()},
        "gwet_ac1": gwet(counts_UV, weight_VV=np.eye(size)),
        "gwet_ac2_identity_weights": gwet(counts_UV, weight_VV=np.eye(size)),
        "gwet_ac2_quadratic_weights": gwet(counts_UV, weight_VV=weights(size, "quadratic")),
        "cohen_kappa_pairs": {},
    }
    found["intervals"] = {
        "percent_agreement": bootstrap(counts_UV, percent_agreement, draws=draws, seed=seed),
        "gwet_ac1": bootstrap(counts_UV, partial(gwet, weight_VV=np.eye(size)), draws=draws, seed=seed),
    }
    for level in levels:
        alpha_of = partial(krippendorff, values=ratings.values, level=level)
        found["intervals"][f"alpha_{level}"] = bootstrap(counts_UV, alpha_of, draws=draws, seed=seed)
    for first in range(len(raters)):
        for second in range(first + 1, len(raters)):
            one_U, other_U = ratings.codes_UR[:, first], ratings.codes_UR[:, second]
            found["cohen_kappa_pairs"][f"{raters[first]}-{raters[second]}"] = {
                "unweighted": cohen(one_U, other_U, size),
                "quadratic": cohen(one_U, other_U, size, "quadratic", ratings.values),
                "n": int(((one_U >= 0) & (other_U >= 0)).sum()),
            }
    return found


def ceiling(counts_UV: Array) -> float | None:
    """How often one more person agrees with what the others said: the most a model can be expected to reach.

    Over units with two ratings or more, each rating beside the majority of the rest; a tied majority counts
    half. Units weigh alike: a third reader is asked where two disagreed, so counting ratings, or only units
    with three, would make people look less of one mind than they are.
    """
    sorts_SV, times_S = np.unique(counts_UV[counts_UV.sum(axis=1) >= 2], axis=0, return_counts=True)
    hits = []
    for counts_V in sorts_SV:
        hit = 0.0
        for place in np.flatnonzero(counts_V):
            rest_V = counts_V.copy()
            rest_V[place] -= 1
            leaders = np.flatnonzero(rest_V == rest_V.max())
            hit += counts_V[place] * (place in leaders) / len(leaders)
        hits.append(hit / counts_V.sum())
    return float(times_S @ hits / times_S.sum()) if hits else None

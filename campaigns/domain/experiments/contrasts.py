"""What each method compares the treated with: a weight for every unit, and days that tell the level.

Every method on panels is one contrast ``gap_T = weight_U @ (y_UT - level)``: weights over units and a
level over periods, both found before the test; the mean of the gap over the test is the effect. Seen
like this the methods share one inference, one picture and one check of sensitivity.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from threadpoolctl import threadpool_limits

from campaigns.domain.experiments import synthetic
from rmn.lib.arrays import Array, BoolArray

GRID = 20  # ridge penalties tried, from the size of the data down to 1e-8 of it
LARGEST = 4_000_000  # numbers of many systems held at once
KEPT = 40_000  # weights remembered


class _Memory:
    """Weights found lately. Looks at a running test, its cells and simulations ask for the same ones again."""

    def __init__(self) -> None:
        self.known: OrderedDict[Hashable, Array] = OrderedDict()

    def weights(self, key: Hashable, find: Callable[[], Array]) -> Array:
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = find()
            if len(self.known) > KEPT:
                self.known.popitem(last=False)
        return found


_memory = _Memory()


@dataclass(frozen=True)
class Contrast:
    """How a set of units is compared.

    Args:
        name: the method with its parameters; weights are remembered under it, where it is not empty.
        weights: (past_UT, treated, periods of the test) to a weight for each unit, the treated's positive.
        days: (y_UT, sets, fit_T, test) to a weight for each period of the past, by set or for all, whose mean is the level; None is no level.
    """

    name: str
    weights: Callable[[Array, Sequence[int], int], Array]
    days: Callable[[Array, Sequence[Sequence[int]], BoolArray, slice], Array] | None

    def weight_SU(self, y_UT: Array, sets: Sequence[Sequence[int]], fit_T: BoolArray, test: slice) -> Array:
        past_UT, length = np.ascontiguousarray(y_UT[:, fit_T]), test.stop - test.start
        if not self.name:
            return np.array([self.weights(past_UT, one, length) for one in sets])
        digest = blake2b(past_UT.tobytes(), digest_size=16).digest()
        return np.array(
            [
                _memory.weights(
                    (self.name, digest, past_UT.shape, length, tuple(one)),
                    lambda one=one: self.weights(past_UT, one, length),  # type: ignore[misc]
                )
                for one in sets
            ]
        )

    def gaps(self, y_UT: Array, sets: Sequence[Sequence[int]], fit_T: BoolArray, test: slice) -> tuple[Array, Array]:
        """Gap by set and period, and weights by set and unit."""
        weight_SU = self.weight_SU(y_UT, sets, fit_T, test)
        gap_ST = weight_SU @ y_UT
        if self.days is not None:
            gap_ST = gap_ST - (gap_ST[:, fit_T] * self.days(y_UT, sets, fit_T, test)).sum(axis=1, keepdims=True)
        return gap_ST, weight_SU


def split(units: int, treated: Sequence[int]) -> tuple[Array, list[int]]:
    """Equal weights on the treated, and the places of all others."""
    weight_U = np.zeros(units)
    weight_U[list(treated)] = 1 / len(treated)
    return weight_U, np.flatnonzero(weight_U == 0).tolist()


def alike(y_UT: Array, sets: Sequence[Sequence[int]], fit_T: BoolArray, test: slice) -> Array:
    """Every period of the past counts the same."""
    del y_UT, sets, test
    return np.full(int(fit_T.sum()), 1 / int(fit_T.sum()))


def differences(strata: Sequence[Sequence[int]] | None = None) -> Contrast:
    """The treated's change less the others' (difference in differences); within strata where they are given.

    Each stratum counts as many times as it has treated units, so that pairs give the mean difference of pairs.
    """

    def weights(past_UT: Array, treated: Sequence[int], length: int) -> Array:
        del length
        weight_U, others = split(len(past_UT), treated)
        if strata is None:
            weight_U[others] = -1 / len(others)
            return weight_U
        on = set(treated)
        for stratum in strata:
            own = [u for u in stratum if u not in on]
            if own:
                weight_U[own] = -(len(stratum) - len(own)) / len(treated) / len(own)
        return weight_U

    return Contrast("" if strata else "differences", weights, alike)


def regression_on_total() -> Contrast:
    """The treated's mean on the others' total, by least squares over the past (time-based regression, Kerman 2017)."""

    def weights(past_UT: Array, treated: Sequence[int], length: int) -> Array:
        del length
        weight_U, others = split(len(past_UT), treated)
        total, mine = past_UT[others].sum(axis=0), weight_U @ past_UT
        over = total - total.mean()
        weight_U[others] = -float(over @ (mine - mine.mean())) / max(float(over @ over), 1e-300)
        return weight_U

    return Contrast("regression on total", weights, alike)


def regression_on_regions() -> Contrast:
    """Sales during the test on sales before, one row a region, weighted by 1 / sales (geo-based regression, Vaver 2011).

    Weights on the treated sum to one but are not equal: small regions count most.
    """

    def weights(past_UT: Array, treated: Sequence[int], length: int) -> Array:
        del length
        before = past_UT.mean(axis=1)
        scale = 1 / np.maximum(before, 1e-300)
        x = np.column_stack([scale, np.ones(len(before))])
        own = (split(len(before), treated)[0] > 0) * scale
        rest = own - x @ np.linalg.lstsq(x, own, rcond=None)[0]
        return np.asarray(rest * scale / max(float(rest @ own), 1e-300))

    return Contrast("regression on regions", weights, None)


def synthetic_control(*, fixed: bool) -> Contrast:
    """Simplex weights on the others; ``fixed`` takes each unit's past mean away first."""

    def weights(past_UT: Array, treated: Sequence[int], length: int) -> Array:
        del length
        weight_U, others = split(len(past_UT), treated)
        seen_UT = _without_means(past_UT) if fixed else past_UT
        weight_U[others] = -synthetic.simplex_weights(seen_UT[others], weight_U @ seen_UT)
        return weight_U

    return Contrast(f"synthetic control {fixed}", weights, alike if fixed else None)


def matched(x_UK: Array, importance_K: Array, *, fixed: bool) -> Contrast:
    """Simplex weights that match predictors (Abadie 2010)."""

    def weights(past_UT: Array, treated: Sequence[int], length: int) -> Array:
        del length
        weight_U, others = split(len(past_UT), treated)
        weight_U[others] = -synthetic.matched(weight_U @ x_UK, x_UK[others], importance_K)
        return weight_U

    return Contrast("", weights, alike if fixed else None)


def augmented(penalty: float, *, fixed: bool, relative: bool) -> Contrast:
    """Synthetic control whose remaining misfit a ridge regression takes away (Ben-Michael 2021).

    Args:
        penalty: of the ridge, in squared outcomes; in units of the controls' largest squared singular
            value where ``relative``.
    """

    def weights(past_UT: Array, treated: Sequence[int], length: int) -> Array:
        del length
        weight_U, others = split(len(past_UT), treated)
        seen_UT = _without_means(past_UT) if fixed else past_UT
        weight_U[others] = -_ridged(seen_UT[others], weight_U @ seen_UT, [penalty], relative=relative)[0]
        return weight_U

    return Contrast(f"augmented {penalty} {fixed} {relative}", weights, alike if fixed else None)


def _ridged(x_CT: Array, y_T: Array, penalties: Sequence[float], *, relative: bool) -> list[Array]:
    """Simplex weights plus what a ridge on deviations from the controls' mean adds, for each penalty."""
    plain = synthetic.simplex_weights(x_CT, y_T)
    rest, over_CT = y_T - plain @ x_CT, x_CT - x_CT.mean(axis=0)
    wide = len(x_CT) > len(y_T)
    size, turn = np.linalg.eigh(over_CT.T @ over_CT if wide else over_CT @ over_CT.T)
    size = np.maximum(size, 0)
    unit = max(float(size[-1]), 1e-300)
    pull = turn.T @ (rest if wide else over_CT @ rest)
    found = []
    for penalty in penalties:
        more = turn @ (pull / (size + max(penalty * (unit if relative else 1.0), 1e-12 * unit)))
        found.append(plain + (over_CT @ more if wide else more))
    return found


def penalty_of(past_UT: Array, treated: Sequence[int], *, fixed: bool) -> float:
    """The largest relative ridge penalty that foretells left-out periods as well as the best one, within a standard error.

    Source: augsynth (R), which gives GeoLift's published figure.
    """
    seen_UT = _without_means(past_UT) if fixed else past_UT
    weight_U, others = split(len(seen_UT), treated)
    x_CT, y_T = seen_UT[others], weight_U @ seen_UT
    grid = [10 ** (-8 * k / GRID) for k in range(GRID + 1)]
    periods = x_CT.shape[1]
    if periods < 4:
        return 1.0

    def find() -> Array:
        misses = []
        for left in range(periods):
            kept = np.arange(periods) != left
            misses.append(
                [
                    float(y_T[left] - w @ x_CT[:, left]) ** 2
                    for w in _ridged(x_CT[:, kept], y_T[kept], grid, relative=True)
                ]
            )
        each = np.array(misses)
        mean, best = each.mean(axis=0), int(each.mean(axis=0).argmin())
        near = mean <= mean[best] + each[:, best].std(ddof=1) / math.sqrt(periods)
        return np.array([grid[int(np.flatnonzero(near)[0])]])

    digest = blake2b(np.ascontiguousarray(seen_UT).tobytes(), digest_size=16).digest()
    return float(_memory.weights(("penalty", digest, seen_UT.shape, tuple(treated)), find)[0])


def synthetic_differences() -> Contrast:
    """Weights over units and over periods, then a difference in differences (synthetic DiD, Arkhangelsky 2021).

    Periods of the past count by how well they foretell the test among the units outside the set, each set
    its own: were they those of the treated's controls for all, the others would be followed too closely.
    """

    def weights(past_UT: Array, treated: Sequence[int], length: int) -> Array:
        weight_U, others = split(len(past_UT), treated)
        o_CT = past_UT[others]
        zeta = (len(treated) * length) ** 0.25 * _noise(o_CT)
        weight_U[others] = -_ridge_simplex(o_CT, weight_U @ past_UT, zeta**2 * o_CT.shape[1])
        return weight_U

    return Contrast("synthetic differences", weights, _like_the_test)


def _like_the_test(y_UT: Array, sets: Sequence[Sequence[int]], fit_T: BoolArray, test: slice) -> Array:
    """For each set, weights of the past's periods that bring the others' past nearest to their test, but for a constant."""
    digest = blake2b(np.ascontiguousarray(y_UT).tobytes(), digest_size=16).digest()
    keys = [("days", digest, int(fit_T.sum()), test.start, test.stop, tuple(one)) for one in sets]
    found = {row: kept for row, key in enumerate(keys) if (kept := _memory.known.get(key)) is not None}
    new = [row for row in range(len(keys)) if row not in found]
    found |= zip(new, _days([sets[row] for row in new], y_UT[:, fit_T], y_UT[:, test].mean(axis=1)), strict=True)
    for row in new:  # what is remembered now may push out what was read above
        _memory.weights(keys[row], lambda row=row: found[row])  # type: ignore[misc]
    return np.array([found[row] for row in range(len(keys))])


@threadpool_limits.wrap(limits=1, user_api="blas")
def _days(sets: Sequence[Sequence[int]], past_UT: Array, after_U: Array) -> list[Array]:
    """The same, found: the first by plain least squares, whose periods are the guess for all others at once."""
    if not sets:
        return []
    out_SU = np.ones((len(sets), len(past_UT)))
    for row, one in enumerate(sets):
        out_SU[row, list(one)] = 0.0
    penalty_S = np.array([(1e-6 * _noise(past_UT[row > 0])) ** 2 * row.sum() for row in out_SU])

    def alone(row: int) -> Array:
        kept = out_SU[row] > 0
        return _ridge_simplex(past_UT[kept].T, after_U[kept], float(penalty_S[row]))

    periods, first = past_UT.shape[1], alone(0)
    found = [first]
    step = max(1, LARGEST // periods**2)
    for begin in range(1, len(sets), step):
        out = out_SU[begin : begin + step]
        many = out.sum(axis=1)[:, None]
        mean_T, mean = out @ past_UT / many, out @ after_U[:, None] / many
        aim_T = (out * after_U) @ past_UT - many * mean * mean_T
        gram_TT = (out[:, None, :] * past_UT.T) @ past_UT - (many * mean_T)[:, :, None] * mean_T[:, None, :]
        size = max(float(np.abs(gram_TT).max()), 1e-300)
        gram_TT = gram_TT / size + (penalty_S[begin : begin + step, None, None] / size + 1e-12) * np.eye(periods)
        start = np.tile(first > 1e-9, (len(out), 1))
        found += list(synthetic.exchange(gram_TT, aim_T / size, np.ones_like(start), start)[0])
    return [alone(row) if np.isnan(one).any() else one for row, one in enumerate(found)]


def _noise(o_CT: Array) -> float:
    """Spread of first differences."""
    return float(np.diff(o_CT, axis=1).std(ddof=1)) if o_CT.shape[1] > 1 and o_CT.size > 2 else 0.0


def _ridge_simplex(x_CT: Array, y_T: Array, penalty: float) -> Array:
    """Simplex weights with an intercept and a ridge penalty."""
    x, y = x_CT - x_CT.mean(axis=1, keepdims=True), y_T - y_T.mean()
    extra = math.sqrt(max(penalty, 0.0)) * np.eye(len(x))
    return synthetic.simplex_weights(np.hstack([x, extra]), np.append(y, np.zeros(len(x))))


def _without_means(past_UT: Array) -> Array:
    return np.asarray(past_UT - past_UT.mean(axis=1, keepdims=True))

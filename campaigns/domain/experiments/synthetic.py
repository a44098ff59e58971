"""Synthetic control: what the treated would have done, as a weighted mean of the others.

Weights lie on the simplex (no extrapolation). Inference permutes blocks of residuals in time
(Chernozhukov, Wuthrich and Zhu 2021): under the null the residuals of the test are those of any other
stretch, also when they are correlated from one period to the next. The statistic is the absolute sum over the test, which at
valid size has more power against a lasting effect than the sum of absolute values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.optimize import minimize, nnls

from campaigns.domain.experiments.placebo import Ranked
from rmn.lib.arrays import Array, BoolArray, IntArray

HEAVY = 1e4  # weight of the row that makes the weights sum to one, times the data's size
SHARES = 1000  # of predictors' importance that are tried before the search
ROUNDS = 20  # exchanges of many problems at once; the few that take longer are quicker alone


def simplex_weights(x_CT: Array, y_T: Array) -> Array:
    """Weights at least 0 that sum to 1 and bring the controls nearest to the treated, least squares.

    Args:
        x_CT: controls by period.
        y_T: the treated.
    """
    size = max(float(np.abs(x_CT).max(initial=0.0)), float(np.abs(y_T).max(initial=0.0)), 1e-12)
    rows = np.vstack([x_CT.T / size, np.full((1, len(x_CT)), HEAVY)])
    weights, _ = nnls(rows, np.append(y_T / size, HEAVY), maxiter=50 * max(len(x_CT), 10))
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(x_CT), 1.0 / len(x_CT))


def simplex_weights_many(
    gram_UU: Array, target_BU: Array, start_BU: BoolArray | None = None
) -> tuple[Array, BoolArray]:
    """Simplex weights for many targets over the same units at once, each target's own units left out.

    Block principal pivoting on the optimality conditions (Kim and Park 2011): which weights are above zero
    is guessed, solved for, and exchanged where a sign is wrong. A guess from a near problem, such as the
    same targets one window earlier, saves most of the work.

    Args:
        gram_UU: products of the units' outcomes over the past.
        target_BU: weights of each target's own units.
        start_BU: which weights are guessed to be above zero.

    Returns:
        weights, and which of them are above zero; a row of nan where the exchange did not settle.
    """
    size = max(float(np.diag(gram_UU).max()), 1e-300)
    g_UU = gram_UU / size + 1e-10 * np.eye(len(gram_UU))
    aim_BU, free_BU = target_BU @ gram_UU / size, target_BU == 0
    if start_BU is None:
        near = np.where(free_BU, np.diag(g_UU) - 2 * aim_BU, np.inf).argmin(axis=1)
        start_BU = np.arange(len(gram_UU)) == near[:, None]
    return exchange(g_UU, aim_BU, free_BU, start_BU)


def exchange(g_BUU: Array, aim_BU: Array, free_BU: BoolArray, start_BU: BoolArray) -> tuple[Array, BoolArray]:
    """Least x'Gx / 2 - x'aim over the simplex, for many problems at once, by block principal pivoting.

    Args:
        g_BUU: G of each problem, or one G for all (U by U); of a size near 1.
        aim_BU: the linear part.
        free_BU: which weights may be above zero.
        start_BU: which are guessed to be.

    Returns:
        weights, and which of them are above zero; a row of nan where the exchange did not settle.
    """
    count, units = aim_BU.shape
    on_BU, todo = start_BU & free_BU, np.arange(count)
    weight_BU = np.full((count, units), np.nan)
    fewest, patience = np.full(count, units + 1), np.full(count, 3)
    for _ in range(ROUNDS):
        on = on_BU[todo]
        many = on.sum(axis=1)
        k = int(many.max())
        order = np.argsort(~on, axis=1, kind="stable")[:, :k]
        real = np.arange(k) < many[:, None]
        system = np.zeros((len(todo), k + 1, k + 1))
        both = real[:, :, None] & real[:, None, :]
        system[:, :k, :k] = np.where(both, _parts(g_BUU, todo, order), 0)
        system[:, np.arange(k), np.arange(k)] += ~real
        system[:, :k, k], system[:, k, :k] = -1.0 * real, 1.0 * real
        right = np.ones((len(todo), k + 1))
        right[:, :k] = np.where(real, np.take_along_axis(aim_BU[todo], order, axis=1), 0)
        solved = np.linalg.solve(system, right[..., None])[..., 0]
        found = np.zeros((len(todo), units))
        np.put_along_axis(found, order, np.where(real, solved[:, :k], 0), axis=1)
        pull = found @ g_BUU if g_BUU.ndim == 2 else (g_BUU[todo] @ found[..., None])[..., 0]
        slope = pull - aim_BU[todo] - solved[:, k:]
        wrong = (on & (found < -1e-12)) | (~on & free_BU[todo] & (slope < -1e-10))
        left = wrong.sum(axis=1)
        done = left == 0
        weight_BU[todo[done]] = found[done]
        better = left < fewest[todo]
        patience[todo] = np.where(better, 3, patience[todo] - 1)
        fewest[todo] = np.minimum(left, fewest[todo])
        last = units - 1 - np.argmax(wrong[:, ::-1], axis=1)
        flip = np.where((patience[todo] > 0)[:, None], wrong, np.arange(units) == last[:, None])
        after = on ^ flip
        after[~after.any(axis=1)] = on[~after.any(axis=1)]
        on_BU[todo] = np.where(done[:, None], on, after)
        todo = todo[~done]
        if not len(todo):
            break
    return weight_BU, on_BU


def _parts(g_BUU: Array, rows: IntArray, order: IntArray) -> Array:
    """Of each problem's G, the rows and columns in ``order``."""
    if g_BUU.ndim == 2:
        return np.asarray(g_BUU[order[:, :, None], order[:, None, :]])
    return np.asarray(g_BUU[rows[:, None, None], order[:, :, None], order[:, None, :]])


def centred(y_UT: Array, pre_T: Array | BoolArray) -> Array:
    """Each unit without its mean over the chosen periods."""
    return y_UT - y_UT[:, pre_T].mean(axis=1, keepdims=True)


def residuals(
    treated_T: Array, control_CT: Array, fit_T: Array | BoolArray, *, fixed_effects: bool = True
) -> tuple[Array, Array]:
    """Treated minus synthetic in every period, and the weights, fitted on the periods of ``fit_T``."""
    both = np.vstack([treated_T, control_CT])
    if fixed_effects:
        both = centred(both, fit_T)
    weights = simplex_weights(both[1:, fit_T], both[0, fit_T])
    return both[0] - weights @ both[1:], weights


def predictor_importance(x_UK: Array, y_UT: Array) -> Array:
    """How much each predictor counts, so that weights matched on predictors also follow the past (Abadie 2010).

    Args:
        x_UK: predictors by unit, the treated first, each of unit spread.
        y_UT: outcomes before the test, the treated first.

    Returns:
        shares that sum to one.
    """
    count = x_UK.shape[1]

    def shares(z_K: Array) -> Array:
        e = np.exp(np.clip(z_K - z_K.max(), -30, 0))
        return np.asarray(e / e.sum())

    def miss(z_K: Array) -> float:
        weights = matched(x_UK[0], x_UK[1:], shares(z_K))
        return float(((y_UT[0] - weights @ y_UT[1:]) ** 2).mean())

    if count == 1:
        return np.ones(1)
    # the miss has many local minima: begin from the best of many shares, of a regression's and of the even split
    pull, *_ = np.linalg.lstsq(np.column_stack([np.ones(len(x_UK)), x_UK]), y_UT, rcond=None)
    drawn = np.random.default_rng(0).dirichlet(np.full(count, 0.3), SHARES)
    tried = [np.ones(count), (pull[1:] ** 2).sum(axis=1), *drawn]
    starts = sorted((np.log(np.maximum(one, 1e-12)) for one in tried), key=miss)[:3]
    found = [
        minimize(miss, start, method="Nelder-Mead", options={"maxfev": 200 * count, "xatol": 1e-3, "fatol": 1e-10})
        for start in starts
    ]
    return shares(min(found, key=lambda one: float(one.fun)).x)


def matched(x_K: Array, x_CK: Array, share_K: Array) -> Array:
    """Simplex weights that bring the controls' predictors nearest to the treated's, each counting by its share."""
    root = np.sqrt(share_K)
    return simplex_weights(x_CK * root, x_K * root)


def block_p(residual_T: Array, test: slice) -> float:
    """Share of cyclic shifts whose test window sums to at least as much, in absolute value; the true one counts."""
    length = test.stop - test.start
    doubled = np.concatenate([residual_T, residual_T[: length - 1]])
    sums = np.abs(np.convolve(doubled, np.ones(length), "valid"))
    seen = abs(residual_T[test].sum())
    return float((sums >= seen * (1 - 1e-12)).mean())


def shifted(
    weight_T: Array, y_T: Array, rows_TK: Array, first: int, *, seed: int | None = None, draws: int = 2000
) -> Ranked:
    """A contrast of periods among those of the same residuals shifted in time, round the end; or shuffled, with a seed.

    Args:
        weight_T: the contrast.
        y_T: the outcome, with the effect from ``first`` on.
        rows_TK: what is taken out of outcome and effect before they are shifted.
    """
    both = np.column_stack([y_T, np.arange(len(y_T)) >= first]).astype(float)
    rest = both - rows_TK @ np.linalg.lstsq(rows_TK, both, rcond=None)[0]
    if seed is None:
        turned = np.fft.rfft(rest, axis=0) * np.conj(np.fft.rfft(weight_T))[:, None]
        found = np.fft.irfft(turned, n=len(y_T), axis=0)
    else:
        rng = np.random.default_rng(seed)
        found = np.array([weight_T @ rest, *(weight_T @ rng.permutation(rest) for _ in range(draws))])
    found = found / found[0, 1]
    return Ranked(found[:, 0], found[:, 1], np.ones(len(found)))


@lru_cache(maxsize=8)
def _shuffles(periods: int, length: int, draws: int, seed: int) -> IntArray:
    """Draw by place: ``length`` different periods each."""
    keys = np.random.default_rng(seed).random((draws, periods))
    return np.argpartition(keys, length - 1, axis=1)[:, :length]


def iid_p(residual_T: Array, test: slice, draws: int = 5000, seed: int = 1, *, of_sum: bool = False) -> float:
    """The same with periods shuffled freely, too small under correlation.

    The statistic is GeoLift's, the sum of absolute values; ``of_sum`` takes the absolute sum instead.
    """
    chosen = _shuffles(len(residual_T), test.stop - test.start, draws, seed)
    size = residual_T if of_sum else np.abs(residual_T)
    seen = abs(float(size[test].sum()))
    count = int((np.abs(size[chosen].sum(axis=1)) >= seen * (1 - 1e-12)).sum())
    return (count + 1) / (draws + 1)


def invert(
    p_of: Callable[[float], float], estimate: float, step: float, alpha: float, *, zero_kept: bool | None = None
) -> tuple[float, float]:
    """The values around the estimate that the test does not reject at ``alpha``, zero included where it is not.

    Walks out from the estimate in growing steps until the test rejects, then halves; zero itself is
    always asked (unless ``zero_kept`` tells), so that interval and p-value cannot disagree.
    """

    def edge(sign: float) -> float:
        inside, width = 0.0, step
        for _ in range(60):
            if p_of(estimate + sign * (inside + width)) < alpha:
                break
            inside += width
            width *= 1.5
        else:
            return sign * np.inf
        low, high = inside, inside + width
        for _ in range(30):
            middle = 0.5 * (low + high)
            if p_of(estimate + sign * middle) < alpha:
                high = middle
            else:
                low = middle
        return estimate + sign * low

    lower, upper = edge(-1.0), edge(1.0)
    if p_of(0.0) >= alpha if zero_kept is None else zero_kept:
        return float(min(lower, 0.0)), float(max(upper, 0.0))
    tiny = 1e-9 * max(abs(estimate), step)
    if lower <= 0 <= estimate:
        lower = tiny
    if estimate <= 0 <= upper:
        upper = -tiny
    return float(lower), float(upper)

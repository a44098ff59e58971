"""Comparisons of proportions and means that hold at small numbers: who is better, how surely, from how many cases.

Pure: numpy and scipy. Used by the gate of adapters, by agreement and review statistics, and by
``score --kind paired``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy import stats as distributions

from rmn.lib.arrays import Array, IntArray
from rmn.lib.errors import BadInput

Interval = tuple[float, float]


@dataclass(frozen=True)
class McNemar:
    """A paired comparison of two raters, models or versions on the same cases.

    ``difference`` is A minus B as a share of all cases; ``wald_interval`` is its textbook 95 %
    interval, which at few cases is too narrow: decide with ``exact_p``.
    """

    n: int
    a_only: int
    b_only: int
    exact_p: float
    chi2: float
    chi2_p: float
    chi2_continuity: float
    chi2_continuity_p: float
    difference: float
    wald_se: float
    wald_interval: Interval


def mcnemar(both_right: int, a_only: int, b_only: int, both_wrong: int) -> McNemar:
    """McNemar's tests of a 2 x 2 table of paired outcomes, two-sided.

    Args:
        both_right, a_only, b_only, both_wrong: numbers of cases.

    Raises:
        BadInput: a negative count, or no case at all.

    Source: McNemar (1947); exact version = binomial test of the discordant pairs; the statistic
    with continuity correction is Edwards (1948).
    """
    counts = (both_right, a_only, b_only, both_wrong)
    if any(count < 0 or count != int(count) for count in counts):
        raise BadInput(f"paired table {counts}: counts are whole numbers of at least 0")
    n, discordant = sum(counts), a_only + b_only
    if n == 0:
        raise BadInput("paired table: no case at all; give at least one")
    chi2 = (a_only - b_only) ** 2 / discordant if discordant else 0.0
    corrected = max(abs(a_only - b_only) - 1, 0) ** 2 / discordant if discordant else 0.0
    difference = (a_only - b_only) / n
    se = math.sqrt(max(discordant / n - difference**2, 0.0) / n)
    z = _z(0.975)
    return McNemar(
        n=n,
        a_only=a_only,
        b_only=b_only,
        exact_p=mcnemar_exact(a_only, b_only),
        chi2=chi2,
        chi2_p=float(distributions.chi2.sf(chi2, 1)),
        chi2_continuity=corrected,
        chi2_continuity_p=float(distributions.chi2.sf(corrected, 1)),
        difference=difference,
        wald_se=se,
        wald_interval=(difference - z * se, difference + z * se),
    )


def mcnemar_exact(a_only: int, b_only: int, *, one_sided: bool = False) -> float:
    """p-value of McNemar's exact test from the discordant counts.

    One-sided: probability of at least ``a_only`` wins of A when neither is better.
    """
    return binomial_p(a_only, a_only + b_only, one_sided=one_sided)


def binomial_p(wins: int, n: int, rate: float = 0.5, *, one_sided: bool = False) -> float:
    """p-value of the exact binomial test that the rate is ``rate``; 1 where nothing was decided.

    One-sided asks whether it is greater.
    """
    if not 0 <= wins <= n:
        raise BadInput(f"{wins} wins of {n}: wins lie between 0 and n")
    if n == 0:
        return 1.0
    return float(distributions.binomtest(wins, n, rate, alternative="greater" if one_sided else "two-sided").pvalue)


def wilson(wins: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share; (0, 1) where there is no case.

    ``wins`` may be a half where ties count half.

    Source: Wilson (1927); Brown, Cai and DasGupta (2001).
    """
    if n < 0 or not 0 <= wins <= n:
        raise BadInput(f"{wins} wins of {n}: wins lie between 0 and n")
    if n == 0:
        return (0.0, 1.0)
    z, rate = _z(0.5 + level / 2), wins / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if wins == 0 else max(middle - half, 0.0)
    high = 1.0 if wins == n else min(middle + half, 1.0)
    return (low, high)


def clopper_pearson(wins: int, n: int, level: float = 0.95) -> Interval:
    """The exact interval of a share: never covers less than its level, and is wide for that."""
    if not 0 <= wins <= n:
        raise BadInput(f"{wins} wins of {n}: wins lie between 0 and n")
    if n == 0:
        return (0.0, 1.0)
    tail = (1 - level) / 2
    low = float(distributions.beta.ppf(tail, wins, n - wins + 1)) if wins else 0.0
    high = float(distributions.beta.ppf(1 - tail, wins + 1, n - wins)) if wins < n else 1.0
    return (low, high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for having looked at all of them (Holm 1979), in the order given."""
    count = len(p_values)
    adjusted = [0.0] * count
    floor = 0.0
    for position, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (count - position) * p_values[index]))
        adjusted[index] = floor
    return adjusted


# -- clustered paired differences


def cluster_sums(differences: Array, clusters: Sequence[object] | None) -> tuple[Array, IntArray]:
    """Sum and number of the paired differences in each cluster, in order of first appearance.

    Cases of one campaign, product or prompt resemble each other: the cluster is what was sampled.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise BadInput("paired differences: a list of finite numbers was expected")
    if clusters is None:
        return values, np.ones(len(values), dtype=np.int64)
    if len(clusters) != len(values):
        raise BadInput(f"{len(values)} differences but {len(clusters)} clusters")
    position: dict[object, int] = {}
    index = np.array([position.setdefault(name, len(position)) for name in clusters], dtype=np.int64)
    sums = np.bincount(index, weights=values, minlength=len(position)).astype(np.float64)
    return sums, np.bincount(index, minlength=len(position)).astype(np.int64)


def sign_flip_p(
    differences: Array, clusters: Sequence[object] | None = None, *, draws: int = 20_000, seed: int = 0
) -> float:
    """One-sided p-value that the mean paired difference is greater than 0, clusters kept whole.

    Under no difference, A and B of a whole cluster may change names: every sum of a cluster is as
    likely with the other sign. Exact by convolution where the sums are whole numbers (right or
    wrong), so that with one case a cluster it is McNemar's exact test; else by ``draws`` random
    flips, with the observed one counted (never 0). Its size never exceeds alpha.

    Source: Fisher's randomization test; Phipson and Smyth (2010) for the added one.
    """
    sums, _ = cluster_sums(np.asarray(differences, dtype=np.float64), clusters)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    observed = float(sums.sum())
    whole = np.abs(np.rint(sums)).astype(np.int64)
    if np.allclose(sums, np.rint(sums)) and whole.sum() <= 20_000:
        return _exact_flips(whole, round(observed))
    rng = np.random.default_rng(seed)
    reached = 0
    block = max(1, 2_000_000 // len(sums))
    for start in range(0, draws, block):
        signs = rng.integers(0, 2, (min(block, draws - start), len(sums))) * 2 - 1
        reached += int((signs @ sums >= observed - 1e-9 * max(1.0, abs(observed))).sum())
    return (1 + reached) / (1 + draws)


def _exact_flips(sizes: IntArray, observed: int) -> float:
    """P(sum of +-size >= observed): the coin decides for each whether it is added."""
    total = int(sizes.sum())
    chance = np.zeros(total + 1)  # of the sum of those with a plus
    chance[0] = 1.0
    for size in sizes:
        chance[size:] = 0.5 * (chance[size:] + chance[: total + 1 - size])
        chance[:size] *= 0.5
    needed = -(-(observed + total) // 2)  # sum of pluses so that pluses - minuses >= observed
    return float(min(1.0, chance[max(needed, 0) :].sum()))


def paired_bootstrap(
    differences: Array,
    clusters: Sequence[object] | None = None,
    *,
    level: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Interval:
    """Interval of the mean paired difference by resampling whole clusters.

    Percentiles are widened for few clusters (expanded percentile interval: t instead of normal
    quantile and n / (n - 1)); with fewer than two clusters it is unbounded, for one cluster says
    nothing about the next.

    Source: Efron (1979); Hesterberg (2015), What Teachers Should Know About the Bootstrap.
    """
    sums, counts = cluster_sums(np.asarray(differences, dtype=np.float64), clusters)
    groups = len(sums)
    if groups < 2:
        return (-math.inf, math.inf)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    block = max(1, 4_000_000 // groups)
    for start in range(0, draws, block):
        drawn = rng.integers(0, groups, (min(block, draws - start), groups))
        means[start : start + len(drawn)] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    quantile = distributions.t.ppf(0.5 + level / 2, groups - 1) * math.sqrt(groups / (groups - 1))
    tail = float(distributions.norm.cdf(-quantile))
    low, high = np.quantile(means, [tail, 1 - tail])
    return (float(low), float(high))


def design_effect(differences: Array, clusters: Sequence[object] | None) -> float:
    """How many clustered cases say as much as one independent case; at least 1.

    Ratio of the cluster-robust variance of the mean difference to the one that ignores clusters.
    """
    values = np.asarray(differences, dtype=np.float64)
    sums, counts = cluster_sums(values, clusters)
    n, groups = len(values), len(sums)
    if clusters is None or groups < 2 or n == groups:
        return 1.0
    mean = float(values.mean())
    plain = float(values.var(ddof=1)) / n
    if plain == 0:
        return n / groups  # nothing varied: only the clusters count as cases
    robust = float(((sums - mean * counts) ** 2).sum()) / n**2 * groups / (groups - 1)
    return max(1.0, robust / plain)


def paired_interval(
    both_right: float, a_only: float, b_only: float, both_wrong: float, level: float = 0.95
) -> Interval:
    """Interval of the difference of two paired shares, A minus B, that is honest when nothing differed.

    Newcombe's method 10: Wilson limits of both shares, squared and added with their correlation.
    Counts may be fractions (divided by a design effect).

    Source: Newcombe (1998), Statistics in Medicine 17, 2635-2650.
    """
    n = both_right + a_only + b_only + both_wrong
    if n <= 0:
        return (-1.0, 1.0)
    share_a, share_b = (both_right + a_only) / n, (both_right + b_only) / n
    low_a, high_a = wilson(min(share_a * n, n), n, level)
    low_b, high_b = wilson(min(share_b * n, n), n, level)
    margins = (both_right + a_only) * (b_only + both_wrong) * (both_right + b_only) * (a_only + both_wrong)
    product = both_right * both_wrong - a_only * b_only
    if product > 0:
        product = max(product - n / 2, 0.0)
    phi = product / math.sqrt(margins) if margins > 0 else 0.0
    difference = share_a - share_b
    down_a, up_a, down_b, up_b = share_a - low_a, high_a - share_a, share_b - low_b, high_b - share_b
    low = difference - math.sqrt(max(down_a**2 - 2 * phi * down_a * up_b + up_b**2, 0.0))
    high = difference + math.sqrt(max(up_a**2 - 2 * phi * up_a * down_b + down_b**2, 0.0))
    return (max(low, -1.0), min(high, 1.0))


# -- how many cases


def cases_for_win_rate(rate: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Decided pairs needed to tell a win rate from one half, one-sided.

    n = ((z_alpha / 2 + z_power sqrt(p (1 - p))) / (p - 1/2))^2, rounded up: 55 % needs 617 pairs,
    60 % 153, 65 % 67, 70 % 37 at 5 % and 80 %.
    """
    if not 0.5 < rate < 1:
        raise BadInput(f"win rate {rate}: a share above 0.5 and below 1 was expected")
    reach = _z(1 - alpha) / 2 + _z(power) * math.sqrt(rate * (1 - rate))
    return math.ceil((reach / (rate - 0.5)) ** 2)


def cases_for_difference(difference: float, discordant: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Paired cases needed to see a difference of two shares, one-sided.

    n = ((z_alpha sqrt(d) + z_power sqrt(d - diff^2)) / diff)^2 with ``discordant`` share d: at 30 %
    discordant, 5 points need 740 cases, 10 points 184, 15 points 81.

    Source: Connor (1987), Biometrics 43, 207-211.
    """
    if difference <= 0:
        raise BadInput(f"difference {difference}: a positive one was expected")
    discordant = min(max(discordant, difference), 1.0)
    reach = _z(1 - alpha) * math.sqrt(discordant) + _z(power) * math.sqrt(max(discordant - difference**2, 0.0))
    return math.ceil((reach / difference) ** 2)


def cases_for_margin(margin: float, discordant: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Paired cases needed to show that a share fell by less than ``margin`` when it did not fall at all.

    n = (z_alpha + z_power)^2 d / margin^2. With hardly any discordant pair the rule of three
    decides: even without a single loss, ln(1 / alpha) / margin cases are needed.
    """
    if margin <= 0:
        raise BadInput(f"margin {margin}: a positive one was expected")
    spread = (_z(1 - alpha) + _z(power)) ** 2 * max(discordant, 0.0) / margin**2
    return math.ceil(max(spread, math.log(1 / alpha) / margin))


def seen_difference(n: int, discordant: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest difference of two paired shares that ``n`` cases will show, one-sided; 1 if none."""
    if n <= 0 or cases_for_difference(1.0, 1.0, alpha=alpha, power=power) > n:
        return 1.0

    def lacking(difference: float) -> float:
        share = min(max(discordant, difference), 1.0)
        reach = _z(1 - alpha) * math.sqrt(share) + _z(power) * math.sqrt(max(share - difference**2, 0.0))
        return reach / difference - math.sqrt(n)

    return float(optimize.brentq(lacking, 1e-6, 1.0))


def _z(share: float) -> float:
    return float(distributions.norm.ppf(share))

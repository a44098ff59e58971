"""Placebo experiments in space: what the same analysis finds for other sets of units over the same periods.

This is Fisher's randomisation test. Seeded sets of units, as many as were treated and drawn from all
units, the treated among them, play the treated; the rank of the true gap among theirs is the p-value.
Where the treated could as well have been any of these sets, the rank is uniform whatever the correlation
from day to day and however the units differ in size: the test is exact. An effect is tested by taking it
out of the treated's outcomes first; a set that shares units with the treated, or compares itself with them,
loses its part of it too. The effects that are not rejected are the interval: one test, read twice.

Every gap is measured against an error that lies half-way (geometric mean) between its own misfit over
all periods and the set's level: own misfits alone are noisy, and levels alone forget how well a set is
followed (the idea of moderated t-values, Smyth 2004).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations

import numpy as np

from rmn.lib.arrays import Array, BoolArray

MOST = 5_000  # sets of a test at a small level
SETS = 200  # (1 + 19) / 201 and (1 + 9) / 201 lie just under .1 and .05


def sets(
    units: int,
    treated: Sequence[int],
    seed: int,
    most: int = SETS,
    strata: Sequence[Sequence[int]] | None = None,
) -> list[tuple[int, ...]]:
    """Other sets of as many units as were treated: all of them where they are few, else drawn.

    Where units were assigned within strata, each has as many as it had.
    """
    own = set(treated)
    parts = [(sorted(s), len(own & set(s))) for s in (strata or [range(units)])]
    count = math.prod(math.comb(len(part), size) for part, size in parts)
    true = tuple(sorted(own))
    if count - 1 <= most:
        found: dict[tuple[int, ...], None] = {(): None}
        for part, size in parts:
            found = dict.fromkeys(head + more for head in found for more in combinations(part, size))
        every = dict.fromkeys(tuple(sorted(one)) for one in found)
        every.pop(true, None)
        return list(every)
    drawn = [one for one in _drawn(tuple((tuple(part), size) for part, size in parts), seed, most + 1) if one != true]
    return drawn[:most]


@lru_cache(maxsize=64)
def _drawn(parts: tuple[tuple[tuple[int, ...], int], ...], seed: int, most: int) -> tuple[tuple[int, ...], ...]:
    """Different sets of so many of each part."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < most:
        found[tuple(sorted(int(u) for part, size in parts for u in rng.choice(part, size, replace=False)))] = None
    return tuple(found)


def wanted(alpha: float) -> int:
    """Sets for a test at this level: more than usual where it is small, so that something can be rejected, within limits."""
    return min(max(SETS, math.ceil(3 / alpha)), MOST)


def misfit(gap_ST: Array) -> Array:
    """Root mean square of gaps, never quite zero."""
    floor_S = 1e-9 * np.maximum(np.abs(gap_ST).max(axis=-1, initial=0.0), 1e-300)
    return np.asarray(np.maximum(np.sqrt((gap_ST**2).mean(axis=-1)), floor_S))


@dataclass(frozen=True)
class Ranked:
    """A statistic where something was done, which comes first, and where nothing was.

    Args:
        effect_S: the statistics.
        touch_S: what one unit of effect adds to each; 1 for the true one.
        error_S: what each is measured against.
    """

    effect_S: Array
    touch_S: Array
    error_S: Array

    def p_at(self, effects_E: Array, *, tails: int = 2) -> Array:
        """p-value of each effect: the share of sets, the true one counted, with a ratio at least as large."""
        left_ES = (self.effect_S - effects_E[:, None] * self.touch_S) / self.error_S
        size_ES = np.abs(left_ES) if tails == 2 else left_ES
        seen_E = size_ES[:, :1]
        return np.asarray((size_ES >= seen_E - 1e-9 * (np.abs(seen_E) + np.abs(size_ES).mean())).mean(axis=1))

    def bounds(self, alpha: float, *, tails: int = 2) -> tuple[tuple[float, float], float]:
        """Interval and p-value of no effect.

        The interval is all between the least and the greatest effect that is not rejected; the p-value of
        no effect is the largest of those at least as far from the estimate, so that the two agree.
        """
        own, seen = float(self.effect_S[0]), self.effect_S[1:]
        touch, times = self.touch_S[1:], self.error_S[1:] / self.error_S[0]
        edges = []
        for sign in (1.0, -1.0) if tails == 2 else (1.0,):
            slope = times - sign * touch
            kept = np.abs(slope) > 1e-12
            edges.append((times * own - sign * seen)[kept] / slope[kept])
        found = np.concatenate(edges)
        found = found[np.isfinite(found)]
        far = 1e6 * (1 + np.abs(found).max(initial=abs(own)))
        asked_E = np.unique(np.concatenate([found, [own, 0.0, -far, far]]))
        p_E = self.p_at(asked_E, tails=tails)
        inside = asked_E[p_E >= alpha]
        low, high = float(inside.min()), float(inside.max())
        beyond = asked_E <= 0 if own >= 0 or tails == 1 else asked_E >= 0
        p = float(p_E[beyond].max()) if own or tails == 1 else 1.0
        return (-math.inf if low <= -far else low, math.inf if high >= far or tails == 1 else high), p


@dataclass(frozen=True)
class Placebos:
    """Gaps of the true set, which comes first, and of the others.

    Args:
        gap_ST: set by period.
        level_S: mean size of the outcome of each set before the test.
        touch_S: what one unit of effect adds to a set's gap during the test; 1 for the true set.
        test: its periods.
    """

    gap_ST: Array
    level_S: Array
    touch_S: Array
    test: slice

    @cached_property
    def effect_S(self) -> Array:
        return np.asarray(self.gap_ST[:, self.test].mean(axis=1))

    @cached_property
    def error_S(self) -> Array:
        """Half-way between misfit and level; the effect is no misfit."""
        left_ST = self.gap_ST.copy()
        left_ST[:, self.test] -= self.effect_S[:, None]
        level_S = np.maximum(self.level_S, 1e-9 * max(float(self.level_S.max()), 1e-300))
        return np.sqrt(misfit(left_ST) * level_S)

    def upto(self, period: int) -> Placebos:
        """The same test read after so many of its periods; errors stay those of the whole."""
        short = replace(self, test=slice(self.test.start, self.test.start + period))
        short.__dict__["error_S"] = self.error_S
        return short

    def bounds(self, alpha: float, *, tails: int = 2) -> tuple[tuple[float, float], float]:
        return Ranked(self.effect_S, self.touch_S, self.error_S).bounds(alpha, tails=tails)

    def band(self, period: int, alpha: float) -> float:
        """How far from nothing a gap of one period may lie before sets to which nothing was done reject it."""
        inside = self.test.start <= period < self.test.stop
        size = np.abs(self.gap_ST[1:, period] - inside * float(self.effect_S[0]) * self.touch_S[1:]) / self.error_S[1:]
        need = needed(len(size), alpha)
        return float(np.sort(size)[-need]) * float(self.error_S[0]) if need else math.inf

    def shown(self) -> list[float]:
        """The others' effects, in units of the true set's error."""
        return sorted(float(v) for v in self.effect_S[1:] / self.error_S[1:] * self.error_S[0])


def needed(count: int, alpha: float) -> int:
    """How many of ``count`` placebos must reach a value for it not to be rejected; 0: nothing can be rejected."""
    need = 0
    while (1 + need) / (count + 1) < alpha:
        need += 1
    return need


def shares(y_UT: Array, treated: Sequence[int], before: BoolArray) -> Array:
    """How a lift falls on units: by what they sold before where all did, else alike; the treated's mean is 1."""
    share_U = np.zeros(len(y_UT))
    own = y_UT[list(treated)][:, before].mean(axis=1)
    share_U[list(treated)] = own / own.mean() if (own > 0).all() else 1.0
    return share_U

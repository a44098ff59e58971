"""Group-sequential tests: bounds at evenly spaced looks, and what looking costs in size.

With K looks after O'Brien and Fleming the test stops at look k where |Z_k| is at least C sqrt(K / k).
Sums S_k = Z_k sqrt(k) move by independent normal steps, so that the chance of crossing follows from K - 1
integrals in one dimension (Armitage, McPherson and Rowe 1969; Jennison and Turnbull 2000, chapter 19).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

NODES = 160
FAR = 9.0  # standard deviations beyond which nothing is looked for


def crossed(bound: float, looks: int, tails: int, drift: float = 0.0) -> float:
    """Chance that the sums of ``looks`` normal steps of mean ``drift`` cross the bound, the same at every look.

    Args:
        bound: C sqrt(K), in standard deviations of one step.
        tails: 2 crosses at +- the bound, 1 only above it.
    """
    low = -bound if tails == 2 else -FAR * math.sqrt(looks) + min(drift, 0.0) * looks
    node, weight = np.polynomial.legendre.leggauss(NODES)
    at = low + (bound - low) * (node + 1) / 2
    weight = weight * (bound - low) / 2
    density = norm.pdf(at - drift)
    passed = float(norm.sf(bound - drift) + (norm.cdf(low - drift) if tails == 2 else 0.0))
    out = norm.sf(bound - at - drift) + (norm.cdf(low - at - drift) if tails == 2 else 0.0)
    step = np.exp(-0.5 * (at[:, None] - at - drift) ** 2) * weight / math.sqrt(2 * math.pi)
    for _ in range(looks - 1):
        passed += float((density * weight) @ out)
        density = step @ density
    return passed


@lru_cache(maxsize=256)
def bound_of(alpha: float, looks: int, tails: int) -> float:
    """C sqrt(K): the bound of the sums that nothing crosses in all but ``alpha`` of tests."""
    plain = float(norm.isf(alpha / tails)) * math.sqrt(looks)
    return float(brentq(lambda c: crossed(c, looks, tails) - alpha, 0.9 * plain, 1.5 * plain + 1, xtol=1e-9))


def levels(alpha: float, looks: int, tails: int = 2) -> list[float]:
    """The p-value below which each look stops the test."""
    bound = bound_of(alpha, looks, tails)
    return [float(tails * norm.sf(bound / math.sqrt(k))) for k in range(1, looks + 1)]


@lru_cache(maxsize=256)
def inflation(alpha: float, power: float, looks: int, tails: int) -> float:
    """How many times larger than with one look a test must be, for the same alpha and power."""
    if looks == 1 or power <= alpha:
        return 1.0

    def drift(times: int) -> float:
        """Of the whole test, that is found with this power."""
        bound, root = bound_of(alpha, times, tails), math.sqrt(times)
        return float(brentq(lambda d: crossed(bound, times, tails, d / root) - power, 0.0, 12.0, xtol=1e-9))

    return (drift(looks) / drift(1)) ** 2

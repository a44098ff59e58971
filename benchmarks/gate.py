"""The gate's honesty: how often two equal models are told apart, and how often a true gain is found.

False promotions over simulated comparisons of equal models (independent cases, and three cases of one
product), beside the usual gate: the mean of one above the mean of the other. Power at the textbook's
sample sizes (one-sided 5 %, 80 %) and at the sizes that this gate asks for.

    python -m benchmarks gate [--full]
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from benchmarks.harness import Row
from rmn.lib import stats
from training.domain import gate

PAIRED = ((0.05, 740), (0.10, 184), (0.15, 81))  # difference at 30 % discordant: the textbook's cases
WIN_RATES = ((0.55, 617), (0.60, 153), (0.65, 67), (0.70, 37))
DISCORDANT = 0.3


def false_promotions(runs: int, size: int, seed: int = 7) -> tuple[float, float]:
    """Share of comparisons of equal models that end in ``better``: ours, and by the means alone."""
    rng = np.random.default_rng(seed)
    ours = means = 0
    for _ in range(runs):
        hard = np.repeat(rng.random(60 // size), size)
        a, b = (rng.random((2, len(hard))) < hard).astype(float)
        clusters = [str(i // size) for i in range(len(hard))]
        ours += gate.compare({"passes": a}, {"passes": b}, clusters).verdict == "better"
        means += a.mean() > b.mean()
    return ours / runs, means / runs


def found(runs: int, cases: int, difference: float, seed: int = 3) -> float:
    """Share of comparisons with a true difference that the gate's test finds, independent cases."""
    rng = np.random.default_rng(seed)
    shares = [(DISCORDANT + difference) / 2, (DISCORDANT - difference) / 2, 1 - DISCORDANT]
    kinds = rng.multinomial(cases, shares, size=runs)
    return float(np.mean([stats.mcnemar_exact(int(w), int(v), one_sided=True) < 0.05 for w, v, _ in kinds]))


def win_power(pairs: int, rate: float) -> float:
    """Power of the exact one-sided test of a win rate above one half."""
    least = binom.isf(0.05, pairs, 0.5) + 1
    return float(binom.sf(least - 1, pairs, rate))


def rows(size: str) -> list[Row]:
    runs = 2000 if size == "full" else 300
    told = []
    for cluster in (1, 3):
        ours, means = false_promotions(runs, cluster)
        words = "independent cases" if cluster == 1 else "three cases of each product"
        told.append(Row(f"equal models promoted, {words}, {runs:,} comparisons", ours, "share", "higher mean wins", means, "0.05 at most", ours <= 0.05))  # fmt: skip
    for difference, textbook in PAIRED:
        asked = gate.cases_needed(difference, DISCORDANT)
        power = found(10 * runs, asked, difference)
        at_textbook = found(10 * runs, textbook, difference)
        told.append(Row(f"power for {difference:.0%} at the {asked} cases it asks for", power, "share", f"at the textbook's {textbook}", at_textbook, "0.80 within 0.02", abs(power - 0.8) <= 0.02))  # fmt: skip
    for rate, textbook in WIN_RATES:
        asked = gate.pairs_needed(rate)
        power = win_power(asked, rate)
        told.append(Row(f"power for a win rate of {rate:.0%} at the {asked} pairs it asks for", power, "share", f"at the textbook's {textbook}", win_power(textbook, rate), "0.80 within 0.02", abs(power - 0.8) <= 0.02))  # fmt: skip
    return told

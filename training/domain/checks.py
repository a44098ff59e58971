"""The creative suite's measure: how many texts pass, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents.domain.creative import Policy, failures, passes

__all__ = ["Policy", "failures", "passes", "summary"]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Pass rate with its interval, over cases of ``passed`` and ``cluster``.

    The interval resamples clusters: texts for one product are not independent.
    """
    import numpy as np

    names = sorted({row["cluster"] for row in rows})
    sums = np.array([[sum(r["passed"] for r in rows if r["cluster"] == c), sum(r["cluster"] == c for r in rows)] for c in names], float)  # fmt: skip
    rate = float(sums[:, 0].sum() / sums[:, 1].sum())
    rng = np.random.default_rng(0)
    picked = sums[rng.integers(0, len(names), (4000, len(names)))].sum(axis=1)
    low, high = np.quantile(picked[:, 0] / picked[:, 1], [0.025, 0.975])
    if rate in (0.0, 1.0):  # the bootstrap knows no doubt there: three over the number of clusters
        edge = min(3.0 / len(names), 1.0)
        low, high = (1 - edge, 1.0) if rate == 1.0 else (0.0, edge)
    return {"estimate": rate, "interval": [float(low), float(high)], "cases": len(rows), "clusters": len(names)}

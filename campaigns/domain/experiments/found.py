"""What a method found, and the pieces that every method's inference uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats as st

from campaigns.domain.experiments.design import alpha_of
from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput


@dataclass
class Found:
    """What a method found, before it becomes RESULT."""

    att: float
    interval: tuple[float, float]
    p_value: float
    count: float  # treated units times periods, or treated people: att times it is the sum
    base: float | None  # what a treated unit and period would have been
    diagnostics: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    series: list[dict[str, Any]] = field(default_factory=list)
    iroas: dict[str, Any] | None = None


def plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def tails_of(spec: Mapping[str, Any]) -> int:
    tails = spec.get("tails", 2)
    if tails not in (1, 2):
        raise BadInput(f"tails is {tails!r}: 1 or 2")
    return int(tails)


def t_test(estimate: float, error: float, freedom: float, spec: Mapping[str, Any]) -> tuple[tuple[float, float], float]:
    """Interval and p-value of a t-distributed estimate; one tail looks for a gain."""
    alpha = alpha_of(spec)
    law = st.t(freedom) if math.isfinite(freedom) else st.norm()
    if error <= 0:
        return (estimate, estimate), 0.0 if estimate else 1.0
    if tails_of(spec) == 1:
        return (estimate - law.ppf(1 - alpha) * error, math.inf), float(law.sf(estimate / error))
    half = law.ppf(1 - alpha / 2) * error
    return (estimate - half, estimate + half), float(2 * law.sf(abs(estimate) / error))


def varies(y: Array, spec: Mapping[str, Any], where: str) -> None:
    """Refuse an outcome that never changes."""
    if not np.ptp(y):
        raise BadInput(
            f"{where}: {spec.get('outcome', 'outcome')} is {y.flat[0]:g} in every row; nothing can be measured"
        )


def fieller(top: float, bottom: float, wide: float, s_tt: float, s_tb: float, s_bb: float) -> tuple[float, float]:
    """The ratios r for which ``top - r bottom`` lies within ``wide`` of its own standard errors of zero (Fieller 1954).

    Unbounded where the bottom itself cannot be told from zero.
    """
    if not math.isfinite(wide):
        return -math.inf, math.inf
    a = bottom**2 - wide**2 * s_bb
    b = top * bottom - wide**2 * s_tb
    c = top**2 - wide**2 * s_tt
    if a <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return (b - root) / a, (b + root) / a

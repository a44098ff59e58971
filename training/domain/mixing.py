"""Which weights for a composition, and whether it keeps what its parts could do."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WEIGHTS = (1.0, 0.7, 0.4)
MOST = 12  # mixtures tried: each writes the whole searching half
MARGIN = 0.05  # of a guard's rate: what a sum may lose against a part


def mixtures(parts: int, first: Sequence[float] = ()) -> list[tuple[float, ...]]:
    """Weights to try: those given, then combinations of 1, 0.7 and 0.4, even ones first."""
    grid = sorted(itertools.product(WEIGHTS, repeat=parts), key=lambda w: (max(w) - min(w), -sum(w), w))
    tried = [tuple(first)] if first else []
    return [*dict.fromkeys([*tried, *grid])][:MOST]


def halves(clusters: Sequence[str]) -> tuple[list[int], list[int]]:
    """Places of the cases that weights are searched on, and of those that judge the choice; a product is in one."""
    names = sorted(set(clusters), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    search = set(names[: len(names) // 2])
    return (
        [place for place, name in enumerate(clusters) if name in search],
        [place for place, name in enumerate(clusters) if name not in search],
    )


@dataclass(frozen=True)
class Kept:
    """Whether each part's guards stand in the sum; and what was lost, in words."""

    holds: bool
    lost: tuple[str, ...]


def guards_kept(
    composed: Mapping[str, Sequence[float]],
    parts: Mapping[str, Mapping[str, Sequence[float]]],
    guards: Sequence[str],
    margin: float = MARGIN,
) -> Kept:
    """A guard that a part keeps and the sum loses refuses the sum, on the face of it: no test has to be sure.

    Args:
        composed: for each measure one value per case.
        parts: the same for each part, by its name.
    """
    lost = []
    for name, part in parts.items():
        for guard in guards:
            before, after = _mean(part[guard]), _mean(composed[guard])
            if after < before - margin:
                lost.append(f"{guard}: {before:.2f} in {name}, {after:.2f} in the sum")
    return Kept(not lost, tuple(lost))


def _mean(values: Sequence[Any]) -> float:
    return sum(values) / max(len(values), 1)

"""What moves a vote beside the text: the side it stood on, its length, and how tired the reader was.

Each estimate is of one person, private to the person and their lead, and says how many answers it
rests on. Shares carry Wilson intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmn.lib import stats
from rmn.lib.arrays import Array

LEAST = 20  # answers; under it nothing is called a bias


@dataclass(frozen=True)
class Vote:
    """One judged pair: what was chosen, what stood first, how long both texts are, when and how fast."""

    outcome: str  # a, b, tie, both_bad
    shown_first: str = ""  # a or b; empty: not recorded
    length_a: int = 0  # characters
    length_b: int = 0
    seconds: float | None = None  # from shown to answered
    place: int = 0  # in the sitting, from 0
    pair: str = ""  # the same for a pair and its swapped repeat
    gold: str = ""  # the known answer, where there is one

    @property
    def decided(self) -> bool:
        return self.outcome in ("a", "b")


@dataclass(frozen=True)
class Share:
    """A share with its interval, and whether it surely differs from an even one."""

    share: float | None
    interval: tuple[float, float] | None
    n: int

    @property
    def uneven(self) -> bool:
        return bool(self.interval and self.n >= LEAST and not self.interval[0] <= 0.5 <= self.interval[1])

    def row(self) -> dict[str, Any]:
        return {"share": self.share, "interval": self.interval, "n": self.n, "uneven": self.uneven}


def share(hits: float, n: int) -> Share:
    if not n:
        return Share(None, None, 0)
    low, high = stats.wilson(hits, n)
    return Share(hits / n, (float(low), float(high)), n)


def position(votes: Sequence[Vote]) -> Share:
    """How often the side that stood first was chosen, of the votes that decided; half is even."""
    seen = [vote for vote in votes if vote.decided and vote.shown_first in ("a", "b")]
    return share(sum(vote.outcome == vote.shown_first for vote in seen), len(seen))


def length(votes: Sequence[Vote]) -> Share:
    """How often the longer text was chosen, of the votes that decided between unequal lengths."""
    seen = [vote for vote in votes if vote.decided and vote.length_a != vote.length_b]
    return share(sum((vote.outcome == "a") == (vote.length_a > vote.length_b) for vote in seen), len(seen))


def consistency(votes: Sequence[Vote]) -> Share:
    """How often a pair shown again with its sides swapped got the same answer."""
    first: dict[str, str] = {}
    same = n = 0
    for vote in votes:
        if not vote.pair:
            continue
        if vote.pair in first:
            n += 1
            same += first[vote.pair] == vote.outcome
        else:
            first[vote.pair] = vote.outcome
    return share(same, n)


def gold(votes: Sequence[Vote]) -> Share:
    """How often a pair with a known answer was answered so."""
    seen = [vote for vote in votes if vote.gold]
    return share(sum(vote.outcome == vote.gold for vote in seen), len(seen))


def fatigue(votes: Sequence[Vote]) -> dict[str, Any]:
    """Whether answers get hasty or one-sided late in a sitting.

    Compares the first and last third by place: median seconds, and how often the first side won.
    ``hasty`` is set when the last third takes under half the time of the first.
    """
    if len(votes) < 3 * LEAST // 2:
        return {
            "early_seconds": None,
            "late_seconds": None,
            "early_first_side": None,
            "late_first_side": None,
            "hasty": False,
        }
    ordered = sorted(votes, key=lambda vote: vote.place)
    third = len(ordered) // 3
    early, late = ordered[:third], ordered[-third:]
    pace = [_median([vote.seconds for vote in part if vote.seconds is not None]) for part in (early, late)]
    hasty = pace[0] is not None and pace[1] is not None and pace[1] < pace[0] / 2
    return {
        "early_seconds": pace[0],
        "late_seconds": pace[1],
        "early_first_side": position(early).share,
        "late_first_side": position(late).share,
        "hasty": bool(hasty),
    }


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(np.asarray(values))) if values else None


def profile(votes: Sequence[Vote]) -> dict[str, Any]:
    """All of one person's figures."""
    return {
        "answers": len(votes),
        "ties": sum(not vote.decided for vote in votes),
        "first_side": position(votes).row(),
        "longer_text": length(votes).row(),
        "consistency": consistency(votes).row(),
        "gold": gold(votes).row(),
        "fatigue": fatigue(votes),
    }


def outlier_evidence(agreed_N: Array, expected_rate: float) -> float:
    """How strongly a person's votes speak against judging as others do: an e-value, 20 and more is strong.

    Likelihood ratio of tossing a coin against agreeing with the others at the usual rate, multiplied
    over the votes; its running product may be watched without a fixed number of votes.

    Args:
        agreed_N: 1 where the vote agreed with the majority of the others, else 0.
        expected_rate: how often people agree with the majority, in general.
    """
    rate = min(max(expected_rate, 0.51), 0.99)
    agreed = float(np.sum(agreed_N))
    return float(np.exp(agreed * np.log(0.5 / rate) + (agreed_N.size - agreed) * np.log(0.5 / (1 - rate))))

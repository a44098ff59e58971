"""When is it worth training again? Only where the new answers can change the gate's verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rmn.lib.words import counted

LEAST_ROWS = 20  # answers that teach, before a first lesson


@dataclass(frozen=True)
class Standing:
    """What a scope has: answers that may train, those among them that no lesson has seen, and the gate's cases."""

    answers: int
    new: int
    products: int  # clusters of the gate's suite
    failing: int | None = None  # of these, where what serves fails somewhere; None: never evaluated
    taught: bool = False  # there was a lesson before


def worth(standing: Standing, *, alpha: float = 0.05) -> tuple[bool, str]:
    """Whether a lesson could end otherwise than the last one, and why.

    The gate flips signs over products: k products that change for the better and none for the worse have
    p = 2 ** -k, so fewer than log2(1 / alpha) of them decide nothing. Two things bound k. What serves
    already passes elsewhere: only products where it fails can be gained. And a version trained on rows of
    which a share is new is taken to differ on at most that share of the products (a rule of thumb, and the
    only thing here that is one).
    """
    least = math.ceil(math.log2(1 / alpha))
    if standing.answers < LEAST_ROWS:
        return False, f"{counted(standing.answers, 'answer')} that may train; a lesson needs {LEAST_ROWS}"
    if standing.taught and not standing.new:
        return False, "no answer since the last lesson"
    if standing.products < least:
        return False, f"{standing.products} products are kept for the gate; {least} is the least that can decide"
    if standing.failing is not None and standing.failing < least:
        return False, (
            f"what serves fails on {standing.failing} products; a gain on fewer than {least} is never certain"
        )
    if standing.taught:
        reach = math.floor(standing.products * standing.new / standing.answers)
        if reach < least:
            lacking = _lacking(standing, least)
            return False, (
                f"{standing.new} of {standing.answers} answers are new: about {reach} of {standing.products} products"
                f" could change, {least} are needed: {lacking} more answers"
            )
        return True, f"{standing.new} of {standing.answers} answers are new: enough to change the verdict"
    return True, f"{counted(standing.answers, 'answer')} and no lesson yet"


def _lacking(standing: Standing, least: int) -> int:
    """More answers x until products * (new + x) / (answers + x) reaches the least."""
    old = standing.answers - standing.new
    if standing.products <= least:
        return 0 if not old else 10 * old
    return max(
        math.ceil((least * standing.answers - standing.products * standing.new) / (standing.products - least)), 1
    )

"""One budget over concave pieces with bounds: the exact dual, one price for all.

At a price p each piece takes what gains most over the price; the money taken falls as p rises, so
the right price is the root of one monotone function. Every p gives an upper bound,
``g(p) = p B + sum(max_x f(x) - p x)``, and at the root the bound and the plan meet.

Source: Boyd and Vandenberghe, Convex Optimization, example 5.2 (water-filling) and section 5.1.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from campaigns.domain.curves import Pieces
from rmn.lib.arrays import Array

STEPS = 200
CLOSE = 1e-11  # of the money: settled at the price, such a rest costs its square


@dataclass(frozen=True)
class Filled:
    """A split of one budget over pieces."""

    x_E: Array  # spend of each piece, in its arm's own spend
    price: float  # value gained by one more unit of budget
    bound: float  # no split is worth more (sum over pieces of value above their low ends)
    value: float


def fill(pieces: Pieces, money: float, *, spend_all: bool = False, near: float = 0.0) -> Filled:
    """Split ``money`` above the pieces' low ends so that the pieces' value is highest.

    Args:
        pieces: concave pieces; their values carry the weights of the objective.
        money: to be spent above the low ends; between 0 and what the pieces hold when
            ``spend_all``, else anything from 0 on.
        spend_all: spend it even where nothing more is gained.
        near: a price to start from, such as that of a neighbouring budget.

    Returns:
        The split, exact to rounding: bound and value differ by about 1e-15 of themselves.
    """
    low_E, high_E = pieces.low_E, pieces.high_E
    if pieces.size == 0:
        return Filled(low_E.copy(), 0.0, 0.0, 0.0)
    base = float(low_E.sum())
    room = float(high_E.sum()) - base
    if money <= 0.0:
        with np.errstate(divide="ignore"):
            price = float(np.max(pieces.slope(low_E)))
        return Filled(low_E.copy(), price if np.isfinite(price) else 0.0, 0.0, 0.0)
    if money >= room:
        x_E = high_E.copy()
        if not spend_all:
            x_E[pieces.linear_E & (pieces.a_E <= 0)] = low_E[pieces.linear_E & (pieces.a_E <= 0)]
        value = float((pieces.value(x_E) - pieces.low_value_E).sum())
        return Filled(x_E, 0.0, value, value)
    target = base + money
    scratch = np.empty(pieces.size)
    left, right, tie = _bracket(pieces, target, scratch)
    if tie is None:
        price = _root(pieces, target, left, right, scratch, near)
    else:
        price = tie
    x_E = pieces.respond(price, scratch) if price > 0 else _at_no_price(pieces)
    taken = float(x_E.sum())
    inner = pieces.value(x_E) - pieces.low_value_E
    inner -= price * (x_E - low_E)
    bound = float(inner.sum()) + price * money
    _settle(pieces, x_E, target - taken, price, tie is not None, spend_all)
    value = float((pieces.value(x_E) - pieces.low_value_E).sum())
    return Filled(x_E, price, max(bound, value), value)


def _at_no_price(pieces: Pieces) -> Array:
    return np.where(pieces.linear_E & (pieces.a_E <= 0), pieces.low_E, pieces.high_E)


def _bracket(pieces: Pieces, target: float, scratch: Array) -> tuple[float, float, float | None]:
    """Prices left and right of the root with no linear slope between, or the slope it lies on."""
    if not pieces.linear_E.any():
        return 0.0, np.inf, None
    slopes = np.unique(pieces.a_E[pieces.linear_E])  # ascending
    if slopes[0] <= 0.0:
        slopes = slopes[slopes > 0.0]
        if float(_at_no_price(pieces).sum()) <= target:
            return 0.0, 0.0, 0.0
    first, last = 0, slopes.size  # the number of slopes below the root
    while first < last:
        middle = (first + last) // 2
        price = float(slopes[middle])
        x_E = pieces.respond(price, scratch)  # linear pieces at this slope: none taken
        least = float(x_E.sum())
        tied = pieces.linear_E & (pieces.a_E == price)
        most = least + float((pieces.high_E - pieces.low_E)[tied].sum())
        if least > target:
            first = middle + 1
        elif most < target:
            last = middle
        else:
            return price, price, price
    left = float(slopes[first - 1]) if first > 0 else 0.0
    right = float(slopes[first]) if first < slopes.size else np.inf
    return left, right, None


def _root(pieces: Pieces, target: float, left: float, right: float, scratch: Array, near: float = 0.0) -> float:
    """The price at which the pieces take the target, by regula falsi in logarithms.

    ln(taken) is nearly linear in ln(price), and both ranges may span many powers of ten.
    """

    def excess(log_price: float) -> float:
        taken = float(pieces.respond(float(np.exp(log_price)), scratch).sum())
        return float(np.log(taken / target)) if taken > 0 else -700.0

    guess = near if near > 0 else _guess(pieces, target)
    log_left = np.log(left) if left > 0 else -np.inf
    log_right = np.log(right) if np.isfinite(right) else np.inf
    here = float(np.log(guess)) if guess > 0 and np.isfinite(guess) else 0.0
    if not log_left < here < log_right:
        here = log_left + 1e-9 if np.isfinite(log_left) and here <= log_left else log_right - 1e-9
    a, b = log_left, log_right
    fa = fb = None
    step, tries = 0.0, 0
    f = excess(here)
    while fa is None or fb is None:  # walk to the other side, in growing steps
        if f == 0.0:
            return float(np.exp(here))
        if f > 0:
            a, fa = here, f
        else:
            b, fb = here, f
        if fa is not None and fb is not None:
            break
        tries += 1
        step = max(1.5 * abs(f), 0.05) if tries == 1 else 3.0 * step
        there = here + (step if f > 0 else -step)
        if f > 0 and np.isfinite(log_right) and there >= log_right:
            b, fb = log_right, -1e-3  # the root lies before the next slope
            break
        if f <= 0 and np.isfinite(log_left) and there <= log_left:
            a, fa = log_left, 1e-3
            break
        if abs(there) > 700.0:
            return float(np.exp(np.clip(there, -700.0, 700.0)))
        here, f = there, excess(there)
    assert fa is not None  # noqa: S101
    assert fb is not None  # noqa: S101
    side = 0
    for count in range(STEPS):
        if b - a <= 1e-15 * max(1.0, abs(a)):
            break
        here = (a * fb - b * fa) / (fb - fa)
        if not a < here < b or count % 12 == 11:
            here = 0.5 * (a + b)
            if not a < here < b:
                break
        f = excess(here)
        if abs(f) <= CLOSE:
            return float(np.exp(here))
        if f > 0:
            fb = fb * _shrink(f, fa) if side == 1 else fb
            a, fa, side = here, f, 1
        else:
            fa = fa * _shrink(f, fb) if side == -1 else fa
            b, fb, side = here, f, -1
    return float(np.exp(a if abs(fa) < abs(fb) else b))


def _guess(pieces: Pieces, target: float) -> float:
    """The middle slope where each piece takes the same share of its range."""
    base = float(pieces.low_E.sum())
    room = max(float((pieces.high_E - pieces.low_E).sum()), 1e-300)
    smooth = pieces.slope(pieces.low_E + (pieces.high_E - pieces.low_E) * min(1.0, (target - base) / room))
    if pieces.linear_E.any():
        smooth = smooth[~pieces.linear_E & np.isfinite(smooth) & (smooth > 0)]
    return float(np.median(smooth)) if smooth.size else 1.0


def _shrink(new: float, old: float) -> float:
    """Anderson and Bjorck's factor for the end that stays."""
    factor = 1.0 - new / old
    return factor if factor > 0 else 0.5


def _settle(pieces: Pieces, x_E: Array, rest: float, price: float, tied: bool, spend_all: bool) -> None:
    """Spend what rounding or a tie has left, where it costs nothing: on pieces at the price."""
    low_E, high_E = pieces.low_E, pieces.high_E
    if tied and rest > 0:
        if price <= 0.0 and not spend_all:
            return
        level = price if price > 0 else 0.0
        for piece in np.flatnonzero(pieces.linear_E & ((pieces.a_E == level) if level else (pieces.a_E <= 0))):
            more = min(rest, high_E[piece] - x_E[piece])
            x_E[piece] += more
            rest -= more
            if rest <= 0:
                return
    if price <= 0.0 and not spend_all:
        return
    small = 1e-16 * float(x_E.sum())
    for _ in range(3):
        if abs(rest) <= small:
            return
        free = (x_E > low_E) & (x_E < high_E)
        if not free.any():
            free = (x_E < high_E) if rest > 0 else (x_E > low_E)
            if not free.any():
                return
        weight = np.where(free, x_E, 0.0)
        total = float(weight.sum())
        if total <= 0:
            weight, total = free.astype(float), float(free.sum())
        before = x_E.copy()
        np.clip(x_E + weight * (rest / total), low_E, high_E, out=x_E)
        rest -= float((x_E - before).sum())

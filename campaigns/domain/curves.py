"""Response curves: what a spend brings, what the next unit brings, and the concave hull above.

Every curve starts at sales 0 for spend 0 and never falls. Spend and sales are totals of the plan's
period in one currency. Names end in axes: C arms (campaigns), E pieces of an envelope.

* log: ``scale * ln(1 + s / half)``
* power: ``scale * s ** exponent``, exponent in (0, 1]
* michaelis_menten: ``scale * s / (half + s)``
* hill: ``scale * s ** n / (half ** n + s ** n)``, S-shaped for n > 1
* piecewise: linear through points from (0, 0), flat after the last, concave or not

A concave hull ("envelope") of a curve on ``[low, high]`` is kept as *pieces*, each concave by
itself with slopes that fall from piece to piece: a chord over the convex part, then the curve. A
solver may fill the pieces as if they were arms of their own: no optimal plan fills a later piece
before an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from rmn.lib.arrays import Array, BoolArray, IntArray

LOG, POWER, MICHAELIS_MENTEN, HILL, PIECEWISE, LINEAR = range(6)
KINDS = {"log": LOG, "power": POWER, "michaelis_menten": MICHAELIS_MENTEN, "hill": HILL, "piecewise": PIECEWISE}
Block = tuple[int, slice | IntArray]


def blocks_of(kind_C: IntArray) -> tuple[Block, ...]:
    """Which arms are of which kind; one kind alone needs no index."""
    kinds = np.flatnonzero(np.bincount(kind_C, minlength=6)) if kind_C.size else np.empty(0, int)
    if kinds.size == 1:
        return ((int(kinds[0]), slice(None)),)
    return tuple((int(kind), np.flatnonzero(kind_C == kind)) for kind in kinds)


def _log_odds(half: Array, n: Array, x: Array) -> Array:
    """n * ln(x / half): the Hill curve is the logistic of it."""
    with np.errstate(divide="ignore"):
        return n * (np.log(x) - np.log(half))


def value_of(kind: int, a: Array, b: Array, n: Array, x: Array) -> Array:
    """Sales at spend x for one smooth kind (a scale, b half, n exponent)."""
    if kind == LOG:
        return a * np.log1p(x / b)
    if kind == POWER:
        return a * x**n
    if kind == MICHAELIS_MENTEN:
        return a * (x / (b + x))
    if kind == HILL:
        with np.errstate(over="ignore"):
            return a / (1.0 + np.exp(-_log_odds(b, n, x)))
    return a * x


def slope_of(kind: int, a: Array, b: Array, n: Array, x: Array) -> Array:
    """Sales that the next unit of spend brings at x; infinite where the curve starts steep."""
    if kind == LOG:
        return a / (b + x)
    if kind == POWER:
        with np.errstate(divide="ignore"):
            return a * n * x ** (n - 1.0)
    if kind == MICHAELIS_MENTEN:
        return a / b * (b / (b + x)) ** 2
    if kind == HILL:
        z = _log_odds(b, n, x)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            tail = np.exp(-np.abs(z))
            inside = a * n * (tail / (1.0 + tail) ** 2) / x
            start = np.where(n > 1, 0.0, np.where(n < 1, np.inf, a / b))
        return np.where(x > 0, inside, start)
    return a * np.ones_like(x)


def curvature_of(kind: int, a: Array, b: Array, n: Array, x: Array) -> Array:
    """The slope's own slope at x > 0; negative where the curve is concave."""
    if kind == LOG:
        return -a / (b + x) ** 2
    if kind == POWER:
        with np.errstate(divide="ignore", invalid="ignore"):
            return a * n * (n - 1.0) * x ** (n - 2.0)
    if kind == MICHAELIS_MENTEN:
        return -2.0 * (a / b) * (b / (b + x)) ** 2 / (b + x)
    if kind == HILL:
        z = _log_odds(b, n, x)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            share = 1.0 / (1.0 + np.exp(-z))
            result = slope_of(kind, a, b, n, x) / x * (n * (1.0 - 2.0 * share) - 1.0)
        return np.where(x > 0, result, 0.0)
    return np.zeros_like(x)


def hill_respond(a: Array, b: Array, n: Array, price: Array | float, low: Array, high: Array) -> Array:
    """Where a Hill curve's slope equals the price, on its concave side ``[low, high]``.

    Newton in u = ln(x / half) on g(u) = ln slope - ln price, which is concave and falling there:
    from the right of the root the steps fall onto it and never pass it.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        u_low, u_high = np.log(low / b), np.log(high / b)
        c = np.log(a * n / b) - np.log(price)
        u = np.clip(np.minimum(c / (n + 1.0), c - 2.0 * np.log(2.0)), u_low, u_high)
        u = np.where(np.isfinite(u), u, np.clip(-700.0, u_low, u_high))
        for _ in range(60):
            z = n * u
            tail = np.exp(-np.abs(z))
            share = np.where(z > 0, 1.0, tail) / (1.0 + tail)
            g = c + (n - 1.0) * u - 2.0 * (np.maximum(z, 0.0) + np.log1p(tail))
            fall = np.minimum((n - 1.0) - 2.0 * n * share, -1e-13)
            step = np.clip(u - g / fall, u_low, u_high)
            step = np.where(np.isnan(step), u, step)
            moved = float(np.max(np.abs(step - u), initial=0.0))
            u = step
            if moved < 1e-13:
                break
        return np.clip(b * np.exp(u), low, high)


@dataclass(frozen=True)
class Curves:
    """The arms' curves as columns: kind, scale, half, exponent; points of the piecewise ones apart."""

    kind_C: IntArray
    scale_C: Array
    half_C: Array
    exponent_C: Array
    points: Mapping[int, Array] = field(default_factory=dict)  # arm -> (spend, sales), first row 0, 0

    @property
    def size(self) -> int:
        return int(self.kind_C.size)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return blocks_of(self.kind_C)

    @cached_property
    def concave_C(self) -> BoolArray:
        """Which arms have falling returns all the way."""
        concave = ~((self.kind_C == HILL) & (self.exponent_C > 1.0))
        for arm, points in self.points.items():
            slopes = np.diff(points[:, 1]) / np.diff(points[:, 0])
            concave[arm] = bool(np.all(np.diff(slopes) <= 1e-12 * np.abs(slopes[:-1])))
        return concave

    def take(self, arms_C: IntArray) -> Curves:
        points = {new: self.points[int(old)] for new, old in enumerate(arms_C) if int(old) in self.points}
        return Curves(self.kind_C[arms_C], self.scale_C[arms_C], self.half_C[arms_C], self.exponent_C[arms_C], points)

    def scaled(self, factor_C: Array) -> Curves:
        """The same curves with sales times a factor (a margin, a draw's ratio)."""
        points = {arm: p * np.array([1.0, factor_C[arm]]) for arm, p in self.points.items()}
        return Curves(self.kind_C, self.scale_C * factor_C, self.half_C, self.exponent_C, points)

    def stretched(self, times_C: Array) -> Curves:
        """The same curves over ``times`` as long a period of even spend: f_T(s) = T f(s / T); times above 0."""
        power = self.kind_C == POWER
        grow_C = np.where(power, times_C ** (1.0 - self.exponent_C), np.where(self.kind_C == LINEAR, 1.0, times_C))
        points = {arm: p * times_C[arm] for arm, p in self.points.items()}
        return Curves(self.kind_C, self.scale_C * grow_C, self.half_C * times_C, self.exponent_C, points)

    def value(self, spend_C: Array) -> Array:
        """Sales at each arm's spend."""
        return self._each(spend_C, value_of, lambda p, x: np.interp(x, p[:, 0], p[:, 1]))

    def slope(self, spend_C: Array) -> Array:
        """Sales that each arm's next unit of spend brings (to the right, at a corner)."""
        return self._each(spend_C, slope_of, _slope_of_points)

    def curvature(self, spend_C: Array) -> Array:
        return self._each(spend_C, curvature_of, lambda _p, x: np.zeros_like(x))

    def _each(self, spend_C: Array, smooth, of_points) -> Array:  # type: ignore[no-untyped-def]
        spend_C = np.asarray(spend_C, float)
        result = np.empty(self.size)
        for kind, at in self.blocks:
            if kind == PIECEWISE:
                for arm in np.arange(self.size)[at]:
                    result[arm] = of_points(self.points[int(arm)], spend_C[arm])
            else:
                result[at] = smooth(kind, self.scale_C[at], self.half_C[at], self.exponent_C[at], spend_C[at])
        return result


def _slope_of_points(points: Array, x: float) -> float:
    after = int(np.searchsorted(points[:, 0], x, side="right"))
    if after >= len(points):
        return 0.0
    rise, run = points[after] - points[after - 1], points[after, 0] - points[after - 1, 0]
    return float(rise[1] / run)


@dataclass(frozen=True)
class Pieces:
    """Concave pieces of envelopes, each on ``[low, high]`` in its arm's own spend.

    An arm's spend is ``base + sum(x_e - low_e)`` over its pieces, its envelope's value is
    ``base_value + sum(value(x_e) - value(low_e))``.
    """

    arm_E: IntArray
    kind_E: IntArray
    a_E: Array
    b_E: Array
    n_E: Array
    low_E: Array
    high_E: Array
    base_C: Array  # spend of each arm below its first piece
    base_value_C: Array
    straight: bool  # piece e belongs to arm e: nothing to add up

    @property
    def size(self) -> int:
        return int(self.arm_E.size)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return blocks_of(self.kind_E)

    @cached_property
    def _prepared(self) -> list[tuple[Array, Array]]:
        """What the inverse of the slope needs of each block, computed once."""
        prepared = []
        for kind, at in self.blocks:
            a, b, n = self.a_E[at], self.b_E[at], self.n_E[at]
            if kind == MICHAELIS_MENTEN:
                prepared.append((np.sqrt(a * b), b))
            elif kind == POWER:
                with np.errstate(divide="ignore"):
                    prepared.append((np.log(a * n) / (1.0 - n), 1.0 / (1.0 - n)))
            else:
                prepared.append((a, b))
        return prepared

    @cached_property
    def low_value_E(self) -> Array:
        return self.value(self.low_E)

    @cached_property
    def linear_E(self) -> BoolArray:
        return self.kind_E == LINEAR

    def scaled(self, factor_E: Array) -> Pieces:
        """The same pieces with value times a factor per piece."""
        from dataclasses import replace

        return replace(self, a_E=self.a_E * factor_E)

    def value(self, x_E: Array) -> Array:
        return self._each(value_of, x_E)

    def slope(self, x_E: Array) -> Array:
        return self._each(slope_of, x_E)

    def curvature(self, x_E: Array) -> Array:
        return self._each(curvature_of, x_E)

    def _each(self, what, x_E: Array) -> Array:  # type: ignore[no-untyped-def]
        if len(self.blocks) == 1:
            return what(self.blocks[0][0], self.a_E, self.b_E, self.n_E, x_E)
        result = np.empty(self.size)
        for kind, at in self.blocks:
            result[at] = what(kind, self.a_E[at], self.b_E[at], self.n_E[at], x_E[at])
        return result

    def respond(self, price_E: Array | float, out: Array | None = None) -> Array:
        """Spend of each piece that gains most over a price: argmax of value(x) - price * x.

        Linear pieces whose slope equals the price stay at their low end.
        """
        x_E = np.empty(self.size) if out is None else out
        scalar = np.ndim(price_E) == 0
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            for (kind, at), (c1, c2) in zip(self.blocks, self._prepared, strict=True):
                price = price_E if scalar else price_E[at]  # type: ignore[index]
                if kind == HILL:
                    x_E[at] = hill_respond(
                        self.a_E[at], self.b_E[at], self.n_E[at], price, self.low_E[at], self.high_E[at]
                    )
                    continue
                target = x_E if isinstance(at, slice) else np.empty(c1.size)
                if kind == MICHAELIS_MENTEN:
                    np.multiply(c1, 1.0 / np.sqrt(price), out=target)
                    np.subtract(target, c2, out=target)
                elif kind == LOG:
                    np.multiply(c1, 1.0 / price, out=target)
                    np.subtract(target, c2, out=target)
                elif kind == POWER:
                    np.exp(c1 - c2 * np.log(price), out=target)
                else:
                    np.copyto(target, np.where(c1 > price, self.high_E[at], self.low_E[at]))
                if not isinstance(at, slice):
                    x_E[at] = target
        np.maximum(x_E, self.low_E, out=x_E)  # NaN (0 * inf) cannot arise: prices are positive
        np.minimum(x_E, self.high_E, out=x_E)
        return x_E

    def per_arm(self, x_E: Array) -> Array:
        """The arms' spends that the pieces add up to."""
        if self.straight:
            return x_E
        extra = np.bincount(self.arm_E, weights=x_E - self.low_E, minlength=self.base_C.size)
        return self.base_C + extra

    def per_arm_value(self, x_E: Array) -> Array:
        """The arms' envelope values."""
        gain_E = self.value(x_E) - self.low_value_E
        if self.straight:
            return self.base_value_C + gain_E
        return self.base_value_C + np.bincount(self.arm_E, weights=gain_E, minlength=self.base_C.size)


def hull_at(pieces: Pieces, spend_C: Array) -> tuple[Array, Array]:
    """Value and slope (to the right, except at the high end) of each arm's envelope at its spend."""
    at_E = spend_C[pieces.arm_E]
    x_E = np.clip(at_E, pieces.low_E, pieces.high_E)
    slope_E = pieces.slope(x_E)
    slope_C = np.full(pieces.base_C.size, np.inf)
    started_E = at_E >= pieces.low_E
    np.minimum.at(slope_C, pieces.arm_E[started_E], slope_E[started_E])  # slopes fall from piece to piece
    without_C = np.bincount(pieces.arm_E, minlength=slope_C.size) == 0
    slope_C[without_C] = 0.0
    return pieces.per_arm_value(x_E), slope_C


def envelope(curves: Curves, low_C: Array, high_C: Array, gate_C: Array | None = None) -> Pieces:
    """The least concave function above each curve on its bounds, as pieces.

    Args:
        curves: the arms' curves.
        low_C: least spend of each arm.
        high_C: most spend of each arm; at least ``low_C``.
        gate_C: where positive and low is 0, the arm takes either nothing or at least this much
            (semi-continuous); the hull then covers 0 and ``[gate, high]``.

    Returns:
        Pieces with the least spend and its sales as the base of each arm.

    The chord of an S-shaped Hill curve touches where ``f(t) - f(low) = f'(t) (t - low)``; from
    spend 0 that is ``half * (n - 1) ** (1 / n)``.
    """
    gate_C = np.zeros(curves.size) if gate_C is None else gate_C
    gated_C = (gate_C > 0) & (low_C <= 0) & (high_C > 0)
    open_C = high_C > low_C
    shaped_C = (curves.kind_C == HILL) & (curves.exponent_C > 1.0)
    plain = open_C & ~gated_C & ~shaped_C & (curves.kind_C != PIECEWISE)
    base_value_C = curves.value(low_C)
    if bool(plain.all()):
        return Pieces(
            np.arange(curves.size),
            curves.kind_C,
            curves.scale_C,
            curves.half_C,
            curves.exponent_C,
            low_C,
            high_C,
            low_C,
            base_value_C,
            straight=True,
        )
    rows: list[tuple[IntArray, IntArray, Array, Array, Array, Array, Array]] = []

    def add(arm: IntArray, kind: IntArray, a: Array, low: Array, high: Array) -> None:
        keep = high > low
        arm = arm[keep]
        rows.append((arm, kind[keep], a[keep], curves.half_C[arm], curves.exponent_C[arm], low[keep], high[keep]))

    arms = np.flatnonzero(plain)
    add(arms, curves.kind_C[arms], curves.scale_C[arms], low_C[arms], high_C[arms])
    arms = np.flatnonzero(open_C & (gated_C | shaped_C) & (curves.kind_C != PIECEWISE))
    if arms.size:
        touch = _touch(curves, arms, low_C, high_C, np.where(gated_C, gate_C, 0.0), shaped_C)
        chord = touch > low_C[arms]
        on = arms[chord]
        rise = curves.take(on).value(touch[chord]) - base_value_C[on]
        slope = rise / (touch[chord] - low_C[on])
        add(on, np.full(on.size, LINEAR), slope, low_C[on], touch[chord])
        add(arms, curves.kind_C[arms], curves.scale_C[arms], touch, high_C[arms])
    for arm in np.flatnonzero(open_C & (curves.kind_C == PIECEWISE)):
        hull = _hull(curves.points[int(arm)], low_C[arm], high_C[arm], gate_C[arm] if gated_C[arm] else 0.0)
        spend, sales = hull[:, 0], hull[:, 1]
        same = np.full(len(hull) - 1, arm)
        add(same, np.full(same.size, LINEAR), np.diff(sales) / np.diff(spend), spend[:-1], spend[1:])
    columns = [np.concatenate(c) for c in zip(*rows, strict=True)]
    straight = bool(np.array_equal(columns[0], np.arange(curves.size)))
    arm_E, kind_E, a_E, b_E, n_E, low_E, high_E = columns
    return Pieces(arm_E, kind_E, a_E, b_E, n_E, low_E, high_E, low_C, base_value_C, straight)


def _touch(curves: Curves, arms: IntArray, low_C: Array, high_C: Array, gate_C: Array, shaped_C: BoolArray) -> Array:
    """Where the hull's first chord ends, for arms that need one (low itself where none does)."""
    low, high, gate = low_C[arms], high_C[arms], gate_C[arms]
    b, n, shaped = curves.half_C[arms], curves.exponent_C[arms], shaped_C[arms]
    bend = np.zeros(arms.size)
    bend[shaped] = b[shaped] * ((n[shaped] - 1.0) / (n[shaped] + 1.0)) ** (1.0 / n[shaped])
    touch = low.copy()
    from_zero = shaped & (low <= 0)
    touch[from_zero] = b[from_zero] * (n[from_zero] - 1.0) ** (1.0 / n[from_zero])
    inside = shaped & (low > 0) & (low < bend)
    if inside.any():
        touch[inside] = _tangent(curves.take(arms[inside]), low[inside], bend[inside], high[inside])
    return np.clip(np.maximum(touch, gate), low, high)


def _tangent(curves: Curves, low: Array, bend: Array, high: Array) -> Array:
    """The spend past the bend whose tangent passes through the curve's point at low.

    ``psi(t) = f'(t) (t - low) - (f(t) - f(low))`` falls past the bend; bisection keeps the sign,
    and an error e in t moves the chord's slope by e squared only.
    """
    start = curves.value(low)
    left = np.minimum(bend, high)
    right = np.minimum(
        np.maximum(curves.half_C * np.maximum(curves.exponent_C - 1.0, 1e-300) ** (1 / curves.exponent_C), bend), high
    )
    # seen from low > 0 the tangent touches before the one from spend 0 does
    for _ in range(60):
        middle = 0.5 * (left + right)
        positive = curves.slope(middle) * (middle - low) > curves.value(middle) - start
        left, right = np.where(positive, middle, left), np.where(positive, right, middle)
        if np.all(right - left <= 1e-12 * right):
            break
    return 0.5 * (left + right)


def _hull(points: Array, low: float, high: float, gate: float) -> Array:
    """Upper hull of a piecewise curve on [low, high] (or of 0 and [gate, high])."""
    start = gate if gate > 0 else low
    inside = points[(points[:, 0] > start) & (points[:, 0] < high)]
    ends = np.interp([start, high], points[:, 0], points[:, 1])
    rows = [(low, float(np.interp(low, points[:, 0], points[:, 1])))]
    if start > low:
        rows.append((start, float(ends[0])))
    rows += [(float(x), float(y)) for x, y in inside]
    if high > start:
        rows.append((high, float(ends[1])))
    hull: list[tuple[float, float]] = []
    for x, y in rows:
        while len(hull) >= 2:
            (x0, y0), (x1, y1) = hull[-2], hull[-1]
            if (y1 - y0) * (x - x0) <= (y - y0) * (x1 - x0):
                hull.pop()
            else:
                break
        hull.append((x, y))
    return np.array(hull)

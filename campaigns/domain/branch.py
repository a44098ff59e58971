"""From a relaxation to a proved plan: branch and bound over curves that are not concave.

The relaxation replaces each curve by its concave hull; its optimum bounds every plan. Where the
relaxed plan stands on a chord, above its curve, the arm's range is split there and the hulls of the
halves are tighter. A fixed set of concave stretches gives plans; the best bound goes first.

Source: the envelope bound is Shapley and Folkman's: with one budget at most one arm stands on a
chord, so the gap at the root falls like 1/N; Lawler and Wood (1966) for branch and bound.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass

import numpy as np

from campaigns.domain.curves import HILL, PIECEWISE, Curves, Pieces, envelope
from campaigns.domain.interior import Floor, Rows, Solved, solve
from campaigns.domain.waterfill import fill
from rmn.lib.arrays import Array, BoolArray

CLOSE = 1e-9  # feasibility, relative to the budget


@dataclass(frozen=True)
class Limits:
    """What a plan must keep, beside its arms' bounds."""

    budget: float
    spend_all: bool
    rows: Rows | None  # None: the budget alone
    floors: tuple[Floor, ...] = ()


@dataclass(frozen=True)
class Relaxed:
    """The optimum over the hulls: a bound, and the plan there, which may lie above its curves."""

    spend_C: Array
    bound: float
    price_K: Array  # the budget first
    floor_price_F: Array
    miss: float


@dataclass(frozen=True)
class Best:
    """The best plan found, and the bound over all plans."""

    spend_C: Array
    value: float
    bound: float
    price_K: Array
    floor_price_F: Array
    nodes: int
    method: str


class Space:
    """Plans over given curves and limits; knows how to relax, to value and to round."""

    def __init__(self, curves: Curves, weight_C: Array | None, limits: Limits) -> None:
        self.curves, self.weight_C, self.limits = curves, weight_C, limits
        self.worth = curves if weight_C is None else curves.scaled(weight_C)
        self.plain = limits.rows is None and not limits.floors
        self.rough = 0.0  # what a relaxation may be off by, since more is open anyway

    def value(self, spend_C: Array) -> float:
        return float(self.worth.value(spend_C).sum())

    def keeps_floors(self, spend_C: Array) -> bool:
        if not self.limits.floors:
            return True
        sales_C = self.curves.value(spend_C)
        return all(
            float(sales_C[f.arms].sum()) >= f.roas * float(spend_C[f.arms].sum()) * (1 - 1e-9)
            for f in self.limits.floors
        )

    def relax(self, low_C: Array, high_C: Array, gate_C: Array | None, near_C: Array | None = None) -> Relaxed | None:
        """The hulls' optimum on these bounds; None where it is proved that no plan keeps the limits there."""
        limits, slack = self.limits, 1e-12 * max(self.limits.budget, 1e-300)
        least, most = float(low_C.sum()), float(high_C.sum())
        if least > limits.budget + slack or (limits.spend_all and most < limits.budget - slack):
            return None
        if self.plain:
            pieces = envelope(self.worth, low_C, high_C, gate_C)
            filled = fill(pieces, max(limits.budget - least, 0.0), spend_all=limits.spend_all)
            base = float(pieces.base_value_C.sum())
            return Relaxed(pieces.per_arm(filled.x_E), base + filled.bound, np.array([filled.price]), np.zeros(0), 0.0)
        pieces = envelope(self.curves, low_C, high_C, gate_C)
        weight_E = None if self.weight_C is None else self.weight_C[pieces.arm_E]
        start = self._start(pieces, weight_E, least) if near_C is None else self._near(pieces, near_C)
        rows = limits.rows
        assert rows is not None  # noqa: S101
        solved: Solved = solve(pieces, weight_E, rows, limits.floors, pieces.base_value_C, start)
        if solved.impossible:
            return None
        base = float((pieces.base_value_C if self.weight_C is None else self.weight_C * pieces.base_value_C).sum())
        return Relaxed(
            pieces.per_arm(solved.x_E),
            base + solved.bound,
            solved.price_K,
            solved.floor_price_F,
            max(solved.miss, solved.floor_miss),
        )

    @property
    def is_concave(self) -> bool:
        return bool(self.curves.concave_C.all())

    @property
    def method(self) -> str:
        return "dual water-filling" if self.plain else "interior point"

    def above(self, spend_C: Array, low_C: Array, high_C: Array, gate_C: Array) -> Array:
        """How far each arm's hull stands above its curve at a plan, in the objective."""
        hull = envelope(self.worth, low_C, high_C, gate_C)
        x_E = np.clip(spend_C[hull.arm_E], hull.low_E, hull.high_E)
        return hull.per_arm_value(x_E) - self.worth.value(spend_C)

    def _start(self, pieces: Pieces, weight_E: Array | None, least: float) -> Array:
        worth = pieces if weight_E is None else pieces.scaled(np.maximum(weight_E, 1e-12))
        return fill(worth, max(self.limits.budget - least, 0.0)).x_E

    def _near(self, pieces: Pieces, near_C: Array) -> Array:
        return np.clip(near_C[pieces.arm_E], pieces.low_E, pieces.high_E)

    def stretch(
        self, spend_C: Array, up_C: BoolArray, low_C: Array, high_C: Array, gate_C: Array
    ) -> tuple[Array, Array]:
        """For each arm that is not concave, the concave stretch that holds (or is nearest to) its spend.

        Where ``up_C`` is set an arm on the convex part goes up to its bend, else down to its low end.
        """
        low_C, high_C = low_C.copy(), high_C.copy()
        gated = (gate_C > 0) & (low_C <= 0)
        off = gated & (spend_C < gate_C) & ~up_C
        high_C[off] = 0.0
        low_C[gated & ~off] = np.minimum(gate_C, high_C)[gated & ~off]
        kind, n = self.curves.kind_C, self.curves.exponent_C
        shaped = (kind == HILL) & (n > 1) & ~off
        bend_C = np.zeros(kind.size)
        bend_C[shaped] = self.curves.half_C[shaped] * ((n[shaped] - 1) / (n[shaped] + 1)) ** (1 / n[shaped])
        rises = shaped & ((spend_C >= bend_C) | up_C) & (bend_C < high_C)
        low_C[rises] = np.maximum(low_C, bend_C)[rises]
        stays = shaped & ~rises
        high_C[stays] = low_C[stays]
        for arm in np.flatnonzero((kind == PIECEWISE) & ~self.curves.concave_C & ~off):
            low_C[arm], high_C[arm] = _concave_run(self.curves.points[int(arm)], spend_C[arm], low_C[arm], high_C[arm])
        return low_C, high_C


def _concave_run(points: Array, at: float, low: float, high: float) -> tuple[float, float]:
    """The longest stretch around a spend on which a piecewise curve is concave."""
    slopes = np.append(np.diff(points[:, 1]) / np.diff(points[:, 0]), 0.0)  # flat after the last
    segment = int(np.clip(np.searchsorted(points[:, 0], at, side="right") - 1, 0, slopes.size - 1))
    first = last = segment
    while first > 0 and slopes[first - 1] >= slopes[first]:
        first -= 1
    while last + 1 < slopes.size and slopes[last + 1] <= slopes[last]:
        last += 1
    end = np.inf if last == slopes.size - 1 else points[last + 1, 0]
    return max(low, float(points[first, 0])), min(high, float(end))


def search(space: Space, low_C: Array, high_C: Array, gate_C: Array | None, gap: float, until: float) -> Best | None:
    """The best plan, proved to the asked gap or as far as time (``until``, monotonic) allows; None where nothing was found.

    Raises nothing: an infeasible problem gives None, and the caller asks why.
    """
    concave = space.is_concave and gate_C is None
    started = time.monotonic()
    root = space.relax(low_C, high_C, gate_C)
    if root is None or (concave and root.miss > CLOSE):
        return None
    if concave:
        value = space.value(root.spend_C)
        bound = max(root.bound, value)
        return Best(root.spend_C, value, bound, root.price_K, root.floor_price_F, 0, space.method)
    tree = _Tree(space, low_C, high_C, np.zeros(low_C.size) if gate_C is None else gate_C, gap, until)
    tree.step = time.monotonic() - started
    return tree.run(root)


class _Tree:
    def __init__(self, space: Space, low_C: Array, high_C: Array, gate_C: Array, gap: float, until: float) -> None:
        self.space, self.low_C, self.high_C, self.gate_C, self.gap = space, low_C, high_C, gate_C, gap
        self.until = until
        self.started = time.monotonic()
        self.step = 0.0  # seconds that a relaxation took, the last one
        self.best_C: Array | None = None
        self.best = -np.inf
        self.prices: tuple[Array, Array] | None = None
        self.nodes = 0

    @property
    def late(self) -> bool:
        """Whether one more relaxation would pass the time; half of it is for finding a plan at all."""
        now = time.monotonic()
        if self.best_C is None:
            return now > 0.5 * (self.started + self.until)
        return now + self.step > self.until

    def _relax(self, low_C: Array, high_C: Array, gate_C: Array | None, near_C: Array) -> Relaxed | None:
        started = time.monotonic()
        found = self.space.relax(low_C, high_C, gate_C, None if self.space.plain else near_C)
        self.step = time.monotonic() - started
        return found

    def run(self, root: Relaxed) -> Best | None:
        heap: list[tuple[float, int, Array, Array, Array, Relaxed]] = []
        count = 0
        self._try(root, self.low_C, self.high_C, self.gate_C)
        heapq.heappush(heap, (-root.bound, count, self.low_C, self.high_C, self.gate_C, root))
        ceiling = root.bound
        closed = -np.inf  # bounds of nodes that cannot be split further
        while heap:
            ceiling = max(-heap[0][0], closed)
            if self._done(ceiling) or self.late:
                break
            _, _, low_C, high_C, gate_C, node = heapq.heappop(heap)
            self.nodes += 1
            halves = self._split(node, low_C, high_C, gate_C)
            if not halves:
                closed = max(closed, node.bound)
                continue
            for low, high, gate in halves:
                if self.late:
                    closed = max(closed, node.bound)
                    continue
                child = self._relax(low, high, gate_C=gate, near_C=node.spend_C)
                if child is None or (child.miss > CLOSE and self._ruled_out(low, high)):
                    continue
                bound = min(child.bound, node.bound)
                child = Relaxed(child.spend_C, bound, child.price_K, child.floor_price_F, child.miss)
                self._try(child, low, high, gate)
                if bound > self.best:
                    count += 1
                    heapq.heappush(heap, (-bound, count, low, high, gate, child))
        else:
            ceiling = max(closed, self.best)
        if self.best_C is None:
            return None
        self._polish()
        price_K, floor_price_F = self.prices if self.prices is not None else (root.price_K, root.floor_price_F)
        method = "envelope with branch and bound"
        if self.space.method != "dual water-filling":
            method += f", {self.space.method}"
        return Best(self.best_C, self.best, max(ceiling, self.best), price_K, floor_price_F, self.nodes, method)

    def _done(self, ceiling: float) -> bool:
        return self.best_C is not None and ceiling - self.best <= 0.5 * self.gap * abs(ceiling)

    def _ruled_out(self, low_C: Array, high_C: Array) -> bool:
        from campaigns.domain.conflict import sums_fit

        rows = self.space.limits.rows
        # where weeks are split, points are no arms
        return rows is not None and low_C.size == rows.cell_C.size and not sums_fit(rows, low_C, high_C)

    def _take(self, spend_C: Array) -> bool:
        gate_C = self.gate_C
        if np.any((gate_C > 0) & (spend_C > 0) & (spend_C < gate_C * (1 - 1e-12))) or not self.space.keeps_floors(
            spend_C
        ):
            return False
        value = self.space.value(spend_C)
        if value <= self.best:
            return False
        self.best, self.best_C = value, spend_C
        return True

    def _try(self, node: Relaxed, low_C: Array, high_C: Array, gate_C: Array) -> None:
        """Plans near a relaxed one: itself, and with the arms on chords sent down, up, or to the nearer end."""
        if node.miss <= CLOSE:
            self._take(node.spend_C)
        self.space.rough = 0.1 * max(node.bound - self.best, 0.0) if self.best_C is not None else 0.0
        above = self._above(node, low_C, high_C, gate_C)
        part = above > 1e-12 * max(abs(node.bound), 1e-300)
        if not part.any() and node.miss <= CLOSE and not self.space.limits.floors:
            return
        if self.nodes > 40 and self.nodes % 8:  # deep in the tree a node seldom rounds to a better plan
            return
        pieces = self._touches(node.spend_C, low_C, high_C, gate_C)
        choices = [np.zeros(part.size, bool), part]
        if int(part.sum()) > 1:
            choices.append(part & pieces)
        for up in choices:
            if self.late:
                return
            low, high = self.space.stretch(node.spend_C, up, low_C, high_C, gate_C)
            if np.any(low > high):
                continue
            plan = self._relax(low, high, gate_C=None, near_C=node.spend_C)
            if plan is not None and plan.miss <= CLOSE:
                self._take(plan.spend_C)

    def _touches(self, spend_C: Array, low_C: Array, high_C: Array, gate_C: Array) -> BoolArray:
        """Which arms stand past half of their chord."""
        hull = envelope(self.space.curves, low_C, high_C, gate_C)
        past = np.zeros(spend_C.size, bool)
        chord = hull.linear_E
        past[hull.arm_E[chord]] = spend_C[hull.arm_E[chord]] > 0.5 * (hull.low_E[chord] + hull.high_E[chord])
        return past

    def _above(self, node: Relaxed, low_C: Array, high_C: Array, gate_C: Array) -> Array:
        """How far the hulls stand above the curves at a plan; between nothing and its gate an arm always counts."""
        spend_C = node.spend_C
        above = self.space.above(spend_C, low_C, high_C, gate_C)
        closed = (gate_C > 0) & (low_C <= 0) & (spend_C > 0) & (spend_C < gate_C)
        return np.where(closed, np.maximum(above, 1e-9 * max(abs(node.bound), 1e-290)), np.maximum(above, 0.0))

    def _split(self, node: Relaxed, low_C: Array, high_C: Array, gate_C: Array) -> list[tuple[Array, Array, Array]]:
        above = self._above(node, low_C, high_C, gate_C)
        arm = int(np.argmax(above))
        if above[arm] <= 1e-14 * max(abs(node.bound), 1e-300) and not self.space.limits.floors:
            return []
        low, high, at = float(low_C[arm]), float(high_C[arm]), float(node.spend_C[arm])
        if high - low <= 1e-12 * max(high, 1e-300) or above[arm] <= 0:
            return []
        if gate_C[arm] > 0 and low <= 0:
            off_high, on_low, on_gate = high_C.copy(), low_C.copy(), gate_C.copy()
            off_high[arm], on_low[arm], on_gate[arm] = 0.0, min(gate_C[arm], high), 0.0
            return [(low_C, off_high, on_gate), (on_low, high_C, on_gate)]
        room = 1e-3 * (high - low)
        at = min(max(at, low + room), high - room)
        left, right = high_C.copy(), low_C.copy()
        left[arm] = right[arm] = at
        return [(low_C, left, gate_C), (right, high_C, gate_C)]

    def _polish(self) -> None:
        """Settle the best plan on its concave stretches: its own prices, and the last digits."""
        spend_C = self.best_C
        assert spend_C is not None  # noqa: S101
        if self.late and self.step > 0.02 * (self.until - self.started):
            return
        low, high = self.space.stretch(spend_C, np.zeros(spend_C.size, bool), self.low_C, self.high_C, self.gate_C)
        moved = (spend_C < low) | (spend_C > high)  # on a convex part: keep it where it is
        low, high = np.where(moved, spend_C, low), np.where(moved, spend_C, high)
        plan = self._relax(low, high, gate_C=None, near_C=spend_C)
        if plan is None or plan.miss > CLOSE:
            return
        self.prices = plan.price_K, plan.floor_price_F
        self._take(plan.spend_C)
        bent = moved & (spend_C > self.low_C) & (spend_C < self.high_C)
        if bent.any() and type(self.space) is Space:
            self._price_on_bends(spend_C, bent, low, high)

    def _price_on_bends(self, spend_C: Array, bent_C: BoolArray, low_C: Array, high_C: Array) -> None:
        """Prices where arms stand on a convex part: around its spend such an arm is taken for a line."""
        curves, limits = self.space.curves, self.space.limits
        step_C = np.where(bent_C, 1e-6 * np.minimum(spend_C - self.low_C, self.high_C - spend_C), 0.0)
        low_C, high_C = low_C - step_C, high_C + step_C
        below_C, above_C = curves.value(low_C), curves.value(high_C)
        points = dict(curves.points)
        for arm in map(int, np.flatnonzero(bent_C)):
            points[arm] = np.array([[0.0, 0.0], [low_C[arm], below_C[arm]], [high_C[arm], above_C[arm]]])
        kind_C = np.where(bent_C, PIECEWISE, curves.kind_C)
        lines = Curves(kind_C, curves.scale_C, curves.half_C, curves.exponent_C, points)
        plan = Space(lines, self.space.weight_C, limits).relax(low_C, high_C, None)
        if plan is not None and plan.miss <= CLOSE:
            self.prices = plan.price_K, plan.floor_price_F

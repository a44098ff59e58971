"""Plans over curves drawn one by one, S-shaped ones among them: each arm has one curve, a mean of its draws.

Where risk counts, the mean is a weighted one: CVaR is the least of all weighted means in which no draw weighs
more than its part of the tail, so a plan of any such weights bounds every plan. The weights that bound best are found by cutting
planes (Kelley 1960), each step one relaxed plan; with them the problem is the same as that of the plain mean.

A mean of S-shaped curves is of no kind that has a name, so it is read at nodes and taken for straight between them;
where the plan comes to stand, nodes are added. What the straight lines miss is bounded apart and added to the bound:
between two nodes a curve whose slopes lie between m and M cannot stand further above its chord of slope c than
``h (M - c) (c - m) / (M - m)``, which is where the steepest way up from the one node meets the flattest way down to
the other. So the bound holds whatever the nodes are, and more nodes make it tighter.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from campaigns.domain import branch, worlds
from campaigns.domain.branch import Best, Limits, Relaxed, Space
from campaigns.domain.curves import HILL, PIECEWISE, envelope, slope_of, value_of
from campaigns.domain.interior import Rows, onto
from campaigns.domain.problem import Problem
from rmn.lib.arrays import Array

NODES = 128  # evenly over an arm's range, and as many again by powers
ZOOM = np.linspace(-2.0, 2.0, 49)  # nodes added around a plan, in steps of the nodes there
ROUNDS = 4
STEPS = 6


def serve(problem: Problem, limits: Limits) -> bool:
    """Whether sales in the draws are all that counts and some drawn curve is not concave."""
    draws = problem.draws
    if draws is None or not draws.given or problem.periods or limits.floors:
        return False
    kind_C = problem.curves.kind_C
    return any(kind_C[arm] == HILL and bool((n > 1).any()) for arm, (_, _, n) in draws.given.items())


def search(problem: Problem, limits: Limits, until: float) -> Best | None:
    """The best plan with its bound, worked on until a time (monotonic); None where no plan keeps the limits."""
    assert problem.draws is not None  # noqa: S101  # serve() saw to it
    given = dict(problem.draws.given)
    if limits.rows is not None:  # a linear program wants every arm straight: one of a known curve is drawn once
        own = problem.curves
        for arm in set(range(problem.size)) - set(given) - set(own.points):
            given[arm] = (own.scale_C[[arm]], own.half_C[[arm]], own.exponent_C[[arm]])
    problem = replace(problem, draws=replace(problem.draws, given=given))
    nodes = {arm: _nodes(float(np.median(b)), problem.high_C[arm]) for arm, (_, b, _) in given.items()}
    ends = problem.low_C, problem.high_C, problem.gate_C
    best: Best | None = None
    weight_S = None
    for left in range(ROUNDS, 0, -1):
        for _ in range(3):  # to where the relaxed plan stands, and where the bound is made, before anything is searched
            means = Means(problem, limits, nodes, weight_S)
            root = means.relax(*ends)
            if root is None:
                return best
            weight_S = means.weight_S
            for arm in given:
                for at in (root.spend_C[arm], means.worst[arm]):
                    nodes[arm] = _nearer(nodes[arm], at, problem.high_C[arm])
        now = time.monotonic()
        found = branch.search(
            Means(problem, limits, nodes, weight_S), *ends, problem.gap, now + max((until - now) / left, 0.05)
        )
        if found is None:
            return best
        if best is not None:
            bound = min(found.bound, best.bound)
            best = replace(found if found.value > best.value else best, bound=bound)
        else:
            best = found
        best = replace(best, bound=max(best.bound, best.value))
        if best.bound - best.value <= problem.gap * abs(best.bound) or time.monotonic() > until:
            break
        nodes = {arm: _nearer(x, found.spend_C[arm], problem.high_C[arm]) for arm, x in nodes.items()}
    return best


def _nodes(half: float, high: float) -> Array:
    if not high > 0:
        return np.array([0.0, 1.0])
    return np.unique(
        np.concatenate([[0.0], np.linspace(0, high, NODES), np.geomspace(min(1e-3 * half, 0.5 * high), high, NODES)])
    )


def _nearer(x_G: Array, at: float, high: float) -> Array:
    place = int(np.clip(np.searchsorted(x_G, at), 1, x_G.size - 1))
    step = float(x_G[place] - x_G[place - 1])
    more = np.clip(at + step * ZOOM, 0.0, max(high, 0.0))
    x_G = np.unique(np.concatenate([x_G, more]))
    apart = np.concatenate([[True], np.diff(x_G) > 1e-9 * max(high, 1e-300)])
    return x_G[apart]


class Means(Space):
    """Plans over the means of drawn curves, each straight between its nodes."""

    def __init__(
        self, problem: Problem, limits: Limits, nodes: dict[int, Array], weight_S: Array | None = None
    ) -> None:
        assert problem.draws is not None  # noqa: S101
        self.own, self.risk, self.size = problem.curves, problem.risk_aversion, problem.draws.n
        self.tail = worlds.tail_of(problem)
        self.given = problem.draws.given
        self.worst: dict[int, float] = {}  # where an arm could gain most, as far as its nodes tell
        self.read = {arm: self._read(arm, x_G) for arm, x_G in nodes.items()}
        self.lift: dict[int, Array] = {}
        kind_C = problem.curves.kind_C.copy()
        kind_C[list(nodes)] = PIECEWISE
        lines = replace(problem.curves, kind_C=kind_C, points=dict(problem.curves.points))
        super().__init__(lines, problem.weight_C, limits)
        self.weighted(np.full(self.size, 1.0 / self.size) if weight_S is None else weight_S)

    def weighted(self, weight_S: Array) -> Means:
        """With these weights of the draws, which are one in all."""
        self.weight_S = weight_S
        points = dict(self.curves.points)
        for arm, (x_G, value_SG, over_SG) in self.read.items():
            own_S = weight_S if len(value_SG) == self.size else np.ones(1)
            points[arm] = np.column_stack([x_G, np.maximum.accumulate(own_S @ value_SG)])
            self.lift[arm] = own_S @ over_SG
        self.curves = replace(self.curves, points=points)
        self.worth = self.curves if self.weight_C is None else self.curves.scaled(self.weight_C)
        return self

    def _read(self, arm: int, x_G: Array) -> tuple[Array, Array, Array]:
        """An arm's nodes, its draws there, and how far each may stand above its straight parts."""
        kind, h_G = int(self.own.kind_C[arm]), np.diff(x_G)
        a, b, n = (v[:, None] for v in self.given[arm])
        value_SG = value_of(kind, a, b, n, x_G[None, :])
        slope_SG = slope_of(kind, a, b, n, np.broadcast_to(x_G, value_SG.shape))
        low_SG, high_SG = np.minimum(slope_SG[:, :-1], slope_SG[:, 1:]), np.maximum(slope_SG[:, :-1], slope_SG[:, 1:])
        if kind == HILL:
            power = np.maximum(n, 1.0)
            bend = np.where(n > 1, b * ((power - 1) / (power + 1)) ** (1 / power), 0.0)
            steepest = slope_of(kind, a, b, n, np.where(bend > 0, bend, b))
            high_SG = np.where((bend > x_G[:-1]) & (bend < x_G[1:]), np.maximum(high_SG, steepest), high_SG)
        chord_SG = np.diff(value_SG, axis=1) / h_G
        with np.errstate(divide="ignore", invalid="ignore"):
            part_SG = np.where(np.isfinite(high_SG), (high_SG - chord_SG) / (high_SG - low_SG), 1.0)
            over_SG = h_G * np.clip(part_SG, 0.0, 1.0) * (chord_SG - low_SG)
        if kind == HILL:  # below its bend a curve lies under its chords
            over_SG = np.where(x_G[1:] <= bend, 0.0, over_SG)
        return x_G, value_SG, np.maximum(np.where(high_SG > low_SG, over_SG, 0.0), 0.0)

    def _drawn(self, arm: int, spend: Any) -> Array:
        a, b, n = self.given[arm]
        return value_of(int(self.own.kind_C[arm]), a, b, n, np.full(a.size, float(spend)))

    def totals(self, spend_C: Array, low_C: Array, high_C: Array, gate_C: Array | None) -> Array:
        """What a relaxed plan is worth in each draw: on a chord, its ends in part."""
        hull = envelope(self.worth, low_C, high_C, gate_C)
        weight_C = np.ones(spend_C.size) if self.weight_C is None else self.weight_C
        total_S = np.zeros(self.size)
        for arm in range(spend_C.size):
            mine = np.flatnonzero(hull.arm_E == arm)
            at = float(spend_C[arm])
            held = mine[(hull.low_E[mine] <= at) & (at <= hull.high_E[mine])]
            ends = [(at, 1.0)]
            if held.size and hull.linear_E[held[0]]:
                left, right = float(hull.low_E[held[0]]), float(hull.high_E[held[0]])
                part = (at - left) / max(right - left, 1e-300)
                ends = [(left, 1.0 - part), (right, part)]
            for spend, part in ends:
                if arm in self.given:
                    total_S += part * weight_C[arm] * self._drawn(arm, spend)
                else:
                    one = self.own.take(np.array([arm])).value(np.array([spend]))
                    total_S += part * weight_C[arm] * float(one[0])
        return total_S

    @property
    def method(self) -> str:
        return "dual water-filling over means of draws" if self.plain else "linear program (HiGHS) over means of draws"

    def value(self, spend_C: Array) -> float:
        weight_C = np.ones(spend_C.size) if self.weight_C is None else self.weight_C
        known_C = np.isin(np.arange(spend_C.size), list(self.given), invert=True)
        total_S = np.full(self.size, float((weight_C * self.curves.value(spend_C))[known_C].sum()))
        for arm in self.given:
            total_S += weight_C[arm] * self._drawn(arm, spend_C[arm])
        mean = float(total_S.mean())
        return mean if not self.risk else (1 - self.risk) * mean + self.risk * worlds.cvar(total_S, self.tail)

    def relax(self, low_C: Array, high_C: Array, gate_C: Array | None, near_C: Array | None = None) -> Relaxed | None:
        """The relaxed plan under the weights that bound best; each plan on the way tells in which draws it is poor."""
        best = self._mean(low_C, high_C, gate_C, near_C)
        least, most = (
            (1.0 - self.risk) / self.size,
            (1.0 - self.risk) / self.size + self.risk / (self.tail * self.size),
        )
        if best is None or least == most:
            return best
        found, chosen_S, cuts = best, self.weight_S, []
        for _ in range(STEPS):
            cuts.append(self.totals(found.spend_C, low_C, high_C, gate_C))
            answer = linprog(
                np.append(np.zeros(self.size), 1.0),
                np.column_stack([np.array(cuts), -np.ones(len(cuts))]),
                np.zeros(len(cuts)),
                np.append(np.ones(self.size), 0.0)[None, :],
                np.ones(1),
                [(least, most)] * self.size + [(None, None)],
                method="highs",
            )
            if answer.status != 0 or best.bound - answer.fun <= max(1e-7 * abs(best.bound), self.rough):
                break
            self.weighted(np.maximum(np.asarray(answer.x[: self.size], float), 0.0))
            again = self._mean(low_C, high_C, gate_C, near_C)
            if again is None:
                break
            found = again
            if found.bound < best.bound:
                best, chosen_S = found, self.weight_S
        self.weighted(chosen_S)
        return best

    def _mean(self, low_C: Array, high_C: Array, gate_C: Array | None, near_C: Array | None) -> Relaxed | None:
        """The relaxed plan under the weights as they are."""
        rows = self.limits.rows
        if rows is None:
            found = super().relax(low_C, high_C, gate_C, near_C)
        else:
            found = self._linear(rows, low_C, high_C, gate_C)
        if found is None:
            return None
        cell_C = np.zeros(low_C.size, np.int64) if rows is None else rows.cell_C
        price_C = found.price_K @ (np.ones((1, 1)) if rows is None else rows.in_cell_KM)[:, cell_C]
        missed = 0.0
        for arm in self.given:
            gate = 0.0 if gate_C is None or low_C[arm] > 0 else float(gate_C[arm])
            weight = 1.0 if self.weight_C is None else float(self.weight_C[arm])
            missed += self._missed(arm, float(low_C[arm]), float(high_C[arm]), gate, weight, float(price_C[arm]))
        return replace(found, bound=found.bound + missed)

    def _linear(self, rows: Rows, low_C: Array, high_C: Array, gate_C: Array | None) -> Relaxed | None:
        """The relaxation with limits on sums: all is straight, so it is a linear program with its multipliers."""
        pieces = envelope(self.worth, low_C, high_C, gate_C)
        width_E = pieces.high_E - pieces.low_E
        slope_E = (pieces.value(pieces.high_E) - pieces.low_value_E) / np.where(width_E > 0, width_E, 1.0)
        in_KE = rows.in_cell_KM[:, rows.cell_C[pieces.arm_E]]
        base_K = rows.in_cell_KM[:, rows.cell_C] @ pieces.base_C
        money = max(self.limits.budget, 1e-300)
        most, least = np.flatnonzero(np.isfinite(rows.high_K)), np.flatnonzero(np.isfinite(rows.low_K))
        limit = np.concatenate([(rows.high_K - base_K)[most], -(rows.low_K - base_K)[least]])
        top = max(float(slope_E.max(initial=0.0)), 1e-300)
        answer = linprog(
            -slope_E / top,
            sparse.csr_matrix(np.vstack([in_KE[most], -in_KE[least]])),
            limit / money,
            bounds=np.column_stack([0 * width_E, width_E / money]),
            method="highs",
        )
        if answer.status != 0:
            return None
        taken_C = pieces.base_C + np.bincount(pieces.arm_E, weights=answer.x * money, minlength=low_C.size)
        spend_C = onto(rows, np.clip(taken_C, low_C, high_C), low_C, high_C)
        if spend_C is None:
            return None
        y_K = np.zeros(rows.high_K.size)
        y_K[most] += np.maximum(-answer.ineqlin.marginals[: most.size], 0.0) * top
        y_K[least] -= np.maximum(-answer.ineqlin.marginals[most.size :], 0.0) * top
        gain_E = np.maximum(slope_E - y_K @ in_KE, 0.0) * width_E
        ends_K = np.where(y_K > 0, rows.high_K, rows.low_K) - base_K
        priced = float(np.sum(np.where(y_K != 0, y_K * np.where(y_K != 0, ends_K, 0.0), 0.0)))
        bound = float(pieces.base_value_C.sum() + gain_E.sum()) + priced
        return Relaxed(spend_C, bound, y_K, np.zeros(0), 0.0)

    def _missed(self, arm: int, low: float, high: float, gate: float, weight: float, price: float) -> float:
        """How much more an arm could gain over the price than its straight parts say."""
        points, over_G = self.curves.points[arm], self.lift[arm]
        inside = (points[:, 0] > low) & (points[:, 0] < high)
        x_G = np.concatenate([[low], points[inside, 0], [high]])
        y_G = np.interp(x_G, points[:, 0], points[:, 1])
        part = np.clip(np.searchsorted(points[:, 0], x_G, side="right") - 1, 0, over_G.size - 1)
        before = np.clip(np.searchsorted(points[:, 0], x_G, side="left") - 1, 0, over_G.size - 1)
        open_G = (x_G <= low) | (x_G >= gate)
        gain_G = weight * y_G - price * x_G
        most_G = gain_G + weight * np.maximum(over_G[part], over_G[before])
        if high <= low:
            most_G = gain_G
        told = float(gain_G[open_G].max())
        self.worst[arm] = float(x_G[int(np.argmax(most_G))])
        return max(float(most_G.max()) - told, 0.0)

"""Plans over weeks with carry-over, and over many possible curves: the general convex model as a relaxation.

The unknowns are *points* t, at each of which a curve is read: an arm's spend, or the spend that an arm carries
into one week, ``t_w = (1 - r) s_w + r t_(w-1)`` (from nothing before the first; a steady spend stays what it
is). An arm's spend is linear in its points, so limits stay linear. A week's curve is the period's, shortened:
``f(W t) / W``. Sales are those inside the period.

Under draws the objective is ``(1 - l) mean + l CVaR`` of the total over draws (CVaR: the mean of the worst
part of the draws, a tenth where nothing else is asked). CVXPY solves the relaxation in which each curve is replaced by its hull: Clarabel where hulls are second-order
cones, HiGHS where none is. Hulls that no such cone represents are kept above by tangents, added where the answer
stands. Its multipliers, made
admissible, give the bound ``max_t sum of weighted hulls - y (A t - b)``, computed exactly point by point: what
the solver got wrong makes the bound larger, never false.

Sources: Rockafellar and Uryasev (2000) for CVaR; Jin et al. (2017) for the carry-over; Boyd and Vandenberghe,
Convex Optimization, section 5.1.3 for the bound.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from campaigns.domain import general
from campaigns.domain.branch import Limits, Relaxed, Space
from campaigns.domain.curves import LINEAR, MICHAELIS_MENTEN, Curves, Pieces, envelope, hull_at
from campaigns.domain.interior import Rows, onto
from campaigns.domain.problem import Problem
from rmn.lib.arrays import Array, BoolArray, IntArray

ROUNDS = 12
TANGENTS = np.concatenate([[0.0, 1.0], np.geomspace(1e-3, 1.0, 9)[:-1]])
KEPT = 40  # tangents of a hull, those nearest to the answer


@dataclass(frozen=True)
class Draws:
    """What each arm's curve may be, in S joint draws."""

    ratio_SC: Array | None  # sales relative to the arm's own curve, mean 1; None: no arm is drawn so
    own: dict[int, Curves]  # arm -> its S curves, where they are given one by one
    size: int


def drawn(problem: Problem) -> Draws:
    """The problem's draws; those of a standard error are normal, cut at 0, with mean 1 exactly."""
    asked = problem.draws
    if asked is None:
        return Draws(None, {}, 1)
    own = {}
    for arm, (scale_S, half_S, exponent_S) in asked.given.items():
        kind_S = np.full(asked.n, problem.curves.kind_C[arm])
        own[arm] = Curves(kind_S, scale_S, half_S, exponent_S)
    if asked.given or problem.std_C is None:
        return Draws(None, own, asked.n)
    rng = np.random.default_rng(asked.seed)
    z_SC = rng.standard_normal((asked.n, problem.size))
    z_SC = (z_SC - z_SC.mean(0)) / z_SC.std(0)
    ratio_SC = np.maximum(1.0 + problem.std_C / problem.curves.scale_C * z_SC, 0.0)
    return Draws(ratio_SC / ratio_SC.mean(0), own, asked.n)


def tail_of(problem: Problem) -> float:
    """The part of the draws whose mean is CVaR: one draw at least, and then it is the worst case."""
    return problem.risk_tail if problem.draws is None else max(problem.risk_tail, 1.0 / problem.draws.n)


def cvar(total_S: Array, tail: float) -> float:
    """Mean of the worst part of the draws, the last draw in it in part."""
    ordered_S = np.sort(total_S)
    left = tail * ordered_S.size
    share_S = np.clip(left - np.arange(ordered_S.size), 0.0, 1.0)
    return float(share_S @ ordered_S) / left


class Worlds(Space):
    """Plans as points; see the module. Arms come first in the points' order, their weeks in a row."""

    def __init__(self, problem: Problem, limits: Limits, until: float = np.inf) -> None:
        self.problem, self.limits, self.plain, self.rough = problem, limits, False, 0.0
        self.weeks = problem.periods.weeks if problem.periods else 1
        self.risk, self.tail = problem.risk_aversion, tail_of(problem)
        self.until = until
        size, weeks = problem.size, self.weeks
        arm_J = np.repeat(np.arange(size), weeks)
        self.carry_C = problem.periods.carry_C if problem.periods else np.zeros(size)
        self.ready_CW = problem.ready_CW if problem.ready_CW is not None else np.ones((size, weeks))
        gated = (
            np.flatnonzero(problem.gate_C > 0) if problem.gate_C is not None and problem.periods else np.zeros(0, int)
        )
        self.gated_G = gated
        open_J = self.ready_CW.ravel() > 0
        times_J = np.where(open_J, self.ready_CW.ravel(), 1.0) / weeks
        sold_J = np.where(open_J, 1.0, 0.0)  # nothing is sold in a week without stock
        curves = problem.curves.take(arm_J).stretched(times_J).scaled(sold_J)
        self.curves = _joined(curves, gated.size)
        ones_C = np.ones(size) if problem.weight_C is None else problem.weight_C
        self.weight_J = np.concatenate([ones_C[arm_J], np.zeros(gated.size)])
        self.weight_C: Array | None = self.weight_J
        self.arm_J = np.concatenate([arm_J, gated])
        self.draws = drawn(problem)
        self.own_O = np.array([j for j in range(arm_J.size) if int(arm_J[j]) in self.draws.own], dtype=np.int64)
        self.shared_J = np.setdiff1d(np.arange(self.arm_J.size), self.own_O)
        self.many = self._many(times_J, sold_J)
        self.ratio_SJ = None if self.draws.ratio_SC is None else self.draws.ratio_SC[:, self.arm_J]
        self._points()

    def _many(self, times_J: Array, sold_J: Array) -> Curves:
        """The curves of points whose draws are given, draw after draw for each point."""
        S = self.draws.size
        parts = [
            self.draws.own[int(self.arm_J[j])].stretched(np.full(S, times_J[j])).scaled(np.full(S, sold_J[j]))
            for j in self.own_O
        ]
        if not parts:
            none = np.zeros(0)
            return Curves(none.astype(np.int64), none, none, none)
        kind, scale, half, exponent = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("kind_C", "scale_C", "half_C", "exponent_C")
        )
        return Curves(kind, scale, half, exponent)

    def _points(self) -> None:
        """The matrices from points to arms' spends, and the limits that weeks bring."""
        size, weeks, gated = self.problem.size, self.weeks, self.gated_G
        count = size * weeks
        last_J = np.arange(count) % weeks == weeks - 1
        r_J = self.carry_C[self.arm_J[:count]]
        share_J = np.where(last_J, 1.0 / (1.0 - r_J), 1.0)
        self.spend_CJ = sparse.csr_matrix(
            (share_J, (self.arm_J[:count], np.arange(count))), shape=(size, count + gated.size)
        )
        first_J = np.arange(count) % weeks == 0
        rows, columns, values = [np.arange(count)], [np.arange(count)], [1.0 / (1.0 - r_J)]
        later = np.flatnonzero(~first_J)
        rows.append(later)
        columns.append(later - 1)
        values.append(-(r_J / (1.0 - r_J))[later])
        self.weekly_JJ = sparse.csr_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count + gated.size)
        )

    @property
    def is_concave(self) -> bool:
        return bool(self.curves.concave_C.all() and self.many.concave_C.all())

    @property
    def method(self) -> str:
        over = [f"{self.weeks} weeks"] * (self.weeks > 1) + [f"{self.draws.size} draws"] * (self.draws.size > 1)
        return "convex program (CVXPY: Clarabel, HiGHS)" + (f" over {' and '.join(over)}" if over else "")

    # -- from arms to points and back

    def bounds(self, low_C: Array, high_C: Array, gate_C: Array | None) -> tuple[Array, Array, Array | None]:
        """The points' own bounds; arms' totals are limits of their own where there are weeks."""
        if not self.problem.periods:
            return low_C, high_C, gate_C
        r_C, gated = self.carry_C, self.gated_G
        most_J = np.repeat((1.0 - r_C**self.weeks) * high_C, self.weeks)
        low = np.concatenate([np.zeros(most_J.size), np.zeros(gated.size)])
        high = np.concatenate([most_J, high_C[gated]])
        gate = None
        if gated.size and gate_C is not None:
            gate = np.concatenate([np.zeros(most_J.size), gate_C[gated]])
        return low, high, gate

    def weekly(self, t_J: Array) -> Array:
        """Spend of each arm in each week (C, W)."""
        return np.maximum(self.weekly_JJ @ t_J, 0.0).reshape(self.problem.size, self.weeks)

    def points_of(self, spend_CW: Array) -> Array:
        t_CW = np.empty_like(spend_CW)
        before_C = np.zeros(len(spend_CW))
        for week in range(self.weeks):
            before_C = (1.0 - self.carry_C) * spend_CW[:, week] + self.carry_C * before_C
            t_CW[:, week] = before_C
        return np.concatenate([t_CW.ravel(), spend_CW.sum(1)[self.gated_G]])

    def spend(self, t_J: Array) -> Array:
        return self.weekly(t_J).sum(1) if self.problem.periods else t_J

    # -- what points are worth

    def outcomes(self, t_J: Array) -> Array:
        """Sales of each arm in each draw (S, C)."""
        S, size = self.draws.size, self.problem.size
        plain_J = self.curves.value(t_J)
        sales_SJ = np.tile(plain_J, (S, 1)) if self.ratio_SJ is None else self.ratio_SJ * plain_J
        if self.own_O.size:
            sales_SJ[:, self.own_O] = self.many.value(np.repeat(t_J[self.own_O], S)).reshape(-1, S).T
        if not self.problem.periods:
            return sales_SJ
        return sales_SJ[:, : size * self.weeks].reshape(S, size, self.weeks).sum(2)

    def marginal(self, t_J: Array) -> Array:
        """Sales that one more unit of each arm's spend brings, in the week where it brings most."""
        S = self.draws.size
        slope_J = self.curves.slope(t_J)
        if self.own_O.size:
            slope_J[self.own_O] = self.many.slope(np.repeat(t_J[self.own_O], S)).reshape(-1, S).mean(1)
        if not self.problem.periods:
            return slope_J
        slope_CW = slope_J[: self.problem.size * self.weeks].reshape(self.problem.size, self.weeks)
        gain_CW = np.zeros_like(slope_CW)
        after_C = np.zeros(self.problem.size)
        for week in range(self.weeks - 1, -1, -1):
            # a slope at no spend may be infinite, and nothing of it is carried where nothing is carried at all
            carried_C = np.multiply(self.carry_C, after_C, out=np.zeros_like(after_C), where=self.carry_C > 0)
            after_C = slope_CW[:, week] + carried_C
            gain_CW[:, week] = (1.0 - self.carry_C) * after_C
        return np.where(self.ready_CW > 0, gain_CW, 0.0).max(1)

    def value(self, spend_C: Array) -> float:
        weight_C = np.ones(self.problem.size) if self.problem.weight_C is None else self.problem.weight_C
        total_S = self.outcomes(spend_C) @ weight_C
        mean = float(total_S.mean())
        return mean if not self.risk else (1 - self.risk) * mean + self.risk * cvar(total_S, self.tail)

    def keeps_floors(self, spend_C: Array) -> bool:
        return self._floor_miss(spend_C) <= 1e-9

    def _floor_miss(self, t_J: Array) -> float:
        if not self.limits.floors:
            return 0.0
        sales_C, spend_C = self.outcomes(t_J).mean(0), self.spend(t_J)
        miss = 0.0
        for floor in self.limits.floors:
            asked = floor.roas * float(spend_C[floor.arms].sum())
            miss = max(miss, (asked - float(sales_C[floor.arms].sum())) / max(asked, 1e-300))
        return miss

    # -- the relaxation

    @cached_property
    def rows(self) -> Rows:
        given = self.limits.rows
        if given is not None:
            return given
        low = self.limits.budget if self.limits.spend_all else -np.inf
        cell_C = np.zeros(self.problem.size, np.int64)
        return Rows(cell_C, np.ones((1, 1)), np.array([low]), np.array([self.limits.budget]))

    @cached_property
    def matrix(self) -> tuple[Any, Array, Array]:
        """All linear limits on points: sums over groups first, then what weeks bring."""
        rows, size = self.rows, self.problem.size
        member_KC = sparse.csr_matrix(rows.in_cell_KM[:, rows.cell_C])
        parts, low, high = [member_KC @ self.spend_CJ], [rows.low_K], [rows.high_K]
        if self.problem.periods:
            parts += [self.spend_CJ, self.weekly_JJ]
            open_J = self.ready_CW.ravel() > 0
            low += [self.problem.low_C, np.zeros(open_J.size)]
            high += [self.problem.high_C, np.where(open_J, np.inf, 0.0)]
            if self.gated_G.size:  # an arm's total as a point of its own, to be switched on or off
                count = size * self.weeks
                place = (np.arange(self.gated_G.size), count + np.arange(self.gated_G.size))
                own = sparse.csr_matrix((np.ones(self.gated_G.size), place), shape=(self.gated_G.size, self.arm_J.size))
                parts.append(self.spend_CJ[self.gated_G] - own)
                low.append(np.zeros(self.gated_G.size))
                high.append(np.zeros(self.gated_G.size))
        return sparse.vstack(parts).tocsr(), np.concatenate(low), np.concatenate(high)

    def relax(
        self,
        low_C: Array,
        high_C: Array,
        gate_C: Array | None,
        near_C: Array | None = None,  # noqa: ARG002  # a cone solver starts where it likes
    ) -> Relaxed | None:
        model = _Model(self, low_C, high_C, gate_C)
        slack = 1.0
        for _ in range(4):
            solved = model.solve(slack)
            if solved is None:
                return None
            answer_J, y_R, nu_F, w_S = solved
            settled_J = self._settle(answer_J, low_C, high_C)
            if settled_J is None:
                return None
            t_J = settled_J
            miss = self._floor_miss(t_J)
            if miss <= 1e-9 or not self.is_concave or gate_C is not None or time.monotonic() > self.until:
                break
            slack *= 1.0 + 2.0 * miss + 1e-9
        bound = model.bound(y_R, nu_F, w_S)
        return Relaxed(t_J, bound, y_R[: self.rows.low_K.size], nu_F, 0.0 if miss <= 1e-9 else miss)

    def _settle(self, t_J: Array, low_J: Array, high_J: Array) -> Array | None:
        """The plan made feasible to rounding: sums onto their limits, weeks in proportion."""
        spend_CW = self.weekly(t_J)
        if not self.problem.periods:
            return onto(self.rows, np.clip(t_J, low_J, high_J), low_J, high_J)
        spend_CW[self.ready_CW <= 0] = 0.0
        total_C = spend_CW.sum(1)
        low_C, high_C = self.problem.low_C.copy(), self.problem.high_C.copy()
        if self.gated_G.size:
            count = self.problem.size * self.weeks
            low_C[self.gated_G] = np.maximum(low_C[self.gated_G], low_J[count:])
            high_C[self.gated_G] = np.minimum(high_C[self.gated_G], high_J[count:])
        fitted_C = onto(self.rows, np.clip(total_C, low_C, high_C), low_C, high_C)
        if fitted_C is None:
            return None
        even_CW = (self.ready_CW > 0) / np.maximum((self.ready_CW > 0).sum(1), 1)[:, None]
        share_CW = np.where(total_C[:, None] > 0, spend_CW / np.maximum(total_C, 1e-300)[:, None], even_CW)
        return self.points_of(share_CW * fitted_C[:, None])

    def above(self, spend_C: Array, low_C: Array, high_C: Array, gate_C: Array) -> Array:
        hull = envelope(self.curves, low_C, high_C, gate_C)
        over_J = hull_at(hull, np.clip(spend_C, low_C, high_C))[0] - self.curves.value(spend_C)
        if self.own_O.size:
            S = self.draws.size
            many = envelope(self.many, *(np.repeat(v[self.own_O], S) for v in (low_C, high_C, gate_C)))
            t_OS = np.repeat(spend_C[self.own_O], S)
            over_OS = hull_at(many, t_OS)[0] - self.many.value(t_OS)
            over_J[self.own_O] = over_OS.reshape(-1, S).mean(1)
        over_J = np.maximum(over_J, 0.0) * self.weight_J
        if self.gated_G.size:  # a total between nothing and its least: to be settled before any curve
            total_G, gate_G = spend_C[-self.gated_G.size :], gate_C[-self.gated_G.size :]
            part_G = np.minimum(total_G, gate_G - total_G) / np.maximum(gate_G, 1e-300)
            over_J[-self.gated_G.size :] = np.maximum(part_G, 0.0) * max(abs(self.value(spend_C)), 1e-300)
        return over_J


def _joined(curves: Curves, more: int) -> Curves:
    """The curves with so many of no sales behind them."""
    if not more:
        return curves
    ones = np.ones(more)
    return Curves(
        np.concatenate([curves.kind_C, np.full(more, LINEAR)]),
        np.concatenate([curves.scale_C, 0.0 * ones]),
        np.concatenate([curves.half_C, ones]),
        np.concatenate([curves.exponent_C, ones]),
        curves.points,
    )


class _Hulls:
    """The hulls of some curves on bounds, as a CVXPY expression of their points."""

    def __init__(self, curves: Curves, at_K: IntArray, low_K: Array, high_K: Array, gate_K: Array | None) -> None:
        self.curves, self.at_K, self.low_K, self.high_K = curves, at_K, low_K, high_K
        self.hull: Pieces = envelope(curves, low_K, high_K, gate_K)
        gated = (gate_K > 0) & (low_K <= 0) if gate_K is not None else np.zeros(at_K.size, bool)
        exact = np.isin(curves.kind_C, (MICHAELIS_MENTEN, LINEAR))  # a second-order cone, or a line
        self._cut_all_but(exact & ~gated)

    def _cut_all_but(self, cone: BoolArray) -> None:
        """Which hulls are kept by cones, all others by tangents."""
        curves, low_K, high_K, at_K = self.curves, self.low_K, self.high_K, self.at_K
        self.cone = cone
        self.cut = np.flatnonzero(~cone)
        self.points_LK = np.zeros((0, self.cut.size))  # where each cut hull has its tangents
        self.slope_LK = self.start_LK = self.points_LK
        if self.cut.size:
            breaks = [row[0] for points in curves.points.values() for row in points]
            self.touch(
                [low_K + share * (high_K - low_K) for share in TANGENTS] + [np.full(at_K.size, x) for x in breaks]
            )

    def without_cones(self) -> None:
        self._cut_all_but(np.zeros(self.at_K.size, bool))

    def touch(self, points: Sequence[Array]) -> None:
        """Add tangents of each cut hull at its points."""
        for x_K in points:
            x_K = np.clip(x_K, self.low_K, self.high_K)
            steep = ~np.isfinite(hull_at(self.hull, x_K)[1])  # a power curve at 0: as near to it as has a tangent
            x_K = np.where(steep, self.low_K + 1e-7 * (self.high_K - self.low_K), x_K)
            value_K, slope_K = hull_at(self.hull, x_K)
            start_K = value_K - slope_K * x_K
            self.points_LK = np.vstack([self.points_LK, x_K[self.cut]])
            self.slope_LK = np.vstack([self.slope_LK, slope_K[self.cut]])
            self.start_LK = np.vstack([self.start_LK, start_K[self.cut]])

    def refine(self, x_K: Array) -> None:
        """Tangents at the answer and between it and its neighbours: the optimum lies there, 6 times more closely."""
        if not self.cut.size:
            return
        x = x_K[self.cut]
        before = np.where(self.points_LK < x, self.points_LK, -np.inf).max(0)
        after = np.where(self.points_LK > x, self.points_LK, np.inf).min(0)
        more = [x]
        for share in (1 / 3, 2 / 3):
            more += [np.where(np.isfinite(end), x + share * (end - x), x) for end in (before, after)]
        for points in more:
            whole_K = x_K.copy()
            whole_K[self.cut] = points
            self.touch([whole_K])
        far = np.abs(self.points_LK - x)
        far[:2] = -1.0  # the ends of the range stay
        nearest = np.argsort(far, axis=0, kind="stable")[:KEPT]
        for name in ("points_LK", "slope_LK", "start_LK"):
            setattr(self, name, np.take_along_axis(getattr(self, name), nearest, 0))

    def over(self, y_K: Array, x_K: Array) -> Array:
        """How far the lines' least stands above the hull."""
        value_K, _ = hull_at(self.hull, np.clip(x_K, self.low_K, self.high_K))
        return np.where(self.cone, 0.0, np.maximum(y_K - value_K, 0.0))

    def expression(self, x: Any) -> tuple[Any, list[Any]]:
        cp = general.cvxpy()
        size = self.at_K.size
        cone = np.flatnonzero(self.cone)
        parts, order, limits = [], [], []
        if cone.size:
            parts.append(general.concave_sales(self.curves.take(cone), x[self.at_K[cone]]))
            order.append(cone)
        if self.cut.size:
            y = cp.Variable(self.cut.size)
            here = x[self.at_K[self.cut]]
            each = np.tile(np.arange(self.cut.size), len(self.slope_LK))
            lines = np.column_stack([each, self.slope_LK.ravel(), self.start_LK.ravel()])
            lines = lines[np.unique(lines, axis=0, return_index=True)[1]]  # no line twice
            each = lines[:, 0].astype(np.int64)
            limits.append(y[each] <= cp.multiply(lines[:, 1], here[each]) + lines[:, 2])
            parts.append(y)
            order.append(self.cut)
        back = np.argsort(np.concatenate(order)) if order else np.zeros(0, int)
        whole = cp.hstack(parts)[back] if size else None
        return whole, limits


class _Model:
    """One relaxation: hulls on given bounds, solved with tangents added, and the bound of its multipliers."""

    def __init__(self, worlds: Worlds, low_J: Array, high_J: Array, gate_J: Array | None) -> None:
        self.worlds, self.gate_J = worlds, gate_J
        self.low_J, self.high_J = low_J, np.maximum(high_J, low_J)
        S = worlds.draws.size
        shared, own = worlds.shared_J, np.repeat(worlds.own_O, S)

        def hulls(curves: Curves, at_K: IntArray) -> _Hulls:
            return _Hulls(curves, at_K, self.low_J[at_K], self.high_J[at_K], None if gate_J is None else gate_J[at_K])

        self.shared = hulls(worlds.curves.take(shared), shared)
        self.own = hulls(worlds.many, own)
        middle_J = np.clip(self.low_J + 0.5 * (self.high_J - self.low_J), self.low_J, self.high_J)
        self.money = max(worlds.limits.budget, 1e-300)
        self.worth = max(abs(worlds.value(middle_J)), 1e-300)
        narrow = np.maximum(worlds.curves.half_C, 1e-12 * self.money) * 1e3
        width_J = np.minimum(self.high_J - self.low_J, narrow)
        self.width_J = np.where(width_J > 0, width_J, 1.0)

    def solve(self, slack: float) -> tuple[Array, Array, Array, Array] | None:
        """Points, multipliers of the linear limits, of the floors and of the draws; None where nothing fits."""
        for _ in range(ROUNDS):
            started = time.monotonic()
            found = self._once(slack)
            if found is None:
                return None
            t_J, y_R, nu_F, w_S, sales, sales_own = found
            over = float(self.worlds.weight_J[self.shared.at_K] @ self.shared.over(sales, t_J[self.shared.at_K]))
            if self.own.at_K.size:
                over_own = self.own.over(sales_own, t_J[self.own.at_K])
                over += float(self.worlds.weight_J[self.own.at_K] @ over_own) / self.worlds.draws.size
            # the bound of any multipliers holds; where hulls stand above their curves, sharper tangents help little
            gate_J = np.zeros(t_J.size) if self.gate_J is None else self.gate_J
            apart = 0.0
            if not self.worlds.is_concave:
                apart = float(self.worlds.above(t_J, self.low_J, self.high_J, gate_J).sum())
            took, now = time.monotonic() - started, time.monotonic()
            enough = max(0.1 * self.worlds.problem.gap * self.worth, 0.1 * apart, self.worlds.rough)
            if over <= enough or now + 2.0 * took > self.worlds.until:
                break
            for one in (self.shared, self.own):
                one.refine(t_J[one.at_K])
        return t_J, y_R, nu_F, w_S

    def _once(self, slack: float) -> tuple[Array, Array, Array, Array, Array, Array] | None:
        cp, worlds = general.cvxpy(), self.worlds
        S, risk, worth = worlds.draws.size, worlds.risk, self.worth
        tau = cp.Variable(self.low_J.size)
        t = self.low_J + cp.multiply(self.width_J, tau)
        limits = [tau >= 0, tau <= (self.high_J - self.low_J) / self.width_J]
        y, more = self.shared.expression(t)
        limits += more
        weight = worlds.weight_J / worth
        z = None
        if self.own.at_K.size:
            z, more = self.own.expression(t)
            limits += more
        mean = weight[self.shared.at_K] @ y if y is not None else 0.0
        if z is not None:
            mean = mean + (weight[self.own.at_K] / S) @ z
        goal, below = mean, None
        if risk > 0:
            u, q = cp.Variable(), cp.Variable(S)
            total: Any = 0.0
            if y is not None:
                ratio = np.ones((S, 1)) @ weight[None, self.shared.at_K]
                if worlds.ratio_SJ is not None:
                    ratio = worlds.ratio_SJ[:, self.shared.at_K] * weight[self.shared.at_K]
                total = total + ratio @ y
            if z is not None:
                place = (np.tile(np.arange(S), worlds.own_O.size), np.arange(self.own.at_K.size))
                total = total + sparse.csr_matrix((weight[self.own.at_K], place), shape=(S, self.own.at_K.size)) @ z
            below = q >= u - total
            limits += [below, q >= 0]
            goal = (1 - risk) * mean + risk * (u - cp.sum(q) / (worlds.tail * S))
        floors = [self._floor(floor, slack, t, y, z) for floor in worlds.limits.floors]
        A, low_R, high_R = worlds.matrix
        scale_R = 1.0 / np.maximum(np.asarray(abs(A) @ (self.high_J - self.low_J)), 1e-12 * self.money)
        total_R = A @ t
        same = np.flatnonzero(low_R == high_R)
        least = np.flatnonzero(np.isfinite(low_R) & (low_R != high_R))
        most = np.flatnonzero(np.isfinite(high_R) & (low_R != high_R))
        sides = [
            (cp.multiply(scale_R[at], total_R[at] - limit[at]) == 0)
            if sign == 0
            else (sign * cp.multiply(scale_R[at], total_R[at] - limit[at]) <= 0)
            for at, limit, sign in ((same, high_R, 0), (least, low_R, -1), (most, high_R, 1))
            if at.size
        ]
        model = cp.Problem(cp.Minimize(-goal), [*limits, *floors, *sides])
        cones = bool(self.shared.cone.any() or self.own.cone.any())
        answer = general.solved(model, cones=cones)
        if answer is None and cones:  # the cone solver gave up: tangents alone are a linear program
            self.shared.without_cones()
            self.own.without_cones()
            return self._once(slack)
        if not answer:
            return None
        y_R = np.zeros(low_R.size)
        for side, (at, sign) in zip(
            sides, [(a, s) for a, s in ((same, 1), (least, -1), (most, 1)) if a.size], strict=True
        ):
            y_R[at] += sign * np.atleast_1d(side.dual_value) * scale_R[at] * worth
        nu_F = np.array([max(float(floor.dual_value), 0.0) for floor in floors])
        w_S = _admissible(np.asarray(below.dual_value, float), risk, worlds.tail) if below is not None else np.zeros(S)
        t_J = np.clip(np.asarray(t.value, float), self.low_J, self.high_J)
        return (
            t_J,
            y_R,
            nu_F,
            w_S,
            np.zeros(0) if y is None else np.asarray(y.value),
            np.zeros(0) if z is None else np.asarray(z.value),
        )

    def _floor(self, floor: Any, slack: float, t: Any, y: Any, z: Any) -> Any:
        cp, worlds = general.cvxpy(), self.worlds
        member_J = np.isin(worlds.arm_J, floor.arms) & (
            np.arange(worlds.arm_J.size) < worlds.problem.size * worlds.weeks
        )
        sales: Any = 0.0
        if y is not None:
            sales = sales + member_J[self.shared.at_K].astype(float) @ y
        if z is not None:
            sales = sales + (member_J[self.own.at_K] / worlds.draws.size) @ z
        chosen = np.zeros(worlds.problem.size)
        chosen[floor.arms] = 1.0
        spend = cp.sum(cp.multiply(worlds.spend_CJ.T @ chosen, t))
        return (floor.roas * slack * spend - sales) / self.worth <= 0

    def bound(self, y_R: Array, nu_F: Array, w_S: Array) -> float:
        """No plan is worth more: the Lagrangian's maximum over the points' bounds, for multipliers of the right sign."""
        worlds, S = self.worlds, self.worlds.draws.size
        A, low_R, high_R = worlds.matrix
        y_R = np.where(np.isinf(high_R), np.minimum(y_R, 0.0), np.where(np.isinf(low_R), np.maximum(y_R, 0.0), y_R))
        omega_S = (1.0 - worlds.risk) / S + w_S
        price_J = A.T @ y_R
        lift_J = np.zeros(worlds.arm_J.size)
        count = worlds.problem.size * worlds.weeks
        for floor, nu in zip(worlds.limits.floors, nu_F, strict=True):
            member_J = np.isin(worlds.arm_J, floor.arms) & (np.arange(worlds.arm_J.size) < count)
            chosen = np.zeros(worlds.problem.size)
            chosen[floor.arms] = nu * floor.roas
            price_J = price_J + worlds.spend_CJ.T @ chosen
            lift_J += nu * member_J
        limit_R = np.where(y_R > 0, high_R, low_R)
        total = float(np.sum(np.where(y_R != 0, y_R * np.where(y_R != 0, limit_R, 0.0), 0.0)))
        at = self.shared.at_K
        ratio_J = np.ones(at.size) if worlds.ratio_SJ is None else omega_S @ worlds.ratio_SJ[:, at]
        weight_J = worlds.weight_J[at] * ratio_J + lift_J[at]
        total += _best(self.shared.hull, weight_J, price_J[at], self.low_J[at])
        if self.own.at_K.size:
            weight_OS = worlds.weight_J[worlds.own_O][:, None] * omega_S + lift_J[worlds.own_O][:, None] / S
            total += _best_of_many(
                self.own.hull, weight_OS, price_J[worlds.own_O], self.low_J[worlds.own_O], self.high_J[worlds.own_O]
            )
        return total


def _admissible(w_S: Array, risk: float, tail: float) -> Array:
    """The nearest weights that CVaR allows: at least 0, at most risk / (tail S) each, risk in all."""
    most = risk / (tail * w_S.size)
    low, high = -float(np.abs(w_S).max()) - most, float(np.abs(w_S).max()) + most
    for _ in range(200):
        shift = 0.5 * (low + high)
        if float(np.clip(w_S + shift, 0.0, most).sum()) < risk:
            low = shift
        else:
            high = shift
    found_S = np.clip(w_S + high, 0.0, most)
    return found_S * (risk / float(found_S.sum()))


def _best(hull: Pieces, weight_J: Array, price_J: Array, low_J: Array) -> float:
    """Sum over points of the most that weighted hull less price can be."""
    if not weight_J.size:
        return 0.0
    weight_E, price_E = weight_J[hull.arm_E], price_J[hull.arm_E]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative_E = np.where(weight_E > 0, price_E / np.maximum(weight_E, 1e-300), np.inf)
    x_E = hull.respond(np.clip(relative_E, 1e-290, 1e290))
    gain_E = weight_E * (hull.value(x_E) - hull.low_value_E) - price_E * (x_E - hull.low_E)
    base = weight_J * hull.base_value_C - price_J * low_J
    return float(np.maximum(gain_E, 0.0).sum() + base.sum())


def _best_of_many(hull: Pieces, weight_OS: Array, price_O: Array, low_O: Array, high_O: Array) -> float:
    """The same where each point has a hull in every draw: bisection on the weighted slope."""
    S = weight_OS.shape[1]

    def at(x_O: Array) -> tuple[Array, Array]:
        value, slope = hull_at(hull, np.repeat(x_O, S))
        slope = np.where(np.isfinite(slope), slope, 1e290)
        return (weight_OS * value.reshape(-1, S)).sum(1), (weight_OS * slope.reshape(-1, S)).sum(1)

    left_O, right_O = low_O.copy(), high_O.copy()
    for _ in range(60):
        middle_O = 0.5 * (left_O + right_O)
        rising_O = at(middle_O)[1] > price_O
        left_O, right_O = np.where(rising_O, middle_O, left_O), np.where(rising_O, right_O, middle_O)
    gains = [at(x_O)[0] - price_O * x_O for x_O in (low_O, left_O, right_O, high_O)]
    return float(np.max(gains, axis=0).sum())

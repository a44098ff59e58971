"""What an arm's total spend brings at best, where its weeks carry over or its curve is drawn: what ROAS floors see.

Limits speak of an arm's total. Over weeks the most that a total brings is a curve of its own, concave where the
period's is, and no other arm matters for it: with these curves limits over weeks are limits over totals.

At a price p of spend the best weeks maximise the sum over weeks of ``h_w(t_w) - p c_w t_w`` with ``t_w >= r t_(w-1)``
(``worlds``; equal where a week has no stock), c_w being 1, and 1 / (1 - r) in the last week. From the last week back,
the value of what is still to come is concave in t, so each week has one threshold m_w, and ``t_w = max(m_w, r t_(w-1))``
is exact. Each price gives a point of the curve; prices are the chords' slopes, until no chord lies more than ``CLOSE``
below. Every point is a plan, so the curve is never above what can be reached, but where a curve that is not concave is
taken for its hull.

Source: parametric search by chords, Eisner and Severance (1976).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from campaigns.domain.curves import PIECEWISE, Curves, slope_of, value_of
from campaigns.domain.problem import Problem
from rmn.lib.arrays import Array, BoolArray, IntArray

CLOSE = 1e-6  # of sales: what chords may lie below the curve
HALVINGS = 40
NEAR = 1e-8  # of a week's spend: a price's plan may be off by, its worth by the square of that
ROUNDS = 16
SAMPLES = 1500


def reached(problem: Problem, arms: IntArray, most: float) -> Curves:
    """The most that each total spend brings, inside the period and in the mean of the draws.

    Args:
        problem: with weeks or with curves drawn one by one.
        arms: whose curves are asked for; the others' stay as they are.
        most: total spend up to which they are.

    Returns:
        Curves of totals, piecewise for those asked for: within ``CLOSE`` of what can be reached, in money.
    """
    curves, points = problem.curves, dict(problem.curves.points)
    kind_C = curves.kind_C.copy()
    weeks = problem.periods.weeks if problem.periods else 1
    drawn = problem.draws.given if problem.draws else {}
    for arm in map(int, arms):
        one = curves.take(np.array([arm]))
        ready_W = np.ones(weeks) if problem.ready_CW is None else problem.ready_CW[arm]
        if not ready_W.any():
            continue
        if arm in drawn or not one.concave_C[0]:
            one = _sampled(one, drawn.get(arm), most * weeks / float(ready_W[ready_W > 0].min()))
        if problem.periods:
            points[arm] = _Weeks(one, float(problem.periods.carry_C[arm]), ready_W / weeks, ready_W > 0).curve(most)
        elif arm in drawn:
            points[arm] = one.points[0]
        else:
            continue
        kind_C[arm] = PIECEWISE
    return replace(curves, kind_C=kind_C, points=points)


def _sampled(one: Curves, drawn: tuple[Array, Array, Array] | None, most: float) -> Curves:
    """The concave hull of one curve, or of the mean of its draws, at many spends."""
    x_L = np.concatenate([[0.0], np.geomspace(1e-7 * most, most, SAMPLES)])
    if one.points:
        x_L = np.union1d(x_L, one.points[0][:, 0])
    if drawn is None:
        y_L = one.take(np.zeros(x_L.size, np.int64)).value(x_L)
    else:
        y_L = np.mean([value_of(int(one.kind_C[0]), a, b, n, x_L) for a, b, n in zip(*drawn, strict=True)], axis=0)
    none = np.ones(1)
    return Curves(np.array([PIECEWISE]), none, none, none, {0: hull(np.column_stack([x_L, y_L]))})


def hull(points: Array) -> Array:
    """The points from which a concave curve goes that none of them lies above; they come in order of spend."""
    kept: list[tuple[float, float]] = []
    for x, y in points:
        while len(kept) > 1:
            (x0, y0), (x1, y1) = kept[-2:]
            if (y1 - y0) / (x1 - x0) > (y - y1) / (x - x1) * (1 + 1e-12):
                break
            kept.pop()
        if not kept or (x > kept[-1][0] and y >= kept[-1][1]):
            kept.append((float(x), float(y)))
    return np.array(kept)


@dataclass(frozen=True)
class _Weeks:
    """One arm's weeks: its period's curve, what carries over, and each week's share of the period that can sell."""

    period: Curves
    carry: float
    times_W: Array
    open_W: BoolArray

    def _of(self, x: Array, *, slope: bool) -> Array:
        one = self.period
        kind = int(one.kind_C[0])
        if kind != PIECEWISE:
            a, b, n = one.scale_C, one.half_C, one.exponent_C
            return (slope_of if slope else value_of)(kind, a, b, n, x)
        at, sold = one.points[0].T
        if not slope:
            return np.interp(x, at, sold)
        return np.append(np.diff(sold) / np.diff(at), 0.0)[np.searchsorted(at, x, side="right") - 1]

    def best(self, price_I: Array, most: float) -> tuple[Array, Array]:
        """Total spend and sales of the best weeks at each price of spend."""
        r, weeks = self.carry, self.times_W.size
        cost_W = np.ones(weeks)
        cost_W[-1] = 1.0 / (1.0 - r)
        least_WI = np.zeros((weeks, price_I.size))  # each week's threshold

        def gain(week: int, t_I: Array) -> Array:
            """What one more unit carried into a week brings, that week and after, at its cost."""
            total_I = self._of(t_I / self.times_W[week], slope=True) - price_I * cost_W[week]
            held, left = np.ones(price_I.size, bool), 1.0
            for after in range(week + 1, weeks if r > 0 else 0):
                t_I, left = r * t_I, r * left
                part_I = -price_I * cost_W[after]
                if self.open_W[after]:
                    held &= t_I > least_WI[after]
                    part_I = part_I + self._of(t_I / self.times_W[after], slope=True)
                if not held.any():
                    break
                total_I = total_I + np.where(held, left * part_I, 0.0)
            return total_I

        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            for week in np.flatnonzero(self.open_W)[::-1]:
                low_I, high_I = np.full(price_I.size, 1e-9 * most), np.full(price_I.size, most)
                none_I, all_I = gain(week, low_I) <= 0, gain(week, high_I) >= 0
                like_I = least_WI[min(week + 1, weeks - 1)]  # mostly one week is as the next
                tries = [like_I * (1 - NEAR), like_I * (1 + NEAR)]
                for halving in range(HALVINGS):
                    middle_I = np.clip(tries[halving], low_I, high_I) if halving < 2 else np.sqrt(low_I * high_I)
                    more_I = gain(week, middle_I) > 0
                    low_I, high_I = np.where(more_I, middle_I, low_I), np.where(more_I, high_I, middle_I)
                    if np.all((high_I <= low_I * (1 + 4 * NEAR)) | none_I | all_I):
                        break
                least_WI[week] = np.where(none_I, 0.0, np.where(all_I, most, low_I))
        t_I, spend_I, sales_I = np.zeros(price_I.size), np.zeros(price_I.size), np.zeros(price_I.size)
        for week in range(weeks):
            t_I = np.maximum(r * t_I, least_WI[week])
            spend_I = spend_I + cost_W[week] * t_I
            if self.open_W[week]:
                sales_I = sales_I + self.times_W[week] * self._of(t_I / self.times_W[week], slope=False)
        return spend_I, sales_I

    def curve(self, most: float) -> Array:
        """Points (spend, sales) from (0, 0) to at least ``most``, or to where no more is sold."""
        low = 1e-12 * float(self._of(np.array([most]), slope=False)[0]) / most
        if low <= 0:
            return np.array([[0.0, 0.0], [most, 0.0]])
        (end,), (top,) = self.best(np.array([low]), most)
        spend_L, sales_L, open_L = np.array([0.0, end]), np.array([0.0, top]), np.array([True])
        for _ in range(ROUNDS):
            at = np.flatnonzero(open_L)
            if not at.size:
                break
            price_I = np.diff(sales_L)[at] / np.diff(spend_L)[at]
            spend_I, sales_I = self.best(price_I, most)
            above_I = (sales_I - sales_L[at]) - price_I * (spend_I - spend_L[at])
            inside_I = (spend_I > spend_L[at]) & (spend_I < spend_L[at + 1]) & (sales_I > sales_L[at])
            new_I = inside_I & (above_I > CLOSE * np.maximum(sales_L[at], 1e-2 * top))
            open_L[at] = new_I
            place = at[new_I] + 1
            spend_L, sales_L = np.insert(spend_L, place, spend_I[new_I]), np.insert(sales_L, place, sales_I[new_I])
            open_L = np.insert(open_L, place, True) & (spend_L[:-1] < most)
        return hull(np.column_stack([spend_L, sales_L]))

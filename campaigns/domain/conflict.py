"""When limits contradict each other: which of them, as few as possible, and the least change that helps.

Only sums of spend are involved, and arms that stand in the same groups are interchangeable, so the
question is a linear program over cells (arms with the same groups), however many arms there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from campaigns.domain.interior import Rows
from rmn.lib.arrays import Array, BoolArray, IntArray

SLACK = 1e-10  # of the largest limit: what counts as kept


def sums_fit(rows: Rows, low_C: Array, high_C: Array) -> bool:
    """Whether any spends within the bounds keep all limits on sums."""
    least_M, most_M = _cell_bounds(rows, low_C, high_C)
    return _shortfall(rows, least_M, most_M, np.ones(rows.low_K.size, bool), np.ones(rows.low_K.size, bool))


def _cell_bounds(rows: Rows, low_C: Array, high_C: Array) -> tuple[Array, Array]:
    cells = rows.in_cell_KM.shape[1]
    least_M = np.bincount(rows.cell_C, weights=low_C, minlength=cells).astype(float)
    return least_M, np.bincount(rows.cell_C, weights=high_C, minlength=cells).astype(float)


def _shortfall(rows: Rows, least_M: Array, most_M: Array, use_low_K: BoolArray, use_high_K: BoolArray) -> bool:
    """Whether the chosen sides of the rows and the cells' bounds can be kept together."""
    from scipy.optimize import linprog

    scale = _scale(rows)
    slack = SLACK
    matrix, right = [], []
    for row in range(rows.low_K.size):
        if use_high_K[row] and np.isfinite(rows.high_K[row]):
            matrix.append(rows.in_cell_KM[row])
            right.append(rows.high_K[row] / scale + slack)
        if use_low_K[row] and np.isfinite(rows.low_K[row]):
            matrix.append(-rows.in_cell_KM[row])
            right.append(-rows.low_K[row] / scale + slack)
    if np.any(least_M > most_M + slack * scale):
        return False
    if not matrix:
        return True
    bounds = [(low / scale, None if np.isinf(high) else max(high, low) / scale) for low, high in zip(least_M, most_M)]
    answer = linprog(np.zeros(least_M.size), np.array(matrix), np.array(right), bounds=bounds, method="highs")
    return bool(answer.status == 0)


def _scale(rows: Rows) -> float:
    finite = np.concatenate([rows.high_K[np.isfinite(rows.high_K)], rows.low_K[np.isfinite(rows.low_K)], [0.0]])
    return max(float(np.abs(finite).max()), 1e-300)


@dataclass(frozen=True)
class Limit:
    """One limit that may be named: its field, its row or arm, and which side."""

    name: str
    row: int = -1
    arm: int = -1
    upper: bool = True


def drop(flags: BoolArray, order: IntArray, broken: Callable[[], bool]) -> None:
    """Take away as many flags as leave the conflict standing, in this order, by halving."""
    while order.size:
        first, last = 0, order.size  # dropping the first `first` keeps it broken
        while first < last:
            middle = (first + last + 1) // 2
            flags[order[:middle]] = False
            if broken():
                first = middle
            else:
                flags[order[:middle]] = True
                flags[order[:first]] = False
                last = middle - 1
        flags[order[:first]] = False
        order = order[first + 1 :]  # this one is needed


def smallest(
    rows: Rows,
    row_names: Sequence[tuple[str, str]],
    low_C: Array,
    high_C: Array,
    low_names: Sequence[str],
    high_names: Sequence[str],
) -> list[Limit]:
    """A set of limits that cannot be kept together, while any smaller part of it can.

    Arms' bounds are dropped first, the small ones before the large, so that what is left is short
    and speaks of groups and the budget where those alone are in conflict.

    Args:
        rows: the limits on sums; the budget first.
        row_names: for each row the names of its low and its high side.
        low_C: least spends; 0 is no limit that could be dropped.
        high_C: most spends.
        low_names: what each arm's least spend is called.
        high_names: the same for the most.
    """
    for arm in map(int, np.flatnonzero(low_C > high_C)):
        return [Limit(low_names[arm], arm=arm, upper=False), Limit(high_names[arm], arm=arm)]
    size = rows.low_K.size
    use_low, use_high = np.isfinite(rows.low_K), np.isfinite(rows.high_K)
    keep_low, keep_high = low_C > 0, np.isfinite(high_C)

    def broken() -> bool:
        least, most = _cell_bounds(rows, np.where(keep_low, low_C, 0.0), np.where(keep_high, high_C, np.inf))
        return not _shortfall(rows, least, np.where(np.isnan(most), np.inf, most), use_low, use_high)

    drop(keep_high, np.flatnonzero(keep_high)[np.argsort(-high_C[keep_high])], broken)
    drop(keep_low, np.flatnonzero(keep_low)[np.argsort(low_C[keep_low])], broken)
    for row in range(size - 1, -1, -1):
        for flags in (use_high, use_low):
            if flags[row]:
                flags[row] = False
                flags[row] = not broken()
    found = [Limit(row_names[r][1], row=r) for r in range(size) if use_high[r]]
    found += [Limit(row_names[r][0], row=r, upper=False) for r in range(size) if use_low[r]]
    found += [Limit(low_names[a], arm=a, upper=False) for a in map(int, np.flatnonzero(keep_low))]
    found += [Limit(high_names[a], arm=a) for a in map(int, np.flatnonzero(keep_high))]
    return found


def nearest(
    rows: Rows, low_C: Array, high_C: Array, firm_C: BoolArray | None = None
) -> dict[tuple[str, int, bool], float]:
    """The least change of limits, in money, after which all can be kept.

    Lowering a floor is preferred to raising a cap, and that to more budget, where the money is the
    same. Caps of ``firm`` arms (what is out of stock) are raised only where nothing else helps.

    Returns:
        For each limit to change, ("row" or "arm", index, upper): its new value.
    """
    from scipy.optimize import linprog

    low_C = np.asarray(low_C, float)
    changes: dict[tuple[str, int, bool], float] = {}
    for arm in np.flatnonzero(low_C > high_C):  # an arm against itself: its floor gives way
        low_C = low_C.copy()
        low_C[arm] = high_C[arm]
        changes["arm", int(arm), False] = float(high_C[arm])
    scale = _scale(rows)
    least_M, most_M = _cell_bounds(rows, low_C, np.minimum(high_C, 1e6 * scale))
    cells, size = least_M.size, rows.low_K.size
    # columns: cell spends, floors lowered per cell, caps raised per cell, row lows lowered, row highs raised
    count = 3 * cells + 2 * size
    cost = np.zeros(count)
    cost[cells : 2 * cells], cost[2 * cells : 3 * cells] = 1.001, 1.01
    if firm_C is not None:
        loose_M = np.bincount(rows.cell_C, weights=(~firm_C).astype(float), minlength=cells)
        cost[2 * cells : 3 * cells][loose_M == 0] = 100.0
    cost[3 * cells : 3 * cells + size], cost[3 * cells + size :] = 1.0, 1.02
    cost[3 * cells + size] = 1.05  # the budget itself
    matrix, right = [], []

    def add(spend: Array, column: int, sign: float, limit: float) -> None:
        line = np.zeros(count)
        line[:cells] = spend
        line[column] = sign
        matrix.append(line)
        right.append(limit)

    for row in range(size):
        if np.isfinite(rows.high_K[row]):
            add(rows.in_cell_KM[row], 3 * cells + size + row, -1.0, rows.high_K[row] / scale)
        if np.isfinite(rows.low_K[row]):
            add(-rows.in_cell_KM[row], 3 * cells + row, -1.0, -rows.low_K[row] / scale)
    unit = np.eye(cells)
    for cell in range(cells):
        add(-unit[cell], cells + cell, -1.0, -least_M[cell] / scale)
        add(unit[cell], 2 * cells + cell, -1.0, most_M[cell] / scale)
    bounds = [(0, None)] * count
    answer = linprog(cost, np.array(matrix), np.array(right), bounds=bounds, method="highs")
    if answer.status != 0:
        return changes
    x = np.where(answer.x * scale > 1e-9 * scale, answer.x * scale, 0.0)
    for row in range(size):
        if x[3 * cells + row] > 0:
            changes["row", row, False] = max(float(rows.low_K[row] - x[3 * cells + row]), 0.0)
        if x[3 * cells + size + row] > 0:
            changes["row", row, True] = float(rows.high_K[row] + x[3 * cells + size + row])
    for cell in range(cells):
        arms = np.flatnonzero(rows.cell_C == cell)
        for place, flags, sign in ((cells + cell, low_C, -1.0), (2 * cells + cell, high_C, 1.0)):
            rest = x[place]
            if rest <= 0:
                continue
            total = float(flags[arms].sum())
            for arm in arms:  # in proportion to what each arm has
                share = flags[arm] / total if total > 0 else 1 / arms.size
                if share > 0:
                    changes["arm", int(arm), sign > 0] = max(float(flags[arm] + sign * rest * share), 0.0)
    return changes


def nearest_gated(
    rows: Rows, low_C: Array, high_C: Array, gate_C: Array
) -> tuple[dict[tuple[str, int, bool], float], dict[int, float]]:
    """The same where arms take nothing or at least their gate: a small mixed-integer program.

    Returns:
        The limits on sums to change as in ``nearest``, and by arm its new gate.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    n, size, scale = low_C.size, rows.low_K.size, max(_scale(rows), float(gate_C.max(initial=0.0)))
    member_KC = rows.in_cell_KM[:, rows.cell_C]
    most_C = np.minimum(high_C, 1e3 * scale) / scale
    eye, none = np.eye(n), np.zeros((n, size))
    # columns: spends, gates lowered, switches, row lows lowered, row highs raised
    cost = np.concatenate([np.zeros(n), np.full(n, 1.001), np.zeros(n), np.ones(size), np.full(size, 1.02)])
    cost[3 * n + size] = 1.05
    gated = (gate_C > 0) & (low_C <= 0)
    up = LinearConstraint(
        np.hstack([eye, 0 * eye, -np.diag(most_C), none, none]), -np.inf, np.where(gated, 0.0, np.inf)
    )
    on = np.hstack([eye, eye, -np.diag(np.where(gated, gate_C, 0.0) / scale), none, none])
    sums, rest = np.hstack([member_KC, np.zeros((size, 2 * n))]), np.zeros((size, size))
    low = np.where(np.isfinite(rows.low_K), rows.low_K / scale, -np.inf)
    high = np.where(np.isfinite(rows.high_K), rows.high_K / scale, np.inf)
    answer = milp(
        cost,
        integrality=np.concatenate([np.zeros(2 * n), np.ones(n), np.zeros(2 * size)]),
        bounds=Bounds(
            np.concatenate([low_C / scale, np.zeros(2 * n + 2 * size)]),
            np.concatenate([most_C, np.full(n, np.inf), np.ones(n), np.full(2 * size, np.inf)]),
        ),
        constraints=[
            up,
            LinearConstraint(on, 0.0, np.inf),
            LinearConstraint(np.hstack([sums, np.eye(size), rest]), low, np.inf),
            LinearConstraint(np.hstack([sums, rest, -np.eye(size)]), -np.inf, high),
        ],
        options={"time_limit": 10.0},
    )
    if answer.x is None:
        return {}, {}
    x = np.where(answer.x > 1e-9, answer.x * scale, 0.0)
    on_C = answer.x[2 * n : 3 * n] > 0.5
    gates = {int(arm): float(x[arm]) for arm in np.flatnonzero(gated & on_C & (x[:n] < gate_C * (1 - 1e-9)))}
    changes: dict[tuple[str, int, bool], float] = {}
    for row in range(size):
        if x[3 * n + row] > 0:
            changes["row", row, False] = max(float(rows.low_K[row] - x[3 * n + row]), 0.0)
        if x[3 * n + size + row] > 0:
            changes["row", row, True] = float(rows.high_K[row] + x[3 * n + size + row])
    return changes, gates

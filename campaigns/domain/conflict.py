"""When limits contradict each other: the fewest of them that do, and the least change that helps.

Both come from one program (``elastic``) that finds the plan which keeps some limits and breaks the others least.

The fewest are found by implicit hitting sets. Every plan breaks some limits, and a set of limits that contradict each
other must hold one of those; so a smallest set that hits all that is known is tried, and if a plan keeps it, what that
plan breaks is one more set to be hit. Where only sums of spend are in question, Farkas' certificate is asked for as
well: multipliers of the chosen limits that add up to a contradiction. Arms in the same groups differ in their amounts
only, so of their floors the largest come first, and their caps matter all together.

Sources: Ignatiev et al. (2015), smallest MUS extraction with minimal hitting set dualization; Chinneck (2008).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np
from scipy.optimize import linprog

from campaigns.domain.curves import envelope
from campaigns.domain.elastic import BROKEN, FINE, Asked, Elastic, Kept, Nearest, Program
from campaigns.domain.interior import Rows, solve
from rmn.lib.arrays import Array, BoolArray, IntArray

SLACK = 1e-10  # of the largest limit: what counts as kept
MANY = 20_000  # switches beyond which a smaller set is not looked for


def sums_fit(rows: Rows, low_C: Array, high_C: Array) -> bool:
    """Whether any spends within the bounds keep all limits on sums."""
    cells, finite = rows.in_cell_KM.shape[1], np.concatenate([rows.high_K, rows.low_K, [0.0]])
    scale = max(float(np.abs(finite[np.isfinite(finite)]).max()), 1e-300)
    least_M = np.bincount(rows.cell_C, weights=low_C, minlength=cells) / scale
    most_M = np.bincount(rows.cell_C, weights=high_C, minlength=cells) / scale
    if np.any(least_M > most_M + SLACK):
        return False
    most, least = np.isfinite(rows.high_K), np.isfinite(rows.low_K)
    matrix = np.vstack([rows.in_cell_KM[most], -rows.in_cell_KM[least]])
    right = np.concatenate([rows.high_K[most], -rows.low_K[least]]) / scale + SLACK
    bounds = np.column_stack([least_M, np.maximum(least_M, most_M)])
    return bool(linprog(np.zeros(cells), matrix, right, bounds=bounds, method="highs").status == 0)


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


@dataclass(frozen=True)
class Conflict:
    """Limits that no plan keeps together."""

    kept: Kept
    proved: bool = True  # that they contradict each other; else no plan was found in the time given
    smallest: bool = True  # that no set of fewer does; else none was found in the time given


def _quickly(asked: Asked, kept: Kept, far: float) -> bool | None:
    """Whether some limits can be kept, where the interior point finds that out at once: concave curves, no gates."""
    if not kept.floor_F.any() or kept.gate_C.any() or asked.curves is None or not asked.curves.concave_C.all():
        return None
    low_C = np.where(kept.low_C, asked.low_C, 0.0)
    high_C = np.maximum(np.minimum(np.where(kept.high_C, asked.high_C, np.inf), far), low_C)
    low_K = np.where(kept.low_K, asked.rows.low_K, -np.inf)
    high_K = np.maximum(np.minimum(np.where(kept.high_K, asked.rows.high_K, np.inf), far), low_K)
    rows = replace(asked.rows, low_K=low_K, high_K=high_K)
    if not sums_fit(rows, low_C, high_C):
        return False
    floors = tuple(floor for floor, keep in zip(asked.floors, kept.floor_F, strict=True) if keep)
    pieces = envelope(asked.curves, low_C, high_C)
    found = solve(pieces, None, rows, floors, pieces.base_value_C)
    if found.impossible:
        return False
    return True if max(found.miss, found.floor_miss) <= 1e-9 else None


def smallest(asked: Asked, elastic: Elastic, until: float) -> Conflict:
    """The fewest limits that contradict each other, counting the budget and the wish to spend all of it as one each.

    Limits are dropped one after another, by halves where many can go, arms' own and small ones first: what is left is
    minimal, and bounds the search for fewer.

    Args:
        asked: all limits.
        elastic: their program.
        until: by ``time.monotonic()``, when to be content with what was found.
    """
    kept = asked.every
    against = np.flatnonzero(asked.low_C > asked.high_C)
    if against.size:  # an arm against itself: two, and one limit alone can be kept
        for flags in vars(kept).values():
            flags[:] = False
        kept.low_C[against[0]] = kept.high_C[against[0]] = True
        return Conflict(kept)
    unsure = False

    def broken() -> bool:
        nonlocal unsure
        fits = _quickly(asked, kept, 10.0 * FINE * elastic.money)
        if fits is None and monotonic() < until:
            fits = elastic.solve(kept, until, soft=False).fits
        unsure |= fits is None
        return fits is False

    if not broken():
        return Conflict(kept, proved=False, smallest=False)
    whole = [kept.gate_C, kept.floor_F]
    if any(flags.any() for flags in whole):  # mostly sums alone are in conflict, which is quickly seen
        before = [flags.copy() for flags in whole]
        for flags in whole:
            flags[:] = False
        if not broken():
            for flags, was in zip(whole, before, strict=True):
                flags[:] = was
    for flags, order in (
        (kept.high_C, np.argsort(-asked.high_C, kind="stable")),
        (kept.low_C, np.argsort(asked.low_C, kind="stable")),
        (kept.gate_C, np.argsort(asked.gate_C, kind="stable")),
        *((flags, np.arange(flags.size)[::-1]) for flags in (kept.high_K, kept.low_K, kept.floor_F)),
    ):
        drop(flags, order[flags[order]], broken)
    if kept.low_K[0]:
        kept.high_K[0] = True  # to spend all of the budget names its amount
    if kept.count <= 2:
        return Conflict(kept)
    now = monotonic()
    return _fewest(asked, elastic, kept, now + 0.5 * max(until - now, 0.0))


def _fewest(asked: Asked, elastic: Elastic, kept: Kept, until: float) -> Conflict:
    """Fewer limits than those found, or that there are none."""
    bound, every = kept.count - 1, asked.every
    master = _Master(asked, elastic, every, bound)
    if len(master.program.cost) > MANY:
        return Conflict(kept, smallest=False)
    while monotonic() < until:
        found, x, best = master.program.solve(until)
        if found is False:
            return Conflict(kept)
        if not found or not best:
            break
        chosen = master.chosen(x)
        plan = elastic.solve(chosen, until)
        if plan.fits is False:
            return Conflict(chosen)
        if plan.fits is None or not master.hit(plan, chosen):
            break
    return Conflict(kept, smallest=False)


class _Master:
    """The program that chooses the fewest limits which hit all known sets; columns are switches."""

    def __init__(self, asked: Asked, elastic: Elastic, every: Kept, bound: int) -> None:
        self.asked, self.elastic = asked, elastic
        self.plain = not (every.gate_C.any() or every.floor_F.any())
        program = self.program = Program()
        self.place: dict[tuple[str, int], list[int]] = {}  # column by what it switches: "cap" by cell, else by index
        columns: list[tuple[int, float]] = []

        def switch(kind: str, index: int, count: int = 1) -> int:
            column = program.column(0.0, 1.0, float(count), whole=True)
            self.place[kind, index] = [column]
            columns.append((column, float(count)))
            return column

        for row in range(every.low_K.size):
            for kind, flags in (("high_K", every.high_K), ("low_K", every.low_K)):
                if flags[row]:
                    switch(kind, row)
        if ("low_K", 0) in self.place:
            program.row([(self.place["low_K", 0][0], 1.0), (self.place["high_K", 0][0], -1.0)], high=0.0)
        size = asked.low_C.size
        self.cell_C = elastic.unit_C if self.plain else np.arange(size)
        self.members = np.split(np.argsort(self.cell_C, kind="stable"), np.cumsum(np.bincount(self.cell_C))[:-1])
        self.lows: list[list[int]] = []  # by cell: the arms whose floors may be chosen, the largest first
        for cell, arms in enumerate(self.members):
            order = arms[np.argsort(-asked.low_C[arms], kind="stable")][:bound]
            self.lows.append([int(arm) for arm in order if asked.low_C[arm] > 0])
            for arm in self.lows[-1]:
                switch("low_C", arm)
            for first, second in zip(self.lows[-1], self.lows[-1][1:]):
                program.row([(self.place["low_C", second][0], 1.0), (self.place["low_C", first][0], -1.0)], high=0.0)
            if arms.size <= bound and np.all(np.isfinite(asked.high_C[arms])):
                switch("cap", cell, arms.size)
        for kind, flags in (("gate_C", every.gate_C), ("floor_F", every.floor_F)):
            for index in map(int, np.flatnonzero(flags)):
                switch(kind, index)
        program.row(columns, high=float(bound))
        if self.plain:
            self._certify()

    def _certify(self) -> None:
        """Multipliers of the chosen limits must add up to a contradiction."""
        program, rows, unit = self.program, self.asked.rows, self.elastic.money
        gain: list[tuple[int, float]] = []
        held: list[list[tuple[int, float]]] = [[] for _ in self.members]
        one = []
        for row in range(rows.low_K.size):
            for kind, limit, sign in (("high_K", rows.high_K[row], -1.0), ("low_K", rows.low_K[row], 1.0)):
                if (kind, row) not in self.place:
                    continue
                y = program.column(0.0, 1.0)
                program.row([(y, 1.0), (self.place[kind, row][0], -1.0)], high=0.0)
                gain.append((y, sign * float(limit) / unit))
                one.append((y, 1.0))
                for cell, where in enumerate(self.elastic.cell_U):
                    if rows.in_cell_KM[row, where]:
                        held[cell].append((y, sign))
        program.row(one, 1.0, 1.0)
        for cell, arms in enumerate(self.members):
            p = program.column(0.0, 1.0)  # of the cell's floors
            q = program.column(0.0, 1.0 if ("cap", cell) in self.place else 0.0)  # of its caps
            program.row([(p, 1.0), (q, -1.0), *held[cell]], high=0.0)
            if ("cap", cell) in self.place:
                program.row([(q, 1.0), (self.place["cap", cell][0], -1.0)], high=0.0)
                gain.append((q, -float(self.asked.high_C[arms].sum()) / unit))
            for arm in self.lows[cell]:
                w = program.column(0.0, 1.0)
                program.row([(w, 1.0), (p, -1.0)], high=0.0)
                program.row([(w, 1.0), (self.place["low_C", arm][0], -1.0)], high=0.0)
                gain.append((w, float(self.asked.low_C[arm]) / unit))
        program.row(gain, low=BROKEN)

    def chosen(self, x: Array) -> Kept:
        kept = self.asked.every
        for flags in vars(kept).values():
            flags[:] = False
        for (kind, index), (column,) in self.place.items():
            if x[column] > 0.5:
                if kind == "cap":
                    kept.high_C[self.members[index]] = True
                else:
                    getattr(kept, kind)[index] = True
        return kept

    def hit(self, plan: Nearest, chosen: Kept) -> bool:
        """What the plan breaks, as a set of which one must be chosen; False where it breaks nothing."""
        asked, elastic = self.asked, self.elastic
        unit, slack = elastic.money, BROKEN * elastic.money
        sum_M = _sums(asked.rows, elastic, plan)
        total_K = asked.rows.in_cell_KM @ sum_M
        found = [("high_K", int(row)) for row in np.flatnonzero(total_K > asked.rows.high_K + slack)]
        found += [("low_K", int(row)) for row in np.flatnonzero(total_K < asked.rows.low_K - slack)]
        x_C = np.full(asked.low_C.size, np.nan)
        x_C[elastic.alone] = plan.alone_A
        shared_C = elastic.unit_C >= 0
        at, units = elastic.unit_C[shared_C], plan.unit_U.size
        least_U = np.bincount(at, weights=asked.low_C[shared_C], minlength=units)
        most_U = np.bincount(at, weights=asked.high_C[shared_C], minlength=units)
        for cell, arms in enumerate(self.members):
            unit_ = int(elastic.unit_C[arms[0]])
            spend = float(x_C[arms[0]]) if unit_ < 0 else float(plan.unit_U[unit_])
            if unit_ >= 0 and not self.plain:  # one arm of a unit: whichever of its mates gives way, it may
                low, high = spend < least_U[unit_] - slack, spend > most_U[unit_] + slack
                spend = -1.0 if low else np.inf if high else float(asked.low_C[arms[0]])
            held = np.cumsum(asked.low_C[self.lows[cell]])
            most = int(np.searchsorted(held, spend + slack, side="right"))  # so many of the largest floors are kept
            if most < len(self.lows[cell]):
                found.append(("low_C", self.lows[cell][most]))
            if spend > float(asked.high_C[arms].sum()) + slack:
                found.append(("cap", cell))
        for place, arm in enumerate(elastic.alone):
            if slack < plan.alone_A[place] < asked.gate_C[arm] - slack:
                found.append(("gate_C", int(arm)))
        short_F = elastic.short(plan.alone_A / unit)
        found += [("floor_F", int(place)) for place in np.flatnonzero(short_F > BROKEN)]
        columns = [self.place[one][0] for one in found if one in self.place and not self._in(chosen, *one)]
        if columns:
            self.program.row([(column, 1.0) for column in columns], low=1.0)
        return bool(columns)

    def _in(self, chosen: Kept, kind: str, index: int) -> bool:
        if kind == "cap":
            return bool(chosen.high_C[self.members[index]].all())
        return bool(getattr(chosen, kind)[index])


def _sums(rows: Rows, elastic: Elastic, plan: Nearest) -> Array:
    """Spend by cell."""
    cells = rows.in_cell_KM.shape[1]
    sums_M = np.zeros(cells)
    np.add.at(sums_M, elastic.cell_U, plan.unit_U)
    np.add.at(sums_M, rows.cell_C[elastic.alone], plan.alone_A)
    return sums_M


@dataclass(frozen=True)
class Repair:
    """Limits to change: ("row", "arm", "gate" or "floor", its index, the upper side) and the new value."""

    changes: dict[tuple[str, int, bool], float]
    money: dict[
        tuple[str, int, bool], float
    ]  # by how much each gives way; of a ROAS floor the spend it leaves uncovered
    distance: float  # weighted, see ``elastic``
    nearest: bool  # proved


def nearest(asked: Asked, elastic: Elastic, until: float) -> Repair | None:
    """The repair at the least weighted money (``elastic``) after which all limits can be kept; all kinds at once.

    Where arms of the same groups share a change, each takes part by what it has.
    """
    every = asked.every
    none = Kept(**{name: np.zeros_like(flags) for name, flags in vars(every).items()})
    plan = elastic.solve(none, until)
    if not plan.fits:
        return None
    rows, slack = asked.rows, BROKEN * elastic.money
    changes: dict[tuple[str, int, bool], float] = {}
    money: dict[tuple[str, int, bool], float] = {}

    def change(what: str, index: Any, old: float, new: float, *, upper: bool = False) -> None:
        key = what, int(index), upper
        changes[key], money[key] = max(float(new), 0.0), abs(float(new) - float(old))

    total_K = rows.in_cell_KM @ _sums(rows, elastic, plan)
    for row in np.flatnonzero(total_K > rows.high_K + slack):
        change("row", row, rows.high_K[row], total_K[row], upper=True)
    for row in np.flatnonzero(total_K < rows.low_K - slack):
        change("row", row, rows.low_K[row], total_K[row])
    for u, spend in enumerate(plan.unit_U):
        arms = np.flatnonzero(elastic.unit_C == u)
        for held_C, upper in ((asked.low_C, False), (asked.high_C, True)):
            held = float(held_C[arms].sum())
            if spend > held + slack if upper else spend < held - slack:
                share = held_C[arms] / held if held > 0 else np.full(arms.size, 1 / arms.size)
                for arm, part in zip(arms, share, strict=True):
                    if part > 0:
                        change("arm", arm, held_C[arm], held_C[arm] + part * (spend - held), upper=upper)
    for arm, spend in zip(elastic.alone, plan.alone_A, strict=True):
        if spend < asked.low_C[arm] - slack:
            change("arm", arm, asked.low_C[arm], spend)
        if spend > asked.high_C[arm] + slack:
            change("arm", arm, asked.high_C[arm], spend, upper=True)
        if slack < spend < asked.gate_C[arm] - slack:
            change("gate", arm, asked.gate_C[arm], spend)
    spend_C = np.zeros(asked.low_C.size)
    spend_C[elastic.alone] = plan.alone_A
    for place, short in enumerate(elastic.short(plan.alone_A / elastic.money)):
        floor = asked.floors[place]
        spend = float(spend_C[floor.arms].sum())
        if short > BROKEN and spend > 0:
            level = floor.roas * (1.0 - short * elastic.money / spend)
            change("floor", place, floor.roas, level * (1.0 - asked.close))
            money["floor", place, False] = float(short * elastic.money)
    return Repair(changes, money, plan.distance, plan.proved) if changes else None

"""The plan that breaks the limits least: one linear or mixed-integer program (HiGHS) over every kind of limit.

How far a plan x breaks a limit is money, and the distance of a plan is the weighted sum of it:

* the budget, spending all of it, groups and arms: by how much the sum passes the limit, ``(sum - most)+`` and
  ``(least - sum)+``;
* an arm that runs at nothing or at least its gate: ``(gate - x)+`` where ``x > 0``;
* a ROAS floor R: the spend that its sales leave uncovered, ``(spend - sales / R)+``.

Weights are 1 but for what settles ties (``WEIGHTS``): lowering a floor is preferred to raising a cap, and that to more
budget. Two are not 1: an arm that is out of stock counts ``FIRM`` times, since no decision brings the goods; and ROAS
floors count a share each, one over the number of floors that an arm can stand in, so that asking less return is never
dearer than giving up the spend.

Limits may be *hard*; then the program also says whether those can be kept at all. Arms that stand in the same groups,
without curve or gate in question, are one column (a *unit*): a million arms make a small program. Arms under a ROAS
floor bring their curves: tangents above the concave parts, chords above the convex ones with a switch for each, more of
both where the answer stands, until what they overstate is rounding.

Source: elastic programming and minimal intractable sets, Chinneck, Feasibility and Infeasibility in Optimization (2008).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic

import highspy
import numpy as np
from scipy import sparse

from campaigns.domain.curves import HILL, PIECEWISE, Curves
from campaigns.domain.interior import Floor, Rows
from rmn.lib.arrays import Array, BoolArray

WEIGHTS = {"sum_low": 1.0, "low": 1.0001, "gate": 1.0002, "high": 1.0003, "sum_high": 1.0004, "budget": 1.0005}
FIRM = 100.0
FINE = 1e3  # the program counts in thousandths of the money asked for
BROKEN = 1e-7  # of such a unit, 1e-10 of the money: less is rounding
CURVED = 1e-5  # of such a unit, 1e-8 of the money: what curves may be overstated by
CORNERS = 40  # of a concave piecewise curve: beyond, it is touched as a smooth one is
ROUNDS = 40
OPTIONS = {
    "output_flag": False,
    "threads": 1,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": 1e-8,
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
    "mip_feasibility_tolerance": 1e-9,
}


@dataclass(frozen=True)
class Kept:
    """Which limits are asked for."""

    low_C: BoolArray
    high_C: BoolArray
    gate_C: BoolArray
    low_K: BoolArray
    high_K: BoolArray
    floor_F: BoolArray

    @property
    def count(self) -> int:
        return sum(int(flags.sum()) for flags in vars(self).values())

    def copy(self) -> Kept:
        return Kept(**{name: flags.copy() for name, flags in vars(self).items()})


@dataclass(frozen=True)
class Asked:
    """All limits of a problem."""

    rows: Rows
    low_C: Array
    high_C: Array  # infinite where nothing but the budget caps the arm
    gate_C: Array  # nothing or at least this; 0 where there is none, or where the arm has to run anyway
    firm_C: BoolArray  # cannot be bought: its cap of 0 is no decision
    floors: tuple[Floor, ...] = ()
    curves: Curves | None = None  # what ROAS floors speak of
    close: float = 1e-7  # of a ROAS floor: how far below the highest a repair stays

    @property
    def every(self) -> Kept:
        return Kept(
            self.low_C > 0,
            np.isfinite(self.high_C),
            self.gate_C > 0,
            np.isfinite(self.rows.low_K),
            np.isfinite(self.rows.high_K),
            np.ones(len(self.floors), bool),
        )


@dataclass(frozen=True)
class Nearest:
    """A plan that keeps the hard limits and is nearest to all others, in units and in arms that stand alone."""

    fits: bool | None  # whether the hard limits can be kept; None: time ran out before that was known
    unit_U: Array = field(default_factory=lambda: np.zeros(0))  # money
    alone_A: Array = field(default_factory=lambda: np.zeros(0))  # money
    distance: float = 0.0  # weighted money, of the plan itself
    proved: bool = False  # that none is nearer


class Program:
    """Columns and rows of a mixed-integer program while it is written down."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.whole: list[bool] = []
        self.sides: list[tuple[float, float]] = []
        self.entries: list[tuple[int, int, float]] = []

    def column(self, low: float, high: float, cost: float = 0.0, *, whole: bool = False) -> int:
        self.cost.append(cost)
        self.low.append(low)
        self.high.append(high)
        self.whole.append(whole)
        return len(self.cost) - 1

    def row(self, parts: Iterable[tuple[int, float]], low: float = -np.inf, high: float = np.inf) -> None:
        place = len(self.sides)
        self.entries += [(place, column, value) for column, value in parts]
        self.sides.append((low, high))

    def solve(self, until: float) -> tuple[bool | None, Array, bool]:
        """Whether there is a solution, the best found, and whether it is proved to be the best."""
        whole = np.array(self.whole, bool)
        found, x, best = self._solve(np.array(self.low), np.array(self.high), whole, until)
        if found and whole.any():  # once more with the switches exactly where they are
            at = np.round(x)
            fixed = np.where(whole, at, self.low), np.where(whole, at, self.high)
            settled, exact, _ = self._solve(*fixed, np.zeros_like(whole), np.inf)
            x = exact if settled else x
        return found, x, best

    def _solve(self, low: Array, high: Array, whole: BoolArray, until: float) -> tuple[bool | None, Array, bool]:
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = low.size, len(self.sides)
        model.col_cost_, model.col_lower_, model.col_upper_ = np.array(self.cost), low, high
        sides = np.array(self.sides).reshape(-1, 2)
        model.row_lower_, model.row_upper_ = sides[:, 0], sides[:, 1]
        row, column, value = (
            (np.array(v) for v in zip(*self.entries, strict=True)) if self.entries else (np.zeros(0),) * 3
        )
        matrix = sparse.csr_matrix((value, (row, column)), shape=(len(sides), low.size))
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_, model.a_matrix_.index_, model.a_matrix_.value_ = (
            matrix.indptr,
            matrix.indices,
            matrix.data,
        )
        if whole.any():
            kinds = highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger
            model.integrality_ = [kinds[int(one)] for one in whole]
        solver = highspy.Highs()  # type: ignore[no-untyped-call]
        for name, setting in OPTIONS.items():
            solver.setOptionValue(name, setting)
        if np.isfinite(until):
            solver.setOptionValue("time_limit", max(until - monotonic(), 0.05))
        solver.passModel(model)
        solver.run()
        status, solution = solver.getModelStatus(), solver.getSolution()
        if status == highspy.HighsModelStatus.kOptimal:
            return True, np.array(solution.col_value), True
        if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
            return False, np.zeros(0), False
        if whole.any() and solver.getInfo().primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
            return True, np.array(solution.col_value), False
        return None, np.zeros(0), False


@dataclass
class _Run:
    """A stretch of a curve, in units of the program: concave under its lines, or convex under one chord."""

    low: float
    high: float
    convex: bool
    lines: list[tuple[float, float]]  # sales <= start + slope * spend
    at: list[float]  # where the lines touch


class Elastic:
    """All limits as one program, to be solved with any part of them hard."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        rows, size = asked.rows, asked.low_C.size
        under_C = np.zeros(size, bool)
        stands_C = np.zeros(size)
        for floor in asked.floors:
            under_C[floor.arms] = True
            stands_C[floor.arms] += 1
        self.floor_weight = 1.0 / max(float(stands_C.max(initial=0.0)), 1.0)
        self.under_C = under_C
        self.alone = np.flatnonzero(under_C | (asked.gate_C > 0) | (asked.low_C > asked.high_C))
        rest = np.setdiff1d(np.arange(size), self.alone)
        keys, unit_R = np.unique(2 * rows.cell_C[rest] + asked.firm_C[rest], return_inverse=True)
        self.unit_C = np.full(size, -1)
        self.unit_C[rest] = unit_R
        self.cell_U, self.firm_U = keys // 2, keys % 2 == 1
        reach = float(asked.low_C.sum() + asked.gate_C.sum() + rows.low_K[np.isfinite(rows.low_K)].sum())
        if asked.floors and np.isfinite(rows.high_K[0]):
            reach += float(rows.high_K[0])  # nobody needs to spend more
        self.money = max(reach, 1e-300) / FINE
        self.runs = {int(arm): self._runs(int(arm)) for arm in np.flatnonzero(under_C)}

    # -- curves

    def _sales(self, arm: int, x: Array) -> tuple[Array, Array]:
        curves = self.asked.curves
        assert curves is not None  # noqa: S101  # floors come with curves
        one = curves.take(np.full(x.size, arm))
        return one.value(x * self.money) / self.money, one.slope(x * self.money)

    def _runs(self, arm: int) -> list[_Run]:
        curves = self.asked.curves
        assert curves is not None  # noqa: S101
        kind, n = int(curves.kind_C[arm]), float(curves.exponent_C[arm])
        if kind == PIECEWISE:
            points = curves.points[arm] / self.money
            ends = np.append(points[:, 0], max(FINE, points[-1, 0] + 1.0))
            value = np.append(points[:, 1], points[-1, 1])
            slope = np.diff(value) / np.diff(ends)
            lines = [(float(v - m * x), float(m)) for x, v, m in zip(ends, value, slope)]
            if bool(curves.take(np.array([arm])).concave_C[0]):
                if len(lines) > CORNERS:
                    return [self._smooth(arm, 0.0)]
                return [_Run(0.0, float(ends[-1]), convex=False, lines=lines, at=[])]
            return [
                _Run(float(low), float(high), convex=True, lines=[line], at=[])
                for (low, high), line in zip(itertools.pairwise(ends), lines, strict=True)
                if low < FINE
            ]
        found, bend = [], 0.0
        if kind == HILL and n > 1:
            bend = float(curves.half_C[arm]) / self.money * ((n - 1) / (n + 1)) ** (1 / n)
            ends = np.linspace(0.0, min(bend, FINE), 5)
            found = [self._chord(arm, low, high) for low, high in itertools.pairwise(ends)]
        if bend < FINE:
            found.append(self._smooth(arm, bend))
        return found

    def _smooth(self, arm: int, low: float) -> _Run:
        """A concave stretch, to be touched where answers stand."""
        run = _Run(low, FINE, convex=False, lines=[], at=[])
        self._touch(arm, run, [low + share * (FINE - low) for share in (0, *np.geomspace(1e-5, 1, 12))])
        return run

    def _chord(self, arm: int, low: float, high: float) -> _Run:
        (before, after), _ = self._sales(arm, np.array([low, high]))
        slope = (after - before) / (high - low)
        return _Run(low, high, convex=True, lines=[(float(before - slope * low), float(slope))], at=[])

    def _touch(self, arm: int, run: _Run, points: Iterable[float]) -> None:
        x = np.clip(np.array(list(points), float), run.low, run.high)
        x = x[~np.isin(x, run.at)]
        value, slope = self._sales(arm, x)
        fair = np.isfinite(slope)  # a power curve at nothing has no tangent
        run.lines += [(float(v - m * t), float(m)) for t, v, m in zip(x[fair], value[fair], slope[fair], strict=True)]
        run.at += [float(t) for t in x[fair]]

    def _refine(self, arm: int, spent: list[float]) -> None:
        """Tangents at the answer and towards its neighbours; a convex stretch in two where the answer stands."""
        found: list[_Run] = []
        for run, x in zip(self.runs[arm], spent, strict=True):
            if x <= 0:
                found.append(run)
            elif not run.convex:
                before = max((t for t in run.at if t < x), default=x)
                after = min((t for t in run.at if t > x), default=x)
                self._touch(
                    arm, run, [x, *(x + share * (end - x) for end in (before, after) for share in (1 / 3, 2 / 3))]
                )
                found.append(run)
            elif run.low < x < run.high and int(self.asked.curves.kind_C[arm]) == HILL:  # type: ignore[union-attr]
                room = 0.05 * (run.high - run.low)
                middle = min(max(x, run.low + room), run.high - room)
                found += [self._chord(arm, run.low, middle), self._chord(arm, middle, run.high)]
            else:
                found.append(run)
        self.runs[arm] = found

    # -- the program

    def solve(self, hard: Kept, until: float, *, soft: bool = True) -> Nearest:
        """The plan nearest to all limits that keeps the hard ones; with ``soft`` off the others are not looked at."""
        last: Nearest | None = None
        for _ in range(ROUNDS):
            program = Program()
            units, alone, uncovered = self._write(program, hard, soft)
            fits, x, best = program.solve(until)
            if not fits:
                return last if fits is None and last is not None else Nearest(fits)
            spent = [[float(x[run[0]]) for run in runs] for runs in alone]
            total = np.array([sum(parts) for parts in spent])
            over = 0.0  # how much more the lines say than the curves
            for arm, runs, parts, whole in zip(self.alone, alone, spent, total, strict=True):
                if not self.under_C[arm]:
                    continue
                told = sum(float(x[run[1]]) for run in runs)
                if told > float(self._sales(int(arm), np.array([whole]))[0][0]) + 0.01 * CURVED / self.alone.size:
                    self._refine(int(arm), parts)
            short_F = self.short(total)
            for place, column in enumerate(uncovered):
                if column is not None:
                    over = max(over, float(short_F[place]) - (float(x[column]) if column >= 0 else 0.0))
            kept = over <= CURVED
            last = Nearest(
                True if kept or not hard.floor_F.any() else None,
                x[units] * self.money,
                np.maximum(total, 0.0) * self.money,
                (float(np.dot(program.cost, x)) + self.floor_weight * max(over, 0.0)) * self.money,
                proved=best and kept,
            )
            if kept or monotonic() > until:
                break
        assert last is not None  # noqa: S101
        return last

    def short(self, alone_A: Array) -> Array:
        """Spend that each ROAS floor's sales leave uncovered, in units of the program."""
        if not self.asked.floors:
            return np.zeros(0)
        spend_C = np.zeros(self.asked.low_C.size)
        spend_C[self.alone] = alone_A
        assert self.asked.curves is not None  # noqa: S101
        sales_C = self.asked.curves.value(spend_C * self.money) / self.money
        return np.array([float((spend_C - sales_C / floor.roas)[floor.arms].sum()) for floor in self.asked.floors])

    def _write(
        self, program: Program, hard: Kept, soft: bool
    ) -> tuple[list[int], list[list[tuple[int, int]]], list[int | None]]:
        """The columns of units, of the arms' stretches (spend, sales) and of the floors (-1: hard; None: not asked)."""
        asked, rows, unit = self.asked, self.asked.rows, self.money
        inside: list[list[int]] = [[] for _ in range(rows.in_cell_KM.shape[1])]

        def bound(columns: list[int], limit: float, weight: float, *, upper: bool, firmly: bool) -> None:
            """The columns' sum within the limit: in any case, or at a price."""
            parts = [(column, 1.0) for column in columns]
            if not firmly:
                if not soft:
                    return
                parts.append((program.column(0.0, np.inf, weight), -1.0 if upper else 1.0))
            program.row(parts, *((-np.inf, limit) if upper else (limit, np.inf)))

        units = []
        member = self.unit_C >= 0
        at, size = self.unit_C[member], self.cell_U.size

        def sums(values: Array) -> Array:
            return np.bincount(at, weights=values[member], minlength=size) / unit

        low_U, low_hard_U = sums(asked.low_C), sums(np.where(hard.low_C, asked.low_C, 0.0))
        high_U, high_hard_U = sums(asked.high_C), sums(np.where(hard.high_C, asked.high_C, np.inf))
        for u in range(size):
            units.append(
                program.column(float(low_hard_U[u]), max(float(low_hard_U[u]), min(float(high_hard_U[u]), FINE)))
            )
            inside[self.cell_U[u]].append(units[-1])
            if low_U[u] > low_hard_U[u]:
                bound(units[-1:], float(low_U[u]), WEIGHTS["low"], upper=False, firmly=False)
            if high_U[u] < min(float(high_hard_U[u]), FINE):
                bound(
                    units[-1:], float(high_U[u]), FIRM if self.firm_U[u] else WEIGHTS["high"], upper=True, firmly=False
                )
        alone, sales = [], {}
        for arm in map(int, self.alone):
            low, high, gate = (float(v[arm]) / unit for v in (asked.low_C, asked.high_C, asked.gate_C))
            runs, switches = [], []
            stretches = self.runs.get(arm) or [_Run(0.0, FINE, convex=False, lines=[], at=[])]
            for run in stretches:
                spend = program.column(0.0, run.high)
                switch = None
                if gate > 0 or len(stretches) > 1:
                    switch = program.column(0.0, 1.0, whole=True)
                    switches.append(switch)
                    program.row([(spend, 1.0), (switch, -run.high)], high=0.0)
                    if run.low > 0:
                        program.row([(spend, 1.0), (switch, -run.low)], low=0.0)
                sold = -1
                if run.lines:
                    sold = program.column(-np.inf, np.inf)
                    for start, slope in run.lines:
                        if switch is None:
                            program.row([(sold, 1.0), (spend, -slope)], high=start)
                        else:
                            program.row([(sold, 1.0), (spend, -slope), (switch, -start)], high=0.0)
                runs.append((spend, sold))
            spends = [spend for spend, _ in runs]
            if len(switches) > 1:
                program.row([(switch, 1.0) for switch in switches], high=1.0)
            if low > 0:
                bound(spends, low, WEIGHTS["low"], upper=False, firmly=bool(hard.low_C[arm]))
            if high < FINE:
                weight = FIRM if asked.firm_C[arm] else WEIGHTS["high"]
                bound(spends, high, weight, upper=True, firmly=bool(hard.high_C[arm]))
            if gate > 0 and (soft or hard.gate_C[arm]):
                parts = [(spend, 1.0) for spend in spends] + [(switch, -gate) for switch in switches]
                if not hard.gate_C[arm]:
                    parts.append((program.column(0.0, np.inf, WEIGHTS["gate"]), 1.0))
                program.row(parts, low=0.0)
            inside[rows.cell_C[arm]] += spends
            alone.append(runs)
            sales[arm] = runs
        for row in range(rows.low_K.size):
            columns = [c for cell in np.flatnonzero(rows.in_cell_KM[row]) for c in inside[cell]]
            least, most = float(rows.low_K[row]) / unit, float(rows.high_K[row]) / unit
            if np.isfinite(most):
                weight = WEIGHTS["sum_high" if row else "budget"]
                bound(columns, most, weight, upper=True, firmly=bool(hard.high_K[row]))
            if np.isfinite(least):
                bound(columns, least, WEIGHTS["sum_low"], upper=False, firmly=bool(hard.low_K[row]))
        uncovered: list[int | None] = []
        for place, floor in enumerate(asked.floors):
            if not (soft or hard.floor_F[place]):
                uncovered.append(None)
                continue
            parts = [(spend, 1.0) for arm in floor.arms for spend, _ in sales[int(arm)]]
            parts += [(sold, -1.0 / floor.roas) for arm in floor.arms for _, sold in sales[int(arm)]]
            uncovered.append(-1)
            if not hard.floor_F[place]:
                column = uncovered[-1] = program.column(0.0, np.inf, self.floor_weight)
                parts.append((column, -1.0))
            program.row(parts, high=0.0)
        return units, alone, uncovered

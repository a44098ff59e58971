"""Many limits at once over concave pieces: a structured interior point with a certificate of its own.

Limits that sum spend over groups, and ROAS floors (sales of a group at least R times its spend),
over a million pieces. Pieces whose arms stand in the same groups form a *cell*: sums over groups
are sums over cells, so a Newton step costs a few passes over the pieces and one small system of
the size of the limits (Woodbury's identity on diagonal plus low rank).

The answer does not rest on the method's own stopping rule. The multipliers y it ends with give the
bound ``max_x sum(w f(x)) - y (A x - b)``, computed exactly piece by piece, for any y of the right
sign; the plan is then made feasible to rounding and valued. Bound and value are compared.

Source: Boyd and Vandenberghe, Convex Optimization, section 11.7; Mehrotra (1992) for the
predictor-corrector.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from campaigns.domain.curves import LINEAR, Pieces
from rmn.lib.arrays import Array, IntArray

STEPS = 80
TINY = 1e-300


@dataclass(frozen=True)
class Rows:
    """Limits on sums of spend, ``low <= sum <= high``; infinite where there is none.

    The first row is the budget.
    """

    cell_C: IntArray  # which cell each arm belongs to
    in_cell_KM: Array  # 1 where a cell's arms count in a row; K rows, M cells
    low_K: Array
    high_K: Array


@dataclass(frozen=True)
class Floor:
    """Sales of some arms at least ``roas`` times their spend."""

    arms: IntArray
    roas: float


@dataclass(frozen=True)
class Solved:
    """The best split found, and why there can be none much better."""

    x_E: Array
    bound: float  # including the arms' base values
    price_K: Array  # gain from raising each row's binding limit by one unit
    floor_price_F: Array  # gain from each unit that a floor asks less: sales at the floor's price
    miss: float  # how far the worst limit is broken, relative to the budget
    floor_miss: float
    steps: int
    impossible: bool = False  # its multipliers prove that no split keeps all limits


def cells_of(size: int, groups: Sequence[IntArray]) -> tuple[IntArray, Array]:
    """Arms by the set of groups they stand in: each arm's cell, and which row counts which cell.

    Row 0 (the budget) counts every cell.
    """
    if not groups:
        return np.zeros(size, np.int64), np.ones((1, 1))
    keys = np.random.default_rng(0).integers(1, 2**63, len(groups), dtype=np.uint64)
    mark_C = np.zeros(size, np.uint64)
    for key, arms in zip(keys, groups, strict=True):
        mark_C[arms] ^= key
    _, first, cell_C = np.unique(mark_C, return_index=True, return_inverse=True)
    in_cell_KM = np.ones((len(groups) + 1, first.size))
    for row, arms in enumerate(groups, 1):
        counts = np.bincount(cell_C[arms], minlength=first.size)
        in_cell_KM[row] = counts > 0
    return cell_C.astype(np.int64), in_cell_KM


class _System:
    """The limits as seen from the pieces, with the sums they need."""

    def __init__(
        self, pieces: Pieces, weight_E: Array, rows: Rows, floors: Sequence[Floor], curves_base_C: Array
    ) -> None:
        self.pieces, self.weight_E, self.rows = pieces, weight_E, rows
        self.cell_E = rows.cell_C if pieces.straight else rows.cell_C[pieces.arm_E]
        self.cells = rows.in_cell_KM.shape[1]
        self.width_E = pieces.high_E - pieces.low_E
        self.base_K = rows.in_cell_KM @ np.bincount(rows.cell_C, weights=pieces.base_C, minlength=self.cells)
        self.equal_K = rows.low_K == rows.high_K
        self.in_floor_FE = np.zeros((len(floors), pieces.size))
        self.roas_F = np.array([floor.roas for floor in floors])
        self.floor_base_F = np.zeros(len(floors))
        for place, floor in enumerate(floors):
            member_C = np.zeros(pieces.base_C.size)
            member_C[floor.arms] = 1.0
            self.in_floor_FE[place] = member_C[pieces.arm_E]
            self.floor_base_F[place] = float(member_C @ (curves_base_C - floor.roas * pieces.base_C))

    def sums(self, v_E: Array) -> Array:
        if self.cells == 1:
            return self.rows.in_cell_KM[:, 0] * float(v_E.sum())
        return self.rows.in_cell_KM @ np.bincount(self.cell_E, weights=v_E, minlength=self.cells)

    def spread(self, y_K: Array) -> Array:
        per_cell = y_K @ self.rows.in_cell_KM
        return np.full(self.pieces.size, per_cell[0]) if self.cells == 1 else per_cell[self.cell_E]

    def gram(self, g_E: Array) -> Array:
        per_cell = np.bincount(self.cell_E, weights=g_E, minlength=self.cells)
        return (self.rows.in_cell_KM * per_cell) @ self.rows.in_cell_KM.T

    def totals(self, d_E: Array) -> Array:
        return self.sums(d_E) + self.base_K

    def weights(self, nu_F: Array) -> Array:
        return self.weight_E + nu_F @ self.in_floor_FE if nu_F.size else self.weight_E

    def prices(self, y_K: Array, nu_F: Array) -> Array:
        q_E = self.spread(y_K)
        return q_E + (nu_F * self.roas_F) @ self.in_floor_FE if nu_F.size else q_E

    def floors(self, d_E: Array) -> Array:
        if not self.roas_F.size:
            return self.roas_F
        sales_E = self.pieces.value(self.pieces.low_E + d_E) - self.pieces.low_value_E
        return self.floor_base_F + self.in_floor_FE @ sales_E - self.roas_F * (self.in_floor_FE @ d_E)

    def signed(self, y_K: Array) -> Array:
        """Multipliers with the sign their row allows."""
        y_K = np.where(np.isinf(self.rows.high_K), np.minimum(y_K, 0.0), y_K)
        return np.where(np.isinf(self.rows.low_K), np.maximum(y_K, 0.0), y_K)

    def best(self, y_K: Array, nu_F: Array) -> Array:
        """What each piece takes at the limits' prices."""
        weight_E = self.weights(nu_F)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            price_E = np.where(weight_E > 0, self.prices(y_K, nu_F) / np.maximum(weight_E, TINY), np.inf)
        return self.pieces.respond(np.clip(price_E, 1e-290, 1e290))

    def rules_out(self, y_K: Array, nu_F: Array) -> bool:
        """Whether multipliers prove that no plan keeps the limits: their sum, weighed so, is missed everywhere."""
        nothing = copy(self)
        nothing.weight_E = np.zeros_like(self.weight_E)
        sales_E = self.pieces.value(self.pieces.high_E) - self.pieces.low_value_E
        size = float(np.maximum(nu_F, 0.0) @ (np.abs(self.floor_base_F) + self.in_floor_FE @ sales_E))
        return size > 0 and np.isfinite(size) and nothing.bound(y_K, nu_F) < -1e-9 * size

    def bound(self, y_K: Array, nu_F: Array) -> float:
        """No plan within the limits is worth more: the Lagrangian's maximum over the bounds."""
        y_K, nu_F = self.signed(y_K), np.maximum(nu_F, 0.0)
        x_E = self.best(y_K, nu_F)
        gain_E = self.weights(nu_F) * (self.pieces.value(x_E) - self.pieces.low_value_E)
        gain_E -= self.prices(y_K, nu_F) * (x_E - self.pieces.low_E)
        limit_K = np.where(y_K > 0, self.rows.high_K, self.rows.low_K) - self.base_K
        priced = float(np.sum(np.where(y_K != 0, y_K * np.where(y_K != 0, limit_K, 0.0), 0.0)))
        return float(gain_E.sum()) + priced + float(nu_F @ self.floor_base_F)


def solve(
    pieces: Pieces,
    weight_E: Array | None,
    rows: Rows,
    floors: Sequence[Floor] = (),
    base_sales_C: Array | None = None,
    start_E: Array | None = None,
) -> Solved:
    """Split spend over pieces within all limits so that weighted value is highest.

    Args:
        pieces: concave pieces whose values are sales.
        weight_E: what a unit of sales of each piece is worth in the objective; None for 1.
        rows: limits on sums of spend.
        floors: ROAS floors.
        base_sales_C: sales at each arm's low end (needed with floors).
        start_E: spends to start near.

    Returns:
        A split, its bound without the base values' weights, prices, and what it misses. A miss
        above 1e-9 means that no feasible split was found: the limits may contradict each other.
    """
    ones = np.ones(pieces.size) if weight_E is None else weight_E
    base_C = pieces.base_value_C if base_sales_C is None else base_sales_C
    system = _System(pieces, ones, rows, floors, base_C)
    if pieces.size == 0:
        none = np.zeros(0)
        return _finish(system, none, np.zeros(rows.low_K.size), np.zeros(len(floors)), 0)
    walk = _Walk(system, start_E)
    steps = walk.run()
    d_E, y_K, nu_F = walk.at.d_E, walk.at.y_K, walk.at.nu_F
    if not floors:
        sharp = _sharpen(system, d_E, y_K)
        if sharp is not None:
            d_E, y_K = sharp
    return _finish(system, d_E, y_K, nu_F, steps)


def _finish(system: _System, d_E: Array, y_K: Array, nu_F: Array, steps: int) -> Solved:
    d_E = _repair(system, d_E)
    totals_K = system.totals(d_E)
    scale = max(float(np.max(np.abs(system.rows.high_K[np.isfinite(system.rows.high_K)]), initial=0.0)), TINY)
    over = np.maximum(totals_K - system.rows.high_K, system.rows.low_K - totals_K)
    floor_F = system.floors(d_E)
    size_F = (
        system.roas_F * (system.in_floor_FE @ d_E) + np.abs(system.floor_base_F) + TINY if floor_F.size else floor_F
    )
    floor_miss = float(np.max(-floor_F / size_F, initial=0.0)) if floor_F.size else 0.0
    return Solved(
        x_E=system.pieces.low_E + d_E,
        bound=system.bound(y_K, nu_F),
        price_K=system.signed(y_K),
        floor_price_F=np.maximum(nu_F, 0.0),
        miss=max(float(np.max(over, initial=0.0)) / scale, 0.0),
        floor_miss=floor_miss,
        steps=steps,
        impossible=floor_miss > 1e-9
        and (system.rules_out(y_K, nu_F) or system.rules_out(0 * y_K, (floor_F < 0).astype(float))),
    )


def _start(system: _System, start_E: Array | None) -> Array:
    """A point inside the bounds, near the given one."""
    pieces, width_E = system.pieces, system.width_E
    near = pieces.low_E + 0.5 * width_E if start_E is None else start_E
    # near the low ends of all there would be no room to walk
    budget = float(system.rows.high_K[0]) if np.isfinite(system.rows.high_K[0]) else float(width_E.sum())
    room = min(float(np.mean(width_E)), max(budget, TINY) / pieces.size)
    typical = max(float(np.mean(near - pieces.low_E)), 1e-3 * room, TINY)
    margin_E = np.minimum(0.2 * width_E, 0.1 * typical)
    return np.clip(near - pieces.low_E, margin_E, width_E - margin_E)


@dataclass
class _Step:
    """A direction in all unknowns of the walk."""

    d_E: Array
    zl_E: Array
    zu_E: Array
    y_K: Array
    s_K: Array
    wl_K: Array
    wu_K: Array
    nu_F: Array
    t_F: Array


class _Walk:
    """Mehrotra's predictor-corrector on the perturbed optimality conditions.

    Unknowns: d spends above the low ends with multipliers zl, zu of their bounds; s the rows' sums
    with multipliers wl, wu of their sides and price y; t what each floor has to spare, price nu.
    """

    def __init__(self, system: _System, start_E: Array | None) -> None:
        self.system = system
        rows, pieces = system.rows, system.pieces
        self.low_K, self.high_K, equal_K = rows.low_K, rows.high_K, system.equal_K
        self.has_low = np.isfinite(self.low_K) & ~equal_K
        self.has_high = np.isfinite(self.high_K) & ~equal_K
        self.loose = ~(self.has_low | self.has_high) & ~equal_K  # rows that limit nothing
        self.flat = equal_K | self.loose
        d_E = _start(system, start_E)
        totals_K = system.totals(d_E)
        largest = float(np.abs(totals_K).max())
        span_K = np.where(
            self.has_low & self.has_high, self.high_K - self.low_K, np.maximum(np.abs(totals_K), 1e-6 * largest)
        )
        pad_K = 0.1 * span_K + TINY
        s_K = np.where(self.has_low, np.maximum(totals_K, self.low_K + pad_K), totals_K)
        s_K = np.where(self.has_high, np.minimum(s_K, self.high_K - pad_K), s_K)
        s_K = np.where(equal_K, self.low_K, s_K)
        slope_E = pieces.slope(pieces.low_E + d_E) * system.weight_E
        finite = slope_E[np.isfinite(slope_E)]
        price = max(float(np.median(finite)), 1e-12 * float(finite.max()), TINY) if finite.size else 1.0
        mu = 0.1 * price * max(float(np.mean(np.minimum(d_E, system.width_E - d_E))), TINY)
        wl_K = np.where(self.has_low, mu / np.where(self.has_low, s_K - self.low_K, 1.0), 0.0)
        wu_K = np.where(self.has_high, mu / np.where(self.has_high, self.high_K - s_K, 1.0), 0.0)
        h_F = system.floors(d_E)
        t_F = np.maximum(h_F, 0.05 * np.abs(h_F) + 1e-3 * price * max(float(d_E.sum()), TINY))
        self.at = _Step(d_E, mu / d_E, mu / (system.width_E - d_E), wu_K - wl_K, s_K, wl_K, wu_K, mu / t_F, t_F)
        self.count = 2 * pieces.size + int(self.has_low.sum() + self.has_high.sum()) + t_F.size

    def run(self) -> int:
        """Walk until the conditions hold to rounding, or no step helps; returns the steps taken."""
        for steps in range(1, STEPS + 1):
            self._look()
            if self.arrived or not self._advance():
                return steps
        return STEPS

    def _look(self) -> None:
        """Residuals of the conditions where we stand, and the system of the next directions."""
        system, at = self.system, self.at
        x_E = system.pieces.low_E + at.d_E
        f1_E, f2_E = system.pieces.slope(x_E), system.pieces.curvature(x_E)
        weight_E = system.weights(at.nu_F)
        self.room_E = system.width_E - at.d_E
        self.rd_E = -weight_E * f1_E + system.prices(at.y_K, at.nu_F) - at.zl_E + at.zu_E
        self.rp_K = system.totals(at.d_E) - at.s_K
        self.to_low_K = np.where(self.has_low, at.s_K - self.low_K, 1.0)
        self.to_high_K = np.where(self.has_high, self.high_K - at.s_K, 1.0)
        self.ry_K = np.where(self.flat, 0.0, at.wu_K - at.wl_K - at.y_K)
        self.rh_F = system.floors(at.d_E) - at.t_F
        together = float(at.zl_E @ at.d_E + at.zu_E @ self.room_E + at.wl_K @ self.to_low_K)
        together += float(at.wu_K @ self.to_high_K + at.nu_F @ at.t_F)
        self.mu = together / self.count
        worth = max(float(np.abs(weight_E * f1_E * at.d_E).sum()), TINY)
        off = float(np.max(np.abs(self.rp_K))) / max(float(np.abs(at.s_K).max()), TINY)
        tilt = float(np.abs(self.rd_E * np.minimum(at.d_E, self.room_E)).sum()) / worth
        short = float(np.max(np.abs(self.rh_F), initial=0.0)) / worth
        self.arrived = together <= 1e-11 * worth and off <= 1e-12 and tilt <= 1e-10 and short <= 1e-12
        theta_E = at.zl_E / at.d_E + at.zu_E / self.room_E
        with np.errstate(invalid="ignore"):
            bend_E = np.where(weight_E > 0, -weight_E * f2_E, 0.0)
        g_E = 1.0 / np.maximum(bend_E + theta_E, TINY)
        slack_K = at.wl_K / self.to_low_K + at.wu_K / self.to_high_K
        self.loose_K = np.where(self.flat, 0.0, 1.0 / np.maximum(slack_K, TINY))
        self.loose_K = np.where(self.loose, 1e300, self.loose_K)
        J_FE = system.in_floor_FE
        if at.t_F.size:
            J_FE = J_FE * (f1_E - system.roas_F[:, None])
        self.factor = _Factor(system, g_E, self.loose_K, J_FE, at.t_F / at.nu_F)

    def _direction(self, aim: float, after: _Step | None) -> _Step:
        """The Newton step towards complementarity ``aim``, corrected for the products of ``after``."""
        at, room_E = self.at, self.room_E
        c_l = c_u = c_wl = c_wu = c_t = 0.0
        if after is not None:
            c_l, c_u = after.zl_E * after.d_E, -after.zu_E * after.d_E  # type: ignore[assignment]
            c_wl, c_wu = after.wl_K * after.s_K, -after.wu_K * after.s_K  # type: ignore[assignment]
            c_t = after.nu_F * after.t_F  # type: ignore[assignment]
        to_l, to_u = (aim - c_l) / at.d_E - at.zl_E, (aim - c_u) / room_E - at.zu_E
        to_wl = np.where(self.has_low, (aim - c_wl) / self.to_low_K - at.wl_K, 0.0)
        to_wu = np.where(self.has_high, (aim - c_wu) / self.to_high_K - at.wu_K, 0.0)
        r3_K = np.where(self.flat, 0.0, -self.ry_K - to_wu + to_wl)
        rhs_K = -self.rp_K + np.where(self.flat, 0.0, r3_K * self.loose_K)
        rhs_F = at.t_F + self.rh_F - (aim - c_t) / at.nu_F
        d_E, y_K, nu_F = self.factor.solve(-self.rd_E + to_l - to_u, rhs_K, rhs_F)
        s_K = np.where(self.flat, 0.0, (y_K + r3_K) * self.loose_K)
        return _Step(
            d_E=d_E,
            zl_E=to_l - at.zl_E / at.d_E * d_E,
            zu_E=to_u + at.zu_E / room_E * d_E,
            y_K=y_K,
            s_K=s_K,
            wl_K=np.where(self.has_low, to_wl - at.wl_K / self.to_low_K * s_K, 0.0),
            wu_K=np.where(self.has_high, to_wu + at.wu_K / self.to_high_K * s_K, 0.0),
            nu_F=nu_F,
            t_F=(aim - c_t) / at.nu_F - at.t_F - at.t_F / at.nu_F * nu_F,
        )

    def _longest(self, move: _Step) -> float:
        """How much of a step keeps everything positive."""
        at, low, high = self.at, self.has_low, self.has_high
        worst = max(
            _worst(move.d_E, at.d_E),
            _worst(-move.d_E, self.room_E),
            _worst(move.zl_E, at.zl_E),
            _worst(move.zu_E, at.zu_E),
            _worst(move.s_K[low], self.to_low_K[low]),
            _worst(-move.s_K[high], self.to_high_K[high]),
            _worst(move.wl_K[low], at.wl_K[low]),
            _worst(move.wu_K[high], at.wu_K[high]),
            _worst(move.nu_F, at.nu_F),
            _worst(move.t_F, at.t_F),
        )
        return 1.0 / worst if worst > 0 else np.inf

    def _ahead(self, move: _Step, step: float) -> float:
        """The complementarity that a step would leave."""
        at = self.at
        left = float((at.zl_E + step * move.zl_E) @ (at.d_E + step * move.d_E))
        left += float((at.zu_E + step * move.zu_E) @ (self.room_E - step * move.d_E))
        left += float((at.wl_K + step * move.wl_K) @ (self.to_low_K + step * move.s_K))
        left += float((at.wu_K + step * move.wu_K) @ (self.to_high_K - step * move.s_K))
        return left + float((at.nu_F + step * move.nu_F) @ (at.t_F + step * move.t_F))

    def _advance(self) -> bool:
        """Take one step; False where none can be taken."""
        first = self._direction(0.0, None)
        ahead = self._ahead(first, min(1.0, self._longest(first)))
        sigma = min(max(ahead / self.count / self.mu, 0.0), 1.0) ** 3
        move = self._direction(max(sigma, 1e-8) * self.mu, first)
        step = _shorten(self._longest(move))
        if not step >= 0.1:  # a corrector that leads astray: a plain centring step instead
            other = self._direction(0.5 * self.mu, None)
            if not self._longest(other) <= self._longest(move):
                move, step = other, _shorten(self._longest(other))
        if not np.isfinite(step) or not np.all(np.isfinite(move.y_K)) or step < 1e-9:
            return False
        at = self.at
        self.at = _Step(**{name: getattr(at, name) + step * getattr(move, name) for name in vars(at)})
        # rounding may put a slack onto its bound
        width_E = self.system.width_E
        self.at.d_E = np.clip(self.at.d_E, 1e-18 * width_E, width_E * (1 - 1e-16))
        tiny_K = 1e-16 * np.maximum(np.abs(self.at.s_K), TINY)
        s_K = np.where(self.has_low, np.maximum(self.at.s_K, self.low_K + tiny_K), self.at.s_K)
        self.at.s_K = np.where(self.has_high, np.minimum(s_K, self.high_K - tiny_K), s_K)
        return bool(
            np.all((self.at.s_K > self.low_K) | ~self.has_low) and np.all((self.at.s_K < self.high_K) | ~self.has_high)
        )


def _shorten(longest: float) -> float:
    return 1.0 if longest > 1 / 0.99 else 0.99 * longest


def _worst(move: Array, slack: Array) -> float:
    """The largest share of a slack that one full step would use up."""
    return float(np.max(-move / slack)) if move.size else 0.0


class _Factor:
    """(diag(1/g) bordered by the limits' rows), solved through a system of the limits' size."""

    def __init__(self, system: _System, g_E: Array, loose_K: Array, J_FE: Array, loose_F: Array) -> None:
        self.system, self.g_E, self.J_FE = system, g_E, J_FE
        rows, floors = loose_K.size, loose_F.size
        matrix = np.zeros((rows + floors, rows + floors))
        matrix[:rows, :rows] = system.gram(g_E)
        if floors:
            gJ = J_FE * g_E
            for place in range(floors):
                matrix[:rows, rows + place] = -system.sums(gJ[place])
            matrix[rows:, :rows] = matrix[:rows, rows:].T
            matrix[rows:, rows:] = gJ @ J_FE.T
        matrix[np.diag_indices(rows + floors)] += np.concatenate([loose_K, loose_F])
        # rows of very different size: scale to a unit diagonal before factoring
        self.scale = 1.0 / np.sqrt(np.maximum(np.diag(matrix), TINY))
        self.matrix = matrix * self.scale[:, None] * self.scale[None, :]
        self.rows = rows
        try:
            self.lower: Any = np.linalg.cholesky(self.matrix + 1e-15 * np.eye(len(matrix)))
        except np.linalg.LinAlgError:
            self.lower = None

    def small(self, rhs: Array) -> Array:
        """Solve the small system, with two rounds of refinement."""
        rhs = rhs * self.scale
        if not np.all(np.isfinite(rhs)):
            return np.full(rhs.size, np.nan)

        def once(v: Array) -> Any:
            if self.lower is None:
                return np.linalg.lstsq(self.matrix, v, rcond=1e-15)[0]
            return np.linalg.solve(self.lower.T, np.linalg.solve(self.lower, v))

        result = once(rhs)
        for _ in range(2):
            result = result + once(rhs - self.matrix @ result)
        return np.asarray(result * self.scale)

    def solve(self, r1_E: Array, rhs_K: Array, rhs_F: Array) -> tuple[Array, Array, Array]:
        """dd, dy, dnu with (1/g) dd + A'dy - J'dnu = r1 and the rows' own equations, refined once."""
        system, g_E, rows = self.system, self.g_E, self.rows
        gr_E = g_E * r1_E
        right = np.concatenate([system.sums(gr_E) - rhs_K, -(self.J_FE @ gr_E) - rhs_F])
        dual = self.small(right)
        dy_K, dnu_F = dual[:rows], dual[rows:]
        back_E = system.spread(dy_K)
        if dnu_F.size:
            back_E = back_E - dnu_F @ self.J_FE
        return g_E * (r1_E - back_E), dy_K, dnu_F


def _sharpen(system: _System, d_E: Array, y_K: Array) -> tuple[Array, Array] | None:
    """From near the optimum to rounding: Newton on the few prices whose limits bind.

    Smooth pieces answer the prices exactly; linear pieces that are partly filled keep their slope
    as an equation and their spend as an unknown. None where that does not settle.
    """
    pieces, rows, width_E = system.pieces, system.rows, system.width_E
    totals_K = system.totals(d_E)
    money = max(float(np.abs(totals_K).max()), TINY)
    top = max(float(np.abs(y_K).max()), TINY)
    gap_K = np.minimum(np.abs(rows.high_K - totals_K), np.abs(totals_K - rows.low_K))
    active = np.flatnonzero(system.equal_K | (np.abs(y_K) / top > gap_K / money))
    limit_K = np.where(y_K > 0, rows.high_K, rows.low_K)
    limit_K = np.where(np.isfinite(limit_K), limit_K, np.where(np.isfinite(rows.high_K), rows.high_K, rows.low_K))
    y_K = np.where(np.isin(np.arange(y_K.size), active), y_K, 0.0)
    share_E = d_E / width_E
    part = np.flatnonzero(
        pieces.linear_E
        & (np.minimum(share_E, 1 - share_E) > 1e-6)
        & (np.abs(system.weight_E * pieces.a_E - system.spread(y_K)) < 1e-5 * top)
    )
    if active.size == 0 and part.size == 0:
        return None
    loose_d = d_E[part].copy()
    A_act = rows.in_cell_KM[active]
    border = A_act[:, system.cell_E[part]]
    none = np.zeros(0)
    best_off = np.inf
    for _ in range(12):
        answer_E = system.best(y_K, none) - pieces.low_E
        answer_E[part] = loose_d
        off_A = (system.totals(answer_E) - limit_K)[active]
        tilt_P = system.weight_E[part] * pieces.a_E[part] - system.spread(y_K)[part]
        off = max(float(np.max(np.abs(off_A), initial=0.0)) / money, float(np.max(np.abs(tilt_P), initial=0.0)) / top)
        if off <= 3e-15 or (off >= 0.5 * best_off and off <= 1e-12):
            break
        if off > 1e3 * best_off:
            return None
        best_off = min(best_off, off)
        inner = (answer_E > 0) & (answer_E < width_E) & ~pieces.linear_E
        with np.errstate(divide="ignore", invalid="ignore"):
            bend_E = -system.weight_E * pieces.curvature(pieces.low_E + answer_E)
            give_E = np.where(inner & (bend_E > 0) & np.isfinite(bend_E), 1.0 / bend_E, 0.0)
        gram = system.gram(give_E)[np.ix_(active, active)]
        size = active.size + part.size
        matrix = np.zeros((size, size))
        matrix[: active.size, : active.size] = -gram
        matrix[: active.size, active.size :] = border
        matrix[active.size :, : active.size] = -border.T
        right = np.concatenate([-off_A, -tilt_P])
        scale_r = 1.0 / np.maximum(np.abs(matrix).max(axis=1), 1e-100)
        matrix, right = matrix * scale_r[:, None], right * scale_r
        scale_c = 1.0 / np.maximum(np.abs(matrix).max(axis=0), 1e-100)
        move = np.linalg.lstsq(matrix * scale_c, right, rcond=1e-14)[0] * scale_c
        if not np.all(np.isfinite(move)):
            return None
        y_K = y_K.copy()
        y_K[active] += move[: active.size]
        loose_d = np.clip(loose_d + move[active.size :], 0.0, width_E[part])
    else:
        if best_off > 1e-11:
            return None
    y_K = system.signed(y_K)
    answer_E = system.best(y_K, none) - pieces.low_E
    answer_E[part] = loose_d
    totals_K = system.totals(answer_E)
    over = np.max(np.maximum(totals_K - rows.high_K, rows.low_K - totals_K), initial=0.0)
    return (answer_E, y_K) if over <= 1e-10 * money else None


def onto(rows: Rows, spend_C: Array, low_C: Array, high_C: Array) -> Array | None:
    """The spends moved the least way onto the rows they miss, bounds kept; None where that leaves a miss."""
    arms = np.arange(spend_C.size)
    ones, width_C = np.ones(spend_C.size), high_C - low_C
    pieces = Pieces(arms, np.full(arms.size, LINEAR), ones, ones, ones, low_C, high_C, low_C, 0 * ones, straight=True)
    system = _System(pieces, ones, rows, (), 0 * ones)
    d_C = _repair(system, np.clip(spend_C - low_C, 0.0, width_C))
    total_K = system.totals(d_C)
    money = max(float(np.abs(rows.high_K[np.isfinite(rows.high_K)]).max(initial=0.0)), TINY)
    over = float(np.max(np.maximum(total_K - rows.high_K, rows.low_K - total_K), initial=0.0))
    return low_C + d_C if over <= 1e-9 * money else None


def _repair(system: _System, d_E: Array) -> Array:
    """Move the plan the least way onto the sums it misses (to rounding), bounds kept."""
    rows, width_E = system.rows, system.width_E
    d_E = np.clip(d_E, 0.0, width_E)
    scale = max(float(np.max(np.abs(rows.high_K[np.isfinite(rows.high_K)]), initial=0.0)), TINY)
    for _ in range(12):
        totals_K = system.totals(d_E)
        off_K = np.where(
            totals_K > rows.high_K, rows.high_K - totals_K, np.where(totals_K < rows.low_K, rows.low_K - totals_K, 0.0)
        )
        if float(np.max(np.abs(off_K), initial=0.0)) <= 1e-15 * scale:
            break
        room_E = np.minimum(d_E, width_E - d_E)
        if not room_E.any():
            room_E = width_E
        # rows that hold with equality move as a pair with those that are off
        tight = (off_K != 0) | (
            np.minimum(np.abs(totals_K - rows.high_K), np.abs(totals_K - rows.low_K)) <= 1e-12 * scale
        )
        chosen = np.flatnonzero(tight)
        gram = system.gram(room_E)[np.ix_(chosen, chosen)]
        size = 1.0 / np.sqrt(np.maximum(np.diag(gram), TINY))
        y = np.linalg.lstsq(gram * size[:, None] * size, off_K[chosen] * size, rcond=1e-13)[0] * size
        full = np.zeros(rows.low_K.size)
        full[chosen] = y
        d_E = np.clip(d_E + room_E * system.spread(full), 0.0, width_E)
    return d_E

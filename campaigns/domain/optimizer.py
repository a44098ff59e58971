"""Split a budget over arms, prove how good the split is, and say why.

``allocate`` picks the method and names it: the exact dual where one budget and bounds are all there
is; a structured interior point for groups and ROAS floors; hulls with branch and bound where a curve
is S-shaped or an arm may be switched off; a general convex model (CVXPY) for risk and for weeks with
carry-over. Every answer carries an upper bound that no plan can pass, found apart from the plan.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from campaigns.domain import branch, conflict
from campaigns.domain.branch import Limits, Space
from campaigns.domain.curves import envelope
from campaigns.domain.elastic import FINE, Asked, Elastic, Kept
from campaigns.domain.interior import Floor, Rows, cells_of
from campaigns.domain.problem import ROOM, Problem, read
from campaigns.domain.waterfill import fill
from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput

LEVEL = 0.9  # of every interval
LOWER = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5)  # of ROAS floors: tried where the weekly model keeps no repair
TINY = 1e-300


@dataclass(frozen=True)
class Plan:
    """A plan with its proof. Money in the problem's currency, totals of its period.

    ``gap`` is (upper_bound - objective) / |upper_bound|; no plan within the limits is worth more
    than the upper bound. A price is the gain from raising its limit by one unit.
    """

    status: str  # optimal, feasible or infeasible
    objective: float | None
    upper_bound: float | None
    gap: float | None
    seconds: float
    method: str
    spend_C: Array
    budget_price: float = 0.0
    group_prices: Mapping[str, float] = field(default_factory=dict)
    roas_prices: Mapping[str, float] = field(default_factory=dict)  # gain from a floor higher by 1
    price_C: Array | None = None  # what a unit of spend costs each arm: the sum of its limits' prices
    nodes: int = 0
    conflict: tuple[str, ...] = ()
    conflict_words: str = ""
    repair: Mapping[str, Any] | None = None
    spend_CW: Array | None = None  # weekly spends, where the plan has weeks
    sales_C: Array | None = None  # expected sales, where not the curve at the spend
    marginal_C: Array | None = None  # what the next unit brings, where not the curve's slope
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total_spend(self) -> float:
        return float(self.spend_C.sum())


def limits_of(problem: Problem) -> tuple[Limits, list[tuple[int, str]]]:
    """The sums and floors a plan must keep; which group each row and floor belongs to (-1 the whole).

    Returns:
        The limits, and for row k >= 1 the index of its group in ``problem.groups``.
    """
    grouped = [g for g in problem.groups if g.min is not None or g.max is not None]
    floors = [Floor(g.arms, g.min_roas) for g in problem.groups if g.min_roas]
    if problem.min_roas:
        floors.append(Floor(np.arange(problem.size), problem.min_roas))
    rows: Rows | None = None
    if grouped or floors:
        cell_C, in_cell_KM = cells_of(problem.size, [g.arms for g in grouped])
        low_K = np.array([-np.inf] + [-np.inf if g.min is None else g.min for g in grouped])
        high_K = np.array([problem.total_budget] + [np.inf if g.max is None else g.max for g in grouped])
        if problem.spend_all:
            low_K[0] = problem.total_budget
        rows = Rows(cell_C, in_cell_KM, low_K, high_K)
    places = [(g.index, g.id) for g in grouped]
    return Limits(problem.total_budget, problem.spend_all, rows, tuple(floors)), places


def allocate(problem: Problem) -> Plan:
    """The best plan within all limits, with its proof; or why there is none.

    Args:
        problem: a checked problem.

    Returns:
        A plan whose limits hold to 1e-9 of the budget. ``status`` is optimal when the proved gap is
        at most the asked one, feasible when not, infeasible when no plan keeps the limits; then
        ``conflict`` is a smallest set of limits that contradict each other, and ``repair`` the
        least change after which they do not.
    """
    started = time.perf_counter()
    plan = _allocate(problem)
    return replace(plan, seconds=time.perf_counter() - started)


def _allocate(problem: Problem) -> Plan:
    limits, places = limits_of(problem)
    until = time.monotonic() + problem.time_limit_s
    if np.any(problem.low_C > problem.high_C):
        return infeasible(problem, limits, until)
    if is_general(problem):
        return _over_worlds(problem, limits, places, until)
    space = Space(problem.curves, problem.weight_C, limits)
    best = branch.search(space, problem.low_C, problem.high_C, problem.gate_C, problem.gap, until)
    if best is None:
        return infeasible(problem, limits, until)
    return plan_of(problem, limits, places, best)


def is_general(problem: Problem) -> bool:
    """Whether weeks, risk or curves drawn one by one ask for the general model."""
    return problem.periods is not None or problem.risk_aversion > 0 or bool(problem.draws and problem.draws.given)


def _over_worlds(problem: Problem, limits: Limits, places: Sequence[tuple[int, str]], until: float) -> Plan:
    from campaigns.domain import means, worlds

    space = worlds.Worlds(problem, limits, until)
    rows = space.rows
    if not conflict.sums_fit(rows, problem.low_C, problem.high_C):
        return infeasible(problem, limits, until)
    bounds = space.bounds(problem.low_C, problem.high_C, problem.gate_C)
    if means.serve(problem, limits):
        best = means.search(problem, limits, until)
    else:
        best = branch.search(space, *bounds, problem.gap, until)
    if best is None:
        return infeasible(problem, limits, until)
    points_J = best.spend_C
    plan = plan_of(problem, limits, places, replace(best, spend_C=space.spend(points_J)))
    sales_SC = space.outcomes(points_J)
    extra: dict[str, Any] = {}
    if space.draws.size > 1:
        weight_C = np.ones(problem.size) if problem.weight_C is None else problem.weight_C
        total_S = sales_SC @ weight_C
        extra["sales_SC"] = sales_SC
        extra["risk"] = {
            "draws": space.draws.size,
            "mean": float(total_S.mean()),
            "cvar": worlds.cvar(total_S, space.tail),
            "tail": space.tail,
            "worst": float(total_S.min()),
        }
        last_C = problem.last_C
        if last_C is not None and not np.any(np.isnan(last_C)):
            extra["last_sales_SC"] = space.outcomes(
                space.points_of(np.tile(last_C[:, None] / space.weeks, space.weeks))
            )
    return replace(
        plan,
        spend_CW=space.weekly(points_J) if problem.periods else None,
        sales_C=sales_SC.mean(0),
        marginal_C=space.marginal(points_J),
        extra=extra,
    )


def plan_of(problem: Problem, limits: Limits, places: Sequence[tuple[int, str]], best: branch.Best) -> Plan:
    """The plan with its prices by name, from what the search found."""
    gap = gap_of(best.value, best.bound)
    price_C = np.full(problem.size, float(best.price_K[0]))
    group_prices: dict[str, float] = {}
    by_index = {g.index: g for g in problem.groups}
    for (index, name), price in zip(places, best.price_K[1:], strict=True):
        group_prices[name] = float(price)
        if price:
            price_C[by_index[index].arms] += price
    roas_prices: dict[str, float] = {}
    if limits.floors:
        names = [f"min_roas:{g.id}" for g in problem.groups if g.min_roas] + (["min_roas"] if problem.min_roas else [])
        weight_C = np.ones(problem.size) if problem.weight_C is None else problem.weight_C
        lift_C = np.zeros(problem.size)
        for name, floor, nu in zip(names, limits.floors, best.floor_price_F, strict=True):
            roas_prices[name] = -float(nu) * float(best.spend_C[floor.arms].sum())
            price_C[floor.arms] += nu * floor.roas
            lift_C[floor.arms] += nu
        # a unit of sales is worth more where it also helps a floor
        price_C = np.where(weight_C + lift_C > 0, price_C * weight_C / np.maximum(weight_C + lift_C, TINY), price_C)
    return Plan(
        status="optimal" if gap <= problem.gap else "feasible",
        objective=best.value,
        upper_bound=best.bound,
        gap=gap,
        seconds=0.0,
        method=best.method,
        spend_C=best.spend_C,
        budget_price=float(best.price_K[0]),
        group_prices=group_prices,
        roas_prices=roas_prices,
        price_C=price_C,
        nodes=best.nodes,
    )


def gap_of(value: float, bound: float) -> float:
    if bound == value:
        return 0.0
    return (bound - value) / max(abs(bound), TINY)


# -- infeasible


def infeasible(problem: Problem, limits: Limits, until: float) -> Plan:
    """Which limits contradict each other, and the least change that helps."""
    rows = limits.rows
    if rows is None:
        cell_C, in_cell = np.zeros(problem.size, np.int64), np.ones((1, 1))
        low = problem.total_budget if problem.spend_all else -np.inf
        rows = Rows(cell_C, in_cell, np.array([low]), np.array([problem.total_budget]))
    none, high_C = np.zeros(problem.size), problem.high_C.copy()
    for arm, why in problem.high_why.items():
        if why == "budget":  # what only the budget caps is no limit of the arm's, but its own may lie above
            high_C[arm] = _own_max(problem, arm)
    asked = Asked(
        rows,
        problem.low_C,
        high_C,
        none if problem.gate_C is None else problem.gate_C,
        none.astype(bool) if problem.excluded_C is None else problem.excluded_C,
        limits.floors,
        problem.curves,
    )
    started = time.monotonic()
    elastic = Elastic(asked)
    general = bool(limits.floors) and (problem.periods is not None or bool(problem.draws and problem.draws.given))
    if general:
        from campaigns.domain import reach

        under = np.unique(np.concatenate([floor.arms for floor in limits.floors]))
        asked = replace(asked, curves=reach.reached(problem, under, FINE * elastic.money), close=2 * reach.CLOSE)
        elastic = Elastic(asked)
    patience = max(until - started, 0.1 * problem.time_limit_s)
    found = conflict.smallest(asked, elastic, started + 0.6 * patience)
    took = time.monotonic() - started
    repair = conflict.nearest(asked, Elastic(asked), started + patience)
    if general and repair is not None:
        repair = _confirmed(problem, limits, asked, repair)
    names = _Names(problem, asked)
    return Plan(
        status="infeasible",
        objective=None,
        upper_bound=None,
        gap=None,
        seconds=0.0,
        method="elastic program over limits (HiGHS)",
        spend_C=none,
        conflict=tuple(dict.fromkeys(names.of(*limit) for limit in names.limits(found.kept))) if found.proved else (),
        conflict_words=names.words(found, took),
        repair=None if repair is None else names.repair(repair),
    )


def _confirmed(problem: Problem, limits: Limits, asked: Asked, repair: conflict.Repair) -> conflict.Repair:
    """The repair, tried by the weekly model; where that finds no plan, with lower ROAS floors, and not the nearest."""
    for share in LOWER:
        changes, money = dict(repair.changes), dict(repair.money)
        if share:
            for place, floor in enumerate(limits.floors):
                key = "floor", place, False
                kept = changes.get(key, floor.roas) * (1.0 - share)
                # of the spend that floors speak of, the part that sales cover at the level asked for
                spend = money[key] / (1.0 - changes[key] / floor.roas) if key in changes else 0.0
                changes[key], money[key] = kept, spend * (1.0 - kept / floor.roas)
        if _solves(problem, limits, asked, changes):
            return replace(repair, changes=changes, money=money, nearest=repair.nearest and not share)
    return replace(repair, nearest=False)


def _solves(problem: Problem, limits: Limits, asked: Asked, changes: Mapping[tuple[str, int, bool], float]) -> bool:
    """Whether a plan over weeks or draws is found after the changes."""
    from campaigns.domain import worlds

    rows = asked.rows
    sides = {True: rows.high_K.copy(), False: rows.low_K.copy()}
    budget = changes.get(("row", 0, True), problem.total_budget)
    problem = with_budget(problem, budget)
    gate_C = None if problem.gate_C is None else problem.gate_C.copy()
    arms = {True: problem.high_C.copy(), False: problem.low_C.copy()}
    floors = list(limits.floors)
    for (what, index, upper), new in changes.items():
        if what == "row":
            sides[upper][index] = new
        elif what == "arm":
            arms[upper][index] = new
        elif what == "gate" and gate_C is not None:
            gate_C[index] = new
        elif what == "floor":
            floors[index] = replace(floors[index], roas=new)
    if problem.spend_all and ("row", 0, False) not in changes:
        sides[False][0] = sides[True][0]  # all of a larger budget is spent
    problem = replace(problem, low_C=arms[False], high_C=arms[True], gate_C=gate_C)
    rows = replace(rows, low_K=sides[False], high_K=sides[True])
    limits = Limits(budget, problem.spend_all, rows, tuple(floors))
    until = time.monotonic() + 0.5 * problem.time_limit_s
    space = worlds.Worlds(problem, limits, until)
    return branch.search(space, *space.bounds(problem.low_C, problem.high_C, gate_C), problem.gap, until) is not None


class _Names:
    """What limits are called: their fields, and in words."""

    def __init__(self, problem: Problem, asked: Asked) -> None:
        self.problem, self.asked = problem, asked
        self.grouped = [g for g in problem.groups if g.min is not None or g.max is not None]
        self.floored = [f"groups[{g.index}].min_roas" for g in problem.groups if g.min_roas]
        self.floored += ["min_roas"] if problem.min_roas else []

    def limits(self, kept: Kept) -> list[tuple[str, int, bool]]:
        """The limits of a set as a repair names them, sums first."""
        sides = [
            ("row", kept.high_K, True),
            ("row", kept.low_K, False),
            ("arm", kept.low_C, False),
            ("arm", kept.high_C, True),
            ("gate", kept.gate_C, False),
            ("floor", kept.floor_F, False),
        ]
        return [(what, int(index), upper) for what, flags, upper in sides for index in np.flatnonzero(flags)]

    def of(self, what: str, index: int, upper: bool) -> str:
        if what == "floor":
            return self.floored[index]
        if what == "gate":
            return f"arms[{index}].min_if_on"
        if what == "arm":
            return _arm_limit(self.problem, index, upper=upper)
        if index == 0:
            return "total_budget" if upper else "spend_all"
        return f"groups[{self.grouped[index - 1].index}].{'max' if upper else 'min'}"

    def value(self, what: str, index: int, upper: bool) -> float:
        asked = self.asked
        if what == "floor":
            return asked.floors[index].roas
        if what == "gate":
            return float(asked.gate_C[index])
        if what == "arm":
            return float((asked.high_C if upper else asked.low_C)[index])
        return float((asked.rows.high_K if upper else asked.rows.low_K)[index])

    def words(self, found: conflict.Conflict, took: float) -> str:
        if not found.proved:
            return (
                "No plan that keeps all limits was found in the time given, nor a proof that there is none; give more"
                " time (time_limit_s) or fewer limits."
            )
        limits = self.limits(found.kept)
        floors = [limit for limit in limits if limit[0] == "gate" or not limit[2]]
        caps = [limit for limit in limits if limit not in floors and limit != ("row", 0, True)]
        if ("row", 0, True) in limits and ("row", 0, False) not in limits:
            caps = [("row", 0, True), *caps]
        asked = [limit for limit in limits if limit[0] == "floor"]
        if asked:
            rest = [limit for limit in limits if limit not in asked]
            told = f"No plan reaches {self._say(asked)}" + (f" and keeps {self._say(rest)}." if rest else ".")
        else:
            told = f"These limits cannot be kept together: {self._say(floors)}"
            told += f"; but {self._say(caps)}." if caps else "."
        if not found.smallest:
            told += f" No smaller set of limits that contradict each other was found within {took:.1f} s."
        return told

    def _say(self, limits: Sequence[tuple[str, int, bool]]) -> str:
        parts = []
        for what, index, upper in limits:
            value, sense = self.value(what, index, upper), "at most" if upper else "at least"
            if what == "floor":
                parts.append(f"{self.of(what, index, upper)} {value:g}")
            elif what == "gate":
                parts.append(f"arm {self.problem.ids[index]} nothing or at least {value:,.2f}")
            elif what == "row" and index == 0:
                parts.append(f"{'the budget' if upper else 'spending all of the budget'} {value:,.2f}")
            elif what == "row":
                parts.append(f"group {self.grouped[index - 1].id} {sense} {value:,.2f}")
        for upper in (False, True):
            arms = [index for what, index, side in limits if what == "arm" and side == upper]
            total = sum(self.value("arm", arm, upper) for arm in arms)
            which = f"arm {self.problem.ids[arms[0]]}" if len(arms) == 1 else f"{len(arms)} arms together"
            parts += [f"{which} {'at most' if upper else 'at least'} {total:,.2f}"] * bool(arms)
        return " and ".join(parts) or "nothing"

    def repair(self, repair: conflict.Repair) -> dict[str, Any]:
        listed = []
        for (what, index, upper), new in repair.changes.items():
            name, money = self.of(what, index, upper), repair.money[what, index, upper]
            row: dict[str, Any] = {"limit": name, "from": self.value(what, index, upper), "to": new, "money": money}
            if name == "spend_all":
                row = {"limit": name, "from": True, "to": False, "spend": new, "money": money}
            listed.append(row)
        return {
            "changes": listed,
            "money": sum(repair.money.values()),
            "distance": repair.distance,
            "nearest": repair.nearest,
        }


def _arm_limit(problem: Problem, arm: int, *, upper: bool) -> str:
    """The field that sets an arm's bound."""
    where = f"arms[{arm}]"
    if problem.excluded_C is not None and problem.excluded_C[arm]:
        return f"{where}.available"
    why = (problem.high_why if upper else problem.low_why).get(arm)
    if problem.fixed_C is not None and problem.fixed_C[arm] and why is None:
        return f"{where}.fixed"
    if why == "budget":
        most = problem.arm(arm).get("max")
        why = None if most is not None and float(most) <= _own_max(problem, arm) else "change"
    field_ = {"change": "max_change", None: "max" if upper else "min"}.get(why, why)
    return f"{where}.{field_}"


# -- from JSON to JSON


def solve(given: object) -> dict[str, Any]:
    """The plan of a problem, both as JSON (docs/budget.md).

    Raises:
        BadInput: the problem is malformed.
    """
    from campaigns.domain.report import as_json

    problem = read(given)
    return as_json(problem, allocate(problem))


def what_if(problem: Problem, budgets: Sequence[float]) -> list[dict[str, Any]]:
    """The same problem under other budgets: value, bound, gap and price at each.

    Raises:
        BadInput: a budget is negative or not finite.
    """
    for budget in budgets:
        if not np.isfinite(budget) or budget < 0:
            raise BadInput(f"budget {budget} in the range: a number of at least 0 was expected")
    limits, _ = limits_of(problem)
    if not is_general(problem) and problem.gate_C is None and limits.rows is None and problem.curves.concave_C.all():
        return _filled(problem, budgets)
    return [_answer(budget, allocate(with_budget(problem, float(budget)))) for budget in budgets]


def _answer(budget: float, plan: Plan) -> dict[str, Any]:
    fits = plan.status != "infeasible"
    return {
        "budget": float(budget),
        "objective": plan.objective,
        "upper_bound": plan.upper_bound,
        "gap": plan.gap,
        "price": plan.budget_price if fits else None,
        "total_spend": plan.total_spend if fits else None,
        "status": plan.status,
    }


def _filled(problem: Problem, budgets: Sequence[float]) -> list[dict[str, Any]]:
    """Concave curves and one budget: the hulls are made once, and each price starts from its neighbour's."""
    widest = with_budget(problem, max(budgets, default=0.0))
    least, most = float(widest.low_C.sum()), float(widest.high_C.sum())
    slack = 1e-12 * max(most, TINY)
    if np.any(widest.low_C > widest.high_C):
        return [_answer(budget, allocate(with_budget(problem, float(budget)))) for budget in budgets]
    worth = problem.curves if problem.weight_C is None else problem.curves.scaled(problem.weight_C)
    pieces = envelope(worth, widest.low_C, widest.high_C)
    base, price = float(pieces.base_value_C.sum()), 0.0
    answers = []
    for budget in budgets:
        if budget < least - slack or (problem.spend_all and budget > most + slack):
            answers.append(_answer(budget, allocate(with_budget(problem, float(budget)))))
            continue
        filled = fill(pieces, max(budget - least, 0.0), spend_all=problem.spend_all, near=price)
        price = filled.price
        value, bound = base + filled.value, base + filled.bound
        gap = gap_of(value, bound)
        spent = least + float((filled.x_E - pieces.low_E).sum())
        answers.append(
            {
                "budget": float(budget),
                "objective": value,
                "upper_bound": bound,
                "gap": gap,
                "price": price,
                "total_spend": spent,
                "status": "optimal" if gap <= problem.gap else "feasible",
            }
        )
    return answers


def with_budget(problem: Problem, budget: float) -> Problem:
    """The same problem with another budget; bounds that only the old budget set move along."""
    capped = np.array([arm for arm, why in problem.high_why.items() if why == "budget"], dtype=np.int64)
    high_C = problem.high_C.copy()
    if capped.size:
        own = np.array([_own_max(problem, int(arm)) for arm in capped])
        high_C[capped] = np.minimum(own, np.maximum(ROOM * budget, problem.low_C[capped]))
    return replace(problem, total_budget=budget, high_C=high_C)


def _own_max(problem: Problem, arm: int) -> float:
    given = problem.arm(arm)
    bounds = [np.inf if given.get("max") is None else float(given["max"])]
    if given.get("max_change") is not None and given.get("last") is not None:
        bounds.append(float(given["last"]) * (1 + float(given["max_change"])))
    return min(bounds)

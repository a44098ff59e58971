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
from campaigns.domain.interior import Floor, Rows, cells_of
from campaigns.domain.problem import ROOM, Problem, read
from campaigns.domain.waterfill import fill
from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput

LEVEL = 0.9  # of every interval
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
    if np.any(problem.low_C > problem.high_C):
        return infeasible(problem, limits)
    if is_general(problem):
        return _over_worlds(problem, limits, places)
    space = Space(problem.curves, problem.weight_C, limits)
    best = branch.search(space, problem.low_C, problem.high_C, problem.gate_C, problem.gap, problem.time_limit_s)
    if best is None:
        return infeasible(problem, limits)
    return plan_of(problem, limits, places, best)


def is_general(problem: Problem) -> bool:
    """Whether weeks, risk or curves drawn one by one ask for the general model."""
    return problem.periods is not None or problem.risk_aversion > 0 or bool(problem.draws and problem.draws.given)


def _over_worlds(problem: Problem, limits: Limits, places: Sequence[tuple[int, str]]) -> Plan:
    from campaigns.domain import means, worlds

    space = worlds.Worlds(problem, limits)
    rows = space.rows
    if not conflict.sums_fit(rows, problem.low_C, problem.high_C):
        return infeasible(problem, limits)
    bounds = space.bounds(problem.low_C, problem.high_C, problem.gate_C)
    if means.serve(problem, limits):
        best = means.search(problem, limits)
    else:
        best = branch.search(space, *bounds, problem.gap, problem.time_limit_s)
    if best is None:
        return infeasible(problem, limits)
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
            "cvar": worlds.cvar(total_S),
            "tail": worlds.TAIL,
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


def infeasible(problem: Problem, limits: Limits) -> Plan:
    """Which limits contradict each other, and the least change that helps."""
    rows = limits.rows
    if rows is None:
        cell_C, in_cell = np.zeros(problem.size, np.int64), np.ones((1, 1))
        low = problem.total_budget if problem.spend_all else -np.inf
        rows = Rows(cell_C, in_cell, np.array([low]), np.array([problem.total_budget]))
    fits = bool(np.all(problem.low_C <= problem.high_C)) and conflict.sums_fit(rows, problem.low_C, problem.high_C)
    grouped = [g for g in problem.groups if g.min is not None or g.max is not None]
    if fits:
        return _hidden_conflict(problem, limits, rows, grouped)
    row_names = [("spend_all", "total_budget")] + [
        (f"groups[{g.index}].min", f"groups[{g.index}].max") for g in grouped
    ]
    low_names = [_arm_limit(problem, arm, upper=False) for arm in range(problem.size)]
    high_names = [_arm_limit(problem, arm, upper=True) for arm in range(problem.size)]
    # what only the budget itself caps is no limit of the arm's
    high_C = np.where([name == "total_budget" for name in high_names], np.inf, problem.high_C)
    low_C = problem.low_C
    found = conflict.smallest(rows, row_names, low_C, high_C, low_names, high_names)
    firm_C = None if problem.excluded_C is None else problem.excluded_C
    changes = conflict.nearest(rows, low_C, np.minimum(high_C, 1e15), firm_C)
    names = tuple(dict.fromkeys(limit.name for limit in found))
    if "spend_all" in names and "total_budget" not in names:
        names = (*names, "total_budget")
    return Plan(
        status="infeasible",
        objective=None,
        upper_bound=None,
        gap=None,
        seconds=0.0,
        method="linear program over limits",
        spend_C=np.zeros(problem.size),
        conflict=names,
        conflict_words=_conflict_words(problem, rows, found, grouped),
        repair=_with_the_rest(
            problem, limits, rows, changes, _repair(problem, rows, changes, low_names, high_names, grouped), grouped
        ),
    )


def _with_the_rest(
    problem: Problem,
    limits: Limits,
    rows: Rows,
    changes: Mapping[tuple[str, int, bool], float],
    repair: dict[str, Any] | None,
    grouped: Sequence[Any],
) -> dict[str, Any] | None:
    """A repair of sums, with what least amounts and ROAS floors need besides once it is made."""
    if repair is None or (problem.gate_C is None and not limits.floors):
        return repair
    low_C, high_C = problem.low_C.copy(), problem.high_C.copy()
    low_K, high_K = rows.low_K.copy(), rows.high_K.copy()
    for (what, index, upper), new in changes.items():
        ((high_C if upper else low_C) if what == "arm" else (high_K if upper else low_K))[index] = new
    eased = replace(rows, low_K=low_K, high_K=high_K)
    after = replace(problem, low_C=low_C, high_C=high_C)
    whole = replace(limits, rows=eased, budget=float(high_K[0]), spend_all=bool(low_K[0] == high_K[0]))
    more = _repair_hidden(after, whole, eased, grouped)
    if more is None:
        return repair
    return {"changes": [*repair["changes"], *more["changes"]], "money": repair["money"] + more["money"]}


def _arm_limit(problem: Problem, arm: int, *, upper: bool) -> str:
    """The field that sets an arm's bound."""
    where = f"arms[{arm}]"
    if problem.excluded_C is not None and problem.excluded_C[arm]:
        return f"{where}.available"
    why = (problem.high_why if upper else problem.low_why).get(arm)
    if problem.fixed_C is not None and problem.fixed_C[arm] and why is None:
        return f"{where}.fixed"
    if why == "budget":
        return "total_budget"
    field_ = {"change": "max_change", None: "max" if upper else "min"}.get(why, why)
    return f"{where}.{field_}"


def _conflict_words(problem: Problem, rows: Rows, found: Sequence[conflict.Limit], grouped: Sequence[Any]) -> str:
    floors = [f for f in found if not f.upper]
    caps = [f for f in found if f.upper]

    def say(limits: Sequence[conflict.Limit]) -> str:
        parts = []
        arms = [f for f in limits if f.arm >= 0]
        for f in limits:
            if f.row == 0:
                parts.append(f"{'the budget' if f.upper else 'spending all of the budget'} {problem.total_budget:,.2f}")
            elif f.row > 0:
                limit = rows.high_K[f.row] if f.upper else rows.low_K[f.row]
                parts.append(f"group {grouped[f.row - 1].id} {'at most' if f.upper else 'at least'} {limit:,.2f}")
        if arms:
            total = sum(float((problem.high_C if f.upper else problem.low_C)[f.arm]) for f in arms)
            which = f"arm {problem.ids[arms[0].arm]}" if len(arms) == 1 else f"{len(arms)} arms together"
            parts.append(f"{which} {'at most' if arms[0].upper else 'at least'} {total:,.2f}")
        return " and ".join(parts) or "nothing"

    return f"These limits cannot be kept together: {say(floors)}; but {say(caps)}."


def _repair(
    problem: Problem,
    rows: Rows,
    changes: Mapping[tuple[str, int, bool], float],
    low_names: Sequence[str],
    high_names: Sequence[str],
    grouped: Sequence[Any],
) -> dict[str, Any] | None:
    if not changes:
        return None
    listed = []
    for (what, index, upper), new in changes.items():
        if what == "row" and index == 0:
            name, old = "total_budget", problem.total_budget
            if not upper:
                name = "spend_all"
        elif what == "row":
            name = f"groups[{grouped[index - 1].index}].{'max' if upper else 'min'}"
            old = float((rows.high_K if upper else rows.low_K)[index])
        else:
            name = (high_names if upper else low_names)[index]
            old = float((problem.high_C if upper else problem.low_C)[index])
        row: dict[str, Any] = {"limit": name, "from": old, "to": new}
        if name == "spend_all":
            row = {"limit": name, "from": True, "to": False, "spend": new}
        listed.append(row)
    total = sum(abs(float(r["to"]) - float(r["from"])) for r in listed if r["limit"] != "spend_all")
    return {"changes": listed, "money": total}


def _hidden_conflict(problem: Problem, limits: Limits, rows: Rows, grouped: Sequence[Any]) -> Plan:
    """The sums fit, but a ROAS floor cannot be reached or arms that start at a least amount cannot make them up."""
    from campaigns.domain import general

    floor_names = [f"groups[{g.index}].min_roas" for g in problem.groups if g.min_roas]
    floor_names += ["min_roas"] if problem.min_roas else []
    kept = general.smallest(problem, limits, rows)
    needed = [int(place) for place in np.flatnonzero(kept.floor_F)]
    names = [floor_names[place] for place in needed]
    floors = " and ".join(f"{floor_names[place]} {limits.floors[place].roas:g}" for place in needed)
    words: list[str] = []
    gate_C = np.zeros(problem.size) if problem.gate_C is None else problem.gate_C
    own = []
    for arm in range(problem.size):
        where, what = f"arms[{arm}]", problem.ids[arm]
        if kept.low_C[arm]:
            own.append((_arm_limit(problem, arm, upper=False), f"{what} at least {problem.low_C[arm]:,.2f}"))
        if kept.high_C[arm]:
            own.append((_arm_limit(problem, arm, upper=True), f"{what} at most {problem.high_C[arm]:,.2f}"))
        if kept.gate_C[arm]:
            own.append((f"{where}.min_if_on", f"{what} nothing or at least {gate_C[arm]:,.2f}"))
    for row, group in enumerate(grouped, 1):
        if kept.low_K[row]:
            own.append((f"groups[{group.index}].min", f"group {group.id} at least {rows.low_K[row]:,.2f}"))
        if kept.high_K[row]:
            own.append((f"groups[{group.index}].max", f"group {group.id} at most {rows.high_K[row]:,.2f}"))
    if kept.low_K[0]:
        own.append(("spend_all", "spending all of the budget"))
    if kept.high_K[0]:
        own.append(("total_budget", f"the budget {problem.total_budget:,.2f}"))
    names += [name for name, _ in own]
    words += [said for _, said in own]
    return Plan(
        status="infeasible",
        objective=None,
        upper_bound=None,
        gap=None,
        seconds=0.0,
        method="search over limits",
        spend_C=np.zeros(problem.size),
        conflict=tuple(dict.fromkeys(names)),
        conflict_words=(
            f"No plan reaches {floors}{' and keeps ' * bool(words)}{'; '.join(words)}."
            if needed
            else f"These limits cannot be kept together: {'; '.join(words)}."
        )
        + ("" if kept.smallest else " Whether all of them are needed was not found out in the time given.")
        if kept.proved
        else "No plan that keeps all limits was found in the time given, nor a proof that there is none; give more time"
        " (time_limit_s) or fewer limits.",
        repair=_repair_hidden(problem, limits, rows, grouped),
    )


def _repair_hidden(problem: Problem, limits: Limits, rows: Rows, grouped: Sequence[Any]) -> dict[str, Any] | None:
    """Least amounts lowered as little as money allows, then ROAS floors to what can be reached."""
    from campaigns.domain import general

    listed: list[dict[str, Any]] = []
    money = 0.0
    if problem.gate_C is not None:
        changes, gates = conflict.nearest_gated(rows, problem.low_C, np.minimum(problem.high_C, 1e15), problem.gate_C)
        first = _repair(problem, rows, changes, [], [], grouped)
        listed += first["changes"] if first else []
        money += first["money"] if first else 0.0
        for arm, new in gates.items():
            listed.append({"limit": f"arms[{arm}].min_if_on", "from": float(problem.gate_C[arm]), "to": new})
            money += float(problem.gate_C[arm]) - new
        gate_C = problem.gate_C.copy()
        gate_C[list(gates)] = list(gates.values())
        low_K, high_K = rows.low_K.copy(), rows.high_K.copy()
        for (_, row, upper), new in changes.items():
            (high_K if upper else low_K)[row] = new
        rows = replace(rows, low_K=low_K, high_K=high_K)
        problem = replace(problem, gate_C=gate_C)
        limits = replace(limits, budget=float(high_K[0]), spend_all=bool(low_K[0] == high_K[0]))
    if limits.floors:
        limits = replace(limits, rows=rows)
        names = [f"groups[{g.index}].min_roas" for g in problem.groups if g.min_roas]
        names += ["min_roas"] if problem.min_roas else []
        reach = general.reachable_floors(problem, limits)
        listed += [
            {"limit": name, "from": floor.roas, "to": value}
            for name, floor, value in zip(names, limits.floors, reach, strict=True)
            if value < floor.roas
        ]
    return {"changes": listed, "money": money} if listed else None


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

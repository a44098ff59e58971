"""A plan told to people and programs: reasons, prices, intervals, evidence, the next unit of money."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from campaigns.domain.curves import Curves
from campaigns.domain.optimizer import LEVEL, TINY, Plan
from campaigns.domain.problem import EVIDENCE, Problem, read
from rmn.lib.arrays import Array
from rmn.lib.words import money as amount

NO_GAP = 1e-6  # relative: what the solvers call optimal
Z = 1.6448536269514722  # half of the level outside on either side


def as_json(problem: Problem, plan: Plan) -> dict[str, Any]:
    """The plan as docs/budget.md describes it."""
    if plan.status == "infeasible":
        return {
            "status": plan.status,
            "objective": None,
            "upper_bound": None,
            "gap": None,
            "total_spend": None,
            "currency": problem.currency,
            "seconds": plan.seconds,
            "method": plan.method,
            "allocations": [],
            "prices": {},
            "bound_price": {},
            "conflict": list(plan.conflict),
            "repair": plan.repair,
            "explanation": plan.conflict_words + repair_words(plan.repair),
            "warnings": list(problem.warnings),
        }
    spend_C = plan.spend_C
    sales_C = problem.curves.value(spend_C) if plan.sales_C is None else plan.sales_C
    marginal_C = problem.curves.slope(spend_C) if plan.marginal_C is None else plan.marginal_C
    binding = bindings(problem, plan)
    weight_C = np.ones(problem.size) if problem.weight_C is None else problem.weight_C
    with np.errstate(invalid="ignore"):
        rent_C = weight_C * marginal_C - (plan.price_C if plan.price_C is not None else 0.0)
    draws_SC = plan.extra.get("sales_SC")
    low_C, high_C = intervals(problem, sales_C, draws_SC)
    allocations = []
    rents: dict[str, float] = {}
    for arm, name in enumerate(problem.ids):
        spend, sales = float(spend_C[arm]), float(sales_C[arm])
        rent = finite(rent_C[arm]) if binding[arm] in ("min", "max", "change", "fixed", "excluded") else None
        if rent:
            rents[name] = rent
        row: dict[str, Any] = {
            "id": name,
            "spend": spend,
            "expected_sales": sales,
            "interval": None if np.isnan(low_C[arm]) else [float(low_C[arm]), float(high_C[arm])],
            "roas": sales / spend if spend > 0 else None,
            "marginal_roas": finite(marginal_C[arm]),
            "binding": binding[arm],
        }
        if (sold := sellable(problem, arm)) is not None:
            row["readiness"] = sold
        if plan.spend_CW is not None:
            row["weeks"] = [float(x) for x in plan.spend_CW[arm]]
        allocations.append(row)
    prices = {"budget": plan.budget_price}
    prices |= {f"group:{name}": price for name, price in plan.group_prices.items()}
    prices |= dict(plan.roas_prices)
    total = float(sales_C.sum())
    contribution = float((weight_C * sales_C).sum()) if problem.weight_C is not None else None
    result: dict[str, Any] = {
        "status": plan.status,
        "objective": plan.objective,
        "upper_bound": plan.upper_bound,
        "gap": plan.gap,
        "total_spend": plan.total_spend,
        "currency": problem.currency,
        "seconds": plan.seconds,
        "method": plan.method,
        "allocations": allocations,
        "prices": prices,
        "bound_price": rents,
        "conflict": [],
        "repair": None,
        "expected_sales": total,
        "contribution": contribution,
        "contribution_after_spend": None if contribution is None else contribution - plan.total_spend,
        "interval": total_interval(problem, sales_C, draws_SC),
        "interval_level": LEVEL,
        "evidence": evidence(problem, spend_C),
        "next_unit": next_unit(problem, plan, marginal_C, weight_C),
        "compared_with_last": compared(problem, plan, sales_C, draws_SC),
        "branch_nodes": plan.nodes,
        "warnings": [*problem.warnings, *extrapolation(problem, spend_C)],
    }
    result |= {key: value for key, value in plan.extra.items() if not key.endswith("_SC")}
    result["explanation"] = explanation(problem, plan, result)
    return result


def sellable(problem: Problem, arm: int) -> dict[str, Any] | None:
    """How much of the time what an arm advertises can be bought, why, and when that was read; None where nothing says."""
    given = problem.arm(arm)
    if given.get("readiness") is None:
        return None
    share = given["readiness"]
    return {
        "share": float(np.mean(share)),
        "why": given.get("readiness_why") or "",
        "read": given.get("readiness_read"),
    }


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def bindings(problem: Problem, plan: Plan) -> list[str | None]:
    """Which limit holds each arm where it is."""
    spend_C, scale = plan.spend_C, max(problem.total_budget, TINY)
    at_low = spend_C <= problem.low_C + 1e-9 * np.maximum(problem.low_C, 1e-3 * scale / problem.size)
    at_high = spend_C >= problem.high_C - 1e-9 * np.maximum(problem.high_C, TINY)
    groups: dict[int, tuple[float, str]] = {}
    for group in problem.groups:
        price = plan.group_prices.get(group.id, 0.0)
        if abs(price) <= 1e-9 * max(abs(plan.budget_price), abs(price), TINY):
            continue
        for arm in group.arms:
            if abs(price) > groups.get(int(arm), (0.0, ""))[0]:
                groups[int(arm)] = (abs(price), f"group:{group.id}")
    answers: list[str | None] = []
    for arm in range(problem.size):
        if problem.excluded_C is not None and problem.excluded_C[arm]:
            answers.append("excluded")
        elif problem.fixed_C is not None and problem.fixed_C[arm]:
            answers.append("fixed")
        elif at_low[arm]:
            answers.append("change" if problem.low_why.get(arm) == "change" else "min")
        elif at_high[arm]:
            why = problem.high_why.get(arm)
            answers.append(why if why in ("change", "budget") else "max")
        elif arm in groups:
            answers.append(groups[arm][1])
        else:
            answers.append("budget" if plan.budget_price > 0 else None)
    return answers


def intervals(problem: Problem, sales_C: Array, draws_SC: Array | None) -> tuple[Array, Array]:
    """Each arm's expected sales, 5 to 95 %; NaN where nothing says how sure its curve is."""
    low_C = np.full(problem.size, np.nan)
    high_C = np.full(problem.size, np.nan)
    if problem.std_C is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            spread_C = Z * sales_C * problem.std_C / problem.curves.scale_C
        known = problem.std_C > 0
        low_C[known] = np.maximum(sales_C - spread_C, 0.0)[known]
        high_C[known] = (sales_C + spread_C)[known]
    if draws_SC is not None and problem.draws is not None:
        for arm in problem.draws.given or np.flatnonzero(draws_SC.std(0) > 0):
            low_C[arm], high_C[arm] = np.quantile(draws_SC[:, arm], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return low_C, high_C


def total_interval(problem: Problem, sales_C: Array, draws_SC: Array | None) -> list[float] | None:
    """The same for the objective: arms err apart, so their variances add."""
    weight_C = np.ones(problem.size) if problem.weight_C is None else problem.weight_C
    if draws_SC is not None:
        totals = draws_SC @ weight_C
        return [float(x) for x in np.quantile(totals, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]
    if problem.std_C is None:
        return None
    spread = Z * float(np.sqrt(np.sum((weight_C * sales_C * problem.std_C / problem.curves.scale_C) ** 2)))
    middle = float((weight_C * sales_C).sum())
    return [max(middle - spread, 0.0), middle + spread]


def compared(problem: Problem, plan: Plan, sales_C: Array, draws_SC: Array | None) -> dict[str, Any] | None:
    """What the plan gains over last period's spend, and whether that can be told from chance."""
    if problem.last_C is None or np.any(np.isnan(problem.last_C)):
        return None
    weight_C = np.ones(problem.size) if problem.weight_C is None else problem.weight_C
    before_SC = plan.extra.get("last_sales_SC")
    before_C = problem.curves.value(problem.last_C) if before_SC is None else before_SC.mean(0)
    for arm in range(problem.size):
        if (sold := sellable(problem, arm)) is not None and sold["share"] <= 0:
            before_C[arm] = 0.0  # what cannot be bought would not be sold for last period's spend either
    difference_C = weight_C * (sales_C - before_C)
    gain = float(difference_C.sum())
    result: dict[str, Any] = {
        "spend": float(problem.last_C.sum()),
        "objective": float((weight_C * before_C).sum()),
        "gain": gain,
        "interval": None,
        "distinguishable": None,
    }
    if draws_SC is not None and before_SC is not None:
        gains_S = (draws_SC - before_SC) @ weight_C
        result["interval"] = [float(x) for x in np.quantile(gains_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]
    elif problem.std_C is not None:
        ratio_C = problem.std_C / problem.curves.scale_C
        spread = Z * float(np.sqrt(np.sum((difference_C * ratio_C) ** 2)))
        result["interval"] = [gain - spread, gain + spread]
    if result["interval"]:
        low, high = result["interval"]
        result["distinguishable"] = bool(low > 0 or high < 0)
    return result


def evidence(problem: Problem, spend_C: Array) -> list[dict[str, Any]]:
    """How much of the plan's money rests on which kind of evidence."""
    total = max(float(spend_C.sum()), TINY)
    money: dict[str, float] = {}
    for arm in range(problem.size):
        kind = str(problem.arm(arm).get("evidence") or "not stated")
        money[kind] = money.get(kind, 0.0) + float(spend_C[arm])
    order = [*EVIDENCE, "not stated"]
    return [{"evidence": kind, "spend": money[kind], "share": money[kind] / total} for kind in order if kind in money]


def extrapolation(problem: Problem, spend_C: Array) -> list[str]:
    """Arms sent past 1.5 times the spend that their curve has seen."""
    far = []
    for arm in range(problem.size):
        seen = problem.arm(arm).get("seen")
        if isinstance(seen, int | float) and seen > 0 and spend_C[arm] > 1.5 * seen:
            far.append(f"{problem.ids[arm]}: {spend_C[arm]:,.2f} is more than 1.5 times the spend its curve has seen")
    return far[:20]


def next_unit(problem: Problem, plan: Plan, marginal_C: Array, weight_C: Array, most: int = 10) -> list[dict[str, Any]]:
    """Where the next unit of money would bring most, and what keeps it from going there."""
    worth_C = np.where(np.isfinite(marginal_C), weight_C * marginal_C, np.inf)
    rows = []
    binding = bindings(problem, plan) if problem.size <= 200_000 else [None] * problem.size
    for arm in np.argsort(-worth_C, kind="stable")[:most]:
        rows.append({"id": problem.ids[arm], "gain": finite(worth_C[arm]), "held_by": binding[arm]})
    return rows


def along_curves(
    given: Mapping[str, Any], told: Mapping[str, Any], names: Mapping[str, str], most: int = 6
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The largest arms' curves with their bands, and the points of spend now and in the plan on them.

    The band is that of the curve's standard error, 5 to 95 %; without one it has no width.
    """
    problem = read(given)
    places = {name: place for place, name in enumerate(problem.ids)}
    lines, points = [], []
    for row in sorted(told["allocations"], key=lambda row: -row["spend"])[:most]:
        place = places[row["id"]]
        curves = problem.curves.take(np.array([place]))
        spread = 0.0 if problem.std_C is None else Z * problem.std_C[place] / problem.curves.scale_C[place]
        last = 0.0 if problem.last_C is None or np.isnan(problem.last_C[place]) else float(problem.last_C[place])
        name = names.get(row["id"], row["id"])

        def at(spend: float, curves: Curves = curves, spread: float = spread) -> dict[str, float]:
            sales = float(curves.value(np.array([spend]))[0])
            return {"spend": spend, "sales": sales, "low": max(sales * (1 - spread), 0.0), "high": sales * (1 + spread)}

        end = 1.25 * max(row["spend"], last, 1e-9)
        lines += [{"arm": name, **at(float(x))} for x in np.linspace(0, end, 30)]
        points += [{"arm": name, "which": "now", **at(last)}] if last else []
        points.append({"arm": name, "which": "plan", **at(float(row["spend"]))})
    return lines, points


def dearest_limits(
    given: Mapping[str, Any], told: Mapping[str, Any], names: Mapping[str, str], most: int = 12
) -> list[dict[str, Any]]:
    """The limits that cost most, by what one more unit of each would bring; arms' own limits among them."""
    groups = {f"group:{group['id']}": f"group {group['id']}" for group in given.get("groups") or []}
    held = {row["id"]: row["binding"] for row in told["allocations"]}
    rows = [
        {"limit": groups.get(name, name.replace("_", " ").replace(":", " of ")), "price": price}
        for name, price in (told.get("prices") or {}).items()
        if price and not name.startswith("min_roas")
    ]
    rows += [
        {"limit": f"{held[arm]} of {names.get(arm, arm)}", "price": price}
        for arm, price in (told.get("bound_price") or {}).items()
        if price and held[arm] in ("min", "max", "change")
    ]
    return sorted(rows, key=lambda row: -abs(row["price"]))[:most]


def repair_words(repair: Mapping[str, Any] | None) -> str:
    if not repair or not repair.get("changes"):
        return ""
    parts = []
    for change in repair["changes"][:5]:
        if change["limit"] == "spend_all":
            parts.append(f"let {change['spend']:,.2f} be spent instead of all")
        else:
            parts.append(f"{change['limit']} from {change['from']:,.2f} to {change['to']:,.2f}")
    more = len(repair["changes"]) - 5
    return " Least change that helps: " + "; ".join(parts) + (f"; and {more} more." if more > 0 else ".")


def explanation(problem: Problem, plan: Plan, told: Mapping[str, Any]) -> str:
    """The plan in a few sentences."""
    objective, bound, gap = plan.objective or 0.0, plan.upper_bound or 0.0, plan.gap or 0.0  # none only without a plan
    what = "contribution" if problem.weight_C is not None else "sales"
    money = problem.currency
    spent, budget = amount(plan.total_spend), amount(problem.total_budget)
    of = "" if spent == budget else f" of {budget}"
    most = f" than {amount(bound)}, {100 * gap:.2g} % above" if gap > NO_GAP else ""
    bring = f"{spent}{of} {money} over {problem.size} arms bring {amount(objective)} {what}"
    lines = [f"{bring}; no plan within the limits brings more{most}."]
    if plan.budget_price > 0:
        lines.append(f"One more {money} of budget would bring {plan.budget_price:.4g} {what}.")
        if problem.weight_C is not None and plan.budget_price < 1:
            lines.append("That is less than it costs: the last money spent loses contribution.")
    elif plan.total_spend < problem.total_budget * (1 - 1e-9):
        lines.append("The rest of the budget gains nothing within the limits and stays unspent.")
    dear = sorted(plan.group_prices.items(), key=lambda item: -abs(item[1]))
    for name, price in dear[:3]:
        if abs(price) > 1e-9 * max(plan.budget_price, TINY):
            lines.append(
                f"Group {name}'s limit costs: raising it by 1 {'brings' if price > 0 else 'loses'} {abs(price):.4g} {what}."
            )
    held = [row for row in told["allocations"] if row.get("readiness", {}).get("share", 1.0) < 1.0]
    out = [row for row in held if row["readiness"]["share"] <= 0]
    for rows, words in (
        (out, "left out, since what they advertise cannot be bought"),
        ([row for row in held if row not in out], "braked, since it can be bought a part of the time"),
    ):
        if rows:
            first = "; ".join(f"{row['id']} ({row['readiness']['why'] or 'as given'})" for row in rows[:3])
            lines.append(f"{len(rows)} of {problem.size} arms {words}: {first}{'; ...' if len(rows) > 3 else ''}.")
    after = told.get("compared_with_last")
    if after and after["distinguishable"] is False:
        lines.append(
            "The plan cannot be told apart from last period's spend at 90 %: the expected gain"
            f" {after['gain']:,.2f} lies within its error."
        )
    if plan.status == "feasible":
        lines.append("The asked gap was not proved in the time given; the plan keeps all limits.")
    return " ".join(lines)

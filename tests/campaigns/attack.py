"""Budget problems of every kind of curve and limit, made from a seed, and what must hold of every answer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from campaigns.domain import optimizer
from tests.campaigns import budgets

KINDS = ("log", "power", "michaelis_menten", "hill", "piecewise")
LIMITED_S = 5.0


def problem(seed: int) -> dict[str, Any]:
    """One to eight arms with fixed, unavailable, gated, change-limited, braked and unbounded ones among them."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    kinds = [kind for kind in KINDS if rng.random() < 0.5] or ["log"]
    given = budgets.problem(
        n, seed, *kinds, groups=n >= 4 and bool(rng.random() < 0.6), margin=bool(rng.random() < 0.3),
        spend_all=bool(rng.random() < 0.5),
    )  # fmt: skip
    if rng.random() < 0.2:  # neither concave nor S-shaped
        for arm in given["arms"]:
            if arm["curve"]["kind"] == "piecewise":
                points = arm["curve"]["points"]
                sales = np.cumsum(rng.uniform(0, 50, len(points)))
                arm["curve"]["points"] = [[x, float(y)] for (x, _), y in zip(points, sales, strict=True)]
    for arm in given["arms"]:
        draw = rng.random()
        if draw < 0.12:
            arm["fixed"] = float(rng.uniform(arm["min"], arm["max"]))
        elif draw < 0.2:
            arm["available"] = False
        elif draw < 0.35:
            arm |= {"min_if_on": float(rng.uniform(0.05, 0.5) * arm["max"]), "min": 0.0}
        elif draw < 0.5:
            last, change = float(rng.uniform(0.1, 0.6) * arm["max"]), float(rng.uniform(0.05, 1))
            arm |= {"last": last, "max_change": change, "min": 0.0}
        elif draw < 0.6:
            arm["readiness"] = float(rng.uniform(0, 1)) if rng.random() < 0.8 else 0.0
        elif draw < 0.65:
            arm["max"] = None
        if rng.random() < 0.3:
            arm["std"] = {"scale": float(rng.uniform(0.05, 0.4)) * arm["curve"].get("scale", 50.0)}
    if rng.random() < 0.3:
        given["min_roas"] = float(rng.uniform(0.2, 3))
    if rng.random() < 0.15 and given["groups"]:
        given["groups"][0]["min_roas"] = float(rng.uniform(0.5, 3))
    if rng.random() < 0.3:
        given["total_budget"] *= float(rng.choice([0.2, 0.5, 2, 5]))
    return given | {"time_limit_s": LIMITED_S}


def members(given: dict[str, Any], group: dict[str, Any]) -> list[str]:
    ((key, value),) = group["where"].items()
    return [arm["id"] for arm in given["arms"] if arm[key] == value]


def broken(given: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    """The limits that a plan breaks by more than 1e-9 of the budget, and the proofs that do not hold."""
    budget = given["total_budget"]
    slack = 1e-9 * budget
    spend = {row["id"]: row["spend"] for row in plan["allocations"]}
    sales = {row["id"]: row["expected_sales"] for row in plan["allocations"]}
    total, found = sum(spend.values()), []

    def must(holds: bool, words: str) -> None:
        if not holds:
            found.append(words)

    must(total <= budget + slack, f"{total - budget} over the budget")
    must(not given["spend_all"] or total >= budget - slack, f"{budget - total} not spent")
    for arm in given["arms"]:
        x, name = spend[arm["id"]], arm["id"]
        if arm.get("available") is False or arm.get("readiness") == 0.0:
            must(x == 0, f"{name} is not there and gets {x}")
            continue
        must(x >= arm["min"] - slack, f"{name} {x} below min {arm['min']}")
        must(arm["max"] is None or x <= arm["max"] + slack, f"{name} {x} above max {arm['max']}")
        must(arm.get("fixed") is None or abs(x - arm["fixed"]) <= slack, f"{name} {x} is fixed at {arm.get('fixed')}")
        if arm.get("max_change") is not None:
            must(abs(x - arm["last"]) <= arm["last"] * arm["max_change"] + slack, f"{name} {x} changes too much")
        if arm.get("min_if_on") and arm.get("fixed") is None:
            must(x == 0 or x >= arm["min_if_on"] - slack, f"{name} {x} between nothing and {arm['min_if_on']}")
    floors = [(g["min_roas"], members(given, g)) for g in given["groups"] if g.get("min_roas")]
    floors += [(given["min_roas"], list(spend))] if given.get("min_roas") else []
    for asked, arms in floors:
        sold, spent = sum(sales[a] for a in arms), sum(spend[a] for a in arms)
        must(sold >= asked * spent * (1 - 1e-8) - 1e-12, f"{sold} for {spent} is below {asked}")
    for group in given["groups"]:
        spent = sum(spend[a] for a in members(given, group))
        must(spent >= (group.get("min") or 0) - slack, f"{group['id']} {spent} below {group.get('min')}")
        must(
            group.get("max") is None or spent <= group["max"] + slack, f"{group['id']} {spent} above {group.get('max')}"
        )
    must(plan["upper_bound"] >= plan["objective"] * (1 - 1e-12), "the bound lies below the value")
    must(plan["status"] != "optimal" or plan["gap"] <= given.get("gap", 1e-6), f"optimal with a gap of {plan['gap']}")
    return found


def wrong_price(given: dict[str, Any], plan: dict[str, Any]) -> str:
    """Where the budget's price lies outside what a little more and a little less budget say, by more than 1 %."""
    step = 1e-5 * given["total_budget"]
    tight = given | {"gap": 1e-9}
    more = optimizer.solve(tight | {"total_budget": given["total_budget"] + step})
    less = optimizer.solve(tight | {"total_budget": given["total_budget"] - step})
    if "infeasible" in (more["status"], less["status"]):
        return ""
    right, left = (more["objective"] - plan["objective"]) / step, (plan["objective"] - less["objective"]) / step
    price = plan["prices"]["budget"]
    worth = 1e-4 * abs(plan["objective"]) / given["total_budget"]
    blur = 0.01 * abs(price) + worth + 2 * max(plan["gap"], more["gap"], less["gap"]) * abs(plan["objective"]) / step
    if not min(left, right) - blur <= price <= max(left, right) + blur:
        return f"price {price}, left {left}, right {right}"
    if not given["spend_all"] and more["objective"] < plan["objective"] * (1 - more["gap"]) - 1e-12:
        return f"more budget lowers {plan['objective']} to {more['objective']}"
    return ""


def without(given: dict[str, Any], name: str) -> dict[str, Any]:
    """The same problem without one limit that a conflict names."""
    made = copy.deepcopy(given)
    part, _, field = name.partition("].")
    if part.startswith("groups["):
        made["groups"][int(part[7:])][field] = None
    elif part.startswith("arms["):
        arm = made["arms"][int(part[5:])]
        if field == "available":
            arm |= {"available": True, "readiness": None}
        elif field == "max_change":
            arm["max_change"] = None
        elif field == "fixed":
            arm["fixed"] = None
        else:
            arm[field] = 0 if field == "min" else None
    elif name == "total_budget":
        made |= {"total_budget": 1e3 * given["total_budget"] + 1e6, "spend_all": False}
    else:
        made[name] = False if name == "spend_all" else None
    return made


def repaired(given: dict[str, Any], changes: list[dict[str, Any]]) -> dict[str, Any]:
    """The problem with a repair's changes made."""
    made = copy.deepcopy(given)
    for change in changes:
        part, _, field = change["limit"].partition("].")
        if part.startswith("groups["):
            made["groups"][int(part[7:])][field] = change["to"]
        elif part.startswith("arms["):
            arm = made["arms"][int(part[5:])]
            if field == "max_change":
                arm[field] = abs(change["to"] / arm["last"] - 1) * (1 + 1e-12)
            elif field == "available":
                arm |= {"available": True, "readiness": None}
            else:
                arm[field] = change["to"]
        else:
            made[change["limit"]] = change["to"]
    return made

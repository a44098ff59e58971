"""Contradictory limits: the set named is the smallest, the repair the nearest, by another formulation of each."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from campaigns.domain import conflict, optimizer, reach
from campaigns.domain.elastic import FIRM, WEIGHTS
from campaigns.domain.problem import read
from tests.campaigns import attack, budgets

FAR = 1e4


def contradictory(seed: int, arms: int, groups: int, *, floors: bool) -> dict[str, Any]:
    """Arms with floors, caps, gates and empty shelves in groups that cross, asking for more than there is."""
    rng = np.random.default_rng(seed)
    made: list[dict[str, Any]] = []
    for place in range(arms):
        spend = np.cumsum(rng.uniform(5, 40, 4))
        slope = np.sort(rng.uniform(0.2, 6, 4))[::-1]
        sales = np.cumsum(slope * np.diff(np.r_[0, spend]))
        points = [[float(x), float(y)] for x, y in zip(spend, sales, strict=True)]
        arm: dict[str, Any] = {
            "id": f"a{place}",
            "curve": {"kind": "piecewise", "points": points},
            "min": 0.0,
            "max": None,
        }
        draw = rng.random()
        if draw < 0.35:
            arm["min"] = float(rng.uniform(5, 40))
            arm["max"] = float(rng.uniform(40, 60)) if rng.random() < 0.6 else None
        elif draw < 0.6:
            arm["min_if_on"] = float(rng.uniform(20, 50))
            arm["max"] = float(rng.uniform(50, 60)) if rng.random() < 0.6 else None
        elif draw < 0.7:
            arm["available"] = False
        else:
            arm["max"] = float(rng.uniform(5, 40))
        made.append(arm)
    found = []
    for place in range(groups):
        members = [f"a{k}" for k in range(arms) if rng.random() < 0.5] or ["a0"]
        low = float(rng.uniform(10, 120)) if rng.random() < 0.7 else None
        high = float(rng.uniform(low or 10, 140)) if rng.random() < 0.6 else None
        group = {"id": f"g{place}", "arms": members, "min": low, "max": high}
        if floors and rng.random() < 0.4:
            group["min_roas"] = float(rng.uniform(1, 8))
        found.append(group)
    return {
        "total_budget": float(rng.uniform(30, 200)),
        "spend_all": bool(rng.random() < 0.5),
        "min_roas": float(rng.uniform(1, 8)) if floors and rng.random() < 0.4 else None,
        "arms": made,
        "groups": found,
    }  # fmt: skip


def limits_of(given: dict[str, Any]) -> list[str]:
    names = ["total_budget"] + ["spend_all"] * given["spend_all"] + ["min_roas"] * bool(given["min_roas"])
    for place, arm in enumerate(given["arms"]):
        if arm.get("available") is False:
            names.append(f"arms[{place}].available")
            continue
        names += [f"arms[{place}].{key}" for key in ("min", "max", "min_if_on") if arm.get(key)]
    for place, group in enumerate(given["groups"]):
        names += [f"groups[{place}].{key}" for key in ("min", "max", "min_roas") if group.get(key)]
    return names


def least_distance(given: dict[str, Any], kept: set[str] | None = None) -> float:
    """Arm by arm, in one mixed-integer program: the least weighted money by which limits move.

    With ``kept`` those limits are asked for and no others: 0 where a plan keeps them, else infinite.
    """
    n, names = len(given["arms"]), limits_of(given)
    size = 3 * n + len(names)  # spends, sales, switches, and how far each limit gives way
    lines: list[np.ndarray] = []
    sides: list[tuple[float, float]] = []
    cost, top = np.zeros(size), np.full(size, np.inf)
    top[:n], top[2 * n : 3 * n] = FAR, 1.0
    floors = {"min_roas": list(range(n))} | {
        f"groups[{k}].min_roas": [int(name[1:]) for name in group["arms"]] for k, group in enumerate(given["groups"])
    }
    stands = max((sum(k in floors[name] for name in names if name in floors) for k in range(n)), default=0)

    def line(low: float, high: float, **parts: Any) -> None:
        row = np.zeros(size)
        for key, value in parts.items():
            place, kind = int(key[1:]), "xsz".index(key[0]) if key[0] in "xsz" else 3
            row[kind * n + place] = value
        lines.append(row)
        sides.append((low, high))

    for k, arm in enumerate(given["arms"]):
        line(-np.inf, 0.0, **{f"x{k}": 1.0, f"z{k}": -FAR})
        points = np.array([[0.0, 0.0], *arm["curve"]["points"]])
        slopes = [*(np.diff(points[:, 1]) / np.diff(points[:, 0])), 0.0]
        for (x, y), slope in zip(points, slopes, strict=True):
            line(-np.inf, y - slope * x, **{f"s{k}": 1.0, f"x{k}": -slope})
    for place, name in enumerate(names):
        part, _, field = name.partition("].")
        give, weight = f"e{place}", 1.0
        if kept is not None:
            top[3 * n + place] = 0.0
            if name not in kept or (name == "spend_all" and "total_budget" not in kept):
                continue
        if name in floors:
            level = given["min_roas"] if name == "min_roas" else given["groups"][int(part[7:])]["min_roas"]
            sums = {f"x{k}": 1.0 for k in floors[name]} | {f"s{k}": -1.0 / level for k in floors[name]}
            line(-np.inf, 0.0, **sums, **{give: -1.0})
            weight = 1.0 / stands
        elif part.startswith("arms["):
            k, arm = int(part[5:]), given["arms"][int(part[5:])]
            if field == "min":
                line(arm["min"], np.inf, **{f"x{k}": 1.0, give: 1.0})
                weight = WEIGHTS["low"]
            elif field == "min_if_on":
                line(0.0, np.inf, **{f"x{k}": 1.0, f"z{k}": -arm["min_if_on"], give: 1.0})
                weight = WEIGHTS["gate"]
            else:
                line(-np.inf, 0.0 if field == "available" else arm["max"], **{f"x{k}": 1.0, give: -1.0})
                weight = FIRM if field == "available" else WEIGHTS["high"]
        else:
            whole = not part.startswith("groups[")
            group = {} if whole else given["groups"][int(part[7:])]
            sums = {f"x{k}": 1.0 for k in (range(n) if whole else (int(name[1:]) for name in group["arms"]))}
            if name == "spend_all" or field == "min":
                line(given["total_budget"] if whole else group["min"], np.inf, **sums, **{give: 1.0})
                weight = WEIGHTS["sum_low"]
            else:
                line(-np.inf, given["total_budget"] if whole else group["max"], **sums, **{give: -1.0})
                weight = WEIGHTS["budget" if whole else "sum_high"]
        cost[3 * n + place] = weight
    answer = milp(
        cost,
        integrality=np.repeat([0, 0, 1, 0], [n, n, n, len(names)]),
        bounds=Bounds(np.zeros(size), top),
        constraints=[LinearConstraint(np.array(lines), *np.array(sides).T)],
        options={"mip_rel_gap": 0.0},
    )
    return np.inf if answer.x is None else float(cost @ answer.x)


@pytest.mark.parametrize("floors", [False, True])
@pytest.mark.parametrize("block", range(4))
def test_a_repair_is_the_nearest_of_all_whatever_kinds_of_limits_it_needs(block: int, *, floors: bool) -> None:
    seen = 0
    for seed in range(100 * block, 100 * block + 15):
        given = contradictory(seed, 8, 4, floors=floors)
        plan = optimizer.solve(given)
        least = least_distance(given)
        assert (plan["status"] == "infeasible") == (least > 1e-6), seed
        if plan["status"] != "infeasible":
            continue
        seen += 1
        repair = plan["repair"]
        assert repair["nearest"]
        assert repair["distance"] == pytest.approx(least, rel=1e-6), seed
        assert repair["money"] == pytest.approx(sum(change["money"] for change in repair["changes"]))
        after = optimizer.solve(attack.repaired(given, repair["changes"]))
        assert after["status"] != "infeasible", (seed, repair)
    assert seen >= 3


def test_a_repair_moves_no_more_money_than_its_changes_say() -> None:
    given = contradictory(3, 8, 4, floors=False)
    for change in optimizer.solve(given)["repair"]["changes"]:
        if change["limit"] == "spend_all":
            assert change["money"] == pytest.approx(given["total_budget"] - change["spend"])
        else:
            assert change["money"] == pytest.approx(abs(change["to"] - change["from"]))


@pytest.mark.parametrize("seed", range(24))
def test_no_set_of_fewer_limits_is_a_conflict(seed: int) -> None:
    """Every smaller set of limits is tried, one after another."""
    given = contradictory(seed, 5, 3, floors=seed % 2 == 1)
    plan = optimizer.solve(given)
    if plan["status"] != "infeasible":
        return
    assert "No smaller" not in plan["explanation"]
    assert least_distance(given, set(plan["conflict"])) == np.inf
    for count in range(1, len(plan["conflict"])):
        for tried in itertools.combinations(limits_of(given), count):
            assert least_distance(given, set(tried)) < np.inf, (tried, plan["conflict"])


def test_the_fewest_floors_are_named_where_any_of_many_would_do() -> None:
    curve = {"kind": "log", "scale": 10, "half": 10}
    arms = [{"id": f"a{k}", "min": 1.0 + k % 7, "retailer": f"r{k % 3}", "curve": curve} for k in range(60)]
    groups = [{"id": f"g{k}", "where": {"retailer": f"r{k}"}, "max": 1000} for k in range(3)]
    plan = optimizer.solve({"total_budget": 50, "arms": arms, "groups": groups})
    assert len(plan["conflict"]) == 1 + 8  # eight of 7 pass 50, seven of them do not
    assert "No smaller" not in plan["explanation"]


def test_where_the_search_for_fewer_is_cut_off_the_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflict, "MANY", 0)
    curve = {"kind": "log", "scale": 10, "half": 10}
    arms = [{"id": f"a{k}", "min": 10, "curve": curve} for k in range(5)]
    plan = optimizer.solve({"total_budget": 35, "arms": arms})
    assert len(plan["conflict"]) == 5
    assert "No smaller set of limits that contradict each other was found within" in plan["explanation"]


def over_weeks(kind: str, *, spend_all: bool, group: bool) -> dict[str, Any]:
    """Arms whose spend carries over, asked for more return than they can bring."""
    given = budgets.problem(4, 2, kind, spend_all=spend_all) | {"time_limit_s": 600.0}
    given["periods"] = {"weeks": 4, "adstock": {arm["tactic"]: 0.5 for arm in given["arms"]}}
    given["arms"][0] |= {"min": 0.3 * given["arms"][0]["max"], "readiness": [1.0, 0.0, 0.5, 1.0]}
    if group:
        named = [arm["id"] for arm in given["arms"][:2]]
        return given | {"groups": [{"id": "floored", "arms": named, "min_roas": 20.0}]}
    return given | {"min_roas": 20.0, "groups": []}


@pytest.mark.parametrize(("spend_all", "group"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("kind", ["michaelis_menten", "log", "power", "piecewise"])
def test_over_weeks_a_repair_is_proved_nearest_and_the_weekly_plan_keeps_it(
    kind: str, *, spend_all: bool, group: bool
) -> None:
    given = over_weeks(kind, spend_all=spend_all, group=group)
    plan = optimizer.solve(given)
    assert plan["status"] == "infeasible"
    assert any(name.endswith("min_roas") for name in plan["conflict"])
    repair = plan["repair"]
    assert repair["nearest"]
    assert optimizer.solve(attack.repaired(given, repair["changes"]))["status"] == "optimal"
    if spend_all:  # the spend is given: no plan returns more
        more = [
            change | {"to": change["to"] + 1e-4} if change["limit"] == "min_roas" else change
            for change in repair["changes"]
        ]
        assert more != repair["changes"]
        assert optimizer.solve(attack.repaired(given, more))["status"] == "infeasible"


@pytest.mark.parametrize("kind", ["michaelis_menten", "log", "power", "piecewise"])
def test_what_a_total_brings_at_best_is_what_the_weekly_plan_brings(kind: str) -> None:
    given = over_weeks(kind, spend_all=True, group=False) | {"min_roas": None}
    given["arms"] = given["arms"][:1]
    given["arms"][0] |= {"min": 0.0, "max": None, "min_if_on": None}
    given["periods"]["adstock"] = {given["arms"][0]["tactic"]: 0.5}
    curves = reach.reached(read(given), np.array([0]), 300.0)
    for budget in (1.0, 40.0, 300.0):
        sold = optimizer.solve(given | {"total_budget": budget})["objective"]
        assert np.interp(budget, *curves.points[0].T) == pytest.approx(sold, rel=2e-6)

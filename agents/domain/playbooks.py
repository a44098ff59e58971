"""Declared plans for the common goals: they run without any model, and say that they did."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Steps = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Playbook:
    """A goal's steps. ``words`` tell that a goal means it; ``steps`` are (tool, arguments)."""

    name: str
    title: str
    words: tuple[str, ...]
    steps: Steps
    adjust: Callable[[str], dict[str, Any]] = field(default=lambda _: {})  # goal -> arguments of allocate_budget


def _money(goal: str) -> dict[str, Any]:
    """A budget named in the goal: 250,000 or 250k or 1.5m."""
    found = re.search(
        r"(?i)(?:[$€£]|usd|eur|gbp)\s?(\d[\d.,]*)\s?([km])?|(\d[\d,]*(?:\.\d+)?)\s?([km])?\s?(?:dollars|usd|eur|gbp|budget)",
        goal,
    )
    if not found:
        return {}
    digits, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    try:
        value = float(digits.replace(",", "").rstrip("."))
    except ValueError:
        return {}
    value *= {"k": 1e3, "m": 1e6}.get((unit or "").lower(), 1.0)
    return {"total_budget": value} if value >= 100 else {}  # smaller ones are counts


def _month(goal: str) -> dict[str, Any]:
    weeks = 4 if re.search(r"(?i)\bmonth", goal) else 1 if re.search(r"(?i)\bweek\b", goal) else 13
    return {"weeks": weeks}


def _sold_out(goal: str) -> dict[str, Any]:
    """Arms named as out of stock, between quotes or after "of"."""
    named = re.findall(r"[\"'“]([^\"'”]{2,80})[\"'”]", goal)
    return {"unavailable": named} if named else {}


PLAYBOOKS = (
    Playbook(
        "reallocate_after_stock_out",
        "Move money away from what cannot be sold",
        (r"stock", r"out of stock", r"reallocat\w*", r"re-?distribut\w*", r"shift", r"move"),
        [("harmonize_status", {}), ("read_metrics", {}), ("recall_lessons", {"about": "stock"}), ("fit_response", {}), ("allocate_budget", {})],
        lambda goal: {**_month(goal), **_money(goal), **_sold_out(goal)},
    ),
    Playbook(
        "prove_a_network",
        "Find out what a network really brings",
        (r"prove", r"proof", r"incremental\w*", r"experiment", r"test", r"lift", r"measure\w*", r"holdout", r"geo"),
        [("harmonize_status", {}), ("read_metrics", {}), ("recall_lessons", {"about": "experiment"}), ("design_experiment", {})],
    ),
    Playbook(
        "launch_a_product",
        "Bring a new product to the shelf",
        (r"launch\w*", r"new product", r"introduc\w*", r"release"),
        [("harmonize_status", {}), ("read_metrics", {}), ("recall_lessons", {"about": "launch"}), ("fit_response", {}), ("allocate_budget", {}), ("design_experiment", {})],
        lambda goal: {**_month(goal), **_money(goal)},
    ),
    Playbook(
        "quarterly_plan",
        "Split the next period's budget",
        (r"quarter\w*", r"budget\w*", r"plan\w*", r"allocat\w*", r"split", r"spend\w*", r"next (?:month|period|year)"),
        [("harmonize_status", {}), ("read_metrics", {}), ("recall_lessons", {"about": "budget"}), ("fit_response", {}), ("allocate_budget", {}), ("what_if", {"budgets": []})],
        lambda goal: {**_month(goal), **_money(goal)},
    ),
)  # fmt: skip


def choose(goal: str) -> Playbook | None:
    """The playbook whose words the goal has most of; None where it has none of any."""
    scored = [
        (sum(bool(re.search(rf"(?i)\b{word}\b", goal)) for word in one.words), -place, one)
        for place, one in enumerate(PLAYBOOKS)
    ]
    best = max(scored, key=lambda found: found[:2])
    return best[2] if best[0] else None


def steps(playbook: Playbook, goal: str) -> Steps:
    """The playbook's steps with what the goal says filled in."""
    found: Steps = []
    for tool, arguments in playbook.steps:
        found.append((tool, {**arguments, **(playbook.adjust(goal) if tool == "allocate_budget" else {})}))
    return found

"""A recommendation as people read it: words, a plan as picture and table, a test as its curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from campaigns import charts as campaign_charts
from campaigns.models import Recommendation
from feedback import charts
from feedback.domain.formats import prompt_messages
from rmn.lib import words
from rmn.lib.charts import Picture

LONG = 160  # characters; longer texts are set smaller
ROWS = 12


@dataclass(frozen=True)
class Draft:
    """What is judged. Nothing in it hints at who or what wrote it."""

    words: str
    note: str = ""
    picture: Picture | None = None
    table: dict[str, Any] | None = None

    @property
    def is_long(self) -> bool:
        return len(self.words) > LONG


def draft(one: Recommendation, key: str = "draft") -> Draft:
    """The draft of a recommendation; ``key`` tells its picture from another one's on the same page."""
    content = one.content if isinstance(one.content, Mapping) else {}
    if content.get("allocations"):
        return _plan(one, content, key)
    found = _experiment(one, content, key)
    return found or Draft(one.text or one.title)


def _plan(one: Recommendation, content: Mapping[str, Any], key: str) -> Draft:
    plan = one.plan
    arms = {arm["id"]: arm for arm in (plan.problem.get("arms", []) if plan else [])}
    last = {name: float(arm.get("last") or 0.0) for name, arm in arms.items()}
    currency = plan.currency if plan else ""
    rows = sorted(content["allocations"], key=lambda row: -float(row["spend"]))
    assumed = campaign_charts.ASSUMED if content.get("spend_assumed") else ""
    names = {row["id"]: spoken(row["id"], arms.get(row["id"], {})) for row in rows}
    table = {
        "title": f"Spend by arm{_side(key)}",
        "heads": ["Arm", "Now", "Plan", "Change", "Sales", "Next unit brings"],
        "rows": [_arm(row, names[row["id"]], last.get(row["id"])) for row in rows[:ROWS]],
    }
    rest = len(rows) - ROWS
    note = " ".join(
        part
        for part in (
            f"In {currency}." if currency else "",
            f"The {ROWS} largest of {len(rows)} arms." if rest > 0 else "",
            assumed,
        )
        if part
    )
    drawn = campaign_charts.allocation(rows[:ROWS], names, last, currency, assumed)
    return Draft(one.text, note, replace(drawn, key=key), table)


def _side(key: str) -> str:
    """Which of two it is, for those who hear the page."""
    return f" of {key[-1].upper()}" if key in ("draft-a", "draft-b") else ""


def _arm(row: Mapping[str, Any], name: str, last: float | None) -> list[str]:
    spend = float(row["spend"])
    change = "–" if last is None else f"{spend - last:+,.0f}"
    sales, margin = row.get("expected_sales"), row.get("marginal_roas")
    return [
        name,
        "–" if last is None else f"{last:,.0f}",
        f"{spend:,.0f}",
        change,
        "–" if sales is None else f"{float(sales):,.0f}",
        "–" if margin is None else f"{float(margin):.2f}",
    ]


def spoken(arm: str, facts: Mapping[str, Any]) -> str:
    """An arm as people call it: its campaign and tactic, else the end of its id."""
    campaign, tactic = str(facts.get("campaign") or ""), str(facts.get("tactic") or "")
    tail = arm.rpartition("/")[2]
    return f"{tactic} {campaign or tail}".strip() if tactic and tactic not in (campaign or tail) else campaign or tail


def _experiment(one: Recommendation, content: Mapping[str, Any], key: str) -> Draft | None:
    test = one.experiment
    result = content.get("result") or (test.result if test else {}) or {}
    design = content.get("design") or (test.design if test else {}) or {}
    drawn = charts.effect(result.get("series") or [], key)
    if drawn is not None:
        return Draft(one.text or one.title, _finding(result), drawn[0])
    candidates = [c for c in design.get("candidates", []) if isinstance(c, Mapping)]
    if not candidates:
        return Draft(one.text or one.title, _finding(result)) if result else None
    table = {
        "title": f"Candidate tests{_side(key)}",
        "heads": ["Stores or regions", "Smallest effect found", "Chance", "False alarms"],
        "rows": [
            [
                ", ".join(str(unit) for unit in candidate.get("units", []))[:80],
                words.share(candidate.get("mde"), 1),
                words.share(candidate.get("power")),
                words.share(candidate.get("false_positive_rate"), 1),
            ]
            for candidate in candidates[:ROWS]
        ],
    }
    return Draft(one.text or one.title, "", charts.power(candidates[0].get("power_at") or {}, key), table)


def _finding(result: Mapping[str, Any]) -> str:
    verdict = str(result.get("verdict", "")).replace("_", " ")
    interval = result.get("interval")
    if not interval:
        return verdict
    return f"{verdict}: between {words.full(interval[0])} and {words.full(interval[1])}".strip(": ")


def brief(one: Recommendation) -> str:
    """What was asked, in words."""
    if not one.prompt:
        return ""
    return "\n".join(m["content"] for m in prompt_messages(one.prompt) if m["role"] == "user") or one.prompt

"""Spend to date against the plan: who is over, who is under, where each ends, and who runs out of money before the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

ON_PACE = 0.1  # of the money planned to date: less is no deviation worth a word


@dataclass(frozen=True)
class Pace:
    """One arm's money on a day of the plan."""

    arm: str
    name: str
    planned: float  # for the whole period
    planned_to_date: float
    spent: float
    projected: float  # spend at the end if it goes on as in the days seen
    caps_out: date | None  # the day on which the planned money is spent, where that is before the end

    @property
    def off(self) -> float:
        """Spent over (above 0) or under what was planned to date."""
        return self.spent - self.planned_to_date

    @property
    def state(self) -> str:
        if self.caps_out is not None:
            return "runs out"
        if self.planned_to_date <= 0:
            return "not planned" if self.spent > 0 else "on pace"
        share = self.off / self.planned_to_date
        return "on pace" if abs(share) <= ON_PACE else "over" if share > 0 else "under"


def pace(
    allocations: Sequence[Mapping[str, Any]],
    spent: Mapping[str, float],
    *,
    start: date,
    end: date,
    seen_to: date,
    names: Mapping[str, str] | None = None,
) -> list[Pace]:
    """The arms of a plan, those furthest off first.

    Args:
        allocations: of a PLAN; ``weeks`` where it was made by weeks, else spend is planned evenly.
        spent: by arm, from ``start`` to ``seen_to``.
        start: first day of the plan.
        end: its last day.
        seen_to: last day that reports cover; before ``start`` nothing has been seen.
        names: by arm, what people call it.
    """
    days = (end - start).days + 1
    gone = min(max((seen_to - start).days + 1, 0), days)
    found = []
    for row in allocations:
        planned, had = float(row["spend"]), float(spent.get(row["id"], 0.0))
        per_day = had / gone if gone else 0.0
        projected = had + per_day * (days - gone) if gone else planned
        caps_out = None
        if planned > 0 and projected > planned * (1 + ON_PACE) and per_day > 0:
            caps_out = min(start + timedelta(days=int(planned / per_day)), end)
        found.append(
            Pace(
                arm=row["id"],
                name=(names or {}).get(row["id"], row["id"]),
                planned=planned,
                planned_to_date=_to_date(row, gone, days),
                spent=had,
                projected=projected,
                caps_out=caps_out,
            )
        )
    return sorted(found, key=lambda one: -abs(one.off))


def _to_date(row: Mapping[str, Any], gone: int, days: int) -> float:
    weeks = row.get("weeks")
    if not weeks:
        return float(row["spend"]) * gone / days
    length = days / len(weeks)  # the plan's weeks share its days evenly
    return float(sum(money * min(max((gone - place * length) / length, 0.0), 1.0) for place, money in enumerate(weeks)))

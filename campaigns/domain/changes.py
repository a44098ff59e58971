"""From a plan to what somebody has to change: today's budgets beside the plan's, and files that networks take.

Money is a plan's total per arm; per day where a network wants daily budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CENT = 0.005


@dataclass(frozen=True)
class Change:
    """One arm's budget: what it is, what the plan makes of it, and whether its change limit holds."""

    arm: str
    name: str
    network: str
    campaign: str  # the network's own id of it
    old: float | None
    old_is: str  # budget, spend of the last period, or unknown
    new: float
    days: int
    limit: float | None  # largest change allowed, as a share of last period's spend
    tactic: str = ""  # the network's word for what kind of campaign it is

    @property
    def difference(self) -> float | None:
        return None if self.old is None else self.new - self.old

    @property
    def share(self) -> float | None:
        return None if not self.old else self.new / self.old - 1.0

    @property
    def new_per_day(self) -> float:
        return self.new / self.days

    @property
    def old_per_day(self) -> float | None:
        return None if self.old is None else self.old / self.days

    @property
    def within(self) -> bool | None:
        """None where the arm has no change limit."""
        if self.limit is None or self.old is None:
            return None
        return abs(self.new - self.old) <= self.limit * self.old + CENT

    @property
    def changes(self) -> bool:
        return self.difference is None or abs(self.difference) >= CENT


def change_set(
    problem: Mapping[str, Any],
    allocations: Sequence[Mapping[str, Any]],
    *,
    days: int,
    names: Mapping[str, str] | None = None,
    budgets: Mapping[str, float] | None = None,
) -> list[Change]:
    """What a plan changes, the largest change first.

    Args:
        problem: PROBLEM, whose arms carry ``last`` and ``max_change``.
        allocations: of its PLAN.
        days: length of the plan.
        names: by arm, what people call it.
        budgets: by arm, the budget that stands at the network for so many days; without one, what was spent
            in the last period (``last``) is taken.
    """
    arms = {arm["id"]: arm for arm in problem.get("arms", [])}
    found = []
    for row in allocations:
        arm = arms.get(row["id"], {})
        budget, last = (budgets or {}).get(row["id"]), arm.get("last")
        old = last if budget is None else budget
        parts = row["id"].split("/")
        found.append(
            Change(
                arm=row["id"],
                name=(names or {}).get(row["id"], arm.get("name") or row["id"]),
                network=parts[1] if len(parts) == 3 else str(arm.get("retailer") or ""),
                campaign=str(arm.get("campaign") or ""),
                old=None if old is None else float(old),
                old_is="budget" if budget is not None else "last period's spend" if last is not None else "unknown",
                new=float(row["spend"]),
                days=days,
                limit=arm.get("max_change"),
                tactic=str(arm.get("tactic") or ""),
            )
        )
    return sorted(found, key=lambda one: -abs(one.difference if one.difference is not None else one.new))


HEADS = ("arm", "name", "campaign_id", "old", "old_is", "new", "difference", "change", "largest_change", "within_limit", "old_per_day", "new_per_day", "currency")  # fmt: skip


def rows(changes: Sequence[Change], currency: str) -> list[list[Any]]:
    """The change set as a table under ``HEADS``; money to the cent."""
    return [
        [
            one.arm, one.name, one.campaign, _cents(one.old), one.old_is, _cents(one.new), _cents(one.difference),
            None if one.share is None else round(one.share, 4), one.limit,
            {True: "yes", False: "no", None: "no limit"}[one.within], _cents(one.old_per_day), _cents(one.new_per_day),
            currency,
        ]
        for one in changes
    ]  # fmt: skip


def _cents(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


@dataclass(frozen=True)
class Upload:
    """A network's own bulk file for changing campaign budgets."""

    words: str
    heads: tuple[str, ...]
    source: str  # where the columns stand
    tactics: tuple[str, ...] = ()  # kinds of campaign that these columns change; all where empty

    def rows(self, changes: Sequence[Change]) -> list[list[Any]]:
        said = {
            "Product": "Sponsored Products",
            "Entity": "Campaign",
            "Operation": "Update",
            "Action": "Edit",
            "Item type": "Campaign",
        }
        out = []
        for one in changes:
            if self.tactics and one.tactic.startswith("sponsored") and one.tactic not in self.tactics:
                continue
            own = {
                "Campaign ID": one.campaign,
                "Campaign": one.name,
                "Daily Budget": _cents(one.new_per_day),
                "Budget": _cents(one.new_per_day),
            }
            out.append([own.get(head, said.get(head)) for head in self.heads])
        return out


UPLOADS = {  # networks whose columns are public; for the others the plain change set is what there is
    "amazon_ads": Upload(
        "Amazon Ads bulk operations, Sponsored Products",
        ("Product", "Entity", "Operation", "Campaign ID", "Daily Budget"),
        "Amazon Ads, bulk operations: an update names product, entity, operation, the id and what changes",
        ("sponsored_products",),
    ),
    "google_ads": Upload(
        "Google Ads bulk upload, campaigns",
        ("Action", "Campaign ID", "Campaign", "Budget"),
        "Google Ads, bulk uploads: campaign management template",
    ),
}
OTHER_NAMES = {"amazon": "amazon_ads", "google": "google_ads", "google_ads_offsite": "google_ads"}


def upload_for(network: str) -> Upload | None:
    return UPLOADS.get(OTHER_NAMES.get(network, network))

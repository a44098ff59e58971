"""The same money in several reports: which one to count, and where they disagree.

A network reports one account's spend by campaign, by product, by keyword ... These are views of the
same money, so a total takes ONE of them. Comparing them is the best check a user can have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

# Coarsest first: it misses least (search-term reports hold only terms with a click).
GRAIN_ORDER = (
    "account",
    "campaign",
    "ad_group",
    "ad",
    "product",
    "keyword",
    "placement",
    "search_term",
    "store",
    "category",
    "purchased_product",
    "transaction",
)
PARTIAL = frozenset({"search_term", "purchased_product", "transaction"})  # by design less than the whole
TOLERANCE = Decimal("0.005")


@dataclass(frozen=True)
class Slice:
    """What one grain says of one account and ad product in one currency.

    Attributes:
        where: (retailer, network, account, ad product, currency), the scope within which grains are
            views of the same money.
        spend, clicks, impressions: sums over the slice; None where the report has no such column.
    """

    where: tuple[str, ...]
    grain: str
    rows: int
    spend: Decimal | None
    clicks: int | None = None
    impressions: int | None = None


@dataclass(frozen=True)
class Gap:
    """Two grains of the same account that do not agree."""

    where: tuple[str, ...]
    measure: str
    grain: str
    value: Decimal
    against_grain: str
    against: Decimal
    ratio: float | None
    note: str


def choose(slices: Iterable[Slice]) -> dict[tuple[str, ...], str]:
    """The one grain to count in each scope: the coarsest that carries spend, else the coarsest."""
    chosen: dict[tuple[str, ...], Slice] = {}
    for part in slices:
        best = chosen.get(part.where)
        if best is None or _rank(part) < _rank(best):
            chosen[part.where] = part
    return {where: part.grain for where, part in chosen.items()}


def _rank(part: Slice) -> tuple[bool, int]:
    place = GRAIN_ORDER.index(part.grain) if part.grain in GRAIN_ORDER else len(GRAIN_ORDER)
    return part.spend is None, place


def gaps(slices: Iterable[Slice], tolerance: Decimal = TOLERANCE) -> list[Gap]:
    """Where a grain's sums differ from those of the grain that is counted, by more than ``tolerance``.

    Grains that hold less by design (search terms, purchased products) are only said to exceed.
    """
    parts = list(slices)
    counted = choose(parts)
    found: list[Gap] = []
    for part in parts:
        base = next(p for p in parts if p.where == part.where and p.grain == counted[part.where])
        if base is part:
            continue
        for measure in ("spend", "clicks", "impressions"):
            value, against = getattr(part, measure), getattr(base, measure)
            if value is None or against is None:
                continue
            value, against = Decimal(value), Decimal(against)
            if abs(value - against) <= tolerance * max(abs(value), abs(against)):
                continue
            if part.grain in PARTIAL and value < against:
                continue
            ratio = float(value / against) if against else None
            found.append(Gap(part.where, measure, part.grain, value, base.grain, against, ratio, _note(ratio)))
    return found


def _note(ratio: float | None) -> str:
    if ratio is None:
        return "one of the reports is empty"
    for power in range(1, 7):
        for factor in (10.0**power, 10.0**-power):
            if abs(ratio / factor - 1) < 0.02:
                return f"a factor of {factor:g}: is the unit of one mapping wrong?"
    return "reports of different days, filters or restatement"

"""The same money in several reports: which one to count, and where they disagree.

A network reports one account's spend by campaign, by product, by keyword ... These are views of the
same money, so a total takes ONE of them. Comparing them is the best check a user can have.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
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
        where: (retailer, network, account, ad product, currency, brand), the scope within which grains
            are views of the same money.
        spend, clicks, impressions: sums over the slice; None where the report has no such column.
    """

    where: tuple[str, ...]
    grain: str
    rows: int
    spend: Decimal | None
    clicks: int | None = None
    impressions: int | None = None


@dataclass(frozen=True)
class Report:
    """That one grain tells of one period of one account, in one currency; ``where`` as in ``Slice``.

    Attributes:
        start, end: first and last day, both counted.
        spends: it carries spend.
        hourly: its rows are hours of the day.
    """

    where: tuple[object, ...]
    grain: str
    start: date
    end: date
    spends: bool = True
    hourly: bool = False

    @property
    def days(self) -> range:
        return range(self.start.toordinal(), self.end.toordinal() + 1)

    @property
    def weakness(self) -> tuple[bool, bool]:
        """How little it can stand for the whole; False before True."""
        return not self.spends, self.grain in PARTIAL


def report_number(where: tuple[object, ...], grain: str, start: date, end: date, hourly: bool) -> int:
    """The number that rows of one report share: 62 bits of the SHA-256 of what ``Report`` says, spend apart.

    Rows are grouped and chosen by it in place of nine columns.
    """
    said = json.dumps([*map(str, where), grain, str(start), str(end), hourly])
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big") >> 2


@dataclass
class Sums:
    """What a report adds up to, and the numbers its rows go by."""

    numbers: list[int]
    rows: int = 0
    spend: Decimal | None = None
    clicks: int | None = None
    impressions: int | None = None

    def add(self, other: Sums) -> None:
        self.numbers += other.numbers
        self.rows += other.rows
        for name in ("spend", "clicks", "impressions"):
            more, mine = getattr(other, name), getattr(self, name)
            if more is not None:
                setattr(self, name, more if mine is None else mine + more)


@dataclass(frozen=True)
class Overlap:
    """Days that reports of unequal periods tell of, such as a weekly report beside daily rows.

    Attributes:
        grain, against_grain: of the report left out, and of the one counted.
        step, against_step: the longest of their periods, in days.
        days: how many days both tell of, from ``first`` to ``last``.
        missed: days that only a report left out tells of, because its period reaches over a counted one's end.
    """

    where: tuple[object, ...]
    grain: str
    step: int
    against_grain: str
    against_step: int
    days: int
    first: date
    last: date
    missed: int


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
    return part.spend is None, _place(part.grain)


def _place(grain: str) -> int:
    return GRAIN_ORDER.index(grain) if grain in GRAIN_ORDER else len(GRAIN_ORDER)


def counted(reports: Iterable[Report]) -> set[Report]:
    """The reports to add up, no two of which tell of the same day of the same account.

    On each day the coarsest grain that carries spend counts, so days that only a finer report has are
    kept. Of unequal periods the longer counts, as it misses no day, unless shorter ones tell of all its days.
    """
    kept: set[Report] = set()
    for known in _by_account(reports):
        starts = [report.start for report in known]
        taken: set[int] = set()
        for report in sorted(known, key=_order):
            inside = known[bisect_left(starts, report.start) : bisect_right(starts, report.end)]
            if taken.isdisjoint(report.days) and not _told_in_parts(report, inside):
                taken.update(report.days)
                kept.add(report)
    return kept


def overlaps(reports: Iterable[Report]) -> list[Overlap]:
    """Where reports of unequal periods tell of the same days: one is counted, and a person should know."""
    found: list[Overlap] = []
    for known in _by_account(reports):
        kept = counted(known)
        owner = {day: report for report in kept for day in report.days}
        both: dict[tuple[str, str], set[int]] = defaultdict(set)
        missed: dict[tuple[str, str], set[int]] = defaultdict(set)
        steps: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
        for report in known:
            if report in kept:
                continue
            unowned = {day for day in report.days if day not in owner}
            for day in report.days:
                other = owner.get(day)
                if other is None or other.days == report.days:
                    continue
                pair = report.grain, other.grain
                both[pair].add(day)
                missed[pair] |= unowned
                steps[pair] = max(steps[pair][0], len(report.days)), max(steps[pair][1], len(other.days))
        found += [
            Overlap(
                known[0].where,
                pair[0],
                steps[pair][0],
                pair[1],
                steps[pair][1],
                len(days),
                date.fromordinal(min(days)),
                date.fromordinal(max(days)),
                len(missed[pair]),
            )
            for pair, days in sorted(both.items())
        ]
    return found


def _by_account(reports: Iterable[Report]) -> list[list[Report]]:
    """Each account's reports, by their first day."""
    accounts: dict[tuple[object, ...], list[Report]] = defaultdict(list)
    for report in reports:
        accounts[report.where].append(report)
    return [sorted(known, key=lambda report: report.start) for known in accounts.values()]


def _order(report: Report) -> tuple[bool, int, int, bool, date]:
    return not report.spends, -len(report.days), _place(report.grain), report.hourly, report.start


def _told_in_parts(report: Report, inside: list[Report]) -> bool:
    """Whether shorter reports, no weaker, tell of every day of this one."""
    days: set[int] = set()
    if len(report.days) > 1:
        for part in inside:
            if part.end <= report.end and len(part.days) < len(report.days) and part.weakness <= report.weakness:
                days.update(part.days)
    return len(days) == len(report.days)


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

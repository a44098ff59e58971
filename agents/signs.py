"""Early signs: what the newest data say of the ways in which a decision may be failing.

Each is a measure of ``domain.reflection.PREMORTEM``; what cannot be told yet is left out, and does not fire.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import date, timedelta
from statistics import fmean
from typing import Any

from agents import forecasts
from agents.models import Adapter, AdapterAlias, CleanRoomQuery, Generation
from campaigns import history
from campaigns.models import BudgetPlan, Experiment
from feedback.models import Feedback

WEEK = timedelta(weeks=1)
BEFORE = 4  # weeks before, that the newest ones are held against
SOONEST = timedelta(days=13)  # after a beginning; less says nothing
LEAST_TEXTS, NEWEST_TEXTS = 20, 200
SERVING = (AdapterAlias.Name.CHAMPION, AdapterAlias.Name.CHALLENGER)


def read(subject: BudgetPlan | Experiment | CleanRoomQuery | Adapter, today: date) -> dict[str, float]:
    """By measure, what is seen of a decision that is being carried out; nothing of one that is not."""
    if isinstance(subject, CleanRoomQuery):  # answered once: nothing is carried on
        return {}
    how: Any = {BudgetPlan: _plan, Experiment: _experiment, Adapter: _adapter}[type(subject)]
    seen: dict[str, float] = how(subject, today)
    return seen


def _plan(plan: BudgetPlan, today: date) -> dict[str, float]:
    """The newest reports of an approved plan's own period."""
    start, end = plan.period_start, min(plan.period_end or today, today)
    if plan.state != BudgetPlan.State.APPROVED or start is None:
        return {}
    arms = {row["id"] for row in plan.allocations}

    def seen(first: date, last: date) -> tuple[float, float, float]:
        found = history.totals(plan.brand, plan.retailer, first, last)
        spend, sales = (sum(part.get(arm, 0.0) for arm in arms) for part in (found.spend, found.sales))
        return spend, sales, float(found.counts["impressions"])

    reach = history.totals(plan.brand, plan.retailer, start, end)
    last = min(reach.last, end) if reach.last else None
    if last is None or last < start + SOONEST:
        return {}
    spend, sales, _ = seen(start, last)
    signs = {"roas": sales / spend} if spend else {}
    week, before = seen(last - timedelta(days=6), last), seen(last - timedelta(days=34), last - WEEK)
    if before[0] > 0 and week[0] >= 0.7 * before[0] / BEFORE:  # the money goes on
        for name, place in (("sales_trend", 1), ("impressions_trend", 2)):
            if before[place] > 0:
                signs[name] = week[place] / (before[place] / BEFORE)
    return signs


def _experiment(test: Experiment, today: date) -> dict[str, float]:
    """A running test's money, and the retailer's own sales by store where the test is on them."""
    start = test.start_date
    if test.state != Experiment.State.RUNNING or start is None or today < start + SOONEST:
        return {}
    return _money_of(test, start, min(test.end_date or today, today)) | _stores_of(test, start)


def _money_of(test: Experiment, start: date, end: date) -> dict[str, float]:
    """Spend per day since the start against the weeks before it, as far as reports reach."""
    assert test.brand is not None  # noqa: S101  # a test is some brand's

    def per_day(first: date, last: date) -> float:
        found = history.totals(test.brand, test.retailer, first, last)
        spent = found.spend.items()
        mine = test.campaign.network_campaign_id if test.campaign else ""
        return sum(money for arm, money in spent if not mine or arm.rpartition("/")[2] == mine) / ((last - first).days + 1)  # fmt: skip

    reach = history.totals(test.brand, test.retailer, start, end).last
    before = per_day(start - BEFORE * WEEK, start - timedelta(days=1))
    if reach is None or reach < start + SOONEST or not before:
        return {}
    return {"spend_trend": per_day(start, min(reach, end)) / before}


def _stores_of(test: Experiment, start: date) -> dict[str, float]:
    """How many stores still report, and what those that are not treated sell."""
    assert test.brand is not None  # noqa: S101
    if test.retailer is None or test.panel.get("file"):  # a table that was handed in has no newest week here
        return {}
    treated = set((test.design.get("best") or {}).get("units") or test.analysis_spec.get("treated_units") or ())
    sales: dict[date, dict[str, float]] = defaultdict(dict)
    for row in history.store_panel(test.brand, test.retailer):
        sales[date.fromisoformat(row["time"])][row["unit"]] = row["outcome"]
    since = [sales[week] for week in sorted(sales) if start <= week]
    before = [sales[week] for week in sorted(sales) if start - BEFORE * WEEK <= week < start]
    known = {unit for week in before for unit in week}
    if len(since) < 2 or not known:
        return {}
    signs = {"stores_reporting": len(known & set(since[-1])) / len(known)}
    steady = {unit for unit in known - treated if all(unit in week for week in (*before, *since))}
    usual, now = (sum(fmean(week[unit] for week in weeks) for unit in steady) for weeks in (before, since))
    if usual > 0:
        signs["untreated_trend"] = now / usual
    return signs


def _adapter(adapter: Adapter, today: date) -> dict[str, float]:  # noqa: ARG001  # as the others
    """What people and rules say of the texts of a version that serves."""
    if not adapter.aliases.filter(name__in=SERVING).exists():
        return {}
    signs = {}
    wins, losses = forecasts.votes(Feedback.objects.filter(brand=adapter.brand), adapter.digest)
    if wins + losses >= forecasts.ENOUGH_VOTES:
        signs["win_rate"] = wins / (wins + losses)
    texts = _texts(adapter).filter(adapter_digest=adapter.digest)
    if (passed := _share(texts, lambda verdict, _: verdict == "pass")) is not None:
        signs["pass_share"] = passed
    if (finished := _share(texts, lambda _, reason: reason != "length")) is not None:
        signs["finished_share"] = finished
    return signs


def pass_share_before(adapter: Adapter) -> float | None:
    """Share of texts of other versions (and the base) that passed the rules; None where they are too few to say."""
    return _share(_texts(adapter).exclude(adapter_digest=adapter.digest), lambda verdict, _: verdict == "pass")


def _texts(adapter: Adapter) -> Any:
    """Texts of the adapter's brand and task that the rules have judged, newest first."""
    return Generation.objects.filter(brand=adapter.brand, task=adapter.task).exclude(verdict="").order_by("-created_at")


def _share(texts: Any, good: Callable[[str, str], bool]) -> float | None:
    newest = list(texts.values_list("verdict", "finish_reason")[:NEWEST_TEXTS])
    return sum(good(*one) for one in newest) / len(newest) if len(newest) >= LEAST_TEXTS else None

"""What the console's first page shows: what needs a person today, and where the money went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.core.cache import cache
from django.db.models import Count, Max, Sum
from django.db.models.functions import TruncWeek
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from agents.models import Adapter, AgentRun, Forecast
from campaigns.models import BudgetPlan, Recommendation
from retailers.models import FeedLoad, PerformanceMetric, QuarantinedRow
from rmn.lib import charts, runs
from rmn.lib.charts import Picture

STALE_AFTER = timedelta(days=3)
WEEKS = 26
KEPT_S = 300


@dataclass(frozen=True)
class Waiting:
    """Something that waits for a person: how much of it, and the list where it stands."""

    count: int
    words: str
    url: str


def environment(request: HttpRequest) -> list[str]:  # noqa: ARG001
    colour = {"production": "danger", "staging": "warning"}.get(settings.RMN_ENVIRONMENT, "info")
    return [settings.RMN_ENVIRONMENT, colour]


def console(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The first page's context; figures are those of brands the person may see."""
    picture = spend(request.user)
    return context | {"waiting": waiting(request.user), "pictures": [picture] if picture else []}


def waiting(user: Any) -> list[Waiting]:
    """What needs somebody today, the most urgent first; what waits for nobody is left out."""
    today = timezone.now().date()
    found = [
        Waiting(model.objects.visible_to(user).failed().count(), f"failed: {model.words.lower()}", _list(model, status__exact="failed"))
        for model in runs.kinds()
        if model.words
    ]  # fmt: skip
    plans = BudgetPlan.objects.visible_to(user).awaiting_approval().count()
    goals = AgentRun.objects.visible_to(user).awaiting_approval().count()
    rows = QuarantinedRow.objects.visible_to(user).open().count()
    proofs = Recommendation.objects.visible_to(user).filter(verdict__verdict="needs_proof").count()
    gate = Adapter.objects.visible_to(user).filter(state=Adapter.State.CANDIDATE, aliases=None).count()
    due = Forecast.objects.visible_to(user).due(today).count()
    found += [
        Waiting(plans, "budget plans to approve", _list(BudgetPlan, state__exact="proposed")),
        Waiting(goals, "plans of agents that ask", _list(AgentRun, stop__exact="needs_input")),
        Waiting(rows, "rows in quarantine", _list(QuarantinedRow, status__exact="open")),
        Waiting(proofs, "texts that need proof", _list(Recommendation, task__exact="creative")),
        Waiting(gate, "adapters that serve nowhere yet", _list(Adapter, state__exact="candidate")),
        Waiting(due, "forecasts due", _list(Forecast, status__exact="open")),
        Waiting(_stale(user), "feeds without a new file for three days", _list(FeedLoad)),
    ]
    return [one for one in found if one.count]


def _stale(user: Any) -> int:
    """Feeds (brand, retailer, mapping) whose newest load is old."""
    feeds = FeedLoad.objects.visible_to(user).filter(status=runs.Run.Status.SUCCEEDED).order_by()
    newest = feeds.values("brand", "retailer", "mapping_version").annotate(last=Max("created_at"), files=Count("pk"))
    return newest.filter(last__lt=timezone.now() - STALE_AFTER).count()


def _list(model: Any, **filters: str) -> str:
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return f"{address}?{urlencode(filters)}" if filters else address


def spend(user: Any) -> Picture | None:
    """Weekly spend by brand over the last half year there is, each cent counted once; kept for five minutes."""
    key = f"console-spend:{user.pk}"
    rows = cache.get(key)
    if rows is None:
        metrics = PerformanceMetric.objects.visible_to(user).filter(spend__isnull=False)
        newest = metrics.aggregate(last=Max("period_start"))["last"]
        rows = []
        if newest is not None:
            recent = metrics.filter(period_start__gt=newest - timedelta(weeks=WEEKS)).counted_once()
            sums = (
                recent.order_by()
                .annotate(week=TruncWeek("period_start"))
                .values("week", "brand__name", "currency")
                .annotate(total=Sum("spend"))
            )
            rows = [
                {
                    "week": row["week"].isoformat(),
                    "brand": f"{row['brand__name']}, {row['currency']}",
                    "spend": float(row["total"]),
                }
                for row in sums.order_by("week", "brand__name", "currency")
            ]
        cache.set(key, rows, KEPT_S)
    if not rows:
        return None
    last = max(row["week"] for row in rows)
    brands = sorted({row["brand"] for row in rows})
    return charts.picture(
        charts.lines("week", "spend", x_title="Week beginning", y_title="Spend per week", series="brand", x_type="temporal", names=brands),
        f"Spend by week and brand, to the week of {last}",
        f"Weekly spend of {len(brands)} brands over the last {WEEKS} weeks; each amount is counted at one grain only.",
        rows,
        note="Reported by the networks, each cent at one grain. Sales and ROAS stand with their attribution at each brand's budgets.",
        key="spend",
    )  # fmt: skip

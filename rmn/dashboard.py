"""What the console's first page shows: what needs a person today, and where the money went."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.core.cache import cache
from django.db.models import Count, Max, Sum
from django.db.models.functions import TruncWeek
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from agents.models import Adapter, AgentRun, Forecast
from campaigns.models import BudgetPlan, Experiment, Recommendation
from retailers import services
from retailers.models import Brand, FeedLoad, MetricOutcome, PerformanceMetric, ProductIdentifier, QuarantinedRow
from rmn.lib import charts, runs
from rmn.lib.charts import Picture
from rmn.lib.words import noun
from rmn.models import BrandFigures, SavedView

WEEKS = 26
FEW = 20_000  # metric rows that are added up at once, while somebody waits
MEASURED = 8
KEPT_S = 15
WORK = {
    "Feeds": ["retailers.FeedLoad", "retailers.FeedSource", "retailers.FeedMapping", "retailers.QuarantinedRow", "retailers.PerformanceMetric", "retailers.SKUCatalog", "retailers.ProductIdentifier", "retailers.ExchangeRate"],
    "Budgets and tests": ["campaigns.Campaign", "campaigns.AudienceSegment", "campaigns.CurveFit", "campaigns.ResponseCurve", "campaigns.BudgetPlan", "campaigns.Experiment"],
    "Texts": ["campaigns.Recommendation", "campaigns.CopyEvidence", "retailers.PolicyRule", "agents.Generation", "agents.Prompt"],
    "Answers": ["feedback.ReviewTask", "feedback.Feedback", "feedback.Export"],
    "Agents": ["agents.AgentRun", "agents.ReflectionLog", "agents.Forecast", "agents.CleanRoomConnection", "agents.CleanRoomQuery"],
    "Adapters": ["agents.Adapter", "agents.AdapterAlias", "agents.Deployment", "training.Lesson", "training.Dataset", "training.TrainingRun", "training.Evaluation", "training.Withdrawal"],
    "People and partners": ["auth.User", "auth.Group", "retailers.Membership", "retailers.Brand", "retailers.Retailer", "retailers.Webhook", "retailers.Delivery", "retailers.AuditEntry"],
}  # fmt: skip

GOVERNANCE = {
    "copy": "Texts to prove",
    "masked-data": "Masked data",
    "clean-rooms": "Clean rooms",
    "audit": "Audit chains",
}


@dataclass(frozen=True)
class Waiting:
    """Something that waits for a person: how much of it, and the list of just that."""

    count: int
    words: str
    url: str


def environment(request: HttpRequest) -> list[str]:  # noqa: ARG001
    colour = {"production": "danger", "staging": "warning"}.get(settings.RMN_ENVIRONMENT, "info")
    return [settings.RMN_ENVIRONMENT, colour]


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The console's rail above the list of all tables: what waits, with counts, and the person's own views."""
    user: Any = request.user
    views = [{"title": escape(view.name), "link": view.url} for view in SavedView.objects.filter(user=user.pk)]
    today = [{"title": escape(one.words.capitalize()), "link": one.url, "badge": _short(one.count), "badge_variant": "primary"} for one in kept_waiting(user)]  # fmt: skip
    return [
        {"title": "Needs somebody", "items": today},
        {"title": "My views", "items": views},
        {
            "title": "Governance",
            "items": [{"title": words, "link": reverse(name)} for name, words in GOVERNANCE.items()],
        },
        *({"title": title, "items": _links(request, names), "collapsible": True} for title, names in tables().items()),
    ]


def tables() -> dict[str, list[str]]:
    """Every table of the console once, by the work it belongs to."""
    known = {name for names in WORK.values() for name in names}
    rest = [model._meta.label for model in admin.site._registry if model._meta.label not in known]
    return {**WORK, "More": sorted(rest)}


def _links(request: HttpRequest, names: list[str]) -> list[dict[str, Any]]:
    found = []
    for name in names:
        model = apps.get_model(name)
        if admin.site._registry[model].has_view_permission(request):
            title = str(model._meta.verbose_name_plural)
            found.append({"title": title[:1].upper() + title[1:], "link": _address(model)})
    return found


def kept_waiting(user: Any) -> list[Waiting]:
    """``waiting`` as it was within the last seconds: the rail stands on every page."""
    key = f"waiting-{user.pk}"
    found: list[Waiting] | None = cache.get(key)
    if found is None:
        found = waiting(user)
        cache.set(key, found, KEPT_S)
    return found


def _short(count: int) -> str:
    return f"{count}" if count < 1000 else f"{count // 1000}k"


def console(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The first page's context; figures are those of brands the person may see."""
    weeks = figures(request.user)
    pictures = [picture for picture in (spend(weeks), roas(weeks)) if picture is not None]
    return context | {"waiting": kept_waiting(request.user), "pictures": pictures, "measured": measured(request.user)}


def waiting(user: Any) -> list[Waiting]:
    """What needs somebody today, the most urgent first; what waits for nobody is left out."""
    now = timezone.now()
    found = [
        Waiting(
            model.objects.visible_to(user).failed().count(),
            f"failed: {model.words.lower()}",
            _list(model, status__exact="failed"),
        )
        for model in runs.kinds()
        if model.words
    ]
    plans = BudgetPlan.objects.visible_to(user).awaiting_approval()
    goals = AgentRun.objects.visible_to(user).awaiting_approval()
    rows = QuarantinedRow.objects.visible_to(user).open()
    disputed = ProductIdentifier.objects.visible_to(user).filter(in_conflict=True)
    proofs = Recommendation.objects.visible_to(user).needing_proof()
    gate = Adapter.objects.visible_to(user).at_the_gate()
    due = Forecast.objects.visible_to(user).due(now.date())
    stale = FeedLoad.objects.visible_to(user).stale(now)
    found += [
        _some(plans, "budget plan to approve", "budget plans to approve", _list(BudgetPlan, waits="approval")),
        _some(goals, "plan of an agent that asks", "plans of agents that ask", _list(AgentRun, waits="approval")),
        _some(rows, "row in quarantine", "rows in quarantine", _list(QuarantinedRow, status__exact="open")),
        _some(
            disputed,
            "product number that two products claim",
            "product numbers that two products claim",
            _list(ProductIdentifier, in_conflict__exact="1"),
        ),
        _some(proofs, "text that needs proof", "texts that need proof", _list(Recommendation, policy="needs_proof")),
        _some(gate, "adapter that serves nowhere yet", "adapters that serve nowhere yet", _list(Adapter, waits="gate")),
        _some(due, "forecast due", "forecasts due", _list(Forecast, waits="due")),
        _some(
            stale,
            "feed without a new file for three days",
            "feeds without a new file for three days",
            _list(FeedLoad, waits="stale"),
        ),
    ]
    return [one for one in found if one.count]  # fmt: skip


def _some(rows: Any, one: str, many: str, url: str) -> Waiting:
    count = rows.count()
    return Waiting(count, noun(count, one, many), url)


def _list(model: Any, **filters: str) -> str:
    return f"{_address(model)}?{urlencode(filters)}"


def _address(model: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


# -- where the money went


def figures(user: Any) -> list[dict[str, Any]]:
    """The kept weeks of the person's brands; a brand with few rows and nothing kept is added up now."""
    brands = Brand.objects.for_user(user)
    missing = brands.exclude(pk__in=BrandFigures.objects.visible_to(user).values("brand")).order_by("pk")
    for brand in missing[:20]:
        if PerformanceMetric.objects.filter(brand=brand)[: FEW + 1].count() <= FEW:
            add_up(brand)
    kept = BrandFigures.objects.visible_to(user).select_related("brand").order_by("brand__name")
    return [{"brand": one.brand.name, **week} for one in kept for week in one.weeks]


def refresh() -> int:
    """Add up anew the brands whose rows have changed since; returns how many."""
    loads = dict(FeedLoad.objects.finished().order_by().values_list("brand").annotate(last=Max("finished_at")))
    kept = dict(BrandFigures.objects.values_list("brand", "at"))
    changed = [
        key
        for key in Brand.objects.values_list("pk", flat=True)
        if key not in kept or (loads.get(key) or kept[key]) > kept[key]
    ]
    for brand in Brand.objects.filter(pk__in=changed):
        add_up(brand)
    return len(changed)  # fmt: skip


def add_up(brand: Brand) -> BrandFigures:
    """Weekly spend and sales of the last half year there is, each cent at one grain, sales under one attribution."""
    started = timezone.now()
    metrics = PerformanceMetric.objects.filter(brand=brand)
    newest = metrics.aggregate(last=Max("period_start"))["last"]
    weeks: dict[tuple[str, str], dict[str, Any]] = {}
    if newest is not None:
        recent = metrics.filter(period_start__gt=newest - timedelta(weeks=WEEKS)).counted_once().order_by()
        spent = recent.filter(spend__isnull=False).annotate(week=TruncWeek("period_start")).values("week", "currency")
        for row in spent.annotate(total=Sum("spend")).order_by("week", "currency"):
            weeks[row["week"].isoformat(), row["currency"]] = {"spend": float(row["total"])}
        for (week, currency), (value, attribution) in _sales(recent).items():
            if (week, currency) in weeks:
                weeks[week, currency] |= {"sales": float(value), "attribution": attribution}
    rows = [{"week": week, "currency": currency, **told} for (week, currency), told in weeks.items()]
    found, _ = BrandFigures.objects.update_or_create(brand=brand, defaults={"weeks": rows, "at": started})
    return found


def _sales(metrics: Any) -> dict[tuple[str, str], tuple[Decimal, str]]:
    """Sales by week and currency, under the one attribution that most rows carry: two are never added."""
    names = ("window_days", "interaction", "model", "scope", "sales_channel")
    sums = (
        MetricOutcome.objects.filter(metric="sales", performance__in=metrics.values("pk"))
        .order_by()
        .annotate(week=TruncWeek("performance__period_start"))
        .values("week", "performance__currency", *names)
        .annotate(total=Sum("value"), rows=Count("pk"))
    )
    found: dict[tuple[Any, ...], dict[tuple[str, str], Decimal]] = defaultdict(dict)
    rows: dict[tuple[Any, ...], int] = defaultdict(int)
    for row in sums:
        how = tuple(row[name] for name in names)
        rows[how] += row["rows"]
        found[how][row["week"].isoformat(), row["performance__currency"]] = row["total"]
    if not rows:
        return {}
    best = max(rows, key=lambda how: (rows[how], -how[0], str(how)))
    words = services.attribution(dict(zip(names, best)))
    return {where: (value, words) for where, value in found[best].items()}


def spend(weeks: list[dict[str, Any]]) -> Picture | None:
    """Weekly spend by brand."""
    rows = [
        {"week": one["week"], "brand": f"{one['brand']}, {one['currency']}", "spend": one["spend"]} for one in weeks
    ]
    if not rows:
        return None
    last, brands = max(row["week"] for row in rows), sorted({row["brand"] for row in rows})
    return charts.picture(
        charts.lines("week", "spend", x_title="Week beginning", y_title="Spend per week", series="brand", x_type="temporal", names=brands),
        f"Spend by week and brand, to the week of {last}",
        f"Weekly spend of {len(brands)} brands over the last {WEEKS} weeks; each amount is counted at one grain only.",
        rows,
        note="Reported by the networks, each cent at one grain.",
        key="spend",
    )  # fmt: skip


def roas(weeks: list[dict[str, Any]]) -> Picture | None:
    """Weekly return on ad spend by brand, the attribution named: reported sales, not what the ads caused."""
    rows = [
        {
            "week": one["week"],
            "brand": f"{one['brand']}, {one['currency']}",
            "spend": one["spend"],
            "sales": one["sales"],
            "roas": round(one["sales"] / one["spend"], 3),
            "attribution": one["attribution"],
        }
        for one in weeks
        if one.get("sales") is not None and one["spend"]
    ]
    if not rows:
        return None
    brands, ways = sorted({row["brand"] for row in rows}), sorted({row["attribution"] for row in rows})
    return charts.picture(
        charts.lines("week", "roas", x_title="Week beginning", y_title="Reported sales per unit of spend", series="brand", x_type="temporal", names=brands),
        f"Reported ROAS by week and brand ({'; '.join(ways)})",
        f"Weekly reported return on ad spend of {len(brands)} brands, each under the one attribution that most of its rows carry.",
        rows,
        note="Attributed by the networks, not caused by the ads: what ads caused only tests can measure (iROAS).",
        key="roas",
    )  # fmt: skip


def measured(user: Any) -> list[dict[str, Any]]:
    """The newest tests that measured an incremental return."""
    tests = Experiment.objects.visible_to(user).filter(status=runs.Run.Status.SUCCEEDED, result__iroas__isnull=False)
    found = []
    for test in tests.select_related("brand").order_by("-finished_at")[:MEASURED]:
        iroas = test.result["iroas"] or {}
        if iroas.get("estimate") is not None:
            found.append({"test": test, "estimate": iroas["estimate"], "interval": iroas.get("interval")})
    return found

"""What the harmonized metrics say of each arm's past: spend and sales per week, one attribution, one grain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from statistics import fmean
from typing import Any

import numpy as np
from django.db.models import Avg, Count, Max, Min, Sum
from django.utils import timezone

from campaigns.domain import planning, readiness
from campaigns.domain.fitting import History
from campaigns.models import Campaign, ResponseCurve
from retailers.domain.rmis import LEVEL_METRICS
from retailers.models import Brand, MetricOutcome, PerformanceMetric, ProductIdentifier, Retailer, SKUCatalog
from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput

WEEK = 7

Shop = tuple[str, str]  # retailer, and a campaign or product there

SCOPES = ("all", "brand", "same_sku", "category", "halo")  # which sales to take where a report has several
ENOUGH = 0.8  # of an arm's weeks must be known for something to stand beside its spend
ATTRIBUTION = ("window_days", "interaction", "model", "scope")


@dataclass
class Past:
    """Arms' histories with what they rest on."""

    arms: list[History] = field(default_factory=list)
    attributions: dict[str, str] = field(default_factory=dict)  # network and ad product -> attribution taken
    assumed: set[str] = field(default_factory=set)  # arms whose spend a rule made
    first: date | None = None
    last: date | None = None
    currencies: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)  # arm -> the network's name of it


def monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def read(brand: Brand, retailer: Retailer | None = None, start: date | None = None, end: date | None = None) -> Past:
    """Each campaign's weeks, Monday to Sunday.

    Of the reports that show the same money one is counted (``counted_once``). Of the attributions in
    which a report gives sales one is taken, the same for all campaigns of an ad product: the widest
    scope, then the longest window of at most 14 days. Where the retailer's own sales feed is loaded,
    its baskets per week stand as demand beside the spend; where a feed says what was on the shelf, so do
    the stock and the price of what a campaign advertises.
    """
    rows = PerformanceMetric.objects.filter(brand=brand).exclude(campaign_id="")
    if retailer is not None:
        rows = rows.filter(retailer=retailer)
    if start:
        rows = rows.filter(period_start__gte=start)
    if end:
        rows = rows.filter(period_end__lte=end)
    rows = rows.counted_once().filter(spend__isnull=False)
    past = Past()
    keys = ("retailer__slug", "network", "ad_product", "campaign_id", "currency", "period_start")
    spend: dict[tuple[str, str, str, str], dict[date, float]] = defaultdict(lambda: defaultdict(float))
    sales: dict[tuple[str, str, str, str], dict[date, float]] = defaultdict(lambda: defaultdict(float))
    summed = rows.order_by().values(*keys).annotate(money=Sum("spend"), name=Max("campaign_name"))
    for row in summed.iterator(chunk_size=5000):
        arm = (row["retailer__slug"], row["network"], row["ad_product"], row["campaign_id"])
        spend[arm][monday(row["period_start"])] += float(row["money"])
        past.currencies.add(row["currency"])
        past.names[_name(arm)] = row["name"] or row["campaign_id"]
    past.assumed = {
        _name((r["retailer__slug"], r["network"], r["ad_product"], r["campaign_id"]))
        for r in rows.order_by().filter(spend_assumed=True).values(*keys[:4]).distinct()
    }
    outcomes = MetricOutcome.objects.filter(brand=brand, metric="sales", performance__in=rows)
    taken = _attributions(outcomes)
    past.attributions = {f"{n} {p}".strip(): _words(a) for (n, p), a in taken.items()}
    for (network, product), wanted in taken.items():
        same = outcomes.filter(performance__network=network, performance__ad_product=product, **wanted)
        names = tuple(f"performance__{key}" for key in (*keys[:4], "period_start"))
        for row in same.order_by().values(*names).annotate(total=Sum("value")).iterator(chunk_size=5000):
            arm = (
                row["performance__retailer__slug"],
                network,
                product,
                row["performance__campaign_id"],
            )
            sales[arm][monday(row["performance__period_start"])] += float(row["total"])
    demand = _demand(brand)
    every = [week for weeks in spend.values() for week in weeks]
    shelf = _shelf(brand, min(every), max(every) + timedelta(days=WEEK - 1)) if every else {}
    for arm in sorted(spend):
        weeks = sorted(spend[arm])
        past.first = min(weeks[0], past.first or weeks[0])
        past.last = max(weeks[-1], past.last or weeks[-1])
        known = {"demand": demand.get(arm[0], {}), **shelf.get((arm[0], arm[3]), {})}
        past.arms.append(
            History(
                arm=_name(arm),
                spend_D=np.array([spend[arm][w] for w in weeks]),
                sales_D=np.array([sales[arm].get(w, 0.0) for w in weeks]),
                controls=_controls(known, weeks),
                attributes={"retailer": arm[0], "campaign": arm[3], "tactic": arm[2] or arm[1]},
            )
        )
    return past


@dataclass
class Totals:
    """What arms spent and sold between two days; a report that reaches over an end counts in proportion."""

    spend: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    sales: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # impressions, clicks
    first: date | None = None
    last: date | None = None  # last day that any report covers
    currencies: set[str] = field(default_factory=set)


def totals(brand: Brand, retailer: Retailer | None, start: date, end: date) -> Totals:
    """Spend and sales per arm of a period, by the same grain and attribution as ``read``."""
    rows = PerformanceMetric.objects.filter(brand=brand, period_start__lte=end, period_end__gte=start)
    rows = rows.exclude(campaign_id="")
    if retailer is not None:
        rows = rows.filter(retailer=retailer)
    rows = rows.counted_once()
    found = Totals()

    def inside(first: date, last: date) -> float:
        days = (min(last, end) - max(first, start)).days + 1
        return days / ((last - first).days + 1)

    keys = ("retailer__slug", "network", "ad_product", "campaign_id", "period_start", "period_end", "currency")
    summed = rows.order_by().values(*keys).annotate(m=Sum("spend"), i=Sum("impressions"), c=Sum("clicks"))
    for row in summed.iterator(chunk_size=5000):
        first, last = row["period_start"], row["period_end"]
        arm = _name((row["retailer__slug"], row["network"], row["ad_product"], row["campaign_id"]))
        share = inside(first, last)
        found.spend[arm] += share * float(row["m"] or 0)
        found.counts["impressions"] += share * (row["i"] or 0)
        found.counts["clicks"] += share * (row["c"] or 0)
        found.first = min(first, found.first or first)
        found.last = max(last, found.last or last)
        found.currencies.add(row["currency"])
    outcomes = MetricOutcome.objects.filter(brand=brand, metric="sales", performance__in=rows)
    names = tuple(f"performance__{key}" for key in keys[:6])
    for (network, product), wanted in _attributions(outcomes).items():
        same = outcomes.filter(performance__network=network, performance__ad_product=product, **wanted)
        for row in same.order_by().values(*names).annotate(total=Sum("value")).iterator(chunk_size=5000):
            shop, _, _, campaign, first, last = (row[name] for name in names)
            found.sales[_name((shop, network, product, campaign))] += inside(first, last) * float(row["total"])
    return found


def _name(arm: tuple[str, str, str, str]) -> str:
    retailer, network, _, campaign = arm
    return f"{retailer}/{network}/{campaign}"


def _attributions(outcomes: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """One attribution for each network and ad product."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    fields = ("performance__network", "performance__ad_product", *ATTRIBUTION)
    for row in outcomes.order_by().values(*fields).annotate(rows=Count("pk")):
        found[row["performance__network"], row["performance__ad_product"]].append(row)

    def rank(row: dict[str, Any]) -> tuple[Any, ...]:
        scope = SCOPES.index(row["scope"]) if row["scope"] in SCOPES else len(SCOPES)
        window = row["window_days"]
        return (scope, window > 14, -window, -row["rows"])

    return {key: {name: min(rows, key=rank)[name] for name in ATTRIBUTION} for key, rows in found.items()}


def _words(attribution: dict[str, Any]) -> str:
    window = f"{attribution['window_days']} days" if attribution["window_days"] else "the flight"
    parts = [window, attribution["interaction"], attribution["model"].replace("_", " "), attribution["scope"]]
    return ", ".join(part.replace("_", " ") for part in parts if part)


def _demand(brand: Brand) -> dict[str, dict[date, float]]:
    """The retailer's own baskets per week, relative to their mean, where a sales feed is loaded."""
    rows = MetricOutcome.objects.filter(brand=brand, metric="baskets", performance__grain="store")
    found: dict[str, dict[date, float]] = defaultdict(lambda: defaultdict(float))
    names = ("performance__retailer__slug", "performance__period_start")
    for row in rows.order_by().values(*names).annotate(total=Sum("value")):
        found[row[names[0]]][monday(row[names[1]])] += float(row["total"])
    scaled = {}
    for shop, weeks in found.items():
        mean = sum(weeks.values()) / len(weeks)
        scaled[shop] = {week: value / mean for week, value in weeks.items()} if mean else {}
    return scaled


def _controls(known: Mapping[str, Mapping[date, float]], weeks: Sequence[date]) -> dict[str, Array]:
    """What stands beside the spend: known in enough of the weeks and not always the same; a gap stands at the mean."""
    found = {}
    for name, by_week in known.items():
        here = [by_week[week] for week in weeks if week in by_week]
        if here and len(here) >= ENOUGH * len(weeks) and max(here) - min(here) > 1e-9:
            found[name] = np.array([by_week.get(week, fmean(here)) for week in weeks])
    return found


def _shelf(brand: Brand, first: date, last: date) -> dict[Shop, dict[str, dict[date, float]]]:
    """By retailer and network campaign: per week, the share in stock of what it advertises, and its price against its mean."""
    told = readings(brand, last, (last - first).days + 1)
    found: dict[Shop, dict[str, dict[date, float]]] = {}
    for (shop, campaign), products in advertised(brand, last).items() if told else ():
        weeks: dict[str, dict[date, list[float]]] = {"stock": defaultdict(list), "price": defaultdict(list)}
        for days in (told.get((shop, name), []) for name in products):
            usual = fmean([one.price for one in days if one.price] or [1.0])
            for one in days:
                if one.in_stock is not None:
                    weeks["stock"][monday(one.day)].append(one.in_stock)
                if one.price:
                    weeks["price"][monday(one.day)].append(one.price / usual)
        found[shop, campaign] = {
            name: {week: fmean(values) for week, values in by_week.items()} for name, by_week in weeks.items()
        }
    return found


def store_panel(brand: Brand, retailer: Retailer, metric: str = "total_sales") -> list[dict[str, Any]]:
    """The retailer's own feed as an experiment panel: unit, time (week's Monday), outcome."""
    rows = (
        MetricOutcome.objects.filter(
            brand=brand, performance__retailer=retailer, performance__grain="store", metric=metric
        )
        .order_by("performance__placement", "performance__period_start")
        .values_list("performance__placement", "performance__period_start", "value")
    )
    return [{"unit": unit, "time": day.isoformat(), "outcome": float(value)} for unit, day, value in rows]


def window(brand: Brand) -> tuple[date | None, date | None]:
    """First and last day that any metric of the brand covers."""
    found = PerformanceMetric.objects.filter(brand=brand).aggregate(a=Min("period_start"), b=Max("period_end"))
    return found["a"], found["b"]


# -- whether what is advertised can be bought

ADVERTISED = 56  # days back in which a campaign's reports say what it advertises


def _products(brand: Brand) -> dict[str, str]:
    """The crosswalk: by each number a product goes by, the brand's own code of it."""
    found: dict[str, str] = {}
    for sku, gtin14, upc, ean in SKUCatalog.objects.filter(brand=brand).values_list("sku", "gtin14", "upc", "ean"):
        found |= {number: sku for number in (upc, ean, gtin14, sku) if number}
    rows = ProductIdentifier.objects.filter(brand=brand, in_conflict=False).exclude(kind=ProductIdentifier.Kind.CASE)
    for value, sku in rows.values_list("value", "product__sku"):
        found.setdefault(value, sku)
    return found


def _named(crosswalk: Mapping[str, str], product_id: str, gtin14: str) -> str:
    """One product's name, whichever number a report uses."""
    return crosswalk.get(gtin14) or crosswalk.get(product_id) or gtin14 or product_id


def readings(brand: Brand, day: date, back: int = 28) -> dict[Shop, list[readiness.Reading]]:
    """What feeds say of stock, buy box and price, by retailer and product, in the days up to this one."""
    rows = MetricOutcome.objects.filter(
        brand=brand,
        metric__in=LEVEL_METRICS,
        performance__grain="product",
        performance__period_end__lte=day,
        performance__period_end__gt=day - timedelta(days=back),
    )
    crosswalk = _products(brand)
    names = ("retailer__slug", "product_id", "gtin14", "period_end")
    told: dict[Shop, dict[date, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    keys = (*(f"performance__{name}" for name in names), "metric")
    for shop, product_id, gtin14, when, metric, value in (
        rows.order_by().values_list(*keys).annotate(mean=Avg("value")).iterator(chunk_size=5000)
    ):
        told[shop, _named(crosswalk, product_id, gtin14)][when][metric] = float(value)
    return {
        where: [readiness.Reading(when, **values) for when, values in sorted(days.items())]
        for where, days in told.items()
    }


def advertised(brand: Brand, day: date) -> dict[Shop, dict[str, float]]:
    """By retailer and network campaign: the products it advertises, with what was spent on each.

    The products that people set on a campaign stand; else what its reports by product name.
    """
    crosswalk = _products(brand)
    found: dict[Shop, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    rows = PerformanceMetric.objects.filter(
        brand=brand, grain="product", period_end__lte=day, period_end__gt=day - timedelta(days=ADVERTISED)
    ).exclude(campaign_id="")
    names = ("retailer__slug", "campaign_id", "product_id", "gtin14")
    for shop, campaign, product_id, gtin14, money in rows.order_by().values_list(*names).annotate(money=Sum("spend")):
        found[shop, campaign][_named(crosswalk, product_id, gtin14)] += float(money or 0)
    own = Campaign.objects.filter(brand=brand, skus__isnull=False).exclude(network_campaign_id="")
    chosen: dict[Shop, dict[str, float]] = defaultdict(dict)
    for shop, campaign, sku in own.values_list("retailer__slug", "network_campaign_id", "skus__sku"):
        chosen[shop, campaign][sku] = found[shop, campaign].get(sku, 0.0) if (shop, campaign) in found else 0.0
    return {**found, **chosen}


def ready(brand: Brand, day: date) -> dict[Shop, readiness.Ready]:
    """By retailer and network campaign: how much of the time what it advertises can be bought, as last read."""
    read_on = readings(brand, day)
    if not read_on:
        return {}
    known = {where: one for where, told in read_on.items() if (one := readiness.product(told, day))}
    found = {}
    for (shop, campaign), products in advertised(brand, day).items():
        here = {name: known[shop, name] for name in products if (shop, name) in known}
        one = readiness.arm(products, here)
        if one is not None:
            found[shop, campaign] = one
    return found


def margins(brand: Brand, curves: Sequence[ResponseCurve], day: date) -> dict[str, float]:
    """By arm, what stays of its products' sales after goods and fees; nothing unless it is known of all of them.

    Contribution of some arms beside sales of others could not be compared.
    """
    rows = SKUCatalog.objects.filter(brand=brand, margin__isnull=False).values_list("sku", "margin")
    known = {sku: float(margin) for sku, margin in rows if margin is not None}
    if not known:
        return {}
    found: dict[str, float] = {}
    products = advertised(brand, day)
    for row in curves:
        mine = products.get((row.retailer.slug, row.arm.rpartition("/")[2]), {})
        if not mine or any(name not in known for name in mine):
            return {}
        total = sum(mine.values())
        found[row.arm] = sum(
            known[name] * (money / total if total > 0 else 1 / len(mine)) for name, money in mine.items()
        )
    return found


# -- from curves to a budget problem


def problem_from_curves(
    *,
    brand: Brand,
    total_budget: Decimal | float,
    retailer: Retailer | None = None,
    start: date | None = None,
    end: date | None = None,
    groups: Sequence[Mapping[str, Any]] = (),
    limits: Mapping[str, Mapping[str, Any]] | None = None,
    today: date | None = None,
    **more: Any,
) -> tuple[dict[str, Any], bool]:
    """The budget problem of the brand's current curves, and whether any of their spend is assumed.

    What feeds say of stock, buy box and price up to today (to the plan's first day, where that lies
    before) brakes an arm or leaves it out; a campaign's own constraints (min, max, fixed, max_change
    per plan period) are kept; ``limits`` by arm override both.

    Raises:
        BadInput: no curves, or curves in several currencies.
    """
    curves = ResponseCurve.objects.current().filter(brand=brand).select_related("retailer", "campaign")
    if retailer is not None:
        curves = curves.filter(retailer=retailer)
    rows = list(curves)
    if not rows:
        raise BadInput(f"{brand}: no response curves yet; fit them first (they need loaded feeds with spend and sales)")
    currencies = {row.currency for row in rows}
    if len(currencies) > 1:
        raise BadInput(
            f"{brand}: curves in {', '.join(sorted(currencies))}; name one retailer, so that one currency is left"
        )
    own: dict[str, dict[str, Any]] = {}
    today = today or timezone.localdate()
    ready_now = ready(brand, min(start or today, today))
    for row in rows:
        one = ready_now.get((row.retailer.slug, row.arm.rpartition("/")[2]))
        if one is not None:
            own[row.arm] = {
                "readiness": one.share,
                "readiness_why": one.why or None,
                "readiness_read": str(one.read),
            }
        if row.campaign is not None:
            own[row.arm] = {**own.get(row.arm, {}), **row.campaign.constraints}
            if row.campaign.status == Campaign.Status.ARCHIVED:
                own[row.arm]["available"] = False
    for arm, margin in margins(brand, rows, min(start or today, today)).items():
        own[arm] = {"margin": margin, **own.get(arm, {})}
    for arm, given in (limits or {}).items():
        own[arm] = {**own.get(arm, {}), **given}
    given = planning.problem_of(
        [_arm(row) for row in rows],
        total_budget=float(total_budget),
        days=days(start, end),
        currency=currencies.pop(),
        groups=groups,
        limits=own,
        **more,
    )
    return given, any(row.spend_assumed for row in rows)


def _arm(row: ResponseCurve) -> dict[str, Any]:
    return {
        "id": row.arm,
        "retailer": row.retailer.slug,
        "campaign": row.campaign.network_campaign_id if row.campaign else None,
        "tactic": row.tactic or None,
        "kind": row.kind,
        "scale": row.scale,
        "half": row.half,
        "exponent": row.exponent,
        "points": row.points,
        "std": {"scale": row.std["scale"]} if row.std.get("scale") else None,
        "last": row.std.get("spend_mean"),
        "seen": row.spend_seen_max,
        "period_days": row.period_days,
        "evidence": row.evidence,
    }


def days(start: date | None, end: date | None) -> int:
    """Length of a plan, both ends inclusive; a quarter where no dates are given."""
    return (end - start).days + 1 if start and end else 13 * WEEK

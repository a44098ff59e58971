"""What people and programs may ask of retailers, brands, products and their reports."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import Count, Max, Q, Sum
from django.utils import timezone

from retailers import audit, catalogue, loads, webhooks
from retailers.connectors.files import open_feed
from retailers.domain import bench, exchange, harmonizer, infer, likeness, policy, reconcile, rmis
from retailers.domain import catalogue as products
from retailers.domain import mapping as mappings
from retailers.domain.harmonizer import text_of
from retailers.models import (
    MONTH,
    Brand,
    ExchangeRate,
    FeedLoad,
    FeedMapping,
    MetricOutcome,
    PerformanceMetric,
    PolicyRule,
    ProductIdentifier,
    QuarantinedRow,
    Retailer,
    SKUCatalog,
    Webhook,
)
from rmn.lib import masking, outbound, pii, sentences
from rmn.lib.errors import BadInput
from rmn.lib.rows import scope_text

MOST_IDS = 50_000
SHORTEST_ID = 6  # a shorter number is nobody's telephone either

# -- feeds


def wish_for_load(
    *,
    brand: Brand,
    retailer: Retailer,
    file_name: str,
    chunks: Iterable[bytes],
    mapping: FeedMapping | str,
    by: Any = None,
    as_of: str | None = None,
    period: str | None = None,
    repair: bool = False,
) -> FeedLoad:
    """Record a load with its file kept; nothing is queued yet.

    Args:
        mapping: a stored mapping, the name of a shipped one, or the text of one; 'catalogue' for a
            file of products.
        as_of: when the numbers were taken, ISO 8601; else the file says.
        period: START:END for reports without a date.
        repair: whether lost zeros and check digits of a catalogue's numbers may come back.
    """
    is_catalogue = mapping == products.NAME
    text = mapping if isinstance(mapping, str) and "\n" in mapping else ""
    parsed = mappings.parse(text) if text else None
    if isinstance(mapping, str) and not text and not is_catalogue:
        parsed = mappings.shipped(mapping)
    path, digest = loads.keep_file(brand, chunks)
    config: dict[str, Any] = {"as_of": as_of, "period": period, "catalogue": is_catalogue, "repair": repair}
    if parsed is not None:
        config |= {"mapping": parsed.mapping, "yaml": text}
    return FeedLoad.objects.create(
        brand=brand,
        retailer=retailer,
        mapping=mapping if isinstance(mapping, FeedMapping) else None,
        mapping_version=parsed.version_text if parsed is not None else products.VERSION if is_catalogue else "",
        file_name=Path(file_name).name[:240],
        file_path=path,
        file_sha256=digest,
        requested_by=by,
        config={key: value for key, value in config.items() if value},
    )


@transaction.atomic
def request_feed_load(**wish: Any) -> FeedLoad:
    """Record the wish to load a file (see ``wish_for_load``), and queue the work once it is committed."""
    run = wish_for_load(**wish)
    run.enqueue()
    return run


@transaction.atomic
def request_replay(*, load: FeedLoad, mapping: FeedMapping | str | None = None, by: Any = None) -> FeedLoad:
    """Load a kept file again, under a corrected mapping where one is given.

    The numbers keep the instant they were taken at, so rows that a newer file restated stay.
    """
    run = again(load=load, mapping=mapping, by=by)
    run.enqueue()
    return run


def again(*, load: FeedLoad, mapping: FeedMapping | str | None = None, by: Any = None) -> FeedLoad:
    config = {**load.config}
    if load.extracted_at is not None:
        config["as_of"] = load.extracted_at.isoformat()
    stored: FeedMapping | None = load.mapping
    version = load.mapping_version
    if isinstance(mapping, FeedMapping):
        stored, version = mapping, ""
    elif mapping is not None:
        text = mapping if "\n" in mapping else ""
        parsed = mappings.parse(text) if text else mappings.shipped(mapping)
        stored, version = None, parsed.version_text
        config |= {"mapping": parsed.mapping, "yaml": text}
    return FeedLoad.objects.create(
        brand=load.brand,
        retailer=load.retailer,
        mapping=stored,
        mapping_version=version,
        file_name=load.file_name,
        file_path=load.file_path,
        file_sha256=load.file_sha256,
        requested_by=by,
        config=config,
    )


@transaction.atomic
def keep_mapping(*, brand: Brand | None, text: str, retailer: Retailer | None = None, by: Any = None) -> FeedMapping:
    """Keep a mapping as the next version of its report; the earlier ones stay for lineage.

    Raises:
        BadInput: it is no mapping, or lint finds an error in it.
    """
    parsed = mappings.parse(text)
    errors = [finding for finding in mappings.lint(parsed) if finding.severity == "error"]
    if errors:
        raise BadInput(f"{errors[0].place}: {errors[0].message}")
    network, report = parsed.mapping.split("/")
    same = FeedMapping.objects.filter(brand=brand, retailer=retailer, network=network, report=report)
    digest = hashlib.sha256(text.encode()).hexdigest()
    newest = same.order_by("-version").first()
    if newest is not None and newest.sha256 == digest:
        return newest
    same.update(is_current=False)
    return FeedMapping.objects.create(
        brand=brand,
        retailer=retailer,
        network=network,
        report=report,
        version=newest.version + 1 if newest else 1,
        yaml=text,
        sha256=digest,
        created_by=by,
    )


def dismiss(row: QuarantinedRow) -> QuarantinedRow:
    """A person says that this row needs no answer."""
    QuarantinedRow.objects.open().filter(pk=row.pk).update(status=QuarantinedRow.Status.DISMISSED)
    row.refresh_from_db()
    return row


def summary(metrics: Any) -> dict[str, Any]:
    """Totals of metrics that count no cent twice and add no two currencies, and where grains disagree."""
    counted = metrics.slices(once=True)
    totals: dict[str, dict[str, Any]] = {}
    for part in counted:
        here = totals.setdefault(part.where[4], {"rows": 0, "impressions": None, "clicks": None, "spend": None})
        here["rows"] += part.rows
        for name in ("impressions", "clicks", "spend"):
            value = getattr(part, name)
            if value is not None:
                here[name] = value if here[name] is None else here[name] + value
    names = ("retailer", "network", "account_id", "ad_product", "currency")
    return {
        "totals_by_currency": {
            code: {**values, "spend": text_of(values["spend"])} for code, values in sorted(totals.items())
        },
        "counted": [{**dict(zip(names, part.where)), "grain": part.grain, "rows": part.rows} for part in counted],
        "disagreements": [
            {
                **dict(zip(names, gap.where)),
                "measure": gap.measure,
                "grain": gap.grain,
                "value": str(gap.value),
                "against_grain": gap.against_grain,
                "against": str(gap.against),
                "note": gap.note,
            }
            for gap in reconcile.gaps(metrics.slices())
        ],
        "overlaps": overlaps(metrics),
    }


def converted(metrics: Any, to: str, since: date | None = None) -> dict[str, Any]:
    """The spend that counts, in one currency, each report by the rate of its last day; what it was stays beside it.

    Raises:
        BadInput: no currency, or no rate for a pair on a day; both are named.
    """
    to = to.upper()
    if to not in rmis.CURRENCIES:
        raise BadInput(f"{to!r} is no ISO 4217 currency code")
    told = metrics.told()
    spent = [
        (report, told[report].spend)
        for report in reconcile.counted(told)
        if told[report].spend is not None and (since is None or report.start >= since)
    ]
    found: dict[str, Any] = {"currency": to, "spend": text_of(Decimal(0)), "parts": []}
    if not spent:
        return found
    days = [report.end for report, _ in spent]
    rates = ExchangeRate.objects.between({str(report.where[4]) for report, _ in spent}, to, min(days), max(days))
    parts: dict[str, list[exchange.Converted]] = {}
    for report, amount in spent:
        currency = str(report.where[4])
        parts.setdefault(currency, []).append(rates.convert(amount, currency, to, report.end))
    found["spend"] = text_of(sum((one.amount for part in parts.values() for one in part), Decimal(0)))
    for currency, part in sorted(parts.items()):
        used = {one.rate for one in part if one.rate is not None}
        found["parts"].append(
            {
                "currency": currency,
                "spend": text_of(sum((one.was for one in part), Decimal(0))),
                "converted": text_of(sum((one.amount for one in part), Decimal(0))),
                "rates": len(used),
                "sources": sorted({rate.source for rate in used}),
                "first": str(min(rate.day for rate in used)) if used else None,
                "last": str(max(rate.day for rate in used)) if used else None,
            }
        )
    return found


def overlaps(metrics: Any) -> list[str]:
    """Where reports of unequal periods tell of the same days, in a sentence each."""
    found = reconcile.overlaps(metrics.reports())
    names = Retailer.objects.in_bulk({one.where[0] for one in found}) if found else {}
    return [
        f"{names[one.where[0]]}{f', account {one.where[2]}' if one.where[2] else ''}: "
        f"{one.grain.replace('_', ' ')} rows of up to {one.step} days lie beside {one.against_grain.replace('_', ' ')} "
        f"rows of up to {one.against_step} on {one.days} days from {one.first} to {one.last}; "
        f"the {one.against_grain.replace('_', ' ')} rows of up to {one.against_step} are counted"
        + (f", and {one.missed} days are in no total" if one.missed else "")
        for one in found
    ]


def newest_mapping(load: FeedLoad) -> FeedMapping | str | None:
    """What a load's report would be read with today: the newest kept version, else the shipped one."""
    if load.mapping is not None:
        kept = load.mapping
        return FeedMapping.objects.current().filter(scope=kept.scope, network=kept.network, report=kept.report).first()
    name = str(load.config.get("mapping", ""))
    return name if not load.config.get("yaml") and name in mappings.shipped_names() else None


# -- what people look at


def performance(metrics: Any, days: int) -> dict[str, Any]:
    """What a marketer asks of their reports, on one grain: totals, trend, ROAS by attribution, movers, campaigns.

    Args:
        metrics: the rows somebody may see, one brand's.
        days: how many days up to the newest; the movers compare them with as many before.
    """
    newest = metrics.newest_day()
    if newest is None:
        return {}
    since, before = newest - timedelta(days=days - 1), newest - timedelta(days=2 * days - 1)
    shown = metrics.filter(period_start__gte=before - MONTH)
    counted = shown.counted_once()
    recent = counted.filter(period_start__gte=since)
    names = ("retailer__name", "network", "ad_product", "currency")
    slices = list(
        recent.order_by(*names).values(*names, "grain").annotate(
            rows=Count("pk"), spend=Sum("spend"), clicks=Sum("clicks"), impressions=Sum("impressions")
        )
    )  # fmt: skip
    for row in slices:
        kind = " by ".join(filter(None, (row["ad_product"], row["grain"]))).replace("_", " ")
        row["label"] = f"Spend, {row['retailer__name']}, {kind}"
    spends: dict[tuple[Any, ...], Decimal] = {}
    for row in slices:  # days that one grain lacks are told by another
        if row["spend"] is not None:
            where = tuple(row[name] for name in names)
            spends[where] = spends.get(where, Decimal(0)) + row["spend"]
    attributes = ("metric", "window_days", "interaction", "model", "scope", "sales_channel")
    outcomes = (
        MetricOutcome.objects.filter(performance__in=recent, metric__in=("sales", "orders", "ntb_sales"))
        .order_by()
        .values(*(f"performance__{name}" for name in names), *attributes)
        .annotate(value=Sum("value"))
    )
    returns = []
    for row in outcomes:
        retailer, network, ad_product, currency = where = tuple(row[f"performance__{name}"] for name in names)
        spend = spends.get(where)
        returns.append(
            {
                "retailer": retailer,
                "network": network,
                "ad_product": ad_product.replace("_", " "),
                "currency": currency,
                "metric": row["metric"],
                "attribution": attribution(row),
                "value": row["value"],
                "spend": spend,
                "roas": row["value"] / spend if row["metric"] != "orders" and spend else None,
            }
        )
    returns.sort(key=lambda row: (row["retailer"], row["currency"], row["metric"] != "sales", row["attribution"]))
    trend = (
        recent.order_by("period_start", "retailer__name")
        .values("period_start", "retailer__name", "currency")
        .annotate(spend=Sum("spend"))
    )
    campaign = ("retailer__name", "campaign_id", "campaign_name", "currency")
    now, then = Q(period_start__gte=since), Q(period_start__gte=before, period_start__lt=since)
    moved = (
        counted.filter(period_start__gte=before)
        .order_by()
        .values(*campaign)
        .annotate(now=Sum("spend", filter=now), earlier=Sum("spend", filter=then), click_sum=Sum("clicks", filter=now))
    )
    campaigns = [
        {
            **row,
            "retailer": row["retailer__name"],
            "name": row["campaign_name"] or row["campaign_id"] or "all campaigns",
            "spend": row["now"],
            "clicks": row["click_sum"],
            "change": (row["now"] or 0) - (row["earlier"] or 0),
        }
        for row in moved
    ]
    campaigns.sort(key=lambda row: -(row["spend"] or 0))
    files = recent.order_by().aggregate(
        files=Count("file_sha256", distinct=True),
        mappings=Count("mapping_version", distinct=True),
        taken=Max("extracted_at"),
        confirmed=Max("load__confirmed_at"),
        open=Count("pk", filter=Q(is_final=False)),
        assumed=Count("pk", filter=Q(spend_assumed=True)),
    )
    files["taken"] = max(filter(None, (files["taken"], files.pop("confirmed"))), default=None)
    return {
        "newest": newest,
        "since": since,
        "slices": slices,
        "returns": returns,
        "trend": [
            {"day": row["period_start"], "retailer": row["retailer__name"], "spend": row["spend"], "currency": row["currency"]}
            for row in trend
            if row["spend"] is not None
        ],
        "campaigns": campaigns,
        "movers": sorted((row for row in campaigns if row["change"]), key=lambda row: -abs(row["change"]))[:6],
        "evidence": files,
        "disagreements": reconcile.gaps(shown.slices()),
        "overlaps": overlaps(shown),
    }  # fmt: skip


def attribution(row: Any) -> str:
    """How a value was attributed, in words: 14 days after a click, last touch, same SKU."""
    window = f"{row['window_days']} days" if row["window_days"] else "window not stated"
    after = {"click": " after a click", "view": " after a view", "any": " after a click or view"}.get(
        row["interaction"], ""
    )
    model = {"": "model not stated", "none": "no model"}.get(row["model"], row["model"].replace("_", " "))
    parts = [window + after, model]
    parts.append(
        {"all": "all products", "same_sku": "same SKU", "": "scope not stated"}.get(row["scope"], row["scope"])
    )
    if row["sales_channel"] not in ("", "all"):
        parts.append(row["sales_channel"].replace("_", " "))
    return ", ".join(parts)


def feed_health(loads: Any, today: date) -> list[dict[str, Any]]:
    """Each feed (brand, retailer, report) of the loads: how fresh, which days are missing, what was refused, drift."""
    feeds: dict[tuple[Any, ...], list[FeedLoad]] = {}
    for load in loads.finished().select_related("brand", "retailer").order_by("created_at"):
        feeds.setdefault((load.brand_id, load.retailer_id, load.mapping_version.split("@")[0]), []).append(load)
    found = []
    for (_, _, report), group in feeds.items():
        last = group[-1]
        days = {
            load.period_start + timedelta(days=n)
            for load in group
            if load.period_start and load.period_end and (load.period_end - load.period_start).days <= LONGEST_FEED
            for n in range((load.period_end - load.period_start).days + 1)
        }
        newest = max(days, default=None)
        missing = [d for d in _between(min(days), newest) if d not in days] if newest else []
        drift = last.result.get("drift", {})
        changed = [f"new {name}" for name in drift.get("new", [])] + [f"gone {n}" for n in drift.get("missing", [])]
        found.append(
            {
                "brand": last.brand.name,
                "retailer": last.retailer.name,
                "report": report,
                "load": last,
                "newest": newest,
                "late": (today - newest).days if newest else None,
                "missing": missing,
                "rows": sum(load.rows_accepted for load in group),
                "refused": sum(load.rows_quarantined for load in group),
                "not_final": last.result.get("not_final", {}).get("rows", 0),
                "drift": ", ".join(changed),
                "loads": len(group),
            }
        )
    return sorted(found, key=lambda row: (row["brand"], row["retailer"], row["report"]))


def spend_by_week(metrics: Any, weeks: int = 53) -> dict[str, list[dict[str, Any]]]:
    """By currency, the spend that counts by week and retailer, the newest weeks up to ``weeks``: each cent at one grain."""
    told = metrics.told()
    sums: dict[tuple[str, date, Any], Decimal] = {}
    for report in reconcile.counted(told):
        spend = told[report].spend
        if spend is not None:
            key = str(report.where[4]), report.start - timedelta(days=report.start.weekday()), report.where[0]
            sums[key] = sums.get(key, Decimal(0)) + spend
    if not sums:
        return {}
    since = max(week for _, week, _ in sums) - timedelta(weeks=weeks - 1)
    names = dict(Retailer.objects.filter(pk__in={where for *_, where in sums}).values_list("pk", "name"))
    found: dict[str, list[dict[str, Any]]] = {}
    for (currency, week, retailer), spend in sorted(
        sums.items(), key=lambda item: (item[0][0], item[0][1], names[item[0][2]])
    ):
        if week >= since:
            found.setdefault(currency, []).append({"week": week, "retailer": names[retailer], "spend": spend})
    return found


LONGEST_FEED = 1100  # days; a longer file says nothing of single days


def _between(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def look_at(
    path: Path, name: str, text: str, *, as_of: datetime | None = None, period: str | None = None
) -> dict[str, Any]:
    """What a mapping would make of a kept file, nothing written: the report with samples before and after.

    Of a long file the first rows are read, and the answer says so.
    """
    mapping = mappings.parse(text)
    with (
        tempfile.TemporaryDirectory(prefix="rmn-look-") as folder,
        open_feed(path, mapping.dialect, mapping.wanted) as feed,
    ):
        short = replace(feed, frame=feed.frame.head(LOOKED_AT), name=name)
        days = tuple(date.fromisoformat(part) for part in period.split(":")) if period else None
        out = Path(folder) / "out"
        report = harmonizer.run(short, mapping, out, as_of=as_of, period=days)  # type: ignore[arg-type]
        report["samples"] = harmonizer.preview(short, out)
        refused = pl.read_parquet(out / "quarantine.parquet").sort("row_number").head(5)
        report["refused"] = refused.select("row_number", "column", "rule", "message").to_dicts()
    report["is_cut"] = report["rows_read"] >= LOOKED_AT
    return report


LOOKED_AT = 50_000  # rows of a preview


def look_at_catalogue(path: Path, name: str, *, brand: Brand, retailer: Retailer, repair: bool) -> dict[str, Any]:
    """What a kept product file would change, nothing written: the load's report with samples before and after.

    Raises:
        BadInput: it is no product file, or hardly a row of it can be taken.
    """
    found = catalogue.read(path, name, brand, retailer, repair=repair)
    catalogue.refuse_if_wrong(found, name)
    changes = catalogue.compare(brand, found)
    conflicts = catalogue.disputed(brand, found.claims)
    return catalogue.told(found, changes, len(conflicts)) | {
        "disputed": [vars(one) for one in conflicts[:50]],
        "refused": found.refused[:5],
        "columns": found.columns,
        "samples": [
            {"row_number": one.row_number, "before": one.raw, "after": {"sku": one.sku, **one.values}}
            for one in found.products[:5]
        ],
    }


@transaction.atomic
def settle_identifier(row: ProductIdentifier, decision: str, *, by: Any) -> None:
    """A person's word on a disputed number.

    Args:
        decision: 'keep' (it is this product's, the others' claims go), 'pack' (this product is in it:
            a case or multipack, linked and not merged), 'drop' (it is not this product's).
    """
    same = ProductIdentifier.objects.filter(brand=row.brand, scope=row.scope, kind=row.kind, value=row.value)
    if decision == "keep":
        same.exclude(pk=row.pk).delete()
        same.filter(pk=row.pk).update(confidence=1.0, source=f"decided by {by.get_username()}"[:120])
    elif decision == "pack":
        case = ProductIdentifier.Kind.CASE
        twin = ProductIdentifier.objects.filter(
            brand=row.brand, scope=row.scope, kind=case, value=row.value, product=row.product
        )
        if twin.exists():
            same.filter(pk=row.pk).delete()
        else:
            same.filter(pk=row.pk).update(kind=case, source=f"decided by {by.get_username()}"[:120])
    elif decision == "drop":
        same.filter(pk=row.pk).delete()
    else:
        raise BadInput(f"{decision!r}: one of keep, pack, drop")
    audit.record(
        brand=row.brand,
        actor=by.get_username(),
        action=f"identifier {decision}",
        subject=row,
        payload={"kind": row.kind, "value": row.value, "scope": row.scope, "sku": row.product.sku},
    )
    catalogue.settle(row.brand, [row.value])


def draft_mapping(path: Path, name: str, network: str) -> str:
    """A drafted mapping for a kept file that nobody has mapped yet."""
    with open_feed(path, infer.UNKNOWN) as feed:
        return infer.draft(replace(feed, name=name), infer.plain(network), infer.plain(name.split(".")[0]) or "report")


# -- webhooks


def set_up_webhook(hook: Webhook) -> str:
    """Make an unsaved webhook ready: its address checked, told only of what comes from now on; its secret, if it is new.

    Raises:
        Refused: the address may not be reached from here.
    """
    outbound.check(hook.url)
    if hook.sealed_secret:
        return ""
    webhooks.begin(hook)
    return webhooks.new_secret(hook)


# -- texts


def rules_in_force(brand: Brand | None, day: date | None = None) -> policy.RuleSet:
    """The shipped rules, as the console's rules change them today; a brand's own come on top and replace none."""
    today = day or timezone.now().date()
    rows = PolicyRule.objects.holding(brand, today)
    ours = policy.amended(policy.shipped(), [row.row(today) for row in rows if row.brand_id is None])
    known = {rule.id for rule in ours.rules}
    return policy.amended(ours, [row.row(today) for row in rows if row.brand_id and row.code not in known])


def try_rule(rule: PolicyRule) -> bench.Trial:
    """What an unsaved rule would change on the product's labelled texts, on the first day it holds; nothing is kept.

    Raises:
        BadInput: it is no rule.
    """
    today = timezone.now().date()
    day = max(today, rule.valid_from or today)
    rules, cases = rules_in_force(rule.brand, day), bench.shipped_cases()
    row = rule.row(day)
    made = None if row.pop("retired") else policy.make_rule(row, f"rule {rule.code}", rules.terms)
    key = f"bench:{rules.version}"
    judged = cache.get(key)
    if judged is None:
        judged = bench.judge(rules, cases)
        cache.set(key, judged, 3600)
    return bench.attempt(rule.code, made, rules, judged, cases)


def as_next_version(rule: PolicyRule) -> PolicyRule:
    """Make a changed rule a new row with the next version: the one that verdicts were given by stays as it was."""
    same = PolicyRule.objects.filter(scope=scope_text(rule.brand), code=rule.code)
    rule.version = (same.aggregate(last=Max("version"))["last"] or 0) + 1
    rule.pk, rule.uuid, rule._state.adding = None, uuid4(), True
    return rule


def checker(brand: Brand | None) -> Callable[..., policy.Verdict]:
    """``policy.check`` with the rules in force today, read once: for many texts of one brand."""
    day = timezone.now().date()
    return partial(policy.check, rules=rules_in_force(brand, day), day=day, layers=layers())


@lru_cache(maxsize=1)
def _likeness(package: str, networks: tuple[str, ...]) -> likeness.Likeness:
    return likeness.Likeness(sentences.load(package), bench.shipped_cases(), frozenset(networks))


def layers() -> tuple[policy.Layer, ...]:
    """What looks at texts beside the rules: nothing, or a sentence model where one is set."""
    package = settings.RMN_SENTENCE_MODEL
    return (_likeness(package, tuple(settings.RMN_SENTENCE_NETWORKS)),) if package else ()


def check_text(
    *,
    text: str,
    network: str,
    brand: Brand | None = None,
    field: str = "headline",
    product: str = "",
    facts: dict[str, Any] | None = None,
) -> policy.Verdict:
    """The policy's verdict on a text, by the rules in force today and the brand's own.

    Raises:
        BadInput: no such network, or facts of another shape than docs/policy.md says.
    """
    try:
        return checker(brand)(text, network=network, field=field, product=product, facts=facts)
    except (TypeError, ValueError) as error:
        raise BadInput(f"facts: {error}; see docs/policy.md for what they may hold") from None


def known_ids(brand: Brand) -> frozenset[str]:
    """Codes of the brand's own things (products, campaigns): never personal, whatever they look like.

    At most ``MOST_IDS`` of each kind, kept for ten minutes.
    """
    key = f"known-ids:{brand.pk}"
    found: frozenset[str] | None = cache.get(key)
    if found is None:
        products = SKUCatalog.objects.filter(brand=brand).values_list("sku", "gtin14", "upc", "ean")[:MOST_IDS]
        names = ProductIdentifier.objects.filter(brand=brand).values_list("value", flat=True)[:MOST_IDS]
        bought = PerformanceMetric.objects.filter(brand=brand).order_by().values_list("campaign_id", flat=True)
        codes = {*itertools.chain.from_iterable(products), *names, *bought.distinct()[:MOST_IDS]}
        found = frozenset(code for code in codes if code and len(code) >= SHORTEST_ID and any(map(str.isdigit, code)))
        cache.set(key, found, 600)
    return found


def masker(brand: Brand | None) -> Callable[..., pii.Masked]:
    """Masks personal data under the brand's key (the installation's without one), its own codes left as they are."""
    return partial(pii.mask, key=masking.key(brand), known_ids=known_ids(brand) if brand else ())


def redact(brand: Brand, text: str) -> pii.Masked:
    """The text with personal data masked under the brand's key."""
    return masker(brand)(text)

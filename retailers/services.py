"""What people and programs may ask of retailers, brands, products and their reports."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.utils import timezone

from retailers import webhooks
from retailers.domain import mapping as mappings
from retailers.domain import policy, reconcile
from retailers.domain.harmonizer import text_of
from retailers.models import (
    Brand,
    FeedLoad,
    FeedMapping,
    PerformanceMetric,
    PolicyRule,
    ProductIdentifier,
    QuarantinedRow,
    Retailer,
    SKUCatalog,
    Webhook,
)
from rmn.lib import outbound, pii
from rmn.lib.errors import BadInput

MOST_IDS = 50_000
SHORTEST_ID = 6  # a shorter number is nobody's telephone either

# -- feeds


def keep_file(brand: Brand, chunks: Iterable[bytes]) -> tuple[str, str]:
    """Store a file below the files folder under its digest; returns its relative path and SHA-256.

    Raises:
        BadInput: larger than the installation takes.
    """
    folder = Path(settings.MEDIA_ROOT) / "feeds" / str(brand.uuid)
    folder.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    part = folder / f".{hashlib.sha256(repr(id(chunks)).encode()).hexdigest()[:16]}.part"
    try:
        with part.open("wb") as file:
            for chunk in chunks:
                size += len(chunk)
                if size > settings.RMN_UPLOAD_MAX_BYTES:
                    raise BadInput(
                        f"the file has more than {settings.RMN_UPLOAD_MAX_BYTES // 2**20} MB; split it, or raise RMN_UPLOAD_MAX_MB"
                    )
                digest.update(chunk)
                file.write(chunk)
        target = folder / digest.hexdigest()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return str(target.relative_to(settings.MEDIA_ROOT)), digest.hexdigest()


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
) -> FeedLoad:
    """Record a load with its file kept; nothing is queued yet.

    Args:
        mapping: a stored mapping, the name of a shipped one, or the text of one.
        as_of: when the numbers were taken, ISO 8601; else the file says.
        period: START:END for reports without a date.
    """
    text = mapping if isinstance(mapping, str) and "\n" in mapping else ""
    parsed = mappings.parse(text) if text else None
    if isinstance(mapping, str) and not text:
        parsed = mappings.shipped(mapping)
    path, digest = keep_file(brand, chunks)
    config: dict[str, Any] = {"as_of": as_of, "period": period}
    if parsed is not None:
        config |= {"mapping": parsed.mapping, "yaml": text}
    return FeedLoad.objects.create(
        brand=brand,
        retailer=retailer,
        mapping=mapping if isinstance(mapping, FeedMapping) else None,
        mapping_version=parsed.version_text if parsed is not None else "",
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
    slices = metrics.slices()
    chosen = reconcile.choose(slices)
    counted = [part for part in slices if chosen[part.where] == part.grain]
    totals: dict[str, dict[str, Any]] = {}
    for part in counted:
        here = totals.setdefault(part.where[-1], {"rows": 0, "impressions": None, "clicks": None, "spend": None})
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
            for gap in reconcile.gaps(slices)
        ],
    }


def newest_mapping(load: FeedLoad) -> FeedMapping | str | None:
    """What a load's report would be read with today: the newest kept version, else the shipped one."""
    if load.mapping is not None:
        kept = load.mapping
        return FeedMapping.objects.current().filter(scope=kept.scope, network=kept.network, report=kept.report).first()
    name = str(load.config.get("mapping", ""))
    return name if not load.config.get("yaml") and name in mappings.shipped_names() else None


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


def checker(brand: Brand | None) -> Callable[..., policy.Verdict]:
    """``policy.check`` with the rules in force today, read once: for many texts of one brand."""
    day = timezone.now().date()
    return partial(policy.check, rules=rules_in_force(brand, day), day=day)


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


def masker(brand: Brand | None) -> Callable[[str], pii.Masked]:
    """Masks personal data under the brand's key (the installation's without one), its own codes left as they are."""
    if brand is None:
        return partial(pii.mask, key=settings.RMN_DATA_KEY)
    return partial(pii.mask, key=f"{settings.RMN_DATA_KEY}:{brand.uuid}", known_ids=known_ids(brand))


def redact(brand: Brand, text: str) -> pii.Masked:
    """The text with personal data masked under the brand's key."""
    return masker(brand)(text)

"""Who sells advertising and who buys it, their products, reports and rules."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone
from simple_history.models import HistoricalRecords

from retailers.domain import mapping as mappings
from retailers.domain import policy, reconcile
from rmn.lib.errors import BadInput
from rmn.lib.rows import Addressed, Owned, TenantQuerySet, scope_text
from rmn.lib.runs import Run, RunQuerySet

MONEY: Any = {"max_digits": 38, "decimal_places": 6}


class RetailerQuerySet(models.QuerySet["Retailer"]):
    def active(self) -> RetailerQuerySet:
        return self.filter(is_active=True)

    def visible_to(self, user: Any) -> RetailerQuerySet:
        """Retailers are no brand's secret: every member sees those in use; what is configured there, ops alone."""
        if Brand.objects.sees_all(user):
            return self
        return self.active() if Brand.objects.for_user(user).exists() else self.none()


class Retailer(Addressed):
    """A retailer that sells advertising: its network, its endpoints, its clock and its currency."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    network = models.CharField(max_length=40, db_index=True)  # amazon_ads, walmart, instacart, criteo, kroger ...
    time_zone = models.CharField(max_length=60, default="UTC")  # report days are days of this zone
    currency = models.CharField(max_length=3, default="USD")
    api_endpoints = models.JSONField(default=dict, blank=True)  # name -> address; used through the allowlist only
    configuration = models.JSONField(default=dict, blank=True)
    policies = models.JSONField(default=dict, blank=True)  # what its creative policy adds to the network's rules
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = RetailerQuerySet.as_manager()
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class BrandQuerySet(models.QuerySet["Brand"]):
    def sees_all(self, user: Any) -> bool:
        """Superusers and ops staff of all brands."""
        if not getattr(user, "is_authenticated", False) or not user.is_active:
            return False
        return bool(user.is_superuser) or any(m.brand_id is None for m in memberships(user))

    def for_user(self, user: Any, *, whole: bool = False) -> BrandQuerySet:
        """The brands somebody acts for; ``whole`` leaves out those narrowed to one retailer."""
        if self.sees_all(user):
            return self
        keys = [m.brand_id for m in memberships(user) if m.brand_id and not (whole and m.retailer_id)]
        return self.filter(pk__in=keys)

    visible_to = for_user

    def narrowed(self, user: Any) -> Iterator[tuple[int, int]]:
        """(brand, retailer) keys of memberships that name one retailer."""
        whole = {m.brand_id for m in memberships(user) if not m.retailer_id}
        for member in memberships(user):
            if member.brand_id and member.retailer_id and member.brand_id not in whole:
                yield member.brand_id, member.retailer_id


class Brand(Addressed):
    """A manufacturer's brand that buys advertising: a tenant, walled off from every other."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    manufacturer = models.CharField(max_length=120, blank=True)
    currency = models.CharField(max_length=3, default="USD")
    voice = models.TextField(blank=True)  # how the brand speaks, for copy
    rivals = models.JSONField(default=list, blank=True)  # names that its copy must not use
    shares_training = models.BooleanField(default=False)  # may its rows train retailer and task adapters
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = BrandQuerySet.as_manager()
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """Who may act for which brand, and as what."""

    class Role(models.TextChoices):
        MARKETER = "marketer"
        ANALYST = "analyst"
        OPS = "ops"
        INTEGRATION = "integration"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=Role, default=Role.MARKETER)
    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="memberships")
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    scope = models.CharField(max_length=130, editable=False)

    history = HistoricalRecords()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "scope"], name="one_role_per_person_and_scope"),
            models.CheckConstraint(
                condition=Q(brand__isnull=False) | Q(role="ops"), name="only_ops_act_for_all_brands"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} as {self.role} of {self.brand or 'all brands'}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.scope = scope_text(self.brand, self.retailer)
        super().save(*args, **kwargs)


def memberships(user: Any) -> list[Membership]:
    """Somebody's memberships, read once per request (the user object lives as long)."""
    if not getattr(user, "is_authenticated", False) or not user.is_active:
        return []
    if not hasattr(user, "_rmn_memberships"):
        user._rmn_memberships = list(Membership.objects.filter(user=user).select_related("brand"))
    return list(user._rmn_memberships)


def roles(user: Any, brand: Brand | None = None) -> set[str]:
    """The roles somebody has for a brand, or at all; a superuser has that of ops."""
    found = {m.role for m in memberships(user) if brand is None or m.brand_id in (None, brand.pk)}
    return found | ({Membership.Role.OPS} if getattr(user, "is_superuser", False) else set())


class SKUCatalog(Owned):
    """One product of a brand, and what may be said about it."""

    sku = models.CharField(max_length=80)  # the brand's own code
    name = models.CharField(max_length=240)
    gtin14 = models.CharField(max_length=14, blank=True, db_index=True)
    upc = models.CharField(max_length=12, blank=True)
    ean = models.CharField(max_length=13, blank=True)
    department = models.CharField(max_length=120, blank=True)
    category = models.CharField(max_length=120, blank=True, db_index=True)
    product_type = models.CharField(max_length=120, blank=True)
    package_size = models.CharField(max_length=60, blank=True)
    price = models.DecimalField(**MONEY, null=True, blank=True)
    currency = models.CharField(max_length=3, blank=True)
    margin = models.FloatField(null=True, blank=True)  # 0 to 1: share of sales left after goods and fees
    facts = models.JSONField(default=dict, blank=True)  # what copy may quote: nutrition, origin, evidence ...
    is_active = models.BooleanField(default=True)

    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]
        verbose_name = "SKU"
        constraints = [models.UniqueConstraint(fields=["brand", "sku"], name="sku_once_per_brand")]

    def __str__(self) -> str:
        return self.name


class ProductIdentifier(Owned):
    """One product's name in one id space: the crosswalk between GTINs, ASINs and retailers' item ids."""

    class Kind(models.TextChoices):
        GTIN = "gtin"
        UPC = "upc"
        EAN = "ean"
        ISBN = "isbn"
        ASIN = "asin"
        RETAILER_SKU = "retailer_sku"
        PLU = "plu"
        CASE = "case"  # linked, never merged

    product = models.ForeignKey(SKUCatalog, models.CASCADE, related_name="identifiers")
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    scope = models.CharField(max_length=60, editable=False)  # the retailer's slug, or '-' for the world's ids
    kind = models.CharField(max_length=14, choices=Kind)
    value = models.CharField(max_length=80)
    source = models.CharField(max_length=120, blank=True)
    confidence = models.FloatField(default=1.0)
    in_conflict = models.BooleanField(default=False)  # another product claims it too: a person decides

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["brand", "scope", "kind", "value", "product"], name="identifier_once_per_product_and_id_space"
            )
        ]
        indexes = [models.Index(fields=["brand", "kind", "value"], name="identifier_lookup")]

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.scope = scope_text(self.retailer)
        super().save(*args, **kwargs)


class ExchangeRate(Addressed):
    """What one unit of ``base`` was worth in ``quote`` on a day, according to ``source``."""

    base = models.CharField(max_length=3)
    quote = models.CharField(max_length=3)
    date = models.DateField()
    rate = models.DecimalField(max_digits=20, decimal_places=10)
    source = models.CharField(max_length=120)

    class Meta:
        ordering = ["-date"]
        constraints = [
            models.UniqueConstraint(fields=["base", "quote", "date", "source"], name="rate_once_per_day_and_source"),
            models.CheckConstraint(condition=Q(rate__gt=0), name="rate_is_positive"),
        ]

    def __str__(self) -> str:
        return f"1 {self.base} = {self.rate} {self.quote} on {self.date}"


class FeedMappingQuerySet(TenantQuerySet):
    def current(self) -> FeedMappingQuerySet:
        return self.filter(is_current=True)


class FeedMapping(Addressed):
    """How one report of one network becomes RMIS: YAML, one row per version, never edited after use."""

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")  # null: shipped
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    scope = models.CharField(max_length=130, editable=False)
    network = models.CharField(max_length=40)
    report = models.CharField(max_length=80)
    version = models.PositiveIntegerField(default=1)
    yaml = models.TextField()
    sha256 = models.CharField(max_length=64)
    is_current = models.BooleanField(default=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = FeedMappingQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["scope", "network", "report", "version"], name="mapping_version_once_per_scope"
            )
        ]

    def __str__(self) -> str:
        return f"{self.network}/{self.report} v{self.version}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.scope = scope_text(self.brand, self.retailer)
        super().save(*args, **kwargs)


class FeedSource(Owned):
    """A folder or an address that is looked at by the clock; what is new there is loaded."""

    retailer = models.ForeignKey(Retailer, models.PROTECT, related_name="+")
    address = models.CharField(
        max_length=400,
        help_text="A folder or pattern such as /data/in/*.csv, or an https address (an object store's too)",
    )
    mapping = models.ForeignKey(FeedMapping, models.PROTECT, null=True, blank=True, related_name="+")
    report = models.CharField(
        max_length=120, blank=True, help_text="network/report of a shipped mapping, where none of yours is chosen"
    )
    is_active = models.BooleanField(default=True)
    seen = models.JSONField(default=dict, blank=True, editable=False)  # what was there at the last look
    last_looked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error = models.TextField(blank=True, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["brand", "address"], name="source_once_per_brand_and_address")]

    def __str__(self) -> str:
        return self.address

    def clean(self) -> None:
        """A source names one way to read what it brings."""
        if (self.mapping is None) == (not self.report):
            raise ValidationError("Choose a mapping of yours, or name a shipped report; one of them.")
        if self.report and self.report not in mappings.shipped_names():
            raise ValidationError({"report": "No such shipped mapping; write network/report."})


class FeedLoadQuerySet(RunQuerySet):
    STALE_AFTER: ClassVar[timedelta] = timedelta(days=3)

    def finished(self) -> FeedLoadQuerySet:
        return self.filter(status=Run.Status.SUCCEEDED)

    def stale(self, now: datetime) -> FeedLoadQuerySet:
        """The newest load of each feed (brand, retailer, mapping) that has had no new file for three days."""
        same = {name: models.OuterRef(name) for name in ("brand", "retailer", "mapping_version")}
        newer = FeedLoad.objects.finished().filter(**same, created_at__gt=models.OuterRef("created_at"))
        return self.finished().filter(~models.Exists(newer), created_at__lt=now - self.STALE_AFTER)


class FeedLoad(Run):
    """One report file on its way into the metrics: whole, or not at all."""

    task_name: ClassVar[str] = "retailers.tasks.load_feed"
    words: ClassVar[str] = "Load feed"

    retailer = models.ForeignKey(Retailer, models.PROTECT, related_name="+")
    mapping = models.ForeignKey(FeedMapping, models.PROTECT, null=True, blank=True, related_name="loads")
    mapping_version = models.CharField(max_length=140, blank=True)  # <network>/<report>@<integer>+<sha8>
    file_name = models.CharField(max_length=240)
    file_path = models.CharField(max_length=400, blank=True)  # below the files folder, by content hash
    file_sha256 = models.CharField(max_length=64, db_index=True)
    extracted_at = models.DateTimeField(null=True, blank=True)  # newest wins by this
    grain = models.CharField(max_length=24, blank=True)
    period_start = models.DateField(null=True, blank=True)
    period_end = models.DateField(null=True, blank=True)
    rows_read = models.PositiveBigIntegerField(default=0)
    rows_accepted = models.PositiveBigIntegerField(default=0)
    rows_quarantined = models.PositiveBigIntegerField(default=0)
    rows_warned = models.PositiveBigIntegerField(default=0)
    result = models.JSONField(default=dict, blank=True)  # the harmonizer's report, with what the load changed

    objects = FeedLoadQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "feed load"

    def __str__(self) -> str:
        return f"{self.file_name} ({self.mapping_version or 'no mapping'})"


ACCOUNT = ("retailer", "network", "account_id", "ad_product", "currency")  # whose money it is


class PerformanceMetricQuerySet(TenantQuerySet):
    def at_grain(self, grain: str) -> PerformanceMetricQuerySet:
        """Rows of ONE grain: the same money arrives in several reports, and only one of them is added."""
        return self.filter(grain=grain)

    def between(self, start: Any, end: Any) -> PerformanceMetricQuerySet:
        return self.filter(period_start__gte=start, period_end__lte=end)

    def slices(self) -> list[reconcile.Slice]:
        """What each grain says of each account, to choose one and to compare them."""
        scope = ("retailer__slug", "network", "account_id", "ad_product", "currency")
        sums = (
            self.order_by()
            .values(*scope, "grain")
            .annotate(
                rows=models.Count("pk"),
                spend_sum=models.Sum("spend"),
                click_sum=models.Sum("clicks"),
                impression_sum=models.Sum("impressions"),
            )
        )
        return [
            reconcile.Slice(
                tuple(row[name] for name in scope),
                row["grain"],
                row["rows"],
                row["spend_sum"],
                row["click_sum"],
                row["impression_sum"],
            )
            for row in sums
        ]

    def reports(self) -> list[reconcile.Report]:
        """Which grains tell of which periods of each account: one grouped query, no row is read."""
        hourly = models.Case(models.When(hour__isnull=False, then=1), default=0)
        found = (
            self.order_by()
            .annotate(hourly=hourly)
            .values_list(*ACCOUNT, "grain", "period_start", "period_end", "hourly")
        )
        return [
            reconcile.Report(tuple(where), grain, start, end, spends > 0, bool(hours))
            for *where, grain, start, end, hours, spends in found.annotate(spends=models.Count("spend"))
        ]

    def counted_once(self) -> PerformanceMetricQuerySet:
        """Rows of one grain per retailer, network, account, ad product, currency and day: money counts once."""
        reports = self.reports()
        counted = reconcile.counted(reports)
        groups: dict[tuple[Any, ...], list[reconcile.Report]] = {}
        for report in reports:
            groups.setdefault((*report.where, report.grain, report.hourly), []).append(report)
        kept = Q(pk__in=[])
        for (*where, grain, hourly), told in groups.items():
            mine = [report for report in told if report in counted]
            if not mine:
                continue
            rows = Q(**dict(zip(ACCOUNT, where, strict=True)), grain=grain, hour__isnull=not hourly)
            if len(mine) < len(told):
                starts, ends = {report.start for report in mine}, {report.end for report in mine}
                rows &= Q(period_start__in=sorted(starts), period_end__in=sorted(ends))
                for report in told:  # one that begins with a counted period and ends with a later one
                    if report not in counted and report.start in starts and report.end in ends:
                        rows &= ~Q(period_start=report.start, period_end=report.end)
            kept |= rows
        return self.filter(kept)


class PerformanceMetric(Owned):
    """What one advertised thing did at one retailer in one period, at one grain, in one currency."""

    retailer = models.ForeignKey(Retailer, models.PROTECT, related_name="+")
    load = models.ForeignKey(FeedLoad, models.PROTECT, null=True, blank=True, related_name="metrics")
    row_key = models.CharField(max_length=64)  # SHA-256 of the natural key
    row_hash = models.CharField(max_length=64)  # SHA-256 of the values
    network = models.CharField(max_length=40)
    account_id = models.CharField(max_length=80, blank=True)
    grain = models.CharField(max_length=24)
    ad_product = models.CharField(max_length=60, blank=True)
    campaign_id = models.CharField(max_length=120, blank=True)
    campaign_name = models.CharField(max_length=240, blank=True)
    ad_group_id = models.CharField(max_length=120, blank=True)
    ad_group_name = models.CharField(max_length=240, blank=True)
    ad_id = models.CharField(max_length=120, blank=True)
    product_id_type = models.CharField(max_length=24, blank=True)
    product_id = models.CharField(max_length=120, blank=True)
    gtin14 = models.CharField(max_length=14, blank=True)
    keyword = models.CharField(max_length=400, blank=True)
    search_term = models.CharField(max_length=400, blank=True)
    match_type = models.CharField(max_length=40, blank=True)
    placement = models.CharField(max_length=120, blank=True)
    channel = models.CharField(max_length=24, blank=True)
    period_start = models.DateField()
    period_end = models.DateField()  # inclusive
    hour = models.PositiveSmallIntegerField(null=True, blank=True)
    time_zone = models.CharField(max_length=60, blank=True)
    currency = models.CharField(max_length=3, blank=True)
    impressions = models.BigIntegerField(null=True, blank=True)
    viewable_impressions = models.BigIntegerField(null=True, blank=True)
    clicks = models.BigIntegerField(null=True, blank=True)
    spend = models.DecimalField(**MONEY, null=True, blank=True)
    spend_assumed = models.BooleanField(default=False)  # made by a stated rule, not reported
    is_final = models.BooleanField(default=True)  # young rows are still restated by the network
    file_sha256 = models.CharField(max_length=64)
    row_number = models.PositiveBigIntegerField()
    mapping_version = models.CharField(max_length=140)
    extracted_at = models.DateTimeField()
    loaded_at = models.DateTimeField(auto_now=True)

    objects = PerformanceMetricQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["brand", "retailer", "row_key"], name="metric_once_per_natural_key"),
            models.CheckConstraint(
                condition=Q(period_end__gte=models.F("period_start")), name="metric_ends_after_it_starts"
            ),
        ]
        indexes = [
            models.Index(fields=["brand", "retailer", "grain", "period_start"], name="metric_by_grain_and_day"),
            models.Index(fields=["brand", "campaign_id", "period_start"], name="metric_by_campaign"),
        ]

    def __str__(self) -> str:
        return f"{self.grain} {self.campaign_id} {self.period_start}"


class MetricOutcome(models.Model):
    """What came of it, with the attribution that says how it was counted."""

    brand = models.ForeignKey(Brand, models.PROTECT, related_name="+")
    performance = models.ForeignKey(PerformanceMetric, models.CASCADE, related_name="outcomes")
    metric = models.CharField(max_length=24)  # sales, orders, units, ntb_sales ...
    window_days = models.SmallIntegerField(default=0)  # 0: the network does not say
    interaction = models.CharField(max_length=12, blank=True)  # click, view, any
    model = models.CharField(max_length=24, blank=True)  # last_touch, linear ...
    scope = models.CharField(max_length=24, blank=True)  # all, same_sku, halo, brand, category
    sales_channel = models.CharField(max_length=24, blank=True)
    value = models.DecimalField(**MONEY)

    objects = TenantQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["performance", "metric", "window_days", "interaction", "model", "scope", "sales_channel"],
                name="outcome_once_per_attribution",
            )
        ]

    def __str__(self) -> str:
        return f"{self.metric} {self.value} ({self.window_days} d, {self.interaction or 'any'})"


class MetricRevision(models.Model):
    """What a metric said before a newer extract restated it."""

    brand = models.ForeignKey(Brand, models.PROTECT, related_name="+")
    performance = models.ForeignKey(PerformanceMetric, models.CASCADE, related_name="revisions")
    replaced_by = models.ForeignKey(FeedLoad, models.PROTECT, null=True, related_name="+")
    row_hash = models.CharField(max_length=64)
    values = models.JSONField()
    extracted_at = models.DateTimeField()
    replaced_at = models.DateTimeField(auto_now_add=True)

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ["-extracted_at"]

    def __str__(self) -> str:
        return f"as of {self.extracted_at:%Y-%m-%d}"


class QuarantinedRowQuerySet(TenantQuerySet):
    def open(self) -> QuarantinedRowQuerySet:
        return self.filter(status=QuarantinedRow.Status.OPEN)


class QuarantinedRow(Owned):
    """A row that was refused, kept raw with its reason until a mapping or a person answers it."""

    class Status(models.TextChoices):
        OPEN = "open"
        REPLAYED = "replayed"
        DISMISSED = "dismissed"

    retailer = models.ForeignKey(Retailer, models.PROTECT, related_name="+")
    load = models.ForeignKey(FeedLoad, models.PROTECT, related_name="quarantine")
    file_sha256 = models.CharField(max_length=64, db_index=True)
    row_number = models.PositiveBigIntegerField()
    column = models.CharField(max_length=120, blank=True)
    rule = models.CharField(max_length=60, db_index=True)
    message = models.TextField()
    raw = models.TextField()
    status = models.CharField(max_length=10, choices=Status, default=Status.OPEN, db_index=True)
    replayed_by = models.ForeignKey(FeedLoad, models.PROTECT, null=True, blank=True, related_name="+")

    objects = QuarantinedRowQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["brand", "retailer", "file_sha256", "row_number", "rule", "column"], name="row_quarantined_once"
            )
        ]

    def __str__(self) -> str:
        return f"row {self.row_number}: {self.rule}"


class PolicyRuleQuerySet(models.QuerySet["PolicyRule"]):
    def holding(self, brand: Brand | None, day: date) -> list[PolicyRule]:
        """The newest version of each rule that has begun by this day: the installation's and the brand's own."""
        begun = self.filter(Q(valid_from=None) | Q(valid_from__lte=day)).filter(
            Q(brand=None) | Q(brand=brand) if brand is not None else Q(brand=None)
        )
        newest = {(row.brand_id, row.code): row for row in begun.order_by("version")}
        return list(newest.values())

    def visible_to(self, user: Any) -> PolicyRuleQuerySet:
        """The networks' and the law's rules are everybody's; a brand's own are the brand's."""
        if Brand.objects.sees_all(user):
            return self
        own = Brand.objects.for_user(user)
        return self.filter(Q(brand=None) | Q(brand__in=own)) if own.exists() else self.none()


class PolicyRule(Addressed):
    """One rule of creative policy: where it holds, what it looks for, what it asks for."""

    class Severity(models.TextChoices):
        BLOCK = "block"
        NEEDS_PROOF = "needs_proof"
        WARN = "warn"

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")
    scope = models.CharField(max_length=60, editable=False)
    code = models.CharField(max_length=60)  # AMZ-SUPER ...
    version = models.PositiveIntegerField(default=1)
    network = models.CharField(max_length=40, db_index=True)  # a network, generic_us, generic_eu, generic_uk, any
    severity = models.CharField(max_length=12, choices=Severity)
    kind = models.CharField(max_length=24)  # lexicon, regex, length, structure, fact, evidence ...
    spec = models.JSONField(default=dict)
    message = models.TextField()
    fix = models.TextField(blank=True)
    source = models.TextField(blank=True)
    owner = models.CharField(max_length=120, blank=True)
    valid_from = models.DateField(null=True, blank=True)
    valid_to = models.DateField(null=True, blank=True)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = PolicyRuleQuerySet.as_manager()
    history = HistoricalRecords()

    class Meta:
        ordering = ["network", "code"]
        constraints = [models.UniqueConstraint(fields=["scope", "code", "version"], name="rule_version_once_per_scope")]

    def __str__(self) -> str:
        return f"{self.code} v{self.version}"

    def clean(self) -> None:
        """A rule that could not be applied is refused when it is written, not when a text is checked."""
        try:
            policy.make_rule(self.row(timezone.now().date()), self.code or "rule")
        except (BadInput, TypeError, AttributeError) as error:
            raise ValidationError(str(error)) from None
        known = {rule.id for rule in policy.shipped().rules}
        if self.brand is not None and self.code in known:
            raise ValidationError({"code": "A brand's own rule has a code of its own; it cannot replace a network's."})
        places = {"any", *policy.shipped().networks, *itertools.chain(*policy.shipped().networks.values())}
        if self.network not in places:
            raise ValidationError({"network": f"One of {', '.join(sorted(places))}."})

    def row(self, day: date) -> dict[str, Any]:
        """The rule as data (docs/policy.md); ``retired`` where it holds no longer."""
        over = self.valid_to is not None and self.valid_to < day
        return {
            **self.spec,
            "id": self.code,
            "on": self.network,
            "severity": self.severity,
            "kind": self.kind,
            "message": self.message,
            "fix": self.fix,
            "source": self.source,
            "retired": over or not self.is_active,
        }

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.scope = scope_text(self.brand)
        super().save(*args, **kwargs)


class AuditEntry(Addressed):
    """One line of what was done, chained by hash to the line before it in the same brand's chain."""

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")
    chain = models.CharField(max_length=60)  # the brand's slug, or '-' for the installation
    sequence = models.PositiveBigIntegerField()
    at = models.DateTimeField()
    actor = models.CharField(max_length=160)  # a user name or the part of the system that acted
    action = models.CharField(max_length=80)
    subject_type = models.CharField(max_length=60, blank=True)
    subject_id = models.CharField(max_length=64, blank=True)
    payload = models.JSONField(default=dict)
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ["-sequence"]
        verbose_name_plural = "audit entries"
        constraints = [models.UniqueConstraint(fields=["chain", "sequence"], name="audit_line_once_per_chain")]

    def __str__(self) -> str:
        return f"{self.chain} #{self.sequence} {self.action}"


class AuditHead(models.Model):
    """The newest line of a chain: what appending locks, and what shows a tail cut off."""

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")
    chain = models.CharField(max_length=60, unique=True)
    sequence = models.PositiveBigIntegerField(default=0)
    hash = models.CharField(max_length=64, blank=True)

    def __str__(self) -> str:
        return f"{self.chain} at {self.sequence}"


class IdempotencyKey(models.Model):
    """The answer once given to a POST with this key, so that asking twice does it once."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    key = models.CharField(max_length=120)
    path = models.CharField(max_length=200)
    body_sha256 = models.CharField(max_length=64)
    status_code = models.PositiveSmallIntegerField(null=True)
    response = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="key_once_per_person")]

    def __str__(self) -> str:
        return self.key


class Webhook(Owned):
    """Where a brand wants to be told of what happens: audited deeds and ended runs."""

    url = models.URLField(max_length=400)
    events = models.JSONField(default=list, blank=True)  # names of events; empty: all
    sealed_secret = models.TextField(blank=True)  # write-only
    is_active = models.BooleanField(default=True)
    last_sequence = models.PositiveBigIntegerField(default=0)  # told up to this line of the audit chain
    told_until = models.DateTimeField(default=timezone.now)  # and of runs that ended before this
    last_status = models.PositiveSmallIntegerField(null=True, blank=True)
    last_error = models.TextField(blank=True)
    last_sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["brand", "url"], name="webhook_once_per_brand_and_url")]

    def __str__(self) -> str:
        return self.url


class Delivery(Run):
    """One message to one webhook: tried again with growing pauses, then a dead letter that can be sent again."""

    task_name: ClassVar[str] = "retailers.tasks.deliver"
    words: ClassVar[str] = "Tell a webhook"
    is_errand: ClassVar[bool] = True
    MOST_ATTEMPTS: ClassVar[int] = 10  # over six to eleven hours

    webhook = models.ForeignKey(Webhook, models.PROTECT, related_name="deliveries")
    event = models.CharField(max_length=80, db_index=True)
    body = models.JSONField()
    response_status = models.PositiveSmallIntegerField(null=True, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "delivery"
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook_id}"

    def pause(self) -> timedelta:
        """One minute, then twice as long each time; spread, so that a receiver's return is no flood."""
        share = 0.75 + (self.pk.int % 1000) / 2000
        return timedelta(minutes=2 ** (self.attempts - 1) * share)

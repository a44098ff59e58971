"""Who sells advertising and who buys it, their products, reports and rules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone
from simple_history.models import HistoricalRecords

from retailers.domain import exchange, identifiers, policy, reconcile, rmis
from retailers.domain import mapping as mappings
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


# Every request with a token begins with this; worded once, it costs a third of what building it would.
PERSON = """
SELECT auth_user.*, held.id AS held, held.role, held.brand_id, held.retailer_id
FROM auth_user JOIN retailers_membership held ON held.user_id = auth_user.id WHERE auth_user.id = %s
"""


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
        return self.filter(pk__in=self.keys_of(user, whole=whole))

    visible_to = for_user

    def keys_of(self, user: Any, *, whole: bool = False) -> list[int]:
        """The keys of the brands that somebody's memberships name."""
        return sorted({m.brand_id for m in memberships(user) if m.brand_id and not (whole and m.retailer_id)})

    def roles_of(self, user: Any) -> set[str]:
        """The roles somebody has at all."""
        return roles(user)

    def person_with_memberships(self, key: Any) -> Any:
        """A person by key with their memberships read along; None for whoever has none."""
        rows: list[Any] = list(User.objects.raw(PERSON, [key]))
        if not rows:
            return None
        person = rows[0]
        person._rmn_memberships = [
            Membership(pk=row.held, user=person, role=row.role, brand_id=row.brand_id, retailer_id=row.retailer_id)
            for row in rows
        ]
        return person

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

    masked_names: ClassVar[tuple[str, ...]] = ("name", "facts")

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

    def clean(self) -> None:
        """A GTIN carries its check digit, whoever typed it."""
        if self.gtin14:
            told = identifiers.examine_one(self.gtin14)
            if not told["valid"]:
                raise ValidationError({"gtin14": f"{self.gtin14}: {told['reason']}."})
            self.gtin14 = told["gtin14"]


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


class ExchangeRateQuerySet(models.QuerySet["ExchangeRate"]):
    def between(self, currencies: Iterable[str], to: str, first: date, last: date) -> exchange.Rates:
        """What is known of these currencies in another, for days from ``first`` to ``last``."""
        names = set(currencies)
        pairs = Q(base__in=names, quote=to) | Q(base=to, quote__in=names)
        rows = self.filter(pairs, date__gte=first - exchange.STALEST, date__lte=last)
        return exchange.Rates(exchange.Rate(row.base, row.quote, row.date, row.rate, row.source) for row in rows)


class ExchangeRate(Addressed):
    """What one unit of ``base`` was worth in ``quote`` on a day, according to ``source``."""

    base = models.CharField(max_length=3)
    quote = models.CharField(max_length=3)
    date = models.DateField()
    rate = models.DecimalField(max_digits=20, decimal_places=10)
    source = models.CharField(max_length=120)

    objects = ExchangeRateQuerySet.as_manager()

    class Meta:
        ordering = ["-date"]
        constraints = [
            models.UniqueConstraint(fields=["base", "quote", "date", "source"], name="rate_once_per_day_and_source"),
            models.CheckConstraint(condition=Q(rate__gt=0), name="rate_is_positive"),
        ]

    def clean(self) -> None:
        """Two known currencies; a rate of one to itself is none."""
        self.base, self.quote = self.base.upper(), self.quote.upper()
        for name in ("base", "quote"):
            if getattr(self, name) not in rmis.CURRENCIES:
                raise ValidationError({name: f"{getattr(self, name)!r} is no ISO 4217 currency code."})
        if self.base == self.quote:
            raise ValidationError({"quote": "A currency is worth itself; name another."})

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

    masked: ClassVar[tuple[str, ...]] = ("last_error",)

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

    masked: ClassVar[tuple[str, ...]] = ("file_name",)
    masked_kinds: Any = None  # counts, in names and search terms, different ones, while it is loaded

    task_name: ClassVar[str] = "retailers.tasks.load_feed"
    words: ClassVar[str] = "Load feed"

    retailer = models.ForeignKey(Retailer, models.PROTECT, related_name="+")
    mapping = models.ForeignKey(FeedMapping, models.PROTECT, null=True, blank=True, related_name="loads")
    mapping_version = models.CharField(max_length=140, blank=True)  # <network>/<report>@<integer>+<sha8>
    file_name = models.CharField(max_length=240)
    file_path = models.CharField(max_length=400, blank=True)  # below the files folder, by content hash
    file_sha256 = models.CharField(max_length=64, db_index=True)
    extracted_at = models.DateTimeField(null=True, blank=True)  # newest wins by this
    confirmed_at = models.DateTimeField(
        null=True, blank=True, editable=False
    )  # a newer extract said all its rows again
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


MONTH = timedelta(days=31)  # a report that tells of more days at once is met where it begins
ACCOUNT = ("retailer", "network", "account_id", "ad_product", "currency", "brand")  # whose money it is


def one_of(column: str, numbers: Iterable[int]) -> models.Func:
    """Whether a column of whole numbers is one of these: written out, so that no engine's count of parameters ends it."""
    shown = ",".join(map(str, sorted(numbers))) or "NULL"
    return models.Func(models.F(column), template=f"%(expressions)s IN ({shown})", output_field=models.BooleanField())


class PerformanceMetricQuerySet(TenantQuerySet):
    _told: dict[reconcile.Report, reconcile.Sums] | None = None  # a clone asks anew

    def at_grain(self, grain: str) -> PerformanceMetricQuerySet:
        """Rows of ONE grain: the same money arrives in several reports, and only one of them is added."""
        return self.filter(grain=grain)

    def between(self, start: Any, end: Any) -> PerformanceMetricQuerySet:
        return self.filter(period_start__gte=start, period_end__lte=end)

    def newest_day(self) -> date | None:
        """The last day that a row tells of; asked of the newest month, since an index knows only where rows begin."""
        began = self.aggregate(last=models.Max("period_start"))["last"]
        if began is None:
            return None
        last: date = self.filter(period_start__gte=began - MONTH).aggregate(last=models.Max("period_end"))["last"]
        return last

    def told(self) -> dict[reconcile.Report, reconcile.Sums]:
        """Which grains tell of which periods of each account, and their sums: one grouped query, kept on this queryset."""
        if self._told is None:
            sums = {
                one: reconcile.Sums([number], rows, spend, clicks, impressions)
                for number, one, rows, spend, clicks, impressions in self.order_by()
                .values_list("report")
                .annotate(
                    models.Min("pk"), models.Count("pk"), models.Sum("spend"), models.Sum("clicks"), models.Sum("impressions")
                )
            }  # fmt: skip
            told: dict[reconcile.Report, reconcile.Sums] = {}
            names = ("pk", *ACCOUNT, "grain", "period_start", "period_end", "hour")
            for pk, *where, grain, start, end, hour in (
                self.model.objects.filter(one_of("pk", sums)).order_by("pk").values_list(*names)
            ):
                spends = sums[pk].spend is not None
                report = reconcile.Report(tuple(where), grain, start, end, spends, hour is not None)
                told.setdefault(report, reconcile.Sums([])).add(sums[pk])
            self._told = told
        return self._told

    def slices(self, *, once: bool = False) -> list[reconcile.Slice]:
        """What each grain says of each account, to compare them; ``once``: of the rows that are counted."""
        told = self.told()
        slugs = dict(Retailer.objects.filter(pk__in={report.where[0] for report in told}).values_list("pk", "slug"))
        sums: dict[tuple[Any, ...], reconcile.Sums] = {}
        for report in sorted(reconcile.counted(told) if once else told, key=lambda one: (str(one.where), one.grain)):
            sums.setdefault((report.where, report.grain), reconcile.Sums([])).add(told[report])
        return [
            reconcile.Slice(
                (slugs[where[0]], *where[1:]), grain, sum_of.rows, sum_of.spend, sum_of.clicks, sum_of.impressions
            )
            for (where, grain), sum_of in sums.items()
        ]

    def reports(self) -> list[reconcile.Report]:
        """Which grains tell of which periods of each account."""
        return list(self.told())

    def counted_once(self) -> PerformanceMetricQuerySet:
        """Rows of one grain per brand, retailer, network, account, ad product, currency and day: money counts once."""
        told = self.told()
        counted = reconcile.counted(told)
        kept = [number for report in counted for number in told[report].numbers]
        left = [number for report in told if report not in counted for number in told[report].numbers]
        if not left:
            return self.all()
        return self.filter(one_of("report", kept) if len(kept) <= len(left) else ~Q(one_of("report", left)))

    def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """As ever, each row with the number of its report."""
        objs = list(objs)
        for row in objs:
            row.report = row.report_number()
        return super().bulk_create(objs, *args, **kwargs)


class PerformanceMetric(Owned):
    """What one advertised thing did at one retailer in one period, at one grain, in one currency."""

    retailer = models.ForeignKey(Retailer, models.PROTECT, related_name="+")
    load = models.ForeignKey(FeedLoad, models.PROTECT, null=True, blank=True, related_name="metrics")
    row_key = models.CharField(max_length=64)  # SHA-256 of the natural key
    row_hash = models.CharField(max_length=64)  # BLAKE3 of the values
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
    report = models.BigIntegerField(editable=False)  # rows of one account, grain and period share it; see reconcile

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
            models.Index(fields=["brand", "report"], name="metric_by_report"),
            models.Index(fields=["brand", "period_start"], name="metric_by_day"),
        ]

    def __str__(self) -> str:
        return f"{self.grain} {self.campaign_id} {self.period_start}"

    @property
    def taken_at(self) -> datetime:
        """The newest extract that said this value: its own, or a later one that said its file's rows again."""
        again = self.load.confirmed_at if self.load else None
        return max(self.extracted_at, again) if again else self.extracted_at

    def report_number(self) -> int:
        where = (self.retailer_id, self.network, self.account_id, self.ad_product, self.currency, self.brand_id)
        return reconcile.report_number(where, self.grain, self.period_start, self.period_end, self.hour is not None)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.report = self.report_number()
        if kwargs.get("update_fields") is not None:
            kwargs["update_fields"] = {*kwargs["update_fields"], "report"}
        super().save(*args, **kwargs)


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

    append_only: ClassVar[bool] = True

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
    wrong = models.CharField(max_length=200, blank=True, db_default="")  # what the last check of the whole chain found

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

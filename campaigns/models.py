"""What is bought, what it brings, and what is proposed."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from simple_history.models import HistoricalRecords

from retailers.models import MONEY, Retailer, SKUCatalog
from rmn.lib.errors import BadInput
from rmn.lib.rows import Owned, TenantQuerySet
from rmn.lib.runs import Run, RunQuerySet


class AudienceSegment(Owned):
    """People an ad may be shown to: how they are defined, and how many they are thought to be."""

    masked_names: ClassVar[tuple[str, ...]] = ("name", "definition", "source")

    retailer = models.ForeignKey(Retailer, models.PROTECT, related_name="+")
    name = models.CharField(max_length=160)
    definition = models.JSONField(default=dict, blank=True)
    reach_estimate = models.PositiveBigIntegerField(null=True, blank=True)  # people or households, see reach_unit
    reach_low = models.PositiveBigIntegerField(null=True, blank=True)
    reach_high = models.PositiveBigIntegerField(null=True, blank=True)
    reach_unit = models.CharField(max_length=24, default="people")
    source = models.CharField(max_length=160, blank=True)

    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["brand", "retailer", "name"], name="audience_name_once_per_brand_and_retailer"
            )
        ]

    def __str__(self) -> str:
        return self.name


class CampaignQuerySet(TenantQuerySet):
    def live(self) -> CampaignQuerySet:
        return self.filter(status=Campaign.Status.LIVE)


class Campaign(Owned):
    """What one advertiser buys from one retailer between two dates."""

    masked_names: ClassVar[tuple[str, ...]] = ("name",)

    class Status(models.TextChoices):
        DRAFT = "draft"
        LIVE = "live"
        PAUSED = "paused"
        ENDED = "ended"
        ARCHIVED = "archived"

    retailer = models.ForeignKey(Retailer, models.PROTECT, related_name="campaigns")
    name = models.CharField(max_length=240)
    account_id = models.CharField(max_length=80, blank=True)
    network_campaign_id = models.CharField(max_length=120, blank=True)  # links the metrics
    tactic = models.CharField(max_length=60, blank=True)  # search, display, circular, mailing ...
    objective = models.CharField(max_length=60, blank=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.DRAFT, db_index=True)
    currency = models.CharField(max_length=3, default="USD")
    budget = models.DecimalField(**MONEY, null=True, blank=True)  # total of the flight
    budget_per_day = models.DecimalField(**MONEY, null=True, blank=True)
    constraints = models.JSONField(default=dict, blank=True)  # min, max, max_change, min_roas, fixed: per plan period
    start_date = models.DateField(null=True, blank=True)
    end_date = models.DateField(null=True, blank=True)
    audience = models.ForeignKey(AudienceSegment, models.PROTECT, null=True, blank=True, related_name="campaigns")
    skus = models.ManyToManyField(SKUCatalog, blank=True, related_name="campaigns")

    objects = CampaignQuerySet.as_manager()
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["brand", "retailer", "name"], name="campaign_name_once_per_brand_and_retailer"
            ),
            models.CheckConstraint(
                condition=Q(end_date__isnull=True) | Q(start_date__isnull=True) | Q(end_date__gte=F("start_date")),
                name="campaign_ends_after_it_starts",
            ),
        ]
        indexes = [models.Index(fields=["brand", "retailer", "network_campaign_id"], name="campaign_by_network_id")]

    def __str__(self) -> str:
        return self.name


class CurveFit(Run):
    """One fitting of response curves to a brand's history."""

    task_name: ClassVar[str] = "campaigns.tasks.fit_curves"
    words: ClassVar[str] = "Fit response curves"

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    window_start = models.DateField(null=True, blank=True)
    window_end = models.DateField(null=True, blank=True)
    result = models.JSONField(default=dict, blank=True)  # arms, intervals, draws, warnings as CONTRACTS section 3

    objects = RunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "curve fit"


class ResponseCurveQuerySet(TenantQuerySet):
    def current(self) -> ResponseCurveQuerySet:
        return self.filter(is_current=True)


class ResponseCurve(Owned):
    """What spend on one arm brings: a curve, how sure it is, and what that rests on."""

    class Evidence(models.TextChoices):
        EXPERIMENT = "experiment"
        CALIBRATED = "calibrated", "calibrated model"
        ATTRIBUTION = "attribution", "attribution only"

    retailer = models.ForeignKey(Retailer, models.PROTECT, related_name="+")
    fit = models.ForeignKey(CurveFit, models.PROTECT, null=True, blank=True, related_name="curves")
    campaign = models.ForeignKey(Campaign, models.PROTECT, null=True, blank=True, related_name="curves")
    arm = models.CharField(max_length=120)
    tactic = models.CharField(max_length=60, blank=True)
    kind = models.CharField(max_length=20)  # log, power, michaelis_menten, hill, piecewise
    scale = models.FloatField(default=0)
    half = models.FloatField(default=0)
    exponent = models.FloatField(default=1)
    points = models.JSONField(default=list, blank=True)
    std = models.JSONField(default=dict, blank=True)
    draws = models.JSONField(default=list, blank=True)
    currency = models.CharField(max_length=3, default="USD")
    period_days = models.PositiveSmallIntegerField(default=7)  # spend and sales are totals of so many days
    spend_seen_max = models.FloatField(null=True, blank=True)  # extrapolation past 1.5 times this is refused
    evidence = models.CharField(max_length=12, choices=Evidence, default=Evidence.ATTRIBUTION)
    spend_assumed = models.BooleanField(default=False)
    warnings = models.JSONField(default=list, blank=True)
    is_current = models.BooleanField(default=True, db_index=True)

    objects = ResponseCurveQuerySet.as_manager()

    class Meta:
        ordering = ["arm"]

    def __str__(self) -> str:
        return f"{self.arm} ({self.kind})"


class BudgetPlanQuerySet(RunQuerySet):
    def awaiting_approval(self) -> BudgetPlanQuerySet:
        return self.filter(state=BudgetPlan.State.PROPOSED, status=Run.Status.SUCCEEDED)

    def running_on(self, day: date) -> BudgetPlanQuerySet:
        """Approved plans whose period holds the day."""
        return self.filter(state=BudgetPlan.State.APPROVED, period_start__lte=day, period_end__gte=day)

    def follow_up(
        self, plan: BudgetPlan, problem: dict[str, Any], left: float, day: date, *, assumed: bool
    ) -> BudgetPlan | None:
        """What is left of a plan as a wish for a new one; None where that day has it already."""
        made, new = self.get_or_create(
            brand=plan.brand,
            idempotency_key=f"again-{plan.pk}-{day}",
            defaults={
                "retailer": plan.retailer,
                "name": f"{plan.name}, from {day}"[:160],
                "total_budget": Decimal(str(round(left, 2))),
                "currency": plan.currency,
                "period_start": day,
                "period_end": plan.period_end,
                "problem": problem,
                "spend_assumed": assumed,
            },
        )
        return made if new else None


class BudgetPlan(Run):
    """A split of one budget over arms, with its value, its bound and the price of every limit."""

    masked: ClassVar[tuple[str, ...]] = ("decision_note",)
    masked_names: ClassVar[tuple[str, ...]] = ("name",)

    class State(models.TextChoices):
        DRAFT = "draft"
        PROPOSED = "proposed"
        APPROVED = "approved"
        REJECTED = "rejected"
        SUPERSEDED = "superseded"

    task_name: ClassVar[str] = "campaigns.tasks.optimize"
    words: ClassVar[str] = "Allocate budget"

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    name = models.CharField(max_length=160)
    state = models.CharField(max_length=10, choices=State, default=State.DRAFT, db_index=True)
    total_budget = models.DecimalField(**MONEY)
    currency = models.CharField(max_length=3, default="USD")
    period_start = models.DateField(null=True, blank=True)
    period_end = models.DateField(null=True, blank=True)
    problem = models.JSONField(default=dict, blank=True)  # PROBLEM of CONTRACTS section 3
    plan = models.JSONField(default=dict, blank=True)  # PLAN of CONTRACTS section 3
    even_split = models.FloatField(null=True, blank=True)  # what the same money brings spread evenly
    spend_assumed = models.BooleanField(default=False)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_note = models.TextField(blank=True)

    objects = BudgetPlanQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "budget plan"

    def __str__(self) -> str:
        return self.name

    @property
    def allocations(self) -> list[dict[str, Any]]:
        return list(self.plan.get("allocations", []))


class ExperimentQuerySet(RunQuerySet):
    def analysed(self) -> ExperimentQuerySet:
        return self.filter(state=Experiment.State.ANALYSED)


class Experiment(Run):
    """A test of what an ad brings: designed, approved, running, analysed."""

    masked: ClassVar[tuple[str, ...]] = ("hypothesis",)
    masked_names: ClassVar[tuple[str, ...]] = ("name",)

    class State(models.TextChoices):
        DRAFT = "draft"
        DESIGNED = "designed"
        APPROVED = "approved"
        RUNNING = "running"
        ANALYSED = "analysed"
        STOPPED = "stopped"

    task_name: ClassVar[str] = "campaigns.tasks.work_on_experiment"
    words: ClassVar[str] = "Work on experiment"

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    campaign = models.ForeignKey(Campaign, models.PROTECT, null=True, blank=True, related_name="experiments")
    name = models.CharField(max_length=160)
    kind = models.CharField(max_length=16)  # ab, audience, geo, switchback, did, time_series, observational
    state = models.CharField(max_length=10, choices=State, default=State.DRAFT, db_index=True)
    hypothesis = models.TextField(blank=True)
    spec = models.JSONField(default=dict, blank=True)  # SPEC design of CONTRACTS section 4
    design = models.JSONField(default=dict, blank=True)
    analysis_spec = models.JSONField(default=dict, blank=True)
    result = models.JSONField(default=dict, blank=True)
    panel = models.JSONField(default=dict, blank=True)  # where the data come from: stores, or a file with its digest
    registered_hash = models.CharField(max_length=64, blank=True)  # of spec and analysis plan; then they stand
    registered_at = models.DateTimeField(null=True, blank=True)
    start_date = models.DateField(null=True, blank=True)
    end_date = models.DateField(null=True, blank=True)

    objects = ExperimentQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "experiment"

    def __str__(self) -> str:
        return self.name

    def registration(self) -> dict[str, Any]:
        """What a pre-registration holds fast: the question, the design and how the data will be read."""
        best = self.design.get("best") or self.design
        return {
            "experiment": str(self.pk),
            "kind": self.kind,
            "hypothesis": self.hypothesis,
            "spec": self.spec,
            "mde": best.get("mde"),
            "analysis": self.analysis_spec,
        }

    def registration_hash(self) -> str:
        text = json.dumps(self.registration(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Once registered, the plan stands.

        Raises:
            BadInput: something of the registration was changed.
        """
        if self.registered_hash and self.registration_hash() != self.registered_hash:
            raise BadInput(
                f"{self}: it was registered {self.registered_at:%Y-%m-%d}; its plan cannot be changed, only stopped"
            )
        super().save(*args, **kwargs)


class RecommendationQuerySet(TenantQuerySet):
    def for_task(self, task: str) -> RecommendationQuerySet:
        return self.filter(task=task)

    def open(self) -> RecommendationQuerySet:
        return self.exclude(status__in=(Recommendation.Status.PUBLISHED, Recommendation.Status.WITHDRAWN))

    def needing_proof(self) -> RecommendationQuerySet:
        """Texts that only missing evidence keeps back, and that nobody has decided on yet."""
        return self.open().filter(verdict__verdict="needs_proof", verdict__override__isnull=True)

    def barred(self) -> RecommendationQuerySet:
        return self.open().filter(verdict__verdict="block", verdict__override__isnull=True)

    def decided(self) -> RecommendationQuerySet:
        """Texts on which a person's word stands against the policy's, or against the text."""
        return self.filter(Q(verdict__override__isnull=False) | Q(verdict__rejected__isnull=False))


class Task(models.TextChoices):
    """What is judged and learnt: the four tasks of the feedback workflow."""

    BUDGETING = "budgeting"
    CREATIVE = "creative"
    MEASUREMENT = "measurement"
    PLANNING = "planning"


class Recommendation(Owned):
    """The thing judged, whoever drafted it: a plan, a text, a test, a next step."""

    masked: ClassVar[tuple[str, ...]] = ("text", "prompt")
    masked_names: ClassVar[tuple[str, ...]] = ("title", "content")

    class Source(models.TextChoices):
        OPTIMIZER = "optimizer"
        AGENT = "agent"
        PERSON = "person"

    class Status(models.TextChoices):
        OFFERED = "offered"
        APPROVED = "approved"
        PUBLISHED = "published"
        WITHDRAWN = "withdrawn"
        BLOCKED = "blocked"

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task, db_index=True)
    title = models.CharField(max_length=240)
    text = models.TextField(blank=True)  # what people read
    prompt = models.TextField(blank=True)  # what it answers, as the model was asked
    content = models.JSONField(default=dict, blank=True)  # the same for machines: allocations, spec, messages ...
    source = models.CharField(max_length=10, choices=Source)
    status = models.CharField(max_length=10, choices=Status, default=Status.OFFERED, db_index=True)
    campaign = models.ForeignKey(Campaign, models.PROTECT, null=True, blank=True, related_name="recommendations")
    sku = models.ForeignKey(SKUCatalog, models.PROTECT, null=True, blank=True, related_name="recommendations")
    plan = models.ForeignKey(BudgetPlan, models.PROTECT, null=True, blank=True, related_name="recommendations")
    experiment = models.ForeignKey(Experiment, models.PROTECT, null=True, blank=True, related_name="recommendations")
    verdict = models.JSONField(
        default=dict, blank=True
    )  # of the policy check: verdict, findings, rule set, text digest
    model = models.CharField(max_length=120, blank=True)
    adapter_digest = models.CharField(max_length=64, blank=True, db_index=True)
    prompt_version = models.CharField(max_length=80, blank=True)
    prompt_cluster = models.CharField(max_length=64, blank=True)  # texts that answer the same brief
    sampling = models.JSONField(default=dict, blank=True)
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")

    objects = RecommendationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["brand", "task", "-created_at"], name="recommendation_by_task")]

    def __str__(self) -> str:
        return self.title


class CopyEvidence(Owned):
    """What proves a claim of a text: a file or a link, and what it shows in the claim's own words."""

    masked: ClassVar[tuple[str, ...]] = ("note", "file_name")

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    recommendation = models.ForeignKey(Recommendation, models.PROTECT, related_name="evidence")
    note = models.TextField()  # what the policy reads
    link = models.URLField(max_length=400, blank=True)
    file_name = models.CharField(max_length=240, blank=True)
    file_path = models.CharField(max_length=240, blank=True)
    file_sha256 = models.CharField(max_length=64, blank=True)
    media_type = models.CharField(max_length=40, blank=True)
    size = models.PositiveIntegerField(default=0)  # bytes
    added_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["created_at"]
        verbose_name_plural = "copy evidence"
        constraints = [models.CheckConstraint(condition=~Q(link="", file_path=""), name="evidence_is_a_file_or_a_link")]

    def __str__(self) -> str:
        return self.file_name or self.link

    @property
    def href(self) -> str:
        """Where its link leads, if that is an address of the web: anything else is shown as text."""
        return self.link if self.link.startswith(("https://", "http://")) else ""

"""Who drafts and decides: runs of agents, why they decided, with which model, and what came true."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator
from django.db import models
from django.db.models import F, Func, Q, Value
from django.urls import reverse
from simple_history.models import HistoricalRecords

from campaigns.models import Recommendation, Task
from retailers.models import MONEY, Brand, Retailer
from rmn.lib.errors import RmnError
from rmn.lib.rows import Addressed, Owned, TenantQuerySet, scope_text
from rmn.lib.runs import Run, RunQuerySet


class AgentRunQuerySet(RunQuerySet):
    def awaiting_approval(self) -> AgentRunQuerySet:
        return self.filter(stop="needs_input").exclude(pending=None)

    def asking(self) -> AgentRunQuerySet:
        """Runs that wait for an answer, not for an approval."""
        return self.filter(stop="needs_input", pending__has_key="question")


class AgentRun(Run):
    """A goal on its way through the agents, step by step."""

    masked: ClassVar[tuple[str, ...]] = ("goal", "pending")

    task_name: ClassVar[str] = "agents.tasks.plan"
    words: ClassVar[str] = "Plan"

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    goal = models.TextField()
    source = models.CharField(max_length=10, blank=True)  # model or playbook
    playbook = models.CharField(max_length=60, blank=True)
    stop = models.CharField(max_length=16, blank=True)  # done, needs_input, rejected, step_limit, budget, error
    pending = models.JSONField(null=True, blank=True)  # what waits for a person
    limits = models.JSONField(default=dict, blank=True)  # steps, seconds, tokens, cost
    trace = models.JSONField(default=dict, blank=True)  # raw texts, parses, versions

    objects = AgentRunQuerySet.as_manager()
    result_words: ClassVar[str] = "Look at the steps"

    class Meta(Run.Meta):
        verbose_name = "agent run"

    def __str__(self) -> str:
        return self.goal[:80]

    @property
    def result_url(self) -> str:
        return reverse("plan", args=[self.pk])


class AgentStep(models.Model):
    """One tool call of a run: what was asked, whether it was valid, what came back, who allowed it."""

    masked: ClassVar[tuple[str, ...]] = ("raw",)

    class Approval(models.TextChoices):
        NOT_NEEDED = "not_needed"
        WAITING = "waiting"
        APPROVED = "approved"
        MODIFIED = "modified"
        REJECTED = "rejected"

    brand = models.ForeignKey(Brand, models.PROTECT, related_name="+")
    run = models.ForeignKey(AgentRun, models.CASCADE, related_name="steps")
    number = models.PositiveSmallIntegerField()
    tool = models.CharField(max_length=60)
    arguments = models.JSONField(default=dict)
    valid = models.BooleanField(default=True)
    errors = models.JSONField(default=list, blank=True)
    repaired = models.PositiveSmallIntegerField(default=0)  # repair rounds taken
    raw = models.TextField(blank=True)  # the model's own words
    result = models.JSONField(null=True, blank=True)
    result_digest = models.CharField(max_length=64, blank=True)
    seconds = models.FloatField(default=0.0)
    approval = models.CharField(max_length=12, choices=Approval, default=Approval.NOT_NEEDED)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")
    decided_at = models.DateTimeField(null=True, blank=True)
    changes = models.JSONField(default=list, blank=True)  # of people before they approved: [{path, old, new}]
    finished_at = models.DateTimeField(null=True, blank=True)  # null: begun, and cut off or still at work
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="step_once_per_run")]

    def __str__(self) -> str:
        return f"{self.number}. {self.tool}"


class ApprovalRule(Owned):
    """How many people must approve what a tool proposes, by the tool's name and the amount."""

    pattern = models.CharField(max_length=60, default="*", help_text="A tool's name, * for any: allocate_budget")
    above = models.DecimalField(**MONEY, default=0, help_text="From this amount on, in the proposal's currency")
    people = models.PositiveSmallIntegerField(
        default=1,
        validators=[MaxValueValidator(5)],
        help_text="2: four eyes. 0: none, where the reflection says go on and its confidence has been scored often enough",
    )
    note = models.CharField(max_length=200, blank=True)

    history = HistoricalRecords()

    class Meta:
        ordering = ["brand", "pattern", "above"]
        constraints = [
            models.UniqueConstraint(fields=["brand", "pattern", "above"], name="approval_rule_once_per_amount")
        ]

    def __str__(self) -> str:
        return f"{self.pattern} above {self.above:,.0f}: {self.people}"


class ApprovalQuerySet(TenantQuerySet):
    def standing(self) -> ApprovalQuerySet:
        return self.filter(undone_at=None)


class Approval(Owned):
    """One person's word on what waited: a plan, a tool's proposal, an adapter; words are added, or taken back and kept."""

    masked: ClassVar[tuple[str, ...]] = ("note", "title")

    class Outcome(models.TextChoices):
        APPROVE = "approve"
        MODIFY = "modify"
        REJECT = "reject"

    tool = models.CharField(max_length=60)
    subject = models.UUIDField(db_index=True)  # the plan, test or adapter
    title = models.CharField(max_length=240)
    amount = models.DecimalField(**MONEY, null=True, blank=True)
    currency = models.CharField(max_length=3, blank=True)
    outcome = models.CharField(max_length=8, choices=Outcome)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")
    note = models.TextField(blank=True)
    changes = models.JSONField(default=list, blank=True)  # of a modification: [{path, old, new}]
    needed = models.PositiveSmallIntegerField(default=1)  # people that the rules asked for
    before = models.JSONField(default=dict, blank=True)  # what stood before it took effect: the way back
    undone_at = models.DateTimeField(null=True, blank=True)

    objects = ApprovalQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.outcome} {self.title}"


class ReflectionLogQuerySet(TenantQuerySet):
    def reopened(self) -> ReflectionLogQuerySet:
        """Decisions whose early signs came up, and that nobody has looked at since."""
        return self.exclude(reopened_at=None)

    def most_like(self, embedding: Sequence[float]) -> ReflectionLogQuerySet:
        """The nearest by cosine first, ranked by the database: PostgreSQL with the extension ``vector`` alone."""
        distance = Func(
            F("embedding"),
            Value(json.dumps(list(embedding))),
            template="(%(expressions)s::vector)",
            arg_joiner="::text::vector <=> ",
            output_field=models.FloatField(),
        )
        return self.exclude(embedding=[]).annotate(distance=distance).order_by("distance", "-created_at")


class ReflectionLog(Owned):
    """Why a decision was taken: frames, risks, biases, confidence, threshold, and what was decided."""

    masked: ClassVar[tuple[str, ...]] = (
        "context",
        "alternate_frames",
        "risk_assessment",
        "confidence",
        "bias_checkpoint",
        "decision",
        "outcome",
    )

    class Phase(models.TextChoices):
        REFLECTION = "reflection"
        ANALYSIS = "analysis"
        DECISION = "decision"
        EXECUTION = "execution"
        REVIEW = "review"

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    run = models.ForeignKey(AgentRun, models.PROTECT, null=True, blank=True, related_name="reflections")
    recommendation = models.ForeignKey(
        Recommendation, models.PROTECT, null=True, blank=True, related_name="reflections"
    )
    task = models.CharField(max_length=12, choices=Task, blank=True)
    agent = models.CharField(max_length=60, blank=True)  # who reflects: budget optimizer, planner, a person's name
    context = models.CharField(max_length=240)
    subject = models.UUIDField(null=True, blank=True, db_index=True)  # the plan, test or adapter it is about
    phase = models.CharField(max_length=10, choices=Phase, default=Phase.REFLECTION, db_index=True)
    memory_reference = models.JSONField(default=list, blank=True)
    alternate_frames = models.JSONField(default=list, blank=True)
    risk_assessment = models.JSONField(default=dict, blank=True)  # {high_risk_factors: [...], mitigation: [...]}
    confidence = models.JSONField(default=dict, blank=True)  # {value, rationale, supporting, contradicting}
    decision_threshold = models.CharField(max_length=240, default="confidence >= 0.8")
    bias_checkpoint = models.TextField(blank=True)
    biases = models.JSONField(default=list, blank=True)
    validations = models.JSONField(default=list, blank=True)
    verdict = models.JSONField(default=dict, blank=True)  # should_proceed and how it was reached (CONTRACTS section 6)
    should_proceed = models.BooleanField(null=True, blank=True)
    decision = models.TextField(blank=True)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")
    decided_at = models.DateTimeField(null=True, blank=True)
    outcome = models.TextField(blank=True)  # of the review: what came of it
    monitors = models.JSONField(default=list, blank=True)  # early signs of the pre-mortem, and what was seen of them
    reopened_at = models.DateTimeField(null=True, blank=True)
    embedding = models.JSONField(
        default=list, editable=False
    )  # of what is told, where the database compares them; empty: not made yet

    TOLD: ClassVar[set[str]] = {"context", "decision", "outcome"}

    objects = ReflectionLogQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.context

    def save(self, *args: Any, **kwargs: Any) -> None:
        """An embedding is of the words as they stand: other words, none yet."""
        wanted = kwargs.get("update_fields")
        if wanted is None or self.TOLD & set(wanted):
            self.embedding = []
            kwargs["update_fields"] = wanted if wanted is None else {*wanted, "embedding"}
        super().save(*args, **kwargs)

    @property
    def told(self) -> str:
        """What is remembered of it: what was to be decided, what was, what came of it."""
        return " ".join(getattr(self, name) for name in ("context", "decision", "outcome"))

    @property
    def record(self) -> dict[str, Any]:
        """The reflection in the shape of CONTRACTS section 8."""
        names = "phase memory_reference alternate_frames risk_assessment confidence decision_threshold bias_checkpoint biases validations"
        return {name: getattr(self, name) for name in names.split()}


class ForecastQuerySet(TenantQuerySet):
    def open(self) -> ForecastQuerySet:
        return self.filter(status=Forecast.Status.OPEN)

    def due(self, today: date) -> ForecastQuerySet:
        return self.open().filter(due__lte=today)

    def resolved(self) -> ForecastQuerySet:
        return self.filter(status=Forecast.Status.RESOLVED)


class Edited(RmnError):
    """A forecast's claim was to be changed after it was made."""


class Forecast(Owned):
    """What a decision expects: a claim that will turn out true or false, never edited afterwards."""

    masked: ClassVar[tuple[str, ...]] = ("statement",)

    CLAIM: ClassVar[list[str]] = [
        "brand_id",
        "agent",
        "made_by_id",
        "statement",
        "metric",
        "comparison",
        "value",
        "low",
        "high",
        "level",
        "probability",
        "subject",
        "due",
    ]

    class Status(models.TextChoices):
        OPEN = "open"
        RESOLVED = "resolved"
        UNRESOLVABLE = "unresolvable"

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    reflection = models.ForeignKey(ReflectionLog, models.PROTECT, null=True, blank=True, related_name="forecasts")
    recommendation = models.ForeignKey(Recommendation, models.PROTECT, null=True, blank=True, related_name="forecasts")
    task = models.CharField(max_length=12, choices=Task, blank=True)
    agent = models.CharField(max_length=60, blank=True)
    adapter_digest = models.CharField(max_length=64, blank=True)
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")
    statement = models.CharField(max_length=400)
    metric = models.CharField(max_length=80)
    comparison = models.CharField(max_length=8)  # >=, <=, between
    value = models.FloatField(null=True, blank=True)
    low = models.FloatField(null=True, blank=True)
    high = models.FloatField(null=True, blank=True)
    level = models.FloatField(null=True, blank=True)  # of the interval: 0.9
    probability = models.FloatField(null=True, blank=True)  # that the statement holds
    subject = models.JSONField(default=dict, blank=True)  # where the answer is read: experiment, metric query ...
    due = models.DateField(db_index=True)
    status = models.CharField(max_length=12, choices=Status, default=Status.OPEN, db_index=True)
    happened = models.BooleanField(null=True, blank=True)
    observed = models.FloatField(null=True, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolution = models.JSONField(default=dict, blank=True)  # from what, by whom

    objects = ForecastQuerySet.as_manager()

    class Meta:
        ordering = ["due"]
        constraints = [
            models.CheckConstraint(
                condition=Q(probability__isnull=True) | Q(probability__range=(0, 1)),
                name="forecast_probability_is_a_share",
            )
        ]

    def __str__(self) -> str:
        return self.statement

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk and not self._state.adding:
            made = type(self).objects.filter(pk=self.pk).values(*self.CLAIM).first() or {}
            changed = [name for name, value in made.items() if getattr(self, name) != value]
            if changed:
                raise Edited(f"a forecast is never edited ({', '.join(changed)}); make a new one")
        super().save(*args, **kwargs)


class Prompt(Addressed):
    """A prompt's text under a name and a version; a text once used never changes."""

    name = models.CharField(max_length=80)
    version = models.PositiveIntegerField(default=1)
    text = models.TextField()
    sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "-version"]
        constraints = [models.UniqueConstraint(fields=["name", "version"], name="prompt_version_once")]

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class AdapterQuerySet(TenantQuerySet):
    def at_the_gate(self) -> AdapterQuerySet:
        """Versions that serve nowhere yet and wait for somebody to say so."""
        return self.filter(state=Adapter.State.CANDIDATE, aliases=None)


class Adapter(Addressed):
    """One immutable version of a LoRA adapter, named by the digest of its weights and config."""

    class Kind(models.TextChoices):
        RETAILER = "retailer"  # how a retailer's reports and rules read
        BRAND = "brand"  # tone and compliance
        TASK = "task"  # budgeting, creative ...
        COMPOSED = "composed"  # the three together: what serves a brand

    class State(models.TextChoices):
        CANDIDATE = "candidate"
        STAGED = "staged"
        PUBLISHED = "published"
        REVOKED = "revoked"

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")  # null: shared knowledge
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task, blank=True)
    scope = models.CharField(max_length=150, editable=False)  # brand/retailer/task
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.BRAND)
    digest = models.CharField(max_length=64, db_index=True)
    state = models.CharField(max_length=10, choices=State, default=State.CANDIDATE, db_index=True)
    base_model = models.CharField(max_length=160)
    rank = models.PositiveSmallIntegerField(default=0)
    parents = models.JSONField(default=list, blank=True)  # digests
    manifest = models.JSONField(default=dict, blank=True)
    gate = models.JSONField(default=dict, blank=True)  # the evaluation that let it through, or did not
    proof = models.JSONField(default=dict, blank=True)  # that it acts: probe distances
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AdapterQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.UniqueConstraint(fields=["scope", "digest"], name="adapter_version_once_per_scope")]

    def __str__(self) -> str:
        return f"{self.scope} {self.digest[:12]}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.scope = scope_text(self.brand, self.retailer, self.task)
        super().save(*args, **kwargs)


class AdapterAlias(Addressed):
    """Which version a scope serves under a name: champion, challenger, previous, shadow."""

    class Name(models.TextChoices):
        CHAMPION = "champion"
        CHALLENGER = "challenger"
        PREVIOUS = "previous"
        SHADOW = "shadow"

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")
    scope = models.CharField(max_length=150)
    name = models.CharField(max_length=12, choices=Name)
    adapter = models.ForeignKey(
        Adapter, models.PROTECT, null=True, blank=True, related_name="aliases"
    )  # null: the base
    share = models.FloatField(default=1.0)  # of traffic, for a challenger
    moved_at = models.DateTimeField(auto_now=True)
    reason = models.TextField(blank=True)

    objects = TenantQuerySet.as_manager()
    history = HistoricalRecords()

    class Meta:
        verbose_name_plural = "adapter aliases"
        constraints = [models.UniqueConstraint(fields=["scope", "name"], name="alias_once_per_scope")]

    def __str__(self) -> str:
        return f"{self.scope} {self.name}"


class Deployment(Run):
    """A version on its way to an alias: copied, loaded, proved, moved."""

    task_name: ClassVar[str] = "agents.tasks.deploy"
    words: ClassVar[str] = "Deploy adapter"

    adapter = models.ForeignKey(Adapter, models.PROTECT, related_name="deployments")
    alias = models.CharField(max_length=12, choices=AdapterAlias.Name, default=AdapterAlias.Name.CHAMPION)
    share = models.FloatField(default=1.0)
    proof = models.JSONField(default=dict, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "deployment"


class Generation(Owned):
    """One text a model wrote: by which adapter and prompt, how sampled, how long it took."""

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    recommendation = models.ForeignKey(
        Recommendation, models.PROTECT, null=True, blank=True, related_name="generations"
    )
    task = models.CharField(max_length=12, choices=Task)
    alias = models.CharField(max_length=12, blank=True)
    model = models.CharField(max_length=160)
    adapter_digest = models.CharField(max_length=64, blank=True, db_index=True)
    prompt_version = models.CharField(max_length=80, blank=True)
    prompt_digest = models.CharField(max_length=64)
    text = models.TextField()  # masked
    verdict = models.CharField(max_length=12, blank=True)  # of the policy: pass, block, needs_proof
    sampling = models.JSONField(default=dict)
    tokens_in = models.PositiveIntegerField(default=0)
    tokens_out = models.PositiveIntegerField(default=0)
    latency_s = models.FloatField(default=0.0)
    finish_reason = models.CharField(max_length=20, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.text[:60]


class CleanRoomConnection(Owned):
    """A clean room a brand may ask: set by ops; the tool names a connection, never an address."""

    retailer = models.ForeignKey(Retailer, models.PROTECT, related_name="+")
    name = models.CharField(max_length=80)
    kind = models.CharField(max_length=20, default="generic")  # generic, aws
    endpoint = models.URLField(max_length=400)
    sealed_key = models.TextField(blank=True)  # write-only
    budget_units = models.FloatField(default=0.0)  # privacy budget of the period
    k_threshold = models.PositiveIntegerField(default=50)
    templates = models.JSONField(default=list, blank=True)  # reviewed queries with typed parameters
    is_active = models.BooleanField(default=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["brand", "name"], name="clean_room_name_once_per_brand")]

    def __str__(self) -> str:
        return self.name


class CleanRoomQuery(Run):
    """One question to a clean room, from intent to release."""

    masked_names: ClassVar[tuple[str, ...]] = ("parameters",)

    class State(models.TextChoices):
        PROPOSED = "proposed"  # by a planner's run; nothing is sent before people approve
        REJECTED = "rejected"
        INTENT = "intent"
        RESERVED = "reserved"
        SUBMITTED = "submitted"
        RUNNING = "running"
        FETCHED = "fetched"
        CHECKED = "checked"
        RELEASED = "released"
        REFUSED = "refused"

    task_name: ClassVar[str] = "agents.tasks.ask_clean_room"
    words: ClassVar[str] = "Ask clean room"

    connection = models.ForeignKey(CleanRoomConnection, models.PROTECT, related_name="queries")
    template = models.CharField(max_length=80)
    parameters = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=10, choices=State, default=State.INTENT, db_index=True)
    cost = models.FloatField(default=1.0)
    peer_id = models.CharField(max_length=160, blank=True)  # what the room calls it
    result = models.JSONField(null=True, blank=True)  # after the checks
    suppressed = models.PositiveIntegerField(default=0)

    objects = RunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "clean room query"
        verbose_name_plural = "clean room queries"

    def __str__(self) -> str:
        return f"Ask {self.connection} for {self.template}"

    @property
    def retailer(self) -> Retailer:
        return self.connection.retailer


class CleanRoomLedger(models.Model):
    """What a query did to the privacy budget; lines are added, never changed."""

    append_only: ClassVar[bool] = True

    brand = models.ForeignKey(Brand, models.PROTECT, related_name="+")
    connection = models.ForeignKey(CleanRoomConnection, models.PROTECT, related_name="ledger")
    query = models.ForeignKey(CleanRoomQuery, models.PROTECT, related_name="ledger")
    entry = models.CharField(max_length=10)  # reserve, spend, release
    units = models.FloatField()
    at = models.DateTimeField(auto_now_add=True)

    objects = TenantQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["query", "entry"], name="ledger_line_once_per_query")]

    def __str__(self) -> str:
        return f"{self.entry} {self.units}"

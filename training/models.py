"""How adapters are made: data sets, training runs, evaluations."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from agents import forecasts
from agents.models import Adapter, Deployment, Forecast
from campaigns.models import Task
from feedback.models import Feedback
from retailers.models import Brand, Retailer
from rmn.lib.runs import Run, RunQuerySet
from training.domain import estimates
from training.lora.memory import Shape


class LessonQuerySet(RunQuerySet):
    def of_scope(self, brand: Brand | None, retailer: Retailer | None, task: str) -> LessonQuerySet:
        return self.filter(brand=brand, retailer=retailer, task=task)

    def wish(self, *, brand: Brand | None, retailer: Retailer | None, task: str, reason: str, **more: Any) -> Lesson:
        """A lesson on record, not queued; one that is under way in the scope is that one."""
        found = self.of_scope(brand, retailer, task).unfinished().first()
        if found is not None:
            return found
        return self.create(
            brand=brand, retailer=retailer, task=task, reason=reason[:240], max_attempts=Lesson.TRIES, **more
        )


class Lesson(Run):
    """From the answers given to a version on trial: two data sets, two trainings, the gate, the stage."""

    masked: ClassVar[tuple[str, ...]] = ("reason",)

    TRIES: ClassVar[int] = 10  # of the chain; each step has its own
    task_name: ClassVar[str] = "training.tasks.teach"
    words: ClassVar[str] = "Train, gate, stage"

    class Outcome(models.TextChoices):
        STAGED = "staged"
        PROMOTED = "promoted"  # reads a retailer's reports: suggestions that a person takes or leaves
        NOT_PROMOTED = "not_promoted"
        TRAINED = "trained"  # shared knowledge: serves no brand by itself, so nothing is gated

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task, blank=True)  # none: how a retailer's reports read
    reason = models.CharField(max_length=240, blank=True)  # why now: who asked, or what the night found
    outcome = models.CharField(max_length=12, choices=Outcome, blank=True)
    found = models.JSONField(default=list, blank=True)  # sentences: what each step said
    adapter = models.ForeignKey(Adapter, models.PROTECT, null=True, blank=True, related_name="+")
    deployment = models.ForeignKey(Deployment, models.PROTECT, null=True, blank=True, related_name="+")

    objects = LessonQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "lesson"

    def request_cancel(self) -> None:
        """Stop the chain and the step that it is at."""
        super().request_cancel()
        for kind in (self.datasets, self.training_runs, self.evaluations):
            for step in kind.unfinished():
                step.request_cancel()

    @property
    def result_url(self) -> str:
        return reverse("lesson", args=[self.pk])


class Withdrawal(Run):
    """A person or a brand takes its answers out of all training: what rested on them is withdrawn and made anew."""

    masked: ClassVar[tuple[str, ...]] = ("reason",)

    task_name: ClassVar[str] = "training.tasks.unlearn"
    words: ClassVar[str] = "Unlearn"

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")  # null: of all brands
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+"
    )  # null: the brand's answers, whoever gave them
    reason = models.CharField(max_length=400)
    result = models.JSONField(default=dict, blank=True)  # answers, data sets, versions, lessons

    objects = RunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "withdrawal"
        constraints = [
            *Run.Meta.constraints,
            models.CheckConstraint(
                condition=Q(brand__isnull=False) | Q(person__isnull=False), name="withdrawal_names_somebody"
            ),
        ]

    @property
    def answers(self) -> Any:
        """All answers it takes out, those taken back by their authors too."""
        rows = Feedback.objects.all() if self.brand is None else Feedback.objects.filter(brand=self.brand)
        return rows if self.person is None else rows.filter(by=self.person)

    @property
    def result_url(self) -> str:
        return reverse("withdrawal", args=[self.pk])


def allowed(rows: Any) -> Any:
    """Answers without those of people and brands that withdrew theirs, given before or since."""
    for brand, person in Withdrawal.objects.exclude(status="cancelled").values_list("brand", "person").distinct():
        gone = Q() if brand is None else Q(brand=brand)
        rows = rows.exclude(gone if person is None else gone & Q(by=person))
    return rows


class Dataset(Run):
    """Rows that may train an adapter, content-addressed, with a manifest of whose and how many."""

    task_name: ClassVar[str] = "training.tasks.build_dataset"
    words: ClassVar[str] = "Build data set"

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")  # null: shared knowledge
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task, blank=True)  # none: how a retailer's reports read
    lesson = models.ForeignKey(Lesson, models.PROTECT, null=True, blank=True, related_name="datasets")
    kind = models.CharField(max_length=4)  # sft, dpo, kto
    digest = models.CharField(max_length=64, blank=True, db_index=True)
    path = models.CharField(max_length=400, blank=True)  # below the files folder
    rows_train = models.PositiveIntegerField(default=0)
    rows_eval = models.PositiveIntegerField(default=0)
    manifest = models.JSONField(default=dict, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)  # a person or brand withdrew rows

    objects = RunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "data set"

    @property
    def result_url(self) -> str:
        return reverse("dataset", args=[self.pk])


class TrainingRunQuerySet(RunQuerySet):
    def wish(self, *, dataset: Dataset, config: dict[str, Any], **more: Any) -> TrainingRun:
        """A training on record, not queued, with its estimate and the forecast that its end will score."""
        run = self.model(
            brand=dataset.brand,
            retailer=dataset.retailer,
            task=dataset.task,
            dataset=dataset,
            config=config,
            estimate=self.estimate(dataset, config),
            **{"method": dataset.kind, **more},
        )
        run.forecast = run.promised()
        run.save()
        return run

    def estimate(self, dataset: Dataset, config: dict[str, Any]) -> dict[str, Any]:
        """Tokens, minutes and cost before the start, by the speed that earlier runs had here."""
        done = self.filter(status=Run.Status.SUCCEEDED, attempts=1).order_by("-created_at")[:20]
        return estimates.estimate(
            method=dataset.kind,
            rows=dataset.rows_train,
            length=dataset.manifest.get("length") or {},
            parameters=Shape.of(Path(settings.RMN_BASE_MODEL)).parameters,
            config=config,
            device=settings.RMN_TRAIN_DEVICE,
            earlier=[(float(run.estimate.get("flops") or 0), run.seconds or 0.0) for run in done],
            price_per_hour=settings.RMN_TRAIN_PRICE_PER_HOUR,
        ).row()


class TrainingRun(Run):
    """One training: configuration, curve, cost, and the adapter that came out. A composition is one without steps."""

    COMPOSED: ClassVar[str] = "mix"
    task_name: ClassVar[str] = "training.tasks.train"
    words: ClassVar[str] = "Train adapter"

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task, blank=True)  # none: how a retailer's reports read
    lesson = models.ForeignKey(Lesson, models.PROTECT, null=True, blank=True, related_name="training_runs")
    method = models.CharField(max_length=4)  # sft, dpo, kto; mix: composed of others
    dataset = models.ForeignKey(Dataset, models.PROTECT, null=True, blank=True, related_name="training_runs")
    parent = models.ForeignKey(Adapter, models.PROTECT, null=True, blank=True, related_name="+")
    adapter = models.ForeignKey(Adapter, models.PROTECT, null=True, blank=True, related_name="training_runs")
    estimate = models.JSONField(default=dict, blank=True)  # tokens, minutes, cost before the start
    metrics = models.JSONField(default=list, blank=True)  # [{step, loss, ...}]
    stopped_by = models.CharField(max_length=60, blank=True)  # the lamp that stopped it
    forecast = models.ForeignKey(Forecast, models.SET_NULL, null=True, blank=True, related_name="+")  # of its time

    objects = TrainingRunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "training run"

    def promised(self) -> Forecast | None:
        """The estimate as a forecast that the run's end resolves; shared knowledge is nobody's to score."""
        if self.brand is None:
            return None
        at_most = self.estimate["at_most"]
        return forecasts.make(
            brand=self.brand,
            retailer=self.retailer,
            task=self.task,
            agent="training",
            statement=f"Training {str(self.pk)[:8]} ends within {at_most:g} minutes of its start",
            metric="training_minutes",
            comparison="<=",
            value=at_most,
            probability=0.8,
            due=timezone.now().date() + timedelta(days=7),
            by=self.requested_by,
        )

    @property
    def result_url(self) -> str:
        return reverse("training-run", args=[self.pk])


class Evaluation(Run):
    """A candidate against the champion and the best prompt alone, on a suite of guards."""

    task_name: ClassVar[str] = "training.tasks.evaluate"
    words: ClassVar[str] = "Evaluate adapter"

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task, blank=True)  # none: how a retailer's reports read
    lesson = models.ForeignKey(Lesson, models.PROTECT, null=True, blank=True, related_name="evaluations")
    candidate = models.ForeignKey(Adapter, models.PROTECT, null=True, blank=True, related_name="evaluations")
    champion = models.ForeignKey(Adapter, models.PROTECT, null=True, blank=True, related_name="+")  # null: the base
    suite = models.CharField(max_length=120)
    verdict = models.CharField(max_length=20, blank=True)  # better, not_worse, worse, not_enough_evidence
    result = models.JSONField(default=dict, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "evaluation"

    @property
    def result_url(self) -> str:
        return reverse("evaluation", args=[self.pk])

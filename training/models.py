"""How adapters are made: data sets, training runs, evaluations."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from agents.models import Adapter
from campaigns.models import Task
from retailers.models import Brand, Retailer
from rmn.lib.runs import Run, RunQuerySet


class Dataset(Run):
    """Rows that may train an adapter, content-addressed, with a manifest of whose and how many."""

    task_name: ClassVar[str] = "training.tasks.build_dataset"
    words: ClassVar[str] = "Build data set"

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")  # null: shared knowledge
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task)
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


class TrainingRun(Run):
    """One training: configuration, curve, cost, and the adapter that came out."""

    task_name: ClassVar[str] = "training.tasks.train"
    words: ClassVar[str] = "Train adapter"

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task)
    method = models.CharField(max_length=4)  # sft, dpo, kto
    dataset = models.ForeignKey(Dataset, models.PROTECT, null=True, blank=True, related_name="training_runs")
    parent = models.ForeignKey(Adapter, models.PROTECT, null=True, blank=True, related_name="+")
    adapter = models.ForeignKey(Adapter, models.PROTECT, null=True, blank=True, related_name="training_runs")
    estimate = models.JSONField(default=dict, blank=True)  # tokens, minutes, cost before the start
    metrics = models.JSONField(default=list, blank=True)  # [{step, loss, ...}]
    stopped_by = models.CharField(max_length=60, blank=True)  # the lamp that stopped it

    objects = RunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "training run"


class Evaluation(Run):
    """A candidate against the champion and the best prompt alone, on a suite of guards."""

    task_name: ClassVar[str] = "training.tasks.evaluate"
    words: ClassVar[str] = "Evaluate adapter"

    brand = models.ForeignKey(Brand, models.PROTECT, null=True, blank=True, related_name="+")
    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task)
    candidate = models.ForeignKey(Adapter, models.PROTECT, null=True, blank=True, related_name="evaluations")
    champion = models.ForeignKey(Adapter, models.PROTECT, null=True, blank=True, related_name="+")  # null: the base
    suite = models.CharField(max_length=120)
    verdict = models.CharField(max_length=20, blank=True)  # better, not_worse, worse, not_enough_evidence
    result = models.JSONField(default=dict, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "evaluation"

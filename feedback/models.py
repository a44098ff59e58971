"""What people say about recommendations."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse

from campaigns.models import Recommendation, Task
from retailers.models import Brand, Retailer
from rmn.lib.rows import Owned, TenantQuerySet
from rmn.lib.runs import Run, RunQuerySet

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


class FeedbackQuerySet(TenantQuerySet):
    def standing(self) -> FeedbackQuerySet:
        """Answers that were not taken back, on drafts that were not withdrawn."""
        return self.on_offer().filter(undone_at=None)

    def on_offer(self) -> FeedbackQuerySet:
        """Answers on drafts that were not withdrawn."""
        withdrawn = Recommendation.Status.WITHDRAWN
        kept = Q(recommendation=None) | ~Q(recommendation__status=withdrawn)
        other_kept = Q(other=None) | ~Q(other__status=withdrawn)
        return self.filter(kept, other_kept)

    def human(self) -> FeedbackQuerySet:
        return self.filter(origin=Feedback.Origin.HUMAN)

    def pairs(self) -> FeedbackQuerySet:
        return self.filter(kind=Feedback.Kind.PAIR)

    def first_showings(self) -> FeedbackQuerySet:
        """Without swapped repeats and gold pairs, which measure the reader and not the draft."""
        return self.filter(is_gold=False).filter(Q(review_task=None) | Q(review_task__repeats=None))

    def blind_for(self, user: Any) -> FeedbackQuerySet:
        """Without others' answers to open questions that this person has not answered yet."""
        mine = Feedback.objects.filter(by=user, undone_at=None, review_task=models.OuterRef("review_task"))
        undecided = Q(review_task__status__in=ReviewTask.WAITING)
        return self.exclude(undecided & ~Q(by=user) & ~models.Exists(mine))


class Feedback(Owned):
    """One answer: a thumb, stars, the better of two, or how it should have read."""

    class Kind(models.TextChoices):
        THUMB = "thumb"
        RATING = "rating"
        PAIR = "pair"
        CORRECTION = "correction"

    class Outcome(models.TextChoices):
        A = "a"
        B = "b"
        TIE = "tie"
        BOTH_BAD = "both_bad"

    class Origin(models.TextChoices):
        HUMAN = "human"
        RULE = "rule"  # made by the policy's verdicts, never counted as a person
        NETWORK = "network"  # what a network accepted or refused

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task, db_index=True)
    kind = models.CharField(max_length=10, choices=Kind)
    origin = models.CharField(max_length=8, choices=Origin, default=Origin.HUMAN)
    recommendation = models.ForeignKey(
        Recommendation, models.PROTECT, null=True, blank=True, related_name="feedback"
    )  # the one judged; of a pair, A
    other = models.ForeignKey(Recommendation, models.PROTECT, null=True, blank=True, related_name="+")  # B
    value = models.SmallIntegerField(null=True, blank=True)  # thumb: 1 or -1; rating: 1 to 5
    outcome = models.CharField(max_length=8, choices=Outcome, blank=True)
    strength = models.PositiveSmallIntegerField(default=1)  # 1 better, 2 much better
    prompt = models.TextField(blank=True)
    chosen = models.TextField(blank=True)
    rejected = models.TextField(blank=True)
    text = models.TextField(blank=True)  # the correction
    reasons = models.JSONField(default=list, blank=True)
    note = models.TextField(blank=True)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")
    review_task = models.ForeignKey("ReviewTask", models.SET_NULL, null=True, blank=True, related_name="answers")
    shown_first = models.CharField(max_length=1, blank=True)  # which side stood left or on top: a or b
    is_gold = models.BooleanField(default=False)
    seconds = models.FloatField(null=True, blank=True)  # from shown to answered
    rewritten = models.FloatField(null=True, blank=True)  # of a correction: the share of the draft that it changed
    adapter_digest = models.CharField(max_length=64, blank=True, db_index=True)
    other_adapter_digest = models.CharField(max_length=64, blank=True, db_index=True)
    prompt_version = models.CharField(max_length=80, blank=True)
    prompt_cluster = models.CharField(max_length=64, blank=True)
    sampling = models.JSONField(default=dict, blank=True)
    undone_at = models.DateTimeField(null=True, blank=True)

    objects = FeedbackQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "feedback"
        constraints = [
            models.CheckConstraint(condition=~Q(kind="rating") | Q(value__range=(1, 5)), name="rating_is_one_to_five"),
            models.CheckConstraint(condition=~Q(kind="thumb") | Q(value__in=(-1, 1)), name="thumb_is_up_or_down"),
            models.CheckConstraint(condition=~Q(kind="pair") | ~Q(outcome=""), name="pair_has_an_outcome"),
        ]
        indexes = [
            models.Index(fields=["brand", "task", "kind", "-created_at"], name="feedback_by_task"),
            models.Index(fields=["brand", "-id"], name="feedback_newest_of_brand"),
            # partial: over all rows the planner would read every standing answer by it
            models.Index(fields=["brand", "undone_at"], condition=Q(undone_at__isnull=False), name="feedback_undone"),
            models.Index(fields=["by", "-created_at"], name="feedback_of_person"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.outcome or self.value or ''}".strip()


class AnswerCount(models.Model):
    """Answers of one sort on one day, counted in the background: a page over millions reads a few thousand rows.

    Rows are only added; answers that were taken back after they were counted come as a negative number, and
    those on withdrawn drafts once more, as a negative number that is counted anew each time.
    """

    brand = models.ForeignKey(Brand, models.CASCADE, related_name="+")
    retailer = models.ForeignKey(Retailer, models.CASCADE, null=True, related_name="+")
    day = models.DateField()
    task = models.CharField(max_length=12)
    kind = models.CharField(max_length=10)
    origin = models.CharField(max_length=8)
    value = models.SmallIntegerField(null=True)
    outcome = models.CharField(max_length=8, blank=True)
    adapter_digest = models.CharField(max_length=64, blank=True)
    other_adapter_digest = models.CharField(max_length=64, blank=True)
    on_withdrawn = models.BooleanField(default=False)
    n = models.IntegerField()

    objects = TenantQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["brand", "day"], name="answers_of_day")]

    def __str__(self) -> str:
        return f"{self.n} {self.kind} on {self.day}"


class CountedAnswers(models.Model):
    """How far the answers of a brand are counted."""

    brand = models.OneToOneField(Brand, models.CASCADE, related_name="+")
    up_to = models.BigIntegerField(default=0)  # key of the last answer that was counted
    at = models.DateTimeField(default=BEGINNING)  # what was taken back later is not yet taken off
    withdrawn = models.CharField(max_length=60, blank=True)  # which drafts were, as ``figures`` tells them

    objects = TenantQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "counted answers"

    def __str__(self) -> str:
        return f"{self.brand} up to {self.up_to}"


class ReviewTaskQuerySet(TenantQuerySet):
    def open(self) -> ReviewTaskQuerySet:
        """Waiting for an answer: the first, a second, or a third where two disagree."""
        return self.filter(status__in=ReviewTask.WAITING)

    def whole(self) -> ReviewTaskQuerySet:
        """With all that a screen shows of it."""
        return self.select_related("brand", "retailer", "recommendation__sku", "other")

    def disputed(self) -> ReviewTaskQuerySet:
        return self.filter(status=ReviewTask.Status.DISPUTED)

    def free(self, now: datetime, user: Any) -> ReviewTaskQuerySet:
        """Open, not reserved by somebody else, and not yet answered by this person."""
        mine_or_nobodys = Q(reserved_by=None) | Q(reserved_by=user) | Q(reserved_until__lt=now)
        answered = Feedback.objects.filter(by=user, undone_at=None, review_task=models.OuterRef("pk"))
        withdrawn = Recommendation.Status.WITHDRAWN
        shown = ~Q(recommendation__status=withdrawn) & (Q(other=None) | ~Q(other__status=withdrawn))
        return self.open().filter(mine_or_nobodys, shown).exclude(models.Exists(answered))


class ReviewTask(Owned):
    """One question put to people: which, to how many, how urgently, and who holds it now."""

    class Status(models.TextChoices):
        OPEN = "open"
        DISPUTED = "disputed"
        DONE = "done"
        WITHDRAWN = "withdrawn"

    WAITING: ClassVar[tuple[str, ...]] = ("open", "disputed")

    retailer = models.ForeignKey(Retailer, models.PROTECT, null=True, blank=True, related_name="+")
    task = models.CharField(max_length=12, choices=Task, db_index=True)
    kind = models.CharField(max_length=10, choices=Feedback.Kind)
    recommendation = models.ForeignKey(Recommendation, models.PROTECT, related_name="+")
    other = models.ForeignKey(Recommendation, models.PROTECT, null=True, blank=True, related_name="+")
    status = models.CharField(max_length=10, choices=Status, default=Status.OPEN, db_index=True)
    priority = models.FloatField(default=0.0)  # higher first; written by training: what the gate still needs
    votes_wanted = models.PositiveSmallIntegerField(default=1)
    votes_for_decision = models.PositiveIntegerField(null=True, blank=True)  # how many more until the gate can decide
    reserved_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    reserved_until = models.DateTimeField(null=True, blank=True)
    is_gold = models.BooleanField(default=False)
    expected = models.CharField(max_length=8, blank=True)  # of gold pairs
    repeats = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="+"
    )  # same pair, sides swapped

    objects = ReviewTaskQuerySet.as_manager()

    class Meta:
        ordering = ["-priority", "pk"]
        indexes = [models.Index(fields=["brand", "task", "status", "-priority"], name="review_queue")]

    def __str__(self) -> str:
        return f"{self.task} {self.kind}"


class Export(Run):
    """Feedback written out as training rows or tables, with a manifest."""

    task_name: ClassVar[str] = "feedback.tasks.export"
    words: ClassVar[str] = "Export feedback"

    task = models.CharField(max_length=12, choices=Task, blank=True)
    format = models.CharField(max_length=20)  # trl, trl-unpaired, sharegpt, openai-preference, csv, parquet
    filters = models.JSONField(default=dict, blank=True)
    file_path = models.CharField(max_length=400, blank=True)  # below the files folder
    rows = models.PositiveBigIntegerField(default=0)
    manifest = models.JSONField(default=dict, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta(Run.Meta):
        verbose_name = "export"

    result_words: ClassVar[str] = "Download"

    @property
    def path(self) -> Path | None:
        """The file, where it was written and still is."""
        found = Path(settings.MEDIA_ROOT) / self.file_path if self.file_path else None
        return found if found is not None and found.is_file() else None

    @property
    def result_url(self) -> str:
        """Where the file is fetched, once there is one."""
        return reverse("feedback-export-file", args=[self.pk]) if self.file_path else ""

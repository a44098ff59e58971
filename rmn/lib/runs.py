"""Run: one row for every long work, and its outbox.

A service creates the row and queues a message after the commit. The worker claims the row by a
lease with a fencing token, renews it while it works, and records how it ended. What the broker or a
killed worker lost, the sweep finds here and sends again; a message delivered twice finds the row
taken or finished. Screens, console and API show the same row.
"""

from __future__ import annotations

import threading
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Self

import structlog
from celery import current_app
from django.apps import apps
from django.conf import settings
from django.db import connection, models, transaction
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone
from kombu.exceptions import OperationalError

from rmn.lib import masking
from rmn.lib.errors import RmnError
from rmn.lib.rows import TenantQuerySet

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=40)
RENEW_EVERY_S = 10
RESEND_AFTER = timedelta(seconds=45)
ON_ITS_WAY = timedelta(seconds=2)  # between the commit of a row and its message
MOST_AT_ONCE = 1000


class RunTaken(RmnError):
    """Somebody else holds the lease, or the run has ended: the message was delivered twice."""


class LeaseLost(RmnError):
    """Our lease went to another worker; whatever we would write now is stale."""


class Cancelled(RmnError):
    """A person asked for the run to stop."""


class RunQuerySet(TenantQuerySet):
    def unfinished(self) -> Self:
        return self.filter(status__in=[Run.Status.QUEUED, Run.Status.RUNNING])

    def failed(self) -> Self:
        return self.filter(status=Run.Status.FAILED)

    def lost(self, now: datetime, after: timedelta = RESEND_AFTER) -> Self:
        """Queued for longer than ``after`` but never picked up, or running with a lease that nobody renews."""
        never_came = Q(status=Run.Status.QUEUED, queued_at__lt=now - after)
        worker_died = Q(status=Run.Status.RUNNING, lease_until__lt=now)
        return self.filter(never_came | worker_died)


class Run(models.Model):
    """A piece of work that outlives a request: who wished it, how far it is, how it ended."""

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    task_name: ClassVar[str] = ""  # the Celery task that does the work; empty: nothing is queued
    words: ClassVar[str] = ""  # what it does, in words, for screens: "Fit response curves"
    is_errand: ClassVar[bool] = False  # done on behalf of other work: lists of what runs leave it out

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    brand = models.ForeignKey("retailers.Brand", models.PROTECT, related_name="+")
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED, db_index=True)
    progress = models.FloatField(default=0.0)  # 0 to 1
    step = models.CharField(max_length=200, blank=True)  # what it does now, in words
    log = models.TextField(blank=True)
    error = models.TextField(blank=True)  # the cause, for people
    error_id = models.CharField(max_length=12, blank=True)  # to quote when asking for help
    retryable = models.BooleanField(default=False)
    attempts = models.PositiveSmallIntegerField(default=0)
    max_attempts = models.PositiveSmallIntegerField(default=3)
    lease_owner = models.CharField(max_length=80, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    lease_token = models.PositiveIntegerField(default=0)  # fencing: only the newest holder may write
    cancel_requested = models.BooleanField(default=False)
    idempotency_key = models.CharField(max_length=80, null=True, blank=True)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+")
    config = models.JSONField(default=dict, blank=True)  # all that decides the result
    code_version = models.CharField(max_length=40, blank=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    queued_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["brand", "idempotency_key"], name="%(class)s_wished_once_per_key"),
            models.CheckConstraint(
                condition=Q(progress__gte=0) & Q(progress__lte=1), name="%(class)s_progress_is_a_share"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.words or self._meta.verbose_name} {str(self.pk)[:8]}"

    def get_absolute_url(self) -> str:
        return reverse("run", args=[self.pk])

    @property
    def is_finished(self) -> bool:
        return self.status in (self.Status.SUCCEEDED, self.Status.FAILED, self.Status.CANCELLED)

    @property
    def uuid(self) -> uuid.UUID:
        """The public address, under the name that every other row has it."""
        return self.id

    @property
    def kind(self) -> str:
        return str(self._meta.verbose_name)

    @property
    def tenant(self) -> str:
        """What the message carries: the brand's key, or '*' for shared work."""
        return str(self.brand_id) if self.brand_id else "*"

    @property
    def seconds(self) -> float | None:
        if self.started_at is None:
            return None
        return ((self.finished_at or timezone.now()) - self.started_at).total_seconds()

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the share done; none before there is anything to go by."""
        elapsed = self.seconds
        if elapsed is None or self.is_finished or self.progress < 0.03:
            return None
        return elapsed * (1 - self.progress) / self.progress

    @property
    def console_url(self) -> str:
        return reverse(f"admin:{self._meta.app_label}_{self._meta.model_name}_change", args=[self.pk])

    # -- the outbox

    def enqueue(self) -> None:
        """Queue the work once the row is committed; if the broker is away, the sweep will."""
        transaction.on_commit(partial(send, self.task_name, str(self.pk), self.tenant))

    def request_cancel(self) -> None:
        """Stop before the start at once; while running, at the worker's next report."""
        manager = type(self).objects
        now = timezone.now()
        stopped = manager.filter(pk=self.pk, status=self.Status.QUEUED).update(
            status=self.Status.CANCELLED, finished_at=now, cancel_requested=True
        )
        if not stopped:
            manager.filter(pk=self.pk, status=self.Status.RUNNING).update(cancel_requested=True)
        self.refresh_from_db()

    def retry(self) -> None:
        """Wish it again: the same row, the same configuration."""
        changed = (
            type(self)
            .objects.filter(pk=self.pk, status__in=[self.Status.FAILED, self.Status.CANCELLED])
            .update(
                status=self.Status.QUEUED,
                attempts=0,
                error="",
                error_id="",
                progress=0,
                step="",
                cancel_requested=False,
                queued_at=timezone.now(),
                finished_at=None,
            )
        )
        if changed:
            self.enqueue()
        self.refresh_from_db()

    def pause(self) -> timedelta:
        """How long to wait before the next attempt, at least until the next sweep."""
        return RESEND_AFTER

    # -- the worker's side

    def claim(self) -> bool:
        """Take the lease; False if the run has ended or somebody holds it."""
        now = timezone.now()
        free = Q(status=self.Status.QUEUED) | Q(status=self.Status.RUNNING, lease_until__lt=now)
        taken = (
            type(self)
            .objects.filter(free, pk=self.pk)
            .update(
                status=self.Status.RUNNING,
                attempts=F("attempts") + 1,
                lease_owner=f"{uuid.uuid4().hex[:8]}",
                lease_until=now + LEASE,
                lease_token=F("lease_token") + 1,
                started_at=now,
                error="",
                error_id="",
            )
        )
        self.refresh_from_db()
        return bool(taken)

    def _mine(self) -> models.QuerySet[Any]:
        return type(self).objects.filter(pk=self.pk, status=self.Status.RUNNING, lease_token=self.lease_token)

    def renew(self) -> None:
        if not self._mine().update(lease_until=timezone.now() + LEASE):
            raise LeaseLost(f"run {self.pk}: the lease went to another worker")

    def store(self, **values: Any) -> None:
        """Write results, only while the lease is ours: a stale worker changes nothing.

        Raises:
            LeaseLost: the lease went to another worker.
        """
        if not self._mine().update(**values):
            raise LeaseLost(f"run {self.pk}: the lease went to another worker")
        for name, value in values.items():
            setattr(self, name, value)

    def report(self, progress: float, step: str = "", line: str = "") -> None:
        """Say how far we are; raises Cancelled when a person asked to stop, LeaseLost when we are stale."""
        self.progress = min(max(progress, 0.0), 1.0)
        self.step = masking.line(step)[:200] or self.step
        if line or step:
            stamp = timezone.now().strftime("%H:%M:%S")
            self.log = f"{self.log}{stamp} {masking.line(line or step)}\n"[-20_000:]
        changed = self._mine().update(
            progress=self.progress, step=self.step, log=self.log, lease_until=timezone.now() + LEASE
        )
        if not changed:
            raise LeaseLost(f"run {self.pk}: the lease went to another worker")
        if type(self).objects.filter(pk=self.pk, cancel_requested=True).exists():
            raise Cancelled("stopped on request")

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Claim, work, record the end: the only place with a try around background work.

        Raises:
            RunTaken: the message was delivered twice; TenantTask lets it pass.
        """
        if not self.claim():
            raise RunTaken(f"run {self.pk} is {self.status}")
        bound = log.bind(run=str(self.pk), kind=self._meta.model_name)
        bound.info("run_started", attempt=self.attempts)
        with _renewing(self):
            try:
                yield
            except Cancelled:
                self._end(self.Status.CANCELLED)
                bound.info("run_cancelled")
            except LeaseLost:
                bound.warning("run_lease_lost")
            except RmnError as error:
                self._fail(str(error) or type(error).__name__, retryable=error.retryable)
                bound.warning("run_failed", error=type(error).__name__, retryable=error.retryable)
            except Exception as error:  # noqa: BLE001  # whatever it was, the row says so
                error_id = uuid.uuid4().hex[:12]
                bound.error(
                    "run_crashed", error=type(error).__name__, error_id=error_id, where=traceback.format_exc(limit=-4)
                )
                self._fail(f"{type(error).__name__}: {error}", retryable=False, error_id=error_id)
            else:
                self._end(self.Status.SUCCEEDED, progress=1.0)
                bound.info("run_succeeded", seconds=round(self.seconds or 0, 2))

    def _end(self, status: str, **values: Any) -> None:
        now = timezone.now()
        if self._mine().update(status=status, finished_at=now, lease_until=None, **values):
            self.refresh_from_db()

    def _fail(self, message: str, *, retryable: bool, error_id: str = "") -> None:
        again = retryable and self.attempts < self.max_attempts
        text = masking.line(message)[:4000]
        if again:
            later = timezone.now() + max(self.pause() - RESEND_AFTER, timedelta(0))
            self._mine().update(
                status=self.Status.QUEUED, error=text, retryable=True, lease_until=None, queued_at=later
            )
            self.refresh_from_db()
            return
        self._end(self.Status.FAILED, error=text, error_id=error_id or uuid.uuid4().hex[:12], retryable=retryable)


@contextmanager
def _renewing(run: Run) -> Iterator[None]:
    """Renew the lease from a thread of its own, so that one long computation does not lose it."""
    done = threading.Event()

    def renew() -> None:
        from rmn.lib import tenancy

        try:
            with tenancy.everyone():
                while not done.wait(RENEW_EVERY_S):
                    try:
                        run.renew()
                    except LeaseLost:
                        return
                    except Exception as error:  # noqa: BLE001  # the database may be away for a moment
                        log.warning("lease_renewal_failed", run=str(run.pk), error=type(error).__name__)
        finally:
            connection.close()

    thread = threading.Thread(target=renew, name=f"lease-{run.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def send(task_name: str, run_id: str, tenant: str) -> bool:
    """Hand the message to the broker; a broker that is away is no error, the sweep re-sends."""
    if not task_name:
        return False
    try:
        current_app.send_task(task_name, args=[run_id], kwargs={"tenant": tenant})
    except (OperationalError, OSError) as error:
        log.warning("message_not_sent", task=task_name, run=run_id, error=type(error).__name__)
        return False
    return True


def kinds() -> list[type[Run]]:
    """Every concrete kind of run in the project."""
    return [model for model in apps.get_models() if issubclass(model, Run)]


def find(run_id: Any, user: Any) -> Run | None:
    """The run of that address that this person may see, whatever its kind; None for what is no address."""
    try:
        run_id = uuid.UUID(str(run_id))
    except ValueError:
        return None
    for model in kinds():
        run = model.objects.visible_to(user).filter(pk=run_id).first()
        if run is not None:
            return run
    return None


def sweep(now: datetime, *, broker_forgot: bool = False) -> dict[str, int]:
    """Send again what was lost, and end what has no attempt left.

    A broker that forgot what it held (``broker_forgot``) is told at once of all that waits.
    """
    after = ON_ITS_WAY if broker_forgot else RESEND_AFTER
    sent = ended = 0
    for model in kinds():
        if not model.task_name:
            continue
        for run in model.objects.lost(now, after)[:MOST_AT_ONCE]:
            still = model.objects.lost(now, after).filter(pk=run.pk)
            if run.status == Run.Status.RUNNING and run.attempts >= run.max_attempts:
                ended += still.update(
                    status=Run.Status.FAILED,
                    finished_at=now,
                    lease_until=None,
                    lease_token=F("lease_token") + 1,
                    step="lease_lost: its workers were lost",
                    error=f"The worker was lost {run.attempts} times while doing this; see the worker's log, then retry.",
                )
            elif still.update(
                status=Run.Status.QUEUED,
                queued_at=now,
                lease_until=None,
                lease_token=F("lease_token") + 1,
                step="lease_lost: its worker was lost, sent again" if run.status == Run.Status.RUNNING else run.step,
            ):
                sent += send(model.task_name, str(run.pk), run.tenant)
    return {"sent": sent, "ended": ended}

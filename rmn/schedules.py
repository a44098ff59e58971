"""Schedules that fire once, however many beats run: each tick is claimed in the database before it is sent.

A beat may be started on every machine. What was due while none ran is sent once when one is back, and what
was due while the database was away once that is back; a clock that was set back waits no longer than one period.
"""

from __future__ import annotations

import heapq
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from django.db import Error
from django.db.models import F, Q
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler, ModelEntry

log = structlog.get_logger(__name__)
CLOCKS_DIFFER = timedelta(minutes=1)
AGAIN_S = 5.0  # after a tick that could not be claimed


class ClaimedEntry(ModelEntry):
    """A schedule whose last run stands in the database as soon as it is claimed."""

    def is_due(self) -> Any:
        now = self._default_now()
        if self.last_run_at - now > CLOCKS_DIFFER:  # the clock went back: count anew from here
            self._move(self.last_run_at, now)
            self.remember(now)
        return super().is_due()

    def claim(self, until: datetime) -> bool:
        """Take the tick that was due; False if another beat has it."""
        return bool(self._move(self.last_run_at, until, total_run_count=F("total_run_count") + 1))

    def _move(self, known: datetime, until: datetime, **more: Any) -> int:
        rows = PeriodicTask.objects.filter(Q(last_run_at=known) | Q(last_run_at=None), pk=self.model.pk)
        return int(rows.update(last_run_at=until, **more))

    def remember(self, at: datetime) -> None:
        self.last_run_at = self.model.last_run_at = at

    def save(self) -> None:
        """Nothing is left to save: the claim did."""


class OnceScheduler(DatabaseScheduler):
    """The database's schedules, each tick of them sent by one beat."""

    Entry = ClaimedEntry
    _seen = datetime.min.replace(tzinfo=UTC)

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """One look; what waits is ordered anew when the clock went back or a tick could not be claimed."""
        now = datetime.now(UTC)
        if self._seen - now > CLOCKS_DIFFER:
            self._heap = None
            with suppress(Error):  # what other beats have moved meanwhile
                self._schedule = self.all_as_schedule()
        self._seen = now
        self._unclaimed = False
        wait = super().tick(*args, **kwargs)
        if self._unclaimed:
            soon, waiting = self._when(self._ahead, AGAIN_S), list[Any](self._heap or [])
            self._heap = [one._replace(time=soon) if one.entry is self._ahead else one for one in waiting]
            heapq.heapify(self._heap)
        return wait

    def reserve(self, entry: Any) -> Any:
        self._ahead = super().reserve(entry)  # what waits from now on in the entry's place
        return self._ahead

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        try:
            if entry.claim(entry.model.last_run_at):
                super().apply_entry(entry, producer=producer)
                return
            ran = PeriodicTask.objects.filter(pk=entry.model.pk).values_list("last_run_at", flat=True).first()
        except Error as error:
            log.warning("tick_not_claimed", schedule=entry.name, error=type(error).__name__)
            ran, self._unclaimed = None, True
        self._ahead.remember(ran or entry.last_run_at)

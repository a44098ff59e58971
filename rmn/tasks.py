"""The tasks that keep the others going."""

from __future__ import annotations

import structlog
from celery import shared_task
from django.utils import timezone

from rmn.lib import runs, tenancy
from rmn.models import Heartbeat

log = structlog.get_logger(__name__)


@shared_task
def sweep() -> dict[str, int]:
    """Send again whatever the broker or a killed worker lost."""
    with tenancy.everyone():
        done = runs.sweep(timezone.now())
    if any(done.values()):
        log.info("swept", **done)
    return done


@shared_task
def heartbeat() -> None:
    """A sign of life that /readyz looks for."""
    Heartbeat.objects.update_or_create(name="worker", defaults={"at": timezone.now()})

"""The tasks that keep the others going."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import redis
import structlog
from celery import shared_task
from django.conf import settings
from django.utils import timezone

from feedback import figures as answered
from retailers.models import Delivery, IdempotencyKey
from rmn import dashboard, digests
from rmn.lib import runs, tenancy

KEYS_FOR, TAKEN_FOR = timedelta(days=7), timedelta(days=30)
log = structlog.get_logger(__name__)


@shared_task
def sweep() -> dict[str, int]:
    """Send again whatever the broker or a killed worker lost."""
    with closing(redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5)) as broker:
        forgot = bool(broker.set("rmn:remembers", timezone.now().isoformat(), nx=True))
    with tenancy.everyone():
        done = runs.sweep(timezone.now(), broker_forgot=forgot)
    if forgot or any(done.values()):
        log.info("swept", broker_forgot=forgot, **done)
    return done


@shared_task
def figures() -> int:
    """Add up what the pages of many rows read: the first page's weeks, and the answers on the dashboard."""
    with tenancy.everyone():
        return dashboard.refresh() + answered.refresh()


@shared_task
def digest() -> int:
    """The morning's e-mail to those for whom something waits; asked for often, sent once a day."""
    with tenancy.everyone():
        return digests.send_all(timezone.now())


@shared_task
def tidy() -> None:
    """Take away what has served: answers to old requests, messages that were taken long ago."""
    with tenancy.everyone():
        IdempotencyKey.objects.filter(created_at__lt=timezone.now() - KEYS_FOR).delete()
        Delivery.objects.filter(status=Delivery.Status.SUCCEEDED, finished_at__lt=timezone.now() - TAKEN_FOR).delete()

"""Signs of life: every worker says every ten seconds which queues it takes from, however busy its children are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from celery import current_app
from celery.signals import heartbeat_sent
from django.db import DatabaseError, connection
from django.utils import timezone

from rmn.models import Heartbeat

EVERY = timedelta(seconds=10)
log = structlog.get_logger(__name__)
_last = timezone.now() - EVERY


def watch() -> None:
    heartbeat_sent.connect(_on_heartbeat, dispatch_uid="rmn_signs")


def _on_heartbeat(**_: Any) -> None:
    """Celery's worker beats every two seconds, in its main process."""
    global _last  # one worker, one clock
    now = timezone.now()
    if now - _last < EVERY:
        return
    _last = now
    try:
        give(list(current_app.amqp.queues.consume_from))
    except DatabaseError as error:
        log.warning("no_sign_of_life", error=type(error).__name__)
    finally:
        connection.close()  # children are forked from here


def give(queues: list[str]) -> None:
    """Say that somebody takes from these queues now."""
    for name in queues:
        Heartbeat.objects.update_or_create(name=name, defaults={"at": timezone.now()})

"""Telling a brand's own systems what happened: signed, tried again, never forgotten.

What is told comes from rows that were committed with what they tell of: the brand's audit chain and
its finished runs. Each message is a run of its own (``Delivery``): it is tried again with growing
pauses, ends as a dead letter when nobody takes it, and can be sent again from the console or the API.
The signature is that of the Standard Webhooks scheme, so that its libraries verify it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from retailers.models import AuditEntry, AuditHead, Delivery, Webhook
from rmn.lib import outbound, runs, sealing
from rmn.lib.errors import RmnError

AT_ONCE = 500
LOOK_BACK = timedelta(minutes=10)  # runs that ended by another machine's clock, or were committed late
TIMEOUT_S = 10
MOST_BYTES = 64 * 1024
PREFIX = "whsec_"


class NotTaken(RmnError):
    """The receiver answered, but not with a 2xx."""

    retryable = True


class Gone(RmnError):
    """The receiver wants no more: 410."""


def new_secret(hook: Webhook) -> str:
    """Give a webhook another secret, sealed at rest; it is shown this once."""
    secret = PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    hook.sealed_secret = sealing.seal(secret, str(hook.brand.uuid))
    return secret


def begin(hook: Webhook) -> None:
    """What happened before a webhook was set up is not told to it."""
    head = AuditHead.objects.filter(chain=hook.brand.slug).first()
    hook.last_sequence, hook.told_until = head.sequence if head else 0, timezone.now()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """``v1,`` and the base64 of HMAC-SHA256 over id, timestamp and body, joined by dots."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    said = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()


# -- what happened


def announce(now: datetime) -> int:
    """Write a delivery for each event that a webhook has not been told of; returns how many.

    A webhook's row is locked meanwhile, and a delivery's key is its event, so that two who announce at
    once write each message once.
    """
    told = 0
    for key in Webhook.objects.filter(is_active=True).values_list("pk", flat=True):
        with transaction.atomic():
            hook = Webhook.objects.select_for_update().select_related("brand").get(pk=key)
            entries = list(
                AuditEntry.objects.filter(brand=hook.brand, sequence__gt=hook.last_sequence).order_by("sequence")[
                    :AT_ONCE
                ]
            )
            for entry in entries:
                told += _write(
                    hook, f"audit:{entry.sequence}", word(entry.action), entry.at, entry.subject_type, entry.subject_id
                )
            for kind, run in _ended(hook):
                event = f"run:{run['pk'].hex}:{run['finished_at']:%Y%m%d%H%M%S}"
                told += _write(hook, event, f"run_{run['status']}", run["finished_at"], kind, str(run["pk"]))
            hook.last_sequence = entries[-1].sequence if entries else hook.last_sequence
            hook.told_until = now
            hook.save(update_fields=["last_sequence", "told_until"])
    return told  # fmt: skip


def word(action: str) -> str:
    """An event's name: "plan approved" is ``plan_approved``."""
    return re.sub(r"[^a-z0-9]+", "_", action.lower()).strip("_")[:80]


def _ended(hook: Webhook) -> Iterator[tuple[str, dict[str, Any]]]:
    since = max(hook.told_until - LOOK_BACK, hook.created_at)
    for model in runs.kinds():
        if model is Delivery:
            continue
        ended = model.objects.filter(brand=hook.brand, finished_at__gt=since, status__in=["succeeded", "failed"])
        for row in ended.order_by("finished_at").values("pk", "status", "finished_at"):
            yield model._meta.label, row


def _write(hook: Webhook, key: str, event: str, at: datetime, subject_type: str, subject_id: str) -> int:
    if hook.events and event not in hook.events:
        return 0
    data = {"subject_type": subject_type, "subject_id": subject_id}
    return int(_queue(hook, event, key, at, data)[1])


def _queue(hook: Webhook, event: str, key: str, at: datetime, data: dict[str, str]) -> tuple[Delivery, bool]:
    body = {"type": event, "timestamp": at.isoformat(timespec="seconds"), "data": {"brand": hook.brand.slug, **data}}
    delivery, made = Delivery.objects.get_or_create(
        brand=hook.brand,
        idempotency_key=f"{hook.pk}:{key}"[:80],
        defaults={"webhook": hook, "event": event, "body": body, "max_attempts": Delivery.MOST_ATTEMPTS},
    )
    if made:
        delivery.enqueue()
    return delivery, made


def ping(hook: Webhook) -> Delivery:
    """Send a message that says nothing, to try the address and the secret."""
    now = timezone.now()
    with transaction.atomic():
        return _queue(hook, "ping", f"ping:{now.timestamp()}", now, {})[0]


# -- telling


def send(delivery: Delivery) -> None:
    """One attempt, inside ``delivery.tracked()``.

    Raises:
        NotTaken, NoAnswer: to be tried again.
        Gone, Refused, NotConfigured: it is no use.
    """
    hook = delivery.webhook
    if not hook.is_active:
        raise Gone(f"{hook.url}: is switched off; switch it on, then retry")
    body = json.dumps(delivery.body, sort_keys=True, separators=(",", ":")).encode()
    stamp = int(timezone.now().timestamp())
    secret = sealing.unseal(hook.sealed_secret, str(hook.brand.uuid))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "rmn-webhooks/1",
        "webhook-id": str(delivery.pk),
        "webhook-timestamp": str(stamp),
        "webhook-signature": sign(secret, str(delivery.pk), stamp, body),
    }
    delivery.report(0.1, f"Attempt {delivery.attempts}")
    status = None
    try:
        answer = outbound.fetch(
            "POST", hook.url, headers=headers, body=body, timeout_s=TIMEOUT_S, most_bytes=MOST_BYTES
        )
        status = answer.status
        if status == 410:
            Webhook.objects.filter(pk=hook.pk).update(is_active=False)
            raise Gone(f"{hook.url}: answers 410, it wants no more; the webhook is switched off now")
        if not 200 <= status < 300:
            raise NotTaken(f"{hook.url}: answers {status}")
    except RmnError as error:
        _remember(delivery, status, str(error))
        raise
    _remember(delivery, status, "")  # fmt: skip


def _remember(delivery: Delivery, status: int | None, error: str) -> None:
    Delivery.objects.filter(pk=delivery.pk).update(response_status=status)
    Webhook.objects.filter(pk=delivery.webhook_id).update(
        last_status=status, last_error=error[:1000], last_sent_at=timezone.now()
    )

"""The day's e-mail to ops staff: what waits for a person, with links to just that."""

from __future__ import annotations

from datetime import datetime
from smtplib import SMTPException

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string

from rmn import dashboard
from rmn.models import Digest

log = structlog.get_logger(__name__)


def send_all(now: datetime) -> int:
    """Write to all staff who have an address and something that waits, once a day; returns how many."""
    if now.hour < settings.RMN_DIGEST_HOUR:
        return 0
    done = Digest.objects.filter(day=now.date()).values("user")
    people = User.objects.filter(is_staff=True, is_active=True).exclude(email="").exclude(pk__in=done)
    return sum(send(person, now) for person in people)


def send(person: User, now: datetime) -> bool:
    """One person's e-mail; the row that it was sent comes first, so that two workers send one."""
    found = dashboard.waiting(person)
    if not found or not Digest.objects.get_or_create(user=person, day=now.date())[1]:
        return False
    context = {"person": person, "waiting": found, "site": settings.RMN_SITE_URL, "day": now.date()}
    message = EmailMultiAlternatives(
        f"{sum(one.count for one in found)} things wait in RMN ({settings.RMN_ENVIRONMENT})",
        render_to_string("digest.txt", context),
        to=[person.email],
    )
    message.attach_alternative(render_to_string("digest.html", context), "text/html")
    try:
        message.send()
    except (OSError, SMTPException) as error:
        Digest.objects.filter(user=person, day=now.date()).delete()  # the next asking tries again
        log.warning("digest_not_sent", person=person.pk, error=type(error).__name__)
        return False
    return True

"""Work for a worker that is watched: it looks without any filter, and tells whom it acts for."""

from __future__ import annotations

import json

import redis
from celery import shared_task
from django.conf import settings

from campaigns.models import Campaign
from rmn.lib import tenancy
from rmn.lib.tasks import TenantTask

TOLD = "seen"


@shared_task(base=TenantTask)
def look(number: int, fail: bool = False) -> None:
    """The brands of all campaigns there are for whom we act: the wall alone keeps the others' out."""
    brands = sorted(set(Campaign.objects.order_by().values_list("brand_id", flat=True)))
    if fail:
        raise RuntimeError("midway")
    with redis.Redis.from_url(settings.REDIS_URL) as broker:
        broker.rpush(TOLD, json.dumps([number, tenancy.current(), brands]))

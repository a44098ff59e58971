"""The Celery application: how work travels, and what is never lost on the way."""

from __future__ import annotations

import os
from typing import Any

from celery.signals import worker_init
from django.conf import settings

from rmn.lib.masking import Messenger

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rmn.settings")

app = Messenger("rmn")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["rmn", "retailers", "campaigns", "feedback", "agents", "training"])


@worker_init.connect
def give_way(**_: Any) -> None:
    """Workers yield to whatever answers people on the same machine; what they start inherits it."""
    os.nice(settings.RMN_WORKER_NICE)

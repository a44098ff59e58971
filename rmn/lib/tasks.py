"""How tasks know whom they work for."""

from __future__ import annotations

from typing import Any

import structlog
from celery import Task
from kombu.exceptions import OperationalError

from rmn.lib import runs, tenancy
from rmn.lib.tenancy import NoTenant

log = structlog.get_logger(__name__)


class TenantTask(Task):
    """A task that acts for the brand its message names, and for no other.

    ``tenant`` is the brand's primary key as text, or '*' for work that belongs to no brand. It is
    taken off the message, set for the time of the task and cleared after it; a message without one
    fails, for the worker might still hold the tenant of the task before.
    """

    abstract = True

    def __call__(self, *args: Any, tenant: str | None = None, **kwargs: Any) -> Any:
        if not tenant:
            raise NoTenant(f"{self.name}: the message names no tenant; send tenant=<brand key> or '*'")
        scope = tenancy.everyone() if tenant == tenancy.EVERYONE else tenancy.acting_for([int(tenant)])
        with scope:
            try:
                return super().__call__(*args, **kwargs)
            except runs.RunTaken as taken:
                log.info("message_delivered_twice", task=self.name, detail=str(taken))
                return None

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Queue; a broker that is away is no error, since the Run row is the outbox."""
        try:
            return super().delay(*args, **kwargs)
        except (OperationalError, OSError) as error:
            log.warning("message_not_sent", task=self.name, error=type(error).__name__)
            return None

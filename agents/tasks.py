"""Work of agents that outlives a request."""

from __future__ import annotations

import structlog
from celery import shared_task
from django.utils import timezone

from agents import forecasts, journal, planning, rooms, serving
from agents.models import AdapterAlias, AgentRun, CleanRoomQuery, Deployment, Forecast, ReflectionLog
from rmn.lib import tenancy
from rmn.lib.tasks import TenantTask

log = structlog.get_logger(__name__)

# -- adapters


@shared_task(base=TenantTask)
def deploy(run_id: str) -> None:
    """Copy, load, prove and publish a version."""
    run = Deployment.objects.select_related("adapter", "brand").get(pk=run_id)
    if run.is_finished:  # the broker delivered the message twice
        return
    with run.tracked():
        serving.deploy(run)


@shared_task
def watch_canaries() -> int:
    """Take a challenger back as soon as the votes say that it is worse; returns how many were taken back."""
    taken = 0
    with tenancy.everyone():
        for alias in AdapterAlias.objects.filter(name="challenger").exclude(adapter=None):
            found = serving.evidence(alias.scope)
            if found is not None and found.verdict == "worse":
                reason = (
                    f"lost {found.losses} of {found.wins + found.losses} blind pairs (evidence {found.e_worse:.0f})"
                )
                serving.roll_back(alias.scope, "challenger", reason)
                log.info("canary_rolled_back", scope=alias.scope, wins=found.wins, losses=found.losses)
                taken += 1
    return taken


# -- clean rooms


@shared_task(base=TenantTask)
def ask_clean_room(run_id: str) -> None:
    """Take a question to its clean room, and keep what may be shown."""
    run = CleanRoomQuery.objects.select_related("connection__brand", "brand", "requested_by").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked():
        rooms.work(run)


# -- plans


@shared_task(base=TenantTask)
def plan(run_id: str) -> None:
    """Take a goal through the tools."""
    run = AgentRun.objects.select_related("brand", "retailer").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked():
        planning.work(run)


# -- forecasts


@shared_task
def resolve_forecasts() -> dict[str, int]:
    """Read what came of open forecasts: analysed experiments at once, metrics when their day has come."""
    with tenancy.everyone():
        rows = Forecast.objects.open().select_related("brand", "retailer", "reflection").order_by("due")
        counts = forecasts.resolve_ready(rows, timezone.now().date())
    log.info("forecasts_resolved", **counts)
    return counts


@shared_task
def watch_decisions() -> int:
    """Reopen decisions whose early signs have come up; returns how many."""
    with tenancy.everyone():
        rows = ReflectionLog.objects.filter(phase="execution").exclude(subject=None).select_related("brand")
        found = journal.watch(rows, timezone.now().date())
    log.info("decisions_watched", reopened=found)
    return found

"""What people and programs may ask of the agents."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from agents import serving
from agents.domain import bounds
from agents.models import Adapter, AdapterAlias, AgentRun, Deployment
from retailers.models import Brand, Retailer
from rmn.lib.errors import BadInput
from rmn.lib.rows import scope_text

wish_for_deployment = serving.wish_for_deployment

# -- adapters


@transaction.atomic
def deploy_adapter(*, adapter: Adapter, alias: str = "champion", share: float = 1.0, by: Any = None) -> Deployment:
    """Record the wish, and queue the proof once it is committed."""
    run = serving.wish_for_deployment(adapter=adapter, alias=alias, share=share, by=by)
    run.enqueue()
    return run


def roll_back_adapter(
    *,
    brand: Brand,
    retailer: Retailer | None,
    task: str,
    alias: str = "champion",
    reason: str = "",
    by: Any = None,
) -> AdapterAlias | None:
    """Take a version back, in one transaction; the one before serves at once."""
    person = getattr(by, "username", "") or "the operator"
    return serving.roll_back(scope_text(brand, retailer, task), alias, f"{reason or 'rolled back'} ({person})")


# -- plans


def wish_for_plan(
    *, brand: Brand, goal: str, retailer: Retailer | None = None, by: Any = None, limits: dict[str, Any] | None = None
) -> AgentRun:
    """Record a goal; nothing is queued yet.

    Raises:
        BadInput: the goal is empty or longer than a page, or a limit that cannot be meant.
    """
    if not goal.strip() or len(goal) > 4000:
        raise BadInput("goal: between 1 and 4,000 characters")
    bounds.read(limits)
    return AgentRun.objects.create(
        brand=brand,
        retailer=retailer,
        goal=goal.replace("\x00", ""),
        requested_by=by,
        limits=limits or {},
        max_attempts=2,
    )


@transaction.atomic
def request_plan(**wish: Any) -> AgentRun:
    run = wish_for_plan(**wish)
    run.enqueue()
    return run

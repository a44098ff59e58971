"""What people and programs may ask of the agents."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from agents import serving
from agents.models import Adapter, AdapterAlias, AgentRun, Deployment
from retailers.models import Brand, Retailer
from rmn.lib.errors import BadInput
from rmn.lib.rows import scope_text

# -- adapters


def wish_for_deployment(*, adapter: Adapter, alias: str = "champion", share: float = 1.0, by: Any = None) -> Deployment:
    """Record a deployment; nothing is queued yet.

    Raises:
        BadInput: a version that no brand owns, one that was revoked, or a share outside 0 to 1.
    """
    if adapter.brand is None:
        raise BadInput(f"{adapter}: shared knowledge serves no brand by itself; compose it into a version of the brand")
    if adapter.state == Adapter.State.REVOKED:
        raise BadInput(f"{adapter} was withdrawn; train or compose a new version")
    if alias not in ("champion", "challenger", "shadow"):
        raise BadInput(f"alias {alias!r}: champion, challenger or shadow")
    if not 0 < share <= 1:
        raise BadInput(f"share {share}: above 0 and at most 1")
    return Deployment.objects.create(
        brand=adapter.brand,
        adapter=adapter,
        alias=alias,
        share=share,
        requested_by=by,
        max_attempts=2,
        config={"adapter": adapter.digest, "alias": alias, "share": share},
    )


@transaction.atomic
def deploy_adapter(*, adapter: Adapter, alias: str = "champion", share: float = 1.0, by: Any = None) -> Deployment:
    """Record the wish, and queue the proof once it is committed."""
    run = wish_for_deployment(adapter=adapter, alias=alias, share=share, by=by)
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
        BadInput: the goal is empty or longer than a page.
    """
    if not goal.strip() or len(goal) > 4000:
        raise BadInput("goal: between 1 and 4,000 characters")
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

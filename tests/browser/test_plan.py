"""A plan's page with everything on it, on a desktop and on a telephone."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from campaigns import services, tasks
from campaigns.models import BudgetPlan
from tests.browser.conftest import WIDTHS
from tests.campaigns.test_readiness import curves, shelf
from tests.conftest import People
from tests.factories import BudgetPlanFactory


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plan_with_arms_left_out_and_braked_is_drawn_whole(people: People, open_as: Any, width: int) -> None:
    curves(people)
    day = timezone.localdate() - timedelta(days=2)
    shelf(people, f"{day},W-1,,0,1,,USD", f"{day},W-2,,1,0.6,,USD")
    problem, _ = services.problem_from_curves(brand=people.brand, total_budget=1000)
    plan: Any = BudgetPlanFactory(
        brand=people.brand, problem=problem, total_budget=1000, status="running", lease_token=1
    )
    tasks.propose(plan)
    BudgetPlan.objects.filter(pk=plan.pk).update(status="succeeded")
    screen = open_as(people.colleague, width)
    page = screen.open(f"/budgets/{plan.pk}")
    for picture in page.locator("figure").all():  # pictures are drawn when they come into sight
        picture.scroll_into_view_if_needed()
        picture.locator("svg, canvas").first.wait_for()
    assert page.locator("#sold").is_visible()
    screen.check()
    if folder := os.environ.get("RMN_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/plan-{width}.png", full_page=True)

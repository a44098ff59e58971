"""Clean rooms in Chromium: budget, question and answer stay readable and usable at both widths."""

from __future__ import annotations

from typing import Any

import pytest

from tests.agents.test_rooms import REACH
from tests.browser.conftest import WIDTHS
from tests.conftest import People
from tests.factories import CleanRoomConnectionFactory, CleanRoomQueryFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("width", WIDTHS)
def test_rooms_questions_and_answers_are_drawn_whole(people: People, open_as: Any, width: int) -> None:
    templates = [REACH, REACH | {"name": "overlap", "parameters": {"start": ["2026-01", "2026-02"]}}]
    place = CleanRoomConnectionFactory(brand=people.brand, retailer=people.retailer, name="Retailer's room", budget_units=10, templates=templates)  # fmt: skip
    rows = [{"segment": "new to brand", "users": 12_900}, {"segment": "<script>window.broken=1</script>", "users": 400}]
    shown = CleanRoomQueryFactory(brand=people.brand, connection=place, template="reach", state="released", status="succeeded", result={"rows": rows}, suppressed=2, parameters={"start": "2026-01-01"})  # fmt: skip
    refused = CleanRoomQueryFactory(brand=people.brand, connection=place, template="reach", state="refused", status="failed", error="this question costs 1 and 0 of 10 are left; ops staff set the budget")  # fmt: skip
    screen = open_as(people.colleague, width)
    for path in (
        "/clean-rooms/", f"/clean-rooms/{place.uuid}", f"/clean-rooms/{place.uuid}?template=overlap",
        f"/clean-rooms/questions/{shown.pk}", f"/clean-rooms/questions/{refused.pk}",
    ):  # fmt: skip
        screen.open(path)
        screen.check()
    assert screen.page.evaluate("window.broken") is None

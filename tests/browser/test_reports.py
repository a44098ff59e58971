"""The screens of reports in Chromium, at two widths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import WIDTHS
from tests.conftest import People
from tests.retailers import test_screens as data


@pytest.mark.parametrize("width", WIDTHS)
def test_the_screens_of_reports_have_no_error_and_no_barrier(
    people: People, open_as: Any, settings: Any, tmp_path: Path, width: int
) -> None:
    settings.MEDIA_ROOT = tmp_path / "files"
    data.fill(people)
    row = data.PerformanceMetric.objects.first()
    assert row is not None
    report = tmp_path / "report.csv"
    report.write_text("Day,Campaign,Impressions,Clicks,Cost (EUR)\n2026-01-01,c,10,1,5.00\n", encoding="utf-8")
    shots = os.environ.get("RMN_SCREENSHOTS")
    screen = open_as(people.owner, width)
    for name, path in (
        ("performance", "/performance/"),
        ("campaign", "/performance/?campaign=c1"),
        ("lineage", f"/metrics/{row.uuid}"),
        ("feeds", "/feeds/"),
        ("quarantine", "/feeds/quarantine"),
        ("upload", "/feeds/upload"),
    ):
        page = screen.open(path)
        if shots:
            page.screenshot(path=f"{shots}/{name}-{width}.png", full_page=True)
        screen.check()
    page.select_option("#id_brand", label="Acme") if page.locator("#id_brand option").count() > 2 else page.select_option("#id_brand", index=1)  # fmt: skip
    page.select_option("#id_retailer", index=1)
    page.set_input_files("#id_file", str(report))
    page.get_by_role("button", name="Look at it").click()
    page.get_by_role("heading", name="Rows before and after").wait_for()
    if shots:
        page.screenshot(path=f"{shots}/check-{width}.png", full_page=True)
    screen.check()

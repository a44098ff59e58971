from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from retailers import services, tasks, watching
from retailers.models import FeedLoad, FeedSource
from rmn.lib import outbound
from tests.factories import BrandFactory, RetailerFactory
from tests.retailers.test_harmonizer import MAPPING
from tests.retailers.test_loads import FIRST

pytestmark = pytest.mark.django_db
NOW = dt.datetime(2026, 2, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def source(settings: Any, tmp_path: Path) -> FeedSource:
    settings.MEDIA_ROOT = tmp_path / "files"
    (tmp_path / "in").mkdir()
    brand = BrandFactory(slug="acme")
    kept = services.keep_mapping(brand=brand, text=MAPPING)
    return FeedSource.objects.create(
        brand=brand, retailer=RetailerFactory(), address=str(tmp_path / "in"), mapping=kept
    )


def put(source: FeedSource, name: str, text: str, age_s: float = 60) -> None:
    path = Path(source.address) / name
    path.write_text(text, encoding="utf-8")
    moment = NOW.timestamp() - age_s
    os.utime(path, (moment, moment))


def test_what_is_new_in_a_folder_is_loaded_once(source: FeedSource) -> None:
    put(source, "a.csv", FIRST)
    [run] = watching.look(source, NOW)
    tasks.load_feed(str(run.pk), tenant=str(source.brand_id))
    run.refresh_from_db()
    assert (run.status, run.rows_accepted) == (run.Status.SUCCEEDED, 3)
    assert run.extracted_at == NOW - dt.timedelta(seconds=60)
    assert watching.look(source, NOW) == []
    put(source, "copy.csv", FIRST)
    assert watching.look(source, NOW) == []
    put(source, "a.csv", FIRST.replace("1.10", "1.20"), age_s=45)
    assert len(watching.look(source, NOW)) == 1


def test_a_file_that_is_still_being_written_waits(source: FeedSource) -> None:
    put(source, "a.csv", FIRST, age_s=1)
    assert watching.look(source, NOW) == []
    assert len(watching.look(source, NOW + dt.timedelta(minutes=5))) == 1


def test_a_folder_that_is_gone_is_said_on_its_row_and_stops_no_other(source: FeedSource) -> None:
    put(source, "a.csv", FIRST)
    FeedSource.objects.create(
        brand=source.brand, retailer=source.retailer, address="/nowhere/at/all", report="retailer_abc/performance"
    )
    assert tasks.watch_sources() == 1
    assert "no such folder" in FeedSource.objects.get(address="/nowhere/at/all").last_error


def test_an_address_is_asked_for_what_changed(source: FeedSource, monkeypatch: pytest.MonkeyPatch) -> None:
    source.address = "https://store.example.com/reports/today.csv?sig=x"
    asked: list[Any] = []

    def fetch(method: str, url: str, **options: Any) -> outbound.Answer:
        asked.append(options["headers"])
        return outbound.Answer(304 if options["headers"] else 200, {"etag": '"1"'}, FIRST.encode())

    monkeypatch.setattr(outbound, "fetch", fetch)
    [run] = watching.look(source, NOW)
    assert run.file_name == "today.csv"
    assert watching.look(source, NOW) == []
    assert asked == [None, {"If-None-Match": '"1"'}]
    assert FeedLoad.objects.count() == 1


def test_a_host_that_is_not_allowed_is_not_asked(source: FeedSource) -> None:
    source.address = "https://169.254.169.254/latest"
    assert watching.look(source, NOW) == []
    assert source.last_error


def test_a_source_names_one_way_to_read_what_it_brings(source: FeedSource) -> None:
    source.report = "retailer_abc/performance"
    with pytest.raises(ValidationError):
        source.clean()
    source.mapping, source.report = None, "no/such"
    with pytest.raises(ValidationError):
        source.clean()

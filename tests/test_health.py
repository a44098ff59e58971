"""Health: thirteen parts, and for each that breaks the cause and the next step, to those who may look inside."""

from __future__ import annotations

import shutil
from collections import namedtuple
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.cache import cache
from django.db import OperationalError, ProgrammingError
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from agents.models import AdapterAlias
from campaigns.models import CurveFit
from retailers import audit as chains
from retailers.models import AuditEntry, AuditHead
from rmn import health, signs
from rmn.lib import sealing
from rmn.models import Heartbeat
from tests.conftest import People
from tests.factories import AdapterFactory, CurveFitFactory, WebhookFactory

pytestmark = pytest.mark.django_db
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def well(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system in which all parts work, without its servers."""
    settings.VAR, settings.MEDIA_ROOT, settings.RMN_ADAPTERS = tmp_path, tmp_path / "files", tmp_path / "adapters"
    settings.RMN_INFERENCE_URL = "http://127.0.0.1:9"
    monkeypatch.setattr(redis.Redis, "ping", lambda self: True)
    monkeypatch.setattr(health.Client, "get", lambda self, url: type("Answer", (), {"status_code": 200}))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 0, 2**40))
    signs.give(health.QUEUES)
    every = IntervalSchedule.objects.create(every=10, period="seconds")
    PeriodicTask.objects.create(name="sweep", task="rmn.tasks.sweep", interval=every, last_run_at=timezone.now())


def wrong() -> dict[str, Any]:
    return {name: told for name, told in health.parts().items() if not told["ok"]}


def raising(error: Exception) -> Any:
    def work(*_: Any, **__: Any) -> Any:
        raise error

    return work


def test_a_probe_of_life_asks_the_database_nothing(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert Client().get("/healthz").json() == {"status": "live"}


def test_probes_answer_while_the_database_is_away(well: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "django.db.backends.utils.CursorWrapper.execute", raising(OperationalError("connection refused"))
    )
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "not ready"
    assert answer.json()["checks"]["database"]["next"] == "check DATABASE_URL and that the server runs"
    assert 'rmn_part_ok{part="database"} 0.0' in Client().get("/metrics").content.decode()


def test_a_whole_system_is_ready(well: None) -> None:
    assert wrong() == {}
    assert Client().get("/readyz").json()["status"] == "ready"


@pytest.mark.parametrize("part", [name for name in health.CHECKS if name not in ("database", "migrations")])
def test_each_part_that_breaks_is_named_with_cause_and_next_step(
    part: str, well: None, people: People, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_queue() -> None:
        CurveFitFactory(brand=people.brand)
        CurveFit.objects.update(queued_at=timezone.now() - timedelta(hours=1))

    def break_adapters() -> None:
        adapter = AdapterFactory(brand=people.brand)
        AdapterAlias.objects.create(brand=people.brand, scope="x", name="champion", adapter=adapter)

    def break_audit() -> None:
        for n in range(3):
            chains.record(brand=people.brand, actor="ops", action="plan approved", payload={"n": n})
        AuditEntry.objects.filter(sequence=3).delete()

    ways = {
        "broker": lambda: monkeypatch.setattr(redis.Redis, "ping", raising(redis.ConnectionError("refused"))),
        "beat": lambda: PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(minutes=5)),
        "worker": lambda: Heartbeat.objects.update(at=timezone.now() - timedelta(minutes=5)),
        "queue": break_queue,
        "inference": lambda: monkeypatch.setattr(health.Client, "get", raising(health.HTTPError("refused"))),
        "adapters": break_adapters,
        "disk": lambda: monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, 2**20)),
        "files": lambda: monkeypatch.setattr(health.os, "access", lambda *_: False),
        "secrets": lambda: WebhookFactory(brand=people.brand, sealed_secret=sealing.seal("s", "another")),
        "audit": break_audit,
        "cache": lambda: monkeypatch.setattr(type(cache._connections[cache._alias]), "get", lambda *_, **__: None),
    }  # fmt: skip
    ways[part]()
    told = wrong()
    assert set(told) == {part}
    assert told[part]["cause"]
    assert told[part]["next"]
    page = people.web(people.ops).get("/health/")
    assert page.status_code == 200
    assert told[part]["next"][:20] in page.content.decode().replace("&#x27;", "'")


def test_a_queue_that_no_worker_takes_from_is_named(well: None) -> None:
    Heartbeat.objects.filter(name="train").update(at=timezone.now() - timedelta(minutes=1))
    assert wrong()["worker"]["cause"].startswith("no worker has taken from train since ")
    assert "-Q train" in wrong()["worker"]["next"]


def test_an_old_line_changed_unseen_is_named_once_the_chain_was_walked(
    well: None, people: People, tmp_path: Path
) -> None:
    for n in range(3):
        chains.record(brand=people.brand, actor="ops", action="plan approved", payload={"n": n})
    AuditEntry.objects.filter(sequence=2).update(payload={"n": 9})
    assert chains.check("acme")["broken"] == 2
    assert wrong()["audit"]["cause"] == "the audit chain is broken, acme: line 2: its content was changed"
    AuditEntry.objects.filter(sequence=2).update(payload={"n": 1})
    chains.check("acme")
    assert wrong() == {}


def test_a_chain_whose_head_was_taken_away_is_named(well: None, people: People) -> None:
    chains.record(brand=people.brand, actor="ops", action="plan approved")
    AuditHead.objects.filter(chain="acme").delete()
    assert wrong()["audit"]["cause"].endswith("acme: the chain's head was taken away")


def test_causes_are_for_those_who_may_look_inside(well: None, people: People) -> None:
    outside = Client().get("/readyz", REMOTE_ADDR="203.0.113.9").json()
    assert outside == {"status": "ready"}
    assert people.web(people.owner).get("/health/").status_code == 403


def test_metrics_count_runs_and_name_parts(well: None, people: People) -> None:
    CurveFitFactory(brand=people.brand, status="failed")
    told = Client().get("/metrics").content.decode()
    assert 'rmn_runs{kind="curvefit",status="failed"} 1.0' in told
    assert 'rmn_part_ok{part="broker"} 1.0' in told


def broken_tables(*_: Any) -> Any:
    raise ProgrammingError('column "number" does not exist')


@pytest.mark.parametrize("path", ["/", "/api/v1/campaigns/"])
def test_an_error_of_the_tables_while_a_release_changes_them_is_a_wait_and_not_a_fault(
    path: str, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmn.views.waiting", broken_tables)
    monkeypatch.setattr("rmn.lib.rest.Rows.get_queryset", broken_tables)
    client = people.web(people.owner)
    client.raise_request_exception = False
    monkeypatch.setattr(health, "migrations", lambda: {"ok": False})
    answer = client.get(path)
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert "upgrade is under way" in answer.content.decode()
    monkeypatch.setattr(health, "migrations", lambda: {"ok": True})
    monkeypatch.setattr(health, "JUST_UPGRADED", timedelta(0))
    assert client.get(path).status_code == 500

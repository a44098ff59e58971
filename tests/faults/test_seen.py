"""Each part of a whole system is broken for real: the health answer names it, with cause and next step."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stack import Stack, free_port, postgres_programs, running, until
from tests.faults.test_stack import SLOW, told

SHIFT = (
    "update feedback_export set status = 'queued', queued_at = queued_at - interval '1 hour' where status = 'queued'"
)
SEED = "import json; from benchmarks import seed; print(json.dumps(seed.fill(brands=1, campaigns=2, days=2)))"
ROWS = """
import json
from django.contrib.auth.models import User
from agents.models import AdapterAlias
from feedback import services
from retailers import audit
from retailers.models import Brand, Webhook
from rmn.lib import sealing, tenancy
from tests import factories
with tenancy.everyone():
    brand = Brand.objects.get()
    {what}
print(json.dumps("done"))
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL's server programs are not installed")
    folder, port = tmp_path_factory.mktemp("model"), free_port()
    (folder / "health").write_text("{}")
    with running(
        environment={"RMN_INFERENCE_URL": f"http://127.0.0.1:{port}"}, web=1, threads=4, concurrency=1
    ) as found:
        server = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
        found.child("inference", server, lambda: _get(f"http://127.0.0.1:{port}/health")[0] == 200).start()
        found.ask(SEED)
        yield found


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, "{}"


def wrong(stack: Stack) -> dict[str, Any]:
    said = _get(stack.url + "/readyz")[1]  # a page of words while it cannot even say what is wrong
    checks = (json.loads(said) if said.startswith("{") else {}).get("checks") or {"nothing": {"ok": False}}
    return {name: one for name, one in checks.items() if not one["ok"]}


def rows(stack: Stack, what: str) -> None:
    stack.ask(ROWS.format(what=what))


def faults(stack: Stack) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """By part: how it is broken, and how that is taken back."""
    files = Path(stack.folder) / "files"

    def hide_files() -> None:
        files.mkdir(exist_ok=True)
        files.rename(files.with_name("hidden"))
        files.write_text("in the way")

    def show_files() -> None:
        files.unlink()
        files.with_name("hidden").rename(files)

    def wait_long() -> None:
        stack.kill("worker-0")
        stack.kill("beat-0")
        rows(stack, 'services.request_export(brand=brand, by=User.objects.get(username="ops"), format="csv")')
        stack.sql(SHIFT)
        stack.sql("update rmn_heartbeat set at = now() + interval '1 hour'")  # a worker that takes nothing
        stack.sql("update django_celery_beat_periodictask set last_run_at = now() + interval '1 hour'")

    def go_on() -> None:
        stack.sql("update django_celery_beat_periodictask set last_run_at = now()")
        stack.again("worker-0")
        stack.again("beat-0")

    def cut_tail() -> None:
        rows(stack, '[audit.record(brand=brand, actor="ops", action="plan approved") for _ in range(3)]')
        stack.sql("set session_replication_role = replica; create table kept as select * from retailers_auditentry where chain = 'brand-0' and sequence = 3; delete from retailers_auditentry where chain = 'brand-0' and sequence = 3")  # fmt: skip

    def mend_tail() -> None:
        stack.sql(
            "set session_replication_role = replica; insert into retailers_auditentry select * from kept; drop table kept"
        )

    return {
        "worker": (lambda: stack.kill("worker-0"), lambda: stack.again("worker-0")),
        "beat": (lambda: stack.kill("beat-0"), lambda: stack.again("beat-0")),
        "broker": (lambda: stack.kill("broker"), lambda: stack.again("broker")),
        "inference": (lambda: stack.kill("inference"), lambda: stack.again("inference")),
        "adapters": (
            lambda: rows(stack, 'AdapterAlias.objects.create(brand=brand, scope="x", name="champion", adapter=factories.AdapterFactory(brand=brand))'),
            lambda: rows(stack, "AdapterAlias.objects.all().delete()"),
        ),
        "files": (hide_files, show_files),
        "secrets": (
            lambda: rows(stack, 'Webhook.objects.create(brand=brand, url="https://example.com/", sealed_secret=sealing.seal("s", "another"))'),
            lambda: rows(stack, "Webhook.objects.all().delete()"),
        ),
        "audit": (cut_tail, mend_tail),
        "queue": (wait_long, go_on),
        "migrations": (
            lambda: stack.command("migrate", "feedback", "0002", "--verbosity", "0"),
            lambda: stack.command("migrate", "--verbosity", "0"),
        ),
        "database": (lambda: stack.kill("database"), lambda: stack.again("database")),
    }  # fmt: skip


def test_each_fault_is_named_with_cause_and_next_step_soon_after_it(stack: Stack) -> None:
    """Eleven parts broken one after the other (29); a full disk is staged in tests/test_health.py."""
    until(lambda: not wrong(stack), 120 * SLOW, "all parts work", every=0.5)
    seen: dict[str, float] = {}
    for part, (harm, mend) in faults(stack).items():
        harm()
        started = time.monotonic()
        found = until(lambda part=part: wrong(stack).get(part), 60 * SLOW, f"{part} is named", every=0.5)
        seen[part] = time.monotonic() - started
        assert found["cause"]
        assert found["next"]
        mend()
        until(lambda: not wrong(stack), 120 * SLOW, f"{part} works again", every=0.5)
    assert len(seen) >= 10
    told("29", f"{len(seen)} faults, each named with cause and next step; seconds until then: {', '.join(f'{part} {s:.0f}' for part, s in seen.items())}")  # fmt: skip

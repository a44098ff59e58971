"""Is it alive, is it ready, and if not: what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_GET
from httpx2 import Client, HTTPError

from rmn.models import Heartbeat


@require_GET
def healthz(request: HttpRequest) -> JsonResponse:  # noqa: ARG001
    return JsonResponse({"status": "live"})


@require_GET
def readyz(request: HttpRequest) -> JsonResponse:  # noqa: ARG001
    """200 when the site can do its work; each part says its cause and next step when it cannot."""
    checks = {name: _ask(check) for name, check in CHECKS.items()}
    needed = all(checks[name]["ok"] for name in ("database", "migrations"))
    whole = all(check["ok"] for check in checks.values())
    status = "ready" if whole else "degraded" if needed else "not ready"
    return JsonResponse({"status": status, "checks": checks}, status=200 if needed else 503)


def _ask(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return check()
    except (DatabaseError, OSError, redis.RedisError, HTTPError) as error:
        return {
            "ok": False,
            "cause": f"{type(error).__name__}: {str(error)[:200]}",
            "next": NEXT.get(check.__name__, "see the log"),
        }


def database() -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return {"ok": True, "engine": connection.vendor}


def migrations() -> dict[str, Any]:
    executor = MigrationExecutor(connection)
    missing = [f"{m.app_label}.{m.name}" for m, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    if missing:
        return {
            "ok": False,
            "cause": f"{len(missing)} not applied, first {missing[0]}",
            "next": "python manage.py migrate",
        }
    return {"ok": True}


def broker() -> dict[str, Any]:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=1)
    try:
        client.ping()
    finally:
        client.close()
    return {"ok": True}


def worker() -> dict[str, Any]:
    beat = Heartbeat.objects.filter(name="worker").first()
    if beat is None or beat.at < timezone.now() - timedelta(seconds=90):
        seen = f"last seen {beat.at:%Y-%m-%d %H:%M:%S} UTC" if beat else "never seen"
        return {"ok": False, "cause": seen, "next": "start a worker and beat: make run, or celery -A rmn worker -B"}
    return {"ok": True}


def inference() -> dict[str, Any]:
    if not settings.RMN_INFERENCE_URL:
        return {
            "ok": False,
            "cause": "RMN_INFERENCE_URL is not set",
            "next": "make run starts our server; or set the variable",
        }
    with Client(timeout=2) as client:
        answer = client.get(settings.RMN_INFERENCE_URL.rstrip("/") + "/health")
    if answer.status_code != 200:
        return {"ok": False, "cause": f"/health answered {answer.status_code}", "next": NEXT["inference"]}
    return {"ok": True}


CHECKS = {f.__name__: f for f in (database, migrations, broker, worker, inference)}
NEXT = {
    "database": "check DATABASE_URL and that the server runs",
    "migrations": "check DATABASE_URL, then python manage.py migrate",
    "broker": "check REDIS_URL; make run starts the embedded one; queued work waits in its Run rows",
    "worker": "check the database, then start a worker",
    "inference": "check RMN_INFERENCE_URL and the server's log",
}

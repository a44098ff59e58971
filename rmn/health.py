"""Is it alive, is it ready, and if not: what is wrong and what to do."""

from __future__ import annotations

import hmac
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from django.core.cache import cache
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Count, Min
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET
from django_celery_beat.models import PeriodicTask
from django_prometheus.exports import ExportToDjangoView
from httpx2 import Client, HTTPError
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from agents.models import AdapterAlias
from retailers import audit as chains
from retailers.models import Webhook
from rmn.lib import runs, sealing, tenancy
from rmn.lib.errors import NotConfigured
from rmn.lib.http import staff_only
from rmn.models import Heartbeat

JUST_UPGRADED = timedelta(minutes=1)


@require_GET
@transaction.non_atomic_requests
def healthz(request: HttpRequest) -> JsonResponse:  # noqa: ARG001
    return JsonResponse({"status": "live"})


def _may_look_inside(request: HttpRequest) -> bool:
    """Who has the token of RMN_METRICS_TOKEN; without one set, this machine, unless it asks for somebody else."""
    said = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if settings.RMN_METRICS_TOKEN:
        return hmac.compare_digest(said.encode(), settings.RMN_METRICS_TOKEN.encode())
    return request.META.get("REMOTE_ADDR") in ("127.0.0.1", "::1") and "X-Forwarded-For" not in request.headers


@require_GET
@transaction.non_atomic_requests
def metrics(request: HttpRequest) -> HttpResponse:
    """For Prometheus: Django's figures, and ours on runs and parts."""
    if not _may_look_inside(request):
        return HttpResponse(
            "metrics: send the token of RMN_METRICS_TOKEN as bearer\n", status=401, content_type="text/plain"
        )
    answer: HttpResponse = ExportToDjangoView(request)
    answer.content += generate_latest(_ours())
    return answer  # fmt: skip


def _ours() -> CollectorRegistry:
    registry = CollectorRegistry()
    count = Gauge("rmn_runs", "Runs that wait, work or have failed.", ["kind", "status"], registry=registry)
    oldest = Gauge("rmn_oldest_queued_seconds", "Age of the oldest run that waits.", ["kind"], registry=registry)
    ok = Gauge("rmn_part_ok", "1 where a part of the system works.", ["part"], registry=registry)
    now = timezone.now()
    told = parts()
    for name, one in told.items():
        ok.labels(name).set(1 if one["ok"] else 0)
    if not told["database"]["ok"] or not told["migrations"]["ok"]:
        return registry  # there are no rows to count; the parts say why
    with tenancy.everyone():
        for model in runs.kinds():
            kind = model._meta.model_name
            rows = model.objects.filter(status__in=["queued", "running", "failed"]).order_by()
            for row in rows.values("status").annotate(n=Count("pk")):
                count.labels(kind, row["status"]).set(row["n"])
            first = model.objects.filter(status="queued").aggregate(at=Min("queued_at"))["at"]
            oldest.labels(kind).set((now - first).total_seconds() if first else 0)
    return registry


def parts() -> dict[str, dict[str, Any]]:
    """Every part: whether it works, and if not, why and what to do; also while the database is away."""
    try:
        with tenancy.everyone():
            return {name: _ask(check) for name, check in CHECKS.items()}
    except DatabaseError:  # the connection kept from the last request is dead, and takes no scope
        connection.close()
        with tenancy.everyone():
            return {name: _ask(check) for name, check in CHECKS.items()}


@require_GET
@transaction.non_atomic_requests
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when the site can do its work; causes and next steps for those who may look inside."""
    checks = parts()
    needed = all(checks[name]["ok"] for name in ("database", "migrations"))
    whole = all(check["ok"] for check in checks.values())
    body: dict[str, Any] = {"status": "ready" if whole else "degraded" if needed else "not ready"}
    if _may_look_inside(request):
        body["checks"] = checks
    return JsonResponse(body, status=200 if needed else 503)


@require_GET
@staff_only
def page(request: HttpRequest) -> HttpResponse:
    """The same for ops staff, on a page."""
    return render(request, "health.html", {"parts": parts()})


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


def is_upgrading() -> bool:
    """Whether the tables are not yet this release's, or have been for less than a minute: an error of theirs may be no fault."""
    try:
        if not migrations()["ok"]:
            return True
        lately = timezone.now() - JUST_UPGRADED
        return MigrationRecorder(connection).migration_qs.filter(applied__gt=lately).exists()
    except DatabaseError:  # not even the list of migrations can be read
        return False


def broker() -> dict[str, Any]:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=1)
    try:
        client.ping()
    finally:
        client.close()
    return {"ok": True}


def worker() -> dict[str, Any]:
    seen = {sign.name: sign.at for sign in Heartbeat.objects.filter(name__in=QUEUES)}
    quiet = [name for name in QUEUES if name not in seen or seen[name] < timezone.now() - SILENT]
    if quiet:
        last = max((seen[name] for name in quiet if name in seen), default=None)
        since = f"since {last:%Y-%m-%d %H:%M:%S} UTC" if last else "yet"
        words = "all queues" if len(quiet) == len(QUEUES) else ", ".join(quiet)
        return _bad(
            f"no worker has taken from {words} {since}",
            f"start a worker: make run, or celery -A rmn worker -Q {','.join(quiet)}",
        )
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


def beat() -> dict[str, Any]:
    last = PeriodicTask.objects.filter(name="sweep").values_list("last_run_at", flat=True).first()  # every ten seconds
    if last is None or last < timezone.now() - SILENT:
        return _bad(
            f"no tick since {last:%Y-%m-%d %H:%M:%S} UTC" if last else "it never ran",
            "start a beat: make run, or celery -A rmn beat",
        )
    return {"ok": True}


def queue() -> dict[str, Any]:
    now = timezone.now()
    ages = {
        model.words or model.__name__: model.objects.filter(status="queued", queued_at__lt=now - WAITS_TOO_LONG).count()
        for model in runs.kinds()
    }
    slow = {words: n for words, n in ages.items() if n}
    if slow:
        words = ", ".join(f"{n} of '{words}'" for words, n in slow.items())
        return _bad(f"waiting for over ten minutes: {words}", "start a worker for their queue, or more of them")
    return {"ok": True}


def disk() -> dict[str, Any]:
    free = shutil.disk_usage(settings.VAR).free
    if free < LEAST_FREE:
        return _bad(
            f"{free / 2**20:,.0f} MB are free under {settings.VAR.name}",
            "make room: old backups and var/training first",
        )
    return {"ok": True, "free_mb": free // 2**20}


def files() -> dict[str, Any]:
    for folder in (Path(settings.MEDIA_ROOT), Path(settings.RMN_ADAPTERS)):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return _bad(f"{folder.name} cannot be written to", "give the service's user write access to it")
    return {"ok": True}


def adapters() -> dict[str, Any]:
    used = AdapterAlias.objects.filter(name="champion").exclude(adapter=None).values_list("adapter__digest", flat=True)
    lost = [
        digest[:12]
        for digest in used
        if not (Path(settings.RMN_ADAPTERS) / digest / "adapter_model.safetensors").is_file()
    ]
    if lost:
        return _bad(
            f"{len(lost)} that serve are not in the adapters folder, first {lost[0]}",
            "restore the folder from a backup, or roll the alias back",
        )
    return {"ok": True}


def secrets() -> dict[str, Any]:
    for hook in Webhook.objects.exclude(sealed_secret="").select_related("brand")[:1]:
        try:
            sealing.unseal(hook.sealed_secret, str(hook.brand.uuid))
        except NotConfigured as error:
            return _bad(str(error), "set RMN_DATA_KEY to the key it was, or enter the secrets again")
    return {"ok": True}


def audit() -> dict[str, Any]:
    wrong = chains.first_wrong()
    if wrong:
        return _bad(
            f"the audit chain is broken, {wrong}",
            "keep the database as it is; manage.py verify_audit --head FILE says since when, then restore a backup",
        )
    return {"ok": True}


def kept() -> dict[str, Any]:
    cache.set("health", "1", 5)
    if cache.get("health") != "1":
        return _bad(
            "the cache does not keep what it is given", "check RMN_CACHE_URL; requests go on without allowances"
        )
    return {"ok": True}


def _bad(cause: str, step: str) -> dict[str, Any]:
    return {"ok": False, "cause": cause, "next": step}


WAITS_TOO_LONG = timedelta(minutes=10)
LEAST_FREE = 2**30
SILENT = timedelta(seconds=25)  # a worker and a beat give a sign every ten
QUEUES = sorted(
    {settings.CELERY_TASK_DEFAULT_QUEUE, *(route["queue"] for route in settings.CELERY_TASK_ROUTES.values())}
)
PARTS = (database, migrations, broker, beat, worker, queue, inference, adapters, disk, files, secrets, audit, kept)
CHECKS = {("cache" if f is kept else f.__name__): f for f in PARTS}
NEXT = {
    "database": "check DATABASE_URL and that the server runs",
    "migrations": "check DATABASE_URL, then python manage.py migrate",
    "broker": "check REDIS_URL; make run starts the embedded one; queued work waits in its Run rows",
    "worker": "check the database, then start a worker",
    "beat": "check the database, then start a beat",
    "queue": "check the database",
    "adapters": "check the database",
    "secrets": "check the database",
    "audit": "check the database",
    "inference": "check RMN_INFERENCE_URL and the server's log",
    "kept": "check RMN_CACHE_URL; requests go on without allowances",
    "files": "give the service's user write access to the files and adapters folders",
}

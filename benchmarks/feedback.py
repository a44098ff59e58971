"""The review screen's pace, the load of forty answers a second, and the dashboard over a million answers.

Runs on a database of its own: SQLite in a temporary folder, or what RMN_BENCH_DATABASE_URL names (an empty
database that may be filled). The site is gunicorn with threads on loopback; database, server and whoever asks
share the machine. Requests arrive by the clock, whether or not the last one was answered, and a request's time
counts from when it was due.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from benchmarks.harness import Row

ALONE = True  # minutes, and a database of its own
BRANDS, READERS, DRAFTS, ADAPTERS = 10, 20, 20_000, 5
WRITES, READS = 40, 80  # a second
ROOT = Path(__file__).resolve().parent.parent
NOTE = "Ten brands; all of the dashboard's answers are of one of them. p95 over all requests of a kind."


def rows(size: str) -> list[Row]:
    full = size == "full"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RMN_VAR"] = folder
        os.environ["DATABASE_URL"] = os.environ.get("RMN_BENCH_DATABASE_URL") or f"sqlite:///{folder}/db.sqlite3"
        os.environ.setdefault("SECRET_KEY", "only-for-the-benchmark-0123456789-0123456789-0123456789")
        os.environ["DJANGO_SETTINGS_MODULE"] = "rmn.settings"
        os.environ |= {"RMN_REQUIRE_OTP": "False", "SECURE_SSL_REDIRECT": "False", "DEBUG": "False"}
        os.environ |= {"RMN_LOG_LEVEL": "ERROR", "ALLOWED_HOSTS": "127.0.0.1,testserver", "RMN_API_RATE": "6000/min"}
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection

        from rmn.lib import tenancy

        with tenancy.everyone():
            call_command("migrate", verbosity=0)
            call_command("collectstatic", verbosity=0, interactive=False)
            people()
            engine = connection.vendor
            with site() as port:
                found = _pace(engine, port, 60 if full else 20)
                found += _load(engine, port, 120 if full else 20)
            many = 1_000_000 if full else 50_000
            fill(many)
            found += _dashboard(engine, many)
    return found


def people() -> None:
    from django.contrib.auth.models import User

    from campaigns.models import Recommendation
    from feedback import services
    from retailers.models import Brand, Membership

    for number in range(BRANDS):
        brand = Brand.objects.create(slug=f"brand-{number}", name=f"Brand {number}")
        for reader in range(READERS if not number else 1):
            user = User.objects.create_user(f"reader-{number}-{reader}")
            Membership.objects.create(user=user, brand=brand, role="marketer")
        drafts = Recommendation.objects.bulk_create(
            Recommendation(
                brand=brand, task="creative", title=f"Headline {n}", text=f"Sparkling water number {n}, crisp and plain",
                prompt=f"A headline for product {n // 2}", prompt_cluster=str(n // 2), source="agent", adapter_digest=f"{n % 2:x}" * 64,
            )
            for n in range(400)
        )  # fmt: skip
        for one, other in itertools.batched(drafts, 2) if hasattr(itertools, "batched") else zip(drafts[::2], drafts[1::2]):  # fmt: skip
            services.ask(recommendation=one, other=other, kind="pair")


@contextmanager
def site() -> Iterator[int]:
    """The site on a free port, as ``serve`` starts it, with a second process."""
    from rmn.lib.processes import free_port

    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "rmn.wsgi", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "2", "--workers", "2", "--log-level", "error"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ.copy())
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/healthz")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def p95(times: list[float]) -> float:
    return float(np.quantile(times, 0.95)) if times else float("nan")


# -- the pace of a reader

WATCH = """() => {
  window.times = []; let began = null;
  document.addEventListener("keydown", () => { began = performance.now(); }, { capture: true });
  document.addEventListener("htmx:afterSettle", () => requestAnimationFrame(() => {
    if (began !== null) { window.times.push(performance.now() - began); began = null; }
  }));
}"""


def _pace(engine: str, port: int, seconds: int) -> list[Row]:
    """One judgement a second with one key each, by a browser; the next pair must stand on the screen."""
    from django.contrib.auth.models import User
    from django.test import Client
    from playwright.sync_api import sync_playwright

    from feedback.models import Feedback

    client = Client()
    client.force_login(User.objects.get(username="reader-1-0"), backend="django.contrib.auth.backends.ModelBackend")
    key, url = client.cookies["sessionid"].value, f"http://127.0.0.1:{port}"
    names = [os.environ.get("RMN_CHROMIUM"), "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
    where = next(name for name in names if name and Path(name).exists())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=where, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_cookies([{"name": "sessionid", "value": key, "url": url}])
        page = context.new_page()
        page.goto(f"{url}/feedback/brand-1/creative/?kind=pair")
        page.wait_for_load_state("networkidle")
        page.evaluate(WATCH)
        started = time.monotonic()
        for number in range(seconds):
            page.keyboard.press(random.choice("1234530"))
            page.wait_for_function("n => window.times.length > n", arg=number)
            time.sleep(max(0.0, started + number + 1 - time.monotonic()))
        took = time.monotonic() - started
        times = page.evaluate("window.times")
        browser.close()
    kept = Feedback.objects.filter(by__username="reader-1-0").count()
    worst = p95(times)
    return [
        Row(f"{engine}: key pressed to next pair drawn, p95 of {len(times)}", worst, "ms", "median", float(np.median(times)), "at most 150", worst <= 150),
        Row(f"{engine}: pairs judged and kept in a minute", kept * 60 / took, "pairs", bar="at least 60", holds=kept == seconds and kept * 60 / took >= 59.5),
    ]  # fmt: skip


# -- the load of promise 21

Send = Callable[[http.client.HTTPConnection], tuple[str, int]]


def _load(engine: str, port: int, seconds: int) -> list[Row]:
    """Writes and reads by the clock, then four times as many for ten seconds, then as before again."""
    from django.contrib.auth.models import User
    from rest_framework_simplejwt.tokens import RefreshToken

    from campaigns.models import Recommendation
    from feedback.models import Feedback

    tokens, drafts = [], []
    for number in range(BRANDS):
        user = User.objects.get(username=f"reader-{number}-0")
        tokens.append(str(RefreshToken.for_user(user).access_token))
        own = Recommendation.objects.filter(brand__slug=f"brand-{number}")
        drafts.append([str(key) for key in own.values_list("uuid", flat=True)[:200]])
    before = Feedback.objects.count()

    def write(connection: http.client.HTTPConnection) -> tuple[str, int]:
        brand = random.randrange(BRANDS)
        body = {"recommendation": random.choice(drafts[brand]), "kind": "thumb", "value": random.choice((1, -1))}
        return "write", _ask(connection, "POST", "/api/v1/feedback/", tokens[brand], body)

    reads = ("feedback/", "feedback/stats/", "recommendations/", "review-tasks/")

    def read(connection: http.client.HTTPConnection) -> tuple[str, int]:
        brand = random.randrange(BRANDS)
        # one in sixteen asks for the statistics: people look at figures less than programs look at lists
        path = "feedback/stats/" if random.random() < 1 / 16 else random.choice((reads[0], *reads[2:]))
        return "read", _ask(connection, "GET", f"/api/v1/{path}", tokens[brand])

    _arrive(port, 5, [(write, WRITES / 4), (read, READS / 4)])  # processes warm up
    steady = _arrive(port, seconds, [(write, WRITES), (read, READS)])
    burst = _arrive(port, 10, [(write, 4 * WRITES), (read, 4 * READS)])
    after = _arrive(port, 10, [(write, WRITES), (read, READS)])
    warm = Feedback.objects.count()
    found = []
    for kind in ("write", "read"):
        times = [took for name, _, took in steady if name == kind]
        rate = len(times) / seconds
        worst = p95(times) * 1000
        top = float(np.quantile(times, 0.99)) * 1000
        found.append(Row(f"{engine}: {rate:.0f} {kind}s a second for {seconds} s, p95", worst, "ms", "p99", top, "p95 at most 300, p99 at most 800", worst <= 300 and top <= 800))  # fmt: skip
    bad = [status for _, status, _ in steady if status not in (200, 201)]
    found.append(
        Row(
            f"{engine}: errors among {len(steady):,} requests {dict(Counter(bad)) or ''}".rstrip(),
            len(bad),
            "",
            bar="0",
            holds=not bad,
        )
    )
    statuses = Counter(status for _, status, _ in burst)
    odd = sum(n for status, n in statuses.items() if status not in (200, 201, 429))
    slow = p95([took for *_, took in burst]) * 1000
    found.append(Row(f"{engine}: 4 times as many for 10 s, p95 (429: {statuses[429]})", slow, "ms", "errors beside 429", odd, "only slow or 429", not odd))  # fmt: skip
    again = p95([took for *_, took in after]) * 1000
    found.append(Row(f"{engine}: in the ten seconds after, p95", again, "ms", bar="recovers within 60 s", holds=again <= 300))  # fmt: skip
    kept = sum(status == 201 for part in (steady, burst, after) for _, status, _ in part)
    lost = kept - (warm - before)
    found.append(Row(f"{engine}: answers acknowledged and not there, of {kept:,}", max(lost, 0), "", bar="0", holds=lost <= 0))  # fmt: skip
    return found


def _ask(connection: http.client.HTTPConnection, method: str, path: str, token: str, body: Any = None) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0
    return answer.status


def _arrive(port: int, seconds: int, rates: list[tuple[Send, float]]) -> list[tuple[str, int, float]]:
    """Requests of each kind at its rate, evenly in time: kind, status, seconds from when it was due."""
    due = sorted(((n / rate, send) for send, rate in rates for n in range(int(seconds * rate))), key=lambda one: one[0])
    waiting: queue.SimpleQueue[tuple[float, Send] | None] = queue.SimpleQueue()
    found: list[tuple[str, int, float]] = []

    def work() -> None:
        connection, used = http.client.HTTPConnection("127.0.0.1", port, timeout=60), 0.0
        while (one := waiting.get()) is not None:
            at, send = one
            if time.monotonic() - used > 1:  # the server closes what is idle for two seconds
                connection.close()
            kind, status = send(connection)
            used = time.monotonic()
            found.append((kind, status, used - at))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(48)]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    for offset, send in due:
        time.sleep(max(0.0, started + offset - time.monotonic()))
        waiting.put((started + offset, send))
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        thread.join()
    return found


# -- the dashboard


def fill(count: int) -> None:
    """So many answers of one brand's readers, a year of them, most on pairs."""
    from django.contrib.auth.models import User
    from django.db import connection, transaction

    from campaigns.models import Recommendation
    from feedback.models import Feedback
    from retailers.models import Brand
    from rmn import backup

    brand = Brand.objects.get(slug="brand-0")
    readers = list(User.objects.filter(username__startswith="reader-0-").values_list("pk", flat=True))
    old = Recommendation.objects.filter(brand=brand).count()
    Recommendation.objects.bulk_create(
        (
            Recommendation(
                brand=brand, task="creative", title=f"H {n}", text="Sparkling water, crisp and plain" + "!" * (n % 30),
                prompt_cluster=str(n // ADAPTERS), source="agent", adapter_digest=f"{n % ADAPTERS:x}" * 64,
                status="withdrawn" if n % 500 == 0 else "offered",
            )
            for n in range(min(DRAFTS, max(count // 50, 1000)))
        ),
        batch_size=2000,
    )  # fmt: skip
    drafts = list(Recommendation.objects.filter(brand=brand).order_by("pk").values_list("pk", "adapter_digest")[old:])
    fields = [field.attname for field in Feedback._meta.concrete_fields]
    plain = {
        field.attname: field.get_default() for field in Feedback._meta.concrete_fields if not field.primary_key
    } | {"brand_id": brand.pk, "task": "creative", "origin": "human"}
    first = (Feedback.objects.order_by("-pk").values_list("pk", flat=True).first() or 0) + 1
    rng, now = random.Random(0), datetime.now(UTC)

    def made() -> Iterator[list[Any]]:
        for n in range(count):
            at = (now - timedelta(days=365) * (1 - n / count)).isoformat()
            one, digest = drafts[n // 3 % len(drafts)]
            row = plain | {
                "id": first + n, "uuid": str(UUID(int=n + 1)), "created_at": at, "by_id": rng.choice(readers),
                "recommendation_id": one, "adapter_digest": digest, "reasons": [], "sampling": {}, "seconds": 4.0 + n % 7, "kind": "thumb",
                "undone_at": at if n % 200 == 0 else None,
            }  # fmt: skip
            if n % 10 < 6:
                other, other_digest = drafts[(n // 3 + 1) % len(drafts)]
                row |= {"kind": "pair", "other_id": other, "other_adapter_digest": other_digest, "shown_first": rng.choice("ab")}  # fmt: skip
                row["outcome"] = rng.choices(("a", "b", "tie", "both_bad"), (0.45, 0.4, 0.1, 0.05))[0]
            elif n % 10 < 8:
                row["value"] = rng.choice((1, 1, 1, -1))
            else:
                row |= {"kind": "rating", "value": rng.choice((2, 3, 4, 4, 5))}
            yield [row[name] for name in fields]

    with transaction.atomic():
        backup._insert(Feedback, made(), lambda _: None)
        backup._reset_sequences()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _dashboard(engine: str, count: int) -> list[Row]:
    """The page as a reader and as a lead open it, with and without filters; nothing kept from the ask before."""
    from django.contrib.auth.models import User
    from django.core.cache import cache
    from django.test import Client

    from feedback import figures
    from retailers.models import Brand, Membership

    figures.count_up(Brand.objects.get(slug="brand-0"))
    lead = User.objects.create_superuser("lead")
    Membership.objects.create(user=lead, role="ops")
    addresses = (
        "",
        "?brand=brand-0",
        "?period=30",
        "?task=creative",
        f"?adapter={'1' * 64}",
        "?period=7&task=creative",
    )
    times: dict[str, list[float]] = {}
    for name in ("reader-0-0", "lead"):
        client = Client()
        client.force_login(User.objects.get(username=name), backend="django.contrib.auth.backends.ModelBackend")
        client.get("/dashboard?period=7")  # templates compile once
        for address in addresses * 4:
            cache.clear()
            started = time.perf_counter()
            assert client.get(f"/dashboard{address}").status_code == 200
            took = time.perf_counter() - started
            times.setdefault(name, []).append(took)
            print(f"{name} {address or '(all)'}: {took * 1000:.0f} ms", file=sys.stderr)
    return [
        Row(f"{engine}: dashboard of a {who} over {count:,} answers, nothing kept, p95", p95(times[name]) * 1000, "ms", "median", float(np.median(times[name])) * 1000, "at most 500", p95(times[name]) <= 0.5)
        for name, who in (("reader-0-0", "reader"), ("lead", "lead"))
    ]  # fmt: skip

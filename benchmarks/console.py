"""The console with a million metric rows and ten thousand campaigns: pages, growth, backup and restore.

Runs on a database of its own: SQLite in a temporary folder, or what RMN_BENCH_DATABASE_URL names (an empty
database that may be filled). Pages are asked through Django's test client, so the network is left out; each is
asked again with its caches empty and then warm, and the 95th percentile is over all asks of a page.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.harness import Row, seconds

ALONE = True  # minutes, and a database of its own
BRANDS, RETAILERS, CAMPAIGNS, DAYS = 20, 5, 10_000, 100
PAGES_ASKED = 5
ROOT = Path(__file__).resolve().parent.parent
NOTE = (
    "20 brands, 10,000 campaigns, one metric row per campaign and day. Bar of the pages: 300 ms at the 95th percentile."
)


def rows(size: str) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RMN_VAR"] = folder
        os.environ["DATABASE_URL"] = os.environ.get("RMN_BENCH_DATABASE_URL") or f"sqlite:///{folder}/db.sqlite3"
        os.environ.setdefault("SECRET_KEY", "only-for-the-benchmark-0123456789-0123456789-0123456789")
        os.environ["DJANGO_SETTINGS_MODULE"] = "rmn.settings"
        os.environ["RMN_REQUIRE_OTP"] = os.environ["SECURE_SSL_REDIRECT"] = "False"
        os.environ["RMN_LOG_LEVEL"], os.environ["ALLOWED_HOSTS"] = "ERROR", "testserver"
        import django

        django.setup()
        from rmn.lib import tenancy

        with tenancy.everyone():
            return _measured(Path(folder), 1_000_000 if size == "full" else 50_000)


def _measured(folder: Path, most: int) -> list[Row]:
    from django.core.management import call_command
    from django.db import connection

    from rmn import backup

    call_command("migrate", verbosity=0)
    engine = connection.vendor
    found: list[Row] = []
    people()
    had = 0
    for count in sorted({most // 100, most // 10, most}):
        took, _ = seconds(lambda had=had, count=count: fill(had, count))
        print(f"{count:,} rows there after {took:.0f} s", file=sys.stderr)
        had = count
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        pages = asked()
        last = count == most
        worst = max(pages, key=lambda name: pages[name][1])
        for name, title in {
            "first page": "first page",
            "metrics": "metrics",
            "campaigns": "campaigns",
            worst: f"slowest of {len(pages)} console pages ({worst})",
        }.items():
            first, later = pages[name]
            found.append(
                Row(
                    f"{engine}, {count:,} rows: {title}, p95",
                    later * 1000,
                    "ms",
                    "its first ask, nothing kept",
                    first * 1000,
                    "at most 300" if last else "",
                    later <= 0.3 if last else None,
                )
            )
    target = folder / "saved"
    took, manifest = seconds(lambda: backup.dump(target))
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    total = sum(told["rows"] for told in manifest["tables"].values())
    found.append(Row(f"{engine}: backup of {total:,} rows ({size / 2**20:.0f} MB)", took, "s"))
    for url in [f"sqlite:///{folder}/again.sqlite3", *filter(None, [os.environ.get("RMN_BENCH_RESTORE_URL")])]:
        environment = {**os.environ, "RMN_VAR": str(folder / "again"), "DATABASE_URL": url}
        command = [sys.executable, "manage.py", "restore", str(target)]
        took, done = seconds(
            lambda c=command, e=environment: subprocess.run(
                c, env=e, cwd=ROOT, capture_output=True, text=True, check=True
            )
        )
        told = json.loads(done.stdout)
        whole = told["rows"] == total and not told["chains"]["broken"]
        where = url.partition(":")[0]
        found.append(
            Row(
                f"{engine} to {where}: restore of {told['rows']:,} rows, {told['chains']['whole']} chains checked",
                took,
                "s",
                "",
                None,
                "at most 300, all whole",
                took <= 300 and whole,
            )
        )
    return found  # fmt: skip


def people() -> None:
    from django.contrib.auth.models import User

    from campaigns.models import Campaign
    from retailers import audit
    from retailers.models import Brand, Membership, Retailer

    ops = User.objects.create_superuser("ops", "ops@example.com", "only for the benchmark")
    Membership.objects.create(user=ops, role="ops")
    brands = [Brand.objects.create(slug=f"brand-{n}", name=f"Brand {n}") for n in range(BRANDS)]
    stores = [
        Retailer.objects.create(slug=f"retailer-{n}", name=f"Retailer {n}", network="instacart")
        for n in range(RETAILERS)
    ]
    Campaign.objects.bulk_create(
        [Campaign(brand=brands[n % BRANDS], retailer=stores[n % RETAILERS], name=f"Campaign {n}", tactic="search", budget=1000, status="live", network_campaign_id=f"c{n}", start_date=date(2026, 1, 1)) for n in range(CAMPAIGNS)], batch_size=1000
    )  # fmt: skip
    for brand in brands:
        for n in range(50):
            audit.record(brand=brand, actor="ops", action="plan approved", subject=brand, payload={"n": n})


def fill(start: int, stop: int) -> None:
    """Metric rows ``start`` to ``stop``: campaign by campaign within a day, days one after the other."""
    from django.db import transaction

    from retailers.models import Brand, PerformanceMetric, Retailer
    from rmn import backup

    brands = list(Brand.objects.order_by("pk").values_list("pk", flat=True))
    stores = list(Retailer.objects.order_by("pk").values_list("pk", flat=True))
    now = datetime(2026, 6, 1, tzinfo=UTC).isoformat()
    names = [field.attname for field in PerformanceMetric._meta.concrete_fields]
    per_day = max(stop // DAYS, 1)

    def made() -> Iterator[list[Any]]:
        for n in range(start, stop):
            campaign = n % CAMPAIGNS
            day = (date(2026, 1, 1) + timedelta(days=n // per_day % DAYS)).isoformat()
            row = {
                "id": n + 1, "uuid": str(UUID(int=n)), "brand_id": brands[campaign % BRANDS], "retailer_id": stores[campaign % RETAILERS],
                "created_at": now, "loaded_at": now, "extracted_at": now, "row_key": f"{n:064x}", "row_hash": f"{n:064x}",
                "network": "instacart", "grain": "campaign", "campaign_id": f"c{campaign}", "campaign_name": f"Campaign {campaign}",
                "period_start": day, "period_end": day, "currency": "USD", "impressions": n % 1000, "clicks": n % 50,
                "spend": str(n % 97), "spend_assumed": False, "is_final": True, "file_sha256": "0" * 64, "row_number": n,
                "mapping_version": "instacart/campaign@1+00000000", "load_id": None, "viewable_impressions": None, "hour": None,
            }  # fmt: skip
            yield [row.get(name, "") for name in names]

    with transaction.atomic():
        backup._insert(PerformanceMetric, made(), lambda _: None)
        backup._reset_sequences()


def asked() -> dict[str, tuple[float, float]]:
    """Of every list in the console and the first page: the first ask, and the 95th percentile of all."""
    from django.contrib import admin
    from django.contrib.auth.models import User
    from django.core.cache import cache
    from django.test import Client
    from django.urls import reverse

    client = Client()
    client.force_login(User.objects.get(username="ops"), backend="django.contrib.auth.backends.ModelBackend")
    pages = {"first page": reverse("admin:index")}
    for model in admin.site._registry:
        pages[str(model._meta.verbose_name_plural)] = reverse(
            f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
        )
    pages["metrics"] = pages.pop("performance metrics")
    client.get(pages["campaigns"])  # templates compile once
    found = {}
    for name, address in pages.items():
        cache.clear()
        times = []
        for _ in range(PAGES_ASKED):
            started = time.perf_counter()
            assert client.get(address).status_code == 200, address
            times.append(time.perf_counter() - started)
        found[name] = (times[0], statistics.quantiles(times[1:], n=20, method="inclusive")[-1])
    return found  # fmt: skip

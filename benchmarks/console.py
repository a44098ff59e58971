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
BRANDS, RETAILERS, CAMPAIGNS = 20, 5, 10_000
PAGES_ASKED = 5
PERFORMANCE = "a brand's performance"
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
        import rmn.wsgi  # noqa: F401  # as the site starts, collector and all
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
        found += pages_at(had, count, engine, barred=count == most)
        had = count
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
    if engine == "postgresql":  # which makes ten times as many in minutes
        found += pages_at(had, 10 * had, engine)
    return found  # fmt: skip


def pages_at(had: int, count: int, engine: str, barred: bool = False) -> list[Row]:
    """Fill up from ``had`` to ``count`` metric rows; the pages to watch, and the slowest."""
    from django.db import connection

    took, _ = seconds(lambda: fill(had, count))
    print(f"{count:,} rows there after {took:.0f} s", file=sys.stderr)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    pages, found = asked(), []
    performance = pages.pop(PERFORMANCE)
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
                "at most 300" if barred else "",
                later <= 0.3 if barred else None,
            )
        )
    first, later = performance
    what = f"{engine}, {count:,} rows: {PERFORMANCE}, the newest 28 days and 59 before, p95"
    found.append(Row(what, later * 1000, "ms", "its first ask, nothing kept", first * 1000))
    return found


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


# Rows made by the database itself, for what takes too long by hand. ``values`` as ``sql_values`` gives them.
METRICS = """
insert into retailers_performancemetric ({names})
select {values} from generate_series({start}, {stop} - 1) as n
join campaigns_campaign as c on c.network_campaign_id = 'c' || mod(n, {campaigns})
"""
VALUES = {
    "uuid": "gen_random_uuid()", "brand_id": "c.brand_id", "retailer_id": "c.retailer_id", "network": "'instacart'", "grain": "'campaign'", "campaign_id": "c.network_campaign_id",
    "campaign_name": "c.name", "period_start": "date '2026-04-10' - n / {campaigns}", "period_end": "date '2026-04-10' - n / {campaigns}", "currency": "'USD'", "impressions": "mod(n, 1000)",
    "clicks": "mod(n, 50)", "spend": "mod(n, 97)", "row_key": "lpad(n::text, 64, '0')", "row_hash": "lpad(n::text, 64, '0')", "file_sha256": "repeat('0', 64)", "row_number": "n",
    "mapping_version": "'instacart/campaign@1+00000000'", "extracted_at": "now()", "loaded_at": "now()", "created_at": "now()", "spend_assumed": "false", "is_final": "true",
    "report": "n / {campaigns} * {brands} + mod(mod(n, {campaigns}), {brands})",  # one for a brand and day
}  # fmt: skip
NEEDED = (
    "select column_name, data_type from information_schema.columns where table_name = 'retailers_performancemetric' "
    "and is_nullable = 'NO' and column_default is null and is_identity = 'NO'"
)


def insert_metrics(needed: list[tuple[str, str]], start: int, stop: int) -> str:
    """PostgreSQL's statement that makes metric rows ``start`` to ``stop``; ``needed`` is what NEEDED answers."""
    values = {name: "''" if "char" in kind or kind == "text" else "0" for name, kind in needed} | VALUES
    said = METRICS.replace("{names}", ", ".join(values)).replace("{values}", ", ".join(values.values()))
    return said.format(start=start, stop=stop, campaigns=CAMPAIGNS, brands=BRANDS)


def fill(start: int, stop: int) -> None:
    """Metric rows ``start`` to ``stop``: one per campaign and day, the newest day first."""
    from django.db import connection, transaction

    from retailers.models import Brand, PerformanceMetric, Retailer
    from rmn import backup

    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(NEEDED)
            cursor.execute(insert_metrics(cursor.fetchall(), start, stop))
        return
    brands = list(Brand.objects.order_by("pk").values_list("pk", flat=True))
    stores = list(Retailer.objects.order_by("pk").values_list("pk", flat=True))
    now = datetime(2026, 6, 1, tzinfo=UTC).isoformat()
    empty = {field.attname: field.get_default() for field in PerformanceMetric._meta.concrete_fields}

    def made() -> Iterator[list[Any]]:
        for n in range(start, stop):
            campaign = n % CAMPAIGNS
            day = (date(2026, 4, 10) - timedelta(days=n // CAMPAIGNS)).isoformat()
            row = {
                "id": n + 1, "uuid": str(UUID(int=n)), "brand_id": brands[campaign % BRANDS], "retailer_id": stores[campaign % RETAILERS],
                "created_at": now, "loaded_at": now, "extracted_at": now, "row_key": f"{n:064x}", "row_hash": f"{n:064x}",
                "network": "instacart", "grain": "campaign", "campaign_id": f"c{campaign}", "campaign_name": f"Campaign {campaign}",
                "period_start": day, "period_end": day, "currency": "USD", "impressions": n % 1000, "clicks": n % 50,
                "spend": str(n % 97), "spend_assumed": False, "is_final": True, "file_sha256": "0" * 64, "row_number": n,
                "mapping_version": "instacart/campaign@1+00000000", "report": n // CAMPAIGNS * BRANDS + campaign % BRANDS,
            }  # fmt: skip
            yield list((empty | row).values())

    with transaction.atomic():
        backup._insert(PerformanceMetric, made(), lambda _: None)
        backup._reset_sequences()


def asked() -> dict[str, tuple[float, float]]:
    """Of every list in the console, its first page and a brand's performance: the first ask, and the 95th percentile of all."""
    from django.contrib import admin
    from django.contrib.auth.models import User
    from django.core.cache import cache
    from django.test import Client
    from django.urls import reverse

    from retailers.models import Brand

    client = Client()
    client.force_login(User.objects.get(username="ops"), backend="django.contrib.auth.backends.ModelBackend")
    pages = {"first page": reverse("admin:index")}
    for model in admin.site._registry:
        pages[str(model._meta.verbose_name_plural)] = reverse(
            f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
        )
    pages["metrics"] = pages.pop("performance metrics")
    first_brand = Brand.objects.order_by("pk").values_list("uuid", flat=True)[0]
    pages[PERFORMANCE] = f"{reverse('performance')}?brand={first_brand}"
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

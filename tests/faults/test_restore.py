"""A backup of a million rows restored into an empty database, whole and one tenant alone; a tenant erased for good."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from benchmarks import console
from benchmarks.load import Client, Request
from benchmarks.stack import Stack, postgres_programs, running
from tests.faults.test_secrets import below, everything_in
from tests.faults.test_stack import told

pytestmark = pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL's server programs are not installed")
ROWS = max(int(1_000_000 * float(os.environ.get("RMN_FAULT_SCALE", "1"))), 20_000)
ALONE: dict[str, int] = {"web": 0, "workers": 0, "beats": 0}
PEOPLE = """
import json
from django.conf import settings
from benchmarks import console
from retailers.models import Brand
from rmn.lib import tenancy
from tests import factories
from tests.test_backup import adapter_folder
with tenancy.everyone():
    console.people()
    for brand in Brand.objects.order_by("pk")[:3]:
        factories.AdapterFactory(brand=brand, digest=adapter_folder(settings.RMN_ADAPTERS, brand.slug))
print(json.dumps("made"))
"""


def fill(stack: Stack, rows: int) -> None:
    stack.sql(console.insert_metrics(stack.sql(console.NEEDED), 0, rows))
    stack.sql("analyze")


def answer(said: str) -> Any:
    """What a command answered, after what it told of its progress."""
    return json.loads(said[said.index("{") :])


def sums(stack: Stack, brand: int) -> dict[str, str]:
    """A checksum of one brand's rows in every table that knows brands."""
    tables = stack.sql("select table_name from information_schema.columns where column_name = 'brand_id' and table_schema = 'public'")  # fmt: skip
    query = "select md5(string_agg(t::text, ',' order by t::text)) from {} t where brand_id = %s"
    return {name: stack.sql(query.format(name), brand)[0][0] for (name,) in tables}


def test_a_backup_of_a_million_rows_is_restored_whole_and_one_tenant_alone(tmp_path: Path) -> None:
    """Chains whole, adapters of the right digest, every row the same (24)."""
    saved = tmp_path / "saved"
    with running(folder=tmp_path / "one", **ALONE) as first:
        assert first.ask(PEOPLE) == "made"
        fill(first, ROWS)
        keys = [key for (key,) in first.sql("select id from retailers_brand order by id limit 2")]
        before = [sums(first, key) for key in keys]
        started = time.monotonic()
        first.command("backup", "--to", str(saved))
        dumped = time.monotonic() - started
    size = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file()) / 2**20
    with running(folder=tmp_path / "two", environment={"RMN_DATA_KEY": first.key}, **ALONE) as second:
        started = time.monotonic()
        done = answer(second.command("restore", str(saved)))
        took = time.monotonic() - started
        assert done["chains"] == {"whole": 20, "broken": []}
        assert done["adapters"] == {"whole": 3, "broken": []}
        assert done["secrets_open"]
        assert int(second.sql("select count(*) from retailers_performancemetric")[0][0]) == ROWS
        assert [sums(second, key) for key in keys] == before
        started = time.monotonic()
        second.command("verify_audit")
        verified = time.monotonic() - started

        others = sums(second, keys[1])
        second.command("export_tenant", "--brand", "brand-0", "--to", str(tmp_path / "mine"))
        second.command("erase_tenant", "--brand", "brand-0", "--confirm", "brand-0", "--export", str(tmp_path / "mine"))
        started = time.monotonic()
        back = answer(second.command("restore", str(saved), "--brand", "brand-0"))
        alone = time.monotonic() - started
        assert back["chains"] == {"whole": 1, "broken": []}
        assert back["adapters"] == {"whole": 1, "broken": []}
        assert int(second.sql("select count(*) from retailers_performancemetric")[0][0]) == ROWS
        assert sums(second, keys[1]) == others
    told("24", f"{done['rows']:,} rows ({size:.0f} MB): saved in {dumped:.0f} s, restored with chains and adapters checked in {took:.0f} s, chains checked again in {verified:.0f} s, one tenant of {back['rows']:,} rows alone in {alone:.0f} s")  # fmt: skip


CANARIES = """
import json
from django.conf import settings
from django.core.cache import cache
from django.contrib.auth.models import User
from campaigns.models import Campaign, Recommendation
from retailers import audit, loads
from retailers.models import Brand, IdempotencyKey, PerformanceMetric, SKUCatalog, Webhook
from feedback import services
from rmn.lib import tenancy
from tests import factories
from tests.test_backup import adapter_folder
words = iter([f"canary{{n:02}}x{mark}" for n in range(50)])
with tenancy.everyone():
    brand, ops = Brand.objects.get(slug="brand-0"), User.objects.get(username="ops")
    for row in Campaign.objects.filter(brand=brand)[:6]:
        row.name = next(words)
        row.save()  # and its history
    for row in Recommendation.objects.filter(brand=brand)[:6]:
        Recommendation.objects.filter(pk=row.pk).update(text=next(words), prompt=next(words))
    for row in PerformanceMetric.objects.filter(brand=brand)[:5]:
        PerformanceMetric.objects.filter(pk=row.pk).update(campaign_name=next(words))
    for _ in range(4):
        factories.SKUFactory(brand=brand, name=next(words))
        factories.QuarantinedRowFactory(brand=brand, raw=next(words))
        audit.record(brand=brand, actor="ops", action="plan approved", payload={{"why": next(words)}})
        loads.keep_file(brand, [next(words).encode()])
    for n in range(3):
        Webhook.objects.create(brand=brand, url=f"https://example.com/{{next(words)}}")
        factories.AdapterFactory(brand=brand, digest=adapter_folder(settings.RMN_ADAPTERS, next(words)))
    for n, person in enumerate(User.objects.filter(memberships__brand=brand)):
        IdempotencyKey.objects.create(user=person, key=f"k{{n}}", path="/", body_sha256="0" * 64, status_code=200, response={{"text": next(words)}})
    Brand.objects.filter(pk=brand.pk).update(voice=next(words), manufacturer=next(words))
    left = list(words)
    assert len(left) == 1, left
    factories.ReflectionFactory(brand=brand, decision=left[0])
    for _ in range(5):
        services.request_export(brand=brand, by=ops, format="csv")
print(json.dumps(brand.pk))
"""


def test_an_erased_tenant_is_found_nowhere_and_the_others_are_as_they_were(tmp_path: Path) -> None:
    """Fifty canaries: tables, histories, files, adapters, caches, queues (26)."""
    mark = uuid.uuid4().hex[:12]
    with running(folder=tmp_path / "site", web=1, threads=2, workers=0, beats=0) as stack:
        seed = "import json; from benchmarks import seed; print(json.dumps(seed.fill(brands=3, campaigns=10, days=5)))"
        brands = stack.ask(seed)["brands"]
        stack.ask(CANARIES.format(mark=mark))

        async def look() -> None:
            for path in ("/api/v1/campaigns/", "/api/v1/recommendations/", "/dashboard", "/"):
                await Client(stack.port).ask(Request("GET", path, brands[0]["people"][0]))

        asyncio.run(look())  # what is kept in caches on the way
        assert stack.broker().llen("default") >= 5
        others = [sums(stack, brand["id"]) for brand in brands[1:]]
        there = found(stack, tmp_path / "site", mark)
        assert there["tables"] >= 50
        assert there["files"] >= 7
        stack.command("export_tenant", "--brand", "brand-0", "--to", str(tmp_path / "mine"))
        done = answer(
            stack.command(
                "erase_tenant", "--brand", "brand-0", "--confirm", "brand-0", "--export", str(tmp_path / "mine")
            )
        )
        assert found(stack, tmp_path / "site", mark) == {"tables": 0, "files": 0, "broker and caches": 0}
        assert [sums(stack, brand["id"]) for brand in brands[1:]] == others
        proof = stack.sql("select payload from retailers_auditentry where chain = '-' and action = 'tenant erased'")
        assert len(proof) == 1
        whole = answer(stack.command("verify_audit"))
        assert whole["broken"] is None
    exported = below(tmp_path / "mine").count(mark)
    assert exported >= 50
    told("26", f"50 canaries ({there}); erased {sum(done['rows'].values())} rows: 0 left, two others' checksums unchanged, proof kept; the export holds {exported}")  # fmt: skip


def found(stack: Stack, folder: Path, mark: str) -> dict[str, int]:
    dump = subprocess.run(
        [postgres_programs() / "pg_dump", stack._as("postgres")], capture_output=True, text=True, check=True  # type: ignore[operator]
    ).stdout  # fmt: skip
    digests = hashlib.sha256(mark.encode()).hexdigest()
    assert digests not in dump
    return {"tables": dump.count(mark), "files": below(folder).count(mark), "broker and caches": str(list(everything_in(stack))).count(mark)}  # fmt: skip

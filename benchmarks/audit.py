"""The audit chain on a PostgreSQL of its own: how fast a long chain is verified, how many lines a second are appended."""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from benchmarks.stack import Stack

ALONE = True  # a database of its own
WRITERS, CHAINS = 4, 20
NOTE = (
    f"{WRITERS} writers, each line a transaction of its own, over {CHAINS} chains. Peers: the same rows read and parsed without"
    " being checked; the same rows inserted, a transaction each, without a chain."
)


def rows(size: str) -> list[Row]:
    lines, writes = (100_000, 1_500) if size == "full" else (10_000, 250)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WRITERS) as pool:
        stack = Stack(Path(folder))
        try:
            stack.start_stores()
            checked = _ask(stack, f"long({lines})")

            def written(what: str) -> float:
                spans = list(pool.map(lambda n: _ask(stack, f"{what}({n}, {writes})"), range(WRITERS)))
                return WRITERS * writes / (max(end for _, end in spans) - min(start for start, _ in spans))

            plain, chained, one = written("insert"), written("append"), written("append_to_one")
            whole = _ask(stack, "whole()")
        finally:
            stack.stop()
    per = 100_000 / lines
    return [
        Row(
            f"{lines:,} rows verified, as of 100,000, seconds of one core",
            checked["verify"] * per,
            "s",
            "read alone",
            checked["read"] * per,
            "at most 5, all whole",
            checked["verify"] * per <= 5 and checked["broken"] is None,
        ),
        Row(
            f"{WRITERS * writes:,} audited writes, a second",
            chained,
            "",
            "plain inserts",
            plain,
            "at least 1,000, chains whole",
            chained >= 1000 and whole,
        ),
        Row(
            "the same, all to one chain: each waits for the commit before it",
            one,
            "",
            "plain inserts",
            plain,
        ),
    ]


def _ask(stack: Stack, call: str) -> Any:
    return stack.ask(
        f"import json; from benchmarks import audit; from rmn.lib import tenancy\n"
        f"with tenancy.everyone(): print(json.dumps(audit.{call}))"
    )


# -- inside the product


def long(count: int) -> dict[str, Any]:
    """A chain of so many lines: seconds of a core to verify it, and to read it alone."""
    from django.utils import timezone

    from retailers import audit
    from retailers.models import AuditEntry, AuditHead, Brand

    brand = Brand.objects.create(slug="long", name="Long")
    for n in range(CHAINS):
        Brand.objects.create(slug=f"brand-{n}", name=f"Brand {n}")
    previous, batch, at = audit.FIRST, [], timezone.now()
    for n in range(1, count + 1):
        facts = {"chain": "long", "sequence": n, "previous_hash": previous, **_told(n)}
        previous = audit.digest(facts | {"at": at.isoformat(timespec="microseconds")})
        batch.append(AuditEntry(brand=brand, hash=previous, at=at, **facts))
    AuditEntry.objects.bulk_create(batch, batch_size=2000)
    AuditHead.objects.create(brand=brand, chain="long", sequence=count, hash=previous)
    started = time.process_time()  # of one core, whoever else is at work on the machine
    for row in AuditEntry.objects.filter(chain="long").order_by("sequence").values("at", *audit.FACTS).iterator(5000):
        json.dumps(row["payload"])
    read = time.process_time() - started
    started = time.process_time()
    found = audit.verify("long")
    return {"verify": time.process_time() - started, "read": read, "broken": found["broken"]}


def _told(n: int) -> dict[str, Any]:
    payload = {"from": {"status": "draft", "budget": "125000.00"}, "to": {"status": "approved", "budget": "125000.00"}, "n": n, "reason": "agreed with the category lead"}  # fmt: skip
    return {"actor": "ops", "action": "plan approved", "subject_type": "campaigns.BudgetPlan", "subject_id": f"{n:032x}", "payload": payload}  # fmt: skip


def append(writer: int, count: int, chains: int = CHAINS) -> tuple[float, float]:
    """When this writer began and ended its lines."""
    from retailers import audit

    brands = _brands()
    started = time.monotonic()
    for n in range(count):
        told = _told(n)
        audit.record(brand=brands[(writer + n * WRITERS) % chains], actor=told["actor"], action=told["action"], payload=told["payload"])  # fmt: skip
    return started, time.monotonic()


def append_to_one(writer: int, count: int) -> tuple[float, float]:
    return append(writer, count, chains=1)


def insert(writer: int, count: int) -> tuple[float, float]:
    """The same rows without a chain."""
    from django.utils import timezone

    from retailers.models import AuditEntry

    brands = _brands()
    started = time.monotonic()
    for n in range(count):
        AuditEntry.objects.create(brand=brands[n % CHAINS], chain=f"plain-{writer}", sequence=n + 1, at=timezone.now(), previous_hash="0" * 64, hash="0" * 64, **_told(n))  # fmt: skip
    return started, time.monotonic()


def whole() -> bool:
    from retailers import audit

    return all(audit.verify(brand.slug)["broken"] is None for brand in _brands())


def _brands() -> list[Any]:
    from retailers.models import Brand

    return list(Brand.objects.filter(slug__startswith="brand-").order_by("slug"))

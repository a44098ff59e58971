"""Parts of a whole system are killed, wiped, doubled and flooded while it works; what was promised is counted.

On PostgreSQL under a role that owns nothing, and on SQLite; ``RMN_FAULT_SCALE`` (1) makes the counts smaller.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import statistics
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from celery import Celery

from benchmarks import load
from benchmarks.load import Client, Request
from benchmarks.stack import Stack, postgres_programs, running, until
from tests.faults import jobs

SCALE = float(os.environ.get("RMN_FAULT_SCALE", "1"))
SLOW = float(os.environ.get("RMN_FAULT_PATIENCE", "1"))  # more where the machine is shared
WRITERS = 20


def scaled(count: int, least: int = 20) -> int:
    return max(int(count * SCALE), least)


def told(row: str, text: str) -> None:
    print(f"\npromise {row}: {text}", file=sys.stderr, flush=True)  # noqa: T201


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    if request.param == "postgresql" and postgres_programs() is None:
        pytest.skip("PostgreSQL's server programs are not installed")
    with running(sqlite=request.param == "sqlite", web=2, threads=4, workers=1, concurrency=2, beats=1) as found:
        yield found


@pytest.fixture(scope="module")
def brands(stack: Stack) -> list[dict[str, Any]]:
    seed = "import json; from benchmarks import seed; print(json.dumps(seed.fill(brands=5, campaigns=10, days=5)))"
    return stack.ask(seed)["brands"]


def wishes(brand: dict[str, Any], count: int) -> str:
    """Code that wishes for ``count`` exports and prints their ids."""
    return f"""
import json
from django.contrib.auth.models import User
from feedback import services
from retailers.models import Brand
from rmn.lib import tenancy
with tenancy.everyone():
    brand, by = Brand.objects.get(slug={brand["slug"]!r}), User.objects.get(username="ops")
    print(json.dumps([str(services.request_export(brand=brand, by=by, format="csv").pk) for _ in range({count})]))
"""


def exports(stack: Stack, ids: list[str]) -> Counter[str]:
    wanted = {one.replace("-", "") for one in ids}
    rows = stack.sql("select id, status from feedback_export")
    return Counter(status for key, status in rows if str(key).replace("-", "") in wanted)


def test_writes_that_were_acknowledged_survive_thirty_kills(stack: Stack, brands: list[dict[str, Any]]) -> None:
    """Feedback and wishes for exports while web, worker, beat, broker and database are killed (9)."""
    total, rng = scaled(10_000, 300), random.Random(9)
    parts = ["broker", "web", "worker-0", "beat-0"] + ([] if stack.sqlite else ["database"])
    order = [parts[n % len(parts)] for n in range(scaled(30, 10))]
    rng.shuffle(order)
    done: dict[str, tuple[str, str]] = {}
    last_kill = time.monotonic()

    async def write(client: Client, numbers: Iterator[int]) -> None:
        for n in numbers:
            brand = rng.choice(brands)
            path, body = ("exports/", {"format": "csv"}) if n % 25 == 0 else ("feedback/", {"recommendation": rng.choice(brand["drafts"]), "kind": "rating", "value": n % 5 + 1})  # fmt: skip
            wish = Request("POST", f"/api/v1/{path}", rng.choice(brand["people"]), body, key=uuid.uuid4().hex)
            while True:  # as a careful client does: the same key until there is an answer
                status, _, said = await client.ask(wish, 30)
                if 200 <= status < 300:
                    done[json.loads(said)["id"]] = (path, wish.key)
                    break
                assert status in (0, 409, 429) or status >= 500, (status, said[:300])
                await asyncio.sleep(0.3)

    async def write_all() -> None:
        numbers = iter(range(total))
        await asyncio.gather(*(write(Client(stack.port), numbers) for _ in range(8)))

    def harm() -> None:
        nonlocal last_kill
        for n, part in enumerate(order):
            while len(done) < total * (n + 1) / (len(order) + 1):
                time.sleep(0.02)
            time.sleep(rng.random() * 0.2)
            stack.kill(part)
            last_kill = time.monotonic()

    started = time.monotonic()
    with stack.watched():
        killer = threading.Thread(target=harm, daemon=True)
        killer.start()
        asyncio.run(write_all())
        killer.join(60)
        took = time.monotonic() - started
        until(lambda: all(part.is_alive for part in stack.parts.values()) and stack.answers(), 120 * SLOW, "all are up")
        until(lambda: not load.waiting(stack), 120 * SLOW, "all that was wished is done", every=0.5)
        processed = time.monotonic() - last_kill
    assert len(done) == total
    kept = Counter(str(uuid.UUID(str(row[0]))) for row in stack.sql("select uuid from feedback_feedback"))
    feedback = {one for one, (path, _) in done.items() if path == "feedback/"}
    assert feedback - set(kept) == set(), "acknowledged, but not there"
    assert set(kept) - feedback == set(), "there twice: a key was done again"
    wished = [one for one, (path, _) in done.items() if path == "exports/"]
    assert exports(stack, wished) == {"succeeded": len(wished)}
    assert int(stack.sql("select count(*) from feedback_export")[0][0]) == len(wished)
    told("9", f"{stack_name(stack)}: {total:,} acknowledged writes in {took:.0f} s, {len(order)} kills ({dict(Counter(order))}): 0 missing, 0 double; {len(wished)} runs done {processed:.0f} s after the last kill")  # fmt: skip


def stack_name(stack: Stack) -> str:
    return "SQLite" if stack.sqlite else "PostgreSQL"


def test_messages_that_come_several_times_have_one_effect(stack: Stack, brands: list[dict[str, Any]]) -> None:
    """Each of a thousand messages delivered one to five times (10)."""
    count, rng = scaled(1000, 50), random.Random(10)
    stack.kill("worker-0")
    ids = stack.ask(wishes(brands[0], count))
    app = Celery("sender", broker=stack.environment["REDIS_URL"], set_as_current=False)
    sent = [one for one in ids for _ in range(rng.randint(0, 4))]
    rng.shuffle(sent)
    for one in sent:
        app.send_task("feedback.tasks.export", args=[one], kwargs={"tenant": str(brands[0]["id"])}, queue="default")
    stack.again("worker-0")
    until(lambda: exports(stack, ids) == {"succeeded": count}, 240 * SLOW, "all are done", every=0.5)
    until(lambda: not stack.broker().llen("default"), 120 * SLOW, "every message was taken", every=0.5)
    wanted = {one.replace("-", "") for one in ids}
    attempts = Counter(n for key, n in stack.sql("select id, attempts from feedback_export") if str(key).replace("-", "") in wanted)  # fmt: skip
    assert attempts == {1: count}
    told(
        "10",
        f"{stack_name(stack)}: {count + len(sent):,} messages for {count:,} runs: {count:,} effects, each run worked on once",
    )


def test_work_in_the_middle_of_which_a_worker_is_killed_is_done_again(
    stack: Stack, brands: list[dict[str, Any]]
) -> None:
    """Rerun after the lease has run out (10)."""
    until(lambda: not load.waiting(stack), 120 * SLOW, "nothing waits")
    one = stack.ask(wishes(brands[0], 1))[0]
    key = one.replace("-", "") if stack.sqlite else one
    column = "update feedback_export set status = 'running', attempts = 1, lease_token = lease_token + 1, lease_until = %s where id = %s"
    until(lambda: exports(stack, [one])["succeeded"], 60 * SLOW, "the first time")
    # the moment of the kill: taken by a worker that renewed its lease just now, and is gone
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    stack.sql_write(column, (now + timedelta(seconds=40)).strftime("%Y-%m-%d %H:%M:%S.%f") if stack.sqlite else now + timedelta(seconds=40), key)  # fmt: skip
    stack.kill("worker-0")
    started = time.monotonic()
    stack.again("worker-0")
    until(lambda: exports(stack, [one])["succeeded"], 60 * SLOW, "it is done again", every=0.2)
    told("10", f"{stack_name(stack)}: done again {time.monotonic() - started:.0f} s after the kill")


def test_a_broker_that_is_wiped_loses_nothing(stack: Stack, brands: list[dict[str, Any]]) -> None:
    """500 queued, all wiped, all done (11)."""
    count = scaled(500, 50)
    stack.kill("worker-0")
    ids = stack.ask(wishes(brands[0], count))
    until(lambda: stack.broker().llen("default") >= count, 30, "they are queued")
    stack.broker().flushall()
    assert stack.broker().llen("default") == 0
    started = time.monotonic()
    stack.again("worker-0")
    until(lambda: exports(stack, ids) == {"succeeded": count}, 60 * SLOW, "all are done", every=0.2)
    told("11", f"{stack_name(stack)}: {count} queued, the broker wiped: all done in {time.monotonic() - started:.0f} s")


def test_tasks_of_many_tenants_in_one_process_see_their_own_alone(stack: Stack, brands: list[dict[str, Any]]) -> None:
    """Mixed tasks in one process, some of which raise midway and some of which name no tenant (2)."""
    count, without, rng = scaled(2000, 200), 20, random.Random(2)
    command = ["celery", "-A", "rmn", "worker", "-I", "tests.faults.jobs", "--loglevel", "critical"]
    stack.child("watched", [*command, "--concurrency", "1", "-Q", "watched", "-n", "watched@%h"]).start()
    app = Celery("sender", broker=stack.environment["REDIS_URL"], set_as_current=False)
    whose, failing = {}, set()
    stack.broker().delete(jobs.TOLD)
    chosen = set(rng.sample(range(count), without))
    for n in range(count):
        kwargs: dict[str, Any] = {"number": n, "fail": rng.random() < 0.05}
        if kwargs["fail"]:
            failing.add(n)
        if n not in chosen:
            whose[n] = kwargs["tenant"] = str(rng.choice(brands)["id"])
        app.send_task("tests.faults.jobs.look", kwargs=kwargs, queue="watched")
    expected = set(whose) - failing
    try:
        until(lambda: not stack.broker().llen("watched") and stack.broker().llen(jobs.TOLD) >= len(expected), 240 * SLOW, "all were done", every=0.5)  # fmt: skip
    finally:
        stack.kill("watched")
        del stack.parts["watched"]
    seen = {n: (scope, found) for n, scope, found in map(json.loads, stack.broker().lrange(jobs.TOLD, 0, -1))}
    assert set(seen) == expected, "one without a tenant was done, or one with was not"
    assert {n: scope for n, (scope, _) in seen.items()} == {n: whose[n] for n in expected}
    foreign = [n for n, (_, found) in seen.items() if found != [int(whose[n])]]
    if not stack.sqlite:  # there is no second wall on SQLite: the scope is right, and visible_to asks for it
        assert not foreign
    told("2", f"{stack_name(stack)}: {count:,} tasks, {len(failing)} raised midway, {without} without a tenant: 0 did anything for another, {without} failed")  # fmt: skip


def test_the_databases_wall_stands_when_every_filter_is_gone(stack: Stack, brands: list[dict[str, Any]]) -> None:
    """``visible_to`` lets everything through: still no foreign row (5)."""
    if stack.sqlite:
        return  # the second wall is PostgreSQL's
    from benchmarks.stack import free_port

    port = free_port()
    command = ["gunicorn", "tests.faults.unfiltered", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "2"]  # fmt: skip
    stack.child("unfiltered", command).start()
    client, lists = (
        Client(port),
        ["campaigns", "metrics", "recommendations", "feedback", "exports", "budget-plans", "runs", "audit"],
    )

    async def ask() -> dict[str, list[set[str]]]:
        while (await client.ask(Request("GET", "/healthz", ""), 20))[0] != 200:
            await asyncio.sleep(0.5)
        found: dict[str, list[set[str]]] = {}
        for name in lists:
            for brand in brands[:3]:
                status, _, said = await client.ask(Request("GET", f"/api/v1/{name}/?page_size=200", brand["people"][0]))
                assert status == 200, said[:300]
                found.setdefault(name, []).append({row["id"] for row in json.loads(said)["results"]})
        return found

    try:
        found = asyncio.run(ask())
    finally:
        stack.kill("unfiltered")
        del stack.parts["unfiltered"]
    seen = sum(map(len, found["campaigns"]))
    assert seen == 30, "each sees its own ten"
    for name, per_brand in found.items():
        assert not any(one & other for one, other in itertools.combinations(per_brand, 2)), name
    cost = wall_cost(stack, brands)
    told("5", f"every filter off: 0 foreign rows on {len(lists)} lists for 3 brands; the wall costs {100 * cost:.0f} % of a query's time")  # fmt: skip


def wall_cost(stack: Stack, brands: list[dict[str, Any]], repeats: int = 400) -> float:
    """How much longer the same query takes behind the wall: medians of turns about, side by side."""
    query = "select id, spend from retailers_performancemetric where brand_id = %s order by id limit 50"
    times: dict[str, list[float]] = {"behind": [], "without": []}
    with (
        psycopg.connect(stack._as("rmn_app"), autocommit=True) as behind,
        psycopg.connect(stack._as("postgres"), autocommit=True) as without,
    ):
        for n in range(repeats):
            brand = brands[n % len(brands)]["id"]
            behind.execute("select set_config('rmn.brands', %s, false)", [str(brand)])
            for name, connection in (("behind", behind), ("without", without)):
                started = time.perf_counter()
                connection.execute(query, [brand]).fetchall()
                times[name].append(time.perf_counter() - started)
    return statistics.median(times["behind"]) / statistics.median(times["without"]) - 1


TICKS = """
import json
from datetime import timedelta
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from rmn.lib import tenancy
with tenancy.everyone():
    every, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
    row, _ = PeriodicTask.objects.get_or_create(name="ticks", defaults={{"task": "tests.faults.jobs.tick", "interval": every, "queue": "ticks", "enabled": False}})
    row.enabled = {enabled}
    row.save()
print(json.dumps(row.total_run_count))
"""


def test_three_beats_send_each_tick_once_and_what_was_missed_once(stack: Stack, brands: list[dict[str, Any]]) -> None:
    """A schedule of a second under three beats of their own processes, and after a pause of all of them (12)."""
    count = scaled(100, 15)
    assert brands
    for n in (1, 2):
        stack.child(f"beat-{n}", ["celery", "-A", "rmn", "beat", "--loglevel", "warning", "--pidfile="]).start()
    three = ["beat-0", "beat-1", "beat-2"]

    def claimed() -> int:
        return int(stack.sql("select total_run_count from django_celery_beat_periodictask where name = 'ticks'")[0][0])

    def sent() -> int:
        return int(stack.broker().llen("ticks"))

    try:
        stack.broker().delete("ticks")
        stack.ask(TICKS.format(enabled=True))
        started = time.monotonic()
        until(lambda: claimed() >= count, (2 * count + 60) * SLOW, "the ticks were claimed", every=0.2)
        took = time.monotonic() - started
        stack.ask(TICKS.format(enabled=False))
        time.sleep(8)  # each beat has heard of it
        ticks = claimed()
        assert sent() == ticks, "a tick was claimed and not sent, or sent twice"
        assert ticks <= time.monotonic() - started + 1, "a tick came before its time"
        for name in three:
            stack.parts[name].stop()
        stack.ask(TICKS.format(enabled=True))
        time.sleep(10)
        pause = sent()
        assert pause == ticks
        for name in three:
            stack.parts[name].start()
        started = time.monotonic()
        until(lambda: sent() > pause, 60 * SLOW, "what was missed is sent", every=0.05)
        after = time.monotonic() - started
        stack.ask(TICKS.format(enabled=False))
        time.sleep(8)
        later = time.monotonic() - started
        assert sent() == claimed()
        assert sent() - pause <= later - after + 2, "what was missed was sent more than once"
    finally:
        for name in three[1:]:
            stack.kill(name)
            del stack.parts[name]
        stack.broker().delete("ticks")
    told("12", f"{stack_name(stack)}: three beats, {ticks} ticks in {took:.0f} s: {ticks} messages; none for 10 s, then the missed one once")  # fmt: skip


def test_twenty_who_write_at_once_are_all_answered(stack: Stack, brands: list[dict[str, Any]]) -> None:
    """No 'database is locked' reaches anybody (30)."""
    each = scaled(25, 5)

    async def write(number: int) -> list[int]:
        client, brand = Client(stack.port), brands[number % len(brands)]
        codes = []
        for n in range(each):
            body = {"recommendation": brand["drafts"][n % 20], "kind": "thumb", "value": 1}
            codes.append((await client.ask(Request("POST", "/api/v1/feedback/", brand["people"][number % 2], body, key=uuid.uuid4().hex)))[0])  # fmt: skip
        return codes

    async def all_of_them() -> Counter[int]:
        return Counter(code for codes in await asyncio.gather(*map(write, range(WRITERS))) for code in codes)

    codes = asyncio.run(all_of_them())
    assert codes == {201: WRITERS * each}
    told("30", f"{stack_name(stack)}: {WRITERS} writers at once, {WRITERS * each} writes: {dict(codes)}")


def test_an_upgrade_under_load_is_seen_by_nobody(stack: Stack, brands: list[dict[str, Any]]) -> None:
    """The newest migrations of retailers and rmn are taken back and applied while requests go on (25)."""
    answers: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.extend(
                asyncio.run(load.arrive(stack.port, load.mixed(brands, len(answers), 1, 2), 30 * min(SCALE, 1), 2))
            )

    stack.kill("beat-0")  # of the release that knows nothing of the new tables
    asking = threading.Thread(target=ask)
    asking.start()
    for app, name in (("rmn", "0001"), ("retailers", "0002")):
        stack.command("migrate", app, name, "--verbosity", "0")
    stack.command("migrate", "--verbosity", "0")
    done.set()
    asking.join()
    stack.again("beat-0")
    codes = Counter(one.status for one in answers)
    assert sum(n for code, n in codes.items() if not 200 <= code < 300 and code != 503) == 0, codes
    assert len(answers) > 10
    told("25", f"{stack_name(stack)}: two apps' newest tables taken away and made again during {len(answers)} requests: {dict(codes)}")  # fmt: skip


def test_a_flooding_tenant_is_told_to_wait_and_the_others_are_answered(
    stack: Stack, brands: list[dict[str, Any]]
) -> None:
    """Allowances are the tenant's (22); the figures are those of ``python -m benchmarks load``."""
    loud = load.flood(stack, brands, 15)[1]
    assert loud.holds, loud
    told(
        "22",
        f"{stack_name(stack)}: {loud.ours:.0f} answers 429 with Retry-After to the one, {loud.theirs:.0f} errors to the others",
    )

"""The API under load on PostgreSQL and a broker of our own: base load, burst, one tenant's flood, soak.

Requests come at fixed times whether or not the answers keep up (open arrivals), and a request's time counts
from when it was due. What was accepted counts only once its work is done: the queue must drain. Database,
broker, site, worker, beat and this load maker share the machine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import statistics
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from scipy.stats import mannwhitneyu

from benchmarks.harness import Row
from benchmarks.stack import Stack, running, until

ALONE = True  # minutes, and processes of its own
WRITES, READS = 40.0, 80.0  # per second
SECONDS = {"small": 20, "full": 120}
SOAK_S = {"small": 20, "full": 240}
NOTE = (
    "40 feedback writes and 80 API reads a second, one write in twenty a wish for an export, over 10 brands; four web processes of "
    "four threads, one worker of two, as deploy/ has it. 429 answers of the flooding tenant are its allowance at work."
)
READ_FROM = ["brands/", "campaigns/", "metrics/?page_size=20", "recommendations/?page_size=20", "feedback/?page_size=20", "feedback/stats/", "skus/", "budget-plans/"]  # fmt: skip
SEED = "import json; from benchmarks import seed; print(json.dumps(seed.fill()))"


@dataclass
class Request:
    method: str
    path: str
    token: str
    body: Any = None
    tag: str = ""
    key: str = ""


@dataclass
class Answer:
    request: Request
    status: int  # 0: no answer
    seconds: float  # from when it was due
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Client:
    """HTTP/1.1 with connections that stay open; small, so that the load maker costs little."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: Request, timeout_s: float = 60) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; an error of the connection is status 0."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(request)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            return 0, {}, str(error).encode()

    async def _ask(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        kept = bool(self.free)
        pair = self.free.pop() if kept else await asyncio.open_connection("127.0.0.1", self.port)
        try:
            return await self._talk(pair, request)
        except (OSError, EOFError):
            pair[1].close()
            if not kept:
                raise
        return await self._talk(await asyncio.open_connection("127.0.0.1", self.port), request)  # it had been closed

    async def _talk(self, pair: Any, request: Request) -> tuple[int, dict[str, str], bytes]:
        reader, writer = pair
        body = b"" if request.body is None else json.dumps(request.body).encode()
        lines = [f"{request.method} {request.path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {request.token}", f"Content-Length: {len(body)}"]  # fmt: skip
        lines += ["Content-Type: application/json"] if body else []
        lines += [f"Idempotency-Key: {request.key}"] if request.key else []
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if "content-length" in headers:
            said = await reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            said = b""
            while size := int((await reader.readline()).strip() or b"0", 16):
                said += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readline()
        else:
            said = await reader.read()
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self.free.append(pair)
        return int(head[0].split()[1]), headers, said


async def arrive(port: int, requests: Iterator[Request], per_second: float, seconds: float, keep: bool = False) -> list[Answer]:  # fmt: skip
    """Send ``per_second`` requests a second for ``seconds`` s, each at its due time; all their answers."""
    client, started, open_now = Client(port), time.perf_counter(), set()
    answers: list[Answer] = []

    async def one(due: float, request: Request) -> None:
        status, headers, body = await client.ask(request)
        answers.append(Answer(request, status, time.perf_counter() - due, body if keep or status >= 400 else b"", headers if status == 429 else {}))  # fmt: skip

    for n in range(int(per_second * seconds)):
        due = started + n / per_second
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        task = asyncio.create_task(one(due, next(requests)))
        open_now.add(task)
        task.add_done_callback(open_now.discard)
    while open_now:
        await asyncio.wait(set(open_now))
    return answers


def mixed(brands: list[dict[str, Any]], seed: int = 1, writes: float = WRITES, reads: float = READS) -> Iterator[Request]:  # fmt: skip
    """Writes and reads of many people, in a fixed order of chances."""
    rng = random.Random(seed)
    for n in itertools.count():
        brand = rng.choice(brands)
        token = rng.choice(brand["people"])
        if rng.random() >= writes / (writes + reads):
            yield Request("GET", f"/api/v1/{rng.choice(READ_FROM)}", token, tag="read")
        elif n % 20 == 0:
            yield Request("POST", "/api/v1/exports/", token, {"format": "csv"}, "export", uuid.uuid4().hex)
        else:
            body = {
                "recommendation": rng.choice(brand["drafts"]),
                "kind": "rating",
                "value": rng.randint(1, 5),
                "note": f"note {n}",
            }
            yield Request("POST", "/api/v1/feedback/", token, body, "write", uuid.uuid4().hex)


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


def waiting(stack: Stack) -> int:
    return int(stack.sql("select count(*) from feedback_export where status in ('queued', 'running')")[0][0])


def drained(stack: Stack, seconds: float = 300) -> float:
    """Seconds until no wish waits any more."""
    started = time.monotonic()
    until(lambda: not waiting(stack), seconds, "the queue is drained", every=0.5)
    return time.monotonic() - started


def lost(stack: Stack, answers: list[Answer]) -> int:
    """Acknowledged writes that the database does not hold."""
    kept = {str(row[0]) for row in stack.sql("select uuid from feedback_feedback")} | {
        str(row[0]) for row in stack.sql("select id from feedback_export where status = 'succeeded'")
    }
    told = [json.loads(one.body)["id"] for one in answers if one.request.method == "POST" and 200 <= one.status < 300]
    return len(set(told) - kept) + len(told) - len(set(told))


def rows(size: str) -> list[Row]:
    with running(web=4, threads=4, workers=1, concurrency=2) as stack:
        brands = stack.ask(SEED)["brands"]
        asyncio.run(arrive(stack.port, mixed(brands, 0), 20, 5))  # templates, caches, connections
        found: list[Row] = []
        for part in (
            lambda: base(stack, brands, SECONDS[size]),
            lambda: burst(stack, brands),
            lambda: told_apart(stack, brands),
            lambda: flood(stack, brands, max(SECONDS[size] / 4, 15)),  # shorter, it would not use its allowance up
            lambda: soak(stack, brands, SOAK_S[size]),
        ):
            for row in part():
                print(f"load: {row.what}: {row.ours:.4g} {row.unit} ({row.bar})", file=sys.stderr, flush=True)
                found.append(row)
        return found


def base(stack: Stack, brands: list[dict[str, Any]], seconds: float) -> list[Row]:
    """The load of every day, and what is left of it when it ends."""
    answers = asyncio.run(arrive(stack.port, mixed(brands), WRITES + READS, seconds, keep=True))
    took = drained(stack)
    times = [one.seconds for one in answers]
    bad = [one for one in answers if not 200 <= one.status < 300]
    print(Counter(one.status for one in answers), file=sys.stderr)
    for one in bad[:3]:
        print(one.status, one.request.path, one.body[:200], file=sys.stderr)
    name = f"{WRITES:.0f} writes + {READS:.0f} reads a second for {seconds:.0f} s"
    p95, p99 = quantile(times, 0.95) * 1000, quantile(times, 0.99) * 1000
    return [
        Row(f"{name}: p95", p95, "ms", "median", quantile(times, 0.5) * 1000, "at most 300", p95 <= 300),
        Row(f"{name}: p99", p99, "ms", "", None, "at most 800", p99 <= 800),
        Row(f"{name}: errors of {len(answers):,}", len(bad), "", "", None, "0", not bad),
        Row(f"{name}: queue drained after", took, "s", "", None, "at most 60", took <= 60),
        Row(f"{name}: acknowledged but lost", gone := lost(stack, answers), "", "", None, "0", not gone),
    ]


def burst(stack: Stack, brands: list[dict[str, Any]], seconds: float = 10) -> list[Row]:
    """Four times the load for ten seconds; then how long until all is answered, drained and quick again."""
    answers = asyncio.run(arrive(stack.port, mixed(brands, 2), 4 * (WRITES + READS), seconds, keep=True))
    started = time.monotonic()
    drained(stack)
    calm = False
    while not calm and time.monotonic() - started < 300:
        now = asyncio.run(arrive(stack.port, mixed(brands, 3), (WRITES + READS) / 2, 3))
        calm = quantile([one.seconds for one in now], 0.95) <= 0.3
    took = time.monotonic() - started
    bad = sum(1 for one in answers if not (200 <= one.status < 300 or one.status == 429))
    gone = lost(stack, answers)
    return [
        Row(f"4 times that for {seconds:.0f} s: answers other than 2xx and 429, of {len(answers):,}", bad, "", "", None, "0", not bad),
        Row(f"4 times that for {seconds:.0f} s: acknowledged but lost", gone, "", "", None, "0", not gone),
        Row("after it: quick and drained again", took, "s", "slowest answer", max(one.seconds for one in answers), "at most 60", took <= 60),
    ]  # fmt: skip


def told_apart(stack: Stack, brands: list[dict[str, Any]], pairs: int = 400) -> list[Row]:
    """How long it takes to say that a row is not there: where another brand has it, and where nobody has.

    Turns about, so that what else the machine does falls on both alike. The share of pairs in which the other
    brand's takes longer (the area under the ROC curve) is one half where time tells nothing.
    """
    token, rng = brands[0]["people"][0], random.Random(4)
    times: dict[str, list[float]] = {"elsewhere": [], "nowhere": []}

    async def ask() -> None:
        client = Client(stack.port)
        for n in range(pairs):
            other = rng.choice(brands[1:])
            for resource, ids in (("campaigns", other["campaigns"]), ("recommendations", other["drafts"])):
                asked = [
                    ("elsewhere", rng.choice(ids)),
                    ("nowhere", str(uuid.UUID(int=rng.getrandbits(128), version=4))),
                ]
                for name, key in asked[:: 1 if n % 2 else -1]:
                    started = time.perf_counter()
                    status, _, _ = await client.ask(Request("GET", f"/api/v1/{resource}/{key}/", token))
                    times[name].append(time.perf_counter() - started)
                    assert status == 404, (resource, name, status)

    asyncio.run(ask())
    there, not_there = (statistics.median(times[name]) * 1000 for name in ("elsewhere", "nowhere"))
    longer = float(mannwhitneyu(times["elsewhere"], times["nowhere"]).statistic) / (2 * pairs) ** 2
    return [
        Row(f"404 of {2 * pairs} rows of other brands: median", there, "ms", "of rows that nobody has", not_there),
        Row("404 of another brand's row takes longer, share of pairs", longer, "", "no difference", 0.5, "0.45 to 0.55", abs(longer - 0.5) <= 0.05),
    ]  # fmt: skip


def flood(stack: Stack, brands: list[dict[str, Any]], seconds: float) -> list[Row]:
    """One tenant asks for twenty times what another does, above its allowance; how the others fare."""
    each = 3.0
    stack.given["RMN_API_RATE"] = f"{int(each * 3 * 60)}/min"
    restart(stack, "web")
    others, loud = brands[1:], brands[:1]

    def reads(of: list[dict[str, Any]], seed: int) -> Iterator[Request]:
        return mixed(of, seed, writes=1, reads=2)

    async def both(with_flood: bool) -> tuple[list[Answer], list[Answer]]:
        calm = arrive(stack.port, reads(others, 5), each * len(others), seconds)
        if not with_flood:
            return await calm, []
        return tuple(await asyncio.gather(calm, arrive(stack.port, reads(loud, 6), each * 20, seconds)))  # type: ignore[return-value]

    asyncio.run(arrive(stack.port, reads(others, 4), 10, 5))
    alone, _ = asyncio.run(both(False))
    stack.broker(1).flushdb()
    beside, noise = asyncio.run(both(True))
    before, after = (quantile([one.seconds for one in told], 0.95) * 1000 for told in (alone, beside))
    refused = [one for one in noise if one.status == 429]
    timed = all(int(one.headers.get("retry-after", 0)) > 0 for one in refused)
    errors = sum(1 for one in beside if not 200 <= one.status < 300)
    stack.given["RMN_API_RATE"] = "1000000/min"
    restart(stack, "web")
    return [
        Row(f"one tenant asks 20 times as much for {seconds:.0f} s: the others' p95", after, "ms", "without it", before, "at most twice", after <= 2 * before),
        Row(f"one tenant asks 20 times as much: its 429 answers of {len(noise):,}, all with Retry-After", len(refused), "", "errors of others", errors, "others 0", bool(refused) and timed and not errors),
    ]  # fmt: skip


def soak(stack: Stack, brands: list[dict[str, Any]], seconds: float) -> list[Row]:
    """Half the load for minutes: memory and connections between the first third and the end.

    A burst before it lets every thread of every process open its connection.
    """
    parts, marks = ("web", "worker-0", "beat-0"), []
    asyncio.run(arrive(stack.port, mixed(brands, 9), 4 * (WRITES + READS), 5))

    def look() -> dict[str, int]:
        open_now = stack.sql("select count(*) from pg_stat_activity where datname = 'rmn'")[0][0]
        return {name: stack.memory(name) for name in parts} | {"connections": int(open_now)}

    for n in range(3):
        asyncio.run(arrive(stack.port, mixed(brands, 10 + n), (WRITES + READS) / 2, seconds / 3))
        drained(stack)
        marks.append(look())
    found = []
    for name in ("web", "worker-0"):
        grown = 100 * (marks[-1][name] / marks[0][name] - 1)
        found.append(Row(f"half the load for {seconds:.0f} s: memory of {name.partition('-')[0]} grew by", grown, "%", "MB at the end", marks[-1][name] / 2**20, "at most 5", grown <= 5))  # fmt: skip
    more = marks[-1]["connections"] - marks[0]["connections"]
    found.append(Row("half the load: more database connections", more, "", "in all", marks[-1]["connections"], "none", more <= 0))  # fmt: skip
    return found


def restart(stack: Stack, name: str) -> None:
    """Stop a part in order and start it with what the environment says now."""
    stack.parts[name].stop()
    stack.again(name, 90)

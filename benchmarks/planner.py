"""Goals given to the embedded model, with and without a grammar, and to the playbooks; a whole plan; calibration.

Each goal names the tool that reaches it (or ``ask``, ``nothing``). The model is asked for its first step as
the planner asks: told the tools, held to their grammar, validated again, at most two repairs. "Without a
grammar" is the same but for that. Playbooks are right where the tool stands among their steps, or where none
fits and they ask. ``RMN_SHARED_DATA`` names the folder with sports forecasts and their reference scores.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import toolcalls
from benchmarks.harness import Row

ALONE = True  # minutes, a model server and a database of its own
NOTE = (
    "20 goals (5 without --full), SmolLM2-135M-Instruct on our own server, greedy, 4,096 tokens of room. The model is measured"
    ' as it is; what "auto" does with it is to leave goals to the playbooks. The model is judged by its first call alone, a'
    " playbook by all its steps: it has the easier test. The plan is that of the demo's tenant without a model: feeds read,"
    " curves fitted, budget split, other budgets asked for. Sports forecasts: the map is learnt on the earlier half and scored"
    " on the later. An ask that a busy server does not answer in time counts as not valid. Times are by the clock."
)
GOALS: list[tuple[str, set[str]]] = [
    ("Plan the budget of next quarter", {"allocate_budget"}),
    ("Split 250,000 USD over our campaigns for the next month", {"allocate_budget"}),
    ("Reallocate next month's budget after a stock-out of 'search'", {"allocate_budget"}),
    ("Launch a new product in spring with 50k USD", {"allocate_budget"}),
    ("Prove that the mailings bring incremental sales", {"design_experiment"}),
    ("Design a geo test of at most 8 stores for 4 weeks", {"design_experiment"}),
    ("What was spent and clicked between 2017-01-01 and 2017-06-30?", {"read_metrics"}),
    ("Were there failed loads or quarantined rows in the last 14 days?", {"harmonize_status"}),
    ("Fit the response curves on 2017 alone", {"fit_response"}),
    ("What would 100,000 and what would 200,000 USD bring?", {"what_if"}),
    ("What lift did our last test find?", {"analyze_experiment"}),
    ("May we say 'The best pasta in America' on instacart?", {"check_copy"}),
    ("Write five headlines for Penne Rigate, 16 oz, with the feature 'bronze cut'", {"write_copy"}),
    ("Is there personal data in this note: 'call Jane on 212-555-0147'?", {"scan_personal_data"}),
    ("What did earlier decisions about holidays come to?", {"recall_lessons"}),
    ("Ask the clean room 'amc' for the template 'reach_by_week'", {"query_clean_room"}),
    ("Check my new headline against the rules", {"ask"}),
    ("Write headlines for the product", {"ask"}),
    ("Sing me a song", {"nothing"}),
    ("Book a flight to Chicago for the team", {"nothing"}),
]
TOGETHER = 8  # goals asked at once: the server runs them as one batch


@dataclass(frozen=True)
class Asked:
    goal: str
    right: bool
    first: bool  # valid at first
    valid: bool  # valid at last
    tokens: int
    said: str


def rows(size: str) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        base = os.environ.get("RMN_BASE_MODEL") or str(Path.cwd() / "var" / "models" / "base")
        os.environ["RMN_VAR"], os.environ["RMN_BASE_MODEL"] = folder, base
        os.environ["DATABASE_URL"] = os.environ.get("RMN_BENCH_DATABASE_URL") or f"sqlite:///{folder}/db.sqlite3"
        os.environ.setdefault("SECRET_KEY", "only-for-the-benchmark-0123456789-0123456789-0123456789")
        os.environ["DJANGO_SETTINGS_MODULE"], os.environ["RMN_LOG_LEVEL"] = "rmn.settings", "ERROR"
        os.environ["RMN_INFERENCE_URL"] = ""
        import django

        django.setup()
        goals = GOALS if size == "full" else GOALS[::4]
        checked, calibrated, plan = toolcalls.rows("small"), _calibrated(), _plan(size)
        return [*_model(Path(base), Path(folder), goals), *plan, *checked, *calibrated]


# -- the model


def _model(base: Path, folder: Path, goals: list[tuple[str, set[str]]]) -> list[Row]:
    from agents.domain import playbooks
    from agents.inference.clients import client_for
    from agents.inference.launcher import own_server

    with own_server(base, folder / "adapters", ["--max-total-tokens", "4096", "--max-request-seconds", "1200"]) as url:
        client = client_for("tgi", url, 1200.0)
        try:
            held = _ask_all(client, goals, grammar=True)
            free = _ask_all(client, goals, grammar=False)
        finally:
            client.close()
    by_book = []
    for goal, fits in goals:
        chosen = playbooks.choose(goal)
        steps = {tool for tool, _ in playbooks.steps(chosen, goal)} if chosen else {"ask", "nothing"}
        by_book.append(bool(steps & fits))

    def share(found: list[bool]) -> float:
        return sum(found) / len(found)

    peer = "the same without a grammar"
    return [
        Row("first calls valid at once", share([one.first for one in held]), "share", peer, share([one.first for one in free])),
        Row("first calls valid after at most two repairs", share([one.valid for one in held]), "share", peer, share([one.valid for one in free])),
        Row("tool right for the goal, SmolLM2-135M", share([one.right for one in held]), "share", peer, share([one.right for one in free])),
        Row("tool right for the goal, SmolLM2-135M and playbooks", share([one.right for one in held]), "share", "the playbooks, no model", share(by_book)),
        Row("tokens read and written for a goal's first step", sum(one.tokens for one in held) / len(held), "tokens", peer, sum(one.tokens for one in free) / len(free)),
    ]  # fmt: skip


def _ask_all(client: Any, goals: list[tuple[str, set[str]]], *, grammar: bool) -> list[Asked]:
    from agents import planning

    with (
        mock.patch.object(planning, "grammar", return_value=planning.grammar() if grammar else None),
        ThreadPoolExecutor(TOGETHER) as pool,
    ):
        found = list(pool.map(lambda goal: _ask(client, *goal), goals))
    for one in found:
        print(
            f"  {'grammar' if grammar else 'free':7} {one.said:18} {'right' if one.right else 'wrong':5} {one.goal}",
            flush=True,
        )
    return found


def _ask(client: Any, goal: str, fits: set[str]) -> Asked:
    from django.db import connection

    from agents import planning, services, serving
    from agents.domain import bounds
    from agents.inference.errors import InferenceError
    from retailers.models import Brand
    from rmn.lib import tenancy

    said = [{"role": "system", "content": planning.told()}, {"role": "user", "content": goal}]
    limits = {**bounds.MOST, "seconds": 1e9}
    route, name, repaired = serving.Route(None, "base"), "", planning.REPAIRS + 1
    with tenancy.everyone():
        run = services.wish_for_plan(brand=Brand.objects.get(slug="acme-corp"), goal=goal)
        try:
            name, _, _, repaired = planning._next_call(run, client, route, said, limits, time.monotonic())
        except planning.NoValidCall:
            name = "no valid call"
        except InferenceError as error:
            name = type(error).__name__
        finally:
            connection.close()
    valid = repaired <= planning.REPAIRS
    return Asked(goal, valid and name in fits, repaired == 0, valid, int(run.trace.get("tokens", 0)), name)


# -- a whole plan


def _plan(size: str) -> list[Row]:
    from django.core.management import call_command

    from agents import services, tasks
    from agents.models import AgentRun
    from retailers.models import Brand
    from rmn.lib import tenancy

    with tenancy.everyone():
        call_command("migrate", verbosity=0)
        if not Brand.objects.filter(slug="acme-corp").exists():
            call_command("demo", until="products")
        brand = Brand.objects.get(slug="acme-corp")
        times = []
        for goal, _ in GOALS[: 3 if size == "full" else 1]:
            run = services.wish_for_plan(brand=brand, goal=goal)
            began, worked = time.perf_counter(), time.process_time()
            tasks.plan(str(run.pk), tenant=run.tenant)
            times.append((time.perf_counter() - began, time.process_time() - worked))
            done = AgentRun.objects.get(pk=run.pk)
            print(
                f"  {times[-1][0]:.2f} s, {times[-1][1]:.2f} s of a processor  {done.stop}, {done.steps.count()} steps: {goal}",
                flush=True,
            )
            for step in done.steps.order_by("number"):
                print(f"      {step.seconds:.2f} s  {step.tool} {step.errors or ''}", flush=True)
            if done.source != "playbook" or done.stop != "needs_input" or not (done.pending or {}).get("approve"):
                raise SystemExit(f"the plan did not come to a proposal: {done.stop} {done.pending} {done.error}")
    clock, cpu = (max(some) for some in zip(*times, strict=True))
    what = "a playbook's plan on the demo's tenant, slowest of " + str(len(times))
    return [
        Row(what, clock, "s", "its time on a processor", cpu, "at most 5 s", clock <= 5),
    ]


# -- calibration


def _calibrated() -> list[Row]:
    import numpy as np

    from agents.domain import calibration, scorefiles

    folder = Path(os.environ.get("RMN_SHARED_DATA", "")) / "llm" / "calibration"
    if not os.environ.get("RMN_SHARED_DATA") or not folder.is_dir():
        print("  RMN_SHARED_DATA is not set: no sports forecasts", flush=True)
        return []
    found, worst = [], 0.0
    for name, wanted in json.loads((folder / "expected.json").read_text()).items():
        if name != "rule":
            scores = scorefiles.score_forecasts(folder / name)
            told = {key: value for key, value in wanted.items() if key not in ("table", "n")}
            worst = max(worst, *(abs(scores[key] - value) for key, value in told.items()))
    found.append(
        Row(
            "scores of three files of forecasts, largest difference",
            worst,
            "",
            "reference values, six digits",
            None,
            "1e-6",
            worst <= 1e-6,
        )
    )
    for name in ("nfl_games_2017on.csv", "wnba_games.csv"):
        games = list(csv.DictReader((folder / name).read_text().splitlines()))
        games = sorted((row for row in games if row["prob1_outcome"] in ("0", "1")), key=lambda row: row["date"])
        p, y = (np.array([float(row[key]) for row in games]) for key in ("prob1", "prob1_outcome"))
        half = p.size // 2
        learned = calibration.recalibrate(p[:half], y[:half])
        raw, ours = (
            float(np.mean((p[half:] - y[half:]) ** 2)),
            float(np.mean((learned.apply(p[half:]) - y[half:]) ** 2)),
        )
        what = f"Brier of {p.size - half:,} later games, recalibrated ({name.split('_')[0].upper()})"
        found.append(Row(what, ours, "", "as they were stated", raw, "no worse", ours <= raw + 1e-12))
    return found

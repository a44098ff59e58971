"""Work of the training app that outlives a request: data sets, trainings, evaluations."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from celery import shared_task
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from agents import forecasts, serving
from agents import services as deployments
from agents.domain import briefs
from agents.inference import adapters as files
from agents.inference.base import base_digest
from agents.inference.errors import AdapterExists
from agents.inference.types import InferenceClient, Message, Question, Reply
from agents.models import Adapter
from campaigns import copy
from campaigns.models import Recommendation
from feedback import services as feedback
from feedback.models import Feedback, ReviewTask
from retailers import audit
from retailers import services as retailers
from retailers.models import Brand, Retailer, SKUCatalog
from rmn.lib import tenancy
from rmn.lib.commands import write_jsonl, write_text
from rmn.lib.errors import BadInput, RmnError
from rmn.lib.runs import Cancelled, LeaseLost, RunTaken
from rmn.lib.tasks import TenantTask
from training import suites
from training.domain import checks, curation, gate, lessons, mixing
from training.domain.curation import Judged, Report
from training.lora import train as trainer
from training.lora.compose import compose
from training.lora.config import HEED_NOISE, RunConfig
from training.lora.train import Progress
from training.models import Dataset, Evaluation, Lesson, TrainingRun, Withdrawal, allowed
from training.suites import LONGEST, SUITES, Row, Suite, checked

TOGETHER = 16  # texts asked of the server at a time
# of a lesson, by method: twice the rate teaches length before taste (docs/training.md)
RECIPES: dict[str, dict[str, Any]] = {"sft": {}, "dpo": {"learning_rate": 5e-5}}
# and by task: a planner is told all tools before each goal, some 1,600 tokens
LONG: dict[str, dict[str, Any]] = {"planning": {"max_length": 2304, "batch": 2, "accumulation": 4}}
ASKED_FIRST = 5.0  # priority of pairs that the gate waits for
USUAL_WIN_RATE = 0.6  # worth telling, before anybody has voted
STAGED_SHARE = 0.1  # of campaigns that meet a version on trial
log = structlog.get_logger(__name__)


class StepFailed(BadInput):
    """A step of a lesson failed or was cancelled."""


class NothingToLearn(StepFailed):
    """The answers make no data set of a kind."""


class TrainerDied(RmnError):
    """The trainer's process was killed or crashed; its last whole checkpoint is there to go on from."""

    retryable = True


# -- data sets


@shared_task(base=TenantTask)
def build_dataset(run_id: str) -> None:
    """Turn a brand's standing answers into rows that may train."""
    run = Dataset.objects.select_related("brand", "retailer").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked():
        build(run)


def build(run: Dataset) -> Path:
    """The work of a data set, inside ``run.tracked()``; returns its folder."""
    report = Report()
    if not run.task:
        run.report(0.1, "Reading the mappings")
        rows = suites.lessons_of_columns(run.retailer)
        report.read = len(rows)
        report.sources.update(row["origin"] for row in rows)
        return keep(run, rows, report)
    run.report(0.1, "Reading the answers")
    answers = curation.fair([_judged(row, timezone.now()) for row in standing(run)], report)
    answers = [*answers, *_by_networks(run)]
    if (run.task, run.kind) == ("planning", "sft"):
        answers += suites.practice()
    make = {"dpo": curation.preferences, "kto": curation.labels, "sft": curation.demonstrations}[run.kind]
    kept = curation.curate(make(answers, report), report, min_agreement=float(run.config.get("min_agreement", 0.0)))
    return keep(run, kept, report)


def keep(run: Dataset, rows: Sequence[dict[str, Any]], report: Report) -> Path:
    """Mask, split, describe and write a set's rows, and say so on its row; returns the folder.

    Raises:
        BadInput: too few rows.
    """
    owner = str(run.brand.uuid) if run.brand else "shared"
    rows, asked = curation.without(rows, suites.asked_at_the_gate(run.brand, run.task, sharing()))
    if asked:
        report.dropped["kept for the gate"] += asked
    run.report(0.5, f"{len(rows)} rows; masking personal data")
    rows = curation.mask(rows, masker(run.brand), report)
    train, held = curation.split(rows, owner)
    train, by_people = curation.hold_people(train, owner)
    facts = {
        "brand": run.brand.slug if run.brand else None,
        "brands": [run.brand.slug] if run.brand else sorted(sharing().values_list("slug", flat=True)),
        "retailer": run.retailer.slug if run.retailer else None,
        "task": run.task,
        "min_agreement": run.config.get("min_agreement", 0.0),
        "filters": {"undone": False, "withdrawn_drafts": False, "revoked_adapters": False, "gold": False},
    }
    told = curation.manifest(run.kind, train, held, report, by_people, **facts)
    folder = Path(settings.MEDIA_ROOT) / "datasets" / owner / told["digest"]
    write(folder, {"train": train, "eval": held, "people": by_people}, told)
    run.store(
        digest=told["digest"],
        path=str(folder.relative_to(settings.MEDIA_ROOT)),
        rows_train=len(train),
        rows_eval=len(held),
        manifest=told,
    )
    return folder


def write(folder: Path, parts: Mapping[str, Sequence[dict[str, Any]]], told: dict[str, Any]) -> None:
    """train.jsonl, eval.jsonl, people.jsonl (where some are held out), lineage.json and, last, manifest.json.

    The set is whole when the last stands. The folder is named by what it holds, so a set that stands is never
    written again; answers that give the same rows later are added to its lineage. lineage.json names the answers
    behind the rows, by UUID; it stays here and is in no export.
    """
    answers = {key for rows in parts.values() for row in rows for key in row.get("keys", ())}
    stands = (folder / "manifest.json").exists() and (folder / "train.jsonl").exists()
    if stands:
        answers |= set(_answers_behind(folder))
    write_text(folder / "lineage.json", json.dumps({"answers": sorted(answers)}))
    if stands:
        return
    for name, rows in parts.items():
        if rows or name != "people":
            write_jsonl(folder / f"{name}.jsonl", (curation.written(row) for row in rows))
    write_text(folder / "manifest.json", json.dumps(told, indent=1, sort_keys=True) + "\n")


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a set that stands, by part.

    Raises:
        BadInput: they are not those that its manifest was written for.
    """
    parts: dict[str, list[dict[str, Any]]] = {}
    for name in ("train", "eval", "people"):
        if (folder / f"{name}.jsonl").exists():
            with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
                parts[name] = [json.loads(line) for line in lines]
    told = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if curation.digest(parts.get("train", []), parts.get("eval", []), parts.get("people", [])) != told["digest"]:
        raise BadInput(f"{folder}: its rows were changed since it was built; build the set anew")
    return parts


def sharing() -> Any:
    """Brands whose answers may train what others use: those that opted in, and no other."""
    return Brand.objects.filter(shares_training=True, is_active=True)


def answers_of(brand: Brand | None, retailer: Retailer | None, task: str) -> Any:
    """Answers of a scope that were not taken back, and whose author and brand did not withdraw.

    Gold questions and repeats with sides swapped measure the reader; they are no second vote.
    """
    rows = allowed(Feedback.objects.standing().first_showings().filter(task=task))
    rows = rows.filter(brand=brand) if brand else rows.filter(brand__in=sharing())
    return rows if retailer is None else rows.filter(retailer=retailer)


def standing(run: Dataset) -> list[Feedback]:
    """Answers that may train: not taken back, not on withdrawn drafts or versions, no gold questions."""
    rows = answers_of(run.brand, run.retailer, run.task)
    revoked = Adapter.objects.filter(state=Adapter.State.REVOKED).values("digest")
    rows = rows.exclude(adapter_digest__in=revoked).exclude(other_adapter_digest__in=revoked)
    return list(rows.select_related("recommendation", "other").order_by("pk"))


def _judged(row: Feedback, now: datetime) -> Judged:
    a, b = row.recommendation, row.other
    return Judged(
        kind=row.kind,
        prompt=row.prompt or (a.prompt if a else ""),
        text_a=a.text if a else row.chosen,
        text_b=b.text if b else row.rejected,
        outcome=row.outcome,
        strength=row.strength,
        value=row.value,
        correction=row.text,
        person=str(row.by_id or ""),
        origin=row.origin,
        cluster=row.prompt_cluster or (a.prompt_cluster if a else ""),
        key=str(row.uuid),
        reasons=tuple(str(reason) for reason in row.reasons),
        age_days=(now - row.created_at).total_seconds() / 86_400,
        first=row.shown_first,
    )


def _by_networks(run: Dataset) -> list[Judged]:
    """Pairs that a network decided by taking one text and refusing the other; no person's vote."""
    if run.task != "creative":
        return []
    rows = Recommendation.objects.for_task("creative").filter(brand__in=[run.brand] if run.brand else sharing())
    rows = rows.exclude(adapter_digest__in=Adapter.objects.filter(state=Adapter.State.REVOKED).values("digest"))
    if run.retailer:
        rows = rows.filter(retailer=run.retailer)
    return [
        Judged(
            kind="pair",
            prompt=good.prompt,
            text_a=good.text,
            text_b=bad.text,
            outcome="a",
            origin="network",
            cluster=good.prompt_cluster,
        )
        for good, bad in copy.network_pairs(rows)
    ]


def masker(brand: Brand | None) -> curation.Masker:
    """Masks personal data, with tags under the owner's own key."""
    masked = retailers.masker(brand)

    def mask(text: str) -> tuple[str, int]:
        found = masked(text)
        return found.text, len(found.entities)

    return mask


# -- training


@shared_task(base=TenantTask)
def train(run_id: str) -> None:
    """Train an adapter in a process of its own, and register what comes out."""
    run = TrainingRun.objects.select_related("brand", "retailer", "dataset", "parent").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked():
        composed(run) if run.method == TrainingRun.COMPOSED else work(run)


def composed(run: TrainingRun) -> Adapter:
    """The work of a composition, inside ``run.tracked()``: a version of its own, to be gated like any other.

    Raises:
        BadInput: the parts do not fit together, one was withdrawn meanwhile, or a part's guard fails in the sum.
    """
    out = Path(settings.VAR) / "training" / str(run.pk) / "adapter"
    shutil.rmtree(out, ignore_errors=True)  # of an attempt before
    wanted = {one["adapter"]: float(one["weight"]) for one in run.config["parts"]}
    rows = Adapter.objects.filter(digest__in=wanted).filter(Q(brand=run.brand) | Q(brand=None))
    gone = wanted.keys() - set(rows.exclude(state=Adapter.State.REVOKED).values_list("digest", flat=True))
    if gone:
        raise BadInput(f"{', '.join(sorted(one[:12] for one in gone))}: withdrawn meanwhile; take other versions")
    parts = [(Path(settings.RMN_ADAPTERS) / digest, weight) for digest, weight in wanted.items()]
    run.report(0.1, f"Adding {len(parts)} versions by {run.config['compose']}")
    if run.config.get("search"):
        with serving.inference() as client:
            found = mix(client, parts, run.config["compose"], out, suites.of(SUITES[run.task], brand=run.brand))
        run.report(0.9, f"Weights {', '.join(f'{w:g}' for w in found.weights)}, the best of {len(found.tried)}")
    else:
        compose(parts, run.config["compose"], _made(out.parent) / out.name)
    run.report(0.95, "Checking and registering the version")
    adapter = serving.register(out, kind="composed", brand=run.brand, retailer=run.retailer, task=run.task)
    run.store(adapter=adapter)
    return adapter


def work(run: TrainingRun) -> Adapter:
    """The work of a training, inside ``run.tracked()``.

    The trainer is a child process: a cancel or a lost lease ends it, its checkpoints stay, and the
    next attempt goes on from the last whole one.

    Raises:
        BadInput: the trainer refused, a lamp stopped it, or disk or memory ended; with its last line.
        TrainerDied: it was killed; the next attempt goes on from its last checkpoint.
    """
    folder = Path(settings.VAR) / "training" / str(run.pk)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run.json"
    if not file.exists():
        file.write_text(json.dumps(_asked(run, folder), indent=1), encoding="utf-8")
    run.report(0.01, "Loading the base model")
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(
            [sys.executable, "-m", "training.lora", str(file), "--resume", "--until-stdin-closes"],
            cwd=settings.BASE_DIR,
            stdin=subprocess.PIPE,  # closes when this worker dies: then the trainer ends too
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=environment,
        )
        try:
            while child.poll() is None:
                time.sleep(1.0)
                _follow(run, folder)
            said.seek(0)
            last = [line.strip() for line in said.read().splitlines() if line.strip()]
        finally:
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait(5)
            if child.stdin is not None:
                child.stdin.close()
    if child.returncode != 0:
        words = (last or ["it said nothing"])[-1].removeprefix("training.lora: ")
        if child.returncode == 2:
            run.store(stopped_by=_named_end(words))
            raise BadInput(words)
        raise TrainerDied(f"the trainer ended with {child.returncode}: {words[:400]}")
    adapter = published(run, folder / "adapter")
    if run.forecast is not None and run.seconds is not None:
        source = {"training_run": str(run.pk), "attempts": run.attempts}
        forecasts.resolve(run.forecast, observed=round(run.seconds / 60, 2), source=source)
    return adapter


def published(run: TrainingRun, folder: Path) -> Adapter:
    """The finished folder's row, in the run's scope; a worker that is stale changes nothing."""
    manifest = files.read_manifest(folder)
    run.metrics = manifest["curve"]
    run.report(0.97, "Checking and registering the adapter")  # raises where another worker has the run now
    adapter = serving.register(
        folder,
        kind="brand" if run.brand_id else "task" if run.task else "retailer",
        brand=run.brand,
        retailer=run.retailer,
        task=run.task,
    )
    run.store(metrics=run.metrics, adapter=adapter, stopped_by=manifest.get("stopped_by") or "")
    return adapter


def train_file(run: TrainingRun, asked: RunConfig, *, resume: bool = False, tell: Progress | None = None) -> None:
    """A training as its file asks for it, in this process, inside ``run.tracked()``.

    The adapter stands where the file says. It is registered where its data set was built here for this
    installation's base model; else it belongs to nobody's scope, and the log says so.

    Raises:
        RmnError: as the trainer, with its lamp or end kept on the row; Cancelled where a person asked.
    """
    ended: list[Exception] = []

    def told(line: Mapping[str, Any]) -> None:
        if tell is not None:
            tell(line)
        run.metrics = [*run.metrics, {k: v for k, v in line.items() if k != "steps"}]
        try:
            run.store(metrics=run.metrics)
            run.report(
                0.05 + 0.9 * line["step"] / line["steps"],
                f"Step {line['step']} of {line['steps']}, loss {line['loss']:.3f}",
            )
        except (Cancelled, LeaseLost) as end:
            ended.append(end)
            raise trainer.Stopped(str(end)) from None

    try:
        manifest = trainer.train(asked, resume=resume, progress=told)
    except RmnError as error:
        if ended:
            raise ended[0] from None
        run.store(stopped_by=_named_end(str(error)))
        raise
    if run.dataset is not None and manifest["base_digest"] == base_digest(Path(settings.RMN_BASE_MODEL)):
        published(run, asked.out)
        return
    run.store(metrics=manifest["curve"], stopped_by=manifest.get("stopped_by") or "")
    run.report(0.97, "Not registered: its data set was not built here, or the base model is another")


def _named_end(words: str) -> str:
    """The name that a trainer's last line begins with: a lamp, disk_full, out_of_memory; nothing for another refusal."""
    name = words.split(" ")[0]
    return name[:60] if " at step " in words or words.startswith("out_of_memory before") else ""


def _asked(run: TrainingRun, folder: Path) -> dict[str, Any]:
    if run.dataset is None or not run.dataset.path:
        raise BadInput("no data set was chosen; build one first")
    read(Path(settings.MEDIA_ROOT) / run.dataset.path)
    facts = {
        "brand": run.brand.slug if run.brand else None,
        "retailer": run.retailer.slug if run.retailer else None,
        "task": run.task,
        "dataset": run.dataset.digest,
        "training_run": str(run.pk),
    }
    measured = (run.dataset.manifest.get("label_noise") or {}).get("smoothing")
    heeds = HEED_NOISE & set(run.config.get("loss_types") or ["sigmoid"])
    noise = (
        {"label_smoothing": measured}
        if run.method == "dpo" and measured and heeds and "label_smoothing" not in run.config
        else {}
    )
    given = {
        **run.config,
        "method": run.method,
        **noise,
        "base_model": str(Path(settings.RMN_BASE_MODEL).absolute()),
        "data": str(Path(settings.MEDIA_ROOT) / run.dataset.path),
        "out": str(folder / "adapter"),
        "facts": facts,
    }
    if run.parent is not None:
        given["parent"] = str(serving.folder_of(run.parent))
    return given


def _follow(run: TrainingRun, folder: Path) -> None:
    """Tell the row how far the trainer is; raises Cancelled where a person asked."""
    try:
        lines = (folder / ".adapter.work" / "progress.jsonl").read_text(encoding="utf-8").splitlines()
        curve = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        curve = []
    if not curve:
        run.report(max(run.progress, 0.01))
        return
    last = curve[-1]
    if len(curve) != len(run.metrics):
        run.metrics = [{k: v for k, v in line.items() if k != "steps"} for line in curve]
        TrainingRun.objects.filter(pk=run.pk).update(metrics=run.metrics)
        run.report(
            0.05 + 0.9 * last["step"] / last["steps"],
            f"Step {last['step']} of {last['steps']}, loss {last['loss']:.3f}",
        )
    else:
        run.report(run.progress)


# -- evaluation


@dataclass(frozen=True)
class Answers:
    """What a side wrote, and how long each text took."""

    texts: list[str]
    latencies_s: list[float]


@shared_task(base=TenantTask)
def evaluate(run_id: str) -> None:
    """Candidate against champion on a suite, through the serving engine."""
    run = Evaluation.objects.select_related("brand", "retailer", "candidate", "champion").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked(), serving.inference() as client:
        judge(run, client)


def judge(run: Evaluation, client: InferenceClient) -> gate.Result:
    """The work of an evaluation, inside ``run.tracked()``: the same items to all sides, greedy.

    The sides are the candidate, the champion (none: the base model) and the base model under its best
    prompt; the candidate must beat both. What a side wrote for the same items before is not asked again.
    """
    suite = suites.of(run.suite, brand=run.brand, networks=run.config.get("networks"), most=run.config.get("most"))
    sides: list[tuple[str, Adapter | None, list[list[Message]]]] = [
        ("candidate", run.candidate, suite.asked),
        ("champion", run.champion, suite.asked),
    ]
    if suite.worked and run.config.get("prompt_alone", True) and run.candidate is not None:
        sides.append(("prompt_alone", None, suite.worked))
    cases: dict[str, list[Row]] = {}
    seconds: dict[str, float] = {}
    for place, (name, adapter, asked) in enumerate(sides):
        run.report(0.05 + 0.9 * place / len(sides), f"{name.replace('_', ' ')}: {len(asked)} texts")
        if adapter is not None:
            serving.ensure(client, adapter)
        said = answers(client, suite, asked, adapter.digest if adapter else None)
        cases[name], seconds[name] = suite.rows(said.texts), statistics.median(said.latencies_s)
    limits = {name: float(run.config[name]) for name in ("margin", "minimum") if name in run.config}
    found = suite.compared(cases["candidate"], cases["champion"], **limits)
    if "prompt_alone" in cases:
        found = gate.earned(found, suite.compared(cases["candidate"], cases["prompt_alone"], **limits))
    voted = blind_votes(run)
    found = gate.heard(found, voted)
    ask_for_votes(run, found, voted)
    result = {
        **found.row(),
        "candidate": run.candidate.digest if run.candidate else "base",
        "champion": run.champion.digest if run.champion else "base",
        "pass_rate": {side: checks.summary(rows) for side, rows in cases.items()},
        "length": {side: sum(row["length"] for row in rows) / len(rows) for side, rows in cases.items()},
        "latency_s": seconds,  # median, as each side was asked: told, not tested, for machines are shared
        "examples": suite.examples,
        "flipped": [
            {"product": a["product"], "candidate": a["text"], "champion": b["text"], "passed": a["passed"], "why": a["why"] or b["why"]}
            for a, b in zip(cases["candidate"], cases["champion"], strict=True)
            if a["passed"] != b["passed"]
        ][:50],
        "failing": {side: len({row["cluster"] for row in rows if not row["passed"]}) for side, rows in cases.items()},
    }  # fmt: skip
    run.store(verdict=found.verdict, result=result)
    if run.candidate is not None:
        run.candidate.gate = {
            "verdict": found.verdict,
            "evaluation": str(run.pk),
            "reasons": list(found.reasons),
            "pass_rate": result["pass_rate"]["candidate"],
        }
        run.candidate.save(update_fields=["gate"])
    return found


def blind_votes(run: Evaluation) -> dict[str, Any] | None:
    """What people said in blind pairs of these two versions; None where they have not."""
    mine, theirs = (one.digest if one else "" for one in (run.candidate, run.champion))
    rows = allowed(Feedback.objects.standing().human().pairs().first_showings())
    rows = rows.filter(brand=run.brand, task=run.task)
    rows = rows.filter(
        Q(adapter_digest=mine, other_adapter_digest=theirs) | Q(adapter_digest=theirs, other_adapter_digest=mine)
    ).exclude(outcome=Feedback.Outcome.BOTH_BAD)
    won, longer, clusters = [], [], []
    for row in rows.select_related("recommendation", "other").order_by("pk"):
        if row.recommendation is None or row.other is None:
            continue
        first = row.adapter_digest == mine
        ours, other = (row.recommendation, row.other) if first else (row.other, row.recommendation)
        won.append({"tie": 0.5, "a": 1.0 if first else 0.0, "b": 0.0 if first else 1.0}[row.outcome])
        longer.append(float(len(ours.text) - len(other.text)))
        clusters.append(row.prompt_cluster or row.recommendation.prompt_cluster or str(row.pk))
    return gate.votes(won, longer, clusters) if won else None


def ask_for_votes(run: Evaluation, found: gate.Result, voted: Mapping[str, Any] | None) -> None:
    """Put open pairs of these two versions first in the queue while the gate cannot decide, with the votes it lacks."""
    mine, theirs = (one.digest if one else "" for one in (run.candidate, run.champion))
    pairs = ReviewTask.objects.open().filter(brand=run.brand, task=run.task, kind="pair", is_gold=False, repeats=None)
    pairs = pairs.filter(
        Q(recommendation__adapter_digest=mine, other__adapter_digest=theirs)
        | Q(recommendation__adapter_digest=theirs, other__adapter_digest=mine)
    )
    lacking = int(voted["needed_votes"]) - int(voted["votes"]) if voted else gate.pairs_needed(USUAL_WIN_RATE)
    open_still = found.verdict in ("not_enough_evidence", "not_worse") and lacking > 0
    wish = (ASKED_FIRST, lacking) if open_still else (0.0, None)
    feedback.prioritize(dict.fromkeys(pairs.values_list("pk", flat=True), wish))


def answers(client: InferenceClient, suite: Suite, asked: Sequence[Sequence[Message]], adapter: str | None) -> Answers:
    """A side's greedy texts; kept by what decides them, so that no side writes the same twice."""
    engine = client.info()
    decides = [engine.get(k) for k in ("model_id", "model_sha", "version", "dtype", "device")]
    if not engine.get("model_sha"):
        decides.append(os.urandom(8).hex())  # an engine that does not say what it serves is asked anew
    what = [decides, adapter, asked, suite.most_tokens, *([suite.pattern] if suite.pattern else [])]
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    file = Path(settings.MEDIA_ROOT) / "evaluations" / f"{key}.json"
    try:
        return Answers(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        pass

    def one(messages: Sequence[Message]) -> Reply:
        return client.generate(
            Question(messages=messages, adapter=adapter, max_tokens=suite.most_tokens, pattern=suite.pattern)
        )

    with ThreadPoolExecutor(TOGETHER) as pool:
        replies = list(pool.map(one, asked))
    found = Answers([reply.text for reply in replies], [reply.latency_s for reply in replies])
    write_text(file, json.dumps(asdict(found), ensure_ascii=False))
    return found


def draft(
    client: InferenceClient, item: briefs.Item, adapter: str | None, check: checks.Policy, **how: Any
) -> dict[str, Any]:
    """One text for an item, with what it was and whether it passes."""
    question = Question(messages=briefs.messages(item), adapter=adapter, max_tokens=LONGEST, **how)
    return checked(item, client.generate(question).text, check)


@dataclass(frozen=True)
class Mixed:
    """A composition that was searched for: its folder, the weights, what each mixture scored, what it lost."""

    folder: Path
    weights: tuple[float, ...]
    tried: list[dict[str, Any]]
    kept: mixing.Kept
    found: gate.Result  # against the best part, on products that the weights were not chosen on


def mix(
    client: InferenceClient,
    parts: Sequence[tuple[Path, float]],
    method: str,
    out: Path,
    suite: Suite,
    rank: int = 0,
) -> Mixed:
    """Search weights on one half of the products, judge the choice on the other; a part's guard lost refuses it.

    Raises:
        BadInput: parts do not fit together, too few products, or a guard of a part fails in the sum; nothing stays.
    """
    search, rest = mixing.halves(suite.clusters)
    if not search or not rest:
        raise BadInput("weights are searched on one half of the products and judged on the other: two are the least")

    def told(folder: Path, places: Sequence[int]) -> list[dict[str, Any]]:
        digest = files.digest(folder)
        with contextlib.suppress(AdapterExists):
            client.load(digest, str(folder.absolute()), {"digest": digest})
        return suite.rows(answers(client, suite, [suite.asked[place] for place in places], digest).texts, places)

    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=_made(out.parent)))
    try:
        tried: list[dict[str, Any]] = []
        for weights in mixing.mixtures(len(parts), [weight for _, weight in parts]):
            folder = scratch / f"m{len(tried)}"
            compose([(path, w) for (path, _), w in zip(parts, weights, strict=True)], method, folder, rank=rank)
            rows = told(folder, search)
            tried.append(
                {"weights": list(weights), "passes": sum(row["passed"] for row in rows) / len(rows), "folder": folder}
            )
        best = max(tried, key=lambda one: one["passes"])  # the first of equals
        mine = told(best["folder"], rest)
        theirs = {files.digest(path)[:12]: told(path, rest) for path, _ in parts}
        kept = mixing.guards_kept(
            suite.measures(mine), {name: suite.measures(rows) for name, rows in theirs.items()}, suite.guards
        )
        if not kept.holds:
            raise BadInput(
                f"a part's guard fails in the sum: {'; '.join(kept.lost)}; try svd, other parts, or train anew"
            )
        strongest = max(theirs.values(), key=lambda rows: sum(row["passed"] for row in rows))
        best["folder"].rename(out)
        shown = [{k: v for k, v in one.items() if k != "folder"} for one in tried]
        return Mixed(out, tuple(best["weights"]), shown, kept, suite.compared(mine, strongest))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# -- lessons: from answers to a version on trial


@shared_task(base=TenantTask)
def teach(run_id: str) -> None:
    """Build the sets, train, gate, stage: each step a run of its own, done once however often this is sent."""
    run = Lesson.objects.select_related("brand", "retailer").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked():
        chain(run)


def chain(run: Lesson) -> None:
    """The work of a lesson, inside ``run.tracked()``.

    SFT from the base, DPO on top where people or rules preferred something, and the better of the two
    against what serves. Only a version that the gate finds better is staged, as challenger.

    Raises:
        BadInput: a step failed; with its words.
    """
    told: list[str] = []

    def tell(words: str) -> None:
        told.append(words)
        run.store(found=list(told))

    first = _taught(run, "sft", None, 0.02)
    tell(f"Imitation: {_words(first)}")
    if not run.task:
        _gated(run, first.adapter, serving.reader(run.retailer), tell)
        return
    second: TrainingRun | None = None
    try:
        second = _taught(run, "dpo", first.adapter, 0.35)
    except NothingToLearn as nothing:
        tell(f"Preferences: none trained ({nothing})")
    else:
        tell(f"Preferences: {_words(second)}")
    if run.brand is None:
        run.store(outcome=Lesson.Outcome.TRAINED, adapter=(second or first).adapter)
        return
    best = first.adapter
    if second is not None:
        trial = _evaluated(run, second.adapter, first.adapter, 0.70, prompt_alone=False)
        if trial.verdict == "better":
            best = second.adapter
        tell(f"Preferences against imitation alone: {_said(trial)}")
    _gated(run, best, serving.route(brand=run.brand, retailer=run.retailer, task=run.task).adapter, tell)


def _gated(run: Lesson, best: Adapter | None, champion: Adapter | None, tell: Callable[[str], None]) -> None:
    """Against what serves; only what the gate finds better is proved and given an alias.

    A brand's version becomes challenger for a share of its campaigns. What reads a retailer's reports only
    suggests, so it takes over at once.
    """
    final = _evaluated(run, best, champion, 0.80)
    tell(f"Against {f'the champion {champion.digest[:12]}' if champion else 'the base model'}: {_said(final)}")
    if final.verdict != "better" or best is None:
        run.store(outcome=Lesson.Outcome.NOT_PROMOTED, adapter=best)
        return
    if not run.task:
        _lend(run, best)
        tell("Suggests fields for columns that no rule knows")
        run.store(outcome=Lesson.Outcome.PROMOTED, adapter=best)
        return
    if run.deployment is None:
        wish = deployments.wish_for_deployment(
            adapter=best, alias="challenger", share=STAGED_SHARE, by=run.requested_by
        )
        run.store(deployment=wish)
    _step(run, run.deployment, 0.95, serving.deploy)
    tell(f"Staged as challenger for {STAGED_SHARE:.0%} of campaigns")
    run.store(outcome=Lesson.Outcome.STAGED, adapter=best)


def _lend(run: Lesson, adapter: Adapter) -> None:
    """Prove shared knowledge on the server and have it read; it belongs to no brand, so it is no deployment of one.

    Raises:
        StepFailed: the proof failed; nothing was moved.
    """
    run.report(0.95, "Loading and proving")
    with serving.inference() as client:
        proof = serving.prove(client, adapter)
    adapter.proof = proof.as_json() | {"at": timezone.now().isoformat()}
    adapter.save(update_fields=["proof"])
    if not proof.passed:
        raise StepFailed(f"{adapter} does not act as trained: {'; '.join(proof.reasons)}")
    serving.move(adapter, "champion", reason=f"lesson {run.pk}")


def _taught(run: Lesson, kind: str, parent: Adapter | None, share: float) -> TrainingRun:
    scope = {"brand": run.brand, "retailer": run.retailer, "task": run.task, "requested_by": run.requested_by}
    data = run.datasets.filter(kind=kind).first()
    if data is None:
        data = run.datasets.create(**scope, kind=kind, config={"min_agreement": run.config.get("min_agreement", 0.0)})
    try:
        _step(run, data, share, build)
    except StepFailed as failed:
        raise NothingToLearn(str(failed)) from None
    trained = run.training_runs.filter(method=kind).first()
    if trained is None:
        config = {**RECIPES[kind], **LONG.get(run.task, {}), **dict(run.config.get(kind) or {})}
        trained = TrainingRun.objects.wish(
            dataset=data, parent=parent, config=config, requested_by=run.requested_by, lesson=run
        )
    _step(run, trained, share + 0.05, work)
    return trained


def _evaluated(
    run: Lesson, candidate: Adapter | None, champion: Adapter | None, share: float, **config: Any
) -> Evaluation:
    given = {**dict(run.config.get("evaluation") or {}), **config}
    found = run.evaluations.filter(candidate=candidate, champion=champion).first()
    if found is None:
        found = run.evaluations.create(
            brand=run.brand,
            retailer=run.retailer,
            task=run.task,
            candidate=candidate,
            champion=champion,
            suite=SUITES[run.task],
            requested_by=run.requested_by,
            config=given,
        )

    def judged(one: Evaluation) -> None:
        with serving.inference() as client:
            judge(one, client)

    _step(run, found, share, judged)
    return found


def _step(run: Lesson, child: Any, share: float, do: Callable[[Any], Any]) -> None:
    """Do a step's work, or wait for the worker that does it; a step that is done is passed by.

    Raises:
        StepFailed: it failed or was cancelled.
    """
    words = f"{child.words}: {child.kind}"
    while True:
        run.report(share, words)
        child.refresh_from_db()
        if child.status == child.Status.SUCCEEDED:
            return
        if child.is_finished:
            raise StepFailed(f"{child.words.lower()}: {child.error or child.status}")
        try:
            with child.tracked():
                do(child)
        except RunTaken:
            time.sleep(2.0)


def _words(trained: TrainingRun) -> str:
    data, last = trained.dataset, trained.metrics[-1]
    assert data is not None  # noqa: S101  # it was trained on one
    return f"{data.rows_train} rows, {last['step']} steps, loss {trained.metrics[0]['loss']:.3f} to {last['loss']:.3f}"


def _said(found: Evaluation) -> str:
    reasons = "; ".join(found.result.get("reasons") or [])
    needed = found.result.get("needed_cases")
    more = f"; about {needed} cases would decide" if needed and found.verdict == "not_enough_evidence" else ""
    return f"{found.verdict.replace('_', ' ')} ({reasons}{more})"


@shared_task
def teach_nightly() -> dict[str, int]:
    """Start a lesson wherever new answers can change the gate's verdict; say in the log why not elsewhere."""
    counts = {"started": 0, "left": 0}
    with tenancy.everyone():
        scopes = answers_of_people().order_by().values_list("brand", "retailer", "task").distinct()
        for brand_id, retailer_id, task in sorted(scopes, key=str):
            brand = Brand.objects.get(pk=brand_id)
            retailer = Retailer.objects.filter(pk=retailer_id).first()
            start, why = lessons.worth(standing_of(brand, retailer, task))
            log.info("nightly_lesson", brand=brand.slug, task=task, start=start, why=why)
            if not brand.is_active or not start:
                counts["left"] += 1
                continue
            run = Lesson.objects.wish(brand=brand, retailer=retailer, task=task, reason=f"nightly: {why}")
            run.enqueue()
            counts["started"] += 1
    return counts


def answers_of_people() -> Any:
    return allowed(Feedback.objects.standing().human()).filter(task__in=SUITES, is_gold=False)


def standing_of(brand: Brand, retailer: Retailer | None, task: str) -> lessons.Standing:
    """What a scope has to learn from, and what its gate can tell apart."""
    rows = answers_of(brand, retailer, task).filter(origin=Feedback.Origin.HUMAN)
    rows = rows.exclude(prompt_cluster__in=suites.asked_at_the_gate(brand, task))  # they train nothing
    last = Lesson.objects.of_scope(brand, retailer, task).filter(status=Lesson.Status.SUCCEEDED).first()
    champion = serving.route(brand=brand, retailer=retailer, task=task).adapter
    done = Evaluation.objects.filter(brand=brand, retailer=retailer, task=task, status=Evaluation.Status.SUCCEEDED)
    failing = next(
        (one.result["failing"]["champion"] for one in done.filter(champion=champion) if "failing" in one.result), None
    )
    if failing is None and champion is not None:
        failing = next((one.result["failing"]["candidate"] for one in done.filter(candidate=champion) if "failing" in one.result), None)  # fmt: skip
    return lessons.Standing(
        answers=rows.count(),
        new=rows.filter(created_at__gt=last.created_at).count() if last else rows.count(),
        products=SKUCatalog.objects.filter(brand=brand, facts__unseen=True).count(),
        failing=failing,
        taught=last is not None,
    )


# -- unlearning


@dataclass(frozen=True)
class Dependants:
    """What rests on answers: sets that hold them, versions trained on those sets, and what was made of these."""

    answers: int
    datasets: list[Dataset]
    adapters: list[Adapter]


def dependants(answers: Any) -> Dependants:
    """All that rests on these answers, by the lineage kept beside each set and the parents of each version."""
    keys = {str(key) for key in answers.values_list("uuid", flat=True)}
    sets = [
        one
        for one in Dataset.objects.filter(status=Dataset.Status.SUCCEEDED, revoked_at=None).select_related("brand", "retailer")
        if keys & set(_answers_behind(Path(settings.MEDIA_ROOT) / one.path))
    ]  # fmt: skip
    digests = {one.digest for one in sets}
    trained = TrainingRun.objects.filter(dataset__in=sets).exclude(adapter=None)
    gone = set(trained.values_list("adapter__digest", flat=True))
    rows = list(Adapter.objects.exclude(state=Adapter.State.REVOKED).select_related("brand", "retailer"))
    gone |= {one.digest for one in rows if (one.manifest.get("data") or {}).get("set") in digests}
    while True:
        heirs = {one.digest for one in rows if one.digest not in gone and gone & set(one.parents)}
        if not heirs:
            break
        gone |= heirs
    return Dependants(len(keys), sets, [one for one in rows if one.digest in gone])


def _answers_behind(folder: Path) -> list[str]:
    try:
        told = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return list(told.get("answers") or [])


@shared_task(base=TenantTask)
def unlearn(run_id: str) -> None:
    """Withdraw what rests on a person's or a brand's answers, and have it made anew without them."""
    run = Withdrawal.objects.select_related("brand", "person", "requested_by").get(pk=run_id)
    if run.is_finished:
        return
    with run.tracked():
        withdraw(run)


def withdraw(run: Withdrawal) -> None:
    """The work of a withdrawal, inside ``run.tracked()``; done again it finds nothing left to do."""
    run.report(0.1, "Finding what rests on these answers")
    found = dependants(run.answers)
    earlier = run.result or {}
    now = timezone.now()
    reason = f"rests on withdrawn answers (withdrawal {str(run.pk)[:8]})"
    with transaction.atomic():
        moved = serving.revoke({one.digest for one in found.adapters}, reason)
        Dataset.objects.filter(pk__in=[one.pk for one in found.datasets]).update(revoked_at=now)
        for step in TrainingRun.objects.unfinished().filter(dataset__in=found.datasets):
            step.request_cancel()
        scopes = {(one.brand, one.retailer, one.task) for one in found.datasets}
        whole_brand = run.person is None
        again = [
            Lesson.objects.wish(brand=brand, retailer=retailer, task=task, reason=f"unlearning {str(run.pk)[:8]}")
            for brand, retailer, task in sorted(scopes, key=str)
            if task in SUITES and not (whole_brand and brand == run.brand)
        ]
        result = {
            "answers": found.answers,
            "datasets": [*earlier.get("datasets", []), *(str(one.pk) for one in found.datasets)],
            "adapters": [*earlier.get("adapters", []), *sorted({one.digest for one in found.adapters})],
            "scopes_moved": [*earlier.get("scopes_moved", []), *moved],
            "lessons": [*earlier.get("lessons", []), *(str(one.pk) for one in again)],
        }
        run.store(result=result)
        audit.record(
            brand=run.brand,
            actor=getattr(run.requested_by, "username", "") or "the operator",
            action="answers withdrawn",
            subject=run,
            payload={**result, "reason": run.reason, "person": run.person_id},
        )
        for lesson in again:
            lesson.enqueue()
    run.report(0.7, "Deleting rows and weights")
    for path in {Path(settings.MEDIA_ROOT) / one.path for one in found.datasets}:
        for name in ("train.jsonl", "eval.jsonl", "people.jsonl"):
            (path / name).unlink(missing_ok=True)
    serving.discard({one.digest for one in found.adapters})

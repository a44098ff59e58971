"""Work of the training app that outlives a request: data sets, trainings, evaluations."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from celery import shared_task
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from agents import serving
from agents.domain import briefs
from agents.inference import adapters as files
from agents.inference.errors import AdapterExists
from agents.inference.types import InferenceClient, Question
from agents.models import Adapter
from feedback.models import Feedback
from retailers import services as retailers
from retailers.models import Brand, SKUCatalog
from rmn.lib.commands import write_jsonl, write_text
from rmn.lib.errors import BadInput, RmnError
from rmn.lib.tasks import TenantTask
from training.domain import checks, curation, gate, prompting
from training.domain.curation import Judged, Report
from training.domain.starter import FEATURES
from training.models import Dataset, Evaluation, TrainingRun

TOGETHER = 16  # texts asked of the server at a time
LONGEST = 24  # tokens of a headline


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
    run.report(0.1, "Reading the answers")
    report = Report()
    rows = standing(run)
    answers = curation.fair([_judged(row, timezone.now()) for row in rows], report)
    make = {"dpo": curation.preferences, "kto": curation.labels, "sft": curation.demonstrations}[run.kind]
    kept = curation.curate(make(answers, report), report, min_agreement=float(run.config.get("min_agreement", 0.0)))
    return keep(run, kept, report)


def keep(run: Dataset, rows: Sequence[dict[str, Any]], report: Report) -> Path:
    """Mask, split, describe and write a set's rows, and say so on its row; returns the folder.

    Raises:
        BadInput: too few rows.
    """
    run.report(0.5, f"{len(rows)} rows; masking personal data")
    owner = str(run.brand.uuid) if run.brand else "shared"
    rows = curation.mask(rows, masker(run.brand), report)
    train, held = curation.split(rows, owner)
    facts = {
        "brand": run.brand.slug if run.brand else None,
        "brands": [run.brand.slug] if run.brand else sorted(sharing().values_list("slug", flat=True)),
        "retailer": run.retailer.slug if run.retailer else None,
        "task": run.task,
        "min_agreement": run.config.get("min_agreement", 0.0),
        "filters": {"undone": False, "withdrawn_drafts": False, "revoked_adapters": False, "gold": False},
    }
    told = curation.manifest(run.kind, train, held, report, **facts)
    folder = Path(settings.MEDIA_ROOT) / "datasets" / owner / told["digest"]
    write(folder, train, held, told)
    run.digest, run.path = told["digest"], str(folder.relative_to(settings.MEDIA_ROOT))
    run.rows_train, run.rows_eval, run.manifest = len(train), len(held), told
    run.save(update_fields=["digest", "path", "rows_train", "rows_eval", "manifest"])
    return folder


def write(folder: Path, train: Sequence[dict[str, Any]], held: Sequence[dict[str, Any]], told: dict[str, Any]) -> None:
    """train.jsonl, eval.jsonl, lineage.json and, last, manifest.json: the set is whole when that stands.

    lineage.json names the answers behind the rows, by UUID; it stays here and is in no export.
    """
    write_jsonl(folder / "train.jsonl", (curation.written(row) for row in train))
    write_jsonl(folder / "eval.jsonl", (curation.written(row) for row in held))
    answers = sorted({key for row in [*train, *held] for key in row.get("keys", ())})
    write_text(folder / "lineage.json", json.dumps({"answers": answers}))
    write_text(folder / "manifest.json", json.dumps(told, indent=1, sort_keys=True) + "\n")


def sharing() -> Any:
    """Brands whose answers may train what others use: those that opted in, and no other."""
    return Brand.objects.filter(shares_training=True, is_active=True)


def standing(run: Dataset) -> list[Feedback]:
    """Answers that may train: not taken back, not on withdrawn drafts or versions, no gold questions."""
    rows = Feedback.objects.standing().filter(task=run.task, is_gold=False)
    rows = rows.filter(brand=run.brand) if run.brand else rows.filter(brand__in=sharing())
    if run.retailer is not None:
        rows = rows.filter(retailer=run.retailer)
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
    )


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
        work(run)


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
            run.stopped_by = words.split(" ")[0][:60] if " at step " in words else ""
            run.save(update_fields=["stopped_by"])
            raise BadInput(words)
        raise TrainerDied(f"the trainer ended with {child.returncode}: {words[:400]}")
    manifest = files.read_manifest(folder / "adapter")
    run.metrics = manifest["curve"]
    run.report(0.97, "Checking and registering the adapter")  # raises where another worker has the run now
    run.adapter = serving.register(
        folder / "adapter",
        kind="brand" if run.brand_id else "task",
        brand=run.brand,
        retailer=run.retailer,
        task=run.task,
    )
    run.save(update_fields=["metrics", "adapter"])
    return run.adapter


def _asked(run: TrainingRun, folder: Path) -> dict[str, Any]:
    if run.dataset is None or not run.dataset.path:
        raise BadInput("no data set was chosen; build one first")
    facts = {
        "brand": run.brand.slug if run.brand else None,
        "retailer": run.retailer.slug if run.retailer else None,
        "task": run.task,
        "dataset": run.dataset.digest,
        "training_run": str(run.pk),
    }
    given = {
        **run.config,
        "method": run.method,
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
    items = suite(run)
    check = retailers.checker(run.brand)
    worked = prompting.examples(products(run, unseen=False), check)
    sides: list[tuple[str, Adapter | None, list[prompting.Example]]] = [
        ("candidate", run.candidate, []),
        ("champion", run.champion, []),
    ]
    if worked and run.config.get("prompt_alone", True) and run.candidate is not None:
        sides.append(("prompt_alone", None, worked))
    cases: dict[str, list[dict[str, Any]]] = {}
    for place, (name, adapter, examples) in enumerate(sides):
        run.report(0.05 + 0.9 * place / len(sides), f"{name.replace('_', ' ')}: {len(items)} texts")
        if adapter is not None:
            load(client, adapter)
        cases[name] = answers(client, items, adapter.digest if adapter else None, examples, check)
    found = compared(cases["candidate"], cases["champion"])
    if "prompt_alone" in cases:
        found = gate.earned(found, compared(cases["candidate"], cases["prompt_alone"]))
    told = found.row()
    voted = blind_votes(run)
    if voted is not None:
        told["tests"].append(voted)
    run.verdict = found.verdict
    run.result = {
        **told,
        "candidate": run.candidate.digest if run.candidate else "base",
        "champion": run.champion.digest if run.champion else "base",
        "pass_rate": {side: checks.summary(rows) for side, rows in cases.items()},
        "length": {side: sum(row["length"] for row in rows) / len(rows) for side, rows in cases.items()},
        "examples": [{"product": item.product, "feature": item.feature, "text": text} for item, text in worked],
        "flipped": [
            {"product": a["product"], "candidate": a["text"], "champion": b["text"], "passed": a["passed"], "why": a["why"] or b["why"]}
            for a, b in zip(cases["candidate"], cases["champion"], strict=True)
            if a["passed"] != b["passed"]
        ][:50],
    }  # fmt: skip
    run.save(update_fields=["verdict", "result"])
    if run.candidate is not None:
        run.candidate.gate = {"verdict": found.verdict, "evaluation": str(run.pk), "reasons": list(found.reasons)}
        run.candidate.save(update_fields=["gate"])
    return found


def suite(run: Evaluation) -> list[briefs.Item]:
    """The items of the creative suite: products kept from training, in every feature.

    Raises:
        BadInput: there is no such suite, or no product to evaluate on.
    """
    if run.suite != "creative":
        raise BadInput(f"suite {run.suite!r}: creative is the one there is")
    found = products(run, unseen=True)
    if not found:
        raise BadInput(
            f"{run.brand}: no product is marked unseen (facts.unseen), so there is nothing fair to evaluate on"
        )
    return found[: int(run.config.get("most", len(found)))]


def products(run: Evaluation, *, unseen: bool) -> list[briefs.Item]:
    """The brand's products, those kept from training or the others, in every feature."""
    rows = SKUCatalog.objects.filter(brand=run.brand, facts__unseen=unseen).order_by("sku")
    networks = tuple(run.config.get("networks") or ("instacart",))
    return [
        briefs.Item(
            product=product.name,
            brand=str(product.facts.get("brand") or run.brand),
            size=product.package_size,
            feature=feature,
            networks=networks,
        )
        for product in rows
        for feature in FEATURES
    ]


def blind_votes(run: Evaluation) -> dict[str, Any] | None:
    """What people said in blind pairs of these two versions; None where they have not."""
    mine, theirs = (one.digest if one else "" for one in (run.candidate, run.champion))
    rows = Feedback.objects.standing().human().pairs().filter(brand=run.brand, task=run.task, is_gold=False)
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


def answers(
    client: InferenceClient,
    items: Sequence[briefs.Item],
    adapter: str | None,
    worked: Sequence[prompting.Example],
    check: checks.Policy,
) -> list[dict[str, Any]]:
    """A side's greedy texts, checked; kept by what decides them, so that no side writes the same twice."""
    asked = [prompting.with_examples(item, worked) if worked else briefs.messages(item) for item in items]
    engine = client.info()
    decides = [engine.get(k) for k in ("model_id", "model_sha", "version", "dtype", "device")]
    if not engine.get("model_sha"):
        decides.append(os.urandom(8).hex())  # an engine that does not say what it serves is asked anew
    key = hashlib.sha256(json.dumps([decides, adapter, asked, LONGEST], sort_keys=True).encode()).hexdigest()
    file = Path(settings.MEDIA_ROOT) / "evaluations" / f"{key}.json"
    try:
        texts = [str(text) for text in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        with ThreadPoolExecutor(TOGETHER) as pool:
            texts = list(pool.map(lambda messages: written(client, messages, adapter), asked))
        write_text(file, json.dumps(texts, ensure_ascii=False))
    return [checked(item, text, check) for item, text in zip(items, texts, strict=True)]


def load(client: InferenceClient, adapter: Adapter) -> None:
    """Have the server serve a version under its digest."""
    folder = Path(settings.RMN_ADAPTERS_ON_SERVER or settings.RMN_ADAPTERS).absolute() / adapter.digest
    with contextlib.suppress(AdapterExists):
        client.load(adapter.digest, str(folder), {"digest": adapter.digest})


def draft(
    client: InferenceClient, item: briefs.Item, adapter: str | None, check: checks.Policy, **how: Any
) -> dict[str, Any]:
    """One text for an item, with what it was and whether it passes."""
    return checked(item, written(client, briefs.messages(item), adapter, **how), check)


def written(client: InferenceClient, messages: Sequence[dict[str, str]], adapter: str | None, **how: Any) -> str:
    return client.generate(Question(messages=messages, adapter=adapter, max_tokens=LONGEST, **how)).text


def checked(item: briefs.Item, text: str, check: checks.Policy) -> dict[str, Any]:
    """A raw answer beside what was asked, and why it does not pass."""
    why = checks.failures(text, item, check)
    return {
        "product": item.product,
        "feature": item.feature,
        "cluster": briefs.cluster(item),
        "text": text,
        "passed": not why,
        "why": why,
        "length": len(briefs.tidy(text)),
        "limit": item.limit,
    }


def compared(candidate: Sequence[dict[str, Any]], champion: Sequence[dict[str, Any]]) -> gate.Result:
    """The gate on two sides' drafts: passing gains, naming the product and keeping the length are guards."""

    def measures(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
        return {
            "passes": [float(row["passed"]) for row in rows],
            "names the product": [float("does not name the product" not in row["why"]) for row in rows],
            "fits": [float(row["length"] <= row["limit"]) for row in rows],
            "invents nothing": [float(not any("not in the facts" in why for why in row["why"])) for row in rows],
        }

    mine = measures(candidate)
    return gate.compare(mine, measures(champion), [row["cluster"] for row in candidate], parts=set(mine) - {"passes"})

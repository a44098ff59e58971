"""What people and programs may ask of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import Q

from agents.inference.adapters import read_manifest
from agents.models import Adapter
from campaigns.models import Task
from retailers.models import Brand, Retailer
from rmn.lib.errors import BadInput
from training.lora.compose import METHODS
from training.lora.config import RunConfig
from training.models import Dataset, Evaluation, Lesson, TrainingRun, Withdrawal
from training.suites import SUITES

ADJUSTABLE = {"rank", "alpha", "dropout", "targets", "rslora", "learning_rate", "scheduler", "warmup", "steps", "epochs", "batch", "accumulation", "max_length", "packing", "beta", "loss_types", "loss_weights", "label_smoothing", "seed", "precision", "quantization", "checkpointing", "liger", "save_every", "eval_every", "patience"}  # fmt: skip


def wish_for_dataset(
    *,
    brand: Brand | None,
    task: str,
    kind: str,
    retailer: Retailer | None = None,
    min_agreement: float = 0.0,
    by: Any = None,
) -> Dataset:
    """Record a data set; nothing is queued yet. No brand: shared knowledge, from brands that opted in.

    Raises:
        BadInput: no such task or kind, or a floor outside 0 to 1.
    """
    if task not in Task.values:
        raise BadInput(f"task {task!r}: one of {', '.join(Task.values)}")
    if kind not in ("sft", "dpo", "kto"):
        raise BadInput(f"kind {kind!r}: sft, dpo or kto")
    if not 0 <= min_agreement <= 1:
        raise BadInput(f"min-agreement {min_agreement:g}: between 0 and 1")
    return Dataset.objects.create(
        brand=brand, retailer=retailer, task=task, kind=kind, requested_by=by, config={"min_agreement": min_agreement}
    )


@transaction.atomic
def request_dataset(**wish: Any) -> Dataset:
    run = wish_for_dataset(**wish)
    run.enqueue()
    return run


def wish_for_training(*, dataset: Dataset, parent: Adapter | None = None, by: Any = None, **config: Any) -> TrainingRun:
    """Record a training on a data set; nothing is queued yet.

    Raises:
        BadInput: the set is not built or was revoked, or the parent is another brand's.
    """
    if dataset.status != Dataset.Status.SUCCEEDED or not dataset.path:
        raise BadInput(f"{dataset}: is {dataset.status}; train on a set that was built")
    if dataset.revoked_at is not None:
        raise BadInput(f"{dataset}: rows of it were withdrawn; build it anew")
    unknown = set(config) - ADJUSTABLE
    if unknown:
        raise BadInput(
            f"config: {', '.join(sorted(unknown))}: may not be set here; known are {', '.join(sorted(ADJUSTABLE))}"
        )
    if parent is not None and parent.brand_id not in (None, dataset.brand_id):
        raise BadInput("the parent adapter belongs to another brand")
    return TrainingRun.objects.wish(dataset=dataset, parent=parent, requested_by=by, config=config)


@transaction.atomic
def request_training(**wish: Any) -> TrainingRun:
    run = wish_for_training(**wish)
    run.enqueue()
    return run


def wish_for_file(asked: RunConfig, *, by: Any = None) -> TrainingRun:
    """Record a training that a RUN.json asks for, not queued; in the scope of its data set, where that was built here.

    Raises:
        BadInput: answers of the data set were withdrawn.
    """
    told = read_manifest(asked.data)
    found = Dataset.objects.filter(digest=told.get("digest") or "-", status=Dataset.Status.SUCCEEDED)
    dataset = found.filter(revoked_at=None).first()
    if dataset is None and found.exists():
        raise BadInput(f"{asked.data}: rows of it were withdrawn; build it anew")
    config = {key: value for key, value in asked.row().items() if key in ADJUSTABLE}
    if dataset is None:
        return TrainingRun.objects.create(method=asked.method, config=config, requested_by=by)
    parent = None
    if asked.parent is not None and read_manifest(asked.parent):
        parent = Adapter.objects.filter(digest=read_manifest(asked.parent).get("digest")).filter(Q(brand=dataset.brand) | Q(brand=None)).first()  # fmt: skip
    return TrainingRun.objects.wish(dataset=dataset, parent=parent, requested_by=by, config=config, method=asked.method)


def wish_for_composition(
    *, brand: Brand, parts: Sequence[tuple[Adapter, float]], method: str = "cat", search: bool = False, by: Any = None
) -> TrainingRun:
    """Record a composition of retailer, brand and task versions into one of the brand's own; nothing is queued yet.

    Args:
        parts: versions with their weights; the brand's own, or shared knowledge.
        search: whether the weights are searched on half of the unseen cases.

    Raises:
        BadInput: fewer than two parts, another brand's, one that was withdrawn, a weight of none, or no such method.
    """
    if method not in METHODS:
        raise BadInput(f"method {method!r}: one of {', '.join(METHODS)}")
    if len(parts) < 2:
        raise BadInput("at least two versions are composed")
    for adapter, weight in parts:
        if adapter.brand_id not in (None, brand.pk):
            raise BadInput("a version of another brand cannot be composed here")
        if adapter.state == Adapter.State.REVOKED:
            raise BadInput(f"{adapter.digest[:12]} was withdrawn; take another version")
        if not 0 < abs(weight) <= 10:
            raise BadInput(f"weight {weight:g} of {adapter.digest[:12]}: between -10 and 10, and not 0")
    tasks_of = {adapter.task for adapter, _ in parts if adapter.task}
    retailers_of = {adapter.retailer for adapter, _ in parts if adapter.retailer}
    if len(tasks_of) != 1 or len(retailers_of) > 1:
        raise BadInput("the parts must be for one task, and for one retailer at most")
    return TrainingRun.objects.create(
        brand=brand,
        retailer=retailers_of.pop() if retailers_of else None,
        task=tasks_of.pop(),
        method=TrainingRun.COMPOSED,
        requested_by=by,
        config={
            "parts": [{"adapter": adapter.digest, "weight": weight} for adapter, weight in parts],
            "compose": method,
            "search": search,
        },
    )


@transaction.atomic
def request_composition(**wish: Any) -> TrainingRun:
    run = wish_for_composition(**wish)
    run.enqueue()
    return run


def wish_for_evaluation(
    *,
    brand: Brand,
    task: str,
    candidate: Adapter | None,
    champion: Adapter | None = None,
    retailer: Retailer | None = None,
    suite: str = "creative",
    by: Any = None,
    **config: Any,
) -> Evaluation:
    """Record an evaluation; no champion means the base model.

    Args:
        config: ``margin``, ``minimum`` (rates), ``prompt_alone`` (False leaves the best prompt out), ``networks``, ``most``.

    Raises:
        BadInput: an adapter of another brand, or a margin or minimum that is no share.
    """
    for name in ("margin", "minimum"):
        if not 0 <= float(config.get(name, 0)) <= 1:
            raise BadInput(f"{name} {config[name]:g}: between 0 and 1")
    for adapter in (candidate, champion):
        if adapter is not None and adapter.brand_id not in (None, brand.pk):
            raise BadInput("an adapter of another brand cannot be evaluated here")
    return Evaluation.objects.create(
        brand=brand,
        retailer=retailer,
        task=task,
        candidate=candidate,
        champion=champion,
        suite=suite,
        requested_by=by,
        config=config,
    )


@transaction.atomic
def request_evaluation(**wish: Any) -> Evaluation:
    run = wish_for_evaluation(**wish)
    run.enqueue()
    return run


# -- lessons and withdrawals


def wish_for_lesson(
    *, brand: Brand | None, task: str, retailer: Retailer | None = None, by: Any = None, **config: Any
) -> Lesson:
    """Train, gate, stage: one wish for the whole chain, on record and not queued. A lesson under way in the scope is that one.

    No task and no brand: the retailer's adapter, which reads reports and learns from mappings.

    Raises:
        BadInput: there is no gate for the task, so nothing could be staged; or no task, and a brand or no retailer.
    """
    if not task and (brand is not None or retailer is None):
        raise BadInput(
            "name a task; without one a retailer's adapter is taught, which belongs to a retailer and no brand"
        )
    if task not in SUITES:
        raise BadInput(f"task {task!r}: no suite gates it yet; there is one for {', '.join(filter(None, SUITES))}")
    reason = f"asked for by {getattr(by, 'username', '') or 'the operator'}"
    return Lesson.objects.wish(brand=brand, retailer=retailer, task=task, reason=reason, requested_by=by, config=config)


@transaction.atomic
def request_lesson(**wish: Any) -> Lesson:
    run = wish_for_lesson(**wish)
    run.enqueue()
    return run


@transaction.atomic
def request_withdrawal(*, brand: Brand | None, person: Any = None, reason: str, by: Any = None) -> Withdrawal:
    """Take a person's or a brand's answers out of all training, from this moment.

    The answers count for nothing as soon as this is recorded; the run then withdraws what rested on them.

    Raises:
        BadInput: neither a person nor a brand, or no reason.
    """
    if brand is None and person is None:
        raise BadInput("whose answers? name a person, a brand, or both")
    if not reason.strip():
        raise BadInput("say why: it stands in the audit chain")
    run = Withdrawal.objects.create(brand=brand, person=person, reason=reason.strip()[:400], requested_by=by)
    run.enqueue()
    return run

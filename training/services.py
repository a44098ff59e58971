"""What people and programs may ask of training."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from agents.models import Adapter
from campaigns.models import Task
from retailers.models import Brand, Retailer
from rmn.lib.errors import BadInput
from training.models import Dataset, Evaluation, TrainingRun

# tokens a second of forward and backward for each billion parameters, one core; measured by the demo, so only an order
ADJUSTABLE = {"rank", "alpha", "dropout", "targets", "rslora", "learning_rate", "scheduler", "warmup", "steps", "epochs", "batch", "accumulation", "max_length", "packing", "beta", "loss_types", "loss_weights", "label_smoothing", "seed", "precision", "quantization", "checkpointing", "liger", "save_every", "eval_every"}  # fmt: skip
CPU_TOKENS_PER_S = 18.0


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
    return TrainingRun.objects.create(
        brand=dataset.brand,
        retailer=dataset.retailer,
        task=dataset.task,
        method=dataset.kind,
        dataset=dataset,
        parent=parent,
        requested_by=by,
        config=config,
        estimate=estimate(dataset, config),
    )


def estimate(dataset: Dataset, config: dict[str, Any]) -> dict[str, Any]:
    """Tokens and minutes before the start: about four characters a token, forward and backward."""
    lengths = dataset.manifest.get("length") or {}
    parts = [part for part in lengths.values() if isinstance(part, dict)]
    characters = sum(part.get("mean", 0.0) for part in parts) + 400.0 * max(len(parts), 1)
    batch = int(config.get("batch", 8)) * int(config.get("accumulation", 1))
    steps = int(config.get("steps") or 0) or round(dataset.rows_train * float(config.get("epochs", 3.0)) / batch + 0.5)
    tokens = steps * batch * characters / 4
    minutes = tokens / (CPU_TOKENS_PER_S / 0.135 * (2 if dataset.kind == "dpo" else 1)) / 60
    return {"steps": steps, "tokens": round(tokens), "minutes": round(minutes, 1), "where": "CPU, 135 M parameters"}


@transaction.atomic
def request_training(**wish: Any) -> TrainingRun:
    run = wish_for_training(**wish)
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
    """Record an evaluation; no champion means the base model."""
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

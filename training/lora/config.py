"""One training run as one frozen value, read from RUN.json."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmn.lib.errors import BadInput

METHODS = ("sft", "dpo", "kto")
SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LOSSES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft")  # fmt: skip
HEED_NOISE = frozenset({"sigmoid", "robust", "exo_pair"})  # losses that allow for labels the wrong way round
RATES = {"sft": 5e-4, "dpo": 1e-4, "kto": 1e-4}  # for LoRA on hundreds of rows; the trainers' defaults learn nothing
CHOICES = {
    "method": METHODS,
    "scheduler": SCHEDULERS,
    "precision": ("auto", "fp32", "bf16", "mixed"),
    "quantization": ("none", "nf4"),
    "checkpointing": ("auto", "on", "off"),
    "liger": ("auto", "on", "off"),
}
LIMITS: dict[str, tuple[float, float]] = {
    "rank": (1, 64),
    "alpha": (0.01, 1e4),
    "dropout": (0, 0.9),
    "learning_rate": (1e-8, 1),
    "steps": (0, 1_000_000),
    "epochs": (0, 1000),
    "batch": (1, 4096),
    "accumulation": (1, 4096),
    "max_length": (16, 131_072),
    "warmup": (0, 1_000_000),
    "beta": (1e-6, 100),
    "label_smoothing": (0, 0.5),
    "save_every": (0, 1_000_000),
    "eval_every": (0, 1_000_000),
    "patience": (0, 1000),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True)
class RunConfig:
    """All that decides what comes out of a training.

    ``steps`` 0 means ``epochs`` passes. ``warmup`` under 1 is a share of the steps, else steps.
    ``precision`` auto is fp32 on a CPU and bf16 on a GPU: adapters in bf16 too, no autocast; ``mixed``
    keeps the adapters in fp32 under autocast. ``batch`` is per device, and is cut into accumulations
    where it does not fit. ``label_smoothing`` is the share of pairs thought to be labelled the wrong way round.
    """

    base_model: Path
    method: str
    data: Path  # a data set's folder, or one JSON Lines file
    out: Path
    parent: Path | None = None  # an adapter that training starts from
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    targets: tuple[str, ...] = TARGETS
    rslora: bool = False
    learning_rate: float = 0.0  # 0: the method's own
    scheduler: str = "linear"
    warmup: float = 2
    steps: int = 0
    epochs: float = 3.0
    batch: int = 8
    accumulation: int = 1
    max_length: int = 256
    packing: bool = False
    beta: float = 0.1
    loss_types: tuple[str, ...] = ("sigmoid",)
    loss_weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    seed: int = 0
    precision: str = "auto"
    quantization: str = "none"
    checkpointing: str = "auto"
    liger: str = "auto"
    save_every: int = 10
    eval_every: int = 0
    patience: int = 0  # evaluations on held-out rows without a gain, then the best weights are kept; 0: never
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the manifest: brand, retailer, task ...

    @property
    def rate(self) -> float:
        return self.learning_rate or RATES[self.method]

    @property
    def losses(self) -> tuple[str, ...]:
        """What is minimised: where labels may be wrong, DPO's sigmoid is the robust one, for TRL's heeds no smoothing.

        Source: Chowdhury et al. (2024), provably robust DPO: unbiased for the loss on clean labels.
        """
        return tuple("robust" if one == "sigmoid" and self.label_smoothing else one for one in self.loss_types)

    @property
    def work(self) -> Path:
        """Checkpoints and progress, beside the adapter's folder; gone when it is whole."""
        return self.out.parent / f".{self.out.name}.work"

    def row(self) -> dict[str, Any]:
        """As JSON, without the paths of this host."""
        row = dataclasses.asdict(self)
        for name in ("base_model", "data", "out", "parent", "facts"):
            row.pop(name)
        return row | {"learning_rate": self.rate, "loss_types": list(self.losses)}


def read(path: Path) -> RunConfig:
    """A run from its file; paths inside are relative to it.

    Raises:
        BadInput: no such file, not JSON, an unknown key, a value that makes no sense; with the key.
    """
    path = Path(path)
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; check the path") from None
    except ValueError as error:
        raise BadInput(f"{path}: not JSON: {error}") from None
    if not isinstance(given, dict):
        raise BadInput(f"{path}: an object was expected, such as {{'method': 'sft', ...}}")
    return parse(given, path.parent, str(path))


def parse(given: Mapping[str, Any], folder: Path, where: str = "run") -> RunConfig:
    """A run from its keys.

    Raises:
        BadInput: as ``read``.
    """
    known = {one.name: one for one in dataclasses.fields(RunConfig)}
    for key in given:
        if key not in known:
            raise BadInput(f"{where}: {key}: no such key; known are {', '.join(known)}")
    values: dict[str, Any] = {}
    for name in ("base_model", "data", "out", "method"):
        if not given.get(name):
            raise BadInput(f"{where}: {name} is missing")
    for key, value in given.items():
        if value is None:
            continue
        if key in ("base_model", "data", "out", "parent"):
            values[key] = folder / str(value)
        elif key in CHOICES:
            if value not in CHOICES[key]:
                raise BadInput(f"{where}: {key} is {value!r}: one of {', '.join(CHOICES[key])}")
            values[key] = value
        elif key in LIMITS:
            values[key] = _number(value, f"{where}: {key}", *LIMITS[key], whole=isinstance(_default(known[key]), int))
        elif key in ("targets", "loss_types"):
            values[key] = _names(value, f"{where}: {key}")
        elif key == "loss_weights":
            if not isinstance(value, list):
                raise BadInput(f"{where}: loss_weights: a list of numbers was expected")
            values[key] = tuple(_number(each, f"{where}: loss_weights", 0, 1e6) for each in value)
        elif key in ("rslora", "packing"):
            if not isinstance(value, bool):
                raise BadInput(f"{where}: {key} is {value!r}: true or false was expected")
            values[key] = value
        elif key == "facts":
            values[key] = dict(value)
    unknown = set(values.get("targets", ())) - set(TARGETS)
    if unknown:
        raise BadInput(f"{where}: targets: {', '.join(sorted(unknown))}: not served; known are {', '.join(TARGETS)}")
    strange = set(values.get("loss_types", ())) - set(LOSSES)
    if strange:
        raise BadInput(
            f"{where}: loss_types: {', '.join(sorted(strange))}: no such loss; known are {', '.join(LOSSES)}"
        )
    config = RunConfig(**values)
    if "exo_pair" in config.loss_types and not config.label_smoothing:
        raise BadInput(f"{where}: loss_types: exo_pair needs a label_smoothing above 0")
    if config.label_smoothing and config.method == "dpo" and not HEED_NOISE & set(config.loss_types):
        raise BadInput(
            f"{where}: label_smoothing: {', '.join(config.loss_types)} does not heed it; {', '.join(sorted(HEED_NOISE))} do"
        )
    if config.label_smoothing >= 0.5:
        raise BadInput(f"{where}: label_smoothing is {config.label_smoothing:g}: at one half labels say nothing")
    if config.loss_weights and len(config.loss_weights) != len(config.loss_types):
        raise BadInput(f"{where}: loss_weights has {len(config.loss_weights)}, loss_types {len(config.loss_types)}")
    if config.packing and config.method != "sft":
        raise BadInput(f"{where}: packing: only for sft")
    if config.method == "kto" and config.batch < 2:
        raise BadInput(f"{where}: batch is 1: kto takes its baseline from the batch, so 2 at least")
    if config.patience and not config.eval_every:
        raise BadInput(f"{where}: patience needs eval_every: there is nothing to be patient about")
    if not config.steps and not config.epochs:
        raise BadInput(f"{where}: steps and epochs are both 0: nothing would be trained")
    return config


def _default(one: dataclasses.Field[Any]) -> Any:
    return one.default


def _number(value: Any, where: str, low: float, high: float, *, whole: bool = False) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{where} is {value!r}: a number was expected")
    if not low <= value <= high:
        raise BadInput(f"{where} is {value:g}: between {low:g} and {high:g}")
    if whole and value != int(value):
        raise BadInput(f"{where} is {value:g}: a whole number was expected")
    return int(value) if whole else float(value)


def _names(value: Any, where: str) -> tuple[str, ...]:
    if value == "all-linear":
        return TARGETS
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise BadInput(f"{where}: a list of names was expected")
    return tuple(value)

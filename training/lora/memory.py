"""What a training takes of the device's memory, and how a batch is cut so that it fits.

Checkpointing costs a second forward pass and the default recipes switch it on by habit; here it is on
only where one row would not fit without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmn.lib.errors import BadInput

GIB = 2**30
OVERHEAD = 1.5 * GIB  # context, workspace and fragments; seen on an H100
USABLE = 0.92  # of the device: what stands beside the plan
# bytes kept per token, layer and unit of width, for the way back; from peaks measured on an H100 (docs/training.md)
KEPT = {"fused": 32.0, "plain": 48.0, "fp32": 64.0}
LOGITS = 12.0  # bytes per token and word of the vocabulary, where the loss is not fused


@dataclass(frozen=True)
class Shape:
    """A causal model's size."""

    layers: int
    width: int
    inner: int
    vocabulary: int
    heads: int
    kv_heads: int
    tied: bool

    @classmethod
    def of(cls, folder: Path) -> Shape:
        """From a model folder's ``config.json``.

        Raises:
            BadInput: no such file, or it lacks a size.
        """
        try:
            return cls.read(json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError) as error:
            raise BadInput(f"{folder}: no base model's config.json there ({type(error).__name__}: {error})") from None

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Shape:
        heads = int(told["num_attention_heads"])
        return cls(
            layers=int(told["num_hidden_layers"]),
            width=int(told["hidden_size"]),
            inner=int(told["intermediate_size"]),
            vocabulary=int(told["vocab_size"]),
            heads=heads,
            kv_heads=int(told.get("num_key_value_heads") or heads),
            tied=bool(told.get("tie_word_embeddings", False)),
        )

    @property
    def linear(self) -> int:
        """Parameters of the layers' linear maps."""
        kv = self.width * self.kv_heads // self.heads
        return self.layers * (2 * self.width**2 + 2 * self.width * kv + 3 * self.width * self.inner)

    @property
    def parameters(self) -> int:
        return self.linear + self.vocabulary * self.width * (1 if self.tied else 2)

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA on all linear maps."""
        kv = self.width * self.kv_heads // self.heads
        per_layer = 2 * 2 * self.width + 2 * (self.width + kv) + 3 * (self.width + self.inner)
        return self.layers * rank * per_layer


@dataclass(frozen=True)
class Plan:
    """How a batch is cut; ``batch * accumulation`` is the one asked for, so the result does not change."""

    batch: int
    accumulation: int
    checkpointing: bool
    bytes: float

    def row(self) -> dict[str, Any]:
        return {
            "batch": self.batch,
            "accumulation": self.accumulation,
            "checkpointing": self.checkpointing,
            "gib": round(self.bytes / GIB, 2),
        }


def needed(
    shape: Shape, *, batch: int, length: int, rank: int, numbers: str, fused: bool, nf4: bool, checkpointing: bool
) -> float:
    """Bytes at the peak of a step.

    Args:
        batch: sequences at once (a preference pair is two).
        numbers: ``bf16`` (weights and adapters), ``mixed`` (adapters in fp32 under autocast) or ``fp32``.
        fused: Liger's kernels: no logits are kept, and less on the way.
    """
    wide = 4.0 if numbers == "fp32" else 2.0
    weights = shape.linear * (0.56 if nf4 else wide) + (shape.parameters - shape.linear) * wide
    of_adapter = {"bf16": 2 + 2 + 4, "mixed": 4 + 4 + 8, "fp32": 4 + 4 + 8}[numbers]
    kept = KEPT["fp32" if numbers == "fp32" else "fused" if fused and numbers == "bf16" else "plain"]
    tokens = batch * length
    one_layer = tokens * shape.width
    on_the_way = one_layer * (shape.layers * wide + kept) if checkpointing else one_layer * shape.layers * kept
    logits = 0.0 if fused else tokens * shape.vocabulary * LOGITS
    return weights + shape.adapters(rank) * of_adapter + on_the_way + logits + OVERHEAD


def plan(
    shape: Shape,
    *,
    batch: int,
    accumulation: int,
    length: int,
    rank: int,
    device_bytes: float,
    numbers: str = "bf16",
    fused: bool = False,
    nf4: bool = False,
    sides: int = 1,
    least_batch: int = 1,
    checkpointing: str = "auto",
) -> Plan:
    """The largest cut of the batch that fits, without checkpointing where any does.

    Args:
        sides: sequences per row: 2 for preference pairs.
        least_batch: rows that must stand together (two for KTO, whose baseline is the batch).
        checkpointing: ``auto``, or ``on``/``off`` where it is not to be chosen.

    Raises:
        BadInput: not even one row fits; with what does.
    """
    whole = batch * accumulation
    cuts = [size for size in range(batch, min(least_batch, batch) - 1, -1) if whole % size == 0]
    room = device_bytes * USABLE
    least = float("inf")
    for recompute in {"auto": (False, True), "on": (True,), "off": (False,)}[checkpointing]:
        for size in cuts:
            asked = needed(
                shape, batch=size * sides, length=length, rank=rank, numbers=numbers, fused=fused, nf4=nf4,
                checkpointing=recompute,
            )  # fmt: skip
            least = min(least, asked)
            if asked <= room:
                return Plan(size, whole // size, recompute, asked)
    tips = ", ".join([*([] if nf4 else ["quantization nf4"]), "a shorter max_length"])
    raise BadInput(
        f"out_of_memory before the start: rows of {length} tokens takes about {least / GIB:.1f} GiB, the device has"
        f" {device_bytes / GIB:.1f}; try {tips}"
    )

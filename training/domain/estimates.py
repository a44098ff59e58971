"""What a training will take: tokens, minutes and money, before it starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

CHARACTERS_PER_TOKEN = 4.0
TEMPLATE_TOKENS = 100.0  # of the brief and the template's marks, for each row
FLOPS_PER_S = {"cpu": 6.0e10, "cuda": 4.5e14}  # until runs of this installation say better
SPREAD = 1.5  # of eight in ten runs, actual over estimated time stays below this


@dataclass(frozen=True)
class Estimate:
    """Of a run: ``flops`` in all, ``seconds`` on this machine, ``cost`` where an hour has a price."""

    steps: int
    tokens: int
    flops: float
    minutes: float
    at_most: float  # minutes, eight times in ten
    cost: float | None
    currency: str
    device: str
    based_on: int  # earlier runs

    def row(self) -> dict[str, Any]:
        return asdict(self)


def estimate(
    *,
    method: str,
    rows: int,
    length: Mapping[str, Any],
    parameters: float,
    config: Mapping[str, Any],
    device: str = "cpu",
    earlier: Sequence[tuple[float, float]] = (),
    price_per_hour: float = 0.0,
    currency: str = "USD",
) -> Estimate:
    """A LoRA step takes 4 N floating operations a token, 2 N more for DPO's and KTO's reference pass.

    Frozen weights need no gradient of their own: 2 N forward and 2 N back through the activations.

    Args:
        length: characters by side, as a data set's manifest tells them.
        parameters: N, of the base model.
        earlier: (flops, seconds) of runs on this device; their median speed is used.

    Source: the rule reproduces published LoRA throughputs within a few percent (docs/training.md).
    """
    sides = [part["mean"] for part in length.values() if isinstance(part, Mapping) and "mean" in part]
    tokens_per_row = sum(mean / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS for mean in sides) or TEMPLATE_TOKENS
    together = int(config.get("batch") or 8) * int(config.get("accumulation") or 1)
    epochs = float(config.get("epochs") or 3.0)
    steps = int(config.get("steps") or 0) or max(1, math.ceil(math.ceil(rows / together) * epochs))
    tokens = steps * together * tokens_per_row
    flops = tokens * parameters * (4 if method == "sft" else 6)
    speeds = [done / seconds for done, seconds in earlier if done > 0 and seconds > 0]
    seconds = flops / (median(speeds) if speeds else FLOPS_PER_S.get(device, FLOPS_PER_S["cpu"]))
    return Estimate(
        steps=steps,
        tokens=round(tokens),
        flops=flops,
        minutes=round(seconds / 60, 2),
        at_most=round(seconds / 60 * SPREAD, 2),
        cost=round(seconds / 3600 * price_per_hour, 4) if price_per_hour else None,
        currency=currency if price_per_hour else "",
        device=device,
        based_on=len(speeds),
    )

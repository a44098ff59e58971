"""Adapters in bf16 beside adapters in fp32: does the loss fall alike on a real small model?

The recipe that fills a GPU keeps the adapters in bf16, without autocast; the common one keeps them in fp32
under autocast. Both learn the demo's headlines from the same start in the same order, over several seeds; the
gap between the two recipes is held against the gap between two seeds of one recipe.

    python -m benchmarks precision [--full]
"""

from __future__ import annotations

import json
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np

from agents.domain import briefs
from benchmarks.harness import Row
from benchmarks.learning import BASE, items, said
from retailers.domain import policy
from training.domain import starter
from training.lora import config
from training.lora.train import train

STEPS = 24
ALONE = True  # minutes, not seconds: runs only where it is named
NOTE = (
    f"SmolLM2-135M on a CPU with bf16 products, {STEPS} steps of eight headlines, rank 8. A curve's level is its mean loss over the"
    " second half of the steps. It shows what the numbers do to learning, not how fast a GPU is."
)


def rows(size: str) -> list[Row]:
    seeds = 3 if size == "full" else 2
    known, _ = items()
    copy = [(item, starter.shipped(item, policy.check)) for item in known]
    lessons = [{"prompt": briefs.messages(item), "completion": said(text)} for item, text in copy if text]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "copy.jsonl"
        data.write_text("\n".join(map(json.dumps, lessons)), encoding="utf-8")
        level = {
            numbers: [curve(Path(folder), data, numbers, seed)[STEPS // 2 :].mean() for seed in range(seeds)]
            for numbers in ("mixed", "bf16")
        }
    between = max(abs(a - b) for a, b in combinations(level["mixed"], 2))
    gap = max(abs(a - b) for a, b in zip(level["bf16"], level["mixed"], strict=True))
    return [
        Row("loss of the second half, adapters in bf16", float(np.mean(level["bf16"])), "nats a token", "adapters in fp32 under autocast", float(np.mean(level["mixed"]))),
        Row(f"largest gap of the two with one seed, of {seeds}", gap, "nats a token", "two seeds of the fp32 adapters", between, "at most what seeds differ by", gap <= between),
    ]  # fmt: skip


def curve(folder: Path, data: Path, numbers: str, seed: int) -> np.ndarray:
    """Training loss of each step."""
    given = {
        "method": "sft", "base_model": str(BASE), "data": str(data), "out": str(folder / f"{numbers}-{seed}"),
        "max_length": 192, "save_every": 0, "steps": STEPS, "batch": 8, "seed": seed, "precision": numbers,
    }  # fmt: skip
    told = train(config.parse(given, folder))
    return np.array([line["loss"] for line in told["curve"]])

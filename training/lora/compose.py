"""Several adapters made into one version: their updates added with weights.

An adapter adds ``s B A`` to a module's weights. ``cat`` stacks the parts' A and B, so the sum is exact
at the price of rank; ``svd`` brings it to the largest rank by truncation; ``linear``, ``ties`` and
``dare_ties`` mix A and B themselves (Yadav 2023; Yu 2024), which is inexact and needs the gate.
"""

from __future__ import annotations

import importlib
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agents.inference import adapters as files
from rmn.lib.errors import BadInput

METHODS = ("cat", "svd", "linear", "ties", "dare_ties")
KEPT = 0.5  # share of entries that ties and dare_ties keep


def compose(parts: Sequence[tuple[Path, float]], method: str, out: Path, *, rank: int = 0, seed: int = 0) -> str:
    """Write the composition; returns its digest.

    Args:
        parts: adapter folders with their weights.
        rank: of ``svd``; 0 takes the largest of the parts.

    Raises:
        BadInput: too few parts, other bases, targets that do not fit, or the target exists.
    """
    if method not in METHODS:
        raise BadInput(f"method {method!r}: one of {', '.join(METHODS)}")
    if len(parts) < 2:
        raise BadInput("at least two adapters are composed; give A:0.5 B:0.5")
    if out.exists():
        raise BadInput(f"{out}: exists already; choose another name")
    torch: Any = importlib.import_module("torch")
    safetensors: Any = importlib.import_module("safetensors.torch")
    configs = [files.read_config(folder) for folder, _ in parts]
    manifests = [files.read_manifest(folder) for folder, _ in parts]
    bases = {m.get("base_digest") for m in manifests if m.get("base_digest")}
    if len(bases) > 1:
        raise BadInput("the adapters were made on different base models: their updates cannot be added")
    brands = {m.get("brand") for m in manifests if m.get("brand")}
    if len(brands) > 1:
        raise BadInput(f"the adapters belong to {' and '.join(sorted(map(str, brands)))}: brands are never mixed")
    templates = {m.get("template_digest") for m in manifests if m.get("template_digest")}
    if len(templates) > 1:
        raise BadInput("the adapters were trained under different chat templates: their sum would speak neither")
    if not all(math.isfinite(weight) and weight for _, weight in parts):
        raise BadInput("a weight of 0 adds nothing; leave the adapter out")
    tensors = [safetensors.load_file(folder / files.WEIGHTS) for folder, _ in parts]
    scaled = [_scaled(torch, t, c) for t, c in zip(tensors, configs, strict=True)]
    weights = [weight for _, weight in parts]
    ranks = [int(c["r"]) for c in configs]
    names = sorted({name for part in scaled for name in part})
    if method in ("linear", "ties", "dare_ties") and len(set(ranks)) > 1:
        raise BadInput(f"{method} mixes adapters of one rank; these have {', '.join(map(str, ranks))}: use cat or svd")
    total = sum(ranks) if method == "cat" else rank or max(ranks)
    if not 1 <= total <= files.MAX_RANK:
        raise BadInput(f"rank {total}: the server takes up to {files.MAX_RANK}; use svd with a smaller rank")
    generator = torch.Generator().manual_seed(seed)
    result: dict[str, Any] = {}
    for name in names:
        have = [(part[name], w, r) for part, w, r in zip(scaled, weights, ranks, strict=True) if name in part]
        shapes = {(a.shape[1], b.shape[0]) for (a, b), _, _ in have}
        if len(shapes) > 1:
            raise BadInput(f"{name}: the adapters have different shapes there")
        a, b = _module(torch, have, method, total, generator)
        result[f"{name}.lora_A.weight"], result[f"{name}.lora_B.weight"] = a.contiguous(), b.contiguous()
    part_folder = out.parent / f".{out.name}.part"
    shutil.rmtree(part_folder, ignore_errors=True)
    part_folder.mkdir(parents=True)
    safetensors.save_file(result, part_folder / files.WEIGHTS, metadata={"format": "pt"})
    targets = sorted({name.rpartition(".")[2] for name in names})
    config = {**configs[0], "r": total, "lora_alpha": total, "use_rslora": False, "target_modules": targets}
    (part_folder / files.CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    digest = files.write_manifest(
        part_folder,
        method=f"compose:{method}",
        parents=[files.digest(folder) for folder, _ in parts],
        weights=weights,
        **{k: manifests[0][k] for k in ("base_model", "base_digest", "template_digest") if manifests[0].get(k)},
        **{name: value for name in ("brand", "retailer", "task") if (value := _one(m.get(name) for m in manifests))},
    )
    part_folder.rename(out)
    return digest


def _one(values: Iterable[Any]) -> Any:
    """What the parts that say anything agree on."""
    found = {value for value in values if value}
    return found.pop() if len(found) == 1 else None


def _scaled(torch: Any, tensors: dict[str, Any], config: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Module name to (A, B) in fp32, the scaling inside B."""
    rank = int(config["r"])
    scaling = float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    found = {}
    for key, value in tensors.items():
        if ".lora_A" in key:
            module = key.split(".lora_A")[0]
            b = tensors[key.replace(".lora_A", ".lora_B")]
            found[module] = (value.to(torch.float32), scaling * b.to(torch.float32))
    return found


def _module(torch: Any, have: list[Any], method: str, total: int, generator: Any) -> tuple[Any, Any]:
    if method in ("cat", "svd"):
        a = torch.cat([a for (a, _), _, _ in have])
        b = torch.cat([w * b for (_, b), w, _ in have], dim=1)
        if method == "cat":
            missing = total - a.shape[0]
            if missing:  # a part without this module adds nothing here
                a = torch.cat([a, torch.zeros(missing, a.shape[1])])
                b = torch.cat([b, torch.zeros(b.shape[0], missing)], dim=1)
            return a, b
        qb, rb = torch.linalg.qr(b)
        qa, ra = torch.linalg.qr(a.T)
        u, s, v = torch.linalg.svd(rb @ ra.T)
        rank = min(total, len(s))
        root = s[:rank].sqrt()
        small_a, small_b = (root[:, None] * v[:rank]) @ qa.T, qb @ (u[:, :rank] * root)
        if rank < total:
            small_a = torch.cat([small_a, torch.zeros(total - rank, small_a.shape[1])])
            small_b = torch.cat([small_b, torch.zeros(small_b.shape[0], total - rank)], dim=1)
        return small_a, small_b
    mixed = []
    for side in (0, 1):
        root = [math.copysign(math.sqrt(abs(w)), w if side else 1.0) for _, w, _ in have]
        values = [r * pair[side] for (pair, _, _), r in zip(have, root, strict=True)]
        mixed.append(_mixed(torch, values, method, generator))
    return mixed[0], mixed[1]


def _mixed(torch: Any, values: list[Any], method: str, generator: Any) -> Any:
    if method == "linear":
        return sum(values)
    kept = []
    for value in values:
        if method == "dare_ties":
            drop = torch.rand(value.shape, generator=generator) < KEPT
            kept.append(torch.where(drop, value / KEPT, torch.zeros_like(value)))
        else:
            count = max(int(KEPT * value.numel()), 1)
            edge = value.abs().flatten().kthvalue(value.numel() - count + 1).values
            kept.append(torch.where(value.abs() >= edge, value, torch.zeros_like(value)))
    stack = torch.stack(kept)
    sign = torch.sign(stack.sum(dim=0))
    agree = torch.sign(stack) == sign
    return torch.where(agree, stack, torch.zeros_like(stack)).sum(dim=0)

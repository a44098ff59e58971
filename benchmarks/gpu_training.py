"""Tokens a second of LoRA training at the 8 B shape on one GPU, recipe by recipe, beside the default recipe.

Random weights: speed does not depend on them. Each recipe is given the largest batch that the memory plan
finds for it; its share is of the limit of 4 N operations a token at the matrix speed measured in the same run.

    python -m benchmarks gpu_training [--full]
    python -m benchmarks.gpu_training --shape tiny --device cpu   (that the script works, not a figure)
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Row
from rmn.lib.errors import NotConfigured
from training.lora import memory

ALONE = True  # needs a GPU: runs only where it is named
RANK = 16
SHAPES = {
    "8b": (memory.Shape(32, 4096, 14336, 128256, 32, 8, False), 2048),
    "tiny": (memory.Shape(2, 64, 128, 512, 4, 2, False), 64),
}


@dataclass(frozen=True)
class Recipe:
    name: str
    numbers: str  # bf16, mixed, fp32
    fused: bool = False
    nf4: bool = False
    checkpointing: str = "auto"
    bar: float = 0.0  # tokens a second


RECIPES = (
    Recipe("default of transformers and PEFT", "mixed", checkpointing="on"),
    Recipe("fused kernels, adapters in fp32", "mixed", fused=True),
    Recipe("fused kernels, adapters in bf16", "bf16", fused=True, bar=14_000),
    Recipe("NF4, fused kernels", "bf16", fused=True, nf4=True, bar=7_900),
)


def model_of(shape: memory.Shape, recipe: Recipe, device: str, length: int, checkpointing: bool) -> Any:
    """A model of random weights with LoRA on all linear maps."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.inner, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, max_position_embeddings=length, use_cache=False,
    )  # fmt: skip
    if recipe.fused:
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama()
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    if recipe.nf4:
        _quantize(model, device)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    wanted = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(model, wanted, autocast_adapter_dtype=recipe.numbers != "bf16")
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _quantize(model: Any, device: str) -> None:
    import bitsandbytes as bnb
    import torch

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name:
            parent = model.get_submodule(name.rpartition(".")[0])
            small = bnb.nn.Linear4bit(module.in_features, module.out_features, bias=False, compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4")  # fmt: skip
            small.weight = bnb.nn.Params4bit(module.weight.data.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True)  # fmt: skip
            setattr(parent, name.rpartition(".")[2], small.to(device))


def speed(model: Any, recipe: Recipe, batch: int, length: int, vocabulary: int, device: str, steps: int) -> tuple[float, float]:  # fmt: skip
    """Tokens a second over ``steps`` after three to warm up, and the peak of memory in GiB."""
    import torch

    cuda = device == "cuda"
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=cuda)
    ids = torch.randint(0, vocabulary, (batch, length), device=device)
    started = 0.0
    for step in range(steps + 3):
        if step == 3:
            if cuda:
                torch.cuda.synchronize()
            started = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=recipe.numbers == "mixed"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if cuda:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / memory.GIB if cuda else 0.0
    return batch * length * steps / (time.perf_counter() - started), peak


def peak_flops(device: str) -> float:
    """Matrix speed of the device in bf16, operations a second."""
    import torch

    n = 8192 if device == "cuda" else 512
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ b
    if device == "cuda":
        torch.cuda.synchronize()
    return 20 * 2 * n**3 / (time.perf_counter() - started)


def measure(shape_name: str, device: str, steps: int) -> list[Row]:
    import gc

    import torch

    shape, length = SHAPES[shape_name]
    room = float(torch.cuda.get_device_properties(0).total_memory) if device == "cuda" else 4 * memory.GIB
    limit = peak_flops(device) / (4 * shape.parameters)
    told: list[Row] = []
    default = None
    for recipe in RECIPES:
        if device == "cpu" and (recipe.fused or recipe.nf4):
            continue
        cut = memory.plan(
            shape, batch=8 if not recipe.nf4 else 16, accumulation=1, length=length, rank=RANK, device_bytes=room,
            numbers=recipe.numbers, fused=recipe.fused, nf4=recipe.nf4,
            checkpointing="on" if recipe.nf4 else recipe.checkpointing,
        )  # fmt: skip
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        model = model_of(shape, recipe, device, length, cut.checkpointing)
        rate, peak = speed(model, recipe, cut.batch, length, shape.vocabulary, device, steps)
        default = default or rate
        words = f"{recipe.name}, batch {cut.batch}{', checkpointing' if cut.checkpointing else ''} ({rate / limit:.2f} of the limit, {peak:.0f} GiB, {cut.bytes / memory.GIB:.0f} planned)"
        told.append(Row(words, rate, "tokens/s", "default recipe", default, f"{recipe.bar:,.0f}" if recipe.bar else "", rate >= recipe.bar if recipe.bar else None))  # fmt: skip
        del model
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    return told


def rows(size: str) -> list[Row]:
    import torch

    if not torch.cuda.is_available():
        raise NotConfigured("gpu_training needs a GPU with torch for CUDA; none is here, so no figure is seen")
    return measure("8b", "cuda", 10 if size == "full" else 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    for row in measure(options.shape, options.device, 4):
        print(f"{row.what}: {row.ours:,.0f} tokens/s, {row.ours / (row.theirs or 1):.2f} of the default recipe")


if __name__ == "__main__":
    main()

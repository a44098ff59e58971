"""Tokens a second of many adapters in one batch at the 8 B shape on one GPU, beside PEFT in the same run.

Random weights: speed does not depend on them. Ours runs the engine's own step (decoder, arena, cache, the next token
read back each time); PEFT runs ``generate``. Rank 16 on all linear maps, batch 32, bfloat16.

    python -m benchmarks gpu_serving
    python -m benchmarks.gpu_serving --shape tiny --device cpu   (that the script works, not a figure)
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.harness import Row, table

ALONE = True  # needs a GPU: runs only where it is named
BATCH, RANK, HELD = 32, 16, 64
SHAPES = {
    "8b": {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
}  # fmt: skip


@dataclass(eq=False)
class Made:
    """An adapter of random weights, as the arena reads one."""

    info: Any
    parts: list[dict[str, Any]]
    rank: int = RANK
    users: int = 1


def rows(size: str) -> list[Row]:
    return measured("8b", "cuda", 48 if size == "small" else 128)


def measured(shape: str, device: str, steps: int) -> list[Row]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=1024, tie_word_embeddings=False)
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    theirs = peft_speeds(model, device, max(8, steps // 4))
    ours = our_speeds(model, config, device, dtype, steps)

    def share(many: str, few: str) -> tuple[float, float]:
        return ours[many] / ours[few], theirs[many] / theirs[few]

    mixed, one = share("32", "1"), share("1", "0")
    return [
        Row("32 adapters mixed, of one adapter's tokens/s", mixed[0], "share", "PEFT, the same share", mixed[1], "at least 0.8", mixed[0] >= 0.8),
        Row("one adapter, of the base's tokens/s", one[0], "share", "PEFT, the same share", one[1]),
        Row("base alone", ours["0"], "tokens/s", "transformers", theirs["0"]),
        Row("one adapter", ours["1"], "tokens/s", "PEFT", theirs["1"]),
        Row("8 adapters mixed", ours["8"], "tokens/s"),
        Row("32 adapters mixed", ours["32"], "tokens/s", "PEFT with adapter_names", theirs["32"]),
        Row("scores in the mixed batch, of one adapter at a time", ours["apart"], "share of its effect", "the next row's adapter", ours["others"], "at most 0.05", ours["apart"] <= 0.05),
    ]  # fmt: skip


def speed(work: Callable[[], None], tokens: int, repeats: int = 3) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return tokens / statistics.median(times)


def peft_speeds(model: Any, device: str, steps: int) -> dict[str, float]:
    """Without adapters, with one, and with 32 in the batch; the model is as it was afterwards."""
    import torch
    from peft import LoraConfig, get_peft_model

    ids = torch.randint(5, 500, (BATCH, HELD), device=device)

    def work(model: Any, **more: Any) -> None:
        how = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False, "pad_token_id": 0}
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how, **more)

    found = {"0": speed(lambda: work(model), BATCH * steps)}
    config = LoraConfig(r=RANK, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config, adapter_name="a0", autocast_adapter_dtype=False)
    found["1"] = speed(lambda: work(adapted), BATCH * steps)
    for number in range(1, BATCH):
        adapted.add_adapter(f"a{number}", config)
    adapted.eval()
    names = [f"a{number}" for number in range(BATCH)]
    found["32"] = speed(lambda: work(adapted, adapter_names=names), BATCH * steps, repeats=1)
    adapted.unload()
    gc.collect()
    return found


def our_speeds(model: Any, config: Any, device: str, dtype: Any, steps: int) -> dict[str, float]:
    import torch
    from transformers import AutoModelForCausalLM

    from agents.inference.decoder import GROUPS, Cache, Decoder

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config.to_dict()))
        AutoModelForCausalLM.from_pretrained = lambda *_, **__: model  # 16 GB that need not go through a disk
        decoder = Decoder(Path(folder), device, dtype)
    modules = tuple(module for group in GROUPS.values() for module in group)

    def part(module: str) -> tuple[Any, Any]:
        inputs, outputs = decoder.shape.modules[module]
        a = torch.randn(RANK, inputs, device=device, dtype=dtype) / inputs**0.5
        return a, torch.randn(outputs, RANK, device=device, dtype=dtype) * 0.01

    info = SimpleNamespace(targets=modules)
    made: list[Any] = [Made(info, [{m: part(m) for m in modules} for _ in decoder.layers]) for _ in range(BATCH)]
    cache = Cache(decoder, BATCH, HELD + steps + 1)
    for tensor in (*cache.keys, *cache.values):
        tensor.normal_()

    def work(adapters: list[Any]) -> None:
        tokens = list(range(5, 5 + BATCH))
        with torch.inference_mode():
            for step in range(steps):
                held = [HELD + step] * BATCH
                hidden = decoder.forward(
                    torch.tensor(tokens, device=device),
                    torch.tensor(held, device=device),
                    cache.step(held),
                    decoder.arena.plan(adapters),
                )
                tokens = decoder.logits(hidden).argmax(-1).tolist()

    found = {"0": speed(lambda: work([None] * BATCH), BATCH * steps)}
    for count in (1, 8, 32):
        adapters = [made[number % count] for number in range(BATCH)]
        found[str(count)] = speed(lambda adapters=adapters: work(adapters), BATCH * steps)  # type: ignore[misc]

    def scores(adapters: list[Any]) -> Any:
        tokens, held = torch.arange(5, 5 + BATCH, device=device), [HELD] * BATCH
        places = torch.tensor(held, device=device)
        return decoder.logits(decoder.forward(tokens, places, cache.step(held), decoder.arena.plan(adapters)))

    with torch.inference_mode():
        mixed, base = scores(made), scores([None] * BATCH)
        alone = torch.stack([scores([adapter] * BATCH)[row] for row, adapter in enumerate(made)])
    found["apart"] = float((mixed - alone).abs().mean() / (base - alone).abs().mean())
    found["others"] = float((mixed - alone.roll(1, 0)).abs().mean() / (base - alone).abs().mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_serving", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=48)
    options = parser.parse_args()
    print(table(measured(options.shape, options.device, options.steps)))


if __name__ == "__main__":
    main()

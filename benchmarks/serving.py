"""Many adapters on one base model: our engine beside transformers and PEFT, on the base model of this installation.

All sides run in this process, one after the other, on the same prompts and the same random adapters
(rank 8, our default, all seven modules). Tokens a second count new tokens over the whole time, prompts included.
"""

from __future__ import annotations

import copy
import json
import math
import os
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.harness import Row

BASE = Path(__file__).resolve().parent.parent / "var" / "models" / "base"
BATCH, ADAPTERS, RANK = 16, 8, 8
CLIENTS, ROWS = 64, 16
NOTE = (
    "Batch of 16 requests, greedy, the end token ignored. The queueing limit: the time our own full batch "
    "needs for all tokens that must come out before the 61st of 64 requests gets a row."
)


def rows(size: str) -> list[Row]:
    new, repeats = (32, 3) if size == "small" else (64, 5)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(ADAPTERS):
            write_adapter(root / f"a{number}", seed=number)
        ours = our_speeds(root, new, repeats)
        theirs = peft_speeds(root, new, repeats)
        table = [
            share("8 adapters mixed, of one adapter's tokens/s", ours, theirs, "mixed", "one", 0.95),
            share("one adapter, of the base's tokens/s", ours, theirs, "one", "base", 0.75),
            share("single stream, of plain generate's tokens/s", {"a": ours["single"], "b": theirs["single"]}, None, "a", "b", 0.95),
            Row("8 adapters mixed", ours["mixed"], "tokens/s", "PEFT with adapter_names", theirs["mixed"]),
        ]  # fmt: skip
        return table + over_http(root, ours["mixed"], 16 if size == "small" else 48)


def share(
    what: str, ours: dict[str, float], theirs: dict[str, float] | None, upper: str, lower: str, bar: float
) -> Row:
    found = ours[upper] / ours[lower]
    peer = theirs[upper] / theirs[lower] if theirs else None
    name = "PEFT, the same share" if theirs else ""
    return Row(what, found, "share", name, peer, f"at least {bar}", found >= bar)


def write_adapter(folder: Path, seed: int) -> None:
    """A random adapter of PEFT's format; small, so that the text stays a text."""
    import torch
    from safetensors.torch import save_file

    from agents.inference.adapters import TARGETS, BaseShape

    shape = BaseShape.of(BASE)
    torch.manual_seed(seed)
    tensors = {}
    for layer in range(shape.layers):
        for module in TARGETS:
            inputs, outputs = shape.modules[module]
            owner = "self_attn" if module in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
            name = f"base_model.model.model.layers.{layer}.{owner}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, inputs) / math.sqrt(inputs)
            tensors[f"{name}.lora_B.weight"] = torch.randn(outputs, RANK) * 0.01
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(TARGETS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def in_turn(cases: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each case, the cases taking turns: what else the machine does meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, work in cases.items():
            began = time.perf_counter()
            work()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(some) for name, some in times.items()}


def prompts(tokenizer: Any) -> list[list[int]]:
    """Of one length, so that padding costs no side anything."""
    text = "Write one headline for a product in a supermarket. The product is number"
    return [tokenizer(f"{text} {10 + number}.")["input_ids"] for number in range(BATCH)]


# -- ours


class Sink(queue.Queue[Any]):
    def __call__(self, events: list[Any]) -> None:
        for event in events:
            self.put(event)

    def drain(self) -> None:
        from agents.inference.engine import EndEvent

        while True:
            event = self.get(timeout=300)
            if isinstance(event, EndEvent):
                if event.error:
                    raise event.error
                return


@contextmanager
def running(root: Path) -> Iterator[tuple[Any, Any]]:
    from transformers import AutoTokenizer

    from agents.inference.decoder import Decoder
    from agents.inference.engine import AdapterStore, Engine, Limits

    limits = Limits(rows=ROWS, total_tokens=512, input_tokens=511)
    decoder = Decoder(BASE)
    tokenizer = AutoTokenizer.from_pretrained(BASE, local_files_only=True)
    engine = Engine(decoder, AdapterStore(root, decoder, BASE, limits, require_manifest=False), tokenizer, limits)
    engine.start()
    try:
        yield engine, tokenizer
    finally:
        engine.stop()


def our_speeds(root: Path, new: int, repeats: int) -> dict[str, float]:
    from agents.inference.engine import Request
    from agents.inference.sampling import Chooser, Sampling

    with running(root) as (engine, tokenizer):
        asked = prompts(tokenizer)

        def work(names: list[str | None]) -> None:
            sinks = []
            for ids, name in zip(asked, names):
                held = engine.store.acquire(name) if name else None
                sink = Sink()
                engine.submit(Request(ids, new, Chooser(Sampling(), ids, None), sink, held, ignore_eos=True))
                sinks.append(sink)
            for sink in sinks:
                sink.drain()

        cases: dict[str, list[str | None]] = {
            "base": [None] * BATCH,
            "one": ["a0"] * BATCH,
            "mixed": [f"a{number % ADAPTERS}" for number in range(BATCH)],
            "single": [None],
        }
        took = in_turn({name: partial(work, names) for name, names in cases.items()}, repeats)
        return {name: len(cases[name]) * new / seconds for name, seconds in took.items()}


# -- the peers


def peft_speeds(root: Path, new: int, repeats: int) -> dict[str, float]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASE, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, local_files_only=True).eval()
    ids = torch.tensor(prompts(tokenizer))

    adapted = PeftModel.from_pretrained(copy.deepcopy(model), str(root / "a0"), adapter_name="a0").eval()
    for number in range(1, ADAPTERS):
        adapted.load_adapter(str(root / f"a{number}"), adapter_name=f"a{number}")

    def work(model: Any, ids: torch.Tensor, **more: Any) -> None:
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
                **more,
            )

    names = [f"a{number % ADAPTERS}" for number in range(BATCH)]
    took = in_turn(
        {
            "base": partial(work, model, ids),
            "one": partial(work, adapted, ids),
            "mixed": partial(work, adapted, ids, adapter_names=names),
            "single": partial(work, model, ids[:1]),
        },
        repeats,
    )
    return {name: (1 if name == "single" else BATCH) * new / seconds for name, seconds in took.items()}


# -- over HTTP


def over_http(root: Path, full_batch: float, new: int) -> list[Row]:
    """64 streaming clients at once, and an adapter from its folder to its first token."""
    import httpx2

    from agents.inference.launcher import own_server

    firsts: list[float] = []
    errors: list[str] = []

    def one(url: str, number: int, start: threading.Barrier) -> None:
        body = {
            "inputs": f"Write one headline for product number {number}.",
            "parameters": {"max_new_tokens": new, "adapter_id": f"a{number % ADAPTERS}", "ignore_eos_token": True},
        }
        start.wait()
        began = time.perf_counter()
        try:
            with httpx2.stream("POST", url + "/generate_stream", json=body, timeout=300) as answer:
                lines = (line for line in answer.iter_lines() if line.startswith("data:"))
                if answer.status_code != 200 or '"error"' in next(lines):
                    errors.append(str(answer.status_code))
                    return
                firsts.append(time.perf_counter() - began)
                errors.extend(line for line in lines if '"error"' in line)
        except (httpx2.HTTPError, StopIteration) as error:
            errors.append(repr(error))

    with own_server(BASE, root, ["--max-batch", str(ROWS), "--max-total-tokens", "512"]) as url:
        loads = []
        for number in range(ADAPTERS):  # known to no request yet: read, checked, first token
            body = {"inputs": "Fresh", "parameters": {"max_new_tokens": 1, "adapter_id": f"a{number}"}}
            began = time.perf_counter()
            httpx2.post(url + "/generate", json=body, timeout=60).raise_for_status()
            loads.append(time.perf_counter() - began)
        start = threading.Barrier(CLIENTS)
        clients = [threading.Thread(target=one, args=(url, number, start)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    late = sorted(firsts)[math.ceil(0.95 * len(firsts)) - 1] if firsts else math.inf
    limit = (math.ceil(0.95 * CLIENTS) - ROWS) * new / full_batch
    worst = max(loads)
    return [
        Row("64 streaming clients, errors", len(errors), "errors", "", None, "0", not errors),
        Row("64 streaming clients, first token p95", late, "s", "queueing limit", limit, "at most 1.5 times it", late <= 1.5 * limit),
        Row("adapter from folder to first token, worst of 8", worst, "s", "", None, "at most 1 s", worst <= 1),
    ]  # fmt: skip

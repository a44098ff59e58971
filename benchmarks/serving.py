"""Many adapters on one base model: our engine beside transformers and PEFT, on the base model of this installation.

All sides run in this process, in turns, on the same prompts and the same random adapters (rank 8, our
default, all seven modules). Speeds are new tokens over processor seconds of all threads, prompts included:
on a machine of one's own that is time by the clock, and on a shared one it still tells the sides apart.
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
    new, repeats = (12, 4) if size == "small" else (48, 5)
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
            Row("base alone", ours["base"], "tokens/s", "transformers", theirs["base"]),
            Row("one adapter", ours["one"], "tokens/s", "PEFT", theirs["one"]),
            Row("8 adapters mixed", ours["mixed"], "tokens/s", "PEFT with adapter_names", theirs["mixed"]),
            Row("8 adapters mixed, beside a naive gather", ours["mixed"], "tokens/s", "weights gathered by row", ours["naive"]),
        ]  # fmt: skip
        table += same_answers(root, 12 if size == "small" else 32)
        return table + over_http(root, ours["mixed by the clock"], 16 if size == "small" else 48)


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


def in_turn(cases: dict[str, Callable[[], None]], repeats: int) -> dict[str, tuple[float, float]]:
    """Median processor and clock seconds of each case, in turns: what else the machine does meets all of them."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, work in cases.items():
            began = time.process_time(), time.perf_counter()
            work()
            if turn:  # the first turn warms up
                times[name].append((time.process_time() - began[0], time.perf_counter() - began[1]))
    return {
        name: (statistics.median(cpu for cpu, _ in some), statistics.median(clock for _, clock in some))
        for name, some in times.items()
    }


def prompts(tokenizer: Any) -> list[list[int]]:
    """Of one length, so that padding costs no side anything."""
    text = "Write one headline for a product in a supermarket. The product is number"
    return [tokenizer(f"{text} {10 + number}.")["input_ids"] for number in range(BATCH)]


# -- ours


class Sink(queue.Queue[Any]):
    def __call__(self, events: list[Any]) -> None:
        for event in events:
            self.put(event)

    def drain(self) -> list[Any]:
        from agents.inference.engine import EndEvent

        tokens = []
        while True:
            event = self.get(timeout=600)
            if isinstance(event, EndEvent):
                if event.error:
                    raise event.error
                return tokens
            tokens.append(event)


@contextmanager
def running(root: Path) -> Iterator[tuple[Any, Any]]:
    from transformers import AutoTokenizer

    from agents.inference.decoder import Decoder
    from agents.inference.engine import AdapterStore, Engine, Limits

    limits = Limits(rows=ROWS, total_tokens=512, input_tokens=511, shared_tokens=0)  # prompts are read, as peers do
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

        def naive() -> None:
            plain, engine.decoder.arena = engine.decoder.arena, gathering
            try:
                work(cases["mixed"])
            finally:
                engine.decoder.arena = plain

        gathering = naive_arena(engine.decoder)
        took = in_turn({**{name: partial(work, names) for name, names in cases.items()}, "naive": naive}, repeats)
        speeds = {name: len(cases.get(name, asked)) * new / cpu for name, (cpu, _) in took.items()}
        return speeds | {"mixed by the clock": BATCH * new / took["mixed"][1]}


def naive_arena(decoder: Any) -> Any:
    """An arena that gathers each token's own weights and takes two batched products, as is often done."""
    import torch

    from agents.inference.decoder import GROUPS, Arena, Plan

    class Gathering(Arena):
        held: tuple[Any, ...] = ()

        def plan(self, adapters: Any) -> Any:
            self._place(list(dict.fromkeys(adapters)))
            self.index = torch.tensor([self.slots.index(adapter) for adapter in adapters])
            if self.held != tuple(self.slots):  # once: B as (S, outputs, R), so that a gather is one copy
                self.held = tuple(self.slots)
                self.own = [
                    {
                        name: b.view(-1, len(self.slots), self.rank).transpose(0, 1).contiguous()
                        for name, b in some.items()
                    }
                    for some in self.b
                ]
            return Plan(0, 1, frozenset(GROUPS), None, None, {})

        def add(self, plan: Any, layer: int, group: str, x: Any, y: Any) -> None:
            inner = torch.bmm(self.a[layer][group].index_select(0, self.index), x.unsqueeze(2))
            start = 0
            for number, module in enumerate(GROUPS[group]):
                weight = self.own[layer][module].index_select(0, self.index)
                part = inner[:, number * self.rank : (number + 1) * self.rank]
                y[:, start : start + weight.shape[1]] += torch.bmm(weight, part).squeeze(2)
                start += weight.shape[1]

    return Gathering(decoder.shape, decoder.dtype, decoder.device)


# -- the same answers as PEFT

THINGS = ("tea", "fresh bread", "olive oil", "sparkling water", "a wool coat", "running shoes", "dog food", "face cream", "a kettle", "paper towels", "oat milk", "a desk lamp", "shampoo", "rice", "a garden hose", "batteries", "yoghurt", "a backpack", "toothpaste", "frozen peas")  # fmt: skip
WISHES = ("Write one headline for {}.", "Say in ten words why people buy {}.", "A short advertisement for {}:", "Name three facts about {}.", "Who buys {}, and when?", "Write a call to action for {}.", "Describe {} to a child.", "The best thing about {} is", "Write a title for a page that sells {}.", "How is {} kept fresh or clean?")  # fmt: skip


def same_answers(root: Path, new: int) -> list[Row]:
    """200 prompts over 8 adapters: ours, all adapters mixed, against PEFT with one adapter at a time."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from agents.inference.engine import Request
    from agents.inference.sampling import Chooser, Sampling

    asked = [wish.format(thing) for wish in WISHES for thing in THINGS]
    with running(root) as (engine, tokenizer):
        ids = [tokenizer(text)["input_ids"] for text in asked]
        ours: list[list[Any]] = []
        for start in range(0, len(ids), 50):
            sinks = []
            for number in range(start, start + 50):
                held, sink = engine.store.acquire(f"a{number % ADAPTERS}"), Sink()
                chooser = Chooser(Sampling(), ids[number], None)
                engine.submit(Request(ids[number], new, chooser, sink, held, ignore_eos=True, top_n=2))
                sinks.append(sink)
            ours += [sink.drain() for sink in sinks]
    plain = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, local_files_only=True)
    model = PeftModel.from_pretrained(plain, str(root / "a0"), adapter_name="a0").eval()
    for name in range(1, ADAPTERS):
        model.load_adapter(str(root / f"a{name}"), adapter_name=f"a{name}")
    model.generation_config.eos_token_id = None
    groups: dict[tuple[int, int], list[int]] = {}
    for number, some in enumerate(ids):  # of one adapter and one length: no padding
        groups.setdefault((number % ADAPTERS, len(some)), []).append(number)
    differ, ties = 0, 0
    for (adapter, length), numbers in groups.items():
        model.set_adapter(f"a{adapter}")
        batch = torch.tensor([ids[number] for number in numbers])
        # no end token at all, as ours ignores it: min_new_tokens would forbid it and take the second best
        how = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        with torch.inference_mode():
            whole = model.generate(input_ids=batch, attention_mask=torch.ones_like(batch), **how)
        for number, theirs in zip(numbers, whole[:, length:].tolist()):
            place = next((n for n, (a, b) in enumerate(zip(ours[number], theirs)) if a.id != b), None)
            if place is not None:
                first, second = ours[number][place].top
                print(f"{asked[number]!r} under a{adapter}: another token at {place}, the top two {first[2] - second[2]:.1e} apart")  # fmt: skip
                tie = first[2] - second[2] <= 1e-3
                differ, ties = differ + (not tie), ties + tie
    return [
        Row("200 prompts, another answer than PEFT's", differ, "prompts", "", None, "0", not differ),
        Row("of them at a tie of the top two (1e-3)", ties, "prompts", "", None, "at most 2", ties <= 2),
    ]


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
    return {name: (1 if name == "single" else BATCH) * new / seconds for name, (seconds, _) in took.items()}


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

    loads, dead = [], time.perf_counter()
    with own_server(BASE, root, ["--max-batch", str(ROWS), "--max-total-tokens", "512"]) as url:
        up = time.perf_counter()
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
    worst, again = max(loads), up - dead + loads[0]
    return [
        Row("64 streaming clients, errors", len(errors), "errors", "", None, "0", not errors),
        Row("64 streaming clients, first token p95", late, "s", "queueing limit", limit, "at most 1.5 times it", late <= 1.5 * limit),
        Row("adapter from folder to first token, worst of 8", worst, "s", "", None, "at most 1 s", worst <= 1),
        Row("from a dead server to the first token under an adapter", again, "s", "", None, "at most 10 s", again <= 10),
    ]  # fmt: skip

"""Our model server under load: adapters that come and go, and a death in the middle of it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from agents.inference.clients import Breaker, OpenAIClient, TGIClient
from agents.inference.errors import InferenceError
from agents.inference.types import Question
from rmn.lib.processes import free_port
from tests.agents.tiny import make_adapter, make_base, tokenizer
from tests.faults.conftest import ROOT, until

ADAPTERS, RESPONSES, TURNS, CLIENTS = 20, 5000, 200, 8
PROMPTS = ["fresh bread", "Two for one on tea", "Water, 12 oz", "New: rice", "Tea?"]


@contextmanager
def serving(base: Path, root: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "agents.inference.server", "--model", str(base), "--adapters", str(root)]
    command += ["--port", str(port), "--max-total-tokens", "256", "--threads", "1", "--until-stdin-closes"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    )
    try:
        until(lambda: TGIClient(f"http://127.0.0.1:{port}").is_healthy(), 180, "the server is healthy")
        yield process
    finally:
        process.kill()
        process.wait(10)


def greedy(model: torch.nn.Module, prompt: str) -> tuple[int, ...]:
    """The tokens that PEFT writes, up to the end's."""
    ids = tokenizer()(prompt, return_tensors="pt")
    with torch.inference_mode():
        whole = model.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=0)  # type: ignore[operator]
    new = whole[0, ids["input_ids"].shape[1] :].tolist()
    return tuple(new[: new.index(2) + 1] if 2 in new else new)


def test_of_5000_answers_while_adapters_come_and_go_none_is_another_adapters(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    root, port = tmp_path / "adapters", free_port()
    names = [f"brand-{number:02}" for number in range(ADAPTERS)]
    digests = {
        name: make_adapter(root / name, base, seed=number, rank=(2, 4, 8)[number % 3], scale=0.5)
        for number, name in enumerate(names)
    }
    plain = LlamaForCausalLM.from_pretrained(base).eval()
    canary = {("", prompt): greedy(plain, prompt) for prompt in PROMPTS}
    for name in names:
        model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), str(root / name)).eval()
        canary |= {(name, prompt): greedy(model, prompt) for prompt in PROMPTS}
    # those on which each answer tells who gave it: what PEFT says alone is an adapter's canary
    prompts = [prompt for prompt in PROMPTS if len({canary[name, prompt] for name in ("", *names)}) == ADAPTERS + 1]
    assert len(prompts) >= 3
    url = f"http://127.0.0.1:{port}"
    answered: list[int] = []
    wrong: list[str] = []
    refused: list[str] = []
    turned: list[str] = []
    over = threading.Event()

    def ask(seed: int) -> None:
        draw = random.Random(seed)
        with httpx2.Client(timeout=120) as http:
            while len(answered) < RESPONSES:
                name, prompt = draw.choice(names), draw.choice(prompts)
                body = {"inputs": prompt, "parameters": {"max_new_tokens": 12, "adapter_id": name, "details": True}}
                answer = http.post(url + "/generate", json=body)
                if answer.status_code == 422:  # it is away at the moment
                    refused.append(answer.json()["error"])
                    continue
                answered.append(answer.status_code)
                told = answer.json().get("details", {}).get("tokens", [])
                said = tuple(token["id"] for token in told)
                if said != canary[name, prompt] or answer.headers.get("x-adapter-digest") != digests[name]:
                    wrong.append(f"{name} on {prompt!r}: {answer.text[:200]}")

    def turn() -> None:
        draw = random.Random(0)
        client = TGIClient(url, timeout_s=120)
        while not over.is_set() or len(turned) < TURNS:
            name = draw.choice(names)
            client.unload(name)
            client.load(name, str(root / name), {"digest": digests[name]})
            turned.append(name)
            if len(turned) >= TURNS and over.is_set():
                return
            over.wait(0.02 if len(turned) < TURNS else 0.5)

    with serving(base, root, port):
        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(CLIENTS)]
        turner = threading.Thread(target=turn)
        for thread in [*threads, turner]:
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        turner.join()
    sys.stdout.write(
        f"{len(answered)} answers, {len(refused)} refused while away, {len(turned)} loads and unloads, {len(wrong)} wrong\n"
    )
    assert not wrong, wrong[:3]
    assert set(answered) == {200}
    assert len(turned) >= TURNS
    assert all("is not served here" in said for said in refused)


def test_killed_under_load_clients_may_try_again_and_nothing_half_loaded_serves_after_it(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    root, port = tmp_path / "adapters", free_port()
    for number in range(4):
        make_adapter(root / f"a{number}", base, seed=number)
    url = f"http://127.0.0.1:{port}"
    errors: list[BaseException] = []
    pieces: list[str] = []

    def ask(number: int) -> None:
        driver = (TGIClient, OpenAIClient)[number % 2]
        client = driver(url, timeout_s=60, tries=1, breaker=Breaker(failures=1000))
        question = Question(messages=[{"role": "user", "content": "tea"}], adapter=f"a{number % 4}", max_tokens=150)
        try:
            while True:
                if number < 4:
                    pieces.extend(client.stream(question))
                else:
                    pieces.append(client.generate(question).text)
        except BaseException as error:  # noqa: BLE001  # whatever a client meets is what is looked at
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    with serving(base, root, port) as process:
        for thread in threads:
            thread.start()
        until(lambda: len(pieces) > 20, 120, "answers flow")
        process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join(90)
    assert len(errors) == 8
    for error in errors:
        assert isinstance(error, InferenceError), repr(error)
        assert error.retryable, repr(error)
    # what a worker that was killed in the middle of copying leaves behind
    shutil.copytree(root / "a0", root / ".a9.part")
    half = shutil.copytree(root / "a0", root / "a9")
    weights = half / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    began = time.monotonic()
    with serving(base, root, port):
        answer = TGIClient(url).generate(Question(prompt="tea", adapter="a1", max_tokens=4))
        sys.stdout.write(f"serves again after {time.monotonic() - began:.1f} s\n")
        told = httpx2.get(url + "/v1/models").json()
        assert [entry["id"] for entry in told["data"] if entry["parent"]] == ["a0", "a1", "a2", "a3"]
        assert list(told["refused"]) == ["a9"]
        with pytest.raises(InferenceError, match="not served here"):
            TGIClient(url).generate(Question(prompt="tea", adapter="a9", max_tokens=4))
    assert answer.tokens_out

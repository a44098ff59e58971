"""A training survives twenty kills at random moments, and nobody ever sees half an adapter."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agents.inference import adapters
from tests.faults.conftest import ROOT

KILLS = 20
STEPS = 60
# Imports once, then forks: each child is a trainer that is killed. The parent computes nothing, so forking is safe.
NURSERY = """
import os, sys
from pathlib import Path
from training.lora import config
from training.lora.train import _libraries, train
_libraries()
from peft import LoraConfig
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            train(config.read(Path(line.strip())), resume=True, progress=lambda told: print("step", told["step"], flush=True))
            os._exit(0)
        except BaseException as error:
            print("error", error, flush=True)
            os._exit(1)
    print("child", child, flush=True)
    _, status = os.waitpid(child, 0)
    print("ended", status, flush=True)
"""


@pytest.fixture
def nursery() -> Any:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", NURSERY], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "ready"
    yield child
    child.terminate()
    child.wait(20)


def attempt(nursery: Any, file: Path, rng: random.Random | None) -> tuple[str, int]:
    """Run a trainer; with ``rng`` kill it at a random moment. How it ended, and the last step it told."""
    nursery.stdin.write(f"{file}\n")
    nursery.stdin.flush()
    pid = int(nursery.stdout.readline().split()[1])
    told, last = 0, 0
    patience = rng.randint(1, 5) if rng else STEPS + 1
    while True:
        word, _, value = nursery.stdout.readline().strip().partition(" ")
        if word == "ended":
            return ("killed" if int(value) == signal.SIGKILL else "done" if value == "0" else f"failed {value}"), last
        assert word == "step", f"{word} {value}"
        told, last = told + 1, int(value)
        if rng and told == patience:
            time.sleep(rng.random() * 0.05)  # anywhere: in a step, in a checkpoint, between the two
            os.kill(pid, signal.SIGKILL)


def test_twenty_kills_at_random_moments_end_in_the_unbroken_run(nursery: Any, tmp_path: Path) -> None:
    from tests.agents.tiny import make_base
    from tests.training.test_lora import rows

    base = make_base(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows("dpo"))))
    folder = tmp_path / "adapters"
    given = {"base_model": str(base), "method": "dpo", "data": str(tmp_path / "rows.jsonl"), "steps": STEPS, "batch": 4,
             "max_length": 64, "dropout": 0.05, "save_every": 2, "learning_rate": 1e-3}  # fmt: skip
    files = {}
    for name in ("served", "killed"):
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(json.dumps(given | {"out": str(folder / name)}))
    assert attempt(nursery, files["served"], None) == ("done", STEPS)
    unbroken = adapters.read_manifest(folder / "served")
    before = adapters.digest(folder / "served")

    rng = random.Random(13)
    kills, ends = 0, ""
    while kills < KILLS:
        ends, step = attempt(nursery, files["killed"], rng)
        if ends != "killed":
            break
        kills += 1
        visible = {one.name for one in folder.iterdir() if not one.name.startswith(".")}
        assert visible <= {"served"}, f"after a kill at step {step}: {visible}"
        assert adapters.digest(folder / "served") == before
    assert kills == KILLS, f"{ends} after {kills} kills"
    assert attempt(nursery, files["killed"], None)[0] == "done"
    manifest = adapters.read_manifest(folder / "killed")
    assert manifest["resumed"]
    assert [line["step"] for line in manifest["curve"]] == list(range(1, STEPS + 1))
    assert abs(manifest["final_loss"] - unbroken["final_loss"]) < 1e-4
    assert adapters.digest(folder / "served") == before
    assert not [one for one in folder.iterdir() if one.name.endswith((".part", ".work"))]


def test_two_processes_on_one_run_leave_one_adapter(tmp_path: Path) -> None:
    from tests.agents.tiny import make_base
    from tests.training.test_lora import rows

    base = make_base(tmp_path / "base")
    (tmp_path / "sft.jsonl").write_text("\n".join(map(json.dumps, rows("sft", 32))))
    given = {"base_model": str(base), "method": "sft", "data": "sft.jsonl", "out": "a", "steps": 4, "batch": 4, "max_length": 64, "save_every": 2}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(given))
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *launch, "-m", "training.lora", str(tmp_path / "run.json")],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-600:]
    assert json.loads(done.stdout)["digest"] == adapters.digest(tmp_path / "a")
    assert adapters.read_manifest(tmp_path / "a")["steps"] == 4

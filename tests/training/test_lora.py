"""The trainer on a random small Llama: what comes out, what is refused, what a kill costs."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agents.inference import adapters
from agents.inference.base import base_digest, template_digest
from rmn.lib.errors import BadInput
from training.lora import config, data
from training.lora import train as trainer
from training.lora.lamps import LN2, lit
from training.lora.train import Stopped, train

ROOT = Path(__file__).resolve().parents[2]
PRODUCTS = ("tea", "soup", "bagels", "cones")


def say(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def rows(method: str, count: int = 16) -> list[dict[str, Any]]:
    found = []
    for i in range(count):
        what = PRODUCTS[i % 4]
        prompt = say("user", f"{i} {what}")
        good, bad = say("assistant", f"ACME {what}"), say("assistant", f"Best {what}!!")
        if method == "dpo":
            found.append({"prompt": prompt, "chosen": good, "rejected": bad})
        elif method == "kto":
            found.append({"prompt": prompt, "completion": good if i % 2 else bad, "label": bool(i % 2)})
        else:
            found.append({"prompt": prompt, "completion": good})
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.agents.tiny import make_base

    return make_base(tmp_path_factory.mktemp("base") / "tiny")


def run(base: Path, folder: Path, method: str = "sft", **more: Any) -> config.RunConfig:
    (folder / f"{method}.jsonl").write_text("\n".join(map(json.dumps, rows(method))))
    given = {"base_model": str(base), "method": method, "data": f"{method}.jsonl", "out": f"a-{method}", "steps": 4, "batch": 4}  # fmt: skip
    return config.parse(given | {"max_length": 64, "dropout": 0.0} | more, folder)


def test_an_adapter_comes_out_that_the_server_takes(base: Path, tmp_path: Path) -> None:
    asked = run(base, tmp_path)
    told: list[int] = []
    manifest = train(asked, progress=lambda line: told.append(line["step"]))
    info = adapters.check(
        asked.out,
        adapters.BaseShape.of(base),
        base_digest=base_digest(base),
        template_digest=template_digest(base),
        require_manifest=True,
    )
    assert info.verified
    assert info.digest == manifest["digest"]
    assert told == [1, 2, 3, 4]
    assert [line["step"] for line in manifest["curve"]] == told
    assert sorted(p.name for p in asked.out.iterdir()) == [adapters.CONFIG, adapters.WEIGHTS, adapters.MANIFEST]
    assert str(tmp_path) not in (asked.out / adapters.CONFIG).read_text()
    assert not asked.work.exists()
    probe = manifest["probes"][0]
    assert len(probe["logprobs"]) == len(probe["base_logprobs"]) > 5


def test_the_first_dpo_loss_is_ln_2_and_the_parent_is_its_reference(base: Path, tmp_path: Path) -> None:
    first = train(run(base, tmp_path))
    manifest = train(run(base, tmp_path, "dpo", parent="a-sft", learning_rate=1e-3, warmup=0))
    assert manifest["curve"][0]["loss"] == pytest.approx(LN2, abs=1e-4)
    assert manifest["parents"] == [first["digest"]]
    assert manifest["curve"][-1]["loss"] < LN2


def test_kto_needs_both_kinds_of_text(base: Path, tmp_path: Path) -> None:
    assert train(run(base, tmp_path, "kto", batch=4, steps=2))["steps"] == 2
    asked = run(base, tmp_path, "kto", out="b")
    asked.data.write_text("\n".join(json.dumps(row | {"label": True}) for row in rows("kto")))
    with pytest.raises(BadInput, match="wanted and unwanted"):
        train(asked)


def test_the_same_run_gives_the_same_digest(base: Path, tmp_path: Path) -> None:
    digests = {train(run(base, tmp_path, out=name))["digest"] for name in ("x", "y")}
    assert len(digests) == 1


def test_one_row_with_eight_accumulations_follows_eight_rows(base: Path, tmp_path: Path) -> None:
    whole = train(run(base, tmp_path, out="whole", batch=8, accumulation=1, steps=2))
    parts = train(run(base, tmp_path, out="parts", batch=1, accumulation=8, steps=2))
    for one, other in zip(whole["curve"], parts["curve"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=2e-3)


def test_a_stopped_run_goes_on_to_the_same_loss(base: Path, tmp_path: Path) -> None:
    unbroken = train(run(base, tmp_path, out="unbroken", steps=6, save_every=2))
    asked = run(base, tmp_path, out="broken", steps=6, save_every=2)

    def stop(line: Any) -> None:
        if line["step"] == 3:
            raise Stopped("enough")

    with pytest.raises(Stopped):
        train(asked, progress=stop)
    assert not asked.out.exists()
    went_on = train(asked, resume=True)
    assert went_on["resumed"]
    assert went_on["final_loss"] == pytest.approx(unbroken["final_loss"], abs=1e-4)
    assert [line["step"] for line in went_on["curve"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_loss(base: Path, tmp_path: Path) -> None:
    unbroken = train(run(base, tmp_path, out="unbroken", steps=12, save_every=2))
    file = tmp_path / "run.json"
    given = {"base_model": str(base), "method": "sft", "data": "sft.jsonl", "out": "killed", "steps": 12, "batch": 4,
             "max_length": 64, "dropout": 0.0, "save_every": 2}  # fmt: skip
    file.write_text(json.dumps(given))
    command = [sys.executable, "-m", "training.lora", str(file), "--resume"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("step 5/"):
            os.kill(child.pid, signal.SIGKILL)
            break
    child.wait()
    assert not (tmp_path / "killed").exists()
    time.sleep(0.1)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["resumed"]
    manifest = adapters.read_manifest(tmp_path / "killed")
    assert manifest["final_loss"] == pytest.approx(unbroken["final_loss"], abs=1e-4)


def test_a_checkpoint_of_another_run_is_not_gone_on_from(base: Path, tmp_path: Path) -> None:
    def stop(line: Any) -> None:
        if line["step"] == 2:
            raise Stopped("enough")

    with pytest.raises(Stopped):
        train(run(base, tmp_path, save_every=1), progress=stop)
    with pytest.raises(BadInput, match="another configuration"):
        train(run(base, tmp_path, save_every=1, learning_rate=0.01), resume=True)


def test_two_trainers_never_work_on_one_target(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = run(base, tmp_path)
    monkeypatch.setattr(trainer, "LOCK_WAIT_S", 0.1)
    with trainer._alone(asked), pytest.raises(trainer.Taken):
        train(asked)
    assert not asked.out.exists()


def test_a_full_disk_has_a_name_and_leaves_no_adapter(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path)
    given = {"base_model": str(base), "method": "sft", "data": "sft.jsonl", "out": "a", "steps": 2, "batch": 4, "max_length": 64}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(given))
    small = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (4096, 4096))"
    code = f"{small}\nfrom training.lora.__main__ import main; raise SystemExit(main([{str(tmp_path / 'run.json')!r}]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr[-600:]
    assert done.stderr.splitlines()[-1].startswith("training.lora: disk_full at step")
    assert not (tmp_path / "a").exists()


def test_a_lack_of_memory_has_a_name_and_says_what_would_fit(base: Path, tmp_path: Path) -> None:
    asked = run(base, tmp_path, batch=8)
    with (
        pytest.raises(trainer.OutOfMemory, match=r"out_of_memory at step 3.*batch 4 with accumulation 2"),
        trainer._named_ends(asked, [{"step": 3}]),
    ):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_what_is_too_long_is_left_out_not_cut(base: Path, tmp_path: Path) -> None:
    asked = run(base, tmp_path)
    long = {"prompt": say("user", "x" * 400), "completion": say("assistant", "y")}
    asked.data.write_text("\n".join(map(json.dumps, [*rows("sft"), long])))
    assert train(asked)["data"]["too_long"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metod": "sft"}, "no such key"),
        ({"rank": 0}, "between 1 and 64"),
        ({"method": "ppo"}, "one of sft, dpo, kto"),
        ({"targets": ["lm_head"]}, "not served"),
        ({"loss_weights": [1.0, 2.0]}, "loss_weights has 2"),
        ({"steps": 0, "epochs": 0}, "nothing would be trained"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused_by_its_key(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    given = {"base_model": "b", "method": "sft", "data": "d", "out": "o"}
    with pytest.raises(BadInput, match=words):
        config.parse(given | change, tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ('{"prompt": "a", "chosen": "b"}', "rejected is missing"),
        ('{"prompt": "a", "chosen": "b", "rejected": "b"}', "teaches nothing"),
        ('{"prompt": [{"role": "user"}], "chosen": "b", "rejected": "c"}', "role and content"),
    ],
)
def test_a_row_that_is_none_is_named_by_its_line(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(line)
    with pytest.raises(BadInput, match=words):
        data.read(tmp_path, "dpo")


def test_lamps_name_what_is_wrong() -> None:
    def log(*losses: float, **more: Any) -> list[dict[str, Any]]:
        return [{"step": i + 1, "loss": loss, **more} for i, loss in enumerate(losses)]

    assert lit(log(1.0, math.nan), "sft", 10) == "nan_loss"
    assert lit(log(*[0.0] * 5), "sft", 10) == "zero_loss"
    assert lit(log(*[LN2] * 20), "dpo", 20) == "stuck_at_ln2"
    assert lit(log(*[0.9] * 12, margin=-0.4), "dpo", 20) == "margin_collapse"
    assert lit(log(1.0, *[4.0] * 6), "sft", 10) == "diverging"
    assert lit(log(2.0, 1.5, 1.0, 0.8), "sft", 10) == ""


def test_the_trainer_needs_no_django() -> None:
    code = (
        "import sys\n"
        "class No:\n"
        "  def find_spec(s, n, p=None, t=None):\n"
        "    if n.split('.')[0] in ('django', 'celery'): raise ImportError(n)\n"
        "sys.meta_path.insert(0, No())\n"
        "import training.lora.train, training.lora.__main__; print('pure')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "pure", done.stderr[-400:]

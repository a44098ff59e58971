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
from training.lora import config, data, memory
from training.lora import train as trainer
from training.lora.lamps import LN2, drift, expected_length, lit
from training.lora.train import Stopped, train

ROOT = Path(__file__).resolve().parents[2]
EIGHT = memory.Shape(layers=32, width=4096, inner=14336, vocabulary=128256, heads=32, kv_heads=8, tied=False)
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


def test_no_copy_of_the_reference_is_left_in_the_folder(base: Path, tmp_path: Path) -> None:
    train(run(base, tmp_path))
    asked = run(base, tmp_path, "dpo", parent="a-sft")
    train(asked)  # TRL keeps a frozen copy of the parent as an adapter of its own, called ref
    assert sorted(p.name for p in asked.out.iterdir()) == [adapters.CONFIG, adapters.WEIGHTS, adapters.MANIFEST]
    from safetensors import safe_open

    with safe_open(asked.out / adapters.WEIGHTS, "pt") as weights:
        names = set(weights.keys())
    assert names
    assert not any(".ref." in name or ".default." in name for name in names)  # as PEFT loads under any name


@pytest.mark.parametrize(
    "more",
    [
        {"loss_types": ["sigmoid_norm"]},
        {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]},
        {"loss_types": ["ipo"]},
        {"loss_types": ["hinge"]},
        {"label_smoothing": 0.25},
    ],
    ids=str,
)
def test_preferences_train_under_each_loss_that_is_offered(base: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    manifest = train(run(base, tmp_path, "dpo", steps=2, **more))
    assert all(math.isfinite(line["loss"]) for line in manifest["curve"])


def test_labels_thought_wrong_change_what_is_learnt(base: Path, tmp_path: Path) -> None:
    sure = train(run(base, tmp_path, "dpo", out="sure"))
    doubtful = train(run(base, tmp_path, "dpo", out="doubtful", label_smoothing=0.25))
    assert (sure["config"]["loss_types"], doubtful["config"]["loss_types"]) == (["sigmoid"], ["robust"])
    assert doubtful["curve"][0]["loss"] == pytest.approx(LN2, abs=1e-4)
    assert doubtful["digest"] != sure["digest"]


def test_a_pair_that_people_were_sure_of_is_shown_twice(base: Path, tmp_path: Path) -> None:
    asked = run(base, tmp_path, "dpo")
    asked.data.write_text("\n".join(json.dumps(row | {"strength": 1 + (i < 4)}) for i, row in enumerate(rows("dpo"))))
    told = train(asked)["data"]
    assert (told["rows"], told["rows_shown"]) == (16, 20)


@pytest.mark.parametrize("more", [{"rslora": True}, {"quantization": "nf4"}], ids=str)
def test_rslora_and_qlora_give_adapters_that_the_server_takes(tmp_path: Path, more: dict[str, Any]) -> None:
    from tests.agents.tiny import make_base

    base = make_base(
        tmp_path / "wide", hidden_size=64, intermediate_size=128
    )  # whole blocks of 64: some processors ask
    asked = run(base, tmp_path, steps=2, **more)
    manifest = train(asked)
    adapters.check(asked.out, adapters.BaseShape.of(base), base_digest=base_digest(base), require_manifest=True)
    assert manifest["config"] | more == manifest["config"]
    assert json.loads((asked.out / adapters.CONFIG).read_text())["use_rslora"] is more.get("rslora", False)


def test_the_manifest_shows_what_was_rendered_with_its_token_ids(base: Path, tmp_path: Path) -> None:
    import transformers

    manifest = train(run(base, tmp_path))
    assert manifest["template_digest"] == template_digest(base)
    words = transformers.AutoTokenizer.from_pretrained(base)
    assert len(manifest["rendered"]) == 3
    for text, ids in zip(manifest["rendered"], manifest["rendered_ids"], strict=True):
        assert words.decode(ids) == text


def test_real_preferences_begin_at_ln_2_as_the_reference_curve_does(
    base: Path, tmp_path: Path, shared_data: Path
) -> None:
    source = shared_data / "llm/preferences/dpo_en_demo_sharegpt.jsonl"
    short = [line for line in source.read_text().splitlines() if len(line) < 1200][:8]
    (tmp_path / "real.jsonl").write_text("\n".join(short))
    manifest = train(run(base, tmp_path, "dpo", data="real.jsonl", steps=1, max_length=2048))
    reference = json.loads((shared_data / "llm/training_reference/trl_invariant_dpo.json").read_text())
    first = reference["steps"][0]["loss"]
    assert manifest["data"]["rows"] >= 2
    assert manifest["curve"][0]["loss"] == pytest.approx(first, abs=1e-3)
    assert manifest["curve"][0]["loss"] == pytest.approx(LN2, abs=1e-4)


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


@pytest.mark.parametrize("length", [96, 512])
def test_packed_rows_do_not_see_each_other(base: Path, tmp_path: Path, length: int) -> None:
    alone = train(run(base, tmp_path, out="alone", batch=16, steps=3, max_length=length))
    packed = train(run(base, tmp_path, out="packed", batch=16, steps=3, max_length=length, packing=True))
    for one, other in zip(alone["curve"], packed["curve"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=2e-4)


def folder_of(tmp_path: Path, method: str, **parts: list[dict[str, Any]]) -> Path:
    (tmp_path / "set").mkdir()
    for name, lines in {"train": rows(method), **parts}.items():
        (tmp_path / "set" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "set"


def test_a_run_that_helps_held_out_people_no_more_ends_with_its_best_weights(base: Path, tmp_path: Path) -> None:
    contrary = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows("dpo")]
    folder_of(tmp_path, "dpo", people=contrary)  # what is learnt hurts them from the first step
    asked = run(base, tmp_path, "dpo", data="set", steps=30, eval_every=2, patience=2, learning_rate=1e-2, warmup=0)
    manifest = train(asked)
    assert manifest["stopped_by"] == "early_stop"
    assert manifest["steps"] == 6
    assert manifest["best"]["step"] == 2
    short = train(run(base, tmp_path, "dpo", data="set", out="short", steps=30, eval_every=2, patience=1, learning_rate=1e-2, warmup=0))  # fmt: skip
    assert short["steps"] == 4
    assert short["probes"] == manifest["probes"]  # both went back to step 2


def test_a_held_out_part_that_asks_what_is_trained_is_a_leak(base: Path, tmp_path: Path) -> None:
    folder_of(tmp_path, "sft", eval=rows("sft")[:3])
    with pytest.raises(BadInput, match="leak: 3 of 3"):
        train(run(base, tmp_path, data="set"))


def test_rows_that_were_rendered_with_a_template_are_refused(base: Path, tmp_path: Path) -> None:
    asked = run(base, tmp_path)
    bad = {"prompt": say("user", "<|start_header_id|>user"), "completion": say("assistant", "y")}
    asked.data.write_text("\n".join(map(json.dumps, [*rows("sft"), bad])))
    with pytest.raises(BadInput, match="row 17: prompt holds the template mark"):
        train(asked)


def test_a_parent_of_another_template_is_refused(base: Path, tmp_path: Path) -> None:
    train(run(base, tmp_path))
    manifest = json.loads((tmp_path / "a-sft" / adapters.MANIFEST).read_text())
    (tmp_path / "a-sft" / adapters.MANIFEST).write_text(json.dumps(manifest | {"template_digest": "0" * 64}))
    with pytest.raises(BadInput, match="chat template 000000000000"):
        train(run(base, tmp_path, "dpo", parent="a-sft"))


@pytest.mark.parametrize("lines", [[], rows("sft")[:1]])
def test_an_empty_and_a_tiny_set_are_refused(base: Path, tmp_path: Path, lines: list[Any]) -> None:
    asked = run(base, tmp_path)
    asked.data.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(BadInput, match=f"{len(lines)} of {len(lines)} rows have at most"):
        train(asked)


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
        ({"method": "kto", "batch": 1}, "takes its baseline from the batch"),
        ({"patience": 2}, "patience needs eval_every"),
        ({"loss_types": ["sigmoyd"]}, "no such loss"),
        ({"method": "dpo", "label_smoothing": 0.5}, "labels say nothing"),
        ({"method": "dpo", "loss_types": ["ipo"], "label_smoothing": 0.1}, "ipo does not heed it"),
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
    assert lit(log(0.6, length=2.1), "dpo", 20) == "length_drift"
    assert lit(log(0.6, length=0.4), "kto", 20) == "length_drift"
    assert lit(log(0.6, length=1.4), "dpo", 20) == ""


def test_the_length_that_a_model_expects_is_the_mean_of_its_chances_to_end() -> None:
    assert expected_length([0.0] * 10 + [1.0]) == pytest.approx(10)  # ends where the text ends
    assert expected_length([0.0] * 10 + [0.5]) == pytest.approx(11)  # and goes on once in two
    assert expected_length([0.0] * 10 + [0.0]) == pytest.approx(40)  # never ends: capped
    assert expected_length([0.5] * 10 + [0.5]) == pytest.approx(1.0, abs=0.01)
    assert drift(11, before=10, own=12) == 1.0
    assert drift(30, before=10, own=15) == 2.0
    assert drift(4, before=8, own=15) == 0.5


def test_a_preference_run_watches_the_length_it_teaches(base: Path, tmp_path: Path) -> None:
    manifest = train(run(base, tmp_path, "dpo", steps=8))
    assert [line["step"] for line in manifest["curve"] if "length" in line] == list(range(1, 9))


# peaks seen on an H100, GiB: the 8 B shape, sequence 2048, rank 16
@pytest.mark.parametrize(
    ("numbers", "batch", "fused", "nf4", "recompute", "seen"),
    [
        ("mixed", 4, False, False, True, 29),
        ("mixed", 8, False, False, True, 43),
        ("mixed", 1, False, False, False, 32),
        ("mixed", 2, False, False, False, 48),
        ("mixed", 4, True, False, True, 20),
        ("mixed", 8, True, False, True, 24),
        ("mixed", 2, True, False, False, 37),
        ("bf16", 3, True, False, False, 42),
        ("bf16", 4, True, False, False, 50),
        ("bf16", 16, True, True, True, 20),
    ],
)
def test_the_memory_plan_knows_what_was_measured(
    numbers: str, batch: int, fused: bool, nf4: bool, recompute: bool, seen: float
) -> None:
    told = memory.needed(
        EIGHT, batch=batch, length=2048, rank=16, numbers=numbers, fused=fused, nf4=nf4, checkpointing=recompute
    )
    assert told / memory.GIB == pytest.approx(seen, rel=0.15)


def test_the_batch_is_cut_to_fit_and_recomputes_only_where_one_row_would_not() -> None:
    def cut(gib: float, **more: Any) -> memory.Plan:
        wish: dict[str, Any] = {"batch": 16, "accumulation": 1, "length": 2048, "rank": 16, "fused": True}
        return memory.plan(EIGHT, **wish | more, device_bytes=gib * memory.GIB)

    assert EIGHT.parameters == pytest.approx(8.03e9, rel=1e-3)
    large = cut(80)
    assert (large.batch, large.accumulation, large.checkpointing) == (4, 4, False)
    small = cut(24)
    assert small.checkpointing
    assert small.batch * small.accumulation == 16
    assert cut(12, nf4=True).batch >= 1
    assert cut(80, checkpointing="on").checkpointing
    assert cut(80, sides=2).batch < large.batch or large.batch == 1
    with pytest.raises(BadInput, match=r"out_of_memory before the start: .* try quantization nf4"):
        cut(12)
    with pytest.raises(BadInput, match="out_of_memory"):
        cut(30, least_batch=16, checkpointing="off")


def test_a_training_runs_where_django_is_not_installed(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path)
    given = {"base_model": str(base), "method": "sft", "data": "sft.jsonl", "out": "a", "steps": 2, "batch": 4, "max_length": 64}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(given))
    code = (
        "import sys\n"
        "class No:\n"
        "  def find_spec(s, n, p=None, t=None):\n"
        "    if n.split('.')[0] in ('django', 'celery', 'rest_framework'): raise ImportError(n)\n"
        "sys.meta_path.insert(0, No())\n"
        "from training.lora.__main__ import main\n"
        f"raise SystemExit(main([{str(tmp_path / 'run.json')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-400:]
    assert json.loads(done.stdout)["digest"] == adapters.digest(tmp_path / "a")

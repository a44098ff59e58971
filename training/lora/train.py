"""One training: base model and rows in, an adapter folder out, whole or not at all.

Runs where torch, transformers, PEFT and TRL are; knows no Django. Checkpoints stand beside the
target and outlive a kill; the adapter appears under its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import importlib
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.inference import adapters as files
from agents.inference.base import base_digest, template_digest
from rmn.lib.errors import BadInput, NotConfigured, RmnError
from training.lora import data as rows_of
from training.lora import memory
from training.lora.config import RunConfig
from training.lora.lamps import drift, expected_length, lit

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of malloc.h
LOCK_WAIT_S = 10.0
FINGERPRINT = "run.sha256"
DISK_WORDS = ("no space left", "os error 28", "file write failed", "file too large", "disk quota")
MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
LENGTH_TEXTS, LENGTH_LOOKS = 6, 8  # texts whose expected length is watched, and looks in a run
RENDERED = 3  # texts whose rendering and token ids the manifest shows
PROBES = 6  # texts whose log-probabilities the manifest keeps, to prove the adapter where it serves
Progress = Callable[[Mapping[str, Any]], None]  # told {step, steps, loss, ...} after each step


class LampLit(RmnError):
    """The training was stopped because going on would have been waste; the message names the lamp."""


class Stopped(RmnError):
    """A person asked for the training to stop; its checkpoints are kept."""


class OutOfMemory(RmnError):
    """The run does not fit on this machine; the message begins with out_of_memory."""


class DiskFull(RmnError):
    """A checkpoint or the adapter could not be written; the message begins with disk_full."""


class Taken(RmnError):
    """Another trainer works on the same target."""

    retryable = True


def train(config: RunConfig, *, resume: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Train an adapter.

    Args:
        config: the run.
        resume: go on from the last whole checkpoint, where there is one.
        progress: told after every step; it may raise ``Stopped``.

    Returns:
        The manifest: digest, curve, data, what was left out, seconds.

    Raises:
        BadInput: rows, base model or parent are not what they should be, or the target exists.
        NotConfigured: what the run asks for is not on this machine (a GPU, a library).
        LampLit, Stopped, OutOfMemory, DiskFull, Taken: see there.
    """
    if not _first():  # the first process holds the lock for all
        return _train(config, resume, None)
    with _alone(config):
        return _train(config, resume, progress)


def _first() -> bool:
    """Whether this is the process that writes, where accelerate starts several."""
    return os.environ.get("RANK", "0") == "0"


def _train(config: RunConfig, resume: bool, progress: Progress | None) -> dict[str, Any]:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # the trainers tell the hub of each start
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Could not find a config file")
    torch, transformers, _ = _libraries()
    _use_the_machine(torch)
    done = _finished(config)
    if done is not None:
        if resume:
            return done
        raise BadInput(f"{config.out}: exists and is a whole adapter; choose another name, or --resume to keep it")
    if not (config.base_model / "config.json").is_file():
        raise BadInput(f"{config.base_model}: no base model there; run make install, or name another folder")
    started = time.monotonic()
    transformers.set_seed(config.seed)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
    words = transformers.AutoTokenizer.from_pretrained(config.base_model)
    if not words.chat_template:
        raise BadInput(f"{config.base_model}: its tokenizer has no chat template; an instruct model is needed")
    if words.pad_token is None:
        words.pad_token = words.eos_token

    def length(messages: Sequence[Mapping[str, Any]]) -> int:
        return len(words.apply_chat_template(list(messages), tokenize=True, return_dict=True)["input_ids"])

    if config.parent is not None:
        _same_template(config)
    whole = rows_of.read(config.data, config.method)
    rows_of.unmarked(whole, words.all_special_tokens)
    kept, too_long = rows_of.fitting(whole, config.method, length, config.max_length)
    held = []
    parts = [part for part in ("people", "eval") if config.data.is_dir() and (config.data / f"{part}.jsonl").exists()]
    if parts:  # people whose taste was not trained on, where the set has them; else prompts
        held = rows_of.read(config.data, config.method, parts[0])
        if parts[0] == "eval":
            rows_of.apart(whole, held)
        held = [
            row
            for row in held
            if length([*row["prompt"], *(row.get("chosen") or row["completion"])]) <= config.max_length
        ]
    shown = rows_of.weighted(kept)
    trainer, log = _trainer(config, words, shown, rows_of.weighted(held) if config.eval_every else [], progress)
    same = _fingerprint(config, whole)
    checkpoint = _last_checkpoint(config.work) if resume else None
    if checkpoint is None:
        if _first():
            shutil.rmtree(config.work, ignore_errors=True)
    else:
        _of_this_run(config.work, same)
        log.extend(_old_log(checkpoint))
    with _named_ends(config, log):
        config.work.mkdir(parents=True, exist_ok=True)
        if _first():
            (config.work / FINGERPRINT).write_text(same, encoding="utf-8")
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.accelerator.wait_for_everyone()
    if trainer.stopped_by not in ("", "early_stop"):
        if trainer.stopped_by == "stopped":
            raise Stopped("stopped on request; go on with --resume")
        raise LampLit(
            f"{trainer.stopped_by} at step {log[-1]['step']}: the loss is {log[-1]['loss']:.4g}; look at the rows, the learning rate and the seed"
        )
    texts = [
        words.apply_chat_template([*row["prompt"], *(row.get("chosen") or row["completion"])], tokenize=False)
        for row in (held or kept)[:PROBES]
    ]
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not _first():
        return {}
    best = _take_best(torch, config, model, log)
    facts = {
        **dict(config.facts),
        "method": config.method,
        "base_model": _logical_name(config.base_model),
        "base_digest": base_digest(config.base_model),
        "template_digest": template_digest(config.base_model),
        "parents": [files.digest(config.parent)] if config.parent else [],
        "data": {
            "digest": rows_of.digest(whole),
            "rows": len(kept),
            "rows_shown": len(shown),  # in a pass: pairs that people were sure of count twice
            "too_long": too_long,
            "held_out": len(held),
            **_data_manifest(config.data),
        },
        "config": config.row(),
        "rendered": texts[:RENDERED],
        "rendered_ids": [words(text, add_special_tokens=False)["input_ids"] for text in texts[:RENDERED]],
        "curve": log,
        "steps": len(log) and log[-1]["step"],
        "final_loss": log[-1]["loss"] if log else None,
        "mean_loss": result.training_loss,
        "stopped_by": trainer.stopped_by,
        "best": best,
        "memory_plan": trainer.plan.row(),
        "tokens_seen": int(getattr(trainer.state, "num_input_tokens_seen", 0) or 0),
        "seconds": round(time.monotonic() - started, 2),
        "resumed": checkpoint is not None,
        "probes": _probes(torch, model, words, texts),
    }
    with _named_ends(config, log):
        return _publish(config, model, facts)


@contextmanager
def _alone(config: RunConfig) -> Iterator[None]:
    """One trainer at a time on a target; the lock goes with the process that holds it."""
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with (config.out.parent / f".{config.out.name}.lock").open("w") as lock:
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Taken(f"{config.out}: another trainer is at work on it; wait for it or end it") from None
                time.sleep(0.2)
        yield


@contextmanager
def _named_ends(config: RunConfig, log: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """A full disk and a lack of memory, whichever library met them, under their own names."""
    try:
        yield
    except RmnError:
        raise
    except Exception as error:
        step = log[-1]["step"] if log else 0
        text = str(error).casefold()
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(words in text for words in DISK_WORDS):
            raise DiskFull(
                f"disk_full at step {step}: {config.work.parent}: {str(error)[:120]}; free some space, then go on with --resume"
            ) from None
        if isinstance(error, MemoryError) or any(words in text for words in MEMORY_WORDS):
            raise OutOfMemory(
                f"out_of_memory at step {step}: {config.batch} rows of up to {config.max_length} tokens do not fit;"
                f" set batch {max(config.batch // 2, 1)} with accumulation {config.accumulation * 2} (the result stays"
                " the same), or checkpointing on"
            ) from None
        raise


def _fingerprint(config: RunConfig, rows: Sequence[Mapping[str, Any]]) -> str:
    """What decides the result: a checkpoint of anything else must not be gone on from."""
    parent = files.digest(config.parent) if config.parent else ""
    row = {k: v for k, v in config.row().items() if k not in ("save_every", "eval_every")}
    decided = [row, rows_of.digest(rows), base_digest(config.base_model), parent]
    return hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()


def _of_this_run(work: Path, same: str) -> None:
    try:
        theirs = (work / FINGERPRINT).read_text(encoding="utf-8")
    except OSError:
        theirs = ""
    if theirs != same:
        raise BadInput(
            f"{work}: its checkpoints are of another configuration, parent or data; start anew without --resume"
        )


# -- setting up


def _use_the_machine(torch: Any) -> None:
    """All cores, and memory kept between steps instead of given back and faulted in again (CPU only)."""
    if torch.cuda.is_available():
        return
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _libraries() -> tuple[Any, Any, Any]:
    try:
        return tuple(importlib.import_module(name) for name in ("torch", "transformers", "trl"))  # type: ignore[return-value]
    except ImportError as error:
        raise NotConfigured(f"training needs {error.name}; install requirements/train.txt") from None


def _model(config: RunConfig) -> Any:
    torch, transformers, _ = _libraries()
    from peft import LoraConfig, PeftModel, get_peft_model

    numbers = _numbers(config, torch.cuda.is_available())
    dtype = torch.float32 if numbers == "fp32" else torch.bfloat16
    options: dict[str, Any] = {"dtype": dtype}
    if config.quantization == "nf4":
        try:
            import bitsandbytes  # noqa: F401
        except ImportError:
            raise NotConfigured("quantization nf4 needs bitsandbytes; install requirements/train.txt") from None
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    model = transformers.AutoModelForCausalLM.from_pretrained(config.base_model, **options)
    model.config.use_cache = False
    if config.parent is not None:
        if not (config.parent / files.CONFIG).is_file():
            raise BadInput(f"{config.parent}: no adapter there to start from")
        return PeftModel.from_pretrained(
            model, str(config.parent), is_trainable=True, autocast_adapter_dtype=numbers != "bf16"
        )
    torch.manual_seed(config.seed)  # the start of A does not depend on what ran before
    wanted = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # any positive number is one
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        use_rslora=config.rslora,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, wanted, autocast_adapter_dtype=numbers != "bf16")


def _numbers(config: RunConfig, cuda: bool) -> str:
    """bf16 (weights and adapters alike), mixed (adapters in fp32 under autocast) or fp32."""
    if config.precision == "auto":
        return "bf16" if cuda else "fp32"
    return config.precision


def _planned(config: RunConfig, fused: bool) -> memory.Plan:
    torch, _, _ = _libraries()
    cuda = torch.cuda.is_available()
    if cuda:
        device = float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    else:
        device = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return memory.plan(
        memory.Shape.of(config.base_model),
        batch=config.batch,
        accumulation=config.accumulation,
        length=config.max_length,
        rank=config.rank,
        device_bytes=device,
        numbers=_numbers(config, cuda),
        fused=fused,
        nf4=config.quantization == "nf4",
        sides=2 if config.method == "dpo" else 1,
        least_batch=2 if config.method == "kto" else 1,
        checkpointing=config.checkpointing,
    )


def _same_template(config: RunConfig) -> None:
    """A parent that was trained under another chat template would be taught a second language."""
    assert config.parent is not None  # noqa: S101
    theirs = files.read_manifest(config.parent).get("template_digest")
    ours = template_digest(config.base_model)
    if theirs and theirs != ours:
        raise BadInput(
            f"{config.parent}: trained under the chat template {theirs[:12]}, the base model has {ours[:12]}: take a"
            " parent made with this template, or train from the base"
        )


def _trainer(
    config: RunConfig, words: Any, rows: list[dict[str, Any]], held: list[dict[str, Any]], progress: Progress | None
) -> tuple[Any, list[dict[str, Any]]]:
    torch, transformers, trl = _libraries()
    datasets: Any = importlib.import_module("datasets")
    datasets.disable_progress_bars()
    cuda = torch.cuda.is_available()
    fused = _liger(config.liger, cuda)
    cut = _planned(config, fused)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    per_pass = math.ceil(len(rows) / (config.batch * config.accumulation * world))
    steps = config.steps or max(1, math.ceil(per_pass * config.epochs))
    log: list[dict[str, Any]] = []
    common: dict[str, Any] = {
        "output_dir": str(config.work),
        "max_steps": steps,
        "per_device_train_batch_size": cut.batch,
        "per_device_eval_batch_size": cut.batch,
        "gradient_accumulation_steps": cut.accumulation,
        "learning_rate": config.rate,
        "lr_scheduler_type": config.scheduler,
        "warmup_steps": config.warmup if config.warmup < 1 else min(int(config.warmup), steps),
        "max_length": config.max_length,
        "logging_steps": 1,
        "save_strategy": "steps" if config.save_every else "no",
        "save_steps": config.save_every or steps,
        "save_total_limit": 2,
        "eval_strategy": "steps" if held and config.eval_every else "no",
        "eval_steps": config.eval_every or None,
        "report_to": [],
        "use_cpu": not cuda,
        "bf16": _numbers(config, cuda) == "mixed",
        "fp16": False,
        "gradient_checkpointing": cut.checkpointing,
        "disable_tqdm": True,
        "dataloader_pin_memory": cuda,
        "seed": config.seed,
        "data_seed": config.seed,
        "use_liger_kernel": fused,
        "log_level": "error",
    }
    if config.method == "sft":
        arguments: Any = trl.SFTConfig(**common, packing=config.packing, completion_only_loss=True)
        kind: Any = trl.SFTTrainer
    elif config.method == "dpo":
        arguments = trl.DPOConfig(
            **common,
            beta=config.beta,
            loss_type=list(config.losses),
            loss_weights=list(config.loss_weights) or None,
            label_smoothing=config.label_smoothing,
        )
        kind = trl.DPOTrainer
    else:
        good = sum(row["label"] for row in rows)
        bad = len(rows) - good
        if not good or not bad:
            raise BadInput(f"kto needs wanted and unwanted texts; here are {good} and {bad}")
        # KTO's authors ask for desirable x weight : undesirable x weight between 1:1 and 4:3
        arguments = trl.KTOConfig(
            **common, beta=config.beta, desirable_weight=max(1.0, bad / good), undesirable_weight=max(1.0, good / bad)
        )
        kind = trl.KTOTrainer
    watch = _watch(transformers, config, steps, log, progress)
    if config.method != "sft":
        watch.texts = _ended(words, [*held, *rows][:LENGTH_TEXTS])
    trainer = kind(
        model=_model(config),
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        eval_dataset=datasets.Dataset.from_list(held) if held else None,
        processing_class=words,
        callbacks=[watch],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.stopped_by, trainer.plan = "", cut
    watch.trainer = trainer
    return trainer, log


def _watch(
    transformers: Any, config: RunConfig, steps: int, log: list[dict[str, Any]], progress: Progress | None
) -> Any:
    class Watch(transformers.TrainerCallback):  # type: ignore[misc]
        """Reads each step's log line, keeps it, tells who listens, and watches the lamps."""

        trainer: Any = None
        texts: Sequence[tuple[list[int], int, int]] = ()  # ids, where the answer begins, the token that ends it
        before: Sequence[float] = ()  # lengths that the model expected at the start
        waited = 0  # evaluations without a gain

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.before = [_expected(self.trainer.model, *text) for text in self.texts]

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            found = logs or {}
            if "eval_loss" in found and log:
                log[-1]["eval_loss"] = float(found["eval_loss"])
            if "loss" not in found:
                return
            line: dict[str, Any] = {"step": int(state.global_step), "loss": float(found["loss"])}
            for name, key in (("rewards/margins", "margin"), ("rewards/accuracies", "accuracy"), ("logps/chosen", "chosen"), ("learning_rate", "rate"), ("mean_token_accuracy", "token_accuracy")):  # fmt: skip
                if name in found:
                    line[key] = float(found[name])
            if self.texts and line["step"] % max(steps // LENGTH_LOOKS, 1) == 0:
                line["length"] = self.drifted()
            log.append(line)
            if _first():
                with (config.work / "progress.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**line, "steps": steps}) + "\n")
            lamp = lit(log, config.method, steps)
            if lamp:
                self.trainer.stopped_by = lamp
                control.should_training_stop = True
            if progress is not None:
                try:
                    progress({**line, "steps": steps})
                except Stopped:
                    self.trainer.stopped_by = "stopped"
                    control.should_training_stop = control.should_save = True

        def drifted(self) -> float:
            """Geometric mean of how far the expected lengths have left where they may be."""
            now = [_expected(self.trainer.model, *text) for text in self.texts]
            own = [len(ids) - start for ids, start, _ in self.texts]
            logs = [math.log(drift(a, b, c)) for a, b, c in zip(now, self.before, own, strict=True)]
            return round(math.exp(sum(logs) / len(logs)), 4)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:  # noqa: ARG002
            if not config.patience:
                return
            loss, step = float((metrics or {}).get("eval_loss", math.nan)), int(state.global_step)
            best = _best(config)
            if best is None or loss < best["loss"]:
                self.waited = 0
                if _first():
                    _keep_best(config, self.trainer.accelerator.unwrap_model(self.trainer.model), step, loss)
                return
            self.waited += 1
            if self.waited >= config.patience:
                self.trainer.stopped_by = "early_stop"
                control.should_training_stop = True

    return Watch()


def _ended(words: Any, rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], int, int]]:
    """Answers as token ids up to the token that ends them: all ids, where the answer begins, that token."""
    found = []
    for row in rows:
        prompt = words.apply_chat_template(list(row["prompt"]), tokenize=True, add_generation_prompt=True, return_dict=True)["input_ids"]  # fmt: skip
        whole = words.apply_chat_template([*row["prompt"], *(row.get("chosen") or row["completion"])], tokenize=True, return_dict=True)["input_ids"]  # fmt: skip
        if words.eos_token_id in whole[len(prompt) :]:
            end = len(prompt) + whole[len(prompt) :].index(words.eos_token_id)
            if end > len(prompt):
                found.append((whole[:end], len(prompt), int(words.eos_token_id)))
    return found


def _expected(model: Any, ids: list[int], start: int, end: int) -> float:
    """Tokens that the model means to write along a text."""
    torch, _, _ = _libraries()
    was = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, start - 1 :].float()
    model.train(was)
    return expected_length([float(p) for p in torch.softmax(logits, dim=-1)[:, end]])


def _best(config: RunConfig) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((config.work / "best.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _keep_best(config: RunConfig, model: Any, step: int, loss: float) -> None:
    """The weights of the best evaluation so far; the note is written last, and names whole weights."""
    import safetensors.torch
    from peft import get_peft_model_state_dict

    held = {k: v.contiguous() for k, v in get_peft_model_state_dict(model, adapter_name="default").items()}
    part = config.work / "best.part"
    safetensors.torch.save_file(held, part)
    part.replace(config.work / "best.safetensors")
    (config.work / "best.part").write_text(json.dumps({"step": step, "loss": loss}), encoding="utf-8")
    (config.work / "best.part").replace(config.work / "best.json")


def _take_best(torch: Any, config: RunConfig, model: Any, log: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Go back to the weights of the best evaluation, where somebody was to be patient."""
    best = _best(config) if config.patience else None
    if best is None:
        return None
    if log and best["step"] < log[-1]["step"]:
        import safetensors.torch
        from peft import set_peft_model_state_dict

        with torch.no_grad():
            held = safetensors.torch.load_file(config.work / "best.safetensors")
            set_peft_model_state_dict(model, held, adapter_name="default")
    return best


def _liger(asked: str, cuda: bool) -> bool:
    if asked == "off" or (asked == "auto" and not cuda):
        return False
    try:
        import liger_kernel  # noqa: F401
    except ImportError:
        if asked == "on":
            raise NotConfigured("liger is on, and liger-kernel is not installed; use auto or off") from None
        return False
    return True


# -- checkpoints and the end


def _last_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that is whole: its state file is written last."""
    found = []
    for folder in work.glob("checkpoint-*"):
        state = folder / "trainer_state.json"
        try:
            json.loads(state.read_text(encoding="utf-8"))
            found.append((int(folder.name.rpartition("-")[2]), folder))
        except (OSError, ValueError):
            if _first():
                shutil.rmtree(folder, ignore_errors=True)
    found.sort()
    best = _best_note(work)
    if found and best is not None and best > found[-1][0]:  # kept after the checkpoint: those steps come again
        (work / "best.json").unlink(missing_ok=True)
    return max(found)[1] if found else None


def _best_note(work: Path) -> int | None:
    try:
        return int(json.loads((work / "best.json").read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError):
        return None


def _old_log(checkpoint: Path) -> list[dict[str, Any]]:
    """The steps before a checkpoint, as they were told then."""
    last = int(checkpoint.name.rpartition("-")[2])
    lines: dict[int, dict[str, Any]] = {}
    try:
        for text in (checkpoint.parent / "progress.jsonl").read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            lines[line["step"]] = {key: value for key, value in line.items() if key != "steps"}
    except (OSError, ValueError):
        return []
    return [lines[step] for step in sorted(lines) if step <= last]


def _finished(config: RunConfig) -> dict[str, Any] | None:
    if not config.out.exists():
        return None
    manifest = files.read_manifest(config.out)
    if not manifest:
        raise BadInput(f"{config.out}: exists and is no adapter; choose another name")
    return manifest


def _publish(config: RunConfig, model: Any, facts: dict[str, Any]) -> dict[str, Any]:
    part = config.out.parent / f".{config.out.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save_pretrained(str(part), selected_adapters=["default"], safe_serialization=True)
    for extra in part.iterdir():
        if extra.name not in (files.CONFIG, files.WEIGHTS):
            shutil.rmtree(extra) if extra.is_dir() else extra.unlink()
    written = json.loads((part / files.CONFIG).read_text(encoding="utf-8"))
    written["base_model_name_or_path"] = facts["base_model"]
    written["target_modules"] = sorted(written["target_modules"])
    (part / files.CONFIG).write_text(json.dumps(written, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    files.write_manifest(part, **_plain(facts))
    part.rename(config.out)
    shutil.rmtree(config.work, ignore_errors=True)
    return files.read_manifest(config.out)


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _logical_name(folder: Path) -> str:
    """The model's own name, not a path of this host."""
    for file, key in (("manifest.json", "model"), ("manifest.json", "model_id"), ("config.json", "_name_or_path")):
        try:
            name = json.loads((folder / file).read_text(encoding="utf-8")).get(key)
        except (OSError, ValueError):
            continue
        if isinstance(name, str) and name and not name.startswith((".", "/")):
            return name
    return folder.resolve().name


def _data_manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, NotADirectoryError):
        return {}
    return {"set": found.get("digest"), "sources": found.get("sources"), "kind": found.get("kind")}


def _probes(torch: Any, model: Any, words: Any, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Log-probability (natural) of each token after the first, with the adapter and without."""
    found = []
    model.eval()
    for text in texts:
        ids = words(text, return_tensors="pt", add_special_tokens=False)["input_ids"].to(model.device)
        with torch.no_grad():
            served = _logs(torch, model(input_ids=ids).logits, ids)
            with model.disable_adapter():
                base = _logs(torch, model(input_ids=ids).logits, ids)
        found.append({"text": text, "logprobs": served, "base_logprobs": base})
    return found


def _logs(torch: Any, logits: Any, ids: Any) -> list[float]:
    logs = torch.log_softmax(logits[0, :-1].float(), dim=-1)
    taken = logs.gather(-1, ids[0, 1:, None])[:, 0]
    return [round(float(value), 6) for value in taken]

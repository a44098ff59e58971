"""Adapter folders: what one is, its name by content, and the checks that a folder passes before it is served.

A folder holds PEFT's ``adapter_config.json`` and ``adapter_model.safetensors`` and our
``manifest.json``. Its name is its digest. Nothing here imports torch: the header of a safetensors
file is JSON, and names, shapes and sizes are checked before any weight is read.

Manifest keys: ``digest``, ``base_digest`` and ``template_digest`` (of the base model it was trained
on, see ``agents.inference.base``), ``base_model``, ``parents`` (digests), ``data`` (digest and counts
of its data set), ``brand``, ``retailer``, ``task``, ``probes``. A probe is ``{"text": rendered text,
"logprobs": [...], "base_logprobs": [...]}``: log-probabilities (natural) of each token of the text
after its first, with and without the adapter, as the trainer saw them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.inference.base import sha256_of
from agents.inference.errors import BadAdapter

CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "manifest.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_RANK = 64
MAX_BYTES = 512 * 2**20
MAX_CONFIG_BYTES = 64 * 2**10
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_HEADER_BYTES = 4 * 2**20
DTYPES = {"F32": 4, "F16": 2, "BF16": 2}

# what in a PEFT config changes the numbers that come out; the rest is about training or the host
EFFECTIVE = ("peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "bias", "fan_in_fan_out")
# known and without effect on an answer, whatever they hold
HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "lora_dropout",
    "peft_version",
    "megatron_core",
    "runtime_config",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "qalora_group_size",
    "ensure_weight_tying",
}
_TENSOR = re.compile(
    r"base_model\.model\.model\.layers\.(\d{1,4})\.(self_attn|mlp)\.([a-z]+_proj)\.lora_([AB])(?:\.default)?\.weight"
)


@dataclass(frozen=True)
class BaseShape:
    """What a base model offers adapters: layers, and (inputs, outputs) of each module."""

    layers: int
    modules: Mapping[str, tuple[int, int]]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BaseShape:
        """From a model's ``config.json`` (Llama's family of names)."""
        hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])
        heads = int(config["num_attention_heads"])
        head = int(config.get("head_dim") or hidden // heads)
        keys = int(config.get("num_key_value_heads") or heads) * head
        modules = {
            "q_proj": (hidden, heads * head),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (heads * head, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }
        return cls(int(config["num_hidden_layers"]), modules)

    @classmethod
    def of(cls, folder: Path) -> BaseShape:
        """Of a model folder."""
        return cls.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class AdapterInfo:
    """A folder that passed the checks."""

    folder: Path
    digest: str
    rank: int
    scaling: float  # alpha / r, or alpha / sqrt(r) for rank-stabilized LoRA
    targets: tuple[str, ...]
    size: int  # bytes of weights
    verified: bool  # a manifest or the folder's own name confirms the digest
    tensors: Mapping[tuple[int, str, str], str]  # (layer, module, A or B) to the tensor's name
    manifest: Mapping[str, Any] = field(default_factory=dict)


def digest(folder: Path) -> str:
    """The adapter's name by content.

    SHA-256 over the SHA-256 of the weights file and the canonical JSON of those config keys that
    change what comes out (rank, alpha, targets in order, scaling kind): a path of the training
    host in the config does not make another adapter.

    Raises:
        BadAdapter: weights or config are missing or cannot be read.
    """
    folder = Path(folder)
    config = read_config(folder)
    try:
        weights = sha256_of(folder / WEIGHTS)
    except OSError as error:
        raise BadAdapter(f"{folder.name}: {WEIGHTS}: {error.strerror}") from None
    effective = {key: config.get(key) for key in EFFECTIVE}
    if isinstance(effective["target_modules"], list):
        effective["target_modules"] = sorted(effective["target_modules"])
    # PEFT leaves these out or writes the default, by version
    effective["use_rslora"] = bool(effective["use_rslora"])
    effective["fan_in_fan_out"] = bool(effective["fan_in_fan_out"])
    effective["bias"] = effective["bias"] or "none"
    alpha = effective["lora_alpha"]
    effective["lora_alpha"] = float(alpha) if alpha is not None and _is_number(alpha) else None
    canonical = json.dumps(effective, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{weights}\n{canonical}".encode()).hexdigest()


def write_manifest(folder: Path, **facts: Any) -> str:
    """Write ``manifest.json`` with the digest and the given facts; returns the digest.

    Call it last: the manifest says that the folder is whole. It appears whole or not at all.
    """
    folder = Path(folder)
    name = digest(folder)
    manifest = {**facts, "digest": name}
    temporary = folder / f".{MANIFEST}.{os.getpid()}"
    temporary.write_text(json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(folder / MANIFEST)
    return name


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, or an empty one where the folder has none.

    Raises:
        BadAdapter: it is there and is not a JSON object, or is too large.
    """
    path = Path(folder) / MANIFEST
    return _read_object(path, MAX_MANIFEST_BYTES) if path.exists() else {}


def read_config(folder: Path) -> dict[str, Any]:
    """The PEFT config of an adapter folder.

    Raises:
        BadAdapter: missing, too large, or not a JSON object.
    """
    return _read_object(Path(folder) / CONFIG, MAX_CONFIG_BYTES)


def check(
    folder: Path,
    shape: BaseShape,
    *,
    base_digest: str = "",
    template_digest: str = "",
    max_rank: int = MAX_RANK,
    max_bytes: int = MAX_BYTES,
    require_manifest: bool = False,
    expect: Mapping[str, str] | None = None,
) -> AdapterInfo:
    """All that can be known about an adapter folder without reading its weights into a model.

    Args:
        folder: the folder; itself and its files may be no links.
        shape: of the base model that is to carry it.
        base_digest, template_digest: of that base model; compared where the manifest has them.
        max_rank, max_bytes: what this server takes.
        require_manifest: refuse a folder whose digest nothing confirms.
        expect: manifest keys that must have these values (``digest``, ``brand``, ``task``).

    Raises:
        BadAdapter: the first thing found wrong, named.
    """
    folder = Path(folder)
    name = folder.name
    if not NAME.fullmatch(name):
        raise BadAdapter(f"{name[:80]!r}: not an adapter name (letters, digits, dot, dash, underscore)")
    _check_files(folder, max_bytes)
    config = read_config(folder)
    rank, scaling, targets = _check_config(name, config, max_rank)
    size, tensors = _check_weights(folder, shape, rank, targets)
    manifest = read_manifest(folder)
    if require_manifest and not manifest:
        raise BadAdapter(f"{name}: no {MANIFEST}, so nothing confirms its weights")
    found = digest(folder)
    verified = _check_manifest(name, found, manifest, base_digest, template_digest)
    for key, wanted in (expect or {}).items():
        has = found if key == "digest" else manifest.get(key)
        if has != wanted:
            raise BadAdapter(f"{name}: {key} is {str(has)[:80]!r}, expected {wanted[:80]!r}")
    return AdapterInfo(folder, found, rank, scaling, targets, size, verified, tensors, manifest)


def _check_files(folder: Path, max_bytes: int) -> None:
    name = folder.name
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise BadAdapter(f"{name}: not a folder (links are not followed)")
        entries = list(os.scandir(folder))
    except OSError as error:
        raise BadAdapter(f"{name}: {error.strerror}") from None
    for entry in entries:
        if entry.is_symlink():
            raise BadAdapter(f"{name}: {entry.name} is a link; links are not followed")
        if entry.name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".py", ".so")):
            raise BadAdapter(f"{name}: {entry.name}: only safetensors are read; a pickled file can run code")
    for wanted in (CONFIG, WEIGHTS):
        path = folder / wanted
        try:
            facts = path.lstat()
        except OSError:
            raise BadAdapter(f"{name}: no {wanted}") from None
        if not stat.S_ISREG(facts.st_mode):
            raise BadAdapter(f"{name}: {wanted} is not a plain file")
        if facts.st_size > max_bytes:
            raise BadAdapter(f"{name}: {wanted} has {facts.st_size} bytes, at most {max_bytes} are taken")


def _check_config(name: str, config: Mapping[str, Any], max_rank: int) -> tuple[int, float, tuple[str, ...]]:
    def refuse(key: str, why: str) -> BadAdapter:
        return BadAdapter(f"{name}: {CONFIG}: {key}: {why}")

    if config.get("peft_type") != "LORA":
        raise refuse("peft_type", f"{str(config.get('peft_type'))[:40]!r}, only LORA is served")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= max_rank:
        raise refuse("r", f"{str(rank)[:40]}, a whole number from 1 to {max_rank} is served")
    if not _is_number(alpha) or not math.isfinite(float(alpha)) or float(alpha) <= 0:  # type: ignore[arg-type]
        raise refuse("lora_alpha", f"{str(alpha)[:40]}, a positive number was expected")
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not targets:
        raise refuse("target_modules", "a list of module names was expected")
    for target in targets:
        if target not in TARGETS:
            raise refuse("target_modules", f"{str(target)[:40]!r} is not served ({', '.join(TARGETS)})")
    if len(set(targets)) != len(targets):
        raise refuse("target_modules", "a name stands twice")
    if config.get("bias", "none") != "none":
        raise refuse("bias", "trained biases are not served")
    if not isinstance(config.get("use_rslora", False), bool):
        raise refuse("use_rslora", "true or false was expected")
    if config.get("init_lora_weights", True) not in (True, False, "gaussian", "orthogonal", "eva"):
        # PiSSA, OLoRA and their like change the base weights at the start of training
        raise refuse("init_lora_weights", f"{str(config['init_lora_weights'])[:40]!r} needs another base model")
    for key, value in config.items():
        if key in EFFECTIVE or key in HARMLESS or key == "init_lora_weights":
            continue
        if value not in (None, False, [], {}, 0, ""):
            raise refuse(key, f"{str(value)[:60]} is not served (plain LoRA only)")
    if config.get("fan_in_fan_out"):
        raise refuse("fan_in_fan_out", "not served")
    scaling = float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)  # type: ignore[arg-type]
    return rank, scaling, tuple(target for target in TARGETS if target in targets)


def _check_weights(
    folder: Path, shape: BaseShape, rank: int, targets: tuple[str, ...]
) -> tuple[int, dict[tuple[int, str, str], str]]:
    name = folder.name
    header, size, data_start = _read_header(folder / WEIGHTS, name)
    tensors: dict[tuple[int, str, str], str] = {}
    spans: list[tuple[int, int]] = []
    for key, facts in header.items():
        if key == "__metadata__":
            continue
        match = _TENSOR.fullmatch(key)
        if not match:
            raise BadAdapter(f"{name}: {WEIGHTS}: tensor {key[:100]!r} belongs to no LoRA module that is served")
        layer, module, side = int(match[1]), match[3], match[4]
        if (match[2] == "self_attn") != (module in TARGETS[:4]) or module not in targets:
            raise BadAdapter(f"{name}: {WEIGHTS}: tensor {key[:100]!r} is not of a target module")
        if layer >= shape.layers:
            raise BadAdapter(f"{name}: {WEIGHTS}: layer {layer}, the base model has {shape.layers}")
        inputs, outputs = shape.modules[module]
        wanted = [rank, inputs] if side == "A" else [outputs, rank]
        spans.append(_check_tensor(name, key, facts, wanted))
        if (layer, module, side) in tensors:
            raise BadAdapter(f"{name}: {WEIGHTS}: {key[:100]!r} stands twice")
        tensors[layer, module, side] = key
    for layer in range(shape.layers):
        for module in targets:
            for side in "AB":
                if (layer, module, side) not in tensors:
                    raise BadAdapter(f"{name}: {WEIGHTS}: no lora_{side} of {module} in layer {layer}")
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise BadAdapter(f"{name}: {WEIGHTS}: tensors overlap or leave a gap at byte {position}")
        position = end
    if data_start + position != size:
        raise BadAdapter(f"{name}: {WEIGHTS} has {size} bytes, its header says {data_start + position}")
    return position, tensors


def _check_tensor(name: str, key: str, facts: Any, wanted: list[int]) -> tuple[int, int]:
    try:
        dtype, found, (start, end) = facts["dtype"], facts["shape"], facts["data_offsets"]
        width = DTYPES.get(dtype)
        whole = all(type(number) is int for number in (*found, start, end))
    except (TypeError, KeyError, ValueError):
        raise BadAdapter(f"{name}: {WEIGHTS}: the header's entry for {key[:100]!r} is broken") from None
    if width is None:
        raise BadAdapter(f"{name}: {WEIGHTS}: {key[:100]!r} is {str(dtype)[:20]}, only {', '.join(DTYPES)} are read")
    if not whole or found != wanted:
        raise BadAdapter(f"{name}: {WEIGHTS}: {key[:100]!r} has shape {str(found)[:40]}, expected {wanted}")
    if end - start != width * wanted[0] * wanted[1] or start < 0:
        raise BadAdapter(f"{name}: {WEIGHTS}: {key[:100]!r} has {end - start} bytes, its shape needs others")
    return start, end


def _read_header(path: Path, name: str) -> tuple[dict[str, Any], int, int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise BadAdapter(f"{name}: {WEIGHTS} is truncated: {size} bytes")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise BadAdapter(f"{name}: {WEIGHTS} is not a whole safetensors file (header of {length} bytes)")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise BadAdapter(f"{name}: {WEIGHTS} is not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise BadAdapter(f"{name}: {WEIGHTS} is not a safetensors file: its header is no object")
    return header, size, 8 + length


def _check_manifest(name: str, found: str, manifest: Mapping[str, Any], base_digest: str, template_digest: str) -> bool:
    looks_like_digest = bool(re.fullmatch(r"[0-9a-f]{64}", name))
    if looks_like_digest and name != found:
        raise BadAdapter(f"{name[:12]}: its content has the digest {found[:12]}: swapped or damaged")
    if manifest and manifest.get("digest") != found:
        said = str(manifest.get("digest"))[:12]
        raise BadAdapter(f"{name}: the manifest says digest {said}, its content has {found[:12]}: swapped or damaged")
    for key, ours in (("base_digest", base_digest), ("template_digest", template_digest)):
        theirs = manifest.get(key)
        if theirs and ours and theirs != ours:
            what = "base model" if key == "base_digest" else "chat template"
            raise BadAdapter(
                f"{name}: made for another {what} ({str(theirs)[:12]}) than the one served here ({ours[:12]})"
            )
    return looks_like_digest or bool(manifest)


def _read_object(path: Path, limit: int) -> dict[str, Any]:
    name = f"{path.parent.name}: {path.name}"
    try:
        if path.is_symlink():
            raise BadAdapter(f"{name} is a link; links are not followed")
        if path.stat().st_size > limit:
            raise BadAdapter(f"{name} has {path.stat().st_size} bytes, at most {limit} are read")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadAdapter(f"{name} is missing") from None
    except OSError as error:
        raise BadAdapter(f"{name}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadAdapter(f"{name} is not JSON: {str(error)[:80]}") from None
    if not isinstance(value, dict):
        raise BadAdapter(f"{name}: an object was expected")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

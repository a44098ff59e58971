"""Rows that train: read, checked, and told apart by method.

SFT: ``prompt`` and ``completion``. DPO: ``prompt``, ``chosen``, ``rejected``, and where people were sure of it
``strength`` (2: the pair is shown twice a pass). KTO: ``prompt``, ``completion``, ``label``. All as message lists
(TRL's conversational form); ShareGPT's and OpenAI's shapes are read too (``training/domain/formats.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmn.lib.errors import BadInput
from training.domain import formats
from training.domain.marks import MARKS

Row = Mapping[str, Any]
NEEDED = {"sft": ("prompt", "completion"), "dpo": ("prompt", "chosen", "rejected"), "kto": ("prompt", "completion")}
FEWEST = 2
STRONGEST = 4


def read(path: Path, method: str, part: str = "train") -> list[dict[str, Any]]:
    """The rows of a data set's part, or of one file.

    Raises:
        BadInput: no such file, a line that is no row of this method; with the line.
    """
    path = Path(path)
    file = path / f"{part}.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise BadInput(f"{file}: no such file; build a data set with build_dataset")
    rows = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                rows.append(_row(line, method, f"{file.name} line {number}"))
    return rows


def unmarked(rows: Sequence[Row], marks: Iterable[str] = ()) -> None:
    """Refuse rows whose texts carry a chat template's marks: they were rendered once already.

    Raises:
        BadInput: with the first such row and the mark.
    """
    wanted = [mark for mark in dict.fromkeys([*MARKS, *marks]) if mark.strip()]
    for number, row in enumerate(rows, 1):
        for name in ("prompt", "chosen", "rejected", "completion"):
            for message in row.get(name) or ():
                mark = next((mark for mark in wanted if mark in message["content"]), None)
                if mark is not None:
                    raise BadInput(
                        f"row {number}: {name} holds the template mark {mark!r}: it was rendered with a template"
                        " already, and ours would be laid over it; give the bare text"
                    )


def apart(rows: Sequence[Row], held: Sequence[Row]) -> None:
    """Refuse a held-out part that shares prompts with what is trained on.

    Raises:
        BadInput: with how many.
    """
    known = {_plain(row["prompt"]) for row in rows}
    shared = sum(_plain(row["prompt"]) in known for row in held)
    if shared:
        raise BadInput(
            f"leak: {shared} of {len(held)} held-out rows ask what the training rows ask; split by prompt, or build"
            " the set with build_dataset"
        )


def _plain(prompt: Sequence[Row]) -> str:
    return " ".join(" ".join(message["content"].casefold().split()) for message in prompt)


def digest(rows: Sequence[Row]) -> str:
    """SHA-256 of the rows in canonical JSON, in their order."""
    text = "\n".join(json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":")) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()


def _row(line: str, method: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadInput(f"{where}: an object was expected")
    row = formats.plain(row)
    kept = {name: row.get(name) for name in NEEDED[method]}
    for name, value in kept.items():
        if value is None:
            raise BadInput(f"{where}: {name} is missing; {method} rows have {', '.join(NEEDED[method])}")
        if isinstance(value, str):
            kept[name] = [{"role": "user" if name == "prompt" else "assistant", "content": value}]
        _messages(kept[name], f"{where}: {name}")
        if name != "prompt" and kept[name][-1]["role"] != "assistant":  # type: ignore[index]
            raise BadInput(f"{where}: {name}: the last message must be the assistant's")
    if method == "dpo":
        if kept["chosen"] == kept["rejected"]:
            raise BadInput(f"{where}: chosen equals rejected: that teaches nothing; drop the row")
        strength = row.get("strength", 1)
        if isinstance(strength, bool) or not isinstance(strength, int) or not 1 <= strength <= STRONGEST:
            raise BadInput(f"{where}: strength is {strength!r}: a whole number from 1 to {STRONGEST} was expected")
        if strength > 1:
            kept["strength"] = strength
    if method == "kto":
        if not isinstance(row.get("label"), bool):
            raise BadInput(f"{where}: label: true or false was expected")
        kept["label"] = row["label"]
    return kept


def _messages(value: Any, where: str) -> None:
    fine = (
        isinstance(value, list)
        and value
        and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
        )
    )
    if not fine:
        raise BadInput(f"{where}: a list of messages with role and content was expected")


def weighted(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as a trainer takes them: a pair of strength 2 stands there twice."""
    return [
        {name: value for name, value in row.items() if name != "strength"}
        for row in rows
        for _ in range(row.get("strength", 1))
    ]


def fitting(
    rows: Sequence[dict[str, Any]], method: str, length: Callable[[Sequence[Row]], int], most: int
) -> tuple[list[dict[str, Any]], int]:
    """Rows whose longest rendering has at most ``most`` tokens, and how many were left out.

    Cutting a row would train on a text that nobody wrote, so what is too long is left out.

    Raises:
        BadInput: fewer than two rows are left.
    """
    ends = ("chosen", "rejected") if method == "dpo" else ("completion",)
    kept = [row for row in rows if all(length([*row["prompt"], *row[end]]) <= most for end in ends)]
    if len(kept) < FEWEST:
        raise BadInput(
            f"{len(kept)} of {len(rows)} rows have at most {most} tokens; at least {FEWEST} are needed: add rows or raise max_length"
        )
    return kept, len(rows) - len(kept)

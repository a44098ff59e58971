"""Answers as rows that trainers and spreadsheets read: TRL, ShareGPT, OpenAI's preference format, tables.

A preference has a prompt, a chosen and a rejected text. Ties are never written as pairs: both-good and
both-bad become two labelled rows each where a format has labels.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from rmn.lib.errors import BadInput

Format = Literal["trl", "trl-unpaired", "sharegpt", "openai-preference", "csv", "parquet"]
FORMATS: tuple[str, ...] = ("trl", "trl-unpaired", "sharegpt", "openai-preference", "csv", "parquet")
LEAST_EDIT = 0.02  # share of characters; under it a correction is a slip of the pen and teaches nothing
HEAVY_EDIT = 0.3  # share of characters; above it the original counts as bad
LONG = 4000  # characters of both texts together
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Answer:
    """One answer as it is exported; texts are already masked."""

    kind: str  # thumb, rating, pair, correction
    prompt: str
    text_a: str = ""  # the text judged; of a pair, A
    text_b: str = ""  # of a pair, B
    outcome: str = ""  # a, b, tie, both_bad
    strength: int = 1
    value: int | None = None  # thumb 1 or -1, stars 1 to 5
    correction: str = ""
    meta: dict[str, Any] = field(default_factory=dict)  # id, task, brand, adapter digests, prompt version ...


@dataclass(frozen=True)
class Preference:
    """One text better than another, for one prompt."""

    prompt: str
    chosen: str
    rejected: str
    strength: int
    meta: dict[str, Any]


@dataclass(frozen=True)
class Label:
    """One text that is good or bad, for one prompt."""

    prompt: str
    completion: str
    label: bool
    meta: dict[str, Any]


def edit_share(original: str, corrected: str) -> float:
    """Share of the text that a correction changed: 0 nothing, 1 all. Case and marks at the ends count.

    By characters; of long texts by words, since the time grows with the square.
    """
    if original == corrected:
        return 0.0
    one: Any = original
    other: Any = corrected
    if len(original) + len(corrected) > LONG:
        one, other = original.split(), corrected.split()
    return 1 - difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


WORDS = re.compile(r"\w+", re.UNICODE)


def real_edit(original: str, corrected: str) -> bool:
    """Whether a correction changed words, not only spaces and punctuation."""
    if WORDS.findall(original) == WORDS.findall(corrected):
        return False
    return edit_share(original, corrected) >= LEAST_EDIT


def preferences(answers: Iterable[Answer]) -> Iterator[Preference]:
    """Pairs that decided, and corrections that changed words; ties and identical texts are none."""
    for answer in answers:
        if answer.kind == "pair" and answer.outcome in ("a", "b") and answer.text_a != answer.text_b:
            better, worse = (answer.text_a, answer.text_b) if answer.outcome == "a" else (answer.text_b, answer.text_a)
            yield Preference(answer.prompt, better, worse, answer.strength, answer.meta)
        elif answer.kind == "correction" and real_edit(answer.text_a, answer.correction):
            yield Preference(answer.prompt, answer.correction, answer.text_a, 1, answer.meta)


def labels(answers: Iterable[Answer]) -> Iterator[Label]:
    """Thumbs; stars but 3; both bad as two bad ones; a heavily corrected original as bad."""
    for answer in answers:
        if answer.kind == "thumb" and answer.value in (1, -1):
            yield Label(answer.prompt, answer.text_a, answer.value == 1, answer.meta)
        elif answer.kind == "rating" and answer.value in (1, 2, 4, 5):
            yield Label(answer.prompt, answer.text_a, answer.value >= 4, answer.meta)
        elif answer.kind == "pair" and answer.outcome == "both_bad":
            yield Label(answer.prompt, answer.text_a, False, answer.meta)
            yield Label(answer.prompt, answer.text_b, False, answer.meta)
        elif answer.kind == "pair" and answer.outcome in ("a", "b"):
            yield Label(answer.prompt, answer.text_a, answer.outcome == "a", answer.meta)
            yield Label(answer.prompt, answer.text_b, answer.outcome == "b", answer.meta)
        elif answer.kind == "correction" and answer.correction:
            yield Label(answer.prompt, answer.correction, True, answer.meta)
            if edit_share(answer.text_a, answer.correction) >= HEAVY_EDIT:
                yield Label(answer.prompt, answer.text_a, False, answer.meta)


def prompt_messages(text: str) -> list[dict[str, str]]:
    """A kept prompt as chat messages: JSON of them as it is, any other text as one message of the user."""
    if text.startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if (
            isinstance(found, list)
            and found
            and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in found)
        ):
            return [{"role": str(m["role"]), "content": str(m["content"])} for m in found]
    return [{"role": "user", "content": text}]


def trl(preference: Preference) -> dict[str, Any]:
    """TRL's conversational preference with an explicit prompt."""
    return {
        "prompt": prompt_messages(preference.prompt),
        "chosen": [{"role": "assistant", "content": preference.chosen}],
        "rejected": [{"role": "assistant", "content": preference.rejected}],
    }


def trl_unpaired(label: Label) -> dict[str, Any]:
    """TRL's unpaired preference (KTO)."""
    return {
        "prompt": prompt_messages(label.prompt),
        "completion": [{"role": "assistant", "content": label.completion}],
        "label": label.label,
    }


SPEAKERS = {"user": "human", "assistant": "gpt"}


def sharegpt(preference: Preference) -> dict[str, Any]:
    """The preference that LLaMA-Factory reads."""
    return {
        "conversations": [
            {"from": SPEAKERS.get(message["role"], message["role"]), "value": message["content"]}
            for message in prompt_messages(preference.prompt)
        ],
        "chosen": {"from": "gpt", "value": preference.chosen},
        "rejected": {"from": "gpt", "value": preference.rejected},
    }


def openai_preference(preference: Preference) -> dict[str, Any]:
    """OpenAI's preference fine-tuning."""
    return {
        "input": {
            "messages": prompt_messages(preference.prompt),
            "tools": [],
            "parallel_tool_calls": True,
        },
        "preferred_output": [{"role": "assistant", "content": preference.chosen}],
        "non_preferred_output": [{"role": "assistant", "content": preference.rejected}],
    }


TABLE = ("kind", "prompt", "text_a", "text_b", "outcome", "strength", "value", "correction")


def table_row(answer: Answer, *, escape: bool) -> dict[str, Any]:
    """An answer flat, one column for each fact; for spreadsheets cells that a formula could hide in are escaped."""
    row = {name: getattr(answer, name) for name in TABLE} | dict(answer.meta)
    return {name: escaped(value) if escape else value for name, value in row.items()}


def escaped(value: Any) -> Any:
    """A cell that no spreadsheet runs: text that opens like a formula gets an apostrophe before it."""
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA):
        return "'" + value
    return value


def rows(answers: Iterable[Answer], wanted: str) -> Iterator[dict[str, Any]]:
    """Rows of a format.

    Raises:
        BadInput: there is no such format.
    """
    if wanted == "trl":
        return (trl(each) for each in preferences(answers))
    if wanted == "trl-unpaired":
        return (trl_unpaired(each) for each in labels(answers))
    if wanted == "sharegpt":
        return (sharegpt(each) for each in preferences(answers))
    if wanted == "openai-preference":
        return (openai_preference(each) for each in preferences(answers))
    if wanted in ("csv", "parquet"):
        return (table_row(each, escape=wanted == "csv") for each in answers)
    raise BadInput(f"format {wanted!r}: there is none of that name, only {', '.join(FORMATS)}")


@dataclass
class Manifest:
    """What an export holds: counted as rows pass by, sealed by a digest of exactly those bytes."""

    rows: int = 0
    answers: int = 0
    chosen_characters: int = 0
    rejected_characters: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def line(self, row: dict[str, Any]) -> str:
        """The row as a line of JSON, counted."""
        text = json.dumps(row, ensure_ascii=False, sort_keys=True, default=str) + "\n"
        self.rows += 1
        self.digest.update(text.encode())
        for name, characters in (("chosen", "chosen_characters"), ("rejected", "rejected_characters")):
            part = row.get(name)
            if isinstance(part, list) and part and isinstance(part[0], dict):
                setattr(self, characters, getattr(self, characters) + len(str(part[0].get("content", ""))))
        return text

    def row(self, **more: Any) -> dict[str, Any]:
        """The manifest; ``more`` adds filters, redaction counts, versions."""
        n = max(self.rows, 1)
        return {
            "rows": self.rows,
            "sha256": self.digest.hexdigest(),
            "mean_chosen_characters": self.chosen_characters / n,
            "mean_rejected_characters": self.rejected_characters / n,
            **more,
        }

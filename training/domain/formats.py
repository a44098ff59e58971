"""Rows in the shapes that trainers read: TRL's, ShareGPT's, OpenAI's. All are read; each can be written.

TRL's explicit conversational row is what everything here speaks: ``prompt`` with ``completion``, with
``chosen`` and ``rejected``, or with ``completion`` and ``label``, all as message lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmn.lib.errors import BadInput

FORMATS = ("trl", "sharegpt", "openai")
ROLES = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
SPEAKERS = {"user": "human", "assistant": "gpt", "tool": "observation"}


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of any known shape as TRL's; one of no known shape as it is, for the reader to name what it lacks.

    Known besides TRL's own: whole conversations as ``chosen`` and ``rejected`` (what both begin with is the
    prompt), ``chosen_messages`` and ``rejected_messages``, ``messages`` (with or without ``label``), ShareGPT's
    ``conversations`` (with ``chosen`` and ``rejected``, with ``kto_tag``, or alone), OpenAI's ``input``,
    ``preferred_output`` and ``non_preferred_output``, and ``question``, ``response_j`` (the better), ``response_k``.
    """
    if "preferred_output" in row and isinstance(row.get("input"), Mapping):
        return _pair(row["input"].get("messages"), row["preferred_output"], row.get("non_preferred_output"))
    if "conversations" in row:
        if "chosen" in row:
            return _pair(row["conversations"], [row["chosen"]], [row.get("rejected")])
        return _answered(row["conversations"], row.get("kto_tag", row.get("label")))
    if "question" in row and "response_j" in row:
        return {"prompt": row["question"], "chosen": row["response_j"], "rejected": row.get("response_k")}
    if "messages" in row and "prompt" not in row:
        return _answered(row["messages"], row.get("label"))
    for good, bad in (("chosen", "rejected"), ("chosen_messages", "rejected_messages")):
        if "prompt" not in row and isinstance(row.get(good), list) and isinstance(row.get(bad), list):
            chosen, rejected = _messages(row[good]), _messages(row[bad])
            most = min(len(chosen), len(rejected)) - 1
            same = next((n for n in range(max(most, 0)) if chosen[n] != rejected[n]), max(most, 0))
            return {"prompt": chosen[:same], "chosen": chosen[same:], "rejected": rejected[same:]}
    return dict(row)


def _pair(prompt: Any, chosen: Any, rejected: Any) -> dict[str, Any]:
    return {"prompt": _messages(prompt), "chosen": _messages(chosen), "rejected": _messages(rejected)}


def _answered(talk: Any, label: Any) -> dict[str, Any]:
    messages = _messages(talk)
    told = {"prompt": messages[:-1], "completion": messages[-1:]} if isinstance(messages, list) else {"prompt": messages}  # fmt: skip
    return told if label is None else told | {"label": label}


def _messages(value: Any) -> Any:
    """Messages with ``role`` and ``content``; what is none stays as it is."""
    if not isinstance(value, list):
        return value
    return [_message(one) if isinstance(one, Mapping) else one for one in value]


def _message(one: Mapping[str, Any]) -> dict[str, Any]:
    role = one.get("role", one.get("from"))
    text = one.get("content", one.get("value"))
    if isinstance(text, list):  # parts of a message; only texts are trained on
        text = "".join(str(part.get("text", part.get("value", ""))) for part in text if isinstance(part, Mapping))
    return {"role": ROLES.get(role, role) if isinstance(role, str) else role, "content": text}


def shaped(row: Mapping[str, Any], wanted: str) -> dict[str, Any]:
    """One of our rows in another shape.

    Raises:
        BadInput: there is no such shape.
    """
    if wanted not in FORMATS:
        raise BadInput(f"format {wanted!r}: one of {', '.join(FORMATS)}")
    if wanted == "trl":
        return dict(row)
    pair = "chosen" in row
    if wanted == "sharegpt":
        if pair:
            return {"conversations": _said(row["prompt"]), "chosen": _said(row["chosen"])[0], "rejected": _said(row["rejected"])[0]}  # fmt: skip
        told: dict[str, Any] = {"conversations": _said([*row["prompt"], *row["completion"]])}
        return told | ({"kto_tag": row["label"]} if "label" in row else {})
    if pair:
        return {
            "input": {"messages": row["prompt"], "tools": [], "parallel_tool_calls": True},
            "preferred_output": row["chosen"],
            "non_preferred_output": row["rejected"],
        }
    told = {"messages": [*row["prompt"], *row["completion"]]}
    return told | ({"label": row["label"]} if "label" in row else {})


def _said(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    return [{"from": SPEAKERS.get(one["role"], one["role"]), "value": one["content"]} for one in messages]

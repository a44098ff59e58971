"""Marks of chat templates: a text that carries one was rendered already, or tries to speak as somebody else."""

from __future__ import annotations

MARKS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<|start_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "### Instruction:",
)


def mark_in(text: str) -> str | None:
    """The first mark that stands in a text."""
    return next((mark for mark in MARKS if mark in text), None)

"""The best that a prompt alone can do: the brief with worked examples, asked of the base model.

An adapter that does not beat this has not earned its place: a prompt costs nothing to train, to serve
and to take back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from agents.domain import briefs
from agents.domain.briefs import Item
from training.domain.checks import Policy
from training.domain.starter import shipped

EXAMPLES = 3  # more cost time at every answer, and a small model copies them

Example = tuple[Item, str]


def examples(items: Sequence[Item], policy: Policy, count: int = EXAMPLES) -> list[Example]:
    """Worked examples from items that may train: our own passing lines, each of another product and feature.

    The same items give the same examples, whatever their order.
    """
    found: list[Example] = []
    for item in sorted(items, key=lambda one: hashlib.sha256(f"{one.product}\n{one.feature}".encode()).hexdigest()):
        if any(item.product == other.product or item.feature == other.feature for other, _ in found):
            continue
        text = shipped(item, policy)
        if text is not None:
            found.append((item, text))
        if len(found) == count:
            break
    return found


def with_examples(item: Item, worked: Sequence[Example]) -> list[dict[str, str]]:
    """The brief's messages with the examples as earlier turns of the same talk."""
    system, asked = briefs.messages(item)
    turns = [system]
    for other, text in worked:
        turns += [briefs.messages(other)[1], {"role": "assistant", "content": text}]
    return [*turns, asked]

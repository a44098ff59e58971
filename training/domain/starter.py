"""The copy that the product ships, and what rules make of drafts before any person has answered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from agents.domain import briefs
from agents.domain.briefs import Item
from training.domain.checks import Policy, passes

# Our own lines. The first of a feature's that fits and passes is taken, beginning at a place of the product's own.
COPY: dict[str, tuple[str, ...]] = {
    "for every day": (
        "{brand} {product} for every day",
        "Everyday {product} from {brand}",
        "{brand} {product}, {size}, every day",
        "{brand} {product} every day",
        "{brand} {product}",
    ),
    "to share": (
        "{brand} {product} to share, {size}",
        "Share {brand} {product}",
        "{brand} {product} made to share",
        "{brand} {product} to share",
        "{brand} {product}",
    ),
    "pantry staple": (
        "{brand} {product} for the pantry",
        "Keep {brand} {product} at home",
        "{brand} {product}, {size}, for the pantry",
        "{brand} {product} at home",
        "{brand} {product}",
    ),
}
FEATURES = tuple(COPY)


def shipped(item: Item, policy: Policy) -> str | None:
    """Our line for an item, if one passes."""
    lines = COPY.get(item.feature) or tuple(line for group in COPY.values() for line in group)
    start = int(hashlib.sha256(item.product.encode()).hexdigest(), 16) % max(len(lines) - 2, 1)
    for line in (*lines[start:], *lines[:start]):
        if "{size}" in line and not item.size:
            continue
        text = line.format(
            brand=item.brand,
            product=item.product.lower() if not line.startswith("{product}") else item.product,
            size=item.size,
        )
        text = text[0].upper() + text[1:] if not text.startswith(item.brand) else text
        if passes(text, item, policy):
            return text
    return None


def sft_rows(items: Iterable[Item], drafts: Mapping[str, Sequence[str]], policy: Policy) -> Iterator[dict[str, Any]]:
    """Prompt and completion for each item: our line, and the shortest passing draft of its own where there is one.

    Args:
        drafts: by the prompt's text, what the base model wrote.
    """
    for item in items:
        prompt = briefs.messages(item)
        good = [briefs.tidy(t) for t in drafts.get(briefs.as_text(prompt), ()) if passes(t, item, policy)]
        ours = shipped(item, policy)
        for text, origin in ((ours, "shipped"), (min(good, key=len) if good else None, "own draft")):
            if text:
                yield {
                    "prompt": prompt,
                    "completion": [{"role": "assistant", "content": text}],
                    "cluster": briefs.cluster(item),
                    "origin": origin,
                }


def rule_pairs(items: Iterable[Item], drafts: Mapping[str, Sequence[str]], policy: Policy) -> Iterator[dict[str, Any]]:
    """Pairs that verdicts make: a passing text over a failing draft for the same prompt. Marked, never human."""
    for item in items:
        prompt = briefs.messages(item)
        wrote = list(dict.fromkeys(drafts.get(briefs.as_text(prompt), ())))
        good = [briefs.tidy(text) for text in wrote if passes(text, item, policy)]
        bad = [text.strip() for text in wrote if text.strip() and not passes(text, item, policy)]
        ours = shipped(item, policy)
        better = good or ([ours] if ours else [])
        for place, worse in enumerate(bad[:2]):
            if better:
                yield {
                    "item": item,
                    "prompt": prompt,
                    "chosen": better[place % len(better)],
                    "rejected": worse,
                    "cluster": briefs.cluster(item),
                    "origin": "rule",
                }

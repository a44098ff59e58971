"""What a copywriter is asked, whoever the copywriter is: one brief, one prompt, one version."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERSION = "headline-1"
LIMITS = {
    "amazon": 50,
    "walmart": 45,
    "instacart": 45,
    "kroger": 30,
    "target": 50,
    "criteo": 50,
}  # headline, characters
SYSTEM = (
    "You write ad headlines for a grocery website: plain facts only, no superlatives, no prices, no exclamation"
    " marks. Answer with one headline and nothing else."
)


@dataclass(frozen=True)
class Item:
    """What one headline is for. Everything said of the product stands here; nothing else may be claimed."""

    product: str
    brand: str
    size: str = ""
    feature: str = ""
    networks: tuple[str, ...] = ("instacart",)
    field: str = "headline"
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def limit(self) -> int:
        """Characters that fit at every network the brand buys on."""
        return min((LIMITS.get(network, 50) for network in self.networks), default=50)

    @property
    def policy_facts(self) -> dict[str, Any]:
        return {"brand": self.brand, **self.facts}


def messages(item: Item) -> list[dict[str, str]]:
    """The prompt, as chat messages."""
    about = ", ".join(part for part in (f"{item.brand} {item.product.lower()}", item.size, item.feature) if part)
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"Write a headline of at most {item.limit} characters for {about}."},
    ]


def as_text(prompt: Sequence[Mapping[str, str]]) -> str:
    """A prompt as it is kept in a row: canonical JSON."""
    return json.dumps([dict(message) for message in prompt], ensure_ascii=False, sort_keys=True)


def cluster(item: Item) -> str:
    """What texts for one product share: prompts of one cluster never stand on both sides of a split."""
    return hashlib.sha256(f"{item.brand}\n{item.product}".casefold().encode()).hexdigest()


def tidy(text: str) -> str:
    """A model's answer as a headline: the first line, without quotes around it."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    line = lines[0] if lines else ""
    for mark in ('""', "“”", "''", "**"):
        if len(line) > 1 and line[0] == mark[0] and line[-1] == mark[1]:
            line = line.strip(mark).strip()
    return line

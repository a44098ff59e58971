"""When a headline passes: the network's rules, its length, and that it speaks of the product."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents.domain.briefs import Item, tidy

Policy = Callable[..., Any]  # retailers.domain.policy.check
NUMBER = re.compile(r"\d+(?:[.,]\d+)?")


def failures(text: str, item: Item, policy: Policy) -> list[str]:
    """Why a raw answer does not pass, in the order of the rules; empty when it passes."""
    found = []
    raw = text.strip()
    line = tidy(text)
    if len([part for part in raw.splitlines() if part.strip()]) > 1:
        found.append("more than one line")
    if len(line) > item.limit:
        found.append(f"{len(line)} characters, {item.limit} fit")
    if not named(line, item.product):
        found.append("does not name the product")
    if re.search(r"(?i)\b(?:headline|brand|product|size|feature)\s*:", line):
        found.append("repeats the brief")
    known = set(NUMBER.findall(f"{item.product} {item.size} {item.feature} {item.brand}"))
    invented = set(NUMBER.findall(line)) - known
    if invented:
        found.append(f"a number that is not in the facts: {', '.join(sorted(invented))}")
    for network in item.networks:
        verdict = policy(line, network=network, field=item.field, product=item.product, facts=item.policy_facts)
        if verdict.verdict != "pass":
            found += [f"{one.rule}: {one.message}" for one in verdict.findings if one.severity != "warn"]
    return list(dict.fromkeys(found))


def passes(text: str, item: Item, policy: Policy) -> bool:
    return not failures(text, item, policy)


def named(text: str, product: str) -> bool:
    """Whether the product's main word stands in the text (singular or plural)."""
    mine = {_stem(word) for word in re.findall(r"[^\W\d_]+", text.casefold())}
    words = [_stem(word) for word in re.findall(r"[^\W\d_]{3,}", product.casefold())]
    return bool(words) and words[-1] in mine


def _stem(word: str) -> str:
    for ending in ("ies", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word[: -len(ending)]
    return word.removesuffix("y") if len(word) > 3 else word


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Pass rate with its interval, over cases of ``passed`` and ``cluster``.

    The interval resamples clusters: texts for one product are not independent.
    """
    import numpy as np

    names = sorted({row["cluster"] for row in rows})
    sums = np.array([[sum(r["passed"] for r in rows if r["cluster"] == c), sum(r["cluster"] == c for r in rows)] for c in names], float)  # fmt: skip
    rate = float(sums[:, 0].sum() / sums[:, 1].sum())
    rng = np.random.default_rng(0)
    picked = sums[rng.integers(0, len(names), (4000, len(names)))].sum(axis=1)
    low, high = np.quantile(picked[:, 0] / picked[:, 1], [0.025, 0.975])
    if rate in (0.0, 1.0):  # the bootstrap knows no doubt there: three over the number of clusters
        edge = min(3.0 / len(names), 1.0)
        low, high = (1 - edge, 1.0) if rate == 1.0 else (0.0, edge)
    return {"estimate": rate, "interval": [float(low), float(high)], "cases": len(rows), "clusters": len(names)}

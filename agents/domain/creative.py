"""When a draft may be offered: the network's rules, its length, and nothing said that the facts do not hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents.domain.briefs import Item, messages, tidy

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


def findings(text: str, item: Item, policy: Policy) -> tuple[str, list[dict[str, Any]]]:
    """The verdict on a draft and all findings, the brief's own beside the networks'.

    Returns:
        pass, block or needs_proof, and findings in the shape of CONTRACTS section 5.
    """
    found: list[dict[str, Any]] = []
    worst = "pass"
    for network in item.networks:
        verdict = policy(text, network=network, field=item.field, product=item.product, facts=item.policy_facts)
        found += [one.row() for one in verdict.findings if one.row() not in found]
        worst = max(worst, verdict.verdict, key=("pass", "needs_proof", "block").index)
    own = []
    if len(text) > item.limit:
        own.append(("BRIEF-LENGTH", item.limit, f"{len(text)} characters, {item.limit} fit", "Shorten it."))
    if not named(text, item.product):
        own.append(("BRIEF-PRODUCT", 0, "does not name the product", f"Name it: {item.product}."))
    known = set(NUMBER.findall(f"{item.product} {item.size} {item.feature} {item.brand}"))
    for hit in NUMBER.finditer(text):
        if hit[0] not in known:
            own.append(
                ("BRIEF-FACT", hit.start(), f"{hit[0]} is not in the facts", "Say only what the catalogue says.")
            )
    for rule, start, message, fix in own:
        found.append(
            {"rule": rule, "severity": "block", "start": start, "end": len(text), "message": message, "fix": fix}
        )
    return ("block" if own else worst), found


def again(item: Item, text: str, found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The prompt for a repair: the brief, the draft, and what is wrong with it."""
    why = "; ".join(dict.fromkeys(str(one["message"]) for one in found))[:400]
    return [
        *messages(item),
        {"role": "assistant", "content": text},
        {"role": "user", "content": f"That cannot be used: {why}. Write another headline, and nothing else."},
    ]

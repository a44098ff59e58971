"""Whether a text says what refused texts said, in other words: a layer of the policy that adds findings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from retailers.domain.policy import Case, Finding, Rule

Array = np.ndarray[Any, Any]
Embed = Callable[[Sequence[str]], Array]  # texts -> a row of length one for each
LEAST = 0.50  # cosine to a refused text from which on a text is like it
MARGIN = 0.05  # by which it must be liker to that than to any good text
SOURCE = "likeness"


@dataclass(frozen=True)
class Likeness:
    """A text near one that broke a rule, and less near to every good one, is shown to a person under that rule.

    Args:
        embed: of a sentence model.
        cases: labelled texts: text, compliant, violated (rules).
        networks: where it looks; everywhere where empty.

    Source: nearest labelled example by cosine, with a margin against the nearest example of the other label.
    """

    embed: Embed
    cases: Sequence[Mapping[str, Any]]
    networks: Collection[str] = field(default_factory=frozenset)

    @cached_property
    def _refused(self) -> tuple[list[Mapping[str, Any]], Array]:
        told = [case for case in self.cases if case["violated"]]
        return told, self.embed([case["text"] for case in told])

    @cached_property
    def _good(self) -> Array:
        return self.embed([case["text"] for case in self.cases if case["compliant"]])

    def __call__(self, case: Case, network: str, held: Sequence[Rule]) -> Iterator[Finding]:
        if (self.networks and network not in self.networks) or not case.text.strip():
            return
        refused, vectors = self._refused
        rules = {rule.id: rule for rule in held if not rule.fields or case.field in rule.fields}
        mine = [place for place, one in enumerate(refused) if not rules.keys().isdisjoint(one["violated"])]
        if not mine:
            return
        vector = self.embed([case.folded.text])[0]
        near = vectors[mine] @ vector
        best = int(near.argmax())
        like = float(near[best])
        if like < LEAST or like - float((self._good @ vector).max(initial=-1.0)) < MARGIN:
            return
        known = refused[mine[best]]
        rule = next(rules[name] for name in known["violated"] if name in rules)
        yield Finding(
            rule.id,
            "warn" if rule.severity == "warn" else "needs_proof",
            0,
            len(case.text),
            f"Reads like a text that broke this rule: \u201c{known['text'][:120]}\u201d (likeness {like:.2f}). {rule.message}",
            rule.fix or "Say it otherwise, or put on file what proves it",
            SOURCE,
        )

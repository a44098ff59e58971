"""What a changed rule would do to labelled texts, before anybody is bound by it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from retailers.domain import policy
from rmn.lib.errors import BadInput

CASES = Path(__file__).resolve().parents[1] / "policies" / "cases.jsonl"


@dataclass(frozen=True)
class Score:
    """How well refusing agrees with the labels; None where there is nothing to divide by."""

    hits: int
    false: int
    missed: int

    @property
    def precision(self) -> float | None:
        return self.hits / (self.hits + self.false) if self.hits + self.false else None

    @property
    def recall(self) -> float | None:
        return self.hits / (self.hits + self.missed) if self.hits + self.missed else None


@dataclass(frozen=True)
class Change:
    """One labelled text that is judged otherwise: verdict before and after."""

    text: str
    network: str
    field: str
    compliant: bool
    before: str
    after: str

    @property
    def is_better(self) -> bool:
        return self.compliant == (self.after == "pass")


@dataclass(frozen=True)
class Trial:
    """A rule over all cases: which texts turn, and how well the rules agree with the labels before and after."""

    cases: int
    newly_flagged: tuple[Change, ...]
    newly_passed: tuple[Change, ...]
    otherwise: tuple[Change, ...]  # blocked where proof was asked for, or the reverse
    before: Score  # of all rules together: refused at all
    after: Score
    own_before: Score  # of this rule: named where the label names it
    own_after: Score


@lru_cache(maxsize=1)
def shipped_cases(path: Path = CASES) -> tuple[dict[str, Any], ...]:
    """The product's own labelled texts: network, field, text, product, facts, compliant, violated (rules), split."""
    return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def judge(rules: policy.RuleSet, cases: Sequence[Mapping[str, Any]]) -> list[policy.Verdict]:
    """Each case by these rules."""
    return [
        policy.check(
            one["text"],
            network=one["network"],
            field=one["field"],
            product=one["product"],
            facts=one["facts"],
            rules=rules,
        )
        for one in cases
    ]


def attempt(
    code: str,
    rule: policy.Rule | None,
    rules: policy.RuleSet,
    judged: Sequence[policy.Verdict],
    cases: Sequence[Mapping[str, Any]],
) -> Trial:
    """Put one rule in the place of the one with its code, and judge all cases anew.

    Findings of other rules do not depend on it, so only this rule looks again.

    Args:
        rule: what would hold; None takes the code out.
        rules: what holds now.
        judged: the cases by ``rules``, from ``judge``.

    Raises:
        BadInput: as many verdicts as cases were expected.
    """
    if len(judged) != len(cases):
        raise BadInput(f"{len(judged)} verdicts on {len(cases)} cases")
    alone = policy.RuleSet((rule,) if rule else (), rules.networks, rules.version, rules.terms)
    turned: dict[str, list[Change]] = {"flagged": [], "passed": [], "otherwise": []}
    seen: list[tuple[bool, bool, bool, bool]] = []  # refused before and after, named before and after
    for case, was, found in zip(cases, judged, judge(alone, cases), strict=True):
        left = [one for one in was.findings if one.rule != code]
        verdict = policy.worst([*left, *found.findings])
        seen.append((was.verdict != "pass", verdict != "pass", len(left) < len(was.findings), bool(found.findings)))
        if verdict != was.verdict:
            kind = "passed" if verdict == "pass" else "flagged" if was.verdict == "pass" else "otherwise"
            turned[kind].append(
                Change(case["text"], case["network"], case["field"], case["compliant"], was.verdict, verdict)
            )
    wrong = [not case["compliant"] for case in cases]
    named = [code in case["violated"] for case in cases]
    return Trial(
        len(cases),
        tuple(turned["flagged"]),
        tuple(turned["passed"]),
        tuple(turned["otherwise"]),
        _score([one[0] for one in seen], wrong),
        _score([one[1] for one in seen], wrong),
        _score([one[2] for one in seen], named),
        _score([one[3] for one in seen], named),
    )


def _score(said: Sequence[bool], labels: Sequence[bool]) -> Score:
    pairs = list(zip(said, labels, strict=True))
    return Score(pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True)))

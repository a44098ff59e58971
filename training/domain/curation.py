"""From answers to rows that may train: who counts how much, what is dropped, and how it is split.

The table of what becomes what: a pair with a winner becomes a preference, with how sure they were; ties never
do, both good and both bad are two labels. Stars become labels only away from the person's own mean, and a
preference where one person gave two texts of one prompt stars that differ by two or more. A correction becomes a
preference of the corrected text over the original where the edit is real, a label against the original where it
is heavy, and an SFT row unless it only mends a fact. Thumbs become labels, and a text to imitate where nobody
rewrote it. Of texts that people judge differently the majority decides. Rows made by rules are counted apart and
weigh no person's vote.

Before that, who votes against everybody or always for the same side is left out, and old answers are thinned. How
much people disagree on the same pair is measured, and tells the trainer how many labels to expect the wrong way round.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.stats import binom

from feedback.domain.formats import HEAVY_EDIT, edit_share, prompt_messages, real_edit
from feedback.domain.reasons import LISTED
from rmn.lib.errors import BadInput
from training.domain.marks import mark_in

MOST_PER_PERSON = 0.4  # of the human rows of a set
ALWAYS_ALLOWED = 20  # rows that a person may have whatever the others gave
MOST_PER_PROMPT = 8
EVAL_SHARE = 0.2
HALF_LIFE_DAYS = 365.0  # an answer two years old is kept one time in four
LEAST_SHARED = 8  # decided pairs that others judged too, before a person's agreement says anything
LEAST_SHOWN = 12  # decided pairs whose sides were tossed, before always the same side says anything
LEAST_THUMBS = 30  # of a person; where all point one way they tell no text from another
OUTLIER_P = 0.01
ENOUGH_TO_IMITATE = 50  # rows; under it four stars are taken too
STARS_APART = 2
FACTS = frozenset({"not true", "wrong product", "numbers look wrong", "fact"})  # reasons that mend a fact, not a style
USUAL_DISAGREEMENT = 0.3  # between two people on a pair, in published preference sets; counts as ten pairs of ours
MOST_SMOOTHING = 0.4
LEAST_PEOPLE = 5  # before one of them is held out
PEOPLE_SHARE = 0.15  # of people held out, and at most twice that of the rows
TEXTS = ("prompt", "chosen", "rejected", "completion")
Masker = Callable[[str], tuple[str, int]]  # text -> masked text, how many places were masked


@dataclass(frozen=True)
class Judged:
    """One answer, with what it was about; texts not masked yet."""

    kind: str  # thumb, rating, pair, correction
    prompt: str  # as kept: JSON messages, or plain text
    text_a: str = ""
    text_b: str = ""
    outcome: str = ""
    strength: int = 1
    value: int | None = None
    correction: str = ""
    person: str = ""
    origin: str = "human"
    cluster: str = ""
    key: str = ""  # of the answer, for lineage
    reasons: tuple[str, ...] = ()
    age_days: float = 0.0
    first: str = ""  # of a pair, the side shown first: a or b; empty: not known


@dataclass
class Report:
    """What came in, what was left out and why."""

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    masked: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    outliers: int = 0  # people left out
    reasons: Counter[str] = field(default_factory=Counter)  # that people gave, of the rows kept
    judged_twice: list[tuple[int, int]] = field(default_factory=list)  # votes for and against, where two people voted

    @property
    def disagreement(self) -> float | None:
        """Chance that two people who judged the same pair differ; None where no pair was judged twice."""
        shares = [2 * a * b / ((a + b) * (a + b - 1)) for a, b in self.judged_twice]
        return float(np.mean(shares)) if shares else None

    @property
    def flipped(self) -> float:
        """Share of people's labels to expect the wrong way round.

        Two people who each err with probability e differ with probability 2 e (1 - e). The measured
        disagreement is drawn towards the usual one by ten pairs, so that three pairs decide nothing.
        """
        n = len(self.judged_twice)
        differ = ((self.disagreement or 0.0) * n + 10 * USUAL_DISAGREEMENT) / (n + 10)
        return float((1 - np.sqrt(max(1 - 2 * min(differ, 0.5), 0.0))) / 2)


def fair(answers: Iterable[Judged], report: Report, *, half_life_days: float = HALF_LIFE_DAYS) -> list[Judged]:
    """The answers without people who vote against everybody or for one side, and old ones thinned by their age.

    Of a person with ``LEAST_SHARED`` pairs that others decided too, the agreement with the majority of
    the others is tested against a coin's; certainly below it (Bonferroni over people), all their
    answers are left out. Sides are tossed at each showing, so a person of ``LEAST_SHOWN`` pairs whose choices
    certainly follow the side (the same test, both ways) reads the page and not the texts: their pairs are left
    out. Thinning keeps an answer with probability 0.5 ** (age / half-life), decided
    by its key, so that the same answers give the same set.
    """
    known = list(answers)
    choices: dict[tuple[str, frozenset[str]], dict[str, str]] = defaultdict(dict)
    for one in known:
        if one.kind == "pair" and one.origin == "human" and one.person and one.outcome in ("a", "b"):
            texts = (one.text_a, one.text_b)
            choices[one.prompt, frozenset(texts)][one.person] = texts[one.outcome == "b"]
    agreed: dict[str, list[bool]] = defaultdict(list)
    for chosen in choices.values():
        for person, text in chosen.items():
            others = Counter(other for name, other in chosen.items() if name != person).most_common(2)
            if others and (len(others) == 1 or others[0][1] > others[1][1]):
                agreed[person].append(text == others[0][0])
    tested = {person: hits for person, hits in agreed.items() if len(hits) >= LEAST_SHARED}
    against = {p for p, hits in tested.items() if binom.cdf(sum(hits), len(hits), 0.5) < OUTLIER_P / len(tested)}
    shown: dict[str, list[bool]] = defaultdict(list)
    for one in known:
        if one.kind == "pair" and one.origin == "human" and one.person and one.first and one.outcome in ("a", "b"):
            shown[one.person].append(one.outcome == one.first)
    sided = _follow_the_side({p: hits for p, hits in shown.items() if len(hits) >= LEAST_SHOWN})
    report.outliers = len(against | sided)
    kept = []
    for one in known:
        if one.origin == "human" and one.person in against:
            report.read += 1
            report.dropped["votes against everybody"] += 1
        elif one.kind == "pair" and one.origin == "human" and one.person in sided:
            report.read += 1
            report.dropped["always the same side"] += 1
        elif one.origin == "human" and _chance(one.key) >= 0.5 ** (max(one.age_days, 0.0) / half_life_days):
            report.read += 1
            report.dropped["old, thinned"] += 1
        else:
            kept.append(one)
    return kept


def _follow_the_side(shown: Mapping[str, Sequence[bool]]) -> set[str]:
    """People whose choices go with the side shown first, or second, for certain."""
    found = set()
    for person, hits in shown.items():
        fewer = min(sum(hits), len(hits) - sum(hits))
        if 2 * binom.cdf(fewer, len(hits), 0.5) < OUTLIER_P / len(shown) and fewer <= 0.1 * len(hits):
            found.add(person)
    return found


def _chance(key: str) -> float:
    """A number in [0, 1) of the key's own."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) / 16**12 if key else 0.0


def _starred(answers: Sequence[Judged]) -> tuple[list[Judged], set[str]]:
    """Pairs that one person's stars make for one prompt: the best text over the worst. And the keys used."""
    stars: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for one in answers:
        if one.kind == "rating" and one.value is not None and one.person:
            stars[one.prompt, one.person].append(one)
    made, used = [], set()
    for rated in stars.values():
        best, worst = max(rated, key=lambda r: r.value or 0), min(rated, key=lambda r: r.value or 0)
        gap = (best.value or 0) - (worst.value or 0)
        if gap < STARS_APART:
            continue
        used |= {best.key, worst.key}
        made.append(
            replace(best, kind="pair", text_b=worst.text_a, outcome="a", strength=2 if gap > STARS_APART else 1)
        )
    return made, used


def preferences(answers: Iterable[Judged], report: Report) -> list[dict[str, Any]]:
    """Rows of prompt, chosen, rejected; disagreeing pairs of one prompt and text go to the majority."""
    votes: dict[tuple[str, str, str], list[Judged]] = defaultdict(list)
    known = list(answers)
    starred, used = _starred(known)
    report.read += len(used)
    report.read -= len(starred)  # counted below as the pairs they make
    for one in [*(each for each in known if each.kind != "rating" or each.key not in used), *starred]:
        report.read += 1
        if one.kind == "pair" and one.outcome in ("a", "b"):
            good, bad = (one.text_a, one.text_b) if one.outcome == "a" else (one.text_b, one.text_a)
        elif one.kind == "correction" and real_edit(one.text_a, one.correction):
            good, bad = one.correction, one.text_a
        else:
            report.dropped["no winner" if one.kind == "pair" else f"{one.kind} is no pair"] += 1
            continue
        if not good.strip() or not bad.strip() or good.strip() == bad.strip():
            report.dropped["empty or equal texts"] += 1
            continue
        votes[one.prompt, good, bad].append(one)
    rows = []
    told: set[tuple[str, str, str]] = set()
    for (prompt, good, bad), mine in votes.items():
        against = votes.get((prompt, bad, good), [])
        humans, others = [v for v in mine if v.origin == "human"], [v for v in against if v.origin == "human"]
        total = len(humans) + len(others)
        agreement = len(humans) / total if total else 1.0
        if total > 1 and (prompt, good, bad) not in told and (prompt, bad, good) not in told:
            told.add((prompt, good, bad))
            report.judged_twice.append((len(humans), len(others)))
        if total and (len(humans) < len(others) or (len(humans) == len(others) and (good, bad) > (bad, good))):
            report.dropped["outvoted"] += len(mine)
            continue
        if total and len(humans) == len(others):
            report.dropped["evenly disputed"] += len(mine)
            continue
        rows.append(
            {
                "prompt": prompt_messages(prompt),
                "chosen": _said(good),
                "rejected": _said(bad),
                "origin": "human" if humans else mine[0].origin,
                "people": sorted({v.person for v in humans if v.person}),
                "votes": len(mine),
                "agreement": agreement,
                "strength": max(v.strength for v in mine),
                "keys": sorted({v.key for v in mine if v.key}),
                "reasons": sorted({reason for v in mine for reason in v.reasons}),
                "cluster": mine[0].cluster or _cluster(prompt),
            }
        )
    return rows


def _own_means(known: Sequence[Judged]) -> dict[str, float]:
    """Of each person's stars, once there are five; 3 before."""
    stars: dict[str, list[int]] = defaultdict(list)
    for one in known:
        if one.kind == "rating" and one.value is not None:
            stars[one.person].append(one.value)
    return {person: float(np.mean(values)) if len(values) >= 5 else 3.0 for person, values in stars.items()}


def _same_of_all(known: Sequence[Judged]) -> set[str]:
    """People whose thumbs all point one way: as with stars, what is the same for every text says nothing of any."""
    thumbs: dict[str, list[int]] = defaultdict(list)
    for one in known:
        if one.kind == "thumb" and one.origin == "human" and one.person and one.value is not None:
            thumbs[one.person].append(one.value)
    return {person for person, values in thumbs.items() if len(values) >= LEAST_THUMBS and len(set(values)) == 1}


Votes = dict[tuple[str, str], dict[bool, list[Judged]]]  # (prompt, text) -> for it, against it


def _judgements(known: Sequence[Judged], report: Report | None = None) -> Votes:
    """Who says of a text that it is good or bad, in the order of the answers."""
    means, same = _own_means(known), _same_of_all(known)
    votes: Votes = {}
    for one in known:
        found: list[tuple[str, bool]] = []
        why = "says neither good nor bad"
        if one.kind == "thumb" and one.value is not None:
            found = [(one.text_a, one.value > 0)]
            if one.origin == "human" and one.person in same:
                found, why = [], "says the same of every text"
        elif one.kind == "rating" and one.value is not None:
            away = one.value - means[one.person]
            found = [(one.text_a, away > 0)] if abs(away) >= 0.75 else []
        elif one.kind == "pair":
            found = {
                "a": [(one.text_a, True), (one.text_b, False)],
                "b": [(one.text_b, True), (one.text_a, False)],
                "tie": [(one.text_a, True), (one.text_b, True)],  # both good: both bad is an answer of its own
                "both_bad": [(one.text_a, False), (one.text_b, False)],
            }.get(one.outcome, [])
        elif one.kind == "correction" and real_edit(one.text_a, one.correction):
            found = [(one.correction, True)]
            if edit_share(one.text_a, one.correction) >= HEAVY_EDIT:
                found.append((one.text_a, False))
        if report is not None:
            report.read += 1
            if not found:
                report.dropped[why] += 1
        for text, good in found:
            if text.strip():
                votes.setdefault((one.prompt, text.strip()), {True: [], False: []})[good].append(one)
    return votes


def _decided(votes: Mapping[bool, Sequence[Judged]]) -> tuple[bool | None, float]:
    """What the majority of people says of a text, and the share that says so; rules count where no person spoke."""
    for origin in (True, False):
        told = {side: {v.person or v.key or str(i) for i, v in enumerate(mine) if (v.origin == "human") is origin} for side, mine in votes.items()}  # fmt: skip
        good, bad = len(told[True]), len(told[False])
        if good or bad:
            return (None if good == bad else good > bad), max(good, bad) / (good + bad)
    return None, 0.0


def labels(answers: Iterable[Judged], report: Report) -> list[dict[str, Any]]:
    """Rows of prompt, completion, label (KTO), one for each text; what people dispute goes to the majority."""
    rows = []
    for (_, text), votes in _judgements(list(answers), report).items():
        good, agreement = _decided(votes)
        if good is None:
            report.dropped["evenly disputed"] += len(votes[True]) + len(votes[False])
            continue
        if votes[not good]:
            report.dropped["outvoted"] += len(votes[not good])
        humans = [one for one in votes[good] if one.origin == "human"]
        rows.append(_row(humans or votes[good], text, agreement, label=good))
    return rows


def demonstrations(answers: Iterable[Judged], report: Report) -> list[dict[str, Any]]:
    """Rows of prompt and completion (SFT): corrections, praised texts, winners of clear pairs.

    A text that more people call bad than good is not imitated, nor a praised one that somebody rewrote. Four
    stars are taken where fewer than ``ENOUGH_TO_IMITATE`` rows came otherwise.
    """
    known = list(answers)
    judged, means = _judgements(known), _own_means(known)
    rewritten = {
        (one.prompt, one.text_a.strip())
        for one in known
        if one.kind == "correction" and real_edit(one.text_a, one.correction)
    }
    rows: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    for one in known:
        report.read += 1
        text, fours = "", False
        if one.kind == "correction" and one.reasons and set(one.reasons) <= FACTS:
            report.dropped["mends a fact, teaches no style"] += 1
            continue
        if one.kind == "correction" and real_edit(one.text_a, one.correction):
            text = one.correction
        elif (one.kind == "thumb" and one.value == 1) or (one.kind == "rating" and (one.value or 0) >= 5):
            text = one.text_a
        elif one.kind == "rating" and one.value == 4 and means[one.person] <= 4:
            text, fours = one.text_a, True
        elif one.kind == "pair" and one.outcome in ("a", "b") and (one.strength > 1 or one.origin != "human"):
            text = one.text_a if one.outcome == "a" else one.text_b
        if not text.strip():
            report.dropped["no text to imitate"] += 1
            continue
        if one.kind in ("thumb", "rating") and (one.prompt, text.strip()) in rewritten:
            report.dropped["praised, and rewritten by somebody"] += 1
            continue
        good, agreement = _decided(judged[one.prompt, text.strip()]) if (one.prompt, text.strip()) in judged else (True, 1.0)  # fmt: skip
        if not good:
            report.dropped["outvoted" if good is False else "evenly disputed"] += 1
            continue
        (second if fours else rows).append(_row([one], text, agreement))
    if len(rows) < ENOUGH_TO_IMITATE:
        return rows + second
    if second:
        report.dropped["four stars, and enough of five"] += len(second)
    return rows


def _row(given: Sequence[Judged], text: str, agreement: float, **more: Any) -> dict[str, Any]:
    one = given[0]
    return {
        "prompt": prompt_messages(one.prompt),
        "completion": _said(text),
        **more,
        "origin": one.origin,
        "people": sorted({each.person for each in given if each.person and each.origin == "human"}),
        "keys": sorted({each.key for each in given if each.key}),
        "reasons": sorted({reason for each in given for reason in each.reasons}),
        "agreement": agreement,
        "cluster": one.cluster or _cluster(one.prompt),
    }


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text.strip()}]


def _cluster(prompt: str) -> str:
    """Prompts that differ in numbers, case and punctuation only are one cluster."""
    plain = re.sub(r"[\W\d_]+", " ", prompt.casefold()).strip()
    return hashlib.sha256(plain.encode()).hexdigest()


def curate(rows: Sequence[dict[str, Any]], report: Report, *, min_agreement: float = 0.0) -> list[dict[str, Any]]:
    """Agreement floor (human rows only), duplicates, and caps per person and per prompt."""
    kept: list[dict[str, Any]] = []
    seen: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=_key):
        if any(mark_in(m["content"]) for name in TEXTS for m in row.get(name, ())):
            report.dropped["template marks in the text"] += 1
        elif row["people"] and row["agreement"] < min_agreement:
            report.dropped["agreement under the floor"] += 1
        elif _key(row) in seen:
            report.dropped["duplicate"] += 1
            seen[_key(row)]["keys"] = sorted({*seen[_key(row)].get("keys", ()), *row.get("keys", ())})
        else:
            kept.append(row)
            seen[_key(row)] = row
    per_prompt: Counter[str] = Counter()
    fair = []
    for row in sorted(kept, key=lambda r: (-len(r["people"]), hashlib.sha256(_key(r).encode()).hexdigest())):
        prompt = json.dumps(row["prompt"], sort_keys=True)
        per_prompt[prompt] += 1
        if per_prompt[prompt] > MOST_PER_PROMPT:
            report.dropped["more than eight rows of one prompt"] += 1
        else:
            fair.append(row)
    fair = _shared_out(fair, report)
    report.sources.update(row["origin"] for row in fair)
    # a reason in somebody's own words may name somebody: it is counted, not quoted
    report.reasons.update(one if one in LISTED else "other" for row in fair for one in row.get("reasons", ()))
    return sorted(fair, key=_key)


def _shared_out(rows: list[dict[str, Any]], report: Report) -> list[dict[str, Any]]:
    """At most ``MOST_PER_PERSON`` of what is left for each person, where three or more answered.

    With one or two people a share means nothing; the manifest warns instead.
    """
    people = Counter(row["people"][0] for row in rows if row["people"])
    if len(people) < 3:
        return rows
    most = next(
        (
            n
            for n in range(max(people.values()), 0, -1)
            if n <= MOST_PER_PERSON * sum(min(m, n) for m in people.values())
        ),
        1,
    )
    most = max(most, ALWAYS_ALLOWED)
    taken: Counter[str] = Counter()
    kept = []
    for row in rows:
        if row["people"]:
            who = min(row["people"], key=lambda person: (taken[person], person))  # of several, who has given least
            if taken[who] >= most:
                report.dropped["one person's share"] += 1
                continue
            taken[who] += 1
        kept.append(row)
    return kept


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps(
        {k: row[k] for k in ("prompt", "chosen", "rejected", "completion", "label") if k in row}, sort_keys=True
    )


def mask(rows: Sequence[dict[str, Any]], masker: Masker, report: Report) -> list[dict[str, Any]]:
    """Personal data masked in every message.

    Raises:
        whatever the masker raises: then nothing is stored.
    """
    found = []
    for row in rows:
        new = dict(row)
        for name in TEXTS:
            if name in row:
                messages = []
                for message in row[name]:
                    text, count = masker(message["content"])
                    report.masked += count
                    messages.append({**message, "content": text})
                new[name] = messages
        found.append(new)
    return found


def without(rows: Sequence[dict[str, Any]], asked: Collection[str]) -> tuple[list[dict[str, Any]], int]:
    """The rows that ask nothing of what the gate asks, and how many did: by cluster, or by the words of the prompt.

    Args:
        asked: clusters and prompts of the gate's cases.
    """
    words = {_cluster(one) for one in asked}
    kept = [row for row in rows if row["cluster"] not in asked and _cluster(row["prompt"][-1]["content"]) not in words]
    return kept, len(rows) - len(kept)


def split(rows: Sequence[dict[str, Any]], tenant: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training and evaluation rows by prompt cluster; a cluster stays on its side in every set of a tenant."""
    clusters = sorted({row["cluster"] for row in rows})
    place = {c: int(hashlib.sha256(f"{tenant}\n{c}".encode()).hexdigest()[:8], 16) / 2**32 for c in clusters}
    held = {c for c in clusters if place[c] < EVAL_SHARE}
    if not held and len(clusters) > 1:
        held = {min(clusters, key=lambda c: place[c])}
    if len(held) == len(clusters) and len(clusters) > 1:
        held.discard(max(clusters, key=lambda c: place[c]))
    train = [row for row in rows if row["cluster"] not in held]
    evaluation = [row for row in rows if row["cluster"] in held]
    shared = {json.dumps(r["prompt"]) for r in train} & {json.dumps(r["prompt"]) for r in evaluation}
    # the same prompt under two cluster names is kept for training alone
    evaluation = [row for row in evaluation if json.dumps(row["prompt"]) not in shared]
    return train, evaluation


def hold_people(train: Sequence[dict[str, Any]], tenant: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training rows, and those of people held out: whether a taste is learnt or a person, only they can tell.

    A person stays on their side in every set of a tenant. Rows that somebody else voted for too stay in
    training. Under ``LEAST_PEOPLE`` people nobody is held out.
    """
    people = sorted({person for row in train for person in row.get("people", ())})
    if len(people) < LEAST_PEOPLE:
        return list(train), []
    place = {p: int(hashlib.sha256(f"{tenant}\nperson\n{p}".encode()).hexdigest()[:8], 16) / 2**32 for p in people}
    out = {p for p in people if place[p] < PEOPLE_SHARE} or {min(people, key=lambda p: place[p])}
    kept: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []
    for row in train:
        theirs = set(row.get("people", ()))
        fits = bool(theirs) and theirs <= out and len(held) < 2 * PEOPLE_SHARE * len(train)
        (held if fits else kept).append(row)
    return kept, held


def manifest(
    kind: str,
    train: Sequence[dict[str, Any]],
    held: Sequence[dict[str, Any]],
    report: Report,
    by_people: Sequence[dict[str, Any]] = (),
    **facts: Any,
) -> dict[str, Any]:
    """What a data set's reader must know (the set's card).

    Args:
        by_people: rows of people held out, for early stopping.

    Raises:
        BadInput: too few rows, or all of one side.
    """
    if len(train) < 2 or not held:
        dropped = ", ".join(f"{n} {why}" for why, n in report.dropped.most_common(3))
        raise BadInput(
            f"{len(train)} rows to train on and {len(held)} to evaluate, from {report.read} answers ({dropped or 'nothing dropped'}); gather more feedback"
        )
    if kind == "kto" and len({row["label"] for row in train}) < 2:
        raise BadInput("all answers say the same: kto needs both good and bad texts")
    train_prompts = {json.dumps(r["prompt"]) for r in train}
    leaks = {
        "shared_prompts": len(train_prompts & {json.dumps(r["prompt"]) for r in held}),
        "shared_clusters": len({r["cluster"] for r in train} & {r["cluster"] for r in held}),
    }
    if any(leaks.values()):
        raise BadInput(
            f"leak: {leaks['shared_prompts']} prompts and {leaks['shared_clusters']} clusters stand on both sides of the split"
        )
    return {
        **facts,
        "kind": kind,
        "digest": digest(train, held, by_people),
        "rows": {"train": len(train), "eval": len(held), **({"people": len(by_people)} if by_people else {})},
        "people_held_out": len({person for row in by_people for person in row["people"]}),
        "read": report.read,
        "sources": dict(report.sources),
        "dropped": dict(report.dropped),
        "reasons": dict(report.reasons),
        "redactions": report.masked,
        "length": _lengths(kind, [*train, *held]),
        "split": {
            "by": "prompt cluster",
            "clusters": {"train": len({r["cluster"] for r in train}), "eval": len({r["cluster"] for r in held})},
        },
        "leak_check": leaks,
        # of other prompts; told, not refused: short texts repeat
        "repeated_answers": len(_answers(kind, train) & _answers(kind, held)),
        "label_noise": {
            "judged_twice": len(report.judged_twice),
            "disagreement": report.disagreement,
            "smoothing": _smoothing(kind, train, report),
        },
        "people_left_out": report.outliers,
        "warnings": _warnings(kind, train),
        "people": len({person for row in [*train, *held, *by_people] for person in row["people"]}),
        "mean_agreement": float(np.mean([row["agreement"] for row in [*train, *held]])),
    }


def _answers(kind: str, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    name = "chosen" if kind == "dpo" else "completion"
    return {" ".join(message["content"].casefold() for message in row[name]) for row in rows}


def _smoothing(kind: str, rows: Sequence[Mapping[str, Any]], report: Report) -> float:
    """Label smoothing for DPO: what people get wrong, as far as the rows are people's. A rule does not waver."""
    human = sum(row["origin"] == "human" for row in rows) / max(len(rows), 1)
    return min(round(human * report.flipped, 4), MOST_SMOOTHING) if kind == "dpo" else 0.0


def _warnings(kind: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a person should look at before training on it."""
    found = []
    if kind == "dpo":
        longer = [_size(row["chosen"]) > _size(row["rejected"]) for row in rows]
        share = sum(longer) / max(len(longer), 1)
        if len(rows) >= 20 and not 0.2 <= share <= 0.8:
            way = "longer" if share > 0.5 else "shorter"
            found.append(
                f"in {max(share, 1 - share):.0%} of the pairs the chosen text is {way}: the model may learn length alone"
            )
    if kind == "kto" and rows:
        good = sum(row["label"] for row in rows) / len(rows)
        if not 0.1 <= good <= 0.9:
            found.append(
                f"{max(good, 1 - good):.0%} of the texts are called {'good' if good > 0.5 else 'bad'}: the other kind weighs little"
            )
    if len(rows) < 50:
        found.append(f"{len(rows)} rows: enough to learn a form, hardly a taste")
    people = Counter(person for row in rows for person in row.get("people", ()))
    if people and len(people) < 3 and sum(bool(row.get("people")) for row in rows) > 0.5 * len(rows):
        found.append(
            f"most rows are of {len(people)} {'person' if len(people) == 1 else 'people'}: their taste is what is learnt"
        )
    return found


def _size(messages: Sequence[Mapping[str, str]]) -> int:
    return sum(len(message["content"]) for message in messages)


def _lengths(kind: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def characters(row: Mapping[str, Any], name: str) -> int:
        return sum(len(message["content"]) for message in row[name])

    names = ("chosen", "rejected") if kind == "dpo" else ("completion",)
    found: dict[str, Any] = {}
    for name in names:
        values = [characters(row, name) for row in rows]
        found[name] = {"mean": float(np.mean(values)), "median": float(np.median(values)), "max": max(values)}
    if kind == "dpo":
        longer = np.mean([characters(row, "chosen") > characters(row, "rejected") for row in rows])
        found["chosen_is_longer"] = float(longer)
    return found


def digest(
    train: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]], by_people: Sequence[Mapping[str, Any]] = ()
) -> str:
    lines = [
        f"{part} {json.dumps(written(row), sort_keys=True)}"
        for part, rows in (("train", train), ("eval", held), ("people", by_people))
        for row in rows
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def written(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the trainer reads it: no people in it."""
    kept = {k: row[k] for k in ("prompt", "chosen", "rejected", "completion", "label") if k in row}
    return kept | ({"strength": row["strength"]} if row.get("strength", 1) > 1 else {})

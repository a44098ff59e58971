"""What the answers say together: approval, agreement, who is better, what biases a vote, what is missing.

One set of figures for the dashboard, the statistics page and ``feedback/stats``. Totals count every
answer; agreement, ranking and bias rest on the newest ``NEWEST`` human ones, and say on how many.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
from django.core.cache import cache
from django.db.models import Count, F
from django.db.models.functions import Length

from campaigns.models import Task
from feedback.answers import Filters
from feedback.domain import agreement, bias, ranking
from feedback.domain.formats import edit_share
from feedback.models import Feedback, ReviewTask
from rmn.lib import stats
from rmn.lib.errors import BadInput

NEWEST = 20_000  # answers; by then the intervals are narrower than anybody's decision
BOOTSTRAP = 200
SITTING = timedelta(minutes=30)  # a longer pause begins a new sitting
HOPELESS = 0.51  # under this win rate the votes needed run to tens of thousands
KEEP_S = 30
LEVELS: dict[str, tuple[agreement.Level, ...]] = {
    "pair": ("nominal",),
    "thumb": ("nominal",),
    "rating": ("ordinal", "interval"),
}
OUTCOMES = tuple(Feedback.Outcome.values)
Row = dict[str, Any]


def figures(rows: Any, filters: Filters) -> Row:
    """All figures of these answers.

    Args:
        rows: Feedback narrowed to what somebody may see.
    """
    chosen = filters.apply(rows)
    standing = chosen.standing()
    totals = _totals(standing)
    told = _told(standing.human().first_showings())
    votes = [_as_vote(each) for each in told if each["kind"] == Feedback.Kind.PAIR]
    return {
        "filters": filters.row(),
        **totals,
        "agreement": {kind: found for kind in LEVELS if (found := _agreement(told, kind))},
        "adapters": contest_of_adapters(told),
        "first_side": bias.position(votes).row(),
        "longer_text": bias.length(votes).row(),
        "weeks": _weeks(told),
        "reasons": _reasons(told),
        "rewrites": _rewrites(standing.human()),
        "rests_on": len(told),
        "evidence": f"agreement and ranking from the newest {len(told):,} of people",
    }


def kept(key: str, make: Callable[[], Row]) -> Row:
    """The figures of this key, at most half a minute old: many people look at the same dashboard."""
    key = f"feedback-figures:{hashlib.sha256(key.encode()).hexdigest()}"
    found = cache.get(key)
    if found is None:
        found = make()
        cache.set(key, found, KEEP_S)
    return found  # type: ignore[no-any-return]


def _totals(standing: Any) -> Row:
    groups = list(standing.order_by().values("task", "kind", "origin", "value", "outcome").annotate(n=Count("pk")))
    human = [group for group in groups if group["origin"] == Feedback.Origin.HUMAN]

    def by(name: str, of: Iterable[Row] = groups) -> dict[str, int]:
        found: Counter[str] = Counter()
        for group in of:
            found[group[name]] += group["n"]
        return dict(found)

    tasks = []
    for task in Task.values:
        mine = [group for group in human if group["task"] == task]
        kinds = by("kind", mine)
        tasks.append({"task": task, "answers": sum(kinds.values()), "approval": _approval(mine), **_zeros(kinds)})
    stars = [(group["value"], group["n"]) for group in human if group["kind"] == Feedback.Kind.RATING]
    return {
        "total": sum(group["n"] for group in groups),
        "human": sum(group["n"] for group in human),
        "people": standing.human().order_by().values("by").distinct().count(),
        "by_kind": _zeros(by("kind")),
        "by_task": by("task"),
        "by_origin": by("origin"),
        "outcomes": {outcome: by("outcome", human).get(outcome, 0) for outcome in OUTCOMES},
        "approval": _approval(human),
        "rating": _mean(stars),
        "tasks": tasks,
    }


def _zeros(found: dict[str, int]) -> dict[str, int]:
    return {kind: found.get(kind, 0) for kind in Feedback.Kind.values}


def _approval(groups: Iterable[Row]) -> Row:
    """Share of thumbs that are up."""
    thumbs = [group for group in groups if group["kind"] == Feedback.Kind.THUMB]
    up = sum(group["n"] for group in thumbs if group["value"] == 1)
    return _share(up, sum(group["n"] for group in thumbs))


def _share(hits: float, n: int) -> Row:
    return {"share": hits / n if n else None, "interval": list(stats.wilson(hits, n)) if n else None, "n": n}


def _mean(stars: Sequence[tuple[int, int]]) -> Row:
    n = sum(count for _, count in stars)
    if not n:
        return {"mean": None, "interval": None, "n": 0}
    mean = sum(value * count for value, count in stars) / n
    spread = sum(count * (value - mean) ** 2 for value, count in stars) / max(n - 1, 1)
    half = 1.96 * (spread / n) ** 0.5
    return {"mean": mean, "interval": [max(mean - half, 1.0), min(mean + half, 5.0)] if n > 1 else None, "n": n}


# -- the newest human answers, one by one


def _told(rows: Any) -> list[Row]:
    """Newest first, a person's last word on each question alone."""
    newest = rows.order_by("-pk").values(
        "pk",
        "by",
        "kind",
        "task",
        "value",
        "outcome",
        "reasons",
        "shown_first",
        "seconds",
        "created_at",
        "recommendation",
        "other",
        "adapter_digest",
        "other_adapter_digest",
        a_model=F("recommendation__model"),
        b_model=F("other__model"),
        a_source=F("recommendation__source"),
        b_source=F("other__source"),
        a_length=Length("recommendation__text"),
        b_length=Length("other__text"),
    )[:NEWEST]
    seen: set[tuple[Any, ...]] = set()
    found = []
    for row in newest:
        key = (row["by"], *_question(row)) if row["by"] and row["recommendation"] else (row["pk"],)
        if key not in seen:
            seen.add(key)
            found.append(row)
    return found


def _reasons(told: Sequence[Row]) -> dict[str, int]:
    """The twelve reasons given most."""
    return dict(Counter(reason for row in told for reason in row["reasons"] or []).most_common(12))


def _weeks(told: Sequence[Row]) -> list[Row]:
    """Answers of the last twelve weeks by kind."""
    found: Counter[tuple[str, str]] = Counter()
    for row in told:
        day = row["created_at"].date()
        found[(day - timedelta(days=day.weekday())).isoformat(), row["kind"]] += 1
    weeks = sorted({week for week, _ in found})[-12:]
    return [
        {"week": week, "kind": kind, "answers": found[week, kind]}
        for week in weeks
        for kind in Feedback.Kind.values
        if found[week, kind]
    ]


def _question(row: Row) -> tuple[Any, ...]:
    """What was judged, whichever of two stood as A."""
    return (row["kind"], *sorted((row["recommendation"] or 0, row["other"] or 0)))


def _word(row: Row) -> str:
    """The answer; of a pair as if the draft of the lower key stood as A."""
    if row["kind"] != Feedback.Kind.PAIR:
        return str(row["value"])
    turned = row["other"] and row["other"] < row["recommendation"]
    return str({"a": "b", "b": "a"}.get(row["outcome"], row["outcome"])) if turned else str(row["outcome"])


def _agreement(told: Sequence[Row], kind: str) -> Row | None:
    """Coefficients of one kind of answer with intervals, and the ceiling; None where nobody judged the same twice."""
    said: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    people: dict[tuple[Any, ...], dict[Any, str]] = defaultdict(dict)
    for row in told:
        if row["kind"] == kind and row["recommendation"]:
            said[_question(row)][_word(row)] += 1
            if row["by"]:
                people[_question(row)][row["by"]] = _word(row)
    shared = {question: counts for question, counts in said.items() if counts.total() >= 2}
    if not shared:
        return None
    words = sorted({word for counts in shared.values() for word in counts}, key=_order)
    values: list[Any] = [float(word) for word in words] if kind != Feedback.Kind.PAIR else list(words)
    counts_UV = np.array([[counts[word] for word in words] for counts in shared.values()], dtype=float)
    coefficients: dict[str, Callable[[Any], float | None]] = {
        "percent_agreement": agreement.percent_agreement,
        "gwet_ac1": partial(agreement.gwet, weight_VV=np.eye(len(words))),
    }
    for level in LEVELS[kind]:
        coefficients[f"alpha_{level}"] = partial(agreement.krippendorff, values=values, level=level)
    if kind == Feedback.Kind.RATING:
        coefficients["gwet_ac2"] = partial(agreement.gwet, weight_VV=agreement.weights(len(words), "quadratic"))
    return {
        "questions": len(shared),
        "ratings": int(counts_UV.sum()),
        **{
            name: {"estimate": of(counts_UV), "interval": agreement.bootstrap(counts_UV, of, draws=BOOTSTRAP)}
            for name, of in coefficients.items()
        },
        "ceiling": agreement.ceiling(counts_UV),
        "cohen_kappa": _cohen(people, words),
    }


def _order(word: str) -> tuple[float, str]:
    try:
        return (float(word), word)
    except ValueError:
        return (0.0, word)


def _cohen(people: dict[tuple[Any, ...], dict[Any, str]], words: Sequence[str]) -> list[Row]:
    """Kappa of every two of the six busiest readers, most shared questions first; no names."""
    busiest = Counter(person for said in people.values() for person in said).most_common(6)
    place = {word: number for number, word in enumerate(words)}
    found = []
    for (one, _), (other, _) in itertools.combinations(busiest, 2):
        both = [(place[said[one]], place[said[other]]) for said in people.values() if one in said and other in said]
        if len(both) >= 2:
            codes = np.array(both, dtype=np.int64)
            found.append({"n": len(both), "kappa": agreement.cohen(codes[:, 0], codes[:, 1], len(words))})
    return sorted(found, key=lambda row: -row["n"])


def _author(row: Row, side: str) -> str:
    digest = row["adapter_digest"] if side == "a" else row["other_adapter_digest"]
    return str(digest[:12] or row[f"{side}_model"] or row[f"{side}_source"] or "")


def contest_of_adapters(told: Sequence[Row]) -> Row:
    """Adapters (or whoever wrote the drafts) by their pairs: strengths, win rates, votes still needed."""
    pairs = []
    for row in told:
        if row["kind"] == Feedback.Kind.PAIR and row["recommendation"] and row["other"]:
            a, b = _author(row, "a"), _author(row, "b")
            if a and b and a != b and row["outcome"] != Feedback.Outcome.BOTH_BAD:
                pairs.append((a, b, row["outcome"], _log_ratio(row["a_length"], row["b_length"])))
    if not pairs:
        return {"pairs": 0, "win_rates": [], "ranking": None, "length_controlled": None, "decision": None}
    return {
        "pairs": len(pairs),
        "win_rates": _win_rates(pairs),
        "ranking": _rank(pairs, controlled=False),
        "length_controlled": _rank(pairs, controlled=True),
        "decision": _decision(pairs),
    }


Pair = tuple[str, str, str, float]


def _log_ratio(a: int | None, b: int | None) -> float:
    return float(np.log(max(a or 1, 1) / max(b or 1, 1)))


def _rank(pairs: Sequence[Pair], *, controlled: bool) -> Row | None:
    groups: dict[tuple[str, str, float], Counter[str]] = defaultdict(Counter)
    for a, b, outcome, ratio in pairs:
        groups[a, b, round(ratio, 1) if controlled else 0.0][outcome] += 1
    contests = [
        ranking.Contest(a, b, said["a"], said["b"], said["tie"], difference)
        for (a, b, difference), said in groups.items()
    ]
    try:
        return ranking.fit(contests).row()
    except (BadInput, np.linalg.LinAlgError):
        return None


def _win_rates(pairs: Sequence[Pair]) -> list[Row]:
    """Share of its pairs that each won, ties half, best first."""
    won: Counter[str] = Counter()
    met: Counter[str] = Counter()
    for a, b, outcome, _ in pairs:
        points = {"a": 1.0, "tie": 0.5}.get(outcome, 0.0)
        met[a] += 1
        met[b] += 1
        won[a] += points  # type: ignore[assignment]  # halves
        won[b] += 1 - points  # type: ignore[assignment]
    rows = [{"adapter": name, **_share(won[name], met[name])} for name in met]
    return sorted(rows, key=lambda row: -row["share"])


def _decision(pairs: Sequence[Pair]) -> Row | None:
    """The two that met most: which leads, and about how many more decided votes tell them apart."""
    met = Counter(tuple(sorted((a, b))) for a, b, outcome, _ in pairs if outcome != "tie")
    if not met:
        return None
    (one, other), n = met.most_common(1)[0]
    wins = sum(
        (a == one) == (outcome == "a") for a, b, outcome, _ in pairs if outcome != "tie" and {a, b} == {one, other}
    )
    leader, rate = (one, wins / n) if wins * 2 >= n else (other, 1 - wins / n)
    low, high = stats.wilson(rate * n, n)
    needed = None
    if rate > HOPELESS:
        needed = max(stats.cases_for_win_rate(min(rate, 0.99)) - n, 0)
    if low > 0.5:
        needed = 0
    return {
        "adapters": [one, other],
        "leader": leader,
        "win_rate": rate,
        "interval": [low, high],
        "n": n,
        "more_votes": needed,
    }


# -- people


def _as_vote(row: Row, place: int = 0) -> bias.Vote:
    return bias.Vote(
        outcome=row["outcome"],
        shown_first=row["shown_first"],
        length_a=row["a_length"] or 0,
        length_b=row["b_length"] or 0,
        seconds=row["seconds"],
        place=place,
        pair=str(row.get("pair", "")),
        gold=row.get("expected") or "",
    )


def profile(rows: Any, person: Any) -> Row:
    """One person's own habits as a reader: for them and their lead alone."""
    mine = list(
        rows.filter(by=person, kind=Feedback.Kind.PAIR, undone_at=None)
        .order_by("-pk")
        .values(
            "outcome",
            "shown_first",
            "seconds",
            "created_at",
            "review_task",
            repeated=F("review_task__repeats"),
            expected=F("review_task__expected"),
            a_length=Length("recommendation__text"),
            b_length=Length("other__text"),
        )[:NEWEST]
    )[::-1]
    votes, place, last = [], 0, None
    for row in mine:
        place = 0 if last is None or row["created_at"] - last > SITTING else place + 1
        last = row["created_at"]
        pair = row["repeated"] or row["review_task"] or ""
        votes.append(_as_vote(row | {"pair": pair}, place))
    seconds = [row["seconds"] for row in mine if row["seconds"]]
    return {**bias.profile(votes), "median_seconds": float(np.median(seconds)) if seconds else None}


def _rewrites(rows: Any) -> list[Row]:
    """How much of a draft people change when they correct it, by task; of the newest thousand corrections."""
    shares: dict[str, list[float]] = defaultdict(list)
    newest = rows.filter(kind=Feedback.Kind.CORRECTION).order_by("-pk")
    for task, before, after in newest.values_list("task", "recommendation__text", "text")[:1000]:
        if before and len(before) + len(after) < 8000:
            shares[task].append(edit_share(before, after))
    return [
        {"task": task, "n": len(found), "median": float(np.median(found)), "mean": float(np.mean(found))}
        for task, found in sorted(shares.items())
    ]


def coverage(tasks: Any) -> Row:
    """How far the questions are answered.

    Args:
        tasks: ReviewTask narrowed to what somebody may see.
    """
    by = dict(tasks.order_by().values_list("status").annotate(Count("pk")))
    status = ReviewTask.Status
    waiting = by.get(status.OPEN, 0) + by.get(status.DISPUTED, 0)
    done = by.get(status.DONE, 0)
    return {
        "questions": waiting + done,
        "done": done,
        "waiting": waiting,
        "disputed": by.get(status.DISPUTED, 0),
        "evidence": f"{waiting:,} waiting, {by.get(status.DISPUTED, 0):,} disputed",
        **_share(done, waiting + done),
    }

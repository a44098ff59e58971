"""What the answers say together: approval, agreement, who is better, what biases a vote, what is missing.

One set of figures for the dashboard, the statistics page and ``feedback/stats``. Totals count every
answer: of a brand with many they are counted in the background, and a page adds what came since.
Agreement, ranking and bias rest on the newest ``NEWEST`` human ones, and say on how many.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
from django.core.cache import cache
from django.db import transaction
from django.db.models import Count, F, Max, Q, Sum
from django.db.models.functions import Length, TruncDate
from django.utils import timezone

from campaigns.models import Recommendation, Task
from feedback.answers import Filters
from feedback.domain import agreement, bias, ranking
from feedback.models import AnswerCount, CountedAnswers, Feedback, ReviewTask
from retailers.models import Brand
from rmn.lib import stats
from rmn.lib.errors import BadInput

NEWEST = 3_000  # answers; by then the intervals are narrower than anybody's decision
MANY = 2_000  # answers of a brand that are not counted yet; more are counted in the background
SETTLED = timedelta(minutes=2)  # by then the transaction that an answer came in has ended
# Brand, task and kind stand last: groups that begin with them lure SQLite's planner from the newest rows to all.
SORT = ("origin", "value", "outcome", "task", "kind", "brand")
BOOTSTRAP = 100
ADAPTERS = ("adapter_digest", "other_adapter_digest")
ONE_BY_ONE = 50  # brands
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


def figures(user: Any, brand: Brand | None, filters: Filters) -> Row:
    """All figures of the answers somebody may see, of one brand or of all of theirs."""
    rows, counts = Feedback.objects.visible_to(user), AnswerCount.objects.visible_to(user)
    keys = [brand.pk] if brand is not None else list(Brand.objects.for_user(user).values_list("pk", flat=True))
    if brand is None and filters.adapter:  # of few brands, and of those the newest answers are found by an index
        wrote = Recommendation.objects.filter(brand__in=keys, adapter_digest__startswith=filters.adapter)
        keys = list(wrote.order_by().values_list("brand", flat=True).distinct())
    told_of = rows.filter(brand__in=keys) if brand is not None or filters.adapter else rows
    said = filters.apply(told_of).standing().human()
    told = _told(said.first_showings())
    groups = _counted(rows, counts, keys, filters)
    votes = [_as_vote(each) for each in told if each["kind"] == Feedback.Kind.PAIR]
    return {
        "filters": filters.row(),
        **_totals(groups),
        "people": len({each["by"] for each in told if each["by"]}),
        "agreement": {kind: found for kind in LEVELS if (found := _agreement(told, kind))},
        "adapters": contest_of_adapters(told),
        "first_side": bias.position(votes).row(),
        "longer_text": bias.length(votes).row(),
        "reasons": _reasons(told),
        "rewrites": _rewrites(said, groups),
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


# -- counting


def _counted(rows: Any, counts: Any, brands: Sequence[int], filters: Filters) -> list[Row]:
    """How many standing answers of each sort and day: what was counted, and what came or went since."""
    found: Counter[tuple[Any, ...]] = Counter()

    def add(source: Any, sign: int = 1) -> None:
        for row in _by_day(source, (*SORT, *ADAPTERS) if filters.adapter else SORT):
            if not filters.adapter or any(row[name].startswith(filters.adapter) for name in ADAPTERS):
                found[tuple(row[name] for name in (*SORT, "day"))] += sign * row["n"]

    marks = list(CountedAnswers.objects.filter(brand__in=brands)) if filters.whole_days else []
    # few rows are read beside the counts: by their brand and key, not by an adapter that wrote a fifth of all
    chosen = replace(filters, adapter="").apply(rows)
    left = chosen.filter(undone_at=None)
    for mark in marks:
        told = filters.apply(counts.filter(brand=mark.brand_id))
        answers, before = chosen.filter(brand=mark.brand_id), left.filter(brand=mark.brand_id, pk__lte=mark.up_to)
        add(answers.filter(pk__gt=mark.up_to).standing())
        if mark.withdrawn == _withdrawn(mark.brand_id):
            add(told)
            add(answers.filter(pk__lte=mark.up_to, undone_at__gt=mark.at).on_offer(), -1)
        else:  # drafts were withdrawn, or came back, since they were counted
            add(told.filter(on_withdrawn=False))
            add(answers.filter(pk__lte=mark.up_to, undone_at__gt=mark.at), -1)
            for off in _off_offer(before):
                add(off, -1)
    few = sorted(set(brands) - {mark.brand_id for mark in marks})
    # one by one the index is taken, whatever the planner thinks of the size of a brand
    parts = [Q(brand=key) for key in few] if len(few) <= ONE_BY_ONE else [Q(brand__in=few)]
    for part in parts:
        add(chosen.filter(part).standing())
    return [dict(zip((*SORT, "day"), key, strict=True)) | {"n": n} for key, n in found.items() if n]


def _by_day(source: Any, names: Sequence[str]) -> Any:
    """Answers, or counts of them, by these columns and the day that they came on."""
    if source.model is AnswerCount:
        return source.order_by().values(*names, "day").annotate(n=Sum("n"))
    return source.order_by().annotate(day=TruncDate("created_at")).values(*names, "day").annotate(n=Count("pk"))


def _off_offer(rows: Any) -> tuple[Any, Any]:
    """The answers on withdrawn drafts, in two parts that share none."""
    withdrawn = Recommendation.Status.WITHDRAWN
    as_a = rows.filter(recommendation__status=withdrawn)
    return as_a, rows.filter(other__status=withdrawn).exclude(recommendation__status=withdrawn)


def _withdrawn(brand: int) -> str:
    """Which drafts of a brand are withdrawn, in so few words that another set has other ones."""
    rows = Recommendation.objects.filter(brand=brand, status=Recommendation.Status.WITHDRAWN)
    told = rows.aggregate(n=Count("pk"), sum=Sum("pk"), last=Max("pk"))
    return f"{told['n']}/{told['sum'] or 0}/{told['last'] or 0}"


def refresh() -> int:
    """Count what came since of every brand with many answers; returns of how many brands."""
    marks = {mark.brand_id: mark for mark in CountedAnswers.objects.all()}
    done = 0
    for brand in Brand.objects.order_by("pk"):
        mark = marks.get(brand.pk)
        fresh = Feedback.objects.filter(brand=brand, pk__gt=mark.up_to if mark else 0)
        moved = mark is not None and mark.withdrawn != _withdrawn(brand.pk)
        if moved or fresh.order_by()[: MANY + 1].count() > MANY:
            count_up(brand)
            done += 1
    return done


@transaction.atomic
def count_up(brand: Brand) -> None:
    """Count the answers that came since the last time, and take off those that were taken back since."""
    CountedAnswers.objects.get_or_create(brand=brand)
    mark = CountedAnswers.objects.select_for_update().get(brand=brand)
    until = timezone.now() - SETTLED
    rows = Feedback.objects.filter(brand=brand)
    last = rows.filter(pk__gt=mark.up_to, created_at__lte=until).aggregate(last=Max("pk"))["last"] or mark.up_to
    stood = Q(undone_at=None) | Q(undone_at__gt=until)
    came = rows.filter(stood, pk__gt=mark.up_to, pk__lte=last)
    went = rows.filter(pk__lte=mark.up_to, undone_at__gt=mark.at, undone_at__lte=until)
    mark.withdrawn = _withdrawn(brand.pk)  # before they are counted: what is withdrawn meanwhile is seen later
    counts = AnswerCount.objects.filter(brand=brand)
    counts.filter(on_withdrawn=True).delete()
    parts = [(came, 1, False), (went, -1, False)]
    parts += [(off, -1, True) for off in _off_offer(rows.filter(stood, pk__lte=last))]
    names = (*SORT[:-1], "retailer_id", *ADAPTERS)
    for source, sign, on_withdrawn in parts:
        AnswerCount.objects.bulk_create(
            (
                AnswerCount(brand=brand, on_withdrawn=on_withdrawn, **row | {"n": sign * row["n"]})
                for row in _by_day(source, names)
            ),
            batch_size=1000,
        )
    mark.up_to, mark.at = last, until
    mark.save()


def _totals(groups: Sequence[Row]) -> Row:
    human = [group for group in groups if group["origin"] == Feedback.Origin.HUMAN]

    def by(name: str, of: Iterable[Row] = groups) -> dict[str, int]:
        found: Counter[str] = Counter()
        for group in of:
            found[group[name]] += group["n"]
        return {key: n for key, n in found.items() if n}

    tasks = []
    for task in Task.values:
        mine = [group for group in human if group["task"] == task]
        kinds = by("kind", mine)
        tasks.append({"task": task, "answers": sum(kinds.values()), "approval": _approval(mine), **_zeros(kinds)})
    stars = [(group["value"], group["n"]) for group in human if group["kind"] == Feedback.Kind.RATING]
    return {
        "total": sum(group["n"] for group in groups),
        "human": sum(group["n"] for group in human),
        "by_kind": _zeros(by("kind")),
        "by_task": by("task"),
        "by_origin": by("origin"),
        "outcomes": {outcome: by("outcome", human).get(outcome, 0) for outcome in OUTCOMES},
        "approval": _approval(human),
        "rating": _mean(stars),
        "tasks": tasks,
        "weeks": _weeks(human),
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


def _weeks(groups: Sequence[Row]) -> list[Row]:
    """Answers of people in the last twelve weeks that had any, by kind."""
    found: Counter[tuple[Any, str]] = Counter()
    for group in groups:
        found[group["day"] - timedelta(days=group["day"].weekday()), group["kind"]] += group["n"]
    weeks = sorted({week for week, _ in found})[-12:]
    return [
        {"week": week.isoformat(), "kind": kind, "answers": found[week, kind]}
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
            question, word = _question(row), _word(row)
            said[question][word] += 1
            if row["by"]:
                people[question][row["by"]] = word
    shared = {question: counts for question, counts in said.items() if counts.total() >= 2}
    if not shared:
        return None
    words = sorted({word for counts in shared.values() for word in counts}, key=_order)
    values: list[Any] = [float(word) for word in words] if kind != Feedback.Kind.PAIR else list(words)
    place = {word: number for number, word in enumerate(words)}
    counts_UV = np.zeros((len(shared), len(words)))
    for unit, counts in enumerate(shared.values()):
        for word, n in counts.items():
            counts_UV[unit, place[word]] = n
    coefficients: dict[str, Callable[..., float | None]] = {
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


def flat(found: Row) -> list[Row]:
    """The figures one by one, as a spreadsheet has them."""
    rows: list[Row] = []

    def add(section: str, what: str, estimate: Any, interval: Any = None, n: Any = None) -> None:
        low, high = interval or (None, None)
        rows.append({"section": section, "what": what, "estimate": estimate, "low": low, "high": high, "n": n})

    add("totals", "answers", found["total"])
    add("totals", "people", found["people"])
    for name in ("by_kind", "by_task", "by_origin", "outcomes", "reasons"):
        for what, n in found[name].items():
            add(name, what, n)
    add("approval", "thumbs up", found["approval"]["share"], found["approval"]["interval"], found["approval"]["n"])
    add("approval", "mean stars", found["rating"]["mean"], found["rating"]["interval"], found["rating"]["n"])
    for row in found["tasks"]:
        add("approval by task", row["task"], *(row["approval"][name] for name in ("share", "interval", "n")))
    for kind, row in found["agreement"].items():
        for what, value in row.items():
            if isinstance(value, dict):
                add(f"agreement on {kind}", what, value["estimate"], value["interval"], row["questions"])
        for place, pair in enumerate(row["cohen_kappa"], 1):
            add(f"agreement on {kind}", f"cohen_kappa of two readers, {place}", pair["kappa"], None, pair["n"])
        add(f"agreement on {kind}", "ceiling", row["ceiling"], None, row["questions"])
    for row in found["adapters"]["win_rates"]:
        add("pairs won", row["adapter"], row["share"], row["interval"], row["n"])
    for name in ("ranking", "length_controlled"):
        for what, row in ((found["adapters"][name] or {}).get("abilities") or {}).items():
            add(name.replace("_", " "), what, row["beside_mean"], row["beside_mean_interval"])
    if found["adapters"]["decision"]:
        add("decision", "votes still needed", found["adapters"]["decision"]["more_votes"])
    for name in ("first_side", "longer_text"):
        add("bias", name.replace("_", " "), *(found[name][part] for part in ("share", "interval", "n")))
    for row in found["rewrites"]:
        add("share of a draft rewritten", row["task"], row["median"], None, row["n"])
    for row in found["weeks"]:
        add("answers by week", f"{row['week']} {row['kind']}", row["answers"])
    return rows


# -- people


def _as_vote(row: Row, place: int = 0, pair: Any = "") -> bias.Vote:
    return bias.Vote(
        outcome=row["outcome"],
        shown_first=row["shown_first"],
        length_a=row["a_length"] or 0,
        length_b=row["b_length"] or 0,
        seconds=row["seconds"],
        place=place,
        pair=str(pair or ""),
        gold=row.get("expected") or "",
    )


def profile(rows: Any, person: Any) -> Row:
    """One person's own habits as a reader: for them and their lead alone."""
    return _habits(_pairs_read(rows.filter(by=person)))


def profiles(rows: Any) -> list[Row]:
    """Habits of those who read most of the newest pairs, busiest first: for their lead."""
    read: dict[str, list[Row]] = defaultdict(list)
    for row in _pairs_read(rows.human().exclude(by=None)):
        read[row["name"]].append(row)
    busiest = sorted(read, key=lambda name: -len(read[name]))[:20]
    return [{"name": name, **_habits(read[name])} for name in busiest]


def _pairs_read(rows: Any) -> list[Row]:
    """The newest judged pairs, oldest first, with swapped repeats and gold pairs among them."""
    newest = rows.pairs().filter(undone_at=None).order_by("-pk")
    columns = newest.values(
        "outcome",
        "shown_first",
        "seconds",
        "created_at",
        "review_task",
        name=F("by__username"),
        repeated=F("review_task__repeats"),
        expected=F("review_task__expected"),
        a_length=Length("recommendation__text"),
        b_length=Length("other__text"),
    )
    return list(columns[:NEWEST])[::-1]


def _habits(read: Sequence[Row]) -> Row:
    votes, place, last = [], 0, None
    for row in read:
        place = 0 if last is None or row["created_at"] - last > SITTING else place + 1
        last = row["created_at"]
        votes.append(_as_vote(row, place, row["repeated"] or row["review_task"]))
    seconds = [row["seconds"] for row in read if row["seconds"]]
    return {**bias.profile(votes), "median_seconds": float(np.median(seconds)) if seconds else None}


def _rewrites(rows: Any, groups: Sequence[Row]) -> list[Row]:
    """How much of a draft people change when they correct it, by task; of the newest corrections of each brand."""
    places = {(group["task"], group["brand"]) for group in groups if group["kind"] == Feedback.Kind.CORRECTION}
    found: dict[str, list[float]] = {}
    for task, brand in sorted(places)[:ONE_BY_ONE]:  # one at a time: the index goes by brand, task, kind and date
        newest = rows.filter(brand=brand, task=task, kind=Feedback.Kind.CORRECTION).order_by("-created_at")
        shares = newest.values_list("rewritten", flat=True)[:250]
        found.setdefault(task, []).extend(share for share in shares if share is not None)
    return [
        {"task": task, "n": len(shares), "median": float(np.median(shares)), "mean": float(np.mean(shares))}
        for task, shares in found.items()
        if shares
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

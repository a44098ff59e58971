"""What people and programs may ask of feedback: to answer, to take back, to hold a question, to export."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db import transaction
from django.db.models import Case, F, FloatField, Q, Value, When
from django.utils import timezone

from campaigns.models import Recommendation, Task
from feedback.answers import Filters, Redaction
from feedback.domain import formats, ranking
from feedback.models import Export, Feedback, ReviewTask
from retailers.models import Brand, Membership, memberships
from rmn.lib.errors import BadInput, RmnError

RESERVED_FOR = timedelta(minutes=10)
REPEAT_FOR = timedelta(days=30)  # a swapped repeat waits so long for its own reader
REPEAT_SHARE = 0.07  # of answered pairs come back later with their sides swapped
REPEAT_EVERY = 8  # answers, then one of the waiting repeats is due
MOST_READERS = 3
NEWEST = 500  # answers that tell how sure a contest is; older ones judged older adapters
MOST_CONTESTS = 40
KEEP_S = 20  # seconds that the order by uncertainty rests on the same answers
MOST_TRIES = 20
MOST_CHARACTERS = 20_000
MOST_QUESTIONS = 20
GUIDE = {  # how to judge, in the reader's words; it stands beside every question
    "creative": "Better is what you would sooner see under the brand's name: true, clear, in its voice, and within the "
    "retailer's rules. Longer is not better. Two that you would publish alike are equally good; two that you would not "
    "publish are both bad.",
    "budgeting": "Better is the plan you would sooner sign: it keeps promises and stock in mind, and its reasons "
    "convince you. Judge the split, not how much is spent in all.",
    "measurement": "Better is the test whose answer you would sooner act on: the right stores, short enough, and able to "
    "find an effect of the size you hope for.",
    "planning": "Better is the plan you would sooner follow: nothing missing, nothing out of order, nothing you cannot do now.",
}
# Control characters but tab and line feed, and marks that turn the reading direction around.
UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class AlreadyAnswered(RmnError):
    """This person has answered this question; what they said stands."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.answer = answer


def clean(text: str) -> str:
    """Typed text without control characters and without marks that reverse what is read."""
    return UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def checked(text: str, brand: Brand, name: str = "text") -> str:
    """Typed text as it is kept: clean, of a bearable length, personal data masked under the brand's key.

    Raises:
        BadInput: it is longer than any draft.
    """
    if len(text) > MOST_CHARACTERS:
        raise BadInput(f"{name}: {len(text):,} characters; at most {MOST_CHARACTERS:,} are taken, so shorten it")
    return Redaction().mask(clean(text), brand)


def brand_of(user: Any, asked: Brand | None) -> Brand:
    """The brand meant: the one named, else the person's only one.

    Raises:
        BadInput: several, and none named.
    """
    if asked is not None:
        return asked
    mine = list(Brand.objects.for_user(user)[:2])
    if len(mine) == 1:
        return mine[0]
    if not mine:
        raise BadInput("brand: you act for none; ask ops staff to add you to one")
    raise BadInput("brand: you act for several, so name one")


# -- answers


def give(
    *,
    by: Any,
    recommendation: Recommendation,
    kind: str,
    value: int | None = None,
    outcome: str = "",
    other: Recommendation | None = None,
    strength: int = 1,
    text: str = "",
    reasons: Sequence[str] = (),
    note: str = "",
    seconds: float | None = None,
    shown_first: str = "",
    question: ReviewTask | None = None,
) -> Feedback:
    """Keep one answer with all it should know about what was judged.

    Raises:
        BadInput: the answer does not fit its kind, or the draft was withdrawn.
    """
    _fits(kind, recommendation, other, value, outcome, text)
    rewritten = formats.edit_share(recommendation.text, clean(text)) if kind == Feedback.Kind.CORRECTION else None
    place = question or recommendation
    return Feedback.objects.create(
        brand=place.brand,
        retailer=place.retailer,
        task=place.task,
        kind=kind,
        recommendation=recommendation,
        other=other,
        value=value,
        outcome=outcome,
        strength=strength,
        text=checked(text, place.brand),
        rewritten=rewritten,
        reasons=[clean(str(reason))[:40] for reason in reasons][:20],
        note=checked(note, place.brand, "note"),
        prompt=recommendation.prompt,
        prompt_version=recommendation.prompt_version,
        prompt_cluster=recommendation.prompt_cluster,
        sampling=recommendation.sampling,
        adapter_digest=recommendation.adapter_digest,
        other_adapter_digest=other.adapter_digest if other else "",
        seconds=seconds,
        shown_first=shown_first,
        review_task=question,
        is_gold=bool(question and question.is_gold),
        by=by,
    )


def _fits(
    kind: str,
    recommendation: Recommendation,
    other: Recommendation | None,
    value: int | None,
    outcome: str,
    text: str,
) -> None:
    for one in (recommendation, other):
        if one is not None and one.status == Recommendation.Status.WITHDRAWN:
            raise BadInput(f"recommendation {one.uuid}: it was withdrawn, so no more feedback is taken")
    if kind == Feedback.Kind.THUMB and value not in (-1, 1):
        raise BadInput(f"value {value!r}: a thumb is 1 (up) or -1 (down)")
    if kind == Feedback.Kind.RATING and (value is None or not 1 <= value <= 5):
        raise BadInput(f"value {value!r}: a rating is 1 to 5 stars")
    if kind == Feedback.Kind.CORRECTION:
        if not clean(text):
            raise BadInput("text: a correction needs the corrected text")
        if clean(text) == clean(recommendation.text):
            raise BadInput("text: nothing was changed; if the draft is right as it stands, give a thumb up")
    if kind == Feedback.Kind.PAIR:
        if other is None:
            raise BadInput("other: a pair needs a second recommendation")
        if other.pk == recommendation.pk:
            raise BadInput("a and b: a recommendation cannot be compared with itself")
        if (other.brand_id, other.task) != (recommendation.brand_id, recommendation.task):
            raise BadInput("a and b: both must be of the same brand and the same task")
        if outcome not in Feedback.Outcome.values:
            raise BadInput(f"outcome {outcome!r}: one of {', '.join(Feedback.Outcome.values)}")


@transaction.atomic
def give_raw_pair(
    *,
    by: Any,
    brand: Brand,
    prompt: str,
    chosen: str,
    rejected: str,
    task: str = Task.CREATIVE,
    strength: int = 1,
    note: str = "",
) -> Feedback:
    """Keep a preference between two texts that are no recommendations of ours.

    Raises:
        BadInput: a text is missing, too long, or both are the same.
    """
    prompt, chosen = checked(prompt, brand, "prompt"), checked(chosen, brand, "chosen")
    rejected = checked(rejected, brand, "rejected")
    for name, text in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not text:
            raise BadInput(f"{name}: empty; a preference needs the prompt and both texts")
    if chosen == rejected:
        raise BadInput("chosen and rejected: the same text; a preference needs two different ones")
    return Feedback.objects.create(
        brand=brand,
        task=task,
        kind=Feedback.Kind.PAIR,
        outcome=Feedback.Outcome.A,
        strength=strength,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        note=checked(note, brand, "note"),
        by=by,
    )


@transaction.atomic
def answer(question: ReviewTask, *, by: Any, kind: str = "", shown_at: datetime | None = None, **told: Any) -> Feedback:
    """Answer a question of the queue, free it, and decide whether it needs another reader.

    One draft may be answered in another way than asked: a better wording where stars were wanted.

    A stale reservation loses no work: an answer given in earnest counts, even when somebody else has
    taken the question over meanwhile.

    Raises:
        AlreadyAnswered: by this person, in another tab or by a second click; what they said stands.
        BadInput: the answer does not fit, or the draft was withdrawn.
    """
    held = ("status", "reserved_by", "reserved_until")
    question.refresh_from_db(fields=held, from_queryset=ReviewTask.objects.select_for_update())
    said = _standing(question)
    for stands in said:
        if stands.by_id == by.pk:
            raise AlreadyAnswered(str(stands.uuid))
    if question.status == ReviewTask.Status.WITHDRAWN:
        raise BadInput("This question was withdrawn meanwhile; your answer was not kept. Take the next one.")
    now = timezone.now()
    seconds = (now - shown_at).total_seconds() if shown_at else None
    row = give(
        by=by,
        recommendation=question.recommendation,
        other=question.other,
        kind=question.kind if question.other_id else kind or question.kind,
        question=question,
        seconds=seconds,
        **told,
    )
    if question.reserved_by_id == by.pk:
        question.reserved_by = question.reserved_until = None
    _settle(question, [*said, row])
    if question.kind == Feedback.Kind.PAIR and not question.is_gold and question.repeats_id is None:
        _repeat_later(question, by)
    return row


def _standing(question: ReviewTask) -> list[Feedback]:
    """What people said to a question and did not take back."""
    rows = question.answers.filter(undone_at=None, origin=Feedback.Origin.HUMAN)
    return list(rows.only("uuid", "kind", "value", "outcome", "by"))


def _settle(question: ReviewTask, said: Sequence[Feedback]) -> None:
    """Open, disputed or done, by the answers that stand."""
    alike = [row for row in said if row.kind == question.kind]
    status = ReviewTask.Status
    question.status = status.OPEN
    if question.repeats_id or len(said) >= max(question.votes_wanted, 1):
        split = not question.repeats_id and differ(question.kind, alike)
        question.status = status.DISPUTED if split and len(said) < MOST_READERS else status.DONE
    question.save(update_fields=["status", "reserved_by", "reserved_until"])


def differ(kind: str, said: Sequence[Feedback]) -> bool:
    """Whether people disagree enough to ask one more: other outcomes, or stars two apart; texts never."""
    if len(said) < 2 or kind == Feedback.Kind.CORRECTION:
        return False
    if kind == Feedback.Kind.RATING:
        stars = [row.value or 0 for row in said]
        return max(stars) - min(stars) >= 2
    words = [row.outcome or str(row.value) for row in said]
    return 2 * max(words.count(word) for word in words) <= len(words)


def _repeat_later(question: ReviewTask, by: Any) -> None:
    """Now and then the same reader sees a pair again, sides swapped: it measures them, not the drafts."""
    if random.random() >= REPEAT_SHARE:
        return
    ReviewTask.objects.create(
        brand=question.brand,
        retailer=question.retailer,
        task=question.task,
        kind=question.kind,
        recommendation=question.recommendation,
        other=question.other,
        priority=question.priority,
        repeats=question,
        reserved_by=by,
        reserved_until=timezone.now() + REPEAT_FOR,
    )


@transaction.atomic
def undo(row: Feedback, by: Any) -> Feedback:
    """Undo one's own answer: it no longer counts, and its question waits for this person again."""
    if row.by_id != by.pk:
        raise BadInput("Only the person who gave an answer can take it back.")
    if row.undone_at is not None:
        return row
    row.undone_at = timezone.now()
    row.save(update_fields=["undone_at"])
    if row.review_task_id:
        question = ReviewTask.objects.select_for_update().get(pk=row.review_task_id)
        waiting = ReviewTask.objects.filter(repeats=question, reserved_by=by, status=ReviewTask.Status.OPEN)
        waiting.filter(answers=None).delete()
        if question.status != ReviewTask.Status.WITHDRAWN:
            if question.reserved_by_id in (None, by.pk) or (question.reserved_until or row.undone_at) <= row.undone_at:
                question.reserved_by, question.reserved_until = by, row.undone_at + RESERVED_FOR
            _settle(question, _standing(question))
    return row


# -- the queue


def waiting_for(user: Any, *, brand: Brand | None = None, task: str = "", kind: str = "", view: str = "mine") -> Any:
    """Questions this person could answer now, most needed first.

    Priority comes first (what the gate still needs), then disputes, then what is least known; swapped
    repeats come last, between the others only when due.
    """
    rows = ReviewTask.objects.visible_to(user).free(timezone.now(), user)
    for name, asked in (("brand", brand), ("task", task), ("kind", kind)):
        if asked:
            rows = rows.filter(**{name: asked})
    if view == "disputed":
        rows = rows.disputed()
    if brand is not None and task:
        rows = rows.annotate(unsure=_unsure(brand, task))
    else:
        rows = rows.annotate(unsure=Value(1.0))
    return rows.order_by("-priority", F("repeats").asc(nulls_first=True), "status", "-unsure", "pk")


def _unsure(brand: Brand, task: str) -> Any:
    """How little is known of a question's adapters: 1 of a contest or adapter nobody judged yet."""
    key = f"feedback-unsure:{brand.pk}:{task}"
    told = cache.get(key)
    if told is None:
        told = _told(brand, task)
        cache.set(key, told, KEEP_S)
    whens = [
        When(
            Q(recommendation__adapter_digest=one)
            & (Q(other=None) if other is None else Q(other__adapter_digest=other)),
            then=Value(how_unsure),
        )
        for one, other, how_unsure in told
    ]
    return Case(*whens, default=Value(1.0), output_field=FloatField()) if whens else Value(1.0)


def _told(brand: Brand, task: str) -> list[tuple[str, str | None, float]]:
    """What the newest answers tell of each contest and adapter, those most judged first."""
    a, b, up = Feedback.Outcome.A, Feedback.Outcome.B, {Feedback.Kind.THUMB: 1, Feedback.Kind.RATING: 4}
    counts: dict[tuple[str, str | None], list[int]] = {}
    newest = Feedback.objects.filter(brand=brand, task=task, undone_at=None).exclude(adapter_digest="")
    columns = ("kind", "outcome", "value", "adapter_digest", "other_adapter_digest")
    for kind, outcome, value, one, other in newest.order_by("-pk").values_list(*columns)[:NEWEST]:
        if kind == Feedback.Kind.PAIR and outcome in (a, b):
            # both ways round: which of two stands as A is chance
            for key, won in (((one, other), outcome == a), ((other, one), outcome == b)):
                counts.setdefault(key, [0, 0])[not won] += 1
        elif kind in up:
            counts.setdefault((one, None), [0, 0])[value < up[kind]] += 1
    most = sorted(counts.items(), key=lambda pair: -sum(pair[1]))[:MOST_CONTESTS]
    return [(one, other, ranking.uncertainty(*wins)) for (one, other), wins in most]


def judged_today(by: Any, brand: Brand, task: str) -> int:
    """How many of this person's answers of today stand."""
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return Feedback.objects.filter(by=by, created_at__gte=today, brand=brand, task=task, undone_at=None).count()


def next_task(
    *,
    by: Any,
    brand: Brand,
    task: str,
    kind: str = "",
    view: str = "mine",
    skipped: Sequence[str] = (),
    judged: int = 0,
) -> ReviewTask | None:
    """Reserve the question this person should answer next, and return it; None when nothing waits.

    What they hold already comes first, so a reload shows the same one. After every few answers of the
    ``judged`` today a swapped repeat is due; else they come when nothing new waits. Skipped ones wait for the end.
    """
    held, due, fresh, repeated, last = map(Value, range(5))
    is_due = judged > 0 and judged % REPEAT_EVERY == 0
    places = [
        When(repeats__isnull=False, then=due if is_due else repeated),
        When(reserved_by=by, reserved_until__gt=timezone.now(), then=held),
    ]
    if skipped:
        places.insert(0, When(uuid__in=skipped, then=last))
    rows = waiting_for(by, brand=brand, task=task, kind=kind, view=view)
    rows = rows.annotate(place=Case(*places, default=fresh)).order_by("place", *rows.query.order_by)
    for _ in range(MOST_TRIES):  # between the look and the hold somebody else may take it
        key = rows.values_list("pk", flat=True).first()
        if key is None:
            return None
        question = ReviewTask.objects.whole().get(pk=key)
        if reserve(question, by=by):
            return question
    return None


def reserve(question: ReviewTask, *, by: Any) -> datetime | None:
    """Hold a question for ten minutes, or hold it longer; until when, or None where somebody else has it."""
    now = timezone.now()
    free = Q(reserved_by=None) | Q(reserved_by=by) | Q(reserved_until__lt=now)
    until = now + (REPEAT_FOR if question.repeats_id else RESERVED_FOR)
    mine = ReviewTask.objects.filter(free, pk=question.pk, status__in=ReviewTask.WAITING)
    if not mine.update(reserved_by=by, reserved_until=until):
        return None
    question.reserved_by, question.reserved_until = by, until
    return until


def release(question: ReviewTask, *, by: Any, held_until: datetime | None = None) -> None:
    """Let go of a question, so that the next person can have it; a repeat stays its reader's.

    A page that is left says until when it held the question: held longer, it stands in another tab.
    """
    mine = ReviewTask.objects.filter(pk=question.pk, reserved_by=by, repeats=None)
    if held_until is not None:
        mine = mine.filter(reserved_until__lte=held_until)
    mine.update(reserved_by=None, reserved_until=None)


def swapped_side(question: ReviewTask, by: Any) -> str:
    """The side that stands first: by chance, and in a repeat the other one than last time."""
    if question.repeats_id:
        before = Feedback.objects.filter(review_task=question.repeats_id, by=by, undone_at=None).first()
        if before is not None and before.shown_first:
            return "b" if before.shown_first == "a" else "a"
    return random.choice("ab")


@transaction.atomic
def ask(
    *,
    recommendation: Recommendation,
    kind: str,
    other: Recommendation | None = None,
    votes_wanted: int = 1,
    priority: float = 0.0,
    expected: str = "",
) -> ReviewTask:
    """Put a question to people; ``expected`` makes it a gold pair that measures its readers.

    Raises:
        BadInput: a pair without its other half, or of two brands or tasks.
    """
    probe = {"thumb": 1, "rating": 3}.get(kind)
    _fits(kind, recommendation, other, probe, "tie", "anything at all but the draft")
    return ReviewTask.objects.create(
        brand=recommendation.brand,
        retailer=recommendation.retailer,
        task=recommendation.task,
        kind=kind,
        recommendation=recommendation,
        other=other,
        votes_wanted=votes_wanted,
        priority=priority,
        expected=expected,
        is_gold=bool(expected),
    )


def prioritize(needs: Mapping[int, tuple[float, int | None]]) -> int:
    """Write what the gate still needs: by the question's key its priority and the votes until a decision."""
    changed = 0
    for key, (priority, votes) in needs.items():
        changed += ReviewTask.objects.filter(pk=key).update(priority=priority, votes_for_decision=votes)
    return changed


@transaction.atomic
def fill_queue(
    *, by: Any, brand: Brand, task: str, kind: str, count: int = MOST_QUESTIONS, untouched: bool = False
) -> int:
    """Make questions of drafts on offer that nobody was asked about in this way; returns how many.

    Pairs are two different texts that answer the same brief, by preference from two adapters.
    ``untouched`` leaves out drafts that were asked about in any way.
    """
    drafts = Recommendation.objects.visible_to(by).filter(brand=brand, task=task, status=Recommendation.Status.OFFERED)
    asked = ReviewTask.objects.filter(brand=brand, task=task)
    if untouched:
        drafts = drafts.exclude(pk__in=asked.values("recommendation"))
        drafts = drafts.exclude(pk__in=asked.exclude(other=None).values("other"))
    asked = asked.filter(kind=kind)
    readers = Membership.objects.filter(brand=brand, user__is_active=True).values("user").distinct().count()
    wanted = 2 if readers > 1 and kind != Feedback.Kind.CORRECTION else 1
    if kind == Feedback.Kind.PAIR:
        known = set(asked.values_list("recommendation", "other"))
        found: list[tuple[Recommendation, Recommendation | None]] = [*_pairs(drafts, known)[:count]]
    else:
        fresh = drafts.exclude(pk__in=asked.values("recommendation"))
        if kind == Feedback.Kind.CORRECTION:
            fresh = fresh.exclude(text="").filter(plan=None, experiment=None)
        found = [(draft, None) for draft in fresh.order_by("-pk")[:count]]
    for one, other in found:
        ask(recommendation=one, other=other, kind=kind, votes_wanted=wanted)
    return len(found)


def _pairs(drafts: Any, known: set[tuple[int, int]]) -> list[tuple[Recommendation, Recommendation]]:
    by_brief: dict[str, list[Recommendation]] = {}
    for draft in drafts.order_by("-pk")[:2000]:
        by_brief.setdefault(draft.prompt_cluster or draft.prompt or draft.title, []).append(draft)
    used: set[int] = set()
    found = []
    for same in by_brief.values():
        for one, other in sorted(
            itertools.combinations(same[:12], 2), key=lambda two: two[0].adapter_digest == two[1].adapter_digest
        ):
            new = (one.pk, other.pk) not in known and (other.pk, one.pk) not in known
            if new and not {one.pk, other.pk} & used and _content(one) != _content(other):
                used |= {one.pk, other.pk}
                found.append((one, other))
    return found


def _content(draft: Recommendation) -> str:
    return f"{draft.text}\n{draft.content}" if draft.content else draft.text


# -- exports


@transaction.atomic
def request_export(*, brand: Brand, by: Any, format: str = "trl", filters: Filters = Filters()) -> Export:  # noqa: A002, B008
    """Record the wish for a file of answers, and queue the work.

    Raises:
        BadInput: there is no such format.
    """
    if format not in formats.FORMATS:
        raise BadInput(f"format {format!r}: there is none of that name, only {', '.join(formats.FORMATS)}")
    run = Export.objects.create(brand=brand, task=filters.task, format=format, filters=filters.row(), requested_by=by)
    run.enqueue()
    return run


def team_says(user: Any, brand: Brand, task: str, last: int = 10) -> tuple[int, int]:
    """Of this person's last answers that others gave too: how many said what most others said, and of how many.

    Nobody learns of a question they have not answered themselves.
    """
    mine = Feedback.objects.filter(by=user, brand=brand, task=task, undone_at=None, review_task__repeats=None)
    names = ("review_task", "kind", "outcome", "value")
    of_all = [f"review_task__answers__{name}" for name in ("by", "undone_at", "kind", "outcome", "value")]
    said: dict[int, str] = {}
    told: dict[int, Counter[str]] = {}
    rows = mine.exclude(review_task=None).order_by("-pk").values_list(*names, *of_all)
    for question, kind, outcome, value, by, undone_at, *theirs in rows[: last * MOST_READERS * 2]:
        said[question] = f"{kind} {outcome or value}"
        if by != user.pk and undone_at is None:
            their_kind, their_outcome, their_value = theirs
            told.setdefault(question, Counter())[f"{their_kind} {their_outcome or their_value}"] += 1
    shared = [*told][:last]
    return sum(told[one][said[one]] == max(told[one].values()) for one in shared), len(shared)


@transaction.atomic
def correct_better(row: Feedback, *, by: Any) -> ReviewTask:
    """Ask the reader of a decided pair how the better draft should read; asked once.

    Raises:
        BadInput: not their own standing answer, or no draft was better, or it is no text.
    """
    better = row.recommendation if row.outcome == Feedback.Outcome.A else row.other
    if row.by_id != by.pk or row.undone_at or row.outcome not in ("a", "b") or better is None:
        raise BadInput("Only the better draft of a pair that you judged yourself can be corrected.")
    if not better.text:
        raise BadInput("This draft is no text, so it has no wording to correct.")
    asked = ReviewTask.objects.filter(recommendation=better, other=None, kind=Feedback.Kind.CORRECTION)
    question = asked.free(timezone.now(), by).first()
    question = question or ask(recommendation=better, kind=Feedback.Kind.CORRECTION)
    reserve(question, by=by)
    return question


def may_see_everyone(user: Any) -> bool:
    """Whether somebody leads readers, and so sees their figures too."""
    return bool(user.is_superuser) or any(m.role == "ops" for m in memberships(user))

"""Answers as the domain has them: for exports and for statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from functools import lru_cache
from typing import Any

from django.db.models import Q

from feedback.domain.formats import Answer
from feedback.models import AnswerCount, Feedback
from retailers.services import masker

DIGEST = 64  # characters of a whole one
TOLD = [  # what ``of_row`` reads; of what was judged no more than its texts
    *(field.name for field in Feedback._meta.concrete_fields if field.name != "sampling"),
    "brand__slug",
    "brand__uuid",
    "retailer__slug",
    "recommendation__prompt",
    "recommendation__text",
    "other__text",
]
LEAST_VOTES = 2  # of people on one question, before their agreement is asked for


@dataclass(frozen=True)
class Filters:
    """Which answers are meant; the same on the dashboard, in the API and in an export."""

    task: str = ""
    retailer: str = ""  # slug
    adapter: str = ""  # digest, or how it begins
    since: datetime | None = None
    until: datetime | None = None
    kind: str = ""
    origin: str = ""
    min_agreement: float = 0.0  # share of the people who said the same; of human votes alone

    def apply(self, rows: Any) -> Any:
        """A queryset of Feedback, or of its counts by day, narrowed to these."""
        for name in ("task", "kind", "origin"):
            if getattr(self, name):
                rows = rows.filter(**{name: getattr(self, name)})
        if self.retailer:
            rows = rows.filter(retailer__slug=self.retailer)
        if self.adapter:
            how = "" if len(self.adapter) == DIGEST else "__startswith"
            names = ("adapter_digest", "other_adapter_digest")
            rows = rows.filter(Q(*((f"{name}{how}", self.adapter) for name in names), _connector=Q.OR))
        by_day = rows.model is AnswerCount
        for name, edge in (("gte", self.since), ("lt", self.until)):
            if edge:
                rows = rows.filter(**{f"day__{name}": edge.date()} if by_day else {f"created_at__{name}": edge})
        return rows

    @property
    def whole_days(self) -> bool:
        """Whether what was counted by day can answer."""
        midnight = time(0, tzinfo=UTC)
        return all(edge.astimezone(UTC).timetz() == midnight for edge in (self.since, self.until) if edge)

    def row(self) -> dict[str, Any]:
        """As a manifest prints it and a run keeps it."""
        told = {name: value for name, value in vars(self).items() if value}
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in told.items()}

    @classmethod
    def of(cls, row: dict[str, Any]) -> Filters:
        """Filters as ``row`` wrote them."""
        known: dict[str, Any] = {k: v for k, v in row.items() if k in cls.__dataclass_fields__}
        for name in ("since", "until"):
            if name in known:
                known[name] = datetime.fromisoformat(known[name])
        return cls(**known)


@dataclass
class Redaction:
    """Masks personal data under each brand's key, and counts what it found by type."""

    found: Counter[str] = field(default_factory=Counter)
    _maskers: dict[int, Any] = field(default_factory=dict)

    def mask(self, text: str, brand: Any) -> str:
        if not text:
            return text
        if brand.pk not in self._maskers:
            self._maskers[brand.pk] = lru_cache(maxsize=4096)(masker(brand))  # a draft is judged many times
        masked = self._maskers[brand.pk](text)
        self.found.update(entity.type for entity in masked.entities)
        return masked.text


def of_row(row: Feedback) -> Answer:
    """One answer with its texts; what it judged must be loaded with it."""
    a, b = row.recommendation, row.other
    chosen_first = row.outcome != Feedback.Outcome.B
    return Answer(
        kind=row.kind,
        prompt=row.prompt or (a.prompt if a else ""),
        text_a=a.text if a else (row.chosen if chosen_first else row.rejected),
        text_b=b.text if b else (row.rejected if chosen_first else row.chosen),
        outcome=row.outcome,
        strength=row.strength,
        value=row.value,
        correction=row.text,
        meta={
            "id": str(row.uuid),
            "brand": row.brand.slug,
            "retailer": row.retailer.slug if row.retailer else "",
            "task": row.task,
            "origin": row.origin,
            "reasons": list(row.reasons),
            "note": row.note,
            "adapter_digest": row.adapter_digest,
            "other_adapter_digest": row.other_adapter_digest,
            "prompt_version": row.prompt_version,
            "prompt_cluster": row.prompt_cluster,
            "shown_first": row.shown_first,
            "seconds": row.seconds,
            "created_at": row.created_at.isoformat(),
        },
    )


def exported(rows: Any, filters: Filters, redaction: Redaction) -> Iterator[Answer]:
    """The answers that training rows are made of, oldest first, masked; memory does not grow with them.

    Left out: taken back, on withdrawn drafts, gold pairs, repeats, and those below the asked agreement.

    Args:
        rows: Feedback already narrowed to what somebody may see.
    """
    kept = filters.apply(rows.standing().first_showings())
    agreed = _agreed(kept, filters.min_agreement) if filters.min_agreement > 0 else None
    told = kept.select_related("brand", "retailer", "recommendation", "other").only(*TOLD).order_by("pk")
    for row in told.iterator(chunk_size=1000):
        if agreed is not None and row.origin == Feedback.Origin.HUMAN and not agreed(row):
            continue
        answer = of_row(row)
        yield replace(
            answer,
            prompt=redaction.mask(answer.prompt, row.brand),
            text_a=redaction.mask(answer.text_a, row.brand),
            text_b=redaction.mask(answer.text_b, row.brand),
            correction=redaction.mask(answer.correction, row.brand),
            meta={**answer.meta, "note": redaction.mask(row.note, row.brand)},
        )


def vote(row: Any) -> str:
    """What an answer says, as people are compared by it."""
    return str(row.outcome or row.value or "")


def _question(row: Any) -> tuple[Any, ...]:
    """What an answer is about; a raw pair is its own question."""
    return (row.kind, row.recommendation_id, row.other_id) if row.recommendation_id else ("raw", row.pk)


def _agreed(rows: Any, least: float) -> Callable[[Feedback], bool]:
    """Whether so large a share of at least two people gave the answer that this row gives."""
    counts: dict[tuple[Any, ...], Counter[str]] = {}
    columns = rows.human().only("pk", "kind", "recommendation_id", "other_id", "outcome", "value")
    for row in columns.order_by().iterator(chunk_size=5000):
        counts.setdefault(_question(row), Counter())[vote(row)] += 1

    def enough(row: Feedback) -> bool:
        if row.kind == Feedback.Kind.CORRECTION:
            return True
        said = counts[_question(row)]
        total = sum(said.values())
        return total >= LEAST_VOTES and said[vote(row)] / total >= least

    return enough

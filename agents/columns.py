"""Suggestions for columns that no rule knows, by the retailer's own adapter; a person takes or leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from agents import serving
from agents.domain import columns
from agents.inference.types import InferenceClient, Question
from agents.models import Adapter
from retailers.models import Retailer
from rmn.lib import pii
from rmn.lib.errors import BadInput

MOST_COLUMNS = 200
TOGETHER = 8


class NobodyReads(BadInput):
    """No adapter reads this retailer's reports yet."""


@dataclass(frozen=True)
class Suggestion:
    """Which field a column is likely to be; none where the answer names no field or ``ignore``."""

    header: str
    field: str | None


def reader_of(retailer: Retailer) -> Adapter:
    """The retailer's adapter.

    Raises:
        NobodyReads: there is none; with what to do.
    """
    found = serving.reader(retailer)
    if found is None:
        raise NobodyReads(
            f"{retailer.slug}: no adapter reads its reports yet; train one: learn_mappings --retailer {retailer.slug}"
        )
    return found


def suggest(client: InferenceClient, adapter: Adapter, asked: Sequence[columns.Column]) -> list[Suggestion]:
    """A field for each column, greedy, held to the known fields; personal data in values is masked first.

    Raises:
        BadInput: more than ``MOST_COLUMNS`` columns.
        InferenceError: the model server did not answer.
    """
    if len(asked) > MOST_COLUMNS:
        raise BadInput(f"{len(asked)} columns; at most {MOST_COLUMNS} at a time")
    serving.ensure(client, adapter)

    def one(column: columns.Column) -> Suggestion:
        values = tuple(pii.mask(value, "columns").text for value in column.values[: columns.SHOWN])
        prompt = columns.messages(columns.Column(column.header, values))
        question = Question(messages=prompt, adapter=adapter.digest, max_tokens=12, pattern=columns.PATTERN)
        said = columns.read(client.generate(question).text)
        return Suggestion(column.header, None if said == columns.IGNORE else said)

    with ThreadPoolExecutor(TOGETHER) as pool:
        return list(pool.map(one, asked))


def how_sure(adapter: Adapter) -> str:
    """How often the adapter was right on headers it had not seen, in words."""
    rate = adapter.gate.get("pass_rate") or {}
    if not rate:
        return "not measured"
    low, high = rate["interval"]
    return f"right on {rate['estimate']:.0%} of headers it had not seen ({low:.0%} to {high:.0%})"

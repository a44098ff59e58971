"""What the gate asks: a suite's cases, how each is put to a model, and what an answer is worth.

A suite per task that a model writes for, and one for retailers' adapters. Both sides get the same cases; an
answer becomes a row of ``passed``, ``why`` and ``cluster``, and rows become one value a case for each measure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from agents import planning as planner
from agents.domain import briefs, columns, tools
from agents.inference.types import Message
from campaigns.models import Task
from retailers import services as retailers
from retailers.domain import mapping
from retailers.models import Brand, FeedMapping, Retailer, SKUCatalog
from rmn.lib import pii
from rmn.lib.errors import BadInput
from training.domain import checks, gate, goals, prompting
from training.domain.curation import Judged
from training.domain.starter import FEATURES

Row = dict[str, Any]
SCHEMA_MAPPING = "schema_mapping"
# by task; no task: how a retailer's reports read. Budgets and tests are computed, no model writes them.
SUITES = {Task.CREATIVE.value: "creative", Task.PLANNING.value: "planning", "": SCHEMA_MAPPING}


@dataclass(frozen=True)
class Suite:
    """Cases that both sides answer."""

    asked: list[list[Message]]
    worked: list[list[Message]]  # the same with worked examples: the best a prompt alone can do; empty: none
    examples: list[dict[str, str]]  # as shown to people
    clusters: list[str]  # cases of one cluster are not independent
    check: Callable[[int, str], Row]  # place of the case, raw answer
    measures: Callable[[Sequence[Row]], dict[str, list[float]]]  # ``passes`` includes the others
    guards: tuple[str, ...]
    most_tokens: int
    pattern: str | None = None  # a regular expression that answers are held to
    prose: bool = False  # free text, where length can pass for merit

    def rows(self, texts: Sequence[str], places: Sequence[int] | None = None) -> list[Row]:
        """Each answer judged; ``places`` says which cases they answer, all by default."""
        return [self.check(place, text) for place, text in zip(places or range(len(texts)), texts, strict=True)]

    def compared(
        self,
        candidate: Sequence[Row],
        champion: Sequence[Row],
        *,
        margin: float = gate.MARGIN,
        minimum: float = gate.MINIMUM,
    ) -> gate.Result:
        """The gate on two sides' rows: passing gains, what it includes are guards."""
        mine = self.measures(candidate)
        longer = [a["length"] - b["length"] for a, b in zip(candidate, champion, strict=True)]
        return gate.compare(
            mine,
            self.measures(champion),
            [row["cluster"] for row in candidate],
            parts=set(mine) - {"passes"},
            longer=longer if self.prose else None,
            margin=margin,
            minimum=minimum,
        )


def of(name: str, *, brand: Brand | None, networks: Sequence[str] | None = None, most: int | None = None) -> Suite:
    """The suite of that name.

    Args:
        brand: whose products are written about; no matter to ``schema_mapping``.
        networks: whose creative rules hold.
        most: cases at most.

    Raises:
        BadInput: there is no such suite, or nothing to ask.
    """
    if name == SCHEMA_MAPPING:
        return schema_mapping(most)
    if name == "planning":
        return planning(most)
    if name not in SUITES.values():
        raise BadInput(f"suite {name!r}: there is {', '.join(SUITES.values())}")
    return creative(brand, networks, most)


# -- creative: headlines for products kept from training


LONGEST = 24  # tokens of a headline


def creative(brand: Brand | None, networks: Sequence[str] | None = None, most: int | None = None) -> Suite:
    """Products kept from training, in every feature.

    Raises:
        BadInput: no product to evaluate on.
    """
    items = products(brand, unseen=True, networks=networks)[:most]
    if not items:
        raise BadInput(f"{brand}: no product is marked unseen (facts.unseen), so there is nothing fair to evaluate on")
    policy = retailers.checker(brand)
    shown = prompting.examples(products(brand, unseen=False, networks=networks), policy)
    return Suite(
        asked=[list(briefs.messages(item)) for item in items],
        worked=[list(prompting.with_examples(item, shown)) for item in items] if shown else [],
        examples=[{"product": item.product, "feature": item.feature, "text": text} for item, text in shown],
        clusters=[briefs.cluster(item) for item in items],
        check=lambda place, text: checked(items[place], text, policy),
        measures=_headlines,
        guards=("names the product", "fits", "invents nothing", "keeps the rules", "no personal data"),
        most_tokens=LONGEST,
        prose=True,
    )


def products(brand: Brand | None, *, unseen: bool, networks: Sequence[str] | None = None) -> list[briefs.Item]:
    """The brand's products, those kept from training or the others, in every feature."""
    rows = SKUCatalog.objects.filter(brand=brand, facts__unseen=unseen).order_by("sku")
    return [
        briefs.Item(
            product=product.name,
            brand=str(product.facts.get("brand") or brand),
            size=product.package_size,
            feature=feature,
            networks=tuple(networks or ("instacart",)),
        )
        for product in rows
        for feature in FEATURES
    ]


def checked(item: briefs.Item, text: str, policy: checks.Policy) -> Row:
    """A raw headline beside what was asked, and why it does not pass."""
    why = checks.failures(text, item, policy)
    personal = sorted({one.type for one in pii.detect(text) if one.type not in NOT_PERSONAL})
    why += [f"personal data: {', '.join(personal)}"] if personal else []
    return {
        "product": item.product,
        "feature": item.feature,
        "cluster": briefs.cluster(item),
        "text": text,
        "passed": not why,
        "why": why,
        "length": len(briefs.tidy(text)),
        "limit": item.limit,
    }


OWN = ("does not name the product", "not in the facts", "characters", "one line", "repeats the brief", "personal data")
NOT_PERSONAL = frozenset({"URL", "DOMAIN_NAME", "DATE_TIME", "PERSON"})  # products are called like people


def _headlines(rows: Sequence[Row]) -> dict[str, list[float]]:
    def no(words: str) -> list[float]:
        return [float(not any(words in why for why in row["why"])) for row in rows]

    return {
        "passes": [float(row["passed"]) for row in rows],
        "names the product": no("does not name the product"),
        "fits": [float(row["length"] <= row["limit"]) for row in rows],
        "invents nothing": no("not in the facts"),
        "keeps the rules": [float(all(any(own in why for own in OWN) for why in row["why"])) for row in rows],
        "no personal data": no("personal data"),
    }


# -- planning: the first call for a goal


def planning(most: int | None = None) -> Suite:
    """Goals whose first call is known, asked without a grammar: is it valid, the right tool, and does it say what the goal says?"""
    asked = [goal for goal in goals.GOALS if not goal.shown][:most]
    shown = [goal for goal in goals.GOALS if goal.shown]
    system = {"role": "system", "content": planner.told()}
    turns = [
        turn
        for goal in shown
        for turn in (
            {"role": "user", "content": goal.words},
            {"role": "assistant", "content": json.dumps({"name": goal.tool, "arguments": dict(goal.arguments)})},
        )
    ]

    def check(place: int, text: str) -> Row:
        goal, reading = asked[place], tools.validate(text, planner.ENDINGS)
        why = [f"{error.kind} {error.path}: {error.message}" for error in reading.errors]
        if not why and len(reading.calls) != 1:
            why = [f"{len(reading.calls)} calls, where one was asked for"]
        valid = not why
        if valid:
            why = goals.wrong(goal, reading.calls[0].name, reading.calls[0].arguments)
        return {
            "product": goal.words,
            "feature": goal.tool,
            "cluster": goal.words,
            "text": text,
            "passed": not why,
            "why": why,
            "length": len(text.strip()),
            "valid": valid,
            "tool": bool(reading.calls) and reading.calls[0].name == goal.tool,
        }

    return Suite(
        asked=[[system, {"role": "user", "content": goal.words}] for goal in asked],
        worked=[[system, *turns, {"role": "user", "content": goal.words}] for goal in asked],
        examples=[
            {"product": goal.words, "feature": goal.tool, "text": turns[2 * n + 1]["content"]}
            for n, goal in enumerate(shown)
        ],
        clusters=[goal.words for goal in asked],
        check=check,
        measures=lambda rows: {
            "passes": [float(row["passed"]) for row in rows],
            "a valid call": [float(row["valid"]) for row in rows],
            "the right tool": [float(row["tool"]) for row in rows],
        },
        guards=("a valid call", "the right tool"),
        most_tokens=128,
    )


def practice() -> list[Judged]:
    """Right calls for goals of other words than the gate's, made by rule: what a planner can imitate before anybody has answered."""
    system = {"role": "system", "content": planner.told()}
    return [
        Judged(
            kind="thumb",
            prompt=briefs.as_text([system, {"role": "user", "content": goal.words}]),
            text_a=json.dumps({"name": goal.tool, "arguments": dict(goal.arguments)}),
            value=1,
            origin="rule",
        )
        for goal in goals.practice()
    ]


def asked_at_the_gate(brand: Brand | None, task: str, sharing: Iterable[Brand] = ()) -> set[str]:
    """Clusters and prompts that the gate asks: nothing of them trains, whoever answered it.

    Args:
        sharing: the brands whose answers shared knowledge comes from; looked at where there is no brand.
    """
    if task == "planning":
        return {goal.words for goal in goals.GOALS if not goal.shown}
    if task != "creative":
        return set()
    items = [item for owner in ([brand] if brand else sharing) for item in products(owner, unseen=True)]
    return {briefs.cluster(item) for item in items} | {briefs.messages(item)[-1]["content"] for item in items}


# -- schema_mapping: which field of RMIS a column is


@cache
def _shipped() -> tuple[mapping.MappingFile, ...]:
    return tuple(mapping.shipped(name) for name in mapping.shipped_names())


def known_columns() -> list[columns.Column]:
    """Columns whose field is known from what belongs to no brand: shipped mappings, and those approved for all."""
    kept = list(_shipped())
    for row in FeedMapping.objects.current().filter(brand=None).order_by("network", "report"):
        kept.append(mapping.parse(row.yaml, str(row)))
    return columns.known(kept)


def schema_mapping(most: int | None = None) -> Suite:
    """Header texts that nothing was trained on: which field is each?"""
    seen, unseen = columns.parted(known_columns())
    unseen = unseen[:most]
    by_field = {column.field: column for column in seen}
    shown = [by_field[name] for name in ("spend", "date", "campaign_name") if name in by_field]
    turns = [turn for one in shown for turn in (columns.messages(one)[1], {"role": "assistant", "content": one.field})]

    def worked(column: columns.Column) -> list[Message]:
        system, asked = columns.messages(column)
        return [system, *turns, asked]

    def check(place: int, text: str) -> Row:
        column, said = unseen[place], columns.read(text)
        why = [] if said == column.field else [f"{said or 'no field'}, where {column.field} was right"]
        return {
            "product": column.header,
            "feature": ", ".join(column.values),
            "cluster": column.cluster,
            "text": text,
            "passed": not why,
            "why": why,
            "length": len(text.strip()),
            "a_field": said is not None,
        }

    return Suite(
        asked=[list(columns.messages(column)) for column in unseen],
        worked=[worked(column) for column in unseen],
        examples=[{"product": one.header, "feature": ", ".join(one.values), "text": one.field} for one in shown],
        clusters=[column.cluster for column in unseen],
        check=check,
        measures=lambda rows: {
            "passes": [float(row["passed"]) for row in rows],
            "names a field": [float(row["a_field"]) for row in rows],
        },
        guards=("names a field",),
        most_tokens=12,
        pattern=columns.PATTERN,
    )


def lessons_of_columns(retailer: Retailer | None) -> list[Row]:
    """Rows to imitate: every known column but those the gate asks. The retailer's own mappings count three times."""
    own = set()
    if retailer is not None:
        rows = FeedMapping.objects.current().filter(brand=None, retailer=retailer)
        kept = [one for one in _shipped() if one.network_name == retailer.network]
        own = {one.cluster for one in columns.known([*kept, *(mapping.parse(row.yaml, str(row)) for row in rows)])}
        own -= {one.cluster for one in columns.known([])}
    seen, _ = columns.parted(known_columns())
    return [
        {
            "prompt": columns.messages(columns.Column(one.header, columns.made_values(one.field, f"{one.cluster}{n}"))),
            "completion": [{"role": "assistant", "content": one.field}],
            "origin": "rule",
            "people": [],
            "keys": [],
            "agreement": 1.0,
            "cluster": one.cluster,
        }
        for one in seen
        for n in range(3 if one.cluster in own else 1)
    ]

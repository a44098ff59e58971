"""Goals whose first step is known: which tool, and what its arguments must say. The planning suite's cases."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A goal in a marketer's words, and the call that is right for it."""

    words: str
    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)  # those that the goal itself names
    shown: bool = False  # stands in the best prompt as a worked example; not asked


GOALS = (
    Goal("Total spend and sales per network from 2026-01-01 to 2026-03-31", "read_metrics", {"start": "2026-01-01", "end": "2026-03-31"}, shown=True),
    Goal("How much did each network sell since 2026-07-01?", "read_metrics", {"start": "2026-07-01"}),
    Goal("Show me all our totals by network and campaign type", "read_metrics"),
    Goal("Did all feeds of the last 7 days arrive?", "harmonize_status", {"days": 7}),
    Goal("How many rows went to quarantine in the last 14 days?", "harmonize_status", {"days": 14}),
    Goal("Fit response curves on everything that is loaded", "fit_response"),
    Goal("Fit the curves again on the data from 2025-10-01 to 2026-09-30", "fit_response", {"start": "2025-10-01", "end": "2026-09-30"}),
    Goal("Split 250000 dollars over the next 13 weeks", "allocate_budget", {"total_budget": 250000, "weeks": 13}, shown=True),
    Goal("Allocate a budget of 90000 for 4 weeks", "allocate_budget", {"total_budget": 90000, "weeks": 4}),
    Goal("Propose a split of 1200000 over 26 weeks", "allocate_budget", {"total_budget": 1200000, "weeks": 26}),
    Goal("Move money for 4 weeks: the campaign Oat Bars is sold out", "allocate_budget", {"weeks": 4, "unavailable": ["Oat Bars"]}),
    Goal("What would budgets of 50000 and 75000 bring?", "what_if", {"budgets": [50000, 75000]}),
    Goal("Compare 100000, 120000 and 140000 as budgets of the newest plan", "what_if", {"budgets": [100000, 120000, 140000]}),
    Goal("Design a geo test of 8 weeks with at most 10 stores", "design_experiment", {"duration": 8, "most_units": 10}),
    Goal("Plan an experiment over 4 weeks in our stores", "design_experiment", {"duration": 4}),
    Goal("What did the test called Spring mailing find?", "analyze_experiment", {"name": "Spring mailing"}),
    Goal("Read the newest experiment: lift and iROAS", "analyze_experiment"),
    Goal("May the line 'Fresh oats, ready in a minute' run at walmart?", "check_copy", {"text": "Fresh oats, ready in a minute", "network": "walmart"}, shown=True),
    Goal("Check 'The best price in town' against the rules of instacart", "check_copy", {"text": "The best price in town", "network": "instacart"}),
    Goal("Is 'Whole grain crackers' allowed at kroger?", "check_copy", {"text": "Whole grain crackers", "network": "kroger"}),
    Goal("Write 3 headlines for Honey Granola", "write_copy", {"product": "Honey Granola", "variants": 3}),
    Goal("Draft copy for the product Sparkling Water about being sugar free", "write_copy", {"product": "Sparkling Water"}),
    Goal("Is there personal data in: call Ann at 212-555-0188", "scan_personal_data", {"text": "call Ann at 212-555-0188"}),
    Goal("Scan this for personal data: order 4711 was late", "scan_personal_data", {"text": "order 4711 was late"}),
    Goal("What did our earlier decisions about stock come to?", "recall_lessons", {"about": "stock"}),
    Goal("What have we learnt about launches?", "recall_lessons"),
    Goal("Ask the clean room north_retail the template overlap", "query_clean_room", {"connection": "north_retail", "template": "overlap"}),
    Goal("Run the template reach_by_week in the clean room demo_room", "query_clean_room", {"connection": "demo_room", "template": "reach_by_week"}),
)  # fmt: skip


# What a planner practises on: other words and other numbers than the cases above.
PRACTICE: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("Sum up spend and sales for the month from {start} on", "read_metrics", {"start": "start"}),
    ("Where did our sales come from between {start} and {end}?", "read_metrics", {"start": "start", "end": "end"}),
    ("Are there late or broken reports in the past {days} days?", "harmonize_status", {"days": "days"}),
    ("Check that data came in over {days} days", "harmonize_status", {"days": "days"}),
    ("Estimate how sales answer spend", "fit_response", {}),
    ("Make new curves from {start} to {end}", "fit_response", {"start": "start", "end": "end"}),
    ("Plan {money} for the coming {weeks} weeks", "allocate_budget", {"total_budget": "money", "weeks": "weeks"}),
    ("How should I divide {money} across {weeks} weeks?", "allocate_budget", {"total_budget": "money", "weeks": "weeks"}),
    ("If the budget were {money}, what would it return?", "what_if", {"budgets": "one_budget"}),
    ("Try {money} and then {more} on our plan", "what_if", {"budgets": "two_budgets"}),
    ("Set up a store test that lasts {weeks} weeks and treats {stores} stores at most", "design_experiment", {"duration": "weeks", "most_units": "stores"}),
    ("Tell me the result of the experiment {name}", "analyze_experiment", {"name": "name"}),
    ("Can we say '{line}' at {network}?", "check_copy", {"text": "line", "network": "network"}),
    ("Does {network} permit the headline '{line}'?", "check_copy", {"text": "line", "network": "network"}),
    ("I need {count} headlines about {product}", "write_copy", {"product": "product", "variants": "count"}),
    ("Look for names or numbers of people in: {note}", "scan_personal_data", {"text": "note"}),
    ("Anything we learned before about {topic}?", "recall_lessons", {"about": "topic"}),
    ("Use the template {template} in clean room {room}", "query_clean_room", {"connection": "room", "template": "template"}),
)  # fmt: skip
FILLED: Mapping[str, Sequence[Any]] = {
    "start": ("2025-03-01", "2025-06-15", "2026-02-01"), "end": ("2026-03-15", "2026-05-31", "2026-06-30"),
    "days": (3, 10, 21, 30, 60), "money": (30000, 45000, 180000, 400000, 900000), "more": (20000, 65000, 500000),
    "weeks": (2, 5, 6, 9, 12), "stores": (4, 6, 15, 20), "name": ("Autumn flyer", "Endcap May", "Loyalty push"),
    "line": ("Crisp and light", "The finest oats on earth", "Made with whole milk", "Cures a cold"),
    "network": ("criteo", "amazon", "target", "walmart"), "count": (2, 4, 5), "product": ("Oat Crackers", "Lemon Tea", "Bean Soup"),
    "note": ("Tom asked for a refund", "mail bo@example.com", "the pallet came at noon"), "topic": ("holiday prices", "search bids", "sold-out weeks"),
    "room": ("south_mart", "trial_room"), "template": ("incremental_reach", "new_buyers", "frequency"),
}  # fmt: skip


def practice(rounds: int = 3) -> list[Goal]:
    """Goals to imitate, each with its right call; in words that the gate does not use. The same in every run."""
    rng = random.Random(1)
    found: dict[str, Goal] = {}
    for words, tool, arguments in PRACTICE * rounds:
        values = {name: rng.choice(choices) for name, choices in FILLED.items()}
        values |= {"one_budget": [values["money"]], "two_budgets": [values["money"], values["more"]]}
        goal = Goal(words.format(**values), tool, {name: values[key] for name, key in arguments.items()})
        found[goal.words] = goal
    return list(found.values())


def wrong(goal: Goal, name: str, arguments: Mapping[str, Any]) -> list[str]:
    """What a valid call has against the goal, in words; nothing where it is the right one."""
    if name != goal.tool:
        return [f"{name}, where {goal.tool} was right"]
    return [
        f"{key} is {arguments.get(key)!r}, where the goal says {value!r}"
        for key, value in goal.arguments.items()
        if not _same(arguments.get(key), value)
    ]


def _same(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return isinstance(given, list) and len(given) == len(wanted) and all(map(_same, given, wanted))
    if isinstance(wanted, str):
        return isinstance(given, str) and given.strip().casefold() == wanted.casefold()
    return bool(given == wanted)

"""Who must agree before something proposed is done: by the tool's name and by how much money it moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from rmn.lib.errors import BadInput


@dataclass(frozen=True)
class Rule:
    """``people`` must approve what tools of this pattern propose, from an amount on."""

    pattern: str
    above: Decimal
    people: int


def needed(rules: Iterable[Rule], tool: str, amount: Decimal | None, four_eyes_above: Decimal = Decimal(0)) -> int:
    """How many people must approve; 0 only where a rule says so and none asks for more.

    Of the rules that match, the one that asks for most holds; where none matches it takes one person.
    A proposal without an amount counts as one of 0.

    Args:
        rules: the brand's.
        tool: as in the tools' list; plans are allocate_budget, adapters deploy_adapter.
        amount: money it moves, in the proposal's currency.
        four_eyes_above: the installation's own limit, whatever the brand's rules say; 0 is none.
    """
    moved = amount or Decimal(0)
    asked = [rule.people for rule in rules if fnmatchcase(tool, rule.pattern) and moved >= rule.above]
    limit = 2 if four_eyes_above and moved >= four_eyes_above else 0
    return max([*asked, limit]) if asked or limit else 1


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a person changed of a call's arguments: [{path, old, new}], absent as None."""
    return [
        {"path": name, "old": old.get(name), "new": new.get(name)}
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def changed(old: Mapping[str, Any], changes: Any) -> dict[str, Any]:
    """Arguments with a person's changes; None takes one away.

    Raises:
        BadInput: the changes are no object, or change nothing.
    """
    if not isinstance(changes, Mapping) or not changes:
        raise BadInput('changes: an object of arguments, such as {"total_budget": 50000}')
    found = {name: value for name, value in {**old, **changes}.items() if value is not None}
    if found == dict(old):
        raise BadInput("changes: nothing is different; approve it as it is, or name another value")
    return found

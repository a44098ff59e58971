"""What may be asked of a clean room, and what of its answer may be shown.

A query is a reviewed template with typed parameters; nobody writes SQL into it. Of the answer, groups
of fewer than k people are left out, and so is one more where a single gap could be worked out from the
rest; a question that differs from an earlier one by fewer than k people is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlglot
from sqlglot import expressions as sql

from rmn.lib.errors import BadInput

WORDS = re.compile(r"[\w .:-]{1,80}")
MOST_ROWS = 10_000


@dataclass(frozen=True)
class Template:
    """A reviewed query: parameters are date, integer, number, text, or a list of the values allowed."""

    name: str
    query: str
    parameters: Mapping[str, Any]
    count: str  # the column that counts people
    cost: float


def template(row: Mapping[str, Any]) -> Template:
    """A template from its data: one SELECT, whose placeholders are exactly its parameters.

    Raises:
        BadInput: what is wrong with it.
    """
    name = str(row.get("name") or "")
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,79}", name):
        raise BadInput(f"template {name[:80]!r}: a name of small letters, digits, - and _ is needed")
    try:
        parsed = [one for one in sqlglot.parse(str(row.get("sql") or "")) if one is not None]
    except sqlglot.errors.SqlglotError as error:
        raise BadInput(f"template {name}: not SQL: {str(error).splitlines()[0][:160]}") from None
    if len(parsed) != 1 or not isinstance(parsed[0], sql.Select):
        raise BadInput(f"template {name}: one SELECT is needed")
    given = dict(row.get("parameters") or {})
    used = {one.name for one in parsed[0].find_all(sql.Placeholder)}
    if used != set(given):
        raise BadInput(f"template {name}: it uses {sorted(used)} and declares {sorted(given)}")
    for key, kind in given.items():
        if kind not in ("date", "integer", "number", "text") and not (isinstance(kind, list) and kind):
            raise BadInput(f"template {name}: parameter {key}: date, integer, number, text or a list of values")
    cost = row.get("cost", 1.0)
    if not isinstance(cost, int | float) or isinstance(cost, bool) or not 0 < cost < 1e6:
        raise BadInput(f"template {name}: cost {cost!r}: a number above 0")
    return Template(name, str(row["sql"]), given, str(row.get("count") or "users"), float(cost))


def chosen(templates: Iterable[Mapping[str, Any]], name: str) -> Template:
    """The template of that name.

    Raises:
        BadInput: there is none; it says which there are.
    """
    names = {str(row.get("name")): row for row in templates}
    if name not in names:
        raise BadInput(f"template {name[:80]!r}: this clean room has {', '.join(sorted(names)) or 'none yet'}")
    return template(names[name])


def checked(asked: Template, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, each of its kind, none missing and none too many.

    Raises:
        BadInput: the first that is wrong.
    """
    if set(given) != set(asked.parameters):
        raise BadInput(f"{asked.name}: parameters {sorted(asked.parameters)} were expected, not {sorted(given)}")
    return {name: _value(f"{asked.name}: {name}", kind, given[name]) for name, kind in asked.parameters.items()}


def _value(where: str, kind: Any, value: Any) -> Any:
    if isinstance(kind, list):
        if value not in kind:
            raise BadInput(f"{where}: one of {', '.join(map(str, kind))} was expected")
        return value
    if kind == "date":
        try:
            return date.fromisoformat(str(value)).isoformat()
        except ValueError:
            raise BadInput(f"{where}: a date such as 2026-01-31 was expected") from None
    if kind == "text":
        if not isinstance(value, str) or not WORDS.fullmatch(value):
            raise BadInput(f"{where}: letters, digits, spaces and . : - _ were expected, at most 80")
        return value
    whole = kind == "integer"
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (whole and not isinstance(value, int))
        or not abs(value) < 1e15
    ):
        raise BadInput(f"{where}: {'a whole number' if whole else 'a number'} was expected")
    return value


def protected(rows: Any, count: str, k: int) -> tuple[list[dict[str, Any]], int]:
    """The rows that may be shown, and how many were left out.

    Groups under ``k`` go. Where exactly one went, the smallest of the others goes too: a total known
    from elsewhere would give the single gap away.

    Raises:
        BadInput: the answer is no table, or does not count people in ``count``.
    """
    if not isinstance(rows, list) or len(rows) > MOST_ROWS or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"the clean room's answer is no list of at most {MOST_ROWS:,} rows")
    for row in rows:
        people = row.get(count)
        if isinstance(people, bool) or not isinstance(people, int) or people < 0:
            raise BadInput(f"the clean room's answer does not count people in {count!r}; nothing of it is shown")
    kept = [row for row in rows if row[count] >= k]
    if len(rows) - len(kept) == 1 and kept:
        smallest = min(range(len(kept)), key=lambda place: kept[place][count])
        kept = [row for place, row in enumerate(kept) if place != smallest]
    return kept, len(rows) - len(kept)


def too_close(total: int, earlier: Sequence[int], k: int) -> bool:
    """Whether this answer and an earlier one of the same template differ by some people, but fewer than ``k``."""
    return any(0 < abs(total - before) < k for before in earlier)

"""What may be asked of a clean room, and what of its answer may be shown.

A query is a reviewed template with typed parameters; nobody writes SQL into it. Of the answer, groups
of fewer than k people are left out, and so are as many others as keep them from being worked out from
margins; an answer that differs from an earlier one somewhere by fewer than k people is refused.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from typing import Any

import numpy as np
import sqlglot
from sqlglot import expressions as sql

from rmn.lib.errors import BadInput

WORDS = re.compile(r"[\w .:-]{1,80}")
MOST_ROWS = 10_000
MOST_COLUMNS = 6
MOST_SOLVED = 300  # rows left out; beyond, all of them go
ARN = re.compile(r"arn:aws[-a-z]*:cleanrooms:[\w-]+:\d{12}:membership/[\w-]+/analysistemplate/[\w-]+")


@dataclass(frozen=True)
class Template:
    """A reviewed query: parameters are date, integer, number, text, or a list of the values allowed."""

    name: str
    query: str
    parameters: Mapping[str, Any]
    count: str  # the column that counts people
    cost: float
    arn: str = ""  # of the same query as an analysis template of AWS Clean Rooms


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
    arn = str(row.get("arn") or "")
    if arn and not ARN.fullmatch(arn):
        raise BadInput(f"template {name}: arn {arn[:80]!r}: the address of an analysis template was expected")
    return Template(name, str(row["sql"]), given, str(row.get("count") or "users"), float(cost), arn)


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


def rendered(asked: Template, parameters: Mapping[str, Any]) -> str:
    """The query with its checked values as literals, for rooms that take no values beside it."""
    parsed = sqlglot.parse_one(asked.query)
    for place in list(parsed.find_all(sql.Placeholder)):
        place.replace(sql.convert(parameters[place.name]))
    return parsed.sql()


def protected(rows: Any, count: str, k: int) -> tuple[list[dict[str, Any]], int]:
    """The rows that may be shown, and how many were left out.

    Groups under ``k`` go. So do others, the smallest first, until no margin that somebody may know (sums over
    all rows with the same words in some of the columns) gives away a small group: neither alone, where what
    it lacks is one row or fewer than ``k`` people, nor by adding and subtracting several.

    Raises:
        BadInput: the answer is no table, or does not count people in ``count``.
    """
    if not isinstance(rows, list) or len(rows) > MOST_ROWS or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"the clean room's answer is no list of at most {MOST_ROWS:,} rows")
    for row in rows:
        people = row.get(count)
        if isinstance(people, bool) or not isinstance(people, int) or people < 0:
            raise BadInput(f"the clean room's answer does not count people in {count!r}; nothing of it is shown")
    people = [row[count] for row in rows]
    gone = {place for place, n in enumerate(people) if n < k}
    margins = [places for places in _margins(rows, count) if sum(people[place] for place in places) >= k]
    while gone:
        more = _gap(people, gone, margins, k)
        if more is None:
            more = _solved(people, gone, margins, k)
        if more is None:
            break
        gone.add(more)
    return [row for place, row in enumerate(rows) if place not in gone], len(gone)


def only_asked(asked: Template, rows: Sequence[Mapping[str, Any]]) -> None:
    """A room answers with the columns of the query and no others: what it adds may tell who people are.

    Raises:
        BadInput: it names the column.
    """
    parsed = sqlglot.parse_one(asked.query, into=sql.Select)
    wanted = {name.lower() for name in parsed.named_selects}
    if "*" in wanted:
        return
    for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
        if str(name).lower() not in wanted:
            raise BadInput(f"the clean room's answer has a column that was not asked for: {str(name)[:60]!r}")


def columns(rows: Sequence[Mapping[str, Any]], count: str) -> list[str]:
    """The columns whose words tell groups apart.

    Raises:
        BadInput: there are more than six.
    """
    found = sorted({name for row in rows for name, value in row.items() if name != count and isinstance(value, str)})
    if len(found) > MOST_COLUMNS:
        raise BadInput(f"the clean room's answer groups by {len(found)} columns; at most {MOST_COLUMNS} are checked")
    return found


def _margins(rows: Sequence[Mapping[str, Any]], count: str) -> list[list[int]]:
    found: set[tuple[int, ...]] = set()
    names = columns(rows, count)
    for size in range(len(names)):
        for some in combinations(names, size):
            groups: dict[tuple[Any, ...], list[int]] = {}
            for place, row in enumerate(rows):
                groups.setdefault(tuple(row.get(name) for name in some), []).append(place)
            found.update(map(tuple, groups.values()))
    if rows and not names:
        found.add(tuple(range(len(rows))))
    return [list(places) for places in sorted(found) if len(places) > 1]  # of one row: that row itself


def _gap(people: Sequence[int], gone: set[int], margins: Sequence[Sequence[int]], k: int) -> int | None:
    """The row that must go as well because one margin lacks a single row, or fewer than ``k`` people."""
    for places in margins:
        missing = [place for place in places if place in gone]
        if not any(people[place] < k for place in missing):
            continue
        if len(missing) == 1 or sum(people[place] for place in missing) < k:
            left = [place for place in places if place not in gone]
            if left:
                return min(left, key=lambda place: (people[place], place))
    return None


def _solved(people: Sequence[int], gone: set[int], margins: Sequence[Sequence[int]], k: int) -> int | None:
    """The row that must go as well because all margins together have one solution for a small group."""
    order = sorted(gone)
    where = {place: at for at, place in enumerate(order)}
    lines = [[where[place] for place in places if place in where] for places in margins]
    lines = [line for line in lines if line]
    if not lines:
        return None
    if len(order) > MOST_SOLVED:
        left = [place for place in range(len(people)) if place not in gone]
        return min(left, key=lambda place: (people[place], place), default=None)
    table = np.zeros((len(lines), len(order)))
    for row, line in enumerate(lines):
        table[row, line] = 1
    _, sizes, turned = np.linalg.svd(table)
    rank = int((sizes > 1e-9).sum())
    free = np.abs(turned[rank:]).max(axis=0) if rank < len(order) else np.zeros(len(order))
    told = {place for place in order if people[place] < k and free[where[place]] < 1e-9}
    if not told:
        return None
    beside = [place for places in margins if told.intersection(places) for place in places if place not in gone]
    left = beside or [place for place in range(len(people)) if place not in gone]
    return min(left, key=lambda place: (people[place], place), default=None)


def few_apart(rows: Sequence[Mapping[str, Any]], count: str, earlier: Iterable[Mapping[str, Any]], k: int) -> bool:
    """Whether this answer and an earlier one differ in some group, or in a sum of groups, by fewer than ``k`` people.

    Args:
        earlier: released answers, ``{"rows", "total"?}``; one without a total lacks rows, so only its rows are compared.
    """
    names = columns(rows, count)
    for answer in earlier:
        before = answer.get("rows") or []
        if not before or not all(isinstance(row.get(count), int) for row in before):
            continue
        theirs = columns(before, count)
        shared = [name for name in names if name in theirs]
        for size in range(len(shared) + 1):
            for some in combinations(shared, size):
                if "total" not in answer and set(some) != set(theirs):
                    continue
                then, now = _sums(before, count, some), _sums(rows, count, some)
                if any(0 < abs(now[group] - then[group]) < k for group in now.keys() & then.keys()):
                    return True
    return False


def _sums(rows: Iterable[Mapping[str, Any]], count: str, some: Sequence[str]) -> dict[tuple[Any, ...], int]:
    found: dict[tuple[Any, ...], int] = {}
    for row in rows:
        group = tuple(row.get(name) for name in some)
        found[group] = found.get(group, 0) + row[count]
    return found


def table(text: str) -> list[dict[str, Any]]:
    """Rows of a CSV with a heading; whole numbers as such.

    Raises:
        BadInput: a row has more or fewer values than the heading.
    """
    heading, *lines = list(csv.reader(io.StringIO(text))) or [[]]
    for number, line in enumerate(lines, 2):
        if len(line) != len(heading):
            raise BadInput(f"the clean room's answer, line {number}: {len(line)} values under {len(heading)} headings")
    return [{name: int(v) if re.fullmatch(r"-?\d{1,15}", v) else v for name, v in zip(heading, line)} for line in lines]

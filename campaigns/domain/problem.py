"""A budget problem: what may be spent where, what it brings, and every reason to refuse the input.

``read`` turns the JSON of docs/budget.md into columns. Whatever cannot be meant is refused with the
place and the value; whatever can be meant but cannot be fulfilled (floors above the budget) is kept,
and is the optimizer's to answer.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from campaigns.domain.curves import HILL, KINDS, LINEAR, LOG, MICHAELIS_MENTEN, PIECEWISE, POWER, Curves
from rmn.lib.arrays import Array, BoolArray, IntArray
from rmn.lib.errors import BadInput

EVIDENCE = ("experiment", "calibrated", "attribution")  # what a curve rests on, best first
MOST_EXPONENT = 100.0
PATIENCE_S = 20.0  # how long a proof is looked for, where the problem does not say
ROOM = 1.0 + 1e-9  # an arm that only the budget stops has a little room above it, so that the budget is what binds
PROBLEM_KEYS = {
    "total_budget", "currency", "spend_all", "gap", "min_roas", "risk_aversion", "risk_tail", "draws", "periods", "arms", "groups",
    "time_limit_s", "name", "note",
}  # fmt: skip
ARM_KEYS = {
    "id", "brand", "retailer", "campaign", "tactic", "currency", "available", "fixed", "min", "max", "min_if_on",
    "last", "max_change", "margin", "curve", "std", "evidence", "name", "note", "seen", "readiness",
    "readiness_why", "readiness_read",
}  # fmt: skip
GROUP_KEYS = {"id", "arms", "where", "min", "max", "min_roas", "name", "note"}
CURVE_KEYS = {"kind", "scale", "half", "exponent", "points"}
OTHER_NAMES = {
    "minimum": "min",
    "maximum": "max",
    "budget": "total_budget",
    "spend": "last",
    "floor": "min",
    "cap": "max",
}
WHERE_KEYS = ("brand", "retailer", "campaign", "tactic", "id")


@dataclass(frozen=True)
class Group:
    """A limit over several arms: a joint business plan, a retailer's cap, a tactic's share."""

    id: str
    index: int  # place in the problem's list
    arms: IntArray
    min: float | None = None
    max: float | None = None
    min_roas: float | None = None


@dataclass(frozen=True)
class Draws:
    """Possible curves: ``n`` joint draws. An arm not named keeps its curve in every draw."""

    n: int
    seed: int = 1
    given: Mapping[int, tuple[Array, Array, Array]] = field(default_factory=dict)  # arm -> scale, half, exponent


@dataclass(frozen=True)
class Periods:
    """The plan's weeks and how much of a week's effect carries over into the next, by tactic."""

    weeks: int
    carry_C: Array


@dataclass(frozen=True)
class Problem:
    """A checked budget problem. Money in one currency, spend and sales as totals of the period."""

    ids: Sequence[str]
    curves: Curves
    total_budget: float
    low_C: Array  # effective bounds: min, max, change limits, fixed and availability together
    high_C: Array
    currency: str = "USD"
    spend_all: bool = False
    gap: float = 1e-6
    min_roas: float | None = None
    risk_aversion: float = 0.0
    risk_tail: float = 0.1  # CVaR is the mean of so large a part of the draws, the worst; at 0 of the worst alone
    time_limit_s: float = 20.0
    gate_C: Array | None = None  # min_if_on: nothing or at least this
    margin_C: Array | None = None
    std_C: Array | None = None  # standard error of the curve's scale
    last_C: Array | None = None  # spend of the last period, NaN where unknown
    groups: tuple[Group, ...] = ()
    draws: Draws | None = None
    periods: Periods | None = None
    ready_CW: Array | None = None  # share of each week (of the period, without weeks) in which the arm can sell
    excluded_C: BoolArray | None = None
    fixed_C: BoolArray | None = None
    low_why: Mapping[int, str] = field(default_factory=dict)  # arm -> limit that sets low, where not "min"
    high_why: Mapping[int, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return len(self.ids)

    @property
    def weight_C(self) -> Array | None:
        return self.margin_C

    def arm(self, index: int) -> Mapping[str, Any]:
        """The arm as it was given, empty where the problem was made from arrays."""
        arms = self.raw.get("arms", ())
        return arms[index] if index < len(arms) else {}


def refuse(where: str, value: object, why: str) -> NoReturn:
    shown = repr(value)
    raise BadInput(f"{where} is {shown if len(shown) < 60 else shown[:57] + '...'}: {why}")


def number(
    value: object,
    where: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
) -> float:
    """A finite number within its range, or a refusal that names the field and the value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(where, value, "a number was expected")
    try:
        result = float(value)
    except OverflowError:
        refuse(where, value, "too large a number")
    if not math.isfinite(result):
        refuse(where, value, "a finite number was expected")
    if low is not None and result < low:
        refuse(where, value, f"at least {low:g} was expected")
    if above is not None and result <= above:
        refuse(where, value, f"more than {above:g} was expected")
    if high is not None and result > high:
        refuse(where, value, f"at most {high:g} was expected")
    return result


def optional(value: object, where: str, **limits: float) -> float | None:
    return None if value is None else number(value, where, **limits)


def flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        refuse(where, value, "true or false was expected")
    return value


def text(value: object, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        refuse(where, value, "a text was expected")
    return value


def mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        refuse(where, value, "an object was expected")
    return value


def known_keys(given: Mapping[str, Any], known: set[str], where: str, warnings: list[str]) -> None:
    """A key that looks like one of ours but is not is a slip; another one is somebody's own."""
    for key in given:
        if key in known:
            continue
        other = OTHER_NAMES.get(str(key).lower())
        near = [other] if other in known else difflib.get_close_matches(str(key), known, 1, 0.75)
        if near:
            raise BadInput(f"{where}{key} is not a field: did you mean {near[0]}?")
        note = f"{where}{key} is not a field and was not read"
        if len(warnings) < 20 and note not in warnings:
            warnings.append(note)


def read_curve(given: object, where: str) -> tuple[int, float, float, float, Array | None]:
    """Kind, scale, half, exponent and points of one curve."""
    if not isinstance(given, Mapping):
        refuse(where, given, "an object with kind and its numbers was expected")
    name = given.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        refuse(f"{where}.kind", name, f"one of {', '.join(KINDS)} was expected")
    kind = KINDS[name]
    if kind == PIECEWISE:
        return kind, 1.0, 1.0, 1.0, read_points(given.get("points"), f"{where}.points")
    scale = number(given.get("scale"), f"{where}.scale", above=0)
    half = 1.0 if kind == POWER else number(given.get("half"), f"{where}.half", above=0)
    exponent = 1.0
    if kind == POWER:
        exponent = number(given.get("exponent"), f"{where}.exponent", above=0, high=1)
        kind = LINEAR if exponent == 1.0 else kind
    elif kind == HILL:
        exponent = number(given.get("exponent"), f"{where}.exponent", above=0, high=MOST_EXPONENT)
        kind = MICHAELIS_MENTEN if exponent == 1.0 else kind
    return kind, scale, half, exponent, None


def read_points(given: object, where: str) -> Array:
    """Points (spend, sales) from (0, 0) on: spend rises, sales do not fall."""
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        refuse(where, given, "a list of [spend, sales] was expected")
    rows: list[tuple[float, float]] = []
    for index, pair in enumerate(given):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            refuse(f"{where}[{index}]", pair, "a pair [spend, sales] was expected")
        rows.append((number(pair[0], f"{where}[{index}][0]", low=0), number(pair[1], f"{where}[{index}][1]", low=0)))
    if rows[0][0] > 0:
        rows.insert(0, (0.0, 0.0))
    elif rows[0][1] != 0:
        refuse(f"{where}[0]", list(rows[0]), "sales at spend 0 must be 0: only what the spend brings counts")
    for index in range(1, len(rows)):
        if rows[index][0] <= rows[index - 1][0]:
            refuse(where, rows[index][0], "spend must rise from point to point")
        if rows[index][1] < rows[index - 1][1]:
            refuse(where, rows[index][1], "sales must not fall from point to point")
    if len(rows) < 2:
        refuse(where, given, "at least one point with spend above 0 was expected")
    return np.array(rows, float)


def read(given: object) -> Problem:
    """A checked problem from its JSON.

    Raises:
        BadInput: a field is missing, of the wrong type, out of range, contradicts another one,
            names an arm twice or one that is not there, or mixes currencies.
    """
    if not isinstance(given, Mapping):
        refuse("the problem", type(given).__name__, "an object with total_budget and arms was expected")
    warnings: list[str] = []
    known_keys(given, PROBLEM_KEYS, "", warnings)
    if "total_budget" not in given:
        raise BadInput("total_budget is missing: give the money to be split")
    budget = number(given["total_budget"], "total_budget", low=0)
    currency = text(given.get("currency", "USD"), "currency") or "USD"
    arms = given.get("arms")
    if not isinstance(arms, Sequence) or isinstance(arms, str):
        refuse("arms", arms, "a list of arms was expected")
    if not arms:
        raise BadInput("arms is empty: give at least one arm to spend on")
    columns = _Columns(budget, currency, warnings)
    for index, arm in enumerate(arms):
        columns.read(index, arm)
    std = np.array(columns.std)
    problem_groups = _groups(given.get("groups"), arms, columns.index, warnings)
    draws = _draws(given.get("draws"), columns, bool((std > 0).any()))
    if len({m is None for m in columns.margin}) > 1:
        warnings.append("some arms have no margin: their sales count in full beside the others' contribution")
    risk = number(given.get("risk_aversion") or 0.0, "risk_aversion", low=0, high=1)
    if risk > 0 and draws is None:
        if not (std > 0).any():
            refuse("risk_aversion", risk, "without draws or any arm's std there is no risk to avert; give one of them")
        draws = Draws(1000)
    gap = given.get("gap")
    periods = _periods(given.get("periods"), arms)
    curves, ready_CW = _braked(columns, periods)
    return Problem(
        ids=columns.ids,
        curves=curves,
        total_budget=budget,
        low_C=np.array(columns.low),
        high_C=np.array(columns.high),
        currency=currency,
        spend_all=flag(given.get("spend_all") or False, "spend_all"),
        gap=1e-6 if gap is None else number(gap, "gap", above=0, high=1),
        min_roas=optional(given.get("min_roas"), "min_roas", low=0),
        risk_aversion=risk,
        risk_tail=number(0.1 if given.get("risk_tail") is None else given["risk_tail"], "risk_tail", low=0, high=1),
        time_limit_s=number(given.get("time_limit_s", PATIENCE_S), "time_limit_s", above=0),
        gate_C=np.array(columns.gate) if any(columns.gate) else None,
        margin_C=None
        if all(m is None for m in columns.margin)
        else np.array([1.0 if m is None else m for m in columns.margin]),
        std_C=std if (std > 0).any() else None,
        last_C=np.array(columns.last) if not all(math.isnan(x) for x in columns.last) else None,
        groups=problem_groups,
        draws=draws,
        periods=periods,
        ready_CW=ready_CW,
        excluded_C=np.array(columns.excluded),
        fixed_C=np.array(columns.fixed),
        low_why=columns.low_why,
        high_why=columns.high_why,
        raw=given,
        warnings=tuple(warnings),
    )


class _Columns:
    """The arms' columns while they are read."""

    def __init__(self, budget: float, currency: str, warnings: list[str]) -> None:
        self.budget, self.currency, self.warnings = budget, currency, warnings
        self.ids: list[str] = []
        self.index: dict[str, int] = {}
        self.kind: list[int] = []
        self.scale: list[float] = []
        self.half: list[float] = []
        self.exponent: list[float] = []
        self.points: dict[int, Array] = {}
        self.low: list[float] = []
        self.high: list[float] = []
        self.gate: list[float] = []
        self.margin: list[float | None] = []
        self.std: list[float] = []
        self.last: list[float] = []
        self.excluded: list[bool] = []
        self.fixed: list[bool] = []
        self.ready: list[float | list[float]] = []
        self.low_why: dict[int, str] = {}
        self.high_why: dict[int, str] = {}

    def curves(self) -> Curves:
        return Curves(
            np.array(self.kind), np.array(self.scale), np.array(self.half), np.array(self.exponent), self.points
        )

    def read(self, index: int, arm: object) -> None:
        where = f"arms[{index}]"
        if not isinstance(arm, Mapping):
            refuse(where, arm, "an object was expected")
        known_keys(arm, ARM_KEYS, f"{where}.", self.warnings)
        name = arm.get("id")
        if not isinstance(name, str) or not name:
            refuse(f"{where}.id", name, "a text was expected")
        if name in self.index:
            raise BadInput(f"{where}.id is {name!r}, as arms[{self.index[name]}].id is: each arm needs its own")
        self.index[name] = index
        self.ids.append(name)
        for key in ("brand", "retailer", "campaign", "tactic", "readiness_why", "readiness_read"):
            text(arm.get(key), f"{where}.{key}")
        currency = text(arm.get("currency"), f"{where}.currency")
        if currency is not None and currency != self.currency:
            refuse(f"{where}.currency", currency, f"the problem is in {self.currency}; convert it first")
        evidence = arm.get("evidence")
        if evidence is not None and evidence not in EVIDENCE:
            refuse(f"{where}.evidence", evidence, f"one of {', '.join(EVIDENCE)} was expected")
        kind, scale, half, exponent, points = read_curve(arm.get("curve"), f"{where}.curve")
        self.kind.append(kind)
        self.scale.append(scale)
        self.half.append(half)
        self.exponent.append(exponent)
        if points is not None:
            self.points[index] = points
        std = arm.get("std")
        if isinstance(std, Mapping):
            known_keys(std, {"scale"}, f"{where}.std.", self.warnings)
            std = std.get("scale")
        self.std.append(optional(std, f"{where}.std.scale", low=0) or 0.0)
        self.margin.append(optional(arm.get("margin"), f"{where}.margin", low=0, high=1))
        self._bounds(index, arm, where)

    def _readiness(self, given: object, where: str) -> float | list[float]:
        """The share of the period, or of each week, in which what the arm advertises can be bought."""
        ready: float | list[float]
        if isinstance(given, Sequence) and not isinstance(given, str):
            ready = [number(one, f"{where}[{week}]", low=0, high=1) for week, one in enumerate(given)]
            if not ready:
                refuse(where, given, "a share for each week was expected")
        else:
            ready = number(1.0 if given is None else given, where, low=0, high=1)
        self.ready.append(ready)
        return ready

    def _bounds(self, index: int, arm: Mapping[str, Any], where: str) -> None:
        """The arm's own bounds together; which of them binds is kept for the reasons."""
        least = number(0 if arm.get("min") is None else arm["min"], f"{where}.min", low=0)
        most = optional(arm.get("max"), f"{where}.max", low=0)
        if most is not None and least > most:
            raise BadInput(f"{where}.min is {least:g}, above {where}.max {most:g}: lower the one or raise the other")
        gate = optional(arm.get("min_if_on"), f"{where}.min_if_on", low=0) or 0.0
        if most is not None and gate > most:
            raise BadInput(f"{where}.min_if_on is {gate:g}, above {where}.max {most:g}: the arm could never run")
        fixed = optional(arm.get("fixed"), f"{where}.fixed", low=0)
        last = optional(arm.get("last"), f"{where}.last", low=0)
        change = optional(arm.get("max_change"), f"{where}.max_change", low=0)
        if change is not None and last is None:
            raise BadInput(
                f"{where}.max_change is {change:g} but {where}.last is missing: give the last period's spend"
            )
        available = flag(True if arm.get("available") is None else arm["available"], f"{where}.available")
        ready = self._readiness(arm.get("readiness"), f"{where}.readiness")
        available = available and (ready if isinstance(ready, float) else max(ready)) > 0
        low, high = least, math.inf if most is None else most
        if change is not None and last is not None:
            if last * max(1 - change, 0.0) > low:
                low = last * (1 - change)
                self.low_why[index] = "change"
            if last * (1 + change) < high:
                high = last * (1 + change)
                self.high_why[index] = "change"
        if least > 0 or low > 0:
            if gate > low:
                low = gate
                self.low_why[index] = "min_if_on"
            gate = 0.0
        if fixed is not None and low <= fixed <= high and fixed >= gate:
            low = high = fixed
            gate = 0.0
        elif fixed is not None:  # contradicts another limit: kept as an empty range for the optimizer to explain
            if fixed < max(low, gate):
                low, high = max(low, gate), fixed
                self.high_why[index] = "fixed"
            else:
                low = fixed
                self.low_why[index] = "fixed"
            gate = 0.0
        if not available:
            if least > 0 or (fixed or 0) > 0:
                self.warnings.append(f"{where} is not available: its {'fixed' if fixed else 'min'} was set aside")
            low = high = gate = 0.0
        self.low.append(low)
        self.high.append(min(high, max(ROOM * self.budget, low)) if not (low > high) else high)
        if math.isinf(high) or high > self.budget:
            self.high_why[index] = "budget" if low <= high else self.high_why.get(index, "max")
        self.gate.append(gate)
        self.last.append(math.nan if last is None else last)
        self.excluded.append(not available)
        self.fixed.append(fixed is not None)


def _groups(
    given: object, arms: Sequence[Mapping[str, Any]], index: Mapping[str, int], warnings: list[str]
) -> tuple[Group, ...]:
    if given is None:
        return ()
    if not isinstance(given, Sequence) or isinstance(given, str):
        refuse("groups", given, "a list of groups was expected")
    found: list[Group] = []
    names: dict[str, int] = {}
    by_value: dict[str, dict[Any, list[int]]] = {}
    for number_, group in enumerate(given):
        where = f"groups[{number_}]"
        group = mapping(group, where)
        known_keys(group, GROUP_KEYS, f"{where}.", warnings)
        name = group.get("id")
        if not isinstance(name, str) or not name:
            refuse(f"{where}.id", name, "a text was expected")
        if name in names:
            raise BadInput(f"{where}.id is {name!r}, as groups[{names[name]}].id is: each group needs its own")
        names[name] = number_
        members = _members(group, where, arms, index, by_value)
        least = optional(group.get("min"), f"{where}.min", low=0)
        most = optional(group.get("max"), f"{where}.max", low=0)
        if least is not None and most is not None and least > most:
            raise BadInput(f"{where}.min is {least:g}, above {where}.max {most:g}: lower the one or raise the other")
        floor = optional(group.get("min_roas"), f"{where}.min_roas", low=0)
        if least is None and most is None and floor is None:
            warnings.append(f"{where} ({name}) sets no limit")
        found.append(Group(name, number_, members, least if least else None, most, floor if floor else None))
    return tuple(found)


def _members(
    group: Mapping[str, Any],
    where: str,
    arms: Sequence[Mapping[str, Any]],
    index: Mapping[str, int],
    by_value: dict[str, dict[Any, list[int]]],
) -> IntArray:
    """The arms that a group names, and those that its ``where`` finds: both together."""
    listed, wanted = group.get("arms"), group.get("where")
    if listed is None and wanted is None:
        raise BadInput(f"{where} names no arms: give arms or where")
    members: set[int] = set()
    if listed is not None:
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            refuse(f"{where}.arms", listed, "a list of arm ids was expected")
        for place, name in enumerate(listed):
            if not isinstance(name, str) or name not in index:
                refuse(f"{where}.arms[{place}]", name, "no arm has this id")
            members.add(index[name])
    if wanted:
        wanted = mapping(wanted, f"{where}.where")
        chosen: set[int] | None = None
        for key, value in wanted.items():
            if key not in WHERE_KEYS:
                refuse(f"{where}.where", key, f"one of {', '.join(WHERE_KEYS)} was expected")
            if key not in by_value:
                by_value[key] = {}
                for place, arm in enumerate(arms):
                    by_value[key].setdefault(arm.get(key), []).append(place)
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(v, str) for v in values):
                refuse(f"{where}.where.{key}", value, "a text or a list of texts was expected")
            hits = {place for v in values for place in by_value[key].get(v, ())}
            chosen = hits if chosen is None else chosen & hits
        members |= chosen or set()
    if not members:
        refuse(
            f"{where}.where" if wanted else f"{where}.arms",
            dict(wanted) if wanted else [],
            "no arm is in this group; check the spelling",
        )
    return np.array(sorted(members), dtype=np.int64)


def _draws(given: object, columns: _Columns, has_std: bool) -> Draws | None:
    if given is None:
        return None
    given = mapping(given, "draws")
    if set(given) <= {"n", "seed"} and not (set(given) & set(columns.index)):
        if not has_std:
            refuse("draws", dict(given), "no arm has a std to draw from; give std or the draws themselves")
        n = number(given.get("n", 1000), "draws.n", low=20, high=100_000)
        seed = number(given.get("seed", 1), "draws.seed", low=0)
        return Draws(int(n), int(seed))
    chosen: dict[int, tuple[Array, Array, Array]] = {}
    count: int | None = None
    for name, rows in given.items():
        where = f"draws.{name}"
        if name not in columns.index:
            refuse("draws", name, "no arm has this id")
        arm = columns.index[name]
        if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
            refuse(where, rows, "a list of curve draws was expected")
        if count is not None and len(rows) != count:
            refuse(where, f"{len(rows)} draws", f"the other arms have {count}: draws are joint, one row a world")
        count = len(rows)
        if columns.kind[arm] == PIECEWISE:
            refuse(where, "draws", "a piecewise curve has no parameters to draw; give its std")
        chosen[arm] = _drawn(rows, where, columns, arm)
    if count is None:
        refuse("draws", dict(given), "it names no arm")
    return Draws(count, given=chosen)


def _drawn(rows: Sequence[Any], where: str, columns: _Columns, arm: int) -> tuple[Array, Array, Array]:
    kind = columns.kind[arm]
    own = (columns.scale[arm], columns.half[arm], columns.exponent[arm])
    result = np.tile(np.array(own), (len(rows), 1))
    for number_, row in enumerate(rows):
        row = mapping(row, f"{where}[{number_}]")
        for column, key in enumerate(("scale", "half", "exponent")):
            if row.get(key) is None:
                continue
            high = {POWER: 1.0, LINEAR: 1.0, HILL: MOST_EXPONENT, MICHAELIS_MENTEN: MOST_EXPONENT}.get(kind)
            limits = {"above": 0.0} | ({"high": high} if key == "exponent" and high else {})
            least = {"low": 0.0} if key == "scale" else limits
            result[number_, column] = number(row[key], f"{where}[{number_}].{key}", **least)
    if kind == LOG:
        result[:, 2] = 1.0  # a Michaelis-Menten curve may draw one: it is a Hill curve of exponent 1
    return result[:, 0], result[:, 1], result[:, 2]


def _braked(columns: _Columns, periods: Periods | None) -> tuple[Curves, Array | None]:
    """The curves as far as the arms can sell: an arm that is ready for a share r of the time has the curve of a
    period as long as that, ``r f(s / r)``. With weeks each week has its own share."""
    curves = columns.curves()
    if all(ready == 1.0 for ready in columns.ready):
        return curves, None
    if periods is None:
        share_C = np.array([float(np.mean(ready)) for ready in columns.ready])
        return curves.stretched(np.where(share_C > 0, share_C, 1.0)), None
    rows = []
    for index, ready in enumerate(columns.ready):
        row = [ready] * periods.weeks if isinstance(ready, float) else ready
        if len(row) != periods.weeks:
            refuse(f"arms[{index}].readiness", f"{len(row)} shares", f"one for each of the {periods.weeks} weeks")
        rows.append(row)
    return curves, np.array(rows)


def _periods(given: object, arms: Sequence[Mapping[str, Any]]) -> Periods | None:
    if given is None:
        return None
    given = mapping(given, "periods")
    weeks = number(given.get("weeks"), "periods.weeks", low=1, high=520)
    if weeks != int(weeks):
        refuse("periods.weeks", weeks, "a whole number was expected")
    rates = mapping(given.get("adstock") or {}, "periods.adstock")
    tactics = {arm.get("tactic") for arm in arms}
    for tactic, rate in rates.items():
        number(rate, f"periods.adstock.{tactic}", low=0, high=0.99)
        if tactic not in tactics:
            refuse("periods.adstock", tactic, "no arm has this tactic")
    return Periods(int(weeks), np.array([float(rates.get(str(arm.get("tactic")), 0.0)) for arm in arms]))

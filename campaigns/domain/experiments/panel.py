"""Outcomes by unit and period, read from a table and checked."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput

SEPARATORS = (",", ";", "\t", "|")
EMPTY = ("", "NA", "NaN", "nan", "None", "null")


@dataclass(frozen=True)
class Panel:
    """A balanced panel: every unit has one value in every period."""

    units: tuple[str, ...]
    times: tuple[str, ...]  # in order, as the table wrote them
    y_UT: Array

    def rows_of(self, names: Sequence[str], where: str) -> list[int]:
        """Places of units by name, case ignored.

        Raises:
            BadInput: a unit that the panel does not have, with near ones.
        """
        known = {unit.casefold(): place for place, unit in enumerate(self.units)}
        found = []
        for name in names:
            place = known.get(str(name).strip().casefold())
            if place is None:
                near = [u for u in self.units if u[:3].casefold() == str(name)[:3].casefold()][:3]
                hint = f"; near ones: {', '.join(near)}" if near else f"; there are {len(self.units)} units"
                raise BadInput(f"{where}: {name!r} is no unit of the data{hint}")
            found.append(place)
        return found

    def place_of(self, time: Any, where: str, *, last: bool = False) -> int:
        """A period by its own text, or the first after (last before) it where the order of texts tells."""
        text = str(time).strip().removesuffix(" 00:00:00").removesuffix("T00:00:00")
        if text in self.times:
            return self.times.index(text)
        keys = sorted_keys(self.times)
        key = _key_like(text, self.times)
        if type(key) is not type(keys[0]):
            raise BadInput(f"{where}: {text!r} is no period of the data ({self.times[0]} to {self.times[-1]})")
        if last and isinstance(key, str):  # a day includes its hours
            inside = [i for i, k in enumerate(keys) if k[: len(key)] <= key]
        else:
            inside = [i for i, k in enumerate(keys) if (k <= key if last else k >= key)]
        if not inside:
            raise BadInput(f"{where}: {text!r} lies outside the data ({self.times[0]} to {self.times[-1]})")
        return inside[-1] if last else inside[0]


def sorted_keys(times: Sequence[str]) -> list[Any]:
    """What orders the periods: numbers where all are, dates in the ways people write them, else the texts."""
    try:
        return [float(time) for time in times]
    except ValueError:
        pass
    for pattern in _patterns(times):
        try:
            return [datetime.strptime(time, pattern).isoformat() for time in times]  # noqa: DTZ007  # calendar days
        except ValueError:
            continue
    return list(times)


def _key_like(text: str, times: Sequence[str]) -> Any:
    """The key of one more period beside the others'; an ISO date may be asked for whatever way theirs are written."""
    keys = sorted_keys([*times, text])
    if keys[:-1] == sorted_keys(times):
        return keys[-1]
    try:
        own = float(text)
    except ValueError:
        try:
            return datetime.fromisoformat(text).isoformat()
        except ValueError:
            return text
    return own


def _patterns(times: Sequence[str]) -> list[str]:
    """Ways of writing dates that these may follow; where day and month could be either, the month is first."""
    first = times[0] if len(times) else ""
    if "/" in first:
        return ["%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%Y/%m/%d", "%m/%d/%Y %H:%M"]
    if "." in first:
        return ["%d.%m.%Y", "%d.%m.%y", "%Y.%m.%d"]
    if any(letter.isalpha() for letter in first) or "-" in first[:3]:
        return [
            "%d-%b-%Y",
            "%d-%b-%y",
            "%b %d, %Y",
            "%d %b %Y",
            "%b %Y",
            "%B %Y",
            "%b-%Y",
            "%b-%y",
            "%d-%m-%Y",
            "%m-%d-%Y",
        ]
    return []


def table(path: Path) -> pl.DataFrame:
    """A CSV with any usual separator, all columns as text.

    Raises:
        BadInput: no such file, or no table.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; paths are relative to the specification")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.readline()
    counts = {mark: len(next(csv.reader([head], delimiter=mark), [])) for mark in SEPARATORS}
    mark = max(counts, key=lambda m: counts[m])
    try:
        frame = pl.read_csv(path, separator=mark, infer_schema=False, truncate_ragged_lines=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a table: {str(error).splitlines()[0]}") from None
    if not frame.height:
        raise BadInput(f"{path}: has no rows")
    return frame.rename({name: name.strip().strip('"').lstrip("\ufeff") for name in frame.columns})


def column(frame: pl.DataFrame, name: Any, where: str) -> str:
    """The column's own name, case ignored.

    Raises:
        BadInput: there is none.
    """
    for own in frame.columns:
        if own == name:
            return own
    for own in frame.columns:
        if str(name).casefold() == own.casefold():
            return own
    raise BadInput(f"{where}: column {name!r} is missing; the data have {', '.join(frame.columns[:12])}")


def numbers(frame: pl.DataFrame, name: str, where: str) -> Array:
    """A column as finite numbers.

    Raises:
        BadInput: a cell that is none, with its row.
    """
    quick = frame[name].cast(pl.Float64, strict=False).to_numpy()
    if np.isfinite(quick).all():
        return np.asarray(quick, float).copy()
    values = frame[name].to_list()
    result = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            result[row] = float(value)
        except (TypeError, ValueError):
            raise BadInput(f"{where} row {row + 2}: {name} is {value!r}; a number was expected") from None
        if not np.isfinite(result[row]):
            raise BadInput(f"{where} row {row + 2}: {name} is {value!r}; a finite number was expected")
    return result


def panel(
    frame: pl.DataFrame, unit: Any, time: Any, outcome: Any, where: str = "data", *, fill: float | None = None
) -> Panel:
    """The table as a balanced panel; a missing cell is ``fill`` where that is given.

    Raises:
        BadInput: a column or cell is missing, a unit has a period twice or lacks one, or goes back in time.
    """
    unit, time, outcome = (column(frame, name, where) for name in (unit, time, outcome))
    values = numbers(frame, outcome, where)
    names = [str(value).strip() for value in frame[unit].to_list()]
    texts = [str(value).strip() for value in frame[time].to_list()]
    if any(name in ("", "None") for name in names):
        raise BadInput(f"{where} row {next(i for i, n in enumerate(names) if n in ('', 'None')) + 2}: {unit} is empty")
    distinct = list(dict.fromkeys(texts))
    keys = dict(zip(distinct, sorted_keys(distinct), strict=True))
    times = sorted(distinct, key=lambda text: keys[text])
    units = sorted(set(names))
    place = {name: i for i, name in enumerate(units)}
    when = {text: i for i, text in enumerate(times)}
    y_UT = np.full((len(units), len(times)), np.nan)
    rows, columns = [place[name] for name in names], [when[text] for text in texts]
    y_UT[rows, columns] = values
    if np.isfinite(y_UT).sum() < len(values):
        seen: set[tuple[int, int]] = set()
        for row, cell in enumerate(zip(rows, columns, strict=True)):
            if cell in seen:
                raise BadInput(f"{where} row {row + 2}: {names[row]} has {texts[row]} twice")
            seen.add(cell)
    in_order(names, texts, where)
    if fill is not None:
        y_UT = np.where(np.isnan(y_UT), fill, y_UT)
    whole(times, where)
    gaps = np.argwhere(np.isnan(y_UT))
    if len(gaps):
        at = gaps[0]
        raise BadInput(
            f"{where}: {units[at[0]]} has no {outcome} for {times[at[1]]} ({len(gaps)} gaps in all); fill them, or leave the unit out"
        )
    return Panel(tuple(units), tuple(times), y_UT)


def in_order(units: Sequence[str], times: Sequence[str], where: str) -> None:
    """Refuse rows of one unit that go back in time: dates that are read in another way than meant look like this.

    Raises:
        BadInput: the first such row.
    """
    distinct = list(dict.fromkeys(times))
    keys = dict(zip(distinct, sorted_keys(distinct), strict=True))
    last: dict[str, str] = {}
    for row, (unit, time) in enumerate(zip(units, times, strict=True)):
        before = last.get(unit, time)
        if keys[time] < keys[before]:
            raise BadInput(
                f"{where} row {row + 2}: {unit} goes back from {before} to {time}; sort the rows by date, and write dates like 2026-07-01"
            )
        last[unit] = time


def whole(times: Sequence[str], where: str) -> None:
    """Daily data must have every day; a weekday that never occurs (shops closed on Sundays) is none of them.

    Raises:
        BadInput: days are missing, with the first.
    """
    try:
        days = [date.fromisoformat(str(key)[:10]) for key in sorted_keys(times)]
    except ValueError:
        return  # not dates
    steps = [(b - a).days for a, b in pairwise(days)]
    if not steps or statistics.mode(steps) != 1:
        return
    open_on = {day.weekday() for day in days}
    inside = (days[0] + timedelta(n) for n in range((days[-1] - days[0]).days))
    absent = sorted({day for day in inside if day.weekday() in open_on} - set(days))
    if absent:
        raise BadInput(
            f"{where}: {absent[0]} is missing for every unit ({len(absent)} days in all); a daily series must be whole"
        )


def no_negative(values: Array, frame: pl.DataFrame, name: str, where: str) -> None:
    """Refuse a column of money with a negative amount.

    Raises:
        BadInput: the first negative amount, with its row.
    """
    below = np.flatnonzero(values < 0)
    if len(below):
        at = int(below[0])
        raise BadInput(f"{where} row {at + 2}: {name} is {frame[name][at]!r}; a cost of at least 0 was expected")


def means(
    frame: pl.DataFrame, unit: str, time: str, name: str, periods: Collection[str], units: Sequence[str], where: str
) -> Array:
    """Mean of a column by unit over some periods, cells without a number left out.

    Raises:
        BadInput: a unit has no number in these periods, or a cell is no number.
    """
    sums, counts = dict.fromkeys(units, 0.0), dict.fromkeys(units, 0)
    rows = zip(frame[unit].to_list(), frame[time].to_list(), frame[name].to_list(), strict=True)
    for row, (one, when, value) in enumerate(rows):
        who = str(one).strip()
        if who not in sums or str(when).strip() not in periods or value is None or str(value).strip() in EMPTY:
            continue
        try:
            sums[who] += float(value)
        except (TypeError, ValueError):
            raise BadInput(f"{where} row {row + 2}: {name} is {value!r}; a number was expected") from None
        counts[who] += 1
    for who in units:
        if not counts[who]:
            raise BadInput(f"{where}: {who} has no {name} in the periods of this predictor")
    return np.array([sums[who] / counts[who] for who in units])


def of_spec(spec: Mapping[str, Any], folder: Path | None, frame: pl.DataFrame | None) -> tuple[pl.DataFrame, str]:
    """The data a specification names, or the frame given beside it."""
    if frame is not None:
        return frame, "data"
    if not isinstance(spec.get("data"), str):
        raise BadInput("data: the path of a CSV was expected")
    path = Path(spec["data"])
    path = path if path.is_absolute() or folder is None else folder / path
    return table(path), path.name

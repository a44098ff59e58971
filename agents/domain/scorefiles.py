"""Files of forecasts, ratings, contests and paired results, and their arithmetic: what ``score`` does."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from agents.domain import calibration
from feedback.domain import agreement, ranking
from rmn.lib import stats
from rmn.lib.arrays import Array
from rmn.lib.errors import BadInput

PROBABILITIES = ("probability", "prob1", "p", "forecast", "confidence")
OUTCOMES = ("outcome", "prob1_outcome", "y", "observed", "happened")
TRUTH = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


def table(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a CSV, a JSON list or JSON Lines.

    Raises:
        BadInput: not text in UTF-8, not a table, or empty; with the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson") or text.lstrip()[:1] in ("{", "["):
        rows = _json_rows(path, text)
    else:
        rows = []
        for number, row in enumerate(csv.DictReader(text.splitlines()), 2):
            if None in row or None in row.values():
                raise BadInput(f"{path} line {number}: has another number of columns than the heading")
            rows.append(dict(row))
    if not rows:
        raise BadInput(f"{path}: no rows")
    return rows


def _json_rows(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        whole = json.loads(text)
        rows = whole if isinstance(whole, list) else [whole]
    except ValueError:
        rows = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise BadInput(f"{path} line {number}: not JSON: {error}") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise BadInput(f"{path} row {number}: an object was expected, this is {type(row).__name__}")
    return rows


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool):
        return float(value)
    text = str(value).strip().lower()
    try:
        number = TRUTH[text] if text in TRUTH else float(text)
    except ValueError:
        raise BadInput(f"{where}: {value!r} is not a number") from None
    if number != number or abs(number) == float("inf"):
        raise BadInput(f"{where}: {value!r} is not a finite number")
    return number


def _column(rows: list[dict[str, Any]], names: tuple[str, ...], path: str | Path, what: str) -> str:
    found = next((name for name in names if name in rows[0]), None)
    if found is None:
        raise BadInput(f"{path}: no column of {what}; name it {names[0]}; there are {', '.join(map(str, rows[0]))}")
    return found


def forecasts(path: str | Path) -> tuple[Array, Array]:
    """Probabilities and outcomes of the binary forecasts in a file; rows not resolved to 0 or 1 are left out."""
    rows = table(path)
    p_name = _column(rows, PROBABILITIES, path, "probabilities")
    y_name = _column(rows, OUTCOMES, path, "outcomes")
    pairs = []
    for number, row in enumerate(rows, 1):
        if row.get(y_name) in (None, ""):
            continue
        outcome = _number(row[y_name], f"{path} row {number}, {y_name}")
        if outcome in (0.0, 1.0):
            pairs.append((_number(row.get(p_name), f"{path} row {number}, {p_name}"), outcome))
    if not pairs:
        raise BadInput(f"{path}: no forecast that resolved to 0 or 1")
    return calibration.checked(*zip(*pairs, strict=True))


def score_forecasts(path: str | Path) -> dict[str, Any]:
    """Scores of the forecasts in a file; with a probability of a tie, of three-way forecasts."""
    rows = table(path)
    if "probtie" not in rows[0]:
        return calibration.scores(*forecasts(path))
    sides = ("prob1", "probtie", "prob2")
    played = [row for row in rows if row.get("prob1_outcome") not in (None, "")]
    p = [[_number(row.get(side), f"{path}, {side}") for side in sides] for row in played]
    y = [[_number(row.get(f"{side}_outcome"), f"{path}, {side}_outcome") for side in sides] for row in played]
    classes = {}
    for place, side in enumerate(sides):
        classes[side] = calibration.scores([each[place] for each in p], [each[place] for each in y])
    return {
        "n": len(played),
        "multiclass_brier_sum_over_3_outcomes": calibration.multiclass_brier(p, y),
        "classes": classes,
    }


def score_agreement(path: str | Path) -> dict[str, Any]:
    """Agreement of raters: first column the unit, then one column for each rater, empty where not rated."""
    rows = table(path)
    raters = [str(name) for name in list(rows[0])[1:]]
    if len(raters) < 2:
        raise BadInput(f"{path}: agreement needs a unit column and at least two raters")
    cells = [[row.get(rater) for rater in raters] for row in rows]
    return agreement.summary(agreement.coded(cells), raters)


def score_ranking(path: str | Path) -> dict[str, Any]:
    """Strengths from contests: item_a, item_b, wins_a, wins_b, ties."""
    contests = []
    for number, row in enumerate(table(path), 1):
        if not str(row.get("item_a") or "").strip() or not str(row.get("item_b") or "").strip():
            raise BadInput(f"{path} row {number}: needs item_a, item_b, wins_a, wins_b and ties")
        wins = [_number(row.get(name) or 0, f"{path} row {number}, {name}") for name in ("wins_a", "wins_b", "ties")]
        contests.append(ranking.Contest(str(row["item_a"]).strip(), str(row["item_b"]).strip(), *wins))
    return ranking.fit(contests).row()


def score_paired(path: str | Path) -> list[dict[str, Any]]:
    """Paired tests of 2 x 2 tables, or intervals of win rates, one for each row."""
    return [_paired(row, f"{path} row {number}") for number, row in enumerate(table(path), 1)]


def _paired(row: dict[str, Any], where: str) -> dict[str, Any]:
    def count(name: str) -> int:
        number = _number(row.get(name), f"{where}, {name}")
        if number < 0 or number != int(number):
            raise BadInput(f"{where}, {name}: a count was expected, not {row.get(name)!r}")
        return int(number)

    if "wins" in row:
        wins, n = count("wins"), count("n")
        if not n > 0 or wins > n:
            raise BadInput(f"{where}: {wins} wins of {n}")
        return {
            "wins": wins,
            "n": n,
            "win_rate": wins / n,
            "wilson95": list(stats.wilson(wins, n)),
            "clopper_pearson95": list(stats.clopper_pearson(wins, n)),
            "binom_two_sided_p_vs_half": stats.binomial_p(wins, n),
        }
    names = ("both_right", "a_only", "b_only", "both_wrong")
    if any(name not in row for name in names):
        raise BadInput(f"{where}: needs {', '.join(names)}, or wins and n")
    counts = [count(name) for name in names]
    test = stats.mcnemar(*counts)
    return dict(zip(names, counts, strict=True)) | {
        "n": test.n,
        "exact_p": test.exact_p,
        "chi2_continuity": test.chi2_continuity,
        "chi2_continuity_p": test.chi2_continuity_p,
        "chi2": test.chi2,
        "chi2_p": test.chi2_p,
        "diff_a_minus_b": test.difference,
        "wald_se": test.wald_se,
        "wald_ci95": list(test.wald_interval),
    }

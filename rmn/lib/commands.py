"""The command line as one door: read files, write files, one line on stderr when something is wrong."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from rmn.lib.errors import BadInput, RmnError


class OneLineParser(CommandParser):
    """An argument error is one line, not a usage dump."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.split()[-1]}: {message}; see --help\n")


class RmnCommand(BaseCommand):
    """Base of all commands: exit 0, or 2 with one line on stderr.

    Subclasses implement ``run(**options)``. Anything foreseen (RmnError, a missing file, a broken
    database) becomes that line; a defect of ours keeps its traceback only with --traceback.
    """

    example = ""
    requires_system_checks: list[str] = []  # type: ignore[assignment]  # a command answers at once

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        if self.example:
            kwargs.setdefault("epilog", f"Example: python manage.py {self.example}")
        parser = OneLineParser(prog=f"{Path(prog_name).name} {subcommand}", description=self.help or None, **kwargs)
        self.add_base_argument(parser, "--version", action="version", version=self.get_version())
        self.add_base_argument(parser, "-v", "--verbosity", default=1, type=int, choices=[0, 1, 2, 3])
        self.add_base_argument(parser, "--settings", help="Python path of the settings module.")
        self.add_base_argument(parser, "--pythonpath", help="A folder to add to the Python path.")
        self.add_base_argument(parser, "--traceback", action="store_true", help="Show where an error arose.")
        self.add_base_argument(parser, "--no-color", action="store_true", help="No colours.")
        self.add_base_argument(parser, "--force-color", action="store_true", help="Colours even in a file.")
        self.add_base_argument(parser, "--skip-checks", action="store_true", help="Skip system checks.")
        self.add_arguments(parser)
        return parser

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002
        from rmn.lib import tenancy  # the operator of the machine acts for every brand

        if options.get("verbosity", 1) < 2:
            logging.getLogger().setLevel(logging.WARNING)  # stderr is for progress and the one line
        try:
            with tenancy.everyone():
                self.run(**options)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except CommandError:
            raise
        except Exception as error:
            if options.get("traceback"):
                raise
            self.fail(explain(error))

    def run(self, **options: Any) -> None:
        raise NotImplementedError

    def fail(self, message: str) -> NoReturn:
        name = type(self).__module__.rsplit(".", 1)[-1]
        self.stderr.write(f"{name}: {' '.join(message.split())}")
        sys.exit(2)

    def answer(self, result: Any, out: str | None) -> None:
        """Write ``result`` as JSON to ``out``, or to stdout."""
        text = json.dumps(result, indent=2, ensure_ascii=False, default=str, allow_nan=False) + "\n"
        if out:
            write_text(Path(out), text)
        else:
            self.stdout.write(text, ending="")

    def track(self, items: Iterable[Any], total: int | None = None, what: str = "") -> Iterator[Any]:
        """Yield items; after two seconds show how far we are on stderr."""
        meter = Meter(self.stderr._out if hasattr(self.stderr, "_out") else sys.stderr, what, total)
        for done, item in enumerate(items, 1):
            yield item
            meter.show(done)
        meter.close()


class Meter:
    """Progress on stderr for work over two seconds: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, stream: Any = None, what: str = "", total: int | None = None) -> None:
        self.stream = stream or sys.stderr
        self.what, self.total = what, total
        self.started = self.last = time.monotonic()
        self.live = bool(getattr(self.stream, "isatty", lambda: False)())
        self.drawn = False

    def show(self, done: float, note: str = "") -> None:
        now = time.monotonic()
        if now - self.started < 2 or now - self.last < (0.2 if self.live else 5):
            return
        self.last, self.drawn = now, True
        share = f"{done / self.total:4.0%} " if self.total else f"{done:,.0f} "
        bar = ""
        if self.live and self.total:
            filled = int(24 * min(done / self.total, 1))
            bar = "[" + "#" * filled + "-" * (24 - filled) + "] "
        line = f"{self.what} {bar}{share}{now - self.started:.0f} s {note}".strip()
        self.stream.write(f"\r{line}\x1b[K" if self.live else line + "\n")
        self.stream.flush()

    def close(self) -> None:
        if self.drawn and self.live:
            self.stream.write("\n")


def explain(error: Exception) -> str:
    """One line: what, where, why and, where we know it, what to do."""
    if isinstance(error, RmnError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: no such file; check the path"
    if isinstance(error, IsADirectoryError):
        return f"{error.filename}: is a folder, a file was expected"
    if isinstance(error, OSError):
        return f"{error.filename or 'file'}: {error.strerror or error}"
    if isinstance(error, DatabaseError):
        return f"database: {error}; is it migrated? (python manage.py migrate)"
    return f"unexpected {type(error).__name__}: {error}; run again with --traceback and report it"


def read_json(path: str | Path) -> Any:
    """The JSON in a file.

    Raises:
        BadInput: not UTF-8, not JSON, a duplicate key, or NaN or Infinity, with the place.
    """
    path = Path(path)
    strange: list[_Constant] = []

    def constant(name: str) -> _Constant:
        strange.append(_Constant(name))
        return strange[-1]

    try:
        found = json.loads(
            path.read_text(encoding="utf-8-sig"), parse_constant=constant, object_pairs_hook=_refuse_duplicates
        )
        if strange:
            raise ValueError(f"{_place_of(found, strange[0])} is {strange[0].name}: a finite number was expected")
        return found
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: not JSON at line {error.lineno} column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise BadInput(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from None


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, one at a time.

    Raises:
        BadInput: a line is not a JSON object, with its number.
    """
    path = Path(path)
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant)
            except (UnicodeDecodeError, ValueError, RecursionError) as error:
                raise BadInput(f"{path} line {number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise BadInput(f"{path} line {number}: an object was expected, this is {type(row).__name__}")
            yield row


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows to a file that appears whole or not at all; returns how many."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, default=str, allow_nan=False) + "\n")
                count += 1
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _Constant:
    """NaN or Infinity, until its place is known."""

    def __init__(self, name: str) -> None:
        self.name = name


def _place_of(value: Any, wanted: _Constant, place: str = "") -> str:
    """Where something stands in parsed JSON, such as arms[0].curve.scale; empty where it does not."""
    if value is wanted:
        return place or "the file"
    parts: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        parts = [(f"{place}.{key}" if place else str(key), part) for key, part in value.items()]
    elif isinstance(value, list):
        parts = [(f"{place}[{number}]", part) for number, part in enumerate(value)]
    return next((found for where, part in parts if (found := _place_of(part, wanted, where))), "")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON knows")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found

"""Broken report files by the seed: what damaged exports, careless hands and enemies send.

``python -m tests.faults.bad_files [COUNT]`` writes, reads and throws away so many, and says what became of each kind.
"""

from __future__ import annotations

import collections
import gzip
import io
import json
import random
import resource
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

HEAD = "Date,Campaign ID,Impressions,Clicks,Spend,Currency,Sales\n"
LINE = "2026-01-{d:02},c{n},10,1,1.10,USD,5\n"
MAPPING = """
mapping: fault/days
version: 1
grain: campaign
fields:
  date: {from: Date, required: true}
  time_zone: {constant: UTC}
  currency: {from: Currency, required: true}
  campaign_id: {from: Campaign ID, required: true}
  impressions: {from: Impressions, required: true}
  clicks: {from: Clicks, required: true}
  spend: {from: Spend, required: true}
outcomes:
  - {from: Sales, metric: sales, window_days: 7, interaction: click, model: last_touch, scope: all}
"""


def good(rng: random.Random, rows: int = 30) -> str:
    return HEAD + "".join(LINE.format(d=1 + n % 28, n=rng.randrange(10**6) * 100 + n) for n in range(rows))


def _bytes(rng: random.Random) -> bytes:
    data = bytearray(good(rng).encode())
    for _ in range(rng.randrange(1, 40)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _cell(rng: random.Random) -> bytes:
    """One cell of every row is something else."""
    lines = good(rng).splitlines()
    place = rng.randrange(7)
    value = rng.choice(
        ["=1+1", "=cmd|' /C calc'!A0", "@SUM(A1)", "NaN", "inf", "-1", "9" * 400, "1e999", "<script>alert(1)</script>", "12,34",
         "\ud800".encode("utf-8", "replace").decode(), "None", "01/02/2026", "32/13/2026", "XXX", "\U0001f600" * 50, "1.2.3", "0x1F", "'; DROP TABLE"]
    )  # fmt: skip
    for n in range(1, len(lines)):
        cells = lines[n].split(",")
        cells[place] = f'"{value}"'
        lines[n] = ",".join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _ragged(rng: random.Random) -> bytes:
    lines = good(rng).splitlines()
    for n in range(1, len(lines)):
        lines[n] = (
            lines[n] + ",x" * rng.randrange(1, 4)
            if rng.random() < 0.5
            else lines[n].rsplit(",", rng.randrange(1, 5))[0]
        )
    return "\n".join(lines).encode()


def _bomb(rng: random.Random) -> bytes:
    zeros = b"0" * (rng.randrange(80, 120) * 2**20)
    if rng.random() < 0.5:
        return gzip.compress(zeros, 1)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.csv", zeros)
    return out.getvalue()


def _zip(rng: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for n in range(rng.choice([0, 2, 3])):
            archive.writestr(f"../../r{n}.csv", good(rng))
    return out.getvalue() if rng.random() < 0.6 else out.getvalue()[: rng.randrange(10, 60)]


def _json(rng: random.Random) -> bytes:
    return rng.choice(
        [b"[" * 5000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b'[{"Date": NaN}]', b'[{"Date": "\\ud800"}]', b'[{"Date": "\\u0000"}]', b"[1, 2, 3]",
         b'{"rows": {}}', b"[{}]", b'[{"Date": "2026-01-01", "Date": "x"}]', b'{"columns": ["a"], "rows": [[1, 2]]}', b'[{"a": 1},', b"[" + b"9" * 5000 + b"]",
         json.dumps([{f"k{n}": 1 for n in range(5000)}]).encode(), b'[{"Date": 1e400}]', b"\xff\xfe[\x00"]
    )  # fmt: skip


def _xlsx(rng: random.Random) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(HEAD.strip().split(","))
    for n in range(30):
        sheet.append(["=TODAY()", f"=1+{n}", rng.choice(["#REF!", "x", None]), 1, "=A1", "USD", 5])
    if rng.random() < 0.3:
        sheet.delete_rows(1, 40)
    out = io.BytesIO()
    book.save(out)
    data = out.getvalue()
    if rng.random() < 0.6:  # a wrong dimension, or XML entities, in the sheet
        names = zipfile.ZipFile(io.BytesIO(data))
        fresh = io.BytesIO()
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
            for item in names.infolist():
                body = names.read(item)
                if item.filename.endswith("sheet1.xml"):
                    body = body.replace(b'ref="A1:', b'ref="A1:XFD1048576" x="A1:') if rng.random() < 0.5 else body
                    if rng.random() < 0.5:
                        body = body.replace(
                            b"<worksheet", b'<!DOCTYPE w [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><worksheet', 1
                        )
                archive.writestr(item, body)
        data = fresh.getvalue()
    return data


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "flipped bytes": _bytes,
    "wrong encoding": lambda rng: ("é" + good(rng).replace("c", "ü")).encode(rng.choice(["cp1252", "utf-16-be", "cp500", "utf-7"])),
    "NUL": lambda rng: good(rng).encode().replace(b"USD", b"U\0D", rng.randrange(1, 20)),
    "lone surrogate": lambda rng: good(rng).encode() + b"2026-01-01,\xed\xa0\x80,1,1,1,USD,1\n",
    "odd cells": _cell,
    "ragged rows": _ragged,
    "duplicate headers": lambda rng: good(rng).replace("Clicks", "Spend", 1).encode(),
    "a million columns": lambda rng: b",".join(b"c%d" % n for n in range(rng.choice([3000, 1_000_000]))) + b"\n1\n",
    "a single long line": lambda rng: b"x" * (rng.choice([9, 200]) * 2**20),
    "archive bomb": _bomb,
    "broken archive": _zip,
    "cut off": lambda rng: good(rng).encode()[: rng.randrange(1, 80)],
    "ambiguous dates": lambda rng: good(rng).replace("2026-01-", "01/02/20").encode(),
    "contradictory currency": lambda rng: good(rng).replace(",1.10,", ',"€1.10",').encode(),
    "unclosed quote": lambda rng: good(rng).replace(",c", ',"c', rng.randrange(1, 9)).encode(),
    "JSON": _json,
    "workbook": _xlsx,
    "an error page": lambda rng: b"<html><body>502 Bad Gateway</body></html>" * rng.randrange(1, 9),
    "empty": lambda rng: rng.choice([b"", b"\n\n\n", HEAD.encode(), b"\xef\xbb\xbf", b" "]),
    "something else": lambda rng: rng.choice([b"%PDF-1.7", b"\xd0\xcf\x11\xe0", b"PAR1", b"\x1f\x8b", b"PK\x03\x04"]) + rng.randbytes(200),
}  # fmt: skip
SUFFIX = {"JSON": ".json", "workbook": ".xlsx", "archive bomb": ".gz"}
SLOW = ("a single long line", "archive bomb", "a million columns")  # a second each


def make(seed: int, folder: Path) -> tuple[str, Path]:
    """The broken file of a seed, and its kind."""
    rng = random.Random(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    path = folder / f"bad{seed}{SUFFIX.get(kind, '.csv')}"
    path.write_bytes(KINDS[kind](rng))
    return kind, path


def attempt(path: Path, out: Path) -> str:
    """What becomes of a file: 'refused: ...' with nothing written, or 'taken: ...' with a reason for each row that is not.

    Raises:
        AssertionError: a part of a file was written, or a reason is missing.
    """
    from retailers.connectors.files import open_feed
    from retailers.domain import harmonizer
    from retailers.domain import mapping as mappings
    from rmn.lib.errors import BadInput

    mapping = mappings.parse(MAPPING)
    try:
        with open_feed(path, mapping.dialect, mapping.wanted) as feed:
            report = harmonizer.run(feed, mapping, out)
    except BadInput as error:
        said = str(error)
        if len(said) < 15 or "\n" in said or (out.exists() and any(out.iterdir())):
            raise AssertionError(
                f"{path.name}: {said!r}, left {list(out.iterdir()) if out.exists() else []}"
            ) from error
        return f"refused: {said[:120]}"
    if report["rows_accepted"] + report["rows_quarantined"] != report["rows_read"]:
        raise AssertionError(f"{path.name}: rows in are not rows out: {report}")
    if sum(report["reasons"].values()) != report["rows_quarantined"]:
        raise AssertionError(f"{path.name}: a row without its reason: {report}")
    return f"taken: {report['rows_accepted']} rows, kept apart {report['reasons']}"


def main(count: int) -> int:
    ends: collections.Counter[tuple[str, str]] = collections.Counter()
    crashes = 0
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(count):
            kind, path = make(seed, Path(scratch))
            try:
                said = attempt(path, Path(scratch) / f"out{seed}")
            except Exception as error:  # noqa: BLE001  # a crash is what is counted
                crashes += 1
                sys.stdout.write(f"{seed} {kind}: {type(error).__name__}: {error}" + "\n")
                said = "crashed"
            ends[kind, said.split(":")[0]] += 1
            path.unlink()
    for (kind, end), times in sorted(ends.items()):
        sys.stdout.write(f"{kind}: {end} {times}" + "\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{count} files, {crashes} crashes, {peak:,.0f} MiB at most" + "\n")
    return crashes


if __name__ == "__main__":
    sys.exit(1 if main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000) else 0)

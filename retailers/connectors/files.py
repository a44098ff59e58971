"""Opens a feed file, whatever its format, as a polars LazyFrame of text columns with row numbers.

CSV and Parquet stream from disk. JSON is flattened to dotted columns record by record, XLSX sheets
are read whole (the format holds at most a million rows). Archives are unpacked into a private
folder under a limit, so that a bomb fails by name and not by filling the machine.
"""

from __future__ import annotations

import codecs
import csv
import fnmatch
import gzip
import hashlib
import io
import json
import re
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import polars.selectors as cs

from retailers.domain.feed import OVERFLOW, ROW, Feed
from retailers.domain.mapping import Dialect, normalise
from rmn.lib.errors import BadInput

MAX_COLUMNS = 2000
MAX_LINE = 8 * 2**20
MAX_UNPACKED = 64 * 2**30
MAX_RATIO = 250  # real reports pack 5 to 40 times; a bomb a thousand times
SMALL = 64 * 2**20  # below this a high ratio harms nobody
MAX_JSON = 256 * 2**20
MAX_CELLS = 20_000_000
HEAD_BYTES = 1 << 18
HEAD_RECORDS = 60
CHUNK = 1 << 20
BATCH = 20_000
JSON_KINDS = ("json", "ndjson")


@contextmanager
def open_feed(
    path: str | Path, dialect: Dialect | None = None, wanted: frozenset[str] = frozenset(), temporary: str | None = None
) -> Iterator[Feed]:
    """Open a feed for the length of a ``with`` block.

    Args:
        path: the file; gzip and zip are unpacked by their content, not their name.
        dialect: what the mapping says of the file; what it leaves open is found out.
        wanted: normalised headers the mapping looks for; they find header row and delimiter.
        temporary: a folder for unpacked copies; the system's by default.

    Raises:
        BadInput: the file cannot be read as a table; what, where, why, what to do.
    """
    path = Path(path)
    dialect = dialect or Dialect()
    if not path.is_file():
        raise BadInput(f"{path}: no such file; check the path")
    size = path.stat().st_size
    if size == 0:
        raise BadInput(f"{path.name}: the file is empty; ask the network for the report again")
    modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    with tempfile.TemporaryDirectory(prefix="rmn-feed-", dir=temporary) as folder:
        work = Path(folder)
        inner, label = _unpack(path, work, dialect)
        try:
            feed = _open(inner, label, dialect, wanted, work)
        except pl.exceptions.PolarsError as error:
            raise BadInput(f"{label}: cannot be read: {_first_line(error)}; is it the format its name says?") from None
        yield replace(feed, name=path.name, sha256=_sha256(path), bytes=size, modified_at=modified)


def _open(inner: Path, label: str, dialect: Dialect, wanted: frozenset[str], work: Path) -> Feed:
    kind = _kind(inner, label, dialect)
    if kind in JSON_KINDS:
        return _open_json(inner, label, kind, dialect, work)
    if kind == "xlsx":
        return _open_xlsx(inner, label, dialect, wanted)
    if kind == "parquet":
        return _open_parquet(inner, label)
    return _open_csv(inner, label, kind, dialect, wanted, work)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- archives and formats


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _unpack(path: Path, work: Path, dialect: Dialect) -> tuple[Path, str]:
    """The table itself, out of at most two layers of gzip and zip."""
    label = path.name
    for layer in range(3):
        magic = _magic(path)
        if magic[:2] == b"\x1f\x8b":
            out = work / f"layer{layer}"
            try:
                with gzip.open(path, "rb") as source:
                    _copy_limited(source, out, path.stat().st_size, label)
            except (OSError, EOFError, zlib.error) as error:
                raise BadInput(f"{label}: the gzip is broken: {error}; fetch the file again") from None
            path, label = out, label.removesuffix(".gz")
        elif magic[:4] == b"PK\x03\x04" and not _is_workbook(path, label):
            path, label = _unzip(path, label, work / f"layer{layer}", dialect)
        else:
            return path, label
    raise BadInput(f"{label}: an archive in an archive in an archive; unpack it first")


def _is_workbook(path: Path, label: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("xl/workbook") for name in archive.namelist()[:5000])
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise BadInput(f"{label}: the zip is broken: {error}; fetch the file again") from None


def _unzip(path: Path, label: str, out: Path, dialect: Dialect) -> tuple[Path, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                item for item in archive.infolist() if not item.is_dir() and not item.filename.startswith("__MACOSX")
            ]
            if dialect.member:
                members = [item for item in members if fnmatch.fnmatch(item.filename, dialect.member)]
            if not members:
                raise BadInput(f"{label}: the zip holds no {dialect.member or 'file'}; say dialect.member")
            if len(members) > 1:
                names = ", ".join(item.filename for item in members[:5])
                raise BadInput(f"{label}: the zip holds {len(members)} files ({names}); say which in dialect.member")
            member = members[0]
            if member.flag_bits & 1:
                raise BadInput(f"{label}: {member.filename} is locked with a password; unpack it first")
            with archive.open(member) as source:
                _copy_limited(source, out, max(member.compress_size, 1), label)
            return out, member.filename
    except (zipfile.BadZipFile, OSError, NotImplementedError, zlib.error, EOFError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{label}: the zip is broken: {error}; fetch the file again") from None


def _copy_limited(source: Any, out: Path, packed: int, label: str) -> None:
    written = 0
    with out.open("wb") as target:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > MAX_UNPACKED or (written > SMALL and written > MAX_RATIO * packed):
                raise BadInput(
                    f"{label}: unpacks to more than {written // 2**20} MB from {packed:,} bytes; that is an archive bomb, not a report"
                )
            target.write(chunk)


def _kind(path: Path, label: str, dialect: Dialect) -> str:
    magic = _magic(path)
    if magic[:4] == b"PAR1":
        return "parquet"
    if magic[:4] == b"PK\x03\x04":
        return "xlsx"
    if magic[:4] == b"\xd0\xcf\x11\xe0":
        raise BadInput(f"{label}: an Excel 97 workbook or a locked one; save it as .xlsx without a password")
    if magic[:4] == b"%PDF":
        raise BadInput(f"{label}: a PDF is no feed; export the report as CSV or XLSX")
    if dialect.format != "auto":
        if dialect.format in ("parquet", "xlsx"):
            raise BadInput(
                f"{label}: the mapping says {dialect.format}, the file is not; check the file or dialect.format"
            )
        return dialect.format
    suffix = Path(label).suffix.lower()
    if suffix in (".ndjson", ".jsonl"):
        return "ndjson"
    with path.open("rb") as file:
        head = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:1] in (b"[", b"{"):
        first, _, rest = head.partition(b"\n")
        if head[:1] == b"{" and first.rstrip().endswith(b"}") and rest.lstrip()[:1] == b"{":
            return "ndjson"
        return "json"
    if head[:1] == b"<":
        raise BadInput(
            f"{label}: XML or HTML, perhaps an error page of the network; export the report as CSV, JSON or XLSX"
        )
    return "tsv" if suffix in (".tsv", ".tab") else "csv"


# -- CSV


def _open_csv(path: Path, label: str, kind: str, dialect: Dialect, wanted: frozenset[str], work: Path) -> Feed:
    dialect = _known_encoding(path, dialect)
    path = _as_utf8(path, label, dialect.encoding, work)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    whole = len(head) < HEAD_BYTES
    text = head.decode("utf-8", "ignore").removeprefix("\ufeff")
    delimiter = dialect.delimiter or ("\t" if kind == "tsv" else _sniff(text, dialect.quote, wanted))
    records = _head_records(text, delimiter, dialect.quote, whole, label)
    index = _header_index([cells for cells, _ in records], dialect, wanted, label)
    if index < 0:  # no header: the mapping names the columns
        names, skip_lines, first = list(dialect.names), 0, 1
    else:
        names, skip_lines, first = records[index][0], records[index][1], index + 2
    headers = _unique(names, label)
    schema = {**dict.fromkeys(headers, pl.String), OVERFLOW: pl.String}
    frame = pl.scan_csv(
        path,
        has_header=False,
        skip_lines=skip_lines,
        separator=delimiter,
        quote_char=dialect.quote or None,
        schema=schema,
        empty_string_is_null=False,
        extra_columns="ignore",
        missing_columns="insert",
        row_index_name=ROW,
        row_index_offset=first,
        glob=False,
    ).with_columns(pl.col(ROW).cast(pl.Int64))
    return Feed(
        name=label,
        frame=frame,
        headers=headers,
        sha256="",
        bytes=0,
        modified_at=datetime.now(UTC),
        preamble=tuple(delimiter.join(cells) for cells, _ in records[: max(index, 0)]),
        short_rows=lambda: _short_rows(path, skip_lines, first, len(headers), delimiter, dialect.quote),
        ragged=len(headers) > 1,
        details={"format": kind, "delimiter": delimiter, "header_row": index + 1 or None, "encoding": dialect.encoding},
    )


SCRIPTS = {"cp932": ("HIRAGANA", "KATAKANA"), "cp949": ("HANGUL",), "gb18030": ("CJK",)}
ONE_BYTE = ("cp1252", "cp1250", "cp1251", "iso8859-9")


def _known_encoding(path: Path, dialect: Dialect) -> Dialect:
    if dialect.encoding != "auto":
        return dialect
    with path.open("rb") as file:
        return dialect.model_copy(update={"encoding": guess_encoding(file.read(CHUNK))})


def guess_encoding(head: bytes) -> str:
    """The encoding under which the words of a text are words: UTF-8 wherever it can be."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"

    def words(encoding: str) -> list[str]:
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(head)
        except UnicodeDecodeError:
            return []
        return [word for word in re.findall(r"\S+", text) if not word.isascii()]

    if words("utf-8") or head.isascii():
        return "utf-8"
    for encoding, scripts in SCRIPTS.items():
        found = words(encoding)
        if sum(bool(re.search(r"[a-z][^\x00-\x7f]|[^\x00-\x7f][a-z]", word)) for word in found) > 0.2 * len(found):
            continue  # a Latin word with a letter misread
        signs = [sign for word in found for sign in word if not sign.isascii()]
        named = [unicodedata.name(sign, "") for sign in signs]
        fitting = sum(name.startswith((*scripts, "CJK")) for name in named) > 0.8 * len(named)
        if fitting and any(name.startswith(scripts) for name in named):
            return encoding

    def score(encoding: str) -> int:
        total = 0
        for word in words(encoding):
            letters = {unicodedata.name(sign, "?").split()[0] for sign in word if not sign.isascii() or sign.isalpha()}
            total += 1 if len(letters) == 1 and letters <= {"LATIN", "CYRILLIC"} else -1
        return total

    return max(ONE_BYTE, key=score)


def _as_utf8(path: Path, label: str, encoding: str, work: Path) -> Path:
    """The file in UTF-8 with plain line ends; itself where it is so already.

    Raises:
        BadInput: bytes that are no text in the encoding, a NUL, or a line beyond any report's.
    """
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise BadInput(f"{label}: dialect.encoding {encoding!r} is unknown; use utf-8, cp1252, utf-16, ...") from None
    with path.open("rb") as file:
        head = file.read(65536)
    for mark, marked in (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            name = marked
            break
    old_ends = b"\r" in head and b"\n" not in head and name in ("utf-8", "utf-8-sig", "ascii")
    if name in ("utf-8", "utf-8-sig", "ascii") and not old_ends:
        _check_utf8(path, label)
        if not head.startswith(codecs.BOM_UTF8):
            return path
    return _transcode(path, label, "utf-8-sig" if name in ("utf-8", "ascii") else name, work / "utf8")


def _check_utf8(path: Path, label: str) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = line = 0
    tail_open = False
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            zero = chunk.find(b"\0")
            if zero >= 0:
                raise BadInput(f"{label}: a NUL at byte {position + zero:,}: a binary or damaged file; fetch it again")
            line = len(chunk) - chunk.rfind(b"\n") - 1 if b"\n" in chunk else line + len(chunk)
            if line > MAX_LINE:
                raise BadInput(
                    f"{label}: a line of more than {MAX_LINE // 2**20} MB; no report has that, is it the right file?"
                )
            if tail_open or not chunk.isascii():
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError as error:
                    at = position + error.start
                    raise BadInput(
                        f"{label}: not UTF-8 at byte {at:,}; say dialect.encoding (often cp1252 or utf-16) or save it as UTF-8"
                    ) from None
                tail_open = bool(decoder.getstate()[0])
            position += len(chunk)
    if tail_open:
        raise BadInput(f"{label}: the last character is cut off; fetch the file again")


def _transcode(path: Path, label: str, encoding: str, out: Path) -> Path:
    line = 0
    try:
        with (
            path.open("r", encoding=encoding, newline=None) as source,
            out.open("w", encoding="utf-8", newline="\n") as target,
        ):
            while chunk := source.read(CHUNK):
                if "\0" in chunk:
                    raise BadInput(f"{label}: a NUL in the text: a binary or damaged file; fetch it again")
                line = len(chunk) - chunk.rfind("\n") - 1 if "\n" in chunk else line + len(chunk)
                if line > MAX_LINE:
                    raise BadInput(
                        f"{label}: a line of more than {MAX_LINE // 2**20} MB; no report has that, is it the right file?"
                    )
                target.write(chunk)
    except (UnicodeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{label}: not {encoding}: {_first_line(error)}; say the right dialect.encoding") from None
    return out


def _sniff(text: str, quote: str | None, wanted: frozenset[str]) -> str:
    """The delimiter under which a head line names most wanted columns, else has the steadiest width."""
    best, best_score = ",", (-1.0, -1.0)
    for delimiter in (",", "\t", ";", "|"):
        rows = [cells for cells, _ in _records(text, delimiter, quote)]
        if not rows:
            continue
        hits = max(len({normalise(cell) for cell in cells} & wanted) for cells in rows)
        widths = [len(cells) for cells in rows if len(cells) > 1]
        width = max(set(widths), key=widths.count) if widths else 1
        steady = widths.count(width) / len(rows) * min(width, 10) if width > 1 else 0
        if (hits, steady) > best_score:
            best, best_score = delimiter, (float(hits), steady)
    return best


def _records(text: str, delimiter: str, quote: str | None) -> Iterator[tuple[list[str], int]]:
    csv.field_size_limit(MAX_LINE)
    quoting: Any = csv.QUOTE_NONE if not quote else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote or None, quoting=quoting)
    try:
        for number, cells in enumerate(reader):
            if number >= HEAD_RECORDS:
                return
            yield cells, reader.line_num
    except csv.Error:
        return


def _head_records(text: str, delimiter: str, quote: str | None, whole: bool, label: str) -> list[tuple[list[str], int]]:
    records = list(_records(text, delimiter, quote))
    if not whole and len(records) < HEAD_RECORDS and len(records) > 1:
        records.pop()  # the head cut it
    if not records:
        raise BadInput(
            f"{label}: no row can be read with delimiter {delimiter!r}; say dialect.delimiter and dialect.quote"
        )
    if not whole and len(records) == 1 and len(records[0][0]) > MAX_COLUMNS:
        raise BadInput(f"{label}: more than {MAX_COLUMNS:,} columns; is it the right file and delimiter?")
    return records


def _header_index(rows: list[list[str]], dialect: Dialect, wanted: frozenset[str], label: str) -> int:
    if dialect.header == "none":
        return -1
    if isinstance(dialect.header, int):
        if not 1 <= dialect.header <= len(rows):
            raise BadInput(
                f"{label}: dialect.header says row {dialect.header}; the head of the file has {len(rows)} rows"
            )
        return dialect.header - 1
    if dialect.header != "auto":
        for index, cells in enumerate(rows):
            if any(re.search(dialect.header, cell, re.IGNORECASE) for cell in cells):
                return index
        raise BadInput(f"{label}: no cell of the first {len(rows)} rows fits dialect.header {dialect.header!r}")
    hits = [len({normalise(cell) for cell in cells if cell.strip()} & wanted) for cells in rows]
    if wanted and max(hits) > 0:
        return hits.index(max(hits))
    return guess_header(rows)


def guess_header(rows: list[list[str]]) -> int:
    """The first row as wide as the table whose cells are words: what a person would call the header."""
    widths = [sum(1 for cell in cells if cell.strip()) for cells in rows]
    width = max(set(widths), key=lambda w: (widths.count(w) * w, w)) if widths else 0
    for index, cells in enumerate(rows):
        filled = [cell for cell in cells if cell.strip()]
        if len(filled) >= max(1, 0.6 * width) and len(set(filled)) > 0.6 * len(filled):
            numeric = sum(1 for cell in filled if re.fullmatch(r"[-+$€£]?[\d.,:/\-\s%]+", cell.strip()))
            if numeric <= 0.2 * len(filled):
                return index
    return next((index for index, count in enumerate(widths) if count), 0)


def _unique(names: Iterable[str], label: str) -> tuple[str, ...]:
    """Headers made unique: the second 'Clicks' is 'Clicks__2', a nameless one 'column_7'."""
    seen: dict[str, int] = {}
    unique: list[str] = []
    for number, name in enumerate(names, 1):
        if number > MAX_COLUMNS:
            raise BadInput(f"{label}: more than {MAX_COLUMNS:,} columns; is it the right file and delimiter?")
        name = name.strip().strip("\ufeff") or f"column_{number}"
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}__{seen[name]}")
    if len(set(unique)) != len(unique) or {ROW, OVERFLOW} & set(unique):
        raise BadInput(f"{label}: headers repeat in a way that cannot be told apart; rename them")
    return tuple(unique)


def _short_rows(path: Path, skip_lines: int, first: int, width: int, delimiter: str, quote: str | None) -> pl.Series:
    """Numbers of the records with fewer cells than the header, blank lines left out.

    Counts delimiters outside quotes between line ends outside quotes, a chunk at a time.
    """
    found: list[np.ndarray] = []
    number, carry = first, b""
    sign, mark = ord(delimiter), ord(quote) if quote else -1
    with path.open("rb") as file:
        for _ in range(skip_lines):
            file.readline()
        while chunk := file.read(CHUNK):
            buffer = carry + chunk
            done, number, rows = _widths(buffer, sign, mark, number)
            carry = buffer[done:]
            found.append(rows[(rows[:, 1] < width - 1) & (rows[:, 2] > 0), 0])
            if len(carry) > 2 * MAX_LINE:
                break
        if carry.strip():
            _, _, rows = _widths(carry + b"\n", sign, mark, number)
            found.append(rows[(rows[:, 1] < width - 1) & (rows[:, 2] > 0), 0])
    return pl.Series(np.concatenate(found) if found else [], dtype=pl.Int64)


def _widths(buffer: bytes, sign: int, mark: int, number: int) -> tuple[int, int, np.ndarray]:
    """Of each whole record in the buffer: its number, its delimiters, its bytes without the line end."""
    data = np.frombuffer(buffer, np.uint8)
    plain = (
        ~np.logical_xor.accumulate(data == mark) if mark >= 0 and bytes([mark]) in buffer else np.ones(len(data), bool)
    )
    ends = np.flatnonzero((data == 10) & plain)
    if not len(ends):
        return 0, number, np.empty((0, 3), np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    delimiters = np.searchsorted(np.flatnonzero((data == sign) & plain), np.stack([starts, ends]))
    length = ends - starts - ((ends > starts) & (data[np.maximum(ends - 1, 0)] == 13))
    rows = np.stack([np.arange(number, number + len(ends)), delimiters[1] - delimiters[0], length], axis=1)
    return int(ends[-1]) + 1, number + len(ends), rows


# -- Parquet


PARQUET_PIECE = 1_000_000  # rows decoded at a time: some writers put a whole file into one row group


def _in_pieces(path: Path) -> pl.LazyFrame:
    frame = pl.scan_parquet(path, glob=False)
    rows = frame.select(pl.len()).collect().item()
    if rows <= PARQUET_PIECE:
        return frame
    return pl.concat([frame.slice(first, PARQUET_PIECE) for first in range(0, rows, PARQUET_PIECE)])


def _open_parquet(path: Path, label: str) -> Feed:
    frame = _in_pieces(path)
    schema = frame.collect_schema()
    for _ in range(6):
        structs = [name for name, kind in schema.items() if isinstance(kind, pl.Struct)]
        if not structs:
            break
        for name in structs:
            inner = schema[name]
            assert isinstance(inner, pl.Struct)  # noqa: S101  # for the type checker
            frame = frame.with_columns(
                [pl.col(name).struct.field(part.name).alias(f"{name}.{part.name}") for part in inner.fields]
            ).drop(name)
        schema = frame.collect_schema()
    headers = _unique(schema.names(), label)
    lists = [name for name, kind in schema.items() if isinstance(kind, pl.List | pl.Array)]
    frame = frame.with_columns(
        cs.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%z"),
        cs.date().dt.strftime("%Y-%m-%d"),
        *[pl.col(name).cast(pl.List(pl.String)).list.join(",") for name in lists],
    ).with_columns((cs.all() - cs.string()).cast(pl.String))
    frame = frame.with_row_index(ROW, 1).with_columns(pl.col(ROW).cast(pl.Int64))
    return Feed(label, frame, headers, "", 0, datetime.now(UTC), details={"format": "parquet"})


# -- XLSX


def _open_xlsx(path: Path, label: str, dialect: Dialect, wanted: frozenset[str]) -> Feed:
    import fastexcel  # heavy; only workbooks need it

    with zipfile.ZipFile(path) as archive:
        packed = path.stat().st_size
        unpacked = sum(item.file_size for item in archive.infolist())
        if unpacked > MAX_JSON * 4 or (unpacked > SMALL and unpacked > MAX_RATIO * packed):
            raise BadInput(
                f"{label}: unpacks to {unpacked // 2**20} MB from {packed:,} bytes; that is an archive bomb, not a workbook"
            )
    try:
        book = fastexcel.read_excel(str(path))
        sheet_name = dialect.sheet or _fullest_sheet(book, wanted)
        if sheet_name not in book.sheet_names:
            if sheet_name.isdigit() and 1 <= int(sheet_name) <= len(book.sheet_names):
                sheet_name = book.sheet_names[int(sheet_name) - 1]
            else:
                raise BadInput(f"{label}: no sheet {sheet_name!r}; it has {', '.join(book.sheet_names[:8])}")
        sheet = book.load_sheet(sheet_name, header_row=None, dtypes="string")
        if sheet.width > MAX_COLUMNS:
            raise BadInput(f"{label}: {sheet.width:,} columns in sheet {sheet_name}; at most {MAX_COLUMNS:,}")
        if sheet.width * sheet.height > MAX_CELLS:
            raise BadInput(
                f"{label}: {sheet.width * sheet.height:,} cells in sheet {sheet_name}; export so large a report as CSV"
            )
        table = sheet.to_polars()
    except fastexcel.FastExcelError as error:
        raise BadInput(f"{label}: the workbook cannot be read: {_first_line(error)}; save it again as .xlsx") from None
    if not table.width or not table.height:
        raise BadInput(f"{label}: sheet {sheet_name} is empty; say dialect.sheet")
    table = table.select(pl.all().cast(pl.String).fill_null(""))
    # a date cell comes as a date-time at midnight; the report means the day
    table = table.with_columns(pl.all().str.replace(r"^(\d{4}-\d{2}-\d{2})[ T]00:00:00(?:\.0+)?$", "$1"))
    rows = [list(row) for row in table.head(HEAD_RECORDS).rows()]
    index = _header_index(rows, dialect, wanted, label)
    names = list(dialect.names) if index < 0 else rows[index]
    if index < 0 and len(names) != table.width:
        raise BadInput(f"{label}: dialect.names lists {len(names)} columns, the sheet has {table.width}")
    headers = _unique(names, label)
    table.columns = list(headers)
    body = table.slice(index + 1).with_row_index(ROW, index + 2).with_columns(pl.col(ROW).cast(pl.Int64))
    return Feed(
        name=label,
        frame=body.lazy(),
        headers=headers,
        sha256="",
        bytes=0,
        modified_at=datetime.now(UTC),
        preamble=tuple(",".join(cell for cell in row if cell) for row in rows[: max(index, 0)]),
        details={"format": "xlsx", "sheet": sheet_name, "header_row": index + 1 or None},
    )


def _fullest_sheet(book: Any, wanted: frozenset[str]) -> str:
    """The sheet whose head names most wanted columns, else the widest table: a cover sheet is neither."""
    best, best_score = str(book.sheet_names[0]), (-1, -1)
    for name in book.sheet_names[:20] if len(book.sheet_names) > 1 else ():
        head = book.load_sheet(name, header_row=None, n_rows=HEAD_RECORDS, dtypes="string").to_polars()
        rows = [[str(cell) for cell in row if cell is not None and str(cell).strip()] for row in head.rows()]
        hits = max((len({normalise(cell) for cell in cells} & wanted) for cells in rows), default=0)
        score = (hits, sum(min(len(cells), MAX_COLUMNS) for cells in rows if len(cells) > 1))
        if score > best_score:
            best, best_score = str(name), score
    return best


# -- JSON


def _open_json(path: Path, label: str, kind: str, dialect: Dialect, work: Path) -> Feed:
    path = _as_utf8_json(path, label, _known_encoding(path, dialect).encoding, work)
    records = _ndjson(path, label) if kind == "ndjson" else _json_records(path, label, dialect)
    parts: list[pl.LazyFrame] = []
    headers: dict[str, None] = {}
    first = 1
    for number, batch in enumerate(_batches(records)):
        for row in batch:
            headers.update(dict.fromkeys(row))
        if len(headers) > MAX_COLUMNS:
            raise BadInput(f"{label}: more than {MAX_COLUMNS:,} different fields; say dialect.records")
        names = list(dict.fromkeys(key for row in batch for key in row))
        table = pl.DataFrame(
            {name: [row.get(name) for row in batch] for name in names}, schema=dict.fromkeys(names, pl.String)
        )
        part = work / f"part{number}.parquet"
        table.with_columns(pl.int_range(first, first + len(batch), dtype=pl.Int64).alias(ROW)).write_parquet(part)
        parts.append(pl.scan_parquet(part, glob=False))
        first += len(batch)
    if not parts or not headers:
        raise BadInput(f"{label}: no records; say dialect.records, the path of the list, e.g. data.rows[]")
    frame = pl.concat(parts, how="diagonal") if len(parts) > 1 else parts[0]
    return Feed(label, frame, tuple(headers), "", 0, datetime.now(UTC), details={"format": kind})


def _as_utf8_json(path: Path, label: str, encoding: str, work: Path) -> Path:
    head = _magic(path)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _transcode(path, label, "utf-16", work / "utf8")
    if codecs.lookup(encoding).name not in ("utf-8", "ascii"):
        return _transcode(path, label, encoding, work / "utf8")
    return path


def _batches(records: Iterable[dict[str, str | None]]) -> Iterator[list[dict[str, str | None]]]:
    batch: list[dict[str, str | None]] = []
    for record in records:
        batch.append(record)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class _Number(str):
    """A number as it was written: no float comes between a file and its money."""

    __slots__ = ()


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


_DECODE: dict[str, Any] = {"parse_float": _Number, "parse_int": _Number, "parse_constant": _refuse}


def _loads(text: bytes | str, where: str) -> Any:
    try:
        return json.loads(text, **_DECODE)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON: {_first_line(error) or 'nested too deeply'}") from None


def _ndjson(path: Path, label: str) -> Iterator[dict[str, str | None]]:
    with path.open("rb") as file:
        for number, line in enumerate(_limited_lines(file, label), 1):
            if not line.strip():
                continue
            value = _loads(line.removeprefix(codecs.BOM_UTF8), f"{label} line {number}")
            if not isinstance(value, dict):
                raise BadInput(f"{label} line {number}: an object was expected, this is {type(value).__name__}")
            yield _flat(value)


def _limited_lines(file: BinaryIO, label: str) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise BadInput(f"{label}: a line of more than {MAX_LINE // 2**20} MB; is it NDJSON?")
        yield line


def _json_records(path: Path, label: str, dialect: Dialect) -> Iterator[dict[str, str | None]]:
    if path.stat().st_size > MAX_JSON:
        if dialect.records or dialect.columns:
            raise BadInput(f"{label}: a nested JSON of more than {MAX_JSON // 2**20} MB; ask for NDJSON or CSV")
        yield from (_flat(item) for item in _long_array(path, label) if isinstance(item, dict))
        return
    root = _unwrapped(_loads(path.read_bytes(), label))
    if dialect.columns is None and dialect.records is None:
        table = _find_table(root)
        if table is not None:
            dialect = dialect.model_copy(update=table)
    if dialect.columns is not None:
        yield from _tabular(root, str(dialect.columns), str(dialect.rows), label)
        return
    path_text = dialect.records if dialect.records is not None else _find_records(root)
    yield from _walk(root, _steps(path_text), {}, "", label, path_text)


def _unwrapped(node: Any, depth: int = 0) -> Any:
    """BigQuery's cells, {"f": [{"v": 1}, {"v": 2}]}, as plain arrays; inner records named by the schema beside them."""
    if not isinstance(node, dict) or depth > 4:
        return node
    schema = node.get("schema")
    fields = schema.get("fields") if isinstance(schema, dict) else None
    return {
        key: [_cells(row["f"], fields if isinstance(fields, list) else []) for row in value]
        if _is_wrapped(value)
        else _unwrapped(value, depth + 1)
        for key, value in node.items()
    }


def _is_wrapped(value: Any) -> bool:
    rows = value if isinstance(value, list) else []
    return bool(rows) and all(
        isinstance(row, dict) and set(row) == {"f"} and isinstance(row["f"], list) for row in rows
    )


def _cells(cells: list[Any], fields: list[Any], depth: int = 0) -> list[Any]:
    def plain(value: Any, field: Any) -> Any:
        if isinstance(value, list):  # a repeated field
            return [plain(one.get("v") if isinstance(one, dict) else one, field) for one in value]
        inner = field.get("fields") if isinstance(field, dict) else None
        if isinstance(value, dict) and isinstance(value.get("f"), list) and isinstance(inner, list) and depth < 8:
            found = _cells(value["f"], inner, depth + 1)
            names = [_column_name(one) or str(place) for place, one in enumerate(inner)]
            return dict(zip(names, found, strict=False))
        return value

    told = [*fields, *[None] * (len(cells) - len(fields))]
    return [
        plain(cell.get("v") if isinstance(cell, dict) else cell, field)
        for cell, field in zip(cells, told, strict=False)
    ]


def _long_array(path: Path, label: str) -> Iterator[Any]:
    """The elements of a top-level array, a few megabytes in memory at a time."""
    decoder = json.JSONDecoder(**_DECODE)
    with path.open("r", encoding="utf-8-sig") as file:
        buffer = file.read(CHUNK).lstrip()
        if not buffer.startswith("["):
            raise BadInput(f"{label}: more than {MAX_JSON // 2**20} MB and no plain array; ask for NDJSON or CSV")
        buffer = buffer[1:]
        while True:
            buffer = buffer.lstrip(" \t\r\n,")
            if buffer.startswith("]"):
                return
            try:
                item, end = decoder.raw_decode(buffer)
            except ValueError as error:
                more = file.read(CHUNK)
                if not more or len(buffer) > MAX_LINE:
                    raise BadInput(f"{label}: not JSON: {_first_line(error)}") from None
                buffer += more
                continue
            yield item
            buffer = buffer[end:]
            if len(buffer) < CHUNK // 2:
                buffer += file.read(CHUNK)


def _arrays(node: dict[str, Any]) -> dict[str, list[Any]]:
    """The columns of a table written as one array a column; empty where it is no such table."""
    lists = {key: value for key, value in node.items() if isinstance(value, list)}
    plain = all(not isinstance(cell, dict | list) for value in lists.values() for cell in value[:50])
    lengths = {len(value) for value in lists.values()}
    return lists if len(lists) > 1 and plain and len(lengths) == 1 and lengths != {0} else {}


def _steps(path: str) -> list[str]:
    return [step for step in path.replace("[]", ".[]").strip(".").split(".") if step and step != "$"]


def _walk(
    node: Any, steps: list[str], outer: dict[str, str | None], prefix: str, label: str, whole: str
) -> Iterator[dict[str, str | None]]:
    """Rows at the end of a path; each carries the plain values of every record above it."""
    if not steps:
        if not isinstance(node, dict):
            raise BadInput(
                f"{label}: dialect.records {whole!r} ends at {type(node).__name__}, a list of objects was expected"
            )
        if not whole.endswith("[]") and (arrays := _arrays(node)):
            rest_of = _flat({key: value for key, value in node.items() if key not in arrays}, prefix, lists=False)
            for cells in zip(*arrays.values(), strict=True):
                yield {**outer, **rest_of, **_flat(dict(zip(arrays, cells, strict=True)), prefix)}
            return
        yield {**outer, **_flat(node, prefix)}
        return
    step, rest = steps[0], steps[1:]
    if step == "[]":
        if node is None:
            return
        if not isinstance(node, list):
            raise BadInput(f"{label}: dialect.records {whole!r}: no list at {prefix or 'the root'}")
        for item in node:
            yield from _walk(item, rest, outer, prefix, label, whole)
        return
    if not isinstance(node, dict):
        raise BadInput(f"{label}: dialect.records {whole!r}: nothing named {step!r} at {prefix or 'the root'}")
    if step == "*":
        for key, value in node.items():
            inner = {**outer, f"{prefix}{'.' if prefix else ''}key": key}
            yield from _walk(value, rest, inner, prefix, label, whole)
        return
    if step not in node:
        if outer:
            return  # a parent without children has no rows
        raise BadInput(
            f"{label}: dialect.records {whole!r}: nothing named {step!r} at {prefix or 'the root'}; there is {', '.join(list(node)[:8])}"
        )
    here = {key: value for key, value in node.items() if key != step}
    inner = {**outer, **_flat(here, prefix, lists=False)}
    yield from _walk(node[step], rest, inner, f"{prefix}.{step}" if prefix else step, label, whole)


def _flat(node: dict[str, Any], prefix: str = "", lists: bool = True, depth: int = 0) -> dict[str, str | None]:
    out: dict[str, str | None] = {}
    for key, value in node.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict) and depth < 12:
            out.update(_flat(value, name, lists, depth + 1))
        elif isinstance(value, list):
            if not lists:
                continue
            if value and all(isinstance(item, dict) for item in value) and len(value) <= 40 and depth < 12:
                said = _label(value)
                for number, item in enumerate(value):
                    rest = {k: v for k, v in item.items() if k != said}
                    place = str(item[said]).replace(".", "_") if said else number
                    out.update(_flat(rest, f"{name}.{place}", lists, depth + 1))
            else:
                out[name] = ",".join(str(_plain(item)) for item in value) if value else None
        else:
            out[name] = _plain(value)
    return out


LABELS = ("action_type", "metric", "metric_name", "metricName", "measure", "kpi", "key", "name", "type")


def _label(items: list[dict[str, Any]]) -> str | None:
    """The key under which each item of a list says what its value is: [{"action_type": "purchase", "value": "3"}]."""
    for label in LABELS:
        # a name or a type beside more than one value is a thing of its own
        most = 2 if label in ("key", "name", "type") else 6
        texts = [item.get(label) for item in items if 1 < len(item) <= most]
        said = [text for text in texts if isinstance(text, str) and text]
        if len(set(said)) == len(items):
            return label
    return None


def _plain(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadInput(
                "a lone surrogate in a JSON text: it is no character; ask the network for clean UTF-8"
            ) from None
        if "\0" in value:
            raise BadInput("a NUL in a JSON text: damaged data; ask the network for it again")
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _dig(root: Any, path: str, label: str) -> Any:
    """The value at a path; a path through ``[]`` gives the list of what is found."""
    found: list[Any] = [root]
    many = False
    for step in _steps(path):
        if step == "[]":
            many = True
            found = [item for value in found if isinstance(value, list) for item in value]
        else:
            found = [value[step] for value in found if isinstance(value, dict) and step in value]
    if not found:
        raise BadInput(f"{label}: nothing at {path!r}; check dialect.columns and dialect.rows")
    return found if many else found[0]


def _tabular(root: Any, columns: str, rows: str, label: str) -> Iterator[dict[str, str | None]]:
    """Column names here, arrays of cells there (json-compact)."""
    names = _dig(root, columns, label)
    body = _dig(root, rows.removesuffix("[]"), label)
    if not isinstance(names, list) or not isinstance(body, list):
        raise BadInput(f"{label}: {columns!r} and {rows!r} must both be lists")
    if columns == rows:  # the first array is the header
        names, body = body[0], body[1:]
    headers = _unique([_column_name(n) or "" if isinstance(n, dict | str) else str(n) for n in names], label)
    outer: dict[str, str | None] = {}
    if isinstance(root, dict):
        # what stands beside the table (account, currency, time of extract) holds for every row
        outer = _flat(root, "", lists=False)
        outer = {key: value for key, value in outer.items() if key not in headers}
    for number, cells in enumerate(body, 1):
        if not isinstance(cells, list) or len(cells) != len(headers):
            width = len(cells) if isinstance(cells, list) else type(cells).__name__
            raise BadInput(
                f"{label}: record {number} has {width} cells, the header {len(headers)}; the file is damaged"
            )
        yield {**outer, **_flat(dict(zip(headers, cells)))}


def _find_table(root: Any) -> dict[str, str] | None:
    """Where a json-compact table lies: a list of arrays, and the list of their names wherever that is.

    Without such a list the first array is the names.
    """
    bodies: list[tuple[str, list[Any]]] = []
    names: list[tuple[str, list[Any]]] = []

    def visit(node: Any, path: str, depth: int) -> None:
        if isinstance(node, list) and node:
            if all(isinstance(item, list) and item for item in node[:50]):
                bodies.append((path, node))
            elif all(isinstance(item, str | dict) for item in node):
                names.append((path, node))
        elif isinstance(node, dict) and depth < 5:
            for key, value in node.items():
                visit(value, f"{path}.{key}" if path else str(key), depth + 1)

    visit(root, "", 0)
    for rows, body in bodies:
        width = len(body[0])
        fitting = [path for path, cells in names if len(cells) == width and all(_column_name(cell) for cell in cells)]
        if fitting:  # the nearest: most of its path in common
            return {"columns": max(fitting, key=lambda path: len(_common(path, rows))), "rows": rows}
        longest = max((len(cells) for _, cells in names), default=0)
        if len(body) > max(longest, 1) and all(
            isinstance(cell, str) and cell and not isinstance(cell, _Number) for cell in body[0]
        ):
            return {"columns": rows, "rows": rows}
    return None


def _common(one: str, other: str) -> list[str]:
    return [a for a, b in zip(one.split("."), other.split("."), strict=False) if a == b]


def _column_name(cell: Any) -> str | None:
    if isinstance(cell, str):
        return None if isinstance(cell, _Number) else str(cell)
    found = next((cell[key] for key in ("name", "id", "key", "field", "label", "title") if cell.get(key)), None)
    return str(found) if found is not None else None


def _find_records(root: Any) -> str:
    """The path of the innermost list of objects that holds the most rows."""
    best: tuple[int, int, str] = (0, 0, "")

    def visit(node: Any, path: str, count: int, depth: int) -> None:
        nonlocal best
        if depth > 8:
            return
        if isinstance(node, list):
            objects = [item for item in node if isinstance(item, dict)]
            if objects and len(objects) == len(node):
                here = f"{path}[]"
                total = count * len(objects)
                best = max(best, (total, depth, here))
                visit_children(objects[:200], here, total, depth)
        elif isinstance(node, dict):
            visit_children([node], path, count, depth)

    def visit_children(nodes: list[dict[str, Any]], path: str, count: int, depth: int) -> None:
        keys = dict.fromkeys(key for node in nodes for key, value in node.items() if isinstance(value, dict | list))
        for key in keys:
            values = [node[key] for node in nodes if key in node]
            lists = [value for value in values if isinstance(value, list)]
            place = f"{path}.{key}" if path else key
            if lists:
                merged = [item for value in lists for item in value]
                if merged and path and len(merged) <= 40 * len(nodes) and _looks_indexed(lists):
                    continue
                visit(merged, place, max(count // max(len(nodes), 1), 1) if path else 1, depth + 1)
            else:
                visit_children([value for value in values if isinstance(value, dict)], place, count, depth + 1)

    visit(root, "", 1, 0)
    return best[2] or _find_arrays(root) or "[]"


def _find_arrays(root: Any, path: str = "", depth: int = 0) -> str | None:
    """The path of an object that holds one array a column."""
    if not isinstance(root, dict) or depth > 4:
        return None
    if path and _arrays(root):
        return path
    deeper = (_find_arrays(v, f"{path}.{k}" if path else k, depth + 1) for k, v in root.items() if k)
    return next((found for found in deeper if found), "$" if not path and _arrays(root) else None)


def _looks_indexed(lists: list[list[Any]]) -> bool:
    """Whether inner lists are fixed sets of variants (windows, scopes, named values) rather than rows of their own."""
    full = [value for value in lists if value]
    if full and all(isinstance(item, dict) for value in full for item in value) and all(map(_label, full)):
        return True
    if len({len(value) for value in lists}) != 1 or len(lists) < 2:
        return False
    marks = ("window", "attribution", "lookback", "model")
    return all(
        isinstance(item, dict) and any(any(m in key.lower() for m in marks) for key in item)
        for v in lists
        for item in v
    )

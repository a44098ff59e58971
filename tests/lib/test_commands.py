from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rmn.lib.commands import Meter, read_json, read_jsonl, write_jsonl
from rmn.lib.errors import BadInput

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "not JSON at line 1"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b"\xff\xfe{", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(text: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(text)
    with pytest.raises(BadInput, match=says):
        read_json(path)


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n[1]\n')
    with pytest.raises(BadInput, match="line 3"):
        list(read_jsonl(path))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def rows() -> object:
        yield {"a": 1}
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError):
        write_jsonl(tmp_path / "out.jsonl", rows())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    rows = [{"text": "crème ☕"}, {"text": "\u2028"}]
    write_jsonl(tmp_path / "out.jsonl", rows)
    assert list(read_jsonl(tmp_path / "out.jsonl")) == rows


def test_short_work_shows_no_progress_and_long_work_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.9, 30.0])
    monkeypatch.setattr("rmn.lib.commands.time.monotonic", lambda: next(clock))
    meter = Meter(what="reading", total=10)
    meter.show(5)
    assert capsys.readouterr().err == ""
    meter.show(8)
    meter.close()
    assert capsys.readouterr().err == "reading  80% 30 s\n"


@pytest.mark.parametrize("arguments", [["load_sample_data", "--nonsense"], ["serve", "--port", "x"]])
def test_a_wrong_argument_is_one_line_and_exit_2(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--help" in done.stderr

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rmn.demo.engine import Engine, Stage


def stages(done: list[str], fail: str = "", version: int = 1) -> list[Stage]:
    def work(name: str) -> Any:
        def run(results: dict[str, Any]) -> dict[str, Any]:
            if name == fail:
                raise RuntimeError("killed")
            done.append(name)
            return {"value": len(results)}

        return run

    return [Stage(n, n, work(n), version if n == "b" else 1) for n in "abc"]


def test_a_loop_cut_off_carries_on_where_it_was(tmp_path: Path) -> None:
    done: list[str] = []
    with pytest.raises(RuntimeError):
        Engine(tmp_path, lambda _: None, "s").run(stages(done, fail="c"))
    assert Engine(tmp_path, lambda _: None, "s").run(stages(done)) == {
        "a": {"value": 0},
        "b": {"value": 1},
        "c": {"value": 2},
    }
    assert done == ["a", "b", "c"]


def test_a_changed_stage_is_done_anew_and_what_rests_on_it_too(tmp_path: Path) -> None:
    done: list[str] = []
    Engine(tmp_path, lambda _: None, "s").run(stages(done))
    Engine(tmp_path, lambda _: None, "s").run(stages(done, version=2))
    assert done == ["a", "b", "c", "b", "c"]


def test_another_database_or_model_starts_from_the_beginning(tmp_path: Path) -> None:
    done: list[str] = []
    Engine(tmp_path, lambda _: None, "s").run(stages(done))
    Engine(tmp_path, lambda _: None, "other").run(stages(done))
    assert done == list("abcabc")


def test_a_half_written_state_is_a_fresh_start(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"a": ')
    done: list[str] = []
    Engine(tmp_path, lambda _: None, "s").run(stages(done))
    assert done == list("abc")

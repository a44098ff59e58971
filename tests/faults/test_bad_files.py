from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import bad_files

QUICK = [seed for seed in range(120) if list(bad_files.KINDS)[seed % len(bad_files.KINDS)] not in bad_files.SLOW]


@pytest.mark.parametrize("kind", [kind for kind in bad_files.KINDS if kind not in bad_files.SLOW])
def test_a_broken_file_is_refused_with_its_reason_or_each_broken_row_is(kind: str, tmp_path: Path) -> None:
    for seed in QUICK:
        found, path = bad_files.make(seed, tmp_path)
        if found == kind:
            assert bad_files.attempt(path, tmp_path / f"out{seed}")

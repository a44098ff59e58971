"""The whole system on free ports and a database of its own, as ``make run`` starts it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rmn.lib.processes import free_port

ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/faults" in str(item.path):
            item.add_marker(pytest.mark.faults)


@dataclass
class System:
    """Everything of one ``serve``: asked by commands and by its database, harmed by process ids it started."""

    folder: Path
    port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *words], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / "db.sqlite3", timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def kill(self, part: str) -> int:
        """kill -9 the child whose command line holds ``part``, and its own children; returns how many."""
        found = [pid for pid in children(self.process.pid) if part in words_of(pid)]
        assert found, f"no child runs {part}"
        harmed = [*found, *(grandchild for pid in found for grandchild in children(pid))]
        for pid in harmed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(harmed)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def words_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def until(true: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for something to become true; fails with words when it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"after {seconds:.0f} s still not: {what}")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("processes are found through /proc")
    model = ROOT / "var" / "models" / "base"
    if not (model / "config.json").exists():
        pytest.skip("no base model: make install")
    folder = tmp_path_factory.mktemp("system")
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "RMN_INFERENCE_URL")}
    environment |= {
        "RMN_VAR": str(folder),
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "RMN_BASE_MODEL": str(model),
        "RMN_VALKEY_PORT": str(free_port()),
        "SECRET_KEY": "only-for-the-fault-tests-0123456789-0123456789-0123456789",
        "DEBUG": "True",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "serve", "--port", str(port)], cwd=ROOT, env=environment, stdout=log, stderr=log
        )  # fmt: skip
        try:
            until(lambda: _answers(port) or process.poll() is not None, 120, "the site answers")
            assert process.poll() is None, (folder / "serve.log").read_text()[-2000:]
            yield System(folder, port, environment, process)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()

"""A start that would open a door is refused, by the name of the variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = {"DEBUG": "False", "SECRET_KEY": "a-long-one-for-this-test-0123456789-0123456789-0123456789"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (PUBLIC, ""),
        ({"SECRET_KEY": "change-me"}, "SECRET_KEY is the sample one"),
        ({"DEBUG": "yes"}, "DEBUG=yes"),
        ({"DEBUG": "True", "ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS has *"),
        ({"DEBUG": "True", "ALLOWED_HOSTS": "localhost,rmn.example.com"}, "ALLOWED_HOSTS has rmn.example.com"),
        ({"RMN_OUTBOUND_ALLOW": "rooms.example.com,http://127.0.0.1:9000"}, "RMN_OUTBOUND_ALLOW has http://127.0.0.1:9000"),
    ],
)  # fmt: skip
def test_an_unsafe_start_is_refused(given: dict[str, str], said: str, tmp_path: Path) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {**kept, "RMN_VAR": str(tmp_path), **PUBLIC, **given}
    done = subprocess.run(
        [sys.executable, "-c", "import rmn.settings"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (not said), done.stderr[-500:]
    assert said in done.stderr

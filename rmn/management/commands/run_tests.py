"""The tests on SQLite, and on every other database that was given."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from django.conf import settings

from rmn.lib.commands import RmnCommand


class Command(RmnCommand):
    help = "Run the tests on SQLite, then on each of RMN_TEST_DATABASE_URLS."
    example = "run_tests"

    def run(self, **options: Any) -> None:
        given = [url.strip() for url in os.environ.get("RMN_TEST_DATABASE_URLS", "").split(",") if url.strip()]
        failed = []
        for url in ["sqlite:///:memory:", *given]:
            name = url.split(":", 1)[0]
            self.stderr.write(f"tests on {name}")
            # SQLite runs all; the others what may differ between databases.
            marks = "not faults" if url not in given else "not faults and not model and not browser and not slow"
            if self._pytest(url, marks):
                failed.append(name)
        if failed:
            self.fail(f"tests failed on {', '.join(failed)}; see above")

    def _pytest(self, url: str, marks: str) -> int:
        environment = {**os.environ, "DATABASE_URL": url, "OMP_NUM_THREADS": "1"}
        environment.pop("DATABASE_ADMIN_URL", None)
        if os.environ.get("RMN_TEST_REDIS_URL"):
            environment["REDIS_URL"] = os.environ["RMN_TEST_REDIS_URL"]
        workers = str(min(os.cpu_count() or 1, 4))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "tests",
            "-n",
            workers,
            "--dist",
            "loadfile",
            "--max-worker-restart",
            "0",
            "-m",
            marks,
        ]
        return subprocess.run(command, cwd=settings.BASE_DIR, env=environment, check=False).returncode

"""Child processes on one machine: started, watched, always ended, by their own ids."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rmn.lib.errors import RmnError


class PortTaken(RmnError):
    """Another program listens where we must."""


class DidNotStart(RmnError):
    """A child ended, or did not answer in time; the message holds the last lines of its log."""


def free_port() -> int:
    """A port on loopback that nobody held a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@dataclass
class Child:
    """One program of ours: how to start it, where it writes, when it is ready."""

    name: str
    command: list[str]
    log: Path
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C reaches us alone; we then end them in order
            )
        self.started_at = time.monotonic()

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_until_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.is_alive:
                raise DidNotStart(f"{self.name} ended at once: {self.last_words()}; see {self.log}")
            if self.ready is None or self.ready():
                return
            time.sleep(0.1)
        raise DidNotStart(f"{self.name} did not answer within {timeout_s:.0f} s; see {self.log}")

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1][:200] if lines else "it wrote nothing"

    def stop(self, grace_s: float = 10.0) -> None:
        """Ask its process group to end, and insist after ``grace_s`` seconds."""
        if self.process is None:
            return
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
            if self.process.poll() is not None:
                break
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(wait_s)
            except subprocess.TimeoutExpired:
                continue
        self.process = None

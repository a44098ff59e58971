"""Our own server as a child process, for as long as a block runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

from agents.inference.clients import client_for
from agents.inference.errors import Unreachable
from agents.inference.types import InferenceClient

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def own_server(model: Path, adapters: Path, options: Sequence[str] = (), wait_s: float = 120.0) -> Iterator[str]:
    """Start our server on a free port of 127.0.0.1 and yield its address; it ends with the block.

    The child also ends by itself when this process dies, however that happens: its standard input
    closes.

    Args:
        model, adapters: folders, as the server takes them.
        options: further arguments of the server.
        wait_s: until it must be healthy.

    Raises:
        Unreachable: it did not start; the message ends with its own last words.
    """
    adapters.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "agents.inference.server", "--model", str(Path(model).absolute())]
    command += ["--adapters", str(Path(adapters).absolute()), "--port", str(port), "--until-stdin-closes", *options]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )
        try:
            _wait_until_healthy(url, child, time.monotonic() + wait_s)
            yield url
        except Unreachable as error:
            if child.poll() is None:
                raise
            said.seek(0)
            last = [line.strip() for line in said.read().splitlines() if line.strip()] or ["it said nothing"]
            raise Unreachable(f"{error}; its last words: {last[-1][:300]}") from None
        finally:
            if child.stdin is not None:
                child.stdin.close()
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(5)


@contextmanager
def connect(url: str, kind: str, model: Path, adapters: Path, timeout_s: float = 120.0) -> Iterator[InferenceClient]:
    """A client of the configured server, or of one of our own that lives as long as the block.

    Args:
        url: RMN_INFERENCE_URL; empty starts our own.
        kind: RMN_INFERENCE_KIND of that server.
        model, adapters: for a server of our own.
    """
    if url:
        client = client_for(kind, url, timeout_s)
        try:
            yield client
        finally:
            client.close()
        return
    with own_server(model, adapters) as own:
        client = client_for("tgi", own, timeout_s)
        try:
            yield client
        finally:
            client.close()


def _wait_until_healthy(url: str, child: subprocess.Popen[bytes], until: float) -> None:
    while time.monotonic() < until:
        if child.poll() is not None:
            raise Unreachable("our inference server did not start")
        try:
            if httpx2.get(url + "/health", timeout=2.0).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.1)
    raise Unreachable("our inference server did not become healthy in time; is the machine overloaded?")

from __future__ import annotations

import pytest

from agents.inference.launcher import own_server
from tests.agents.tiny import make_adapter, make_base


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A tiny base model, two good adapters and a bad one: (base, adapters)."""
    base = make_base(tmp_path_factory.mktemp("models") / "tiny")
    root = tmp_path_factory.mktemp("adapters")
    make_adapter(root / "acme-copy", base, seed=1)
    make_adapter(root / "globex-copy", base, seed=2, rank=8, brand="globex")
    make_adapter(root / "spare", base, seed=3)
    (root / "broken").mkdir()
    return base, root


@pytest.fixture(scope="session")
def server(tiny):
    """Our server as a process, on the tiny model."""
    base, root = tiny
    options = ["--max-total-tokens", "256", "--max-batch", "4", "--max-concurrent-requests", "40", "--threads", "1"]
    with own_server(base, root, options) as url:
        yield url


@pytest.fixture(scope="session")
def roomy(tiny):
    """A server on the tiny model that has room for a whole brief or for tools, one token a byte."""
    with own_server(*tiny, ["--max-total-tokens", "512", "--max-batch", "2", "--threads", "1"]) as url:
        yield url

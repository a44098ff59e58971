"""What every test of campaigns runs under."""

from __future__ import annotations

import pytest

from campaigns.domain import problem


@pytest.fixture(autouse=True)
def as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof is found or not whatever else the machine is doing."""
    monkeypatch.setattr(problem, "PATIENCE_S", 600.0)

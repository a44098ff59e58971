"""What one terminal starts."""

from __future__ import annotations

from typing import Any

from rmn.management.commands.serve import Command


def test_the_broker_is_ours_unless_one_is_named(settings: Any, tmp_path: Any) -> None:
    settings.VAR, settings.RMN_OWN_BROKER = tmp_path, True
    url, children = Command()._broker()
    assert url.startswith("redis://127.0.0.1:")
    assert [child.name for child in children] == ["broker"]
    assert "--appendonly yes" in " ".join(children[0].command)
    settings.RMN_OWN_BROKER, settings.REDIS_URL = False, "redis://elsewhere:6379/1"
    assert Command()._broker() == ("redis://elsewhere:6379/1", [])


def test_site_worker_beat_broker_and_model_server_start_together(settings: Any, tmp_path: Any) -> None:
    settings.VAR, settings.RMN_OWN_BROKER, settings.RMN_ADAPTERS = tmp_path, True, tmp_path / "adapters"
    settings.RMN_INFERENCE_URL, settings.RMN_BASE_MODEL = "", tmp_path / "model"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    names = [child.name for child in Command()._children(8123)]
    assert names == ["broker", "inference", "worker", "beat", "site"]

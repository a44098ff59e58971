"""What stands in deploy/ fits the product: files, settings, queues, secrets and metrics exist under these names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.db.migrations.loader import MigrationLoader
from django.test import Client

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_every_queue_has_a_worker_and_two_beats_run() -> None:
    services = compose()["services"]
    commands = {name: " ".join(one.get("command", [])) for name, one in services.items()}
    served = {
        queue
        for said in commands.values()
        for told in re.findall(r"worker -Q (\S+)", said)
        for queue in told.split(",")
    }
    assert served == {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()} | {
        settings.CELERY_TASK_DEFAULT_QUEUE
    }
    assert sum("beat" in said for said in commands.values()) == 2
    assert {"web-1", "web-2", "inference-1", "inference-2"} <= set(services)


def test_every_variable_is_a_documented_one_and_every_secret_is_given() -> None:
    told, documented = compose(), (ROOT / "docs" / "configuration.md").read_text()
    for name, service in told["services"].items():
        if "rmn" not in service.get("image", ""):
            continue
        for variable, value in service.get("environment", {}).items():
            known = variable.removesuffix("_FILE")
            assert f"`{known}`" in documented or known.startswith("EMAIL_"), f"{name}: {variable}"
            if str(value).startswith("/run/secrets/"):
                assert Path(value).name in service["secrets"], f"{name}: {variable}"
        assert set(service.get("secrets", [])) <= set(told["secrets"])


def test_every_file_that_is_mounted_is_there_and_volumes_are_declared() -> None:
    told = compose()
    for service in told["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and source != "./certs":
                assert (DEPLOY / source).exists(), volume
            elif re.fullmatch(r"[a-z]+", source):
                assert source in told["volumes"], volume
    for variant in DEPLOY.glob("compose.*.yaml"):
        assert set(yaml.safe_load(variant.read_text())["services"]) <= set(told["services"])
    proxy = (DEPLOY / "proxy" / "nginx.conf").read_text()
    assert set(re.findall(r"server ([a-z]+-\d):", proxy)) == {"web-1", "web-2", "inference-1", "inference-2"}


def test_no_secret_stands_in_a_file() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            assert not re.search(r"://[^/\s$:@]+:[^/\s$@]+@", path.read_text()), path


@pytest.mark.django_db
def test_alerts_and_dashboard_ask_for_metrics_that_are_there() -> None:
    Client().get("/healthz")
    said = Client().get("/metrics").content.decode()
    known = set(re.findall(r"^# TYPE (\S+)", said, re.MULTILINE))
    ours = re.findall(r'"(rmn_[a-z_]+)"', (ROOT / "agents" / "inference" / "server.py").read_text())
    known |= {ending for name in ours for ending in (name, f"{name}_total")}
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    asked = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    board = json.loads((DEPLOY / "grafana" / "rmn.json").read_text())
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    names = {name for text in asked for name in re.findall(r"\b(?:rmn|django|process)_[a-z_]+", text)}
    assert {name.removesuffix("_bucket") for name in names} <= known
    assert len(asked) >= 15


def test_the_workflow_runs_what_make_has() -> None:
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = [step["run"] for job in flow["jobs"].values() for step in job["steps"] if "run" in step]
    assert {word for text in said for word in re.findall(r"\bmake ([a-z-]+)", text)} <= targets
    assert (ROOT / "deploy" / "Dockerfile").read_text().count(" AS ") == len(
        flow["jobs"]["image"]["strategy"]["matrix"]["target"]
    )


def test_every_migration_of_ours_has_a_way_back() -> None:
    found = MigrationLoader(None).disk_migrations
    ours = {"rmn", "retailers", "campaigns", "feedback", "agents", "training"}
    stuck = [f"{app}.{name}: {one}" for (app, name), step in found.items() if app in ours for one in step.operations if not one.reversible]  # fmt: skip
    assert {app for app, _ in found} >= ours
    assert stuck == []

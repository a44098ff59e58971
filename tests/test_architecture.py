from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command

ROOT = Path(__file__).resolve().parent.parent
CORE = [
    "Retailer",
    "Brand",
    "Campaign",
    "SKUCatalog",
    "AudienceSegment",
    "PerformanceMetric",
    "Feedback",
    "ReflectionLog",
]


def test_imports_run_one_way() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_eight_core_models_keep_their_names() -> None:
    names = {model.__name__ for model in apps.get_models()}
    assert set(CORE) <= names


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_trainer_and_inference_load_without_django() -> None:
    code = """
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('django', 'celery', 'rest_framework'):
            raise ImportError(name)
sys.meta_path.insert(0, Wall())
import importlib, pkgutil
import agents.inference, retailers.connectors, training.lora
for package in (training.lora, agents.inference, retailers.connectors):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):
        if not module.name.endswith('__main__'):
            importlib.import_module(module.name)
print('pure')
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "pure" in done.stdout, done.stderr[-1500:]


@pytest.mark.parametrize("module", ["agents.inference.clients", "agents.inference.server", "rmn.settings"])
def test_the_model_libraries_report_to_nobody(module: str) -> None:
    """They tell their hub of each start and each run unless they are told not to before they load."""
    code = f"import {module}; from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**plain, "SECRET_KEY": "x" * 50, "DEBUG": "True"}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr[-800:]


def test_every_init_file_is_empty() -> None:
    for app in ("rmn", "retailers", "campaigns", "feedback", "agents", "training"):
        for path in (ROOT / app).rglob("__init__.py"):
            assert not path.read_text().strip(), path


def test_every_file_that_a_document_names_is_there() -> None:
    lost = []
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = document.read_text()
        named = [path for path in re.findall(r"`([a-z_]+/[A-Za-z0-9_/.]+)`", text) if not path.startswith("var/")]
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        lost += [f"{document.name}: {path}" for path in named if not (ROOT / path).exists()]
        lost += [f"{document.name}: {link}" for link in links if not (document.parent / link).exists()]
    assert not lost

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from agents.inference.adapters import read_manifest
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import RmnError
from training import services, tasks
from training.lora import config


class Command(RmnCommand):
    help = "Train a LoRA adapter from RUN.json (docs/training.md) as a training run; python -m training.lora does the same without Django."
    example = "train_adapter run.json --resume"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("run", help="the run (JSON)")
        parser.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint")
        parser.add_argument("--out", help="where the answer goes (default: stdout)")

    def run(self, **options: Any) -> None:
        asked = config.read(Path(options["run"]))
        run = services.wish_for_file(asked)
        with run.tracked():
            tasks.train_file(run, asked, resume=options["resume"], tell=self.tell)
        run.refresh_from_db()
        if run.status != run.Status.SUCCEEDED:
            raise RmnError(run.error or f"the training is {run.status}; go on with --resume")
        manifest = read_manifest(asked.out)
        shown = ("digest", "method", "steps", "final_loss", "seconds", "resumed", "parents")
        self.answer({name: manifest.get(name) for name in shown} | {"training_run": str(run.pk)}, options["out"])

    def tell(self, line: Mapping[str, Any]) -> None:
        self.stderr.write(f"step {line['step']}/{line['steps']} loss {line['loss']:.4f}")

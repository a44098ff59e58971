from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from rmn.lib.commands import RmnCommand
from training.lora import config
from training.lora.train import train


class Command(RmnCommand):
    help = "Train a LoRA adapter from RUN.json (docs/training.md); the same as python -m training.lora."
    example = "train_adapter run.json --resume"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("run", help="the run (JSON)")
        parser.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint")
        parser.add_argument("--out", help="where the answer goes (default: stdout)")

    def run(self, **options: Any) -> None:
        manifest = train(config.read(Path(options["run"])), resume=options["resume"], progress=self.tell)
        shown = ("digest", "method", "steps", "final_loss", "seconds", "resumed", "parents")
        self.answer({name: manifest.get(name) for name in shown}, options["out"])

    def tell(self, line: Mapping[str, Any]) -> None:
        self.stderr.write(f"step {line['step']}/{line['steps']} loss {line['loss']:.4f}")

"""``python -m training.lora RUN.json [--resume]``: a training without Django."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmn.lib.errors import RmnError
from training.lora import config
from training.lora.train import train


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.lora", description="Train a LoRA adapter.")
    parser.add_argument("run", type=Path, help="RUN.json, see docs/training.md")
    parser.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when whoever started this is gone")
    asked = parser.parse_args(arguments)
    if asked.until_stdin_closes:
        threading.Thread(target=_end_with_the_starter, daemon=True).start()
    try:
        manifest = train(config.read(asked.run), resume=asked.resume, progress=_tell)
    except RmnError as error:
        sys.stderr.write(f"training.lora: {' '.join(str(error).split())}\n")
        return 2
    if not manifest:  # one of several processes, and not the one that writes
        return 0
    shown = ("digest", "method", "steps", "final_loss", "seconds", "resumed")
    sys.stdout.write(json.dumps({key: manifest.get(key) for key in shown}) + "\n")
    return 0


def _end_with_the_starter() -> None:
    """A trainer without its worker would go on writing checkpoints that the next one reads."""
    while os.read(0, 1024):  # not sys.stdin: its lock must be free when the interpreter ends
        pass
    os._exit(3)


def _tell(line: Mapping[str, Any]) -> None:
    sys.stderr.write(f"step {line['step']}/{line['steps']} loss {line['loss']:.4f}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())

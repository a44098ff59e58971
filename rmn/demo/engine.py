"""Stages that are done once, timed, and carried on with after a kill."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmn.lib.commands import write_text


@dataclass(frozen=True)
class Stage:
    """One step of the loop: its name, what it does in words, and the work."""

    name: str
    words: str
    work: Callable[[dict[str, Any]], dict[str, Any]]  # results so far -> facts, JSON-able
    version: int = 1  # raised when the work changes, so that it is done anew


@dataclass
class Engine:
    """Runs stages in order; a stage stands when its version and all results before it are the same."""

    folder: Path
    say: Callable[[str], None]
    seed: str  # what the results depend on beside the stages: the tenant's id, the base model's digest
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.state = {}

    def run(self, stages: list[Stage]) -> dict[str, Any]:
        results: dict[str, Any] = {}
        chain = hashlib.sha256(self.seed.encode()).hexdigest()
        for number, stage in enumerate(stages, 1):
            chain = hashlib.sha256(f"{chain} {stage.name} {stage.version}".encode()).hexdigest()
            kept = self.state.get(stage.name)
            if kept and kept["chain"] == chain:
                results[stage.name] = kept["facts"]
                self.say(f"[{number:2}/{len(stages)}] {stage.words}: as before")
                chain = self._extend(chain, kept["facts"])
                continue
            self.say(f"[{number:2}/{len(stages)}] {stage.words} ...")
            started = time.monotonic()
            facts = json.loads(json.dumps(stage.work(results), default=str))
            seconds = round(time.monotonic() - started, 2)
            self.state[stage.name] = {"chain": chain, "facts": facts, "seconds": seconds}
            write_text(self.folder / "state.json", json.dumps(self.state, indent=1))
            results[stage.name] = facts
            chain = self._extend(chain, facts)
            self.say(f"        {seconds:6.1f} s  {facts.get('note', '')}")
        return results

    @staticmethod
    def _extend(chain: str, facts: dict[str, Any]) -> str:
        return hashlib.sha256(f"{chain} {json.dumps(facts, sort_keys=True)}".encode()).hexdigest()

    def seconds(self, stages: list[Stage]) -> list[dict[str, Any]]:
        return [{"name": s.name, "seconds": self.state[s.name]["seconds"]} for s in stages if s.name in self.state]

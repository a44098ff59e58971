"""python -m benchmarks [NAME ...] [--full]: run benchmarks, print their tables, keep docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

import benchmarks
from benchmarks.harness import publish


def main() -> None:
    names = [
        m.name
        for m in pkgutil.iter_modules(benchmarks.__path__)
        if m.name not in ("harness", "stack", "seed", "__main__")
    ]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*names, []], help="which; when left out, all that take seconds")
    parser.add_argument("--full", action="store_true", help="the sizes of docs/benchmarks.md; minutes, not seconds")
    options = parser.parse_args()
    for name in options.names or names:
        module = importlib.import_module(f"benchmarks.{name}")
        if not hasattr(module, "rows") or (not options.names and getattr(module, "ALONE", False)):
            continue
        print(f"\n{name}: {(module.__doc__ or '').splitlines()[0]}")
        size = "full" if options.full else "small"
        command = f"python -m benchmarks {name}" + (" --full" if options.full else "")
        publish(name, module.rows(size), command, getattr(module, "NOTE", ""))


if __name__ == "__main__":
    main()

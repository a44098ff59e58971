from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from agents import serving
from agents.inference import adapters
from campaigns.models import Task
from retailers.models import Brand, Retailer
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import BadInput
from training import suites, tasks
from training.lora.compose import METHODS, compose


class Command(RmnCommand):
    help = "Compose adapters into one version: retailer, brand and task, with weights."
    example = "compose_adapters 3f9a1c:0.5 77ab02:0.3 c0ffee:0.2 --method cat --out adapters/acme"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("parts", nargs="+", help="digest or folder, a colon, its weight")
        parser.add_argument("--method", default="cat", help=f"one of {', '.join(METHODS)} (default: cat, exact)")
        parser.add_argument("--rank", type=int, default=0, help="of svd (default: the largest part's)")
        parser.add_argument("--search", action="store_true", help="search the weights on half of the unseen products")
        parser.add_argument("--brand", help="of --search: whose products (default: the parts' brand)")
        parser.add_argument("--out", required=True, help="folder of the new version")

    def run(self, **options: Any) -> None:
        parts = [part(text) for text in options["parts"]]
        if options["search"]:
            self.searched(parts, **options)
            return
        out = Path(options["out"])
        digest = compose(parts, options["method"], out, rank=options["rank"])
        self.stdout.write(f"{digest}: {out}; {registered(out)}")

    def searched(self, parts: list[tuple[Path, float]], **options: Any) -> None:
        slugs = {str(adapters.read_manifest(folder).get("brand") or "") for folder, _ in parts} - {""}
        slug = options["brand"] or (slugs.pop() if len(slugs) == 1 else "")
        brand = Brand.objects.filter(slug=slug).first()
        if brand is None:
            raise BadInput(f"--brand {slug!r}: whose products? there is no such brand")
        with serving.inference() as client:
            found = tasks.mix(
                client, parts, options["method"], Path(options["out"]), suites.creative(brand), rank=options["rank"]
            )
        weights = ", ".join(f"{weight:g}" for weight in found.weights)
        self.stdout.write(
            f"{adapters.digest(found.folder)}: {found.folder}; {registered(found.folder)}\nweights {weights}, the best of {len(found.tried)};"
            f" against the best part on other products: {found.found.verdict.replace('_', ' ')}"
            f" ({'; '.join(found.found.reasons)})"
        )


def registered(folder: Path) -> str:
    """Give a composition its row in the scope that its parts agree on; and say so, or why not."""
    told = adapters.read_manifest(folder)
    brand = Brand.objects.filter(slug=told.get("brand") or "").first()
    if brand is None:
        return "not registered: no part belongs to a brand here"
    retailer = Retailer.objects.filter(slug=told.get("retailer") or "").first()
    row = serving.register(folder, kind="composed", brand=brand, retailer=retailer, task=str(told.get("task") or Task.CREATIVE))  # fmt: skip
    return f"registered for {row.scope}, not gated yet: evaluate_adapter {row.digest[:12]} --against base"


def part(text: str) -> tuple[Path, float]:
    """Folder and weight from ``A:0.5``.

    Raises:
        BadInput: no weight, no number, or no such adapter.
    """
    name, mark, weight = text.rpartition(":")
    try:
        value = float(weight)
    except ValueError:
        raise BadInput(f"{text!r}: a weight was expected after a colon, such as 3f9a1c:0.5") from None
    if not mark or not -10 <= value <= 10:
        raise BadInput(f"{text!r}: an adapter, a colon and a weight between -10 and 10")
    folder = Path(name)
    return (folder if folder.is_dir() else serving.folder_of(serving.find(name))), value

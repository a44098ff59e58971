"""Work on feeds that outlives a request."""

from __future__ import annotations

import tempfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import structlog
from celery import shared_task
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from retailers import audit, catalogue, loads, watching, webhooks
from retailers.connectors.files import open_feed
from retailers.domain import harmonizer
from retailers.domain import mapping as mappings
from retailers.models import Delivery, FeedLoad, FeedSource
from rmn.lib import tenancy
from rmn.lib.errors import BadInput
from rmn.lib.tasks import TenantTask

log = structlog.get_logger(__name__)

# -- feeds


@shared_task(base=TenantTask)
def load_feed(run_id: str) -> None:
    """Harmonize a stored file and bring it into the metrics, whole or not at all."""
    run = FeedLoad.objects.select_related("brand", "retailer", "mapping").get(pk=run_id)
    if run.is_finished:  # the broker delivered the message twice
        return
    with run.tracked(), tempfile.TemporaryDirectory(prefix="rmn-load-") as folder:
        ingest(run, Path(folder) / "out")


def ingest(run: FeedLoad, out: Path) -> dict[str, Any]:
    """The work of one load, inside ``run.tracked()``; returns the report with what the load changed."""
    path = stored(run)
    run.report(0.05, "Reading the file")
    if run.config.get("catalogue"):
        return catalogue.ingest(run, path)
    mapping = mapping_of(run)
    with open_feed(path, mapping.dialect, mapping.wanted) as feed:
        report = harmonizer.run(
            feed,
            mapping,
            out,
            as_of=datetime.fromisoformat(run.config["as_of"]) if run.config.get("as_of") else None,
            period=_days(run.config.get("period")),
            name=run.file_name,
        )
    run.report(0.5, f"{report['rows_accepted']:,} rows to load, {report['rows_quarantined']:,} in quarantine")
    with transaction.atomic():
        report["load"] = loads.upsert(out, run, mapping)
        report["conflicts"] = len(catalogue.link(out, run, mapping))
    loads.record(run, report)
    return report


def mapping_of(run: FeedLoad) -> mappings.MappingFile:
    """The mapping a load was wished with: a stored version, the text it carried, or a shipped name."""
    if run.mapping is not None:
        return mappings.parse(run.mapping.yaml, str(run.mapping))
    if run.config.get("yaml"):
        return mappings.parse(run.config["yaml"], run.config.get("mapping") or "mapping")
    if run.config.get("mapping"):
        return mappings.shipped(run.config["mapping"])
    raise BadInput(f"{run.file_name}: no mapping was chosen; choose one, or draft one with infer_mapping")


def stored(run: FeedLoad) -> Path:
    path = Path(settings.MEDIA_ROOT) / run.file_path
    if not run.file_path or not path.is_file():
        raise BadInput(f"{run.file_name}: the file is no longer kept; upload it again")
    return path


def _days(text: str | None) -> tuple[date, date] | None:
    if not text:
        return None
    start, _, end = text.partition(":")
    return date.fromisoformat(start), date.fromisoformat(end or start)


@shared_task
def watch_sources() -> int:
    """Look at every folder and address that is watched; returns how many files are new."""
    with tenancy.everyone():
        active = FeedSource.objects.filter(is_active=True).select_related("brand", "retailer", "mapping")
        return sum(len(watching.look(source, timezone.now())) for source in active.order_by("pk"))


# -- webhooks


@shared_task
def announce() -> int:
    """Write the messages that webhooks are waiting for."""
    with tenancy.everyone():
        return webhooks.announce(timezone.now())


@shared_task(base=TenantTask)
def deliver(run_id: str) -> None:
    """Hand one message over, or say why not."""
    run = Delivery.objects.select_related("webhook__brand").get(pk=run_id)
    if run.is_finished:  # the broker delivered the message twice
        return
    with run.tracked():
        webhooks.send(run)


# -- audit


@shared_task
def verify_audit() -> int:
    """Check every chain against itself and the heads of the last time, then sign and keep today's.

    Returns:
        How many chains are broken; while one is, no new heads are kept.
    """
    with tenancy.everyone():
        folder = Path(settings.RMN_AUDIT_HEADS)
        kept = audit.newest_heads(folder)
        found = {chain: audit.check(chain, kept.get(chain)) for chain in sorted({*audit.chains(), *kept})}
        broken = [
            one
            for chain, one in found.items()
            if one["broken"] is not None and not (one["rows"] == 0 and audit.erased(kept[chain]))
        ]
        for one in broken:
            log.error("audit_chain_broken", **one)
        if not broken:
            audit.export_heads(folder)
        return len(broken)

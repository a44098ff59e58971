"""The audit chain: each line holds the hash of the line before it, one chain for each brand.

A line changed, taken out or put in breaks every hash after it; a tail cut off shows against the head
that is kept beside the chain, and against a head kept elsewhere (``verify_audit --head``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from retailers.models import AuditEntry, AuditHead, Brand

FIRST = "0" * 64


@transaction.atomic
def record(
    *, brand: Brand | None, actor: str, action: str, subject: Any = None, payload: Mapping[str, Any] | None = None
) -> AuditEntry:
    """Append a line; two that append at once wait for each other on the chain's head.

    Args:
        actor: a user's name, or the part of the system that acted.
        action: what was done, in a word or two: "plan approved".
        subject: the row it was done to.
        payload: what a reader needs, as JSON.
    """
    chain = brand.slug if brand else "-"
    AuditHead.objects.get_or_create(chain=chain, defaults={"brand": brand, "hash": FIRST})
    head = AuditHead.objects.select_for_update().get(chain=chain)
    at = timezone.now()
    facts: dict[str, Any] = {
        "chain": chain,
        "sequence": head.sequence + 1,
        "at": at.isoformat(timespec="microseconds"),
        "actor": actor[:160],
        "action": action[:80],
        "subject_type": subject._meta.label if subject is not None else "",
        "subject_id": str(getattr(subject, "uuid", None) or getattr(subject, "pk", "")) if subject is not None else "",
        "payload": json.loads(json.dumps(dict(payload or {}), default=str)),
        "previous_hash": head.hash or FIRST,
    }
    sealed = digest(facts)
    row = AuditEntry.objects.create(brand=brand, hash=sealed, **{**facts, "at": at})
    head.sequence, head.hash = facts["sequence"], sealed
    head.save(update_fields=["sequence", "hash"])
    return row


def digest(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def verify(chain: str, head: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Walk a chain from its first line.

    Args:
        head: sequence and hash kept elsewhere; a chain that ends before it was cut.

    Returns:
        ``chain, rows, broken`` (the first broken sequence, or None), ``why``.
    """
    previous, wanted, rows = FIRST, 1, 0
    seen: dict[int, str] = {}
    for row in AuditEntry.objects.filter(chain=chain).order_by("sequence").iterator(chunk_size=2000):
        rows += 1
        facts = {name: getattr(row, name) for name in ("chain", "sequence", "actor", "action", "subject_type", "subject_id", "payload", "previous_hash")}  # fmt: skip
        facts["at"] = row.at.isoformat(timespec="microseconds")
        why = ""
        if row.sequence != wanted:
            why = f"line {wanted} is missing"
        elif row.previous_hash != previous:
            why = "it does not follow the line before it"
        elif digest(facts) != row.hash:
            why = "its content was changed"
        if why:
            return {"chain": chain, "rows": rows, "broken": min(row.sequence, wanted), "why": why}
        previous, wanted = row.hash, wanted + 1
        seen[row.sequence] = row.hash
    kept = AuditHead.objects.filter(chain=chain).first()
    if kept is not None and (kept.sequence != wanted - 1 or (kept.sequence and kept.hash != previous)):
        return {"chain": chain, "rows": rows, "broken": wanted, "why": "lines at the end were taken away"}
    if head is not None and seen.get(int(head["sequence"])) != head["hash"]:
        return {
            "chain": chain,
            "rows": rows,
            "broken": int(head["sequence"]),
            "why": "it is not the line of the kept head",
        }
    return {"chain": chain, "rows": rows, "broken": None, "why": ""}

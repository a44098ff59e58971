"""The audit chain: each line holds the hash of the line before it, one chain for each brand.

A line changed, taken out or put in breaks every hash after it; a tail cut off shows against the head
that is kept beside the chain. Whoever rewrites all of that, heads included, is found by the signed heads
that are written every night to a folder the database's owner need not reach (``verify_audit --head``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.db.models import F, OuterRef, Q, Subquery
from django.utils import timezone

from retailers.models import AuditEntry, AuditHead, Brand
from rmn.lib import masking, sealing
from rmn.lib.errors import BadInput

FIRST = "0" * 64
FACTS = ("chain", "sequence", "actor", "action", "subject_type", "subject_id", "payload", "previous_hash")
_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode
# Line and head in one statement, the hash worked out beside the lock: one round trip instead of five.
APPEND = """
WITH head AS (
  SELECT id, sequence + 1 AS sequence, hash AS previous FROM retailers_audithead WHERE chain = %(chain)s FOR UPDATE
), sealed AS (
  SELECT *, encode(sha256(convert_to(%(before)s::text || previous || '","sequence":' || sequence || %(after)s::text, 'UTF8')), 'hex') AS hash FROM head
), moved AS (
  UPDATE retailers_audithead SET sequence = sealed.sequence, hash = sealed.hash FROM sealed WHERE retailers_audithead.id = sealed.id
)
INSERT INTO retailers_auditentry
  (uuid, brand_id, chain, sequence, at, actor, action, subject_type, subject_id, payload, previous_hash, hash)
SELECT %(uuid)s, %(brand)s, %(chain)s, sequence, %(at)s, %(actor)s, %(action)s, %(subject_type)s, %(subject_id)s,
  %(payload)s::jsonb, previous, hash FROM sealed
RETURNING id, sequence, previous_hash, hash
"""


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
    at = timezone.now()
    told: dict[str, Any] = {
        "chain": brand.slug if brand else "-",
        "at": at.isoformat(timespec="microseconds"),
        "actor": _kept(actor)[:160],
        "action": action[:80],
        "subject_type": subject._meta.label if subject is not None else "",
        "subject_id": str(getattr(subject, "uuid", None) or getattr(subject, "pk", "")) if subject is not None else "",
        "payload": _kept(masking.told(json.loads(json.dumps(dict(payload or {}), default=str)), masking.of(brand))),
    }
    line = AuditEntry(brand=brand, **{**told, "at": at})
    append = _append_at_once if connection.vendor == "postgresql" else _append
    if not append(line, told):
        AuditHead.objects.get_or_create(chain=line.chain, defaults={"brand": brand, "hash": FIRST})
        append(line, told)
    return line


@transaction.atomic
def _append(line: AuditEntry, told: Mapping[str, Any]) -> bool:
    """Put the line behind the chain's head; false where the chain has none yet."""
    heads = AuditHead.objects.select_for_update().filter(chain=line.chain)
    head = heads.first()
    if head is None:
        return False
    line.sequence, line.previous_hash = head.sequence + 1, head.hash
    line.hash = digest({**told, "sequence": line.sequence, "previous_hash": line.previous_hash})
    line.save(force_insert=True)
    heads.update(sequence=line.sequence, hash=line.hash)
    return True


def _append_at_once(line: AuditEntry, told: Mapping[str, Any]) -> bool:
    """The same in one statement: the canonical JSON is sent in two parts, around what only the head knows."""
    tail = {name: told[name] for name in ("subject_id", "subject_type")}
    front = _canonical({name: value for name, value in told.items() if name not in tail})
    sent = {
        **told,
        "before": f'{front[:-1]},"previous_hash":"',
        "after": f",{_canonical(tail)[1:]}",
        "uuid": line.uuid,
        "brand": line.brand_id,
        "at": line.at,
        "payload": _canonical(told["payload"]),
    }
    with connection.cursor() as cursor:
        cursor.execute(APPEND, sent)
        row = cursor.fetchone()
    if row is None:
        return False
    line.pk, line.sequence, line.previous_hash, line.hash = row
    line._state.adding, line._state.db = False, connection.alias
    return True


def _kept(value: Any) -> Any:
    """The value as every database gives it back, so that its hash fits afterwards too."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, float):  # PostgreSQL's numbers know no minus zero, no infinity, and no exponent
        if not math.isfinite(value):
            return str(value)
        return int(value) if value == 0 or abs(value) >= 1e16 else value
    if isinstance(value, dict):
        return {_kept(key): _kept(one) for key, one in value.items()}
    return [_kept(one) for one in value] if isinstance(value, list) else value


def digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(facts).encode()).hexdigest()


def verify(chain: str, head: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Walk a chain from its first line.

    Args:
        head: sequence and hash kept elsewhere; a chain that ends before it was cut.

    Returns:
        ``chain, rows, broken`` (the first broken sequence, or None), ``why``.
    """
    kept = AuditHead.objects.filter(chain=chain).first()
    owner = kept.brand_id if kept else None
    previous, wanted, rows, why = FIRST, 1, 0, ""
    at_head = FIRST
    looked_for = int(head["sequence"]) if head else 0
    lines = AuditEntry.objects.filter(chain=chain).order_by("sequence")
    seen = -1
    while True:
        for line in (
            lines.filter(sequence__gt=seen).values_list("hash", "brand_id", "at", *FACTS).iterator(chunk_size=5000)
        ):
            rows += 1
            told, brand, at, *said = line
            facts = dict(zip(FACTS, said))
            facts["at"] = at.isoformat(timespec="microseconds")
            if facts["sequence"] != wanted:
                why = f"line {wanted} is missing"
            elif facts["previous_hash"] != previous:
                why = "it does not follow the line before it"
            elif digest(facts) != told:
                why = "its content was changed"
            elif kept is not None and brand != owner:
                why = "it was given to another brand"
            if why:
                return {"chain": chain, "rows": rows, "broken": min(facts["sequence"], wanted), "why": why}
            if wanted == looked_for:
                at_head = told
            previous, wanted = told, wanted + 1
        kept = AuditHead.objects.filter(chain=chain).first()
        if kept is None or kept.sequence < wanted or seen == wanted - 1:
            break
        seen = wanted - 1  # lines were added while we walked
    broken: int | None = None
    if kept is None and rows:
        broken, why = wanted, "the chain's head was taken away"
    elif kept is not None and (kept.sequence != wanted - 1 or (kept.sequence and kept.hash != previous)):
        broken, why = wanted, "lines at the end were taken away"
    elif head is not None and at_head != head["hash"]:
        broken, why = looked_for, "it is not the line of the kept head"
    return {"chain": chain, "rows": rows, "broken": broken, "why": why}


def check(chain: str, head: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``verify``, and keep with the chain's head what it found, for the health page."""
    found = verify(chain, head)
    wrong = "" if found["broken"] is None else f"line {found['broken']}: {found['why']}"
    AuditHead.objects.filter(chain=chain).exclude(wrong=wrong[:200]).update(wrong=wrong[:200])
    return found


def first_wrong() -> str:
    """The first chain that is known to be broken, and where; empty where none is.

    Looks at what the last check of whole chains found and, on every chain, at the newest line against
    the head: a query for each, so that it may be asked often.
    """
    for end in AuditHead.objects.exclude(wrong="").order_by("chain")[:1]:
        return f"{end.chain}: {end.wrong}"
    newest = AuditEntry.objects.filter(chain=OuterRef("chain"), sequence__gte=OuterRef("sequence")).order_by(
        "-sequence"
    )
    heads = AuditHead.objects.annotate(
        last=Subquery(newest.values("sequence")[:1]), said=Subquery(newest.values("hash")[:1])
    )
    other = Q(last=None) | ~Q(last=F("sequence")) | ~Q(said=F("hash"))
    for end in heads.filter(other, sequence__gt=0).order_by("chain")[:1]:
        return f"{end.chain}: its newest line is not the one that was written last"
    without = Brand.objects.exclude(slug__in=AuditHead.objects.values("chain")).values_list("slug", flat=True)
    for line in AuditEntry.objects.filter(chain__in=["-", *without]).exclude(
        chain__in=AuditHead.objects.values("chain")
    )[:1]:
        return f"{line.chain}: the chain's head was taken away"
    return ""


def chains() -> list[str]:
    """Every chain that has a head or a line."""
    there = set(AuditHead.objects.values_list("chain", flat=True))
    return sorted(there.union(AuditEntry.objects.order_by().values_list("chain", flat=True).distinct()))


# -- heads kept elsewhere


def heads(brand: Brand | None = None) -> dict[str, Any]:
    """The ends of all chains, or of one brand's, signed: who keeps them can prove later what stood here today."""
    ends = AuditHead.objects.order_by("chain").select_related("brand")
    if brand is not None:
        ends = ends.filter(brand=brand)
    told = {
        "at": timezone.now().isoformat(timespec="seconds"),
        "heads": [
            {"chain": end.chain, "brand": str(end.brand.uuid) if end.brand else "", "sequence": end.sequence, "hash": end.hash or FIRST}
            for end in ends
        ],
        "public_key": sealing.public_key(),
    }  # fmt: skip
    return {**told, "signature": sealing.sign(_canonical(told))}


def read_heads(given: Any, where: str) -> list[dict[str, Any]]:
    """The heads in a file: one head, or what ``heads`` wrote.

    Raises:
        BadInput: it holds none, or its signature is not this installation's.
    """
    if isinstance(given, dict) and "signature" in given:
        told = {name: value for name, value in given.items() if name != "signature"}
        if not sealing.signed_here(_canonical(told), str(given["signature"])):
            raise BadInput(
                f"{where}: its signature is not of this installation: the file was changed, or RMN_DATA_KEY was"
            )
    found = given.get("heads", [given]) if isinstance(given, dict) else None
    if not isinstance(found, list) or not all(_is_head(one) for one in found):
        raise BadInput(f"{where}: an object with sequence and hash was expected")
    return found


def _is_head(given: Any) -> bool:
    return (
        isinstance(given, dict)
        and {"sequence", "hash"} <= given.keys()
        and isinstance(given["sequence"], int)
        and given["sequence"] >= 0
    )


def export_heads(folder: Path) -> Path:
    """Write the signed heads as a file of their own; nothing there is ever overwritten."""
    told = heads()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"heads-{timezone.now():%Y%m%dT%H%M%S%fZ}.json"
    with path.open("x", encoding="utf-8") as file:
        json.dump(told, file, indent=1, ensure_ascii=False)
    return path


def newest_heads(folder: Path) -> dict[str, dict[str, Any]]:
    """By chain, the heads of the newest file in the folder; none where there is no file.

    Raises:
        BadInput: the file was changed.
    """
    files = sorted(folder.glob("heads-*.json"))
    if not files:
        return {}
    try:
        given = json.loads(files[-1].read_text(encoding="utf-8"))
    except ValueError:
        raise BadInput(f"{files[-1]}: not JSON; it was changed or its disk was full") from None
    return {one["chain"]: one for one in read_heads(given, str(files[-1])) if "chain" in one}


def erased(head: Mapping[str, Any]) -> bool:
    """Whether the chain's brand was erased, with a proof that tells of an end no earlier than this head."""
    proofs = AuditEntry.objects.filter(chain="-", action="tenant erased").values_list("payload", flat=True)
    return bool(head.get("brand")) and any(
        proof.get("brand") == head["brand"] and (proof.get("chain_end") or {}).get("sequence", 0) >= head["sequence"]
        for proof in proofs
    )

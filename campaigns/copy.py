"""Text on its way to a network: checked, proved or overridden, and published as it was checked.

A verdict belongs to a text by its hash. Every step locks the row, so an edit that races with a
publication either comes first, and the text has to be checked again, or comes too late and is refused.
"""

from __future__ import annotations

import hashlib
from typing import Any

from django.db import transaction
from django.utils import timezone

from campaigns.models import Recommendation
from retailers import audit
from retailers.models import Membership, roles
from retailers.services import check_text
from rmn.lib.errors import BadInput

Status = Recommendation.Status
OUTCOMES = ("accepted", "refused", "reopened")  # what the network said of a published text


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _locked(row: Recommendation) -> Recommendation:
    return Recommendation.objects.select_for_update().get(pk=row.pk)


def _open(row: Recommendation) -> Recommendation:
    found = _locked(row)
    if found.status in (Status.PUBLISHED, Status.WITHDRAWN):
        raise BadInput(f"{found}: it is {found.status}; write a new text")
    if found.task != "creative" or found.retailer is None:
        raise BadInput(f"{found}: only a text for a retailer is checked and published")
    return found


def _tell(row: Recommendation, by: Any, action: str, **payload: Any) -> None:
    told = {"text_sha256": fingerprint(row.text), **payload}
    audit.record(brand=row.brand, actor=by.get_username(), action=action, subject=row, payload=told)


def _judge(row: Recommendation, by: Any) -> None:
    assert row.retailer is not None  # noqa: S101  # _open saw to it
    known = row.content.get("copy") or {}
    facts = {"rival_brands": row.brand.rivals, "brand": row.brand.name, **(known.get("facts") or {})}
    found = check_text(
        text=row.text,
        network=row.retailer.network.removesuffix("_ads"),
        brand=row.brand,
        field=str(known.get("field") or "headline"),
        product=row.sku.name if row.sku else str(known.get("product") or ""),
        facts=facts,
    )
    row.verdict = {**found.row(), "by": by.get_username(), "at": timezone.now().isoformat()}
    row.status = Status.BLOCKED if found.verdict == "block" else Status.OFFERED
    row.save(update_fields=["verdict", "status", "content", "text"])


@transaction.atomic
def check(row: Recommendation, by: Any, *, text: str | None = None, evidence: str = "") -> Recommendation:
    """Judge a text by the rules of today: with another wording, or with evidence added to its record.

    Raises:
        BadInput: it is published or withdrawn, is no text for a retailer, or its network is not known.
    """
    row = _open(row)
    if text is not None:
        row.text = text
    if evidence.strip():
        known = dict(row.content.get("copy") or {})
        facts = dict(known.get("facts") or {})
        facts["evidence"] = [*(facts.get("evidence") or []), evidence.strip()[:2000]]
        row.content = {**row.content, "copy": {**known, "facts": facts}}
    _judge(row, by)
    _tell(row, by, "copy checked", verdict=row.verdict["verdict"], evidence=bool(evidence.strip()))
    return row


@transaction.atomic
def override(row: Recommendation, by: Any, *, reason: str) -> Recommendation:
    """Let this very text be published against the policy's verdict; the reason goes into the audit chain.

    Raises:
        BadInput: no reason, no verdict on this text, it passes already, or this person may not.
    """
    row = _open(row)
    if not roles(by, row.brand) & {Membership.Role.OPS}:
        raise BadInput("only ops staff override a verdict; ask one of them")
    if len(reason.strip()) < 10:
        raise BadInput("reason: say in a sentence why this text may be published; it is kept in the audit chain")
    _same_text(row)
    if row.verdict.get("verdict") == "pass":
        raise BadInput(f"{row}: the text passes; there is nothing to override")
    row.verdict = {
        **row.verdict,
        "override": {"reason": reason.strip()[:1000], "by": by.get_username(), "at": timezone.now().isoformat()},
    }
    row.status = Status.OFFERED
    row.save(update_fields=["verdict", "status"])
    rules = sorted({found["rule"] for found in row.verdict.get("findings", [])})
    _tell(row, by, "verdict overridden", rules=rules, reason=reason.strip()[:1000])
    return row


def _same_text(row: Recommendation) -> None:
    if row.verdict.get("text_sha256") != fingerprint(row.text):
        raise BadInput(f"{row}: there is no verdict on the text as it is now; check it again")


@transaction.atomic
def publish(row: Recommendation, by: Any) -> Recommendation:
    """Publish a text as it was checked; doing it twice changes nothing.

    Raises:
        BadInput: the text is not the one that was checked, or its verdict does not let it through.
    """
    if _locked(row).status == Status.PUBLISHED:
        return _locked(row)
    row = _open(row)
    _same_text(row)
    if row.verdict.get("verdict") != "pass" and not row.verdict.get("override"):
        raise BadInput(
            f"{row}: the verdict is {row.verdict.get('verdict', '').replace('_', ' ')}; mend it, prove it, or override it"
        )
    row.status = Status.PUBLISHED
    row.save(update_fields=["status"])
    _tell(row, by, "copy published", rule_set_version=row.verdict.get("rule_set_version", ""))
    return row


@transaction.atomic
def answer(row: Recommendation, by: Any, *, outcome: str, note: str = "") -> Recommendation:
    """Keep what the network said of a published text: how often each rule was right is counted from it.

    Raises:
        BadInput: another word than accepted, refused or reopened, or the text is not published.
    """
    row = _locked(row)
    if outcome not in OUTCOMES:
        raise BadInput(f"outcome {outcome!r}: one of {', '.join(OUTCOMES)}")
    if row.status != Status.PUBLISHED:
        raise BadInput(f"{row}: it is {row.status}; a network answers what was published")
    told = [*(row.content.get("network_answers") or []), {"outcome": outcome, "note": note[:500], "text_sha256": fingerprint(row.text)}]  # fmt: skip
    row.content = {**row.content, "network_answers": told}
    row.save(update_fields=["content"])
    _tell(row, by, "network answered", outcome=outcome, note=note[:500])
    return row


def hit_rates(rows: Any) -> list[dict[str, Any]]:
    """Of each rule that spoke on a text the network answered: how often the network refused it too.

    Returns:
        ``rule, answered, refused, rate``, the most often answered first.
    """
    counts: dict[str, list[int]] = {}
    for verdict, content in rows.filter(status=Status.PUBLISHED).values_list("verdict", "content").iterator():
        told = content.get("network_answers") or []
        if not told:
            continue
        for rule in {found["rule"] for found in verdict.get("findings", [])}:
            count = counts.setdefault(rule, [0, 0])
            count[0] += 1
            count[1] += told[-1]["outcome"] == "refused"
    return [
        {"rule": rule, "answered": n, "refused": no, "rate": no / n}
        for rule, (n, no) in sorted(counts.items(), key=lambda item: (-item[1][0], item[0]))
    ]

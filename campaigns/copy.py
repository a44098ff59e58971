"""Text on its way to a network: checked, proved or overridden, and published as it was checked.

A verdict belongs to a text by its hash. Every step locks the row, so an edit that races with a
publication either comes first, and the text has to be checked again, or comes too late and is refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db import transaction
from django.utils import timezone

from campaigns.models import CopyEvidence, Recommendation
from retailers import audit, loads
from retailers.models import Membership, roles
from retailers.services import check_text, redact
from rmn.lib import stats
from rmn.lib.errors import BadInput

Status = Recommendation.Status
OUTCOMES = ("accepted", "refused", "reopened")  # what the network said of a published text
MOST_BYTES = 10 * 2**20  # of one piece of evidence
SIGNS = {b"%PDF-": "application/pdf", b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
SHORTEST = 10  # characters of a reason or a note


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


def _said(row: Recommendation, text: str, most: int) -> str:
    """What a person typed as it is kept: personal data masked, so that text, verdict and chain tell the same."""
    return redact(row.brand, text.strip()[:most]).text


def _on_file(row: Recommendation) -> list[str]:
    """What evidence says of this text, as the policy reads it."""
    found = ((row.content.get("copy") or {}).get("facts") or {}).get("evidence") or []
    return [found] if isinstance(found, str) else list(found)


def _keep(row: Recommendation, evidence: list[str]) -> None:
    known = dict(row.content.get("copy") or {})
    row.content = {**row.content, "copy": {**known, "facts": {**(known.get("facts") or {}), "evidence": evidence}}}


def _judge(row: Recommendation, by: Any) -> None:
    assert row.retailer is not None  # noqa: S101  # _open saw to it
    known = row.content.get("copy") or {}
    row.text = redact(row.brand, row.text).text  # the verdict is on what is kept
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
        _keep(row, [*_on_file(row), _said(row, evidence, 2000)])
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
    if len(reason.strip()) < SHORTEST:
        raise BadInput("reason: say in a sentence why this text may be published; it is kept in the audit chain")
    _same_text(row)
    if row.verdict.get("verdict") == "pass":
        raise BadInput(f"{row}: the text passes; there is nothing to override")
    reason = _said(row, reason, 1000)
    row.verdict = {
        **row.verdict,
        "override": {"reason": reason, "by": by.get_username(), "at": timezone.now().isoformat()},
    }
    row.status = Status.OFFERED
    row.save(update_fields=["verdict", "status"])
    rules = sorted({found["rule"] for found in row.verdict.get("findings", [])})
    _tell(row, by, "verdict overridden", rules=rules, reason=reason)
    return row


@transaction.atomic
def add_evidence(row: Recommendation, by: Any, *, note: str, link: str = "", file: Any = None) -> CopyEvidence:
    """Put proof of a claim on file and judge the text again; the note is what the policy reads.

    Args:
        note: what it shows, in the claim's words and with its numbers.
        file: an uploaded file (name, size, chunks): PDF, PNG, JPEG or plain text, told by its content.

    Raises:
        BadInput: no note, neither file nor link, an address that is none, or a file that is not taken.
    """
    row = _open(row)
    if len(note.strip()) < SHORTEST:
        raise BadInput("note: say what the evidence shows, in the words and numbers of the claim; the check reads it")
    if not link.strip() and file is None:
        raise BadInput("evidence: attach a file, or give the address of one")
    if link.strip():
        try:
            URLValidator(schemes=["http", "https"])(link.strip())
        except ValidationError:
            raise BadInput(f"link {link.strip()[:80]!r}: an address such as https://example.com/report") from None
        if len(link.strip()) > 400:
            raise BadInput("link: at most 400 characters; attach the file instead")
    found = CopyEvidence(
        brand=row.brand,
        retailer=row.retailer,
        recommendation=row,
        note=_said(row, note, 2000),
        link=link.strip(),
        added_by=by,
    )
    if file is not None:
        found.media_type, found.size = media_type(file), file.size
        found.file_name = "".join(c for c in Path(file.name).name if c.isprintable())[-240:] or "evidence"
        found.file_path, found.file_sha256 = loads.keep_file(row.brand, file.chunks(), "evidence")
    found.save()
    check(row, by, evidence=found.note)
    _tell(row, by, "evidence added", evidence=str(found.uuid), sha256=found.file_sha256, link=found.link)
    return found


def media_type(file: Any) -> str:
    """What an uploaded file is, by its content and not by its name.

    Raises:
        BadInput: empty, larger than ``MOST_BYTES``, or of a kind that is not kept.
    """
    name = Path(file.name).name[:80]
    if not file.size:
        raise BadInput(f"{name}: the file is empty")
    if file.size > MOST_BYTES:
        raise BadInput(f"{name}: {file.size / 2**20:.1f} MB; at most {MOST_BYTES // 2**20} MB are kept")
    file.seek(0)
    content = file.read()
    file.seek(0)
    for sign, kind in SIGNS.items():
        if content.startswith(sign):
            return kind
    try:
        plain = content.decode("utf-8")
    except UnicodeDecodeError:
        plain = "\0"
    if "\0" in plain:
        raise BadInput(f"{name}: neither PDF, PNG, JPEG nor plain text; save it as a PDF")
    return "text/plain"


@transaction.atomic
def withdraw_evidence(found: CopyEvidence, by: Any) -> Recommendation:
    """Take a piece of evidence back and judge the text without it; the file stays for the record.

    Raises:
        BadInput: the text is published or withdrawn, or the evidence was taken back already.
    """
    row = _open(found.recommendation)
    if not CopyEvidence.objects.filter(pk=found.pk, withdrawn_at=None).update(withdrawn_at=timezone.now()):
        raise BadInput(f"{found}: it was taken back already")
    left = _on_file(row)
    if found.note in left:
        left.remove(found.note)
    _keep(row, left)
    _judge(row, by)
    _tell(row, by, "evidence taken back", evidence=str(found.uuid), verdict=row.verdict["verdict"])
    return row


@transaction.atomic
def reject(row: Recommendation, by: Any, *, reason: str) -> Recommendation:
    """Say that this text will not be published; it can be taken back.

    Raises:
        BadInput: no reason, or it is published or withdrawn already.
    """
    row = _open(row)
    if len(reason.strip()) < SHORTEST:
        raise BadInput("reason: say in a sentence why this text will not be published; it is kept in the audit chain")
    word = {"reason": _said(row, reason, 1000), "by": by.get_username(), "at": timezone.now().isoformat()}
    row.verdict = {**row.verdict, "rejected": word}
    row.status = Status.WITHDRAWN
    row.save(update_fields=["verdict", "status"])
    _tell(row, by, "copy rejected", reason=word["reason"])
    return row


@transaction.atomic
def undo(row: Recommendation, by: Any) -> Recommendation:
    """Take the last decision on a text back, a rejection or an override, while nothing is published.

    Raises:
        BadInput: it is published, nobody decided, or this person may not.
    """
    row = _locked(row)
    if row.status == Status.PUBLISHED:
        raise BadInput(f"{row}: it is published; withdraw it at the network, then write a new text")
    what = next((one for one in ("rejected", "override") if one in row.verdict), "")
    if not what:
        raise BadInput(f"{row}: no decision to take back")
    if what == "override" and not roles(by, row.brand) & {Membership.Role.OPS}:
        raise BadInput("only ops staff take an override back; ask one of them")
    row.verdict = {name: value for name, value in row.verdict.items() if name != what}
    barred = row.verdict.get("verdict") == "block" and "override" not in row.verdict
    row.status = Status.BLOCKED if barred else Status.OFFERED
    row.save(update_fields=["verdict", "status"])
    _tell(row, by, f"{'rejection' if what == 'rejected' else 'override'} taken back")
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
    note = _said(row, note, 500)
    told = [*(row.content.get("network_answers") or []), {"outcome": outcome, "note": note, "text_sha256": fingerprint(row.text)}]  # fmt: skip
    row.content = {**row.content, "network_answers": told}
    row.save(update_fields=["content"])
    _tell(row, by, "network answered", outcome=outcome, note=note)
    return row


def hit_rates(rows: Any) -> list[dict[str, Any]]:
    """Of each rule that spoke on a text the network answered: how often the network refused it too.

    The last answer counts: a refusal that was reopened on appeal is none. Texts on which no rule spoke
    stand under the rule '' (what the network refused there, the rules missed).

    Returns:
        ``rule, answered, refused, reopened, rate, interval`` (Wilson, .95), the most often answered first.
    """
    counts: dict[str, list[int]] = {}
    for verdict, content in rows.filter(status=Status.PUBLISHED).values_list("verdict", "content").iterator():
        told = content.get("network_answers") or []
        if not told:
            continue
        last = told[-1]["outcome"]
        for rule in {found["rule"] for found in verdict.get("findings", [])} or {""}:
            count = counts.setdefault(rule, [0, 0, 0])
            count[0] += 1
            count[1] += last == "refused"
            count[2] += last == "reopened"
    return [
        {"rule": rule, "answered": n, "refused": no, "reopened": again, "rate": no / n, "interval": stats.wilson(no, n)}
        for rule, (n, no, again) in sorted(counts.items(), key=lambda item: (-item[1][0], item[0]))
    ]


def network_pairs(rows: Any) -> list[tuple[Recommendation, Recommendation]]:
    """Texts of one brief where the network took one and refused the other: (accepted, refused).

    The last answer counts, a refusal reopened on appeal for neither; a refused text meets each accepted
    one of its brief at the same retailer.
    """
    briefs: dict[tuple[Any, ...], dict[str, list[Recommendation]]] = {}
    for row in rows.filter(status=Status.PUBLISHED).exclude(prompt="").order_by("pk").iterator():
        told = row.content.get("network_answers") or []
        if told:
            brief = briefs.setdefault((row.brand_id, row.retailer_id, row.prompt), {})
            brief.setdefault(told[-1]["outcome"], []).append(row)
    return [
        (good, bad)
        for brief in briefs.values()
        for good in brief.get("accepted", [])
        for bad in brief.get("refused", [])
        if good.text.strip() != bad.text.strip()
    ]

"""The desk of texts that need proof: what is found is shown, proved, decided and taken back, each brand for itself."""

from __future__ import annotations

import io
from typing import Any
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from campaigns import copy
from campaigns.models import CopyEvidence, Recommendation
from retailers.domain import policy
from retailers.models import AuditEntry
from rmn.lib.errors import BadInput
from tests.conftest import People
from tests.factories import CopyEvidenceFactory, MembershipFactory, RecommendationFactory, RetailerFactory

pytestmark = pytest.mark.django_db
PDF = b"%PDF-1.7 report"


@pytest.fixture(autouse=True)
def files(settings: Any, tmp_path: Any) -> None:
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def text(people: People) -> Recommendation:
    row = RecommendationFactory(
        brand=people.brand, retailer=RetailerFactory(network="amazon"), title="Water", text="Clinically tested water"
    )
    return copy.check(row, people.owner)


def step(people: People, who: Any, row: Recommendation, name: str, **data: Any) -> Any:
    return people.web(who).post(reverse("copy-step", args=[row.uuid, name]), data)


def test_the_queue_and_the_home_page_count_ones_own_texts(people: People, text: Recommendation) -> None:
    theirs = RecommendationFactory(brand=people.other, verdict={"verdict": "needs_proof"}, text="Globex proves it")
    page = people.web(people.owner).get(reverse("copy")).content.decode()
    assert "Clinically tested water" in page
    assert theirs.text not in page
    assert "text that needs proof" in people.web(people.owner).get("/").content.decode()
    copy.reject(text, people.owner, reason="Nobody tested anything")
    assert "text that needs proof" not in people.web(people.owner).get("/").content.decode()


def test_a_text_shows_rule_span_and_fix_and_escapes_what_it_quotes(people: People, text: Recommendation) -> None:
    copy.check(text, people.owner, text="Clinically tested <script>water</script>")
    page = people.web(people.owner).get(reverse("copy-text", args=[text.uuid])).content.decode()
    assert "<mark>" in page
    assert "AMZ-CLAIM" in page
    assert "&lt;script&gt;" in page
    assert "<script>water" not in page


def test_a_file_and_its_note_prove_a_claim_and_may_be_taken_back(people: People, text: Recommendation) -> None:
    said = step(people, people.owner, text, "evidence", note="Clinically tested on 80 people", file=io.BytesIO(PDF))
    assert said.status_code == 302
    text.refresh_from_db()
    assert text.verdict["verdict"] == "pass"
    proof = text.evidence.get()
    assert (proof.media_type, proof.size, proof.brand) == ("application/pdf", len(PDF), people.brand)
    saved = people.web(people.colleague).get(reverse("copy-evidence", args=[proof.uuid]))
    assert b"".join(saved.streaming_content) == PDF
    assert saved["Content-Disposition"].startswith("attachment")
    assert saved["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in saved["Content-Security-Policy"]
    assert step(people, people.owner, text, "take-back", evidence=str(proof.uuid)).status_code == 302
    text.refresh_from_db()
    assert text.verdict["verdict"] == "needs_proof"
    with pytest.raises(BadInput, match="already"):
        copy.withdraw_evidence(proof, people.owner)
    done = set(AuditEntry.objects.filter(chain="acme").values_list("action", flat=True))
    assert {"evidence added", "evidence taken back"} <= done


@pytest.mark.parametrize(
    ("note", "link", "file", "words"),
    [
        ("short", "https://example.com", None, "note"),
        ("Clinically tested on 80 people", "", None, "attach a file"),
        ("Clinically tested on 80 people", "javascript:alert(1)", None, "address"),
        ("Clinically tested on 80 people", "", ("empty.pdf", b""), "empty"),
        ("Clinically tested on 80 people", "", ("page.pdf", b"\x00<html>"), "neither PDF"),
        ("Clinically tested on 80 people", "", ("large.pdf", b"%PDF-" + b"0" * copy.MOST_BYTES), "at most 10 MB"),
    ],
)
def test_what_proves_nothing_is_refused_and_changes_nothing(
    people: People, text: Recommendation, note: str, link: str, file: Any, words: str
) -> None:
    upload = {"file": SimpleUploadedFile(*file)} if file else {}
    said = step(people, people.owner, text, "evidence", note=note, link=link, **upload)
    assert said.status_code in (200, 422)
    assert words in said.content.decode()
    assert not CopyEvidence.objects.exists()


def test_a_page_in_disguise_is_saved_as_plain_text(people: People, text: Recommendation) -> None:
    file = SimpleUploadedFile("../../x.html", b"<script>alert(1)</script>", content_type="text/html")
    proof = copy.add_evidence(text, people.owner, note="Clinically tested on 80 people", file=file)
    assert (proof.media_type, proof.file_name) == ("text/plain", "x.html")
    assert proof.file_path.startswith(f"evidence/{people.brand.uuid}/")


def test_a_rejection_is_taken_back_while_nothing_is_published(people: People, text: Recommendation) -> None:
    step(people, people.owner, text, "reject", reason="Nobody tested anything")
    text.refresh_from_db()
    assert text.status == "withdrawn"
    assert step(people, people.owner, text, "publish").status_code == 422
    step(people, people.owner, text, "undo")
    text.refresh_from_db()
    assert text.status == "offered"
    assert text in Recommendation.objects.needing_proof()
    assert step(people, people.owner, text, "undo").status_code == 422


def test_only_ops_override_and_take_an_override_back(people: People, text: Recommendation) -> None:
    ops = MembershipFactory(brand=people.brand, role="ops").user
    assert (
        "only ops staff" in step(people, people.owner, text, "override", reason="The network agreed").content.decode()
    )
    step(people, ops, text, "override", reason="The network agreed in writing")
    assert text not in Recommendation.objects.needing_proof()
    assert "only ops staff" in step(people, people.owner, text, "undo").content.decode()
    step(people, ops, text, "undo")
    assert text in Recommendation.objects.needing_proof()
    step(people, ops, text, "override", reason="The network agreed in writing")
    step(people, ops, text, "publish")
    assert "it is published" in step(people, ops, text, "undo").content.decode()


def test_a_stranger_reaches_neither_text_nor_step_nor_file(people: People, text: Recommendation) -> None:
    file = SimpleUploadedFile("report.pdf", PDF)
    proof = copy.add_evidence(text, people.owner, note="Clinically tested on 80 people", file=file)
    web = people.web(people.stranger)
    assert web.get(reverse("copy-text", args=[text.uuid])).status_code == 404
    assert web.get(reverse("copy-evidence", args=[proof.uuid])).status_code == 404
    for name in ("check", "evidence", "reject", "undo", "publish", "answer", "take-back"):
        assert web.post(reverse("copy-step", args=[text.uuid, name]), {"reason": "a" * 20}).status_code == 404
    mine = RecommendationFactory(brand=people.other, retailer=RetailerFactory(network="amazon"), text="Water")
    # evidence of another brand's text is as unknown as none
    for key in (proof.uuid, uuid4(), "x"):
        assert step(people, people.stranger, mine, "take-back", evidence=str(key)).status_code == 404
    proof.refresh_from_db()
    assert proof.withdrawn_at is None


def test_what_the_networks_said_is_listed_for_ones_own_texts_alone(people: People, text: Recommendation) -> None:
    ops = MembershipFactory(brand=people.brand, role="ops").user
    copy.override(text, ops, reason="To see what the network says")
    copy.publish(text, ops)
    assert step(people, people.owner, text, "answer", outcome="refused").status_code == 302
    assert "AMZ-CLAIM" in people.web(people.owner).get(reverse("copy-rules")).content.decode()
    assert "AMZ-CLAIM" not in people.web(people.stranger).get(reverse("copy-rules")).content.decode()


def test_pieces_join_to_the_text_and_name_every_finding() -> None:
    found = [{"start": 0, "end": 8}, {"start": 4, "end": 12}, {"start": 0, "end": 99}]
    cut = policy.pieces("best of all waters", found)
    assert "".join(words for words, _ in cut) == "best of all waters"
    assert cut[1] == (" of ", (1, 2, 3))
    assert policy.pieces("", []) == []


def test_only_an_address_of_the_web_is_drawn_as_a_link(people: People) -> None:
    text = RecommendationFactory(brand=people.brand, retailer=people.retailer)
    for link in ("https://example.com/report", "javascript:alert(1)"):
        CopyEvidenceFactory(brand=people.brand, retailer=people.retailer, recommendation=text, link=link)
    page = people.web(people.owner).get(reverse("copy-text", args=[text.uuid])).content.decode()
    assert 'href="https://example.com/report"' in page
    assert "javascript:alert(1)" in page
    assert 'href="javascript:' not in page

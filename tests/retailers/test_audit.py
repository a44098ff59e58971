"""The audit chain: whatever is done to it afterwards shows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import F

from agents.models import CleanRoomLedger
from retailers import audit, tasks
from retailers.models import AuditEntry, AuditHead
from rmn.lib import append_only, sealing, tenancy
from rmn.lib.errors import BadInput
from tests.conftest import People

pytestmark = pytest.mark.django_db


def fill(people: People, count: int = 5) -> None:
    for n in range(count):
        audit.record(brand=people.brand, actor="ops", action="plan approved", subject=people.brand, payload={"n": n})


def test_an_untouched_chain_verifies_and_brands_have_their_own(people: People) -> None:
    fill(people)
    audit.record(brand=people.other, actor="ops", action="x")
    assert audit.verify("acme") == {"chain": "acme", "rows": 5, "broken": None, "why": ""}
    assert audit.verify("globex")["rows"] == 1


@pytest.mark.parametrize("change", [{"actor": "nobody"}, {"payload": {"n": 9}}, {"action": "plan rejected"}])
def test_a_changed_line_is_named(people: People, change: dict[str, object]) -> None:
    fill(people)
    AuditEntry.objects.filter(chain="acme", sequence=3).update(**change)
    assert audit.verify("acme")["broken"] == 3


def test_a_line_taken_out_and_a_tail_cut_off_are_named(people: People) -> None:
    fill(people)
    AuditEntry.objects.filter(chain="acme", sequence=5).delete()
    assert audit.verify("acme")["broken"] == 5
    AuditEntry.objects.filter(chain="acme", sequence=2).delete()
    assert audit.verify("acme")["broken"] == 2


def test_a_line_given_to_another_brand_and_a_chain_without_its_head_are_named(people: People) -> None:
    fill(people)
    AuditEntry.objects.filter(chain="acme", sequence=4).update(brand=people.other)
    assert audit.verify("acme")["why"] == "it was given to another brand"
    AuditEntry.objects.filter(chain="acme", sequence=4).update(brand=people.brand)
    AuditHead.objects.filter(chain="acme").delete()
    assert audit.chains() == ["acme"]
    assert audit.verify("acme")["why"] == "the chain's head was taken away"


def test_lines_added_during_a_walk_are_walked_too_and_no_false_alarm(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(people)
    real, added = audit.digest, iter(range(3))

    def digest(facts: Any) -> str:
        if facts["sequence"] <= 5 and next(added, None) is not None:
            fill(people, 1)
        return real(facts)

    monkeypatch.setattr(audit, "digest", digest)
    assert audit.verify("acme")["broken"] is None
    assert audit.verify("acme")["rows"] == AuditHead.objects.get(chain="acme").sequence > 5


def test_a_rewritten_chain_does_not_fit_a_head_kept_elsewhere(people: People) -> None:
    fill(people)
    kept = AuditHead.objects.values("sequence", "hash").get(chain="acme")
    AuditEntry.objects.filter(chain="acme").delete()
    AuditHead.objects.filter(chain="acme").update(sequence=0, hash=audit.FIRST)
    fill(people)
    assert audit.verify("acme")["broken"] is None
    assert audit.verify("acme", kept)["broken"] == 5


@pytest.mark.parametrize(
    "value",
    [-0.0, 1e22, 1e16, 1.5, 1e-9, float("inf"), float("nan"), "a\x00b", "\ud800", {"k": [0.1, 2**53, None]}, "é"],
)
def test_what_the_database_would_write_otherwise_verifies_too(people: People, value: Any) -> None:
    audit.record(brand=people.brand, actor="o\x00ps", action="x", payload={"value": value})
    assert audit.verify("acme")["broken"] is None


@pytest.mark.django_db(transaction=True)
def test_many_who_append_at_once_leave_one_whole_chain(people: People) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("a database in memory has one connection")

    def append(n: int) -> None:
        try:
            with tenancy.everyone():
                for k in range(5):
                    audit.record(brand=people.brand, actor=f"writer {n}", action="x", payload={"k": k})
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(append, range(6)))
    assert audit.verify("acme") == {"chain": "acme", "rows": 30, "broken": None, "why": ""}


# -- promise 15

LINES = 24
Lines = Any


def edited(rng: random.Random, lines: Lines) -> None:
    column, value = rng.choice(
        [("actor", "nobody"), ("action", "plan rejected"), ("payload", {"n": -1}), ("at", "2020-01-01T00:00Z"), ("subject_id", "7"), ("subject_type", "x.Y"), ("hash", "f" * 64), ("previous_hash", "0" * 63 + "1")]
    )  # fmt: skip
    lines.filter(sequence=rng.randint(1, LINES)).update(**{column: value})


def edited_and_hashed_anew(rng: random.Random, lines: Lines) -> None:
    """One line changed with the hash that fits it: the next line, or the head, tells."""
    rewritten(lines.get(sequence=rng.randint(1, LINES)), actor="nobody")


def deleted(rng: random.Random, lines: Lines) -> None:
    lines.filter(sequence=rng.randint(1, LINES)).delete()


def deleted_and_closed_up(rng: random.Random, lines: Lines) -> None:
    gone = rng.randint(1, LINES - 1)
    lines.filter(sequence=gone).delete()
    for sequence in range(gone + 1, LINES + 1):
        lines.filter(sequence=sequence).update(sequence=F("sequence") - 1)
    AuditHead.objects.filter(chain="acme").update(sequence=LINES - 1)


def swapped(rng: random.Random, lines: Lines) -> None:
    one, two = rng.sample(range(1, LINES + 1), 2)
    for old, new in ((one, 9_999), (two, one), (9_999, two)):
        lines.filter(sequence=old).update(sequence=new)


def inserted(rng: random.Random, lines: Lines) -> None:
    place = rng.randint(1, LINES + 1)
    for sequence in range(LINES, place - 1, -1):
        lines.filter(sequence=sequence).update(sequence=F("sequence") + 1)
    before = lines.filter(sequence=place - 1).first()
    row = AuditEntry(**{name: getattr(lines.first(), name) for name in ("brand", "chain", "at", "actor", "action")})
    row.sequence, row.previous_hash = place, before.hash if before else audit.FIRST
    row.save()
    rewritten(row)
    if rng.random() < 0.5 and place <= LINES:  # at the end, with its head, it would be a line like any other
        AuditHead.objects.filter(chain="acme").update(sequence=LINES + 1)


def tail_cut(rng: random.Random, lines: Lines) -> None:
    """The newest lines are gone and the head beside the chain is an old one: only the exported head tells."""
    last = rng.randint(0, LINES - 1)
    lines.filter(sequence__gt=last).delete()
    end = lines.filter(sequence=last).first()
    AuditHead.objects.filter(chain="acme").update(sequence=last, hash=end.hash if end else audit.FIRST)


def all_written_anew(rng: random.Random, lines: Lines) -> None:
    """From one line on all is changed with right hashes, and the head too: only the exported head tells."""
    previous = None
    for line in lines.filter(sequence__gte=rng.randint(1, LINES)).order_by("sequence"):
        previous = rewritten(line, actor="nobody", **({"previous_hash": previous} if previous else {}))
    AuditHead.objects.filter(chain="acme").update(hash=previous)


def all_gone(rng: random.Random, lines: Lines) -> None:
    lines.all().delete()
    AuditHead.objects.filter(chain="acme").delete()


def rewritten(line: AuditEntry, **change: Any) -> str:
    for name, value in change.items():
        setattr(line, name, value)
    facts = {name: getattr(line, name) for name in audit.FACTS} | {"at": line.at.isoformat(timespec="microseconds")}
    line.hash = audit.digest(facts)
    line.save()
    return line.hash


TAMPERINGS: list[Callable[[random.Random, Lines], None]] = [
    edited, edited, edited_and_hashed_anew, deleted, deleted_and_closed_up, swapped, inserted, tail_cut, all_written_anew, all_gone,
]  # fmt: skip


def test_two_hundred_random_tamperings_are_all_found(people: People, tmp_path: Path) -> None:
    fill(people, LINES)
    kept = audit.newest_heads(audit.export_heads(tmp_path).parent)["acme"]
    rng, unseen = random.Random(15), []
    for n in range(200):
        with transaction.atomic():
            tampering = TAMPERINGS[n % len(TAMPERINGS)]
            tampering(rng, AuditEntry.objects.filter(chain="acme"))
            if audit.verify("acme", kept)["broken"] is None:
                unseen.append((n, tampering.__name__))
            transaction.set_rollback(True)
    assert unseen == []
    assert audit.verify("acme", kept) == {"chain": "acme", "rows": LINES, "broken": None, "why": ""}


# -- heads kept elsewhere


def verified(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command("verify_audit", *arguments, stdout=out, stderr=StringIO())
    told: dict[str, Any] = json.loads(out.getvalue())
    return told


def test_heads_are_signed_exported_and_tell_of_a_tail_cut_off(people: People, tmp_path: Path) -> None:
    fill(people)
    assert verified("--export", str(tmp_path))["broken"] is None
    (file,) = tmp_path.iterdir()
    told = json.loads(file.read_text())
    assert sealing.signed(audit._canonical({k: v for k, v in told.items() if k != "signature"}), told["signature"], sealing.public_key())  # fmt: skip
    assert verified("--head", str(file))["broken"] is None
    tail_cut(random.Random(1), AuditEntry.objects.filter(chain="acme"))
    assert verified()["broken"] is None
    assert verified("--head", str(file))["broken"]["broken"] == 5
    told["heads"][0]["sequence"] = 1
    file.write_text(json.dumps(told))
    with pytest.raises(BadInput, match="signature"):
        audit.newest_heads(tmp_path)


def test_every_night_chains_are_checked_and_heads_kept_only_while_all_are_whole(
    people: People, settings: Any, tmp_path: Path
) -> None:
    settings.RMN_AUDIT_HEADS = tmp_path / "heads"
    fill(people)
    assert tasks.verify_audit() == 0
    fill(people, 2)
    assert tasks.verify_audit() == 0
    assert len(list(settings.RMN_AUDIT_HEADS.iterdir())) == 2
    AuditEntry.objects.filter(chain="acme", sequence__gt=5).delete()
    AuditHead.objects.filter(chain="acme").update(
        sequence=5, hash=AuditEntry.objects.get(chain="acme", sequence=5).hash
    )
    assert tasks.verify_audit() == 1
    assert len(list(settings.RMN_AUDIT_HEADS.iterdir())) == 2


def test_a_head_of_no_use_is_refused_in_one_line(people: People, tmp_path: Path, capsys: Any) -> None:
    fill(people)
    for bad in ({"sequence": 1}, {"heads": [1]}, [], {"sequence": "1", "hash": "x"}):
        (tmp_path / "head.json").write_text(json.dumps(bad))
        with pytest.raises(SystemExit) as ended:
            call_command("verify_audit", "--head", str(tmp_path / "head.json"))
        assert ended.value.code == 2
        assert "sequence and hash" in capsys.readouterr().err


# -- the database's own word


@pytest.fixture
def guarded(transactional_db: None) -> Iterator[None]:
    try:
        for model in append_only.tables():
            append_only.protect(model)
        yield
    finally:
        for model in append_only.tables():
            append_only.release(model)


@pytest.mark.django_db(transaction=True)
def test_the_database_refuses_to_change_or_take_out_a_line(guarded: None, people: People) -> None:
    assert {AuditEntry, CleanRoomLedger} <= set(append_only.tables())
    fill(people)
    lines = AuditEntry.objects.filter(chain="acme")
    for harm in (lambda: lines.filter(sequence=3).update(actor="nobody"), lambda: lines.filter(sequence=3).delete()):
        with pytest.raises(DatabaseError, match="lines are added here"):
            harm()
    if connection.vendor == "postgresql":
        with pytest.raises(DatabaseError, match="lines are added here"), connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {AuditEntry._meta.db_table}")
    fill(people, 1)
    assert audit.verify("acme")["rows"] == 6


@pytest.mark.django_db(transaction=True)
def test_an_erased_tenant_may_go_and_the_door_is_shut_behind_it(guarded: None, people: People) -> None:
    fill(people)
    for fail in (True, False):
        said = pytest.raises(ValueError) if fail else nullcontext()
        with said, transaction.atomic(), append_only.opened():
            AuditEntry.objects.filter(chain="acme", sequence=5).delete()
            if fail:
                raise ValueError
        assert AuditEntry.objects.count() == (5 if fail else 4)
        with pytest.raises(DatabaseError, match="lines are added here"):
            AuditEntry.objects.filter(chain="acme", sequence=1).delete()
    with pytest.raises(RuntimeError, match="inside a transaction"), append_only.opened():
        pass


@pytest.mark.django_db(transaction=True)
def test_every_migrate_brings_the_triggers_back(guarded: None) -> None:
    append_only.release(AuditEntry)
    from django.apps import apps

    append_only._after_migrate(apps.get_app_config("retailers"))
    assert len(append_only.guards(AuditEntry)) == len(append_only._events(connection.vendor))

"""Backups: what was saved comes back as it was, whole or one tenant alone; what was erased is gone."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection
from django_celery_beat.models import CrontabSchedule

from agents.inference import adapters as folders
from agents.models import Adapter
from campaigns.models import Campaign, Recommendation
from retailers import audit, loads
from retailers.models import AuditEntry, AuditHead, Brand, IdempotencyKey, Membership, PerformanceMetric, Webhook
from rmn import backup
from rmn.lib import sealing
from rmn.lib.errors import BadInput
from tests import factories
from tests.conftest import People

pytestmark = pytest.mark.django_db
CANARY = "canary-7f3a"


def adapter_folder(root: Path, seed: str) -> str:
    """An adapter with weights of its own in the adapters folder; its digest."""
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"], "bias": "none"}
    part = root / "part"
    part.mkdir(parents=True)
    (part / "adapter_config.json").write_text(json.dumps(config))
    (part / "adapter_model.safetensors").write_bytes(seed.encode())
    name = folders.digest(part)
    part.rename(root / name)
    return name


@pytest.fixture
def filled(people: People, settings: Any, tmp_path: Path) -> People:
    """Rows of every kind for two brands, with files, adapters and audit chains; acme's texts hold the canary."""
    settings.MEDIA_ROOT, settings.RMN_ADAPTERS, settings.VAR = tmp_path / "files", tmp_path / "adapters", tmp_path
    for brand, word in ((people.brand, CANARY), (people.other, "plain")):
        for make in vars(factories).values():
            model = getattr(getattr(make, "_meta", None), "model", None)
            if model in (None, Brand, User, Membership, AuditEntry, Adapter) or "brand" not in {
                f.name for f in model._meta.fields
            }:
                continue
            make(brand=brand)
        Recommendation.objects.filter(brand=brand).update(
            text=f"{word} text", sampling={"note": [word, None, 1.5, {"é": "✓"}]}
        )
        campaign = Campaign.objects.filter(brand=brand).first()
        campaign.skus.add(factories.SKUFactory(brand=brand, name=f"{word} water"))
        campaign.name = f"{word} campaign"
        campaign.save()  # its history
        factories.AdapterFactory(brand=brand, digest=adapter_folder(settings.RMN_ADAPTERS, word))
        loads.keep_file(brand, [f"{word} file".encode()])
        for n in range(3):
            audit.record(
                brand=brand, actor="ops", action="plan approved", subject=campaign, payload={"n": n, "word": word}
            )
        IdempotencyKey.objects.create(
            user=people.owner if brand == people.brand else people.stranger,
            key="k",
            path="/",
            body_sha256="0" * 64,
            response={"text": word},
        )
        LogEntry.objects.create(
            user=people.ops,
            content_type=ContentType.objects.get_for_model(campaign),
            object_id=str(campaign.pk),
            object_repr=campaign.name,
            action_flag=2,
        )
        Webhook.objects.create(
            brand=brand, url="https://hooks.example.com/", sealed_secret=sealing.seal("whsec", str(brand.uuid))
        )
    audit.record(brand=None, actor="ops", action="rules changed")
    CrontabSchedule.objects.create(minute="15", hour="4", timezone="America/New_York")  # as a beat writes them
    return people  # fmt: skip


def sums(brand: Brand | None = None, leave: tuple[str, ...] = ()) -> dict[str, str]:
    """A checksum of every table, or of one brand's rows in it."""
    found = {}
    for model in backup.tables():
        rows = backup._of(model, brand)
        names = [field.attname for field in model._meta.concrete_fields]
        text = "\n".join(json.dumps(row, default=str) for row in rows.values_list(*names))
        if rows and model._meta.label not in leave:
            found[model._meta.label] = hashlib.sha256(text.encode()).hexdigest()
    return found


def facts(brand: Brand) -> dict[str, Any]:
    """What a brand's rows say without their keys."""
    campaign = Campaign.objects.get(brand=brand, skus__isnull=False)
    return {
        "names": sorted(Campaign.objects.filter(brand=brand).values_list("name", flat=True)),
        "skus": sorted(campaign.skus.values_list("sku", "name")),
        "history": sorted(campaign.history.values_list("name", "history_type")),
        "texts": sorted(Recommendation.objects.filter(brand=brand).values_list("uuid", "text")),
        "spend": sorted(PerformanceMetric.objects.filter(brand=brand).values_list("row_key", "spend", "extracted_at")),
        "members": sorted(Membership.objects.filter(brand=brand).values_list("user__username", "role", "scope")),
        "chain": list(AuditEntry.objects.filter(brand=brand).order_by("sequence").values_list("hash", flat=True)),
        "head": AuditHead.objects.values("sequence", "hash").get(brand=brand),
    }


def wipe(settings: Any) -> None:
    with connection.constraint_checks_disabled():
        for model in backup.tables():
            if model is not ContentType:
                model._base_manager.all()._raw_delete(using="default")
    shutil.rmtree(settings.MEDIA_ROOT)
    shutil.rmtree(settings.RMN_ADAPTERS)


def test_a_backup_restored_into_an_empty_database_is_what_was_saved(
    filled: People, settings: Any, tmp_path: Path
) -> None:
    before = sums()
    assert len(before) > 40
    manifest = backup.dump(tmp_path / "saved")
    wipe(settings)
    done = backup.load(tmp_path / "saved")
    assert sums() == before
    assert done["chains"] == {"whole": 3, "broken": []}
    assert done["adapters"] == {"whole": 2, "broken": []}
    assert done["secrets_open"]
    assert done["files"] == len(manifest["files"]) == 6
    assert factories.CampaignFactory(brand=Brand.objects.get(slug="acme")).pk  # keys go on after the restored ones


def test_one_tenant_comes_back_alone_beside_the_others(filled: People, settings: Any, tmp_path: Path) -> None:
    acme = facts(filled.brand)
    backup.dump(tmp_path / "saved")
    backup.erase(filled.brand, "ops")
    others = sums(filled.other)
    people_left = User.objects.count()
    factories.CampaignFactory(brand=filled.other, name="Made meanwhile")
    done = backup.load(tmp_path / "saved", "acme")
    back = Brand.objects.get(slug="acme")
    assert facts(back) == acme
    assert done["chains"] == {"whole": 1, "broken": []}
    assert done["adapters"] == {"whole": 1, "broken": []}
    Campaign.objects.filter(name="Made meanwhile").delete()
    assert {k: v for k, v in sums(filled.other).items() if "Historical" not in k} == {
        k: v for k, v in others.items() if "Historical" not in k
    }
    came = User.objects.get(username="owner")
    assert User.objects.count() > people_left
    assert not came.is_active
    assert not came.has_usable_password()
    hook = Webhook.objects.get(brand=back, url="https://hooks.example.com/")
    assert sealing.unseal(hook.sealed_secret, str(back.uuid)) == "whsec"


def test_an_export_holds_one_tenant_and_no_password_and_can_be_restored(
    filled: People, settings: Any, tmp_path: Path
) -> None:
    acme = facts(filled.brand)
    backup.dump(tmp_path / "mine", filled.brand)
    text = everything_below(tmp_path / "mine")
    assert CANARY in text
    assert "plain" not in text
    assert "md5$" not in text
    backup.erase(filled.brand, "ops")
    backup.load(tmp_path / "mine")
    assert facts(Brand.objects.get(slug="acme")) == acme


def test_an_account_of_the_same_name_elsewhere_is_not_the_same_person(filled: People, tmp_path: Path) -> None:
    backup.dump(tmp_path / "mine", filled.brand)
    backup.erase(filled.brand, "ops")
    impostor = factories.UserFactory(username="owner")
    backup.load(tmp_path / "mine")
    assert not impostor.memberships.exists()
    assert User.objects.get(username="owner-of-acme").memberships.count() == 1


def everything_below(folder: Path) -> str:
    import gzip

    return "\n".join(
        (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode(errors="replace")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


def test_an_erased_tenant_leaves_the_proof_and_nothing_else(filled: People, settings: Any, tmp_path: Path) -> None:
    others, end = sums(filled.other), AuditHead.objects.get(chain="acme")
    done = backup.erase(filled.brand, "ops", "0" * 64)
    assert CANARY not in everything_below(settings.MEDIA_ROOT) + everything_below(settings.RMN_ADAPTERS)
    backup.dump(tmp_path / "after")
    after = everything_below(tmp_path / "after")
    assert CANARY not in after
    assert "acme" not in after
    assert "owner@example.com" not in after
    assert sums(filled.other) == others
    proof = AuditEntry.objects.get(chain="-", action="tenant erased")
    assert proof.payload["chain_end"] == {"sequence": 3, "hash": end.hash}
    assert proof.payload["rows"]["campaigns.Campaign"] == done["rows"]["campaigns.Campaign"] >= 1
    assert audit.verify("-")["broken"] is None
    assert audit.verify("globex")["broken"] is None


def test_a_damaged_backup_restores_nothing(filled: People, settings: Any, tmp_path: Path) -> None:
    backup.dump(tmp_path / "saved")
    wipe(settings)
    victim = tmp_path / "saved" / "rows" / "campaigns.Campaign.jsonl.gz"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-9])
    with pytest.raises(BadInput, match="damaged"):
        backup.load(tmp_path / "saved")
    victim.unlink()
    with pytest.raises(BadInput, match="missing"):
        backup.load(tmp_path / "saved")
    assert not Brand.objects.exists()


def test_a_restore_refuses_what_is_there_already(filled: People, tmp_path: Path) -> None:
    backup.dump(tmp_path / "saved")
    with pytest.raises(BadInput, match="not empty"):
        backup.load(tmp_path / "saved")
    with pytest.raises(BadInput, match="acme is there already"):
        backup.load(tmp_path / "saved", "acme")
    with pytest.raises(BadInput, match=r"holds no brand nobody; it has acme, globex"):
        backup.load(tmp_path / "saved", "nobody")
    with pytest.raises(BadInput, match=r"no manifest\.json"):
        backup.load(tmp_path)


def test_another_data_key_is_said(filled: People, settings: Any, tmp_path: Path) -> None:
    backup.dump(tmp_path / "saved")
    wipe(settings)
    settings.RMN_DATA_KEY = "another"
    assert not backup.load(tmp_path / "saved")["secrets_open"]


def test_commands_answer_in_one_line_what_is_wrong(filled: People, tmp_path: Path, capsys: Any) -> None:
    for words, said in (
        (["erase_tenant", "--brand", "acme"], "--confirm acme"),
        (["erase_tenant", "--brand", "nobody"], "no such brand"),
        (["export_tenant", "--brand", "nobody", "--to", str(tmp_path / "x")], "no such brand"),
        (["restore", str(tmp_path / "x")], "no manifest.json"),
    ):
        with pytest.raises(SystemExit) as ended:
            call_command(*words)
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.strip().splitlines()) == 1


def test_old_backups_go_when_only_some_are_kept(filled: People, tmp_path: Path) -> None:
    for name in ("b1", "b2", "b3"):
        call_command("backup", to=str(tmp_path / "all" / name), keep=2)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["b2", "b3"]

"""Data sets, trainings and evaluations as runs: what they leave, what a kill costs, what a promotion takes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from agents.domain import briefs
from agents.inference import adapters as files
from agents.inference.types import Question, Reply
from agents.models import AdapterAlias
from feedback.models import Feedback, ReviewTask
from rmn.lib.errors import BadInput
from tests.factories import AdapterFactory, BrandFactory, RecommendationFactory, UserFactory
from tests.training.conftest import PRODUCTS, pair_of
from training import services, suites, tasks
from training.lora import train as trainer
from training.models import Dataset, Evaluation, TrainingRun

pytestmark = pytest.mark.django_db
SMALL = {"steps": 6, "batch": 4, "max_length": 128, "save_every": 2, "dropout": 0.0, "learning_rate": 1e-3}


def built(brand: Any, kind: str = "dpo", **more: Any) -> Dataset:
    run = services.wish_for_dataset(brand=brand, task="creative", kind=kind, **more)
    tasks.build_dataset(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert run.status == run.Status.SUCCEEDED, run.error
    return run


def attempt(run: TrainingRun) -> TrainingRun:
    tasks.train(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    return run


def test_the_command_writes_a_set_that_does_not_leak(workshop: Any, judged: Any, tmp_path: Path) -> None:
    call_command(
        "build_dataset", "--brand", "acme", "--task", "creative", "--kind", "dpo", "--out", tmp_path / "set",
        stdout=StringIO(),
    )  # fmt: skip
    parts = {name: (tmp_path / "set" / f"{name}.jsonl").read_text().splitlines() for name in ("train", "eval")}
    prompts = {name: {json.dumps(json.loads(line)["prompt"]) for line in lines} for name, lines in parts.items()}
    assert all(parts.values())
    assert not prompts["train"] & prompts["eval"]
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["sources"] == {"rule": 10}
    assert manifest["digest"] == built(judged).digest  # the same answers are the same set


def test_answers_on_revoked_versions_and_gold_questions_train_nothing(workshop: Any, judged: Any) -> None:
    retailer = RecommendationFactory(brand=judged).retailer
    before = built(judged)
    AdapterFactory(brand=judged, digest="e" * 64, state="revoked")
    pair_of(judged, retailer, "Milk", adapter_digest="e" * 64)
    pair_of(judged, retailer, "Salt", other_adapter_digest="e" * 64)
    pair_of(judged, retailer, "Rice", is_gold=True)
    assert built(judged).digest == before.digest


def test_texts_that_a_network_took_and_refused_are_a_pair(workshop: Any, judged: Any) -> None:
    retailer = RecommendationFactory(brand=judged).retailer
    for brand in (judged, BrandFactory(slug="closed")):
        for outcome, text in (("accepted", "Plain oats, 12 oz"), ("refused", "Best oats ever"), ("reopened", "Oats")):
            RecommendationFactory(
                brand=brand, retailer=retailer, status="published", text=text, prompt="Oats for breakfast",
                content={"network_answers": [{"outcome": outcome}]},
            )  # fmt: skip
    run = built(judged)
    assert run.manifest["sources"] == {"rule": 10, "network": 1}
    lines = (Path(workshop.MEDIA_ROOT) / run.path).glob("*.jsonl")
    rows = [json.loads(line) for file in lines for line in file.read_text().splitlines()]
    texts = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]
    assert texts.count(("Plain oats, 12 oz", "Best oats ever")) == 1


def test_a_repeat_with_sides_swapped_is_no_second_vote(workshop: Any, judged: Any) -> None:
    retailer, person = RecommendationFactory(brand=judged).retailer, UserFactory()
    first = pair_of(judged, retailer, "Milk", by=person)
    before = built(judged)
    question = ReviewTask.objects.create(brand=judged, retailer=retailer, task="creative", recommendation=first.recommendation, other=first.other)  # fmt: skip
    again = ReviewTask.objects.create(brand=judged, retailer=retailer, task="creative", recommendation=first.other, other=first.recommendation, repeats=question)  # fmt: skip
    Feedback.objects.create(
        brand=judged, retailer=retailer, task="creative", kind="pair", recommendation=first.other, other=first.recommendation,
        outcome="a", by=person, review_task=again,
    )  # fmt: skip
    assert built(judged).digest == before.digest


def test_answers_on_products_kept_for_the_gate_train_nothing_and_are_counted(workshop: Any, judged: Any) -> None:
    retailer = RecommendationFactory(brand=judged).retailer
    before = built(judged)
    item = suites.products(judged, unseen=True)[0]
    row = pair_of(judged, retailer, item.product, by=UserFactory())
    for draft in (row.recommendation, row.other):
        draft.prompt, draft.prompt_cluster = briefs.as_text(briefs.messages(item)), briefs.cluster(item)
        draft.save()
    run = built(judged)
    assert run.digest == before.digest
    assert run.manifest["dropped"]["kept for the gate"] == 1


def test_a_set_that_stands_is_never_written_again_and_one_that_was_changed_trains_nothing(
    workshop: Any, judged: Any
) -> None:
    data = built(judged)
    file = Path(workshop.MEDIA_ROOT) / data.path / "train.jsonl"
    written = file.stat().st_mtime_ns
    assert built(judged).path == data.path
    assert file.stat().st_mtime_ns == written
    file.write_text(file.read_text().replace("ACME", "Acme"))
    run = attempt(services.wish_for_training(dataset=data, **SMALL))
    assert run.status == "failed"
    assert "its rows were changed since it was built" in run.error


@pytest.mark.parametrize("shape", ["sharegpt", "openai"])
def test_a_set_is_written_in_other_shapes_that_the_trainer_reads(
    workshop: Any, judged: Any, tmp_path: Path, shape: str
) -> None:
    from training.lora import data

    wish = ["build_dataset", "--brand", "acme", "--task", "creative", "--kind", "dpo", "--out"]
    call_command(*wish, tmp_path / "trl", stdout=StringIO())
    call_command(*wish, tmp_path / shape, "--format", shape, stdout=StringIO())
    assert json.loads((tmp_path / shape / "manifest.json").read_text())["format"] == shape
    for part in ("train", "eval"):
        assert data.read(tmp_path / shape, "dpo", part) == data.read(tmp_path / "trl", "dpo", part)


def test_the_command_trains_as_a_run_in_the_scope_of_its_data_set(workshop: Any, judged: Any, tmp_path: Path) -> None:
    call_command("build_dataset", "--brand", "acme", "--task", "creative", "--kind", "dpo", "--out", tmp_path / "set", stdout=StringIO())  # fmt: skip
    given = {"base_model": str(workshop.RMN_BASE_MODEL), "method": "dpo", "data": "set", "out": "adapter", **SMALL}
    (tmp_path / "run.json").write_text(json.dumps(given))
    said = StringIO()
    call_command("train_adapter", str(tmp_path / "run.json"), stdout=said, stderr=StringIO())
    told = json.loads(said.getvalue())
    run = TrainingRun.objects.get()
    assert (told["training_run"], run.status, run.brand, run.task) == (str(run.pk), "succeeded", judged, "creative")
    assert run.adapter is not None
    assert run.adapter.digest == told["digest"] == files.digest(tmp_path / "adapter")
    assert [line["step"] for line in run.metrics] == [1, 2, 3, 4, 5, 6]
    assert run.estimate["steps"] == 6


def test_a_training_of_somebodys_own_rows_is_a_run_too_and_its_end_has_a_name(
    workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(8)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = {"base_model": str(workshop.RMN_BASE_MODEL), "method": "sft", "data": "own.jsonl", "out": "a", **SMALL}
    (tmp_path / "run.json").write_text(json.dumps(given))
    call_command("train_adapter", str(tmp_path / "run.json"), stdout=StringIO(), stderr=StringIO())
    run = TrainingRun.objects.get()
    assert (run.status, run.brand, run.adapter) == ("succeeded", None, None)
    assert "Not registered" in run.log
    monkeypatch.setattr(trainer, "lit", lambda log, *_: "length_drift" if len(log) == 2 else "")
    (tmp_path / "run.json").write_text(json.dumps(given | {"out": "b"}))
    err = StringIO()
    with pytest.raises(SystemExit):
        call_command("train_adapter", str(tmp_path / "run.json"), stdout=StringIO(), stderr=err)
    stopped = TrainingRun.objects.exclude(pk=run.pk).get()
    assert (stopped.status, stopped.stopped_by) == ("failed", "length_drift")
    assert "length_drift at step 2" in err.getvalue().splitlines()[-1]
    assert not (tmp_path / "b").exists()


def test_shared_knowledge_comes_only_from_brands_that_opted_in(workshop: Any, judged: Any) -> None:
    open_brand, retailer = BrandFactory(slug="open", shares_training=True), RecommendationFactory().retailer
    for product in ("Milk", "Salt", "Rice", "Oats", "Plums", "Figs"):
        pair_of(open_brand, retailer, product, origin="rule")
    run = built(None)
    text = (Path(workshop.MEDIA_ROOT) / run.path / "train.jsonl").read_text()
    assert "ACME oats" in text or "ACME salt" in text
    assert not any(product.lower() in text for product in PRODUCTS)
    assert run.manifest["brands"] == ["open"]


def test_the_answers_behind_a_set_are_kept_with_it_and_not_in_its_rows(workshop: Any, judged: Any) -> None:
    folder = Path(workshop.MEDIA_ROOT) / built(judged).path
    answers = json.loads((folder / "lineage.json").read_text())["answers"]
    assert set(answers) == {str(key) for key in Feedback.objects.values_list("uuid", flat=True)}
    assert not any(answer in (folder / "train.jsonl").read_text() for answer in answers)


def test_feedback_becomes_an_adapter_that_can_be_traced_back(workshop: Any, judged: Any) -> None:
    data = built(judged)
    run = attempt(services.wish_for_training(dataset=data, **SMALL))
    assert run.status == run.Status.SUCCEEDED, run.error
    assert run.adapter is not None
    assert (run.adapter.brand, run.adapter.task, run.adapter.state) == (judged, "creative", "candidate")
    manifest = files.read_manifest(Path(workshop.RMN_ADAPTERS) / run.adapter.digest)
    assert manifest["data"]["set"] == data.digest
    assert manifest["training_run"] == str(run.pk)
    assert [line["step"] for line in run.metrics] == [1, 2, 3, 4, 5, 6]
    assert run.metrics[0]["loss"] == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "cancel"])
def test_a_trainer_that_was_ended_goes_on_from_its_checkpoint(
    workshop: Any, judged: Any, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    run = services.wish_for_training(dataset=built(judged), **SMALL | {"steps": 40})
    children: list[Any] = []
    start, follow = subprocess.Popen, tasks._follow

    def started(*args: Any, **kwargs: Any) -> Any:
        children.append(start(*args, **kwargs))
        return children[-1]

    def ended(asked: TrainingRun, folder: Path) -> None:
        follow(asked, folder)
        if len(children) == 1 and len(asked.metrics) >= 4:
            if end == "kill":
                children[0].kill()
            else:
                TrainingRun.objects.filter(pk=asked.pk).update(cancel_requested=True)
                follow(asked, folder)

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(tasks, "_follow", ended)
    attempt(run)
    assert children[0].poll() is not None
    assert run.adapter is None
    assert not list(Path(workshop.VAR).glob("training/*/adapter"))
    assert run.status == ("queued" if end == "kill" else "cancelled")
    if end == "cancel":
        run.retry()
    attempt(run)
    assert run.status == run.Status.SUCCEEDED, run.error
    assert run.adapter is not None
    manifest = files.read_manifest(Path(workshop.RMN_ADAPTERS) / run.adapter.digest)
    assert manifest["resumed"]
    assert len(run.metrics) == 40


def test_a_worker_whose_lease_is_gone_publishes_nothing(
    workshop: Any, judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = services.wish_for_training(dataset=built(judged), **SMALL | {"steps": 1})
    follow = tasks._follow

    def stolen(asked: TrainingRun, folder: Path) -> None:
        TrainingRun.objects.filter(pk=asked.pk).update(lease_token=99)
        follow(asked, folder)

    monkeypatch.setattr(tasks, "_follow", stolen)
    attempt(run)
    assert run.adapter is None
    assert run.status == run.Status.RUNNING  # it is the other worker's now


@pytest.mark.parametrize(("attempts", "status"), [(1, "queued"), (3, "failed")])
def test_a_training_whose_worker_was_lost_says_so_and_goes_on_while_it_may(
    workshop: Any, judged: Any, attempts: int, status: str
) -> None:
    from django.utils import timezone

    from rmn.lib import runs

    run = services.wish_for_training(dataset=built(judged), **SMALL)
    now = timezone.now()
    TrainingRun.objects.filter(pk=run.pk).update(
        status="running", attempts=attempts, lease_until=now - timedelta(seconds=1)
    )
    runs.sweep(now)
    run.refresh_from_db()
    assert run.status == status
    assert run.step.startswith("lease_lost: ")


def test_a_stale_worker_that_comes_to_publish_is_named_and_changes_nothing(
    workshop: Any, judged: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = services.wish_for_training(dataset=built(judged), **SMALL | {"steps": 1})
    register = tasks.serving.register
    rows = TrainingRun.objects.filter(pk=run.pk)
    stood: dict[str, Any] = {}

    def slow(*args: Any, **kwargs: Any) -> Any:  # meanwhile another worker took the run
        rows.update(lease_token=99)
        stood.update(rows.values("status", "metrics", "adapter", "progress", "step").get())
        return register(*args, **kwargs)

    monkeypatch.setattr(tasks.serving, "register", slow)
    attempt(run)
    assert "run_lease_lost" in caplog.text
    assert run.adapter is None
    assert rows.values(*stood).get() == stood
    assert run.forecast is not None
    run.forecast.refresh_from_db()
    assert run.forecast.status == "open"
    assert not AdapterAlias.objects.exists()


@pytest.mark.parametrize("name", ["disk_full", "out_of_memory", "nan_loss"])
def test_how_a_trainer_ended_stands_in_its_run_by_name(
    workshop: Any, judged: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = services.wish_for_training(dataset=built(judged), **SMALL)
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    script = Path(workshop.VAR) / "training" / str(run.pk) / "end.sh"
    script.parent.mkdir(parents=True)
    script.write_text(f"echo 'training.lora: {name} at step 3: what to do' >&2; exit 2")
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda args, **how: start([args[0], str(script)], **how))
    attempt(run)
    assert (run.status, run.stopped_by) == ("failed", name)
    assert run.error == f"{name} at step 3: what to do"


def test_what_cannot_be_trained_is_refused_at_the_door(workshop: Any, judged: Any) -> None:
    data = built(judged)
    with pytest.raises(BadInput, match="may not be set"):
        services.wish_for_training(dataset=data, base_model="/etc")
    with pytest.raises(BadInput, match="another brand"):
        services.wish_for_training(dataset=data, parent=AdapterFactory())
    Dataset.objects.filter(pk=data.pk).update(status="failed")
    data.refresh_from_db()
    with pytest.raises(BadInput, match="a set that was built"):
        services.wish_for_training(dataset=data)


# -- evaluation


@dataclass
class Writer:
    """A model server that writes by rule: well under ``good`` adapters, and with examples if ``copies``."""

    good: set[str]
    copies: bool = False
    asked: list[Question] = field(default_factory=list)

    def info(self) -> dict[str, Any]:
        return {"model_id": "fake", "model_sha": "0" * 64}

    def load(self, *_: Any) -> None:
        pass

    def generate(self, question: Question) -> Reply:
        self.asked.append(question)
        what = question.messages[-1]["content"].split(" for ACME ")[1].split(",")[0].rstrip(".")
        fine = (question.adapter or "base") in self.good or (self.copies and len(question.messages) > 2)
        return Reply(f"ACME {what}" if fine else "The best!!", "stop", "fake", "", 1, 1, 0.01)


def evaluated(brand: Any, writer: Writer, **more: Any) -> Evaluation:
    run = services.wish_for_evaluation(brand=brand, task="creative", **more)
    with run.tracked():
        tasks.judge(run, writer)  # type: ignore[arg-type]
    run.refresh_from_db()
    assert run.status == run.Status.SUCCEEDED, run.error
    return run


def test_a_candidate_that_beats_base_and_prompt_is_better(workshop: Any, judged: Any) -> None:
    candidate = AdapterFactory(brand=judged)
    run = evaluated(judged, Writer({candidate.digest}), candidate=candidate)
    assert run.verdict == "better"
    assert {side: rate["estimate"] for side, rate in run.result["pass_rate"].items()} == {
        "candidate": 1.0,
        "champion": 0.0,
        "prompt_alone": 0.0,
    }
    candidate.refresh_from_db()
    assert candidate.gate["verdict"] == "better"


def test_an_adapter_that_a_prompt_with_examples_equals_is_not_promoted(workshop: Any, judged: Any) -> None:
    candidate = AdapterFactory(brand=judged)
    run = evaluated(judged, Writer({candidate.digest}, copies=True), candidate=candidate)
    assert run.verdict in ("not_worse", "not_enough_evidence")
    assert "a prompt with examples does as well" in run.result["reasons"][0]
    assert len(run.result["examples"]) == 3


def test_the_same_side_is_not_asked_twice(workshop: Any, judged: Any) -> None:
    first, second = AdapterFactory(brand=judged), AdapterFactory(brand=judged)
    writer = Writer({first.digest, second.digest})
    evaluated(judged, writer, candidate=first)
    before = len(writer.asked)
    evaluated(judged, writer, candidate=second, champion=first)
    assert len(writer.asked) - before == before // 3  # the new candidate alone


def test_no_example_and_no_training_product_is_in_the_suite(workshop: Any, judged: Any) -> None:
    candidate = AdapterFactory(brand=judged)
    writer = Writer({candidate.digest})
    run = evaluated(judged, writer, candidate=candidate)
    asked = {q.messages[-1]["content"].split("ACME ")[1].split(",")[0] for q in writer.asked}
    shown = {example["product"].lower() for example in run.result["examples"]}
    assert not asked & shown


def test_blind_votes_stand_beside_the_rules(workshop: Any, judged: Any) -> None:
    candidate = AdapterFactory(brand=judged)
    retailer = RecommendationFactory(brand=judged).retailer
    for place in range(30):
        row = pair_of(judged, retailer, f"Tea {place}", "a" if place % 3 else "b")
        row.adapter_digest, row.other_adapter_digest = candidate.digest, ""
        row.save()
    run = evaluated(judged, Writer({candidate.digest}), candidate=candidate)
    voted = next(test for test in run.result["tests"] if test["name"] == "blind votes")
    assert voted["votes"] == 30
    assert 0 <= voted["p_worse_holm"] <= 1
    assert voted["candidate"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("decided", [False, True])
def test_pairs_that_the_gate_waits_for_come_first_in_the_queue(workshop: Any, judged: Any, decided: bool) -> None:
    candidate = AdapterFactory(brand=judged)
    retailer = RecommendationFactory(brand=judged).retailer
    drafts = [
        RecommendationFactory(brand=judged, retailer=retailer, adapter_digest=one) for one in (candidate.digest, "", "")
    ]
    wanted, other = (
        ReviewTask.objects.create(brand=judged, retailer=retailer, task="creative", kind="pair", recommendation=a, other=b, priority=1.0)
        for a, b in (drafts[:2], drafts[1:])
    )  # fmt: skip
    evaluated(judged, Writer({candidate.digest}, copies=not decided), candidate=candidate)
    wanted.refresh_from_db()
    other.refresh_from_db()
    assert other.priority == 1.0
    assert (wanted.priority, wanted.votes_for_decision) == ((0.0, None) if decided else (tasks.ASKED_FIRST, 158))

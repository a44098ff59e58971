"""From answers to a version on trial, and back out: lessons, the night's choice, withdrawals."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from agents import serving
from agents.inference.types import Reply
from agents.models import Adapter, AdapterAlias, Deployment, Forecast
from feedback.models import Feedback
from retailers.models import AuditEntry
from rmn.lib.errors import BadInput
from tests.factories import (
    AdapterFactory,
    BrandFactory,
    RetailerFactory,
    UserFactory,
)
from tests.training.conftest import PRODUCTS, pair_of
from tests.training.test_runs import SMALL, Writer, built
from training import services, suites, tasks
from training.domain import goals
from training.domain.lessons import Standing, worth
from training.models import Dataset, Evaluation, Lesson, TrainingRun, Withdrawal

pytestmark = pytest.mark.django_db


class Shop:
    """Trainings, the model server and deployments by rule: what the chain does with them is what is tested."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.good: set[str] = set()  # digests that write well
        self.better: set[str] = {"sft"}  # methods whose versions do
        self.did: list[str] = []
        monkeypatch.setattr(tasks, "work", self.work)
        monkeypatch.setattr(serving, "deploy", self.deploy)
        monkeypatch.setattr(serving, "inference", self.inference)

    def work(self, run: TrainingRun) -> Adapter:
        self.did.append(f"train {run.method}")
        adapter: Adapter = AdapterFactory(
            brand=run.brand, retailer=run.retailer, parents=[run.parent.digest] if run.parent else []
        )
        if run.method in self.better:
            self.good.add(adapter.digest)
        run.store(adapter=adapter, metrics=[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
        return adapter

    def deploy(self, run: Deployment) -> None:
        self.did.append("deploy")
        serving.move(run.adapter, run.alias, share=run.share)

    def inference(self) -> Any:
        import contextlib

        return contextlib.nullcontext(Writer(self.good))


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(monkeypatch)


@pytest.fixture
def liked(workshop: Any, judged: Any) -> Any:
    """The brand, with people's strong answers on all its products: enough for imitation and for preference."""
    retailer = RetailerFactory(slug="retailer-abc")
    people = [UserFactory() for _ in range(4)]
    for place, product in enumerate((*PRODUCTS, *(f"{name} large" for name in PRODUCTS))):
        pair_of(judged, retailer, product, by=people[place % 4], strength=2)
    return judged


def taught(brand: Any, **more: Any) -> Lesson:
    run = services.request_lesson(brand=brand, task="creative", **more)
    tasks.teach(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    return run


# -- lessons


def test_one_wish_builds_trains_gates_and_stages(liked: Any, shop: Shop) -> None:
    run = taught(liked)
    assert run.status == run.Status.SUCCEEDED, run.error
    assert run.outcome == "staged"
    assert shop.did == ["train sft", "train dpo", "deploy"]
    assert {one.kind for one in run.datasets.all()} == {"sft", "dpo"}
    sft = run.training_runs.get(method="sft")
    assert run.training_runs.get(method="dpo").parent == sft.adapter  # preferences on top of imitation
    alias = AdapterAlias.objects.get(brand=liked)
    assert (alias.name, alias.adapter, alias.share) == ("challenger", sft.adapter, 0.1)
    assert "Staged as challenger" in run.found[-1]


def test_a_planner_begins_with_practice_and_is_trained_at_the_length_it_is_asked_at(
    workshop: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    brand = BrandFactory(slug="plans")
    right = {goal.words: json.dumps({"name": goal.tool, "arguments": dict(goal.arguments)}) for goal in goals.GOALS}

    class Planner(Writer):
        def generate(self, question: Any) -> Any:
            good = question.adapter in self.good
            text = right[question.messages[-1]["content"]] if good else "I would look into that."
            return Reply(text, "stop", "fake", "", 1, 1, 0.01)

    import contextlib

    monkeypatch.setattr(serving, "inference", lambda: contextlib.nullcontext(Planner(shop.good)))
    run = services.request_lesson(brand=brand, task="planning")
    tasks.teach(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert (run.status, run.outcome) == ("succeeded", "staged"), run.error
    trained = run.training_runs.get()
    assert trained.config["max_length"] >= 2048
    assert trained.dataset.manifest["sources"] == {"rule": trained.dataset.rows_train + trained.dataset.rows_eval}
    assert "Preferences: none trained" in run.found[1]


def test_what_the_gate_does_not_find_better_is_never_staged(liked: Any, shop: Shop) -> None:
    shop.better = set()
    run = taught(liked)
    assert (run.status, run.outcome) == ("succeeded", "not_promoted")
    assert "deploy" not in shop.did
    assert not AdapterAlias.objects.exists()
    assert "Against the base model" in run.found[-1]


def test_a_worker_that_was_killed_leaves_steps_that_are_not_done_twice(
    liked: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tasks.judge

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt  # as a signal would: nothing is recorded

    monkeypatch.setattr(tasks, "judge", killed)
    run = services.request_lesson(brand=liked, task="creative")
    with pytest.raises(KeyboardInterrupt):
        tasks.teach(str(run.pk), tenant=run.tenant)
    monkeypatch.setattr(tasks, "judge", whole)
    for kind in (Lesson, Evaluation):
        kind.objects.update(status="queued", lease_until=None)  # what the sweep does once the leases have run out
    tasks.teach(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert run.outcome == "staged", run.error
    assert shop.did == ["train sft", "train dpo", "deploy"]
    assert Dataset.objects.count() == 2


def test_a_lesson_under_way_is_not_begun_twice(liked: Any, shop: Shop) -> None:
    first = services.request_lesson(brand=liked, task="creative")
    assert services.request_lesson(brand=liked, task="creative") == first


def test_a_brand_without_answers_is_told_what_is_lacking(workshop: Any, shop: Shop, db: None) -> None:
    run = taught(BrandFactory(slug="empty"))
    assert run.status == "failed"
    assert "gather more feedback" in run.error
    with pytest.raises(BadInput, match="no suite gates it"):
        services.request_lesson(brand=BrandFactory(), task="budgeting")


def test_cancelling_a_lesson_cancels_its_step(liked: Any, shop: Shop) -> None:
    run = services.request_lesson(brand=liked, task="creative")
    step = run.datasets.create(brand=liked, task="creative", kind="sft")
    run.request_cancel()
    step.refresh_from_db()
    assert (run.status, step.status) == ("cancelled", "cancelled")


# -- the night


@pytest.mark.parametrize(
    ("standing", "start", "why"),
    [
        (Standing(answers=12, new=12, products=20), False, "a lesson needs 20"),
        (Standing(answers=60, new=60, products=20), True, "no lesson yet"),
        (Standing(answers=60, new=0, products=20, taught=True), False, "no answer since"),
        (Standing(answers=60, new=60, products=4), False, "least that can decide"),
        (Standing(answers=60, new=60, products=20, failing=3), False, "fails on 3 products"),
        (Standing(answers=60, new=6, products=20, taught=True), False, "12 more answers"),
        (Standing(answers=60, new=15, products=20, taught=True), True, "enough to change"),
    ],
)
def test_the_night_trains_only_where_new_answers_can_change_the_verdict(
    standing: Standing, start: bool, why: str
) -> None:
    found = worth(standing)
    assert found[0] is start
    assert why in found[1]


def test_the_number_of_answers_told_is_the_least_that_starts_a_lesson() -> None:
    assert worth(Standing(answers=72, new=18, products=20, taught=True))[0]
    assert not worth(Standing(answers=71, new=17, products=20, taught=True))[0]


def test_the_schedule_starts_lessons_for_scopes_with_enough_and_says_why_not(liked: Any, shop: Shop) -> None:
    few = BrandFactory(slug="few")
    pair_of(few, RetailerFactory(slug="retailer-abc"), "Tea", by=UserFactory())
    assert tasks.teach_nightly() == {"started": 1, "left": 1}
    run = Lesson.objects.get()
    assert run.brand == liked
    assert run.reason.startswith("nightly: 20 answers")
    tasks.teach(str(run.pk), tenant=run.tenant)
    assert tasks.teach_nightly() == {"started": 0, "left": 2}  # nobody has answered since


# -- withdrawals


def withdrawn(**wish: Any) -> Withdrawal:
    run = services.request_withdrawal(reason="left the company", **wish)
    tasks.unlearn(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert run.status == run.Status.SUCCEEDED, run.error
    return run


def test_what_rests_on_a_persons_answers_is_withdrawn_and_made_anew_without_them(
    liked: Any, shop: Shop, workshop: Any
) -> None:
    lesson = taught(liked)
    staged = lesson.adapter
    assert staged is not None
    serving.move(staged, "champion")
    composed = AdapterFactory(brand=liked, kind="composed", parents=[staged.digest, "f" * 64])
    untouched = AdapterFactory(brand=liked)
    for one in (staged, composed):
        (Path(workshop.RMN_ADAPTERS) / one.digest).mkdir(parents=True)
    person = Feedback.objects.human().first().by
    gone = {str(key) for key in Feedback.objects.filter(by=person).values_list("uuid", flat=True)}

    found = tasks.dependants(Withdrawal(person=person).answers)
    assert {one.kind for one in found.datasets} == {"sft", "dpo"}
    run = withdrawn(brand=None, person=person)

    for one in (staged, composed, untouched):
        one.refresh_from_db()
    assert (staged.state, composed.state, untouched.state) == ("revoked", "revoked", "candidate")
    assert not (Path(workshop.RMN_ADAPTERS) / staged.digest).exists()
    assert serving.route(brand=liked, retailer=None, task="creative").adapter is None  # the base serves again
    for data in lesson.datasets.all():
        assert data.revoked_at is not None
        assert not (Path(workshop.MEDIA_ROOT) / data.path / "train.jsonl").exists()
    with pytest.raises(BadInput, match="rows of it were withdrawn"):
        services.wish_for_training(dataset=lesson.datasets.first())
    assert run.result["answers"] == len(gone)
    assert AuditEntry.objects.filter(action="answers withdrawn").exists()

    again = Lesson.objects.get(pk=run.result["lessons"][0])
    tasks.teach(str(again.pk), tenant=again.tenant)
    again.refresh_from_db()
    assert again.status == "succeeded", again.error
    for data in again.datasets.all():
        answers = json.loads((Path(workshop.MEDIA_ROOT) / data.path / "lineage.json").read_text())["answers"]
        assert answers
        assert not gone & set(answers)


def test_a_brand_that_leaves_takes_its_rows_out_of_shared_knowledge_and_out_of_compositions(
    workshop: Any, judged: Any, shop: Shop
) -> None:
    leaving, staying = (
        BrandFactory(slug="leaving", shares_training=True),
        BrandFactory(slug="staying", shares_training=True),
    )
    retailer = RetailerFactory(slug="retailer-abc")
    for brand in (leaving, staying):
        for product in PRODUCTS:
            pair_of(brand, retailer, f"{brand.slug} {product}", origin="rule")
    shared = built(None)
    version = AdapterFactory(brand=None, retailer=None, kind="task")
    TrainingRun.objects.create(brand=None, task="creative", method="dpo", dataset=shared, adapter=version, status="succeeded")  # fmt: skip
    others = AdapterFactory(brand=judged, kind="composed", parents=[version.digest])
    run = withdrawn(brand=leaving)
    for one in (version, others):
        one.refresh_from_db()
        assert one.state == "revoked"
    again = Lesson.objects.get(pk=run.result["lessons"][0])
    assert again.brand is None
    tasks.teach(str(again.pk), tenant=again.tenant)
    again.refresh_from_db()
    assert (again.status, again.outcome) == ("succeeded", "trained"), again.error
    text = "".join((Path(workshop.MEDIA_ROOT) / d.path / "train.jsonl").read_text() for d in again.datasets.all())
    assert "staying" in text
    assert "leaving" not in text


def test_the_command_lists_before_it_withdraws(liked: Any, shop: Shop) -> None:
    taught(liked)
    name = Feedback.objects.human().first().by.username
    said = StringIO()
    call_command("unlearn", "--person", name, "--dry-run", stdout=said)
    assert "5 answers\ndata set" in said.getvalue()
    assert not Withdrawal.objects.exists()
    said = StringIO()
    call_command("unlearn", "--person", name, "--reason", "left", stdout=said)
    assert said.getvalue().startswith("5 answers, 2 data sets and 2 versions withdrawn, 1 lessons queued")
    for wrong, words in ((["--person", "nobody"], "nobody of that name"), (["--brand", "none"], "no such"), ([], "whose answers")):  # fmt: skip
        err = StringIO()
        with pytest.raises(SystemExit):
            call_command("unlearn", *wrong, "--reason", "x", stderr=err)
        assert words in err.getvalue()


def test_an_answer_leads_to_the_versions_that_rest_on_it_and_a_version_back_to_its_training(
    liked: Any, shop: Shop, people: Any
) -> None:
    lesson = taught(liked)
    row = Feedback.objects.human().first()
    page = people.web(people.owner).get(f"/training/answers/{row.uuid}").content.decode()
    for run in lesson.training_runs.all():
        assert run.adapter.digest[:12] in page
    for data in lesson.datasets.all():
        assert f"/training/data/{data.pk}" in page
    assert people.web(people.stranger).get(f"/training/answers/{row.uuid}").status_code == 404
    run = lesson.training_runs.get(method="sft")
    run.adapter.manifest = {"training_run": str(run.pk)}
    run.adapter.save()
    back = people.web(people.owner).get(f"/adapters/{run.adapter.uuid}").content.decode()
    assert f"/training/runs/{run.pk}" in back


def test_a_champion_that_is_withdrawn_gives_way_to_the_one_before_unless_that_rests_on_it_too(db: None) -> None:
    brand = BrandFactory()
    old, new = AdapterFactory(brand=brand, retailer=None), AdapterFactory(brand=brand, retailer=None)
    serving.move(old, "champion")
    serving.move(new, "champion")
    serving.revoke({new.digest}, "withdrawn")
    assert serving.route(brand=brand, retailer=None, task="creative").adapter == old
    serving.revoke({old.digest}, "withdrawn")
    assert serving.route(brand=brand, retailer=None, task="creative").adapter is None


def test_a_withdrawal_done_twice_finds_nothing_left(liked: Any, shop: Shop) -> None:
    taught(liked)
    person = Feedback.objects.human().first().by
    run = withdrawn(person=person, brand=liked)
    first = dict(run.result)
    run.status = "queued"
    run.save()
    tasks.unlearn(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert run.result["datasets"] == first["datasets"]
    assert run.result["adapters"] == first["adapters"]


# -- estimates


def test_a_training_begins_with_an_estimate_that_its_end_scores(
    workshop: Any, judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.RMN_TRAIN_PRICE_PER_HOUR = 2.0
    run = services.wish_for_training(dataset=built(judged), **SMALL | {"steps": 2})
    assert run.estimate["steps"] == 2
    assert run.estimate["flops"] == pytest.approx(run.estimate["tokens"] * 6 * 34_000, rel=0.5)
    assert run.estimate["cost"] >= 0
    assert run.forecast is not None
    assert run.forecast.status == "open"
    tasks.train(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert run.status == run.Status.SUCCEEDED, run.error
    forecast = Forecast.objects.get(pk=run.forecast.pk)
    assert forecast.status == "resolved"
    assert forecast.observed == pytest.approx(run.seconds / 60, abs=0.2)
    again = services.wish_for_training(dataset=built(judged), **SMALL)
    assert again.estimate["based_on"] == 1


# -- composition


@pytest.mark.parametrize("breaks", [False, True])
def test_weights_are_searched_and_a_sum_that_breaks_a_parts_guard_is_refused(
    workshop: Any, judged: Any, tiny_base: Path, tmp_path: Path, breaks: bool
) -> None:
    from agents.inference import adapters
    from tests.agents.tiny import make_adapter

    parts = [(tmp_path / f"part{n}", 0.5) for n in range(2)]
    good = {make_adapter(folder, tiny_base, seed=n) for n, (folder, _) in enumerate(parts)}

    class Taster(Writer):
        """Parts write well; a sum does where its weights are even, if it does at all."""

        def load(self, name: str, folder: str, *_: Any) -> None:
            weights = adapters.read_manifest(Path(folder)).get("weights")
            if weights and weights[0] == weights[1] == 0.7 and not breaks:
                self.good.add(name)

    out = tmp_path / "sum"
    client: Any = Taster(good)
    suite = suites.creative(judged)
    if breaks:
        with pytest.raises(BadInput, match=r"a part's guard fails in the sum: names the product: 1\.00"):
            tasks.mix(client, parts, "cat", out, suite)
        assert not out.exists()
    else:
        found = tasks.mix(client, parts, "cat", out, suite)
        assert found.weights == (0.7, 0.7)
        assert adapters.read_manifest(out)["weights"] == [0.7, 0.7]
        assert found.found.verdict in ("not_worse", "not_enough_evidence")
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".sum")] == []


def test_versions_are_composed_as_a_run_into_one_of_the_brands_own(workshop: Any, judged: Any, tiny_base: Path) -> None:
    from agents.inference import adapters
    from tests.agents.tiny import make_adapter

    parts = []
    for n in range(2):
        folder = Path(workshop.VAR) / f"part{n}"
        make_adapter(folder, tiny_base, seed=n)
        parts.append((serving.register(folder, kind="brand", brand=judged if n else None, retailer=None, task="creative"), 0.5))  # fmt: skip
    run = services.request_composition(brand=judged, parts=parts)
    tasks.train(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    assert (run.status, run.error) == ("succeeded", "")
    made = run.adapter
    assert made is not None
    assert (made.kind, made.brand, made.state) == ("composed", judged, "candidate")
    assert made.parents == [adapter.digest for adapter, _ in parts]
    assert adapters.digest(Path(workshop.RMN_ADAPTERS) / made.digest) == made.digest
    foreign = AdapterFactory()
    revoked = AdapterFactory(brand=judged, state="revoked")
    for wrong, words in (
        ([parts[0], (foreign, 1.0)], "another brand"),
        ([parts[0], (revoked, 1.0)], "was withdrawn"),
        (parts[:1], "at least two"),
        ([parts[0], (parts[1][0], 0.0)], "not 0"),
    ):
        with pytest.raises(BadInput, match=words):
            services.request_composition(brand=judged, parts=wrong)


def test_the_api_composes_for_those_who_may(people: Any, workshop: Any) -> None:
    parts = [AdapterFactory(brand=people.brand, retailer=people.retailer) for _ in range(2)]
    body = {"brand": str(people.brand.uuid), "parts": [{"adapter": str(one.uuid), "weight": 0.5} for one in parts]}
    address = "/api/v1/training-runs/compose/"
    assert people.api(people.owner).post(address, body, format="json").status_code == 403
    answer = people.api(people.colleague).post(address, body, format="json")
    assert answer.status_code == 202, answer.content
    assert people.api(people.stranger).post(address, body, format="json").status_code in (400, 403, 404)
    run = TrainingRun.objects.get()
    assert (run.method, run.config["compose"]) == ("mix", "cat")
    assert [one["weight"] for one in run.config["parts"]] == [0.5, 0.5]

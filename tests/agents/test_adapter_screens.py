"""The adapters' pages and the playground, for owner, narrowed colleague, stranger and ops."""

from __future__ import annotations

import json

import pytest

from agents import serving
from agents.models import AdapterAlias, Deployment, Generation
from tests.factories import AdapterFactory, FeedbackFactory, RecommendationFactory

BRIEF = {"product": "Sparkling water", "network": "instacart", "size": "", "feature": "", "retailer": ""}


@pytest.fixture
def version(people):
    return AdapterFactory(brand=people.brand, retailer=None, manifest={"data": {"digest": "d" * 64}})


@pytest.mark.django_db
def test_a_version_shows_where_it_comes_from_and_what_people_chose(people, version):
    child = AdapterFactory(brand=people.brand, retailer=None, parents=[version.digest])
    serving.move(child, "champion")
    one, two = (RecommendationFactory(brand=people.brand) for _ in range(2))
    for outcome in ("a", "a", "b", "tie"):
        FeedbackFactory(
            brand=people.brand,
            kind="pair",
            origin="human",
            recommendation=one,
            other=two,
            outcome=outcome,
            adapter_digest=child.digest,
            other_adapter_digest=version.digest,
        )
    client = people.web(people.owner)
    page = client.get(f"/adapters/{child.uuid}").content.decode()
    assert version.digest[:12] in page
    assert "67 %" in page
    assert "3 votes" in page
    older = client.get(f"/adapters/{version.uuid}").content.decode()
    assert child.digest[:12] in older
    assert "33 %" in older
    assert "dddddddddddd" in older
    assert "Prove and deploy" not in older
    assert version.digest[:12] in client.get("/adapters/").content.decode()


@pytest.mark.django_db
def test_a_version_shows_its_way_from_answers_to_what_serves_and_its_share_of_texts(people):
    row = AdapterFactory(
        brand=people.brand,
        retailer=None,
        manifest={"method": "dpo", "steps": 24, "data": {"set": "e" * 64, "rows": 40, "sources": {"human": 30, "rules": 10}}},
        gate={"verdict": "better"},
    )  # fmt: skip
    serving.move(row, "champion")
    facts = {
        "brand": people.brand,
        "task": "creative",
        "model": "m",
        "prompt_digest": "p",
        "text": "t",
        "latency_s": 2.0,
    }
    for verdict in ("pass", "pass", "pass", "block"):
        Generation.objects.create(**facts, alias="champion", adapter_digest=row.digest, verdict=verdict)
    Generation.objects.create(**facts, alias="shadow", adapter_digest="f" * 64)
    Generation.objects.create(**facts, alias="challenger", adapter_digest="a" * 64)
    client = people.web(people.owner)
    page = client.get(f"/adapters/{row.uuid}").content.decode()
    for words in (
        "30 human",
        "eeeeeeeeeeee, 40 rows",
        "DPO, 24 steps",
        "4 of 5 texts in 30 days",
        "3 of 4 texts",
        "75 %",
    ):
        assert words in page, words
    drawn = client.get(f"/adapters/{row.uuid}?picture=lineage.svg")
    assert drawn["Content-Type"] == "image/svg+xml"
    assert b"This version" in drawn.content
    assert client.get(f"/adapters/{row.uuid}?picture=other.svg").status_code == 404


@pytest.mark.django_db
def test_a_stranger_meets_no_version_and_deploys_none(people, version):
    client = people.web(people.stranger)
    assert version.digest[:12] not in client.get("/adapters/").content.decode()
    assert client.get(f"/adapters/{version.uuid}").status_code == 404
    for move in ("deploy", "roll-back"):
        assert client.post(f"/adapters/{version.uuid}/{move}", {"alias": "champion"}).status_code == 404
    assert not Deployment.objects.exists()


@pytest.mark.django_db
def test_ops_deploy_and_take_back_and_members_are_told_to_ask(people, version):
    client = people.web(people.ops)
    answer = client.post(f"/adapters/{version.uuid}/deploy", {"alias": "challenger"})
    run = Deployment.objects.get()
    assert answer.url == run.get_absolute_url()
    assert (run.alias, run.share) == ("challenger", 0.1)
    serving.move(version, "champion")
    client.post(f"/adapters/{version.uuid}/roll-back", {"reason": "odd words"})
    assert AdapterAlias.objects.get(name="champion").adapter is None
    told = people.web(people.owner).post(f"/adapters/{version.uuid}/deploy", {"alias": "champion"}, follow=True)
    assert "Only ops staff" in told.content.decode()
    fresh = AdapterFactory(brand=people.brand, retailer=None)
    wrong = client.post(f"/adapters/{fresh.uuid}/deploy", {"alias": "king"}, follow=True)
    assert "champion, challenger or shadow" in wrong.content.decode()
    assert Deployment.objects.count() == 1


def events(answer):
    text = b"".join(answer.streaming_content).decode()
    lines = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in lines]


@pytest.mark.django_db
def test_the_playground_streams_champion_and_base_side_by_side(people, version, roomy, settings):
    settings.RMN_INFERENCE_URL, settings.RMN_INFERENCE_KIND = roomy, "tgi"
    client = people.web(people.owner)
    page = client.get("/playground/", {**BRIEF, "brand": "acme"}).content.decode()
    assert "side=champion" in page
    assert "side=base" in page
    found = events(client.get("/playground/stream", {**BRIEF, "brand": "acme", "side": "base"}))
    assert found[-1][0] == "end"
    assert found[-1][1]["words"].split()[0] in ("Passes", "Does", "Needs")
    assert "".join(data["text"] for name, data in found if name == "piece")
    assert not Generation.objects.exists()


@pytest.mark.django_db
def test_without_a_model_server_the_playground_says_what_to_do(people, settings):
    settings.RMN_INFERENCE_URL = ""
    found = events(people.web(people.owner).get("/playground/stream", {**BRIEF, "brand": "acme", "side": "base"}))
    assert found == [
        ("problem", {"words": "No model server: start everything with make run, or set RMN_INFERENCE_URL."})
    ]


@pytest.mark.django_db
def test_nobody_writes_for_a_brand_or_retailer_that_is_not_theirs(people):
    asked = {**BRIEF, "brand": "acme", "side": "champion"}
    assert people.web(people.stranger).get("/playground/stream", asked).status_code == 422
    narrowed = people.web(people.narrowed)
    assert narrowed.get("/playground/stream", asked).status_code == 422
    assert narrowed.get("/playground/stream", {**asked, "retailer": "retailer-abc"}).status_code == 200
    assert people.web(people.owner).get("/playground/stream", {**asked, "side": "king"}).status_code == 404

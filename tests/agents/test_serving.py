"""Deployment, canary, rollback and the map from tenant to adapter, on the real server with a tiny model."""

from __future__ import annotations

import json
from io import StringIO

import pytest
import torch
from django.core.management import call_command
from safetensors.torch import load_file, save_file

from agents import services, serving, tasks
from agents.inference import adapters as files
from agents.inference.clients import client_for
from agents.inference.errors import BadAdapter
from agents.models import Adapter, AdapterAlias
from feedback.models import Feedback
from rmn.lib.errors import BadInput
from tests.agents.tiny import make_adapter, make_base
from tests.factories import AdapterFactory, BrandFactory, RetailerFactory

pytestmark = pytest.mark.django_db

PROBES = ["Fresh bread from our oven.", "Soap that smells of summer."]


@pytest.fixture
def place(settings, tiny, server):
    settings.RMN_BASE_MODEL, settings.RMN_ADAPTERS = tiny
    settings.RMN_INFERENCE_URL, settings.RMN_INFERENCE_KIND = server, "tgi"
    return tiny


@pytest.fixture
def brand():
    return BrandFactory(slug="acme")


def trained(base, folder, seed, server, scale=1.0, **facts):
    """An adapter with probes recorded as the trainer records them: with PEFT, without our server."""
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    from tests.agents.tiny import tokenizer

    make_adapter(folder, base, seed=seed, scale=scale)
    words = tokenizer()

    def logs(model):
        found = []
        for text in PROBES:
            ids = words(text, return_tensors="pt")["input_ids"]
            with torch.inference_mode():
                scores = model(ids).logits[0, :-1].log_softmax(-1)
            found.append(scores.gather(1, ids[0, 1:, None]).squeeze(1).tolist())
        return found

    plain = logs(LlamaForCausalLM.from_pretrained(base).eval())
    tuned = logs(PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), str(folder)).eval())
    manifest = files.read_manifest(folder)
    manifest["probes"] = [
        {"text": text, "logprobs": tuned[n], "base_logprobs": plain[n]} for n, text in enumerate(PROBES)
    ]
    files.write_manifest(folder, **{**manifest, **facts})
    return folder


def run_now(run):
    tasks.deploy(str(run.pk), tenant=run.tenant)
    run.refresh_from_db()
    return run


def test_deploying_proves_publishes_and_rolls_back(place, brand, server, tmp_path):
    base, root = place
    one = serving.register(
        trained(base, tmp_path / "a", 31, server), kind="brand", brand=brand, retailer=None, task="creative"
    )
    two = serving.register(
        trained(base, tmp_path / "b", 32, server), kind="brand", brand=brand, retailer=None, task="creative"
    )
    assert (root / one.digest / "manifest.json").exists()
    first = run_now(services.wish_for_deployment(adapter=one))
    assert first.status == "succeeded", first.error
    assert first.proof["compared"]
    assert first.proof["differs"] < 0.001
    assert first.proof["acts"] > 0.01
    said = StringIO()
    call_command("deploy_adapter", two.digest[:12], stdout=said)
    assert json.loads(said.getvalue())["stage"] == "champion"
    assert serving.route(brand=brand, retailer=None, task="creative").digest == two.digest
    previous = AdapterAlias.objects.get(scope="acme/-/creative", name="previous")
    assert previous.adapter == one
    said = StringIO()
    call_command("rollback_adapter", brand="acme", task="creative", stdout=said)
    assert json.loads(said.getvalue())["champion"] == one.digest
    two.refresh_from_db()
    assert two.state == "revoked"
    with pytest.raises(BadInput, match="withdrawn"):
        services.wish_for_deployment(adapter=two)
    services.roll_back_adapter(brand=brand, retailer=None, task="creative")
    assert serving.route(brand=brand, retailer=None, task="creative").alias == "base"
    with pytest.raises(BadInput, match="nothing to roll back"):
        services.roll_back_adapter(brand=brand, retailer=None, task="creative")


def test_an_adapter_of_zeros_is_refused_by_the_proof(place, brand, server, tmp_path):
    base, _ = place
    folder = tmp_path / "zeros"
    make_adapter(folder, base, seed=33)
    path = folder / "adapter_model.safetensors"
    save_file({name: torch.zeros_like(value) for name, value in load_file(path).items()}, path)
    files.write_manifest(folder, **files.read_manifest(folder))
    row = serving.register(folder, kind="brand", brand=brand, retailer=None, task="creative")
    run = run_now(services.wish_for_deployment(adapter=row))
    assert run.status == "failed"
    assert "does nothing" in run.error
    assert not AdapterAlias.objects.exists()


def test_an_adapter_of_another_base_is_refused(place, brand, server, tmp_path):
    other = make_base(tmp_path / "other", seed=9)
    trained(other, tmp_path / "foreign", 34, server)
    with pytest.raises(BadAdapter, match="another base model"):
        serving.register(tmp_path / "foreign", kind="brand", brand=brand, retailer=None, task="creative")
    manifest = files.read_manifest(tmp_path / "foreign")
    del manifest["base_digest"]  # a trainer that hides it is found out by the probes
    files.write_manifest(tmp_path / "foreign", **manifest)
    row = serving.register(tmp_path / "foreign", kind="brand", brand=brand, retailer=None, task="creative")
    run = run_now(services.wish_for_deployment(adapter=row))
    assert run.status == "failed"
    assert "trained on another base" in run.error


def test_an_adapter_of_another_brand_is_not_registered(place, brand, server, tmp_path):
    base, _ = place
    make_adapter(tmp_path / "theirs", base, seed=35, brand="globex")
    with pytest.raises(BadAdapter, match="'globex'"):
        serving.register(tmp_path / "theirs", kind="brand", brand=brand, retailer=None, task="creative")


def test_a_text_is_recorded_with_the_weights_that_wrote_it(place, brand, server, tmp_path):
    base, _ = place
    row = serving.register(
        trained(base, tmp_path / "w", 36, server), kind="brand", brand=brand, retailer=None, task="creative"
    )
    serving.move(row, "champion")
    with serving.inference() as client:
        way = serving.route(brand=brand, retailer=None, task="creative")
        messages = [{"role": "user", "content": "A headline for bread"}]
        reply, generation = serving.ask(
            client, way, messages, brand=brand, retailer=None, task="creative", max_tokens=8, prompt_version="copy@1"
        )
    generation.save()
    assert generation.adapter_digest == row.digest == reply.model
    assert generation.tokens_out > 0
    assert generation.sampling["max_tokens"] == 8


def test_a_server_that_lost_the_adapter_is_given_it_again(place, brand, server, tmp_path):
    base, _ = place
    row = serving.register(
        trained(base, tmp_path / "v", 37, server), kind="brand", brand=brand, retailer=None, task="creative"
    )
    serving.move(row, "champion")
    with serving.inference() as client:
        way = serving.route(brand=brand, retailer=None, task="creative")
        ask = {"brand": brand, "retailer": None, "task": "creative", "max_tokens": 2}
        serving.ask(client, way, [{"role": "user", "content": "a"}], **ask)
        client.unload(row.digest)
        reply, _ = serving.ask(client, way, [{"role": "user", "content": "a"}], **ask)
    assert reply.model == row.digest


def test_the_narrowest_scope_answers_and_another_brand_never(brand):
    retailer, other = RetailerFactory(slug="r1"), BrandFactory(slug="globex")
    wide = AdapterFactory(brand=brand, retailer=None)
    narrow = AdapterFactory(brand=brand, retailer=retailer)
    serving.move(wide, "champion")
    assert serving.route(brand=brand, retailer=retailer, task="creative").adapter == wide
    serving.move(narrow, "champion")
    assert serving.route(brand=brand, retailer=retailer, task="creative").adapter == narrow
    assert serving.route(brand=brand, retailer=None, task="creative").adapter == wide
    assert serving.route(brand=other, retailer=retailer, task="creative").adapter is None
    assert serving.route(brand=brand, retailer=retailer, task="planning").adapter is None


def test_a_canary_sticks_to_its_campaigns_and_is_taken_back_by_the_votes(brand):
    champion, challenger = AdapterFactory(brand=brand, retailer=None), AdapterFactory(brand=brand, retailer=None)
    serving.move(champion, "champion")
    serving.move(challenger, "challenger", share=0.3)
    keys = [f"campaign-{n}" for n in range(300)]
    routes = {key: serving.route(brand=brand, retailer=None, task="creative", key=key).adapter for key in keys}
    assert 50 < sum(adapter == challenger for adapter in routes.values()) < 140
    again = {key: serving.route(brand=brand, retailer=None, task="creative", key=key).adapter for key in keys}
    assert again == routes
    for number in range(14):
        ours_first = number % 2 == 0
        Feedback.objects.create(
            brand=brand,
            task="creative",
            kind="pair",
            outcome="b" if ours_first else "a",
            adapter_digest=challenger.digest if ours_first else champion.digest,
            other_adapter_digest=champion.digest if ours_first else challenger.digest,
        )
    assert serving.evidence("acme/-/creative").losses == 14
    assert tasks.watch_canaries() == 1
    assert not AdapterAlias.objects.filter(name="challenger").exists()
    challenger.refresh_from_db()
    assert challenger.state == "revoked"
    assert tasks.watch_canaries() == 0


def test_a_shared_adapter_is_not_deployed_by_itself():
    with pytest.raises(BadInput, match="compose"):
        services.wish_for_deployment(adapter=AdapterFactory(brand=None, retailer=None))


def test_a_version_is_found_by_the_beginning_of_its_digest(brand):
    row = AdapterFactory(brand=brand, digest="abcdef" + "0" * 58)
    assert serving.find("abcdef") == row
    assert serving.find(str(row.uuid)) == row
    for text in ("abc", "nothex", "fedcba", "'; drop"):
        with pytest.raises(BadInput):
            serving.find(text)


@pytest.mark.parametrize("driver", ["vllm"])
def test_the_proof_works_through_the_other_driver_too(place, brand, server, tmp_path, settings, driver):
    base, _ = place
    row = serving.register(
        trained(base, tmp_path / "x", 38, server), kind="brand", brand=brand, retailer=None, task="creative"
    )
    client = client_for(driver, server)
    proof = serving.prove(client, row)
    assert proof.passed, proof.reasons
    assert Adapter.objects.get(pk=row.pk).rank == 4

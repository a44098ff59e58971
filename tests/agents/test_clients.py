"""One contract for all engines, held against our real server by both drivers."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from agents.inference import launcher
from agents.inference.adapters import digest
from agents.inference.clients import Breaker, OpenAIClient, TGIClient, client_for
from agents.inference.errors import (
    AdapterExists,
    BadAdapter,
    CircuitOpen,
    GenerationFailed,
    InvalidOutput,
    InvalidRequest,
    NotSupported,
    TimedOut,
    UnknownAdapter,
    Unreachable,
)
from agents.inference.types import InferenceClient, Question

ASK = [{"role": "user", "content": "A headline for fresh bread"}]
SCHEMA = {
    "type": "object",
    "properties": {"headline": {"enum": ["fresh bread", "warm bread"]}, "n": {"type": "integer", "maximum": 9}},
    "required": ["headline", "n"],
    "additionalProperties": False,
}


VLLM = os.environ.get("RMN_TEST_VLLM_URL", "")  # make test-vllm: a real one, serving two adapters or more


@pytest.fixture(params=["tgi", "vllm", *(["a real vllm"] if VLLM else [])])
def place(request):
    """A driver, two adapters that its server has, and a third one's folder."""
    if request.param == "a real vllm":
        client = OpenAIClient(VLLM, timeout_s=300)
        one, two = [served.name for served in client.adapters()][:2]
        yield Place(client, one, two, Path(os.environ.get("RMN_TEST_VLLM_ADAPTER", "")), own=False)
    else:
        server, (_, root) = request.getfixturevalue("server"), request.getfixturevalue("tiny")
        client = client_for(request.param, server, timeout_s=30)
        yield Place(client, "acme-copy", "globex-copy", root / "spare", own=True)
    client.close()


@dataclass
class Place:
    client: InferenceClient
    one: str
    two: str
    spare: Path
    own: bool


@pytest.fixture
def client(place):
    return place.client


def test_an_adapter_answers_otherwise_than_the_base_and_always_the_same(place):
    ask = {name: Question(messages=ASK, adapter=name, max_tokens=16) for name in (None, place.one, place.two)}
    replies = {name: place.client.generate(question) for name, question in ask.items()}
    assert replies[place.one].text != replies[None].text
    assert replies[place.two].text != replies[None].text
    again = place.client.generate(ask[place.one])
    assert again.text == replies[place.one].text
    assert again.tokens_out > 0
    assert again.latency_s > 0


def test_the_server_says_which_weights_answered(place):
    reply = place.client.generate(Question(messages=ASK, adapter=place.one, max_tokens=4))
    assert reply.model == place.one
    if place.own:  # vLLM tells no digest: there the proof at deployment stands for it
        assert digest(place.spare.parent / place.one)[:16] in reply.fingerprint


def test_both_drivers_get_the_same_text(server):
    texts = {
        client_for(kind, server).generate(Question(messages=ASK, adapter="acme-copy", max_tokens=12)).text
        for kind in ("tgi", "vllm")
    }
    assert len(texts) == 1


def test_an_unknown_adapter_is_an_error_never_the_base(client):
    for question in (
        Question(messages=ASK, adapter="nobody", max_tokens=4),
        Question(prompt="bread", adapter="nobody", max_tokens=4),
        Question(prompt="bread", adapter="broken", max_tokens=4),
    ):
        with pytest.raises(UnknownAdapter):
            client.generate(question)
        with pytest.raises(UnknownAdapter):
            list(client.stream(question))
    with pytest.raises(UnknownAdapter):
        client.score("bread", "nobody")


@pytest.mark.parametrize("asked", [{"messages": ASK}, {"prompt": "A headline for fresh bread:"}])
def test_a_stream_adds_up_to_the_whole(place, asked):
    question = Question(**asked, adapter=place.one, max_tokens=24)
    assert "".join(place.client.stream(question)) == place.client.generate(question).text


def test_a_stream_that_is_closed_early_stops_the_work(place):
    pieces = place.client.stream(Question(messages=ASK, adapter=place.two, max_tokens=200))
    next(pieces)
    pieces.close()
    assert place.client.generate(Question(prompt="bread", max_tokens=2)).tokens_out <= 2


def test_a_schema_is_held_and_parsed(place):
    reply = place.client.generate(Question(messages=ASK, adapter=place.one, max_tokens=80, schema=SCHEMA))
    assert reply.data["headline"] in ("fresh bread", "warm bread")
    plain = place.client.generate(Question(prompt="bread", adapter=place.one, max_tokens=80, schema=SCHEMA))
    assert set(plain.data) == {"headline", "n"}


def test_a_structured_answer_cut_off_is_an_error_that_may_be_tried_again(client):
    with pytest.raises(InvalidOutput, match="cut off") as caught:
        client.generate(Question(messages=ASK, max_tokens=5, schema=SCHEMA))
    assert caught.value.retryable


def test_a_pattern_is_held(client):
    for asked in ({"messages": ASK}, {"prompt": "bread"}):
        reply = client.generate(Question(**asked, max_tokens=20, pattern="(yes|no): [0-9]{2}"))
        assert reply.text.split(": ")[0] in ("yes", "no")
        assert reply.text[-2:].isdigit()


def test_scores_are_those_of_the_adapter(place):
    text = "Fresh bread, warm from our oven"
    base, one, two = (place.client.score(text, name) for name in (None, place.one, place.two))
    assert len(base) == len(one) >= 6
    if place.own:
        assert len(base) == len(text) - 1  # one token a byte
    assert max(abs(a - b) for a, b in zip(base, one)) > 0.05
    assert max(abs(a - b) for a, b in zip(one, two)) > 0.05
    assert place.client.score(text, place.one) == pytest.approx(one, abs=1e-4)


def test_a_seed_repeats_a_sample(place):
    question = Question(messages=ASK, adapter=place.one, max_tokens=16, temperature=1.0, seed=11)
    assert place.client.generate(question).text == place.client.generate(question).text


def test_a_request_out_of_range_is_refused_and_not_tried_again(place):
    words = r"must be <= 256. Given: \d+ `inputs` tokens and 4000" if place.own else ""
    with pytest.raises(InvalidRequest, match=words):
        place.client.generate(Question(prompt="bread", max_tokens=4000))
    with pytest.raises(InvalidRequest, match="grammar is not valid" if place.own else ""):
        place.client.generate(Question(messages=ASK, pattern="(", max_tokens=4))


def test_adapters_are_listed_loaded_and_unloaded(place):
    client, spare = place.client, place.spare
    names = {served.name for served in client.adapters()}
    assert {place.one, place.two} <= names
    assert "broken" not in names
    if place.own:
        client.unload(spare.name)
    with pytest.raises(UnknownAdapter):
        client.generate(Question(prompt="bread", adapter=spare.name, max_tokens=2))
    with pytest.raises(UnknownAdapter):
        client.unload(spare.name)
    if place.own:
        with pytest.raises(BadAdapter, match="brand is 'acme'"):
            client.load(spare.name, str(spare), expect={"brand": "globex"})
        with pytest.raises(BadAdapter):
            client.load("broken", str(spare.parent / "broken"))
    client.load(spare.name, str(spare), expect={"brand": "acme"})
    with pytest.raises(AdapterExists):
        client.load(spare.name, str(spare))
    with pytest.raises((UnknownAdapter, BadAdapter)):
        client.load("elsewhere", "/etc")
    assert client.generate(Question(prompt="bread", adapter=spare.name, max_tokens=2)).tokens_out
    if not place.own:
        client.unload(spare.name)


def test_the_base_model_and_its_limits_are_told(place):
    assert place.client.is_healthy()
    assert place.client.info()["model_id"]
    assert place.client.info()["max_total_tokens"] >= 256


# -- a server that is not there, or fails


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("driver", [TGIClient, OpenAIClient])
def test_no_server_is_a_retryable_error(driver):
    client = driver(f"http://127.0.0.1:{closed_port()}", timeout_s=2, tries=2)
    with pytest.raises(Unreachable) as caught:
        client.generate(Question(prompt="a", adapter="x"))
    assert caught.value.retryable
    assert not client.is_healthy()


@pytest.mark.parametrize("driver", [TGIClient, OpenAIClient])
def test_a_server_that_hangs_or_talks_nonsense_is_told_apart(driver):
    answers = [None, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno!"]
    listener = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve():
        for answer in answers:
            connection, _ = listener.accept()
            held.append(connection)
            connection.recv(65536)
            if answer:
                connection.sendall(answer)
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    client = driver(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.5, tries=1)
    with pytest.raises(TimedOut):
        client.generate(Question(prompt="a", adapter="x"))
    with pytest.raises(Unreachable):
        client.generate(Question(prompt="a", adapter="x"))
    listener.close()


def test_the_breaker_opens_after_failures_and_closes_after_a_good_call():
    now = [0.0]
    breaker = Breaker(failures=2, rest_s=10, clock=lambda: now[0])
    breaker.note(worked=False)
    breaker.check("x")
    breaker.note(worked=False)
    with pytest.raises(CircuitOpen, match="2 times in a row"):
        breaker.check("x")
    now[0] = 11
    breaker.check("x")  # one goes through
    with pytest.raises(CircuitOpen):
        breaker.check("x")
    breaker.note(worked=True)
    breaker.check("x")


def test_all_clients_of_a_server_share_its_breaker_and_a_stream_obeys_it(tiny):
    url = f"http://127.0.0.1:{closed_port()}"
    for kind in ("tgi", "vllm", "tgi", "vllm", "tgi"):
        with pytest.raises(Unreachable):
            client_for(kind, url, timeout_s=2, tries=1).generate(Question(prompt="a", adapter="x"))
    for kind in ("tgi", "vllm"):
        with pytest.raises(CircuitOpen, match="5 times in a row"):
            list(client_for(kind, url).stream(Question(messages=ASK, adapter="x")))


def test_a_stream_that_does_not_begin_is_tried_again_and_one_that_breaks_off_is_not():
    begun = []

    class Flaky(OpenAIClient):
        def _pieces(self, question):
            begun.append(1)
            if len(begun) == 1:
                raise Unreachable("not yet")
            yield "fresh"
            raise GenerationFailed("broke off")

    pieces = Flaky("http://127.0.0.1:1", tries=3).stream(Question(messages=ASK, adapter="x"))
    assert next(pieces) == "fresh"
    with pytest.raises(GenerationFailed):
        next(pieces)
    assert len(begun) == 2


def test_an_unknown_kind_of_server_is_refused():
    with pytest.raises(NotSupported):
        client_for("telepathy", "http://127.0.0.1:1")


# -- our own server as a child


def test_the_child_ends_with_the_block_and_a_wrong_model_is_told(tiny, tmp_path):
    with pytest.raises(Unreachable, match="no model here"), launcher.own_server(tmp_path, tmp_path):
        pass
    with launcher.connect("", "tgi", tiny[0], tiny[1]) as client:
        url = client.url
        assert client.generate(Question(prompt="bread", adapter="acme-copy", max_tokens=3)).tokens_out
    assert not TGIClient(url).is_healthy()

"""TGI's contract on the wire: the hub's client library, status codes and bodies for good and bad input, metrics."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import httpx2
import jsonschema
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError

CHAT = {"model": "acme-copy", "messages": [{"role": "user", "content": "bread"}], "max_tokens": 8, "temperature": 0}
ASK = {"inputs": "bread", "parameters": {"max_new_tokens": 6, "adapter_id": "acme-copy"}}
SCHEMA = {
    "type": "object",
    "properties": {"headline": {"enum": ["fresh bread", "warm bread"]}},
    "required": ["headline"],
    "additionalProperties": False,
}
PRICE = {"type": "object", "properties": {"cents": {"enum": [10, 20]}}, "required": ["cents"]}
TOOL = {"type": "function", "function": {"name": "set_price", "parameters": PRICE}}


def post(server, route, body=None, **how):
    if body is not None:
        how["json"] = body
    return httpx2.post(server + route, timeout=30, **how)


# -- the hub's client library


def test_the_hub_client_generates_with_an_adapter_and_streams_the_same(server):
    hub = InferenceClient(base_url=server)
    whole = hub.text_generation("fresh bread", adapter_id="acme-copy", max_new_tokens=12, details=True)
    assert whole.details.generated_tokens <= 12
    assert whole.generated_text != hub.text_generation("fresh bread", max_new_tokens=12)
    events = list(
        hub.text_generation("fresh bread", adapter_id="acme-copy", max_new_tokens=12, stream=True, details=True)
    )
    assert events[-1].generated_text == whole.generated_text
    assert events[-1].details.generated_tokens == whole.details.generated_tokens == len(events)
    with pytest.raises(ValidationError, match="not served here"):
        hub.text_generation("fresh bread", adapter_id="nobody")


def test_the_hub_client_chats_by_model_with_tools_and_response_format(roomy):
    hub = InferenceClient(base_url=roomy)
    ask = {"messages": CHAT["messages"], "max_tokens": 60, "temperature": 0}
    plain = hub.chat_completion(model="acme-copy", **ask)
    assert plain.model == "acme-copy"
    pieces = [
        event.choices[0].delta.content or "" for event in hub.chat_completion(model="acme-copy", stream=True, **ask)
    ]
    assert "".join(pieces) == plain.choices[0].message.content
    formatted = hub.chat_completion(
        model="acme-copy",
        response_format={"type": "json_schema", "json_schema": {"name": "h", "schema": SCHEMA, "strict": True}},
        **ask,
    )
    jsonschema.validate(json.loads(formatted.choices[0].message.content), SCHEMA)
    called = hub.chat_completion(model="acme-copy", tools=[TOOL], tool_choice="required", **ask)
    call = called.choices[0].message.tool_calls[0].function
    assert called.choices[0].finish_reason == "tool_calls"
    assert call.name == "set_price"
    assert json.loads(call.arguments)["cents"] in (10, 20)


# -- bad input: TGI's own status codes and bodies


def native(**parameters):
    return {"inputs": "bread", "parameters": {"max_new_tokens": 4, **parameters}}


REFUSED = {
    "empty inputs": ({"inputs": ""}, "`inputs` cannot be empty"),
    "oversize prompt": ({"inputs": "a" * 400}, "`inputs` must have less than 255 tokens. Given: 400"),
    "prompt far too long": ({"inputs": "a" * 300_000}, "`inputs` must have less than 255 tokens"),
    "too many new tokens": (native(max_new_tokens=9999), "`inputs` tokens + `max_new_tokens` must be <= 256"),
    "no new tokens": (native(max_new_tokens=0), "`max_new_tokens` must be strictly positive"),
    "temperature zero": (native(temperature=0.0), "`temperature` must be strictly positive"),
    "temperature negative": (native(temperature=-1), "`temperature` must be strictly positive"),
    "top_p one": (native(top_p=1.0), "`top_p` must be > 0.0 and < 1.0"),
    "top_p zero": (native(top_p=0), "`top_p` must be > 0.0 and < 1.0"),
    "typical_p above": (native(typical_p=1.5), "`typical_p` must be > 0.0 and < 1.0"),
    "top_k zero": (native(top_k=0), "`top_k` must be strictly positive"),
    "repetition penalty": (native(repetition_penalty=0), "`repetition_penalty` must be strictly positive"),
    "frequency penalty": (native(frequency_penalty=-3), "`frequency_penalty` must be >= -2.0"),
    "five stops": (native(stop=list("abcde")), "`stop` supports up to 4 stop sequences. Given: 5"),
    "best_of five": (native(best_of=5, do_sample=True), "`best_of` must be > 0 and <= 4. Given: 5"),
    "best_of greedy": (native(best_of=2), "you must use sampling when `best_of` is > 1"),
    "best_of seeded": (native(best_of=2, do_sample=True, seed=1), "`seed` must not be set when `best_of` > 1"),
    "top_n above": (native(top_n_tokens=6), "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
    "truncate zero": (native(truncate=0), "`truncate` must be strictly positive"),
    "grammar broken": (native(grammar={"type": "regex", "value": "("}), "grammar is not valid"),
    "unknown adapter": (native(adapter_id="nobody"), "adapter 'nobody' is not served here"),
    "adapter by path": (native(adapter_id="../acme-copy"), "is not served here"),
    "broken adapter": (native(adapter_id="broken"), "no adapter_config.json"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_value_out_of_range_is_422_in_tgis_words(server, what):
    body, words = REFUSED[what]
    for route in ("/generate", "/") if what.startswith("best_of") else ("/generate", "/generate_stream", "/"):
        answer = post(server, route, body)
        assert answer.status_code == 422, route
        assert answer.json().keys() == {"error", "error_type"}
        assert answer.json()["error_type"] == "validation"
        assert answer.json()["error"].startswith("Input validation error: ")
        assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b'{"inputs": "a"', "application/json", 400, "Failed to parse the request body as JSON"),
        (b"\xff\xfe", "application/json", 400, "Failed to parse the request body as JSON"),
        (b"[" * 100_000, "application/json", 400, "Failed to parse the request body as JSON"),
        (b'{"inputs": "a"}', "text/plain", 415, "Expected request with `Content-Type: application/json`"),
        (b" " * (2 * 2**20 + 1), "application/json", 413, "length limit exceeded"),
        (b"[]", "application/json", 422, "Failed to deserialize the JSON body into the target type"),
        (b"{}", "application/json", 422, "missing field `inputs`"),
        (b'{"inputs": 7}', "application/json", 422, "expected a string"),
        (b'{"inputs": "a", "parameters": []}', "application/json", 422, "expected an object"),
        (b'{"inputs": "a", "parameters": {"top_k": 1.5}}', "application/json", 422, "expected an integer"),
        (b'{"inputs": "a", "parameters": {"temperature": NaN}}', "application/json", 400, "parse the request body"),
        (b'{"inputs": "a", "parameters": {"seed": -1}}', "application/json", 422, "expected u64"),
        (b'{"inputs": "a", "parameters": {"stop": [1]}}', "application/json", 422, "sequence of strings"),
        (b'{"inputs": "a", "parameters": {"grammar": {"type": "yaml"}}}', "application/json", 422, "unknown variant"),
    ],
)
def test_a_body_of_another_form_is_refused_in_plain_text(server, content, kind, status, words):
    answer = post(server, "/generate", content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert words in answer.text


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"model": "nobody"}, 404, "is not served here"),
        ({"messages": []}, 422, "`messages` cannot be empty"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, 422, "unknown role"),
        ({"max_tokens": 9999}, 422, "must be <= 256"),
        ({"top_p": 2}, 422, "`top_p` must be"),
        ({"tools": [TOOL], "response_format": {"type": "json", "value": SCHEMA}}, 422, "mutually exclusive"),
        ({"tools": [TOOL], "tool_choice": {"function": {"name": "fly"}}}, 422, "not found"),
        ({"n": 0}, 422, "`n` must be"),
    ],
)
def test_a_chat_that_cannot_be_is_refused(server, changes, status, words):
    answer = post(server, "/v1/chat/completions", CHAT | changes)
    assert answer.status_code == status, answer.text
    assert words in answer.text


def test_routes_and_methods_that_are_not_there_have_no_body(server):
    for method, route, status in (
        ("GET", "/nowhere", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/generate", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/../etc/passwd", 404),
    ):
        answer = httpx2.request(method, server + route, timeout=10)
        assert (answer.status_code, answer.content) == (status, b""), route
    assert "POST" in httpx2.get(server + "/generate").headers["allow"]


def test_an_error_in_a_stream_is_an_event_of_its_own(server):
    late = post(server, "/generate_stream", native(max_new_tokens=200), headers={"x-timeout-s": "0.001"})
    assert json.loads(late.text.strip().rpartition("data:")[2])["error_type"] == "timeout"
    whole = post(server, "/generate", native(max_new_tokens=200), headers={"x-timeout-s": "0.001"})
    assert whole.status_code == 504
    assert post(server, "/generate", ASK, headers={"x-timeout-s": "soon"}).status_code == 422


# -- every route


def test_every_route_of_the_contract_answers_in_its_form(server, tgi):
    def holds(answer, name):
        assert answer.status_code == 200, answer.text
        jsonschema.validate(answer.json(), tgi(name))
        return answer.json()

    detailed = {"inputs": "bread", "parameters": ASK["parameters"] | {"details": True, "decoder_input_details": True}}
    holds(post(server, "/generate", ASK), "GenerateResponse")
    holds(post(server, "/generate", detailed), "GenerateResponse")
    for item in post(server, "/", ASK).json():
        jsonschema.validate(item, tgi("GenerateResponse"))
    holds(post(server, "/invocations", ASK), "GenerateResponse")
    holds(post(server, "/v1/chat/completions", CHAT), "ChatCompletion")
    holds(post(server, "/invocations", CHAT), "ChatCompletion")
    told = {"prompt": "bread", "max_tokens": 4, "model": "acme-copy"}
    holds(post(server, "/v1/completions", told), "CompletionFinal")
    holds(post(server, "/v1/completions", told | {"prompt": ["bread"]}), "CompletionFinal")
    holds(post(server, "/tokenize", ASK), "TokenizeResponse")
    assert holds(post(server, "/chat_tokenize", CHAT), "ChatTokenizeResponse")["templated_text"].startswith(
        "<|im_start|>"
    )
    holds(httpx2.get(server + "/info"), "Info")
    for route, body, name in (
        ("/generate_stream", ASK, "StreamResponse"),
        ("/v1/chat/completions", CHAT | {"stream": True}, "ChatCompletionChunk"),
        ("/v1/completions", told | {"stream": True}, "Chunk"),
    ):
        answer = post(server, route, body)
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line[5:].strip() for line in answer.text.splitlines() if line.startswith("data:")]
        events = [json.loads(line) for line in lines if line != "[DONE]"]
        assert events
        for event in events:
            jsonschema.validate(event, tgi(name))
    assert post(server, "/v1/completions", told | {"prompt": ["a", "b"]}).status_code == 422


@pytest.fixture(scope="session")
def tgi(shared_data):
    told = json.loads((shared_data / "tgi" / "openapi.json").read_text())

    def nullable(node):
        if isinstance(node, dict):
            node = {key: nullable(value) for key, value in node.items()}
            if node.pop("nullable", False):
                return {"anyOf": [node, {"type": "null"}]}
        return [nullable(item) for item in node] if isinstance(node, list) else node

    schemas = nullable(told["components"])
    return lambda name: {"$ref": f"#/components/schemas/{name}", "components": schemas}


# -- much at once


def metric(server, name, **labels):
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    for line in httpx2.get(server + "/metrics").text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.split("{")[0] == name and wanted <= set(head.partition("{")[2].rstrip("}").split(",")):
            return float(value)
    return 0.0


def test_more_than_fits_is_429_with_a_time_to_come_back_and_the_rest_is_served(server):
    answers = []
    body = {"inputs": "bread", "parameters": {"max_new_tokens": 60, "adapter_id": "acme-copy"}}
    crowd = [threading.Thread(target=lambda: answers.append(post(server, "/generate", body))) for _ in range(64)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json() == {"error": "Model is overloaded", "error_type": "overloaded"}
            assert int(answer.headers["retry-after"]) >= 1
    assert counts[200] >= 40


def test_metrics_count_by_adapter_and_a_lost_client_frees_its_row(server):
    before = metric(server, "rmn_tokens_total", adapter="globex-copy")
    ask = {"inputs": "bread", "parameters": {"max_new_tokens": 5, "adapter_id": "globex-copy"}}
    written = post(server, "/generate", ask | {"parameters": ask["parameters"] | {"details": True}}).json()
    assert metric(server, "rmn_tokens_total", adapter="globex-copy") == before + written["details"]["generated_tokens"]
    long = {"inputs": "bread", "parameters": {"max_new_tokens": 240, "adapter_id": "spare", "ignore_eos_token": True}}
    with httpx2.stream("POST", server + "/generate_stream", json=long, timeout=10) as answer:
        next(answer.iter_lines())
    until = time.monotonic() + 20
    while metric(server, "rmn_running") and time.monotonic() < until:
        time.sleep(0.05)
    assert metric(server, "rmn_running") == 0
    assert metric(server, "rmn_requests_total", adapter="spare", outcome="cancelled") >= 1
    for name in ("rmn_adapter_bytes", "rmn_adapter_budget_bytes", "rmn_adapters_loaded", "rmn_adapter_loads_total"):
        assert metric(server, name) > 0

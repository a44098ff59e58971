"""The engine against PEFT and transformers: the same tokens, whoever else is in the batch."""

from __future__ import annotations

import json
import queue
import random
import time

import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from agents.inference.adapters import digest
from agents.inference.decoder import Cache, Decoder
from agents.inference.engine import AdapterStore, EndEvent, Engine, FairQueue, Limits, Request, TokenEvent
from agents.inference.errors import AdapterExists, BadAdapter, Overloaded, TimedOut, UnknownAdapter
from agents.inference.sampling import Chooser, Grammars, Sampling
from tests.agents.tiny import make_adapter, make_base, tokenizer

ADAPTERS = {
    "one": {"seed": 1, "rank": 4},
    "two": {"seed": 2, "rank": 8, "rslora": True},
    "some": {"seed": 3, "rank": 2, "targets": ["q_proj", "v_proj"]},
    "mlp": {"seed": 4, "rank": 16, "targets": ["gate_proj", "down_proj"]},
    "wide": {"seed": 5, "rank": 32},
}
PROMPTS = ["fresh bread", "Save on soap!", "a", "Two for one on tea, this week only, at every shop near you."]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def root(tmp_path_factory, base):
    root = tmp_path_factory.mktemp("adapters")
    for name, facts in ADAPTERS.items():
        make_adapter(root / name, base, **facts)
    return root


@pytest.fixture(scope="module")
def expected(base, root):
    """Greedy answers of PEFT, one adapter at a time."""
    words = tokenizer()

    def answers(model):
        out = {}
        for prompt in PROMPTS:
            ids = words(prompt, return_tensors="pt")
            with torch.inference_mode():
                whole = model.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
            new = whole[0, ids["input_ids"].shape[1] :].tolist()
            out[prompt] = new[: new.index(2) + 1] if 2 in new else new
        return out

    found = {None: answers(LlamaForCausalLM.from_pretrained(base).eval())}
    for name in ADAPTERS:
        plain = LlamaForCausalLM.from_pretrained(base)
        found[name] = answers(PeftModel.from_pretrained(plain, str(root / name)).eval())
    return found


def build(base, root, **limits):
    facts = Limits(**({"rows": 6, "total_tokens": 256, "input_tokens": 255, "prefill_tokens": 24} | limits))
    decoder = Decoder(base)
    store = AdapterStore(root, decoder, base, facts, require_manifest=False)
    return Engine(decoder, store, tokenizer(), facts)


@pytest.fixture
def engine(base, root):
    engine = build(base, root)
    engine.start()
    yield engine
    engine.stop()


class Sink(queue.Queue):
    def __call__(self, events):
        for event in events:
            self.put(event)

    def answer(self, timeout=20):
        tokens = []
        while True:
            event = self.get(timeout=timeout)
            if isinstance(event, EndEvent):
                if event.error:
                    raise event.error
                return [token.id for token in tokens]
            assert isinstance(event, TokenEvent)
            tokens.append(event)


def ask(engine, prompt, adapter=None, max_new=12, sampling=None, matcher=None, **more):
    ids = tokenizer()(prompt)["input_ids"]
    held = engine.store.acquire(adapter) if adapter else None
    request = Request(ids, max_new, Chooser(sampling or Sampling(), ids, matcher), Sink(), held, **more)
    try:
        engine.submit(request)
    except Overloaded:
        if held:
            engine.store.release(held)
        raise
    return request


def test_the_answers_are_those_of_peft_whoever_else_is_in_the_batch(engine, expected):
    draw = random.Random(0)
    wanted = [(name, prompt) for name in expected for prompt in PROMPTS] * 2
    draw.shuffle(wanted)
    requests = [ask(engine, prompt, name) for name, prompt in wanted]
    for (name, prompt), request in zip(wanted, requests):
        assert request.sink.answer() == expected[name][prompt], (name, prompt)


def test_memory_left_by_others_never_reaches_an_answer(base):
    decoder = Decoder(base)
    size = (6, decoder.kv_heads, 256, decoder.head)
    junk = [torch.full(size, float("nan")) for _ in range(8)]
    del junk  # the allocator hands these pages out again
    cache = Cache(decoder, 6, 256)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in (*cache.keys, *cache.values))


def test_adapters_and_base_differ_in_these_tests(expected):
    answers = {str(expected[name][PROMPTS[3]]) for name in expected}
    assert len(answers) == len(expected)


def test_a_prompt_scores_as_the_model_scores_it(engine, base):
    request = ask(engine, PROMPTS[3], wants_prompt_logprobs=True, max_new=1)  # longer than a turn takes in
    request.sink.answer()
    model = LlamaForCausalLM.from_pretrained(base)
    ids = torch.tensor([request.prompt])
    with torch.inference_mode():
        logs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).squeeze(1)
    assert request.prompt_logprobs[0] is None
    assert torch.allclose(torch.tensor(request.prompt_logprobs[1:]), logs, atol=1e-4)


def test_requests_beyond_the_limit_are_refused_with_a_time_to_come_back(base, root):
    engine = build(base, root, rows=1, waiting=2)
    ask(engine, "a")
    ask(engine, "b")
    with pytest.raises(Overloaded) as caught:
        ask(engine, "c", "one")
    assert caught.value.retry_after_s >= 1
    assert engine.store.loaded["one"].users == 0


def test_a_deadline_and_a_lost_client_free_their_rows(engine, expected):
    late = ask(engine, "a", deadline=time.monotonic() - 1)
    with pytest.raises(TimedOut):
        late.sink.answer()
    long = [ask(engine, "a", "one", max_new=200) for _ in range(3)]
    long[0].sink.get(timeout=20)
    for request in long:
        engine.cancel(request)
    fine = ask(engine, PROMPTS[0], "two")
    assert fine.sink.answer() == expected["two"][PROMPTS[0]]
    assert all(held.users == 0 for held in engine.store.loaded.values())


def test_one_busy_tenant_does_not_hold_up_another():
    queue = FairQueue()
    many = [Request([1] * 10, 1, None, None, tenant="busy") for _ in range(5)]
    for request in many:
        queue.push(request)
    first = queue.pop()
    queue.count("busy", 10)
    queue.push(Request([1], 1, None, None, tenant="quiet"))
    assert first.tenant == "busy"
    assert queue.pop().tenant in ("quiet", "busy")
    queue.count("busy", 10)
    assert "quiet" in {queue.pop().tenant for _ in range(2)}


def test_a_broken_batch_fails_its_requests_and_not_the_server(engine, expected, monkeypatch):
    working = engine._prefill

    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine, "_prefill", broken)
    with pytest.raises(Exception, match="out of memory"):
        ask(engine, "a", "one").sink.answer()
    monkeypatch.setattr(engine, "_prefill", working)
    assert ask(engine, PROMPTS[0], "one").sink.answer() == expected["one"][PROMPTS[0]]


# -- adapters


def test_a_name_that_is_not_there_is_an_error_and_never_the_base(engine):
    for name in ("nobody", "../one", "", "one/../two", "a" * 300):
        with pytest.raises(UnknownAdapter):
            engine.store.acquire(name)


def test_loading_twice_is_refused_and_unloading_withdraws_the_name(engine, expected):
    store = engine.store
    store.add("one", "one")
    with pytest.raises(AdapterExists):
        store.add("one", "one")
    running = ask(engine, PROMPTS[1], "one")
    store.remove("one")
    with pytest.raises(UnknownAdapter):
        store.acquire("one")
    assert running.sink.answer() == expected["one"][PROMPTS[1]]  # it keeps what it began with
    store.add("one", str(store.root / "one"))
    assert ask(engine, PROMPTS[1], "one").sink.answer() == expected["one"][PROMPTS[1]]


def test_only_folders_directly_under_the_root_are_loaded(engine, tmp_path, base):
    make_adapter(tmp_path / "outside", base)
    for path in (str(tmp_path / "outside"), "../outside", f"{engine.store.root}/../outside", "one/..", "/etc"):
        with pytest.raises(UnknownAdapter):
            engine.store.add("outside", path)
    with pytest.raises(BadAdapter, match="an adapter's name is its folder's"):
        engine.store.add("other", "one")


def test_a_folder_that_changes_under_its_name_is_not_served(base, tmp_path):
    make_adapter(tmp_path / "x", base, seed=1)
    engine = build(base, tmp_path)
    first = engine.store.acquire("x").digest
    engine.store.loaded.clear()
    make_adapter(tmp_path / "x", base, seed=2)
    assert digest(tmp_path / "x") != first
    with pytest.raises(BadAdapter, match="changed"):
        engine.store.acquire("x")


def test_the_least_recently_used_adapter_makes_room(base, root):
    engine = build(base, root)
    one = engine.store.acquire("one")
    engine.store.release(one)
    engine.store.limits = Limits(adapter_bytes=one.size + engine.store.acquire("some").size + 10)
    engine.store.release(engine.store.loaded["some"])
    engine.store.acquire("one")
    engine.store.acquire("some")
    with pytest.raises(UnknownAdapter, match="at most"):
        engine.store.acquire("wide")
    engine.store.release(engine.store.loaded["some"])
    engine.store.limits = Limits(adapter_bytes=one.size + 10)
    engine.store._make_room(0)
    assert list(engine.store.loaded) == ["one"]
    assert engine.store.evictions == 1


# -- sampling and grammar


def test_a_seed_gives_the_same_text_again(engine):
    sampling = Sampling(do_sample=True, temperature=0.9, top_p=0.95, top_k=50, seed=7)
    answers = [ask(engine, PROMPTS[0], "one", sampling=sampling).sink.answer() for _ in range(2)]
    assert answers[0] == answers[1]
    other = ask(engine, PROMPTS[0], "one", sampling=Sampling(temperature=3.0, seed=8)).sink.answer()
    assert other != answers[0]


@pytest.mark.parametrize("limits", [{"top_k": 1}, {"top_p": 1e-6}, {"typical_p": 1e-6, "temperature": 0.01}])
def test_a_sample_narrowed_to_one_is_greedy(engine, expected, limits):
    sampling = Sampling(do_sample=True, seed=1, **limits)
    assert ask(engine, PROMPTS[0], "one", sampling=sampling).sink.answer() == expected["one"][PROMPTS[0]]


def test_a_penalty_keeps_a_token_from_coming_again(engine):
    answer = ask(engine, "aaaa", max_new=30, sampling=Sampling(repetition_penalty=1e6)).sink.answer()
    assert len(set(answer)) == len(answer)


def test_a_grammar_holds_for_its_own_request_only(engine, expected, base):
    grammars = Grammars(tokenizer(), engine.decoder.vocabulary)
    regex = ask(engine, PROMPTS[0], "one", matcher=grammars.matcher("regex", "(yes|no)[0-9]{3}"))
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 10, "maximum": 99}, "s": {"enum": ["a", "b"]}},
        "required": ["n", "s"],
        "additionalProperties": False,
    }
    shaped = ask(engine, PROMPTS[1], "two", max_new=60, matcher=grammars.matcher("json", schema))
    free = ask(engine, PROMPTS[2], "some")
    regex.sink.answer(), shaped.sink.answer()
    assert regex.text[:2] in ("ye", "no")
    assert regex.text[-3:].isdigit()
    assert set(json.loads(shaped.text)) == {"n", "s"}
    assert free.sink.answer() == expected["some"][PROMPTS[2]]


LONG = "Write one headline for a shop that sells bread, tea and soap. Obey the rules of the network. "


def test_a_prompt_that_begins_as_another_is_not_read_twice_and_is_answered_the_same(base, root):
    """In any order, with other adapters between, while the first runs and after it ended."""
    plain, sharing = build(base, root, shared_tokens=0), build(base, root)
    asked = [(name, LONG + end) for end in ("Now for tea.", "Now for soap.", "") for name in (None, "one", "two")] * 2
    random.Random(1).shuffle(asked)
    answers = []
    for engine in (plain, sharing):
        engine.start()
        first = [ask(engine, prompt, name) for name, prompt in asked[:9]]
        found = [request.sink.answer() for request in first]
        found += [ask(engine, prompt, name).sink.answer() for name, prompt in asked[9:]]
        engine.stop()
        answers.append(found)
    assert answers[0] == answers[1]
    assert plain.shared == 0
    read = sum(len(tokenizer()(prompt)["input_ids"]) for _, prompt in asked)
    assert sharing.shared > 0.6 * read


def test_nothing_is_taken_over_from_another_tenant_or_from_other_weights(base, root):
    engine = build(base, root)
    engine.start()
    for tenant, name in (("a", None), ("b", None), ("a", "one"), ("b", "one"), ("a", "two")):
        ask(engine, LONG, name, tenant=tenant).sink.answer()
    engine.stop()
    assert engine.shared == 0


def test_a_prompt_whose_own_probabilities_are_asked_for_is_read_whole(base, root):
    engine = build(base, root)
    engine.start()
    ask(engine, LONG).sink.answer()
    scored = ask(engine, LONG, wants_prompt_logprobs=True)
    scored.sink.answer()
    engine.stop()
    assert engine.shared == 0
    assert len(scored.prompt_logprobs) == len(scored.prompt)


def test_rows_that_moved_share_what_they_hold_now(base, root):
    """Answers of many lengths end at all times, so rows move; what is taken over is still the right prompt's."""
    plain, sharing = build(base, root, shared_tokens=0, rows=3), build(base, root, rows=3)
    draw = random.Random(2)
    starts = [LONG, "Save on soap! " * 5, "Two for one on tea, this week only. " * 3]
    asked = [
        (draw.choice(starts) + str(number), draw.choice([None, "one"]), draw.randint(1, 12)) for number in range(60)
    ]
    answers = []
    for engine in (plain, sharing):
        engine.start()
        waiting = [ask(engine, prompt, name, max_new=new) for prompt, name, new in asked]
        answers.append([request.sink.answer() for request in waiting])
        engine.stop()
    assert answers[0] == answers[1]
    assert sharing.shared > 1000

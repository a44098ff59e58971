"""Our model server: TGI's wire protocol and OpenAI's chat, for one base model and many adapters.

    python -m agents.inference.server --model var/models/base --adapters var/adapters --port 8080

No Django. It trusts the network it stands in, as TGI and vLLM do: tenants never reach it, and who
may use which adapter is decided before a request gets here. An adapter that is not served is an
error; the base model never answers in its stead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from agents.inference.decoder import Decoder, LoadedAdapter
from agents.inference.engine import AdapterStore, EndEvent, Engine, Limits, Request, TokenEvent
from agents.inference.errors import (
    AdapterExists,
    BadAdapter,
    Cancelled,
    GenerationFailed,
    InferenceError,
    InvalidRequest,
    NotSupported,
    Overloaded,
    TimedOut,
    UnknownAdapter,
)
from agents.inference.sampling import Chooser, Grammars
from agents.inference.wire import (
    DEFAULT_NEW,
    MAX_BEST_OF,
    MAX_PROMPTS,
    MAX_STOPS,
    NO_TOOL,
    TOOL_PROMPT,
    Ask,
    BadBody,
    ChatAsk,
    ToolError,
    chat,
    completion,
    native,
)
from rmn.lib.errors import RmnError

VERSION = "3.3.6-rmn"
MAX_BODY = 2 * 2**20
BASE_NAMES = {"tgi", "dummy"}  # what clients send when they mean no adapter
log = logging.getLogger("agents.inference.server")


class Metrics:
    """Counts for Prometheus, by adapter."""

    def __init__(self, engine: Engine, store: AdapterStore) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("rmn_requests", "Requests", ["adapter", "outcome"], registry=registry)
        self.tokens = Counter("rmn_tokens", "Tokens written", ["adapter"], registry=registry)
        self.prompt = Counter("rmn_prompt_tokens", "Tokens read", ["adapter"], registry=registry)
        waits = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
        self.first = Histogram("rmn_first_token_seconds", "Request to first token", registry=registry, buckets=waits)
        self.wait = Histogram("rmn_queue_seconds", "Request to start", registry=registry, buckets=waits)
        for name, what, value in (
            ("rmn_running", "Sequences running", lambda: len(engine.running)),
            ("rmn_waiting", "Requests waiting", lambda: len(engine.queue)),
            ("rmn_tokens_per_second", "Lately", lambda: engine.speed),
            ("rmn_prompt_tokens_shared_total", "Tokens of prompts taken over, not read again", lambda: engine.shared),
            ("rmn_adapters_loaded", "Adapters in memory", lambda: len(store.loaded)),
            ("rmn_adapter_bytes", "Their weights", lambda: store.held_bytes),
            ("rmn_adapter_budget_bytes", "Room for weights", lambda: store.limits.adapter_bytes),
            # the alarm before the cliff: evictions that go on mean the working set does not fit
            ("rmn_adapter_evictions_total", "Adapters put out of memory", lambda: store.evictions),
            ("rmn_adapter_loads_total", "Adapters read into memory", lambda: store.loads),
        ):
            Gauge(name, what, registry=registry).set_function(value)

    def ended(self, request: Request, outcome: str) -> None:
        name = request.adapter.name if request.adapter else "base"
        self.requests.labels(name, outcome).inc()
        self.tokens.labels(name).inc(len(request.output))
        self.prompt.labels(name).inc(len(request.prompt))
        if request.first:
            self.first.observe(request.first - request.created)
        if request.started:
            self.wait.observe(request.started - request.created)


@dataclass
class Answer:
    """A finished generation."""

    request: Request
    tokens: list[TokenEvent]
    finish: str

    @property
    def mean_logprob(self) -> float:
        return sum(token.logprob for token in self.tokens) / max(len(self.tokens), 1)


class Service:
    """What the routes share: model, adapters, engine, tokenizer."""

    def __init__(self, model: Path, adapters: Path, limits: Limits, device: str, require_manifest: bool) -> None:
        from transformers import AutoTokenizer

        self.decoder = Decoder(model, device)
        if limits.total_tokens > self.decoder.longest:
            total = self.decoder.longest
            limits = replace(limits, total_tokens=total, input_tokens=min(limits.input_tokens, total - 1))
        self.limits = limits
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
        self.store = AdapterStore(adapters, self.decoder, model, limits, require_manifest)
        self.engine = Engine(self.decoder, self.store, self.tokenizer, limits)
        self.grammars = Grammars(self.tokenizer, self.decoder.vocabulary)
        self.metrics = Metrics(self.engine, self.store)
        self.model_id = self._model_id(model)
        self.created = int(time.time())
        self.healthy = False

    @staticmethod
    def _model_id(model: Path) -> str:
        try:
            return str(json.loads((model / "manifest.json").read_text(encoding="utf-8"))["model_id"])
        except (OSError, ValueError, KeyError):
            return model.name

    def start(self) -> None:
        self.store.scan()
        for name, why in self.store.bad.items():
            log.warning("adapter %s is not served: %s", name, why)
        self.engine.start()
        self.healthy = True

    def means_base(self, name: str | None) -> bool:
        return not name or name in BASE_NAMES or name == self.model_id

    async def prepare(self, ask: Ask, http: HttpRequest) -> Callable[[], Request]:
        """Check, tokenize and compile; returns what makes a request of it.

        Raises:
            InferenceError: what is wrong with it.
        """
        if not ask.inputs:
            raise InvalidRequest("`inputs` cannot be empty")
        prompt = await asyncio.to_thread(self._tokens, ask)
        room = self.limits.total_tokens - len(prompt)
        max_new = ask.max_new if ask.max_new is not None else max(1, min(DEFAULT_NEW, room))
        if len(prompt) > self.limits.input_tokens:
            raise InvalidRequest(
                f"`inputs` must have less than {self.limits.input_tokens} tokens. Given: {len(prompt)}"
            )
        if max_new > room:
            raise InvalidRequest(
                f"`inputs` tokens + `max_new_tokens` must be <= {self.limits.total_tokens}. "
                f"Given: {len(prompt)} `inputs` tokens and {max_new} `max_new_tokens`"
            )
        grammar = ask.grammar
        template = await asyncio.to_thread(self.grammars.matcher, *grammar) if grammar else None
        timeout = _seconds(http.headers.get("x-timeout-s"), self.limits.request_s)
        adapter_name = None if self.means_base(ask.adapter) else ask.adapter
        tenant = http.headers.get("x-tenant") or adapter_name or "-"
        loop = asyncio.get_running_loop()

        def make() -> Request:
            adapter = self.store.acquire(adapter_name) if adapter_name else None
            matcher = template.deep_copy() if template is not None else None
            return Request(
                prompt=prompt,
                max_new=max_new,
                chooser=Chooser(ask.sampling, prompt, matcher),
                sink=_Sink(loop),
                adapter=adapter,
                stop=ask.stop,
                top_n=ask.top_n,
                wants_prompt_logprobs=ask.decoder_input_details,
                ignore_eos=ask.ignore_eos,
                tenant=tenant[:200],
                deadline=time.monotonic() + timeout,
            )

        return make

    async def begin(self, make: Callable[[], Request]) -> Request:
        """Queue the request."""
        request = await asyncio.to_thread(make)
        try:
            self.engine.submit(request)
        except Overloaded:
            if request.adapter:
                self.store.release(request.adapter)
            self.metrics.ended(request, "overloaded")
            raise
        return request

    async def events(self, request: Request) -> AsyncIterator[TokenEvent]:
        """Tokens as they come; leaving early cancels the request."""
        outcome = "cancelled"
        try:
            while True:
                event = await request.sink.queue.get()  # type: ignore[attr-defined]
                if isinstance(event, EndEvent):
                    if event.error is not None:
                        outcome = "timeout" if isinstance(event.error, TimedOut) else "error"
                        raise event.error
                    outcome = event.finish
                    request.finish = event.finish
                    return
                yield event
        finally:
            if not request.done:
                self.engine.cancel(request)
            self.metrics.ended(request, outcome)

    async def whole(self, http: HttpRequest, make: Callable[[], Request]) -> Answer:
        """The finished answer; a client that goes away stops the work."""
        request = await self.begin(make)

        async def collect() -> list[TokenEvent]:
            return [event async for event in self.events(request)]

        work = asyncio.ensure_future(collect())
        gone = asyncio.ensure_future(_disconnected(http))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Cancelled("the client went away")
            return Answer(request, work.result(), request.finish)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    def _tokens(self, ask: Ask) -> list[int]:
        if len(ask.inputs) > 64 * self.limits.total_tokens and not ask.truncate:
            raise InvalidRequest(f"`inputs` must have less than {self.limits.input_tokens} tokens. Given: far more")
        ids = self.tokenizer(ask.inputs, add_special_tokens=True)["input_ids"]
        if ask.truncate:
            ids = ids[-min(ask.truncate, self.limits.input_tokens) :]
        return list(ids) or [self.tokenizer.bos_token_id or 0]

    def render(self, asked: ChatAsk) -> str:
        """The prompt that the model's chat template makes of the messages."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise TemplateError("Template error: template not found")
        messages = [dict(message) for message in asked.messages]
        if asked.tools:
            tools = json.dumps(asked.tools, ensure_ascii=False)
            messages[-1]["content"] += f"\n---\n{tools}\n{TOOL_PROMPT}"
        try:
            return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # noqa: BLE001  # a template may raise anything
            raise TemplateError(f"Template error: {str(error)[:200]}") from None


class TemplateError(InvalidRequest):
    """The chat template refused the messages."""


class _Sink:
    """Carries events from the engine's thread to the request's own queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.queue: asyncio.Queue[TokenEvent | EndEvent] = asyncio.Queue()

    def __call__(self, events: list[TokenEvent | EndEvent]) -> None:
        try:
            for event in events:
                self.loop.call_soon_threadsafe(self.queue.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody listens any more
            pass


async def _disconnected(http: HttpRequest) -> None:
    while not await http.is_disconnected():
        await asyncio.sleep(0.1)


def _seconds(text: str | None, default: float) -> float:
    try:
        value = float(text) if text else default
    except ValueError:
        raise InvalidRequest("x-timeout-s must be a number of seconds") from None
    if not value > 0 or not math.isfinite(value):
        raise InvalidRequest("x-timeout-s must be strictly positive")
    return min(value, default)


# -- bodies and errors


async def _body(http: HttpRequest) -> Any:
    length = http.headers.get("content-length", "0")
    if length.isdigit() and int(length) > MAX_BODY:
        raise BadBody("Failed to buffer the request body: length limit exceeded", 413)
    kind = http.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise BadBody("Expected request with `Content-Type: application/json`", 415)
    raw = bytearray()
    async for chunk in http.stream():
        raw += chunk
        if len(raw) > MAX_BODY:
            raise BadBody("Failed to buffer the request body: length limit exceeded", 413)
    try:
        return json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadBody(f"Failed to parse the request body as JSON: {str(error)[:120]}", 400) from None


def _no_number(word: str) -> Any:
    raise ValueError(f"expected value, found {word}")


def _status(error: InferenceError, chat_route: bool) -> tuple[int, str, str]:
    """HTTP status, TGI's error type, and the message."""
    text = str(error)
    for kind, status, name in (
        (TemplateError, 422, "template_error"),
        (ToolError, 422, "tool_error"),
        (InvalidRequest, 422, "validation"),
        (UnknownAdapter, 404 if chat_route else 422, "validation"),
        (BadAdapter, 422, "validation"),
        (Overloaded, 429, "overloaded"),
        (TimedOut, 504, "timeout"),
        (GenerationFailed, 424, "generation"),
        (Cancelled, 499, "cancelled"),
    ):
        if isinstance(error, kind):
            if name == "validation":
                text = f"Input validation error: {text}"
            return status, name, text
    return 500, "unknown", text


def _error_body(error: InferenceError, chat_route: bool) -> dict[str, Any]:
    _, kind, text = _status(error, chat_route)
    if chat_route and isinstance(error, UnknownAdapter):  # as vLLM and OpenAI say it
        return {
            "object": "error",
            "message": str(error),
            "type": "NotFoundError",
            "code": 404,
            "error": {"message": str(error), "type": "NotFoundError", "code": 404},
        }
    return {"error": text, "error_type": kind}


def _error(error: InferenceError, chat_route: bool = False) -> Response:
    if isinstance(error, BadBody):
        text = str(error)
        if error.status == 422:
            text = f"Failed to deserialize the JSON body into the target type: {text}"
        return PlainTextResponse(text, error.status)
    headers = {}
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return JSONResponse(_error_body(error, chat_route), _status(error, chat_route)[0], headers)


Handler = Callable[["Routes", HttpRequest], Awaitable[Response]]


def _foreseen(chat_route: bool) -> Callable[[Handler], Handler]:
    def wrap(handler: Handler) -> Handler:
        async def handle(self: Routes, http: HttpRequest) -> Response:
            try:
                return await handler(self, http)
            except InferenceError as error:
                return _error(error, chat_route)
            except ClientDisconnect:
                return _error(Cancelled("the client went away"))

        return handle

    return wrap


# -- routes


class Routes:
    """The protocol's doors."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def all(self) -> list[Route]:
        get, post = ["GET"], ["POST"]
        return [
            Route("/", self.compat, methods=post),
            Route("/", self.health, methods=get),
            Route("/generate", self.generate, methods=post),
            Route("/generate_stream", self.generate_stream, methods=post),
            Route("/invocations", self.invocations, methods=post),
            Route("/tokenize", self.tokenize, methods=post),
            Route("/chat_tokenize", self.chat_tokenize, methods=post),
            Route("/info", self.info, methods=get),
            Route("/health", self.health, methods=get),
            Route("/ping", self.health, methods=get),
            Route("/metrics", self.metrics, methods=get),
            Route("/v1/models", self.models, methods=get),
            Route("/v1/chat/completions", self.chat, methods=post),
            Route("/v1/completions", self.completions, methods=post),
            Route("/v1/load_lora_adapter", self.load, methods=post),
            Route("/v1/unload_lora_adapter", self.unload, methods=post),
        ]

    async def health(self, _: HttpRequest) -> Response:
        if self.service.healthy and self.service.engine.thread.is_alive():
            return Response(status_code=200)
        return JSONResponse({"error": "unhealthy", "error_type": "healthcheck"}, 503)

    async def info(self, _: HttpRequest) -> Response:
        service, limits = self.service, self.service.limits
        return JSONResponse(
            {
                "model_id": service.model_id,
                "model_sha": service.store.base_digest,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": limits.waiting,
                "max_best_of": MAX_BEST_OF,
                "max_stop_sequences": MAX_STOPS,
                "max_input_tokens": limits.input_tokens,
                "max_total_tokens": limits.total_tokens,
                "validation_workers": 1,
                "max_client_batch_size": MAX_PROMPTS,
                "router": "agents.inference.server",
                "version": VERSION,
                "sha": None,
                "docker_label": None,
                "template_digest": service.store.template_digest,
                "dtype": str(service.decoder.dtype).removeprefix("torch."),
                "device": service.decoder.device,
            }
        )

    async def metrics(self, _: HttpRequest) -> Response:
        return Response(generate_latest(self.service.metrics.registry), media_type="text/plain; version=0.0.4")

    async def models(self, _: HttpRequest) -> Response:
        service = self.service

        def entry(name: str, **more: Any) -> dict[str, Any]:
            return {"id": name, "object": "model", "created": service.created, "owned_by": "rmn"} | more

        store = service.store
        with store.lock:
            adapters = [
                entry(
                    name,
                    root=str(info.folder),
                    parent=service.model_id,
                    digest=info.digest,
                    rank=info.rank,
                    verified=info.verified,
                    loaded=name in store.loaded,
                    pinned=name in store.pinned,
                )
                for name, info in sorted(store.known.items())
            ]
            refused = dict(store.bad)
        base = entry(service.model_id, root=service.model_id, parent=None, max_model_len=service.limits.total_tokens)
        return JSONResponse({"object": "list", "data": [base, *adapters], "refused": refused})

    @_foreseen(chat_route=False)
    async def load(self, http: HttpRequest) -> Response:
        """As vLLM has it; ``expect`` may hold manifest keys that must match (digest, brand, task)."""
        body = await _body(http)
        name, path = _texts(body, "lora_name", "lora_path")
        if not name or not path:
            return _vllm_error(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
        if body.get("load_inplace"):
            return _vllm_error(400, "InvalidUserInput", "load_inplace is not served: a new version has a new name")
        expect = body.get("expect") or {}
        if not isinstance(expect, dict) or not all(isinstance(value, str) for value in expect.values()):
            return _vllm_error(400, "InvalidUserInput", "'expect' must be an object of strings")
        if self.service.means_base(name):
            return _vllm_error(400, "InvalidUserInput", f"{name!r} names the base model")
        try:
            adapter = await asyncio.to_thread(self.service.store.add, name, path, expect)
        except (BadAdapter, AdapterExists) as error:
            return _vllm_error(400, "InvalidUserInput", str(error))
        except UnknownAdapter as error:
            return _vllm_error(404, "NotFoundError", str(error))
        return PlainTextResponse(
            f"Success: LoRA adapter '{name}' added successfully.", headers={"x-adapter-digest": adapter.digest}
        )

    @_foreseen(chat_route=False)
    async def unload(self, http: HttpRequest) -> Response:
        (name,) = _texts(await _body(http), "lora_name")
        if not name:
            return _vllm_error(400, "InvalidUserInput", "'lora_name' needs to be provided to unload a LoRA adapter.")
        try:
            self.service.store.remove(name)
        except UnknownAdapter as error:
            return _vllm_error(404, "NotFoundError", str(error))
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    @_foreseen(chat_route=False)
    async def tokenize(self, http: HttpRequest) -> Response:
        return JSONResponse(await self._words(native(await _body(http), stream=False).inputs))

    @_foreseen(chat_route=False)
    async def chat_tokenize(self, http: HttpRequest) -> Response:
        """The prompt that the template makes of a chat, and its tokens."""
        text = await asyncio.to_thread(self.service.render, chat(await _body(http)))
        return JSONResponse({"tokenize_response": await self._words(text), "templated_text": text})

    async def _words(self, text: str) -> list[dict[str, Any]]:
        encoded = await asyncio.to_thread(
            self.service.tokenizer, text, add_special_tokens=True, return_offsets_mapping=True
        )
        return [
            {"id": number, "text": text[start:stop], "start": start, "stop": stop}
            for number, (start, stop) in zip(encoded["input_ids"], encoded["offset_mapping"])
        ]

    @_foreseen(chat_route=False)
    async def invocations(self, http: HttpRequest) -> Response:
        """SageMaker's one door: what the body is decides who answers."""
        body = await _body(http)
        if isinstance(body, dict) and "messages" in body:
            return await self._chat(http, body)
        if isinstance(body, dict) and "prompt" in body:
            return await self._completions(http, body)
        if isinstance(body, dict) and body.get("stream") is True:
            return await self._stream(http, native(body, stream=True))
        return await self._whole(http, native(body, stream=False), as_list=False)

    @_foreseen(chat_route=False)
    async def compat(self, http: HttpRequest) -> Response:
        """POST /: the body says whether to stream; a whole answer is a list of one."""
        body = await _body(http)
        if isinstance(body, dict) and body.get("stream") is True:
            return await self._stream(http, native(body, stream=True))
        return await self._whole(http, native(body, stream=False), as_list=True)

    @_foreseen(chat_route=False)
    async def generate(self, http: HttpRequest) -> Response:
        return await self._whole(http, native(await _body(http), stream=False), as_list=False)

    @_foreseen(chat_route=False)
    async def generate_stream(self, http: HttpRequest) -> Response:
        return await self._stream(http, native(await _body(http), stream=True))

    async def _whole(self, http: HttpRequest, ask: Ask, as_list: bool) -> Response:
        make = await self.service.prepare(ask, http)
        answers = await asyncio.gather(*(self.service.whole(http, make) for _ in range(ask.best_of)))
        answers = sorted(answers, key=lambda answer: answer.mean_logprob, reverse=True)
        prefix = ask.inputs if ask.return_full_text else ""
        reply: dict[str, Any] = {"generated_text": prefix + answers[0].request.text}
        if ask.details or ask.decoder_input_details:
            reply["details"] = self._details(answers[0], ask)
            if len(answers) > 1:
                reply["details"]["best_of_sequences"] = [
                    self._details(answer, ask) | {"generated_text": prefix + answer.request.text}
                    for answer in answers[1:]
                ]
        return JSONResponse([reply] if as_list else reply, headers=_headers(answers[0].request))

    async def _stream(self, http: HttpRequest, ask: Ask) -> Response:
        make = await self.service.prepare(ask, http)
        request = await self.service.begin(make)
        prefix = ask.inputs if ask.return_full_text else ""

        async def lines() -> AsyncIterator[str]:
            held: TokenEvent | None = None
            index = 0
            try:
                async for event in self.service.events(request):
                    if held is not None:
                        yield _sse(self._stream_token(index, held, ask))
                    held, index = event, index + 1
            except InferenceError as error:
                yield _sse(_error_body(error, False))
                return
            if held is not None:  # the last token carries the whole text
                yield _sse(
                    self._stream_token(index, held, ask)
                    | {
                        "generated_text": prefix + request.text,
                        "details": {
                            "finish_reason": request.finish,
                            "generated_tokens": len(request.output),
                            "seed": request.chooser.seed,
                            "input_length": len(request.prompt),
                        },
                    }
                )

        return StreamingResponse(lines(), media_type="text/event-stream", headers=_stream_headers(request))

    def _stream_token(self, index: int, event: TokenEvent, ask: Ask) -> dict[str, Any]:
        token: dict[str, Any] = {"index": index, "token": _token(event), "generated_text": None, "details": None}
        if ask.top_n:
            token["top_tokens"] = _top(event)
        return token

    def _details(self, answer: Answer, ask: Ask) -> dict[str, Any]:
        request = answer.request
        details: dict[str, Any] = {
            "finish_reason": answer.finish,
            "generated_tokens": len(request.output),
            "seed": request.chooser.seed,
            "prefill": [],
            "tokens": [_token(event) for event in answer.tokens],
        }
        if ask.decoder_input_details:
            words = self.service.tokenizer.batch_decode([[number] for number in request.prompt])
            details["prefill"] = [
                {"id": number, "text": text, "logprob": logprob}
                for number, text, logprob in zip(request.prompt, words, request.prompt_logprobs)
            ]
        if ask.top_n:
            details["top_tokens"] = [_top(event) for event in answer.tokens]
        return details

    # -- OpenAI's routes

    @_foreseen(chat_route=True)
    async def chat(self, http: HttpRequest) -> Response:
        return await self._chat(http, await _body(http))

    async def _chat(self, http: HttpRequest, body: Any) -> Response:
        asked = chat(body)
        self._known(asked)
        inputs = await asyncio.to_thread(self.service.render, asked)
        asked = replace(asked, ask=replace(asked.ask, inputs=inputs))
        make = await self.service.prepare(asked.ask, http)
        if asked.stream:
            return await self._openai_stream(make, asked, "chat.completion.chunk")
        answers = await asyncio.gather(*(self.service.whole(http, make) for _ in range(asked.choices)))
        choices = []
        for number, answer in enumerate(answers):
            message, finish = _message(_shown(answer.request, asked), answer.finish, asked)
            choice: dict[str, Any] = {"index": number, "message": message, "finish_reason": finish, "logprobs": None}
            if asked.logprobs:
                choice["logprobs"] = {"content": [_openai_token(event) for event in answer.tokens]}
            choices.append(choice)
        first = answers[0].request
        reply = self._envelope("chat.completion", first) | {
            "choices": choices,
            "usage": _usage(first.prompt, sum(len(answer.request.output) for answer in answers)),
        }
        return JSONResponse(reply, headers=_headers(first))

    def _known(self, asked: ChatAsk) -> None:
        """The model of a chat must be known before its messages are looked at."""
        name = asked.ask.adapter
        if not self.service.means_base(name):
            assert name is not None  # noqa: S101  # means_base says so
            self.service.store.release(self.service.store.acquire(name))

    def _envelope(self, kind: str, request: Request) -> dict[str, Any]:
        adapter: LoadedAdapter | None = request.adapter
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": adapter.name if adapter else self.service.model_id,
            "system_fingerprint": f"{VERSION}-{adapter.digest[:16] if adapter else 'base'}",
        }

    async def _openai_stream(self, make: Callable[[], Request], asked: ChatAsk, kind: str) -> Response:
        request = await self.service.begin(make)
        envelope = self._envelope(kind, request)

        def chunk(said: dict[str, Any], finish: str | None, logprobs: Any = None) -> str:
            body: dict[str, Any] = {"delta": said, "finish_reason": finish}
            if kind == "text_completion":  # in TGI's contract the end of a piece of text is no null
                body = {"text": said.get("content", ""), "finish_reason": finish or ""}
            return _sse(envelope | {"choices": [{"index": 0, **body, "logprobs": logprobs}]})

        async def lines() -> AsyncIterator[str]:
            sent = 0
            tokens = []
            try:
                async for event in self.service.events(request):
                    tokens.append(event)
                    if asked.tools:  # a call is sent whole: half a JSON is of no use to anyone
                        continue
                    # what may yet turn out to be a stop sequence is held back
                    safe = _safe_length(request.text, asked.ask.stop)
                    if safe > sent:
                        logs = {"content": [_openai_token(event) for event in tokens]} if asked.logprobs else None
                        yield chunk({"role": "assistant", "content": request.text[sent:safe]}, None, logs)
                        sent, tokens = safe, []
            except InferenceError as error:
                status = _status(error, True)
                yield _sse({"error": {"message": status[2], "http_status_code": status[0]}})
                return
            text = _shown(request, asked)
            message, finish = _message(text, request.finish, asked)
            if asked.tools:
                delta = {key: value for key, value in message.items() if value is not None}
                for number, call in enumerate(delta.get("tool_calls", [])):
                    call["index"] = number
                yield chunk(delta, None)
            elif len(text) > sent:
                yield chunk({"role": "assistant", "content": text[sent:]}, None)
            yield chunk({"role": "assistant", "content": ""}, finish)
            if asked.include_usage:
                yield _sse(envelope | {"choices": [], "usage": _usage(request.prompt, len(request.output))})
            yield "data: [DONE]\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream", headers=_stream_headers(request))

    @_foreseen(chat_route=True)
    async def completions(self, http: HttpRequest) -> Response:
        """Plain text; with ``echo`` and ``logprobs`` it scores a text, as vLLM does."""
        return await self._completions(http, await _body(http))

    async def _completions(self, http: HttpRequest, body: Any) -> Response:
        asked = completion(body)
        self._known(asked)
        ask = replace(asked.ask, decoder_input_details=asked.echo and asked.logprobs)
        make = await self.service.prepare(ask, http)
        if asked.stream:
            return await self._openai_stream(make, asked, "text_completion")
        answer = await self.service.whole(http, make)
        request = answer.request
        choice: dict[str, Any] = {
            "index": 0,
            "text": (ask.inputs if asked.echo else "") + _shown(request, asked),
            "finish_reason": _finish_word(answer.finish),
            "logprobs": None,
        }
        if asked.logprobs:
            words = self.service.tokenizer.batch_decode([[number] for number in request.prompt]) if asked.echo else []
            choice["logprobs"] = {
                "tokens": words + [event.text for event in answer.tokens],
                "token_logprobs": (request.prompt_logprobs if asked.echo else [])
                + [event.logprob for event in answer.tokens],
                "top_logprobs": None,
                "text_offset": None,
            }
        reply = self._envelope("text_completion", request)
        return JSONResponse(
            reply | {"choices": [choice], "usage": _usage(request.prompt, len(request.output))},
            headers=_headers(request),
        )


def _texts(body: Any, *keys: str) -> list[str]:
    if not isinstance(body, dict):
        raise BadBody("invalid type: expected an object")
    values = [body.get(key) or "" for key in keys]
    if not all(isinstance(value, str) for value in values):
        raise BadBody(f"{', '.join(keys)}: invalid type: expected a string")
    return values


def _vllm_error(status: int, kind: str, message: str) -> Response:
    error = {"message": message, "type": kind, "param": None, "code": status}
    return JSONResponse({"object": "error", **error, "error": error}, status)


def _sse(value: dict[str, Any]) -> str:
    return f"data:{json.dumps(value, ensure_ascii=False)}\n\n"


def _token(event: TokenEvent) -> dict[str, Any]:
    return {"id": event.id, "text": event.text, "logprob": event.logprob, "special": event.special}


def _top(event: TokenEvent) -> list[dict[str, Any]]:
    return [{"id": number, "text": text, "logprob": value, "special": False} for number, text, value in event.top]


def _openai_token(event: TokenEvent) -> dict[str, Any]:
    top = [{"token": text, "logprob": value} for _, text, value in event.top]
    return {"token": event.text, "logprob": event.logprob, "top_logprobs": top}


def _usage(prompt: list[int], written: int) -> dict[str, int]:
    return {"prompt_tokens": len(prompt), "completion_tokens": written, "total_tokens": len(prompt) + written}


def _finish_word(finish: str) -> str:
    return "length" if finish == "length" else "stop"


def _shown(request: Request, asked: ChatAsk) -> str:
    """The text without the stop sequence that ended it (OpenAI's way; TGI's own routes keep it)."""
    places = [request.text.find(stop) for stop in asked.ask.stop]
    cut = [place for place in places if place >= 0]
    return request.text[: min(cut)] if cut else request.text


def _safe_length(text: str, stops: tuple[str, ...]) -> int:
    safe = len(text)
    for stop in stops:
        found = text.find(stop)
        if found >= 0:
            safe = min(safe, found)
        for length in range(1, len(stop)):
            if text.endswith(stop[:length]):
                safe = min(safe, len(text) - length)
    return safe


def _message(text: str, finish: str, asked: ChatAsk) -> tuple[dict[str, Any], str]:
    """The assistant's message: words, or a tool call where tools were offered."""
    if asked.tools:
        try:
            call = json.loads(text)
            name, arguments = call["name"], call["arguments"]
        except (ValueError, KeyError, TypeError):
            return {"role": "assistant", "content": text}, _finish_word(finish)
        if name == NO_TOOL:
            return {"role": "assistant", "content": str(arguments.get("response", ""))}, "stop"
        function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False), "description": None}
        calls = [{"id": f"call_{uuid.uuid4().hex[:12]}", "type": "function", "function": function}]
        return {"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"
    return {"role": "assistant", "content": text}, _finish_word(finish)


def _stream_headers(request: Request) -> dict[str, str]:
    headers = {"x-compute-type": "cpu", "cache-control": "no-cache", "x-accel-buffering": "no"}
    return headers | _adapter_headers(request)


def _adapter_headers(request: Request) -> dict[str, str]:
    adapter = request.adapter
    return {"x-adapter-id": adapter.name, "x-adapter-digest": adapter.digest} if adapter else {}


def _headers(request: Request) -> dict[str, str]:
    total, queue = request.ended - request.created, request.started - request.created
    work = request.ended - request.started
    written = max(len(request.output), 1)
    milliseconds = {
        "x-total-time": total,
        "x-queue-time": queue,
        "x-inference-time": work,
        "x-validation-time": 0.0,
        "x-time-per-token": work / written,
    }
    return {
        "x-compute-type": "cpu",
        "x-compute-time": f"{work:.3f}",
        "x-compute-characters": str(len(request.text)),
        "x-prompt-tokens": str(len(request.prompt)),
        "x-generated-tokens": str(len(request.output)),
        **{name: str(round(value * 1000)) for name, value in milliseconds.items()},
        **_adapter_headers(request),
    }


def make_app(service: Service) -> Starlette:
    """The web application over a service."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        service.healthy = False
        await asyncio.to_thread(service.engine.stop)

    refusals: dict[Any, Any] = {404: _nothing, 405: _nothing}
    return Starlette(routes=Routes(service).all(), lifespan=lifespan, exception_handlers=refusals)


async def _nothing(_: HttpRequest, error: Exception) -> Response:
    """A route or a method that is not there: TGI's framework answers without a body."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for its statuses alone
    return Response(status_code=error.status_code, headers=error.headers)


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit 0 after a signal, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m agents.inference.server", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="model folder: config.json, safetensors, tokenizer")
    parser.add_argument("--adapters", required=True, type=Path, help="folder of adapter folders; their names are ids")
    parser.add_argument("--host", default="127.0.0.1", help="never a public one: nobody is asked who they are")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 leaves it to torch")
    parser.add_argument("--require-manifest", action="store_true", help="refuse adapters that nothing vouches for")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent process does")
    usual = Limits()
    parser.add_argument("--max-batch", type=int, default=usual.rows, help="sequences that run together")
    parser.add_argument("--max-concurrent-requests", type=int, default=usual.waiting)
    parser.add_argument("--max-input-tokens", type=int, default=0, help="default: one less than the total")
    parser.add_argument("--max-total-tokens", type=int, default=usual.total_tokens)
    parser.add_argument("--max-prefill-tokens", type=int, default=usual.prefill_tokens, help="of prompts, a turn")
    parser.add_argument("--adapter-megabytes", type=int, default=usual.adapter_bytes // 2**20)
    parser.add_argument("--max-lora-rank", type=int, default=usual.max_rank)
    parser.add_argument("--max-request-seconds", type=float, default=usual.request_s)
    options = parser.parse_args(arguments)
    for name in ("max_batch", "max_concurrent_requests", "max_total_tokens", "max_prefill_tokens", "adapter_megabytes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: at least 1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    limits = Limits(
        rows=options.max_batch,
        waiting=options.max_concurrent_requests,
        input_tokens=options.max_input_tokens or max(1, options.max_total_tokens - 1),
        total_tokens=options.max_total_tokens,
        prefill_tokens=options.max_prefill_tokens,
        adapter_bytes=options.adapter_megabytes * 2**20,
        max_rank=options.max_lora_rank,
        request_s=options.max_request_seconds,
    )
    try:
        import torch
        import uvicorn

        if options.threads:
            torch.set_num_threads(options.threads)
        device = options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if not (options.model / "config.json").is_file():
            raise NotSupported(f"{options.model}: no model here (config.json); run 'make install' or set --model")
        service = Service(options.model, options.adapters, limits, device, options.require_manifest)
    except (RmnError, OSError, ValueError, ImportError) as error:
        sys.stderr.write(f"server: {' '.join(str(error).split())[:400]}\n")
        return 2
    config = uvicorn.Config(
        make_app(service),
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=3,
        timeout_keep_alive=30,
    )
    server = uvicorn.Server(config)
    if options.until_stdin_closes:
        threading.Thread(target=_watch_parent, args=(server,), daemon=True).start()
    server.run()
    return 0 if server.started else 2


def _watch_parent(server: Any) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    server.should_exit = True


if __name__ == "__main__":
    sys.exit(main())

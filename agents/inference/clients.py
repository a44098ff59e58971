"""Drivers: TGI (native routes, by the hub's client library) and OpenAI-style servers (vLLM, ours).

Both retry what may pass (with jitter, within one deadline), keep a pool of connections, stop asking
a server that keeps failing, and check structured answers again on arrival. vLLM is asked without
the hub's library, which rewrites ``response_format`` into TGI's alias.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import httpx2

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read once: nothing is told to anybody outside
from huggingface_hub import InferenceClient as HubClient
from huggingface_hub.errors import (
    GenerationError,
    HfHubHTTPError,
    IncompleteGenerationError,
    InferenceTimeoutError,
    OfflineModeIsEnabled,
    OverloadedError,
    UnknownError,
    ValidationError,
)

from agents.inference.errors import (
    AdapterExists,
    BadAdapter,
    CircuitOpen,
    GenerationFailed,
    InferenceError,
    InvalidOutput,
    InvalidRequest,
    NotSupported,
    Overloaded,
    TimedOut,
    UnknownAdapter,
    Unreachable,
)
from agents.inference.types import InferenceClient, Question, Reply, ServedAdapter

T = TypeVar("T")


class Breaker:
    """Refuses calls for a while after several failures in a row, then lets one through to see."""

    def __init__(self, failures: int = 5, rest_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.rest_s, self.clock = failures, rest_s, clock
        self.failures, self.opened = 0, 0.0
        self.lock = threading.Lock()

    def check(self, url: str) -> None:
        """Raises CircuitOpen while the server has its rest."""
        with self.lock:
            if self.failures >= self.limit:
                left = self.opened + self.rest_s - self.clock()
                if left > 0:
                    raise CircuitOpen(f"{url} failed {self.failures} times in a row; asked again in {left:.0f} s")
                self.opened = self.clock()  # one call goes through; others wait for its outcome

    def note(self, *, worked: bool) -> None:
        with self.lock:
            self.failures = 0 if worked else self.failures + 1
            if self.failures >= self.limit:
                self.opened = self.clock()


_breakers: dict[str, Breaker] = {}  # one a server, however many clients speak to it


class Driver(ABC):
    """What both drivers share: retries, breaker, and the routes outside of generation."""

    def __init__(self, url: str, timeout_s: float = 60.0, tries: int = 3, breaker: Breaker | None = None) -> None:
        """A client of one server.

        Args:
            url: of the server, without ``/v1``.
            timeout_s: for one call with all its retries.
            tries: how often a call that may pass is tried.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout_s, self.tries = timeout_s, tries
        self.breaker = breaker or _breakers.setdefault(self.url, Breaker())
        self.http = httpx2.Client(
            timeout=httpx2.Timeout(timeout_s, connect=min(5.0, timeout_s)),
            limits=httpx2.Limits(max_connections=64, max_keepalive_connections=16),
        )

    def close(self) -> None:
        self.http.close()

    def is_healthy(self) -> bool:
        try:
            return self.http.get(self.url + "/health", timeout=3.0).status_code == 200
        except httpx2.HTTPError:
            return False

    def adapters(self) -> list[ServedAdapter]:
        return [
            ServedAdapter(str(entry["id"]), str(entry.get("digest") or ""))
            for entry in self._models()
            if entry.get("parent")
        ]

    def load(self, name: str, folder: str, expect: Mapping[str, str] | None = None) -> None:
        body: dict[str, Any] = {"lora_name": name, "lora_path": folder}
        if expect:
            body["expect"] = dict(expect)
        with self._spoken():
            answer = self.http.post(self.url + "/v1/load_lora_adapter", json=body)
        if answer.status_code == 200:
            return
        said = _message(answer)
        if answer.status_code in (404, 405) and "detail" not in said and not answer.text.startswith("{"):
            raise NotSupported(
                f"{self.url} loads adapters only when it starts: restart it with {name} in LORA_ADAPTERS"
            )
        if answer.status_code == 400 and "already" in said:
            raise AdapterExists(said)
        if answer.status_code == 404:
            raise UnknownAdapter(said)
        if answer.status_code in (400, 422):
            raise BadAdapter(said)
        raise self._error(answer.status_code, said, answer.headers)

    def unload(self, name: str) -> None:
        with self._spoken():
            answer = self.http.post(self.url + "/v1/unload_lora_adapter", json={"lora_name": name})
        if answer.status_code in (404, 405) and not answer.text.startswith("{"):
            raise NotSupported(f"{self.url} unloads adapters only by a restart")
        if answer.status_code in (400, 404):
            raise UnknownAdapter(_message(answer))
        if answer.status_code != 200:
            raise self._error(answer.status_code, _message(answer), answer.headers)

    def _models(self) -> list[dict[str, Any]]:
        with self._spoken():
            answer = self.http.get(self.url + "/v1/models")
        if answer.status_code != 200:
            raise self._error(answer.status_code, _message(answer), answer.headers)
        return list(answer.json().get("data", []))

    def stream(self, question: Question) -> Iterator[str]:
        """Tried again like any call until the first piece is there; after it, a break is an error."""
        pieces, first = self._try(lambda: self._begun(question))
        try:
            yield from first
            yield from pieces
        finally:
            pieces.close()

    def _begun(self, question: Question) -> tuple[Generator[str], list[str]]:
        pieces = self._pieces(question)
        return pieces, list(islice(pieces, 1))

    @abstractmethod
    def _pieces(self, question: Question) -> Generator[str]:
        """The pieces of one answer, asked for once."""

    # -- how calls are made

    def _try(self, call: Callable[[], T]) -> T:
        """Call, again after failures that may pass, within the deadline."""
        deadline = time.monotonic() + self.timeout_s
        for attempt in range(1, self.tries + 1):
            self.breaker.check(self.url)
            try:
                with self._spoken():
                    result = call()
            except InferenceError as error:
                self.breaker.note(worked=not isinstance(error, Unreachable | TimedOut))
                if not error.retryable or attempt == self.tries:
                    raise
                wait = random.uniform(0.5, 1.0) * min(8.0, 0.25 * 2**attempt)
                if isinstance(error, Overloaded):
                    wait = max(wait, error.retry_after_s * random.uniform(1.0, 1.3))
                if time.monotonic() + wait > deadline:
                    raise
                time.sleep(wait)
            else:
                self.breaker.note(worked=True)
                return result
        raise Unreachable(f"{self.url} was not asked")  # tries is at least 1

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """Turns the transport's and the hub library's errors into ours."""
        try:
            yield
        except InferenceError:
            raise
        except (InferenceTimeoutError, httpx2.TimeoutException) as error:
            raise TimedOut(f"{self.url} did not answer within {self.timeout_s:.0f} s") from error
        except OfflineModeIsEnabled as error:
            raise InferenceError(f"{self.url} cannot be asked while HF_HUB_OFFLINE is set; unset it") from error
        except ValidationError as error:
            raise self._error(422, str(error), {}) from error
        except OverloadedError as error:
            raise Overloaded(str(error), _retry_after(_headers_of(error))) from error
        except (GenerationError, IncompleteGenerationError) as error:
            raise GenerationFailed(str(error)) from error
        except UnknownError as error:
            if "deadline" in str(error):
                raise TimedOut(str(error)) from error
            raise Unreachable(str(error)) from error
        except HfHubHTTPError as error:
            response = error.response
            raise self._error(response.status_code, _message(response), response.headers) from error
        except httpx2.HTTPError as error:
            raise Unreachable(f"{self.url}: {type(error).__name__}: {str(error)[:120]}; is it running?") from error
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise Unreachable(f"{self.url} answered with something else than its protocol: {error!r:.120}") from error

    def _error(self, status: int, said: str, headers: Mapping[str, str]) -> InferenceError:
        if status == 429:
            return Overloaded(said, _retry_after(headers))
        if status == 404 or (status == 422 and "not served here" in said):
            return UnknownAdapter(said)
        if status in (400, 413, 415, 422):
            return InvalidRequest(said)
        if status == 424:
            return GenerationFailed(said)
        if status in (408, 504):
            return TimedOut(said)
        return Unreachable(f"{self.url} answered {status}: {said}")


class OpenAIClient(Driver):
    """vLLM, our server and their like: chat and completions, the adapter's name as the model."""

    def generate(self, question: Question) -> Reply:
        began = time.monotonic()
        route, body = self._body(question)

        def call() -> dict[str, Any]:
            answer = self.http.post(self.url + route, json=body, headers=_tenant(question))
            if answer.status_code != 200:
                raise self._error(answer.status_code, _message(answer), answer.headers)
            return dict(answer.json())

        said = self._try(call)
        choice = said["choices"][0]
        text = choice["text"] if "text" in choice else choice["message"].get("content") or ""
        usage = said.get("usage") or {}
        return _checked(
            question,
            Reply(
                text=text,
                finish=choice.get("finish_reason") or "stop",
                model=str(said.get("model", "")),
                fingerprint=str(said.get("system_fingerprint") or ""),
                tokens_in=int(usage.get("prompt_tokens") or 0),
                tokens_out=int(usage.get("completion_tokens") or 0),
                latency_s=time.monotonic() - began,
            ),
        )

    def _pieces(self, question: Question) -> Generator[str]:
        route, body = self._body(question)
        with (
            self._spoken(),
            self.http.stream(
                "POST", self.url + route, json=body | {"stream": True}, headers=_tenant(question)
            ) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise self._error(answer.status_code, _message(answer), answer.headers)
            for line in answer.iter_lines():
                if not line.startswith("data:"):
                    continue
                payload = line[5:].strip()
                if payload == "[DONE]":
                    return
                event = json.loads(payload)
                if "error" in event:
                    error = event["error"]
                    raise self._error(int(error.get("http_status_code", error.get("code", 500))), error["message"], {})
                for choice in event.get("choices", []):
                    if piece := choice["text"] if "text" in choice else choice["delta"].get("content"):
                        yield piece
            raise GenerationFailed(f"{self.url} broke off in the middle of its answer")

    def score(self, text: str, adapter: str | None = None) -> list[float]:
        body = {"model": adapter or self._base(), "prompt": text, "max_tokens": 1, "temperature": 0}
        body |= {"echo": True, "logprobs": 1}

        def call() -> list[float]:
            answer = self.http.post(self.url + "/v1/completions", json=body)
            if answer.status_code != 200:
                raise self._error(answer.status_code, _message(answer), answer.headers)
            said = answer.json()
            logs = said["choices"][0]["logprobs"]["token_logprobs"]
            # the first token has none, and those at the end were written, not given
            return [float(value) for value in logs[1 : len(logs) - int(said["usage"]["completion_tokens"])]]

        return self._try(call)

    def info(self) -> dict[str, Any]:
        base = next(entry for entry in self._models() if not entry.get("parent"))
        return {"model_id": base["id"], "max_total_tokens": base.get("max_model_len")}

    def _base(self) -> str:
        return str(self.info()["model_id"])

    def _body(self, question: Question) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {
            "model": question.adapter or self._base(),
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
        }
        if question.top_p is not None:
            body["top_p"] = question.top_p
        if question.seed is not None:
            body["seed"] = question.seed
        if question.stop:
            body["stop"] = list(question.stop)
        if question.schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": dict(question.schema), "strict": True},
            }
        if question.pattern is not None:
            body["structured_outputs"] = {"regex": question.pattern}
        if question.messages:
            return "/v1/chat/completions", body | {"messages": [dict(message) for message in question.messages]}
        return "/v1/completions", body | {"prompt": question.prompt}


class TGIClient(Driver):
    """TGI and our server, through the hub's client library: native routes, the adapter as a parameter.

    TGI answers an unknown adapter from the base model without an error: on TGI only the proof at
    deployment tells. Our server refuses it.
    """

    def __init__(self, url: str, timeout_s: float = 60.0, tries: int = 3, breaker: Breaker | None = None) -> None:
        super().__init__(url, timeout_s, tries, breaker)
        self.hub = HubClient(base_url=self.url, timeout=timeout_s)

    def generate(self, question: Question) -> Reply:
        began = time.monotonic()
        if question.messages:
            said = self._try(lambda: self._hub(question).chat_completion(**self._chat(question)))
            choice = said.choices[0]
            return _checked(
                question,
                Reply(
                    text=choice.message.content or "",
                    finish="length" if choice.finish_reason == "length" else "stop",
                    model=str(said.model),
                    fingerprint=str(said.system_fingerprint or ""),
                    tokens_in=said.usage.prompt_tokens,
                    tokens_out=said.usage.completion_tokens,
                    latency_s=time.monotonic() - began,
                ),
            )
        answer = self._try(
            lambda: self._hub(question).text_generation(question.prompt, details=True, **self._native(question))
        )
        details = answer.details
        return _checked(
            question,
            Reply(
                text=answer.generated_text,
                finish="length" if details.finish_reason == "length" else "stop",
                model=question.adapter or "",
                fingerprint="",
                tokens_in=len(details.prefill or []),
                tokens_out=details.generated_tokens,
                latency_s=time.monotonic() - began,
            ),
        )

    def _pieces(self, question: Question) -> Generator[str]:
        # a client of its own: closing it closes the connection, which stops the work
        hub = HubClient(base_url=self.url, timeout=self.timeout_s, headers=_tenant(question))
        with self._spoken(), hub:
            if question.messages:
                ended = False
                for event in hub.chat_completion(stream=True, **self._chat(question)):
                    for choice in event.choices:
                        ended = ended or bool(choice.finish_reason)
                        if choice.delta.content:
                            yield choice.delta.content
                if not ended:
                    raise GenerationFailed(f"{self.url} broke off in the middle of its answer")
                return
            ended = False
            for token in hub.text_generation(question.prompt, details=True, stream=True, **self._native(question)):
                ended = ended or token.generated_text is not None
                if not token.token.special:
                    yield token.token.text
            if not ended:
                raise GenerationFailed(f"{self.url} broke off in the middle of its answer")

    def score(self, text: str, adapter: str | None = None) -> list[float]:
        def call() -> list[float]:
            answer = self.hub.text_generation(
                text, adapter_id=adapter, details=True, decoder_input_details=True, max_new_tokens=1
            )
            prefill = answer.details.prefill if answer.details else []
            return [float(token.logprob) for token in prefill[1:]]

        return self._try(call)

    def info(self) -> dict[str, Any]:
        with self._spoken():
            answer = self.http.get(self.url + "/info")
            if answer.status_code != 200:
                raise self._error(answer.status_code, _message(answer), answer.headers)
            return dict(answer.json())

    def _hub(self, question: Question) -> Any:
        if not question.tenant:
            return self.hub
        return HubClient(base_url=self.url, timeout=self.timeout_s, headers=_tenant(question))

    def _chat(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": [dict(message) for message in question.messages],
            "model": question.adapter or "tgi",
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "top_p": question.top_p,
            "seed": question.seed,
            "stop": list(question.stop) or None,
        }
        if question.schema is not None:  # the library would rewrite OpenAI's form into this one
            body["response_format"] = {"type": "json", "value": dict(question.schema)}
        if question.pattern is not None:
            body["response_format"] = {"type": "regex", "value": question.pattern}
        return body

    def _native(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {
            "adapter_id": question.adapter,
            "max_new_tokens": question.max_tokens,
            "stop": list(question.stop) or None,
            "seed": question.seed,
        }
        if question.temperature > 0:
            body |= {"do_sample": True, "temperature": question.temperature, "top_p": question.top_p}
        if question.schema is not None:
            body["grammar"] = {"type": "json", "value": dict(question.schema)}
        if question.pattern is not None:
            body["grammar"] = {"type": "regex", "value": question.pattern}
        return body


def client_for(kind: str, url: str, timeout_s: float = 60.0, tries: int = 3) -> InferenceClient:
    """The driver for a kind of server: tgi, or vllm (openai is its other name)."""
    if kind == "tgi":
        return TGIClient(url, timeout_s, tries)
    if kind in ("openai", "vllm"):
        return OpenAIClient(url, timeout_s, tries)
    raise NotSupported(f"inference kind {kind!r}: tgi, vllm or openai")


def _checked(question: Question, reply: Reply) -> Reply:
    """Parse and check a structured answer: a grammar makes it well formed, not right, and some engines drop it."""
    if question.schema is None:
        return reply
    import jsonschema

    try:
        data = json.loads(reply.text)
        jsonschema.validate(data, dict(question.schema))
    except ValueError as error:
        cut = " (cut off at max_tokens)" if reply.finish == "length" else ""
        raise InvalidOutput(f"the answer is not JSON{cut}: {str(error)[:120]}") from None
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "the whole"
        raise InvalidOutput(f"the answer breaks its schema at {place}: {error.message[:120]}") from None
    return Reply(**{**reply.__dict__, "data": data})


def _tenant(question: Question) -> dict[str, str]:
    return {"x-tenant": question.tenant} if question.tenant else {}


def _message(response: httpx2.Response) -> str:
    """The cause in an error's body, whatever its shape."""
    try:
        body = response.json()
    except ValueError:
        return response.text.strip()[:300]
    if not isinstance(body, dict):
        return str(body)[:300]
    error = body.get("error", body)
    if isinstance(error, dict):
        error = error.get("message", error)
    return str(body.get("message") or body.get("detail") or error)[:300]


def _headers_of(error: Exception) -> Mapping[str, str]:
    response = getattr(error.__cause__, "response", None)
    return response.headers if response is not None else {}


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return max(0.0, float(headers.get("retry-after", "1")))
    except ValueError:
        return 1.0

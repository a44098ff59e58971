"""TGI's and OpenAI's request bodies, read and checked; the words of errors are TGI's own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.inference.errors import InvalidRequest
from agents.inference.sampling import Sampling

MAX_STOPS, MAX_TOP, MAX_BEST_OF, MAX_CHOICES, DEFAULT_NEW, MAX_PROMPTS = 4, 5, 4, 4, 1024, 1
TOOL_PROMPT = (
    "Given the functions available, please respond with a JSON for a function call with its proper "
    "arguments that best answers the given prompt. Respond in the format {name: function name, "
    "arguments: dictionary of argument name and its value}. Do not use variables."
)
NO_TOOL = "no_tool"  # what TGI calls the choice of answering in words


class BadBody(InvalidRequest):
    """The body has another type than the protocol says; answered as TGI's web framework does, in plain text."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Ask:
    """One generation, however it was asked for."""

    inputs: str
    adapter: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_new: int | None = None
    stop: tuple[str, ...] = ()
    grammar: tuple[str, Any] | None = None  # ("json", schema) or ("regex", pattern)
    truncate: int | None = None
    top_n: int = 0
    details: bool = False
    decoder_input_details: bool = False
    return_full_text: bool = False
    best_of: int = 1
    ignore_eos: bool = False


def native(body: Any, *, stream: bool) -> Ask:
    """A body of TGI's own routes.

    Raises:
        BadBody: a key has the wrong type.
        InvalidRequest: a value is out of range.
    """
    reader = Reader(body)
    inputs = reader.text("inputs", required=True)
    parameters = Reader(reader.mapping("parameters"))
    sampling = _sampling(parameters)
    best_of = parameters.whole("best_of")
    if best_of is not None:
        if not 0 < best_of <= MAX_BEST_OF:
            raise InvalidRequest(f"`best_of` must be > 0 and <= {MAX_BEST_OF}. Given: {best_of}")
        if best_of > 1 and stream:
            raise InvalidRequest("`best_of` != 1 is not supported when streaming tokens")
        if best_of > 1 and not sampling.samples:
            raise InvalidRequest("you must use sampling when `best_of` is > 1")
        if best_of > 1 and sampling.seed is not None:
            raise InvalidRequest("`seed` must not be set when `best_of` > 1")
    if parameters.flag("watermark"):
        raise InvalidRequest("`watermark` is not supported by this server")
    wants_input = parameters.flag("decoder_input_details")
    if wants_input and stream:
        raise InvalidRequest("`decoder_input_details` == true is not supported when streaming tokens")
    top_n = parameters.whole("top_n_tokens") or 0
    if not 0 <= top_n <= MAX_TOP:
        raise InvalidRequest(f"`top_n_tokens` must be >= 0 and <= {MAX_TOP}. Given: {top_n}")
    truncate = parameters.whole("truncate")
    if truncate is not None and truncate <= 0:
        raise InvalidRequest("`truncate` must be strictly positive")
    return Ask(
        inputs=inputs,
        adapter=parameters.text("adapter_id"),
        sampling=sampling,
        max_new=_max_new(parameters.whole("max_new_tokens")),
        stop=_stops(parameters.texts("stop")),
        grammar=_grammar(parameters.mapping("grammar")),
        truncate=truncate,
        top_n=top_n,
        details=parameters.flag("details"),
        decoder_input_details=wants_input,
        return_full_text=parameters.flag("return_full_text"),
        best_of=best_of or 1,
    )


@dataclass(frozen=True)
class ChatAsk:
    """A chat request: messages to be rendered, tools to choose from, and how to generate."""

    ask: Ask
    messages: list[dict[str, Any]]
    stream: bool
    tools: list[dict[str, Any]]
    forced: bool  # a tool must be called
    logprobs: bool
    include_usage: bool
    choices: int
    echo: bool = False


def chat(body: Any) -> ChatAsk:
    """A body of ``/v1/chat/completions``.

    Raises:
        BadBody, InvalidRequest: as for ``native``.
    """
    reader = Reader(body)
    messages = _messages(reader)
    tools, forced = _tools(reader)
    grammar = _constraint(reader)
    if tools and grammar:
        raise ToolError("Grammar and tools are mutually exclusive")
    if tools:
        grammar = ("json", _tool_schema(tools, forced))
    logprobs = reader.flag("logprobs")
    return ChatAsk(
        ask=_openai(reader, "", grammar, (reader.whole("top_logprobs") or 0) if logprobs else 0),
        messages=messages,
        stream=reader.flag("stream"),
        tools=tools,
        forced=forced,
        logprobs=logprobs,
        include_usage=Reader(reader.mapping("stream_options")).flag("include_usage"),
        choices=_choices(reader),
    )


def completion(body: Any) -> ChatAsk:
    """A body of ``/v1/completions``: plain text, with vLLM's ``echo`` for scoring a text.

    Raises:
        BadBody, InvalidRequest: as for ``native``.
    """
    reader = Reader(body)
    prompts = reader.body.get("prompt")
    if isinstance(prompts, list) and all(isinstance(prompt, str) for prompt in prompts) and prompts:
        if len(prompts) > MAX_PROMPTS:
            raise InvalidRequest(f"Number of prompts exceeds the maximum allowed batch size of {MAX_PROMPTS}")
        reader = Reader({**reader.body, "prompt": prompts[0]})
    prompt = reader.text("prompt", required=True)
    logprobs = reader.whole("logprobs")
    return ChatAsk(
        ask=_openai(reader, prompt, _constraint(reader), logprobs or 0),
        messages=[],
        stream=reader.flag("stream"),
        tools=[],
        forced=False,
        logprobs=logprobs is not None,
        include_usage=Reader(reader.mapping("stream_options")).flag("include_usage"),
        choices=_choices(reader),
        echo=reader.flag("echo"),
    )


class ToolError(InvalidRequest):
    """Tools that cannot be used as given; TGI's ``tool_error``."""


class Reader:
    """Reads typed values from a JSON object; a wrong type is an error that names the key."""

    def __init__(self, body: Any) -> None:
        if body is None:
            body = {}
        if not isinstance(body, Mapping):
            raise BadBody("invalid type: expected an object")
        self.body = body

    def text(self, key: str, required: bool = False) -> Any:
        value = self.body.get(key)
        if value is None:
            if required:
                raise BadBody(f"missing field `{key}`")
            return None
        if not isinstance(value, str):
            raise BadBody(f"{key}: invalid type: expected a string")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.body.get(key)
        if value is None:
            return []
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadBody(f"{key}: invalid type: expected a sequence of strings")
        return value

    def whole(self, key: str) -> int | None:
        value = self.body.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**64:
            raise BadBody(f"{key}: invalid type: expected an integer")
        return value

    def number(self, key: str) -> float | None:
        value = self.body.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BadBody(f"{key}: invalid type: expected a number")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.body.get(key)
        if value is not None and not isinstance(value, bool):
            raise BadBody(f"{key}: invalid type: expected a boolean")
        return bool(value)

    def mapping(self, key: str) -> dict[str, Any] | None:
        value = self.body.get(key)
        if value is not None and not isinstance(value, dict):
            raise BadBody(f"{key}: invalid type: expected an object")
        return value


def _sampling(reader: Reader) -> Sampling:
    sampling = Sampling(
        do_sample=reader.flag("do_sample"),
        temperature=reader.number("temperature"),
        top_k=reader.whole("top_k"),
        top_p=reader.number("top_p"),
        typical_p=reader.number("typical_p"),
        repetition_penalty=reader.number("repetition_penalty"),
        frequency_penalty=reader.number("frequency_penalty"),
        seed=reader.whole("seed"),
    )
    if sampling.temperature is not None and sampling.temperature <= 0:
        raise InvalidRequest("`temperature` must be strictly positive")
    if sampling.repetition_penalty is not None and sampling.repetition_penalty <= 0:
        raise InvalidRequest("`repetition_penalty` must be strictly positive")
    if sampling.frequency_penalty is not None and not -2 <= sampling.frequency_penalty <= 2:
        raise InvalidRequest("`frequency_penalty` must be >= -2.0 and <= 2.0")
    if sampling.top_k is not None and sampling.top_k <= 0:
        raise InvalidRequest("`top_k` must be strictly positive")
    if sampling.top_p is not None and not 0 < sampling.top_p < 1:
        raise InvalidRequest("`top_p` must be > 0.0 and < 1.0")
    if sampling.typical_p is not None and not 0 < sampling.typical_p < 1:
        raise InvalidRequest("`typical_p` must be > 0.0 and < 1.0")
    if sampling.seed is not None and sampling.seed < 0:
        raise BadBody("seed: invalid value: expected u64")
    return sampling


def _openai(reader: Reader, inputs: str, grammar: tuple[str, Any] | None, top: int) -> Ask:
    """What chat and completions share. Temperature 0 is greedy; without one, sampling at 1 (as TGI and vLLM do)."""
    temperature, top_p = reader.number("temperature"), reader.number("top_p")
    frequency, presence = reader.number("frequency_penalty"), reader.number("presence_penalty")
    if temperature is not None and not 0 <= temperature <= 100:
        raise InvalidRequest("`temperature` must be strictly positive")
    if top_p is not None and not 0 < top_p <= 1:
        raise InvalidRequest("`top_p` must be > 0.0 and < 1.0")
    for name, value in (("frequency_penalty", frequency), ("presence_penalty", presence)):
        if value is not None and not -2 <= value <= 2:
            raise InvalidRequest(f"`{name}` must be >= -2.0 and <= 2.0")
    if not 0 <= top <= 20:
        raise InvalidRequest(f"`top_logprobs` must be >= 0 and <= 20. Given: {top}")
    seed = reader.whole("seed")
    sampling = Sampling(
        do_sample=temperature != 0,
        temperature=temperature or None,
        top_k=reader.whole("top_k") if (reader.whole("top_k") or 0) > 0 else None,
        top_p=top_p if temperature != 0 and top_p is not None and top_p < 1 else None,
        frequency_penalty=frequency,
        repetition_penalty=reader.number("repetition_penalty") or (presence + 2.0 if presence else None),
        seed=abs(seed) if seed is not None else None,
    )
    limit = reader.whole("max_completion_tokens")
    return Ask(
        inputs=inputs,
        adapter=reader.text("model"),
        sampling=sampling if temperature != 0 else _greedy(sampling),
        max_new=_max_new(reader.whole("max_tokens") if limit is None else limit),
        stop=_stops(reader.texts("stop")),
        grammar=grammar,
        top_n=top,
        ignore_eos=reader.flag("ignore_eos"),
    )


def _greedy(sampling: Sampling) -> Sampling:
    return Sampling(
        repetition_penalty=sampling.repetition_penalty, frequency_penalty=sampling.frequency_penalty, seed=sampling.seed
    )


def _max_new(value: int | None) -> int | None:
    if value is not None and value <= 0:
        raise InvalidRequest("`max_new_tokens` must be strictly positive")
    return value


def _stops(stops: list[str]) -> tuple[str, ...]:
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(f"`stop` supports up to {MAX_STOPS} stop sequences. Given: {len(stops)}")
    if not all(stops):
        raise InvalidRequest("`stop` must not hold an empty sequence")
    return tuple(stops)


def _choices(reader: Reader) -> int:
    n = reader.whole("n")
    if n is not None and not 1 <= n <= MAX_CHOICES:
        raise InvalidRequest(f"`n` must be > 0 and <= {MAX_CHOICES}. Given: {n}")
    return n or 1


def _grammar(grammar: dict[str, Any] | None) -> tuple[str, Any] | None:
    if grammar is None:
        return None
    kind, value = grammar.get("type"), grammar.get("value")
    if kind == "regex":
        return "regex", value
    if kind in ("json", "json_object", "json_schema"):
        if kind == "json_schema" and isinstance(value, dict) and isinstance(value.get("schema"), dict):
            value = value["schema"]
        if value is None:
            raise BadBody("grammar: missing field `value`")
        return "json", value
    raise BadBody(f"grammar: unknown variant `{str(kind)[:40]}`, expected one of `json`, `regex`, `json_schema`")


def _constraint(reader: Reader) -> tuple[str, Any] | None:
    """OpenAI's and TGI's ``response_format``, else vLLM's ``structured_outputs``."""
    wanted = reader.mapping("structured_outputs") or {}
    if wanted.get("regex") is not None:
        return "regex", wanted["regex"]
    return _response_format(reader.mapping("response_format")) or (
        ("json", wanted["json"]) if wanted.get("json") is not None else None
    )


def _response_format(wanted: dict[str, Any] | None) -> tuple[str, Any] | None:
    """OpenAI's form, and TGI's (the hub client rewrites the first to ``json_object`` with a value)."""
    if wanted is None or wanted.get("type") == "text":
        return None
    if wanted.get("type") == "json_schema":
        inner = wanted.get("json_schema") or wanted.get("value")
        if not isinstance(inner, dict):
            raise BadBody("response_format: missing field `json_schema`")
        return "json", inner.get("schema", inner)
    if wanted.get("type") == "json_object" and wanted.get("value") is None:
        return "json", {"type": "object"}
    return _grammar(wanted)


def _messages(reader: Reader) -> list[dict[str, Any]]:
    messages = reader.body.get("messages")
    if not isinstance(messages, list):
        raise BadBody("missing field `messages`" if messages is None else "messages: invalid type: expected a sequence")
    if not messages:
        raise InvalidRequest("`messages` cannot be empty")
    read = []
    for message in messages:
        item = Reader(message)
        role = item.text("role", required=True)
        content = item.body.get("content")
        if isinstance(content, list):  # parts: only text is understood
            parts = [Reader(part) for part in content]
            if any(part.body.get("type") != "text" for part in parts):
                raise InvalidRequest("only text parts of messages are supported by this server")
            content = "".join(part.text("text", required=True) for part in parts)
        if content is None and item.body.get("tool_calls"):
            content = json.dumps([call.get("function") for call in item.body["tool_calls"] if isinstance(call, dict)])
        if not isinstance(content, str):
            raise BadBody("messages: content: invalid type: expected a string")
        if role not in ("system", "user", "assistant", "tool", "developer"):
            raise InvalidRequest(f"unknown role `{role[:40]}`")
        read.append({"role": {"developer": "system", "tool": "user"}.get(role, role), "content": content})
    return read


def _tools(reader: Reader) -> tuple[list[dict[str, Any]], bool]:
    tools = reader.body.get("tools")
    choice = reader.body.get("tool_choice", "auto")
    if not tools or choice == "none":
        return [], False
    if not isinstance(tools, list):
        raise BadBody("tools: invalid type: expected a sequence")
    functions = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ToolError("Tool error: each tool needs a function with a name")
        functions.append(function)
    if choice in ("auto", None):
        return functions, False
    if choice == "required":
        return functions, True
    name = choice.get("function", {}).get("name") if isinstance(choice, dict) else choice
    chosen = [function for function in functions if function["name"] == name]
    if not chosen:
        raise ToolError(f"Tool error: Tool with name {str(name)[:60]} not found")
    return chosen, True


def _tool_schema(functions: list[dict[str, Any]], forced: bool) -> dict[str, Any]:
    """One JSON object that is a call to one of the functions, or words."""
    definitions: dict[str, Any] = {}
    calls = []
    for function in functions:
        parameters = function.get("parameters") or function.get("arguments") or {"type": "object", "properties": {}}
        if isinstance(parameters, dict):
            definitions |= parameters.get("$defs", {})
        calls.append(_call(function["name"], parameters))
    if not forced:
        words = {"type": "object", "properties": {"response": {"type": "string"}}, "required": ["response"]}
        calls.append(_call(NO_TOOL, words | {"additionalProperties": False}))
    schema: dict[str, Any] = {"anyOf": calls} if len(calls) > 1 else calls[0]
    return schema | ({"$defs": definitions} if definitions else {})


def _call(name: str, parameters: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }

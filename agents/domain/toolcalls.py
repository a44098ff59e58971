"""Tool calls in a model's own words: found, read, and checked against what the tools declare.

A model's text is hostile input. It is parsed, never evaluated; a call whose arguments cannot be read
is an error, never a call with empty arguments; and each error says its kind, so that a program, a
person and the model itself can act on it.
"""

from __future__ import annotations

import ast
import functools
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from ipaddress import IPv4Address, IPv6Address
from typing import Any, ClassVar, NoReturn
from urllib.parse import urlsplit
from uuid import UUID

import jsonschema
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable

from rmn.lib.errors import BadInput

KINDS = (
    "wrong_count",
    "unknown_function",
    "missing_required",
    "unexpected_param",
    "type_error",
    "value_error",
    "not_json",
)
LONGEST_OUTPUT = 200_000  # characters; more is no call but an accident
LONGEST_QUOTE = 200  # characters of bad text that an error repeats


@dataclass(frozen=True)
class CallError:
    """What is wrong with a call: its kind, where (``calls[0].arguments.budget``), and in words."""

    kind: str
    path: str
    message: str

    def row(self) -> dict[str, str]:
        return {"kind": self.kind, "path": self.path, "message": self.message}


@dataclass(frozen=True)
class Call:
    """One call as the model meant it; ``arguments`` is what it gave, checked or not."""

    name: str
    arguments: Any

    def row(self) -> dict[str, Any]:
        return {"name": self.name, "arguments": self.arguments}


@dataclass(frozen=True)
class Reading:
    """A model's text, read: the calls found and what stood in the way of others."""

    calls: list[Call] = field(default_factory=list)
    errors: list[CallError] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------
# Reading


def read(output: str, names: frozenset[str] = frozenset()) -> Reading:
    """Find the calls in a model's text.

    Taken are JSON objects or lists of them, alone, in a code fence, in ``<tool_call>`` marks or within
    prose; ``{"name", "arguments"}`` and its relatives (``parameters``, ``args``, ``input``,
    ``function`` as a name or as an object, ``tool_calls``, ``function_call``), ``{"tool": {...}}``
    where the key is one of ``names``, Python literals with single quotes, ``tool(a=1)`` as statements,
    in a list or (one of ``names``, with an argument) within prose, ``<function=tool>{...}`` and
    ``Action: tool, Action Input: {...}``. What stands between ``<think>`` marks is not looked at.
    Arguments given as a text of JSON are read once more. Truncated text, a key that stands twice,
    positional arguments, NaN and Infinity are ``not_json``.

    Args:
        output: the model's raw text.
        names: the tools on offer; they tell a call from other objects in the text.
    """
    if len(output) > LONGEST_OUTPUT:
        return Reading(errors=[CallError("not_json", "", f"longer than {LONGEST_OUTPUT} characters; nothing was read")])
    try:
        values = _values(output, names)
    except _Malformed as error:
        return Reading(errors=[CallError("not_json", "", str(error))])
    calls: list[Call] = []
    errors: list[CallError] = []
    for value in values:
        for found in _calls_in(value, names, len(calls) + len(errors)):
            (calls if isinstance(found, Call) else errors).append(found)  # type: ignore[arg-type]
    return Reading(calls, errors)


class _Malformed(ValueError):
    """Text that meant to be a call and cannot be read as one."""


THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
FENCE = re.compile(r"```[a-zA-Z_]*\s*\n?(.*?)```", re.DOTALL)
MARKED = re.compile(r"<(tool_call|function_call)>(.*?)</\1>", re.DOTALL)
OPENED = re.compile(r"<(?:tool_call|function_call)>(.*)\Z", re.DOTALL)
# the name apart from its arguments: Llama's function marks, and the manner of ReAct
APART = re.compile(r"<function=([\w.-]+)>(.*?)(?:</function>|\Z)|^Action:\s*([\w.-]+)\s*^Action Input:(.*?)(?=^\w+:|\Z)", re.DOTALL | re.MULTILINE)  # fmt: skip
# an object that opens like a call, or a call in Python's manner: meant as a call even when broken
LOOKS_LIKE_CALL = re.compile(r"""[\[{]\s*(?:\{\s*)?["'](?:name|function|tool|tool_calls|arguments|type)["']\s*:""")
PYTHON_CALL = re.compile(
    r"\A\s*(?:[A-Za-z_]\w*\s*=\s*)?[\[(]?\s*[A-Za-z_][\w.]*\s*\(.*\)\s*[\])]?\s*;?\s*\Z", re.DOTALL
)


def _values(output: str, names: frozenset[str]) -> list[Any]:
    """The values that the text holds, in order."""
    text = THOUGHT.sub("", output).strip().removeprefix("\ufeff")
    if not text:
        raise _Malformed("no text at all; a call or an empty list [] was expected")
    if apart := list(APART.finditer(text)):
        return [{"name": one[1] or one[3], "arguments": _arguments(one[2] or one[4] or "")} for one in apart]
    marked = [match.group(2) for match in MARKED.finditer(text)]
    if not marked and (opened := OPENED.search(text)):
        marked = [opened.group(1)]
    parts = marked or [match.group(1) for match in FENCE.finditer(text)]
    found = [value for part in parts for value in _values_of(part.strip(), names)]
    found = found or _values_of(text, names)
    if not found:
        raise _Malformed(f"no call was found in {_quote(text)}")
    return found


def _arguments(text: str) -> Any:
    value = _decoded(text.strip())
    if isinstance(value, str):
        raise _Malformed(f"arguments that are not JSON: {_quote(value)}")
    return value


def _values_of(text: str, names: frozenset[str]) -> list[Any]:
    try:
        return [_json(text)]
    except _Refused as error:
        raise _Malformed(str(error)) from None
    except ValueError:
        pass
    if (literal := _python(text)) is not None:
        return [literal]
    found = list(_embedded(text))
    if not any(isinstance(each, Call) for value in found for each in _calls_in(value, names, 0)):
        found = list(_spoken(text, names)) or found
    if not found and LOOKS_LIKE_CALL.search(text):
        raise _Malformed(f"not JSON and not complete: {_quote(text)}")
    return found


def _spoken(text: str, names: frozenset[str]) -> Iterator[Any]:
    """Calls in Python's manner within prose: a tool's name and at least one argument by name."""
    if not names:
        return
    longest_first = sorted(names, key=len, reverse=True)
    opening = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, longest_first))})\s*\((?=\s*[A-Za-z_]\w*\s*=[^=])")
    position = 0
    while found := opening.search(text, position):
        position = _balanced(text, found.end() - 1)
        call = _python(text[found.start() : position]) if position else None
        if call is None:
            raise _Malformed(f"not a complete call: {_quote(text[found.start() :])}")
        yield call


def _embedded(text: str) -> Iterator[Any]:
    """Objects and lists within prose. One that opens like a call must also end."""
    decoder = json.JSONDecoder(
        object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
    )
    position = 0
    while (opening := _next_opening(text, position)) is not None:
        try:
            value, end = decoder.raw_decode(text, opening)
        except _Refused as error:
            raise _Malformed(str(error)) from None
        except RecursionError:
            raise _Malformed("nested too deeply") from None
        except ValueError:
            end = _balanced(text, opening)
            value = _python(text[opening:end]) if end else None
            if value is None:
                if LOOKS_LIKE_CALL.match(text, opening):
                    raise _Malformed(f"not JSON and not complete: {_quote(text[opening:])}") from None
                position = opening + 1
                continue
        if (
            isinstance(value, dict)
            or (isinstance(value, list) and any(isinstance(item, dict) for item in value))
            or (isinstance(value, list) and value and all(isinstance(item, _PythonCall) for item in value))
        ):
            yield value
        position = end


def _next_opening(text: str, start: int) -> int | None:
    places = [place for mark in "{[" if (place := text.find(mark, start)) >= 0]
    return min(places, default=None)


def _balanced(text: str, start: int) -> int:
    """Where the bracket at ``start`` closes, quotes of both kinds respected; 0 if it never does."""
    depth, quote, escaped = 0, "", False
    for place in range(start, len(text)):
        character = text[place]
        if quote:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
            if depth == 0:
                return place + 1
    return 0


class _Refused(ValueError):
    """JSON in shape, with something in it that must not be guessed at."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"the key {_quote(key)} stands twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not a number that JSON knows")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Refused(f"{_quote(text)} is too large for a number")
    return number


def _whole(text: str) -> int:
    if len(text) > 400:
        raise _Refused(f"a whole number of {len(text)} digits")
    return int(text)


def _json(text: str) -> Any:
    try:
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
        )
    except RecursionError:
        raise _Refused("nested too deeply") from None


@dataclass(frozen=True)
class _PythonCall:
    name: str
    arguments: dict[str, Any]


def _python(text: str) -> Any:
    """A Python literal, or calls as statements or in a list, read from the syntax tree; None if it is neither."""
    if not text or (text[0] not in "{[" and not PYTHON_CALL.match(text)):
        return None
    try:
        lines = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    try:
        trees = [line.value for line in lines if isinstance(line, ast.Expr | ast.Assign)]
        nodes = [node for tree in trees for node in (tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree])]
        if nodes and len(trees) == len(lines) and all(isinstance(node, ast.Call) for node in nodes):
            return [_python_call(node) for node in nodes if isinstance(node, ast.Call)]
        return _literal(trees[0]) if len(trees) == len(lines) == 1 else None
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None


def _python_call(node: ast.Call) -> _PythonCall:
    inner = node.args[0] if len(node.args) == 1 and not node.keywords else None
    if isinstance(node.func, ast.Name) and node.func.id == "print" and isinstance(inner, ast.Call):
        return _python_call(inner)
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("positional arguments carry no name")
    return _PythonCall(
        ast.unparse(node.func), {keyword.arg or "": _literal(keyword.value) for keyword in node.keywords}
    )


class _Constants(ast.NodeTransformer):
    """JSON's true, false and null among single quotes."""

    WORDS: ClassVar[dict[str, Any]] = {"true": True, "false": False, "null": None}

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(self.WORDS[node.id]) if node.id in self.WORDS else node


def _literal(tree: ast.expr) -> Any:
    return _plain(ast.literal_eval(_Constants().visit(tree)))


def _plain(value: Any) -> Any:
    """A literal in JSON's terms: tuples become lists; bytes, sets and other keys than text are none."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key that is not text")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not finite")
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError("not a value of JSON")


NAME_KEYS = ("name", "function", "tool", "tool_name", "function_name")
ARGUMENT_KEYS = ("arguments", "parameters", "args", "input", "kwargs")


def _calls_in(value: Any, names: frozenset[str], number: int) -> Iterator[Call | CallError]:
    if isinstance(value, list):
        for offset, item in enumerate(value):
            yield from _calls_in(item, names, number + offset)
        return
    if isinstance(value, _PythonCall):
        yield Call(value.name, value.arguments)
        return
    if not isinstance(value, dict):
        yield CallError("not_json", f"calls[{number}]", f"a call is an object, this is {_kind_of(value)}")
        return
    for wrapper in ("tool_calls", "calls", "function_calls", "function_call", "functionCall"):
        if isinstance(value.get(wrapper), list | dict) and wrapper not in names:
            yield from _calls_in(value[wrapper], names, number)
            return
    yield _call(value, names, number)


def _call(value: dict[str, Any], names: frozenset[str], number: int) -> Call | CallError:
    where = f"calls[{number}]"
    if isinstance(value.get("function"), dict):  # OpenAI's shape
        value = value["function"]
    name = next((value[key] for key in NAME_KEYS if isinstance(value.get(key), str)), None)
    key = next((key for key in ARGUMENT_KEYS if key in value), None)
    if name is not None and (key is not None or name in names or set(value) <= {*NAME_KEYS, "id", "type"}):
        if key is None:
            return CallError(
                "not_json", f"{where}.arguments", f"{_quote(name)} came without arguments; write {{}} for none"
            )
        arguments = _decoded(value[key])
        if isinstance(arguments, str) and arguments.lstrip().startswith("{"):
            return CallError("not_json", f"{where}.arguments", f"not JSON and not complete: {_quote(arguments)}")
        return Call(name, arguments)
    if len(value) == 1:
        (only, inner), *_ = value.items()
        if only in names or isinstance(inner, dict):
            return Call(only, _decoded(inner))
    return CallError(
        "not_json", where, f"an object without a name and arguments: {_quote(json.dumps(value, default=str))}"
    )


def _decoded(arguments: Any) -> Any:
    """Arguments sent as a text of JSON, as OpenAI does; other text stays what it is."""
    if isinstance(arguments, str) and arguments.lstrip().startswith("{"):
        try:
            inner = _json(arguments)
        except ValueError:
            inner = _python(arguments.strip())
        if isinstance(inner, dict):
            return inner
    return arguments


def _kind_of(value: Any) -> str:
    for types, word in (((bool,), "a boolean"), ((int, float), "a number"), ((str,), "text"), ((list,), "a list")):
        if isinstance(value, types):
            return word
    return "null" if value is None else "an object"


def _quote(text: str) -> str:
    text = "".join(character if character.isprintable() else " " for character in text)
    return repr(text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "...")


# ------------------------------------------------------------------------------------------------
# Formats: enforced, as annotations alone would let any text through

DATE = re.compile(r"\A(\d{4})-(\d\d)-(\d\d)\Z", re.ASCII)
TIME = re.compile(r"\A(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[zZ]|([+-])(\d\d):(\d\d))\Z", re.ASCII)
EMAIL = re.compile(r"""\A(?:[^\s@"<>()\[\],;:\\.]+(?:\.[^\s@"<>()\[\],;:\\.]+)*|"[^"\r\n]+")@(?P<host>[^\s@]+)\Z""")
LABEL = re.compile(r"\A(?!-)[A-Za-z0-9-]{1,63}(?<!-)\Z", re.ASCII)
URI_TEXT = re.compile(r"\A(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*\Z", re.ASCII)
SCHEME = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*:", re.ASCII)
DURATION = re.compile(
    r"\AP(?:\d+W|(?=\d|T\d)(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?=\d)(?:\d+H)?(?:\d+M)?(?:\d+S)?)?)\Z", re.ASCII
)
POINTER = re.compile(r"\A(?:/(?:[^~/]|~[01])*)*\Z")
FORMATS = FormatChecker(formats=())


def _format(name: str) -> Any:
    """Register a check of text; other types pass, as the specification says."""

    def register(check: Any) -> Any:
        @functools.wraps(check)
        def of_text(value: Any) -> bool:
            return not isinstance(value, str) or bool(check(value))

        FORMATS.checks(name, raises=ValueError)(of_text)
        return of_text

    return register


@_format("date")
def _is_date(text: str) -> bool:
    found = DATE.match(text)
    return bool(found and date(*(int(part) for part in found.groups())))


@_format("time")
def _is_time(text: str) -> bool:
    found = TIME.match(text)
    if not found:
        return False
    hour, minute, second = (int(part) for part in found.groups()[:3])
    sign, off_hour, off_minute = found.group(4), int(found.group(5) or 0), int(found.group(6) or 0)
    if hour > 23 or minute > 59 or second > 60 or off_hour > 23 or off_minute > 59:
        return False
    minutes_utc = (hour * 60 + minute - (off_hour * 60 + off_minute) * (-1 if sign == "-" else 1)) % 1440
    return second < 60 or minutes_utc == 1439  # a leap second falls at the end of a day in UTC


@_format("date-time")
def _is_instant(text: str) -> bool:
    return len(text) > 11 and text[10] in "tT" and _is_date(text[:10]) and _is_time(text[11:])


def _is_host(text: str) -> bool:
    text = text.removesuffix(".")
    return 0 < len(text) <= 253 and all(LABEL.match(label) for label in text.split("."))


FORMATS.checks("hostname")(lambda value: not isinstance(value, str) or _is_host(value))


@_format("email")
def _is_email(text: str) -> bool:
    found = EMAIL.match(text)
    if not found:
        return False
    host = found["host"]
    if host.startswith("["):
        return bool(IPv6Address(host[6:-1]) if host[1:6] == "IPv6:" else IPv4Address(host[1:-1]))
    return _is_host(host)


@_format("ipv4")
def _is_ipv4(text: str) -> bool:
    return bool(IPv4Address(text))


@_format("ipv6")
def _is_ipv6(text: str) -> bool:
    return "%" not in text and bool(IPv6Address(text))


@_format("uri-reference")
def _is_reference(text: str) -> bool:
    if not URI_TEXT.match(text):
        return False
    parts = urlsplit(text)
    _ = parts.port  # raises on a port that is none
    return "#" not in parts.fragment


@_format("uri")
def _is_uri(text: str) -> bool:
    return bool(SCHEME.match(text)) and _is_reference(text)


@_format("uuid")
def _is_uuid(text: str) -> bool:
    return len(text) == 36 and all(text[place] == "-" for place in (8, 13, 18, 23)) and bool(UUID(text))


@_format("duration")
def _is_duration(text: str) -> bool:
    return bool(DURATION.match(text))


@_format("json-pointer")
def _is_pointer(text: str) -> bool:
    return bool(POINTER.match(text))


@_format("regex")
def _is_regex(text: str) -> bool:
    try:
        return bool(re.compile(text)) or True
    except (re.error, OverflowError):
        return False


# ------------------------------------------------------------------------------------------------
# Checking against what a tool declares

BFCL_TYPES = {"dict": "object", "float": "number", "double": "number", "long": "integer", "tuple": "array"}
BFCL_TYPES |= {
    "list": "array",
    "hashmap": "object",
    "char": "string",
    "bool": "boolean",
    "str": "string",
    "int": "integer",
}
StrictInteger: Any = jsonschema.validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _checker, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def is_bfcl(parameters: Any) -> bool:
    """Does a tool declare its parameters in BFCL's dialect (``dict``, ``float``, ``tuple``, ``any``)?"""
    return isinstance(parameters, dict) and parameters.get("type") in ("dict", "hashmap")


def from_bfcl(declared: Any) -> dict[str, Any]:
    """A JSON Schema that says what a declaration in BFCL's dialect means.

    Only types, properties, required, items and enum carry meaning there; an object with declared
    properties takes no others; ``any`` takes all; an integer is fine where a float is declared.
    """
    if not isinstance(declared, dict):
        return {}
    kind = BFCL_TYPES.get(str(declared.get("type", "any")).lower(), str(declared.get("type", "any")).lower())
    if kind not in ("object", "array", "string", "number", "integer", "boolean", "null"):
        return {}
    schema: dict[str, Any] = {"type": kind}
    properties = declared.get("properties")
    if kind == "object" and isinstance(properties, dict) and properties:
        schema["properties"] = {name: from_bfcl(inner) for name, inner in properties.items()}
        schema["additionalProperties"] = False
        schema["required"] = [name for name in declared.get("required") or [] if name in properties]
    elif kind == "object" and isinstance(properties, dict):
        schema["additionalProperties"] = not is_bfcl(declared) or "properties" not in declared
    if kind == "array" and isinstance(declared.get("items"), dict):
        schema["items"] = from_bfcl(declared["items"])
    if isinstance(declared.get("enum"), list) and declared["enum"]:
        schema["enum"] = [*declared["enum"], *([declared["default"]] if "default" in declared else [])]
    return schema


@dataclass(frozen=True)
class Tool:
    """A function on offer: its name and the validator of its arguments."""

    name: str
    parameters: Any  # as declared
    bfcl: bool
    validator: Any = field(repr=False, compare=False)
    surely: Callable[[Any], bool] | None = field(default=None, repr=False, compare=False)  # see ``_surely``

    @property
    def wants_object(self) -> bool:
        """A tool takes an object, unless a bare schema without a type leaves that open."""
        schema = self.validator.schema
        return isinstance(schema, dict) and schema.get("type") == "object"


def offered(tools: list[Any]) -> dict[str, Tool]:
    """Tools by name, from documents in the JSON Schema or BFCL manner, with or without OpenAI's wrapper.

    Raises:
        BadInput: a tool without a name, twice the same name, or parameters that are no schema.
    """
    found: dict[str, Tool] = {}
    for place, document in enumerate(tools):
        inner = document.get("function") if isinstance(document, dict) else None
        declared = inner if isinstance(inner, dict) else document
        if not isinstance(declared, dict) or not isinstance(declared.get("name"), str) or not declared["name"]:
            raise BadInput(f"tools[{place}]: a tool is an object with a name and parameters")
        name = declared["name"]
        parameters = declared.get("parameters", declared.get("input_schema", {"type": "object"}))
        if name in found and found[name].parameters != parameters:
            raise BadInput(f"tools[{place}]: the name {name!r} is taken by another tool; names must differ")
        bfcl = is_bfcl(parameters)
        schema = from_bfcl(parameters) if bfcl else parameters
        try:
            text = json.dumps(schema, sort_keys=True)
        except (TypeError, ValueError, RecursionError):
            raise BadInput(f"tools[{place}]: the parameters of {name!r} are not JSON") from None
        found[name] = Tool(name, parameters, bfcl, *_validator(name, text, bfcl))
    return found


@functools.lru_cache(maxsize=2048)
def _validator(name: str, schema_text: str, bfcl: bool) -> tuple[Any, Callable[[Any], bool] | None]:
    schema = json.loads(schema_text)
    cls = StrictInteger if bfcl else Draft202012Validator
    try:
        cls.check_schema(schema)
    except SchemaError as error:
        place = "/".join(str(part) for part in error.absolute_path) or "its root"
        raise BadInput(
            f"tool {name!r}: its parameters are no JSON Schema at {place}: {_short(error.message)}"
        ) from None
    except RecursionError:
        raise BadInput(f"tool {name!r}: its parameters are nested too deeply") from None
    # an explicit registry: a $ref to elsewhere is an error, never a request over the network
    return cls(schema, registry=REGISTRY, format_checker=FORMATS), _surely(schema, bfcl)


SAID_ONLY = {"description", "title", "default", "examples", "$schema", "$comment"}  # keywords that forbid nothing
OF_TYPE: dict[str, set[str]] = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"enum", "minLength", "maxLength", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "boolean": set(),
}


def _surely(schema: Any, strict: bool) -> Callable[[Any], bool] | None:
    """A quick check of a plain schema: what it lets pass is valid; of what it does not, the validator says what is wrong.

    None where the schema uses more than ``OF_TYPE``; ``strict``: 1.0 is no integer.
    """
    kind = schema.get("type") if isinstance(schema, dict) else None
    if not isinstance(kind, str) or kind not in OF_TYPE or set(schema) - SAID_ONLY - OF_TYPE[kind] - {"type"}:
        return None
    if kind == "object":
        return _surely_object(schema, strict)
    if kind == "array":
        inner = _surely(schema["items"], strict) if "items" in schema else lambda _: True
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        if inner is None:
            return None
        return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(inner, value))
    if kind == "string":
        return _surely_text(schema)
    if kind == "boolean":
        return lambda value: isinstance(value, bool)
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)

    def number(value: Any) -> bool:
        whole = type(value) is int or (type(value) is float and not strict and value.is_integer())
        right = whole or (type(value) is float and kind == "number")
        return right and low <= value <= high and above < value < below

    return number


def _surely_text(schema: dict[str, Any]) -> Callable[[Any], bool]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    allowed, form = schema.get("enum"), schema.get("format")

    def check(value: Any) -> bool:
        right = isinstance(value, str) and least <= len(value) <= most and (allowed is None or value in allowed)
        return right and (form is None or FORMATS.conforms(value, form))

    return check


def _surely_object(schema: dict[str, Any], strict: bool) -> Callable[[Any], bool] | None:
    others = schema.get("additionalProperties", True)
    inner = {name: _surely(each, strict) for name, each in schema.get("properties", {}).items()}
    if not isinstance(others, bool) or None in inner.values():
        return None
    required = frozenset(schema.get("required", ()))

    def check(value: Any) -> bool:
        if not isinstance(value, dict) or not required <= value.keys():
            return False
        for name, each in value.items():
            told = inner.get(name)
            if not others if told is None else not told(each):
                return False
        return True

    return check


def _short(message: str) -> str:
    return message if len(message) <= 300 else message[:300] + "..."


def check(call: Call, tools: dict[str, Tool], number: int = 0, *, enums: bool = True) -> list[CallError]:
    """What is wrong with one call, by what its tool declares; nothing if it may be made.

    Args:
        call: as ``read`` found it.
        tools: as ``offered`` made them.
        number: its place among the calls, for the path.
        enums: whether lists of allowed values count (beside BFCL's accepted answers they are advice).

    Raises:
        BadInput: a tool's schema points to nowhere, or holds a pattern that is none.
    """
    where = f"calls[{number}]"
    tool = tools.get(call.name)
    if tool is None:
        near = ", ".join(sorted(tools)[:12])
        return [
            CallError("unknown_function", f"{where}.name", f"no tool {_quote(call.name)} is on offer, only: {near}")
        ]
    where += ".arguments"
    if tool.wants_object and not isinstance(call.arguments, dict):
        return [CallError("type_error", where, f"arguments must be an object, this is {_kind_of(call.arguments)}")]
    if tool.surely is not None and tool.surely(call.arguments):
        return []
    try:
        problems = list(tool.validator.iter_errors(call.arguments))
    except Unresolvable as error:
        raise BadInput(f"tool {tool.name!r}: a $ref cannot be resolved: {_short(str(error))}") from None
    except re.error as error:
        raise BadInput(f"tool {tool.name!r}: a pattern is no regular expression: {error}") from None
    except RecursionError:
        return [CallError("value_error", where, "nested too deeply")]
    mistyped = {tuple(problem.absolute_path) for problem in problems if problem.validator == "type"}
    return [
        error
        for problem in problems
        # a value of the wrong type breaks its other rules too; one cause, one error
        if problem.validator == "type" or tuple(problem.absolute_path) not in mistyped
        if enums or problem.validator != "enum"
        for error in _errors(problem, where)
    ]


KIND_OF_KEYWORD = {
    "type": "type_error",
    "required": "missing_required",
    "dependentRequired": "missing_required",
    "additionalProperties": "unexpected_param",
    "unevaluatedProperties": "unexpected_param",
    "propertyNames": "unexpected_param",
}


def _errors(problem: ValidationError, where: str) -> list[CallError]:
    path = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem.absolute_path)
    keyword, instance, schema = str(problem.validator), problem.instance, problem.schema
    kind = KIND_OF_KEYWORD.get(keyword, "value_error")
    if keyword == "required":
        missing = problem.message.rsplit(" is a required", 1)[0]
        name = next((name for name in problem.validator_value if repr(name) == missing), missing)
        return [CallError(kind, f"{path}.{name}", f"the required argument {_quote(name)} is missing")]
    if keyword == "additionalProperties" and isinstance(instance, dict) and problem.validator_value is False:
        known = schema.get("properties", {})
        patterns = schema.get("patternProperties", {})
        extra = [key for key in instance if key not in known and not any(re.search(each, key) for each in patterns)]
        return [
            CallError(kind, f"{path}.{key}", f"there is no argument {_quote(key)}; known: {_names(known)}")
            for key in extra
        ]
    if problem.validator is None:  # the schema false: nothing may stand here
        return [CallError("unexpected_param", path, "nothing may stand here")]
    if keyword in ("anyOf", "oneOf") and problem.context:
        kinds = {KIND_OF_KEYWORD.get(str(each.validator), "value_error") for each in problem.context}
        deeper = [each for each in problem.context if each.validator != "type" or each.path]
        kind = kinds.pop() if len(kinds) == 1 else (_errors(deeper[0], "")[0].kind if deeper else "value_error")
    return [CallError(kind, path, _quote_value(problem.message))]


def _names(known: Any) -> str:
    return ", ".join(list(known)[:12]) or "none"


def _quote_value(message: str) -> str:
    message = "".join(character if character.isprintable() else " " for character in message)
    return message if len(message) <= 2 * LONGEST_QUOTE else f"{message[:LONGEST_QUOTE]} ... {message[-LONGEST_QUOTE:]}"


def validate(tools: list[Any], output: str, expected: Any = None, *, judged: bool = False) -> Reading:
    """Read a model's text and check every call, the whole of ``check_tool_calls`` for one case.

    Args:
        tools: documents of the tools on offer.
        output: the model's raw text.
        expected: BFCL's ground truth, a list of ``{name: {argument: [accepted values]}}``; None when
            there is none.
        judged: whether the case came with an expectation at all; then a text without any call is
            right where none is expected, and a wrong count elsewhere.

    Returns:
        the calls that could be read, and all errors.
    """
    known = offered(tools)
    reading = read(output, frozenset(known))
    if judged and not reading.calls and not LOOKS_LIKE_CALL.search(output):
        reading = Reading()  # words instead of a call
    if expected is None:
        errors = [error for number, call in enumerate(reading.calls) for error in check(call, known, number)]
        return Reading(reading.calls, reading.errors + errors)
    return Reading(reading.calls, reading.errors + _judge(reading, known, _truth(expected)))


# ------------------------------------------------------------------------------------------------
# Judging against BFCL's ground truth


def _truth(expected: Any) -> list[tuple[str, dict[str, list[Any]]]]:
    wrong = BadInput("expected: BFCL's ground truth is a list of {name: {argument: [accepted values]}}")
    if not isinstance(expected, list):
        raise wrong
    found = []
    for item in expected:
        if not isinstance(item, dict) or len(item) != 1:
            raise wrong
        (name, arguments), *_ = item.items()
        if not isinstance(arguments, dict) or not all(isinstance(accepted, list) for accepted in arguments.values()):
            raise wrong
        found.append((name, arguments))
    return found


def _judge(reading: Reading, tools: dict[str, Tool], truth: list[tuple[str, dict[str, list[Any]]]]) -> list[CallError]:
    """Match calls and expectations one to one, in any order, and say what keeps the rest apart."""
    errors: list[CallError] = []
    if len(reading.calls) != len(truth) and not reading.errors:
        errors.append(CallError("wrong_count", "calls", f"{len(reading.calls)} calls, {len(truth)} expected"))
    open_truth = list(truth)
    judged = []
    for number, call in enumerate(reading.calls):
        faults = [(each, _against(call, each, tools, number)) for each in open_truth]
        right = next((each for each, found in faults if not found), None)
        if right is not None:
            open_truth.remove(right)
        else:
            judged.append((number, call))
    for number, call in judged:
        if call.name not in tools:
            errors += check(call, tools, number)
            continue
        same = [each for each in open_truth if each[0] == call.name]
        if same:
            closest = min(same, key=lambda each: len(_against(call, each, tools, number)))
            open_truth.remove(closest)
            errors += _against(call, closest, tools, number)
        elif len(reading.calls) <= len(truth):
            wanted = ", ".join(sorted({name for name, _ in open_truth})) or "none"
            errors.append(
                CallError(
                    "unknown_function",
                    f"calls[{number}].name",
                    f"{_quote(call.name)} is not what was asked for: {wanted}",
                )
            )
    return errors


def _against(
    call: Call, truth: tuple[str, dict[str, list[Any]]], tools: dict[str, Tool], number: int
) -> list[CallError]:
    """The errors of one call beside one expectation; the tool's declaration comes first."""
    name, accepted = truth
    where = f"calls[{number}].arguments"
    if call.name != name:
        return [CallError("unknown_function", f"calls[{number}].name", f"{_quote(name)} was expected")]
    declared = check(call, tools, number, enums=False)
    if not isinstance(call.arguments, dict):
        return declared
    errors = [error for error in declared if not _forgiven(error, call, accepted, where)]
    blamed = {error.path for error in errors}
    for argument, value in call.arguments.items():
        path = f"{where}.{argument}"
        if argument in accepted and not _accepted(value, accepted[argument]):
            if not any(each.startswith(path) for each in blamed):
                errors.append(
                    CallError(
                        "value_error", path, f"not among the accepted values: {_quote(json.dumps(value, default=str))}"
                    )
                )
        elif argument not in accepted and not any(each.startswith(path) for each in blamed):
            errors.append(CallError("unexpected_param", path, f"the argument {_quote(argument)} was not asked for"))
    for argument, values in accepted.items():
        path = f"{where}.{argument}"
        if argument not in call.arguments and "" not in values and path not in blamed:
            errors.append(
                CallError("missing_required", path, f"the argument {_quote(argument)} was asked for and is missing")
            )
    return errors


def _forgiven(error: CallError, call: Call, accepted: dict[str, list[Any]], where: str) -> bool:
    """The published answers contradict their own tools at times (a name for a list, an optional mark
    on a required argument): what an accepted answer contains is no error."""
    argument = error.path.removeprefix(where + ".").split(".")[0].split("[")[0]
    if error.kind == "missing_required":
        return argument not in call.arguments and "" in accepted.get(argument, [])
    return (
        argument in accepted and argument in call.arguments and _accepted(call.arguments[argument], accepted[argument])
    )


def _accepted(value: Any, accepted: list[Any]) -> bool:
    return any(_same(value, each) for each in accepted)


STRIPPED = str.maketrans("", "", " ,./-_*^")


def _same(value: Any, wanted: Any) -> bool:
    """BFCL's equality: text without case, spaces and some marks; a dict's values are lists of accepted ones."""
    if isinstance(value, str) and isinstance(wanted, str):
        return _standard(value) == _standard(wanted)
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, dict) and isinstance(wanted, dict):
        lists = {key: each if isinstance(each, list) else [each] for key, each in wanted.items()}
        return all(key in lists and _accepted(inner, lists[key]) for key, inner in value.items()) and all(
            key in value or "" in each for key, each in lists.items()
        )
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(_same(one, other) for one, other in zip(value, wanted))
    return type(value) in (int, float, type(None)) and value == wanted


def _standard(text: str) -> str:
    return text.translate(STRIPPED).lower().replace("'", '"')

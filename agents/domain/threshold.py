"""Threshold expressions: under which conditions a decision may be carried out.

    confidence >= 0.8 OR validation from risk team
    NOT (high_risks > 2) AND confidence > 75%

Grammar (keywords in any case; AND binds before OR):

    either     = both { "OR" both }
    both       = plain { "AND" plain }
    plain      = "NOT" plain | "(" either ")" | "validation from" NAME | value COMPARISON value
    value      = number | number "%" | name
    NAME runs to AND, OR, a parenthesis or the end.

An expression is parsed, never evaluated as code. A name without a value makes its comparison unknown,
and unknown is never true, not under NOT either: what cannot be known lets nothing pass.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmn.lib.errors import BadInput

LONGEST = 1000  # characters
DEEPEST = 50  # nested NOTs and parentheses


class BadThreshold(BadInput):
    """The text is no expression of this grammar."""


@dataclass(frozen=True)
class Outcome:
    """An expression with its values put in: whether it holds, and each term as it was decided."""

    met: bool
    expression: str
    terms: list[dict[str, Any]] = field(default_factory=list)  # {term, inputs, met: true|false|null}
    reasons: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        return {"expression": self.expression, "terms": self.terms}


TOKEN = re.compile(
    r"""\s*(?:
        (?P<validation>validation\s+from\b)
      | (?P<word>(?:and|or|not)\b)
      | (?P<bracket>[()])
      | (?P<comparison>>=|<=|==|!=|≥|≤|=|>|<)
      | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?P<percent>\s*%)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
VALIDATOR = re.compile(r"\s*(?P<name>.*?)\s*(?=\b(?:and|or)\b|[()]|\Z)", re.IGNORECASE | re.DOTALL)
COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "≥": operator.ge,
    "<=": operator.le,
    "≤": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Compare:
    left: float | str
    sign: str
    right: float | str


@dataclass(frozen=True)
class Validation:
    name: str


@dataclass(frozen=True)
class Not:
    inner: Node


@dataclass(frozen=True)
class Joined:
    word: str  # and, or
    parts: tuple[Node, ...]


Node = Compare | Validation | Not | Joined


def parse(expression: str) -> Node:
    """The tree of an expression.

    Raises:
        BadThreshold: empty, too long, too deep, or not of the grammar; with the place.
    """
    if not expression.strip():
        raise BadThreshold("the threshold is empty; write for example confidence >= 0.8")
    if len(expression) > LONGEST:
        raise BadThreshold(f"the threshold has {len(expression)} characters; {LONGEST} are the most")
    return _Parser(_tokens(expression)).whole()


def _tokens(expression: str) -> list[tuple[str, str, int]]:
    tokens: list[tuple[str, str, int]] = []
    place = 0
    while expression[place:].strip():
        found = TOKEN.match(expression, place)
        if not found:
            at = place + len(expression[place:]) - len(expression[place:].lstrip())
            raise BadThreshold(f"threshold, character {at + 1}: {expression[at : at + 20]!r} is not understood")
        kind = next(name for name, text in found.groupdict().items() if text is not None)
        start = found.start(kind)
        place = found.end()
        if kind == "validation":
            rest = VALIDATOR.match(expression, place)
            name = rest["name"] if rest else ""
            if not name:
                raise BadThreshold(f"threshold, character {place + 1}: validation from whom? a name is missing")
            tokens.append(("validation", name, start))
            place = rest.end("name") if rest else place
        else:
            tokens.append((kind, found[kind].lower() if kind == "word" else found[kind], start))
    return tokens


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[tuple[str, str, int]]) -> None:
        self.tokens = tokens
        self.place = 0
        self.depth = 0

    def whole(self) -> Node:
        node = self.joined("or")
        if self.place < len(self.tokens):
            raise self.odd("AND, OR or the end")
        return node

    def joined(self, word: str) -> Node:
        parts = [self.deeper(word)]
        while self.take("word", word):
            parts.append(self.deeper(word))
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def deeper(self, word: str) -> Node:
        return self.joined("and") if word == "or" else self.plain()

    def plain(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise BadThreshold(f"the threshold is nested more than {DEEPEST} deep")
        try:
            if self.take("word", "not"):
                return Not(self.plain())
            if self.take("bracket", "("):
                inner = self.joined("or")
                if not self.take("bracket", ")"):
                    raise self.odd("a closing parenthesis")
                return inner
            if named := self.take("validation"):
                return Validation(named)
            left = self.value()
            sign = self.take("comparison")
            if not sign:
                raise self.odd("a comparison such as >=")
            return Compare(left, sign, self.value())
        finally:
            self.depth -= 1

    def value(self) -> float | str:
        if number := self.take("number"):
            return float(number.rstrip("% ")) / (100 if number.endswith("%") else 1)
        if name := self.take("name"):
            return name.lower()
        raise self.odd("a number or a name")

    def take(self, kind: str, text: str | None = None) -> str:
        """The next token's text if it is the one wanted, else nothing."""
        if self.place < len(self.tokens):
            found, value, _ = self.tokens[self.place]
            if found == kind and text in (None, value):
                self.place += 1
                return value
        return ""

    def odd(self, wanted: str) -> BadThreshold:
        if self.place < len(self.tokens):
            _, text, at = self.tokens[self.place]
            return BadThreshold(f"threshold, character {at + 1}: {text!r} stands where {wanted} was expected")
        return BadThreshold(f"the threshold ends where {wanted} was expected")


def evaluate(expression: str, values: Mapping[str, float | None], validations: Collection[str]) -> Outcome:
    """Whether an expression holds for these values.

    Args:
        expression: text of the grammar above.
        values: what the names stand for; None or absent is unknown.
        validations: who has validated; compared without case and with single spaces.

    Returns:
        the outcome. Text that is no expression is not met, and the reason says why.
    """
    try:
        tree = parse(expression)
    except BadThreshold as error:
        return Outcome(False, expression, reasons=[str(error)])
    given = {_plain(name) for name in validations}
    terms: list[dict[str, Any]] = []
    reasons: list[str] = []
    met = _holds(tree, values, given, terms, reasons)
    return Outcome(met is True, expression, terms, reasons)


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _holds(
    node: Node, values: Mapping[str, float | None], given: set[str], terms: list[dict[str, Any]], reasons: list[str]
) -> bool | None:
    """True, false or, where something is unknown, None (Kleene's three values)."""
    if isinstance(node, Not):
        inner = _holds(node.inner, values, given, terms, reasons)
        return None if inner is None else not inner
    if isinstance(node, Joined):
        parts = [_holds(part, values, given, terms, reasons) for part in node.parts]
        decisive = node.word == "or"
        if decisive in parts:
            return decisive
        return None if None in parts else not decisive
    if isinstance(node, Validation):
        met = _plain(node.name) in given
        terms.append({"term": f"validation from {node.name}", "inputs": {"validations": sorted(given)}, "met": met})
        reasons.append(f"{node.name} has {'' if met else 'not '}validated")
        return met
    return _compared(node, values, terms, reasons)


def _compared(
    node: Compare, values: Mapping[str, float | None], terms: list[dict[str, Any]], reasons: list[str]
) -> bool | None:
    term = f"{_shown(node.left)} {node.sign} {_shown(node.right)}"
    names = [side for side in (node.left, node.right) if isinstance(side, str)]
    unknown = [name for name in names if values.get(name) is None]
    if unknown:
        known = ", ".join(sorted(name for name, value in values.items() if value is not None))
        terms.append({"term": term, "inputs": dict.fromkeys(names), "met": None})
        reasons.append(f"{', '.join(unknown)} has no value; known are {known or 'none'}")
        return None
    left, right = (values[side] if isinstance(side, str) else side for side in (node.left, node.right))
    met = COMPARE[node.sign](float(left or 0.0), float(right or 0.0))
    terms.append({"term": term, "inputs": {name: values[name] for name in names}, "met": met})
    shown = ", ".join(f"{name} is {values[name]:.4g}" for name in names)
    reasons.append(f"{term}: {'holds' if met else 'does not hold'}{', ' if shown else ''}{shown}")
    return met


def _shown(side: float | str) -> str:
    return side if isinstance(side, str) else f"{side:g}"

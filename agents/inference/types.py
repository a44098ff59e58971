"""What one asks of a model server and what one gets, whatever the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Message = Mapping[str, str]  # role and content


@dataclass(frozen=True)
class Question:
    """One text to be written.

    Give ``messages`` (rendered by the server with the model's chat template) or ``prompt`` (as it
    is). ``adapter`` None means the base model. Temperature 0 is greedy. ``schema`` (JSON Schema)
    or ``pattern`` (a regular expression) constrain the answer, where the engine honours it; a
    schema is checked again on arrival in any case.
    """

    messages: Sequence[Message] = ()
    prompt: str = ""
    adapter: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: Sequence[str] = ()
    schema: Mapping[str, Any] | None = None
    pattern: str | None = None
    tenant: str = ""

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings that shape the answer, to be kept beside it."""
        named = ("max_tokens", "temperature", "top_p", "seed")
        return {name: getattr(self, name) for name in named if getattr(self, name) is not None}


@dataclass(frozen=True)
class Reply:
    """A written text and how it came about."""

    text: str
    finish: str  # stop or length
    model: str  # what the server says answered: an adapter's name, or the base model's
    fingerprint: str  # what the server says of its state; ours holds the adapter's digest
    tokens_in: int
    tokens_out: int
    latency_s: float
    data: Any = None  # the parsed answer where a schema was given


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter that the server says it serves; digest only from our own server."""

    name: str
    digest: str = ""


class InferenceClient(Protocol):
    """What every engine can do for us; errors are those of ``agents.inference.errors``."""

    def generate(self, question: Question) -> Reply:
        """Write one text."""

    def stream(self, question: Question) -> Iterator[str]:
        """Write one text, piece by piece; closing the iterator stops the work."""

    def score(self, text: str, adapter: str | None = None) -> list[float]:
        """Log-probability (natural) of each token of ``text`` after its first."""

    def adapters(self) -> list[ServedAdapter]:
        """The adapters served now, where the engine tells."""

    def load(self, name: str, folder: str, expect: Mapping[str, str] | None = None) -> None:
        """Serve an adapter folder under a name; the path is the server's own."""

    def unload(self, name: str) -> None:
        """Serve it no longer."""

    def info(self) -> dict[str, Any]:
        """The base model and limits, as the engine tells them."""

    def is_healthy(self) -> bool:
        """Whether it would answer now."""

    def close(self) -> None:
        """Let go of connections."""

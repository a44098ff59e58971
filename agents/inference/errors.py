"""What can go wrong between us and a model server, and whether trying again helps."""

from __future__ import annotations

from rmn.lib.errors import RmnError


class InferenceError(RmnError):
    """The model server did not answer as asked."""


class InvalidRequest(InferenceError):
    """The server refused the request itself (prompt too long, a parameter out of range)."""


class UnknownAdapter(InferenceError):
    """No adapter of that name is served; the base model never answers in its stead."""


class BadAdapter(InferenceError):
    """An adapter folder that is not what it says, or that we do not serve; the message names why."""


class AdapterExists(InferenceError):
    """The name is taken: a name never changes its weights."""


class GenerationFailed(InferenceError):
    """The model failed while it was writing."""

    retryable = True


class InvalidOutput(InferenceError):
    """The text does not have the structure that was asked for."""

    retryable = True


class Overloaded(InferenceError):
    """The server's queue is full; ``retry_after_s`` is its own estimate."""

    retryable = True

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class Unreachable(InferenceError):
    """No connection, a connection that broke, or a server that is not healthy yet."""

    retryable = True


class TimedOut(InferenceError):
    """The deadline passed before the answer was whole."""

    retryable = True


class CircuitOpen(Unreachable):
    """The server failed several times in a row; calls are refused at once until it has had a rest."""


class Cancelled(InferenceError):
    """Whoever asked went away."""


class NotSupported(InferenceError):
    """This engine cannot do what was asked (TGI loads adapters only when it starts)."""

"""The root of everything raised on purpose.

Each package derives its family from here. Errors take plain arguments, so that they survive the
trip from a worker, and the raiser, who knows, says in ``retryable`` whether trying again helps.
"""

from __future__ import annotations


class RmnError(Exception):
    """Something we foresaw went wrong; the message says what, where, why and what to do."""

    retryable = False


class BadInput(RmnError, ValueError):
    """What was given cannot be used as it stands; trying again unchanged will not help."""


class NotConfigured(RmnError):
    """A setting, connection or file that this work needs is missing; the message names it."""

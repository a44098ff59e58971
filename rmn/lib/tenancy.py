"""Which brands the running code acts for.

A context variable holds the scope; a request, a task and a command each set it at their door and
clear it on the way out. Querysets filter by ``visible_to(user)``; on PostgreSQL row-level security
reads the same scope from ``rmn.brands`` as the second net, so that a forgotten filter shows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.signals import connection_created

from rmn.lib.errors import RmnError

EVERYONE = "*"
NOBODY = ""
TELL = "SELECT set_config('rmn.brands', %s, %s)"
_scope: ContextVar[str] = ContextVar("rmn_brands", default=NOBODY)


class NoTenant(RmnError):
    """Work began without saying for which brand; it does nothing rather than guess."""


def current() -> str:
    """The scope in force: '*', '' or brand keys joined by commas."""
    return _scope.get()


@contextmanager
def acting_for(brand_ids: Iterable[int]) -> Iterator[None]:
    """Run the block for these brands (primary keys) and no other."""
    with _within(named(brand_ids)):
        yield


def named(brand_ids: Iterable[int]) -> str:
    """These brands (primary keys) as a scope."""
    return ",".join(str(int(key)) for key in sorted(set(brand_ids)))


@contextmanager
def everyone() -> Iterator[None]:
    """Run the block for all brands: ops staff, migrations, the operator's commands."""
    with _within(EVERYONE):
        yield


@contextmanager
def nobody() -> Iterator[None]:
    with _within(NOBODY):
        yield


@contextmanager
def in_transaction(scope: str) -> Iterator[None]:
    """Run the block in a scope as ``current`` tells it; on PostgreSQL in one transaction that carries it.

    Where the transaction is the block's own, the database forgets the scope with it: nothing is set back.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        with transaction.atomic() if connection.vendor == "postgresql" else nullcontext(), _within(scope):
            yield
        return
    with transaction.atomic():
        token = _scope.set(scope)
        with connection.cursor() as cursor, connection.connection.pipeline():  # BEGIN and the scope in one message
            cursor.execute(TELL, [scope, True])
        try:
            yield
        finally:
            _scope.reset(token)


@contextmanager
def _within(scope: str) -> Iterator[None]:
    token = _scope.set(scope)
    _apply_to_open_connections()
    try:
        yield
    finally:
        _scope.reset(token)
        _apply_to_open_connections()


def watch_connections() -> None:
    """Tell every new PostgreSQL connection the scope in force when it opens."""
    connection_created.connect(_on_connect, dispatch_uid="rmn_tenancy")


def _on_connect(connection: Any, **_: Any) -> None:
    _apply(connection)


def _apply_to_open_connections() -> None:
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            _apply(connection)


def _apply(connection: Any) -> None:
    if connection.vendor != "postgresql" or connection.needs_rollback or connection.connection.closed:
        return
    # Inside a transaction the setting dies with it, so that a pooled connection carries nothing over.
    local = connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute(TELL, [_scope.get(), local])

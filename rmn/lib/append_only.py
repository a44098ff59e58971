"""Tables whose lines are added and never changed: the database itself refuses what would change them.

A model says so with ``append_only = True``; after every ``migrate`` its triggers are there, also where
SQLite has built the table anew. They stop mistakes and stolen application passwords. The owner of the
database can switch them off; what was altered then is found by the audit chain and its exported heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.db.models.signals import post_migrate

WATCH = "append only"
WHY = "lines are added here, never changed or taken out"
FUNCTION = f"""
CREATE OR REPLACE FUNCTION rmn_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('rmn.append_only_open', true) = 'yes' THEN
    IF TG_OP = 'DELETE' THEN RETURN OLD; ELSIF TG_OP = 'UPDATE' THEN RETURN NEW; ELSE RETURN NULL; END IF;
  END IF;
  RAISE EXCEPTION '%: {WHY}', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$
"""


def watch() -> None:
    post_migrate.connect(_after_migrate, dispatch_uid=WATCH)


def _after_migrate(app_config: Any, using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    for model in app_config.get_models():
        if getattr(model, "append_only", False):
            protect(model, using)


def tables() -> list[type[models.Model]]:
    return [model for model in apps.get_models() if getattr(model, "append_only", False)]


def protect(model: type[models.Model], using: str = DEFAULT_DB_ALIAS) -> None:
    """Put the triggers on a table; those that are there stay."""
    base = connections[using]
    table = model._meta.db_table
    there = guards(model, using)
    with base.cursor() as cursor:
        if base.vendor == "postgresql" and not there:
            cursor.execute(FUNCTION)
        for event in _events(base.vendor):
            if _name(table, event) not in there:
                cursor.execute(_trigger(base.vendor, table, event))


def release(model: type[models.Model], using: str = DEFAULT_DB_ALIAS) -> None:
    """Take the triggers off again."""
    base = connections[using]
    with base.cursor() as cursor:
        for name in sorted(guards(model, using)):
            on = f" ON {model._meta.db_table}" if base.vendor == "postgresql" else ""
            cursor.execute(f"DROP TRIGGER {name}{on}")


def guards(model: type[models.Model], using: str = DEFAULT_DB_ALIAS) -> set[str]:
    """The names of the triggers that a table has of those it must have."""
    base, table = connections[using], model._meta.db_table
    asked = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s",
        "postgresql": "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal",
        "mysql": "SELECT trigger_name FROM information_schema.triggers WHERE event_object_schema = DATABASE() AND event_object_table = %s",
    }[base.vendor]
    with base.cursor() as cursor:
        cursor.execute(asked, [table])
        return {row[0] for row in cursor.fetchall()} & {_name(table, event) for event in _events(base.vendor)}


@contextmanager
def opened() -> Iterator[None]:
    """Inside, in this transaction alone, lines may be taken out: a tenant is erased, a backup restored.

    Raises:
        RuntimeError: outside a transaction.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("append-only tables are opened inside a transaction")
    if connection.vendor == "sqlite":  # it has no settings of a session, but its DDL rolls back
        closed = [model for model in tables() if guards(model)]
        for model in closed:
            release(model)
        yield
        for model in closed:
            protect(model)
    elif connection.vendor == "postgresql":  # ends with the transaction, rolls back with it
        _set("SELECT set_config('rmn.append_only_open', 'yes', true)")
        yield
        _set("SELECT set_config('rmn.append_only_open', '', true)")
    else:
        _set("SET @rmn_append_only_open = 1")
        try:
            yield
        finally:
            _set("SET @rmn_append_only_open = NULL")


def _set(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _events(vendor: str) -> tuple[str, ...]:
    return ("update", "delete", "truncate") if vendor == "postgresql" else ("update", "delete")


def _name(table: str, event: str) -> str:
    return f"{table}_no_{event}"


def _trigger(vendor: str, table: str, event: str) -> str:
    name, said = _name(table, event), f"{table}: {WHY}"
    begin = f"CREATE TRIGGER {name} BEFORE {event.upper()} ON {table}"
    if vendor == "sqlite":
        return f"{begin} BEGIN SELECT RAISE(ABORT, '{said}'); END"
    if vendor == "postgresql":
        each = "STATEMENT" if event == "truncate" else "ROW"
        return f"{begin} FOR EACH {each} EXECUTE FUNCTION rmn_append_only()"
    return (
        f"{begin} FOR EACH ROW BEGIN IF @rmn_append_only_open IS NULL THEN"
        f" SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{said}'; END IF; END"
    )

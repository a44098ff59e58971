"""Row-level security on PostgreSQL: the second net under ``visible_to``.

Every table with a ``brand_id`` gets one policy that compares it with ``rmn.brands`` (see
rmn.lib.tenancy): '*' for all, '' for none, or brand keys joined by commas. FORCE binds the table's
owner too; the application should still run under a role that owns nothing. Rows of no brand are
shared knowledge, which only '*' sees. Memberships are read to find out whom somebody acts for and
so stay outside.
"""

from __future__ import annotations

from typing import Any

from django.db.migrations.operations.base import Operation

UNPROTECTED = frozenset({"retailers_membership", "retailers_historicalmembership"})

# the scalar subqueries are asked once a query, not once a row
WALL = (
    "(SELECT current_setting(''rmn.brands'', true)) = ''*'' OR "
    "%I = ANY ((SELECT string_to_array(nullif(current_setting(''rmn.brands'', true), ''*''), '',''))::bigint[])"
)
PROTECT = """
DO $$
DECLARE t record;
BEGIN
  FOR t IN
    SELECT c.table_name, CASE WHEN c.column_name = 'brand_id' THEN 'brand_id' ELSE 'id' END AS key
    FROM information_schema.columns c
    JOIN information_schema.tables USING (table_schema, table_name)
    WHERE c.table_schema = current_schema() AND table_type = 'BASE TABLE'
      AND c.table_name LIKE '{app}\\_%'
      AND (c.column_name = 'brand_id' OR (c.table_name = 'retailers_brand' AND c.column_name = 'id'))
      AND c.table_name NOT IN ({unprotected})
      AND NOT EXISTS (SELECT 1 FROM pg_policies p WHERE p.schemaname = c.table_schema AND p.tablename = c.table_name)
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t.table_name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t.table_name);
    EXECUTE format(
      'CREATE POLICY brand_wall ON %I USING ({wall})',
      t.table_name, t.key);
  END LOOP;
END $$
"""
RENEW = """
DO $$
DECLARE p record;
BEGIN
  FOR p IN SELECT tablename FROM pg_policies WHERE schemaname = current_schema() AND policyname = 'brand_wall' LOOP
    EXECUTE format('ALTER POLICY brand_wall ON %I USING ({wall})',
      p.tablename, CASE WHEN p.tablename = 'retailers_brand' THEN 'id' ELSE 'brand_id' END);
  END LOOP;
END $$
"""


class ProtectTables(Operation):
    """Put the wall on every table of an app that holds a brand and has none yet; no-op elsewhere."""

    reversible = True
    reduces_to_sql = False

    def __init__(self, app: str) -> None:
        self.app = app

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (type(self).__name__, [self.app], {})

    def state_forwards(self, app_label: str, state: Any) -> None:
        """The models do not change."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:  # noqa: ARG002
        if schema_editor.connection.vendor == "postgresql":
            names = ", ".join(f"'{name}'" for name in sorted(UNPROTECTED))
            # Deferred constraint checks hold the tables; run them before altering.
            schema_editor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            said = PROTECT.replace("{app}", self.app).replace("{unprotected}", names).replace("{wall}", WALL)
            schema_editor.execute(said, params=None)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """The wall goes with its tables."""

    def describe(self) -> str:
        return f"Row-level security on the tables of {self.app}"


class RenewWalls(Operation):
    """Give the walls that stand already the condition of now; no-op elsewhere."""

    reversible = True
    reduces_to_sql = False

    def state_forwards(self, app_label: str, state: Any) -> None:
        """The models do not change."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:  # noqa: ARG002
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(RENEW.replace("{wall}", WALL), params=None)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Both conditions say the same."""

    def describe(self) -> str:
        return "Row-level security asks whose rows may be seen once a query"

"""Which earlier cases are remembered: ranked by the database where it compares vectors, else here."""

from __future__ import annotations

import math

import pytest
from django.db import connection

from agents import journal
from agents.domain import memory
from agents.models import ReflectionLog
from tests.conftest import People
from tests.factories import ReflectionFactory

STAND_IN = """
CREATE DOMAIN vector AS text;
CREATE FUNCTION cosine_distance_of_texts(a text, b text) RETURNS float8 LANGUAGE sql AS $$
  SELECT 1 - sum(x.v::float8 * y.v::float8)
  FROM jsonb_array_elements_text(a::jsonb) WITH ORDINALITY x(v, i)
  JOIN jsonb_array_elements_text(b::jsonb) WITH ORDINALITY y(v, i) USING (i) $$;
CREATE OPERATOR <=> (LEFTARG = text, RIGHTARG = text, FUNCTION = cosine_distance_of_texts);
"""


def cosine(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(memory.embedding(one), memory.embedding(other), strict=True))


def test_an_embedding_has_unit_length_and_texts_that_share_words_point_the_same_way() -> None:
    assert math.hypot(*memory.embedding("Budget of Q3 2024")) == pytest.approx(1, abs=1e-4)
    assert memory.embedding("") == [0.0] * memory.WIDTH
    assert cosine("Budget of Q3 2024, achieved 3.2x ROAS", "budgets of Q3") > 0.4
    assert abs(cosine("Budget of Q3 2024", "headline for oat drink")) < 0.2


@pytest.mark.django_db
def test_without_pgvector_the_newest_decisions_are_compared_here(people: People) -> None:
    if connection.vendor == "postgresql" and journal.compares_vectors():
        pytest.skip("this database compares vectors")
    ReflectionFactory.create_batch(3, brand=people.brand, context="Budget of Q3", decision="approved")
    assert not journal.compares_vectors()
    assert journal.remembered(people.brand, "Budget of Q3")
    assert not ReflectionLog.objects.exclude(embedding=[]).exists()


def test_the_database_is_asked_for_the_nearest_of_the_brand_by_cosine() -> None:
    rows = ReflectionLog.objects.filter(brand=7).most_like([0.5, -0.5])
    sql, values = rows.query.sql_with_params()
    where, order = sql.index("WHERE"), sql.index("ORDER BY")
    told = '("agents_reflectionlog"."embedding"::text::vector <=> %s::vector)'
    assert told in sql.replace("`", '"')  # MySQL quotes otherwise
    assert "brand_id" in sql[where:order]
    columns = sql[: sql.index("FROM")].count(", ") + 1
    assert sql[order:].startswith(f"ORDER BY {columns} ASC")  # the distance is the last column
    assert "[0.5, -0.5]" in values


@pytest.mark.django_db
def test_other_words_make_another_embedding_and_other_fields_do_not(people: People) -> None:
    log = ReflectionFactory(brand=people.brand, context="Budget of Q3", decision="approved")
    ReflectionLog.objects.filter(pk=log.pk).update(embedding=[1.0])
    log.refresh_from_db()
    log.phase = "review"
    log.save(update_fields=["phase"])
    log.refresh_from_db()
    assert log.embedding == [1.0]
    log.outcome = "achieved 3.2x ROAS"
    log.save(update_fields=["outcome"])
    log.refresh_from_db()
    assert log.embedding == []


@pytest.mark.django_db
def test_where_vectors_are_compared_all_decisions_of_the_brand_are_ranked_there(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL with a stand-in for the extension's type and operator; the extension itself was not there."""
    if connection.vendor != "postgresql" or journal.compares_vectors():
        pytest.skip("PostgreSQL without the extension is needed")
    with connection.cursor() as cursor:
        cursor.execute(STAND_IN)
    monkeypatch.setattr(journal, "compares_vectors", lambda: True)
    monkeypatch.setattr(journal, "MOST_REMEMBERED", 1)  # here, only the newest would be looked at
    ReflectionFactory(brand=people.brand, context="Budget of Q3 2024", decision="approved", outcome="3.2x ROAS")
    ReflectionFactory(brand=people.other, context="Budget of Q3 2024", decision="approved", outcome="a secret")
    ReflectionFactory.create_batch(5, brand=people.brand, context="Headline for oat drink", decision="approved")
    found = journal.remembered(people.brand, "Budget of Q3")
    assert [case["came"] for case in found] == ["3.2x ROAS"]
    assert not ReflectionLog.objects.filter(brand=people.brand, embedding=[]).exists()
    assert ReflectionLog.objects.get(brand=people.other).embedding == []

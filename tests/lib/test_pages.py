from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import Http404
from django.template.loader import render_to_string
from django.test import RequestFactory

from rmn.lib import charts, pages
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db


def table(query: dict[str, Any] | None = None, **more: Any) -> pages.Table:
    request = RequestFactory().get("/people", query or {})
    columns = [
        pages.Column("username", "Name", sort="username"),
        pages.Column("pk", "Key", sort="pk"),
        *(pages.Column(f"c{n}", f"Column {n}", value=lambda row: "x") for n in range(8)),
    ]
    rows = more.pop("source", User.objects.order_by("pk"))
    return pages.Table(request, rows, columns, title="People", search=["username"], per_page=3, order="pk", **more)


def names(made: pages.Table) -> list[str]:
    return [row[0].words for row in made.rows]


@pytest.fixture(autouse=True)
def _people() -> None:
    for name in ("dora", "anna", "cara", "bert"):
        UserFactory(username=name)


def test_sort_search_and_page_stand_in_the_address() -> None:
    assert names(table()) == ["dora", "anna", "cara"]
    assert names(table({"page": "2"})) == ["bert"]
    assert names(table({"sort": "username"})) == ["anna", "bert", "cara"]
    assert names(table({"sort": "-username"})) == ["dora", "cara", "bert"]
    assert names(table({"q": "ann"})) == ["anna"]


def test_a_sort_or_filter_that_nobody_offers_is_ignored() -> None:
    assert names(table({"sort": "password"})) == ["dora", "anna", "cara"]
    chosen = pages.Filter("staff", "Staff", [("1", "Yes")], field="is_staff")
    assert len(names(table({"staff": "drop table"}, filters=[chosen]))) == 3
    assert names(table({"staff": "1"}, filters=[chosen])) == []
    assert names(table({"page": "nonsense", "q": "\x00"})) == ["dora", "anna", "cara"]


def test_columns_beyond_the_seventh_wait_behind_more() -> None:
    made = table()
    assert made.has_more_columns
    assert [head.classes for head in made.heads][7] == "more"


def test_the_whole_table_exports_and_formulas_leave_as_text() -> None:
    User.objects.filter(username="bert").update(username="=HYPERLINK(1)")
    answer = table({"export": "csv"}).answer()
    text = b"".join(answer.streaming_content).decode()
    assert text.count("\n") == 5
    assert "'=HYPERLINK(1)" in text
    assert table().answer() is None


def test_what_people_typed_is_shown_as_text() -> None:
    User.objects.filter(username="bert").update(username="<script>alert(1)</script>")
    html = render_to_string("parts/table.html", {"table": table({"page": "2", "q": ""})})
    assert "<script>alert" not in html
    assert "&lt;script&gt;" in html


def test_an_empty_table_says_how_to_fill_it() -> None:
    html = render_to_string("parts/table.html", {"table": table(source=[], empty="Load a feed first.")})
    assert "Load a feed first." in html


def test_a_picture_comes_as_svg_and_as_numbers() -> None:
    spec = charts.bars("who", "answers", x_title="Answers")
    drawn = charts.picture(spec, "Anna answers most", "Bars per person.", [{"who": "anna", "answers": 3}], key="who")
    svg = pages.show(RequestFactory().get("/", {"picture": "who.svg"}), "404.html", {}, [drawn])
    assert svg["Content-Type"] == "image/svg+xml"
    assert b"anna,3" in pages.show(RequestFactory().get("/", {"picture": "who.csv"}), "404.html", {}, [drawn]).content
    with pytest.raises(Http404):
        pages.show(RequestFactory().get("/", {"picture": "other.svg"}), "404.html", {}, [drawn])

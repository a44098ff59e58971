"""Clean rooms: paid once, asked with one key, checked before anything is shown, walled by brand."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from django.db import connection as database
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from agents import rooms, tasks
from agents.domain import rooms as rules
from agents.models import CleanRoomLedger, CleanRoomQuery
from retailers.models import AuditEntry
from rmn.lib import sealing, tenancy
from rmn.lib.errors import BadInput, NotConfigured
from tests.conftest import People
from tests.factories import CleanRoomConnectionFactory

REACH = {
    "name": "reach",
    "sql": "SELECT segment, COUNT(DISTINCT person) AS users FROM impressions WHERE day >= :start GROUP BY segment",
    "parameters": {"start": "date"},
    "cost": 1.0,
}
ASKED = {"start": "2026-01-01"}


class Room(ThreadingHTTPServer):
    """A clean room that heeds the key of a question, and sometimes acts and does not answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Desk)
        self.acted: dict[str, Any] = {}
        self.calls = 0
        self.drop: Any = lambda: False
        self.rows: Any = [{"segment": "a", "users": 900}, {"segment": "b", "users": 400}]
        self.status = 200


class Desk(BaseHTTPRequestHandler):
    server: Room

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        room = self.server
        room.calls += 1
        if self.headers["Authorization"] != "Bearer secret":
            return self._say(401, {})
        if room.status != 200:
            return self._say(room.status, {})
        room.acted.setdefault(self.headers["Idempotency-Key"], body)
        if room.drop():
            self.close_connection = True
            return self.connection.close()
        return self._say(200, {"rows": room.rows})

    def _say(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def room(settings: Any) -> Iterator[Room]:
    server = Room()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings.RMN_OUTBOUND_ALLOW = [f"http://127.0.0.1:{server.server_port}"]
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(people: People, room: Room) -> Any:
    return CleanRoomConnectionFactory(
        brand=people.brand,
        retailer=people.retailer,
        name="Retailer's room",
        endpoint=f"http://127.0.0.1:{room.server_port}",
        sealed_key=sealing.seal("secret", str(people.brand.uuid)),
        budget_units=3,
        k_threshold=50,
        templates=[REACH],
    )


def ask(place: Any, **parameters: Any) -> CleanRoomQuery:
    query = rooms.wish(brand=place.brand, connection=place, template="reach", parameters=parameters or ASKED)
    return again(query)


def again(query: CleanRoomQuery) -> CleanRoomQuery:
    tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
    query.refresh_from_db()
    return query


@pytest.mark.django_db
def test_an_answer_is_paid_for_checked_and_told_in_the_audit_chain(place: Any, room: Room) -> None:
    query = ask(place)
    assert (query.state, query.error) == ("released", "")
    assert query.result == {"rows": room.rows, "total": 1300}
    assert rooms.used(place) == 1
    (said,) = room.acted.values()
    assert said["parameters"] == {"start": "2026-01-01"}
    assert AuditEntry.objects.filter(action="clean room answer released").count() == 1
    assert "secret" not in json.dumps(list(CleanRoomQuery.objects.values("config", "result", "log")), default=str)


@pytest.mark.django_db
def test_small_groups_are_left_out_and_so_is_what_would_give_them_away(place: Any, room: Room) -> None:
    room.rows = [{"segment": "a", "users": 900}, {"segment": "b", "users": 400}, {"segment": "c", "users": 7}]
    query = ask(place)
    assert query.result == {"rows": [{"segment": "a", "users": 900}]}
    assert query.suppressed == 2


@pytest.mark.django_db
def test_a_question_that_differs_by_a_few_people_is_not_shown_but_paid(place: Any, room: Room) -> None:
    ask(place)
    room.rows = [{"segment": "a", "users": 900}, {"segment": "b", "users": 403}]
    query = ask(place, start="2026-01-02")
    assert query.state == "refused"
    assert "fewer than 50 people" in query.error
    assert query.result is None
    assert rooms.used(place) == 2


@pytest.mark.django_db
def test_the_budget_ends_and_says_so(place: Any) -> None:
    states = [ask(place).state for _ in range(5)]
    assert states == ["released", "released", "released", "refused", "refused"]
    assert rooms.used(place) == 3
    assert "0 of 3 are left" in CleanRoomQuery.objects.filter(state="refused").first().error


@pytest.mark.django_db
def test_lost_answers_are_asked_for_again_and_neither_side_pays_twice(place: Any, room: Room) -> None:
    """The peer acts on every question and drops every third answer."""
    place.budget_units = 1000
    place.save()
    room.drop = lambda: room.calls % 3 == 0
    for _ in range(40):
        query = ask(place)
        for _ in range(3):
            if query.status == "succeeded":
                break
            assert query.retryable
            CleanRoomQuery.objects.filter(pk=query.pk).update(status="queued")
            again(query)
        assert query.state == "released"
    assert len(room.acted) == 40 == rooms.used(place)
    assert CleanRoomLedger.objects.filter(entry="spend").count() == 40


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["intent", "reserved", "submitted", "running", "fetched"])
def test_a_question_killed_at_any_step_ends_once(place: Any, room: Room, state: str) -> None:
    query = rooms.wish(brand=place.brand, connection=place, template="reach", parameters=ASKED)
    if state != "intent":
        rooms._reserve(query)
    CleanRoomQuery.objects.filter(pk=query.pk).update(state=state)
    assert again(query).state == "released"
    assert again(query).state == "released"
    assert rooms.used(place) == 1
    assert room.calls == 1


@pytest.mark.django_db
def test_a_room_that_says_no_costs_nothing(place: Any, room: Room) -> None:
    room.status = 403
    query = ask(place)
    assert (query.state, query.status) == ("refused", "failed")
    assert "status 403" in query.error
    assert rooms.used(place) == 0


@pytest.mark.django_db
def test_without_address_or_key_nothing_is_invented(place: Any, settings: Any) -> None:
    settings.RMN_OUTBOUND_ALLOW = []
    query = ask(place)
    assert query.status == "failed"
    assert query.result is None
    assert rooms.used(place) == 0
    place.sealed_key = ""
    with pytest.raises(NotConfigured, match="no key"):
        rooms.wish(brand=place.brand, connection=place, template="reach", parameters=ASKED)


@pytest.mark.django_db
def test_a_strangers_room_is_as_unknown_as_none(people: People, place: Any, room: Room) -> None:
    body = {"connection": str(place.uuid), "template": "reach", "parameters": ASKED}
    for person, status in ((people.stranger, 400), (people.owner, 403), (people.colleague, 202)):
        said = people.api(person).post("/api/v1/clean-room-queries/", body, format="json")
        assert said.status_code in (status, 403), (person, said.content)
    assert CleanRoomQuery.objects.count() == 1
    with pytest.raises(BadInput):
        rooms.wish(brand=people.other, connection=place, template="reach", parameters=ASKED)


@pytest.mark.parametrize(
    "rows", [None, "x", [1], [{"users": "7"}], [{"users": -1}], [{"people": 90}], [{"users": True}]]
)
def test_an_answer_that_does_not_count_people_is_not_shown(rows: Any) -> None:
    with pytest.raises(BadInput):
        rules.protected(rows, "users", 50)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("date", "2026-13-01"), ("date", "x' OR 1=1"), ("integer", 1.5), ("integer", True), ("number", float("nan")), ("text", "a'; DROP TABLE x"), (["a", "b"], "c"), ("number", "7")],
)  # fmt: skip
def test_a_parameter_of_another_kind_is_refused(kind: Any, value: Any) -> None:
    asked = rules.template(REACH | {"parameters": {"start": kind}})
    with pytest.raises(BadInput, match="start"):
        rules.checked(asked, {"start": value})


@pytest.mark.parametrize(
    "change",
    [
        {"sql": "DELETE FROM impressions WHERE day >= :start"},
        {"sql": "SELECT 1 WHERE :start; SELECT 2"},
        {"sql": "SELECT 1"},
        {"sql": "SELEC"},
        {"parameters": {"start": "date", "end": "date"}},
        {"parameters": {"start": "guess"}},
        {"name": "No Spaces"},
        {"cost": -1},
    ],
)
def test_a_template_that_is_not_one_reviewed_select_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        rules.template(REACH | change)


def test_a_secret_opens_for_its_owner_alone(settings: Any) -> None:
    sealed = sealing.seal("secret", "one")
    assert "secret" not in sealed
    assert sealing.unseal(sealed, "one") == "secret"
    with pytest.raises(NotConfigured):
        sealing.unseal(sealed, "two")


@pytest.mark.django_db
def test_the_console_takes_a_key_and_never_shows_it(people: People, place: Any) -> None:
    client = people.web(people.ops)
    url = f"/admin/agents/cleanroomconnection/{place.pk}/change/"
    page = client.get(url).content.decode()
    assert place.sealed_key not in page
    assert "secret" not in page.replace("secret_", "")
    assert database.vendor
    bad = {"brand": place.brand_id, "retailer": place.retailer_id, "name": "R", "kind": "generic", "endpoint": "https://r.example.com", "budget_units": 5, "k_threshold": 50, "templates": json.dumps([REACH | {"sql": "DROP TABLE x"}]), "is_active": "on", "key": "new"}  # fmt: skip
    assert "one SELECT" in client.post(url, bad).content.decode().replace("One", "one")
    client.post(url, bad | {"templates": json.dumps([REACH])})
    place.refresh_from_db()
    assert sealing.unseal(place.sealed_key, str(place.brand.uuid)) == "new"


# -- what returns gives nobody away

CELLS = st.lists(st.integers(0, 400), min_size=1, max_size=16)


def grid(people: list[int], wide: int) -> list[dict[str, Any]]:
    return [{"region": f"r{n // wide}", "age": f"a{n % wide}", "users": count} for n, count in enumerate(people)]


def solutions(rows: list[dict[str, Any]], kept: list[dict[str, Any]], k: int) -> dict[int, bool]:
    """Of each row that is small: whether rows shown and every margin of several rows and at least ``k`` people leave it open."""
    names = [("region",), ("age",), ()]
    lines, shown = [], [row in kept for row in rows]
    for some in names:
        groups: dict[Any, list[int]] = {}
        for place, row in enumerate(rows):
            groups.setdefault(tuple(row[name] for name in some), []).append(place)
        lines += [
            places
            for places in groups.values()
            if len(places) > 1 and sum(rows[place]["users"] for place in places) >= k
        ]
    lines += [[place] for place, seen in enumerate(shown) if seen]
    table = np.zeros((len(lines), len(rows)))
    for line, places in enumerate(lines):
        table[line, places] = 1
    rank = np.linalg.matrix_rank(table)
    return {
        place: np.linalg.matrix_rank(np.vstack([table, np.eye(len(rows))[place]])) > rank
        for place, row in enumerate(rows)
        if row["users"] < k
    }


@given(CELLS, st.integers(1, 4))
def test_no_small_group_can_be_worked_out_from_margins(people: list[int], wide: int) -> None:
    rows = grid(people, wide)
    kept, left_out = rules.protected(rows, "users", 50)
    assert left_out == len(rows) - len(kept)
    assert all(row["users"] >= 50 for row in kept)
    if kept:  # where nothing is returned, nothing can be worked out from it
        assert all(solutions(rows, kept, 50).values()), (rows, kept)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=12))
def test_what_a_total_lacks_is_never_one_group_or_a_few_people(people: list[int]) -> None:
    rows = [{"segment": f"s{n}", "users": count} for n, count in enumerate(people)]
    kept, left_out = rules.protected(rows, "users", 50)
    lacks = sum(people) - sum(row["users"] for row in kept)
    if left_out and sum(people) >= 50:
        assert left_out >= 2
        assert lacks >= 50


def test_answers_that_overlap_may_not_differ_by_a_few_people() -> None:
    fine = grid([100, 200, 300, 400], 2)
    coarse = [{"region": "r0", "users": 300}, {"region": "r1", "users": 690}]
    told = {"rows": fine, "total": 1000}
    assert rules.few_apart(coarse, "users", [told], 50)  # r1 lacks ten
    assert not rules.few_apart([coarse[0], {"region": "r1", "users": 600}], "users", [told], 50)
    assert not rules.few_apart([coarse[0]], "users", [told], 50)
    moved = [{**row, "users": row["users"] + add} for row, add in zip(fine, (7, -7, 0, 0))]
    assert rules.few_apart(moved, "users", [told], 50)  # the same total, two groups changed by seven
    assert rules.few_apart(moved, "users", [{"rows": fine[:2]}], 50)
    assert not rules.few_apart(fine, "users", [told], 50)


def test_answers_by_too_many_columns_are_not_shown() -> None:
    with pytest.raises(BadInput, match="at most 6"):
        rules.protected([{f"c{n}": "x" for n in range(7)} | {"users": 9}], "users", 5)


@pytest.mark.django_db(transaction=True)
def test_of_twenty_who_want_the_last_unit_one_gets_it(people: People, place: Any) -> None:
    place.budget_units = 1
    place.save()
    wishes = [rooms.wish(brand=place.brand, connection=place, template="reach", parameters=ASKED) for _ in range(20)]
    start = threading.Barrier(20)

    def take(query: CleanRoomQuery) -> str:
        try:
            with tenancy.everyone():
                start.wait()
                rooms._reserve(query)
                return "got it"
        except rooms.RoomRefused:
            return "refused"
        finally:
            database.close()

    with ThreadPoolExecutor(20) as pool:
        said = list(pool.map(take, wishes))
    assert (said.count("got it"), said.count("refused")) == (1, 19)
    assert rooms.used(place) == 1


# -- the page


@pytest.mark.django_db
def test_the_page_shows_the_budget_asks_and_marks_what_is_left_out(people: People, place: Any, room: Room) -> None:
    room.rows = [{"segment": "a", "users": 900}, {"segment": "<b>", "users": 400}, {"segment": "c", "users": 7}]
    client, url = people.web(people.colleague), reverse("clean-room", args=[place.uuid])
    assert "3</b> of 3 units left" in client.get(url).content.decode()
    wrong = client.post(url, {"template": "reach", "start": "soon"})
    assert wrong.status_code == 422
    assert not CleanRoomQuery.objects.exists()
    said = client.post(url, {"template": "reach", "start": "2026-01-01"})
    assert said.status_code == 302
    query = again(CleanRoomQuery.objects.get())
    page = client.get(said["Location"]).content.decode()
    assert "2 groups left out" in page
    assert "<td>900</td>" in page
    assert "2</b> of 3 units left" in client.get(reverse("clean-rooms")).content.decode()
    assert query.requested_by == people.colleague
    place.budget_units = 1
    place.save()
    other = ask(place)
    page = client.get(reverse("clean-room-query", args=[other.pk])).content.decode()
    assert "Nothing is shown" in page
    assert "0 of 1 are left" in page


@pytest.mark.django_db
def test_marketers_read_and_do_not_ask_and_strangers_see_nothing(people: People, place: Any, room: Room) -> None:
    query, url = ask(place), reverse("clean-room", args=[place.uuid])
    owner, stranger = people.web(people.owner), people.web(people.stranger)
    assert "Only analysts and ops" in owner.get(url).content.decode()
    assert owner.post(url, {"template": "reach", "start": "2026-01-01"}).status_code == 403
    assert owner.get(reverse("clean-room-query", args=[query.pk])).status_code == 200
    assert stranger.get(url).status_code == stranger.post(url).status_code == 404
    assert stranger.get(reverse("clean-room-query", args=[query.pk])).status_code == 404
    page = stranger.get(reverse("clean-rooms")).content.decode()
    assert "No clean room is connected" in page
    assert "reach" not in page
    assert people.web(people.colleague).post(url, {"template": "all"}).status_code == 422
    assert CleanRoomQuery.objects.count() == 1

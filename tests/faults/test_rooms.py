"""Clean rooms that act and do not answer, and workers that are killed in the middle of a question (kill -9)."""

from __future__ import annotations

import os
import random
import signal
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from agents import rooms, tasks
from agents.models import CleanRoomLedger, CleanRoomQuery
from rmn.lib import outbound
from tests.agents import test_rooms as generic
from tests.agents import test_rooms_aws as aws
from tests.agents.test_rooms import ASKED, again, room  # noqa: F401  # a fixture
from tests.agents.test_rooms_aws import amazon  # noqa: F401  # a fixture

places = {"generic": generic.place, "aws": aws.place}


@pytest.fixture(params=["generic", "aws"])
def peer(request: pytest.FixtureRequest, people: Any) -> tuple[Any, Any]:
    """A room and its connection, of either kind."""
    server = request.getfixturevalue("room" if request.param == "generic" else "amazon")
    made = places[request.param].__wrapped__(people, server)  # type: ignore[attr-defined]
    made.budget_units = 100_000
    made.save()
    server.page = 100
    return server, made


def acted(server: Any) -> int:
    return len(server.acted) if isinstance(server, generic.Room) else len(server.queries)


def finished(query: CleanRoomQuery) -> CleanRoomQuery:
    """As the sweep does it: sent again until it has ended."""
    for _ in range(30):
        query.refresh_from_db()
        if query.status in ("succeeded", "cancelled") or (query.status == "failed" and not query.retryable):
            break
        lapsed = timezone.now() - timedelta(hours=1)
        CleanRoomQuery.objects.filter(pk=query.pk, status="running").update(lease_until=lapsed)
        CleanRoomQuery.objects.filter(pk=query.pk, status="failed").update(status="queued")
        again(query)
    return query


@pytest.mark.django_db(transaction=True)
def test_a_peer_that_drops_a_third_of_its_answers_is_paid_once_for_each(peer: tuple[Any, Any]) -> None:
    server, place = peer
    rng, count = random.Random(30), 200 if isinstance(server, generic.Room) else 60
    server.drop = lambda: rng.random() < 0.3
    for _ in range(count):
        query = rooms.wish(brand=place.brand, connection=place, template="reach", parameters=ASKED)
        assert finished(query).state == "released", query.error
    assert acted(server) == count == rooms.used(place)
    assert CleanRoomLedger.objects.filter(entry="spend").count() == count
    assert not CleanRoomLedger.objects.filter(entry="release").exists()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="a killed process needs a database outside of the test's own")
@pytest.mark.django_db(transaction=True)
def test_of_fifty_killed_workers_none_leaves_a_question_stuck_or_paid_twice(peer: tuple[Any, Any]) -> None:
    """Killed before or after the n-th statement or request, so in every state and in the middle of transactions."""
    server, place = peer
    killed, states = 0, set()
    for n in range(50):
        query = rooms.wish(brand=place.brand, connection=place, template="reach", parameters=ASKED)
        connection.close()
        child = os.fork()
        if child == 0:
            die_at(n // 2 + 1, before=n % 2 == 0)
            tasks.ask_clean_room(str(query.pk), tenant=query.tenant)
            os._exit(0)
        _, how = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(how) and os.WTERMSIG(how) == signal.SIGKILL
        query.refresh_from_db()
        states.add(query.state)
        assert finished(query).state == "released", (n, query.error)
    assert killed >= 40
    assert states >= {"intent", "reserved", "submitted", "fetched"}
    assert acted(server) == 50 == rooms.used(place)
    assert CleanRoomLedger.objects.filter(entry="spend").count() == 50


def die_at(step: int, *, before: bool) -> None:
    """In a child: end it by signal 9 at its n-th statement or request."""
    left = [step]

    def counted(act: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and before:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = act()
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    def statement(execute: Any, *given: Any) -> Any:
        return counted(lambda: execute(*given))

    fetch = outbound.fetch
    outbound.fetch = lambda *given, **named: counted(lambda: fetch(*given, **named))
    connection.execute_wrappers.append(statement)

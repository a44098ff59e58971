"""Schedules fire once: under three beats, after an hour without any, and when the clock jumps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import OperationalError
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from rmn.celery import app
from rmn.schedules import ClaimedEntry, OnceScheduler

pytestmark = pytest.mark.django_db
START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PERIOD = 30


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(OnceScheduler, "apply_async", lambda self, entry, **_: found.append(entry.name))
    monkeypatch.setattr(OnceScheduler, "producer", None)  # nothing goes to a broker
    monkeypatch.setattr("django_celery_beat.schedulers.close_old_connections", lambda: None)
    return found


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(START, tick=False) as found:
        every = IntervalSchedule.objects.create(every=PERIOD, period="seconds")
        PeriodicTask.objects.create(name="sweep", task="rmn.tasks.sweep", interval=every)
        yield found


def beats(count: int) -> list[OnceScheduler]:
    found = [OnceScheduler(app=app, lazy=True) for _ in range(count)]
    for one in found:
        one.setup_schedule = lambda: None  # type: ignore[method-assign]  # the test's schedule alone
    return found


def pass_by(clock: Any, who: list[OnceScheduler], seconds: int, step: int = 10, in_turn: bool = True) -> None:
    for n in range(seconds // step):
        clock.shift(timedelta(seconds=step))
        first = n % len(who) if in_turn else 0
        for one in who[first:] + who[:first]:
            clock.shift(timedelta(milliseconds=1))  # no two look at the same moment
            one.tick()


def test_three_beats_send_each_tick_once(sent: list[str], clock: Any) -> None:
    pass_by(clock, beats(3), 100 * PERIOD)
    assert len(sent) == 100


@pytest.mark.parametrize("in_turn", [True, False])
def test_one_of_two_that_dies_leaves_no_gap(sent: list[str], clock: Any, in_turn: bool) -> None:
    two = beats(2)
    pass_by(clock, two, 5 * PERIOD, in_turn=in_turn)
    pass_by(clock, two[1:], 4 * PERIOD)  # before all is read anew, which is after five minutes
    assert len(sent) in (9, 8)


def test_what_was_missed_while_none_ran_is_sent_once(sent: list[str], clock: Any) -> None:
    pass_by(clock, beats(1), 2 * PERIOD)
    clock.shift(timedelta(minutes=10))
    pass_by(clock, beats(3), 10)
    assert len(sent) == 3


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_jumps_doubles_nothing_and_stops_nothing(sent: list[str], clock: Any, hours: int) -> None:
    three = beats(3)
    pass_by(clock, three, 10 * PERIOD)
    clock.shift(timedelta(hours=hours))
    pass_by(clock, three, 10 * PERIOD)
    assert 19 <= len(sent) <= 21


def test_what_people_change_in_the_console_stays_theirs(sent: list[str], clock: Any) -> None:
    pass_by(clock, beats(2), 2 * PERIOD)
    PeriodicTask.objects.update(enabled=False)
    pass_by(clock, beats(2), 2 * PERIOD)
    assert len(sent) == 2
    assert PeriodicTask.objects.get().total_run_count == 2


@pytest.mark.parametrize("failures", [1, 3])
def test_a_tick_that_the_database_was_away_for_is_sent_when_it_is_back(
    sent: list[str], clock: Any, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = beats(1)
    pass_by(clock, one, 2 * PERIOD)
    claim, left = ClaimedEntry.claim, [OperationalError("the database system is starting up")] * failures

    def failing(self: ClaimedEntry, until: datetime) -> bool:
        if left:
            raise left.pop()
        return claim(self, until)

    monkeypatch.setattr(ClaimedEntry, "claim", failing)
    pass_by(clock, one, PERIOD + 10 * failures)
    assert (len(sent), left) == (3, []), "late, and not a whole period later"
    pass_by(clock, one, 10 * PERIOD)
    assert len(sent) in (12, 13)

"""Schedules fire once: under three beats, after an hour without any, and when the clock jumps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from rmn.celery import app
from rmn.schedules import OnceScheduler

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


def pass_by(clock: Any, who: list[OnceScheduler], seconds: int, step: int = 10) -> None:
    for n in range(seconds // step):
        clock.shift(timedelta(seconds=step))
        for one in who[n % len(who) :] + who[: n % len(who)]:
            one.tick()


def test_three_beats_send_each_tick_once(sent: list[str], clock: Any) -> None:
    pass_by(clock, beats(3), 100 * PERIOD)
    assert len(sent) == 100


def test_one_of_two_that_dies_leaves_no_gap(sent: list[str], clock: Any) -> None:
    two = beats(2)
    pass_by(clock, two, 10 * PERIOD)
    pass_by(clock, two[1:], 10 * PERIOD)
    assert len(sent) in (20, 19)


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

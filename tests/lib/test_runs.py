from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from campaigns.models import CurveFit
from rmn.lib import runs
from rmn.lib.errors import RmnError
from rmn.lib.runs import Run, RunTaken
from tests.factories import CurveFitFactory

pytestmark = pytest.mark.django_db


class Weather(RmnError):
    retryable = True


def test_a_run_that_ends_well_is_recorded_as_succeeded() -> None:
    run = CurveFitFactory()
    with run.tracked():
        run.report(0.5, "halfway")
    run.refresh_from_db()
    assert (run.status, run.progress, run.attempts) == ("succeeded", 1.0, 1)
    assert "halfway" in run.log


def test_a_message_delivered_twice_works_once() -> None:
    run = CurveFitFactory()
    with run.tracked():
        pass
    with pytest.raises(RunTaken), CurveFit.objects.get(pk=run.pk).tracked():
        pytest.fail("the body ran a second time")


def test_a_second_worker_cannot_take_a_run_that_is_being_worked_on() -> None:
    run = CurveFitFactory()
    with run.tracked(), pytest.raises(RunTaken), CurveFit.objects.get(pk=run.pk).tracked():
        pytest.fail("two workers hold one run")


def test_a_foreseen_error_is_recorded_with_its_message_and_does_not_escape() -> None:
    run = CurveFitFactory()
    with run.tracked():
        raise RmnError("the floors need 60.00, the budget is 30.00")
    run.refresh_from_db()
    assert run.status == "failed"
    assert "60.00" in run.error
    assert run.error_id


def test_an_unforeseen_error_is_recorded_with_an_id_to_quote() -> None:
    run = CurveFitFactory()
    with run.tracked():
        raise ZeroDivisionError("division by zero")
    run.refresh_from_db()
    assert run.status == "failed"
    assert len(run.error_id) == 12


def test_a_retryable_error_queues_the_run_again_until_its_attempts_are_used_up() -> None:
    run = CurveFitFactory(max_attempts=2)
    for expected in ("queued", "failed"):
        with CurveFit.objects.get(pk=run.pk).tracked():
            raise Weather("the model server is overloaded")
        run.refresh_from_db()
        assert run.status == expected


def test_a_cancelled_run_stops_at_its_next_report() -> None:
    run = CurveFitFactory()
    with run.tracked():
        CurveFit.objects.get(pk=run.pk).request_cancel()
        run.report(0.2, "next step")
        pytest.fail("it went on")
    run.refresh_from_db()
    assert run.status == "cancelled"


def test_a_queued_run_is_cancelled_at_once() -> None:
    run = CurveFitFactory()
    run.request_cancel()
    assert run.status == "cancelled"


def test_a_stale_worker_writes_nothing() -> None:
    run = CurveFitFactory()
    with run.tracked():
        CurveFit.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        newer = CurveFit.objects.get(pk=run.pk)
        assert newer.claim()
        run.report(0.9, "I am still here")
    newer.refresh_from_db()
    assert (newer.status, newer.progress) == ("running", 0.0)


def test_the_sweep_sends_again_what_the_broker_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(runs, "send", lambda task, run_id, tenant: sent.append(run_id) or True)
    lost = CurveFitFactory(queued_at=timezone.now() - timedelta(minutes=5))
    CurveFitFactory()
    assert runs.sweep(timezone.now())["sent"] == 1
    assert sent == [str(lost.pk)]


def test_the_sweep_frees_a_run_whose_worker_died() -> None:
    run = CurveFitFactory()
    run.claim()
    CurveFit.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    runs.sweep(timezone.now())
    run.refresh_from_db()
    assert run.status == Run.Status.QUEUED


def test_the_sweep_ends_a_run_that_lost_its_worker_too_often() -> None:
    run = CurveFitFactory(max_attempts=1)
    run.claim()
    CurveFit.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    runs.sweep(timezone.now())
    run.refresh_from_db()
    assert run.status == Run.Status.FAILED
    assert "worker was lost" in run.error


def test_retry_queues_the_same_row() -> None:
    run = CurveFitFactory()
    with run.tracked():
        raise RmnError("no history")
    run.refresh_from_db()
    run.retry()
    assert (run.status, run.error, run.attempts) == ("queued", "", 0)


def test_a_broker_that_forgot_what_it_held_is_told_all_of_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(runs, "send", lambda task, run_id, tenant: sent.append(run_id) or True)
    run = CurveFitFactory(queued_at=timezone.now() - timedelta(seconds=5))
    assert runs.sweep(timezone.now())["sent"] == 0
    assert runs.sweep(timezone.now(), broker_forgot=True)["sent"] == 1
    assert sent == [str(run.pk)]

"""A test from wish to result: designed, registered, approved, run, read; by those who may, and for nobody else."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from campaigns import services, tasks
from campaigns.models import Experiment
from retailers import audit
from retailers.models import AuditEntry, MetricOutcome
from rmn.lib.errors import BadInput
from tests.conftest import People
from tests.factories import ExperimentFactory, PerformanceMetricFactory

pytestmark = pytest.mark.django_db
MONDAY = dt.date(2026, 1, 5)
SPEC = {
    "kind": "geo", "unit": "unit", "time": "time", "outcome": "sales", "duration": 4, "treated": {"min": 2, "max": 2},
    "effects": [0.0, 0.05, 0.2], "alpha": 0.1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, settings: Any) -> None:
    settings.MEDIA_ROOT = str(tmp_path)


def table(weeks: int = 40, treated: tuple[str, ...] = (), lift: float = 0.0) -> str:
    """Twelve shops week by week; the treated gain from week 36 on."""
    rng = np.random.default_rng(7)
    common = np.cumsum(rng.normal(0, 1, 40))
    lines = ["unit,time,sales"]
    for unit in range(12):
        noise = rng.normal(0, 1, 40)
        for week in range(weeks):
            value = 100 + unit + (0.8 + unit / 30) * common[week] + noise[week]
            value *= 1 + lift if f"u{unit:02}" in treated and week >= 36 else 1
            lines.append(f"u{unit:02},{MONDAY + dt.timedelta(weeks=week)},{value:.4f}")
    return "\n".join(lines)


def worked(row: Experiment) -> Experiment:
    tasks.work_on_experiment(str(row.pk), tenant=row.tenant)
    row.refresh_from_db()
    return row


def designed(people: People, **more: Any) -> Experiment:
    wish: dict[str, Any] = {
        "brand": people.brand,
        "name": "Mailing",
        "spec": SPEC,
        "table": table(36),
        "by": people.owner,
    }
    return worked(services.request_experiment(**wish | more))


def running(people: People) -> Experiment:
    row = designed(people)
    services.move_experiment(row, "approve", people.colleague)
    row = services.move_experiment(row, "start", people.owner, day=MONDAY + dt.timedelta(weeks=36))
    row.refresh_from_db()
    return row


def analysed(people: People, lift: float = 0.2) -> Experiment:
    row = running(people)
    given = table(40, tuple(row.analysis_spec["treated_units"]), lift)
    return worked(services.move_experiment(row, "analyse", people.owner, table=given))


def test_a_test_lives_from_wish_to_result_and_each_step_is_in_the_audit_chain(people: People) -> None:
    row = designed(people)
    assert (row.status, row.state) == ("succeeded", "designed"), row.error
    assert row.panel["step_days"] == 7
    row = analysed(people)
    assert (row.status, row.state) == ("succeeded", "analysed"), row.error
    assert row.end_date == MONDAY + dt.timedelta(weeks=40, days=-1)
    assert row.result["verdict"] == "effect"
    assert row.result["estimate"]["lift_percent"] == pytest.approx(20, abs=4)
    assert row.result["summary"][0].startswith("There is an effect")
    actions = list(
        AuditEntry.objects.filter(subject_id=str(row.pk)).order_by("sequence").values_list("action", flat=True)
    )
    assert actions == [
        "experiment registered", "experiment approved", "experiment started", "experiment sent to analysis",
        "experiment analysed",
    ]  # fmt: skip
    assert audit.verify(people.brand.slug)["broken"] is None


def test_a_registered_plan_cannot_be_changed(people: People) -> None:
    row = services.move_experiment(designed(people), "register", people.owner)
    row.refresh_from_db()
    assert services.registration_line(row) is not None
    row.hypothesis = "It was about something else."
    with pytest.raises(BadInput, match="its plan cannot be changed"):
        row.save()
    row.refresh_from_db()
    row.analysis_spec = {**row.analysis_spec, "alpha": 0.3}
    with pytest.raises(BadInput, match="its plan cannot be changed"):
        row.save(update_fields=["analysis_spec"])


def test_a_plan_changed_behind_the_back_is_not_read(people: People) -> None:
    row = running(people)
    Experiment.objects.filter(pk=row.pk).update(analysis_spec={**row.analysis_spec, "alpha": 0.4})
    row = services_again(row, people)
    assert row.status == "failed"
    assert "not the one that was registered" in row.error


def services_again(row: Experiment, people: People) -> Experiment:
    """Queue the reading without the guard of ``save``, as a hand in the database would."""
    Experiment.objects.filter(pk=row.pk).update(status="queued", config={"work": "analyse"})
    row.refresh_from_db()
    return worked(row)


def test_steps_out_of_order_are_refused_and_the_same_step_twice_is_one(people: People) -> None:
    row = designed(people)
    with pytest.raises(BadInput, match="start comes after approved"):
        services.move_experiment(row, "start", people.owner)
    services.move_experiment(row, "approve", people.colleague)
    services.move_experiment(row, "approve", people.colleague)
    assert AuditEntry.objects.filter(action="experiment approved").count() == 1
    stopped = services.move_experiment(row, "stop", people.owner, note="budget cut")
    assert stopped.state == "stopped"
    with pytest.raises(BadInput, match="is stopped"):
        services.move_experiment(row, "analyse", people.owner)


def test_a_marketer_does_not_approve(people: People) -> None:
    with pytest.raises(BadInput, match="only analysts and ops"):
        services.move_experiment(designed(people), "approve", people.owner)


def test_a_message_delivered_twice_designs_once(people: People) -> None:
    row = designed(people)
    before = row.finished_at
    assert worked(row).finished_at == before


def test_a_reading_that_fails_can_be_tried_again_with_better_data(people: People) -> None:
    row = worked(services.move_experiment(running(people), "analyse", people.owner))
    assert row.status == "failed"  # the table of the design ends where the test begins
    assert "outside the data" in row.error
    assert "analyse" in services.moves_of(row, people.owner)
    row = worked(services.move_experiment(row, "analyse", people.owner, table=table(40)))
    assert (row.status, row.state) == ("succeeded", "analysed")


def test_a_design_without_data_says_what_is_missing(people: People) -> None:
    row = designed(people, table="", retailer=people.retailer)
    assert (row.status, row.state) == ("failed", "draft")
    assert "no store sales loaded" in row.error


def test_the_retailers_own_stores_are_the_panel_where_no_table_is_handed_in(people: People) -> None:
    for line in table(30).splitlines()[1:]:
        unit, day, value = line.split(",")
        start = dt.date.fromisoformat(day)
        metric = PerformanceMetricFactory(
            brand=people.brand, retailer=people.retailer, grain="store", placement=unit, campaign_id="",
            period_start=start, period_end=start + dt.timedelta(days=6),
        )  # fmt: skip
        MetricOutcome.objects.create(
            brand=people.brand, performance=metric, metric="total_sales", window_days=0, interaction="", model="",
            scope="all", value=Decimal(value),
        )  # fmt: skip
    row = designed(people, table="", retailer=people.retailer, spec={**SPEC, "outcome": "outcome"})
    assert row.state == "designed", row.error
    assert row.panel["units"] == 12


def test_numbers_of_people_need_no_table_and_a_mistake_is_told_at_once(people: People) -> None:
    spec = {"kind": "ab", "metric": "proportion", "baseline": 0.1, "mde": 0.2}
    assert designed(people, table="", spec=spec).design["n_control"] == 3835
    with pytest.raises(BadInput, match="baseline"):
        services.request_experiment(brand=people.brand, name="x", spec={**spec, "baseline": 2})
    with pytest.raises(BadInput, match="a path is not followed"):
        services.request_experiment(brand=people.brand, name="x", spec={**SPEC, "data": "/etc/passwd"})


def test_looks_follow_the_registered_rule_and_leave_the_test_running(people: People) -> None:
    row = designed(people, analysis_spec={"monitor": {"looks": 2}})
    assert row.analysis_spec["monitor"]["duration"] == 4
    services.move_experiment(row, "approve", people.colleague)
    row = services.move_experiment(row, "start", people.owner, day=MONDAY + dt.timedelta(weeks=36))
    assert "look" in services.moves_of(row, people.owner)
    given = table(38, tuple(row.analysis_spec["treated_units"]), 0.3)
    row = worked(services.move_experiment(row, "look", people.owner, table=given))
    assert (row.status, row.state) == ("succeeded", "running"), row.error
    told = row.result["diagnostics"]["monitoring"]
    assert (told["of"], len(told["looks"])) == (2, 1)
    assert "1 of 2" in people.web(people.owner).get(f"/experiments/{row.pk}").content.decode()
    assert AuditEntry.objects.filter(action="experiment looked at", subject_id=str(row.pk)).count() == 1
    row = worked(services.move_experiment(row, "analyse", people.owner))
    assert row.state == "analysed"


def test_a_test_without_registered_looks_is_not_looked_at(people: People) -> None:
    row = running(people)
    assert "look" not in services.moves_of(row, people.owner)
    with pytest.raises(BadInput, match="no looks were registered"):
        services.move_experiment(row, "look", people.owner)


# -- doors


def test_the_page_shows_the_result_its_pictures_and_exports_it(people: People) -> None:
    row = analysed(people)
    client = people.web(people.owner)
    text = client.get(f"/experiments/{row.pk}").content.decode()
    for words in (
        "There is an effect",
        row.registered_hash,
        "of the audit chain",
        "sets of units to which nothing was done",
        "How often each method calls an effect where nothing was done",
        "(this test)",
    ):
        assert words in text
    for name in ("series", "cumulative", "placebos", "power"):
        assert client.get(f"/experiments/{row.pk}?picture={name}.svg").status_code == 200, name
    told = client.get(f"/experiments/{row.pk}?export=json").json()
    assert told["result"]["verdict"] == "effect"
    assert told["registered_hash"] == row.registered_hash
    lines = b"".join(client.get(f"/experiments/{row.pk}?export=csv").streaming_content).decode().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("time,test,observed,expected,low,high")
    assert len(lines) == 41


def test_buttons_follow_the_state_and_the_role(people: People) -> None:
    row = designed(people)
    page = people.web(people.owner).get(f"/experiments/{row.pk}").content.decode()
    assert "Register the plan" in page
    assert ">Approve<" not in page
    people.web(people.colleague).post(f"/experiments/{row.pk}/approve", {"note": "go"})
    people.web(people.owner).post(f"/experiments/{row.pk}/start", {"day": "2026-09-14"})
    row.refresh_from_db()
    assert (row.state, row.start_date) == ("running", dt.date(2026, 9, 14))
    given = table(40).encode()
    from django.core.files.uploadedfile import SimpleUploadedFile

    people.web(people.owner).post(
        f"/experiments/{row.pk}/analyse", {"table": SimpleUploadedFile("sales.csv", given, content_type="text/csv")}
    )
    assert worked(row).state == "analysed"


def test_the_api_walks_the_same_way(people: People) -> None:
    owner, colleague = people.api(people.owner), people.api(people.colleague)
    wish = {"brand": "acme", "name": "Mailing", "spec": SPEC, "table": table(36)}
    answer = owner.post("/api/v1/experiments/", wish, format="json")
    assert answer.status_code == 202, answer.content
    row = worked(Experiment.objects.get())
    address = f"/api/v1/experiments/{row.pk}"
    assert owner.post(f"{address}/approve/", {}, format="json").status_code == 422
    assert colleague.post(f"{address}/approve/", {"note": "go"}, format="json").json()["state"] == "approved"
    assert owner.post(f"{address}/start/", {"day": "2026-09-14"}, format="json").json()["state"] == "running"
    assert owner.post(f"{address}/analyse/", {"table": table(40)}, format="json").status_code == 202
    assert worked(row).state == "analysed"
    assert owner.get(f"{address}/").json()["result"]["summary"]


def test_a_stranger_finds_nothing_and_moves_nothing(people: People) -> None:
    row = designed(people)
    web, api = people.web(people.stranger), people.api(people.stranger)
    for move in services.MOVES:
        assert web.post(f"/experiments/{row.pk}/{move}").status_code == 404
        assert api.post(f"/api/v1/experiments/{row.pk}/{move}/", {}, format="json").status_code == 404
    assert web.get(f"/experiments/{row.pk}?export=json").status_code == 404
    wish = {"brand": "acme", "name": "x", "spec": SPEC, "table": table(36)}
    assert api.post("/api/v1/experiments/", wish, format="json").status_code == 400
    row.refresh_from_db()
    assert (row.state, Experiment.objects.count()) == ("designed", 1)


def test_the_console_takes_the_steps(people: People) -> None:
    row = designed(people)
    client = people.web(people.ops)
    for move, state in (("approve", "approved"), ("start", "running"), ("stop", "stopped")):
        client.post(
            "/admin/campaigns/experiment/", {"action": move, "_selected_action": [str(row.pk)], "confirmed": "yes"}
        )
        row.refresh_from_db()
        assert row.state == state
    foreign = ExperimentFactory(brand=people.other, state="designed", status="succeeded")
    assert people.web(people.owner).post(f"/experiments/{foreign.pk}/register").status_code == 404

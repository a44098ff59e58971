"""A room that runs its queries somewhere: the generic shape before Athena as moto has it, asked by Amazon's own client."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agents import rooms
from agents.domain.rooms import rendered, template
from agents.models import CleanRoomLedger, CleanRoomQuery
from rmn.lib import sealing
from tests.agents.test_rooms import REACH, again, ask
from tests.conftest import People
from tests.factories import CleanRoomConnectionFactory

server = pytest.importorskip("moto.server", reason="moto[server,athena] is not installed")
boto3 = pytest.importorskip("boto3")
import requests  # noqa: E402  # moto's own

pytestmark = pytest.mark.django_db
ANSWER = {"results": [{"rows": [{"Data": [{"VarCharValue": "a"}, {"VarCharValue": "900"}]}, {"Data": [{"VarCharValue": "b"}, {"VarCharValue": "400"}]}], "column_info": [{"Name": name, "Type": kind, "CatalogName": "c", "SchemaName": "", "TableName": "", "Label": name, "Precision": 10, "Scale": 0, "Nullable": "UNKNOWN", "CaseSensitive": True} for name, kind in (("segment", "varchar"), ("users", "bigint"))]}]}  # fmt: skip


class Gateway(ThreadingHTTPServer):
    """POST /query starts an execution, once for each key; GET /query/ID tells where it stands, or its rows."""

    daemon_threads = True
    athena: Any
    seen: list[str]
    started: dict[str, str]
    drop: Any


class Desk(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key, room = self.headers["Idempotency-Key"], self.server
        if key not in room.started:
            query = rendered(template(REACH), asked["parameters"])
            room.started[key] = room.athena.start_query_execution(QueryString=query, ResultConfiguration={"OutputLocation": "s3://answers/"})["QueryExecutionId"]  # fmt: skip
        if room.drop():
            self.close_connection = True
            return self.connection.close()
        return self._tell(room.started[key])

    def do_GET(self) -> None:
        self._tell(self.path.rpartition("/")[2])

    def _tell(self, key: str) -> None:
        room = self.server
        state = room.athena.get_query_execution(QueryExecutionId=key)["QueryExecution"]["Status"]["State"]
        room.seen.append(state)
        said: dict[str, Any] = {"status": state.lower(), "id": key}
        if state == "SUCCEEDED":
            found = room.athena.get_query_results(QueryExecutionId=key)["ResultSet"]
            names = [one["Name"] for one in found["ResultSetMetadata"]["ColumnInfo"]]
            cells = [[cell["VarCharValue"] for cell in row["Data"]] for row in found["Rows"]]
            said = {"rows": [dict(zip(names, [one[0], int(one[1])])) for one in cells]}
        text = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gateway(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    amazon = f"http://{host}:{port}"
    requests.post(f"{amazon}/moto-api/reset", timeout=10)
    transition = {"model_name": "athena::execution", "transition": {"progression": "manual", "times": 2}}
    assert requests.post(f"{amazon}/moto-api/state-manager/set-transition", json=transition, timeout=10).status_code < 300  # fmt: skip
    room = Gateway(("127.0.0.1", 0), Desk)
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    room.athena, room.seen, room.started = boto3.client("athena", endpoint_url=amazon, **keys), [], {}
    room.drop = lambda: False
    for _ in range(20):
        requests.post(f"{amazon}/moto-api/static/athena/query-results", json=ANSWER, timeout=10)
    threading.Thread(target=room.serve_forever, daemon=True).start()
    settings.RMN_OUTBOUND_ALLOW = [f"http://127.0.0.1:{room.server_port}"]
    monkeypatch.setattr(rooms, "POLL_S", 0.01)
    yield room
    room.shutdown()
    room.server_close()
    moto.stop()


@pytest.fixture
def place(people: People, gateway: Gateway) -> Any:
    return CleanRoomConnectionFactory(
        brand=people.brand, retailer=people.retailer, name="Athena", endpoint=f"http://127.0.0.1:{gateway.server_port}", budget_units=20,
        k_threshold=50, sealed_key=sealing.seal("secret", str(people.brand.uuid)), templates=[REACH],
    )  # fmt: skip


def test_a_question_is_submitted_waited_for_and_fetched(place: Any, gateway: Gateway) -> None:
    query = ask(place)
    assert (query.state, query.error) == ("released", "")
    assert query.result == {"rows": [{"segment": "a", "users": 900}, {"segment": "b", "users": 400}], "total": 1300}
    assert gateway.seen == ["QUEUED", "RUNNING", "RUNNING", "SUCCEEDED"] or gateway.seen[-1] == "SUCCEEDED" != gateway.seen[0]  # fmt: skip
    assert len(gateway.seen) >= 3


def test_questions_whose_answers_are_lost_run_once_each_over_there(place: Any, gateway: Gateway) -> None:
    turn = iter(range(1000))
    gateway.drop = lambda: next(turn) % 3 == 0  # a third of the submits that were acted on
    for day in range(1, 11):
        query = ask(place, start=f"2026-01-{day:02}")
        for _ in range(4):
            if query.status == "succeeded":
                break
            CleanRoomQuery.objects.filter(pk=query.pk).update(status="queued")
            query = again(query)
        assert query.state == "released", query.error
    ran = gateway.athena.list_query_executions()["QueryExecutionIds"]
    assert len(ran) == 10 == rooms.used(place)
    assert CleanRoomLedger.objects.filter(entry="spend").count() == 10

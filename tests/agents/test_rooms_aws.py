"""AWS Clean Rooms' shape: every request and answer held against Amazon's own service model, every signature recomputed."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from agents import rooms
from agents.models import CleanRoomLedger, CleanRoomQuery
from rmn.lib import sealing, sigv4
from tests.agents.test_rooms import ASKED, REACH, again, ask
from tests.conftest import People
from tests.factories import CleanRoomConnectionFactory

botocore = pytest.importorskip("botocore.session")
from botocore.auth import S3SigV4Auth, SigV4Auth  # noqa: E402
from botocore.awsrequest import AWSRequest  # noqa: E402
from botocore.credentials import Credentials  # noqa: E402
from botocore.validate import ParamValidator  # noqa: E402

MODEL = botocore.get_session().get_service_model("cleanrooms")
MEMBER = str(uuid4())
SECRETS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session_token": "a token"}  # fmt: skip
CSV = "segment,users\na,900\nb,400\n"


def fits(given: Any, shape: Any) -> None:
    found = ParamValidator().validate(given, shape)
    assert not found.has_errors(), found.generate_report()


class Amazon(ThreadingHTTPServer):
    """Protected queries and their bucket. It has no client token: every submit that reaches it runs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Counter)
        self.queries: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []
        self.drop: Any = lambda: False
        self.page = 2
        self.polls_until_done, self.ends, self.csv, self.location = 1, "SUCCESS", CSV, ""


class Counter(BaseHTTPRequestHandler):
    server: Amazon

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._serve(body)

    def do_GET(self) -> None:
        self._serve(b"")

    def _serve(self, body: bytes) -> None:
        try:
            self._act(body)
        except Exception as error:  # noqa: BLE001  # told by the test, not by a thread
            self.server.faults.append(f"{self.path}: {error!r}")
            self._say(400, {"message": "x"})

    def _act(self, body: bytes) -> None:
        room, url = self.server, urlsplit(self.path)
        if not url.path.startswith("/memberships/"):
            self._check(body, "s3")
            return self._send(200, room.csv.encode())
        self._check(body, "cleanrooms")
        _, _, member, _, *key = url.path.split("/")
        if self.command == "POST":
            given = {"membershipIdentifier": member, **json.loads(body)}
            fits(given, MODEL.operation_model("StartProtectedQuery").input_shape)
            one = {"id": str(uuid4()), "membershipId": member, "membershipArn": f"arn:aws:cleanrooms:us-east-1:123456789012:membership/{member}", "createTime": time.time(), "status": "SUBMITTED", "sqlParameters": given["sqlParameters"], "resultConfiguration": given["resultConfiguration"]}  # fmt: skip
            room.queries[one["id"]] = {"told": one, "polls": 0}
            if room.drop():
                self.close_connection = True
                return self.connection.close()
            return self._answer("StartProtectedQuery", {"protectedQuery": one})
        if not key:
            words = parse_qs(url.query)
            assert int(words["maxResults"][0]) <= 100
            plain = [{name: held["told"][name] for name in ("id", "membershipId", "membershipArn", "createTime", "status")} | {"receiverConfigurations": []} for held in room.queries.values()]  # fmt: skip
            start = int(words.get("nextToken", ["0"])[0])
            more = {"nextToken": str(start + room.page)} if start + room.page < len(plain) else {}
            return self._answer("ListProtectedQueries", {"protectedQueries": plain[start : start + room.page], **more})
        held = room.queries[key[0]]
        held["polls"] += 1
        told = held["told"]
        told["status"] = room.ends if held["polls"] > room.polls_until_done else "STARTED"
        if told["status"] == "SUCCESS":
            s3 = told["resultConfiguration"]["outputConfiguration"]["s3"]
            told["result"] = {"output": {"s3": {"location": room.location or f"s3://{s3['bucket']}/{s3['keyPrefix']}/{told['id']}.csv"}}}  # fmt: skip
        return self._answer("GetProtectedQuery", {"protectedQuery": told})

    def _answer(self, operation: str, said: dict[str, Any]) -> None:
        fits(_dated(said), MODEL.operation_model(operation).output_shape)
        self._say(200, said)

    def _check(self, body: bytes, service: str) -> None:
        """The signature as Amazon's own library makes it, for the headers that were signed."""
        names = re.search(r"SignedHeaders=([^,]+)", self.headers["Authorization"]).group(1).split(";")  # type: ignore[union-attr]
        sent = {name: self.headers[name] for name in names if name not in ("x-amz-date", "x-amz-security-token", "x-amz-content-sha256")}  # fmt: skip
        assert _signature(self.command, f"http://{self.headers['Host']}{self.path}", body, sent, service, self.headers["X-Amz-Date"]) == self.headers["Authorization"]  # fmt: skip

    def _say(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass


def _dated(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: datetime.fromtimestamp(one, UTC) if name == "createTime" else _dated(one)
            for name, one in value.items()
        }
    return [_dated(one) for one in value] if isinstance(value, list) else value


def _signature(method: str, url: str, body: bytes, headers: dict[str, str], service: str, stamp: str) -> str:
    keys = Credentials(SECRETS["access_key_id"], SECRETS["secret_access_key"], SECRETS["session_token"])
    request = AWSRequest(method, url, headers=headers, data=body)
    request.context["timestamp"] = stamp
    signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(keys, service, "us-east-1")
    request.headers["X-Amz-Date"] = stamp
    request.headers["X-Amz-Security-Token"] = keys.token
    if service == "s3":
        request.headers["X-Amz-Content-SHA256"] = signer.payload(request)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    names = signer.signed_headers(signer.headers_to_sign(request))
    return f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, Signature={signer.signature(text, request)}"


@pytest.fixture
def amazon(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Amazon]:
    server = Amazon()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.RMN_OUTBOUND_ALLOW = [f"http://127.0.0.1:{server.server_port}"]
    monkeypatch.setattr(rooms, "POLL_S", 0.001)
    yield server
    server.shutdown()
    server.server_close()
    assert server.faults == []


@pytest.fixture
def place(people: People, amazon: Amazon) -> Any:
    here = f"http://127.0.0.1:{amazon.server_port}"
    key = SECRETS | {"region": "us-east-1", "output": "s3://answers/rmn", "s3_endpoint": here}
    return CleanRoomConnectionFactory(
        brand=people.brand, retailer=people.retailer, name="AWS room", kind="aws", endpoint=f"{here}/memberships/{MEMBER}",
        sealed_key=sealing.seal(json.dumps(key), str(people.brand.uuid)), budget_units=1000, k_threshold=50, templates=[REACH],
    )  # fmt: skip


@pytest.mark.django_db
def test_a_protected_query_is_started_waited_for_and_its_result_fetched(place: Any, amazon: Amazon) -> None:
    query = ask(place)
    assert (query.error, query.state) == ("", "released")
    assert query.result == {"rows": [{"segment": "a", "users": 900}, {"segment": "b", "users": 400}], "total": 1300}
    (held,) = amazon.queries.values()
    assert ":start" not in held["told"]["sqlParameters"]["queryString"]
    assert "'2026-01-01'" in held["told"]["sqlParameters"]["queryString"]
    assert "wJalr" not in json.dumps(list(CleanRoomQuery.objects.values("config", "result", "log")), default=str)


@pytest.mark.django_db
def test_a_reviewed_template_of_the_room_gets_the_values_beside_it(place: Any, amazon: Amazon) -> None:
    arn = f"arn:aws:cleanrooms:us-east-1:123456789012:membership/{MEMBER}/analysistemplate/{uuid4()}"
    place.templates = [REACH | {"arn": arn}]
    place.save()
    assert ask(place).state == "released"
    (held,) = amazon.queries.values()
    assert held["told"]["sqlParameters"] == {"analysisTemplateArn": arn, "parameters": ASKED}


@pytest.mark.django_db
def test_a_submit_whose_answer_is_lost_is_found_again_and_not_sent_twice(place: Any, amazon: Amazon) -> None:
    drops = iter([False, True, True, False, True])
    amazon.drop = lambda: next(drops)
    for _ in range(5):
        query = ask(place)
        if query.status != "succeeded":
            assert query.retryable
            CleanRoomQuery.objects.filter(pk=query.pk).update(status="queued")
            query = again(query)
        assert query.state == "released"
    assert len(amazon.queries) == 5 == rooms.used(place)
    assert CleanRoomLedger.objects.filter(entry="spend").count() == 5


@pytest.mark.django_db
@pytest.mark.parametrize("ends", ["FAILED", "CANCELLED", "TIMED_OUT"])
def test_what_the_room_ends_costs_nothing_here(place: Any, amazon: Amazon, ends: str) -> None:
    amazon.ends = ends
    query = ask(place)
    assert query.state == "refused"
    assert ends in query.error
    assert rooms.used(place) == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("location", "csv"),
    [
        ("s3://other/x.csv", CSV),
        ("s3://answers/rmn/../secret.csv", CSV),
        ("", "segment,users\na\n"),
        ("", "segment\na\n"),
    ],
)
def test_a_result_elsewhere_or_of_another_form_is_not_shown(
    place: Any, amazon: Amazon, location: str, csv: str
) -> None:
    amazon.location, amazon.csv = location, csv
    query = ask(place)
    assert (query.state, query.result) == ("refused", None)
    assert rooms.used(place) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("change", [{"output": "https://x/"}, {"region": ""}, {"secret_access_key": None, "output": 1}])
def test_a_key_of_another_form_is_refused_before_anything_is_sent(place: Any, amazon: Amazon, change: Any) -> None:
    key = SECRETS | {"region": "us-east-1", "output": "s3://answers/rmn"} | change
    place.sealed_key = sealing.seal(json.dumps(key), str(place.brand.uuid))
    place.save()
    query = ask(place)
    assert "JSON with access_key_id" in query.error
    assert amazon.queries == {}
    assert rooms.used(place) == 0


def test_the_published_example_of_a_signature() -> None:
    """AWS's own test suite for version 4, case get-vanilla."""
    key = sigv4.Key(SECRETS["access_key_id"], SECRETS["secret_access_key"])
    said = sigv4.signed("GET", "https://example.amazonaws.com/", b"", key=key, region="us-east-1", service="service", at=datetime(2015, 8, 30, 12, 36, tzinfo=UTC))  # fmt: skip
    assert said["Authorization"].endswith("Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")

"""Clean rooms that mean harm: each is refused by name, nothing of it is shown, and it takes little memory."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import resource
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agents import rooms
from rmn.lib import outbound, sealing
from tests.agents.test_rooms import REACH, ask
from tests.conftest import People
from tests.factories import CleanRoomConnectionFactory

pytestmark = pytest.mark.django_db
MOST = 200 * 2**20
PIECE = b" " * 2**16


class Peer(ThreadingHTTPServer):
    daemon_threads = True
    say: Callable[[Any], None]
    asked = 0


class Desk(BaseHTTPRequestHandler):
    server: Peer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked += 1
        with contextlib.suppress(OSError):
            self.server.say(self)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        pass

    def send(self, body: Any, status: int = 200, length: int | None = None, **headers: str) -> None:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(text) if length is None else length))
        self.end_headers()
        self.wfile.write(text)


def drip(desk: Any) -> None:
    desk.send(b"[", length=1000)
    for _ in range(200):
        time.sleep(0.05)
        desk.wfile.write(b" ")


def flood(desk: Any) -> None:
    desk.send(b"[", length=500 * 2**20)
    for _ in range(500 * 2**20 // len(PIECE)):
        desk.wfile.write(PIECE)


def backwards(desk: Any) -> None:
    desk.send({"status": ("submitted", "running", "queued")[min(desk.server.asked, 3) - 1], "id": "q1"})


def rows(**more: Any) -> Callable[[Any], None]:
    return lambda desk: desk.send({"rows": [{"segment": "a", "users": 900, **more}]})


BOMB = gzip.compress(b"[" + b" " * 10_000_000 + b"]")  # a thousand to one
HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "slow drip": (drip, "did not end its answer in time"),
    "500 MB": (flood, "sends more than 4,194,304 bytes"),
    "packed bomb": (lambda desk: desk.send(BOMB, Content_Encoding="gzip"), "a packed answer"),
    "bomb that does not say so": (lambda desk: desk.send(BOMB), "not JSON"),
    "invalid UTF-8": (lambda desk: desk.send(b'[{"segment": "\xff\xfe\x80", "users": 900}]'), "not JSON"),
    "a hundred thousand brackets": (lambda desk: desk.send(b"[" * 100_000), "not JSON"),
    "two million empty lists": (lambda desk: desk.send(b"[" + b"[]," * 1_300_000 + b"[]]"), "no list of at most"),
    "redirect to the metadata": (lambda desk: desk.send({}, 302, Location="http://169.254.169.254/latest/"), "answers POST with a redirect"),
    "another shape": (lambda desk: desk.send({"rows": "all of them"}), "no list of at most"),
    "a number": (lambda desk: desk.send(7), "something else than rows"),
    "negative counts": (rows(users=-5), "does not count people"),
    "counts as text": (rows(users="900"), "does not count people"),
    "a column of ids": (rows(user_id="8f14e45f"), "not asked for: 'user_id'"),
    "too many, too often": (lambda desk: desk.send({}, 429), "answers 429"),
    "a status that goes back": (backwards, "goes back from running to queued"),
}  # fmt: skip


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Peer]:
    server = Peer(("127.0.0.1", 0), Desk)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.RMN_OUTBOUND_ALLOW = [f"http://127.0.0.1:{server.server_port}"]
    monkeypatch.setattr(rooms, "TIMEOUT_S", 1.5)
    monkeypatch.setattr(rooms, "POLL_S", 0.01)
    yield server
    server.shutdown()
    server.server_close()


def place(people: People, endpoint: str) -> Any:
    return CleanRoomConnectionFactory(
        brand=people.brand, retailer=people.retailer, name="Room", endpoint=endpoint, budget_units=3, k_threshold=50,
        sealed_key=sealing.seal("secret", str(people.brand.uuid)), templates=[REACH],
    )  # fmt: skip


@pytest.mark.parametrize("peril", HOSTILE)
def test_a_hostile_room_is_refused_by_name_and_takes_little_memory(
    people: People, peer: Peer, peril: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.say, reason = HOSTILE[peril]
    if "500" in peril:
        monkeypatch.setattr(rooms, "TIMEOUT_S", 30)
    room = place(people, f"http://127.0.0.1:{peer.server_port}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tracemalloc.start()
    try:
        query = ask(room)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert reason in query.error, query.error
    assert query.result is None
    assert query.state != "released"
    assert (most < MOST, grown < MOST) == (True, True), (most, grown)


def test_a_group_one_short_of_the_threshold_is_left_out(people: People, peer: Peer) -> None:
    peer.say = lambda desk: desk.send({"rows": [{"segment": "a", "users": 900}, {"segment": "b", "users": 49}, {"segment": "c", "users": 500}]})  # fmt: skip
    query = ask(place(people, f"http://127.0.0.1:{peer.server_port}"))
    assert "b" not in {row["segment"] for row in query.result["rows"]}
    assert query.suppressed >= 1
    assert "total" not in query.result


def test_a_name_that_leads_inside_at_the_second_look_is_refused(
    people: People, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.RMN_OUTBOUND_ALLOW = ["room.example"]
    answers = iter([["93.184.215.14"], ["127.0.0.1"]])
    monkeypatch.setattr(outbound, "_resolve", lambda *_: next(answers))
    query = ask(place(people, "https://room.example"))
    assert "leads to 127.0.0.1, which is not a public address" in query.error
    assert query.result is None


def test_a_certificate_that_has_run_out_is_refused(people: People, peer: Peer, tmp_path: Path, settings: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(now - dt.timedelta(days=9)).not_valid_after(now - dt.timedelta(days=1))
    signed = made.sign(key, hashes.SHA256())
    file = tmp_path / "own.pem"
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())  # fmt: skip
    file.write_bytes(plain + signed.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    peer.socket = context.wrap_socket(peer.socket, server_side=True, do_handshake_on_connect=False)
    peer.say = rows()
    settings.RMN_OUTBOUND_ALLOW = [f"https://127.0.0.1:{peer.server_port}"]
    query = ask(place(people, f"https://127.0.0.1:{peer.server_port}"))
    assert "its certificate is not valid" in query.error
    assert (query.result, peer.asked) == (None, 0)

"""The one way out: what it refuses, what it reaches, what it never follows."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rmn.lib import outbound
from rmn.lib.outbound import NoAnswer, Refused

ROOT = Path(__file__).resolve().parents[2]
REFUSED = [
    "http://rooms.example.com/", "ftp://rooms.example.com/", "file:///etc/passwd", "gopher://rooms.example.com/", "//rooms.example.com/", "rooms.example.com",
    "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/", "https://0177.0.0.1/", "https://127.0.0.1.:443/",
    "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[fe80::1%25eth0]/", "https://[64:ff9b::7f00:1]/",
    "https://0/", "https://0.0.0.0/", "https://localhost/", "https://169.254.169.254/latest/meta-data", "https://10.0.0.1/", "https://192.168.1.1/", "https://172.16.0.1/",
    "https://100.64.0.1/", "https://metadata.google.internal/", "https://rooms.example.com@evil.example/", "https://evil.example#@rooms.example.com/",
    "https://rooms.example.com.evil.example/", "https://evilrooms.example.com/", "https://rooms.example.com:22/", "https://rooms.example.com:99999/",
    "https://user:pass@rooms.example.com/", "https://rooms.example.com\\@evil.example/", "https://rooms.example.com\t.evil.example/", "https://ro\u043ems.example.com/",
    "https://rooms.example.com\r\nHost: evil/", "https://\uff4cocalhost/", "https:///path", "https://", "https://-rooms.example.com/", "https://evil.example/",
    "http://127.0.0.1:1/", "http://localhost:9/", "javascript:alert(1)", "https://%6cocalhost/", "https://ROOMS.example.org/",
]  # fmt: skip
PRIVATE = [
    "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.31.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "64:ff9b::808:808", "2002:7f00:1::", "2001:0:7f00::1", "::7f00:1", "nonsense",
]  # fmt: skip


@pytest.fixture(autouse=True)
def allowed(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.RMN_OUTBOUND_ALLOW = ["rooms.example.com", ".partner.example", "api.example.net:8443"]
    monkeypatch.setattr(outbound, "_resolve", lambda host, port: ["93.184.215.14"])


@pytest.mark.parametrize("url", REFUSED)
def test_spellings_that_lead_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        outbound.check(url)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_leads_inside_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "_resolve", lambda host, port: ["93.184.215.14", address])
    with pytest.raises(Refused, match="not a public address"):
        outbound.check("https://rooms.example.com/")


@pytest.mark.parametrize(
    ("url", "to", "host"),
    [
        ("https://rooms.example.com/a?b=c", "https://93.184.215.14:443/a?b=c", "rooms.example.com"),
        ("https://Rooms.Example.com", "https://93.184.215.14:443/", "rooms.example.com"),
        ("https://eu.west.partner.example/x", "https://93.184.215.14:443/x", "eu.west.partner.example"),
        ("https://api.example.net:8443/x", "https://93.184.215.14:8443/x", "api.example.net:8443"),
    ],
)
def test_an_allowed_host_is_connected_to_by_the_address_that_was_checked(url: str, to: str, host: str) -> None:
    target = outbound.check(url)
    assert (target.url, target.host) == (to, host)


def test_a_name_is_resolved_once_so_that_it_cannot_answer_otherwise_the_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([["93.184.215.14"], ["127.0.0.1"]])
    monkeypatch.setattr(outbound, "_resolve", lambda host, port: next(answers))
    assert "93.184.215.14" in outbound.check("https://rooms.example.com/").url
    assert next(answers) == ["127.0.0.1"]


class Peer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = b"x" * int(self.path.strip("/")) if self.path.strip("/").isdigit() else self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        if self.path == "/moved":
            self.send_response(307)
            self.send_header("Location", "/there")
            self.end_headers()
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = f"{self.headers['Content-Type']} {self.headers.get('Authorization')} ".encode() + body
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def peer(settings: Any) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    settings.RMN_OUTBOUND_ALLOW = [url]
    yield url
    server.shutdown()
    server.server_close()


def test_a_service_of_ones_own_on_loopback_is_reached_where_it_is_named_whole(peer: str) -> None:
    said = outbound.fetch("POST", f"{peer}/query", body={"a": 1}, headers={"Authorization": "Bearer k"})
    assert said.body == b'application/json Bearer k {"a": 1}'
    with pytest.raises(Refused):
        outbound.check("http://127.0.0.1:1/")


def test_redirects_are_followed_only_when_asked_and_only_to_allowed_places(peer: str) -> None:
    with pytest.raises(Refused, match="redirect"):
        outbound.fetch("GET", f"{peer}/to//there")
    assert outbound.fetch("GET", f"{peer}/to//there", redirects=1).body == b"/there"
    for where in ("http://169.254.169.254/", "https://localhost/", "file:///etc/passwd", "http://127.0.0.1:1/"):
        with pytest.raises(Refused):
            outbound.fetch("GET", f"{peer}/to/{where}", redirects=3)
    with pytest.raises(Refused, match="redirect"):
        outbound.fetch("POST", f"{peer}/moved", body={}, redirects=3)


def test_an_answer_too_long_packed_or_never_ending_is_an_error(peer: str) -> None:
    assert len(outbound.fetch("GET", f"{peer}/2000").body) == 2000
    with pytest.raises(NoAnswer, match="more than"):
        outbound.fetch("GET", f"{peer}/2000", most_bytes=1000)
    with pytest.raises(NoAnswer, match="packed"):
        outbound.fetch("GET", f"{peer}/packed")
    with pytest.raises(NoAnswer, match="in time"):
        outbound.fetch("GET", f"{peer}/a", timeout_s=0)
    with pytest.raises(NoAnswer, match="not JSON"):
        outbound.fetch("GET", f"{peer}/a").json()


def test_nothing_listens_and_no_such_name_can_be_tried_again(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.RMN_OUTBOUND_ALLOW = ["http://127.0.0.1:9", "rooms.example.com"]
    with pytest.raises(NoAnswer) as error:
        outbound.fetch("GET", "http://127.0.0.1:9/", timeout_s=2)
    assert error.value.retryable
    monkeypatch.setattr(outbound, "_resolve", lambda host, port: [])
    with pytest.raises(NoAnswer, match="no address"):
        outbound.fetch("GET", "https://rooms.example.com/")


def test_nothing_else_speaks_http_to_the_outside() -> None:
    """The clients of the model server, the launcher's own loopback checks and this module; nobody else."""
    known = {
        "rmn/lib/outbound.py",
        "agents/inference/clients.py",
        "agents/inference/launcher.py",
        "rmn/management/commands/serve.py",
        "rmn/health.py",
    }
    speaks = re.compile(
        r"^\s*(?:import|from) (?:httpx2?|requests|urllib\.request|urllib3|http\.client|aiohttp)\b", re.M
    )
    found = {
        str(path.relative_to(ROOT))
        for app in ("rmn", "retailers", "campaigns", "feedback", "agents", "training")
        for path in (ROOT / app).rglob("*.py")
        if speaks.search(path.read_text(encoding="utf-8"))
    }
    assert found <= known

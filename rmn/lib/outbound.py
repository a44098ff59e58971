"""The one way out: HTTP to addresses that stand in data (clean rooms, webhooks, stores), by an allowlist.

A host must stand in ``RMN_OUTBOUND_ALLOW``. Its name is resolved once, every address found must be a
public one, and the connection goes to that very address, so a name that answers otherwise the second
time leads nowhere. Redirects are followed only where the caller asks, and checked like the first address.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx2
from django.conf import settings

from rmn.lib.errors import RmnError

MOST_BYTES = 16 * 2**20
MOST_REDIRECTS = 3
NAME = re.compile(r"(?=.{1,253}$)(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*\.?")
# ranges that hide another address, or that ``is_global`` of some Python versions lets through
HIDING = [ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")]


class Refused(RmnError):
    """The address may not be reached from here; nothing was sent."""


class NoAnswer(RmnError):
    """The host did not answer as it must; whether it acted is not known."""

    retryable = True


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            NoAnswer: it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise NoAnswer(f"an answer of {len(self.body):,} bytes is not JSON") from None


@dataclass(frozen=True)
class Target:
    """A checked address: where to connect, and what to say there."""

    url: str  # with the address in place of the name
    host: str  # for the Host header
    name: str  # for the certificate


def fetch(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    timeout_s: float = 30.0,
    most_bytes: int = MOST_BYTES,
    redirects: int = 0,
) -> Answer:
    """Ask an allowed host.

    Args:
        body: bytes as they are, anything else as JSON.
        timeout_s: for the whole exchange, redirects included.
        most_bytes: of the answer's body; a longer one is an error.
        redirects: how many may be followed (GET alone); each is checked as the first address was.

    Raises:
        Refused: the address is not allowed; nothing was sent to it.
        NoAnswer: no connection, no answer in time, too long an answer.
    """
    until = time.monotonic() + timeout_s
    for _ in range(min(redirects, MOST_REDIRECTS) + 1):
        answer = _once(method, check(url), headers or {}, body, until, most_bytes)
        where = answer.headers.get("location")
        if answer.status not in (301, 302, 303, 307, 308) or not where:
            return answer
        if method != "GET":
            raise Refused(f"{_shown(url)} answers {method} with a redirect; give the address it leads to")
        before, url = urlsplit(url), urljoin(url, where)
        if urlsplit(url).netloc != before.netloc:  # a key is for the host it was given for
            headers = {name: value for name, value in (headers or {}).items() if name.lower() != "authorization"}
    raise Refused(f"{_shown(url)}: one redirect more than the {redirects} that may be followed")


def check(url: str) -> Target:
    """The address as it may be connected to; its name is resolved here and nowhere else.

    Raises:
        Refused: with the reason.
    """
    parts = _split(url)
    host, port = str(parts.hostname), parts.port
    local = f"{parts.scheme}://{parts.netloc.lower()}"
    if local in _allowed() and _is_loopback(host):
        return Target(url, parts.netloc, host)  # an installation's own service, named with its scheme and port
    if parts.scheme != "https":
        raise Refused(f"{_shown(url)}: https alone goes out")
    if not NAME.fullmatch(host) or _looks_numeric(host):
        raise Refused(f"{_shown(url)}: a host's name is needed, not an address")
    if not _listed(host, port):
        raise Refused(f"{_shown(url)}: {host} is not in RMN_OUTBOUND_ALLOW; ops staff add a host there")
    address = _public(host, port or 443)
    where = f"[{address}]" if ":" in address else address
    rest = parts.path or "/"
    return Target(
        f"https://{where}:{port or 443}{rest}{'?' + parts.query if parts.query else ''}", parts.netloc.lower(), host
    )


def _split(url: str) -> SplitResult:
    if re.search(r"[\x00-\x20\x7f\\]", url) or len(url) > 2000 or not url.isascii():
        raise Refused("an address with spaces, control characters, backslashes or letters outside ASCII")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise Refused(f"{_shown(url)}: not an address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused(f"{_shown(url)}: not an https address")
    if "@" in parts.netloc:
        raise Refused(f"{_shown(url)}: an address with a user name in it")
    return parts


def _allowed() -> set[str]:
    return {str(entry).strip().lower() for entry in settings.RMN_OUTBOUND_ALLOW if str(entry).strip()}


def _listed(host: str, port: int | None) -> bool:
    """host, host:port, or .suffix for all names below it; without a port in the list 443 alone."""
    host = host.rstrip(".")
    names = {host} | {host[at:] for at in range(len(host)) if host[at] == "."}
    if port not in (None, 443):
        names = {f"{name}:{port}" for name in names}
    return bool(names & _allowed())


def _is_loopback(host: str) -> bool:
    return host in ("127.0.0.1", "::1")


def _looks_numeric(host: str) -> bool:
    """Spellings that some resolvers read as an IPv4 address: 2130706433, 0x7f.1, 0177.0.0.1."""
    last = host.rstrip(".").rpartition(".")[2]
    return bool(re.fullmatch(r"\d+|0x[0-9a-f]*", last))


def _public(host: str, port: int) -> str:
    """One address of the host, all of them public.

    Raises:
        NoAnswer: it has none.
        Refused: one of them is not public.
    """
    found = _resolve(host, port)
    if not found:
        raise NoAnswer(f"{host} has no address")
    for address in found:
        if not is_public(address):
            raise Refused(f"{host} leads to {address}, which is not a public address")
    return found[0]


def _resolve(host: str, port: int) -> list[str]:
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def is_public(address: str) -> bool:
    """Whether an address lies in the public internet, and hides no other."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None or any(found in net for net in HIDING):
            return False
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved and not found.is_unspecified


def _once(method: str, target: Target, headers: Mapping[str, str], body: Any, until: float, most_bytes: int) -> Answer:
    left = until - time.monotonic()
    if left <= 0:
        raise NoAnswer(f"{target.name} did not answer in time")
    said = {**headers, "Host": target.host, "Accept-Encoding": "identity"}
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if content is not None and not isinstance(body, bytes):
        said.setdefault("Content-Type", "application/json")
    try:
        with (
            httpx2.Client(timeout=left, follow_redirects=False, trust_env=False) as client,
            client.stream(
                method, target.url, headers=said, content=content, extensions={"sni_hostname": target.name}
            ) as response,
        ):
            if response.headers.get("content-encoding", "identity") != "identity":
                raise NoAnswer(f"{target.name} sends a packed answer, which was not asked for")
            got = bytearray()
            for chunk in response.iter_raw():
                got += chunk
                if len(got) > most_bytes:
                    raise NoAnswer(f"{target.name} sends more than {most_bytes:,} bytes")
                if time.monotonic() > until:
                    raise NoAnswer(f"{target.name} did not end its answer in time")
            return Answer(response.status_code, dict(response.headers), bytes(got))
    except httpx2.HTTPError as error:
        why = "its certificate is not valid" if "CERTIFICATE" in str(error) else type(error).__name__
        raise NoAnswer(f"{target.name}: {why}") from None


def _shown(url: str) -> str:
    """An address for messages: without user, query and length that somebody could hide in."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])[:120]

"""Signatures of Amazon's services, version 4: the headers that prove who asks.

Source: AWS General Reference, "Signature Version 4 signing process".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl, quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Key:
    access_key_id: str
    secret_access_key: str
    session_token: str = ""


def signed(
    method: str, url: str, body: bytes, *, key: Key, region: str, service: str, at: datetime, headers: Mapping[str, str] = {}
) -> dict[str, str]:  # fmt: skip
    """The headers of a request with its signature; the host is signed and not among them.

    Args:
        url: its path stands as it is sent, already percent-encoded.
        at: now, in UTC.
        headers: further ones that are sent and signed.
    """
    parts = urlsplit(url)
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "X-Amz-Date": stamp}
    if key.session_token:
        sent["X-Amz-Security-Token"] = key.session_token
    content = hashlib.sha256(body).hexdigest()
    if service == "s3":
        sent["X-Amz-Content-Sha256"] = content
    told = {name.lower(): " ".join(value.split()) for name, value in {**sent, "Host": parts.netloc.lower()}.items()}
    names = ";".join(sorted(told))
    path = parts.path or "/"
    request = "\n".join(
        [
            method,
            path if service == "s3" else quote(path, safe="/-_.~"),
            "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in parse_qsl(parts.query, True))),
            *(f"{name}:{told[name]}" for name in sorted(told)),
            "",
            names,
            content,
        ]
    )  # fmt: skip
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join([ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    secret = f"AWS4{key.secret_access_key}".encode()
    for word in (stamp[:8], region, service, "aws4_request"):
        secret = hmac.digest(secret, word.encode(), "sha256")
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    said = f"{ALGORITHM} Credential={key.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**sent, "Authorization": said}

"""Questions to clean rooms: wished, paid from a budget, asked once, checked, and only then shown.

The state says how far a question is; each step may be done again after a kill. The room is told the
question's own key with every try, so that a lost answer is not paid for twice where the room heeds it;
here the budget is taken once in any case, before anything is sent.
"""

from __future__ import annotations

import csv
import json
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from agents.domain import rooms
from agents.models import CleanRoomConnection, CleanRoomLedger, CleanRoomQuery
from retailers import audit
from retailers.models import Brand
from rmn.lib import masking, outbound, sealing, sigv4
from rmn.lib.errors import BadInput, NotConfigured, RmnError

TIMEOUT_S = 30.0
POLL_S = 1.0
MOST_BYTES = 4 * 2**20  # of an answer; the most rows that are shown take a quarter of it
STEPS = ("submitted", "queued", "running")
MOST_PAGES = 20  # of a room's own list, of a hundred questions each
State = CleanRoomQuery.State


class RoomRefused(RmnError):
    """The clean room, or what protects people, said no; the budget was given back if nothing was learnt."""


def wish(
    *, brand: Brand, connection: CleanRoomConnection, template: str, parameters: dict[str, Any], by: Any = None
) -> CleanRoomQuery:
    """Record a question; nothing is sent or paid yet.

    Raises:
        BadInput: another brand's room, no such template, wrong parameters.
        NotConfigured: the room has no address or key, or is switched off.
    """
    if connection.brand_id != brand.pk:
        raise BadInput("connection: there is no such clean room")
    asked = _askable(connection, template)
    return CleanRoomQuery.objects.create(
        brand=brand,
        connection=connection,
        template=asked.name,
        parameters=rooms.checked(asked, parameters),
        cost=asked.cost,
        requested_by=by,
        config={"template": asked.name, "parameters": parameters, "query": asked.query},
    )


def _askable(connection: CleanRoomConnection, template: str) -> rooms.Template:
    if not connection.is_active or not connection.endpoint or not connection.sealed_key:
        raise NotConfigured(f"{connection}: no address, no key, or switched off; ops staff set them under Clean room connections")  # fmt: skip
    return rooms.chosen(connection.templates, template)


@transaction.atomic
def propose(**given: Any) -> CleanRoomQuery:
    """Record a question for people to approve; nothing is sent or paid before they do.

    Raises:
        BadInput, NotConfigured: as for a wish.
        RoomRefused: it costs more than is left.
    """
    query = wish(**given)
    if short := _short(query):
        raise RoomRefused(short)
    query.state, query.status, query.finished_at = State.PROPOSED, CleanRoomQuery.Status.SUCCEEDED, timezone.now()
    query.save(update_fields=["state", "status", "finished_at"])
    return query


def send(query: CleanRoomQuery) -> None:
    """Queue a proposed question just as it was proposed. The caller holds its row, and people have approved.

    Raises:
        BadInput, NotConfigured, RoomRefused: it cannot be asked any more, or would be another question.
    """
    asked = _askable(query.connection, query.template)
    if (asked.query, asked.cost) != (query.config.get("query"), query.cost):
        raise BadInput(f"{query}: the reviewed question was changed since; have it proposed again")
    rooms.checked(asked, query.parameters)
    if short := _short(query):
        raise RoomRefused(short)
    query.state, query.status, query.queued_at, query.finished_at = State.INTENT, query.Status.QUEUED, timezone.now(), None  # fmt: skip
    query.save(update_fields=["state", "status", "queued_at", "finished_at"])
    query.enqueue()


def call_back(query: CleanRoomQuery) -> bool:
    """Make a question that was approved wait again; False where somebody works on it by now."""
    queued = CleanRoomQuery.objects.filter(pk=query.pk, status=CleanRoomQuery.Status.QUEUED, state=State.INTENT)
    done = {"state": State.PROPOSED, "status": CleanRoomQuery.Status.SUCCEEDED, "finished_at": timezone.now()}
    return bool(queued.update(**done))


@transaction.atomic
def request(**given: Any) -> CleanRoomQuery:
    """Record a question, and queue it once it is committed."""
    query = wish(**given)
    query.enqueue()
    return query


def used(connection: CleanRoomConnection) -> float:
    """Units of the privacy budget that are taken: reserved, less what was given back."""
    sums = dict(connection.ledger.values_list("entry").annotate(Sum("units")).values_list("entry", "units__sum"))
    return float(sums.get("reserve", 0.0) - sums.get("release", 0.0))


def left(connection: CleanRoomConnection) -> float:
    """Units of the privacy budget that may still be taken."""
    return connection.budget_units - used(connection)


def _short(query: CleanRoomQuery) -> str:
    """Why the budget does not suffice; empty where it does."""
    place, units = query.connection, left(query.connection)
    if query.cost <= units + 1e-9:
        return ""
    return f"{place}: this question costs {query.cost:g} and {units:g} of {place.budget_units:g} are left; ops staff set the budget"


def work(query: CleanRoomQuery) -> None:
    """The work of a question, inside ``query.tracked()``.

    Raises:
        RoomRefused: the budget is used up, the room says no, or the answer would give people away.
        NoAnswer: the room does not answer; the question is asked again with the same key.
    """
    if query.state in (State.PROPOSED, State.REJECTED, State.RELEASED, State.REFUSED):
        return
    connection = query.connection
    asked = rooms.chosen(connection.templates, query.template)
    query.report(0.1, "Taking the cost from the budget")
    _reserve(query)
    try:
        key = sealing.unseal(connection.sealed_key, str(connection.brand.uuid))
        target = connection.endpoint.rstrip("/")
        outbound.check(f"{target}/query")
    except (NotConfigured, outbound.Refused):
        _refuse(query, "nothing was sent")
        raise
    query.report(0.3, "Asking the clean room")
    sent_before = query.state not in (State.INTENT, State.RESERVED)
    _to(query, State.SUBMITTED)
    rows = (
        _from_aws(query, target, key, asked, sent_before)
        if connection.kind == "aws"
        else _rows(query, target, key, asked)
    )
    _to(query, State.FETCHED)
    query.report(0.8, "Checking what may be shown")
    try:
        _show(query, asked, rows)
    except BadInput as error:  # it was learnt, so it stays paid; it is not shown
        _to(query, State.REFUSED)
        raise RoomRefused(str(error)) from None


def _reserve(query: CleanRoomQuery) -> None:
    with transaction.atomic():
        connection = CleanRoomConnection.objects.select_for_update().get(pk=query.connection_id)
        if CleanRoomLedger.objects.filter(query=query, entry="reserve").exists():
            return  # taken before a kill
        query.connection = connection
        short = _short(query)
        if not short:
            CleanRoomLedger.objects.create(
                brand=query.brand, connection=connection, query=query, entry="reserve", units=query.cost
            )
        _to(query, State.REFUSED if short else State.RESERVED)
    if short:
        raise RoomRefused(short)


def _refuse(query: CleanRoomQuery, why: str) -> None:
    """End a question of which nothing was learnt: its cost goes back to the budget."""
    with transaction.atomic():
        CleanRoomLedger.objects.get_or_create(
            query=query, entry="release", defaults={"brand": query.brand, "connection": query.connection, "units": query.cost}
        )  # fmt: skip
        _to(query, State.REFUSED)
        audit.record(
            brand=query.brand, actor="clean room", action="question refused", subject=query, payload={"why": why}
        )


def _to(query: CleanRoomQuery, state: str) -> None:
    query.state = state
    query.save(update_fields=["state"])


def _rows(query: CleanRoomQuery, target: str, key: str, asked: rooms.Template) -> Any:
    """The room's answer, waited for where it takes its time."""
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": query.pk.hex}
    body = {"query": asked.query, "template": asked.name, "parameters": query.parameters, "client_token": query.pk.hex}
    until = time.monotonic() + TIMEOUT_S
    answer = outbound.fetch(
        "POST", f"{target}/query", headers=headers, body=body, timeout_s=TIMEOUT_S, most_bytes=MOST_BYTES
    )
    step = 0
    while True:
        if answer.status >= 500 or answer.status == 429:
            raise outbound.NoAnswer(f"{query.connection} answers {answer.status}; it is asked again")
        if answer.status >= 400:
            _refuse(query, f"status {answer.status}")
            raise RoomRefused(f"{query.connection} refuses the question with status {answer.status}")
        said = answer.json()
        if isinstance(said, list):
            return said
        if not isinstance(said, dict):
            raise outbound.NoAnswer(f"{query.connection} answers with something else than rows")
        if said.get("status") not in STEPS:
            return said.get("rows")
        if STEPS.index(said["status"]) < step:
            raise outbound.NoAnswer(
                f"the status of {query.connection} goes back from {STEPS[step]} to {said['status']}"
            )
        step = STEPS.index(said["status"])
        query.peer_id = str(said.get("id", ""))[:160]
        query.state = State.RUNNING
        query.save(update_fields=["peer_id", "state"])
        if time.monotonic() + POLL_S > until or not query.peer_id.replace("-", "").isalnum():
            raise outbound.NoAnswer(f"{query.connection} is still at work; it is asked again")
        time.sleep(POLL_S)
        answer = outbound.fetch(
            "GET", f"{target}/query/{query.peer_id}", headers=headers, timeout_s=TIMEOUT_S, most_bytes=MOST_BYTES
        )


# -- AWS Clean Rooms: it takes no key of ours with a submit, so a lost answer is looked for before anything is sent again


def _from_aws(query: CleanRoomQuery, target: str, key: str, asked: rooms.Template, sent_before: bool) -> Any:
    """The rows of a protected query: started once, waited for, fetched from the bucket that it wrote to.

    The endpoint is ``https://cleanrooms.REGION.amazonaws.com/memberships/ID``; the key is JSON with access_key_id,
    secret_access_key, output (``s3://bucket/prefix``), and where needed session_token, region, s3_endpoint.
    """
    account = _account(query, target, key)
    mark = f"{account.prefix}{query.pk.hex}"
    if not query.peer_id and sent_before:
        query.peer_id = _find(query, target, account, mark)
    if not query.peer_id:
        how: dict[str, Any] = (
            {
                "analysisTemplateArn": asked.arn,
                "parameters": {name: str(value) for name, value in query.parameters.items()},
            }
            if asked.arn
            else {"queryString": rooms.rendered(asked, query.parameters)}
        )
        kept = {"s3": {"resultFormat": "CSV", "bucket": account.bucket, "keyPrefix": mark, "singleFileOutput": True}}
        body = {"type": "SQL", "sqlParameters": how, "resultConfiguration": {"outputConfiguration": kept}}
        said = _ask_aws(query, account, "POST", f"{target}/protectedQueries", body)
        query.peer_id = _peer(said["protectedQuery"].get("id"))
    query.state = State.RUNNING
    query.save(update_fields=["peer_id", "state"])
    until = time.monotonic() + TIMEOUT_S
    while True:
        told = _ask_aws(query, account, "GET", f"{target}/protectedQueries/{query.peer_id}")["protectedQuery"]
        if told["status"] == "SUCCESS":
            break
        if told["status"] in ("FAILED", "CANCELLED", "TIMED_OUT"):
            _refuse(query, f"status {told['status']}")
            raise RoomRefused(f"{query.connection} ended the question as {told['status']}")
        if time.monotonic() + POLL_S > until:
            raise outbound.NoAnswer(f"{query.connection} is still at work; it is asked again")
        time.sleep(POLL_S)
    output = (told.get("result") or {}).get("output") or {}
    where = str((output.get("s3") or {}).get("location")).removeprefix("s3://")
    if not where.startswith(f"{account.bucket}/{mark}") or ".." in where:
        _to(query, State.REFUSED)
        raise RoomRefused(f"{query.connection} names a result outside of {account.bucket}/{mark}; it is not fetched")
    url = f"{account.s3}/{quote(where)}"
    headers = sigv4.signed("GET", url, b"", key=account.key, region=account.region, service="s3", at=timezone.now())
    answer = outbound.fetch("GET", url, headers=headers, timeout_s=TIMEOUT_S, most_bytes=MOST_BYTES)
    if answer.status != 200:
        raise outbound.NoAnswer(f"the bucket of {query.connection} answers {answer.status}; it is asked again")
    try:
        return rooms.table(answer.body.decode())
    except (BadInput, UnicodeDecodeError, csv.Error) as error:
        _to(query, State.REFUSED)
        raise RoomRefused(f"{query.connection}: its answer is no table: {error}") from None


@dataclass(frozen=True)
class _Account:
    key: sigv4.Key
    region: str
    bucket: str
    prefix: str
    s3: str


def _account(query: CleanRoomQuery, target: str, key: str) -> _Account:
    host = urlsplit(target).hostname or ""
    try:
        given = json.loads(key)
        found = re.fullmatch(r"cleanrooms\.([a-z0-9-]+)\.amazonaws\.com", host)
        region = given.get("region") or (found.group(1) if found else "")
        output = re.fullmatch(r"s3://([a-z0-9.-]{3,63})/?([\w!.=*/-]*)", given["output"])
        if not region or output is None:
            raise ValueError
        bucket, prefix = output.groups()
        own = sigv4.Key(given["access_key_id"], given["secret_access_key"], given.get("session_token", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        _refuse(query, "nothing was sent")
        raise NotConfigured(
            f"{query.connection}: the key of an AWS room is JSON with access_key_id, secret_access_key and output"
            " (s3://bucket/prefix); region too, unless the endpoint names it; ops staff enter it again"
        ) from None
    s3 = given.get("s3_endpoint") or f"https://s3.{region}.amazonaws.com"
    return _Account(own, region, bucket, f"{prefix.rstrip('/')}/" if prefix else "", s3.rstrip("/"))


def _find(query: CleanRoomQuery, target: str, account: _Account, mark: str) -> str:
    """What the room calls the question, if a submit whose answer was lost did reach it."""
    page, since = "", query.created_at.timestamp() - 60
    for _ in range(MOST_PAGES):
        more = f"&nextToken={quote(page, safe='')}" if page else ""
        said = _ask_aws(query, account, "GET", f"{target}/protectedQueries?maxResults=100{more}")
        for row in said["protectedQueries"]:
            if float(row["createTime"]) < since:
                continue
            one = _ask_aws(query, account, "GET", f"{target}/protectedQueries/{_peer(row['id'])}")["protectedQuery"]
            output = (one.get("resultConfiguration") or {}).get("outputConfiguration") or {}
            if (output.get("s3") or {}).get("keyPrefix") == mark:
                return _peer(row["id"])
        page = said.get("nextToken") or ""
        if not page:
            return ""
    raise outbound.NoAnswer(f"{query.connection} lists too many questions to find ours; nothing is sent again")


def _peer(given: Any) -> str:
    if not re.fullmatch(r"[0-9a-f-]{36}", str(given)):
        raise outbound.NoAnswer("the clean room names its question by something else than an id")
    return str(given)


def _ask_aws(query: CleanRoomQuery, account: _Account, method: str, url: str, body: Any = None) -> dict[str, Any]:
    content = b"" if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if content else {}
    headers = sigv4.signed(
        method, url, content, key=account.key, region=account.region, service="cleanrooms", at=timezone.now(), headers=sent
    )  # fmt: skip
    answer = outbound.fetch(
        method, url, headers=headers, body=content or None, timeout_s=TIMEOUT_S, most_bytes=MOST_BYTES
    )
    if answer.status >= 500 or answer.status == 429 or (answer.status >= 400 and method == "GET"):
        raise outbound.NoAnswer(f"{query.connection} answers {answer.status}; it is asked again")
    if answer.status >= 400:
        _refuse(query, f"status {answer.status}")
        raise RoomRefused(f"{query.connection} refuses the question with status {answer.status}")
    said = answer.json()
    try:
        one = (
            said["protectedQueries"]
            if url.partition("?")[0].endswith("/protectedQueries") and method == "GET"
            else said["protectedQuery"]
        )
        if isinstance(one, dict) and not isinstance(one.get("status"), str):
            raise TypeError
    except (KeyError, TypeError):
        raise outbound.NoAnswer(f"{query.connection} answers in another shape than AWS Clean Rooms") from None
    return dict(said)


@transaction.atomic
def _show(query: CleanRoomQuery, asked: rooms.Template, rows: Any) -> None:
    """Keep what may be shown, with its line in the ledger and in the audit chain."""
    k = query.connection.k_threshold
    kept, left_out = rooms.protected(rows, asked.count, k)
    rooms.only_asked(asked, rows)
    mask = masking.of(query.brand, prose=False)  # a group may be named after somebody
    rows, kept = masking.told(rows, mask), masking.told(kept, mask)
    total = sum(row[asked.count] for row in rows)
    earlier = CleanRoomQuery.objects.filter(connection=query.connection, state=State.RELEASED, result__isnull=False)
    if rooms.few_apart(rows, asked.count, earlier.values_list("result", flat=True), k):
        raise BadInput(
            f"{query.connection}: this answer and an earlier one differ by fewer than {k} people; it is not shown"
        )
    # a total beside rows that were left out would give them away
    query.result = {"rows": kept} if left_out else {"rows": kept, "total": total}
    query.suppressed = left_out
    query.state = State.RELEASED
    query.save(update_fields=["result", "suppressed", "state"])
    CleanRoomLedger.objects.get_or_create(
        query=query, entry="spend", defaults={"brand": query.brand, "connection": query.connection, "units": query.cost}
    )
    audit.record(
        brand=query.brand,
        actor=getattr(query.requested_by, "username", "") or "clean room",
        action="clean room answer released",
        subject=query,
        payload={"template": asked.name, "rows": len(kept), "left out": left_out, "cost": query.cost},
    )

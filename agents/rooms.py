"""Questions to clean rooms: wished, paid from a budget, asked once, checked, and only then shown.

The state says how far a question is; each step may be done again after a kill. The room is told the
question's own key with every try, so that a lost answer is not paid for twice where the room heeds it;
here the budget is taken once in any case, before anything is sent.
"""

from __future__ import annotations

import time
from typing import Any

from django.db import transaction
from django.db.models import Sum

from agents.domain import rooms
from agents.models import CleanRoomConnection, CleanRoomLedger, CleanRoomQuery
from retailers import audit
from retailers.models import Brand
from rmn.lib import outbound, sealing
from rmn.lib.errors import BadInput, NotConfigured, RmnError

TIMEOUT_S = 30.0
POLL_S = 1.0
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
    if not connection.is_active or not connection.endpoint or not connection.sealed_key:
        raise NotConfigured(f"{connection}: no address, no key, or switched off; ops staff set them under Clean room connections")  # fmt: skip
    asked = rooms.chosen(connection.templates, template)
    return CleanRoomQuery.objects.create(
        brand=brand,
        connection=connection,
        template=asked.name,
        parameters=rooms.checked(asked, parameters),
        cost=asked.cost,
        requested_by=by,
        config={"template": asked.name, "parameters": parameters},
    )


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


def work(query: CleanRoomQuery) -> None:
    """The work of a question, inside ``query.tracked()``.

    Raises:
        RoomRefused: the budget is used up, the room says no, or the answer would give people away.
        NoAnswer: the room does not answer; the question is asked again with the same key.
    """
    if query.state in (State.RELEASED, State.REFUSED):
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
    _to(query, State.SUBMITTED)
    rows = _rows(query, target, key, asked)
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
        left = connection.budget_units - used(connection)
        enough = query.cost <= left + 1e-9
        if enough:
            CleanRoomLedger.objects.create(
                brand=query.brand, connection=connection, query=query, entry="reserve", units=query.cost
            )
        _to(query, State.RESERVED if enough else State.REFUSED)
    if not enough:
        raise RoomRefused(
            f"{connection}: this question costs {query.cost:g} and {left:g} of {connection.budget_units:g} are left;"
            " ops staff set the budget"
        )


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
    answer = outbound.fetch("POST", f"{target}/query", headers=headers, body=body, timeout_s=TIMEOUT_S)
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
        if said.get("status") not in ("running", "queued", "submitted"):
            return said.get("rows")
        query.peer_id = str(said.get("id", ""))[:160]
        query.state = State.RUNNING
        query.save(update_fields=["peer_id", "state"])
        if time.monotonic() + POLL_S > until or not query.peer_id.replace("-", "").isalnum():
            raise outbound.NoAnswer(f"{query.connection} is still at work; it is asked again")
        time.sleep(POLL_S)
        answer = outbound.fetch("GET", f"{target}/query/{query.peer_id}", headers=headers, timeout_s=TIMEOUT_S)


@transaction.atomic
def _show(query: CleanRoomQuery, asked: rooms.Template, rows: Any) -> None:
    """Keep what may be shown, with its line in the ledger and in the audit chain."""
    k = query.connection.k_threshold
    kept, left_out = rooms.protected(rows, asked.count, k)
    total = sum(row[asked.count] for row in rows)
    earlier = CleanRoomQuery.objects.filter(connection=query.connection, template=asked.name, state=State.RELEASED)
    totals = [int(found["total"]) for found in earlier.values_list("result", flat=True) if found and "total" in found]
    if rooms.too_close(total, totals, k):
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
